"""Statistics: false alarms and power are as stated, truths agree with a second way, and planted faults are caught."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, logsumexp

import dvaepp.gibbs
import dvaepp.models.feedforward
import dvaepp.tempering
import reference.estimators
from reference import (
    boltzmann,
    bound,
    gibbs,
    partition,
    philox,
    population,
    single_site,
    tempering,
    thermodynamic,
    tiny_model,
)
from reference.smoothing import OverlappingExponential
from reference.vocabulary import RBM
from validation import statistics, subjects
from validation.rows import DTYPES, Request, Status, Task
from validation.sampling import enumeration, estimators, torch_trials, trials
from validation.sampling.chance import Judge, means, pooled
from validation.tolerances import FALSE_ALARM_RATE, LEAST_EXPECTED, MOST_BACKENDS, POWER

EVERYBODY = ("reference", "torch", "numpy_oracle")


def findings(subject, *operations, seed=0, dtypes=("float64",), kinds=("exponential",)):
    """What the quick run finds, by (operation, output)."""
    request = Request(kinds=kinds, dtypes=dtypes, operations=operations, seed=seed, quick=True)
    tasks = statistics.tasks(subjects.probe(subject), request)
    return {(task.operation, found.output): found for task in tasks for found in statistics.perform(task)}


def failing(found):
    return {key for key, finding in found.items() if finding.status is Status.FAILS}


# ---- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", EVERYBODY)
def test_everything_holds_and_there_are_as_many_findings_as_the_bounds_assume(subject):
    """All seeds are fixed; with others a finding fails with the stated probability."""
    tasks = statistics.tasks(subjects.probe(subject), Request(quick=True))
    judged = Counter()
    for task in tasks:
        assert task.dtype == "float64" or subject != "reference"
        for finding in statistics.perform(task):
            assert finding.status in (Status.HOLDS, Status.MEASURED), (task, finding)
            if finding.judged:
                judged[task.operation, task.dtype] += 1
                assert finding.catches.startswith(f"{finding.statistic.catches:.2g} ")
                assert finding.unit == "standard errors"
                assert finding.statistic.standard_error > 0
    plan = statistics.operations_of(subject)
    assert {name for name, _ in judged} == set(plan)
    for (name, _), n in judged.items():
        assert n == plan[name].n_findings, name


def test_the_false_alarm_rate_is_shared_by_all_findings_of_all_subjects():
    def n(name):
        return sum(operation.n_findings for operation in statistics.operations_of(name).values())

    backends = MOST_BACKENDS * n("somebody's:backend")
    assert statistics.n_findings() == n("reference") + 2 * (n("torch") + backends)
    assert statistics.judge().alpha == FALSE_ALARM_RATE / statistics.n_findings()
    assert statistics.operations_of("torch-number") == {}


def test_a_request_is_followed():
    reference, torch_twin = subjects.probe("reference"), subjects.probe("torch")
    assert statistics.tasks(reference, Request(dtypes=("float32",))) == []
    some = Request(kinds=("power",), operations=("inverse_cdf", "gibbs"), seed=3)
    named = [(task.operation, task.kind, task.dtype, task.seed) for task in statistics.tasks(reference, some)]
    assert named == [("gibbs", "", "float64", 3), ("inverse_cdf", "power", "float64", 3)]
    assert [task.dtype for task in statistics.tasks(torch_twin, Request(operations=("gibbs",)))] == list(DTYPES)
    lacking = replace(subjects.probe("numpy_oracle"), operations=frozenset({"ais"}))
    assert {task.operation for task in statistics.tasks(lacking, Request())} == {"ais"}


def test_tasks_are_deterministic_and_share_no_noise():
    task = Task("statistics", "reference", "importance_log_mean", dtype="float64", quick=True)
    once, again = (list(statistics.perform(task)) for _ in range(2))
    assert once == again
    others = [replace(task, seed=1), replace(task, subject="torch"), replace(task, dtype="float32")]
    seeds = [next(trials.seeds_of(one)) for one in (task, *others, replace(task, operation="ais"))]
    assert len(set(seeds)) == 5
    assert len(set(itertools.islice(trials.seeds_of(task), 5000))) == 5000  # a full run of Bennett's needs 3,000


# ---- the judges ------------------------------------------------------------------------------------------------------


def rejections(n_runs, run):
    """How many of so many findings of a judge fail."""
    rng = np.random.default_rng(0)
    return sum(not run(rng).holds for _ in range(n_runs))


ALPHA = 0.01
LAW = np.random.default_rng(1).dirichlet(np.full(40, 0.5))


def shifted(rng, by=0.0, known=False, side=0, m=1):
    draws = rng.exponential(size=(300, m)) + by
    return Judge(ALPHA).means("", means(draws, 1.0 if known else None), 1.0, "", "", side=side)


def coins(rng, by=0.0, side=0):
    return Judge(ALPHA).shares("", [rng.binomial(800, 0.3 + by)], 800, [0.3], "", "", side=side)


def counted(rng, probs=LAW):
    return Judge(ALPHA).table("", rng.multinomial(2000, probs), LAW, "", "")


NULLS = {
    "means": shifted,
    "means whose variance is known": lambda rng: shifted(rng, known=True),
    "five means": lambda rng: shifted(rng, m=5),
    "means against a bound": lambda rng: shifted(rng, side=1),
    "shares": coins,
    "shares against a bound": lambda rng: coins(rng, side=1),
    "tables": counted,
}


@pytest.mark.parametrize("name", NULLS)
def test_findings_fail_by_chance_as_often_as_they_may(name):
    """2,000 runs at 1 %: 20 failures, or fewer where counts are discrete; 48 or more have probability 1e-7.

    The draws are exponential, with a skewness of 2.
    """
    assert 2 < rejections(2000, NULLS[name]) < 48


def test_bounds_hold_far_out_for_skewed_draws():
    """Means of 2,000 exponential draws have a gamma distribution: its tail beyond the bound is the stated one."""
    alpha, n = 3e-9, 2000
    bound_ = Judge(alpha).means("", replace_skewness(means(np.ones(n), 1.0), 2.0), 1.0, "", "", side=1).bound
    assert stats.gamma.sf(n + bound_ * np.sqrt(n), n) == pytest.approx(alpha, rel=0.3)


def replace_skewness(found, value):
    return replace(found, skewness=np.full_like(found.value, value))


def test_a_tables_bound_holds_far_out():
    """Counts of a thousand draws over two cells: chi-squared is the square of a binomial distance, with exact tails."""
    alpha = 1e-7
    finding = Judge(alpha).table("", np.array([500, 500]), np.array([0.5, 0.5]), "", "")
    deviation = np.sqrt(2 - 2 / 1000)
    least = np.sqrt((1 + finding.bound * deviation) * 250)  # the smallest |count - 500| that fails
    exact = 2 * stats.binom.sf(np.ceil(500 + least) - 1, 1000, 0.5)
    assert alpha / 2 < exact < 1.3 * alpha


def stated(run, rng):
    """The size that is stated; on average, where it depends on the draws."""
    return np.mean([run(rng).statistic.catches for _ in range(200)])


def test_an_error_of_the_size_stated_is_caught_as_often_as_stated():
    """2,000 planted errors each: 99 % are 1,980; fewer than 1,945 have probability 1e-10."""
    rng, n = np.random.default_rng(2), 2000
    sizes = {
        "t": stated(shifted, rng),
        "normal": stated(lambda rng: shifted(rng, known=True), rng),
        "shares": stated(coins, rng),
        "table": stated(counted, rng),
    }
    # From one half of the probability to the other, as evenly as can be: the least favourable error of a table.
    order = np.argsort(LAW)
    half = np.zeros(len(LAW), dtype=bool)
    half[order[::2]] = True
    moved = np.where(half, LAW / LAW[half].sum(), -LAW / LAW[~half].sum())
    caught = {
        "t": rejections(n, lambda rng: shifted(rng, -sizes["t"])),
        "normal": rejections(n, lambda rng: shifted(rng, sizes["normal"], known=True)),
        "shares": rejections(n, lambda rng: coins(rng, sizes["shares"])),
        "table": rejections(n, lambda rng: counted(rng, LAW + sizes["table"] * moved)),
    }
    for name, times in caught.items():
        assert times > 1945, (name, times)
    # And the statement is not idle: half the size is often missed.
    assert rejections(n, lambda rng: shifted(rng, sizes["normal"] / 2, known=True)) < POWER * n * 0.8
    assert rejections(n, lambda rng: counted(rng, LAW + sizes["table"] / 2 * moved)) < POWER * n * 0.8


def test_nothing_that_is_not_a_number_holds():
    judge = Judge(1e-6)
    assert not judge.means("", means([np.nan, 1.0]), 1.0, "", "").holds
    assert not judge.means("", means([np.nan, 1.0]), 1.0, "", "", side=1).holds
    assert not judge.means("", means([2.0, 2.0]), 1.0, "", "").holds
    assert judge.means("", means([1.0, 1.0]), 1.0, "", "").holds
    impossible = judge.table("", [500, 499, 1], [0.5, 0.5, 0.0], "", "")
    assert impossible.error == np.inf


def test_rare_cells_are_counted_as_one():
    counts, probs = pooled(np.array([50.0, 1.0, 30.0, 2.0, 17.0]), np.array([0.5, 0.01, 0.3, 0.02, 0.17]))
    np.testing.assert_allclose(counts, [50, 50])  # 0.2 of 100 draws are not enough by themselves
    np.testing.assert_allclose(probs, [0.5, 0.5])
    assert (100 * probs >= LEAST_EXPECTED).all()
    whole = pooled(np.array([40.0, 60.0]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(sorted(whole[0]), [40, 60])


def z_scores(n_seeds, operation, outputs):
    """Distances, with their sign, of the findings of one number each."""
    task = Task("statistics", "reference", operation, dtype="float64", quick=True)
    found = [f for seed in range(n_seeds) for f in statistics.perform(replace(task, seed=seed)) if f.output in outputs]
    return [(f.statistic.estimate - f.statistic.truth) / f.statistic.standard_error for f in found]


def test_distances_are_normal_when_nothing_is_wrong():
    """300 seeds, two findings each: a p-value below 1e-4 has probability 1e-4. (Seeded.)"""
    scores = z_scores(300, "importance_log_mean", ("mean of 2", "mean weight of 5"))
    assert len(scores) == 600
    assert stats.kstest(scores, "norm").pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "outputs"),
    [
        ("ais", ("mean weight", "mean log-weight")),
        ("reverse_ais", ("mean weight", "mean log-weight")),
        ("population", ("mean weight",)),
        ("bennett", ("estimate",)),
        ("thermodynamic", ("estimate",)),
        ("likelihood", ("ELBO", "bound of 2 draws", "mean weight of 5 draws")),
        ("objective", ("smoothed ELBO",)),
    ],
)
def test_distances_of_every_operation_are_normal_when_nothing_is_wrong(operation, outputs):
    """As above with 100 seeds; if a mean, a variance or a stated error were wrong, this would show it."""
    assert stats.kstest(z_scores(100, operation, outputs), "norm").pvalue > 1e-4


# ---- the truth -------------------------------------------------------------------------------------------------------


def test_a_sweep_keeps_the_law_and_tempering_the_product_of_laws():
    probs = enumeration.joint(trials.STRONG)
    kernel = enumeration.sweep_kernel(probs)
    np.testing.assert_allclose(kernel.sum(axis=(1, 2)), 1, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("i,ijk->kj", probs.sum(axis=1), kernel), probs, atol=1e-15)
    late = enumeration.tempered_law(trials.SMALL, trials.LADDER, 120)
    np.testing.assert_allclose(late.top, enumeration.law(trials.SMALL.general()), atol=1e-8)
    # At equilibrium: E min(1, e^...) under the product of neighbouring laws.
    energies = -enumeration.log_weights(trials.SMALL.general())
    for pair in (0, 1):
        below, above = trials.LADDER[pair], trials.LADDER[pair + 1]
        weight = np.multiply.outer(*(enumeration.law(trials.SMALL.general(), b) for b in (below, above)))
        ratio = np.exp(np.minimum(0, (below - above) * np.subtract.outer(energies, energies)))
        assert late.acceptance[118 + pair, pair] == pytest.approx((weight * ratio).sum(), abs=1e-7)


def test_log_partition_and_draws_agree_with_the_reference():
    general = trials.STRONG.general()
    assert logsumexp(enumeration.log_weights(general)) == pytest.approx(
        boltzmann.log_partition(trials.STRONG), rel=1e-12
    )
    probs = np.array([0.1, 0.0, 0.6, 0.3])
    z = enumeration.draw(probs, 20_000, np.random.default_rng(0))
    counts = np.bincount(enumeration.codes(z), minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]], 20_000 * probs[[0, 2, 3]]).pvalue > 1e-6


@pytest.mark.parametrize("forwards", [True, False])
def test_moments_of_annealing_weights_by_all_paths(forwards):
    """A machine of 1 + 1 units and two steps: every path written out, its weight from the conditionals."""
    rbm, base = RBM([0.7], [-1.1], [[1.9]]), RBM([0.3], [0.4], [[0.0]])
    inv_temps = np.array([0.0, 0.4, 1.0])
    found = (enumeration.forward_weights if forwards else enumeration.reverse_weights)(rbm, base, inv_temps)
    path = inv_temps if forwards else inv_temps[::-1]

    def log_f(b, z1):
        a1, a2, w = ((1 - b) * x + b * y for x, y in ((0.3, 0.7), (0.4, -1.1), (0.0, 1.9)))
        return a1 * z1 + np.log1p(np.exp(a2 + w * z1)), a1, a2, w

    weights, probs = [], []
    start = np.array([np.exp(log_f(path[0], z)[0]) for z in (0, 1)])
    for first, second, last in itertools.product((0, 1), repeat=3):
        _, a1, a2, w = log_f(path[1], first)
        p2, p1 = expit(a2 + w * first), expit(a1 + w * second)
        chance = start[first] / start.sum() * (p2 if second else 1 - p2) * (p1 if last else 1 - p1)
        gains = log_f(path[1], first)[0] - log_f(path[0], first)[0] + log_f(path[2], last)[0] - log_f(path[1], last)[0]
        probs.append(chance)
        weights.append(np.exp(gains))
    probs, weights = np.array(probs), np.array(weights)
    normaliser = np.log1p(np.exp(0.3)) + np.log1p(np.exp(0.4))
    sign = 1 if forwards else -1
    assert found.log_mean == pytest.approx(sign * boltzmann.log_partition(rbm), rel=1e-12)
    assert np.log(probs @ weights) + sign * normaliser == pytest.approx(found.log_mean, rel=1e-12)
    relative = weights / (probs @ weights)
    assert found.variance == pytest.approx(probs @ (relative - 1) ** 2, rel=1e-10)
    assert found.third == pytest.approx(probs @ (relative - 1) ** 3, rel=1e-9)
    assert found.log_variance == pytest.approx(probs @ (np.log(weights) - probs @ np.log(weights)) ** 2, rel=1e-10)
    assert found.mean_log == pytest.approx(probs @ np.log(weights) + sign * normaliser, rel=1e-12)


@pytest.mark.parametrize("independent", [False, True])
def test_the_enumerated_posterior_of_the_tiny_model(independent):
    p = trials.tiny_parameters(np.random.default_rng(3), independent)
    exact, x = trials.tiny_posterior(p, trials.IMAGE), trials.IMAGE[None]
    assert exact.log_marginal == pytest.approx(tiny_model.log_likelihood(p, x)[0], rel=1e-12)
    assert exact.bound(1) == pytest.approx(tiny_model.elbo(p, x)[0], rel=1e-12)
    assert np.exp(exact.log_q).sum() == pytest.approx(1, rel=1e-12)
    assert exact.bound(1) < exact.bound(2) < exact.log_marginal
    weight = np.exp(exact.log_joint - exact.log_q - exact.log_marginal)
    assert exact.weight_variance == pytest.approx(np.exp(exact.log_q) @ (weight - 1) ** 2, rel=1e-10)


def test_the_enumerated_posterior_of_a_discrete_vae():
    model, images = torch_trials.tiny_model(1, independent=False), itertools.product([0.0, 1.0], repeat=5)
    exact = [torch_trials.tiny_posterior(model, np.array(x)) for x in images]
    assert logsumexp([one.log_marginal for one in exact]) == pytest.approx(0, abs=1e-12)  # all images there are
    assert np.exp(exact[0].log_q).sum() == pytest.approx(1, rel=1e-12)


# ---- planted faults --------------------------------------------------------------------------------------------------

SAMPLERS = ("gibbs", "tempering", "ais", "reverse_ais")


def test_a_swap_that_forgets_the_energy_is_caught(monkeypatch):
    for module, subject, nothing in ((tempering, "reference", 0.0), (dvaepp.tempering, "torch", 0.0)):
        for wrong in (nothing, -1.0):
            right = module.swap
            with monkeypatch.context() as patch:
                patch.setattr(module, "swap", lambda e, *rest, right=right, wrong=wrong: right(wrong * e, *rest))
                failed = failing(findings(subject, "gibbs", "tempering"))
            assert ("tempering", "exchanges accepted") in failed
            assert ("tempering", "joint states") in failed
            assert {operation for operation, _ in failed} == {"tempering"}


def test_a_ladder_in_the_wrong_order_is_caught(monkeypatch):
    right = gibbs.sweep
    monkeypatch.setattr(tempering, "sweep", lambda rbm, z1, u2, u1, b: right(rbm, z1, u2, u1, b[::-1]))
    assert ("tempering", "joint states") in failing(findings("reference", "tempering"))


def at_once(right):
    """Both sides redrawn from the old state."""

    def sweep(rbm, z1, u2, u1, *more):
        old = (z1 @ rbm.W + rbm.a2 > 0).to(z1.dtype) if isinstance(z1, torch.Tensor) else None
        if old is None:
            z2 = right(rbm, z1, u2, u1)[1]
            stale = np.roll(z2, 1, axis=0)  # another chain's side 2: as good as an old one
            return (u1 < expit(rbm.a1 + stale @ rbm.W.T)).astype(float), z2
        return u1.lt(rbm.logits_z1(old).sigmoid()).to(z1.dtype), u2.lt(rbm.logits_z2(z1).sigmoid()).to(z1.dtype)

    return sweep


def mean_field(rbm, z1, u2, u1, inv_temp=1.0):
    """Probabilities in the place of states."""
    z2 = u2.lt(rbm.logits_z2(z1).mul(inv_temp).sigmoid()).to(z1.dtype)
    return rbm.logits_z1(z2).mul(inv_temp).sigmoid(), z2


GIBBS = {("gibbs", output) for output in ("joint states", "means and pairs", "transitions")}


def test_both_sides_redrawn_at_once_are_caught(monkeypatch):
    monkeypatch.setattr(gibbs, "sweep", at_once(gibbs.sweep))
    assert failing(findings("reference", *SAMPLERS)) >= {("gibbs", "joint states"), ("gibbs", "transitions")}
    monkeypatch.setattr(dvaepp.gibbs, "sweep", at_once(None))
    failed = failing(findings("torch", *SAMPLERS))
    assert ("gibbs", "transitions") in failed
    assert failed <= GIBBS


def test_probabilities_in_the_place_of_states_are_caught(monkeypatch):
    monkeypatch.setattr(dvaepp.gibbs, "sweep", mean_field)
    found = findings("torch", "gibbs", "ais")
    assert failing(found) == GIBBS
    assert "is not a state" in found["gibbs", "joint states"].where


class PerStage:
    """The oracle, but each stage of annealing averages the chains' weights, and the logarithms of the means add up."""

    def __init__(self, oracle):
        self._oracle = oracle

    def __getattr__(self, name):
        return getattr(self._oracle, name)

    def ais(self, rbm, base, inv_temps, n_chains, seed, first_chain=0):
        machine, independent = RBM(*rbm), RBM(*base, np.zeros_like(rbm.W))
        rng = np.random.default_rng(seed)
        z1 = (rng.random((n_chains, machine.n1)) < expit(independent.a1)).astype(float)
        total = partition.independent_log_partition(independent)
        for here, there in itertools.pairwise(inv_temps):
            logs = []
            for b in (here, there):
                a1, a2 = partition.path_biases(machine, independent, b)
                stage = RBM(a1, a2, b * machine.W)
                logs.append(boltzmann.log_marginal_z1(stage, z1))
            total += logsumexp(logs[1] - logs[0]) - np.log(n_chains)
            u2, u1 = rng.random((n_chains, machine.n2)), rng.random((n_chains, machine.n1))
            z1 = gibbs.sweep(stage, z1, u2, u1)[0]
        return np.full(n_chains, total)


