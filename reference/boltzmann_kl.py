"""The KL divergence of a hierarchical posterior to a Boltzmann prior, one draw of zeta at a time.

The posterior cuts the N units, in order, into G groups; an RBM's are the N1 of its first side, then the N2 of its
second. Group g is drawn given x and the *smoothed* variables zeta of the groups before it: q(z_g | x, zeta_<g) is
factorial with logits logit_q. Then

    KL(q || p) = log Z - E[H(q)] + E[E(z)].

Entropy and biases need only mu = sigmoid(logit_q). The coupling of units i and j needs E[z_i z_j]:

    i and j in the same group   independent given zeta_<g                      E[z_i z_j] = E[mu_i mu_j]
    i in an earlier group       group j saw zeta_i, which tells about z_i      E[z_i z_j] = E[nu_i mu_j]

with nu_i = q(z_i = 1 | zeta, x). (Within a group nu_i mu_j would be right on average too, since E[nu_i | zeta_<g] =
mu_i; mu_i is that average already taken, without the noise.) Everything inside the expectations is a smooth function of
zeta, provided r(zeta | 0) and r(zeta | 1) overlap: no binary variable is ever drawn, and the reparameterised zeta
carries the gradient. Where they do not overlap nu is z itself, a step, and its part of the gradient is
``rolfe_gradient``.
"""

from __future__ import annotations

from typing import NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike

from reference.bernoulli import entropy, sigmoid
from reference.vocabulary import (
    RBM,
    Array,
    BoltzmannMachine,
    DomainError,
    as_matrix,
    as_relaxed,
    as_rows,
    as_scalar,
    as_states,
    check,
    check_count,
    check_finite,
    check_not_nan,
    check_same_rows,
)


class KLWithGradients(NamedTuple):
    """The KL to a general machine, a number per row, and the derivatives of every row's number.

    kl (B,); dkl_dlogit_q and dkl_dnu (B, N); dkl_da (B, N); dkl_dJ (B, N, N), where entry i, j is the derivative in the
    coupling of units i and j, the number that J holds twice.
    """

    kl: Array
    dkl_dlogit_q: Array
    dkl_dnu: Array
    dkl_da: Array
    dkl_dJ: Array


class RBMKLWithGradients(NamedTuple):
    """The KL to an RBM, a number per row, and the derivatives of every row's number.

    kl (B,); dkl_dlogit_q and dkl_dnu (B, N1 + N2); dkl_da1 (B, N1); dkl_da2 (B, N2); dkl_dW (B, N1, N2).
    """

    kl: Array
    dkl_dlogit_q: Array
    dkl_dnu: Array
    dkl_da1: Array
    dkl_da2: Array
    dkl_dW: Array


def group_slices(n_units: int, n_groups: int) -> tuple[slice, ...]:
    """Cut units 0 .. n_units - 1, in order, into groups of equal size.

    Source   DVAE++ (arXiv:1802.04920), eq. (6) for two groups, the sides of an RBM; more groups, of equal size, are
             ours.
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


def cross_entropy(machine: RBM | BoltzmannMachine, mu: ArrayLike, nu: ArrayLike, n_groups: int) -> Array:
    """Expected energy of the posterior, given one draw of zeta: the cross-entropy to the prior but for log Z.

    -a'mu - sum over i < j of J_ij c_ij mu_j, where c_ij = nu_i if unit i is in an earlier group than unit j and mu_i if
    they share one. One group is mean field. An RBM has couplings only across its sides: two groups that are its sides
    give -a1'mu1 - a2'mu2 - nu1'W mu2. With an odd number of groups and N1 = N2, the middle group straddles the two
    sides, and holds couplings of both kinds.

    Source   DVAE++ (arXiv:1802.04920), section 5, the cross-entropy of eq. (6); its extension to more than two groups
             and any couplings is ours.
    Shapes   mu (B, N), nu (B, N) -> (B,); N = N1 + N2 for an RBM
    Domain   entries in [0, 1]; n_groups divides N
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    machine = _as_general(machine)
    mu, nu = as_relaxed("mu", mu, machine.n), as_relaxed("nu", nu, machine.n)
    check_same_rows(mu=mu, nu=nu)
    within, across = _couplings(machine, n_groups)
    return -(mu @ machine.a) - ((mu @ within + nu @ across) * mu).sum(axis=1)


