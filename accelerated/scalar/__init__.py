"""One element of every transform: Python functions of numbers, which both Numba targets compile.

They take and return floats, call ``math`` and each other, and run uncompiled too (in tests, in the CUDA simulator).
``compiled`` turns one, with all it calls, into functions of a target. What no target has under one name are three
primitives of ``accelerated.scalar.bits``, for which a target puts its own.

float64 results need every rounding where it is written: the functions must be compiled without contraction of a b + c
to one rounding (Numba's default on the CPU; on a CUDA device contraction has to be switched off). Those of
``accelerated.scalar.single``, for float32 results, do not care.
"""

from __future__ import annotations

import dis
import math
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from accelerated.scalar.compensated import divide, two_sum
from accelerated.scalar.exponential import exponential, exponential_log_ratio, exponential_nu
from accelerated.scalar.logistic import logistic, logistic_log_ratio, logistic_nu
from accelerated.scalar.power import power, power_log_ratio, power_nu
from accelerated.scalar.spike_exponential import (
    spike_exponential,
    spike_exponential_log_ratio,
    spike_exponential_nu,
)

#: By kind: (rho, logit_q, sharpness, with_dbeta) -> zeta and its derivatives by logit, rho and beta.
INVERSE_CDF: Mapping[str, Callable[..., tuple[float, float, float, float]]] = {
    "exponential": exponential,
    "logistic": logistic,
    "spike_exponential": spike_exponential,
    "power": power,
}

#: By kind: (zeta, sharpness) -> log_ratio.
LOG_RATIO: Mapping[str, Callable[..., float]] = {
    "exponential": exponential_log_ratio,
    "logistic": logistic_log_ratio,
    "spike_exponential": spike_exponential_log_ratio,
    "power": power_log_ratio,
}

#: By kind: (zeta, logit_q, sharpness) -> nu, for a finite logit.
NU: Mapping[str, Callable[..., float]] = {
    "exponential": exponential_nu,
    "logistic": logistic_nu,
    "spike_exponential": spike_exponential_nu,
    "power": power_nu,
}


def sharpness(kind: str, beta: float) -> tuple[float, ...]:
    """beta and what a kind's functions need of it, so that no element computes it again."""
    decay = math.exp(-beta), math.exp(-beta / 2), -math.expm1(-beta)
    if kind == "spike_exponential":
        half = min(beta / 2, 709.0)  # beyond it the growth overflows in any case
        return beta, decay[0], decay[2], math.exp(half), 2 * math.sinh(half) / beta
    if kind == "power":
        return (beta, *divide((1.0, 0.0), (beta, 0.0)), *divide(two_sum(1.0, -beta), (beta, 0.0)))
    return (beta, *decay)


def entropy(logit_q: float) -> tuple[float, float]:
    """Entropy of one unit and its derivative in the logit; see ``reference.bernoulli.entropy``.

    With s = sigma(-|l|):  -log(1 - s) + |l| s   and   -l s (1 - s).
    """
    size = abs(logit_q)
    if size > 800:  # 0 to every digit, and infinity times 0 is no number
        return 0.0, 0.0
    small = math.exp(-size)
    share = small / (1 + small)
    return math.log1p(small) + size * share, -logit_q * (share / (1 + small))


def compiled(
    function: Callable[..., Any], decorate: Callable[[Any], Any], primitives: Mapping[str, Any] | None = None
) -> Any:
    """A scalar function as a target's, with all functions of this package that it calls.

    ``decorate`` compiles one function (``numba.njit``, ``cuda.jit(device=True)`` with their options); ``primitives``
    replaces functions by name: those of ``accelerated.scalar.bits``.
    """
    made: dict[Any, Any] = {}

    def make(one: Any) -> Any:
        if one not in made:
            names = {step.argval for step in dis.get_instructions(one) if step.opname == "LOAD_GLOBAL"}
            called = {name: one.__globals__[name] for name in names if _is_scalar(one.__globals__.get(name))}
            replaced = {
                name: primitives[name] if primitives and name in primitives else make(value)
                for name, value in called.items()
            }
            copy = FunctionType(one.__code__, one.__globals__ | replaced, one.__name__, one.__defaults__)
            copy.__module__ = one.__module__
            made[one] = decorate(copy)
        return made[one]

    return make(function)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, FunctionType) and value.__module__.startswith(f"{__name__}.")
