"""Population annealing: its log Z judged by enumeration, resampling by hand and by its averages.

The replicas' distribution is judged in test_samplers.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import population
from reference.boltzmann import energy
from reference.population import anneal, resample
from reference.vocabulary import RBM, DomainError, ShapeError

LADDER = np.linspace(0.0, 1.0, 11)


def centred(n1, n2, seed, scale):
    rng = np.random.default_rng(seed)
    W = scale * rng.normal(size=(n1, n2))
    return RBM(rng.normal(size=n1) - W.sum(axis=1) / 2, rng.normal(size=n2) - W.sum(axis=0) / 2, W)


def exact_log_partition(rbm):
    states = np.indices((2,) * (rbm.n1 + rbm.n2)).reshape(rbm.n1 + rbm.n2, -1).T
    return np.log(np.exp(-energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :])).sum())


def test_log_partition_agrees_with_enumeration():
    """20 estimates, each beyond 4 standard errors with probability 6.3e-5: three or more, 3e-10."""
    distances = []
    for seed in range(20):
        rbm = centred(4, 5, seed, scale=(0.5, 2.0, 4.0)[seed % 3])
        estimate = anneal(rbm, LADDER, 60, n_replicas=40, seed=seed, sweeps_per_rung=1 + seed % 2).estimate
        assert estimate.effective_sample_size > 30  # else the standard error means little
        assert estimate.n_chains == 60
        distances.append(abs(estimate.log_partition - exact_log_partition(rbm)) / estimate.standard_error)
    assert sum(d > 4 for d in distances) <= 2
    assert np.mean(distances) > 0.3  # and the standard errors are not inflated: |normal| has mean 0.8


@pytest.mark.parametrize("wrong", [lambda gain, u: resample(-gain, u), lambda gain, u: resample(0 * gain, u)])
def test_the_same_judge_catches_wrong_weights(monkeypatch, wrong):
    """Two far modes and few rungs: wrong estimates are more than 8 standard errors off, right ones 6 with 2e-9."""
    rbm = RBM(np.full(4, -6.0), np.full(4, -5.9), np.full((4, 4), 3.05))  # two far modes

    def anneal_crudely():
        return anneal(rbm, [0.0, 0.25, 0.5, 1.0], n_populations=1000, n_replicas=20, seed=2).estimate

    right = anneal_crudely()
    assert abs(right.log_partition - exact_log_partition(rbm)) < 6 * right.standard_error
    monkeypatch.setattr(population, "resample", wrong)
    estimate = anneal_crudely()
    assert abs(estimate.log_partition - exact_log_partition(rbm)) > 8 * estimate.standard_error


def test_the_marginal_weight_varies_less_than_the_energy_would():
    """At the first rung both are averages over coins: the statement at the top of population.py, in numbers."""
    rbm = centred(5, 6, 3, scale=2.0)
    states = np.indices((2,) * 11).reshape(11, -1).T
    weight = np.exp(-0.3 * energy(rbm, states[:, :5], states[:, 5:])).reshape(2**5, 2**6)
    marginal = weight.mean(axis=1)
    assert marginal.mean() == pytest.approx(weight.mean())
    assert marginal.var() < 0.8 * weight.var()
    # And it is the weight in use: a single replica at its first rung has one of 2**5 values, not of 2**11.
    log_weights = anneal(rbm, [0.0, 1.0], n_populations=200, n_replicas=1, seed=0).log_weights
    possible = np.log(2.0**11 * np.exp(-energy(rbm, states[:, :5], states[:, 5:])).reshape(2**5, 2**6).mean(axis=1))
    assert abs(log_weights[:, None] - possible).min(axis=1).max() < 1e-12
    assert len(np.unique(log_weights.round(9))) > 25


def test_an_independent_machine_without_biases_is_free():
    rbm = RBM(np.zeros(3), np.zeros(2), np.zeros((3, 2)))
    result = anneal(rbm, LADDER, n_populations=3, n_replicas=7, seed=0)
    np.testing.assert_allclose(result.log_weights, 5 * np.log(2), rtol=1e-14)
    np.testing.assert_array_equal(result.effective_families, 7)  # equal weights: every replica copies itself
    assert result.estimate.standard_error < 1e-14


def test_shapes_and_families():
    rbm = centred(3, 2, 4, scale=1.0)
    result = anneal(rbm, LADDER, n_populations=4, n_replicas=50, seed=1)
    assert (result.z1.shape, result.z2.shape) == ((4, 50, 3), (4, 50, 2))
    assert np.isin(result.z1, [0, 1]).all()
    assert np.isin(result.z2, [0, 1]).all()
    assert (result.log_weights.shape, result.effective_families.shape) == ((4,), (4,))
    assert ((result.effective_families > 1) & (result.effective_families < 50)).all()
    alone = anneal(rbm, LADDER, n_populations=2, n_replicas=1, seed=1)
    np.testing.assert_array_equal(alone.effective_families, 1)


def test_families_by_hand(monkeypatch):
    """Five replicas, two rungs: 0 0 1 3 4, then of these 0 0 2 2 4: ancestors 0 0 1 1 4, sizes 2 2 1: 25 / 9."""
    turns = iter([[0, 0, 1, 3, 4], [0, 0, 2, 2, 4]])
    monkeypatch.setattr(population, "resample", lambda gain, _: np.tile(next(turns), (len(gain), 1)))
    result = anneal(centred(3, 2, 5, scale=1.0), [0.0, 0.5, 1.0], n_populations=2, n_replicas=5, seed=0)
    np.testing.assert_allclose(result.effective_families, 25 / 9)


def test_a_run_is_a_function_of_its_seed_and_populations_do_not_depend_on_each_other():
    rbm = centred(3, 3, 6, scale=1.0)
    few, many, other = (anneal(rbm, LADDER, n, 10, seed) for n, seed in ((2, 7), (5, 7), (2, 8)))
    np.testing.assert_array_equal(many.z1[:2], few.z1)
    np.testing.assert_array_equal(many.z2[:2], few.z2)
    np.testing.assert_array_equal(many.log_weights[:2], few.log_weights)
    assert (other.log_weights != few.log_weights).all()
    assert few.log_weights[0] != few.log_weights[1]


def test_resampling_by_hand():
    # Shares 1/8, 1/2, 3/8 of three replicas end at 3/8, 15/8, 3; the points are u, u + 1, u + 2.
    log_weights = np.log([[1.0, 4.0, 3.0]])
    assert resample(log_weights, [0.25]).tolist() == [[0, 1, 2]]
    assert resample(log_weights, [0.5]).tolist() == [[1, 1, 2]]
    assert resample(log_weights, [0.9]).tolist() == [[1, 2, 2]]
    assert resample([[0.0, 0.0, 0.0]] * 2, [0.0, 0.999]).tolist() == [[0, 1, 2]] * 2
    # Weights of any size, and one that holds all of it.
    assert resample([[5000.0, -5000.0, 0.0], [-5000.0, 0.0, -9000.0]], [0.0, 0.5]).tolist() == [[0, 0, 0], [1, 1, 1]]
    # The largest uniform of Philox; and the largest there is, where R - u rounds to R - 1: no point may be lost.
    assert resample(np.zeros((1, 4)), [1 - 2.0**-24]).tolist() == [[0, 1, 2, 3]]
    assert resample(np.zeros((1, 4)), [1 - 2.0**-53]).shape == (1, 4)
    # The point that rounding would lose goes to a replica that has weight: exp(-800) is 0.
    assert resample([[-800.0, 0.0, -800.0]], [1 - 2.0**-53]).tolist() == [[1, 1, 1]]
    assert resample([[0.0, 0.0, -800.0, -800.0]], [1 - 2.0**-53])[0, -1] == 1


@given(st.integers(1, 4), st.integers(1, 30), st.floats(0, 20), st.integers(0, 1000))
def test_resampling_copies_each_replica_its_share_rounded_down_or_up(n_populations, n_replicas, scale, seed):
    rng = np.random.default_rng(seed)
    log_weights = scale * rng.normal(size=(n_populations, n_replicas))
    parents = resample(log_weights, rng.uniform(size=n_populations))
    assert parents.shape == (n_populations, n_replicas)
    assert (np.diff(parents, axis=1) >= 0).all()
    for row, log_weight in zip(parents, log_weights, strict=True):
        due = n_replicas * np.exp(log_weight) / np.exp(log_weight).sum()
        copies = np.bincount(row, minlength=n_replicas)
        assert (copies >= np.floor(due - 1e-9)).all()
        assert (copies <= np.ceil(due + 1e-9)).all()


def test_the_average_number_of_copies_is_the_share():
    """Averages over a grid of 100,000 values of u are exact to 1 / 100,000 for each end of a replica's piece."""
    rng = np.random.default_rng(7)
    log_weights = 2 * rng.normal(size=6)
    u = (np.arange(100_000) + 0.5) / 100_000
    parents = resample(np.tile(log_weights, (len(u), 1)), u)
    average = np.bincount(parents.ravel(), minlength=6) / len(u)
    np.testing.assert_allclose(average, 6 * np.exp(log_weights) / np.exp(log_weights).sum(), atol=2.1e-5)


