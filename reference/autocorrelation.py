"""How much a Markov chain's samples are worth: autocorrelation, its integrated time, the effective sample size.

Successive states of a chain resemble each other, so T of them tell less about a mean than T independent draws. With
rho_t the correlation of states t steps apart,

    variance of the mean of T states = (variance of one state) tau / T,    tau = 1 + 2 sum over t >= 1 of rho_t,

so a chain is worth T / tau draws. tau belongs to the *observable* f(z) whose mean is sought as much as to the chain:
look at the slowest one that matters (the energy, the magnetisation), and at several chains, since a chain that never
left its mode cannot know of another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reference.vocabulary import Array, DomainError, ShapeError, as_float, check_finite

_WINDOW = 5.0  # correlation times; for rho_t = exp(-t / s) tau = 2 s, and what lies beyond 10 s is exp(-10) of the sum


class IntegratedTime(NamedTuple):
    """An integrated autocorrelation time with its standard error (in steps) and the last lag that it sums."""

    time: float
    standard_error: float
    window: int


def autocorrelation(x: ArrayLike) -> Array:
    """Correlation of an observable with itself t steps later, pooled over chains of the same machine.

    rho_t = c_t / c_0 with c_t = mean over chains of (1 / T) sum over s of (x_s - m)(x_{s+t} - m), by FFT; m is the mean
    over *all* chains. Chains that agree lend each other a better mean; chains that sit apart have c_t near the variance
    of their means, which no lag removes: their disagreement shows as correlation that does not decay. (With a mean of
    its own each chain would look perfect in its own mode.) The divisor is T at all lags, not T - t: a little bias
    towards 0 for little noise at long lags.

    Source   Agarwal & Vats (2022), "Globally centered autocovariances in MCMC"; Priestley (1981) for the divisor.
    Shapes   x (C, T), chains by steps, or (T,) for one chain -> (T,), lags 0 .. T - 1
    Domain   x finite and not constant
    Units    none
    Raises   ShapeError, DomainError or TypeError for an x that does not fit.
    """
    series = _as_series(x)
    n_steps = series.shape[1]
    series = np.ldexp(series, -np.frexp(np.abs(series).max())[1])  # exact, and no square overflows or vanishes
    centred = series - series.mean()
    # Padded by as many zeros as there are steps: a lag then runs off the end and not, in a circle, into the start.
    spectrum = np.fft.rfft(centred, n=2 * n_steps, axis=1)
    products = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=0), n=2 * n_steps)[:n_steps]
    return products / products[0]


def integrated_time(x: ArrayLike) -> IntegratedTime:
    """Estimate tau = 1 + 2 sum of rho_t, the number of steps that are worth one independent draw.

    The sum over *all* lags has a variance that does not fall with T, so it stops at the first lag M that is at least 5
    times max(1, tau(M)), tau(M) the sum so far: late enough to have seen the decay, early enough to leave the noise
    out. The standard error is tau sqrt(2 (2 M + 1) / (C T)).

    Source   Madras & Sokal (1988), appendix C; Sokal (1997), "Monte Carlo methods in statistical mechanics", section 3.
    Departs  tau is twice Sokal's, whose sum starts with 1/2; the max with 1 keeps series that alternate in sign, tau
             below 1, from ending the sum at once.
    Shapes   x (C, T) or (T,), as ``autocorrelation`` -> IntegratedTime
    Domain   x finite, not constant, and long enough for a window; correlations that alternate in sign must be gone
             within 5 steps
    Units    steps
    Raises   DomainError if no lag is 5 times tau(M): chains too short for their correlations, or stuck apart; or if the
             sum is not positive. ShapeError, DomainError or TypeError for an x that does not fit.
    """
    times = 2 * np.cumsum(autocorrelation(x)) - 1
    wide_enough = np.arange(len(times)) >= _WINDOW * np.maximum(times, 1)
    if not wide_enough.any():
        raise DomainError(
            f"x must be longer: no lag below its {len(times)} steps is {_WINDOW:g} times the correlation time summed "
            f"up to it (at most {times.max():.3g}). Run longer; if that does not help, the chains are stuck apart"
        )
    window = int(np.argmax(wide_enough))
    time = float(times[window])
    if time <= 0:
        raise DomainError(
            f"x must not alternate so strongly: its correlations up to lag {window} sum to a time of {time:.3g}"
        )
    return IntegratedTime(time, time * float(np.sqrt(2 * (2 * window + 1) / np.size(x))), window)


def effective_sample_size(x: ArrayLike) -> float:
    """Number of independent draws whose mean would be as accurate as the mean of all C T states: C T / tau.

    Source   Sokal (1997), section 2.
    Shapes   x (C, T) or (T,), as ``autocorrelation`` -> scalar
    Domain   as ``integrated_time``
    Units    none (a number of draws; above C T for a chain whose correlations are mostly negative)
    Raises   as ``integrated_time``.
    """
    return float(np.size(x) / integrated_time(x).time)


def _as_series(x: ArrayLike) -> Array:
    """Return x as float64 (C, T); raise unless it is finite and varies."""
    series = as_float("x", x).astype(np.float64, copy=False)
    if series.ndim not in (1, 2) or series.size == 0:
        raise ShapeError(f"x must be (C, T), chains by steps, or (T,) with at least one step; got {series.shape}")
    check_finite("x", series)
    if (series == series.flat[0]).all():
        raise DomainError(f"x must vary to have correlations; its {series.size} values are all {series.flat[0]}")
    return np.atleast_2d(series)
