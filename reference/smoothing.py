"""Smoothing transformations: a binary z becomes a continuous zeta in [0, 1] through which gradients flow.

Idea (section 3). Attach to every binary unit z a continuous companion zeta with density r(zeta|z): near 0 when z = 0,
near 1 when z = 1, overlapping in between. Summing z out leaves the mixture

    q(zeta|x) = p r(zeta|0) + q r(zeta|1),      q = sigma(l) = q(z=1|x),  p = sigma(-l),

which is continuous, so a sample is a differentiable function of the logit l: draw rho uniform on [0, 1] and return the
inverse CDF zeta = F^{-1}(rho). As beta grows, zeta approaches z itself.

A kind of smoothing is a small class. All kinds share one vocabulary: ``log_r``, ``r_cdf`` and ``log_ratio`` speak of
r(zeta|z); ``log_prob``, ``cdf``, ``inverse_cdf`` and the derivatives of the last speak of the mixture q(zeta|x).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from reference.vocabulary import (
    Array,
    as_float,
    check_binary,
    check_broadcast,
    check_not_nan,
    check_positive,
    check_unit_interval,
)


@dataclass(frozen=True)
class InverseCDF:
    """A smoothed sample with its derivatives; all four have the broadcast shape of the inputs."""

    zeta: Array
    dzeta_dlogit_q: Array
    dzeta_drho: Array
    dzeta_dbeta: Array


@dataclass(frozen=True)
class OverlappingExponential:
    """Two overlapping exponentials, each other's mirror image: the smoothing of the paper's experiments.

    r(zeta|0) = beta e^{-beta zeta} / (1 - e^{-beta}),   r(zeta|1) = beta e^{-beta (1 - zeta)} / (1 - e^{-beta}).

    Source   DVAE++ (arXiv:1802.04920), section 3 and appendix A.
    Shapes   beta a scalar, or an array that broadcasts with zeta, rho and logit_q.
    Domain   beta positive and finite: the sharpness. beta -> 0 gives the uniform density for both z, beta -> infinity
             a point mass at z.
    Raises   DomainError for a beta that is not positive and finite.
    """

    beta: float | Array

    def __post_init__(self) -> None:
        check_positive("beta", as_float("beta", self.beta))

    # ---- r(zeta|z) ----------------------------------------------------------------------------------------------

    def log_r(self, zeta: ArrayLike, z: ArrayLike) -> Array:
        """Log density of the smoothed unit given the binary one.

        log r(zeta|z) = log(beta / (1 - e^{-beta})) - beta |z - zeta|

        Source   section 3. The two cases of z are one formula because |z - zeta| is zeta or 1 - zeta.
        Shapes   zeta, z broadcast; the result has their common shape.
        Domain   zeta in [0, 1], z in {0, 1}.
        Units    nats
        Raises   DomainError outside the domain, ShapeError if shapes do not broadcast.
        """
        x, unit, beta, dtype = self._arguments(zeta=zeta, z=z)
        check_binary("z", unit)
        return _rounded(np.log(beta) - np.log(-np.expm1(-beta)) - beta * np.abs(unit - x), dtype)

    def r_cdf(self, zeta: ArrayLike, z: ArrayLike) -> Array:
        """CDF of the smoothed unit given the binary one.

        F(zeta|0) = (1 - e^{-beta zeta}) / (1 - e^{-beta}),   F(zeta|1) = e^{-beta (1 - zeta)} F(zeta|0)

        Source   appendix A (by integration of section 3's densities).
        Departs  F(.|1) is written as a product, not as the difference (e^{-beta(1-zeta)} - e^{-beta})/(1 - e^{-beta}),
                 which loses all digits near zeta = 0.
        Shapes   zeta, z broadcast; the result has their common shape.
        Domain   zeta in [0, 1], z in {0, 1}.
        Units    none
        Raises   DomainError outside the domain, ShapeError if shapes do not broadcast.
        """
        x, unit, beta, dtype = self._arguments(zeta=zeta, z=z)
        check_binary("z", unit)
        at_zero = np.expm1(-beta * x) / np.expm1(-beta)
        return _rounded(np.where(unit == 0, at_zero, np.exp(-beta * (1 - x)) * at_zero), dtype)

    def log_ratio(self, zeta: ArrayLike) -> Array:
        """How much the smoothed unit speaks for z = 1: log r(zeta|1) - log r(zeta|0) = beta (2 zeta - 1).

        Source   section 5, in the definition of nu.
        Shapes   any, kept.
        Domain   zeta in [0, 1].
        Units    nats
        Raises   DomainError outside the domain.
        """
        x, beta, dtype = self._arguments(zeta=zeta)
        return _rounded(beta * (2 * x - 1), dtype)

    # ---- q(zeta|x), the mixture over z --------------------------------------------------------------------------

    def log_prob(self, zeta: ArrayLike, logit_q: ArrayLike) -> Array:
        """Log density of the mixture, log(p r(zeta|0) + q r(zeta|1)).

        Source   eq. (2).
        Shapes   zeta, logit_q broadcast; the result has their common shape.
        Domain   zeta in [0, 1]; logit_q any real or infinite.
        Units    nats
        Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
        """
        x, logit, beta, dtype = self._arguments(zeta=zeta, logit_q=logit_q)
        log_p, log_q = -np.logaddexp(0, logit), -np.logaddexp(0, -logit)
        scale = np.log(beta) - np.log(-np.expm1(-beta))
        return _rounded(scale + np.logaddexp(log_p - beta * x, log_q - beta * (1 - x)), dtype)

    def cdf(self, zeta: ArrayLike, logit_q: ArrayLike) -> Array:
        """CDF of the mixture, F(zeta) = p F(zeta|0) + q F(zeta|1); the inverse of ``inverse_cdf``.

        Source   appendix A.
        Shapes   zeta, logit_q broadcast; the result has their common shape.
        Domain   zeta in [0, 1]; logit_q any real or infinite.
        Units    none
        Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
        """
        x, logit, beta, dtype = self._arguments(zeta=zeta, logit_q=logit_q)
        p, q = expit(-logit), expit(logit)
        # e^{-beta(1-zeta)} (1 - e^{-beta zeta}): see r_cdf
        return _rounded((p + q * np.exp(-beta * (1 - x))) * (np.expm1(-beta * x) / np.expm1(-beta)), dtype)

    def inverse_cdf(self, rho: ArrayLike, logit_q: ArrayLike) -> Array:
        """Turn uniform noise into a smoothed sample: the zeta at which the mixture's CDF equals rho.

        With m = e^{-beta zeta}, d = e^{-beta}: F(zeta) = rho is the quadratic p m^2 + B m - q d = 0,
        B = rho (1 - d) - p + q d.

        Source   eq. (3), appendix A.
        Departs  eq. (3) divides by p and subtracts nearly equal numbers; it is inf or NaN in float32 for beta = 10,
                 |l| > 16. See ``_root`` for the form used here: within 4 roundings over the whole domain.
        Shapes   rho, logit_q broadcast; the result has their common shape. Two float32 inputs give a float32 result,
                 computed in float64 and rounded once.
        Domain   rho in [0, 1] closed (rho = 0 gives 0, rho = 1 gives 1); logit_q any real or infinite.
        Units    none
        Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
        """
        noise, logit, beta, dtype = self._arguments(rho=rho, logit_q=logit_q)
        return _rounded(_root(noise, logit, beta).zeta, dtype)

    def inverse_cdf_with_derivatives(self, rho: ArrayLike, logit_q: ArrayLike) -> InverseCDF:
        """The smoothed sample and its derivatives with respect to logit, noise and sharpness.

        Implicit differentiation of F(zeta; theta) = rho gives dzeta/dtheta = -(dF/dtheta)/f with f the density, and

            f           = beta S / (1 - d),            S = p e^{-beta zeta} + q e^{-beta (1 - zeta)}
            dzeta/drho  = 1 / f
            dzeta/dl    = p q n0 n1 / (beta S),        n0 = 1 - e^{-beta zeta},  n1 = 1 - e^{-beta (1 - zeta)}
            dzeta/dbeta = -(dF/dbeta) / f,             see ``_dzeta_dbeta``

        S is also the square root of the quadratic's discriminant, so it costs nothing.

        Source   appendix A; the derivatives are ours.
        Departs  where the density vanishes to the dtype (large beta, rho exactly on the plateau between the two modes)
                 the true derivative overflows; S is held at the smallest normal number and results at the largest
                 finite one, so that they are huge but finite and 0 * derivative stays 0.
        Shapes, Domain, Raises   as ``inverse_cdf``.
        Units    none
        """
        noise, logit, beta, dtype = self._arguments(rho=rho, logit_q=logit_q)
        root = _root(noise, logit, beta)
        slope = np.maximum(root.S, np.finfo(np.float64).tiny)
        one_minus_d = -np.expm1(-beta)
        # p q n0 n1/(beta S). For central logits it collapses to one quotient with fewer roundings, because n0 n1 =
        # 2 rho (1-rho) (1-d)^2 / (1 + S + X (q-p) - c/2), c = 4 p q (1-d); elsewhere the factors are kept, in an order
        # in which no partial product underflows before the result does.
        c = root.four_pq * one_minus_d
        with np.errstate(divide="ignore", invalid="ignore"):  # branch not taken
            weight = c * (one_minus_d / (2 * beta)) / (root.S_squared + slope * (1 + (root.X * root.q_minus_p - c / 2)))
            quotient = noise * (1 - noise) * weight
        dzeta_dlogit_q = np.where(root.central, quotient, (root.sqrt_pq / slope * root.v0) * (root.n1 * root.sqrt_pq))
        return InverseCDF(
            zeta=_rounded(root.zeta, dtype),
            dzeta_dlogit_q=_rounded(dzeta_dlogit_q, dtype),
            dzeta_drho=_rounded(one_minus_d / (beta * slope), dtype),
            dzeta_dbeta=_rounded(_dzeta_dbeta(root, beta), dtype),
        )

    def _arguments(self, **values: ArrayLike) -> tuple[Any, ...]:
        """Check the named arguments and return them with beta, all in float64, with the dtype of the result.

        The formulas run in float64 whatever comes in; ``_rounded`` takes the results back to the dtype of the
        arguments. beta is rounded to that dtype first, for a float32 caller's beta = 0.1 is the float32 nearest to 0.1.
        """
        arrays = {name: as_float(name, value) for name, value in values.items()}
        dtype = np.result_type(*arrays.values())
        beta = np.asarray(self.beta, dtype=dtype).astype(np.float64)
        arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
        check_broadcast(**arrays, beta=beta)
        for name, array in arrays.items():
            if name in ("zeta", "rho"):
                check_unit_interval(name, array)
            elif name == "logit_q":
                check_not_nan(name, array)
        return (*arrays.values(), beta, dtype)


def _rounded(result: Array, dtype: np.dtype[Any]) -> Array:
    """The float64 result in the caller's dtype, saturated at its largest number instead of overflowing."""
    if dtype == np.float64:
        return result
    limit = np.finfo(dtype).max
    return np.clip(result, -limit, limit).astype(dtype)


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
    left = (B < 0) & (y >= 2 * p * sqrt_d)
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
    )


