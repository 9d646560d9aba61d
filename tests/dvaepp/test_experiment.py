"""Experiments: every cell resolves, names are the paper's, and the runner's logic, judged without training.

A stand-in for ``dvaepp.training.complete`` leaves run folders made by the same classes, so that what is skipped, gone
on with, refused and chosen is seen without a gradient; the last tests train.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import dvaepp.command as entry
from dvaepp import experiment, training
from dvaepp.checkpoint import load as load_checkpoint
from dvaepp.checkpoint import save
from dvaepp.config import Config
from dvaepp.errors import ConfigError, NonFiniteError, RunError
from dvaepp.evaluate import record_name
from dvaepp.experiments import runner, tables
from dvaepp.experiments.plan import Job, Plan, State, bundles, look
from dvaepp.experiments.runner import Outcome, Where, perform
from dvaepp.experiments.tables import Cell
from dvaepp.run_folder import RunFolder
from dvaepp.training import Interrupted
from validation.paper.records import read
from validation.paper.tables import published

ROOT = Path(__file__).resolve().parents[2]

SMALL = """
table = "small"

[config]
data = "digits"
latents = 8
hidden = 8
iterations = 4_000
log_every = 1_000
validate_every = 2_000
checkpoint_every = 500
chains = 10
sweeps = 1
batch_size = 20
n_importance = 2
valid_importance = 2
ais_temperatures = 20
ais_chains = 8

[rows.plain]
config = { network = "linear" }
[rows.deep]
aliases = ["tanh"]
config = { network = "nonlinear", layers = 1, hidden = 10 }
[rows.deeper]
extra = true
config = { network = "nonlinear", layers = 2 }

[columns.rbm]
config = { beta = 6 }
select = { learning_rate = [1e-3, 2e-3], beta = [5, 6, 8] }
[columns.rbm-sharp]
config = { beta = 20, hidden = 11 }

