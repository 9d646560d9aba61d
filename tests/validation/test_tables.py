"""The paper's tables beside our records: every cell, every kind of damage, every rendering."""

from __future__ import annotations

import html
import html.parser
import json
import math
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.record import record as record_of_run
from dvaepp import train
from dvaepp.config import CellConfig, Config, ModelConfig, preset
from dvaepp.errors import ConfigError
from dvaepp.evaluate import record_name
from dvaepp.run_folder import RunFolder
from validation.paper.records import read
from validation.paper.tables import published, tables, to_html, to_json, to_markdown, to_rich

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT.parent / "shared" / "design" / "experiments.md"
PAPER = ROOT.parent / "shared" / "paper" / "dvae-plus-plus.txt"

#: The paper's "MNIST 1 nonlinear", by the flags of dvaepp.train.
CONFIG = preset("mnist-static-1-nonlinear")
CELL = ("table2", "mnist-1-nonlinear", "rbm-overlapping")


def evaluation(nll, n_importance=4000, n_images=10_000, seed=0, **more):
    log_z = {"width": 0.08, "consistent": True}
    return {
        **{"n_images": n_images, "n_importance": n_importance, "negative_log_likelihood": nll, "seed": seed},
        **{"log_partition": log_z, "device": "CPU, 2 threads"},
        **more,
    }


def config_of(table, row, column, **changes):
    """The configuration of a cell as published, with changes by name."""
    entry = published()[table]
    wanted = {**entry.config_of(row, column), **entry.protocol_of(row, column), **changes}
    if wanted["estimator"] == "vimco":
        wanted["n_samples"] = 2
    sections = Config().to_dict()
    for name, value in wanted.items():
        (section,) = [section for section in sections.values() if isinstance(section, dict) and name in section]
        section[name] = value
    return Config.from_dict(sections)


def record_file(path, cell, nll, *, seed=0, experiment=None, changes=None, iterations=None, **more):
    """A record of a run of a cell as published but for what is said, in a file."""
    table, row, column = cell
    entry = published()[table]
    n_images = more.pop("n_images", entry.test_images(row, column))
    config = replace(config_of(*cell, **(changes or {})), seed=seed, experiment=CellConfig(*(experiment or ())))
    content = {
        "config": config.to_dict(),
        "iterations": iterations or entry.iterations,
        "evaluations": [evaluation(nll, entry.n_importance, n_images, seed, **more)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def run_folder(path, *evaluations, config=CONFIG, seed=0, iterations=1_000_000, experiment=None):
    """A run folder as ``dvaepp.train`` leaves it, written through the same class, without its weights."""
    config = replace(config, seed=seed)
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_record("config.json", config.to_dict() | ({"experiment": experiment} if experiment else {}))
    folder.write_record("environment.json", {"device": "CPU, 2 threads"})
    folder.append_metrics({"step": 100, "seconds": 0.1, "train": {}})
    folder.append_metrics({"step": iterations, "seconds": 9.0, "valid": {}})
    for one in evaluations:
        settings = config.with_evaluation(n_importance=one["n_importance"])
        folder.write_record(record_name(settings, one["seed"]), one)
    return path


def compared(*paths):
    return tables(read([*map(Path, paths)]))


def ours(comparison, cell=CELL):
    table, row, column = cell
    (found,) = [
        one
        for entry in comparison.tables
        if entry.published.name == table
        for one in entry.cells
        if (one.row, one.column) == (row, column)
    ]
    return found.ours


def printed(comparison, width=400):
    out = Console(file=StringIO(), width=width, color_system=None)
    out.print(to_rich(comparison))
    return out.file.getvalue()


def only_problem(comparison, path, *words):
    (problem,) = comparison.problems
    assert problem.path == str(path)
    assert "\n" not in str(problem)
    for word in words:
        assert word in problem.what, problem


# ---- what was published ----------------------------------------------------------------------------------------------


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text.replace("−", "-"))]


@pytest.mark.skipif(not EXPERIMENTS.exists(), reason="the design's experiments.md is not beside this checkout")
@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_the_values_are_those_of_the_design(name):
    table = published()[name]
    section = re.split(r"^## ", EXPERIMENTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"Table {name[-1]} ")]
    lines = [line for line in text.splitlines() if line.startswith("|") and numbers(line)]
    assert len(lines) == len(table.paper_rows())
    for line, row in zip(lines, table.paper_rows(), strict=True):
        flat = [
            number
            for column in table.paper_columns()
            for number in (table.values[row][column].value, table.values[row][column].sd)
            if number is not None
        ]
        assert numbers(line) == flat
    assert f"{table.n_importance:,}" in text
    assert table.iterations is None or f"{table.iterations:,}" in text


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not beside this checkout")
def test_every_value_and_name_stands_in_the_paper():
    text = PAPER.read_text(encoding="utf-8")
    squeezed = re.sub(r"\s", "", text)
    for table in published().values():
        for cells in table.values.values():
            for value in cells.values():
                assert f"{value.value:.2f}" in text
                assert value.sd is None or f"±{value.sd:.2f}" in squeezed
        for column in map(table.columns.get, table.paper_columns()):
            assert (column.printed or column.label) in text


def test_every_table_is_complete():
    assert {name: len(table.paper_rows()) * len(table.paper_columns()) for name, table in published().items()} == {
        **{"table1": 24, "table2": 32, "table3": 25}
    }
    for table in published().values():
        assert set(table.values) <= set(table.rows)
        assert all(set(cells) == set(table.paper_columns()) for cells in table.values.values())


