"""Autocorrelation times judged by double sums, by AR(1) processes, and by the exact spectrum of small Gibbs chains."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from reference.autocorrelation import autocorrelation, effective_sample_size, integrated_time
from reference.boltzmann import energy
from reference.gibbs import PersistentChains
from reference.vocabulary import RBM, DomainError, ShapeError


def ar1(phi, n_chains, n_steps, seed):
    """x_t = phi x_{t-1} + noise, from its stationary distribution: rho_t = phi**t, tau = (1 + phi) / (1 - phi)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_chains, n_steps))
    noise[:, 0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise, axis=1)


@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 1000))
def test_the_transform_gives_the_double_sum(n_chains, n_steps, seed):
    x = np.random.default_rng(seed).normal(size=(n_chains, n_steps)) + 3.0
    mean = sum(x.ravel().tolist()) / x.size
    sums = [
        sum((x[c, s] - mean) * (x[c, s + lag] - mean) for c in range(n_chains) for s in range(n_steps - lag))
        for lag in range(n_steps)
    ]
    np.testing.assert_allclose(autocorrelation(x), np.array(sums) / sums[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(autocorrelation(1e-200 * (x - 3)), autocorrelation(x - 3), rtol=0, atol=1e-12)
    np.testing.assert_allclose(autocorrelation(1e200 * x), autocorrelation(x), rtol=0, atol=1e-12)


def test_correlations_by_hand():
    # Deviations (-1, 0, 1): sums of products 2, 0, -1.
    np.testing.assert_allclose(autocorrelation([1, 2, 3]), [1, 0, -0.5], atol=1e-15)
    # Two chains that each stay where they are, apart: (T - t) / T at every lag, though within a chain nothing moves.
    np.testing.assert_allclose(autocorrelation([[0, 0, 0, 0], [1, 1, 1, 1]]), [1, 0.75, 0.5, 0.25], atol=1e-15)


@pytest.mark.parametrize("phi", [-0.3, 0.0, 0.5, 0.9, 0.98])
@pytest.mark.parametrize(("n_chains", "n_steps"), [(1, 40_000), (20, 2_000)])
def test_ar1(phi, n_chains, n_steps):
    """Beyond 5.5 standard errors with probability 4e-8.

    The window leaves out less than 1% of tau; other biases are of order tau / T, far below the standard error.
    """
    tau = (1 + phi) / (1 - phi)
    x = ar1(phi, n_chains, n_steps, seed=1)
    result = integrated_time(x)
    assert abs(result.time - tau) < 5.5 * result.standard_error + 0.01 * tau
    assert result.standard_error < 0.25 * tau
    assert result.window >= 5 * result.time
    assert effective_sample_size(x) == pytest.approx(40_000 / result.time)
    lags = np.arange(5)
    np.testing.assert_allclose(autocorrelation(x)[:5], phi**lags, atol=5.5 * np.sqrt(2 * tau / x.size))


@pytest.mark.parametrize("wrong", [lambda t: t / 2, lambda t: t - 1, lambda t: t + 1, lambda t: 1.2 * t])
def test_the_same_judge_catches_wrong_times(wrong):
    """Sokal's other convention, a forgotten 1, lag 0 counted twice, and a fifth too much."""
    result = integrated_time(ar1(0.5, 20, 20_000, seed=1))
    assert abs(result.time - 3) < 5.5 * result.standard_error + 0.03
    assert abs(result.time - wrong(3)) > 5.5 * result.standard_error + 0.03


def test_the_standard_error_of_a_time_is_the_spread_of_times():
    """Wolff (2004) has 4 M + 2 - 2 tau where the formula has 4 M + 2: 0.95 of it at M = 5 tau. 400 series give 3.5%.

    The judge leaves 5.7 of these to each side: probability 1e-8. Half the variance would give 1.34.
    """
    results = [integrated_time(series) for series in ar1(0.8, 400, 5_000, seed=2)]
    spread = np.std([result.time for result in results])
    assert 0.75 < spread / np.mean([result.standard_error for result in results]) < 1.15


def test_the_variance_of_a_mean_is_what_the_effective_sample_size_says():
    """400 independent means of AR(1): their variance over its expectation is chi-square / 399, within 40% at 5.6 sd."""
    x = ar1(0.9, 400, 2_000, seed=3)
    assert x.mean(axis=1).var() == pytest.approx(x.var() / (effective_sample_size(x) / 400), rel=0.4)
    # A judge with power: as many independent draws as steps would make the variance 19 times smaller.
    assert x.mean(axis=1).var() > 10 * x.var() / 2_000


def gibbs_spectrum(rbm):
    """States of z1, their probabilities, and the symmetrised transition matrix of z1 -> z2 -> z1, by enumeration."""
    states = np.indices((2,) * (rbm.n1 + rbm.n2)).reshape(rbm.n1 + rbm.n2, -1).T
    joint = np.exp(-energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :])).reshape(2**rbm.n1, 2**rbm.n2)
    joint /= joint.sum()
    probs1, probs2 = joint.sum(axis=1), joint.sum(axis=0)
    transition = (joint / probs1[:, None]) @ (joint / probs2).T
    root = np.sqrt(probs1)
    return states[:: 2**rbm.n2, : rbm.n1], probs1, root[:, None] * transition / root