def kl(
    machine: RBM | BoltzmannMachine, logit_q: ArrayLike, nu: ArrayLike, n_groups: int, log_partition: float
) -> Array:
    """KL divergence of the posterior to the prior, given one draw of zeta; its mean over zeta is the KL itself.

    log Z - sum of the units' entropies + ``cross_entropy``. A single row may be negative; the mean is not.

    Source   DVAE++ (arXiv:1802.04920), section 5, eq. (6) and the form after it.
    Shapes   logit_q (B, N), nu (B, N), log_partition scalar -> (B,); N = N1 + N2 for an RBM
    Domain   all logits but NaN, nu in [0, 1], log_partition finite; n_groups divides N
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    machine = _as_general(machine)
    logit_q = as_rows("logit_q", logit_q, machine.n)
    check_not_nan("logit_q", logit_q)
    normaliser = as_scalar("log_partition", log_partition, "one number for all rows")
    check_finite("log_partition", normaliser)
    return normaliser - entropy(logit_q).sum(axis=1) + cross_entropy(machine, sigmoid(logit_q), nu, n_groups)


@overload
def kl_with_gradients(
    machine: RBM, logit_q: ArrayLike, nu: ArrayLike, n_groups: int, log_partition: float
) -> RBMKLWithGradients: ...


@overload
def kl_with_gradients(
    machine: BoltzmannMachine, logit_q: ArrayLike, nu: ArrayLike, n_groups: int, log_partition: float
) -> KLWithGradients: ...


def kl_with_gradients(
    machine: RBM | BoltzmannMachine, logit_q: ArrayLike, nu: ArrayLike, n_groups: int, log_partition: float
) -> RBMKLWithGradients | KLWithGradients:
    """``kl``, with its derivatives in the logits, in nu and in the machine's parameters, written out.

    logit_q and nu are independent arguments here, log Z a constant. A backward pass adds what it knows about them: nu
    depends on logit_q and zeta, logit_q on the zeta of earlier groups, log Z on the parameters, with the gradient
    ``marginals`` or its estimate ``log_partition_gradient``. With e_ij = c_ij mu_j, the expected product of units i < j
    (c as in ``cross_entropy``),

        d/dlogit_j = mu_j (1 - mu_j) (logit_j - field_j),        d/dnu_i = -sum over j in later groups of J_ij mu_j,
        d/da_j     = -mu_j,                                      d/dJ_ij = -e_ij,

    where field_j = a_j + sum over i in the same group of J_ij mu_i + sum over i in earlier groups of J_ij nu_i. The
    logit in the bracket is the entropy's, dH/dmu = -logit: without a decoder, the KL draws the logit to the field.

    Source   by differentiation of DVAE++ (arXiv:1802.04920), section 5, eq. (6) and the form after it.
    Shapes   as ``kl`` -> ``RBMKLWithGradients`` for an RBM, else ``KLWithGradients``
    Domain   as ``kl``; an infinite logit has derivative 0, its limit
    Units    nats
    Raises   as ``kl``.
    """
    value = kl(machine, logit_q, nu, n_groups, log_partition)
    general = _as_general(machine)
    logit_q, nu = as_rows("logit_q", logit_q, general.n), as_relaxed("nu", nu, general.n)
    mu = sigmoid(logit_q)
    within, across = _couplings(general, n_groups)

    logit = np.where(np.isinf(logit_q), 0.0, logit_q)  # its factor mu (1 - mu) is 0: keep out 0 * inf
    field = general.a + mu @ (within + within.T) + nu @ across
    dkl_dlogit_q = mu * sigmoid(-logit_q) * (logit - field)
    dkl_dnu = -(mu @ across.T)

    same = _same_group(general.n, n_groups)
    product = np.triu(np.where(same, mu[:, :, None], nu[:, :, None]) * mu[:, None, :], k=1)  # e_ij, (B, N, N)
    dkl_da, dkl_dJ = -mu, -(product + product.transpose(0, 2, 1))
    if isinstance(machine, RBM):
        first, second = slice(0, machine.n1), slice(machine.n1, None)
        of_parameters = dkl_da[:, first], dkl_da[:, second], dkl_dJ[:, first, second]
        return RBMKLWithGradients(value, dkl_dlogit_q, dkl_dnu, *of_parameters)
    return KLWithGradients(value, dkl_dlogit_q, dkl_dnu, dkl_da, dkl_dJ)


def rolfe_gradient(
    logit_q: ArrayLike, z: ArrayLike, g: ArrayLike, dcoupling_dzeta: ArrayLike, dzeta_dlogit_q: ArrayLike
) -> Array:
    """Unbiased gradient, in the logits, of the expected sum over i of z_i g_i(zeta) under a spike-and-X smoothing.

    Both z and zeta are functions of the noise: z_i = 1 where rho_i > 1 - q_i, and zeta_i = 0 wherever z_i = 0. So nu is
    z, a step, and the chain rule alone misses that raising q_i turns a few z_i from 0 to 1. The noise at which that
    happens is rho_i = 1 - q_i; there zeta_i = 0 on either side, so what is gained is g_i(zeta with zeta_i = 0), which
    is what draws with z_i = 0 see:

        d/dq_i     = E[ g_i (1 - z_i) / (1 - q_i)  +  sum over j of z_j dg_j/dzeta_i dzeta_i/dq_i ],
        d/dlogit_i = E[ q_i (1 - z_i) g_i          +  sum over j of z_j dg_j/dzeta_i dzeta_i/dlogit_i ],

    and what is returned is the inside of the second. zeta_i moves every g_j, not only its own. For the KL to a
    Boltzmann prior, g is ``kl_with_gradients(...).dkl_dnu`` at nu = z; that is -(W mu2) for two groups. As the second
    term is the ordinary chain rule, ``dcoupling_dzeta`` may also hold whatever else of the loss depends on zeta (a
    decoder, the logits of later groups).

    Source   Rolfe (2016), "Discrete variational autoencoders", the gradient of the prior's energy; DVAE++
             (arXiv:1802.04920), section 5, last paragraph, on why it has to be coded by hand.
    Departs  per logit instead of per q: q p / (1 - q) = q, so there is no division.
    Shapes   logit_q, z, g, dcoupling_dzeta (the gradient in zeta of sum over j of z_j g_j, z fixed), dzeta_dlogit_q
             (rho fixed): (B, N) -> (B, N)
    Domain   all logits but NaN; z in {0, 1}; the others finite; dzeta_dlogit_q = 0 where z = 0, for the spike does not
             move. zeta must be continuous in rho: r(zeta|1) has to begin at the spike (an exponential does, a Gaussian
             on the whole line does not)
    Units    nats, those of g
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    logit_q = as_matrix("logit_q", logit_q)
    n_units = logit_q.shape[1]
    z, g = as_states("z", z, n_units), as_rows("g", g, n_units)
    dcoupling_dzeta = as_rows("dcoupling_dzeta", dcoupling_dzeta, n_units)
    dzeta_dlogit_q = as_rows("dzeta_dlogit_q", dzeta_dlogit_q, n_units)
    check_same_rows(logit_q=logit_q, z=z, g=g, dcoupling_dzeta=dcoupling_dzeta, dzeta_dlogit_q=dzeta_dlogit_q)
    check_not_nan("logit_q", logit_q)
    check_finite("g", g)
    check_finite("dcoupling_dzeta", dcoupling_dzeta)
    check_finite("dzeta_dlogit_q", dzeta_dlogit_q)
    check("dzeta_dlogit_q", dzeta_dlogit_q, (z == 1) | (dzeta_dlogit_q == 0), "be 0 where z is 0, at the spike")
    return sigmoid(logit_q) * (1 - z) * g + dcoupling_dzeta * dzeta_dlogit_q


def _as_general(machine: RBM | BoltzmannMachine) -> BoltzmannMachine:
    return machine.general() if isinstance(machine, RBM) else machine


def _same_group(n_units: int, n_groups: int) -> Array:
    """True (N, N) for two units of one group."""
    group = np.empty(n_units, dtype=int)
    for g, members in enumerate(group_slices(n_units, n_groups)):
        group[members] = g
    return group[:, None] == group[None, :]


def _couplings(machine: BoltzmannMachine, n_groups: int) -> tuple[Array, Array]:
    """Cut J into the couplings within a group and those of a unit (row) to one of a later group (column).

    Every pair appears once, above the diagonal: groups follow each other in order, so the earlier unit is the row.
    """
    once, same = np.triu(machine.J), _same_group(machine.n, n_groups)
    return np.where(same, once, 0.0), np.where(same, 0.0, once)
