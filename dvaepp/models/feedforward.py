"""Discrete VAE with a Boltzmann prior and feed-forward networks: the models of Table 2.

    p(x, z) = p(z) p(x|z),  p(z) an RBM over the two halves of z;   q(z|x) = prod_g q(z_g | x, zeta_<g).

In training the networks see the smoothed zeta in [0, 1]; in evaluation (beta -> infinity) zeta = z in {0, 1}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dvaepp.boltzmann import RBM
from dvaepp.errors import ConfigError
from dvaepp.networks.feedforward import feedforward
from dvaepp.smoothing import OverlappingExponential
from reference.boltzmann_kl import group_slices


class Posterior(NamedTuple):
    """A draw from q(zeta|x) or q(z|x): latents (B, N), smoothed or binary, and the logits (B, N) they came from."""

    latents: Tensor
    logit_q: Tensor


class DiscreteVAE(nn.Module):
    """Encoder, decoder and prior.

    ``train_mean`` (D,), the mean training image in [0, 1], centres the encoder's input and sets the decoder's first
    guess: its output bias starts at the logit of the mean, clipped to [0.001, 0.999] as in Tucker et al. (2017).

    Shapes   images (B, D) in {0, 1}; latents (B, N), the first N/2 of them the prior's side 1.
    Raises   ConfigError for an odd number of latents or groups that do not divide it.
    """

    train_mean: Tensor

    def __init__(self, n_pixels: int, n_latents: int, n_groups: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        if n_latents % 2:
            raise ConfigError(f"latents must be even, one half for each side of the RBM; got {n_latents}")
        if n_latents % n_groups:
            raise ConfigError(f"groups must divide latents; {n_latents} latents do not make {n_groups} equal groups")
        self.n_latents, self.n_groups = n_latents, n_groups
        self.groups = group_slices(n_latents, n_groups)
        self.register_buffer("train_mean", torch.full((n_pixels,), 0.5))
        self.encoders = nn.ModuleList(
            feedforward(n_pixels + group.start, group.stop - group.start, hidden) for group in self.groups
        )
        self.decoder = feedforward(n_latents, n_pixels, hidden)
        self.prior = RBM(n_latents // 2, n_latents // 2)

    @torch.no_grad()
    def initialise(self, train_mean: Tensor) -> None:
        """Fit the data-dependent constants to the mean training image (D,)."""
        self.train_mean.copy_(train_mean)
        output = self.decoder[-1]
        assert isinstance(output, nn.Linear)
        output.bias.copy_(torch.logit(train_mean.clamp(0.001, 0.999)))

    def smoothed_posterior(self, x: Tensor, rho: Tensor, smoothing: OverlappingExponential) -> Posterior:
        """Reparameterised draw of zeta ~ q(zeta|x), group by group, from uniform noise rho (B, N)."""
        return self._draw(x, lambda logit, group: smoothing.inverse_cdf(rho[:, group], logit))

    def binary_posterior(self, x: Tensor, rho: Tensor) -> Posterior:
        """Draw of z ~ q(z|x) in the binary limit, from the same noise: z = 1 where rho > 1 - q.

        Shapes   x (B, D), rho (B K, N) -> (B K, N): K draws for each image, rows of one image next to each other.
        """
        return self._draw(
            x, lambda logit, group: (rho[:, group] > torch.sigmoid(-logit)).to(x.dtype), len(rho) // len(x)
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Logits of the pixels (B, D) given latents (B, N) in [0, 1]; the network sees 2 zeta - 1."""
        return self.decoder(2 * latents - 1)

    def _draw(self, x: Tensor, draw: Callable[[Tensor, slice], Tensor], n_draws: int = 1) -> Posterior:
        centred = x - self.train_mean
        latents: list[Tensor] = []
        logits: list[Tensor] = []
        for encoder, group in zip(self.encoders, self.groups, strict=True):
            if latents:
                seen = centred.repeat_interleave(n_draws, dim=0)
                logit = encoder(torch.cat([seen, *(2 * latent - 1 for latent in latents)], dim=1))
            else:  # sees the image alone: once is enough for all its draws
                logit = encoder(centred).repeat_interleave(n_draws, dim=0)
            logits.append(logit)
            latents.append(draw(logit, group))
        return Posterior(torch.cat(latents, dim=1), torch.cat(logits, dim=1))


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) in nats under independent Bernoullis, summed over the last axis; x in {0, 1}.

    One softplus: log sigma(l) = -softplus(-l) and log sigma(-l) = -softplus(l). See ``reference.bernoulli.log_prob``.
    """
    return -softplus((1 - 2 * x) * logits, threshold=40).sum(-1)
