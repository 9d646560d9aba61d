"""Directed priors: two KL divergences of the smoothed hierarchy, and what lies between them.

Posterior and prior are hierarchies of the same form, q(z_g | x, zeta_<g) and p(z_g | zeta_<g), smoothed by the same
r(zeta|z). One may compare them with z or without it:

    joint     KL(q(z, zeta) || p(z, zeta)) = E_q(zeta) sum of KL(Bern(q) || Bern(p)), for r cancels          eq. (4)
    marginal  KL(q(zeta)    || p(zeta))    = E_q(zeta) sum of log q(zeta) - log p(zeta), mixtures over z     eq. (5)

The sums run over the units of all groups. Groups matter only for what the logits may depend on, so every function here
takes the columns of as many groups as you like, next to each other: one group's KL is that of its columns. Results are
for one draw of zeta per row, and their means over zeta are the divergences.

The marginal one is never larger. By the chain rule of the KL divergence, applied to (z, zeta) in either order,

    joint - marginal = E_q(zeta) sum of KL(q(z|zeta) || p(z|zeta)),         q(z=1|zeta) = sigma(logit_q + R),

where R = log r(zeta|1) - log r(zeta|0): the joint bound pays for a disagreement about z that zeta, the only thing the
decoder sees, does not show. As beta -> infinity zeta tells z, both posteriors are certain of it, and the gap closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from reference import bernoulli
from reference.bernoulli import softplus
from reference.posterior import check_mixture
from reference.smoothing import MixtureSmoothing
from reference.vocabulary import Array, ShapeError, as_float, check_not_nan


class JointGradient(NamedTuple):
    """Derivatives of ``joint_kl`` of each row, all (B, N)."""

    dkl_dlogit_q: Array
    dkl_dlogit_p: Array


class MarginalGradient(NamedTuple):
    """Derivatives of ``marginal_kl`` of each row, all (B, N), each with the other two arguments held fixed.

    zeta enters through the log ratio R alone: dkl_dzeta = dkl_dlog_ratio dR/dzeta, with dR/dzeta = 2 beta for
    overlapping exponentials. Along a reparameterised zeta the logits of q act twice, directly and through zeta.
    """

    dkl_dlogit_q: Array
    dkl_dlogit_p: Array
    dkl_dlog_ratio: Array


def joint_kl(logit_q: ArrayLike, logit_p: ArrayLike) -> Array:
    """KL divergence between the posterior's and the prior's binary units, given one draw of the zeta they depend on.

    Sum over units of KL(Bern(q) || Bern(p)); see ``bernoulli.kl`` for its stable form. The density r does not occur.

    Source   DVAE++ (arXiv:1802.04920), eq. (4).
    Shapes   logit_q (B, N), logit_p (B, N) -> (B,)
    Domain   all logits but NaN; inf where the prior excludes a value that the posterior takes
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    logit_q, logit_p = _as_matrices(logit_q=logit_q, logit_p=logit_p)
    return bernoulli.kl(logit_q, logit_p).sum(axis=1)


def joint_kl_gradient(logit_q: ArrayLike, logit_p: ArrayLike) -> JointGradient:
    """Derivatives of ``joint_kl`` with respect to the logits.

    dKL/dlogit_q = q (1 - q) (logit_q - logit_p),   dKL/dlogit_p = p - q

    Source   DVAE++ (arXiv:1802.04920), eq. (4) differentiated; the derivatives are ours.
    Shapes   logit_q (B, N), logit_p (B, N) -> two (B, N)
    Domain   all logits but NaN; 0 in a posterior logit that is infinite, where the unit no longer moves
    Units    none
    Raises   as ``joint_kl``.
    """
    logit_q, logit_p = _as_matrices(logit_q=logit_q, logit_p=logit_p)
    with np.errstate(invalid="ignore"):  # 0 inf and inf - inf, in the branch not taken
        by_q = np.where(np.isinf(logit_q), 0.0, expit(logit_q) * expit(-logit_q) * (logit_q - logit_p))
    return JointGradient(by_q, _sigmoid_difference(logit_p, logit_q, _distance(logit_p, logit_q)))


