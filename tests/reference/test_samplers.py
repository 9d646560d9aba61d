"""Every sampler judged by enumeration of small machines, and the judges by samplers that are wrong on purpose.

The verdict on independent chains has a failure rate that is a theorem, not an approximation. Of n independent draws
from k cells, with frequencies f where probabilities p are due,

    P(n KL(f || p) >= x) <= exp(-x) (e x / (k - 1))**(k - 1)    for x > k - 1

(Agrawal, 2020, "Finite-sample concentration of the multinomial in relative entropy"), and a test here rejects where the
right-hand side is below 1e-9. The chains have not run for ever; but n of them differ from n draws of the machine by at
most n times the total variation distance of one, which is computed exactly, and they run until that is below 1e-9 too.
So each verdict is wrong by chance with probability below 2e-9, and all of them together below 1e-6. Where it is
otherwise (populations, whose replicas are relatives; a ladder too long to follow exactly) the test says so.
"""

import itertools

import numpy as np
import pytest

from reference import general_boltzmann, gibbs, population, single_site, tempering
from reference.boltzmann import energy
from reference.general_boltzmann import logits
from reference.gibbs import PersistentChains
from reference.philox import uniforms
from reference.single_site import colouring
from reference.vocabulary import RBM, BoltzmannMachine

N_CHAINS = 5000
FAILURE_RATE = 1e-9


def centred(n1, n2, seed, scale, bias):
    """A random machine whose biases balance its couplings, so that strong ones make several far modes."""
    rng = np.random.default_rng(seed)
    W = scale * rng.normal(size=(n1, n2))
    return RBM(bias * rng.normal(size=n1) - W.sum(axis=1) / 2, bias * rng.normal(size=n2) - W.sum(axis=0) / 2, W)


def two_modes(n_side, coupling):
    """All units on, or all off, are the likely states, unequally so, with a barrier between them."""
    tilt = np.array([0.5, 0.4, -0.1, 0.2])[:n_side]
    bias = -n_side * coupling / 2
    return RBM(np.full(n_side, bias), np.full(n_side, bias) + tilt, np.full((n_side, n_side), coupling))


def frustrated():
    """Seven units, about half of all pairs coupled, with loops of odd length: three colours, no two sides."""
    rng = np.random.default_rng(1)
    J = np.triu(rng.normal(size=(7, 7)) * (rng.uniform(size=(7, 7)) < 0.5), 1)
    J = 1.2 * (J + J.T)
    return BoltzmannMachine(0.5 * rng.normal(size=7) - J.sum(axis=0) / 2, J)


RBMS = {
    "weak": centred(4, 3, seed=1, scale=0.5, bias=0.3),
    "strong": centred(4, 4, seed=2, scale=1.5, bias=0.3),
    "two modes": two_modes(3, coupling=1.3),
    "biased": centred(5, 4, seed=3, scale=0.7, bias=2.0),
    "twelve units": centred(6, 6, seed=4, scale=0.8, bias=1.5),
}
FAR_MODES = two_modes(4, coupling=3.05)  # a barrier of about 12 nats: Gibbs chains do not cross it
RUNGS = np.array([0.2, 0.6, 1.0])
CRUDE = np.array([0.0, 1 / 3, 1.0])


def enumerated(machine, inv_temp=1.0):
    """Probabilities of all states as an array of shape (2, ..., 2), one axis per unit (energy: judged in its test)."""
    n_units = machine.n
    states = np.indices((2,) * n_units).reshape(n_units, -1).T
    log_weights = -inv_temp * general_boltzmann.energy(machine, states)
    weights = np.exp(log_weights - log_weights.max())
    return (weights / weights.sum()).reshape((2,) * n_units)


def codes(z):
    """Number of each state in the order of ``enumerated``."""
    return (z @ 2 ** np.arange(z.shape[-1])[::-1]).astype(int)


