"""Several processes that train one model: the numbers of one process, and what happens when one of them ends."""

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

from dvaepp import train, training
from dvaepp.boltzmann import RBM
from dvaepp.checkpoint import load
from dvaepp.config import Config
from dvaepp.errors import ConfigError, RunError
from dvaepp.evaluate import load_data
from dvaepp.gibbs import PersistentChains
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import Trainer
from dvaepp.world import World, collective, join, other_process

ROOT = Path(__file__).parents[2]


def flags(images, iterations=6):
    return [
        *("--network", "convolutional", "--latents", "4", "--groups", "2", "--hidden", "8", "--layers", "1"),
        *("--local-groups", "2", "--local-channels", "2", "--width", "4", "--halvings", "1", "--local-halvings", "1"),
        *("--chains", "10", "--sweeps", "2", "--iterations", str(iterations), "--batch-size", "12", "--ema", "0.9"),
        *("--accumulate", "3", "--valid-importance", "2", "--n-importance", "3", "--log-every", "3"),
        *("--validate-every", "3", "--checkpoint-every", "3", "--data", str(images), "--device", "cpu"),
        *("--backend", "torch", "--learning-rate", "0.01"),
    ]


def start(arguments, processes=2):
    """The command in several processes, as a user would start it."""
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "dvaepp.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", *command, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "noise.npy"
    np.save(path, (np.random.default_rng(0).random((120, 4, 4)) < 0.3).astype(np.uint8))
    return path


def assert_close_runs(folder, other):
    ours, theirs = (load(path / "checkpoint.safetensors")[0] for path in (folder, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if name.startswith("chains.") or name == "generator":
            assert torch.equal(tensor, theirs[name]), name
        elif not name.startswith("optimiser."):
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=2e-4, msg=name)
    records = [json.loads((path / "evaluation-K3.json").read_text()) for path in (folder, other)]
    for name in ("negative_log_likelihood", "elbo", "kl", "reconstruction"):
        assert records[0][name] == pytest.approx(records[1][name], abs=2e-3)
    rows = [RunFolder.open(path).read_metrics() for path in (folder, other)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for ours, theirs in zip(*rows, strict=True):
        kind = "train" if "train" in ours else "valid"
        for name, value in ours[kind].items():
            assert value == pytest.approx(theirs[kind][name], rel=2e-2, abs=5e-3), name


def test_two_processes_do_what_one_does_and_one_goes_on_where_two_stood(images, tmp_path):
    """Bit for bit where nothing is summed (chains, the generator), else to the rounding of sums in another order."""
    two = start([*flags(images), "--out", tmp_path / "two"])
    assert train.main([*flags(images), "--out", str(tmp_path / "one")]) == 0
    said, _ = two.communicate(timeout=240)
    assert two.returncode == 0, said
    assert said.count("test images") >= 1
    assert said.count("pictures in") == 1  # the first process speaks for all
    assert_close_runs(tmp_path / "two", tmp_path / "one")


def test_a_killed_process_ends_the_job_with_a_message_and_resume_goes_on(images, tmp_path):
    run = tmp_path / "run"
    job = start([*flags(images, iterations=100_000), "--out", run])
    try:
        deadline = time.monotonic() + 120
        metrics = run / "metrics.jsonl"
        while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("valid") >= 2):
            time.sleep(0.2)
        children = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and _is_second_process_of(entry, job.pid)
        ]
        assert len(children) == 1
        os.kill(children[0], signal.SIGKILL)
        said, _ = job.communicate(timeout=120)
    finally:
        job.kill()
    assert job.returncode != 0
    lines = [line for line in said.splitlines() if line.startswith("train: error:")]
    assert len(lines) == 1
    assert "another process of the group has ended" in lines[0]
    assert "--resume" in lines[0]
    folder = RunFolder.open(run)
    config = folder.config()
    loaded = load(folder.checkpoint)
    trainer = Trainer(config, load_data(config), torch.device("cpu"))
    trainer.restore([folder], [loaded])
    assert trainer.step == loaded[1]["step"] >= 3
    trainer.iterate()


def _is_second_process_of(entry, launcher):
    try:
        parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        return parent == launcher and b"\0RANK=1\0" in b"\0" + (entry / "environ").read_bytes()
    except OSError:
        return False


def test_shares_are_equal_parts():
    assert [World(rank, 3).share(12, "chains") for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    assert World().share(7, "chains") == slice(0, 7)
    with pytest.raises(ConfigError, match=r"batch_size must be a multiple of the 3 processes.*; got 20: use 18"):
        World(1, 3).share(20, "batch_size")
    with pytest.raises(ConfigError, match="got 2: use 3"):
        World(1, 3).share(2, "batch_size")


@pytest.mark.parametrize("backend", ["torch", "numba_cpu"])
def test_chains_carried_on_in_parts_are_the_chains_of_one_process(backend):
    generator = torch.Generator().manual_seed(0)
    rbm = RBM.of(*(torch.randn(shape, generator=generator) for shape in ((5,), (4,), (5, 4))))
    whole, parts = PersistentChains(12, 5, 4, seed=1), [PersistentChains(12, 5, 4, seed=1) for _ in range(3)]
    for _ in range(2):
        whole.run(rbm, 3, backend)
        for rank, part in enumerate(parts):
            part.run(rbm, 3, backend, World(rank, 3).share(12, "chains"))
    for rank, part in enumerate(parts):
        own = World(rank, 3).share(12, "chains")
        assert torch.equal(part.states()[own], whole.states()[own])
        assert int(part.step) == int(whole.step) == 6


def test_processes_of_different_configurations_are_refused(monkeypatch):
    world = World(0, 2)
    monkeypatch.setattr(World, "gather", lambda self, value: [value, {**value, "learning_rate": 0.2}])
    with pytest.raises(ConfigError, match=r"one configuration; learning_rate is 0.1 in process 0 and 0.2 in process 1"):
        world.check_same("configuration", {"seed": 0, "learning_rate": 0.1})
    world.check_same("configuration", {"seed": 0})


def test_small_networks_are_trained_by_one_process():
    with pytest.raises(ConfigError, match=r"network nonlinear is trained by one process.*; got 2: .* --replicas"):
        Trainer(Config(), load_data(Config()), torch.device("cpu"), world=World(0, 2))


def test_an_environment_that_is_not_torchruns(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ConfigError, match="start the processes with torchrun, or unset WORLD_SIZE"), join("cpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with join("cpu") as (world, device):
        assert (world.size, device) == (1, "cpu")


def test_a_ctrl_c_that_torchrun_passes_on_is_one_and_not_two(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    with training._Interrupts() as interrupts:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            assert interrupts.requested
        now[0] += 2.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_first_process_of_a_machine_says_what_is_wrong(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for local, others in (("0", False), ("1", True)):
        monkeypatch.setenv("RANK", "3")
        monkeypatch.setenv("LOCAL_RANK", local)
        assert other_process() is others


def test_only_what_the_network_says_is_put_down_to_it():
    with pytest.raises(RunError, match="cannot be reached"), collective():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), collective():
        raise RuntimeError("shape mismatch")
