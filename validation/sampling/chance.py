"""Verdicts on what is random: how far an estimate may lie from the truth, and what size of error would be noticed.

A *finding* has one probability of failing by chance, ``Judge.alpha``, and judges one number or several (then each gets
its share of alpha: Bonferroni). Distances are in standard errors, and so are the bounds, which follow from alpha and
from the distribution that the distance has when nothing is wrong:

    means    of n independent draws: normal if the variance of a draw is known by enumeration, else Student's t. Both
             are exact for normal draws; for skewed ones the bound is moved out by the first term of Cornish & Fisher's
             expansion, with the draws' skewness g: (g / sqrt n)(x**2 - 1) / 6, and (g / sqrt n)(2 x**2 + 1) / 6 for t.
    shares   of n independent draws in an event of known probability: binomial, without approximation
    tables   of counts of n independent draws over cells of known probabilities: Pearson's chi-squared, by a gamma
             distribution that has its exact mean and variance. Cells that expect few draws are counted as one.

An error is *caught* with probability ``POWER`` if it exceeds the bound by ``norm.isf(1 - POWER)`` standard deviations
of the distance. That is 1, or more where the standard error is estimated: it varies itself, and with the mean if draws
are skewed. A table is judged by the sum over all cells, so that its power is stated for the least favourable error: of
all ways to move a total probability of t into other cells none adds less than 4 t**2 n to chi-squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from validation.rows import Finding, Statistic
from validation.tolerances import LEAST_EXPECTED, POWER

Floats = NDArray[np.floating]

_BEYOND = float(stats.norm.isf(1 - POWER))  # standard errors by which an error must exceed its bound to be caught
UNIT = "standard errors"


@dataclass(frozen=True, eq=False)
class Means:
    """Means of n independent draws of M numbers: value, standard error and skewness of a draw, (M,) each.

    ``known``: the standard errors are exact, not estimated from the draws.
    """

    value: Floats
    standard_error: Floats
    skewness: Floats
    n: int
    known: bool = False


def means(draws: ArrayLike, variance: ArrayLike | None = None, third: ArrayLike | None = None) -> Means:
    """Turn independent draws into their mean and how far it may be trusted.

    Shapes   draws (n,) or (n, M); variance and third central moment of a draw, scalar or (M,), where they are known
             exactly -> Means of (M,)
    """
    sample = np.asarray(draws, dtype=np.float64)
    sample = sample.reshape(len(sample), -1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is judged, not refused
        n, value = len(sample), sample.mean(axis=0)
        deviation = sample - value
        found = (deviation**2).sum(axis=0) / (n - 1)
        spread = found if variance is None else np.broadcast_to(np.asarray(variance, dtype=np.float64), value.shape)
        if third is None:
            skew = skewness((deviation**3).mean(axis=0), found)
        else:
            skew = skewness(np.broadcast_to(np.asarray(third, dtype=np.float64), value.shape), spread)
    return Means(value, np.sqrt(spread / n), skew, n, variance is not None)


def skewness(third: Floats, variance: Floats) -> Floats:
    """Third central moment over the variance to the power 3/2; 0 for what does not vary."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, third / variance**1.5, 0.0)