def test_resample_refuses():
    zeros, u = np.zeros((2, 3)), np.full(2, 0.5)
    with pytest.raises(ShapeError, match=r"log_weights must be \(M, R\), populations by .* not empty; got \(3,\)"):
        resample(zeros[0], u)
    with pytest.raises(ShapeError, match=r"log_weights must be .* not empty; got \(2, 0\)"):
        resample(zeros[:, :0], u)
    with pytest.raises(ShapeError, match=r"u must be \(M,\) = \(2,\) to match log_weights; got \(2, 3\)"):
        resample(zeros, zeros)
    with pytest.raises(DomainError, match=r"log_weights must be finite; entry \(0, 0\) is -inf"):
        resample(zeros - np.inf, u)
    for bad in (1.0, -0.1, np.nan):
        with pytest.raises(DomainError, match=r"u must lie in \[0, 1\); entry 1 is"):
            resample(zeros, [0.5, bad])
    with pytest.raises(TypeError, match="log_weights must be float32 or float64"):
        resample(zeros.astype(complex), u)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"inv_temps": [0.1, 1.0]}, DomainError, r"inv_temps must start at 0, .*; got \[0\.1, 1\.0\]"),
        ({"inv_temps": [1.0]}, DomainError, r"inv_temps must start at 0, .*; got \[1\.0\]"),
        ({"inv_temps": [0.0, 0.5]}, DomainError, r"inv_temps must end at 1, .* the last entry is 0\.5"),
        ({"inv_temps": [0.0, 0.6, 0.5, 1.0]}, DomainError, r"inv_temps must rise strictly; entry 2 is 0\.5"),
        ({"inv_temps": [0.0, np.nan, 1.0]}, DomainError, r"inv_temps must lie in \[0, 1\]; entry 1 is nan"),
        ({"inv_temps": [[0.0, 1.0]]}, ShapeError, r"inv_temps must be a vector .* got \(1, 2\)"),
        ({"n_populations": 1}, DomainError, "n_populations must be a whole number of at least 2; got 1"),
        ({"n_replicas": 0}, DomainError, "n_replicas must be a whole number of at least 1; got 0"),
        ({"sweeps_per_rung": 0}, DomainError, "sweeps_per_rung must be a whole number of at least 1; got 0"),
        ({"seed": -1}, DomainError, "seed must lie in"),
        ({"inv_temps": np.array([0, 1j])}, TypeError, "inv_temps must be float32 or float64"),
    ],
)
def test_anneal_refuses(changes, error, match):
    arguments = {"inv_temps": [0.0, 1.0], "n_populations": 2, "n_replicas": 3, "seed": 0}
    with pytest.raises(error, match=match):
        anneal(centred(2, 2, 8, scale=1.0), **(arguments | changes))
