"""nu against Bayes' rule and multi-precision; the hierarchy against a cdf and a product of probabilities of our own."""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from reference.posterior import binary_posterior, check_mixture, group_logits, log_prob, nu, smoothed_posterior
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nu_to_what_one_rounding_of_its_inputs_does(dtype):
    """The mixed error of nu: relative to the rounding of nu, zeta, logit_q and beta. 4 is the bound of the project.

    A float64 nu below the smallest normal number may come out as 0: scipy's expit is 1 / (1 + inf) there.
    """
    rng = np.random.default_rng(3)
    n = 300
    zeta = np.where(rng.random(n) < 0.3, 10.0 ** rng.uniform(-9, 0, n), rng.random(n)).astype(dtype)
    logit_q = (rng.normal(size=n) * 10.0 ** rng.uniform(-3, 2, n)).astype(dtype)
    beta = np.where(rng.random(n) < 0.3, 1e3, 10.0 ** rng.uniform(-2, 3, n)).astype(dtype)
    got = nu(OverlappingExponential(beta), zeta, logit_q)
    assert got.dtype == dtype
    eps, errors = float(np.finfo(dtype).eps), []
    underflow = float(np.finfo(dtype).tiny if dtype == np.float64 else np.finfo(dtype).smallest_subnormal)
    with mpmath.workdps(60):
        for x, logit, b, result in zip(zeta.tolist(), logit_q.tolist(), beta.tolist(), got.tolist(), strict=True):
            odds = mpmath.exp(mpmath.mpf(logit) + b * (2 * mpmath.mpf(x) - 1))
            truth = odds / (1 + odds)
            moved = truth * (1 / (1 + odds)) * (2 * b * x + abs(logit) + b * abs(2 * x - 1))
            scale = eps * (truth + moved) + underflow
            errors.append(float(abs(result - truth) / scale))
    assert max(errors) < 4


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


def test_smoothings_without_r_are_refused_by_name():
    class BinaryConcrete:
        """A relaxation that has no r(zeta|z)."""

    for call in (
        lambda kind: nu(kind, 0.5, 0.0),
        lambda kind: smoothed_posterior(NETWORKS, kind, np.full((2, 6), 0.5)),
        check_mixture,
    ):
        with pytest.raises(TypeError, match="one for each z; BinaryConcrete has none"):
            call(BinaryConcrete())
    smoothing = OverlappingExponential(2.0)
    assert check_mixture(smoothing) is smoothing


# ---- the hierarchy --------------------------------------------------------------------------------------------------

SIZES = (2, 1, 3)
BETA = 6.0
_RNG = np.random.default_rng(11)
OFFSETS = [_RNG.normal(size=n) for n in SIZES]
MATRICES = [2 * _RNG.normal(size=(sum(SIZES[:g]), n)) for g, n in enumerate(SIZES)]


def network(g, shift=0.0):
    """Logits of group g: affine in the earlier units, squashed, so that their order matters."""
    return lambda earlier: OFFSETS[g] + shift + np.tanh(earlier @ MATRICES[g]) * 3


NETWORKS = [network(g) for g in range(3)]
GROUPS = [slice(0, 2), slice(2, 3), slice(3, 6)]


def mixture_cdf(zeta, logit):
    """p F(zeta|0) + q F(zeta|1) with the exponentials' cdfs written out."""
    q, d = 1 / (1 + np.exp(-logit)), np.exp(-BETA)
    return ((1 - q) * (1 - np.exp(-BETA * zeta)) + q * (np.exp(BETA * (zeta - 1)) - d)) / (1 - d)


def test_each_group_is_drawn_given_the_groups_before_it():
    rho = np.random.default_rng(1).uniform(size=(50, 6))
    draw = smoothed_posterior(NETWORKS, OverlappingExponential(BETA), rho)
    for g, members in enumerate(GROUPS):
        logits = OFFSETS[g] + 3 * np.tanh(draw.zeta[:, : members.start] @ MATRICES[g])
        np.testing.assert_allclose(draw.logit_q[:, members], logits, rtol=1e-14)
        np.testing.assert_allclose(mixture_cdf(draw.zeta[:, members], logits), rho[:, members], rtol=1e-12)
    density = [BETA * np.exp(-BETA * x) for x in (draw.zeta, 1 - draw.zeta)]  # but for the constant they share
    q = 1 / (1 + np.exp(-draw.logit_q))
    np.testing.assert_allclose(draw.nu, q * density[1] / ((1 - q) * density[0] + q * density[1]), rtol=1e-12)


