"""Parallel tempering: samples of a machine whose Gibbs chains would stay in one mode.

Replicas r = 0 .. R - 1 of each chain follow exp(-b_r E): at small b the landscape is flat and a replica wanders freely,
at b = 1 it is the machine itself. After every few sweeps neighbours may exchange states, with a probability that keeps
each replica's distribution; what the flat replicas discover travels to b = 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reference.boltzmann import energy
from reference.gibbs import sweep
from reference.philox import (
    STREAM_SWAP,
    STREAM_TEMPERING_INIT,
    STREAM_TEMPERING_Z1,
    STREAM_TEMPERING_Z2,
    as_seed,
    uniforms,
)
from reference.vocabulary import (
    RBM,
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_ladder,
    as_states,
    check,
    check_count,
    check_finite,
    check_unit_interval,
)


class Tempered(NamedTuple):
    """Samples at inverse temperature 1 and how well the ladder carried them.

    z1 (C, N1) and z2 (C, N2) are the final states of C independent chains. swap_rates (R - 1,) is the fraction of
    exchanges between replicas r and r + 1 that were accepted (NaN where none was tried): below about 0.2 the ladder has
    too few rungs there.
    """

    z1: Array
    z2: Array
    swap_rates: Array


class Round(NamedTuple):
    """One round: z1 and z2 afterwards; exchanges accepted and tried, (R - 1,) each.

    z1 (C, N1) and z2 (C, N2) are those at inverse temperature 1, or, of all replicas, (R C, N1) and (R C, N2).
    """

    z1: Array
    z2: Array
    n_accepted: Array
    n_tried: Array


def swap(energies: ArrayLike, inv_temps: ArrayLike, u: ArrayLike, parity: int) -> Array:
    """Which replica's state each replica takes over when neighbours of one parity try to exchange theirs.

    Pairs (r, r + 1) with r of the given parity exchange if u[r] < min(1, exp((b_r - b_{r+1}) (E_r - E_{r+1}))), the
    ratio of the joint probabilities after and before. Pairs of one parity are disjoint, so all exchange at once; parity
    alternates between calls. After the call replica r of chain c holds the state that replica result[r, c] held:
    ``np.take_along_axis(energies, result, axis=0)`` are the new energies.

    Source   Geyer (1991); Swendsen & Wang (1986).
    Shapes   energies (R, C), inv_temps (R,), u (R - 1, C), row r for the pair (r, r + 1) -> (R, C) integers
    Domain   energies finite; inv_temps finite and not negative; u in [0, 1]; parity 0 or 1
    Units    nats (energies)
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    energies, inv_temps, u = as_float("energies", energies), as_float("inv_temps", inv_temps), as_float("u", u)
    if energies.ndim != 2:
        raise ShapeError(f"energies must be (R, C), replicas by chains; got {energies.shape}")
    n_replicas, n_chains = energies.shape
    if inv_temps.shape != (n_replicas,):
        raise ShapeError(f"inv_temps must be (R,) = ({n_replicas},) to match energies; got {inv_temps.shape}")
    if u.shape != (n_replicas - 1, n_chains):
        raise ShapeError(f"u must be (R - 1, C) = ({n_replicas - 1}, {n_chains}) to match energies; got {u.shape}")
    check_finite("energies", energies)
    check("inv_temps", inv_temps, (inv_temps >= 0) & (inv_temps < np.inf), "be finite and not negative")
    check_unit_interval("u", u)
    if check_count("parity", parity, least=0) not in (0, 1):
        raise DomainError(f"parity must be 0 or 1; got {parity}")

    permutation = np.repeat(np.arange(n_replicas)[:, None], n_chains, axis=1)
    lower = np.arange(parity, n_replicas - 1, 2)
    log_ratio = (inv_temps[lower] - inv_temps[lower + 1])[:, None] * (energies[lower] - energies[lower + 1])
    accepted = u[lower] < np.exp(np.minimum(log_ratio, 0))  # u = 1 is refused even at ratio 1: an event of measure zero
    permutation[lower] += accepted
    permutation[lower + 1] -= accepted
    return permutation


def rounds(rbm: RBM, inv_temps: ArrayLike, n_chains: int, seed: int, sweeps_per_round: int = 1) -> Iterator[Round]:
    """Temper without end: every replica sweeps, then neighbours exchange; from fair coins, a result after every round.

    The chains are independent of each other; replica r of chain c has the random numbers of Philox chain r C + c.

    Source   Desjardins, Courville, Bengio, Vincent, Delalleau (2010), tempering for RBMs.
    Shapes   inv_temps (R,) -> Round by Round
    Domain   0 <= inv_temps[0] < ... < inv_temps[R-1] = 1; n_chains, sweeps_per_round >= 1
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit, before the first round.
    """
    n_chains = check_count("n_chains", n_chains)
    of_all = replica_rounds(rbm, inv_temps, n_chains, seed, sweeps_per_round)
    return (one._replace(z1=one.z1[-n_chains:], z2=one.z2[-n_chains:]) for one in of_all)


