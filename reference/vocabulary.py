"""Words every other file uses: the array type, the errors, and the checks that raise them.

Errors name the argument, the rule, the first entry that breaks it and, where there is one, the way out:

    DomainError: rho must lie in [0, 1]; entry 1 is 1.2
    ShapeError: W must be (N1, N2) = (100, 80) to match a1 and a2; got (80, 100). Transposed?
"""

from __future__ import annotations

from dataclasses import dataclass
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


def as_scalar(name: str, value: ArrayLike, what: str = "one number") -> Array:
    """Turn one number into a float64 array without axes.

    Shapes   scalar, kept
    Raises   ShapeError for anything else, asking for ``what``; TypeError for a dtype that is not a number.
    """
    number = as_float(name, value).astype(np.float64)
    if number.ndim:
        raise ShapeError(f"{name} must be {what}; got {number.shape}")
    return number


def as_matrix(name: str, value: ArrayLike, row: str = "sample") -> Array:
    """Turn one row per sample (or whatever a ``row`` is) into a float64 matrix with any number of columns.

    Shapes   value (B, N) -> (B, N)
    Raises   ShapeError for any other shape; TypeError for a dtype that is not a number.
    """
    matrix = as_float(name, value).astype(np.float64, copy=False)
    if matrix.ndim != 2:
        raise ShapeError(f"{name} must be (B, N), one row per {row}; got {matrix.shape}")
    return matrix


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
    """Return ``value`` as an int.

    Raises   DomainError unless it is a whole number of at least ``least``; TypeError for what is no number.
    """
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a whole number; got {value!r}")
    if isinstance(value, bool) or not np.isfinite(value) or int(value) != value or value < least:
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


def as_rows(name: str, value: ArrayLike, n_columns: int) -> Array:
    """Turn one row per sample or chain into a float64 matrix with the stated number of columns.

    Shapes   value (B, n_columns) -> (B, n_columns)
    Raises   TypeError for a dtype that is not a number; ShapeError for any other shape.
    """
    rows = as_float(name, value).astype(np.float64, copy=False)
    if rows.ndim != 2 or rows.shape[1] != n_columns:
        raise ShapeError(f"{name} must be (B, {n_columns}), one row per sample; got {rows.shape}")
    return rows


def as_states(name: str, value: ArrayLike, n_units: int) -> Array:
    """Turn binary states, one row per sample or chain, into a float64 matrix of zeros and ones.

    Shapes   value (B, n_units) -> (B, n_units)
    Raises   as ``as_rows``, and DomainError for an entry that is neither 0 nor 1.
    """
    states = as_rows(name, value, n_units)
    check_binary(name, states)
    return states


def as_ladder(name: str, value: ArrayLike) -> Array:
    """Turn inverse temperatures into a float64 vector that rises strictly, within [0, 1], to exactly 1.

    Shapes   value (R,) -> (R,)
    Raises   ShapeError unless a vector with an entry; DomainError where it leaves [0, 1], does not rise or does not end
             at 1; TypeError for a dtype that is not a number.
    """
    ladder = as_float(name, value).astype(np.float64, copy=False)
    if ladder.ndim != 1 or ladder.size == 0:
        raise ShapeError(f"{name} must be a vector of at least one inverse temperature; got {ladder.shape}")
    check_unit_interval(name, ladder)
    check(name, ladder, np.diff(ladder, prepend=-1.0) > 0, "rise strictly")
    if ladder[-1] != 1:
        raise DomainError(f"{name} must end at 1, the machine itself; the last entry is {ladder[-1]}")
    return ladder


