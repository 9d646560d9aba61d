"""Overlapping normal densities: a kind on the real line whose CDF has no inverse in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from scipy.special import erf, ndtri

from reference.smoothing.compensated import Two, add, exact, exp, negative, sigmoid, two_product
from reference.smoothing.family import InverseCDF
from reference.smoothing.inversion import solve
from reference.smoothing.real_line import LocationMixture, nu_minus_zeta, plus_logit, scaled_distance
from reference.vocabulary import Array

_TWO_PI_LOW = 2.4492935982947064e-16  # what the float64 2 pi lacks
_FAR = 40.0  # standard deviations; e^{-40^2/2} is 0
_NODES, _WEIGHTS = (0.5 * (x + shift) for x, shift in zip(np.polynomial.legendre.leggauss(20), (1, 0), strict=True))


@dataclass(frozen=True, eq=False)
class Gaussian(LocationMixture):
    """Two normal densities of means 0 and 1 and precision beta.

    r(zeta|z) = s phi(t),   F(zeta|z) = Phi(t),   t = s (zeta - z),   s = sqrt(beta),

    phi and Phi density and CDF of the standard normal.

    Source   DVAE++ (arXiv:1802.04920), section 3: any pair of smooth densities that converge to points at 0 and 1 will
             do; the inversion and its derivatives are ours.
    Shapes   beta a scalar, or an array that broadcasts with zeta, rho and logit_q.
    Domain   zeta any real or infinite; beta positive and finite: the precision, one over the variance. beta -> infinity
             gives a point mass at z.
    Raises   DomainError for a beta that is not positive and finite.
    """

    beta: float | Array

    def _log_peak(self, beta: Array, weight: float) -> Array:
        """log(s/sqrt(2 pi)), by the exact difference from 2 pi where the logarithm is near 0."""
        two_pi = 2 * pi / weight**2
        excess = ((beta - two_pi) - _TWO_PI_LOW / weight**2) / two_pi
        near = excess > -0.5
        return np.where(near, np.log1p(np.where(near, excess, 0)), np.log(beta / two_pi)) / 2

    def _log_drop(self, zeta: Array, z: Array, beta: Array) -> Array:
        """t^2/2."""
        with np.errstate(over="ignore"):  # only to infinity
            return (beta / 2 * (zeta - z)) * (zeta - z)

    def _log_odds(self, offset: Two, beta: Array) -> Two:
        """beta (zeta - 1/2)."""
        return scaled_distance(offset, 0.0, exact(beta))

    def _r_cdf(self, zeta: Array, z: Array, beta: Array) -> Array:
        """F(zeta|z) = Phi(s (zeta - z)), in which a rounding of the argument would count t^2 fold."""
        return _normal(scaled_distance(exact(zeta), z, _root_of(beta))).lower

    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array:
        """Newton's method on a leash, between the quantiles of the two components; see ``_root``."""
        return _root(rho, logit_q, beta).zeta

    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF:
        """Implicit differentiation; with f the density and nu = q r(zeta|1)/f,

        dzeta/drho  = 1 / f
        dzeta/dl    = p q (F(zeta|0) - F(zeta|1)) / f,   see ``_dzeta_dlogit_q``
        dzeta/dbeta = (nu - zeta) / (2 beta),            see ``nu_minus_zeta``
        """
        root = _root(rho, logit_q, beta)
        log_odds = self._log_odds(root.offset, beta)
        odds = plus_logit(log_odds, root.logit_q)
        # log_odds is beta offset; beta - 4 is exact where that is nearly 4 offset.
        excess = (beta - 4) / 4 * (root.offset.high + root.offset.low)
        difference = nu_minus_zeta(root.offset, root.logit_q, log_odds, excess)
        outside = (rho == 0) | (rho == 1)
        with np.errstate(divide="ignore", over="ignore"):  # a vanishing density, or sharpness
            dzeta_drho = 1 / root.density
            dzeta_dbeta = np.where(root.mirrored, -difference, difference) / (2 * beta)
        return InverseCDF(
            zeta=root.zeta,
            dzeta_dlogit_q=np.where(outside, 0, _dzeta_dlogit_q(root, odds, beta)),
            dzeta_drho=np.where(outside, np.inf, dzeta_drho),
            dzeta_dbeta=np.where(outside, -root.zeta, dzeta_dbeta),
        )


# ---- the standard normal -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Normal:
    """Density and tails of the standard normal at t, each tail with full relative accuracy."""

    bell: Array  # e^{-t^2/2}
    lower: Array  # Phi(t)
    upper: Array  # Phi(-t)