class NotFinite(PerStage):
    """The oracle, but what comes back is NaN, and one log-weight too large for its exponential."""

    def gibbs(self, *arguments):
        z1, z2 = self._oracle.gibbs(*arguments)
        return z1, np.full_like(z2, np.nan)

    def ais(self, *arguments):
        log_weights = self._oracle.ais(*arguments)
        log_weights[7] = 1e4
        return log_weights

    def reverse_ais(self, *arguments):
        return np.full_like(self._oracle.reverse_ais(*arguments), np.nan)


def test_what_is_not_finite_is_a_finding_and_no_exception(monkeypatch):
    wrong = NotFinite(subjects.backend("numpy_oracle"))
    monkeypatch.setattr(subjects, "backend", lambda name: wrong)
    with np.errstate(all="raise"):
        found = findings("numpy_oracle", *SAMPLERS)
    annealing = {(name, f"mean {what}") for name in ("ais", "reverse_ais") for what in ("weight", "log-weight")}
    assert failing(found) == GIBBS | annealing


def test_one_stream_for_both_sides_is_caught(monkeypatch):
    monkeypatch.setattr(gibbs, "STREAM_Z1", philox.STREAM_Z2)
    failed = failing(findings("reference", *SAMPLERS))
    assert ("gibbs", "transitions") in failed
    assert failed <= GIBBS


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (
            "the next step's numbers are those of this one",
            lambda right, seed, step, *rest: right(seed, 0, *rest),
        ),
        ("streams share their numbers", lambda right, seed, step, n, m, stream: right(seed, step, n, m, 0)),
        ("the seed's lowest bit is lost", lambda right, seed, *rest: right(seed // 2 * 2, *rest)),
        ("every second chain is a copy", lambda right, *rest: np.repeat(right(*rest)[::2], 2, axis=0)),
        ("24 bits are rounded to 10", lambda right, *rest: np.floor(1024 * right(*rest)) / 1024),
    ],
)
def test_numbers_that_are_used_twice_are_caught(monkeypatch, name, wrong):
    right = philox.uniforms
    monkeypatch.setattr(philox, "uniforms", lambda *arguments: wrong(right, *arguments))
    # A seed that is odd, or losing its last bit does nothing to it and its successor.
    monkeypatch.setattr(trials, "seeds_of", lambda task: iter([12]))
    assert failing(findings("reference", "uniforms")), name


