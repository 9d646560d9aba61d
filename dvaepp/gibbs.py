"""Block Gibbs sampling in torch; twin of ``reference.gibbs``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dvaepp import bridge
from dvaepp.backend import TORCH
from dvaepp.boltzmann import RBM
from dvaepp.randomness import AddressedUniforms
from reference.philox import STREAM_INIT, uniforms


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

    Twin of ``reference.gibbs.PersistentChains``: what comes next depends on the states, the seed and ``step``, the
    sweeps done so far, and on nothing else. States and step are buffers, so that a checkpoint carries them and a CUDA
    graph advances them; the seed is the caller's to keep. The chains start as the reference's do, from fair coins that
    are the same on every device: exact samples of a machine whose parameters are still zero.

    Shapes   z1 (n_chains, N1), z2 (n_chains, N2), step () int64
    """

    z1: Tensor
    z2: Tensor
    step: Tensor

    def __init__(self, n_chains: int, n1: int, n2: int, seed: int) -> None:
        super().__init__()
        coins = (uniforms(seed, 0, n_chains, n1 + n2, STREAM_INIT) < 0.5).astype(np.float32)
        self.register_buffer("z1", torch.from_numpy(coins[:, :n1].copy()))
        self.register_buffer("z2", torch.from_numpy(coins[:, n1:].copy()))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.seed = seed

    def states(self) -> Tensor:
        """Both sides next to each other, (n_chains, N1 + N2)."""
        return torch.cat([self.z1, self.z2], dim=1)

    @torch.no_grad()
    def run(self, rbm: RBM, n_sweeps: int, backend: str = TORCH, own: slice = slice(None)) -> None:
        """Advance all chains by ``n_sweeps`` block sweeps, or ``own`` rows of them, as if all were advanced.

        Backends of ``accelerated`` draw the reference's numbers: the same chains on every one of them. ``torch`` draws
        its own, and reads ``step`` back from the device once a call.
        """
        if n_sweeps == 0:
            return
        z1, z2 = self.z1[own], self.z2[own]
        if backend != TORCH:
            bridge.gibbs_(*rbm.detached, z1, z2, self.step, n_sweeps, self.seed, backend, own.start or 0)
            return
        first = int(self.step)
        numbers = AddressedUniforms(z1.device, z1.dtype, self.seed, "gibbs")
        for step in range(first, first + n_sweeps):
            numbers.at(step)
            u2, u1 = numbers.draw(*self.z2.shape), numbers.draw(*self.z1.shape)
            z1, z2 = sweep(rbm, z1, u2[own], u1[own])
        self.z1[own] = z1
        self.z2[own] = z2
        self.step += n_sweeps
