"""The torch twin of the smoothing: what automatic differentiation adds to the reference.

Accuracy over the whole domain is judged in ``tests/validation/test_accuracy.py``.
"""

import numpy as np
import pytest
import torch

import reference.posterior
import reference.smoothing
from dvaepp.errors import ConfigError
from dvaepp.smoothing import OverlappingExponential, nu
from tests.accelerated.test_transforms import HARD_FOR_DBETA
from validation.accuracy import mixed_errors
from validation.cases import Cases
from validation.tolerances import TRANSFORM_MIXED_ERROR

DTYPES = [torch.float32, torch.float64]


def inputs(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rho = torch.rand(shape, generator=generator, dtype=dtype)
    return rho, torch.randn(shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.1, 3.0, 10.0])
def test_values_and_derivatives_are_the_reference_s(beta, dtype):
    rho, logit_q = inputs(7, 33, dtype=dtype)
    upstream = torch.randn(7, 33, dtype=dtype, generator=torch.Generator().manual_seed(1))
    expected = reference.smoothing.OverlappingExponential(beta).inverse_cdf_with_derivatives(
        rho.numpy(), logit_q.numpy()
    )
    b = torch.tensor(beta, dtype=dtype, requires_grad=True)
    r, logit = rho.clone().requires_grad_(), logit_q.clone().requires_grad_()
    for sharpness in (b, beta):
        for tensor in (r, logit, b):
            tensor.grad = None
        zeta = OverlappingExponential(sharpness).inverse_cdf(r, logit)
        zeta.backward(upstream)
        tolerance = {"rtol": 50 * torch.finfo(dtype).eps, "atol": 0}
        np.testing.assert_allclose(zeta.detach(), expected.zeta, **tolerance)
        np.testing.assert_allclose(r.grad, upstream.numpy() * expected.dzeta_drho, **tolerance)
        np.testing.assert_allclose(logit.grad, upstream.numpy() * expected.dzeta_dlogit_q, **tolerance)
        assert zeta.dtype == r.grad.dtype == logit.grad.dtype == dtype
        if sharpness is b:
            total = (upstream.numpy() * expected.dzeta_dbeta).sum()
            scale = np.abs(upstream.numpy() * expected.dzeta_dbeta).sum()
            assert abs(b.grad.item() - total) <= 50 * torch.finfo(dtype).eps * scale


def test_the_derivative_by_the_sharpness_keeps_its_digits_where_little_is_left_of_it():
    cases = Cases(*np.array(HARD_FOR_DBETA["exponential"]).T)
    beta = torch.tensor(cases.beta, requires_grad=True)
    zeta = OverlappingExponential(beta).inverse_cdf(torch.tensor(cases.rho), torch.tensor(cases.logit_q))
    zeta.sum().backward()
    worst = mixed_errors({"dzeta_dbeta": beta.grad.numpy()}, cases.rho, cases.logit_q, cases.beta)["dzeta_dbeta"]
    assert worst.mixed_error <= TRANSFORM_MIXED_ERROR, worst


@pytest.mark.parametrize("beta", [0.2, 2.0, 9.0])
def test_gradcheck(beta):
    generator = torch.Generator().manual_seed(3)
    rho = (0.1 + 0.8 * torch.rand(5, 4, dtype=torch.float64, generator=generator)).requires_grad_()
    logit_q = torch.randn(4, dtype=torch.float64, generator=generator, requires_grad=True)
    b = torch.tensor([[beta], [beta + 1], [2 * beta], [0.5], [3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, x, s: OverlappingExponential(s).inverse_cdf(r, x), (rho, logit_q, b))
    assert torch.autograd.gradcheck(lambda r, x: OverlappingExponential(beta).inverse_cdf(r, x), (rho, logit_q))
    zeta = rho.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y, s: nu(OverlappingExponential(s), x, y), (zeta, logit_q, b))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5, 1), (3, 5, 4)])