def test_every_method_and_every_number_of_groups_has_a_cell():
    table1, table2 = published()["table1"], published()["table2"]
    assert set(table1.columns) - set(table1.paper_columns()) == {
        *("relax", "vimco", "arm", "disarm", "straight-through"),
        *("joint-logistic", "joint-power", "joint-gaussian", "joint-uniform-exponential"),
    }
    assert set(table2.columns) - set(table2.paper_columns()) == {
        *("rbm-logistic", "rbm-power", "rbm-gaussian", "rbm-uniform-exponential"),
    }
    assert set(table2.rows) == {
        f"{data}-{groups}-{network}"
        for data in ("mnist", "omniglot")
        for groups in (1, 2, 4)
        for network in ("linear", "nonlinear")
    }


def test_presets_of_the_static_cells_are_of_the_published_protocol():
    """Each lands in its own cell, and nothing about it is remarked but what is not published."""
    for groups in (1, 2):
        for network in ("linear", "nonlinear"):
            table, row = published()["table2"], f"mnist-{groups}-{network}"
            config = preset(f"mnist-static-{groups}-{network}").to_dict()
            flat = {key: value for part in config.values() if isinstance(part, dict) for key, value in part.items()}
            wanted = table.config_of(row, "rbm-overlapping") | table.protocol_of(row, "rbm-overlapping")
            assert {name: flat[name] for name in wanted} == wanted
            assert flat["iterations"] == table.iterations
            assert flat["n_importance"] == table.n_importance


# ---- records in their cells ------------------------------------------------------------------------------------------


def test_nothing_to_read_gives_the_published_tables(tmp_path):
    comparison = compared(tmp_path)
    assert all(cell.ours is None for table in comparison.tables for cell in table.cells)
    assert comparison.asides == comparison.waiting == comparison.problems == ()
    assert "−85.41 ± 0.04" in to_markdown(comparison)
    assert "None" not in to_markdown(comparison)


def test_runs_is_read_where_no_path_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read() == read([tmp_path])
    run_folder(tmp_path / "runs" / "a", evaluation(86.0))
    assert [record.source for record in read().records] == ["runs/a"]


def test_a_full_run(tmp_path):
    run_folder(tmp_path / "full", evaluation(86.0))
    found = ours(compared(tmp_path))
    assert (found.mean, found.sd, found.seeds) == (-86.0, None, (0,))
    assert found.difference == pytest.approx(-0.59)  # -86.00 - -85.41: worse, hence negative
    assert (found.shortened, found.remarks, found.device) == ("", (), "CPU, 2 threads")
    assert found.half_width == 0.04


def test_mean_and_standard_deviation_over_seeds(tmp_path):
    """By hand: mean of 85, 86, 88.5 is 86.5; squares of 1.5, 0.5, 2 sum to 6.5, over 2 is 3.25."""
    for seed, nll in enumerate((85.0, 86.0, 88.5)):
        log_z = {"width": (0.2, 0.6, 0.4)[seed], "consistent": True}
        run_folder(tmp_path / f"s{seed}", evaluation(nll, seed=seed, log_partition=log_z), seed=seed)
    comparison = compared(tmp_path)
    found = ours(comparison)
    assert found.mean == pytest.approx(-86.5)
    assert found.sd == pytest.approx(math.sqrt(3.25))
    assert (found.seeds, found.half_width) == ((0, 1, 2), 0.3)
    for text in (to_markdown(comparison), to_html(comparison), printed(comparison)):
        assert "−86.50 ± 1.80" in text
        assert "−1.09" in text
        assert "3 of 5 (0, 1, 2)" in text


def test_a_shortened_run_says_so(tmp_path):
    run_folder(tmp_path / "short", evaluation(97.24), iterations=5000)
    comparison = compared(tmp_path)
    assert ours(comparison).shortened == "5,000 of 1,000,000 iterations"
    for text in (to_markdown(comparison), to_html(comparison), printed(comparison)):
        assert "−97.24, shortened" in text
        assert "shortened: 5,000 of 1,000,000 iterations" in text
    assert '<td class="ours shortened number">−97.24' in to_html(comparison)


def test_full_and_shortened_runs_are_not_averaged(tmp_path):
    run_folder(tmp_path / "full", evaluation(86.0))
    run_folder(tmp_path / "short", evaluation(97.0, seed=1), seed=1, iterations=5000)
    comparison = compared(tmp_path)
    assert (ours(comparison).mean, ours(comparison).seeds) == (-86.0, (0,))
    (aside,) = comparison.asides
    assert aside.record.source.endswith("short")
    assert "nearer to the published protocol" in aside.why


def test_the_tables_number_of_importance_samples_is_preferred_and_others_are_marked(tmp_path):
    run = run_folder(tmp_path / "run", evaluation(87.0, 200))
    assert ours(compared(tmp_path)).remarks == ("K = 200 instead of 4,000",)
    RunFolder(run).write_record("evaluation-K4000.json", evaluation(86.0))
    comparison = compared(tmp_path)
    assert (ours(comparison).mean, ours(comparison).remarks) == (-86.0, ())
    assert [aside.record.n_importance for aside in comparison.asides] == [200]


def test_a_part_of_the_test_set_is_marked(tmp_path):
    run_folder(tmp_path / "run", evaluation(76.0, n_images=2000))
    assert ours(compared(tmp_path)).remarks == ("2,000 of 10,000 test images",)


def test_all_of_the_test_set_is_preferred_to_the_right_number_of_samples(tmp_path):
    run = run_folder(tmp_path / "run", evaluation(76.0, n_images=2000))
    RunFolder(run).write_record("evaluation-K200.json", evaluation(87.0, 200))
    found = ours(compared(tmp_path))
    assert (found.mean, found.remarks) == (-87.0, ("K = 200 instead of 4,000",))


