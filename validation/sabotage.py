"""Whether the checks notice what is wrong: faults are planted on purpose, one at a time, and the checks are run.

A fault is *caught* if

* the operation at fault fails, in every check that the catalogue names for it (``validation.faults``)
* nothing fails that does not rest on this operation: of all operations of the subject in these checks
* whatever fails holds without the fault

The checks are run as they are, in their quick sizes and in float64 (unless the fault is one of float32), in this
process. Each task is first performed without any fault, once for all faults, and watched: one that never calls what a
fault replaces comes out alike with the fault, and is not performed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial

from validation import faults, jobs, subjects
from validation.faults import Fault, Suspect
from validation.rows import Finding, Request, Row, Subject, Task

CHECK = "sabotage"


def tasks(subject: Subject, request: Request) -> list[Task]:
    """One for each fault of the subject; the reference's comprise those of the oracle, which is nobody's subject."""
    planted_in = {subject.name} | ({faults.ORACLE} if subject.name == subjects.REFERENCE else set())
    return [
        Task(CHECK, fault.subject, fault.operation, seed=request.seed, fault=fault.name)
        for fault in faults.FAULTS
        if fault.subject in planted_in and request.wants(fault.operation)
    ]


def perform(task: Task) -> Iterator[Finding]:
    """Plant the fault, run the checks, and compare who failed with who should have."""
    yield verdict(faults.named(task.fault), task.seed)


@dataclass(frozen=True)
class Failed:
    """A row that failed while a fault was planted."""

    row: Row

    @property
    def output(self) -> str:
        """Of which output."""
        return self.row.finding.output if self.row.finding else ""

    def is_about(self, suspect: Suspect) -> bool:
        """Whether it accuses this operation."""
        return suspect.covers(self.row.task.check, self.row.task.operation, self.output)

    def __str__(self) -> str:
        task, found = self.row.task, self.row.finding
        words = " ".join(word for word in (task.operation, task.kind, task.dtype) if word)
        return f"{task.check} / {words} / {self.output}" if found else f"{task.check} / {words}"


def verdict(fault: Fault, seed: int) -> Finding:
    """What came of planting one fault: the error is the number of culprits missed and of rows wrongly accused."""
    planned = {task: without_fault(task) for task in plan(fault, seed)}
    failed = [row for sound in planned.values() if fault.name not in sound.touched_by for row in sound.failed]
    with fault.site.planted():
        for task, sound in planned.items():
            if fault.name in sound.touched_by:
                failed += _failed(task)
    missed = [text for text, found in _expected(fault, failed) if not found]
    anyway = [one for one in failed if any(one.output == other.output for other in planned[one.row.task].failed)]
    accused = [one for one in failed if one not in anyway and not any(map(one.is_about, fault.suspects))]
    told = [f"{fault.does} {_caught(fault, failed)}"]
    told += [f"missed: {one}" for one in missed]
    told += [f"wrongly accused: {one}" for one in accused]
    told += [f"fails without the fault too: {one}" for one in anyway]
    return Finding(fault.name, len(missed) + len(accused) + len(anyway), 0, "; ".join(told), "rows")


def plan(fault: Fault, seed: int) -> list[Task]:
    """Every task of its subject in the checks that must notice a fault.

    The checks are imported here: what they compute as they are must not be computed under the fault.
    """
    request = Request(kinds=(fault.kind,), dtypes=fault.dtypes, seed=seed, quick=True)
    subject = subjects.probe(fault.subject)
    return [task for name in fault.checks for task in jobs.check(name).tasks(subject, request)]


def _expected(fault: Fault, failed: Sequence[Failed]) -> Iterator[tuple[str, bool]]:
    """Everything that must fail, and whether it did."""
    for suspect in fault.culprits:
        outputs = [one.output for one in failed if one.is_about(suspect)]
        for start in suspect.outputs or ("",):
            name = " / ".join(part for part in (suspect.check, suspect.operation, start) if part)
            yield name, any(output.startswith(start) for output in outputs)


def _caught(fault: Fault, failed: Sequence[Failed]) -> str:
    """The worst row of the first culprit that failed, in words."""
    for suspect in fault.culprits:
        if own := [one for one in failed if one.is_about(suspect)]:
            worst = max(own, key=_excess)
            text = f"Caught by {worst}"
            if found := worst.row.finding:
                text += f": {found.error:.3g} {found.unit}, bound {found.bound:.3g}"
                text += f" ({place})" if (place := found.at or found.where) else ""
            return text + f", and {len(failed) - 1} rows more" * (len(failed) > 1)
    return "Caught by nothing"


def _excess(one: Failed) -> float:
    """By how much a row misses its bound."""
    found = one.row.finding
    return found.error / found.bound if found and found.bound else float("inf")


@dataclass(frozen=True)
class Sound:
    """What came of a task without a fault, and the faults whose place it called."""

    failed: tuple[Failed, ...]
    touched_by: frozenset[str]


@lru_cache(maxsize=1000)
def without_fault(task: Task) -> Sound:
    """Perform a task as it is, and watch it."""
    touched: set[str] = set()
    with ExitStack() as watched:
        for fault in faults.FAULTS:
            if fault.subject == task.subject:
                watched.enter_context(fault.site.watched(partial(touched.add, fault.name)))
        failed = _failed(task)
    return Sound(tuple(failed), frozenset(touched))


def _failed(task: Task) -> list[Failed]:
    return [Failed(row) for row in jobs.perform_here(task).rows if not row.status.good]
