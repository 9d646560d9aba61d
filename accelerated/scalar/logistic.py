"""One element of the overlapping logistics, in float64; see ``reference.smoothing.logistic``."""

from __future__ import annotations

import math

from accelerated.scalar.compensated import Two, add, finite, log, multiply, negative, sigmoid, two_product, two_sum
from accelerated.scalar.hyperbolic import tanh, tanh_excess

_TINY = 2.0**-1022


def logistic(
    rho: float, logit_q: float, sharpness: tuple[float, float, float, float], with_dbeta: bool
) -> tuple[float, float, float, float]:
    """Zeta and its derivatives by logit, rho and beta (0 unless asked for), for rho in [0, 1] and a logit not NaN.

    See ``_root`` and ``OverlappingLogistic._inverse_cdf_with_derivatives`` in ``reference.smoothing.logistic``, whose
    names and order this follows. ``sharpness`` is ``accelerated.scalar.sharpness("logistic", beta)``.
    """
    beta, d, sqrt_d, one_minus_d = sharpness
    mirrored = rho > 0.5
    logit = -logit_q if mirrored else logit_q
    if mirrored:
        rho = 1 - rho
    p, q, q_minus_p = sigmoid((-logit, 0.0)), sigmoid((logit, 0.0)), tanh(logit / 2)
    if rho == 0:
        end = math.inf if mirrored else -math.inf
        return end, q * sigmoid((beta - logit, 0.0)) * (one_minus_d / beta), math.inf, -end

    central = abs(logit) < 1 and rho > 0.25
    B = ((2 * rho - 1) * (1 + d) + q_minus_p * one_minus_d) / 2 if central else (rho - p) + d * (rho - q)
    S = math.hypot(B, 2 * sqrt_d * math.sqrt(rho * (1 - rho)))
    y = abs(B) + S
    w = v = math.inf
    if y == 0:
        x0 = (1 + math.log(rho / (1 - rho)) / beta) / 2
        x1 = 1 - x0
    else:
        left = B < 0
        if left:
            w, v = y / (2 * rho), 2 * rho * (sqrt_d / y) * sqrt_d
        else:
            w, v = 2 * (1 - rho) * (sqrt_d / y) * sqrt_d, y / (2 * (1 - rho))
        if math.isinf(w):
            from_w = (math.log(2 * rho) - math.log(y)) / beta
        else:
            from_w = -math.log(w) / beta if w > 0 else math.inf
        if left:
            x0, x1 = from_w, 1 - from_w
        else:
            from_v = -math.log(v) / beta
            x0, x1 = from_w if 0.5 < from_v < 2 else 1 - from_v, from_v

    if central and abs(B) < S / 2:
        offset = ((math.atanh(2 * rho - 1) + math.atanh(B / S)) / beta, 0.0)
    elif x0 < x1:
        offset = two_sum(x0, -0.5)
    else:
        offset = two_sum(0.5, -x1)

    slope = max(S, _TINY)
    if abs(logit_q) < 600:
        pq_over_S = p * q / slope
    else:
        half = math.exp(-abs(logit_q) / 2)
        sqrt_pq = half / (1 + half * half)
        pq_over_S = sqrt_pq / slope * sqrt_pq
    dbeta = 0.0
    if with_dbeta:
        dbeta = _nu_minus_zeta(offset, logit, sharpness) / beta
        if mirrored:
            dbeta = -dbeta
    return (
        x1 if mirrored else x0,
        pq_over_S * (one_minus_d / beta),
        math.inf if S == 0 else (1 + w) * (1 + v) / (beta * slope),
        dbeta,
    )


def logistic_log_ratio(zeta: float, sharpness: tuple[float, float, float, float]) -> float:
    """See ``reference.smoothing.OverlappingLogistic.log_ratio``."""
    offset = two_sum(zeta, -0.5)
    ratio = _log_odds(finite(offset[0], offset[1]), sharpness)
    return ratio[0] + ratio[1]


def logistic_nu(zeta: float, logit_q: float, sharpness: tuple[float, float, float, float]) -> float:
    """See ``reference.smoothing.OverlappingLogistic.nu``; the logit is finite."""
    offset = two_sum(zeta, -0.5)
    return sigmoid(_plus_logit(_log_odds(finite(offset[0], offset[1]), sharpness), logit_q))


def _log_odds(offset: Two, sharpness: tuple[float, float, float, float]) -> Two:
    """See ``reference.smoothing.OverlappingLogistic._log_odds``."""
    beta = sharpness[0]
    product = tanh(beta * (offset[0] / 2)) * tanh(beta / 4)
    if abs(product) < 0.25:
        return 4 * math.atanh(product), 0.0
    inside = abs(offset[0]) < 0.5
    from_zero, from_one = _from_the_ends(offset)
    large = two_product(beta, 2 * offset[0] if inside else math.copysign(1.0, offset[0]))
    low = large[1] + (beta * (2 * offset[1]) if inside else 0.0)
    difference = math.log1p(math.exp(-beta * abs(from_zero))) - math.log1p(math.exp(-beta * abs(from_one)))
    total = two_sum(large[0], 2 * difference)
    return finite(total[0], total[1] + low)


def _from_the_ends(offset: Two) -> Two:
    """See ``reference.smoothing.real_line.from_the_ends``."""
    zeta, rest = two_sum(offset[0], 0.5), two_sum(0.5, -offset[0])
    zeta, rest = finite(zeta[0], zeta[1] + offset[1]), finite(rest[0], rest[1] - offset[1])
    return zeta[0] + zeta[1], rest[0] + rest[1]


def _plus_logit(log_odds: Two, logit_q: float) -> Two:
    """See ``reference.smoothing.real_line.plus_logit``."""
    if math.isinf(logit_q):
        return logit_q, 0.0
    total = two_sum(logit_q, log_odds[0])
    return finite(total[0], total[1] + log_odds[1])


def _nu_minus_zeta(offset: Two, logit: float, sharpness: tuple[float, float, float, float]) -> float:
    """See ``reference.smoothing.logistic._nu_minus_zeta``, and ``real_line.nu_minus_zeta`` beside it."""
    beta, o = sharpness[0], offset[0] + offset[1]
    x = beta * (o / 2)
    if abs(o) < 0.35 and abs(x) < 0.75 and abs(logit) < 1:
        P_less_o = o * _steepness_less_one(beta) + tanh(beta / 4) * tanh_excess(x)
        u, P = logit / 2 + tanh_excess(logit / 2), o + P_less_o
        half_T = P / (1 + P * P)
        Tu = 2 * half_T * u
        return ((P_less_o - half_T * P * P) + (u / 2 - o * Tu)) / (1 + Tu)
    odds = _plus_logit(_log_odds(offset, sharpness), logit)
    if abs(o) < 0.35:
        return tanh(odds[0] / 2) / 2 - o
    zeta, one_minus_zeta = _from_the_ends(offset)
    if o < 0:
        return sigmoid(odds) - zeta
    return one_minus_zeta - sigmoid(negative(odds))


def _steepness_less_one(beta: float) -> float:
    """See ``reference.smoothing.logistic._steepness_less_one``."""
    half = beta / 2
    if half >= 300:
        return half - 1
    rounded = math.exp(-half)
    lost = add((-half, 0.0), negative(log((rounded, 0.0))))
    e = two_sum(rounded, rounded * lost[0])
    numerator = add(two_sum(half, -1.0), negative(multiply(e, two_sum(half, 1.0))))
    return (numerator[0] + numerator[1]) / (1 + rounded)