@pytest.mark.parametrize("g", range(3))
def test_derivative_by_its_own_logit_with_the_noise_held_fixed(g):
    rho, smoothing, step = np.random.default_rng(2).uniform(size=(20, 6)), OverlappingExponential(BETA), 1e-5
    members = GROUPS[g]
    moved = []
    for shift in (step, -step):
        networks = [network(k, shift if k == g else 0.0) for k in range(3)]
        moved.append(smoothed_posterior(networks, smoothing, rho).zeta[:, members])
    analytic = smoothed_posterior(NETWORKS, smoothing, rho).dzeta_dlogit_q[:, members]
    np.testing.assert_allclose(analytic, (moved[0] - moved[1]) / (2 * step), rtol=1e-7, atol=1e-9)


def test_a_sharp_smoothing_draws_the_binary_limit():
    rho = np.random.default_rng(3).uniform(size=(400, 6))
    sharp = smoothed_posterior(NETWORKS, OverlappingExponential(1e6), rho)
    limit = binary_posterior(NETWORKS, rho)
    np.testing.assert_allclose(sharp.zeta, limit.z, atol=1e-3)
    np.testing.assert_allclose(sharp.logit_q, limit.logit_q, atol=1e-2)
    np.testing.assert_array_equal(np.unique(limit.z), [0, 1])


def test_the_threshold_keeps_its_digits_where_q_rounds_to_one():
    # sigma(-40) = 4.2e-18 to the left of which z = 0; 1 - q would be 0, and z = 1 for both.
    logits = lambda earlier: np.full((len(earlier), 1), 40.0)  # noqa: E731
    np.testing.assert_array_equal(binary_posterior([logits], [[4.0e-18], [4.5e-18]]).z, [[0], [1]])
    # Certain units: whatever the noise, inside the unit interval.
    certain = lambda earlier: np.tile([np.inf, -np.inf], (len(earlier), 1))  # noqa: E731
    np.testing.assert_array_equal(binary_posterior([certain], [[1e-300, 0.0], [1.0, 1.0]]).z, [[1, 0], [1, 0]])


