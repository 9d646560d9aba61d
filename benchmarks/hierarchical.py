"""What DVAE++ costs: ``python -m benchmarks.hierarchical``. Some ten minutes on two cores that do nothing else.

    execution   images a second of training, by each way of computing it, in turns
    parts       the share of an iteration that each part takes, forward and backward
    memory      the peak of a fresh process, and what one image more adds to it
    processes   images a second of one process and of two, and of two that have nothing to do with each other, which is
                what two can come to on this machine; a third of the rounds, for each is a training run

Two sizes are measured: that of the preset mnist-dvaepp, and the default of the model's flags, 16 groups of 32 channels
at a width of 32, with the prior of Table 3. Images are random pixels of 28x28: what an iteration costs does not depend
on what they show. Writes benchmarks/DATE-hierarchical-DEVICE.json and .md, or DATE-hierarchical-SECTIONS-DEVICE.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.report import HERE, Case, Row, cases_of, environment, rows, write
from benchmarks.timing import Timing, measure, on_device, wall_clock
from benchmarks.training import random_images
from dvaepp.backend import choose
from dvaepp.boltzmann import RBM
from dvaepp.command import choose_device, device_name, parse, run
from dvaepp.config import Config, ExecutionConfig, HierarchyConfig, preset
from dvaepp.environment import cpu_name, peak_memory
from dvaepp.models.hierarchical import HierarchicalVAE, Inferred
from dvaepp.run_folder import RunFolder
from dvaepp.smoothing import create
from dvaepp.trainer import Trainer

PROG = "benchmarks.hierarchical"
PRESET = "mnist-dvaepp"
_AS_IT_IS = "as it is"

#: Ways of computing the same; bfloat16 is another rounding.
EXECUTIONS = {
    _AS_IT_IS: ExecutionConfig(),
    "--channels-last": ExecutionConfig(channels_last=True),
    "--compile": ExecutionConfig(compile=True),
    "--precision bfloat16": ExecutionConfig(precision="bfloat16"),
    "--recompute": ExecutionConfig(recompute=True),
}


@dataclass(frozen=True)
class Command:
    """Measure what training DVAE++ costs in time and memory."""

    sections: tuple[str, ...] = ("execution", "parts", "memory", "processes")
    """Sections to run."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is CUDA where there is a device."""
    rounds: int = 5
    """Rounds in which all candidates take turns."""


def sizes(device: torch.device) -> dict[str, Config]:
    """What is measured, by name; on a CPU the large model has small batches."""
    small = preset(PRESET)
    large = replace(
        small,
        model=replace(small.model, groups=4, hidden=256),
        hierarchy=HierarchyConfig(),
        prior=replace(small.prior, chains=1000, sweeps=40),
        optimisation=replace(small.optimisation, batch_size=20 if device.type == "cpu" else 100),
    )
    return {PRESET: small, "16 groups x 32 channels, width 32": large}


def trainer_of(config: Config, device: torch.device) -> Trainer:
    """A trainer on random pixels, with the backend that a user gets."""
    return Trainer(config, random_images(), device, choose("auto", device).name)


def execution_cases(device: torch.device, command: Command) -> list[Case]:
    """A training iteration by each way of computing it."""
    cases = []
    for size, config in sizes(device).items():
        candidates = {
            name: trainer_of(replace(config, execution=execution), device).iterate
            for name, execution in EXECUTIONS.items()
        }
        batch = config.optimisation.batch_size
        table = rows(measure(candidates, command.rounds, _clock(device)), batch, _AS_IT_IS)
        title = f"Training iteration of {batch} images, {size}"
        cases.append(Case(title, f"images per second (times are in units of '{_AS_IT_IS}')", table))
    return cases


def part_cases(device: torch.device, command: Command) -> list[Case]:
    """The parts of an iteration, each alone on inputs that are given, beside the whole of it."""
    cases = []
    for size, config in sizes(device).items():
        trainer = trainer_of(config, device)
        candidates = {"the whole iteration": trainer.iterate, **parts(trainer)}
        timings = measure(candidates, command.rounds, _clock(device))
        batch = config.optimisation.batch_size
        table = rows(timings, batch, "the whole iteration")
        covered = sum(timing.median for name, timing in timings.items() if name != "the whole iteration")
        notes = [f"the parts together take {covered / timings['the whole iteration'].median:.2f} of the whole"]
        title = f"Parts of an iteration of {batch} images, {size}"
        cases.append(Case(title, "images per second (times are shares of the whole)", table, notes))
    return cases


