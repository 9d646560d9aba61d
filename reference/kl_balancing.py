"""KL balancing: while the KL is annealed, groups that carry little are penalised less, so that none is switched off.

With many groups of latent variables, training tends to turn whole groups off (posterior = prior, KL = 0) before they
have learnt anything. While the weight gamma of the KL rises from 0 to 1, group m's KL is multiplied by

    c_m = (mean KL of group m over the batch) / (their mean over groups)         without gradient through c

A group that carries little pays little for using its units; one that carries much pays more. The coefficients' mean is
1, so that gamma keeps its meaning. Once gamma = 1 all of them are 1, and the objective is the ELBO again.

This is the technique of the paper's appendix H as described in the project's notes; the appendix's text was not at
hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from reference.bound import check_kl_weight
from reference.vocabulary import Array, ShapeError, as_float, check_finite


def coefficients(group_kl: ArrayLike, kl_weight: float) -> Array:
    """Turn the KL of each group into the factor it is multiplied by.

    c_m = max(k_m, 0) / (1/G) sum over groups of max(k, 0), with k_m the batch mean of group m's KL; 1 for all groups
    when kl_weight = 1, and when no group has a positive mean.

    The KL itself is not negative, but an estimate of it from one draw of zeta may be, even in the batch mean. It stands
    for a small KL, and so is read as 0: a negative factor would *reward* divergence from the prior.

    The result is a constant for differentiation: the derivative of ``balanced_kl`` by group_kl is kl_weight c_m.

    Source   DVAE++ (arXiv:1802.04920), section 6.2, names the technique and leaves it to appendix H.
    Departs  the appendix's text was not at hand: the coefficients follow a description of it, and may
             differ. Reading a negative mean as 0, and 1 for all groups where no mean is positive, are ours.
    Shapes   group_kl (B, G) -> (G,)
    Domain   group_kl finite, at least one row and one group; kl_weight in [0, 1]
    Units    group_kl: nats; the result: none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    group_kl = _as_group_kl(group_kl)
    n_groups = group_kl.shape[1]
    share = np.maximum(group_kl.mean(axis=0), 0.0)
    largest = share.max()
    if check_kl_weight(kl_weight) == 1 or largest == 0:
        return np.ones(n_groups)
    share = share / largest  # the sum below neither overflows nor underflows
    return share / share.mean()


def balanced_kl(group_kl: ArrayLike, kl_weight: float) -> Array:
    """The weighted and balanced KL of each image, what is subtracted from log p(x | zeta) in training.

    kl_weight * sum over groups of c_m KL_m. At kl_weight = 1 it is the KL.

    Source   DVAE++ (arXiv:1802.04920), section 6.2, names the technique and leaves it to appendix H.
    Departs  as ``coefficients``.
    Shapes   group_kl (B, G) -> (B,)
    Domain   as ``coefficients``
    Units    nats
    Raises   as ``coefficients``.
    """
    group_kl = _as_group_kl(group_kl)
    return check_kl_weight(kl_weight) * (group_kl @ coefficients(group_kl, kl_weight))


def _as_group_kl(value: ArrayLike) -> Array:
    group_kl = as_float("group_kl", value).astype(np.float64)
    if group_kl.ndim != 2 or group_kl.size == 0:
        raise ShapeError(
            f"group_kl must be (B, G), one column per group, with at least one row and group; got {group_kl.shape}"
        )
    check_finite("group_kl", group_kl)
    return group_kl
