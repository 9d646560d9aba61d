"""What the smoothed unit tells about the binary one: nu = q(z=1|zeta, x)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from reference.smoothing import OverlappingExponential
from reference.vocabulary import Array, as_float, check_broadcast, check_not_nan


def nu(smoothing: OverlappingExponential, zeta: ArrayLike, logit_q: ArrayLike) -> Array:
    """Probability that z = 1 once its smoothed companion zeta has been seen, by Bayes' rule.

    nu = sigma(l + log r(zeta|1) - log r(zeta|0)); for overlapping exponentials sigma(l + beta (2 zeta - 1)).
    Averaged over zeta ~ q(zeta|x) it is the prior probability again: E[nu] = mu = sigma(l).

    Source   DVAE++ (arXiv:1802.04920), section 5, the definition of nu before eq. (7).
    Shapes   zeta, logit_q broadcast; the result has their common shape.
    Domain   zeta in [0, 1]; logit_q any real or infinite.
    Units    none (a probability)
    Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
    """
    x, logit = as_float("zeta", zeta), as_float("logit_q", logit_q)
    check_broadcast(zeta=x, logit_q=logit)
    check_not_nan("logit_q", logit)
    return np.asarray(expit(logit + smoothing.log_ratio(x)))