def _dzeta_dbeta(root: _Root, beta: Array) -> Array:
    """Derivative of the sample with respect to the sharpness.

    With a = beta zeta, t = beta (1 - zeta) and phi(x) = (e^x - 1 - x)/x^2 the CDFs of the two exponentials obey

        dF(zeta|0)/dbeta = +a t d/(beta (1-d)^2) X,   X = t phi(t) + a phi(-a)  >= 0
        dF(zeta|1)/dbeta = -a t d/(beta (1-d)^2) Y,   Y = a phi(a) + t phi(-t)  >= 0
        dzeta/dbeta      = -a t/(beta^2 (1-d)) (p X - q Y) d/S

    X and Y are sums of positive terms (the textbook form subtracts terms 1/beta times larger). Only p X - q Y can
    cancel, and two arrangements keep the digits:
    - small beta (somewhat larger for |l| < 1), where X ~ Y: ((X - Y) + (p - q)(X + Y))/2 with X - Y and X + Y in sinh
      and cosh;
    - elsewhere p d X/S = (1 - nu) e^{-t} X and q d Y/S = nu e^{-a} Y, in which nothing overflows.

    The mirror image of the problem has the opposite derivative.
    """
    a, t = beta * root.x0, beta * root.x1
    n0, n1 = root.n0, root.n1
    tiny = np.finfo(np.float64).tiny
    S = np.maximum(root.S, tiny)

    small = (beta < 3) | ((beta < 6) & (root.q_minus_p > -0.46))
    a_small, t_small = np.minimum(a, 6), np.minimum(t, 6)  # only to keep the branch not taken from overflowing
    difference = _sinh_term(t_small) - _sinh_term(a_small)
    total = _cosh_term(t_small) + _cosh_term(a_small)
    near = (root.q_minus_p * total - difference) / (2 * S * np.expm1(np.minimum(beta, 6)))

    y = np.maximum(np.abs(root.B) + S, tiny)
    overlap = root.sqrt_pq * np.exp(-beta / 2)
    plateau = tiny > root.S  # idea 5 of _root: both terms of S are equal
    larger = np.where(plateau, 0.5, y / (2 * S))
    smaller = np.where(plateau, 0.5, 2 * (overlap / S) * (overlap / y))
    nu, one_minus_nu = np.where(root.B >= 0, larger, smaller), np.where(root.B >= 0, smaller, larger)
    g_a, g_t = _linear_excess(a, n0), _linear_excess(t, n1)
    h_a, h_t = _quadratic_excess(a, n0, g_a), _quadratic_excess(t, n1, g_t)
    far = one_minus_nu * (h_t + np.exp(-t) * g_a) - nu * (h_a + np.exp(-a) * g_t)
    result = root.x0 * (root.x1 * np.where(small, near, far / np.expm1(-beta)))
    return np.where(root.mirrored, -result, result)


