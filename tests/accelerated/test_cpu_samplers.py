"""Samplers of ``numba_cpu``: bits, weights and exchanges against the oracle; threads, splits, forks; the code cache."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import accelerated
from accelerated import jit
from accelerated.backends.numba_cpu import NumbaCpu
from accelerated.cpu import tables, threads
from accelerated.cpu.philox import fill_uniforms
from accelerated.protocol import Machine
from reference import philox
from reference.bernoulli import sigmoid
from reference.vocabulary import DomainError, ShapeError

SIZES = [(1, 1), (3, 17), (17, 3), (100, 100), (129, 1), (48, 129), (1000, 100), (100, 1000)]
DTYPES = [np.float32, np.float64]
PATH = np.linspace(0, 1, 9)
LADDER = np.array([0.0, 0.3, 0.7, 1.0])


@pytest.fixture(scope="module")
def oracle():
    return accelerated.load("numpy_oracle")


@pytest.fixture
def backend():
    return NumbaCpu(n_threads=2)


def machine(n1, n2, dtype, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return Machine(
        rng.normal(size=n1).astype(dtype),
        rng.normal(size=n2).astype(dtype),
        (rng.normal(size=(n1, n2)) * scale / np.sqrt(max(n1, n2))).astype(dtype),
    )


def states(n_rows, n_units, dtype, seed=0):
    return (np.random.default_rng(seed).random((n_rows, n_units)) < 0.5).astype(dtype)


def base_of(rbm, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=rbm.a1.shape).astype(rbm.a1.dtype), rng.normal(size=rbm.a2.shape).astype(rbm.a1.dtype)


def in_band(given, weights, bias, u, dtype):
    """Units whose uniform lies so near to the probability that rounding may decide.

    Couplings are off by at most 2**-30 (2**-50) of the sum of all |W| into the unit each; the slope, the sum, the
    offset and their fused sum have a rounding each, half an eps of (|a| + sum of |W|); 2**t and the comparison 4 eps.
    """
    eps, grid = (2.0**-23, 2.0**-30) if dtype == np.float32 else (2.0**-52, 2.0**-50)
    weights, bias = weights.astype(np.float64), bias.astype(np.float64)
    size = np.abs(weights).sum(axis=0)
    shift = len(weights) * grid * size + 2 * eps * (np.abs(bias) + size) + 4 * eps
    x = bias + given.astype(np.float64) @ weights
    return np.abs(np.log(u) - np.log1p(-u) - x) <= shift


def check_sweep(rbm, z1, got, seed, step, first_chain=0):
    """One sweep's bits: z2 given z1, then z1 given the z2 that was drawn."""
    (new1, new2), n, dtype = got, len(z1), z1.dtype.type
    for given, weights, bias, drawn, stream in (
        (z1, rbm.W, rbm.a2, new2, philox.STREAM_Z2),
        (new2, rbm.W.T, rbm.a1, new1, philox.STREAM_Z1),
    ):
        u = philox.uniforms(seed, step, n, len(bias), stream, first_chain)
        x = bias.astype(np.float64) + given.astype(np.float64) @ weights.astype(np.float64)
        wrong = drawn != (u < sigmoid(x))
        near = in_band(given, weights, bias, u, dtype)
        assert not (wrong & ~near).any()
        assert near.mean() < 1e-2  # the band is no excuse
        assert set(np.unique(drawn)) <= {0, 1}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_one_sweep_is_the_references(backend, sizes, dtype):
    rbm, z1 = machine(*sizes, dtype, scale=3), states(7, sizes[0], dtype)
    seed, step, first_chain = 2**63 + 11, 2**40 + 3, 2**32 - 7
    got = backend.gibbs(rbm, z1, 1, seed, step, first_chain)
    assert got[0].dtype == got[1].dtype == dtype
    check_sweep(rbm, z1, got, seed, step, first_chain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_parameters_leave_no_doubt(backend, dtype):
    rbm = machine(20, 30, dtype)
    signs = np.where(np.arange(20) % 2, 1e4, -1e4).astype(dtype), np.where(np.arange(30) % 3, 1e4, -1e4).astype(dtype)
    z1, z2 = backend.gibbs(rbm._replace(a1=signs[0], a2=signs[1]), states(9, 20, dtype), 3, 0, 0)
    assert (z1 == (signs[0] > 0)).all()
    assert (z2 == (signs[1] > 0)).all()
    largest = np.finfo(dtype).max
    z1, _ = backend.gibbs(rbm._replace(a1=np.full(20, largest, dtype)), states(9, 20, dtype), 1, 0, 0)
    assert (z1 == 1).all()
    strong = rbm._replace(W=np.full((20, 30), -largest / 64, dtype))
    _, z2 = backend.gibbs(strong, np.ones((9, 20), dtype), 1, 0, 0)
    assert (z2 == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_chain_is_continued_and_split(backend, dtype):
    rbm, z1 = machine(17, 50, dtype), states(37, 17, dtype)
    whole = backend.gibbs(rbm, z1, 9, 5, 100)
    half, _ = backend.gibbs(rbm, z1, 4, 5, 100)
    for expected, got in zip(whole, backend.gibbs(rbm, half, 5, 5, 104), strict=True):
        np.testing.assert_array_equal(got, expected)
    for start, stop in ((0, 1), (1, 30), (30, 37)):
        part = backend.gibbs(rbm, z1[start:stop], 9, 5, 100, first_chain=start)
        for expected, got in zip(whole, part, strict=True):
            np.testing.assert_array_equal(got, expected[start:stop])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_on_where_tables_lie(backend, dtype, monkeypatch):
    monkeypatch.setattr("accelerated.cpu.samplers._WORK", 1)
    rbm, z1 = machine(130, 241, dtype), states(41, 130, dtype)
    base = base_of(rbm)

    def everything(n_threads):
        backend.n_threads = n_threads
        tempered = backend.tempering(rbm, LADDER, 11, 3, 4)
        ais = backend.ais(rbm, base, PATH, 21, 6), backend.reverse_ais(rbm, base, PATH, z1, 6)
        return [*backend.gibbs(rbm, z1, 2, 1, 0), *tempered, *ais]

    expected = everything(1)
    for n_threads in (2, 5):
        for one, other in zip(expected, everything(n_threads), strict=True):
            np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(tables, "_TABLE_BYTES", 0)
    for one, other in zip(expected, everything(2), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1), (3, 17), (30, 41), (9, 700)])
