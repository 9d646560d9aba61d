"""One normal variable by its mean and the logarithm of its standard deviation: draw, density and divergence.

The local latents h of the hierarchical model are factorial normal, in the posterior and in the prior, so that every
function here is elementwise and a group's KL is a sum. The logarithm is what a network returns: any number will do, and
1 / std is as exact as std.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reference.vocabulary import Array, as_float, check, check_broadcast, check_finite

LARGEST_LOG_STD = 170.0  # a ratio of variances is then a float64, whichever the two are

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)

# Gauss-Legendre nodes on [0, 1]. Enough for _tangent_gap below: the integrand is e^(t x) times a straight line, and
# with |x| <= 1 the error of 8 nodes is below 1e-21.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_LONGEST_PATH = 1.0


class KLGradient(NamedTuple):
    """Derivatives of ``kl``, each of the common shape of its arguments."""

    dkl_dmean_q: Array
    dkl_dlog_std_q: Array
    dkl_dmean_p: Array
    dkl_dlog_std_p: Array


def sample(eps: ArrayLike, mean: ArrayLike, log_std: ArrayLike) -> Array:
    """Turn standard normal noise into a draw: h = mean + e^log_std eps.

    The path a gradient takes: dh/dmean = 1, dh/dlog_std = e^log_std eps.

    Source   Kingma & Welling (2014), "Auto-encoding variational Bayes", section 2.4; the factorial normal groups of
             DVAE++ (arXiv:1802.04920), section 6.1.
    Shapes   eps, mean and log_std broadcast together
    Domain   finite eps and mean; log_std in [-170, 170]
    Units    those of the mean
    Raises   DomainError outside; ShapeError if they do not broadcast; TypeError for a dtype that is not float32,
             float64, integer or boolean.
    """
    arrays = _as_arrays(eps=eps, mean=mean, log_std=log_std)
    return arrays["mean"] + np.exp(arrays["log_std"]) * arrays["eps"]


def log_prob(h: ArrayLike, mean: ArrayLike, log_std: ArrayLike) -> Array:
    """Log-density of a value.

    log N(h) = -u^2 / 2 - log_std - log(2 pi) / 2,   u = (h - mean) / std

    Source   the normal density, by the parameters of Kingma & Welling (2014), appendix C.2; DVAE++ (arXiv:1802.04920),
             section 6.1.
    Shapes   h, mean and log_std broadcast together
    Domain   finite h and mean; log_std in [-170, 170]; ((h - mean) / std)^2 representable
    Units    nats
    Raises   as ``sample``.
    """
    arrays = _as_arrays(h=h, mean=mean, log_std=log_std)
    distance = _distance("h", arrays["h"], arrays["mean"], arrays["log_std"])
    return -(distance**2) / 2 - arrays["log_std"] - _HALF_LOG_2PI


def kl(mean_q: ArrayLike, log_std_q: ArrayLike, mean_p: ArrayLike, log_std_p: ArrayLike) -> Array:
    """Kullback-Leibler divergence from one normal distribution to another, KL(q || p).

    With r = log_std_q - log_std_p and d = (mean_q - mean_p) / std_p,

        KL = (e^{2r} - 1 - 2r) / 2 + d^2 / 2:

    what the spreads cost and what the means cost, neither of them negative. Where q is near p the first term is about
    r^2, a difference of numbers of the size of r. It is how far the tangent of e^x at 0 lies below it,

        e^x - 1 - x = x^2 * integral over t in [0, 1] of (1 - t) e^{t x},

    which for |x| <= 1 a few quadrature nodes give to machine precision, as a sum of positive terms.

    Source   Kullback & Leibler (1951) for the divergence; of normal distributions: Kingma & Welling (2014), appendix B;
             DVAE++ (arXiv:1802.04920), section 6.1, for its place. The integral and its quadrature are ours.
    Shapes   the arguments broadcast together
    Domain   finite means; log_std in [-170, 170]; d^2 representable
    Units    nats
    Raises   as ``sample``.
    """
    ratio, distance, _ = _as_pair(mean_q, log_std_q, mean_p, log_std_p)
    return (_tangent_gap(2 * ratio) + distance**2) / 2


def kl_gradient(mean_q: ArrayLike, log_std_q: ArrayLike, mean_p: ArrayLike, log_std_p: ArrayLike) -> KLGradient:
    """Derivatives of ``kl`` with respect to its arguments.

    By the means d / std_p and -d / std_p; by log_std_q e^{2r} - 1; by log_std_p 1 - e^{2r} - d^2.

    Source   DVAE++ (arXiv:1802.04920), section 6.1 for what is differentiated; the derivatives are ours.
    Shapes   the arguments broadcast together -> four of their common shape
    Domain   as ``kl``
    Units    none
    Raises   as ``sample``.
    """
    ratio, distance, log_std_p = _as_pair(mean_q, log_std_q, mean_p, log_std_p)
    by_mean, excess = distance * np.exp(-log_std_p), np.expm1(2 * ratio)
    gradient = by_mean, excess, -by_mean, -(excess + distance**2)
    return KLGradient(*(np.array(part) for part in np.broadcast_arrays(*gradient)))


def _tangent_gap(x: Array) -> Array:
    """e^x - 1 - x, to all its digits."""
    near = np.abs(x) <= _LONGEST_PATH
    short = np.where(near, x, 0.0)
    integral = sum(weight * (1 - node) * np.exp(node * short) for node, weight in zip(_NODES, _WEIGHTS, strict=True))
    return np.where(near, short**2 * integral, np.expm1(x) - x)


def _as_pair(
    mean_q: ArrayLike, log_std_q: ArrayLike, mean_p: ArrayLike, log_std_p: ArrayLike
) -> tuple[Array, Array, Array]:
    """r and d of ``kl``, and log_std_p."""
    arrays = _as_arrays(mean_q=mean_q, log_std_q=log_std_q, mean_p=mean_p, log_std_p=log_std_p)
    distance = _distance("mean_q", arrays["mean_q"], arrays["mean_p"], arrays["log_std_p"])
    return arrays["log_std_q"] - arrays["log_std_p"], distance, arrays["log_std_p"]


def _distance(name: str, value: Array, mean: Array, log_std: Array) -> Array:
    with np.errstate(over="ignore"):  # that is what is looked for
        distance = (value - mean) * np.exp(-log_std)
        check_finite(f"the square of ({name} - mean) / std", distance**2)
    return distance


def _as_arrays(**values: ArrayLike) -> dict[str, Array]:
    arrays = {name: as_float(name, value).astype(np.float64) for name, value in values.items()}
    check_broadcast(**arrays)
    for name, array in arrays.items():
        if name.startswith("log_std"):
            check(name, array, np.abs(array) <= LARGEST_LOG_STD, f"lie in [-{LARGEST_LOG_STD:g}, {LARGEST_LOG_STD:g}]")
        else:
            check_finite(name, array)
    return arrays
