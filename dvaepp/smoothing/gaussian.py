"""Overlapping normal densities, on the real line; the twin of ``reference.smoothing.gaussian``, same names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import pi
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dvaepp.smoothing.compensated import Two, add, exact, exp, finite, negative, sigmoid, two_product
from dvaepp.smoothing.family import Solution
from dvaepp.smoothing.inversion import solve
from dvaepp.smoothing.real_line import LocationMixture, nu_minus_zeta, plus_logit, scaled_distance

_FAR = 40.0  # standard deviations; e^{-40^2/2} is 0
_NODES, _WEIGHTS = (
    (0.5 * (x + shift)).tolist() for x, shift in zip(np.polynomial.legendre.leggauss(20), (1, 0), strict=True)
)


@dataclass(frozen=True, eq=False)
class Gaussian(LocationMixture):
    """Two normal densities of means 0 and 1 and precision beta; see ``reference.smoothing.Gaussian``."""

    kind: ClassVar[str] = "gaussian"

    def _log_r(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return torch.log(beta / (2 * pi)) / 2 - beta / 2 * (zeta - z) ** 2

    def _r_cdf(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return torch.erfc(torch.sqrt(beta / 2) * (z - zeta)) / 2

    def _log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        return beta * (zeta - 0.5)

    def _log_odds(self, offset: Two, beta: Tensor) -> Two:
        return scaled_distance(offset, 0.0, exact(beta, offset.low is not None))

    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        """See ``reference.smoothing.Gaussian.inverse_cdf_with_derivatives``."""
        beta = self._sharpness(torch.float64 if careful else torch.float32, rho.device)
        rho, logit_q, beta = torch.broadcast_tensors(rho, logit_q, beta)
        root = _root(rho, logit_q, beta, careful)
        log_odds = self._log_odds(root.offset, beta)
        outside = (rho == 0) | (rho == 1)

        def by_rho() -> Tensor:
            return torch.where(outside, torch.full_like(rho, torch.inf), 1 / root.density)

        def by_logit_q() -> Tensor:
            found = _dzeta_dlogit_q(root, plus_logit(log_odds, root.logit_q), beta)
            return torch.where(outside, torch.zeros_like(found), found)

        def by_beta() -> Tensor:
            excess = (beta - 4) / 4 * root.offset.total
            difference = nu_minus_zeta(root.offset, root.logit_q, log_odds, excess)
            return torch.where(outside, -root.zeta, torch.where(root.mirrored, -difference, difference) / (2 * beta))

        return Solution(root.zeta, by_rho, by_logit_q, by_beta)


# ---- the standard normal -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Normal:
    """Density and tails of the standard normal at t, each tail with full relative accuracy."""

    bell: Tensor  # e^{-t^2/2}
    lower: Tensor  # Phi(t)
    upper: Tensor  # Phi(-t)


def _normal(t: Two) -> _Normal:
    """See ``reference.smoothing.gaussian._normal``; with torch's own tails where t is a plain float64."""
    high = t.high.clamp(-_FAR, _FAR)
    if t.low is None:
        t0 = high / math.sqrt(2)
        return _Normal(torch.exp(-t0 * t0), torch.erfc(-t0) / 2, torch.erfc(t0) / 2)
    low = torch.where(high == t.high, t.low, torch.zeros_like(high))
    square, lost = two_product(high, high)
    bell = exp(Two(-square / 2, -(lost / 2 + high * low)))
    size = high.abs()
    smaller = torch.where(size < 0.5, 0.5 - torch.erf(size / math.sqrt(2)) / 2, bell * _scaled_tail(size))
    larger = 1 - smaller
    return _Normal(bell, torch.where(high < 0, smaller, larger), torch.where(high < 0, larger, smaller))


def _scaled_tail(t: Tensor) -> Tensor:
    """Phi(-t) e^{t^2/2} for t >= 0; see ``reference.smoothing.gaussian._scaled_tail``."""
    total = torch.zeros_like(t)
    square = t * t
    for k in range(13, -1, -1):
        v_squared = ((k + 0.5) * pi / 5) ** 2
        total = total + math.exp(-v_squared / 2) / 5 / (v_squared + square)
    near = t.clamp(max=10)
    pole = torch.where(t < 10, torch.exp(near * near / 2) / (1 + torch.exp(10 * near)), torch.zeros_like(t))
    return t * total + pole


def _root_of(beta: Tensor, careful: bool) -> Two:
    """sqrt(beta) and what its rounding lacks."""
    s = torch.sqrt(beta)
    if not careful:
        return Two(s, None)
    square, lost = two_product(s, s)
    return Two(s, ((beta - square) - lost) / (2 * s))


def _mean_cosh(a: Tensor, b: Tensor) -> Tensor:
    """See ``reference.smoothing.gaussian._mean_cosh``."""
    total = torch.zeros_like(a * b)
    for v, weight in zip(_NODES, _WEIGHTS, strict=True):
        total = total + weight * (torch.cosh(a * b * v) * torch.exp(-((a * v) ** 2) / 2))
    return total


# ---- the inverse ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Root:
    """The root with what its derivatives need; all but ``zeta`` speak of the mirror image with rho <= 1/2."""

    zeta: Tensor
    mirrored: Tensor
    offset: Two  # zeta - 1/2
    logit_q: Tensor
    density: Tensor
    at_zero: _Normal
    at_one: _Normal


