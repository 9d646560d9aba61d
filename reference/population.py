"""Population annealing: many replicas of a machine cooled together, the unlikely ones replaced by copies of the likely.

R replicas start as fair coins, at inverse temperature 0, and climb a ladder 0 = b_0 < ... < b_K = 1. One rung up, a
replica is worth w = f_{b'}(z1) / f_b(z1), where f_b(z1) = sum over z2 of exp(-b E(z1, z2)). It leaves R w / sum(w)
copies on average, and all copies are swept. In annealed importance sampling (partition.py) a replica keeps its weight
to the end, and in the end a few hold all of it; here weights turn into numbers of copies at every rung, so effort goes
where the probability is. The product of the mean weights estimates Z without bias.

Why f and not exp(-E)? Both weights are right. Given z1, the replica's z2 is a draw from p_b(z2 | z1), and

    f_{b'}(z1) / f_b(z1) = E[exp(-(b' - b) E(z1, z2)) | z1]:

the same weight with the noise of z2 averaged away, so its variance is never larger. The sweep forgets z2 anyway.

Replicas of one population are relatives, so their spread says nothing about the error. Independent populations do.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from reference.boltzmann import log_marginal_z1
from reference.gibbs import sweep
from reference.partition import Estimate, estimate
from reference.philox import (
    STREAM_POPULATION_INIT,
    STREAM_POPULATION_Z1,
    STREAM_POPULATION_Z2,
    STREAM_RESAMPLE,
    uniforms,
)
from reference.vocabulary import (
    RBM,
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_ladder,
    check,
    check_count,
    check_finite,
)


class Population(NamedTuple):
    """M independent populations of R replicas at inverse temperature 1, and what they say about log Z.

    z1 (M, R, N1) and z2 (M, R, N2) are the replicas. log_weights (M,), in nats, are the populations' own estimates of
    log Z; ``estimate`` is the log of their mean weight, with the standard error of M independent ones (its n_chains is
    M). effective_families (M,) counts the ancestors that still matter: 1 / sum over families of (share of the
    population)**2, from 1 (all replicas descend from one) to R. R over it is the mean square family size rho_t of Wang,
    Machta & Katzgraber; when it nears R, replicas are copies and R must grow.

    Populations are *not* worth the same: the mean over replicas of any f(z1, z2), weighted by exp(log_weights), is
    unbiased for Z E[f], while an unweighted mean keeps a bias of order 1 / R.
    """

    z1: Array
    z2: Array
    log_weights: Array
    estimate: Estimate
    effective_families: Array


def resample(log_weights: ArrayLike, u: ArrayLike) -> Array:
    """Which replica each replica becomes a copy of, R out of R in each population.

    Systematic resampling: the points (u + i) / R, i = 0 .. R - 1, fall on a bar cut into pieces w_r / sum(w); each
    point copies the replica it falls on. Replica r gets R w_r / sum(w) copies on average over u, rounded down or up in
    every draw, and the population keeps its size. (Nearest-integer or Poisson numbers of copies let it drift.) The
    result rises, so relatives stay neighbours and one comb of points shares copies out evenly among families too.

    Source   Kitagawa (1996), systematic resampling; Hukushima & Iba (2003), resampling in population annealing.
    Shapes   log_weights (M, R), u (M,) -> (M, R) integers in 0 .. R - 1, rising along each row
    Domain   log_weights finite; u in [0, 1)
    Units    nats (log_weights)
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    log_weights, u = as_float("log_weights", log_weights), as_float("u", u)
    if log_weights.ndim != 2 or log_weights.size == 0:
        raise ShapeError(f"log_weights must be (M, R), populations by replicas, not empty; got {log_weights.shape}")
    n_populations, n_replicas = log_weights.shape
    if u.shape != (n_populations,):
        raise ShapeError(f"u must be (M,) = ({n_populations},) to match log_weights; got {u.shape}")
    check_finite("log_weights", log_weights)
    check("u", u, (u >= 0) & (u < 1), "lie in [0, 1)")

    ends = np.cumsum(np.exp(log_weights - log_weights.max(axis=1, keepdims=True)), axis=1)
    ends /= ends[:, -1:]
    n_points_below = np.ceil(n_replicas * ends - u[:, None]).astype(int)
    # R - u may round down to R - 1, and a point would be lost. It belongs to the last replica of positive weight.
    n_points_below[ends == 1] = n_replicas
    copies = np.diff(n_points_below, prepend=0, axis=1)
    replicas = np.tile(np.arange(n_replicas), n_populations)
    return np.repeat(replicas, copies.ravel()).reshape(n_populations, n_replicas)