@dataclass(frozen=True)
class Judge:
    """Makes findings that fail by chance with probability ``alpha`` each."""

    alpha: float

    def means(
        self,
        output: str,
        found: Means,
        truth: ArrayLike,
        unit: str,
        where: str,
        names: Sequence[str] = (),
        side: int = 0,
    ) -> Finding:
        """Means against exact values. ``side`` 1: they must not lie above, -1: not below; 0: neither.

        Shapes   truth scalar or (M,); names, of the M numbers
        """
        exact = np.broadcast_to(np.asarray(truth, dtype=np.float64), found.value.shape)
        tail = self.alpha / exact.size / (1 if side else 2)
        x = stats.norm.isf(tail) if found.known else stats.t.isf(tail, found.n - 1)
        curvature = (x**2 - 1) / 6 if found.known else (2 * x**2 + 1) / 6
        skew = np.abs(found.skewness)
        bound = x + skew / np.sqrt(found.n) * curvature
        # Variance of (mean - bound * its estimated error) in units of the error; the kurtosis is that of a gamma law.
        extra = 0.0 if found.known else bound**2 * (2 + 1.5 * skew**2) / (4 * found.n) + bound * skew / np.sqrt(found.n)
        beyond = _BEYOND * np.sqrt(1 + extra)
        return self._worst(output, found.value, exact, found.standard_error, bound, beyond, unit, where, names, side)

    def shares(
        self,
        output: str,
        counts: ArrayLike,
        n: int,
        probs: ArrayLike,
        unit: str,
        where: str,
        names: Sequence[str] = (),
        side: int = 0,
    ) -> Finding:
        """Counts of events among n independent draws against their probabilities; ``side`` as ``means``.

        Shapes   counts, probs (M,), strictly inside (0, 1)
        """
        counts, probs = np.asarray(counts, dtype=np.float64), np.asarray(probs, dtype=np.float64)
        tail = self.alpha / counts.size / (1 if side else 2)
        deviation = np.sqrt(n * probs * (1 - probs))
        above = (stats.binom.isf(tail, n, probs) - n * probs) / deviation
        below = (n * probs - stats.binom.ppf(tail, n, probs)) / deviation
        upwards = counts > n * probs if side == 0 else np.full(counts.shape, side > 0)
        bound = np.where(upwards, above, below)
        return self._worst(output, counts / n, probs, deviation / n, bound, _BEYOND, unit, where, names, side)

    def table(self, output: str, counts: ArrayLike, probs: ArrayLike, unit: str, where: str) -> Finding:
        """Counts of independent draws in all cells against their probabilities; a draw that cannot be is an infinity.

        Shapes   counts, probs (k,)
        """
        counts, probs = np.asarray(counts, dtype=np.float64), np.asarray(probs, dtype=np.float64)
        impossible = bool(counts[probs <= 0].any())
        counts, probs = pooled(counts, probs)
        n, k = counts.sum(), len(probs)
        statistic = ((counts - n * probs) ** 2 / (n * probs)).sum()
        mean = k - 1.0
        deviation = np.sqrt(2 * mean + ((1 / probs).sum() - k**2 - 2 * k + 2) / n)
        # The gamma distribution of this mean and variance.
        shape, scale = (mean / deviation) ** 2, deviation**2 / mean
        critical = float(stats.gamma.isf(self.alpha, shape, scale=scale))
        excess = special.chndtrinc(critical, mean, 1 - POWER)  # noncentral chi-squared stays below with 1 - POWER
        catches = float(np.sqrt(excess / n) / 2)
        i = int(np.argmax(np.abs(counts - n * probs) / np.sqrt(n * probs)))
        share, truth = float(counts[i] / n), float(probs[i])
        return Finding(
            output,
            error=float("inf") if impossible else max(0.0, float((statistic - mean) / deviation)),
            bound=(critical - mean) / float(deviation),
            where=f"{where}; {int(n)} draws, {k} cells, worst cell {share:.4f} instead of {truth:.4f}",
            unit=UNIT,
            got=share,
            expected=truth,
            catches=f"{catches:.2g} {unit}",
            statistic=Statistic(share, truth, float(np.sqrt(truth * (1 - truth) / n)), catches, unit),
        )

    def _worst(
        self,
        output: str,
        value: Floats,
        truth: Floats,
        standard_error: Floats,
        bound: Floats,
        beyond: Floats | float,
        unit: str,
        where: str,
        names: Sequence[str],
        side: int,
    ) -> Finding:
        """The number that comes nearest to its bound, or exceeds it most."""
        error = value - truth
        error = side * error if side else np.abs(error)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(error == 0, 0.0, error / standard_error)
        distance = np.maximum(distance, 0.0)  # keeps NaN
        relative = np.where(np.isnan(distance), np.inf, distance / bound)
        i = int(np.argmax(relative))
        catches = float(((bound + beyond) * standard_error).max())  # whichever of the numbers is wrong
        named = f", worst {names[i]}" if names else ""
        got, expected = float(value[i]), float(truth[i])
        return Finding(
            output,
            error=float(distance[i]),
            bound=float(bound[i]),
            where=where + named,
            unit=UNIT,
            got=got,
            expected=expected,
            catches=f"{catches:.2g} {unit}",
            statistic=Statistic(got, expected, float(standard_error[i]), catches, unit),
        )


def pooled(counts: Floats, probs: Floats) -> tuple[Floats, Floats]:
    """The cells with those that expect less than ``LEAST_EXPECTED`` draws made into one, which may take in one more."""
    order = np.argsort(probs)[::-1]
    counts, probs = counts[order], probs[order]
    expected = counts.sum() * probs
    n_kept = int((expected >= LEAST_EXPECTED).sum())
    if n_kept < len(probs) and expected[n_kept:].sum() < LEAST_EXPECTED:
        n_kept -= 1
    if n_kept == len(probs):
        return counts, probs
    parts: Any = (np.append(x[:n_kept], x[n_kept:].sum()) for x in (counts, probs))
    pooled_counts, pooled_probs = parts
    return pooled_counts, pooled_probs
