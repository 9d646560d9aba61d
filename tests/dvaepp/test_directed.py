"""Directed priors against the reference; the objective's gradient against integrals done another way."""

import numpy as np
import pytest
import torch
from scipy.special import roots_legendre
from torch.nn.functional import softplus

import reference.bernoulli
import reference.directed
import reference.smoothing
from dvaepp.directed import DirectedPrior, concrete_kl, joint_kl, marginal_kl
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.objective import directed_terms, log_partition_surrogate, spike_nu, terms
from dvaepp.smoothing import create

LOGITS = np.array([-90.0, -20.0, -3.0, -1e-3, 0.0, 1e-9, 0.5, 4.0, 33.0, 100.0])
DTYPES = {torch.float32: 4e-7, torch.float64: 1e-13}


def grid(*axes, dtype=torch.float64):
    return (torch.tensor(x.ravel(), dtype=dtype) for x in np.meshgrid(*axes, indexing="ij"))


def random_model(n_latents, n_groups, hidden=(3,), n_pixels=3, directed=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = DiscreteVAE(n_pixels, n_latents, n_groups, hidden, False, directed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.8, generator=generator)
        model.train_mean.uniform_(0.2, 0.8, generator=generator)
    return model


# ---- the divergences -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_joint_kl_is_the_references(dtype):
    logit_q, logit_p = grid(LOGITS, LOGITS, dtype=dtype)
    logit_q.requires_grad_()
    logit_p.requires_grad_()
    ours = joint_kl(logit_q, logit_p)
    q, p = logit_q.detach().double().numpy(), logit_p.detach().double().numpy()
    expected = reference.bernoulli.kl(q, p)
    # What float64 loses of numbers of the logits' size is absolute; a float32 result is rounded from float64.
    slack = 4 * np.finfo(float).eps * (1 + np.abs(q) + np.abs(p))
    np.testing.assert_array_less(np.abs(ours.detach().numpy() - expected), DTYPES[dtype] * expected + slack)
    upstream = torch.linspace(-2, 3, len(ours), dtype=dtype)
    by_q, by_p = torch.autograd.grad(ours, (logit_q, logit_p), upstream)
    wanted = reference.directed.joint_kl_gradient(q[:, None], p[:, None])
    scale = upstream.double().numpy()
    tolerance = {"rtol": 20 * DTYPES[dtype], "atol": 20 * torch.finfo(dtype).eps}
    np.testing.assert_allclose(by_q.numpy(), scale * wanted.dkl_dlogit_q[:, 0], **tolerance)
    np.testing.assert_allclose(by_p.numpy(), scale * wanted.dkl_dlogit_p[:, 0], **tolerance)


@pytest.mark.parametrize("kind", ["exponential", "logistic", "power", "gaussian", "uniform-exponential"])
def test_marginal_kl_is_the_references(kind):
    judge = {
        "exponential": reference.smoothing.OverlappingExponential,
        "logistic": reference.smoothing.OverlappingLogistic,
        "power": reference.smoothing.PowerFunction,
        "gaussian": reference.smoothing.Gaussian,
        "uniform-exponential": reference.smoothing.UniformExponential,
    }[kind](7.0)
    zeta, logit_q, logit_p = grid(np.array([0.01, 0.2, 0.5, 0.7, 0.99]), LOGITS[1:-1], LOGITS[1:-1])
    inputs = [x.requires_grad_() for x in (zeta, logit_q, logit_p)]
    ours = marginal_kl(create(kind, 7.0), *inputs)
    arrays = [x.detach().numpy()[:, None] for x in inputs]
    np.testing.assert_allclose(ours.detach().numpy(), reference.directed.marginal_kl(judge, *arrays), atol=1e-13)
    by_zeta, by_q, by_p = torch.autograd.grad(ours.sum(), inputs)
    wanted = reference.directed.marginal_kl_gradient(judge, *arrays)
    np.testing.assert_allclose(by_q.numpy(), wanted.dkl_dlogit_q[:, 0], atol=1e-14)
    np.testing.assert_allclose(by_p.numpy(), wanted.dkl_dlogit_p[:, 0], atol=1e-14)
    step = 1e-6
    ratio = (judge.log_ratio(arrays[0] + step) - judge.log_ratio(arrays[0] - step)) / (2 * step)
    np.testing.assert_allclose(by_zeta.numpy(), (wanted.dkl_dlog_ratio * ratio)[:, 0], rtol=1e-6, atol=1e-9)


def test_marginal_kl_where_zeta_decides_the_unit():
    # the densities of the power function at 0 and 1 are infinite: what is left is the ratio of q and p, or of 1 - these
    zeta, logit_q, logit_p = (
        x.requires_grad_() for x in grid(np.array([0.0, 1e-300, 1.0]), LOGITS[1:-1], LOGITS[1:-1])
    )
    ours = marginal_kl(create("power", 7.0), zeta, logit_q, logit_p)
    sides = (torch.where(zeta == 1, logit, -logit) for logit in (logit_q.detach(), logit_p.detach()))
    wanted = [-np.logaddexp(0, -side.detach().numpy()) for side in sides]
    np.testing.assert_allclose(ours.detach().numpy(), wanted[0] - wanted[1], rtol=1e-14, atol=1e-13)
    gradients = torch.autograd.grad(ours.sum(), (zeta, logit_q, logit_p))
    assert all(gradient.isfinite().all() for gradient in gradients)
    z, q, p = (zeta == 1).double(), logit_q.detach().sigmoid(), logit_p.detach().sigmoid()
    torch.testing.assert_close(gradients[1], z - q, rtol=0, atol=1e-14)
    torch.testing.assert_close(gradients[2], p - z, rtol=0, atol=1e-14)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
def test_concrete_kl_is_the_ratio_of_the_references_densities(temperature):
    rho, logit_q, logit_p = grid(np.array([1e-3, 0.3, 0.5, 0.9]), LOGITS[3:-2], LOGITS[3:-2])
    judge = reference.smoothing.BinaryConcrete(temperature)
    zeta = judge.inverse_cdf(rho.numpy(), logit_q.numpy())
    expected = judge.log_prob(zeta, logit_q.numpy()) - judge.log_prob(zeta, logit_p.numpy())
    ours = concrete_kl(rho, logit_q, logit_p)
    near = (zeta > 1e-4) & (zeta < 1 - 1e-4)  # elsewhere zeta has lost what distinguishes it from an end
    assert near.sum() > 50
    np.testing.assert_allclose(ours.numpy()[near], expected[near], rtol=1e-9, atol=1e-9)


def test_concrete_kl_is_finite_where_zeta_rounds_to_an_end():
    rho = torch.tensor([2.0**-25, 0.5, 1 - 2.0**-24], requires_grad=True)
    logit_q = torch.tensor([-60.0, 90.0, 60.0], requires_grad=True)
    value = concrete_kl(rho, logit_q, torch.tensor([70.0, -80.0, 3.0]))
    assert value.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value.sum(), (rho, logit_q)))


