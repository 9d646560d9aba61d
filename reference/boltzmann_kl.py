"""The KL divergence of a hierarchical posterior to a Boltzmann prior, one draw of zeta at a time.

The posterior cuts the N1 + N2 units, in order, into G groups. Group g is drawn given x and the *smoothed* variables
zeta of the groups before it: q(z_g | x, zeta_<g) is factorial with logits logit_q. Then

    KL(q || p) = log Z - E[H(q)] + E[E(z)].

Entropy and biases need only mu = sigmoid(logit_q). The coupling of units i and j needs E[z_i z_j]:

    i and j in the same group   independent given zeta_<g                      E[z_i z_j] = E[mu_i mu_j]
    i in an earlier group       group j saw zeta_i, which tells about z_i      E[z_i z_j] = E[nu_i mu_j]

with nu_i = q(z_i = 1 | zeta, x). (Within a group nu_i mu_j would be right on average too, since E[nu_i | zeta_<g] =
mu_i; mu_i is that average already taken, without the noise.) Everything inside the expectations is a smooth function of
zeta: no binary variable is ever drawn, and the reparameterised zeta carries the gradient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from reference.bernoulli import entropy, sigmoid
from reference.vocabulary import (
    RBM,
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_rows,
    check_count,
    check_finite,
    check_not_nan,
    check_same_rows,
    check_unit_interval,
)


def group_slices(n_units: int, n_groups: int) -> tuple[slice, ...]:
    """Cut units 0 .. n_units - 1, in order, into groups of equal size.

    Shapes   -> n_groups slices
    Domain   n_groups divides n_units
    Units    none
    Raises   DomainError if it does not, or if either is not a positive whole number.
    """
    n_units, n_groups = check_count("n_units", n_units), check_count("n_groups", n_groups)
    if n_units % n_groups:
        raise DomainError(
            f"n_groups must divide the number of units; {n_units} units do not make {n_groups} equal groups"
        )
    size = n_units // n_groups
    return tuple(slice(first, first + size) for first in range(0, n_units, size))


def cross_entropy(rbm: RBM, mu: ArrayLike, nu: ArrayLike, n_groups: int) -> Array:
    """Expected energy of the posterior, given one draw of zeta: the cross-entropy to the prior but for log Z.

    -a1'mu1 - a2'mu2 - sum over i, j of W_ij c_i mu_j, where c_i = nu_i if unit i of the first side is in an earlier
    group than unit j of the second, and mu_i if they share a group. All units of the first side come before those of
    the second, so i is never in a later group. One group is mean field. With an odd number of groups and N1 = N2, the
    middle one straddles the two sides, and holds couplings of both kinds.

    Source   DVAE++ (arXiv:1802.04920), section 5, eq. (7), and its extension to more than two groups.
    Shapes   mu (B, N1 + N2), nu (B, N1 + N2) -> (B,)
    Domain   entries in [0, 1]; n_groups divides N1 + N2
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    n_units = rbm.n1 + rbm.n2
    mu, nu = as_rows("mu", mu, n_units), as_rows("nu", nu, n_units)
    check_unit_interval("mu", mu)
    check_unit_interval("nu", nu)
    check_same_rows(mu=mu, nu=nu)

    group = np.empty(n_units, dtype=int)
    for g, members in enumerate(group_slices(n_units, n_groups)):
        group[members] = g
    within = np.where(group[: rbm.n1, None] == group[None, rbm.n1 :], rbm.W, 0.0)
    across = rbm.W - within

    mu1, mu2, nu1 = mu[:, : rbm.n1], mu[:, rbm.n1 :], nu[:, : rbm.n1]
    coupling = ((mu1 @ within + nu1 @ across) * mu2).sum(axis=1)
    return -(mu1 @ rbm.a1) - mu2 @ rbm.a2 - coupling


def kl(rbm: RBM, logit_q: ArrayLike, nu: ArrayLike, n_groups: int, log_partition: float) -> Array:
    """KL divergence of the posterior to the prior, given one draw of zeta; its mean over zeta is the KL itself.

    log Z - sum of the units' entropies + ``cross_entropy``. A single row may be negative; the mean is not.

    Source   DVAE++ (arXiv:1802.04920), section 5, eqs. (6) and (7).
    Shapes   logit_q (B, N1 + N2), nu (B, N1 + N2), log_partition scalar -> (B,)
    Domain   all logits but NaN, nu in [0, 1], log_partition finite; n_groups divides N1 + N2
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    logit_q = as_rows("logit_q", logit_q, rbm.n1 + rbm.n2)
    check_not_nan("logit_q", logit_q)
    normaliser = as_float("log_partition", log_partition)
    if normaliser.ndim:
        raise ShapeError(f"log_partition must be one number for all rows; got {normaliser.shape}")
    check_finite("log_partition", normaliser)
    return log_partition - entropy(logit_q).sum(axis=1) + cross_entropy(rbm, sigmoid(logit_q), nu, n_groups)
