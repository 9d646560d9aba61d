"""Likelihoods of images: probabilities that add up to one, multi-precision arithmetic, derivatives by complex steps."""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.likelihoods import (
    bernoulli_log_prob,
    bernoulli_log_prob_gradient,
    bits_per_dimension,
    colour_mixture_log_prob,
    colour_mixture_log_prob_gradient,
    colour_mixture_sample,
    discretised_logistic_log_prob,
    mixture_log_prob,
    mixture_log_prob_gradient,
    mixture_sample,
)
from reference.vocabulary import DomainError, ShapeError

LEVELS = np.arange(256)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def mixture_parameters(rng, *shape):
    """Logits, means inside and outside the range of intensities, scales from a hundredth of a level to all of them."""
    return rng.normal(size=shape), rng.uniform(-1.2, 1.2, size=shape), rng.uniform(-9, 1, size=shape)


# ---- binary images --------------------------------------------------------------------------------------------------


def test_probabilities_of_all_binary_images_add_up_to_one():
    images = np.array(list(itertools.product([0, 1], repeat=4)), dtype=float)
    logits = np.array([0.3, -2.0, 1.0, 5.0])
    q = 1 / (1 + np.exp(-logits))
    expected = np.where(images == 1, q, 1 - q).prod(axis=1)
    np.testing.assert_allclose(np.exp(bernoulli_log_prob(images, logits)), expected, rtol=1e-13)
    assert np.exp(bernoulli_log_prob(images, logits)).sum() == pytest.approx(1, rel=1e-14)


def test_bernoulli_edges():
    # log 2 for each undecided pixel; -l for one wrong by a large logit; 0 and -inf for certain ones.
    assert bernoulli_log_prob(np.ones(784), np.zeros(784)) == pytest.approx(-784 * np.log(2), rel=1e-15)
    np.testing.assert_array_equal(bernoulli_log_prob([[0.0], [1.0]], [[800.0], [-800.0]]), [-800, -800])
    np.testing.assert_array_equal(bernoulli_log_prob([[1.0], [0.0]], [[np.inf], [np.inf]]), [0, -np.inf])
    np.testing.assert_array_equal(bernoulli_log_prob_gradient([1.0, 0.0], [np.inf, np.inf]), [0, -1])
    # 1 - sigma(40), of which a subtraction keeps no digit.
    assert bernoulli_log_prob_gradient([1.0], [40.0])[0] == pytest.approx(np.exp(-40.0), rel=1e-15, abs=0)
    assert bernoulli_log_prob(np.zeros((2, 3, 5)), np.zeros(5)).shape == (2, 3)
    assert bernoulli_log_prob_gradient(np.zeros((2, 3, 5)), np.zeros(5)).shape == (2, 3, 5)
    assert bernoulli_log_prob(np.ones(2, np.float32), np.zeros(2, np.float32)).dtype == np.float64


def test_bernoulli_gradient_by_complex_steps():
    rng = np.random.default_rng(0)
    x, logits = (rng.uniform(size=(5, 7)) < 0.5).astype(float), rng.normal(size=(5, 7)) * 3
    moved = logits + 1e-30j
    by_step = np.log(np.where(x == 1, 1 / (1 + np.exp(-moved)), 1 / (1 + np.exp(moved)))).imag / 1e-30
    np.testing.assert_allclose(bernoulli_log_prob_gradient(x, logits), by_step, rtol=1e-12)


# ---- one discretised logistic ---------------------------------------------------------------------------------------


def exact_log_prob(k, mean, log_scale, n_levels=256, stretch=(0, 0)):
    """log of the difference of two sigmoids in the working precision of mpmath, reflected so that both are small.

    ``stretch`` moves the lower and the upper edge by a relative amount each.
    """
    step, scale = mpmath.mpf(n_levels - 1), mpmath.exp(mpmath.mpf(log_scale))
    if 2 * mpmath.mpf(k) / step - 1 > mean:
        k, mean, stretch = n_levels - 1 - k, -mean, stretch[::-1]
    lower, upper = (
        1 / (1 + mpmath.exp(-((2 * mpmath.mpf(k) + way - step) / step * (1 + move) - mean) / scale))
        for way, move in zip((-1, 1), stretch, strict=True)
    )
    return mpmath.log((1 if k == n_levels - 1 else upper) - (0 if k == 0 else lower))