@pytest.mark.parametrize("kind", ["exponential", "logistic"])
def test_the_marginal_kl_is_the_smaller_one_on_average(kind):
    # a theorem (appendix D): by quadrature over the noise, so that chance has no part in it
    nodes, weights = roots_legendre(400)
    rho, weight = torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)
    for logit_q, logit_p in ((1.0, -1.0), (0.3, 2.0), (-4.0, 0.0)):
        smoothing = create(kind, 6.0)
        q, p = torch.full_like(rho, logit_q), torch.full_like(rho, logit_p)
        zeta = smoothing.inverse_cdf(rho, q)
        marginal = float(weight @ marginal_kl(smoothing, zeta, q, p))
        joint = float(joint_kl(q[0], p[0]))
        assert 0 < marginal < joint


# ---- the prior -------------------------------------------------------------------------------------------------------


def test_the_prior_sums_to_one_over_all_states():
    model = random_model(6, 3)
    states = torch.tensor(np.indices((2,) * 6).reshape(6, -1).T.copy(), dtype=torch.float64)
    assert (-model.energy(states)).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_samples_of_the_prior_have_its_probabilities():
    model = random_model(4, 2)
    n = 40_000
    rho = torch.rand(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = model.prior.sample(rho)
    states = torch.tensor(np.indices((2,) * 4).reshape(4, -1).T.copy(), dtype=torch.float64)
    expected = (-model.energy(states)).exp().detach().numpy()
    counts = np.bincount((drawn @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long().numpy(), minlength=16)
    # chi-squared with 15 degrees of freedom: above 60 once in 2 million
    assert ((counts - n * expected) ** 2 / (n * expected)).sum() < 60


def test_one_group_is_a_learned_factorial_prior():
    prior = DirectedPrior([slice(0, 5)], (4,))
    assert [name for name, _ in prior.named_parameters()] == ["first"]
    assert prior.all_logits([torch.ones(3, 5)]).shape == (3, 5)


# ---- the objective ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marginal", [False, True])
@pytest.mark.parametrize("n_groups", [1, 2, 4])
def test_directed_terms_are_the_references(marginal, n_groups):
    model = random_model(4, n_groups)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(5, 3, generator=generator, dtype=torch.float64).round()
    rho = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    smoothing, judge = create("exponential", 6.0), reference.smoothing.OverlappingExponential(6.0)
    found = directed_terms(model, x, rho, smoothing, marginal)
    zeta, logit_q = (t.detach().numpy() for t in model.smoothed_posterior(x, rho, smoothing))
    logit_p = model.prior.all_logits([torch.tensor(zeta[:, group]) for group in model.groups]).detach().numpy()
    if marginal:
        kl = reference.directed.marginal_kl(judge, zeta, logit_q, logit_p)
    else:
        kl = reference.directed.joint_kl(logit_q, logit_p)
    assert (found.cross_entropy - found.entropy).item() == pytest.approx(kl.mean(), rel=1e-12)
    log_likelihood = reference.bernoulli.log_prob(x.numpy(), model.decode(torch.tensor(zeta)).detach().numpy())
    assert found.log_likelihood.item() == pytest.approx(log_likelihood.sum(1).mean(), rel=1e-12)
    assert found.loss(0.3).item() == pytest.approx(0.3 * kl.mean() - log_likelihood.sum(1).mean(), rel=1e-12)


@pytest.mark.parametrize("marginal", [False, True])
@pytest.mark.parametrize("kind", ["exponential", "logistic", "concrete"])
def test_the_gradient_is_that_of_the_value(kind, marginal):
    model = random_model(4, 2)
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(3, 3, generator=generator, dtype=torch.float64).round()
    rho = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    smoothing = create(kind, 3.0)

    def loss():
        return directed_terms(model, x, rho, smoothing, marginal).loss(0.7)

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in model.parameters()]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for parameter, along in zip(model.parameters(), direction, strict=True):
                parameter += step * along
        values.append(float(loss()))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_rolfes_gradient_in_the_model_is_that_of_the_exact_loss():
    # Two units in two groups. The exact loss is a sum over z1 of q(z1) times an integral over a smooth branch, done by
    # quadrature and differentiated by autograd: it knows nothing of steps. The estimator is averaged over the same
    # nodes.
    model = random_model(2, 2, directed=False, seed=4)
    with torch.no_grad():
        model.prior.W.fill_(1.7)
    smoothing, beta = create("spike-exponential", 3.0), 3.0
    x = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    z1, z2 = torch.tensor([[1.0], [0.0]]).double(), torch.tensor([[1.0], [1.0]]).double()
    nodes, weights = (torch.tensor(a) for a in roots_legendre(60))
    t, weight = (nodes + 1) / 2, weights / 2

    def branch(z, u):
        """zeta of a unit whose noise is the fraction u of the way through the noises that give z."""
        return torch.log1p(torch.expm1(torch.tensor(beta).double()) * u) / beta if z else torch.zeros_like(u)

    def pair(values):
        return (part.reshape(-1) for part in torch.meshgrid(values, values, indexing="ij"))

    u1, u2 = pair(t)
    w = torch.outer(weight, weight).reshape(-1)

    def exact():
        prior = model.prior
        total = log_partition_surrogate(prior, z1, z2)
        rows = x.expand(len(u1), -1)
        logit1 = model.encode(0, x, [])[0, 0]
        for on1 in (0, 1):
            q1 = torch.sigmoid(logit1 if on1 else -logit1)
            zeta1 = branch(on1, u1)[:, None]
            logit2 = model.encode(1, rows, [zeta1])[:, 0]
            mu1, mu2 = torch.sigmoid(logit1), torch.sigmoid(logit2)
            kl = -prior.a1[0] * mu1 - prior.a2[0] * mu2 - on1 * prior.W[0, 0] * mu2
            kl = kl - sum(softplus(logit) - logit * torch.sigmoid(logit) for logit in (logit1, logit2))  # entropies
            for on2 in (0, 1):
                q2 = torch.sigmoid(logit2 if on2 else -logit2)
                pixels = model.decode(torch.cat([zeta1, branch(on2, u2)[:, None]], dim=1))
                log_likelihood = -softplus((1 - 2 * rows) * pixels).sum(1)
                total = total + (w * q1 * q2 * (kl - log_likelihood)).sum()
        return total

    wanted = torch.autograd.grad(exact(), list(model.parameters()))

    with torch.no_grad():
        p1 = torch.sigmoid(-model.encode(0, x, [])[0, 0])
    found = [torch.zeros_like(parameter) for parameter in model.parameters()]
    value = 0.0
    for on1 in (0, 1):
        rho1 = p1 + (1 - p1) * u1 if on1 else p1 * u1
        with torch.no_grad():
            zeta1 = branch(on1, u1)[:, None]
            p2 = torch.sigmoid(-model.encode(1, x.expand(len(u1), -1), [zeta1])[:, 0])
        for on2 in (0, 1):
            rho2 = p2 + (1 - p2) * u2 if on2 else p2 * u2
            rho = torch.stack([rho1, rho2], dim=1)
            density = (w * ((1 - p1) if on1 else p1) * ((1 - p2) if on2 else p2)).detach()
            loss = (density * loss_of_rows(model, x, rho, smoothing, z1, z2)).sum()
            value += float(loss)
            for total, gradient in zip(found, torch.autograd.grad(loss, list(model.parameters())), strict=True):
                total += gradient
    assert value == pytest.approx(float(exact()), rel=1e-9)
    for (name, _), ours, theirs in zip(model.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


class Rolfe(torch.nn.Module):
    """The objective as a module, to be called with other parameters than the model's."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *batch):
        return terms(self.model, *batch, rolfe=True).loss(1.0)


def loss_of_rows(model, x, rho, smoothing, z1, z2):
    """The loss of one image for each row of noise: as so many replicas of the model, which share their parameters."""
    n = len(rho)
    module = Rolfe(model)
    state = {
        name: tensor.expand(n, *tensor.shape) for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
    samples = z1.expand(n, -1, -1), z2.expand(n, -1, -1)
    return torch.func.functional_call(module, state, (x.expand(n, 1, -1), rho[:, None], smoothing, *samples))


def test_spike_nu_is_z_and_has_rolfes_derivative():
    zeta = torch.tensor([0.0, 0.3, 1.0, 0.0])
    logit_q = torch.tensor([0.5, -1.0, 2.0, -3.0], requires_grad=True)
    z = spike_nu(zeta, logit_q)
    assert z.tolist() == [0, 1, 1, 0]
    upstream = torch.tensor([2.0, 3.0, 5.0, 7.0])
    (gradient,) = torch.autograd.grad(z, logit_q, upstream)
    expected = [2 / (1 + np.exp(-0.5)), 0, 0, 7 / (1 + np.exp(3.0))]
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6)
