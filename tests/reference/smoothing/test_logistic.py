"""Overlapping logistics: densities, limits, symmetries, and derivatives of an inverse found by root finding.

Accuracy over the whole domain is judged in ``tests/validation/test_accuracy.py``.
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.smoothing import OverlappingLogistic
from reference.vocabulary import DomainError, ShapeError
from validation.accuracy import mixed_errors
from validation.tolerances import TRANSFORM_MIXED_ERROR

BETAS = [0.3, 3.0, 12.0, 80.0]
LOGITS = [-4.0, -0.5, 0.0, 2.0]

#: (rho, logit_q, beta) found by search, at which nu - zeta as a sum of other parts was 6 to 8 roundings off.
HARD_FOR_DBETA = (
    (0.6192194602055757, -0.1272465671935631, 4.059017121437895),
    (0.5842503308807097, 0.00032514910980470813, 3.7145284623882517),
    (0.4127211790498817, -1.0736199752985684e-12, 3.8730847368107986),
    (0.4124536330578803, 3.052616804553561e-12, 3.844046834324583),
)

betas = st.floats(0.01, 1000)
logits = st.floats(-700, 700)
unit = st.floats(0, 1).filter(lambda rho: 2**-1000 < rho < 1)
reals = st.floats(-1e6, 1e6)


# ---- r(zeta|z) and the mixture ------------------------------------------------------------------------------------


def integral(f, edges):
    """By Gauss-Legendre between consecutive edges."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    low, width = np.sort(edges)[:-1, None], np.diff(np.sort(edges))[:, None]
    return float((f(low + width * (nodes + 1) / 2) * weights * width / 2).sum())


def edges(end, beta, *modes):
    """Every few scales about the modes, up to an end: smooth in between; e^-45 of the mass is below them all."""
    scales = np.array([-45, -30, -20, -12, -7, -4, -2, -1, 0, 1, 2, 4, 7, 12, 20, 30, 45]) / beta
    points = np.concatenate([mode + scales for mode in modes])
    return np.append(points[points < end], end)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("z", [0, 1])
def test_r_is_a_density_with_the_stated_mean_and_scale_and_its_cdf_the_integral(z, beta):
    smoothing = OverlappingLogistic(beta)
    for end in (z - 3 / beta, 0.5, z + 1 / beta, z + 44 / beta):
        mass = integral(lambda x: np.exp(smoothing.log_r(x, z)), edges(end, beta, z))
        assert mass == pytest.approx(float(smoothing.r_cdf(end, z)), rel=1e-12)
    assert smoothing.r_cdf(float(z), z) == 0.5
    variance = integral(lambda x: (x - z) ** 2 * np.exp(smoothing.log_r(x, z)), edges(z + 45 / beta, beta, z))
    assert variance == pytest.approx((np.pi / beta) ** 2 / 3, rel=1e-12)  # of a logistic of scale 1/beta
    np.testing.assert_array_equal(smoothing.r_cdf([-np.inf, np.inf], z), [0, 1])
    np.testing.assert_array_equal(smoothing.log_r([-np.inf, np.inf], z), [-np.inf, -np.inf])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("logit_q", LOGITS)
def test_the_mixture_is_a_density_and_its_cdf_the_integral(logit_q, beta):
    smoothing = OverlappingLogistic(beta)
    for end in (-1 / beta, 0.3, 1 + 2 / beta):
        mass = integral(lambda x: np.exp(smoothing.log_prob(x, logit_q)), edges(end, beta, 0, 1))
        assert mass == pytest.approx(float(smoothing.cdf(end, logit_q)), rel=1e-12)
    np.testing.assert_allclose(smoothing.cdf([-np.inf, np.inf], logit_q), [0, 1], rtol=2e-16)


@given(reals, betas)
def test_log_ratio_is_the_difference_of_the_log_densities(zeta, beta):
    smoothing = OverlappingLogistic(beta)
    at_zero, at_one = float(smoothing.log_r(zeta, 0)), float(smoothing.log_r(zeta, 1))
    # Each log density is right to a few roundings of its own size and of log beta, which is what is subtracted.
    size = abs(at_zero) + abs(at_one) + abs(np.log(beta)) + beta + 1
    assert smoothing.log_ratio(zeta) == pytest.approx(at_one - at_zero, abs=8 * 2.0**-52 * size)
    np.testing.assert_allclose(smoothing.log_ratio([-np.inf, 0.5, np.inf]), [-beta, 0, beta], rtol=4 * 2.0**-52)