@settings(max_examples=150)
@given(st.floats(-3, 3), st.floats(-40, 60), st.integers(2, 256))
def test_levels_add_up_to_one(mean, log_scale, n_levels):
    log_prob = discretised_logistic_log_prob(np.arange(n_levels), mean, log_scale, n_levels)
    assert log_prob.max() <= 0
    # Rounding the edges moves mass from bin to bin; where the scale is far below a level all of it is in one or two.
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("log_scale", [-30.0, -12.0, -8.4, -7.0, -3.0, 0.0, 4.0, 30.0, 500.0])
def test_to_what_one_rounding_of_the_inputs_does(log_scale):
    """Mixed error of log P: relative to one rounding of it, of mean, log_scale and the bin's edges. At most 4.

    The edges count because k / 255 is not a number of any floating-point kind. (They, and not the centre and the width,
    are what is rounded: so the bins tile the line without a gap, whatever the scale.)
    Power: the difference of sigmoids with 1e-12 added, as one finds it in codes, misses by far more.
    """
    rng, eps, n = np.random.default_rng(1), mpmath.mpf(2) ** -52, 30
    x = rng.integers(0, 256, size=n)
    x[:4] = 0, 255, 1, 254
    mean = rng.uniform(-1.5, 1.5, size=n)
    mean[::3] = (2 * x[::3] - 255) / 255  # at the centre of the bin, where a trained model would have it
    got = discretised_logistic_log_prob(x, mean, log_scale)
    edges = [(2 * x - 256) / 255, (2 * x - 254) / 255]
    with np.errstate(over="ignore"):
        cdfs = [1 / (1 + np.exp(-(edge - mean) / np.exp(log_scale))) for edge in edges]
    clamped = np.log(cdfs[1] - cdfs[0] + 1e-12)
    worst = {"here": 0.0, "clamped": 0.0}
    # Inside a bin of h/s scales 1 - P is e^{-h/s}, which must survive next to 1.
    with mpmath.workdps(60 + int(min(np.exp(-log_scale) / 255, 800) / 2.3)):
        for i in range(n):
            k, m, s = int(x[i]), mpmath.mpf(float(mean[i])), mpmath.mpf(log_scale)
            truth = exact_log_prob(k, m, s)
            steps = [(m * (1 + eps), s), (m, s * (1 + eps)), (m, s, 256, (eps, 0)), (m, s, 256, (0, eps))]
            moved = sum(abs(exact_log_prob(k, *step) - truth) for step in steps)
            for name, value in (("here", got[i]), ("clamped", clamped[i])):
                error = abs(float(value) - truth) / (eps * abs(truth) + moved + mpmath.mpf(2) ** -1022)
                worst[name] = max(worst[name], float(error))
    assert worst["here"] < 4
    assert worst["clamped"] > 1e3


def test_one_logistic_by_hand():
    # Two levels, edge at 0: P(1) = sigma(mean / scale). Three levels with mean 0, scale 1/log 3 (edges at -1/2, 1/2):
    # sigma(log(3)/2) = 1/(1 + 3**-0.5).
    assert discretised_logistic_log_prob(1, 0.5, np.log(0.25), 2) == pytest.approx(-np.log1p(np.exp(-2.0)), rel=1e-14)
    inner = 2 / (1 + 3**-0.5) - 1
    log_prob = discretised_logistic_log_prob([0, 1, 2], 0.0, -np.log(np.log(3.0)), 3)
    np.testing.assert_allclose(np.exp(log_prob), [(1 - inner) / 2, inner, (1 - inner) / 2], rtol=1e-14)
    # A scale of many ranges: half of the mass beyond either end.
    np.testing.assert_allclose(discretised_logistic_log_prob([0, 255], 0.3, 40.0), np.log(0.5), rtol=1e-15)
    # A scale of e^-50 levels: a bin that holds the mean has it all, the others none, and still a log-probability.
    sharp = discretised_logistic_log_prob([127, 128, 129], 1 / 255, -50.0)
    assert sharp[1] == 0
    np.testing.assert_allclose(sharp[[0, 2]], -np.exp(50.0) / 255, rtol=1e-13)


