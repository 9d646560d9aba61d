"""Unevaluated sums: exact by rational arithmetic, and the functions of them against multi-precision arithmetic."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reference.smoothing.compensated import Two, add, exp, sigmoid, two_product, two_sum

EPS = 2.0**-52
numbers = st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)


def arrays(*values):
    return tuple(np.array([value]) for value in values)


def exactly(two):
    return Fraction(float(two.high[0])) + Fraction(float(two.low[0]))


@given(numbers, numbers)
def test_sums_and_products_are_exact(x, y):
    a, b = arrays(x, y)
    assert exactly(two_sum(a, b)) == Fraction(x) + Fraction(y)
    assert exactly(two_product(a, b)) == Fraction(x) * Fraction(y)
    for two in (two_sum(a, b), two_product(a, b)):  # low is what the rounding of high left over, so high + low is high
        assert two.high + two.low == two.high


@given(numbers, numbers, numbers, numbers)
def test_sums_of_sums_have_twice_the_digits(x, y, u, v):
    a, b = two_sum(*arrays(x, y * 1e-17)), two_sum(*arrays(u, v * 1e-17))
    expected = exactly(a) + exactly(b)
    size = abs(exactly(a)) + abs(exactly(b))
    assert abs(exactly(add(a, b)) - expected) <= 4 * Fraction(EPS) ** 2 * size


@given(st.floats(-700, 700), st.floats(-1, 1))
def test_exponential_and_sigmoid_see_the_low_part(high, fraction):
    assume(abs(high) > 1e-300)
    two = two_sum(*arrays(high, fraction * high * 2.0**-53))
    with mpmath.workdps(40):
        x = mpmath.mpf(float(two.high[0])) + mpmath.mpf(float(two.low[0]))
        assert exp(two)[0] == pytest.approx(float(mpmath.exp(x)), rel=2 * EPS)
        assert sigmoid(two)[0] == pytest.approx(float(1 / (1 + mpmath.exp(-x))), rel=3 * EPS)


def test_one_rounded_exponent_is_not_enough():
    # The test above must fail for exp(high), or low is never looked at: 500.1 * 1.3 rounds by about 5e-14.
    two = two_product(*arrays(500.1, 1.3))
    with mpmath.workdps(40):
        true = float(mpmath.exp(mpmath.mpf(500.1) * mpmath.mpf(1.3)))
    assert exp(two)[0] == pytest.approx(true, rel=2 * EPS)
    assert abs(np.exp(two.high[0]) / true - 1) > 50 * EPS


def test_sigmoid_of_infinite_and_of_hardly_representable_logits():
    zero = np.zeros(2)
    np.testing.assert_array_equal(sigmoid(Two(np.array([-np.inf, np.inf]), zero)), [0, 1])
    with mpmath.workdps(40):
        subnormal = float(mpmath.exp(-740))
    np.testing.assert_array_equal(sigmoid(Two(np.array([-740.0, 740.0]), zero)), [subnormal, 1])
