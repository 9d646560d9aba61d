"""The few things the host code needs of a CUDA device, so that it also runs where the tests emulate one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from accelerated import BackendUnavailable
from accelerated.arguments import check_output, not_on_device
from accelerated.cuda_raw import compile as cuda_compile
from accelerated.protocol import Machine
from reference.vocabulary import Array

_DLPACK_CUDA = 2  # kDLCUDA of the DLPack header
_MOST_STATIC_BYTES = 1024  # of shared memory in kernels that have dynamic shared memory too


class Kernel(Protocol):
    """A compiled kernel."""

    def __call__(self, n_blocks: int, n_threads: int, arguments: tuple[Any, ...], shared_bytes: int = 0) -> None:
        """Launch it on the caller's stream; arguments are arrays, None for no array, or NumPy scalars of its types."""
        ...


class Gpu(Protocol):
    """A device: arrays on it and kernels for it. Everything runs on the caller's stream and nothing waits."""

    @property
    def n_multiprocessors(self) -> int:
        """How many blocks it can run side by side, at least."""
        ...

    def on_stream(self, handle: int) -> AbstractContextManager[object]:
        """Makes the stream of that handle the caller's for as long as it is entered."""
        ...

    @property
    def shared_bytes(self) -> int:
        """How much shared memory a block may have."""
        ...

    @property
    def context(self) -> tuple[int, int]:
        """The current device and the caller's stream: scratch memory of one stream must not be used by another."""
        ...

    def address(self, array: Any) -> int:
        """Where an array of ours begins."""
        ...

    def array(self, name: str, value: Any) -> Any:
        """What lives on the device as an array of ours, without a copy; TypeError for what does not."""
        ...

    def contiguous(self, array: Any) -> Any:
        """The array itself, or a C-contiguous copy."""
        ...

    def empty(self, shape: tuple[int, ...] | int, dtype: DTypeLike) -> Any:
        """A new array whose contents are arbitrary."""
        ...

    def zeros(self, shape: tuple[int, ...] | int, dtype: DTypeLike) -> Any:
        """A new array of zeros."""
        ...

    def upload(self, array: Array) -> Any:
        """A NumPy array as one of ours."""
        ...

    def download(self, array: Any) -> Array:
        """One of our arrays as a NumPy array; waits for it."""
        ...

    def kernel(self, file: str, expression: str) -> Kernel:
        """The kernel of ``cuda_raw/FILE`` that C++ calls ``expression``, compiled when first asked for."""
        ...


