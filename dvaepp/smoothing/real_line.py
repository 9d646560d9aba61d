"""What the kinds on the real line share; the twin of ``reference.smoothing.real_line``, same names."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from dvaepp.smoothing.compensated import Two, finite, negative, sigmoid, two_product, two_sum
from dvaepp.smoothing.family import MixtureSmoothing


class LocationMixture(MixtureSmoothing):
    """A mixture of two copies of one symmetric density on the real line, with means 0 and 1."""

    unit_interval: ClassVar[bool] = False

    def _careful_log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        return self._log_odds(offset_of(zeta), beta).total

    def _careful_nu(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        return sigmoid(plus_logit(self._log_odds(offset_of(zeta), beta), logit_q))

    @abstractmethod
    def _log_odds(self, offset: Two, beta: Tensor) -> Two:
        """log r(zeta|1)/r(zeta|0), odd in the offset zeta - 1/2."""


def offset_of(zeta: Tensor) -> Two:
    """zeta - 1/2, unrounded; zeta may be infinite."""
    return finite(*two_sum(zeta, torch.full_like(zeta, -0.5)))


def from_the_ends(offset: Two) -> tuple[Tensor, Tensor]:
    """zeta and 1 - zeta, each rounded once."""
    if offset.low is None:
        return offset.high + 0.5, 0.5 - offset.high
    half = torch.full_like(offset.high, 0.5)
    zeta, rest = two_sum(offset.high, half), two_sum(half, -offset.high)
    assert zeta.low is not None
    assert rest.low is not None
    zeta, rest = finite(zeta.high, zeta.low + offset.low), finite(rest.high, rest.low - offset.low)
    return zeta.total, rest.total


def plus_logit(log_odds: Two, logit_q: Tensor) -> Two:
    """The posterior's log odds. A certain prior stays certain, whatever zeta says."""
    certain = logit_q.isinf()
    if log_odds.low is None:
        return Two(torch.where(certain, logit_q, logit_q + log_odds.high), None)
    total = two_sum(logit_q, log_odds.high)
    assert total.low is not None
    return finite(torch.where(certain, logit_q, total.high), total.low + log_odds.low)


def nu_minus_zeta(offset: Two, logit_q: Tensor, log_odds: Two, excess: Tensor) -> Tensor:
    """nu - zeta without a cancellation; see ``reference.smoothing.real_line.nu_minus_zeta``."""
    odds = plus_logit(log_odds, logit_q)
    zeta, one_minus_zeta = from_the_ends(offset)
    near_zero = sigmoid(odds) - zeta
    near_one = one_minus_zeta - sigmoid(negative(odds))
    centre = torch.tanh(odds.high / 2) / 2 - offset.total
    if offset.low is not None:
        x = (odds.high / 2).clamp(-0.5, 0.5)
        of_first_order = logit_q.nan_to_num(0.0, 0.0, 0.0) / 4 + excess
        centre = torch.where(odds.high.abs() < 1, of_first_order + tanh_excess(x) / 2, centre)
    apart = torch.where(offset.high < 0, near_zero, near_one)
    return torch.where(offset.high.abs() < 0.35, centre, apart)


def tanh_excess(x: Tensor) -> Tensor:
    """tanh x - x for |x| <= 1; see ``reference.smoothing.real_line.tanh_excess``."""
    square = x * x
    series = torch.ones_like(x)
    for k in range(10, 0, -1):
        series = 1 + square / (2 * k * (2 * k + 3)) * series
    return -x * (square / 3 * series) / torch.cosh(x)


def scaled_distance(zeta: Two, z: float, scale: Two) -> Two:
    """scale (zeta - z): the argument of g, which decides over its tails' digits."""
    if zeta.low is None or scale.low is None:
        return Two(scale.high * (zeta.high - z), None)
    distance = two_sum(zeta.high, torch.full_like(zeta.high, -z))
    assert distance.low is not None
    high, low = two_product(scale.high, distance.high)
    return finite(high, low + (scale.high * (distance.low + zeta.low) + scale.low * distance.high))
