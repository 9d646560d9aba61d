"""Tasks performed in processes of their own: what raises, hangs or takes its process down is a row, and the rest runs.

The processes are spawned (CUDA does not survive a fork) with one thread each, and every task is seeded by itself: what
comes out does not depend on how many processes there are or on who ends first.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as TimedOut
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import cast

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from accelerated import BackendUnavailable
from dvaepp.errors import UserError
from dvaepp.processes import one_thread_each
from validation import subjects
from validation.rows import LOADING, Check, ErrorMap, Finding, Row, Status, Subject, Task, rows_of

#: The checks, in the order in which they are run and shown: modules of this package (see ``rows.Check``).
CHECKS = ("accuracy", "agreement", "gradients", "statistics", "sabotage")


@dataclass(frozen=True)
class Outcome:
    """What came of a task."""

    rows: tuple[Row, ...]
    maps: tuple[ErrorMap, ...] = ()


@dataclass(frozen=True)
class Failure:
    """How a task failed; crosses the border between processes where an exception might not."""

    status: Status
    message: str


def check(name: str) -> Check:
    """The module of a check."""
    return cast(Check, importlib.import_module(f"validation.{name}"))


@contextlib.contextmanager
def pool(n_workers: int) -> Iterator[ProcessPool]:
    """Processes to perform tasks in; where the block is left in a hurry, what they are doing is stopped."""
    with (
        one_thread_each(),
        ProcessPool(max_workers=n_workers, context=get_context("spawn"), initializer=_begin) as processes,
    ):
        try:
            yield processes
        except UserError:
            raise  # nothing is under way, and who is stopped while starting would complain
        except BaseException:
            processes.stop()
            raise


def probe(processes: ProcessPool, names: Sequence[str], time_limit: float) -> Iterator[Subject | Row]:
    """The description of each subject, or the row that says why there is none."""
    futures = [processes.schedule(_probe, args=[name], timeout=time_limit) for name in names]
    for name, future in zip(names, futures, strict=True):
        result = _result(future, time_limit)
        if isinstance(result, Failure):
            yield Row(Task("agreement", name, LOADING), result.status, message=result.message)
        else:
            yield cast(Subject, result)


def perform(
    processes: ProcessPool, tasks: Sequence[Task], time_limit: float, advance: Callable[[Task], object] = lambda _: None
) -> Iterator[Outcome]:
    """Perform tasks, and yield their outcomes in their order; ``advance`` hears of each."""
    futures = [processes.schedule(_perform, args=[task], timeout=time_limit) for task in tasks]
    for task, future in zip(tasks, futures, strict=True):
        result = _result(future, time_limit)
        if isinstance(result, Failure):
            yield Outcome((Row(task, result.status, message=result.message),))
        else:
            yield cast(Outcome, result)
        advance(task)


def perform_here(task: Task) -> Outcome:
    """Perform a task in this process.

    Raises   whatever the subject raises.
    """
    found = list(check(task.check).perform(task))
    findings = [item for item in found if isinstance(item, Finding)]
    return Outcome(tuple(rows_of(task, findings)), tuple(item for item in found if isinstance(item, ErrorMap)))


def _begin() -> None:
    """Where a process starts: with all imports, which count for no task's time.

    What a subject prints goes to stderr, for stdout is the table's.
    """
    for name in CHECKS:
        check(name)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's, who stops us


def _perform(task: Task) -> Outcome | Failure:
    try:
        return perform_here(task)
    except subjects.ContractError as error:
        return Failure(Status.FAILS, str(error))
    except (Exception, SystemExit) as error:  # a subject may even try to end us politely
        return Failure(Status.RAISES, _in_one_line(error))


def _probe(name: str) -> Subject | Failure:
    try:
        return subjects.probe(name)
    except BackendUnavailable as error:
        return Failure(Status.CANNOT_RUN, str(error))
    except subjects.ContractError as error:
        return Failure(Status.FAILS, str(error))
    except (Exception, SystemExit) as error:  # a subject may even try to end us politely
        return Failure(Status.RAISES, _in_one_line(error))


def _in_one_line(error: BaseException) -> str:
    """Type, message and the innermost place, by the file's name."""
    text = " ".join(str(error).split()) or "without a message"
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def _result(future: ProcessFuture, time_limit: float) -> object:
    try:
        return future.result()
    except TimedOut:
        return Failure(Status.HANGS, f"no answer within {time_limit:g} s")
    except ProcessExpired as error:
        code = error.exitcode
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Failure(Status.DIES, f"its process ended with {name}")