def test_gradients_have_the_shapes_of_their_inputs(shape):
    # beta of every shape, also one larger than the other inputs together
    rho, logit_q = inputs(5, 1)
    rho, logit_q = rho.requires_grad_(), logit_q[:, 0][:4].clone().requires_grad_()
    beta = torch.full(shape, 4.0, dtype=torch.float64, requires_grad=True)
    zeta = OverlappingExponential(beta).inverse_cdf(rho, logit_q)
    assert zeta.shape == torch.broadcast_shapes((5, 4), shape)
    upstream = torch.arange(1.0, zeta.numel() + 1, dtype=torch.float64).reshape(zeta.shape)
    grads = torch.autograd.grad(zeta, (rho, logit_q, beta), upstream)
    wide = [x.detach().expand(zeta.shape).clone().requires_grad_() for x in (rho, logit_q, beta)]
    wide_zeta = OverlappingExponential(wide[2]).inverse_cdf(wide[0], wide[1])
    wide_grads = torch.autograd.grad(wide_zeta, wide, upstream)
    for grad, wide_grad, tensor in zip(grads, wide_grads, (rho, logit_q, beta), strict=True):
        assert grad.shape == tensor.shape
        torch.testing.assert_close(grad, wide_grad.sum_to_size(tensor.shape), rtol=1e-13, atol=0)


def test_only_what_requires_a_gradient_gets_one():
    rho, logit_q = inputs(6)
    logit_q.requires_grad_()
    beta = torch.tensor(5.0, dtype=torch.float64)
    OverlappingExponential(beta).inverse_cdf(rho, logit_q).sum().backward()
    assert logit_q.grad is not None
    assert rho.grad is None
    assert beta.grad is None
    assert not OverlappingExponential(beta).inverse_cdf(rho, logit_q.detach()).requires_grad


def test_mixed_dtypes_promote_and_gradients_keep_their_own():
    rho, logit_q = inputs(6, dtype=torch.float32)
    logit_q = logit_q.double().requires_grad_()
    rho.requires_grad_()
    zeta = OverlappingExponential(torch.tensor(3.0)).inverse_cdf(rho, logit_q)
    zeta.sum().backward()
    assert (zeta.dtype, rho.grad.dtype, logit_q.grad.dtype) == (torch.float64, torch.float32, torch.float64)


def test_a_number_for_beta_is_the_nearest_of_the_inputs_dtype():
    rho, logit_q = inputs(50, dtype=torch.float32)
    number = OverlappingExponential(0.1).inverse_cdf(rho, logit_q)
    assert torch.equal(number, OverlappingExponential(torch.tensor(0.1)).inverse_cdf(rho, logit_q))


def test_layout_does_not_matter_and_inputs_are_left_alone():
    rho, logit_q = inputs(8, 6)
    strided = rho.t()[::2]
    upside = logit_q.t()[::2]
    before = strided.clone(), upside.clone()
    zeta = OverlappingExponential(10.0).inverse_cdf(strided, upside)
    assert torch.equal(zeta, OverlappingExponential(10.0).inverse_cdf(before[0].clone(), before[1].clone()))
    assert torch.equal(strided, before[0])
    assert torch.equal(upside, before[1])


def test_empty_input():
    rho, logit_q = inputs(0, 4)
    logit_q.requires_grad_()
    beta = torch.tensor(3.0, requires_grad=True)
    zeta = OverlappingExponential(beta).inverse_cdf(rho, logit_q)
    zeta.sum().backward()
    assert zeta.shape == logit_q.grad.shape == (0, 4)
    assert beta.grad == 0


