"""The only table of bounds in the project, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

#: Smoothing transforms and their derivatives, in units of the *mixed error* (see ``validation.accuracy``): the error
#: divided by what one rounding of each input (rho, logit) and of the output does. 1 would be perfect; a handful of
#: elementary functions with about one rounding each stay below 4 when no step amplifies an error.
#: Known exception: a log-density that crosses 0 where neither input moves it has no digits that the bound could
#: measure. The overlapping logistic's does so at l = 0, zeta = 0, beta = 7.989 (up to 15 found, |log_prob| < 2e-5).
TRANSFORM_MIXED_ERROR: Final = 4.0

#: An implementation against the reference in float64, in units of what one rounding of the result and of each input
#: does to the reference (see ``validation.agreement``): two results within 4 of the truth are within 8 of each other.
#: (In float32 the reference, evaluated in float64, is the truth, and the bound is the transforms' own.)
TWIN_MIXED_ERROR: Final = 2 * TRANSFORM_MIXED_ERROR

#: A sum of n terms, however it is ordered, in units of eps times the sum of the terms' sizes: each term is a product of
#: at most four factors, and goes through at most n additions of one rounding (eps / 2) each.
SUM_FACTORS: Final = 4.0


def sum_error(n_terms: int) -> float:
    """The bound on a sum of ``n_terms`` products, in units of eps times the sum of their sizes."""
    return SUM_FACTORS + n_terms / 2


#: Gibbs bits: how far rounding after the sum moves the threshold, in units of eps and in x (a relative error of
#: u e^-x, which is compared with 1 - u, is a shift of x): 3 for the exponential, 1/2 for the product with u, 1/2 for an
#: inverse temperature. The sum itself is bounded by ``validation.agreement.gibbs_band``.
GIBBS_THRESHOLD_ROUNDINGS: Final = 4.0

#: Backends that round couplings to a grid, so that sums of them are exact: how far a coupling is off, at most, relative
#: to (the sum of the sizes of all couplings into the unit, the largest coupling). See ``accelerated.cpu.tables``
#: and ``accelerated.cuda_raw.samplers``.
COUPLING_ERROR: Final[Mapping[tuple[str, str], tuple[float, float]]] = MappingProxyType(
    {
        ("numba_cpu", "float32"): (2.0**-30, 0.0),
        ("numba_cpu", "float64"): (2.0**-50, 0.0),
        ("cupy_raw", "float32"): (0.0, 2.0**-24),
    }
)

#: Annealing, by dtype: log-weights against the reference, driven by the same counters and passing through the same
#: states, in nats. Weights are added up in float64, of logits in the machine's dtype: those of float32 are off by some
#: 1e-7 each, weighted with a step of the path and averaged over units and steps; those of float64 by 1e-15.
ANNEALING_LOG_WEIGHT: Final[Mapping[str, float]] = MappingProxyType({"float32": 1e-6, "float64": 1e-9})

#: The mean of a gradient estimator that claims to be unbiased, in its own standard errors, coordinate by coordinate: of
#: 14 rows with 4 coordinates each, one leaves 5 in one run of 30,000.
UNBIASED_ERRORS: Final = 5.0

#: Where one draw makes up more of an estimator's spread than this, heavier ones have not been seen yet: bias and spread
#: of that row are too small, and its standard error means little.
HEAVY_TAIL: Final = 0.02