@given(reals, logits, betas)
def test_bayes_rule(zeta, logit_q, beta):
    smoothing = OverlappingLogistic(beta)
    with mpmath.workdps(30):
        prior = 1 / (1 + mpmath.exp(-mpmath.mpf(logit_q)))
        densities = [
            mpmath.sech(mpmath.mpf(beta) * (mpmath.mpf(zeta) - z) / 2) ** 2 for z in (0, 1)
        ]  # up to the common beta/4
        odds = prior / (1 - prior) * densities[1] / densities[0] if logit_q < 40 else None
    if odds is not None:
        # the log odds move by beta for a zeta of 1, and zeta is given exactly: only roundings of the result are left
        assert float(smoothing.nu(zeta, logit_q)) == pytest.approx(float(odds / (1 + odds)), rel=1e-14)


def test_numbers_worked_by_hand():
    # beta = log 4 makes e^{-beta zeta} = 1/2 at zeta = 1/2: F(1/2|0) = 2/3, F(1/2|1) = 1/3, r(1/2|z) = beta 2/9.
    smoothing = OverlappingLogistic(np.log(4))
    assert smoothing.r_cdf(0.5, 0) == pytest.approx(2 / 3, rel=1e-15)
    assert smoothing.r_cdf(0.5, 1) == pytest.approx(1 / 3, rel=1e-15)
    assert np.exp(smoothing.log_r(0.5, 0)) == pytest.approx(np.log(4) * 2 / 9, rel=1e-15)
    assert np.exp(smoothing.log_prob(0.5, 1.7)) == pytest.approx(np.log(4) * 2 / 9, rel=1e-15)
    assert smoothing.nu(0.5, np.log(3)) == pytest.approx(3 / 4, rel=1e-15)
    # q = 1/4: F(1/2) = 3/4 2/3 + 1/4 1/3 = 7/12, so the sample of rho = 7/12 is 1/2, and with f = beta 2/9
    result = smoothing.inverse_cdf_with_derivatives(7 / 12, -np.log(3))
    assert result.zeta == pytest.approx(0.5, rel=2e-15)
    assert result.dzeta_drho == pytest.approx(9 / (2 * np.log(4)), rel=2e-15)
    assert result.dzeta_dlogit_q == pytest.approx(3 / 16 * (1 / 3) / (np.log(4) * 2 / 9), rel=2e-15)
    assert result.dzeta_dbeta == pytest.approx((1 / 4 - 1 / 2) / np.log(4), rel=2e-15)  # nu = q at 1/2


# ---- the inverse CDF ----------------------------------------------------------------------------------------------


@given(unit, logits, betas)
def test_cdf_undoes_inverse_cdf(rho, logit_q, beta):
    smoothing = OverlappingLogistic(beta)
    result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
    # zeta is known to a few roundings, which F turns into eps zeta f(zeta); the smaller of p and q to eps |l| relative.
    slope = min(1 / float(result.dzeta_drho), 1e300)
    small = abs(logit_q) / (1 + np.exp(min(abs(logit_q), 700)))
    tolerance = 8 * 2.0**-52 * (rho + abs(float(result.zeta)) * slope + small)
    assert abs(smoothing.cdf(result.zeta, logit_q) - rho) <= tolerance


