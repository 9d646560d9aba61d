"""The kernels of ``numba_cuda`` in the CUDA simulator, at tiny sizes: indices, branches, barriers, one order of sums.

Blocks of three threads, which divide nothing. ``one_thread`` runs the same kernels as Numba types them.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import one_thread
import pytest
from numba import cuda
from numba.cuda.simulator.kernel import FakeCUDAKernel

import accelerated
from accelerated.backends.numba_cuda import NumbaCuda
from accelerated.protocol import EXTRAS, KINDS, DeviceBackend, Machine
from reference.vocabulary import DomainError, ShapeError
from validation import agreement
from validation.accuracy import mixed_errors
from validation.tolerances import ANNEALING_LOG_WEIGHT, TRANSFORM_MIXED_ERROR

SIZES = [(1, 3), (17, 5), (5, 33)]
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)


@pytest.fixture
def backend():
    return NumbaCuda(n_threads=3)


@pytest.fixture
def compiled_backend(monkeypatch):
    monkeypatch.setattr(one_thread.FakeCUDAKernel, "__call__", one_thread.call)
    return NumbaCuda(n_threads=1)


def machine_of(n1, n2, dtype=np.float32):
    rng = np.random.default_rng([n1, n2])
    return Machine(*(rng.normal(size=shape).astype(dtype) for shape in ((n1,), (n2,), (n1, n2))))


def coins(n_rows, n_units, dtype=np.float32):
    return np.random.default_rng([n_rows, n_units]).integers(0, 2, (n_rows, n_units)).astype(dtype)


def biases_of(n1, n2, dtype=np.float32):
    rng = np.random.default_rng([n2, n1])
    return rng.normal(size=n1).astype(dtype), rng.normal(size=n2).astype(dtype)


def on(backend, arrays):
    return (
        type(arrays)(*map(backend.asarray, arrays)) if hasattr(arrays, "_fields") else [*map(backend.asarray, arrays)]
    )


def host(backend, arrays):
    return [backend.to_numpy(array) for array in arrays]


def assert_equal(one, other):
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)


def everything(backend, n1, n2, dtype=np.float32, n_rows=6):
    """All operations but the elementwise one at one size, as one list of host arrays."""
    rng = np.random.default_rng(n1)
    machine, base = on(backend, machine_of(n1, n2, dtype)), on(backend, biases_of(n1, n2, dtype))
    z1, path, upstream = backend.asarray(coins(n_rows, n1, dtype)), [0, 0.25, 0.5, 1], rng.normal(size=n_rows)
    mu, nu = (backend.asarray(rng.random((n_rows, n1 + n2)).astype(dtype)) for _ in range(2))
    n_groups = 2 if (n1 + n2) % 2 == 0 else 1
    results = [
        *backend.gibbs(machine, z1, 2, 7, 2**33 + 1, first_chain=5),
        *backend.tempering(machine, [0.2, 0.5, 1], 3, 3, 9, first_round=1, sweeps_per_round=2),
        backend.ais(machine, base, path, n_rows, 11, first_chain=3),
        backend.reverse_ais(machine, base, path, z1, 2**63 + 1),
        *backend.entropy(backend.asarray(rng.normal(size=(n_rows, n2)).astype(dtype))),
        backend.cross_entropy(machine, mu, nu, n_groups),
        *backend.cross_entropy_gradients(machine, mu, nu, n_groups, backend.asarray(upstream.astype(dtype))),
        *backend.importance_log_mean(backend.asarray(5 * rng.normal(size=(n_rows, n1))))[:3],
    ]
    return host(backend, results)


@dtypes
@pytest.mark.parametrize(("n1", "n2"), SIZES)
def test_samplers_agree_with_the_reference(backend, n1, n2, dtype):
    machine, base = machine_of(n1, n2, dtype), biases_of(n1, n2, dtype)
    z1, path = coins(6, n1, dtype), np.array([0, 0.3, 0.6, 1])
    bound = ANNEALING_LOG_WEIGHT[np.dtype(dtype).name]
    findings = [
        agreement.gibbs_bits(backend, machine, z1, 2, seed=7, step=2**33 + 1, first_chain=5).finding("gibbs"),
        agreement.tempering_chains(backend, machine, np.array([0.2, 0.5, 1]), 3, 3, seed=9).finding("tempering", 0.0),
        agreement.annealing_chains(backend, machine, base, path, 11, n_chains=5).finding("ais", bound),
        agreement.annealing_chains(backend, machine, base, path, 11, z1=z1).finding("reverse", bound),
    ]
    for finding in findings:
        assert finding.holds, finding


def test_exchanges_agree_with_the_reference():
    backend, ladder = NumbaCuda(n_threads=1), np.linspace(0.1, 1, 6)
    chains = agreement.tempering_chains(backend, machine_of(3, 4), ladder, 9, 3, seed=5, first_round=1)
    assert chains.n_excluded == 0
    finding = chains.finding("tempering", 0.0)
    assert finding.holds, finding


@dtypes
@pytest.mark.parametrize(("n_units", "n_groups"), [(4, 1), (22, 2), (18, 3), (6, 6)])
def test_sums_agree_with_the_reference(backend, dtype, n_units, n_groups):
    rng = np.random.default_rng(n_units)
    n1 = n_units // 2 + (n_groups == 3)
    machine = machine_of(n1, n_units - n1, dtype)
    mu, nu = (rng.random((5, n_units)).astype(dtype) for _ in range(2))
    logit_q = (5 * rng.normal(size=(5, n_units))).astype(dtype)
    logit_q[0, :3] = np.inf, -np.inf, 0
    upstream = rng.normal(size=5).astype(dtype)
    findings = [
        *agreement.cross_entropy_disagreements(backend, machine, mu, nu, n_groups, upstream),
        *agreement.entropy_disagreements(backend, logit_q),
        agreement.log_mean_disagreements(backend, 100 * logit_q[1:]),
        agreement.log_mean_disagreements(backend, 100 * logit_q[1:], (1, 3)),
    ]
    for finding in findings:
        assert finding.holds, finding


@dtypes
@pytest.mark.parametrize("kind", KINDS)
def test_transforms_keep_the_bound(backend, kind, dtype):
    rng = np.random.default_rng(0)
    beta = dtype(8)
    rho = np.concatenate([rng.random(8), [0, 1, 0.5, 1e-6, 0.25, 1]]).astype(dtype)
    logit_q = np.concatenate([rng.normal(0, 8, 8), [3, -3, 0, 90, np.inf, -np.inf]]).astype(dtype)
    result = backend.inverse_cdf(kind, backend.asarray(rho), backend.asarray(logit_q), float(beta), EXTRAS)
    found = {name: backend.to_numpy(array) for name, array in result._asdict().items()}
    with np.errstate(divide="ignore"):
        worst = mixed_errors(
            {name: found[name] for name in ("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta")},
            rho, logit_q, np.full_like(rho, beta), kind,
        )  # fmt: skip
    for case in worst.values():
        assert case.mixed_error <= TRANSFORM_MIXED_ERROR, str(case)
    if np.isfinite(found["zeta"]).all():
        oracle = accelerated.load("numpy_oracle").inverse_cdf(kind, rho, logit_q, float(beta), ("log_ratio", "nu"))
        same = found["zeta"] == oracle.zeta  # both belong to the rounded sample
        assert same.mean() > 0.8
        for name in ("log_ratio", "nu"):
            np.testing.assert_allclose(found[name][same], getattr(oracle, name)[same], rtol=4 * np.finfo(dtype).eps)


SIZE = 9, 5  # three groups of four units, the last of one, and two


@functools.cache
def interpreted():
    return everything(NumbaCuda(n_threads=1), *SIZE)


def test_bits_depend_neither_on_threads_nor_on_tiles():
    for n_threads, rows in ((2, 8), (3, 2)):
        assert_equal(interpreted(), everything(NumbaCuda(n_threads, rows), *SIZE))


def test_kernels_as_numba_types_them_give_the_same(compiled_backend, monkeypatch):
    found = everything(compiled_backend, *SIZE)
    numbers = [compiled_backend.asarray(x.astype(np.float32)) for x in (np.linspace(0, 1, 7), np.linspace(-9, 9, 7))]
    smoothed = host(compiled_backend, compiled_backend.inverse_cdf("spike_exponential", *numbers, 5.0, EXTRAS))
    assert one_thread.n_calls > 0
    monkeypatch.undo()
    for x, y in zip(found, interpreted(), strict=True):
        assert x.dtype == y.dtype
        eps = np.finfo(x.dtype).eps if x.dtype.kind == "f" else 0
        np.testing.assert_allclose(x, y, rtol=64 * eps, atol=64 * eps)  # another libm, and other contractions
    backend = NumbaCuda(n_threads=2)
    expected = host(backend, backend.inverse_cdf("spike_exponential", *numbers, 5.0, EXTRAS))
    for x, y in zip(smoothed, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=4 * np.finfo(np.float32).eps)


def test_chains_go_on_and_split_without_a_bit_changing(backend):
    machine, base, z1 = on(backend, machine_of(9, 6)), on(backend, biases_of(9, 6)), coins(7, 9)
    ladder, path = [0.3, 1], [0, 0.5, 1]
    whole = host(backend, backend.gibbs(machine, backend.asarray(z1), 3, 5, 8))
    start = backend.asarray(z1), backend.asarray(np.zeros((7, 6), np.float32))
    half = backend.gibbs(machine, start[0], 1, 5, 8, out=start)
    assert half[0] is start[0]
    step = backend.asarray(np.array(9))
    assert_equal(whole, host(backend, backend.gibbs(machine, half[0], 2, 5, step)))
    parts = [host(backend, backend.gibbs(machine, backend.asarray(z1[a:b]), 3, 5, 8, a)) for a, b in ((0, 3), (3, 7))]
    assert_equal(whole, map(np.concatenate, zip(*parts, strict=True)))

    first = backend.tempering(machine, ladder, 3, 1, 4)
    second = backend.tempering(machine, ladder, 3, 2, 4, first_round=1, z1=first.z1)
    both = backend.tempering(machine, ladder, 3, 3, 4)
    assert_equal(host(backend, both[:2]), host(backend, second[:2]))
    np.testing.assert_array_equal(backend.to_numpy(both.n_accepted), sum(host(backend, (first[2], second[2]))))

    weights = backend.to_numpy(backend.ais(machine, base, path, 7, 3))
    ends = [backend.to_numpy(backend.ais(machine, base, path, n, 3, first)) for n, first in ((2, 0), (5, 2))]
    np.testing.assert_array_equal(weights, np.concatenate(ends))


def test_strides_are_read_as_they_are(backend):
    machine, z1 = machine_of(6, 9), coins(4, 6)
    strided = Machine(
        backend.asarray(np.repeat(machine.a1, 2))[::2],
        backend.asarray(np.repeat(machine.a2, 3))[::3],
        backend.asarray(np.ascontiguousarray(machine.W.T)).T,
    )
    start = backend.asarray(np.repeat(z1, 2, axis=1))[:, ::2]
    expected = backend.gibbs(on(backend, machine), backend.asarray(z1), 2, 1, 0)
    assert_equal(host(backend, expected), host(backend, backend.gibbs(strided, start, 2, 1, 0)))
    rng = np.random.default_rng(0)
    for shape in ((6,), (4, 6), (2, 3, 6), (2, 1, 3, 6)):
        rho, logit_q = rng.random(shape), rng.normal(size=shape)
        expected = backend.inverse_cdf("logistic", backend.asarray(rho), backend.asarray(logit_q), 2.0)
        every_other = backend.asarray(np.repeat(rho, 2, axis=-1))[..., ::2]
        found = backend.inverse_cdf("logistic", every_other, backend.asarray(logit_q), 2.0)
        assert_equal(host(backend, expected[:2]), host(backend, found[:2]))
        np.testing.assert_array_equal(backend.to_numpy(every_other), rho)
    deep = backend.asarray(rng.random((1, 1, 1, 2, 4)))[..., ::2]
    with pytest.raises(ShapeError, match=r"rho must be C-contiguous, for it has more than 4 axes: \(1, 1, 1, 2, 2\)"):
        backend.inverse_cdf("logistic", deep, backend.asarray(np.zeros((1, 1, 1, 2, 2))), 2.0)


def test_nothing_gives_nothing(backend):
    machine, base = on(backend, machine_of(3, 5)), on(backend, biases_of(3, 5))
    none = backend.asarray(np.zeros((0, 3), np.float32))
    posterior = backend.asarray(np.zeros((0, 8), np.float32))
    assert [x.shape for x in host(backend, backend.gibbs(machine, none, 1, 0, 0))] == [(0, 3), (0, 5)]
    assert backend.to_numpy(backend.reverse_ais(machine, base, [0, 1], none, 0)).shape == (0,)
    assert backend.to_numpy(backend.cross_entropy(machine, posterior, posterior, 2)).shape == (0,)
    upstream = backend.asarray(np.zeros(0, np.float32))
    gradients = host(backend, backend.cross_entropy_gradients(machine, posterior, posterior, 2, upstream))
    assert [x.shape for x in gradients] == [(0, 8), (0, 8), (3,), (5,), (3, 5)]
    assert not any(x.any() for x in gradients)
    assert [x.shape for x in host(backend, backend.entropy(none))] == [(0,), (0, 3)]
    assert host(backend, backend.inverse_cdf("power", none, none, 2.0)[:1])[0].shape == (0, 3)
    assert backend.importance_log_mean(none).n_weights == 3


def test_what_does_not_fit_is_refused(backend):
    machine, z1 = on(backend, machine_of(3, 5)), backend.asarray(coins(2, 3))
    with pytest.raises(TypeError, match=r"a1 must be an array on a CUDA device; got numpy\.ndarray\. Move it"):
        backend.gibbs(machine_of(3, 5), z1, 1, 0, 0)
    with pytest.raises(TypeError, match="z1 must be an array; got list"):
        backend.gibbs(machine, [[0, 1, 0]], 1, 0, 0)
    with pytest.raises(TypeError, match="step must be a number or one int64 on the device; got float32"):
        backend.gibbs(machine, z1, 1, 0, backend.asarray(np.zeros(1, np.float32)))
    with pytest.raises(ShapeError, match=r"step must be a number or one int64 on the device; got \(2,\)"):
        backend.gibbs(machine, z1, 1, 0, backend.asarray(np.zeros(2, np.int64)))
    with pytest.raises(DomainError, match="step must be a whole number"):
        backend.gibbs(machine, z1, 1, 0, -1)
    with pytest.raises(ShapeError, match=r"states of 4 chains of 50000 \+ 5 units must fit in the 49152 bytes"):
        backend.gibbs(on(backend, machine_of(50000, 5)), backend.asarray(coins(1, 50000)), 1, 0, 0)
    with pytest.raises(ShapeError, match=r"states of 99 replicas of 3000 \+ 2 units must fit in the 49152 bytes"):
        backend.tempering(on(backend, machine_of(3000, 2)), np.linspace(0, 1, 99), 2, 1, 0)


class Stream:
    """A stream of the caller's that remembers what was launched on it and how often it was waited for."""

    def __init__(self, handle):
        self.handle, self.n_launches, self.n_waits = handle, 0, 0

    def synchronize(self):
        self.n_waits += 1


