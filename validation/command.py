"""``python -m validation``: run the checks, print one line for each implementation, output and dtype, and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dvaepp.command import console, parse
from dvaepp.config import unknown
from dvaepp.errors import ConfigError
from validation import accuracy, agreement, gradients
from validation.cases import Cases, all_cases, zeta_cases
from validation.tolerances import TRANSFORM_MIXED_ERROR, TWIN_MIXED_ERROR

PROG = "validation"
DTYPES = ("float32", "float64")
N_RANDOM = 3000
QUICK_STEP = 7  # coprime to the lengths of the edge grid, so that a thinned grid still meets every edge


@dataclass(frozen=True)
class Row:
    """One judged output."""

    implementation: str
    output: str
    dtype: str
    mixed_error: float
    bound: float
    where: str

    @property
    def holds(self) -> bool:
        """Whether the error keeps its bound (NaN does not)."""
        return self.mixed_error <= self.bound


def accuracy_rows(cases: Cases) -> Iterator[Row]:
    """Every implementation against multi-precision arithmetic."""
    for name, implementation in accuracy.IMPLEMENTATIONS.items():
        result = implementation(cases.rho, cases.logit_q, cases.beta)
        for worst in accuracy.mixed_errors(result, cases.rho, cases.logit_q, cases.beta).values():
            yield _row(name, worst, cases, TRANSFORM_MIXED_ERROR)


def agreement_rows(cases: Cases) -> Iterator[Row]:
    """Every torch twin against its reference."""
    for name, operation in agreement.OPERATIONS.items():
        for worst in agreement.disagreements(operation, cases).values():
            yield _row(name, worst, cases, TWIN_MIXED_ERROR)


def _row(name: str, worst: accuracy.WorstCase | agreement.Disagreement, cases: Cases, bound: float) -> Row:
    return Row(name, worst.output, cases.rho.dtype.name, worst.mixed_error, bound, worst.where)


def kind_rows(cases: Cases) -> Iterator[Row]:
    """Every kind of smoothing in the reference, everything it offers, against multi-precision arithmetic."""
    for kind, smoothing in accuracy.REFERENCE.items():
        result = accuracy.reference_inverse_cdf(cases.rho, cases.logit_q, cases.beta, kind)
        for worst in accuracy.mixed_errors(result, cases.rho, cases.logit_q, cases.beta, kind).values():
            yield _row(kind, worst, cases, TRANSFORM_MIXED_ERROR)
        at = zeta_cases(cases, cases.rho.dtype, seed=1, unit_interval=smoothing.unit_interval)
        forward = accuracy.reference_forward(at.rho, at.logit_q, at.beta, kind)
        for worst in accuracy.forward_errors(forward, at.rho, at.logit_q, at.beta, kind).values():
            yield _row(kind, worst, cases, TRANSFORM_MIXED_ERROR)


def _judge(
    title: str, rows_of: Callable[[Cases], Iterator[Row]], thinning: int = 1
) -> Callable[[Command, Console], int]:
    """A check that judges rows of mixed errors on one of every ``thinning`` cases."""

    def check(command: Command, out: Console) -> int:
        dtypes = DTYPES if command.dtype is None else (_dtype(command.dtype),)
        step = thinning * (QUICK_STEP if command.quick else 1)
        cases = [all_cases(N_RANDOM, np.dtype(dtype), command.seed)[::step] for dtype in dtypes]
        with out.status(f"{title} ..."):
            rows = [row for some in cases for row in rows_of(some)]
        _print_in_full(_table(f"{title}, {len(cases[0])} cases", rows), out)
        return sum(not row.holds for row in rows)

    return check


def _gradients(command: Command, out: Console) -> int:
    """Gradient estimators against exact gradients; the biased ones are measured, not judged."""
    with out.status("gradients ..."):
        rows = gradients.table(command.draws // (QUICK_STEP if command.quick else 1), command.seed)
    _print_in_full(gradients.render(rows), out)
    return sum(not row.holds for row in rows)


#: Each check prints its table and returns how many of its bounds do not hold.
CHECKS: dict[str, Callable[[Command, Console], int]] = {
    "accuracy": _judge("accuracy: implementations against multi-precision arithmetic", accuracy_rows),
    # Thinned, for the truth of a kind costs up to a tenth of a second a point.
    "kinds": _judge("kinds: all smoothings of the reference against multi-precision arithmetic", kind_rows, QUICK_STEP),
    "agreement": _judge("agreement: torch twins against the reference", agreement_rows),
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
    out = console()
    failed = sum(CHECKS[name](command, out) for name in command.checks or tuple(CHECKS))
    out.print(f"{failed} bounds do not hold" if failed else "all bounds hold", style="red" if failed else None)
    return int(failed > 0)


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
        verdict = "holds" if row.holds else Text("FAILS", style="red")
        worst, bound = f"{row.mixed_error:.3g}", f"{row.bound:g}"
        table.add_row(row.implementation, row.output, row.dtype, worst, bound, verdict, row.where)
    return table
