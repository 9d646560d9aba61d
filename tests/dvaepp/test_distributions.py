"""The smoothed Bernoullis as torch's distributions: its conventions, and numbers by quadrature, sampling, differences.

The accuracy of density, CDF and inverse is judged where they live, in ``test_smoothing*``.
"""

import copy
import itertools
import math
import pickle

import mpmath
import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Independent, RelaxedBernoulli, constraints

import reference.smoothing
from dvaepp import distributions
from dvaepp.distributions import ConcreteBernoulli, SpikeExponentialBernoulli
from dvaepp.distributions.langevin import tilted_uniform, twice_x_langevin
from dvaepp.errors import ConfigError
from dvaepp.smoothing import KINDS

CLASSES = [getattr(distributions, name) for name in distributions.__all__ if name != "SmoothedBernoulli"]
WITH_MOMENTS = [kind for kind in CLASSES if kind is not ConcreteBernoulli]
DTYPES = [torch.float32, torch.float64]
REFERENCES = {
    "exponential": reference.smoothing.OverlappingExponential,
    "logistic": reference.smoothing.OverlappingLogistic,
    "power": reference.smoothing.PowerFunction,
    "gaussian": reference.smoothing.Gaussian,
    "uniform-exponential": reference.smoothing.UniformExponential,
    "spike-exponential": reference.smoothing.SpikeExponential,
    "concrete": lambda beta: reference.smoothing.BinaryConcrete(1 / beta),
}
every_class = pytest.mark.parametrize("kind", CLASSES)
every_class_with_moments = pytest.mark.parametrize("kind", WITH_MOMENTS)


