"""CUDA C++ sources turned into text that compiles alone, and, where NVRTC is installed, into machine code.

A source includes its neighbours by ``#include "NAME"``. They are pasted in here, once each, so that the text is all a
compiler needs, and all a cache needs to look at: no folder is searched, no header can change unnoticed. Sources include
nothing else, because NVRTC comes without headers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from accelerated import BackendUnavailable

FOLDER = Path(__file__).parent

# For every compiler and architecture. No fast mathematics: accuracy is stated for the exact forms.
_OPTIONS = ("--std=c++17",)

# Where a compiler fuses a b + c depends on what surrounds it. The transforms' bits must not depend on what else is
# asked for, and their error-free sums count on every rounding: there multiply-adds are fused where fma is written only.
_OPTIONS_OF = {"transforms.cu": ("--fmad=false",)}

_INCLUDE = re.compile(r'^#include "(?P<name>[\w.]+)"\n', re.MULTILINE)
_ONCE = "#pragma once\n"  # says nothing in a text that includes nothing


class Machine(NamedTuple):
    """Machine code for one architecture, the PTX it was assembled from, and what the assembler reports."""

    cubin: bytes
    ptx: str
    report: str


@cache
def source(name: str) -> str:
    """Text of ``cuda_raw/NAME`` with the neighbours it includes pasted in, each where it is first needed."""
    pasted: set[str] = set()

    def paste(file: str) -> str:
        if file in pasted:
            return ""
        pasted.add(file)
        return _INCLUDE.sub(
            lambda include: paste(include["name"]), (FOLDER / file).read_text(encoding="utf-8").replace(_ONCE, "")
        )

    return paste(name)


def options(name: str) -> tuple[str, ...]:
    """Options that ``cuda_raw/NAME`` is compiled with, the same for NVRTC, nvcc and CuPy."""
    return _OPTIONS + _OPTIONS_OF.get(name, ())


def machine_code(name: str, expressions: tuple[str, ...], architecture: int) -> Machine:
    """Kernels of ``cuda_raw/NAME``, named as C++ would (``temper<float>``), for sm_ARCHITECTURE. No device needed.

    By NVRTC, which is what CuPy uses, if cuda-bindings and nvidia-cuda-nvrtc are installed; else by nvcc.

    Raises   BackendUnavailable where neither is; RuntimeError with the compiler's words for a source it refuses.
    """
    try:
        from cuda.bindings import nvrtc  # here: only the tests need it, and users have CuPy's

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        if (nvcc := shutil.which("nvcc")) is None:
            raise BackendUnavailable(f"no CUDA compiler: {error}, and no nvcc on the path") from error
        return _by_nvcc(nvcc, name, expressions, architecture)
    return _by_nvrtc(nvrtc, name, expressions, architecture)


def _by_nvrtc(nvrtc: Any, name: str, expressions: tuple[str, ...], architecture: int) -> Machine:
    def call(result: tuple[Any, ...]) -> Any:
        status, *values = result
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(f"{name}: {status.name}")
        return values[0] if values else None

    def read(size: Any, get: Any) -> bytes:
        buffer = b" " * call(size(program))
        call(get(program, buffer))
        return buffer

    program = call(nvrtc.nvrtcCreateProgram(source(name).encode(), name.encode(), 0, [], []))
    try:
        for expression in expressions:
            call(nvrtc.nvrtcAddNameExpression(program, expression.encode()))
        given = [*options(name), f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(given), [option.encode() for option in given])
        log = read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).rstrip(b"\0").decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(f"{name} does not compile for sm_{architecture}:\n{log}")
        ptx = read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX).rstrip(b"\0").decode()
        return Machine(read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), ptx, log)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _by_nvcc(nvcc: str, name: str, expressions: tuple[str, ...], architecture: int) -> Machine:
    # nvcc knows no name expressions: a template is compiled where its address is taken.
    addresses = ", ".join(f"(const void*){expression}" for expression in expressions)
    text = f"{source(name)}\nextern const void* const instances[];\nconst void* const instances[] = {{{addresses}}};\n"
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / f"{Path(name).stem}.cu"
        written.write_text(text, encoding="utf-8")
        target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
        command = [nvcc, *options(name), target, "-cubin", "-Xptxas=-v", "--keep", f"--keep-dir={folder}"]
        done = subprocess.run([*command, written.name], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} does not compile for sm_{architecture}:\n{done.stderr}")
        return Machine(written.with_suffix(".cubin").read_bytes(), written.with_suffix(".ptx").read_text(), done.stderr)