# ---- mixtures -------------------------------------------------------------------------------------------------------


def test_mixture_adds_up_and_is_the_sum_it_says():
    rng = np.random.default_rng(2)
    logits, means, log_scales = mixture_parameters(rng, 1, 5)
    got = mixture_log_prob(LEVELS[:, None], *(np.broadcast_to(v, (256, 1, 5)) for v in (logits, means, log_scales)))
    assert np.exp(got).sum() == pytest.approx(1, abs=1e-13)
    with mpmath.workdps(400):
        for k in (0, 3, 100, 254, 255):
            parts = [
                mpmath.exp(exact_log_prob(k, mpmath.mpf(m), s)) for m, s in zip(means[0], log_scales[0], strict=True)
            ]
            truth = mpmath.log(mpmath.fdot(softmax(logits)[0].tolist(), parts))
            assert got[k] == pytest.approx(float(truth), rel=1e-12)


def test_pixels_add_up():
    rng = np.random.default_rng(3)
    x, parameters = rng.integers(0, 256, size=(4, 6)), mixture_parameters(rng, 4, 6, 3)
    pixels = [mixture_log_prob(x[:, i, None], *(v[:, i, None] for v in parameters)) for i in range(6)]
    np.testing.assert_allclose(mixture_log_prob(x, *parameters), sum(pixels), rtol=1e-14)
    assert mixture_log_prob(x[0], *(v[0] for v in parameters)).shape == ()
    assert mixture_log_prob(x[:0], *(v[:0] for v in parameters)).shape == (0,)


def colour_parameters(rng, n_components):
    """Parameters of one pixel; the means of green and blue wander with tanh(coefficients) of up to about 1."""
    logits, _, _ = mixture_parameters(rng, 1, n_components)
    _, means, log_scales = mixture_parameters(rng, 1, 3, n_components)
    return logits, means, np.maximum(log_scales, -5), rng.normal(size=(1, 3, n_components))


def repeated(parameters, n):
    return [np.broadcast_to(v, (n, *v.shape)) for v in parameters]


def test_all_colours_of_few_levels_add_up_to_one():
    parameters = colour_parameters(np.random.default_rng(4), 3)
    colours = np.array(list(itertools.product(range(6), repeat=3)))[:, None, :]
    log_prob = colour_mixture_log_prob(colours, *repeated(parameters, 216), n_levels=6)
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-13)


def test_green_and_blue_summed_out_leave_the_mixture_of_red():
    parameters = colour_parameters(np.random.default_rng(5), 2)
    logits, means, log_scales, _ = parameters
    for red in (0, 77, 255):
        colours = np.array([(red, g, b) for g in LEVELS for b in LEVELS])[:, None, :]
        total = np.exp(colour_mixture_log_prob(colours, *repeated(parameters, 256**2))).sum()
        expected = np.exp(mixture_log_prob([red], logits, means[:, 0], log_scales[:, 0]))
        assert total == pytest.approx(expected, rel=1e-12)


def test_colours_by_their_conditionals():
    """One pixel spelled out: softmax, then red, green given red, blue given both, by the one-channel bins."""
    rng = np.random.default_rng(6)
    logits, means, log_scales, coefficients = colour_parameters(rng, 4)
    x = rng.integers(0, 256, size=(1, 3))
    red, green, _ = 2 * x[0] / 255 - 1
    c = np.tanh(coefficients[0])
    shifted = means[0, 0], means[0, 1] + c[0] * red, means[0, 2] + c[1] * red + c[2] * green
    probability = softmax(logits)[0]
    for channel, mean in enumerate(shifted):
        probability = probability * np.exp(discretised_logistic_log_prob(x[0, channel], mean, log_scales[0, channel]))
    got = colour_mixture_log_prob(x, logits, means, log_scales, coefficients)
    assert got == pytest.approx(np.log(probability.sum()), rel=1e-12)
    swapped = colour_mixture_log_prob(x, logits, means, log_scales, coefficients[:, ::-1])
    assert abs(swapped - got) > 1e-3  # each coefficient has its place