def _root(rho: Tensor, logit_q: Tensor, beta: Tensor, careful: bool) -> _Root:
    """See ``reference.smoothing.gaussian._root``; its third idea is for float64."""
    eps = torch.finfo(torch.float64).eps
    mirrored = rho > 0.5
    below = torch.where(mirrored, 1 - rho, rho)
    inside = below != 0
    below = torch.where(inside, below, torch.full_like(below, 0.5))
    logit = torch.where(mirrored, -logit_q, logit_q)
    p, q = (sigmoid(exact(x, False)) for x in (-logit, logit))
    q_minus_p = torch.tanh(logit / 2)
    s = _root_of(beta, careful)
    h = s.high / 2
    zero = torch.zeros_like(below)
    central = (logit.abs() < 1) & (beta < 10) & (below > 0.25)
    h_central = torch.where(central, h, zero)

    def at(u: Two) -> tuple[_Normal, _Normal, Tensor]:
        at_zero, at_one = (_normal(scaled_distance(u, shift, s)) for shift in (-0.5, 0.5))
        return at_zero, at_one, s.high / math.sqrt(2 * pi) * (p * at_zero.bell + q * at_one.bell)

    def residual(u: Tensor) -> tuple[Tensor, Tensor]:
        at_zero, at_one, density = at(exact(u, careful))
        F = p * at_zero.lower + q * at_one.lower
        difference = ((below - p) + p * at_zero.upper) - q * at_one.lower  # rho - F
        if careful:
            a = s.high * u
            in_centre = central & (a.abs() < 1)
            a = torch.where(in_centre, a, zero)
            lift = torch.exp(-(h_central**2) / 2) * (a * _mean_cosh(a, h_central))
            shift = torch.exp(-(a**2) / 2) * (h_central * _mean_cosh(h_central, a)) * q_minus_p
            difference = torch.where(in_centre, (below - 0.5) - (lift - shift) / math.sqrt(2 * pi), difference)
        tail = u < -0.5
        value = torch.where(tail, torch.log(F / below), -difference / below)
        return value, density / torch.where(tail, F, below)

    quantile = torch.special.ndtri(below) / s.high
    margin = 1e-9 * (quantile.abs() + 1 / s.high)
    low, high = quantile - 0.5 - margin, quantile + 0.5 + margin
    u = solve(residual, low, high, quantile + (q - 0.5), careful)
    value, slope = residual(u)
    step = (-value / slope).nan_to_num(0.0)
    if careful:
        rest = torch.minimum(torch.maximum(step, -2 * eps * u.abs()), 2 * eps * u.abs())
        rest = torch.where(u.isnan(), u, rest)
        offset = Two(u, rest)
        sign = torch.where(mirrored, -torch.ones_like(u), torch.ones_like(u))
        zeta = add(Two(sign * u, sign * rest), exact(torch.full_like(u, 0.5), True)).high
    else:
        offset = Two(u, None)
        zeta = torch.where(mirrored, 0.5 - u, 0.5 + u)
    at_zero, at_one, density = at(offset)
    end = torch.where(mirrored, torch.full_like(u, torch.inf), torch.full_like(u, -torch.inf))
    return _Root(torch.where(inside, zeta, end), mirrored, offset, logit, density, at_zero, at_one)


def _dzeta_dlogit_q(root: _Root, y: Two, beta: Tensor) -> Tensor:
    """See ``reference.smoothing.gaussian._dzeta_dlogit_q``."""
    careful = root.offset.low is not None
    s = torch.sqrt(beta)
    h, u, logit = s / 2, root.offset.high, root.logit_q
    zero = torch.zeros_like(u)
    overlap = (h < 2) & ((beta * u).abs() < 3)
    between = ~overlap & (u > -0.5)
    inner = torch.where(between, u, zero)
    minus_half_y = Two(-y.high.abs() / 2, None if y.low is None else -y.high.sign() * y.low / 2)
    if careful:
        assert root.offset.low is not None
        square, lost = two_product(inner, inner)
        high, low = two_product(beta / 2, square)
        exponent = Two(high, low + beta / 2 * (lost + 2 * inner * root.offset.low))
    else:
        exponent = Two(beta / 2 * inner * inner, None)
    exponent = add(add(exponent, exact(beta / 8, careful)), minus_half_y)
    exponent = add(exponent, exact(-logit.abs() / 2, careful))
    exponent = finite(exponent.high.clamp(max=709), exponent.low)  # above, it saturates
    ratio = exp(exponent) / ((1 + torch.exp(-logit.abs())) * (1 + torch.exp(-y.high.abs())))
    ratio = torch.where(logit.isinf(), zero, ratio)
    scale = math.sqrt(2 * pi) / s
    separate = scale * ((1 - root.at_zero.upper - root.at_one.lower) * ratio)
    overlapping = _mean_cosh(torch.where(overlap, h, zero), torch.where(overlap, s * u, zero)) * ratio
    t0, t1 = (s * (u + 0.5)).clamp(max=0), (s * (u - 0.5)).clamp(max=0)
    fall = _scaled_tail(-t0) - _scaled_tail(-t1) * torch.exp((beta * u).clamp(max=0))
    below = scale * fall * (sigmoid(exact(logit, False)) * sigmoid(negative(y)))
    return torch.where(overlap, overlapping, torch.where(between, separate, below))
