"""The power function; the twin of ``reference.smoothing.power``, same names and order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dvaepp.smoothing.compensated import (
    Two,
    add,
    constant,
    divide,
    exact,
    exp,
    exp_times,
    expm1,
    is_end,
    log,
    logs_inside,
    multiply,
    negative,
    sigmoid,
    two_sum,
    where,
)
from dvaepp.smoothing.family import MixtureSmoothing, Solution
from dvaepp.smoothing.inversion import solve

_CERTAIN = 1e9  # a logit beyond which the other value of z has no digit left in any result
_TINY_DISTANCE = 1e-20  # below it 1 - (1 - x)^c is c x to every digit
_LOG_SMALLEST_X = -600.0  # below it x may be subnormal, or 0
_HIGHEST = math.log(0.55)  # of log x: the nearer end is nearer than 1/2, up to the rounding that chose it

# See ``reference.smoothing.power``: the Taylor coefficients of log(log(1 + e^s)/log(1 + e^{-s})) from s^3 on.
_CENTRAL = 0.3
_LOG_RATIO_OF_LOGS = (
    -0.0099393970292921878,
    0.00050456865340995432,
    -3.2082085206635754e-5,
    2.2874912279455280e-6,
    -1.7499054982170235e-7,
    1.4036495551869405e-8,
    -1.1648102229637050e-9,
    9.9155121599359261e-11,
)


@dataclass(frozen=True, eq=False)
class PowerFunction(MixtureSmoothing):
    """Two power functions, each other's mirror image; see ``reference.smoothing.PowerFunction``."""

    kind: ClassVar[str] = "power"

    def _log_r(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        distance = 1 - zeta if z else zeta
        outside = distance == 0
        log_distance = torch.log1p(-zeta) if z else torch.log(zeta)
        log_distance = torch.where(outside, torch.zeros_like(log_distance), log_distance)
        return torch.where(outside, _at_distance_zero(beta), (1 / beta - 1) * log_distance - torch.log(beta))

    def _r_cdf(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        end = is_end(zeta)
        inside = torch.where(end, torch.full_like(zeta, 0.5), zeta)
        result = -torch.expm1(torch.log1p(-inside) / beta) if z else torch.exp(torch.log(inside) / beta)
        return torch.where(end, zeta, result)

    def _log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        inside = torch.where(is_end(zeta), torch.full_like(zeta, 0.5), zeta)
        ratio = (1 - beta) / beta * (torch.log1p(-inside) - torch.log(inside))
        return _with_ends(zeta, beta, ratio)

    def _careful_log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        return _with_ends(zeta, beta, _log_ratio(zeta, beta).total)

    def _careful_nu(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        inside = sigmoid(add(exact(logit_q, True), _log_ratio(zeta, beta)))
        decided = is_end(zeta) & (beta != 1)
        return torch.where(decided, ((zeta == 1) == (beta > 1)).to(inside.dtype), inside)

    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        """See ``reference.smoothing.PowerFunction.inverse_cdf_with_derivatives``."""
        beta = self._sharpness(torch.float64 if careful else torch.float32, rho.device)
        rho, logit_q, beta = torch.broadcast_tensors(rho, logit_q, beta)
        end, zero = is_end(rho), torch.zeros_like(rho)
        inner = torch.where(end, torch.full_like(rho, 0.5), rho)
        root = _root(inner, logit_q.clamp(-_CERTAIN, _CERTAIN), beta, careful)
        a, minus_1 = _exponent(beta, careful), _exponent_minus_1(beta, careful)

        # f = a e^M (share0 + share1) / (1 + e^{-|l|}), M the larger of the two exponents
        exponent0 = add(multiply(minus_1, root.log_x), exact(root.log_weight, careful))
        exponent1 = add(multiply(minus_1, root.log_rest), exact(root.log_far_weight, careful))
        zero_larger = exponent0.high >= exponent1.high
        M = where(zero_larger, exponent0, exponent1)
        smaller = exp(add(where(zero_larger, exponent1, exponent0), negative(M)))
        height, both_weights = a.high * (1 + smaller), 1 + torch.exp(-root.size)

        def by_rho() -> Tensor:
            # rho = 0 or 1: the density there is infinite for beta > 1, for beta < 1 that of the other z alone
            other = torch.where(rho == 0, logit_q, -logit_q)
            of_other = beta * (1 + torch.exp(-other))
            at_end = torch.where((beta > 1) & (other != torch.inf), zero, of_other)
            at_end = torch.where(beta == 1, torch.ones_like(at_end), at_end)
            return torch.where(end, at_end, exp_times(negative(M), both_weights / height))

        def by_logit_q() -> Tensor:
            exponent, difference = _difference_of_cdfs(root, a, minus_1)
            exponent = add(add(exponent, negative(M)), exact(-root.size, careful))
            return torch.where(end, zero, exp_times(exponent, difference / (both_weights * height)))

        def by_beta() -> Tensor:
            share0 = torch.where(zero_larger, torch.ones_like(smaller), smaller)
            share1 = torch.where(zero_larger, smaller, torch.ones_like(smaller))
            distant = root.x.clamp(min=_TINY_DISTANCE)
            of_far = root.rest * root.log_rest.high.abs() / distant
            of_far = torch.where(root.x < _TINY_DISTANCE, torch.ones_like(of_far), of_far)
            both_terms = (root.log_x.high.abs() * share0 + of_far * share1) / (1 + smaller)
            towards_end = a.high * both_terms * torch.tanh(_log_of_terms(root, a) / 2)
            found = exp_times(root.log_x, torch.where(root.mirrored, towards_end, -towards_end))
            return torch.where(end, zero, found)

        return Solution(torch.where(end, rho, root.zeta), by_rho, by_logit_q, by_beta)


# ---- the root of the CDF ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Root:
    """See ``reference.smoothing.power._Root``: a sample as seen from the nearer end."""

    zeta: Tensor
    mirrored: Tensor
    x: Tensor
    rest: Tensor
    log_x: Two
    log_rest: Two
    log_weight: Tensor
    log_far_weight: Tensor
    size: Tensor


def _root(rho: Tensor, logit_q: Tensor, beta: Tensor, careful: bool) -> _Root:
    """See ``reference.smoothing.power._solve``."""
    a, minus_1 = _exponent(beta, careful), _exponent_minus_1(beta, careful)
    size = logit_q.abs()
    both_weights = 1 + torch.exp(-size)
    lower = rho < 0.5
    tail = torch.where(lower, rho, 1 - rho)

    # Which end is nearer: the tail at 1/2 against the tail wanted.
    own = torch.where(lower, logit_q, -logit_q)
    own_weight, other_weight = (sigmoid(exact(x, False)) for x in (-own, own))
    at_half = own_weight * torch.exp2(-a.high) + other_weight * -torch.expm1(-math.log(2) * a.high)
    mirrored = torch.where(lower, tail > at_half, tail <= at_half)
    from_near_end = lower != mirrored  # whether the tail is counted from that end
    logit = torch.where(mirrored, -logit_q, logit_q)
    log_weight, log_far_weight = -logit.clamp(min=0), -(-logit).clamp(min=0)
    log_tail = log(exact(tail, careful))
    weight = add(exact(log_weight, careful), negative(log_tail))
    far_weight = add(exact(log_far_weight, careful), negative(log_tail))

    def logs(y: Tensor) -> tuple[Tensor, Two, Two]:
        x = torch.exp(y)
        if not careful:
            return x, Two(y, None), Two(torch.log1p(-x), None)
        ordinary = y > _LOG_SMALLEST_X
        log_x, log_rest = logs_inside(torch.where(ordinary, x, torch.full_like(x, 0.5)), True)
        return x, where(ordinary, log_x, exact(y, True)), where(ordinary, log_rest, exact(-x, True))

    def residual(y: Tensor) -> tuple[Tensor, Tensor]:
        """log(tail at y / tail wanted), and its slope by y; both with the sign that makes it increasing."""
        x, log_x, log_rest = logs(y)
        log_power, log_rest_power = multiply(a, log_x), multiply(a, log_rest)
        near = exp(add(log_power, weight))
        of_far = exp(add(log_x, far_weight)) * _far_excess(log_rest_power, a.high, x)
        far = exp(weight) * -expm1(log_power) + exp(add(log_rest_power, far_weight))
        ratio = torch.where(from_near_end, near + of_far, far)
        slope = near + exp(add(log_x, add(multiply(minus_1, log_rest), far_weight)))
        value = torch.log(ratio / both_weights)
        return torch.where(from_near_end, value, -value), a.high * slope / ratio

    # F lies between the CDFs given z = 0 and 1, so x between their quantiles r^beta and 1 - (1 - r)^beta, r = F(x).
    log_r = torch.where(from_near_end, log_tail.high, torch.log1p(-tail))
    log_beta = torch.log(beta)
    lowest = torch.minimum(beta * log_r, log_r + log_beta.clamp(max=0)) - 1
    start = torch.minimum(beta * (log_r - log_weight), log_r - log_far_weight + log_beta)
    y = solve(residual, lowest, torch.full_like(lowest, _HIGHEST), start, careful)
    value, slope = residual(y)
    step = (-value / slope).nan_to_num(0.0).clamp(-1e-10, 1e-10)  # larger only on a plateau, where it says nothing
    x, log_x, log_rest = logs(y)
    if careful:
        rest = two_sum(torch.ones_like(x), -x)
        assert rest.low is not None
        rest_high = rest.high + (rest.low - x * step)
    else:
        rest_high = 1 - (x + x * step)
    x = x + x * step
    x = torch.where(value.isnan(), value, x)
    return _Root(
        zeta=torch.where(mirrored, rest_high, x),
        mirrored=mirrored,
        x=x,
        rest=rest_high,
        log_x=add(log_x, exact(step, careful)),
        log_rest=add(log_rest, exact(-x * step / rest_high, careful)),
        log_weight=log_weight,
        log_far_weight=log_far_weight,
        size=size,
    )


def _far_excess(exponent: Two, size: Tensor, x: Tensor) -> Tensor:
    """|(1 - x)^c - 1|/x, given c log(1 - x) and |c|, which is its limit for x = 0."""
    return torch.where(x < _TINY_DISTANCE, size, expm1(exponent).abs() / x)


def _difference_of_cdfs(root: _Root, a: Two, minus_1: Two) -> tuple[Two, Tensor]:
    """See ``reference.smoothing.power._difference_of_cdfs``."""
    steep = minus_1.high > 0  # then x^a is the smaller
    log_larger = where(steep, root.log_x, multiply(a, root.log_x))
    log_quotient = multiply(minus_1, root.log_x)
    log_quotient = where(steep, log_quotient, negative(log_quotient))  # of the smaller by the larger
    far = root.rest * _far_excess(multiply(minus_1, root.log_rest), minus_1.high.abs(), root.x)
    far = torch.where(steep, far, far * exp(log_quotient))  # divided by x, and now by the larger
    sign = torch.where(steep, -1.0, 1.0) * (minus_1.high != 0)
    return log_larger, sign * (-expm1(log_quotient) + far)


def _log_of_terms(root: _Root, a: Two) -> Tensor:
    """See ``reference.smoothing.power._log_of_terms``."""
    careful = a.low is not None
    size_x, size_rest = negative(root.log_x), negative(root.log_rest)
    s = add(size_x, root.log_rest)
    logit = root.log_far_weight - root.log_weight
    tiny = root.x < _TINY_DISTANCE  # where |log(1 - x)| is x
    log_size_rest = where(tiny, root.log_x, log(where(tiny, constant(1.0, size_rest), size_rest)))
    general = add(add(negative(multiply(a, s)), exact(-logit, careful)), add(log(size_x), negative(log_size_rest)))

    central = s.high.clamp(max=_CENTRAL)
    square = central * central
    bend = torch.zeros_like(central)
    for coefficient in reversed(_LOG_RATIO_OF_LOGS):
        bend = coefficient + square * bend
    slope = add(divide(constant(1.0, a), log(constant(2.0, a))), negative(a))
    return torch.where(s.high < _CENTRAL, central * slope.high - logit + central * square * bend, general.high)


# ---- exponents and logarithms ----------------------------------------------------------------------------------------


def _exponent(beta: Tensor, careful: bool) -> Two:
    """a = 1/beta, whose own rounding x^a would show."""
    return divide(exact(torch.ones_like(beta), careful), exact(beta, careful))


def _exponent_minus_1(beta: Tensor, careful: bool) -> Two:
    """a - 1 = (1 - beta)/beta, also where it is nearly 0."""
    one = torch.ones_like(beta)
    return divide(add(exact(one, careful), exact(-beta, careful)), exact(beta, careful))


def _log_ratio(zeta: Tensor, beta: Tensor) -> Two:
    """(a - 1) (log(1 - zeta) - log zeta) inside (0, 1)."""
    log_x, log_rest = logs_inside(zeta, True)
    return multiply(_exponent_minus_1(beta, True), add(log_rest, negative(log_x)))


def _with_ends(zeta: Tensor, beta: Tensor, inside: Tensor) -> Tensor:
    """The log-ratio with its values at 0 and 1."""
    at_zero = -_at_distance_zero(beta)
    return torch.where(zeta == 0, at_zero, torch.where(zeta == 1, -at_zero, inside))


def _at_distance_zero(beta: Tensor) -> Tensor:
    """log r(zeta|z) at zeta = z."""
    infinity, beta = torch.full_like(beta, torch.inf), beta.detach()
    return torch.where(beta > 1, infinity, torch.where(beta < 1, -infinity, torch.zeros_like(beta)))
