"""The discrete VAE's shapes, its groups' order, the binary limit, and what its networks are made of."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from dvaepp.boltzmann import RBM
from dvaepp.errors import ConfigError
from dvaepp.likelihoods import bernoulli_log_prob
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.networks.feedforward import BatchNorm, Linear, feedforward
from dvaepp.smoothing import OverlappingExponential
from reference.bernoulli import log_prob


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def random_model(n_latents=6, n_groups=2, hidden=(5,), n_pixels=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = DiscreteVAE(n_pixels, n_latents, n_groups, hidden)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7, generator=generator)
    return model.eval()


@pytest.mark.parametrize(("n_latents", "n_groups"), [(6, 1), (6, 2), (6, 3), (6, 6), (2, 1)])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_shapes(n_latents, n_groups, hidden, training):
    model = random_model(n_latents, n_groups, hidden).train(training)
    x, rho = uniform(3, 7).round(), uniform(3, n_latents, seed=1)
    for draw in (model.smoothed_posterior(x, rho, OverlappingExponential(8.0)), model.binary_posterior(x, rho)):
        assert draw.latents.shape == draw.logit_q.shape == (3, n_latents)
        assert draw.latents.dtype == draw.logit_q.dtype == torch.float32
        assert ((draw.latents >= 0) & (draw.latents <= 1)).all()
        assert model.decode(draw.latents).shape == (3, 7)
    assert set(model.binary_posterior(x, rho).latents.unique().tolist()) <= {0.0, 1.0}
    assert isinstance(model.prior, RBM)
    assert (model.prior.n1, model.prior.n2) == (n_latents // 2, n_latents // 2)
    assert len(model.encoders) == n_groups
    assert [slice_.stop - slice_.start for slice_ in model.groups] == [n_latents // n_groups] * n_groups


@pytest.mark.parametrize("smoothing", [OverlappingExponential(8.0), None])
@pytest.mark.parametrize("training", [True, False])
def test_a_later_groups_noise_never_changes_an_earlier_one(smoothing, training):
    model = random_model(6, 3, (5,)).train(training)
    x, rho = uniform(4, 7).round(), uniform(4, 6, seed=1)

    def draw(noise):
        return model.binary_posterior(x, noise) if smoothing is None else model.smoothed_posterior(x, noise, smoothing)

    before = draw(rho)
    for group in range(3):
        first = 2 * group
        other = rho.clone()
        other[:, first : first + 2] = 1 - other[:, first : first + 2]
        after = draw(other)
        # Its own logits do not see a group's noise, nor do those before; all that come after do.
        assert torch.equal(after.logit_q[:, : first + 2], before.logit_q[:, : first + 2])
        assert torch.equal(after.latents[:, :first], before.latents[:, :first])
        assert not torch.equal(after.latents[:, first : first + 2], before.latents[:, first : first + 2])
        for later in range(group + 1, 3):
            columns = slice(2 * later, 2 * later + 2)
            assert not torch.equal(after.logit_q[:, columns], before.logit_q[:, columns])


@pytest.mark.parametrize("hidden", [(), (5,)])
@pytest.mark.parametrize("n_groups", [1, 2, 3])
def test_several_draws_per_image_are_the_images_repeated(n_groups, hidden):
    model = random_model(6, n_groups, hidden)
    x, rho = uniform(4, 7).round(), uniform(12, 6, seed=2)
    together = model.binary_posterior(x, rho)
    by_hand = torch.stack([image for image in x for _ in range(3)])
    repeated = model.binary_posterior(by_hand, rho)
    assert torch.equal(together.latents, repeated.latents)
    torch.testing.assert_close(together.logit_q, repeated.logit_q)
    alone = [model.binary_posterior(x[i : i + 1], rho[3 * i : 3 * i + 3]) for i in range(4)]
    assert torch.equal(together.latents, torch.cat([draw.latents for draw in alone]))
    torch.testing.assert_close(together.logit_q, torch.cat([draw.logit_q for draw in alone]))


def test_binary_draws_have_their_probabilities():
    """40,000 draws of units that see no other: frequencies beyond 5.5 standard errors w. p. 4e-8 each, 2e-7 in all."""
    model = random_model(6, 1, ())
    x = uniform(1, 7).round()
    draw = model.binary_posterior(x, uniform(40_000, 6, seed=3))
    q = 1 / (1 + np.exp(-draw.logit_q[0].detach().double().numpy()))
    frequency = draw.latents.double().mean(0).numpy()
    assert (np.abs(frequency - q) < 5.5 * np.sqrt(q * (1 - q) / 40_000)).all()


def test_the_smoothed_posterior_tends_to_the_binary_one():
    """At beta = 1000, zeta is within log(1000) / 1000 = 0.007 of z wherever rho is 1e-3 or more away from the step."""
    smoothing = OverlappingExponential(1e3)
    model, x, rho = random_model(6, 1), uniform(500, 7).round(), uniform(500, 6, seed=4)
    smooth, binary = model.smoothed_posterior(x, rho, smoothing), model.binary_posterior(x, rho)
    assert torch.equal(smooth.logit_q, binary.logit_q)
    away = (rho - torch.sigmoid(-binary.logit_q)).abs() > 1e-3
    assert away.float().mean() > 0.99
    assert ((smooth.latents - binary.latents).abs()[away] < 0.007).all()
    # Two groups: the second sees almost the same, so its logits and, a little further from the step, its latents agree.
    model = random_model(6, 2)
    smooth, binary = model.smoothed_posterior(x, rho, smoothing), model.binary_posterior(x, rho)
    distance = (rho - torch.sigmoid(-binary.logit_q)).abs()
    clear = (distance[:, :3] > 1e-2).all(1)
    assert clear.float().mean() > 0.9
    assert ((smooth.logit_q - binary.logit_q).abs()[clear] < 0.05).all()
    away = clear[:, None] & (distance > 0.05)
    assert ((smooth.latents - binary.latents).abs()[away] < 0.007).all()


def test_networks_see_centred_images_and_latents():
    """A linear model by hand: one pixel, two latents, two groups."""
    model = DiscreteVAE(1, 2, 2, ())
    first, second = (encoder[0] for encoder in model.encoders)
    assert tuple(first.weight.shape) == (1, 1)
    assert tuple(second.weight.shape) == (1, 2)
    with torch.no_grad():
        model.train_mean.fill_(0.25)
        first.weight.fill_(2.0)
        first.bias.fill_(0.5)
        second.weight.copy_(torch.tensor([[4.0, 3.0]]))
        second.bias.fill_(-1.0)
        model.decoder[0].weight.copy_(torch.tensor([[1.0, 10.0]]))
        model.decoder[0].bias.fill_(0.125)
    # x = 1: logit 2 (1 - 0.25) + 0.5 = 2, q = 0.88, so rho = 0.9 gives z = 1 and 0.1 gives z = 0;
    # then 4 (1 - 0.25) + 3 (+1 or -1) - 1 = 5 or -1.
    draw = model.binary_posterior(torch.tensor([[1.0]]), torch.tensor([[0.9, 0.5], [0.1, 0.5]]))
    assert draw.logit_q.tolist() == [[2.0, 5.0], [2.0, -1.0]]
    assert draw.latents.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    # The decoder sees 2 zeta - 1: (1, 1), (-1, -1) and (0, -1).
    logits = model.decode(torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.5, 0.0]]))
    assert logits.flatten().tolist() == [11.125, -10.875, -9.875]


def test_initialise_sets_the_mean_and_the_decoders_first_guess():
    model = DiscreteVAE(4, 2, 1, (3,))
    assert (model.train_mean == 0.5).all()
    mean = torch.tensor([0.0, 0.25, 0.5, 1.0])
    model.initialise(mean)
    assert torch.equal(model.train_mean, mean)
    # Odds of 1/3 and 1; 0 and 1 are clipped to odds of 1/999 and 999.
    expected = torch.tensor([-np.log(999), -np.log(3), 0, np.log(999)], dtype=torch.float32)
    torch.testing.assert_close(model.decoder[-1].bias.detach(), expected, rtol=0, atol=1e-4)
    assert model.decoder[-1].bias.requires_grad
    assert "train_mean" in model.state_dict()
    assert "train_mean" not in dict(model.named_parameters())


@pytest.mark.parametrize(
    ("n_latents", "n_groups", "message"),
    [
        (5, 1, "latents must be even, one half for each side of the RBM; got 5"),
        (6, 4, "groups must divide latents; 6 latents do not make 4 equal groups"),
        (2, 3, "groups must divide latents; 2 latents do not make 3 equal groups"),
    ],
)
def test_latents_that_cannot_be_divided_are_refused(n_latents, n_groups, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        DiscreteVAE(4, n_latents, n_groups, ())


def test_a_linear_network_is_one_linear_map():
    (only,) = feedforward(3, 2)
    assert isinstance(only, nn.Linear)
    assert tuple(only.weight.shape) == (2, 3)
    assert (only.bias == 0).all()
    model = DiscreteVAE(4, 6, 2, ())
    assert not [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.Tanh))]
    assert all(len(network) == 1 for network in (*model.encoders, model.decoder))


def test_hidden_layers():
    torch.manual_seed(0)
    network = feedforward(300, 2, (200, 100))
    kinds = [Linear, BatchNorm, nn.Tanh, Linear, BatchNorm, nn.Tanh, Linear]
    assert [type(layer) for layer in network] == kinds
    assert [tuple(layer.weight.shape) for layer in network if isinstance(layer, nn.Linear)] == [
        (200, 300),
        (100, 200),
        (2, 100),
    ]
    # Normalisation would take the bias out again.
    assert network[0].bias is None
    assert network[3].bias is None
    assert (network[6].bias == 0).all()
    # Variance scaling: uniform on +-sqrt(6 / (300 + 200)) = 0.10954, of which 60,000 weights come near the ends.
    largest = network[0].weight.abs().max().item()
    assert 0.109 < largest <= 0.10955


def test_batch_normalisation_keeps_four_fifths_of_the_past():
    network = feedforward(2, 1, (1,))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]])  # mean 3, variance 4 (unbiased) or 8/3 (biased)
    norm = network[1]
    network(x)
    assert norm.running_mean.item() == pytest.approx(0.2 * 3)
    assert norm.running_var.item() == pytest.approx(0.8 * 1 + 0.2 * 4)
    network(x)
    assert norm.running_mean.item() == pytest.approx(0.8 * 0.6 + 0.6)
    # In training by the batch's own statistics, epsilon 10^-2: (1 - 3) / sqrt(8/3 + 0.01).
    assert norm(x[:, :1])[0].item() == pytest.approx(-2 / np.sqrt(8 / 3 + 0.01))
    network.eval()
    with torch.no_grad():
        norm.running_mean.fill_(2.0)
        norm.running_var.fill_(0.15)
    assert norm(x[:, :1])[1].item() == pytest.approx(1 / 0.4)


def test_bernoulli_log_prob_is_the_references():
    logits = torch.tensor([[0.0, 1.0, -3.0, 50.0, -50.0, 1e4, -1e4], [0.1, -0.1, 20.0, -20.0, 39.0, -41.0, 0.0]])
    for x in (torch.zeros(2, 7), torch.ones(2, 7), uniform(2, 7).round()):
        expected = log_prob(x.numpy(), logits.double().numpy()).sum(axis=1)
        np.testing.assert_allclose(bernoulli_log_prob(x, logits).numpy(), expected, rtol=3e-7)
        np.testing.assert_allclose(bernoulli_log_prob(x.double(), logits.double()).numpy(), expected, rtol=1e-14)
    # Certain and right: nothing; certain and wrong: the logit itself, without overflow.
    assert bernoulli_log_prob(torch.tensor([[1.0]]), torch.tensor([[1e4]])).item() == 0
    assert bernoulli_log_prob(torch.tensor([[0.0]]), torch.tensor([[1e4]])).item() == -1e4