def enumerated(networks_see):
    """Every state with its probability, group by group from probabilities and not from logs."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
    probability = np.ones(len(states))
    for g, members in enumerate(GROUPS):
        logits = OFFSETS[g] + 3 * np.tanh(networks_see(states)[:, : members.start] @ MATRICES[g])
        q = 1 / (1 + np.exp(-logits))
        probability *= np.where(states[:, members] == 1, q, 1 - q).prod(axis=1)
    return states, probability


def test_log_prob_by_enumeration():
    states, probability = enumerated(lambda z: z)
    assert probability.sum() == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(np.exp(log_prob(NETWORKS, states)), probability, rtol=1e-12)


def test_binary_draws_have_the_probabilities_of_log_prob():
    """Counts of 64 states in 50,000 draws; chi-square with 63 degrees of freedom exceeds 140 with probability 7e-8.

    Power: against the probabilities of a hierarchy whose networks see zeros instead of z, the same draws give 4,000.
    """
    n_draws = 50_000
    draw = binary_posterior(NETWORKS, np.random.default_rng(4).uniform(size=(n_draws, 6)))
    counts = np.bincount((draw.z @ 2.0 ** np.arange(5, -1, -1)).astype(int), minlength=64)

    def chi_square(probability):
        return ((counts - n_draws * probability) ** 2 / (n_draws * probability)).sum()

    states, _ = enumerated(lambda z: z)
    assert chi_square(np.exp(log_prob(NETWORKS, states))) < 140
    assert chi_square(enumerated(np.zeros_like)[1]) > 1000


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_groups_of_any_size_and_the_logits_of_a_draw(sizes, n_rows, seed):
    rng = np.random.default_rng(seed)
    first = np.concatenate([[0], np.cumsum(sizes)])
    matrices = [rng.normal(size=(start, n)) for start, n in zip(first[:-1], sizes, strict=True)]
    networks = [lambda earlier, A=A: earlier @ A for A in matrices]
    rho = rng.uniform(size=(n_rows, sum(sizes)))
    smoothed = smoothed_posterior(networks, OverlappingExponential(3.0), rho)
    binary = binary_posterior(networks, rho)
    for values in (*smoothed, *binary):
        assert values.shape == rho.shape
    np.testing.assert_array_equal(group_logits(networks, smoothed.zeta), smoothed.logit_q)
    np.testing.assert_array_equal(group_logits(networks, binary.z), binary.logit_q)
    assert log_prob(networks, binary.z).shape == (n_rows,)


def test_a_network_cannot_write_into_the_draw():
    def vandal(earlier):
        earlier[:] = -7.0
        return np.zeros((len(earlier), 1))

    draw = binary_posterior([NETWORKS[0], vandal], np.full((3, 3), 0.5))
    assert draw.z.min() >= 0


def test_hierarchies_that_do_not_fit_are_refused():
    smoothing, rho = OverlappingExponential(BETA), np.full((2, 6), 0.5)
    bad = rho.copy()
    bad[1, 4] = 1.5
    for draw in (lambda networks, noise: smoothed_posterior(networks, smoothing, noise), binary_posterior):
        with pytest.raises(DomainError, match=r"rho must lie in \[0, 1\]; entry \(1, 4\) is 1\.5"):
            draw(NETWORKS, bad)
        with pytest.raises(ShapeError, match=r"rho must be \(B, N\), one row per sample; got \(6,\)"):
            draw(NETWORKS, rho[0])
        with pytest.raises(TypeError, match="rho must be float32 or float64 numbers; got dtype float16"):
            draw(NETWORKS, rho.astype(np.float16))
        with pytest.raises(DomainError, match="networks must hold at least one network"):
            draw([], rho)
        with pytest.raises(ShapeError, match="logits for 5 units in all; with networks\\[2\\] there are 6"):
            draw(NETWORKS, rho[:, :5])
        with pytest.raises(ShapeError, match="logits for 6 units in all; they returned 3"):
            draw(NETWORKS[:2], rho)
        with pytest.raises(ShapeError, match=r"networks\[0\] must return logits \(B, n\) with B = 2, .* got \(6,\)"):
            draw([lambda earlier: np.zeros(6)], rho)
        with pytest.raises(ShapeError, match=r"networks\[0\] must return logits \(B, n\) with B = 2, .* got \(1, 6\)"):
            draw([lambda earlier: np.zeros((1, 6))], rho)
        with pytest.raises(DomainError, match=r"the output of networks\[0\] must not be NaN; entry \(0, 0\) is nan"):
            draw([lambda earlier: np.full((2, 6), np.nan)], rho)
        with pytest.raises(TypeError, match=r"the output of networks\[0\] must be float32 or float64"):
            draw([lambda earlier: np.zeros((2, 6), complex)], rho)
    with pytest.raises(ShapeError, match=r"^smoothing\.beta must be one number here; got \(2,\)$"):
        smoothed_posterior(NETWORKS, OverlappingExponential([1.0, 2.0]), rho)
    with pytest.raises(ShapeError, match=r"zeta must be \(B, N\), one row per sample; got \(6,\)"):
        group_logits(NETWORKS, rho[0])
    with pytest.raises(DomainError, match=r"zeta must not be NaN; entry \(1, 4\) is nan"):
        group_logits(NETWORKS, np.where(bad > 1, np.nan, bad))
    with pytest.raises(ShapeError, match=r"networks must return logits for 5 units in all"):
        group_logits(NETWORKS, rho[:, :5])
    with pytest.raises(DomainError, match=r"z must be 0 or 1; entry \(0, 0\) is 0\.5"):
        log_prob(NETWORKS, rho)
    with pytest.raises(ShapeError, match=r"z must be \(B, N\), one row per sample; got \(6,\)"):
        log_prob(NETWORKS, np.zeros(6))
    with pytest.raises(TypeError, match="z must be float32 or float64 numbers; got dtype complex128"):
        log_prob(NETWORKS, np.zeros((2, 6), complex))