def marginal_kl(smoothing: MixtureSmoothing, zeta: ArrayLike, logit_q: ArrayLike, logit_p: ArrayLike) -> Array:
    """Log-density of a draw of zeta under the posterior less that under the prior: one sample of the marginal KL.

    With E = r(zeta|1) / r(zeta|0), sums over units of

        log(1 - q + q E) - log(1 - p + p E) = log(1 + (q - p) (E - 1) / (1 - p + p E)).

    Source   DVAE++ (arXiv:1802.04920), eq. (5).
    Departs  not the difference of two ``log_prob``, which loses all digits where q and p are close: the second form,
             with q and p exchanged (and the sign too) where that makes the fraction positive.
    Shapes   zeta, logit_q, logit_p (B, N) -> (B,)
    Domain   zeta in the smoothing's domain; all logits but NaN. A row may be negative; the mean over zeta is not.
             inf where the prior's density is 0; a unit whose two logits are equal contributes 0
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit; TypeError for a smoothing without
             r(zeta|z).
    """
    ratio, logit_q, logit_p = _as_arguments(smoothing, zeta, logit_q, logit_p)
    return _log_mixture_ratio(ratio, logit_q, logit_p).sum(axis=1)


def marginal_kl_gradient(
    smoothing: MixtureSmoothing, zeta: ArrayLike, logit_q: ArrayLike, logit_p: ArrayLike
) -> MarginalGradient:
    """Derivatives of ``marginal_kl`` with respect to the logits and to the log ratio R, through which zeta acts.

    log(1 - q + q e^R) = softplus(logit_q + R) - softplus(logit_q), so with nu_q = sigma(logit_q + R):

        d/dlogit_q = nu_q - q,   d/dlogit_p = p - nu_p,   d/dR = nu_q - nu_p

    What zeta adds to our belief that z = 1, under the posterior and under the prior.

    Source   DVAE++ (arXiv:1802.04920), eq. (5) differentiated; the derivatives are ours.
    Shapes   zeta, logit_q, logit_p (B, N) -> three (B, N)
    Domain   as ``marginal_kl``
    Units    none
    Raises   as ``marginal_kl``.
    """
    ratio, logit_q, logit_p = _as_arguments(smoothing, zeta, logit_q, logit_p)
    seen_q, seen_p = _seen(logit_q, ratio), _seen(logit_p, ratio)
    return MarginalGradient(
        dkl_dlogit_q=_sigmoid_difference(seen_q, logit_q, ratio),
        dkl_dlogit_p=-_sigmoid_difference(seen_p, logit_p, ratio),
        dkl_dlog_ratio=_sigmoid_difference(seen_q, seen_p, _distance(logit_q, logit_p)),
    )


def gap(smoothing: MixtureSmoothing, zeta: ArrayLike, logit_q: ArrayLike, logit_p: ArrayLike) -> Array:
    """By how much the joint KL exceeds the marginal one, given one draw of zeta: KL(q(z|zeta) || p(z|zeta)).

    Its mean over zeta is exactly the mean of ``joint_kl - marginal_kl``, and no draw of it is negative: appendix D's
    inequality, with the difference spelled out.

    Source   DVAE++ (arXiv:1802.04920), appendix D states the inequality; the difference follows from the chain rule.
    Shapes   zeta, logit_q, logit_p (B, N) -> (B,)
    Domain   as ``marginal_kl``
    Units    nats
    Raises   as ``marginal_kl``.
    """
    ratio, logit_q, logit_p = _as_arguments(smoothing, zeta, logit_q, logit_p)
    return bernoulli.kl(_seen(logit_q, ratio), _seen(logit_p, ratio)).sum(axis=1)


