"""One element of the power function, in float64; see ``reference.smoothing.power``."""

from __future__ import annotations

import math

from accelerated.scalar.compensated import (
    Two,
    add,
    exp,
    exp_times,
    expm1,
    log,
    multiply,
    negative,
    sigmoid,
    two_sum,
)

# See ``reference.smoothing.power`` for these, and ``reference.smoothing.inversion`` for the number of steps.
_CERTAIN = 1e9
_TINY_DISTANCE = 1e-20
_LOG_SMALLEST_X = -600.0
_HIGHEST = math.log(0.55)
_LOG_2 = math.log(2)
_CENTRAL = 0.3
_B3, _B5, _B7, _B9 = -0.0099393970292921878, 0.00050456865340995432, -3.2082085206635754e-5, 2.2874912279455280e-6
_B11, _B13, _B15, _B17 = -1.7499054982170235e-7, 1.4036495551869405e-8, -1.1648102229637050e-9, 9.9155121599359261e-11
_SLOPE_OF_SIZES = (1.4426950408889634, 2.0355273740931033e-17)  # 1 / log 2
_MAX_STEPS = 200
_EPS = 2.0**-52
_SMALLEST = 5e-324


def power(
    rho: float, logit_q: float, sharpness: tuple[float, float, float, float, float], with_dbeta: bool
) -> tuple[float, float, float, float]:
    """Zeta and its derivatives by logit, rho and beta (0 unless asked for), for rho in [0, 1] and a logit not NaN.

    See ``_solve`` and ``PowerFunction._inverse_cdf_with_derivatives`` in ``reference.smoothing.power``, whose names and
    order this follows. ``sharpness`` is ``accelerated.scalar.power_sharpness(beta)``.
    """
    beta = sharpness[0]
    if rho == 0 or rho == 1:
        other = logit_q if rho == 0 else -logit_q
        at_end = 0.0
        if beta == 1:
            at_end = 1.0
        elif beta < 1 or other == math.inf:
            at_end = beta * (1 + math.exp(-other)) if other > -709 else math.inf
        return rho, 0.0, at_end, 0.0
    logit_q = min(max(logit_q, -_CERTAIN), _CERTAIN)
    size = abs(logit_q)
    a, minus_1 = (sharpness[1], sharpness[2]), (sharpness[3], sharpness[4])
    zeta, mirrored, x, rest, log_x, log_rest = _solve(rho, logit_q, beta, a, minus_1)
    logit = -logit_q if mirrored else logit_q
    log_weight, log_far_weight = -max(logit, 0.0), -max(-logit, 0.0)

    exponent0 = add(multiply(minus_1, log_x), (log_weight, 0.0))
    exponent1 = add(multiply(minus_1, log_rest), (log_far_weight, 0.0))
    zero_larger = exponent0[0] >= exponent1[0]
    M, lesser = (exponent0, exponent1) if zero_larger else (exponent1, exponent0)
    smaller = exp(add(lesser, negative(M)))
    height, both_weights = a[0] * (1 + smaller), 1 + math.exp(-size)

    exponent, difference = _difference_of_cdfs(x, rest, log_x, log_rest, a, minus_1)
    exponent = add(add(exponent, negative(M)), (-size, 0.0))
    dlogit_q = exp_times(exponent, difference / (both_weights * height))
    drho = exp_times(negative(M), both_weights / height)

    dbeta = 0.0
    if with_dbeta:
        share0, share1 = (1.0, smaller) if zero_larger else (smaller, 1.0)
        of_far = 1.0 if x < _TINY_DISTANCE else rest * abs(log_rest[0]) / x
        both_terms = (abs(log_x[0]) * share0 + of_far * share1) / (1 + smaller)
        towards_end = a[0] * both_terms * math.tanh(_log_of_terms(x, log_x, log_rest, logit, a) / 2)
        dbeta = exp_times(log_x, towards_end if mirrored else -towards_end)
    return zeta, dlogit_q, drho, dbeta


def power_log_ratio(zeta: float, sharpness: tuple[float, float, float, float, float]) -> float:
    """See ``reference.smoothing.PowerFunction.log_ratio``."""
    beta = sharpness[0]
    if zeta == 0 or zeta == 1:
        if beta == 1:
            return 0.0
        return math.inf if (beta > 1) == (zeta == 1) else -math.inf
    ratio = _log_ratio(zeta, sharpness)
    return ratio[0] + ratio[1]


def power_nu(zeta: float, logit_q: float, sharpness: tuple[float, float, float, float, float]) -> float:
    """See ``reference.smoothing.PowerFunction.nu``; the logit is finite."""
    beta = sharpness[0]
    if zeta == 0 or zeta == 1:
        if beta == 1:
            return sigmoid((logit_q, 0.0))
        return 1.0 if (beta > 1) == (zeta == 1) else 0.0
    return sigmoid(add((logit_q, 0.0), _log_ratio(zeta, sharpness)))


def _log_ratio(zeta: float, sharpness: tuple[float, float, float, float, float]) -> Two:
    log_x, log_rest = log((zeta, 0.0)), log(two_sum(1.0, -zeta))
    return multiply((sharpness[3], sharpness[4]), add(log_rest, negative(log_x)))


