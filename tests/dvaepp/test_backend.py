"""Which backend is chosen, what the commands say about it, and what a record keeps."""

import sys
import types

import pytest
import torch

import accelerated
from dvaepp import backend
from dvaepp.backend import Choice, choose, choose_again
from dvaepp.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def only(monkeypatch):
    """Make ``accelerated`` offer the given backends: a string is why one cannot run, else its device and operations."""

    def install(**backends):
        def load(name):
            found = backends.get(name, "unknown here")
            if isinstance(found, str):
                raise accelerated.BackendUnavailable(f"backend {name!r} cannot run here: {found}\nand more")
            device, operations = found
            return types.SimpleNamespace(name=name, device=device, operations=lambda: operations)

        monkeypatch.setattr(accelerated, "load", load)
        monkeypatch.setattr(accelerated, "names", lambda: tuple(sorted(backends)))
        backend.load.cache_clear()

    yield install
    backend.load.cache_clear()


ALL = accelerated.protocol.OPERATIONS


def test_the_fastest_that_runs(only):
    only(cupy_raw="no CuPy", numba_cuda=("cuda", ALL), numba_cpu=("cpu", ALL), numpy_oracle=("cpu", ALL))
    assert str(choose("auto", CPU)) == "backend: numba_cpu"
    assert str(choose("auto", CUDA)) == "backend: numba_cuda (cupy_raw cannot run here: no CuPy)"
    found = accelerated.fastest("cuda")
    assert found.backend.name == "numba_cuda"
    assert found.reasons == {"cupy_raw": "backend 'cupy_raw' cannot run here: no CuPy"}


def test_torch_where_nothing_else_runs_and_why(only):
    only(cupy_raw="no CuPy", numba_cuda="no device", numba_cpu="No module named 'numba'", numpy_oracle=("cpu", ALL))
    assert str(choose("auto", CPU)) == "backend: torch (numba_cpu cannot run here: No module named 'numba')"
    line = "backend: torch (cupy_raw cannot run here: no CuPy; numba_cuda cannot run here: no device)"
    assert str(choose("auto", CUDA)) == line
    assert accelerated.fastest("cpu").backend is None
    assert choose("torch", CUDA) == Choice("torch")


def test_a_backend_that_lacks_an_operation_is_passed_over(only):
    only(cupy_raw=("cuda", ALL - {"ais", "tempering"}), numba_cuda=("cuda", ALL - {"importance_log_mean"}))
    assert str(choose("auto", CUDA)) == "backend: numba_cuda (cupy_raw lacks ais, tempering)"
    with pytest.raises(ConfigError, match="backend 'cupy_raw' lacks ais, tempering; use --backend auto"):
        choose("cupy_raw", CUDA)
    assert accelerated.fastest("cuda").backend is None  # which asks for every operation there is
    assert accelerated.fastest("cuda", {"gibbs"}).backend.name == "cupy_raw"


def test_what_was_asked_for_is_used_or_refused(only):
    only(numba_cuda="no device", numba_cpu=("cpu", ALL), numpy_oracle=("cpu", ALL))
    assert str(choose("numpy_oracle", CPU)) == "backend: numpy_oracle"
    for name, device, message in (
        ("numba_cuda", CUDA, "^backend 'numba_cuda' cannot run here: no device; use --backend auto$"),
        ("numba_cpu", CUDA, "backend 'numba_cpu' runs on cpu, not on cuda; see --device"),
        ("numba_cpx", CPU, "unknown backend 'numba_cpx'; did you mean 'numba_cpu'?"),
        ("troch", CPU, "did you mean 'torch'?"),
        ("", CPU, "unknown backend ''"),
    ):
        with pytest.raises(ConfigError, match=message):
            choose(name, device)


def test_a_run_goes_on_with_what_it_used(only):
    only(numba_cuda="no device", numba_cpu=("cpu", ALL), numpy_oracle=("cpu", ALL))
    assert choose_again("auto", "numpy_oracle", CPU) == Choice("numpy_oracle")
    assert choose_again("auto", "torch", CPU) == Choice("torch")
    assert choose_again("torch", "numba_cpu", CPU) == Choice("torch")
    assert choose_again("auto", "numba_cuda", CPU) == Choice("numba_cpu")  # the run came here from another machine
    with pytest.raises(ConfigError, match="cannot run here"):
        choose_again("numba_cuda", "torch", CPU)


def test_an_unknown_device_has_no_fastest_backend():
    with pytest.raises(ValueError, match="device must be one of cpu, cuda; got 'tpu'"):
        accelerated.fastest("tpu")


def test_the_preferred_are_backends_of_their_device():
    """Those that exist in this tree, in particular: a file that is renamed must be renamed in the list too."""
    preferred = [name for names in accelerated.FASTEST_FIRST.values() for name in names]
    assert set(preferred) <= set(accelerated.names())
    for device, names in accelerated.FASTEST_FIRST.items():
        for name in names:
            try:
                assert accelerated.load(name).device == device
            except accelerated.BackendUnavailable:
                continue


def test_without_numba_training_still_runs_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith(("accelerated.backends.numba", "accelerated.cpu"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name in ("accelerated.jit", "accelerated.scalar")]:
        monkeypatch.delitem(sys.modules, name)
    line = str(choose("auto", CPU))
    assert line.startswith("backend: torch (numba_cpu cannot run here: ")
    assert "numba" in line.removeprefix("backend: torch (numba_cpu")