def test_a_log_mean_at_every_stage_of_annealing_is_caught(monkeypatch):
    wrong = PerStage(subjects.backend("numpy_oracle"))
    monkeypatch.setattr(subjects, "backend", lambda name: wrong)
    failed = failing(findings("numpy_oracle", *SAMPLERS))
    assert failed == {("ais", "mean weight"), ("ais", "mean log-weight")}


@pytest.mark.parametrize("direction", ["anneal", "anneal_reverse"])
def test_log_weights_that_are_cut_off_are_caught(monkeypatch, direction):
    right = getattr(partition, direction)
    monkeypatch.setattr(partition, direction, lambda *arguments: cut(right(*arguments)))
    failed = failing(findings("reference", "ais", "reverse_ais"))
    assert failed == {("ais" if direction == "anneal" else "reverse_ais", "mean weight")}


def cut(log_weights):
    """The heaviest 2 % of the weights made equal."""
    return np.minimum(log_weights, np.quantile(log_weights, 0.98))


def test_annealing_at_the_wrong_end_of_a_step_is_caught(monkeypatch):
    """Sweeps at the machine that was left and not at the one that was reached: no longer unbiased."""
    right = partition.path_biases
    monkeypatch.setattr(partition, "path_biases", lambda rbm, base, b: right(rbm, base, max(0.0, b - 0.15)))
    assert {operation for operation, _ in failing(findings("reference", *SAMPLERS))} == {"ais", "reverse_ais"}