def test_other_hyper_parameters_are_marked(tmp_path):
    config = replace(CONFIG, prior=replace(CONFIG.prior, chains=200, sweeps=10))
    run_folder(tmp_path / "run", evaluation(86.0), config=config)
    assert ours(compared(tmp_path)).remarks == ("chains 200 instead of 1,000", "sweeps 10 instead of 40")


def test_more_iterations_than_published_are_no_shorter_run(tmp_path):
    run_folder(tmp_path / "run", evaluation(86.0), iterations=2_000_000)
    found = ours(compared(tmp_path))
    assert (found.shortened, found.remarks) == ("", ("2,000,000 iterations instead of 1,000,000",))


def test_a_contradiction_about_log_z_is_remarked(tmp_path):
    run_folder(tmp_path / "run", evaluation(86.0, log_partition={"width": 3.0, "consistent": False}))
    comparison = compared(tmp_path)
    assert ours(comparison).remarks == ("the two estimates of log Z contradict each other (seed 0)",)
    assert "± 1.50" in to_markdown(comparison)


def test_a_seed_counts_once(tmp_path):
    run_folder(tmp_path / "a", evaluation(86.0), evaluation(70.0, seed=7))  # the same weights, tested by another seed
    run_folder(tmp_path / "b", evaluation(86.5))
    comparison = compared(tmp_path)
    assert (ours(comparison).mean, ours(comparison).seeds) == (-86.5, (0,))
    assert sorted(aside.record.negative_log_likelihood for aside in comparison.asides) == [70.0, 86.0]
    assert all("another record of seed 0" in aside.why for aside in comparison.asides)


def test_groups_and_network_decide_the_row(tmp_path):
    run_folder(tmp_path / "run", evaluation(94.0), config=preset("mnist-static-2-linear"))
    assert ours(compared(tmp_path), ("table2", "mnist-2-linear", "rbm-overlapping")).mean == -94.0


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (preset("digits"), "data digits instead of mnist-static"),
        (preset("mnist-1-nonlinear"), "data mnist instead of mnist-static"),
        (replace(CONFIG, model=ModelConfig(latents=100)), "latents 100 instead of 200"),
        (replace(CONFIG, model=ModelConfig(layers=3)), "layers 3 instead of 2"),
    ],
)
def test_a_record_of_no_cell_is_listed_with_the_reason(tmp_path, config, why):
    run_folder(tmp_path / "run", evaluation(99.41), config=config)
    comparison = compared(tmp_path)
    assert ours(comparison) is None
    (aside,) = comparison.asides
    assert why in aside.why
    assert not comparison.problems
    for text in (to_markdown(comparison), to_html(comparison), printed(comparison)):
        assert "−99.41" in text


def test_experiment_decides_the_cell(tmp_path):
    experiment = {"table": "table1", "row": "mnist-nonlinear", "column": "joint-elbo"}
    config = replace(CONFIG, model=replace(CONFIG.model, prior="directed"))
    run_folder(tmp_path / "run", evaluation(100.0, 100), config=config, iterations=2_000_000, experiment=experiment)
    comparison = compared(tmp_path)
    found = ours(comparison, ("table1", "mnist-nonlinear", "joint-elbo"))
    assert (found.mean, found.shortened) == (-100.0, "")
    assert found.remarks == (  # by its own configuration it would be of Table 2
        "batch_size 100 instead of 24",
        "schedule steps instead of constant",
        "kl_warmup 0.3 instead of 0",
        "batch_norm on instead of off",
    )
    assert all(cell.ours is None for cell in comparison.tables[1].cells)


@pytest.mark.parametrize("named", [None, dict(zip(("table", "row", "column"), CELL, strict=True))])
def test_a_record_file_may_name_its_cell_beside_its_configuration(tmp_path, named):
    path = record_file(tmp_path / "a.json", CELL, 99.0, changes={"latents": 100})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"experiment": named}))
    comparison = compared(tmp_path)
    assert comparison.problems == ()
    assert (ours(comparison) is None) == (named is None)


def test_every_configuration_finds_its_own_cell(tmp_path):
    """All cells of Tables 1 and 2, and those beyond the paper, by the configuration alone and without a remark."""
    expected = {}
    for name in ("table1", "table2"):
        for number, (row, column) in enumerate(
            (r, c) for r in published()[name].rows for c in published()[name].columns
        ):
            expected[name, row, column] = -100.0 - number
            record_file(tmp_path / f"{name}-{number}.json", (name, row, column), 100.0 + number)
    comparison = compared(tmp_path)
    assert comparison.asides == comparison.problems == ()
    found = {
        (table.published.name, cell.row, cell.column): (cell.ours.mean, cell.ours.shortened, cell.ours.remarks)
        for table in comparison.tables[:2]
        for cell in table.cells
    }
    assert found == {cell: (mean, "", ()) for cell, mean in expected.items()}


def test_of_two_tables_the_one_with_the_nearer_protocol_is_taken(tmp_path):
    """Joint ELBO of one group is in both; a batch of 24 at a constant rate is Table 1's, whatever else differs."""
    cell = ("table1", "mnist-linear", "joint-elbo")
    record_file(tmp_path / "a.json", cell, 107.0, changes={"adam_epsilon": 1e-8, "learning_rate": 3e-3}, iterations=500)
    found = ours(compared(tmp_path), cell)
    assert found.shortened == "500 of 2,000,000 iterations"
    assert found.remarks == ("adam_epsilon 1e-08 instead of 0.001",)


