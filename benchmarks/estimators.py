"""Bias and noise of every gradient estimator in the model: ``python -m benchmarks.estimators``. About a minute.

A small discrete VAE whose latent states can all be enumerated has random weights, so that its posteriors are neither
fair coins nor certain, and it is far from any optimum. The encoder's gradient by each estimator, from one draw for one
image, is compared with the exact gradient of the ELBO in the binary limit, the quantity that all of them are after
(but VIMCO, which is left out: its bound is another):

    bias    |mean - exact| / |exact|, with the length that chance alone would give it
    noise   root of the total variance of one draw's gradient / |exact|

Unbiased estimators must have a bias within chance. That of the smoothed ones is what training with a finite sharpness
costs, and is stated. Control variates are trained for a while beforehand. Writes benchmarks/DATE-estimators.md.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from benchmarks.report import HERE, environment
from dvaepp.atomic import write_text
from dvaepp.boltzmann import RBM
from dvaepp.command import parse, run
from dvaepp.config import SMOOTHED, ModelConfig
from dvaepp.control_variates import ControlVariates
from dvaepp.environment import cpu_name
from dvaepp.likelihoods import bernoulli_log_prob
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.objective import directed_terms, terms
from dvaepp.replicas import stack
from dvaepp.score_objective import noise_shape, score_step
from dvaepp.smoothing import create

N_PIXELS, N_LATENTS, HIDDEN = 12, 6, (8,)
_CHUNK = 500
_SCALE = 0.5  # of the weights


@dataclass(frozen=True)
class Command:
    """Measure bias and noise of every gradient estimator in a small model."""

    draws: int = 40_000
    """Draws for each estimator."""
    seed: int = 0
    """Seed of the model, the images and the draws."""


def methods() -> dict[str, ModelConfig]:
    """What is measured, by name; the configurations check themselves."""
    rbm = ModelConfig(latents=N_LATENTS, hidden=HIDDEN[0], layers=len(HIDDEN), batch_norm=False)
    directed = replace(rbm, prior="directed")
    found = {
        name: replace(directed, estimator=name)
        for name in ("nvil", "muprop", "rebar", "relax", "arm", "disarm", "straight-through")
    }
    for beta in (6.0, 10.0, 16.0):
        for estimator in ("joint", "marginal"):
            found[f"{estimator}, exponential, β = {beta:g}"] = replace(directed, estimator=estimator, beta=beta)
    for kind in ("logistic", "power", "gaussian", "uniform-exponential"):
        found[f"joint, {kind}, β = 10"] = replace(directed, smoothing=kind)
    for temperature in (1.0, 0.5):
        found[f"concrete, λ = {temperature:g}"] = replace(directed, smoothing="concrete", beta=1 / temperature)
    for groups, words in ((1, "1 group"), (2, "2 groups")):
        found[f"RBM, {words}, exponential, β = 10"] = replace(rbm, groups=groups)
        found[f"RBM, {words}, Rolfe, β = 5"] = replace(
            rbm, groups=groups, estimator="rolfe", smoothing="spike-exponential", beta=5.0
        )
    return found


def build(config: ModelConfig) -> DiscreteVAE:
    """The model in float64."""
    directed = config.prior == "directed"
    return DiscreteVAE(N_PIXELS, config.latents, config.groups, config.hidden_sizes, False, directed).double()


def exact_loss(model: DiscreteVAE, x: Tensor) -> Tensor:
    """Negative ELBO in the binary limit, mean over the images, every state enumerated; of an RBM without log Z."""
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=model.n_latents)), dtype=torch.float64)
    parts = [states[:, group] for group in model.groups]
    total = torch.zeros((), dtype=torch.float64)
    for image in x:
        rows = image.expand(len(states), -1)
        logits = [model.encode(g, rows, parts[:g]) for g in range(model.n_groups)]
        log_q = sum((bernoulli_log_prob(z, logit) for z, logit in zip(parts, logits, strict=True)), start=total * 0)
        value = bernoulli_log_prob(rows, model.decode(states)) - model.energy(states) - log_q
        total = total - (log_q.exp() * value).sum() / len(x)
    return total


def loss_of(
    config: ModelConfig, model: DiscreteVAE, x: Tensor, noise: Tensor, controls: ControlVariates
) -> tuple[Tensor, Tensor | None]:
    """Loss and control variates' loss of replicas (R,), as the trainer has them but for log Z of an RBM."""
    if config.estimator not in SMOOTHED:
        step = score_step(model, x, noise, config.estimator, controls, 1.0, config.n_samples)
        return step.loss, step.control_loss
    smoothing = create(config.smoothing, config.beta)
    if not isinstance(model.prior, RBM):
        return directed_terms(model, x, noise, smoothing, config.estimator == "marginal").loss(1.0), None
    none = x.new_zeros(*x.shape[:-2], 1, model.prior.n1)
    return terms(model, x, noise, smoothing, none, none, config.estimator == "rolfe").loss(1.0), None


