"""Annealed importance sampling judged by enumeration of tiny machines, weak and strongly coupled."""

import itertools

import numpy as np
import pytest
from scipy.special import expit

from reference import partition, tempering
from reference.boltzmann import energy
from reference.partition import (
    Bracket,
    Estimate,
    anneal,
    anneal_reverse,
    bracket,
    fitted_base,
    forward_estimate,
    reverse_estimate,
)
from reference.vocabulary import RBM, DomainError, ShapeError

LADDER = np.linspace(0.0, 1.0, 101)
CRUDE = np.array([0.0, 0.3, 0.6, 1.0])


def random_machine(rng, scale):
    """Up to 5 + 5 units; biases that centre the couplings, so that strong ones make several far modes."""
    n1, n2 = rng.integers(2, 6, size=2)
    W = scale * rng.normal(size=(n1, n2))
    return RBM(rng.normal(size=n1) - W.sum(axis=1) / 2, rng.normal(size=n2) - W.sum(axis=0) / 2, W)


def enumerated(rbm):
    """Exact log Z, all z1 (S, N1) and their probabilities, from the joint states (energy is judged in its own test)."""
    states = np.array(list(itertools.product([0, 1], repeat=rbm.n1 + rbm.n2)), dtype=float)
    weight = np.exp(-energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :]))
    by_z1 = weight.reshape(2**rbm.n1, 2**rbm.n2).sum(axis=1)
    return np.log(weight.sum()), states[:: 2**rbm.n2, : rbm.n1], by_z1 / by_z1.sum()


def exact_z1(rbm, n_draws, rng):
    _, z1, probs = enumerated(rbm)
    return z1[rng.choice(len(z1), size=n_draws, p=probs)]


def uniform_base(rbm):
    return RBM(np.zeros(rbm.n1), np.zeros(rbm.n2), np.zeros_like(rbm.W))


def distance(estimate, truth):
    """Distance from the truth in standard errors."""
    return abs(estimate.log_partition - truth) / estimate.standard_error


def test_both_directions_agree_with_enumeration():
    """60 estimates over 30 machines, each beyond 4 standard errors with probability 6.3e-5: three or more, 9e-9."""
    rng = np.random.default_rng(1)
    distances = []
    for seed in range(30):
        rbm = random_machine(rng, scale=(0.5, 2.0, 4.0)[seed % 3])
        truth = enumerated(rbm)[0]
        base = uniform_base(rbm) if seed % 2 else fitted_base(rng.uniform(size=rbm.n1), rng.uniform(size=rbm.n2))
        forward = forward_estimate(rbm, base, LADDER, 300, seed)
        reverse = reverse_estimate(rbm, base, LADDER, exact_z1(rbm, 300, rng), seed)
        assert min(forward.effective_sample_size, reverse.effective_sample_size) > 40  # else the errors mean little
        distances += [distance(forward, truth), distance(reverse, truth)]
    assert sum(d > 4 for d in distances) <= 2
    assert np.mean(distances) > 0.3  # and the standard errors are not inflated: |normal| has mean 0.8


def crude_weights(rbm, base, rng, n_chains=100_000):
    """Weights over their known mean, forward and reverse, on a ladder so crude that errors cannot hide."""
    truth = enumerated(rbm)[0]
    return (
        np.exp(anneal(rbm, base, CRUDE, n_chains, seed=5) - truth),
        np.exp(anneal_reverse(rbm, base, CRUDE, exact_z1(rbm, n_chains, rng), seed=5) + truth),
    )


def crude_machine():
    rng = np.random.default_rng(2)
    rbm = RBM(rng.normal(size=3), rng.normal(size=2), 1.5 * rng.normal(size=(3, 2)))
    return rbm, fitted_base([0.3, 0.6, 0.5], [0.8, 0.4]), rng


def errors_from_one(weights):
    return abs(weights.mean() - 1) / (weights.std() / np.sqrt(len(weights)))


