"""Gibbs sampling and tempering of a general Boltzmann machine in torch; twin of ``reference.single_site``.

A sweep redraws the units class after class. The classes are colours, of which no two members are coupled; where every
two units are, each has a colour of its own, and a sweep takes N steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dvaepp.general_boltzmann import GeneralBoltzmann
from dvaepp.randomness import AddressedUniforms
from dvaepp.tempering import swap
from reference.philox import STREAM_SITE_INIT, uniforms


@torch.no_grad()
def sweep(
    a: Tensor, J: Tensor, z: Tensor, u: Tensor, classes: Sequence[Tensor], inv_temp: float | Tensor = 1.0
) -> Tensor:
    """Every unit once, those of a class at once; see ``reference.single_site.sweep`` and ``chromatic_sweep``.

    Shapes   a (N,), J (N, N), z (B, N), u (B, N) uniform, classes of units, inv_temp a number or (B, 1) -> (B, N)
    Domain   every unit in one class; no two coupled units in one, as in ``GeneralBoltzmann.colours``
    """
    z = z.clone()
    for units in classes:
        logits = (a[units] + z @ J[:, units]).mul_(inv_temp)
        z[:, units] = (u[:, units] < logits.sigmoid_()).to(z.dtype)
    return z


@torch.no_grad()
def gibbs(machine: GeneralBoltzmann, z: Tensor, n_sweeps: int, seed: int, first_step: int = 0) -> Tensor:
    """Sweeps number ``first_step`` and on; twin of ``reference.single_site.PersistentChains.run``.

    The numbers are torch's own, addressed by (seed, step): going on where a call stopped gives the bits of one call.

    Shapes   z (B, N) -> (B, N)
    """
    a, J, classes = machine.a.detach(), machine.J, machine.colours
    numbers = AddressedUniforms(z.device, z.dtype, seed, "single site")
    for step in range(first_step, first_step + n_sweeps):
        z = sweep(a, J, z, numbers.at(step).draw(*z.shape), classes)
    return z


@torch.no_grad()
def temper(
    machine: GeneralBoltzmann, inv_temps: Tensor, z: Tensor, n_rounds: int, seed: int, first_round: int = 0
) -> Tensor:
    """Rounds of one sweep of every replica and one exchange of neighbours; ``reference.tempering`` for any couplings.

    Shapes   inv_temps (R,) rising to 1; z (R C, N), row r C + c for replica r of chain c -> (R C, N)
    """
    a, J, classes, n_replicas = machine.a.detach(), machine.J, machine.colours, len(inv_temps)
    inv_temps = inv_temps.to(z)
    n_chains = len(z) // n_replicas
    row_inv_temp = inv_temps.repeat_interleave(n_chains)[:, None]
    chain = torch.arange(n_chains, device=z.device)
    numbers = AddressedUniforms(z.device, z.dtype, seed, "single-site tempering")
    for round_ in range(first_round, first_round + n_rounds):
        z = sweep(a, J, z, numbers.at(round_).draw(*z.shape), classes, row_inv_temp)
        energies = machine.energy(z).view(n_replicas, n_chains)
        permutation = swap(energies, inv_temps, numbers.draw(n_replicas - 1, n_chains), round_ % 2)
        z = z[(permutation * n_chains + chain).flatten()]
    return z


def coins(n_chains: int, n: int, seed: int) -> Tensor:
    """The reference's fair coins, the same on every device: where chains start.

    Shapes   -> (n_chains, N)
    """
    return torch.from_numpy(uniforms(seed, 0, n_chains, n, STREAM_SITE_INIT) < 0.5).float()
