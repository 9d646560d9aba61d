"""Exponentials less the first terms of their series, for the exponential kinds: digits that subtraction would lose."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np

from reference.vocabulary import Array


def gentle_imbalance(x0: Array, x1: Array, gap: Array, q_minus_p: Array, beta: Array) -> Array:
    """2 (q Y - p X) of ``exponential._dzeta_dbeta`` at zeta = x0 = 1 - x1, for beta <= 6; ``gap`` is x1 - x0.

    (q - p) (X + Y) - (X - Y), where X + Y = c(t) + c(a),   c(x) = 2 (cosh x - 1)/x = x + ...,
                                     X - Y = s(t) - s(a),   s(x) = 2 (sinh x - x)/x = x^2/3 + ...

    As this may vanish, each rounding of X + Y and X - Y counts. Most of them are in the first Taylor terms, which sum
    to beta (q - p - beta (x1 - x0)/3), because a + t = beta: three roundings instead of ten.
    """
    beta = np.minimum(beta, 6)  # keeps the branch not taken from overflowing
    a, t = beta * x0, beta * x1
    first = beta * (q_minus_p - beta * gap / 3)
    return first + (q_minus_p * (cosh_rest(t) + cosh_rest(a)) - (sinh_rest(t) - sinh_rest(a)))


def linear_excess(x: Array, n: Array) -> Array:
    """x phi(-x) = (x - n)/x with n = 1 - e^{-x}, by its series x/2 - x^2/6 + ... where the subtraction would cancel."""
    series = np.zeros_like(x)
    clipped = np.minimum(x, 1)
    for k in range(18, 1, -1):  # the terms of (e^{-x} - 1 + x)/x; the 18th is below 2^-53 of the first at x = 1
        series = clipped * ((-1) ** k / factorial(k) + series)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x < 1, series, (x - n) / x)


def quadratic_excess(x: Array, n: Array, linear: Array) -> Array:
    """e^{-x} x phi(x) = (1 - (1 + x) e^{-x})/x, which is also n - x phi(-x); the latter is right where x is small."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x < 1, n - linear, (n - x * np.exp(-x)) / x)


def sinh_term(x: Array) -> Array:
    """2 (sinh x - x)/x for 0 <= x <= 6, without the subtraction."""
    return x * x / 3 + sinh_rest(x)


def sinh_rest(x: Array) -> Array:
    """2 (sinh x - x)/x - x^2/3 for 0 <= x <= 6, by its series of positive terms."""
    return x * x * _even_series(x, [2 / factorial(2 * k + 1) for k in range(2, 23)])


def cosh_rest(x: Array) -> Array:
    """2 (cosh x - 1)/x - x for 0 <= x <= 6, by its series of positive terms."""
    return x * _even_series(x, [2 / factorial(2 * k + 2) for k in range(1, 23)])


def cosh_less_sinhc(x: Array) -> Array:
    """cosh x - sinh(x)/x for 0 <= x <= 3, which is about x^2/3, by its series of positive terms."""
    return _even_series(x, [2 * k / factorial(2 * k + 1) for k in range(1, 18)])


def _even_series(x: Array, coefficients: Sequence[float]) -> Array:
    """c_1 x^2 + c_2 x^4 + ..., by Horner's rule."""
    square = x * x
    series = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        series = square * (coefficient + series)
    return series
