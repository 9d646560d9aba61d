"""The torch RBM against the NumPy reference, in both precisions, and its gradients against finite differences."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference.bernoulli
import reference.boltzmann
import reference.boltzmann_kl
from dvaepp.boltzmann import RBM, cross_entropy, entropy
from reference.vocabulary import RBM as ReferenceRBM

properties = settings(deadline=None, derandomize=True, max_examples=30)

# (N1, N2, groups): equal halves and unequal ones, groups that end at the border of the sides and that straddle it.
CUTS = [
    (3, 3, 1),
    (3, 3, 2),
    (3, 3, 3),
    (3, 3, 6),
    (6, 6, 1),
    (6, 6, 2),
    (6, 6, 3),
    (6, 6, 4),
    (4, 5, 3),
    (7, 5, 2),
    (7, 5, 4),
    (1, 11, 3),
    (1, 1, 1),
    (1, 1, 2),
]
DTYPES = [torch.float64, torch.float32]


def twins(n1, n2, scale, seed, dtype):
    """The same machine in the reference and in torch; its parameters are float32 numbers, so both hold the same."""
    rng = np.random.default_rng(seed)
    parameters = [(scale * rng.normal(size=shape)).astype(np.float32) for shape in (n1, n2, (n1, n2))]
    module = RBM(n1, n2).to(dtype)
    with torch.no_grad():
        for parameter, value in zip((module.a1, module.a2, module.W), parameters, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return ReferenceRBM(*parameters), module, rng


def uniform(rng, *shape, dtype):
    """Numbers that float32 holds exactly, as a NumPy array and as a tensor."""
    values = rng.uniform(size=shape).astype(np.float32)
    return values.astype(np.float64), torch.from_numpy(values).to(dtype)


def assert_close(ours, expected, rbm, dtype):
    """Within 16 roundings of the sum of all terms' sizes, which bounds every partial sum on the way."""
    assert ours.dtype == dtype
    size = np.abs(rbm.a1).sum() + np.abs(rbm.a2).sum() + np.abs(rbm.W).sum() + (rbm.n1 + rbm.n2)
    np.testing.assert_allclose(
        ours.detach().double().numpy(), expected, rtol=0, atol=16 * torch.finfo(dtype).eps * size
    )


def test_a_new_machine_is_uniform():
    rbm = RBM(3, 5)
    assert (rbm.n1, rbm.n2) == (3, 5)
    assert {name: tuple(p.shape) for name, p in rbm.named_parameters()} == {"a1": (3,), "a2": (5,), "W": (3, 5)}
    states = torch.eye(8)
    assert (rbm.energy(states[:, :3], states[:, 3:]) == 0).all()
    torch.testing.assert_close(
        rbm.log_marginal_z1(torch.ones(1, 3)), torch.tensor([5 * np.log(2)], dtype=torch.float32)
    )


@properties
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.integers(0, 1000),
    st.sampled_from(DTYPES),
)
def test_energy_logits_and_marginal(n1, n2, scale, seed, dtype):
    rbm, module, rng = twins(n1, n2, scale, seed, dtype)
    z1, z1_torch = uniform(rng, 4, n1, dtype=dtype)
    z2, z2_torch = uniform(rng, 4, n2, dtype=dtype)
    assert_close(module.energy(z1_torch, z2_torch), reference.boltzmann.energy(rbm, z1, z2), rbm, dtype)
    assert_close(module.logits_z2(z1_torch), reference.boltzmann.logits_z2(rbm, z1), rbm, dtype)
    assert_close(module.logits_z1(z2_torch), reference.boltzmann.logits_z1(rbm, z2), rbm, dtype)
    states = z1.round()
    ours = module.log_marginal_z1(torch.from_numpy(states).to(dtype))
    assert_close(ours, reference.boltzmann.log_marginal_z1(rbm, states), rbm, dtype)


