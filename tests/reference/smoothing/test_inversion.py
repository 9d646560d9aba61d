"""The safeguarded Newton iteration, on functions that lead Newton alone astray."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.smoothing.inversion import solve

ROOTS = np.array([-30.0, -3.0, -1e-3, 0.0, 0.1, 7.0, 29.0])
BRACKET = (np.full(7, -31.0), np.full(7, 31.0))


def counted(f):
    """f with the number of its calls."""

    def counting(x):
        counting.calls += 1
        return f(x)

    counting.calls = 0
    return counting


def test_a_line_takes_one_step_and_one_to_notice():
    f = counted(lambda x: (2 * (x - ROOTS), np.full(7, 2.0)))
    np.testing.assert_allclose(solve(f, *BRACKET, np.zeros(7)), ROOTS, rtol=1e-15, atol=1e-15)
    assert f.calls <= 3


@pytest.mark.parametrize("start", [-31.0, -10.0, 0.3, 31.0])
def test_functions_on_which_newton_alone_diverges_circles_or_crawls(start):
    starts = np.full(7, start)

    def arctan(x):  # diverges
        return np.arctan(10 * (x - ROOTS)), 10 / (1 + (10 * (x - ROOTS)) ** 2)

    def root(x):  # circles between x and its mirror image
        y = x - ROOTS
        return np.sign(y) * np.sqrt(np.abs(y)), 0.5 / np.sqrt(np.maximum(np.abs(y), 1e-300))

    def exponential(x):  # crawls down by 1 a step
        return np.expm1(np.minimum(20 * (x - ROOTS), 700)), 20 * np.exp(np.minimum(20 * (x - ROOTS), 700))

    for f in map(counted, (arctan, root, exponential)):
        np.testing.assert_allclose(solve(f, *BRACKET, starts), ROOTS, rtol=4e-15, atol=4e-15)
        assert f.calls < 130


def test_values_and_slopes_that_overflow_or_vanish_cost_only_a_halving():
    def f(x):
        value = np.where(x < 0, -np.inf, x - 2.0)
        return value, np.where(x > 3, 0.0, np.where(x < 0, np.nan, 1.0))

    np.testing.assert_allclose(solve(f, np.array([-50.0]), np.array([80.0]), np.array([-20.0])), [2.0], rtol=1e-15)


def test_shapes_broadcast_and_the_start_is_brought_into_the_bracket():
    roots = np.array([[0.25], [0.75]])
    result = solve(lambda x: (x - roots, np.ones_like(x)), np.zeros((2, 1)), np.ones(3), np.array(5.0))
    np.testing.assert_allclose(result, np.broadcast_to(roots, (2, 3)), rtol=1e-15)


def test_an_end_of_the_bracket_may_be_the_root():
    ends = np.array([0.0, 1.0])
    np.testing.assert_array_equal(
        solve(lambda x: (x - ends, np.ones(2)), np.zeros(2), np.ones(2), np.full(2, 0.3)), ends
    )


@given(st.floats(-20, 20), st.floats(0.01, 100), st.floats(-25, 25))
def test_the_root_of_a_steep_sigmoid(root, steepness, start):
    def f(x):
        return np.tanh(steepness * (x - root)), steepness / np.cosh(
            np.minimum(np.abs(steepness * (x - root)), 300)
        ) ** 2

    result = solve(f, np.array(-25.0), np.array(25.0), np.array(start))
    assert float(result) == pytest.approx(root, rel=1e-14, abs=1e-14)


def test_raises_where_there_is_nothing_to_find():
    with pytest.raises(ArithmeticError, match="did not converge in 200 steps; first at entry 1"):
        solve(lambda x: (np.array([0.0, np.nan]) * x, np.ones(2)), np.full(2, -2.0), np.ones(2), np.full(2, 0.3))