[cells."deep/rbm-sharp"]
hidden = 12
"""


packaged = functools.cache(tables.load)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def trained(monkeypatch):
    """Instead of training: run folders of the right form at once; ``calls`` says which were trained together."""
    stand_in = StandIn()
    monkeypatch.setattr("dvaepp.training.complete", stand_in)
    return stand_in


class StandIn:
    def __init__(self):
        self.calls = []
        self.fails = {}  # by a part of the folder's path: an exception to raise once a checkpoint is there

    def __call__(self, folders, configs, device, backend, out):
        self.calls.append([(path, config) for path, config in zip(folders, configs, strict=True)])
        for path, config in zip(folders, configs, strict=True):
            if not path.exists():
                begin(path, config)
        for path in folders:
            for part, error in self.fails.items():
                if part in str(path):
                    raise error
        return [finish(path, config) for path, config in zip(folders, configs, strict=True)]

    def runs(self):
        return [path.relative_to(path.parents[2]).as_posix() for call in self.calls for path, _ in call]


def begin(path, config, step=0):
    RunFolder.create(path, config, torch.device("cpu"), "torch", lambda run: save(run.checkpoint, {}, {"step": step}))


def finish(path, config, value=None):
    """Leave what a finished run has: best at beta 8 with the higher rate, and by the seed."""
    folder = RunFolder(path)
    model = config.model.beta + 100 * config.optimisation.learning_rate
    folder.append_metrics({"step": config.optimisation.iterations, "seconds": 1.0, "valid": {}})
    save(folder.best, {}, {"step": 1, "log_marginal": model - 200})
    record = {
        "negative_log_likelihood": 100.0 + config.seed if value is None else value,
        "n_importance": config.evaluation.n_importance,
        "n_images": 10,
        "seed": config.seed,
        "device": "CPU",
    }
    folder.write_record(record_name(config, config.seed), record)
    return record


@pytest.fixture
def command(table, tmp_path, capsys):
    """The command as a user gives it, on the small table: exit code and all that was printed."""

    def call(*arguments, file=table):
        words = [str(file), *map(str, arguments)]
        if "--out" not in words:
            words += ["--out", str(tmp_path / "runs")]
        with pytest.raises(SystemExit) as stop:
            entry.run(experiment.PROG, lambda: experiment.main(words))
        printed = capsys.readouterr()
        return stop.value.code, " ".join((printed.out + printed.err).split())

    return call


def refused(result, *words):
    code, printed = result
    assert code == 2, printed
    assert "experiment: error: " in printed
    assert "Traceback" not in printed
    for word in words:
        assert word in printed, (word, printed)


# ---- the packaged tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(tables.PACKAGED))
def test_the_names_are_those_of_the_published_tables(name):
    ours, paper = packaged(name), published()[name]
    assert set(ours.rows) == set(paper.rows)
    assert set(ours.columns) == set(paper.columns)
    of_the_paper = {Cell(row, column) for row, cells in paper.values.items() for column in cells}
    assert set(ours.find(())) == of_the_paper
    assert {cell for cell in ours.all_cells() if not ours.is_extra(cell)} == of_the_paper


@pytest.mark.parametrize("name", sorted(tables.PACKAGED))
def test_every_cell_is_of_the_published_protocol(name):
    table, paper = packaged(name), published()[name]
    for cell in table.all_cells():
        config = table.resolve(cell, table.settings(cell))
        assert Config.from_dict(config.to_dict()) == config
        assert dataclasses.asdict(config.experiment) == {"table": name, "row": cell.row, "column": cell.column}
        assert paper.iterations in (None, config.optimisation.iterations)  # none are published for Table 3
        assert config.evaluation.n_importance == paper.n_importance
        parts = [part for part in config.to_dict().values() if isinstance(part, dict)]
        flat = {key: value for part in parts for key, value in part.items()}
        assert paper.config_of(cell.row, cell.column).items() <= flat.items()
        assert paper.protocol_of(cell.row, cell.column).items() <= flat.items()


def test_every_method_is_there():
    one, two = packaged("table1"), packaged("table2")

    def models(table, row):
        return {
            column: table.resolve(Cell(row, column), table.settings(Cell(row, column))).model
            for column in table.columns
        }

    found = models(one, "mnist-linear")
    estimators = {"nvil", "muprop", "rebar", "relax", "vimco", "arm", "disarm", "straight-through"}
    assert {name for name, model in found.items() if model.estimator == name} == estimators
    smoothings = {model.smoothing for name, model in found.items() if name.startswith("joint-")}
    assert smoothings == {"exponential", "logistic", "power", "gaussian", "uniform-exponential"}
    assert (found["concrete"].smoothing, found["marginal-elbo"].estimator) == ("concrete", "marginal")
    assert all(model.prior == "directed" and model.groups == 1 for model in found.values())
    found = models(two, "mnist-2-nonlinear")
    assert (found["rbm-rolfe"].estimator, found["rbm-rolfe"].smoothing) == ("rolfe", "spike-exponential")
    assert {name: model.prior for name, model in found.items() if "elbo" in name} == dict.fromkeys(
        ("joint-elbo", "marginal-elbo"), "directed"
    )
    assert {two.resolve(cell, two.settings(cell)).model.groups for cell in two.all_cells()} == {1, 2, 4}


def test_the_paper_s_grid_is_selected_from():
    one = packaged("table1")
    found = one.candidates(Cell("mnist-linear", "joint-elbo"))
    assert len(found) == 2 * 4 * 4
    assert {tuple(candidate) for candidate in found} == {("learning_rate", "beta", "beta_end")}
    assert len(one.candidates(Cell("mnist-linear", "nvil"))) == 2
    assert len(one.candidates(Cell("mnist-linear", "joint-elbo"), fixed=["learning_rate"])) == 16


# ---- cells by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "cells"),
    [
        ("mnist-1-nonlinear/rbm", ["mnist-1-nonlinear/rbm-overlapping"]),
        ("mnist-1-nonlin/rbm-r", ["mnist-1-nonlinear/rbm-rolfe"]),
        (
            "mnist-1-*/*-elbo",
            [f"mnist-1-{net}/{kind}-elbo" for net in ("linear", "nonlinear") for kind in ("joint", "marginal")],
        ),
        ("omniglot-4-linear/rbm-p*", ["omniglot-4-linear/rbm-power"]),
    ],
)
def test_cells_are_found(pattern, cells):
    assert [str(cell) for cell in packaged("table2").find([pattern])] == cells


def test_cells_come_once_and_in_the_table_s_order():
    table = packaged("table2")
    found = table.find(["mnist-1-nonlinear/*-elbo", "mnist-1-linear/rbm", "mnist-1-nonlinear/joint-elbo"])
    assert list(found) == [cell for cell in table.all_cells() if cell in found]
    assert len(found) == 3


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("mnist-1-nonlinear", "ROW/COLUMN"),
        ("mnist-1-nonlinear/rbm/x", "ROW/COLUMN"),
        ("mnist-1-nonlinaer/rbm", "unknown row of table2 'mnist-1-nonlinaer'; did you mean 'mnist-1-nonlinear'?"),
        ("mnist-1-nonlinear/joint-elob", "unknown column of table2 'joint-elob'; did you mean 'joint-elbo'?"),
        ("mnist-1/rbm", "could be each of the row of table2: mnist-1-linear, mnist-1-nonlinear"),
        ("*-3-*/rbm", "unknown row"),
        ("/rbm", "unknown row"),
    ],
)
def test_bad_cells_are_refused(pattern, words):
    with pytest.raises(ConfigError) as refusal:
        packaged("table2").find([pattern])
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("beta = 6", "betas = 6", "columns.rbm.config: unknown hyper-parameter 'betas'; did you mean 'beta'?"),
        ("beta = 6", 'beta = "6"', "must be of type float"),
        ("chains = 10", "chains = 0", "chains must be positive"),
        ("chains = 10", "seed = 10", "unknown hyper-parameter 'seed'"),
        ("[5, 6, 8]", "[5, 6, 8000]", "beta must lie in"),
        ("[5, 6, 8]", "5", "must be a list of values"),
        ("[5, 6, 8]", "[]", "must be a list of values"),
        ("extra = true", "extra = 1", "rows.deeper.extra must be true or false"),
        ('["tanh"]', '["plain"]', "'plain' names two of them"),
        ('["tanh"]', '"tanh"', "aliases must be a list"),
        ('"deep/rbm-sharp"', '"deep/rbm-sharf"', "unknown cell 'deep/rbm-sharf'; did you mean 'deep/rbm-sharp'?"),
        ("[rows.plain]", '[rows."a/b"]', "letters, digits"),
        ("[rows.plain]", "[rwos.plain]", "unknown key 'rwos'; did you mean 'rows'?"),
        ('table = "small"', "table = ", "small.toml: "),
        ('table = "small"', 'table = "../x"', "table must be a name"),
        ("beta = 20,", 'beta = 20, estimator = "rolfe",', "plain/rbm-sharp: estimator rolfe needs prior rbm and"),
    ],
)
def test_a_file_that_means_nothing_is_refused(command, table, before, after, words):
    assert SMALL.count(before) >= 1
    table.write_text(SMALL.replace(before, after, 1))
    refused(command("--dry-run"), words, "small.toml")


def test_settings_are_merged_in_order(table):
    small = tables.load(str(table))
    hidden = {(cell.row, cell.column): small.settings(cell)["hidden"] for cell in small.all_cells()}
    assert hidden["plain", "rbm"] == 8, "the table's"
    assert hidden["deep", "rbm"] == 10, "the row's"
    assert hidden["plain", "rbm-sharp"] == 11, "the column's"
    assert hidden["deep", "rbm-sharp"] == 12, "its own"
    without = dataclasses.replace(small, cells={})
    assert without.settings(Cell("deep", "rbm-sharp"))["hidden"] == 11, "the column's comes after the row's"


# ---- plans -----------------------------------------------------------------------------------------------------------


def plan_of(table, tmp_path, pattern="plain/rbm", **more):
    small = tables.load(str(table))
    settings = {"n_seeds": 2, "scale": 1.0, "out": tmp_path / "runs", **more}
    return Plan(small, small.find([pattern]), **settings)


def test_a_scale_shortens_schedules_and_nothing_else(table, tmp_path):
    (cell,) = plan_of(table, tmp_path).cells
    whole, short = (plan_of(table, tmp_path, scale=scale).config(cell, 0) for scale in (1.0, 0.01))
    changed = {name: (here, there) for name, here, there in short.differences(whole)}
    assert changed == {
        "iterations": (40, 4_000),
        "log_every": (10, 1_000),
        "validate_every": (20, 2_000),
        "checkpoint_every": (5, 500),
    }
    tiny = plan_of(table, tmp_path, scale=1e-6).config(cell, 0)
    assert tiny.optimisation.iterations == tiny.evaluation.log_every == 1


def test_changes_come_last_and_are_typed(table, tmp_path):
    texts = ["n_importance=100", "learning_rate=1", "batch_norm=false", "network=nonlinear", "beta_end=none"]
    changes = dict(map(tables.setting, [*texts, "iterations=7"]))
    plan = plan_of(table, tmp_path, changes=changes, scale=0.1)
    config = plan.config(plan.cells[0], 1)
    assert (config.evaluation.n_importance, config.optimisation.learning_rate) == (100, 1.0)
    assert (config.model.batch_norm, config.model.network, config.model.beta_end) == (False, "nonlinear", None)
    assert (config.optimisation.iterations, config.seed) == (7, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n_importance", "NAME=VALUE"),
        ("n_importanc=1", "did you mean 'n_importance'?"),
        ("n_importance=many", "must be of type int; got 'many'"),
        ("seed=1", "unknown hyper-parameter 'seed'"),
    ],
)
def test_bad_changes_are_refused(text, words):
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        tables.setting(text)


def test_a_change_of_the_wrong_type_is_refused(command):
    refused(command("--set", "n_importance=1.5", "--dry-run"), "n_importance must be of type int; got 1.5")


def test_images_are_replaced(table, tmp_path):
    images = tmp_path / "mine.npy"
    images.touch()
    plan = plan_of(table, tmp_path, images={"digits": str(images)}, data_dirs={"": "/somewhere"})
    config = plan.config(plan.cells[0], 0)
    assert (config.data.data, config.data.data_dir) == (str(images), "/somewhere")
    plan = plan_of(table, tmp_path, data_dirs={"mnist": "/m", "digits": "/d"})
    assert plan.config(plan.cells[0], 0).data.data_dir == "/d"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--scale", 0], "--scale must be positive"),
        (["--scale", "nan"], "--scale must be positive"),
        (["--seeds", 0], "--seeds must be at least 1"),
        (["--replicas", 0], "--replicas must be at least 1"),
        (["--jobs", 0], "--jobs must be at least 1"),
        (["--select-at", 0.1], "--select"),
        (["--data", "digit=mnist"], "did you mean 'digits'?"),
        (["--data", "digits=mnits"], "did you mean 'mnist'?"),
        (["--data", "digits"], "NAME=VALUE"),
        (["--cell", "plane/rbm"], "did you mean 'plain'?"),
        (["--device", "gpu"], "device must be"),
        (["--backend", "tortch"], "did you mean 'torch'?"),
        (["--jobs", 2, "--ray", "local"], "--jobs is for this machine alone"),
        (["--cells", "x"], "did you mean '--cell'?"),
    ],
)
def test_bad_flags_are_refused(command, trained, flags, words):
    refused(command(*flags), words)
    assert not trained.calls


def test_an_unknown_table_is_refused(command):
    refused(command(file="table4"), "unknown table 'table4'; did you mean", "FILE.toml")
    refused(command(file="nowhere.toml"), "nowhere.toml: No such file")


def test_ray_says_what_is_missing(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(command("--ray", "local"), "pip install 'dvaepp[cluster]'")


def test_cells_are_listed(command):
    code, printed = command("--list")
    assert code == 0
    for word in ("plain", "deep, tanh", "rbm-sharp", "deeper *", "deep/rbm-sharp"):
        assert word in printed


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_table_is_run_and_then_skipped(command, trained, tmp_path):
    code, printed = command("--seeds", 2, "--scale", 0.01)
    assert code == 0, printed
    wanted = [
        f"{row}/{column}/seed-{seed}" for row in ("plain", "deep") for column in ("rbm", "rbm-sharp") for seed in (0, 1)
    ]
    assert trained.runs() == wanted
    assert {path for call in trained.calls for path, _ in call} == {tmp_path / "runs/small" / run for run in wanted}
    assert [config.seed for call in trained.calls for _, config in call] == [0, 1] * 4
    assert "4 cells, 2 seeds, scale 0.01: 40 of 4,000 iterations" in printed
    assert "100.50 ± 0.71" in printed
    assert f"python -m validation tables --runs {tmp_path / 'runs'}" in printed
    assert command("--seeds", 2, "--scale", 0.01)[0] == 0
    assert len(trained.calls) == 8
    command("--seeds", 3, "--scale", 0.01, "--cell", "plain/*")
    assert trained.runs()[8:] == ["plain/rbm/seed-2", "plain/rbm-sharp/seed-2"]


def test_the_records_name_their_cell(command, trained, tmp_path):
    command("--seeds", 1, "--cell", "deep/rbm-sharp")
    (record,) = read([tmp_path / "runs"]).records
    assert (record.experiment.table, record.experiment.row, record.experiment.column) == ("small", "deep", "rbm-sharp")


def test_a_dry_run_touches_nothing(command, trained, tmp_path):
    code, printed = command("--dry-run", "--seeds", 1, "--cell", "plain/rbm")
    assert code == 0
    assert f"{tmp_path / 'runs/small/plain/rbm/seed-0'}: would be trained" in printed
    assert not (tmp_path / "runs").exists()
    assert not trained.calls


@pytest.fixture
def job(table, tmp_path):
    plan = plan_of(table, tmp_path, n_seeds=1)
    return plan.jobs(plan.cells[0])[0]


def test_an_interrupted_run_goes_on(command, trained, job):
    begin(job.path, job.config, step=12)
    assert look(job).state is State.INTERRUPTED
    assert "would go on from iteration 12" in command("--dry-run", "--cell", "plain/rbm", "--seeds", 1)[1]
    assert command("--cell", "plain/rbm", "--seeds", 2)[0] == 0
    assert trained.runs() == ["plain/rbm/seed-0", "plain/rbm/seed-1"]


def damaged_record(job):
    finish(job.path, job.config)
    record = job.path / record_name(job.config, 0)
    record.write_text(record.read_text()[:40])


def record_without_a_value(job):
    finish(job.path, job.config, value=float("nan"))


def no_table_at_all(job):
    (job.path / record_name(job.config, 0)).write_text("[]")


def damaged_checkpoint(job):
    checkpoint = job.path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:30])


def no_config(job):
    (job.path / "config.json").unlink()


def damaged_config(job):
    (job.path / "config.json").write_text("{")


def another_configuration(job):
    values = json.loads((job.path / "config.json").read_text())
    values["model"]["beta"] = 7.0
    (job.path / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damaged_record, "no whole record"),
        (record_without_a_value, "no whole record (its negative_log_likelihood is nan)"),
        (no_table_at_all, "no whole record"),
        (damaged_checkpoint, "it is damaged"),
        (no_config, "it has no config.json"),
        (damaged_config, "config.json: "),
        (another_configuration, "of another configuration: its beta is 7.0, not 6.0"),
    ],
)
def test_what_is_damaged_is_left_and_the_others_go_on(command, trained, job, damage, words):
    begin(job.path, job.config, step=3)
    damage(job)
    before = {path: path.read_bytes() for path in job.path.rglob("*") if path.is_file()}
    code, printed = command("--cell", "plain/rbm", "--seeds", 2)
    assert code == 2
    assert words in printed
    assert "nothing was touched: choose another --out, or move it away" in printed
    assert "Traceback" not in printed
    assert trained.runs() == ["plain/rbm/seed-1"]
    assert {path: path.read_bytes() for path in job.path.rglob("*") if path.is_file()} == before


def test_a_run_that_another_process_holds_is_left(command, trained, job):
    begin(job.path, job.config)
    with RunFolder(job.path).locked():
        code, printed = command("--cell", "plain/rbm", "--seeds", 2)
    assert code == 2
    assert "plain/rbm, seed 0: held by another process" in printed
    assert trained.runs() == ["plain/rbm/seed-1"]


def test_a_run_that_another_process_finished_meanwhile_is_no_problem(trained, job):
    begin(job.path, job.config)
    finish(job.path, job.config)
    assert perform((job,), Where(), Console(quiet=True)) == [Outcome(job)]
    assert not trained.calls


def test_a_run_that_fails_is_named_and_the_others_go_on(command, trained):
    full = RunError("the disk is full")
    trained.fails = {"rbm/seed-0": full, "rbm/seed-1": MemoryError("too\nlarge"), "rbm/seed-2": full}
    code, printed = command("--cell", "plain/rbm", "--seeds", 4)
    assert code == 2
    assert "plain/rbm, seed 0 and 1 others: the disk is full" in printed
    assert "plain/rbm, seed 1: MemoryError: too large" in printed
    assert trained.runs()[-1] == "plain/rbm/seed-3"
    assert printed.count("failed") == 3


def test_an_interrupt_ends_all_and_says_so(command, trained):
    trained.fails = {"plain/rbm/seed-1": Interrupted()}
    code, printed = command("--cell", "plain/rbm", "--seeds", 3)
    assert code == 130
    assert "go on by the same command" in printed
    assert trained.runs() == ["plain/rbm/seed-0", "plain/rbm/seed-1"]
    trained.fails = {}
    assert command("--cell", "plain/rbm", "--seeds", 3)[0] == 0


# ---- replicas --------------------------------------------------------------------------------------------------------


def test_replicas_are_trained_together(command, trained):
    assert command("--seeds", 5, "--replicas", 2, "--cell", "plain/*")[0] == 0
    assert [len(call) for call in trained.calls] == [2, 2, 1] * 2
    for call in trained.calls:
        assert len({path.parent for path, _ in call}) == 1


def test_only_what_is_alike_and_equally_far_is_trained_together(table, tmp_path):
    plan = plan_of(table, tmp_path, pattern="*/rbm", n_seeds=3)
    plain, deep, _ = ([*plan.jobs(cell)] for cell in plan.cells)
    begin(plain[1].path, plain[1].config, step=500)
    assert bundles([*plain, *deep], 4) == [(plain[0], plain[2]), (plain[1],), tuple(deep)]
    other = {
        name: Job(plan.cells[0], tmp_path / name, plan.config(plan.cells[0], 7, {name: 9}))
        for name in ("beta", "chains")
    }
    assert bundles([plain[0], *other.values()], 4) == [(plain[0], other["beta"]), (other["chains"],)]


def test_replicas_that_fail_together_are_tried_one_by_one(command, trained):
    trained.fails = {"seed-1": NonFiniteError("the term kl became NaN")}
    code, printed = command("--seeds", 3, "--replicas", 3, "--cell", "plain/rbm")
    assert code == 2
    assert [len(call) for call in trained.calls] == [3, 1, 1, 1]
    assert "plain/rbm, seed 1: the term kl became NaN" in printed
    assert printed.count("100.00") == 1
    assert printed.count("102.00") == 1


# ---- selection -------------------------------------------------------------------------------------------------------


def test_the_best_candidate_on_the_validation_images_is_run(command, trained, tmp_path):
    code, printed = command("--select", "--seeds", 2, "--cell", "plain/rbm")
    assert code == 0, printed
    assert len(trained.calls) == 6 + 2
    for call in trained.calls[6:]:
        ((path, config),) = call
        assert (config.model.beta, config.optimisation.learning_rate) == (8.0, 2e-3)
        assert path.name in ("seed-0", "seed-1")
    record = json.loads((tmp_path / "runs/small/plain/rbm/selection.json").read_text())
    assert record["chosen"] == {"learning_rate": 2e-3, "beta": 8}
    assert [row["log_likelihood"] for row in record["candidates"]] == pytest.approx(
        [beta + 100 * rate - 200 for rate in (1e-3, 2e-3) for beta in (5, 6, 8)]
    )
    assert all((tmp_path / "runs/small/plain/rbm" / row["run"]).is_dir() for row in record["candidates"])
    assert "learning_rate 0.002, beta 8: validation log p -191.80 nats, the best of 6" in printed
    assert [one.config["n_importance"] for one in read([tmp_path / "runs"]).records] == [2, 2]
    assert command("--select", "--seeds", 3, "--cell", "plain/rbm")[0] == 0
    assert trained.runs()[8:] == ["plain/rbm/seed-2"]


def test_a_selection_can_be_shorter_and_in_replicas(command, trained):
    code, _ = command(
        "--select", "--select-at", 0.01, "--scale", 0.1, "--replicas", 4, "--seeds", 2, "--cell", "plain/rbm"
    )
    assert code == 0
    assert [len(call) for call in trained.calls] == [4, 2, 2]
    iterations = [{config.optimisation.iterations for _, config in call} for call in trained.calls]
    assert iterations == [{40}, {40}, {400}]


def test_what_is_changed_is_not_selected(command, trained):
    command("--select", "--set", "beta=7", "--seeds", 1, "--cell", "plain/*")
    assert trained.runs()[2:] == ["plain/rbm/seed-0", "plain/rbm-sharp/seed-0"]
    assert [config.model.beta for call in trained.calls for _, config in call] == [7.0] * 4


def test_an_interrupted_selection_goes_on(command, trained):
    trained.fails = {"learning_rate=0.002,beta=6": Interrupted()}
    assert command("--select", "--seeds", 1, "--cell", "plain/rbm")[0] == 130
    assert len(trained.calls) == 5
    trained.fails = {}
    assert command("--select", "--seeds", 1, "--cell", "plain/rbm")[0] == 0
    assert len(trained.calls) == 5 + 2 + 1


def test_a_candidate_that_diverges_is_not_chosen(command, trained, tmp_path):
    trained.fails = {"learning_rate=0.002,beta=8": NonFiniteError("the term kl became NaN")}
    code, _ = command("--select", "--seeds", 1, "--cell", "plain/rbm")
    assert code == 0
    record = json.loads((tmp_path / "runs/small/plain/rbm/selection.json").read_text())
    assert record["chosen"] == {"learning_rate": 1e-3, "beta": 8}
    assert record["candidates"][5]["log_likelihood"] is None
    assert record["candidates"][5]["problem"] == "the term kl became NaN"


def test_without_all_candidates_nothing_is_chosen(command, trained):
    trained.fails = {"learning_rate=0.002,beta=8": RunError("the disk is full")}
    code, printed = command("--select", "--seeds", 1, "--cell", "plain/*")
    assert code == 2
    assert "plain/rbm: nothing is chosen yet; learning_rate=0.002,beta=8: the disk is full" in printed
    assert trained.runs()[-1] == "plain/rbm-sharp/seed-0"
    assert len(trained.calls) == 6 + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no whole record"),
        ('{"settings": {}, "candidates": [], "chosen": {}, "log_likelihood": 1}', "of another selection"),
    ],
)
def test_a_selection_that_cannot_be_used_is_left(command, trained, tmp_path, text, words):
    path = tmp_path / "runs/small/plain/rbm/selection.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    code, printed = command("--select", "--seeds", 1, "--cell", "plain/*")
    assert code == 2
    assert words in printed
    assert trained.runs() == ["plain/rbm-sharp/seed-0"]
    assert path.read_text() == text


def test_a_selection_of_other_settings_is_left(command, trained):
    flags = ("--select", "--seeds", 1, "--cell", "plain/rbm")
    assert command(*flags, "--select-at", 0.01)[0] == 0
    code, printed = command(*flags, "--select-at", 0.02)
    assert code == 2
    assert "of another selection: other settings or candidates; choose another --out" in printed
    assert len(trained.calls) == 6 + 1


# ---- with training ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bars(tmp_path, monkeypatch):
    """Flags for small images, 200 of 6x5 pixels with structure, in the current folder."""
    rng = np.random.default_rng(0)
    images = np.zeros((200, 6, 5), dtype=np.uint8)
    for image in images:
        image[:, rng.integers(5)] = 1
        image[rng.integers(6), :] |= rng.integers(0, 2, 5, dtype=np.uint8)
    np.save(tmp_path / "bars.npy", images)
    monkeypatch.chdir(tmp_path)
    return ("--data", "digits=bars.npy", "--device", "cpu", "--backend", "torch")


def test_seeds_side_by_side_are_selected_trained_tested_and_read(command, table, tmp_path, bars):
    flags = (*bars, "--cell", "plain/rbm", "--seeds", 2, "--replicas", 6, "--scale", 0.01)
    code, printed = command(*flags, "--select", "--select-at", 0.002)
    assert code == 0, printed
    folder = tmp_path / "runs/small/plain/rbm"
    chosen = json.loads((folder / "selection.json").read_text())
    values = [row["log_likelihood"] for row in chosen["candidates"]]
    assert len(set(values)) == 6
    assert chosen["candidates"][values.index(max(values))]["setting"] == chosen["chosen"]
    found = read([tmp_path / "runs"])
    assert [(one.seed, one.iterations, one.experiment.row) for one in found.records] == [
        (0, 40, "plain"),
        (1, 40, "plain"),
    ]
    assert not found.waiting
    assert not found.problems
    assert all(one.config[name] == value for one in found.records for name, value in chosen["chosen"].items())

    alone = tmp_path / "alone"
    plan = plan_of(table, tmp_path, scale=0.01, images={"digits": "bars.npy"})
    config = plan.config(Cell("plain", "rbm"), 1, chosen["chosen"])
    (record,) = training.complete([alone], [config], "cpu", "torch", Console(quiet=True))
    assert found.records[1].negative_log_likelihood == pytest.approx(record["negative_log_likelihood"], abs=1e-3)

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert command(*flags, "--select", "--select-at", 0.002)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def checkpointed(path):
    """The iteration of a run's checkpoint; 0 before there is one."""
    try:
        return load_checkpoint(path / "checkpoint.safetensors")[1]["step"]
    except RunError:
        return 0


