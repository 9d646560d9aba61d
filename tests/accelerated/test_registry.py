"""The registry of backends: found by their files, chosen by name, and nothing in their place if they cannot run."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import accelerated
from accelerated import Backend, BackendUnavailable
from accelerated.backends.numpy_oracle import NumpyOracle
from accelerated.protocol import OPERATIONS
from dvaepp.backend import choose
from dvaepp.errors import ConfigError

BROKEN = "tests.validation.broken_backends"
ROOT = Path(__file__).parents[2]


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
    add_backend(monkeypatch, tmp_path, "dropped_in", "from tests.validation.broken_backends import few as create\n")
    assert "dropped_in" in accelerated.names()
    assert "dropped_in" in accelerated.own_names()
    assert accelerated.load("dropped_in").operations() == {"entropy"}


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


# ---- anybody's backends ----------------------------------------------------------------------------------------------


def install(path, **entries):
    """A package that announces backends, as far as ``importlib.metadata`` can tell, for a folder on sys.path."""
    metadata = path / "foreign-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[dvaepp.backends]", *lines, ""]))


def test_an_installed_package_announces_backends(monkeypatch, tmp_path):
    (tmp_path / "foreign_backends.py").write_text(
        "from accelerated.backends.numpy_oracle import NumpyOracle\n"
        "class Mine(NumpyOracle):\n    name = 'mine'\n"
        "class here:\n    instance = Mine()\n"
    )
    install(tmp_path, mine="foreign_backends:Mine", made="foreign_backends:here.instance", gone="no_module_of_theirs:x")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"mine", "made", "gone", "numpy_oracle"} <= set(accelerated.names())
    assert not {"mine", "made", "gone"} & set(accelerated.own_names())
    assert list(accelerated.names()) == sorted(accelerated.names())
    assert "foreign_backends" not in sys.modules  # to list them is not to import them
    assert accelerated.load("mine").name == "mine"
    assert accelerated.load("made") is accelerated.load("foreign_backends:here.instance")
    with pytest.raises(
        BackendUnavailable,
        match=r"^backend 'gone' cannot run here: there is no module 'no_module_of_theirs' to import$",
    ):
        accelerated.load("gone")
    with pytest.raises(BackendUnavailable, match="unknown backend 'mien'; did you mean 'mine'"):
        accelerated.load("mien")
    del sys.modules["foreign_backends"]


def test_a_name_that_stands_for_two_backends_is_refused(monkeypatch, tmp_path):
    install(tmp_path, numpy_oracle="foreign_backends:Mine")
    monkeypatch.syspath_prepend(tmp_path)
    assert accelerated.names().count("numpy_oracle") == 1
    ours = "accelerated.backends.numpy_oracle:create"
    message = f"^there are 2 backends 'numpy_oracle'; say which: {ours} or foreign_backends:Mine$"
    with pytest.raises(BackendUnavailable, match=message):
        accelerated.load("numpy_oracle")
    assert type(accelerated.load(ours)) is NumpyOracle


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_package:create", "there is no module 'no_package' to import"),
        (f"{BROKEN}.deeper:create", f"there is no module '{BROKEN}.deeper' to import"),
        (f"{BROKEN}:raisin", f"{BROKEN} has no attribute 'raisin'; did you mean 'raising'?"),
        (f"{BROKEN}:raising.teeth", f"{BROKEN}.raising has no attribute 'teeth'"),
        (f"{BROKEN}:", "must be module:object with dotted names"),
        (":create", "must be module:object with dotted names"),
        ("a b:create", "must be module:object with dotted names"),
        (f"{BROKEN}:needy", "cannot run here: No module named 'a_library_nobody_has'"),
        (f"{BROKEN}:unavailable", "cannot run here: no device"),
        (f"{BROKEN}:made_of_text", "is no backend: str has no name, device, operations, asarray, to_numpy"),
        (f"{BROKEN}:nameless", "is no backend: nameless has no name, to_numpy"),
        (f"{BROKEN}:without_device", "is no backend: without_device has no device"),
    ],
)
def test_what_is_no_backend_is_refused_in_one_line(name, message):
    with pytest.raises(BackendUnavailable) as refusal:
        accelerated.load(name)
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_what_foreign_code_raises_is_passed_on():
    with pytest.raises(ValueError, match="this backend is never made"):
        accelerated.load(f"{BROKEN}:unwilling")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        accelerated.load(f"{BROKEN}:demanding")


def test_the_list_of_backends_survives_a_foreign_one_that_raises(tmp_path):
    install(tmp_path, unwilling=f"{BROKEN}:unwilling", few=f"{BROKEN}:few")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    listed = subprocess.run(
        [sys.executable, "-m", "accelerated"], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "backend 'unwilling' raises ValueError: this backend is never made" in listed
    assert "backend 'few' runs here, on cpu" in listed


def test_training_takes_anybodys_backend():
    name = "accelerated.backends.numpy_oracle:NumpyOracle"
    assert choose(name, torch.device("cpu")).name == name
    for wrong, message in {
        f"{BROKEN}:few": "lacks ais, cross_entropy, .*, reverse_ais, tempering; use --backend auto",
        "no_package:create": "there is no module 'no_package' to import; use --backend auto",
        "numba_cpx": "unknown backend 'numba_cpx'; did you mean 'numba_cpu'?",
    }.items():
        with pytest.raises(ConfigError, match=message):
            choose(wrong, torch.device("cpu"))
