"""Parallel tempering in torch: swaps against the reference, runs by enumerating a machine with two far modes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import reference.tempering
from dvaepp import tempering
from dvaepp.boltzmann import RBM
from dvaepp.gibbs import PersistentChains
from dvaepp.tempering import run, swap
from reference.boltzmann import energy
from reference.vocabulary import RBM as ReferenceRBM

LADDER = torch.linspace(0, 1, 8, dtype=torch.float64)
N_CHAINS, N_ROUNDS = 4000, 121  # odd: the last round exchanges the top pair, so its result is judged too


def two_modes():
    """All units on, or all off, are the likely states, unequally so; between them lies a barrier of about 12 nats."""
    rbm = ReferenceRBM(np.full(4, -6.0), np.full(4, -6.0) + np.array([0.1, 0.2, -0.1, 0.0]), np.full((4, 4), 3.05))
    module = RBM(4, 4)
    with torch.no_grad():
        for name in ("a1", "a2", "W"):
            getattr(module, name).copy_(torch.from_numpy(getattr(rbm, name)))
    return rbm, module


def fit_p_value(rbm, z1, z2):
    """P-value of Pearson's chi-square that rows are independent draws; states too rare for it are counted together."""
    n = rbm.n1 + rbm.n2
    states = np.array(list(itertools.product([0, 1], repeat=n)), dtype=float)
    weight = np.exp(-energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :]))
    expected = len(z1) * weight / weight.sum()
    code = torch.cat([z1, z2], dim=1).numpy() @ 2 ** np.arange(n)[::-1]
    counts = np.bincount(code.astype(int), minlength=2**n)
    rare = expected < 5
    assert expected[rare].sum() > 5

    def pooled(cells):
        return np.append(cells[~rare], cells[rare].sum())

    return stats.chisquare(pooled(counts), pooled(expected)).pvalue


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 7), st.integers(1, 5), st.sampled_from([0, 1]), st.integers(0, 10**6))
def test_a_swap_is_the_references(n_replicas, n_chains, parity, seed):
    rng = np.random.default_rng(seed)
    energies = 3 * rng.normal(size=(n_replicas, n_chains))
    inv_temps = np.sort(rng.uniform(size=n_replicas))
    u = rng.uniform(size=(n_replicas - 1, n_chains))
    ours = swap(torch.from_numpy(energies), torch.from_numpy(inv_temps), torch.from_numpy(u), parity)
    np.testing.assert_array_equal(ours.numpy(), reference.tempering.swap(energies, inv_temps, u, parity))


def test_swap_by_hand():
    # The hotter replica (b = 0) has found the lower energy: exchange always. Otherwise: with probability exp(-2).
    good, bad = torch.tensor([[-2.0], [0.0]]), torch.tensor([[0.0], [-2.0]])
    ladder = torch.tensor([0.0, 1.0])
    for energies, u, expected in (
        (good, 0.999, [[1], [0]]),
        (bad, 0.1354, [[0], [1]]),  # exp(-2) = 0.13534
        (bad, 0.1353, [[1], [0]]),
        (torch.tensor([[-1e30], [1e30]]), 0.5, [[1], [0]]),
        (torch.tensor([[1e30], [-1e30]]), 0.0, [[0], [1]]),
    ):
        assert swap(energies, ladder, torch.tensor([[u]]), 0).tolist() == expected
    assert swap(good, ladder, torch.tensor([[0.5]]), 1).tolist() == [[0], [1]]


