"""One element of the overlapping exponentials, in float64; see ``reference.smoothing.exponential``."""

from __future__ import annotations

import math

from accelerated.scalar.compensated import add, sigmoid, two_product, two_sum
from accelerated.scalar.hyperbolic import tanh
from accelerated.scalar.series import gentle_imbalance, linear_excess, quadratic_excess

_TINY = 2.0**-1022
_FLAT = 1e-6  # see ``reference.smoothing.exponential``
# ``_dzeta_dbeta`` there has two arrangements. Where the first is the better one, by searches for the worst case of
# either: for gentle smoothings, unless the logit is so large that the terms of the other hardly cancel.
_GENTLE, _BALANCED = 4.25, 12.0


def exponential(
    rho: float, logit_q: float, sharpness: tuple[float, float, float, float], with_dbeta: bool
) -> tuple[float, float, float, float]:
    """Zeta and its derivatives by logit, rho and beta (0 unless asked for), for rho in [0, 1] and a logit not NaN.

    See ``_root`` and ``OverlappingExponential._inverse_cdf_with_derivatives`` in ``reference.smoothing.exponential``,
    whose names and order this follows. ``sharpness`` is ``accelerated.scalar.sharpness("exponential", beta)``.
    """
    beta, d, sqrt_d, one_minus_d = sharpness
    size = abs(logit_q)
    half = math.exp(-size / 2)
    p = 1 / (1 + half * half)
    q, sqrt_pq, q_minus_p = half * half * p, half * p, -tanh(size / 2)
    mirrored = logit_q > 0
    below, above = (1 - rho, rho) if mirrored else (rho, 1 - rho)

    R_mirror = above * one_minus_d
    central = q_minus_p > -0.5 and beta < 600
    if central:
        u = 1 - 2 * rho if mirrored else 2 * rho - 1
        B = (u * one_minus_d + q_minus_p * (1 + d)) / 2
        X = (u - q_minus_p) / 2 * one_minus_d
        four_pq = 1 - q_minus_p * q_minus_p
        S_squared = B * B + four_pq * d
        S = math.sqrt(S_squared)
    else:
        B = q - R_mirror - p * d
        X = (below - q) * one_minus_d
        four_pq = S_squared = 0.0
        S = math.hypot(B, 2 * sqrt_d * sqrt_pq)

    sum0 = 1 + X + S
    sum1 = (q + R_mirror + p * d if X > 0.5 else 1 - X) + S
    v0 = below / sum0 * (2 * one_minus_d / beta)
    v1 = above / max(sum1, _TINY) * (2 * one_minus_d / beta)
    n1 = min(beta * v1, 1.0)

    y = abs(B) + S
    left = v0 <= v1 if beta < _FLAT else B < 0 and y >= 2 * p * sqrt_d
    v = min(v0, v1)
    n = beta * v
    if n <= _TINY:
        nearer = v
    elif n < 0.5:
        nearer = -math.log1p(-n) / beta
    elif y == 0:
        nearer = min(max((beta - size) / 2 / beta, 0.0), 1.0)
    else:
        e = y / (2 * p) if left else (2 * p * (sqrt_d / y) * sqrt_d if B < 0 else y / (2 * q))
        nearer = min(max(-math.log(max(e, _TINY)) / beta, 0.0), 1.0)
    x0, x1 = (nearer, 1 - nearer) if left else (1 - nearer, nearer)

    slope = max(S, _TINY)
    if central:
        c = four_pq * one_minus_d
        weight = c * (one_minus_d / (2 * beta)) / (S_squared + slope * (1 + (X * q_minus_p - c / 2)))
        dlogit_q = rho * (1 - rho) * weight
    else:
        dlogit_q = (sqrt_pq / slope * v0) * (n1 * sqrt_pq)

    dbeta = 0.0
    if with_dbeta:
        a, t = beta * x0, beta * x1
        if beta < _GENTLE and beta < _BALANCED * q:
            spread = beta * (x1 - x0)
            if central and abs(spread) < 0.125 * beta and size < beta:
                spread = -size - 2 * math.atanh(B / slope)
            dbeta = gentle_imbalance(a, t, spread, q_minus_p, beta) / (2 * slope * math.expm1(beta))
        else:
            if S < _TINY:
                larger = smaller = 0.5
            elif central:
                larger, smaller = y / (2 * S), four_pq * d / (2 * S * y)
            else:
                overlap = sqrt_pq * sqrt_d
                larger, smaller = y / (2 * S), 2 * (overlap / S) * (overlap / y)
            nu, one_minus_nu = (larger, smaller) if B >= 0 else (smaller, larger)
            decay_a, decay_t = math.exp(-a), math.exp(-t)
            of_zero = quadratic_excess(t, decay_t) + decay_t * linear_excess(a, decay_a)
            of_one = quadratic_excess(a, decay_a) + decay_a * linear_excess(t, decay_t)
            dbeta = (nu * of_one - one_minus_nu * of_zero) / one_minus_d
        dbeta = x0 * (x1 * dbeta)
        if mirrored:
            dbeta = -dbeta
    return x1 if mirrored else x0, dlogit_q, one_minus_d / (beta * slope), dbeta


def exponential_log_ratio(zeta: float, sharpness: tuple[float, float, float, float]) -> float:
    """See ``reference.smoothing.OverlappingExponential.log_ratio``."""
    return sharpness[0] * (2 * zeta - 1)


def exponential_nu(zeta: float, logit_q: float, sharpness: tuple[float, float, float, float]) -> float:
    """See ``reference.smoothing.OverlappingExponential.nu``; the logit is finite."""
    middle = two_sum(2 * zeta, -1.0)
    ratio = two_product(sharpness[0], middle[0])
    return sigmoid(add((logit_q, 0.0), (ratio[0], ratio[1] + sharpness[0] * middle[1])))
