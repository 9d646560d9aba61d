"""What the kinds on the real line share: where the derivative by the sharpness vanishes to first order."""

import numpy as np
import pytest

from validation import accuracy
from validation.tolerances import TRANSFORM_MIXED_ERROR

# The sharpness at which nu rises with zeta as fast as zeta itself: log r(zeta|1)/r(zeta|0) has slope 4 at zeta = 1/2.
EQUALLY_STEEP = {"logistic": 3.08673448, "gaussian": 4.0}


@pytest.mark.parametrize("kind", EQUALLY_STEEP)
def test_dbeta_keeps_its_digits_where_nothing_of_first_order_is_left(kind):
    """nu - zeta, a difference of two numbers near 1/2, lost up to 7,000 roundings here when it was one."""
    rng = np.random.default_rng(0)
    n = 40
    logit_q = rng.choice([-1, 1], n) * 10 ** rng.uniform(-12, -1, n)
    rho = 0.5 + rng.choice([-1, 1], n) * 10 ** rng.uniform(-7, -1, n)
    beta = EQUALLY_STEEP[kind] * (1 + rng.choice([-1, 1], n) * 10 ** rng.uniform(-15, -1, n))
    outputs = accuracy.reference_inverse_cdf(rho, logit_q, beta, kind)
    worst = accuracy.mixed_errors(outputs, rho, logit_q, beta, kind)["dzeta_dbeta"]
    assert worst.mixed_error <= TRANSFORM_MIXED_ERROR, worst
