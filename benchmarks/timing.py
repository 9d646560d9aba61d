"""Timing candidates fairly: in one process, in turns, so that a slow minute of the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Timing:
    """Seconds of one candidate, one entry a round."""

    seconds: NDArray[np.float64]

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the rounds."""
        first, third = np.percentile(self.seconds, [25, 75])
        return float(first), float(third)

    def ratio_to(self, other: Timing) -> float:
        """Median over rounds of how many times longer this took than ``other`` in the same round."""
        return float(np.median(self.seconds / other.seconds))


def measure(
    candidates: Mapping[str, Callable[[], object]],
    n_rounds: int,
    clock: Callable[[Callable[[], object]], float] | None = None,
) -> dict[str, Timing]:
    """Time every candidate once a round, after one call of each that does not count (compilation, caches) and a rest.

    Every other round runs them in the opposite order, so that none always follows the same neighbour.
    """
    clock = clock or wall_clock
    # Threads of the one before may still wait for work in a loop, for several milliseconds, on a core the next needs.
    rest = 0.03
    for candidate in candidates.values():
        candidate()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(n_rounds):
        names = list(candidates)
        for name in names if round_ % 2 == 0 else reversed(names):
            time.sleep(rest)
            seconds[name].append(clock(candidates[name]))
    return {name: Timing(np.array(values)) for name, values in seconds.items()}


def wall_clock(candidate: Callable[[], object]) -> float:
    """Seconds one call takes."""
    start = time.perf_counter()
    candidate()
    return time.perf_counter() - start


def on_device(n_calls: int) -> Callable[[Callable[[], object]], float]:
    """A clock: seconds of one of ``n_calls`` calls in a row, the device idle before and waited for after."""

    def clock(candidate: Callable[[], object]) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n_calls):
            candidate()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / n_calls

    return clock
