"""tanh to the last digit or so: one that is two roundings off, as C libraries' are, spoils its differences."""

from __future__ import annotations

import math


def tanh(x: float) -> float:
    """tanh x, by the one function of the library that has all digits of a small 1 - e^{-2|x|}."""
    less = math.expm1(-2 * abs(x))
    return math.copysign(less / (2 + less), x)


def tanh_excess(x: float) -> float:
    """See ``reference.smoothing.real_line.tanh_excess``."""
    square, series, cosh = x * x, 1.0, 1.0
    for k in range(10, 0, -1):
        series = 1 + square * (1 / (2 * k * (2 * k + 3))) * series
        cosh = 1 + square * (1 / (2 * k * (2 * k - 1))) * cosh
    return -x * (square / 3 * series / cosh)