@pytest.mark.parametrize(
    ("module", "name", "wrong", "operation"),
    [
        (population, "resample", lambda right, gain, u: right(-gain, u), "population"),
        (population, "resample", lambda right, gain, u: right(gain / 2, u), "population"),
        (single_site, "logits", lambda right, machine, z: right(machine, z) - machine.a, "single_site"),
        (thermodynamic, "slopes", lambda right, *rest: 0.9 * right(*rest), "thermodynamic"),
        (
            thermodynamic,
            "clenshaw_curtis",
            lambda right, n: right(n)._replace(weights=np.full(n, 1 / n)),
            "thermodynamic",
        ),
        (
            partition,
            "bennett_estimate",
            lambda right, *rest: replace(right(*rest), standard_error=right(*rest).standard_error / 2),
            "bennett",
        ),
        (partition, "bennett_estimate", lambda right, w, v: partition.estimate(w + 0.1, 1), "bennett"),
        (partition, "reverse_estimate", lambda right, *rest: flipped(right(*rest)), "bracket"),
        (partition, "forward_estimate", lambda right, *rest: shifted_estimate(right(*rest), 0.3), "bracket"),
    ],
)
def test_other_estimates_of_the_machine_that_are_wrong_are_caught(monkeypatch, module, name, wrong, operation):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: wrong(right, *arguments))
    failed = failing(findings("reference", operation, "gibbs"))
    assert failed
    assert {of for of, _ in failed} == {operation}


