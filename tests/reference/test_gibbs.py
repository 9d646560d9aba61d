"""Gibbs sweeps judged by enumerated conditionals, chains by their bits; where they end up, in test_samplers."""

import itertools

import numpy as np
import pytest

from reference.boltzmann import energy
from reference.gibbs import PersistentChains, as_chains, as_inv_temp_column, sweep
from reference.vocabulary import RBM, DomainError, ShapeError


def random_machine(n1, n2, seed, scale=0.8):
    rng = np.random.default_rng(seed)
    return RBM(scale * rng.normal(size=n1), scale * rng.normal(size=n2), scale * rng.normal(size=(n1, n2)))


def enumerated(rbm, inv_temp):
    """All joint states (S, N1 + N2), in the order of their binary codes, and their probabilities."""
    states = np.array(list(itertools.product([0, 1], repeat=rbm.n1 + rbm.n2)), dtype=float)
    weight = np.exp(-inv_temp * energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :]))  # energy: judged in its own test
    return states, weight / weight.sum()


def test_each_unit_turns_on_below_its_enumerated_conditional():
    rbm, inv_temp = random_machine(3, 2, 1), 0.7
    states, probs = enumerated(rbm, inv_temp)
    z1 = states[::4, :3]
    same_z1 = (states[None, :, :3] == z1[:, None]).all(axis=2) * probs
    on2 = (same_z1[:, :, None] * states[None, :, 3:]).sum(axis=1) / same_z1.sum(axis=1, keepdims=True)
    for shift, expected in ((-1e-12, 1), (1e-12, 0)):
        _, z2 = sweep(rbm, z1, on2 + shift, np.full_like(z1, 0.5), inv_temp)
        np.testing.assert_array_equal(z2, expected)
        same_z2 = (states[None, :, 3:] == z2[:, None]).all(axis=2) * probs
        on1 = (same_z2[:, :, None] * states[None, :, :3]).sum(axis=1) / same_z2.sum(axis=1, keepdims=True)
        for shift1, expected1 in ((-1e-12, 1), (1e-12, 0)):
            np.testing.assert_array_equal(sweep(rbm, z1, on2 + shift, on1 + shift1, inv_temp)[0], expected1)


def test_one_inverse_temperature_per_row():
    rbm = random_machine(3, 4, 2)
    rng = np.random.default_rng(2)
    z1 = rng.integers(0, 2, size=(50, 3))
    u2, u1, inv_temp = rng.uniform(size=(50, 4)), rng.uniform(size=(50, 3)), rng.uniform(0, 2, size=50)
    together = sweep(rbm, z1, u2, u1, inv_temp)
    for b in range(50):
        alone = sweep(rbm, z1[b : b + 1], u2[b : b + 1], u1[b : b + 1], inv_temp[b])
        np.testing.assert_array_equal(together[0][b], alone[0][0])
        np.testing.assert_array_equal(together[1][b], alone[1][0])
    coins = sweep(rbm, z1, u2, u1, 0.0)
    np.testing.assert_array_equal(coins[1], u2 < 0.5)


def test_chains_continue_from_state_seed_and_step_alone():
    rbm = random_machine(5, 7, 6)
    start = PersistentChains.init(rbm, 9, seed=2**64 - 1)
    whole = start.run(rbm, 10)
    halves = start.run(rbm, 4).run(rbm, 6)
    restored = PersistentChains(halves.z1.astype(np.uint8), halves.z2.astype(bool), halves.seed, halves.step)
    for other in (halves, restored, start.run(rbm, 0).run(rbm, 10)):
        assert other.step == whole.step == 10
        np.testing.assert_array_equal(other.z1, whole.z1)
        np.testing.assert_array_equal(other.z2, whole.z2)
    assert start.step == 0
    np.testing.assert_array_equal(start.run(rbm, 0).z1, start.z1)
    forgotten_step = PersistentChains(halves.z1, halves.z2, halves.seed, 0).run(rbm, 6)
    assert (forgotten_step.z1 != start.run(rbm, 4).run(rbm, 6).run(rbm, 6).z1).any()
    assert (PersistentChains.init(rbm, 9, seed=1).z1 != start.z1).any()


def test_the_first_chains_are_the_same_however_many_there_are():
    rbm = random_machine(3, 3, 7)
    few, many = (PersistentChains.init(rbm, n, seed=4).run(rbm, 5) for n in (3, 8))
    np.testing.assert_array_equal(many.z1[:3], few.z1)


