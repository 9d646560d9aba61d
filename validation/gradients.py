"""Derivatives that are claimed against derivatives that are measured, in float64.

Three kinds of judge, and what a claim is allowed to be off by:

* **difference quotients** of the function's own values: the quotient's estimated error, and nothing more
  (``validation.derivatives.differences``). Where that is not small against the derivative nothing was measured, and
  the check fails
* **complex steps** of the textbook form (``validation.derivatives.textbook``), and **other claims** of the same
  derivative (hand-written against automatic, twin against reference): roundings of a sum of as many terms
* ``torch.autograd.gradcheck``, at torch's own tolerances: passed or not

Who claims what: the reference its analytic gradients and the hand-written backward pass of ``reference.tiny_model``;
the torch twins what automatic differentiation finds; a backend the derivatives that its kernels return, which torch
meets through ``dvaepp.bridge``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import accelerated
import dvaepp.boltzmann
import dvaepp.likelihoods
import dvaepp.normal
import dvaepp.objective
import dvaepp.smoothing
from accelerated import Backend
from accelerated.backends.numpy_oracle import NumpyOracle
from accelerated.protocol import Machine
from dvaepp import bridge
from dvaepp.models.feedforward import DiscreteVAE
from reference import boltzmann, boltzmann_kl, likelihoods, normal, tiny_model
from reference.smoothing import OverlappingExponential
from reference.vocabulary import RBM, Array
from validation import agreement, torch_twin
from validation.accuracy import REFERENCE as REFERENCE_CLASSES
from validation.accuracy import backend_inverse_cdf, parse_at, reference_inverse_cdf
from validation.cases import Cases, few_sharpnesses, random_cases
from validation.derivatives import torch_tiny_model
from validation.derivatives.differences import REACH, Measured, Path, Quotients, complex_step, quotients, slope
from validation.derivatives.textbook import GRADIENTS, Gradient
from validation.derivatives.torch_tiny_model import NAMES, TinyModel
from validation.rows import Finding, Request, Subject, Task
from validation.subjects import REFERENCE, backend
from validation.tolerances import DERIVATIVE_RESOLUTION, MEASURED_ERRORS, TRANSFORM_MIXED_ERROR, sum_error
from validation.torch_twin import TORCH, TORCH_NUMBER

ERRORS = "errors of the difference quotient"
FAILURES = "failures"

_EPS = float(np.finfo(np.float64).eps)
_ANY_ORDER = 1e-10  # of the terms of a sum on a device, for gradcheck
_DERIVATIVES = ("dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta")
_LARGEST_STEP, _N_STEPS = 0.05, 3  # for smooth functions of numbers of about 1

#: What is asked of a subject that is no backend, beside ``inverse_cdf``; a backend is asked for what it offers of
#: ``_OF_BACKENDS``.
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    REFERENCE: (*GRADIENTS, "objective"),
    TORCH: (
        *("nu", "entropy", "cross_entropy", "log_partition", "normal", "likelihoods"),
        *("objective", "training_loss"),
    ),
    TORCH_NUMBER: (),
}
_OF_BACKENDS = ("entropy", "cross_entropy_gradients")


def tasks(subject: Subject, request: Request) -> list[Task]:
    """One for each kind's inverse CDF, and one for each other operation; a single input is one of the former's.

    Raises   ConfigError for a single input that is none.
    """
    if "float64" not in request.dtypes or (request.at and parse_at(request.at).operation != "inverse_cdf"):
        return []
    others = OPERATIONS.get(subject.name, tuple(name for name in _OF_BACKENDS if name in subject.operations))
    kinds = [kind for kind in request.kinds if kind in subject.kinds and "inverse_cdf" in subject.operations]
    wanted = [("inverse_cdf", kind) for kind in kinds] + [(name, "") for name in others if not request.at]
    return [
        Task("gradients", subject.name, operation, kind, "float64", request.seed, request.quick, request.at)
        for operation, kind in wanted
        if request.wants(operation)
    ]


def perform(task: Task) -> Iterator[Finding]:
    """Measure what the task's operation claims."""
    rng = np.random.default_rng([task.seed, zlib.crc32(f"gradients {task.operation} {task.kind}".encode())])
    if task.operation == "inverse_cdf":
        yield from _inverse_cdf(task, rng)
    elif task.operation in ("objective", "training_loss"):
        yield from {
            (REFERENCE, "objective"): _hand_written,
            (TORCH, "objective"): _automatic,
            (TORCH, "training_loss"): _training_loss,
        }[task.subject, task.operation](rng, task.quick)
    elif task.subject == REFERENCE:
        for gradient in GRADIENTS[task.operation](rng):
            yield from analytic(gradient, task.quick)
    elif task.subject == TORCH:
        for differentiable in _TWINS[task.operation](rng):
            yield from automatic(differentiable, task.quick)
    else:
        yield from _sums(backend(task.subject), task, rng)


