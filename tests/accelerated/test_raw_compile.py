"""cuda_raw's samplers as machine code for A100 and H100, made without a device, and what the compiler says about it."""

from __future__ import annotations

import re
import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

import accelerated
from accelerated.cuda_raw.compile import Machine, machine_code, options, source
from accelerated.cuda_raw.device import CupyGpu
from accelerated.cuda_raw.samplers import resident_plan

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # that a block may have, by architecture

# Machines and numbers of chains whose kernels are compiled: the two of the paper, both widths, and the limits.
PLANS = [(100, 100, 1000), (100, 100, 65536), (200, 200, 1000), (200, 200, 65536), (192, 192, 65536), (224, 224, 1000)]
HOT = "gibbs.cu", "tiles.cu"


@cache
def compiled(file: str, architecture: int) -> Machine:
    expressions = {
        "gibbs.cu": tuple(dict.fromkeys(resident_plan(*sizes, 108, SHARED_BYTES[90]).expression for sizes in PLANS)),
        "tiles.cu": tuple(f"draw_tiles<{side}, {group}>" for side in (1, 2) for group in (2, 8)),
        "gibbs_double.cu": ("gibbs_double",),
        "annealing.cu": ("anneal<float>", "anneal<double>"),
        "tempering.cu": ("temper<float>", "temper<double>"),
    }[file]
    try:
        return machine_code(file, expressions, architecture)
    except accelerated.BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", SHARED_BYTES)
@pytest.mark.parametrize("file", ["gibbs.cu", "tiles.cu", "gibbs_double.cu", "annealing.cu", "tempering.cu"])
def test_kernels_compile_and_keep_to_registers(file: str, architecture: int) -> None:
    machine = compiled(file, architecture)
    assert machine.cubin[:4] == b"\x7fELF"
    assert f".target sm_{architecture}" in machine.ptx
    used = re.findall(r"(\d+) bytes (stack frame|spill stores|spill loads)", machine.report)
    n_kernels = machine.ptx.count(".entry")
    assert len(used) == 3 * n_kernels
    assert all(count == "0" for count, _ in used), machine.report
    assert ".local" not in machine.ptx


@pytest.mark.parametrize("architecture", SHARED_BYTES)
def test_products_run_on_tensor_cores(architecture: int) -> None:
    for file in HOT:
        ptx = compiled(file, architecture).ptx
        assert "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" in ptx
        assert "ldmatrix.sync.aligned.m8n8.x4.shared.b16" in ptx
    assert "cp.async.cg.shared.global" in compiled("tiles.cu", architecture).ptx
    for file in ("gibbs_double.cu", "annealing.cu", "tempering.cu"):
        assert "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64" in compiled(file, architecture).ptx


@pytest.mark.parametrize("architecture", SHARED_BYTES)
def test_blocks_fit_a_multiprocessor(architecture: int) -> None:
    """As many blocks at once as the plan counts on: registers and shared memory of one multiprocessor suffice."""
    registers = dict(
        re.findall(
            r"Compiling entry function '(\w+)'.*?Used (\d+) registers", compiled("gibbs.cu", architecture).report, re.S
        )
    )
    assert registers
    for sizes in PLANS:
        plan = resident_plan(*sizes, 108, SHARED_BYTES[architecture])
        name = "Z5gibbs" + "".join(
            f"ILi{n}E" if i == 0 else f"Li{n}E" for i, n in enumerate(re.findall(r"\d+", plan.expression))
        )
        of_plan = [int(count) for mangled, count in registers.items() if name in mangled]
        # A quarter of the warps each have a quarter of the registers, handed out 8 for each of 32 lanes at a time.
        for count in of_plan:
            warps_a_quarter = -(-plan.n_threads * plan.blocks_at_once // 128)
            assert -(-count // 8) * 8 * 32 * warps_a_quarter <= 65536 // 4
        if architecture == 90:
            assert len(of_plan) == 1
        reserved = 1024  # of each block
        assert (plan.shared_bytes + 128 + reserved) * plan.blocks_at_once <= SHARED_BYTES[architecture] + reserved


def test_sources_compile_alone() -> None:
    for file in ("gibbs.cu", "tiles.cu", "gibbs_double.cu", "annealing.cu", "tempering.cu"):
        text = source(file)
        assert "#include" not in text
        assert text.count("philox4x32(unsigned int c0") == 1


def test_a_compiler_s_complaint_is_passed_on() -> None:
    try:
        with pytest.raises(RuntimeError, match="does not compile for sm_90"):
            machine_code("gibbs_double.cu", ("no_such_kernel",), 90)
    except accelerated.BackendUnavailable as error:
        pytest.skip(str(error))


class FakeCupy:
    """What ``CupyGpu`` needs of CuPy to compile and launch; it remembers how it was asked to."""

    def __init__(self) -> None:
        runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, CUDARuntimeError=OSError)
        self.cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(compute_capability="90"))
        self.options: tuple[str, ...] = ()
        self.asked_for: list[int] = []
        self.launches: list[Any] = []

    def RawModule(self, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...]) -> Any:
        self.options = options
        fake = self

        class Function:
            max_dynamic_shared_size_bytes = property(fset=lambda _, n_bytes: fake.asked_for.append(n_bytes))

            def __call__(self, *arguments: Any, shared_mem: int) -> None:
                fake.launches.append((*arguments, shared_mem))

        return SimpleNamespace(get_function=lambda expression: Function())


def test_cupy_compiles_as_the_tests_do_and_is_asked_for_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    gpu = CupyGpu()
    launch = gpu.kernel("transforms.cu", "entropy<float>")
    assert fake.options == options("transforms.cu")
    assert "--fmad=false" in fake.options
    for n_bytes in (1000, 48 * 1024, 100_000, 60_000, 100_001):  # 48 KiB are too many beside what is static
        launch(3, 32, (None,), n_bytes)
    assert fake.asked_for == [48 * 1024, 100_000, 100_001]
    assert fake.launches[0] == ((3,), (32,), (0,), 1000)
    gpu.kernel("gibbs_double.cu", "gibbs_double")
    assert fake.options == options("gibbs_double.cu") == ("--std=c++17",)
