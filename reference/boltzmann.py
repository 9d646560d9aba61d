"""The restricted Boltzmann machine: energy, conditionals, and everything a small one allows us to know exactly.

    p(z1, z2) = exp(-E(z1, z2)) / Z,    E(z1, z2) = -a1'z1 - a2'z2 - z1'W z2,    z1, z2 binary.

Given one side, the units of the other are independent: that makes the conditionals simple, lets one side be summed out
in closed form, and leaves 2**min(N1, N2) terms for the exact normaliser. Training needs only the gradient of log Z, for
which samples suffice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from reference.bernoulli import sigmoid, softplus
from reference.vocabulary import RBM, Array, DomainError, as_relaxed, as_states, check_count, check_rbm, check_same_rows

LARGEST_ENUMERATION = 24
_CHUNK_ENTRIES = 2**20  # entries of the largest matrix held while enumerating: 8 MiB


class Marginals(NamedTuple):
    """Means of an RBM's units and of the products across: mean1 (N1,), mean2 (N2,), pair (N1, N2), in [0, 1]."""

    mean1: Array
    mean2: Array
    pair: Array


def energy(rbm: RBM, z1: ArrayLike, z2: ArrayLike) -> Array:
    """Energy of each pair of states.

    E = -a1'z1 - a2'z2 - z1'W z2. It is linear in every single unit, so with probabilities in place of z1 and z2 the
    result is the *expected* energy under independent units.

    Source   DVAE++ (arXiv:1802.04920), section 5.
    Shapes   z1 (B, N1), z2 (B, N2) -> (B,)
    Domain   entries in [0, 1]
    Units    nats
    Raises   ShapeError, DomainError or TypeError for a z1 or z2 that does not fit.
    """
    check_rbm(rbm)
    z1, z2 = as_relaxed("z1", z1, rbm.n1), as_relaxed("z2", z2, rbm.n2)
    check_same_rows(z1=z1, z2=z2)
    return -(z1 @ rbm.a1) - z2 @ rbm.a2 - ((z1 @ rbm.W) * z2).sum(axis=1)


def logits_z2(rbm: RBM, z1: ArrayLike) -> Array:
    """Logits of the second side given the first: a2 + z1 W.

    Source   DVAE++ (arXiv:1802.04920), section 5 defines the energy; the conditionals follow from it: Smolensky (1986);
             Hinton (2002).
    Shapes   z1 (B, N1) -> (B, N2)
    Domain   entries in [0, 1]
    Units    nats (log-odds)
    Raises   ShapeError, DomainError or TypeError for a z1 that does not fit.
    """
    check_rbm(rbm)
    return rbm.a2 + as_relaxed("z1", z1, rbm.n1) @ rbm.W


def logits_z1(rbm: RBM, z2: ArrayLike) -> Array:
    """Logits of the first side given the second: a1 + W z2.

    Source   DVAE++ (arXiv:1802.04920), section 5 defines the energy; the conditionals follow from it: Smolensky (1986);
             Hinton (2002).
    Shapes   z2 (B, N2) -> (B, N1)
    Domain   entries in [0, 1]
    Units    nats (log-odds)
    Raises   ShapeError, DomainError or TypeError for a z2 that does not fit.
    """
    check_rbm(rbm)
    return rbm.a1 + as_relaxed("z2", z2, rbm.n2) @ rbm.W.T


def log_marginal_z1(rbm: RBM, z1: ArrayLike) -> Array:
    """Unnormalised log-probability of the first side, the second summed out: log sum over z2 of exp(-E(z1, z2)).

    = a1'z1 + sum over j of softplus((a2 + z1 W)_j); subtract ``log_partition`` to normalise.

    Source   Salakhutdinov & Murray (2008), eq. (6).
    Shapes   z1 (B, N1) -> (B,)
    Domain   z1 in {0, 1}
    Units    nats
    Raises   ShapeError, DomainError or TypeError for a z1 that does not fit.
    """
    check_rbm(rbm)
    z1 = as_states("z1", z1, rbm.n1)
    return z1 @ rbm.a1 + softplus(logits_z2(rbm, z1)).sum(axis=1)


def free_energy(rbm: RBM, z1: ArrayLike) -> Array:
    """Free energy of the first side, the visible one: the energy a machine without hidden units would need.

    F(z1) = -log sum over z2 of exp(-E(z1, z2)), so that p(z1) = exp(-F(z1)) / Z: ``log_marginal_z1`` with its sign
    changed, under the name it has in the literature. For z2, exchange the sides: RBM(a2, a1, W').

    Source   Hinton (2012), "A practical guide to training restricted Boltzmann machines", section 16.1.
    Shapes   z1 (B, N1) -> (B,)
    Domain   z1 in {0, 1}
    Units    nats
    Raises   as ``log_marginal_z1``.
    """
    return -log_marginal_z1(rbm, z1)


def log_partition(rbm: RBM) -> float:
    """Exact log Z: the smaller side enumerated, the larger summed out in closed form.

    Cost: 2**min(N1, N2) softplus sums, in chunks of bounded memory; 24 units take minutes.

    Source   DVAE++ (arXiv:1802.04920), section 5, the normaliser Z; the enumeration is ours.
    Shapes   -> scalar
    Domain   min(N1, N2) <= 24
    Units    nats
    Raises   DomainError for a larger machine, which needs ``partition.bracket``.
    """
    small = _smaller_side_first(rbm)
    return float(logsumexp([logsumexp(log_marginal_z1(small, states)) for states in all_states(small.n1, small.n2)]))


