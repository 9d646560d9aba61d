"""Smoothing transforms against multi-precision arithmetic.

The yardstick is the *mixed error* of a result g(rho, l):

    |g - g_true| / (eps |g_true| + D_rho + D_l + underflow)

D_rho and D_l are what one rounding of an input does to g: the largest change of g when rho, or l, moves by a relative
eps. Where g is straight on that scale, which is nearly everywhere, this is the first-order eps (|rho dg/drho| +
|l dg/dl|); where it is not (on the plateau between the two modes one rounding of rho can carry zeta from
0.05 to 0.95), the first-order term means nothing in either direction and the change itself is taken. An absolute error
would be blind for small g and a relative one unfair where g itself is ill-conditioned. ``underflow`` is the spacing of
the subnormal numbers, below which no floating-point result can be resolved.

The truth is computed here from the quadratic of the paper and from textbook derivatives, with enough digits that their
cancellations do not matter: a derivation independent of the stable forms it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import mpmath
import numpy as np
import torch
from numpy.typing import NDArray

import dvaepp.smoothing
import reference.smoothing
from reference.smoothing import InverseCDF

#: The outputs that are judged, in the order of ``InverseCDF``.
OUTPUTS = ("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta")

Floats: TypeAlias = NDArray[np.floating]
Outputs: TypeAlias = Mapping[str, Floats]


def reference_inverse_cdf(rho: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    """The NumPy definition: all outputs, each (N,) and of the dtype of the inputs."""
    result = reference.smoothing.OverlappingExponential(beta).inverse_cdf_with_derivatives(rho, logit_q)
    return {name: getattr(result, name) for name in OUTPUTS}


def torch_inverse_cdf(rho: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    """The torch twin with beta a tensor, derivatives by automatic differentiation with upstream gradient 1."""
    r, logit, b = (torch.tensor(x, requires_grad=True) for x in (rho, logit_q, beta))
    zeta = dvaepp.smoothing.OverlappingExponential(b).inverse_cdf(r, logit)
    results = (zeta.detach(), *torch.autograd.grad(zeta, (logit, r, b), torch.ones_like(zeta)))
    return {name: result.numpy() for name, result in zip(OUTPUTS, results, strict=True)}


def torch_inverse_cdf_of_number(rho: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    """The torch twin with beta a number, as training uses it; its branches are then chosen beforehand, not by where."""
    outputs = {name: np.empty_like(rho) for name in OUTPUTS if name != "dzeta_dbeta"}
    for b in np.unique(beta):
        same = beta == b
        r, logit = (torch.tensor(x[same], requires_grad=True) for x in (rho, logit_q))
        zeta = dvaepp.smoothing.OverlappingExponential(float(b)).inverse_cdf(r, logit)
        results = (zeta.detach(), *torch.autograd.grad(zeta, (logit, r), torch.ones_like(zeta)))
        for output, result in zip(outputs.values(), results, strict=True):
            output[same] = result.numpy()
    return outputs


#: What is judged. Adding an implementation is adding a line.
IMPLEMENTATIONS: dict[str, Callable[[Floats, Floats, Floats], Outputs]] = {
    "reference": reference_inverse_cdf,
    "torch": torch_inverse_cdf,
    "torch-number": torch_inverse_cdf_of_number,
}


@dataclass(frozen=True)
class WorstCase:
    """The largest mixed error of one output and the input that causes it."""

    output: str
    mixed_error: float
    rho: float
    logit_q: float
    beta: float
    got: float
    expected: float

    @property
    def where(self) -> str:
        """The input, to be replayed."""
        return f"rho={self.rho!r}, logit_q={self.logit_q!r}, beta={self.beta!r}"

    def __str__(self) -> str:
        """One line that can be replayed."""
        return (
            f"{self.output}: mixed error {self.mixed_error:.2f} at {self.where}: "
            f"got {self.got!r}, expected {self.expected!r}"
        )


@lru_cache(maxsize=20_000)  # milliseconds each, and every implementation is judged on the same points
def exponential_truth(rho: float, logit_q: float, beta: float, eps: float) -> dict[str, tuple[mpmath.mpf, mpmath.mpf]]:
    """True value and D_rho + D_l (see the module's head) of every output of the overlapping exponentials.

    Shapes   scalars; the result maps each name of ``OUTPUTS`` to (value, change).
    """
    # d = e^{-beta} and p = e^{-|l|} meet 1 in the discriminant, whose square root is then subtracted from its like; and
    # rho meets 1 in e^{-beta zeta}. (1.1 digits for each unit of an exponent where 0.43 would hold one such meeting.)
    finite = abs(logit_q) if np.isfinite(logit_q) else 0.0
    smallness = -np.log(rho) if rho > 0 else 0.0
    with mpmath.workdps(int(60 + (beta + finite + smallness) / 1.1)):
        r, b = mpmath.mpf(rho), mpmath.mpf(beta)
        d, q = mpmath.exp(-b), _sigmoid(mpmath.mpf(logit_q))
        here = _exponential(r, q, b, d)
        # The inputs one rounding away, and the steepest point of the plateau (B = 0) if it lies between.
        moved_rho = [x for x in (r * (1 - eps), r * (1 + eps)) if x <= 1] if rho != 0 else []
        moved_q: list[mpmath.mpf] = []
        if np.isfinite(logit_q) and logit_q != 0:
            logit = mpmath.mpf(logit_q)
            moved_q = [_sigmoid(logit * (1 - eps)), _sigmoid(logit * (1 + eps))]
            steepest_rho = (1 - q - q * d) / (1 - d)
            if abs(steepest_rho - r) <= eps * r:
                moved_rho.append(steepest_rho)
            steepest_p = (r * (1 - d) + d) / (1 + d)
            steepest_logit = mpmath.log((1 - steepest_p) / steepest_p)
            if abs(steepest_logit - logit) <= eps * abs(logit):
                moved_q.append(1 - steepest_p)
        by_rho = [_exponential(x, q, b, d) for x in moved_rho]
        by_logit = [_exponential(r, x, b, d) for x in moved_q]
        truth = {}
        for i, name in enumerate(OUTPUTS):
            change = sum(
                max((abs(value[i] - here[i]) for value in by), default=mpmath.mpf(0)) for by in (by_rho, by_logit)
            )
            truth[name] = (+here[i], +change)
        return truth


def _sigmoid(logit: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-logit))  # also right at plus and minus infinity


def _exponential(rho: mpmath.mpf, q: mpmath.mpf, beta: mpmath.mpf, d: mpmath.mpf) -> tuple[mpmath.mpf, ...]:
    """The four outputs by the paper's quadratic and the quotient rule, in the working precision; d = e^{-beta}."""
    p = 1 - q
    B = rho * (1 - d) - p + q * d
    if rho == 0:
        m = mpmath.mpf(1)  # exactly, for zeta = 0 leaves no room for the noise of a finite working precision
    elif p == 0:
        m = q * d / B
    else:
        m = (-B + mpmath.sqrt(B * B + 4 * p * q * d)) / (2 * p)
    zeta = -mpmath.log(m) / beta
    w = d / m
    F0, F1 = (1 - m) / (1 - d), (w - d) / (1 - d)
    density = beta * (p * m + q * w) / (1 - d)
    dF0 = (zeta * m * (1 - d) - (1 - m) * d) / (1 - d) ** 2
    dF1 = ((-(1 - zeta) * w + d) * (1 - d) - (w - d) * d) / (1 - d) ** 2
    return zeta, p * q * (F0 - F1) / density, 1 / density, -(p * dF0 + q * dF1) / density


def mixed_errors(
    result: Outputs | InverseCDF,
    rho: Floats,
    logit_q: Floats,
    beta: Floats,
) -> dict[str, WorstCase]:
    """The worst mixed error of each output of the overlapping exponentials' inverse CDF.

    Shapes   rho, logit_q, beta and every output (N,), all in the dtype that is judged.
    Domain   NaN and infinities count as infinite error. Where the density between the modes is below twice the smallest
             normal number, derivatives saturate (see Departs in
             ``OverlappingExponential.inverse_cdf_with_derivatives``) and need only be finite, and not negative by rho
             and logit. zeta itself is judged everywhere.
    Returns  for each output present in ``result`` its worst case.
    """
    outputs = {n: getattr(result, n) for n in OUTPUTS} if isinstance(result, InverseCDF) else dict(result)
    dtype = next(iter(outputs.values())).dtype
    info = np.finfo(dtype)
    worst: dict[str, WorstCase] = {}
    for i, (r, logit, b) in enumerate(zip(rho.tolist(), logit_q.tolist(), beta.tolist(), strict=True)):
        truth = exponential_truth(r, logit, b, float(info.eps))
        flat = -np.expm1(-b) < 2 * float(info.tiny) * b * truth["dzeta_drho"][0]
        for name, values in outputs.items():
            expected, change = truth[name]
            got = float(values[i])
            scale = float(info.eps) * abs(expected) + change + float(info.smallest_subnormal)
            if not np.isfinite(got):
                error = float("inf")
            elif flat and name != "zeta":
                error = 0.0 if name == "dzeta_dbeta" or got >= 0 else float("inf")
            else:
                expected = min(max(expected, -float(info.max)), float(info.max))
                error = float(abs(got - expected) / scale)
            if name not in worst or error > worst[name].mixed_error:
                worst[name] = WorstCase(name, error, r, logit, b, got, float(expected))
    return worst
