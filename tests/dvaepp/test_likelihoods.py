"""Likelihoods of many levels in torch: multi-precision arithmetic, the reference, and draws as often as scored."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference.likelihoods
from dvaepp.likelihoods import (
    colour_mixture_log_prob,
    colour_mixture_sample,
    discretised_logistic_log_prob,
    mixture_log_prob,
    mixture_sample,
)
from reference.vocabulary import ShapeError

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
EXTREMES = [(mean, log_scale) for mean in (-30.0, -1.0, 0.0, 0.3, 1.0, 200.0) for log_scale in (-20.0, -7.0, 0.0, 20.0)]


def tensors(*arrays, dtype=torch.float64, requires_grad=False):
    return [torch.tensor(np.asarray(array), dtype=dtype, requires_grad=requires_grad) for array in arrays]


def grey_parameters(rng, *shape):
    """Logits, means inside and outside the range of intensities, scales from a level's to the whole range."""
    return rng.normal(size=shape), rng.uniform(-1.2, 1.2, size=shape), rng.uniform(-6, 1, size=shape)


def colour_parameters(rng, *shape, n_components):
    each = (*shape, 3, n_components)
    logits, means = rng.normal(size=(*shape, n_components)), rng.uniform(-1.2, 1.2, size=each)
    return logits, means, rng.uniform(-6, 1, size=each), rng.normal(size=each)


# ---- one discretised logistic ----------------------------------------------------------------------------------------


def exact(k, mean, log_scale, n_levels=256):
    """log P and its two derivatives, by mpmath, from the edges of the bin: sums that lose nothing at 60 digits."""
    scale = mpmath.exp(log_scale)
    u, l = ((mpmath.mpf(2 * k + way - n_levels) / (n_levels - 1) - mean) / scale for way in (2, 0))  # noqa: E741

    def sigma(v):
        return 1 / (1 + mpmath.exp(-v))

    value, by_u, by_l = mpmath.mpf(0), mpmath.mpf(0), mpmath.mpf(0)
    if k < n_levels - 1:
        value, by_u = value - mpmath.log1p(mpmath.exp(-u)), sigma(-u)
    if k > 0:
        value, by_l = value - mpmath.log1p(mpmath.exp(l)), -sigma(l)
    if 0 < k < n_levels - 1:
        value += mpmath.log(-mpmath.expm1(l - u))
        by_u, by_l = by_u + 1 / mpmath.expm1(u - l), by_l - 1 / mpmath.expm1(u - l)
    return value, -(by_u + by_l) / scale, -(u * by_u + l * by_l)


def hard_cases(n, seed, dtype):
    """Ends, their neighbours and the middle; means on the bins' centres and edges, near them, and far outside."""
    rng = np.random.default_rng(seed)
    k = rng.choice([0, 1, 127, 128, 254, 255, *rng.integers(256, size=6)], n)
    log_scale = np.where(rng.random(n) < 0.5, rng.uniform(-9, 1, n), rng.uniform(-20, 20, n))
    own = (2 * k - 255 + rng.choice([-1, 0, 1], n)) / 255 + rng.choice([0, 0, 0.002], n) * rng.normal(size=n)
    mean = np.choose(rng.integers(4, size=n), [own, own, rng.uniform(-1.2, 1.2, n), 30 * rng.normal(size=n)])
    return tensors(k, mean, log_scale, dtype=dtype)


