"""cuda_raw's samplers: their sources run on an emulated device, judged by the reference; on a real one where one is.

Bits of float32 kernels differ from the reference's where a uniform lies within rounding of its probability, about once
in 10**7 draws (2**-23 relative to the largest coupling, times a slope of 1/4, times the square root of the number of
terms). The examples here are fixed and small, and none of their draws is such a one: bits are asked to be equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import logit

import accelerated
from accelerated.backends import numpy_oracle
from accelerated.cuda_raw import samplers
from accelerated.cuda_raw.samplers import RESIDENT_UNITS, Samplers, fits, resident_plan
from accelerated.protocol import Machine
from reference.philox import STREAM_Z2, uniforms
from reference.vocabulary import DomainError, ShapeError
from tests.accelerated.emulator.cuda import EmulatedGpu, compiler

ORACLE = numpy_oracle.create()
SEED, STEP, CHAIN = 2**40 + 5, 2**33 + 1, 7  # beyond 32 bits, and not at the start
ORDERS = (0, 1, 2)  # of an emulated block's threads: forwards, backwards, shuffled

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no g++ to emulate a device with")


class Emulated(Samplers):
    """The samplers of an emulated device."""

    def __init__(self, **facts: Any) -> None:
        self.gpu: Any = EmulatedGpu(**facts)
        super().__init__()


def machine(n1: int, n2: int, dtype: Any, scale: float = 1.0) -> Machine:
    random = np.random.default_rng(1000 * n1 + n2)
    couplings = scale * random.normal(size=(n1, n2)) / np.sqrt(max(n1, n2))
    return Machine(*(part.astype(dtype) for part in (random.normal(size=n1), random.normal(size=n2), couplings)))


def states(n_chains: int, n_units: int, dtype: Any) -> Any:
    return (np.random.default_rng(n_units).random((n_chains, n_units)) < 0.5).astype(dtype)


def base_of(rbm: Machine) -> tuple[Any, Any]:
    return tuple(np.linspace(-1, 2, len(bias)).astype(bias.dtype) for bias in (rbm.a1, rbm.a2))


def assert_same(result: Any, expected: Any) -> None:
    for mine, theirs in zip(result, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@needs_compiler
@pytest.mark.parametrize(
    ("n1", "n2", "n_chains", "dtype", "facts", "kernel"),
    [
        (1, 1, 3, np.float32, {}, "gibbs<1, 1, 1, 12>"),
        (3, 17, 9, np.float32, {}, "gibbs<1, 2, 1, 12>"),
        (100, 100, 20, np.float32, {}, "gibbs<7, 7, 1, 12>"),
        (100, 100, 33, np.float32, {"n_multiprocessors": 1}, "gibbs<7, 7, 2, 11>"),
        (129, 200, 9, np.float32, {}, "gibbs<9, 13, 1, 10>"),
        (200, 129, 35, np.float32, {"n_multiprocessors": 2}, "gibbs<13, 9, 2, 7>"),
        (224, 50, 8, np.float32, {}, "gibbs<14, 4, 1, 10>"),
        (240, 70, 3, np.float32, {}, "draw_tiles<1, 2>"),
        (70, 240, 65, np.float32, {"n_multiprocessors": 4}, "draw_tiles<2, 8>"),
        (1, 3, 1, np.float64, {}, "gibbs_double"),
        (40, 33, 17, np.float64, {}, "gibbs_double"),
        (100, 129, 9, np.float64, {}, "gibbs_double"),
    ],
)
def test_gibbs_draws_the_reference_s_bits(
    n1: int, n2: int, n_chains: int, dtype: Any, facts: dict[str, Any], kernel: str
) -> None:
    rbm, z1 = machine(n1, n2, dtype, scale=3), states(n_chains, n1, dtype)
    expected = ORACLE.gibbs(rbm, z1, 2, SEED, STEP, CHAIN)
    for order in ORDERS:
        backend = Emulated(order=order, **facts)
        result = backend.gibbs(rbm, z1, 2, SEED, STEP, CHAIN)
        assert kernel in backend.gpu.launched
        assert all(part.dtype == dtype for part in result)
        assert_same(result, expected)


@needs_compiler
@pytest.mark.parametrize(("n1", "n2", "dtype"), [(100, 100, np.float32), (240, 3, np.float32), (40, 33, np.float64)])
def test_gibbs_goes_on_and_splits(n1: int, n2: int, dtype: Any) -> None:
    rbm, z1, backend = machine(n1, n2, dtype), states(21, n1, dtype), Emulated()
    whole = backend.gibbs(rbm, z1, 3, SEED, STEP)
    half = backend.gibbs(rbm, z1, 2, SEED, STEP)
    assert_same(backend.gibbs(rbm, half[0], 1, SEED, STEP + 2), whole)
    parts = [backend.gibbs(rbm, z1[:10], 3, SEED, STEP), backend.gibbs(rbm, z1[10:], 3, SEED, STEP, first_chain=10)]
    assert_same([np.concatenate(pair) for pair in zip(*parts, strict=True)], whole)
    assert_same(backend.gibbs(rbm, z1, 3, SEED, np.array([STEP])), whole)  # the step in the device's memory


@needs_compiler
def test_the_size_of_the_batch_and_the_device_change_no_bit() -> None:
    rbm, z1 = machine(200, 200, np.float32), states(24, 200, np.float32)
    devices = (
        {},
        {"n_multiprocessors": 1},
        {"n_multiprocessors": 1, "shared_bytes": 163 * 1024},
        {"shared_bytes": 99 * 1024},
    )
    backends = [Emulated(**facts) for facts in devices]
    results = [backend.gibbs(rbm, z1, 2, SEED, STEP) for backend in backends]
    kernels = [backend.gpu.launched[-1] for backend in backends]
    assert kernels == ["gibbs<13, 13, 1, 10>", "gibbs<13, 13, 2, 7>", "gibbs<13, 13, 1, 10>", "spread"]
    for result in results[1:]:
        assert_same(result, results[0])


def n_bits_off(backend: Emulated) -> int:
    """Bits that are wrong where biases put every logit next to that of its uniform, on one side and on the other."""
    n, z1 = 200, states(1, 200, np.float32)
    rbm = machine(n, n, np.float32)
    u = uniforms(SEED, STEP, 1, n, STREAM_Z2)[0]
    sums = z1[0].astype(np.float64) @ rbm.W.astype(np.float64)
    # Couplings rounded to multiples of 2**-23 of the power of two above the largest, at worst all the same way; two
    # roundings of a float32 logit; the bias's own; e^-x within 3 units in the last place; one rounding of the product.
    eps = float(np.finfo(np.float32).eps)
    power = 2.0 ** np.ceil(np.log2(np.abs(rbm.W).max()))
    margin = z1.sum() * 2.0**-24 * power + eps * (np.abs(logit(u)) + np.abs(sums) + 4)
    assert margin.max() < 2e-5
    n_wrong = 0
    for sign in (1, -1):
        biased = rbm._replace(a2=(logit(u) - sums + sign * margin).astype(np.float32))
        _, z2 = backend.gibbs(biased, z1, 1, SEED, STEP)
        n_wrong += int((z2[0] != (sign > 0)).sum())
    return n_wrong


@needs_compiler
@pytest.mark.parametrize("facts", [{}, {"shared_bytes": 64 * 1024}])
def test_logits_are_as_accurate_as_stated(facts: dict[str, int]) -> None:
    assert n_bits_off(Emulated(**facts)) == 0


@needs_compiler
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_couplings_of_any_size(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rbm, z1 = machine(20, 33, np.float32, scale), states(9, 20, np.float32)
    expected = ORACLE.gibbs(rbm, z1, 2, SEED, STEP)
    assert_same(Emulated().gibbs(rbm, z1, 2, SEED, STEP), expected)
    monkeypatch.setattr(samplers, "RESIDENT_UNITS", 0)  # by tiles.cu
    assert_same(Emulated().gibbs(rbm, z1, 2, SEED, STEP), expected)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gibbs_writes_where_it_is_told_and_allocates_nothing(dtype: Any) -> None:
    for n1 in (33, 240):
        rbm, z1 = machine(n1, 7, dtype), states(5, n1, dtype)
        expected = ORACLE.gibbs(rbm, z1, 2, SEED, STEP)
        backend = Emulated()
        out = z1.copy(), np.full((5, 7), np.nan, dtype)
        backend.gibbs(rbm, z1, 2, SEED, STEP, out=out)  # sets up scratch memory
        before, out[0][...] = backend.gpu.n_allocations, z1
        returned = backend.gibbs(rbm, out[0], 2, SEED, STEP, out=out)
        assert backend.gpu.n_allocations == before
        assert all(mine is theirs for mine, theirs in zip(returned, out, strict=True))
        assert_same(out, expected)


@needs_compiler
def test_strided_arrays_and_no_chains() -> None:
    rbm = machine(17, 17, np.float32)
    turned, z1 = (
        rbm._replace(W=np.ascontiguousarray(rbm.W.T).T, a1=np.repeat(rbm.a1, 2)[::2]),
        states(4, 34, np.float32)[:, ::2],
    )
    assert_same(Emulated().gibbs(turned, z1, 2, SEED, STEP), ORACLE.gibbs(rbm, z1, 2, SEED, STEP))
    empty = Emulated().gibbs(rbm, z1[:0], 2, SEED, STEP)
    assert [part.shape for part in empty] == [(0, 17), (0, 17)]
    assert Emulated().reverse_ais(rbm, base_of(rbm), [0.0, 1.0], z1[:0], SEED).shape == (0,)


@needs_compiler
@pytest.mark.parametrize(
    ("n1", "n2", "n_chains", "dtype"),
    [(1, 1, 1, np.float64), (3, 17, 9, np.float32), (40, 33, 9, np.float64), (100, 129, 9, np.float32)],
)
def test_annealing_weighs_as_the_reference(n1: int, n2: int, n_chains: int, dtype: Any) -> None:
    rbm, z1 = machine(n1, n2, dtype, scale=3), states(n_chains, n1, dtype)
    for path in ([0.0, 1.0], np.linspace(0, 1, 12) ** 1.5):
        forward = ORACLE.ais(rbm, base_of(rbm), path, n_chains, SEED, CHAIN)
        reverse = ORACLE.reverse_ais(rbm, base_of(rbm), path, z1, SEED, CHAIN)
        for order in ORDERS:
            backend = Emulated(order=order)
            result = backend.ais(rbm, base_of(rbm), path, n_chains, SEED, CHAIN)
            assert result.dtype == np.float64
            np.testing.assert_allclose(result, forward, rtol=1e-13, atol=1e-12)
            back = backend.reverse_ais(rbm, base_of(rbm), path, z1, SEED, CHAIN)
            np.testing.assert_allclose(back, reverse, rtol=1e-13, atol=1e-12)
    whole = backend.ais(rbm, base_of(rbm), path, n_chains, SEED)
    np.testing.assert_array_equal(backend.ais(rbm, base_of(rbm), path, 1, SEED, n_chains - 1), whole[-1:])


@needs_compiler
def test_annealing_keeps_long_products_of_factors() -> None:
    """Logits near 0 all along the way: 1 + e^-|x| is near 2 each time, and their product far beyond double's range."""
    rbm = machine(3, 40, np.float32, scale=1e-3)._replace(a2=np.full(40, 1e-3, np.float32))
    path, base = np.linspace(0, 1, 400), (np.zeros(3, np.float32), np.zeros(40, np.float32))
    expected = ORACLE.ais(rbm, base, path, 2, SEED)
    np.testing.assert_allclose(Emulated().ais(rbm, base, path, 2, SEED), expected, rtol=1e-12)