def test_mean_weights_are_unbiased_on_a_crude_ladder():
    """100,000 bounded weights: the mean leaves 5.5 standard errors with probability 4e-8."""
    for weights in crude_weights(*crude_machine()):
        assert errors_from_one(weights) < 5.5
        assert weights.std() > 0.1  # the ladder is crude indeed


def test_the_same_judge_catches_wrong_variants(monkeypatch):
    rbm, base, rng = crude_machine()
    for weights in crude_weights(rbm, base, rng):
        # The mean of the logs in place of the log of the mean.
        log_weights = np.log(weights)
        assert abs(log_weights.mean()) > 5.5 * log_weights.std() / np.sqrt(len(weights))
    # Chains that start from coins where samples of the machine are due.
    coins = rng.integers(0, 2, size=(100_000, 3))
    wrong_start = np.exp(anneal_reverse(rbm, base, CRUDE, coins, seed=5) + enumerated(rbm)[0])
    assert errors_from_one(wrong_start) > 5.5
    # Conditionals that are too certain: the sweep leaves another distribution unchanged.
    uniform = uniform_base(rbm)  # its own first draw is not touched by the change
    for weights in crude_weights(rbm, uniform, rng):
        assert errors_from_one(weights) < 5.5
    monkeypatch.setattr(partition, "sigmoid", lambda logits: expit(2 * logits))
    for weights in crude_weights(rbm, uniform, rng):
        assert errors_from_one(weights) > 5.5


def test_brackets_from_tempered_samples_contain_the_truth():
    """7 machines, 14 ends at 3 standard errors, each on the wrong side with probability 1.35e-3: three or more, 9e-7.

    The biases of both directions widen the bracket and make that rarer still.
    """
    rng = np.random.default_rng(3)
    outside, far = 0, 0
    for seed in range(7):
        rbm = random_machine(rng, scale=(1.0, 4.0)[seed % 2])
        truth = enumerated(rbm)[0]
        result = bracket(rbm, seed, n_chains=300, n_machines=150, n_replicas=8, n_rounds=100)
        outside += (result.low > truth) + (result.high < truth)
        far += (distance(result.lower, truth) > 4) + (distance(result.upper, truth) > 4)
        assert result.low < result.high
        assert result.high - result.low < 1.5
    assert outside <= 2
    assert far <= 2


def test_a_bracket_is_inconsistent_when_samples_are_not_samples():
    # Two modes: all units off, and all on, 5 nats less likely. Reverse chains that all start in the second, and are
    # hurried, find its Z and not the machine's: the "upper" estimate falls below the lower one.
    rbm = RBM(np.full(4, -4.0), np.full(4, -5.25), np.full((4, 4), 2.0))
    base = uniform_base(rbm)
    truth, _, probs = enumerated(rbm)
    assert probs[0] > 50 * probs[-1]
    lower = forward_estimate(rbm, base, LADDER, 300, seed=0)
    honest = Bracket(lower, reverse_estimate(rbm, base, LADDER, exact_z1(rbm, 300, np.random.default_rng(0)), seed=0))
    assert honest.consistent
    assert honest.low < truth < honest.high
    fooled = Bracket(lower, reverse_estimate(rbm, base, [0.0, 0.9, 1.0], np.ones((300, 4)), seed=0))
    assert not fooled.consistent
    assert fooled.width < 0


def test_independent_machines_have_weights_without_spread():
    rng = np.random.default_rng(4)
    base = RBM(3 * rng.normal(size=6), 3 * rng.normal(size=4), np.zeros((6, 4)))
    truth = np.log1p(np.exp(base.a1)).sum() + np.log1p(np.exp(base.a2)).sum()
    result = bracket(base, 0, base, n_chains=10, n_machines=20, n_rounds=2)
    for estimate in (result.lower, result.upper):
        assert estimate.log_partition == pytest.approx(truth, rel=1e-13)
        assert estimate.standard_error < 1e-13
        assert estimate.effective_sample_size == pytest.approx(10)
    assert result.consistent  # rounding is no disagreement
    # Biases alone, from coins, are annealed away exactly only on average.
    coins = forward_estimate(base, uniform_base(base), LADDER, 400, seed=0)
    assert distance(coins, truth) < 5.5


