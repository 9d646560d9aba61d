"""KL divergences of the smoothed Bernoullis: the judge is the definition, integrated or averaged over samples."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Independent, kl_divergence

from dvaepp import distributions
from dvaepp.distributions import (
    ConcreteBernoulli,
    GaussianBernoulli,
    OverlappingExponentialBernoulli,
    OverlappingLogisticBernoulli,
    PowerFunctionBernoulli,
    SpikeExponentialBernoulli,
    UniformExponentialBernoulli,
)

CLOSED = [OverlappingExponentialBernoulli, OverlappingLogisticBernoulli, SpikeExponentialBernoulli, ConcreteBernoulli]
OPEN = [PowerFunctionBernoulli, GaussianBernoulli, UniformExponentialBernoulli]
every_closed = pytest.mark.parametrize("kind", CLOSED)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def kl(kind, of_p, of_q, beta):
    """KL between two vectors of units."""
    return kl_divergence(kind(logits=of_p, beta=beta), kind(logits=of_q, beta=beta))


def log_mixture(logit, log_r0, log_r1):
    return np.logaddexp(log_r0 - np.logaddexp(0, logit), log_r1 - np.logaddexp(0, -logit))


def exponential(logit, zeta, beta):
    """Log density."""
    peak = np.log(beta / -np.expm1(-beta))
    return log_mixture(logit, peak - beta * zeta, peak - beta * (1 - zeta))


def logistic(logit, zeta, beta):
    """Log density."""
    x, y = np.abs(beta * zeta), np.abs(beta * (zeta - 1))
    return np.log(beta) + log_mixture(logit, -x - 2 * np.log1p(np.exp(-x)), -y - 2 * np.log1p(np.exp(-y)))


def logit_of_concrete(logit, x, beta):
    """Log density of x = l + logit rho; zeta = sigma(beta x) tells two units apart as well as x does."""
    y = np.abs(x - logit)
    return -y - 2 * np.log1p(np.exp(-y))


def integral(log_density, of_p, of_q, beta):
    """KL by 20 Gauss-Legendre nodes in each of 800 panels, to some 1e-14 of the largest log ratio."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    low, high = {exponential: (0, 1), logistic: (-45 / beta, 1 + 45 / beta)}.get(log_density, (-60.0, 60.0))
    edges = np.linspace(low, high, 801)
    x = (edges[:-1, None] + edges[1:, None] + np.diff(edges)[:, None] * nodes) / 2
    p, q = log_density(of_p, x, beta), log_density(of_q, x, beta)
    return float((np.exp(p) * (p - q) @ weights * np.diff(edges) / 2).sum())


def spike(of_p, of_q):
    """The exponential beyond the spike has no part in the ratio."""
    log_p, log_q = (-np.logaddexp(0, [x, -x]) for x in (of_p, of_q))
    return float(np.exp(log_p) @ (log_p - log_q))


DENSITIES = dict(zip(CLOSED, (exponential, logistic, None, logit_of_concrete), strict=True))


@every_closed
@pytest.mark.parametrize("beta", [0.3, 4.0, 20.0])
def test_against_its_integral(kind, beta):
    pairs = [(0.0, 0.7), (-3.0, 4.9), (2.0, -7.5), (-9.0, 15.0), (6.0, 0.0)]
    got = kl(kind, *(double(*logits) for logits in zip(*pairs, strict=True)), beta)
    density = DENSITIES[kind]
    expected = double(*(integral(density, *pair, beta) if density else spike(*pair) for pair in pairs))
    torch.testing.assert_close(got, expected, rtol=2e-13, atol=2e-15)


