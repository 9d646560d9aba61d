"""One element of the spike-and-exponential, in float64; see ``reference.smoothing.spike_exponential``."""

from __future__ import annotations

import math

from accelerated.scalar.series import linear_excess, quadratic_excess

_TINY = 2.0**-1022
_SCALE = 2.0**128  # see ``reference.smoothing.spike_exponential``


def spike_exponential(
    rho: float, logit_q: float, sharpness: tuple[float, float, float, float, float], with_dbeta: bool
) -> tuple[float, float, float, float]:
    """Zeta and its derivatives by logit, rho and beta (0 unless asked for), for rho in [0, 1] and a logit not NaN.

    See ``_draw`` and ``SpikeExponential._inverse_cdf_with_derivatives`` in ``reference.smoothing.spike_exponential``,
    whose names and order this follows. ``sharpness`` is ``accelerated.scalar.spike_sharpness(beta)``.
    """
    beta, d, one_minus_d, root_growth, sinhc = sharpness
    size = abs(logit_q)
    half = math.exp(-size / 2)
    larger = 1 / (1 + half * half)
    likely = logit_q > 0
    q = larger if likely else half * half * larger
    if size < 1:
        excess = ((rho - 0.5) + math.tanh(logit_q / 2) / 2) * _SCALE
    else:
        smaller_scaled = half * _SCALE * half * larger
        excess = rho * _SCALE - smaller_scaled if likely else smaller_scaled - (1 - rho) * _SCALE
    top = rho == 1
    if not ((excess > 0 or top) and logit_q > -math.inf):
        return 0.0, 0.0, 0.0, 0.0

    s_scaled = _SCALE if top else excess / q
    rest = 0.0 if top else (1 - rho) / q
    n1, decay = rest * one_minus_d, s_scaled / _SCALE + rest * d
    from_right = math.inf
    if n1 < 0.5:
        from_right = -math.log1p(-n1) / beta
    elif decay > 0:
        from_right = -math.log(decay) / beta
    straight = s_scaled * root_growth * (sinhc / _SCALE)
    growth = beta * straight
    if from_right < 0.5 or math.isinf(growth):
        x1 = min(from_right, 1.0)
        x0 = 1 - x1
    else:
        x0 = straight if growth < _TINY else math.log1p(growth) / beta
        x1 = 1 - x0

    density = beta * decay
    slope = one_minus_d / density if density > 0 else math.inf
    p0, p1 = (half * larger, half) if likely else (larger, 1.0)
    dlogit_q = 0.0 if rest == 0 or p0 == 0 else (p0 * slope) * (rest * p1)
    dbeta = 0.0
    if with_dbeta:
        a, t = beta * x0, beta * x1
        decay_a = math.exp(-a)
        of_one = quadratic_excess(a, decay_a) + decay_a * linear_excess(t, math.exp(-t))
        dbeta = x0 * (x1 * (of_one / one_minus_d))
    return x0, dlogit_q, slope / q if q > 0 else math.inf, dbeta


def spike_exponential_log_ratio(zeta: float, sharpness: tuple[float, float, float, float, float]) -> float:
    """See ``reference.smoothing.SpikeExponential.log_ratio``."""
    return math.inf if zeta > 0 else -math.inf


def spike_exponential_nu(zeta: float, logit_q: float, sharpness: tuple[float, float, float, float, float]) -> float:
    """See ``reference.smoothing.SpikeExponential.nu``."""
    return 1.0 if zeta > 0 else 0.0
