"""The trials of ``validation.statistics``: what is drawn from samplers and estimators, and what it is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from scipy.special import logsumexp

from accelerated.protocol import Backend, Machine
from reference import (
    bound,
    estimators,
    gibbs,
    partition,
    philox,
    population,
    single_site,
    tempering,
    thermodynamic,
    tiny_model,
)
from reference.smoothing import OverlappingExponential, Smoothing
from reference.vocabulary import RBM, Array, BoltzmannMachine
from validation.accuracy import REFERENCE as SMOOTHINGS
from validation.rows import Finding, Task
from validation.sampling import enumeration
from validation.sampling.chance import UNIT, Judge, Means, means
from validation.sampling.enumeration import Posterior, codes, draw, states
from validation.sampling.estimators import PROBLEM, Row, exported_smoothings, measure, measurements
from validation.tolerances import BRACKET_MISSES

_QUICK = 10  # a quick run has so many times fewer draws
_IN_A_PROBABILITY = "in a probability"
_LOG_Z = "nats of log Z"
_OF_THE_VARIANCE = "of the variance"
LADDER = np.array([0.2, 0.6, 1.0])
PATH = np.linspace(0.0, 1.0, 6)  # crude, so that weights matter


def seeds_of(task: Task) -> Iterator[int]:
    """Seeds of 63 bits without end, which no other task has."""
    names = f"{task.subject} {task.operation} {task.kind} {task.dtype}"
    rng = np.random.default_rng([task.seed, *names.encode()])
    while True:
        yield int(rng.integers(2**63))


def number(task: Task, full: int) -> int:
    """Draws of a full run, or of a quick one."""
    return full // _QUICK if task.quick else full


# ---- the machines ----------------------------------------------------------------------------------------------------


def centred(n1: int, n2: int, seed: int, scale: float, bias: float) -> RBM:
    """A random machine whose biases balance its couplings, so that strong ones make several modes.

    Its parameters are numbers of float32, so that every subject judges the same machine.
    """
    rng = np.random.default_rng(seed)
    W = scale * rng.normal(size=(n1, n2))
    a1, a2 = bias * rng.normal(size=n1) - W.sum(axis=1) / 2, bias * rng.normal(size=n2) - W.sum(axis=0) / 2
    return RBM(*(np.asarray(x, dtype=np.float32) for x in (a1, a2, W)))


def two_modes() -> RBM:
    """All units on or all off are the likely states, unequally so."""
    tilt = np.array([0.5, 0.4, -0.1], dtype=np.float32)
    return RBM(np.full(3, -1.875), -1.875 + tilt, np.full((3, 3), 1.25))


def frustrated() -> BoltzmannMachine:
    """Seven units, about half of all pairs coupled, with loops of odd length: three colours, no two sides."""
    rng = np.random.default_rng(1)
    J = np.triu(rng.normal(size=(7, 7)) * (rng.uniform(size=(7, 7)) < 0.5), 1)
    J = 1.2 * (J + J.T)
    return BoltzmannMachine(0.5 * rng.normal(size=7) - J.sum(axis=0) / 2, J)


STRONG = centred(5, 4, seed=2, scale=1.5, bias=0.3)
RUGGED = centred(5, 4, seed=3, scale=2.5, bias=0.5)  # weights spread by more than their mean
TWO_MODES = two_modes()
SMALL = centred(3, 2, seed=5, scale=2.0, bias=0.5)
BASE = RBM(np.full(5, 0.25), np.full(4, -0.25), np.zeros((5, 4)))


# ---- what a sampler is asked -----------------------------------------------------------------------------------------


class Samplers(Protocol):
    """The operations that the reference, the torch twin and every backend have in common, in NumPy's arrays."""

    def gibbs(self, rbm: RBM, z1: Array, n_sweeps: int, seed: int) -> tuple[Array, Array]:
        """Both sides after some sweeps from z1."""
        ...

    def tempering(self, rbm: RBM, inv_temps: Array, n_chains: int, n_rounds: int, seed: int) -> tuple[Array, Array]:
        """States (n_chains, N) at inverse temperature 1 from fair coins, and exchanges accepted by each pair."""
        ...

    def ais(self, rbm: RBM, base: RBM, inv_temps: Array, n_chains: int, seed: int) -> Array:
        """Log-weights."""
        ...

    def reverse_ais(self, rbm: RBM, base: RBM, inv_temps: Array, z1: Array, seed: int) -> Array:
        """Log-weights from samples."""
        ...

    def log_mean(self, pieces: list[Array]) -> Array:
        """Log of the mean of the exponentials of what comes in pieces (B, K)."""
        ...


