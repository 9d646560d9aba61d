"""The objective's terms against the reference, its gradients against finite differences and exact integrals."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy

import reference.bernoulli
import reference.boltzmann
import reference.boltzmann_kl
import reference.posterior
import reference.smoothing
from dvaepp.boltzmann import RBM, cross_entropy
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.objective import Terms, log_partition_surrogate, terms
from dvaepp.smoothing import OverlappingExponential
from reference.vocabulary import RBM as ReferenceRBM

BETA = 6.0
SMOOTHING = OverlappingExponential(BETA)


def random_model(n_latents, n_groups, hidden, seed=0, n_pixels=4):
    generator = torch.Generator().manual_seed(seed)
    model = DiscreteVAE(n_pixels, n_latents, n_groups, hidden).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7, generator=generator)
        model.train_mean.uniform_(0.2, 0.8, generator=generator)
    return model


def random_batch(model, n_images, seed=1):
    """Images, noise, and five prior states, fixed once and for all."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    x = uniform(n_images, len(model.train_mean)).round()
    return x, uniform(n_images, model.n_latents), uniform(5, model.prior.n1).round(), uniform(5, model.prior.n2).round()


def as_reference(prior):
    return ReferenceRBM(*(parameter.detach().numpy() for parameter in (prior.a1, prior.a2, prior.W)))


