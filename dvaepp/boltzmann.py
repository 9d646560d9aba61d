"""Restricted Boltzmann machine as a torch module; twin of ``reference.boltzmann`` and ``reference.boltzmann_kl``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from reference.boltzmann_kl import group_slices


def log_softplus_sum(logits: Tensor) -> Tensor:
    """Sum over the last axis of log(1 + e^x); the threshold keeps e^x finite and the result exact."""
    return softplus(logits, threshold=40).sum(-1)


class RBM(nn.Module):
    """p(z1, z2) = e^{-E}/Z with E = -a1'z1 - a2'z2 - z1'W z2, trainable; see ``reference.boltzmann``.

    Shapes   a1 (N1,), a2 (N2,), W (N1, N2), all zero at first: the uniform distribution, log Z = (N1 + N2) log 2. With
             leading axes (see ``dvaepp.replicas``) each index is a machine of its own, and states have the same axes.
    """

    def __init__(self, n1: int, n2: int) -> None:
        super().__init__()
        self.a1 = nn.Parameter(torch.zeros(n1))
        self.a2 = nn.Parameter(torch.zeros(n2))
        self.W = nn.Parameter(torch.zeros(n1, n2))

    @classmethod
    def of(cls, a1: Tensor, a2: Tensor, W: Tensor) -> RBM:
        """A machine on the memory of these parameters."""
        rbm = cls(0, 0)
        rbm.a1, rbm.a2, rbm.W = (nn.Parameter(tensor.detach()) for tensor in (a1, a2, W))
        return rbm

    @property
    def n1(self) -> int:
        """Units of the first side."""
        return self.W.shape[-2]

    @property
    def n2(self) -> int:
        """Units of the second side."""
        return self.W.shape[-1]

    @property
    def detached(self) -> tuple[Tensor, Tensor, Tensor]:
        """(a1, a2, W), the same memory without gradient: what a sampler needs."""
        return self.a1.detach(), self.a2.detach(), self.W.detach()

    def energy(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Energy in nats, (..., B, N1), (..., B, N2) -> (..., B); see ``reference.boltzmann.energy``."""
        return -dot_rows(z1, self.a1) - dot_rows(z2, self.a2) - ((z1 @ self.W) * z2).sum(-1)

    def logits_z2(self, z1: Tensor) -> Tensor:
        """Logits of the second side given the first; see ``reference.boltzmann.logits_z2``."""
        return _affine(self.a2, z1, self.W)

    def logits_z1(self, z2: Tensor) -> Tensor:
        """Logits of the first side given the second; see ``reference.boltzmann.logits_z1``."""
        return _affine(self.a1, z2, self.W.mT)

    def log_marginal_z1(self, z1: Tensor) -> Tensor:
        """Unnormalised log p(z1) in nats, (..., B, N1) -> (..., B); see ``reference.boltzmann.log_marginal_z1``."""
        return dot_rows(z1, self.a1) + log_softplus_sum(self.logits_z2(z1))


def dot_rows(rows: Tensor, vector: Tensor) -> Tensor:
    """(..., B, N) and (..., N) -> (..., B)."""
    return rows @ vector if vector.ndim == 1 else (rows @ vector.unsqueeze(-1)).squeeze(-1)


def _affine(bias: Tensor, rows: Tensor, matrix: Tensor) -> Tensor:
    """bias + rows matrix; one call of a matrix product where there are no leading axes."""
    if matrix.ndim == 2 and rows.ndim == 2:
        return torch.addmm(bias, rows, matrix)
    return bias.unsqueeze(-2) + rows @ matrix


def cross_entropy(rbm: RBM, mu: Tensor, nu: Tensor, n_groups: int) -> Tensor:
    """E[E(z)] under a hierarchical posterior for one draw of zeta, (..., B, N1 + N2) -> (..., B) nats.

    See ``reference.boltzmann_kl.cross_entropy``. Couplings between groups use nu of the earlier unit, couplings inside
    a group (only one group, or the middle one of an odd number, has any) use mu.
    """
    n1 = rbm.n1
    mu1, mu2, nu1 = mu[..., :n1], mu[..., n1:], nu[..., :n1]
    coupling = (((mu1 if n_groups == 1 else nu1) @ rbm.W) * mu2).sum(-1)
    if n_groups > 1:
        for group in group_slices(n1 + rbm.n2, n_groups):
            if group.start < n1 < group.stop:  # nu was used inside this group too: put mu in its place
                first, second = slice(group.start, n1), slice(0, group.stop - n1)
                excess = mu1[..., first] - nu1[..., first]
                coupling = coupling + ((excess @ rbm.W[..., first, second]) * mu2[..., second]).sum(-1)
    return -dot_rows(mu1, rbm.a1) - dot_rows(mu2, rbm.a2) - coupling


def group_energy(rbm: RBM, group: slice, mu: Tensor, before: Tensor) -> Tensor:
    """One group's part of E[E(z)] for a draw of the earlier groups, (..., B, n_g) -> (..., B) nats.

    Its biases, and its couplings with earlier units and within the group: the sum over all groups is ``cross_entropy``
    with nu = ``before``. Nothing in it depends on the group's own draw, for of that it knows the mean.

    Shapes   mu (..., B, n_g) the group's own means; before (..., B, group.start) the earlier units, in [0, 1]
    """
    n1 = rbm.n1
    if group.stop <= n1:
        return -dot_rows(mu, rbm.a1[..., group])
    inside = max(0, n1 - group.start)  # units of the group on the first side: only a middle group has both kinds
    mu1, mu2 = mu[..., :inside], mu[..., inside:]
    second = slice(max(0, group.start - n1), group.stop - n1)
    partners = torch.cat([before[..., : n1 - inside], mu1], dim=-1)  # of the group's units on the second side
    logits2 = _affine(rbm.a2[..., second], partners, rbm.W[..., second])
    own = dot_rows(mu1, rbm.a1[..., group.start : n1]) if inside else 0.0
    return -own - (mu2 * logits2).sum(-1)


def entropy(logit_q: Tensor) -> Tensor:
    """Entropy in nats of each unit; see ``reference.bernoulli.entropy``."""
    return _Entropy.apply(logit_q)


class _Entropy(torch.autograd.Function):
    """H = log(1 + e^-a) + a sigma(-a), a = |l|, and dH/dl = -l sigma(a) sigma(-a).

    Automatic differentiation of any form of H subtracts numbers that nearly cancel. e^{-a/2} enters twice, so that its
    square times a keeps its digits where e^-a itself has few left. A certain unit has neither entropy nor slope: the
    largest finite number in the place of an infinite logit keeps inf * 0 out of both.
    """

    @staticmethod
    def forward(ctx: Any, logit_q: Tensor) -> Tensor:
        ctx.save_for_backward(logit_q)
        size = logit_q.abs().clamp(max=torch.finfo(logit_q.dtype).max)
        root = (-size / 2).exp()
        odds = root * root
        return odds.log1p() + (size * root) * (root / (1 + odds))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (logit_q,) = ctx.saved_tensors
        largest = torch.finfo(logit_q.dtype).max
        logit_q = logit_q.clamp(-largest, largest)
        root = (-logit_q.abs() / 2).exp()
        return -upstream * ((logit_q * root) * (root / (1 + root * root) ** 2))
