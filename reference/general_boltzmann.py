"""The general Boltzmann machine: any two units may be coupled, and almost everything costs an enumeration.

    p(z) = exp(-E(z)) / Z,    E(z) = -a'z - z'J z / 2,    z binary, J symmetric with a zero diagonal.

An RBM is the special case without couplings inside a side (``RBM.general``). Without that restriction no side can be
summed out in closed form, and no block of units is independent given the rest: of the RBM's exact answers only those
for a single unit survive. The others are sums over all states of the units one does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from reference.boltzmann import LARGEST_ENUMERATION, all_states
from reference.vocabulary import Array, BoltzmannMachine, DomainError, as_relaxed, as_states, check_count, check_general


class Marginals(NamedTuple):
    """Means of a machine's units and of the products of two: mean (N,), pair (N, N) with the mean on its diagonal."""

    mean: Array
    pair: Array


def energy(machine: BoltzmannMachine, z: ArrayLike) -> Array:
    """Energy of each state.

    E = -a'z - z'J z / 2. It is linear in every single unit (no unit is coupled with itself), so with probabilities in
    place of z the result is the *expected* energy under independent units.

    Source   DVAE++ (arXiv:1802.04920), section 5; Ackley, Hinton, Sejnowski (1985).
    Shapes   z (B, N) -> (B,)
    Domain   entries in [0, 1]
    Units    nats
    Raises   ShapeError, DomainError or TypeError for a z that does not fit.
    """
    check_general(machine)
    z = as_relaxed("z", z, machine.n)
    return -(z @ machine.a) - ((z @ machine.J) * z).sum(axis=1) / 2


def logits(machine: BoltzmannMachine, z: ArrayLike) -> Array:
    """Logits of every unit given all the others: a + J z, the energy with the unit off less that with the unit on.

    Column i does not depend on column i of z. The units are *not* independent of each other given z: a Gibbs sampler
    updates one at a time.

    Source   Ackley, Hinton, Sejnowski (1985).
    Shapes   z (B, N) -> (B, N)
    Domain   entries in [0, 1]
    Units    nats (log-odds)
    Raises   ShapeError, DomainError or TypeError for a z that does not fit.
    """
    check_general(machine)
    return machine.a + as_relaxed("z", z, machine.n) @ machine.J


def free_energy(machine: BoltzmannMachine, z_visible: ArrayLike, visible: Sequence[int]) -> Array:
    """Free energy of some of the units, the others hidden: the energy that a machine of these units alone would need.

    F(v) = -log sum over h of exp(-E(v, h)), so that p(v) = exp(-F(v)) / Z. What the visible units do to the hidden ones
    is to move their biases, from a_h to a_h + J_hv v; the hidden units are then enumerated.

    Cost: 2**(hidden units) states, in chunks of bounded memory.

    Source   Hinton (2012), "A practical guide to training restricted Boltzmann machines", section 16.1, whose sum over
             the hidden units has no closed form once they are coupled.
    Shapes   z_visible (B, V); visible: the V units that its columns are, in order -> (B,)
    Domain   z_visible in {0, 1}; visible distinct and in 0 .. N - 1; at most 24 units hidden. All visible: F = E; none:
             F = -log Z
    Units    nats
    Raises   DomainError for too many hidden units, or units that do not exist or are named twice; ShapeError,
             DomainError or TypeError for a z_visible that does not fit.
    """
    check_general(machine)
    visible = _as_units("visible", visible, machine.n)
    z_visible = as_states("z_visible", z_visible, len(visible))
    hidden = [unit for unit in range(machine.n) if unit not in visible]
    if len(hidden) > LARGEST_ENUMERATION:
        raise DomainError(
            f"a Boltzmann machine must have at most {LARGEST_ENUMERATION} hidden units to be enumerated; it has "
            f"{len(hidden)}. Without couplings inside its sides it is an RBM, and reference.partition.bracket serves"
        )
    clamped = np.zeros(
        (len(z_visible), machine.n)
    )  # hidden units off: their energy is 0, their logits are the new biases
    clamped[:, visible] = z_visible
    biases, couplings = logits(machine, clamped)[:, hidden], machine.J[np.ix_(hidden, hidden)]
    log_sum = np.full(len(z_visible), -np.inf)
    for states in all_states(len(hidden), max(1, len(z_visible))):
        log_weights = biases @ states.T + ((states @ couplings) * states).sum(axis=1) / 2  # (B, rows)
        log_sum = np.logaddexp(log_sum, logsumexp(log_weights, axis=1))
    return energy(machine, clamped) - log_sum


def log_partition(machine: BoltzmannMachine) -> float:
    """Exact log Z: minus the free energy of no units at all.

    Cost: 2**N states, in chunks of bounded memory; 24 units take some ten seconds. An RBM is cheaper by
    ``reference.boltzmann.log_partition``, which enumerates one side only.

    Source   DVAE++ (arXiv:1802.04920), section 5, the normaliser.
    Shapes   -> scalar
    Domain   N <= 24
    Units    nats
    Raises   DomainError for a larger machine.
    """
    return -float(free_energy(machine, np.zeros((1, 0)), [])[0])


def marginals(machine: BoltzmannMachine) -> Marginals:
    """Exact means E[z] and E[z z'], by enumeration.

    ``mean`` is the gradient of log Z in a; entry i, j of ``pair`` is its derivative in the coupling of units i and j,
    the number that J holds twice.

    Source   Ackley, Hinton, Sejnowski (1985).
    Shapes   -> mean (N,), pair (N, N)
    Domain   N <= 24
    Units    none (probabilities)
    Raises   DomainError for a larger machine.
    """
    normaliser = log_partition(machine)
    mean, pair = np.zeros(machine.n), np.zeros((machine.n, machine.n))
    for states in all_states(machine.n):
        prob = np.exp(-energy(machine, states) - normaliser)
        mean += prob @ states
        pair += (states * prob[:, None]).T @ states
    return Marginals(mean, pair)


def _as_units(name: str, value: Sequence[int], n_units: int) -> list[int]:
    """Return unit numbers as a list; raise unless they are distinct and exist."""
    units = [check_count(name, unit, least=0) for unit in value]
    for position, unit in enumerate(units):
        if unit >= n_units:
            raise DomainError(f"{name} must hold unit numbers below N = {n_units}; entry {position} is {unit}")
        if unit in units[:position]:
            raise DomainError(f"{name} must name every unit at most once; entry {position} is {unit} again")
    return units
