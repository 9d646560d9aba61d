"""Single-site and chromatic sweeps judged by enumerated conditionals and by each other's bits, colourings by graphs.

Where long runs end up is judged in test_samplers.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import gibbs
from reference.bernoulli import sigmoid
from reference.general_boltzmann import energy, logits
from reference.philox import STREAM_SITE, uniforms
from reference.single_site import PersistentChains, chromatic_sweep, colouring, sweep
from reference.vocabulary import RBM, BoltzmannMachine, DomainError, ShapeError


def random_machine(n_units, density, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    J = np.triu(scale * rng.normal(size=(n_units, n_units)) * (rng.uniform(size=(n_units, n_units)) < density), 1)
    return BoltzmannMachine(rng.normal(size=n_units), J + J.T)


def random_rbm(n1, n2, seed):
    rng = np.random.default_rng(seed)
    return RBM(rng.normal(size=n1), rng.normal(size=n2), rng.normal(size=(n1, n2)))


def coupled_as(n_units, pairs):
    """A machine whose couplings are the edges of a graph."""
    J = np.zeros((n_units, n_units))
    for i, j in pairs:
        J[i, j] = J[j, i] = 0.3
    return BoltzmannMachine(np.zeros(n_units), J)


def states_and_uniforms(machine, n_rows, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, size=(n_rows, machine.n)), rng.uniform(size=(n_rows, machine.n))


@given(st.permutations(range(4)), st.floats(0, 3), st.integers(0, 1000))
def test_each_unit_in_turn_turns_on_below_its_enumerated_conditional(order, inv_temp, seed):
    machine = random_machine(4, 0.8, seed)
    z, u = states_and_uniforms(machine, 30, seed)
    expected = z.astype(float)
    for unit in order:
        on, off = expected.copy(), expected.copy()
        on[:, unit], off[:, unit] = 1, 0
        weight_on, weight_off = np.exp(-inv_temp * energy(machine, on)), np.exp(-inv_temp * energy(machine, off))
        expected[:, unit] = u[:, unit] < weight_on / (weight_on + weight_off)
    before = z.copy()
    np.testing.assert_array_equal(sweep(machine, z, u, order, inv_temp), expected)
    np.testing.assert_array_equal(z, before)


@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))
def test_a_chromatic_sweep_is_the_single_site_sweep_bit_for_bit(n_units, density, seed):
    machine = random_machine(n_units, density, seed)
    z, u = states_and_uniforms(machine, 50, seed)
    colours = colouring(machine)
    inv_temp = np.linspace(0, 2, 50)
    one_by_one = sweep(machine, z, u, np.concatenate(colours), inv_temp)
    np.testing.assert_array_equal(chromatic_sweep(machine, z, u, colours, inv_temp), one_by_one)
    # Any order inside a colour, and any colours that keep coupled units apart.
    backwards = [colour[::-1].tolist() for colour in colours]
    np.testing.assert_array_equal(chromatic_sweep(machine, z, u, backwards, inv_temp), one_by_one)
    alone = [[unit] for unit in range(n_units)]
    np.testing.assert_array_equal(chromatic_sweep(machine, z, u, alone), sweep(machine, z, u))


def test_uniforms_on_the_threshold_do_not_tell_the_two_sweeps_apart():
    """Uniforms that *are* the conditional probabilities, or one float below: a logit rounded otherwise would show."""
    machine = random_machine(40, 0.2, 1)
    z, u = states_and_uniforms(machine, 200, 1)
    colours = colouring(machine)
    assert len(colours) < 10
    expected = z.astype(float)
    for unit in np.concatenate(colours):
        on = sigmoid(logits(machine, expected)[:, unit])
        u[:, unit] = np.where(u[:, unit] < 0.5, on, np.nextafter(on, 0))
        expected[:, unit] = u[:, unit] < on
    np.testing.assert_array_equal(sweep(machine, z, u, np.concatenate(colours)), expected)
    np.testing.assert_array_equal(chromatic_sweep(machine, z, u, colours), expected)


def test_the_order_matters_and_defaults_to_the_units_numbers():
    machine = random_machine(6, 1.0, 2)
    z, u = states_and_uniforms(machine, 200, 2)
    np.testing.assert_array_equal(sweep(machine, z, u), sweep(machine, z, u, range(6)))
    assert (sweep(machine, z, u) != sweep(machine, z, u, range(5, -1, -1))).any()
    np.testing.assert_array_equal(sweep(machine, z, u, inv_temp=0.0), u < 0.5)


def test_a_chromatic_sweep_of_an_rbm_is_the_block_sweep():
    for seed, (n1, n2) in enumerate([(3, 5), (5, 3), (1, 4), (4, 4)]):
        rbm = random_rbm(n1, n2, seed)
        machine = rbm.general()
        assert len(colouring(machine)) == 2
        z, u = states_and_uniforms(machine, 100, seed)
        z1, z2 = gibbs.sweep(rbm, z[:, :n1], u[:, n1:], u[:, :n1], 0.8)
        sides = [np.arange(n1, n1 + n2), np.arange(n1)]
        np.testing.assert_array_equal(chromatic_sweep(machine, z, u, sides, 0.8), np.hstack([z1, z2]))


@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))
def test_colours_are_a_partition_that_keeps_coupled_units_apart(n_units, density, seed):
    machine = random_machine(n_units, density, seed)
    colours = colouring(machine)
    assert sorted(np.concatenate(colours).tolist()) == list(range(n_units))
    for colour in colours:
        assert colour.size
        assert (np.diff(colour) > 0).all()
        assert all(machine.J[i, j] == 0 for i, j in itertools.combinations(colour, 2))
    assert len(colours) <= 1 + (machine.J != 0).sum(axis=1).max()
    for one, other in zip(colours, colouring(machine), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_two_sides_need_two_colours_however_the_units_are_numbered(n1, n2, density, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(n1 + n2)
    pairs = [(i, j) for i in numbers[:n1] for j in numbers[n1:] if rng.uniform() < density]
    assert len(colouring(coupled_as(n1 + n2, pairs))) == (2 if pairs else 1)


def test_colourings_by_hand():
    assert [c.tolist() for c in colouring(coupled_as(3, []))] == [[0, 1, 2]]
    assert [c.tolist() for c in colouring(coupled_as(4, [(0, 1), (1, 2), (2, 3)]))] == [[1, 3], [0, 2]]
    pentagon = [(i, (i + 1) % 5) for i in range(5)]
    assert len(colouring(coupled_as(5, pentagon))) == 3
    complete = list(itertools.combinations(range(5), 2))
    assert [c.tolist() for c in colouring(coupled_as(5, complete))] == [[0], [1], [2], [3], [4]]
    # In the order of their numbers the units would take 4 colours here: 2 i and 2 i + 1 are not coupled.
    crown = [(2 * i, 2 * j + 1) for i in range(4) for j in range(4) if i != j]
    assert len(colouring(coupled_as(8, crown))) == 2
    # In the order of their couplings they would take 3: two hubs three steps apart would come first, in one colour.
    hubs = [(0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7), (0, 8), (8, 9), (9, 1)]
    assert len(colouring(coupled_as(10, hubs))) == 2


def test_chains_continue_from_state_seed_and_step_alone():
    machine = random_machine(7, 0.5, 3)
    for colours in (None, colouring(machine)):
        start = PersistentChains.init(machine, 9, seed=2**64 - 1)
        whole = start.run(machine, 10, colours)
        halves = start.run(machine, 4, colours).run(machine, 6, colours)
        restored = PersistentChains(start.run(machine, 4, colours).z.astype(bool), 2**64 - 1, 4)
        for other in (halves, restored.run(machine, 6, colours), start.run(machine, 0).run(machine, 10, colours)):
            assert other.step == whole.step == 10
            np.testing.assert_array_equal(other.z, whole.z)
        assert start.step == 0
        few = PersistentChains.init(machine, 3, seed=2**64 - 1).run(machine, 10, colours)
        np.testing.assert_array_equal(few.z, whole.z[:3])
    assert (PersistentChains.init(machine, 9, seed=1).z != start.z).any()
    assert 0.3 < PersistentChains.init(machine, 100, seed=1).z.mean() < 0.7


def test_chains_take_the_sweeps_their_arguments_name():
    machine = random_machine(6, 0.5, 4)
    colours = colouring(machine)
    start = PersistentChains.init(machine, 50, seed=5)
    recoloured = sweep_with_chain_uniforms(machine, start, np.concatenate(colours))
    np.testing.assert_array_equal(start.run(machine, 1, colours).z, recoloured)
    np.testing.assert_array_equal(start.run(machine, 1).z, sweep_with_chain_uniforms(machine, start, np.arange(6)))
    assert (start.run(machine, 1, colours).z != start.run(machine, 1).z).any()


def sweep_with_chain_uniforms(machine, chains, order):
    return sweep(machine, chains.z, uniforms(chains.seed, chains.step, len(chains.z), machine.n, STREAM_SITE), order)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"z": np.full((4, 3), 0.5)}, DomainError, r"z must be 0 or 1; entry \(0, 0\) is 0\.5"),
        ({"z": np.zeros((4, 2))}, ShapeError, r"z must be \(B, 3\), one row per sample; got \(4, 2\)"),
        ({"u": np.full((4, 3), np.nan)}, DomainError, r"u must lie in \[0, 1\]; entry \(0, 0\) is nan"),
        ({"u": np.full((3, 3), 0.5)}, ShapeError, r"same number of rows; got z \(4, 3\), u \(3, 3\)"),
        ({"u": np.full((4, 3), 0.5, dtype=np.float16)}, TypeError, "u must be float32 or float64"),
        ({"inv_temp": -1.0}, DomainError, r"inv_temp must be finite and not negative; it is -1\.0"),
        ({"inv_temp": [1.0, 1.0]}, ShapeError, r"inv_temp must be a scalar or \(4,\), one for each row; got \(2,\)"),
    ],
)
def test_both_sweeps_refuse(changes, error, match):
    machine = coupled_as(3, [(0, 1)])
    arguments = {"z": np.zeros((4, 3)), "u": np.full((4, 3), 0.5)} | changes
    with pytest.raises(error, match=match):
        sweep(machine, **arguments)
    with pytest.raises(error, match=match):
        chromatic_sweep(machine, colours=colouring(machine), **arguments)


@pytest.mark.parametrize(
    ("order", "error", "match"),
    [
        ([0, 1], DomainError, "order must hold every unit once; unit 2 is there 0 times"),
        ([0, 1, 1, 2], DomainError, "order must hold every unit once; unit 1 is there 2 times"),
        ([0, 1, 3], DomainError, r"order must hold units in 0 \.\. 2; got 3"),
        ([0, 1, -1], DomainError, r"order must hold units in 0 \.\. 2; got -1"),
        ([[0, 1, 2]], ShapeError, r"order must be a vector of units; got \(1, 3\)"),
        ([0.0, 1.0, 2.0], TypeError, "order must be integers, numbers of units; got dtype float64"),
        ([True, False, True], TypeError, "order must be integers"),
    ],
)
def test_orders_and_colours_that_are_refused(order, error, match):
    machine, z = coupled_as(3, []), np.zeros((2, 3))
    with pytest.raises(error, match=match):
        sweep(machine, z, z, order)
    with pytest.raises(error, match=match.replace("order", r"colours(\[0\])?")):
        chromatic_sweep(machine, z, z, [order])


def test_colours_that_put_coupled_units_together_are_refused():
    machine = coupled_as(4, [(0, 1), (1, 3)])
    z = np.zeros((2, 4))
    with pytest.raises(DomainError, match=r"units apart; colours\[1\] holds units 3 and 1, coupled by 0\.3"):
        chromatic_sweep(machine, z, z, [[0], [3, 2, 1]])
    with pytest.raises(DomainError, match="colours must hold every unit once; unit 0 is there 0 times"):
        chromatic_sweep(machine, z, z, [])
    with pytest.raises(DomainError, match="keep coupled units apart"):
        PersistentChains(z, 0).run(machine, 1, [[0, 1, 2, 3]])
    chromatic_sweep(machine, z, z, [[0, 3], [], [1, 2]])  # an empty colour does no harm


@pytest.mark.parametrize(
    "call",
    [
        lambda machine: sweep(machine, np.zeros((1, 2)), np.zeros((1, 2))),
        lambda machine: chromatic_sweep(machine, np.zeros((1, 2)), np.zeros((1, 2)), [[0], [1]]),
        colouring,
        lambda machine: PersistentChains.init(machine, 3, seed=0),
        lambda machine: PersistentChains(np.zeros((1, 2)), 0).run(machine, 1),
    ],
)
def test_an_rbm_is_sent_to_its_general_form(call):
    rbm = RBM([0.1], [0.2], [[0.3]])
    with pytest.raises(TypeError, match=r"^machine must be a BoltzmannMachine; got RBM\. An RBM has \.general\(\)$"):
        call(rbm)
    call(rbm.general())


def test_chains_refuse():
    machine = random_machine(3, 0.5, 6)
    with pytest.raises(DomainError, match="n_chains must be a whole number of at least 1; got 0"):
        PersistentChains.init(machine, 0, seed=0)
    with pytest.raises(DomainError, match="seed must lie in"):
        PersistentChains.init(machine, 2, seed=-1)
    chains = PersistentChains.init(machine, 4, seed=0)
    with pytest.raises(DomainError, match="n_sweeps must be a whole number of at least 0; got -1"):
        chains.run(machine, -1)
    with pytest.raises(ShapeError, match=r"z must be \(B, 4\), one row per sample; got \(4, 3\)"):
        chains.run(random_machine(4, 0.5, 6), 1)
    with pytest.raises(ShapeError, match=r"z must be \(B, N\), one row per chain; got \(2,\)"):
        PersistentChains(np.zeros(2), 0)
    with pytest.raises(DomainError, match=r"z must be 0 or 1; entry \(0, 1\) is 0\.5"):
        PersistentChains(np.array([[0, 0.5]]), 0)
    with pytest.raises(DomainError, match="step must be a whole number"):
        PersistentChains(np.zeros((2, 2)), 0, -1)