def parts(trainer: Trainer) -> dict[str, Callable[[], object]]:
    """What an iteration does, piece by piece, forward and backward."""
    model, config = trainer.model, trainer.config
    assert isinstance(model, HierarchicalVAE)
    prior = model.prior
    assert isinstance(prior, RBM)
    run_ = trainer.runs[0]
    smoothing = create(config.model.smoothing, config.model.beta, trainer.backend)
    x = run_.images.batch(0, config.optimisation.batch_size, run_.generator)
    noise = model.noise(len(x), run_.generator)
    with torch.no_grad():
        evidence, features = model.encode(x)
        inferred = model.infer(x, noise, smoothing)
        start = model.spread(model.z_units.seen(inferred.zeta))
    evidence, features, start = (tensor.detach().requires_grad_() for tensor in (evidence, features, start))
    inferred = _with_gradients(inferred)

    def local_groups() -> list[Tensor]:
        state, said = start, []
        for group, own in zip(model.locals, noise.h, strict=True):
            seen, p, q = group(state, evidence)
            state = group.extend(seen, model.h_units.draw(own, q, smoothing))  # type: ignore[operator]
            said += [*p, *q]
        return [*said, state]

    def spread() -> Tensor:
        zeta, _ = model.global_posterior(features, noise.z, smoothing)
        result: Tensor = model.spread(model.z_units.seen(zeta))
        return result

    named: dict[str, tuple[Callable[[], Tensor | Iterable[Tensor]], Sequence[nn.Module]]] = {
        "encoder": (lambda: model.encode(x), [model.encoder]),
        "global latents and upsampling network": (spread, [model.posteriors, model.spread]),
        "local groups": (local_groups, [model.locals]),
        "KL of the local groups": (lambda: model.local_kl(inferred, smoothing), []),
        "decoder with its log-likelihood": (lambda: model.decoder.log_prob(inferred.state, x), [model.decoder]),
    }
    inputs = [evidence, features, start, inferred.state, *_leaves(inferred)]
    found: dict[str, Callable[[], object]] = {
        name: partial(_forward_and_backward, part, [*inputs, *(p for net in networks for p in net.parameters())])
        for name, (part, networks) in named.items()
    }
    assert run_.sampler is not None
    found["samples of the prior"] = partial(run_.sampler.sample, prior)
    found["log Z for the balance, in the warm-up"] = trainer.log_partition_for_balance
    found["optimiser, clipping and average"] = partial(_update, trainer)
    found["images and noise"] = lambda: (
        run_.images.batch(0, len(x), run_.generator),
        model.noise(len(x), run_.generator),
    )
    return found


def _update(trainer: Trainer) -> None:
    trainer.runs[0].update()
    if trainer.average is not None:
        trainer.average.update(trainer.model, 0)


