"""Spike-and-exponential, of the first discrete VAE; the twin of ``reference.smoothing.spike_exponential``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dvaepp.smoothing import exponential
from dvaepp.smoothing.exponential import linear_excess, quadratic_excess
from dvaepp.smoothing.family import MixtureSmoothing, Solution

_SCALE = 2.0**128  # times this, exactly, every subnormal number is an ordinary one with all its digits


@dataclass(frozen=True, eq=False)
class SpikeExponential(MixtureSmoothing):
    """A point mass at 0 for z = 0, an exponential that rises to 1 for z = 1; see ``reference``'s of the name.

    nu = [zeta > 0] is a step: no gradient flows through it, nor through the log-ratio.
    """

    kind: ClassVar[str] = "spike-exponential"

    def _log_prob(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        """log p on the spike, log q + log r(zeta|1) beyond it."""
        beyond = logsigmoid(logit_q) + exponential.log_r(zeta, 1, beta)
        return torch.where(zeta == 0, logsigmoid(-logit_q), beyond)

    def _log_r(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        on_spike, infinity = zeta == 0, torch.full_like(zeta, torch.inf)
        if z == 0:
            return torch.where(on_spike, torch.zeros_like(zeta), -infinity)
        return torch.where(on_spike, -infinity, exponential.log_r(zeta, 1, beta))

    def _r_cdf(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor:
        return exponential.r_cdf(zeta, 1, beta) if z else torch.ones_like(zeta)

    def _log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        infinity = torch.full_like(zeta * beta, torch.inf)
        return torch.where(zeta.isnan(), zeta, torch.where(zeta > 0, infinity, -infinity)).detach()

    def _careful_log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        return self._log_ratio(zeta, beta)

    def _careful_nu(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        return torch.sigmoid(self._log_ratio(zeta, beta) + logit_q)

    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        """See ``reference.smoothing.SpikeExponential.inverse_cdf_with_derivatives``."""
        beta = self._sharpness(torch.float64 if careful else torch.float32, rho.device)
        draw = _draw(rho, logit_q, beta)
        zero = torch.zeros_like(draw.x0)
        one_minus_d = -torch.expm1(-beta)
        slope = one_minus_d / (beta * draw.decay)  # 1 / r(zeta|1)

        def by_logit_q() -> Tensor:
            found = (draw.p_factors[0] * slope) * (draw.rest * draw.p_factors[1])
            still = (draw.rest == 0) | (draw.p_factors[0] == 0)  # also where the slope is infinite
            return torch.where(draw.beyond & ~still, found, zero)

        def by_beta() -> Tensor:
            a, t = beta * draw.x0, beta * draw.x1
            decay_a, decay_t = torch.exp(-a), torch.exp(-t)
            sum_ = quadratic_excess(a, decay_a) + decay_a * linear_excess(t, decay_t)
            return draw.x0 * (draw.x1 * (sum_ / one_minus_d))

        return Solution(draw.x0, lambda: torch.where(draw.beyond, slope / draw.q, zero), by_logit_q, by_beta)


@dataclass(frozen=True)
class _Draw:
    """See ``reference.smoothing.spike_exponential._Draw``."""

    beyond: Tensor
    x0: Tensor
    x1: Tensor
    rest: Tensor
    decay: Tensor
    q: Tensor
    p_factors: tuple[Tensor, Tensor]


def _draw(rho: Tensor, logit_q: Tensor, beta: Tensor) -> _Draw:
    """See ``reference.smoothing.spike_exponential._draw``."""
    size = logit_q.abs()
    half = torch.exp(-size / 2)
    larger = 1 / (1 + half * half)
    smaller, smaller_scaled = half * half * larger, half * _SCALE * half * larger
    likely = logit_q > 0
    q = torch.where(likely, larger, smaller)
    scaled = torch.where(likely, rho * _SCALE - smaller_scaled, smaller_scaled - (1 - rho) * _SCALE)
    central = ((rho - 0.5) + torch.tanh(logit_q / 2) / 2) * _SCALE
    excess = torch.where(size < 1, central, scaled)  # 2**128 (rho - p)
    top = rho == 1
    beyond = ((excess > 0) | top) & (logit_q > -torch.inf)
    unknown = excess.isnan()

    s_scaled = torch.where(top, torch.full_like(excess, _SCALE), excess / q)
    rest = torch.where(top, torch.zeros_like(excess), (1 - rho) / q)
    n1, decay = rest * -torch.expm1(-beta), s_scaled / _SCALE + rest * torch.exp(-beta)
    from_right = torch.where(n1 < 0.5, -torch.log1p(-n1), -torch.log(decay)) / beta
    straight = s_scaled * torch.exp(beta / 2) * (2 * torch.sinh(beta / 2) / beta / _SCALE)  # zeta, were it small
    growth = beta * straight  # s (e^beta - 1)
    from_left = torch.where(growth < torch.finfo(torch.float64).tiny, straight, torch.log1p(growth) / beta)
    right = (from_right < 0.5) | growth.isinf()
    distance = from_right.clamp(max=1)
    x0 = torch.where(beyond | unknown, torch.where(right, 1 - distance, from_left), torch.zeros_like(from_left))
    x1 = torch.where(right & beyond, distance, 1 - x0)
    p_first, p_second = (
        torch.where(likely, half, torch.ones_like(half)),
        torch.where(likely, half, torch.ones_like(half)),
    )
    return _Draw(beyond, x0, x1, rest, decay, q, (p_first * larger, p_second))