def wait_until(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)


def started(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    words = [sys.executable, "-m", "dvaepp.experiment", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_process_that_was_told_to_end_begins_nothing_more(table, tmp_path, monkeypatch):
    """A pool hands a process its next run as soon as the last one is saved, though the command is being ended."""
    jobs = plan_of(table, tmp_path, n_seeds=3).jobs(Cell("plain", "rbm"))
    begun = []

    def perform_one(bundle, where, out):
        begun.append(bundle)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return [Outcome(job) for job in bundle]

    monkeypatch.setattr(runner, "perform", perform_one)
    monkeypatch.setattr(runner, "_ended", [])
    problems = [runner._perform_until_ended((job,), Where())[0].problem for job in jobs]
    assert problems == ["", "interrupted and saved", "not begun: the command was ended"]
    assert begun == [(jobs[0],), (jobs[1],)]


def test_runs_in_processes_are_saved_when_the_command_is_ended(table, tmp_path, bars):
    """Two at a time; ended politely, both are saved at the iteration they are at, and the third was never begun."""
    runs = [tmp_path / f"runs/small/plain/rbm/seed-{seed}" for seed in range(3)]
    flags = ("--cell", "plain/rbm", "--seeds", 3, "--jobs", 2, "--scale", 1000, "--set", "checkpoint_every=20")
    process = started(table, *flags, *bars, "--out", tmp_path / "runs")
    wait_until(lambda: all(checkpointed(run) > 0 for run in runs[:2]), process)
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on by the same command" in printed
    assert "Traceback" not in errors
    changes, images = {"checkpoint_every": 20}, {"digits": "bars.npy"}
    plan = plan_of(table, tmp_path, n_seeds=3, scale=1000.0, changes=changes, images=images)
    states = [look(job) for job in plan.jobs(plan.cells[0])]
    assert [one.state for one in states] == [State.INTERRUPTED, State.INTERRUPTED, State.NEW]
    assert any(one.step % 20 for one in states), "none was saved where it was ended"


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "machine"])
def test_a_cluster_goes_on_when_one_of_two_dies(table, tmp_path, bars, victim, monkeypatch):
    """Two machines of one core by Ray, each with a run; one is killed: both runs end as if nothing had happened."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    psutil = pytest.importorskip("psutil")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # dvaepp is installed on all machines of a cluster
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        second = cluster.add_node(**small)
        runs = [tmp_path / f"runs/small/plain/rbm/seed-{seed}" for seed in range(2)]
        flags = ("--cell", "plain/rbm", "--seeds", 2, "--set", "checkpoint_every=50")
        process = started(table, *flags, *bars, "--out", tmp_path / "runs", "--ray", cluster.address)
        wait_until(lambda: all(checkpointed(run) > 0 for run in runs), process)
        if victim == "machine":
            cluster.remove_node(second, allow_graceful=False)
        else:
            tasks = [one for one in psutil.process_iter(["cmdline"]) if "ray::_task" in (one.info["cmdline"] or [])]
            tasks[0].kill()
        killed_at = [checkpointed(run) for run in runs]
        _, errors = process.communicate(timeout=280)
    finally:
        cluster.shutdown()
    assert max(killed_at) < 4_000, "it was over before it was killed"
    assert process.returncode == 0, errors
    process = started(table, *flags, *bars, "--out", tmp_path / "undisturbed", "--jobs", 2)
    assert process.wait(280) == 0
    for folder in runs:
        there = tmp_path / "undisturbed" / folder.relative_to(tmp_path / "runs")
        found, wanted = (json.loads((run / "evaluation-K2.json").read_text()) for run in (folder, there))
        for key in ("negative_log_likelihood", "elbo", "weights_of_step", "iterations"):
            assert found[key] == wanted[key]
