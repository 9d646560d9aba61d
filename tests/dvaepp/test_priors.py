"""Boltzmann priors as modules: by enumeration, against the reference, and as torch's users use them."""

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

import reference.boltzmann_kl
import reference.general_boltzmann
import reference.single_site
from dvaepp import general_boltzmann, single_site
from dvaepp.errors import ConfigError
from dvaepp.general_boltzmann import GeneralBoltzmann
from dvaepp.partition import Base
from dvaepp.priors import BoltzmannMachine, BoltzmannPrior, RestrictedBoltzmann, annealing
from dvaepp.samplers import general
from reference.partition import estimate
from reference.vocabulary import RBM as ReferenceRBM
from reference.vocabulary import BoltzmannMachine as ReferenceMachine
from reference.vocabulary import DomainError

EXACT = "dwave.samplers:TreeDecompositionSampler"


def restricted(n1=3, n2=4, which=0, scale=1.0, **options):
    rng = np.random.default_rng(which)
    rbm = ReferenceRBM(*(scale * rng.normal(size=shape) for shape in (n1, n2, (n1, n2))))
    module = RestrictedBoltzmann(n1, n2, **options).double()
    with torch.no_grad():
        for name in ("a1", "a2", "W"):
            getattr(module, name).copy_(torch.from_numpy(getattr(rbm, name)))
    return rbm.general(), module


def sparse(n=7, which=0, scale=1.0, density=0.5, **options):
    """A random machine in float64, some units of which are not coupled."""
    rng = np.random.default_rng(which)
    once = np.triu(scale * rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < density), 1)
    machine = ReferenceMachine(scale * rng.normal(size=n) - (once + once.T).sum(0) / 2, once + once.T)
    module = BoltzmannMachine.from_couplings(machine.a, machine.J, **options).double()
    return machine, load(module, machine)


def load(module, machine):
    first, second = module.edges.T.numpy()
    with torch.no_grad():
        module.a.copy_(torch.from_numpy(machine.a))
        module.couplings.copy_(torch.from_numpy(machine.J[first, second]))
    return module


MACHINES = [restricted, sparse]


def table(machine):
    """All states (S, N), -E of each term by term, and log Z."""
    states = np.array(list(itertools.product([0, 1], repeat=machine.n)), dtype=float)
    pairs = list(itertools.combinations(range(machine.n), 2))
    log_weight = np.array([z @ machine.a + sum(machine.J[i, j] * z[i] * z[j] for i, j in pairs) for z in states])
    return states, log_weight, np.logaddexp.reduce(log_weight)


@pytest.mark.parametrize("build", MACHINES)
def test_energy_probability_and_exact_log_partition(build):
    machine, prior = build()
    states, log_weight, log_z = table(machine)
    z = torch.from_numpy(states)
    np.testing.assert_allclose(prior.energy(z).detach(), -log_weight, atol=1e-13)
    np.testing.assert_allclose(prior.log_prob(z, log_z).detach(), log_weight - log_z, atol=1e-13)
    bracket = prior.log_partition_bracket()
    assert bracket.lower == bracket.upper
    assert bracket.low == pytest.approx(log_z, abs=1e-12)
    assert prior.n == machine.n
    assert isinstance(prior, BoltzmannPrior)


