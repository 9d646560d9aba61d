"""The reference behind the protocol, against computations that share nothing with it.

It judges the other backends, so it is judged here: by enumeration of states, by differences, by arithmetic of many
digits, and by the functions of ``reference`` that say the same in another way.
"""

import itertools

import mpmath
import numpy as np
import pytest

import accelerated
from accelerated.protocol import EXTRAS, KINDS, OPERATIONS, Machine, Smoothed
from reference import boltzmann, boltzmann_kl, partition, philox, tempering
from reference.bound import StreamingLogMeanExp
from reference.gibbs import PersistentChains
from reference.vocabulary import RBM
from validation.accuracy import inverse_truth
from validation.truth import KINDS as TRUTH
from validation.truth import sigmoid_pair

DTYPES = [np.float32, np.float64]


@pytest.fixture(scope="module")
def oracle():
    return accelerated.load("numpy_oracle")


def a_machine(n1=3, n2=4, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return Machine(*(rng.normal(size=shape).astype(dtype) for shape in (n1, n2, (n1, n2))))


def test_it_has_every_operation(oracle):
    assert oracle.operations() == OPERATIONS
    array = np.ones(3)
    assert oracle.asarray(array) is array
    assert oracle.to_numpy(array) is array


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_transforms_are_the_truth(oracle, kind, dtype):
    rng = np.random.default_rng(1)
    rho, logit_q = rng.uniform(size=(2, 3)).astype(dtype), (2 * rng.normal(size=(2, 3))).astype(dtype)
    result = oracle.inverse_cdf(kind, rho, logit_q, 6.5, EXTRAS)
    eps = float(np.finfo(dtype).eps)
    for i in np.ndindex(2, 3):
        truth = inverse_truth(kind, float(rho[i]), float(logit_q[i]), 6.5, eps)
        for name, (expected, change) in truth.items():
            assert abs(float(getattr(result, name)[i]) - expected) <= eps * abs(expected) + 2 * change
        with mpmath.workdps(50):
            zeta, of_kind = mpmath.mpf(float(result.zeta[i])), TRUTH[kind]
            ratio = of_kind.log_ratio(zeta, mpmath.mpf(6.5))
            nu = of_kind.nu(zeta, *sigmoid_pair(mpmath.mpf(float(logit_q[i]))), mpmath.mpf(6.5))
            for name, expected in (("log_ratio", ratio), ("nu", nu)):
                got = float(getattr(result, name)[i])
                assert got == expected or abs(got - expected) <= 40 * eps * (1 + abs(expected))
    assert all(value.dtype == dtype for value in result)


def test_transforms_compute_what_is_asked_for(oracle):
    rho, logit_q = np.full(3, 0.25), np.zeros(3)
    result = oracle.inverse_cdf("logistic", rho, logit_q, 2.0, ("nu",))
    assert [name for name, value in result._asdict().items() if value is not None] == ["zeta", "nu"]
    assert oracle.inverse_cdf("logistic", rho, logit_q, 2.0).dzeta_dlogit_q is not None
    out = Smoothed(zeta=np.zeros(3), nu=np.zeros(3))
    assert oracle.inverse_cdf("logistic", rho, logit_q, 2.0, ("nu",), out).nu is out.nu
    np.testing.assert_array_equal(out.zeta, result.zeta)
    np.testing.assert_array_equal(out.nu, result.nu)


def test_sharpness_is_rounded_like_the_arrays(oracle):
    rho, logit_q = np.float32([0.25]), np.float32([0.5])
    rounded = oracle.inverse_cdf("exponential", rho, logit_q, float(np.float32(0.1)))
    np.testing.assert_array_equal(oracle.inverse_cdf("exponential", rho, logit_q, 0.1).zeta, rounded.zeta)


def joint_entropy(logits):
    """Of independent units, over all states together."""
    pairs = [sigmoid_pair(mpmath.mpf(x)) for x in logits]
    total = mpmath.mpf(0)
    for z in itertools.product((0, 1), repeat=len(pairs)):
        probability = mpmath.fprod(pair[on] for pair, on in zip(pairs, z, strict=True))
        total -= probability * mpmath.log(probability) if probability else 0
    return total


@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_is_that_of_the_joint_distribution(oracle, dtype):
    logit_q = np.array([[0.5, -2.0, 7.0], [0.0, np.inf, -np.inf]], dtype=dtype)
    value, slope = oracle.entropy(logit_q)
    assert value.dtype == slope.dtype == dtype
    rel = 4 * float(np.finfo(dtype).eps)
    with mpmath.workdps(40):
        for row, got in zip(logit_q.tolist(), value.tolist(), strict=True):
            assert float(joint_entropy(row)) == pytest.approx(got, rel=rel)
        step = mpmath.mpf(10) ** -12
        for unit in range(3):
            up, down = ([x + sign * step * (i == unit) for i, x in enumerate(logit_q[0].tolist())] for sign in (1, -1))
            difference = (joint_entropy(up) - joint_entropy(down)) / (2 * step)
            assert float(difference) == pytest.approx(float(slope[0, unit]), rel=rel)
    np.testing.assert_array_equal(slope[1], 0)


def couplings_by_hand(machine, mu, nu, n_groups):
    """Cross-entropy of one row as the definition says it: pair by pair."""
    n1, n2 = machine.W.shape
    size = (n1 + n2) // n_groups
    total = -sum(machine.a1[i] * mu[i] for i in range(n1)) - sum(machine.a2[j] * mu[n1 + j] for j in range(n2))
    for i in range(n1):
        for j in range(n1, n1 + n2):
            first = mu[i] if i // size == j // size else nu[i]
            total -= machine.W[i, j - n1] * first * mu[j]
    return total


@pytest.mark.parametrize(("n1", "n2", "n_groups"), [(3, 3, 2), (3, 3, 1), (3, 3, 3), (3, 3, 6), (2, 4, 3), (4, 2, 2)])
def test_cross_entropy_and_its_gradients_are_sums_over_pairs(oracle, n1, n2, n_groups):
    machine = a_machine(n1, n2)
    rng = np.random.default_rng(2)
    mu, nu = rng.uniform(size=(2, 5, n1 + n2))
    mu[0], mu[1] = rng.integers(2, size=(2, n1 + n2))  # certain units: their logits are infinite
    upstream = rng.normal(size=5)
    rows = [couplings_by_hand(machine, m, v, n_groups) for m, v in zip(mu, nu, strict=True)]
    np.testing.assert_allclose(oracle.cross_entropy(machine, mu, nu, n_groups), rows, rtol=1e-13)

    gradients = oracle.cross_entropy_gradients(machine, mu, nu, n_groups, upstream)

    def loss(**changed):
        parts = {"mu": mu, "nu": nu, **machine._asdict()} | changed
        weights = Machine(parts["a1"], parts["a2"], parts["W"])
        rows = zip(upstream, parts["mu"], parts["nu"], strict=True)
        return sum(u * couplings_by_hand(weights, m, v, n_groups) for u, m, v in rows)

    for name, gradient in gradients._asdict().items():
        value = {"mu": mu, "nu": nu, **machine._asdict()}[name]
        assert gradient.shape == value.shape
        for i in np.ndindex(value.shape):
            up, down = value.copy(), value.copy()
            up[i] += 0.5  # of degree one in each number: a difference of any length is the derivative
            down[i] -= 0.5
            assert gradient[i] == pytest.approx(loss(**{name: up}) - loss(**{name: down}), abs=1e-12)


def test_gradients_in_the_logits_follow_from_those_in_the_means(oracle):
    machine = a_machine(4, 4)
    rng = np.random.default_rng(3)
    logit_q, nu = rng.normal(size=(3, 8)), rng.uniform(size=(3, 8))
    mu = 1 / (1 + np.exp(-logit_q))
    ones = np.ones(3)
    of_mean = oracle.cross_entropy_gradients(machine, mu, nu, 2, ones)
    whole = boltzmann_kl.kl_with_gradients(RBM(*machine), logit_q, nu, 2, 0.0)
    of_logit = mu * (1 - mu) * of_mean.mu - oracle.entropy(logit_q).dvalue_dlogit_q
    np.testing.assert_allclose(of_logit, whole.dkl_dlogit_q, atol=1e-12)
    np.testing.assert_allclose(of_mean.nu, whole.dkl_dnu, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gibbs_is_the_reference_s_chains(oracle, dtype):
    machine = a_machine(5, 7, dtype=dtype)
    start = PersistentChains.init(RBM(*machine), 6, seed=3)
    expected = start.run(RBM(*machine), 9)
    z1, _ = oracle.gibbs(machine, start.z1.astype(dtype), n_sweeps=5, seed=3, step=0)
    out = np.zeros((6, 5), dtype), np.zeros((6, 7), dtype)
    result = oracle.gibbs(machine, z1, n_sweeps=4, seed=3, step=5, out=out)
    for state, target, truth in zip(result, out, (expected.z1, expected.z2), strict=True):
        assert state is target
        assert state.dtype == dtype
        np.testing.assert_array_equal(state, truth)
    last = oracle.gibbs(machine, z1[4:], n_sweeps=4, seed=3, step=5, first_chain=4)
    np.testing.assert_array_equal(last[1], expected.z2[4:])


def states(n):
    return np.array(list(itertools.product((0, 1), repeat=n)), dtype=float)


def test_gibbs_reaches_the_distribution_of_the_machine(oracle):
    # Relative frequencies of all 2^5 states over 20,000 independent chains: chi-square with 31 degrees of freedom,
    # above 80 once in 300,000 seeds.
    machine = a_machine(2, 3, seed=4)
    n = 20_000
    start = (philox.uniforms(5, 0, n, 2) < 0.5).astype(float)
    z1, z2 = oracle.gibbs(machine, start, n_sweeps=60, seed=5, step=1)
    both = states(5)
    logs = -boltzmann.energy(RBM(*machine), both[:, :2], both[:, 2:])
    expected = n * np.exp(logs - np.logaddexp.reduce(logs))
    index = (np.hstack([z1, z2]) @ 2 ** np.arange(4, -1, -1)).astype(int)
    observed = np.bincount(index, minlength=32)
    assert ((observed - expected) ** 2 / expected).sum() < 80


@pytest.mark.parametrize("dtype", DTYPES)
def test_tempering_is_the_reference_s_and_goes_on(oracle, dtype):
    machine, ladder = a_machine(5, 7, dtype=dtype), np.array([0.1, 0.4, 1.0])
    expected = tempering.run(RBM(*machine), ladder, 8, 6, seed=2, sweeps_per_round=2)
    whole = oracle.tempering(machine, ladder, 8, 6, 2, sweeps_per_round=2)
    assert whole.z1.shape == (24, 5)
    np.testing.assert_array_equal(whole.z1[-8:], expected.z1)
    np.testing.assert_array_equal(whole.z2[-8:], expected.z2)
    # Each pair was tried in every other round, by all chains.
    np.testing.assert_allclose(whole.n_accepted / (3 * 8), expected.swap_rates)
    first = oracle.tempering(machine, ladder, 8, 3, 2, sweeps_per_round=2)
    second = oracle.tempering(machine, ladder, 8, 3, 2, 3, first.z1, sweeps_per_round=2)
    np.testing.assert_array_equal(second.z1, whole.z1)
    np.testing.assert_array_equal(first.n_accepted + second.n_accepted, whole.n_accepted)
    assert whole.z1.dtype == dtype


def log_partition_by_enumeration(machine):
    n1, n2 = machine.W.shape
    logs = [machine.a1 @ z1 + machine.a2 @ z2 + z1 @ machine.W @ z2 for z1 in states(n1) for z2 in states(n2)]
    return np.logaddexp.reduce(logs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_annealing_brackets_the_enumerated_log_partition(oracle, dtype):
    machine = a_machine(3, 4, seed=6, dtype=dtype)
    truth = log_partition_by_enumeration(Machine(*(x.astype(float) for x in machine)))
    base, path = (np.zeros(3, dtype), np.zeros(4, dtype)), np.linspace(0, 1, 101)
    forward = oracle.ais(machine, base, path, 500, seed=7)
    assert forward.dtype == np.float64
    low = partition.estimate(forward, sign=1)
    assert abs(low.log_partition - truth) < 5 * low.standard_error
    assert low.standard_error < 0.02
    both = states(7)
    logs = both[:, :3] @ machine.a1 + both[:, 3:] @ machine.a2 + ((both[:, :3] @ machine.W) * both[:, 3:]).sum(axis=1)
    probabilities = np.exp(logs - truth)
    z1 = both[np.searchsorted(np.cumsum(probabilities), np.random.default_rng(8).uniform(size=500)), :3].astype(dtype)
    high = partition.estimate(oracle.reverse_ais(machine, base, path, z1, seed=7), sign=-1)
    assert abs(high.log_partition - truth) < 5 * high.standard_error


def test_annealing_splits_and_takes_a_base_of_either_form(oracle):
    machine, path = a_machine(5, 7), np.linspace(0, 1, 9)
    a1, a2 = np.linspace(-1, 1, 5), np.linspace(0, 2, 7)
    whole = oracle.ais(machine, (a1, a2), path, 10, 3)
    np.testing.assert_array_equal(whole, oracle.ais(machine, RBM(a1, a2, np.zeros((5, 7))), path, 10, 3))
    np.testing.assert_allclose(whole[6:], oracle.ais(machine, (a1, a2), path, 4, 3, first_chain=6), rtol=1e-14)
    expected = partition.anneal(RBM(*machine), RBM(a1, a2, np.zeros((5, 7))), path, 10, 3)
    np.testing.assert_array_equal(whole, expected)


def test_a_machine_without_couplings_has_one_weight(oracle):
    machine = a_machine(5, 7)._replace(W=np.zeros((5, 7)))
    log_partition = sum(np.log1p(np.exp(a)).sum() for a in machine[:2])
    base, path = (machine.a1, machine.a2), [0.0, 0.3, 1.0]
    np.testing.assert_allclose(oracle.ais(machine, base, path, 4, 1), log_partition, rtol=1e-14)
    np.testing.assert_allclose(oracle.reverse_ais(machine, base, path, np.ones((4, 5)), 1), -log_partition, rtol=1e-14)


def test_log_mean_in_pieces_is_that_of_the_stream_and_of_many_digits(oracle):
    rng = np.random.default_rng(9)
    weights = 400 * rng.normal(size=(4, 13))
    weights[1] = -np.inf
    weights[2, :5] = -np.inf
    stream, running = StreamingLogMeanExp(4), None
    for piece in np.split(weights, [5, 6], axis=1):
        stream.add(piece)
        running = oracle.importance_log_mean(piece, running)
    np.testing.assert_allclose(running.value, stream.result(), rtol=1e-14)
    np.testing.assert_array_equal(running.largest, weights.max(axis=1))
    assert running.n_weights == 13
    for row, value in zip(weights, running.value, strict=True):
        with mpmath.workdps(40):
            mean = mpmath.fsum(mpmath.exp(mpmath.mpf(float(w))) for w in row) / 13
            expected = float(mpmath.log(mean)) if mean else -np.inf
        assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_array_equal(running.total[1], 0)
