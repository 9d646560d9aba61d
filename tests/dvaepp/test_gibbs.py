"""Gibbs sampling in torch: bit by bit against the reference on the same uniforms, and by enumeration."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit

import reference.gibbs
from dvaepp import gibbs
from dvaepp.boltzmann import RBM
from dvaepp.gibbs import PersistentChains, sweep
from dvaepp.randomness import AddressedUniforms
from reference.boltzmann import energy, logits_z1, logits_z2
from reference.philox import STREAM_INIT, STREAM_Z1, STREAM_Z2, uniforms
from reference.vocabulary import RBM as ReferenceRBM


def twins(n1, n2, scale, seed, dtype=torch.float32):
    """The same machine in the reference and in torch; its parameters are float32 numbers, so both hold the same."""
    rng = np.random.default_rng(seed)
    parameters = [(scale * rng.normal(size=shape)).astype(np.float32) for shape in (n1, n2, (n1, n2))]
    module = RBM(n1, n2).to(dtype)
    with torch.no_grad():
        for parameter, value in zip((module.a1, module.a2, module.W), parameters, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return ReferenceRBM(*parameters), module


def tensor(array, dtype):
    return torch.from_numpy(np.asarray(array)).to(dtype)


def band_around(a, W, z, logits, inv_temp, dtype):
    """How far rounding moves sigmoid(b x): b x by (N + 3) roundings of its terms' sizes, the sigmoid by 4 of its own.

    The slope of the sigmoid is at most 1/4.
    """
    eps = torch.finfo(dtype).eps
    sizes = np.abs(a) + z @ np.abs(W)
    return eps * ((W.shape[0] + 3) * inv_temp * sizes / 4 + 4 * np.maximum(expit(logits), 1e-30))


@pytest.mark.parametrize(
    ("dtype", "inv_temps"), [(torch.float32, None), (torch.float32, (0.0, 1.7)), (torch.float64, (0.0, 1.7))]
)
def test_bits_equal_the_references_on_the_same_uniforms(dtype, inv_temps):
    """160,000 float32 draws at odd sizes: equal outside the band, and no more hits inside than its width predicts.

    Hits are a sum of independent events of probability 2 x band: above mean + 6 sqrt(mean) + 6 with probability < 1e-6.
    """
    rbm, module = twins(37, 43, 0.4, 0, dtype)
    n_chains, seed = 100, 7
    inv_temp = np.ones(n_chains) if inv_temps is None else np.linspace(*inv_temps, n_chains)
    given = 1.0 if inv_temps is None else tensor(inv_temp, dtype)[:, None]
    z1 = (uniforms(seed, 0, n_chains, 37, STREAM_INIT) < 0.5).astype(float)
    hits, expected_hits, ones = 0, 0.0, 0
    for step in range(20):
        u2 = uniforms(seed, step, n_chains, 43, STREAM_Z2)
        u1 = uniforms(seed, step, n_chains, 37, STREAM_Z1)
        next_z1, z2 = reference.gibbs.sweep(rbm, z1, u2, u1, inv_temp)
        ours1, ours2 = sweep(module, tensor(z1, dtype), tensor(u2, dtype), tensor(u1, dtype), given)
        assert ours1.dtype == ours2.dtype == dtype

        scaled2 = inv_temp[:, None] * logits_z2(rbm, z1)
        band2 = band_around(rbm.a2, rbm.W, z1, scaled2, inv_temp[:, None], dtype)
        inside2 = np.abs(u2 - expit(scaled2)) <= band2
        np.testing.assert_array_equal(ours2.numpy()[~inside2], z2[~inside2])
        # The second half-step follows from what the first one drew: compare where that was the same.
        same = (ours2.numpy() == z2).all(axis=1)
        scaled1 = inv_temp[:, None] * logits_z1(rbm, z2)
        band1 = band_around(rbm.a1, rbm.W.T, z2, scaled1, inv_temp[:, None], dtype)
        inside1 = np.abs(u1 - expit(scaled1)) <= band1
        outside = ~inside1 & same[:, None]
        np.testing.assert_array_equal(ours1.numpy()[outside], next_z1[outside])

        hits += inside1.sum() + inside2.sum()
        expected_hits += 2 * band1.sum() + 2 * band2.sum()
        ones += z2.sum()
        z1 = next_z1
    assert expected_hits < (20 if dtype == torch.float32 else 1e-6)  # else the band forgives too much
    assert hits <= expected_hits + 6 * np.sqrt(expected_hits) + 6
    assert 0.2 < ones / (20 * 100 * 43) < 0.8  # the draws were not all decided beforehand


def test_a_sweep_reuses_the_uniforms_and_leaves_its_input():
    _, module = twins(3, 4, 1.0, 1)
    z1 = torch.ones(5, 3)
    u2, u1 = torch.rand(5, 4), torch.rand(5, 3)
    next_z1, z2 = sweep(module, z1, u2, u1)
    assert z2 is u2
    assert next_z1 is u1
    assert (z1 == 1).all()
    assert not next_z1.requires_grad
    # One inverse temperature for all rows, as a number and as a column; at 0 every unit is a fair coin.
    u2, u1 = torch.rand(5, 4), torch.rand(5, 3)
    coins = sweep(module, z1, u2.clone(), u1.clone(), 0.0)
    column = sweep(module, z1, u2.clone(), u1.clone(), torch.zeros(5, 1))
    for ours, again, u in zip(coins, column, (u1, u2), strict=True):
        assert torch.equal(ours, (u < 0.5).float())
        assert torch.equal(ours, again)


BACKENDS = ("torch", "numpy_oracle")


def chains_after(module, n_chains, n_sweeps, seed, backend="torch"):
    chains = PersistentChains(n_chains, module.n1, module.n2, seed).to(module.W.dtype)
    for n in n_sweeps:
        chains.run(module, n, backend)
    return chains


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("split", [(5, 7), (0, 12), (12, 0), (1,) * 12])
def test_chains_go_on_where_they_stopped(split, backend):
    _, module = twins(5, 3, 1.0, 2)
    whole, parts = chains_after(module, 50, (12,), 3, backend), chains_after(module, 50, split, 3, backend)
    for name, state in whole.state_dict().items():
        assert torch.equal(state, parts.state_dict()[name]), name
    assert whole.step == 12


@pytest.mark.parametrize("backend", BACKENDS)
def test_chains_through_a_checkpoint_of_states_and_step(backend):
    _, module = twins(5, 3, 1.0, 2)
    first = chains_after(module, 20, (3,), 4, backend)
    assert set(first.state_dict()) == {"z1", "z2", "step"}
    stored = {name: value.clone() for name, value in first.state_dict().items()}
    first.run(module, 4, backend)
    second = PersistentChains(20, 5, 3, seed=4)
    second.load_state_dict(stored)
    second.run(module, 4, backend)
    other = PersistentChains(20, 5, 3, seed=5)
    other.load_state_dict(stored)
    other.run(module, 4, backend)
    assert torch.equal(first.states(), second.states())
    assert not torch.equal(first.states(), other.states())


def test_another_backend_goes_on_with_the_same_chains():
    """Three sweeps by torch, then four by the oracle: those are the reference's sweeps number 3 to 6."""
    rbm, module = twins(5, 3, 1.0, 2, torch.float64)
    chains = chains_after(module, 20, (3,), 4)
    expected = reference.gibbs.PersistentChains(chains.z1.numpy().copy(), chains.z2.numpy().copy(), seed=4, step=3)
    expected = expected.run(rbm, 4)
    chains.run(module, 4, "numpy_oracle")
    np.testing.assert_array_equal(chains.z1, expected.z1)
    np.testing.assert_array_equal(chains.z2, expected.z2)
    assert chains.step == 7


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_stay_binary_in_place_and_without_gradient(dtype, backend):
    _, module = twins(5, 3, 3.0, 2, dtype)
    chains = PersistentChains(40, 5, 3, seed=5).to(dtype)
    z1, z2, step = chains.z1, chains.z2, chains.step
    for _ in range(3):
        chains.run(module, 2, backend)
        assert chains.z1 is z1  # the buffers themselves, which a checkpoint and a CUDA graph hold on to
        assert chains.z2 is z2
        assert chains.step is step
        assert step.dtype == torch.int64
        for state in (z1, z2):
            assert state.dtype == dtype
            assert ((state == 0) | (state == 1)).all()
            assert not state.requires_grad