@pytest.mark.parametrize("dtype", EPS)
def test_one_logistic_to_what_one_rounding_of_the_inputs_does(dtype):
    """Mixed error of log P and its derivatives, relative to one rounding of each, of mean and of log_scale: at most 4.

    (Of the bins' edges, too, the reference's own test excuses a rounding; measured in levels they are exact.)
    Power: the logarithm of a difference of sigmoids misses by far more.
    """
    n = 200
    x, mean, log_scale = hard_cases(n, 0, dtype)
    value = discretised_logistic_log_prob(x, mean.requires_grad_(), log_scale.requires_grad_())
    assert value.dtype == dtype
    upstream = torch.where(torch.arange(n) % 2 == 0, 1.0, -2.0).to(dtype)  # exact factors
    found = [value, *(part / upstream for part in torch.autograd.grad(value, (mean, log_scale), upstream))]
    edges = [((2 * x + way - 256) / 255 - mean) / log_scale.exp() for way in (2, 0)]
    found.append((edges[0].sigmoid() - edges[1].sigmoid() + 1e-12).log())
    worst = [0.0] * 4
    with mpmath.workdps(60):
        eps, least = mpmath.mpf(EPS[dtype]), mpmath.mpf(torch.finfo(dtype).tiny)
        for i in range(n):
            k, m, s = int(x[i]), mpmath.mpf(mean[i].item()), mpmath.mpf(log_scale[i].item())
            truth, by_mean, by_scale = exact(k, m, s), exact(k, m * (1 + eps), s), exact(k, m, s * (1 + eps))
            for j, got in enumerate(found):
                t = j % 3
                moved = abs(by_mean[t] - truth[t]) + abs(by_scale[t] - truth[t])
                error = abs(got[i].item() - truth[t]) / (eps * abs(truth[t]) + moved + least)
                worst[j] = max(worst[j], float(error))
    assert max(worst[:3]) <= 4, worst
    assert worst[3] > 1e3


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("n_levels", [2, 5, 256])
def test_levels_add_up_to_one_at_extreme_parameters(dtype, n_levels):
    mean, log_scale = (x.unsqueeze(1) for x in tensors(*zip(*EXTREMES, strict=True), dtype=dtype))
    x = torch.arange(n_levels, dtype=dtype)
    log_prob = discretised_logistic_log_prob(x, mean, log_scale, n_levels).double()
    assert log_prob.shape == (len(EXTREMES), n_levels)
    assert log_prob.max() <= 0
    total, weighted = log_prob.exp().sum(1), (log_prob.exp() * (1 - log_prob)).sum(1)
    # Whatever mean and scale were rounded to, the bins tile the line: what is left are roundings of log P and of 1.
    assert ((total - 1).abs() <= 4 * EPS[dtype] * weighted).all(), (total - 1) / (EPS[dtype] * weighted)


