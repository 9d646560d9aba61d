"""``python -m validation``: run the checks, print one line for each implementation, output and dtype, and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

import accelerated
from accelerated import Backend
from dvaepp.command import console, parse
from dvaepp.config import unknown
from dvaepp.errors import ConfigError
from validation import accuracy, agreement, gradients, implementations
from validation.agreement import Finding
from validation.cases import Cases, all_cases, zeta_cases
from validation.tolerances import TRANSFORM_MIXED_ERROR

PROG = "validation"
DTYPES = ("float32", "float64")
N_RANDOM = 3000
QUICK_STEP = 7  # coprime to the lengths of the edge grid, so that a thinned grid still meets every edge


@dataclass(frozen=True)
class Row:
    """One judged output of one implementation."""

    implementation: str
    dtype: str
    finding: Finding


@dataclass(frozen=True)
class Judged:
    """Who is judged: the backends that run, and, unless backends were named, the reference and its torch twins."""

    backends: tuple[Backend, ...]
    others: bool


def accuracy_rows(cases: Cases, judged: Judged, seed: int) -> Iterator[Row]:
    """Every implementation of the overlapping exponentials against multi-precision arithmetic."""
    chosen = dict(implementations.IMPLEMENTATIONS) if judged.others else {}
    chosen |= {backend.name: implementations.inverse_cdf_of(backend, "exponential") for backend in judged.backends}
    for name, implementation in chosen.items():
        result = implementation(cases.rho, cases.logit_q, cases.beta)
        yield from _rows(name, cases, accuracy.mixed_errors(result, cases.rho, cases.logit_q, cases.beta))


def kind_rows(cases: Cases, judged: Judged, seed: int) -> Iterator[Row]:
    """Every kind of smoothing against multi-precision arithmetic: all the reference offers, and the kernels."""
    for kind, smoothing in accuracy.REFERENCE.items():
        if judged.others:
            result = accuracy.reference_inverse_cdf(cases.rho, cases.logit_q, cases.beta, kind)
            yield from _rows(kind, cases, accuracy.mixed_errors(result, cases.rho, cases.logit_q, cases.beta, kind))
            at = zeta_cases(cases, cases.rho.dtype, seed=1, unit_interval=smoothing.unit_interval)
            forward = accuracy.reference_forward(at.rho, at.logit_q, at.beta, kind)
            yield from _rows(kind, cases, accuracy.forward_errors(forward, at.rho, at.logit_q, at.beta, kind))
        for name in (name for name, of in accuracy.BACKEND_KINDS.items() if of == kind):
            for backend in judged.backends:
                found = implementations.inverse_cdf_of(backend, name)(cases.rho, cases.logit_q, cases.beta)
                worst = accuracy.mixed_errors(found, cases.rho, cases.logit_q, cases.beta, kind)
                yield from _rows(f"{backend.name}, {kind}", cases, worst)


def agreement_rows(cases: Cases, judged: Judged, seed: int) -> Iterator[Row]:
    """Every torch twin and every operation of every backend against the reference."""
    dtype = cases.rho.dtype.name
    if judged.others:
        for name, operation in implementations.TWINS.items():
            for finding in agreement.disagreements(operation, cases):
                yield Row(f"torch {name}", dtype, finding)
    for backend in judged.backends:
        for name, finding in agreement.examine(backend, cases, seed):
            yield Row(f"{backend.name} {name}", dtype, finding)


def _rows(name: str, cases: Cases, worst: Mapping[str, accuracy.WorstCase]) -> Iterator[Row]:
    for one in worst.values():
        yield Row(name, cases.rho.dtype.name, Finding(one.output, one.mixed_error, TRANSFORM_MIXED_ERROR, one.where))


def _judge(
    title: str, rows_of: Callable[[Cases, Judged, int], Iterator[Row]], thinning: int = 1
) -> Callable[[Command, Judged, Console], int]:
    """A check that judges on one of every ``thinning`` cases."""

    def check(command: Command, judged: Judged, out: Console) -> int:
        dtypes = DTYPES if command.dtype is None else (_dtype(command.dtype),)
        step = thinning * (QUICK_STEP if command.quick else 1)
        cases = [all_cases(N_RANDOM, np.dtype(dtype), command.seed)[::step] for dtype in dtypes]
        with out.status(f"{title} ..."):
            rows = [row for some in cases for row in rows_of(some, judged, command.seed)]
        _print_in_full(_table(f"{title}, {len(cases[0])} cases", rows), out)
        return sum(not row.finding.holds for row in rows)

    return check


def _gradients(command: Command, judged: Judged, out: Console) -> int:
    """Gradient estimators against exact gradients; the biased ones are measured, not judged."""
    with out.status("gradients ..."):
        rows = gradients.table(command.draws // (QUICK_STEP if command.quick else 1), command.seed)
    _print_in_full(gradients.render(rows), out)
    return sum(not row.holds for row in rows)


#: Each check prints its table and returns how many of its bounds do not hold.
CHECKS: dict[str, Callable[[Command, Judged, Console], int]] = {
    "accuracy": _judge("accuracy: implementations against multi-precision arithmetic", accuracy_rows),
    # Thinned, for the truth of a kind costs up to a tenth of a second a point.
    "kinds": _judge("kinds: all smoothings against multi-precision arithmetic", kind_rows, QUICK_STEP),
    "agreement": _judge("agreement: torch twins and backends against the reference", agreement_rows),
    "gradients": _gradients,
}


@dataclass(frozen=True)
class Command:
    """Judge the implementations; exit code 0 if every bound holds, 1 if one does not, 2 for bad arguments."""

    checks: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[accuracy] [kinds] [agreement] [gradients]")
    ] = ()
    """Checks to run; none named: all."""
    quick: bool = False
    """A seventh of the cases, and of the draws."""
    seed: int = 0
    """Seed of the random cases, and of the draws."""
    dtype: Annotated[str | None, tyro.conf.arg(metavar="{float32,float64}")] = None
    """Precision to judge; not given: both."""
    backend: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """Judge this backend alone (repeatable); not given: the reference, its twins and every backend that can run."""
    draws: int = gradients.N_DRAWS
    """Draws of the noise for the gradients."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 if every bound holds, 1 if one does not."""
    command = parse(Command, arguments, PROG)
    for name in command.checks:
        if name not in CHECKS:
            raise ConfigError(f"{unknown('check', name, CHECKS)}  ({PROG} --help)")
    if command.seed < 0:
        raise ConfigError(f"seed must not be negative; got {command.seed}")
    least = gradients.FEWEST_DRAWS * (QUICK_STEP if command.quick else 1)
    if command.draws < least:
        raise ConfigError(f"draws must be at least {least}; got {command.draws}")
    if command.dtype is not None:
        _dtype(command.dtype)
    running, unavailable = implementations.backends(command.backend or _all_but_the_reference())
    if unavailable and command.backend:
        raise ConfigError("; ".join(unavailable.values()))
    out = console()
    for reason in unavailable.values():
        out.print(reason, soft_wrap=True, highlight=False)
    judged = Judged(tuple(running), others=not command.backend)
    # Gradient estimators have no kernels.
    checks = command.checks or tuple(name for name in CHECKS if judged.others or name != "gradients")
    failed = sum(CHECKS[name](command, judged, out) for name in checks)
    out.print(f"{failed} bounds do not hold" if failed else "all bounds hold", style="red" if failed else None)
    return int(failed > 0)


def _all_but_the_reference() -> list[str]:
    """The backends to judge when none is named; numpy_oracle is the reference itself."""
    return [name for name in accelerated.names() if name != "numpy_oracle"]


def _print_in_full(table: Table, out: Console) -> None:
    """As wide as it needs, whatever the terminal: an input that is cut or folded cannot be replayed."""
    out.width = max(out.width, out.measure(table, options=out.options.update(width=1000)).maximum)
    out.print(table)


def _dtype(name: str) -> str:
    if name not in DTYPES:
        raise ConfigError(f"{unknown('dtype', name, DTYPES)}  ({PROG} --help)")
    return name


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("of", "output", "dtype", "worst", "bound", "verdict", "worst at"):
        table.add_column(column, justify="right" if column in ("worst", "bound") else "left", no_wrap=True)
    for row in rows:
        found = row.finding
        verdict = "holds" if found.holds else Text("FAILS", style="red")
        worst, bound = f"{found.error:.3g}", f"{found.bound:g}"
        table.add_row(row.implementation, found.output, row.dtype, worst, bound, verdict, found.where)
    return table
