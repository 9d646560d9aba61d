"""Test a trained model: ``python -m dvaepp.evaluate RUN --n-importance K``.

-log p(x) in the binary limit by K importance samples, log Z between two annealing estimates, written to the run folder.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from dvaepp import data
from dvaepp.backend import AUTO, choose
from dvaepp.boltzmann import RBM
from dvaepp.bound import ACTIVE, Likelihood, likelihood_of_all, local_kl_of_all, posterior_base, posterior_means
from dvaepp.command import choose_device, console, device_name, parse, run
from dvaepp.config import Config
from dvaepp.data.batches import to_device
from dvaepp.errors import ConfigError
from dvaepp.models import HierarchicalVAE, Model
from dvaepp.partition import bracket
from dvaepp.randomness import generator, named_seed
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import images_of, load_best
from dvaepp.world import World
from reference.likelihoods import bits_per_dimension
from reference.partition import Bracket

PROG = "evaluate"


@dataclass(frozen=True)
class Command:
    """Test a trained model on all test images: -log p(x) by importance sampling, with a log Z bracket."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, as written by python -m dvaepp.train."""
    n_importance: int | None = None
    """Importance samples per image; by default what the run was configured with."""
    ais_temperatures: int | None = None
    """Temperatures of annealed importance sampling; by default what the run was configured with."""
    ais_chains: int | None = None
    """Chains of annealed importance sampling; by default what the run was configured with."""
    seed: int | None = None
    """Seed of the evaluation's noise; by default the run's."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    backend: str = AUTO
    """Who samples the prior: torch, numba_cpu, numba_cuda, cupy_raw or numpy_oracle; auto is the fastest that runs."""
    data: str | None = None
    """Where your own images lie now, if not where training found them."""
    data_dir: str | None = None
    """Where the files of a registered data set lie now, if not where training found them."""


def main(arguments: Sequence[str]) -> int:
    """Evaluate a run and print the table; returns the exit code."""
    command = parse(Command, arguments, "python -m dvaepp.evaluate")
    folder = RunFolder.open(command.run)
    config = folder.config()
    changes = {
        name: value
        for name in ("n_importance", "ais_temperatures", "ais_chains")
        if (value := getattr(command, name)) is not None
    }
    config = config.with_evaluation(**changes)
    device = choose_device(command.device)
    backend = choose(command.backend, device)
    dataset = load_data(config, command.data, command.data_dir)
    model, best = load_best(folder, folder.config(), dataset, device)
    out = console()
    out.print(str(backend))
    seed = config.seed if command.seed is None else command.seed
    record = evaluate(model, dataset, config, device, out, seed, backend.name)
    record |= {"weights_of_step": best["step"], "iterations": folder.iterations()}
    path = folder.write_record(record_name(config, seed), record)
    print_result(record, out)
    out.print(f"written to {path}")
    return 0


def record_name(config: Config, seed: int) -> str:
    """File name of an evaluation: what tells it from others of the same run."""
    other_seed = "" if seed == config.seed else f"-seed{seed}"
    return f"evaluation-K{config.evaluation.n_importance}{other_seed}.json"


def load_data(config: Config, images: str | None = None, data_dir: str | None = None) -> data.Dataset:
    """The configured data set, from another place if one is given, binarised once if it is configured so."""
    name = config.data.data if images is None else images
    where = config.data.data_dir if data_dir is None else data_dir
    dataset = data.load(name, None if where is None else Path(where), config.data.binarisation_seed)
    return dataset.binarised(config.data.binarisation_seed) if config.data.binarisation == "static" else dataset


def evaluate(
    model: Model,
    dataset: data.Dataset,
    config: Config,
    device: torch.device,
    out: Console,
    seed: int,
    backend: str,
    world: World | None = None,
) -> dict[str, Any]:
    """Test a model on all test images and return the record, numbers in nats.

    The processes of a world share the images of the likelihood; the first one does the rest for all.

    Raises   ConfigError for a negative seed.
    """
    if seed < 0:
        raise ConfigError(f"seed must not be negative; got {seed}")
    started = time.perf_counter()
    settings = config.evaluation
    world = World() if world is None else world
    noise = generator(device, seed, "test")
    valid, test = (to_device(images_of(dataset, split, config), device) for split in ("valid", "test"))
    log_z = None
    prior = model.prior
    if isinstance(prior, RBM):
        with out.status("log Z by annealed importance sampling, both directions ..."):
            log_z = world.by_first(
                lambda: bracket(
                    prior,
                    posterior_base(model, valid, noise),
                    settings.ais_temperatures,
                    settings.ais_chains,
                    named_seed(seed, "log Z in test"),
                    backend=backend,
                )
            )
    with progress_bar(out) as progress:
        task = progress.add_task(f"test images, {settings.n_importance} samples each", total=len(test), terms="")
        advance = functools.partial(progress.advance, task)
        result = likelihood_of_all(model, test, settings.n_importance, seed, "test of images", world, advance)
    record = summarise(result, log_z, settings.n_importance)
    record["active_units"] = world.by_first(
        lambda: int((posterior_means(model, test, noise).var(0, correction=0) > ACTIVE).sum())
    )
    if isinstance(model, HierarchicalVAE):
        record["local_kl"] = world.by_first(lambda: local_kl_of_all(model, test, noise).tolist())
        if model.levels > 1:
            nats = record["negative_log_likelihood"]
            record["bits_per_dimension"] = float(bits_per_dimension(nats, dataset.test.shape[1]))
    record |= {
        "data": dataset.name,
        "latents": model.n_latents,
        **({} if log_z is None else {"ais_temperatures": settings.ais_temperatures, "ais_chains": settings.ais_chains}),
        "seed": seed,
        "device": device_name(device),
        "backend": backend,
        "seconds": time.perf_counter() - started,
    }
    return record


def progress_bar(out: Console) -> Progress:
    """A bar with a count, the remaining time and room for live terms."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"),
        console=out,
        transient=True,
        refresh_per_second=4,
    )


