"""The registry of backends: found by their files, chosen by name, and nothing in their place if they cannot run."""

import subprocess
import sys
import types

import numpy as np
import pytest

import accelerated
from accelerated import Backend, BackendUnavailable
from accelerated.protocol import OPERATIONS


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


@pytest.mark.parametrize("name", accelerated.names())
def test_every_backend_runs_here_or_says_why_not(name):
    """The one place where a backend that cannot run is skipped, with its reason; see ``conftest.py``."""
    try:
        backend = accelerated.load(name)
    except BackendUnavailable as reason:
        pytest.skip(str(reason))
    assert isinstance(backend, Backend)
    assert backend.name == name
    assert backend.device in ("cpu", "cuda")
    assert backend.operations() <= OPERATIONS
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    returned = backend.to_numpy(backend.asarray(array))
    assert type(returned) is np.ndarray
    assert returned.dtype == np.float32
    np.testing.assert_array_equal(returned, array)


def test_the_protocol_lists_its_operations():
    methods = {name for name in vars(Backend) if not name.startswith("_")}
    assert methods - {"name", "device", "operations", "asarray", "to_numpy"} == OPERATIONS


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


def test_the_package_does_not_import_torch():
    code = (
        "import sys, accelerated\n"
        "for name in accelerated.names():\n"
        "    try:\n"
        "        accelerated.load(name)\n"
        "    except accelerated.BackendUnavailable:\n"
        "        pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