@pytest.mark.parametrize(
    "cell",
    [
        ("table1", "mnist-nonlinear", "relax"),
        ("table2", "mnist-1-nonlinear", "rbm-power"),
        ("table2", "omniglot-4-linear", "rbm-overlapping"),
        ("table2", "mnist-4-nonlinear", "rbm-gaussian"),
    ],
)
def test_what_is_beyond_the_paper_shows_where_there_is_a_record(tmp_path, cell):
    record_file(tmp_path / "a.json", cell, 98.765)
    comparison = compared(tmp_path)
    (table,) = [table for table in comparison.tables if table.published.name == cell[0]]
    entry = table.published
    assert table.rows == tuple(row for row in entry.rows if row in entry.paper_rows() or row == cell[1])
    assert table.columns == tuple(key for key in entry.columns if key in entry.paper_columns() or key == cell[2])
    assert [(one.row, one.column) for one in table.cells] == [(r, c) for r in table.rows for c in table.columns]
    found = ours(comparison, cell)
    assert (found.mean, found.difference, found.remarks) == (-98.765, None, ())
    heading = entry.columns[cell[2]].label
    for text in (to_markdown(comparison), to_html(comparison), printed(comparison)):
        assert heading in text
        assert "−98.77" in text
        assert "not published, or no difference" in text
        assert "None" not in text
    assert re.search(r"–\s", to_markdown(comparison))
    beyond = {label for key in entry.columns if key not in table.columns for label in [entry.columns[key].label]}
    assert not any(label in to_markdown(comparison) for label in beyond)


# ---- other images ----------------------------------------------------------------------------------------------------

OMNIGLOT = ("table2", "omniglot-1-nonlinear", "rbm-overlapping")


@pytest.mark.parametrize("experiment", [None, OMNIGLOT])
def test_a_substitute_stands_in_the_row_and_is_not_compared(tmp_path, experiment):
    changes = {"data": "omniglot-substitute"}
    record_file(tmp_path / "a.json", OMNIGLOT, 104.0, changes=changes, n_images=8_115, experiment=experiment)
    comparison = compared(tmp_path)
    found = ours(comparison, OMNIGLOT)
    assert (found.mean, found.difference, found.remarks) == (-104.0, None, ())
    assert found.incomparable == "OMNIGLOT substitute instead of OMNIGLOT: not comparable"
    for text in (to_markdown(comparison), to_html(comparison), printed(comparison)):
        assert "−104.00, other data" in text
        assert found.incomparable in text
        assert "−1.38" not in text  # -104.00 - -102.62
    assert '<td class="ours incomparable number">−104.00, other data' in to_html(comparison)
    Outline(to_html(comparison))
    (cell,) = [one for table in to_json(comparison)["tables"] for one in table["cells"] if one["ours"]]
    assert (cell["ours"]["difference"], cell["ours"]["incomparable"]) == (None, found.incomparable)


def test_a_part_of_a_substitutes_test_set_is_marked(tmp_path):
    record_file(tmp_path / "a.json", OMNIGLOT, 104.0, changes={"data": "omniglot-substitute"}, n_images=8_070)
    assert ours(compared(tmp_path), OMNIGLOT).remarks == ("8,070 of 8,115 test images",)


def test_the_real_data_are_preferred_to_a_substitute(tmp_path):
    record_file(tmp_path / "real.json", OMNIGLOT, 110.0, iterations=1000)
    record_file(tmp_path / "sub.json", OMNIGLOT, 104.0, changes={"data": "omniglot-substitute"}, n_images=8_115, seed=1)
    comparison = compared(tmp_path)
    assert (ours(comparison, OMNIGLOT).mean, ours(comparison, OMNIGLOT).incomparable) == (-110.0, "")
    assert [aside.record.seed for aside in comparison.asides] == [1]


def test_any_other_images_are_not_compared_either(tmp_path):
    record_file(tmp_path / "a.json", CELL, 99.0, changes={"data": "digits"}, n_images=500, experiment=CELL)
    record_file(tmp_path / "b.json", OMNIGLOT, 99.0, changes={"data": "mine.npy"}, experiment=OMNIGLOT)
    comparison = compared(tmp_path)
    assert ours(comparison).incomparable == "data digits instead of mnist-static: not comparable"
    assert ours(comparison, OMNIGLOT).incomparable == "data mine.npy instead of omniglot: not comparable"
    assert ours(comparison).difference is ours(comparison, OMNIGLOT).difference is None
    assert ours(comparison).remarks == ()


# ---- what an evaluation says itself ----------------------------------------------------------------------------------


def test_an_evaluation_knows_its_iterations_better_than_the_metrics(tmp_path):
    """The run went on after it was tested, and its metrics are damaged at that."""
    said = {"iterations": 20_000, "weights_of_step": 19_000}
    run = run_folder(tmp_path / "run", evaluation(86.0, **said))
    (run / "metrics.jsonl").write_text('{"step": 1}\nxx\n{"step": 1000000}\n')
    comparison = compared(tmp_path)
    assert comparison.problems == ()
    assert (ours(comparison).shortened, ours(comparison).weights_of) == ("20,000 of 1,000,000 iterations", (19_000,))
    for text in (to_markdown(comparison), to_html(comparison), printed(comparison)):
        assert "19,000" in text


def test_tests_at_several_lengths_of_a_run_are_told_apart(tmp_path):
    run = run_folder(tmp_path / "run", evaluation(86.0, iterations=1_000_000))
    RunFolder(run).write_record("evaluation-K4000-seed7.json", evaluation(90.0, iterations=5000))
    comparison = compared(tmp_path)
    assert (ours(comparison).mean, ours(comparison).shortened) == (-86.0, "")
    assert [aside.record.iterations for aside in comparison.asides] == [5000]