def _log_mixture_ratio(ratio: Array, logit_q: Array, logit_p: Array) -> Array:
    """log(1 - q + q E) - log(1 - p + p E) with E = e^ratio, elementwise, from positive terms only.

    Of the two mixtures name the larger (at this E) "above" and the other "below", and let high >= low be the logits in
    the order of size. The result is +-log1p(x) with

        x = (sigma(high) - sigma(low)) |E - 1| / (below's mixture)
          = sigma(high) sigma(-low) (1 - e^{low - high}) (1 - e^{-|R|}) / mixture,

        mixture = (1 - b) e^{-max(R, 0)} + b e^{min(R, 0)},     b = below's probability of z = 1.

    Where a factor underflows or x is large, log x is the sum of the factors' logarithms and the result softplus(log x).
    """
    high, low = np.maximum(logit_q, logit_p), np.minimum(logit_q, logit_p)
    # q's mixture is the larger one where q > p and E > 1, or both the other way round.
    q_above = (logit_q >= logit_p) == (ratio >= 0)
    below = np.where(q_above, logit_p, logit_q)
    rise, fall = np.maximum(ratio, 0), np.minimum(ratio, 0)
    separation = np.expm1(-_distance(high, low)) * np.expm1(-np.abs(ratio))

    numerator = expit(high) * expit(-low) * separation
    mixture = expit(-below) * np.exp(-rise) + expit(below) * np.exp(fall)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # branch not taken; and log 0 is meant
        log_mixture = np.logaddexp(-softplus(below) - rise, -softplus(-below) + fall)
        log_x = -softplus(-high) - softplus(low) + np.log(separation) - log_mixture
        direct = (numerator >= np.finfo(np.float64).tiny) & (numerator <= mixture)
        size = np.where(direct, np.log1p(numerator / mixture), softplus(np.where(direct, 0.0, log_x)))
    size = np.where(separation == 0, 0.0, size)  # equal logits, or a zeta that tells nothing
    return np.where(q_above, size, -size)


def _sigmoid_difference(a: Array, b: Array, distance: Array) -> Array:
    """sigma(a) - sigma(b) = sigma(max) sigma(-min) (1 - e^{-|distance|}), with the sign of distance = a - b.

    Nothing is subtracted: the distance is an argument because the caller has it with more digits than a and b have.
    """
    high, low = np.where(distance >= 0, a, b), np.where(distance >= 0, b, a)
    return np.where(distance >= 0, 1.0, -1.0) * expit(high) * expit(-low) * -np.expm1(-np.abs(distance))


def _distance(a: Array, b: Array) -> Array:
    """a - b, which is 0 for two equal infinities."""
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.where(a == b, 0.0, a - b)


def _seen(logit: Array, ratio: Array) -> Array:
    """Logit of z once zeta has been seen; a unit that was certain stays so, even where zeta excludes it."""
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.where(np.isinf(logit), logit, logit + ratio)


def _as_arguments(
    smoothing: MixtureSmoothing, zeta: ArrayLike, logit_q: ArrayLike, logit_p: ArrayLike
) -> tuple[Array, Array, Array]:
    """The log ratio at zeta and the logits, checked, in float64."""
    smoothing = check_mixture(smoothing)
    smoothing.check_one_sharpness()
    zeta, logit_q, logit_p = _as_matrices(zeta=zeta, logit_q=logit_q, logit_p=logit_p)
    return smoothing.log_ratio(zeta), logit_q, logit_p


def _as_matrices(**values: ArrayLike) -> tuple[Array, ...]:
    """The named arguments in float64, (B, N) all of them and without NaN."""
    arrays = {name: as_float(name, value).astype(np.float64) for name, value in values.items()}
    if len({array.shape for array in arrays.values()}) != 1 or next(iter(arrays.values())).ndim != 2:
        listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ShapeError(f"arguments must be (B, N) alike, one row per sample; got {listed}")
    for name, array in arrays.items():
        check_not_nan(name, array)
    return tuple(arrays.values())
