"""Overlapping exponentials: the smoothing of the paper's experiments. The twin of ``reference.smoothing.exponential``.

A backend of ``accelerated`` computes the same faster, by ``bridge``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from dvaepp.smoothing.compensated import add, exact, multiply, sigmoid, two_sum
from dvaepp.smoothing.family import MixtureSmoothing, Solution

_FLAT = 1e-6  # see ``reference.smoothing.exponential``
_GENTLE, _BALANCED = 4.25, 12.0  # dzeta_dbeta's first arrangement is for beta below both _GENTLE and _BALANCED q


@dataclass(frozen=True, eq=False)
class OverlappingExponential(MixtureSmoothing):
    """Two overlapping exponentials on [0, 1]; see ``reference.smoothing.OverlappingExponential``."""

    kind: ClassVar[str] = "exponential"

    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        s = _Sharpness.of(self.beta, torch.float64 if careful else torch.float32)
        root = _root(rho, logit_q, s)
        return Solution(
            root.zeta,
            partial(_dzeta_drho, root, s),
            partial(_dzeta_dlogit_q, root, rho, s),
            partial(_dzeta_dbeta, root, logit_q, s),
        )

    def _log_r(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return log_r(zeta, z, beta)

    def _r_cdf(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return r_cdf(zeta, z, beta)

    def _log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        return beta * (2 * zeta - 1)

    def _careful_log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        return self._log_ratio(zeta, beta)

    def _careful_nu(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        ratio = multiply(exact(beta, True), two_sum(2 * zeta, torch.full_like(zeta, -1.0)))
        return sigmoid(add(exact(logit_q, True), ratio))


def log_r(zeta: Tensor, z: int, beta: Tensor) -> Tensor:
    """See ``reference.smoothing.OverlappingExponential.log_r``."""
    return torch.log(beta) - torch.log(-torch.expm1(-beta)) - beta * (1 - zeta if z else zeta)


def r_cdf(zeta: Tensor, z: int, beta: Tensor) -> Tensor:
    """See ``reference.smoothing.OverlappingExponential.r_cdf``."""
    at_zero = torch.expm1(-beta * zeta) / torch.expm1(-beta)
    return torch.exp(-beta * (1 - zeta)) * at_zero if z else at_zero


@dataclass(frozen=True)
class _Sharpness:
    """beta and what depends on it alone: numbers if beta is a number, else tensors."""

    beta: Any
    d: Any  # e^{-beta}
    sqrt_d: Any
    one_minus_d: Any
    careful: bool  # whether float64 results are due; float32 ones can do with fewer cases, evaluated in float64
    may_be_flat: bool  # whether beta may be below _FLAT
    may_underflow: bool  # whether S may, which takes beta > 700 as long as q is a normal number

    @staticmethod
    def rounded(beta: float | Tensor, dtype: torch.dtype) -> float | Tensor:
        """Rounded to the dtype of the arguments, as a float32 caller's beta = 0.1 is the float32 nearest to 0.1."""
        return beta.to(dtype).to(torch.float64) if isinstance(beta, Tensor) else torch.tensor(beta, dtype=dtype).item()

    @classmethod
    def of(cls, beta: float | Tensor, dtype: torch.dtype) -> _Sharpness:
        """What follows from beta, rounded."""
        x = cls.rounded(beta, dtype)
        if isinstance(x, Tensor):
            return cls(x, torch.exp(-x), torch.exp(-x / 2), -torch.expm1(-x), dtype == torch.float64, True, True)
        return cls(x, math.exp(-x), math.exp(-x / 2), -math.expm1(-x), dtype == torch.float64, x < _FLAT, x > 700)


@dataclass(frozen=True)
class _Root:
    """See ``reference.smoothing.exponential._Root``; x0, x1, n0 and q_minus_p are left to those who need them."""

    zeta: Tensor
    mirrored: Tensor
    left: Tensor
    nearer: Tensor  # x0 where left, else x1
    v0: Tensor
    v1: Tensor
    S: Tensor
    B: Tensor
    X: Tensor
    sqrt_pq: Tensor
    central: _Central | None


@dataclass(frozen=True)
class _Central:
    """What ``reference.smoothing.exponential._root`` does otherwise for central logits; right where ``mask`` is."""

    mask: Tensor
    q_minus_p: Tensor
    B: Tensor
    X: Tensor
    four_pq: Tensor
    S_squared: Tensor


