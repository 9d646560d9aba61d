"""The general Boltzmann machine as a prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

import reference.vocabulary
from dvaepp import general_boltzmann
from dvaepp.general_boltzmann import GeneralBoltzmann
from dvaepp.priors import annealing
from dvaepp.priors.protocol import BoltzmannPrior
from dvaepp.randomness import named_seed
from dvaepp.samplers import general
from reference.partition import Bracket
from reference.vocabulary import Array


class BoltzmannMachine(GeneralBoltzmann, BoltzmannPrior):
    """A general machine with its sampler; see ``dvaepp.general_boltzmann.GeneralBoltzmann``.

    Its price: a sweep has as many steps as the edges need colours, up to N, and neither side of anything can be summed
    out. Where an RBM will do, ``RestrictedBoltzmann`` does it faster and brackets log Z more closely.

    Shapes   edges (P, 2) or None for all pairs; a (N,), couplings (P,)
    Raises   DomainError for edges that do not fit; as ``dvaepp.samplers.general.create``.
    """

    def __init__(
        self,
        n: int,
        edges: Sequence[tuple[int, int]] | Array | Tensor | None = None,
        sampler: str = "gibbs",
        n_chains: int = 1000,
        n_sweeps: int = 40,
        seed: int = 0,
    ) -> None:
        super().__init__(n, edges)
        self.sampler = general.create(sampler, n_chains, n_sweeps, n, seed)

    @classmethod
    def from_couplings(
        cls,
        a: ArrayLike,
        J: ArrayLike,
        sampler: str = "gibbs",
        n_chains: int = 1000,
        n_sweeps: int = 40,
        seed: int = 0,
    ) -> BoltzmannMachine:
        """The machine with these parameters, and an edge wherever J is not 0.

        Shapes   a (N,), J (N, N)
        Raises   as ``reference.vocabulary.BoltzmannMachine``, for a J that is not symmetric with a zero diagonal.
        """
        machine = reference.vocabulary.BoltzmannMachine(np.asarray(a), np.asarray(J))
        edges = np.argwhere(np.triu(machine.J))
        made = cls(machine.n, edges, sampler, n_chains, n_sweeps, seed)
        with torch.no_grad():
            made.a.copy_(torch.from_numpy(machine.a))
            made.couplings.copy_(torch.from_numpy(machine.J[edges[:, 0], edges[:, 1]]))
        return made

    def cross_entropy(self, mu: Tensor, nu: Tensor, n_groups: int) -> Tensor:
        """See ``dvaepp.general_boltzmann.cross_entropy``."""
        return general_boltzmann.cross_entropy(self, mu, nu, n_groups)

    def sample(self) -> Tensor:
        """The sampler's next states, (n_chains, N)."""
        return self.sampler.sample(self).clone()

    def log_partition_bracket(
        self, n_temperatures: int = 1000, n_chains: int = 256, seed: int = 0, base: Tensor | None = None
    ) -> Bracket:
        """log Z in nats; see ``dvaepp.priors.annealing.bracket``. Annealing starts from the biases ``base`` (N,)."""
        return annealing.bracket(self, n_temperatures, n_chains, named_seed(seed, "log Z"), base)

    def extra_repr(self) -> str:
        """Sizes, for the module's representation."""
        return f"n={self.n}, n_edges={len(self.edges)}, n_colours={len(self.colours)}"