@pytest.mark.parametrize("iterations", [0, -1, "many", 1.5, True])
def test_iterations_that_are_none_are_a_problem(tmp_path, iterations):
    run = run_folder(tmp_path / "run", evaluation(86.0, iterations=iterations))
    only_problem(compared(tmp_path), run / EVALUATION, "iterations must be a positive whole number")


def test_a_prior_without_log_z(tmp_path):
    cell = ("table2", "mnist-1-linear", "joint-elbo")
    record_file(tmp_path / "a.json", cell, 106.7, log_partition=None)
    found = ours(compared(tmp_path), cell)
    assert (found.half_width, found.remarks) == (None, ())
    assert found.difference == pytest.approx(0.0)


# ---- the order of the methods ----------------------------------------------------------------------------------------


def seeds_of(folder, column, *values, row="mnist-nonlinear", table="table1", **more):
    for seed, value in enumerate(values):
        record_file(folder / f"{column}-{seed}.json", (table, row, column), -value, seed=seed, **more)


def orders(comparison):
    return [str(order) for table in comparison.tables for order in table.orders]


def test_the_order_of_the_methods(tmp_path):
    """By hand: three seeds a step of 0.1 apart have sd 0.1, a difference the error 0.082 and t(4) = 2.78 of it is 0.23.

    Published: joint -99.16, concrete -99.54, NVIL -100.00, MuProp -100.66, sd of about 0.1 over 5: all beyond noise.
    """
    exact = {"log_partition": None}
    seeds_of(tmp_path, "joint-elbo", -103.1, -103.0, -102.9, **exact)
    seeds_of(tmp_path, "concrete", -102.1, -102.0, -101.9, **exact)  # over joint: reversed, beyond the noise
    seeds_of(tmp_path, "nvil", -103.2, -103.1, -103.0, **exact)  # 0.1 below joint: within the noise
    seeds_of(tmp_path, "muprop", -103.9, **exact)  # one seed
    seeds_of(tmp_path, "arm", -101.9, -101.0, -100.1, **exact)  # beyond the paper
    comparison = compared(tmp_path)
    (order,) = comparison.tables[0].orders
    assert (order.row, order.label, order.remark) == ("mnist-nonlinear", "MNIST nonlinear", "")
    assert order.published == "Joint ELBO > Concrete > NVIL > MuProp"
    assert order.ours == "ARM ≈ Concrete > Joint ELBO ≈ NVIL ≳ MuProp"
    assert (order.pairs, order.agreeing, order.reversed) == (6, 5, ("Concrete over Joint ELBO",))
    line = (
        "MNIST nonlinear: paper Joint ELBO > Concrete > NVIL > MuProp; "
        "ours ARM ≈ Concrete > Joint ELBO ≈ NVIL ≳ MuProp; 5 of 6 pairs as published; "
        "reversed beyond the noise: Concrete over Joint ELBO"
    )
    assert orders(comparison) == [line]
    assert line in printed(comparison)
    assert html.escape(line) in to_html(comparison)
    assert "- " + line.replace(">", "&gt;") in to_markdown(comparison)
    (table, *_) = to_json(comparison)["tables"]
    assert [one["ours"] for one in table["orders"]] == [order.ours]


def test_an_order_says_in_what_the_runs_differ(tmp_path):
    seeds_of(tmp_path, "joint-elbo", -103.0)
    seeds_of(tmp_path, "nvil", -105.0, iterations=5000)
    assert orders(compared(tmp_path)) == [
        "MNIST nonlinear: paper Joint ELBO > NVIL; ours Joint ELBO ≳ NVIL; 1 of 1 pair as published; ours shortened; "
        "our runs differ in iterations"
    ]


def test_what_is_within_the_noise_is_not_reversed(tmp_path):
    """Marginal and joint are within the noise of each other, published and here."""
    seeds_of(tmp_path, "marginal-elbo", -103.2, -103.0, log_partition=None)
    seeds_of(tmp_path, "joint-elbo", -103.1, -102.9, log_partition=None)
    assert orders(compared(tmp_path)) == [
        "MNIST nonlinear: paper Marginal ELBO ≈ Joint ELBO; ours Joint ELBO ≈ Marginal ELBO; 0 of 1 pair as published"
    ]


def test_an_order_on_other_data_says_so(tmp_path):
    for column, value in (("rbm-overlapping", -104.0), ("rbm-rolfe", -103.0)):
        more = {"changes": {"data": "omniglot-substitute"}, "n_images": 8_115, "row": OMNIGLOT[1], "table": OMNIGLOT[0]}
        seeds_of(tmp_path, column, value, **more)
    assert orders(compared(tmp_path)) == [
        "OMNIGLOT 1 nonlinear: paper RBM (overlapping) > RBM (Rolfe); ours RBM (Rolfe) ≳ RBM (overlapping); "
        "0 of 1 pair as published; ours of other data"
    ]