def flipped(estimate):
    return replace(estimate, log_partition=-estimate.log_partition)


def shifted_estimate(estimate, by):
    return replace(estimate, log_partition=estimate.log_partition + by)


def test_units_of_one_colour_that_are_coupled_are_caught(monkeypatch):
    monkeypatch.setattr(single_site, "colouring", lambda machine: [np.arange(machine.n)])
    monkeypatch.setattr(single_site, "_as_colours", lambda machine, colours: colours)
    failed = failing(findings("reference", "single_site"))
    assert ("single_site", "joint states, by colours") in failed
    assert not any("one by one" in output for _, output in failed)


# ---- bounds


def test_importance_weights_without_log_q_are_caught(monkeypatch):
    right = bound.likelihood
    monkeypatch.setattr(bound, "likelihood", lambda joint, log_q: right(joint, 0 * log_q))
    failed = failing(findings("reference", "likelihood", "objective", "importance_log_mean"))
    assert {("likelihood", "mean weight of 5 draws"), ("likelihood", "ELBO")} <= failed
    assert {operation for operation, _ in failed} == {"likelihood"}
    zero = torch.zeros(1, dtype=torch.float64)
    probs = dvaepp.models.feedforward.bernoulli_log_prob
    # The first call of every piece is the reconstruction of five pixels, the second log q of six units.
    wrong = lambda x, logits: probs(x, logits) if x.shape[-1] == 5 else zero  # noqa: E731
    monkeypatch.setattr(dvaepp.models.feedforward, "bernoulli_log_prob", wrong)
    failed = failing(findings("torch", "likelihood", "objective", "importance_log_mean"))
    assert ("likelihood", "mean weight of 5 draws") in failed
    assert {operation for operation, _ in failed} == {"likelihood"}


