"""Gradient estimators judged by the exact gradient: enumerated, integrated over all noise, or within standard errors.

Three judges for unbiasedness, none of which uses the reference's formulas:
- estimators that are linear in the noise between the points where a unit flips are integrated exactly, by the midpoint
  of every cell of the noise;
- those with relaxed control variates by Gauss-Legendre quadrature, for one and two units;
- all of them by a million draws, where deliberately wrong variants must fail.
"""

import inspect
import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

import reference.smoothing
from reference import boltzmann, estimators
from reference.estimators import (
    ConditionalLogistic,
    Integrand,
    RunningMoments,
    arm,
    concrete,
    conditional_logistic,
    disarm,
    draw,
    exact_gradient,
    exact_multi_sample_gradient,
    exact_multi_sample_value,
    exact_value,
    logistic,
    matching_noise,
    muprop,
    nvil,
    rebar,
    rebar_surrogate,
    reinforce,
    relax,
    score,
    smoothed,
    straight_through,
    vimco,
)
from reference.smoothing import BinaryConcrete, OverlappingExponential, Smoothing
from reference.vocabulary import RBM, DomainError, ShapeError

LOGITS = np.array([-1.2, 0.4, 0.9, -0.3])
EXTREME = np.array([-5.5, 0.5, 4.5])  # two units that flip once in 250 and once in 90 draws


def integrand(n_units, seed=3):
    """Neither linear nor a sum over units: pairs of units interact, and all of them at once."""
    rng = np.random.default_rng(seed)
    pairs = np.triu(rng.normal(size=(n_units, n_units)), 1)
    pairs = pairs + pairs.T
    slope, inner = 0.5 * rng.normal(size=n_units), 0.7 * rng.normal(size=n_units)

    def value(x):
        return ((x @ pairs) * x).sum(axis=1) / 2 + x @ slope + np.exp(x @ inner)

    def gradient(x):
        return x @ pairs + slope + np.exp(x @ inner)[:, None] * inner

    return Integrand(value, gradient)


def surrogate(n_units, seed=5):
    """A network as RELAX would train one: a hidden layer on top of the real numbers g."""
    rng = np.random.default_rng(seed)
    weights, readout = rng.normal(size=(n_units, 3)), rng.normal(size=3)
    return Integrand(
        lambda g: np.tanh(g @ weights) @ readout,
        lambda g: ((1 - np.tanh(g @ weights) ** 2) * readout) @ weights.T,
    )


def scaled_log(f):
    """f as the logarithm of a positive function, not too steep."""
    return lambda x: 0.5 * f(x)


def enumerated_gradient(f, logits):
    """d/dl of the sum over all z of f(z) times its probability, in multi-precision, by differences of the sum."""
    states = list(itertools.product([0, 1], repeat=len(logits)))
    values = [mpmath.mpf(float(v)) for v in f(np.array(states, dtype=float))]

    def expectation(*point):
        total = mpmath.mpf(0)
        for state, value in zip(states, values, strict=True):
            total += value * mpmath.fprod(
                1 / (1 + mpmath.exp((1 - 2 * z) * x)) for z, x in zip(state, point, strict=True)
            )
        return total

    point = [mpmath.mpf(float(x)) for x in logits]
    with mpmath.workdps(40):
        orders = np.eye(len(logits), dtype=int)
        gradient = [float(mpmath.diff(expectation, point, tuple(int(o) for o in order))) for order in orders]
        return float(expectation(*point)), np.array(gradient)


# ---- the truth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logits", [LOGITS, EXTREME, np.array([0.3]), np.array([40.0, -90.0])])
def test_exact_value_and_gradient_against_multi_precision_differences(logits):
    f = integrand(len(logits))
    value, gradient = enumerated_gradient(f, logits)
    assert exact_value(f, logits) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(exact_gradient(f, logits), gradient, rtol=1e-12)


def test_exact_gradient_keeps_the_digits_of_a_nearly_constant_function():
    wiggle = exact_gradient(lambda z: 2.0**-30 * z[:, 0] * z[:, 1], LOGITS)
    lifted = exact_gradient(lambda z: 2.0**20 + 2.0**-30 * z[:, 0] * z[:, 1], LOGITS)
    np.testing.assert_allclose(lifted, wiggle, rtol=1e-2, atol=1e-16)  # E[f] itself has an ulp of 2**-32


def test_exact_multi_sample_gradient_against_multi_precision_differences():
    log_f, logits, n_samples = scaled_log(integrand(2)), LOGITS[:2], 3
    states = np.array(list(itertools.product([0, 1], repeat=2)), dtype=float)
    weight = [mpmath.exp(mpmath.mpf(float(v))) for v in log_f(states)]

    def bound(*point):
        probs = [
            mpmath.fprod(1 / (1 + mpmath.exp((1 - 2 * z) * x)) for z, x in zip(state, point, strict=True))
            for state in states
        ]
        return mpmath.fsum(
            mpmath.fprod(probs[i] for i in chosen) * mpmath.log(mpmath.fsum(weight[i] for i in chosen) / n_samples)
            for chosen in itertools.product(range(4), repeat=n_samples)
        )

    with mpmath.workdps(40):
        expected = [float(mpmath.diff(bound, tuple(logits), order)) for order in ((1, 0), (0, 1))]
        value = float(bound(*logits))
    assert exact_multi_sample_value(log_f, logits, n_samples) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(exact_multi_sample_gradient(log_f, logits, n_samples), expected, rtol=1e-12)
    # One sample: nothing but the mean of log f.
    np.testing.assert_allclose(exact_multi_sample_gradient(log_f, logits, 1), exact_gradient(log_f, logits), rtol=1e-13)


# ---- unbiased, judged without noise ---------------------------------------------------------------------------------


def cells(logits, antithetic=False):
    """Midpoint and probability of every cell of the noise: no unit flips inside one.

    (A unit flips at rho = p and, in the antithetic draw, at rho = q.)
    """
    axes = []
    for logit in logits:
        ends = {0.0, float(expit(-logit)), 1.0} | ({float(expit(logit))} if antithetic else set())
        axes.append([((low + high) / 2, high - low) for low, high in itertools.pairwise(sorted(ends))])
    product = list(itertools.product(*axes))
    return np.array([[mid for mid, _ in cell] for cell in product]), np.array(
        [np.prod([width for _, width in cell]) for cell in product]
    )


def taught_baseline(n_rows):
    return np.linspace(-1.0, 3.0, n_rows)