def test_weights_are_the_oracles(backend, oracle, sizes, dtype):
    rbm, z1 = machine(*sizes, dtype), states(6, sizes[0], dtype)
    base, bound = base_of(rbm), 1e-6 if dtype == np.float32 else 1e-10
    for first_chain in (0, 7):
        got = backend.ais(rbm, base, PATH, 6, 3, first_chain)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, oracle.ais(rbm, base, PATH, 6, 3, first_chain), rtol=0, atol=bound)
        got = backend.reverse_ais(rbm, base, PATH, z1, 3, first_chain)
        np.testing.assert_allclose(got, oracle.reverse_ais(rbm, base, PATH, z1, 3, first_chain), rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_large_parameters_in_one_step(backend, oracle, dtype):
    """No sweep, so that the bits are those of the base; 700 units whose factors must not overflow."""
    rbm, base = machine(20, 700, dtype), (np.zeros(20, dtype), np.full(700, -1e4, dtype))
    rbm = rbm._replace(a2=np.full(700, 1e4, dtype))
    got, expected = (one.ais(rbm, base, [0, 1], 5, 0) for one in (backend, oracle))
    np.testing.assert_allclose(got, expected, rtol=1e-12 if dtype == np.float64 else 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_replicas", [1, 4, 11])
def test_tempering_is_the_oracles(backend, oracle, n_replicas, dtype):
    rbm, ladder = machine(13, 22, dtype, scale=2), np.linspace(0, 1, n_replicas + 1)[1:]
    got, expected = (one.tempering(rbm, ladder, 9, 6, 8, sweeps_per_round=2) for one in (backend, oracle))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert got.n_accepted.dtype == np.int64
    if n_replicas > 1:
        assert got.n_accepted.sum() > 0
    first = backend.tempering(rbm, ladder, 9, 4, 8, sweeps_per_round=2)
    then = backend.tempering(rbm, ladder, 9, 2, 8, first_round=4, z1=first.z1, sweeps_per_round=2)
    np.testing.assert_array_equal(then.z1, expected.z1)
    np.testing.assert_array_equal(first.n_accepted + then.n_accepted, expected.n_accepted)


def test_uniforms_are_the_references():
    chains = np.array([0, 1, 5, 2**32 - 1, 7, 8, 9, 10] * 2, np.uint32)
    out = np.empty((24, len(chains)), np.float32)
    scratch = np.empty(24, np.uint64), np.empty(len(chains), np.uint64)
    seed, step = 2**64 - 3, 2**56 - 1
    fill_uniforms(np.uint64(seed), step, 255, chains, *scratch, out)
    for column, chain in zip(out.T, chains, strict=True):
        np.testing.assert_array_equal(column, philox.uniforms(seed, step, 1, 24, 255, int(chain), np.float32)[0])


def test_no_chains(backend):
    rbm = machine(5, 6, np.float32)
    z1, z2 = backend.gibbs(rbm, np.zeros((0, 5), np.float32), 3, 0, 0)
    assert z1.shape == (0, 5)
    assert z2.shape == (0, 6)
    assert backend.reverse_ais(rbm, base_of(rbm), PATH, np.zeros((0, 5), np.float32), 0).shape == (0,)


def test_any_strides_are_read_and_out_is_written(backend):
    rbm, z1 = machine(9, 14, np.float32), states(12, 9, np.float32)
    expected = backend.gibbs(rbm, z1, 2, 0, 0)
    strided = Machine(rbm.a1[::-1].copy()[::-1], np.repeat(rbm.a2, 2)[::2], np.asfortranarray(rbm.W))
    out = z1.copy(), np.empty((12, 14), np.float32)
    for one in (
        backend.gibbs(strided, np.asfortranarray(z1), 2, 0, 0),
        backend.gibbs(rbm, np.repeat(z1, 3, axis=1)[:, ::3], 2, 0, 0),
        backend.gibbs(rbm, out[0], 2, 0, 0, out=out),
    ):
        for got, right in zip(one, expected, strict=True):
            np.testing.assert_array_equal(got, right)
    assert one[0] is out[0]
    with pytest.raises(TypeError, match=r"out\[0\] must be C-contiguous"):
        backend.gibbs(rbm, z1, 2, 0, 0, out=(np.asfortranarray(z1), out[1]))
    with pytest.raises(ShapeError, match=r"out\[1\] must be \(12, 14\); got \(11, 14\)"):
        backend.gibbs(rbm, z1, 2, 0, 0, out=(out[0], out[1][:11]))


def test_what_does_not_fit_is_refused(backend):
    rbm, z1 = machine(4, 5, np.float32), np.zeros((3, 4), np.float32)
    with pytest.raises(TypeError, match="z1 must be float32, the dtype of the machine; got float64"):
        backend.gibbs(rbm, z1.astype(np.float64), 1, 0, 0)
    with pytest.raises(DomainError, match=r"z1 must be 0 or 1; entry \(1, 2\) is 0.5"):
        backend.gibbs(rbm, np.where(np.arange(12).reshape(3, 4) == 6, np.float32(0.5), z1), 1, 0, 0)
    with pytest.raises(DomainError, match="W must be finite; entry"):
        backend.gibbs(rbm._replace(W=rbm.W * np.float32(np.nan)), z1, 1, 0, 0)
    with pytest.raises(DomainError, match=r"base\.W must be 0"):
        backend.ais(rbm, rbm, PATH, 3, 0)
    with pytest.raises(ShapeError, match="z1 must have a row for each replica and chain, 8"):
        backend.tempering(rbm, LADDER, 2, 1, 0, z1=z1)
    backend.n_threads = 0
    with pytest.raises(DomainError, match="n_threads must be a whole number of at least 1; got 0"):
        backend.gibbs(rbm, z1, 1, 0, 0)


def test_several_threads_may_call_at_once(backend, monkeypatch):
    monkeypatch.setattr("accelerated.cpu.samplers._WORK", 1)
    rbm, z1 = machine(30, 40, np.float32), states(64, 30, np.float32)
    expected = backend.gibbs(rbm, z1, 5, 0, 0)
    ready = threading.Barrier(6)

    def call(_):
        ready.wait()
        return backend.gibbs(rbm, z1, 5, 0, 0)

    with ThreadPoolExecutor(6) as pool:
        for got in pool.map(call, range(6)):
            for one, right in zip(got, expected, strict=True):
                np.testing.assert_array_equal(one, right)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, sys
import numpy as np
from accelerated.cpu import samplers
samplers._WORK = 1
from accelerated.backends.numba_cpu import NumbaCpu
from accelerated.protocol import Machine
backend = NumbaCpu(3)
rbm, z1 = Machine(*(np.ones(n, np.float32) for n in (8, 9, (8, 9)))), np.zeros((64, 8), np.float32)
before = backend.gibbs(rbm, z1, 3, 0, 0)
child = os.fork()
if child == 0:
    same = all((a == b).all() for a, b in zip(before, backend.gibbs(rbm, z1, 3, 0, 0)))
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_slices_cover_all_rows_once():
    for n, n_threads, grain in ((0, 3, 4), (1, 3, 4), (17, 3, 4), (1000, 7, 1), (8, 2, 4)):
        pieces = threads.slices(n, n_threads, grain)
        assert [i for start, stop in pieces for i in range(start, stop)] == list(range(n))
        assert len(pieces) <= n_threads
        assert all(start % grain == 0 for start, _ in pieces)


def test_what_a_task_raises_is_raised_by_the_caller():
    def fail():
        raise ValueError("from a thread")

    with pytest.raises(ValueError, match="from a thread"):
        threads.run([lambda: 1, fail])
    assert threads.run([lambda: 1, lambda: 2]) == [1, 2]


def test_the_number_of_threads_is_the_environments(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "5")
    assert threads.default_count() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    assert threads.default_count() == 5
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert threads.default_count() >= 1


def test_every_source_is_part_of_the_digest(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("one.py", "inner/two.py"):
        (tmp_path / name).write_text("x = 1\n")
    before = jit.digest(tmp_path)
    (tmp_path / "inner/two.py").write_text("x = 2\n")
    after = jit.digest(tmp_path)
    (tmp_path / "inner/two.py").rename(tmp_path / "inner/three.py")
    assert len({before, after, jit.digest(tmp_path)}) == 3


CALLER = """
from accelerated.jit import jit
from accelerated.callee import one
@jit
def caller():
    return one()
print(caller(), sum(caller.stats.cache_hits.values()))
"""


def test_a_changed_callee_is_compiled_anew(tmp_path):
    """The trap of Numba's own cache: the caller's file has not changed."""
    package, cache = tmp_path / "accelerated", tmp_path / "cache"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jit.py").write_text(Path(jit.__file__).read_text())
    (tmp_path / "caller.py").write_text(CALLER)

    def run(value):
        (package / "callee.py").write_text(f"import numba\n@numba.njit\ndef one():\n    return {value}\n")
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(cache)}
        command = [sys.executable, "-B", str(tmp_path / "caller.py")]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()

    assert run(1) == ["1", "0"]
    assert run(1) == ["1", "1"]  # from the disk
    assert run(2) == ["2", "0"]


def test_without_a_folder_to_write_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(jit.numba.config, "CACHE_DIR", str(tmp_path / "file" / "folder"))
    jit.cache_folder.cache_clear()
    try:
        assert jit.cache_folder() is None
        assert jit.jit(lambda: 3)() == 3
    finally:
        jit.cache_folder.cache_clear()
