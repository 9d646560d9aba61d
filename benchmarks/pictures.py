"""Pictures of what was timed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.report import HERE
from benchmarks.timing import Timing


def scaling_picture(
    by_chains: Mapping[int, Timing], by_sweeps: Mapping[int, Timing], memory: Mapping[int, int]
) -> None:
    """Time against chains and against sweeps, with lines of slope one, and peak memory against sweeps."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, timings, what in ((axes[0], by_chains, "chains"), (axes[1], by_sweeps, "sweeps")):
        n = np.array(list(timings))
        seconds = np.array([timing.median for timing in timings.values()])
        low, high = np.array([timing.quartiles for timing in timings.values()]).T
        axis.fill_between(n, 1e3 * low, 1e3 * high, alpha=0.3)
        axis.loglog(n, 1e3 * seconds, "o-", label="measured (band: quartiles)")
        axis.loglog(n, 1e3 * seconds[-1] * n / n[-1], "k--", linewidth=1, label="proportional")
        axis.set(xlabel=what, ylabel="milliseconds", title=f"time of one call, 200x200, against {what}")
        axis.legend()
    n = np.array(list(memory))
    axes[2].semilogx(n, np.array(list(memory.values())) / 1e6, "o-")
    axes[2].set(xlabel="sweeps", ylabel="MB", title="peak memory of the process")
    axes[2].set_ylim(0, 1.3 * max(memory.values()) / 1e6)
    figure.savefig(HERE / f"{datetime.now(UTC):%Y-%m-%d}-cpu-scaling.png", dpi=110)
    plt.close(figure)
