"""The RBM judged by enumeration of all its joint states, with an energy written as a sum over single terms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import boltzmann
from reference.boltzmann import (
    all_states,
    energy,
    free_energy,
    log_marginal_z1,
    log_partition,
    log_partition_gradient,
    log_partition_surrogate,
    logits_z1,
    logits_z2,
    marginals,
)
from reference.vocabulary import RBM, BoltzmannMachine, DomainError, ShapeError

MACHINES = st.builds(
    lambda n1, n2, scale, seed: random_machine(n1, n2, scale, np.random.default_rng(seed)),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.integers(0, 1000),
)
properties = settings(deadline=None, derandomize=True, max_examples=25)


def random_machine(n1, n2, scale, rng):
    return RBM(scale * rng.normal(size=n1), scale * rng.normal(size=n2), scale * rng.normal(size=(n1, n2)))


def joint_table(rbm):
    """All (z1, z2) with their unnormalised probabilities, term by term."""
    table = []
    for z in itertools.product([0, 1], repeat=rbm.n1 + rbm.n2):
        z1, z2 = z[: rbm.n1], z[rbm.n1 :]
        total = sum(a for a, on in zip(rbm.a1, z1, strict=True) if on)
        total += sum(a for a, on in zip(rbm.a2, z2, strict=True) if on)
        total += sum(rbm.W[i, j] for i in range(rbm.n1) for j in range(rbm.n2) if z1[i] and z2[j])
        table.append((z1, z2, np.exp(total)))
    return table


@properties
@given(MACHINES)
def test_energy_and_exact_quantities_by_enumeration(rbm):
    table = joint_table(rbm)
    z1, z2 = (np.array([row[side] for row in table], dtype=float) for side in (0, 1))
    weight = np.array([row[2] for row in table])
    prob = weight / weight.sum()
    np.testing.assert_allclose(energy(rbm, z1, z2), -np.log(weight), atol=1e-12)
    assert log_partition(rbm) == pytest.approx(np.log(weight.sum()), abs=1e-12)
    mean1, mean2, pair = marginals(rbm)
    np.testing.assert_allclose(mean1, prob @ z1, atol=1e-13)
    np.testing.assert_allclose(mean2, prob @ z2, atol=1e-13)
    np.testing.assert_allclose(pair, (z1 * prob[:, None]).T @ z2, atol=1e-13)


@properties
@given(MACHINES)
def test_marginal_and_conditionals_by_enumeration(rbm):
    table = joint_table(rbm)
    for z1 in itertools.product([0, 1], repeat=rbm.n1):
        rows = [(z2, weight) for first, z2, weight in table if first == z1]
        log_sum = np.log(sum(w for _, w in rows))
        assert log_marginal_z1(rbm, [z1])[0] == pytest.approx(log_sum, abs=1e-12)
        assert free_energy(rbm, [z1])[0] == pytest.approx(-log_sum, abs=1e-12)
        odds = [
            np.log(sum(w for z2, w in rows if z2[j]) / sum(w for z2, w in rows if not z2[j])) for j in range(rbm.n2)
        ]
        np.testing.assert_allclose(logits_z2(rbm, [z1])[0], odds, atol=1e-10)
    for z2 in itertools.product([0, 1], repeat=rbm.n2):
        rows = [(z1, weight) for z1, second, weight in table if second == z2]
        odds = [
            np.log(sum(w for z1, w in rows if z1[i]) / sum(w for z1, w in rows if not z1[i])) for i in range(rbm.n1)
        ]
        np.testing.assert_allclose(logits_z1(rbm, [z2])[0], odds, atol=1e-10)


def moved(rbm, **direction):
    """The machine a step further: every named parameter plus its direction."""
    return RBM(*(getattr(rbm, name) + direction.get(name, 0.0) for name in ("a1", "a2", "W")))


def single_steps(rbm, size):
    """Name, index and step of every single parameter."""
    for name in ("a1", "a2", "W"):
        shape = getattr(rbm, name).shape
        for index in np.ndindex(shape):
            step = np.zeros(shape)
            step[index] = size
            yield name, index, step


def slopes(function, rbm, size):
    """Central differences of a function of the machine in all its parameters, as arrays a1, a2, W."""
    result = {name: np.zeros_like(getattr(rbm, name)) for name in ("a1", "a2", "W")}
    for name, index, step in single_steps(rbm, size):
        result[name][index] = (function(moved(rbm, **{name: step})) - function(moved(rbm, **{name: -step}))) / (
            2 * size
        )
    return result["a1"], result["a2"], result["W"]


def test_marginals_are_the_gradient_of_log_partition():
    rbm = random_machine(4, 3, 1.0, np.random.default_rng(1))
    for ours, slope in zip(marginals(rbm), slopes(log_partition, rbm, 1e-5), strict=True):
        np.testing.assert_allclose(ours, slope, atol=1e-9)


def random_samples(rbm, n_samples, rng):
    return tuple(rng.integers(0, 2, size=(n_samples, n)).astype(float) for n in (rbm.n1, rbm.n2))


def test_the_gradient_from_samples_is_that_of_the_surrogate():
    """The surrogate is linear in the parameters, so a difference quotient is exact but for rounding at any step."""
    rng = np.random.default_rng(5)
    rbm = random_machine(3, 2, 1.0, rng)
    z1, z2 = random_samples(rbm, 17, rng)
    by_difference = slopes(lambda machine: log_partition_surrogate(machine, z1, z2), rbm, 1.0)
    for ours, slope in zip(log_partition_gradient(rbm, z1, z2), by_difference, strict=True):
        np.testing.assert_allclose(ours, slope, atol=1e-14)


def test_over_the_machines_own_distribution_the_gradient_is_that_of_log_partition():
    """All states, each with its probability: the judge is a central difference of log Z, enumerated term by term.

    The value is not log Z: the machine's entropy is missing.
    """
    rng = np.random.default_rng(6)
    rbm = random_machine(3, 2, 1.0, rng)
    table = joint_table(rbm)
    log_z = np.log(sum(weight for *_, weight in table))
    mean, value, entropy = [0.0, 0.0, 0.0], 0.0, 0.0
    for z1, z2, weight in table:
        prob = weight / np.exp(log_z)
        gradient = log_partition_gradient(rbm, [z1], [z2])
        mean = [total + prob * part for total, part in zip(mean, gradient, strict=True)]
        value += prob * log_partition_surrogate(rbm, [z1], [z2])
        entropy -= prob * np.log(prob)
    by_difference = slopes(lambda machine: np.log(sum(weight for *_, weight in joint_table(machine))), rbm, 1e-5)
    for ours, slope in zip(mean, by_difference, strict=True):
        np.testing.assert_allclose(ours, slope, atol=1e-9)
    assert value == pytest.approx(log_z - entropy, abs=1e-12)
    assert entropy > 0.1


def test_samples_that_do_not_fit_are_refused():
    rbm = RBM(np.zeros(2), np.zeros(3), np.zeros((2, 3)))
    z1, z2 = np.zeros((4, 2)), np.zeros((4, 3))
    for function in (log_partition_surrogate, log_partition_gradient):
        with pytest.raises(ShapeError, match=r"^z1 must be \(B, 2\), one row per sample; got \(4, 3\)"):
            function(rbm, z2, z2)
        with pytest.raises(ShapeError, match=r"same number of rows; got z1 \(4, 2\), z2 \(1, 3\)"):
            function(rbm, z1, z2[:1])
        with pytest.raises(DomainError, match=r"^z2 must be 0 or 1; entry \(0, 0\) is 0\.5"):
            function(rbm, z1, z2 + 0.5)
        with pytest.raises(DomainError, match=r"the number of rows of z1 must be a whole number of at least 1; got 0"):
            function(rbm, z1[:0], z2[:0])
        with pytest.raises(TypeError, match=r"^z1 must be float32 or float64"):
            function(rbm, z1.astype(complex), z2)


def test_all_states_counts_in_binary():
    np.testing.assert_array_equal(np.concatenate(list(all_states(2))), [[0, 0], [1, 0], [0, 1], [1, 1]])
    assert [chunk.shape for chunk in all_states(0)] == [(1, 0)]
    chunks = list(all_states(12, width=2**18))  # four rows of the wide matrix at a time
    assert {chunk.shape for chunk in chunks} == {(4, 12)}
    codes = np.concatenate(chunks) @ 2 ** np.arange(12)
    np.testing.assert_array_equal(codes, np.arange(2**12))
    assert len(next(all_states(3, width=2**30))) == 1
    with pytest.raises(DomainError, match="n_units must be a whole number of at least 0; got -1"):
        next(all_states(-1))
    with pytest.raises(DomainError, match="width must be a whole number of at least 1; got 0"):
        next(all_states(3, width=0))


def test_chunks_change_nothing(monkeypatch):
    rbm = random_machine(5, 7, 2.0, np.random.default_rng(2))
    whole, means = log_partition(rbm), marginals(rbm)
    monkeypatch.setattr(boltzmann, "_CHUNK_ENTRIES", 7 * 5)  # five rows: the last chunk is partial
    assert log_partition(rbm) == pytest.approx(whole, abs=1e-13)
    for chunked, full in zip(marginals(rbm), means, strict=True):
        np.testing.assert_allclose(chunked, full, atol=1e-14)


def test_large_machines_whose_answer_is_known_by_hand():
    # Independent units: log Z is a sum of log(1 + exp(a)). Energies of size 1e4 must not overflow.
    independent = RBM(np.full(12, 1000.0), np.full(300, -1000.0), np.zeros((12, 300)))
    assert log_partition(independent) == pytest.approx(12000.0, rel=1e-15)
    # All units of side 2 copy one unit of side 1, which is a coin: Z = 2**300 + (1 + e)**300.
    copies = RBM(np.zeros(1), np.zeros(300), np.ones((1, 300)))
    assert log_partition(copies) == pytest.approx(np.logaddexp(300 * np.log(2), 300 * np.log1p(np.e)), rel=1e-14)
    assert marginals(copies).mean1[0] == pytest.approx(1.0, abs=1e-12)


def test_either_side_may_be_the_small_one():
    rbm = random_machine(3, 30, 0.5, np.random.default_rng(3))
    swapped = RBM(rbm.a2, rbm.a1, rbm.W.T)
    assert log_partition(swapped) == pytest.approx(log_partition(rbm), rel=1e-14)
    np.testing.assert_allclose(marginals(swapped).pair, marginals(rbm).pair.T, atol=1e-14)
    assert marginals(swapped).mean1.shape == (30,)


def test_energy_of_probabilities_is_the_expected_energy_of_independent_units():
    rng = np.random.default_rng(4)
    rbm, mu = random_machine(3, 2, 1.0, rng), rng.uniform(size=5)
    expected = 0.0
    for z1, z2, weight in joint_table(rbm):
        prob = np.prod([m if on else 1 - m for m, on in zip(mu, z1 + z2, strict=True)])
        expected -= prob * np.log(weight)
    assert energy(rbm, mu[None, :3], mu[None, 3:])[0] == pytest.approx(expected, rel=1e-12)


def test_too_large_a_machine_names_the_way_out():
    rbm = RBM(np.zeros(25), np.zeros(30), np.zeros((25, 30)))
    for function in (log_partition, marginals):
        with pytest.raises(DomainError, match=r"at most 24 units .* it has 25\. Use .* reference\.partition\.bracket"):
            function(rbm)


@pytest.mark.parametrize(
    ("function", "argument"),
    [(logits_z2, "z1"), (logits_z1, "z2"), (log_marginal_z1, "z1"), (free_energy, "z1"), (energy, "z1")],
)
def test_states_that_do_not_fit_are_refused(function, argument):
    rbm = RBM(np.zeros(2), np.zeros(2), np.zeros((2, 2)))

    def call(states):
        return function(rbm, states, np.zeros((1, 2))) if function is energy else function(rbm, states)

    with pytest.raises(ShapeError, match=rf"{argument} must be \(B, 2\), one row per sample; got \(1, 3\)"):
        call(np.zeros((1, 3)))
    with pytest.raises(ShapeError, match=rf"{argument} must be \(B, 2\)"):
        call(np.zeros(2))
    with pytest.raises(DomainError, match=rf"{argument} must .*; entry \(0, 1\) is nan"):
        call([[0.0, np.nan]])
    with pytest.raises(DomainError, match=rf"{argument} must .*; entry \(0, 0\) is 2\.0"):
        call([[2.0, 0.0]])
    with pytest.raises(TypeError, match=f"{argument} must be float32 or float64"):
        call(np.zeros((1, 2), complex))


def test_energy_wants_as_many_rows_on_both_sides():
    rbm = RBM(np.zeros(2), np.zeros(2), np.zeros((2, 2)))
    with pytest.raises(ShapeError, match=r"same number of rows; got z1 \(3, 2\), z2 \(1, 2\)"):
        energy(rbm, np.zeros((3, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize(
    "function",
    [
        lambda rbm: energy(rbm, [[1.0]], [[0.0]]),
        lambda rbm: logits_z1(rbm, [[1.0]]),
        lambda rbm: logits_z2(rbm, [[1.0]]),
        lambda rbm: log_marginal_z1(rbm, [[1.0]]),
        lambda rbm: free_energy(rbm, [[1.0]]),
        log_partition,
        marginals,
        lambda rbm: log_partition_surrogate(rbm, [[1.0]], [[0.0]]),
        lambda rbm: log_partition_gradient(rbm, [[1.0]], [[0.0]]),
    ],
)
def test_a_general_machine_is_sent_to_its_own_functions(function):
    function(RBM([0.1], [0.2], [[0.3]]))
    with pytest.raises(TypeError, match=r"^rbm must be an RBM; got BoltzmannMachine\. .*reference\.general_boltzmann$"):
        function(BoltzmannMachine(np.zeros(2), np.zeros((2, 2))))
