"""The hierarchical posterior over groups of binary units, smoothed or binary, and what zeta tells about z.

    q(z, zeta | x) = product over groups g of q(z_g | x, zeta_<g) r(zeta_g | z_g)

Group g is factorial, and its logits are the output of a network that sees x and the *smoothed* units of the groups
before it. A network is a function from those earlier units (B, n_1 + ... + n_{g-1}) to the logits (B, n_g); what it
knows of x it has bound itself. The first one is handed a (B, 0) array: its rows say how many logits to return.

The directed prior p(z_g | zeta_<g) is of the same form (its networks do not know x), so these functions serve it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from reference import bernoulli
from reference.smoothing import MixtureSmoothing
from reference.vocabulary import (
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_matrix,
    check_binary,
    check_not_nan,
    check_unit_interval,
)

Network: TypeAlias = Callable[[Array], ArrayLike]


class SmoothedPosterior(NamedTuple):
    """One draw of zeta ~ q(zeta | x) per row, all of shape (B, N), units in the order of their groups.

    zeta  the draw, in [0, 1] (on the line for a smoothing that lives there); logit_q  the logits of q(z | x, zeta_<g)
    it was drawn from; nu  q(z=1 | zeta, x); dzeta_dlogit_q  how it moves with its own logit, the noise held fixed.
    """

    zeta: Array
    logit_q: Array
    nu: Array
    dzeta_dlogit_q: Array


class BinaryPosterior(NamedTuple):
    """One draw of z ~ q(z | x) per row in the binary limit: z in {0, 1} and its logits, both (B, N)."""

    z: Array
    logit_q: Array


def nu(smoothing: MixtureSmoothing, zeta: ArrayLike, logit_q: ArrayLike) -> Array:
    """Probability that z = 1 once its smoothed companion zeta has been seen, by Bayes' rule.

    nu = sigma(l + log r(zeta|1) - log r(zeta|0)); for overlapping exponentials sigma(l + beta (2 zeta - 1)). Each kind
    of smoothing defines its own digits (``MixtureSmoothing.nu``); this adds the refusal of the kinds that have no nu.

    Source   DVAE++ (arXiv:1802.04920), section 5, the definition of nu after eq. (6).
    Shapes   zeta, logit_q broadcast; the result has their common shape. Two float32 inputs give a float32 result.
    Domain   zeta in the smoothing's domain; logit_q any real or infinite.
    Units    none (a probability)
    Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast, TypeError for a smoothing
             without r(zeta|z), such as the binary Concrete.
    """
    return check_mixture(smoothing).nu(zeta, logit_q)


def check_mixture(smoothing: object) -> MixtureSmoothing:
    """Return a smoothing that attaches a density r(zeta|z) to each value of z; refuse any other.

    Source   none: a check of arguments.
    Shapes, Units   none
    Domain   every kind that is a ``MixtureSmoothing``
    Raises   TypeError naming the kind.
    """
    if not isinstance(smoothing, MixtureSmoothing):
        raise TypeError(
            f"smoothing must be a mixture of densities r(zeta|z), one for each z; {type(smoothing).__name__} has none, "
            "and so no q(z|zeta, x)"
        )
    return smoothing


def smoothed_posterior(networks: Sequence[Network], smoothing: MixtureSmoothing, rho: ArrayLike) -> SmoothedPosterior:
    """Turn uniform noise into a reparameterised draw of zeta, group after group.

    zeta_g = F^{-1}(rho_g; logit_q_g) with logit_q_g = network_g(zeta_1 .. zeta_{g-1}).

    Source   DVAE++ (arXiv:1802.04920), section 4, fig. 2(f), and section 6; eq. (3) for each unit.
    Shapes   rho (B, N) -> four (B, N); network g maps (B, n_1 + ... + n_{g-1}) to (B, n_g), and the n_g sum to N
    Domain   rho in [0, 1]; at least one network; logits any real or infinite
    Units    zeta, nu: none; logit_q: nats (log-odds)
    Raises   ShapeError, DomainError or TypeError for arguments, or a network's logits, that do not fit; TypeError for a
             smoothing without r(zeta|z).
    """
    smoothing, noise = check_mixture(smoothing), _as_noise(rho)
    smoothing.check_one_sharpness()  # an array's columns would meet another group's units
    zeta, logit_q, dzeta_dlogit_q = np.zeros((3, *noise.shape))
    for members in _walk(networks, zeta, logit_q):
        sample = smoothing.inverse_cdf_with_derivatives(noise[:, members], logit_q[:, members])
        zeta[:, members], dzeta_dlogit_q[:, members] = sample.zeta, sample.dzeta_dlogit_q
    return SmoothedPosterior(zeta, logit_q, nu(smoothing, zeta, logit_q), dzeta_dlogit_q)


def binary_posterior(networks: Sequence[Network], rho: ArrayLike) -> BinaryPosterior:
    """Turn uniform noise into a draw of z itself: the limit beta -> infinity of ``smoothed_posterior``.

    z = 1 where rho > 1 - q = sigma(-l), the point at which the smoothed sample jumps from 0 to 1 in the limit; so the
    same noise gives the same z. The networks see z in the place of zeta. (rho = 0 gives z = 0 and rho = 1 gives z = 1
    unless q = 0, however unlikely that is; ``philox.uniforms`` are strictly inside.)

    Source   DVAE++ (arXiv:1802.04920), section 7.1: evaluation is always in the binary limit.
    Shapes, Domain, Raises   as ``smoothed_posterior``
    Units    z: none; logit_q: nats (log-odds)
    """
    noise = _as_noise(rho)
    z, logit_q = np.zeros((2, *noise.shape))
    for members in _walk(networks, z, logit_q):
        z[:, members] = noise[:, members] > expit(-logit_q[:, members])
    return BinaryPosterior(z, logit_q)


def group_logits(networks: Sequence[Network], zeta: ArrayLike) -> Array:
    """Logits of every group given the values of all of them: of the prior at a draw from the posterior, say.

    Source   DVAE++ (arXiv:1802.04920), section 4, fig. 2.
    Shapes   zeta (B, N) -> (B, N); networks as for ``smoothed_posterior``
    Domain   zeta not NaN; at least one network
    Units    nats (log-odds)
    Raises   ShapeError, DomainError or TypeError for arguments, or a network's logits, that do not fit.
    """
    values = as_matrix("zeta", zeta)
    check_not_nan("zeta", values)
    logits = np.zeros(values.shape)
    for _ in _walk(networks, values, logits):
        pass  # the logits are all we want; the values are there already
    return logits


def log_prob(networks: Sequence[Network], z: ArrayLike) -> Array:
    """Log-probability of binary states under the hierarchy in the binary limit, sum over g of log q(z_g | x, z_<g).

    Source   DVAE++ (arXiv:1802.04920), section 7.1 (the denominator of the importance weights); Burda et al. (2015).
    Shapes   z (B, N) -> (B,); networks as for ``smoothed_posterior``
    Domain   z in {0, 1}
    Units    nats
    Raises   as ``group_logits``, and DomainError for an entry of z that is neither 0 nor 1.
    """
    states = as_matrix("z", z)
    check_binary("z", states)
    return bernoulli.log_prob(states, group_logits(networks, states)).sum(axis=1)


def _as_noise(rho: ArrayLike) -> Array:
    noise = as_matrix("rho", rho)
    check_unit_interval("rho", noise)
    return noise


def _walk(networks: Sequence[Network], values: Array, logits: Array) -> Iterator[slice]:
    """Run the networks in order: write each group's logits, hand out its columns, and wait for its values.

    The caller fills ``values[:, members]`` before it asks for the next group, whose network sees them.
    """
    if len(networks) == 0:
        raise DomainError("networks must hold at least one network, that of the first group; got none")
    n_rows, n_units = values.shape
    first = 0
    for g, network in enumerate(networks):
        earlier = values[:, :first].copy()  # a network that writes into what it is given spoils only its own copy
        output = as_float(f"the output of networks[{g}]", network(earlier))
        if output.ndim != 2 or len(output) != n_rows:
            raise ShapeError(
                f"networks[{g}] must return logits (B, n) with B = {n_rows}, one row per sample; got {output.shape}"
            )
        members = slice(first, first + output.shape[1])
        if members.stop > n_units:
            raise ShapeError(
                f"networks must return logits for {n_units} units in all; with networks[{g}] there are {members.stop}"
            )
        check_not_nan(f"the output of networks[{g}]", output)
        logits[:, members] = output
        yield members
        first = members.stop
    if first != n_units:
        raise ShapeError(f"networks must return logits for {n_units} units in all; they returned {first}")
