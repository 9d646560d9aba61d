"""Smoothed samples with what else is asked for, one element per step of a thread; see ``accelerated.scalar``.

Everything is computed in float64 and rounded once, for float32 arrays too.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import cuda

from accelerated import scalar
from accelerated.cuda_numba.rounding import device_function


@cuda.jit(device=True)
def _saturated(x, largest):
    """x, or the largest number of its sign in its place: then 0 times it is 0. NaN stays."""
    return largest if x > largest else (-largest if x < -largest else x)


@functools.cache
def inverse_cdf_kernel(kind: str, dtype: np.dtype[Any], extras: frozenset[str]) -> Any:
    """Kernel for vectors of ``dtype``; what is not among ``extras`` is not computed, and its array not touched."""
    real = dtype.type
    draw = device_function(scalar.INVERSE_CDF[kind])
    log_ratio_of = device_function(scalar.LOG_RATIO[kind])
    nu_of = device_function(scalar.NU[kind])
    with_dlogit_q, with_drho, with_dbeta = (f"dzeta_d{name}" in extras for name in ("logit_q", "rho", "beta"))
    with_log_ratio, with_nu = "log_ratio" in extras, "nu" in extras
    largest = float(np.finfo(dtype).max)
    missing, infinite = float("nan"), float("inf")

    @cuda.jit
    def inverse_cdf(rho, logit_q, sharpness, zeta, dlogit_q, drho, dbeta, log_ratio, nu):
        for i in range(cuda.grid(1), zeta.shape[0], cuda.gridsize(1)):
            r, logit = float(rho[i]), float(logit_q[i])
            valid = r >= 0.0 and r <= 1.0 and logit == logit
            x = by_logit = by_rho = by_beta = missing
            if valid:
                x, by_logit, by_rho, by_beta = draw(r, logit, sharpness, with_dbeta)
            zeta[i] = real(x)
            if with_dlogit_q:
                dlogit_q[i] = real(_saturated(by_logit, largest))
            if with_drho:
                drho[i] = real(_saturated(by_rho, largest))
            if with_dbeta:
                dbeta[i] = real(_saturated(by_beta, largest))
            if with_log_ratio or with_nu:
                rounded = float(zeta[i])
                if with_log_ratio:
                    log_ratio[i] = real(log_ratio_of(rounded, sharpness)) if valid else real(missing)
                if with_nu:
                    if not valid:
                        nu[i] = real(missing)
                    elif abs(logit) == infinite:  # a certain prior stays certain, whatever zeta says
                        nu[i] = real(1.0 if logit > 0.0 else 0.0)
                    else:
                        nu[i] = real(nu_of(rounded, logit, sharpness))

    return inverse_cdf
