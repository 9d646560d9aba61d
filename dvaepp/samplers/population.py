"""Population annealing as a sampler of training: from fair coins at every call."""

from __future__ import annotations

import torch
from torch import Tensor

from dvaepp import population
from dvaepp.boltzmann import RBM
from dvaepp.randomness import generator, named_seed
from dvaepp.samplers.protocol import Sampler
from reference.partition import Estimate, estimate

#: Independent populations that share the samples of a call among them: as many as tell how well log Z is known.
N_POPULATIONS = 8


class PopulationSampler(Sampler):
    """Independent populations, resampled at the end by their weights, so that the samples need none.

    ``log_weights`` are the populations' estimates of log Z at the last call, in nats; NaN before the first.

    Source   ``reference.population``; the last resampling is its weighted average over populations (Machta, 2010) as a
             draw.
    Shapes   log_weights (M,), float64
    """

    log_weights: Tensor

    def __init__(self, n_chains: int, n_sweeps: int, n1: int, n2: int, seed: int, backend: str) -> None:
        super().__init__()
        self._remember(n_chains, n1, n2)
        self.register_buffer("log_weights", torch.full((N_POPULATIONS,), torch.nan, dtype=torch.float64))
        self.n_rungs, self.seed = n_sweeps, seed

    @torch.no_grad()
    def sample(self, rbm: RBM) -> tuple[Tensor, Tensor]:
        """Samples from new populations, up ``n_sweeps`` evenly spaced rungs with one sweep at each."""
        n_chains, call = len(self.z1), int(self.step)
        n_replicas = -(-n_chains // N_POPULATIONS)
        ladder = torch.linspace(0, 1, self.n_rungs + 1, dtype=torch.float64)
        seed = named_seed(self.seed, f"call {call}")
        found = population.anneal(rbm, ladder, N_POPULATIONS, n_replicas, seed)
        weights = found.log_weights.repeat_interleave(n_replicas)[None]
        u = torch.rand(1, generator=generator(rbm.W.device, seed, "resampling"), device=rbm.W.device)
        rows = population.resample(weights, u, n_chains)[0]
        self.log_weights.copy_(found.log_weights)
        return self._keep(found.z1.flatten(0, 1)[rows], found.z2.flatten(0, 1)[rows], 1)

    @property
    def log_partition_estimate(self) -> Estimate:
        """log Z of the machine of the last call, with its standard error."""
        return estimate(self.log_weights.cpu().numpy(), sign=1)

    def extra_repr(self) -> str:
        """Sizes, for the module's representation."""
        return f"n_chains={len(self.z1)}, n_populations={N_POPULATIONS}, n_rungs={self.n_rungs}"