def test_numbers_worked_by_hand():
    # Two levels, edge at 0: P(1) = sigma(mean / scale). Three levels with mean 0, scale 1/log 3 (edges at -1/2, 1/2):
    # sigma(log(3)/2) = 1/(1 + 3**-0.5).
    x, zero = torch.arange(3.0, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    one = discretised_logistic_log_prob(x[1], zero + 0.5, zero + np.log(0.25), 2)
    assert one.item() == pytest.approx(-np.log1p(np.exp(-2.0)), rel=1e-14)
    inner = 2 / (1 + 3**-0.5) - 1
    log_prob = discretised_logistic_log_prob(x, zero, zero - np.log(np.log(3.0)), 3)
    np.testing.assert_allclose(log_prob.exp().numpy(), [(1 - inner) / 2, inner, (1 - inner) / 2], rtol=1e-14)


def test_no_gradient_is_asked_for_and_the_value_stays():
    x, mean, log_scale = hard_cases(100, 1, torch.float32)
    before = [value.clone() for value in (x, mean, log_scale)]
    plain = discretised_logistic_log_prob(x, mean, log_scale)
    assert torch.equal(plain, discretised_logistic_log_prob(x, mean.requires_grad_(), log_scale.requires_grad_()))
    assert all(torch.equal(a, b) for a, b in zip((x, mean.detach(), log_scale.detach()), before, strict=True))


# ---- mixtures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
def test_mixtures_are_the_references(dtype, tolerance):
    """Values and gradients, each scaled by upstream, at parameters whose roundings are magnified by up to e^6."""
    rng = np.random.default_rng(2)
    x = rng.integers(256, size=(3, 7)).astype(float)
    x[:, :2] = 0, 255
    for levels, parameters, ours, judge, derivatives in (
        (
            x,
            grey_parameters(rng, 3, 7, 4),
            mixture_log_prob,
            reference.likelihoods.mixture_log_prob,
            reference.likelihoods.mixture_log_prob_gradient,
        ),
        (
            np.stack([x, x[::-1], 255 - x], axis=-1),
            colour_parameters(rng, 3, 7, n_components=4),
            colour_mixture_log_prob,
            reference.likelihoods.colour_mixture_log_prob,
            reference.likelihoods.colour_mixture_log_prob_gradient,
        ),
    ):
        inputs = tensors(*parameters, dtype=dtype, requires_grad=True)
        rounded = [value.detach().double().numpy() for value in inputs]
        log_prob = ours(torch.tensor(levels, dtype=dtype), *inputs)
        assert log_prob.shape == (3, 7)
        alone = [[judge(levels[i, [j]], *(v[i, [j]] for v in rounded)) for j in range(7)] for i in range(3)]
        np.testing.assert_allclose(log_prob.detach().numpy(), alone, rtol=tolerance)
        upstream = torch.tensor(rng.choice([1.0, -2.0], (3, 7)), dtype=dtype)
        found = torch.autograd.grad(log_prob, inputs, upstream)
        for got, expected in zip(found, derivatives(levels, *rounded), strict=True):
            scale = upstream.double().numpy().reshape(3, 7, *(1,) * (got.ndim - 2))
            np.testing.assert_allclose(got.numpy(), scale * expected, rtol=tolerance, atol=tolerance)


def test_gradients_by_finite_differences():
    rng = np.random.default_rng(3)
    x = torch.tensor([[0.0, 255.0, 128.0, 31.0]], dtype=torch.float64)
    colours = torch.stack([x, x.flip(-1), 255 - x], dim=-1)
    logits, means, _ = grey_parameters(rng, 1, 4, 2)
    grey = tensors(logits, means, rng.uniform(-2, 0, size=(1, 4, 2)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: mixture_log_prob(x, *inputs), grey)
    logits, means, _, coefficients = colour_parameters(rng, 1, 4, n_components=2)
    colour = tensors(logits, means, rng.uniform(-2, 0, size=(1, 4, 3, 2)), coefficients, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: colour_mixture_log_prob(colours, *inputs), colour)


def test_extreme_parameters_in_float32_have_finite_values_and_gradients():
    mean, log_scale = (
        value.view(1, 1, -1).expand(3, 4, -1).clone()
        for value in tensors(*zip(*EXTREMES, strict=True), dtype=torch.float32)
    )
    x = torch.tensor([0.0, 1.0, 128.0, 255.0]).expand(3, 4)
    for logit in (-1e4, 0.0, 1e4):
        logits = torch.zeros_like(mean)
        logits[..., 0] = logit
        inputs = [value.requires_grad_() for value in (logits, mean, log_scale)]
        # One component at a time as well: in the mixture a likely one hides what the others do.
        for part in (slice(None), *(slice(i, i + 1) for i in range(len(EXTREMES)))):
            log_prob = mixture_log_prob(x, *(value[..., part] for value in inputs))
            assert log_prob.isfinite().all()
            assert all(g.isfinite().all() for g in torch.autograd.grad(log_prob.sum(), inputs))
    shape = (2, 3, len(EXTREMES))
    means, scales = (value[:1, :1].detach().expand(shape).clone().requires_grad_() for value in (mean, log_scale))
    coefficients = torch.tensor([-30.0, 30.0]).view(2, 1, 1).expand(shape).clone().requires_grad_()
    logits = torch.zeros(2, len(EXTREMES), requires_grad=True)
    log_prob = colour_mixture_log_prob(torch.tensor([[0.0, 255.0, 128.0]] * 2), logits, means, scales, coefficients)
    assert log_prob.isfinite().all()
    inputs = logits, means, scales, coefficients
    assert all(g.isfinite().all() for g in torch.autograd.grad(log_prob.sum(), inputs))


def test_a_saturated_coefficient_still_has_a_derivative():
    # tanh(12) is 1 in float32; 1/cosh(12)^2 = 4 e^-24. Red is 1: green's mean moves as its coefficient does.
    coefficients = torch.full((1, 3, 1), 12.0, requires_grad=True)
    means = torch.zeros(1, 3, 1, requires_grad=True)
    x = torch.tensor([[255.0, 100.0, 50.0]])
    log_prob = colour_mixture_log_prob(x, torch.zeros(1, 1), means, torch.zeros(1, 3, 1), coefficients)
    by_mean, by_coefficient = torch.autograd.grad(log_prob, (means, coefficients))
    ratio = (by_coefficient[0, 0, 0] / by_mean[0, 1, 0]).item()
    assert ratio == pytest.approx(4 * np.exp(-24.0), rel=1e-5, abs=0)


def test_a_networks_layout_gives_the_same_numbers():
    rng = np.random.default_rng(4)
    x = torch.tensor(rng.integers(256, size=(2, 5, 3)), dtype=torch.float32)
    raw = torch.tensor(rng.normal(size=(2, 10 * 2, 5)), dtype=torch.float32).requires_grad_()

    def score(parameters):
        logits, others = parameters[..., :2], parameters[..., 2:]
        return colour_mixture_log_prob(x, logits, *others.unflatten(-1, (3, 3, 2)).unbind(-3))

    first, last = score(raw.movedim(1, -1)), score(raw.movedim(1, -1).contiguous())
    torch.testing.assert_close(first, last, rtol=4e-7, atol=0)
    gradients = [torch.autograd.grad(each.sum(), raw)[0] for each in (first, last)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


# ---- draws -----------------------------------------------------------------------------------------------------------


def midpoints(n):
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def probabilities(mean, log_scale, n_levels=256):
    """Of all levels, (..., L), by the reference."""
    mean, log_scale = (np.asarray(value)[..., None] for value in (mean, log_scale))
    return np.exp(reference.likelihoods.discretised_logistic_log_prob(np.arange(n_levels), mean, log_scale, n_levels))


@pytest.mark.parametrize(("mean", "log_scale"), [(0.1, -3.0), (-0.9, 0.0), (2 / 255, -6.5), (1.4, -1.0), (0.3, 3.0)])
def test_levels_are_drawn_as_often_as_they_are_scored(mean, log_scale):
    """n equidistant noises: each level gets n P of them, but for one at an end of its share."""
    n = 20_000
    parameters = (torch.full((n, 1), value, dtype=torch.float64) for value in (0.0, mean, log_scale))
    drawn = mixture_sample(torch.full((n,), 0.5, dtype=torch.float64), midpoints(n), *parameters)
    counts = np.bincount(drawn.long().numpy(), minlength=256)
    assert len(counts) == 256
    np.testing.assert_array_less(np.abs(counts - n * probabilities(mean, log_scale)), 1 + 1e-6)


def test_components_are_drawn_as_often_as_they_weigh():
    n, logits = 9_999, torch.tensor([0.3, -2.0, 1.5, -900.0], dtype=torch.float64)
    # Each has a level of its own.
    means, log_scales = torch.linspace(-1, 1, 4).double().expand(n, 4), torch.full((n, 4), -20.0, dtype=torch.float64)
    drawn = mixture_sample(midpoints(n), torch.full((n,), 0.3).double(), logits.expand(n, 4), means, log_scales)
    counts = np.bincount(drawn.long().numpy(), minlength=256)[[0, 85, 170, 255]]
    assert counts.sum() == n
    np.testing.assert_array_less(np.abs(counts - n * torch.softmax(logits, 0).numpy()), 1 + 1e-6)


def test_colours_are_drawn_as_often_as_they_are_scored():
    """A grid of the four noises of a pixel. A colour's count is a sum over components of products of counts.

    Each of these is n times a probability, but for one at an end: w for the component, then P of red, of green given
    red and of blue given both, as ``reference`` has them.
    """
    n, n_levels, n_components = 26, 4, 2
    parameters = colour_parameters(np.random.default_rng(5), n_components=n_components)
    logits, means, log_scales, coefficients = parameters[0], parameters[1], np.abs(parameters[2]) - 3, parameters[3]
    noise = torch.cartesian_prod(*[midpoints(n)] * 4)
    inputs = [value.expand(n**4, *value.shape) for value in tensors(logits, means, log_scales, coefficients)]
    drawn = colour_mixture_sample(noise[:, 0], noise[:, 1:], *inputs, n_levels).long().numpy()
    counts = np.bincount(drawn @ [16, 4, 1], minlength=64) / n**4
    colours = np.array(list(itertools.product(range(n_levels), repeat=3)))
    red, green, _ = (2 * colours / 3 - 1).T[..., None]
    c, weight = np.tanh(coefficients), np.exp(logits) / np.exp(logits).sum()
    shifted = means[0] + 0 * red, means[1] + c[0] * red, means[2] + c[1] * red + c[2] * green
    each = [
        np.take_along_axis(
            probabilities(shifted[i], np.broadcast_to(log_scales[i], (64, n_components)), n_levels),
            colours[:, i, None, None],
            axis=-1,
        )[..., 0]
        for i in range(3)
    ]
    expected = weight * each[0] * each[1] * each[2]
    most = (weight + 1 / n) * np.prod([p + 1 / n for p in each], axis=0)
    least = np.maximum(weight - 1 / n, 0) * np.prod([np.maximum(p - 1 / n, 0) for p in each], axis=0)
    assert np.all(counts <= most.sum(axis=1) + 1e-9)
    assert np.all(counts >= least.sum(axis=1) - 1e-9)
    assert np.abs(counts - expected.sum(axis=1)).max() < 0.01
    scored = colour_mixture_log_prob(torch.tensor(colours).double(), *(v[:64] for v in inputs), n_levels).exp()
    np.testing.assert_allclose(scored.numpy(), expected.sum(axis=1), rtol=1e-12)


@settings(max_examples=60)
@given(st.floats(0, 1), st.floats(-1.5, 1.5), st.floats(-8, 4), st.integers(2, 256))
def test_a_draw_is_the_level_whose_share_the_noise_falls_in(u, mean, log_scale, n_levels):
    inputs = (torch.tensor([[value]], dtype=torch.float64) for value in (0.0, mean, log_scale))
    noise = torch.tensor([u], dtype=torch.float64)
    level = mixture_sample(noise, noise, *inputs, n_levels).item()
    assert level == int(level)
    share = np.cumsum(np.concatenate([[0], probabilities(mean, log_scale, n_levels)]))
    assert share[int(level)] - 1e-11 <= u <= share[int(level) + 1] + 1e-11


def test_draws_are_those_of_the_reference():
    rng = np.random.default_rng(3)
    u_component, u = rng.random((50, 7)), rng.random((50, 7, 3))
    grey = grey_parameters(rng, 50, 7, 4)
    expected = reference.likelihoods.mixture_sample(u_component, u[..., 0], *grey)
    np.testing.assert_array_equal(mixture_sample(*tensors(u_component, u[..., 0], *grey)).numpy(), expected)
    colour = colour_parameters(rng, 50, 7, n_components=4)
    expected = reference.likelihoods.colour_mixture_sample(u_component, u, *colour, 16)
    np.testing.assert_array_equal(colour_mixture_sample(*tensors(u_component, u, *colour), 16).numpy(), expected)


def test_noise_on_an_end_draws_a_level():
    ends = torch.tensor([0.0, 1.0])
    parameters = torch.zeros(2, 2), torch.full((2, 2), 0.5), torch.full((2, 2), -20.0)
    drawn = mixture_sample(ends, ends, *parameters)
    assert drawn.tolist() == [191, 191]  # 127.5 (1 + 0.5) = 191.25: a scale of e^-20 reaches no other level
    colour = colour_mixture_sample(ends, torch.stack([ends] * 3, -1), torch.zeros(2, 2), *torch.zeros(3, 2, 3, 2))
    assert colour[0].tolist() == [0, 0, 0]
    assert colour[1].tolist() == [255, 255, 255]


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_shapes_that_do_not_fit_are_refused():
    x, mix, three = torch.zeros(2, 4), torch.zeros(2, 4, 3), torch.zeros(2, 4, 3, 5)
    for broken in ((x, mix, mix, mix[:1]), (x[:1], mix, mix, mix), (x, *[mix[..., :0]] * 3)):
        with pytest.raises(
            ShapeError, match=r"x or u must be \(..., P\) and logits, .* with at least one component; got"
        ):
            mixture_log_prob(*broken)
        with pytest.raises(ShapeError, match=r"x or u must be \(..., P\)"):
            mixture_sample(broken[0], *broken)
    with pytest.raises(ShapeError, match=r"u_component must be \(..., P\) .* got \(2,\), \(2, 4, 3\)"):
        mixture_sample(x[:, 0], x, mix, mix, mix)
    colours, logits = torch.zeros(2, 4, 3), torch.zeros(2, 4, 5)
    for broken in (
        (colours[..., :2], logits, three[..., :2, :], three[..., :2, :], three[..., :2, :]),
        (colours, logits, three, three, three[..., :4]),
        (colours, logits[:1], three, three, three),
        (torch.zeros(3), torch.zeros(()), *[torch.zeros(3)] * 3),
    ):
        with pytest.raises(ShapeError, match=r"x or u must be \(..., P, 3\), logits \(..., P, M\)"):
            colour_mixture_log_prob(*broken)
        with pytest.raises(ShapeError, match=r"x or u must be \(..., P, 3\)"):
            colour_mixture_sample(x, *broken)
