"""The training objective: model, batch and noise in, its terms out. The only place where the terms meet.

Here are the estimators that differentiate through a smoothed sample; those with binary samples are in
``dvaepp.score_objective``. With leading axes (see ``dvaepp.replicas``) every term has them, a number for each replica.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dvaepp.boltzmann import RBM, cross_entropy, entropy
from dvaepp.directed import DirectedPrior, concrete_kl, joint_kl, marginal_kl
from dvaepp.likelihoods import bernoulli_log_prob
from dvaepp.models.feedforward import DiscreteVAE, Posterior
from dvaepp.models.hierarchical import HierarchicalVAE, Noise, Normal
from dvaepp.normal import kl as normal_kl
from dvaepp.smoothing import MixtureSmoothing, Smoothing, nu


@dataclass(frozen=True)
class Terms:
    """Batch means of the parts of the bound, in nats, (...): scalars but for leading axes.

    ELBO = log_likelihood - KL,  KL = log Z - entropy + cross_entropy. For an RBM ``log_partition_surrogate`` has the
    gradient of log Z but not its value (see the function of that name); a directed prior has log Z = 0. Of the marginal
    KL entropy and cross-entropy are those of zeta, relative to the density of fair units, (r(zeta|0) + r(zeta|1))/2.

    ``local_kl`` is the KL of each group of local latents, of models that have any. ``balance`` is what the KL of the
    global latents and then that of each local group is multiplied by in the loss, besides the weight of all.
    """

    log_likelihood: Tensor
    entropy: Tensor
    cross_entropy: Tensor
    log_partition_surrogate: Tensor
    local_kl: tuple[Tensor, ...] = ()

    def loss(self, kl_weight: float, balance: Tensor | None = None) -> Tensor:
        """What training minimises: the negative ELBO with the KL weighted; its value lacks log Z (see above)."""
        kl = self.log_partition_surrogate - self.entropy + self.cross_entropy
        if self.local_kl:
            groups = torch.stack([kl, *self.local_kl])
            kl = (groups if balance is None else groups * balance).sum()
        return kl_weight * kl - self.log_likelihood

    def group_kl(self, log_partition: float) -> Tensor:
        """The KL of the global latents, given log Z of their prior, and that of each local group, without gradient."""
        return torch.stack([log_partition - self.entropy + self.cross_entropy, *self.local_kl]).detach()

    def named(self) -> dict[str, Tensor]:
        """The terms by name, for checks and logs."""
        names = term_names(len(self.local_kl))
        parts = (self.log_likelihood, self.entropy, self.cross_entropy, self.log_partition_surrogate, *self.local_kl)
        return dict(zip(names, parts, strict=True))


def term_names(n_local_groups: int = 0) -> tuple[str, ...]:
    """The names of the terms, in order."""
    local = tuple(f"{LOCAL_KL}{group}" for group in range(n_local_groups))
    return ("log_likelihood", "entropy", "cross_entropy", "log_partition_surrogate", *local)


#: Beginning of the names of the local groups' KL.
LOCAL_KL = "local_kl_"


def terms(
    model: DiscreteVAE,
    x: Tensor,
    rho: Tensor,
    smoothing: Smoothing,
    z1: Tensor,
    z2: Tensor,
    rolfe: bool = False,
) -> Terms:
    """The bound's terms for one batch with an RBM prior, by one reparameterised sample for each image.

    ``rolfe`` is for a spike-and-exponential smoothing, whose nu is z, a step: see ``spike_nu``.

    Source   DVAE++ (arXiv:1802.04920), eq. (6) and the form after it; ``reference.boltzmann_kl.kl``.
    Shapes   x (..., B, D) in {0, 1}, rho (..., B, N) uniform, z1 and z2 (..., L, N/2) samples of the prior
    """
    draw = model.smoothed_posterior(x, rho, smoothing)
    own, cross = _rbm_terms(model.rbm, draw, smoothing, model.n_groups, rolfe)
    return Terms(
        log_likelihood=bernoulli_log_prob(x, model.decode(draw.latents)).mean(-1),
        entropy=own,
        cross_entropy=cross,
        log_partition_surrogate=log_partition_surrogate(model.rbm, z1, z2),
    )


def _rbm_terms(prior: RBM, draw: Posterior, smoothing: Smoothing, n_groups: int, rolfe: bool) -> tuple[Tensor, Tensor]:
    """Entropy and cross-entropy of a draw under an RBM."""
    mu = draw.logit_q.sigmoid()
    seen = mu  # one group: mean field
    if n_groups > 1:
        seen = spike_nu(*draw) if rolfe else nu(smoothing, *draw)
    # The entropies are torch's own on every backend: for a batch of 100 x 200 those of ``bridge`` take longer on a CPU.
    return entropy(draw.logit_q).sum(-1).mean(-1), cross_entropy(prior, mu, seen, n_groups).mean(-1)


def directed_terms(
    model: DiscreteVAE,
    x: Tensor,
    rho: Tensor,
    smoothing: Smoothing,
    marginal: bool = False,
) -> Terms:
    """The bound's terms for one batch with a directed prior, by one reparameterised sample for each image.

    Source   DVAE++ (arXiv:1802.04920), eq. (4), or with ``marginal`` eq. (5); ``reference.directed``. For binary
             Concrete units, which have no r(zeta|z), "joint" is the KL of the binary units (Jang et al. 2016) and
             "marginal" that of the relaxed ones (Maddison et al. 2016).
    Shapes   x (..., B, D) in {0, 1}, rho (..., B, N) strictly inside (0, 1)
    """
    assert isinstance(model.prior, DirectedPrior)
    draw = model.smoothed_posterior(x, rho, smoothing)
    logit_p = model.prior.all_logits([draw.latents[..., group] for group in model.groups])
    own, cross = _directed(draw, logit_p, rho, smoothing, marginal)
    return Terms(
        log_likelihood=bernoulli_log_prob(x, model.decode(draw.latents)).mean(-1),
        entropy=own,
        cross_entropy=cross,
        log_partition_surrogate=torch.zeros_like(own),
    )


def _directed(
    draw: Posterior, logit_p: Tensor, rho: Tensor, smoothing: Smoothing, marginal: bool
) -> tuple[Tensor, Tensor]:
    """Entropy and cross-entropy of a draw from noise rho under a directed prior of logits logit_p."""
    if not marginal:
        kl = joint_kl(draw.logit_q, logit_p)
        own = entropy(draw.logit_q.detach())
    elif not isinstance(smoothing, MixtureSmoothing):
        kl = concrete_kl(rho, draw.logit_q, logit_p)
        own = -concrete_kl(rho, draw.logit_q.detach(), torch.zeros_like(draw.logit_q))
    else:
        kl = marginal_kl(smoothing, draw.latents, draw.logit_q, logit_p)
        fair = torch.zeros_like(draw.logit_q)
        own = -marginal_kl(smoothing, draw.latents.detach(), draw.logit_q.detach(), fair)
    # The KL comes as one number, without cancellation between its parts; the entropy is only logged.
    own = own.sum(-1).mean(-1)
    return own, kl.sum(-1).mean(-1) + own


def hierarchical_terms(
    model: HierarchicalVAE,
    x: Tensor,
    noise: Noise,
    smoothing: Smoothing,
    estimator: str,
    samples: tuple[Tensor, Tensor] | None,
) -> Terms:
    """The bound's terms of DVAE++ for one batch, by one reparameterised sample of all latents for each image.

    The global latents' KL is that of ``terms`` or ``directed_terms``, or of normal variables to standard ones; the
    local groups' are ``HierarchicalVAE.local_kl``. ``samples`` are of the RBM, if the prior is one.

    Source   DVAE++ (arXiv:1802.04920), section 6.
    Shapes   x (B, D), noise of B images, samples (L, N/2) each
    """
    inferred = model.infer(x, noise, smoothing)
    draw = Posterior(inferred.zeta, inferred.q_z)
    surrogate = torch.zeros((), device=x.device)
    if isinstance(inferred.q_z, Normal):
        standard = torch.zeros_like(inferred.zeta)
        own = (inferred.q_z.log_std + _NORMAL_ENTROPY).sum(-1).mean(-1)
        cross = own + normal_kl(*inferred.q_z, standard, standard).sum(-1).mean(-1)
    elif isinstance(model.prior, RBM):
        assert samples is not None
        own, cross = _rbm_terms(model.prior, draw, smoothing, model.n_groups, estimator == "rolfe")
        surrogate = log_partition_surrogate(model.prior, *samples)
    else:
        assert model.prior is not None
        logit_p = model.prior.all_logits([inferred.zeta[..., group] for group in model.prior_groups])
        own, cross = _directed(draw, logit_p, noise.z, smoothing, estimator == "marginal")
    with model.casting():
        log_likelihood = model.decoder.log_prob(inferred.state, x).mean(-1)
    return Terms(
        log_likelihood=log_likelihood,
        entropy=own,
        cross_entropy=cross,
        log_partition_surrogate=surrogate,
        local_kl=tuple(model.local_kl(inferred, smoothing).mean(0).unbind()),
    )


#: Entropy of a standard normal variable, in nats.
_NORMAL_ENTROPY = (1 + math.log(2 * math.pi)) / 2


def log_partition_surrogate(prior: RBM, z1: Tensor, z2: Tensor) -> Tensor:
    """Scalar whose gradient is an estimate of that of log Z: minus the mean energy of samples held fixed.

    d log Z/dtheta = E_p[-dE/dtheta].

    Source   DVAE++ (arXiv:1802.04920), appendix E.
    Shapes   z1 (..., L, N1), z2 (..., L, N2) samples of the prior, without gradient -> (...)
    """
    z1, z2 = z1.detach(), z2.detach()
    # From the samples' moments: one matrix product, and none in the backward pass.
    products = z1.mT @ z2 / z1.shape[-2]
    linear = (prior.a1 * z1.mean(-2)).sum(-1) + (prior.a2 * z2.mean(-2)).sum(-1)
    return linear + (prior.W * products).sum((-2, -1))


def spike_nu(zeta: Tensor, logit_q: Tensor) -> Tensor:
    """nu of a spike-and-exponential smoothing, z = 1[zeta > 0], with the gradient that its step has on average.

    For a loss that is linear in each z_i with slope g_i, d/dlogit_i E[z_i g_i] = E[q_i (1 - z_i) g_i] + what g_i and
    the rest of the loss owe to zeta_i, which automatic differentiation adds. See
    ``reference.boltzmann_kl.rolfe_gradient``.

    Shapes   (..., N) each -> (..., N)
    """
    return _SpikeNu.apply(zeta, logit_q)


class _SpikeNu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, zeta: Tensor, logit_q: Tensor) -> Tensor:
        z = (zeta > 0).to(logit_q.dtype)
        ctx.save_for_backward(z, logit_q)
        return z

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor]:
        z, logit_q = ctx.saved_tensors
        return None, upstream * logit_q.sigmoid() * (1 - z)
