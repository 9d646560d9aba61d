"""Factorial normal variables in torch, by mean and log_std; twin of ``reference.normal``.

Any device, float32 or float64, which is what results and derivatives are in. Arguments broadcast; values are not looked
at, which on a GPU would mean to wait for them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def sample(eps: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """mean + e^log_std eps; see ``reference.normal.sample``."""
    return torch.addcmul(mean, eps, log_std.exp())


def log_prob(h: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density in nats of each variable; see ``reference.normal.log_prob``."""
    return -0.5 * ((h - mean) * torch.exp(-log_std)).square() - log_std - _HALF_LOG_2PI


def kl(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """KL(q || p) in nats of each variable; see ``reference.normal.kl``.

    Shapes   that broadcast -> their common shape
    Domain   finite; e^{2 (log_std_q - log_std_p)} and ((mean_q - mean_p) / std_p)^2 representable in the dtype
    """
    return _KL.apply(*torch.broadcast_tensors(mean_q, log_std_q, mean_p, log_std_p))


class _KL(torch.autograd.Function):
    """(e^{2r} - 1 - 2r) / 2 + d^2 / 2, and the derivatives of ``reference.normal.kl_gradient``.

    Automatic differentiation would keep the series of ``_spread`` term by term, and both sides of its branch. Here
    nothing but the arguments is kept.
    """

    @staticmethod
    def forward(ctx: Any, mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
        ctx.save_for_backward(mean_q, log_std_q, mean_p, log_std_p)
        distance = (mean_q - mean_p).mul_(torch.exp(-log_std_p))
        return _spread(log_std_q - log_std_p).addcmul_(distance, distance, value=0.5)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_q, log_std_q, mean_p, log_std_p = ctx.saved_tensors
        precision = torch.exp(-log_std_p)
        distance = (mean_q - mean_p) * precision
        by_spread = upstream * torch.expm1(2 * (log_std_q - log_std_p))
        by_distance = upstream * distance
        by_mean = by_distance * precision
        return by_mean, by_spread, -by_mean, -torch.addcmul(by_spread, by_distance, distance)


# r^2 (1 + 2r/3 + r^2/3 + ...) = r^2 sum of 2^(k+1) r^k / (k+2)!, terms down to half of the dtype's epsilon at the
# largest |r| of the series. From there on e^{2r} - 1 - 2r magnifies the rounding of e^{2r} - 1 fivefold at most, and
# one rounding of the two logarithms does half of that.
_LARGEST_OF_SERIES = 0.25
_SERIES = {
    dtype: [
        2 ** (k + 1) / math.factorial(k + 2)
        for k in range(40)
        if 2 ** (k + 1) * _LARGEST_OF_SERIES**k > torch.finfo(dtype).eps * math.factorial(k + 2) / 2
    ]
    for dtype in (torch.float32, torch.float64)
}


def _spread(r: Tensor) -> Tensor:
    """(e^{2r} - 1 - 2r) / 2, in memory of its own."""
    *first, last = _SERIES[r.dtype]
    series = r * last
    for coefficient in reversed(first):
        series.add_(coefficient).mul_(r)
    series.mul_(r)
    far = torch.expm1(2 * r).mul_(0.5).sub_(r)
    return torch.where(r.abs() <= _LARGEST_OF_SERIES, series, far)
