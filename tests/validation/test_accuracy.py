"""The judge passes the real implementations, sees what it should see, and hides nothing behind its yardstick."""

import inspect
from functools import partial

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis.extra.numpy import from_dtype

import reference.smoothing
from dvaepp.errors import ConfigError
from reference.smoothing import OverlappingExponential, Smoothing
from validation import accuracy, subjects
from validation.accuracy import (
    EXPONENTIAL,
    FORWARD,
    OUTPUTS,
    POSTERIOR,
    REFERENCE,
    At,
    Judge,
    Question,
    backend_inverse_cdf,
    error_map,
    estimates,
    forward_errors,
    inverse_truth,
    mixed_errors,
    parse_at,
    perform,
    questions,
    reference_forward,
    reference_inverse_cdf,
    tasks,
)
from validation.cases import Cases, all_cases, edge_cases, random_cases, zeta_cases
from validation.rows import ALL_KINDS, ErrorMap, Finding, Request, Status, Subject, Task, rows_of
from validation.tolerances import TRANSFORM_EXCEPTIONS, TRANSFORM_MIXED_ERROR
from validation.truth import KINDS, MixtureTruth

DTYPES = [np.float32, np.float64]
TWINS = ("torch", "torch-number")

IMPLEMENTATIONS = {"reference": reference_inverse_cdf} | {
    name: partial(backend_inverse_cdf, subjects.backend(name), EXPONENTIAL) for name in TWINS
}