# ---- verdicts --------------------------------------------------------------------------------------------------------


def against_quotients(
    output: str, claimed: Array, measured: Measured, scale: Array | float | None = None, at: Sequence[str] = ()
) -> Finding:
    """A claim in units of the measurement's error, where this is small against ``scale`` (else infinite).

    ``scale``: the largest measured entry, if nothing else is said. ``at``: the inputs of each entry, as ``--at`` takes
    them.
    """
    expected = np.asarray(measured.value)
    claimed = np.broadcast_to(claimed, expected.shape)
    scale = np.max(np.abs(expected), initial=0.0) if scale is None else scale
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(measured.error == 0, 0.0, measured.error / scale)
        error = np.where(claimed == expected, 0.0, np.abs(claimed - expected) / measured.error)
    resolved = relative <= DERIVATIVE_RESOLUTION
    error = np.where(resolved & np.isfinite(claimed) & ~np.isnan(error), error, np.inf)
    i = _worst(error)
    told = _told(i, claimed, expected)
    told += f"; measured to {np.max(relative):.0e}" if resolved[i] else f", but measured to {relative[i]:.0e} only"
    where = at[i[0]] if at else ""
    return Finding(
        output, float(error[i]), MEASURED_ERRORS, told, ERRORS, True, where, float(claimed[i]), float(expected[i])
    )


def against_another(output: str, claimed: Array, expected: Array, n_terms: int) -> Finding:
    """A claim in roundings of the largest entry of another, both sums of ``n_terms`` terms."""
    size = np.max(np.abs(expected), initial=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(claimed == expected, 0.0, np.abs(claimed - expected) / (_EPS * size))
    error = np.where(np.isfinite(claimed) & ~np.isnan(error), error, np.inf)
    i = _worst(error)
    told = _told(i, claimed, expected)
    return Finding(
        output, float(error[i]), sum_error(n_terms), told, got=float(claimed[i]), expected=float(expected[i])
    )


def _worst(error: Array) -> tuple[int, ...]:
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(error)), error.shape))


def _told(i: tuple[int, ...], claimed: Array, expected: Array) -> str:
    entry = f"entry {i[0] if len(i) == 1 else i}: " if i else ""
    return f"{entry}got {float(claimed[i])!r}, expected {float(expected[i])!r}"


# ---- the inverse CDF -------------------------------------------------------------------------------------------------


def interior_cases(n: int, n_sharpnesses: int, rng: np.random.Generator) -> Cases:
    """Cases whose derivatives a difference can measure: away from the ends, and from where a sharp zeta jumps.

    That is at rho = 1 - q. One rho in four is within a tenth of it, and none within 1 / 100: what happens there, on
    scales of down to e^(-beta/2), is for ``validation.accuracy``. One in four is close to an end.
    """
    beta = np.exp(np.linspace(np.log(0.05), np.log(30.0), n_sharpnesses))[rng.integers(n_sharpnesses, size=n)]
    logit_q = 3 * rng.standard_normal(n)
    jump = 1 / (1 + np.exp(logit_q))
    near_end = 10 ** rng.uniform(-4, -1, n)
    places = [rng.uniform(0.01, 0.99, n)] * 4 + [jump * (1 + 0.1 * rng.standard_normal(n))] * 2
    rho = np.clip(np.choose(rng.integers(8, size=n), [*places, near_end, 1 - near_end]), 1e-4, 1 - 1e-4)
    least = 0.01 * np.minimum(jump, 1 - jump)
    away = np.where(rho < jump, np.minimum(rho, jump - least), np.maximum(rho, jump + least))
    return Cases(away, logit_q, beta)


def measured_inverse_cdf(
    zeta: Callable[[Array, Array, Array], Array], cases: Cases, kind: str
) -> dict[str, tuple[Measured, Array]]:
    """The three derivatives of a zeta(rho, logit_q, beta), each with the scale it is measured on.

    Values of zeta are taken to keep ``TRANSFORM_MIXED_ERROR``. A Concrete's beta is its temperature, and the derivative
    one by 1 / temperature.
    """
    inverted = REFERENCE_CLASSES[kind].sharpness == "temperature"
    inputs = {"rho": cases.rho, "logit_q": cases.logit_q, "beta": 1 / cases.beta if inverted else cases.beta}
    largest = largest_steps(inputs)
    tables: dict[str, Quotients] = {}
    for name in inputs:

        def moved(t: Array, name: str = name) -> Array:
            rho, logit_q, sharpness = (value + t if key == name else value for key, value in inputs.items())
            return zeta(rho, logit_q, 1 / sharpness if inverted else sharpness)

        tables[name] = quotients(moved, largest[name])
    # What one rounding of each input does to zeta is allowed as an error of zeta, and has to be measured first.
    errors = {name: TRANSFORM_MIXED_ERROR * _EPS * table.size for name, table in tables.items()}
    moves: Any = 0.0
    for name, table in tables.items():
        first = np.abs(table.best(errors[name]).value * inputs[name])
        moves = moves + np.where(np.isfinite(first), first, 0.0)
    measured = {}
    for name, table in tables.items():
        found = table.best(errors[name] + TRANSFORM_MIXED_ERROR * _EPS * moves)
        # Where zeta hardly depends on an input, its change over a step is what a derivative can be compared with.
        measured[f"dzeta_d{name}"] = found, np.abs(found.value) + table.size[0] / largest[name]
    return measured