# ---- derivatives ----------------------------------------------------------------------------------------------------


def complex_bin(x, mean, log_scale):
    """The difference of two sigmoids in complex arithmetic."""
    edges = [(2 * x + way - 255) / 255 for way in (-1, 1)]
    lower, upper = (1 / (1 + np.exp(-(edge - mean) / np.exp(log_scale))) for edge in edges)
    return np.where(x == 255, 1, upper) - np.where(x == 0, 0, lower)


def complex_mixture(x, logits, means, log_scales, coefficients=None):
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    if coefficients is None:
        return np.log((weights * complex_bin(x[..., None], means, log_scales)).sum(axis=-1)).sum()
    c, (red, green) = np.tanh(coefficients), (2 * x[..., i, None] / 255 - 1 for i in (0, 1))
    shifts = [0, c[..., 0, :] * red, c[..., 1, :] * red + c[..., 2, :] * green]
    for i, shift in enumerate(shifts):
        weights = weights * complex_bin(x[..., i, None], means[..., i, :] + shift, log_scales[..., i, :])
    return np.log(weights.sum(axis=-1)).sum()


def complex_steps(x, parameters):
    results = []
    for i, parameter in enumerate(parameters):
        derivative = np.zeros(parameter.shape)
        for index in np.ndindex(*parameter.shape):
            moved = [v.astype(complex) for v in parameters]
            moved[i][index] += 1e-30j
            derivative[index] = complex_mixture(x, *moved).imag / 1e-30
        results.append(derivative)
    return results


def test_mixture_gradient_by_complex_steps():
    rng = np.random.default_rng(7)
    x = np.array([[0, 255, 128, 127, 31], [254, 1, 0, 255, 200]])
    logits, means, log_scales = mixture_parameters(rng, 2, 5, 3)
    parameters = logits, means, np.maximum(log_scales, -1)  # where the judge's difference has digits to differentiate
    gradient = mixture_log_prob_gradient(x, *parameters)
    for analytic, by_step in zip(gradient, complex_steps(x, parameters), strict=True):
        np.testing.assert_allclose(analytic, by_step, rtol=1e-9, atol=1e-11)


def test_colour_gradient_by_complex_steps():
    rng = np.random.default_rng(8)
    x = np.array([[0, 255, 128], [127, 31, 0], [254, 1, 255]])
    logits, _, _ = mixture_parameters(rng, 3, 2)
    _, means, log_scales = mixture_parameters(rng, 3, 3, 2)
    parameters = logits, means, np.maximum(log_scales, -1), rng.normal(size=(3, 3, 2))
    gradient = colour_mixture_log_prob_gradient(x, *parameters)
    for analytic, by_step in zip(gradient, complex_steps(x, parameters), strict=True):
        np.testing.assert_allclose(analytic, by_step, rtol=1e-9, atol=1e-11)
    assert np.abs(gradient.dlog_prob_dcoefficients).max() > 1e-2