@pytest.mark.parametrize("logits", [LOGITS, EXTREME, np.zeros(3), np.array([1e-9, -3.0, 12.0])])
@pytest.mark.parametrize(
    ("name", "estimate", "antithetic"),
    [
        ("reinforce", lambda f, rho, logits: reinforce(f, rho, logits), False),
        ("reinforce, baseline", lambda f, rho, logits: reinforce(f, rho, logits, 2.5), False),
        ("nvil", lambda f, rho, logits: 3.0 * nvil(f, rho, logits, 1.5, 3.0), False),
        ("nvil, small signal", lambda f, rho, logits: nvil(f, rho, logits, -0.5, 0.1), False),
        ("muprop", lambda f, rho, logits: muprop(f, rho, logits), False),
        ("muprop, baseline", lambda f, rho, logits: muprop(f, rho, logits, -0.7), False),
        ("arm", arm, True),
        ("disarm", disarm, True),
    ],
)
def test_integrated_over_all_noise_the_estimate_is_the_gradient(name, estimate, antithetic, logits):
    f = integrand(len(logits))
    rho, weight = cells(logits, antithetic)
    np.testing.assert_allclose(weight @ estimate(f, rho, logits), exact_gradient(f, logits), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_samples", [2, 3])
@pytest.mark.parametrize("logits", [LOGITS[:3], EXTREME])
def test_vimco_integrated_over_all_noise(logits, n_samples):
    log_f = scaled_log(integrand(3))
    rho, weight = cells(np.tile(logits, n_samples))
    estimate = vimco(log_f, rho.reshape(-1, n_samples, 3), logits)
    expected = exact_multi_sample_gradient(log_f, logits, n_samples)
    np.testing.assert_allclose(weight @ estimate, expected, rtol=1e-12, atol=1e-14)


def relaxed_quadrature(logits, n_nodes):
    """Nodes over (rho, v) for each unit, rho in the two intervals of z apart, and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    nodes, weights = (nodes + 1) / 2, weights / 2
    axes = []
    for logit in logits:
        p, q = expit(-logit), expit(logit)
        pairs = [
            (p * a, b, p * u * w) for (a, u), (b, w) in itertools.product(zip(nodes, weights, strict=True), repeat=2)
        ]
        pairs += [
            (p + q * a, b, q * u * w)
            for (a, u), (b, w) in itertools.product(zip(nodes, weights, strict=True), repeat=2)
        ]
        axes.append(np.array(pairs))
    grid = np.stack(np.meshgrid(*(np.arange(len(axis)) for axis in axes), indexing="ij"), axis=-1).reshape(
        -1, len(logits)
    )
    chosen = np.stack([axis[grid[:, i]] for i, axis in enumerate(axes)], axis=1)  # (S, N, 3)
    return chosen[..., 0], chosen[..., 1], chosen[..., 2].prod(axis=1)


RELAXED = {
    "rebar at 1": lambda f, rho, v, logits: rebar(f, rho, v, logits, 1.0),
    "rebar at 1/2, eta 0.7": lambda f, rho, v, logits: rebar(f, rho, v, logits, 0.5, 0.7),
    "relax": lambda f, rho, v, logits: relax(f, rebar_surrogate(integrand(len(logits), seed=8), 1.0), rho, v, logits),
}


@pytest.mark.parametrize("name", RELAXED)
@pytest.mark.parametrize(("logits", "n_nodes", "accuracy"), [((0.8,), 40, 1e-10), ((-1.1, 0.6), 11, 1e-5)])
def test_relaxed_control_variates_integrated_over_all_noise(name, logits, n_nodes, accuracy):
    logits = np.array(logits)
    f = integrand(len(logits))
    rho, v, weight = relaxed_quadrature(logits, n_nodes)
    truth = exact_gradient(f, logits)
    np.testing.assert_allclose(weight @ RELAXED[name](f, rho, v, logits), truth, atol=accuracy)
    # The same with v tied to rho, where the conditional sample is the logistic one.
    np.testing.assert_allclose(
        weight @ RELAXED[name](f, rho, matching_noise(rho, logits), logits), truth, atol=accuracy
    )


def test_the_quadrature_catches_wrong_companions(monkeypatch):
    logits = np.array([0.8])
    f = integrand(1)
    rho, v, weight = relaxed_quadrature(logits, 40)
    truth = exact_gradient(f, logits)
    assert abs(weight @ rebar(f, rho, rho, logits, 1.0) - truth) > 1e-2  # v that knows more of z than z itself
    monkeypatch.setattr(estimators, "conditional_logistic", ignores_its_derivative)
    assert abs(weight @ rebar(f, rho, v, logits, 1.0) - truth) > 1e-2
    # The logistic sample of z itself in place of the conditional one: unconditional, but not independent of z.
    monkeypatch.setattr(estimators, "conditional_logistic", ignores_z)
    assert abs(weight @ rebar(f, rho, rho, logits, 1.0) - truth) > 1e-2
    # An unconditional sample of its own noise is no error but a useless baseline: right on average.
    assert abs(weight @ rebar(f, rho, v, logits, 1.0) - truth) < 1e-10


def ignores_z(z, v, logits):
    return ConditionalLogistic(logits + np.log(v / (1 - v)), np.ones_like(v))


def ignores_its_derivative(z, v, logits):
    """As if the second sample moved with the logit as the first does."""
    return ConditionalLogistic(conditional_logistic(z, v, logits).value, np.ones_like(v))


# ---- unbiased, judged by a million draws, and wrong variants that the same judge must catch -------------------------

N_DRAWS, CHUNK, N_SAMPLES = 1_000_000, 25_000, 3
STANDARD_ERRORS = 4.0


def right_variants(f, logits):
    n, log_f, mean = len(logits), scaled_log(f), exact_value(f, logits)
    return {
        "reinforce": lambda rho, v, many: reinforce(f, rho, logits, mean),
        "nvil": lambda rho, v, many: 2.5 * nvil(f, rho, logits, taught_baseline(len(rho)), 2.5),
        "muprop": lambda rho, v, many: muprop(f, rho, logits),
        "rebar": lambda rho, v, many: rebar(f, rho, v, logits, 0.5, 0.9),
        "relax": lambda rho, v, many: relax(f, surrogate(n), rho, v, logits),
        "vimco": lambda rho, v, many: vimco(log_f, many, logits),
        "arm": lambda rho, v, many: arm(f, rho, logits),
        "disarm": lambda rho, v, many: disarm(f, rho, logits),
    }


def wrong_variants(f, logits):
    log_f = scaled_log(f)
    q, p = expit(logits), expit(-logits)

    def with_conditional(wrong, estimate):
        def patched(rho, v, many):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(estimators, "conditional_logistic", wrong)
                return estimate(rho, v)

        return patched

    def vimco_with_own_sample(rho, v, many):
        """The baseline is the geometric mean of all K samples, its own one included."""
        samples = [draw(many[:, k], logits) for k in range(N_SAMPLES)]
        logs = np.stack([log_f(z) for z in samples], axis=1)
        total = np.zeros_like(samples[0])
        for k, z in enumerate(samples):
            replaced = logs.copy()
            replaced[:, k] = logs.mean(axis=1)
            total += np.log(np.exp(logs).sum(axis=1) / np.exp(replaced).sum(axis=1))[:, None] * score(z, logits)
        return total

    def arm_with_independent_pair(rho, v, many):
        return (f(draw(rho, logits)) - f(draw(v, logits)))[:, None] * (rho - 0.5)

    return {
        "reinforce, baseline that knows z": lambda rho, v, many: reinforce(f, rho, logits, 0.1 * f(draw(rho, logits))),
        "nvil, still normalised": lambda rho, v, many: nvil(f, rho, logits, 1.0, 1.2),
        "muprop, plane not added back": lambda rho, v, many: muprop(f, rho, logits) - f.gradient(q[None]) * q * p,
        "rebar, unconditional noise": with_conditional(ignores_z, lambda rho, v: rebar(f, rho, rho, logits, 0.5)),
        "rebar, wrong derivative": with_conditional(
            ignores_its_derivative, lambda rho, v: rebar(f, rho, v, logits, 0.5)
        ),
        "relax, unconditional noise": with_conditional(
            ignores_z, lambda rho, v: relax(f, surrogate(len(logits)), rho, rho, logits)
        ),
        "vimco, own sample in its baseline": vimco_with_own_sample,
        "arm, sign": lambda rho, v, many: -arm(f, rho, logits),
        "arm, scale": lambda rho, v, many: 1.1 * arm(f, rho, logits),
        "arm, independent pair halved": lambda rho, v, many: arm_with_independent_pair(rho, v, many) / 2,
        "disarm, sigmoid(l) for sigmoid(|l|)": lambda rho, v, many: disarm(f, rho, logits) * q / np.maximum(q, p),
    }


def distances(variants, f, logits, n_draws):
    """For each estimator the largest distance, over coordinates, of its mean from the truth, in standard errors."""
    rng = np.random.default_rng(20)
    n = len(logits)
    sums, squares = ({name: np.zeros(n) for name in variants} for _ in range(2))
    single, several = exact_gradient(f, logits), exact_multi_sample_gradient(scaled_log(f), logits, N_SAMPLES)
    truth = {name: several if name.startswith("vimco") else single for name in variants}
    for _ in range(n_draws // CHUNK):
        rho, v = rng.random((2, CHUNK, n))
        many = rng.random((CHUNK, N_SAMPLES, n))
        many[:, 0] = rho
        for name, estimate in variants.items():
            error = estimate(rho, v, many) - truth[name]
            sums[name] += error.sum(axis=0)
            squares[name] += (error**2).sum(axis=0)
    mean = {name: total / n_draws for name, total in sums.items()}
    return {
        name: float(np.max(np.abs(mean[name]) / np.sqrt((squares[name] / n_draws - mean[name] ** 2) / n_draws)))
        for name in variants
    }


@pytest.mark.parametrize("logits", [LOGITS, EXTREME], ids=["moderate", "extreme"])
def test_means_of_a_million_draws_are_the_gradient(logits):
    """8 estimators, 4 and 3 coordinates: each leaves 4 standard errors with probability 6.3e-5, any of the 56 with
    0.0035 at most. The seed is fixed, so it happens once or never.
    """
    found = distances(right_variants(integrand(len(logits)), logits), integrand(len(logits)), logits, N_DRAWS)
    assert max(found.values()) < STANDARD_ERRORS, found
    assert max(found.values()) > 0.5, found  # and the standard errors are not inflated


def test_the_same_judge_catches_wrong_variants():
    """Already with a tenth of the draws."""
    f = integrand(len(LOGITS))
    found = distances(wrong_variants(f, LOGITS), f, LOGITS, N_DRAWS // 10)
    assert min(found.values()) > 2 * STANDARD_ERRORS, found


# ---- known without noise --------------------------------------------------------------------------------------------


def uniform_noise(n_rows, n_units, seed=1):
    return np.random.default_rng(seed).random((2, n_rows, n_units))


def test_by_hand():
    # q = 3/4. rho = 0.3 > 1/4: z = 1, and in the opposite draw (0.7) too; rho = 0.2: z = 0, opposite 1; 0.9: 1 and 0.
    logits, rho = np.array([np.log(3.0)]), np.array([[0.3], [0.2], [0.9]])
    f = Integrand(lambda z: 5 + 2 * z[:, 0] ** 2, lambda z: 4 * z)
    np.testing.assert_array_equal(draw(rho, logits), [[1], [0], [1]])
    np.testing.assert_allclose(score([[1], [0], [1]], logits), [[0.25], [-0.75], [0.25]])
    assert exact_value(f, logits) == pytest.approx(5 + 1.5)
    assert exact_gradient(f, logits) == pytest.approx(2 * 3 / 16)
    np.testing.assert_allclose(reinforce(f, rho, logits, 4.0), [[0.75], [-0.75], [0.75]])
    np.testing.assert_allclose(nvil(f, rho, logits, 4.0, 3.0), [[0.25], [-0.25], [0.25]])
    np.testing.assert_allclose(nvil(f, rho, logits, 4.0, 0.5), [[0.75], [-0.75], [0.75]])
    # Tangent at 3/4: f = 6.125, f' = 3, so h(1) = 6.875 and h(0) = 3.875; f' q p = 9/16.
    np.testing.assert_allclose(muprop(f, rho, logits), [[0.59375], [-0.28125], [0.59375]])
    np.testing.assert_allclose(arm(f, rho, logits), [[0.0], [0.6], [0.8]])
    np.testing.assert_allclose(disarm(f, rho, logits), [[0.0], [0.75], [0.75]])
    np.testing.assert_allclose(straight_through(f, rho, logits), [[0.75], [0.0], [0.75]])
    # K = 2, f = e^{log_f}: each sample's baseline is the other's value.
    pair = np.array([[[0.3], [0.2]]])
    low, high = np.log(3.0), np.log(5.0)
    middle = np.log(4.0)
    expected = (middle - low) * 0.25 + (middle - high) * -0.75
    np.testing.assert_allclose(vimco(lambda z: np.where(z[:, 0] == 1, high, low), pair, logits), [[expected]])


def test_muprop_is_exact_for_a_linear_function():
    slope = np.array([1.5, -2.0, 0.3, 4.0])
    linear = Integrand(lambda x: 7 + x @ slope, lambda x: np.tile(slope, (len(x), 1)))
    rho, _ = uniform_noise(50, 4)
    expected = np.tile(slope * expit(LOGITS) * expit(-LOGITS), (50, 1))
    np.testing.assert_allclose(muprop(linear, rho, LOGITS), expected, rtol=1e-12)
    np.testing.assert_allclose(straight_through(linear, rho, LOGITS), expected, rtol=1e-14)
    # A baseline is left over, times the score.
    noise = muprop(linear, rho, LOGITS, 0.7) - expected
    np.testing.assert_allclose(noise, -0.7 * score(draw(rho, LOGITS), LOGITS), rtol=1e-12, atol=1e-14)


def test_disarm_of_one_fair_unit_is_exact():
    """z and its opposite always differ, and sigmoid(0) / 2 = q p. An unfair one is at times 0: variance by hand."""
    f = integrand(1)
    rho, _ = uniform_noise(50, 1)
    np.testing.assert_allclose(
        disarm(f, rho, np.zeros(1)), np.tile(exact_gradient(f, np.zeros(1)), (50, 1)), rtol=1e-14
    )
    logits = np.array([1.3])
    middles, weight = cells(logits, antithetic=True)
    jump = f(np.ones((1, 1)))[0] - f(np.zeros((1, 1)))[0]
    p, q = expit(-1.3), expit(1.3)
    # +-jump q/2 with probability 2 p in all; subtract the square of the mean, jump q p.
    by_hand = jump**2 * (q * q * p / 2 - (q * p) ** 2)
    variance = weight @ disarm(f, middles, logits)[:, 0] ** 2 - exact_gradient(f, logits)[0] ** 2
    assert variance == pytest.approx(by_hand, rel=1e-12)


def test_disarm_is_arm_averaged_over_what_the_pair_does_not_tell():
    """ARM is linear in rho within a cell, and all cells with the same pair average to DisARM at any of them."""
    f, logits = integrand(3), np.array([0.7, -1.1, 2.0])
    rho, weight = cells(logits, antithetic=True)
    pairs = np.hstack([draw(rho, logits), draw(1 - rho, logits)])
    averaged, rao_blackwell = arm(f, rho, logits), disarm(f, rho, logits)
    for pair in np.unique(pairs, axis=0):
        same = (pairs == pair).all(axis=1)
        np.testing.assert_allclose(
            weight[same] @ averaged[same] / weight[same].sum(), rao_blackwell[same][0], atol=1e-14
        )


@given(seed=st.integers(0, 10**6), n_units=st.integers(1, 6), scale=st.floats(0.1, 20))
def test_antithetic_estimates_do_not_change_when_the_noise_is_mirrored(seed, n_units, scale):
    rng = np.random.default_rng(seed)
    logits, f = scale * rng.normal(size=n_units), integrand(n_units)
    rho = rng.integers(1, 2**20, size=(5, n_units)) / 2.0**20  # 1 - rho is exact
    np.testing.assert_array_equal(arm(f, rho, logits), arm(f, 1 - rho, logits))
    np.testing.assert_array_equal(disarm(f, rho, logits), disarm(f, 1 - rho, logits))


def test_a_surrogate_equal_to_f_leaves_nothing():
    """c(g) = f(1[g > 0]) is f(z) at any sample that agrees with z, and flat wherever it has a gradient."""
    f = integrand(3)
    step = Integrand(lambda g: f((g > 0).astype(float)), np.zeros_like)
    rho, v = uniform_noise(50, 3)
    np.testing.assert_array_equal(relax(f, step, rho, v, LOGITS[:3]), np.zeros((50, 3)))


def test_rebar_without_its_control_variate_is_reinforce():
    f = integrand(4)
    rho, v = uniform_noise(50, 4)
    np.testing.assert_allclose(rebar(f, rho, v, LOGITS, 0.5, 0.0), reinforce(f, rho, LOGITS), rtol=1e-14)


def all_estimates(f, rho, v, logits):
    """Every estimator on the same noise; two samples for VIMCO."""
    return {
        "reinforce": reinforce(f, rho, logits, 0.5),
        "nvil": nvil(f, rho, logits, taught_baseline(len(rho)), 1.5),
        "muprop": muprop(f, rho, logits),
        "vimco": vimco(f, np.stack([rho, v], axis=1), logits),
        "arm": arm(f, rho, logits),
        "disarm": disarm(f, rho, logits),
        "relax": relax(f, surrogate(rho.shape[1]), rho, v, logits),
        "rebar": rebar(f, rho, v, logits, 0.4, 0.8),
        "straight_through": straight_through(f, rho, logits),
        "concrete": concrete(f, rho, logits, 0.4),
        "smoothed": smoothed(f, rho, logits, OverlappingExponential(5.0)),
    }


def test_rows_are_estimated_one_by_one_with_their_own_logits_and_function():
    """A batch is as good as a loop over it; f is told which row is which by their order."""
    rng = np.random.default_rng(9)
    rho, v = uniform_noise(6, 4)
    logits, weight = 2 * rng.normal(size=(6, 4)), rng.normal(size=6)
    plain = integrand(4)

    def weighted(rows):
        return Integrand(lambda x: weight[rows] * plain(x), lambda x: weight[rows, None] * plain.gradient(x))

    batch = all_estimates(weighted(slice(None)), rho, v, logits)
    for name, estimate in batch.items():
        assert estimate.shape == (6, 4), name
        assert estimate.dtype == np.float64
        if name == "nvil":
            continue  # its baseline has a row of its own for each datum; below
        for i in range(6):
            alone = all_estimates(weighted(slice(i, i + 1)), rho[i : i + 1], v[i : i + 1], logits[i])[name]
            np.testing.assert_allclose(estimate[i], alone[0], rtol=1e-13, atol=1e-15, err_msg=name)
    for i, known in enumerate(taught_baseline(6)):
        alone = nvil(weighted(slice(i, i + 1)), rho[i : i + 1], logits[i], known, 1.5)
        np.testing.assert_allclose(batch["nvil"][i], alone[0], rtol=1e-13)


# ---- derivatives through the relaxations ----------------------------------------------------------------------------


def complex_conditional(z, v, logits):
    """The conditional sample from its definition, through the interval of rho: complex logits are welcome."""
    p = 1 / (1 + np.exp(logits))
    rho = np.where(z == 1, p + v * (1 - p), v * p)
    return logits + np.log(rho) - np.log(1 - rho)


@given(
    logit=st.floats(-12, 12),
    v=st.floats(1e-3, 1 - 1e-3),
    z=st.sampled_from([0.0, 1.0]),
)
def test_conditional_logistic_against_its_definition_and_a_complex_step(logit, v, z):
    sample = conditional_logistic([[z]], [[v]], [logit])
    stepped = complex_conditional(z, v, logit + 1e-30j)
    # The definition subtracts numbers near 1, an error of ulp / min(p, q) that the formula does not have.
    assert sample.value[0, 0] == pytest.approx(stepped.real, rel=1e-9, abs=1e-9)
    assert sample.dvalue_dlogit[0, 0] == pytest.approx(stepped.imag / 1e-30, rel=1e-8, abs=1e-9)
    assert (sample.value[0, 0] > 0) == (z == 1)


@pytest.mark.parametrize("logit", [-700.0, -40.0, -1.0, 0.0, 1e-9, 3.0, 40.0, 700.0])
@pytest.mark.parametrize("v", [1e-300, 1e-9, 0.3, 1 - 2.0**-40])
@pytest.mark.parametrize("z", [0.0, 1.0])
def test_conditional_logistic_against_multi_precision(logit, v, z):
    """To a few roundings wherever the unit's logit takes it: no 1 - q, no division by what underflows."""
    with mpmath.workdps(700):
        p = 1 / (1 + mpmath.exp(mpmath.mpf(logit)))
        q = 1 - p
        noise = p + mpmath.mpf(v) * q if z else mpmath.mpf(v) * p
        value = mpmath.mpf(logit) + mpmath.log(noise) - mpmath.log(1 - noise)
        # d noise / dl = -p q (1 - v) or -p q v; and d value / d noise = 1 / (noise (1 - noise))
        slope = 1 - p * q * ((1 - mpmath.mpf(v)) if z else mpmath.mpf(v)) / (noise * (1 - noise))
        value, slope = float(value), float(slope)
    sample = conditional_logistic([[z]], [[v]], [logit])
    # An exponential magnifies one rounding of its argument, here up to 700 + 690, as much.
    np.testing.assert_allclose(sample.value[0, 0], value, rtol=4e-13, atol=0)
    np.testing.assert_allclose(sample.dvalue_dlogit[0, 0], slope, rtol=8e-13, atol=1e-300)


def test_rebar_surrogate_against_a_central_difference():
    f = integrand(3)
    c = rebar_surrogate(f, 0.6, 0.7)
    g = 2 * np.random.default_rng(4).normal(size=(20, 3))
    h = 1e-5
    for i, axis in enumerate(np.eye(3)):
        difference = (c(g + h * axis) - c(g - h * axis)) / (2 * h)
        np.testing.assert_allclose(c.gradient(g)[:, i], difference, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(c(g), 0.7 * f(1 / (1 + np.exp(-g / 0.6))), rtol=1e-14)


@pytest.mark.parametrize("logits", [LOGITS, np.array([-6.0, 0.1, 5.0, 2.0])])
def test_rebar_term_by_term_against_central_differences(logits):
    """With f = 0 only the control variate is left: -c(g') score + dc(g)/dl - dc(g')/dl, z held fixed."""
    c = rebar_surrogate(integrand(4), 0.5, 1.0)
    rho, v = uniform_noise(40, 4)
    z, h = draw(rho, logits), 1e-5
    expected = -c(complex_conditional(z, v, logits))[:, None] * np.where(z == 1, expit(-logits), -expit(logits))
    for i, step in enumerate(h * np.eye(4)):
        up, down = logits + step, logits - step
        free = c(up + np.log(rho / (1 - rho))) - c(down + np.log(rho / (1 - rho)))
        bound = c(complex_conditional(z, v, up)) - c(complex_conditional(z, v, down))
        expected[:, i] += (free - bound) / (2 * h)
    control = relax(lambda x: np.zeros(len(x)), c, rho, v, logits)
    np.testing.assert_allclose(control, expected, rtol=1e-6, atol=1e-8)


#: Every kind the reference exports, at two sharpnesses each: neither blunt nor needle-sharp whatever their meaning.
KINDS = [
    kind(sharpness)
    for _, kind in inspect.getmembers(reference.smoothing, inspect.isclass)
    if issubclass(kind, Smoothing) and not inspect.isabstract(kind)
    for sharpness in (0.6, 3.0)
]


@pytest.mark.parametrize(
    ("estimate", "relaxed"),
    [
        (
            lambda f, rho, logits: concrete(f, rho, logits, 0.4),
            lambda rho, logits: expit((logits + np.log(rho / (1 - rho))) / 0.4),
        ),
        *[
            (
                lambda f, rho, logits, kind=kind: smoothed(f, rho, logits, kind),
                lambda rho, logits, kind=kind: kind.inverse_cdf(rho, logits),
            )
            for kind in KINDS
        ],
    ],
    ids=["concrete", *map(repr, KINDS)],
)
def test_relaxations_are_the_derivative_of_f_at_the_relaxed_sample(estimate, relaxed):
    f = integrand(4)
    rho, _ = uniform_noise(40, 4)
    h = 1e-5
    differences = np.stack(
        [(f(relaxed(rho, LOGITS + step)) - f(relaxed(rho, LOGITS - step))) / (2 * h) for step in h * np.eye(4)], axis=1
    )
    np.testing.assert_allclose(estimate(f, rho, LOGITS), differences, rtol=1e-6, atol=1e-7)


def test_matching_noise_makes_the_two_samples_one():
    rho, _ = uniform_noise(200, 3)
    logits = np.array([-3.0, 0.2, 6.0])
    v, z = matching_noise(rho, logits), draw(rho, logits)
    np.testing.assert_allclose(conditional_logistic(z, v, logits).value, logistic(rho, logits), rtol=1e-10, atol=1e-12)
    # In each interval v rises from 0 to 1.
    p = expit(-0.2)
    ends = np.array([[1e-9 * p], [(1 - 1e-9) * p], [p + 1e-9 * (1 - p)], [1 - 1e-9 * (1 - p)]])
    np.testing.assert_allclose(matching_noise(ends, [0.2]), [[1e-9], [1 - 1e-9], [1e-9], [1 - 1e-9]], rtol=1e-6)
    # A unit that is nearly certain, and noise beside its p = 4e-18: v is as small, with digits.
    rho, p = np.array([[4.5e-18, 2e-18]]), expit(-40.0)
    np.testing.assert_allclose(matching_noise(rho, [40.0, 40.0]), [[4.5e-18 - p, 2e-18 / p]], rtol=1e-14)
    # At the ends of the intervals, where rounding would leave (0, 1).
    below = np.nextafter(1.0, 0.0)
    np.testing.assert_array_equal(matching_noise([[0.5, 0.25]], [0.0, -np.inf]), [[below, 0.25]])


# ---- the bias of relaxations ----------------------------------------------------------------------------------------


def moments_of(estimate, rho, weight):
    """Mean and total spread of an estimate over a quadrature of all noise: rho, weight (P,) for each of two units."""
    i, j = (index.ravel() for index in np.meshgrid(np.arange(len(rho[0])), np.arange(len(rho[1])), indexing="ij"))
    rows = estimate(np.stack([rho[0][i], rho[1][j]], axis=1))
    product = weight[0][i] * weight[1][j]
    mean = product @ rows
    return mean, np.sqrt((product @ (rows - mean) ** 2).sum())


def logistic_quadrature():
    """Trapezoids over t = logit(rho): they converge exponentially, however cold the relaxation."""
    t = np.arange(-25, 25, 0.12)
    return [expit(t)] * 2, [0.12 * expit(t) * expit(-t)] * 2


def smoothed_quadrature(smoothing, logits):
    """Gauss-Legendre over zeta on [0, 1], rho its CDF: the rare noise between the modes gets its share of nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(0, 1, 9)
    zeta = np.concatenate([low + (high - low) * (nodes + 1) / 2 for low, high in itertools.pairwise(edges)])
    weight = np.tile(weights / 16, 8)
    rho = [np.clip(smoothing.cdf(zeta, logit), 1e-300, 1 - 2.0**-53) for logit in logits]
    return rho, [np.exp(smoothing.log_prob(zeta, logit)) * weight for logit in logits]


def test_bias_vanishes_and_spread_grows_as_relaxations_sharpen():
    """Without sampling noise: all noise of two units integrated."""
    logits = np.array([-0.8, 0.5])
    f = integrand(2)
    truth = exact_gradient(f, logits)
    cold = [
        moments_of(lambda rho, t=t: concrete(f, rho, logits, t), *logistic_quadrature())
        for t in (1.0, 0.5, 0.25, 0.125)
    ]
    kinds = [OverlappingExponential(beta) for beta in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)]
    sharp = [
        moments_of(lambda rho, kind=kind: smoothed(f, rho, logits, kind), *smoothed_quadrature(kind, logits))
        for kind in kinds
    ]
    for moments in (cold, sharp):
        biases = [np.linalg.norm(mean - truth) for mean, _ in moments]
        spreads = [spread for _, spread in moments]
        assert all(later < earlier for earlier, later in itertools.pairwise(biases)), biases
        assert all(later > earlier for earlier, later in itertools.pairwise(spreads)), spreads
    # What the docstring of ``smoothed`` says: 1 / beta and e^{beta/4} / beta.
    bias = [np.linalg.norm(mean - truth) for mean, _ in sharp]
    assert bias[-1] / bias[-2] == pytest.approx(0.5, abs=0.03)
    assert sharp[-1][1] / sharp[-2][1] == pytest.approx(np.exp(16 / 4) / 2, rel=0.25)
    assert np.linalg.norm(cold[-1][0] - truth) < 0.05 * np.linalg.norm(truth)


def test_straight_through_has_the_bias_known_by_hand():
    """f = z**2 has f' = 2 z: the mean is 2 q q p where q p is right. Right at q = 1/2 only."""
    square = Integrand(lambda z: z[:, 0] ** 2, lambda z: 2 * z)
    for logit in (-2.0, 0.0, 1.0):
        logits = np.array([logit])
        rho, weight = cells(logits)
        q, p = expit(logit), expit(-logit)
        mean = (weight @ straight_through(square, rho, logits))[0]
        assert mean - exact_gradient(square, logits)[0] == pytest.approx(q * p * (2 * q - 1), abs=1e-15)


@pytest.mark.parametrize("logits", [LOGITS, 3 * LOGITS, np.zeros(4)])
def test_straight_through_is_unbiased_where_f_is_linear_in_every_unit(logits):
    """An RBM's energy; with z**2 in the place of z, the same number for every binary z, it no longer is."""
    rng = np.random.default_rng(11)
    rbm = RBM(rng.normal(size=2), rng.normal(size=2), 2 * rng.normal(size=(2, 2)))

    def value(z):
        return boltzmann.energy(rbm, z[:, :2], z[:, 2:])

    def gradient(z):
        return -np.hstack([boltzmann.logits_z1(rbm, z[:, 2:]), boltzmann.logits_z2(rbm, z[:, :2])])

    squared = Integrand(lambda z: value(z**2), lambda z: gradient(z**2) * 2 * z)
    rho, weight = cells(logits)
    truth = exact_gradient(value, logits)
    mean = weight @ straight_through(Integrand(value, gradient), rho, logits)
    np.testing.assert_allclose(mean, truth, rtol=1e-12, atol=1e-14)
    if logits.any():
        assert np.abs(weight @ straight_through(squared, rho, logits) - truth).max() > 1e-2


# ---- extremes -------------------------------------------------------------------------------------------------------


def test_score_keeps_its_digits():
    for logit in (-745.0, -40.0, -1.0, 0.0, 2.0, 40.0, 745.0):
        with mpmath.workdps(350):
            q = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
            expected = [float(-q), float(1 - q)]
        np.testing.assert_allclose(score([[0.0], [1.0]], [logit])[:, 0], expected, rtol=1e-14, atol=5e-324)


@pytest.mark.parametrize("size", [40.0, 700.0, 1e5])
def test_large_logits_give_finite_estimates_that_vanish(size):
    logits = np.array([size, -size, 0.3])
    f = integrand(3)
    for name, estimate in all_estimates(f, *uniform_noise(30, 3), logits).items():
        assert np.isfinite(estimate).all(), name
        # A relaxed control variate is as flat as its surrogate, tanh, at +-40.
        limit = 1e-8 if name == "relax" else 1e-15
        assert np.abs(estimate[:, :2]).max() < limit or name == "arm", name
        assert np.abs(estimate[:, 2]).max() > 1e-3, name
    # ARM alone does not know that a unit is certain: what it returns there vanishes on average only.


def test_certain_units_have_no_gradient():
    logits, f = np.array([np.inf, -np.inf, 0.3]), integrand(3)
    rest = Integrand(
        lambda x: f(np.column_stack([np.ones(len(x)), np.zeros(len(x)), x])),
        lambda x: f.gradient(np.column_stack([np.ones(len(x)), np.zeros(len(x)), x]))[:, 2:],
    )
    rho, v = uniform_noise(30, 3)
    assert exact_gradient(f, logits)[:2].tolist() == [0, 0]
    assert exact_gradient(f, logits)[2] == pytest.approx(exact_gradient(rest, logits[2:])[0], rel=1e-13)
    for estimate in (reinforce, muprop, disarm, straight_through):
        found = estimate(f, rho, logits)
        assert not found[:, :2].any()
        np.testing.assert_allclose(found[:, 2:], estimate(rest, rho[:, 2:], logits[2:]), rtol=1e-12, atol=1e-14)
    assert not concrete(f, rho, logits, 0.5)[:, :2].any()
    with pytest.raises(DomainError, match="logits must be finite; entry 0 is inf"):
        rebar(f, rho, v, logits, 0.5)


def test_running_moments_follow_the_signal():
    moments = RunningMoments().updated([1.0, 3.0], 0.75)
    assert (moments.mean, moments.variance) == (0.5, 1.0)
    moments = moments.updated([4.5, 4.5], 0.5)
    assert (moments.mean, moments.variance, moments.scale) == (2.5, 0.5, np.sqrt(0.5))
    rng = np.random.default_rng(0)
    for _ in range(300):
        moments = moments.updated(7 + 3 * rng.normal(size=1000), 0.9)
    # A stationary signal: 0.1 / 1.9 of the variance of one batch's mean is left, a standard deviation of 0.022.
    assert moments.mean == pytest.approx(7, abs=0.1)
    assert moments.scale == pytest.approx(3, abs=0.1)


# ---- arguments that do not fit --------------------------------------------------------------------------------------


F = integrand(2)
RHO = np.full((3, 2), 0.25)
SMOOTHING = OverlappingExponential(3.0)
CALLS = {  # every function of noise and logits, with a value of its own for each
    "draw": lambda rho, logits, f: draw(rho, logits),
    "reinforce": lambda rho, logits, f: reinforce(f, rho, logits),
    "nvil": lambda rho, logits, f: nvil(f, rho, logits, 0.0, 1.0),
    "muprop": lambda rho, logits, f: muprop(f, rho, logits),
    "arm": lambda rho, logits, f: arm(f, rho, logits),
    "disarm": lambda rho, logits, f: disarm(f, rho, logits),
    "logistic": lambda rho, logits, f: logistic(rho, logits),
    "matching_noise": lambda rho, logits, f: matching_noise(rho, logits),
    "relax": lambda rho, logits, f: relax(f, surrogate(2), rho, RHO, logits),
    "rebar": lambda rho, logits, f: rebar(f, rho, RHO, logits, 0.5),
    "straight_through": lambda rho, logits, f: straight_through(f, rho, logits),
    "concrete": lambda rho, logits, f: concrete(f, rho, logits, 0.5),
    "smoothed": lambda rho, logits, f: smoothed(f, rho, logits, SMOOTHING),
}
WITH_VALUE = ["reinforce", "nvil", "muprop", "arm", "disarm", "relax", "rebar"]
WITH_GRADIENT = ["muprop", "rebar", "straight_through", "concrete", "smoothed"]


@pytest.mark.parametrize("name", CALLS)
def test_noise_and_logits_that_do_not_fit_are_refused(name):
    call, bad = CALLS[name], RHO.copy()
    good = np.zeros(2)
    for value in (0.0, 1.0, np.nan, -0.5):
        bad[1, 0] = value
        with pytest.raises(DomainError, match=rf"rho must lie strictly inside \(0, 1\); entry \(1, 0\) is {value}"):
            call(bad, good, F)
    with pytest.raises(ShapeError, match=r"rho must be \(S, 2\), one row per draw; got \(3, 3\)"):
        call(np.full((3, 3), 0.5), good, F)
    with pytest.raises(ShapeError, match=r"rho must be \(S, 2\), one row per draw; got \(2,\)"):
        call(RHO[0], good, F)
    with pytest.raises(ShapeError, match=r"logits \(4, 2\), rho \(3, 2\)"):
        call(RHO, np.zeros((4, 2)), F)
    with pytest.raises(ShapeError, match=r"logits must be \(N,\), or \(S, N\) with a row per draw.*got \(\)"):
        call(RHO, 0.5, F)
    with pytest.raises(DomainError, match="logits must not be NaN; entry 1 is nan"):
        call(RHO, [0.0, np.nan], F)
    with pytest.raises(TypeError, match="logits must be float32 or float64 numbers; got dtype complex128"):
        call(RHO, good + 1j, F)
    with pytest.raises(TypeError, match="rho must be float32 or float64 numbers; got dtype float16"):
        call(RHO.astype(np.float16), good, F)


@pytest.mark.parametrize("name", WITH_VALUE)
def test_a_function_that_returns_no_number_per_row_is_refused(name):
    wrong = Integrand(lambda x: x, F.gradient)
    with pytest.raises(ShapeError, match=r"f\((z|mu)\) must be \(3,\), one number per row; got \(3, 2\)"):
        CALLS[name](RHO, np.zeros(2), wrong)
    wrong = Integrand(lambda x: np.array([0.0, np.inf, 0.0]), F.gradient)
    with pytest.raises(DomainError, match=r"f\((z|mu)\) must be finite; entry 1 is inf"):
        CALLS[name](RHO, np.zeros(2), wrong)


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_a_gradient_that_does_not_fit_is_refused(name):
    with pytest.raises(TypeError, match=r"f must be an Integrand\(value, gradient\), for its gradient is needed"):
        CALLS[name](RHO, np.zeros(2), F.value)
    if name == "rebar":
        return  # its gradient is the surrogate's; below
    with pytest.raises(ShapeError, match=r"f\.gradient\(.*\) must be \(3, 2\), one gradient per row; got \(3,\)"):
        CALLS[name](RHO, np.zeros(2), Integrand(F.value, F.value))
    with pytest.raises(DomainError, match=r"f\.gradient\(.*\) must be finite; entry \(0, 0\) is nan"):
        CALLS[name](RHO, np.zeros(2), Integrand(F.value, lambda x: np.full_like(x, np.nan)))


def test_relax_refuses_what_does_not_fit():
    good, c = np.zeros(2), surrogate(2)
    with pytest.raises(TypeError, match="surrogate must be an Integrand"):
        relax(F, F.value, RHO, RHO, good)
    with pytest.raises(DomainError, match=r"v must lie strictly inside \(0, 1\); entry \(0, 0\) is 2"):
        relax(F, c, RHO, RHO + 1.75, good)
    with pytest.raises(ShapeError, match=r"z \(3, 2\), v \(2, 2\)"):
        relax(F, c, RHO, RHO[:2], good)
    with pytest.raises(ShapeError, match=r"surrogate\(g\) must be \(3,\)"):
        relax(F, Integrand(lambda g: g, c.gradient), RHO, RHO, good)
    with pytest.raises(ShapeError, match=r"surrogate\.gradient\(g\) must be \(3, 2\)"):
        relax(F, Integrand(c.value, c.value), RHO, RHO, good)
    with pytest.raises(DomainError, match="logits must be finite; entry 1 is -inf"):
        relax(F, c, RHO, RHO, [0.0, -np.inf])


def test_other_arguments_that_do_not_fit_are_refused():
    good = np.zeros(2)
    with pytest.raises(ShapeError, match=r"baseline must be one number, or \(3,\), one per row; got \(2,\)"):
        reinforce(F, RHO, good, np.zeros(2))
    with pytest.raises(DomainError, match="baseline must be finite; it is inf"):
        muprop(F, RHO, good, np.inf)
    with pytest.raises(DomainError, match="scale must be finite and not negative; it is -1"):
        nvil(F, RHO, good, 0.0, -1.0)
    with pytest.raises(ShapeError, match=r"^smoothing\.beta must be one number here; got \(2,\)$"):
        smoothed(F, RHO, good, OverlappingExponential(np.ones(2)))
    with pytest.raises(ShapeError, match=r"^smoothing\.temperature must be one number here; got \(5, 1, 1\)$"):
        smoothed(F, RHO, good, BinaryConcrete(np.ones((5, 1, 1))))
    with pytest.raises(ShapeError, match=r"scale must be one number; got \(3,\)"):
        nvil(F, RHO, good, 0.0, np.ones(3))
    for temperature in (0.0, np.inf, np.nan):
        with pytest.raises(DomainError, match=f"temperature must be positive and finite; it is {temperature}"):
            concrete(F, RHO, good, temperature)
        with pytest.raises(DomainError, match="temperature must be positive and finite"):
            rebar(F, RHO, RHO, good, temperature)
    with pytest.raises(DomainError, match="eta must be finite; it is nan"):
        rebar_surrogate(F, 1.0, np.nan)
    with pytest.raises(TypeError, match="f must be an Integrand"):
        rebar_surrogate(F.value, 1.0)
    with pytest.raises(DomainError, match=r"z must be 0 or 1; entry \(0, 1\) is 0\.5"):
        score([[0.0, 0.5]], good)
    with pytest.raises(ShapeError, match=r"logits \(3, 2\), z \(1, 2\)"):
        score([[0.0, 1.0]], np.zeros((3, 2)))
    with pytest.raises(DomainError, match=r"z must be 0 or 1; entry \(0, 0\) is 0\.25"):
        conditional_logistic(RHO, RHO, good)
    with pytest.raises(ShapeError, match=r"rho must be \(S, K, N\) with K >= 2 samples to compare; got \(3, 1, 2\)"):
        vimco(F, RHO[:, None], good)
    with pytest.raises(ShapeError, match=r"rho must be \(S, K, N\)"):
        vimco(F, RHO, good)
    with pytest.raises(DomainError, match=r"log_f\(z\) must be finite; entry 0 is -inf"):
        vimco(lambda z: np.full(len(z), -np.inf), np.full((3, 2, 2), 0.5), good)
    with pytest.raises(DomainError, match=r"rho must lie strictly inside \(0, 1\)"):
        vimco(F, np.ones((3, 2, 2)), good)


def test_what_cannot_be_enumerated_is_refused():
    for exact in (exact_value, exact_gradient):
        with pytest.raises(DomainError, match=r"at most 16 units .* to be enumerated; got 17"):
            exact(integrand(17), np.zeros(17))
        with pytest.raises(ShapeError, match=r"logits must be \(N,\), one distribution to enumerate; got \(2, 3\)"):
            exact(integrand(3), np.zeros((2, 3)))
        with pytest.raises(DomainError, match="logits must not be NaN"):
            exact(integrand(1), [np.nan])
        with pytest.raises(ShapeError, match=r"f\(z\) must be \(4,\), one number per row; got \(4, 2\)"):
            exact(lambda z: z, np.zeros(2))
    for exact in (exact_multi_sample_value, exact_multi_sample_gradient):
        with pytest.raises(DomainError, match=r"at most 16 units .* got 18"):
            exact(integrand(6), np.zeros(6), 3)
        with pytest.raises(DomainError, match="n_samples must be a whole number of at least 1; got 0"):
            exact(F, np.zeros(2), 0)
        with pytest.raises(ShapeError, match=r"logits must be \(N,\)"):
            exact(F, np.zeros((3, 2)), 2)
        with pytest.raises(ShapeError, match=r"log_f\(z\) must be \(16,\)"):
            exact(lambda z: z, np.zeros(2), 2)


def test_running_moments_refuse_what_does_not_fit():
    with pytest.raises(DomainError, match="variance must be finite and not negative; it is -1"):
        RunningMoments(0.0, -1.0)
    with pytest.raises(DomainError, match="mean must be finite; it is nan"):
        RunningMoments(np.nan)
    with pytest.raises(ShapeError, match=r"mean must be one number; got \(2,\)"):
        RunningMoments(np.zeros(2))
    with pytest.raises(ShapeError, match=r"variance must be one number; got \(1,\)"):
        RunningMoments(0.0, [1.0])
    with pytest.raises(ShapeError, match=r"decay must be one number; got \(2,\)"):
        RunningMoments().updated([1.0], np.full(2, 0.5))
    with pytest.raises(DomainError, match=r"decay must lie in \[0, 1\); it is 1\.0"):
        RunningMoments().updated([1.0], 1.0)
    with pytest.raises(DomainError, match="signal must be finite; entry 1 is inf"):
        RunningMoments().updated([1.0, np.inf], 0.5)
    with pytest.raises(ShapeError, match=r"signal must be \(S,\), one number per draw and at least one; got \(0,\)"):
        RunningMoments().updated([], 0.5)