def test_a_run_samples_both_modes_where_gibbs_does_not():
    """Three snapshots of 4,000 independent chains; one with a p-value below 1e-7 has probability 3e-7."""
    rbm, module = two_modes()
    result = run(module, LADDER, N_CHAINS, N_ROUNDS, 1, n_snapshots=3, spacing=10)
    assert result.z1.shape == result.z2.shape == (3 * N_CHAINS, 4)
    for snapshot in range(3):
        rows = slice(snapshot * N_CHAINS, (snapshot + 1) * N_CHAINS)
        assert fit_p_value(rbm, result.z1[rows], result.z2[rows]) > 1e-7
    assert result.swap_rates.shape == (7,)
    assert ((result.swap_rates > 0.1) & (result.swap_rates < 1)).all()
    alone = PersistentChains(N_CHAINS, 4, 4, seed=1)
    alone.run(module, N_ROUNDS)
    assert fit_p_value(rbm, alone.z1, alone.z2) < 1e-7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda e, b, u, parity: swap(-e, b, u, parity),  # the sign of the exponent
        lambda e, b, u, parity: swap(0 * e, b, u, parity),  # every exchange accepted
        lambda e, b, u, parity: swap(e, b / 2, u, parity),  # only half of the exponent
        lambda e, b, u, parity: swap(e, b, u, parity).roll(1, dims=1),  # another chain's decision
    ],
)
def test_the_same_judge_catches_wrong_swaps(monkeypatch, wrong):
    rbm, module = two_modes()
    monkeypatch.setattr(tempering, "swap", wrong)
    result = run(module, LADDER, N_CHAINS, N_ROUNDS, 1)
    assert fit_p_value(rbm, result.z1, result.z2) < 1e-7


def test_snapshots_are_the_same_run_stopped_later():
    _, module = two_modes()
    together = run(module, LADDER, 6, 20, 2, n_snapshots=4, spacing=5)
    assert together.z1.shape == (24, 4)
    for snapshot in range(4):
        alone = run(module, LADDER, 6, 20 + 5 * snapshot, 2)
        rows = slice(6 * snapshot, 6 * (snapshot + 1))
        assert torch.equal(together.z1[rows], alone.z1)
        assert torch.equal(together.z2[rows], alone.z2)
    torch.testing.assert_close(together.swap_rates, alone.swap_rates, rtol=0, atol=0)


def test_a_run_is_a_function_of_its_seed():
    _, module = two_modes()
    first, again, other = (run(module, LADDER, 5, 3, seed) for seed in (3, 3, 4))
    assert torch.equal(first.z1, again.z1)
    assert torch.equal(first.z2, again.z2)
    assert not (torch.equal(first.z1, other.z1) and torch.equal(first.z2, other.z2))


@pytest.mark.parametrize("n_rounds", [1, 2, 3, 4, 9])
def test_swap_rates_count_attempts(n_rounds):
    # All energies equal: every exchange is accepted, and a pair that was never tried has no rate.
    rates = run(RBM(2, 3), LADDER, 5, n_rounds, 5).swap_rates
    assert (rates[::2] == 1).all()
    assert rates[1::2].isnan().all() if n_rounds == 1 else (rates[1::2] == 1).all()


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.integers(1, 5), st.integers(2, 9), st.sampled_from([0.1, 1.0, 30.0]), st.integers(0, 100))
def test_swap_rates_lie_in_the_unit_interval(n_replicas, n_rounds, scale, seed):
    module = RBM(3, 2)
    with torch.no_grad():
        module.W.normal_(0, scale, generator=torch.Generator().manual_seed(seed))
    ladder = torch.linspace(0, 1, n_replicas) if n_replicas > 1 else torch.ones(1)
    result = run(module, ladder, 4, n_rounds, seed, n_snapshots=2, spacing=3)
    assert result.swap_rates.shape == (n_replicas - 1,)
    assert ((result.swap_rates >= 0) & (result.swap_rates <= 1)).all()
    for state in (result.z1, result.z2):
        assert ((state == 0) | (state == 1)).all()
        assert len(state) == 8


def test_the_runs_precision_is_the_machines():
    _, module = two_modes()
    result = run(module.double(), LADDER.float(), 4, 3, 6)
    assert result.z1.dtype == result.z2.dtype == torch.float64
    assert not result.z1.requires_grad
