"""KL divergences between two smoothed Bernoullis of one kind and one sharpness, where they have a closed form.

A mixture p r(zeta|0) + q r(zeta|1) is seen through its log ratio R = log r(zeta|1) - log r(zeta|0), and with l and m
the logits of the two distributions

    KL(l || m) = integral over t from l to m of (sigma(t) - sigma(l)) D(t),      D(t) = E[nu_t|1] - E[nu_t|0],

nu_t = sigma(t + R): how well zeta tells z, once its prior log odds are t. (d KL/dm = sigma(m) - E_l[nu_m], E_t[nu_t] =
sigma(t), and f_t - f_l = (sigma(t) - sigma(l)) (r(.|1) - r(.|0)).) Without a loss, D = 1, it is the KL of the two
Bernoullis, which is an upper bound for any smoothing. The overlapping exponentials lose

    1 - D(t) = atan(y)/y,      y = sinh(beta/2) / cosh(t/2),

and so do the overlapping logistics, for R has the same distribution: with u = F(zeta|0) uniform given z = 0, both have
e^R = e^beta / (u + e^beta (1 - u))^2.

    exponential, logistic   the integral above
    spike-exponential       D = 1: zeta gives z away
    concrete                delta coth(delta/2) - 2, delta = l - m: the KL of two logistic densities of scale 1, delta
                            apart, for logit rho moves with the logit and the temperature only scales it

The others (power, Gaussian, uniform floor) and two different sharpnesses have none that is elementary; torch's
NotImplementedError says so. The mean of ``log_prob`` differences over samples estimates those.

Computed in float64, rounded once, differentiable by autograd also in beta. Equal logits give exactly 0.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions.kl import register_kl
from torch.nn.functional import softplus

from dvaepp.directed import joint_kl
from dvaepp.distributions.base import SmoothedBernoulli
from dvaepp.distributions.kinds import (
    ConcreteBernoulli,
    OverlappingExponentialBernoulli,
    OverlappingLogisticBernoulli,
    SpikeExponentialBernoulli,
)
from dvaepp.distributions.langevin import twice_x_langevin

Unit = TypeVar("Unit", bound=SmoothedBernoulli)

_LONGEST_PATH = 8.0  # between two logits that 24 nodes serve: the integrand's poles are pi off the real line
_NODES, _WEIGHTS = (0.5 * (x + shift) for x, shift in zip(np.polynomial.legendre.leggauss(24), (1, 0), strict=True))
_NOTHING_LEFT = 80.0  # D(t) is below e^{-80} where |t| exceeds beta by that
_THRESHOLD = 40  # from which on softplus is its argument, to the last digit of a float64
_SMALL_Y = 0.5
_ARCTANGENT = [(-1) ** k / (2 * k + 1) for k in range(1, 27)]  # of atan(y)/y - 1, in powers of y^2


@register_kl(OverlappingExponentialBernoulli, OverlappingExponentialBernoulli)
def _kl_exponential(p: OverlappingExponentialBernoulli, q: OverlappingExponentialBernoulli) -> Tensor:
    return _kl_overlapping(p, q)


@register_kl(OverlappingLogisticBernoulli, OverlappingLogisticBernoulli)
def _kl_logistic(p: OverlappingLogisticBernoulli, q: OverlappingLogisticBernoulli) -> Tensor:
    return _kl_overlapping(p, q)


def _kl_overlapping(p: Unit, q: Unit) -> Tensor:
    """Finite for all logits, the infinite ones too: either component has the support of the other.

    The error, in float64, is some 3e-14 relative up to logits 8 apart, and beyond, where closed forms are subtracted,
    some 1e-15 max(1, beta).
    """
    start, end, beta = _logits_and_sharpness(p, q)
    furthest = beta + _NOTHING_LEFT
    start, end = torch.clamp(start, -furthest, furthest), torch.clamp(end, -furthest, furthest)
    near = (end - start).abs() <= _LONGEST_PATH
    far_end = torch.where(near, start + 2 * _LONGEST_PATH, end)
    far = torch.sigmoid(-start) * (_mean_gain(start, beta) - _mean_gain(far_end, beta))
    far = far + torch.sigmoid(start) * (_mean_gain(-start, beta) - _mean_gain(-far_end, beta))
    path = _path_integral(start, torch.where(near, end - start, 0.0), beta)
    return torch.where(near, path, far.clamp_min(0)).to(p.logits.dtype)


@register_kl(SpikeExponentialBernoulli, SpikeExponentialBernoulli)
def _kl_spike(p: SpikeExponentialBernoulli, q: SpikeExponentialBernoulli) -> Tensor:
    """That of the two Bernoullis; inf where q is certain of what p is not."""
    of_p, of_q, _ = _logits_and_sharpness(p, q)
    same, certain, excluding = of_p == of_q, of_p.isinf(), of_q.isinf()
    finite = joint_kl(torch.where(certain, 0.0, of_p), torch.where(excluding, 0.0, of_q))
    # Of a certain unit it is minus the other's log probability of that value.
    of_certain = softplus(torch.where(of_p > 0, -of_q, of_q), threshold=_THRESHOLD)
    kl = torch.where(certain, of_certain, torch.where(excluding, math.inf, finite))
    return torch.where(same, 0.0, kl).to(p.logits.dtype)


@register_kl(ConcreteBernoulli, ConcreteBernoulli)
def _kl_concrete(p: ConcreteBernoulli, q: ConcreteBernoulli) -> Tensor:
    """inf where one unit is certain and the other is not, or is so of the other value."""
    of_p, of_q, _ = _logits_and_sharpness(p, q)
    same = of_p == of_q  # also two equal infinities, whose difference is none
    kl = twice_x_langevin(torch.where(same, 0.0, of_p) - torch.where(same, 0.0, of_q))
    return kl.to(p.logits.dtype)


def _logits_and_sharpness(p: Unit, q: Unit) -> tuple[Tensor, Tensor, Tensor]:
    """Both logits and the one sharpness, in float64 and of one shape.

    Raises   NotImplementedError, as torch for a pair that is not registered, for two different sharpnesses.
    """
    first, second = torch.broadcast_tensors(p.beta, q.beta)
    if not torch.equal(first, second):
        raise NotImplementedError(
            f"No KL(p || q) in closed form for two {type(p).__name__} of different beta; "
            "p.log_prob(zeta) - q.log_prob(zeta) at samples zeta of p estimates it"
        )
    of_p, of_q, beta = (x.to(torch.float64) for x in torch.broadcast_tensors(p.logits, q.logits, first))
    return of_p, of_q, beta


def _path_integral(start: Tensor, distance: Tensor, beta: Tensor) -> Tensor:
    """The integral of (sigma(t) - sigma(start)) D(t) over a path of at most 8, by Gauss-Legendre: positive terms."""
    nodes, weights = (torch.from_numpy(x).to(start.device).view(-1, *[1] * start.dim()) for x in (_NODES, _WEIGHTS))
    step = nodes * distance
    t = start + step
    terms = torch.sigmoid(t) * -torch.expm1(-step) * _informativeness(t, beta)
    return (weights * terms).sum(0) * distance * torch.sigmoid(-start)


def _informativeness(t: Tensor, beta: Tensor) -> Tensor:
    """D(t) = 1 - atan(y)/y, by its series where that cancels."""
    y = _y(t, beta)
    small = y < _SMALL_Y
    inner = torch.where(small, y.square(), 0.0)
    series = torch.zeros_like(y)
    for c in reversed(_ARCTANGENT):
        series = inner * (c + series)
    outer = torch.where(small, 1.0, y)
    return torch.where(small, -series, 1 - torch.atan(outer) / outer)


def _mean_gain(t: Tensor, beta: Tensor) -> Tensor:
    """E[softplus(t + R) | z = 0] - softplus(t), whose derivative is -sigma(t) D(t). With d = e^{-beta}, it is

    ((softplus(t - beta) - softplus(t)) - d (softplus(t + beta) - softplus(t)) + 2 e^{(t - beta)/2} atan(y)) / (1 - d).
    """
    ends = _rise(t, -beta) - torch.exp(-beta) * _rise(t, beta)
    return (ends + 2 * torch.exp((t - beta) / 2) * torch.atan(_y(t, beta))) / -torch.expm1(-beta)


def _rise(t: Tensor, step: Tensor) -> Tensor:
    """softplus(t + step) - softplus(t)."""
    short = step.abs() < 1
    direct = softplus(t + step, threshold=_THRESHOLD) - softplus(t, threshold=_THRESHOLD)
    return torch.where(short, torch.log1p(torch.sigmoid(t) * torch.expm1(torch.where(short, step, 0.0))), direct)


def _y(t: Tensor, beta: Tensor) -> Tensor:
    """sinh(beta/2) / cosh(t/2), at most e^80, beyond which atan(y)/y has no digit in any result."""
    size = t.abs()
    exponent = ((beta - size) / 2).clamp(max=_NOTHING_LEFT)
    return torch.exp(exponent) * -torch.expm1(-beta) / (1 + torch.exp(-size))
