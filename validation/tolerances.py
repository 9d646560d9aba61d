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

#: Implementations that compare u with a rounded probability: how many units in the last place of 1 it may be off by
#: (half of one for its own rounding, the rest for the exponential and the quotient behind it), in the dtype of the
#: samples. Near 1 this moves the threshold in x by eps / (1 - u): a unit that is nearly always on is that much off,
#: which no sample will ever show, but which is another bit where two implementations are compared.
PROBABILITY_ROUNDINGS: Final[Mapping[str, float]] = MappingProxyType({"torch": 1.5})

#: Annealing, by dtype: log-weights against the reference, driven by the same counters and passing through the same
#: states, in nats. Weights are added up in float64, of logits in the machine's dtype: those of float32 are off by some
#: 1e-7 each, weighted with a step of the path and averaged over units and steps; those of float64 by 1e-15.
ANNEALING_LOG_WEIGHT: Final[Mapping[str, float]] = MappingProxyType({"float32": 1e-6, "float64": 1e-9})

#: Where one draw makes up more of an estimator's spread than this, heavier ones have not been seen yet: bias and spread
#: of that row are too small, and its standard error means little.
HEAVY_TAIL: Final = 0.02

#: Chance. The probability that any finding of ``validation.statistics`` fails although nothing is wrong: in a run of
#: the reference, the torch twin and ``MOST_BACKENDS`` backends, in both dtypes, quick or full. Every finding gets an
#: equal share (see ``validation.statistics.n_findings``), which makes bounds of about 6 standard errors.
FALSE_ALARM_RATE: Final = 1e-6
MOST_BACKENDS: Final = 10

#: The probability with which the errors of the power column would be caught.
POWER: Final = 0.99

#: Draws that a cell of a table of counts must expect, else it is pooled with others: Pearson's chi-squared then has
#: nearly the tail of a gamma distribution of its mean and variance.
LEAST_EXPECTED: Final = 25.0

#: How often an interval of 3 standard errors on either side of an estimate may miss the truth. It is 0.3 % for normal
#: estimates whose errors are known, and more when errors are estimated from 64 skewed weights.
BRACKET_MISSES: Final = 0.02

#: A derivative against a measured one, in units of the measurement's estimated error. That estimate is a bound wherever
#: the function is smooth within reach (see ``validation.derivatives.differences``), and one of the measurement alone:
#: where the derivative's own rounding shows beside it, the step was too long.
MEASURED_ERRORS: Final = 1.0

#: A measurement whose error is more than this part of what is measured judges nothing, and fails. Smooth functions of
#: moderate inputs are measured to 1e-7 and better, as a rule to 1e-10.
DERIVATIVE_RESOLUTION: Final = 1e-6

#: Forward operations of the reference with which a rounding of beta is excused as that of an input, in float64. A
#: log-density is a sum of terms that may cancel, and where neither zeta nor the logit moves it (the middle for l = 0,
#: the ends) the mixed error has nothing to hold its rounding against: 5.8 at (zeta, l, beta) = (0.49985, 0, 3.1) for
#: the exponentials, 5.6 at (2e-308, -1e-8, 0.4) for the power functions, any number where it crosses 0 (see above).
LOG_DENSITIES: Final = frozenset({"log_prob"})

#: What is worse than ``TRANSFORM_MIXED_ERROR`` in float64, by (subject, kind, output), with the largest error that long
#: searches found (10^4 cases judged, 10^6 screened): log_prob of the reference 4.05, just above the sharpness where its
#: formulas change, at (zeta, l, beta) = (0.195, 1e-8, 3.49); lost to a cancellation by a factor of two or three.
TRANSFORM_EXCEPTIONS: Final[Mapping[tuple[str, str, str], float]] = MappingProxyType(
    {
        ("reference", "exponential", "log_prob"): 5.0,
    }
)