@given(unit, logits, betas)
def test_mirror_symmetry(rho, logit_q, beta):
    mirror = 1 - rho
    rho = 1 - mirror  # so that both are exact
    if rho in (0, 1):
        return
    here = OverlappingLogistic(beta).inverse_cdf_with_derivatives(rho, logit_q)
    there = OverlappingLogistic(beta).inverse_cdf_with_derivatives(mirror, -logit_q)
    # One rounding of p moves both by eps dzeta/drho; on the plateau further, with the density's own change of scale.
    rounding = 8 * 2.0**-52 * max(rho, mirror) * min(float(here.dzeta_drho), float(there.dzeta_drho))
    if rounding < 1e-6 / beta:
        assert here.zeta == pytest.approx(1 - float(there.zeta), rel=1e-15, abs=2.0**-51 + rounding)
        relative = 1e-14 + 8 * beta * rounding
        assert here.dzeta_dlogit_q == pytest.approx(float(there.dzeta_dlogit_q), rel=relative, abs=1e-300)
        assert here.dzeta_drho == pytest.approx(float(there.dzeta_drho), rel=relative)


@pytest.mark.parametrize("beta", [*BETAS, 1e3])
def test_monotone_in_noise_and_logit_from_end_to_end(beta):
    smoothing = OverlappingLogistic(beta)
    rho, logit_q = np.linspace(0, 1, 301), np.linspace(-40, 40, 201)[:, None]
    zeta = smoothing.inverse_cdf(rho, logit_q)
    np.testing.assert_array_equal(zeta[:, 0], -np.inf)
    np.testing.assert_array_equal(zeta[:, -1], np.inf)
    inner = zeta[:, 1:-1]
    slack = 2.0**-50 * (1 + np.abs(inner).max())
    assert np.all(np.diff(inner, axis=1) >= -slack)
    assert np.all(np.diff(inner, axis=0) >= -slack)


def test_limits_of_the_sharpness():
    rho, logit_q = np.linspace(0.05, 0.95, 7), np.array([[-2.0], [0.1], [3.0]])
    step = rho > 1 / (1 + np.exp(logit_q))  # z itself: 1 where rho exceeds p
    np.testing.assert_allclose(OverlappingLogistic(1e9).inverse_cdf(rho, logit_q), step, atol=1e-7)
    # With beta -> 0 both are one logistic of scale 1/beta and the middle mean.
    blurred = OverlappingLogistic(1e-9)
    np.testing.assert_allclose(
        1e-9 * blurred.inverse_cdf(rho, logit_q), np.log(rho / (1 - rho)) + 0 * logit_q, atol=1e-8
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_units_are_single_logistics(dtype):
    # beta = 5: zeta = z + logit(rho)/5, and logit(0.2) = -log 4.
    rho = np.array([0.5, 0.2, 0.75], dtype)
    expected = np.array([0, -np.log(4), np.log(3)]) / 5
    smoothing = OverlappingLogistic(5.0)
    tolerance = {"rtol": 4 * np.finfo(dtype).eps, "atol": np.finfo(dtype).eps}
    for sign, z in ((-1, 0), (1, 1)):
        zeta = smoothing.inverse_cdf(rho, dtype(sign * np.inf))
        assert zeta.dtype == dtype
        np.testing.assert_allclose(zeta, z + expected, **tolerance)
        np.testing.assert_array_equal(smoothing.nu(zeta, dtype(sign * np.inf)), z)


# ---- derivatives --------------------------------------------------------------------------------------------------


def inverse_of_the_definition(rho, logit_q, beta, start):
    """By secants on the textbook CDF, in the working precision."""

    def excess(x):
        q = 1 / (1 + mpmath.exp(-logit_q))
        return (1 - q) / (1 + mpmath.exp(-beta * x)) + q / (1 + mpmath.exp(-beta * (x - 1))) - rho

    return mpmath.findroot(excess, (start, start + mpmath.mpf("1e-9")), tol=1e-70)


@pytest.mark.parametrize("beta", [0.3, 3.0, 11.0])
@pytest.mark.parametrize(
    ("logit_q", "rho"), [(-2.0, 0.01), (-2.0, 0.8), (0.0, 0.5), (0.3, 0.45), (3.5, 0.02), (3.5, 0.9)]
)
def test_derivatives_are_those_of_an_inverse_found_by_root_finding(rho, logit_q, beta):
    result = OverlappingLogistic(beta).inverse_cdf_with_derivatives(rho, logit_q)
    with mpmath.workdps(40):
        point, step = [mpmath.mpf(x) for x in (rho, logit_q, beta)], mpmath.mpf(10) ** -12
        zeta = inverse_of_the_definition(*point, mpmath.mpf(float(result.zeta)))
        assert float(result.zeta) == pytest.approx(float(zeta), rel=1e-14, abs=1e-15)
        for i, name in enumerate(("dzeta_drho", "dzeta_dlogit_q", "dzeta_dbeta")):
            ends = [
                inverse_of_the_definition(*(x + sign * step * (i == j) for j, x in enumerate(point)), zeta)
                for sign in (1, -1)
            ]
            expected = float((ends[0] - ends[1]) / (2 * step))  # its error is of the order of step^2
            assert float(getattr(result, name)) == pytest.approx(expected, rel=1e-13, abs=1e-15), name


def test_derivatives_saturate_and_are_never_nan():
    rho, logit_q = np.array([0.0, 1e-300, 0.5, 1.0]), np.array([[-np.inf], [-746.0], [0.0], [746.0], [np.inf]])
    for beta in (0.01, 4.0, 1e3, 1e6):
        result = OverlappingLogistic(beta).inverse_cdf_with_derivatives(rho, logit_q)
        for name in ("dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta"):
            assert np.isfinite(getattr(result, name)).all(), name
        np.testing.assert_array_equal(result.dzeta_drho[:, [0, -1]], np.finfo(np.float64).max)
    # Both tails are exponential: near rho = 0 zeta is log(rho/(p + q d))/beta, so dzeta/dl = p q (1-d)/(p + q d)/beta.
    result = OverlappingLogistic(np.log(2)).inverse_cdf_with_derivatives([0.0, 1.0], np.log(3))
    assert result.dzeta_dlogit_q[0] == pytest.approx(3 / 16 * 0.5 / (5 / 8) / np.log(2), rel=1e-15)
    assert result.dzeta_dlogit_q[1] == pytest.approx(3 / 16 * 0.5 / (7 / 8) / np.log(2), rel=1e-15)


def test_the_derivative_by_the_sharpness_keeps_its_digits_where_little_is_left_of_it():
    cases = np.array(HARD_FOR_DBETA).T
    worst = mixed_errors(OverlappingLogistic(cases[2]).inverse_cdf_with_derivatives(*cases[:2]), *cases, "logistic")
    assert worst["dzeta_dbeta"].mixed_error <= TRANSFORM_MIXED_ERROR, worst["dzeta_dbeta"]


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, -1.0, np.inf, np.nan])
def test_refuses_a_sharpness_that_is_none(beta):
    with pytest.raises(DomainError, match=f"beta must be positive and finite; it is {beta}"):
        OverlappingLogistic(beta)


