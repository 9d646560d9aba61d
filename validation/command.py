"""``python -m validation``: run the checks, print one line for each implementation, output and dtype, and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from rich.table import Table
from rich.text import Text

from dvaepp.command import console, parse
from dvaepp.config import unknown
from dvaepp.errors import ConfigError
from validation import accuracy, agreement
from validation.cases import Cases, all_cases
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


#: Each check with its title; what a row names is an implementation or an operation.
CHECKS: dict[str, tuple[str, Callable[[Cases], Iterator[Row]]]] = {
    "accuracy": ("accuracy: implementations against multi-precision arithmetic", accuracy_rows),
    "agreement": ("agreement: torch twins against the reference", agreement_rows),
}


@dataclass(frozen=True)
class Command:
    """Judge the implementations; exit code 0 if every bound holds, 1 if one does not, 2 for bad arguments."""

    checks: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[accuracy] [agreement]")] = ()
    """Checks to run; none named: all."""
    quick: bool = False
    """A seventh of the cases."""
    seed: int = 0
    """Seed of the random cases."""
    dtype: Annotated[str | None, tyro.conf.arg(metavar="{float32,float64}")] = None
    """Precision to judge; not given: both."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 if every bound holds, 1 if one does not."""
    command = parse(Command, arguments, PROG)
    for name in command.checks:
        if name not in CHECKS:
            raise ConfigError(f"{unknown('check', name, CHECKS)}  ({PROG} --help)")
    if command.seed < 0:
        raise ConfigError(f"seed must not be negative; got {command.seed}")
    dtypes = DTYPES if command.dtype is None else (_dtype(command.dtype),)
    cases = [all_cases(N_RANDOM, np.dtype(dtype), command.seed) for dtype in dtypes]
    if command.quick:
        cases = [some[::QUICK_STEP] for some in cases]
    out = console()
    failed = 0
    for name in command.checks or tuple(CHECKS):
        title, rows_of = CHECKS[name]
        with out.status(f"{title} ..."):
            rows = [row for some in cases for row in rows_of(some)]
        table = _table(f"{title}, {len(cases[0])} cases", rows)
        # As wide as it needs, whatever the terminal: an input that is cut or folded cannot be replayed.
        out.width = max(out.width, out.measure(table, options=out.options.update(width=1000)).maximum)
        out.print(table)
        failed += sum(not row.holds for row in rows)
    out.print(f"{failed} bounds do not hold" if failed else "all bounds hold", style="red" if failed else None)
    return int(failed > 0)


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