def chance(probs, z):
    """Upper bound of the probability that independent draws lie as far from their distribution as the rows of z do."""
    probs, n = probs.ravel(), len(z)
    counts = np.bincount(codes(z), minlength=probs.size)
    rare = n * probs < 5  # one cell for all of them: they would add to k and hardly to the divergence
    probs, counts = (np.append(cells[~rare], cells[rare].sum()) for cells in (probs, counts))
    seen = counts > 0
    x = (counts[seen] * np.log(counts[seen] / (n * probs[seen]))).sum()
    k = len(probs) - (probs[-1] == 0)
    return 1.0 if x <= k - 1 else np.exp((k - 1) * (1 + np.log(x / (k - 1))) - x)


def step_exactly(law, probs, blocks):
    """The distribution after each block of axes in turn is redrawn from its conditional in ``probs``."""
    for block in blocks:
        conditional = probs / probs.sum(axis=block, keepdims=True)
        law = law.sum(axis=block, keepdims=True) * conditional
    return law


def distance(law, probs):
    """Total variation distance."""
    return abs(law - probs).sum() / 2


def sweeps_until_mixed(probs, blocks):
    """Fewest sweeps from fair coins after which N_CHAINS chains are, to 1e-9, as good as independent exact draws."""
    law = np.full(probs.shape, 1 / probs.size)
    for n_sweeps in itertools.count(1):
        law = step_exactly(law, probs, blocks)
        if N_CHAINS * distance(law, probs) < FAILURE_RATE:
            assert 4 < n_sweeps < 120
            return n_sweeps


def sides(rbm):
    return [tuple(range(rbm.n1, rbm.n1 + rbm.n2)), tuple(range(rbm.n1))]


def each_unit(machine):
    return [(unit,) for unit in range(machine.n)]


def by_colour(machine):
    return [tuple(colour) for colour in colouring(machine)]


def block_gibbs(rbm, n_sweeps, machine=None):
    chains = PersistentChains.init(rbm, N_CHAINS, seed=1).run(machine or rbm, n_sweeps)
    return np.hstack([chains.z1, chains.z2])


def site_gibbs(machine, n_sweeps, colours=None):
    return single_site.PersistentChains.init(machine, N_CHAINS, seed=2).run(machine, n_sweeps, colours).z


@pytest.mark.parametrize("name", RBMS)
def test_block_gibbs(name):
    rbm = RBMS[name]
    probs = enumerated(rbm.general())
    assert chance(probs, block_gibbs(rbm, sweeps_until_mixed(probs, sides(rbm)))) > FAILURE_RATE
    assert chance(probs, block_gibbs(rbm, 0)) < FAILURE_RATE  # the coins they start from


@pytest.mark.parametrize("name", [*RBMS, "frustrated"])
def test_single_site_and_chromatic_gibbs(name):
    machine = frustrated() if name == "frustrated" else RBMS[name].general()
    probs = enumerated(machine)
    n_colours = len(colouring(machine))
    assert n_colours == (3 if name == "frustrated" else 2)
    one_by_one = site_gibbs(machine, sweeps_until_mixed(probs, each_unit(machine)))
    assert chance(probs, one_by_one) > FAILURE_RATE
    together = site_gibbs(machine, sweeps_until_mixed(probs, by_colour(machine)), colouring(machine))
    assert chance(probs, together) > FAILURE_RATE


@pytest.mark.parametrize("inv_temp", [0.5, 2.0])
def test_one_sweep_keeps_the_distribution_at_any_temperature(inv_temp):
    """Exact draws at the start, so nothing has to mix."""
    rbm, rng = RBMS["strong"], np.random.default_rng(3)
    machine = rbm.general()
    probs = enumerated(machine, inv_temp)
    z = np.stack(np.unravel_index(rng.choice(probs.size, N_CHAINS, p=probs.ravel()), probs.shape), axis=1)
    u = rng.uniform(size=z.shape)
    z1, z2 = gibbs.sweep(rbm, z[:, :4], u[:, 4:], u[:, :4], inv_temp)
    order = rng.permutation(machine.n)
    for after in (
        np.hstack([z1, z2]),
        single_site.sweep(machine, z, u, order, inv_temp),
        single_site.chromatic_sweep(machine, z, u, colouring(machine), inv_temp),
    ):
        assert chance(probs, after) > FAILURE_RATE
        assert chance(enumerated(machine), after) < FAILURE_RATE  # and it is another distribution