def test_refuses_what_is_outside_the_domain():
    smoothing = OverlappingLogistic(2.0)
    with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; entry 1 is 1.5"):
        smoothing.inverse_cdf([0.5, 1.5], 0.0)
    with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; it is nan"):
        smoothing.inverse_cdf_with_derivatives(np.nan, 0.0)
    with pytest.raises(DomainError, match="logit_q must not be NaN; entry 0 is nan"):
        smoothing.inverse_cdf(0.5, [np.nan])
    for method in (smoothing.log_prob, smoothing.cdf, smoothing.nu):
        with pytest.raises(DomainError, match="zeta must not be NaN; entry 1 is nan"):
            method([0.0, np.nan], 0.0)
        with pytest.raises(ShapeError, match=r"zeta \(2,\), logit_q \(3,\)"):
            method(np.zeros(2), np.zeros(3))
    for method in (smoothing.log_r, smoothing.r_cdf):
        with pytest.raises(DomainError, match=r"z must be 0 or 1; it is 0\.5"):
            method(0.0, 0.5)
    with pytest.raises(DomainError, match="zeta must not be NaN"):
        smoothing.log_ratio(np.nan)
    with pytest.raises(TypeError, match="zeta must be float32 or float64 numbers; got dtype complex128"):
        smoothing.log_ratio(1j)
    with pytest.raises(ShapeError, match=r"beta \(3,\)"):
        OverlappingLogistic(np.ones(3)).inverse_cdf(np.full(2, 0.5), 0.0)