class CupyGpu:
    """The current CUDA device through CuPy."""

    def __init__(self) -> None:
        """Raises BackendUnavailable without CuPy, or where CuPy finds no device it can use."""
        try:
            import cupy
        except ImportError as error:
            raise BackendUnavailable(f"backend 'cupy_raw' cannot run here: {error}") from error
        try:
            n_devices = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendUnavailable(
                f"backend 'cupy_raw' cannot run here: cupy finds no CUDA device ({error})"
            ) from error
        if n_devices == 0:
            raise BackendUnavailable("backend 'cupy_raw' cannot run here: cupy finds no CUDA device")
        capability = int(cupy.cuda.Device().compute_capability)
        if capability < 80:
            raise BackendUnavailable(
                f"backend 'cupy_raw' cannot run here: its kernels need compute capability 8.0; the device has "
                f"{capability // 10}.{capability % 10}"
            )
        self._cupy = cupy
        self._kernels, self._attribute = cache(self._compile), cache(self._ask)

    @property
    def n_multiprocessors(self) -> int:
        """See ``Gpu``."""
        return self._attribute("cudaDevAttrMultiProcessorCount", self._cupy.cuda.runtime.getDevice())

    @property
    def shared_bytes(self) -> int:
        """See ``Gpu``."""
        return self._attribute("cudaDevAttrMaxSharedMemoryPerBlockOptin", self._cupy.cuda.runtime.getDevice())

    @property
    def context(self) -> tuple[int, int]:
        """See ``Gpu``. The stream is CuPy's current one, which is the caller's to set."""
        return self._cupy.cuda.runtime.getDevice(), self._cupy.cuda.get_current_stream().ptr

    def address(self, array: Any) -> int:
        """See ``Gpu``."""
        return int(array.data.ptr)

    def on_stream(self, handle: int) -> AbstractContextManager[object]:
        """See ``Gpu``."""
        stream: AbstractContextManager[object] = self._cupy.cuda.ExternalStream(handle)
        return stream

    def array(self, name: str, value: Any) -> Any:
        """See ``Gpu``. ``__cuda_array_interface__`` first: it exchanges a pointer and records nothing on a stream."""
        if isinstance(value, self._cupy.ndarray):
            array = value
        elif hasattr(value, "__cuda_array_interface__"):
            array = self._cupy.asarray(value)
        elif hasattr(value, "__dlpack__") and value.__dlpack_device__()[0] == _DLPACK_CUDA:
            array = self._cupy.from_dlpack(value)
        else:
            raise not_on_device(name, value)
        here = self._cupy.cuda.runtime.getDevice()
        if array.device.id != here:
            raise TypeError(f"{name} must be on the current device, cuda:{here}; got cuda:{array.device.id}")
        return array

    def contiguous(self, array: Any) -> Any:
        """See ``Gpu``."""
        return self._cupy.ascontiguousarray(array)

    def empty(self, shape: tuple[int, ...] | int, dtype: DTypeLike) -> Any:
        """See ``Gpu``; from CuPy's memory pool."""
        return self._cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...] | int, dtype: DTypeLike) -> Any:
        """See ``Gpu``; from CuPy's memory pool."""
        return self._cupy.zeros(shape, dtype)

    def upload(self, array: Array) -> Any:
        """See ``Gpu``."""
        return self._cupy.asarray(array)

    def download(self, array: Any) -> Array:
        """See ``Gpu``."""
        host: Array = self._cupy.asnumpy(array)
        return host

    def kernel(self, file: str, expression: str) -> Kernel:
        """See ``Gpu``. CuPy keeps the machine code on disk; a device keeps it in memory."""
        kernel: Kernel = self._kernels(file, expression, self._cupy.cuda.runtime.getDevice())
        return kernel

    def _ask(self, attribute: str, device: int) -> int:
        runtime = self._cupy.cuda.runtime
        return int(runtime.deviceGetAttribute(getattr(runtime, attribute), device))

    def _compile(self, file: str, expression: str, device: int) -> Kernel:
        module = self._cupy.RawModule(
            code=cuda_compile.source(file), options=cuda_compile.options(file), name_expressions=(expression,)
        )
        function = module.get_function(expression)
        allowed = 48 * 1024 - _MOST_STATIC_BYTES  # more than 48 KiB, with what is static, has to be asked for

        def launch(n_blocks: int, n_threads: int, arguments: tuple[Any, ...], shared_bytes: int = 0) -> None:
            nonlocal allowed
            if shared_bytes > allowed:  # never lowered: a captured graph launches with what it was captured with
                function.max_dynamic_shared_size_bytes = allowed = shared_bytes
            passed = tuple(np.uint64(0) if argument is None else argument for argument in arguments)
            function((n_blocks,), (n_threads,), passed, shared_mem=shared_bytes)

        return launch


def output(gpu: Gpu, name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array given to be written to, as one of ours.

    Raises   ShapeError or TypeError unless it is a C-contiguous array on the device, of that shape and dtype.
    """
    array = gpu.array(name, value)
    check_output(name, array, shape, dtype)
    return array


def machine_on(gpu: Gpu, rbm: Any) -> Machine:
    """The machine in arrays of ours, C-contiguous."""
    return Machine(*(gpu.contiguous(gpu.array(name, getattr(rbm, name))) for name in Machine._fields))


def c_type(dtype: np.dtype[Any]) -> str:
    """What C++ calls a dtype of ours."""
    return "float" if dtype == np.float32 else "double"