def tempered(rbm, inv_temps, n_rounds, n_chains=N_CHAINS):
    result = tempering.run(rbm, inv_temps, n_chains, n_rounds, seed=3)
    return np.hstack([result.z1, result.z2])


def small_machine():
    return centred(3, 2, seed=5, scale=2.0, bias=0.5)


def tempering_exactly(rbm, n_rounds):
    """The distribution of the three replicas of RUNGS, (32, 32, 32), as tempering carries it on from coins."""
    n_units, (z2_axes, z1_axes) = rbm.n1 + rbm.n2, sides(rbm)
    states = np.indices((2,) * n_units).reshape(n_units, -1).T
    energies = energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :])
    size = len(states)
    law = np.full((size,) * 3, size**-3.0)
    for round_ in range(n_rounds):
        for replica, inv_temp in enumerate(RUNGS):
            rows = np.moveaxis(law, replica, 0).reshape((2,) * n_units + (size**2,))
            probs = enumerated(rbm.general(), inv_temp)[..., None]
            rows = step_exactly(rows, probs, (z2_axes, z1_axes)).reshape(size, size, size)
            law = np.moveaxis(rows, 0, replica)
        low = round_ % 2  # this round's pair of replicas; the third keeps its state
        before = np.exp(-RUNGS[low] * energies[:, None] - RUNGS[low + 1] * energies[None, :])
        accept = np.expand_dims(np.minimum(1, before.T / before), 2 if low == 0 else 0)
        law = law * (1 - accept) + np.swapaxes(law * accept, low, low + 1)
    return law


SMALL_ROUNDS = 30  # even: the last round exchanges the top pair, so that its result is judged too


def test_tempering_of_three_replicas_followed_exactly():
    rbm = small_machine()
    probs = enumerated(rbm.general())
    law = tempering_exactly(rbm, SMALL_ROUNDS)
    product = np.einsum("i,j,k->ijk", *(enumerated(rbm.general(), b).ravel() for b in RUNGS))
    assert N_CHAINS * distance(law, product) < FAILURE_RATE
    assert chance(probs, tempered(rbm, RUNGS, SMALL_ROUNDS)) > FAILURE_RATE
    early = tempering_exactly(rbm, 2).sum(axis=(0, 1))  # before it has mixed, too, it is where it should be
    assert chance(early, tempered(rbm, RUNGS, 2)) > FAILURE_RATE


def test_tempering_samples_far_modes_where_gibbs_does_not():
    """Eight replicas have too many joint states to follow exactly: the failure rate is that of chains that have mixed.

    Gibbs chains, after as many sweeps, are where the coins dropped them.
    """
    probs = enumerated(FAR_MODES.general())
    assert chance(probs, tempered(FAR_MODES, np.linspace(0, 1, 8), 81, n_chains=2000)) > FAILURE_RATE
    assert chance(probs, block_gibbs(FAR_MODES, 81)) < FAILURE_RATE


def population_distances(rbm, n_populations=3000, n_replicas=5):
    """Distances, in standard errors, of population annealing from what holds exactly on any ladder, however crude.

    The mean over populations of (Z estimate / Z) (share of replicas in a cell) is the cell's probability; the last
    entry is the mean of Z estimate / Z itself. Five replicas on a crude ladder make weights matter. Populations are
    independent, so each distance is asymptotically normal; cells that expect less than 100 replicas are counted as
    one. A distance exceeds 7 with probability below 1e-9, even where a count of 100 is still skewed like Poisson's, and
    there are less than 150 cells.
    """
    result = population.anneal(rbm, CRUDE, n_populations, n_replicas, seed=4)
    probs = enumerated(rbm.general()).ravel()
    share = np.zeros((n_populations, probs.size))
    number = np.arange(n_populations)[:, None]
    np.add.at(share, (number, codes(np.concatenate([result.z1, result.z2], axis=2))), 1 / n_replicas)
    log_partition = general_boltzmann.log_partition(rbm.general())  # judged in its own test
    carried = np.exp(result.log_weights - log_partition)[:, None] * share
    rare = probs * n_populations * n_replicas < 100
    carried = np.column_stack([carried[:, ~rare], carried[:, rare].sum(axis=1), carried.sum(axis=1)])
    expected = np.array([*probs[~rare], probs[rare].sum(), 1.0])
    assert len(expected) < 150
    return abs(carried.mean(axis=0) - expected) / (carried.std(axis=0, ddof=1) / np.sqrt(n_populations))


