"""``python -m accelerated``: a line for each backend, and kernels compiled beforehand."""

import subprocess
import sys

import pytest

import accelerated
from accelerated.precompile import compile_kernels


def test_every_backend_has_a_line_that_says_whether_it_runs_and_why_not():
    done = subprocess.run([sys.executable, "-m", "accelerated"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(accelerated.names())
    for name, line in zip(accelerated.names(), lines, strict=True):
        assert line.startswith(f"backend '{name}' ")
        assert " runs here, on " in line or " cannot run here: " in line


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_compiled_beforehand_is_every_operation(monkeypatch, dtype):
    """So that a test run, or a machine that is installed, waits for no compiler later."""
    called = set()

    class Recorder:
        def __getattr__(self, operation):
            called.add(operation)
            return getattr(accelerated.backends.numpy_oracle.NumpyOracle(), operation)

    monkeypatch.setattr(accelerated, "load", lambda name: Recorder())
    compile_kernels("any", dtype)
    assert called >= accelerated.protocol.OPERATIONS - {"cross_entropy"}