def test_estimates_by_hand(monkeypatch):
    # Weights 1 and 3: mean 2, standard deviation sqrt(2), so SE = sqrt(2) / (2 sqrt(2)) = 1/2; ESS = 16 / 10.
    rbm = RBM(np.zeros(1), np.zeros(1), np.zeros((1, 1)))
    log_weights = 5000 + np.log([1.0, 3.0])
    monkeypatch.setattr(partition, "anneal", lambda *_: log_weights)
    monkeypatch.setattr(partition, "anneal_reverse", lambda *_: log_weights)
    forward = forward_estimate(rbm, rbm, LADDER, 2, 0)
    reverse = reverse_estimate(rbm, rbm, LADDER, [[0], [1]], 0)
    assert forward.log_partition == pytest.approx(5000 + np.log(2), rel=1e-15)
    assert reverse.log_partition == -forward.log_partition
    for estimate in (forward, reverse):
        assert estimate.standard_error == pytest.approx(0.5, rel=1e-12)
        assert estimate.effective_sample_size == pytest.approx(1.6, rel=1e-12)
        assert estimate.n_chains == 2


def test_bracket_arithmetic():
    lower, upper = Estimate(10.0, 0.3, 50.0, 100), Estimate(11.0, 0.4, 50.0, 100)
    result = Bracket(lower, upper)
    assert result.width == 1.0
    assert result.consistent
    assert (result.low, result.high) == (pytest.approx(9.1), pytest.approx(12.2))
    # Combined standard error 0.5: crossing by 1.49 may be chance, by 1.51 not.
    assert Bracket(Estimate(12.49, 0.3, 50.0, 100), upper).consistent
    assert not Bracket(Estimate(12.51, 0.3, 50.0, 100), upper).consistent


def test_log_weights_are_a_function_of_the_seed():
    rbm = random_machine(np.random.default_rng(6), 1.0)
    base, z1 = uniform_base(rbm), np.zeros((4, rbm.n1))
    np.testing.assert_array_equal(anneal(rbm, base, CRUDE, 4, 1), anneal(rbm, base, CRUDE, 6, 1)[:4])
    assert (anneal(rbm, base, CRUDE, 4, 1) != anneal(rbm, base, CRUDE, 4, 2)).any()
    np.testing.assert_array_equal(
        anneal_reverse(rbm, base, CRUDE, z1, 1), anneal_reverse(rbm, base, CRUDE, z1.astype(bool), 1)
    )