class ReferenceSamplers:
    """Those of ``reference``, float64."""

    def gibbs(self, rbm: RBM, z1: Array, n_sweeps: int, seed: int) -> tuple[Array, Array]:
        """See ``Samplers.gibbs``."""
        chains = gibbs.PersistentChains(z1, np.zeros((len(z1), rbm.n2)), seed).run(rbm, n_sweeps)
        return chains.z1, chains.z2

    def tempering(self, rbm: RBM, inv_temps: Array, n_chains: int, n_rounds: int, seed: int) -> tuple[Array, Array]:
        """See ``Samplers.tempering``."""
        rounds = itertools.islice(tempering.rounds(rbm, inv_temps, n_chains, seed), n_rounds)
        accepted = np.zeros(len(inv_temps) - 1)
        for one in rounds:
            accepted += one.n_accepted
        return np.hstack([one.z1, one.z2]), accepted

    def ais(self, rbm: RBM, base: RBM, inv_temps: Array, n_chains: int, seed: int) -> Array:
        """See ``Samplers.ais``."""
        return partition.anneal(rbm, base, inv_temps, n_chains, seed)

    def reverse_ais(self, rbm: RBM, base: RBM, inv_temps: Array, z1: Array, seed: int) -> Array:
        """See ``Samplers.reverse_ais``."""
        return partition.anneal_reverse(rbm, base, inv_temps, z1, seed)

    def log_mean(self, pieces: list[Array]) -> Array:
        """See ``Samplers.log_mean``."""
        stream = bound.StreamingLogMeanExp(len(pieces[0]))
        for piece in pieces:
            stream.add(piece)
        return stream.result()


class BackendSamplers:
    """Those of a backend, in one dtype."""

    def __init__(self, backend: Backend, dtype: str) -> None:
        self._backend, self._dtype = backend, np.dtype(dtype)

    def _array(self, array: Array) -> Any:
        return self._backend.asarray(np.ascontiguousarray(array, dtype=self._dtype))

    def _machine(self, rbm: RBM) -> Machine:
        return Machine(self._array(rbm.a1), self._array(rbm.a2), self._array(rbm.W))

    def _numpy(self, array: Any) -> Array:
        return np.asarray(self._backend.to_numpy(array), dtype=np.float64)

    def gibbs(self, rbm: RBM, z1: Array, n_sweeps: int, seed: int) -> tuple[Array, Array]:
        """See ``Samplers.gibbs``."""
        first, second = self._backend.gibbs(self._machine(rbm), self._array(z1), n_sweeps, seed, 0)
        return self._numpy(first), self._numpy(second)

    def tempering(self, rbm: RBM, inv_temps: Array, n_chains: int, n_rounds: int, seed: int) -> tuple[Array, Array]:
        """See ``Samplers.tempering``."""
        found = self._backend.tempering(self._machine(rbm), inv_temps, n_chains, n_rounds, seed)
        z = np.hstack([self._numpy(found.z1), self._numpy(found.z2)])
        return z[-n_chains:], self._numpy(found.n_accepted)

    def ais(self, rbm: RBM, base: RBM, inv_temps: Array, n_chains: int, seed: int) -> Array:
        """See ``Samplers.ais``."""
        biases = self._array(base.a1), self._array(base.a2)
        return self._numpy(self._backend.ais(self._machine(rbm), biases, inv_temps, n_chains, seed))

    def reverse_ais(self, rbm: RBM, base: RBM, inv_temps: Array, z1: Array, seed: int) -> Array:
        """See ``Samplers.reverse_ais``."""
        biases = self._array(base.a1), self._array(base.a2)
        return self._numpy(self._backend.reverse_ais(self._machine(rbm), biases, inv_temps, self._array(z1), seed))

    def log_mean(self, pieces: list[Array]) -> Array:
        """See ``Samplers.log_mean``."""
        running = None
        for piece in pieces:
            running = self._backend.importance_log_mean(self._array(piece), running)
        assert running is not None
        return self._numpy(running.value)