def test_a_mean_of_logarithms_in_the_place_of_the_log_of_the_mean_is_caught(monkeypatch):
    monkeypatch.setattr(bound.StreamingLogMeanExp, "result", lambda self: self._log_weight.copy())
    failed = failing(findings("reference", "importance_log_mean", "likelihood"))
    assert {("importance_log_mean", "mean of 2"), ("likelihood", "bound of 2 draws")} <= failed
    assert ("likelihood", "ELBO") not in failed  # of one draw it is the same


def test_an_averaged_kl_is_caught(monkeypatch):
    right = tiny_model.kl_with_gradients

    def averaged(prior, logit_q, *rest):
        found = right(prior, logit_q, *rest)
        return found._replace(kl=found.kl / logit_q.shape[1])

    monkeypatch.setattr(tiny_model, "kl_with_gradients", averaged)
    assert failing(findings("reference", "objective", "likelihood")) == {("objective", "smoothed ELBO")}
    of_torch = torch_trials.terms

    def averaged_terms(*arguments):
        found = of_torch(*arguments)
        return replace(found, entropy=found.entropy / 6, cross_entropy=found.cross_entropy / 6)

    monkeypatch.setattr(torch_trials, "terms", averaged_terms)
    assert failing(findings("torch", "objective", "likelihood")) == {("objective", "smoothed ELBO")}