@pytest.mark.parametrize("log_scale", [-12.0, -7.0, 0.0, 8.0])
def test_gradient_in_the_tails_by_multi_precision(log_scale):
    x = np.array([0, 1, 60, 128, 254, 255])
    mean = np.array([-0.2, 0.9, -0.4, 0.004, -1.1, 1.3])
    logits = np.zeros((6, 1))
    gradient = mixture_log_prob_gradient(x, logits, mean[:, None], np.full((6, 1), log_scale))
    np.testing.assert_array_equal(gradient.dlog_prob_dlogits, 0)  # one component: nothing to choose
    with mpmath.workdps(700):
        for i, (k, m) in enumerate(zip(x.tolist(), mean.tolist(), strict=True)):
            by_mean = mpmath.diff(lambda value, k=k: exact_log_prob(k, value, log_scale), m)
            by_scale = mpmath.diff(lambda value, k=k, m=m: exact_log_prob(k, mpmath.mpf(m), value), log_scale)
            # One rounding of the edges moves the exponents by eps / scale.
            slack = 2.0**-50 * float(np.exp(-log_scale))
            got = gradient.dlog_prob_dmeans[i, 0], gradient.dlog_prob_dlog_scales[i, 0]
            assert got[0] == pytest.approx(float(by_mean), rel=1e-12 + slack, abs=1e-300)
            assert got[1] == pytest.approx(float(by_scale), rel=1e-12 + slack, abs=1e-300)


def test_a_saturated_coefficient_still_has_a_derivative():
    # 1 - tanh(25)^2 rounds to 0; 1/cosh(25)^2 = 7.7e-22.
    x, logits, means = np.array([[200, 100, 50]]), np.zeros((1, 1)), np.zeros((1, 3, 1))
    gradient = colour_mixture_log_prob_gradient(x, logits, means, means - 2, np.full((1, 3, 1), 25.0))
    red = 400 / 255 - 1
    expected = gradient.dlog_prob_dmeans[0, 1, 0] * red * 4 * np.exp(-50.0)
    assert gradient.dlog_prob_dcoefficients[0, 0, 0] == pytest.approx(expected, rel=1e-12, abs=0)
    assert expected != 0


# ---- units and refusals ---------------------------------------------------------------------------------------------


# ---- draws ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 256), st.integers(0, 2**31))
def test_a_draw_is_the_level_whose_share_the_noise_falls_in(u_component, u, n_levels, seed):
    """Of the component whose share the other noise falls in; shares are sums of the probabilities that are scored."""
    logits, means, log_scales = mixture_parameters(np.random.default_rng(seed), 3)
    level = mixture_sample([u_component], [u], logits[None], means[None], log_scales[None], n_levels)[0]
    weights = np.cumsum(np.concatenate([[0], softmax(logits)]))
    near = [m for m in range(3) if weights[m] - 1e-11 <= u_component <= weights[m + 1] + 1e-11]
    shares = []
    for m in near:
        p = np.exp(discretised_logistic_log_prob(np.arange(n_levels), means[m], log_scales[m], n_levels))
        below = np.cumsum(np.concatenate([[0], p]))
        shares.append(below[int(level)] - 1e-11 <= u <= below[int(level) + 1] + 1e-11)
    assert level == int(level)
    assert any(shares)


