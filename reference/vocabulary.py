"""Words every other file uses: the array type, the errors, and the checks that raise them.

Errors name the argument, the rule, the first entry that breaks it and, where there is one, the way out:

    DomainError: rho must lie in [0, 1]; entry 1 is 1.2
    ShapeError: W must be (N1, N2) = (100, 80) to match a1 and a2; got (80, 100). Transposed?
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


class DomainError(ValueError):
    """A value lies outside the set on which a formula is defined."""


class ShapeError(ValueError):
    """Arrays whose shapes do not fit together."""


def as_float(name: str, value: ArrayLike) -> Array:
    """Turn numbers into a floating array, keeping float32 and float64 as they are.

    Integers and booleans become float64, the reference's own precision; every other dtype (half precision, complex,
    objects) is refused, because the accuracy statements of this project are made for float32 and float64.

    Shapes   any, kept
    Raises   TypeError for a dtype that is neither float32, float64, integer nor boolean.
    """
    array = np.asarray(value)
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    raise TypeError(f"{name} must be float32 or float64 numbers; got dtype {array.dtype}")


def check(name: str, array: Array, holds: ArrayLike, rule: str) -> None:
    """Raise DomainError for the first entry of ``array`` where ``holds`` is not true.

    NaN never satisfies a comparison, so a rule written as a comparison refuses NaN too.

    Shapes   ``holds`` as ``array``
    Raises   DomainError quoting ``name``, ``rule`` and the first offender with its index.
    """
    bad = ~np.asarray(holds, dtype=bool)
    if not bad.any():
        return
    index = np.unravel_index(int(np.argmax(bad)), bad.shape)
    where = "it" if not index else f"entry {int(index[0]) if len(index) == 1 else tuple(int(i) for i in index)}"
    raise DomainError(f"{name} must {rule}; {where} is {array[index]}")


def check_unit_interval(name: str, array: Array) -> None:
    """Raise DomainError unless every entry lies in the closed interval [0, 1]."""
    check(name, array, (array >= 0) & (array <= 1), "lie in [0, 1]")


def check_positive(name: str, array: Array) -> None:
    """Raise DomainError unless every entry is positive and finite."""
    check(name, array, (array > 0) & (array < np.inf), "be positive and finite")


def check_finite(name: str, array: Array) -> None:
    """Raise DomainError unless every entry is finite."""
    check(name, array, np.isfinite(array), "be finite")


def check_not_nan(name: str, array: Array) -> None:
    """Raise DomainError for NaN; infinities pass (a logit may be infinite)."""
    check(name, array, ~np.isnan(array), "not be NaN")


def check_binary(name: str, array: Array) -> None:
    """Raise DomainError unless every entry is 0 or 1."""
    check(name, array, (array == 0) | (array == 1), "be 0 or 1")


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return ``value`` as an int; raise DomainError unless it is a whole number of at least ``least``."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise DomainError(f"{name} must be a whole number of at least {least}; got {value}")
    return int(value)


def check_broadcast(**arrays: Array) -> tuple[int, ...]:
    """Return the common broadcast shape of the named arrays.

    Raises   ShapeError naming every argument with its shape.
    """
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ShapeError(f"shapes must broadcast together; got {listed}") from None
