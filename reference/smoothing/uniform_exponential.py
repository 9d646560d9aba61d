"""Overlapping exponentials over a uniform floor: no zeta is ever nearly impossible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reference.bernoulli import sigmoid
from reference.smoothing.compensated import decay_from_one, exp, negative, two_product
from reference.smoothing.exponential import OverlappingExponential
from reference.smoothing.family import InverseCDF, MixtureSmoothing
from reference.smoothing.inversion import solve
from reference.smoothing.series import gentle_imbalance, linear_excess, quadratic_excess
from reference.vocabulary import Array, as_scalar, check

_EXPONENTIAL = OverlappingExponential(1.0)  # for its formulas, which take beta as an argument
_GENTLE = 3.0  # below this sharpness the two terms of the derivative by beta nearly cancel


@dataclass(frozen=True, eq=False)
class UniformExponential(MixtureSmoothing):
    """With probability w a uniform zeta, else one of two overlapping exponentials.

    r(zeta|z) = (1 - w) r_exp(zeta|z) + w,      w = ``uniform_weight``, r_exp of ``OverlappingExponential``.

    Between the modes of the exponentials the density falls like e^{-beta/2}, and the derivative of the sample rises as
    steeply. The floor bounds it: dzeta/drho <= 1/w, whatever beta. There is no inverse in closed form; F(zeta) = rho is
    solved numerically, and the derivatives are implicit.

    Source   Vahdat, Andriyash, Macready (2018), "DVAE#: discrete variational autoencoders with relaxed Boltzmann
             priors", which smooths with exponentials over a uniform floor of weight 0.05.
    Shapes   beta a scalar, or an array that broadcasts with zeta, rho and logit_q; uniform_weight a scalar.
    Domain   zeta in [0, 1]; beta positive and finite; uniform_weight in (0, 1).
    Raises   DomainError for a beta that is not positive and finite, or a weight outside (0, 1); ShapeError for a weight
             that is not one number.
    """

    beta: float | Array
    uniform_weight: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = as_scalar("uniform_weight", self.uniform_weight)
        check("uniform_weight", weight, (weight > 0) & (weight < 1), "lie in (0, 1)")
        # The dataclass is frozen; this is its one moment of construction.
        object.__setattr__(self, "uniform_weight", float(weight))

    def _log_r(self, zeta: Array, z: Array, beta: Array) -> Array:
        return self._over_floor(_EXPONENTIAL._log_r(zeta, z, beta))

    def _log_prob(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """The floor is the same for both z, so it stays a floor of the mixture."""
        return self._over_floor(_EXPONENTIAL._log_prob(zeta, logit_q, beta))

    def _over_floor(self, log_density: Array) -> Array:
        """log((1 - w) e^L + w), without a subtraction where e^L is far below 1 and without a 1 where it is near."""
        w = self.uniform_weight
        low = np.log((1 - w) * np.exp(log_density) + w)
        near = np.log1p((1 - w) * np.expm1(np.maximum(log_density, -0.5)))
        return np.where(log_density < -0.5, low, near)

    def _r_cdf(self, zeta: Array, z: Array, beta: Array) -> Array:
        w = self.uniform_weight
        return (1 - w) * _EXPONENTIAL._r_cdf(zeta, z, beta) + w * zeta

    def _cdf(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        w = self.uniform_weight
        return (1 - w) * _EXPONENTIAL._cdf(zeta, logit_q, beta) + w * zeta

    def _log_ratio(self, zeta: Array, beta: Array) -> Array:
        """log r(zeta|1) - log r(zeta|0) = log(1 + (r1 - r0)/r0), odd about zeta = 1/2.

        r1 - r0 = (1 - w) c e^{-beta (1 - zeta)} (1 - e^{-beta (2 zeta - 1)}), c = beta/(1 - e^{-beta}): no digits are
        lost where the two are nearly equal.
        """
        right = zeta >= 0.5
        density = self._densities(zeta, beta)
        peak = np.where(right, density.peak1, density.peak0)
        smaller = np.where(right, density.r0, density.r1)
        log_ratio = np.log1p(peak * -np.expm1(-beta * np.abs(2 * zeta - 1)) / smaller)
        return np.where(right, log_ratio, -log_ratio)

    def _nu(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """nu = q r1 / (p r0 + q r1): sums and quotients of positive numbers keep a small nu's digits."""
        density = self._densities(zeta, beta)
        with np.errstate(over="ignore", invalid="ignore"):  # odds of infinity
            root = np.exp(logit_q / 2)  # by halves: the odds may be a number where e^l is not
            odds = root * (density.r1 / density.r0) * root
            return np.where(np.isinf(odds), 1.0, odds / (1 + odds))

    def _densities(self, zeta: Array, beta: Array) -> _Densities:
        """r(zeta|0) and r(zeta|1), and the exponentials' part of each."""
        w = self.uniform_weight
        scale = (1 - w) * (beta / -np.expm1(-beta))
        peak0 = scale * exp(negative(two_product(beta, zeta)))
        peak1 = scale * decay_from_one(zeta, beta)
        return _Densities(peak0, peak1, peak0 + w, peak1 + w)

    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array:
        """Solve F(zeta) = rho for the distance from the nearer end of [0, 1]."""
        x0, x1 = self._distances(rho, logit_q, beta)
        return np.where(x0 <= 0.5, x0, 1 - x1)

    def _distances(self, rho: Array, logit_q: Array, beta: Array) -> tuple[Array, Array]:
        """zeta and 1 - zeta, the smaller of the two with full relative accuracy.

        Both tails are sums of positive terms,

            F     = (1 - w) (p + q e^{-beta x1}) n0/(1 - d) + w x0,      n0 = 1 - e^{-beta x0}, x0 = zeta,
            1 - F = (1 - w) (q + p e^{-beta x0}) n1/(1 - d) + w x1,      n1 = 1 - e^{-beta x1}, x1 = 1 - zeta,

        and the equation is posed in the one that is at most 1/2, against rho or against 1 - rho (exact for rho >= 1/2).
        """
        rho, logit_q, beta = np.broadcast_arrays(rho, logit_q, beta)
        p, q = sigmoid(-logit_q), sigmoid(logit_q)
        left = self._cdf(np.full_like(rho, 0.5), logit_q, beta) >= rho
        lower = rho < 0.5
        target = np.where(lower, rho, 1 - rho)

        def residual(distance: Array) -> tuple[Array, Array]:
            x0, x1 = np.where(left, distance, 1 - distance), np.where(left, 1 - distance, distance)
            tail = np.where(lower, self._tail(x0, x1, p, q, beta), self._tail(x1, x0, q, p, beta))
            value = np.where(left == lower, tail - target, target - tail)
            return value, self._density(x0, x1, p, q, beta)

        start = target / self._density(np.where(left, 0.0, 1.0), np.where(left, 1.0, 0.0), p, q, beta)
        distance = solve(residual, np.zeros_like(rho), np.full_like(rho, 0.5), np.minimum(start, 0.5))
        return np.where(left, distance, 1 - distance), np.where(left, 1 - distance, distance)

    def _tail(self, x0: Array, x1: Array, p: Array, q: Array, beta: Array) -> Array:
        w = self.uniform_weight
        return (1 - w) * (beta / -np.expm1(-beta)) * (p + q * np.exp(-beta * x1)) * _excess(x0, beta) + w * x0

    def _density(self, x0: Array, x1: Array, p: Array, q: Array, beta: Array) -> Array:
        w = self.uniform_weight
        return (1 - w) * (beta / -np.expm1(-beta)) * (p * np.exp(-beta * x0) + q * np.exp(-beta * x1)) + w

    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF:
        """Implicit differentiation; the floor, the same for both z, appears in the density f alone.

        dzeta/drho  = 1 / f
        dzeta/dl    = (1 - w) p q n0 n1 / ((1 - d) f),       for the exponentials' F0 - F1 = n0 n1 / (1 - d)
        dzeta/dbeta = -(1 - w) (p dF0/dbeta + q dF1/dbeta) / f,      see ``_imbalance``
        """
        x0, x1 = self._distances(rho, logit_q, beta)
        p, q = sigmoid(-logit_q), sigmoid(logit_q)
        slope = 1 / self._density(x0, x1, p, q, beta)
        weight = (1 - self.uniform_weight) * slope
        peak = beta / -np.expm1(-beta)
        return InverseCDF(
            zeta=np.where(x0 <= 0.5, x0, 1 - x1),
            # In an order in which no partial product underflows before the result does: x1 is never tiny, x0, p, q may.
            dzeta_dlogit_q=weight * peak * -np.expm1(-beta * x1) * p * _excess(x0, beta) * q,
            dzeta_drho=slope,
            dzeta_dbeta=-(weight * peak * x1 * _imbalance(x0, x1, logit_q, beta)) * x0,
        )


