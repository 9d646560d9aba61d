"""Discrete VAE with feed-forward networks and a Boltzmann or directed prior: the models of Tables 1 and 2.

    p(x, z) = p(z) p(x|z);   q(z|x) = prod_g q(z_g | x, zeta_<g);
    p(z) an RBM over the two halves of z, or prod_g p(z_g | zeta_<g).

In training the networks see the smoothed zeta; in evaluation (beta -> infinity) zeta = z in {0, 1}. All of it takes
leading axes: see ``dvaepp.replicas``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dvaepp.boltzmann import RBM, entropy, group_energy
from dvaepp.directed import DirectedPrior, joint_kl
from dvaepp.errors import ConfigError
from dvaepp.estimators import draw
from dvaepp.networks.feedforward import feedforward
from dvaepp.smoothing import Smoothing
from reference.boltzmann_kl import group_slices


class Posterior(NamedTuple):
    """A draw from q(zeta|x) or q(z|x): latents (..., B, N), smoothed or binary, and the logits they came from."""

    latents: Tensor
    logit_q: Tensor


class DiscreteVAE(nn.Module):
    """Encoder, decoder and prior.

    ``train_mean`` (D,), the mean training image in [0, 1], centres the encoder's input and sets the decoder's first
    guess: its output bias starts at the logit of the mean, clipped to [0.001, 0.999] as in Tucker et al. (2017).

    Shapes   images (..., B, D) in {0, 1}; latents (..., B, N), the first N/2 of them side 1 of an RBM.
    Raises   ConfigError for an odd number of latents with an RBM, or groups that do not divide it.
    """

    train_mean: Tensor

    def __init__(
        self,
        n_pixels: int,
        n_latents: int,
        n_groups: int,
        hidden: tuple[int, ...],
        batch_norm: bool = True,
        directed: bool = False,
    ) -> None:
        super().__init__()
        if n_latents % 2 and not directed:
            raise ConfigError(f"latents must be even, one half for each side of the RBM; got {n_latents}")
        if n_latents % n_groups:
            raise ConfigError(f"groups must divide latents; {n_latents} latents do not make {n_groups} equal groups")
        self.n_latents, self.n_groups = n_latents, n_groups
        self.groups = group_slices(n_latents, n_groups)
        self.register_buffer("train_mean", torch.full((n_pixels,), 0.5))
        self.encoders = nn.ModuleList(
            feedforward(n_pixels + group.start, group.stop - group.start, hidden, batch_norm) for group in self.groups
        )
        self.decoder = feedforward(n_latents, n_pixels, hidden, batch_norm)
        self.prior: RBM | DirectedPrior = (
            DirectedPrior(self.groups, hidden, batch_norm) if directed else RBM(n_latents // 2, n_latents // 2)
        )

    @property
    def rbm(self) -> RBM:
        """The prior of a model that has an RBM."""
        assert isinstance(self.prior, RBM), "this model's prior is directed"
        return self.prior

    @torch.no_grad()
    def initialise(self, train_mean: Tensor) -> None:
        """Fit the data-dependent constants to the mean training image (D,)."""
        self.train_mean.copy_(train_mean)
        output = self.decoder[-1]
        assert isinstance(output, nn.Linear)
        output.bias.copy_(torch.logit(train_mean.clamp(0.001, 0.999)))

    def smoothed_posterior(self, x: Tensor, rho: Tensor, smoothing: Smoothing) -> Posterior:
        """Reparameterised draw of zeta ~ q(zeta|x), group by group, from uniform noise rho (..., B, N)."""
        return self._draw(x, lambda logit, group: smoothing.inverse_cdf(rho[..., group], logit))

    def binary_posterior(self, x: Tensor, rho: Tensor) -> Posterior:
        """Draw of z ~ q(z|x) in the binary limit, from the same noise: z = 1 where rho > 1 - q.

        Shapes   x (..., B, D), rho (..., B K, N) -> (..., B K, N): K draws for each image, next to each other.
        """
        return self._draw(
            x,
            lambda logit, group: draw(rho[..., group], logit),
            rho.shape[-2] // x.shape[-2],
        )

    def encode(self, g: int, x: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Logits of q(z_g = 1 | x, latents of all earlier groups), (..., B, n_g); the network sees 2 zeta - 1."""
        centred = x - self.train_mean.unsqueeze(-2)
        network: nn.Module = self.encoders[g]
        seen = torch.cat([centred, *(2 * latents - 1 for latents in before)], dim=-1) if before else centred
        logits: Tensor = network(seen)
        return logits

    def decode(self, latents: Tensor) -> Tensor:
        """Logits of the pixels (..., B, D) given latents (..., B, N); the network sees 2 zeta - 1."""
        logits: Tensor = self.decoder(2 * latents - 1)
        return logits

    def kl(self, g: int, logit_q: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Group ``g``'s part of KL(q(z|x) || p(z)) for a draw of the earlier groups, (..., B, n_g) -> (..., B) nats.

        In closed form: nothing in it depends on the group's own draw. The sum over groups is an unbiased estimate of
        the KL, less log Z of an RBM.

        Source   DVAE++ (arXiv:1802.04920), eqs. (4) and (6) in the binary limit.
        """
        if isinstance(self.prior, DirectedPrior):
            return joint_kl(logit_q, self.prior.logits(g, before)).sum(-1)
        earlier = torch.cat(list(before), dim=-1) if before else logit_q[..., :0]
        return group_energy(self.prior, self.groups[g], logit_q.sigmoid(), earlier) - entropy(logit_q).sum(-1)

    def energy(self, z: Tensor) -> Tensor:
        """Minus log p(z), of an RBM without log Z: (..., B, N) -> (..., B) nats."""
        if isinstance(self.prior, DirectedPrior):
            return -bernoulli_log_prob(z, self.prior.all_logits([z[..., group] for group in self.groups]))
        n1 = self.prior.n1
        return self.prior.energy(z[..., :n1], z[..., n1:])

    def _draw(self, x: Tensor, latent: Callable[[Tensor, slice], Tensor], n_draws: int = 1) -> Posterior:
        latents: list[Tensor] = []
        logits: list[Tensor] = []
        repeated = x
        for g, group in enumerate(self.groups):
            if g == 1 and n_draws > 1:
                repeated = x.repeat_interleave(n_draws, dim=-2)
            logit = self.encode(g, repeated, latents)
            if g == 0 and n_draws > 1:  # sees the image alone: once is enough for all its draws
                logit = logit.repeat_interleave(n_draws, dim=-2)
            logits.append(logit)
            latents.append(latent(logit, group))
        return Posterior(torch.cat(latents, dim=-1), torch.cat(logits, dim=-1))


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) in nats under independent Bernoullis, summed over the last axis; x in {0, 1}.

    One softplus: log sigma(l) = -softplus(-l) and log sigma(-l) = -softplus(l). See ``reference.bernoulli.log_prob``.
    """
    return -softplus((1 - 2 * x) * logits, threshold=40).sum(-1)
