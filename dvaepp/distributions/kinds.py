"""The kinds: what each adds to ``base`` is its name, its support and its moments given z.

Four are mirror images of themselves, r(1 - zeta|1) = r(zeta|0), so that E[zeta|1] = 1 - E[zeta|0] and both variances
are the same.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from dvaepp.distributions.base import Moments, SmoothedBernoulli
from dvaepp.distributions.langevin import tilted_uniform
from reference.smoothing import UniformExponential


class OverlappingExponentialBernoulli(SmoothedBernoulli):
    """Two overlapping exponentials on [0, 1]; see ``reference.smoothing.OverlappingExponential``."""

    kind = "exponential"

    def _moments(self, beta: Tensor) -> Moments:
        mean, variance = tilted_uniform(beta)
        return Moments(mean, 1 - mean, variance, variance)


class UniformExponentialBernoulli(SmoothedBernoulli):
    """Overlapping exponentials over a uniform floor; see ``reference.smoothing.UniformExponential``."""

    kind = "uniform-exponential"

    def _moments(self, beta: Tensor) -> Moments:
        w = UniformExponential.uniform_weight
        mean, variance = tilted_uniform(beta)
        mixed = (1 - w) * mean + w / 2
        spread = (1 - w) * variance + w / 12 + w * (1 - w) * (mean - 0.5).square()
        return Moments(mixed, 1 - mixed, spread, spread)


class PowerFunctionBernoulli(SmoothedBernoulli):
    """Two power functions on [0, 1]; see ``reference.smoothing.PowerFunction``."""

    kind = "power"
    _end_excluded = True

    def _moments(self, beta: Tensor) -> Moments:
        """Those of a Beta(1/beta, 1)."""
        share = 1 / (1 + beta)
        variance = (beta * share).square() / (1 + 2 * beta)
        return Moments(share, beta * share, variance, variance)


class SpikeExponentialBernoulli(SmoothedBernoulli):
    """A point mass at 0 or an exponential that rises to 1; see ``reference.smoothing.SpikeExponential``.

    Neither discrete nor continuous: ``log_prob`` is a density with respect to Lebesgue measure plus a unit mass at 0.
    At 0 it is the log of a probability, log p; beyond, log q + log r(zeta|1). ``icdf`` is 0 up to p, so ``cdf`` undoes
    it only above. ``rsample`` is continuous in the logit for given noise, so its gradient is right for functions of
    zeta; not so for functions of z = [zeta > 0], through which none flows.
    """

    kind = "spike-exponential"

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of smoothed units, with respect to Lebesgue measure plus a unit mass at 0."""
        return super().log_prob(value)

    def _moments(self, beta: Tensor) -> Moments:
        mean, variance = tilted_uniform(beta)
        nothing = torch.zeros_like(mean)
        return Moments(nothing, 1 - mean, nothing, variance)


class OverlappingLogisticBernoulli(SmoothedBernoulli):
    """Two overlapping logistic densities on the real line; see ``reference.smoothing.OverlappingLogistic``."""

    kind = "logistic"
    support: ClassVar[constraints.Constraint] = constraints.real

    def _moments(self, beta: Tensor) -> Moments:
        variance = (math.pi / beta).square() / 3
        return Moments(torch.zeros_like(beta), torch.ones_like(beta), variance, variance)


class GaussianBernoulli(SmoothedBernoulli):
    """Two normal densities of precision beta on the real line; see ``reference.smoothing.Gaussian``."""

    kind = "gaussian"
    support: ClassVar[constraints.Constraint] = constraints.real

    def _moments(self, beta: Tensor) -> Moments:
        return Moments(torch.zeros_like(beta), torch.ones_like(beta), 1 / beta, 1 / beta)


class ConcreteBernoulli(SmoothedBernoulli):
    """The binary Concrete, ``torch.distributions.RelaxedBernoulli`` of temperature 1 / beta, kept accurate.

    The same samples for the same seed and the same densities, but for rounding, where torch's are right. Its
    probabilities are clamped, so that a logit of 20 counts as 16 in float32 and samples near 1 have a gradient of 0;
    its ``log_prob`` overflows for large logits (see ``examples.relaxed_bernoulli``).

    See ``reference.smoothing.BinaryConcrete``. Mean and variance have no closed form, in torch neither.
    """

    kind = "concrete"
    _end_excluded = True

    @property
    def temperature(self) -> Tensor:
        """1 / beta, under the name that users of ``RelaxedBernoulli`` know."""
        return 1 / self.beta
