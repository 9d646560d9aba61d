"""DVAE++: exact likelihood of tiny instances, the multi-scale factorisation, causality, shapes of any image size."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from dvaepp import objective
from dvaepp.boltzmann import RBM
from dvaepp.bound import likelihood
from dvaepp.config import Config, HierarchyConfig, ModelConfig
from dvaepp.errors import ConfigError
from dvaepp.models.hierarchical import BinaryUnits, HierarchicalVAE, Noise, Normal, NormalUnits
from dvaepp.smoothing import create

TINY = HierarchyConfig(local_groups=2, local_channels=1, width=4, halvings=2, local_halvings=2)


def random_model(image_shape=(4, 4), channels=1, latents=2, groups=1, prior="rbm", seed=0, scale=0.5, **hierarchy):
    """A model whose every parameter is random: nothing starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    settings = ModelConfig(network="convolutional", latents=latents, groups=groups, prior=prior, hidden=6, layers=1)
    model = HierarchicalVAE(image_shape, channels, settings, dataclasses.replace(TINY, **hierarchy))
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = math.prod(parameter.shape[1:]) if parameter.ndim > 1 else 1
            parameter.normal_(0, scale if parameter.ndim < 2 else 1 / math.sqrt(fan_in), generator=generator)
    return model.eval()


@torch.no_grad()
def with_even_weights(model):
    """The model with posteriors near its priors and a decoder that says less: moderate importance weights."""
    heads = [head[-1] for group in model.locals for head in (group.prior, group.posterior)]
    outputs = [model.decoder.output] if hasattr(model.decoder, "output") else model.decoder.outputs
    for layer in (*heads, *(network[-1] for network in model.posteriors), *(output[-1] for output in outputs)):
        layer.weight.mul_(0.25)
        layer.bias.mul_(0.25)
    return model


def noise_for(seed=0):
    return torch.Generator().manual_seed(seed)


def all_binary(n):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)))


# ---- the decoders are distributions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["unconditional", "conditional"])
@pytest.mark.parametrize(
    ("image_shape", "halvings", "local_halvings"), [((4, 4), 2, 2), ((3, 3), 2, 1), ((3, 2), 1, 0)]
)
def test_the_likelihoods_of_all_images_add_up_to_one(decoder, image_shape, halvings, local_halvings):
    model = random_model(image_shape, decoder=decoder, halvings=halvings, local_halvings=local_halvings)
    images = all_binary(math.prod(image_shape))
    state = torch.randn(1, 4 * 2**local_halvings, *model.local_shape[2:], generator=noise_for(1))
    total = 0.0
    with torch.no_grad():
        for batch in images.split(4096):
            log_prob = model.decoder.log_prob(state.expand(len(batch), -1, -1, -1), batch)
            total += float(log_prob.double().exp().sum())
    assert total == pytest.approx(1, rel=2e-5)  # float32 sums of 16 terms


@pytest.mark.parametrize("decoder", ["unconditional", "conditional"])
def test_images_are_drawn_as_often_as_their_likelihood_says(decoder):
    model = random_model((2, 3), decoder=decoder, halvings=1, local_halvings=1)
    images, draws = all_binary(6), 20_000
    state = torch.randn(1, 8, *model.local_shape[2:], generator=noise_for(1))
    with torch.no_grad():
        probability = model.decoder.log_prob(state.expand(len(images), -1, -1, -1), images).double().exp().numpy()
        u = torch.rand((draws, 2, *model.canvas.size), generator=noise_for(2))
        x = model.decoder.sample(state.expand(draws, -1, -1, -1), u).x
    index = (x @ torch.tensor([32.0, 16, 8, 4, 2, 1])).long()
    expected = draws * probability
    observed = np.bincount(index, minlength=64)
    chi_squared = float(((observed - expected) ** 2 / expected).sum())
    assert chi_squared < 63 + 4 * math.sqrt(2 * 63)  # 64 cells: a right sampler is beyond it once in 10^4 seeds


