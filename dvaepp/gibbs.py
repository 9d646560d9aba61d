"""Block Gibbs sampling in torch; twin of ``reference.gibbs``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dvaepp.boltzmann import RBM


@torch.no_grad()
def sweep(rbm: RBM, z1: Tensor, u2: Tensor, u1: Tensor, inv_temp: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """z2 given z1, then z1 given z2, from explicit uniforms; see ``reference.gibbs.sweep``.

    Shapes   z1 (B, N1), u2 (B, N2), u1 (B, N1), inv_temp a number or (B, 1) -> z1 (B, N1), z2 (B, N2).
    The uniforms are overwritten with the samples: a sweep allocates nothing but the logits.
    """
    z2 = u2.lt_(rbm.logits_z2(z1).mul_(inv_temp).sigmoid_())
    z1 = u1.lt_(rbm.logits_z1(z2).mul_(inv_temp).sigmoid_())
    return z1, z2


class PersistentChains(nn.Module):
    """Gibbs chains that live on from one training iteration to the next (persistent contrastive divergence).

    The states are buffers, so that a checkpoint carries them. They start as fair coins, which are exact samples of a
    machine whose parameters are still zero.

    Shapes   z1 (n_chains, N1), z2 (n_chains, N2)
    """

    z1: Tensor
    z2: Tensor

    def __init__(self, n_chains: int, n1: int, n2: int) -> None:
        super().__init__()
        self.register_buffer("z1", torch.zeros(n_chains, n1))
        self.register_buffer("z2", torch.zeros(n_chains, n2))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw every unit anew as a fair coin."""
        for state in (self.z1, self.z2):
            state.uniform_(generator=generator).lt_(0.5)

    @torch.no_grad()
    def run(self, rbm: RBM, n_sweeps: int, generator: torch.Generator) -> None:
        """Advance all chains by ``n_sweeps`` block sweeps."""
        z1, z2 = self.z1, self.z2
        for _ in range(n_sweeps):
            u2 = torch.rand(self.z2.shape, generator=generator, device=z1.device, dtype=z1.dtype)
            u1 = torch.rand(self.z1.shape, generator=generator, device=z1.device, dtype=z1.dtype)
            z1, z2 = sweep(rbm, z1, u2, u1)
        self.z1.copy_(z1)
        self.z2.copy_(z2)