def judge(outputs, cases):
    return {
        name: worst.mixed_error for name, worst in mixed_errors(outputs, cases.rho, cases.logit_q, cases.beta).items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_keeps_the_bound(name, dtype):
    # The truth costs milliseconds a point and is cached from one name to the next; ``python -m validation`` takes more.
    thinning = 1 if dtype == np.float64 else 3  # float32 results are float64 results rounded
    cases = edge_cases(dtype)[::thinning] + random_cases(600, dtype, seed=0)
    result = IMPLEMENTATIONS[name](cases.rho, cases.logit_q, cases.beta)
    assert ("dzeta_dbeta" in result) == (name != "torch-number")  # which has nothing to differentiate by
    assert all(output.dtype == dtype for output in result.values())
    for worst in mixed_errors(result, cases.rho, cases.logit_q, cases.beta).values():
        assert worst.mixed_error <= TRANSFORM_MIXED_ERROR, str(worst)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", REFERENCE)
def test_every_kind_keeps_the_bound_in_all_it_offers(kind, dtype):
    # ``python -m validation kinds`` takes twice as many points.
    thinning = 7 if dtype == np.float64 else 37
    cases = all_cases(700, dtype, seed=2)[::thinning]
    result = reference_inverse_cdf(cases.rho, cases.logit_q, cases.beta, kind)
    worst = list(mixed_errors(result, cases.rho, cases.logit_q, cases.beta, kind).values())
    at = zeta_cases(cases, dtype, seed=3, unit_interval=REFERENCE[kind].unit_interval)
    forward = reference_forward(at.rho, at.logit_q, at.beta, kind)
    assert set(forward) == {
        name for name in FORWARD if isinstance(KINDS[kind], MixtureTruth) or name in ("log_prob", "cdf")
    }
    worst += forward_errors(forward, at.rho, at.logit_q, at.beta, kind).values()
    assert all(output.dtype == dtype for output in (*result.values(), *forward.values()))
    for case in worst:
        assert case.mixed_error <= TRANSFORM_MIXED_ERROR, str(case)


def test_every_kind_is_judged():
    exported = {getattr(reference.smoothing, name) for name in reference.smoothing.__all__}
    kinds = {kind for kind in exported if issubclass(kind, Smoothing) and not inspect.isabstract(kind)}
    assert set(REFERENCE.values()) == kinds
    assert set(REFERENCE) == set(KINDS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_point_hypothesis_finds_keeps_the_bound(dtype):
    def numbers(low, high):
        return from_dtype(np.dtype(dtype), min_value=float(dtype(low)), max_value=float(dtype(high)), allow_nan=False)

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(numbers(0, 1), numbers(-800, 800), numbers(0.015625, 1e3))
    @example(dtype(0.5), dtype(0), dtype(1000))
    def holds(rho, logit_q, beta):
        point = Cases(*(np.array([x], dtype=dtype) for x in (rho, logit_q, beta)))
        for name in ("reference", "torch"):
            result = IMPLEMENTATIONS[name](point.rho, point.logit_q, point.beta)
            for worst in mixed_errors(result, point.rho, point.logit_q, point.beta).values():
                assert worst.mixed_error <= TRANSFORM_MIXED_ERROR, f"{name}: {worst}"

    holds()


# ---- the first-order yardstick, by itself: eps (|g| + |rho dg/drho| + |l dg/dl|) -------------------------------------


def zeta_by_root_finding(rho, logit_q, beta):
    """Solve F(zeta) = rho from the CDFs themselves (no quadratic): bisection, then Newton's method."""
    q, d = 1 / (1 + mpmath.exp(-logit_q)), mpmath.exp(-beta)

    def excess_and_density(x):
        m, w = mpmath.exp(-beta * x), mpmath.exp(beta * (x - 1))
        excess = ((1 - q) * (1 - m) + q * (w - d)) / (1 - d) - rho
        return excess, beta * ((1 - q) * m + q * w) / (1 - d)

    low, high = mpmath.mpf(0), mpmath.mpf(1)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if excess_and_density(middle)[0] < 0 else (low, middle)
    for _ in range(4):  # from an error of 1e-15 to below 1e-90
        excess, density = excess_and_density(low)
        low -= excess / density
    return low


def first_order_yardstick(rho, logit_q, beta, eps):
    """Each output with its own first-order mixed error scale, all derivatives by central differences of the root."""
    step = mpmath.mpf(10) ** -25
    point = [mpmath.mpf(rho), mpmath.mpf(logit_q), mpmath.mpf(beta)]

    def zeta(*moves):
        return zeta_by_root_finding(*(x + m * step for x, m in zip(point, moves, strict=True)))

    def first(i, *at):
        up, down = list(at), list(at)
        up[i] += 1
        down[i] -= 1
        return (zeta(*up) - zeta(*down)) / (2 * step)

    def second(i, j):
        up, down = [0, 0, 0], [0, 0, 0]
        up[j], down[j] = 1, -1
        return (first(i, *up) - first(i, *down)) / (2 * step)

    sizes = (abs(point[0]), abs(point[1]))
    result = {}
    for name, i in zip(OUTPUTS, (None, 1, 0, 2), strict=True):
        value = zeta(0, 0, 0) if i is None else first(i, 0, 0, 0)
        slopes = [first(j, 0, 0, 0) if i is None else second(i, j) for j in (0, 1)]
        scale = abs(value) + sum(size * abs(slope) for size, slope in zip(sizes, slopes, strict=True))
        result[name] = (value, eps * scale)
    return result


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_order_yardstick_is_kept_at_plain_points(dtype):
    # The judge moves the inputs literally by one rounding; at plain points that must not be more lenient than the
    # first-order measure, which is evaluated here by root finding and differences alone.
    rng = np.random.default_rng(5)
    n = 8
    rho = rng.uniform(0, 1, n).astype(dtype)
    logit_q = np.where(np.arange(n) % 3, rng.normal(0, 3, n), rng.uniform(-150, 150, n)).astype(dtype)
    beta = np.exp(rng.uniform(np.log(0.01), np.log(316), n)).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    results = {name: IMPLEMENTATIONS[name](rho, logit_q, beta) for name in ("reference", "torch")}
    with mpmath.workdps(90):
        for i in range(n):
            point = (float(rho[i]), float(logit_q[i]), float(beta[i]))
            truth = first_order_yardstick(*point, eps)
            for output, (expected, scale) in truth.items():
                floor = float(np.finfo(dtype).smallest_subnormal) + mpmath.mpf(10) ** -35
                for name, result in results.items():
                    error = abs(mpmath.mpf(float(result[output][i])) - expected) / (scale + floor)
                    assert error <= TRANSFORM_MIXED_ERROR, (name, output, point)
            for output, (expected, change) in inverse_truth(EXPONENTIAL, *point, eps).items():
                assert abs(expected - truth[output][0]) <= mpmath.mpf(10) ** -30 * (1 + abs(expected)), (output, point)
                literal = eps * abs(expected) + change
                assert literal <= 1.5 * truth[output][1] + mpmath.mpf(10) ** -35, (output, point)


# ---- power: what the judge must see ----------------------------------------------------------------------------------


def naive(rho, logit_q, beta):
    """Eq. (3) as the paper prints it, in the dtype of its inputs."""
    with np.errstate(all="ignore"):
        q = 1 / (1 + np.exp(-logit_q))
        b = (rho + np.exp(-beta) * (q - rho)) / (1 - q) - 1
        c = -(q * np.exp(-beta)) / (1 - q)
        return {"zeta": -np.log((-b + np.sqrt(b * b - 4 * c)) / 2) / beta}


def plain_cases(dtype, n=100):
    rng = np.random.default_rng(3)
    logit_q = rng.normal(size=n) * (np.arange(n) % 2)
    return Cases(*(x.astype(dtype) for x in (rng.uniform(0.05, 0.95, n), logit_q, rng.uniform(2, 20, n))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_naive_form_is_caught(dtype):
    cases = random_cases(60, dtype, seed=2)
    assert judge(naive(cases.rho, cases.logit_q, cases.beta), cases)["zeta"] == np.inf
    plain = plain_cases(np.float64)  # no strawman: the same formula is right where it does not cancel
    right = reference_inverse_cdf(plain.rho, plain.logit_q, plain.beta)["zeta"]
    np.testing.assert_allclose(naive(plain.rho, plain.logit_q, plain.beta)["zeta"], right, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "mistake",
    [
        lambda rho, logit_q, beta: reference_inverse_cdf(rho, logit_q, beta / 2),
        lambda rho, logit_q, beta: reference_inverse_cdf(rho, -logit_q, beta),
        lambda rho, logit_q, beta: reference_inverse_cdf(1 - rho, logit_q, beta),
    ],
    ids=["half of beta", "sign of the logit", "mirrored noise"],
)
def test_a_wrong_argument_is_caught_in_every_output(mistake, dtype):
    cases = plain_cases(dtype)
    assert min(judge(mistake(cases.rho, cases.logit_q, cases.beta), cases).values()) > 100


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_small_and_large_mistakes_of_one_output_are_caught(output, dtype):
    cases = plain_cases(dtype)
    right = reference_inverse_cdf(cases.rho, cases.logit_q, cases.beta)
    # 1e-6 is 8 roundings of a float32, and less where the result is ill-conditioned: hence the worst of many points.
    for factor in (dtype(1 + 1e-6), dtype(-1), dtype(np.nan), dtype(np.inf)):
        errors = judge({**right, output: right[output] * factor}, cases)
        assert errors.pop(output) > TRANSFORM_MIXED_ERROR, factor
        assert max(errors.values()) <= TRANSFORM_MIXED_ERROR


@pytest.mark.parametrize("rho", [1e-310, 1e-200, 1e-61])
def test_the_truth_has_digits_for_tiny_noise(rho):
    # Near zero zeta = rho / f(0), with f(0) = beta (p + q d)/(1 - d); the next term is smaller by rho.
    q, d = 1 / (1 + np.exp(-0.7)), np.exp(-3.0)
    value, _ = inverse_truth(EXPONENTIAL, rho, 0.7, 3.0, 2.0**-52)["zeta"]
    assert float(value / mpmath.mpf(rho)) == pytest.approx((1 - d) / (3 * (1 - q + q * d)), rel=1e-14)


def test_zero_noise_has_an_exact_truth():
    assert inverse_truth(EXPONENTIAL, 0.0, -1e-8, 90.0, 2.0**-52)["zeta"] == (0, 0)


# ---- cases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_are_seeded_and_lie_in_the_domain(dtype):
    cases = all_cases(500, dtype, seed=4)
    again, other = all_cases(500, dtype, seed=4), all_cases(500, dtype, seed=5)
    assert len(cases) == len(edge_cases(dtype)) + 500
    for name in ("rho", "logit_q", "beta"):
        values = getattr(cases, name)
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, getattr(again, name))
        assert not np.array_equal(values, getattr(other, name))
    assert cases.rho.min() == 0
    assert cases.rho.max() == 1
    assert np.isinf(cases.logit_q).any()
    assert cases.beta.min() >= dtype(0.01)
    assert cases.beta.max() <= dtype(1000)


def test_the_judge_takes_the_reference_as_it_is():
    cases = plain_cases(np.float64)
    result = OverlappingExponential(cases.beta).inverse_cdf_with_derivatives(cases.rho, cases.logit_q)
    assert set(judge(result, cases)) == set(OUTPUTS)


# ---- the check ------------------------------------------------------------------------------------------------------


def test_there_is_a_task_for_each_operation_kind_and_dtype_that_is_wanted():
    of_reference = tasks(subjects.BUILT_IN["reference"], Request())
    assert len(of_reference) == len(set(of_reference)) == 2 * 7 * 2
    assert {task.kind for task in of_reference} == set(ALL_KINDS)
    assert {task.operation for task in of_reference} == {"inverse_cdf", "forward"}
    some = tasks(
        subjects.BUILT_IN["reference"], Request(kinds=("power",), dtypes=("float32",), operations=("forward",))
    )
    assert [(task.operation, task.kind, task.dtype) for task in some] == [("forward", "power", "float32")]
    assert {task.operation for task in tasks(subjects.BUILT_IN["torch"], Request())} == {"inverse_cdf", "forward"}
    assert {task.operation for task in tasks(subjects.BUILT_IN["torch-number"], Request())} == {"inverse_cdf"}
    one_kind = Subject("theirs", frozenset({"inverse_cdf", "gibbs"}), ("logistic",))
    assert [(t.operation, t.kind, t.seed, t.quick) for t in tasks(one_kind, Request(seed=3, quick=True))] == [
        ("inverse_cdf", "logistic", 3, True)
    ] * 2
    assert tasks(Subject("theirs", frozenset({"gibbs"})), Request()) == []


def test_an_input_goes_to_the_operation_that_takes_it():
    reference = subjects.BUILT_IN["reference"]
    at = "zeta=1.5, logit_q=0, beta=3"
    assert {(task.operation, task.kind) for task in tasks(reference, Request(at=at))} == {
        ("forward", "gaussian"),
        ("forward", "logistic"),
    }
    assert {task.operation for task in tasks(reference, Request(at="rho=0.5, logit_q=0, beta=3"))} == {"inverse_cdf"}
    with pytest.raises(ConfigError, match=r"^--at: zeta must lie in \[0, 1\] for power; got 1.5$"):
        tasks(reference, Request(at=at, kinds=("power",)))


def test_an_input_is_read_as_it_is_written():
    assert parse_at("rho=0.25, logit_q=-3.0, beta=8.0") == At("rho", 0.25, -3.0, 8.0)
    assert parse_at(" beta = 1e3,zeta=-inf , logit_q=inf") == At("zeta", -np.inf, np.inf, 1000.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown input ''"),
        ("rho=0.5, logit=0, beta=3", "unknown input 'logit'; did you mean 'logit_q'"),
        ("rho=half, logit_q=0, beta=3", "rho must be a number; got 'half'"),
        ("rho=0.5, logit_q=nan, beta=3", "logit_q must be a number; got 'nan'"),
        ("rho, logit_q=0, beta=3", "rho must be a number; got ''"),
        ("rho=0.5, logit_q=0", "beta is missing"),
        ("logit_q=0, beta=3", "rho or zeta is missing"),
        ("rho=0.5, zeta=0.5, logit_q=0, beta=3", "rho and zeta are given"),
        ("rho=0.5, rho=0.5, logit_q=0, beta=3", "rho is given twice"),
        ("rho=1.5, logit_q=0, beta=3", r"rho must lie in \[0, 1\]; got 1.5"),
        ("rho=0.5, logit_q=0, beta=0", "beta must be positive and finite; got 0.0"),
        ("rho=0.5, logit_q=0, beta=inf", "beta must be positive and finite; got inf"),
    ],
)
def test_a_bad_input_is_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_at(text)
    assert str(error.value).startswith("--at: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "operation", "dtype", "outputs"),
    [
        ("reference", "inverse_cdf", "float32", OUTPUTS),
        ("reference", "inverse_cdf", "float64", OUTPUTS),
        ("reference", "forward", "float64", FORWARD),
        ("torch", "inverse_cdf", "float64", OUTPUTS),
        ("torch", "forward", "float32", POSTERIOR),
        ("torch", "forward", "float64", POSTERIOR),
        ("torch-number", "inverse_cdf", "float64", (*OUTPUTS[:3], *POSTERIOR)),
        ("numpy_oracle", "inverse_cdf", "float32", (*OUTPUTS, *POSTERIOR)),
    ],
)
def test_the_search_finds_nothing_wrong_and_its_worst_can_be_replayed(name, operation, dtype, outputs):
    task = Task("accuracy", name, operation, EXPONENTIAL, dtype, quick=True)
    found = list(perform(task))
    assert tuple(finding.output for finding in found) == outputs
    assert all(row.status is Status.HOLDS for row in rows_of(task, found))
    for finding in found[:: len(found) - 1]:
        again = {f.output: f for f in perform(Task("accuracy", name, operation, EXPONENTIAL, dtype, at=finding.at))}
        assert set(again) == set(outputs)
        replayed = again[finding.output]
        assert (replayed.error, replayed.got, replayed.expected, replayed.at) == (
            finding.error,
            finding.got,
            finding.expected,
            finding.at,
        )


def test_exceptions_are_for_those_they_name_and_in_float64_alone():
    for (name, kind, output), bound in TRANSFORM_EXCEPTIONS.items():
        operation = "forward" if output in FORWARD else "inverse_cdf"
        (first, *_) = questions(Task("accuracy", name, operation, kind, "float64"))
        assert first.bounds == {output: bound}
        (first, *_) = questions(Task("accuracy", name, operation, kind, "float32"))
        assert first.bounds == {}
    assert questions(Task("accuracy", "numpy_oracle", "inverse_cdf", EXPONENTIAL, "float64"))[0].bounds == {}


def test_a_rounding_of_beta_is_excused_for_log_densities_alone():
    # The middle for l = 0: neither zeta nor the logit moves the log-density.
    at = "zeta=0.49984931929796755, logit_q=0.0, beta=3.1000048105613836"
    found = {f.output: f for f in perform(Task("accuracy", "reference", "forward", EXPONENTIAL, "float64", at=at))}
    strict = forward_errors(
        reference_forward(*(np.array([x]) for x in (0.49984931929796755, 0.0, 3.1000048105613836)), EXPONENTIAL),
        *(np.array([x]) for x in (0.49984931929796755, 0.0, 3.1000048105613836)),
        EXPONENTIAL,
    )
    assert {name for name in FORWARD if found[name].error != strict[name].mixed_error} == {"log_prob"}
    assert found["log_prob"].error < TRANSFORM_MIXED_ERROR < strict["log_prob"].mixed_error
    assert "beta" in found["log_prob"].unit
    (single, *_) = questions(Task("accuracy", "reference", "forward", EXPONENTIAL, "float32"))
    assert single.rounds_beta == frozenset()


def test_what_is_found_depends_on_the_seed_alone():
    task = Task("accuracy", "reference", "inverse_cdf", "concrete", "float64", quick=True)
    assert list(perform(task)) == list(perform(task))
    assert list(perform(task)) != list(
        perform(Task(*("accuracy", "reference", "inverse_cdf", "concrete", "float64", 1, True)))
    )


class OffTheMark:
    """A question about the reference with one output changed."""

    def __init__(self, output, change):
        self.output, self.change = output, change

    def __call__(self, rho, logit_q, beta):
        right = reference_inverse_cdf(rho, logit_q, beta)
        return {**right, self.output: self.change(right[self.output])}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_the_stand_in_sees_what_the_judge_sees(output, dtype):
    cases = plain_cases(dtype)
    subject = OffTheMark(output, lambda values: values * dtype(1 + 100 * np.finfo(dtype).eps))
    question = Question(EXPONENTIAL, "rho", OUTPUTS, subject, reference_inverse_cdf)
    estimated, judged = estimates(question, cases), Judge(question)(cases, "here")
    for name in OUTPUTS:
        assert (estimated[name].max() > 2 * TRANSFORM_MIXED_ERROR) == (name == output)
        # In float64 the definition is off by its own roundings.
        np.testing.assert_allclose(estimated[name], judged[name], rtol=0.02, atol=2.5 if dtype == np.float64 else 0.02)


def test_a_posterior_is_judged_at_the_zeta_that_was_returned():
    def shifted(rho, logit_q, beta):
        """A wrong zeta, and the posterior that belongs to it."""
        zeta = np.clip(reference_inverse_cdf(rho, logit_q, beta)["zeta"] * 0.9, 0, 1)
        return {"zeta": zeta} | accuracy.reference_posterior(zeta, logit_q, beta, EXPONENTIAL)

    posterior = partial(accuracy.reference_posterior, kind=EXPONENTIAL)
    question = Question(EXPONENTIAL, "rho", POSTERIOR, shifted, posterior)
    cases = plain_cases(np.float64, 20)
    judge = Judge(question)
    assert max(errors.max() for errors in judge(cases, "here").values()) <= TRANSFORM_MIXED_ERROR
    assert max(errors.max() for errors in estimates(question, cases).values()) <= TRANSFORM_MIXED_ERROR
    for finding in judge.findings():
        assert "rho=" in finding.at
        assert "zeta=" in finding.where


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.5])
def test_a_posterior_of_no_zeta_is_infinitely_wrong(wrong):
    def outside(rho, logit_q, beta):
        zeta = reference_inverse_cdf(rho, logit_q, beta)["zeta"]
        right = accuracy.reference_posterior(zeta, logit_q, beta, EXPONENTIAL)
        return {"zeta": np.full_like(zeta, wrong)} | right

    posterior = partial(accuracy.reference_posterior, kind=EXPONENTIAL)
    question = Question(EXPONENTIAL, "rho", POSTERIOR, outside, posterior)
    cases = plain_cases(np.float64, 3)
    for errors in (*estimates(question, cases).values(), *Judge(question)(cases, "here").values()):
        assert (errors == np.inf).all()