@pytest.mark.parametrize("beta", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_nan_propagates_to_its_own_entry_only(beta, as_tensor):
    rho = torch.tensor([0.3, torch.nan, 0.3, 0.6])
    logit_q = torch.tensor([torch.nan, 0.5, 0.5, 200.0], requires_grad=True)
    zeta = OverlappingExponential(torch.tensor(beta) if as_tensor else beta).inverse_cdf(rho, logit_q)
    assert zeta.isnan().tolist() == [True, True, False, False]
    zeta.sum().backward()
    assert logit_q.grad.isnan().tolist() == [True, True, False, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_derivatives_on_the_plateau_are_huge_but_finite(as_tensor, dtype):
    beta = torch.tensor(1000.0, dtype=dtype) if as_tensor else 1000.0
    rho = torch.tensor([0.5], dtype=dtype, requires_grad=True)
    logit_q = torch.zeros(1, dtype=dtype, requires_grad=True)
    zeta = OverlappingExponential(beta).inverse_cdf(rho, logit_q)
    assert zeta.item() == 0.5
    for grad in torch.autograd.grad(zeta, (rho, logit_q), torch.ones(1, dtype=dtype), retain_graph=True):
        assert grad.isfinite()
        assert grad > 1e38
    for grad in torch.autograd.grad(zeta, (rho, logit_q), torch.zeros(1, dtype=dtype)):
        assert grad == 0


def test_double_backward_is_refused():
    rho, logit_q = inputs(3)
    logit_q.requires_grad_()
    for loss in (
        torch.sum,
        lambda zeta: (zeta**2).sum(),
    ):  # an upstream gradient that is a constant, and one that is not
        zeta = OverlappingExponential(10.0).inverse_cdf(rho, logit_q)
        (grad,) = torch.autograd.grad(loss(zeta), logit_q, create_graph=True)
        with pytest.raises(RuntimeError, match="inverse_cdf is differentiable once"):
            (grad.sum() + logit_q.sum()).backward()


@pytest.mark.parametrize("beta", [1e-300, 1e-17, 1e-16, 3e-16, 1e-12])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_flat_density_gives_the_noise_back(beta, as_tensor):
    rho, logit_q = torch.linspace(0.05, 0.95, 7, dtype=torch.float64), torch.tensor([[-2.0], [0.1], [3.0]]).double()
    zeta = OverlappingExponential(torch.tensor(beta, dtype=rho.dtype) if as_tensor else beta).inverse_cdf(rho, logit_q)
    np.testing.assert_allclose(zeta, rho.expand(3, 7), rtol=0, atol=beta + 2e-16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_dtypes_are_refused(dtype):
    good, bad = torch.zeros(2), torch.zeros(2).to(dtype)
    with pytest.raises(TypeError, match=f"rho must be float32 or float64; got {dtype}"):
        OverlappingExponential(10.0).inverse_cdf(bad, good)
    with pytest.raises(TypeError, match=f"logit_q must be float32 or float64; got {dtype}"):
        OverlappingExponential(10.0).inverse_cdf(good, bad)
    with pytest.raises(TypeError, match=f"beta must be float32 or float64; got {dtype}"):
        OverlappingExponential(torch.ones(2).to(dtype)).inverse_cdf(good, good)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("inf"), float("nan")])
def test_a_number_for_beta_must_be_positive_and_finite(beta):
    with pytest.raises(ConfigError, match=f"beta must be positive and finite; got {beta}"):
        OverlappingExponential(beta)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nu_and_log_ratio_are_the_reference_s(dtype):
    zeta, logit_q = inputs(40, dtype=dtype)
    smoothing, expected = OverlappingExponential(6.0), reference.smoothing.OverlappingExponential(6.0)
    tolerance = {"rtol": 30 * torch.finfo(dtype).eps}
    np.testing.assert_allclose(
        nu(smoothing, zeta, logit_q), reference.posterior.nu(expected, zeta.numpy(), logit_q.numpy()), **tolerance
    )
    np.testing.assert_allclose(
        smoothing.log_ratio(zeta), expected.log_ratio(zeta.numpy()), **tolerance, atol=6 * torch.finfo(dtype).eps
    )
