"""KL balancing: numbers worked by hand, what holds for all KLs, and the edges where a mean is zero or negative."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from reference.kl_balancing import balanced_kl, coefficients
from reference.vocabulary import DomainError, ShapeError

KLS = np.array([[1.0, 6.0, 0.0, 1.0], [3.0, 2.0, 0.0, 3.0]])  # batch means 2, 4, 0, 2: their mean is 2

group_kls = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-10, 1e4))


def test_numbers_worked_by_hand():
    np.testing.assert_array_equal(coefficients(KLS, 0.5), [1, 2, 0, 1])
    np.testing.assert_array_equal(balanced_kl(KLS, 0.5), [0.5 * (1 + 12 + 0 + 1), 0.5 * (3 + 4 + 0 + 3)])
    np.testing.assert_array_equal(coefficients(KLS, np.nextafter(1, 0)), [1, 2, 0, 1])
    np.testing.assert_array_equal(coefficients(KLS, 1.0), 1)
    np.testing.assert_array_equal(balanced_kl(KLS, 1.0), [8, 8])  # the KL itself
    np.testing.assert_array_equal(coefficients(KLS, 0.0), [1, 2, 0, 1])
    np.testing.assert_array_equal(balanced_kl(KLS, 0.0), 0)


def test_a_single_group_is_not_changed():
    np.testing.assert_array_equal(coefficients([[0.3], [4.0]], 0.2), [1])
    np.testing.assert_allclose(balanced_kl([[0.5], [4.0]], 0.5), [0.25, 2.0], rtol=1e-15)


@given(group_kls, st.floats(0, 1))
def test_mean_one_in_the_order_of_the_means_and_never_negative(group_kl, kl_weight):
    c = coefficients(group_kl, kl_weight)
    assert c.shape == (group_kl.shape[1],)
    assert c.mean() == pytest.approx(1, rel=1e-13)
    assert c.min() >= 0
    means = group_kl.mean(axis=0)
    if kl_weight < 1:
        assert np.all(np.diff(c[np.argsort(means)]) >= 0)
    expected = sum(kl_weight * c[m] * group_kl[:, m] for m in range(len(c)))
    np.testing.assert_allclose(balanced_kl(group_kl, kl_weight), expected, rtol=1e-12, atol=1e-9)


@given(group_kls, st.floats(0, 0.999), st.integers(0, 2**32 - 1))
def test_units_and_the_order_of_groups_and_rows_do_not_matter(group_kl, kl_weight, seed):
    c = coefficients(group_kl, kl_weight)
    np.testing.assert_array_equal(coefficients(group_kl * 0.25, kl_weight), c)  # a power of 2 is exact
    order = np.random.default_rng(seed).permutation(len(c))
    np.testing.assert_allclose(coefficients(group_kl[:, order], kl_weight), c[order], rtol=1e-13)


def test_groups_that_carry_less_pay_less_than_without_balancing():
    c = coefficients(KLS, 0.3)
    assert c[0] == 1  # at the mean: as it was
    assert c[1] > 1
    assert c[2] < 1


def test_zero_and_negative_means():
    np.testing.assert_array_equal(coefficients(np.zeros((3, 2)), 0.5), 1)  # nobody carries anything
    np.testing.assert_array_equal(balanced_kl(np.zeros((3, 2)), 0.5), 0)
    # A batch mean of -1 stands for a small KL and counts as 0; the others are 1 and 5.
    np.testing.assert_allclose(coefficients([[-1.0, 1.0, 5.0]], 0.5), [0, 0.5, 2.5], rtol=1e-15)
    np.testing.assert_array_equal(coefficients([[-1.0, -2.0]], 0.5), 1)
    # Rows may be negative as long as the mean is not.
    np.testing.assert_array_equal(coefficients([[-1.0, 2.0], [3.0, 0.0]], 0.5), 1)


def test_no_overflow_and_no_underflow():
    np.testing.assert_allclose(coefficients([[1e308, 1e308, 1e307]], 0.5), np.array([1, 1, 0.1]) / 0.7, rtol=1e-14)
    np.testing.assert_allclose(coefficients([[5e-324, 0.0]], 0.5), [2, 0], rtol=1e-15)


def test_the_coefficients_are_constants_for_the_gradient():
    """kl_weight c is the derivative with c held fixed; with c free to move the true derivative is another one."""
    step, kl_weight = 1e-6, 0.5
    c = coefficients(KLS, kl_weight)
    moved = KLS.copy()
    moved[0, 1] += step
    held = kl_weight * (moved - KLS) @ c / step
    np.testing.assert_allclose(held, [kl_weight * c[1], 0], rtol=1e-8)
    free = (balanced_kl(moved, kl_weight) - balanced_kl(KLS, kl_weight)).sum() / step
    assert abs(free - kl_weight * c[1]) > 0.1


def test_arguments_that_do_not_fit_are_refused():
    for function in (coefficients, balanced_kl):
        for kl_weight in (-0.1, 1.5, np.nan):
            with pytest.raises(DomainError, match=rf"kl_weight must lie in \[0, 1\]; it is {kl_weight}"):
                function(KLS, kl_weight)
        bad = KLS.copy()
        bad[1, 2] = np.nan
        with pytest.raises(DomainError, match=r"group_kl must be finite; entry \(1, 2\) is nan"):
            function(bad, 0.5)
        with pytest.raises(ShapeError, match=r"group_kl must be \(B, G\), one column per group, .* got \(4,\)"):
            function(KLS[0], 0.5)
        for empty in (KLS[:0], KLS[:, :0]):
            with pytest.raises(ShapeError, match="at least one row and group"):
                function(empty, 0.5)
        with pytest.raises(TypeError, match="group_kl must be float32 or float64 numbers; got dtype float16"):
            function(KLS.astype(np.float16), 0.5)
