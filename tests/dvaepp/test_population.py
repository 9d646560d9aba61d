"""Population annealing in torch: resampling against the reference, log Z and moments by enumeration."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference.population
from dvaepp import population
from dvaepp.boltzmann import RBM
from dvaepp.population import anneal, resample
from reference.boltzmann import energy, log_partition
from reference.vocabulary import RBM as ReferenceRBM
from reference.vocabulary import DomainError

LADDER = torch.linspace(0, 1, 11, dtype=torch.float64)


def twins(n1, n2, seed, scale, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    W = scale * rng.normal(size=(n1, n2))
    parameters = rng.normal(size=n1) - W.sum(axis=1) / 2, rng.normal(size=n2) - W.sum(axis=0) / 2, W
    return module_of(ReferenceRBM(*(value.astype(np.float32) for value in parameters)), dtype)


def two_modes():
    return module_of(ReferenceRBM(np.full(4, -6.0), np.full(4, -5.9), np.full((4, 4), 3.05)), torch.float32)


def module_of(rbm, dtype):
    module = RBM(rbm.n1, rbm.n2).to(dtype)
    with torch.no_grad():
        for name in ("a1", "a2", "W"):
            getattr(module, name).copy_(torch.from_numpy(getattr(rbm, name)))
    return rbm, module


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 30), st.floats(0, 20), st.integers(0, 1000))
def test_resampling_is_the_references(n_populations, n_replicas, scale, seed):
    rng = np.random.default_rng(seed)
    log_weights, u = scale * rng.normal(size=(n_populations, n_replicas)), rng.uniform(size=n_populations)
    ours = resample(torch.from_numpy(log_weights), torch.from_numpy(u))
    np.testing.assert_array_equal(ours, reference.population.resample(log_weights, u))


def test_resampling_at_the_edges():
    """No point is lost where R - u rounds to R, and none goes to a replica without weight; any number of copies."""
    last = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    for row in ([0.0] * 4, [-800.0, 0.0, -800.0], [0.0, 0.0, -800.0, -800.0]):
        ours = resample(torch.tensor([row]), last)
        np.testing.assert_array_equal(ours, reference.population.resample([row], last.numpy()))
    # Shares 1/8, 1/2, 3/8 end at 5/8, 25/8, 5 of five copies: the points are u, u + 1, ..., u + 4.
    weights = torch.tensor([[1.0, 4.0, 3.0]]).log()
    assert resample(weights, torch.tensor([0.5]), 5).tolist() == [[0, 1, 1, 2, 2]]
    assert resample(weights, torch.tensor([0.75]), 1).tolist() == [[2]]
    assert resample(weights, torch.tensor([0.5]), 1).tolist() == [[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_partition_agrees_with_enumeration(dtype):
    """20 estimates, each beyond 4 standard errors with probability 6.3e-5 (t: 1.8e-4): four or more, 5e-12."""
    distances = []
    for seed in range(20):
        rbm, module = twins(4, 5, seed, (0.5, 2.0, 4.0)[seed % 3], dtype)
        found = anneal(module, LADDER, 60, 40, seed, sweeps_per_rung=1 + seed % 2)
        assert found.z1.dtype == dtype
        assert found.log_weights.dtype == torch.float64
        assert found.estimate.effective_sample_size > 30  # else the standard error means little
        distances.append(abs(found.estimate.log_partition - log_partition(rbm)) / found.estimate.standard_error)
    assert sum(d > 4 for d in distances) <= 3
    assert np.mean(distances) > 0.3  # and the standard errors are not inflated: |normal| has mean 0.8


def moment_scores(rbm, module, **options):
    """z-scores of E[z1], E[z2] and E[z1 z2'], weighted means over 1,000 populations on a crude ladder, and of Z."""
    path = torch.tensor([0.0, 0.25, 0.5, 1.0])
    found = anneal(module, path, 1000, 20, seed=2, **options)
    weight = (found.log_weights - log_partition(rbm)).exp().numpy()
    states = np.array(list(itertools.product([0, 1], repeat=8)), dtype=float)
    probs = np.exp(-energy(rbm, states[:, :4], states[:, 4:]) - log_partition(rbm))
    z = torch.cat([found.z1, found.z2], dim=2).numpy()
    observed = [weight]
    expected = [1.0]
    for i, j in itertools.combinations_with_replacement(range(8), 2):
        observed.append(weight * (z[:, :, i] * z[:, :, j]).mean(axis=1))
        expected.append(probs @ (states[:, i] * states[:, j]))
    observed = np.array(observed)
    return (observed.mean(axis=1) - expected) / (observed.std(axis=1, ddof=1) / np.sqrt(1000))


def test_weighted_moments_are_unbiased_on_a_crude_ladder():
    """37 means of 1,000 populations: one beyond 6 standard errors with probability 1e-7."""
    scores = moment_scores(*two_modes())
    assert abs(scores).max() < 6


@pytest.mark.parametrize("wrong", ["inverted", "nobody", "cold"])
def test_the_same_judge_catches_wrong_variants(monkeypatch, wrong):
    if wrong == "cold":
        right = population.sweep
        monkeypatch.setattr(population, "sweep", lambda rbm, z1, u2, u1, inv_temp: right(rbm, z1, u2, u1, 1.0))
    else:
        factor = -1 if wrong == "inverted" else 0
        monkeypatch.setattr(population, "resample", lambda gain, u: resample(factor * gain, u))
    assert abs(moment_scores(*two_modes())).max() > 6


def test_families_by_hand(monkeypatch):
    """Five replicas, two rungs: 0 0 1 3 4, then of these 0 0 2 2 4: ancestors 0 0 1 1 4, sizes 2 2 1: 25 / 9."""
    turns = iter([[0, 0, 1, 3, 4], [0, 0, 2, 2, 4]])
    monkeypatch.setattr(population, "resample", lambda gain, _: torch.tensor(next(turns)).repeat(len(gain), 1))
    found = anneal(twins(3, 2, 5, 1.0)[1], torch.tensor([0.0, 0.5, 1.0]), 2, 5, seed=0)
    np.testing.assert_allclose(found.effective_families, 25 / 9)


def test_free_machines_shapes_and_seeds():
    found = anneal(RBM(3, 2), LADDER, 3, 7, seed=0)
    np.testing.assert_allclose(found.log_weights, 5 * np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(found.effective_families, 7)  # equal weights: every replica copies itself
    _, module = twins(3, 2, 4, 1.0)
    first, again, other = (anneal(module, LADDER, 4, 50, seed) for seed in (1, 1, 2))
    assert (first.z1.shape, first.z2.shape) == ((4, 50, 3), (4, 50, 2))
    for ours, same in zip(first, again, strict=True):
        assert torch.equal(ours, same)
        assert not ours.requires_grad
    assert (first.log_weights != other.log_weights).all()
    with pytest.raises(DomainError, match="n_populations must be a whole number of at least 2; got 1"):
        anneal(module, LADDER, 1, 5, seed=0)