@pytest.mark.parametrize("beta", [0.03, 12.0])
def test_close_logits_keep_all_digits(beta):
    """Where a difference of closed forms, and one of float64 logarithms, would have lost them all."""
    pairs = [(0.0, 1e-7), (-20.0, -12.5), (-20.0, -20.5), (1.5, 1.5 + 2**-20)]
    got = kl(OverlappingExponentialBernoulli, *(double(*logits) for logits in zip(*pairs, strict=True)), beta)

    def density(logit, zeta):
        q = 1 / (1 + mpmath.exp(-logit))
        return (1 - q) * mpmath.exp(-beta * zeta) + q * mpmath.exp(-beta * (1 - zeta))

    def term(zeta):
        p, q = density(of_p, zeta), density(of_q, zeta)
        return p * mpmath.log(p / q)

    with mpmath.workdps(36):
        peak, expected = beta / -mpmath.expm1(-beta), []
        for pair in pairs:
            of_p, of_q = map(mpmath.mpf, pair)
            expected.append(float(peak * mpmath.quad(term, mpmath.linspace(0, 1, 4))))
    torch.testing.assert_close(got, double(*expected), rtol=5e-14, atol=0)


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0, 40.0])
def test_distant_logits(beta):
    """The closed forms, as far as infinity, against the integral at a logit beyond which nothing changes."""
    pairs = [(5.0, -5.0), (30.0, -30.0), (-math.inf, 2.0), (2.0, math.inf), (math.inf, -math.inf)]
    got = kl(OverlappingExponentialBernoulli, *(double(*logits) for logits in zip(*pairs, strict=True)), beta)
    expected = double(*(integral(exponential, *(max(-200.0, min(200.0, x)) for x in pair), beta) for pair in pairs))
    torch.testing.assert_close(got, expected, rtol=2e-13, atol=2e-14)


@pytest.mark.parametrize("beta", [0.7, 4.0])
def test_exponential_and_logistic_tell_units_apart_equally_well(beta):
    """As ``kl`` says of the two; here by their integrals, without its closed form."""
    assert integral(exponential, 1.0, -3.0, beta) == pytest.approx(integral(logistic, 1.0, -3.0, beta), rel=1e-12)


@every_closed
def test_against_samples(kind):
    """Within 4 standard errors, of 5 errors a kind; the seed is fixed."""
    torch.manual_seed(11)
    p = kind(logits=double(-2.0, 0.0, 0.5, 1.0, 3.0), beta=3.0)
    q = kind(logits=double(1.0, 0.5, -4.0, 0.0, 2.0), beta=3.0)
    zeta = p.sample((40_000,))
    ratio = p.log_prob(zeta) - q.log_prob(zeta)
    error = (ratio.mean(0) - kl_divergence(p, q)) / (ratio.std(0) / len(zeta) ** 0.5)
    assert (error.abs() < 4).all(), error


@every_closed
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_units_differ_by_exactly_nothing(kind, dtype):
    logits = torch.tensor([-math.inf, -700.0, -3.1, 0.0, 0.4, 45.0, math.inf], dtype=dtype)
    assert torch.equal(kl(kind, logits, logits.clone(), 2.5), torch.zeros(7, dtype=dtype))
    probs = torch.linspace(0, 1, 11, dtype=dtype)
    unit, same = (kind(probs=probs, beta=torch.tensor(2.5)) for _ in range(2))
    assert torch.equal(kl_divergence(unit, same), torch.zeros(11, dtype=dtype))


def test_infinite_where_one_excludes_what_the_other_takes():
    p, q = double(0.0, 0.0, math.inf, math.inf, -math.inf, -1.0), double(math.inf, -math.inf, -math.inf, 0.0, 1.0, 1.0)
    infinite = kl(ConcreteBernoulli, p, q, 2.0).isinf()
    assert infinite.tolist() == [True, True, True, True, True, False]
    spike = kl(SpikeExponentialBernoulli, p, q, 2.0)
    assert spike.isinf().tolist() == [True, True, True, False, False, False]
    torch.testing.assert_close(spike[3:5], double(math.log(2), math.log1p(math.e)))