def _central(rho: Tensor, size: Tensor, mirrored: Tensor, s: _Sharpness) -> _Central:
    """See ``reference.smoothing.exponential._root``, idea 4."""
    q_minus_p = -torch.tanh(size / 2)
    u = torch.where(mirrored, 1 - 2 * rho, 2 * rho - 1)
    B = (u * s.one_minus_d + q_minus_p * (1 + s.d)) / 2
    four_pq = 1 - q_minus_p * q_minus_p
    return _Central(
        mask=(q_minus_p > -0.5) & (s.beta < 600),
        q_minus_p=q_minus_p,
        B=B,
        X=(u - q_minus_p) / 2 * s.one_minus_d,
        four_pq=four_pq,
        S_squared=B * B + four_pq * s.d,
    )


def _root(rho: Tensor, logit_q: Tensor, sharpness: _Sharpness) -> _Root:
    """See ``reference.smoothing.exponential._root``, whose names and order this follows."""
    s, beta, one_minus_d = sharpness, sharpness.beta, sharpness.one_minus_d
    tiny = torch.finfo(torch.float64).tiny
    size = logit_q.abs()
    half = torch.exp(-size / 2)
    p = (half * half).add_(1).reciprocal_()
    sqrt_pq = half * p
    q = half * sqrt_pq
    mirrored = logit_q > 0
    complement = 1 - rho
    below, above = torch.where(mirrored, complement, rho), torch.where(mirrored, rho, complement)

    R_mirror, p_d = above * one_minus_d, p * s.d
    B = q - R_mirror - p_d
    X = (below - q) * one_minus_d
    S = torch.hypot(B, sqrt_pq * (2 * s.sqrt_d))
    sum1 = q + R_mirror + p_d
    central = None
    if s.careful:
        central = _central(rho, size, mirrored, s)
        B, X = torch.where(central.mask, central.B, B), torch.where(central.mask, central.X, X)
        S = torch.where(central.mask, central.S_squared.sqrt(), S)
        sum1 = torch.where(X > 0.5, sum1, 1 - X)
    sum0, sum1 = (1 + X).add_(S), sum1.add_(S)
    v0 = (below / sum0).mul_(2 * one_minus_d / beta)
    v1 = (above / sum1.clamp_min_(tiny)).mul_(2 * one_minus_d / beta)

    y = B.abs().add_(S)
    left_mode = B < 0
    left = left_mode & (y >= p * (2 * s.sqrt_d))
    if s.may_be_flat:
        left = torch.where(torch.as_tensor(beta, device=v0.device) < _FLAT, v0 <= v1, left)
    v = torch.minimum(v0, v1)
    n = (v * beta).clamp_(tiny, 0.5)
    e = torch.where(left_mode, p * (2 * s.sqrt_d) / y * s.sqrt_d, y / (2 * q))
    e = torch.where(left, y / (2 * p), e)
    between = torch.log(e).neg_()
    if s.may_underflow:
        between = torch.where(y == 0, (beta - size) / 2, between)
    nearer = torch.where(n < 0.5, torch.log1p(-n) / -beta, (between / beta).clamp_(0, 1))
    if s.careful:
        nearer = torch.where(n <= tiny, v, nearer)
    zeta = torch.where(left ^ mirrored, nearer, 1 - nearer)
    return _Root(zeta, mirrored, left, nearer, v0, v1, S, B, X, sqrt_pq, central)


def _dzeta_drho(root: _Root, sharpness: _Sharpness) -> Tensor:
    slope = root.S.clamp_min(torch.finfo(torch.float64).tiny)
    return sharpness.one_minus_d / (sharpness.beta * slope)


def _dzeta_dlogit_q(root: _Root, rho: Tensor, sharpness: _Sharpness) -> Tensor:
    """See ``reference.smoothing.OverlappingExponential.inverse_cdf_with_derivatives``."""
    slope = root.S.clamp_min(torch.finfo(torch.float64).tiny)
    beta, one_minus_d, central = sharpness.beta, sharpness.one_minus_d, root.central
    n1 = (beta * root.v1).clamp_max(1)
    result = (root.sqrt_pq / slope * root.v0) * (n1 * root.sqrt_pq)
    if central is None:
        return result
    c = central.four_pq * one_minus_d
    weight = c * (one_minus_d / (2 * beta)) / (central.S_squared + slope * (1 + (root.X * central.q_minus_p - c / 2)))
    return torch.where(central.mask, rho * (1 - rho) * weight, result)


