"""CUDA C++ through CuPy, for devices of compute capability 8.0 (A100) and newer.

Everything runs on CuPy's current device and stream, which are the caller's to set:

    with backend.on_stream(torch.cuda.current_stream().cuda_stream):
        backend.gibbs(...)

A kernel is compiled when it is first asked for, which takes seconds once per kind and size of machine; CuPy keeps the
result on disk. Capture into a CUDA graph after one call of the same shape on the same stream, which compiles and sets
up scratch memory. The graph goes on using that memory: do not replay it beside other calls on the stream.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

from accelerated.cuda_raw.device import CupyGpu, Gpu
from accelerated.cuda_raw.samplers import Samplers
from accelerated.cuda_raw.transforms import Transforms
from accelerated.protocol import OPERATIONS, Backend
from reference.vocabulary import Array


class CupyRaw(Samplers, Transforms):
    """All operations; see ``accelerated.protocol.Backend`` for each."""

    name = "cupy_raw"
    device: Literal["cuda"] = "cuda"

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        super().__init__()

    def operations(self) -> frozenset[str]:
        """All of them."""
        return OPERATIONS

    def on_stream(self, handle: int) -> AbstractContextManager[object]:
        """See ``accelerated.protocol.DeviceBackend.on_stream``."""
        return self.gpu.on_stream(handle)

    def asarray(self, array: Any) -> Any:
        """A NumPy array on the current device."""
        return self.gpu.upload(array)

    def to_numpy(self, array: Any) -> Array:
        """An array of the device as a NumPy array; waits for it."""
        return self.gpu.download(self.gpu.array("array", array))


def create() -> Backend:
    """The backend on the current device; raises BackendUnavailable without CuPy or a device it can use."""
    return CupyRaw(CupyGpu())
