"""Samplers by name: their states by enumeration, what they remember, and samplers of others through dimod."""

import itertools
import sys
import types

import numpy as np
import pytest
import torch
from scipy import stats

import reference.gibbs
import reference.tempering
from dvaepp import samplers
from dvaepp.boltzmann import RBM
from dvaepp.errors import ConfigError
from dvaepp.gibbs import PersistentChains
from dvaepp.samplers import general
from dvaepp.samplers.population import N_POPULATIONS
from reference.boltzmann import energy, log_partition
from reference.vocabulary import RBM as ReferenceRBM

EXACT = "dwave.samplers:TreeDecompositionSampler"
ANNEALER = "dwave.samplers:SimulatedAnnealingSampler"


def module_of(rbm, dtype=torch.float32):
    module = RBM(rbm.n1, rbm.n2).to(dtype)
    with torch.no_grad():
        for name in ("a1", "a2", "W"):
            getattr(module, name).copy_(torch.from_numpy(getattr(rbm, name)))
    return module


def twins(n1=3, n2=3, scale=0.8, seed=3, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    rbm = ReferenceRBM(*((scale * rng.normal(size=shape)).astype(np.float32) for shape in (n1, n2, (n1, n2))))
    return rbm, module_of(rbm, dtype)


def two_modes():
    """All on, or all off, unequally likely; between them lies a barrier of about 12 nats."""
    rbm = ReferenceRBM(np.full(4, -6.0), np.full(4, -6.0) + np.array([0.1, 0.2, -0.1, 0.0]), np.full((4, 4), 3.05))
    return rbm, module_of(rbm)


def table(rbm):
    """All states (S, N), unit 0 changing slowest, and their probabilities."""
    states = np.array(list(itertools.product([0, 1], repeat=rbm.n1 + rbm.n2)), dtype=float)
    weight = np.exp(-energy(rbm, states[:, : rbm.n1], states[:, rbm.n1 :]))
    return states, weight / weight.sum()


def fit_p_value(rbm, z1, z2):
    """P-value of Pearson's chi-square that rows are independent draws; states too rare for it are counted together."""
    states, probs = table(rbm)
    expected = len(z1) * probs
    code = torch.cat([z1, z2], dim=1).double().numpy() @ 2.0 ** np.arange(states.shape[1])[::-1]
    counts = np.bincount(code.astype(int), minlength=len(states))
    rare = expected < 5
    if not rare.any():
        return stats.chisquare(counts, expected).pvalue
    pooled = [np.append(cells[~rare], cells[rare].sum()) for cells in (counts, expected)]
    return stats.chisquare(*pooled).pvalue


@pytest.mark.parametrize(("name", "n_sweeps"), [("gibbs", 20), ("tempering", 20), (EXACT, 1)])
def test_independent_samplers_have_the_enumerated_distribution(name, n_sweeps):
    """5,000 independent samples at the second call; a p-value below 1e-7 has probability 1e-7."""
    if ":" in name:
        pytest.importorskip("dwave.samplers")
    rbm, module = twins()
    sampler = samplers.create(name, 5000, n_sweeps, 3, 3, seed=1)
    sampler.sample(module)
    z1, z2 = sampler.sample(module)
    assert fit_p_value(rbm, z1, z2) > 1e-7
    # And the judge notices a machine a little warmer.
    warmer = ReferenceRBM(*(0.8 * getattr(rbm, part) for part in ("a1", "a2", "W")))
    assert fit_p_value(warmer, z1, z2) < 1e-7


def test_tempered_chains_share_far_modes_out_where_gibbs_chains_do_not():
    """2,000 independent chains, 110 sweeps in two calls; a p-value below 1e-7 has probability 1e-7."""
    rbm, module = two_modes()
    p_values = {}
    for name in ("tempering", "gibbs"):
        sampler = samplers.create(name, 2000, 55, 4, 4, seed=1)
        sampler.sample(module)
        p_values[name] = fit_p_value(rbm, *sampler.sample(module))
    assert p_values["tempering"] > 1e-7
    assert p_values["gibbs"] < 1e-7


def test_populations_have_the_enumerated_means_and_log_partition():
    """36 means of 100 calls, at 6 standard errors (t, 99 degrees of freedom: 3e-8 each): 1e-6; log Z alike."""
    rbm, module = two_modes()
    sampler = samplers.create("population", 160, 12, 4, 4, seed=5)
    with pytest.raises(ValueError, match="must be finite"):
        _ = sampler.log_partition_estimate
    pairs, partitions = [], []
    for _ in range(100):
        z = torch.cat(sampler.sample(module), dim=1)
        pairs.append((z.T @ z / len(z)).numpy()[np.triu_indices(8)])
        partitions.append(np.exp(sampler.log_partition_estimate.log_partition - log_partition(rbm)))
    states, probs = table(rbm)
    exact = ((states * probs[:, None]).T @ states)[np.triu_indices(8)]
    for observed, expected in ((np.array(pairs), exact), (np.array(partitions)[:, None], 1.0)):
        errors = (observed.mean(axis=0) - expected) / (observed.std(axis=0, ddof=1) / 10)
        assert abs(errors).max() < 6
    assert sampler.step == 100


def test_populations_are_resampled_by_their_weights(monkeypatch):
    """Population m lends its share of the samples, rounded down or up; unequal populations are told apart by a unit."""
    from dvaepp import population

    weights = torch.tensor([0.5, 3.0, 1.0, 0.0, 2.0, 1.5, 0.25, 1.75], dtype=torch.float64)

    def fixed(rbm, ladder, n_populations, n_replicas, seed):
        z1 = torch.eye(n_populations)[:, None].repeat(1, n_replicas, 1)
        z2 = torch.zeros(n_populations, n_replicas, 2)
        return population.Population(z1, z2, weights.log().clamp_min(-800.0), weights)

    monkeypatch.setattr(population, "anneal", fixed)
    sampler = samplers.create("population", 77, 3, N_POPULATIONS, 2, seed=0)
    counts = sampler.sample(RBM(N_POPULATIONS, 2))[0].sum(0)
    due = 77 * weights / weights.sum()
    assert counts.sum() == 77
    assert (counts >= due.floor()).all()
    assert (counts <= due.ceil()).all()


NAMES = [*samplers.NAMES, ANNEALER]


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_goes_on_from_its_state_dict(name):
    if ":" in name:
        pytest.importorskip("dwave.samplers")
    _, module = twins(5, 3)

    def made(seed):
        return samplers.create(name, 20, 3, 5, 3, seed)

    first = made(4)
    for _ in range(2):
        first.sample(module)
    stored = {key: value.clone() for key, value in first.state_dict().items()}
    assert {"z1", "z2", "step"} <= set(stored)
    z1, z2 = first.sample(module)
    assert z1 is first.z1
    assert z2 is first.z2
    second, other = made(4), made(5)
    for sampler in (second, other):
        sampler.load_state_dict(stored)
        sampler.sample(module)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    assert not torch.equal(torch.cat([z1, z2], 1), torch.cat([other.z1, other.z2], 1))
    # States are binary, without gradient, the machine's dtype; the module says what it is.
    for state in (z1, z2):
        assert ((state == 0) | (state == 1)).all()
        assert not state.requires_grad
    double = made(4).double()
    assert all(state.dtype == torch.float64 for state in double.sample(module.double()))
    assert "n_chains=20" in repr(first)


def test_the_gibbs_sampler_is_persistent_chains_and_loads_their_checkpoints():
    _, module = twins(5, 3)
    chains, sampler = PersistentChains(20, 5, 3, seed=4), samplers.create("gibbs", 20, 6, 5, 3, 4)
    assert set(sampler.state_dict()) == {"z1", "z2", "step"}
    assert torch.equal(chains.states(), sampler.states())
    chains.run(module, 3)
    sampler.load_state_dict(chains.state_dict())
    sampler.sample(module)
    chains.run(module, 6)
    for key, value in chains.state_dict().items():
        assert torch.equal(value, sampler.state_dict()[key]), key


def test_backends_draw_the_references_numbers():
    rbm, module = twins(5, 3, dtype=torch.float64)
    gibbs = samplers.create("gibbs", 10, 4, 5, 3, 7, "numpy_oracle").double()
    z1, z2 = gibbs.sample(module)
    expected = reference.gibbs.PersistentChains.init(rbm, 10, 7).run(rbm, 4)
    np.testing.assert_array_equal(z1, expected.z1)
    np.testing.assert_array_equal(z2, expected.z2)
    tempering = samplers.create("tempering", 10, 4, 5, 3, 7, "numpy_oracle").double()
    tempering.sample(module)
    z1, z2 = tempering.sample(module)
    expected = reference.tempering.run(rbm, np.linspace(0, 1, 12), 10, 8, 7)
    np.testing.assert_array_equal(z1, expected.z1)
    np.testing.assert_array_equal(z2, expected.z2)
    assert tempering.step == 8


@pytest.mark.parametrize("name", ["gibbs", "tempering"])
def test_two_calls_are_one_of_twice_the_sweeps(name):
    """On a machine with far modes, where chains that forgot their states would not meet again."""
    _, module = two_modes()
    twice, once = (samplers.create(name, 200, n, 4, 4, seed=2) for n in (3, 6))
    twice.sample(module)
    for ours, expected in zip(twice.sample(module), once.sample(module), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gibs", "unknown sampler 'gibs'; did you mean 'gibbs'?"),
        ("xyz", "unknown sampler 'xyz'; there are: gibbs, tempering, population, or module:object"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ConfigError) as found:
        samplers.create(name, 10, 4, 5, 3, 7)
    assert str(found.value) == message
    with pytest.raises(ConfigError, match="unknown sampler"):
        general.create(name, 10, 4, 8, 7)


@pytest.mark.parametrize("argument", ["n_chains", "n_sweeps", "n1", "n2"])
def test_counts_below_one_are_refused(argument):
    counts = {"n_chains": 1, "n_sweeps": 1, "n1": 1, "n2": 1} | {argument: 0}
    with pytest.raises(ConfigError, match=f"{argument} must be at least 1; got 0"):
        samplers.create("gibbs", seed=0, **counts)


# ---- dimod -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugged(monkeypatch):
    """Makes a name under which a dimod.Sampler with a given ``sample`` can be loaded; it records its options."""
    dimod = pytest.importorskip("dimod")
    module = types.ModuleType("somebodys_sampler")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def plug(reads, parameters=("num_reads",)):
        class Theirs(dimod.Sampler):
            properties = {}  # noqa: RUF012
            parameters = {}  # noqa: RUF012
            options = []  # noqa: RUF012

            def sample(self, bqm, **options):
                self.options.append(options)
                return reads(bqm, options)

        Theirs.parameters = {name: [] for name in parameters}
        module.Theirs = Theirs
        module.instance = Theirs()
        module.make = lambda: module.instance
        module.nonsense = 3
        return module

    return plug


def test_dimods_energies_are_ours():
    """All 2**7 states, in float64, from float32 parameters: as many roundings as there are terms."""
    pytest.importorskip("dimod")
    rbm, module = twins(4, 3, scale=2.0)
    states, _ = table(rbm)
    model = samplers.quadratic.model_of(module)
    assert list(model.variables) == list(range(7))
    found = model.energies((states, range(7)))
    np.testing.assert_allclose(found, energy(rbm, states[:, :4], states[:, 4:]), rtol=0, atol=1e-13)


def test_what_comes_back_is_put_in_order(plugged):
    """Counted reads, columns in another order, spins for bits: rows of units all the same."""
    dimod = pytest.importorskip("dimod")
    wanted = np.array([[1, 0, 0, 1, 0], [1, 0, 0, 1, 0], [0, 1, 1, 1, 0]])

    def reads(bqm, options):
        order = [3, 0, 4, 2, 1]
        spins = 2 * wanted[[0, 2]][:, order] - 1
        return dimod.SampleSet.from_samples(
            (spins, order), "SPIN", energy=[0, 0], num_occurrences=[2, 1], sort_labels=False
        )

    plugged(reads)
    for name in ("Theirs", "instance", "make"):
        sampler = samplers.create(f"somebodys_sampler:{name}", 3, 1, 2, 3, seed=0)
        z1, z2 = sampler.sample(RBM(2, 3))
        np.testing.assert_array_equal(torch.cat([z1, z2], dim=1), wanted)


def test_what_a_sampler_is_told(plugged):
    """Only what it says it takes: the temperature is 1 or falls to 1, and every call has a seed of its own."""
    dimod = pytest.importorskip("dimod")

    def reads(bqm, options):
        zeros = np.zeros((options["num_reads"], bqm.num_variables))
        return dimod.SampleSet.from_samples_bqm((zeros, range(bqm.num_variables)), bqm)

    theirs = plugged(reads, ("num_reads", "beta"))
    samplers.create("somebodys_sampler:instance", 5, 7, 2, 3, seed=0).sample(RBM(2, 3))
    assert theirs.instance.options == [{"num_reads": 5, "beta": 1.0}]
    theirs = plugged(reads, ("num_reads", "beta_range", "beta_schedule_type", "num_sweeps", "seed", "elsewhere"))
    sampler = samplers.create("somebodys_sampler:instance", 5, 7, 2, 3, seed=0)
    sampler.sample(RBM(2, 3))
    sampler.sample(RBM(2, 3))
    first, second = theirs.instance.options
    assert first.pop("seed") != second.pop("seed")
    assert first == second
    assert first.pop("beta_range")[1] == 1
    assert first == {"num_reads": 5, "beta_schedule_type": "linear", "num_sweeps": 7}
    # A machine of zeros, as training starts with, still has all its units.
    assert sampler.z1.shape == (5, 2)


def test_samplers_that_cannot_be_used(plugged, monkeypatch):
    dimod = pytest.importorskip("dimod")
    two = plugged(lambda bqm, options: dimod.SampleSet.from_samples_bqm(np.zeros((2, 5)), bqm))
    sampler = samplers.create("somebodys_sampler:instance", 3, 1, 2, 3, seed=0)
    with pytest.raises(ConfigError, match="'somebodys_sampler:instance' was asked for 3 reads and returned 2"):
        sampler.sample(RBM(2, 3))
    assert two.instance.options == [{"num_reads": 3}]
    for name, message in (
        ("nowhere_at_all:object", "cannot be loaded: No module named 'nowhere_at_all'"),
        ("somebodys_sampler:missing", "cannot be loaded: .* no attribute 'missing'"),
        ("somebodys_sampler:nonsense", "must be or make a dimod.Sampler; it is a int"),
        ("dimod:ExactSolver", "must take num_reads, the number of samples; ExactSolver does not"),
        ("some where:else", "must be module:object with dotted names"),
        ("dimod:", "must be module:object with dotted names"),
    ):
        with pytest.raises(ConfigError, match=message) as found:
            samplers.create(name, 3, 1, 2, 3, seed=0)
        assert "\n" not in str(found.value)
    monkeypatch.setitem(sys.modules, "dimod", None)
    with pytest.raises(ConfigError, match=r"needs dimod .*; pip install 'dvaepp\[dimod\]'"):
        samplers.create("somebodys_sampler:instance", 3, 1, 2, 3, seed=0)


def test_the_example_shows_that_annealing_is_not_sampling():
    """Exact samples have a root mean square error of 1. Beyond 5: 6e-7, if all 80 terms moved together; they do not."""
    pytest.importorskip("dwave.samplers")
    from examples import dimod_sampler

    errors = [
        dimod_sampler.gradient_error(dimod_sampler.frustrated(name, 5000, n_sweeps))
        for name, n_sweeps in ((ANNEALER, 10), (ANNEALER, 200), (EXACT, 1))
    ]
    assert errors[0] > 6
    assert errors[1] < 5
    assert errors[2] < 5


def test_the_example_trains(capsys):
    pytest.importorskip("dwave.samplers")
    from examples import dimod_sampler

    assert dimod_sampler.bars_and_stripes().shape == (14, 9)
    untrained, trained = (dimod_sampler.train(ANNEALER, n, 100, 10) for n in (0, 120))
    assert untrained == pytest.approx(9 * np.log(2), abs=0.3)
    assert np.log(14) < trained < untrained - 1
    assert dimod_sampler.main(["--sampler", EXACT, "--samples", "50", "--iterations", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all("error" in line or "-log p" in line for line in lines)
    with pytest.raises(ConfigError, match="unknown sampler"):
        dimod_sampler.main(["--sampler", "anneal"])