class _Densities(NamedTuple):
    """At one zeta: the exponentials' part of r(zeta|0) and r(zeta|1), and the whole of both."""

    peak0: Array
    peak1: Array
    r0: Array
    r1: Array


def _excess(x: Array, beta: Array) -> Array:
    """(1 - e^{-beta x})/beta, which keeps the digits of an x so small that beta x is no normal number."""
    a = beta * x
    return np.where(a < 1e-9, x * (1 - a / 2), -np.expm1(-a) / beta)


def _imbalance(x0: Array, x1: Array, logit_q: Array, beta: Array) -> Array:
    """(p dF0/dbeta + q dF1/dbeta) (1 - d) / (beta x0 x1), for the exponentials' CDFs at zeta = x0 = 1 - x1.

    The same sum and the same two arrangements as in ``exponential._dzeta_dbeta`` (read there), but at a zeta that is no
    root of the exponentials' own equation: with a = beta x0, t = beta x1,

        e^{-beta} (p X - q Y) / (1 - d),      X = t phi(t) + a phi(-a),      Y = a phi(a) + t phi(-t).
    """
    a, t = beta * x0, beta * x1
    n0, n1 = -np.expm1(-a), -np.expm1(-t)
    excess0, excess1 = linear_excess(a, n0), linear_excess(t, n1)
    decay0, decay1 = (exp(negative(two_product(beta, x))) for x in (x0, x1))
    X = decay0 * (quadratic_excess(t, n1, excess1) + decay1 * excess0)  # e^{-beta} X, and
    Y = decay1 * (quadratic_excess(a, n0, excess0) + decay0 * excess1)  # e^{-beta} Y
    gentle = -gentle_imbalance(x0, x1, x1 - x0, np.tanh(logit_q / 2), beta) * np.exp(-beta) / 2
    return np.where(beta < _GENTLE, gentle, sigmoid(-logit_q) * X - sigmoid(logit_q) * Y) / -np.expm1(-beta)
