"""Portable CUDA kernels through Numba, for any device Numba supports; the CUDA simulator runs them too.

Arrays are whatever lives on Numba's current device and has a ``__cuda_array_interface__`` (torch, CuPy, Numba). Work is
put on the default stream, or on that of the caller, and nothing waits for it:

    with backend.on_stream(torch.cuda.current_stream().cuda_stream):
        backend.gibbs(...)

The first call for each kind of arguments compiles, which takes seconds. A call of ``gibbs`` with ``out`` may be
captured into a CUDA graph once the same call has been made before on the same stream: it then allocates nothing. The
graph goes on using what was set up for that stream: do not replay it beside other calls on the stream.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import cuda

from accelerated import BackendUnavailable
from accelerated.cuda_numba.arrays import contiguous, view
from accelerated.cuda_numba.samplers import Samplers
from accelerated.cuda_numba.transforms import Transforms
from accelerated.protocol import OPERATIONS, Backend
from reference.vocabulary import Array


class NumbaCuda(Samplers, Transforms):
    """All operations; see ``accelerated.protocol.Backend`` for each."""

    name = "numba_cuda"
    device: Literal["cuda"] = "cuda"

    def operations(self) -> frozenset[str]:
        """All of them."""
        return OPERATIONS

    def asarray(self, array: Any) -> Any:
        """A NumPy array as a Numba device array."""
        return cuda.to_device(np.ascontiguousarray(array), stream=self.launch_stream())

    def to_numpy(self, array: Any) -> Array:
        """Any device array as a NumPy array; waits for it."""
        stream, ours = self.launch_stream(), view("array", array)
        n_threads = self.threads_for(ours.size)
        host: Array = contiguous("array", ours, stream, n_threads).copy_to_host(stream=stream)
        if stream:
            stream.synchronize()
        return host


def create() -> Backend:
    """The backend on the current device.

    Raises   BackendUnavailable where Numba finds no device.
    """
    if not cuda.is_available():
        raise BackendUnavailable(f"backend 'numba_cuda' cannot run here: Numba finds no CUDA device{_reason()}")
    return NumbaCuda()


def _reason() -> str:
    """What Numba says of the driver, in one line."""
    error = cuda.cuda_error()
    first = str(error or "").strip().partition("\n")[0]
    return f" ({first})" if first else ""
