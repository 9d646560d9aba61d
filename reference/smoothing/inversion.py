"""The root of an increasing function, for the kinds whose CDF has no inverse in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reference.vocabulary import Array

_MAX_STEPS = 200  # of which bisection alone needs 53 to halve a bracket down to its own rounding


def solve(residual: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, start: Array) -> Array:
    """The zero of an increasing function between low and high, entry by entry, by Newton's method on a leash.

        x <- x - value / slope    where that stays in the bracket and the steps shrink,
        x <- the bracket's middle elsewhere.

    Newton doubles the number of right digits in each step, but only near the root; bisection earns one bit a step from
    anywhere. Every value seen narrows the bracket, so the worst that a bad slope can do is to cost a step. An entry
    that has arrived (its step is of the order of the rounding of x) stays where it is while the others go on.

    What this can and cannot do for a kind: the root comes out to a few roundings of x, if the value is that exact. So x
    should be a variable in which the function is nearly straight: the logarithm of a distance from an end of zeta's
    domain, say, with the logarithm of a tail probability as value.

    Source   Press et al., Numerical Recipes, section 9.4 (the safeguards of rtsafe).
    Shapes   low, high, start broadcast; residual maps an x of their common shape to (value, slope), both of that shape.
    Domain   low <= high finite; a value may be infinite, a slope infinite, 0 or NaN (then the bracket is halved).
    Raises   ArithmeticError if an entry has not arrived after 200 steps: the value is NaN or no increasing function.
    """
    low, high, x = (np.array(a) for a in np.broadcast_arrays(low, high, np.clip(start, low, high)))
    info = np.finfo(np.float64)
    arrived = np.zeros(x.shape, dtype=bool)
    last_step = step_before = high - low
    for _ in range(_MAX_STEPS):
        value, slope = residual(x)
        low, high = np.where(value < 0, x, low), np.where(value > 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = x - value / slope
        # A pair of steps must halve; else Newton is circling, or crawling along a slope far too steep.
        # (But not at the rounding of x: there they need not halve, and the middle would throw the root away.)
        length, rounding = np.abs(newton - x), info.eps * np.abs(x) + info.smallest_subnormal
        trusted = (low <= newton) & (newton <= high) & ((length <= step_before / 2) | (length <= 8 * rounding))
        proposal = np.where(value == 0, x, np.where(trusted, newton, low + (high - low) / 2))
        step = np.abs(proposal - x)
        x = np.where(arrived, x, proposal)
        arrived |= ~np.isnan(value) & (step <= np.where(trusted, 8, 1) * rounding)
        if arrived.all():
            return x
        step_before, last_step = last_step, step
    raise ArithmeticError(f"a root search did not converge in {_MAX_STEPS} steps; first at entry {np.argmin(arrived)}")
