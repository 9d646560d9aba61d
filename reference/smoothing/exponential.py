"""Overlapping exponentials: the smoothing of the paper's experiments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference.smoothing.compensated import Two, add, decay_from_one, exact, sigmoid, two_product, two_sum
from reference.smoothing.family import InverseCDF, MixtureSmoothing
from reference.smoothing.series import cosh_less_sinhc, gentle_imbalance, linear_excess, quadratic_excess, sinh_term
from reference.vocabulary import Array

_FLAT = 1e-6  # below this sharpness the sample is rho, but for beta/8 at most
_GENTLE = 3.0  # below this sharpness log densities are computed from the middle of [0, 1], above from its ends
# ``_dzeta_dbeta`` has two arrangements. Where the first is the better one, by searches for the worst case of either:
# below both sharpnesses _CANCELLING and _BALANCED q, q the smaller of p and q.
_CANCELLING, _BALANCED = 3.8, 16.0


@dataclass(frozen=True, eq=False)
class OverlappingExponential(MixtureSmoothing):
    """Two overlapping exponentials, each other's mirror image.

    r(zeta|0) = beta e^{-beta zeta} / (1 - e^{-beta}),   r(zeta|1) = beta e^{-beta (1 - zeta)} / (1 - e^{-beta}).

    Source   DVAE++ (arXiv:1802.04920), section 3, eq. (3), and appendix A.
    Shapes   beta a scalar, or an array that broadcasts with zeta, rho and logit_q.
    Domain   zeta in [0, 1]; beta positive and finite: the sharpness. beta -> 0 gives the uniform density for both z,
             beta -> infinity a point mass at z.
    Raises   DomainError for a beta that is not positive and finite.
    """

    beta: float | Array

    def _log_r(self, zeta: Array, z: Array, beta: Array) -> Array:
        """log r(zeta|z) = log(beta / (1 - e^{-beta})) - beta |z - zeta|: |z - zeta| is zeta or 1 - zeta.

        A gentle smoothing's density is near 1 and its log the difference of nearly equal numbers. There, measured from
        the middle, log r = -log(sinh(beta/2) / (beta/2)) +- beta (1/2 - zeta): both terms are as small as the result.
        """
        sharp = _log_peak(beta) - beta * np.abs(z - zeta)
        gentle = np.where(z == 0, 1, -1) * (beta * (0.5 - zeta)) - _log_sinhc(np.minimum(beta, _GENTLE) / 2)
        return np.where(beta < _GENTLE, gentle, sharp)

    def _r_cdf(self, zeta: Array, z: Array, beta: Array) -> Array:
        """F(zeta|0) = (1 - e^{-beta zeta}) / (1 - e^{-beta}),   F(zeta|1) = e^{-beta (1 - zeta)} F(zeta|0).

        F(.|1) is a product, not the difference (e^{-beta(1-zeta)} - e^{-beta})/(1 - e^{-beta}), which loses all digits
        near zeta = 0.
        """
        at_zero = _r0_cdf(zeta, beta)
        return np.where(z == 0, at_zero, decay_from_one(zeta, beta) * at_zero)

    def _log_ratio(self, zeta: Array, beta: Array) -> Array:
        """log r(zeta|1) - log r(zeta|0) = beta (2 zeta - 1)."""
        return beta * (2 * zeta - 1)

    def _nu(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """nu = sigma(l + beta (2 zeta - 1)).

        A small nu is an exponential, which magnifies the rounding of its argument: so that is carried unevaluated.
        """
        middle = two_sum(2 * zeta, np.full_like(zeta, -1))
        ratio = two_product(beta, middle.high)
        return sigmoid(add(exact(logit_q), Two(ratio.high, ratio.low + beta * middle.low)))

    def _log_prob(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """log(p r(zeta|0) + q r(zeta|1)), eq. (2).

        A gentle smoothing's density is nearly 1; the digits of its log are those of the excess over 1. With h = beta/2,
        y = 1/2 - zeta and p - q = -tanh(l/2),

            q(zeta|x) - 1 = (bend + (p - q) sinh(beta y)) h/sinh(h),      bend = cosh(beta y) - sinh(h)/h
                                                                               = (cosh h - sinh(h)/h)
                                                                                 - 2 sinh(h zeta) sinh(h (1 - zeta))

        in terms as small as h^2; of the two forms of ``bend`` the first is taken near the middle, the second near the
        ends.
        """
        log_p, log_q = -np.logaddexp(0, logit_q), -np.logaddexp(0, -logit_q)
        sharp = _log_peak(beta) + np.logaddexp(log_p - beta * zeta, log_q - beta * (1 - zeta))
        h = np.minimum(beta, _GENTLE) / 2  # keeps the branch not taken from overflowing
        y, sinhc_less_1 = 0.5 - zeta, sinh_term(h) / 2
        in_the_middle = 2 * np.sinh(h * y) ** 2 - sinhc_less_1
        near_the_ends = cosh_less_sinhc(h) - 2 * np.sinh(h * zeta) * np.sinh(h * (1 - zeta))
        bend = np.where(np.abs(y) < 0.25, in_the_middle, near_the_ends)
        excess = (bend + np.tanh(-logit_q / 2) * np.sinh(2 * h * y)) / (1 + sinhc_less_1)
        gentle = (beta < _GENTLE) & (excess > -0.5)
        return np.where(gentle, np.log1p(np.maximum(excess, -0.5)), sharp)

    def _cdf(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """F(zeta) = p F(zeta|0) + q F(zeta|1), appendix A: a sum of positive terms, as in ``_r_cdf``."""
        p, q = sigmoid(exact(-logit_q)), sigmoid(exact(logit_q))
        return np.minimum(p + q * decay_from_one(zeta, beta), 1) * _r0_cdf(zeta, beta)

    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array:
        """The root of a quadratic: with m = e^{-beta zeta}, d = e^{-beta}, B = rho (1 - d) - p + q d,

            F(zeta) = rho   is   p m^2 + B m - q d = 0.

        Source   eq. (3), appendix A.
        Departs  eq. (3) divides by p and subtracts nearly equal numbers; it is inf or NaN in float32 for beta = 10,
                 |l| > 16. See ``_root`` for the form used here: within 4 roundings over the whole domain.
        """
        return _root(rho, logit_q, beta).zeta

    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF:
        """Implicit differentiation; with f the density,

            f           = beta S / (1 - d),            S = p e^{-beta zeta} + q e^{-beta (1 - zeta)}
            dzeta/drho  = 1 / f
            dzeta/dl    = p q n0 n1 / (beta S),        n0 = 1 - e^{-beta zeta},  n1 = 1 - e^{-beta (1 - zeta)}
            dzeta/dbeta = -(dF/dbeta) / f,             see ``_dzeta_dbeta``

        S is also the square root of the quadratic's discriminant, so it costs nothing. Where it vanishes to the dtype
        (large beta, rho exactly on the plateau between the two modes) it is held at the smallest normal number.
        """
        root = _root(rho, logit_q, beta)
        slope = np.maximum(root.S, np.finfo(np.float64).tiny)
        one_minus_d = -np.expm1(-beta)
        # p q n0 n1/(beta S). For central logits it collapses to one quotient with fewer roundings, because n0 n1 =
        # 2 rho (1-rho) (1-d)^2 / (1 + S + X (q-p) - c/2), c = 4 p q (1-d); elsewhere the factors are kept, in an order
        # in which no partial product underflows before the result does.
        c = root.four_pq * one_minus_d
        with np.errstate(divide="ignore", invalid="ignore"):  # branch not taken
            weight = c * (one_minus_d / (2 * beta)) / (root.S_squared + slope * (1 + (root.X * root.q_minus_p - c / 2)))
            quotient = rho * (1 - rho) * weight
        return InverseCDF(
            zeta=root.zeta,
            dzeta_dlogit_q=np.where(
                root.central, quotient, (root.sqrt_pq / slope * root.v0) * (root.n1 * root.sqrt_pq)
            ),
            dzeta_drho=one_minus_d / (beta * slope),
            dzeta_dbeta=_dzeta_dbeta(root, beta),
        )


def _log_peak(beta: Array) -> Array:
    """log(beta / (1 - e^{-beta})): the log density of each exponential at its own end."""
    return np.log(beta) - np.log(-np.expm1(-beta))


def _log_sinhc(x: Array) -> Array:
    """log(sinh(x)/x) for 0 <= x <= 6, which is about x^2/6 where x is small."""
    return np.log1p(sinh_term(x) / 2)


def _r0_cdf(zeta: Array, beta: Array) -> Array:
    """(1 - e^{-beta zeta}) / (1 - e^{-beta}), also for a zeta so small that beta zeta is no normal number."""
    return np.where(zeta < 1e-200, zeta * (beta / -np.expm1(-beta)), np.expm1(-beta * zeta) / np.expm1(-beta))


@dataclass(frozen=True)
class _Root:
    """The root of the quadratic, in all the forms its users need without a cancellation.

    Everything but ``zeta`` speaks of the mirror image with l <= 0, in which z = 0 is the likelier value; ``mirrored``
    says where that is not the caller's own problem.
    """

    zeta: Array
    mirrored: Array
    x0: Array  # distance of the sample from 0, that is zeta, and
    x1: Array  # distance from 1, that is 1 - zeta, both with full relative accuracy
    n0: Array  # 1 - e^{-beta x0}
    n1: Array  # 1 - e^{-beta x1}
    v0: Array  # n0 / beta
    S: Array  # square root of the discriminant = p e^{-beta x0} + q e^{-beta x1}
    B: Array  # = q e^{-beta x1} - p e^{-beta x0}
    X: Array  # (rho - q) (1 - e^{-beta})
    sqrt_pq: Array
    q_minus_p: Array
    central: Array  # |l| < 1.1 and d a normal number; there
    four_pq: Array  # 4 p q, and
    S_squared: Array  # S^2, with fewer roundings
    logit: Array  # -|l|


def _root(rho: Array, logit_q: Array, beta: Array) -> _Root:
    """Solve p m^2 + B m - q d = 0 for zeta = -log(m)/beta without losing digits anywhere.

    Five ideas (each cures a failure of the naive root):

    1. Mirror symmetry: l -> -l, rho -> 1 - rho, zeta -> 1 - zeta leaves the problem as it is. So solve it for l <= 0,
       p >= q, where B = q - (1-rho)(1-d) - p d: near B = 0, where its error counts, no term exceeds the small q.
    2. Near the ends, from sums of positive terms only, so that x0 = zeta and x1 = 1 - zeta keep full relative accuracy:
       n0 = 2R / (p + R + q d + S) and n1 = 2R' / (q + R' + p d + S), R = rho (1-d), R' = (1-rho)(1-d). The sums are
       1 + X + S and 1 - X + S with X = (rho - q)(1-d), which rounds less often unless X is near 1.
    3. In between, e^{-beta x0} = (S - B)/(2p) or e^{-beta x1} = (S + B)/(2q), whichever adds equal signs; the other
       from their product d, in an order in which e^{-beta} never has to be representable.
    4. S = hypot(B, 2 e^{-beta/2} sqrt(p q)) with sqrt(p q) from e^{-|l|/2}: nothing underflows before S itself does.
       For central logits, |l| < 1.1, fewer roundings come from S^2 = B^2 + 4 p q d, 4 p q = 1 - (q-p)^2, and from
       B = ((2 rho - 1)(1-d) + (q-p)(1+d))/2, X = ((2 rho - 1) - (q-p))(1-d)/2, whose terms are small where p ~ q.
    5. Where S underflows all the same (both modes far away, rho exactly on the plateau between them) the two terms of S
       are equal, hence beta (2 x1 - 1) = l.
    """
    tiny = np.finfo(np.float64).tiny
    size = np.abs(logit_q)
    half = np.exp(-size / 2)
    p = 1 / (1 + half * half)
    q, sqrt_pq, q_minus_p = half * half * p, half * p, -np.tanh(size / 2)
    mirrored = logit_q > 0
    below, above = np.where(mirrored, 1 - rho, rho), np.where(mirrored, rho, 1 - rho)

    d, sqrt_d, one_minus_d = np.exp(-beta), np.exp(-beta / 2), -np.expm1(-beta)
    R_mirror = above * one_minus_d
    central = (q_minus_p > -0.5) & (beta < 600)  # where S^2 >= 4 p q d is far from underflow
    u = np.where(mirrored, 1 - 2 * rho, 2 * rho - 1)
    B = np.where(central, (u * one_minus_d + q_minus_p * (1 + d)) / 2, q - R_mirror - p * d)
    X = np.where(central, (u - q_minus_p) / 2, below - q) * one_minus_d
    four_pq = 1 - q_minus_p * q_minus_p
    S_squared = B * B + four_pq * d
    S = np.where(central, np.sqrt(S_squared), np.hypot(B, 2 * sqrt_d * sqrt_pq))

    # v = n / beta. `tiny` turns 0/0 at rho = 0 or 1 with an underflowed density into the right 0.
    sum0 = 1 + X + S
    sum1 = np.where(X > 0.5, q + R_mirror + p * d, 1 - X) + S
    v0 = below / sum0 * (2 * one_minus_d / beta)
    v1 = above / np.maximum(sum1, tiny) * (2 * one_minus_d / beta)
    n0, n1 = np.minimum(beta * v0, 1), np.minimum(beta * v1, 1)

    # The distance from the nearer end: from n near that end, from the exponential e = e^{-beta distance} further in.
    # y is 2 q e^{-beta x1} where B >= 0, and else 2 p e^{-beta x0}. With l <= 0 the left half implies B < 0.
    y = np.abs(B) + S
    # Where the density is nearly flat, both would compare numbers equal up to rounding; there v is the distance itself.
    left = np.where(beta < _FLAT, v0 <= v1, (B < 0) & (y >= 2 * p * sqrt_d))
    v = np.minimum(v0, v1)
    n = np.clip(beta * v, tiny, 0.5)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # branches not taken
        e = np.where(left, y / (2 * p), np.where(B < 0, 2 * p * (sqrt_d / y) * sqrt_d, y / (2 * q)))
        between = np.where(y == 0, (beta - size) / 2, -np.log(e))
    nearer = np.where(n < 0.5, -np.log1p(-n) / beta, np.clip(between / beta, 0, 1))
    nearer = np.where(n <= tiny, v, nearer)  # n may be subnormal where zeta is not
    x0, x1 = np.where(left, nearer, 1 - nearer), np.where(left, 1 - nearer, nearer)
    return _Root(
        zeta=np.where(mirrored, x1, x0),
        mirrored=mirrored,
        x0=x0,
        x1=x1,
        n0=n0,
        n1=n1,
        v0=v0,
        S=S,
        B=B,
        X=X,
        sqrt_pq=sqrt_pq,
        q_minus_p=q_minus_p,
        central=central,
        four_pq=four_pq,
        S_squared=S_squared,
        logit=-size,
    )


def _dzeta_dbeta(root: _Root, beta: Array) -> Array:
    """Derivative of the sample with respect to the sharpness.

    With a = beta zeta, t = beta (1 - zeta) and phi(x) = (e^x - 1 - x)/x^2 the CDFs of the two exponentials obey

        dF(zeta|0)/dbeta = +a t d/(beta (1-d)^2) X,   X = t phi(t) + a phi(-a)  >= 0
        dF(zeta|1)/dbeta = -a t d/(beta (1-d)^2) Y,   Y = a phi(a) + t phi(-t)  >= 0
        dzeta/dbeta      = -a t/(beta^2 (1-d)) (p X - q Y) d/S

    X and Y are sums of positive terms (the textbook form subtracts terms 1/beta times larger). Only p X - q Y can
    cancel, and two arrangements keep the digits:
    - small beta, where X ~ Y: ((X - Y) + (p - q)(X + Y))/2, see ``gentle_imbalance``. Not where q is so small that
      p X - q Y hardly cancels: there this form would;
    - elsewhere p d X/S = (1 - nu) e^{-t} X and q d Y/S = nu e^{-a} Y, in which nothing overflows. With y = |B| + S
      the larger of nu and 1 - nu is y/(2 S), the smaller 2 p q d/(S y).

    The mirror image of the problem has the opposite derivative.
    """
    a, t = beta * root.x0, beta * root.x1
    n0, n1 = -np.expm1(-a), -np.expm1(-t)  # not those of the root: they must be of the same a and t as the rest
    tiny = np.finfo(np.float64).tiny
    S = np.maximum(root.S, tiny)

    near = (beta < _CANCELLING) & (beta < _BALANCED * (1 + root.q_minus_p) / 2)  # of which q is the half
    gap = root.x1 - root.x0
    # Near the middle that holds little but the rounding of zeta. Finer, where neither of its two terms is large: the
    # ratio of e^{-a} and e^{-t}, which is (S - B) q / ((S + B) p), has the logarithm t - a.
    middle = near & root.central & (np.abs(gap) < 0.125) & (-root.logit < beta)
    log_ratio = np.where(middle, root.logit - 2 * np.arctanh(np.where(middle, root.B / S, 0)), 0)
    gap = np.where(middle, log_ratio / beta, gap)
    of_near = gentle_imbalance(root.x0, root.x1, gap, root.q_minus_p, beta) / (2 * S * np.expm1(np.minimum(beta, 6)))

    y = np.maximum(np.abs(root.B) + S, tiny)
    overlap = root.sqrt_pq * np.exp(-beta / 2)
    plateau = tiny > root.S  # idea 5 of _root: both terms of S are equal
    larger = np.where(plateau, 0.5, y / (2 * S))
    smaller = np.where(root.central, np.exp(-beta) / S * (root.four_pq / (2 * y)), 2 * (overlap / S) * (overlap / y))
    smaller = np.where(plateau, 0.5, smaller)
    nu, one_minus_nu = np.where(root.B >= 0, larger, smaller), np.where(root.B >= 0, smaller, larger)
    g_a, g_t = linear_excess(a, n0), linear_excess(t, n1)
    h_a, h_t = quadratic_excess(a, n0, g_a), quadratic_excess(t, n1, g_t)
    far = one_minus_nu * (h_t + np.exp(-t) * g_a) - nu * (h_a + np.exp(-a) * g_t)
    result = root.x0 * (root.x1 * np.where(near, of_near, far / np.expm1(-beta)))
    return np.where(root.mirrored, -result, result)
