"""Training without smoothing: the bound's gradient through binary latents, by the estimators of ``dvaepp.estimators``.

With the KL's parts in closed form (``DiscreteVAE.kl``), KL_g of the earlier groups' draw, and w the KL's weight,

    L(z) = log p(x|z) - w sum_g KL_g(z_<g),    f_g(z_g) = log p(x|z) - w sum_{h>g} KL_h(z_<h),

the gradient of E[L] has two parts. One passes the binary z by: the derivative of L at the draw, in the decoder, the
prior, and the encoder through the logits in KL_g. The other goes through the distribution of z, and group g's share of
it is an estimate of d/dl_g E[f_g]: f_g is what is left of L without the terms that do not depend on z_g.

    nvil, muprop, rebar, relax, arm, disarm   unbiased
    vimco                                     unbiased, for the bound of K samples in the place of the ELBO
    straight-through                          biased in the encoder: z has the slope of its mean, which is right only
                                              for an f_g linear in each unit. Unbiased in decoder and prior

f_g at another point than the draw needs the later groups anew: binary from the same noise (arm, disarm), relaxed from
the same noise at group g's temperature (rebar, relax), or their means (muprop); each is a function of z_g and of noise
that does not depend on it, and any such function is as good on average. REBAR and RELAX couple their two noises as
Tucker et al. do (``matching_noise``): the surrogate is evaluated once, and measured variances are the same.

Source   the papers named in ``reference.estimators``; several groups: Mnih & Gregor (2014), Tucker et al. (2017).
Departs  in Tucker et al. the signal is all of log p(x, z) - log q(z|x). Here each group's KL, given the earlier ones,
         is taken out exactly and differentiated directly (Rao-Blackwell). MuProp's means start anew for each group,
         from the draw of the earlier ones. Control variates descend on the square of the estimate in the logits, row
         by row, not on that of the batch's gradient in the weights.
Domain   networks without batch normalisation, or in evaluation mode. In training it makes each row depend on the draws
         of all others; that share of the gradient is in no estimate here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dvaepp import estimators
from dvaepp.boltzmann import entropy
from dvaepp.control_variates import ControlVariates
from dvaepp.errors import ConfigError
from dvaepp.likelihoods import bernoulli_log_prob
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.networks.feedforward import frozen_statistics
from dvaepp.objective import Terms
from reference.vocabulary import ShapeError

ESTIMATORS = ("straight-through", "nvil", "muprop", "rebar", "relax", "vimco", "arm", "disarm")

#: A group's latents (..., B, n_g) from its number and its logits.
Latent = Callable[[int, Tensor], Tensor]
#: A group's logits from its number and the latents of all earlier groups.
Encode = Callable[[int, Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Step:
    """What one batch gives, in nats.

    terms          the bound's terms, for the record: no gradient; ``log_partition_surrogate`` is 0
    loss           (...): the gradient of its sum is the estimate, in all parameters of the model; its value is the
                   negative bound with the KL weighted. Both without log Z of an RBM
    control_loss   (...), or None where nothing is learned: what control variates descend on. Differentiate it in their
                   parameters alone (``torch.autograd.grad``): its graph leads into the model too
    """

    terms: Terms
    loss: Tensor
    control_loss: Tensor | None


def noise_shape(estimator: str, n_rows: int, n_latents: int, n_samples: int) -> tuple[int, ...]:
    """Shape of the uniform noise one replica needs; those of several are stacked along axis -3 of the result."""
    rows = (n_rows, n_latents)
    return (n_samples, *rows) if estimator == "vimco" else rows


def score_step(
    model: DiscreteVAE,
    x: Tensor,
    noise: Tensor,
    estimator: str,
    controls: ControlVariates,
    kl_weight: float | Tensor,
    n_samples: int = 1,
) -> Step:
    """Turn a batch and its noise into the bound's terms and a loss whose gradient estimates that of the bound.

    Moves the running moments of ``controls``, if these are in training mode.

    Shapes   x (..., B, D) in {0, 1}; noise (..., B, N) uniform in (0, 1), for vimco (K, ..., B, N); kl_weight a number
             or (...)
    Raises   ConfigError for an estimator that does not exist, controls of another one, or vimco with K < 2; ShapeError
             for noise of another shape.
    """
    _check(model, x, noise, estimator, controls, n_samples)
    weight = kl_weight.unsqueeze(-1) if isinstance(kl_weight, Tensor) else kl_weight
    if estimator == "vimco":
        return _multi_sample(model, x, noise, weight)
    if estimator == "straight-through":
        return _straight_through(model, x, noise, weight)
    return _single_sample(model, x, noise, controls, weight)


# ---- one draw of the latents, and what is left of the bound ------------------------------------------------------


@dataclass(frozen=True)
class _Pass:
    """Groups from ``first`` on, given the earlier ones: all latents, and the logits of the later groups."""

    latents: list[Tensor]
    logits: list[Tensor]
    first: int

    @property
    def z(self) -> Tensor:
        """All latents side by side, (..., B, N)."""
        return torch.cat(self.latents, dim=-1)

    def kl_parts(self, model: DiscreteVAE) -> list[Tensor]:
        """KL of each of the later groups, (..., B)."""
        logits = enumerate(self.logits, start=self.first)
        return [model.kl(g, logit, self.latents[:g]) for g, logit in logits]


def _run(model: DiscreteVAE, encode: Encode, latent: Latent, before: Sequence[Tensor] = ()) -> _Pass:
    """The ancestral pass, from the first group that ``before`` does not have."""
    latents, logits = list(before), []
    for g in range(len(before), model.n_groups):
        logits.append(encode(g, latents))
        latents.append(latent(g, logits[-1]))
    return _Pass(latents, logits, len(before))


def _total(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _entropy(logits: Sequence[Tensor]) -> Tensor:
    """Entropy of all groups, (..., B), without gradient."""
    return _total([entropy(logit.detach()).sum(-1) for logit in logits])


def _terms(log_likelihood: Tensor, h: Tensor, cross_entropy: Tensor) -> Terms:
    """Batch means, without gradient."""
    h = h.mean(-1)
    return Terms(log_likelihood.detach().mean(-1), h, cross_entropy.detach().mean(-1), torch.zeros_like(h))


# ---- the estimators ----------------------------------------------------------------------------------------------


def _straight_through(model: DiscreteVAE, x: Tensor, noise: Tensor, weight: float | Tensor) -> Step:
    drawn = _run(
        model,
        lambda g, before: model.encode(g, x, before),
        lambda g, logits: estimators.straight_through_draw(noise[..., model.groups[g]], logits),
    )
    log_likelihood = bernoulli_log_prob(x, model.decode(drawn.z))
    kl, h = _total(drawn.kl_parts(model)), _entropy(drawn.logits)
    return Step(_terms(log_likelihood, h, kl + h), (weight * kl - log_likelihood).mean(-1), None)


def _single_sample(
    model: DiscreteVAE, x: Tensor, noise: Tensor, controls: ControlVariates, weight: float | Tensor
) -> Step:
    drawn = _run(
        model,
        lambda g, before: controls.scaled(g, model.encode(g, x, before)),
        lambda g, logits: estimators.draw(noise[..., model.groups[g]], logits),
    )
    log_likelihood = bernoulli_log_prob(x, model.decode(drawn.z))
    kl = drawn.kl_parts(model)
    bound = log_likelihood - weight * _total(kl)

    signals = [log_likelihood.detach()]  # of the last group, of the one before it, ...
    for later in reversed(kl[1:]):
        signals.append(signals[-1] - weight * later.detach())
    signals.reverse()

    control_losses = []
    for g, logits in enumerate(drawn.logits):
        estimate, control_loss = _Group(model, x, noise, controls, weight, drawn, g).estimate(signals[g])
        # The difference is 0: the estimate enters the gradient and not the value.
        bound = bound + (estimate.detach() * (logits - logits.detach())).sum(-1)
        control_losses += [] if control_loss is None else [control_loss.mean(-1)]
    h = _entropy(drawn.logits)
    terms = _terms(log_likelihood, h, _total(kl) + h)
    return Step(terms, -bound.mean(-1), _total(control_losses) if control_losses else None)


@dataclass(frozen=True)
class _Group:
    """One group of a draw, with all that its estimate depends on."""

    model: DiscreteVAE
    x: Tensor
    noise: Tensor
    controls: ControlVariates
    weight: float | Tensor
    drawn: _Pass
    g: int

    def estimate(self, signal: Tensor) -> tuple[Tensor, Tensor | None]:
        """Estimate (..., B, n_g) of d/dl_g E[f_g], given f_g at the draw, and the control variates' loss (..., B)."""
        rho, logits = self.noise[..., self.model.groups[self.g]], self.drawn.logits[self.g].detach()
        with frozen_statistics(self.model):  # the batch has gone through the networks once already
            match self.controls.estimator:
                case "arm":
                    return estimators.arm(self.f(self.binary), rho, logits, f_z=signal), None
                case "disarm":
                    return estimators.disarm(self.f(self.binary), rho, logits, f_z=signal), None
                case "nvil" | "muprop":
                    return self.with_baseline(signal, rho, logits)
                case _:
                    return self.with_relaxation(signal, rho, logits)

    def with_baseline(self, signal: Tensor, rho: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """NVIL and MuProp: the baseline follows what it is to predict by least squares."""
        predicted, mean = self.controls.baseline(self.g, self.centred, self.before), self.controls.moments(self.g).mean
        baseline = predicted + mean.unsqueeze(-1)
        f = self.f(lambda _, later: torch.sigmoid(later))
        if self.controls.estimator == "nvil":
            estimate, explained = estimators.reinforce(f, rho, logits, baseline, f_z=signal), signal
        else:
            plane = estimators.tangent_plane(f, self.drawn.latents[self.g], logits)
            estimate = estimators.muprop(f, rho, logits, baseline, f_z=signal, plane=plane)
            explained = signal - plane.value
        self.controls.update(self.g, explained - predicted.detach())
        return estimate, (explained - baseline).square()

    def with_relaxation(self, signal: Tensor, rho: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """REBAR and RELAX: the control variates descend on the estimate's square."""
        controls, g = self.controls, self.g
        temperature = controls.temperature(g)

        def relaxed(h: int, later: Tensor) -> Tensor:
            logistic = estimators.logistic(self.noise[..., self.model.groups[h]], later)
            return torch.sigmoid(logistic / temperature.view(*temperature.shape, 1, 1))

        f = self.f(relaxed)
        of_rebar = estimators.rebar_surrogate(f, temperature, controls.eta[..., g])

        def surrogate(logistic: Tensor) -> Tensor:
            if controls.estimator == "rebar":
                return of_rebar(logistic)
            return of_rebar(logistic) + controls.surrogate(g, self.centred, self.before, logistic)

        if controls.estimator == "rebar":
            signal = signal - controls.baseline(g, self.centred, self.before)
        graph = torch.is_grad_enabled()
        estimate = estimators.relax(f, surrogate, rho, None, logits, f_z=signal, create_graph=graph)
        return estimate, estimate.square().sum(-1)

    def f(self, latent: Latent) -> estimators.Function:
        """f_g as a function of z_g alone, the later groups' latents by a rule."""
        model, x, before = self.model, self.x, self.before

        def value(z_g: Tensor) -> Tensor:
            later = _run(model, lambda h, latents: model.encode(h, x, latents), latent, [*before, z_g])
            log_likelihood = bernoulli_log_prob(x, model.decode(later.z))
            return log_likelihood - self.weight * _total(later.kl_parts(model)) if later.logits else log_likelihood

        return value

    def binary(self, h: int, logits: Tensor) -> Tensor:
        """The later groups drawn from the same noise."""
        return estimators.draw(self.noise[..., self.model.groups[h]], logits)

    @property
    def before(self) -> list[Tensor]:
        """The earlier groups' latents."""
        return self.drawn.latents[: self.g]

    @property
    def centred(self) -> Tensor:
        """The images as the encoder sees them."""
        return self.x - self.model.train_mean.unsqueeze(-2)


def _multi_sample(model: DiscreteVAE, x: Tensor, noise: Tensor, weight: float | Tensor) -> Step:
    """VIMCO. The K samples of an image are rows: sample 1 of all images, sample 2 of all, ..."""
    n_samples = noise.shape[0]
    rho = noise.movedim(0, -3).flatten(-3, -2)

    def tiled(rows: Tensor) -> Tensor:
        return rows.repeat(*[1] * (rows.ndim - 2), n_samples, 1)

    def by_sample(rows: Tensor) -> Tensor:  # (..., K B) -> (K, ..., B)
        return rows.unflatten(-1, (n_samples, -1)).movedim(-2, 0)

    images = tiled(x)
    drawn = _run(
        model,
        lambda g, before: model.encode(g, images, before) if before else tiled(model.encode(g, x, before)),
        lambda g, logits: estimators.draw(rho[..., model.groups[g]], logits),
    )
    log_likelihood, energy = bernoulli_log_prob(images, model.decode(drawn.z)), model.energy(drawn.z)
    log_q = bernoulli_log_prob(drawn.z, torch.cat(drawn.logits, dim=-1))
    log_weights = by_sample(log_likelihood - weight * (energy + log_q))
    bound = log_weights.logsumexp(0) - math.log(n_samples)
    # d log q/dl is the score; the difference is 0 and enters the gradient alone.
    signals = estimators.vimco_signals(log_weights.detach())
    scored = (signals * by_sample(log_q - log_q.detach())).sum(0)
    return Step(_terms(log_likelihood, _entropy(drawn.logits), energy), -(bound + scored).mean(-1), None)


# ---- arguments ---------------------------------------------------------------------------------------------------


def _check(
    model: DiscreteVAE, x: Tensor, noise: Tensor, estimator: str, controls: ControlVariates, n_samples: int
) -> None:
    if estimator not in ESTIMATORS:
        raise ConfigError(f"estimator must be one of {', '.join(ESTIMATORS)}; got {estimator!r}")
    if controls.estimator != estimator:
        raise ConfigError(f"controls must be those of {estimator!r}; got those of {controls.estimator!r}")
    shape: tuple[int, ...] = (*x.shape[:-1], model.n_latents)
    if estimator == "vimco":
        if n_samples < 2:
            raise ConfigError(
                f"n_samples must be at least 2 for vimco, which compares samples; got {n_samples}. For one sample: nvil"
            )
        shape = (n_samples, *shape)
    if noise.shape != shape:
        raise ShapeError(f"noise must be {shape} to match images and latents; got {tuple(noise.shape)}")
