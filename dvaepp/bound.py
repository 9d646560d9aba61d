"""Likelihood of images in the binary limit: importance weights, a streaming log-mean-exp, the ELBO and its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dvaepp.boltzmann import RBM
from dvaepp.models import HierarchicalVAE, Model
from dvaepp.partition import Base
from dvaepp.randomness import generator
from dvaepp.world import World

#: Variance over images of q(z=1|x) above which a latent unit is called active (Burda et al. 2015).
ACTIVE = 0.01

_BASE_IMAGES = 2000  # images whose posterior means set the base of annealing


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

    def to(self, device: torch.device | str) -> Likelihood:
        """The results on a device."""
        return Likelihood(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    @classmethod
    def concatenate(cls, parts: Sequence[Likelihood]) -> Likelihood:
        """Results of several batches as those of one."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@torch.no_grad()
def likelihood(model: Model, x: Tensor, n_importance: int, noise: torch.Generator) -> Likelihood:
    """Importance-sampled likelihood of images in the binary limit.

    w_k = log p(x|z_k) - E(z_k) - log q(z_k|x), z_k ~ q(z|x), so that log p(x) ~ log mean_k e^{w_k} - log Z. Local
    latents enter likewise, with log p(h_k|z_k) - log q(h_k|z_k, x).

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
        k = min(n_importance - done, max(1, model.rows_at_a_time // rows))
        log_weights, reconstruction = model.log_weights(x, k, noise)
        stream.add(log_weights)
        weight_sum += log_weights.sum(1)
        reconstruction_sum += reconstruction.sum(1)
        done += k
    return Likelihood(stream.result(), weight_sum / n_importance, reconstruction_sum / n_importance)


@torch.no_grad()
def likelihood_of_all(
    model: Model,
    images: Tensor,
    n_importance: int,
    seed: int,
    purpose: str,
    world: World | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Likelihood:
    """``likelihood`` of many images (N, D) uint8; ``advance`` hears how many more are done.

    A few images are worked off at a time, by noise of their own, named by the seed, the purpose and their place; so it
    is the same noise however many processes share the images. All of them get all results.
    """
    world = World() if world is None else world
    batches = list(images.split(model.images_at_a_time(n_importance)))
    own = []
    for index in range(world.rank, len(batches), world.size):
        noise = generator(images.device, seed, f"{purpose} {index}")
        own.append(likelihood(model, batches[index].float(), n_importance, noise))
        advance(world.size * len(batches[index]))
    # Of several devices: what is gathered comes back to the device it was sent from, and is wanted in one place.
    shares = [iter(share) for share in world.gather([each.to("cpu") for each in own])]
    return Likelihood.concatenate([next(shares[index % world.size]) for index in range(len(batches))])


@torch.no_grad()
def posterior_means(model: Model, images: Tensor, noise: torch.Generator, batch_size: int = 1000) -> Tensor:
    """Means of the global latents given images (N, D) uint8, one draw of the earlier groups each: (N, n_latents).

    q(z=1|x, earlier z) of binary ones.
    """
    return torch.cat([model.posterior_means(batch.float(), noise) for batch in images.split(batch_size)])


def posterior_base(model: Model, images: Tensor, noise: torch.Generator) -> Base:
    """Base of annealing fitted to the posterior's means over the first of the images (N, D) uint8 in {0, 1}."""
    assert isinstance(model.prior, RBM)
    means = posterior_means(model, images[:_BASE_IMAGES], noise).mean(0)
    return Base.fitted(means, model.prior.n1)


@torch.no_grad()
def local_kl_of_all(model: HierarchicalVAE, images: Tensor, noise: torch.Generator) -> Tensor:
    """Mean KL of each local group over images (N, D) uint8, in nats, (J,): one draw each, in the binary limit."""
    total = torch.zeros(model.local_shape[0], dtype=torch.float64, device=images.device)
    for batch in images.split(model.images_at_a_time(1)):
        inferred = model.infer(batch.float(), model.noise(len(batch), noise), None)
        total += model.local_kl(inferred, None).sum(0, dtype=torch.float64)
    return total / len(images)
