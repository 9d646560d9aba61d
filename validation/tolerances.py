"""The only table of bounds in the project, each with its reason."""

from __future__ import annotations

from typing import Final

#: Smoothing transforms and their derivatives, in units of the *mixed error* (see ``validation.accuracy``): the error
#: divided by what one rounding of each input (rho, logit) and of the output does. 1 would be perfect; a handful of
#: elementary functions with about one rounding each stay below 4 when no step amplifies an error.
TRANSFORM_MIXED_ERROR: Final = 4.0
