"""``reference.smoothing.series`` for one number."""

from __future__ import annotations

import math


def gentle_imbalance(x0: float, x1: float, gap: float, q_minus_p: float, beta: float) -> float:
    """See ``reference.smoothing.series.gentle_imbalance``."""
    a, t = beta * x0, beta * x1
    first = beta * (q_minus_p - beta * gap / 3)
    return first + (q_minus_p * (_cosh_rest(t) + _cosh_rest(a)) - (_sinh_rest(t) - _sinh_rest(a)))


def linear_excess(x: float, n: float) -> float:
    """See ``reference.smoothing.series.linear_excess``."""
    if not x < 1:
        return (x - n) / x
    term = series = x / 2
    for k in range(3, 19):
        term *= -x / k
        series += term
    return series


def quadratic_excess(x: float, n: float, linear: float) -> float:
    """See ``reference.smoothing.series.quadratic_excess``."""
    return n - linear if x < 1 else (n - x * math.exp(-x)) / x


def _sinh_rest(x: float) -> float:
    """2 x^{2k}/(2k + 1)! from k = 2 on."""
    square = x * x
    term = square * square / 60
    series = 0.0
    for k in range(3, 23):
        series += term
        term *= square / (2 * k * (2 * k + 1))
    return series


def _cosh_rest(x: float) -> float:
    """2 x^{2k+1}/(2k + 2)! from k = 1 on."""
    square = x * x
    term = square * x / 12
    series = 0.0
    for k in range(2, 24):
        series += term
        term *= square / ((2 * k + 1) * (2 * k + 2))
    return series
