"""Spike-and-exponential: the smoothing of the first discrete VAE, whose two densities do not overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reference.smoothing.compensated import exact, sigmoid
from reference.smoothing.exponential import OverlappingExponential
from reference.smoothing.family import InverseCDF, MixtureSmoothing
from reference.smoothing.series import linear_excess, quadratic_excess
from reference.vocabulary import Array

_EXPONENTIAL = OverlappingExponential(1.0)  # for its formulas, which take beta as an argument
_SCALE = 128  # times 2**128, exactly, every subnormal number is an ordinary one with all its digits


@dataclass(frozen=True, eq=False)
class SpikeExponential(MixtureSmoothing):
    """A point mass at 0 for z = 0, an exponential that rises to 1 for z = 1.

    r(zeta|0) = delta(zeta),   r(zeta|1) = beta e^{beta zeta} / (e^beta - 1) on [0, 1],

    the latter the same as that of ``OverlappingExponential``. Densities are with respect to a unit mass at 0 plus
    Lebesgue measure: at zeta = 0 they are the probabilities of that very number, r(0|0) = 1 and r(0|1) = 0, and for
    zeta > 0 ordinary densities, with r(zeta|0) = 0. As the two never meet, zeta gives z away: nu = [zeta > 0] is a step
    through which no gradient flows. That is why DVAE++ overlaps its densities, and ``rolfe_gradient`` exists.

    Source   Rolfe (2016), "Discrete variational autoencoders", the spike-and-exponential smoothing; DVAE++
             (arXiv:1802.04920), section 2.
    Shapes   beta a scalar, or an array that broadcasts with zeta, rho and logit_q.
    Domain   zeta in [0, 1]; beta positive and finite: the sharpness. beta -> 0 gives a uniform density for z = 1,
             beta -> infinity a point mass at 1.
    Raises   DomainError for a beta that is not positive and finite.
    """

    beta: float | Array

    def _log_r(self, zeta: Array, z: Array, beta: Array) -> Array:
        """At 0 the log mass, 0 or -inf; beyond it -inf or the exponential's log density."""
        on_spike = zeta == 0
        continuous = _EXPONENTIAL._log_r(zeta, np.ones_like(z), beta)
        return np.where(z == 0, np.where(on_spike, 0.0, -np.inf), np.where(on_spike, -np.inf, continuous))

    def _r_cdf(self, zeta: Array, z: Array, beta: Array) -> Array:
        """F(zeta|0) = 1,   F(zeta|1) = (e^{beta zeta} - 1) / (e^beta - 1)."""
        return np.where(z == 0, 1.0, _EXPONENTIAL._r_cdf(zeta, np.ones_like(z), beta))

    def _log_ratio(self, zeta: Array, beta: Array) -> Array:
        """-inf on the spike, +inf beyond it, whatever beta."""
        return np.where(np.broadcast_to(zeta > 0, np.broadcast_shapes(zeta.shape, beta.shape)), np.inf, -np.inf)

    def _nu(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """[zeta > 0], whatever logit and sharpness."""
        zeta, _, _ = np.broadcast_arrays(zeta, logit_q, beta)
        return (zeta > 0).astype(np.float64)

    def _log_prob(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """log p on the spike, log q + log r(zeta|1) beyond it."""
        log_p, log_q = -np.logaddexp(0, logit_q), -np.logaddexp(0, -logit_q)
        return np.where(zeta == 0, log_p, log_q + _EXPONENTIAL._log_r(zeta, np.ones_like(zeta), beta))

    def _cdf(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """F(zeta) = p + q F(zeta|1)."""
        p, q = sigmoid(exact(-logit_q)), sigmoid(exact(logit_q))
        return np.minimum(p + q * _EXPONENTIAL._r_cdf(zeta, np.ones_like(zeta), beta), 1)

    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array:
        """zeta = 0 for rho <= p, else log(1 + s (e^beta - 1)) / beta with s = (rho - p)/q. See ``_draw``."""
        return _draw(rho, logit_q, beta).x0

    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF:
        """On the spike nothing moves; beyond it F = p + q F(zeta|1) = rho gives, with d = e^{-beta},

            dzeta/drho  = 1 / (q r(zeta|1)),                      r(zeta|1) = beta e^{-beta (1 - zeta)} / (1 - d)
            dzeta/dl    = p q (1 - F(zeta|1)) / (q r(zeta|1)),    1 - F(zeta|1) = (1 - rho)/q
            dzeta/dbeta = -(dF(zeta|1)/dbeta) / r(zeta|1)
                        = zeta (1 - zeta) e^{-a} (a phi(a) + t phi(-t)) / (1 - d)

        where a = beta zeta, t = beta (1 - zeta), phi(x) = (e^x - 1 - x)/x^2, as for ``OverlappingExponential``.

        dzeta/dl is that of a draw beyond the spike, moved by q and through q by p; that raising q also lifts draws off
        the spike it cannot say (``rolfe_gradient`` does). Where rho passes p, zeta is continuous and its derivatives
        jump from 0.
        """
        draw = _draw(rho, logit_q, beta)
        a, t = beta * draw.x0, beta * draw.x1
        g_a, g_t = linear_excess(a, -np.expm1(-a)), linear_excess(t, -np.expm1(-t))
        h_a = quadratic_excess(a, -np.expm1(-a), g_a)
        one_minus_d = -np.expm1(-beta)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # on the spike; a huge derivative saturates
            slope = one_minus_d / (beta * draw.decay)  # 1 / r(zeta|1)
            dzeta_drho = slope / draw.q
            # p/r(zeta|1) (1 - F(zeta|1)), in an order in which no partial product underflows before the result does
            dzeta_dlogit_q = (draw.p_factors[0] * slope) * (draw.rest * draw.p_factors[1])
        still = (draw.rest == 0) | (draw.p_factors[0] == 0)  # also where the slope is infinite
        return InverseCDF(
            zeta=draw.x0,
            dzeta_dlogit_q=np.where(draw.beyond & ~still, dzeta_dlogit_q, 0.0),
            dzeta_drho=np.where(draw.beyond, dzeta_drho, 0.0),
            dzeta_dbeta=draw.x0 * (draw.x1 * ((h_a + np.exp(-a) * g_t) / one_minus_d)),
        )


class _Draw(NamedTuple):
    """The sample, and what its derivatives are made of."""

    beyond: Array  # the spike
    x0: Array  # zeta, and
    x1: Array  # 1 - zeta, both with full relative accuracy
    rest: Array  # (1 - rho)/q = 1 - F(zeta|1), and
    decay: Array  # e^{-beta x1}, both for a sample beyond the spike
    q: Array
    p_factors: tuple[Array, Array]  # two numbers, neither subnormal, whose product is p


def _draw(rho: Array, logit_q: Array, beta: Array) -> _Draw:
    """Solve p + q (e^{beta zeta} - 1) / (e^beta - 1) = rho without losing digits anywhere.

    Three ideas, with s = (rho - p)/q = F(zeta|1):

    1. rho - p, where it is small: (rho - 1/2) + tanh(l/2)/2 for central logits; q - (1 - rho) for l < 0, where rho > p
       >= 1/2 makes 1 - rho exact. It is held multiplied by 2**128, for it may be a subnormal number though zeta is not.
    2. In the left half zeta = x0 from s (e^beta - 1) = s e^{beta/2} 2 sinh(beta/2), which overflows only where zeta is
       in the right half. There x1 = 1 - zeta is found from e^{-beta x1} = s + (1 - s) d or from what this lacks to 1.
    3. rho = 1 is beyond the spike whenever z = 1 is possible at all, also where q underflows.
    """
    size = np.abs(logit_q)
    half = np.exp(-size / 2)
    larger = 1 / (1 + half * half)
    smaller, smaller_scaled = half * half * larger, np.ldexp(half, _SCALE) * half * larger
    likely = logit_q > 0
    q = np.where(likely, larger, smaller)
    by_p, by_q = np.ldexp(rho, _SCALE) - smaller_scaled, smaller_scaled - np.ldexp(1 - rho, _SCALE)
    central = np.ldexp((rho - 0.5) + np.tanh(logit_q / 2) / 2, _SCALE)
    excess = np.where(size < 1, central, np.where(likely, by_p, by_q))  # 2**128 (rho - p)
    top = rho == 1
    beyond = ((excess > 0) | top) & (logit_q > -np.inf)

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # on the spike, and branches not taken
        s_scaled = np.where(top, 2.0**_SCALE, excess / q)
        rest = np.where(top, 0.0, (1 - rho) / q)
        n1, decay = rest * -np.expm1(-beta), np.ldexp(s_scaled, -_SCALE) + rest * np.exp(-beta)
        from_right = np.where(n1 < 0.5, -np.log1p(-n1), -np.log(decay)) / beta
        straight = s_scaled * np.exp(beta / 2) * np.ldexp(2 * np.sinh(beta / 2) / beta, -_SCALE)  # zeta, were it small
        growth = beta * straight  # s (e^beta - 1)
        from_left = np.where(growth < np.finfo(np.float64).tiny, straight, np.log1p(growth) / beta)
    right = (from_right < 0.5) | np.isinf(growth)
    x0 = np.where(beyond, np.where(right, 1 - np.minimum(from_right, 1), from_left), 0.0)
    x1 = np.where(right & beyond, np.minimum(from_right, 1), 1 - x0)
    return _Draw(beyond, x0, x1, rest, decay, q, (np.where(likely, half, 1.0) * larger, np.where(likely, half, 1.0)))
