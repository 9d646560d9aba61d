"""Exchanges of parallel tempering judged by joint probabilities; the samples of a run are judged in test_samplers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.tempering import run, swap
from reference.vocabulary import RBM, DomainError, ShapeError

LADDER = np.linspace(0.0, 1.0, 8)


def two_modes():
    """All units on, or all off, are the likely states, unequally so; between them lies a barrier of about 12 nats."""
    return RBM(np.full(4, -6.0), np.full(4, -6.0) + np.array([0.1, 0.2, -0.1, 0.0]), np.full((4, 4), 3.05))


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
    rates = run(rbm, LADDER, 200, 20, seed=3).swap_rates
    assert rates.shape == (7,)
    assert ((rates > 0.1) & (rates < 1)).all()
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