def test_a_marginal_of_huge_logits_is_finite():
    rbm, module, _ = twins(3, 4, 5e3, 0, torch.float32)
    expected = reference.boltzmann.log_marginal_z1(rbm, np.ones((1, 3)))
    assert_close(module.log_marginal_z1(torch.ones(1, 3)), expected, rbm, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n1", "n2", "n_groups"), CUTS)
def test_cross_entropy(n1, n2, n_groups, dtype):
    for seed in range(3):
        rbm, module, rng = twins(n1, n2, 2.0, seed, dtype)
        mu, mu_torch = uniform(rng, 5, n1 + n2, dtype=dtype)
        nu, nu_torch = uniform(rng, 5, n1 + n2, dtype=dtype)
        ours = cross_entropy(module, mu_torch, nu_torch, n_groups)
        assert_close(ours, reference.boltzmann_kl.cross_entropy(rbm, mu, nu, n_groups), rbm, dtype)
        for row in range(5):
            alone = cross_entropy(module, mu_torch[row : row + 1], nu_torch[row : row + 1], n_groups)
            assert_close(alone, ours[row : row + 1].detach().double().numpy(), rbm, dtype)


def test_the_group_structure_matters():
    """The judge above has power: no two numbers of groups give the same cross-entropy."""
    _, module, rng = twins(6, 6, 2.0, 0, torch.float64)
    mu, nu = (uniform(rng, 1, 12, dtype=torch.float64)[1] for _ in range(2))
    values = [cross_entropy(module, mu, nu, groups).item() for groups in (1, 2, 3)]
    assert min(abs(a - b) for a in values for b in values if a is not b) > 1e-3
    # An even number of equal groups ends one at the border: nothing straddles, whatever the number.
    assert cross_entropy(module, mu, nu, 4).item() == cross_entropy(module, mu, nu, 2).item()


LOGITS = [0.0, 1e-3, 0.5, 1.0, 3.0, 10.0, 19.9, 20.1, 36.0, 39.9, 40.1, 88.0, 104.0, 710.0, 1e4, 1e8]


@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_and_its_gradient(dtype):
    """Both within 4 roundings of the logit and of the result, down to the subnormal numbers, and beyond."""
    sizes = np.concatenate([np.array(LOGITS), np.geomspace(1e-30, 740, 300), [1e4, np.inf]])
    logits = np.concatenate([sizes, -sizes]).astype(np.float32).astype(np.float64)
    torch_logits = torch.from_numpy(logits).to(dtype).requires_grad_()
    ours = entropy(torch_logits)
    (gradient,) = torch.autograd.grad(ours.sum(), torch_logits)
    assert ours.dtype == gradient.dtype == dtype
    info = torch.finfo(dtype)
    for logit, value, slope in zip(logits.tolist(), ours.tolist(), gradient.tolist(), strict=True):
        if np.isinf(logit):
            assert value == slope == 0
            continue
        with mpmath.workdps(60):
            a = mpmath.mpf(abs(logit))
            odds = mpmath.exp(-a)
            expected = mpmath.log1p(odds) + a * odds / (1 + odds)
            dH = -a * odds / (1 + odds) ** 2
            d2H = dH * (1 / a - mpmath.tanh(a / 2)) if a else mpmath.mpf(-1) / 4
            underflow = info.smallest_normal * info.eps
            assert abs(value - expected) <= 4 * (info.eps * (expected - a * dH) + underflow), logit
            expected_slope = mpmath.sign(logit) * dH
            assert abs(slope - expected_slope) <= 4 * (info.eps * abs(dH) + info.eps * a * abs(d2H) + underflow), logit


def test_entropy_is_differentiable_twice():
    logits = torch.linspace(-5, 5, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy, (logits,))
    assert torch.autograd.gradgradcheck(entropy, (logits,))


def test_entropy_by_hand():
    logits = torch.tensor([0.0, 1e4, -1e4], requires_grad=True)
    ours = entropy(logits)
    torch.testing.assert_close(ours, torch.tensor([np.log(2), 0.0, 0.0], dtype=torch.float32))
    ours.sum().backward()
    assert logits.grad.tolist() == [0, 0, 0]
    # One in four on: log 3 the logit, H = log 4 - (3/4) log 3.
    quarter = entropy(torch.tensor([-np.log(3)], dtype=torch.float64)).item()
    assert quarter == pytest.approx(np.log(4) - 0.75 * np.log(3), rel=1e-15)


def differentiable(n1, n2, seed=0):
    _, module, rng = twins(n1, n2, 1.0, seed, torch.float64)
    return module, (module.a1, module.a2, module.W), rng


def variable(rng, *shape):
    return uniform(rng, *shape, dtype=torch.float64)[1].requires_grad_()


def test_gradients_of_the_machine():
    # gradcheck moves its inputs in place, so the module sees the change: the functions may ignore their arguments.
    module, parameters, rng = differentiable(3, 4)
    z1, z2 = variable(rng, 2, 3), variable(rng, 2, 4)
    assert torch.autograd.gradcheck(lambda *_: module.energy(z1, z2), (*parameters, z1, z2))
    assert torch.autograd.gradcheck(lambda *_: module.logits_z2(z1), (module.a2, module.W, z1))
    assert torch.autograd.gradcheck(lambda *_: module.logits_z1(z2), (module.a1, module.W, z2))
    assert torch.autograd.gradcheck(lambda *_: module.log_marginal_z1(z1), (*parameters, z1))


@pytest.mark.parametrize(("n1", "n2", "n_groups"), [(3, 3, 2), (3, 3, 3), (4, 5, 3), (4, 4, 4)])
def test_gradients_of_the_cross_entropy(n1, n2, n_groups):
    module, parameters, rng = differentiable(n1, n2)
    mu, nu = variable(rng, 2, n1 + n2), variable(rng, 2, n1 + n2)
    assert torch.autograd.gradcheck(lambda *_: cross_entropy(module, mu, nu, n_groups), (*parameters, mu, nu))


def test_gradients_of_mean_field_and_entropy():
    module, parameters, rng = differentiable(3, 2)
    mu = variable(rng, 2, 5)
    assert torch.autograd.gradcheck(lambda *_: cross_entropy(module, mu, mu, 1), (*parameters, mu))
    logits = torch.tensor([[-30.0, -2.0, -0.1, 0.0], [0.3, 5.0, 25.0, 45.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy, (logits,))
