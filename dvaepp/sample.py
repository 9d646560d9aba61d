"""Draw from a trained model: ``python -m dvaepp.sample RUN``.

Ancestral samples: z from the prior, of an RBM by tempering and Gibbs sweeps, then x ~ p(x|z). One row per prior sample:
the mean image first, then binary images drawn from it. Of DVAE++ each row shares its global latents, as in the paper's
figure 4, and every image has local latents of its own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from dvaepp.atomic import temporary
from dvaepp.backend import AUTO, choose
from dvaepp.boltzmann import RBM
from dvaepp.command import choose_device, console, parse, run
from dvaepp.directed import DirectedPrior
from dvaepp.errors import ConfigError
from dvaepp.evaluate import load_data
from dvaepp.models import HierarchicalVAE
from dvaepp.pictures import prior_chains, prior_states, save_grid
from dvaepp.randomness import generator, named_seed
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import load_best

PROG = "sample"


@dataclass(frozen=True)
class Command:
    """Draw images from a trained model: z from its prior, of an RBM by Gibbs sampling, then x ~ p(x|z)."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, as written by python -m dvaepp.train."""
    rows: int = 8
    """Prior samples, one for each row of the picture."""
    columns: int = 8
    """Images in a row: the mean of p(x|z), then draws from it. Of network convolutional all of them are draws of the
    local latents."""
    temperature: float = 1.0
    """Sampling temperature of the local latents (network convolutional only); 1 is the model, less is less varied."""
    sweeps: int = 1000
    """Gibbs sweeps of every chain of an RBM after its start by parallel tempering."""
    out: Path | None = None
    """Picture to write (.png); by default samples-SEED.png in the run folder. The numbers go to .npz beside it."""
    seed: int = 0
    """Seed of the samples."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    backend: str = AUTO
    """Who samples the prior: torch, numba_cpu, numba_cuda, cupy_raw or numpy_oracle; auto is the fastest that runs."""
    data: str | None = None
    """Where your own images lie now, if not where training found them."""
    data_dir: str | None = None
    """Where the files of a registered data set lie now, if not where training found them."""


def main(arguments: Sequence[str]) -> int:
    """Draw and write; returns the exit code."""
    command = parse(Command, arguments, "python -m dvaepp.sample")
    for name in ("rows", "columns"):
        if getattr(command, name) < 1:
            raise ConfigError(f"{name} must be positive; got {getattr(command, name)}")
    for name in ("sweeps", "seed"):
        if getattr(command, name) < 0:
            raise ConfigError(f"{name} must not be negative; got {getattr(command, name)}")
    if not 0 < command.temperature < math.inf:
        raise ConfigError(f"temperature must be positive; got {command.temperature}")
    folder = RunFolder.open(command.run)
    path = command.out or folder.path / f"samples-{command.seed}.png"
    if path.suffix != ".png":
        raise ConfigError(f"out must end in .png; got {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"out lies in a folder that does not exist: {path.parent}")
    numbers = path.with_suffix(".npz")
    for file in (path, numbers) if command.out else ():
        if file.exists():
            raise ConfigError(f"{file} exists; choose another --out")
    config = folder.config()
    if command.temperature != 1 and not config.convolutional:
        raise ConfigError(
            f"temperature is for network convolutional, which has local latents; {command.run} is of network "
            f"{config.model.network}: leave it out"
        )
    device = choose_device(command.device)
    backend = choose(command.backend, device)
    dataset = load_data(config, command.data, command.data_dir)
    model, _ = load_best(folder, config, dataset, device)
    noise = generator(device, command.seed, "samples")
    out = console()
    out.print(str(backend))
    with out.status("sampling the prior ..."), torch.no_grad():
        seed = named_seed(command.seed, "prior samples")
        if isinstance(model.prior, RBM):
            chains = prior_chains(model.prior, command.rows, seed, backend.name)
            chains.run(model.prior, command.sweeps, backend.name)
            z = chains.states()
        else:
            z = prior_states(model, command.rows, 1, 0, seed, backend.name)[:, 0]
        drawn = model.generate(z.repeat_interleave(command.columns, dim=0), noise, command.temperature)
        draws, means = (part.view(command.rows, command.columns, -1) for part in drawn)
        images, title = means, "each row one sample of the global latents"
        if not isinstance(model, HierarchicalVAE):  # a row has one mean, and its draws differ by their pixels alone
            means, draws = means[:, 0], draws[:, 1:]
            images = torch.cat([means[:, None], draws], dim=1)
            title = "each row one sample of the prior: mean of p(x|z), then draws from it"
    save_grid(path, images, dataset.image_shape, title)
    size = dataset.image_shape if dataset.channels == 1 else (dataset.channels, *dataset.image_shape)
    binary = isinstance(model.prior, (RBM, DirectedPrior))
    with temporary(numbers) as part:
        np.savez_compressed(
            part,
            z=z.cpu().numpy().astype(np.uint8 if binary else np.float32),
            means=means.reshape(*means.shape[:-1], *size).cpu().numpy(),
            draws=draws.reshape(*draws.shape[:-1], *size).cpu().numpy().astype(np.uint8),
        )
    out.print(f"{command.rows} prior samples: {path} (picture), {numbers} (z, means, draws)")
    return 0


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