def test_a_nu_with_the_wrong_sign_is_caught(monkeypatch):
    right = tiny_model.posterior.nu
    monkeypatch.setattr(tiny_model.posterior, "nu", lambda kind, zeta, logit_q: right(kind, 1 - zeta, logit_q))
    assert failing(findings("reference", "objective", "likelihood")) == {("objective", "smoothed ELBO")}


def test_samples_of_another_distribution_are_caught(monkeypatch):
    right = OverlappingExponential.inverse_cdf
    monkeypatch.setattr(
        OverlappingExponential, "inverse_cdf", lambda self, rho, logit_q: right(self, rho, 0.5 * logit_q)
    )
    assert failing(findings("reference", "inverse_cdf", "uniforms")) == {("inverse_cdf", "zeta")}


# ---- estimators

WRONG_ESTIMATORS = {
    "ARM by half": ("arm", lambda right, *rest: 0.5 * right(*rest), {"ARM"}),
    "ARM with the other sign": ("arm", lambda right, *rest: -right(*rest), {"ARM"}),
    "ARM without - 1/2": ("arm", lambda right, f, rho, logits: right(f, rho, logits) + 0.3 * rho, {"ARM"}),
    "DisARM at |l| / 2": ("disarm", lambda right, f, rho, logits: 0.9 * right(f, rho, logits), {"DisARM"}),
    "REINFORCE with a baseline that knows the draw": (
        "reinforce",
        lambda right, f, rho, logits, *rest: right(f, rho, logits, 0.3 * f(reference.estimators.draw(rho, logits))),
        {
            "REINFORCE, no baseline",
            "REINFORCE, baseline E[f]",
            "variance of REINFORCE, no baseline",
            "variance of REINFORCE, baseline E[f]",
        },
    ),
    "REINFORCE that ignores its baseline": (
        "reinforce",
        lambda right, f, rho, logits, *rest: right(f, rho, logits),
        {"variance of REINFORCE, baseline E[f]"},
    ),
    "MuProp without the known part": (
        "muprop",
        lambda right, f, rho, logits: right(f, rho, logits) - right(f, rho, logits).mean(axis=0),
        {"MuProp"},
    ),
}


@pytest.mark.parametrize("name", WRONG_ESTIMATORS)
def test_a_wrong_estimator_is_caught_and_no_other(monkeypatch, name):
    function, wrong, expected = WRONG_ESTIMATORS[name]
    right = getattr(estimators, function)
    monkeypatch.setattr(estimators, function, lambda *arguments: wrong(right, *arguments))
    failed = failing(findings("reference", "estimators", kinds=()))
    assert {output for _, output in failed} == expected
