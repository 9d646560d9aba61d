"""The checks as test cases of another project: its backend, judged by its own pytest.

    import pytest
    from validation import conformance

    @pytest.mark.parametrize("case", conformance.cases("my_package.my_module:create"), ids=str)
    def test_my_backend(case):
        case.check()

Without a line of code, from the folder that ``my_package`` is imported from:

    python -m pytest --pyargs validation.conformance_tests -p validation.pytest_plugin \
        --backend my_package.my_module:create

What there is to judge is read from the backend: its operations, and its ``kinds``. A case runs in the process of the
test, so that a debugger and coverage see what the backend does; what hangs is left to the time limits of the project's
own tests. ``python -m validation`` runs the same checks in processes of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from accelerated.protocol import OPERATIONS
from dvaepp.config import unknown
from dvaepp.errors import ConfigError
from validation import jobs, subjects
from validation.rows import ALL_KINDS, DTYPES, Request, Row, Task

#: The checks that a backend can be put to, one operation at a time. "statistics" may be asked for as well.
DEFAULT_CHECKS = ("accuracy", "agreement", "gradients")
_CHECKS = (*DEFAULT_CHECKS, "statistics")


@dataclass(frozen=True)
class Case:
    """One check of one operation in one dtype; its text is a test's id."""

    task: Task

    def __str__(self) -> str:
        parts = (self.task.check, self.task.operation, self.task.kind, self.task.dtype)
        return "-".join(part for part in parts if part)

    def check(self) -> None:
        """Perform it.

        Raises   AssertionError for outputs that leave their bounds, each with its worst input, and for a result of a
                 wrong form; and whatever the backend raises, with the command that shows it again as a note.
        """
        try:
            rows = jobs.perform_here(self.task).rows
        except subjects.ContractError as error:
            raise AssertionError(f"{error}\n  again: {self.task.command}") from error
        except Exception as error:
            error.add_note(f"again: {self.task.command}")
            raise
        if failed := [row for row in rows if not row.status.good]:
            told = "\n".join(_told(row) for row in failed)
            raise AssertionError(f"{self} of {self.task.subject}: {len(failed)} of {len(rows)} fail\n{told}")


def cases(
    backend: str,
    operations: Sequence[str] = (),
    kinds: Sequence[str] = (),
    dtypes: Sequence[str] = DTYPES,
    checks: Sequence[str] = DEFAULT_CHECKS,
    quick: bool = True,
    seed: int = 0,
) -> list[Case]:
    """All test cases of a backend, named as ``accelerated.load`` takes it; empty operations or kinds: all it has.

    Domain   an entry point's name, "module:object", or a backend of ours
    Raises   ConfigError for an operation, kind, dtype or check that does not exist, and for an operation or a kind that
             the backend does not have; BackendUnavailable if there is no such backend or it cannot run here;
             ContractError for one that says what cannot be true of itself; whatever its own code raises.
    """
    for what, asked, known in (
        ("operation", operations, sorted(OPERATIONS)),
        ("kind", kinds, ALL_KINDS),
        ("dtype", dtypes, DTYPES),
        ("check", checks, _CHECKS),
    ):
        if isinstance(asked, str):
            raise ConfigError(f"{what}s must be a sequence of names; got the text {asked!r}")
        for name in asked:
            if name not in known:
                raise ConfigError(unknown(what, name, known))
    subject = subjects.probe(backend)
    for what, asked, offered in (("operation", operations, subject.operations), ("kind", kinds, subject.kinds)):
        for name in asked:
            if name not in offered:
                why = subject.reasons.get(name)
                raise ConfigError(f"backend {backend!r} lacks the {what} {name}" + (f": {why}" if why else ""))
    request = Request(tuple(kinds or ALL_KINDS), tuple(dtypes), tuple(operations), seed, quick)
    found = itertools.chain.from_iterable(jobs.check(name).tasks(subject, request) for name in dict.fromkeys(checks))
    return [Case(task) for task in found]


def _told(row: Row) -> str:
    finding = row.finding
    assert finding is not None  # every row of a task that ended has one
    lines = [f"  {finding.output}: error {finding.error:.4g} {finding.unit}, bound {finding.bound:.4g}"]
    if finding.where:
        lines.append(f"    {finding.where}")
    if finding.got is not None:
        lines.append(f"    got {finding.got!r}, expected {finding.expected!r}")
    return "\n".join([*lines, f"    again: {row.reproduce}"])
