"""The CPU's transforms: against multi-precision arithmetic, against the reference, and for every shape of argument."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference.smoothing
from accelerated import load, scalar
from accelerated.cpu.transforms import Transforms
from accelerated.protocol import EXTRAS, KINDS, LogMean, Machine, Smoothed
from accelerated.scalar import single
from reference.bound import StreamingLogMeanExp
from reference.vocabulary import DomainError, ShapeError
from validation.accuracy import forward_errors, mixed_errors
from validation.cases import Cases, edge_cases, random_cases
from validation.tolerances import TRANSFORM_MIXED_ERROR

DTYPES = (np.float32, np.float64)
ORACLE = load("numpy_oracle")

#: (rho, logit_q, beta) at which dzeta_dbeta was 5 to 15 roundings off, in one kernel or another, found by search: what
#: is left of it there are a few roundings of large terms, and no rounding of an input excuses them.
HARD_FOR_DBETA = {
    "logistic": (
        (0.5835917040110499, 6.773387027929407e-07, 3.743421377260845),
        (0.3684052470831309, 0.1889097564908356, 3.962246318418404),
        (0.3747700408907022, 0.17813972497126015, 3.6501100865930893),
        (0.4125723414152801, -1.238386154895674e-10, 3.6538899287869966),
        (0.2251361598070919, 0.8496327119772908, 4.90714042615045),
    ),
    "exponential": (
        (1.1281673417773343e-13, 11.63574748985349, 2.858298454093503),
        (2.3203661000743103e-14, 40.29438824020576, 2.7179494177263215),
        (0.09684837177986681, 13.050092745093364, 2.430018684254346),
        (0.42510486803244546, 1.179030065434715e-08, 5.853505584421013),
        (0.42882456738812813, 1.1796472670212662e-08, 5.956111509241309),
    ),
}


class OnCpu(Transforms):
    """The transforms alone, without the samplers."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads


@pytest.fixture(scope="module")
def backend() -> OnCpu:
    return OnCpu(n_threads=2)


def outputs(
    backend: OnCpu, kind: str, cases: Cases, extras: Collection[str] = EXTRAS
) -> dict[str, NDArray[np.floating]]:
    """All outputs for cases of many sharpnesses: one call for each."""
    found = {name: np.empty_like(cases.rho) for name in ("zeta", *extras)}
    for beta in np.unique(cases.beta):
        same = cases.beta == beta
        result = backend.inverse_cdf(kind, cases.rho[same], cases.logit_q[same], float(beta), extras)
        for name, values in found.items():
            values[same] = getattr(result, name)
    return found


def assert_accurate(kind: str, cases: Cases, found: dict[str, NDArray[np.floating]]) -> None:
    forward = {name: found[name] for name in ("log_ratio", "nu") if name in found}
    inverse = {name: values for name, values in found.items() if name not in forward}
    worst = list(mixed_errors(inverse, cases.rho, cases.logit_q, cases.beta, kind).values())
    if forward:
        worst += forward_errors(forward, found["zeta"], cases.logit_q, cases.beta, kind).values()
    for case in worst:
        assert case.mixed_error <= TRANSFORM_MIXED_ERROR, f"{kind}: {case}"


# ---- accuracy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_output_is_within_the_mixed_error_of_the_truth(backend: OnCpu, kind: str, dtype: type) -> None:
    cases = edge_cases(dtype)[::47] + random_cases(40, dtype, seed=41)
    assert_accurate(kind, cases, outputs(backend, kind, cases))


@pytest.mark.parametrize("kind", HARD_FOR_DBETA)
def test_the_derivative_by_the_sharpness_keeps_its_digits_where_little_is_left_of_it(backend: OnCpu, kind: str) -> None:
    cases = Cases(*np.array(HARD_FOR_DBETA[kind]).T)
    assert_accurate(kind, cases, outputs(backend, kind, cases))


def test_float32_vectors_are_within_the_mixed_error_of_the_truth(backend: OnCpu) -> None:
    """Without dzeta_dbeta the exponential kind takes another way in float32."""
    cases = edge_cases(np.float32)[::13] + random_cases(100, np.float32, seed=42)
    extras = [name for name in EXTRAS if name != "dzeta_dbeta"]
    assert_accurate("exponential", cases, outputs(backend, "exponential", cases, extras))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.3, 5.0, 31.0])