def test_a_conditional_decoder_uses_the_coarser_pixels():
    model = random_model((4, 4), decoder="conditional")
    state = torch.randn(1, 16, 1, 1, generator=noise_for(1))
    x = torch.zeros(2, 16)
    x[1, 0] = 1  # the coarsest pixel
    with torch.no_grad():
        expanded = state.expand(2, -1, -1, -1)
        rest = model.decoder.log_prob(expanded, x)
        alone = random_model((4, 4), decoder="unconditional").decoder.log_prob(expanded, x)
    assert rest[0] != rest[1]
    # of an unconditional one the difference is that pixel's own logit; here others' change too
    with torch.no_grad():
        coarsest = model.decoder.outputs[0](model.decoder._features(0, None, state, model.canvas.lay(x[:1])))
    own = float(coarsest[0, 0, 0, 0] + model.decoder.guess[0].detach())
    assert abs(float(rest[1] - rest[0]) - own) > 1e-3
    assert torch.isfinite(alone).all()


# ---- likelihood ------------------------------------------------------------------------------------------------------


def log_prior(model, z):
    """log p(z) of every row, by enumeration of Z for a machine, by its own definition for normal variables."""
    if isinstance(model.prior, RBM):
        states = all_binary(model.n_latents)
        n1 = model.prior.n1
        energies = model.prior.energy(states[:, :n1], states[:, n1:]).double()
        return -model.prior.energy(z[:, :n1], z[:, n1:]).double() - torch.logsumexp(-energies, 0)
    logits = model.prior.first.double()
    return (z * torch.nn.functional.logsigmoid(logits) + (1 - z) * torch.nn.functional.logsigmoid(-logits)).sum(1)


@torch.no_grad()
def exact_log_likelihood(model, x, points=41, reach=6.0):
    """log p(x): all z, and for each a grid over the two local variables in units of their prior (trapezoidal rule)."""
    grid = torch.linspace(-reach, reach, points, dtype=torch.float64)
    log_weight = -0.5 * grid**2 - 0.5 * math.log(2 * math.pi) + math.log(float(grid[1] - grid[0]))
    total = []
    for z in all_binary(model.n_latents):
        rows = points * points
        eps = torch.stack([grid.repeat_interleave(points), grid.repeat(points)]).float().view(2, rows, 1, 1, 1)
        state = model.local_prior(z.expand(rows, -1), eps)  # h = mean + std eps, so eps is standard normal
        log_p = model.decoder.log_prob(state, x.expand(rows, -1)).double()
        both = log_weight.repeat_interleave(points) + log_weight.repeat(points)
        total.append(log_prior(model, z[None]) + torch.logsumexp(log_p + both, 0))
    return float(torch.logsumexp(torch.cat(total), 0))


@pytest.mark.parametrize("prior", ["rbm", "factorial"])
@pytest.mark.parametrize(("groups", "decoder"), [(1, "conditional"), (2, "unconditional")])
def test_the_importance_weighted_estimate_is_the_exact_likelihood(prior, groups, decoder):
    model = with_even_weights(random_model(groups=groups, prior=prior, decoder=decoder, seed=3))
    x = (torch.rand(3, 16, generator=noise_for(4)) < 0.4).float()
    exact = [exact_log_likelihood(model, row) for row in x]
    log_z = 0.0
    if prior == "rbm":
        log_z = float(-log_prior(model, torch.zeros(1, 2))[0].detach())  # E(0) = 0
    with torch.no_grad():
        weights, reconstruction = model.log_weights(x, 4000, noise_for(5))
    relative = (weights - torch.tensor(exact)[:, None] - log_z).exp()
    error = relative.std(1) / math.sqrt(4000)
    assert ((relative.mean(1) - 1).abs() < 4 * error).all()
    assert (error < 0.2).all()  # weights so uneven would prove nothing
    assert (reconstruction < 0).all()
    streamed = likelihood(model, x, 4000, noise_for(6))
    assert ((streamed.log_marginal - torch.tensor(exact) - log_z).abs() < 5 * error).all()


