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

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, TypeAlias

import mpmath
import numpy as np
import torch
from mpmath import mpf
from numpy.typing import DTypeLike, NDArray
from scipy.special import expit

import dvaepp.smoothing
import reference.smoothing
from accelerated import Backend
from accelerated.protocol import EXTRAS
from dvaepp.config import unknown
from dvaepp.errors import ConfigError
from reference.smoothing import InverseCDF, MixtureSmoothing
from validation import subjects, torch_twin
from validation.cases import Cases, edge_cases, few_sharpnesses, random_cases, zeta_cases
from validation.rows import ErrorMap, Finding, Request, Subject, Task
from validation.search import Effort, Errors, climb, worst_apart
from validation.tolerances import LOG_DENSITIES, TRANSFORM_EXCEPTIONS, TRANSFORM_MIXED_ERROR
from validation.torch_twin import TORCH
from validation.truth import KINDS, OUTPUTS, MixtureTruth, sigmoid_pair

EXPONENTIAL = "exponential"

Floats: TypeAlias = NDArray[np.floating]
Outputs: TypeAlias = Mapping[str, Floats]
Judged: TypeAlias = tuple[mpf, mpf]  # a true value, and the sum of the changes D

#: The reference's class of each kind, as a function of the sharpness.
REFERENCE: dict[str, type[Any]] = {
    EXPONENTIAL: reference.smoothing.OverlappingExponential,
    "logistic": reference.smoothing.OverlappingLogistic,
    "spike_exponential": reference.smoothing.SpikeExponential,
    "power": reference.smoothing.PowerFunction,
    "gaussian": reference.smoothing.Gaussian,
    "uniform_exponential": reference.smoothing.UniformExponential,
    "concrete": reference.smoothing.BinaryConcrete,
}

_LONG_ENOUGH = 64

#: Forward operations of (zeta, second argument).
FORWARD = ("log_r0", "log_r1", "r_cdf0", "r_cdf1", "log_ratio", "log_prob", "cdf", "nu")

#: Those of them that a backend's ``inverse_cdf`` returns besides zeta.
POSTERIOR = ("log_ratio", "nu")

#: Those of them that take a logit.
OF_LOGIT = ("log_prob", "cdf", "nu")


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
        outputs |= reference_posterior(zeta, logit_q, beta, kind)
    return outputs


def reference_posterior(zeta: Floats, logit_q: Floats, beta: Floats, kind: str) -> dict[str, Floats]:
    """The NumPy definitions of ``POSTERIOR``, each (N,) and of the dtype of the inputs."""
    smoothing = REFERENCE[kind](beta)
    return {"log_ratio": smoothing.log_ratio(zeta), "nu": smoothing.nu(zeta, logit_q)}


def torch_posterior(zeta: Floats, logit_q: Floats, beta: Floats, kind: str) -> Outputs:
    """``POSTERIOR`` of a torch twin, with beta a tensor."""
    x, logit, b = (torch.tensor(values) for values in (zeta, logit_q, beta))
    smoothing = dvaepp.smoothing.check_mixture(torch_twin.smoothing(kind, b))
    outputs = {"log_ratio": smoothing.log_ratio(x), "nu": dvaepp.smoothing.nu(smoothing, x, logit)}
    return {name: output.numpy() for name, output in outputs.items()}


def extras_of(backend: Backend, kind: str) -> tuple[str, ...]:
    """What of ``accelerated.protocol.EXTRAS`` a backend has for a kind: one without r(zeta|z) has no posterior."""
    offered = tuple(getattr(backend, "extras", EXTRAS))
    return offered if is_mixture(kind) else tuple(name for name in offered if name not in POSTERIOR)


def is_mixture(kind: str) -> bool:
    """Whether a kind attaches a density r(zeta|z) to each value of z."""
    return isinstance(KINDS[kind], MixtureTruth)


