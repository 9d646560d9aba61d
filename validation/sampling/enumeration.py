"""Small machines known exactly: every state with its probability, and what samplers do to a distribution.

Everything follows from the energy of the general machine and from Bayes' rule; no formula of a sampler, a conditional
or a weight is used. States are numbered in binary, unit 0 the lowest bit (``reference.boltzmann.all_states``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from reference import general_boltzmann
from reference.boltzmann import all_states
from reference.vocabulary import RBM, Array, BoltzmannMachine

Generator = np.random.Generator


def states(n_units: int) -> Array:
    """All states, (2**n_units, n_units)."""
    return np.concatenate(list(all_states(n_units)))


def codes(z: Array) -> NDArray[np.int64]:
    """Numbers of the states: (..., N) -> (...)."""
    return np.asarray(z @ 2.0 ** np.arange(z.shape[-1])).astype(np.int64)


def log_weights(machine: BoltzmannMachine) -> Array:
    """Unnormalised log-probability of every state, (2**N,) nats."""
    return -general_boltzmann.energy(machine, states(machine.n))


def law(machine: BoltzmannMachine, inv_temp: float = 1.0) -> Array:
    """Probability of every state, (2**N,)."""
    weights = inv_temp * log_weights(machine)
    return np.exp(weights - logsumexp(weights))


def draw(probs: Array, n: int, rng: Generator) -> Array:
    """Independent states of this law, (n, N), by inversion."""
    n_units = len(probs).bit_length() - 1
    found = np.searchsorted(np.cumsum(probs) / probs.sum(), rng.random(n), side="right")
    return states(n_units)[found]


def joint(rbm: RBM, inv_temp: float = 1.0) -> Array:
    """Probability of every pair (z1, z2): (2**N1, 2**N2)."""
    return law(rbm.general(), inv_temp).reshape(2**rbm.n2, 2**rbm.n1).T


def sweep_kernel(probs: Array) -> Array:
    """Probability of (z2, z1 afterwards) given z1, by Bayes' rule from the joint: (S1, S2) -> (S1, S2, S1)."""
    second = probs / probs.sum(axis=1, keepdims=True)
    first = probs / probs.sum(axis=0)
    return second[:, :, None] * first.T[None]


@dataclass(frozen=True, eq=False)
class TemperedLaw:
    """Where tempering from fair coins stands after some rounds.

    ``top`` (2**N,) is the law of the replica at inverse temperature 1; ``acceptance`` (rounds, R - 1) each exchange's
    probability of being accepted, NaN where none is tried.
    """

    top: Array
    acceptance: Array


def tempered_law(rbm: RBM, inv_temps: Array, n_rounds: int) -> TemperedLaw:
    """Follow the joint law of all replicas through rounds of one sweep and one exchange, (2**N)**R probabilities."""
    n_replicas, size = len(inv_temps), 2 ** (rbm.n1 + rbm.n2)
    energies = -log_weights(rbm.general())
    kernels = []
    for inv_temp in inv_temps:
        kernel = sweep_kernel(joint(rbm, inv_temp))  # from z1; the result as a state is z1 + 2**N1 z2
        kernels.append(np.tile(kernel.reshape(2**rbm.n1, size), (2**rbm.n2, 1)))
    everywhere = np.full((size,) * n_replicas, float(size) ** -n_replicas)
    acceptance = np.full((n_rounds, n_replicas - 1), np.nan)
    for round_ in range(n_rounds):
        for replica, kernel in enumerate(kernels):
            everywhere = np.moveaxis(np.tensordot(everywhere, kernel, axes=(replica, 0)), -1, replica)
        for low in range(round_ % 2, n_replicas - 1, 2):
            here, there = inv_temps[low], inv_temps[low + 1]
            log_before = -here * energies[:, None] - there * energies[None, :]
            accept = np.exp(np.minimum(log_before.T - log_before, 0.0))
            accept = accept.reshape((1,) * low + (size, size) + (1,) * (n_replicas - low - 2))
            moved = everywhere * accept
            acceptance[round_, low] = moved.sum()
            everywhere = everywhere - moved + np.swapaxes(moved, low, low + 1)
    return TemperedLaw(everywhere.sum(axis=tuple(range(n_replicas - 1))), acceptance)


@dataclass(frozen=True)
class Weights:
    """Exact moments of an annealing weight in units of its mean, and of its logarithm (nats)."""

    log_mean: float
    variance: float
    third: float  # central
    mean_log: float
    log_variance: float


