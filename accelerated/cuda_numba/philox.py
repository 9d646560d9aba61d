"""Philox4x32-10 and the draw of one unit as device functions; see ``reference.philox`` for the addresses.

Device functions that live in another module than their kernel must not use ``cuda`` inside: the simulator exchanges
that name, module by module, while a kernel runs, and its threads would get in each other's way.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_K0, _K1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_STREAM_SHIFT = np.uint64(24)
_DROPPED_BITS = np.uint64(9)

# Past this the answer is no: the smallest uniform times its exponential is far above 1, and far from overflow.
_LARGEST_EXPONENT = 80.0


@cuda.jit(device=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Four random words of a counter and a key, all uint64 below 2**32; see ``reference.philox.philox4x32``."""
    for _ in range(_ROUNDS):
        product0, product1 = _M0 * c0, _M1 * c2  # 32 x 32 bits fit in 64
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + _K0) & _LOW, (k1 + _K1) & _LOW
    return c0, c1, c2, c3


@cuda.jit(device=True)
def words_at(block, chain, step, stream, key0, key1):
    """Words of units 4 block .. 4 block + 3 of one chain at one step of one stream; all arguments uint64."""
    return philox(block, chain, step & _LOW, (step >> _HALF) | (stream << _STREAM_SHIFT), key0, key1)


@functools.cache
def draw_in(dtype: np.dtype[Any]) -> Any:
    """Device function (logit, word) -> whether the unit is on, in the arithmetic of ``dtype``.

    u < sigmoid(x) is u exp(-x) < 1 - u, and 1 - u is exact: one rounding fewer, and no division.
    """
    real = dtype.type
    half, cell, one, largest = real(0.5), real(2.0**-23), real(1), real(_LARGEST_EXPONENT)

    @cuda.jit(device=True)
    def draw(logit, word):
        u = (real(word >> _DROPPED_BITS) + half) * cell
        exponent = -logit if -logit < largest else largest
        return u * real(math.exp(exponent)) < one - u

    return draw


@cuda.jit(device=True)
def uniform(word):
    """The uniform number of a word, float64; see ``reference.philox.uniforms``."""
    return (np.float64(word >> _DROPPED_BITS) + 0.5) * 2.0**-23
