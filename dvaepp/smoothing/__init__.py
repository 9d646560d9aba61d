"""Torch twins of ``reference.smoothing``: one small class per kind, same names, same formulas, any device.

    smoothing = create("exponential", beta=10.0)
    zeta = smoothing.inverse_cdf(rho, logit_q)

``family`` holds what they share: read it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import Tensor

from dvaepp.backend import TORCH
from dvaepp.config import unknown
from dvaepp.errors import ConfigError
from dvaepp.smoothing.concrete import BinaryConcrete
from dvaepp.smoothing.exponential import OverlappingExponential
from dvaepp.smoothing.family import MixtureSmoothing, Smoothing, check_mixture, nu
from dvaepp.smoothing.gaussian import Gaussian
from dvaepp.smoothing.logistic import OverlappingLogistic
from dvaepp.smoothing.power import PowerFunction
from dvaepp.smoothing.spike_exponential import SpikeExponential
from dvaepp.smoothing.uniform_exponential import UniformExponential

#: The classes by the spelling of configurations.
KINDS: Final[Mapping[str, type[Smoothing]]] = MappingProxyType(
    {
        one.kind: one
        for one in (
            OverlappingExponential,
            OverlappingLogistic,
            PowerFunction,
            Gaussian,
            UniformExponential,
            SpikeExponential,
            BinaryConcrete,
        )
    }
)


def create(kind: str, beta: float | Tensor, backend: str = TORCH) -> Smoothing:
    """A smoothing by its kind's name.

    A backend is chosen for a run, mostly for its samplers. Kinds without kernels (``Smoothing.has_kernels``) compute in
    torch whatever it is; the ``backend`` of the result says what does.

    Raises   ConfigError for an unknown kind (with the nearest one) or a beta that is not positive and finite.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("smoothing", kind, KINDS))
    return KINDS[kind](beta, backend if KINDS[kind].has_kernels() else TORCH)


__all__ = [
    "KINDS",
    "BinaryConcrete",
    "Gaussian",
    "MixtureSmoothing",
    "OverlappingExponential",
    "OverlappingLogistic",
    "PowerFunction",
    "Smoothing",
    "SpikeExponential",
    "UniformExponential",
    "check_mixture",
    "create",
    "nu",
]