# ---- samplers --------------------------------------------------------------------------------------------------------


def _states(judge: Judge, z: Array, law: Array, where: str, n1: int) -> Iterator[Finding]:
    """Two findings on independent draws: counts of all joint states; means of units, and of products of two sides.

    Shapes   z (n, N), law (2**N,); the first side has n1 units
    """
    n, everything = len(z), states(z.shape[1])
    pairs = [(i, j) for i in range(n1) for j in range(n1, z.shape[1])]
    names = [f"unit {i}" for i in range(z.shape[1])] + [f"pair {pair}" for pair in pairs]

    def events(rows: Array) -> Array:
        return np.hstack([rows, np.stack([rows[:, i] * rows[:, j] for i, j in pairs], axis=1)])

    if no_states := _no_states(z, where, "joint states", "means and pairs"):
        yield from no_states
        return
    counts = np.bincount(codes(z), minlength=len(law))
    yield judge.table("joint states", counts, law, _IN_A_PROBABILITY, where)
    yield judge.shares(
        "means and pairs", events(z).sum(axis=0), n, law @ events(everything), _IN_A_PROBABILITY, where, names
    )


def _no_states(z: Array, where: str, *outputs: str) -> list[Finding]:
    """A finding for each output if there is anything but 0 and 1 among the states; else none."""
    odd = z[(z != 0) & (z != 1)]
    if not odd.size:
        return []
    return [Finding(output, np.inf, 0.0, f"{where}: {float(odd[0])!r} is not a state", UNIT) for output in outputs]


def gibbs_trial(task: Task, judge: Judge, sampler: Samplers) -> Iterator[Finding]:
    """Chains from exact draws stay exact draws; and one sweep from any z1 makes the transitions it should."""
    seeds, n = seeds_of(task), number(task, 400_000)
    law = enumeration.law(STRONG.general())
    start = draw(law, n, np.random.default_rng(next(seeds)))
    z = np.hstack(sampler.gibbs(STRONG, start[:, :5], 3, next(seeds)))
    yield from _states(judge, z, law, f"{n} chains of 5 x 4 units, 3 sweeps from exact draws", 5)

    kernel = enumeration.sweep_kernel(enumeration.joint(TWO_MODES))
    before = draw(np.full(8, 1 / 8), n, np.random.default_rng(next(seeds)))
    after, second = sampler.gibbs(TWO_MODES, before, 1, next(seeds))
    where = "one sweep of 3 x 3 units with two modes, (z1, z2, new z1) from uniform z1"
    if no_states := _no_states(np.hstack([after, second]), where, "transitions"):
        yield from no_states
        return
    cells = np.ravel_multi_index((codes(before), codes(second), codes(after)), kernel.shape)
    counts = np.bincount(cells, minlength=kernel.size)
    yield judge.table("transitions", counts, kernel.ravel() / 8, _IN_A_PROBABILITY, where)


