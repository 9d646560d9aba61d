"""Overlapping logistics, on the real line; the twin of ``reference.smoothing.logistic``, same names and order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dvaepp.smoothing.compensated import Two, add, exact, finite, log, multiply, negative, two_product, two_sum
from dvaepp.smoothing.family import Solution
from dvaepp.smoothing.real_line import LocationMixture, from_the_ends, nu_minus_zeta, tanh_excess

_FAR = 40.0  # times 1/beta beyond a mode the log-ratio is beta, or -beta, to all digits


@dataclass(frozen=True, eq=False)
class OverlappingLogistic(LocationMixture):
    """Two overlapping logistic densities of means 0 and 1; see ``reference.smoothing.OverlappingLogistic``."""

    kind: ClassVar[str] = "logistic"

    def _log_r(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        x = beta * (zeta - z)
        return torch.log(beta) + logsigmoid(x) + logsigmoid(-x)

    def _r_cdf(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return torch.sigmoid(beta * (zeta - z))

    def _log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        """2 log cosh(beta zeta/2) - 2 log cosh(beta (zeta - 1)/2), for a zeta at which both are finite."""
        reach = _FAR / beta.detach()
        near = torch.maximum(torch.minimum(zeta, 1 + reach), -reach)
        x0, x1 = beta * near, beta * (near - 1)
        return (logsigmoid(-x1) - logsigmoid(-x0)) + (logsigmoid(x1) - logsigmoid(x0))

    def _log_odds(self, offset: Two, beta: Tensor) -> Two:
        """See ``reference.smoothing.OverlappingLogistic._log_odds``; in one form where no digits are followed."""
        if offset.low is None:
            return Two(self._log_ratio(offset.high + 0.5, beta), None)
        inside = offset.high.abs() < 0.5
        from_zero, from_one = from_the_ends(offset)
        high, low = two_product(beta, torch.where(inside, 2 * offset.high, offset.high.sign()))
        low = low + beta * torch.where(inside, 2 * offset.low, torch.zeros_like(low))
        x0, x1 = beta * from_zero.abs(), beta * from_one.abs()
        total = two_sum(high, 2 * (torch.log1p(torch.exp(-x0)) - torch.log1p(torch.exp(-x1))))
        product = torch.tanh(beta * (offset.high / 2)) * torch.tanh(beta / 4)
        near = product.abs() < 0.25
        zero = torch.zeros_like(product)
        small = 4 * torch.atanh(torch.where(near, product, zero))
        assert total.low is not None
        return finite(torch.where(near, small, total.high), torch.where(near, zero, total.low + low))

    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        """See ``reference.smoothing.OverlappingLogistic.inverse_cdf_with_derivatives``."""
        beta = self._sharpness(torch.float64 if careful else torch.float32, rho.device)
        rho, logit_q = torch.broadcast_tensors(rho, logit_q)
        if beta.dim():
            rho, logit_q, beta = torch.broadcast_tensors(rho, logit_q, beta)
        root = _root(rho, logit_q, beta, careful)
        S = root.S.clamp_min(torch.finfo(torch.float64).tiny)
        outside = (rho == 0) | (rho == 1)

        def by_rho() -> Tensor:
            slope = (1 + root.w) * (1 + root.v) / (beta * S)
            return torch.where(outside | (root.S == 0), torch.full_like(S, torch.inf), slope)

        def by_logit_q() -> Tensor:
            half = torch.exp(-logit_q.abs() / 2)
            sqrt_pq = half / (1 + half * half)
            # Where p or q underflows S may be as small as they are: divide between two factors.
            of_root = torch.where(logit_q.abs() < 600, root.p * root.q / S, sqrt_pq / S * sqrt_pq)
            of_root = torch.where(outside, root.q * torch.sigmoid(beta - root.logit_q), of_root)
            return of_root * (-torch.expm1(-beta) / beta)

        def by_beta() -> Tensor:
            difference = _nu_minus_zeta(root.offset, root.logit_q, self._log_odds(root.offset, beta), beta)
            return torch.where(outside, -root.zeta, torch.where(root.mirrored, -difference, difference) / beta)

        return Solution(root.zeta, by_rho, by_logit_q, by_beta)


@dataclass(frozen=True)
class _Root:
    """See ``reference.smoothing.logistic._Root``: all but ``zeta`` speak of the mirror image with rho <= 1/2."""

    zeta: Tensor
    mirrored: Tensor
    logit_q: Tensor
    offset: Two
    w: Tensor
    v: Tensor
    S: Tensor
    p: Tensor
    q: Tensor


def _root(rho: Tensor, logit_q: Tensor, beta: Tensor, careful: bool) -> _Root:
    """See ``reference.smoothing.logistic._root``; its sixth idea is for float64."""
    mirrored = rho > 0.5
    rho, logit = torch.where(mirrored, 1 - rho, rho), torch.where(mirrored, -logit_q, logit_q)
    small = torch.exp(-logit.abs())
    larger = 1 / (1 + small)
    smaller = small * larger
    likely = logit > 0
    p, q = torch.where(likely, smaller, larger), torch.where(likely, larger, smaller)
    d, sqrt_d = torch.exp(-beta), torch.exp(-beta / 2)
    B = (rho - p) + d * (rho - q)
    if careful:
        central = (logit.abs() < 1) & (rho > 0.25)
        B = torch.where(central, ((2 * rho - 1) * (1 + d) - torch.tanh(logit / 2) * torch.expm1(-beta)) / 2, B)
    S = torch.hypot(B, 2 * sqrt_d * torch.sqrt(rho * (1 - rho)))
    y = B.abs() + S
    left = B < 0
    other = 2 * sqrt_d / y * sqrt_d
    w = torch.where(left, y / (2 * rho), (1 - rho) * other)
    v = torch.where(left, rho * other, y / (2 * (1 - rho)))
    # w overflows before its logarithm becomes inaccurate, for subnormal rho.
    from_w = -torch.log(w)
    if careful:
        from_w = torch.where(w.isinf(), torch.log(2 * rho) - torch.log(y), from_w)
    from_w = from_w / beta
    from_v = -torch.log(v) / beta
    x0 = torch.where(left | ((from_v > 0.5) & (from_v < 2)), from_w, 1 - from_v)
    x1 = torch.where(left, 1 - from_w, from_v)
    middle = (1 + torch.log(rho / (1 - rho)) / beta) / 2
    x0, x1 = torch.where(y == 0, middle, x0), torch.where(y == 0, 1 - middle, x1)
    infinity = torch.full_like(x0, torch.inf)
    x0, x1 = torch.where(rho == 0, -infinity, x0), torch.where(rho == 0, infinity, x1)
    if careful:
        half = torch.full_like(x0, 0.5)
        from_zero, from_one = two_sum(x0, -half), two_sum(half, -x1)
        assert from_zero.low is not None
        assert from_one.low is not None
        central = central & (B.abs() < S / 2)
        centred = (torch.atanh(2 * rho - 1) + torch.atanh(B / S)) / beta
        low = torch.where(x0 < x1, from_zero.low, from_one.low)
        offset = finite(
            torch.where(central, centred, torch.where(x0 < x1, from_zero.high, from_one.high)),
            torch.where(central, torch.zeros_like(low), low),
        )
    else:
        offset = Two(torch.where(x0 < x1, x0 - 0.5, 0.5 - x1), None)
    return _Root(torch.where(mirrored, x1, x0), mirrored, logit, offset, w, v, S, p, q)


def _nu_minus_zeta(offset: Two, logit_q: Tensor, log_odds: Two, beta: Tensor) -> Tensor:
    """nu - zeta; see ``reference.smoothing.logistic._nu_minus_zeta``."""
    o = offset.total
    elsewhere = nu_minus_zeta(offset, logit_q, log_odds, log_odds.total / 4 - o)
    if offset.low is None:
        return elsewhere
    x = beta * (o / 2)
    middle = (o.abs() < 0.35) & (x.abs() < 0.75) & (logit_q.abs() < 1)
    o, x, half = (torch.where(middle, part, torch.zeros_like(part)) for part in (o, x, logit_q / 2))
    P_less_o = o * _steepness_less_one(beta) + torch.tanh(beta / 4) * tanh_excess(x)
    P, u = o + P_less_o, half + tanh_excess(half)
    half_T = P / (1 + P * P)
    Tu = 2 * half_T * u
    return torch.where(middle, ((P_less_o - half_T * P * P) + (u / 2 - o * Tu)) / (1 + Tu), elsewhere)


def _steepness_less_one(beta: Tensor) -> Tensor:
    """beta tanh(beta/4)/2 - 1; see ``reference.smoothing.logistic._steepness_less_one``."""
    half = (beta / 2).clamp(max=300)
    rounded = torch.exp(-half)
    lost = add(exact(-half, True), negative(log(exact(rounded, True))))
    e = two_sum(rounded, rounded * lost.high)
    one = torch.ones_like(half)
    numerator = add(two_sum(half, -one), negative(multiply(e, two_sum(half, one))))
    return torch.where(beta < 600, numerator.total / (1 + rounded), beta / 2 - 1)
