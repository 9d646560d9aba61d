"""A discrete VAE in Pyro, trained on the shipped digits: ``RelaxedBernoulli``, and ours in its place.

    python -m examples.pyro_digits
    python -m examples.pyro_digits --steps 2000

64 binary units (``--latents``) with a learned factorial prior; SVI with Pyro's ``Trace_ELBO`` on relaxed units, model
and guide alike. The model is written once; what relaxes a unit is the one line of ``RELAXATIONS`` it is run with:

    lambda logits: dist.RelaxedBernoulli(TEMPERATURE, logits=logits)
    lambda logits: in_pyro(OverlappingExponentialBernoulli)(logits=logits, beta=BETA)

Each line printed tells the bound on the relaxed model, which training sees, and that on the model one wants, with its
units binary again (z in {0, 1}, KL(q(z) || p(z)) in closed form). They are bounds on different models: only the second
may be compared between rows. Nothing was tuned: temperature and sharpness are those of the papers.

Needs Pyro: ``pip install pyro-ppl``.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, kl_divergence

from dvaepp.command import parse, run
from dvaepp.data import digits
from dvaepp.distributions import ConcreteBernoulli, OverlappingExponentialBernoulli
from dvaepp.errors import ConfigError

PROG = "pyro_digits"
TEMPERATURE = 2 / 3  # Maddison, Mnih & Teh (2016)
BETA = 10.0  # DVAE++ (arXiv:1802.04920), of its order in section 7

Relaxation = Callable[[Tensor], Any]  # a distribution, with what Pyro adds to it

try:
    import pyro
    from pyro import distributions as dist
    from pyro.distributions.torch_distribution import TorchDistributionMixin
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import PyroOptim

    HAS_PYRO = True
except ModuleNotFoundError:
    HAS_PYRO = False


@functools.cache
def in_pyro(distribution: type[Distribution]) -> Any:
    """A class of distributions as Pyro wants it; what Pyro itself does to all those of ``torch.distributions``."""
    return type(distribution.__name__, (distribution, TorchDistributionMixin), {"__module__": __name__})


RELAXATIONS: Mapping[str, Relaxation] = {
    "RelaxedBernoulli": lambda logits: dist.RelaxedBernoulli(torch.tensor(TEMPERATURE), logits=logits),
    "ConcreteBernoulli": lambda logits: in_pyro(ConcreteBernoulli)(logits=logits, beta=1 / TEMPERATURE),
    "OverlappingExponential": lambda logits: in_pyro(OverlappingExponentialBernoulli)(logits=logits, beta=BETA),
}


class DigitsVAE(nn.Module):
    """784 pixels, a hidden layer each way, binary units relaxed by what the caller chooses.

    Shapes   images (B, 784) in {0, 1}
    """

    def __init__(self, images: Tensor, latents: int, relaxed: Relaxation) -> None:
        super().__init__()
        self.relaxed = relaxed
        pixels = images.shape[1]
        self.mean = images.mean(0)
        self.encoder = nn.Sequential(nn.Linear(pixels, 200), nn.ReLU(), nn.Linear(200, latents))
        last = nn.Linear(200, pixels)
        self.decoder = nn.Sequential(nn.Linear(latents, 200), nn.ReLU(), last)
        self.prior = nn.Parameter(torch.zeros(latents))
        with torch.no_grad():
            last.bias.copy_(torch.logit(self.mean.clamp(0.001, 0.999)))

    def posterior_logits(self, images: Tensor) -> Tensor:
        """Logits of q(z|x)."""
        logits: Tensor = self.encoder(images - self.mean)
        return logits

    def pixels(self, latents: Tensor) -> Bernoulli:
        """p(x|z)."""
        return Bernoulli(logits=self.decoder(2 * latents - 1))

    def model(self, images: Tensor) -> None:
        """p(zeta) p(x|zeta), for Pyro."""
        pyro.module("vae", self)
        with pyro.plate("images", len(images)):
            prior = self.relaxed(self.prior.expand(len(images), -1))
            zeta = pyro.sample("zeta", prior.to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(2 * zeta - 1)).to_event(1), obs=images)

    def guide(self, images: Tensor) -> None:
        """q(zeta|x), for Pyro."""
        pyro.module("vae", self)
        with pyro.plate("images", len(images)):
            pyro.sample("zeta", self.relaxed(self.posterior_logits(images)).to_event(1))

    @torch.no_grad()
    def binary_elbo(self, images: Tensor, draws: int) -> float:
        """Bound on log p(x) of the model with binary units, mean over images and draws, in nats."""
        posterior = Bernoulli(logits=self.posterior_logits(images))
        prior = Bernoulli(logits=self.prior).expand(posterior.batch_shape)
        likelihood = torch.stack([self.pixels(posterior.sample()).log_prob(images).sum(-1) for _ in range(draws)])
        return float(likelihood.mean() - kl_divergence(posterior, prior).sum(-1).mean())


def train(name: str, command: Command, train_set: Tensor) -> DigitsVAE:
    """A model trained with the relaxation of that name."""
    torch.manual_seed(command.seed)
    pyro.clear_param_store()
    vae = DigitsVAE(train_set, command.latents, RELAXATIONS[name])
    svi = SVI(vae.model, vae.guide, PyroOptim(torch.optim.Adam, {"lr": command.learning_rate}), Trace_ELBO())
    order = torch.Generator().manual_seed(command.seed)
    for _ in range(command.steps):
        svi.step(train_set[torch.randint(len(train_set), (100,), generator=order)])
    return vae


def rows(command: Command) -> Iterator[str]:
    """A line for each relaxation."""
    data = digits.load().binarised(0)
    train_set, valid_set = (torch.tensor(x, dtype=torch.float32) for x in (data.train, data.valid))
    yield f"{'units relaxed by':32} {'relaxed ELBO':>13} {'binary ELBO':>12}   (validation, nats)   {'seconds':>7}"
    for name in RELAXATIONS:
        start = time.perf_counter()
        vae = train(name, command, train_set)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            relaxed = -Trace_ELBO(num_particles=command.draws).loss(vae.model, vae.guide, valid_set) / len(valid_set)
        yield f"{name:32} {relaxed:13.2f} {vae.binary_elbo(valid_set, command.draws):12.2f} {seconds:30.1f}"


@dataclass(frozen=True)
class Command:
    """Train a discrete VAE in Pyro once per relaxation, and print their bounds."""

    steps: int = 200
    """Steps of SVI, with 100 images each."""
    latents: int = 64
    """Binary units."""
    draws: int = 20
    """Samples of its units for each validation image."""
    learning_rate: float = 1e-3
    """Of Adam."""
    seed: int = 0
    """Of weights, order and noise, the same for each relaxation."""


def main(arguments: Sequence[str]) -> int:
    """Print the rows."""
    command = parse(Command, arguments, PROG)
    for name in ("steps", "latents", "draws"):
        if getattr(command, name) < 1:
            raise ConfigError(f"--{name} must be at least 1; got {getattr(command, name)}")
    if not HAS_PYRO:
        raise ConfigError("this example needs Pyro, which is not installed: pip install pyro-ppl")
    for row in rows(command):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
