"""Derivatives measured, with an estimate of how well: difference quotients, and complex steps.

**Difference quotients.** Central ones of order 8, at steps that fall by a factor of 4. A step's error has two parts:

    truncation   |order 8 - order 6|, plus how far the quotient is from that of the next smaller step
    rounding     the quotient's weights times the error of the function's values, over the step

Both indicators of truncation are larger than the error itself wherever the function is smooth (where both happen to
vanish, what the step before lets one expect stands in), and where it has a kink within reach the step is passed over.
Of all steps the one with the smallest sum is taken, and the sum is the error.

**Complex steps.** Im f(x + i h) / h with h = 1e-30: no difference is taken, so that only the rounding of f remains. It
takes an f that is analytic and written in operations that accept complex numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from reference.vocabulary import Array

#: Arguments moved by t (a number or an array) to values, of any shape.
Path: TypeAlias = Callable[..., Array]

_EPS = float(np.finfo(np.float64).eps)
_ORDER_8 = (4 / 5, -1 / 5, 4 / 105, -1 / 280)  # weights of f(x + k h) - f(x - k h), k = 1 ..
_ORDER_6 = (3 / 4, -3 / 20, 1 / 60)
_WEIGHT = 2 * sum(abs(weight) for weight in _ORDER_8)
_COARSER = 4
N_STEPS = 7
REACH = len(_ORDER_8)  # how many steps the outermost values are away
_COMPLEX_STEP = 1e-30


class Measured(NamedTuple):
    """A derivative, and a bound on its error."""

    value: Array
    error: Array


class Quotients(NamedTuple):
    """Difference quotients at each of several steps, all (K, ...): see the module's head.

    size: the largest |f| within reach.
    """

    step: Array
    value: Array
    spread: Array
    size: Array

    def best(self, rounding: Array | float) -> Measured:
        """The derivative, given the absolute error of a value of f; NaN where no step gave a number."""
        with np.errstate(invalid="ignore", over="ignore"):
            # The spread compares with the next smaller step, whose rounding is larger.
            error = self.spread + _WEIGHT * (1 + _COARSER) * rounding / self.step
        error = np.where(np.isnan(error), np.inf, error)
        chosen = np.argmin(error, axis=0)[None]
        value, error = (np.take_along_axis(table, chosen, axis=0)[0] for table in (self.value, error))
        return Measured(np.where(np.isfinite(error), value, np.nan), error)


def quotients(function: Path, largest_step: Array | float, n_steps: int = N_STEPS) -> Quotients:
    """Turn a function of a displacement t into its difference quotients at t = 0.

    Shapes   largest_step scalar, or of the shape of the values, each of which then has its own; function(t) for a t of
             that shape
    Domain   the function must be defined for |t| up to ``REACH`` largest steps
    """
    steps, by_order, sizes = [], [], []
    largest = np.asarray(largest_step, dtype=np.float64)
    for k in range(n_steps + 1):
        step = largest / _COARSER**k
        with np.errstate(invalid="ignore", over="ignore"):
            pairs = [(function(i * step), function(-i * step)) for i in range(1, REACH + 1)]
            differences = [above - below for above, below in pairs]
            sizes.append(np.max([np.abs(value) for pair in pairs for value in pair], axis=0))
            by_order.append(
                [
                    sum(weight * difference for weight, difference in zip(weights, differences, strict=False)) / step
                    for weights in (_ORDER_8, _ORDER_6)
                ]
            )
        steps.append(np.broadcast_to(step, sizes[-1].shape))
    values, lower = (np.array([pair[i] for pair in by_order]) for i in (0, 1))
    with np.errstate(invalid="ignore"):
        spread = np.abs(values - lower)[:-1] + np.abs(np.diff(values, axis=0))
        # By chance a spread may vanish; that of the step before it says how large it is expected to be.
        spread[1:] = np.fmax(spread[1:], spread[:-1] / _COARSER**6)
    return Quotients(np.array(steps[:-1]), values[:-1], spread, np.array(sizes[:-1]))


def slope(
    function: Path,
    largest_step: Array | float,
    roundings: float,
    size: Array | float,
    at: Array | float = 0.0,
    n_steps: int = N_STEPS,
) -> Measured:
    """The derivative at t = 0 of a function whose values are good to ``roundings`` eps ``size``.

    ``size``: that of the terms the values are sums of, where it exceeds the values'. ``at``: the size of the argument
    that is moved, which adding t rounds.

    Shapes   as ``quotients``; the others broadcast with the values
    """
    table = quotients(function, largest_step, n_steps)
    size = np.maximum(table.size, size)
    first = np.abs(table.best(roundings * _EPS * size).value)
    return table.best(_EPS * (roundings * size + at * np.where(np.isfinite(first), first, 0.0)))


def complex_step(function: Path) -> Array:
    """The derivative at t = 0 of a function that takes a complex t."""
    return np.asarray(np.imag(function(1j * _COMPLEX_STEP)) / _COMPLEX_STEP)
