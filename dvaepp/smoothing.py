"""Torch twins of ``reference.smoothing`` and ``reference.posterior``: same names, same formulas, any device.

The inverse CDF carries its derivatives itself (automatic differentiation of a quadratic's root divides by quantities
that vanish). It is evaluated in float64 and rounded once, which makes float32 results exact to their last digit at
little cost: a batch has some 10^4 latent units, and the branches that only the last digits of a float64 result need are
left out. Double differentiation is refused. A backend of ``accelerated`` computes the same faster, by ``bridge``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dvaepp import bridge
from dvaepp.backend import TORCH
from dvaepp.errors import ConfigError

_FLAT = 1e-6  # see ``reference.smoothing.exponential``
_GENTLE, _BALANCED = 4.25, 12.0  # dzeta_dbeta's first arrangement is for beta below both _GENTLE and _BALANCED q
_ALL_TAIL = -700.0  # below it, sigma(x) = e^x to all digits of a float64
_SPLITTER = 2.0**27 + 1  # halves the 53 bits of a double


@dataclass(frozen=True)
class OverlappingExponential:
    """Two overlapping exponentials on [0, 1]; see ``reference.smoothing.OverlappingExponential``.

    Shapes   beta a number, or a tensor that broadcasts with the other arguments (then it may require a gradient).
             Backends other than torch take one beta for all arguments.
    Raises   ConfigError for a number that is not positive and finite. Tensors are not looked into: that would wait for
             the device at every call.
    """

    beta: float | Tensor
    backend: str = TORCH

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
        if self.backend == TORCH:
            return _InverseCDF.apply(rho, logit_q, self.beta)
        dtype = torch.promote_types(rho.dtype, logit_q.dtype)
        rho, logit_q = torch.broadcast_tensors(rho.to(dtype), logit_q.to(dtype))
        return bridge.inverse_cdf("exponential", rho, logit_q, self.beta, self.backend)


def nu(smoothing: OverlappingExponential, zeta: Tensor, logit_q: Tensor) -> Tensor:
    """q(z=1|zeta, x); see ``reference.posterior.nu``. float32 is computed in float64 and rounded once.

    Departs  in float64 the rounding of beta (2 zeta - 1), which the sigmoid's exponential turns from an absolute error
             into a relative one, is made up for to first order.
    """
    dtype = torch.promote_types(zeta.dtype, logit_q.dtype)
    beta, zeta, logit_q = _Sharpness.rounded(smoothing.beta, dtype), zeta.to(torch.float64), logit_q.to(torch.float64)
    x = logit_q + beta * (2 * zeta - 1)
    seen = torch.sigmoid(x)
    if dtype == torch.float64:
        # torch.sigmoid flushes what is below the normal numbers to 0, where it is an exponential; float32 ends earlier.
        seen = torch.where(x < _ALL_TAIL, x.clamp(max=_ALL_TAIL).exp(), seen)
        seen = seen * (1 + torch.sigmoid(-x.detach()) * _lost(beta, zeta, logit_q))
    return seen.to(dtype)


@torch.no_grad()
def _lost(beta: float | Tensor, zeta: Tensor, logit_q: Tensor) -> Tensor:
    """What float64 loses of logit_q + beta (2 zeta - 1), rounding by rounding; see ``reference.smoothing.compensated``.

    0 for infinite logits, which lose nothing.
    """
    sharpness = torch.as_tensor(beta, dtype=torch.float64, device=zeta.device)

    def halves(a: Tensor) -> tuple[Tensor, Tensor]:
        high = _SPLITTER * a - (_SPLITTER * a - a)
        return high, a - high

    def of_sum(a: Tensor, b: Tensor, total: Tensor) -> Tensor:
        part = total - a
        return (a - (total - part)) + (b - part)

    doubled = 2 * zeta
    spin = doubled - 1
    product = sharpness * spin
    (b1, b0), (s1, s0) = halves(sharpness), halves(spin)
    lost = ((b1 * s1 - product) + b1 * s0 + b0 * s1) + b0 * s0
    lost = lost + sharpness * of_sum(doubled, torch.full_like(zeta, -1.0), spin)
    return (lost + of_sum(logit_q, product, logit_q + product)).nan_to_num(0.0, 0.0, 0.0)


class _InverseCDF(torch.autograd.Function):
    """The inverse CDF with implicit derivatives; those that nobody asks for are not computed."""

    @staticmethod
    def forward(ctx: Any, rho: Tensor, logit_q: Tensor, beta: float | Tensor) -> Tensor:
        inputs = {"rho": rho, "logit_q": logit_q} | ({"beta": beta} if isinstance(beta, Tensor) else {})
        for name, tensor in inputs.items():
            if tensor.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"{name} must be float32 or float64; got {tensor.dtype}")
        dtype = torch.promote_types(rho.dtype, logit_q.dtype)
        r, logit, sharpness = rho.to(torch.float64), logit_q.to(torch.float64), _Sharpness.of(beta, dtype)
        root = _root(r, logit, sharpness)
        needs_rho, needs_logit_q, needs_beta = ctx.needs_input_grad
        derivatives = (
            _dzeta_drho(root, sharpness) if needs_rho else None,
            _dzeta_dlogit_q(root, r, sharpness) if needs_logit_q else None,
            _dzeta_dbeta(root, logit, sharpness) if needs_beta else None,
        )
        ctx.save_for_backward(*(None if x is None else _rounded(x, dtype) for x in derivatives))
        ctx.inputs = tuple((x.shape, x.dtype) for x in inputs.values())
        return root.zeta.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor | None] = [None, None, None]
        for i, (derivative, (shape, dtype)) in enumerate(zip(ctx.saved_tensors, ctx.inputs, strict=False)):
            if derivative is not None:
                product = (grad.detach() * derivative).sum_to_size(shape).to(dtype)
                grads[i] = _Undifferentiable.apply(product.requires_grad_()) if torch.is_grad_enabled() else product
        return tuple(grads)


class _Undifferentiable(torch.autograd.Function):
    """Passes a gradient on and refuses to differentiate it.

    Torch's own ``once_differentiable`` refuses only where the upstream gradient is differentiable; elsewhere the second
    derivative would silently be zero.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("inverse_cdf is differentiable once; its second derivatives are not implemented")


