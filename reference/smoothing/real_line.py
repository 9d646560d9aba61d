"""What the kinds on the real line share: the same density for both values of z, moved by 1.

    r(zeta|0) = g(zeta),   r(zeta|1) = g(zeta - 1),   g symmetric about 0 and sharper with growing beta.

Everything about the posterior then hangs on the log odds l + log r(zeta|1)/r(zeta|0). They may be a difference of
numbers in the hundreds, which an exponential turns into hundreds of roundings; so they are carried as unevaluated sums.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from reference.smoothing.compensated import Two, exact, exp, negative, sigmoid, two_product, two_sum
from reference.smoothing.family import MixtureSmoothing
from reference.vocabulary import Array


class LocationMixture(MixtureSmoothing):
    """A mixture of two copies of one symmetric density on the real line, with means 0 and 1."""

    unit_interval: ClassVar[bool] = False

    def _log_r(self, zeta: Array, z: Array, beta: Array) -> Array:
        return self._log_peak(beta, 1.0) - self._log_drop(zeta, z, beta)

    def _cdf(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """F(zeta) = p F(zeta|0) + q F(zeta|1)."""
        at_zero, at_one = (self._r_cdf(zeta, np.asarray(z), beta) for z in (0.0, 1.0))
        return np.minimum(
            sigmoid(exact(-logit_q)) * at_zero + sigmoid(exact(logit_q)) * at_one, 1
        )  # p + q may round to above 1

    def _log_ratio(self, zeta: Array, beta: Array) -> Array:
        ratio = self._log_odds(_offset(zeta), beta)
        return ratio.high + ratio.low

    def _nu(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """nu = sigma(l + log r(zeta|1)/r(zeta|0))."""
        return sigmoid(self._posterior_logit(zeta, logit_q, beta))

    def _log_prob(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """The larger of two terms and what the smaller adds: log(p_z r(zeta|z)) + log(1 + e^{-|y|}), y the log odds.

        Where both logits and log-density are near 0 (for l = 0 there is such a beta) log p_z = -log 2 and log r = log 2
        would cancel; log(2 p_z) and log(r/2), each small, do not.
        """
        odds = self._posterior_logit(zeta, logit_q, beta)
        z = np.where(odds.high > 0, 1.0, 0.0)
        logit_z = np.where(z == 1, logit_q, -logit_q)  # of the likelier z
        with np.errstate(over="ignore"):  # branch not taken
            log_twice_p = -np.log1p(np.expm1(-logit_z) / 2)
        central = np.abs(logit_q) < 1
        log_p = np.where(central, log_twice_p, -np.logaddexp(0, -logit_z))
        log_peak = np.where(central, self._log_peak(beta, 0.5), self._log_peak(beta, 1.0))
        with np.errstate(invalid="ignore"):  # 0 * inf
            smaller = exp(finite(-np.abs(odds.high), -np.sign(odds.high) * odds.low))
        return (log_p + log_peak) + (np.log1p(smaller) - self._log_drop(zeta, z, beta))

    def _posterior_logit(self, zeta: Array, logit_q: Array, beta: Array) -> Two:
        return plus_logit(self._log_odds(_offset(zeta), beta), logit_q)

    @abstractmethod
    def _log_peak(self, beta: Array, weight: float) -> Array:
        """log(weight g(0)) for a weight of 1 or 1/2, with all digits where that is near 0."""

    @abstractmethod
    def _log_drop(self, zeta: Array, z: Array, beta: Array) -> Array:
        """log g(0) - log g(zeta - z), which is not negative."""

    @abstractmethod
    def _log_odds(self, offset: Two, beta: Array) -> Two:
        """log r(zeta|1)/r(zeta|0), odd in the offset zeta - 1/2."""


def _offset(zeta: Array) -> Two:
    """zeta - 1/2, unrounded."""
    with np.errstate(invalid="ignore"):  # zeta may be infinite
        offset = two_sum(zeta, np.asarray(-0.5))
    return finite(offset.high, offset.low)


def from_the_ends(offset: Two) -> tuple[Array, Array]:
    """zeta and 1 - zeta, each rounded once."""
    with np.errstate(invalid="ignore"):  # zeta may be infinite
        zeta = two_sum(offset.high, np.asarray(0.5))
        rest = two_sum(np.asarray(0.5), -offset.high)
        zeta, rest = finite(zeta.high, zeta.low + offset.low), finite(rest.high, rest.low - offset.low)
    return zeta.high + zeta.low, rest.high + rest.low


def plus_logit(log_odds: Two, logit_q: Array) -> Two:
    """The posterior's log odds: l + log r(zeta|1)/r(zeta|0). A certain prior stays certain, whatever zeta says."""
    with np.errstate(over="ignore", invalid="ignore"):  # inf - inf, replaced
        total = two_sum(logit_q, log_odds.high)
        return finite(np.where(np.isinf(logit_q), logit_q, total.high), total.low + log_odds.low)


