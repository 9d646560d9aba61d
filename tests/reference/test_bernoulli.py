"""Bernoulli formulas judged by their definitions, sums over z of probabilities and logarithms, in 900 digits."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.bernoulli import entropy, kl, log_prob, sigmoid, softplus
from reference.vocabulary import DomainError, ShapeError

# q log(q / p) of both values, for logits of size 700 (q = 1e-304) that differ in their last digits, cancels to 1e-340.
mpmath.mp.dps = 900

EPS = {np.float64: 2.0**-53, np.float32: 2.0**-24}
LARGEST = {np.float64: 700.0, np.float32: 80.0}  # exp(-logit) is still a normal number
LOGITS = [0.0, 1e-300, -1e-8, 0.3, -1.0, 2.0, -2.0, 5.5, -17.0, 36.9, -37.1, 60.0, -79.0, 300.0, -699.0]
ERROR = 8  # units of EPS, the error of one rounding; measured: 5.5 for kl, 2.2 for entropy


def probs(logit):
    """P(z = 0), P(z = 1)."""
    return 1 / (1 + mpmath.exp(mpmath.mpf(logit))), 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))


def entropy_by_definition(logit):
    return -sum(p * mpmath.log(p) for p in probs(logit))


def kl_by_definition(logit_q, logit_p):
    return sum(q * mpmath.log(q / p) for q, p in zip(probs(logit_q), probs(logit_p), strict=True))


def relative_error(value, truth):
    return float(abs(mpmath.mpf(float(value)) - truth) / abs(truth)) if truth else float(value != 0)


def logits_for(dtype):
    return [dtype(logit) for logit in LOGITS if abs(logit) <= LARGEST[dtype] and (logit == 0 or abs(dtype(logit)) > 0)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relative_accuracy_of_one_logit(dtype):
    for logit in logits_for(dtype):
        p, q = probs(float(logit))
        cases = {
            "sigmoid": (sigmoid(logit), q),
            "softplus": (softplus(logit), -mpmath.log(p)),
            "log_prob of 1": (log_prob(dtype(1), logit), mpmath.log(q)),
            "log_prob of 0": (log_prob(dtype(0), logit), mpmath.log(p)),
            "entropy": (entropy(logit), entropy_by_definition(float(logit))),
        }
        for name, (value, truth) in cases.items():
            assert value.dtype == dtype
            assert relative_error(value, truth) <= ERROR * EPS[dtype], (name, logit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relative_accuracy_of_kl(dtype):
    # Distances on both sides of the switch of formulas at 2, and down to the last digit of the logit.
    for logit_q in logits_for(dtype):
        neighbours = [logit_q + dtype(d) for d in (1e-6, -1e-3, 0.5, -1.999, 2.001, -7.0)]
        neighbours += [np.nextafter(logit_q, dtype(1e3)), -logit_q, *logits_for(dtype)]
        for logit_p in neighbours:
            distance = abs(float(logit_p) - float(logit_q))
            if distance**2 * np.exp(-abs(float(logit_q))) < np.finfo(dtype).tiny:
                continue  # the result is not a normal number
            value = kl(logit_q, logit_p)
            assert value.dtype == dtype
            error = relative_error(value, kl_by_definition(float(logit_q), float(logit_p)))
            assert error <= ERROR * EPS[dtype], (logit_q, logit_p)


def test_certain_units():
    inf = np.inf
    np.testing.assert_array_equal(sigmoid([-inf, inf]), [0, 1])
    np.testing.assert_array_equal(softplus([-inf, inf]), [0, inf])
    np.testing.assert_array_equal(log_prob([0, 1, 0, 1], [-inf, inf, inf, -inf]), [0, 0, -inf, -inf])
    np.testing.assert_array_equal(entropy([-inf, inf, 1e308, -1e308]), 0)
    np.testing.assert_array_equal(kl([inf, -inf], [inf, -inf]), 0)
    np.testing.assert_array_equal(kl([inf, -inf, 0.0, 3.0, -800.0, 800.0], [-inf, inf, inf, -inf, -inf, inf]), inf)
    # KL from a certain unit is -log p of its value: by hand, log 2 for a fair coin and log 4 for p(1) = 1/4.
    np.testing.assert_allclose(kl([inf, -inf, inf], [0.0, 0.0, -np.log(3)]), np.log([2, 2, 4]), rtol=1e-15)
    # Logits so large that q underflows or the distance overflows: -log p of the only value ever seen.
    np.testing.assert_array_equal(kl([-800.0, 800.0, -1e308], [800.0, -800.0, 1e308]), [800.0, 800.0, 1e308])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_properties_over_all_floats(logit_q, logit_p):
    value = kl(logit_q, logit_p)
    assert value >= 0
    assert value == kl(-logit_q, -logit_p)
    assert kl(logit_q, logit_q) == 0
    assert 0 <= entropy(logit_q) <= np.log(2) * (1 + 1e-15)
    assert entropy(logit_q) == entropy(-logit_q)
    assert log_prob(1, logit_q) == -softplus(-logit_q)
    assert np.isclose(np.exp(log_prob(0, logit_q)) + np.exp(log_prob(1, logit_q)), 1, rtol=1e-15)


def test_shapes_broadcast_and_plain_numbers_work():
    assert kl(np.zeros((3, 1)), np.ones(4)).shape == (3, 4)
    assert log_prob(np.ones((2, 1)), np.zeros(3)).shape == (2, 3)
    assert float(entropy(0)) == pytest.approx(np.log(2), rel=1e-15)
    assert float(kl(True, False)) > 0


@pytest.mark.parametrize("function", [sigmoid, softplus, entropy])
def test_functions_of_one_logit_refuse(function):
    with pytest.raises(DomainError, match="logits must not be NaN; entry 1 is nan"):
        function([0.0, np.nan])
    with pytest.raises(TypeError, match="logits must be float32 or float64 numbers; got dtype float16"):
        function(np.zeros(2, np.float16))


def test_functions_of_two_arguments_refuse():
    with pytest.raises(DomainError, match=r"z must be 0 or 1; entry 1 is 0\.5"):
        log_prob([1, 0.5], [0.0, 0.0])
    with pytest.raises(DomainError, match="z must be 0 or 1; entry 0 is nan"):
        log_prob([np.nan], [0.0])
    with pytest.raises(ShapeError, match=r"z \(2,\), logits \(3,\)"):
        log_prob([0, 1], np.zeros(3))
    with pytest.raises(ShapeError, match=r"logit_q \(2,\), logit_p \(3,\)"):
        kl(np.zeros(2), np.zeros(3))
    with pytest.raises(DomainError, match="logit_p must not be NaN"):
        kl(0.0, np.nan)
    with pytest.raises(DomainError, match="logit_q must not be NaN"):
        kl(np.nan, 0.0)
    with pytest.raises(TypeError, match="logit_p must be float32 or float64"):
        kl(0.0, 1j)


@pytest.mark.parametrize(("dtype", "logit"), [(np.float64, -714.4), (np.float64, -740.0), (np.float32, -100.0)])
def test_subnormal_probabilities_are_not_flushed(dtype, logit):
    spacing = float(np.finfo(dtype).smallest_subnormal)
    with mpmath.workdps(30):
        expected = float(mpmath.exp(mpmath.mpf(float(dtype(logit)))))
    assert expected > 0
    assert abs(float(sigmoid(dtype(logit))) - expected) <= spacing
    assert abs(float(entropy(dtype(logit))) - expected * (1 - logit)) <= spacing * (1 - logit)