def test_chains_start_as_the_references_do():
    rbm, module = twins(5, 3, 1.0, 2)
    chains, expected = PersistentChains(100, 5, 3, seed=6), reference.gibbs.PersistentChains.init(rbm, 100, seed=6)
    np.testing.assert_array_equal(chains.z1, expected.z1)
    np.testing.assert_array_equal(chains.z2, expected.z2)
    chains.run(module, 9, "numpy_oracle")
    expected = expected.run(rbm, 9)
    np.testing.assert_array_equal(chains.z1, expected.z1)
    np.testing.assert_array_equal(chains.z2, expected.z2)


def test_torchs_numbers_have_an_address():
    """What a step draws does not depend on the steps before it, and no two steps, seeds or purposes share a draw."""

    def draws(seed, purpose, step):
        return AddressedUniforms(torch.device("cpu"), torch.float64, seed, purpose).at(step).draw(50).tolist()

    numbers = AddressedUniforms(torch.device("cpu"), torch.float64, 1, "gibbs")
    in_turn = [numbers.at(step).draw(50).tolist() for step in (0, 1, 2)]
    assert in_turn == [draws(1, "gibbs", step) for step in (0, 1, 2)]
    assert numbers.at(1).draw(50).tolist() == in_turn[1]
    others = [draws(2, "gibbs", 0), draws(1, "tempering", 0), draws(1, "gibbs", 2**31)]
    everything = [number for several in (*in_turn, *others) for number in several]
    assert len(set(everything)) == 300