@pytest.fixture(autouse=True)
def validated(monkeypatch):
    """Torch's own default: Pyro, wherever it is imported, sets one of its own for everybody."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", __debug__)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def on_unit_interval(kind):
    return kind.support is constraints.unit_interval


def test_every_kind_of_smoothing_has_its_distribution():
    assert {kind.kind: on_unit_interval(kind) for kind in CLASSES} == {
        name: smoothing.unit_interval for name, smoothing in KINDS.items()
    }


# ---- torch's conventions ---------------------------------------------------------------------------------------------


@every_class
@pytest.mark.parametrize("given_both", [{}, {"probs": 0.5, "logits": 0.0}])
def test_exactly_one_parameter_or_torch_s_error(kind, given_both):
    with pytest.raises(ValueError) as torch_says:
        RelaxedBernoulli(torch.tensor(1.0), **given_both)
    with pytest.raises(ValueError) as we_say:
        kind(beta=1.0, **given_both)
    assert str(we_say.value) == str(torch_says.value)


def test_a_temperature_in_the_old_place_is_not_taken_for_a_sharpness():
    with pytest.raises(TypeError, match="beta"):
        ConcreteBernoulli(torch.tensor(0.5), logits=torch.zeros(3))


@every_class
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"probs": torch.tensor([0.5, 1.5]), "beta": 2.0}, "probs"),
        ({"logits": torch.tensor([0.5, math.nan]), "beta": 2.0}, "logits"),
        ({"logits": 0.0, "beta": -1.0}, "beta"),
        ({"logits": 0.0, "beta": 0.0}, "beta"),
        ({"logits": torch.zeros(2), "beta": torch.tensor([1.0, math.nan])}, "beta"),
    ],
)
def test_bad_parameters_are_refused_as_in_torch(kind, arguments, name):
    with pytest.raises(ValueError, match=f"Expected parameter {name} .*to satisfy the constraint"):
        kind(**arguments)


@every_class
@pytest.mark.parametrize("beta", [-1.0, 0.0, math.inf, math.nan])
def test_what_the_smoothing_refuses_is_refused_unvalidated_too(kind, beta):
    with pytest.raises(ConfigError, match="beta must be positive and finite"):
        kind(logits=0.0, beta=beta, validate_args=False)


@every_class
def test_bad_values_are_refused_as_in_torch(kind):
    unit = kind(logits=torch.zeros(3), beta=2.0)
    outside = torch.tensor(1.5 if on_unit_interval(kind) else math.nan)
    for function in (unit.log_prob, unit.cdf):
        with pytest.raises(ValueError, match="within the support"):
            function(outside)
        with pytest.raises(ValueError, match="not broadcastable"):
            function(torch.zeros(2))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        unit.icdf(torch.tensor([0.5, -0.1, 0.2]))
    unchecked = kind(logits=torch.zeros(3), beta=2.0, validate_args=False)
    assert unchecked.log_prob(outside).shape == (3,)


@every_class
@pytest.mark.parametrize(
    ("parameter", "beta"),
    [
        (0.3, 2.0),
        (torch.tensor(0.3), 2.0),
        (torch.full((3,), 0.3), torch.tensor(2.0)),
        (torch.full((2, 1), 0.3), torch.tensor([2.0, 3.0, 4.0])),
        (0.3, torch.full((4, 1), 2.0)),
    ],
)
@pytest.mark.parametrize("name", ["probs", "logits"])
def test_shapes_are_those_of_torch(kind, parameter, beta, name):
    unit = kind(**{name: parameter}, beta=beta)
    like_torch = Bernoulli(**{name: torch.broadcast_tensors(*map(torch.as_tensor, (parameter, beta)))[0]})
    for attribute in ("batch_shape", "event_shape", "param_shape"):
        assert getattr(unit, attribute) == getattr(like_torch, attribute)
    assert unit.beta.shape == unit.logits.shape == unit.probs.shape == unit.batch_shape
    torch.testing.assert_close(unit.logits, like_torch.logits)
    torch.testing.assert_close(unit.probs, like_torch.probs)
    for sample_shape in ((), (5,), (5, 2)):
        sample = unit.rsample(sample_shape)
        assert sample.shape == unit.sample(sample_shape).shape == like_torch.sample(sample_shape).shape
        assert unit.log_prob(sample).shape == unit.cdf(sample).shape == sample.shape
        assert unit.icdf(torch.full(sample.shape, 0.4)).shape == sample.shape


@every_class
@pytest.mark.parametrize("name", ["probs", "logits"])
def test_expand(kind, name):
    unit = kind(**{name: torch.tensor([[0.2], [0.7]])}, beta=torch.tensor([[2.0], [3.0]]), validate_args=False)
    wide = unit.expand((4, 2, 3))
    assert type(wide) is kind
    assert wide.batch_shape == wide.rsample().shape == wide.beta.shape == wide.logits.shape == (4, 2, 3)
    assert not wide._validate_args
    with pytest.raises(ValueError, match="within the support"):
        kind(logits=0.0, beta=1.0, validate_args=True).expand((2,)).log_prob(torch.full((2,), math.nan))
    value = torch.tensor([0.3, 0.5, 0.9])
    torch.testing.assert_close(wide.log_prob(value), unit.log_prob(value).expand(4, 2, 3), rtol=0, atol=0)
    torch.testing.assert_close(wide.cdf(value), unit.cdf(value).expand(4, 2, 3), rtol=0, atol=0)
    if kind in WITH_MOMENTS:
        torch.testing.assert_close(wide.mean, unit.mean.expand(4, 2, 3), rtol=0, atol=0)

    class Plain(kind):
        pass

    class Demanding(kind):
        def __init__(self):
            super().__init__(logits=0.0, beta=1.0)

    assert type(Plain(logits=0.0, beta=1.0).expand((2,))) is Plain
    with pytest.raises(NotImplementedError, match=r"custom .expand"):
        Demanding().expand((2,))


@every_class
def test_samples_carry_a_gradient_and_a_plain_sample_does_not(kind):
    logits = torch.zeros(3, requires_grad=True)
    unit = kind(logits=logits, beta=2.0)
    assert unit.has_rsample
    assert unit.rsample().requires_grad
    assert not unit.sample().requires_grad
    torch.manual_seed(1)
    first = unit.rsample((4,)).detach()
    torch.manual_seed(1)
    assert torch.equal(unit.sample((4,)), first)


@every_class
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_have_the_dtype_of_the_parameter(kind, dtype):
    unit = kind(logits=torch.zeros(2, dtype=dtype), beta=torch.tensor(2.0, dtype=torch.float64))
    sample = unit.rsample()
    results = [sample, unit.beta, unit.probs, unit.log_prob(sample), unit.cdf(sample), unit.icdf(unit.probs)]
    if kind in WITH_MOMENTS:
        results += [unit.mean, unit.variance]
    assert {x.dtype for x in results} == {dtype}
    assert kind(probs=0.5, beta=1.0).rsample().dtype == torch.get_default_dtype()


@every_class
def test_repr_is_torch_s(kind):
    assert repr(kind(logits=0.5, beta=2.0)) == f"{kind.__name__}(beta: 2.0, logits: 0.5)"
    assert repr(kind(probs=torch.ones(2, 3) / 2, beta=2.0)) == (
        f"{kind.__name__}(beta: torch.Size([2, 3]), probs: torch.Size([2, 3]))"
    )


@every_class
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda unit: pickle.loads(pickle.dumps(unit))])
def test_copies_are_the_same_distribution(kind, copied):
    unit = kind(probs=torch.tensor([0.2, 0.9]), beta=torch.tensor(3.0))
    other = copied(unit)
    value = torch.tensor([0.25, 0.5])
    assert type(other) is kind
    assert repr(other) == repr(unit)
    assert torch.equal(other.log_prob(value), unit.log_prob(value))
    assert other.expand((3, 2)).rsample().shape == (3, 2)


@every_class
def test_a_number_and_a_tensor_as_sharpness_agree(kind):
    logits, value = torch.linspace(-4, 4, 9), torch.linspace(0.1, 0.9, 9)
    number, tensor = kind(logits=logits, beta=0.7), kind(logits=logits, beta=torch.full((9,), 0.7))
    torch.testing.assert_close(number.log_prob(value), tensor.log_prob(value), rtol=0, atol=0)
    torch.testing.assert_close(number.icdf(value), tensor.icdf(value), rtol=0, atol=0)
    assert torch.equal(number.beta, tensor.beta)


@every_class
def test_units_are_independent_events_of_a_vector(kind):
    unit = kind(logits=torch.zeros(4, 3), beta=2.0)
    vector = Independent(unit, 1)
    sample = vector.rsample((2,))
    torch.testing.assert_close(vector.log_prob(sample), unit.log_prob(sample).sum(-1))


# ---- the numbers -----------------------------------------------------------------------------------------------------

LOGITS = double(-4.0, -0.3, 0.0, 2.0)


@every_class
@pytest.mark.parametrize("beta", [0.6, 3.0, 15.0])
def test_the_density_integrates_to_the_cdf_and_the_cdf_ends_at_one(kind, beta):
    unit = kind(logits=LOGITS, beta=beta)
    low, high = (0.0, 1.0) if on_unit_interval(kind) else (-math.inf, math.inf)
    spike = torch.sigmoid(-LOGITS) if kind is SpikeExponentialBernoulli else torch.zeros_like(LOGITS)
    torch.testing.assert_close(unit.cdf(torch.full_like(LOGITS, low)), spike)
    torch.testing.assert_close(unit.cdf(torch.full_like(LOGITS, high)), torch.ones_like(LOGITS), rtol=0, atol=4e-16)
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(30))
    edges = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
    edges = edges if on_unit_interval(kind) else 4 * edges - 1.5
    for left, right in itertools.pairwise(edges):
        value = (left + right + (right - left) * nodes[:, None]) / 2
        integral = (weights[:, None] * unit.log_prob(value).exp()).sum(0) * (right - left) / 2
        torch.testing.assert_close(integral, unit.cdf(right) - unit.cdf(left), rtol=1e-9, atol=1e-13)


@every_class
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cdf_undoes_its_inverse(kind, dtype):
    """Up to what the rounding of zeta does to it, which is much where the density is high far from 0."""
    u, eps = torch.linspace(0.01, 0.99, 33, dtype=dtype)[:, None], torch.finfo(dtype).eps
    for beta in (0.5, 1.2, 4.0):
        unit = kind(logits=LOGITS.to(dtype), beta=beta)
        expected = u.expand(-1, 4)
        if kind is SpikeExponentialBernoulli:
            expected = torch.maximum(expected, 1 - unit.probs)
        zeta = unit.icdf(u)
        slack = 4 * eps * (1 + zeta.abs() * unit.log_prob(zeta).exp())
        assert ((unit.cdf(zeta) - expected).abs() <= slack).all()
        assert (slack < 100 * eps).double().mean() > 0.7


@every_class
def test_the_ends_are_those_of_the_reference(kind):
    ends = double(0.0, 1.0) if on_unit_interval(kind) else double(-math.inf, math.inf)
    for beta in (0.5, 1.0, 4.0):
        unit = kind(logits=LOGITS[:, None], beta=beta)
        expected = REFERENCES[kind.kind](beta).log_prob(ends.numpy(), LOGITS[:, None].numpy())
        torch.testing.assert_close(unit.log_prob(ends), torch.from_numpy(expected))
        assert torch.equal(unit.icdf(double(0.0, 1.0)), ends.expand(4, 2))


@every_class_with_moments
@pytest.mark.parametrize("beta", [0.05, 5.0])
def test_moments_by_quadrature(kind, beta):
    smoothing = REFERENCES[kind.kind](beta)
    end = 1.0 if on_unit_interval(kind) else 1 + 60 / min(beta, beta**0.5)
    moments = []
    for z in (0.0, 1.0):
        if kind is SpikeExponentialBernoulli and z == 0:
            moments.append((0.0, 0.0))
            continue

        def density(zeta, power, z=z):
            return zeta**power * math.exp(smoothing.log_r(zeta, z))

        parts = [0.0, 0.5, 1.0] if on_unit_interval(kind) else [1 - end, *np.linspace(-1, 2, 7), end]
        pairs = list(itertools.pairwise(parts))
        moments.append(
            [sum(scipy.integrate.quad(density, a, b, (k,), epsabs=1e-12)[0] for a, b in pairs) for k in (1, 2)]
        )
    p, q = torch.sigmoid(-LOGITS), torch.sigmoid(LOGITS)
    (first0, second0), (first1, second1) = moments
    mean = p * first0 + q * first1
    for unit in (kind(logits=LOGITS, beta=beta), kind(probs=q, beta=beta)):
        torch.testing.assert_close(unit.mean, mean, rtol=2e-8, atol=2e-9)
        torch.testing.assert_close(unit.variance, p * second0 + q * second1 - mean.square(), rtol=1e-7, atol=1e-8)


@every_class_with_moments
def test_moments_of_samples(kind):
    """Within 4 standard errors, of 8 errors a kind: another seed would fail once in 2,000; the seed is fixed."""
    torch.manual_seed(3)
    unit = kind(logits=LOGITS.float(), beta=3.0)
    sample = unit.sample((40_000,)).double()
    deviation = sample - unit.mean
    for seen in (deviation, deviation.square() - unit.variance):
        error = seen.mean(0) / (seen.std(0) / len(sample) ** 0.5)
        assert (error.abs() < 4).all(), error


def test_concrete_has_no_moments_as_in_torch():
    for unit in (ConcreteBernoulli(logits=0.0, beta=1.0), RelaxedBernoulli(torch.tensor(1.0), logits=0.0)):
        for moment in ("mean", "variance"):
            with pytest.raises(NotImplementedError):
                getattr(unit, moment)


@pytest.mark.parametrize("beta", [1e-9, 1e-3, 0.5, 1.99, 2.0, 2.01, 9.0, 700.0, 1e5])
def test_the_truncated_exponential_s_moments_in_multi_precision(beta):
    mean, variance = tilted_uniform(double(beta))
    with mpmath.workdps(60):
        b = mpmath.mpf(beta)
        expected = 1 / b - 1 / mpmath.expm1(b), 1 / b**2 - 1 / (4 * mpmath.sinh(b / 2) ** 2)
        langevin = b * (mpmath.coth(b / 2) - 2 / b)
    np.testing.assert_allclose([mean.item(), variance.item()], [float(x) for x in expected], rtol=4e-15)
    np.testing.assert_allclose(twice_x_langevin(double(beta, -beta)), float(langevin), rtol=4e-15)


# ---- gradients -------------------------------------------------------------------------------------------------------


@every_class
@pytest.mark.parametrize("name", ["probs", "logits"])
def test_gradients_of_samples_by_differences(kind, name):
    parameter = double(0.35, 0.5, 0.8) if name == "probs" else double(-1.5, 0.0, 2.5)
    beta = double(2.0)

    def sample(parameter, beta):
        torch.manual_seed(5)
        return kind(**{name: parameter}, beta=beta, validate_args=False).rsample((2,))

    assert torch.autograd.gradcheck(sample, (parameter.requires_grad_(), beta.requires_grad_()))


@every_class
def test_gradients_of_densities_and_moments_by_differences(kind):
    value, logits = double(0.2, 0.5, 0.85).requires_grad_(), double(-1.5, 0.0, 2.5).requires_grad_()
    beta = double(2.5).requires_grad_()

    def results(value, logits, beta):
        unit = kind(logits=logits, beta=beta, validate_args=False)
        moments = (unit.mean, unit.variance) if kind in WITH_MOMENTS else ()
        return unit.log_prob(value), unit.cdf(value), *moments

    assert torch.autograd.gradcheck(results, (value, logits, beta))


def test_the_spike_s_gradient_is_right_in_expectation():
    """d E[zeta^2]/dl = p q E[zeta^2 | z = 1], by the mean over a grid of noise; see the class."""
    logits = double(0.4).requires_grad_()
    unit = SpikeExponentialBernoulli(logits=logits, beta=3.0)
    rho = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    (slope,) = torch.autograd.grad(unit.icdf(rho).square().mean(), logits)
    second = unit.variance + unit.mean.square()
    (expected,) = torch.autograd.grad(second, logits)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=0)


# ---- edges -----------------------------------------------------------------------------------------------------------


@st.composite
def units(draw):
    dtype = draw(st.sampled_from(DTYPES))
    width = 32 if dtype == torch.float32 else 64
    any_logit = st.floats(allow_nan=False, allow_infinity=False, width=width)
    logits = draw(st.lists(st.one_of(st.floats(-60, 60, width=width), any_logit), min_size=1, max_size=8))
    beta = draw(st.floats(0.0625, 1000, width=32))
    parameter = torch.tensor(logits, dtype=dtype, requires_grad=True)
    sharpness = torch.tensor(beta, dtype=dtype, requires_grad=True)
    return draw(st.sampled_from(CLASSES))(logits=parameter, beta=sharpness), parameter, sharpness


@given(units(), st.integers(0, 2**20))
@settings(max_examples=70)
def test_no_finite_logit_makes_a_nan(made, seed):
    unit, logits, beta = made
    torch.manual_seed(seed)
    sample = unit.rsample((20,))
    density = unit.log_prob(sample)
    assert unit.support.check(sample).all()
    for result in (sample, density):
        assert result.isfinite().all()
        gradients = torch.autograd.grad(result.sum(), (logits, beta), retain_graph=True)
        assert not any(gradient.isnan().any() for gradient in gradients), (result, gradients)
    cdf = unit.cdf(sample.detach())
    assert ((cdf >= 0) & (cdf <= 1)).all()
    if type(unit) in WITH_MOMENTS:
        assert unit.mean.isfinite().all()
        assert (unit.variance >= 0).all()


@every_class
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.3, 8.0])
def test_the_extreme_draws_of_torch_s_noise(kind, dtype, beta, monkeypatch):
    """0, which torch.rand draws once in 2^24 times in float32, and the nearest to 1."""
    noise = torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: noise)
    logits = torch.tensor([0.3, 0.3], dtype=dtype, requires_grad=True)
    unit = kind(logits=logits, beta=beta)
    sample = unit.rsample()
    density = unit.log_prob(sample)
    (gradient,) = torch.autograd.grad(density.sum(), logits)
    for result in (sample, density, gradient):
        assert result.isfinite().all()


@every_class
def test_certain_units(kind):
    unit = kind(logits=torch.tensor([-math.inf, math.inf]), beta=3.0)
    sample = unit.sample((50,))
    assert sample.isfinite().all()
    assert not unit.log_prob(sample).isnan().any()
    if kind in WITH_MOMENTS:
        assert unit.mean[0] + unit.mean[1] == pytest.approx(
            1.0 if kind is not SpikeExponentialBernoulli else unit.mean[1]
        )


# ---- in the place of torch's -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.5, 2 / 3, 2.0])
def test_concrete_gives_the_numbers_of_torch_where_those_are_right(dtype, temperature):
    logits = torch.linspace(-3, 3, 7, dtype=dtype)
    ours = ConcreteBernoulli(logits=logits, beta=1 / temperature)
    torch_s = RelaxedBernoulli(torch.tensor(temperature, dtype=dtype), logits=logits)
    torch.testing.assert_close(ours.temperature, torch.full((7,), temperature, dtype=dtype))
    torch.manual_seed(9)
    expected = torch_s.rsample((200,))
    torch.manual_seed(9)
    sample = ours.rsample((200,))
    tolerance = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(sample, expected, rtol=tolerance, atol=tolerance)
    value = torch.linspace(0.05, 0.95, 10, dtype=dtype)[:, None]
    torch.testing.assert_close(ours.log_prob(value), torch_s.log_prob(value), rtol=tolerance, atol=tolerance)


def test_concrete_keeps_its_gradient_where_torch_s_is_lost():
    """The case of ``examples``: a logit of 20 at temperature 1/2, and a density that torch's overflows at."""
    logits = torch.tensor(20.0, requires_grad=True)
    for unit, lost in (
        (ConcreteBernoulli(logits=logits, beta=2.0), False),
        (RelaxedBernoulli(torch.tensor(0.5), logits=logits), True),
    ):
        torch.manual_seed(0)
        (slope,) = torch.autograd.grad(unit.rsample(), logits)
        assert bool(slope == 0) == lost
    assert ConcreteBernoulli(logits=100.0, beta=1.0).log_prob(torch.tensor(0.5)).item() == pytest.approx(
        math.log(4) - 100, rel=1e-6
    )