def measured(config: ModelConfig, x: Tensor, command: Command) -> tuple[float, float, float]:
    """Bias, the bias that chance alone would show, and noise, all relative to the exact gradient's length."""
    generator = torch.Generator().manual_seed(command.seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).clamp_min(2.0**-53)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(command.seed)
        model = build(config)
        controls = ControlVariates(config.estimator, N_PIXELS, model.groups).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, _SCALE, generator=generator)
    if any(True for _ in controls.parameters()):

        def control_loss() -> Tensor:
            rows = x.repeat(25, 1)
            noise = uniform(*noise_shape(config.estimator, len(rows), N_LATENTS, config.n_samples))
            found = loss_of(config, model, rows, noise, controls)[1]
            assert found is not None
            return found

        _descend(controls, control_loss, 400, 0.01)
    encoder = [parameter for name, parameter in model.named_parameters() if name.startswith("encoders.")]
    exact = _flat(torch.autograd.grad(exact_loss(model, x), encoder), 0)
    copies, own = stack([model] * _CHUNK), stack([controls] * _CHUNK)
    leaves = [parameter for name, parameter in copies.named_parameters() if name.startswith("encoders.")]
    total, square, n = torch.zeros_like(exact), torch.zeros_like(exact), 0
    for first in range(0, command.draws, _CHUNK):
        image = x[(first // _CHUNK) % len(x)].expand(_CHUNK, 1, -1)
        noise = uniform(_CHUNK, 1, N_LATENTS)
        loss, _ = loss_of(config, copies, image, noise, own)
        rows = _flat(torch.autograd.grad(loss.sum(), leaves), 1)
        total, square, n = total + rows.sum(0), square + (rows**2).sum(0), n + len(rows)
    mean = total / n
    variance = (square / n - mean**2).sum().item()
    length = exact.norm().item()
    return (mean - exact).norm().item() / length, (variance / n) ** 0.5 / length, variance**0.5 / length


def _descend(module: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    parameters = list(module.parameters())
    optimiser = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss(), parameters), strict=True):
            parameter.grad = gradient
        optimiser.step()


def _flat(gradients: tuple[Tensor, ...], n_leading: int) -> Tensor:
    return torch.cat([gradient.flatten(n_leading) for gradient in gradients], dim=-1)


def markdown(found: Mapping[str, tuple[float, float, float]], command: Command) -> str:
    """The table, with what it was made by."""
    env = environment(cpu_name())
    lines = [
        "# Bias and noise of gradient estimators in the model",
        "",
        f"`python -m benchmarks.estimators --draws {command.draws} --seed {command.seed}`; torch "
        f"{env['versions']['torch']}, revision {env['git_revision']}.",
        "",
        "The encoder's gradient of a discrete VAE of 12 pixels and 6 latents, from one draw for one of 8 images,",
        "against the exact gradient of the ELBO in the binary limit, all 64 states enumerated; relative to the exact",
        "gradient's length. Bias: of the mean over all draws; chance: the length that chance alone would give it.",
        "",
        "| estimator | bias | chance | noise of one draw |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {bias:.4f} | {chance:.4f} | {noise:.2f} |" for name, (bias, chance, noise) in found.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Measure, print and write; returns the exit code."""
    command = parse(Command, arguments, "python -m benchmarks.estimators")
    generator = torch.Generator().manual_seed(command.seed)
    shared = torch.rand(N_PIXELS, generator=generator, dtype=torch.float64)
    x = (torch.rand(8, N_PIXELS, generator=generator, dtype=torch.float64) < shared).double()
    found = {}
    for name, config in methods().items():
        found[name] = measured(config, x, command)
        print(f"{name:40} bias {found[name][0]:.4f} (chance {found[name][1]:.4f})  noise {found[name][2]:.2f}")
    path = HERE / f"{datetime.now(UTC):%Y-%m-%d}-estimators.md"
    write_text(path, markdown(found, command))
    print(path)
    return 0


if __name__ == "__main__":
    run("estimators", lambda: main(sys.argv[1:]))
