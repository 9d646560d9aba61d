"""Torch twins against the reference, on the same inputs.

Cheaper than the judge of ``validation.accuracy``, for no truth is computed: it catches a twin that follows another
formula than its reference, in operations that have no multi-precision judge too. The measure is the mixed error with
the reference in the place of the truth,

    |twin - reference| / (eps |reference| + sum over inputs of D + underflow),

where D is the change of the reference for one rounding of that input: half the change when it moves by two numbers of
its dtype, for the reference itself need not resolve one. The reference's own rounding enters D, so that this is the
milder of the two measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

import dvaepp.smoothing
import reference.posterior
import reference.smoothing
from validation.accuracy import Floats, Outputs, reference_inverse_cdf, torch_inverse_cdf
from validation.cases import Cases


@dataclass(frozen=True)
class Operation:
    """One operation twice: both callables take the fields of ``Cases`` and return named outputs, each (N,)."""

    reference: Callable[[Floats, Floats, Floats], Outputs]
    twin: Callable[[Floats, Floats, Floats], Outputs]
    first: str = "rho"  # what the operation calls the number in [0, 1] that ``Cases`` calls rho
    comparable: Callable[[Cases], NDArray[np.bool_]] | None = None  # (N,), which cases; None: all


def _zeta_only(inverse_cdf: Callable[[Floats, Floats, Floats], Outputs]) -> Callable[..., Outputs]:
    return lambda *inputs: {"zeta": inverse_cdf(*inputs)["zeta"]}


def _derivatives_only(inverse_cdf: Callable[[Floats, Floats, Floats], Outputs]) -> Callable[..., Outputs]:
    return lambda *inputs: {name: x for name, x in inverse_cdf(*inputs).items() if name != "zeta"}


def _off_the_plateau(cases: Cases) -> NDArray[np.bool_]:
    """Where one rounding of an input moves beta zeta by little.

    On the plateau between the modes it does not: the derivatives then rise and fall by orders of magnitude between two
    neighbouring numbers, and only ``validation.accuracy``, which looks in between, can judge them.
    """
    result = reference.smoothing.OverlappingExponential(cases.beta).inverse_cdf_with_derivatives(
        cases.rho, cases.logit_q
    )
    logit_q = np.where(np.isfinite(cases.logit_q), cases.logit_q, 0)
    with np.errstate(over="ignore"):
        moved = cases.rho * result.dzeta_drho + np.abs(logit_q) * result.dzeta_dlogit_q
        return np.asarray(np.finfo(cases.rho.dtype).eps * cases.beta * moved < 0.1)


def _reference_nu(zeta: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    smoothing = reference.smoothing.OverlappingExponential(beta)
    return {"nu": reference.posterior.nu(smoothing, zeta, logit_q)}


def _torch_nu(zeta: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    x, logit, b = (torch.tensor(value) for value in (zeta, logit_q, beta))
    return {"nu": dvaepp.smoothing.nu(dvaepp.smoothing.OverlappingExponential(b), x, logit).numpy()}


#: Every operation with a twin. ``nu`` takes the cases' rho for its zeta: both are numbers in [0, 1], edges included.
OPERATIONS: dict[str, Operation] = {
    "inverse_cdf": Operation(_zeta_only(reference_inverse_cdf), _zeta_only(torch_inverse_cdf)),
    "inverse_cdf'": Operation(
        _derivatives_only(reference_inverse_cdf), _derivatives_only(torch_inverse_cdf), comparable=_off_the_plateau
    ),
    "nu": Operation(_reference_nu, _torch_nu, first="zeta"),
}


@dataclass(frozen=True)
class Disagreement:
    """The largest difference of one output and the input that causes it."""

    output: str
    mixed_error: float
    inputs: dict[str, float]
    got: float
    expected: float

    @property
    def where(self) -> str:
        """The input, to be replayed."""
        return ", ".join(f"{name}={value!r}" for name, value in self.inputs.items())


def disagreements(operation: Operation, cases: Cases) -> dict[str, Disagreement]:
    """The worst difference of each output of an operation.

    Returns  for each output its worst case; NaN on either side counts as infinite error.
    """
    if operation.comparable is not None:
        cases = cases[operation.comparable(cases)]
    info = np.finfo(cases.rho.dtype)
    expected = operation.reference(cases.rho, cases.logit_q, cases.beta)
    got = operation.twin(cases.rho, cases.logit_q, cases.beta)
    neighbours = [[operation.reference(x.rho, x.logit_q, x.beta) for x in pair] for pair in _two_numbers_away(cases)]
    worst = {}
    for name, truth in expected.items():
        here = truth.astype(np.float64)
        scale = float(info.eps) * np.abs(here) + float(info.smallest_subnormal)
        for pair in neighbours:
            scale = scale + np.max([np.abs(moved[name].astype(np.float64) - here) for moved in pair], axis=0) / 2
        difference = np.abs(got[name].astype(np.float64) - here)
        error = np.where(np.isfinite(difference), difference / scale, np.inf)
        i = int(np.argmax(error))
        inputs = {operation.first: cases.rho[i], "logit_q": cases.logit_q[i], "beta": cases.beta[i]}
        worst[name] = Disagreement(
            output=name,
            mixed_error=float(error[i]),
            inputs={argument: float(value) for argument, value in inputs.items()},
            got=float(got[name][i]),
            expected=float(here[i]),
        )
    return worst


def _two_numbers_away(cases: Cases) -> list[list[Cases]]:
    """For each input the cases with that input moved by two numbers down and up, inside its domain."""

    def moved(values: Floats) -> list[Floats]:
        ways = [values.dtype.type(way) for way in (-np.inf, np.inf)]
        return [np.nextafter(np.nextafter(values, way), way) for way in ways]

    return [
        [replace(cases, rho=np.clip(rho, 0, 1)) for rho in moved(cases.rho)],
        [replace(cases, logit_q=logit_q) for logit_q in moved(cases.logit_q)],
        [replace(cases, beta=beta) for beta in moved(cases.beta)],
    ]