def forward_weights(rbm: RBM, base: RBM, inv_temps: Array) -> Weights:
    """Of chains carried from the base to the machine; the mean is Z."""
    return _annealed(rbm, base, inv_temps, float(logsumexp(log_weights(base.general()))))


def reverse_weights(rbm: RBM, base: RBM, inv_temps: Array) -> Weights:
    """Of chains carried from samples of the machine to the base; the mean is 1 / Z."""
    return _annealed(rbm, base, inv_temps[::-1], -float(logsumexp(log_weights(base.general()))))


def _annealed(rbm: RBM, base: RBM, path: Array, log_factor: float) -> Weights:
    """Moments of a factor times the product of f_next(z1) / f_here(z1) along a path, with sweeps between its ends."""

    def at(b: float) -> tuple[Array, Array]:
        """log f_b(z1), (S1,), and the probability of z1 after a sweep given z1 before, (S1, S1)."""
        machine = RBM((1 - b) * base.a1 + b * rbm.a1, (1 - b) * base.a2 + b * rbm.a2, b * rbm.W)
        log_joint = log_weights(machine.general()).reshape(2**rbm.n2, 2**rbm.n1).T
        return logsumexp(log_joint, axis=1), sweep_kernel(joint(machine)).sum(axis=1)

    machines = [at(b) for b in path]
    start = machines[0][0]
    law_now = np.exp(start - logsumexp(start))
    # carried[p](z1) = E[w**p; z1], logs[p](z1) = E[(log w)**p; z1]
    carried, logs = [law_now] * 4, [law_now, 0 * law_now, 0 * law_now]
    for (log_here, _), (log_there, kernel) in itertools.pairwise(machines):
        gain = log_there - log_here
        logs = [logs[0], logs[1] + gain * logs[0], logs[2] + 2 * gain * logs[1] + gain**2 * logs[0]]
        logs = [one @ kernel for one in logs]
        carried = [(one * np.exp(power * gain)) @ kernel for power, one in enumerate(carried)]
    _, first, second, third = (float(one.sum()) for one in carried)
    second, third = second / first**2, third / first**3
    mean_log, square_log = float(logs[1].sum()), float(logs[2].sum())
    return Weights(
        log_mean=float(np.log(first)) + log_factor,
        variance=second - 1,
        third=third - 3 * second + 2,
        mean_log=mean_log + log_factor,
        log_variance=square_log - mean_log**2,
    )


@dataclass(frozen=True, eq=False)
class Posterior:
    """One image of a small model: log q(z|x) and log p(x, z) of every state z, (S,) each, nats."""

    log_q: Array
    log_joint: Array

    @property
    def log_marginal(self) -> float:
        """log p(x)."""
        return float(logsumexp(self.log_joint))

    @property
    def weight_variance(self) -> float:
        """Variance of p(x, z) / q(z|x) under q, in units of p(x)**2."""
        return float(np.exp(logsumexp(2 * self.log_joint - self.log_q) - 2 * self.log_marginal) - 1)

    def bound(self, n_draws: int) -> float:
        """The exact importance-weighted bound of so many draws: the mean of the log of the mean weight (nats)."""
        log_weight = self.log_joint - self.log_q
        log_sum, log_prob = log_weight, self.log_q
        for _ in range(n_draws - 1):
            log_sum = np.logaddexp.outer(log_sum, log_weight)
            log_prob = np.add.outer(log_prob, self.log_q)
        return float((np.exp(log_prob) * (log_sum - np.log(n_draws))).sum())


def posterior(
    groups: list[Callable[[Array], Array]], pixel_logits: Callable[[Array], Array], prior: RBM, x: Array
) -> Posterior:
    """Enumerate a hierarchical posterior: a group's logits given the states of those before, an image's given all.

    Shapes   groups: (S, units before) -> (S, units of the group); pixel_logits: (S, N) -> (S, D); x (D,)
    """
    z = states(prior.n1 + prior.n2)
    logits: list[Array] = []
    for network in groups:
        n_before = sum(part.shape[1] for part in logits)
        logits.append(network(z[:, :n_before]))
    log_prior = log_weights(prior.general())
    log_joint = log_prior - logsumexp(log_prior) + _log_bernoulli(x, pixel_logits(z))
    return Posterior(_log_bernoulli(z, np.hstack(logits)), log_joint)


def _log_bernoulli(x: Array, logits: Array) -> Array:
    """log of the probability of x, summed over the last axis: x = 1 has the weight e^l against 1."""
    return (x * logits - np.logaddexp(0.0, logits)).sum(axis=-1)
