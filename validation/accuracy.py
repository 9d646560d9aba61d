"""Smoothing transforms against multi-precision arithmetic.

The yardstick is the *mixed error* of a result g of inputs x, y (rho or zeta, and a logit):

    |g - g_true| / (eps |g_true| + D_x + D_y + underflow)

D_x is what one rounding of an input does to g: the largest change of g when x moves by a relative eps. Where g is
straight on that scale, which is nearly everywhere, the sum is the first-order eps (|x dg/dx| + |y dg/dy|); where it is
not (on the plateau between the two modes one rounding of rho can carry zeta from 0.05 to 0.95), the first-order term
means nothing in either direction and the change itself is taken. An absolute error would be blind for small g and a
relative one unfair where g itself is ill-conditioned. ``underflow`` is the spacing of the subnormal numbers, below
which no floating-point result can be resolved. The sharpness is not among the inputs: its rounding is not excused.

The truth comes from ``validation.truth``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import mpmath
import numpy as np
from mpmath import mpf
from numpy.typing import NDArray

import reference.smoothing
from accelerated import Backend
from accelerated.protocol import EXTRAS
from reference.smoothing import InverseCDF, MixtureSmoothing
from validation.truth import KINDS, OUTPUTS, MixtureTruth, sigmoid_pair

EXPONENTIAL = "overlapping exponential"

Floats: TypeAlias = NDArray[np.floating]
Outputs: TypeAlias = Mapping[str, Floats]
Judged: TypeAlias = tuple[mpf, mpf]  # a true value, and the sum of the changes D

#: The reference's class of each kind, as a function of the sharpness.
REFERENCE: dict[str, type[Any]] = {
    EXPONENTIAL: reference.smoothing.OverlappingExponential,
    "overlapping logistic": reference.smoothing.OverlappingLogistic,
    "spike-and-exponential": reference.smoothing.SpikeExponential,
    "power function": reference.smoothing.PowerFunction,
    "Gaussian": reference.smoothing.Gaussian,
    "uniform + exponential": reference.smoothing.UniformExponential,
    "binary Concrete": reference.smoothing.BinaryConcrete,
}

#: The kinds that backends have kernels for (``accelerated.protocol.KINDS``), by the names above.
BACKEND_KINDS = {
    "exponential": EXPONENTIAL,
    "logistic": "overlapping logistic",
    "spike_exponential": "spike-and-exponential",
    "power": "power function",
}

_LONG_ENOUGH = 64

#: Forward operations of (zeta, second argument).
FORWARD = ("log_r0", "log_r1", "r_cdf0", "r_cdf1", "log_ratio", "log_prob", "cdf", "nu")


def reference_inverse_cdf(rho: Floats, logit_q: Floats, beta: Floats, kind: str = EXPONENTIAL) -> Outputs:
    """The NumPy definition: all outputs, each (N,) and of the dtype of the inputs."""
    result = REFERENCE[kind](beta).inverse_cdf_with_derivatives(rho, logit_q)
    return {name: getattr(result, name) for name in OUTPUTS}


def reference_forward(zeta: Floats, logit_q: Floats, beta: Floats, kind: str) -> Outputs:
    """The NumPy definitions of everything that takes a zeta, each (N,) and of the dtype of the inputs."""
    smoothing = REFERENCE[kind](beta)
    outputs = {"log_prob": smoothing.log_prob(zeta, logit_q), "cdf": smoothing.cdf(zeta, logit_q)}
    if isinstance(smoothing, MixtureSmoothing):
        for z in (0, 1):
            unit = np.full_like(zeta, z)
            outputs |= {f"log_r{z}": smoothing.log_r(zeta, unit), f"r_cdf{z}": smoothing.r_cdf(zeta, unit)}
        outputs |= {"log_ratio": smoothing.log_ratio(zeta), "nu": smoothing.nu(zeta, logit_q)}
    return outputs


def backend_inverse_cdf(backend: Backend, kind: str, rho: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    """A backend's kernel: zeta and all ``accelerated.protocol.EXTRAS``, one call for each sharpness.

    Calls of few numbers are made longer by repetition: a kernel that works on several numbers at once, and on what is
    left over one by one, is judged by the former.
    """
    outputs = {name: np.empty_like(rho) for name in ("zeta", *EXTRAS)}
    for b in np.unique(beta):
        same = np.flatnonzero(beta == b)
        n = max(len(same), _LONG_ENOUGH)
        noise, logits = (backend.asarray(np.resize(x[same], n)) for x in (rho, logit_q))
        result = backend.inverse_cdf(kind, noise, logits, float(b), EXTRAS)
        for name, output in outputs.items():
            output[same] = backend.to_numpy(getattr(result, name))[: len(same)]
    return outputs


@dataclass(frozen=True)
class WorstCase:
    """The largest mixed error of one output and the input that causes it; ``first`` is rho or zeta."""

    output: str
    mixed_error: float
    first: str
    value: float
    logit_q: float
    beta: float
    got: float
    expected: float

    @property
    def where(self) -> str:
        """The input, to be replayed."""
        return f"{self.first}={self.value!r}, logit_q={self.logit_q!r}, beta={self.beta!r}"

    def __str__(self) -> str:
        """One line that can be replayed."""
        return (
            f"{self.output}: mixed error {self.mixed_error:.2f} at {self.where}: "
            f"got {self.got!r}, expected {self.expected!r}"
        )


@lru_cache(maxsize=60_000)  # milliseconds each, and every implementation is judged on the same points
def inverse_truth(kind: str, rho: float, logit_q: float, beta: float, eps: float) -> dict[str, Judged]:
    """True value and D_rho + D_l (see the module's head) of every output of a kind's inverse CDF.

    Shapes   scalars; the result maps each name of ``OUTPUTS`` to (value, change).
    """
    truth = KINDS[kind]
    with mpmath.workdps(truth.digits(rho, logit_q, beta)):
        r, logit, b = mpf(rho), mpf(logit_q), mpf(beta)
        p, q = sigmoid_pair(logit)
        # The inputs one rounding away, and the steepest point of the plateau between two modes if it lies between.
        moved_rho = [x for x in (r * (1 - eps), r * (1 + eps)) if x <= 1] if rho != 0 else []
        moved_pq = []
        if np.isfinite(logit_q) and logit_q != 0:
            moved_pq = [sigmoid_pair(logit * (1 - eps)), sigmoid_pair(logit * (1 + eps))]
            steepest = truth.steepest(logit, b)
            if steepest is not None and isinstance(truth, MixtureTruth):
                c = truth.components(steepest, b)
                steepest_rho = p * c.F0 + q * c.F1
                if abs(steepest_rho - r) <= eps * r:
                    moved_rho.append(steepest_rho)
                steepest_p = (r - c.F1) / (c.F0 - c.F1)
                if 0 < steepest_p < 1:
                    steepest_logit = mpmath.log((1 - steepest_p) / steepest_p)
                    if abs(steepest_logit - logit) <= eps * abs(logit):
                        moved_pq.append((steepest_p, 1 - steepest_p))
        here = truth.inverse(r, p, q, b)
        by_rho = [truth.inverse(x, p, q, b) for x in moved_rho]
        by_logit = [truth.inverse(r, *pair, b) for pair in moved_pq]
        return {
            name: (+here[i], _change(here[i], [v[i] for v in by_rho]) + _change(here[i], [v[i] for v in by_logit]))
            for i, name in enumerate(OUTPUTS)
        }


@lru_cache(maxsize=200_000)
def forward_truth(kind: str, output: str, zeta: float, logit_q: float, beta: float, eps: float) -> Judged:
    """True value and D_zeta + D_l of one forward operation (a name of ``FORWARD``) of a kind."""
    truth = KINDS[kind]
    # Digits for zeta as if it were the smaller of the two tails it may stand for.
    smallest = min((abs(x) for x in (zeta, 1 - zeta) if x != 0), default=1.0)
    with mpmath.workdps(truth.digits(min(smallest, 1.0), logit_q, beta) + 20):
        x, logit, b = mpf(zeta), mpf(logit_q), mpf(beta)

        def value(at_zeta: mpf, at_logit: mpf) -> mpf:
            if output in ("log_prob", "cdf", "nu"):
                return getattr(truth, output)(at_zeta, *sigmoid_pair(at_logit), b)
            assert isinstance(truth, MixtureTruth)
            if output == "log_ratio":
                return truth.log_ratio(at_zeta, b)
            return getattr(truth, output[:-1])(at_zeta, int(output[-1]), b)

        here = value(x, logit)
        moved_zeta = [x * (1 - eps), x * (1 + eps)] if np.isfinite(zeta) else []
        if REFERENCE[kind].unit_interval:
            moved_zeta = [y for y in moved_zeta if 0 <= y <= 1]
        moved_logit = [logit * (1 - eps), logit * (1 + eps)] if np.isfinite(logit_q) else []
        change = _change(here, [value(y, logit) for y in moved_zeta])
        change += _change(here, [value(x, y) for y in moved_logit])
        return +here, +change


def _change(here: mpf, moved: list[mpf]) -> mpf:
    """The largest finite change; from or to infinity there is none to speak of."""
    differences = (abs(value - here) for value in moved if mpmath.isfinite(value) and mpmath.isfinite(here))
    return max(differences, default=mpf(0))


def _mixed_error(got: float, judged: Judged, info: np.finfo[np.floating], saturated: bool) -> float:
    """Mixed error of one number; ``saturated`` results stop at the largest finite number instead of overflowing."""
    expected, change = judged
    largest = mpf(float(info.max))
    if saturated:
        expected = min(max(expected, -largest), largest)
    elif abs(expected) > largest * (1 + mpf(float(info.eps)) / 4):
        return 0.0 if got == float(expected) else float("inf")
    if not np.isfinite(got):
        return float("inf")
    scale = float(info.eps) * abs(expected) + change + float(info.smallest_subnormal)
    return float(abs(got - expected) / scale)


def mixed_errors(
    result: Outputs | InverseCDF,
    rho: Floats,
    logit_q: Floats,
    beta: Floats,
    kind: str = EXPONENTIAL,
) -> dict[str, WorstCase]:
    """The worst mixed error of each output of a kind's inverse CDF.

    Shapes   rho, logit_q, beta and every output (N,), all in the dtype that is judged.
    Domain   NaN counts as infinite error, and so does an infinity where the truth is finite. Where, on [0, 1], the
             density between the modes is below twice the smallest normal number, derivatives saturate (see Departs in
             ``Smoothing.inverse_cdf_with_derivatives``) and need only be finite and, by rho and logit, of the true
             sign. zeta itself is judged everywhere.
    Returns  for each output present in ``result`` its worst case.
    """
    given = {n: getattr(result, n) for n in OUTPUTS} if isinstance(result, InverseCDF) else dict(result)
    outputs = {name: values for name, values in given.items() if name in OUTPUTS}
    info = np.finfo(next(iter(outputs.values())).dtype)
    worst: dict[str, WorstCase] = {}
    for i, (r, logit, b) in enumerate(zip(rho.tolist(), logit_q.tolist(), beta.tolist(), strict=True)):
        truth = inverse_truth(kind, r, logit, b, float(info.eps))
        slope = truth["dzeta_drho"][0]
        flat = (
            REFERENCE[kind].unit_interval
            and mpmath.isfinite(slope)
            and -np.expm1(-b) < 2 * float(info.tiny) * b * slope
        )
        for name, values in outputs.items():
            got = float(values[i])
            if flat and name != "zeta":
                right_sign = name == "dzeta_dbeta" or got * mpmath.sign(truth[name][0]) >= 0
                error = 0.0 if np.isfinite(got) and right_sign else float("inf")
            else:
                error = _mixed_error(got, truth[name], info, saturated=name != "zeta")
            if name not in worst or error > worst[name].mixed_error:
                worst[name] = WorstCase(name, error, "rho", r, logit, b, got, float(truth[name][0]))
    return worst


def forward_errors(outputs: Outputs, zeta: Floats, logit_q: Floats, beta: Floats, kind: str) -> dict[str, WorstCase]:
    """The worst mixed error of each forward operation of a kind.

    Shapes   zeta, logit_q, beta and every output (N,), all in the dtype that is judged.
    Domain   NaN counts as infinite error, and so does a finite number where the truth is infinite.
    Returns  for each output present in ``outputs`` its worst case.
    """
    info = np.finfo(next(iter(outputs.values())).dtype)
    worst: dict[str, WorstCase] = {}
    for i, (x, logit, b) in enumerate(zip(zeta.tolist(), logit_q.tolist(), beta.tolist(), strict=True)):
        for name, values in outputs.items():
            judged = forward_truth(
                kind, name, x, logit if name in ("log_prob", "cdf", "nu") else 0.0, b, float(info.eps)
            )
            got = float(values[i])
            error = _mixed_error(got, judged, info, saturated=False)
            if name not in worst or error > worst[name].mixed_error:
                worst[name] = WorstCase(name, error, "zeta", x, logit, b, got, float(judged[0]))
    return worst