def tempering_trial(task: Task, judge: Judge, sampler: Samplers) -> Iterator[Finding]:
    """Three replicas from fair coins, whose joint law is followed exactly: states after 8 rounds, exchanges in 2."""
    seeds, n = seeds_of(task), number(task, 200_000)
    z, _ = sampler.tempering(SMALL, LADDER, n, 8, next(seeds))
    expected = enumeration.tempered_law(SMALL, LADDER, 8)
    yield from _states(judge, z, expected.top, "3 x 2 units, three replicas, 8 rounds from fair coins", 3)
    # Each pair tries once in two rounds, so that the exchanges of a pair are independent.
    _, accepted = sampler.tempering(SMALL, LADDER, n, 2, next(seeds))
    probs = np.nansum(expected.acceptance[:2], axis=0)
    names = [f"exchange {pair}" for pair in ("0-1", "1-2")]
    where = "3 x 2 units, three replicas, the first two rounds from fair coins"
    yield judge.shares("exchanges accepted", accepted, n, probs, _IN_A_PROBABILITY, where, names)


def single_site_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """Units one by one, and colour by colour: chains of a general machine from exact draws."""
    machine, seeds, n = frustrated(), seeds_of(task), number(task, 400_000)
    law = enumeration.law(machine)
    for name, colours in (("one by one", None), ("by colours", single_site.colouring(machine))):
        start = draw(law, n, np.random.default_rng(next(seeds)))
        z = single_site.PersistentChains(start, next(seeds)).run(machine, 2, colours).z
        for finding in _states(judge, z, law, f"{n} chains of 7 units, 2 sweeps from exact draws", 3):
            yield Finding(**vars(finding) | {"output": f"{finding.output}, {name}"})


def population_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """(Z estimate / Z) times the share of replicas in an event averages to its probability, over populations."""
    n, seeds = number(task, 100_000), seeds_of(task)
    result = population.anneal(TWO_MODES, np.array([0.0, 1 / 3, 1.0]), n, 5, next(seeds))
    machine = TWO_MODES.general()
    weights = np.exp(result.log_weights - logsumexp(enumeration.log_weights(machine)))
    where = f"{n} populations of 5 replicas of 3 x 3 units, two rungs"
    yield judge.means("mean weight", means(weights), 1.0, _LOG_Z, where)
    z = np.concatenate([result.z1, result.z2], axis=2)
    shares = weights[:, None] * z.mean(axis=1)
    names = [f"unit {i}" for i in range(6)]
    expected = enumeration.law(machine) @ states(6)
    yield judge.means("weighted means", means(shares), expected, _IN_A_PROBABILITY, where, names)


# ---- annealing -------------------------------------------------------------------------------------------------------


def _weights(
    judge: Judge, log_weights: Array, exact: enumeration.Weights, where: str, sign: float
) -> Iterator[Finding]:
    """Two findings: the mean weight, and the mean of the logarithms; with their enumerated variances."""
    with np.errstate(over="ignore"):  # infinite weights are judged too
        weights = np.exp(log_weights - exact.log_mean)
    found = means(weights, exact.variance, exact.third)
    yield judge.means("mean weight", found, 1.0, _LOG_Z, where)
    yield judge.means(
        "mean log-weight", means(sign * log_weights, exact.log_variance), sign * exact.mean_log, "nats", where
    )


def ais_trial(task: Task, judge: Judge, sampler: Samplers) -> Iterator[Finding]:
    """Mean weight Z, exactly."""
    n = number(task, 1_000_000)
    log_weights = sampler.ais(RUGGED, BASE, PATH, n, next(seeds_of(task)))
    exact = enumeration.forward_weights(RUGGED, BASE, PATH)
    yield from _weights(judge, log_weights, exact, f"{n} chains of 5 x 4 units, 5 steps from independent units", 1)


def reverse_ais_trial(task: Task, judge: Judge, sampler: Samplers) -> Iterator[Finding]:
    """Mean weight 1 / Z, exactly, from exact draws of the machine."""
    n, seeds = number(task, 1_000_000), seeds_of(task)
    z1 = draw(enumeration.joint(RUGGED).sum(axis=1), n, np.random.default_rng(next(seeds)))
    log_weights = sampler.reverse_ais(RUGGED, BASE, PATH, z1, next(seeds))
    exact = enumeration.reverse_weights(RUGGED, BASE, PATH)
    yield from _weights(judge, log_weights, exact, f"{n} exact draws of 5 x 4 units, 5 steps back", -1)


