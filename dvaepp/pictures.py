"""Pictures of a run: samples, reconstructions, learning curves, couplings of the prior, active units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dvaepp.atomic import temporary
from dvaepp.boltzmann import RBM
from dvaepp.bound import ACTIVE, posterior_means
from dvaepp.config import Config
from dvaepp.data.batches import to_device
from dvaepp.data.dataset import Dataset
from dvaepp.gibbs import PersistentChains
from dvaepp.models import HierarchicalVAE, Model
from dvaepp.modes import modes_and_classes
from dvaepp.randomness import generator, named_seed
from dvaepp.run_folder import RunFolder
from dvaepp.tempering import N_ROUNDS, ladder
from dvaepp.tempering import run as temper
from dvaepp.trainer import images_of
from reference.vocabulary import Array

matplotlib.use("Agg")


@torch.no_grad()
def prior_chains(prior: RBM, count: int, seed: int, backend: str) -> PersistentChains:
    """Independent chains that are samples of the prior, by parallel tempering; Gibbs sweeps carry them on."""
    start = temper(prior, ladder(), count, N_ROUNDS, seed, backend=backend)
    chains = PersistentChains(count, prior.n1, prior.n2, seed).to(start.z1)
    chains.z1.copy_(start.z1)
    chains.z2.copy_(start.z2)
    return chains


@torch.no_grad()
def prior_states(model: Model, rows: int, columns: int, sweeps: int, seed: int, backend: str) -> Tensor:
    """Samples of the prior: (rows, columns, N) in {0, 1}.

    Of an RBM every row is one chain, its columns ``sweeps`` Gibbs sweeps apart. Those of other priors are independent,
    and those of normal latents are normal.
    """
    if not isinstance(model.prior, RBM):
        device = model.train_mean.device
        noise = generator(device, seed, "ancestral samples")
        shape = (rows * columns, model.n_latents)
        if model.prior is None:
            return torch.randn(shape, generator=noise, device=device).view(rows, columns, -1)
        rho = torch.rand(shape, generator=noise, device=device)
        return model.prior.sample(rho).view(rows, columns, -1)
    chains = prior_chains(model.prior, rows, seed, backend)
    states = []
    for column in range(columns):
        chains.run(model.prior, sweeps if column else 0, backend)
        states.append(chains.states())
    return torch.stack(states, dim=1)


def save_grid(path: Path, images: Tensor, image_shape: tuple[int, int], title: str) -> None:
    """Draw (rows, columns, D) images in [0, 1] as a grid; colour ones are planar, D = 3 H W."""
    figure = _grid(images.cpu().numpy(), image_shape)
    figure.suptitle(title, fontsize=9)
    _save(figure, path)


@torch.no_grad()
def save_reconstructions(path: Path, model: Model, dataset: Dataset, config: Config, noise: torch.Generator) -> None:
    """Draw test images over what the model makes of them: pairs of rows, data above mean reconstruction."""
    device = model.train_mean.device
    columns, pairs = 12, 3
    fixed = images_of(dataset, "test", config)
    # evenly spaced, for test files are often sorted
    chosen = np.linspace(0, len(fixed) - 1, min(columns * pairs, len(fixed))).astype(int)
    x = to_device(fixed[chosen], device).float()
    decoded = model.reconstruct(x, noise)
    rows: list[Array] = []
    for start in range(0, len(chosen), columns):
        for images in (x / model.levels, decoded):
            row = np.zeros((columns, x.shape[1]), dtype=np.float32)
            part = images[start : start + columns].cpu().numpy()
            row[: len(part)] = part
            rows.append(row)
    figure = _grid(np.stack(rows), dataset.image_shape)
    figure.suptitle("test images, each above its reconstruction (p(x|z), one z ~ q(z|x))", fontsize=9)
    _save(figure, path)


def save_learning_curves(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the bound and its parts over the iterations, training and validation."""
    train = [row for row in rows if "train" in row]
    valid = [row for row in rows if "valid" in row]
    figure = Figure(figsize=(9, 6), layout="constrained")
    has_log_partition = any("log_partition" in row["train"] for row in train)
    panels = (
        ("-ELBO (nats)", "elbo", -1.0),
        ("reconstruction, -E log p(x|z) (nats)", None, -1.0),
        ("KL to the prior (nats)", "kl", 1.0),
        ("log Z (nats)", "log_partition", 1.0)
        if has_log_partition
        else ("variance of the encoders' gradient, a weight's mean", "gradient_variance", 1.0),
    )
    for axes, (label, key, sign) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for name, part, style in (("training, smoothed", train, "-"), ("validation, binary", valid, "o-")):
            which = "train" if part is train else "valid"
            name_of = key or ("log_likelihood" if part is train else "reconstruction")
            points = [(row["step"], sign * row[which][name_of]) for row in part if name_of in row[which]]
            if points:
                axes.plot(*zip(*points, strict=True), style, markersize=3, linewidth=1, label=name)
        if key == "elbo":
            bound = [-row["valid"]["log_marginal"] for row in valid]
            axes.plot(
                [row["step"] for row in valid], bound, "s-", markersize=3, linewidth=1, label="-log p, validation"
            )
        if key == "gradient_variance":
            axes.set_yscale("log")
        else:
            _focus(axes)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("iteration", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _save(figure, path)


def _focus(axes: Any) -> None:
    """Let the late, small differences fill the panel: the first fifth of the run is far outside."""
    settled = [value for line in axes.lines for value in list(line.get_ydata())[len(line.get_ydata()) // 5 :]]
    if settled:
        low, high = min(settled), max(settled)
        margin = 0.08 * max(high - low, 1.0)
        axes.set_ylim(low - margin, high + margin)


def save_prior(path: Path, prior: RBM) -> None:
    """Draw an RBM: its couplings W as an image, units sorted by their total coupling, and its biases."""
    a1, a2, W = (parameter.cpu().numpy() for parameter in prior.detached)
    order1, order2 = np.argsort(-np.abs(W).sum(1)), np.argsort(-np.abs(W).sum(0))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    scale = float(np.quantile(np.abs(W), 0.999)) or 1.0
    shown = left.imshow(W[order1][:, order2], cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
    figure.colorbar(shown, ax=left, shrink=0.8)
    left.set_title("couplings W (units sorted by strength)", fontsize=9)
    left.set_xlabel("unit of side 2", fontsize=8)
    left.set_ylabel("unit of side 1", fontsize=8)
    middle.hist(W.ravel(), bins=80, log=True)
    middle.set_title("distribution of the couplings", fontsize=9)
    middle.set_xlabel("nats", fontsize=8)
    right.hist([a1, a2], bins=30, label=["a1", "a2"])
    right.set_title("biases", fontsize=9)
    right.set_xlabel("nats", fontsize=8)
    right.legend(fontsize=8)
    for axes in (left, middle, right):
        axes.tick_params(labelsize=8)
    _save(figure, path)


def save_active_units(path: Path, model: Model, dataset: Dataset, config: Config, noise: torch.Generator) -> None:
    """Draw how much each latent unit tells about the image: variance over test images of q(z=1|x), sorted."""
    test = to_device(images_of(dataset, "test", config), model.train_mean.device)
    variance = posterior_means(model, test, noise).var(0, correction=0).sort(descending=True).values.cpu().numpy()
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(variance)), variance, width=1.0)
    axes.axhline(ACTIVE, color="black", linewidth=0.8, linestyle="--")
    active = int((variance > ACTIVE).sum())
    axes.set_title(f"{active} of {len(variance)} units are active (variance above {ACTIVE})", fontsize=9)
    axes.set_xlabel("latent unit, sorted", fontsize=8)
    axes.set_ylabel("variance of q(z=1|x) over images", fontsize=8)
    axes.tick_params(labelsize=8)
    _save(figure, path)


@torch.no_grad()
def save_walk(path: Path, model: HierarchicalVAE, image_shape: tuple[int, int], seed: int, backend: str) -> None:
    """Draw Gibbs chains of the prior, one sweep a column, whose images share the noise of local latents and of pixels.

    So what changes along a row is what the global latents changed.
    """
    rows, columns = 6, 16
    states = prior_states(model, rows, columns, 1, seed, backend)
    random = generator(states.device, seed, "noise of a walk")
    noise = model.noise(rows, random).h.repeat_interleave(columns, dim=1)
    state = model.local_prior(states.view(rows * columns, -1), noise)
    pixels = model.pixel_noise(rows, random).repeat_interleave(columns, dim=0)
    images = model.decoder.sample(state, pixels).shown.view(rows, columns, -1)
    save_grid(path, images, image_shape, "a walk through the prior: one Gibbs sweep of z a column, other noise fixed")


@torch.no_grad()
def save_modes(path: Path, model: HierarchicalVAE, dataset: Dataset, config: Config, noise: torch.Generator) -> None:
    """Draw which classes the most frequent z of the test images belong to, with the mutual information of the two."""
    assert dataset.labels is not None
    test = to_device(images_of(dataset, "test", config), model.train_mean.device)
    z = torch.cat([model.binary_latents(batch.float(), noise) for batch in test.split(_AT_A_TIME)])
    modes = modes_and_classes(z.cpu().numpy(), dataset.labels["test"], config.seed)
    shown = modes.counts[:_MOST_MODES]
    figure = Figure(figsize=(max(6.0, 0.16 * len(shown)), 3.6), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow((shown / shown.sum(1, keepdims=True)).T, aspect="auto", cmap="magma", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the mode's images")
    axes.set_title(
        f"classes of the {len(shown)} most frequent of {len(modes.counts)} global states, "
        f"{shown.sum() / modes.counts.sum():.0%} of the images\n"
        f"I(z; class) = {modes.mutual_information:.2f} of {modes.entropy:.2f} nats, "
        f"chance ({modes.chance:.2f}) taken off",
        fontsize=9,
    )
    axes.set_xlabel("state of z, by frequency", fontsize=8)
    axes.set_ylabel("class", fontsize=8)
    axes.tick_params(labelsize=8)
    _save(figure, path)


#: Modes in a picture of them, and images that are encoded at a time for it.
_MOST_MODES, _AT_A_TIME = 60, 500


def save_kl_by_group(path: Path, record: dict[str, Any]) -> None:
    """Draw what each group of latents costs: the KL of the global ones, and of each local group, over the test."""
    local = record["local_kl"]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(["z"], [record["kl"] - sum(local)], color="tab:orange")
    axes.bar([f"h{group}" for group in range(len(local))], local)
    axes.set_title("KL of each group of latents to its prior: global z, local h in their order", fontsize=9)
    axes.set_ylabel("nats an image", fontsize=8)
    axes.tick_params(labelsize=8)
    _save(figure, path)


def save_all(
    run: RunFolder, model: Model, dataset: Dataset, config: Config, record: dict[str, Any], backend: str
) -> list[Path]:
    """Draw every picture of a finished run into its folder and return their paths; ``record`` is that of its test."""
    folder, noise = run.path, generator(model.train_mean.device, config.seed, "pictures")
    names = ["samples", "reconstructions", "learning_curves", "active_units"]
    title = "samples: independent draws of the prior, decoded"
    if isinstance(model.prior, RBM):
        names.insert(3, "prior")
        title = "samples: each row one Gibbs chain of the prior, 100 sweeps between columns, decoded"
    if isinstance(model, HierarchicalVAE):
        names.append("kl_by_group")
        if isinstance(model.prior, RBM):
            names.append("walk")
        if dataset.labels is not None and model.prior is not None:
            names.append("modes")
        title = "samples: each row one draw of the global latents"
    paths = {name: folder / f"{name}.png" for name in names}
    seed = named_seed(config.seed, "pictures of the prior")
    rows, columns = 8, 12
    with torch.no_grad():
        if isinstance(model, HierarchicalVAE):
            states = prior_states(model, rows, 1, 0, seed, backend).expand(-1, columns, -1)
        else:
            states = prior_states(model, rows, columns, 100, seed, backend)
        images = model.generate(states.reshape(-1, model.n_latents), noise).shown.view(rows, columns, -1)
    save_grid(paths["samples"], images, dataset.image_shape, title)
    save_reconstructions(paths["reconstructions"], model, dataset, config, noise)
    save_learning_curves(paths["learning_curves"], run.read_metrics())
    if isinstance(model.prior, RBM):
        save_prior(paths["prior"], model.prior)
    save_active_units(paths["active_units"], model, dataset, config, noise)
    if isinstance(model, HierarchicalVAE):
        save_kl_by_group(paths["kl_by_group"], record)
        if "walk" in paths:
            save_walk(paths["walk"], model, dataset.image_shape, seed, backend)
        if "modes" in paths:
            save_modes(paths["modes"], model, dataset, config, noise)
    return list(paths.values())


def _grid(images: Array, image_shape: tuple[int, int]) -> Figure:
    """(rows, columns, C H W) images in [0, 1], white on black, one pixel of grey between them."""
    rows, columns, n_pixels = images.shape
    height, width = image_shape
    channels = n_pixels // (height * width)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 0.5)
    for row in range(rows):
        for column in range(columns):
            top, left = 1 + row * (height + 1), 1 + column * (width + 1)
            planar = images[row, column].reshape(channels, height, width)
            canvas[top : top + height, left : left + width] = planar.transpose(1, 2, 0)
    scale = min(1 / 50, 20 / max(canvas.shape))  # inches a pixel; large images are shown smaller
    figure = Figure(figsize=(max(canvas.shape[1] * scale, 3), canvas.shape[0] * scale + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas[..., 0] if channels == 1 else canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    return figure


def _save(figure: Figure, path: Path) -> None:
    with temporary(path) as part:
        figure.savefig(part, dpi=130)