def _normal(t: Two) -> _Normal:
    """Tails from a quotient that varies slowly, Phi(-t) = e^{-t^2/2} ``_scaled_tail(t)``, with t^2 unrounded."""
    high = np.clip(t.high, -_FAR, _FAR)
    low = np.where(high == t.high, t.low, 0)
    square = two_product(high, high)
    bell = exp(Two(-square.high / 2, -(square.low / 2 + high * low)))
    size = np.abs(high)
    smaller = np.where(size < 0.5, 0.5 - erf(size / np.sqrt(2)) / 2, bell * _scaled_tail(size))
    larger = 1 - smaller
    return _Normal(bell, np.where(high < 0, smaller, larger), np.where(high < 0, larger, smaller))


def _scaled_tail(t: Array) -> Array:
    """Phi(-t) e^{t^2/2} for t >= 0, by the trapezoidal rule:

        (t / 2 pi) integral of e^{-v^2/2}/(v^2 + t^2) over the line
            = (t h / pi) sum_k e^{-v_k^2/2}/(v_k^2 + t^2) + pole,
        v_k = (k + 1/2) h,   pole = e^{t^2/2}/(1 + e^{2 pi t/h}) for t < 2 pi/h.

    The trapezoidal rule of an analytic function errs by an exponentially small amount, here e^{-2 pi^2/h^2} ~ 1e-22 for
    h = pi/5, after the poles at v = +-i t are accounted for. (scipy's erfcx and ndtr are off by 4 to 700 roundings.)

    Source   Matta, Reichl (1971); Hunter, Regan (1972).
    """
    total = np.zeros_like(t)
    for k in range(13, -1, -1):
        v_squared = ((k + 0.5) * pi / 5) ** 2
        total = total + np.exp(-v_squared / 2) / 5 / (v_squared + t * t)
    pole = np.where(t < 10, np.exp(np.minimum(t, 10) ** 2 / 2) / (1 + np.exp(10 * np.minimum(t, 10))), 0)
    return t * total + pole


def _root_of(beta: Array) -> Two:
    """sqrt(beta) and what its rounding lacks."""
    s = np.sqrt(beta)
    square = two_product(s, s)
    return Two(s, ((beta - square.high) - square.low) / (2 * s))


def _mean_cosh(a: Array, b: Array) -> Array:
    """Integral over v in (0, 1) of cosh(a b v) e^{-a^2 v^2/2}, for moderate a and a b.

    It makes differences of Phi sums of positive numbers: Phi(b + a) - Phi(b - a) = 2 a phi(b) ``_mean_cosh(a, b)``.
    """
    total = np.zeros(np.broadcast_shapes(a.shape, b.shape))
    for v, weight in zip(_NODES, _WEIGHTS, strict=True):
        total = total + weight * (np.cosh(a * b * v) * np.exp(-((a * v) ** 2) / 2))
    return total


# ---- the inverse ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Root:
    """The root with what its derivatives need; all but ``zeta`` speak of the mirror image with rho <= 1/2."""

    zeta: Array
    mirrored: Array  # whether that is not the caller's own problem
    offset: Two  # zeta - 1/2
    logit_q: Array
    density: Array
    at_zero: _Normal
    at_one: _Normal


