"""The measures of agreement pass what is right and see what is wrong, down to a millionth."""

import numpy as np
import pytest
from scipy.special import expit

from accelerated.backends.numpy_oracle import NumpyOracle
from accelerated.protocol import Machine
from reference import philox
from reference.vocabulary import RBM
from validation import agreement, subjects
from validation.agreement import (
    Bits,
    Operation,
    disagreements,
    edge_bits,
    gibbs_band,
    gibbs_bits,
    inverse_cdf,
    posterior_disagreements,
)
from validation.cases import Cases, all_cases, few_sharpnesses
from validation.rows import Request, Subject
from validation.tolerances import TRANSFORM_MIXED_ERROR, TWIN_MIXED_ERROR, sum_error
from validation.torch_twin import SUBJECTS, TORCH, TorchTwin

DTYPES = [np.float32, np.float64]
MILLIONTH = 1 + 1e-6


def plain_cases(dtype, n=100):
    rng = np.random.default_rng(3)
    logit_q = rng.normal(size=n) * (np.arange(n) % 2)
    return Cases(*(x.astype(dtype) for x in (rng.uniform(0.05, 0.95, n), logit_q, rng.uniform(2, 20, n))))


# ---- torch twins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_number", [False, True])
def test_twins_agree_with_the_reference(of_number, dtype):
    cases = few_sharpnesses(all_cases(20_000, dtype, seed=1))
    twin = TorchTwin(sharpness_is_number=of_number)
    found = [
        *disagreements(inverse_cdf(twin, "exponential"), cases),
        *posterior_disagreements(twin, "exponential", cases),
    ]
    assert len(found) == 6 - of_number
    for finding in found:
        assert finding.bound == (TRANSFORM_MIXED_ERROR if dtype == np.float32 else TWIN_MIXED_ERROR)
        assert finding.holds, finding


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_twin_that_is_off_by_a_millionth_disagrees(dtype):
    operation = inverse_cdf(TorchTwin(sharpness_is_number=False), "exponential")

    def twin(*inputs):
        return {output: value * dtype(1 + 3e-6) for output, value in operation.twin(*inputs).items()}

    off = Operation(operation.reference, twin, operation.first, operation.unit_interval)
    assert not any(finding.holds for finding in disagreements(off, plain_cases(dtype)))


def test_a_twin_that_returns_nan_disagrees():
    operation = Operation(lambda x, *_: {"nu": x}, lambda *_: {"nu": np.full(100, np.nan)}, "zeta")
    (worst,) = disagreements(operation, plain_cases(np.float64))
    assert worst.error == np.inf
    assert worst.where.startswith("zeta=")


def test_an_infinity_agrees_with_itself_alone():
    cases = Cases(*(np.array([x, x]) for x in (0.5, 0.0, 2.0)))
    for got, holds in (((np.inf, -np.inf), True), ((np.inf, np.inf), False), ((np.inf, 1.0), False)):
        operation = Operation(lambda *_: {"x": np.array([np.inf, -np.inf])}, lambda *_, got=got: {"x": np.array(got)})
        assert disagreements(operation, cases)[0].holds is holds


# ---- the band --------------------------------------------------------------------------------------------------------


def sums_in_any_order(terms, dtype, rng):
    """Sums of the last axis, added up in shuffled orders and by pairs, every partial sum rounded."""
    orders = [rng.permutation(len(terms)) for _ in range(20)]
    yield from (np.add.accumulate(terms[order].astype(dtype))[-1] for order in orders)
    yield np.add.reduce(terms.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 17, 129, 1000])
def test_no_order_of_summation_leaves_the_band(n, dtype):
    rng = np.random.default_rng(n)
    largest = 0.0
    for _ in range(20):
        W, a2, z1 = rng.normal(size=n).astype(dtype), rng.normal(size=1).astype(dtype), rng.integers(2, size=n)
        band = gibbs_band(Machine(np.zeros(n, dtype), a2, W[:, None]), z1[None], dtype)[0, 0]
        terms = np.append(W * z1, a2).astype(dtype)
        exact = float(np.sum(terms.astype(np.longdouble)))
        for total in sums_in_any_order(terms, dtype, rng):
            largest = max(largest, abs(float(total) - exact) / band)
    assert 0 < largest < 1 or n == 1


def test_the_band_grows_with_what_it_is_made_of():
    rbm = Machine(np.zeros(3), np.array([1.0, -5.0]), np.array([[1.0, 2.0], [-3.0, 4.0], [0.5, 0.0]]))
    z1 = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1.0]])
    band = gibbs_band(rbm, z1, np.float32)
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(band, 4 * eps + 5 * eps / 2 * np.array([[1, 5], [5, 11], [5.5, 11]]), rtol=1e-6)
    np.testing.assert_allclose(gibbs_band(rbm, z1, np.float32, 0.0), 4 * eps)
    inv_temp = np.array([1.0, 0.5, 0.0])
    plain = gibbs_band(rbm, z1, np.float32, inv_temp)
    n_on = inv_temp * [0, 2, 3]  # weighted
    of_sum = gibbs_band(rbm, z1, np.float32, inv_temp, (0.01, 0)) - plain
    np.testing.assert_allclose(of_sum, 0.01 * n_on[:, None] * [4.5, 6], atol=1e-12)
    of_largest = gibbs_band(rbm, z1, np.float32, inv_temp, (0, 0.01)) - plain
    np.testing.assert_allclose(of_largest, 0.04 * n_on[:, None] * [1, 1], atol=1e-12)


