"""Normal densities: tails, limits, symmetries, and derivatives of an inverse found by root finding.

Accuracy over the whole domain is judged in ``tests/validation/test_accuracy.py``.
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.smoothing import Gaussian
from reference.vocabulary import DomainError, ShapeError

BETAS = [0.1, 3.0, 25.0, 400.0]
LOGITS = [-4.0, -0.5, 0.0, 2.0]

betas = st.floats(0.01, 1000)
logits = st.floats(-700, 700)
unit = st.floats(0, 1).filter(lambda rho: 2**-1000 < rho < 1)


# ---- r(zeta|z) and the mixture ------------------------------------------------------------------------------------


def integral(f, edges):
    """By Gauss-Legendre between consecutive edges."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    low, width = np.sort(edges)[:-1, None], np.diff(np.sort(edges))[:, None]
    return float((f(low + width * (nodes + 1) / 2) * weights * width / 2).sum())


def edges(end, beta, *modes):
    """Every standard deviation about the modes, up to an end; 1e-50 of the mass is below them all."""
    points = np.concatenate([mode + np.arange(-15, 16) / np.sqrt(beta) for mode in modes])
    return np.append(points[points < end], end)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("z", [0, 1])
def test_r_is_a_density_with_the_stated_mean_and_precision_and_its_cdf_the_integral(z, beta):
    smoothing, s = Gaussian(beta), np.sqrt(beta)
    for end in (z - 3 / s, z - 0.2 / s, 0.5, z + 1 / s, z + 9 / s):
        mass = integral(lambda x: np.exp(smoothing.log_r(x, z)), edges(end, beta, z))
        assert mass == pytest.approx(float(smoothing.r_cdf(end, z)), rel=1e-12)
    assert smoothing.r_cdf(float(z), z) == 0.5
    variance = integral(lambda x: (x - z) ** 2 * np.exp(smoothing.log_r(x, z)), edges(z + 15 / s, beta, z))
    assert variance == pytest.approx(1 / beta, rel=1e-12)
    np.testing.assert_array_equal(smoothing.r_cdf([-np.inf, np.inf], z), [0, 1])
    np.testing.assert_array_equal(smoothing.log_r([-np.inf, np.inf], z), [-np.inf, -np.inf])


def test_tails_far_out():
    # Against mpmath's own erfc: t = s (zeta - z) for s = 20 from -38 (where Phi is 1e-316) to 38.
    zeta = np.concatenate([np.linspace(-1.9, 1.9, 77), [1e-9, -0.05, 0.05, 1e-3]])
    got = Gaussian(400.0).r_cdf(zeta, 0)
    with mpmath.workdps(30):
        expected = [float(mpmath.ncdf(20 * mpmath.mpf(x))) for x in zeta.tolist()]
    np.testing.assert_allclose(got, expected, rtol=6e-16, atol=1e-322)  # 20 zeta = t is t^2 eps wrong if it is rounded


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("logit_q", LOGITS)
def test_the_mixture_is_a_density_and_its_cdf_the_integral(logit_q, beta):
    smoothing = Gaussian(beta)
    for end in (-1 / np.sqrt(beta), 0.3, 1 + 2 / np.sqrt(beta)):
        mass = integral(lambda x: np.exp(smoothing.log_prob(x, logit_q)), edges(end, beta, 0, 1))
        assert mass == pytest.approx(float(smoothing.cdf(end, logit_q)), rel=1e-12)
    np.testing.assert_allclose(smoothing.cdf([-np.inf, np.inf], logit_q), [0, 1], rtol=2e-16)


@given(st.floats(-100, 100), betas)
def test_log_ratio_is_the_difference_of_the_log_densities(zeta, beta):
    smoothing = Gaussian(beta)
    at_zero, at_one = float(smoothing.log_r(zeta, 0)), float(smoothing.log_r(zeta, 1))
    # Each log density is right to a few roundings of its own size, which is what is subtracted.
    size = abs(at_zero) + abs(at_one) + 1
    assert float(smoothing.log_ratio(zeta)) == pytest.approx(at_one - at_zero, abs=8 * 2.0**-52 * size)


