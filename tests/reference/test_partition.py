"""Annealed importance sampling judged by enumeration of tiny machines, weak and strongly coupled."""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from reference import partition, tempering
from reference.boltzmann import energy
from reference.partition import (
    Bracket,
    Estimate,
    anneal,
    anneal_reverse,
    as_path,
    bennett_estimate,
    bracket,
    fitted_base,
    forward_estimate,
    independent_log_partition,
    path_biases,
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
    """24 estimates over 12 machines, each beyond 4 standard errors with probability 6.3e-5: any, 1.5e-3.

    Reverse annealing starts from exact samples here; from tempered ones, on 200 machines, in test_log_partition_study.
    """
    rng = np.random.default_rng(1)
    distances = []
    for seed in range(12):
        rbm = random_machine(rng, scale=(0.5, 2.0, 4.0)[seed % 3])
        truth = enumerated(rbm)[0]
        base = uniform_base(rbm) if seed % 2 else fitted_base(rng.uniform(size=rbm.n1), rng.uniform(size=rbm.n2))
        forward = forward_estimate(rbm, base, LADDER, 300, seed)
        reverse = reverse_estimate(rbm, base, LADDER, exact_z1(rbm, 300, rng), seed)
        assert min(forward.effective_sample_size, reverse.effective_sample_size) > 40  # else the errors mean little
        distances += [distance(forward, truth), distance(reverse, truth)]
    assert max(distances) < 4
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


def test_bennett_on_a_two_machine_path_by_hand():
    """Weights in exactly the proportions of their probabilities give exactly Z.

    f(z1 = 0) = 2, f(z1 = 1) = exp(a1) (1 + exp(W)) = 6, Z = 8; fair coins have Z = 4 and f = 2. Forward from z1 = 0, 1:
    weights 4, 12. Reverse from z1 = 0, 1, 1, 1: weights 1/4, 1/12. With two forward and four reverse, p = 2 w / (2 w +
    Z) is 1/2 and 3/4: forward sum 5/4, reverse sum of 1 - p = 1/2 + 3/4, equal. I = 2 / 4 + 4 * 3/16 = 5/4.
    """
    rbm, base = RBM([np.log(2)], [0.0], [[np.log(2)]]), RBM([0.0], [0.0], [[0.0]])
    forward = np.unique(anneal(rbm, base, [0.0, 1.0], 50, seed=0))
    np.testing.assert_allclose(np.exp(forward), [4, 12], rtol=1e-14)
    reverse = anneal_reverse(rbm, base, [0.0, 1.0], [[0], [1], [1], [1]], seed=0)
    result = bennett_estimate(forward, reverse)
    assert result.log_partition == pytest.approx(np.log(8), rel=1e-12)
    assert result.standard_error == pytest.approx(np.sqrt(4 / 5 - 1 / 2 - 1 / 4), rel=1e-11)
    assert result.effective_sample_size == pytest.approx(6 * 5 / 4 * (1 / 2 + 1 / 4), rel=1e-11)
    assert result.n_chains == 6


def bennett_in_multiprecision(log_weights, reverse_log_weights):
    """As Shirts et al. (2003) put it: works W = -log w, Fermi functions, a free energy F = -log Z, and a cosh."""
    with mpmath.workdps(60):
        works = [-mpmath.mpf(x) for x in log_weights] + [mpmath.mpf(x) for x in reverse_log_weights]
        n_forward, n = len(log_weights), len(works)
        M = mpmath.log(mpmath.mpf(n_forward) / (n - n_forward))

        def balance(F):
            forward = mpmath.fsum(1 / (1 + mpmath.exp(M + W - F)) for W in works[:n_forward])
            return forward - mpmath.fsum(1 / (1 + mpmath.exp(-(M + W - F))) for W in works[n_forward:])

        low, high = min(works) - 1, max(works) + 1
        for _ in range(150):  # bisection: 150 halvings of at most a few hundred nats
            middle = (low + high) / 2
            low, high = (middle, high) if balance(middle) < 0 else (low, middle)
        average = mpmath.fsum(1 / (2 + 2 * mpmath.cosh(M + W - low)) for W in works) / n
        variance = (1 / average - (mpmath.mpf(n) / n_forward + mpmath.mpf(n) / (n - n_forward))) / n
        return float(-low), float(mpmath.sqrt(variance))


@pytest.mark.parametrize(
    ("n_forward", "n_reverse", "spread", "apart"),
    [(5, 5, 1.0, 1.0), (3, 11, 2.0, 2.0), (20, 2, 0.5, 0.1), (4, 6, 1e-7, 0.0), (6, 6, 5.0, 60.0), (6, 5, 1.0, -20.0)],
)
def test_bennett_against_multiprecision(n_forward, n_reverse, spread, apart):
    """Including works that are all but equal, sets that hardly overlap, and sets in the order no honest walks have."""
    rng = np.random.default_rng([n_forward, n_reverse])
    forward = 700 + spread * rng.normal(size=n_forward)
    reverse = -(700 + apart + spread * rng.normal(size=n_reverse))
    log_partition, standard_error = bennett_in_multiprecision(forward, reverse)
    result = bennett_estimate(forward, reverse)
    assert result.log_partition == pytest.approx(log_partition, abs=1e-11)
    # p feels the rounding of works of 700, 1e-13; the spread of p is as small as the spread of the works.
    assert result.standard_error == pytest.approx(standard_error, rel=1e-9 + 1e-12 / spread)


log_weight_lists = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


@given(log_weight_lists, log_weight_lists, st.floats(-1e3, 1e3))
def test_bennett_lies_among_the_works_and_moves_with_them(forward, reverse, shift):
    result = bennett_estimate(forward, reverse)
    works = np.concatenate([forward, -np.array(reverse)])
    assert works.min() - 1e-9 <= result.log_partition <= works.max() + 1e-9
    assert 0 < result.effective_sample_size <= result.n_chains * (1 + 1e-9) or result.standard_error > 1e100
    assert result.standard_error >= 0
    # A machine times a constant, and the same walks with the roles of the two directions exchanged. Where the sets do
    # not overlap, log sums of p have flat stretches on which rounding decides.
    if result.standard_error > 100:
        return
    rounding = 1e-9 * (1 + result.standard_error)
    shifted = bennett_estimate(np.array(forward) + shift, np.array(reverse) - shift)
    assert shifted.log_partition == pytest.approx(result.log_partition + shift, abs=rounding)
    exchanged = bennett_estimate(reverse, forward)
    assert exchanged.log_partition == pytest.approx(-result.log_partition, abs=rounding)


def gaussian_walks(rng, truth, spread, n_forward, n_reverse):
    """Works with Gaussian densities whose ratio is exactly w / Z: log w ~ N(log Z -+ spread**2 / 2, spread**2)."""
    forward = truth - spread**2 / 2 + spread * rng.normal(size=n_forward)
    return forward, -(truth + spread**2 / 2 + spread * rng.normal(size=n_reverse))


def test_bennett_standard_errors_are_those_of_repeated_trials():
    """Root mean square of 400 distances in standard errors: 1 with standard deviation 0.035; 5 of those, 6e-7."""
    rng = np.random.default_rng(7)
    honest, copied, forward_only = [], [], []
    for _ in range(400):
        forward, reverse = gaussian_walks(rng, truth=-40.0, spread=1.5, n_forward=60, n_reverse=180)
        result = bennett_estimate(forward, reverse)
        honest.append((result.log_partition + 40) / result.standard_error)
        # Every reverse walk counted twice, as if it were two.
        doubled = bennett_estimate(forward, np.tile(reverse, 2))
        copied.append((doubled.log_partition + 40) / doubled.standard_error)
        forward_only.append(partition.estimate(forward, sign=1).log_partition + 40)
    rms = np.sqrt(np.mean(np.square([honest, copied]), axis=1))
    assert abs(rms[0] - 1) < 0.177
    assert abs(rms[1] - 1) > 0.177
    assert abs(np.mean(honest)) < 5 / np.sqrt(400)
    # The point of it all: less error than from the forward walks alone.
    assert np.std(forward_only) > 2 * np.std(honest) * result.standard_error


def test_bennett_without_overlap_or_without_spread():
    nothing_shared = bennett_estimate([0.0, 0.0], [-4000.0, -4000.0])
    assert nothing_shared.log_partition == pytest.approx(2000)
    assert nothing_shared.standard_error == np.inf
    assert nothing_shared.effective_sample_size == 0
    exact = bennett_estimate([3.0, 3.0, 3.0], [-3.0, -3.0])
    assert exact.log_partition == pytest.approx(3, abs=1e-11)
    assert exact.standard_error < 1e-11
    assert exact.effective_sample_size == pytest.approx(5)


def test_bennett_refuses():
    with pytest.raises(
        DomainError, match="the number of reverse_log_weights must be a whole number of at least 2; got 1"
    ):
        bennett_estimate([0.0, 1.0], [0.0])
    with pytest.raises(DomainError, match="log_weights must be finite; entry 1 is nan"):
        bennett_estimate([0.0, np.nan], [0.0, 1.0])
    with pytest.raises(DomainError, match="reverse_log_weights must be finite; entry 0 is -inf"):
        bennett_estimate([0.0, 1.0], [-np.inf, 1.0])
    with pytest.raises(ShapeError, match=r"log_weights must be a vector, one entry per chain; got \(1, 2\)"):
        bennett_estimate([[0.0, 1.0]], [0.0, 1.0])
    with pytest.raises(TypeError, match="reverse_log_weights must be float32 or float64"):
        bennett_estimate([0.0, 1.0], np.zeros(2, complex))


def test_estimate_refuses():
    with pytest.raises(DomainError, match="sign must be 1 or -1; got 0"):
        partition.estimate([0.0, 1.0], sign=0)
    with pytest.raises(DomainError, match="the number of log_weights must be a whole number of at least 2; got 1"):
        partition.estimate([0.0], sign=1)
    with pytest.raises(DomainError, match="log_weights must be finite; entry 0 is inf"):
        partition.estimate([np.inf, 0.0], sign=1)
    with pytest.raises(ShapeError, match=r"log_weights must be a vector, one entry per chain; got \(2, 1\)"):
        partition.estimate([[0.0], [1.0]], sign=1)


def test_the_path_by_hand():
    rbm, base = RBM([4.0], [8.0, 0.0], [[1.0, 2.0]]), RBM([0.0], [0.0, 4.0], [[0.0, 0.0]])
    a1, a2 = path_biases(rbm, base, 0.25)
    assert (a1.tolist(), a2.tolist()) == ([1.0], [2.0, 3.0])
    a1, a2 = path_biases(rbm, base, [0.0, 0.5, 1.0])
    assert (a1.tolist(), a2.tolist()) == ([[0.0], [2.0], [4.0]], [[0.0, 4.0], [4.0, 2.0], [8.0, 0.0]])
    assert as_path(rbm, base, [0, 1]).tolist() == [0.0, 1.0]
    assert independent_log_partition(base) == pytest.approx(np.log(2 * 2 * (1 + np.exp(4.0))), rel=1e-15)


def test_the_path_refuses():
    rbm, base = RBM([0.0], [0.0], [[1.0]]), RBM([0.0], [0.0], [[0.0]])
    with pytest.raises(DomainError, match=r"base\.W must be 0, so that the log Z of the base is known; .* is 1\.0"):
        independent_log_partition(rbm)
    with pytest.raises(DomainError, match=r"base\.W must be 0"):
        path_biases(rbm, rbm, 0.5)
    with pytest.raises(ShapeError, match=r"base must have as many units as the machine, \(1, 1\); got \(2, 1\)"):
        path_biases(rbm, RBM([0.0, 0.0], [0.0], [[0.0], [0.0]]), 0.5)
    with pytest.raises(DomainError, match=r"inv_temp must lie in \[0, 1\]; it is 1\.5"):
        path_biases(rbm, base, 1.5)
    with pytest.raises(ShapeError, match=r"inv_temp must be a scalar or a vector; got \(1, 1\)"):
        path_biases(rbm, base, [[0.5]])
    with pytest.raises(DomainError, match=r"inv_temps must start at 0, the base; the first entry is 0\.5"):
        as_path(rbm, base, [0.5, 1.0])


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
