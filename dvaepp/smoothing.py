"""Torch twins of ``reference.smoothing`` and ``reference.posterior``: same names, same formulas, any device.

The inverse CDF carries its derivatives itself (automatic differentiation of a quadratic's root divides by quantities that
vanish). It is evaluated in float64 and rounded once: a batch has some 10^4 latent units, so that this costs microseconds,
and float32 results are then exact to their last digit. Double differentiation is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dvaepp.errors import ConfigError

_FLAT = 0.35  # see reference.smoothing


@dataclass(frozen=True)
class OverlappingExponential:
    """Two overlapping exponentials on [0, 1]; see ``reference.smoothing.OverlappingExponential``.

    Shapes   beta a number, or a tensor that broadcasts with the other arguments (then it may require a gradient).
    Raises   ConfigError for a number that is not positive and finite. Tensors are not looked into: that would wait for
             the device at every call.
    """

    beta: float | Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.beta, Tensor) and not 0 < self.beta < float("inf"):
            raise ConfigError(f"beta must be positive and finite; got {self.beta}")

    def log_ratio(self, zeta: Tensor) -> Tensor:
        """log r(zeta|1) - log r(zeta|0), in nats; see ``reference.smoothing.OverlappingExponential.log_ratio``."""
        return self.beta * (2 * zeta - 1)

    def inverse_cdf(self, rho: Tensor, logit_q: Tensor) -> Tensor:
        """Smoothed sample for uniform noise, differentiable once in rho, logit_q and a tensor beta.

        See ``reference.smoothing.OverlappingExponential.inverse_cdf`` and ``.inverse_cdf_with_derivatives``.
        Shapes   rho and logit_q broadcast, on one device; float32 or float64. NaN in gives NaN out.
        """
        beta = self.beta if isinstance(self.beta, Tensor) else rho.new_tensor(self.beta)
        return _InverseCDF.apply(rho, logit_q, beta)


def nu(smoothing: OverlappingExponential, zeta: Tensor, logit_q: Tensor) -> Tensor:
    """q(z=1|zeta, x); see ``reference.posterior.nu``."""
    return torch.sigmoid(logit_q + smoothing.log_ratio(zeta))


class _InverseCDF(torch.autograd.Function):
    """The inverse CDF with implicit derivatives; those that nobody asks for are not computed."""

    @staticmethod
    def forward(ctx: Any, rho: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        dtype = torch.promote_types(rho.dtype, logit_q.dtype)
        for name, tensor in (("rho", rho), ("logit_q", logit_q)):
            if tensor.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"{name} must be float32 or float64; got {tensor.dtype}")
        r, logit, b = (x.to(torch.float64) for x in (rho, logit_q, beta.to(dtype)))
        root = _root(r, logit, b)
        tiny = torch.finfo(torch.float64).tiny
        slope = root.S.clamp_min(tiny)
        one_minus_d = -torch.expm1(-b)
        derivatives: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            derivatives[0] = _rounded(one_minus_d / (b * slope), dtype)
        if ctx.needs_input_grad[1]:
            small = one_minus_d * one_minus_d * (r * (1 - r)) * (4 * root.sqrt_pq * root.sqrt_pq)
            dzeta_dlogit_q = torch.where(
                one_minus_d < _FLAT,
                small / (b * slope * ((1 + slope) ** 2 - root.X * root.X)),
                (root.sqrt_pq / slope * root.n0) * (root.n1 / b * root.sqrt_pq),
            )
            derivatives[1] = _rounded(dzeta_dlogit_q, dtype)
        if ctx.needs_input_grad[2]:
            derivatives[2] = _rounded(_dzeta_dbeta(root, logit, b), dtype)
        ctx.save_for_backward(*derivatives)
        ctx.inputs = tuple((x.shape, x.dtype) for x in (rho, logit_q, beta))
        return root.zeta.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(
            None if derivative is None else (grad * derivative).sum_to_size(shape).to(dtype)
            for derivative, (shape, dtype) in zip(ctx.saved_tensors, ctx.inputs, strict=True)
        )


def _rounded(result: Tensor, dtype: torch.dtype) -> Tensor:
    limit = torch.finfo(dtype).max
    return result.clamp(-limit, limit).to(dtype)


@dataclass(frozen=True)
class _Root:
    zeta: Tensor
    S: Tensor
    B: Tensor
    X: Tensor
    sqrt_pq: Tensor
    n0: Tensor
    n1: Tensor
    a: Tensor
    t: Tensor


def _root(rho: Tensor, logit_q: Tensor, beta: Tensor) -> _Root:
    """See ``reference.smoothing._root``, whose names and order this follows."""
    half = torch.exp(-logit_q.abs() / 2)
    likelier, rarer = 1 / (1 + half * half), half * half / (1 + half * half)
    p, q = torch.where(logit_q > 0, rarer, likelier), torch.where(logit_q > 0, likelier, rarer)
    sqrt_pq = half / (1 + half * half)
    d, sqrt_d, one_minus_d = torch.exp(-beta), torch.exp(-beta / 2), -torch.expm1(-beta)
    R, R_mirror = rho * one_minus_d, (1 - rho) * one_minus_d
    X = (rho - q) * one_minus_d

    B = torch.where(R + p + q * d <= 1, R - p + q * d, q - R_mirror - p * d)
    flat = 1 - 4 * sqrt_pq * sqrt_pq * one_minus_d + X * (2 * torch.tanh(logit_q / 2) + X)
    S = torch.where(one_minus_d < _FLAT, flat.clamp_min(0.25).sqrt(), torch.hypot(B, 2 * sqrt_d * sqrt_pq))
    tiny = torch.finfo(torch.float64).tiny
    n0 = (2 * R / (torch.where(X < -0.5, p + R + q * d, 1 + X) + S).clamp_min(tiny)).clamp_max(1)
    n1 = (2 * R_mirror / (torch.where(X > 0.5, q + R_mirror + p * d, 1 - X) + S).clamp_min(tiny)).clamp_max(1)

    y = B.abs() + S
    positive = B >= 0
    side = torch.where(positive, q, p)
    left = (y <= 2 * side * sqrt_d) == positive
    left = torch.where((n0 <= 0.5) != (n1 <= 0.5), n0 <= 0.5, left)
    n = torch.where(left, n0, n1)
    e = torch.where(left == positive, 2 * side * (sqrt_d / y) * sqrt_d, y / (2 * side))
    shorter = torch.where(n <= 0.5, -torch.log1p(-n.clamp_max(0.5)), -torch.log(e))
    plateau = (y == 0) & (n0 > 0.5) & (n1 > 0.5)
    left = torch.where(plateau, logit_q >= 0, left)
    shorter = torch.where(plateau, (beta - logit_q.abs()) / 2, shorter).clamp(torch.zeros_like(beta), beta)

    a, t = torch.where(left, shorter, beta - shorter), torch.where(left, beta - shorter, shorter)
    zeta = torch.where(left, shorter / beta, 1 - shorter / beta)
    return _Root(zeta=zeta, S=S, B=B, X=X, sqrt_pq=sqrt_pq, n0=n0, n1=n1, a=a, t=t)


def _dzeta_dbeta(root: _Root, logit_q: Tensor, beta: Tensor) -> Tensor:
    """See ``reference.smoothing._dzeta_dbeta``."""
    a, t, n0, n1 = root.a, root.t, root.n0, root.n1
    tiny = torch.finfo(torch.float64).tiny
    S = root.S.clamp_min(tiny)

    small = (beta < 3) & (logit_q.abs() < 1)
    a_small, t_small = a.clamp_max(3), t.clamp_max(3)
    difference = _sinh_term(t_small) - _sinh_term(a_small)
    total = _cosh_term(t_small) + _cosh_term(a_small)
    near = torch.exp(-beta) * (difference - torch.tanh(logit_q / 2) * total) / (2 * S)

    y = (root.B.abs() + S).clamp_min(tiny)
    overlap = root.sqrt_pq * torch.exp(-beta / 2)
    flat = root.S < tiny
    half = torch.full_like(S, 0.5)
    larger = torch.where(flat, half, y / (2 * S))
    smaller = torch.where(flat, half, 2 * (overlap / S) * (overlap / y))
    posterior = torch.where(root.B >= 0, larger, smaller)
    complement = torch.where(root.B >= 0, smaller, larger)
    g_a, g_t = _linear_excess(a, n0), _linear_excess(t, n1)
    h_a, h_t = _quadratic_excess(a, n0, g_a), _quadratic_excess(t, n1, g_t)
    far = complement * (h_t + torch.exp(-t) * g_a) - posterior * (h_a + torch.exp(-a) * g_t)
    return (a / beta) * (t / beta) / torch.expm1(-beta) * torch.where(small, near, far)


def _linear_excess(x: Tensor, n: Tensor) -> Tensor:
    series = torch.zeros_like(x)
    clipped = x.clamp_max(1)
    for k in range(18, 1, -1):
        series = clipped * ((-1) ** k / factorial(k) + series)
    return torch.where(x < 1, series, (x - n) / x)


def _quadratic_excess(x: Tensor, n: Tensor, linear_excess: Tensor) -> Tensor:
    return torch.where(x < 1, n - linear_excess, (n - x * torch.exp(-x)) / x)


def _sinh_term(x: Tensor) -> Tensor:
    square = x * x
    series = torch.zeros_like(x)
    for k in range(15, 0, -1):
        series = square * (2 / factorial(2 * k + 1) + series)
    return series


def _cosh_term(x: Tensor) -> Tensor:
    half = torch.sinh(x / 2)
    return torch.where(x > 0, 4 * half * (half / x), torch.zeros_like(x))