@torch.no_grad()
def test_with_binary_local_latents_the_estimate_is_the_sum_over_all_of_them():
    model = with_even_weights(random_model(local="bernoulli", seed=7))
    x = (torch.rand(2, 16, generator=noise_for(4)) < 0.4).float()
    states = all_binary(2)
    total = []
    for z, h in itertools.product(states, states):
        # a noise above 1 - p draws 1, one below it 0: ask for each value, and weigh it with its own probability
        state, log_h = model.spread(2 * z[None] - 1), 0.0
        for group, value in zip(model.locals, h, strict=True):
            features = group.features(state)
            logit = group.p(features).double()
            log_h = log_h + torch.nn.functional.logsigmoid(logit if value else -logit).sum()
            state = group.extend(features, value.view(1, 1, 1, 1))
        log_x = model.decoder.log_prob(state.expand(2, -1, -1, -1), x).double()
        total.append(log_x + log_h + log_prior(model, z[None]))
    exact = torch.logsumexp(torch.stack(total), 0)
    log_z = -log_prior(model, torch.zeros(1, 2))[0]
    weights, _ = model.log_weights(x, 4000, noise_for(5))
    relative = (weights - exact[:, None] - log_z).exp()
    assert ((relative.mean(1) - 1).abs() < 4 * relative.std(1) / math.sqrt(4000)).all()


