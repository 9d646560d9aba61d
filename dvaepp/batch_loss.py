"""What training minimises for one batch, whatever the model, its prior and its estimator: terms and losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from dvaepp import objective
from dvaepp.config import SMOOTHED, Config
from dvaepp.control_variates import ControlVariates
from dvaepp.kl_balancing import coefficients
from dvaepp.models import DiscreteVAE, HierarchicalVAE, Model
from dvaepp.models.hierarchical import Noise
from dvaepp.objective import Terms
from dvaepp.score_objective import score_step
from dvaepp.smoothing import Smoothing


class BatchLoss(NamedTuple):
    """The bound's terms, the loss of the model and that of the control variates, if there are any; (...) each."""

    terms: Terms
    loss: Tensor
    control_loss: Tensor | None = None


def batch_loss(
    config: Config,
    model: Model,
    x: Tensor,
    noise: Tensor | Noise,
    smoothing: Smoothing,
    samples: tuple[Tensor, Tensor] | None,
    controls: ControlVariates,
    kl_weight: float,
    group_kl: Callable[[Terms], Tensor],
) -> BatchLoss:
    """The loss of a batch by the configured method, whose sum over leading axes is to be differentiated.

    ``group_kl`` tells the KL of each group, the mean over the whole batch, given the terms of what is computed here; it
    is asked where groups are balanced.

    Shapes   x (..., B, D), noise as the method wants it, samples of the RBM (..., L, N/2) each if the prior is one
    """
    settings = config.model
    if isinstance(model, HierarchicalVAE):
        assert isinstance(noise, Noise)
        terms = objective.hierarchical_terms(model, x, noise, smoothing, settings.estimator, samples)
        balance = None
        if config.hierarchy.balancing:
            balance = coefficients(group_kl(terms), kl_weight)
        return BatchLoss(terms, terms.loss(kl_weight, balance))
    assert isinstance(model, DiscreteVAE)
    assert isinstance(noise, Tensor)
    if settings.estimator in SMOOTHED:
        if samples is None:
            terms = objective.directed_terms(model, x, noise, smoothing, settings.estimator == "marginal")
        else:
            terms = objective.terms(model, x, noise, smoothing, *samples, settings.estimator == "rolfe")
        return BatchLoss(terms, terms.loss(kl_weight))
    step = score_step(model, x, noise, settings.estimator, controls, kl_weight, settings.n_samples)
    if samples is None:
        return BatchLoss(step.terms, step.loss, step.control_loss)
    surrogate = objective.log_partition_surrogate(model.rbm, *samples)
    terms = replace(step.terms, log_partition_surrogate=surrogate)
    return BatchLoss(terms, step.loss + kl_weight * surrogate, step.control_loss)


class Step(nn.Module):
    """``batch_loss`` of a model as a module's forward pass, which is what ``DistributedDataParallel`` takes."""

    def __init__(self, config: Config, model: Model, controls: ControlVariates) -> None:
        super().__init__()
        self.model, self._config = model, config
        self._controls = [controls]  # in a list: their gradients are not the model's

    def forward(
        self,
        x: Tensor,
        noise: Tensor | Noise,
        smoothing: Smoothing,
        samples: tuple[Tensor, Tensor] | None,
        kl_weight: float,
        group_kl: Callable[[Terms], Tensor],
    ) -> BatchLoss:
        """See ``batch_loss``."""
        controls = self._controls[0]
        return batch_loss(self._config, self.model, x, noise, smoothing, samples, controls, kl_weight, group_kl)