def test_what_a_backend_lacks_is_not_asked_of_it():
    asked = {name: questions(Task("accuracy", name, "inverse_cdf", EXPONENTIAL)) for name in ("numpy_oracle", *TWINS)}
    assert {name: [question.outputs for question in one] for name, one in asked.items()} == {
        "numpy_oracle": [OUTPUTS, POSTERIOR],
        "torch": [OUTPUTS],
        "torch-number": [OUTPUTS[:3], POSTERIOR],
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_map_shows_where_the_errors_are(dtype):
    def wrong_above(rho, logit_q, beta):
        right = reference_inverse_cdf(rho, logit_q, beta)
        return {**right, "zeta": np.where(logit_q > 5, right["zeta"] * rho.dtype.type(0.999), right["zeta"])}

    question = Question(EXPONENTIAL, "rho", OUTPUTS, wrong_above, reference_inverse_cdf)
    one = error_map("theirs", question, np.dtype(dtype), 8.0)
    error, logit_q = np.array(one.error), np.array(one.logit_q)
    assert error.shape == (len(one.logit_q), len(one.rho))
    assert list(one.logit_q) == sorted(one.logit_q)
    assert list(one.rho) == sorted(one.rho)
    assert error[logit_q <= 5].max() <= one.bound < error[logit_q > 5].max()


def test_maps_come_with_the_findings_where_they_are_wanted(monkeypatch):
    monkeypatch.setattr(accuracy, "_MAP_SIZE", {"float32": 3})
    found = list(perform(Task("accuracy", "reference", "inverse_cdf", EXPONENTIAL, "float32", quick=True, maps=True)))
    assert [type(one) for one in found] == [Finding] * len(OUTPUTS) + [ErrorMap] * 3
