"""``python -m validation``: exit codes, one-line errors, a table whose inputs can be replayed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dvaepp.errors import ConfigError
from validation import accuracy, command, gradients, implementations

ROOT = Path(__file__).parents[2]


def run(*arguments):
    """The command in a fresh process, with a narrow output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "60"}
    return subprocess.run(
        [sys.executable, "-m", "validation", *arguments], capture_output=True, text=True, cwd=ROOT, env=environment
    )


def test_a_good_project_exits_with_zero_and_prints_inputs_in_full():
    done = run("agreement", "--quick", "--dtype", "float64", "--seed", "2", "--backend", "numpy_oracle")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all bounds hold" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "beta=" in line]
    assert len(lines) == 4 * 6  # four kinds of kernels, zeta and five extras
    for line in lines:
        where = line[: line.rindex("│")].split("│")[-1]
        values = dict(part.split("=") for part in where.strip().split(", "))
        assert all(repr(float(value)) == value for value in values.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["acuracy"], "unknown check 'acuracy'; did you mean 'accuracy'?"),
        (["--sed", "3"], "unknown flag '--sed'; did you mean '--seed'?"),
        (["--dtype", "float23"], "unknown dtype 'float23'; did you mean 'float32'?"),
        (["--seed", "many"], "invalid literal for int"),
        (["--backend", "numpy_oracel"], "unknown backend 'numpy_oracel'; did you mean 'numpy_oracle'?"),
        (["--seed", "-1"], "seed must not be negative; got -1"),
        (["gradients", "--draws", "10"], "draws must be at least 1000; got 10"),
        (["gradients", "--quick", "--draws", "1000"], "draws must be at least 7000; got 1000"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(ConfigError) as caught:
        command.main(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_arguments_exit_with_two():
    done = run("agreemnt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "validation: error: unknown check 'agreemnt'; did you mean 'agreement'?  (validation --help)"
    ]


def test_a_broken_implementation_exits_with_one_and_is_named(monkeypatch, capsys):
    def wrong(rho, logit_q, beta):
        return {"zeta": np.full_like(rho, 0.5)}

    monkeypatch.setattr(implementations, "IMPLEMENTATIONS", {"broken": wrong})
    monkeypatch.setattr(command, "N_RANDOM", 20)
    monkeypatch.setattr(command, "QUICK_STEP", 41)
    assert command.main(["accuracy", "--quick", "--dtype", "float32"]) == 1
    printed = capsys.readouterr().out
    assert "1 bounds do not hold" in printed
    assert any("broken" in line and "FAILS" in line for line in printed.splitlines())


def test_every_check_and_both_dtypes_run_when_none_is_named(monkeypatch, capsys):
    monkeypatch.setattr(implementations, "IMPLEMENTATIONS", {"reference": accuracy.reference_inverse_cdf})
    monkeypatch.setattr(implementations, "TWINS", {"nu": implementations.TWINS["nu"]})
    monkeypatch.setattr(implementations, "backends", lambda names: ([], {"absent": "backend 'absent' cannot run here"}))
    monkeypatch.setattr(command, "N_RANDOM", 20)
    monkeypatch.setattr(command, "QUICK_STEP", 41)
    monkeypatch.setattr(accuracy, "REFERENCE", {accuracy.EXPONENTIAL: accuracy.REFERENCE[accuracy.EXPONENTIAL]})
    monkeypatch.setattr(gradients, "exported_smoothings", tuple)
    assert command.main(["--quick", "--draws", "41000"]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "holds" in line]
    assert len(rows) == 2 * (2 * len(accuracy.OUTPUTS) + len(accuracy.FORWARD) + 1)
    assert "1000 draws" in printed
    assert "backend 'absent' cannot run here" in printed


def test_named_backends_are_judged_alone(monkeypatch, capsys):
    monkeypatch.setattr(command, "N_RANDOM", 20)
    monkeypatch.setattr(command, "QUICK_STEP", 41)
    assert command.main(["accuracy", "kinds", "--quick", "--dtype", "float32", "--backend", "numpy_oracle"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "holds" in line and "numpy_oracle" in line]
    assert len(rows) == 4 + 4 * 4


def test_a_named_backend_that_cannot_run_is_refused(monkeypatch):
    reason = "backend 'numba_cuda' cannot run here: no device"
    monkeypatch.setattr(implementations, "backends", lambda names: ([], {"numba_cuda": reason}))
    with pytest.raises(ConfigError, match=reason):
        command.main(["agreement", "--backend", "numba_cuda"])