def test_sweep_refuses():
    rbm = random_machine(2, 3, 8)
    z1, u2, u1 = np.zeros((4, 2)), np.full((4, 3), 0.5), np.full((4, 2), 0.5)
    with pytest.raises(DomainError, match=r"z1 must be 0 or 1; entry \(0, 0\) is 0\.5"):
        sweep(rbm, u1, u2, u1)
    with pytest.raises(DomainError, match=r"u2 must lie in \[0, 1\]; entry \(0, 0\) is nan"):
        sweep(rbm, z1, u2 * np.nan, u1)
    with pytest.raises(DomainError, match=r"u1 must lie in \[0, 1\]; entry \(0, 0\) is -0\.5"):
        sweep(rbm, z1, u2, -u1)
    with pytest.raises(DomainError, match=r"inv_temp must be finite and not negative; it is -1\.0"):
        sweep(rbm, z1, u2, u1, -1.0)
    with pytest.raises(DomainError, match="inv_temp must be finite and not negative; entry 3 is nan"):
        sweep(rbm, z1, u2, u1, [1, 1, 1, np.nan])
    with pytest.raises(ShapeError, match=r"inv_temp must be a scalar or \(4,\).*; got \(2,\)"):
        sweep(rbm, z1, u2, u1, [1.0, 1.0])
    with pytest.raises(ShapeError, match=r"u2 must be \(B, 3\), one row per sample; got \(4, 2\)"):
        sweep(rbm, z1, u1, u2)
    with pytest.raises(ShapeError, match=r"z1 \(4, 2\), u2 \(4, 3\), u1 \(3, 2\)"):
        sweep(rbm, z1, u2, u1[:3])
    with pytest.raises(TypeError, match="u1 must be float32 or float64"):
        sweep(rbm, z1, u2, u1.astype(np.float16))


def test_chains_refuse():
    rbm = random_machine(2, 3, 8)
    with pytest.raises(DomainError, match="n_chains must be a whole number of at least 1; got 0"):
        PersistentChains.init(rbm, 0, seed=0)
    with pytest.raises(DomainError, match="seed must lie in"):
        PersistentChains.init(rbm, 2, seed=-1)
    chains = PersistentChains.init(rbm, 4, seed=0)
    with pytest.raises(DomainError, match="n_sweeps must be a whole number of at least 0; got -1"):
        chains.run(rbm, -1)
    with pytest.raises(ShapeError, match=r"z1 must be \(B, 3\), one row per sample; got \(4, 2\)"):
        chains.run(random_machine(3, 3, 8), 1)
    with pytest.raises(ShapeError, match="same number of rows"):
        PersistentChains(np.zeros((2, 2)), np.zeros((3, 3)), 0)
    with pytest.raises(ShapeError, match=r"z1 must be \(B, N\), one row per chain; got \(2,\)"):
        PersistentChains(np.zeros(2), np.zeros((2, 3)), 0)
    with pytest.raises(DomainError, match=r"z2 must be 0 or 1; entry \(1, 0\) is nan"):
        PersistentChains(np.zeros((2, 2)), np.array([[0.0], [np.nan]]), 0)
    with pytest.raises(DomainError, match="step must be a whole number"):
        PersistentChains(np.zeros((2, 2)), np.zeros((2, 3)), 0, -1)


def test_the_checks_that_samplers_share():
    np.testing.assert_array_equal(as_inv_temp_column(0.5, 3), [0.5])
    np.testing.assert_array_equal(as_inv_temp_column([0, 1, 2], 3), [[0.0], [1.0], [2.0]])
    with pytest.raises(ShapeError, match=r"inv_temp must be a scalar or \(3,\), one for each row; got \(3, 1\)"):
        as_inv_temp_column(np.ones((3, 1)), 3)
    with pytest.raises(DomainError, match="inv_temp must be finite and not negative; it is inf"):
        as_inv_temp_column(np.inf, 3)
    with pytest.raises(TypeError, match="inv_temp must be float32 or float64"):
        as_inv_temp_column(1j, 3)
    states = as_chains("z", [[True, False]])
    assert (states.dtype, states.tolist()) == (np.float64, [[1.0, 0.0]])
    with pytest.raises(ShapeError, match=r"z must be \(B, N\), one row per chain; got \(2,\)"):
        as_chains("z", [0, 1])
    with pytest.raises(DomainError, match=r"z must be 0 or 1; entry \(0, 1\) is 2\.0"):
        as_chains("z", [[0, 2]])