def bracket_findings(judge: Judge, brackets: list[partition.Bracket], exact: float, where: str) -> Iterator[Finding]:
    """Three findings on independent brackets: the lower ends, the upper ends, and how many miss the truth."""
    lower = means([one.lower.log_partition for one in brackets])
    upper = means([one.upper.log_partition for one in brackets])
    yield judge.means("lower estimate not above", lower, exact, _LOG_Z, where, side=1)
    yield judge.means("upper estimate not below", upper, exact, _LOG_Z, where, side=-1)
    missed = [sum(not one.low <= exact <= one.high for one in brackets)]
    unit = "of the brackets missing log Z"
    yield judge.shares("brackets that miss", missed, len(brackets), [BRACKET_MISSES], unit, where, side=1)


def bracket_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """Brackets of a machine that is enumerated too."""
    seeds, n = seeds_of(task), number(task, 300)
    brackets = [
        partition.bracket(STRONG, next(seeds), n_chains=64, n_machines=10, n_replicas=4, n_rounds=20) for _ in range(n)
    ]
    exact = float(logsumexp(enumeration.log_weights(STRONG.general())))
    yield from bracket_findings(judge, brackets, exact, f"{n} brackets of 5 x 4 units, 64 chains, 10 steps")

    # On both sides: the exponentials of estimates, of four rugged weights each, have the mean Z. Brackets are on one.
    n = number(task, 40_000)
    weights = partition.anneal(RUGGED, BASE, PATH, 4 * n, next(seeds)).reshape(n, 4)
    rugged = float(logsumexp(enumeration.log_weights(RUGGED.general())))
    stated = np.array([partition.estimate(four, sign=1).log_partition for four in weights])
    where = f"{n} estimates by 4 chains of 5 x 4 units, 5 steps"
    yield judge.means("mean of e^estimate, in Z", means(np.exp(stated - rugged)), 1.0, _LOG_Z, where)


def bennett_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """The estimate; and the standard error it states: a normal error over it has a square of mean 1 and variance 2."""
    seeds, n, n_chains = seeds_of(task), number(task, 1000), 500
    exact = float(logsumexp(enumeration.log_weights(RUGGED.general())))
    marginal = enumeration.joint(RUGGED).sum(axis=1)
    found = []
    for _ in range(n):
        forward = partition.anneal(RUGGED, BASE, PATH, n_chains, next(seeds))
        z1 = draw(marginal, n_chains, np.random.default_rng(next(seeds)))
        reverse = partition.anneal_reverse(RUGGED, BASE, PATH, z1, next(seeds))
        found.append(partition.bennett_estimate(forward, reverse))
    error = np.array([one.log_partition - exact for one in found])
    where = f"{n} estimates of 5 x 4 units from {n_chains} chains each way, 5 steps"
    yield judge.means("estimate", means(error + exact), exact, _LOG_Z, where)
    squares = (error / np.array([one.standard_error for one in found])) ** 2
    yield judge.means("stated error", means(squares, 2.0), 1.0, _OF_THE_VARIANCE, where)


def thermodynamic_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """The mean over independent chains; 17 nodes leave an error of quadrature far below the standard error."""
    n, base = number(task, 5000), RBM(np.zeros(3), np.zeros(3), np.zeros((3, 3)))
    found = thermodynamic.thermodynamic_estimate(
        TWO_MODES, base, n, n_rounds=10, seed=next(seeds_of(task)), burn_in=40, n_rungs=17
    )
    exact = float(logsumexp(enumeration.log_weights(TWO_MODES.general())))
    value, error = np.array([found.log_partition]), np.array([found.standard_error])
    where = f"{n} chains of 3 x 3 units with two modes, 17 rungs, 10 rounds after 40"
    yield judge.means("estimate", Means(value, error, np.zeros(1), n), exact, _LOG_Z, where)