def summarise(result: Likelihood, log_z: Bracket | None, n_importance: int) -> dict[str, Any]:
    """Means over the test images with standard errors, at the middle of the log Z bracket and at its ends.

    The forward estimate errs low and the reverse one high, by equal amounts to first order: their middle is the best
    single value, and a likelihood at ``high`` is the cautious claim. A directed prior has no log Z (None).
    """
    count = len(result.log_marginal)
    middle, low, high = 0.0, 0.0, 0.0
    if log_z is not None:
        middle = (log_z.lower.log_partition + log_z.upper.log_partition) / 2
        low, high = log_z.low, log_z.high

    def error(values: Tensor) -> float:
        return float(values.std()) / math.sqrt(count) if count > 1 else math.nan

    log_marginal = float(result.log_marginal.mean())
    elbo = float(result.log_weight.mean()) - middle
    reconstruction = float(result.reconstruction.mean())
    return {
        "n_images": count,
        "n_importance": n_importance,
        "negative_log_likelihood": middle - log_marginal,
        "negative_log_likelihood_se": error(result.log_marginal),
        "negative_log_likelihood_low": low - log_marginal,
        "negative_log_likelihood_high": high - log_marginal,
        "elbo": elbo,
        "elbo_se": error(result.log_weight),
        "kl": reconstruction - elbo,
        "kl_se": error(result.reconstruction - result.log_weight),
        "reconstruction": reconstruction,
        "reconstruction_se": error(result.reconstruction),
        "log_partition": None
        if log_z is None
        else {
            "middle": middle,
            "low": log_z.low,
            "high": log_z.high,
            "width": log_z.high - log_z.low,
            "consistent": log_z.consistent,
            "forward": log_z.lower.log_partition,
            "forward_se": log_z.lower.standard_error,
            "forward_effective_sample_size": log_z.lower.effective_sample_size,
            "reverse": log_z.upper.log_partition,
            "reverse_se": log_z.upper.standard_error,
            "reverse_effective_sample_size": log_z.upper.effective_sample_size,
            "exact": log_z.lower.standard_error == 0 and log_z.lower.n_chains == 1,
        },
    }


def print_result(record: dict[str, Any], out: Console) -> None:
    """Print a record of ``evaluate`` as a table."""
    log_z = record["log_partition"]
    title = f"{record['data']}: all {record['n_images']} test images, K = {record['n_importance']}, nats"
    table = Table(title=title, title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_column("standard error", justify="right")
    table.add_column("note")
    rows: list[tuple[str, str, str, str]] = [
        (
            "-log p(x)",
            f"{record['negative_log_likelihood']:.3f}",
            f"{record['negative_log_likelihood_se']:.3f}",
            "the prior is normalised"
            if log_z is None
            else f"{record['negative_log_likelihood_low']:.3f} .. {record['negative_log_likelihood_high']:.3f} "
            "over the log Z bracket",
        ),
        ("ELBO", f"{record['elbo']:.3f}", f"{record['elbo_se']:.3f}", "one sample, binary limit"),
        ("KL", f"{record['kl']:.3f}", f"{record['kl_se']:.3f}", "of q(z|x) to the prior"),
        ("reconstruction", f"{record['reconstruction']:.3f}", f"{record['reconstruction_se']:.3f}", "E log p(x|z)"),
        *_hierarchical_rows(record),
        (
            "active units",
            f"{record['active_units']}",
            "",
            f"of {record['latents']}: variance of q over images > {ACTIVE}",
        ),
    ]
    if log_z is not None:
        errors = "0" if log_z["exact"] else f"{log_z['forward_se']:.3f} / {log_z['reverse_se']:.3f}"
        note = "exact, by enumeration" if log_z["exact"] else f"bracket {log_z['low']:.3f} .. {log_z['high']:.3f}"
        rows.insert(-1, ("log Z", f"{log_z['middle']:.3f}", errors, note))
    for row in rows:
        table.add_row(*row)
    out.print(table)
    if log_z is not None and not log_z["consistent"]:
        out.print(
            "log Z: forward and reverse annealing contradict each other; do not trust the likelihood. "
            "Raise --ais-temperatures.",
            style="bold red",
        )


def _hierarchical_rows(record: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What is told of models with local latents, and of images of many levels."""
    rows = []
    if "bits_per_dimension" in record:
        rows.append(("bits per dimension", f"{record['bits_per_dimension']:.4f}", "", "-log p(x) / (D log 2)"))
    if "local_kl" in record:
        largest, smallest = max(record["local_kl"]), min(record["local_kl"])
        note = f"of {len(record['local_kl'])} groups, {smallest:.3f} to {largest:.3f} each"
        rows.append(("local KL", f"{sum(record['local_kl']):.3f}", "", note))
    return rows


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
