"""Normal variables in torch against the reference, and in float32 against multi-precision arithmetic."""

import mpmath
import numpy as np
import pytest
import torch

import reference.normal
from dvaepp.normal import kl, log_prob, sample

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def pairs(n, seed, dtype):
    """Arguments of ``kl``, from next to each other to far apart; the series' end is among them."""
    rng = np.random.default_rng(seed)
    mean_p, log_std_p = rng.normal(size=n) * rng.choice([0, 1, 30], n), rng.normal(size=n) * rng.choice([0, 1, 3], n)
    r = rng.choice([-1, 1], n) * 10 ** rng.uniform(-6, 0.7, n)
    r[:4] = 0.25, -0.25, 0.25 * (1 + EPS[dtype]), -0.25 * (1 + EPS[dtype])
    distance = np.exp(log_std_p) * rng.choice([-1, 0, 1], n) * 10 ** rng.uniform(-6, 1, n)
    log_std_p[:4] = 0
    arrays = mean_p + distance, log_std_p + r, mean_p, log_std_p
    return [torch.tensor(array, dtype=dtype, requires_grad=True) for array in arrays]


def exact(mean_q, log_std_q, mean_p, log_std_p):
    """The KL and its derivatives as fractions of variances, by mpmath."""
    variance_q, variance_p = mpmath.exp(2 * log_std_q), mpmath.exp(2 * log_std_p)
    gap, square = (mean_q - mean_p) / variance_p, (mean_q - mean_p) ** 2
    value = log_std_p - log_std_q + (variance_q + square) / (2 * variance_p) - mpmath.mpf(1) / 2
    return value, gap, variance_q / variance_p - 1, -gap, 1 - (variance_q + square) / variance_p


@pytest.mark.parametrize("dtype", EPS)
def test_kl_and_its_gradient_to_what_one_rounding_of_the_inputs_does(dtype):
    """Mixed error, relative to one rounding of the result and of each argument: at most 2 epsilon of the dtype."""
    n, inputs = 300, pairs(300, 0, dtype)
    value = kl(*inputs)
    assert value.dtype == dtype
    upstream = torch.where(torch.arange(n) % 2 == 0, 1.0, -2.0).to(dtype)  # exact factors
    gradient = [part / upstream for part in torch.autograd.grad(value, inputs, upstream)]
    worst = [0.0] * 5
    with mpmath.workdps(60):
        eps, least = mpmath.mpf(EPS[dtype]), mpmath.mpf(torch.finfo(dtype).tiny)
        for i in range(n):
            at = [mpmath.mpf(x[i].item()) for x in inputs]
            truth, moved = exact(*at), [mpmath.mpf(0)] * 5
            for j in range(4):
                values = exact(*(x * (1 + eps * (k == j)) for k, x in enumerate(at)))
                moved = [m + abs(v - t) for m, v, t in zip(moved, values, truth, strict=True)]
            for k, got in enumerate((value, *gradient)):
                error = abs(got[i].item() - truth[k]) / (eps * abs(truth[k]) + moved[k] + least)
                worst[k] = max(worst[k], float(error))
    assert max(worst) <= 2, worst


@pytest.mark.parametrize("dtype", EPS)
def test_draws_and_densities_are_the_references(dtype):
    """To 4 epsilon of the terms' sizes, each with what one rounding of the arguments does to it."""
    value, _, mean, log_std = (x.detach() for x in pairs(500, 1, dtype))
    a, m, s = (x.double().numpy() for x in (value, mean, log_std))
    wanted = reference.normal.sample(a, m, s)
    size = np.abs(m) + np.abs(wanted - m) * (1 + np.abs(s))
    np.testing.assert_array_less(np.abs(sample(value, mean, log_std).numpy() - wanted), 4 * EPS[dtype] * size + 1e-300)
    wanted = reference.normal.log_prob(a, m, s)
    u = np.abs(a - m) * np.exp(-s)
    size = u**2 * (1 + np.abs(s)) + u * (np.abs(a) + np.abs(m)) * np.exp(-s) + np.abs(s) + 1
    np.testing.assert_array_less(np.abs(log_prob(value, mean, log_std).numpy() - wanted), 4 * EPS[dtype] * size)


def test_equal_distributions_have_neither_divergence_nor_slope():
    inputs = [torch.tensor([-3.0, 0.0, 80.0], requires_grad=True) for _ in range(4)]
    value = kl(*inputs[:2], inputs[0], inputs[1])
    assert value.tolist() == [0, 0, 0]
    for part in torch.autograd.grad(kl(*inputs).sum(), inputs):
        assert part.tolist() == [0, 0, 0]


def test_arguments_broadcast_and_so_do_gradients():
    mean_q, log_std_q = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 1, 4, dtype=torch.float64)
    mean_p, log_std_p = torch.randn(4, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (mean_q, log_std_q, mean_p, log_std_p)]
    value = kl(*inputs)
    expected = reference.normal.kl(*(x.detach().numpy() for x in inputs))
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-12)
    gradients = torch.autograd.grad(value.sum(), inputs)
    full = reference.normal.kl_gradient(*(x.detach().numpy() for x in inputs))
    np.testing.assert_allclose(gradients[2].numpy(), full.dkl_dmean_p.sum((0, 1)), rtol=1e-12)
    assert gradients[3].item() == pytest.approx(full.dkl_dlog_std_p.sum(), rel=1e-12)
    assert [g.shape for g in gradients] == [x.shape for x in inputs]


def test_gradients_by_finite_differences():
    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 4, dtype=torch.float64, generator=rng).requires_grad_() for _ in range(4)]
    assert torch.autograd.gradcheck(kl, inputs)
    assert torch.autograd.gradgradcheck(kl, inputs)
    assert torch.autograd.gradcheck(log_prob, inputs[:3])
    assert torch.autograd.gradcheck(sample, inputs[:3])


def test_arguments_are_left_as_they_were():
    inputs = pairs(50, 2, torch.float32)
    before = [x.detach().clone() for x in inputs]
    kl(*inputs).sum().backward()
    assert all(torch.equal(x.detach(), y) for x, y in zip(inputs, before, strict=True))