def backend_inverse_cdf(backend: Backend, kind: str, rho: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    """A backend's kernel: zeta and all the ``accelerated.protocol.EXTRAS`` it has, one call for each sharpness.

    Calls of few numbers are made longer by repetition: a kernel that works on several numbers at once, and on what is
    left over one by one, is judged by the former.
    """
    extras = extras_of(backend, kind)
    outputs = {name: np.empty_like(rho) for name in ("zeta", *extras)}
    for b in np.unique(beta):
        same = np.flatnonzero(beta == b)
        n = max(len(same), _LONG_ENOUGH)
        noise, logits = (backend.asarray(np.resize(x[same], n)) for x in (rho, logit_q))
        result = backend.inverse_cdf(kind, noise, logits, float(b), extras)
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
def forward_truth(
    kind: str, output: str, zeta: float, logit_q: float, beta: float, eps: float, rounds_beta: bool = False
) -> Judged:
    """True value and D_zeta + D_l of one forward operation (a name of ``FORWARD``) of a kind.

    ``rounds_beta``: add D_beta, that is excuse a rounding of the sharpness as that of an input.
    """
    truth = KINDS[kind]
    # Digits for zeta as if it were the smaller of the two tails it may stand for.
    smallest = min((abs(x) for x in (zeta, 1 - zeta) if x != 0), default=1.0)
    with mpmath.workdps(truth.digits(min(smallest, 1.0), logit_q, beta) + 20):
        x, logit, b = mpf(zeta), mpf(logit_q), mpf(beta)

        def value(at_zeta: mpf, at_logit: mpf, at_beta: mpf) -> mpf:
            if output in OF_LOGIT:
                return getattr(truth, output)(at_zeta, *sigmoid_pair(at_logit), at_beta)
            assert isinstance(truth, MixtureTruth)
            if output == "log_ratio":
                return truth.log_ratio(at_zeta, at_beta)
            return getattr(truth, output[:-1])(at_zeta, int(output[-1]), at_beta)

        here = value(x, logit, b)
        moved_zeta = [x * (1 - eps), x * (1 + eps)] if np.isfinite(zeta) else []
        if REFERENCE[kind].unit_interval:
            moved_zeta = [y for y in moved_zeta if 0 <= y <= 1]
        moved_logit = [logit * (1 - eps), logit * (1 + eps)] if np.isfinite(logit_q) else []
        change = _change(here, [value(y, logit, b) for y in moved_zeta])
        change += _change(here, [value(x, y, b) for y in moved_logit])
        if rounds_beta:
            change += _change(here, [value(x, logit, y) for y in (b * (1 - eps), b * (1 + eps))])
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
    return _worst(_inverse_errors(given, rho, logit_q, beta, kind))


def _inverse_errors(given: Outputs, rho: Floats, logit_q: Floats, beta: Floats, kind: str) -> Iterator[WorstCase]:
    """Every output at every case, one after the other."""
    outputs = {name: values for name, values in given.items() if name in OUTPUTS}
    info = np.finfo(next(iter(outputs.values())).dtype)
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
            yield WorstCase(name, error, "rho", r, logit, b, got, float(truth[name][0]))


def forward_errors(outputs: Outputs, zeta: Floats, logit_q: Floats, beta: Floats, kind: str) -> dict[str, WorstCase]:
    """The worst mixed error of each forward operation of a kind.

    Shapes   zeta, logit_q, beta and every output (N,), all in the dtype that is judged.
    Domain   NaN counts as infinite error, and so does a finite number where the truth is infinite.
    Returns  for each output present in ``outputs`` its worst case.
    """
    return _worst(_forward_errors(outputs, zeta, logit_q, beta, kind))


def _forward_errors(
    outputs: Outputs, zeta: Floats, logit_q: Floats, beta: Floats, kind: str, rounds_beta: Collection[str] = ()
) -> Iterator[WorstCase]:
    """Every output at every case, one after the other."""
    info = np.finfo(next(iter(outputs.values())).dtype)
    outside = _outside(zeta, kind)
    for i, (x, logit, b) in enumerate(zip(zeta.tolist(), logit_q.tolist(), beta.tolist(), strict=True)):
        for name, values in outputs.items():
            got = float(values[i])
            if outside[i]:
                yield WorstCase(name, float("inf"), "zeta", x, logit, b, got, float("nan"))
                continue
            at_logit = logit if name in OF_LOGIT else 0.0
            judged = forward_truth(kind, name, x, at_logit, b, float(info.eps), name in rounds_beta)
            error = _mixed_error(got, judged, info, saturated=False)
            yield WorstCase(name, error, "zeta", x, logit, b, got, float(judged[0]))


def _worst(cases: Iterable[WorstCase]) -> dict[str, WorstCase]:
    worst: dict[str, WorstCase] = {}
    for case in cases:
        if case.output not in worst or case.mixed_error > worst[case.output].mixed_error:
            worst[case.output] = case
    return worst


def _outside(zeta: Floats, kind: str) -> NDArray[np.bool_]:
    """Where a number is no zeta of this kind; NaN is none of any."""
    if REFERENCE[kind].unit_interval:
        return np.asarray(~((zeta >= 0) & (zeta <= 1)))
    return np.isnan(zeta)


# ---- the check: what is asked, and who answers -----------------------------------------------------------------------

INVERSE, FORWARDS = "inverse_cdf", "forward"
_CHECK = "accuracy"


@dataclass(frozen=True)
class At:
    """One input, as ``--at`` takes it; ``first`` is rho or zeta."""

    first: str
    value: float
    logit_q: float
    beta: float

    @property
    def operation(self) -> str:
        """The operation that takes it."""
        return INVERSE if self.first == "rho" else FORWARDS

    def cases(self, dtype: np.dtype[Any]) -> Cases:
        """Rounded to a dtype."""
        return Cases(*(np.array([x], dtype=dtype) for x in (self.value, self.logit_q, self.beta)))


def parse_at(text: str) -> At:
    """Turn "rho=0.25, logit_q=-3.0, beta=8.0", or zeta in the place of rho, into one input.

    Domain   rho in [0, 1]; zeta any number (see ``tasks`` for kinds on [0, 1]); any logit; beta positive and finite
    Raises   ConfigError for a name or number that is none, one missing or given twice, one outside its domain.
    """
    form = "say rho=0.25, logit_q=-3.0, beta=8.0, or zeta in the place of rho"
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        if name not in ("rho", "zeta", "logit_q", "beta"):
            raise ConfigError(f"--at: {unknown('input', name, ('rho', 'zeta', 'logit_q', 'beta'))}; {form}")
        if name in values:
            raise ConfigError(f"--at: {name} is given twice; {form}")
        try:
            values[name] = float(number)
        except ValueError:
            raise ConfigError(f"--at: {name} must be a number; got {number!r}; {form}") from None
        if np.isnan(values[name]):
            raise ConfigError(f"--at: {name} must be a number; got {number!r}; {form}")
    firsts = [name for name in ("rho", "zeta") if name in values]
    if len(firsts) == 2:
        raise ConfigError(f"--at: rho and zeta are given, and only one of them can be; {form}")
    if missing := [name for name in ("logit_q", "beta") if name not in values] + ([] if firsts else ["rho or zeta"]):
        raise ConfigError(f"--at: {missing[0]} is missing; {form}")
    at = At(firsts[0], values[firsts[0]], values["logit_q"], values["beta"])
    if at.first == "rho" and not 0 <= at.value <= 1:
        raise ConfigError(f"--at: rho must lie in [0, 1]; got {at.value!r}")
    if not 0 < at.beta < np.inf:
        raise ConfigError(f"--at: beta must be positive and finite; got {at.beta!r}")
    return at


def tasks(subject: Subject, request: Request) -> list[Task]:
    """One for each operation, kind and dtype that the subject has and the request wants.

    Raises   ConfigError for an input outside the domain of every kind that was asked for.
    """
    at = parse_at(request.at) if request.at else None
    offered = [INVERSE] if INVERSE in subject.operations else []
    if FORWARDS in subject.operations or subject.name == TORCH:
        offered.append(FORWARDS)
    kinds = [kind for kind in request.kinds if kind in subject.kinds]
    if at and at.first == "zeta" and not 0 <= at.value <= 1:
        if request.kinds and all(REFERENCE[kind].unit_interval for kind in request.kinds):
            raise ConfigError(f"--at: zeta must lie in [0, 1] for {', '.join(request.kinds)}; got {at.value!r}")
        kinds = [kind for kind in kinds if not REFERENCE[kind].unit_interval]
    return [
        Task(_CHECK, subject.name, operation, kind, dtype, request.seed, request.quick, request.at, request.maps)
        for operation in offered
        if request.wants(operation) and (at is None or at.operation == operation)
        for kind in kinds
        if subject.name != TORCH or operation == INVERSE or is_mixture(kind)
        for dtype in request.dtypes
    ]


@dataclass(frozen=True)
class Question:
    """Some outputs of one operation of a subject, with the NumPy definition of the same.

    ``first`` is what the operation calls the number that ``Cases`` calls rho.
    """

    kind: str
    first: str
    outputs: tuple[str, ...]
    subject: Callable[[Floats, Floats, Floats], Outputs]
    definition: Callable[[Floats, Floats, Floats], Outputs]
    bounds: Mapping[str, float] = field(default_factory=dict)  # where the bound is not ``TRANSFORM_MIXED_ERROR``
    is_definition: bool = False  # whether it is the definition itself that is judged
    one_beta_a_call: bool = False  # whether the subject is called once for each sharpness
    rounds_beta: frozenset[str] = frozenset()  # outputs with which a rounding of beta is excused too

    @property
    def of_zeta(self) -> bool:
        """Whether the outputs are functions of a zeta: of one that is given, or of one that comes out with them."""
        return self.first == "zeta" or self.outputs == POSTERIOR

    @property
    def unit_interval(self) -> bool:
        """Whether the first input lies in [0, 1]."""
        return self.first == "rho" or bool(REFERENCE[self.kind].unit_interval)

    def answers(self, cases: Cases) -> tuple[Cases, Outputs]:
        """The subject's outputs, and the cases they belong to, in which a zeta is the one that came out, rounded."""
        found = self.subject(cases.rho, cases.logit_q, cases.beta)
        if self.of_zeta and self.first == "rho":
            cases = Cases(np.asarray(found["zeta"]), cases.logit_q, cases.beta)
        return cases, {name: found[name] for name in self.outputs}


def questions(task: Task) -> list[Question]:
    """What a task asks."""
    exceptions = TRANSFORM_EXCEPTIONS if task.dtype == "float64" else {}
    bounds = {key[2]: bound for key, bound in exceptions.items() if key[:2] == (task.subject, task.kind)}
    return [replace(question, bounds=bounds) for question in _questions(task)]


def _questions(task: Task) -> list[Question]:
    kind = task.kind
    inverse, posterior = partial(reference_inverse_cdf, kind=kind), partial(reference_posterior, kind=kind)
    if task.operation == FORWARDS:
        forward = partial(reference_forward, kind=kind)
        if task.subject == TORCH:
            return [Question(kind, "zeta", POSTERIOR, partial(torch_posterior, kind=kind), posterior)]
        names = FORWARD if is_mixture(kind) else ("log_prob", "cdf")
        excused = LOG_DENSITIES if task.dtype == "float64" else frozenset()
        return [Question(kind, "zeta", names, forward, forward, is_definition=True, rounds_beta=excused)]
    if task.subject == subjects.REFERENCE:
        return [Question(kind, "rho", OUTPUTS, inverse, inverse, is_definition=True)]
    backend = subjects.backend(task.subject)
    values, offered = partial(backend_inverse_cdf, backend, kind), {"zeta", *extras_of(backend, kind)}
    outputs = tuple(name for name in OUTPUTS if name in offered)
    found = [Question(kind, "rho", outputs, values, inverse, one_beta_a_call=True)]
    # The torch twin's are judged at any zeta, as an operation of their own.
    if task.subject != TORCH and offered.issuperset(POSTERIOR):
        found.append(Question(kind, "rho", POSTERIOR, values, posterior, one_beta_a_call=True))
    return found


# ---- the check: how it looks for the worst ---------------------------------------------------------------------------

#: Milliseconds that the truth of one case takes, about: they decide on how many cases a kind is judged.
_TRUTH_MS = {
    EXPONENTIAL: 2.0,
    "logistic": 1.6,
    "spike_exponential": 1.2,
    "power": 8.0,
    "gaussian": 12.0,
    "uniform_exponential": 6.0,
    "concrete": 0.7,
}
_FORWARD_MS = 1.0  # one output

#: Microseconds that the NumPy definition of one number takes, about.
_DEFINITION_US = {
    EXPONENTIAL: 1.0,
    "logistic": 1.5,
    "spike_exponential": 1.0,
    "power": 20.0,
    "gaussian": 50.0,
    "uniform_exponential": 5.0,
    "concrete": 1.0,
}

#: Of the time of a task, how much goes to judging, and to what stands in for it; in ms, full and quick.
_JUDGING_MS, _SCREENING_MS = (3000, 150), (1000, 30)
_MOST_SCREENED = 100_000
_ROUNDS = (6, 2)

#: An error that needs no larger one beside it, in roundings.
_ENOUGH = 1000 * TRANSFORM_MIXED_ERROR
_WITNESSES = 8

#: Neighbours this many roundings away are far enough to average over roundings, and near enough to lie on a line.
_APART = 1024
_STEADY = 0.1  # largest relative change, from one neighbour to the other, at which they say anything


class Judge:
    """Judges cases exactly, and remembers the worst of each output and how it was found."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._worst: dict[str, tuple[WorstCase, str, str]] = {}
        self.n_cases = 0

    def __call__(self, cases: Cases, how: str) -> Errors:
        """The mixed error of every output at every case; ``how`` they were found."""
        question = self._question
        at, found = question.answers(cases)
        errors: dict[str, list[float]] = {name: [] for name in question.outputs}
        judged = (
            _forward_errors(found, at.rho, at.logit_q, at.beta, question.kind, question.rounds_beta)
            if question.of_zeta
            else _inverse_errors(found, at.rho, at.logit_q, at.beta, question.kind)
        )
        for case in judged:
            so_far = errors[case.output]
            i = len(so_far)
            so_far.append(case.mixed_error)
            if case.output not in self._worst or case.mixed_error > self._worst[case.output][0].mixed_error:
                first = float(cases.rho[i])
                self._worst[case.output] = (
                    case,
                    f"{question.first}={first!r}, logit_q={case.logit_q!r}, beta={case.beta!r}",
                    how,
                )
        self.n_cases += len(cases)
        return {name: np.array(values) for name, values in errors.items()}

    def findings(self) -> Iterator[Finding]:
        """The worst of each output."""
        for name in self._question.outputs:
            case, at, how = self._worst[name]
            where = at if case.first == self._question.first else f"{at}, zeta={case.value!r}"
            yield Finding(
                name,
                case.mixed_error,
                self._question.bounds.get(name, TRANSFORM_MIXED_ERROR),
                f"{where}; {how}, {self.n_cases} cases judged",
                unit="roundings, beta's too" if name in self._question.rounds_beta else "roundings",
                at=at,
                got=case.got,
                expected=case.expected,
            )


def estimates(question: Question, cases: Cases) -> Errors:
    """What the mixed errors are, about, without multi-precision arithmetic: where it is worth while to judge.

    The definition, evaluated in float64, stands in for the truth. Where it is itself judged, and in float64, the mean
    of its values at neighbours does, ``_APART`` roundings away. What is too steep to say anything counts as 0, and NaN
    as infinite.
    """
    dtype = cases.rho.dtype
    info = np.finfo(dtype)
    at, got = question.answers(cases)
    x, logit_q, beta = (values.astype(np.float64) for values in (at.rho, at.logit_q, at.beta))
    outside = _outside(x, question.kind) if question.of_zeta else np.zeros(len(x), dtype=bool)
    x = np.where(outside, 0.0, x)
    ends = (0.0, 1.0) if not question.of_zeta or REFERENCE[question.kind].unit_interval else (-np.inf, np.inf)
    apart = 1 if dtype == np.float32 else _APART
    step = apart * float(info.eps)

    here = question.definition(x, logit_q, beta)
    moved = []
    with np.errstate(over="ignore"):
        for factor in (1 - step, 1 + step):
            there = x * factor
            moved.append(
                question.definition(np.where((there >= ends[0]) & (there <= ends[1]), there, x), logit_q, beta)
            )
        moved += [question.definition(x, logit_q * factor, beta) for factor in (1 - step, 1 + step)]
    by_beta = [question.definition(x, logit_q, beta * f) for f in (1 - step, 1 + step)] if question.rounds_beta else []
    errors = {}
    for name in question.outputs:
        value, neighbours = here[name], [outputs[name] for outputs in moved]
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            changes = [np.nan_to_num(np.abs(there - value), nan=0.0, posinf=0.0) for there in neighbours]
            change = np.maximum(changes[0], changes[1]) + np.maximum(changes[2], changes[3])
            if name in question.rounds_beta:
                change = change + np.max([np.nan_to_num(np.abs(there[name] - value)) for there in by_beta], axis=0)
            steady = change <= _STEADY * np.abs(value)
            if question.is_definition and dtype == np.float64:
                value = np.mean(neighbours, axis=0)
            elif not name.startswith("dzeta"):
                steady = np.ones(len(x), dtype=bool)
            given = got[name].astype(np.float64)
            scale = float(info.eps) * np.abs(value) + change / apart + float(info.smallest_subnormal)
            error = np.where(np.isfinite(value) & steady, np.abs(given - value) / scale, 0.0)
        # A value that overflows, or a derivative that may saturate, is left to the judge.
        unclear = ~np.isfinite(value) | (np.abs(value) > float(info.max))
        errors[name] = np.where(unclear, 0.0, np.where(outside | ~np.isfinite(given), np.inf, error))
    return errors


def worst_found(question: Question, dtype: DTypeLike, seed: int, quick: bool) -> Judge:
    """Look for the worst cases of an operation: on the edges, at random, and from there uphill.

    First by the stand-in of ``estimates`` and in great numbers, from which the worst are judged; then by the judge.
    Costs    about ``_JUDGING_MS`` and ``_SCREENING_MS``; the number of cases depends on the kind alone.
    """
    kind, n_outputs = question.kind, len(question.outputs)
    name = f"{question.first} {kind} {np.dtype(dtype).name}"  # not the subject's: all meet the same cases
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    judge = Judge(question)

    def taken(cases: Cases) -> Cases:
        if question.first == "rho":
            return cases
        return zeta_cases(cases, dtype, int(rng.integers(2**32)), question.unit_interval)

    def drawn(n: int) -> Cases:
        return taken(random_cases(n, dtype, int(rng.integers(2**32))))

    edges = edge_cases(dtype)
    order = rng.permutation(len(edges))
    edges = taken(Cases(edges.rho[order], edges.logit_q[order], edges.beta[order]))
    cost = _FORWARD_MS * n_outputs if question.of_zeta else _TRUTH_MS[kind]
    share = 1 if question.is_definition or not question.of_zeta else 2
    n_judged = int(_JUDGING_MS[quick] / cost / share)
    n_screened = min(_MOST_SCREENED, int(1000 * _SCREENING_MS[quick] / (6 * _DEFINITION_US[kind])))

    some, draws = edges[: n_judged // 5], drawn(n_judged // 5)
    errors = [judge(some, "on the grid"), judge(draws, "at random")]
    known = some + draws

    many = drawn(n_screened // 2)
    if question.one_beta_a_call:
        many = few_sharpnesses(many, min(700, len(many) // 20))
    many = edges[: n_screened // 8] + many
    uphill = partial(climb, rng=rng, unit_interval=question.unit_interval, enough=_ENOUGH)
    stand_in = partial(estimates, question)
    effort = _effort(n_screened // 3, n_outputs, _ROUNDS[quick])
    many, estimated = uphill(stand_in, many, stand_in(many), effort)
    n_each = max(1, n_judged // 5 // n_outputs)
    # What is plainly wrong anywhere needs few witnesses.
    chosen = {
        i
        for values in estimated.values()
        for i in worst_apart(many, values, n_each if values.max() < _ENOUGH else min(n_each, _WITNESSES))
    }
    if chosen:
        promising = many[np.isin(np.arange(len(many)), list(chosen))]
        errors.append(judge(promising, "by search"))
        known += promising

    together = {name: np.concatenate([values[name] for values in errors]) for name in question.outputs}
    effort = _effort(2 * n_judged // 5, n_outputs, _ROUNDS[quick])
    uphill(partial(judge, how="by search"), known, together, effort)
    return judge


def _effort(n_cases: int, n_outputs: int, rounds: int) -> Effort:
    """About so many cases in all, with at least a few moves around each."""
    each = max(1, n_cases // (rounds * n_outputs))
    parents = max(1, min(8, each // 8))
    return Effort(parents, max(1, each // parents), rounds)


# ---- the check -------------------------------------------------------------------------------------------------------

_MAP_BETAS = (2.0, 8.0, 20.0)
_MAP_SIZE = {"float32": 40, "float64": 20}
_MAP_SIZE_OF_SLOW_TRUTHS = 12


def perform(task: Task) -> Iterator[Finding | ErrorMap]:
    """The worst of each output, or what there is at ``task.at``; then the maps, where they are wanted."""
    dtype = np.dtype(task.dtype)
    for question in questions(task):
        if task.at:
            judge = Judge(question)
            judge(parse_at(task.at).cases(dtype), "as asked for")
        else:
            judge = worst_found(question, dtype, task.seed, task.quick)
        yield from judge.findings()
    if task.maps and task.operation == INVERSE and not task.at:
        question = questions(task)[0]
        for beta in _MAP_BETAS:
            yield error_map(task.subject, question, dtype, beta)


def error_map(subject: str, question: Question, dtype: np.dtype[Any], beta: float) -> ErrorMap:
    """The largest error of an inverse CDF's outputs over a grid of logits and noise.

    In float32 by ``estimates``, with the definition for the truth, on 40 x 40 points. In float64 by the judge, on
    20 x 20 points, or 12 x 12 where the truth is slow.
    Logits reach to 20 or 1.5 beta; rho is a sigmoid's value, which shows both ends and the middle.
    """
    size = _MAP_SIZE[dtype.name]
    if dtype == np.float64 and _TRUTH_MS[question.kind] > 5:
        size = _MAP_SIZE_OF_SLOW_TRUTHS
    reach = max(20.0, 1.5 * beta)
    rho = expit(np.linspace(-15, 15, size)).astype(dtype)
    logit_q = np.linspace(-reach, reach, size).astype(dtype)
    logits, noise = (grid.ravel() for grid in np.meshgrid(logit_q, rho, indexing="ij"))
    cases = Cases(noise, logits, np.full(size * size, beta, dtype=dtype))
    errors = estimates(question, cases) if dtype == np.float32 else Judge(question)(cases, "on a map")
    worst = np.max(list(errors.values()), axis=0).reshape(size, size)
    return ErrorMap(
        subject,
        question.kind,
        dtype.name,
        beta,
        tuple(rho.tolist()),
        tuple(logit_q.tolist()),
        tuple(tuple(row) for row in worst.tolist()),
        TRANSFORM_MIXED_ERROR,
    )