def test_few_seeds_need_a_larger_difference(tmp_path):
    """By hand, sd 0.1: of two seeds each t(2) = 4.30 times 0.1 is 0.43; of twenty t(38) = 2.02 times 0.032 is 0.064."""
    for name, difference, said in (("less", 0.42, "≈"), ("more", 0.44, ">")):
        for column, value in (("rbm-overlapping", -90.0), ("rbm-rolfe", -90.0 - difference)):
            around = [value - 0.1 / math.sqrt(2), value + 0.1 / math.sqrt(2)]
            seeds_of(tmp_path / name, column, *around, row=CELL[1], table=CELL[0], log_partition=None)
        (line,) = orders(compared(tmp_path / name))
        assert f"ours RBM (overlapping) {said} RBM (Rolfe)" in line
    values = np.random.default_rng(0).standard_normal(20)
    values = 0.1 * (values - values.mean()) / values.std(ddof=1)
    for name, difference, said in (("less20", 0.063, "≈"), ("more20", 0.065, ">")):
        for column, value in (("rbm-overlapping", -90.0), ("rbm-rolfe", -90.0 - difference)):
            seeds_of(tmp_path / name, column, *(values + value), row=CELL[1], table=CELL[0], log_partition=None)
        (line,) = orders(compared(tmp_path / name))
        assert f"ours RBM (overlapping) {said} RBM (Rolfe)" in line


def test_a_wide_table_is_shown_in_parts(tmp_path):
    """In a terminal; the paper's columns together, those beyond it below, and there no rows that have nothing."""
    seeds_of(tmp_path, "arm", -109.25)
    text = printed(compared(tmp_path), width=100)
    first, second = text.split("Table 1, continued")
    assert "Marginal" in first
    assert "ARM" not in first
    (part, _) = second.split("Test log-likelihood", maxsplit=1)
    assert "ARM" in part
    assert "−109.25 [1]" in part
    assert "MNIST nonlinear" in part
    assert "OMNIGLOT" not in part
    assert "−108.35" not in part


def test_an_order_beyond_the_paper_is_compared_with_nothing(tmp_path):
    for column, value in (("rbm-power", -90.0), ("rbm-overlapping", -91.0)):
        seeds_of(tmp_path, column, value, row="mnist-4-nonlinear", table="table2", log_partition=None)
    assert orders(compared(tmp_path)) == ["MNIST 4 nonlinear: RBM (power) ≳ RBM (overlapping)"]


def test_brackets_of_log_z_count_as_noise(tmp_path):
    """0.3 apart, with brackets of half width 0.04 + 0.04 and of 0.2 + 0.2."""
    for name, width, said in (("narrow", 0.08, "≳"), ("wide", 0.4, "≈")):
        for column, value in (("rbm-overlapping", -90.0), ("rbm-rolfe", -90.3)):
            log_z = {"width": width, "consistent": True}
            seeds_of(tmp_path / name, column, value, row="mnist-1-nonlinear", table="table2", log_partition=log_z)
        (line,) = orders(compared(tmp_path / name))
        assert f"ours RBM (overlapping) {said} RBM (Rolfe)" in line


def test_one_method_has_no_order(tmp_path):
    seeds_of(tmp_path, "joint-elbo", -103.0)
    assert orders(compared(tmp_path)) == []
    assert "Orders:" not in to_markdown(compared(tmp_path))


# ---- runs and their files --------------------------------------------------------------------------------------------


def test_bits_per_dimension(tmp_path):
    """By hand: 3072 log 2 nats are one bit a dimension; 3.5 of them against 3.38 published are 0.12 worse."""
    experiment = {"table": "table3", "row": "rbm-overlapping-normal", "column": "cifar-10"}
    config = replace(CONFIG, data=replace(CONFIG.data, data="cifar10"))
    run_folder(tmp_path / "run", evaluation(3.5 * 3072 * math.log(2)), config=config, experiment=experiment)
    comparison = compared(tmp_path)
    found = ours(comparison, ("table3", "rbm-overlapping-normal", "cifar-10"))
    assert found.mean == pytest.approx(3.5)
    assert found.difference == pytest.approx(0.12)
    assert "+0.12" in to_markdown(comparison)


def test_the_projects_own_records_are_read():
    comparison = compared(ROOT / "benchmarks")
    assert not comparison.problems
    # The longest run of the cell is shown; the one of 5,000 iterations is among the others.
    longest = json.loads((ROOT / "benchmarks/2026-11-23-mnist-static-1-nonlinear-100k.json").read_text())
    (evaluation_,) = longest["evaluations"]
    assert ours(comparison).iterations == longest["iterations"] == 100_000
    assert ours(comparison).mean == pytest.approx(-evaluation_["negative_log_likelihood"])
    assert any(aside.record.iterations == 5_000 for aside in comparison.asides)
    assert ours(comparison).shortened == "100,000 of 1,000,000 iterations"
    assert any(aside.record.config["data"] == "digits" for aside in comparison.asides)


def test_a_file_may_hold_the_records_of_several_runs(tmp_path):
    one = json.loads((ROOT / "benchmarks/2026-11-23-mnist-static-1-nonlinear-100k.json").read_text())
    (tmp_path / "two.json").write_text(json.dumps({"runs": [one, {"config": one["config"]}, one]}))
    found = read([tmp_path])
    assert [record.source for record in found.records] == [f"{tmp_path / 'two.json'}, run {k}" for k in (0, 2)]
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path / 'two.json'}, run 1: is no record of a run: it must hold config and evaluations"
    ]


