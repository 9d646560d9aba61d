"""A pool of threads that runs slices of the rows: for kernels that run without the interpreter's lock.

Numba's own ``parallel=True`` is not used: its default threading layer must not be entered from two Python threads at
once. Here any number of Python threads may call, and a process that was forked off makes a pool of its own.
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from reference.vocabulary import check_count

_pool: ThreadPoolExecutor | None = None


def default_count() -> int:
    """Number of threads: OMP_NUM_THREADS, else NUMBA_NUM_THREADS, else as many as the process may have processors."""
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def slices(n: int, n_threads: int, grain: int = 1) -> list[tuple[int, int]]:
    """Cut range(n) into at most n_threads pieces (start, stop) of nearly equal size, whole multiples of ``grain``.

    The last may be smaller. No piece is empty; there is none for n = 0.
    """
    n_grains = -(-n // grain)
    n_pieces = min(check_count("n_threads", n_threads), n_grains)
    cuts = [min(n, grain * (n_grains * i // n_pieces)) for i in range(n_pieces)] + [n]
    return list(itertools.pairwise(cuts))


def run(tasks: list[Callable[[], Any]], n_threads: int | None = None) -> list[Any]:
    """Results of all tasks, run by so many threads (None: one for each), of which the caller is one.

    A thread that is done takes the next task: with a few tasks for each, one whose core is busy otherwise (another
    library's threads, waiting in a loop) delays the end by little. A task must not call ``run``. What a task raises is
    raised here, after all have ended.
    """
    results: list[Any] = [None] * len(tasks)
    left = collections.deque(enumerate(tasks))

    def work() -> None:
        while left:
            try:
                i, task = left.popleft()
            except IndexError:  # another thread was quicker
                return
            results[i] = task()

    n_threads = min(len(tasks), n_threads or len(tasks))
    futures = [_the_pool().submit(work) for _ in range(n_threads - 1)]
    try:
        work()
    finally:
        wait(futures)
    for future in futures:
        future.result()
    return results


def over(run_slice: Callable[[int, int], Any], n: int, n_threads: int, n_each: int, grain: int = 1) -> list[Any]:
    """Results of run_slice(start, stop) over range(n), cut into up to ``n_each`` slices for each thread, if several."""
    n_pieces = n_threads * max(1, n_each) if n_threads > 1 else 1
    return run([functools.partial(run_slice, *piece) for piece in slices(n, n_pieces, grain)], n_threads)


def _the_pool() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=max(32, os.cpu_count() or 1), thread_name_prefix="accelerated")
    return _pool


def _forget_pool() -> None:
    """The threads of a pool do not survive a fork."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
