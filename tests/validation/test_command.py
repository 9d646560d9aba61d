"""``python -m validation``: exit codes, one-line errors, verdicts by name, commands that show a row again."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dvaepp.errors import ConfigError
from validation import command
from validation.paper import records
from validation.rows import DTYPES

ROOT = Path(__file__).parents[2]
BROKEN = "tests.validation.broken_backends"
JUDGING = {"accuracy", "agreement", "gradients", "statistics"}


def run(*arguments):
    """The command in a fresh process, with a narrow output; one worker, for starting them is what takes time here."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "60"}
    command = [sys.executable, "-m", "validation", *arguments]
    if "--workers" not in arguments and any(one in arguments for one in JUDGING):
        command += ["--workers", "1"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def cells(line):
    return [cell.strip() for cell in line.split("│")[1:-1]]


def table(text):
    """The rows of the tables printed: lists of cells."""
    return [cells(line) for line in text.splitlines() if line.startswith("│")]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run in which everything holds, and what it wrote."""
    folder = tmp_path_factory.mktemp("good")
    asked = [
        "accuracy",
        "agreement",
        "--quick",
        "--backend",
        "numpy_oracle",
        "--kind",
        "exponential",
        "--kind",
        "power",
    ]
    asked += ["--operation", "inverse_cdf", "--operation", "entropy"]
    done = run(*asked, "--json", str(folder / "all.json"), "--html", str(folder / "all.html"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads((folder / "all.json").read_text()), (folder / "all.html").read_text()


def test_a_good_backend_exits_with_zero_and_prints_inputs_in_full(good):
    done, _, _ = good
    assert "do not hold" not in done.stdout
    rows = table(done.stdout)
    accuracy = [row for row in rows if "beta=" in row[-1] and "rho=" in row[-1]]
    assert accuracy
    for row in accuracy:
        values = dict(part.split("=") for part in row[-1].split("; ")[0].split(", "))
        assert all(repr(float(value)) == value for value in values.values())
    # A line for each task: two kinds and the entropy, in both dtypes.
    assert [row[1:4] for row in rows].count(["entropy", "", "float32"]) == 1
    assert {tuple(row[2:4]) for row in rows if row[1] == "inverse_cdf"} == {
        (kind, dtype) for kind in ("exponential", "power") for dtype in DTYPES
    }


def test_the_record_holds_every_row(good):
    done, record, page = good
    assert record["holds"] is True
    assert record["n_bad"] == 0
    assert record["n_rows"] == len(record["rows"])
    assert {row["status"] for row in record["rows"]} == {"holds"}
    assert f"all {record['n_rows']} rows that are judged hold" in done.stdout
    assert {row["check"] for row in record["rows"]} == {"accuracy", "agreement"}
    assert {row["finding"]["output"] for row in record["rows"] if row["check"] == "accuracy"} >= {
        "zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta", "log_ratio", "nu",
    }  # fmt: skip
    assert record["environment"]["libraries"]["numpy"]
    assert record["maps"]
    assert page.lstrip().startswith("<!doctype html>")
    assert str(ROOT) not in page + json.dumps(record["environment"])


def test_a_row_is_seen_again_by_its_command(good):
    """The single input of an accuracy row, and the whole task of another: the same numbers."""
    _, record, _ = good
    rows = record["rows"]
    of_a_point = next(row for row in rows if row["check"] == "accuracy" and row["finding"]["output"] == "dzeta_drho")
    of_a_task = next(row for row in rows if row["operation"] == "entropy")
    for row in (of_a_point, of_a_task):
        words = shlex.split(row["reproduce"])
        assert words[:3] == ["python", "-m", "validation"]
        done = run(*words[3:], "--every-row")
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = [cells for cells in table(done.stdout) if cells[4] == row["finding"]["output"]]
        assert line[:2] == [row["subject"], row["operation"]]
        assert line[5] == f"{row['finding']['error']:.3g}"
        if row is of_a_point:
            assert repr(row["finding"]["got"]) in line
            assert repr(row["finding"]["expected"]) in line


def test_results_are_those_of_the_seed(good, tmp_path):
    _, record, _ = good
    shown = [["--seed", "0"], ["--seed", "1"]]
    found = []
    for i, seed in enumerate(shown):
        asked = ["accuracy", "--quick", "--backend", "numpy_oracle", "--kind", "exponential", "--dtype", "float32"]
        assert run(*asked, *seed, "--workers", "2", "--json", str(tmp_path / f"{i}.json")).returncode == 0
        found.append(json.loads((tmp_path / f"{i}.json").read_text())["rows"])
    same = [
        row for row in record["rows"]
        if (row["check"], row["kind"], row["dtype"]) == ("accuracy", "exponential", "float32")
    ]  # fmt: skip
    assert [row["finding"] for row in found[0]] == [row["finding"] for row in same]
    assert found[0] != found[1]


def test_whatever_goes_wrong_is_in_the_table_and_the_rest_runs(tmp_path):
    names = ["raising", "hanging", "dying", "wrong_shape", "not_a_number", "wrong", "few", "unwilling", "talking"]
    chosen = [word for name in names for word in ("--backend", f"{BROKEN}:{name}")]
    asked = [
        "agreement",
        "--quick",
        "--dtype",
        "float64",
        "--operation",
        "entropy",
        "--operation",
        "importance_log_mean",
    ]
    done = run(*asked, *chosen, "--time-limit", "10", "--json", str(tmp_path / "all.json"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads((tmp_path / "all.json").read_text())
    found = {}
    for row in record["rows"]:
        found.setdefault(row["subject"].partition(":")[2], {}).setdefault(row["operation"], set()).add(row["status"])
    fine = {"importance_log_mean": {"holds"}}
    assert found == {
        "raising": {"entropy": {"RAISES"}} | fine,
        "hanging": {"entropy": {"HANGS"}} | fine,
        "dying": {"entropy": {"DIES"}} | fine,
        "wrong_shape": {"entropy": {"FAILS"}} | fine,
        "not_a_number": {"entropy": {"FAILS", "holds"}} | fine,
        "wrong": {"entropy": {"FAILS", "holds"}} | fine,
        "few": {"entropy": {"holds"}, "importance_log_mean": {"LACKS IT"}},
        "unwilling": {"load": {"RAISES"}},
        "talking": {"entropy": {"holds"}} | fine,
    }
    assert f"{record['n_bad']} of {record['n_rows']} rows do not hold" in done.stdout
    assert "RuntimeError: the dog ate it" in done.stdout
    assert f"RAISES: python -m validation agreement --backend {BROKEN}:unwilling" in done.stdout
    for row in record["rows"]:
        assert row["good"] or row["status"] in done.stdout


def test_a_backend_without_an_operation_passes_where_it_is_not_asked_for_it():
    few = f"{BROKEN}:few"
    assert run("agreement", "--quick", "--backend", few, "--operation", "entropy").returncode == 0
    done = run("agreement", "--quick", "--backend", few, "--dtype", "float32")
    assert done.returncode == 1
    assert f"{few} gibbs: LACKS IT: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["acuracy"], "unknown check 'acuracy'; did you mean 'accuracy'?"),
        (["--sed", "3"], "unknown flag '--sed'; did you mean '--seed'?"),
        (["--dtype", "float23"], "unknown dtype 'float23'; did you mean 'float32'?"),
        (["--kind", "exponentail"], "unknown kind 'exponentail'; did you mean 'exponential'?"),
        (["--operation", "gibs"], "unknown operation 'gibs'; did you mean 'gibbs'?"),
        (["--seed", "many"], "invalid literal for int"),
        (["--backend", "numpy_oracel"], "unknown backend 'numpy_oracel'; did you mean 'numpy_oracle'?"),
        (["--seed", "-1"], "seed must not be negative; got -1"),
        (["--workers", "0"], "workers must be at least 1; got 0"),
        (["--time-limit", "0"], "time-limit must be positive; got 0"),
        (["agreement", "--at", "rho=0.5, logit_q=0.0, beta=2.0"], "at is one input of accuracy or of gradients"),
        (["accuracy", "--at", "rho=0.5, beta=2.0"], "logit_q"),
        (["accuracy", "--at", "rho=half, logit_q=0.0, beta=2.0"], "half"),
        (["accuracy", "--fault", "none"], "unknown fault 'none'"),
        (["accuracy", "--runs", "elsewhere"], "runs is an option of tables"),
        (["tables", "--runs", "no-such-folder"], "no-such-folder"),
        (["--json", "no-such-folder/x.json"], "no-such-folder/x.json cannot be written"),
        (["--html", "."], ". cannot be written"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_runs(arguments, message, monkeypatch):
    monkeypatch.setattr(command.jobs, "pool", lambda n_workers: pytest.fail("something was run"))
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


@pytest.mark.parametrize("name", ["no.such.module:backend", f"{BROKEN}:no_such_name", f"{BROKEN}:unavailable"])
def test_a_named_backend_that_is_not_there_or_cannot_run_is_refused(name, tmp_path):
    done = run("agreement", "--backend", name, "--json", str(tmp_path / "x.json"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr or "cannot run" in done.stderr
    assert not (tmp_path / "x.json").exists()


def test_nothing_to_judge_is_said():
    done = run("statistics", "--backend", "torch-number")
    assert done.returncode == 2
    assert "there is nothing to judge" in done.stderr


def test_tables_are_printed_without_a_judge(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command.jobs, "pool", lambda n_workers: pytest.fail("something was run"))
    monkeypatch.setattr(records, "RUNS", tmp_path / "runs")
    assert command.main(["tables", "--markdown", str(tmp_path / "tables.md"), "--json", str(tmp_path / "t.json")]) == 0
    printed = capsys.readouterr().out
    assert "Table 2" in printed
    assert "Table 2" in (tmp_path / "tables.md").read_text()
    assert json.loads((tmp_path / "t.json").read_text())["tables"]
    (tmp_path / "runs" / "half").mkdir(parents=True)
    (tmp_path / "runs" / "half" / "config.json").write_text("{")
    assert command.main(["tables"]) == 1
    printed = capsys.readouterr().out
    assert "1 of 1 rows do not hold" in printed
    assert "FAILS: python -m validation tables --runs" in printed


@pytest.mark.parametrize(
    ("arguments", "checks"),
    [
        ([], ("accuracy", "agreement", "gradients", "statistics", "tables", "sabotage")),
        (["--quick"], ("accuracy", "agreement", "gradients", "statistics", "tables")),
        (["--backend", "torch"], ("accuracy", "agreement", "gradients", "statistics")),
        (["--at", "rho=0.5, logit_q=0.0, beta=2.0"], ("accuracy",)),
        (["statistics", "accuracy", "statistics"], ("statistics", "accuracy")),
    ],
)
def test_the_checks_that_are_run_when_none_is_named(arguments, checks):
    asked = command.parse(command.Command, arguments, command.PROG)
    assert command._checked(asked)[0] == checks
