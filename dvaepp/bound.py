"""Likelihood of images in the binary limit: importance weights, a streaming log-mean-exp, the ELBO and its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dvaepp.models.feedforward import DiscreteVAE, bernoulli_log_prob
from dvaepp.partition import Base

#: Variance over images of q(z=1|x) above which a latent unit is called active (Burda et al. 2015).
ACTIVE = 0.01

_BASE_IMAGES = 2000  # images whose posterior means set the base of annealing
_BATCH = 64  # images at a time
_ROWS = 8192  # latent samples decoded at a time: 25 MB of float32 pixels at 28x28, which stays near the cache


class StreamingLogMeanExp:
    """log of the mean of e^w over weights that arrive in pieces, for each of B rows, in float64.

    Holds the largest w so far and the sum of e^{w - largest}: no overflow, and memory does not grow with the number of
    weights.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self._largest = torch.full((n_rows,), -math.inf, dtype=torch.float64, device=device)
        self._sum = torch.zeros(n_rows, dtype=torch.float64, device=device)
        self._count = 0

    def add(self, log_weights: Tensor) -> None:
        """Take in (B, K) more log-weights."""
        w = log_weights.double()
        largest = torch.maximum(self._largest, w.amax(1))
        # rows that have only seen e^-inf = 0 so far: -inf - -inf would be NaN
        shift = torch.where(torch.isinf(largest), torch.zeros_like(largest), largest)
        self._sum = self._sum * (self._largest - shift).exp() + (w - shift[:, None]).exp().sum(1)
        self._largest = largest
        self._count += w.shape[1]

    def result(self) -> Tensor:
        """The logarithm of the mean so far, (B,)."""
        shift = torch.where(torch.isinf(self._largest), torch.zeros_like(self._largest), self._largest)
        return shift + self._sum.log() - math.log(self._count)


@dataclass(frozen=True)
class Likelihood:
    """Per-image results in nats, (B,) float64 each; log Z is *not* subtracted, for it is an estimate of its own. A
    directed prior has none, and these are the results themselves.

    log_marginal  log (1/K) sum_k e^{w_k}, the importance-weighted bound plus log Z
    log_weight    mean of w_k: the ELBO plus log Z
    reconstruction  mean of log p(x|z)
    """

    log_marginal: Tensor
    log_weight: Tensor
    reconstruction: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[Likelihood]) -> Likelihood:
        """Results of several batches as those of one."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@torch.no_grad()
def likelihood(model: DiscreteVAE, x: Tensor, n_importance: int, generator: torch.Generator) -> Likelihood:
    """Importance-sampled likelihood of images in the binary limit.

    w_k = log p(x|z_k) - E(z_k) - log q(z_k|x), z_k ~ q(z|x), so that log p(x) ~ log mean_k e^{w_k} - log Z.

    Source   DVAE++ (arXiv:1802.04920), section 7; Burda et al. (2015), eq. (8).
    Shapes   x (B, D) in {0, 1} -> Likelihood of (B,). The model must be in evaluation mode.
    """
    assert not model.training, "batch normalisation must use its running averages"
    rows = len(x)
    stream = StreamingLogMeanExp(rows, x.device)
    weight_sum = torch.zeros(rows, dtype=torch.float64, device=x.device)
    reconstruction_sum = torch.zeros_like(weight_sum)
    done = 0
    while done < n_importance:
        k = min(n_importance - done, max(1, _ROWS // rows))
        repeated = x.repeat_interleave(k, dim=0)
        # in (0, 1]: a rho of 0 (once in 2^24 draws) would pick z = 0 even where q(z=0) = e^-40, and weigh e^40 too much
        rho = 1 - torch.rand((rows * k, model.n_latents), generator=generator, device=x.device)
        draw = model.binary_posterior(x, rho)
        z = draw.latents
        reconstruction = bernoulli_log_prob(repeated, model.decode(z)).double()
        log_q = bernoulli_log_prob(z, draw.logit_q).double()
        log_weights = (reconstruction - model.energy(z).double() - log_q).view(rows, k)
        stream.add(log_weights)
        weight_sum += log_weights.sum(1)
        reconstruction_sum += reconstruction.view(rows, k).sum(1)
        done += k
    return Likelihood(stream.result(), weight_sum / n_importance, reconstruction_sum / n_importance)


@torch.no_grad()
def likelihood_of_all(
    model: DiscreteVAE,
    images: Tensor,
    n_importance: int,
    generator: torch.Generator,
    advance: Callable[[int], object] = lambda count: None,
) -> Likelihood:
    """``likelihood`` of many images (N, D) uint8 in {0, 1}; ``advance`` hears how many more are done."""
    parts = []
    for batch in images.split(_BATCH):
        parts.append(likelihood(model, batch.float(), n_importance, generator))
        advance(len(batch))
    return Likelihood.concatenate(parts)


@torch.no_grad()
def posterior_means(model: DiscreteVAE, images: Tensor, generator: torch.Generator, batch_size: int = 1000) -> Tensor:
    """q(z=1|x, earlier z) of images (N, D) uint8 in {0, 1}, one draw of the earlier groups each: (N, n_latents)."""
    means = []
    for batch in images.split(batch_size):
        x = batch.float()
        rho = torch.rand((len(x), model.n_latents), generator=generator, device=x.device)
        means.append(model.binary_posterior(x, rho).logit_q.sigmoid())
    return torch.cat(means)


def posterior_base(model: DiscreteVAE, images: Tensor, generator: torch.Generator) -> Base:
    """Base of annealing fitted to the posterior's means over the first of the images (N, D) uint8 in {0, 1}."""
    means = posterior_means(model, images[:_BASE_IMAGES], generator).mean(0)
    return Base.fitted(means, model.rbm.n1)
