"""Sums with more digits: logarithms, quotients and exponentials against multi-precision arithmetic."""

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from reference.smoothing.compensated import (
    Two,
    divide,
    exact,
    exp,
    exp_times,
    expm1,
    log,
    logs_inside,
    multiply,
    sigmoid,
    two_sum,
)

RNG = np.random.default_rng(0)


def value(x: Two, i: int) -> mpf:
    return mpf(float(x.high[i])) + mpf(float(x.low[i]))


def largest_relative_error(x: Two, expected) -> float:
    return max(float(abs(value(x, i) / expected(i) - 1)) for i in range(len(x.high)))


def test_log_has_four_bits_more_than_a_float64():
    x = np.concatenate(
        [
            np.exp(RNG.uniform(-744, 709, 300)),
            1 + RNG.choice([-1, 1], 300) * 10 ** RNG.uniform(-15, -0.6, 300),
            [5e-324, 2.0**-1022, np.sqrt(0.5), np.nextafter(np.sqrt(0.5), 0), 2.0, 1.7e308],
        ]
    )
    with mpmath.workdps(50):
        assert largest_relative_error(log(exact(x)), lambda i: mpmath.log(mpf(float(x[i])))) < 2.0**-57
        one = log(exact(np.array(1.0)))
        assert one.high == one.low == 0


def test_log_of_a_sum_sees_its_low_part():
    # 1 - x is no float64 for small x: two_sum carries it exactly.
    x = np.exp(RNG.uniform(np.log(1e-15), np.log(0.6), 300))
    with mpmath.workdps(50):
        log_x, log_rest = logs_inside(x)
        assert largest_relative_error(log_rest, lambda i: mpmath.log(1 - mpf(float(x[i])))) < 2.0**-53
        ordinary = x > 1e-12
        kept = Two(log_rest.high[ordinary], log_rest.low[ordinary])
        assert largest_relative_error(kept, lambda i: mpmath.log(1 - mpf(float(x[ordinary][i])))) < 2.0**-57
        assert largest_relative_error(log_x, lambda i: mpmath.log(mpf(float(x[i])))) < 2.0**-57
    at_ends = logs_inside(np.array([0.0, 1.0]))
    np.testing.assert_allclose(at_ends[0].high, np.log(0.5))  # any finite number would do


def test_products_and_quotients_have_twice_the_digits():
    a, b = (two_sum(RNG.standard_normal(300), 1e-17 * RNG.standard_normal(300)) for _ in range(2))
    with mpmath.workdps(50):
        assert largest_relative_error(multiply(a, b), lambda i: value(a, i) * value(b, i)) < 2.0**-100
        assert largest_relative_error(divide(a, b), lambda i: value(a, i) / value(b, i)) < 2.0**-100


def test_exponentials_of_large_exponents_are_right_to_a_rounding_or_so():
    exponent = two_sum(RNG.uniform(-700, 700, 300), 1e-14 * RNG.standard_normal(300))
    with mpmath.workdps(50):
        for i, (e, m, s) in enumerate(zip(exp(exponent), expm1(exponent), sigmoid(exponent), strict=True)):
            x = value(exponent, i)
            assert float(abs(mpf(float(e)) / mpmath.exp(x) - 1)) < 2.0**-51
            assert float(abs(mpf(float(m)) / mpmath.expm1(x) - 1)) < 2.0**-51
            assert float(abs(mpf(float(s)) * (1 + mpmath.exp(-x)) - 1)) < 2.0**-51


def test_exponentials_out_of_range_are_zero_or_infinite_but_a_product_in_range_survives():
    far = Two(np.array([-1e9, -800.0, 800.0, 1e9]), np.array([1e-8, -1e-14, -1e-14, -1e-8]))
    np.testing.assert_array_equal(exp(far), [0, 0, np.inf, np.inf])
    np.testing.assert_array_equal(exp_times(far, np.zeros(4)), 0)
    assert exp_times(exact(np.array(-750.0)), np.array(1e300)) == pytest.approx(
        float(mpmath.exp(-750) * mpf("1e300")), rel=1e-15
    )
    assert exp_times(exact(np.array(750.0)), np.array(-1e-300)) == pytest.approx(
        float(-mpmath.exp(750) * mpf("1e-300")), rel=1e-15
    )
