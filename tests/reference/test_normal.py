"""Normal variables: quadrature, multi-precision arithmetic, complex steps of the textbook form."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from reference.normal import KLGradient, kl, kl_gradient, log_prob, sample
from reference.vocabulary import DomainError, ShapeError

EPS = float(np.finfo(np.float64).eps)
NAMES = "mean_q", "log_std_q", "mean_p", "log_std_p"

means, log_stds = st.floats(-1e3, 1e3), st.floats(-160, 160)


def textbook(mean_q, log_std_q, mean_p, log_std_p):
    """log of the ratio of standard deviations, plus a ratio of second moments: accepts complex numbers and mpmath's."""
    exp = mpmath.exp if isinstance(mean_q, mpmath.mpf) else np.exp
    moments = exp(2 * log_std_q) + (mean_q - mean_p) ** 2
    return log_std_p - log_std_q + moments / (2 * exp(2 * log_std_p)) - 1 / 2


def near_and_far(n, seed):
    """Pairs from next to each other to worlds apart; the branch point |2 r| = 1 is among them."""
    rng = np.random.default_rng(seed)
    mean_p, log_std_p = rng.normal(size=n) * rng.choice([0, 1, 30], n), rng.normal(size=n) * rng.choice([0, 1, 5], n)
    r = rng.choice([-1, 1], n) * 10 ** rng.uniform(-12, 1, n)
    r[:4] = 0.5, -0.5, 0.5 * (1 + EPS), -0.5 * (1 + EPS)
    distance = np.exp(log_std_p) * rng.choice([-1, 0, 1], n) * 10 ** rng.uniform(-12, 2, n)
    log_std_p[:4] = 0
    return mean_p + distance, log_std_p + r, mean_p, log_std_p


# ---- the distribution ------------------------------------------------------------------------------------------------


def test_sample_is_the_quantile_of_the_density():
    u = np.array([1e-6, 0.1, 0.5, 0.9])
    h = sample(norm.ppf(u), 3.0, -1.5)
    np.testing.assert_allclose(norm(3.0, np.exp(-1.5)).cdf(h), u, rtol=1e-12)
    np.testing.assert_array_equal(sample([0.0, 2.0], 1.0, [5.0, 0.0]), [1, 3])


def test_log_prob_is_a_density_of_that_mean_and_spread():
    h, step = np.linspace(-40, 40, 40_001, retstep=True)
    density = np.exp(log_prob(h, 1.25, 0.4))  # the trapezium rule is exact for what vanishes at both ends
    assert density.sum() * step == pytest.approx(1, rel=1e-13)
    assert (density * h).sum() * step == pytest.approx(1.25, rel=1e-13)
    assert (density * (h - 1.25) ** 2).sum() * step == pytest.approx(np.exp(0.8), rel=1e-13)


def test_log_prob_by_hand():
    half_log_2pi = 0.9189385332046727
    np.testing.assert_allclose(
        log_prob([0, 2, 1], [0, 0, 1], [0, 0, 3]), -half_log_2pi - np.array([0, 2, 3]), rtol=1e-15
    )
    assert log_prob(1e60, 0.0, 0.0) == pytest.approx(-5e119, rel=1e-15)
    assert log_prob(np.zeros((2, 1)), np.zeros(3), 0.0).shape == (2, 3)
    assert log_prob(np.float32(0), np.float32(0), np.float32(0)).dtype == np.float64


# ---- the divergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [(0.3, -0.2, -0.5, 0.4), (0.0, 1.0, 0.0, -0.3), (2.0, 0.1, 1.9, 0.1)])
def test_kl_is_the_mean_of_the_log_ratio(case):
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    h = sample(nodes, *case[:2])
    ratio = log_prob(h, *case[:2]) - log_prob(h, *case[2:])
    assert kl(*case) == pytest.approx(weights @ ratio / weights.sum(), rel=1e-12)


def test_kl_by_hand():
    assert kl(3.0, 0.0, 1.0, 0.0) == 2  # (2 / 1)^2 / 2
    assert kl(3.0, np.log(2), 1.0, np.log(2)) == pytest.approx(0.5, rel=1e-14)
    assert kl(0.0, np.log(2), 0.0, 0.0) == pytest.approx(1.5 - np.log(2), rel=1e-14)  # (4 - 1) / 2 - log 2
    np.testing.assert_array_equal(kl([1.0, -7.0], [0.5, -90.0], [1.0, -7.0], [0.5, -90.0]), 0)
    # A ratio of 1 + 1e-10 costs its square, of which the textbook form keeps no digit.
    assert kl(0.0, 1e-10, 0.0, 0.0) == pytest.approx(1e-20, rel=1e-9, abs=0)
    assert kl(np.zeros((2, 1)), np.zeros(3), 0.0, 0.0).shape == (2, 3)


