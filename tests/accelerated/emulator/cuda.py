"""A CUDA device that is this machine's CPU: cuda_raw's sources compiled by g++ against ``cuda_on_cpu.hpp``.

``EmulatedGpu`` stands in for ``accelerated.cuda_raw.device.CupyGpu``, with NumPy arrays, so that kernels and the host
code that launches them run as they are. Every launch checks the number and sizes of its arguments against the kernel's
parameters, and that nothing was written beside the arrays.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from accelerated.cuda_raw.compile import source

_HEADER = Path(__file__).parent / "cuda_on_cpu.hpp"
_OPTIONS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-x", "c++", "-w", "-ffp-contract=off", "-U_FORTIFY_SOURCE")
_GUARD = 64  # entries before and behind every array
_MAX_PARAMETERS = 64

#: Kernels by file that are compiled together, because a compiler's start costs more than a kernel; others, and those of
#: files that are not here, come one by one.
TOGETHER = {
    "gibbs.cu": (
        *(
            "gibbs<1, 1, 1, 12>",
            "gibbs<1, 2, 1, 12>",
            "gibbs<7, 7, 1, 12>",
            "gibbs<7, 7, 2, 11>",
            "gibbs<9, 13, 1, 10>",
        ),
        *("gibbs<13, 9, 2, 7>", "gibbs<14, 4, 1, 10>", "gibbs<13, 13, 1, 10>", "gibbs<13, 13, 2, 7>"),
        *("gibbs<2, 2, 1, 12>", "gibbs<2, 3, 1, 12>", "gibbs<3, 1, 1, 12>"),
    ),
    "gibbs_double.cu": ("gibbs_double",),
    "tiles.cu": (
        *("measure", "cut", "pack", "spread"),
        *("draw_tiles<1, 2>", "draw_tiles<2, 2>", "draw_tiles<1, 8>", "draw_tiles<2, 8>"),
    ),
    "annealing.cu": ("anneal<float>", "anneal<double>"),
    "tempering.cu": ("temper<float>", "temper<double>"),
    "transforms.cu": (
        *("inverse_cdf<float, 0, 1>", "inverse_cdf<double, 0, 1>", "inverse_cdf<float, 0, 31>"),
        *("entropy<float>", "expected_energy<float>", "weighted<float>", "unit_gradients<float>"),
        *("entropy<double>", "expected_energy<double>", "weighted<double>", "unit_gradients<double>"),
        *("importance_log_mean<float>", "importance_log_mean<double>"),
    ),
}


def compiler() -> str | None:
    """The C++ compiler, or None: then there is nothing to emulate with."""
    return shutil.which("g++")


class EmulatedGpu:
    """A device of given size whose threads run in a given order: 0 forwards, 1 backwards, others shuffled.

    ``edits`` are (old, new) pieces of the sources' text, each there exactly once: what a mistake would look like.
    """

    def __init__(
        self,
        n_multiprocessors: int = 132,
        shared_bytes: int = 227 * 1024,
        order: int = 0,
        edits: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.n_multiprocessors, self.shared_bytes, self.order, self.edits = (
            n_multiprocessors,
            shared_bytes,
            order,
            edits,
        )
        self.context = (0, 0)
        self.launched: list[str] = []
        self.n_allocations = 0
        self._guarded: list[tuple[Any, Any]] = []

    def array(self, name: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} must be an array on a CUDA device; got {type(value).__name__}")
        return value

    def contiguous(self, array: Any) -> Any:
        return np.ascontiguousarray(array)

    def empty(self, shape: Any, dtype: Any) -> Any:
        self.n_allocations += 1
        size = int(np.prod(shape))
        whole = np.frombuffer(bytearray(b"\xa5" * ((size + 2 * _GUARD) * np.dtype(dtype).itemsize)), dtype)
        self._guarded.append((whole[:_GUARD], whole[_GUARD + size :]))
        return whole[_GUARD : _GUARD + size].reshape(shape)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def upload(self, array: Any) -> Any:
        return np.array(array)

    def download(self, array: Any) -> Any:
        return np.array(array)

    def address(self, array: Any) -> int:
        return array.ctypes.data

    def kernel(self, file: str, expression: str) -> Any:
        together = () if self.edits else TOGETHER.get(file, ())
        if expression not in together:
            together = (expression,)
        library, index = _compiled(file, together, self.edits), together.index(expression)
        sizes = (ctypes.c_int * _MAX_PARAMETERS)()
        sizes = list(sizes[: library.parameters(index, sizes)])

        def launch(n_blocks: int, n_threads: int, arguments: tuple[Any, ...], shared_bytes: int = 0) -> None:
            self.launched.append(expression)
            assert shared_bytes <= self.shared_bytes
            assert len(arguments) == len(sizes), f"{expression} takes {len(sizes)} arguments; got {len(arguments)}"
            values = []
            for argument, size in zip(arguments, sizes, strict=True):
                if argument is None or isinstance(argument, np.ndarray):
                    assert argument is None or argument.flags.c_contiguous
                    value = np.array(0 if argument is None else argument.ctypes.data, np.uint64)
                else:
                    value = np.array(argument)
                assert value.itemsize == size, f"{expression}: {argument!r} has {value.itemsize} bytes, not {size}"
                values.append(value)
            pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
            message = library.launch(index, n_blocks, n_threads, shared_bytes, self.order, pointers)
            if message is not None:
                raise RuntimeError(f"{expression}: {message.decode()}")
            for guards in self._guarded:
                assert all((guard.view(np.uint8) == 0xA5).all() for guard in guards), (
                    f"{expression} wrote beside an array"
                )

        return launch


@cache
def _compiled(file: str, expressions: tuple[str, ...], edits: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """A library that launches kernels of one file by number; built once for every text, and kept between runs."""
    text = source(file)
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} is in {file} {text.count(old)} times"
        text = text.replace(old, new)

    def cases(call: str) -> str:
        return "".join(f"    if (index == {i}) return {call.format(name)};\n" for i, name in enumerate(expressions))

    text = f'''#include "{_HEADER}"
{text}
extern "C" const char* launch(int index, unsigned n_blocks, unsigned n_threads, size_t shared, unsigned order,
                              void** p) {{
{cases("emulation::launch({}, n_blocks, n_threads, shared, order, p)")}    return "no such kernel";
}}
extern "C" int parameters(int index, int* sizes) {{
{cases("emulation::parameters({}, sizes)")}    return -1;
}}
'''
    digest = hashlib.sha256((text + _HEADER.read_text() + " ".join(_OPTIONS)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to somebody else"  # what is in it is run
    library = folder / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            written, built = Path(scratch) / "kernel.cpp", Path(scratch) / "kernel.so"
            written.write_text(text)
            subprocess.run([str(compiler()), *_OPTIONS, str(written), "-o", str(built)], check=True)
            built.replace(library)  # atomic: another process may be building the same
    loaded = ctypes.CDLL(str(library))
    loaded.launch.restype = ctypes.c_char_p
    loaded.launch.argtypes = [ctypes.c_int, *[ctypes.c_uint] * 2, ctypes.c_size_t, ctypes.c_uint, ctypes.c_void_p]
    return loaded
