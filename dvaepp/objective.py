"""The training objective: model, batch and noise in, its terms out. The only place where the terms meet."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from dvaepp.boltzmann import RBM, cross_entropy, entropy
from dvaepp.models.feedforward import DiscreteVAE, bernoulli_log_prob
from dvaepp.smoothing import OverlappingExponential, nu


@dataclass(frozen=True)
class Terms:
    """Batch means of the parts of the bound, in nats; scalars.

    ELBO = log_likelihood - KL,  KL = log Z - entropy + cross_entropy. ``log_partition_surrogate`` has the gradient of
    log Z but not its value (see ``log_partition_surrogate``).
    """

    log_likelihood: Tensor
    entropy: Tensor
    cross_entropy: Tensor
    log_partition_surrogate: Tensor

    def loss(self, kl_weight: float) -> Tensor:
        """What training minimises: the negative ELBO with the KL weighted; its value lacks log Z (see above)."""
        kl = self.log_partition_surrogate - self.entropy + self.cross_entropy
        return kl_weight * kl - self.log_likelihood

    def named(self) -> dict[str, Tensor]:
        """The terms by name, for checks and logs."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def terms(
    model: DiscreteVAE, x: Tensor, rho: Tensor, smoothing: OverlappingExponential, z1: Tensor, z2: Tensor
) -> Terms:
    """The bound's terms for one batch, by one reparameterised sample for each image.

    Source   DVAE++ (arXiv:1802.04920), eq. (6) and the form after it; ``reference.boltzmann_kl.kl``.
    Shapes   x (B, D) in {0, 1}, rho (B, N) uniform, z1 (L, N/2) and z2 (L, N/2) samples of the prior.
    """
    draw = model.smoothed_posterior(x, rho, smoothing)
    mu = draw.logit_q.sigmoid()
    seen = mu if model.n_groups == 1 else nu(smoothing, draw.latents, draw.logit_q)  # one group: mean field
    # The entropies are torch's own on every backend: for a batch of 100 x 200 those of ``bridge`` take longer on a CPU.
    return Terms(
        log_likelihood=bernoulli_log_prob(x, model.decode(draw.latents)).mean(),
        entropy=entropy(draw.logit_q).sum(-1).mean(),
        cross_entropy=cross_entropy(model.prior, mu, seen, model.n_groups).mean(),
        log_partition_surrogate=log_partition_surrogate(model.prior, z1, z2),
    )


def log_partition_surrogate(prior: RBM, z1: Tensor, z2: Tensor) -> Tensor:
    """Scalar whose gradient is an estimate of that of log Z: minus the mean energy of samples held fixed.

    d log Z/dtheta = E_p[-dE/dtheta].

    Source   DVAE++ (arXiv:1802.04920), appendix E.
    Shapes   z1 (L, N1), z2 (L, N2) samples of the prior, without gradient.
    """
    z1, z2 = z1.detach(), z2.detach()
    # From the samples' moments: one matrix product, and none in the backward pass.
    return prior.a1 @ z1.mean(0) + prior.a2 @ z2.mean(0) + (prior.W * (z1.t() @ z2 / len(z1))).sum()
