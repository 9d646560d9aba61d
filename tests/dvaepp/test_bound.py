"""The likelihood of images against enumeration of every latent state of tiny models."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from dvaepp.bound import Likelihood, StreamingLogMeanExp, likelihood, likelihood_of_all, posterior_means
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.randomness import generator
from reference.bernoulli import log_prob, sigmoid
from reference.boltzmann import energy
from reference.vocabulary import RBM as ReferenceRBM

# ---- streaming log-mean-exp ------------------------------------------------------------------------------------------

WEIGHTS = st.one_of(st.floats(-50, 50), st.floats(-1e300, 1e300), st.just(-np.inf))


@st.composite
def pieces(draw):
    rows = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    return [np.array(draw(st.lists(WEIGHTS, min_size=rows * k, max_size=rows * k))).reshape(rows, k) for k in sizes]


def streamed(parts):
    stream = StreamingLogMeanExp(len(parts[0]), torch.device("cpu"))
    for part in parts:
        stream.add(torch.from_numpy(np.asarray(part)))
    result = stream.result()
    assert result.dtype == torch.float64
    return result.numpy()


@settings(deadline=None, derandomize=True)
@given(pieces(), st.randoms(use_true_random=False))
def test_pieces_in_any_order_give_the_mean_of_all(parts, random):
    everything = np.concatenate(parts, axis=1)
    expected = logsumexp(everything, axis=1, b=1 / everything.shape[1])
    np.testing.assert_allclose(streamed(parts), expected, rtol=1e-14, atol=1e-13)
    shuffled = random.sample(parts, len(parts))
    np.testing.assert_allclose(streamed(shuffled), expected, rtol=1e-14, atol=1e-13)
    np.testing.assert_allclose(streamed([everything]), expected, rtol=1e-14, atol=1e-13)


def test_log_mean_exp_by_hand():
    assert streamed([[[5.0]]]) == [5.0]
    assert streamed([[[-np.inf]], [[-np.inf, -np.inf]]]) == [-np.inf]
    assert streamed([[[-np.inf]], [[1000.0]]])[0] == pytest.approx(1000 - np.log(2), rel=1e-15)
    assert streamed([[[1000.0]], [[-np.inf]]])[0] == pytest.approx(1000 - np.log(2), rel=1e-15)
    # e^0 and e^(log 3): mean 2; rows do not see each other.
    two = [[[0.0], [-1e5]], [[np.log(3)], [-1e5]]]
    np.testing.assert_allclose(streamed(two), [np.log(2), -1e5], rtol=1e-15)
    assert streamed([[[1.0]], [[np.inf]], [[2.0]]]) == [np.inf]
    assert np.isnan(streamed([[[1.0]], [[np.nan]], [[2.0]]])[0])


def test_single_precision_weights_are_summed_in_double():
    small = torch.full((1, 1000), -18.0)  # each a tenth of a float32 rounding of 1
    stream = StreamingLogMeanExp(1, torch.device("cpu"))
    stream.add(torch.zeros(1, 1))
    for _ in range(100):
        stream.add(small)
    expected = np.log1p(1e5 * np.exp(-18.0)) - np.log(100_001)
    assert stream.result().item() == pytest.approx(expected, rel=1e-14)


# ---- the models and what enumeration says about them -----------------------------------------------------------------


def tiny_model(n_latents, n_groups, hidden=(), seed=0, n_pixels=5):
    generator = torch.Generator().manual_seed(seed)
    model = DiscreteVAE(n_pixels, n_latents, n_groups, hidden).double()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.dtype == torch.float64:
                tensor.normal_(0, 0.35, generator=generator)
        for name, tensor in model.named_buffers():
            if name.endswith("running_var") or name == "train_mean":
                tensor.uniform_(0.2, 0.8, generator=generator)
    return model.eval()


def forward(network, rows):
    """The network in evaluation mode once more, in NumPy."""
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            rows = rows @ layer.weight.detach().numpy().T
            rows = rows + (0 if layer.bias is None else layer.bias.detach().numpy())
        elif isinstance(layer, torch.nn.BatchNorm1d):
            mean, variance, scale, shift = (
                t.detach().numpy() for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
            )
            rows = (rows - mean) / np.sqrt(variance + layer.eps) * scale + shift
        else:
            assert isinstance(layer, torch.nn.Tanh)
            rows = np.tanh(rows)
    return rows


class Enumerated:
    """All 2^N latent states of one image x (D,): log q(z|x), log p(x|z) and log w = log p(x|z) - E(z) - log q(z|x)."""

    def __init__(self, model, x):
        prior = model.prior
        rbm = ReferenceRBM(*(p.detach().numpy() for p in (prior.a1, prior.a2, prior.W)))
        z = np.array(list(itertools.product([0, 1], repeat=model.n_latents)), dtype=float)
        self.z = z
        self.reconstruction = log_prob(x, forward(model.decoder, 2 * z - 1)).sum(axis=1)
        image = np.broadcast_to(x - model.train_mean.numpy(), (len(z), len(x)))
        size = model.n_latents // model.n_groups
        self.logit_q = np.hstack(
            [forward(encoder, np.hstack([image, 2 * z[:, : g * size] - 1])) for g, encoder in enumerate(model.encoders)]
        )
        self.log_q = log_prob(z, self.logit_q).sum(axis=1)
        self.q = np.exp(self.log_q)
        energies = energy(rbm, z[:, : rbm.n1], z[:, rbm.n1 :])
        self.log_weight = self.reconstruction - energies - self.log_q
        self.log_marginal = logsumexp(self.reconstruction - energies)  # log p(x) + log Z
        self.log_partition = logsumexp(-energies)

    def mean(self, values):
        return self.q @ values

    def spread(self, values):
        """Standard deviation under q."""
        return np.sqrt(self.q @ (values - self.q @ values) ** 2)


MODELS = [
    pytest.param({"n_latents": 6, "n_groups": 1}, id="one group, linear"),
    pytest.param({"n_latents": 6, "n_groups": 2}, id="two groups, linear"),
    pytest.param({"n_latents": 4, "n_groups": 4, "hidden": (7,)}, id="four groups, one layer"),
    pytest.param({"n_latents": 6, "n_groups": 2, "hidden": (7, 5)}, id="two groups, two layers"),
]
IMAGES = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]], dtype=float)


def noise(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("model", MODELS)
def test_probabilities_of_all_images_add_up_to_one(model):
    """The judge itself: exact log p(x), summed over every image there is."""
    model = tiny_model(**model)
    images = np.array(list(itertools.product([0, 1], repeat=5)), dtype=float)
    judges = [Enumerated(model, x) for x in images]
    assert logsumexp([j.log_marginal - j.log_partition for j in judges]) == pytest.approx(0, abs=1e-12)
    assert judges[0].q.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("rows", [8192, 700])  # one draw at a time for many images, and pieces with a remainder
@pytest.mark.parametrize("model", MODELS)
def test_likelihood_by_enumeration(monkeypatch, model, rows):
    """72 means, each beyond 5.5 exact standard errors with probability 4e-8: 3e-6 in all."""
    monkeypatch.setattr(DiscreteVAE, "rows_at_a_time", rows)
    n_importance = 20_001
    model = tiny_model(**model)
    result = likelihood(model, torch.from_numpy(IMAGES), n_importance, noise(1))
    for i, x in enumerate(IMAGES):
        judge = Enumerated(model, x)
        weights = np.exp(judge.log_weight - judge.log_marginal)
        assert judge.mean(weights) == pytest.approx(1, abs=1e-12)
        error = judge.spread(weights) / np.sqrt(n_importance)
        assert error < 0.02  # else one state decides, and the normal distribution is no guide
        assert abs(np.expm1(result.log_marginal[i].item() - judge.log_marginal)) < 5.5 * error

        elbo = judge.mean(judge.log_weight)
        assert elbo <= judge.log_marginal
        error = judge.spread(judge.log_weight) / np.sqrt(n_importance)
        assert abs(result.log_weight[i].item() - elbo) < 5.5 * error
        error = judge.spread(judge.reconstruction) / np.sqrt(n_importance)
        assert abs(result.reconstruction[i].item() - judge.mean(judge.reconstruction)) < 5.5 * error
    for value in (result.log_marginal, result.log_weight, result.reconstruction):
        assert value.dtype == torch.float64
        assert value.shape == (3,)


@pytest.mark.parametrize("model", MODELS)
def test_the_bound_of_few_samples_and_how_it_tightens(model):
    """3,000 estimates for each K: K = 1, 2 and 3 against their exact means over all (pairs, triples of) latent states.

    A mean leaves 5.5 standard errors with probability 4e-8: 12 of them, 5e-7.
    """
    model = tiny_model(**model, seed=3)
    judge = Enumerated(model, IMAGES[0])
    repeats = 3000
    x = torch.from_numpy(IMAGES[:1]).expand(repeats, -1)
    expected, w, q = [], np.exp(judge.log_weight - judge.log_marginal), judge.q
    for k in (1, 2, 3):
        mean_weight, prob = w, q
        for _ in range(k - 1):
            mean_weight = np.add.outer(mean_weight, w)
            prob = np.multiply.outer(prob, q)
        exact = judge.log_marginal + (prob * np.log(mean_weight / k)).sum()
        draws = likelihood(model, x, k, noise(k)).log_marginal.numpy()
        assert abs(draws.mean() - exact) < 5.5 * draws.std() / np.sqrt(repeats)
        expected.append(exact)
    gaps = np.diff([*expected, judge.log_marginal])
    assert (gaps > 0).all()
    # Many samples come nearer still: from K = 3 to K = 100 the mean rises, by far more than its error.
    many = likelihood(model, x[:300], 100, noise(4)).log_marginal.numpy()
    assert expected[-1] < many.mean() - 5.5 * many.std() / np.sqrt(300)
    assert many.mean() < judge.log_marginal + 5.5 * many.std() / np.sqrt(300)


@pytest.mark.parametrize("model", MODELS)
def test_the_elbo_never_exceeds_the_bound_of_the_same_samples(model):
    model = tiny_model(**model)
    for k in (1, 2, 17):
        result = likelihood(model, torch.from_numpy(IMAGES), k, noise(5))
        gap = result.log_marginal - result.log_weight
        assert (gap > -1e-12).all()
        assert (gap.abs() < 1e-12).all() if k == 1 else gap.sum() > 1e-3


def test_weights_of_a_single_sample_are_those_of_its_state():
    """Every w the function returns for K = 1 belongs to one of the enumerated states, with its reconstruction."""
    model = tiny_model(n_latents=4, n_groups=2)
    judge = Enumerated(model, IMAGES[1])
    result = likelihood(model, torch.from_numpy(IMAGES[1:2]).expand(200, -1), 1, noise(6))
    pairs = np.stack([judge.log_weight, judge.reconstruction], axis=1)
    ours = np.stack([result.log_weight.numpy(), result.reconstruction.numpy()], axis=1)
    assert (np.abs(ours[:, None] - pairs).max(axis=2).min(axis=1) < 1e-12).all()


@pytest.mark.parametrize("n_groups", [1, 2])
def test_a_uniform_draw_of_exactly_zero_does_not_pick_the_impossible(monkeypatch, n_groups):
    """torch.rand returns 0 once in 2^24 draws; z = 0 where q(z = 0) = e^-40 would then weigh e^40 too much."""
    model = DiscreteVAE(5, 4, n_groups, ()).eval()
    x = torch.from_numpy(IMAGES).float()
    for bias in (40.0, -40.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            for encoder in model.encoders:
                encoder[-1].bias.fill_(bias)
        for value in (0.0, 1 - 2**-24):  # the two ends of what torch.rand returns
            monkeypatch.setattr(torch, "rand", lambda shape, value=value, **_: torch.full(shape, value))
            result = likelihood(model, x, 2, noise(0))
            # A uniform prior and decoder, and a posterior that is certain: w is p(x|z) alone.
            np.testing.assert_allclose(result.log_weight.numpy(), -5 * np.log(2), rtol=1e-6)
            np.testing.assert_allclose(result.log_marginal.numpy(), -5 * np.log(2), rtol=1e-6)


def test_likelihood_wants_the_evaluation_mode():
    model = tiny_model(n_latents=4, n_groups=2)
    with pytest.raises(AssertionError, match="running averages"):
        likelihood(model.train(), torch.from_numpy(IMAGES), 2, noise(0))


def test_all_images_are_the_batches_one_after_the_other(monkeypatch):
    monkeypatch.setattr(DiscreteVAE, "images_at_a_time", lambda self, n_importance: 4)
    model = tiny_model(n_latents=4, n_groups=2, hidden=(3,)).float()
    images = torch.randint(0, 2, (11, 5), dtype=torch.uint8, generator=noise(7))
    heard = []
    together = likelihood_of_all(model, images, 6, 8, "test", advance=heard.append)
    assert heard == [4, 4, 3]
    parts = [
        likelihood(model, images[rows].float(), 6, generator(images.device, 8, f"test {index}"))
        for index, rows in enumerate((slice(0, 4), slice(4, 8), slice(8, 11)))
    ]
    for name in ("log_marginal", "log_weight", "reconstruction"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(part, name) for part in parts]))
        assert torch.equal(getattr(Likelihood.concatenate(parts), name), getattr(together, name))
    assert not together.log_marginal.requires_grad


def test_posterior_means_by_enumeration():
    """4,000 draws of the first group; means beyond 5.5 exact standard errors with probability 4e-8 each, 2e-7 in all.

    The first group's means involve no draw.
    """
    model = tiny_model(n_latents=6, n_groups=2)
    judge = Enumerated(model, IMAGES[2])
    images = torch.from_numpy(IMAGES[2:]).to(torch.uint8).expand(4000, -1)
    # posterior_means feeds float32 images; the model of this test is float64.
    means = posterior_means(model.float(), images, noise(9), batch_size=1500).double().numpy()
    assert means.shape == (4000, 6)
    expected = sigmoid(judge.logit_q)
    np.testing.assert_allclose(means[:, :3], np.broadcast_to(expected[0, :3], (4000, 3)), rtol=1e-5)
    for unit in range(3, 6):
        error = judge.spread(expected[:, unit]) / np.sqrt(4000)
        assert abs(means[:, unit].mean() - judge.mean(expected[:, unit])) < 5.5 * error