# ---- bounds ----------------------------------------------------------------------------------------------------------


def bound_findings(
    judge: Judge, log_marginals: Callable[[int, int], Array], n: int, exact: Posterior, where: str
) -> Iterator[Finding]:
    """Four findings on n independent importance-weighted estimates (nats): ``log_marginals(n, n_draws)``.

    One draw is the ELBO, two have an exact mean too; with five the mean weight is still p(x), and the bound lies
    between that of two and log p(x).
    """
    elbo = means(log_marginals(n, 1))
    yield judge.means("ELBO", elbo, exact.bound(1), "nats", f"{where}, {n} estimates of one draw")
    pair = means(log_marginals(n, 2))
    yield judge.means("bound of 2 draws", pair, exact.bound(2), "nats", f"{where}, {n} estimates")
    five = log_marginals(n, 5)
    weight = means(np.exp(five - exact.log_marginal), exact.weight_variance / 5)
    yield judge.means("mean weight of 5 draws", weight, 1.0, "nats of log p(x)", f"{where}, {n} estimates")
    beyond = means(np.stack([five - exact.log_marginal, exact.bound(2) - five], axis=1))
    names = ["below log p(x)", "above the bound of 2"]
    yield judge.means("bound of 5 draws", beyond, 0.0, "nats", f"{where}, {n} estimates", names, side=1)


def log_mean_trial(task: Task, judge: Judge, sampler: Samplers) -> Iterator[Finding]:
    """Importance weights of a posterior over 16 states, drawn here, averaged by the subject in two pieces."""
    n = number(task, 100_000)
    rng = np.random.default_rng(next(seeds_of(task)))
    fixed = np.random.default_rng(11)
    logits = fixed.normal(size=16)
    exact = Posterior(logits - logsumexp(logits), logits - logsumexp(logits) + 0.5 * fixed.normal(size=16) - 100)
    log_weight, q = exact.log_joint - exact.log_q, np.exp(exact.log_q)

    def estimates(sizes: tuple[int, ...]) -> Array:
        return sampler.log_mean([log_weight[rng.choice(16, (n, size), p=q)] for size in sizes])

    pair = means(estimates((1, 1)))
    yield judge.means("mean of 2", pair, exact.bound(2), "nats", f"{n} rows, two pieces of 1 log-weight")
    weight = means(np.exp(estimates((2, 3)) - exact.log_marginal), exact.weight_variance / 5)
    yield judge.means("mean weight of 5", weight, 1.0, "nats", f"{n} rows, pieces of 2 and 3 log-weights")


def tiny_parameters(rng: np.random.Generator, independent: bool) -> tiny_model.Parameters:
    """A model of 3 + 3 latent units and five pixels, untrained; ``independent``: nothing depends on zeta."""
    x = np.array([[0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0, 0.0]])
    some = tiny_model.Parameters.init(x, n_side=3, n_hidden=4, seed=0).map(
        lambda array: 0.3 * rng.standard_normal(array.shape)
    )
    if not independent:
        return some
    names = ("S2", "V3")
    return tiny_model.Parameters(**vars(some) | {name: np.zeros_like(getattr(some, name)) for name in names})


def tiny_posterior(p: tiny_model.Parameters, x: Array) -> Posterior:
    """Everything there is to know about one image (D,) under it."""

    def first(_: Array) -> Array:
        return np.tile(np.tanh(x @ p.V1 + p.u1) @ p.A1 + p.c1, (2**p.n_latents, 1))

    def second(z1: Array) -> Array:
        return np.tanh(x @ p.V2 + (2 * z1 - 1) @ p.S2 + p.u2) @ p.A2 + p.c2

    def pixels(z: Array) -> Array:
        return np.tanh((2 * z - 1) @ p.V3 + p.u3) @ p.A3 + p.c3

    return enumeration.posterior([first, second], pixels, p.prior, x)


IMAGE = np.array([0.0, 1.0, 1.0, 0.0, 1.0])