@needs_compiler
@pytest.mark.parametrize(
    ("n1", "n2", "n_replicas", "n_chains", "dtype"),
    [(3, 17, 1, 9, np.float32), (40, 33, 3, 7, np.float64), (33, 50, 12, 3, np.float32)],
)
def test_tempering_does_as_the_reference(n1: int, n2: int, n_replicas: int, n_chains: int, dtype: Any) -> None:
    rbm = machine(n1, n2, dtype, scale=3)
    ladder = np.linspace(0, 1, n_replicas + 1)[1:]
    first = ORACLE.tempering(rbm, ladder, n_chains, 4, SEED, sweeps_per_round=2)
    second = ORACLE.tempering(rbm, ladder, n_chains, 3, SEED, 4, first.z1, sweeps_per_round=2)
    assert n_replicas == 1 or first.n_accepted.sum() > 0
    for order in ORDERS:
        backend = Emulated(order=order)
        result = backend.tempering(rbm, ladder, n_chains, 4, SEED, sweeps_per_round=2)
        assert_same(result, first)
        assert_same(backend.tempering(rbm, ladder, n_chains, 3, SEED, 4, result.z1, sweeps_per_round=2), second)


BARRIER = "    __syncthreads();\n    if (!owns) return;"


@needs_compiler
@pytest.mark.parametrize(
    "edit",
    [
        ("round < 10", "round < 9"),  # of Philox
        ("fmaf(low * 4.0f, scale.unit, bias)", "bias"),
        ("high * 0x1p14f", "high * 16384.3f"),
        (BARRIER, "    if (!owns) return;"),
    ],
)
def test_mistakes_change_bits(edit: tuple[str, str]) -> None:
    """A missing barrier changes them in one order of threads at least."""
    assert any(n_bits_off(Emulated(order=order, edits=(edit,))) for order in ORDERS)


