"""``reference.smoothing.series`` for one number.

Series are nested, 1 + x/a (1 + x/b (...)), with quotients of small whole numbers that the compiler folds: summed term
by term, each term would carry the roundings of all those before it.
"""

from __future__ import annotations


def gentle_imbalance(a: float, t: float, spread: float, q_minus_p: float, beta: float) -> float:
    """See ``reference.smoothing.series.gentle_imbalance``; spread is t - a."""
    first = beta * (q_minus_p - spread / 3)
    return first + (q_minus_p * (_cosh_rest(t) + _cosh_rest(a)) - (_sinh_rest(t) - _sinh_rest(a)))


def linear_excess(x: float, decay: float) -> float:
    """(x - 1 + e^{-x})/x; ``decay`` is e^{-x}. See ``reference.smoothing.series.linear_excess``."""
    if not x < 1:
        return ((x - 1) + decay) / x
    series = 1.0
    for k in range(18, 2, -1):
        series = 1 - x * (1 / k) * series
    return x / 2 * series


def quadratic_excess(x: float, decay: float) -> float:
    """(1 - (1 + x) e^{-x})/x; ``decay`` is e^{-x}. See ``reference.smoothing.series.quadratic_excess``.

    Departs  where that subtraction cancels it is e^{-x} (e^x - 1 - x)/x, by a series of positive terms.
    """
    if not x < 2:
        return (1 - (1 + x) * decay) / x
    series = 1.0
    for k in range(25, 2, -1):
        series = 1 + x * (1 / k) * series
    return decay * (x / 2 * series)


def _sinh_rest(x: float) -> float:
    """2 x^{2k}/(2k + 1)! from k = 2 on."""
    square, series = x * x, 1.0
    for k in range(45, 5, -2):
        series = 1 + square * (1 / (k * (k - 1))) * series
    return square * square * (1 / 60) * series


def _cosh_rest(x: float) -> float:
    """2 x^{2k+1}/(2k + 2)! from k = 1 on."""
    square, series = x * x, 1.0
    for k in range(44, 4, -2):
        series = 1 + square * (1 / (k * (k - 1))) * series
    return square * x * (1 / 12) * series