@pytest.mark.parametrize(("n_latents", "n_groups"), [(4, 1), (4, 2), (6, 3), (8, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_terms_are_the_references(n_latents, n_groups, training):
    model = random_model(n_latents, n_groups, (3,)).train(training)
    x, rho, z1, z2 = random_batch(model, 7)
    ours = terms(model, x, rho, SMOOTHING, z1, z2)

    zeta, logit_q = (t.detach().numpy() for t in model.smoothed_posterior(x, rho, SMOOTHING))
    rbm, smoothing = as_reference(model.prior), reference.smoothing.OverlappingExponential(BETA)
    np.testing.assert_allclose(zeta, smoothing.inverse_cdf(rho.numpy(), logit_q), rtol=1e-12)
    nu = reference.posterior.nu(smoothing, zeta, logit_q)
    entropy = reference.bernoulli.entropy(logit_q).sum(axis=1).mean()
    kl = reference.boltzmann_kl.kl(rbm, logit_q, nu, n_groups, log_partition=1.25).mean()
    logits = model.decode(torch.from_numpy(zeta)).detach().numpy()
    log_likelihood = reference.bernoulli.log_prob(x.numpy(), logits).sum(axis=1).mean()
    surrogate = -reference.boltzmann.energy(rbm, z1.numpy(), z2.numpy()).mean()

    assert ours.entropy.item() == pytest.approx(entropy, rel=1e-12)
    assert 1.25 - ours.entropy.item() + ours.cross_entropy.item() == pytest.approx(kl, rel=1e-12)
    assert ours.log_likelihood.item() == pytest.approx(log_likelihood, rel=1e-12)
    assert ours.log_partition_surrogate.item() == pytest.approx(surrogate, rel=1e-12)
    expected = 0.3 * (kl - 1.25 + surrogate) - log_likelihood
    assert ours.loss(0.3).item() == pytest.approx(expected, rel=1e-12)


def test_terms_meet_by_hand():
    one = Terms(*(torch.tensor(value) for value in (-80.0, 10.0, 25.0, 40.0)))
    # KL = 40 - 10 + 25 = 55
    assert one.loss(1.0).item() == 135
    assert one.loss(0.0).item() == 80
    assert one.loss(0.5).item() == 107.5
    assert {name: value.item() for name, value in one.named().items()} == {
        "log_likelihood": -80,
        "entropy": 10,
        "cross_entropy": 25,
        "log_partition_surrogate": 40,
    }


@pytest.fixture
def prior():
    return random_model(6, 2, ()).prior


def gradients(value, module):
    return [g.numpy() for g in torch.autograd.grad(value, [module.a1, module.a2, module.W])]


def test_the_surrogates_gradient_by_hand():
    prior = RBM(2, 1).double()
    z1 = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    z2 = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    surrogate = log_partition_surrogate(prior, z1, z2)
    a1, a2, W = gradients(surrogate, prior)
    assert (a1.tolist(), a2.tolist(), W.tolist()) == ([1.0, 0.5], [0.5], [[0.5], [0.0]])
    log_partition_surrogate(prior, z1, z2).backward()
    assert z1.grad is None  # samples are held fixed


def test_the_surrogates_gradient_is_minus_the_mean_of_the_energys(prior):
    generator = torch.Generator().manual_seed(2)
    z1, z2 = (torch.rand(9, 3, generator=generator, dtype=torch.float64).round() for _ in range(2))
    ours = gradients(log_partition_surrogate(prior, z1, z2), prior)
    rbm, step = as_reference(prior), 1e-4  # the energy is linear in its parameters: no error from the step

    def mean_energy(name, index, change):
        moved = {key: getattr(rbm, key).copy() for key in ("a1", "a2", "W")}
        moved[name][index] += change
        return reference.boltzmann.energy(ReferenceRBM(**moved), z1.numpy(), z2.numpy()).mean()

    for name, gradient in zip(("a1", "a2", "W"), ours, strict=True):
        for index in np.ndindex(gradient.shape):
            slope = (mean_energy(name, index, step) - mean_energy(name, index, -step)) / (2 * step)
            assert gradient[index] == pytest.approx(-slope, abs=1e-10)


def test_over_the_enumerated_prior_the_surrogate_has_the_gradient_of_log_partition(prior):
    rbm = as_reference(prior)
    states = np.array(list(itertools.product([0, 1], repeat=6)), dtype=float)
    probs = np.exp(
        -reference.boltzmann.energy(rbm, states[:, :3], states[:, 3:]) - reference.boltzmann.log_partition(rbm)
    )
    assert probs.sum() == pytest.approx(1, abs=1e-12)
    expected = [np.zeros(3), np.zeros(3), np.zeros((3, 3))]
    for state, prob in zip(torch.from_numpy(states), probs, strict=True):
        alone = log_partition_surrogate(prior, state[None, :3], state[None, 3:])
        for total, gradient in zip(expected, gradients(alone, prior), strict=True):
            total += prob * gradient
    for ours, exact in zip(expected, reference.boltzmann.marginals(rbm), strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-12)


GRADIENT_CASES = [
    pytest.param(4, 1, (), id="1 group, linear"),
    pytest.param(4, 2, (), id="2 groups, linear"),
    pytest.param(4, 1, (3,), id="1 group, hidden"),
    pytest.param(4, 2, (3, 2), id="2 groups, hidden"),
    pytest.param(6, 3, (3,), id="3 groups, hidden"),
    pytest.param(4, 4, (2,), id="4 groups, hidden"),
]


@pytest.mark.parametrize(("n_latents", "n_groups", "hidden"), GRADIENT_CASES)
def test_the_losss_gradient_by_finite_differences(n_latents, n_groups, hidden):
    """Every entry of every named parameter, batch normalisation in training mode, all noise fixed."""
    model = random_model(n_latents, n_groups, hidden, seed=4).train()
    x, rho, z1, z2 = random_batch(model, 6, seed=5)

    def loss():
        return terms(model, x, rho, SMOOTHING, z1, z2).loss(0.7)

    loss().backward()
    step = 1e-5  # error step**2 times a third derivative of order 10; rounding 1e-15 times the loss over the step
    names = set()
    for name, parameter in model.named_parameters():
        flat, largest = parameter.detach().view(-1), 0.0
        for i in range(flat.numel()):
            here = flat[i].item()
            flat[i] = here + step
            above = loss().item()
            flat[i] = here - step
            below = loss().item()
            flat[i] = here
            slope = (above - below) / (2 * step)
            assert parameter.grad.view(-1)[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-8), f"{name}, entry {i}"
            largest = max(largest, abs(slope))
        assert largest > 1e-4, f"{name}: nothing was tested"
        names.add(name.split(".")[0])
    assert names == {"encoders", "decoder", "prior"}


def exact_kl(a1, a2, w, b1, b2, c):
    """KL of q(z1) r(zeta|z1) q(z2|zeta) to the machine of two units, by summing over z and integrating over zeta.

    Logits: b1 of z1, b2 + c (2 zeta - 1) of z2. Written with q(z1), q(z2|zeta) and the density of zeta given z1:
    neither nu nor the inverse CDF appears.
    """
    nodes, weights = np.polynomial.legendre.leggauss(60)
    zeta, weights = (nodes + 1) / 2, weights / 2
    q2 = expit(b2 + c * (2 * zeta - 1))
    total = np.log(1 + np.exp(a1) + np.exp(a2) + np.exp(a1 + a2 + w))
    for z1, q1 in ((0, expit(-b1)), (1, expit(b1))):
        density = BETA * np.exp(-BETA * abs(zeta - z1)) / (1 - np.exp(-BETA))
        inner = np.zeros_like(zeta)
        for z2, prob2 in ((0, 1 - q2), (1, q2)):
            inner += xlogy(prob2, q1 * prob2) + prob2 * -(a1 * z1 + a2 * z2 + w * z1 * z2)
        total += q1 * (weights * density * inner).sum()
    return total


def test_the_kl_averaged_over_noise_is_the_exact_one_and_so_is_its_gradient():
    """A fine grid of rho in place of draws: no failure rate. This is where nu in place of mu is put to the test."""
    values = {"a1": 0.4, "a2": -0.7, "w": 2.5, "b1": 0.3, "b2": -0.2, "c": 1.1}
    model = DiscreteVAE(1, 2, 2, ()).double()
    first, second = (encoder[-1] for encoder in model.encoders)
    named = {
        "a1": (model.prior.a1, 0),
        "a2": (model.prior.a2, 0),
        "w": (model.prior.W, (0, 0)),
        "b1": (first.bias, 0),
        "b2": (second.bias, 0),
        "c": (second.weight, (0, 1)),
    }
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, (parameter, index) in named.items():
            parameter[index] = values[name]
    n = 20_000
    rho = torch.full((n, 2), 0.5, dtype=torch.float64)
    rho[:, 0] = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2)
    result = terms(model, torch.zeros(n, 1, dtype=torch.float64), rho, SMOOTHING, states[:1, :1], states[:1, 1:])
    # log Z itself in place of the surrogate: four states.
    log_partition = torch.logsumexp(-model.prior.energy(states[:, :1], states[:, 1:]), 0)
    kl = log_partition - result.entropy + result.cross_entropy
    assert kl.item() == pytest.approx(exact_kl(**values), abs=1e-7)
    kl.backward()
    step = 1e-5
    for name, (parameter, index) in named.items():
        above, below = (exact_kl(**(values | {name: values[name] + change})) for change in (step, -step))
        assert parameter.grad[index].item() == pytest.approx((above - below) / (2 * step), abs=1e-6), name
    # Mean field in place of nu is wrong by far more than the tolerance: the judge has power.
    mu = model.smoothed_posterior(torch.zeros(n, 1, dtype=torch.float64), rho, SMOOTHING).logit_q.sigmoid()
    assert abs(cross_entropy(model.prior, mu, mu, 2).mean().item() - result.cross_entropy.item()) > 1e-2