def _with_gradients(inferred: Inferred) -> Inferred:
    """The same values as leaves that take gradients."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_()

    return Inferred(
        leaf(inferred.zeta),
        leaf(inferred.q_z),
        leaf(inferred.state),
        [leaf(h) for h in inferred.h],
        [type(q)(*map(leaf, q)) for q in inferred.q_h],
        [type(p)(*map(leaf, p)) for p in inferred.p_h],
    )


def _leaves(inferred: Inferred) -> list[Tensor]:
    return [tensor for said in (*inferred.q_h, *inferred.p_h) for tensor in said]


def _forward_and_backward(part: Callable[[], Tensor | Iterable[Tensor]], inputs: Sequence[Tensor]) -> None:
    said = part()
    outputs = [said] if isinstance(said, Tensor) else list(said)
    torch.autograd.grad(outputs, inputs, [torch.ones_like(output) for output in outputs], allow_unused=True)


def memory_cases(device: torch.device, command: Command) -> list[Case]:
    """Peak memory of fresh processes that train, at two sizes of batch."""
    cases = []
    for index, (size, config) in enumerate(sizes(device).items()):
        batch = config.optimisation.batch_size
        notes = []
        for name, execution in EXECUTIONS.items():
            if execution.compile:
                continue  # the compiler's own memory would be what is measured
            peaks = [_peak_in_a_process(device, index, execution, count) for count in (batch, 2 * batch)]
            notes.append(
                f"{name}: {peaks[0] / 2**20:.0f} MiB at most with batches of {batch}, "
                f"{(peaks[1] - peaks[0]) / batch / 2**20:.2f} MiB for each image more"
            )
        cases.append(Case(f"Peak memory of training, {size}", "", [], notes))
    return cases


def _peak_in_a_process(device: torch.device, size: int, execution: ExecutionConfig, batch: int) -> int:
    code = (
        f"import torch; from benchmarks import hierarchical as h; from dvaepp.config import ExecutionConfig; "
        f"h.train_and_print_memory(torch.device({str(device)!r}), {size}, {execution!r}, {batch})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def train_and_print_memory(device: torch.device, size: int, execution: ExecutionConfig, batch: int) -> None:
    """Print the bytes that this process held at most, on the device, in two iterations; of a CPU on Linux only."""
    config = list(sizes(device).values())[size]
    config = replace(config, execution=execution, optimisation=replace(config.optimisation, batch_size=batch))
    trainer = trainer_of(config, device)
    for _ in range(2):
        trainer.iterate()
    print(peak_memory(device))


def process_cases(device: torch.device, command: Command) -> list[Case]:
    """The command of a user by one process and by two; on devices, that takes two of them."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return [Case("Two processes", "", [Row("two processes", missing="there is one device")])]
    one, two, apart = "one process, one thread", "two processes, one thread each", "two that train apart, together"
    one_two = "one process, two threads"
    ways = {one: (1, 1, 1), one_two: (1, 1, 2), two: (1, 2, 1), apart: (2, 1, 1)}
    cases = []
    for batch in (preset(PRESET).optimisation.batch_size, 4 * preset(PRESET).optimisation.batch_size):
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(max(1, command.rounds // 3)):
            for name, (jobs, processes, threads) in ways.items():
                seconds[name].append(_seconds_of_runs(device, batch, jobs, processes, threads) / jobs)
        timings = {name: Timing(np.array(values)) for name, values in seconds.items()}
        notes = [
            f"two processes train {1 / timings[two].ratio_to(timings[one]):.2f} times as fast as one",
            f"two that have nothing to do with each other do {1 / timings[apart].ratio_to(timings[one]):.2f} times the "
            "work of one: what two can come to on this machine",
        ]
        title = f"Training {PRESET}, batches of {batch}, by python -m dvaepp.train"
        cases.append(Case(title, "images per second", rows(timings, batch, one), notes))
    return cases


def _seconds_of_runs(device: torch.device, batch: int, jobs: int, processes: int, threads: int) -> float:
    """Seconds of an iteration in the middle of a run, the mean of ``jobs`` that are run at once."""
    train = ["-m", "dvaepp.train"]
    if processes > 1:
        train = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *train]
    surroundings = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as where, ExitStack() as stack:
        images = Path(where) / "random.npy"
        np.save(images, random_images().train.reshape(-1, 28, 28))
        folders = [Path(where) / f"run-{job}" for job in range(jobs)]
        flags = f"--preset {PRESET} --batch-size {batch} --iterations 24 --log-every 4 --validate-every 1000"
        flags += f" --n-importance 1 --ais-temperatures 2 --ais-chains 2 --device {device.type}"
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *train, *flags.split(), "--data", str(images), "--out", str(folder)],
                    env=surroundings,
                    stdout=subprocess.DEVNULL,
                )
            )
            for folder in folders
        ]
        for process in started:
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, process.args)
        found = []
        for folder in folders:
            times = [row["seconds"] for row in RunFolder.open(folder).read_metrics() if "train" in row]
            found.append((times[-2] - times[1]) / (4 * (len(times) - 3)))  # neither the first ones nor the last
        return float(np.mean(found))


def _clock(device: torch.device) -> Callable[[Callable[[], object]], float]:
    return wall_clock if device.type == "cpu" else on_device(3)


SECTIONS = {
    "execution": execution_cases,
    "parts": part_cases,
    "memory": memory_cases,
    "processes": process_cases,
}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(Command, arguments, PROG)
    device = choose_device(command.device)
    cases = cases_of(SECTIONS, command.sections, device, command)
    on = cpu_name() if device.type == "cpu" else device_name(device)
    what = "" if command.sections == Command().sections else "-" + "-".join(command.sections)
    for path in write(
        f"hierarchical{what}-{device.type}", environment(on), cases, " ".join(["python -m", PROG, *arguments])
    ):
        print(path.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
