"""Device arrays of other libraries as Numba's, without copies, and what is checked of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from accelerated.arguments import check_output, not_on_device
from accelerated.cuda_numba.gather import GATHER
from accelerated.protocol import Machine
from reference.vocabulary import ShapeError

_MOST_BLOCKS = 4096


def view(name: str, array: Any) -> Any:
    """A Numba device array on the memory of any device array; nothing is copied, and nothing waits.

    Raises   TypeError for what does not live on a CUDA device.
    """
    if getattr(array, "__cuda_ndarray__", False):
        return array
    if hasattr(array, "__cuda_array_interface__"):
        # Whoever calls has ordered this work after what wrote the array: it is all on the caller's stream.
        return cuda.as_cuda_array(array, sync=False)
    raise not_on_device(name, array)


def machine_view(rbm: Any) -> Any:
    """The machine with views for parameters; what lacks one of them is left to ``check_machine``."""
    if any(not hasattr(rbm, name) for name in Machine._fields):
        return rbm
    return Machine(*(view(name, getattr(rbm, name)) for name in Machine._fields))


def output(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array to be written to, as Numba's.

    Raises   TypeError, ShapeError for one that does not fit.
    """
    array = view(name, value)
    check_output(name, array, shape, dtype)
    return array


def blocks_for(n_items: int, n_threads: int) -> int:
    """Blocks of threads that step through so many items."""
    return max(1, min(-(-n_items // n_threads), _MOST_BLOCKS))


def contiguous(name: str, array: Any, stream: Any, n_threads: int) -> Any:
    """The array itself if it is C-contiguous, else a copy that is.

    Raises   ShapeError for a strided array of more than four axes.
    """
    if array.is_c_contiguous():
        return array
    if len(array.shape) > len(GATHER):
        raise ShapeError(f"{name} must be C-contiguous, for it has more than {len(GATHER)} axes: {tuple(array.shape)}")
    copy = cuda.device_array(tuple(array.shape), dtype=array.dtype, stream=stream)
    if copy.size:
        gather = GATHER[len(array.shape) - 1]
        gather[blocks_for(copy.size, n_threads), n_threads, stream](array, copy.ravel())
    return copy