def marginals(rbm: RBM) -> Marginals:
    """Exact means E[z1], E[z2] and E[z1 z2'], by enumeration: the gradients of log Z in a1, a2 and W.

    Source   Ackley, Hinton, Sejnowski (1985), the derivative of log Z; the enumeration is ours.
    Shapes   -> mean1 (N1,), mean2 (N2,), pair (N1, N2)
    Domain   min(N1, N2) <= 24
    Units    none (probabilities)
    Raises   DomainError for a larger machine, which needs ``partition.bracket`` or sampling.
    """
    small = _smaller_side_first(rbm)
    normaliser = log_partition(small)
    mean1, mean2, pair = np.zeros(small.n1), np.zeros(small.n2), np.zeros((small.n1, small.n2))
    for states in all_states(small.n1, small.n2):
        prob = np.exp(log_marginal_z1(small, states) - normaliser)
        joint2 = prob[:, None] * sigmoid(logits_z2(small, states))  # p(z1) E[z2 | z1]
        mean1 += prob @ states
        mean2 += joint2.sum(axis=0)
        pair += states.T @ joint2
    return Marginals(mean1, mean2, pair) if small is rbm else Marginals(mean2, mean1, pair.T)


def log_partition_surrogate(rbm: RBM, z1: ArrayLike, z2: ArrayLike) -> float:
    """A number whose gradient in the parameters estimates that of log Z; the number itself is *not* log Z.

    -mean over the samples of E(z1, z2), the samples held fixed. Since d log Z / d theta = E_p[-dE / d theta], samples
    of the machine make its gradient right on average, and an automatic differentiator that finds it in the loss needs
    no special treatment of log Z. Its value is on average -E_p[E], which is log Z less the machine's entropy.

    Source   DVAE++ (arXiv:1802.04920), section 5 and appendix E.
    Shapes   z1 (L, N1), z2 (L, N2), at least one row -> scalar
    Domain   z1, z2 in {0, 1}; samples of the machine, for the statement to hold
    Units    nats
    Raises   ShapeError, DomainError or TypeError for samples that do not fit.
    """
    return -float(energy(rbm, *_as_samples(rbm, z1, z2)).mean())


def log_partition_gradient(rbm: RBM, z1: ArrayLike, z2: ArrayLike) -> Marginals:
    """Estimate of the gradient of log Z in a1, a2 and W from samples: their means, and the mean of z1 z2'.

    The gradient of ``log_partition_surrogate``, written out. Over the machine's own distribution in place of samples
    it is ``marginals``, the gradient of log Z itself.

    Source   DVAE++ (arXiv:1802.04920), section 5 and appendix E.
    Shapes   z1 (L, N1), z2 (L, N2), at least one row -> mean1 (N1,), mean2 (N2,), pair (N1, N2)
    Domain   z1, z2 in {0, 1}; samples of the machine, for the statement to hold
    Units    none (probabilities)
    Raises   as ``log_partition_surrogate``.
    """
    z1, z2 = _as_samples(rbm, z1, z2)
    return Marginals(z1.mean(axis=0), z2.mean(axis=0), z1.T @ z2 / len(z1))


def all_states(n_units: int, width: int = 1) -> Iterator[Array]:
    """Every state of binary units, in chunks whose matrix against ``width`` columns stays small.

    Row r, counted through all chunks, is r in binary with unit 0 as its lowest bit. What cannot be enumerated is for
    the caller to refuse: only they know the way out.

    Source   none: counting in binary.
    Shapes   -> chunks (at most 2**20 / max(n_units, width) rows, n_units), 2**n_units rows in all
    Domain   n_units >= 0 (no units: one empty state), width >= 1
    Units    none
    Raises   DomainError, at the first chunk, if either is not such a whole number.
    """
    n_units, width = check_count("n_units", n_units, least=0), check_count("width", width)
    rows = max(1, _CHUNK_ENTRIES // max(n_units, width))
    for first in range(0, 2**n_units, rows):
        codes = np.arange(first, min(first + rows, 2**n_units))
        yield ((codes[:, None] >> np.arange(n_units)) & 1).astype(np.float64)


def _smaller_side_first(rbm: RBM) -> RBM:
    """The machine with its smaller side first, which is then enumerated; raise where that is too large."""
    check_rbm(rbm)
    small = rbm if rbm.n1 <= rbm.n2 else RBM(rbm.a2, rbm.a1, rbm.W.T)
    if small.n1 > LARGEST_ENUMERATION:
        raise DomainError(
            f"the smaller side of an RBM must have at most {LARGEST_ENUMERATION} units to be enumerated; "
            f"it has {small.n1}. Use annealed importance sampling: reference.partition.bracket"
        )
    return small


def _as_samples(rbm: RBM, z1: ArrayLike, z2: ArrayLike) -> tuple[Array, Array]:
    check_rbm(rbm)
    z1, z2 = as_states("z1", z1, rbm.n1), as_states("z2", z2, rbm.n2)
    check_count("the number of rows of z1", check_same_rows(z1=z1, z2=z2))
    return z1, z2
