"""Overlapping logistics: the smoothing of the paper's appendix B, on the real line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference.smoothing.compensated import Two, add, exact, log, multiply, negative, sigmoid, two_product, two_sum
from reference.smoothing.family import InverseCDF
from reference.smoothing.real_line import (
    LocationMixture,
    finite,
    from_the_ends,
    nu_minus_zeta,
    scaled_distance,
    tanh_excess,
)
from reference.vocabulary import Array


@dataclass(frozen=True, eq=False)
class OverlappingLogistic(LocationMixture):
    """Two overlapping logistic densities of means 0 and 1 and scale 1/beta.

    r(zeta|z) = beta sigma(x) sigma(-x),   F(zeta|z) = sigma(x),   x = beta (zeta - z).

    Source   DVAE++ (arXiv:1802.04920), appendix B.
    Departs  the paper's scale s is 1/beta here, so that as in the other kinds a larger beta is sharper.
    Shapes   beta a scalar, or an array that broadcasts with zeta, rho and logit_q.
    Domain   zeta any real or infinite; beta positive and finite: the sharpness. beta -> infinity gives a point mass
             at z.
    Raises   DomainError for a beta that is not positive and finite.
    """

    beta: float | Array

    def _log_peak(self, beta: Array, weight: float) -> Array:
        """sigma(0)^2 = 1/4."""
        return np.log(beta * (weight / 4))

    def _log_drop(self, zeta: Array, z: Array, beta: Array) -> Array:
        """beta/4 over beta sigma(x) sigma(-x) is cosh(x/2)^2."""
        with np.errstate(over="ignore"):  # only to infinity
            return 2 * _log_cosh(beta * (zeta - z) / 2)

    def _log_odds(self, offset: Two, beta: Array) -> Two:
        """2 log cosh(beta zeta/2) - 2 log cosh(beta (zeta - 1)/2), in one of two forms.

        With log cosh(x/2) = |x|/2 + log(1 + e^{-|x|}) - log 2 the part that may be large is beta (|zeta| - |zeta - 1|),
        and its second factor is 2 zeta - 1 between the modes and constant outside. Where that part is small, it cancels
        against the rest, and the addition theorem of cosh helps:

            cosh(c + h)/cosh(c - h) = (1 + tanh c tanh h)/(1 - tanh c tanh h),   c = beta (zeta - 1/2)/2,  h = beta/4.
        """
        inside = np.abs(offset.high) < 0.5
        from_zero, from_one = from_the_ends(offset)
        with np.errstate(over="ignore", invalid="ignore"):  # zeta may be infinite
            large = two_product(beta, np.where(inside, 2 * offset.high, np.sign(offset.high)))
            low = large.low + beta * np.where(inside, 2 * offset.low, 0)
            x0, x1 = beta * np.abs(from_zero), beta * np.abs(from_one)
            total = two_sum(large.high, 2 * (np.log1p(np.exp(-x0)) - np.log1p(np.exp(-x1))))
            product = np.tanh(beta * (offset.high / 2)) * np.tanh(beta / 4)
        near = np.abs(product) < 0.25
        small = 4 * np.arctanh(np.where(near, product, 0))
        return finite(np.where(near, small, total.high), np.where(near, 0, total.low + low))

    def _r_cdf(self, zeta: Array, z: Array, beta: Array) -> Array:
        """F(zeta|z) = sigma(beta (zeta - z))."""
        return sigmoid(scaled_distance(exact(zeta), z, exact(beta)))

    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array:
        """The root of a quadratic: with w = e^{-beta zeta}, d = e^{-beta}, B = rho (1 + d) - p - q d,

            F(zeta) = p/(1 + w) + q d/(d + w) = rho   is   rho w^2 + B w - (1 - rho) d = 0.

        Source   DVAE++ (arXiv:1802.04920), appendix B; see ``_root`` for the arrangement.
        """
        return _root(rho, logit_q, beta).zeta

    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF:
        """Implicit differentiation, in which S, the square root of the discriminant, is everywhere. With v = d/w,

        f           = beta S / ((1 + w) (1 + v))
        dzeta/drho  = 1 / f
        dzeta/dl    = p q (F(zeta|0) - F(zeta|1)) / f = p q (1 - d) / (beta S)
        dzeta/dbeta = (nu - zeta) / beta,   see ``_nu_minus_zeta``
        """
        root = _root(rho, logit_q, beta)
        S, p, q = np.maximum(root.S, np.finfo(np.float64).tiny), root.p, root.q
        outside = (rho == 0) | (rho == 1)
        # Where p or q underflows, S may be as small as they are, and their quotient is not small at all: divide between
        # two factors sqrt(p q). At the ends S is p + q d, and p q/S a sigmoid.
        half = np.exp(-np.abs(logit_q) / 2)
        sqrt_pq = half / (1 + half * half)
        pq_over_S = np.where(np.abs(logit_q) < 600, p * q / S, sqrt_pq / S * sqrt_pq)
        pq_over_S = np.where(outside, q * sigmoid(exact(beta - root.logit_q)), pq_over_S)
        difference = _nu_minus_zeta(root.offset, root.logit_q, self._log_odds(root.offset, beta), beta)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # infinite at the ends
            dzeta_drho = (1 + root.w) * (1 + root.v) / (beta * S)
            dzeta_dbeta = np.where(root.mirrored, -difference, difference) / beta
        return InverseCDF(
            zeta=root.zeta,
            dzeta_dlogit_q=pq_over_S * (-np.expm1(-beta) / beta),
            dzeta_drho=np.where(outside | (root.S == 0), np.inf, dzeta_drho),
            dzeta_dbeta=np.where(outside, -root.zeta, dzeta_dbeta),
        )


@dataclass(frozen=True)
class _Root:
    """The root of the quadratic, in all the forms its users need without a cancellation.

    All but ``zeta`` speak of the mirror image with rho <= 1/2.
    """

    zeta: Array
    mirrored: Array  # whether that is not the caller's own problem
    logit_q: Array
    offset: Two  # zeta - 1/2 with all the digits that the distance from the nearest of 0, 1/2 and 1 can have
    w: Array  # e^{-beta zeta}
    v: Array  # e^{-beta (1 - zeta)} = d / w
    S: Array  # square root of the discriminant
    p: Array
    q: Array


def _root(rho: Array, logit_q: Array, beta: Array) -> _Root:
    """Solve rho w^2 + B w - (1 - rho) d = 0 for zeta = -log(w)/beta without losing digits anywhere.

    1. Mirror symmetry: l -> -l, rho -> 1 - rho, zeta -> 1 - zeta. So let rho be at most 1/2; 1 - rho is exact where it
       is needed, and the small numbers that rho is compared with have all their digits.
    2. B = (rho - p) + d (rho - q): on the plateau between the modes rho is near p, and their difference is exact.
    3. S = hypot(B, 2 e^{-beta/2} sqrt(rho (1-rho))): nothing underflows before S itself does.
    4. w = (S - B)/(2 rho) or v = d/w = (S + B)/(2 (1-rho)), whichever adds equal signs. One gives x0 = zeta, the
       other x1 = 1 - zeta; each the other as what is left to 1, or near zeta = 0, where that would cancel, from
       w = d/v, in an order in which e^{-beta} never has to be representable.
    5. Where S underflows all the same, B = 0 and rho w^2 = (1 - rho) d.
    6. Near the centre of symmetry, l = 0 and rho = 1/2, all is small: B = ((2 rho - 1)(1 + d) + (q - p)(1 - d))/2, and
       v/w is rho/(1-rho) (S + B)/(S - B), so that beta (2 zeta - 1) = 2 atanh(2 rho - 1) + 2 atanh(B/S).
    """
    mirrored = rho > 0.5
    rho, logit = np.where(mirrored, 1 - rho, rho), np.where(mirrored, -logit_q, logit_q)
    p, q, q_minus_p = sigmoid(exact(-logit)), sigmoid(exact(logit)), np.tanh(logit / 2)
    d, sqrt_d = np.exp(-beta), np.exp(-beta / 2)
    central = (np.abs(logit) < 1) & (rho > 0.25)
    B = np.where(central, ((2 * rho - 1) * (1 + d) - q_minus_p * np.expm1(-beta)) / 2, (rho - p) + d * (rho - q))
    S = np.hypot(B, 2 * sqrt_d * np.sqrt(rho * (1 - rho)))
    y = np.abs(B) + S
    left = B < 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # rho = 0, and branches not taken
        w = np.where(left, y / (2 * rho), 2 * (1 - rho) * (sqrt_d / y) * sqrt_d)
        v = np.where(left, 2 * rho * (sqrt_d / y) * sqrt_d, y / (2 * (1 - rho)))
        # w overflows before its logarithm becomes inaccurate, for subnormal rho.
        from_w = np.where(np.isinf(w), np.log(2 * rho) - np.log(y), -np.log(w)) / beta
        from_v = -np.log(v) / beta
        x0 = np.where(left, from_w, np.where((from_v > 0.5) & (from_v < 2), from_w, 1 - from_v))
        x1 = np.where(left, 1 - from_w, from_v)
        middle = (1 + np.log(rho / (1 - rho)) / beta) / 2
        x0, x1 = np.where(y == 0, middle, x0), np.where(y == 0, 1 - middle, x1)
        x0, x1 = np.where(rho == 0, -np.inf, x0), np.where(rho == 0, np.inf, x1)
        central = central & (np.abs(B) < S / 2)
        centred = (np.arctanh(2 * rho - 1) + np.arctanh(B / S)) / beta
        from_zero, from_one = two_sum(x0, np.asarray(-0.5)), two_sum(np.asarray(0.5), -x1)
    offset = finite(
        np.where(central, centred, np.where(x0 < x1, from_zero.high, from_one.high)),
        np.where(central, 0, np.where(x0 < x1, from_zero.low, from_one.low)),
    )
    zeta = np.where(mirrored, x1, x0)
    return _Root(zeta=zeta, mirrored=mirrored, logit_q=logit, offset=offset, w=w, v=v, S=S, p=p, q=q)


def _nu_minus_zeta(offset: Two, logit_q: Array, log_odds: Two, beta: Array) -> Array:
    """nu - zeta, see ``real_line.nu_minus_zeta``; in the middle, where all is small, without a cancellation.

    By the addition theorem of tanh: with o = zeta - 1/2, u = tanh(l/2) and P = tanh(beta/4) tanh(x), x = beta o/2, the
    log odds are 4 atanh P and nu = 1/2 + tanh(l/2 + 2 atanh P)/2, so that

        nu - zeta = ((P - o - P^3/(1 + P^2)) + u/2 - o T u) / (1 + T u),      T = 2 P/(1 + P^2),
        P - o     = o (beta tanh(beta/4)/2 - 1) + tanh(beta/4) (tanh x - x).

    P - o vanishes to first order for beta = 3.09. P is o + (P - o), which rounds once: as a product it would have the
    roundings of two hyperbolic tangents, and around beta = 3.7, where little is left of o, those are ten of the result.
    """
    o = offset.high + offset.low
    x = beta * (o / 2)
    middle = (np.abs(o) < 0.35) & (np.abs(x) < 0.75) & (np.abs(logit_q) < 1)
    excess = (log_odds.high + log_odds.low) / 4 - o
    elsewhere = nu_minus_zeta(offset, logit_q, log_odds, excess)
    o, x, half = (np.where(middle, part, 0) for part in (o, x, logit_q / 2))
    P_less_o = o * _steepness_less_one(beta) + np.tanh(beta / 4) * tanh_excess(x)
    P, u = o + P_less_o, half + tanh_excess(half)
    half_T = P / (1 + P * P)
    Tu = 2 * half_T * u
    return np.where(middle, ((P_less_o - half_T * P * P) + (u / 2 - o * Tu)) / (1 + Tu), elsewhere)


def _steepness_less_one(beta: Array) -> Array:
    """beta tanh(beta/4)/2 - 1, which vanishes at beta = 3.09, to a rounding or so of itself.

    = ((beta/2 - 1) - e (beta/2 + 1))/(1 + e) with e = e^{-beta/2} to more digits: what its rounding lost is what its
    logarithm lacks to -beta/2.
    """
    half = np.minimum(beta / 2, 300)  # e is nothing beside 1 long before
    rounded = np.exp(-half)
    lost = add(exact(-half), negative(log(exact(rounded))))
    e = two_sum(rounded, rounded * lost.high)
    less = multiply(e, two_sum(half, np.ones_like(half)))
    numerator = add(two_sum(half, -np.ones_like(half)), negative(less))
    return np.where(beta < 600, (numerator.high + numerator.low) / (1 + rounded), beta / 2 - 1)


def _log_cosh(x: Array) -> Array:
    """log cosh x, with all digits near 0 (where it is x^2/2) and without overflow."""
    size = np.abs(x)
    near = np.minimum(size, 1)
    return np.where(size < 1, np.log1p(2 * np.sinh(near / 2) ** 2), size + (np.log1p(np.exp(-2 * size)) - np.log(2)))
