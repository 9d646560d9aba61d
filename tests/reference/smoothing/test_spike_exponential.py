"""Spike-and-exponential: a mass and a density, the jump where they meet, and derivatives by independent differences.

Accuracy over the whole domain is judged in ``tests/validation/test_accuracy.py``.
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from reference.smoothing.exponential import OverlappingExponential
from reference.smoothing.spike_exponential import SpikeExponential
from reference.vocabulary import DomainError, ShapeError

BETAS = [0.01, 0.7, 3.0, 10.0, 60.0]
LOGITS = [-6.0, -0.5, 0.0, 1.0, 9.0]

betas = st.floats(0.01, 1000)
logits = st.one_of(st.floats(-700, 700), st.floats(-3, 3), st.sampled_from([-np.inf, np.inf]))
unit = st.floats(0, 1)


# ---- r(zeta|z) and the mixture ------------------------------------------------------------------------------------


def density(x, beta):
    """beta e^{beta x} / (e^beta - 1)."""
    return beta * np.exp(beta * (x - 1)) / -np.expm1(-beta)


@pytest.mark.parametrize("beta", BETAS)
def test_r_is_a_mass_or_a_density_and_its_cdf_the_integral(beta):
    smoothing = SpikeExponential(beta)
    for x in (0.03, 0.4, 1.0):
        assert np.exp(smoothing.log_r(x, 1)) == pytest.approx(density(x, beta), rel=1e-13)
        mass, _ = quad(lambda y: density(y, beta), 0, x, points=[0.98 * x], epsabs=1e-12)
        assert smoothing.r_cdf(x, 1) == pytest.approx(mass, abs=1e-10)
        assert smoothing.log_r(x, 0) == -np.inf
        assert smoothing.r_cdf(x, 0) == 1
    # The very number 0 has probability 1 for z = 0, and 0 for z = 1.
    np.testing.assert_array_equal(smoothing.log_r(0.0, [0, 1]), [0, -np.inf])
    np.testing.assert_array_equal(smoothing.r_cdf(0.0, [0, 1]), [1, 0])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("logit_q", LOGITS)
def test_the_mixture_is_a_mass_and_a_density(logit_q, beta):
    smoothing = SpikeExponential(beta)
    p, q = 1 / (1 + np.exp(logit_q)), 1 / (1 + np.exp(-logit_q))
    assert smoothing.cdf(0.0, logit_q) == pytest.approx(p, rel=1e-14)
    assert np.exp(smoothing.log_prob(0.0, logit_q)) == pytest.approx(p, rel=1e-14)
    for end in (0.03, 0.4, 1.0):
        rest, _ = quad(lambda y: q * density(y, beta), 0, end, points=[0.98 * end], epsabs=1e-12)
        assert smoothing.cdf(end, logit_q) == pytest.approx(p + rest, abs=1e-10)
        assert np.exp(smoothing.log_prob(end, logit_q)) == pytest.approx(q * density(end, beta), rel=1e-12)
    assert smoothing.cdf(1.0, logit_q) <= 1


def test_the_density_beyond_the_spike_is_that_of_the_overlapping_exponentials():
    zeta = np.linspace(0.01, 1, 7)
    for beta in BETAS:
        other = OverlappingExponential(beta)
        np.testing.assert_array_equal(SpikeExponential(beta).log_r(zeta, 1), other.log_r(zeta, 1))
        np.testing.assert_array_equal(SpikeExponential(beta).r_cdf(zeta, 1), other.r_cdf(zeta, 1))


def test_zeta_gives_z_away_unless_the_prior_is_certain():
    smoothing = SpikeExponential(np.array([[1.0], [50.0]]))
    zeta = [0.0, 5e-324, 0.5, 1.0]
    for logit_q in (-700.0, 0.0, 30.0):
        np.testing.assert_array_equal(smoothing.nu(zeta, logit_q), [[0, 1, 1, 1]] * 2)
    np.testing.assert_array_equal(smoothing.nu(zeta, -np.inf), np.zeros((2, 4)))
    np.testing.assert_array_equal(smoothing.nu(zeta, np.inf), np.ones((2, 4)))
    np.testing.assert_array_equal(smoothing.log_ratio(zeta), [[-np.inf, np.inf, np.inf, np.inf]] * 2)


def test_certain_priors_make_zeta_impossible():
    smoothing = SpikeExponential(4.0)
    np.testing.assert_array_equal(smoothing.log_prob([0.0, 0.5], -np.inf), [0, -np.inf])
    assert smoothing.log_prob(0.0, np.inf) == -np.inf
    assert smoothing.log_prob(0.5, np.inf) == smoothing.log_r(0.5, 1)
    np.testing.assert_array_equal(smoothing.cdf([0.0, 0.5, 1.0], -np.inf), 1)


# ---- the inverse CDF ----------------------------------------------------------------------------------------------


def test_numbers_worked_by_hand():
    # beta = log 2: r(zeta|1) = log(2) 2^zeta and F(zeta|1) = 2^zeta - 1. With l = 0 the spike takes rho <= 1/2, and
    # rho = 1/2 + (sqrt(2) - 1)/2 = sqrt(1/2) gives zeta = 1/2, where r(1/2|1) = sqrt(2) log 2.
    smoothing = SpikeExponential(np.log(2))
    result = smoothing.inverse_cdf_with_derivatives([0.5, np.sqrt(0.5)], 0.0)
    np.testing.assert_array_equal([result.zeta[0], result.dzeta_dlogit_q[0], result.dzeta_drho[0]], 0)
    assert result.zeta[1] == pytest.approx(0.5, rel=1e-15)
    assert result.dzeta_drho[1] == pytest.approx(2 / (np.sqrt(2) * np.log(2)), rel=1e-15)
    # p q (1 - F)/(q r) = (1/2) (2 - sqrt(2)) / (sqrt(2) log 2)
    assert result.dzeta_dlogit_q[1] == pytest.approx((np.sqrt(2) - 1) / (2 * np.log(2)), rel=1e-15)
    # F = (e^{b x} - 1)/(e^b - 1): dF/db = (x e^{bx} - F e^b)/(e^b - 1) = sqrt(2)/2 - 2 (sqrt(2) - 1) = 2 - 1.5 sqrt(2)
    assert result.dzeta_dbeta[1] == pytest.approx((1.5 * np.sqrt(2) - 2) / (np.sqrt(2) * np.log(2)), rel=1e-14)


@pytest.mark.parametrize("logit_q", [-30.0, -2.0, 0.0, 0.7, 300.0])
def test_on_the_spike_nothing_moves(logit_q):
    p = 1 / (1 + np.exp(logit_q))
    result = SpikeExponential(8.0).inverse_cdf_with_derivatives(p * np.array([0, 1e-9, 0.5, 0.999]), logit_q)
    for output in (result.zeta, result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta):
        np.testing.assert_array_equal(output, 0)


def test_the_ends_of_the_noise():
    logit_q = np.array([-np.inf, -800.0, -50.0, 0.0, 50.0, np.inf])
    smoothing = SpikeExponential(8.0)
    np.testing.assert_array_equal(smoothing.inverse_cdf(0.0, logit_q), 0)
    np.testing.assert_array_equal(smoothing.inverse_cdf(1.0, logit_q), [0, 1, 1, 1, 1, 1])  # z = 1 is impossible once
    result = smoothing.inverse_cdf_with_derivatives(1.0, logit_q)
    np.testing.assert_array_equal(result.dzeta_dlogit_q, 0)
    np.testing.assert_array_equal(result.dzeta_dbeta, 0)
    # 1/(q r(1|1)) overflows for q = e^{-800}: saturated, not infinite.
    assert result.dzeta_drho[1] == np.finfo(np.float64).max
    assert result.dzeta_drho[-1] == pytest.approx(-np.expm1(-8.0) / 8, rel=1e-15)


@settings(max_examples=120)
@given(unit, logits, betas)
def test_cdf_undoes_inverse_cdf_beyond_the_spike(rho, logit_q, beta):
    smoothing = SpikeExponential(beta)
    result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
    assert 0 <= result.zeta <= 1
    if result.dzeta_drho == 0:
        assert result.zeta == 0
        assert rho <= smoothing.cdf(0.0, logit_q) * (1 + 2.0**-51)
    elif result.zeta > 0:
        # zeta is known to a few roundings, which F turns into eps zeta f(zeta); p to eps |l| relative.
        slope = min(1 / float(result.dzeta_drho), 1e300)
        logit = min(abs(logit_q), 700)
        tolerance = 8 * 2.0**-52 * (rho + result.zeta * slope + logit * np.exp(-logit))
        assert abs(smoothing.cdf(result.zeta, logit_q) - rho) <= tolerance + 1e-307


@settings(max_examples=80)
@given(unit, logits, betas)
def test_nothing_warns_and_nothing_is_nan(x, logit_q, beta):
    smoothing = SpikeExponential(beta)
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        result = smoothing.inverse_cdf_with_derivatives(x, logit_q)
        derivatives = (result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta)
        probabilities = (result.zeta, smoothing.cdf(x, logit_q), smoothing.nu(x, logit_q), smoothing.r_cdf(x, [0, 1]))
        densities = (smoothing.log_prob(x, logit_q), smoothing.log_r(x, [0, 1]), smoothing.log_ratio(x))
    assert all(np.isfinite(value) and value >= 0 for value in derivatives)
    assert all(np.all((value >= 0) & (value <= 1)) for value in probabilities)
    assert not any(np.isnan(value).any() for value in densities)


@pytest.mark.parametrize("beta", [*BETAS, 1e3])
def test_monotone_in_noise_and_logit(beta):
    rho, logit_q = np.linspace(0, 1, 501), np.linspace(-40, 40, 401)[:, None]
    zeta = SpikeExponential(beta).inverse_cdf(rho, logit_q)
    assert np.all(np.diff(zeta, axis=1) >= -(2.0**-51))
    assert np.all(np.diff(zeta, axis=0) >= -(2.0**-51))
    np.testing.assert_array_equal(zeta[:, 0], 0)
    np.testing.assert_array_equal(zeta[:, -1], 1)


def test_limits_of_the_sharpness():
    rho, logit_q = np.linspace(0.05, 0.95, 7), np.array([[-2.0], [0.1], [3.0]])
    p = 1 / (1 + np.exp(logit_q))
    # beta -> 0: uniform beyond the spike; beta -> infinity: z itself, 1 where rho exceeds p.
    np.testing.assert_allclose(
        SpikeExponential(1e-9).inverse_cdf(rho, logit_q), np.maximum((rho - p) / (1 - p), 0), rtol=1e-8
    )
    for beta in (1e9, 1e300):
        np.testing.assert_allclose(SpikeExponential(beta).inverse_cdf(rho, logit_q), rho > p, atol=1e-7)


def test_far_beyond_the_reach_of_the_textbook_form():
    # e^beta overflows, rho - p is subnormal, q is below the spacing of rho: zeta against multi-precision arithmetic.
    cases = [(0.3, 2.0, 1000.0), (1e-309, 713.0, 720.0), (3e-320, 741.0, 10.0), (1e-305, np.inf, 1000.0)]
    cases += [(1 - 2.0**-53, -36.0, 50.0), (0.5, 1e-200, 5.0), (0.5 + 2.0**-53, 1e-17, 5.0)]
    for rho, logit_q, beta in cases:
        with mpmath.workdps(900):
            p = 1 / (1 + mpmath.exp(mpmath.mpf(logit_q)))
            zeta = mpmath.log(1 + (mpmath.exp(mpmath.mpf(beta)) - 1) * (mpmath.mpf(rho) - p) / (1 - p)) / beta
        got = SpikeExponential(beta).inverse_cdf(rho, logit_q)
        assert got == pytest.approx(float(zeta), rel=1e-13), (rho, logit_q, beta)  # one rounding of l = 713: 8e-14


# ---- derivatives --------------------------------------------------------------------------------------------------


def zeta_by_brentq(rho, logit_q, beta):
    """The inverse by root finding on the CDF of the definition."""
    q = 1 / (1 + np.exp(-logit_q))
    return brentq(lambda x: 1 - q + q * np.expm1(beta * x) / np.expm1(beta) - rho, 0, 1, xtol=1e-15, rtol=1e-15)


@pytest.mark.parametrize("beta", [0.3, 2.0, 8.0])
@pytest.mark.parametrize(("rho", "logit_q"), [(0.92, -2.0), (0.45, 0.4), (0.9, 0.4), (0.06, 3.0), (0.5, 3.0)])
def test_derivatives_are_those_of_an_inverse_found_by_root_finding(rho, logit_q, beta):
    result = SpikeExponential(beta).inverse_cdf_with_derivatives(rho, logit_q)
    point = np.array([rho, logit_q, beta])
    assert result.zeta == pytest.approx(zeta_by_brentq(*point), rel=1e-12)
    for derivative, i in ((result.dzeta_drho, 0), (result.dzeta_dlogit_q, 1), (result.dzeta_dbeta, 2)):
        step = 1e-5 * np.eye(3)[i]
        difference = (zeta_by_brentq(*(point + step)) - zeta_by_brentq(*(point - step))) / 2e-5
        assert derivative == pytest.approx(difference, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("beta", [0.3, 2.0, 12.0])
@pytest.mark.parametrize("logit_q", [-2.0, 0.0, 1.5])
def test_the_mean_moves_as_it_should(logit_q, beta):
    # zeta is continuous in rho, the edge of the spike included, so d E[zeta]/dl is the mean of dzeta/dl; and E[zeta] =
    # q m with m the mean of r(zeta|1), so it is p q m. (nu is not continuous, hence Rolfe's gradient.) The means are
    # integrals over zeta, with rho = F(zeta) and the density q r(zeta|1), by 100 Gauss-Legendre nodes.
    nodes, weights = np.polynomial.legendre.leggauss(100)
    x, weights = (nodes + 1) / 2, weights / 2
    p, q = 1 / (1 + np.exp(logit_q)), 1 / (1 + np.exp(-logit_q))
    m = weights @ (x * density(x, beta))
    result = SpikeExponential(beta).inverse_cdf_with_derivatives(
        p + q * np.expm1(beta * x) / np.expm1(beta), np.full_like(x, logit_q)
    )
    np.testing.assert_allclose(
        result.zeta, x, atol=2.0**-52 * result.dzeta_drho.max()
    )  # rho holds no more of its digits
    mean = weights @ (result.dzeta_dlogit_q * q * density(x, beta))
    assert mean == pytest.approx(p * q * m, rel=1e-10)
    # A derivative for which the mass p of the spike stood still would not do.
    wrong = weights @ ((result.dzeta_dlogit_q - p * q * result.dzeta_drho) * q * density(x, beta))
    assert abs(wrong / (p * q * m) - 1) > 0.5


# ---- shapes, dtypes, refusals -------------------------------------------------------------------------------------


def test_shapes_and_dtypes():
    smoothing = SpikeExponential(np.array([1.0, 5.0, 20.0, 80.0]))
    rho, logit_q = np.full((2, 1, 1), 0.7), np.zeros((3, 1))
    result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
    outputs = [result.zeta, result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta]
    outputs += [smoothing.log_prob(rho, logit_q), smoothing.cdf(rho, logit_q), smoothing.nu(rho, logit_q)]
    outputs += [smoothing.log_r(rho, logit_q), smoothing.r_cdf(rho, logit_q)]
    assert [output.shape for output in outputs] == [(2, 3, 4)] * len(outputs)
    assert smoothing.log_ratio(rho).shape == (2, 1, 4)
    np.testing.assert_array_equal(result.zeta[..., 1], SpikeExponential(5.0).inverse_cdf(0.7, 0.0))
    assert smoothing.inverse_cdf(np.zeros((0, 4)), 0.0).shape == (0, 4)
    assert SpikeExponential(1.0).inverse_cdf(np.float32(0.7), np.float32(0)).dtype == np.float32
    assert SpikeExponential(1.0).log_prob(np.float32(0.7), np.zeros(2)).dtype == np.float64


def test_refusals_name_argument_rule_and_first_offender():
    smoothing = SpikeExponential(10.0)
    with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; entry 1 is 1\.2"):
        smoothing.inverse_cdf([0.5, 1.2, -1.0], 0.0)
    with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; entry \(1, 0\) is nan"):
        smoothing.inverse_cdf_with_derivatives([[0.5], [np.nan]], 0.0)
    with pytest.raises(DomainError, match="logit_q must not be NaN; entry 2 is nan"):
        smoothing.nu(0.5, [0.0, np.inf, np.nan])
    for operation in (smoothing.cdf, smoothing.log_prob, smoothing.nu):
        with pytest.raises(DomainError, match=r"zeta must lie in \[0, 1\]; it is -0\.1"):
            operation(-0.1, 0.0)
    with pytest.raises(DomainError, match=r"zeta must lie in \[0, 1\]; it is 2\.0"):
        smoothing.log_ratio(2.0)
    for operation in (smoothing.log_r, smoothing.r_cdf):
        with pytest.raises(DomainError, match=r"z must be 0 or 1; entry 1 is 0\.5"):
            operation(0.5, [0, 0.5])
    with pytest.raises(ShapeError, match=r"shapes must broadcast together; got rho \(2,\), logit_q \(3,\), beta \(\)"):
        smoothing.inverse_cdf(np.zeros(2), np.zeros(3))
    with pytest.raises(TypeError, match="zeta must be float32 or float64 numbers; got dtype complex128"):
        smoothing.cdf(np.zeros(2, complex), 0.0)


@pytest.mark.parametrize("beta", [0.0, -1.0, np.inf, np.nan])
def test_beta_must_be_positive_and_finite(beta):
    with pytest.raises(DomainError, match=f"beta must be positive and finite; it is {beta}"):
        SpikeExponential(beta)
    with pytest.raises(DomainError, match=f"beta must be positive and finite; entry 1 is {beta}"):
        SpikeExponential(np.array([1.0, beta]))