def replica_rounds(
    rbm: RBM,
    inv_temps: ArrayLike,
    n_chains: int,
    seed: int,
    sweeps_per_round: int = 1,
    first_round: int = 0,
    z1: ArrayLike | None = None,
) -> Iterator[Round]:
    """``rounds`` with the states of all replicas, from which a later call can go on.

    Row r C + c of a result is replica r of chain c, after the exchange. Going on from round a with its z1 gives bit for
    bit what rounds a, a + 1, ... of one call give.

    Source   as ``rounds``.
    Shapes   inv_temps (R,), z1 (R C, N1) or None, fair coins -> Round by Round, z1 (R C, N1) and z2 (R C, N2)
    Domain   as ``rounds``; first_round >= 0; z1 in {0, 1}
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit, before the first round.
    """
    inv_temps = as_ladder("inv_temps", inv_temps)
    n_chains = check_count("n_chains", n_chains)
    as_seed(seed)  # refused here, not at the first round
    sweeps_per_round = check_count("sweeps_per_round", sweeps_per_round)
    first_round = check_count("first_round", first_round, least=0)
    n_rows = len(inv_temps) * n_chains
    if z1 is None:
        start = (uniforms(seed, 0, n_rows, rbm.n1, STREAM_TEMPERING_INIT) < 0.5).astype(np.float64)
    else:
        start = as_states("z1", z1, rbm.n1)
        if len(start) != n_rows:
            raise ShapeError(f"z1 must have {n_rows} rows, one for each replica and chain; got {start.shape}")
    return _rounds(rbm, inv_temps, n_chains, seed, sweeps_per_round, first_round, start)


def run(
    rbm: RBM,
    inv_temps: ArrayLike,
    n_chains: int,
    n_rounds: int,
    seed: int,
    sweeps_per_round: int = 1,
) -> Tempered:
    """Draw one sample per chain: the states after ``n_rounds`` of ``rounds``.

    Source   as ``rounds``.
    Shapes   inv_temps (R,) -> z1 (C, N1), z2 (C, N2), swap_rates (R - 1,)
    Domain   as ``rounds``; n_rounds >= 1
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    all_rounds = rounds(rbm, inv_temps, n_chains, seed, sweeps_per_round)
    n_accepted = n_tried = np.zeros(np.size(inv_temps) - 1)
    for one in itertools.islice(all_rounds, check_count("n_rounds", n_rounds)):
        n_accepted, n_tried = n_accepted + one.n_accepted, n_tried + one.n_tried
    with np.errstate(invalid="ignore"):  # 0 / 0 where a pair was never tried: NaN is the answer
        return Tempered(one.z1, one.z2, n_accepted / n_tried)


def _rounds(
    rbm: RBM, inv_temps: Array, n_chains: int, seed: int, sweeps_per_round: int, first_round: int, z1: Array
) -> Iterator[Round]:
    n_replicas, n_rows = len(inv_temps), len(z1)
    row_inv_temp = np.repeat(inv_temps, n_chains)
    z2 = np.zeros((n_rows, rbm.n2))  # drawn by the first sweep

    for round_ in itertools.count(first_round):
        for step in range(round_ * sweeps_per_round, (round_ + 1) * sweeps_per_round):
            u2 = uniforms(seed, step, n_rows, rbm.n2, STREAM_TEMPERING_Z2)
            u1 = uniforms(seed, step, n_rows, rbm.n1, STREAM_TEMPERING_Z1)
            z1, z2 = sweep(rbm, z1, u2, u1, row_inv_temp)

        parity = round_ % 2
        energies = energy(rbm, z1, z2).reshape(n_replicas, n_chains)
        u = uniforms(seed, round_, n_chains, n_replicas - 1, STREAM_SWAP).T
        permutation = swap(energies, inv_temps, u, parity)
        rows = (permutation * n_chains + np.arange(n_chains)).ravel()
        z1, z2 = z1[rows], z2[rows]

        n_tried = np.zeros(n_replicas - 1)
        n_tried[parity::2] = n_chains
        # Replica r took over from r + 1 exactly if the pair (r, r + 1) exchanged.
        n_accepted = (permutation > np.arange(n_replicas)[:, None])[:-1].sum(axis=1)
        yield Round(z1, z2, n_accepted, n_tried)
