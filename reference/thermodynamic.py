"""log Z as an integral: how fast it rises along the path from an independent base to the machine.

On the path of ``partition``, the machine at b has the energy E_b = (1 - b) E_base + b E, and

    d log Z_b / db = E_b[-dE_b/db] = E_b[E_base - E],

so log Z is log Z_base plus the integral of that mean over b in [0, 1]. Annealed importance sampling averages weights,
which are exponentials: a few chains may decide. Here plain means of energies are averaged. The price is that the chains
must be *at* equilibrium at every b: there is no weight that makes up for a late chain, hence tempering and burn-in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import ArrayLike

from reference import tempering
from reference.bernoulli import sigmoid
from reference.boltzmann import energy
from reference.partition import Estimate, as_path, independent_log_partition, path_biases
from reference.philox import (
    STREAM_INTEGRAL_INIT,
    STREAM_INTEGRAL_SWAP,
    STREAM_INTEGRAL_Z1,
    STREAM_INTEGRAL_Z2,
    uniforms,
)
from reference.vocabulary import (
    RBM,
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_states,
    check_count,
    check_unit_interval,
)


@dataclass(frozen=True)
class Integral(Estimate):
    """An estimate of log Z by quadrature, the mean of one integral per independent chain.

    standard_error is the spread of the chains' integrals, sd / sqrt(n): it holds whatever the correlation inside a
    chain, and knows nothing of errors that all chains share. Those are a burn-in too short, a mode that no chain found,
    and quadrature_error: how far the result lies from that of the quadrature on every other rung. It is the error of
    the *coarser* rule, hence a large overestimate, plus a little noise; far above the standard error it asks for more
    rungs. The chains count alike: effective_sample_size is n_chains. All errors in nats.
    """

    quadrature_error: float


class Quadrature(NamedTuple):
    """Nodes (R,) that rise from 0 to 1 and weights (R,): the integral of f over [0, 1] is about weights @ f(nodes)."""

    nodes: Array
    weights: Array


def clenshaw_curtis(n_nodes: int) -> Quadrature:
    """Quadrature on [0, 1] that is exact for polynomials of degree n_nodes - 1, with both ends among the nodes.

    Nodes (1 - cos(pi k / n)) / 2 for k = 0 .. n; the weights are those that integrate every Chebyshev polynomial up to
    degree n exactly, the integral of T_m over [-1, 1] being 2 / (1 - m**2) for even m and 0 for odd. The error falls
    geometrically for a smooth integrand (Gauss' rule is hardly better), and every other node of an odd number of them
    is the rule of half the size: an error estimate costs nothing.

    Source   Clenshaw & Curtis (1960); Trefethen (2008), "Is Gauss quadrature better than Clenshaw-Curtis?".
    Shapes   -> nodes (R,), weights (R,)
    Domain   n_nodes >= 2
    Units    none
    Raises   DomainError for a number that is not whole and at least 2.
    """
    n_nodes = check_count("n_nodes", n_nodes, least=2)
    degrees = np.arange(n_nodes)
    cosines = -np.cos(np.pi * degrees / (n_nodes - 1))
    even = degrees % 2 == 0
    integrals = np.where(even, 2.0 / np.where(even, 1 - degrees**2, 1), 0.0)
    weights = np.linalg.solve(chebvander(cosines, n_nodes - 1).T, integrals)
    return Quadrature((1 + cosines) / 2, weights / 2)


def slopes(rbm: RBM, base: RBM, inv_temps: ArrayLike, z1: ArrayLike) -> Array:
    """Slope, in b, of the log-marginal of each z1 on the path; its mean under the machine at b is d log Z_b / db.

    log f_b(z1) = a1_b'z1 + sum over j of softplus((a2_b + b z1 W)_j), with biases a_b = (1 - b) a_base + b a, rises by

        (a1 - a1_base)'z1 + sigmoid(a2_b + b z1 W)'(a2 - a2_base + z1 W)

    per unit of b. This is E_b[E_base - E | z1]: the second side enters by its mean and not by a sample of it, which has
    the same expectation and less spread (Rao-Blackwell).

    Source   Gelman & Meng (1998), "Simulating normalizing constants", the identity of thermodynamic integration.
    Shapes   inv_temps (B,), one for each row, z1 (B, N1) -> (B,)
    Domain   base.W = 0, base of the machine's size; inv_temps in [0, 1]; z1 in {0, 1}
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    z1 = as_states("z1", z1, rbm.n1)
    inv_temps = as_float("inv_temps", inv_temps)
    if inv_temps.shape != (len(z1),):
        raise ShapeError(f"inv_temps must be ({len(z1)},), one for each row of z1; got {inv_temps.shape}")
    check_unit_interval("inv_temps", inv_temps)
    a2_path = path_biases(rbm, base, inv_temps)[1]
    z1_w = z1 @ rbm.W
    prob2 = sigmoid(a2_path + inv_temps[:, None] * z1_w)
    return z1 @ (rbm.a1 - base.a1) + (prob2 * (rbm.a2 - base.a2 + z1_w)).sum(axis=1)


def thermodynamic_estimate(
    rbm: RBM,
    base: RBM,
    n_chains: int,
    n_rounds: int,
    seed: int,
    burn_in: int = 100,
    n_rungs: int = 33,
) -> Integral:
    """Estimate of log Z by thermodynamic integration along parallel-tempering chains.

    Every chain has a replica at each node of the quadrature. A round sweeps all replicas and lets neighbours exchange;
    the slope at a node is averaged over n_rounds rounds, and burn_in rounds before those are not used. The rung at b =
    0 is a fresh draw of the base in every round, and exchanges carry it upwards: that is why the quadrature has its
    ends among the nodes. All replicas start from the base. The chains are independent of each other; replica r of chain
    c has the random numbers of Philox chain r C + c.

    The estimate errs to no particular side. Chains not yet at equilibrium bias it either way, and the standard error
    does not show it: compare with a longer burn-in.

    Source   Kirkwood (1935), the integral; Gelman & Meng (1998). Tempering on the nodes is our choice.
    Shapes   -> Integral
    Domain   base.W = 0, base of the machine's size; n_chains >= 2; n_rounds >= 1; burn_in >= 0; n_rungs odd, >= 3
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    n_chains = check_count("n_chains", n_chains, least=2)
    n_rungs = check_count("n_rungs", n_rungs, least=3)
    if n_rungs % 2 == 0:
        raise DomainError(f"n_rungs must be odd, so that every other rung is a quadrature too; got {n_rungs}")
    nodes, weights = clenshaw_curtis(n_rungs)
    mean_slopes = _mean_slopes(rbm, base, nodes, n_chains, n_rounds, seed, burn_in)
    integrals = weights @ mean_slopes
    coarse = clenshaw_curtis(n_rungs // 2 + 1).weights @ mean_slopes[::2]
    return Integral(
        log_partition=independent_log_partition(base) + float(integrals.mean()),
        standard_error=float(integrals.std(ddof=1) / np.sqrt(n_chains)),
        effective_sample_size=float(n_chains),
        n_chains=n_chains,
        quadrature_error=float(abs((integrals - coarse).mean())),
    )


def _mean_slopes(rbm: RBM, base: RBM, inv_temps: Array, n_chains: int, n_rounds: int, seed: int, burn_in: int) -> Array:
    """Slope at each rung (R,) of each chain, averaged over the rounds after burn-in -> (R, C)."""
    inv_temps = as_path(rbm, base, inv_temps)
    n_rounds, burn_in = check_count("n_rounds", n_rounds), check_count("burn_in", burn_in, least=0)
    n_replicas = len(inv_temps)
    n_rows = n_replicas * n_chains
    row_inv_temps = np.repeat(inv_temps, n_chains)
    a1_path, a2_path = path_biases(rbm, base, row_inv_temps)
    coupling = row_inv_temps[:, None]
    # E_b is linear in b, so its slope plays the part that the energy plays on the ladder of a single machine.
    change = RBM(rbm.a1 - base.a1, rbm.a2 - base.a2, rbm.W)

    z1 = (uniforms(seed, 0, n_rows, rbm.n1, STREAM_INTEGRAL_INIT) < sigmoid(base.a1)).astype(np.float64)
    total = np.zeros((n_replicas, n_chains))
    for round_ in range(burn_in + n_rounds):
        u2 = uniforms(seed, round_, n_rows, rbm.n2, STREAM_INTEGRAL_Z2)
        u1 = uniforms(seed, round_, n_rows, rbm.n1, STREAM_INTEGRAL_Z1)
        z2 = (u2 < sigmoid(a2_path + coupling * (z1 @ rbm.W))).astype(np.float64)
        z1 = (u1 < sigmoid(a1_path + coupling * (z2 @ rbm.W.T))).astype(np.float64)
        if round_ >= burn_in:
            total += slopes(rbm, base, row_inv_temps, z1).reshape(n_replicas, n_chains)

        u = uniforms(seed, round_, n_chains, n_replicas - 1, STREAM_INTEGRAL_SWAP).T
        energy_slopes = energy(change, z1, z2).reshape(n_replicas, n_chains)
        permutation = tempering.swap(energy_slopes, inv_temps, u, parity=round_ % 2)
        z1 = z1[(permutation * n_chains + np.arange(n_chains)).ravel()]
    return total / n_rounds
