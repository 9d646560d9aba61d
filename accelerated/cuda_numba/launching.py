"""How kernels are launched: the stream, the threads of a block, memory that stays."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import cuda

from accelerated.cuda_numba.arrays import blocks_for
from accelerated.cuda_numba.chains import n_groups, pack, pack_bias

#: Threads of a block come in multiples of this; tests that simulate every thread take fewer.
WARP = 32

_MOST_THREADS = 128


class _Caller(threading.local):
    """What each thread has set for itself: torch differentiates in threads of its own."""

    stream = 0  # a handle; 0 is the default stream


class Launching:
    """What both halves of the backend share.

    ``n_threads`` per block and ``rows`` of a tile of chains are chosen by size where they are None; they change no bit
    of a result.
    """

    def __init__(self, n_threads: int | None = None, rows: int | None = None) -> None:
        self._caller = _Caller()
        self.n_threads = n_threads
        self.rows = rows
        self._kept: dict[tuple[Any, ...], Any] = {}

    @contextlib.contextmanager
    def on_stream(self, handle: int) -> Iterator[None]:
        """See ``accelerated.protocol.DeviceBackend.on_stream``."""
        before, self._caller.stream = self._caller.stream, handle
        try:
            yield
        finally:
            self._caller.stream = before

    def launch_stream(self) -> Any:
        """The caller's stream as Numba knows it."""
        return cuda.external_stream(self._caller.stream) if self._caller.stream else 0

    def threads_for(self, n_items: int) -> int:
        """Threads of a block that shares so many items: whole warps."""
        return self.n_threads or min(-(-n_items // WARP) * WARP, _MOST_THREADS)

    def new(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A new device array whose contents are arbitrary."""
        return cuda.device_array(shape, dtype=dtype, stream=self.launch_stream())

    def kept(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Memory allocated once for each device, stream and shape, so that a captured CUDA graph finds it again."""
        entry = name, *self._place(), shape, dtype
        if entry not in self._kept:
            self._kept[entry] = self.new(shape, dtype)
        return self._kept[entry]

    def zero(self) -> Any:
        """An int64 0 on the device: what a step that is a plain number is moved by."""
        entry = "zero", *self._place()
        if entry not in self._kept:
            self._kept[entry] = cuda.to_device(np.zeros(1, dtype=np.int64), stream=self.launch_stream())
        return self._kept[entry]

    def _place(self) -> tuple[str, int]:
        return cuda.current_context().device.uuid, self._caller.stream

    def packed(self, rbm: Any, dtype: np.dtype[Any], base: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Biases and couplings as ``accelerated.cuda_numba.chains`` lays them out, to draw z1 and to draw z2."""
        n1, n2 = (int(n) for n in rbm.W.shape)
        biases1, biases2 = ((rbm.a1,), (rbm.a2,)) if base is None else ((rbm.a1, base[0]), (rbm.a2, base[1]))
        leading = len(biases1)
        packed1 = self.kept("packed1", (leading + n2, 4, n_groups(n1)), dtype)
        packed2 = self.kept("packed2", (leading + n1, 4, n_groups(n2)), dtype)
        for transposed, biases, packed in ((True, biases1, packed1), (False, biases2, packed2)):
            n_threads = self.threads_for(packed.size)
            pack[blocks_for(packed.size, n_threads), n_threads, self.launch_stream()](
                rbm.W, transposed, leading, packed
            )
            for row, bias in enumerate(biases):
                n_threads = self.threads_for(4 * packed.shape[2])
                pack_bias[blocks_for(4 * packed.shape[2], n_threads), n_threads, self.launch_stream()](
                    bias, row, packed
                )
        return packed1, packed2
