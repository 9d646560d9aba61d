"""Annealed importance sampling in torch judged by enumeration of tiny machines, weak and strongly coupled."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import reference.boltzmann
import reference.partition
from dvaepp import partition, tempering
from dvaepp.boltzmann import RBM
from dvaepp.partition import Base, anneal, anneal_reverse, bracket, exact, forward_estimate
from reference.vocabulary import RBM as ReferenceRBM

LADDER = torch.linspace(0, 1, 101, dtype=torch.float64)
CRUDE = torch.tensor([0.0, 0.3, 0.6, 1.0], dtype=torch.float64)


@pytest.fixture
def nothing_enumerated(monkeypatch):
    """Anneal even machines that could be enumerated, so that enumeration can be the judge."""
    monkeypatch.setattr(partition, "ENUMERATED", 0)


def twins(a1, a2, W, dtype=torch.float32):
    """The same machine in the reference and in torch; its parameters are float32 numbers, so both hold the same."""
    parameters = [np.asarray(value).astype(np.float32) for value in (a1, a2, W)]
    module = RBM(len(a1), len(a2)).to(dtype)
    with torch.no_grad():
        for parameter, value in zip((module.a1, module.a2, module.W), parameters, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return ReferenceRBM(*parameters), module


def random_machine(rng, scale, dtype=torch.float32):
    """Up to 6 + 6 units; biases that centre the couplings, so that strong ones make several far modes."""
    n1, n2 = rng.integers(2, 7, size=2)
    W = scale * rng.normal(size=(n1, n2))
    return twins(rng.normal(size=n1) - W.sum(axis=1) / 2, rng.normal(size=n2) - W.sum(axis=0) / 2, W, dtype)


def enumerated(rbm):
    """Exact log Z, all z1 (S, N1) and their probabilities, from the joint states."""
    states = np.array(list(itertools.product([0, 1], repeat=rbm.n1 + rbm.n2)), dtype=float)
    weight = np.exp(-reference.boltzmann.energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :]))
    by_z1 = weight.reshape(2**rbm.n1, 2**rbm.n2).sum(axis=1)
    return np.log(weight.sum()), states[:: 2**rbm.n2, : rbm.n1], by_z1 / by_z1.sum()


def exact_z1(rbm, n_draws, rng, dtype=torch.float32):
    _, z1, probs = enumerated(rbm)
    return torch.from_numpy(z1[rng.choice(len(z1), size=n_draws, p=probs)]).to(dtype)


def uniform_base(rbm, dtype=torch.float32):
    return Base(torch.zeros(rbm.n1, dtype=dtype), torch.zeros(rbm.n2, dtype=dtype))


def distance(estimate, truth):
    """Distance from the truth in standard errors."""
    return abs(estimate.log_partition - truth) / estimate.standard_error


@pytest.mark.usefixtures("nothing_enumerated")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_directions_agree_with_enumeration(dtype):
    """60 estimates over 30 machines, each beyond 4 standard errors with probability 6.3e-5: three or more, 9e-9."""
    rng = np.random.default_rng(1)
    distances = []
    for seed in range(30):
        rbm, module = random_machine(rng, (0.5, 2.0, 4.0)[seed % 3], dtype)
        truth = enumerated(rbm)[0]
        means = torch.from_numpy(rng.uniform(size=rbm.n1 + rbm.n2))
        fitted = Base.fitted(means, rbm.n1)
        base = uniform_base(rbm, dtype) if seed % 2 else Base(fitted.a1.to(dtype), fitted.a2.to(dtype))
        forward = forward_estimate(module, base, 100, 300, seed)
        log_weights = anneal_reverse(module, base, LADDER, exact_z1(rbm, 300, rng, dtype), seed)
        assert log_weights.dtype == torch.float64
        reverse = reference.partition.estimate(log_weights.numpy(), sign=-1)
        assert min(forward.effective_sample_size, reverse.effective_sample_size) > 40  # else the errors mean little
        distances += [distance(forward, truth), distance(reverse, truth)]
    assert sum(d > 4 for d in distances) <= 2
    assert np.mean(distances) > 0.3  # and the standard errors are not inflated: |normal| has mean 0.8


def crude_machine():
    rng = np.random.default_rng(2)
    rbm, module = twins(rng.normal(size=3), rng.normal(size=2), 1.5 * rng.normal(size=(3, 2)))
    return rbm, module, Base.fitted(torch.tensor([0.3, 0.6, 0.5, 0.8, 0.4]), 3), rng


def crude_weights(rbm, module, base, rng, n_chains=100_000):
    """Weights over their known mean, forward and reverse, on a ladder so crude that errors cannot hide."""
    truth = enumerated(rbm)[0]
    forward = anneal(module, base, CRUDE, n_chains, 5)
    reverse = anneal_reverse(module, base, CRUDE, exact_z1(rbm, n_chains, rng), 5)
    return (forward - truth).exp().numpy(), (reverse + truth).exp().numpy()


def errors_from_one(weights):
    return abs(weights.mean() - 1) / (weights.std() / np.sqrt(len(weights)))


def test_mean_weights_are_unbiased_on_a_crude_ladder():
    """100,000 bounded weights, twice: a mean leaves 5.5 standard errors with probability 8e-8."""
    for weights in crude_weights(*crude_machine()):
        assert errors_from_one(weights) < 5.5
        assert weights.std() > 0.1  # the ladder is crude indeed


def test_the_same_judge_catches_wrong_variants(monkeypatch):
    rbm, module, base, rng = crude_machine()
    # Chains that start from coins where samples of the machine are due.
    coins = torch.from_numpy(rng.integers(0, 2, size=(100_000, 3))).float()
    wrong_start = anneal_reverse(module, base, CRUDE, coins, 5) + enumerated(rbm)[0]
    assert errors_from_one(wrong_start.exp().numpy()) > 5.5
    # Conditionals that are too certain: the sweep leaves another distribution unchanged.
    sigmoid_ = torch.Tensor.sigmoid_
    monkeypatch.setattr(torch.Tensor, "sigmoid_", lambda self: sigmoid_(self.mul_(2)))
    for weights in crude_weights(rbm, module, base, rng, 400_000):
        assert errors_from_one(weights) > 5.5


@pytest.mark.usefixtures("nothing_enumerated")
def test_brackets_from_tempered_samples_contain_the_truth():
    """8 machines, 16 ends at 3 standard errors, each on the wrong side with probability 1.35e-3: four or more, 6e-9.

    A z-score over 75 chains has tails a little heavier than that (t: 1.8e-3): four or more, 2e-8. The biases of both
    directions widen the bracket and make it rarer still.
    """
    rng = np.random.default_rng(3)
    outside, far = 0, 0
    for seed in range(8):
        rbm, module = random_machine(rng, scale=(1.0, 4.0)[seed % 2])
        truth = enumerated(rbm)[0]
        base = Base.fitted(torch.full((rbm.n1 + rbm.n2,), 0.4), rbm.n1)
        result = bracket(module, base, 150, 300, seed, n_replicas=8, n_rounds=100)
        outside += (result.low > truth) + (result.high < truth)
        far += (distance(result.lower, truth) > 4) + (distance(result.upper, truth) > 4)
        assert result.lower.n_chains == 300
        assert result.upper.n_chains == 75
        assert result.low < result.high
        assert result.high - result.low < 1.5
        assert result.consistent
    assert outside <= 3
    assert far <= 3


def reverse_scores(monkeypatch, n_seeds):
    """z-scores of the bracket's upper end where the four snapshots of a chain are nearly copies of each other.

    One unit faces six that follow it: two equal modes, so that fair coins are exact samples of it, and a chain seldom
    leaves its mode. Snapshots are one round apart, and annealing in one step keeps the weights functions of the mode.
    The first scores are the bracket's own, the second those that follow from taking all snapshots for independent.
    """
    rbm, module = twins([-9.0], np.full(6, -1.5), np.full((1, 6), 3.0))
    truth = enumerated(rbm)[0]
    base = Base(torch.tensor([2.0]), torch.zeros(6))
    captured = []

    def capturing(*arguments):
        captured.append(anneal_reverse(*arguments))
        return captured[-1]

    monkeypatch.setattr(partition.tempering, "run", functools.partial(tempering.run, spacing=1))
    monkeypatch.setattr(partition, "anneal_reverse", capturing)
    honest, naive = [], []
    for seed in range(n_seeds):
        result = bracket(module, base, 1, 1200, seed, n_replicas=2, n_rounds=10)
        honest.append((result.upper.log_partition - truth) / result.upper.standard_error)
        every = reference.partition.estimate(captured[-1].numpy(), sign=-1)
        assert every.log_partition == pytest.approx(result.upper.log_partition, abs=1e-12)
        naive.append((every.log_partition - truth) / every.standard_error)
    return np.array(honest), np.array(naive)


@pytest.mark.usefixtures("nothing_enumerated")
def test_the_reverse_estimates_error_allows_for_chains_that_repeat_themselves(monkeypatch):
    """150 seeds, sum of squared z-scores: chi-square of 150 leaves its quantiles (mean squares 0.5, 1.7) w. p. 2e-7.

    The error that takes snapshots for independent fails the same judge.
    """
    honest, naive = reverse_scores(monkeypatch, 150)
    limit = stats.chi2.isf(1e-7, 150)
    assert (honest**2).sum() < limit
    assert (honest**2).sum() > stats.chi2.ppf(1e-7, 150)  # nor is it inflated
    assert (naive**2).sum() > limit


def test_small_machines_are_enumerated_whatever_the_seed():
    rng = np.random.default_rng(6)
    for n1, n2 in ((16, 20), (20, 16), (1, 1), (3, 300)):
        rbm, module = twins(rng.normal(size=n1), rng.normal(size=n2), 0.5 * rng.normal(size=(n1, n2)))
        value = exact(module)
        assert value.log_partition == pytest.approx(reference.boltzmann.log_partition(rbm), rel=1e-15)
        assert (value.standard_error, value.effective_sample_size, value.n_chains) == (0, 1, 1)
        assert forward_estimate(module, uniform_base(rbm), 10, 10, 0) == value
        both = bracket(module, uniform_base(rbm), 10, 10, 1)
        assert both.lower == both.upper == value
        assert both.consistent
        assert both.width == 0
        assert both.low == both.high == value.log_partition
    assert exact(RBM(17, 17)) is None


def test_a_machine_that_is_annealed_by_default():
    """Beyond 5 standard errors: the forward end w. p. 6e-7, the reverse one (t, 63 degrees of freedom) 5e-6."""
    rng = np.random.default_rng(7)
    rbm, module = twins(rng.normal(size=17), rng.normal(size=18), 0.6 * rng.normal(size=(17, 18)))
    truth = reference.boltzmann.log_partition(rbm)
    base = uniform_base(rbm)
    result = bracket(module, base, 400, 256, 1, n_rounds=150)
    assert distance(result.lower, truth) < 5
    assert distance(result.upper, truth) < 5
    assert result.consistent
    assert 0 < result.lower.standard_error < 0.2
    again = bracket(module, base, 400, 256, 1, n_rounds=150)
    assert result == again


@pytest.mark.parametrize("n_chains", [1, 2, 3, 4, 5, 9])
@pytest.mark.usefixtures("nothing_enumerated")
def test_every_number_of_chains_gives_a_reverse_estimate(n_chains):
    _, module = twins([0.5, 0.1], [0.2, -0.3], [[0.5, 0.1], [0.3, -1.0]])
    base = Base(torch.zeros(2), torch.zeros(2))
    if n_chains == 1:
        with pytest.raises(ValueError, match="at least 2"):
            bracket(module, base, 20, n_chains, 0, n_rounds=5)
        return
    result = bracket(module, base, 20, n_chains, 0, n_rounds=5)
    assert result.upper.n_chains == max(2, math.ceil(n_chains / 4))
    assert np.isfinite([result.low, result.high]).all()


def test_a_fitted_base_is_the_references():
    means = np.array([0.0, 1e-4, 0.01, 0.3, 0.5, 0.999, 1.0]).astype(np.float32)
    for clip in (0.01, 0.2):
        ours = Base.fitted(torch.from_numpy(means), 3, clip)
        theirs = reference.partition.fitted_base(means[:3], means[3:], clip)
        assert ours.a1.dtype == ours.a2.dtype == torch.float32
        # 1 - clip rounds to float32 before its logit is taken: an error of eps / clip.
        np.testing.assert_allclose(ours.a1, theirs.a1, rtol=0, atol=2e-5)
        np.testing.assert_allclose(ours.a2, theirs.a2, rtol=0, atol=2e-5)
    # By hand: means 1/2 and 3/4 have odds 1 and 3, and log Z = -sum of log(1 - mean).
    base = Base.fitted(torch.tensor([0.5, 0.75], dtype=torch.float64), 1)
    assert base.a1.item() == 0
    assert base.a2.item() == pytest.approx(np.log(3), rel=1e-6)
    assert base.log_partition == pytest.approx(np.log(2) + np.log(4), rel=1e-6)


def test_log_weights_are_accumulated_in_double_precision():
    """A chain that cannot move: units of the first side are on with probability 1 - 1e-13 and pushed further that way.

    The increments then telescope to log f(all on) of the machine, over 2,000 machines of some 4 nats each.
    """
    n1, n2 = 200, 150
    rng = np.random.default_rng(8)
    rbm, module = twins(np.full(n1, 40.5), rng.normal(size=n2), 0.02 * rng.uniform(size=(n1, n2)))
    base = Base(torch.full((n1,), 30.0), torch.zeros(n2))
    ladder = torch.linspace(0, 1, 2001, dtype=torch.float64)
    log_weights = anneal(module, base, ladder, 5, 0)
    assert log_weights.dtype == torch.float64
    expected = reference.boltzmann.log_marginal_z1(rbm, np.ones((1, n1)))[0]
    assert expected > 8000
    # Increments are float32: 2,000 of size 4, each to 1e-6 or so. A float32 *sum* is rounded to 1e-3 in every step.
    np.testing.assert_allclose(log_weights.numpy(), expected, rtol=0, atol=3e-3)
    backwards = anneal_reverse(module, base, ladder, torch.ones(5, n1), 0)
    np.testing.assert_allclose(backwards.numpy(), -expected, rtol=0, atol=3e-3)


@pytest.mark.usefixtures("nothing_enumerated")
def test_independent_machines_have_weights_without_spread():
    rng = np.random.default_rng(4)
    rbm, module = twins(3 * rng.normal(size=6), 3 * rng.normal(size=4), np.zeros((6, 4)))
    base = Base(module.a1.detach().clone(), module.a2.detach().clone())
    truth = np.log1p(np.exp(rbm.a1)).sum() + np.log1p(np.exp(rbm.a2)).sum()
    result = bracket(module, base, 20, 16, 0, n_rounds=2)
    for estimate in (result.lower, result.upper):
        assert estimate.log_partition == pytest.approx(truth, abs=1e-5)
        assert estimate.standard_error < 1e-5
    assert base.log_partition == pytest.approx(truth, abs=1e-12)


@pytest.mark.gpu
@pytest.mark.usefixtures("nothing_enumerated")
def test_a_bracket_on_a_gpu():
    """Each end beyond 5 standard errors (t with 63 degrees of freedom) with probability 5e-6."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch finds none")
    rbm, module = random_machine(np.random.default_rng(9), 2.0)
    device = torch.device("cuda")
    base = Base.fitted(torch.full((rbm.n1 + rbm.n2,), 0.4, device=device), rbm.n1)
    result = bracket(module.to(device), base, 150, 256, 0, n_rounds=100)
    truth = enumerated(rbm)[0]
    assert distance(result.lower, truth) < 5
    assert distance(result.upper, truth) < 5