@needs_compiler
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            (BARRIER, "    if (threadIdx.x != 5) __syncthreads();\n    if (!owns) return;"),
            "wait for each other for ever",
        ),
        (("return as_half(high);", "return as_half(coupling);"), "was rounded"),
        (("block_chains * P::STATES1;\n\n", "block_chains * (P::STATES1 + 1);\n\n"), "outside of its shared memory"),
    ],
)
def test_the_emulation_reports(edit: tuple[str, str], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        n_bits_off(Emulated(edits=(edit,)))


def test_every_machine_that_stays_on_a_multiprocessor_fits() -> None:
    a100, h100 = 163 * 1024, 227 * 1024
    for n1 in (1, 100, 208, RESIDENT_UNITS):
        for n2 in (1, 100, 208, RESIDENT_UNITS):
            for device in (a100, h100):
                assert fits(n1, n2, device)
                for n_chains in (1, 1000, 5000, 65536, 10**6):
                    plan = resident_plan(n1, n2, n_chains, 108, device)
                    assert plan.shared_bytes < device
                    assert plan.n_threads <= 512
    assert not fits(RESIDENT_UNITS + 1, 1, h100)


def test_chains_are_spread_evenly() -> None:
    def of(n_chains: int) -> tuple[str, int]:
        plan = resident_plan(200, 200, n_chains, 132, 227 * 1024)
        return plan.expression, plan.n_blocks

    assert of(1000) == ("gibbs<13, 13, 1, 10>", 125)  # 8 chains a block
    assert of(4096) == ("gibbs<13, 13, 2, 7>", 128)  # 32
    assert of(65536) == ("gibbs<13, 13, 2, 7>", 1024)  # 64, in 8 waves of 132


def test_arguments_that_do_not_fit() -> None:
    rbm, z1, backend = machine(5, 7, np.float32), states(3, 5, np.float32), Emulated()
    with pytest.raises(TypeError, match="z1 must be an array on a CUDA device"):
        backend.gibbs(rbm, memoryview_like(z1), 1, SEED, STEP)
    with pytest.raises(TypeError, match="z1 must be float32, the dtype of the machine; got float64"):
        backend.gibbs(rbm, z1.astype(np.float64), 1, SEED, STEP)
    with pytest.raises(TypeError, match=r"step must be a number or one int64 on the device; got float64"):
        backend.gibbs(rbm, z1, 1, SEED, np.array([1.0]))
    with pytest.raises(ShapeError, match=r"step must be a number or one int64 on the device; got \(2,\)"):
        backend.gibbs(rbm, z1, 1, SEED, np.array([1, 2]))
    with pytest.raises(DomainError, match="step must"):
        backend.gibbs(rbm, z1, 1, SEED, -1)
    with pytest.raises(ShapeError, match=r"out\[1\] must be \(3, 7\); got \(3, 5\)"):
        backend.gibbs(rbm, z1, 1, SEED, STEP, out=(z1, z1))
    with pytest.raises(TypeError, match=r"out\[0\] must be C-contiguous; its strides are \(4, 12\)"):
        backend.gibbs(rbm, z1, 1, SEED, STEP, out=(np.asfortranarray(z1), np.empty((3, 7), np.float32)))
    with pytest.raises(ShapeError, match="z1 must have a row for each replica and chain, 4"):
        backend.tempering(rbm, [0.5, 1.0], 2, 1, SEED, z1=z1)
    with pytest.raises(DomainError, match="inv_temps must be few enough"):
        backend.tempering(rbm, np.linspace(0, 1, 10**5), 1, 1, SEED)
    with pytest.raises(DomainError, match="at most 8192 units"):
        backend.gibbs(
            Machine(*(np.zeros(n, np.float32) for n in (8193, 1, (8193, 1)))), states(1, 8193, np.float32), 1, 0, 0
        )
    large = Machine(*(np.zeros(n) for n in (250_000, 1, (250_000, 1))))
    for operation in (
        lambda: backend.gibbs(large, np.zeros((1, 250_000)), 1, 0, 0),
        lambda: backend.ais(large, (large.a1, large.a2), [0.0, 1.0], 1, 0),
    ):
        with pytest.raises(DomainError, match=r"states of 8 chains fit one block; 250000 \+ 1 units need 250048 bytes"):
            operation()


def memoryview_like(array: Any) -> Any:
    """An array of another library that does not live on a device."""

    class Foreign:
        shape, dtype = array.shape, array.dtype

    return Foreign()


@pytest.fixture(scope="module")
def real() -> Any:
    """The backend on a real device, skipped with its own reason."""
    try:
        return accelerated.load("cupy_raw")
    except accelerated.BackendUnavailable as error:
        pytest.skip(str(error))


def on_device(backend: Any, value: Any) -> Any:
    return type(value)(*map(backend.asarray, value)) if isinstance(value, Machine) else backend.asarray(value)


@pytest.mark.gpu
@pytest.mark.parametrize(("n1", "n2"), [(1, 1), (17, 3), (100, 100), (129, 200), (200, 200), (224, 224), (1000, 129)])
@pytest.mark.parametrize("n_chains", [1, 1000, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gibbs_on_a_device(real: Any, n1: int, n2: int, n_chains: int, dtype: Any) -> None:
    rbm, z1 = machine(n1, n2, dtype, scale=3), states(n_chains, n1, dtype)
    result = real.gibbs(on_device(real, rbm), real.asarray(z1), 1, SEED, STEP, CHAIN)
    expected = ORACLE.gibbs(rbm, z1, 1, SEED, STEP, CHAIN)
    n_wrong = sum(int((real.to_numpy(mine) != theirs).sum()) for mine, theirs in zip(result, expected, strict=True))
    # Draws whose uniform lies within 1e-5 of its probability: none is expected to differ, a few may.
    assert n_wrong <= (0 if dtype == np.float64 else 2 + 1e-5 * n_chains * (n1 + n2))


@pytest.mark.gpu
def test_many_chains_on_a_device_are_the_same_chains(real: Any) -> None:
    rbm, z1 = on_device(real, machine(200, 200, np.float32)), real.asarray(states(65536, 200, np.float32))
    whole = real.gibbs(rbm, z1, 40, SEED, STEP)
    part = real.gibbs(rbm, z1[60000:60100], 40, SEED, STEP, first_chain=60000)
    assert_same([real.to_numpy(one) for one in part], [real.to_numpy(one[60000:60100]) for one in whole])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_annealing_and_tempering_on_a_device(real: Any, dtype: Any) -> None:
    rbm, z1 = machine(200, 129, dtype, scale=3), states(100, 200, dtype)
    device, base = on_device(real, rbm), base_of(rbm)
    device_base = tuple(map(real.asarray, base))
    path = np.linspace(0, 1, 101)
    forward = real.to_numpy(real.ais(device, device_base, path, 100, SEED))
    np.testing.assert_allclose(forward, ORACLE.ais(rbm, base, path, 100, SEED), atol=1e-9)
    reverse = real.to_numpy(real.reverse_ais(device, device_base, path, real.asarray(z1), SEED))
    np.testing.assert_allclose(reverse, ORACLE.reverse_ais(rbm, base, path, z1, SEED), atol=1e-9)
    ladder = np.linspace(0, 1, 16)
    result = real.tempering(device, ladder, 20, 10, SEED)
    assert_same([real.to_numpy(part) for part in result], ORACLE.tempering(rbm, ladder, 20, 10, SEED))


@pytest.mark.gpu
@pytest.mark.parametrize("n1", [200, 1000])
def test_a_captured_graph_goes_on_by_the_step_in_memory(real: Any, n1: int) -> None:
    torch = pytest.importorskip("torch")
    import cupy

    rbm = on_device(real, machine(n1, 100, np.float32))
    z1, z2 = (torch.zeros(64, n, device="cuda") for n in (n1, 100))
    step = torch.zeros(1, dtype=torch.int64, device="cuda")
    expected, _ = real.gibbs(rbm, z1, 6, SEED, 0)

    def advance() -> None:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            real.gibbs(rbm, z1, 2, SEED, step, out=(z1, z2))
        step.add_(2)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        advance()  # compiles, and sets up scratch memory of this stream
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        advance()
    z1.zero_(), step.zero_()
    for _ in range(3):
        graph.replay()
    np.testing.assert_array_equal(z1.cpu().numpy(), real.to_numpy(expected))


@pytest.mark.gpu
def test_host_arrays_are_refused(real: Any) -> None:
    rbm = machine(5, 7, np.float32)
    with pytest.raises(TypeError, match=r"z1 must be an array on a CUDA device; got numpy.ndarray. Move it with"):
        real.gibbs(on_device(real, rbm), states(3, 5, np.float32), 1, SEED, STEP)
