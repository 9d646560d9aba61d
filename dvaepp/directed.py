"""Directed priors in torch: p(z_g | earlier groups), each group factorial; twin of ``reference.directed``.

KL divergences are taken in float64 and rounded once: where posterior and prior are close the formulas below subtract
numbers of the size of the logits, and float64 has the digits to spare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dvaepp.estimators import draw
from dvaepp.networks.feedforward import feedforward
from dvaepp.smoothing import MixtureSmoothing

_THRESHOLD = 40  # from which on softplus is its argument, to the last digit of a float64


class DirectedPrior(nn.Module):
    """Logits of p(z_g = 1 | latents of the groups before g): learned numbers for the first group, networks after it.

    Source   DVAE++ (arXiv:1802.04920), section 4; one group: the factorial prior of section 7.1.
    Shapes   groups cut the N latents, in order; logits (..., B, n_g), or (..., 1, n_0) for the first group
    """

    def __init__(self, groups: Sequence[slice], hidden: tuple[int, ...], batch_norm: bool = True) -> None:
        super().__init__()
        first, *later = groups
        self.first = nn.Parameter(torch.zeros(first.stop))
        self.networks = nn.ModuleList(
            feedforward(group.start, group.stop - group.start, hidden, batch_norm) for group in later
        )

    def logits(self, g: int, before: Sequence[Tensor]) -> Tensor:
        """Logits of group ``g`` given the latents of all earlier groups, in [0, 1]; the networks see 2 zeta - 1."""
        if g == 0:
            return self.first.unsqueeze(-2)
        network: nn.Module = self.networks[g - 1]
        seen: Tensor = network(2 * torch.cat(list(before), dim=-1) - 1)
        return seen

    def all_logits(self, latents: Sequence[Tensor]) -> Tensor:
        """Logits of all groups given their latents, (..., B, N)."""
        parts = [self.logits(g, latents[:g]) for g in range(len(latents))]
        parts[0] = parts[0].expand_as(latents[0])
        return torch.cat(parts, dim=-1)

    def sample(self, rho: Tensor) -> Tensor:
        """Draw z group by group from uniform noise, (..., B, N) -> (..., B, N): z = 1 where rho > 1 - p."""
        drawn: list[Tensor] = []
        first = 0
        for g in range(1 + len(self.networks)):
            logits = self.logits(g, drawn)
            noise = rho[..., first : first + logits.shape[-1]]
            drawn.append(draw(noise, logits))
            first += logits.shape[-1]
        return torch.cat(drawn, dim=-1)


def joint_kl(logit_q: Tensor, logit_p: Tensor) -> Tensor:
    """KL(Bern(q) || Bern(p)) of each unit, in nats; see ``reference.directed.joint_kl`` and ``reference.bernoulli.kl``.

    Shapes   logit_q, logit_p (..., N) that broadcast, finite -> their common shape
    """
    return _JointKL.apply(*torch.broadcast_tensors(logit_q, logit_p))


class _JointKL(torch.autograd.Function):
    """softplus(l_p) - softplus(l_q) - q (l_p - l_q), with its derivatives q (1 - q) (l_q - l_p) and p - q.

    Automatic differentiation of the value would subtract the q of its two terms from each other.
    """

    @staticmethod
    def forward(ctx: Any, logit_q: Tensor, logit_p: Tensor) -> Tensor:
        ctx.save_for_backward(logit_q, logit_p)
        q, p = logit_q.double(), logit_p.double()
        value = softplus(p, threshold=_THRESHOLD) - softplus(q, threshold=_THRESHOLD) - q.sigmoid() * (p - q)
        return value.clamp_min(0).to(logit_q.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        logit_q, logit_p = ctx.saved_tensors
        q = logit_q.sigmoid()
        return upstream * (q * torch.sigmoid(-logit_q) * (logit_q - logit_p)), upstream * (logit_p.sigmoid() - q)


def marginal_kl(smoothing: MixtureSmoothing, zeta: Tensor, logit_q: Tensor, logit_p: Tensor) -> Tensor:
    """log q(zeta) - log p(zeta) of each unit under the same mixture, in nats; see ``reference.directed.marginal_kl``.

    [softplus(l_q + R) - softplus(l_q)] - [softplus(l_p + R) - softplus(l_p)], R = log r(zeta|1) - log r(zeta|0).

    With s the sign of R each bracket is softplus(-s l - |R|) - softplus(-s l), but for max(R, 0), which drops out of
    the difference. So R may be infinite, as it is where a zeta of the power function rounds to 0 or 1.

    Shapes   zeta, logit_q, logit_p (..., N) that broadcast, finite -> their common shape
    """
    ratio = smoothing.log_ratio(zeta.double())
    sign = torch.where(ratio < 0, -torch.ones_like(ratio), torch.ones_like(ratio))

    def seen(logit: Tensor) -> Tensor:
        logit = -sign * logit
        return softplus(logit - sign * ratio, threshold=_THRESHOLD) - softplus(logit, threshold=_THRESHOLD)

    return (seen(logit_q.double()) - seen(logit_p.double())).to(logit_q.dtype)


def concrete_kl(rho: Tensor, logit_q: Tensor, logit_p: Tensor) -> Tensor:
    """log q(zeta) - log p(zeta) of each binary Concrete unit at zeta = sigma(beta (l_q + logit rho)), in nats.

    zeta is a monotone function of g = l_q + logit rho, whatever the temperature, so the ratio of densities is that of
    logistic ones around l_q and l_p at g: with x = logit rho and y = g - l_p it is

        2 softplus(-y) + y - 2 softplus(-x) - x.

    Nothing is evaluated at a zeta that rounded to 0 or 1.

    Source   Maddison, Mnih & Teh (2016), appendix C.3.2: the KL of relaxed posterior and prior of one temperature, its
             density taken before the sigmoid.
    Shapes   rho, logit_q, logit_p (..., N) that broadcast -> their common shape
    Domain   rho strictly inside (0, 1); finite logits
    """
    x = torch.logit(rho.double())
    y = x + logit_q.double() - logit_p.double()

    def minus_log_density(offset: Tensor) -> Tensor:
        return 2 * softplus(-offset, threshold=_THRESHOLD) + offset

    return (minus_log_density(y) - minus_log_density(x)).to(logit_q.dtype)
