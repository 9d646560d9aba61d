"""Parallel tempering judged by joint probabilities (a swap) and by enumerating a machine with two far modes (a run)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reference import tempering
from reference.boltzmann import energy
from reference.gibbs import PersistentChains
from reference.tempering import run, swap
from reference.vocabulary import RBM, DomainError, ShapeError

LADDER = np.linspace(0.0, 1.0, 8)
N_CHAINS, N_ROUNDS = 4000, 121  # odd: the last round exchanges the top pair, so its result is judged too


def two_modes():
    """All units on, or all off, are the likely states, unequally so; between them lies a barrier of about 12 nats."""
    return RBM(np.full(4, -6.0), np.full(4, -6.0) + np.array([0.1, 0.2, -0.1, 0.0]), np.full((4, 4), 3.05))


def fit_p_value(rbm, z1, z2):
    """P-value of Pearson's chi-square that rows are independent draws; states too rare for it are counted together."""
    n = rbm.n1 + rbm.n2
    states = np.array(list(itertools.product([0, 1], repeat=n)), dtype=float)
    weight = np.exp(-energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :]))  # energy: judged in its own test
    expected = len(z1) * weight / weight.sum()
    counts = np.bincount((np.hstack([z1, z2]) @ 2 ** np.arange(n)[::-1]).astype(int), minlength=2**n)
    rare = expected < 5
    assert expected[rare].sum() > 5

    def pooled(cells):
        return np.append(cells[~rare], cells[rare].sum())

    return stats.chisquare(pooled(counts), pooled(expected)).pvalue


def test_a_run_samples_both_modes_where_gibbs_does_not():
    """4,000 independent chains; a p-value below 1e-7 has probability 1e-7. Gibbs alone, with as many sweeps, fails."""
    rbm = two_modes()
    result = run(rbm, LADDER, N_CHAINS, N_ROUNDS, seed=1)
    assert fit_p_value(rbm, result.z1, result.z2) > 1e-7
    assert result.swap_rates.shape == (7,)
    assert ((result.swap_rates > 0.1) & (result.swap_rates < 1)).all()
    alone = PersistentChains.init(rbm, N_CHAINS, seed=1).run(rbm, N_ROUNDS)
    assert fit_p_value(rbm, alone.z1, alone.z2) < 1e-7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda swap, e, b, u, parity: swap(-e, b, u, parity),  # the sign of the exponent
        lambda swap, e, b, u, parity: swap(0 * e, b, u, parity),  # every exchange accepted
        lambda swap, e, b, u, parity: swap(e, b / 2, u, parity),  # only half of the exponent
    ],
)
def test_the_same_judge_catches_wrong_swaps(monkeypatch, wrong):
    rbm = two_modes()
    monkeypatch.setattr(tempering, "swap", lambda *arguments: wrong(swap, *arguments))
    result = run(rbm, LADDER, N_CHAINS, N_ROUNDS, seed=1)
    assert fit_p_value(rbm, result.z1, result.z2) < 1e-7


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from([0, 1]), st.integers(0, 10**6))
def test_a_swap_accepts_by_the_ratio_of_joint_probabilities(n_replicas, n_chains, parity, seed):
    rng = np.random.default_rng(seed)
    energies = rng.normal(size=(n_replicas, n_chains))
    inv_temps = np.sort(rng.uniform(size=n_replicas))
    u = rng.uniform(size=(n_replicas - 1, n_chains))
    permutation = swap(energies, inv_temps, u, parity)
    for c in range(n_chains):
        expected = list(range(n_replicas))
        for r in range(parity, n_replicas - 1, 2):
            before = np.exp(-inv_temps[r] * energies[r, c]) * np.exp(-inv_temps[r + 1] * energies[r + 1, c])
            after = np.exp(-inv_temps[r] * energies[r + 1, c]) * np.exp(-inv_temps[r + 1] * energies[r, c])
            if u[r, c] < after / before:
                expected[r], expected[r + 1] = r + 1, r
        assert permutation[:, c].tolist() == expected


