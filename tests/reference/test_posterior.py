"""nu = q(z=1|zeta, x) against Bayes' rule with the densities themselves, and against its average."""

import numpy as np
import pytest
from scipy.integrate import quad

from reference.posterior import nu
from reference.smoothing import OverlappingExponential
from reference.vocabulary import DomainError, ShapeError


@pytest.mark.parametrize("beta", [0.01, 1.0, 10.0, 60.0])
@pytest.mark.parametrize("logit_q", [-20.0, -1.0, 0.0, 0.3, 6.0])
def test_nu_is_bayes_rule(logit_q, beta):
    smoothing = OverlappingExponential(beta)
    zeta = np.linspace(0, 1, 41)
    q = 1 / (1 + np.exp(-logit_q))
    joint = [(1 - q) * np.exp(smoothing.log_r(zeta, 0)), q * np.exp(smoothing.log_r(zeta, 1))]
    np.testing.assert_allclose(nu(smoothing, zeta, logit_q), joint[1] / (joint[0] + joint[1]), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.01, 1.0, 10.0, 60.0])
@pytest.mark.parametrize("logit_q", [-4.0, 0.0, 0.7, 3.0])
def test_averaged_over_zeta_nu_is_the_prior_probability(logit_q, beta):
    smoothing = OverlappingExponential(beta)

    def integrand(zeta):
        return nu(smoothing, zeta, logit_q) * np.exp(smoothing.log_prob(zeta, logit_q))

    average, _ = quad(integrand, 0, 1, points=[0.02, 0.5, 0.98], epsabs=1e-12)
    assert average == pytest.approx(1 / (1 + np.exp(-logit_q)), rel=1e-9)


def test_edges_and_limits():
    smoothing = OverlappingExponential(10.0)
    np.testing.assert_array_equal(nu(smoothing, [0.0, 0.5, 1.0], np.inf), 1)
    np.testing.assert_array_equal(nu(smoothing, [0.0, 0.5, 1.0], -np.inf), 0)
    assert nu(smoothing, 0.5, 0.0) == 0.5
    # A sharp smoothing tells z outright; a flat one tells nothing.
    np.testing.assert_allclose(nu(OverlappingExponential(1e3), [0.0, 1.0], 2.0), [0, 1], atol=1e-300)
    np.testing.assert_allclose(nu(OverlappingExponential(1e-12), [0.0, 1.0], 2.0), 1 / (1 + np.exp(-2)), rtol=1e-11)


def test_dtype_and_shape():
    smoothing = OverlappingExponential(10.0)
    assert nu(smoothing, np.zeros((3, 1), np.float32), np.zeros(4, np.float32)).dtype == np.float32
    assert nu(smoothing, np.zeros((3, 1)), np.zeros(4)).shape == (3, 4)
    assert nu(smoothing, np.zeros(0), 0.0).shape == (0,)


def test_refusals():
    smoothing = OverlappingExponential(10.0)
    with pytest.raises(DomainError, match=r"zeta must lie in \[0, 1\]; entry 1 is 1\.2"):
        nu(smoothing, [0.0, 1.2], 0.0)
    with pytest.raises(DomainError, match="logit_q must not be NaN; entry 1 is nan"):
        nu(smoothing, [0.0, 1.0], [0.0, np.nan])
    with pytest.raises(ShapeError, match=r"zeta \(2,\), logit_q \(3,\)"):
        nu(smoothing, np.zeros(2), np.zeros(3))
    with pytest.raises(TypeError, match="logit_q must be float32 or float64 numbers; got dtype float16"):
        nu(smoothing, np.zeros(2), np.zeros(2, np.float16))