def test_a_restricted_prior_is_an_rbm_too():
    _, prior = restricted()
    z = (torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    assert torch.equal(prior.energy(z), prior.energy(z[:, :3], z[:, 3:]))
    assert {"a1", "a2", "W", "sampler.z1", "sampler.z2", "sampler.step"} == set(prior.state_dict())


@pytest.mark.parametrize("build", MACHINES)
def test_the_surrogates_gradient_is_that_of_log_z(build):
    """At samples in exact proportion it is a finite difference of the enumerated log Z; and it is linear in them."""
    machine, prior = build(scale=0.7)
    states, log_weight, log_z = table(machine)
    parameters = list(prior.parameters())
    per_state = [
        torch.autograd.grad(prior.log_partition_surrogate(torch.from_numpy(z[None])), parameters) for z in states
    ]
    # The mean over all states, each as often as it is probable.
    probs = np.exp(log_weight - log_z)
    by_parameter = zip(*per_state, strict=True)
    gradient = [sum(p * g for p, g in zip(probs, of, strict=True)) for of in by_parameter]
    step = 1e-5
    for parameter, analytic in zip(parameters, gradient, strict=True):
        flat, numeric = parameter.detach().view(-1), []
        for k in range(len(flat)):
            ends = []
            for sign in (1, -1):
                flat[k] += sign * step
                ends.append(prior.log_partition_bracket().low)
                flat[k] -= sign * step
            numeric.append((ends[0] - ends[1]) / (2 * step))
        np.testing.assert_allclose(analytic.flatten(), numeric, atol=1e-9)
    both = torch.autograd.grad(prior.log_partition_surrogate(torch.from_numpy(states[[3, 9]])), parameters)
    for got, first, second in zip(both, per_state[3], per_state[9], strict=True):
        np.testing.assert_allclose(got, (first + second) / 2, atol=1e-15)


@pytest.mark.parametrize("build", MACHINES)
@pytest.mark.parametrize("sampler", ["gibbs", "tempering"])
def test_the_surrogate_draws_its_own_samples(build, sampler):
    """Moments of 5,000 independent chains at 6 standard errors: at most 28 numbers, 1e-7."""
    machine, prior = build(sampler=sampler, n_chains=5000, n_sweeps=15)
    states, log_weight, log_z = table(machine)
    before = prior.sampler.step.item()
    prior.log_partition_surrogate().backward()
    assert prior.sampler.step == before + 15
    mean = np.exp(log_weight - log_z) @ states
    biases = [prior.a] if build is sparse else [prior.a1, prior.a2]
    errors = (torch.cat([bias.grad for bias in biases]).numpy() - mean) / np.sqrt(mean * (1 - mean) / 5000)
    assert abs(errors).max() < 6
    pair = np.einsum("s,si,sj->ij", np.exp(log_weight - log_z), states, states)
    coupled = pair[:3, 3:] if build is restricted else pair[tuple(prior.edges.T.numpy())]
    found = (prior.W if build is restricted else prior.couplings).grad.numpy()
    assert abs((found - coupled) / np.sqrt(coupled * (1 - coupled) / 5000)).max() < 6


@pytest.mark.parametrize("n_groups", [1, 2, 3, 6])
def test_cross_entropy_and_its_derivatives_are_the_references(n_groups):
    for machine, prior in (restricted(3, 3), sparse(6)):
        rng = np.random.default_rng(n_groups)
        logit_q, nu = rng.normal(size=(5, 6)), rng.uniform(size=(5, 6))
        logits, ours = torch.tensor(logit_q, requires_grad=True), torch.tensor(nu, requires_grad=True)
        value = prior.cross_entropy(logits.sigmoid(), ours, n_groups) + 0 * ours.sum(-1)  # one group: without nu
        mu = 1 / (1 + np.exp(-logit_q))
        np.testing.assert_allclose(
            value.detach(), reference.boltzmann_kl.cross_entropy(machine, mu, nu, n_groups), atol=1e-13
        )
        value.sum().backward()
        theirs = reference.boltzmann_kl.kl_with_gradients(machine, logit_q, nu, n_groups, 0.0)
        np.testing.assert_allclose(ours.grad, theirs.dkl_dnu, atol=1e-13)
        if isinstance(prior, BoltzmannMachine):
            first, second = prior.edges.T.numpy()
            np.testing.assert_allclose(prior.couplings.grad, theirs.dkl_dJ.sum(0)[first, second], atol=1e-13)
            np.testing.assert_allclose(prior.a.grad, theirs.dkl_da.sum(0), atol=1e-13)


def test_couplings_stay_symmetric_and_off_the_diagonal():
    prior = BoltzmannMachine(5, n_chains=10)
    assert len(prior.edges) == 10
    noise = torch.Generator().manual_seed(0)
    for _ in range(3):
        loss = prior.log_partition_surrogate() + prior.energy(torch.rand(4, 5, generator=noise)).mean()
        for parameter, gradient in zip(
            (prior.a, prior.couplings), torch.autograd.grad(loss, [prior.a, prior.couplings]), strict=True
        ):
            parameter.data -= 0.5 * gradient
    J = prior.J.detach()
    assert torch.equal(J, J.T)
    assert (J.diagonal() == 0).all()
    assert (J[~torch.eye(5, dtype=torch.bool)] != 0).all()
    # A graph: units without an edge are never coupled, and two colours do for a chain of units.
    chain = BoltzmannMachine(4, [(0, 1), (2, 1), (2, 3)])
    with torch.no_grad():
        chain.couplings.copy_(torch.tensor([1.0, 2.0, 3.0]))
    expected = np.zeros((4, 4))
    for value, (i, j) in zip((1, 2, 3), ((0, 1), (1, 2), (2, 3)), strict=True):
        expected[i, j] = expected[j, i] = value
    np.testing.assert_array_equal(chain.J.detach(), expected)
    assert sorted(colour.tolist() for colour in chain.colours) == [[0, 2], [1, 3]]
    assert repr(chain).startswith("BoltzmannMachine(\n  n=4, n_edges=3, n_colours=2")
    alone = BoltzmannMachine(3, [])
    assert alone.log_partition_bracket().low == pytest.approx(3 * np.log(2))
    assert alone.sample().shape == (1000, 3)


def test_leading_axes_are_machines_of_their_own():
    stacked = GeneralBoltzmann(4)
    rng = torch.Generator().manual_seed(0)
    stacked.a = torch.nn.Parameter(torch.randn(2, 3, 4, generator=rng))
    stacked.couplings = torch.nn.Parameter(torch.randn(2, 3, 6, generator=rng))
    z, nu = torch.rand(2, 2, 3, 5, 4, generator=rng)
    for i, j in itertools.product(range(2), range(3)):
        one = GeneralBoltzmann(4)
        with torch.no_grad():
            one.a.copy_(stacked.a[i, j])
            one.couplings.copy_(stacked.couplings[i, j])
        for of in (
            lambda machine, *rows: machine.energy(rows[0]),
            lambda machine, *rows: machine.logits(rows[0]),
            lambda machine, *rows: general_boltzmann.cross_entropy(machine, *rows, 2),
        ):
            torch.testing.assert_close(of(stacked, z, nu)[i, j], of(one, z[i, j], nu[i, j]))


# ---- sampling of the general machine ---------------------------------------------------------------------------------


def test_sweeps_are_the_references_on_the_same_uniforms():
    """In float64, where a uniform falls between the two roundings of a probability with probability 1e-12 in all."""
    machine, module = sparse(9)
    rng = np.random.default_rng(1)
    z, u = rng.integers(0, 2, (200, 9)).astype(float), rng.uniform(size=(200, 9))
    inv_temp = rng.uniform(0, 2, 200)
    colours = tuple(colour.numpy() for colour in module.colours)
    for found, expected in zip(colours, reference.single_site.colouring(machine), strict=True):
        np.testing.assert_array_equal(found, expected)
    order = rng.permutation(9)
    for classes, expected in (
        (colours, reference.single_site.chromatic_sweep(machine, z, u, colours, inv_temp)),
        (order[:, None], reference.single_site.sweep(machine, z, u, order, inv_temp)),
    ):
        given = torch.from_numpy(z)
        ours = single_site.sweep(
            module.a.detach(),
            module.J.detach(),
            given,
            torch.from_numpy(u),
            [torch.from_numpy(np.asarray(units)) for units in classes],
            torch.from_numpy(inv_temp)[:, None],
        )
        np.testing.assert_array_equal(ours, expected)
        assert (given.numpy() == z).all()
    assert (single_site.coins(20, 9, 3).numpy() == reference.single_site.PersistentChains.init(machine, 20, 3).z).all()


def fit_p_value(machine, z):
    """P-value of Pearson's chi-square that rows are independent draws; states too rare for it are counted together."""
    states, log_weight, log_z = table(machine)
    expected = len(z) * np.exp(log_weight - log_z)
    counts = np.bincount((z.double().numpy() @ 2.0 ** np.arange(machine.n)[::-1]).astype(int), minlength=len(states))
    rare = expected < 5
    if not rare.any():
        return stats.chisquare(counts, expected).pvalue
    pooled = [np.append(cells[~rare], cells[rare].sum()) for cells in (counts, expected)]
    return stats.chisquare(*pooled).pvalue


@pytest.mark.parametrize(("name", "n_sweeps"), [("gibbs", 15), ("tempering", 15), (EXACT, 1)])
def test_samplers_have_the_enumerated_distribution(name, n_sweeps):
    """5,000 independent samples at the second call; a p-value below 1e-7 has probability 1e-7."""
    if ":" in name:
        pytest.importorskip("dwave.samplers")
    machine, prior = sparse(5, which=2, scale=0.8, sampler=name, n_chains=5000, n_sweeps=n_sweeps)
    prior.sample()
    z = prior.sample()
    assert fit_p_value(machine, z) > 1e-7
    warmer = ReferenceMachine(0.8 * machine.a, 0.8 * machine.J)
    assert fit_p_value(warmer, z) < 1e-7


def test_tempered_chains_share_far_modes_out_where_gibbs_chains_do_not():
    """As for an RBM: 2,000 chains of a machine with all couplings, all on or all off unequally likely."""
    J = 2.6 * (1 - np.eye(6))
    machine = ReferenceMachine(-J.sum(0) / 2 + 0.15, J)
    p_values = {}
    for name in ("tempering", "gibbs"):
        prior = BoltzmannMachine.from_couplings(machine.a, machine.J, name, 2000, 41)
        prior.sample()
        p_values[name] = fit_p_value(machine, prior.sample())
    assert p_values["tempering"] > 1e-7
    assert p_values["gibbs"] < 1e-7


@pytest.mark.parametrize("name", ["gibbs", "tempering"])
def test_two_calls_are_one_of_twice_the_sweeps(name):
    """On a machine with far modes, where chains that forgot their states would not meet again."""
    J = 2.6 * (1 - np.eye(6))
    twice, once = (BoltzmannMachine.from_couplings(-J.sum(0) / 2, J, name, 200, n) for n in (3, 6))
    twice.sample()
    assert torch.equal(twice.sample(), once.sample())


def test_dimods_energies_are_ours():
    pytest.importorskip("dimod")
    machine, prior = sparse(6)
    states, log_weight, _ = table(machine)
    model = general.model_of(prior)
    assert model.num_interactions == len(prior.edges)
    np.testing.assert_allclose(model.energies((states, range(6))), -log_weight, atol=1e-13)


# ---- log Z of the general machine ------------------------------------------------------------------------------------


def test_brackets_contain_the_truth(monkeypatch):
    """4 machines, 8 ends at 3 standard errors, each wrong with probability 2.1e-3 (t, 49): three or more, 5e-7."""
    monkeypatch.setattr(annealing, "ENUMERATED", 0)
    outside = 0
    for seed in range(4):
        machine, prior = sparse(7, seed, scale=(0.7, 1.5)[seed % 2], density=(1.0, 0.4)[seed // 2])
        truth = table(machine)[2]
        base = None if seed % 2 else torch.full((7,), 0.3, dtype=torch.float64)
        result = annealing.bracket(prior, 60, 200, seed, base, n_replicas=6, n_rounds=30)
        assert (result.lower.n_chains, result.upper.n_chains) == (200, 50)
        assert result.consistent
        assert result.high - result.low < 1.5
        assert min(result.lower.effective_sample_size / 200, result.upper.effective_sample_size / 50) > 0.2
        outside += (result.low > truth) + (result.high < truth)
    assert outside <= 2
    # The module's own: another seed, another result; the same seed, the same.
    first, again, other = (prior.log_partition_bracket(20, 20, seed) for seed in (1, 1, 2))
    assert first == again != other


def crude_scores(monkeypatch, wrong=False):
    """z-scores of the mean weights over their known mean, forward and reverse, on a crude ladder."""
    machine, prior = sparse(6, which=4, scale=0.8)
    states, log_weight, log_z = table(machine)
    base, path = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64), torch.tensor([0.0, 0.3, 0.6, 1.0])
    draws = np.random.default_rng(0).choice(len(states), size=40_000, p=np.exp(log_weight - log_z))
    if wrong:
        right = single_site.sweep
        monkeypatch.setattr(single_site, "sweep", lambda a, J, z, u, classes: right(a, 0.5 * J, z, u, classes))
    forward = annealing.anneal(prior, base, path, 40_000, 5) - log_z
    reverse = annealing.anneal_reverse(prior, base, path, torch.from_numpy(states[draws]), 5) + log_z
    weights = torch.stack([forward, reverse]).exp()
    assert (weights.std(1) > 0.1).all()  # the ladder is crude indeed
    return (weights.mean(1) - 1) / (weights.std(1) / 200)


def test_mean_weights_are_unbiased_on_a_crude_ladder(monkeypatch):
    """40,000 bounded weights, twice: a mean leaves 5.5 standard errors with probability 8e-8."""
    assert (crude_scores(monkeypatch).abs() < 5.5).all()


def test_the_same_judge_catches_a_wrong_sweep(monkeypatch):
    assert (crude_scores(monkeypatch, wrong=True).abs() > 5.5).all()


def test_what_is_enumerated():
    prior = BoltzmannMachine(20, [(0, 19)], n_chains=2)
    with torch.no_grad():
        prior.couplings.fill_(2.0)
    # By hand: 18 coins, and two units of which the state 11 weighs e**2.
    expected = 18 * np.log(2) + np.log(3 + np.exp(2.0))
    assert annealing.exact(prior) == estimate([expected] * 2, 1).__class__(
        pytest.approx(expected, rel=1e-12), 0.0, 1.0, 1
    )
    assert annealing.exact(BoltzmannMachine(21, [(0, 20)], n_chains=2)) is None


def test_a_restricted_prior_too_large_to_enumerate_is_bracketed():
    """An independent machine. From its own biases weights have no spread; from coins an end is 5 errors off w. p. 2e-4.

    (t, 15 degrees of freedom, the upper end; the lower one 1e-5.)
    """
    prior = RestrictedBoltzmann(17, 17, n_chains=2)
    with torch.no_grad():
        prior.a1.fill_(1.0)
    expected = 17 * (np.log(2) + np.log1p(np.e))
    own = prior.log_partition_bracket(5, 8, base=Base(prior.a1.detach(), prior.a2.detach()))
    assert own.low == pytest.approx(expected, abs=1e-4)
    assert own.high == pytest.approx(expected, abs=1e-4)
    coins = prior.log_partition_bracket(100, 64)
    for end in (coins.lower, coins.upper):
        assert 0 < end.standard_error < 0.2
        assert abs(end.log_partition - expected) < 5 * end.standard_error


# ---- as torch's users use them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", MACHINES)
@pytest.mark.parametrize("sampler", ["gibbs", "tempering"])
def test_a_checkpoint_goes_on_bit_for_bit(build, sampler, tmp_path):
    options = {"sampler": sampler, "n_chains": 6, "n_sweeps": 2, "seed": 3}
    _, prior = build(**options)
    prior.sample()
    torch.save(prior.state_dict(), tmp_path / "prior.pt")
    stored = torch.load(tmp_path / "prior.pt", weights_only=True)
    _, again = build(**options)
    again.load_state_dict(stored)
    copied = copy.deepcopy(prior)
    expected = prior.sample()
    assert torch.equal(again.sample(), expected)
    assert torch.equal(copied.sample(), expected)
    _, other = build(**{**options, "seed": 4})
    other.load_state_dict(stored)
    assert not torch.equal(other.sample(), expected)
    # What is returned is the caller's: the next call does not overwrite it.
    kept = expected.clone()
    prior.sample()
    assert torch.equal(expected, kept)


@pytest.mark.parametrize("build", MACHINES)
def test_modules_move_and_describe_themselves(build):
    _, prior = build(n_chains=6, n_sweeps=2)
    single = prior.float()
    assert single.sample().dtype == torch.float32
    assert single.sampler.step.dtype == torch.int64
    meta = copy.deepcopy(single).to("meta")
    assert all(tensor.device.type == "meta" for tensor in (*meta.parameters(), *meta.buffers()))
    assert "n_chains=6, n_sweeps=2" in repr(single)
    assert ("n1=3, n2=4" if build is restricted else "n=7, n_edges=") in repr(single)


def test_bad_arguments():
    for edges, message in (
        ([(0, 3)], r"below N = 3; got \(0, 3\)"),
        ([(1, 1)], r"different units below N = 3; got \(1, 1\)"),
        ([(0, 1), (1, 0)], r"different pairs .* got \(0, 1\)"),
        ([(-1, 1)], r"got \(-1, 1\)"),
        ([(0, 1, 2)], r"must be \(P, 2\) whole numbers, two ends each; got \(1, 3\)"),
        ([(0.0, 1.0)], r"whole numbers"),
    ):
        with pytest.raises(DomainError, match=message):
            BoltzmannMachine(3, edges)
    with pytest.raises(DomainError, match="n must be a whole number of at least 1; got 0"):
        BoltzmannMachine(0)
    with pytest.raises(DomainError, match="J must be symmetric"):
        BoltzmannMachine.from_couplings([0.0, 0.0], [[0.0, 1.0], [0.0, 0.0]])
    with pytest.raises(ConfigError, match="did you mean 'tempering'"):
        BoltzmannMachine(3, sampler="temper")
    with pytest.raises(ConfigError, match="n_chains must be at least 1; got 0"):
        BoltzmannMachine(3, n_chains=0)
    with pytest.raises(ConfigError, match="n_chains must be at least 1; got 0"):
        RestrictedBoltzmann(3, 2, n_chains=0)
    with pytest.raises(DomainError, match="n_groups must divide"):
        BoltzmannMachine(3, n_chains=2).cross_entropy(torch.rand(2, 3), torch.rand(2, 3), 2)
