"""Runs -> outcomes: here one after the other, or several at a time in processes of one thread each.

A run that cannot be made has its reason in its outcome, and the others go on. What was made is in the run folders; an
outcome holds only what is not there.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from multiprocessing import get_context

from pebble import ProcessPool
from rich.console import Console

from dvaepp import training
from dvaepp.errors import NonFiniteError, UserError
from dvaepp.experiments.plan import Job, State, look
from dvaepp.processes import one_thread_each

Bundle = tuple[Job, ...]

_SAVED = "interrupted and saved"
#: In a process of a pool: whether it was told to end.
_ended: list[bool] = []


@dataclass(frozen=True)
class Outcome:
    """What came of a run; no problem: it is finished. ``diverged``: its numbers did, and would again."""

    job: Job
    problem: str = ""
    diverged: bool = False


@dataclass(frozen=True)
class Where:
    """The device and the backend of runs, by the names of ``dvaepp.training``."""

    device: str = "auto"
    backend: str = "auto"


#: Makes bundles of runs and yields their outcomes as they come.
Engine = Callable[[Sequence[Bundle], Where, Console], Iterable[list[Outcome]]]


def perform(bundle: Bundle, where: Where, out: Console) -> list[Outcome]:
    """Make the runs of a bundle as far as they are still to be made; runs that fail together are tried one by one.

    Raises   KeyboardInterrupt when it was interrupted; the runs are saved then.
    """
    outcomes, jobs = [], []
    for job in bundle:
        status = look(job)  # now, and not when it was planned: another process may have been here
        if status.is_open:
            jobs.append(job)
        else:
            outcomes.append(Outcome(job, "" if status.state is State.FINISHED else status.problem or str(status.state)))
    if not jobs:
        return outcomes
    try:
        training.complete([job.path for job in jobs], [job.config for job in jobs], where.device, where.backend, out)
    except training.Interrupted:
        raise KeyboardInterrupt from None
    except BrokenPipeError:  # of our own output: see dvaepp.command.run
        raise
    except UserError as error:
        if len(jobs) > 1:
            out.print(f"{error}; these {len(jobs)} runs go on one by one")
            return outcomes + [outcome for job in jobs for outcome in perform((job,), where, out)]
        return [*outcomes, Outcome(jobs[0], str(error), isinstance(error, NonFiniteError))]
    except Exception as error:  # a defect, or memory: no reason for the others not to be run
        out.print(traceback.format_exc())
        words = " ".join(str(error).split())
        return outcomes + [Outcome(job, f"{type(error).__name__}: {words}") for job in jobs]
    return outcomes + [Outcome(job) for job in jobs]


def perform_quietly(bundle: Bundle, where: Where) -> list[Outcome]:
    """As ``perform``, where nobody reads what is printed and an interrupt is of this bundle alone."""
    try:
        return perform(bundle, where, Console(quiet=True))
    except KeyboardInterrupt:
        return [Outcome(job, _SAVED) for job in bundle]


def _perform_until_ended(bundle: Bundle, where: Where) -> list[Outcome]:
    """As ``perform_quietly``, in a process of a pool, which hands it the next bundle even while it is being ended."""
    if _ended:
        return [Outcome(job, "not begun: the command was ended") for job in bundle]
    outcomes = perform_quietly(bundle, where)
    if any(outcome.problem == _SAVED for outcome in outcomes):
        _ended.append(True)
    return outcomes


def here(bundles: Sequence[Bundle], where: Where, out: Console) -> Iterator[list[Outcome]]:
    """One after the other, in this process."""
    for number, bundle in enumerate(bundles, 1):
        out.print(f"[{number} of {len(bundles)}] {'; '.join(map(str, bundle))}")
        yield perform(bundle, where, out)


def in_processes(n_processes: int) -> Engine:
    """Several at a time on this machine; what they would print is in their folders."""

    def run(bundles: Sequence[Bundle], where: Where, out: Console) -> Iterator[list[Outcome]]:
        with one_thread_each(), ProcessPool(n_processes, context=get_context("spawn"), initializer=_begin) as processes:
            futures: dict[Future[list[Outcome]], Bundle] = {
                processes.schedule(_perform_until_ended, args=[bundle, where]): bundle for bundle in bundles
            }
            waiting = set(futures)
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield _outcomes(futures[future], future)
            except BaseException:
                for future in waiting:
                    future.cancel()
                processes.stop()  # by SIGTERM, at which a run is saved
                raise

    return run


def _outcomes(bundle: Bundle, future: Future[list[Outcome]]) -> list[Outcome]:
    try:
        return future.result()
    except Exception as error:  # its process died
        return [Outcome(job, f"its process ended: {error}; go on by the same command") for job in bundle]


def _begin() -> None:
    """Where a process starts: an interrupt from the keyboard is for the parent, who then ends us by SIGTERM."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
