"""The overlapping exponentials for float32 results: in float64, without a branch and without a call, so in vectors.

Of the reference's cases those are left out that only the last digits of a float64 need. What is left is rearranged:

- all is multiplied by P = 1 + e^{-|l|}, so that p = 1/P and q = e^{-|l|}/P need no division;
- the sample is the logarithm of one quotient, a/b, and log(a/b) - k log 2 = 2 atanh((a - b)/(a + b)), a scaled by 2^-k:
  one division for quotient and logarithm, and a - b is exact where the quotient is near 1;
- exp and atanh are polynomials, right to 2e-10 and 1e-10: far below the rounding of a float32, 6e-8.

In pieces, because a loop over each piece keeps more elements under way at once than one loop over all of them.
"""

from __future__ import annotations

import math

from accelerated.scalar.bits import from_bits, multiply_add, to_bits

_LARGEST = 700.0  # of |x| in e^x; beyond it nothing is left in float32
FLAT, SHARP = 1e-6, 1400.0  # these formulas are for a beta in between
GENTLE = 30.0  # below it e^{-beta x} is 1 - n to every digit of a float32, n = 1 - e^{-beta x} as a quotient
_NEAR = 0.29  # below 1 - sqrt(1/2): then k is 0
_FLOOR = 1e-250  # of what is divided by: results saturate long before, or are 0
_LOG2E, _LN2 = 1 / math.log(2), math.log(2)
_WHOLE = 1.5 * 2.0**52  # added to a number it leaves the nearest whole number in the last bits
_HALF = (1023 << 52) + (1 << 51)  # keeps the difference of two exponents positive, and rounds it
_EXPONENT = 0x4330000000000000  # of 2^52, whose last bits count in ones
_OFFSET = 2.0**52 + 1023

# exp(r) = 1 + r + r^2 (c_0 + c_1 r + ...) for |r| <= log(2)/2, and atanh(s)/s = 1 + s^2 (c_0 + c_1 s^2 + ...) for
# |s| <= 0.2025, by interpolation in Chebyshev's points, in 40 digits.
_E0, _E1, _E2 = 0.500000001346581, 0.16666666681623232, 0.041666464925285904
_E3, _E4, _E5 = 0.0083333109254809, 0.0013933649996309251, 0.00019890990824673654
_A0, _A1, _A2, _A3 = 0.333333331180044, 0.20000167879092692, 0.14265361258836853, 0.11893680003266305


def decay(x: float) -> float:
    """e^x for -700 <= x <= 700."""
    shifted = multiply_add(x, _LOG2E, _WHOLE)
    r = multiply_add(shifted - _WHOLE, -_LN2, x)
    square = r * r
    high = multiply_add(square, multiply_add(r, _E5, _E4), multiply_add(r, _E3, _E2))
    series = multiply_add(square, multiply_add(square, high, multiply_add(r, _E1, _E0)), 1.0 + r)
    return series * from_bits(((to_bits(shifted) + 1023) & 0xFFF) << 52)


def odds(logit_q: float) -> float:
    """e^{-|l|}, or what is nothing beside it in float32."""
    size = abs(logit_q)
    return decay(-_LARGEST if size > _LARGEST else -size)


def distance(a: float, b: float, difference: float, shift: float, inverse_beta: float) -> float:
    """The sample's distance from its end, from what ``exponential_root`` found."""
    x = (minus_log(a, b, difference) + shift) * inverse_beta
    x = 1.0 if x > 1.0 else x
    return 0.0 if x < 0.0 else x


def sigmoid(logit: float) -> float:
    """1/(1 + e^{-x}) to the precision of a float32, or less than its smallest number."""
    x = -_LARGEST if logit < -_LARGEST else logit
    return 1.0 / (1.0 + decay(-(_LARGEST if x > _LARGEST else x)))


def entropy(logit_q: float) -> tuple[float, float]:
    """As ``accelerated.scalar.entropy``."""
    size = abs(logit_q)
    size = _LARGEST if size > _LARGEST else size
    small = decay(-size)
    whole = 1.0 + small
    share = small / whole
    slope = size * (share / whole)
    return minus_log(1.0, whole, small) + size * share, -slope if logit_q > 0 else slope


def exponential_root(
    rho: float, logit_q: float, odds: float, sharpness: tuple[float, float, float, float], gentle: bool
) -> tuple[float, float, float, float, float, float, float]:
    """(a, b, b - a, shift, side, slope_q, slope_rho): the sample's distance from an end is (shift - log(a/b)) / beta.

    The end is 0 for a side of 1, and 1 for a side of -1. b - a is exact where a/b is near 1, elsewhere it may be b.
    dzeta/dlogit_q is 4 (1 - d)^2/beta slope_q, and dzeta/drho (1 - d)/beta slope_rho. NaN for a rho that is NaN.

    See ``_root`` in ``reference.smoothing.exponential``, whose names these are; all are multiplied by P. ``odds`` is
    ``odds(logit_q)``, ``gentle`` whether beta < GENTLE.
    """
    beta, d, sqrt_d, one_minus_d = sharpness
    P = 1.0 + odds
    mirrored = logit_q > 0
    rest = 1.0 - rho
    below, above = (rest if mirrored else rho), (rho if mirrored else rest)
    scale = one_minus_d * P
    R, R_mirror = below * scale, above * scale
    B = (odds - d) - R_mirror
    S = math.sqrt(multiply_add(B, B, 4.0 * d * odds))
    sum0 = multiply_add(odds, d, 1.0) + R + S
    sum1 = (odds + d) + R_mirror + S
    left = (odds - 1.0) * sqrt_d >= B  # F(1/2) >= rho
    n = 2.0 * (R if left else R_mirror)
    b = sum0 if left else sum1
    a = b - n
    shift = 0.0
    if not gentle:
        y = abs(B) + S
        inside = n >= 0.5 * b
        outer = left | (B >= 0)
        far = y if outer else 2.0 * sqrt_d
        near = 2.0 if left else (2.0 * odds if B >= 0 else y)
        a, b = (far if inside else a), (near if inside else b)
        shift = 0.5 * beta if inside & (B < 0) & (not left) else 0.0
        plateau = inside & (y == 0)  # there the two terms of S are equal, though 0 to the dtype
        a, shift = (b if plateau else a), (0.5 * (beta - abs(logit_q)) if plateau else shift)
        n = b if inside else n
    side = 1.0 if left != mirrored else -1.0
    slope = _FLOOR if S < _FLOOR else S
    area = S * (sum0 * sum1)
    return a, b, n, shift, side, rho * rest * (odds * P) / (_FLOOR if area < _FLOOR else area), P / slope


def minus_log(a: float, b: float, difference: float) -> float:
    """-log(a/b) for normal numbers; ``difference`` is b - a, exact, where 0 <= b - a < 0.29 b; else b will do."""
    gap = to_bits(a) - to_bits(b) + _HALF
    k = (gap >> 52) & 0xFFF  # 1023 + the nearest whole number to log2(a/b), or one beside it
    scaled = from_bits(to_bits(a) + ((1023 - k) << 52))
    near = difference < _NEAR * b
    s = (difference if near else b - scaled) / (b + (a if near else scaled))
    whole = 0.0 if near else from_bits(k | _EXPONENT) - _OFFSET
    t = s * s
    series = multiply_add(t, multiply_add(t, multiply_add(t, multiply_add(t, _A3, _A2), _A1), _A0), 1.0)
    return multiply_add(whole, -_LN2, (s + s) * series)