def test_work_goes_to_the_stream_of_the_caller(monkeypatch):
    backend, streams = NumbaCuda(n_threads=1), {}
    machine, z1 = on(backend, machine_of(3, 5)), backend.asarray(coins(2, 3))
    expected = host(backend, backend.gibbs(machine, z1, 1, 0, 0))
    monkeypatch.setattr(cuda, "external_stream", lambda handle: streams.setdefault(handle, Stream(handle)), False)
    configure = FakeCUDAKernel.__getitem__

    def launch_on(kernel, configuration):
        if configuration[2]:
            configuration[2].n_launches += 1
        return configure(kernel, configuration)

    monkeypatch.setattr(FakeCUDAKernel, "__getitem__", launch_on)
    assert isinstance(backend, DeviceBackend)
    with backend.on_stream(7):
        found = backend.gibbs(machine, z1, 1, 0, 0)
        assert streams[7].n_launches == 5  # two biases, twice the couplings, the sweeps
        assert streams[7].n_waits == 0
        with backend.on_stream(8):
            assert backend.launch_stream().handle == 8
        with pytest.raises(TypeError), backend.on_stream(9):
            backend.entropy([1.0])
        assert_equal(host(backend, found), expected)
        assert streams[7].n_waits == 2
        with ThreadPoolExecutor(1) as another:  # a thread has a stream of its own
            assert another.submit(backend.launch_stream).result() == 0
    assert backend.launch_stream() == 0
    backend.gibbs(machine, z1, 1, 0, 0)
    assert streams[7].n_launches == 5


def test_memory_is_allocated_once():
    backend = NumbaCuda(n_threads=1)
    machine, z1 = on(backend, machine_of(3, 5)), backend.asarray(coins(2, 3))
    out = backend.gibbs(machine, z1, 1, 0, 0)
    allocate = cuda.device_array
    try:
        cuda.device_array = None  # a captured graph must not allocate
        backend.gibbs(machine, z1, 1, 0, 1, out=out)
    finally:
        cuda.device_array = allocate
