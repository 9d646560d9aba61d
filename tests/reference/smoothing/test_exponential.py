"""Overlapping exponentials: densities, limits, symmetries, and derivatives by independent differences.

Accuracy over the whole domain is judged in ``tests/validation/test_accuracy.py``.
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from reference.smoothing import OverlappingExponential
from reference.vocabulary import DomainError, ShapeError
from validation.accuracy import mixed_errors
from validation.tolerances import TRANSFORM_MIXED_ERROR

BETAS = [0.01, 0.7, 3.0, 10.0, 60.0]
LOGITS = [-6.0, -0.5, 0.0, 1.0, 9.0]

#: (rho, logit_q, beta) found by search, at which dzeta_dbeta was 4.1 to 6 roundings off, by one arrangement or another.
HARD_FOR_DBETA = (
    (0.42510486803244546, 1.179030065434715e-08, 5.853505584421013),
    (0.42882456738812813, 1.1796472670212662e-08, 5.956111509241309),
    (0.4276968814310741, -7.456997663177819e-12, 5.933909643188957),
    (0.20120118277178733, 33.79224738385996, 1.769703005224161),
    (0.22437663847198352, 27.679392538258792, 2.022631671460477),
    (0.16287170370192983, 0.8789335372840539, 3.7639037695646795),
)
ENDS = [0.02, 0.5, 0.98]  # where quad should look twice: the mass of a sharp smoothing is near 0 and 1

betas = st.floats(0.01, 1000)
logits = st.floats(-700, 700)
unit = st.floats(0, 1)


# ---- r(zeta|z) and the mixture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("z", [0, 1])
def test_r_is_a_density_and_its_cdf_the_integral(z, beta):
    smoothing = OverlappingExponential(beta)
    for end in (0.03, 0.4, 1.0):
        mass, _ = quad(lambda x: np.exp(smoothing.log_r(x, z)), 0, end, points=[x for x in ENDS if x < end])
        assert mass == pytest.approx(float(smoothing.r_cdf(end, z)), abs=1e-10)
    assert smoothing.r_cdf(0.0, z) == 0
    assert smoothing.r_cdf(1.0, z) == pytest.approx(1, rel=1e-15)
    # The mode of each is its own end, and they are each other's mirror image.
    assert smoothing.log_r(float(z), z) > smoothing.log_r(1.0 - z, z)
    assert smoothing.log_r(0.3, z) == pytest.approx(float(smoothing.log_r(0.7, 1 - z)), rel=1e-14)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("logit_q", LOGITS)
def test_the_mixture_is_a_density_and_its_cdf_the_integral(logit_q, beta):
    smoothing = OverlappingExponential(beta)
    for end in (0.03, 0.4, 1.0):
        mass, _ = quad(
            lambda x: np.exp(smoothing.log_prob(x, logit_q)), 0, end, points=[x for x in ENDS if x < end], epsabs=1e-12
        )
        assert mass == pytest.approx(float(smoothing.cdf(end, logit_q)), abs=1e-10)
    assert smoothing.cdf(1.0, logit_q) == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize("beta", BETAS)
def test_log_ratio_is_the_difference_of_the_log_densities(beta):
    smoothing = OverlappingExponential(beta)
    zeta = np.linspace(0, 1, 11)
    difference = smoothing.log_r(zeta, 1) - smoothing.log_r(zeta, 0)
    np.testing.assert_allclose(smoothing.log_ratio(zeta), difference, rtol=1e-13, atol=1e-13)


def test_numbers_worked_by_hand():
    # beta = log 2: d = 1/2, r(zeta|0) = 2 log(2) 2^-zeta, F(1/2|0) = 2 (1 - 2^-1/2); with q = 1/2 the median is 1/2.
    smoothing = OverlappingExponential(np.log(2))
    assert np.exp(smoothing.log_r(0.0, 0)) == pytest.approx(2 * np.log(2), rel=1e-15)
    assert smoothing.r_cdf(0.5, 0) == pytest.approx(2 - np.sqrt(2), rel=1e-15)
    assert smoothing.r_cdf(0.5, 1) == pytest.approx(np.sqrt(2) - 1, rel=1e-15)
    assert smoothing.inverse_cdf(0.5, 0.0) == 0.5
    assert smoothing.inverse_cdf(2 - np.sqrt(2), -np.inf) == pytest.approx(0.5, rel=1e-15)


def test_gentle_densities_keep_the_digits_of_their_small_logs():
    # log(b/(1 - e^-b)) = b/2 - b^2/24 + b^4/2880 - ... (Bernoulli numbers), of which a log of a rounded quotient keeps
    # 12 digits; at the far end log(b/(e^b - 1)) = that - b.
    beta = 2.0**-10
    near = beta / 2 - beta**2 / 24 + beta**4 / 2880
    smoothing = OverlappingExponential(beta)
    for z in (0, 1):
        assert smoothing.log_r(float(z), z) == pytest.approx(near, rel=3e-16)
        assert smoothing.log_r(1.0 - z, z) == pytest.approx(near - beta, rel=3e-16)
    # For l = 0 the density at 0 is (b/2) coth(b/2) = 1 + b^2/12 - ..., at 1/2 it is (b/2)/sinh(b/2) = 1 - b^2/24 + ...
    assert smoothing.log_prob(0.0, 0.0) == pytest.approx(beta**2 / 12 - 7 * beta**4 / 1440, rel=5e-16)
    assert smoothing.log_prob(0.5, 0.0) == pytest.approx(-(beta**2) / 24 + beta**4 / 2880, rel=5e-16)


@pytest.mark.parametrize("beta", [0.013, 0.9, 2.99, 3.01, 17.3, 333.3])
@pytest.mark.parametrize("logit_q", [-700.1, -3.3, 0.0, 0.7, 45.6])
def test_logs_and_tails_against_multi_precision(logit_q, beta):
    # Both sides of the switch at 3 between two forms, and exponents whose rounding alone would cost hundreds of eps.
    zeta = np.array([1e-200, 1e-9, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    smoothing = OverlappingExponential(beta)
    with mpmath.workdps(700):
        b, q = mpmath.mpf(beta), 1 / (1 + mpmath.exp(-mpmath.mpf(logit_q)))
        peak = b / (1 - mpmath.exp(-b))
        for i, x in enumerate(map(mpmath.mpf, zeta.tolist())):
            r0, r1 = peak * mpmath.exp(-b * x), peak * mpmath.exp(b * (x - 1))
            F1 = mpmath.expm1(b * x) / mpmath.expm1(b)
            assert smoothing.r_cdf(zeta, 1)[i] == pytest.approx(float(F1), rel=1e-15)
            posterior = q * r1 / ((1 - q) * r0 + q * r1)
            assert smoothing.nu(zeta, logit_q)[i] == pytest.approx(float(posterior), rel=2e-15, abs=1e-323)
            log_density = float(mpmath.log((1 - q) * r0 + q * r1))
            rounding = 2.0**-52 * (float(x) * beta + min(abs(logit_q), 3) * min(beta, 1))  # of zeta and of the logit
            assert smoothing.log_prob(zeta, logit_q)[i] == pytest.approx(log_density, rel=1e-15, abs=4 * rounding)


def test_a_certain_prior_outweighs_what_zeta_says():
    smoothing = OverlappingExponential(1e3)
    np.testing.assert_array_equal(smoothing.nu([0.0, 0.5, 1.0], np.inf), 1)
    np.testing.assert_array_equal(smoothing.nu([0.0, 0.5, 1.0], -np.inf), 0)
    # ... and a nearly certain one does not: nu(0) is e^{-1000 + 300}, here in units of e^{-700}.
    assert smoothing.nu(0.0, 300.0) == pytest.approx(np.exp(-700.0), rel=1e-14)


# ---- the inverse CDF ----------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=120)
@given(unit, logits, betas)
def test_cdf_undoes_inverse_cdf(rho, logit_q, beta):
    smoothing = OverlappingExponential(beta)
    result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
    # zeta is known to a few roundings, which F turns into eps zeta f(zeta); the smaller of p and q to eps |l| relative,
    # and the e^{-beta (1 - zeta)} of F to eps beta relative.
    slope = min(1 / float(result.dzeta_drho), 1e300)
    small = abs(logit_q) / (1 + np.exp(min(abs(logit_q), 700)))
    tolerance = 8 * 2.0**-52 * (rho * (1 + beta) + result.zeta * slope + small)
    assert abs(smoothing.cdf(result.zeta, logit_q) - rho) <= tolerance + 1e-307


@settings(deadline=None, derandomize=True, max_examples=120)
@given(unit, logits, betas)
def test_mirror_symmetry(rho, logit_q, beta):
    mirror = 1 - rho
    rho = 1 - mirror  # so that both are exact
    here = OverlappingExponential(beta).inverse_cdf_with_derivatives(rho, logit_q)
    there = OverlappingExponential(beta).inverse_cdf_with_derivatives(mirror, -logit_q)
    assert here.zeta + there.zeta == pytest.approx(1, abs=2.0**-52)
    assert here.dzeta_dlogit_q == pytest.approx(float(there.dzeta_dlogit_q), rel=1e-14, abs=1e-300)
    assert here.dzeta_drho == pytest.approx(float(there.dzeta_drho), rel=1e-14)
    rounding = 4 * 2.0**-52 * float(here.dzeta_drho)  # of rho, at which dzeta/dbeta may pass through zero
    assert here.dzeta_dbeta == pytest.approx(-float(there.dzeta_dbeta), rel=1e-13, abs=rounding)


@pytest.mark.parametrize("beta", [*BETAS, 1e3])
def test_monotone_in_noise_and_logit_and_inside_the_unit_interval(beta):
    smoothing = OverlappingExponential(beta)
    rho, logit_q = np.linspace(0, 1, 501), np.linspace(-40, 40, 401)[:, None]
    zeta = smoothing.inverse_cdf(rho, logit_q)
    slack = 2.0**-51
    assert np.all(np.diff(zeta, axis=1) >= -slack)
    assert np.all(np.diff(zeta, axis=0) >= -slack)
    assert zeta.min() == 0
    assert zeta.max() == 1
    np.testing.assert_array_equal(zeta[:, 0], 0)
    np.testing.assert_array_equal(zeta[:, -1], 1)


def test_limits_of_the_sharpness():
    rho, logit_q = np.linspace(0.05, 0.95, 7), np.array([[-2.0], [0.1], [3.0]])
    np.testing.assert_allclose(OverlappingExponential(1e-9).inverse_cdf(rho, logit_q), rho + 0 * logit_q, rtol=1e-8)
    # zeta - rho is beta/8 at most.
    for beta in (1e-300, 1e-17, 1e-16, 3e-16, 1e-12):
        flat = OverlappingExponential(beta).inverse_cdf(rho, logit_q)
        np.testing.assert_allclose(flat, rho + 0 * logit_q, rtol=0, atol=beta / 8 + 2e-16)
    step = rho > 1 / (1 + np.exp(logit_q))  # z itself: 1 where rho exceeds p
    np.testing.assert_allclose(OverlappingExponential(1e9).inverse_cdf(rho, logit_q), step, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_units_are_single_exponentials(dtype):
    # q = 0: rho = F(zeta|0), so zeta = -log(1 - rho (1 - d))/beta; q = 1 is its mirror image.
    rho = np.array([0.0, 0.25, 0.5, 1.0], dtype)
    zeta = -np.log1p(rho.astype(float) * np.expm1(-5.0)) / 5
    smoothing = OverlappingExponential(5.0)
    tolerance = {"rtol": 2 * np.finfo(dtype).eps, "atol": np.finfo(dtype).eps}
    np.testing.assert_allclose(smoothing.inverse_cdf(rho, dtype(-np.inf)), zeta, **tolerance)
    np.testing.assert_allclose(smoothing.inverse_cdf(1 - rho, dtype(np.inf)), 1 - zeta, **tolerance)


# ---- derivatives --------------------------------------------------------------------------------------------------


def zeta_by_brentq(rho, logit_q, beta):
    """The inverse by root finding on the CDF of the definition."""
    q, d = 1 / (1 + np.exp(-logit_q)), np.exp(-beta)

    def excess(x):
        return ((1 - q) * (1 - np.exp(-beta * x)) + q * (np.exp(beta * (x - 1)) - d)) / (1 - d) - rho

    return brentq(excess, 0, 1, xtol=1e-15, rtol=1e-15)


@pytest.mark.parametrize("beta", [0.3, 2.0, 8.0])
@pytest.mark.parametrize("logit_q", [-2.0, 0.4, 3.0])
@pytest.mark.parametrize("rho", [0.1, 0.45, 0.9])
def test_derivatives_are_those_of_an_inverse_found_by_root_finding(rho, logit_q, beta):
    result = OverlappingExponential(beta).inverse_cdf_with_derivatives(rho, logit_q)
    point = np.array([rho, logit_q, beta])
    assert result.zeta == pytest.approx(zeta_by_brentq(*point), rel=1e-12)
    for derivative, i in ((result.dzeta_drho, 0), (result.dzeta_dlogit_q, 1), (result.dzeta_dbeta, 2)):
        step = 1e-5 * np.eye(3)[i]
        difference = (zeta_by_brentq(*(point + step)) - zeta_by_brentq(*(point - step))) / 2e-5
        assert derivative == pytest.approx(difference, rel=1e-5, abs=1e-8)


def test_complex_step_derivatives():
    # The paper's quadratic in complex arithmetic: its imaginary part is the derivative, without a subtraction.
    def zeta(rho, logit_q, beta):
        q, d = 1 / (1 + np.exp(-logit_q)), np.exp(-beta)
        B = rho * (1 - d) - (1 - q) + q * d
        return -np.log((-B + np.sqrt(B * B + 4 * q * (1 - q) * d)) / (2 * (1 - q))) / beta

    rng = np.random.default_rng(0)
    point = [rng.uniform(0.05, 0.95, 200), rng.normal(0, 1.5, 200), rng.uniform(0.5, 6, 200)]
    result = OverlappingExponential(point[2]).inverse_cdf_with_derivatives(point[0], point[1])
    np.testing.assert_allclose(result.zeta, zeta(*point), rtol=1e-11)
    for derivative, i in ((result.dzeta_drho, 0), (result.dzeta_dlogit_q, 1), (result.dzeta_dbeta, 2)):
        moved = [x + (1e-30j if j == i else 0) for j, x in enumerate(point)]
        np.testing.assert_allclose(derivative, zeta(*moved).imag / 1e-30, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_derivatives_on_the_plateau_are_huge_but_finite(dtype):
    result = OverlappingExponential(1000.0).inverse_cdf_with_derivatives(dtype(0.5), dtype(0))
    assert result.zeta == 0.5
    # By hand: S = 2 e^{-500} sqrt(1/4) = e^{-500}, dzeta/drho = e^{500}/1000 and dzeta/dl = dzeta/drho / 4.
    expected = min(np.exp(500.0) / 1000, float(np.finfo(dtype).max))
    assert result.dzeta_drho == pytest.approx(expected, rel=1e-6)
    assert result.dzeta_dlogit_q == pytest.approx(min(np.exp(500.0) / 4000, float(np.finfo(dtype).max)), rel=1e-6)
    assert np.isfinite(result.dzeta_dbeta)
    far = OverlappingExponential(1e4).inverse_cdf_with_derivatives(dtype(0.5), dtype(0))  # where float64 underflows too
    assert all(np.isfinite(x) and x >= 0 for x in (far.zeta, far.dzeta_drho, far.dzeta_dlogit_q))


@settings(deadline=None, derandomize=True, max_examples=80)
@given(unit, st.one_of(logits, st.sampled_from([-np.inf, np.inf])), betas)
def test_nothing_warns_and_nothing_is_nan(x, logit_q, beta):
    smoothing = OverlappingExponential(beta)
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        result = smoothing.inverse_cdf_with_derivatives(x, logit_q)
        derivatives = (result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta)
        probabilities = (result.zeta, smoothing.cdf(x, logit_q), smoothing.nu(x, logit_q), smoothing.r_cdf(x, [0, 1]))
        densities = (smoothing.log_prob(x, logit_q), smoothing.log_r(x, [0, 1]), smoothing.log_ratio(x))
    assert all(np.isfinite(value).all() for value in (*derivatives, *densities))
    assert all(np.all((value >= 0) & (value <= 1)) for value in probabilities)


def test_the_derivative_by_the_sharpness_keeps_its_digits_where_little_is_left_of_it():
    cases = np.array(HARD_FOR_DBETA).T
    worst = mixed_errors(OverlappingExponential(cases[2]).inverse_cdf_with_derivatives(*cases[:2]), *cases)
    assert worst["dzeta_dbeta"].mixed_error <= TRANSFORM_MIXED_ERROR, worst["dzeta_dbeta"]


# ---- shapes, dtypes, refusals -------------------------------------------------------------------------------------


def test_shapes_and_dtypes():
    smoothing = OverlappingExponential(np.array([1.0, 5.0, 20.0, 80.0]))
    rho, logit_q = np.full((2, 1, 1), 0.3), np.zeros((3, 1))
    result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
    for name in ("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta"):
        assert getattr(result, name).shape == (2, 3, 4)
    single = OverlappingExponential(5.0).inverse_cdf(0.3, 0.0)
    np.testing.assert_array_equal(result.zeta[..., 1], single)
    assert smoothing.inverse_cdf(np.zeros((0, 4)), 0.0).shape == (0, 4)
    mixed = smoothing.inverse_cdf(np.float32(0.3), np.zeros(4))
    assert mixed.dtype == np.float64
    assert OverlappingExponential(1.0).inverse_cdf(np.float32(0.3), np.float32(0)).dtype == np.float32
    strided = np.linspace(0, 1, 20).reshape(4, 5).T[::2]
    expected = OverlappingExponential(3.0).inverse_cdf(strided.copy(), 0.5)
    np.testing.assert_array_equal(OverlappingExponential(3.0).inverse_cdf(strided, 0.5), expected)


def test_refusals_name_argument_rule_and_first_offender():
    smoothing = OverlappingExponential(10.0)
    with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; entry 1 is 1\.2"):
        smoothing.inverse_cdf([0.5, 1.2, -1.0], 0.0)
    with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; entry \(1, 0\) is nan"):
        smoothing.inverse_cdf_with_derivatives([[0.5], [np.nan]], 0.0)
    with pytest.raises(DomainError, match="logit_q must not be NaN; entry 2 is nan"):
        smoothing.inverse_cdf(0.5, [0.0, np.inf, np.nan])
    with pytest.raises(DomainError, match=r"zeta must lie in \[0, 1\]; it is -0\.1"):
        smoothing.cdf(-0.1, 0.0)
    with pytest.raises(DomainError, match=r"zeta must lie in \[0, 1\]; it is 2\.0"):
        smoothing.log_prob(2.0, 0.0)
    with pytest.raises(DomainError, match=r"z must be 0 or 1; entry 1 is 0\.5"):
        smoothing.log_r(0.5, [0, 0.5])
    with pytest.raises(ShapeError, match=r"shapes must broadcast together; got rho \(2,\), logit_q \(3,\), beta \(\)"):
        smoothing.inverse_cdf(np.zeros(2), np.zeros(3))
    with pytest.raises(TypeError, match="rho must be float32 or float64 numbers; got dtype float16"):
        smoothing.inverse_cdf(np.zeros(2, np.float16), 0.0)


def test_an_array_of_sharpnesses_is_copied_and_kinds_can_be_compared():
    betas = np.array([1.0, 2.0])
    smoothing = OverlappingExponential(betas)
    betas[0] = -1.0
    assert smoothing.beta.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        smoothing.beta[0] = -1.0
    assert OverlappingExponential(np.ones(2, np.float32)).beta.dtype == np.float32
    assert OverlappingExponential([1, 2]).beta.dtype == np.float64
    assert repr(OverlappingExponential(8.0)) == "OverlappingExponential(beta=8.0)"
    # Objects with arrays inside are equal to themselves alone, instead of having no truth value.
    assert smoothing == smoothing
    assert smoothing != OverlappingExponential(smoothing.beta)
    assert len({smoothing, OverlappingExponential(smoothing.beta)}) == 2
    result = smoothing.inverse_cdf_with_derivatives(0.3, 0.0)
    assert result != smoothing.inverse_cdf_with_derivatives(0.3, 0.0)


@pytest.mark.parametrize(("beta", "rounded"), [(1e-50, "0.0"), (1e50, "inf")])
def test_beta_must_have_a_place_in_single_precision_if_that_is_asked_for(beta, rounded):
    single, smoothing = np.full(2, 0.3, np.float32), OverlappingExponential(beta)
    message = rf"^beta must be positive and finite in float32, the precision of the other arguments; it is {rounded}$"
    for method in (smoothing.inverse_cdf, smoothing.inverse_cdf_with_derivatives, smoothing.cdf, smoothing.nu):
        with pytest.raises(DomainError, match=message):
            method(single, single)
        method(single, 0.0)  # float64
    with pytest.raises(DomainError, match=rf"other arguments; entry 1 is {rounded}"):
        OverlappingExponential([1.0, beta]).log_ratio(single)


@pytest.mark.parametrize("beta", [0.0, -1.0, np.inf, np.nan])
def test_beta_must_be_positive_and_finite(beta):
    with pytest.raises(DomainError, match=f"beta must be positive and finite; it is {beta}"):
        OverlappingExponential(beta)
    with pytest.raises(DomainError, match=f"beta must be positive and finite; entry 1 is {beta}"):
        OverlappingExponential(np.array([1.0, beta]))