def _solve(rho: float, logit_q: float, beta: float, a: Two, minus_1: Two) -> tuple[float, bool, float, float, Two, Two]:
    """zeta, whether it is nearer to 1, x, 1 - x and their logarithms; see ``reference.smoothing.power._solve``."""
    both_weights = 1 + math.exp(-abs(logit_q))
    lower = rho < 0.5
    tail = rho if lower else 1 - rho

    half_power = math.exp(-_LOG_2 * a[0])
    sign = 1.0 if lower else -1.0
    at_half = sigmoid((-sign * logit_q, 0.0)) * half_power
    at_half += sigmoid((sign * logit_q, 0.0)) * -math.expm1(-_LOG_2 * a[0])
    mirrored = tail > at_half if lower else tail <= at_half
    from_near_end = lower != mirrored
    logit = -logit_q if mirrored else logit_q
    log_weight, log_far_weight = -max(logit, 0.0), -max(-logit, 0.0)
    log_tail = log((tail, 0.0))
    weight, far_weight = add((log_weight, 0.0), negative(log_tail)), add((log_far_weight, 0.0), negative(log_tail))

    log_r = log_tail[0] if from_near_end else math.log1p(-tail)
    log_beta = math.log(beta)
    low = min(beta * log_r, log_r + min(log_beta, 0.0)) - 1
    high = _HIGHEST
    y = min(beta * (log_r - log_weight), log_r - log_far_weight + log_beta)
    y = min(max(y, low), high)
    last_step = step_before = high - low
    for _ in range(_MAX_STEPS):  # of ``reference.smoothing.inversion.solve``
        value, slope = _residual(y, a, minus_1, weight, far_weight, both_weights, from_near_end)
        if value < 0:
            low = y
        elif value > 0:
            high = y
        newton = y - value / slope if slope > 0 else math.inf
        length, rounding = abs(newton - y), _EPS * abs(y) + _SMALLEST
        trusted = low <= newton <= high and (length <= step_before / 2 or length <= 8 * rounding)
        proposal = y if value == 0 else (newton if trusted else low + (high - low) / 2)
        step = abs(proposal - y)
        y = proposal
        if not step > (8 if trusted else 1) * rounding:
            break
        step_before, last_step = last_step, step

    value, slope = _residual(y, a, minus_1, weight, far_weight, both_weights, from_near_end)
    last = -value / slope if slope > 0 else 0.0
    last = min(max(last, -1e-10), 1e-10) if last == last else 0.0
    x, log_x, log_rest = _logs(y)
    rest = two_sum(1.0, -x)
    rest_high = rest[0] + (rest[1] - x * last)
    x = x + x * last
    log_x, log_rest = add(log_x, (last, 0.0)), add(log_rest, (-x * last / rest_high, 0.0))
    return rest_high if mirrored else x, mirrored, x, rest_high, log_x, log_rest


def _logs(y: float) -> tuple[float, Two, Two]:
    """x = e^y, and the logarithms of the float64 x and of 1 - x."""
    x = math.exp(y)
    if y > _LOG_SMALLEST_X:
        return x, log((x, 0.0)), log(two_sum(1.0, -x))
    return x, (y, 0.0), (-x, 0.0)


def _residual(
    y: float, a: Two, minus_1: Two, weight: Two, far_weight: Two, both_weights: float, from_near_end: bool
) -> tuple[float, float]:
    """log(tail at y / tail wanted), and its slope by y; both with the sign that makes it increasing."""
    x, log_x, log_rest = _logs(y)
    log_power, log_rest_power = multiply(a, log_x), multiply(a, log_rest)
    near = exp(add(log_power, weight))
    if from_near_end:
        ratio = near + exp(add(log_x, far_weight)) * _far_excess(log_rest_power, a[0], x)
    else:
        ratio = exp(weight) * -expm1(log_power) + exp(add(log_rest_power, far_weight))
    slope = near + exp(add(log_x, add(multiply(minus_1, log_rest), far_weight)))
    if not 0 < ratio < math.inf:
        value = -math.inf if ratio == 0 else math.inf
        return (value if from_near_end else -value), 0.0
    value = math.log(ratio / both_weights)
    return (value if from_near_end else -value), a[0] * slope / ratio


def _far_excess(exponent: Two, size: float, x: float) -> float:
    """See ``reference.smoothing.power._far_excess``."""
    return size if x < _TINY_DISTANCE else abs(expm1(exponent)) / x


def _difference_of_cdfs(x: float, rest: float, log_x: Two, log_rest: Two, a: Two, minus_1: Two) -> tuple[Two, float]:
    """See ``reference.smoothing.power._difference_of_cdfs``."""
    steep = minus_1[0] > 0
    log_quotient = multiply(minus_1, log_x)
    far = rest * _far_excess(multiply(minus_1, log_rest), abs(minus_1[0]), x)
    if steep:
        return log_x, -(-expm1(log_quotient) + far)
    log_quotient = negative(log_quotient)
    difference = -expm1(log_quotient) + far * exp(log_quotient)
    return multiply(a, log_x), difference if minus_1[0] != 0 else 0.0


def _log_of_terms(x: float, log_x: Two, log_rest: Two, logit: float, a: Two) -> float:
    """See ``reference.smoothing.power._log_of_terms``."""
    size_x, size_rest = negative(log_x), negative(log_rest)
    s = add(size_x, log_rest)
    if s[0] < _CENTRAL:
        c = s[0]
        t = c * c
        bend = _B9 + t * (_B11 + t * (_B13 + t * (_B15 + t * _B17)))
        bend = c**3 * (_B3 + t * (_B5 + t * (_B7 + t * bend)))
        return c * add(_SLOPE_OF_SIZES, negative(a))[0] - logit + bend
    log_size_rest = log_x if x < _TINY_DISTANCE else log(size_rest)
    general = add(negative(multiply(a, s)), (-logit, 0.0))
    return add(general, add(log(size_x), negative(log_size_rest)))[0]
