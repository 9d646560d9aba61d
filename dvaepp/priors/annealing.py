"""log Z of a general Boltzmann machine: enumeration, or annealed importance sampling from below and from above.

``dvaepp.partition`` for any couplings. The machines of the path have biases (1 - t) base + t a and couplings t J. No
unit is summed out, so weights vary more than an RBM's, and more temperatures are needed for the same width. What holds
there holds here: the lower end errs low on average, the upper one high if its samples are samples of the machine, and
a mode that both directions missed is missing from both ends.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.functional import softplus

import reference.general_boltzmann
from dvaepp import single_site, tempering
from dvaepp.general_boltzmann import GeneralBoltzmann
from dvaepp.partition import N_SNAPSHOTS, reverse_estimate
from dvaepp.randomness import generator
from reference.partition import Bracket, Estimate, estimate

#: Machines of at most this many units are enumerated: a second's work.
ENUMERATED = 20

_SPACING = 25  # rounds between snapshots, as in ``dvaepp.tempering``


@torch.no_grad()
def anneal(machine: GeneralBoltzmann, base: Tensor, inv_temps: Tensor, n_chains: int, seed: int) -> Tensor:
    """Log-weights (n_chains,) whose exponentials average to Z; ``reference.partition.anneal`` for any couplings.

    Shapes   base (N,) biases of the independent machine; inv_temps (K + 1,) rising from 0 to 1
    """
    noise = generator(machine.a.device, seed, "general annealing")
    z = (_uniforms(noise, machine.a, n_chains) < base.sigmoid()).to(machine.a.dtype)
    return _log_partition_of(base) + _walk(machine, base, inv_temps, z, noise)


@torch.no_grad()
def anneal_reverse(machine: GeneralBoltzmann, base: Tensor, inv_temps: Tensor, z: Tensor, seed: int) -> Tensor:
    """Log-weights (B,) whose exponentials average to 1/Z, from samples z (B, N).

    ``reference.partition.anneal_reverse`` for any couplings.
    """
    noise = generator(machine.a.device, seed, "general reverse annealing")
    return _walk(machine, base, inv_temps.flip(0), z, noise) - _log_partition_of(base)


def _log_partition_of(base: Tensor) -> float:
    return float(softplus(base.double()).sum())


def _uniforms(noise: torch.Generator, like: Tensor, n_rows: int) -> Tensor:
    return torch.rand((n_rows, len(like)), generator=noise, device=like.device, dtype=like.dtype)


def _walk(machine: GeneralBoltzmann, base: Tensor, path: Tensor, z: Tensor, noise: torch.Generator) -> Tensor:
    """Sum of the log-ratios of successive machines along the path, one sweep between."""
    log_weight = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    a, J, classes = machine.a, machine.J, machine.colours
    steps: list[float] = path.tolist()
    for k, (here, there) in enumerate(itertools.pairwise(steps)):
        gain = z @ (a - base) + ((z @ J) * z).sum(1) / 2  # of the machine's log-probability over the base's
        log_weight += (there - here) * gain.double()
        if k < len(steps) - 2:
            u = _uniforms(noise, base, len(z))
            z = single_site.sweep(torch.lerp(base, a, there), there * J, z, u, classes)
    return log_weight


def exact(machine: GeneralBoltzmann) -> Estimate | None:
    """log Z by enumeration of at most ``ENUMERATED`` units (standard error 0), else None."""
    if machine.n > ENUMERATED:
        return None
    value = reference.general_boltzmann.log_partition(machine.as_reference())
    return Estimate(log_partition=value, standard_error=0.0, effective_sample_size=1.0, n_chains=1)


def bracket(
    machine: GeneralBoltzmann,
    n_temperatures: int,
    n_chains: int,
    seed: int,
    base: Tensor | None = None,
    n_replicas: int = tempering.N_REPLICAS,
    n_rounds: int = tempering.N_ROUNDS,
) -> Bracket:
    """log Z from below and from above; ``dvaepp.partition.bracket`` for any couplings. Small machines: no width.

    Shapes   base (N,) biases that annealing starts from; None: fair coins
    """
    enumerated = exact(machine)
    if enumerated is not None:
        return Bracket(enumerated, enumerated)
    base = torch.zeros_like(machine.a) if base is None else base
    inv_temps = torch.linspace(0, 1, n_temperatures + 1, dtype=torch.float64)
    lower = estimate(anneal(machine, base, inv_temps, n_chains, seed).cpu().numpy(), sign=1)
    n_tempered = max(2, -(-n_chains // N_SNAPSHOTS))
    ladder = tempering.ladder(n_replicas)
    replicas, first = single_site.coins(n_replicas * n_tempered, machine.n, seed).to(machine.a), 0
    snapshots = []
    for n in (n_rounds, *[_SPACING] * (N_SNAPSHOTS - 1)):
        replicas = single_site.temper(machine, ladder, replicas, n, seed, first)
        first += n
        snapshots.append(replicas[-n_tempered:])
    return Bracket(lower, reverse_estimate(anneal_reverse(machine, base, inv_temps, torch.cat(snapshots), seed)))
