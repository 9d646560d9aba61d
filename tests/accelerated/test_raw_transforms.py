"""The transforms in CUDA C++, without a device: their sources as host C++, and as machine code that is not run.

On a device ``test_agreement.py`` judges them like every backend's. What is judged here is what that cannot tell: that
the bound still holds when every library function errs as the device's may, and that the kernels are as lean as they
have to be.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

import accelerated
from accelerated import BackendUnavailable
from accelerated.cuda_raw import compile as cuda_compile
from accelerated.cuda_raw.transforms import Transforms, sharpness_constants
from accelerated.protocol import EXTRAS, KINDS, LogMean, Machine, Smoothed
from reference.vocabulary import DomainError, ShapeError
from tests.accelerated.emulator.cuda import EmulatedGpu, compiler
from tests.accelerated.test_transforms import HARD_FOR_DBETA
from validation import accuracy, agreement
from validation.cases import Cases, all_cases, random_cases
from validation.tolerances import TRANSFORM_MIXED_ERROR

DTYPES = [np.float32, np.float64]

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
kinds = pytest.mark.parametrize("kind", KINDS)
host_compiler = pytest.mark.skipif(compiler() is None, reason="no g++ to compile the kernels for the host")


class Emulated(Transforms):
    """The mixin on an emulated device, with what a judge needs of a backend."""

    name = "cupy_raw"
    device = "cuda"

    def __init__(self, n_multiprocessors=2, order=0):
        self.gpu = EmulatedGpu(n_multiprocessors, order=order)

    def asarray(self, array):
        return array

    to_numpy = asarray


# ---- accuracy --------------------------------------------------------------------------------------------------------

# Each library function, in float64, moved by as many units in the last place as CUDA's documentation allows it to be
# off ("CUDA Math API", accuracy of the double-precision functions), and the two float32 estimates by two. What the
# float32 formulas consist of beyond that is rounded alike everywhere.
_PERTURBED = """
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static uint64_t scrambled(uint64_t x) {
    x = (x ^ SEED) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 29) * 0xBF58476D1CE4E5B9u;
    return x ^ x >> 32;
}
static double moved(double result, double argument, int units) {
    if (!isfinite(result) || result == 0) return result;
    uint64_t hash;
    memcpy(&hash, &argument, 8);
    double there = result;
    for (int n = (int)(scrambled(hash) % (2 * units + 1)) - units; n; n -= n > 0 ? 1 : -1)
        there = nextafter(there, n > 0 ? INFINITY : -INFINITY);
    return isfinite(there) ? there : result;
}
static float moved_estimate(float argument, float estimate) {
    uint32_t hash;
    memcpy(&hash, &argument, 4);
    const int n = (int)(scrambled(hash) % 5) - 2;
    for (int i = 0; i < abs(n); ++i) estimate = nextafterf(estimate, n > 0 ? INFINITY : 0.0f);
    return estimate;
}
#define MOVED(name, units) \\
    static double moved_##name(double x) { return moved(name(x), x, units); }
MOVED(exp, 1) MOVED(log, 1) MOVED(log1p, 1) MOVED(expm1, 1) MOVED(exp2, 1) MOVED(atanh, 2)
static double moved_tanh(double x) { return fmin(fmax(moved(tanh(x), x, 1), -1), 1); }
#define exp moved_exp
#define log moved_log
#define log1p moved_log1p
#define expm1 moved_expm1
#define exp2 moved_exp2
#define atanh moved_atanh
#define tanh moved_tanh
#define OFF_BY(argument, estimate) moved_estimate(argument, estimate)
"""

_ELEMENTS = """
template <typename T, int KIND>
void elements(long n, const T* rho, const T* logit_q, const Sharpness* s, const Sharpness32* s32, T* out) {
    for (long i = 0; i < n; ++i) {
        const Sample<T> x = smooth<KIND, 31>(rho[i], logit_q[i], s[i], s32[i]);
        const T all[] = {x.zeta, x.dzeta_dlogit_q, x.dzeta_drho, x.dzeta_dbeta, x.log_ratio, x.nu};
        for (int j = 0; j < 6; ++j) out[j * n + i] = all[j];
    }
}
#define EXPORT(T, KIND) \\
    extern "C" void T##KIND(long n, const T* rho, const T* l, const Sharpness* s, const Sharpness32* s32, T* out) { \\
        elements<T, KIND>(n, rho, l, s, s32, out); \\
    }