@every_closed
def test_gradients_by_differences(kind):
    of_p = double(-1.0, 0.3, 6.0, -7.0, -30.0).requires_grad_()
    of_q = double(0.5, 0.3, -5.0, 3.0, 20.0).requires_grad_()
    beta = double(3.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, q, b: kl(kind, p, q, b), (of_p, of_q, beta))


@given(st.lists(st.tuples(st.floats(-400, 400), st.floats(-400, 400)), min_size=1), st.floats(1e-6, 500))
@settings(max_examples=50)
def test_between_nothing_and_the_kl_of_the_binary_units(pairs, beta):
    """Zeta tells less than z: the joint KL is an upper bound, and the sharper the nearer."""
    logits = tuple(double(*x).requires_grad_() for x in zip(*pairs, strict=True))
    found, sharper = (kl(OverlappingExponentialBernoulli, *logits, b) for b in (beta, 1.5 * beta))
    bound = kl(SpikeExponentialBernoulli, *logits, beta)
    slack = 1e-14 * (1 + (logits[0] - logits[1]).abs() + beta)
    assert (found >= 0).all()
    assert (found <= sharper + slack).all()
    assert (sharper <= bound + slack).all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found.sum(), logits))


@pytest.mark.parametrize("beta", [1e-8, 1e-4, 0.01])
def test_no_rounding_makes_it_negative(beta):
    """Where next to nothing is left of the difference of closed forms."""
    logits = torch.linspace(-40, 40, 41, dtype=torch.float64)
    assert (kl(OverlappingExponentialBernoulli, logits[:, None], logits, beta) >= 0).all()


def test_the_limits_of_the_sharpness():
    of_p, of_q = double(-1.0, 2.0, -9.0).requires_grad_(), double(1.5, 0.0, 4.0)
    binary = kl_divergence(Bernoulli(logits=of_p), Bernoulli(logits=of_q))
    sharp = kl(OverlappingExponentialBernoulli, of_p, of_q, 2000.0)
    torch.testing.assert_close(sharp, binary)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), of_p) for x in (sharp, binary)))
    gap = torch.sigmoid(of_p) - torch.sigmoid(of_q)
    flat = 1e-4**2 / 6 * gap.square()  # log r(zeta|1)/r(zeta|0) = beta (2 zeta - 1), of variance beta^2/3
    torch.testing.assert_close(kl(OverlappingExponentialBernoulli, of_p, of_q, 1e-4), flat, rtol=1e-6, atol=0)


@every_closed
def test_float32_is_float64_rounded_once(kind):
    of_p, of_q = torch.linspace(-9, 9, 13), torch.linspace(5, -14, 13)
    found = kl(kind, of_p, of_q, 2.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, kl(kind, of_p.double(), of_q.double(), 2.0).float(), rtol=2e-7, atol=0)


@every_closed
def test_shapes_broadcast(kind):
    p, q = kind(logits=torch.zeros(4, 1), beta=2.0), kind(logits=torch.ones(3), beta=torch.full((3,), 2.0))
    assert kl_divergence(p, q).shape == (4, 3)
    vector = Independent(p.expand((4, 3)), 1), Independent(q.expand((4, 3)), 1)
    torch.testing.assert_close(kl_divergence(*vector), kl_divergence(p, q).sum(-1))


@every_closed
def test_two_sharpnesses_have_no_closed_form(kind):
    with pytest.raises(NotImplementedError, match="of different beta"):
        kl_divergence(kind(logits=0.0, beta=2.0), kind(logits=0.0, beta=2.5))


def test_nothing_else_is_registered():
    units = [
        getattr(distributions, name)(logits=0.0, beta=2.0)
        for name in distributions.__all__
        if name != "SmoothedBernoulli"
    ]
    pairs = [*itertools.permutations([*units, Bernoulli(logits=0.0)], 2), *((u, u) for u in units if type(u) in OPEN)]
    for p, q in pairs:
        with pytest.raises(NotImplementedError, match="No KL"):
            kl_divergence(p, q)
