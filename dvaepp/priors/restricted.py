"""The restricted Boltzmann machine as a prior."""

from __future__ import annotations

import torch
from torch import Tensor

from dvaepp import boltzmann, partition, samplers
from dvaepp.backend import TORCH
from dvaepp.boltzmann import RBM
from dvaepp.partition import Base
from dvaepp.priors.protocol import BoltzmannPrior
from dvaepp.randomness import named_seed
from reference.partition import Bracket


class RestrictedBoltzmann(RBM, BoltzmannPrior):
    """An RBM with its sampler, a prior over z = (z1, z2); see ``dvaepp.boltzmann.RBM`` and ``dvaepp.samplers``.

    Shapes   a1 (N1,), a2 (N2,), W (N1, N2)
    Raises   as ``dvaepp.samplers.create``.
    """

    def __init__(
        self,
        n1: int,
        n2: int,
        sampler: str = "gibbs",
        n_chains: int = 1000,
        n_sweeps: int = 40,
        seed: int = 0,
        backend: str = TORCH,
    ) -> None:
        super().__init__(n1, n2)
        self.sampler = samplers.create(sampler, n_chains, n_sweeps, n1, n2, seed, backend)
        self.backend = backend

    @property
    def n(self) -> int:
        """Number of units, N1 + N2."""
        return self.n1 + self.n2

    def sides(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., B, N) -> (..., B, N1) and (..., B, N2)."""
        return z[..., : self.n1], z[..., self.n1 :]

    def energy(self, z1: Tensor, z2: Tensor | None = None) -> Tensor:
        """Energy in nats of z (..., B, N), or of its two sides, as for any ``RBM`` -> (..., B)."""
        return super().energy(*self.sides(z1)) if z2 is None else super().energy(z1, z2)

    def cross_entropy(self, mu: Tensor, nu: Tensor, n_groups: int) -> Tensor:
        """See ``dvaepp.boltzmann.cross_entropy``."""
        return boltzmann.cross_entropy(self, mu, nu, n_groups)

    def sample(self) -> Tensor:
        """The sampler's next states, (n_chains, N)."""
        return torch.cat(self.sampler.sample(self), dim=-1)

    def log_partition_bracket(
        self, n_temperatures: int = 1000, n_chains: int = 256, seed: int = 0, base: Base | None = None
    ) -> Bracket:
        """log Z in nats; see ``dvaepp.partition.bracket``. Annealing starts from ``base``, by default fair coins."""
        if base is None:
            base = Base(torch.zeros_like(self.a1), torch.zeros_like(self.a2))
        return partition.bracket(self, base, n_temperatures, n_chains, named_seed(seed, "log Z"), backend=self.backend)

    def extra_repr(self) -> str:
        """Sizes, for the module's representation."""
        return f"n1={self.n1}, n2={self.n2}"
