"""``reference.smoothing.compensated`` for one number; a sum high + low is a pair."""

from __future__ import annotations

import math
from typing import TypeAlias

Two: TypeAlias = tuple[float, float]

_SPLITTER = 2.0**27 + 1
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_SQRT_HALF = math.sqrt(0.5)
# 2 atanh(s) = 2 s + 2 s^3 (c_1 + c_2 s^2 + ...), c_n = 1/(2n + 1)
_C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11 = (1 / (2 * n + 1) for n in range(1, 12))


def negative(a: Two) -> Two:
    """See ``reference.smoothing.compensated.negative``."""
    return -a[0], -a[1]


def two_sum(a: float, b: float) -> Two:
    """See ``reference.smoothing.compensated.two_sum``."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def add(a: Two, b: Two) -> Two:
    """See ``reference.smoothing.compensated.add``."""
    total = two_sum(a[0], b[0])
    return two_sum(total[0], total[1] + (a[1] + b[1]))


def two_product(a: float, b: float) -> Two:
    """See ``reference.smoothing.compensated.two_product``."""
    product = a * b
    a_high = _SPLITTER * a - (_SPLITTER * a - a)
    b_high = _SPLITTER * b - (_SPLITTER * b - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def multiply(a: Two, b: Two) -> Two:
    """See ``reference.smoothing.compensated.multiply``."""
    product = two_product(a[0], b[0])
    return two_sum(product[0], product[1] + (a[0] * b[1] + a[1] * b[0]))


def divide(a: Two, b: Two) -> Two:
    """See ``reference.smoothing.compensated.divide``."""
    quotient = a[0] / b[0]
    product = two_product(quotient, b[0])
    left_over = (a[0] - product[0]) - product[1] + (a[1] - quotient * b[1])
    return two_sum(quotient, left_over / b[0])


def exp(exponent: Two) -> float:
    """See ``reference.smoothing.compensated.exp``."""
    if not exponent[0] < 709:
        return math.inf if exponent[0] > 709.7827 else math.exp(exponent[0])
    result = math.exp(exponent[0])
    return result + result * exponent[1]


def exp_times(exponent: Two, factor: float) -> float:
    """See ``reference.smoothing.compensated.exp_times``."""
    root = exp((exponent[0] / 2, exponent[1] / 2))
    return 0.0 if factor == 0 else root * factor * root


def expm1(exponent: Two) -> float:
    """See ``reference.smoothing.compensated.expm1``."""
    result = math.expm1(exponent[0])
    return result + (result + 1) * exponent[1]


def sigmoid(logit: Two) -> float:
    """See ``reference.smoothing.compensated.sigmoid``."""
    if logit[0] < 0:
        small = exp(logit)
        return small / (1 + small)
    return 1 / (1 + exp(negative(logit)))


def log(x: Two) -> Two:
    """See ``reference.smoothing.compensated.log``."""
    m, k = math.frexp(x[0])
    if m < _SQRT_HALF:
        m, k = 2 * m, k - 1
    s = divide((m - 1, 0.0), two_sum(m, 1.0))
    t = s[0] * s[0]
    rest = t * (_C6 + t * (_C7 + t * (_C8 + t * (_C9 + t * (_C10 + t * _C11)))))
    rest = t * (_C1 + t * (_C2 + t * (_C3 + t * (_C4 + t * (_C5 + rest)))))
    total = two_sum(k * _LN2_HIGH, 2 * s[0])
    return two_sum(total[0], total[1] + (k * _LN2_LOW + 2 * (s[1] + s[0] * rest) + math.log1p(x[1] / x[0])))


def finite(high: float, low: float) -> Two:
    """See ``reference.smoothing.real_line.finite``."""
    return high, low if math.isfinite(high) and math.isfinite(low) else 0.0