POPULATION_RBMS = {name: RBMS[name] for name in ("weak", "strong", "biased")} | {
    "several modes": centred(4, 4, seed=3, scale=2.0, bias=0.3),
    "far modes": FAR_MODES,
}


@pytest.mark.parametrize("name", POPULATION_RBMS)
def test_population_annealing(name):
    distances = population_distances(POPULATION_RBMS[name])
    assert distances.max() < 7
    assert distances.mean() > 0.3  # and the standard errors are not inflated: |normal| has mean 0.8


def test_no_random_number_is_used_twice(monkeypatch):
    """Not inside a run, and not by two samplers that share a seed. (The judges see the first only if it does harm.)"""
    rbm = RBMS["weak"]
    runs = {
        gibbs: lambda: PersistentChains.init(rbm, 2, seed=0).run(rbm, 3),
        single_site: lambda: single_site.PersistentChains.init(rbm.general(), 2, seed=0).run(rbm.general(), 3),
        tempering: lambda: tempering.run(rbm, RUNGS, 2, 3, seed=0, sweeps_per_round=2),
        population: lambda: population.anneal(rbm, CRUDE, 2, 3, seed=0, sweeps_per_rung=2),
    }
    addresses = []

    def recorded(seed, step, n_chains, n_units, stream):
        addresses.append((step, stream))
        return uniforms(seed, step, n_chains, n_units, stream)

    for module, run in runs.items():
        monkeypatch.setattr(module, "uniforms", recorded)
        run()
    assert len(addresses) == (1 + 2 * 3) + (1 + 3) + (1 + 2 * 6 + 3) + (1 + 2 * 4 + 2)
    assert len(set(addresses)) == len(addresses)


# The judges judged: each of them, unchanged, must reject what is wrong.

WRONG_LOGITS = {
    "bias of one side missing": ("logits_z2", lambda rbm, z1: z1 @ rbm.W),
    "W transposed": ("logits_z1", lambda rbm, z2: rbm.a1 + z2 @ rbm.W),
    "W halved": ("logits_z1", lambda rbm, z2: rbm.a1 + z2 @ rbm.W.T / 2),
    "sign of W": ("logits_z2", lambda rbm, z1: rbm.a2 - z1 @ rbm.W),
}


@pytest.mark.parametrize("wrong", WRONG_LOGITS)
def test_wrong_block_conditionals_are_caught(monkeypatch, wrong):
    rbm = RBMS["strong"]
    probs = enumerated(rbm.general())
    monkeypatch.setattr(gibbs, *WRONG_LOGITS[wrong])
    assert chance(probs, block_gibbs(rbm, sweeps_until_mixed(probs, sides(rbm)))) < FAILURE_RATE


def test_both_sides_redrawn_at_once_are_caught(monkeypatch):
    rbm = RBMS["strong"]
    probs = enumerated(rbm.general())
    n_sweeps = sweeps_until_mixed(probs, sides(rbm))
    right = gibbs.sweep

    def at_once(machine, z1, u2, u1):
        old_z2 = at_once.z2
        z2 = right(machine, z1, u2, u1)[1]
        at_once.z2 = z2
        return (u1 < 1 / (1 + np.exp(-machine.a1 - old_z2 @ machine.W.T))).astype(float), z2

    at_once.z2 = PersistentChains.init(rbm, N_CHAINS, seed=1).z2
    monkeypatch.setattr(gibbs, "sweep", at_once)
    assert chance(probs, block_gibbs(rbm, n_sweeps)) < FAILURE_RATE


