"""A whole training iteration of "MNIST 1 nonlin.", with Gibbs sampling by one of our backends and by torch.

The images are random: what a step costs does not depend on what they show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.report import Case, rows
from benchmarks.timing import Timing, measure, on_device, wall_clock
from dvaepp.config import preset
from dvaepp.data import Dataset
from dvaepp.trainer import Trainer

_PRESET = "mnist-static-1-nonlinear"  # RBM 100x100, 1,000 chains, 40 sweeps, batches of 100


def random_images(n: int = 1000) -> Dataset:
    """Binary images of 28x28 random pixels."""
    rng = np.random.default_rng(0)
    train, valid, test = (rng.integers(0, 2, (size, 784), dtype=np.uint8) for size in (n, 100, 100))
    return Dataset("random", train, valid, test, 1, (28, 28), provenance="random pixels, for timing")


def iteration_timings(device: torch.device, backend: str, n_rounds: int) -> dict[str, Timing]:
    """One iteration with our sampler and with torch's, everything else the same; ours first."""
    trainers = {
        f"dvaepp, {backend}": Trainer(preset(_PRESET), random_images(), device, backend),
        "dvaepp, torch (rand < sigmoid)": Trainer(preset(_PRESET), random_images(), device, "torch"),
    }
    return measure({name: trainer.iterate for name, trainer in trainers.items()}, n_rounds, _clock(device))


def iteration_case(timings: Mapping[str, Timing], notes: Sequence[str] = ()) -> Case:
    """The table of ``iteration_timings``."""
    title = 'Training iteration, "MNIST 1 nonlin.", 1,000 chains x 40 sweeps'
    return Case(title, "iterations per second", rows(timings, 1, next(iter(timings))), notes)


def iteration_case_of_a_command(backend: str, n_rounds: int) -> Case:
    """``iteration_case`` on the CPU, timed in a process with the surroundings that our commands give themselves.

    The policy is read when torch is loaded, and torch alone is measured without it.
    """
    code = (
        "import json, sys, torch; from benchmarks.training import iteration_timings as timings; "
        f"found = timings(torch.device('cpu'), {backend!r}, {n_rounds}); "
        "print(json.dumps({name: timing.seconds.tolist() for name, timing in found.items()}))"
    )
    policy = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OMP_WAIT_POLICY": policy},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = {name: Timing(np.array(seconds)) for name, seconds in json.loads(done.stdout).items()}
    return iteration_case(found, [f"with OMP_WAIT_POLICY={policy}, as in our commands"])


def factorial_case(device: torch.device, backend: str, n_rounds: int) -> Case:
    """One iteration with the RBM prior, and one of the same networks with a factorial prior: no samples, no W."""
    config = preset(_PRESET)
    directed = replace(config, model=replace(config.model, prior="directed"))
    ours, factorial = f"RBM prior, {backend}", "factorial prior"
    candidates = {
        ours: Trainer(config, random_images(), device, backend).iterate,
        factorial: Trainer(directed, random_images(), device, backend).iterate,
    }
    table = rows(measure(candidates, n_rounds, _clock(device)), 1, factorial)
    title = 'Training iteration, "MNIST 1 nonlin.", with an RBM and with a factorial prior'
    return Case(title, "iterations per second (times are in units of the factorial prior's)", table)


def replicas_cases(device: torch.device, backend: str, n_rounds: int, n_replicas: int = 5) -> list[Case]:
    """One iteration of several seeds as one batched model, beside as many iterations of each alone."""
    rbm = preset(_PRESET)
    small = replace(
        rbm,
        model=replace(rbm.model, prior="directed", batch_norm=False),
        optimisation=replace(rbm.optimisation, batch_size=24),
    )
    cases = []
    for title, config in (("Table 1's size (batch 24, factorial prior)", small), ('"MNIST 1 nonlin." (RBM)', rbm)):
        configs = [replace(config, seed=seed) for seed in range(n_replicas)]
        alone = [Trainer(one, random_images(), device, backend) for one in configs]
        together = f"{n_replicas} replicas as one model"
        candidates: dict[str, Callable[[], object]] = {
            together: Trainer(configs, random_images(), device, backend).iterate,
            f"{n_replicas} runs, one after the other": partial(_iterate_all, alone),
        }
        table = rows(measure(candidates, n_rounds, _clock(device)), n_replicas, together)
        cases.append(Case(f"Replicas: an iteration of {n_replicas} seeds, {title}", "run iterations per second", table))
    return cases


def _iterate_all(trainers: Sequence[Trainer]) -> None:
    for trainer in trainers:
        trainer.iterate()


def _clock(device: torch.device) -> Callable[[Callable[[], object]], float]:
    return wall_clock if device.type == "cpu" else on_device(5)
