"""Smoothing transformations: a binary z becomes a continuous zeta through which gradients flow.

Idea (DVAE++, sections 2 and 3). Attach to every binary unit z a continuous companion zeta with density r(zeta|z): near
0 when z = 0, near 1 when z = 1, overlapping in between. Summing z out leaves the mixture

    q(zeta|x) = p r(zeta|0) + q r(zeta|1),      q = sigma(l) = q(z=1|x),  p = sigma(-l),

which is continuous, so a sample is a differentiable function of the logit l: draw rho uniform on [0, 1] and return the
inverse CDF zeta = F^{-1}(rho). As beta grows, zeta approaches z itself.

A kind of smoothing is a small class, one to a file; ``family`` holds the vocabulary they share: ``log_r``, ``r_cdf``
and ``log_ratio`` speak of r(zeta|z), ``log_prob``, ``cdf``, ``inverse_cdf`` and its derivatives of q(zeta|x), and
``nu`` of what zeta tells about z.
"""

from reference.smoothing.concrete import BinaryConcrete
from reference.smoothing.exponential import OverlappingExponential
from reference.smoothing.family import InverseCDF, MixtureSmoothing, Smoothing
from reference.smoothing.gaussian import Gaussian
from reference.smoothing.logistic import OverlappingLogistic
from reference.smoothing.power import PowerFunction
from reference.smoothing.spike_exponential import SpikeExponential
from reference.smoothing.uniform_exponential import UniformExponential

__all__ = [
    "BinaryConcrete",
    "Gaussian",
    "InverseCDF",
    "MixtureSmoothing",
    "OverlappingExponential",
    "OverlappingLogistic",
    "PowerFunction",
    "Smoothing",
    "SpikeExponential",
    "UniformExponential",
]
