"""The only table of bounds in the project, each with its reason."""

from __future__ import annotations

from typing import Final

#: Smoothing transforms and their derivatives, in units of the *mixed error* (see ``validation.accuracy``): the error
#: divided by what one rounding of each input (rho, logit) and of the output does. 1 would be perfect; a handful of
#: elementary functions with about one rounding each stay below 4 when no step amplifies an error.
#: Known exception: a log-density that crosses 0 where neither input moves it has no digits that the bound could
#: measure. The overlapping logistic's does so at l = 0, zeta = 0, beta = 7.989 (up to 15 found, |log_prob| < 2e-5).
TRANSFORM_MIXED_ERROR: Final = 4.0

#: A torch twin against the reference, in units of what one rounding of the result and of each input does to the
#: reference (see ``validation.agreement``): two results within 4 of the truth are within 8 of each other.
TWIN_MIXED_ERROR: Final = 2 * TRANSFORM_MIXED_ERROR

#: The mean of a gradient estimator that claims to be unbiased, in its own standard errors, coordinate by coordinate: of
#: 14 rows with 4 coordinates each, one leaves 5 in one run of 30,000.
UNBIASED_ERRORS: Final = 5.0

#: Where one draw makes up more of an estimator's spread than this, heavier ones have not been seen yet: bias and spread
#: of that row are too small, and its standard error means little.
HEAVY_TAIL: Final = 0.02
