"""log Z in torch: annealed importance sampling in both directions; twin of ``reference.partition``.

States and matrix products are float32, log-weights are accumulated in float64 from differences taken unit by unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

import reference.boltzmann
from dvaepp import bridge, tempering
from dvaepp.backend import TORCH
from dvaepp.boltzmann import RBM
from dvaepp.randomness import generator
from reference.partition import Bracket, Estimate, estimate
from reference.vocabulary import RBM as ReferenceRBM

#: Machines whose smaller side has at most this many units are enumerated: exact, and faster than annealing.
ENUMERATED = 16

#: Snapshots of every tempered chain that reverse annealing starts from; see ``bracket``.
N_SNAPSHOTS = 4


@dataclass(frozen=True)
class Base:
    """Biases of the independent machine annealing starts from, (N1,) and (N2,)."""

    a1: Tensor
    a2: Tensor

    @classmethod
    def fitted(cls, means: Tensor, n1: int, clip: float = 0.01) -> Base:
        """Base whose units have the given means (N1 + N2,); see ``reference.partition.fitted_base``."""
        biases = torch.logit(means.clamp(clip, 1 - clip))
        return cls(biases[:n1], biases[n1:])

    @property
    def log_partition(self) -> float:
        """Its log Z, in nats."""
        return float(softplus(self.a1.double()).sum() + softplus(self.a2.double()).sum())


@torch.no_grad()
def anneal(rbm: RBM, base: Base, inv_temps: Tensor, n_chains: int, seed: int, backend: str = TORCH) -> Tensor:
    """Log-weights (n_chains,) whose exponentials average to Z; see ``reference.partition.anneal``."""
    if backend != TORCH:
        return bridge.ais(rbm.detached, (base.a1, base.a2), inv_temps, n_chains, seed, backend)
    noise = generator(rbm.W.device, seed, "annealing")
    u = torch.rand((n_chains, rbm.n1), generator=noise, device=rbm.W.device, dtype=rbm.W.dtype)
    z1 = u.lt_(torch.sigmoid(base.a1))
    return base.log_partition + _walk(rbm, base, inv_temps, z1, noise)


@torch.no_grad()
def anneal_reverse(rbm: RBM, base: Base, inv_temps: Tensor, z1: Tensor, seed: int, backend: str = TORCH) -> Tensor:
    """Log-weights (B,) whose exponentials average to 1/Z, from samples; see ``reference.partition.anneal_reverse``."""
    if backend != TORCH:
        return bridge.reverse_ais(rbm.detached, (base.a1, base.a2), inv_temps, z1, seed, backend)
    noise = generator(rbm.W.device, seed, "reverse annealing")
    return _walk(rbm, base, inv_temps.flip(0), z1, noise) - base.log_partition


def _walk(rbm: RBM, base: Base, path: Tensor, z1: Tensor, noise: torch.Generator) -> Tensor:
    """Sum of the log-ratios of successive machines along the path, one sweep between; see ``reference.partition``."""
    log_weight = torch.zeros(len(z1), dtype=torch.float64, device=z1.device)
    a1, a2, W = rbm.a1, rbm.a2, rbm.W
    z1_w = z1 @ W
    steps = path.tolist()
    for k in range(1, len(steps)):
        here, there = steps[k - 1], steps[k]
        logits2 = torch.lerp(base.a2, a2, there) + there * z1_w
        before = torch.lerp(base.a2, a2, here) + here * z1_w
        log_weight += (softplus(logits2, threshold=40) - softplus(before, threshold=40)).sum(1, dtype=torch.float64)
        log_weight += (z1 @ ((there - here) * (a1 - base.a1))).double()
        if k < len(steps) - 1:
            u2 = torch.rand(logits2.shape, generator=noise, device=z1.device, dtype=z1.dtype)
            z2 = u2.lt_(logits2.sigmoid_())
            logits1 = torch.addmm(torch.lerp(base.a1, a1, there), z2, W.t(), alpha=there)
            u1 = torch.rand(logits1.shape, generator=noise, device=z1.device, dtype=z1.dtype)
            z1 = u1.lt_(logits1.sigmoid_())
            z1_w = z1 @ W
    return log_weight


def exact(rbm: RBM, up_to: int | None = None) -> Estimate | None:
    """log Z by enumeration where the smaller side has ``up_to`` units at most (standard error 0), else None."""
    if min(rbm.n1, rbm.n2) > (ENUMERATED if up_to is None else up_to):
        return None
    a1, a2, W = (parameter.detach().double().cpu().numpy() for parameter in (rbm.a1, rbm.a2, rbm.W))
    value = reference.boltzmann.log_partition(ReferenceRBM(a1, a2, W))
    return Estimate(log_partition=value, standard_error=0.0, effective_sample_size=1.0, n_chains=1)


def forward_estimate(
    rbm: RBM,
    base: Base,
    n_temperatures: int,
    n_chains: int,
    seed: int,
    backend: str = TORCH,
    enumerated_up_to: int | None = None,
) -> Estimate:
    """log Z by enumeration or by forward annealing over evenly spaced temperatures; errs low on average."""
    enumerated = exact(rbm, enumerated_up_to)
    if enumerated is not None:
        return enumerated
    inv_temps = torch.linspace(0, 1, n_temperatures + 1, dtype=torch.float64)
    return estimate(anneal(rbm, base, inv_temps, n_chains, seed, backend).cpu().numpy(), sign=1)


def bracket(
    rbm: RBM,
    base: Base,
    n_temperatures: int,
    n_chains: int,
    seed: int,
    n_replicas: int = tempering.N_REPLICAS,
    n_rounds: int = tempering.N_ROUNDS,
    backend: str = TORCH,
) -> Bracket:
    """log Z from below and from above; see ``reference.partition.bracket``. Enumerated machines have no width.

    The samples reverse annealing starts from are drawn by parallel tempering from fair coins, independently of the
    training's chains and of the forward walk, so that a mode one of them missed can show as a disagreement. They are
    four snapshots of a quarter as many tempered chains; since snapshots of one chain are not independent, the spread is
    taken over the chains' mean weights.
    """
    enumerated = exact(rbm)
    if enumerated is not None:
        return Bracket(enumerated, enumerated)
    lower = forward_estimate(rbm, base, n_temperatures, n_chains, seed, backend)
    n_tempered = max(2, -(-n_chains // N_SNAPSHOTS))
    ladder = tempering.ladder(n_replicas)
    samples = tempering.run(rbm, ladder, n_tempered, n_rounds, seed, n_snapshots=N_SNAPSHOTS, backend=backend)
    inv_temps = torch.linspace(0, 1, n_temperatures + 1, dtype=torch.float64)
    return Bracket(lower, reverse_estimate(anneal_reverse(rbm, base, inv_temps, samples.z1, seed, backend)))


def reverse_estimate(log_weights: Tensor) -> Estimate:
    """log Z from the weights of reverse annealing that started at ``N_SNAPSHOTS`` snapshots of the same chains.

    Shapes   log_weights (S C,), row s C + c for snapshot s of chain c
    """
    by_chain = torch.logsumexp(log_weights.view(N_SNAPSHOTS, -1), 0) - math.log(N_SNAPSHOTS)
    return estimate(by_chain.cpu().numpy(), sign=-1)