def test_swap_by_hand():
    # The hotter replica (b = 0) has found the lower energy: exchange always. Otherwise: with probability exp(-2).
    good, bad = [[-2.0], [0.0]], [[0.0], [-2.0]]
    assert swap(good, [0.0, 1.0], [[0.999]], 0).tolist() == [[1], [0]]
    assert swap(bad, [0.0, 1.0], [[np.exp(-2) + 1e-9]], 0).tolist() == [[0], [1]]
    assert swap(bad, [0.0, 1.0], [[np.exp(-2) - 1e-9]], 0).tolist() == [[1], [0]]
    assert swap(good, [0.0, 1.0], [[0.5]], 1).tolist() == [[0], [1]]
    # Energies of any size: no overflow on the way.
    assert swap([[-1e300], [1e300]], [0.0, 1.0], [[0.5]], 0).tolist() == [[1], [0]]


def test_a_run_is_a_function_of_its_seed_and_its_rates_count_attempts():
    rbm = two_modes()
    first, again, other = (run(rbm, LADDER, 5, 3, seed, sweeps_per_round=2) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.z1, again.z1)
    np.testing.assert_array_equal(first.z2, again.z2)
    assert (first.z1 != other.z1).any() or (first.z2 != other.z2).any()
    once = run(rbm, LADDER, 5, 1, seed=3).swap_rates  # one round tries the even pairs only
    assert np.isfinite(once[::2]).all()
    assert np.isnan(once[1::2]).all()
    # All energies equal: every exchange is accepted.
    flat = RBM(np.zeros(2), np.zeros(2), np.zeros((2, 2)))
    np.testing.assert_array_equal(run(flat, LADDER, 5, 4, seed=3).swap_rates, 1)
    assert run(rbm, [1.0], 5, 2, seed=3).swap_rates.shape == (0,)


def test_swap_refuses():
    energies, inv_temps, u = np.zeros((3, 2)), np.array([0.0, 0.5, 1.0]), np.full((2, 2), 0.5)
    with pytest.raises(ShapeError, match=r"energies must be \(R, C\), replicas by chains; got \(3,\)"):
        swap(energies[:, 0], inv_temps, u, 0)
    with pytest.raises(ShapeError, match=r"inv_temps must be \(R,\) = \(3,\) to match energies; got \(2,\)"):
        swap(energies, inv_temps[:2], u, 0)
    with pytest.raises(ShapeError, match=r"u must be \(R - 1, C\) = \(2, 2\) to match energies; got \(3, 2\)"):
        swap(energies, inv_temps, energies, 0)
    with pytest.raises(DomainError, match=r"energies must be finite; entry \(0, 0\) is nan"):
        swap(energies * np.nan, inv_temps, u, 0)
    with pytest.raises(DomainError, match=r"inv_temps must be finite and not negative; entry 1 is -0\.5"):
        swap(energies, -inv_temps, u, 0)
    with pytest.raises(DomainError, match=r"u must lie in \[0, 1\]; entry \(0, 0\) is 1\.5"):
        swap(energies, inv_temps, 3 * u, 0)
    with pytest.raises(DomainError, match="parity must be 0 or 1; got 2"):
        swap(energies, inv_temps, u, 2)
    with pytest.raises(TypeError, match="energies must be float32 or float64"):
        swap(energies.astype(complex), inv_temps, u, 0)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"inv_temps": [0.0, 0.5, 0.5, 1.0]}, DomainError, "inv_temps must rise strictly; entry 2 is 0.5"),
        ({"inv_temps": [0.0, 0.9]}, DomainError, "inv_temps must end at 1, .* the last entry is 0.9"),
        ({"inv_temps": [-0.1, 1.0]}, DomainError, r"inv_temps must lie in \[0, 1\]; entry 0 is -0\.1"),
        ({"inv_temps": [np.nan, 1.0]}, DomainError, r"inv_temps must lie in \[0, 1\]; entry 0 is nan"),
        ({"inv_temps": [[1.0]]}, ShapeError, r"inv_temps must be a vector .* got \(1, 1\)"),
        ({"inv_temps": []}, ShapeError, "inv_temps must be a vector"),
        ({"n_chains": 0}, DomainError, "n_chains must be a whole number of at least 1; got 0"),
        ({"n_rounds": 0}, DomainError, "n_rounds must be a whole number"),
        ({"sweeps_per_round": 0}, DomainError, "sweeps_per_round must be a whole number"),
        ({"seed": -1}, DomainError, "seed must lie in"),
    ],
)
def test_run_refuses(changes, error, match):
    with pytest.raises(error, match=match):
        run(two_modes(), **({"inv_temps": [0.0, 1.0], "n_chains": 2, "n_rounds": 2, "seed": 0} | changes))