@pytest.mark.parametrize(
    "wrong",
    [
        lambda machine, z: logits(machine, z) - machine.a,  # biases forgotten
        lambda machine, z: machine.a + z @ machine.J / 2,  # the half of z'J z / 2 kept in its derivative
        lambda machine, z: machine.a + z @ np.triu(machine.J),  # each pair seen from one end only
    ],
)
def test_wrong_site_conditionals_are_caught(monkeypatch, wrong):
    machine = frustrated()
    probs = enumerated(machine)
    monkeypatch.setattr(single_site, "logits", wrong)
    for blocks, colours in ((each_unit(machine), None), (by_colour(machine), colouring(machine))):
        assert chance(probs, site_gibbs(machine, sweeps_until_mixed(probs, blocks), colours)) < FAILURE_RATE


def test_coupled_units_redrawn_at_once_are_caught(monkeypatch):
    machine = frustrated()
    probs = enumerated(machine)
    first, second, third = colouring(machine)
    n_sweeps = sweeps_until_mixed(probs, by_colour(machine))
    monkeypatch.setattr(single_site, "_as_colours", lambda _, colours: colours)
    for colours in ([np.arange(7)], [np.append(first, third), second]):
        assert chance(probs, site_gibbs(machine, n_sweeps, colours)) < FAILURE_RATE


@pytest.mark.parametrize(
    "wrong",
    [
        lambda swap, e, b, u, parity: swap(-e, b, u, parity),  # the sign of the exponent
        lambda swap, e, b, u, parity: swap(0 * e, b, u, parity),  # every exchange accepted
        lambda swap, e, b, u, parity: swap(e, b / 2, u, parity),  # only half of the exponent
        lambda swap, e, b, u, parity: swap(np.roll(e, 1, axis=1), b, u, parity),  # another chain's energies
    ],
)
def test_wrong_swaps_are_caught(monkeypatch, wrong):
    rbm, right = small_machine(), tempering.swap
    monkeypatch.setattr(tempering, "swap", lambda *arguments: wrong(right, *arguments))
    assert chance(enumerated(rbm.general()), tempered(rbm, RUNGS, SMALL_ROUNDS)) < FAILURE_RATE


@pytest.mark.parametrize(
    "wrong",
    [
        lambda resample, gain, u: resample(-gain, u),  # the unlikely ones copied
        lambda resample, gain, u: np.tile(np.arange(gain.shape[1]), (len(gain), 1)),  # nobody replaced
        lambda resample, gain, u: resample(gain / 2, u),  # only half of the exponent
        lambda resample, gain, u: resample(np.roll(gain, 1, axis=1), u),  # a neighbour's weight
        lambda resample, gain, u: np.tile(gain.argmax(axis=1)[:, None], (1, gain.shape[1])),  # the best one only
    ],
)
@pytest.mark.parametrize("name", ["several modes", "far modes"])
def test_wrong_resampling_is_caught(monkeypatch, name, wrong):
    right = population.resample
    monkeypatch.setattr(population, "resample", lambda *arguments: wrong(right, *arguments))
    assert population_distances(POPULATION_RBMS[name]).max() > 7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda sweep, rbm, z1, u2, u1, b: sweep(rbm, z1, u2, u1, b / 2),  # at the wrong temperature
        lambda sweep, rbm, z1, u2, u1, b: sweep(rbm, z1, u2, u1, 1.0),  # always at the last one
        lambda sweep, rbm, z1, u2, u1, b: sweep(RBM(rbm.a1, rbm.a2, rbm.W / 2), z1, u2, u1, b),
    ],
)
def test_wrong_sweeps_of_populations_are_caught(monkeypatch, wrong):
    right = population.sweep
    monkeypatch.setattr(population, "sweep", lambda *arguments: wrong(right, *arguments))
    assert population_distances(POPULATION_RBMS["several modes"]).max() > 7
