"""Custom operators: torch's own checks, derivatives by finite differences, compilation, and the memory they work on.

The backends themselves are judged in ``tests/accelerated``. Here the oracle, and whichever is the fastest, stand for
all of them; what is tested is the way to them and back.
"""

import numpy as np
import pytest
import torch
from torch.library import opcheck

import accelerated
import reference.gibbs
from accelerated.protocol import KINDS
from dvaepp import boltzmann, bridge, partition, tempering
from dvaepp.boltzmann import RBM
from dvaepp.smoothing import OverlappingExponential
from reference.smoothing import OverlappingExponential as ReferenceExponential
from reference.vocabulary import RBM as ReferenceRBM
from reference.vocabulary import DomainError, ShapeError

OPS = torch.ops.dvaepp
DTYPES = [torch.float32, torch.float64]
FASTEST = accelerated.fastest("cpu").backend
BACKENDS = ["numpy_oracle", *([FASTEST.name] if FASTEST else [])]


def draws(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def noise(*shape, dtype=torch.float64, seed=1):
    """Uniform, and far enough from 0 and 1 for a finite difference."""
    return 0.1 + 0.8 * torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def machine(n1=5, n2=3, dtype=torch.float64, seed=2):
    module = RBM(n1, n2).to(dtype)
    with torch.no_grad():
        for parameter, values in zip(
            module.parameters(), (draws(n1), draws(n2), draws(n1, n2, seed=seed)), strict=True
        ):
            parameter.copy_(values)
    return module


def as_reference(module):
    return ReferenceRBM(*(parameter.detach().numpy() for parameter in (module.a1, module.a2, module.W)))


def chains(n=7, n1=5, n2=3, dtype=torch.float64):
    z1 = torch.rand(n, n1, dtype=dtype, generator=torch.Generator().manual_seed(3)).round()
    return z1, torch.zeros(n, n2, dtype=dtype), torch.tensor(0)


# ---- what torch asks of an operator ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_finds_no_fault_with_the_operators(dtype, backend):
    """Schema, mutation, aliasing, fake shapes, registered derivatives, tracing with symbolic shapes."""
    rho, logit_q = noise(6, 4, dtype=dtype), draws(6, 4, dtype=dtype).requires_grad_()
    beta = torch.tensor(6.0, dtype=dtype)
    opcheck(OPS.inverse_cdf.default, (rho, logit_q, beta, "exponential", True, False, False, backend))
    both = rho.clone().requires_grad_(), beta.clone().requires_grad_()
    opcheck(OPS.inverse_cdf.default, (both[0], logit_q, both[1], "exponential", True, True, True, backend))
    opcheck(OPS.entropy.default, (logit_q, backend))
    prior = machine(2, 2, dtype)
    mu, nu = (noise(6, 4, dtype=dtype, seed=seed).requires_grad_() for seed in (4, 5))
    opcheck(OPS.cross_entropy.default, (prior.a1, prior.a2, prior.W, mu, nu, 2, backend))
    gradients = (prior.a1, prior.a2, prior.W, mu, nu, draws(6, dtype=dtype), 2, backend)
    detached = [x.detach() if isinstance(x, torch.Tensor) else x for x in gradients]
    opcheck(OPS.cross_entropy_gradients.default, detached)
    opcheck(OPS.gibbs_.default, (*machine(dtype=dtype).detached, *chains(dtype=dtype), 3, -5, backend, 2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_of_the_smoothings(kind, backend):
    if kind == "spike_exponential":  # zeta is 0 up to rho = 1 - q, where it has a kink: stay above it
        rho, logit_q = noise(5, 4) / 8 + 0.85, draws(5, 4) / 4
    else:
        rho, logit_q = noise(5, 4), draws(5, 4)
    beta = torch.tensor(3.0 if kind != "power" else 0.4, dtype=torch.float64, requires_grad=True)
    inputs = (rho.requires_grad_(), logit_q.requires_grad_(), beta)
    assert torch.autograd.gradcheck(lambda r, x, b: bridge.inverse_cdf(kind, r, x, b, backend), inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck_of_the_entropies(backend):
    logit_q = draws(5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: bridge.entropy(x, backend), (logit_q,))
    prior = machine(3, 3)
    mu, nu = (noise(5, 6, seed=seed).requires_grad_() for seed in (4, 5))
    inputs = (prior.a1, prior.a2, prior.W, mu, nu)
    for n_groups in (1, 2, 3, 6):
        assert torch.autograd.gradcheck(lambda *x, n=n_groups: bridge.cross_entropy(*x, n, backend), inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", [torch.sum, lambda value: (value**2).sum()])
def test_second_derivatives_are_refused(loss, backend):
    """Whether the upstream gradient is a constant or not, and whichever input the second derivative is by."""
    rho, logit_q = noise(5, 6).requires_grad_(), draws(5, 6).requires_grad_()
    prior, nu = machine(3, 3), noise(5, 6, seed=5)
    values = {
        "inverse_cdf": lambda: bridge.inverse_cdf("exponential", rho, logit_q, 6.0, backend),
        "entropy": lambda: bridge.entropy(logit_q, backend),
        "cross_entropy": lambda: bridge.cross_entropy(*prior.parameters(), logit_q.sigmoid(), nu, 2, backend),
    }
    for name, value in values.items():
        (grad,) = torch.autograd.grad(loss(value()), logit_q, create_graph=True)
        with pytest.raises(RuntimeError, match=f"{name} is differentiable once; its second derivatives are not"):
            (grad.sum() + logit_q.sum()).backward()


def test_the_operator_cannot_be_differentiated_by_what_it_was_not_told_of():
    rho, logit_q = noise(5).requires_grad_(), draws(5).requires_grad_()
    beta = torch.tensor(6.0)
    zeta = OPS.inverse_cdf(rho, logit_q, beta, "exponential", True, False, False, "numpy_oracle")[0]
    with pytest.raises(RuntimeError, match="must be told what will be differentiated by"):
        zeta.sum().backward()


# ---- torch.compile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_a_compiled_objective_is_one_graph_with_the_same_gradients(compiler):
    backend = BACKENDS[-1]
    prior, rho = machine(3, 3), noise(5, 6)
    smoothing = OverlappingExponential(6.0, backend)

    def loss(logit_q):
        zeta = smoothing.inverse_cdf(rho, logit_q)
        expected = bridge.cross_entropy(prior.a1, prior.a2, prior.W, logit_q.sigmoid(), zeta, 2, backend)
        return (expected - bridge.entropy(logit_q, backend)).sum()

    compiled = torch.compile(loss, fullgraph=True, backend=compiler)
    results = []
    for function in (loss, compiled):
        logit_q = draws(5, 6).requires_grad_()
        value = function(logit_q)
        results.append((value, *torch.autograd.grad(value, (logit_q, *prior.parameters()))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiled_chains_advance_states_and_step(compiler):
    prior = machine()

    def advance(z1, z2, step):
        bridge.gibbs_(*prior.detached, z1, z2, step, 4, 2**63 + 5, "numpy_oracle")
        return z1.mean(0)

    compiled = torch.compile(advance, fullgraph=True, backend=compiler)
    ours, theirs = chains(), chains()
    for _ in range(2):
        torch.testing.assert_close(compiled(*ours), advance(*theirs), rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert ours[2] == 8


# ---- memory, dtypes, devices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_chains_are_advanced_in_their_own_memory(dtype, backend):
    """With a seed beyond 63 bits, which an operator's signed argument must carry, and a step beyond 32."""
    module, (z1, z2, step) = machine(dtype=dtype), chains(dtype=dtype)
    seed, first = 2**64 - 3, 2**32 + 7
    step.fill_(first)
    start = reference.gibbs.PersistentChains(z1.numpy().copy(), z2.numpy().copy(), seed, first)
    expected = start.run(as_reference(module), 6)
    where = z1.data_ptr(), z2.data_ptr(), z1._version
    bridge.gibbs_(*module.parameters(), z1, z2, step, 6, seed, backend)
    np.testing.assert_array_equal(z1, expected.z1)
    np.testing.assert_array_equal(z2, expected.z2)
    assert (z1.data_ptr(), z2.data_ptr()) == where[:2]
    assert z1._version > where[2]  # so that autograd notices if the old states were still needed
    assert step == first + 6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_smoothed_samples_through_the_module(dtype, backend):
    """Broadcast, strided and empty inputs; beta a number or a tensor; upstream gradients that are not 1."""
    rho, logit_q = noise(8, 6, dtype=dtype).t()[::2], draws(8, dtype=dtype)
    upstream = draws(3, 8, dtype=dtype, seed=7)
    expected = ReferenceExponential(6.0).inverse_cdf_with_derivatives(rho.numpy(), logit_q.numpy())
    tolerance = {"rtol": 50 * torch.finfo(dtype).eps, "atol": 0}
    for beta in (6.0, torch.tensor([6.0], dtype=dtype)):
        logit = logit_q.clone().requires_grad_()
        zeta = OverlappingExponential(beta, backend).inverse_cdf(rho, logit)
        assert zeta.dtype == dtype
        np.testing.assert_allclose(zeta.detach(), expected.zeta, **tolerance)
        zeta.backward(upstream)
        by_hand = (upstream.double().numpy() * expected.dzeta_dlogit_q).sum(0)
        np.testing.assert_allclose(logit.grad, by_hand, rtol=0, atol=200 * torch.finfo(dtype).eps)
    empty = draws(0, 4, dtype=dtype).requires_grad_()
    OverlappingExponential(6.0, backend).inverse_cdf(empty.detach(), empty).sum().backward()
    assert empty.grad.shape == (0, 4)


def test_only_the_derivatives_in_demand_are_computed(monkeypatch):
    asked = []
    backend = bridge.load("numpy_oracle")

    class Recording:
        device = "cpu"

        def inverse_cdf(self, kind, rho, logit_q, beta, extras, out):
            asked.append(list(extras))
            return backend.inverse_cdf(kind, rho, logit_q, beta, extras, out)

    monkeypatch.setattr(bridge, "load", lambda name: Recording())
    rho, logit_q, beta = noise(4), draws(4).requires_grad_(), torch.tensor(6.0, requires_grad=True)
    bridge.inverse_cdf("exponential", rho, logit_q.detach(), 6.0, "recording")
    bridge.inverse_cdf("exponential", rho, logit_q, 6.0, "recording")
    bridge.inverse_cdf("exponential", rho, logit_q.detach(), beta, "recording")
    with torch.no_grad():
        bridge.inverse_cdf("exponential", rho, logit_q, beta, "recording")
    assert asked == [[], ["dzeta_dlogit_q"], ["dzeta_dbeta"], []]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_groups", [1, 2, 3])
def test_entropy_and_cross_entropy_are_the_twins_(n_groups, backend):
    module, logit_q, nu = machine(3, 3), draws(5, 6).requires_grad_(), noise(5, 6).requires_grad_()
    upstream, mu = draws(5, seed=8), logit_q.sigmoid()
    inputs = (logit_q, nu, *module.parameters())
    ours = bridge.cross_entropy(*module.parameters(), mu, nu, n_groups, backend) - bridge.entropy(logit_q, backend)
    twins = boltzmann.cross_entropy(module, mu, nu, n_groups) - boltzmann.entropy(logit_q).sum(-1)
    torch.testing.assert_close(ours, twins, rtol=1e-12, atol=1e-13)
    gradients = [
        torch.autograd.grad(value, inputs, upstream, retain_graph=True, allow_unused=True) for value in (ours, twins)
    ]
    for our, their in zip(*gradients, strict=True):
        # One group has no nu in it: a gradient of zero for the operator, none at all for the twin.
        torch.testing.assert_close(our, torch.zeros_like(our) if their is None else their, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_samplers_are_the_references(backend):
    """Parallel tempering with snapshots, and annealing in both directions, in float64: bit by bit, to rounding."""
    module = machine()
    rbm, path = as_reference(module), torch.linspace(0, 1, 8, dtype=torch.float64)
    result = tempering.run(module, path, 6, 5, seed=9, n_snapshots=3, spacing=2, backend=backend)
    assert result.z1.shape == (18, 5)
    for snapshot in range(3):
        expected = reference.tempering.run(rbm, path.numpy(), 6, 5 + 2 * snapshot, seed=9)
        rows = slice(6 * snapshot, 6 * snapshot + 6)
        np.testing.assert_array_equal(result.z1[rows], expected.z1)
        np.testing.assert_array_equal(result.z2[rows], expected.z2)
    np.testing.assert_allclose(result.swap_rates, expected.swap_rates, rtol=1e-6)

    base = partition.Base(draws(5, seed=10), draws(3, seed=11))
    independent = ReferenceRBM(base.a1.numpy(), base.a2.numpy(), np.zeros((5, 3)))
    forward = partition.anneal(module, base, path, 6, seed=12, backend=backend)
    assert forward.dtype == torch.float64
    theirs = reference.partition.anneal(rbm, independent, path.numpy(), 6, seed=12)
    np.testing.assert_allclose(forward, theirs, rtol=0, atol=1e-9)
    backward = partition.anneal_reverse(module, base, path, result.z1, seed=12, backend=backend)
    theirs = reference.partition.anneal_reverse(rbm, independent, path.numpy(), result.z1.numpy(), seed=12)
    np.testing.assert_allclose(backward, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bracket_by_a_backend_contains_the_truth(backend, monkeypatch):
    """Each end beyond 5 standard errors (t with 15 degrees of freedom above) with probability 2e-4; seeded."""
    monkeypatch.setattr(partition, "ENUMERATED", 0)
    module = machine(dtype=torch.float32)
    base = partition.Base.fitted(torch.full((8,), 0.4), 5)
    result = partition.bracket(module, base, 60, 64, seed=1, n_replicas=6, n_rounds=30, backend=backend)
    truth = reference.boltzmann.log_partition(as_reference(module))
    for end in (result.lower, result.upper):
        assert abs(end.log_partition - truth) < 5 * end.standard_error
        assert end.standard_error < 0.2
    assert result == partition.bracket(module, base, 60, 64, seed=1, n_replicas=6, n_rounds=30, backend=backend)


def test_what_does_not_fit_is_refused_by_name():
    rho, logit_q = noise(4), draws(4)

    def smoothed(r, x, beta=6.0, kind="exponential"):
        return bridge.inverse_cdf(kind, r, x, beta, "numpy_oracle")

    with pytest.raises(TypeError, match="logit_q must be float32 or float64; got float16"):
        smoothed(rho, logit_q.half())
    with pytest.raises(TypeError, match="arrays must be of one dtype; got rho float64, logit_q float32"):
        smoothed(rho, logit_q.float())
    with pytest.raises(ShapeError, match="rho and logit_q must have one shape"):
        smoothed(rho, logit_q[:3])
    with pytest.raises(ShapeError, match=r"beta must be one number for the backend 'numpy_oracle'; got \(4,\)"):
        smoothed(rho, logit_q, torch.ones(4))
    with pytest.raises(DomainError, match="beta must be positive and finite"):
        smoothed(rho, logit_q, -1.0)
    with pytest.raises(DomainError, match="kind must be one of"):
        smoothed(rho, logit_q, kind="step")
    with pytest.raises(accelerated.BackendUnavailable, match="unknown backend 'numpy'"):
        bridge.entropy(logit_q[None], "numpy")
    z1, z2, step = chains()
    with pytest.raises(ShapeError, match="Transposed"):
        bridge.gibbs_(*machine(3, 5).detached[:2], machine().W, z1, z2, step, 1, 0, "numpy_oracle")
    assert step == 0
    assert not z2.any()


def test_a_tensor_elsewhere_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(bridge, "load", lambda name: type("Elsewhere", (), {"device": "cuda"}))
    with pytest.raises(TypeError, match="rho must be on cuda for the backend 'far'; it is on cpu"):
        bridge.inverse_cdf("exponential", noise(4), draws(4), 6.0, "far")
    with pytest.raises(TypeError, match="a1 must be on cuda for the backend 'far'; it is on cpu"):
        tempering.run(machine(), torch.linspace(0, 1, 3), 4, 5, seed=0, backend="far")