def test_ten_thousand_draws_agree_with_the_reference(backend: OnCpu, kind: str, dtype: type, beta: float) -> None:
    """Two results within 4 of the truth are within 8 of each other; the change is that of the reference itself."""
    n = 10_000 if kind != "power" else 2_000
    rng = np.random.default_rng(5)
    rho, logit_q = rng.random(n).astype(dtype), (4 * rng.standard_normal(n)).astype(dtype)
    smoothing = scalar_reference(kind, beta, dtype)
    eps, r, logit = float(np.finfo(dtype).eps), rho.astype(np.float64), logit_q.astype(np.float64)
    derivatives = ("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta")
    here, *moved = (
        smoothing.inverse_cdf_with_derivatives(x, y)
        for x, y in (
            (r, logit),
            (r * (1 - eps), logit),
            (np.minimum(r * (1 + eps), 1), logit),
            (r, logit * (1 - eps)),
            (r, logit * (1 + eps)),
        )
    )
    for extras in (EXTRAS, ("dzeta_dlogit_q", "dzeta_drho")):
        result = backend.inverse_cdf(kind, rho, logit_q, beta, extras)
        for name in derivatives:
            got, expected = getattr(result, name), getattr(here, name)
            if got is None:
                continue
            changes = [np.abs(getattr(one, name) - expected) for one in moved]
            change = np.maximum(changes[0], changes[1]) + np.maximum(changes[2], changes[3])
            bound = 2 * TRANSFORM_MIXED_ERROR * (eps * np.abs(expected) + change + np.finfo(dtype).smallest_subnormal)
            assert (np.abs(got - expected) <= bound).all(), name


def scalar_reference(kind: str, beta: float, dtype: type) -> reference.smoothing.Smoothing:
    kinds = {
        "exponential": reference.smoothing.OverlappingExponential,
        "logistic": reference.smoothing.OverlappingLogistic,
        "spike_exponential": reference.smoothing.SpikeExponential,
        "power": reference.smoothing.PowerFunction,
    }
    return kinds[kind](float(dtype(beta)))


@pytest.mark.parametrize("kind", KINDS)
def test_scalar_functions_run_uncompiled_everywhere(backend: OnCpu, kind: str) -> None:
    cases = edge_cases(np.float64)[::5] + random_cases(100, np.float64, seed=3)
    compiled = outputs(backend, kind, cases)
    points = np.stack((cases.rho, cases.logit_q, cases.beta), axis=1).tolist()
    for i, (rho, logit_q, beta) in enumerate(points):
        sharpness = scalar.sharpness(kind, beta)
        plain = scalar.INVERSE_CDF[kind](rho, logit_q, sharpness, True)
        np.testing.assert_allclose(compiled["zeta"][i], plain[0], rtol=1e-13)
        if not math.isinf(logit_q):
            nu = scalar.NU[kind](float(compiled["zeta"][i]), logit_q, sharpness)
            np.testing.assert_allclose(compiled["nu"][i], nu, rtol=1e-13)
        ratio = scalar.LOG_RATIO[kind](float(compiled["zeta"][i]), sharpness)
        np.testing.assert_allclose(compiled["log_ratio"][i], ratio, rtol=1e-13)


