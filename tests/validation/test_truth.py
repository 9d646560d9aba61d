"""The judge judged: the truth of every kind obeys the definitions, by differences in multi-precision arithmetic."""

import mpmath
import pytest
from mpmath import mpf

from validation.truth import KINDS, OUTPUTS, MixtureTruth, sigmoid_pair

STEP = mpf(10) ** -25
POINTS = [  # rho, logit, sharpness
    (0.3, 0.4, 2.5),
    (0.8, -1.3, 6.0),
    (0.97, 2.0, 0.7),
    (0.05, -3.0, 15.0),
    (0.6, 0.0, 40.0),
]
MIXTURES = [name for name, truth in KINDS.items() if isinstance(truth, MixtureTruth)]


@pytest.fixture(autouse=True)
def precision():
    with mpmath.workdps(120):
        yield


def slope(function, x, step=STEP):
    return (function(x + step) - function(x - step)) / (2 * step)


TINY = mpf(10) ** -30


def close(a, b, tolerance=TINY):
    return abs(a - b) <= tolerance * (1 + abs(b))


def inverse(truth, rho, logit, beta):
    return truth.inverse(rho, *sigmoid_pair(logit), beta)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", KINDS)
def test_the_inverse_inverts_and_its_derivatives_are_slopes(name, point):
    truth, (rho, logit, beta) = KINDS[name], (mpf(x) for x in point)
    zeta, by_logit, by_rho, by_beta = inverse(truth, rho, logit, beta)
    if name == "spike_exponential" and zeta == 0:
        assert rho <= sigmoid_pair(logit)[0]
        assert (by_logit, by_rho, by_beta) == (0, 0, 0)
        return
    assert close(truth.cdf(zeta, *sigmoid_pair(logit), beta), rho)
    # The Gaussian's root is sought to 32 digits, enough for a judge of 16.
    step, tolerance = (mpf(10) ** -8, mpf(10) ** -12) if name == "gaussian" else (STEP, TINY)
    assert close(by_rho, slope(lambda x: inverse(truth, x, logit, beta)[0], rho, step), tolerance)
    assert close(by_logit, slope(lambda x: inverse(truth, rho, x, beta)[0], logit, step), tolerance)
    if name == "concrete":  # its derivative is by 1 / lambda
        assert close(by_beta, slope(lambda x: inverse(truth, rho, logit, 1 / x)[0], 1 / beta, step), tolerance)
    else:
        assert close(by_beta, slope(lambda x: inverse(truth, rho, logit, x)[0], beta, step), tolerance)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", KINDS)
def test_the_density_is_the_slope_of_the_cdf(name, point):
    truth, (zeta, logit, beta) = KINDS[name], (mpf(x) for x in point)
    p, q = sigmoid_pair(logit)
    assert close(mpmath.exp(truth.log_prob(zeta, p, q, beta)), slope(lambda x: truth.cdf(x, p, q, beta), zeta))


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", MIXTURES)
def test_components_are_consistent_and_bayes_rule_holds(name, point):
    truth, (zeta, logit, beta) = KINDS[name], (mpf(x) for x in point)
    p, q = sigmoid_pair(logit)
    c = truth.components(zeta, beta)
    for z, (F, f, dF) in enumerate(((c.F0, c.f0, c.dF0), (c.F1, c.f1, c.dF1))):
        assert close(truth.r_cdf(zeta, z, beta), F)
        assert close(f, slope(lambda x, z=z: truth.r_cdf(x, z, beta), zeta))
        assert close(dF, slope(lambda x, z=z: truth.r_cdf(zeta, z, x), beta))
        if f != 0:
            assert close(truth.log_r(zeta, z, beta), mpmath.log(f))
    assert close(truth.nu(zeta, p, q, beta), q * c.f1 / (p * c.f0 + q * c.f1))


@pytest.mark.parametrize("name", KINDS)
def test_the_ends_are_limits(name):
    # Not by continuity of every output (a density may be infinite at an end), but of zeta and its logit's derivative.
    truth, logit, beta = KINDS[name], mpf("0.7"), mpf(3)
    for rho in (mpf(0), mpf(1)):
        end = inverse(truth, rho, logit, beta)
        near = inverse(truth, abs(rho - mpf(10) ** -80), logit, beta)
        if mpmath.isinf(end[0]):
            assert abs(near[0]) > 8
            assert mpmath.sign(near[0]) == mpmath.sign(end[0])
            assert abs(near[1] - end[1]) < 0.05  # a Gaussian's falls like one over the distance
        else:
            assert abs(near[0] - end[0]) < mpf(10) ** -20
            assert abs(near[1] - end[1]) < mpf(10) ** -20


def test_the_outputs_are_named():
    assert len(OUTPUTS) == len(inverse(KINDS["concrete"], mpf("0.5"), mpf(1), mpf(1)))