def test_units_in_the_band_may_be_either_way_and_others_may_not():
    u = philox.uniforms(1, 2, 2, 3)
    # The first unit of each row is off, the last is on, and the one between is on by less than the band.
    x = np.log(u) - np.log1p(-u) + [[-2e-6, 5e-7, 2e-6]]
    for z, n_differing, n_wrong in (([0, 1, 1], 0, 0), ([0, 0, 1], 2, 0), ([1, 1, 1], 0, 2), ([0.5, 0, 0], 2, 4)):
        bits = Bits()
        bits.compare("z", np.tile(np.array(z, dtype=float), (2, 1)), x, u, np.full(x.shape, 1e-6))
        assert (bits.n_units, bits.n_inside) == (6, 2)
        assert (bits.n_differing, bits.n_wrong) == (n_differing, n_wrong)
        assert len(bits.wrong) == min(n_wrong, 3)


def test_as_many_units_meet_the_band_as_it_is_wide():
    rng = np.random.default_rng(4)
    x, band = rng.normal(size=(500, 200)), np.full((500, 200), 0.01)
    bits = Bits()
    bits.meet(x, philox.uniforms(3, 4, 500, 200), band)
    assert bits.n_expected == pytest.approx((expit(x + band) - expit(x - band)).sum())
    assert abs(bits.n_inside - bits.n_expected) < 5 * np.sqrt(bits.n_expected)
    assert bits.rare
    assert not Bits(n_units=10, n_inside=5, n_expected=0.1).rare


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_the_edge_every_unit_is_next_to_its_threshold(dtype):
    # The reference passes; the same machine with one bias moved by four bands does not.
    rng = np.random.default_rng(5)
    W = (rng.normal(size=(17, 33)) / 4).astype(dtype)
    z1 = rng.integers(2, size=(1, 17)).astype(dtype)

    class Off(NumpyOracle):
        def gibbs(self, rbm, z1, *address, **options):
            a1, a2, W = (x.astype(np.float64) for x in rbm)
            moved = Machine(a1, a2 + 4 * gibbs_band(rbm, z1, dtype)[0], W)
            return super().gibbs(moved, z1.astype(np.float64), *address, **options)

    right, off = (edge_bits(backend, W, z1, 7, 2**40 + 1, 9) for backend in (NumpyOracle(), Off()))
    assert right.n_units == 50
    assert right.n_inside < 5
    assert right.n_wrong == 0
    assert 8 <= off.n_wrong <= 33


# ---- what a wrong backend shows --------------------------------------------------------------------------------------


def scaled(result, names, factor):
    return result._replace(**{name: getattr(result, name) * factor for name in names})


class Wrong(NumpyOracle):
    """The reference with one operation replaced."""

    def __init__(self, operation, replacement):
        self.operation = operation
        setattr(self, operation, lambda *a, **k: replacement(getattr(NumpyOracle(), operation), *a, **k))

    def operations(self):
        pair = {"cross_entropy", "cross_entropy_gradients"}
        return frozenset(pair if self.operation in pair else {self.operation})


def of_machine(change):
    return lambda right, rbm, *rest, **options: right(change(rbm), *rest, **options)


def off_by(factor):
    def change(machine):
        return RBM(*(np.asarray(x, dtype=float) * factor for x in (machine.a1, machine.a2, machine.W)))

    def replacement(right, rbm, z1, *address, **options):
        return tuple(z.astype(z1.dtype) for z in right(change(rbm), z1, *address, **options))

    return replacement


def without_biases(machine):
    return Machine(machine.a1, np.zeros_like(machine.a2), machine.W)


def swapped(z):
    z = z.copy()
    z[:, [0, -1]] = z[:, [-1, 0]]
    return z


