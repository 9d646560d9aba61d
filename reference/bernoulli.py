"""One binary unit described by its logit: probability, entropy and divergence, for every logit there is.

A logit l stands for q = P(z = 1) = sigmoid(l) and p = P(z = 0) = sigmoid(-l). Both are computed from l and never as 1 -
q, which would be 0 as soon as q rounds to 1. The formulas below add terms of one sign wherever they can, so that small
results keep their digits; infinite logits (a unit that is certain) are ordinary inputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from reference.vocabulary import Array, as_float, check_binary, check_broadcast, check_not_nan

# Gauss-Legendre nodes on [0, 1]. Enough for kl below: the integrand's poles are at distance pi, the path is at most
# 2 long, so the error of n nodes falls like (pi + sqrt(pi**2 + 1))**(-2 n): 4e-20 for n = 12.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_LONGEST_PATH = 2.0

_SAME = -40.0  # below this 1 + exp(l) is 1 in float64, and in float32 long before


def sigmoid(logits: ArrayLike) -> Array:
    """Turn a logit into the probability of a one.

    sigmoid(l) = 1 / (1 + exp(-l)), and exp(l) where they are the same number: there exp(-l) may overflow, and would
    give 0 while the result is still a (subnormal) number.

    Source   the Bernoulli distribution in its natural parameter, its mean: Wainwright & Jordan (2008), section 3.
    Shapes   any, elementwise
    Domain   all logits; sigmoid(-inf) = 0, sigmoid(inf) = 1
    Units    none
    Raises   DomainError for NaN; TypeError for a dtype that is not float32, float64, integer or boolean.
    """
    logits = _as_logits("logits", logits)
    return np.where(logits < _SAME, np.exp(np.minimum(logits, 0)), expit(logits))


def softplus(logits: ArrayLike) -> Array:
    """Turn a logit into -log P(z = 0): the log-partition function of one unit.

    softplus(l) = log(1 + exp(l)), evaluated as max(l, 0) + log1p(exp(-|l|)).

    Source   the Bernoulli distribution in its natural parameter, its log-partition function: Wainwright & Jordan
             (2008), section 3.
    Shapes   any, elementwise
    Domain   all logits; softplus(-inf) = 0, softplus(inf) = inf
    Units    nats
    Raises   as ``sigmoid``.
    """
    logits = _as_logits("logits", logits)
    return np.logaddexp(logits, logits.dtype.type(0))


def log_prob(z: ArrayLike, logits: ArrayLike) -> Array:
    """Log-probability of a binary value.

    log q(z) = -softplus(-l) for z = 1 and -softplus(l) for z = 0. (The textbook z l - softplus(l) subtracts two large
    numbers when l is large, and is inf - inf when l is infinite.)

    Source   the Bernoulli distribution in its natural parameter: Wainwright & Jordan (2008), section 3.
    Shapes   z and logits broadcast together
    Domain   z in {0, 1}, all logits; an impossible value has log-probability -inf
    Units    nats
    Raises   DomainError for z not binary or logits NaN; ShapeError if they do not broadcast; TypeError as ``sigmoid``.
    """
    z = as_float("z", z)
    logits = _as_logits("logits", logits)
    check_broadcast(z=z, logits=logits)
    check_binary("z", z)
    return -softplus((1 - 2 * z) * logits)


def entropy(logits: ArrayLike) -> Array:
    """Entropy of one unit.

    H = q softplus(-l) + p softplus(l). With a = |l| this is softplus(-a) + a sigmoid(-a): two positive terms.

    Source   Shannon (1948), "A mathematical theory of communication".
    Shapes   any, elementwise
    Domain   all logits; 0 for an infinite one
    Units    nats
    Raises   as ``sigmoid``.
    """
    size = np.abs(_as_logits("logits", logits))
    finite = np.where(np.isinf(size), size.dtype.type(0), size)  # keeps inf * 0 out of the branch not taken
    return np.where(np.isinf(size), size.dtype.type(0), softplus(-finite) + finite * sigmoid(-finite))


def kl(logit_q: ArrayLike, logit_p: ArrayLike) -> Array:
    """Kullback-Leibler divergence from one unit's distribution to another's, KL(q || p).

    With A = softplus, A' = sigmoid, and d = logit_p - logit_q,

        KL = A(logit_p) - A(logit_q) - A'(logit_q) d = d**2 * integral over t in [0, 1] of (1 - t) A''(logit_q + t d).

    The first form (how far the tangent of A at logit_q lies below A at logit_p) loses all digits when d is small; the
    second, Fisher information collected along the straight path between the logits, is a sum of positive terms, and for
    |d| <= 2 a dozen quadrature nodes give it to machine precision. Exchanging the names of 0 and 1 changes nothing, so
    we may take logit_q <= 0, where every term is of the order of q and relative accuracy survives for |logit| in the
    hundreds.

    Source   Kullback & Leibler (1951) for the divergence; that of an exponential family as what a tangent leaves of its
             log-partition function: Wainwright & Jordan (2008). The integral and its quadrature are ours.
    Shapes   logit_q and logit_p broadcast together
    Domain   all logits. With q certain (infinite) KL = -log p(that value); with q uncertain and p certain KL = inf;
             0 if both are certain of the same value
    Units    nats
    Raises   DomainError for NaN; ShapeError if they do not broadcast; TypeError as ``sigmoid``.
    """
    logit_q = _as_logits("logit_q", logit_q)
    logit_p = _as_logits("logit_p", logit_p)
    check_broadcast(logit_q=logit_q, logit_p=logit_p)
    sign = np.where(logit_q > 0, -1, 1).astype(logit_q.dtype)
    logit_q, logit_p = np.broadcast_arrays(sign * logit_q, sign * logit_p)

    # Infinities, and each formula where the other one is meant, give numbers (or NaN) that are not used.
    with np.errstate(invalid="ignore", over="ignore"):
        distance = logit_p - logit_q
        near = np.abs(distance) <= _LONGEST_PATH
        q = expit(logit_q)
        far_kl = softplus(logit_p) - softplus(logit_q) - np.where(q == 0, 0, q * distance)
        near_kl = _path_integral(logit_q, np.where(near, distance, 0))
    impossible = np.isinf(logit_p) & ~np.isinf(logit_q)  # p excludes a value that q, however rarely, takes
    return np.where(impossible, np.inf, np.where(near, near_kl, far_kl)).astype(distance.dtype)


def _path_integral(logit_q: Array, distance: Array) -> Array:
    """d**2 * integral of (1 - t) A''(logit_q + t d), for |d| <= 2 and logit_q <= 0.

    A''(l + s) = q p exp(s) / (1 + q expm1(s))**2: nothing is ever added to the logit itself, whose rounding would be
    magnified by exp.
    """
    q = expit(logit_q)
    total = np.zeros_like(distance)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        shift = distance * distance.dtype.type(node)
        total += (weight * (1 - node)).astype(distance.dtype) * np.exp(shift) / (1 + q * np.expm1(shift)) ** 2
    return q * expit(-logit_q) * distance**2 * total


def _as_logits(name: str, value: ArrayLike) -> Array:
    logits = as_float(name, value)
    check_not_nan(name, logits)
    return logits
