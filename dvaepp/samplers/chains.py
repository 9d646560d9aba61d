"""Samplers whose chains live on from call to call: Gibbs, and parallel tempering."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dvaepp import tempering
from dvaepp.boltzmann import RBM
from dvaepp.gibbs import PersistentChains
from dvaepp.samplers.protocol import Sampler
from reference.philox import STREAM_TEMPERING_INIT, uniforms


class GibbsSampler(PersistentChains, Sampler):
    """Persistent contrastive divergence: ``dvaepp.gibbs.PersistentChains``, a fixed number of sweeps a call."""

    def __init__(self, n_chains: int, n_sweeps: int, n1: int, n2: int, seed: int, backend: str) -> None:
        super().__init__(n_chains, n1, n2, seed)
        self.n_sweeps, self.backend = n_sweeps, backend
        self.own: slice | None = None

    def sample(self, rbm: RBM) -> tuple[Tensor, Tensor]:
        """The chains, ``n_sweeps`` sweeps on: those that are its ``own``, if several processes share them."""
        if self.own is None:
            self.run(rbm, self.n_sweeps, self.backend)
            return self.z1, self.z2
        self.run(rbm, self.n_sweeps, self.backend, self.own)
        return self.z1[self.own], self.z2[self.own]

    def extra_repr(self) -> str:
        """Sizes, for the module's representation."""
        return f"n_chains={len(self.z1)}, n_sweeps={self.n_sweeps}, backend={self.backend!r}"


class TemperingSampler(Sampler):
    """Persistent parallel tempering: rounds of ``dvaepp.tempering``, the first side of every replica remembered.

    The ladder is ``dvaepp.tempering.ladder``. Replicas start from the reference's fair coins, the same on every device.

    Source   Desjardins, Courville, Bengio, Vincent, Delalleau (2010).
    Shapes   replicas (R n_chains, N1), the machine's own last
    """

    replicas: Tensor
    inv_temps: Tensor

    def __init__(self, n_chains: int, n_sweeps: int, n1: int, n2: int, seed: int, backend: str) -> None:
        super().__init__()
        self._remember(n_chains, n1, n2)
        self.inv_temps = tempering.ladder()  # on the CPU: every call reads its numbers
        rows = len(self.inv_temps) * n_chains
        coins = (uniforms(seed, 0, rows, n1, STREAM_TEMPERING_INIT) < 0.5).astype(np.float32)
        self.register_buffer("replicas", torch.from_numpy(coins))
        self.n_rounds, self.seed, self.backend = n_sweeps, seed, backend

    @torch.no_grad()
    def sample(self, rbm: RBM) -> tuple[Tensor, Tensor]:
        """The chains at inverse temperature 1, ``n_sweeps`` rounds on."""
        n_chains, first = len(self.z1), int(self.step)
        result = tempering.rounds(
            rbm, self.inv_temps, n_chains, self.n_rounds, self.seed, first, self.replicas, self.backend
        )
        self.replicas.copy_(result.z1)
        return self._keep(result.z1[-n_chains:], result.z2[-n_chains:], self.n_rounds)

    def extra_repr(self) -> str:
        """Sizes, for the module's representation."""
        return (
            f"n_chains={len(self.z1)}, n_replicas={len(self.inv_temps)}, n_rounds={self.n_rounds}, "
            f"backend={self.backend!r}"
        )
