"""Numbers with more digits than a float64 holds, for exponents that must be right to more than one rounding.

exp(x) turns the absolute error of x into a relative one: x = 700 with one rounding is an exponential with 350. Where
the inputs themselves are exact to more than that (beta and zeta are, their product is not), the exponent is carried as
an unevaluated sum ``high + low``, and exp(high + low) = exp(high) (1 + low) for a low of a few roundings. Powers
x^a = exp(a log x) need the same of the logarithm, of the exponent a = 1/beta and of their product. About 18 digits are
enough, for what is left to go wrong is then below the rounding of one exponential.

Source   Dekker (1971); Knuth, TAOCP volume 2, section 4.2.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reference.vocabulary import Array

_SPLITTER = 2.0**27 + 1  # halves the 53 bits of a double
# log 2 in two parts. The first has 32 bits, so that its product with an exponent of two (11 bits) is exact.
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_SERIES_TERMS = 11  # of atanh(s)/s for |s| < 0.172: the first one left out is below 2^-56 of s^2/3


class Two(NamedTuple):
    """A number as the unevaluated sum of a float64 and a much smaller one."""

    high: Array
    low: Array


def exact(x: Array | float) -> Two:
    """A float64 as a sum."""
    x = np.asarray(x, dtype=np.float64)
    return Two(x, np.zeros_like(x))


def negative(a: Two) -> Two:
    """-a exactly."""
    return Two(-a.high, -a.low)


def where(condition: Array, a: Two, b: Two) -> Two:
    """``np.where`` for sums."""
    return Two(np.where(condition, a.high, b.high), np.where(condition, a.low, b.low))


def two_sum(a: Array, b: Array) -> Two:
    """a + b exactly, for finite a and b whose sum does not overflow."""
    total = a + b
    b_part = total - a
    return Two(total, (a - (total - b_part)) + (b - b_part))


def add(a: Two, b: Two) -> Two:
    """a + b to about twice the precision of a float64."""
    total = two_sum(a.high, b.high)
    return two_sum(total.high, total.low + (a.low + b.low))


def two_product(a: Array, b: Array) -> Two:
    """a b exactly, for |a|, |b| < 2**990 and a product that neither overflows nor is near the subnormal numbers."""
    product = a * b
    a_high, b_high = (_SPLITTER * x - (_SPLITTER * x - x) for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    return Two(product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)


def multiply(a: Two, b: Two) -> Two:
    """a b to about twice the precision of a float64; the domain is that of ``two_product``."""
    product = two_product(a.high, b.high)
    return two_sum(product.high, product.low + (a.high * b.low + a.low * b.high))


def divide(a: Two, b: Two) -> Two:
    """a / b to about twice the precision of a float64; a quotient, and what is left over divided once more."""
    quotient = a.high / b.high
    product = two_product(quotient, b.high)
    left_over = (a.high - product.high) - product.low + (a.low - quotient * b.low)
    return two_sum(quotient, left_over / b.high)


def exp(exponent: Two) -> Array:
    """exp(high + low) to the rounding of one exponential, also where that is 0 or infinite."""
    with np.errstate(over="ignore", under="ignore"):
        # infinity + infinity * low would be NaN, so the sum may not overflow before its factors do
        result = np.exp(np.minimum(exponent.high, 709))
        return np.where(exponent.high < 709, result + result * exponent.low, np.exp(exponent.high))


def exp_times(exponent: Two, factor: Array) -> Array:
    """exp(exponent) factor, where the exponential may leave the range of a float64 and the product may not.

    By two square roots of the exponential, one on each side of the factor.
    """
    root = exp(Two(exponent.high / 2, exponent.low / 2))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.where(factor == 0, 0, root * factor * root)


def expm1(exponent: Two) -> Array:
    """exp(exponent) - 1 to the rounding of one such function, for exponents up to 700."""
    result = np.expm1(exponent.high)
    return result + (result + 1) * exponent.low


def decay_from_one(x: Array, rate: Array) -> Array:
    """e^{-rate (1 - x)} for x in [0, 1], with the exponent unevaluated: rounded, it would cost rate/2 roundings."""
    rest = two_sum(np.ones_like(x), -x)
    exponent = two_product(-rate, rest.high)
    return exp(Two(exponent.high, exponent.low - rate * rest.low))


def sigmoid(logit: Two) -> Array:
    """1 / (1 + exp(-(high + low))), to a few roundings down to the smallest numbers there are.

    (An infinite high needs a low of 0.)
    """
    sign = np.where(logit.high < 0, -1.0, 1.0)
    small = exp(Two(-sign * logit.high, -sign * logit.low))
    return np.where(sign < 0, small, 1) / (1 + small)


def log(x: Two) -> Two:
    """log x for positive finite x, to a relative 2^-57 or so: also where log x is nearly 0 (2^-53 for log(1 - 1e-16)).

    With high = m 2^k and m between sqrt(1/2) and sqrt(2),

        log high = k log 2 + 2 atanh s,      s = (m - 1)/(m + 1),      atanh s = s + s^3/3 + s^5/5 + ...

    s and k log 2 are carried as sums. What follows the first term of the series is at most s^2/3 = 1 % of it, so an
    ordinary rounding there costs 1 % of a rounding of the result.
    """
    m, k = np.frexp(x.high)
    low_half = m < np.sqrt(0.5)
    m, k = np.where(low_half, 2 * m, m), np.where(low_half, k - 1, k).astype(np.float64)
    s = divide(exact(m - 1), two_sum(m, np.ones_like(m)))
    square = s.high * s.high
    rest = np.zeros_like(m)
    for n in range(_SERIES_TERMS, 0, -1):
        rest = square * (1 / (2 * n + 1) + rest)
    total = two_sum(k * _LN2_HIGH, 2 * s.high)
    # log(high + low) = log(high) + log(1 + low/high)
    return two_sum(total.high, total.low + (k * _LN2_LOW + 2 * (s.low + s.high * rest) + np.log1p(x.low / x.high)))


def logs_inside(x: Array) -> tuple[Two, Two]:
    """log x and log(1 - x) for 0 < x < 1; at 0 and 1, where they are infinite and no sums, those of 1/2."""
    inside = np.where(is_end(x), 0.5, x)
    return log(exact(inside)), log(two_sum(np.ones_like(inside), -inside))


def is_end(x: Array) -> Array:
    """Whether x is 0 or 1."""
    return (x == 0) | (x == 1)