MISTAKES = {
    "zeta": ("inverse_cdf", lambda right, *a, **k: scaled(right(*a, **k), ["zeta"], MILLIONTH)),
    "slope": ("inverse_cdf", lambda right, *a, **k: _slope(right(*a, **k))),
    "entropy": ("entropy", lambda right, *a: scaled(right(*a), ["value"], MILLIONTH)),
    "slope of the entropy": ("entropy", lambda right, *a: scaled(right(*a), ["dvalue_dlogit_q"], MILLIONTH)),
    "cross-entropy": ("cross_entropy", lambda right, *a: right(*a) * MILLIONTH),
    **{
        f"gradient {name}": (
            "cross_entropy_gradients",
            lambda right, *a, name=name: scaled(right(*a), [name], MILLIONTH),
        )
        for name in ("mu", "nu", "a1", "a2", "W")
    },
    "upstream left out": ("cross_entropy_gradients", lambda right, *a: right(*a[:-1], np.ones_like(a[-1]))),
    "logits of gibbs": ("gibbs", off_by(MILLIONTH)),
    "bias of gibbs": ("gibbs", of_machine(without_biases)),
    "step": ("gibbs", lambda right, m, z, n, seed, step, first: right(m, z, n, seed, step + 1, first)),
    "seed": ("gibbs", lambda right, m, z, n, seed, step, first: right(m, z, n, seed ^ 2**63, step, first)),
    "chain": ("gibbs", lambda right, m, z, n, seed, step, first: right(m, z, n, seed, step, first + 1)),
    "two units swapped": ("gibbs", lambda right, *a: tuple(map(swapped, right(*a)))),
    "a sweep too many": ("gibbs", lambda right, m, z, n, *a: right(m, z, n + 1, *a)),
    "a rung of the ladder": ("tempering", lambda right, m, b, *a: right(m, np.append(b[:-1] * 0.9, 1), *a)),
    "replicas": ("tempering", lambda right, *a: _reversed(right(*a))),
    "exchanges": ("tempering", lambda right, *a: scaled(right(*a), ["n_accepted"], 2)),
    "weights": ("ais", lambda right, *a: right(*a) * MILLIONTH),
    "biases of ais": ("ais", of_machine(without_biases)),
    "sign of reverse weights": ("reverse_ais", lambda right, *a: -right(*a)),
    "reverse weights": ("reverse_ais", lambda right, *a: right(*a) * MILLIONTH),
    "log mean": ("importance_log_mean", lambda right, *a: scaled(right(*a), ["value"], 1 + 1e-12)),
}


def _slope(result):
    names = [name for name in ("dzeta_dlogit_q",) if getattr(result, name) is not None]
    return scaled(result, names, MILLIONTH)


def _reversed(result):
    return result._replace(z1=result.z1[::-1], z2=result.z2[::-1])


CASES = {dtype: all_cases(300, dtype, seed=3)[::40] for dtype in DTYPES}


def test_the_reference_itself_shows_nothing():
    for dtype in DTYPES:
        found = [finding for _, finding in agreement.examine_all(NumpyOracle(), CASES[dtype], seed=5, size=33)]
        assert len(found) > 60
        assert all(finding.holds for finding in found)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_found_in_its_operation(mistake):
    backend = Wrong(*MISTAKES[mistake])
    found = list(agreement.examine_all(backend, CASES[np.float64], seed=5, size=33))
    # The gradients of the cross-entropy are judged with it.
    assert {name for name, finding in found if not finding.holds} == {MISTAKES[mistake][0].removesuffix("_gradients")}


def test_a_sample_outside_its_domain_is_found_too():
    found = agreement.examine(Wrong(*MISTAKES["zeta"]), "inverse_cdf", CASES[np.float32], seed=5)
    assert any("outside its domain" in finding.where for finding in found)


def test_wrong_bits_are_named_and_replayable():
    machine = Machine(np.zeros(2), np.array([30.0, -30.0]), np.zeros((2, 2)))
    bits = gibbs_bits(Wrong("gibbs", MISTAKES["two units swapped"][1]), machine, np.zeros((3, 2)), 2, 0, 5)
    assert bits.n_wrong >= 12
    assert bits.wrong[0].startswith("z2[0, 0]=")
    assert "12 units" not in bits.finding("bits").where
    assert "24 units" in bits.finding("bits").where


def test_sums_are_bounded_by_their_length():
    assert sum_error(0) == 4
    assert sum_error(100) == 54


# ---- the check -------------------------------------------------------------------------------------------------------


def test_tasks_are_what_was_asked_for():
    subject = Subject("mine", frozenset({"gibbs", "inverse_cdf"}), ("power", "exponential"))
    asked = Request(kinds=("exponential", "logistic"), dtypes=("float32",), operations=("inverse_cdf", "ais"))
    assert [(task.operation, task.kind, task.dtype) for task in agreement.tasks(subject, asked)] == [
        ("inverse_cdf", "exponential", "float32")
    ]
    assert len(agreement.tasks(subject, Request())) == 2 * (2 + 1)
    assert agreement.tasks(subjects.BUILT_IN["reference"], Request()) == []
    own_noise = {"tempering", "ais", "reverse_ais"}
    assert not own_noise & {task.operation for task in agreement.tasks(SUBJECTS[TORCH], Request())}


@pytest.mark.parametrize("quick", [False, True])
def test_the_torch_twin_agrees_in_everything(quick):
    tasks = agreement.tasks(SUBJECTS[TORCH], Request(seed=3, quick=quick))
    assert {task.operation for task in tasks} == TorchTwin(sharpness_is_number=False).operations() - {
        "cross_entropy_gradients"
    }
    for task in tasks:
        findings = list(agreement.perform(task))
        assert findings
        for finding in findings:
            assert finding.holds, (task, finding)


def test_inputs_are_those_of_the_seed_and_of_the_operation():
    """The same whatever was run before, and others for another seed."""

    def shown(seed):
        return [finding.where for finding in agreement.examine(NumpyOracle(), "importance_log_mean", cases, seed, 33)]

    cases = CASES[np.float64]
    assert shown(5) == shown(5)
    assert shown(5) != shown(6)