@pytest.mark.parametrize(("scale", "slowest"), [(0.6, 1.2), (2.2, 5.0)])
def test_gibbs_chains_have_the_times_of_their_spectrum(scale, slowest):
    """rho_t is a mean of eigenvalues**t weighted by the observable's components, and tau of (1 + l) / (1 - l)."""
    rng = np.random.default_rng(4)
    W = scale * rng.normal(size=(4, 3))
    rbm = RBM(-W.sum(axis=1) / 2, 0.3 * rng.normal(size=3) - W.sum(axis=0) / 2, W)
    states, probs1, symmetrised = gibbs_spectrum(rbm)
    eigenvalues, vectors = np.linalg.eigh(symmetrised)
    assert eigenvalues[-1] == pytest.approx(1)

    chains = PersistentChains.init(rbm, 200, seed=5).run(rbm, 100)
    path = []
    for _ in range(600):
        chains = chains.run(rbm, 1)
        path.append(chains.z1)
    path = np.stack(path, axis=1)
    times = []
    for f in (lambda z1: z1.sum(axis=-1), lambda z1: z1[..., 0], lambda z1: z1 @ rbm.a1 + z1[..., 1] * z1[..., 2]):
        values = f(states)
        components = (vectors.T @ (np.sqrt(probs1) * (values - probs1 @ values))) ** 2
        weights, inner = components[:-1] / components[:-1].sum(), eigenvalues[:-1]
        times.append((weights * (1 + inner) / (1 - inner)).sum())
        result = integrated_time(f(path))
        assert abs(result.time - times[-1]) < 5.5 * result.standard_error + 0.01 * times[-1]
        assert result.standard_error < 0.1 * times[-1]
    assert max(times) > slowest


def test_chains_stuck_apart_are_refused_though_each_alone_looks_perfect():
    x = ar1(0.0, 4, 1_000, seed=6)
    assert effective_sample_size(x) > 3_000
    apart = x + np.array([0, 0, 5, 5])[:, None]
    assert integrated_time(apart[0]).time < 1.5
    with pytest.raises(DomainError, match=r"no lag below its 1000 steps is 5 times .* the chains are stuck apart"):
        integrated_time(apart)


def test_series_that_are_refused():
    for function in (autocorrelation, integrated_time, effective_sample_size):
        with pytest.raises(DomainError, match=r"x must vary to have correlations; its 6 values are all 2\.0"):
            function(np.full((2, 3), 2.0))
        with pytest.raises(DomainError, match=r"x must be finite; entry \(1, 0\) is nan"):
            function([[0.0, 1.0], [np.nan, 0.0]])
        with pytest.raises(DomainError, match="x must be finite; entry 1 is inf"):
            function([0.0, np.inf])
        with pytest.raises(ShapeError, match=r"x must be \(C, T\), .* got \(1, 2, 3\)"):
            function(np.zeros((1, 2, 3)))
        for empty in ([], np.zeros((3, 0)), 1.0):
            with pytest.raises(ShapeError, match=r"x must be \(C, T\)"):
                function(empty)
        with pytest.raises(TypeError, match="x must be float32 or float64"):
            function(np.array([1j, 0]))
    for function in (integrated_time, effective_sample_size):
        with pytest.raises(DomainError, match="x must be longer: no lag below its 4 steps"):
            function([0.0, 1.0, 0.0, 1.0])
        with pytest.raises(DomainError, match=r"x must not alternate so strongly: .* up to lag 5 sum to a time of -"):
            function(np.tile([0.0, 1.0], 100))