@given(st.floats(-10, 10), st.floats(-30, 30), betas)
def test_bayes_rule(zeta, logit_q, beta):
    with mpmath.workdps(30):
        prior = 1 / (1 + mpmath.exp(-mpmath.mpf(logit_q)))
        odds = (
            prior
            / (1 - prior)
            * mpmath.exp((mpmath.mpf(zeta) ** 2 - (mpmath.mpf(zeta) - 1) ** 2) * mpmath.mpf(beta) / 2)
        )
        expected = float(odds / (1 + odds))
    assert float(Gaussian(beta).nu(zeta, logit_q)) == pytest.approx(expected, rel=1e-14, abs=1e-320)


def test_numbers_worked_by_hand():
    # beta = 2 pi: the density at the mode is exactly 1. beta = 8 log 2: e^{-beta/8} = 1/2 at zeta = 1/2.
    assert Gaussian(2 * np.pi).log_r(0.0, 0) == pytest.approx(0, abs=1e-16)
    smoothing = Gaussian(8 * np.log(2))
    height = np.sqrt(4 * np.log(2) / np.pi)
    assert np.exp(smoothing.log_r(0.5, 0)) == pytest.approx(height / 2, rel=1e-15)
    assert np.exp(smoothing.log_prob(0.5, 1.7)) == pytest.approx(height / 2, rel=1e-15)
    assert np.exp(smoothing.log_r(1.0, 0)) == pytest.approx(height / 16, rel=1e-15)
    assert smoothing.nu(0.5, np.log(3)) == pytest.approx(3 / 4, rel=1e-15)
    assert smoothing.nu(1.0, np.log(3)) == pytest.approx(3 * 16 / (1 + 3 * 16), rel=1e-15)
    # By symmetry rho = 1/2 with l = 0 is the centre, where nu = 1/2 too.
    result = smoothing.inverse_cdf_with_derivatives(0.5, 0.0)
    assert result.zeta == 0.5
    assert result.dzeta_drho == pytest.approx(2 / height, rel=1e-15)
    assert result.dzeta_dbeta == 0
    # Phi(1) is 0.8413447460685429 (tables), so with beta = 4, q = 1/2 the difference of the two CDFs at 1/2 is
    # 0.6826894921370859, and f = 2 phi(1) = 2 * 0.24197072451914337.
    result = Gaussian(4.0).inverse_cdf_with_derivatives(0.5, 0.0)
    assert result.dzeta_dlogit_q == pytest.approx(0.25 * 0.6826894921370859 / (2 * 0.24197072451914337), rel=1e-15)


# ---- the inverse CDF ----------------------------------------------------------------------------------------------


@given(unit, logits, betas)
def test_cdf_undoes_inverse_cdf(rho, logit_q, beta):
    smoothing = Gaussian(beta)
    result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
    # zeta is known to a few roundings, which F turns into eps zeta f(zeta); the smaller of p and q to eps |l| relative.
    slope = min(1 / float(result.dzeta_drho), 1e300)
    small = abs(logit_q) / (1 + np.exp(min(abs(logit_q), 700)))
    tolerance = 8 * 2.0**-52 * (rho + abs(float(result.zeta)) * slope + small)
    assert abs(smoothing.cdf(result.zeta, logit_q) - rho) <= tolerance


@given(st.integers(1, 2**20 - 1), st.floats(-30, 30), betas)
def test_mirror_symmetry_to_the_last_bit(numerator, logit_q, beta):
    rho = numerator / 2**20  # 1 - rho is exact, and the formulas mirror the problem themselves
    if rho == 0.5:
        return
    here = Gaussian(beta).inverse_cdf_with_derivatives(rho, logit_q)
    there = Gaussian(beta).inverse_cdf_with_derivatives(1 - rho, -logit_q)
    assert here.zeta == pytest.approx(1 - float(there.zeta), rel=2.0**-52, abs=2.0**-53)
    assert here.dzeta_dlogit_q == there.dzeta_dlogit_q
    assert here.dzeta_drho == there.dzeta_drho
    assert here.dzeta_dbeta == -there.dzeta_dbeta