def _rounded(result: Tensor, dtype: torch.dtype) -> Tensor:
    limit = torch.finfo(dtype).max
    return result.clamp(-limit, limit).to(dtype)


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
    of_near = _gentle_imbalance(a.clamp_max(_GENTLE), t.clamp_max(_GENTLE), spread, q_minus_p, clipped)
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
    of_zero = _quadratic_excess(t, decay_t) + decay_t * _linear_excess(a, decay_a)
    of_one = _quadratic_excess(a, decay_a) + decay_a * _linear_excess(t, decay_t)
    of_far = (posterior * of_one - complement * of_zero) / sharpness.one_minus_d
    result = x0 * (x1 * torch.where(near, of_near, of_far))
    return torch.where(root.mirrored, -result, result)


def _gentle_imbalance(a: Tensor, t: Tensor, spread: Tensor, q_minus_p: Tensor, beta: Tensor) -> Tensor:
    """See ``reference.smoothing.series.gentle_imbalance``; spread is t - a, up to where a or t is beyond any use."""
    first = beta * (q_minus_p - spread / 3)
    return first + (q_minus_p * (_cosh_rest(t) + _cosh_rest(a)) - (_sinh_rest(t) - _sinh_rest(a)))


def _linear_excess(x: Tensor, decay: Tensor) -> Tensor:
    """(x - 1 + e^{-x})/x; see ``reference.smoothing.series.linear_excess``."""
    series = torch.zeros_like(x)
    clipped = x.clamp_max(1)
    for k in range(18, 1, -1):
        series = clipped * ((-1) ** k / math.factorial(k) + series)
    return torch.where(x < 1, series, ((x - 1) + decay) / x)


def _quadratic_excess(x: Tensor, decay: Tensor) -> Tensor:
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
