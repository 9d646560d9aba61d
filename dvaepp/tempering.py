"""Parallel tempering in torch; twin of ``reference.tempering``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dvaepp import bridge
from dvaepp.backend import TORCH
from dvaepp.boltzmann import RBM
from dvaepp.bridge import Replicas
from dvaepp.gibbs import sweep
from dvaepp.randomness import AddressedUniforms

#: Replicas and rounds that suffice for the priors of Table 2.
N_REPLICAS = 12
N_ROUNDS = 300


def ladder(n_replicas: int = N_REPLICAS) -> Tensor:
    """Evenly spaced inverse temperatures from 0 to 1, (n_replicas,)."""
    return torch.linspace(0, 1, n_replicas, dtype=torch.float64)


class Tempered(NamedTuple):
    """Samples at inverse temperature 1, (S C, N1) and (S C, N2), and each pair's fraction of accepted swaps (R - 1,).

    The S snapshots of the C chains follow each other: row s C + c is chain c at snapshot s.
    """

    z1: Tensor
    z2: Tensor
    swap_rates: Tensor


def swap(energies: Tensor, inv_temps: Tensor, u: Tensor, parity: int) -> Tensor:
    """Which replica's state each replica takes over; see ``reference.tempering.swap``.

    Shapes   energies (R, C), inv_temps (R,), u (R - 1, C) -> (R, C) integers
    """
    n_replicas, n_chains = energies.shape
    permutation = torch.arange(n_replicas, device=energies.device)[:, None].repeat(1, n_chains)
    lower = torch.arange(n_replicas - 1, device=energies.device)[parity::2]
    log_ratio = (inv_temps[lower] - inv_temps[lower + 1])[:, None] * (energies[lower] - energies[lower + 1])
    accepted = (u[lower] < log_ratio.clamp_max(0).exp()).long()
    permutation[lower] += accepted
    permutation[lower + 1] -= accepted
    return permutation


@torch.no_grad()
def run(
    rbm: RBM,
    inv_temps: Tensor,
    n_chains: int,
    n_rounds: int,
    seed: int,
    n_snapshots: int = 1,
    spacing: int = 25,
    backend: str = TORCH,
) -> Tempered:
    """Rounds of one sweep of every replica and one exchange of neighbours; see ``reference.tempering.run``.

    A first snapshot is taken after ``n_rounds``, further ones every ``spacing`` rounds.

    Shapes   inv_temps (R,) rising to 1 -> z1 (S C, N1), z2 (S C, N2), swap_rates (R - 1,)
    """
    first_round, z1 = 0, None
    n_accepted = torch.zeros(len(inv_temps) - 1, dtype=torch.int64, device=rbm.W.device)
    snapshots: list[tuple[Tensor, Tensor]] = []
    for n in (n_rounds, *[spacing] * (n_snapshots - 1)):
        replicas = rounds(rbm, inv_temps, n_chains, n, seed, first_round, z1, backend)
        first_round, z1 = first_round + n, replicas.z1
        n_accepted += replicas.n_accepted
        snapshots.append((replicas.z1[-n_chains:], replicas.z2[-n_chains:]))
    n_tried = [(first_round + 1 - pair % 2) // 2 * n_chains for pair in range(len(inv_temps) - 1)]
    return Tempered(
        torch.cat([first for first, _ in snapshots]),
        torch.cat([second for _, second in snapshots]),
        n_accepted / torch.tensor(n_tried, device=rbm.W.device),
    )


@torch.no_grad()
def rounds(
    rbm: RBM,
    inv_temps: Tensor,
    n_chains: int,
    n_rounds: int,
    seed: int,
    first_round: int = 0,
    z1: Tensor | None = None,
    backend: str = TORCH,
) -> Replicas:
    """Rounds of all replicas from z1, or from coins; see ``reference.tempering.replica_rounds``.

    Going on from round a with its z1 gives bit for bit what one call gives. The numbers of torch's rounds are its own,
    addressed by (seed, round): see ``AddressedUniforms``.

    Shapes   inv_temps (R,), z1 (R C, N1) or None -> z1 (R C, N1), z2 (R C, N2), n_accepted (R - 1,); row r C + c is
             replica r of chain c
    """
    if backend != TORCH:
        return bridge.tempering(rbm.detached, inv_temps, n_chains, n_rounds, seed, first_round, z1, backend)
    device, dtype, n_replicas = rbm.W.device, rbm.W.dtype, len(inv_temps)
    inv_temps = inv_temps.to(device, dtype)
    row_inv_temp = inv_temps.repeat_interleave(n_chains)[:, None]
    rows = n_replicas * n_chains
    chain = torch.arange(n_chains, device=device)
    replica = torch.arange(n_replicas, device=device)[:, None]
    if z1 is None:
        z1 = AddressedUniforms(device, dtype, seed, "tempering from").at(0).draw(rows, rbm.n1).lt_(0.5)
    z2 = torch.zeros(rows, rbm.n2, device=device, dtype=dtype)
    n_accepted = torch.zeros(n_replicas - 1, device=device, dtype=torch.int64)
    numbers = AddressedUniforms(device, dtype, seed, "tempering")
    for round_ in range(first_round, first_round + n_rounds):
        numbers.at(round_)
        z1, z2 = sweep(rbm, z1, numbers.draw(rows, rbm.n2), numbers.draw(rows, rbm.n1), row_inv_temp)
        energies = rbm.energy(z1, z2).view(n_replicas, n_chains)
        permutation = swap(energies, inv_temps, numbers.draw(n_replicas - 1, n_chains), round_ % 2)
        index = (permutation * n_chains + chain).reshape(-1)
        z1, z2 = z1[index], z2[index]
        n_accepted += (permutation > replica)[:-1].sum(1)
    return Replicas(z1, z2, n_accepted)
