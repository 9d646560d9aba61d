"""Kernels for the CPU, compiled by Numba: vectorised, and run by several threads over slices of the rows.

The operations are two halves: ``accelerated.cpu.samplers`` and ``accelerated.cpu.transforms``. Results do not depend on
the number of threads.
"""

from __future__ import annotations

from typing import Any, Literal

import numba
import numpy as np

from accelerated import BackendUnavailable
from accelerated.cpu import threads
from accelerated.cpu.samplers import Samplers
from accelerated.cpu.transforms import Transforms
from accelerated.protocol import OPERATIONS, Backend
from reference.vocabulary import Array, check_count


class NumbaCpu(Samplers, Transforms):
    """All operations; see ``accelerated.protocol.Backend`` for each. ``n_threads`` may be set at any time."""

    name = "numba_cpu"
    device: Literal["cpu"] = "cpu"

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = check_count("n_threads", threads.default_count() if n_threads is None else n_threads)

    def operations(self) -> frozenset[str]:
        """All of them."""
        return OPERATIONS

    def asarray(self, array: Any) -> Array:
        """NumPy arrays are this backend's own."""
        return np.asarray(array)

    def to_numpy(self, array: Any) -> Array:
        """NumPy arrays are this backend's own."""
        return np.asarray(array)


def create() -> Backend:
    """The backend with as many threads as ``accelerated.cpu.threads.default_count`` says.

    Raises   BackendUnavailable where Numba was told not to compile.
    """
    config: Any = numba.config
    if config.DISABLE_JIT:
        raise BackendUnavailable("backend 'numba_cpu' cannot run here: NUMBA_DISABLE_JIT is set")
    return NumbaCpu()