EXPORT(float, 0) EXPORT(float, 1) EXPORT(float, 2) EXPORT(float, 3)
EXPORT(double, 0) EXPORT(double, 1) EXPORT(double, 2) EXPORT(double, 3)
"""


@pytest.fixture(scope="module", params=["as the host", "moved"])
def elements(request, tmp_path_factory):
    """One element of every kind in host C++, (kind, cases) -> outputs.

    Library functions as they are or moved. Nothing is fused but what is written so, as on the device.
    """
    if compiler() is None:
        pytest.skip("no g++ to compile the kernels for the host")
    folder = tmp_path_factory.mktemp("elements")
    head = "#define SEED 20181105u\n" + _PERTURBED if request.param == "moved" else ""
    (folder / "elements.cpp").write_text(head + cuda_compile.source("smoothing_kinds.cuh") + _ELEMENTS)
    options = ["-std=c++17", "-O2", "-shared", "-fPIC", "-w", "-ffp-contract=off"]
    subprocess.run([compiler(), *options, "elements.cpp", "-o", "elements.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "elements.so"))

    def run(kind, cases):
        dtype = cases.rho.dtype
        constants = [sharpness_constants(float(beta)) for beta in cases.beta]
        double, single = np.array([c[:7] for c in constants]), np.array([c[7:] for c in constants])
        out = np.empty((6, len(cases)), dtype)
        function = getattr(library, f"{'float' if dtype == np.float32 else 'double'}{KINDS.index(kind)}")
        arrays = [np.ascontiguousarray(array) for array in (cases.rho, cases.logit_q, double, single, out)]
        function(ctypes.c_long(len(cases)), *(array.ctypes.data_as(ctypes.c_void_p) for array in arrays))
        return dict(zip(("zeta", *EXTRAS), arrays[-1], strict=True))

    return run


def inverse_of(outputs):
    return {name: values for name, values in outputs.items() if name in accuracy.OUTPUTS}


@kinds
@dtypes
def test_mixed_error_against_the_truth(elements, kind, dtype):
    # The truth costs milliseconds a point, tens of them for the power function.
    cases = all_cases(400, dtype, seed=11)[:: 19 if kind != "power" else 97]
    worst = accuracy.mixed_errors(inverse_of(elements(kind, cases)), cases.rho, cases.logit_q, cases.beta, kind)
    for case in worst.values():
        assert case.mixed_error <= TRANSFORM_MIXED_ERROR, case


@pytest.mark.parametrize("kind", HARD_FOR_DBETA)
def test_the_derivative_by_the_sharpness_keeps_its_digits(elements, kind):
    cases = Cases(*np.array(HARD_FOR_DBETA[kind]).T)
    worst = accuracy.mixed_errors(inverse_of(elements(kind, cases)), cases.rho, cases.logit_q, cases.beta, kind)
    for case in worst.values():
        assert case.mixed_error <= TRANSFORM_MIXED_ERROR, case


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "power"])
def test_derivatives_between_the_modes(elements, kind):
    # At the rho next to p, where they change by orders of magnitude from one rho to the next.
    rng = np.random.default_rng(15)
    logit_q, beta = (3 * rng.standard_normal(100)).astype(np.float32), rng.uniform(20, 1000, 100).astype(np.float32)
    cases = Cases(expit(-logit_q.astype(np.float64)).astype(np.float32), logit_q, beta)
    worst = accuracy.mixed_errors(inverse_of(elements(kind, cases)), cases.rho, logit_q, beta, kind)
    for case in worst.values():
        assert case.mixed_error <= TRANSFORM_MIXED_ERROR, case


@kinds
@dtypes
def test_mixed_error_against_the_reference(elements, kind, dtype):
    # More points, by the cheaper measure.
    cases = all_cases(20_000 if kind != "power" else 1_000, dtype, seed=12)
    outputs = elements(kind, cases)
    operation = agreement.Operation(
        lambda rho, logit_q, beta: accuracy.reference_inverse_cdf(rho, logit_q, beta, kind),
        lambda rho, logit_q, beta: inverse_of(outputs),
    )
    for finding in agreement.disagreements(operation, cases):
        assert finding.holds, finding


@kinds
@dtypes
def test_posterior_belongs_to_the_rounded_sample(elements, kind, dtype):
    cases = all_cases(2_000, dtype, seed=13)
    outputs = elements(kind, cases)
    sampled = Cases(outputs["zeta"], cases.logit_q, cases.beta)
    smoothing = accuracy.REFERENCE[kind]

    def expected(zeta, logit_q, beta):
        return {"log_ratio": smoothing(beta).log_ratio(zeta), "nu": smoothing(beta).nu(zeta, logit_q)}

    operation = agreement.Operation(expected, lambda *_: outputs, "zeta", smoothing.unit_interval)
    for finding in agreement.disagreements(operation, sampled):
        assert finding.holds, finding


@pytest.mark.parametrize("kind", ["logistic", "spike_exponential"])
def test_a_sharpness_is_not_rounded_to_float32(elements, kind):
    # e^-beta would lose what zeta, near 0, has; and beyond the stated domain float32 has not the range.
    for beta in (1e-9, 0.3, 7.3, 123.456, 999.9, 1e5):
        cases = random_cases(1_000, np.float32, seed=14)
        cases = replace(cases, beta=np.full(len(cases), beta))
        outputs = elements(kind, cases)
        operation = agreement.Operation(
            lambda rho, logit_q, beta: accuracy.reference_inverse_cdf(rho, logit_q, beta, kind),
            lambda *_, found=outputs: inverse_of(found),
        )
        for finding in agreement.disagreements(operation, cases):
            assert finding.holds, finding


@dtypes
@kinds
def test_what_is_no_input_gives_nan(elements, kind, dtype):
    rho, logit_q = [np.nan, 0.5, -0.1, 1.1, np.inf, -np.inf], [0.3, np.nan, 1.0, -np.inf, 0.0, 200.0]
    cases = Cases(*(np.array(values, dtype) for values in (rho, logit_q, [7.0] * 6)))
    for name, values in elements(kind, cases).items():
        assert np.isnan(values).all(), name


# ---- the kernels as they are launched --------------------------------------------------------------------------------


@host_compiler
@dtypes
def test_inverse_cdf_writes_every_element_and_no_other(dtype):
    # The emulated device watches what lies beside the arrays. Sizes around one pack, one block and the whole grid.
    backend, rng = Emulated(), np.random.default_rng(1)
    for n in (0, 1, 3, 4, 5, 17, 1023, 1025, 33_001):
        cases = Cases(*(x.astype(dtype) for x in (rng.random(n), 4 * rng.standard_normal(n), np.full(n, 7.5))))
        whole = backend.inverse_cdf("exponential", cases.rho, cases.logit_q, 7.5)
        assert whole.zeta.shape == (n,)
        assert whole.nu is None
        if n:
            operation = agreement.Operation(
                lambda *inputs: {
                    name: accuracy.reference_inverse_cdf(*inputs)[name] for name in ("zeta", "dzeta_dlogit_q")
                },
                lambda *_, found=whole: {"zeta": found.zeta, "dzeta_dlogit_q": found.dzeta_dlogit_q},
            )
            for finding in agreement.disagreements(operation, cases):
                assert finding.holds, finding
            assert np.isfinite(whole.zeta).all()
        few = Emulated(n_multiprocessors=1, order=1)
        shifted = np.concatenate((cases.rho[:1], cases.rho))[1:]  # not on 16 bytes
        for one, other in zip(whole, few.inverse_cdf("exponential", shifted, cases.logit_q, 7.5), strict=True):
            np.testing.assert_array_equal(one, other)


@host_compiler
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "power"])
def test_what_else_is_wanted_changes_no_bit(kind):
    # dzeta_dbeta is computed in float64 where the others are not.
    backend, cases = Emulated(), all_cases(500, np.float32, seed=3)[-500:]
    everything = backend.inverse_cdf(kind, cases.rho, cases.logit_q, 7.5, EXTRAS)
    part = backend.inverse_cdf(kind, cases.rho, cases.logit_q, 7.5)
    for name in ("zeta", "dzeta_dlogit_q"):
        np.testing.assert_array_equal(getattr(part, name), getattr(everything, name))


@host_compiler
def test_out_is_filled_and_checked():
    backend, rho = Emulated(), np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    logit_q = np.full((4, 5), 0.3, np.float32)
    fresh = backend.inverse_cdf("exponential", rho, logit_q, 7.5)
    out = Smoothed(np.empty_like(rho), np.empty_like(rho))
    n_arrays = backend.gpu.n_allocations
    returned = backend.inverse_cdf("exponential", rho, logit_q, 7.5, out=out)
    assert backend.gpu.n_allocations == n_arrays
    assert returned.zeta is out.zeta
    for one, other in zip(fresh, out, strict=True):
        np.testing.assert_array_equal(one, other)
    in_place = rho.copy()
    backend.inverse_cdf("exponential", in_place, logit_q, 7.5, out=Smoothed(in_place, np.empty_like(rho)))
    np.testing.assert_array_equal(in_place, fresh.zeta)
    with pytest.raises(ShapeError, match=r"out\.zeta must be \(4, 5\)"):
        backend.inverse_cdf("exponential", rho, logit_q, 7.5, out=Smoothed(np.empty((5, 4), np.float32), out[1]))
    with pytest.raises(TypeError, match=r"out\.dzeta_dlogit_q must be C-contiguous; its strides are \(4, 16\)"):
        backend.inverse_cdf("exponential", rho, logit_q, 7.5, out=Smoothed(out[0], np.empty((5, 4), np.float32).T))
    machine = Machine(*(np.zeros(shape, np.float32) for shape in (4, 1, (4, 1))))
    with pytest.raises(DomainError, match="n_groups must divide"):
        backend.cross_entropy(machine, rho, rho, 2)


@host_compiler
@dtypes
def test_reductions_agree(dtype):
    rng = np.random.default_rng(5)
    for order in (0, 1):
        backend = Emulated(order=order)
        for n_rows, n_columns in ((1, 1), (3, 17), (9, 129), (2, 3000)):
            logit_q = all_cases(n_rows * n_columns, dtype, seed=6).logit_q[-n_rows * n_columns :]
            logit_q = np.clip(logit_q, -700, 700)  # beyond 709 the reference's sigmoid is 0, and no judge
            for finding in agreement.entropy_disagreements(backend, logit_q.reshape(n_rows, n_columns)):
                assert finding.holds, finding
            log_weights = (300 * rng.standard_normal((n_rows, n_columns))).astype(dtype)
            log_weights[:, ::3] = -np.inf
            finding = agreement.log_mean_disagreements(backend, log_weights, (n_columns // 2,) if n_columns > 1 else ())
            assert finding.holds, finding
        for n1, n2, n_groups in ((17, 17, 2), (5, 7, 1), (3, 3, 3), (5, 7, 3), (2, 8, 5), (1, 3, 4)):
            machine = Machine(*(rng.standard_normal(shape).astype(dtype) for shape in (n1, n2, (n1, n2))))
            mu, nu = rng.random((2, 9, n1 + n2)).astype(dtype)
            upstream = rng.standard_normal(9).astype(dtype)
            for finding in agreement.cross_entropy_disagreements(backend, machine, mu, nu, n_groups, upstream):
                assert finding.holds, finding


@host_compiler
def test_a_row_does_not_depend_on_its_neighbours():
    backend, rng = Emulated(), np.random.default_rng(7)
    logits, weights = rng.standard_normal((2, 21, 130)).astype(np.float32)
    entropy, log_mean = backend.entropy(logits), backend.importance_log_mean(weights)
    for rows in (slice(0, 1), slice(3, 12), slice(20, 21)):
        np.testing.assert_array_equal(backend.entropy(logits[rows]).value, entropy.value[rows])
        np.testing.assert_array_equal(backend.importance_log_mean(weights[rows]).value, log_mean.value[rows])


@host_compiler
def test_log_mean_of_weights_that_are_no_numbers_or_nothing():
    backend = Emulated()
    weights = np.array([[-np.inf, -np.inf], [np.nan, 0.0], [0.0, np.nan], [-np.inf, 2.0]])
    found = backend.importance_log_mean(weights)
    np.testing.assert_array_equal(found.value[:3], [-np.inf, np.nan, np.nan])
    assert abs(found.value[3] - (2 - np.log(2))) < 1e-15
    resumed = backend.importance_log_mean(np.zeros((4, 1)), found)
    assert resumed.n_weights == 3
    assert abs(resumed.value[0] + np.log(3)) < 1e-15
    for empty in (np.zeros((0, 5)), np.zeros((0, 1), np.float32)):
        assert all(array.shape == (0,) for array in backend.importance_log_mean(empty)[:3])
    with pytest.raises(DomainError, match="log_weights in a row"):
        backend.importance_log_mean(np.zeros((3, 0)))
    with pytest.raises(ShapeError, match=r"running\.largest must be \(3,\)"):
        backend.importance_log_mean(np.zeros((3, 1)), LogMean(*found[:3], 2))


@host_compiler
@dtypes
def test_no_rows_and_no_units(dtype):
    backend = Emulated()
    machine = Machine(*(np.ones(shape, dtype) for shape in (2, 3, (2, 3))))
    none = np.zeros((0, 5), dtype)
    assert backend.cross_entropy(machine, none, none, 1).shape == (0,)
    gradients = backend.cross_entropy_gradients(machine, none, none, 1, np.zeros(0, dtype))
    assert [g.shape for g in gradients] == [(0, 5), (0, 5), (2,), (3,), (2, 3)]
    assert not any(g.any() for g in gradients)
    entropy = backend.entropy(np.zeros((3, 0), dtype))
    np.testing.assert_array_equal(entropy.value, np.zeros(3))
    assert entropy.dvalue_dlogit_q.shape == (3, 0)


# ---- the machine code ------------------------------------------------------------------------------------------------

#: Kernels with the most registers they may need. Of inverse_cdf the one that training uses, and the most expensive.
_BUDGETS = {
    "inverse_cdf<float, 0, 1>": 64,
    "inverse_cdf<float, 0, 31>": 128,
    "inverse_cdf<float, 1, 1>": 64,
    "inverse_cdf<float, 2, 1>": 64,
    "inverse_cdf<double, 3, 31>": 128,
    "entropy<float>": 48,
    "entropy<double>": 64,
    "expected_energy<float>": 48,
    "weighted<float>": 48,
    "unit_gradients<float>": 48,
    "importance_log_mean<float>": 64,
}


@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_and_are_lean(architecture):
    machine = _machine(architecture)
    # Without a rounding of its own an operation may be fused with its neighbour, and bits depend on what else is asked.
    assert "mul.rn.f32" in machine.ptx
    assert not re.search(r"\b(add|sub|mul)\.f(32|64)\b", machine.ptx)
    reports = _reports(machine)
    for expression, budget in _BUDGETS.items():
        registers, stores, loads = reports[expression]
        assert registers <= budget, f"{expression} needs {registers} registers"
        # A few bytes around the call of what is rare; in the loops everything stays in registers.
        assert stores + loads <= 32, f"{expression} spills"


def _machine(architecture):
    try:
        machine = cuda_compile.machine_code("transforms.cu", tuple(_BUDGETS), architecture)
    except BackendUnavailable as unavailable:
        pytest.skip(str(unavailable))
    assert machine.cubin[:4] == b"\x7fELF"
    return machine


def _reports(machine):
    """Registers, and bytes stored and loaded in spills, of each kernel of ``_BUDGETS``."""
    found = {}
    for expression in _BUDGETS:
        name, arguments = expression.rstrip(">").split("<")
        codes = [{"float": "f", "double": "d"}.get(a, f"Li{a}E") for a in arguments.split(", ")]
        entry = f"_Z{len(name)}{name}I{''.join(codes)}E"
        (part,) = [part for part in machine.report.split("Compiling entry function '")[1:] if part.startswith(entry)]
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        found[expression] = int(re.search(r"Used (\d+) registers", part)[1]), *map(int, spills.groups())
    return found


# ---- on a device -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@dtypes
@kinds
def test_the_device_gives_what_the_emulation_gives(kind, dtype):
    # Bit by bit in float32's own formulas; float64's library functions differ by a few roundings.
    backend, cases = accelerated.load("cupy_raw"), all_cases(300, dtype, seed=21)[-300:]
    emulated = Emulated()
    for beta in (0.5, 7.5, 90.0):
        arrays = [backend.asarray(array) for array in (cases.rho, cases.logit_q)]
        extras = tuple(extra for extra in EXTRAS if extra != "dzeta_dbeta")
        got = backend.inverse_cdf(kind, *arrays, beta, extras)
        expected = emulated.inverse_cdf(kind, cases.rho, cases.logit_q, beta, extras)
        for name in ("zeta", *extras):
            one, other = backend.to_numpy(getattr(got, name)), getattr(expected, name)
            both = np.isfinite(one) & np.isfinite(other)
            np.testing.assert_array_equal(one[~both], other[~both])
            roundings = 8 if dtype == np.float32 else 64
            close = np.abs(one[both] - other[both]) <= roundings * np.finfo(dtype).eps * np.abs(other[both])
            assert close.mean() > 0.98, name  # the rest lie where one rounding moves everything


@pytest.mark.gpu
def test_a_cuda_graph_replays_the_transform():
    import cupy

    backend, rng = accelerated.load("cupy_raw"), np.random.default_rng(0)
    rho, logit_q = (backend.asarray(rng.random(1000).astype(np.float32)) for _ in range(2))
    out = Smoothed(cupy.empty_like(rho), cupy.empty_like(rho))
    backend.inverse_cdf("exponential", rho, logit_q, 7.5, out=out)  # compiles
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        backend.inverse_cdf("exponential", rho, logit_q, 7.5, out=out)
        graph = stream.end_capture()
        rho[...] = 1 - rho
        graph.launch(stream)
        expected = backend.inverse_cdf("exponential", rho, logit_q, 7.5)
        stream.synchronize()
    np.testing.assert_array_equal(backend.to_numpy(out.zeta), backend.to_numpy(expected.zeta))