# ---- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "estimator", "smoothing", "local"),
    [
        ("rbm", "joint", "exponential", "normal"),
        ("rbm", "rolfe", "spike-exponential", "normal"),
        ("rbm", "joint", "exponential", "bernoulli"),
        ("factorial", "marginal", "exponential", "bernoulli"),
        ("directed", "joint", "exponential", "normal"),
        ("normal", "joint", "exponential", "normal"),
    ],
)
def test_every_row_of_table_3_has_finite_terms_and_gradients(prior, estimator, smoothing, local):
    model = random_model(latents=4, groups=2, prior=prior, local=local).train()
    x = (torch.rand(5, 16, generator=noise_for(1)) < 0.4).float()
    samples = tuple((torch.rand(7, 2, generator=noise_for(seed)) < 0.5).float() for seed in (2, 3))
    terms = objective.hierarchical_terms(
        model, x, model.noise(5, noise_for(4)), create(smoothing, 8.0), estimator, samples if prior == "rbm" else None
    )
    assert tuple(terms.named()) == objective.term_names(2)
    terms.loss(0.5, torch.tensor([1.1, 0.4, 1.5])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("decoder", ["unconditional", "conditional"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_a_model_of_many_levels_no_parameter_is_left_out(decoder, channels):
    """Processes that share a batch wait for the gradient of every parameter there is."""
    model = random_model(channels=channels, decoder=decoder, likelihood="logistic-mixture", mixtures=2).train()
    x = torch.randint(256, (3, 16 * channels), generator=noise_for(1)).float()
    samples = tuple((torch.rand(7, 1, generator=noise_for(seed)) < 0.5).float() for seed in (2, 3))
    terms = objective.hierarchical_terms(
        model, x, model.noise(3, noise_for(4)), create("exponential", 8.0), "joint", samples
    )
    terms.loss(0.5).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_the_loss_is_the_weighted_and_balanced_bound():
    values = {
        name: torch.tensor(value)
        for name, value in zip(objective.term_names()[:4], (-90.0, 3.0, 5.0, 7.0), strict=True)
    }
    terms = objective.Terms(**values, local_kl=(torch.tensor(2.0), torch.tensor(6.0)))
    assert float(terms.loss(1.0)) == 90 + (7 - 3 + 5) + 8
    assert float(terms.loss(0.5, torch.tensor([2.0, 0.5, 1.5]))) == 90 + 0.5 * (2 * 9 + 1 + 9)
    assert terms.group_kl(log_partition=4.5).tolist() == [4.5 - 3 + 5, 2, 6]  # the surrogate is not log Z


def test_the_negative_loss_is_a_bound_that_is_tight_for_the_true_posterior():
    """With no local latents to speak of and p(x|z) constant, the bound is log p(x) less KL(q||p)."""
    model = random_model(seed=5)
    with torch.no_grad():
        for group in model.locals:
            for head in (group.prior[-1], group.posterior[-1]):
                head.weight.zero_()
                head.bias.zero_()  # q(h) = p(h) = N(0, 1)
    x = torch.zeros(4, 16)
    inferred = model.infer(x, model.noise(4, noise_for(0)), create("exponential", 8.0))
    assert (model.local_kl(inferred, create("exponential", 8.0)) == 0).all()


# ---- causality -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", ["normal", "bernoulli"])
def test_a_later_group_never_influences_an_earlier_conditional(local):
    model = random_model((6, 6), latents=4, groups=2, local=local, local_groups=4, local_halvings=1, halvings=2)
    smoothing = create("exponential", 8.0)
    x = (torch.rand(3, 36, generator=noise_for(1)) < 0.4).float()
    noise = model.noise(3, noise_for(2))
    h = noise.h.clone().requires_grad_()
    z = noise.z.clone().requires_grad_()
    inferred = model.infer(x, Noise(z, h), smoothing)

    def size(parameters):
        return sum(part.square().sum() for part in (parameters if isinstance(parameters, Normal) else (parameters,)))

    for group in range(4):
        for parameters in (inferred.p_h[group], inferred.q_h[group]):
            (slope,) = torch.autograd.grad(size(parameters), h, retain_graph=True, materialize_grads=True)
            used = slope.flatten(1).abs().amax(1) > 0
            assert used.tolist() == [True] * group + [False] * (4 - group)
    (slope,) = torch.autograd.grad(inferred.q_z[:, 2:].square().sum(), z, retain_graph=True)
    assert (slope[:, :2] != 0).any()
    assert (slope[:, 2:] == 0).all()
    (slope,) = torch.autograd.grad(inferred.q_z[:, :2].square().sum(), z, allow_unused=True)
    assert slope is None or (slope == 0).all()


def test_the_priors_of_local_groups_do_not_see_the_image():
    model = random_model((6, 6), local_halvings=1)
    x = torch.rand(3, 36, generator=noise_for(1)).requires_grad_()
    inferred = model.infer(x, model.noise(3, noise_for(2)), create("exponential", 8.0))
    (by_prior,) = torch.autograd.grad(inferred.p_h[0].mean.sum(), inferred.zeta, retain_graph=True)
    assert (by_prior != 0).any()  # only through zeta
    # given zeta and h nothing is left: the state is a function of them
    with torch.no_grad():
        state = model.spread(2 * inferred.zeta - 1)
        for group, h in zip(model.locals, inferred.h, strict=True):
            state = group.extend(group.features(state), h)
    torch.testing.assert_close(state, inferred.state)


# ---- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["unconditional", "conditional"])
@pytest.mark.parametrize(
    ("image_shape", "channels", "likelihood", "halvings", "local_halvings"),
    [
        ((28, 28), 1, "bernoulli", 3, 2),
        ((5, 9), 1, "bernoulli", 2, 0),
        ((1, 1), 1, "bernoulli", 1, 1),
        ((7, 10), 3, "logistic-mixture", 2, 1),
        ((8, 3), 1, "logistic-mixture", 3, 3),
    ],
)
def test_images_of_any_size(decoder, image_shape, channels, likelihood, halvings, local_halvings):
    model = random_model(
        image_shape,
        channels,
        decoder=decoder,
        likelihood=likelihood,
        halvings=halvings,
        local_halvings=local_halvings,
        mixtures=3,
    )
    n_pixels = channels * math.prod(image_shape)
    x = torch.rand(3, n_pixels, generator=noise_for(1))
    x = x.round() if likelihood == "bernoulli" else (x * 255).round()
    with torch.no_grad():
        inferred = model.infer(x, model.noise(3, noise_for(2)), None)
        assert model.decoder.log_prob(inferred.state, x).shape == (3,)
        drawn = model.generate(inferred.zeta, noise_for(3))
        assert model.reconstruct(x, noise_for(4)).shape == (3, n_pixels)
    assert all(h.shape == (3, *model.local_shape[1:]) for h in inferred.h)
    assert drawn.x.shape == drawn.shown.shape == (3, n_pixels)
    assert ((drawn.shown >= 0) & (drawn.shown <= 1)).all()
    assert (drawn.x == drawn.x.round()).all()
    assert drawn.x.max() <= model.levels


@pytest.mark.parametrize(("height", "width"), [(28, 28), (5, 9), (8, 8), (1, 3)])
def test_an_image_is_cut_where_it_was_laid(height, width):
    canvas = random_model((height, width), halvings=3).canvas
    x = torch.rand(2, height * width, generator=noise_for(1))
    laid = canvas.lay(x, margin=7.0)
    assert all(side % 8 == 0 for side in canvas.size)
    assert laid.shape == (2, 1, *canvas.size)
    torch.testing.assert_close(canvas.cut(laid).flatten(1), x, rtol=0, atol=0)
    assert int((laid == 7).sum()) == 2 * (math.prod(canvas.size) - height * width)
    # every pixel of the image is new at exactly one scale
    seen = torch.zeros(canvas.size)
    for scale in range(4):
        canvas.at(scale, seen).add_(canvas.inside(scale) - canvas.coarser(scale))
    assert torch.equal(seen, canvas.lay(torch.ones(1, height * width))[0, 0])


def test_at_first_posterior_and_prior_agree_and_pixels_have_their_mean():
    settings = ModelConfig(network="convolutional", latents=4)
    model = HierarchicalVAE((6, 6), 1, settings, dataclasses.replace(TINY, local_groups=16))
    mean = torch.linspace(0.0, 1.0, 36)
    model.initialise(mean)
    x = (torch.rand(4, 36, generator=noise_for(0)) < mean).float()
    smoothing = create("exponential", 8.0)
    with torch.no_grad():
        inferred = model.infer(x, model.noise(4, noise_for(1)), smoothing)
        assert (model.local_kl(inferred, smoothing) == 0).all()
        p = mean.clamp(0.001, 0.999)
        expected = (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
        torch.testing.assert_close(model.decoder.log_prob(inferred.state, x), expected)
        assert inferred.state.std() < 30  # 16 groups do not blow up


def test_temperature_narrows_the_local_latents():
    normal = NormalUnits.cooled(Normal(torch.ones(2), torch.zeros(2)), 0.5)
    torch.testing.assert_close(normal.log_std.exp(), torch.full((2,), 0.5))
    assert (BinaryUnits.cooled(torch.tensor([2.0]), 0.5) == 4).all()


@pytest.mark.parametrize(
    ("settings", "hierarchy", "words"),
    [
        ({"prior": "normal", "network": "nonlinear"}, {}, "prior normal is for network convolutional"),
        ({"prior": "factorial", "network": "linear"}, {}, "use directed"),
        ({"estimator": "nvil", "network": "convolutional"}, {}, "takes binary"),
        (
            {"network": "convolutional", "smoothing": "spike-exponential"},
            {"local": "bernoulli"},
            "use another smoothing, or local normal",
        ),
    ],
)
def test_settings_that_do_not_go_together(settings, hierarchy, words):
    with pytest.raises(ConfigError, match=words):
        Config(model=ModelConfig(**settings), hierarchy=HierarchyConfig(**hierarchy))


def test_colour_needs_a_likelihood_of_levels():
    with pytest.raises(ConfigError, match="use logistic-mixture"):
        random_model((4, 4), channels=3)