def fit_p_value(rbm, z1, z2):
    """P-value of Pearson's chi-square that rows (z1, z2) are independent draws of the machine."""
    n = rbm.n1 + rbm.n2
    states = np.array(list(itertools.product([0, 1], repeat=n)), dtype=float)
    weight = np.exp(-energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :]))
    probs = weight / weight.sum()
    assert len(z1) * probs.min() > 5  # else the chi-square distribution would be a poor guide
    code = torch.cat([z1, z2], dim=1).numpy() @ 2 ** np.arange(n)[::-1]
    counts = np.bincount(code.astype(int), minlength=2**n)
    return stats.chisquare(counts, len(z1) * probs).pvalue


def test_chains_reach_the_enumerated_distribution():
    """20,000 independent chains; a p-value below 1e-7 has probability 1e-7."""
    rbm, module = twins(3, 3, 0.8, 3)
    chains = chains_after(module, 20_000, (40,), 8)
    assert fit_p_value(rbm, chains.z1, chains.z2) > 1e-7
    assert chains.step == 40


def wrong_temperature(rbm, z1, u2, u1):
    return sweep(rbm, z1, u2, u1, 1.15)


def wrong_pair(rbm, z1, u2, u1):
    """The new z1 beside a z2 drawn once more, as if sides were not drawn in turn: right margins, wrong pairs."""
    next_z1, z2 = sweep(rbm, z1, u2, u1)
    return next_z1, z2[torch.randperm(len(z2), generator=torch.Generator().manual_seed(0))]


def shared_noise(rbm, z1, u2, u1):
    return sweep(rbm, z1, u1.clone(), u1)


@pytest.mark.parametrize("wrong", [wrong_temperature, wrong_pair, shared_noise])
def test_the_same_judge_catches_wrong_sweeps(monkeypatch, wrong):
    rbm, module = twins(3, 3, 0.8, 3)
    monkeypatch.setattr(gibbs, "sweep", wrong)
    chains = chains_after(module, 20_000, (40,), 8)
    assert fit_p_value(rbm, chains.z1, chains.z2) < 1e-7