@given(st.floats(-700, 700))
def test_the_vectors_exponential_and_logarithm_are_those_of_math(x: float) -> None:
    assert single.decay(x) == pytest.approx(math.exp(x), rel=3e-10)
    b = math.exp(x / 2)
    for quotient in (1e-9, 0.3, 0.7, 0.75, 1, 1.4, 3):
        found = single.minus_log(quotient * b, b, b * (1 - quotient) if quotient <= 1 else b)
        assert found == pytest.approx(-math.log(quotient), rel=2e-10, abs=1e-12 if quotient == 1 else 0)
    assert single.minus_log(b * (1 - 1e-12), b, b * 1e-12) == pytest.approx(1e-12, rel=2e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extras", [EXTRAS, ("dzeta_dlogit_q", "dzeta_drho", "log_ratio", "nu")])
def test_nan_and_what_is_outside_the_domain_give_nan(
    backend: OnCpu, kind: str, dtype: type, extras: tuple[str, ...]
) -> None:
    rho = np.array([0.5, np.nan, -0.1, 1.5, np.inf, 0.5, -1e-30, 0.25], dtype)
    logit_q = np.array([np.nan, 1, 1, -1, 0, np.nan, 2, 0.5], dtype)
    for beta in (5.0, 50.0):
        result = backend.inverse_cdf(kind, rho, logit_q, beta, extras)
        for name in ("zeta", *extras):
            values = getattr(result, name)
            assert np.isnan(values).tolist() == [True] * 7 + [False], name


def test_extreme_sharpness_is_the_references(backend: OnCpu) -> None:
    """Beyond the range of the vector code, on both sides."""
    rng = np.random.default_rng(8)
    rho, logit_q = rng.random(500).astype(np.float32), rng.standard_normal(500).astype(np.float32)
    for beta in (1e-30, 1e-8, 2e3, 1e30):
        got, expected = (b.inverse_cdf("exponential", rho, logit_q, beta, ()) for b in (backend, ORACLE))
        np.testing.assert_allclose(got.zeta, expected.zeta, rtol=3e-7)


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 3, 17, 255, 257, 1000])
def test_a_result_does_not_depend_on_its_place(backend: OnCpu, kind: str, dtype: type, n: int) -> None:
    rng = np.random.default_rng(n)
    rho, logit_q = rng.random(n).astype(dtype), (3 * rng.standard_normal(n)).astype(dtype)
    whole = backend.inverse_cdf(kind, rho, logit_q, 7.0, EXTRAS[:2])
    for i in range(0, n, max(1, n // 3)):
        one = backend.inverse_cdf(kind, rho[i : i + 1], logit_q[i : i + 1], 7.0, EXTRAS[:2])
        for name in ("zeta", *EXTRAS[:2]):
            assert getattr(one, name)[0] == getattr(whole, name)[i]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
def test_a_result_does_not_depend_on_the_threads(backend: OnCpu, n_threads: int) -> None:
    rng = np.random.default_rng(0)
    rho, logit_q = rng.random((33, 1001), np.float32), rng.standard_normal((33, 1001)).astype(np.float32)
    some = OnCpu(n_threads)
    for kind in ("exponential", "spike_exponential"):
        got, expected = (b.inverse_cdf(kind, rho, logit_q, 4.0) for b in (some, backend))
        assert (got.zeta == expected.zeta).all()
        assert (got.dzeta_dlogit_q == expected.dzeta_dlogit_q).all()
    got_entropy, expected_entropy = some.entropy(logit_q), backend.entropy(logit_q)
    assert (got_entropy.value == expected_entropy.value).all()
    got_mean, expected_mean = (b.importance_log_mean(100 * logit_q).value for b in (some, backend))
    assert (got_mean == expected_mean).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_strides_are_read_and_out_is_written(backend: OnCpu, dtype: type) -> None:
    rng = np.random.default_rng(1)
    rho, logit_q = rng.random((40, 30)).astype(dtype)[::2, ::-3], rng.standard_normal((10, 20)).astype(dtype).T
    expected = backend.inverse_cdf("exponential", rho.copy(), np.ascontiguousarray(logit_q), 3.0, ("nu",))
    out = Smoothed(zeta=np.empty((20, 10), dtype), nu=np.empty((20, 10), dtype))
    result = backend.inverse_cdf("exponential", rho, logit_q, 3.0, ("nu",), out)
    assert result.zeta is out.zeta
    assert result.nu is out.nu
    assert result.dzeta_dlogit_q is None
    np.testing.assert_array_equal(out.zeta, expected.zeta)
    np.testing.assert_array_equal(out.nu, expected.nu)


def test_what_does_not_fit_is_refused(backend: OnCpu) -> None:
    rho = np.full((2, 3), 0.5)
    with pytest.raises(DomainError, match="kind"):
        backend.inverse_cdf("cubic", rho, rho, 1.0)
    with pytest.raises(DomainError, match="beta"):
        backend.inverse_cdf("exponential", rho, rho, 0.0)
    with pytest.raises(TypeError, match="one dtype"):
        backend.inverse_cdf("exponential", rho, rho.astype(np.float32), 1.0)
    with pytest.raises(ShapeError, match="one shape"):
        backend.inverse_cdf("exponential", rho, rho[:1], 1.0)
    with pytest.raises(TypeError, match=r"out.zeta must be a NumPy array of float64"):
        backend.inverse_cdf("exponential", rho, rho, 1.0, (), Smoothed(np.empty((2, 3), np.float32)))
    with pytest.raises(TypeError, match=r"out.dzeta_dlogit_q must be a NumPy array"):
        backend.inverse_cdf("exponential", rho, rho, 1.0, out=Smoothed(np.empty((2, 3))))
    with pytest.raises(ShapeError, match=r"out.zeta"):
        backend.inverse_cdf("exponential", rho, rho, 1.0, (), Smoothed(np.empty((3, 2))))
    with pytest.raises(TypeError, match="C-contiguous"):
        backend.inverse_cdf("exponential", rho, rho, 1.0, (), Smoothed(np.empty((3, 2)).T))
    with pytest.raises(ShapeError, match="logit_q"):
        backend.entropy(rho[0])


# ---- entropy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 17), (5, 257), (100, 200), (2, 0)])
def test_entropy_is_the_oracles(backend: OnCpu, dtype: type, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    logit_q = (rng.standard_normal(shape) * 10 ** rng.uniform(-6, 3, shape)).astype(dtype)
    if logit_q.size > 2:
        logit_q.flat[:3] = np.inf, -np.inf, 0
    got, expected = backend.entropy(logit_q), ORACLE.entropy(logit_q)
    info = np.finfo(dtype)
    assert got.value.dtype == got.dvalue_dlogit_q.dtype == dtype
    # The oracle's sigmoid flushes what is below the normal numbers, the logit is up to 1000; sums are in another order.
    np.testing.assert_allclose(got.dvalue_dlogit_q, expected.dvalue_dlogit_q, rtol=4 * info.eps, atol=1000 * info.tiny)
    np.testing.assert_allclose(got.value, expected.value, rtol=(4 + shape[1]) * info.eps, atol=1000 * info.tiny)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_entropys_derivative_is_its_slope(backend: OnCpu, dtype: type) -> None:
    logit_q = np.random.default_rng(3).standard_normal((4, 9)).astype(dtype)
    slope = backend.entropy(logit_q).dvalue_dlogit_q
    h = 1e-5
    wide = logit_q.astype(np.float64)
    for i in range(9):
        up, down = wide.copy(), wide.copy()
        up[:, i] += h
        down[:, i] -= h
        difference = (backend.entropy(up).value - backend.entropy(down).value) / (2 * h)
        np.testing.assert_allclose(slope[:, i], difference, rtol=1e-5, atol=1e-7)


# ---- cross-entropy --------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([(1, 1, 2), (3, 3, 3), (3, 3, 2), (4, 2, 1), (5, 1, 3), (17, 13, 5), (2, 7, 9)]),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from(DTYPES),
)
def test_cross_entropy_and_its_gradients_are_the_oracles(
    sizes: tuple[int, int, int], n_rows: int, seed: int, dtype: type
) -> None:
    n1, n2, n_groups = sizes
    rng = np.random.default_rng(seed)
    rbm = Machine(*(rng.standard_normal(shape).astype(dtype) for shape in (n1, n2, (n1, n2))))
    mu, nu = rng.random((2, n_rows, n1 + n2)).astype(dtype)
    upstream = (3 * rng.standard_normal(n_rows)).astype(dtype)
    bound = 64 * np.finfo(dtype).eps * (n1 + n2)
    backend = OnCpu(1)
    got, expected = (b.cross_entropy(rbm, mu, nu, n_groups) for b in (backend, ORACLE))
    np.testing.assert_allclose(got, expected, rtol=bound, atol=bound)
    ours, theirs = (b.cross_entropy_gradients(rbm, mu, nu, n_groups, upstream) for b in (backend, ORACLE))
    for name, one, other in zip(ours._fields, ours, theirs, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound * (1 + n_rows), err_msg=name)


@pytest.mark.parametrize("sizes", [(4, 2, 1), (4, 2, 2), (3, 3, 3), (3, 3, 6)])
def test_cross_entropy_gradients_are_its_differences(backend: OnCpu, sizes: tuple[int, int, int]) -> None:
    """Multilinear in each number: a difference over any distance is the derivative."""
    n1, n2, n_groups = sizes
    rng = np.random.default_rng(4)
    arguments = {"a1": rng.random(n1), "a2": rng.random(n2), "W": rng.standard_normal((n1, n2))}
    arguments |= {"mu": rng.random((3, n1 + n2)), "nu": rng.random((3, n1 + n2))}
    upstream = np.array([0.5, -2.0, 3.0])

    def value(**changed: NDArray[np.float64]) -> float:
        a1, a2, W, mu, nu = (arguments | changed).values()
        return float(upstream @ backend.cross_entropy(Machine(a1, a2, W), mu, nu, n_groups))

    a1, a2, W, mu, nu = arguments.values()
    gradients = backend.cross_entropy_gradients(Machine(a1, a2, W), mu, nu, n_groups, upstream)
    for name, array in arguments.items():
        for index in np.ndindex(array.shape):
            moved = array.copy()
            moved[index] += 0.25
            difference = (value(**{name: moved}) - value()) / 0.25
            assert getattr(gradients, name)[index] == pytest.approx(difference, abs=1e-12), (name, index)


def test_cross_entropy_refuses_what_does_not_fit(backend: OnCpu) -> None:
    rbm = Machine(np.zeros(2), np.zeros(2), np.zeros((2, 2)))
    mu = np.full((3, 4), 0.5)
    with pytest.raises(DomainError, match="n_groups"):
        backend.cross_entropy(rbm, mu, mu, 3)
    with pytest.raises(ShapeError, match="rows"):
        backend.cross_entropy(rbm, mu, mu[:2], 2)
    with pytest.raises(ShapeError, match="upstream"):
        backend.cross_entropy_gradients(rbm, mu, mu, 2, np.ones(2))
    with pytest.raises(TypeError, match="upstream"):
        backend.cross_entropy_gradients(rbm, mu, mu, 2, np.ones(3, np.float32))


# ---- importance weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_weights", [1, 3, 256, 1000])
def test_log_mean_in_pieces_is_the_references(backend: OnCpu, dtype: type, n_weights: int) -> None:
    rng = np.random.default_rng(n_weights)
    w = (300 * rng.standard_normal((5, n_weights))).astype(dtype)
    w[0] = -np.inf
    w[1, ::2] = -np.inf
    whole = StreamingLogMeanExp(5)
    running: LogMean | None = None
    for piece in (w[:, : n_weights // 2], w[:, n_weights // 2 :]):
        if piece.shape[1]:
            running = backend.importance_log_mean(piece, running)
            whole.add(piece)
    assert running is not None
    assert running.n_weights == n_weights
    assert running.value.dtype == np.float64
    np.testing.assert_allclose(running.value, whole.result(), rtol=1e-14, atol=1e-13)
    oracle = ORACLE.importance_log_mean(w)
    np.testing.assert_array_equal(running.largest, oracle.largest)
    np.testing.assert_allclose(running.total, oracle.total, rtol=1e-13)


def test_log_mean_of_nan_is_nan_and_shapes_are_checked(backend: OnCpu) -> None:
    w = np.zeros((3, 4))
    w[1, 2] = np.nan
    value = backend.importance_log_mean(w).value
    np.testing.assert_array_equal(value, [0, np.nan, 0])
    with pytest.raises(ShapeError, match="running"):
        backend.importance_log_mean(w, LogMean(np.zeros(2), np.zeros(2), np.ones(2), 1))
    with pytest.raises(ShapeError, match="log_weights"):
        backend.importance_log_mean(w[0])
