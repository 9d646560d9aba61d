"""2**t and the sampling test in vectors, without a branch and without a call.

t = n + f with n the nearest whole number. Adding 1.5 2**23 (float32; 1.5 2**52 in float64) leaves n in the last bits of
the sum, whence it is shifted into the exponent; f is exact, |f| <= 1/2, and 2**f a polynomial that interpolates
(2**f - 1) / f at Chebyshev points: relative error 3e-9 with 6 coefficients, 1e-17 with 11.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelerated.cpu.philox import LANES, uniform
from accelerated.cpu.vectors import convert, fma, reinterpret, select, splat
from accelerated.jit import inline

_BOUND = 44.0  # 2**-44 is far below the smallest u and 1 - u, 2**-24

_MAGIC32 = np.float32(1.5 * 2.0**23)
_EXPONENT32 = np.uint32(23)
_P32 = tuple(
    np.float32(p)
    for p in (
        0.0001545316294512069,
        0.0013390863364671234,
        0.009618082557277852,
        0.05550357114219078,
        0.24022650760568126,
        0.6931471880262288,
    )
)
_ONE32, _BOUND32 = np.float32(1), np.float32(_BOUND)

_MAGIC64 = 1.5 * 2.0**52
_EXPONENT64 = np.uint64(52)
_P64 = (
    4.4549605981865186e-10,
    7.072585949269223e-09,
    1.0178062445845774e-07,
    1.321544258792169e-06,
    1.525273382983612e-05,
    0.0001540353044173605,
    0.0013333558146416936,
    0.009618129107606888,
    0.0555041086648216,
    0.24022650695910097,
    0.6931471805599453,
)


@inline
def power32(t: Any) -> Any:
    """2**t for float32 numbers in [-120, 120]."""
    magic = splat(_MAGIC32, LANES)
    shifted = t + magic
    f = t - (shifted - magic)
    p = splat(_P32[0], LANES)
    for i in range(1, len(_P32)):
        p = fma(p, f, splat(_P32[i], LANES))
    p = fma(p, f, splat(_ONE32, LANES))
    exponent = reinterpret(shifted, np.uint32) << splat(_EXPONENT32, LANES)
    return reinterpret(reinterpret(p, np.uint32) + exponent, np.float32)


@inline
def power64(t: Any) -> Any:
    """2**t for float64 numbers in [-1000, 1000]."""
    magic = splat(_MAGIC64, LANES)
    shifted = t + magic
    f = t - (shifted - magic)
    p = splat(_P64[0], LANES)
    for i in range(1, len(_P64)):
        p = fma(p, f, splat(_P64[i], LANES))
    p = fma(p, f, splat(1.0, LANES))
    exponent = reinterpret(shifted, np.uint64) << splat(_EXPONENT64, LANES)
    return reinterpret(reinterpret(p, np.uint64) + exponent, np.float64)


@inline
def at_most(x: Any, bound: Any) -> Any:
    """The smaller of both."""
    return select(x < bound, x, bound)


@inline
def at_least(x: Any, bound: Any) -> Any:
    """The larger of both."""
    return select(bound < x, x, bound)


@inline
def fires32(t: Any, words: Any) -> Any:
    """[u < sigmoid(x)] for t = -x / log 2, as u 2**t < 1 - u: no division, and 1 - u is exact."""
    t = at_least(at_most(t, splat(_BOUND32, LANES)), splat(-_BOUND32, LANES))
    u = uniform(words)
    return u * power32(t) < splat(_ONE32, LANES) - u


@inline
def fires64(t: Any, words: Any) -> Any:
    """As ``fires32``."""
    t = at_least(at_most(t, splat(_BOUND, LANES)), splat(-_BOUND, LANES))
    u = convert(uniform(words), np.float64)
    return u * power64(t) < splat(1.0, LANES) - u


@inline
def real32(whole: Any) -> Any:
    """Whole numbers of 32 bits as float32."""
    return convert(whole, np.float32)


@inline
def real64(whole: Any) -> Any:
    """Whole numbers below 2**51 in size, of 64 bits, as float64: added to the bits of a number with the right exponent.

    (Few processors convert vectors of 64-bit integers.)
    """
    magic = splat(_MAGIC64, LANES)
    return reinterpret(whole + reinterpret(magic, np.int64), np.float64) - magic
