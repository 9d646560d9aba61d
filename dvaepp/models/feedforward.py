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

from dvaepp.boltzmann import RBM, entropy, group_energy
from dvaepp.directed import DirectedPrior, joint_kl
from dvaepp.errors import ConfigError
from dvaepp.estimators import draw
from dvaepp.likelihoods import bernoulli_log_prob
from dvaepp.networks.feedforward import feedforward
from dvaepp.networks.observation import Drawn
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

    #: Draws that are decoded at a time in tests: 6 MB of float32 pixels at 28x28, which stays near the cache.
    rows_at_a_time = 2048
    levels = 1

    @staticmethod
    def images_at_a_time(n_importance: int) -> int:
        """Images that are tested at a time, whatever the number of draws for each."""
        return 64

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
        return prior_energy(self.prior, z, self.groups)

    def log_weights(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` draws of log p(x, z) / q(z|x) for each image, and of log p(x|z): (B, count) each.

        In the binary limit, float64, less log Z of an RBM.
        """
        rows = len(x)
        # in (0, 1]: a rho of 0 (once in 2^24 draws) would pick z = 0 even where q(z=0) = e^-40, and weigh e^40 too much
        rho = 1 - torch.rand((rows * count, self.n_latents), generator=generator, device=x.device)
        drawn = self.binary_posterior(x, rho)
        logits = self.decode(drawn.latents).view(rows, count, -1)
        reconstruction = bernoulli_log_prob(x.unsqueeze(1), logits).double()  # no copy of x for each draw
        log_q = bernoulli_log_prob(drawn.latents, drawn.logit_q).double()
        log_weights = reconstruction - (self.energy(drawn.latents).double() + log_q).view(rows, count)
        return log_weights, reconstruction

    def posterior_means(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """q(z=1|x, earlier z), one draw of the earlier groups: (B, D) -> (B, N)."""
        rho = torch.rand((len(x), self.n_latents), generator=generator, device=x.device)
        return self.binary_posterior(x, rho).logit_q.sigmoid()

    def generate(self, z: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Drawn:
        """Images given latents (B, N); there is nothing between them that a temperature could cool."""
        means = self.decode(z).sigmoid()
        u = torch.rand(means.shape, generator=generator, device=means.device)
        return Drawn((u < means).to(means.dtype), means)

    def reconstruct(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Mean images given one draw of z ~ q(z|x), (B, D) in [0, 1]."""
        rho = torch.rand((len(x), self.n_latents), generator=generator, device=x.device)
        return self.decode(self.binary_posterior(x, rho).latents).sigmoid()

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


def prior_energy(prior: RBM | DirectedPrior, z: Tensor, groups: Sequence[slice]) -> Tensor:
    """Minus log p(z) under a prior, of an RBM without log Z; ``groups`` are those of a directed one.

    Shapes   (..., B, N) in {0, 1} -> (..., B) nats
    """
    if isinstance(prior, DirectedPrior):
        return -bernoulli_log_prob(z, prior.all_logits([z[..., group] for group in groups]))
    return prior.energy(z[..., : prior.n1], z[..., prior.n1 :])
