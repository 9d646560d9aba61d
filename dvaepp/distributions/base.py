"""What the smoothed Bernoulli units share: torch's vocabulary for the functions of ``dvaepp.smoothing``.

The formulas of density, CDF and inverse are those of the smoothing; nothing here repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all, clamp_probs, lazy_property, logits_to_probs, probs_to_logits

from dvaepp.smoothing import Smoothing, create

Self = TypeVar("Self", bound="SmoothedBernoulli")

_NO_SAMPLES = torch.Size()


class Moments(NamedTuple):
    """Mean and variance of zeta given z, in float64, of the shape of beta."""

    mean0: Tensor
    mean1: Tensor
    variance0: Tensor
    variance1: Tensor


class SmoothedBernoulli(Distribution):
    """The continuous companion zeta of a binary unit, with z summed out: q(zeta) = p r(zeta|0) + q r(zeta|1).

    Base of the kinds in ``kinds``. As ``torch.distributions.RelaxedBernoulli``, but for the keyword ``beta`` in the
    place of the temperature: the sharpness, by which zeta approaches z as it grows.

    ``rsample`` is the inverse CDF of the noise that ``RelaxedBernoulli`` draws, ``clamp_probs(torch.rand(...))``: with
    the same seed both see the same noise. Its derivatives are implicit ones, and first ones only.
    ``log_prob``, ``cdf``, ``mean`` and ``variance`` are differentiable by autograd. As in torch, ``logits`` made of
    ``probs`` are clamped; given logits are taken as they are, the infinite ones too.

    Source   DVAE++ (arXiv:1802.04920), eq. (2) and section 3.
    Shapes   exactly one of probs and logits, a number or tensor; beta a number, or a tensor that broadcasts with it.
             batch_shape is their common shape, event_shape is empty.
    Domain   float32 or float64. At an end of the unit interval ``log_prob`` is the limit of the density, which
             may be infinite; samples of the kinds for which it may stay inside.
    Units    nats
    Raises   ValueError as torch, unless ``validate_args`` is False; for a beta that is a number and infinite or not
             positive, then also ConfigError, which is one.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "beta": constraints.positive,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    support: ClassVar[constraints.Constraint] = constraints.unit_interval
    has_rsample = True

    kind: ClassVar[str]  # as ``dvaepp.smoothing.create`` spells it
    _end_excluded: ClassVar[bool] = False  # whether the density may be 0 or infinite at an end of the unit interval

    beta: Tensor

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
        *,
        beta: Tensor | float,
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        self._given = "logits" if probs is None else "probs"
        given = logits if logits is not None else probs
        assert given is not None  # one of them is
        parameter, sharpness = broadcast_all(given, beta)
        setattr(self, self._given, parameter)
        self.beta = sharpness.to(parameter.dtype)
        super().__init__(parameter.size(), validate_args=validate_args)
        # A number stays one, and a small tensor small: what depends on beta alone is then computed once, not per unit.
        self._smoothing: Smoothing = create(self.kind, beta)

    def expand(self: Self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """The same units with their parameters expanded to ``batch_shape``; see torch."""
        new: Self = self._get_checked_instance(SmoothedBernoulli, _instance)
        batch_shape = torch.Size(batch_shape)
        for name in ("probs", "logits"):
            if name in self.__dict__:
                setattr(new, name, getattr(self, name).expand(batch_shape))
        new._given = self._given
        new.beta = self.beta.expand(batch_shape)
        new._smoothing = self._smoothing
        super(SmoothedBernoulli, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @lazy_property
    def logits(self) -> Tensor:
        """Log odds of z = 1."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """Probability of z = 1."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def _param(self) -> Tensor:
        parameter: Tensor = getattr(self, self._given)
        return parameter

    @property
    def param_shape(self) -> torch.Size:
        """Shape of the parameter; see torch."""
        return self._param.size()

    @property
    def mean(self) -> Tensor:
        """E[zeta] = p E[zeta|0] + q E[zeta|1]."""
        moments, p, q = self._moments_and_weights()
        return (p * moments.mean0 + q * moments.mean1).to(self._param.dtype)

    @property
    def variance(self) -> Tensor:
        """Var[zeta] = p Var[zeta|0] + q Var[zeta|1] + p q (E[zeta|1] - E[zeta|0])^2, a sum of positive terms."""
        moments, p, q = self._moments_and_weights()
        within = p * moments.variance0 + q * moments.variance1
        return (within + p * q * (moments.mean1 - moments.mean0).square()).to(self._param.dtype)

    def rsample(self, sample_shape: Sequence[int] = _NO_SAMPLES) -> Tensor:
        """Smoothed samples, differentiable once in the parameters.

        Shapes   sample_shape + batch_shape
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        rho = clamp_probs(torch.rand(shape, dtype=self._param.dtype, device=self._param.device))
        zeta = self._smoothing.inverse_cdf(rho, self.logits.expand(shape))
        return self._inside(zeta) if self._end_excluded else zeta

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of smoothed units, with respect to Lebesgue measure."""
        if self._validate_args:
            self._validate_sample(value)
        return self._smoothing.log_prob(value, self.logits)

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of a smoothed unit of at most ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return self._smoothing.cdf(value, self.logits)

    def icdf(self, value: Tensor) -> Tensor:
        """The (smallest) smoothed unit whose CDF reaches ``value``; 0 and 1 give the ends of the support.

        Raises   ValueError for values outside [0, 1], unless ``validate_args`` is False.
        """
        if self._validate_args and not torch._is_all_true(constraints.unit_interval.check(value)):
            raise ValueError(f"Expected value argument of icdf to lie in [0, 1], but found invalid values:\n{value}")
        return self._smoothing.inverse_cdf(value, self.logits)

    def _moments(self, beta: Tensor) -> Moments:
        """Moments given z for a sharpness in float64; none for a kind whose moments have no closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no mean and variance in closed form")

    def _moments_and_weights(self) -> tuple[Moments, Tensor, Tensor]:
        moments = self._moments(self.beta.to(torch.float64))
        if self._given == "probs":
            q = self.probs.to(torch.float64)
            return moments, 1 - q, q
        logits = self.logits.to(torch.float64)
        return moments, torch.sigmoid(-logits), torch.sigmoid(logits)

    @staticmethod
    def _inside(zeta: Tensor) -> Tensor:
        """Samples that rounded to an end, moved to where the density and its derivative are finite; gradients pass."""
        info = torch.finfo(zeta.dtype)
        return zeta + (zeta.clamp(info.tiny / info.eps, 1 - info.eps / 2) - zeta).detach()