@pytest.mark.parametrize("beta", [*BETAS, 1e3])
def test_monotone_in_noise_and_logit_from_end_to_end(beta):
    smoothing = Gaussian(beta)
    rho, logit_q = np.linspace(0, 1, 101), np.linspace(-40, 40, 101)[:, None]
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
    np.testing.assert_allclose(Gaussian(1e12).inverse_cdf(rho, logit_q), step, atol=1e-5)
    # With beta -> 0 both are one wide normal: quartiles at +-0.67448975 standard deviations (tables).
    np.testing.assert_allclose(
        1e-8 * Gaussian(1e-16).inverse_cdf([0.25, 0.75], logit_q), [[-0.67448975, 0.67448975]] * 3, atol=2e-8
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_units_are_single_normals(dtype):
    # beta = 16: zeta = z + (quantile of rho)/4, and rho = 1/4 has -0.6744897501960817 (tables).
    rho = np.array([0.5, 0.25, 0.75], dtype)
    expected = np.array([0, -0.6744897501960817, 0.6744897501960817]) / 4
    smoothing = Gaussian(16.0)
    tolerance = {"rtol": 2 * np.finfo(dtype).eps, "atol": np.finfo(dtype).eps}
    for sign, z in ((-1, 0), (1, 1)):
        zeta = smoothing.inverse_cdf(rho, dtype(sign * np.inf))
        assert zeta.dtype == dtype
        np.testing.assert_allclose(zeta, z + expected, **tolerance)
        np.testing.assert_array_equal(smoothing.nu(zeta, dtype(sign * np.inf)), z)


# ---- derivatives --------------------------------------------------------------------------------------------------


def inverse_of_the_definition(rho, logit_q, beta, start):
    """By secants on the textbook CDF, in the working precision."""
    s, q = mpmath.sqrt(beta), 1 / (1 + mpmath.exp(-logit_q))

    def excess(x):
        return (1 - q) * mpmath.ncdf(s * x) + q * mpmath.ncdf(s * (x - 1)) - rho

    return mpmath.findroot(excess, (start, start + mpmath.mpf("1e-9")), tol=1e-70)


@pytest.mark.parametrize("beta", [0.3, 4.0, 60.0])
@pytest.mark.parametrize(
    ("logit_q", "rho"), [(-2.0, 0.01), (-2.0, 0.8), (0.0, 0.5), (0.3, 0.45), (3.5, 0.02), (3.5, 0.9)]
)
def test_derivatives_are_those_of_an_inverse_found_by_root_finding(rho, logit_q, beta):
    result = Gaussian(beta).inverse_cdf_with_derivatives(rho, logit_q)
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
            assert float(getattr(result, name)) == pytest.approx(expected, rel=1e-12, abs=1e-15), name


def test_derivatives_saturate_and_are_never_nan():
    rho, logit_q = np.array([0.0, 1e-300, 0.5, 1.0]), np.array([[-np.inf], [-746.0], [0.0], [746.0], [np.inf]])
    for beta in (0.01, 4.0, 1e3, 1e6):
        result = Gaussian(beta).inverse_cdf_with_derivatives(rho, logit_q)
        for name in ("dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta"):
            assert np.isfinite(getattr(result, name)).all(), name
        np.testing.assert_array_equal(result.dzeta_drho[:, [0, -1]], np.finfo(np.float64).max)
        np.testing.assert_array_equal(result.dzeta_dlogit_q[:, [0, -1]], 0)


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, -1.0, np.inf, np.nan])
def test_refuses_a_sharpness_that_is_none(beta):
    with pytest.raises(DomainError, match=f"beta must be positive and finite; it is {beta}"):
        Gaussian(beta)


def test_refuses_what_is_outside_the_domain():
    smoothing = Gaussian(2.0)
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
        Gaussian(np.ones(3)).inverse_cdf(np.full(2, 0.5), 0.0)