def likelihood_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """Importance-weighted estimates of the tiny model against its enumerated likelihood."""
    seeds = seeds_of(task)
    p = tiny_parameters(np.random.default_rng(3), independent=False)
    normaliser = float(logsumexp(enumeration.log_weights(p.prior.general())))

    def log_marginals(n: int, n_draws: int) -> Array:
        images = np.tile(IMAGE, (n, 1))
        return tiny_model.likelihood_estimate(p, images, n_draws, next(seeds), normaliser).log_marginal

    n = number(task, 200_000)
    yield from bound_findings(judge, log_marginals, n, tiny_posterior(p, IMAGE), "tiny model of 3 + 3 units")


def objective_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """The smoothed ELBO of a model in which nothing depends on zeta, so that its mean is the enumerated ELBO.

    Then the second group's posterior is the same for all zeta, and E[nu] = mu: the KL, with nu in the place of mu, is
    that of the binary posterior on average, at any sharpness.
    """
    n, p = number(task, 100_000), tiny_parameters(np.random.default_rng(4), independent=True)
    rho = philox.uniforms(next(seeds_of(task)), 0, n, p.n_latents)
    forward = tiny_model.forward(p, np.tile(IMAGE, (n, 1)), rho, OverlappingExponential(4.0))
    exact = tiny_posterior(p, IMAGE).bound(1)
    where = f"{n} draws of zeta, tiny model of 3 + 3 units whose networks do not see it"
    yield judge.means("smoothed ELBO", means(forward.bound()), exact, "nats", where)


# ---- noise -----------------------------------------------------------------------------------------------------------

#: (seed, step, n_chains, n_units, stream) -> (n_chains, n_units)
Uniforms = Callable[[int, int, int, int, int], Array]


