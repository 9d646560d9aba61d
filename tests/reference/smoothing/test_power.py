"""The power function: densities, limits, symmetries, and its inverse against root finding in multi-precision."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from reference.smoothing import power
from reference.smoothing.power import PowerFunction
from reference.vocabulary import DomainError, ShapeError

BETAS = [0.1, 0.5, 1.0, 2.0, 7.0]
LOGITS = [-6.0, -0.5, 0.0, 1.0, 9.0]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)

betas = st.floats(0.01, 1000)
logits = st.floats(-700, 700)
unit = st.floats(0, 1)


def integral(density, low, high):
    return (high - low) / 2 * WEIGHTS @ density((low + high) / 2 + (high - low) / 2 * NODES)


# ---- r(zeta|z) and the mixture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", BETAS)
def test_the_densities_are_the_derivatives_of_their_cdfs(beta):
    # Not quite from 0 to 1: a density may be infinite there. That the CDFs reach 0 and 1 is seen by itself.
    smoothing = PowerFunction(beta)
    for low, high in ((0.1, 0.5), (0.5, 0.8)):
        for z in (0, 1):
            mass = integral(lambda x, z=z: np.exp(smoothing.log_r(x, z)), low, high)
            assert mass == pytest.approx(float(smoothing.r_cdf(high, z) - smoothing.r_cdf(low, z)), abs=1e-12)
        for logit_q in LOGITS:
            mass = integral(lambda x, logit_q=logit_q: np.exp(smoothing.log_prob(x, logit_q)), low, high)
            expected = smoothing.cdf(high, logit_q) - smoothing.cdf(low, logit_q)
            assert mass == pytest.approx(float(expected), abs=1e-12)
    np.testing.assert_array_equal(smoothing.r_cdf([[0.0], [1.0]], [0, 1]), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(smoothing.cdf([[0.0], [1.0]], LOGITS), [[0] * 5, [1] * 5])


def test_numbers_worked_by_hand():
    # beta = 2: r(zeta|0) = 1/(2 sqrt(zeta)), F(zeta|0) = sqrt(zeta).
    smoothing = PowerFunction(2.0)
    assert smoothing.log_r(0.25, 0) == pytest.approx(0, abs=0)
    assert smoothing.log_r(0.0, 1) == pytest.approx(-np.log(2), rel=1e-15)
    np.testing.assert_allclose(smoothing.r_cdf(0.36, [0, 1]), [0.6, 0.2], rtol=1e-15)
    assert smoothing.log_ratio(0.2) == pytest.approx(-np.log(2), rel=1e-15)  # sqrt(zeta / (1 - zeta))
    assert smoothing.nu(0.2, np.log(3)) == pytest.approx(0.6, rel=1e-15)  # odds 3 / 2
    # q = 1/2 and rho = 1/4: s - sqrt(1 - s^2) = -1/2 with s = sqrt(zeta), or 2 s^2 + s = 3/4.
    result = smoothing.inverse_cdf_with_derivatives(0.25, 0.0)
    s = (np.sqrt(7) - 1) / 4
    assert result.zeta == pytest.approx(s * s, rel=1e-15)
    assert result.dzeta_drho == pytest.approx(4 / (1 / s + 1 / np.sqrt(1 - s * s)), rel=1e-15)
    # beta = 1/2: densities 2 zeta and 2 (1 - zeta), so F(zeta) = p zeta^2 + q (2 zeta - zeta^2).
    smoothing = PowerFunction(0.5)
    assert smoothing.cdf(0.3, np.log(3)) == pytest.approx(0.25 * 0.09 + 0.75 * 0.51, rel=1e-15)
    np.testing.assert_array_equal(smoothing.log_prob([0.0, 0.1, 0.7, 1.0], 0.0), 0)


def test_beta_one_is_uniform_whatever_z():
    x, logit_q = np.array([0.0, 1e-300, 0.3, 0.99, 1.0]), np.array([-np.inf, -600, -1, 0, 3, np.inf])[:, None]
    smoothing = PowerFunction(1.0)
    np.testing.assert_array_equal(smoothing.log_r(x, [[0], [1]]), 0)
    np.testing.assert_array_equal(smoothing.log_ratio(x), 0)
    np.testing.assert_array_equal(smoothing.log_prob(x, logit_q), 0)
    q = np.exp(logit_q[:-1]) / (1 + np.exp(logit_q[:-1]))
    np.testing.assert_allclose(smoothing.nu(x, logit_q), np.append(q, 1)[:, None] + 0 * x, rtol=1e-15)
    result = smoothing.inverse_cdf_with_derivatives(x, logit_q)
    np.testing.assert_allclose(result.zeta, np.tile(x, (6, 1)), rtol=1e-15)
    np.testing.assert_array_equal(result.dzeta_dlogit_q, 0)
    np.testing.assert_allclose(result.dzeta_drho, 1, rtol=1e-15)


@pytest.mark.parametrize("beta", BETAS)
def test_nu_is_the_share_of_one_component(beta):
    smoothing = PowerFunction(beta)
    x = np.linspace(0.01, 0.99, 15)
    np.testing.assert_allclose(
        smoothing.log_ratio(x), smoothing.log_r(x, 1) - smoothing.log_r(x, 0), rtol=1e-13, atol=1e-14
    )
    for logit_q in LOGITS:
        q = 1 / (1 + np.exp(-logit_q))
        share = q * np.exp(smoothing.log_r(x, 1) - smoothing.log_prob(x, logit_q))
        np.testing.assert_allclose(smoothing.nu(x, logit_q), share, rtol=1e-13)


def log_prob_in_multi_precision(zeta, logit_q, beta):
    a, x, odds = 1 / mpf(beta), mpf(zeta), mpmath.exp(mpf(logit_q))
    return mpmath.log(a * (x ** (a - 1) + odds * (1 - x) ** (a - 1)) / (1 + odds))


@pytest.mark.parametrize("offset", [0.1, 1e-3, 1e-8, 1e-13, 0.0])
@pytest.mark.parametrize("centre", [0.5, 1.0])
def test_a_density_near_one_keeps_the_relative_accuracy_of_its_logarithm(centre, offset):
    # beta = 1, or beta = 1/2 with even odds, are uniform.
    logit_q = -0.7 * offset
    for zeta in (1e-3, 0.2, 0.9):
        with mpmath.workdps(60):
            expected = float(log_prob_in_multi_precision(zeta, logit_q, centre + offset))
        assert PowerFunction(centre + offset).log_prob(zeta, logit_q) == pytest.approx(expected, rel=1e-13, abs=1e-50)


@pytest.mark.parametrize("beta", [0.01, 0.3, 4.0, 1000.0])
@pytest.mark.parametrize("logit_q", [-700.0, -20.0, 0.3, 90.0])
def test_log_prob_far_from_the_centre(logit_q, beta):
    for zeta in (1e-300, 1e-9, 0.4, 1 - 2.0**-53):
        with mpmath.workdps(60):
            expected = float(log_prob_in_multi_precision(zeta, logit_q, beta))
        assert PowerFunction(beta).log_prob(zeta, logit_q) == pytest.approx(expected, rel=1e-14)


# ---- the inverse CDF ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(unit, logits, betas)
def test_cdf_undoes_inverse_cdf(rho, logit_q, beta):
    smoothing = PowerFunction(beta)
    result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
    # zeta is known to a few roundings, which F turns into eps zeta f(zeta); the smaller of p and q to eps |l| relative.
    slope = min(1 / max(float(result.dzeta_drho), 1e-300), 1e300)
    small = abs(logit_q) / (1 + np.exp(min(abs(logit_q), 700)))
    tolerance = 8 * 2.0**-52 * (rho + result.zeta * slope + small)
    if result.zeta > 1e-300:  # else it may have lost digits to underflow
        assert abs(smoothing.cdf(result.zeta, logit_q) - rho) <= tolerance + 1e-307


@settings(max_examples=60)
@given(unit, logits, betas)
def test_mirror_symmetry(rho, logit_q, beta):
    mirror = 1 - rho
    rho = 1 - mirror  # so that both are exact
    here = PowerFunction(beta).inverse_cdf_with_derivatives(rho, logit_q)
    there = PowerFunction(beta).inverse_cdf_with_derivatives(mirror, -logit_q)
    if abs(here.dzeta_drho) * 2.0**-52 < 1e-14:  # else a plateau, on which rounding chooses the place
        assert here.zeta + there.zeta == pytest.approx(1, abs=1e-13)
        assert here.dzeta_dlogit_q == pytest.approx(float(there.dzeta_dlogit_q), rel=1e-11, abs=1e-300)
        assert here.dzeta_drho == pytest.approx(float(there.dzeta_drho), rel=1e-11, abs=1e-300)
        assert here.dzeta_dbeta == pytest.approx(-float(there.dzeta_dbeta), rel=1e-11, abs=1e-14)


@pytest.mark.parametrize("beta", [0.03, 0.5, 1.0, 6.0, 1000.0])
def test_monotone_in_noise_and_logit(beta):
    smoothing = PowerFunction(beta)
    rho, logit_q = np.linspace(0, 1, 201), np.linspace(-40, 40, 81)[:, None]
    zeta = smoothing.inverse_cdf(rho, logit_q)
    # On a plateau rounding chooses the place, but not so that order is lost by more than the flatness allows.
    slack = 2.0**-50 * np.minimum(1 + smoothing.inverse_cdf_with_derivatives(rho, logit_q).dzeta_drho, 2.0**50)
    assert np.all(np.diff(zeta, axis=1) >= -slack[:, 1:] - slack[:, :-1])
    towards = 1 if beta >= 1 else -1  # below 1 the roles of the ends are exchanged
    assert np.all(towards * np.diff(zeta, axis=0) >= -slack[1:] - slack[:-1])
    np.testing.assert_array_equal(zeta[:, 0], 0)
    np.testing.assert_array_equal(zeta[:, -1], 1)


def test_large_beta_is_the_unit_itself():
    rho, logit_q = np.linspace(0.05, 0.95, 7), np.array([[-2.0], [0.1], [3.0]])
    step = rho > 1 / (1 + np.exp(logit_q))  # z: 1 where rho exceeds p
    np.testing.assert_allclose(PowerFunction(1e6).inverse_cdf(rho, logit_q), step, atol=1e-300)


@pytest.mark.parametrize("beta", [0.02, 0.5, 3.0, 800.0])
def test_certain_units_are_single_powers(beta):
    rho = np.array([0.0, 1e-3, 0.25, 0.5, 0.9999, 1.0])
    zeta, mirror = (PowerFunction(beta).inverse_cdf(rho, sign * np.inf) for sign in (-1, 1))
    np.testing.assert_allclose(zeta, rho**beta, rtol=1e-13)
    np.testing.assert_allclose(mirror, [*-np.expm1(beta * np.log1p(-rho[:-1])), 1], rtol=1e-13)


def inverse_in_multi_precision(rho, logit_q, beta):
    """The root of the CDF of the definition, by bisection of logit(zeta)."""
    odds, a = mpmath.exp(logit_q), 1 / beta
    low, high = mpf(-400), mpf(400)
    for _ in range(190):
        y = (low + high) / 2
        x, rest = 1 / (1 + mpmath.exp(-y)), 1 / (1 + mpmath.exp(y))
        below = x**a + odds * (1 - rest**a) < rho * (1 + odds)
        low, high = (y, high) if below else (low, y)
    return 1 / (1 + mpmath.exp(-low))


@pytest.mark.parametrize("beta", [0.02, 0.6931471805599453, 1.7, 30.0])
@pytest.mark.parametrize(("rho", "logit_q"), [(1e-3, 0.0), (0.2, 3.0), (0.5002, 0.0), (0.9, -30.0)])
def test_sample_and_derivatives_in_multi_precision(rho, logit_q, beta):
    result = PowerFunction(beta).inverse_cdf_with_derivatives(rho, logit_q)
    with mpmath.workdps(60):
        at = (mpf(rho), mpf(logit_q), mpf(beta))
        assert result.zeta == pytest.approx(float(inverse_in_multi_precision(*at)), rel=1e-13)
        for k, name in enumerate(("dzeta_drho", "dzeta_dlogit_q", "dzeta_dbeta")):
            h = [mpf(0)] * 3
            h[k] = mpf(10) ** -15
            up = inverse_in_multi_precision(*(x + y for x, y in zip(at, h, strict=True)))
            down = inverse_in_multi_precision(*(x - y for x, y in zip(at, h, strict=True)))
            expected = float((up - down) / (2 * h[k]))
            # At rho = 1/2 and l = 0 dzeta/dbeta changes its sign, for beta = log 2 as the cube of the distance.
            assert getattr(result, name) == pytest.approx(expected, rel=1e-11), name


def test_the_taylor_series_of_the_ratio_of_logarithms():
    with mpmath.workdps(60):

        def log_ratio(s):
            return mpmath.log(mpmath.log1p(mpmath.exp(s)) / mpmath.log1p(mpmath.exp(-s)))

        coefficients = [float(c) for c in mpmath.taylor(log_ratio, 0, 2 * len(power._LOG_RATIO_OF_LOGS) + 1)]
    assert coefficients[1] == pytest.approx(1 / np.log(2), rel=1e-15)
    np.testing.assert_allclose(power._LOG_RATIO_OF_LOGS, coefficients[3::2], rtol=1e-15)


def test_a_sample_that_underflows_still_has_a_finite_problem():
    # rho = 1/4 of p = 1/2: zeta^(1/1000) = 1/2 but for terms of the size of zeta. 2^-1000 is a float64, 2^-2000 is not.
    result = PowerFunction(1000.0).inverse_cdf_with_derivatives([0.25, 0.125], 0.0)
    assert result.zeta[0] == pytest.approx(2.0**-1000, rel=1e-15)
    assert result.dzeta_drho[0] == pytest.approx(1000 * 4 * 2.0**-1000, rel=1e-13)  # zeta = (2 rho)^1000
    assert result.dzeta_dbeta[0] == pytest.approx(-np.log(2) * 2.0**-1000, rel=1e-13)
    assert result.zeta[1] == result.dzeta_drho[1] == result.dzeta_dbeta[1] == 0


def test_ends():
    largest = np.finfo(np.float64).max
    for rho in (0.0, 1.0):
        for beta, expected in ((0.5, 0.5 * (1 + np.exp(-0.4))), (1.0, 1.0), (2.0, 0.0)):
            result = PowerFunction(beta).inverse_cdf_with_derivatives(rho, 0.4 * (1 - 2 * rho))
            assert result.zeta == rho
            assert result.dzeta_drho == pytest.approx(expected, rel=1e-15)  # 1/(a q) for beta < 1: z = 0 has density 0
            assert result.dzeta_dlogit_q == result.dzeta_dbeta == 0
    assert PowerFunction(0.5).inverse_cdf_with_derivatives(0.0, -np.inf).dzeta_drho == largest
    assert PowerFunction(2.0).inverse_cdf_with_derivatives(0.0, np.inf).dzeta_drho == pytest.approx(2)
    sharp, blunt = PowerFunction(2.0), PowerFunction(0.25)
    np.testing.assert_array_equal(sharp.log_r([0.0, 1.0], [0, 1]), np.inf)
    np.testing.assert_array_equal(blunt.log_r([0.0, 1.0], [0, 1]), -np.inf)
    np.testing.assert_array_equal(sharp.log_ratio([0.0, 1.0]), [-np.inf, np.inf])
    np.testing.assert_array_equal(blunt.log_ratio([0.0, 1.0]), [np.inf, -np.inf])
    np.testing.assert_array_equal(sharp.nu([0.0, 1.0], 0.3), [0, 1])
    np.testing.assert_array_equal(blunt.nu([0.0, 1.0], 0.3), [1, 0])
    np.testing.assert_array_equal(sharp.nu([0.0, 1.0], np.inf), 1)  # a certain prior wins
    np.testing.assert_array_equal(sharp.log_prob([0.0, 1.0], 0.3), np.inf)
    assert blunt.log_prob(0.0, 0.3) == pytest.approx(np.log(4 / (1 + np.exp(-0.3))), rel=1e-15)  # a q
    assert sharp.log_prob(0.0, np.inf) == pytest.approx(-np.log(2), rel=1e-15)


@pytest.mark.filterwarnings("error")
def test_no_input_gives_nan_or_a_warning():
    values = [0.0, 5e-324, 1e-300, 0.1, 0.5, 1 - 2.0**-53, 1.0]
    logit_q = [0.0, 1e-300, 0.5, 40.0, 746.0, 1e308, np.inf]
    x, logit, b = np.meshgrid(values, [*logit_q, *np.negative(logit_q)], [0.01, 0.5, 1.0, 2.0, 1e3])
    smoothing = PowerFunction(b)
    result = smoothing.inverse_cdf_with_derivatives(x, logit)
    for derivative in (result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta):
        assert np.all(np.isfinite(derivative))
    assert np.all((result.zeta >= 0) & (result.zeta <= 1))
    for z in (0.0, 1.0):
        assert not np.any(np.isnan(smoothing.log_r(x, z)))
        assert np.all((smoothing.r_cdf(x, z) >= 0) & (smoothing.r_cdf(x, z) <= 1))
    for value in (smoothing.log_prob(x, logit), smoothing.log_ratio(x)):
        assert not np.any(np.isnan(value))
    for value in (smoothing.cdf(x, logit), smoothing.nu(x, logit)):
        assert np.all((value >= 0) & (value <= 1))


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_shapes_and_dtypes():
    smoothing = PowerFunction(np.array([[0.3], [2.0]]))
    rho = np.array([0.1, 0.5, 0.7], np.float32)
    result = smoothing.inverse_cdf_with_derivatives(rho, np.float32(0.4))
    for output in (result.zeta, result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta):
        assert output.shape == (2, 3)
        assert output.dtype == np.float32
    np.testing.assert_array_equal(smoothing.inverse_cdf(rho, np.float32(0.4)), result.zeta)
    row = PowerFunction(np.float32(0.3)).inverse_cdf(rho, np.float32(0.4))
    np.testing.assert_array_equal(row, result.zeta[0])


@pytest.mark.parametrize("beta", [0.0, -1.0, np.nan, np.inf])
def test_a_sharpness_that_is_none_is_refused(beta):
    with pytest.raises(DomainError, match=rf"beta must be positive and finite; it is {beta}"):
        PowerFunction(beta)


@pytest.mark.parametrize(
    ("operation", "second"),
    [
        ("inverse_cdf", "logit_q"),
        ("inverse_cdf_with_derivatives", "logit_q"),
        ("log_prob", "logit_q"),
        ("cdf", "logit_q"),
        ("nu", "logit_q"),
        ("log_r", "z"),
        ("r_cdf", "z"),
    ],
)
def test_invalid_arguments_are_refused(operation, second):
    call = getattr(PowerFunction(2.0), operation)
    first = "rho" if operation.startswith("inverse") else "zeta"
    with pytest.raises(DomainError, match=rf"{first} must lie in \[0, 1\]; entry 1 is 1.5"):
        call([0.5, 1.5], 0.0)
    with pytest.raises(DomainError, match=rf"{first} must lie in \[0, 1\]; it is nan"):
        call(np.nan, 0.0)
    rule = "not be NaN; entry 0 is nan" if second == "logit_q" else "be 0 or 1; entry 0 is nan"
    with pytest.raises(DomainError, match=f"{second} must {rule}"):
        call(0.5, [np.nan, 0.0])
    with pytest.raises(ShapeError, match=rf"shapes must broadcast together; got {first} \(2,\), {second} \(3,\)"):
        call(np.zeros(2), np.zeros(3))
    with pytest.raises(TypeError, match=f"{first} must be float32 or float64 numbers; got dtype complex128"):
        call(0.5j, 0.0)


def test_invalid_arguments_of_log_ratio_are_refused():
    with pytest.raises(DomainError, match=r"zeta must lie in \[0, 1\]; entry 1 is -0.5"):
        PowerFunction(2.0).log_ratio([0.5, -0.5])
    with pytest.raises(TypeError, match="zeta must be float32 or float64 numbers; got dtype complex128"):
        PowerFunction(2.0).log_ratio(0.5j)
    with pytest.raises(ShapeError, match=r"got zeta \(2,\), beta \(3,\)"):
        PowerFunction(np.ones(3)).log_ratio(np.zeros(2))
