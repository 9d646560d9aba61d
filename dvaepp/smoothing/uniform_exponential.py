"""Overlapping exponentials over a uniform floor; the twin of ``reference.smoothing.uniform_exponential``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dvaepp.smoothing import exponential
from dvaepp.smoothing.compensated import Two, exact, exp, sigmoid, two_product, two_sum
from dvaepp.smoothing.exponential import gentle_imbalance, linear_excess, quadratic_excess
from dvaepp.smoothing.family import MixtureSmoothing, Solution
from dvaepp.smoothing.inversion import solve

_WEIGHT = 0.05  # of the floor
_GENTLE = 3.0  # see ``reference.smoothing.uniform_exponential``


@dataclass(frozen=True, eq=False)
class UniformExponential(MixtureSmoothing):
    """With probability 0.05 a uniform zeta, else overlapping exponentials; see ``reference``'s of the same name."""

    kind: ClassVar[str] = "uniform-exponential"

    def _log_r(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return _over_floor(exponential.log_r(zeta, z, beta))

    def _r_cdf(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return (1 - _WEIGHT) * exponential.r_cdf(zeta, z, beta) + _WEIGHT * zeta

    def _log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        scale = (1 - _WEIGHT) * (beta / -torch.expm1(-beta))
        return _log_ratio(zeta, beta, scale * torch.exp(-beta * zeta), scale * torch.exp(-beta * (1 - zeta)))

    def _careful_log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        return _log_ratio(zeta, beta, *_peaks(zeta, beta))

    def _careful_nu(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        peak0, peak1 = _peaks(zeta, beta)
        root = torch.exp(logit_q / 2)  # by halves: the odds may be a number where e^l is not
        odds = root * ((peak1 + _WEIGHT) / (peak0 + _WEIGHT)) * root
        return torch.where(odds.isinf(), torch.ones_like(odds), odds / (1 + odds))

    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        """See ``reference.smoothing.UniformExponential.inverse_cdf_with_derivatives``."""
        beta = self._sharpness(torch.float64 if careful else torch.float32, rho.device)
        rho, logit_q, beta = torch.broadcast_tensors(rho, logit_q, beta)
        p, q = (sigmoid(exact(x, False)) for x in (-logit_q, logit_q))
        peak = (1 - _WEIGHT) * (beta / -torch.expm1(-beta))
        x0, x1 = _distances(rho, p, q, beta, peak, careful)
        slope = 1 / _density(x0, x1, p, q, beta, peak)

        def by_logit_q() -> Tensor:
            # In an order in which no partial product underflows before the result does.
            return slope * peak * -torch.expm1(-beta * x1) * p * _excess(x0, beta) * q

        def by_beta() -> Tensor:
            return -(slope * peak * x1 * _imbalance(x0, x1, p, q, logit_q, beta)) * x0

        return Solution(torch.where(x0 <= 0.5, x0, 1 - x1), lambda: slope, by_logit_q, by_beta)


def _over_floor(log_density: Tensor) -> Tensor:
    """log((1 - w) e^L + w)."""
    return torch.logaddexp(log_density + math.log1p(-_WEIGHT), torch.full_like(log_density, math.log(_WEIGHT)))


def _log_ratio(zeta: Tensor, beta: Tensor, peak0: Tensor, peak1: Tensor) -> Tensor:
    """See ``reference.smoothing.UniformExponential.log_ratio``; the peaks are the exponentials' part of r(zeta|z)."""
    right = zeta >= 0.5
    distance = torch.where(right, 2 * zeta - 1, 1 - 2 * zeta)
    peak, smaller = torch.where(right, peak1, peak0), torch.where(right, peak0, peak1) + _WEIGHT
    ratio = torch.log1p(peak * -torch.expm1(-beta * distance) / smaller)
    return torch.where(right, ratio, -ratio)


def _peaks(zeta: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """The exponentials' part of r(zeta|0) and r(zeta|1)."""
    scale = (1 - _WEIGHT) * (beta / -torch.expm1(-beta))
    high, low = two_product(beta, zeta)
    rest = two_sum(torch.ones_like(zeta), -zeta)
    assert rest.low is not None
    rest_high, rest_low = two_product(-beta, rest.high)
    return scale * exp(Two(-high, -low)), scale * exp(Two(rest_high, rest_low - beta * rest.low))


def _distances(rho: Tensor, p: Tensor, q: Tensor, beta: Tensor, peak: Tensor, careful: bool) -> tuple[Tensor, Tensor]:
    """See ``reference.smoothing.UniformExponential._distances``."""
    half = torch.full_like(rho, 0.5)
    left = _tail(half, half, p, q, beta, peak) >= rho
    lower = rho < 0.5
    target = torch.where(lower, rho, 1 - rho)
    same = left == lower
    # The tail that is matched is counted from the near end where ``same``; p and q are those of its own end.
    near, far = torch.where(lower, p, q), torch.where(lower, q, p)

    def residual(distance: Tensor) -> tuple[Tensor, Tensor]:
        rest = 1 - distance
        x0, x1 = torch.where(same, distance, rest), torch.where(same, rest, distance)
        tail = _tail(x0, x1, near, far, beta, peak)
        return torch.where(same, tail - target, target - tail), _density(x0, x1, near, far, beta, peak)

    zero = torch.zeros_like(rho)
    x0, x1 = torch.where(left, zero, zero + 1), torch.where(left, zero + 1, zero)
    start = target / _density(x0, x1, p, q, beta, peak)
    distance = solve(residual, zero, half, start.clamp(max=0.5), careful)
    rest = 1 - distance
    return torch.where(left, distance, rest), torch.where(left, rest, distance)


def _tail(x0: Tensor, x1: Tensor, p: Tensor, q: Tensor, beta: Tensor, peak: Tensor) -> Tensor:
    return peak * (p + q * torch.exp(-beta * x1)) * _excess(x0, beta) + _WEIGHT * x0


def _density(x0: Tensor, x1: Tensor, p: Tensor, q: Tensor, beta: Tensor, peak: Tensor) -> Tensor:
    return peak * (p * torch.exp(-beta * x0) + q * torch.exp(-beta * x1)) + _WEIGHT


def _excess(x: Tensor, beta: Tensor) -> Tensor:
    """(1 - e^{-beta x})/beta, which keeps the digits of an x so small that beta x is no normal number."""
    a = beta * x
    return torch.where(a < 1e-9, x * (1 - a / 2), -torch.expm1(-a) / beta)


def _imbalance(x0: Tensor, x1: Tensor, p: Tensor, q: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
    """See ``reference.smoothing.uniform_exponential._imbalance``."""
    a, t = beta * x0, beta * x1
    decay0, decay1 = (exp(Two(-high, -low)) for high, low in (two_product(beta, x0), two_product(beta, x1)))
    X = decay0 * (quadratic_excess(t, decay1) + decay1 * linear_excess(a, decay0))
    Y = decay1 * (quadratic_excess(a, decay0) + decay0 * linear_excess(t, decay1))
    clipped = beta.clamp(max=6)
    a, t = clipped * x0, clipped * x1
    gentle = gentle_imbalance(a, t, clipped * (x1 - x0), torch.tanh(logit_q / 2), clipped)
    return torch.where(beta < _GENTLE, -gentle * torch.exp(-beta) / 2, p * X - q * Y) / -torch.expm1(-beta)
