"""Population annealing in torch: samples of a machine, and its log Z; twin of ``reference.population``.

States and matrix products have the machine's dtype, log-weights are accumulated in float64.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dvaepp.boltzmann import RBM
from dvaepp.gibbs import sweep
from dvaepp.randomness import generator
from reference.partition import Estimate, estimate
from reference.vocabulary import check_count


class Population(NamedTuple):
    """M independent populations of R replicas, and what they say about log Z; see ``reference.population.Population``.

    Shapes   z1 (M, R, N1), z2 (M, R, N2), log_weights (M,) float64, effective_families (M,) float64
    """

    z1: Tensor
    z2: Tensor
    log_weights: Tensor
    effective_families: Tensor

    @property
    def estimate(self) -> Estimate:
        """log Z in nats, with the standard error of M independent populations."""
        return estimate(self.log_weights.cpu().numpy(), sign=1)


def resample(log_weights: Tensor, u: Tensor, n_copies: int | None = None) -> Tensor:
    """Which replica each copy is one of, systematically; see ``reference.population.resample``.

    Shapes   log_weights (M, R), u (M,) -> (M, n_copies) integers in 0 .. R - 1, rising; None: R copies
    """
    n_populations, n_replicas = log_weights.shape
    n_copies = n_replicas if n_copies is None else n_copies
    weights = (log_weights - log_weights.amax(1, keepdim=True)).double().exp()
    ends = weights.cumsum(1)
    ends = ends / ends[:, -1:]
    n_points_below = (n_copies * ends - u.double()[:, None]).ceil().long()
    # R - u may round down to R - 1, and a point would be lost. It belongs to the last replica of positive weight.
    n_points_below = n_points_below.masked_fill(ends == 1, n_copies)
    copies = n_points_below.diff(dim=1, prepend=n_points_below.new_zeros(n_populations, 1))
    replicas = torch.arange(n_replicas, device=u.device).repeat(n_populations)
    return replicas.repeat_interleave(copies.flatten(), output_size=n_populations * n_copies).view(-1, n_copies)


@torch.no_grad()
def anneal(
    rbm: RBM, inv_temps: Tensor, n_populations: int, n_replicas: int, seed: int, sweeps_per_rung: int = 1
) -> Population:
    """Independent populations from fair coins up the ladder to the machine; see ``reference.population.anneal``.

    The numbers are torch's own, and differ between devices.

    Shapes   inv_temps (K + 1,) rising from 0 to 1 -> Population
    """
    check_count("n_populations", n_populations, least=2)
    device, dtype, n_rows = rbm.W.device, rbm.W.dtype, n_populations * n_replicas
    noise = generator(device, seed, "population")

    def uniforms(*shape: int) -> Tensor:
        return torch.rand(shape, generator=noise, device=device, dtype=dtype)

    z1, z2 = uniforms(n_rows, rbm.n1).lt_(0.5), rbm.W.new_empty(n_rows, rbm.n2)  # z2: drawn by the first sweep
    log_weights = torch.full((n_populations,), (rbm.n1 + rbm.n2) * math.log(2), device=device, dtype=torch.float64)
    first_row = n_replicas * torch.arange(n_populations, device=device)[:, None]
    ancestors = torch.arange(n_replicas, device=device).repeat(n_populations, 1)
    for here, there in itertools.pairwise(inv_temps.tolist()):
        gain = _gain(rbm, z1, here, there).view(n_populations, n_replicas)
        log_weights += gain.logsumexp(1) - math.log(n_replicas)
        parents = resample(gain, torch.rand(n_populations, generator=noise, device=device, dtype=torch.float64))
        ancestors = ancestors.gather(1, parents)
        z1 = z1[(first_row + parents).flatten()]
        for _ in range(sweeps_per_rung):
            z1, z2 = sweep(rbm, z1, uniforms(n_rows, rbm.n2), uniforms(n_rows, rbm.n1), there)
    sizes = torch.bincount((first_row + ancestors).flatten(), minlength=n_rows).view(n_populations, n_replicas)
    return Population(
        z1.view(n_populations, n_replicas, -1),
        z2.view(n_populations, n_replicas, -1),
        log_weights,
        n_replicas**2 / (sizes.double() ** 2).sum(1),
    )


def _gain(rbm: RBM, z1: Tensor, here: float, there: float) -> Tensor:
    """log f_there(z1) - log f_here(z1) of each row, differences taken unit by unit; see ``reference.population``."""
    logits2 = rbm.logits_z2(z1)
    gained = softplus(there * logits2, threshold=40) - softplus(here * logits2, threshold=40)
    return gained.sum(1, dtype=torch.float64) + (z1 @ ((there - here) * rbm.a1)).double()
