"""Smoothed Bernoulli units as ``torch.distributions``: one class for each kind of ``dvaepp.smoothing``.

    unit = OverlappingExponentialBernoulli(logits=logits, beta=10.0)
    zeta = unit.rsample()  # differentiable in logits and in a tensor beta

They take the place of ``RelaxedBernoulli`` in code written for torch or Pyro. ``base`` holds what they share: read it
first. ``kl`` registers those KL divergences that have a closed form.
"""

from dvaepp.distributions import kl as kl
from dvaepp.distributions.base import SmoothedBernoulli
from dvaepp.distributions.kinds import (
    ConcreteBernoulli,
    GaussianBernoulli,
    OverlappingExponentialBernoulli,
    OverlappingLogisticBernoulli,
    PowerFunctionBernoulli,
    SpikeExponentialBernoulli,
    UniformExponentialBernoulli,
)

__all__ = [
    "ConcreteBernoulli",
    "GaussianBernoulli",
    "OverlappingExponentialBernoulli",
    "OverlappingLogisticBernoulli",
    "PowerFunctionBernoulli",
    "SmoothedBernoulli",
    "SpikeExponentialBernoulli",
    "UniformExponentialBernoulli",
]