def test_colours_are_drawn_as_often_as_they_are_scored():
    """Each colour's share of the four noises' cube, by a grid of it, is its probability but for the grid's steps."""
    n, n_levels, n_components = 24, 3, 2
    rng = np.random.default_rng(11)
    logits, means = rng.normal(size=n_components), rng.uniform(-1, 1, size=(3, n_components))
    log_scales, coefficients = rng.uniform(-2, 0, size=means.shape), rng.normal(size=means.shape)
    middles = (np.arange(n) + 0.5) / n
    noise = np.stack(np.meshgrid(*[middles] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    every = [np.broadcast_to(value, (n**4, *value.shape)) for value in (logits, means, log_scales, coefficients)]
    drawn = colour_mixture_sample(noise[:, 0], noise[:, 1:], *every, n_levels).astype(int)
    counts = np.bincount(drawn @ [9, 3, 1], minlength=27) / n**4
    colours = np.array(list(itertools.product(range(n_levels), repeat=3)))
    scored = [
        colour_mixture_log_prob(colour[None], logits[None], means[None], log_scales[None], coefficients[None], n_levels)
        for colour in colours
    ]
    np.testing.assert_allclose(counts, np.exp(scored), atol=0.02)  # a grid of 24 misses a share by 1/48 at most
    assert counts.max() > 0.15  # more than what is left open


def test_noise_on_an_end_draws_an_end():
    zeros = np.zeros((2, 1, 1))
    assert mixture_sample([[0], [1]], [[0.0], [1.0]], zeros, zeros, zeros - 20).tolist() == [[0], [255]]


def test_noise_that_does_not_fit_is_refused():
    u, good = np.full((2, 3), 0.5), np.zeros((2, 3, 4))
    with pytest.raises(DomainError, match=r"u must lie in \[0, 1\]; entry \(0, 0\) is 1\.5"):
        mixture_sample(u, u + 1, good, good, good)
    with pytest.raises(DomainError, match=r"u_component must lie in \[0, 1\]; entry \(0, 0\) is -0\.5"):
        mixture_sample(u - 1, u, good, good, good)
    with pytest.raises(ShapeError, match=r"u_component must be \(\.\.\., P\) for logits .* got \(2, 2\), \(2, 3, 4\)"):
        mixture_sample(u[:, :2], u, good, good, good)
    with pytest.raises(ShapeError, match=r"u must be \(\.\.\., P\) and .* got u \(2, 2\)"):
        mixture_sample(u, u[:, :2], good, good, good)
    with pytest.raises(ShapeError, match=r"u must be \(\.\.\., P, 3\), .* got u \(2, 4\)"):
        colour_mixture_sample(u[:, 0], np.full((2, 4), 0.5), good[:, 0], good, good, good)


def test_bits_per_dimension():
    # A guess over 256 levels costs 8 bits for each of the 3072 dimensions of a 32 x 32 colour image.
    assert bits_per_dimension(3072 * np.log(256.0), 3072) == pytest.approx(8, rel=1e-15)
    np.testing.assert_allclose(bits_per_dimension([0.0, np.log(2.0)], 1), [0, 1], rtol=1e-15)
    assert bits_per_dimension(np.inf, 3) == np.inf
    with pytest.raises(DomainError, match="nats must not be NaN; entry 1 is nan"):
        bits_per_dimension([0.0, np.nan], 4)
    with pytest.raises(DomainError, match="n_dimensions must be a whole number of at least 1; got 0"):
        bits_per_dimension(1.0, 0)
    with pytest.raises(TypeError, match="nats must be float32 or float64"):
        bits_per_dimension(1j, 1)


def test_binary_images_that_do_not_fit_are_refused():
    for function in (bernoulli_log_prob, bernoulli_log_prob_gradient):
        with pytest.raises(DomainError, match=r"x must be 0 or 1; entry 1 is 0\.5"):
            function([0.0, 0.5], [0.0, 0.0])
        with pytest.raises(DomainError, match="logits must not be NaN; entry 1 is nan"):
            function([0.0, 1.0], [0.0, np.nan])
        with pytest.raises(ShapeError, match=r"x \(2,\), logits \(3,\)"):
            function(np.zeros(2), np.zeros(3))
        with pytest.raises(ShapeError, match=r"x and logits must be \(\.\.\., D\), one number per pixel; got x \(\)"):
            function(0.0, 0.0)
        with pytest.raises(TypeError, match="x must be float32 or float64 numbers; got dtype complex128"):
            function([0j], [0.0])


def test_levels_and_scales_outside_their_domain_are_refused():
    with pytest.raises(DomainError, match=r"x must be a whole number in \[0, 256\); entry 1 is 256"):
        discretised_logistic_log_prob([0, 256], 0.0, 0.0)
    with pytest.raises(DomainError, match=r"x must be a whole number in \[0, 4\); it is 1\.5"):
        discretised_logistic_log_prob(1.5, 0.0, 0.0, 4)
    with pytest.raises(DomainError, match="mean must be finite; it is inf"):
        discretised_logistic_log_prob(0, np.inf, 0.0)
    with pytest.raises(DomainError, match=r"log_scale must lie in \[-700, 700\]; entry 0 is -701"):
        discretised_logistic_log_prob(0, 0.0, [-701.0])
    with pytest.raises(DomainError, match=r"log_scale must lie in \[-700, 700\]; it is nan"):
        discretised_logistic_log_prob(0, 0.0, np.nan)
    with pytest.raises(DomainError, match=r"mean / exp\(log_scale\) must be finite; entry 1 is inf"):
        discretised_logistic_log_prob(0, [0.0, 1e9], -700.0)
    with pytest.raises(DomainError, match="n_levels must be a whole number of at least 2; got 1"):
        discretised_logistic_log_prob(0, 0.0, 0.0, 1)
    with pytest.raises(ShapeError, match=r"x \(2,\), mean \(3,\), log_scale \(\)"):
        discretised_logistic_log_prob([0, 1], np.zeros(3), 0.0)
    with pytest.raises(TypeError, match="mean must be float32 or float64"):
        discretised_logistic_log_prob(0, 1j, 0.0)


def test_mixtures_that_do_not_fit_are_refused():
    x, good = np.zeros((2, 3)), np.zeros((2, 3, 4))
    bad = good.copy()
    bad[1, 2, 3] = np.nan
    for function in (mixture_log_prob, mixture_log_prob_gradient):
        with pytest.raises(DomainError, match=r"x must be a whole number in \[0, 256\); entry \(0, 0\) is -1"):
            function(x - 1, good, good, good)
        with pytest.raises(DomainError, match=r"x must be a whole number in \[0, 8\); entry \(0, 0\) is 8"):
            function(x + 8, good, good, good, 8)
        for i, name in enumerate(("logits", "means", "log_scales")):
            parameters = [good, good, good]
            parameters[i] = bad
            with pytest.raises(DomainError, match=rf"{name} must be finite; entry \(1, 2, 3\) is nan"):
                function(x, *parameters)
        with pytest.raises(DomainError, match=r"log_scales must lie in \[-700, 700\]; entry \(0, 0, 0\) is -800"):
            function(x, good, good, good - 800)
        with pytest.raises(ShapeError, match=r"got x \(2, 3\), logits \(2, 3, 4\), means \(2, 3, 1\)"):
            function(x, good, good[..., :1], good)
        with pytest.raises(ShapeError, match=r"got x \(2, 2\)"):
            function(x[:, :2], good, good, good)
        with pytest.raises(ShapeError, match=r"at least one component; got logits \(2, 3, 0\)"):
            function(x, good[..., :0], good[..., :0], good[..., :0])
        with pytest.raises(DomainError, match="n_levels must be a whole number"):
            function(x, good, good, good, 0)
        with pytest.raises(TypeError, match="means must be float32 or float64"):
            function(x, good, good.astype(np.float16), good)


def test_colour_mixtures_that_do_not_fit_are_refused():
    x, logits, good = np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 3, 4))
    bad = good.copy()
    bad[1, 2, 3] = np.inf
    for function in (colour_mixture_log_prob, colour_mixture_log_prob_gradient):
        with pytest.raises(DomainError, match=r"x must be a whole number in \[0, 256\); entry \(0, 0\) is 0\.5"):
            function(x + 0.5, logits, good, good, good)
        for i, name in enumerate(("means", "log_scales", "coefficients")):
            parameters = [good, good, good]
            parameters[i] = bad
            with pytest.raises(DomainError, match=rf"{name} must be finite; entry \(1, 2, 3\) is inf"):
                function(x, logits, *parameters)
        with pytest.raises(DomainError, match=r"logits must be finite; entry \(0, 0\) is nan"):
            function(x, logits * np.nan, good, good, good)
        with pytest.raises(ShapeError, match=r"logits \(2, 4\), means \(2, 3, 4\), .* coefficients \(2, 2, 4\)"):
            function(x, logits, good, good, good[:, :2])
        with pytest.raises(ShapeError, match=r"x must be \(\.\.\., P, 3\), .* got x \(2, 4\)"):
            function(np.zeros((2, 4)), logits, good, good, good)
        with pytest.raises(ShapeError, match=r"got x \(3,\)"):
            function(x[0], logits[0], good[0], good[0], good[0])
        with pytest.raises(TypeError, match="coefficients must be float32 or float64"):
            function(x, logits, good, good, good.astype(complex))