def anneal(
    rbm: RBM,
    inv_temps: ArrayLike,
    n_populations: int,
    n_replicas: int,
    seed: int,
    sweeps_per_rung: int = 1,
) -> Population:
    """Carry independent populations from fair coins up the ladder to the machine itself: samples, and log Z.

    log Z of a population = (N1 + N2) log 2 + sum over rungs of log mean weight. Replica r of population m has the
    random numbers of Philox chain m R + r, population m's resampling those of chain m.

    Source   Hukushima & Iba (2003); Machta (2010) for weighted averages over populations; Wang, Machta, Katzgraber
             (2015) for families.
    Departs  weights by the marginal of z1 instead of the energy, for less variance (see the top of this file).
    Shapes   inv_temps (K + 1,) -> Population
    Domain   inv_temps rises strictly from 0 to 1; n_populations >= 2; n_replicas, sweeps_per_rung >= 1
    Units    nats (log_weights, estimate)
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    ladder = as_ladder("inv_temps", inv_temps)
    if ladder[0] != 0 or len(ladder) < 2:
        raise DomainError(f"inv_temps must start at 0, where log Z is known, and go on; got {ladder.tolist()}")
    n_populations = check_count("n_populations", n_populations, least=2)
    n_replicas = check_count("n_replicas", n_replicas)
    sweeps_per_rung = check_count("sweeps_per_rung", sweeps_per_rung)

    n_rows = n_populations * n_replicas
    first_row = n_replicas * np.arange(n_populations)[:, None]
    z1 = (uniforms(seed, 0, n_rows, rbm.n1, STREAM_POPULATION_INIT) < 0.5).astype(np.float64)
    z2 = np.empty((n_rows, rbm.n2))  # drawn by the first sweep
    log_weights = np.full(n_populations, (rbm.n1 + rbm.n2) * np.log(2))
    ancestors = np.tile(np.arange(n_replicas), (n_populations, 1))

    for rung, (here, there) in enumerate(itertools.pairwise(ladder)):
        gain = log_marginal_z1(_heated(rbm, there), z1) - log_marginal_z1(_heated(rbm, here), z1)
        gain = gain.reshape(n_populations, n_replicas)
        log_weights += logsumexp(gain, axis=1) - np.log(n_replicas)
        parents = resample(gain, uniforms(seed, rung, n_populations, 1, STREAM_RESAMPLE)[:, 0])
        ancestors = np.take_along_axis(ancestors, parents, axis=1)
        z1 = z1[(first_row + parents).ravel()]
        for step in range(rung * sweeps_per_rung, (rung + 1) * sweeps_per_rung):
            u2 = uniforms(seed, step, n_rows, rbm.n2, STREAM_POPULATION_Z2)
            u1 = uniforms(seed, step, n_rows, rbm.n1, STREAM_POPULATION_Z1)
            z1, z2 = sweep(rbm, z1, u2, u1, there)

    family_sizes = np.bincount((first_row + ancestors).ravel(), minlength=n_rows).reshape(n_populations, n_replicas)
    return Population(
        z1=z1.reshape(n_populations, n_replicas, rbm.n1),
        z2=z2.reshape(n_populations, n_replicas, rbm.n2),
        log_weights=log_weights,
        estimate=estimate(log_weights, sign=1),
        effective_families=n_replicas**2 / (family_sizes**2).sum(axis=1),
    )


def _heated(rbm: RBM, inv_temp: float) -> RBM:
    """The machine whose energy is inv_temp times that of ``rbm``."""
    return RBM(inv_temp * rbm.a1, inv_temp * rbm.a2, inv_temp * rbm.W)