def _linear_excess(x: Array, n: Array) -> Array:
    """x phi(-x) = (x - n)/x with n = 1 - e^{-x}, by its series x/2 - x^2/6 + ... where the subtraction would cancel."""
    series = np.zeros_like(x)
    clipped = np.minimum(x, 1)
    for k in range(18, 1, -1):  # the terms of (e^{-x} - 1 + x)/x; the 18th is below 2^-53 of the first at x = 1
        series = clipped * ((-1) ** k / factorial(k) + series)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x < 1, series, (x - n) / x)


def _quadratic_excess(x: Array, n: Array, linear_excess: Array) -> Array:
    """e^{-x} x phi(x) = (1 - (1 + x) e^{-x})/x, which is also n - x phi(-x); the latter is right where x is small."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x < 1, n - linear_excess, (n - x * np.exp(-x)) / x)


def _sinh_term(x: Array) -> Array:
    """2 (sinh x - x)/x for 0 <= x <= 6, by its series of positive terms."""
    square = x * x
    series = np.zeros_like(x)
    for k in range(22, 0, -1):
        series = square * (2 / factorial(2 * k + 1) + series)
    return series


def _cosh_term(x: Array) -> Array:
    """2 (cosh x - 1)/x for 0 <= x <= 6, without the subtraction."""
    half = np.sinh(x / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, 4 * half * (half / x), 0)