def check_same_rows(**matrices: Array) -> int:
    """Return the number of rows the named matrices share.

    Raises   ShapeError naming every argument with its shape.
    """
    if len({len(matrix) for matrix in matrices.values()}) != 1:
        listed = ", ".join(f"{name} {matrix.shape}" for name, matrix in matrices.items())
        raise ShapeError(f"matrices must have the same number of rows; got {listed}")
    return len(next(iter(matrices.values())))


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays with == gives an array, not a truth value
class RBM:
    """A restricted Boltzmann machine: two sides of binary units, coupled across but not within.

    p(z1, z2) = exp(-E(z1, z2)) / Z with E(z1, z2) = -a1'z1 - a2'z2 - z1'W z2. The parameters are copied to float64,
    so that what was checked here cannot change behind the object's back.

    Source   DVAE++ (arXiv:1802.04920), section 5.
    Shapes   a1 (N1,), a2 (N2,), W (N1, N2)
    Domain   finite parameters; at least one unit on each side
    Units    nats (parameters are terms of a log-probability)
    Raises   ShapeError if the shapes do not fit; DomainError for an entry that is not finite; TypeError for a dtype
             that is not a number.
    """

    a1: Array
    a2: Array
    W: Array

    def __post_init__(self) -> None:
        for name in ("a1", "a2", "W"):
            # The dataclass is frozen; this is its one moment of construction.
            object.__setattr__(self, name, np.array(as_float(name, getattr(self, name)), dtype=np.float64))
        for name in ("a1", "a2"):
            bias = getattr(self, name)
            if bias.ndim != 1 or bias.size == 0:
                raise ShapeError(f"{name} must be a vector with at least one unit; got {bias.shape}")
        if self.W.shape != (self.n1, self.n2):
            hint = " Transposed?" if self.W.shape == (self.n2, self.n1) else ""
            raise ShapeError(
                f"W must be (N1, N2) = ({self.n1}, {self.n2}) to match a1 and a2; got {self.W.shape}.{hint}"
            )
        for name in ("a1", "a2", "W"):
            check_finite(name, getattr(self, name))

    @property
    def n1(self) -> int:
        """Number of units on the first side."""
        return int(self.a1.size)

    @property
    def n2(self) -> int:
        """Number of units on the second side."""
        return int(self.a2.size)

    def general(self) -> BoltzmannMachine:
        """The same distribution as a general Boltzmann machine over (z1, z2), without couplings inside a side.

        Shapes   -> a (N1 + N2,), J (N1 + N2, N1 + N2)
        """
        J = np.zeros((self.n1 + self.n2,) * 2)
        J[: self.n1, self.n1 :] = self.W
        J[self.n1 :, : self.n1] = self.W.T
        return BoltzmannMachine(np.concatenate([self.a1, self.a2]), J)


@dataclass(frozen=True, eq=False)
class BoltzmannMachine:
    """A general Boltzmann machine: binary units, any two of which may be coupled.

    p(z) = exp(-E(z)) / Z with E(z) = -a'z - z'J z / 2; every pair is counted twice in z'J z, hence the half. As with
    ``RBM`` the parameters are copied to float64.

    Source   DVAE++ (arXiv:1802.04920), section 5; Ackley, Hinton, Sejnowski (1985).
    Shapes   a (N,), J (N, N)
    Domain   finite parameters; J symmetric with a zero diagonal; at least one unit
    Units    nats (parameters are terms of a log-probability)
    Raises   ShapeError if the shapes do not fit; DomainError for an entry that is not finite, a coupling of a unit with
             itself, or a J that is not symmetric; TypeError for a dtype that is not a number.
    """

    a: Array
    J: Array

    def __post_init__(self) -> None:
        for name in ("a", "J"):
            # The dataclass is frozen; this is its one moment of construction.
            object.__setattr__(self, name, np.array(as_float(name, getattr(self, name)), dtype=np.float64))
        if self.a.ndim != 1 or self.a.size == 0:
            raise ShapeError(f"a must be a vector with at least one unit; got {self.a.shape}")
        if self.J.shape != (self.n, self.n):
            raise ShapeError(f"J must be (N, N) = ({self.n}, {self.n}) to match a; got {self.J.shape}")
        for name in ("a", "J"):
            check_finite(name, getattr(self, name))
        check("J", self.J, (self.J == 0) | ~np.eye(self.n, dtype=bool), "be 0 on its diagonal; put it into a")
        check("J", self.J, self.J == self.J.T, "be symmetric; for one-sided couplings pass J + J.T")

    @property
    def n(self) -> int:
        """Number of units."""
        return int(self.a.size)


def as_relaxed(name: str, value: ArrayLike, n_units: int) -> Array:
    """Turn probabilities or relaxed states, one row per sample or chain, into a float64 matrix with entries in [0, 1].

    Shapes   value (B, n_units) -> (B, n_units)
    Raises   as ``as_rows``, and DomainError for an entry outside [0, 1].
    """
    relaxed = as_rows(name, value, n_units)
    check_unit_interval(name, relaxed)
    return relaxed


def check_rbm(rbm: RBM) -> None:
    """Raise TypeError for what is no restricted machine: the formulas of an RBM need its two sides."""
    if not isinstance(rbm, RBM):
        raise TypeError(
            f"rbm must be an RBM; got {type(rbm).__name__}. A BoltzmannMachine has its own reference.general_boltzmann"
        )


def check_general(machine: BoltzmannMachine) -> None:
    """Raise TypeError for what is no general machine; an RBM is one, once it is written as such."""
    if not isinstance(machine, BoltzmannMachine):
        raise TypeError(f"machine must be a BoltzmannMachine; got {type(machine).__name__}. An RBM has .general()")