def _root(rho: Array, logit_q: Array, beta: Array) -> _Root:
    """Solve p Phi(s zeta) + q Phi(s (zeta - 1)) = rho.

    1. Mirror symmetry: l -> -l, rho -> 1 - rho, zeta -> 1 - zeta. So let rho be at most 1/2: 1 - rho is exact where it
       is needed, and zeta lies between the rho-quantiles of the components and not above 1.
    2. Below 0 the unknown is matched in the logarithm of the tail, log(F/rho), which is nearly straight. Above 0 the
       difference F - rho is (p - rho) - p Phi(-s zeta) + q Phi(s (zeta - 1)): on the plateau between the modes p - rho
       is exact and the rest small.
    3. The unknown is the offset u = zeta - 1/2 from the centre of symmetry. Near l = 0, rho = 1/2 all is small, with
       a = s u, h = s/2:  F - 1/2 = (Phi(h + a) - Phi(h - a))/2 - (q - p)(Phi(a + h) - Phi(a - h))/2.
    4. u is rounded; the derivatives depend on it more finely than that. One more step of Newton gives the rest of it.
    """
    eps = np.finfo(np.float64).eps
    mirrored = rho > 0.5
    below = np.where(mirrored, 1 - rho, rho)
    inside = below > 0
    below = np.where(inside, below, 0.5)
    logit = np.where(mirrored, -logit_q, logit_q)
    p, q, q_minus_p = sigmoid(exact(-logit)), sigmoid(exact(logit)), np.tanh(logit / 2)
    s = _root_of(beta)
    h = s.high / 2
    central = (np.abs(logit) < 1) & (beta < 10) & (below > 0.25)
    h_central = np.where(central, h, 0)

    def at(u: Two) -> tuple[_Normal, _Normal, Array]:
        at_zero, at_one = (_normal(scaled_distance(u, shift, s)) for shift in (-0.5, 0.5))
        return at_zero, at_one, s.high / np.sqrt(2 * pi) * (p * at_zero.bell + q * at_one.bell)

    def residual(u: Array) -> tuple[Array, Array]:
        at_zero, at_one, density = at(Two(u, np.zeros_like(u)))
        F = p * at_zero.lower + q * at_one.lower
        difference = ((below - p) + p * at_zero.upper) - q * at_one.lower  # rho - F
        a = s.high * u
        in_centre = central & (np.abs(a) < 1)
        a = np.where(in_centre, a, 0)
        lift = np.exp(-(h_central**2) / 2) * (a * _mean_cosh(a, h_central))
        shift = np.exp(-(a**2) / 2) * (h_central * _mean_cosh(h_central, a)) * q_minus_p
        difference = np.where(in_centre, (below - 0.5) - (lift - shift) / np.sqrt(2 * pi), difference)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # F may underflow
            tail = u < -0.5
            return np.where(tail, np.log(F / below), -difference / below), density / np.where(tail, F, below)

    quantile = ndtri(below) / s.high
    margin = 1e-9 * (np.abs(quantile) + 1 / s.high)
    low, high = quantile - 0.5 - margin, quantile + 0.5 + margin
    u = solve(residual, low, high, quantile + (q - 0.5))
    value, slope = residual(u)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # on the plateau the slope may vanish
        rest = np.clip(np.nan_to_num(-value / slope), -2 * eps * np.abs(u), 2 * eps * np.abs(u))
    offset = Two(u, rest)
    at_zero, at_one, density = at(offset)
    sign = np.where(mirrored, -1.0, 1.0)
    zeta = add(Two(sign * u, sign * rest), Two(np.full_like(u, 0.5), np.zeros_like(u))).high
    return _Root(
        zeta=np.where(inside, zeta, np.where(mirrored, np.inf, -np.inf)),
        mirrored=mirrored,
        offset=offset,
        logit_q=logit,
        density=density,
        at_zero=at_zero,
        at_one=at_one,
    )


def _dzeta_dlogit_q(root: _Root, y: Two, beta: Array) -> Array:
    """p q (F(zeta|0) - F(zeta|1))/f. With a = s u, h = s/2, t = s zeta and nu the posterior, log odds y, it is

        e^{h^2/2} mean_cosh(h, a)/(4 cosh(l/2) cosh(y/2))                            where the two modes overlap,
        sqrt(2 pi)/s (Phi(t) - Phi(t-s)) e^{(a^2 + h^2)/2}/(4 cosh(l/2) cosh(y/2))   between two separate ones,
        sqrt(2 pi)/s (Phi(t) - Phi(t-s)) e^{t^2/2} q (1 - nu)                        below both.

    In the first the difference of two CDFs is a sum of positive terms; in the others the subtrahend is far smaller. The
    exponentials, which may overflow or underflow, are multiplied by adding exponents.
    """
    s = _root_of(beta)
    h, u, logit = s.high / 2, root.offset.high, root.logit_q
    overlap = (h < 2) & (np.abs(beta * u) < 3)
    between = ~overlap & (u > -0.5)
    inner = np.where(between, u, 0)
    square = two_product(inner, inner)
    exponent = two_product(beta / 2, np.where(between, square.high, 0))
    exponent = Two(exponent.high, exponent.low + beta / 2 * (square.low + 2 * inner * root.offset.low))
    minus_half_y = Two(-np.abs(y.high) / 2, -np.sign(y.high) * y.low / 2)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite logits
        exponent = add(add(exponent, Two(beta / 8, np.zeros_like(beta))), minus_half_y)
        exponent = add(exponent, Two(-np.abs(logit) / 2, np.zeros_like(beta)))
        too_high = exponent.high > 709  # then it saturates
        exponent = Two(np.where(too_high, 709, exponent.high), np.where(too_high, 0, exponent.low))
        ratio = exp(exponent) / ((1 + np.exp(-np.abs(logit))) * (1 + np.exp(-np.abs(y.high))))
        ratio = np.where(np.isinf(logit), 0, ratio)
        scale = np.sqrt(2 * pi) / s.high
        separate = scale * ((1 - root.at_zero.upper - root.at_one.lower) * ratio)
    overlapping = _mean_cosh(np.where(overlap, h, 0), np.where(overlap, s.high * u, 0)) * ratio
    t0, t1 = np.minimum(s.high * (u + 0.5), 0), np.minimum(s.high * (u - 0.5), 0)
    fall = _scaled_tail(-t0) - _scaled_tail(-t1) * np.exp(np.minimum(beta * u, 0))
    below = scale * fall * (sigmoid(exact(logit)) * sigmoid(negative(y)))
    return np.where(overlap, overlapping, np.where(between, separate, below))
