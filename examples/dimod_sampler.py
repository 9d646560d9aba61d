"""Any ``dimod`` sampler as the sampler of a Boltzmann prior: a local simulated annealer, judged and put to work.

    pip install 'dvaepp[dimod]'
    python -m examples.dimod_sampler
    python -m examples.dimod_sampler --sampler dwave.samplers:PathIntegralAnnealingSampler

First the gradient of log Z of a small machine, whose exact value is enumerated. It is a mean over samples, so even
exact samples have an error, one over the square root of their number; "error" is the distance of the gradient from the
truth in units of that (root mean square over all parameters and five seeds; 1 is perfect). An annealer cools faster
than the machine follows: its error does not fall with more samples, but with more sweeps. Gibbs chains are shown the
same way, from coins; in training they live on from call to call. Then a machine is trained on the bars and stripes of a
3 x 3 grid by maximum likelihood, with the annealer's samples and with Gibbs chains; both likelihoods are exact.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dvaepp import samplers
from dvaepp.command import parse, run
from dvaepp.partition import exact
from dvaepp.priors import RestrictedBoltzmann
from reference.boltzmann import marginals
from reference.vocabulary import RBM

PROG = "dimod_sampler"
ANNEALER = "dwave.samplers:SimulatedAnnealingSampler"

_N_SEEDS = 5
_SIDE = 3  # of the grid of bars and stripes


def frustrated(sampler: str, n_samples: int, n_sweeps: int, seed: int = 0) -> RestrictedBoltzmann:
    """A machine of 8 + 8 units with couplings of both signs, centred: several modes, and barriers between them."""
    noise = torch.Generator().manual_seed(3)
    prior = RestrictedBoltzmann(8, 8, sampler, n_samples, n_sweeps, seed)
    with torch.no_grad():
        prior.W.normal_(0, 5, generator=noise)
        prior.a1.copy_(-prior.W.sum(1) / 2)
        prior.a2.copy_(-prior.W.sum(0) / 2)
    return prior


def gradient_error(prior: RestrictedBoltzmann) -> float:
    """Error of the gradient of log Z from one call of the sampler, in units of what as many exact samples have."""
    truth = marginals(RBM(*(parameter.double().numpy() for parameter in prior.detached)))
    gradient = torch.autograd.grad(prior.log_partition_surrogate(), [prior.a1, prior.a2, prior.W])
    n_samples, squares = len(prior.sampler.z1), []
    for got, mean in zip(gradient, truth, strict=True):
        squares.append((got.numpy() - mean).ravel() ** 2 / (mean * (1 - mean) / n_samples).ravel())
    return float(np.sqrt(np.concatenate(squares).mean()))


def bars_and_stripes() -> Tensor:
    """The different grids whose rows, or whose columns, are all on or all off: (14, 9)."""
    patterns = [
        np.tile(bits, (_SIDE, 1)) if rows else np.tile(bits, (_SIDE, 1)).T
        for rows in (False, True)
        for bits in np.indices((2,) * _SIDE).reshape(_SIDE, -1).T
    ]
    return torch.from_numpy(np.unique(np.reshape(patterns, (-1, _SIDE**2)), axis=0)).float()


def train(sampler: str, iterations: int, n_samples: int, n_sweeps: int) -> float:
    """Exact -log p of the patterns, in nats, after training on them all at every iteration."""
    images = bars_and_stripes()
    prior = RestrictedBoltzmann(images.shape[1], 9, sampler, n_samples, n_sweeps)
    with torch.no_grad():
        prior.W.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam([prior.a1, prior.a2, prior.W], lr=0.05)
    for _ in range(iterations):
        optimiser.zero_grad()
        loss = prior.log_partition_surrogate() - prior.log_marginal_z1(images).mean()
        loss.backward()
        optimiser.step()
    log_z = exact(prior)
    assert log_z is not None  # 9 units are enumerated
    return log_z.log_partition - prior.log_marginal_z1(images).mean().item()


def report(sampler: str, n_samples: int, iterations: int) -> Iterator[str]:
    """The lines of both parts."""
    yield f"gradient of log Z of 8 + 8 units from {n_samples} samples; error 1: exact samples"
    for name, sweeps in itertools.product((sampler, "gibbs"), (10, 100, 1000)):
        errors = [gradient_error(frustrated(name, n_samples, sweeps, seed)) for seed in range(_N_SEEDS)]
        yield f"{name:46} {sweeps:5} sweeps   error {np.sqrt(np.mean(np.square(errors))):6.2f}"
    yield f"bars and stripes after {iterations} iterations; -log p = {np.log(len(bars_and_stripes())):.3f} at best"
    for name in (sampler, "gibbs"):
        yield f"{name:46} {20:5} sweeps   -log p {train(name, iterations, 200, 20):6.3f} nats"


@dataclass(frozen=True)
class Command:
    """Judge a dimod sampler as the sampler of a Boltzmann prior, and train with it."""

    sampler: str = ANNEALER
    """The sampler, or what makes it when called without arguments, as module:object."""
    samples: int = 2000
    """Samples of each gradient."""
    iterations: int = 1000
    """Iterations of training."""


def main(arguments: Sequence[str]) -> int:
    """Print the report."""
    command = parse(Command, arguments, PROG)
    samplers.create(command.sampler, 1, 1, 1, 1, seed=0)  # what cannot be used is refused before anything is printed
    for line in report(command.sampler, command.samples, command.iterations):
        print(line)
    return 0


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