def largest_steps(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Steps that stay inside the domain and are not far above the scale on which zeta changes."""
    return {
        "rho": np.minimum(inputs["rho"], 1 - inputs["rho"]) / (REACH + 1),
        "logit_q": np.full_like(inputs["logit_q"], 0.25),
        "beta": inputs["beta"] / (2 * REACH),
    }


def _inverse_cdf(task: Task, rng: np.random.Generator) -> Iterator[Finding]:
    """A subject's derivatives against differences of its own zeta; torch's and the backends' also through torch."""
    kind = task.kind
    cases = (
        parse_at(task.at).cases(np.dtype(np.float64))
        if task.at
        else interior_cases(60 if task.quick else 500, 2 if task.quick else 8, rng)
    )
    subject = None if task.subject == REFERENCE else backend(task.subject)

    def outputs(rho: Array, logit_q: Array, beta: Array) -> Mapping[str, Any]:
        if subject is None:
            return reference_inverse_cdf(rho, logit_q, beta, kind)
        return backend_inverse_cdf(subject, kind, rho, logit_q, beta)

    claims = outputs(cases.rho, cases.logit_q, cases.beta)
    measured = measured_inverse_cdf(lambda *inputs: outputs(*inputs)["zeta"], cases, kind)
    inputs = zip(cases.rho.tolist(), cases.logit_q.tolist(), cases.beta.tolist(), strict=True)
    at = [f"rho={rho!r}, logit_q={logit_q!r}, beta={beta!r}" for rho, logit_q, beta in inputs]
    wanted = _DERIVATIVES if task.subject != TORCH_NUMBER else _DERIVATIVES[:2]
    for name in wanted:
        yield against_quotients(f"{name}, differences", claims[name], *measured[name], at)
    if task.at or subject is None:
        return
    if task.subject in (TORCH, TORCH_NUMBER):
        some = few_sharpnesses(random_cases(300 if task.quick else 3000, np.float64, task.seed), 10)
        for finding in agreement.disagreements(agreement.inverse_cdf(subject, kind), some):
            if finding.output in wanted:
                yield replace(finding, output=f"{finding.output}, reference")
    if task.subject in (TORCH, TORCH_NUMBER) or task.subject in accelerated.names():
        yield _gradcheck_inverse_cdf(task, subject.device, rng)


def _gradcheck_inverse_cdf(task: Task, device: str, rng: np.random.Generator) -> Finding:
    """A few inputs through torch, far enough from the ends and from kinks for the steps of gradcheck."""
    rho, logit_q = rng.uniform(0.1, 0.9, (3, 4)), rng.standard_normal((3, 4))
    if task.kind == "spike_exponential":  # beyond the spike, which ends at rho = 1 - q
        rho, logit_q = 0.85 + rho / 8, logit_q / 4
    number = 0.4 if task.kind == "power" else 3.0
    inputs = [torch.tensor(x, device=device, requires_grad=True) for x in (rho, logit_q, np.array(number))]

    def sample(rho: Tensor, logit_q: Tensor, beta: Tensor | float = number) -> Tensor:
        if task.subject in (TORCH, TORCH_NUMBER):
            return torch_twin.smoothing(task.kind, beta).inverse_cdf(rho, logit_q)
        return bridge.inverse_cdf(task.kind, rho, logit_q, beta, task.subject)

    if task.subject == TORCH_NUMBER:
        inputs.pop()
    return gradcheck("gradcheck", sample, inputs, task.quick)


def gradcheck(output: str, function: Callable[..., Tensor], inputs: Sequence[Tensor], quick: bool = False) -> Finding:
    """Torch's own check, at its own tolerances; whatever the function raises is its verdict too."""
    try:
        torch.autograd.gradcheck(function, tuple(inputs), nondet_tol=_ANY_ORDER, fast_mode=quick)
    except Exception as error:
        return Finding(output, np.inf, 0.0, " ".join(str(error).split())[:200], FAILURES)
    return Finding(output, 0.0, 0.0, "", FAILURES)


# ---- functions of rows: the reference's, and the sums of backends ----------------------------------------------------


def directions(shape: tuple[int, ...], quick: bool) -> Array:
    """Ways to move an array, (n, *shape): one entry after the other; in a quick run once, all of them together."""
    size = int(np.prod(shape))
    # Irregular, so that no two entries can stand in for each other.
    ways = np.cos(1.0 + np.arange(size))[None] if quick else np.eye(size)
    return ways.reshape(-1, *shape)


def _judged(output: str, claimed: Array, measured: Measured, quick: bool) -> Finding:
    """A gradient, or the slope that it has along the one way of a quick run, whose terms may cancel."""
    if not quick:
        return against_quotients(output, claimed, measured)
    terms = claimed * directions(claimed.shape, quick)[0]
    scale = np.maximum(np.abs(measured.value), np.abs(terms).sum())
    return against_quotients(output, terms.sum(), measured, scale)


def _stacked(each: Sequence[Measured], shape: tuple[int, ...]) -> Measured:
    value, error = (np.stack(part).reshape(shape) for part in zip(*each, strict=True))
    return Measured(value, error)


def analytic(gradient: Gradient, quick: bool = False) -> Iterator[Finding]:
    """Every derivative that is claimed, against differences of the function and complex steps of its textbook form."""
    for name, claimed in gradient.claimed.items():
        output, x = f"{gradient.output} by {name}", gradient.inputs[name]
        rows = x if name in gradient.shared else x[0]
        ways, shape = directions(rows.shape, quick), claimed.shape[:1] if quick else claimed.shape
        along = claimed.reshape(len(claimed), -1) @ ways.reshape(len(ways), -1).T

        def path(function: Callable[..., Array], way: Array, name: str = name, x: Array = x) -> Path:
            return lambda t: np.asarray(function(**{**gradient.inputs, name: x + t * way}))

        if gradient.value is not None:
            roundings, largest = sum_error(gradient.n_terms), np.abs(x).max()
            each = [
                slope(path(gradient.value, way), _LARGEST_STEP, roundings, gradient.size, largest, _N_STEPS)
                for way in ways
            ]
            value, error = (np.stack(part, axis=1).reshape(shape) for part in zip(*each, strict=True))
            scale = (np.abs(claimed.reshape(len(claimed), -1)) @ np.abs(ways[0]).ravel()).max() if quick else None
            yield against_quotients(f"{output}, differences", along.reshape(shape), Measured(value, error), scale)
        if gradient.textbook is not None:  # takes no time: entry by entry
            steps = [complex_step(path(gradient.textbook, way)) for way in directions(rows.shape, quick=False)]
            exact = np.stack(steps, axis=1).reshape(claimed.shape)
            yield against_another(f"{output}, complex step", claimed, exact, gradient.n_terms)


def _sums(subject: Backend, task: Task, rng: np.random.Generator) -> Iterator[Finding]:
    """A backend's entropies and cross-entropies, each against its own derivatives; then through torch."""
    for gradient in _entropies(subject, rng) if task.operation == "entropy" else _cross_entropies(subject, rng):
        yield from analytic(gradient, task.quick)
    if task.subject not in accelerated.names():
        return

    def leaf(array: Array) -> Tensor:
        return torch.tensor(array, device=subject.device, requires_grad=True)

    if task.operation == "entropy":
        logit_q = leaf(rng.standard_normal((5, 4)))
        yield gradcheck("gradcheck", lambda logit_q: bridge.entropy(logit_q, task.subject), [logit_q], task.quick)
        return
    inputs = [leaf(rng.standard_normal(shape)) for shape in ((3,), (3,), (3, 3))]
    inputs += [leaf(rng.uniform(0.1, 0.9, (5, 6))) for _ in range(2)]
    for n_groups in (1, 2, 3):

        def energies(*tensors: Tensor, n_groups: int = n_groups) -> Tensor:
            a1, a2, W, mu, nu = tensors
            return bridge.cross_entropy(a1, a2, W, mu, nu, n_groups, task.subject)

        yield gradcheck(f"groups: {n_groups}; gradcheck", energies, inputs, task.quick)


def _entropies(subject: Backend, rng: np.random.Generator) -> Iterator[Gradient]:
    for n_units in (1, 7):
        logit_q = 3 * rng.standard_normal((9, n_units))

        def value(logit_q: Array) -> Array:
            return np.asarray(subject.to_numpy(subject.entropy(subject.asarray(logit_q)).value))

        found = subject.to_numpy(subject.entropy(subject.asarray(logit_q)).dvalue_dlogit_q)
        name = f"{n_units} units; entropy" if n_units > 1 else "1 unit; entropy"
        yield Gradient(name, {"logit_q": logit_q}, {"logit_q": found}, None, value, n_units)


def _cross_entropies(subject: Backend, rng: np.random.Generator) -> Iterator[Gradient]:
    """Cross-entropies are linear in every single entry: differences are exact up to rounding."""
    for n1, n2, n_groups in ((3, 3, 1), (3, 3, 2), (3, 3, 3), (2, 4, 3), (1, 3, 4)):
        upstream = rng.standard_normal(5)
        mu, nu = rng.uniform(0.25, 0.75, (2, 5, n1 + n2))
        inputs = {"mu": mu, "nu": nu}
        inputs |= {"a1": rng.standard_normal(n1), "a2": rng.standard_normal(n2), "W": rng.standard_normal((n1, n2))}

        def arrays(inputs: Mapping[str, Array]) -> tuple[Machine, Any, Any]:
            on = {name: subject.asarray(array) for name, array in inputs.items()}
            return Machine(on["a1"], on["a2"], on["W"]), on["mu"], on["nu"]

        def value(n_groups: int = n_groups, upstream: Array = upstream, **inputs: Array) -> Array:
            rows = subject.to_numpy(subject.cross_entropy(*arrays(inputs), n_groups))
            return np.array([upstream @ rows])

        found = subject.cross_entropy_gradients(*arrays(inputs), n_groups, subject.asarray(upstream))
        claimed = {name: subject.to_numpy(getattr(found, name))[None] for name in inputs}
        if n_groups == 1:  # nothing depends on nu
            del claimed["nu"]
        sizes = RBM(*(-np.abs(inputs[name]) for name in ("a1", "a2", "W")))
        size = np.abs(upstream) @ boltzmann_kl.cross_entropy(sizes, mu, nu, n_groups)
        name = f"{n1} x {n2}, groups: {n_groups}; cross-entropy"
        yield Gradient(name, inputs, claimed, None, value, 5 * (n1 + n2 + n1 * n2), size, tuple(inputs))


# ---- torch -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Differentiable:
    """Something torch differentiates: the sum of ``upstream`` times a function of ``inputs``, leaves moved in place.

    expected  what the reference claims for some of them
    n_terms   how many terms are added up on the way, at most; ``size`` bounds the sum of their sizes
    """

    output: str
    function: Callable[[], Tensor]
    inputs: Mapping[str, Tensor]
    upstream: Tensor
    n_terms: int
    size: float
    expected: Mapping[str, Array]

    def loss(self) -> Tensor:
        """The sum."""
        return (self.upstream * self.function()).sum()

    def measured(self, tensor: Tensor, quick: bool) -> Measured:
        """Its derivatives along ``directions`` of one input."""
        here, each = tensor.detach().clone(), []
        roundings, largest = sum_error(self.n_terms), float(here.abs().max())
        for way in torch.tensor(directions(tuple(here.shape), quick)):

            def moved(t: float, way: Tensor = way) -> Array:
                with torch.no_grad():
                    tensor.copy_(here + t * way)
                    value = self.loss().item()
                    tensor.copy_(here)
                return np.asarray(value)

            each.append(slope(moved, _LARGEST_STEP, roundings, self.size, largest, _N_STEPS))
        return _stacked(each, () if quick else tuple(here.shape))


def automatic(one: Differentiable, quick: bool = False) -> Iterator[Finding]:
    """What automatic differentiation finds, against differences, the reference, and torch's own check."""
    head = f"{one.output}; " if one.output else ""
    gradients = torch.autograd.grad(one.loss(), list(one.inputs.values()), allow_unused=True, materialize_grads=True)
    for (name, tensor), gradient in zip(one.inputs.items(), gradients, strict=True):
        yield _judged(f"{head}{name}, differences", gradient.numpy(), one.measured(tensor, quick), quick)
        if name in one.expected:
            yield against_another(f"{head}{name}, reference", gradient.numpy(), one.expected[name], one.n_terms)
    yield gradcheck(f"{head}gradcheck", lambda *_: one.function(), list(one.inputs.values()), quick)


def _leaf(array: Array) -> Tensor:
    return torch.tensor(array, requires_grad=True)


def _twin_of(rbm: RBM) -> dvaepp.boltzmann.RBM:
    twin = dvaepp.boltzmann.RBM(rbm.n1, rbm.n2).double()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(torch.tensor(getattr(rbm, name)))
    return twin


def _random_rbm(rng: np.random.Generator, n1: int, n2: int) -> RBM:
    return RBM(rng.standard_normal(n1), rng.standard_normal(n2), rng.standard_normal((n1, n2)))


def _nu(rng: np.random.Generator) -> Iterator[Differentiable]:
    zeta, logit_q, beta = _leaf(rng.uniform(0.1, 0.9, (3, 4))), _leaf(rng.standard_normal((3, 4))), _leaf(np.array(3.0))
    upstream = torch.tensor(rng.standard_normal((3, 4)))

    def function() -> Tensor:
        return dvaepp.smoothing.nu(dvaepp.smoothing.OverlappingExponential(beta), zeta, logit_q)

    inputs = {"zeta": zeta, "logit_q": logit_q, "beta": beta}
    yield Differentiable("", function, inputs, upstream, 12, float(upstream.abs().sum()), {})


def _entropy(rng: np.random.Generator) -> Iterator[Differentiable]:
    logits, weight = 3 * rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    leaf = _leaf(logits)
    # softplus(l) - l sigma(l): two terms of the size of the logit
    size = float(np.abs(weight * (1 + 2 * np.abs(logits))).sum())
    slopes = weight * NumpyOracle().entropy(logits).dvalue_dlogit_q
    yield Differentiable(
        "",
        lambda: dvaepp.boltzmann.entropy(leaf),
        {"logit_q": leaf},
        torch.tensor(weight),
        12,
        size,
        {"logit_q": slopes},
    )


def _cross_entropy(rng: np.random.Generator) -> Iterator[Differentiable]:
    for n_groups in (1, 2, 3):
        rbm, upstream = _random_rbm(rng, 3, 3), rng.standard_normal(4)
        twin, (mu, nu) = _twin_of(rbm), rng.uniform(0.1, 0.9, (2, 4, 6))
        claims = NumpyOracle().cross_entropy_gradients(rbm, mu, nu, n_groups, upstream)
        size = 2 * sum(np.abs(getattr(rbm, name)).sum() for name in ("a1", "a2", "W")) * np.abs(upstream).sum()
        inputs = {"mu": _leaf(mu), "nu": _leaf(nu), **dict(twin.named_parameters())}

        def function(
            twin: dvaepp.boltzmann.RBM = twin, inputs: Mapping[str, Tensor] = inputs, n_groups: int = n_groups
        ) -> Tensor:
            return dvaepp.boltzmann.cross_entropy(twin, inputs["mu"], inputs["nu"], n_groups)

        if n_groups == 1:  # nothing depends on nu
            inputs = {name: tensor for name, tensor in inputs.items() if name != "nu"}
        expected = {name: getattr(claims, name) for name in inputs}
        weight = torch.tensor(upstream)
        yield Differentiable(f"groups: {n_groups}", function, inputs, weight, 4 * 15, float(size), expected)


def _log_partition(rng: np.random.Generator) -> Iterator[Differentiable]:
    """The surrogate and minus the mean energy, which have one gradient; log Z itself, by side 1's log-marginals."""
    rbm = _random_rbm(rng, 3, 2)
    twin, one = _twin_of(rbm), torch.ones((), dtype=torch.float64)
    z1, z2 = (torch.tensor(rng.integers(2, size=(7, n)).astype(float)) for n in (3, 2))
    inputs = dict(twin.named_parameters())
    names = ("a1", "a2", "W")
    of_samples = dict(zip(names, boltzmann.log_partition_gradient(rbm, z1.numpy(), z2.numpy()), strict=True))
    exact = dict(zip(names, boltzmann.marginals(rbm), strict=True))
    size = float(sum(np.abs(getattr(rbm, name)).sum() for name in names)) + 5 * np.log(2)

    def surrogate() -> Tensor:
        return dvaepp.objective.log_partition_surrogate(twin, z1, z2)

    yield Differentiable("surrogate", surrogate, inputs, one, 7 * 11, size, of_samples)
    yield Differentiable("energy", lambda: -twin.energy(z1, z2).mean(), inputs, one, 7 * 11, size, of_samples)
    yield Differentiable("log Z", lambda: torch_tiny_model.log_partition(twin), inputs, one, 8 * 11, size, exact)


def _normal(rng: np.random.Generator) -> Iterator[Differentiable]:
    names = "mean_q", "log_std_q", "mean_p", "log_std_p"
    arrays, upstream = rng.standard_normal((4, 3, 4)), rng.standard_normal((3, 4))
    inputs = {name: _leaf(array) for name, array in zip(names, arrays, strict=True)}
    expected = {name: upstream * part for name, part in zip(names, normal.kl_gradient(*arrays), strict=True)}
    yield Differentiable(
        "",
        lambda: dvaepp.normal.kl(*inputs.values()),
        inputs,
        torch.tensor(upstream),
        12,
        float((np.abs(upstream) * normal.kl(*arrays)).sum()),  # its terms are positive
        expected,
    )


def _likelihoods(rng: np.random.Generator) -> Iterator[Differentiable]:
    x, logits, upstream = (
        rng.integers(2, size=(3, 4)).astype(float),
        rng.standard_normal((3, 4)),
        rng.standard_normal(3),
    )
    leaf = _leaf(logits)
    gradient = upstream[:, None] * likelihoods.bernoulli_log_prob_gradient(x, logits)
    size = float(np.abs(upstream) @ -likelihoods.bernoulli_log_prob(x, logits))
    yield Differentiable(
        "",
        lambda: dvaepp.likelihoods.bernoulli_log_prob(torch.tensor(x), leaf),
        {"logits": leaf},
        torch.tensor(upstream),
        12,
        size,
        {"logits": gradient},
    )
    levels = rng.integers(8, size=(2, 3, 3)).astype(float)
    levels[0] = 0, 3, 7
    names = "logits", "means", "log_scales"
    yield _mixture(rng, "mixture", levels[..., 0], names)
    yield _mixture(rng, "colour_mixture", levels, (*names, "coefficients"))


def _mixture(rng: np.random.Generator, kind: str, x: Array, names: Sequence[str]) -> Differentiable:
    """Two components; pixels (2, 3) of 8 levels."""
    n_levels, pixels = 8, x.shape[:2]
    arrays = {name: rng.uniform(-1.5, 0.5, (*(pixels if name == "logits" else x.shape), 2)) for name in names}
    inputs, upstream = {name: _leaf(array) for name, array in arrays.items()}, rng.standard_normal(pixels)
    claims = getattr(likelihoods, f"{kind}_log_prob_gradient")(x, *arrays.values(), n_levels)
    weighted = [upstream.reshape(*pixels, *(1,) * (claim.ndim - 2)) * claim for claim in claims]
    twin, levels = getattr(dvaepp.likelihoods, f"{kind}_log_prob"), torch.tensor(x)
    # With shifts of up to 2 no intensity is farther than 4.5 from a mean, in scales of e^-1.5 and more.
    size = float(np.abs(upstream).sum()) * 3 * 4.5 * np.exp(1.5)
    return Differentiable(
        kind.replace("_", " "),
        lambda: twin(levels, *inputs.values(), n_levels),
        inputs,
        torch.tensor(upstream),
        x.size * 2 * 4,
        size,
        dict(zip(names, weighted, strict=True)),
    )


_TWINS: Mapping[str, Callable[[np.random.Generator], Iterator[Differentiable]]] = {
    "nu": _nu,
    "entropy": _entropy,
    "cross_entropy": _cross_entropy,
    "log_partition": _log_partition,
    "normal": _normal,
    "likelihoods": _likelihoods,
}


# ---- the objective, from end to end ----------------------------------------------------------------------------------


class TinyCase:
    """A random tiny model with a batch, upstream weights of both signs and a KL weight that is not 1."""

    kl_weight = 0.7

    def __init__(self, rng: np.random.Generator, n_side: int = 2, beta: float = 5.0) -> None:
        n_images, n_pixels, n_hidden = 3, 3, 2
        shapes = tiny_model.Parameters.init(np.zeros((1, n_pixels)), n_side, n_hidden, seed=0)
        self.parameters = shapes.map(lambda array: 0.8 * rng.standard_normal(array.shape))
        self.x = rng.integers(2, size=(n_images, n_pixels)).astype(float)
        self.rho = rng.uniform(0.05, 0.95, (n_images, 2 * n_side))
        self.upstream = rng.standard_normal(n_images)
        self.beta = beta
        self.n_terms = sum(getattr(self.parameters, name).size for name in NAMES)

    def forward(self, parameters: tiny_model.Parameters) -> tiny_model.Forward:
        """Its forward pass at these parameters."""
        return tiny_model.forward(parameters, self.x, self.rho, OverlappingExponential(self.beta))

    def loss(self, parameters: tiny_model.Parameters) -> Array:
        """What is differentiated, ()."""
        return np.asarray(self.upstream @ self.forward(parameters).bound(self.kl_weight))

    def backward(self, prior_means: boltzmann.Marginals | None = None) -> dict[str, Array]:
        """The hand-written gradient, with the exact gradient of log Z unless another is given."""
        means = boltzmann.marginals(self.parameters.prior) if prior_means is None else prior_means
        fwd = self.forward(self.parameters)
        gradient = tiny_model.backward(self.parameters, fwd, self.upstream, self.kl_weight, means)
        return {name: getattr(gradient, name) for name in NAMES}

    def autograd(self, log_partition: Callable[[dvaepp.boltzmann.RBM], Tensor]) -> dict[str, Array]:
        """The gradient that torch finds."""
        model, smoothing = TinyModel(self.parameters), dvaepp.smoothing.OverlappingExponential(self.beta)
        bounds = model.bounds(torch.tensor(self.x), torch.tensor(self.rho), smoothing, self.kl_weight, log_partition)
        named = model.by_name()
        gradients = torch.autograd.grad(torch.tensor(self.upstream) @ bounds, list(named.values()))
        return {name: gradient.numpy() for name, gradient in zip(named, gradients, strict=True)}

    def measured(self, name: str, quick: bool = False) -> Measured:
        """Its derivatives along ``directions`` of one of the parameters, by differences of the NumPy objective."""
        here, each = getattr(self.parameters, name), []
        fwd, prior = self.forward(self.parameters), self.parameters.prior
        # The bound's terms: likelihood's and entropies' are of one sign, an energy is no larger than its weights.
        of_kl = 4 * prior.n1 * np.log(2) + 2 * sum(np.abs(x).sum() for x in (prior.a1, prior.a2, prior.W))
        size = float(np.abs(self.upstream) @ (np.abs(fwd.log_likelihood) + of_kl))
        roundings, largest = sum_error(self.n_terms), float(np.abs(here).max())
        for way in directions(here.shape, quick):

            def moved(t: float, way: Array = way) -> Array:
                return self.loss(replace(self.parameters, **{name: here + t * way}))

            each.append(slope(moved, _LARGEST_STEP, roundings, size, largest, _N_STEPS))
        return _stacked(each, () if quick else tuple(here.shape))


def _hand_written(rng: np.random.Generator, quick: bool) -> Iterator[Finding]:
    """The backward pass of ``reference.tiny_model`` against differences of its own objective, by parameter."""
    case = TinyCase(rng)
    gradient = case.backward()
    for name in NAMES:
        yield _judged(f"{name}: backward, differences", gradient[name], case.measured(name, quick), quick)


def _automatic(rng: np.random.Generator, quick: bool) -> Iterator[Finding]:
    """Torch's gradient of the same objective against both; and with the gradient of log Z from samples."""
    case = TinyCase(rng)
    gradient, backward = case.autograd(torch_tiny_model.log_partition), case.backward()
    for name in NAMES:
        yield against_another(f"{name}: autograd, backward", gradient[name], backward[name], case.n_terms)
        if not quick:  # then the reference's own task measures the backward pass, and that is enough
            yield against_quotients(f"{name}: autograd, differences", gradient[name], case.measured(name))
    n_side = case.parameters.n_side
    z1, z2 = rng.integers(2, size=(2, 20, n_side)).astype(float)
    backward = case.backward(boltzmann.log_partition_gradient(case.parameters.prior, z1, z2))
    samples = torch.tensor(z1), torch.tensor(z2)
    gradient = case.autograd(lambda prior: dvaepp.objective.log_partition_surrogate(prior, *samples))
    for name in ("a1", "a2", "W"):
        output = f"{name}: autograd, backward; log Z from samples"
        yield against_another(output, gradient[name], backward[name], case.n_terms)


def _training_loss(rng: np.random.Generator, quick: bool) -> Iterator[Finding]:
    """The loss that is trained, of models of one and of two groups, in every parameter."""
    for n_groups in (2,) if quick else (1, 2):
        model = DiscreteVAE(3, 4, n_groups, (2,)).double().train()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.tensor(0.7 * rng.standard_normal(parameter.shape)))
            model.train_mean.copy_(torch.tensor(rng.uniform(0.2, 0.8, 3)))
        x, rho, z1, z2 = (
            torch.tensor(array)
            for array in (
                rng.integers(2, size=(6, 3)).astype(float),
                rng.uniform(0.05, 0.95, (6, 4)),
                *rng.integers(2, size=(2, 5, 2)).astype(float),
            )
        )

        def loss(model: DiscreteVAE = model, batch: tuple[Tensor, ...] = (x, rho, z1, z2)) -> Tensor:
            x, rho, z1, z2 = batch
            smoothing = dvaepp.smoothing.OverlappingExponential(5.0)
            return dvaepp.objective.terms(model, x, rho, smoothing, z1, z2).loss(0.7)

        inputs = dict(model.named_parameters())
        # Every term but the likelihood's and entropies', which are of one sign, is no larger than the prior's weights.
        of_prior = sum(float(parameter.detach().abs().sum()) for parameter in model.prior.parameters())
        size = abs(loss().item()) + 2 * (4 * np.log(2) + 2 * of_prior)
        n_terms = sum(tensor.numel() for tensor in inputs.values())
        one = torch.ones((), dtype=torch.float64)
        yield from automatic(Differentiable(f"groups: {n_groups}", loss, inputs, one, n_terms, size, {}), quick)
