"""The general machine judged by enumeration of all its states, with an energy written as a sum over single terms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference.boltzmann
from reference.general_boltzmann import energy, free_energy, log_partition, logits, marginals
from reference.vocabulary import RBM, BoltzmannMachine, DomainError, ShapeError

MACHINES = st.builds(
    lambda n, scale, seed: random_machine(n, scale, np.random.default_rng(seed)),
    st.integers(1, 7),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.integers(0, 1000),
)
properties = settings(max_examples=25)


def random_machine(n, scale, rng):
    once = scale * np.triu(rng.normal(size=(n, n)), k=1)
    return BoltzmannMachine(scale * rng.normal(size=n), once + once.T)


def log_weight(a, J, z):
    """-E of one state, term by term; complex parameters pass."""
    pairs = itertools.combinations(range(len(z)), 2)
    return sum(a[i] for i in range(len(z)) if z[i]) + sum(J[i, j] for i, j in pairs if z[i] and z[j])


def table(machine):
    """All states (S, N) with -E of each (S,)."""
    states = list(itertools.product([0, 1], repeat=machine.n))
    return np.array(states, dtype=float), np.array([log_weight(machine.a, machine.J, z) for z in states], dtype=float)


@properties
@given(MACHINES)
def test_energy_and_exact_quantities_by_enumeration(machine):
    states, log_weights = table(machine)
    log_z = np.logaddexp.reduce(log_weights)
    prob = np.exp(log_weights - log_z)
    size = 1 + np.abs(machine.a).sum() + np.abs(machine.J).sum()  # bounds every partial sum
    np.testing.assert_allclose(energy(machine, states), -log_weights, atol=1e-14 * size)
    assert log_partition(machine) == pytest.approx(log_z, abs=1e-14 * size)
    mean, pair = marginals(machine)
    np.testing.assert_allclose(mean, prob @ states, atol=1e-14 * size)
    np.testing.assert_allclose(pair, (states * prob[:, None]).T @ states, atol=1e-14 * size)
    np.testing.assert_allclose(np.diag(pair), mean, atol=1e-14)


@properties
@given(MACHINES)
def test_logits_are_the_odds_of_a_unit_given_the_others(machine):
    states, _ = table(machine)
    ours = logits(machine, states)
    for row, z in enumerate(states):
        for i in range(machine.n):
            on, off = z.copy(), z.copy()
            on[i], off[i] = 1, 0
            odds = log_weight(machine.a, machine.J, on) - log_weight(machine.a, machine.J, off)
            assert ours[row, i] == pytest.approx(odds, abs=1e-12)


@properties
@given(MACHINES, st.randoms(use_true_random=False))
def test_free_energy_by_summing_the_hidden_units_out(machine, random):
    visible = random.sample(range(machine.n), random.randint(0, machine.n))  # in any order
    states, log_weights = table(machine)
    ours = free_energy(machine, states[:, visible], visible)
    for z, free in zip(states, ours, strict=True):
        agrees = (states[:, visible] == z[visible]).all(axis=1)
        assert -free == pytest.approx(np.logaddexp.reduce(log_weights[agrees]), abs=1e-11)
    # The extremes: nothing hidden, nothing visible.
    np.testing.assert_allclose(free_energy(machine, states, range(machine.n)), energy(machine, states), atol=1e-13)
    assert free_energy(machine, np.zeros((2, 0)), []) == pytest.approx([-log_partition(machine)] * 2)


@properties
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.1, 1.0, 5.0]), st.integers(0, 1000))
def test_an_rbm_is_a_special_case(n1, n2, scale, seed):
    rng = np.random.default_rng(seed)
    rbm = RBM(scale * rng.normal(size=n1), scale * rng.normal(size=n2), scale * rng.normal(size=(n1, n2)))
    machine = rbm.general()
    close = {"rtol": 1e-12, "atol": 1e-12}
    z = rng.uniform(size=(5, n1 + n2))
    z1, z2 = z[:, :n1], z[:, n1:]
    np.testing.assert_allclose(energy(machine, z), reference.boltzmann.energy(rbm, z1, z2), **close)
    sides = [reference.boltzmann.logits_z1(rbm, z2), reference.boltzmann.logits_z2(rbm, z1)]
    np.testing.assert_allclose(logits(machine, z), np.hstack(sides), **close)
    assert log_partition(machine) == pytest.approx(reference.boltzmann.log_partition(rbm), rel=1e-12, abs=1e-12)
    ours, theirs = marginals(machine), reference.boltzmann.marginals(rbm)
    np.testing.assert_allclose(ours.mean, np.concatenate([theirs.mean1, theirs.mean2]), **close)
    np.testing.assert_allclose(ours.pair[:n1, n1:], theirs.pair, **close)
    z1, z2 = z1.round(), z2.round()
    np.testing.assert_allclose(free_energy(machine, z1, range(n1)), reference.boltzmann.free_energy(rbm, z1), **close)
    swapped = reference.boltzmann.free_energy(RBM(rbm.a2, rbm.a1, rbm.W.T), z2)
    np.testing.assert_allclose(free_energy(machine, z2, range(n1, n1 + n2)), swapped, **close)


def test_no_rows_are_no_rows():
    machine = random_machine(4, 1.0, np.random.default_rng(0))
    for visible in ([], [2], [0, 1, 2, 3]):
        assert free_energy(machine, np.zeros((0, len(visible))), visible).shape == (0,)
    assert energy(machine, np.zeros((0, 4))).shape == (0,)


def test_marginals_are_the_gradient_of_log_partition():
    """By the complex step, on an enumeration of its own: exact to rounding, and J moved on both sides at once."""
    n, step = 4, 1e-30
    machine = random_machine(n, 1.0, np.random.default_rng(1))
    mean, pair = marginals(machine)

    def slope(da, dJ):
        a, J = machine.a + 1j * step * da, machine.J + 1j * step * dJ
        states = itertools.product([0, 1], repeat=n)
        return np.log(sum(np.exp(log_weight(a, J, z)) for z in states)).imag / step

    for i, j in itertools.product(range(n), repeat=2):
        both = np.zeros((n, n))
        both[i, j] = both[j, i] = 1
        expected = slope(np.eye(n)[i], 0 * both) if i == j else slope(np.zeros(n), both)
        assert pair[i, j] == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(mean, np.diag(pair), rtol=1e-13)


def test_chunks_change_nothing(monkeypatch):
    machine = random_machine(7, 2.0, np.random.default_rng(2))
    visible = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    whole, means, free = log_partition(machine), marginals(machine), free_energy(machine, visible, [5, 2])
    monkeypatch.setattr(reference.boltzmann, "_CHUNK_ENTRIES", 7 * 5)  # five or seven rows: the last chunk is partial
    assert log_partition(machine) == pytest.approx(whole, abs=1e-13)
    np.testing.assert_allclose(free_energy(machine, visible, [5, 2]), free, atol=1e-13)
    for chunked, full in zip(marginals(machine), means, strict=True):
        np.testing.assert_allclose(chunked, full, atol=1e-14)


@pytest.mark.parametrize(("bias", "coupling"), [(-2.0, 0.4), (0.0, 0.0), (-1000.0, 150.0), (500.0, -120.0)])
def test_machines_whose_answer_is_known_by_counting(bias, coupling):
    """All units alike: Z = sum over k of binomial(n, k) exp(k a + k (k - 1) J / 2). Energies of 1e4 do not overflow."""
    n = 14
    machine = BoltzmannMachine(np.full(n, bias), coupling * (np.ones((n, n)) - np.eye(n)))
    terms = np.array([math.log(math.comb(n, k)) + k * bias + k * (k - 1) / 2 * coupling for k in range(n + 1)])
    expected = terms.max() + math.log(math.fsum(np.exp(terms - terms.max())))
    assert log_partition(machine) == pytest.approx(expected, rel=1e-14)
    prob = np.exp(terms - expected)
    mean, pair = marginals(machine)
    counts = np.arange(n + 1)
    np.testing.assert_allclose(mean, prob @ counts / n, rtol=1e-10)
    np.testing.assert_allclose(pair[0, 1:], prob @ (counts * (counts - 1)) / (n * (n - 1)), rtol=1e-10)
    # One unit clamped: its energy and its pull on the others.
    others = BoltzmannMachine(np.full(n - 1, bias + coupling), machine.J[1:, 1:])
    assert free_energy(machine, [[1.0]], [3])[0] == pytest.approx(-bias - log_partition(others), rel=1e-14)


def test_energy_of_probabilities_is_the_expected_energy_of_independent_units():
    rng = np.random.default_rng(4)
    machine, mu = random_machine(5, 1.0, rng), rng.uniform(size=5)
    expected = 0.0
    for z in itertools.product([0, 1], repeat=5):
        prob = np.prod([m if on else 1 - m for m, on in zip(mu, z, strict=True)])
        expected -= prob * log_weight(machine.a, machine.J, z)
    assert energy(machine, mu[None])[0] == pytest.approx(expected, rel=1e-12)


def test_too_large_a_machine_names_the_way_out():
    machine = BoltzmannMachine(np.zeros(26), np.zeros((26, 26)))
    message = r"at most 24 hidden units .* it has {}\. .* it is an RBM, and reference\.partition\.bracket serves"
    for function in (log_partition, marginals):
        with pytest.raises(DomainError, match=message.format(26)):
            function(machine)
    with pytest.raises(DomainError, match=message.format(25)):
        free_energy(machine, np.zeros((1, 1)), [3])
    assert free_energy(machine, np.zeros((1, 20)), range(20))[0] == pytest.approx(-6 * np.log(2))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("z", energy),
        ("z", logits),
        ("z_visible", lambda machine, z: free_energy(machine, z, [1, 0])),
    ],
)
def test_states_that_do_not_fit_are_refused(name, call):
    machine = BoltzmannMachine(np.zeros(2), np.zeros((2, 2)))
    with pytest.raises(ShapeError, match=rf"^{name} must be \(B, 2\), one row per sample; got \(1, 3\)"):
        call(machine, np.zeros((1, 3)))
    with pytest.raises(ShapeError, match=rf"^{name} must be \(B, 2\)"):
        call(machine, np.zeros(2))
    with pytest.raises(DomainError, match=rf"^{name} must .*; entry \(0, 1\) is nan"):
        call(machine, [[0.0, np.nan]])
    with pytest.raises(DomainError, match=rf"^{name} must .*; entry \(0, 0\) is 2\.0"):
        call(machine, [[2.0, 0.0]])
    with pytest.raises(TypeError, match=f"^{name} must be float32 or float64"):
        call(machine, np.zeros((1, 2), complex))


@pytest.mark.parametrize(
    "call",
    [
        lambda machine: energy(machine, np.zeros((1, 2))),
        lambda machine: logits(machine, np.zeros((1, 2))),
        lambda machine: free_energy(machine, np.zeros((1, 1)), [0]),
        log_partition,
        marginals,
    ],
)
def test_an_rbm_is_sent_to_its_general_form(call):
    rbm = RBM([0.1], [0.2], [[0.3]])
    with pytest.raises(TypeError, match=r"^machine must be a BoltzmannMachine; got RBM\. An RBM has \.general\(\)$"):
        call(rbm)
    call(rbm.general())


def test_visible_units_that_do_not_exist_are_refused():
    machine = BoltzmannMachine(np.zeros(3), np.zeros((3, 3)))
    z = np.zeros((1, 2))
    with pytest.raises(DomainError, match="visible must hold unit numbers below N = 3; entry 1 is 3"):
        free_energy(machine, z, [0, 3])
    with pytest.raises(DomainError, match="visible must name every unit at most once; entry 1 is 2 again"):
        free_energy(machine, z, [2, 2])
    with pytest.raises(DomainError, match="visible must be a whole number of at least 0; got -1"):
        free_energy(machine, z, [-1, 0])
    with pytest.raises(DomainError, match=r"visible must be a whole number of at least 0; got 0\.5"):
        free_energy(machine, z, [0.5, 0])
    with pytest.raises(DomainError, match=r"z_visible must be 0 or 1; entry \(0, 0\) is 0\.5"):
        free_energy(machine, z + 0.5, [0, 1])