def test_fitted_base_has_the_clipped_means():
    base = fitted_base([0.0, 0.25, 1.0], np.array([0.5], np.float32), clip=0.1)
    np.testing.assert_allclose(np.exp(base.a1) / (1 + np.exp(base.a1)), [0.1, 0.25, 0.9], rtol=1e-14)
    assert base.a2.tolist() == [0.0]
    assert base.W.shape == (3, 1)
    assert not base.W.any()
    with pytest.raises(DomainError, match=r"data_means1 must lie in \[0, 1\]; entry 1 is 1\.2"):
        fitted_base([0.0, 1.2], [0.5])
    with pytest.raises(DomainError, match=r"data_means2 must lie in \[0, 1\]; entry 0 is nan"):
        fitted_base([0.0], [np.nan])
    with pytest.raises(ShapeError, match=r"data_means2 must be a vector with at least one unit; got \(1, 1\)"):
        fitted_base([0.0], [[0.5]])
    with pytest.raises(TypeError, match="data_means1 must be float32 or float64"):
        fitted_base(np.zeros(2, np.float16), [0.5])
    for clip in (0.0, 0.6, np.nan):
        with pytest.raises(DomainError, match=r"clip must lie in \(0, 1/2\]"):
            fitted_base([0.5], [0.5], clip)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"inv_temps": [0.1, 1.0]}, DomainError, "inv_temps must start at 0, the base; the first entry is 0.1"),
        ({"inv_temps": [0.0, 0.5]}, DomainError, "inv_temps must end at 1"),
        ({"inv_temps": [0.0, 0.5, 0.4, 1.0]}, DomainError, "inv_temps must rise strictly; entry 2 is 0.4"),
        ({"inv_temps": [0.0, np.nan, 1.0]}, DomainError, r"inv_temps must lie in .* entry 1 is nan"),
        ({"inv_temps": 1.0}, ShapeError, "inv_temps must be a vector"),
        ({"base": RBM([0.0], [0.0], [[0.5]])}, DomainError, r"base\.W must be 0, .*; entry \(0, 0\) is 0\.5"),
        ({"base": RBM([0.0], [0.0, 0.0], [[0.0, 0.0]])}, ShapeError, r"base must have as many units .* got \(1, 2\)"),
        ({"seed": -1}, DomainError, "seed must lie in"),
        ({"n_chains": 0, "z1": np.zeros((0, 1))}, DomainError, "must be a whole number of at least"),
        ({"n_chains": 1, "z1": [[0]]}, DomainError, "must be a whole number of at least 2; got 1"),
        ({"n_chains": 2.5, "z1": [[np.nan], [0]]}, DomainError, r"n_chains must be a whole|z1 must .* is nan"),
        ({"n_chains": -3, "z1": [[0.5], [0]]}, DomainError, r"n_chains must be a whole|z1 must be 0 or 1; .* is 0\.5"),
    ],
)
def test_estimates_refuse(changes, error, match):
    rbm = RBM([0.0], [0.0], [[1.0]])
    arguments = {"rbm": rbm, "base": uniform_base(rbm), "inv_temps": LADDER, "seed": 0} | changes
    z1 = arguments.pop("z1", np.zeros((2, 1)))
    n_chains = arguments.pop("n_chains", 2)
    with pytest.raises(error, match=match):
        forward_estimate(**arguments, n_chains=n_chains)
    with pytest.raises(error, match=match):
        reverse_estimate(**arguments, z1=z1)


def test_reverse_and_bracket_refuse():
    rbm = RBM([0.0], [0.0], [[1.0]])
    with pytest.raises(ShapeError, match=r"z1 must be \(B, 1\), one row per sample; got \(2, 3\)"):
        anneal_reverse(rbm, uniform_base(rbm), LADDER, np.zeros((2, 3)), 0)
    with pytest.raises(DomainError, match="n_replicas must be a whole number of at least 2; got 1"):
        bracket(rbm, 0, n_replicas=1)
    with pytest.raises(DomainError, match="n_machines must be a whole number of at least 1; got 0"):
        bracket(rbm, 0, n_machines=0)
    with pytest.raises(DomainError, match="n_rounds must be a whole number of at least 1; got 0"):
        bracket(rbm, 0, n_rounds=0, n_machines=2, n_chains=2)


def test_bracket_takes_its_samples_from_tempering(monkeypatch):
    rbm, calls = RBM([0.0], [0.0], [[1.0]]), []

    def recorded(machine, inv_temps, n_chains, n_rounds, seed):
        calls.append((machine, len(inv_temps), n_chains, n_rounds, seed))
        return tempering.Tempered(np.zeros((n_chains, 1)), np.zeros((n_chains, 1)), np.zeros(0))

    monkeypatch.setattr(partition.tempering, "run", recorded)
    bracket(rbm, 9, n_chains=4, n_machines=3, n_replicas=5, n_rounds=6)
    assert calls == [(rbm, 5, 4, 6, 9)]