def test_to_what_one_rounding_of_the_inputs_does():
    """Mixed error of the KL and its derivatives, relative to one rounding of each of them and of each argument: <= 2.

    Power: the textbook form misses by far more where q is near p.
    """
    n, cases = 120, near_and_far(120, 0)
    found = {"kl": kl(*cases), **kl_gradient(*cases)._asdict()}
    worst = dict.fromkeys([*found, "textbook"], 0.0)
    with mpmath.workdps(80):
        eps = mpmath.mpf(EPS)

        def exact(*inputs):
            first = [
                mpmath.diff(textbook, inputs, tuple(int(k == j) for j in range(4)), h=mpmath.mpf(10) ** -30)
                for k in range(4)
            ]
            return [textbook(*inputs), *first]

        for i in range(n):
            at = [mpmath.mpf(float(x[i])) for x in cases]
            truth = exact(*at)
            moved = [mpmath.mpf(0)] * 5
            for j in range(4):
                values = exact(*(x * (1 + eps * (k == j)) for k, x in enumerate(at)))
                moved = [m + abs(v - t) for m, v, t in zip(moved, values, truth, strict=True)]
            got = [float(output[i]) for output in found.values()]
            names = [*found, "textbook"]
            got.append(float(textbook(*(x[i] for x in cases))))
            for name, value, k in zip(names, got, (0, 1, 2, 3, 4, 0), strict=True):
                least = mpmath.mpf(2) ** -1022
                error = abs(value - truth[k]) / (eps * abs(truth[k]) + moved[k] + least)
                worst[name] = max(worst[name], float(error))
    assert worst.pop("textbook") > 1e3
    assert max(worst.values()) <= 2, worst


def test_gradient_by_complex_steps():
    rng = np.random.default_rng(1)
    inputs = dict(zip(NAMES, rng.normal(size=(4, 50)), strict=True))
    for name, derivative in kl_gradient(**inputs)._asdict().items():
        argument = name.removeprefix("dkl_d")
        moved = {**inputs, argument: inputs[argument] + 1e-30j}
        np.testing.assert_allclose(derivative, textbook(**moved).imag / 1e-30, rtol=1e-12, atol=1e-13)


def test_gradient_has_the_common_shape_and_can_be_written_to():
    gradient = kl_gradient(np.zeros((2, 1)), np.ones(3), 0.0, 0.5)
    assert isinstance(gradient, KLGradient)
    for part in gradient:
        assert part.shape == (2, 3)
        part += 1


@given(means, log_stds, means, log_stds)
def test_kl_is_not_negative_and_finite_over_the_whole_domain(mean_q, log_std_q, mean_p, log_std_p):
    value = kl(mean_q, log_std_q, mean_p, log_std_p)
    assert 0 <= value < np.inf
    assert all(np.isfinite(part) for part in kl_gradient(mean_q, log_std_q, mean_p, log_std_p))


@given(st.floats(-50, 50), st.floats(-5, 5), st.floats(-50, 50), st.floats(-5, 5), st.integers(-3, 3))
def test_units_do_not_matter(mean_q, log_std_q, mean_p, log_std_p, k):
    """Measured in units 2^k times as small, with the origin mirrored."""
    shift, factor = k * np.log(2), 2.0**k
    moved = kl(-factor * mean_q, log_std_q + shift, -factor * mean_p, log_std_p + shift)
    distance = (mean_q - mean_p) * np.exp(-log_std_p)
    roundings = EPS * (abs(log_std_q) + abs(log_std_p) + 2 * abs(shift) + 1)
    slack = 4 * roundings * (abs(np.expm1(2 * (log_std_q - log_std_p))) + distance**2) + 1e-30
    assert moved == pytest.approx(kl(mean_q, log_std_q, mean_p, log_std_p), abs=slack, rel=1e-13)


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(DomainError, match=r"log_std must lie in \[-170, 170\]; entry 1 is 171.0"):
        sample(0.0, 0.0, [0.0, 171.0])
    with pytest.raises(DomainError, match="mean_p must be finite; it is inf"):
        kl(0.0, 0.0, np.inf, 0.0)
    with pytest.raises(DomainError, match=r"the square of \(mean_q - mean\) / std must be finite; it is inf"):
        kl(1e100, 0.0, 0.0, -160.0)
    with pytest.raises(DomainError, match=r"the square of \(h - mean\) / std must be finite"):
        log_prob(1e200, 0.0, 0.0)
    with pytest.raises(ShapeError, match=r"shapes must broadcast together; got eps \(2,\), mean \(3,\), log_std \(\)"):
        sample(np.zeros(2), np.zeros(3), 0.0)
