"""Checks of arguments that all backends share; an array is anything with ``shape`` and ``dtype``.

Messages are those of ``reference.vocabulary``: argument, rule, first offender, way out.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from accelerated.protocol import EXTRAS, KINDS, LogMean
from reference.boltzmann_kl import group_slices
from reference.philox import as_seed
from reference.vocabulary import Array, DomainError, ShapeError, as_ladder, check_count

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Sizes(NamedTuple):
    """Sizes of a machine and the dtype of its parameters."""

    n1: int
    n2: int
    dtype: np.dtype[Any]


def common_dtype(**arrays: Any) -> np.dtype[Any]:
    """The one dtype of the named arrays.

    Raises   TypeError unless it is float32 or float64 and the same for all.
    """
    dtypes = {name: dtype_of(name, array) for name, array in arrays.items()}
    for name, dtype in dtypes.items():
        if dtype not in _FLOATS:
            raise TypeError(f"{name} must be float32 or float64; got {dtype}")
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"arrays must be of one dtype; got {listed}")
    return next(iter(dtypes.values()))


def dtype_of(name: str, array: Any) -> np.dtype[Any]:
    """The NumPy dtype of an array of any library.

    Raises   TypeError for what is no array.
    """
    try:
        return np.dtype(array.dtype)
    except (AttributeError, TypeError):
        pass
    try:  # torch's dtypes are not NumPy's, but are called the same
        return np.dtype(str(array.dtype).rpartition(".")[2])
    except (AttributeError, TypeError):
        raise TypeError(f"{name} must be an array; got {type(array).__name__}") from None


def check_machine(rbm: Any) -> Sizes:
    """Sizes and dtype of a machine.

    Raises   TypeError for what has no a1, a2, W or mixes dtypes; ShapeError for parameters that do not fit together.
    """
    missing = [name for name in ("a1", "a2", "W") if not hasattr(rbm, name)]
    if missing:
        raise TypeError(f"rbm must have a1, a2 and W; got {type(rbm).__name__}, which lacks {missing[0]}")
    dtype = common_dtype(a1=rbm.a1, a2=rbm.a2, W=rbm.W)
    shapes = {name: tuple(getattr(rbm, name).shape) for name in ("a1", "a2", "W")}
    for name in ("a1", "a2"):
        if len(shapes[name]) != 1 or shapes[name][0] == 0:
            raise ShapeError(f"{name} must be a vector with at least one unit; got {shapes[name]}")
    n1, n2 = shapes["a1"][0], shapes["a2"][0]
    if shapes["W"] != (n1, n2):
        hint = " Transposed?" if shapes["W"] == (n2, n1) else ""
        raise ShapeError(f"W must be (N1, N2) = ({n1}, {n2}) to match a1 and a2; got {shapes['W']}.{hint}")
    return Sizes(n1, n2, dtype)


def check_base(base: Any, sizes: Sizes) -> tuple[Any, Any]:
    """Biases (a1, a2) of the independent machine that annealing starts from; W, if it has one, is the caller's word.

    Raises   TypeError or ShapeError for biases that do not fit the machine.
    """
    a1, a2 = (base.a1, base.a2) if hasattr(base, "a1") else base
    if common_dtype(**{"base.a1": a1, "base.a2": a2}) != sizes.dtype:
        raise TypeError(f"base must be of the machine's dtype, {sizes.dtype}; got {dtype_of('base.a1', a1)}")
    for name, bias, n in (("base.a1", a1, sizes.n1), ("base.a2", a2, sizes.n2)):
        if tuple(bias.shape) != (n,):
            raise ShapeError(f"{name} must be ({n},) to match the machine; got {tuple(bias.shape)}")
    return a1, a2


def check_path(inv_temps: Any) -> Array:
    """Inverse temperatures of annealing as a float64 vector; see ``reference.partition.as_path``.

    Raises   ShapeError, DomainError or TypeError unless they rise strictly from 0 to 1.
    """
    path = as_ladder("inv_temps", inv_temps)
    if path[0] != 0:
        raise DomainError(f"inv_temps must start at 0, the base; the first entry is {path[0]}")
    return path


class TemperingRun(NamedTuple):
    """Checked arguments of ``Backend.tempering``; n_rows = R n_chains."""

    ladder: Array
    n_chains: int
    n_rounds: int
    seed: int
    first_round: int
    sweeps_per_round: int
    n_rows: int


def check_tempering(
    sizes: Sizes,
    inv_temps: Any,
    n_chains: int,
    n_rounds: int,
    seed: int,
    first_round: int,
    z1: Any,
    sweeps_per_round: int,
) -> TemperingRun:
    """The arguments of a tempering run; z1 may be None.

    Raises   ShapeError, DomainError or TypeError for one that does not fit.
    """
    ladder = as_ladder("inv_temps", inv_temps)
    n_chains, n_rounds = check_count("n_chains", n_chains), check_count("n_rounds", n_rounds)
    first_round = check_count("first_round", first_round, least=0)
    sweeps = check_count("sweeps_per_round", sweeps_per_round)
    n_rows = len(ladder) * n_chains
    seed, _, _ = check_address(seed, first_round * sweeps, n_rounds * sweeps, n_rows)
    if z1 is not None and check_rows("z1", z1, sizes.n1, sizes.dtype) != n_rows:
        raise ShapeError(f"z1 must have a row for each replica and chain, {n_rows}; got {tuple(z1.shape)}")
    return TemperingRun(ladder, n_chains, n_rounds, seed, first_round, sweeps, n_rows)


def check_rows(name: str, array: Any, n_columns: int, dtype: np.dtype[Any]) -> int:
    """Number of rows of an array of the stated columns and dtype.

    Raises   TypeError for another dtype; ShapeError for another shape.
    """
    if dtype_of(name, array) != dtype:
        raise TypeError(f"{name} must be {dtype}, the dtype of the machine; got {dtype_of(name, array)}")
    shape = tuple(array.shape)
    if len(shape) != 2 or shape[1] != n_columns:
        raise ShapeError(f"{name} must be (B, {n_columns}), one row per sample; got {shape}")
    return int(shape[0])


def check_address(seed: int, step: int, n_steps: int, n_chains: int, first_chain: int = 0) -> tuple[int, int, int]:
    """Seed, step and first chain of a run of Philox numbers, as ints; see ``reference.philox.uniforms``.

    Raises   DomainError or TypeError for one that is out of range or no whole number.
    """
    seed, step = as_seed(seed), check_count("step", step, least=0)
    first_chain = check_count("first_chain", first_chain, least=0)
    if step + n_steps > 2**56:
        raise DomainError(f"step must lie in [0, 2**56), to its last sweep; got {step} and {n_steps} sweeps")
    if first_chain + n_chains > 2**32:
        raise DomainError(f"first_chain + n_chains must be at most 2**32; got {first_chain} + {n_chains}")
    return seed, step, first_chain


def check_step_array(step: Any) -> None:
    """Nothing; a step that a kernel reads when it runs is one int64.

    Raises   TypeError for another dtype; ShapeError for more or less than one.
    """
    if dtype_of("step", step) != np.int64:
        raise TypeError(f"step must be a number or one int64 on the device; got {dtype_of('step', step)}")
    if math.prod(step.shape) != 1:
        raise ShapeError(f"step must be a number or one int64 on the device; got {tuple(step.shape)}")


def check_transform(
    kind: str, rho: Any, logit_q: Any, beta: float, extras: Collection[str]
) -> tuple[float, np.dtype[Any]]:
    """The sharpness, rounded to the dtype of the arrays, and that dtype.

    Raises   DomainError for an unknown kind or extra or a sharpness that is not positive and finite; ShapeError,
             TypeError for arrays that do not fit.
    """
    if kind not in KINDS:
        raise DomainError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    for extra in extras:
        if extra not in EXTRAS:
            raise DomainError(f"extras must be of {', '.join(EXTRAS)}; got {extra!r}")
    dtype = common_dtype(rho=rho, logit_q=logit_q)
    if tuple(rho.shape) != tuple(logit_q.shape):
        raise ShapeError(f"rho and logit_q must have one shape; got {tuple(rho.shape)} and {tuple(logit_q.shape)}")
    if isinstance(beta, bool) or not isinstance(beta, (int, float, np.integer, np.floating)):
        raise TypeError(f"beta must be one number; got {type(beta).__name__}")
    with np.errstate(over="ignore", under="ignore"):  # refused below
        sharpness = float(dtype.type(beta))
    if not 0 < sharpness < np.inf:
        raise DomainError(f"beta must be positive and finite in {dtype}; got {beta}")
    return sharpness, dtype


def check_matrix(name: str, array: Any) -> tuple[int, int]:
    """Rows and columns of a matrix.

    Raises   ShapeError for any other shape.
    """
    shape = tuple(array.shape)
    if len(shape) != 2:
        raise ShapeError(f"{name} must be (B, N), one row per sample; got {shape}")
    return int(shape[0]), int(shape[1])


def check_posterior(rbm: Any, mu: Any, nu: Any, n_groups: int) -> tuple[Sizes, int, int]:
    """Sizes of the machine of a cross-entropy, the number of rows, and of units in a group.

    Raises   TypeError, ShapeError for arrays that do not fit; DomainError for groups that do not divide the units.
    """
    sizes = check_machine(rbm)
    n_units = sizes.n1 + sizes.n2
    n_rows = check_rows("mu", mu, n_units, sizes.dtype)
    if check_rows("nu", nu, n_units, sizes.dtype) != n_rows:
        raise ShapeError(f"nu must have the {n_rows} rows of mu; got {tuple(nu.shape)}")
    return sizes, n_rows, group_slices(n_units, n_groups)[0].stop


def check_upstream(upstream: Any, n_rows: int, dtype: np.dtype[Any]) -> None:
    """Nothing; ``upstream`` is a number for each row of mu.

    Raises   TypeError for another dtype; ShapeError for another shape.
    """
    if dtype_of("upstream", upstream) != dtype:
        raise TypeError(f"upstream must be {dtype}, the dtype of the machine; got {dtype_of('upstream', upstream)}")
    if tuple(upstream.shape) != (n_rows,):
        raise ShapeError(f"upstream must be ({n_rows},), one number per row of mu; got {tuple(upstream.shape)}")


def check_running(running: LogMean, n_rows: int) -> int:
    """Number of weights so far of a log-mean-exp that goes on.

    Raises   TypeError, ShapeError or DomainError for what is none of so many rows.
    """
    for name, array in (("running.largest", running.largest), ("running.total", running.total)):
        if dtype_of(name, array) != np.float64:
            raise TypeError(f"{name} must be float64; got {dtype_of(name, array)}")
        if tuple(array.shape) != (n_rows,):
            raise ShapeError(f"{name} must be ({n_rows},), one number per row; got {tuple(array.shape)}")
    return check_count("running.n_weights", running.n_weights)


def not_on_device(name: str, value: Any) -> TypeError:
    """The error for what is no array of a CUDA device."""
    if not hasattr(value, "shape"):
        return TypeError(f"{name} must be an array; got {type(value).__name__}")
    return TypeError(
        f"{name} must be an array on a CUDA device; got {type(value).__module__}.{type(value).__name__}. "
        "Move it with backend.asarray"
    )


def check_output(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Nothing; results can be written to the array, which has ``strides`` too.

    Raises   TypeError for what is no C-contiguous array of the dtype; ShapeError for another shape.
    """
    if dtype_of(name, array) != dtype:
        raise TypeError(f"{name} must be {dtype}, as what it is computed from; got {dtype_of(name, array)}")
    if tuple(array.shape) != shape:
        raise ShapeError(f"{name} must be {shape}; got {tuple(array.shape)}")
    step = dtype.itemsize
    for n, stride in zip(reversed(shape), reversed(array.strides), strict=True):
        if n > 1 and stride != step and 0 not in shape:
            raise TypeError(f"{name} must be C-contiguous; its strides are {tuple(array.strides)}")
        step *= n