def _dzeta_dbeta(root: _Root, logit_q: Tensor, sharpness: _Sharpness) -> Tensor:
    """See ``reference.smoothing.exponential._dzeta_dbeta``."""
    beta = sharpness.beta
    x0 = torch.where(root.left, root.nearer, 1 - root.nearer)
    x1 = torch.where(root.left, 1 - root.nearer, root.nearer)
    a, t = beta * x0, beta * x1
    tiny = torch.finfo(torch.float64).tiny
    S = root.S.clamp_min(tiny)

    size = logit_q.abs()
    q_minus_p = -torch.tanh(size / 2)
    near = (beta < _GENTLE) & (beta < _BALANCED * torch.sigmoid(-size))
    spread = beta * (x1 - x0)
    middle = (q_minus_p > -0.5) & (spread.abs() < 0.125 * beta) & (size < beta)
    spread = torch.where(middle, -size - 2 * torch.atanh(torch.where(middle, root.B / S, torch.zeros_like(S))), spread)
    clipped = beta.clamp_max(_GENTLE)
    of_near = gentle_imbalance(a.clamp_max(_GENTLE), t.clamp_max(_GENTLE), spread, q_minus_p, clipped)
    of_near = of_near / (2 * S * torch.expm1(clipped))

    y = (root.B.abs() + S).clamp_min(tiny)
    overlap = root.sqrt_pq * sharpness.sqrt_d
    plateau = tiny > root.S
    one_half = torch.full_like(S, 0.5)
    larger = torch.where(plateau, one_half, y / (2 * S))
    smaller = torch.where(plateau, one_half, 2 * (overlap / S) * (overlap / y))
    if root.central is not None:
        smaller = torch.where(root.central.mask, root.central.four_pq * sharpness.d / (2 * S * y), smaller)
    posterior = torch.where(root.B >= 0, larger, smaller)
    complement = torch.where(root.B >= 0, smaller, larger)
    decay_a, decay_t = torch.exp(-a), torch.exp(-t)
    of_zero = quadratic_excess(t, decay_t) + decay_t * linear_excess(a, decay_a)
    of_one = quadratic_excess(a, decay_a) + decay_a * linear_excess(t, decay_t)
    of_far = (posterior * of_one - complement * of_zero) / sharpness.one_minus_d
    result = x0 * (x1 * torch.where(near, of_near, of_far))
    return torch.where(root.mirrored, -result, result)


def gentle_imbalance(a: Tensor, t: Tensor, spread: Tensor, q_minus_p: Tensor, beta: Tensor) -> Tensor:
    """See ``reference.smoothing.series.gentle_imbalance``; spread is t - a, up to where a or t is beyond any use."""
    first = beta * (q_minus_p - spread / 3)
    return first + (q_minus_p * (_cosh_rest(t) + _cosh_rest(a)) - (_sinh_rest(t) - _sinh_rest(a)))


def linear_excess(x: Tensor, decay: Tensor) -> Tensor:
    """(x - 1 + e^{-x})/x; see ``reference.smoothing.series.linear_excess``."""
    series = torch.zeros_like(x)
    clipped = x.clamp_max(1)
    for k in range(18, 1, -1):
        series = clipped * ((-1) ** k / math.factorial(k) + series)
    return torch.where(x < 1, series, ((x - 1) + decay) / x)


def quadratic_excess(x: Tensor, decay: Tensor) -> Tensor:
    """(1 - (1 + x) e^{-x})/x; see ``reference.smoothing.series.quadratic_excess``.

    Departs  where that subtraction cancels it is e^{-x} (e^x - 1 - x)/x, by a series of positive terms.
    """
    series = torch.zeros_like(x)
    clipped = x.clamp_max(2)
    for k in range(25, 1, -1):
        series = clipped * (1 / math.factorial(k) + series)
    return torch.where(x < 2, decay * series, (1 - (1 + x) * decay) / x)


def _sinh_rest(x: Tensor) -> Tensor:
    square = x * x
    series = torch.zeros_like(x)
    for k in range(22, 1, -1):
        series = square * (2 / math.factorial(2 * k + 1) + series)
    return square * series


def _cosh_rest(x: Tensor) -> Tensor:
    square = x * x
    series = torch.zeros_like(x)
    for k in range(22, 0, -1):
        series = square * (2 / math.factorial(2 * k + 2) + series)
    return x * series