def uniform_findings(judge: Judge, uniforms: Uniforms, n: int, seed: int) -> Iterator[Finding]:
    """Three findings on uniform numbers: mean and 64 cells; every bit; and pairs of neighbouring addresses.

    Shapes   n numbers for each
    """
    u = uniforms(seed, 3, n // 8, 8, 1)
    cells = np.bincount((64 * u).astype(np.int64).ravel(), minlength=64)
    yield judge.table("cells", cells, np.full(64, 1 / 64), _IN_A_PROBABILITY, f"{u.size} numbers")
    # The middle of a cell of width 2**-23 is its number and a half: what distinguishes cells is 23 fair bits.
    numbers = np.floor(u.ravel() * 2**23).astype(np.int64)
    bits = [int(((numbers >> bit) & 1).sum()) for bit in range(23)]
    names = [f"bit {bit}" for bit in range(23)]
    yield judge.shares("bits", bits, u.size, np.full(23, 0.5), _IN_A_PROBABILITY, f"{u.size} numbers", names)

    others = {
        "unit": (u[:, 0::2], u[:, 1::2]),
        "chain": (u[0 : n // 16 * 2 : 2], u[1 : n // 16 * 2 : 2]),
        "step": (u, uniforms(seed, 4, n // 8, 8, 1)),
        "stream": (u, uniforms(seed, 3, n // 8, 8, 2)),
        "seed": (u, uniforms(seed + 1, 3, n // 8, 8, 1)),
    }
    # 12 (u - 1/2)(v - 1/2) has mean 0 and variance 1 if u and v are independent.
    products = [means(12 * ((a - 0.5) * (b - 0.5)).ravel(), 1.0) for a, b in others.values()]
    joined = Means(
        np.concatenate([one.value for one in products]),
        np.concatenate([one.standard_error for one in products]),
        np.concatenate([one.skewness for one in products]),
        n=n // 2,
        known=True,
    )
    named = [f"next {name}" for name in others]
    yield judge.means("neighbours", joined, 0.0, "of correlation", f"{u.size} numbers and their neighbours", named)


def uniforms_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """The numbers of Philox."""
    yield from uniform_findings(judge, philox.uniforms, number(task, 800_000), next(seeds_of(task)))


def inverse_cdf_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """Samples from uniform noise, counted in cells whose probabilities the reference's CDF gives."""
    n, logit_q = number(task, 100_000), 0.5
    rho = philox.uniforms(next(seeds_of(task)), 0, n, 1)[:, 0]
    # A power's sharpness is of another size: it is 1 over the exponent.
    smoothing: Smoothing = SMOOTHINGS[task.kind](_SHARPNESS.get(task.kind, 4.0))
    sharpness = float(getattr(smoothing, smoothing.sharpness))
    ends = np.linspace(0, 1, 26) if smoothing.unit_interval else np.append(np.linspace(-1, 2, 46), np.inf)
    zeta = np.asarray(smoothing.inverse_cdf(rho, np.full(n, logit_q)))
    # A cell holds its right end; the first one, everything up to it.
    counts = np.bincount(np.searchsorted(ends, zeta, side="left"), minlength=len(ends))
    probs = np.diff(smoothing.cdf(ends, np.full(len(ends), logit_q)), prepend=0.0)
    where = f"logit {logit_q}, {smoothing.sharpness} {sharpness:g}"
    yield judge.table("zeta", counts, probs, _IN_A_PROBABILITY, where)


_SHARPNESS = {"concrete": 0.5, "gaussian": 20.0}


# ---- gradient estimators ---------------------------------------------------------------------------------------------


def estimators_trial(task: Task, judge: Judge) -> Iterator[Finding]:
    """Unbiased estimators against the exact gradient; the others' bias and spread are measured."""
    n, seed = number(task, 200_000), next(seeds_of(task))
    if task.kind:
        some = [one for one in exported_smoothings() if isinstance(one, SMOOTHINGS[task.kind])]
        rows = measure(
            [one for one in measurements(smoothings=some) if one.estimator == "smoothed"], number(task, 10_000), seed
        )
    else:
        rows = measure(list(measurements()), n, seed)
    for row in rows:
        yield from _estimator(row, judge)


def _estimator(row: Row, judge: Judge) -> Iterator[Finding]:
    name = f"{row.estimator}, {row.parameter}".removesuffix(", ")
    names = [f"logit {i}" for i in range(len(row.target))]
    unit = "of the gradient's norm"
    where = f"{row.n_draws} draws, spread of one {row.spread:.3g}"
    if row.unbiased:
        yield judge.means(name, row.means, row.target, unit, where, names)
    else:
        tail = "" if row.trustworthy else ", heavy tail: more draws needed"
        error = f"± {row.standard_error:.2g}"
        yield Finding(name, row.bias, 0.0, f"bias {error}, {where}{tail}", unit, judged=False)
    if row.estimator == "REINFORCE":
        baseline = {"no baseline": 0.0, "baseline E[f]": estimators.exact_value(PROBLEM.integrand(), PROBLEM.logits)}
        yield _spread(row, baseline[row.parameter], judge, where)


def _spread(row: Row, baseline: float, judge: Judge, where: str) -> Finding:
    """The mean squared error of REINFORCE, in units of what enumeration says it is."""
    f, logits = PROBLEM.integrand(), PROBLEM.logits
    exact = estimators.exact_gradient(f, logits)

    def squares(z: Array) -> Array:
        draws = (f(z) - baseline)[:, None] * estimators.score(z, logits)
        return np.asarray(((draws - exact) ** 2).sum(axis=1))

    mean = estimators.exact_value(squares, logits)
    variance = estimators.exact_value(lambda z: (squares(z) - mean) ** 2, logits)
    third = estimators.exact_value(lambda z: (squares(z) - mean) ** 3, logits)
    found = Means(
        np.array([row.mean_square * (exact @ exact) / mean]),
        np.array([np.sqrt(variance / row.n_draws) / mean]),
        np.array([third / variance**1.5]),
        row.n_draws,
        known=True,
    )
    return judge.means(f"variance of REINFORCE, {row.parameter}", found, 1.0, _OF_THE_VARIANCE, where)