def nu_minus_zeta(offset: Two, logit_q: Array, log_odds: Two, excess: Array) -> Array:
    """nu - zeta, which is beta dzeta/dbeta (up to a factor), for zeta = 1/2 + offset and nu = sigma(l + log_odds).

    Because dF(zeta|z)/dbeta is proportional to (zeta - z) r(zeta|z) in a family of location and scale, implicit
    differentiation gives the mean of z - zeta under the posterior. The difference is taken from the nearest of 0, 1/2
    and 1: near zeta = 1 it is (1 - zeta) - (1 - nu). Both have to come from the same zeta: where nu rises as fast as
    zeta, their common error cancels.

    Near l = 0 and zeta = 1/2 both are nearly 1/2, and for one sharpness they rise equally fast: nothing of first order
    is left. There the difference is summed from parts that vanish with it: with x = (l + log_odds)/2,

        nu - zeta = l/4 + (log_odds/4 - offset) + (tanh x - x)/2,

    and ``excess`` is log_odds/4 - offset, which each kind knows how to find without a cancellation.
    """
    odds = plus_logit(log_odds, logit_q)
    zeta, one_minus_zeta = from_the_ends(offset)
    near_zero = sigmoid(odds) - zeta
    near_one = one_minus_zeta - sigmoid(negative(odds))
    centre = np.tanh(odds.high / 2) / 2 - (offset.high + offset.low)
    x = np.clip(odds.high / 2, -0.5, 0.5)
    of_first_order = np.where(np.isfinite(logit_q), logit_q, 0) / 4 + excess
    centre = np.where(np.abs(odds.high) < 1, of_first_order + tanh_excess(x) / 2, centre)
    return np.where(np.abs(offset.high) < 0.35, centre, np.where(offset.high < 0, near_zero, near_one))


def tanh_excess(x: Array) -> Array:
    """tanh x - x for |x| <= 1: -x (cosh x - sinh(x)/x)/cosh x, the bracket by its series of positive terms."""
    square = x * x
    series = np.ones_like(x)
    for k in range(10, 0, -1):  # the terms x^{2k} 2k/(2k+1)! follow each other by x^2/(2k (2k + 3))
        series = 1 + square / (2 * k * (2 * k + 3)) * series
    return -x * (square / 3 * series) / np.cosh(x)


def finite(high: Array, low: Array) -> Two:
    """high + low, without the low part where it is none: beyond the range in which ``compensated`` works."""
    return Two(high, np.where(np.isfinite(high) & np.isfinite(low), low, 0))


def scaled_distance(zeta: Two, z: Array | float, scale: Two) -> Two:
    """scale (zeta - z): the argument of g, which decides over its tails' digits."""
    with np.errstate(over="ignore", invalid="ignore"):  # zeta may be infinite
        distance = two_sum(zeta.high, -np.asarray(z))
        product = two_product(scale.high, distance.high)
        low = product.low + (scale.high * (distance.low + zeta.low) + scale.low * distance.high)
    return finite(product.high, low)
