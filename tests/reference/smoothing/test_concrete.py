"""The binary Concrete: its density, its sample, its derivatives, and what it does not offer."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from reference import posterior
from reference.smoothing import MixtureSmoothing
from reference.smoothing.concrete import BinaryConcrete
from reference.vocabulary import DomainError, ShapeError

TEMPERATURES = [0.1, 0.5, 1.0, 2.5]
LOGITS = [-3.0, 0.0, 0.4, 2.0]

temperatures = st.floats(0.01, 1000)
logits = st.floats(-700, 700)
unit = st.floats(0, 1)


# ---- the density and the CDF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("logit_q", LOGITS)
def test_the_density_is_the_derivative_of_the_cdf(logit_q, temperature):
    smoothing = BinaryConcrete(temperature)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    for low, high in ((0.05, 0.3), (0.3, 0.8), (0.8, 0.97)):
        x = (low + high) / 2 + (high - low) / 2 * nodes
        mass = (high - low) / 2 * weights @ np.exp(smoothing.log_prob(x, logit_q))
        assert mass == pytest.approx(float(smoothing.cdf(high, logit_q) - smoothing.cdf(low, logit_q)), abs=1e-12)
    assert smoothing.cdf(0.0, logit_q) == 0
    assert smoothing.cdf(1.0, logit_q) == 1


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_density_of_the_paper(temperature):
    # Maddison et al. write it with a = e^l: lambda a x^(-lambda-1) (1-x)^(-lambda-1) / (a x^-lambda + (1-x)^-lambda)^2.
    for x in (0.05, 0.5, 0.93):
        for logit_q in LOGITS:
            a, t = np.exp(logit_q), temperature
            density = t * a * (x * (1 - x)) ** (-t - 1) / (a * x**-t + (1 - x) ** -t) ** 2
            assert BinaryConcrete(t).log_prob(x, logit_q) == pytest.approx(np.log(density), rel=1e-12, abs=1e-13)


def test_numbers_worked_by_hand():
    # Temperature 1/2 squares the odds: q = 3/4 and rho = 1/2 have the odds 3, so zeta has 9.
    result = BinaryConcrete(0.5).inverse_cdf_with_derivatives(0.5, np.log(3))
    assert result.zeta == pytest.approx(0.9, rel=1e-15)
    assert result.dzeta_dlogit_q == pytest.approx(2 * 0.09, rel=1e-15)  # zeta (1 - zeta) / lambda
    assert result.dzeta_drho == pytest.approx(4 * 2 * 0.09, rel=1e-15)  # ... / (rho (1 - rho))
    assert result.dzeta_dbeta == pytest.approx(np.log(3) * 0.09, rel=1e-15)
    assert BinaryConcrete(0.5).cdf(0.9, np.log(3)) == pytest.approx(0.5, rel=1e-15)
    # At temperature 1 and even odds the sample is the noise, so its density is 1.
    rho = np.linspace(0, 1, 9)
    np.testing.assert_allclose(BinaryConcrete(1.0).inverse_cdf(rho, 0.0), rho, rtol=1e-15)
    np.testing.assert_array_equal(BinaryConcrete(1.0).log_prob(rho, 0.0), 0)


@pytest.mark.parametrize("offset", [1e-3, 1e-8, 1e-13])
def test_a_density_near_one_keeps_the_relative_accuracy_of_its_logarithm(offset):
    temperature, logit_q, zeta = 1 + offset, -0.7 * offset, 0.8
    with mpmath.workdps(60):
        t, a, x = mpf(temperature), mpmath.exp(mpf(logit_q)), mpf(zeta)
        density = t * a * (x * (1 - x)) ** (-t - 1) / (a * x**-t + (1 - x) ** -t) ** 2
        expected = float(mpmath.log(density))
    assert BinaryConcrete(temperature).log_prob(zeta, logit_q) == pytest.approx(expected, rel=1e-14)


# ---- the sample -----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(unit, st.floats(-300, 300), temperatures)
def test_cdf_undoes_inverse_cdf(rho, logit_q, temperature):
    smoothing = BinaryConcrete(temperature)
    zeta = smoothing.inverse_cdf(rho, logit_q)
    # One rounding of zeta is eps / (1 - zeta) in its logit, which the temperature multiplies; one of l is eps |l|.
    rounding = 2.0**-52 * (1 + abs(logit_q) + temperature / max(1 - float(zeta), 1e-300))
    if 1e-300 < zeta < 1:
        assert smoothing.cdf(zeta, logit_q) == pytest.approx(rho, abs=1e-300 + 4 * rho * (1 - rho) * rounding)


@settings(max_examples=50)
@given(unit, logits, temperatures)
def test_mirror_symmetry(rho, logit_q, temperature):
    mirror = 1 - rho
    rho = 1 - mirror  # so that both are exact
    here = BinaryConcrete(temperature).inverse_cdf_with_derivatives(rho, logit_q)
    there = BinaryConcrete(temperature).inverse_cdf_with_derivatives(mirror, -logit_q)
    assert here.zeta + there.zeta == pytest.approx(1, abs=2.0**-52)
    assert here.dzeta_dlogit_q == pytest.approx(float(there.dzeta_dlogit_q), rel=1e-14, abs=1e-300)
    assert here.dzeta_drho == pytest.approx(float(there.dzeta_drho), rel=1e-14, abs=1e-300)
    assert here.dzeta_dbeta == pytest.approx(-float(there.dzeta_dbeta), rel=1e-14, abs=1e-300)


@pytest.mark.parametrize("temperature", [0.01, *TEMPERATURES, 1e3])
def test_monotone_in_noise_and_logit(temperature):
    rho, logit_q = np.linspace(0, 1, 501), np.linspace(-40, 40, 401)[:, None]
    zeta = BinaryConcrete(temperature).inverse_cdf(rho, logit_q)
    assert np.all(np.diff(zeta, axis=1) >= -(2.0**-51))
    assert np.all(np.diff(zeta, axis=0) >= -(2.0**-51))
    np.testing.assert_array_equal(zeta[:, 0], 0)
    np.testing.assert_array_equal(zeta[:, -1], 1)


def test_limits_of_the_temperature():
    rho, logit_q = np.linspace(0.05, 0.95, 7), np.array([[-2.0], [0.1], [3.0]])
    step = rho > 1 / (1 + np.exp(logit_q))  # z itself: 1 where rho exceeds p
    np.testing.assert_allclose(BinaryConcrete(1e-6).inverse_cdf(rho, logit_q), step, atol=1e-300)
    np.testing.assert_allclose(BinaryConcrete(1e9).inverse_cdf(rho, logit_q), 0.5, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.01, 0.3, 2.0, 300.0])
@pytest.mark.parametrize("logit_q", [-650.0, -3.0, 0.7, 12.0])
@pytest.mark.parametrize("rho", [1e-290, 1e-7, 0.3, 1 - 2.0**-53])
def test_sample_and_derivatives_in_multi_precision(rho, logit_q, temperature):
    result = BinaryConcrete(temperature).inverse_cdf_with_derivatives(rho, logit_q)

    def zeta(r, logit, sharpness):  # by the odds: no logarithm, no sigma
        odds = (mpmath.exp(logit) * r / (1 - r)) ** sharpness
        return odds / (1 + odds)

    with mpmath.workdps(700):
        at = (mpf(rho), mpf(logit_q), 1 / mpf(temperature))
        assert result.zeta == pytest.approx(float(zeta(*at)), rel=1e-13, abs=1e-300)
        for k, name in enumerate(("dzeta_drho", "dzeta_dlogit_q", "dzeta_dbeta")):
            h = [mpf(0)] * 3
            h[k] = abs(at[k]) * mpf(10) ** -40
            up = zeta(*(x + y for x, y in zip(at, h, strict=True)))
            down = zeta(*(x - y for x, y in zip(at, h, strict=True)))
            expected = float((up - down) / (2 * h[k]))
            assert getattr(result, name) == pytest.approx(expected, rel=1e-12, abs=1e-300), name


def test_ends_and_certain_units():
    for logit_q in (-np.inf, np.inf):
        smoothing = BinaryConcrete(0.7)
        result = smoothing.inverse_cdf_with_derivatives(np.array([0.0, 1e-300, 0.4, 1.0]), logit_q)
        z = float(logit_q > 0)
        np.testing.assert_array_equal(result.zeta, [0, z, z, 1])
        np.testing.assert_array_equal([result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta], 0)
        np.testing.assert_array_equal(
            smoothing.log_prob([0.0, 0.3, 1.0], logit_q), np.where(np.array([0, 0.3, 1]) == z, np.inf, -np.inf)
        )
        np.testing.assert_array_equal(smoothing.cdf([0.0, 0.3, 1.0], logit_q), [0, 1 - z, 1])
    # At an end the density is that of a power of the distance, with exponent lambda - 1.
    assert BinaryConcrete(0.9).log_prob(0.0, 0.3) == np.inf
    assert BinaryConcrete(1.1).log_prob(1.0, 0.3) == -np.inf
    assert BinaryConcrete(1.0).log_prob(1.0, 0.3) == pytest.approx(0.3)
    assert BinaryConcrete(1.0).inverse_cdf_with_derivatives(0.0, 0.3).dzeta_drho == pytest.approx(np.exp(0.3))
    assert BinaryConcrete(0.9).inverse_cdf_with_derivatives(1.0, 0.3).dzeta_drho == 0
    assert BinaryConcrete(1.1).inverse_cdf_with_derivatives(1.0, 0.3).dzeta_drho == np.finfo(np.float64).max


@pytest.mark.filterwarnings("error")
def test_no_input_gives_nan_or_a_warning():
    values = [0.0, 5e-324, 1e-300, 0.1, 0.5, 1 - 2.0**-53, 1.0]
    logit_q = [0.0, 1e-300, 0.5, 40.0, 746.0, 1e308, np.inf]
    x, logit, t = np.meshgrid(values, [*logit_q, *np.negative(logit_q)], [0.01, 1.0, 1e3])
    smoothing = BinaryConcrete(t)
    result = smoothing.inverse_cdf_with_derivatives(x, logit)
    for derivative in (result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta):
        assert np.all(np.isfinite(derivative))
    assert np.all((result.zeta >= 0) & (result.zeta <= 1))
    assert not np.any(np.isnan(smoothing.log_prob(x, logit)))
    assert np.all((smoothing.cdf(x, logit) >= 0) & (smoothing.cdf(x, logit) <= 1))


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_shapes_and_dtypes():
    smoothing = BinaryConcrete(np.array([[0.3], [2.0]]))
    rho = np.array([0.1, 0.5, 0.7], np.float32)
    result = smoothing.inverse_cdf_with_derivatives(rho, np.float32(0.4))
    for output in (result.zeta, result.dzeta_dlogit_q, result.dzeta_drho, result.dzeta_dbeta):
        assert output.shape == (2, 3)
        assert output.dtype == np.float32
    np.testing.assert_array_equal(smoothing.inverse_cdf(rho, np.float32(0.4)), result.zeta)
    row = BinaryConcrete(np.float32(0.3)).inverse_cdf(rho, np.float32(0.4))
    np.testing.assert_array_equal(row, result.zeta[0])


def test_it_has_no_densities_given_z():
    smoothing = BinaryConcrete(0.5)
    assert not isinstance(smoothing, MixtureSmoothing)
    with pytest.raises(TypeError, match="BinaryConcrete has none"):
        posterior.nu(smoothing, 0.5, 0.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(DomainError, match=rf"temperature must be positive and finite; it is {temperature}"):
        BinaryConcrete(temperature)


@pytest.mark.parametrize("operation", ["inverse_cdf", "inverse_cdf_with_derivatives", "log_prob", "cdf"])
def test_invalid_arguments_are_refused(operation):
    call = getattr(BinaryConcrete(0.5), operation)
    first = "rho" if operation.startswith("inverse") else "zeta"
    with pytest.raises(DomainError, match=rf"{first} must lie in \[0, 1\]; entry 1 is 1.5"):
        call([0.5, 1.5], 0.0)
    with pytest.raises(DomainError, match=rf"{first} must lie in \[0, 1\]; it is nan"):
        call(np.nan, 0.0)
    with pytest.raises(DomainError, match="logit_q must not be NaN; entry 0 is nan"):
        call(0.5, [np.nan, 0.0])
    with pytest.raises(ShapeError, match=rf"shapes must broadcast together; got {first} \(2,\), logit_q \(3,\)"):
        call(np.zeros(2), np.zeros(3))
    with pytest.raises(TypeError, match=f"{first} must be float32 or float64 numbers; got dtype complex128"):
        call(0.5j, 0.0)
