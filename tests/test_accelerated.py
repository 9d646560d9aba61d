"""The registry of backends, and the reference behind the common interface."""

import subprocess
import sys
import types

import numpy as np
import pytest

import accelerated
from accelerated import Backend, BackendUnavailable
from reference.gibbs import PersistentChains
from reference.vocabulary import RBM, DomainError, ShapeError


@pytest.fixture
def machine():
    rng = np.random.default_rng(0)
    return RBM(rng.normal(size=5), rng.normal(size=7), rng.normal(size=(5, 7)))


def add_backend(monkeypatch, tmp_path, name, source):
    """Drop a file beside the real backends, as far as the import system can tell."""
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(accelerated.backends, "__path__", [*accelerated.backends.__path__, str(tmp_path)])
    # Set first, so that what load() imports is removed again afterwards.
    monkeypatch.setitem(sys.modules, f"accelerated.backends.{name}", types.ModuleType(name))
    del sys.modules[f"accelerated.backends.{name}"]


def test_a_backend_is_found_by_its_file_and_loaded_by_its_name():
    assert "numpy_oracle" in accelerated.names()
    assert list(accelerated.names()) == sorted(accelerated.names())
    backend = accelerated.load("numpy_oracle")
    assert isinstance(backend, Backend)
    assert backend.name == "numpy_oracle"
    assert all(callable(getattr(backend, operation)) for operation in backend.operations())


def test_adding_a_backend_is_adding_a_file(monkeypatch, tmp_path):
    add_backend(monkeypatch, tmp_path, "dropped_in", "def create():\n    return 'made here'\n")
    assert "dropped_in" in accelerated.names()
    assert accelerated.load("dropped_in") == "made here"


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(BackendUnavailable, match="unknown backend 'numpy_oracel'; did you mean 'numpy_oracle'"):
        accelerated.load("numpy_oracel")
    with pytest.raises(BackendUnavailable, match=r"unknown backend 'xyz'; there are: .*numpy_oracle"):
        accelerated.load("xyz")


def test_a_backend_that_cannot_run_says_why(monkeypatch, tmp_path):
    add_backend(monkeypatch, tmp_path, "needs_library", "import a_library_nobody_has\n")
    add_backend(
        monkeypatch,
        tmp_path,
        "needs_device",
        "from accelerated import BackendUnavailable\n"
        "def create():\n"
        "    raise BackendUnavailable(\"backend 'needs_device' cannot run here: no device\")\n",
    )
    with pytest.raises(BackendUnavailable, match="'needs_library' cannot run here: No module named 'a_library_nobody"):
        accelerated.load("needs_library")
    with pytest.raises(BackendUnavailable, match="'needs_device' cannot run here: no device"):
        accelerated.load("needs_device")


def test_the_oracle_is_the_reference_and_continues_a_chain(machine):
    backend = accelerated.load("numpy_oracle")
    start = PersistentChains.init(machine, 6, seed=3)
    expected = start.run(machine, 9)
    z1, _ = backend.gibbs(machine, start.z1, n_sweeps=5, seed=3, step=0)
    z1, z2 = backend.gibbs(machine, z1, n_sweeps=4, seed=3, step=5)
    np.testing.assert_array_equal(z1, expected.z1)
    np.testing.assert_array_equal(z2, expected.z2)


def test_the_oracle_refuses_what_the_reference_refuses(machine):
    backend = accelerated.load("numpy_oracle")
    z1 = np.zeros((2, 5))
    with pytest.raises(DomainError, match="n_sweeps must be a whole number of at least 1; got 0"):
        backend.gibbs(machine, z1, 0, 0, 0)
    with pytest.raises(ShapeError, match=r"z1 must be \(B, 5\)"):
        backend.gibbs(machine, np.zeros((2, 7)), 1, 0, 0)
    with pytest.raises(DomainError, match="z1 must be 0 or 1"):
        backend.gibbs(machine, z1 + np.nan, 1, 0, 0)
    with pytest.raises(DomainError, match="seed must lie in"):
        backend.gibbs(machine, z1, 1, -1, 0)


def test_the_package_does_not_import_torch():
    code = "import sys, accelerated; [accelerated.load('numpy_oracle')]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
