"""Exponentials over a uniform floor, against quadrature, root finding by scipy and differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from reference.smoothing import OverlappingExponential, UniformExponential
from reference.vocabulary import DomainError, ShapeError

KIND = UniformExponential(6.0)
unit = st.floats(0, 1)
logits = st.floats(-30, 30)
sharpness = st.floats(0.05, 200)


def densities(zeta, beta, weight):
    """By hand, from the densities of the paper."""
    height = beta / (1 - np.exp(-beta))
    return tuple((1 - weight) * height * np.exp(-beta * x) + weight for x in (zeta, 1 - zeta))


@pytest.mark.parametrize("weight", [0.05, 0.5])
@pytest.mark.parametrize("beta", [0.3, 6.0, 60.0])
def test_densities_and_cdfs(beta, weight):
    kind = UniformExponential(beta, weight)
    for zeta in (0.0, 0.13, 0.5, 0.8, 1.0):
        r0, r1 = densities(zeta, beta, weight)
        assert np.exp(kind.log_r(zeta, 0)) == pytest.approx(r0, rel=1e-13)
        assert np.exp(kind.log_r(zeta, 1)) == pytest.approx(r1, rel=1e-13)
        assert kind.log_ratio(zeta) == pytest.approx(np.log(r1 / r0), rel=1e-12, abs=1e-14)
        q = 0.3
        logit = np.log(q / (1 - q))
        assert np.exp(kind.log_prob(zeta, logit)) == pytest.approx((1 - q) * r0 + q * r1, rel=1e-13)
        assert kind.nu(zeta, logit) == pytest.approx(q * r1 / ((1 - q) * r0 + q * r1), rel=1e-13)
        for z in (0, 1):
            area = quad(lambda x, z=z: densities(x, beta, weight)[z], 0, zeta, epsabs=1e-14, limit=200)[0]
            assert kind.r_cdf(zeta, z) == pytest.approx(area, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 0.4, 8.0])
@pytest.mark.parametrize("beta", [0.3, 6.0, 200.0])
def test_the_inverse_is_the_root(beta, logit):
    kind = UniformExponential(beta)
    for rho in (1e-9, 0.02, 0.4, 0.5, 0.93, 1 - 1e-9):
        root = brentq(lambda x, rho=rho: float(kind.cdf(x, logit)) - rho, 0, 1, xtol=1e-15)
        assert kind.inverse_cdf(rho, logit) == pytest.approx(root, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 0.4, 8.0])
@pytest.mark.parametrize("beta", [0.3, 2.9, 6.0, 60.0])
def test_derivatives_are_difference_quotients(beta, logit):
    rho = np.array([0.02, 0.2, 0.5, 0.61, 0.97])
    found = UniformExponential(beta).inverse_cdf_with_derivatives(rho, logit)
    h = 1e-5

    def slope(function):
        return (8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h)

    expected = {
        "dzeta_drho": slope(lambda e: UniformExponential(beta).inverse_cdf(rho + e, logit)),
        "dzeta_dlogit_q": slope(lambda e: UniformExponential(beta).inverse_cdf(rho, logit + e)),
        "dzeta_dbeta": slope(lambda e: UniformExponential(beta + e).inverse_cdf(rho, logit)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-7, atol=1e-9, err_msg=name)


def test_the_floor_bounds_the_slope_where_the_exponentials_alone_explode():
    rho, logit = np.array([0.5]), np.array([0.0])
    bare = OverlappingExponential(200.0).inverse_cdf_with_derivatives(rho, logit).dzeta_drho
    assert bare > 1e40
    for weight in (0.05, 0.2):
        slope = UniformExponential(200.0, weight).inverse_cdf_with_derivatives(rho, logit).dzeta_drho
        assert slope == pytest.approx(1 / weight, rel=1e-12)


@given(unit, logits, sharpness)
def test_mirror(rho, logit, beta):
    kind = UniformExponential(beta)
    here = kind.inverse_cdf_with_derivatives(rho, logit)
    there = kind.inverse_cdf_with_derivatives(1 - rho, -logit)
    noise = 1e-13 * (1 + here.dzeta_drho)  # 1 - rho is rounded
    assert here.zeta == pytest.approx(1 - there.zeta, abs=noise)
    assert here.dzeta_drho == pytest.approx(there.dzeta_drho, rel=1e-9)


@given(unit, unit, logits, sharpness)
def test_the_sample_rises_with_the_noise_and_the_logit(a, b, logit, beta):
    kind, low, high = UniformExponential(beta), min(a, b), max(a, b)
    assert kind.inverse_cdf(low, logit) <= kind.inverse_cdf(high, logit) * (1 + 1e-14)
    assert kind.inverse_cdf(a, logit) <= kind.inverse_cdf(a, logit + 1.0) * (1 + 1e-14)


@given(st.floats(1e-3, 1 - 1e-3), logits, st.floats(0.05, 1000))
def test_there_and_back(rho, logit, beta):
    kind = UniformExponential(beta)
    assert kind.cdf(kind.inverse_cdf(rho, logit), logit) == pytest.approx(rho, rel=1e-11)


def test_ends_and_certain_units():
    assert KIND.inverse_cdf([0.0, 1.0], [3.0, -3.0]).tolist() == [0.0, 1.0]
    infinite = np.array([-np.inf, np.inf])
    assert KIND.nu([0.9, 0.1], infinite).tolist() == [0.0, 1.0]
    found = KIND.inverse_cdf_with_derivatives(np.full(2, 0.4), infinite)
    assert found.dzeta_dlogit_q.tolist() == [0.0, 0.0]
    assert np.isfinite([found.zeta, found.dzeta_drho, found.dzeta_dbeta]).all()


def test_a_sharp_one_is_the_unit_but_for_the_floor():
    rho = (np.arange(2000) + 0.5) / 2000
    logit = np.log(0.3 / 0.7)
    zeta = UniformExponential(1e3, 0.01).inverse_cdf(rho, logit)
    between = (zeta > 0.01) & (zeta < 0.99)
    assert between.mean() == pytest.approx(0.01 * 0.98, abs=2e-3)
    assert (zeta > 0.5).mean() == pytest.approx(0.99 * 0.3 + 0.005, abs=2e-3)


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.1, np.nan])
def test_the_weight_of_the_floor_is_checked(weight):
    with pytest.raises(DomainError, match=r"uniform_weight must lie in \(0, 1\)"):
        UniformExponential(3.0, weight)


@pytest.mark.parametrize("weight", [np.array([0.05, 0.1]), [0.05]])
def test_the_weight_of_the_floor_is_one_number(weight):
    with pytest.raises(ShapeError, match=r"uniform_weight must be one number; got \([12],\)"):
        UniformExponential(3.0, weight)
    kept = UniformExponential(3.0, np.array(0.25)).uniform_weight
    assert type(kept) is float
    assert kept == 0.25


def test_other_input_is_refused_by_name():
    with pytest.raises(DomainError, match=r"beta must be positive and finite; it is 0\.0"):
        UniformExponential(0.0)
    with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; entry 1 is 1.5"):
        KIND.inverse_cdf([0.5, 1.5], 0.0)
    with pytest.raises(ShapeError, match=r"zeta \(2,\), logit_q \(3,\)"):
        KIND.cdf([0.1, 0.2], [0.0, 1.0, 2.0])