def test_a_run_folder_and_its_record_file_say_the_same(tmp_path):
    """From a real, tiny run to its line, by folder and by the file that benchmarks.record makes of it."""
    path = tmp_path / "runs" / "tiny"
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 2, (100, 4, 4), dtype=np.uint8))
    words = "--iterations 20 --latents 8 --hidden 8 --chains 8 --sweeps 1 --n-importance 3 --valid-importance 1"
    words += " --ais-temperatures 10 --ais-chains 8 --batch-size 20 --device cpu --backend torch"
    assert train.main([*words.split(), "--data", str(tmp_path / "images.npy"), "--out", str(path)]) == 0
    (tmp_path / "tiny.json").write_text(json.dumps(record_of_run(RunFolder(path))))
    of_folder, of_file = read([path]).records + read([tmp_path / "tiny.json"]).records
    config = {**of_folder.config, "data": "images.npy"}  # paths stay behind
    assert of_file == replace(of_folder, source=of_file.source, config=config)
    truth = json.loads((path / "evaluation-K3.json").read_text())
    assert of_folder.negative_log_likelihood == truth["negative_log_likelihood"]
    assert (of_folder.iterations, of_folder.n_images, of_folder.n_importance) == (20, 10, 3)
    assert of_folder.half_width == truth["log_partition"]["width"] / 2
    comparison = compared(tmp_path)
    assert not comparison.problems
    assert {aside.record.source for aside in comparison.asides} == {str(path), str(tmp_path / "tiny.json")}


# ---- what cannot be used ---------------------------------------------------------------------------------------------


def damaged(tmp_path, file, content):
    """A good run beside one with a file replaced."""
    run_folder(tmp_path / "good", evaluation(86.0))
    path = run_folder(tmp_path / "bad", evaluation(80.0, seed=1), seed=1) / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


EVALUATION = "evaluation-K4000.json"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (EVALUATION, '{"n_images": 100', ["no JSON"]),
        (EVALUATION, "", ["is empty"]),
        (EVALUATION, b"\xff\xfe{}", ["no JSON", "utf-8"]),
        (EVALUATION, "[" * 100_000, ["no JSON"]),
        (EVALUATION, "[]", ["table of names"]),
        (EVALUATION, "{}", ["n_images", "None"]),
        (EVALUATION, json.dumps(evaluation(math.nan)), ["negative_log_likelihood", "nan"]),
        (EVALUATION, json.dumps(evaluation("86")), ["negative_log_likelihood", "'86'"]),
        (EVALUATION, json.dumps(evaluation(10**400)), ["negative_log_likelihood"]),
        (EVALUATION, json.dumps(evaluation(86.0, n_images=0)), ["n_images", "0"]),
        (EVALUATION, json.dumps(evaluation(86.0, 10**400)), ["n_importance"]),
        (EVALUATION, json.dumps(evaluation(86.0, log_partition=[])), ["log_partition", "[]"]),
        ("config.json", "{", ["no JSON"]),
        ("config.json", "[]", ["table of names"]),
        ("config.json", '{"model": {"latent": 200}}', ["unknown", "did you mean 'model.latents'"]),
        ("config.json", '{"model": {"latents": -2}}', ["latents must be positive"]),
        ("config.json", '{"experiment": "table2"}', ["experiment", "'table2'"]),
        ("config.json", '{"experiment": {"table": "table2", "row": 1, "column": ""}}', ["experiment"]),
    ],
)
def test_a_damaged_file_is_one_line_and_the_rest_is_shown(tmp_path, file, content, words):
    path = damaged(tmp_path, file, content)
    comparison = compared(tmp_path)
    only_problem(comparison, path, *words)
    assert ours(comparison).seeds == (0,)
    for text in (to_markdown(comparison), to_html(comparison), printed(comparison)):
        assert "Could not be used" in text
        assert "−86.00" in text


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("metrics.jsonl", "", ["no row", "iterations"]),
        ("metrics.jsonl", '{"step": 1}\nxx\n{"step": 1000000}\n', ["line 2 is damaged"]),
        ("metrics.jsonl", '{"step": "many"}\n', ["step", "'many'"]),
        ("metrics.jsonl", b"\xff\n", ["cannot be read"]),
        ("environment.json", "{", ["no JSON", "device"]),
        ("environment.json", "[]", ["table of names"]),
    ],
)
def test_a_result_is_kept_when_only_its_circumstances_are_lost(tmp_path, file, content, words):
    path = damaged(tmp_path, file, content)
    comparison = compared(tmp_path / "bad")
    only_problem(comparison, path, *words)
    assert ours(comparison).mean == -80.0
    if file == "metrics.jsonl":
        assert ours(comparison).remarks == ("number of iterations not known",)


def test_a_last_line_cut_short_by_a_crash_is_no_problem(tmp_path):
    damaged(tmp_path, "metrics.jsonl", '{"step": 900000}\n{"step": 10')
    comparison = compared(tmp_path / "bad")
    assert not comparison.problems
    assert ours(comparison).shortened == "900,000 of 1,000,000 iterations"


def test_a_run_without_evaluation_waits(tmp_path):
    path = run_folder(tmp_path / "run")
    comparison = compared(tmp_path)
    assert comparison.waiting == (str(path),)
    assert not comparison.problems
    assert "Not evaluated yet" in to_markdown(comparison)


def test_a_half_written_folder(tmp_path):
    path = run_folder(tmp_path / "run", evaluation(86.0))
    (path / "config.json").unlink()
    only_problem(compared(tmp_path), path, "half a run folder", "no config.json")


def test_what_a_stopped_start_leaves_behind(tmp_path):
    path = run_folder(tmp_path / ".run.part1234")
    only_problem(compared(tmp_path), path, "left over")


def test_links(tmp_path):
    run = run_folder(tmp_path / "store" / "run", evaluation(86.0))
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "a").symlink_to(run)
    (runs / "again").symlink_to(run)
    (runs / "loop").symlink_to(runs)
    assert ours(compared(runs)).seeds == (0,)
    assert compared(runs).problems == compared(runs).asides == ()
    (runs / "self").symlink_to(runs / "self")
    only_problem(compared(runs), runs / "self", "cannot be read", "symbolic links")
    (runs / "self").unlink()
    (runs / "elsewhere").symlink_to(tmp_path)
    only_problem(compared(runs), runs / "elsewhere", "a link to a folder that is no run")


