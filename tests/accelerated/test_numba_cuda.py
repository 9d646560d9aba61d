"""``numba_cuda`` outside the simulator: no device, the compiler without a device, and a device where there is one."""

import re
import shutil
import subprocess
import types

import numpy as np
import pytest
from numba import cuda

import accelerated
from accelerated import BackendUnavailable, scalar
from accelerated.cuda_numba import annealing, chains, elementwise, gather, gibbs, rounding, sums, tempering
from accelerated.protocol import KINDS, Machine
from validation import agreement
from validation.tolerances import ANNEALING_LOG_WEIGHT

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)


@pytest.mark.skipif(cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so():
    with pytest.raises(
        BackendUnavailable, match=r"^backend 'numba_cuda' cannot run here: Numba finds no CUDA device.*$"
    ):
        accelerated.load("numba_cuda")


# ---- the compiler, which needs no device -----------------------------------------------------------------------------


def compiled(function, signature, capability=(8, 0), device=False):
    """PTX of a kernel or device function."""
    return cuda.compile(function, signature, device=device, abi="c" if device else "numba", cc=capability)[0]


@pytest.fixture(scope="module")
def compiler():
    """Skips where NVVM is not installed; else lets Numba believe in a device, which it asks for its generation."""
    from numba.cuda import dispatcher

    def add(a, b):
        return a + b

    try:
        compiled(add, "float64(float64, float64)", device=True)
    except Exception as error:  # each of the targets called numba.cuda has errors of its own
        lines = " ".join(str(error).split())
        pytest.skip(f"Numba cannot compile for CUDA here (install numba-cuda[cu13]): {type(error).__name__} {lines}")
    with pytest.MonkeyPatch.context() as patch:
        device = types.SimpleNamespace(compute_capability=(8, 0))
        patch.setattr(dispatcher, "get_current_device", lambda: device)
        yield


def samplers():
    """Name, kernel and the types of its arguments."""
    for dtype, real in ((F4, "f4"), (F8, "f8")):
        for rows in sorted({chains.FEW_ROWS, chains.tile_rows(chains.MANY, dtype)}):
            types_ = f"{real}2 {real}3 {real}3 i8 i8 i8 u8 u8 u8 i81 u8 {real}2 {real}2"
            yield f"gibbs, {rows} chains, {real}", gibbs.gibbs_kernel(rows, dtype), types_
    rows = chains.FEW_ROWS
    walk = "f42 b1 f81 i8 f83 f83 i8 i8 u8 u8 u8 u8 u8 f81"
    yield "annealing", annealing.annealing_kernel(rows), walk
    ladder = "f42 b1 f81 i8 i8 i8 f83 f83 i8 i8 i8 i8 i8 u8 u8 i81 f42 f42"
    yield "tempering", tempering.tempering_kernel(rows), ladder


def other_kernels():
    """The same of the rest, the transforms for one set of extras."""
    for dtype, real in ((F4, "f4"), (F8, "f8")):
        yield f"pack {real}", chains.pack, f"{real}2 b1 i8 {real}3"
        yield f"pack_bias {real}", chains.pack_bias, f"{real}1 i8 {real}3"
        yield f"entropy {real}", sums.entropy, f"{real}2 i8 {real}1 {real}2"
        yield f"log_mean {real}", sums.log_mean, f"{real}2 i8 i8 f81 f81 i8 f81 f81 f81"
        yield f"cross_entropy {real}", sums.cross_entropy, f"{real}1 {real}1 {real}2 {real}2 {real}2 i8 i8 {real}1"
        by_units = f"{real}1 {real}1 {real}2 {real}3 {real}2 {real}2 i8 {real}1 {real}2 {real}2"
        yield f"by_units {real}", sums.cross_entropy_by_units, by_units
        by_parameters = f"{real}2 {real}2 i8 {real}1 {real}1 {real}1 {real}2"
        yield f"by_parameters {real}", sums.cross_entropy_by_parameters, by_parameters
        for axes, kernel in enumerate(gather.GATHER, 1):
            yield f"gather {real} {axes}", kernel, f"{real}{axes}A {real}1"
        for kind in KINDS:
            kernel = elementwise.inverse_cdf_kernel(kind, dtype, frozenset(["dzeta_dlogit_q"]))
            n = len(scalar.sharpness(kind, 1.0))
            yield f"{kind} {real}", kernel, f"{real}1 {real}1 tuple{n}" + f" {real}1" * 6


def numba_types(text):
    """Types of arguments from their short names: f42 is a matrix of float32, A marks any strides."""
    from numba import boolean, float32, float64, int64, uint64
    from numba.core.types import Array, UniTuple

    scalars = {"f4": float32, "f8": float64, "i8": int64, "u8": uint64, "b1": boolean}

    def one(name):
        if name.startswith("tuple"):
            return UniTuple(float64, int(name[5:]))
        scalar, axes = scalars[name[:2]], name[2:].rstrip("A")
        return Array(scalar, int(axes), "A" if name.endswith("A") else "C") if axes else scalar

    return tuple(map(one, text.split()))


def assert_compiles(found, folder):
    """PTX, and machine code for two generations where there is an assembler, with all of a thread's numbers at hand."""
    for i, (name, kernel, text) in enumerate(found):
        ptx = compiled(kernel.py_func, numba_types(text))
        assert ".visible .entry" in ptx, name
        # Sums in registers: an array of a thread that is indexed by what the compiler does not know lies in memory.
        assert "__local_depot" not in ptx, name
        if assembler := shutil.which("ptxas"):
            source = folder / f"{i}.ptx"
            source.write_text(re.sub(r"\.version \S+", ".version 8.0", ptx))
            for capability in ("80", "90"):
                command = [assembler, f"-arch=sm_{capability}", "-v", str(source), "-o", str(folder / f"{i}.cubin")]
                run = subprocess.run(command, capture_output=True, text=True, check=False)
                assert run.returncode == 0, f"{name}: {run.stderr}"
                assert " 0 bytes spill stores" in run.stderr, f"{name}: {run.stderr}"


@pytest.mark.usefixtures("compiler")
def test_samplers_compile(tmp_path):
    assert_compiles(samplers(), tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_all_else_compiles(tmp_path):
    assert_compiles(other_kernels(), tmp_path)


def times_plus(a: float, b: float, c: float) -> float:
    product = a * b
    product *= c
    return product + c


@pytest.mark.usefixtures("compiler")
def test_products_of_scalar_functions_are_rounded():
    signature = "float64(float64, float64, float64)"
    assert "fma.rn.f64" in compiled(times_plus, signature, device=True)  # as it is, the two are fused
    ptx = compiled(rounding._separately_rounded(times_plus), signature, device=True)
    assert "fma.rn.f64" not in ptx
    assert ptx.count("mul.rn.f64") == 2


# ---- a device --------------------------------------------------------------------------------------------------------


@pytest.fixture
def backend():
    return accelerated.load("numba_cuda")


def on(backend, arrays):
    return Machine(*map(backend.asarray, arrays))


def machine_of(n1, n2, dtype, scale):
    rng = np.random.default_rng([n1, n2])
    shapes = (n1,), (n2,), (n1, n2)
    return Machine(*((scale * rng.normal(size=shape)).astype(dtype) for shape in shapes))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n1", "n2", "n_chains"), [(200, 200, 1000), (100, 129, 8193), (4096, 4096, 9)])
def test_bits_of_large_machines_agree_on_a_device(backend, dtype, n1, n2, n_chains):
    machine = machine_of(n1, n2, dtype, 0.1)
    z1 = np.random.default_rng(0).integers(0, 2, (n_chains, n1)).astype(dtype)
    finding = agreement.gibbs_bits(backend, machine, z1, 2, seed=3, step=2**32 - 1).finding("gibbs")
    assert finding.holds, finding


@pytest.mark.gpu
def test_annealing_and_tempering_agree_on_a_device(backend):
    machine = machine_of(200, 129, np.float32, 0.1)
    base, path = (machine.a1, machine.a2), np.linspace(0, 1, 101)
    found = agreement.annealing_chains(backend, machine, base, path, 5, n_chains=130)
    finding = found.finding("ais", ANNEALING_LOG_WEIGHT["float32"])
    assert finding.holds, finding
    ladder = np.linspace(0, 1, 11)
    finding = agreement.tempering_chains(backend, machine, ladder, 33, 5, seed=2).finding("tempering", 0.0)
    assert finding.holds, finding


@pytest.mark.gpu
def test_results_depend_neither_on_threads_nor_on_tiles_on_a_device(backend):
    machine, z1 = on(backend, machine_of(300, 200, np.float32, 0.1)), np.zeros((333, 300), np.float32)
    expected = None
    for n_threads, rows in ((None, None), (32, 8), (96, 4)):
        backend.n_threads, backend.rows = n_threads, rows
        arrays = [
            *backend.gibbs(machine, backend.asarray(z1), 5, 1, 0),
            backend.ais(machine, (machine.a1, machine.a2), np.linspace(0, 1, 11), 333, 1),
            *backend.tempering(machine, np.linspace(0, 1, 5), 40, 5, 1),
        ]
        found = [backend.to_numpy(array) for array in arrays]
        for x, y in zip(found, expected or found, strict=True):
            np.testing.assert_array_equal(x, y)
        expected = found


@pytest.mark.gpu
def test_a_captured_graph_goes_on_with_the_step_on_the_device(backend):
    torch = pytest.importorskip("torch")
    host = machine_of(100, 80, np.float32, 0.1)
    machine = Machine(*(torch.from_numpy(x).cuda() for x in host))
    z1, z2 = torch.zeros(50, 100, device="cuda"), torch.zeros(50, 80, device="cuda")
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    stream = torch.cuda.Stream()

    def three_sweeps():
        with backend.on_stream(torch.cuda.current_stream().cuda_stream):
            backend.gibbs(machine, z1, 3, 7, step, out=(z1, z2))
        step.add_(3)

    with torch.cuda.stream(stream):
        three_sweeps()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            three_sweeps()
        graph.replay()
        graph.replay()
    stream.synchronize()
    expected = accelerated.load("numba_cuda")
    start = expected.asarray(np.zeros((50, 100), np.float32))
    whole = [expected.to_numpy(x) for x in expected.gibbs(on(expected, host), start, 9, 7, 0)]
    np.testing.assert_array_equal(z1.cpu().numpy(), whole[0])
    np.testing.assert_array_equal(z2.cpu().numpy(), whole[1])
