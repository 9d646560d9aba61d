"""Numbers as unevaluated sums, for exponents that must be right to more than one rounding; any device.

The twin of ``reference.smoothing.compensated``, same names. A ``Two`` without a low part is a plain float64 whose
roundings nobody follows, and so is everything that is computed from one: float32 results need no more, and the same
formulas then cost a fraction. ``exact`` decides which it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_SPLITTER = 2.0**27 + 1  # halves the 53 bits of a double
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_SERIES_TERMS = 11


class Two(NamedTuple):
    """A number as the unevaluated sum of a float64 and a much smaller one, if that is known."""

    high: Tensor
    low: Tensor | None

    @property
    def total(self) -> Tensor:
        """The sum, rounded."""
        return self.high if self.low is None else self.high + self.low

    def plus(self, small: Tensor) -> Tensor:
        """The sum with a third, small number, rounded."""
        return self.high + (small if self.low is None else self.low + small)


def exact(x: Tensor, careful: bool) -> Two:
    """A float64 as a sum, whose roundings are followed from here on if ``careful``."""
    return Two(x, torch.zeros_like(x) if careful else None)


def constant(value: float, like: Two) -> Two:
    """A number beside ``like``."""
    return Two(torch.full_like(like.high, value), None if like.low is None else torch.zeros_like(like.high))


def negative(a: Two) -> Two:
    """-a exactly."""
    return Two(-a.high, None if a.low is None else -a.low)


def where(condition: Tensor, a: Two, b: Two) -> Two:
    """``torch.where`` for sums."""
    low = None if a.low is None or b.low is None else torch.where(condition, a.low, b.low)
    return Two(torch.where(condition, a.high, b.high), low)


def finite(high: Tensor, low: Tensor | None) -> Two:
    """high + low, without the low part where it is none: beyond the range in which sums are carried."""
    if low is None:
        return Two(high, None)
    return Two(high, torch.where(high.isfinite() & low.isfinite(), low, torch.zeros_like(low)))


def magnitude(x: Two) -> Two:
    """|x|."""
    return Two(x.high.abs(), None if x.low is None else torch.where(x.high < 0, -x.low, x.low))


def two_sum(a: Tensor, b: Tensor) -> Two:
    """a + b exactly."""
    total = a + b
    b_part = total - a
    return Two(total, (a - (total - b_part)) + (b - b_part))


def add(a: Two, b: Two) -> Two:
    """a + b to about twice the precision of a float64."""
    if a.low is None or b.low is None:
        return Two(a.high + b.high, None)
    total = two_sum(a.high, b.high)
    assert total.low is not None
    return two_sum(total.high, total.low + (a.low + b.low))


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a b exactly, as its rounded value and what that lacks."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    high = _SPLITTER * a - (_SPLITTER * a - a)
    return high, a - high


def multiply(a: Two, b: Two) -> Two:
    """a b to about twice the precision of a float64."""
    if a.low is None or b.low is None:
        return Two(a.high * b.high, None)
    product, lost = two_product(a.high, b.high)
    return two_sum(product, lost + (a.high * b.low + a.low * b.high))


def divide(a: Two, b: Two) -> Two:
    """a / b to about twice the precision of a float64."""
    quotient = a.high / b.high
    if a.low is None or b.low is None:
        return Two(quotient, None)
    product, lost = two_product(quotient, b.high)
    left_over = (a.high - product) - lost + (a.low - quotient * b.low)
    return two_sum(quotient, left_over / b.high)


def exp(exponent: Two) -> Tensor:
    """exp(high + low) to the rounding of one exponential, also where that is 0 or infinite."""
    if exponent.low is None:
        return torch.exp(exponent.high)
    result = torch.exp(exponent.high.clamp(max=709))
    return torch.where(exponent.high < 709, result + result * exponent.low, torch.exp(exponent.high))


def exp_times(exponent: Two, factor: Tensor) -> Tensor:
    """exp(exponent) factor, where the exponential may leave the range of a float64 and the product may not."""
    root = exp(Two(exponent.high / 2, None if exponent.low is None else exponent.low / 2))
    return torch.where(factor == 0, factor, root * factor * root)


def expm1(exponent: Two) -> Tensor:
    """exp(exponent) - 1 to the rounding of one such function, for exponents up to 700."""
    result = torch.expm1(exponent.high)
    return result if exponent.low is None else result + (result + 1) * exponent.low


def sigmoid(logit: Two) -> Tensor:
    """1 / (1 + exp(-(high + low))), to a few roundings down to the smallest numbers there are."""
    small = exp(negative(magnitude(logit)))
    return torch.where(logit.high < 0, small, torch.ones_like(small)) / (1 + small)


def log(x: Two) -> Two:
    """log x for positive finite x; see ``reference.smoothing.compensated.log``."""
    if x.low is None:
        return Two(torch.log(x.high), None)
    mantissa, exponent = torch.frexp(x.high)
    low_half = mantissa < math.sqrt(0.5)
    m = torch.where(low_half, 2 * mantissa, mantissa)
    k = exponent.to(m.dtype) - low_half.to(m.dtype)
    s = divide(exact(m - 1, True), two_sum(m, torch.ones_like(m)))
    assert s.low is not None
    square = s.high * s.high
    rest = torch.zeros_like(m)
    for n in range(_SERIES_TERMS, 0, -1):
        rest = square * (1 / (2 * n + 1) + rest)
    total = two_sum(k * _LN2_HIGH, 2 * s.high)
    assert total.low is not None
    more = k * _LN2_LOW + 2 * (s.low + s.high * rest) + torch.log1p(x.low / x.high)
    return two_sum(total.high, total.low + more)


def logs_inside(x: Tensor, careful: bool) -> tuple[Two, Two]:
    """log x and log(1 - x) for 0 < x < 1; at 0 and 1, where they are infinite and no sums, those of 1/2."""
    inside = torch.where(is_end(x), torch.full_like(x, 0.5), x)
    if not careful:
        return Two(torch.log(inside), None), Two(torch.log1p(-inside), None)
    return log(exact(inside, True)), log(two_sum(torch.ones_like(inside), -inside))


def is_end(x: Tensor) -> Tensor:
    """Whether x is 0 or 1."""
    return (x == 0) | (x == 1)
