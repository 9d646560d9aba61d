"""The torch twins of every kind of smoothing: against the reference, against each other's derivatives, and misused.

Accuracy over the whole domain is judged by ``validation``, on which ``tests/validation`` rests.
"""

from functools import partial

import numpy as np
import pytest
import torch

import dvaepp.objective
import dvaepp.smoothing
import reference.smoothing
from dvaepp.errors import ConfigError
from dvaepp.smoothing import KINDS, BinaryConcrete, MixtureSmoothing, OverlappingExponential, create, nu
from validation import agreement
from validation.accuracy import REFERENCE, reference_forward, reference_inverse_cdf
from validation.cases import all_cases, edge_cases, random_cases, zeta_cases
from validation.torch_twin import smoothing as twin_of

DTYPES = [torch.float32, torch.float64]
gradcheck = partial(torch.autograd.gradcheck, fast_mode=True)
MIXTURES = [kind for kind in KINDS if kind != "concrete"]
SHARPNESS = {"power": 0.4, "concrete": 1.5}


def inputs(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rho = 0.05 + 0.9 * torch.rand(shape, generator=generator, dtype=dtype)
    return rho, torch.randn(shape, generator=generator, dtype=dtype)


def beyond_the_spike(kind, rho, logit_q):
    return (0.85 + rho / 8, logit_q / 4) if kind == "spike-exponential" else (rho, logit_q)


def smoothing_of(kind, beta=None):
    return create(kind, SHARPNESS.get(kind, 3.0) if beta is None else beta)


def test_configurations_spell_every_kind_of_the_reference():
    assert {kind.replace("-", "_") for kind in KINDS} == set(REFERENCE)
    assert {one.__name__ for one in KINDS.values()} == {one.__name__ for one in REFERENCE.values()}
    for kind, one in KINDS.items():
        assert one.unit_interval == REFERENCE[kind.replace("-", "_")].unit_interval


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_and_derivatives_are_the_reference_s(kind, dtype):
    edges = edge_cases(dtype)
    cases = edges[:: 11 if kind == "gaussian" else 5] + random_cases(200, dtype, 8)
    spelled = kind.replace("-", "_")

    def twin(rho, logit_q, beta):
        r, logit, b = (torch.tensor(x).requires_grad_() for x in (rho, logit_q, beta))
        smoothing = twin_of(spelled, b)
        zeta = smoothing.inverse_cdf(r, logit)
        grads = torch.autograd.grad(zeta, (r, logit, smoothing.beta), torch.ones_like(zeta))
        names = ("dzeta_drho", "dzeta_dlogit_q", "dzeta_dbeta")
        return {"zeta": zeta.detach().numpy()} | {name: grad.numpy() for name, grad in zip(names, grads, strict=True)}

    def expected(rho, logit_q, beta):
        return reference_inverse_cdf(rho, logit_q, beta, spelled)

    for finding in agreement.disagreements(agreement.Operation(expected, twin), cases):
        assert finding.error <= finding.bound, finding


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_and_cdf_are_the_reference_s(kind):
    spelled = kind.replace("-", "_")
    unit_interval = REFERENCE[spelled].unit_interval
    cases = zeta_cases(all_cases(300, "float32", 4), "float32", 5, unit_interval)
    # The power function's log-density is 0 for beta = 1/2, l = 0 and any zeta: nothing to measure an error by.
    cases = cases[cases.beta != 0.5]

    def twin(zeta, logit_q, beta):
        x, logit, b = (torch.tensor(values) for values in (zeta, logit_q, beta))
        smoothing = twin_of(spelled, b)
        return {"log_prob": smoothing.log_prob(x, logit).numpy(), "cdf": smoothing.cdf(x, logit).numpy()}

    def expected(zeta, logit_q, beta):
        return reference_forward(zeta, logit_q, beta, spelled)

    operation = agreement.Operation(expected, twin, "zeta", unit_interval)
    found = agreement.disagreements(operation, cases)
    assert {finding.output for finding in found} == {"log_prob", "cdf"}
    for finding in found:
        assert finding.error <= finding.bound, finding


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_and_cdf_of_doubles(kind):
    rho, logit_q = inputs(300, seed=6)
    smoothing = smoothing_of(kind)
    zeta = smoothing.inverse_cdf(rho, logit_q)
    expected = reference_forward(
        zeta.numpy(), logit_q.numpy(), twin_sharpness(kind, smoothing.beta), kind.replace("-", "_")
    )
    # Exponents are of the order of 10, and log-densities may be 0.
    np.testing.assert_allclose(smoothing.log_prob(zeta, logit_q), expected["log_prob"], rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(smoothing.cdf(zeta, logit_q), expected["cdf"], rtol=1e-14, atol=0)


def twin_sharpness(kind, beta):
    return np.array(1 / beta if kind == "concrete" else beta)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    rho, logit_q = beyond_the_spike(kind, *inputs(2, 3, seed=3))
    rho, logit_q = rho.requires_grad_(), logit_q.requires_grad_()
    beta = torch.tensor(SHARPNESS.get(kind, 3.0), dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda r, x, b: create(kind, b).inverse_cdf(r, x), (rho, logit_q, beta))
    zeta = smoothing_of(kind).inverse_cdf(rho, logit_q).detach().requires_grad_()
    for name in ("log_prob", "cdf"):
        assert gradcheck(lambda z, x, b, n=name: getattr(create(kind, b), n)(z, x), (zeta, logit_q, beta))
    if kind in MIXTURES and kind != "spike-exponential":
        assert gradcheck(lambda z, x, b: nu(create(kind, b), z, x), (zeta, logit_q, beta))
        assert gradcheck(lambda z, b: create(kind, b).log_ratio(z), (zeta, beta))


@pytest.mark.parametrize("kind", KINDS)
def test_cdf_inverts_the_sample_and_its_slope_is_the_density(kind):
    rho, logit_q = beyond_the_spike(kind, *inputs(40, seed=9))
    smoothing = smoothing_of(kind)
    zeta = smoothing.inverse_cdf(rho, logit_q).requires_grad_()
    cdf = smoothing.cdf(zeta, logit_q)
    torch.testing.assert_close(cdf.detach(), rho, rtol=1e-13, atol=0)
    (slope,) = torch.autograd.grad(cdf.sum(), zeta)
    torch.testing.assert_close(slope, smoothing.log_prob(zeta, logit_q).exp().detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_replicas_are_the_same_as_each_alone(kind, dtype):
    rho, logit_q = inputs(2, 5, 4, dtype=dtype)
    logit_q.requires_grad_()
    betas = torch.tensor([0.7, 3.0], dtype=dtype)
    together = create(kind, betas.view(2, 1, 1))
    zeta = together.inverse_cdf(rho, logit_q)
    (grad,) = torch.autograd.grad(zeta.sum(), logit_q)
    outputs = {"log_prob": together.log_prob(zeta, logit_q), "cdf": together.cdf(zeta, logit_q)}
    if kind in MIXTURES:
        outputs |= {"nu": together.nu(zeta, logit_q), "log_ratio": together.log_ratio(zeta)}
    for i in range(2):
        logits = logit_q[i].detach().requires_grad_()
        alone = create(kind, betas[i].item())
        sample = alone.inverse_cdf(rho[i], logits)
        assert torch.equal(zeta[i], sample)
        assert torch.equal(grad[i], torch.autograd.grad(sample.sum(), logits)[0])
        for name, output in outputs.items():
            assert output.dtype == dtype
            arguments = (sample,) if name == "log_ratio" else (sample, logits)
            tolerance = 8 * torch.finfo(dtype).eps  # a vector's exponential and a single number's may differ
            torch.testing.assert_close(output[i], getattr(alone, name)(*arguments), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [kind for kind, one in KINDS.items() if one.has_kernels()])
def test_kernels_compute_the_same_with_any_leading_axes(kind):
    rho, logit_q = inputs(2, 3, 4, dtype=torch.float32)
    logit_q = logit_q[:, :1].clone().requires_grad_()
    found = []
    for backend in ("torch", "numpy_oracle"):
        zeta = create(kind, SHARPNESS.get(kind, 3.0), backend).inverse_cdf(rho, logit_q)
        found.append((zeta, *torch.autograd.grad(zeta.sum(), logit_q)))
    assert found[0][0].shape == (2, 3, 4)
    for ours, kernels in zip(*found, strict=True):
        torch.testing.assert_close(ours, kernels, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [kind for kind, one in KINDS.items() if not one.has_kernels()])
def test_kinds_without_kernels_say_that_they_compute_in_torch(kind):
    assert create(kind, 3.0, "numba_cpu").backend == "torch"
    with pytest.raises(ConfigError, match=f"backend 'numba_cpu' has no kernel for the smoothing '{kind}'; use 'torch'"):
        KINDS[kind](3.0, "numba_cpu")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_in_its_own_entry(kind, dtype):
    rho = torch.tensor([0.9, torch.nan, 0.9, 0.95], dtype=dtype)
    logit_q = torch.tensor([torch.nan, 0.5, 0.5, 2.0], dtype=dtype, requires_grad=True)
    smoothing = smoothing_of(kind)
    zeta = smoothing.inverse_cdf(rho, logit_q)
    assert zeta.isnan().tolist() == [True, True, False, False]
    (grad,) = torch.autograd.grad(zeta.sum(), logit_q)
    assert not grad[2:].isnan().any()
    for output in (smoothing.log_prob(zeta, logit_q), smoothing.cdf(zeta, logit_q)):
        assert output.isnan().tolist() == [True, True, False, False]
    if kind in MIXTURES:
        assert nu(smoothing, zeta, logit_q).isnan().tolist() == [True, True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind):
    rho, logit_q = inputs(3)
    logit_q.requires_grad_()
    for beta in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=f"beta must be positive and finite; got {beta}"):
            create(kind, beta)
    with pytest.raises(TypeError, match=r"rho must be float32 or float64; got torch\.float16"):
        smoothing_of(kind).inverse_cdf(rho.half(), logit_q)
    (grad,) = torch.autograd.grad(smoothing_of(kind).inverse_cdf(rho, logit_q).sum(), logit_q, create_graph=True)
    with pytest.raises(RuntimeError, match="inverse_cdf is differentiable once"):
        (grad.sum() + logit_q.sum()).backward()


def test_an_unknown_kind_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown smoothing 'gausian'; did you mean 'gaussian'"):
        create("gausian", 3.0)


def test_the_spike_ends_where_z_becomes_1_and_its_nu_is_a_step():
    logit_q = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(-logit_q.detach())
    smoothing = create("spike-exponential", 5.0)
    zeta = smoothing.inverse_cdf(torch.cat([p - 1e-9, p + 1e-9]), logit_q)
    assert (zeta > 0).tolist() == [False, True]
    seen = nu(smoothing, zeta, logit_q)
    assert seen.tolist() == [0.0, 1.0]
    assert torch.autograd.grad(seen.sum(), logit_q)[0].item() == 0


def test_a_concrete_has_no_posterior_and_takes_its_temperature():
    rho, logit_q = inputs(7)
    with pytest.raises(ConfigError, match="smoothing 'concrete' has no density"):
        nu(create("concrete", 2.0), rho, logit_q)
    assert not isinstance(create("concrete", 2.0), MixtureSmoothing)
    assert torch.equal(
        create("concrete", 4.0).inverse_cdf(rho, logit_q), BinaryConcrete.at_temperature(0.25).inverse_cdf(rho, logit_q)
    )
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: BinaryConcrete.at_temperature(t).inverse_cdf(rho, logit_q), temperature)
    with pytest.raises(ConfigError, match="temperature must be positive and finite; got 0"):
        BinaryConcrete.at_temperature(0.0)


@pytest.mark.parametrize("beta", [0.5, 1.0, 10.0])
def test_a_concrete_rounded_to_an_end_has_no_nan(beta):
    zeta = torch.tensor([0.0, 1.0, 0.5], requires_grad=True)
    logit_q = torch.tensor([2.0, -1.0, 0.3], requires_grad=True)
    log_prob = create("concrete", beta).log_prob(zeta, logit_q)
    expected = reference.smoothing.BinaryConcrete(1 / beta).log_prob(zeta.detach().numpy(), logit_q.detach().numpy())
    np.testing.assert_allclose(log_prob.detach(), expected, rtol=1e-6)
    for grad in torch.autograd.grad(log_prob[torch.isfinite(log_prob)].sum(), (zeta, logit_q)):
        assert grad.isfinite().all()


def test_the_objective_calls_the_nu_of_all_kinds():
    assert dvaepp.objective.nu is dvaepp.smoothing.nu
    assert KINDS["exponential"] is OverlappingExponential
