"""What checks are made of and what they produce: tasks, findings, and rows with all it takes to see them again.

A *task* is the smallest thing that can be asked for, run in a process of its own and run again: one check of one
operation of one subject (the implementation that is judged) in one dtype. A check's module turns a request into tasks
and performs them, which yields *findings*. A *row* is a finding with its task, its verdict and the command that shows
it again; a task that raised, hung or died has one row that says so.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from accelerated.protocol import KINDS

#: The names of the smoothings, as ``--kind`` takes them; see ``reference.smoothing``.
ALL_KINDS = ("exponential", "logistic", "spike_exponential", "power", "gaussian", "uniform_exponential", "concrete")
DTYPES = ("float32", "float64")

#: The operation that the row of a subject is about that could not even be loaded.
LOADING = "load"


class Status(StrEnum):
    """Verdict on a row."""

    HOLDS = "holds"
    FAILS = "FAILS"
    MEASURED = "measured"  # a number without a bound
    RAISES = "RAISES"
    HANGS = "HANGS"
    DIES = "DIES"  # took its process with it
    LACKS = "LACKS IT"  # the subject does not have the operation
    CANNOT_RUN = "cannot run here"  # found, not asked for by name, and lacking its device or library

    @property
    def good(self) -> bool:
        """Whether a run with this row may still succeed."""
        return self in (Status.HOLDS, Status.MEASURED, Status.CANNOT_RUN)


@dataclass(frozen=True)
class Statistic:
    """An estimate beside the truth: what a finding of ``validation.statistics`` was made from, all in ``unit``.

    ``catches``: an error of this size would be found with a probability of ``statistics.POWER``.
    """

    estimate: float
    truth: float
    standard_error: float
    catches: float
    unit: str


@dataclass(frozen=True)
class Finding:
    """The worst of one output, its bound, and what it was found on.

    ``error`` and ``bound`` are in ``unit``. ``at`` is the input as the option ``--at`` takes it, where a single input
    is at fault. Without ``judged`` the error is a measurement, and the bound means nothing. ``catches`` says in words
    what size of error the check would notice, where it is a matter of chance.
    """

    output: str
    error: float
    bound: float
    where: str = ""
    unit: str = "roundings"
    judged: bool = True
    at: str = ""
    got: float | None = None
    expected: float | None = None
    catches: str = ""
    statistic: Statistic | None = None

    @property
    def holds(self) -> bool:
        """Whether the error keeps its bound (NaN does not)."""
        return self.error <= self.bound

    @property
    def status(self) -> Status:
        """The verdict."""
        if not self.judged:
            return Status.MEASURED
        return Status.HOLDS if self.holds else Status.FAILS


@dataclass(frozen=True)
class ErrorMap:
    """Mixed errors of an inverse CDF over a grid at one sharpness: the largest over its outputs, at each point.

    Shapes   rho (R,), logit_q (L,) ascending; error (L, R), which may be infinite
    """

    subject: str
    kind: str
    dtype: str
    beta: float
    rho: tuple[float, ...]
    logit_q: tuple[float, ...]
    error: tuple[tuple[float, ...], ...]
    bound: float


@dataclass(frozen=True)
class Task:
    """What is run: see the module's head. ``fault`` names a fault of ``validation.faults`` to plant beforehand."""

    check: str
    subject: str
    operation: str
    kind: str = ""
    dtype: str = ""
    seed: int = 0
    quick: bool = False
    at: str = ""
    maps: bool = False  # yield error maps too
    fault: str = ""

    @property
    def command(self) -> str:
        """The command line that performs this task, and nothing else."""
        words = ["python", "-m", "validation", self.check]
        if self.fault:
            return shlex.join([*words, "--fault", self.fault, *(["--seed", str(self.seed)] if self.seed else [])])
        if self.check == "tables":  # whose subjects are records
            return shlex.join([*words, "--runs", self.subject])
        operation = self.operation if self.operation != LOADING else ""
        flags = {"backend": self.subject, "operation": operation, "kind": self.kind, "dtype": self.dtype}
        flags |= {"seed": str(self.seed) if self.seed else "", "at": self.at}
        words += [word for name, value in flags.items() if value for word in (f"--{name}", value)]
        return shlex.join(words + ["--quick"] * self.quick)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    task: Task
    status: Status
    finding: Finding | None = None
    message: str = ""

    @property
    def reproduce(self) -> str:
        """The command that shows this row again: its single input where there is one, else its task."""
        at = self.finding.at if self.finding else ""
        return Task(**asdict(self.task) | {"at": at or self.task.at}).command

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that JSON does not have are the strings inf, -inf and nan."""
        task, finding = asdict(self.task), asdict(self.finding) if self.finding else None
        row = {"status": self.status.value, "good": self.status.good, "message": self.message} | task
        return plain(row | {"finding": finding, "reproduce": self.reproduce})


@dataclass(frozen=True)
class Subject:
    """Who is judged, as far as is known before it is: see ``validation.subjects``.

    ``kinds``: the smoothings it has. ``reasons`` may say why an operation is lacking. ``is_backend`` is false for the
    reference and its torch twins.
    """

    name: str
    operations: frozenset[str]
    kinds: tuple[str, ...] = KINDS
    device: str = "cpu"
    is_backend: bool = True
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What was asked for; empty: everything."""

    kinds: tuple[str, ...] = ALL_KINDS
    dtypes: tuple[str, ...] = DTYPES
    operations: tuple[str, ...] = ()
    seed: int = 0
    quick: bool = False
    at: str = ""
    maps: bool = False

    def wants(self, operation: str) -> bool:
        """Whether an operation is among those asked for."""
        return not self.operations or operation in self.operations


class Check(Protocol):
    """What a module of checks offers."""

    def tasks(self, subject: Subject, request: Request) -> list[Task]:
        """What there is to be done about a subject; only its description is looked at, it is not run."""
        ...

    def perform(self, task: Task) -> Iterator[Finding | ErrorMap]:
        """Do it."""
        ...


def rows_of(task: Task, findings: Sequence[Finding]) -> list[Row]:
    """The rows of a task that ended as it should."""
    return [Row(task, finding.status, finding) for finding in findings]


def plain(value: Any) -> Any:
    """The value as JSON can hold it; what is not finite becomes a string."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