def test_what_may_not_be_read(tmp_path, monkeypatch):
    """The refusal is feigned: tests may run as root, whom nothing is refused."""
    run_folder(tmp_path / "good", evaluation(86.0))
    shut = run_folder(tmp_path / "shut", evaluation(80.0))
    everything = Path.iterdir

    def iterdir(path):
        if path == shut:
            raise PermissionError(13, "Permission denied")
        return everything(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    comparison = compared(tmp_path)
    only_problem(comparison, shut, "cannot be read: Permission denied")
    assert ours(comparison).mean == -86.0


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        (("table2", "mnist-1-nonlinaer", "rbm-overlapping"), ["row of Table 2", "did you mean 'mnist-1-nonlinear'"]),
        (("table2", "mnist-1-nonlinear", "rbm"), ["column of Table 2", "'rbm'"]),
        (("table9", "mnist-1-nonlinear", "rbm"), ["table 'table9'"]),
    ],
)
def test_an_unknown_cell_is_a_problem_and_the_record_is_still_listed(tmp_path, experiment, words):
    named = dict(zip(("table", "row", "column"), experiment, strict=True))
    path = run_folder(tmp_path / "run", evaluation(86.0), evaluation(87.0, 200), experiment=named)
    comparison = compared(tmp_path)
    only_problem(comparison, path, *words)
    assert [aside.record.negative_log_likelihood for aside in comparison.asides] == [87.0, 86.0]


def test_files_of_others_are_passed_over_unless_they_are_named(tmp_path):
    path = tmp_path / "speed.json"
    path.write_text('{"cases": []}')
    assert compared(tmp_path).problems == ()
    only_problem(compared(path), path, "no record of a run")
    path.write_text('{"config": {}}')
    only_problem(compared(tmp_path), path, "no record of a run")


def test_a_path_that_does_not_exist_is_a_bad_argument(tmp_path):
    with pytest.raises(ConfigError, match=r"that exist; .*nowhere: No such file") as error:
        read([tmp_path / "nowhere"])
    assert "\n" not in str(error.value)


# ---- renderings ------------------------------------------------------------------------------------------------------


class Outline(html.parser.HTMLParser):
    """Tags with their attributes, and whether they close as they should."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


HOSTILE = "<script>alert('1|2')</script> & `x` *ü* 模型 [a](b)\n# ‮\udcff"


@pytest.fixture
def hostile(tmp_path):
    """A good run, one with a name that no page should obey, and a damaged one with such a name."""
    folder = tmp_path / "runs"
    name = HOSTILE.replace("/", "∕")
    run_folder(folder / f"1{name}", evaluation(86.0))
    run_folder(folder / f"2{name}", evaluation(87.0), config=preset("digits"))
    run_folder(folder / f"3{name}")
    (run_folder(folder / f"4{name}", evaluation(88.0)) / EVALUATION).write_text("{")
    return compared(folder)


def test_html_is_well_formed_and_escapes_everything(hostile):
    text = to_html(hostile)
    text.encode("utf-8")
    outline = Outline(text)
    assert not {"script", "style"} & {tag for tag, _ in outline.tags}
    assert not any("style" in attributes for _, attributes in outline.tags)
    assert text.count("&lt;script&gt;") == 4
    for tag, attributes in outline.tags:
        assert tag != "th" or attributes["scope"] in ("col", "row", "rowgroup")
    assert [tag for tag, _ in outline.tags].count("table") == [tag for tag, _ in outline.tags].count("caption") == 5
    anchors = {attributes["id"] for _, attributes in outline.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in outline.tags if tag == "a"}
    assert links == {"#table2-1"}
    assert {link[1:] for link in links} <= anchors


def test_html_says_what_is_missing(tmp_path):
    outline = Outline(to_html(compared(tmp_path)))
    classes = [attributes.get("class", "") for tag, attributes in outline.tags if tag == "td"]
    assert classes.count("published number") == classes.count("ours missing number") == 24 + 32 + 25


def test_markdown_is_aligned_and_escapes_everything(hostile):
    text = to_markdown(hostile)
    text.encode("utf-8")
    assert "<" not in text
    assert "1\\|2" in text
    assert "\\[a\\](b)" in text
    block = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(re.sub(r"\\\|", "xx", line))
        elif block:
            assert len({len(one) for one in block}) == 1
            assert len({tuple(i for i, c in enumerate(one) if c == "|") for one in block}) == 1
            assert re.fullmatch(r"\|( -+[-:] \|)+", block[1])
            block = []


def test_a_terminal_shows_names_as_they_are(hostile):
    text = printed(hostile)
    text.encode("utf-8")
    assert "<script>alert('1|2')" in text
    assert "[a](b)" in text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text


def test_json_holds_everything(hostile):
    content = json.loads(json.dumps(to_json(hostile), allow_nan=False))
    cells = [cell for table in content["tables"] for cell in table["cells"]]
    assert len(cells) == 24 + 32 + 25
    (filled,) = [cell for cell in cells if cell["ours"] is not None]
    assert (filled["row"], filled["published"]["value"], filled["ours"]["mean"]) == ("mnist-1-nonlinear", -85.41, -86.0)
    assert (len(content["asides"]), len(content["waiting"]), len(content["problems"])) == (1, 1, 1)


def test_a_difference_that_rounds_to_nothing_has_no_sign(tmp_path):
    run_folder(tmp_path / "run", evaluation(85.4101))
    assert re.search(r"difference +\| +0\.00 ", to_markdown(compared(tmp_path)))
