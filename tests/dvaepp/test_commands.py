"""The three commands as a user runs them, judged by exit code, files and words.

What depends on signals, limits or the interpreter's end runs in a process of its own; bad input is tried in this one,
by the same entry, because a process costs seconds.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import dvaepp.command as entry
from dvaepp import backend
from dvaepp import evaluate as evaluate_command
from dvaepp import sample as sample_command
from dvaepp import train as train_command
from dvaepp.backend import choose
from dvaepp.checkpoint import load, save

ROOT = Path(__file__).resolve().parents[2]

# Small enough for a few seconds, large enough to pass through several epochs, validations and checkpoints.
SMALL = [
    *("--iterations", "60", "--latents", "12", "--hidden", "16", "--chains", "20", "--sweeps", "2"),
    *("--log-every", "5", "--validate-every", "20", "--checkpoint-every", "10", "--n-importance", "4"),
    *("--valid-importance", "2", "--device", "cpu"),
]


def command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        **options,  # type: ignore[call-overload]
    )


def train(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return command("dvaepp.train", *arguments, **options)


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line on stderr with these words, exit code 2, no traceback."""
    assert result.returncode == 2, result
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert ": error: " in result.stderr
    for word in words:
        assert word in result.stderr, (word, result.stderr)


Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """Run a command's entry in this process and report it as a process would be."""

    def call(module: ModuleType, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        with pytest.raises(SystemExit) as stop:
            entry.run(module.PROG, lambda: module.main(words))
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(words, stop.value.code, printed.out, printed.err)

    return call


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own images: 200 small binary ones with structure (bars)."""
    rng = np.random.default_rng(0)
    bars = np.zeros((200, 6, 5), dtype=np.uint8)
    for image in bars:
        image[:, rng.integers(5)] = 1
        image[rng.integers(6), :] |= rng.integers(0, 2, 5, dtype=np.uint8)
    path = tmp_path_factory.mktemp("images") / "bars.npy"
    np.save(path, bars)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """An uninterrupted run, the judge of the interrupted ones."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    result = train(*SMALL, "--batch-size", 20, "--data", images, "--out", run)
    assert result.returncode == 0, result.stderr
    return run


def metrics(run: Path) -> list[dict]:
    """Rows of metrics without the wall-clock time, the one thing that may differ between two runs."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"]
    return rows


def evaluation(run: Path, n_importance: int = 4) -> dict:
    record = json.loads((run / f"evaluation-K{n_importance}.json").read_text())
    del record["seconds"]
    return record


# ---- what a run leaves behind ------------------------------------------------


def test_a_run_leaves_what_the_readme_says(finished: Path) -> None:
    files = {path.name for path in finished.iterdir()}
    assert files == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoint.safetensors",
        "best.safetensors",
        "evaluation-K4.json",
        "samples.png",
        "reconstructions.png",
        "learning_curves.png",
        "prior.png",
        "active_units.png",
    }
    rows = metrics(finished)
    assert [row["step"] for row in rows if "train" in row] == list(range(5, 61, 5))
    assert [row["step"] for row in rows if "valid" in row] == [20, 40, 60]
    config = json.loads((finished / "config.json").read_text())
    assert config["model"]["latents"] == 12
    environment = json.loads((finished / "environment.json").read_text())
    assert {"torch", "numpy"} <= environment["libraries"].keys()
    assert list((finished / "tensorboard").glob("events.*"))


def test_training_learns(finished: Path) -> None:
    valid = [row["valid"]["log_marginal"] for row in metrics(finished) if "valid" in row]
    assert valid == sorted(valid)
    train = [row["train"]["elbo"] for row in metrics(finished) if "train" in row]
    assert train[-1] > train[0] + 1.0


def test_the_reported_likelihood_is_the_exact_one(finished: Path) -> None:
    """12 latents can be enumerated: log p(x) = log sum_z p(z) p(x|z) by NumPy is what the record must say."""
    from dvaepp.evaluate import load_data
    from dvaepp.run_folder import RunFolder
    from dvaepp.trainer import load_best

    folder = RunFolder.open(finished)
    config = folder.config()
    dataset = load_data(config)
    model, _ = load_best(folder, config, dataset, torch.device("cpu"))
    states = (np.arange(2**12)[:, None] >> np.arange(12)) & 1
    with torch.no_grad():
        z = torch.tensor(states, dtype=torch.float32)
        logits = model.decode(z).double().numpy()
        energy = model.prior.energy(z[:, :6], z[:, 6:]).double().numpy()
    x = dataset.test.astype(np.float64)
    joint = x @ logits.T - np.logaddexp(0, logits).sum(1) - energy - np.logaddexp.reduce(-energy)
    exact = -np.logaddexp.reduce(joint, axis=1)
    result = command("dvaepp.evaluate", finished, "--n-importance", 2000)
    assert result.returncode == 0, result.stderr
    record = json.loads((finished / "evaluation-K2000.json").read_text())
    # with K = 2000 importance samples of 12 bits the bound is tight to a hundredth of a nat
    assert record["negative_log_likelihood"] == pytest.approx(exact.mean(), abs=0.02)
    assert record["log_partition"]["exact"]
    assert record["negative_log_likelihood"] <= -record["elbo"]
    (finished / "evaluation-K2000.json").unlink()


def test_evaluate_gives_the_numbers_of_training(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    first = evaluation(finished)
    result = command("dvaepp.evaluate", run, "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "-log p(x)" in result.stdout
    assert evaluation(run) == first
    other = command("dvaepp.evaluate", run, "--device", "cpu", "--seed", 7)
    assert other.returncode == 0, other.stderr
    assert evaluation(run) == first, "another seed must not overwrite the record"
    assert (run / "evaluation-K4-seed7.json").exists()


def test_sample_writes_picture_and_numbers(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.png"
    result = command(
        *("dvaepp.sample", finished, "--rows", 3, "--columns", 4, "--sweeps", 5, "--out", out, "--device", "cpu")
    )
    assert result.returncode == 0, result.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "mine.npz", allow_pickle=False) as numbers:
        assert numbers["z"].shape == (3, 12)
        assert numbers["means"].shape == (3, 6, 5)
        assert numbers["draws"].shape == (3, 3, 6, 5)
        assert set(np.unique(numbers["draws"])) <= {0, 1}
        assert ((numbers["means"] > 0) & (numbers["means"] < 1)).all()


# ---- interrupted and resumed ------------------------------------------------


def start(run: Path, images: Path) -> subprocess.Popen[str]:
    arguments = [*SMALL, "--batch-size", "20", "--data", str(images), "--out", str(run)]
    return subprocess.Popen(
        [sys.executable, "-m", "dvaepp.train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def wait_for_rows(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the run has written that many rows of metrics (it is then somewhere in the middle)."""
    for _ in range(100_000):  # minutes: the first process to come here compiles
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    raise AssertionError("the run did not get that far")


@pytest.mark.parametrize(("kind", "rows"), [("SIGKILL", 3), ("SIGINT", 4), ("SIGTERM", 9), ("SIGKILL", 14)])
def test_interrupted_and_resumed_equals_uninterrupted(
    kind: str, rows: int, tmp_path: Path, finished: Path, images: Path
) -> None:
    run = tmp_path / "run"
    process = start(run, images)
    wait_for_rows(run, rows, process)
    process.send_signal(getattr(signal, kind))
    out, error = process.communicate(timeout=60)
    if kind == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, error
        assert f"--resume {run}" in out.replace("\n", " ").replace("  ", " ")
    assert not (run / "evaluation-K4.json").exists(), "the run was over before the signal: nothing was tested"

    resumed = train("--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(run) == metrics(finished)
    assert evaluation(run) == evaluation(finished)
    assert not list(run.glob(".*part*"))
    assert not list(tmp_path.glob(".*part*"))


def test_a_cut_last_line_of_metrics_is_written_anew(tmp_path: Path, finished: Path, images: Path) -> None:
    run = tmp_path / "run"
    process = start(run, images)
    wait_for_rows(run, 5, process)
    process.kill()
    process.communicate()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "trai')
    assert train("--resume", run).returncode == 0
    assert metrics(run) == metrics(finished)


def test_images_that_moved_are_found_and_other_images_refused(
    tmp_path: Path, finished: Path, images: Path, here: Here
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = json.loads((run / "config.json").read_text())
    config["data"]["data"] = str(tmp_path / "gone.npy")
    (run / "config.json").write_text(json.dumps(config))
    refused(here(evaluate_command, run), "gone.npy")
    moved = tmp_path / images.name
    shutil.copy(images, moved)
    assert evaluate_command.main([str(run), "--data", str(moved), "--device", "cpu"]) == 0
    assert evaluation(run) == evaluation(finished)
    assert train_command.main(["--resume", str(run), "--data", str(moved)]) == 0
    np.save(moved, 1 - np.load(images))
    refused(here(evaluate_command, run, "--data", moved), "trained on other images")
    refused(here(train_command, "--resume", run, "--data", moved), "trained on other images")


def test_one_process_at_a_time(finished: Path, here: Here) -> None:
    from dvaepp.run_folder import RunFolder

    with RunFolder.open(finished).locked():
        refused(here(train_command, "--resume", finished), "another process is training this run")


def test_names_with_brackets_come_out_as_they_are(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a[b] :x: [/c]"
    shutil.copytree(finished, run)
    assert evaluate_command.main([str(run), "--device", "cpu"]) == 0
    assert "a[b] :x: [/c]" in capsys.readouterr().out.replace("\n", "")


def test_resume_of_a_finished_run_tests_it_again(finished: Path) -> None:
    before = metrics(finished), evaluation(finished)
    assert train("--resume", finished).returncode == 0
    assert (metrics(finished), evaluation(finished)) == before


# ---- backends ------------------------------------------------


def test_a_run_says_and_records_which_backend_it_uses(
    finished: Path, tmp_path: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    line = str(choose("auto", torch.device("cpu")))
    name = line.split()[1]
    assert json.loads((finished / "environment.json").read_text())["backend"] == name
    assert evaluation(finished)["backend"] == name
    assert load(finished / "checkpoint.safetensors")[1]["backend"] == name
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    for module, arguments in ((evaluate_command, [run]), (sample_command, [run, "--rows", 2, "--sweeps", 1])):
        result = here(module, *arguments, "--device", "cpu")
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[0] == line
        result = here(module, *arguments, "--device", "cpu", "--backend", "torch")
        assert result.stdout.splitlines()[0] == "backend: torch"
    assert evaluation(run)["backend"] == "torch"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs below."""
    monkeypatch.setattr("dvaepp.pictures.save_all", lambda *_: [])


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("change", [("torch", "numpy_oracle"), ("numpy_oracle", "torch")])
def test_a_run_may_go_on_with_another_backend(
    change: tuple[str, str], tmp_path: Path, images: Path, here: Here
) -> None:
    """It says so once, and then keeps to the new one; what it was started with is recorded in environment.json."""
    before, after = change
    run = tmp_path / "run"
    arguments = [*SMALL, "--batch-size", 20, "--data", images, "--iterations", 20]
    assert here(train_command, *arguments, "--backend", before, "--out", run).returncode == 0
    assert load(run / "checkpoint.safetensors")[1]["backend"] == before
    again = here(train_command, "--resume", run)
    assert "the run used" not in again.stdout
    assert f"backend: {before}\n" in again.stdout
    tensors, facts = load(run / "checkpoint.safetensors")
    save(run / "checkpoint.safetensors", tensors, facts | {"step": 10})  # ten iterations are left to do
    changed = here(train_command, "--resume", run, "--backend", after)
    said = f"the run used the backend {before}; with {after} its chains go on with other random numbers"
    assert said in changed.stdout.replace("\n", " ")
    assert changed.returncode == 0, changed.stderr
    assert evaluation(run)["backend"] == load(run / "checkpoint.safetensors")[1]["backend"] == after
    assert json.loads((run / "environment.json").read_text())["backend"] == before


@pytest.fixture
def fastest() -> str:
    name = choose("auto", torch.device("cpu")).name
    if name == "torch":
        pytest.skip("no accelerated backend runs here")
    return name


@pytest.mark.usefixtures("no_pictures")
def test_training_on_another_accelerated_backend_has_the_same_chains(
    fastest: str, tmp_path: Path, images: Path
) -> None:
    """Ten iterations: gradients differ in their last digits, too little for one of 4,800 uniforms to notice."""
    chains = {}
    for name in ("numpy_oracle", fastest):
        out = tmp_path / name
        arguments = [*SMALL, "--batch-size", "20", "--data", str(images), "--iterations", "10", "--backend", name]
        assert train_command.main([*arguments, "--out", str(out)]) == 0
        chains[name] = load(out / "checkpoint.safetensors")[0]
    for side in ("chains.z1", "chains.z2", "chains.step"):
        assert torch.equal(chains["numpy_oracle"][side], chains[fastest][side])


def test_samples_of_another_accelerated_backend_are_the_same(fastest: str, finished: Path, tmp_path: Path) -> None:
    """Parallel tempering of 12 replicas and then Gibbs sweeps: the numbers are Philox's on every backend."""
    drawn = {}
    for name in ("numpy_oracle", fastest):
        arguments = [str(finished), "--rows", "3", "--sweeps", "20", "--out", str(tmp_path / f"{name}.png")]
        assert sample_command.main([*arguments, "--device", "cpu", "--backend", name]) == 0
        with np.load(tmp_path / f"{name}.npz") as numbers:
            drawn[name] = {key: numbers[key] for key in numbers}
    for key, values in drawn["numpy_oracle"].items():
        np.testing.assert_array_equal(drawn[fastest][key], values)
    assert len(np.unique(drawn[fastest]["z"], axis=0)) > 1


@pytest.mark.usefixtures("no_pictures")
def test_a_checkpoint_from_before_backends_goes_on(finished: Path, tmp_path: Path, here: Here) -> None:
    run = tmp_path / "old"
    shutil.copytree(finished, run)
    tensors, facts = load(run / "checkpoint.safetensors")
    del tensors["chains.step"], facts["backend"]
    facts["step"] = 50  # ten iterations are left to do
    save(run / "checkpoint.safetensors", tensors, facts)
    result = here(train_command, "--resume", run)
    assert result.returncode == 0, result.stderr
    assert "the checkpoint is of an earlier version: its chains go on with other random numbers" in result.stdout
    tensors, facts = load(run / "checkpoint.safetensors")
    assert tensors["chains.step"] == 60 * 2
    assert facts["step"] == 60


def test_backends_that_cannot_be_used(finished: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, arguments in (
        (train_command, [*SMALL, "--out", finished.parent / "never"]),
        (train_command, ["--resume", finished]),
        (evaluate_command, [finished]),
        (sample_command, [finished]),
    ):
        refused(here(module, *arguments, "--backend", "numba_cup"), "unknown backend 'numba_cup'", "'numba_cpu'?")
        monkeypatch.setitem(sys.modules, "accelerated.backends.numba_cpu", None)
        backend.load.cache_clear()
        result = here(module, *arguments, "--device", "cpu", "--backend", "numba_cpu")
        refused(result, "backend 'numba_cpu' cannot run here: ", "use --backend auto")
        monkeypatch.undo()
        backend.load.cache_clear()
    assert not (finished.parent / "never").exists()


# ---- bad input: one line, exit code 2, nothing written ------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--preset", "mnist-static-1-nonlinaer"],
            ["unknown preset", "did you mean 'mnist-static-1-nonlinear'?", "--list"],
        ),
        (["--bta", "3"], ["unknown flag '--bta'", "did you mean '--beta'?"]),
        (["--bta=3"], ["unknown flag '--bta'"]),
        (["extra"], ["unexpected argument 'extra'"]),
        (["--beta", "0"], ["beta must be positive; got 0.0"]),
        (["--beta", "-1"], ["beta must be positive; got -1.0"]),
        (["--beta", "nan"], ["beta must be positive; got nan"]),
        (["--beta", "1e-46"], ["beta must lie in [0.01, 1000]"]),
        (["--beta", "1e39"], ["beta must lie in [0.01, 1000]"]),
        (["--latents", "4000000000000000000"], ["latents must be below 2147483648"]),
        (["--chains", "1" + "0" * 400], ["chains must be"]),
        (["--device", "cpu:"], ["device must be auto, cpu, cuda or cuda:N; got 'cpu:'"]),
        (["--data", "~nosuchuser/x.npy"], ["cannot be looked up"]),
        (["--data", ""], ["unknown data set ''"]),
        (["--preset", ""], ["unknown preset ''"]),
        (["--preset", "mnist-1-linear", "--preset", "digits"], ["--preset was given 2 times"]),
        (["--beta", "x"], ["--beta", "'x'"]),
        (["--beta"], ["--beta"]),
        (["--latents", "7"], ["latents must be even", "got 7"]),
        (["--latents", "0"], ["latents must be positive; got 0"]),
        (["--groups", "3", "--latents", "200"], ["groups must divide latents (200); got 3"]),
        (["--iterations", "0"], ["iterations must be positive"]),
        (["--iterations", "1.5"], ["--iterations", "1.5"]),
        (["--chains", "-5"], ["chains must be positive; got -5"]),
        (["--sweeps", "0"], ["sweeps must be positive"]),
        (["--n-importance", "0"], ["n_importance must be positive"]),
        (["--batch-size", "4001"], ["batch_size must not exceed the 4000 training images; got 4001"]),
        (["--network", "deep"], ["'deep'", "nonlinear"]),
        (["--seed", "-1"], ["seed must lie in"]),
        (["--device", "gpu"], ["device must be auto, cpu, cuda or cuda:N; got 'gpu'"]),
        (["--data", "digts"], ["unknown data set 'digts'", "did you mean 'digits'?"]),
        (["--data", "nowhere/x.npy"], ["nowhere/x.npy"]),
        (["--data-dir", "somewhere"], ["'digits' needs none", "preset"]),
        (["--preset", "mnist-static-1-nonlinear", "--data-dir", "nowhere"], ["nowhere"]),
        (["--resume", "nowhere"], ["nowhere is no run folder"]),
        (["--resume", "."], ["is no run folder: it has no config.json"]),
    ],
)
def test_bad_arguments(
    arguments: list[str], words: list[str], tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(here(train_command, *arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_in_a_process_of_their_own(tmp_path: Path) -> None:
    refused(train("--bta", "3", cwd=tmp_path), "unknown flag '--bta'", "did you mean '--beta'?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="this machine has a CUDA device")
def test_cuda_where_there_is_none(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(here(train_command, "--device", "cuda"), "device 'cuda' was asked for", "--device cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((50, 4, 4), np.nan), ["finite", "image 0, pixel 0 is nan"]),
        (np.full((50, 4, 4), 256), ["256"]),
        (np.full((50, 4, 4), -1), ["-1"]),
        (np.zeros((50,)), ["(50,)"]),
        (np.zeros((0, 4, 4)), ["(0, 4, 4)"]),
        (np.zeros((2, 4, 4), dtype=np.uint8), ["2"]),
        (np.array([["a"]]), ["<U1"]),
    ],
)
def test_bad_images(pixels: np.ndarray, words: list[str], tmp_path: Path, here: Here) -> None:
    path = tmp_path / "mine.npy"
    np.save(path, pixels)
    refused(here(train_command, "--data", path, "--out", tmp_path / "run"), "mine.npy", *words)
    assert not (tmp_path / "run").exists()


def test_truncated_images(tmp_path: Path, images: Path, here: Here) -> None:
    (tmp_path / "cut.npy").write_bytes(images.read_bytes()[:-100])
    refused(here(train_command, "--data", tmp_path / "cut.npy", "--out", tmp_path / "run"), "cut.npy")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_is_never_overwritten(finished: Path, images: Path, here: Here) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    refused(here(train_command, *SMALL, "--data", images, "--batch-size", 20, "--out", finished), "exists", "--resume")
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_resume_with_another_configuration(finished: Path, here: Here) -> None:
    refused(here(train_command, "--resume", finished, "--beta", "5"), "the run has beta = 10.0, not 5.0")
    refused(here(train_command, "--resume", finished, "--preset", "digits"), "--preset makes no sense with --resume")
    refused(here(train_command, "--resume", finished, "--out", "x"), "--out makes no sense with --resume")


def test_resume_of_a_damaged_run(finished: Path, tmp_path: Path, here: Here) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    whole = (run / "checkpoint.safetensors").read_bytes()
    (run / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(here(train_command, "--resume", run), "checkpoint.safetensors", "damaged")
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    (run / "checkpoint.safetensors").write_bytes(flipped)
    refused(here(train_command, "--resume", run), "checkpoint.safetensors", "digest")
    (run / "checkpoint.safetensors").unlink()
    refused(here(train_command, "--resume", run), "checkpoint.safetensors", "no such file")
    (run / "config.json").write_text('{"model": {"latnets": 12}}')
    refused(here(train_command, "--resume", run), "config.json", "latnets", "did you mean 'model.latents'?")
    (run / "config.json").write_text("{")
    refused(here(train_command, "--resume", run), "config.json")


def test_commands_on_what_is_no_run(tmp_path: Path, here: Here) -> None:
    for module in (evaluate_command, sample_command):
        refused(here(module, tmp_path / "none"), "is no run folder")
        refused(here(module, tmp_path), "it has no config.json")
        refused(here(module), "Run folder")


def test_bad_arguments_of_evaluate_and_sample(finished: Path, here: Here) -> None:
    refused(here(evaluate_command, finished, "--n-importance", 0), "n_importance must be positive")
    refused(here(evaluate_command, finished, "--n-importnce", 5), "did you mean '--n-importance'?")
    refused(here(sample_command, finished, "--rows", 0), "rows must be positive")
    refused(here(sample_command, finished, "--out", "x.jpg"), "out must end in .png")
    refused(here(sample_command, finished, "--out", "nowhere/x.png"), "does not exist")


def test_a_file_in_the_way_of_the_run_folder(tmp_path: Path, images: Path, here: Here) -> None:
    (tmp_path / "file").write_text("")
    refused(
        here(train_command, *SMALL, "--data", images, "--batch-size", 20, "--out", tmp_path / "file" / "run"),
        "cannot create",
    )
    assert (tmp_path / "file").read_text() == ""


def test_disk_full_at_the_start_leaves_nothing(tmp_path: Path, images: Path) -> None:
    """A limit on the size of files stands in for a full disk: the first checkpoint does not fit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    run = tmp_path / "run"
    result = train(*SMALL, "--data", images, "--batch-size", 20, "--out", run, preexec_fn=limit)
    refused(result, "cannot write", "checkpoint.safetensors")
    assert not run.exists()


def test_disk_full_later_keeps_the_last_checkpoint(tmp_path: Path, images: Path) -> None:
    """The metrics file outgrows the limit in the middle of the run; the checkpoint before it stays good."""
    run = tmp_path / "run"
    whole = train(*SMALL, "--data", images, "--batch-size", 20, "--out", tmp_path / "free")
    assert whole.returncode == 0, whole.stderr
    checkpoint = (tmp_path / "free" / "checkpoint.safetensors").stat().st_size

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (checkpoint + 200, checkpoint + 200))

    long = [*SMALL, "--log-every", "1", "--iterations", "4000", "--validate-every", "4000"]
    result = train(*long, "--data", images, "--batch-size", 20, "--out", run, preexec_fn=limit)
    refused(result, "cannot write to", "the last checkpoint is kept", "--resume")
    _, facts = load(run / "checkpoint.safetensors")
    assert facts["step"] >= 0


@pytest.mark.parametrize("backend", ["auto", "torch", "numpy_oracle"])
def test_a_run_that_diverges_says_where_and_keeps_its_checkpoint(
    backend: str, tmp_path: Path, images: Path, here: Here
) -> None:
    """Some backends notice parameters that are not finite before any term of the objective can."""
    run = tmp_path / "run"
    arguments = [*SMALL, "--data", images, "--batch-size", 20, "--learning-rate", "1e38", "--backend", backend]
    result = here(train_command, *arguments, "--out", run)
    refused(result, "became NaN or infinite at iteration", "last good checkpoint", "--learning-rate")
    tensors, facts = load(run / "checkpoint.safetensors")
    assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("model."))
    assert facts["step"] < 60


def test_list_and_help() -> None:
    listed = train("--list")
    assert listed.returncode == 0
    assert "mnist-static-1-nonlinear" in listed.stdout
    helped = train("--help")
    assert helped.returncode == 0
    for flag in ("--preset", "--resume", "--backend", "--beta", "--chains", "--data-dir", "--n-importance"):
        assert flag in helped.stdout
