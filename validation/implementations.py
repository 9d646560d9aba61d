"""Who is judged: the reference, its torch twins, and every backend that can run here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

import accelerated
import dvaepp.smoothing
import reference.posterior
import reference.smoothing
from accelerated import Backend, BackendUnavailable
from validation.accuracy import OUTPUTS, Floats, Outputs, backend_inverse_cdf, reference_inverse_cdf
from validation.agreement import Operation


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


#: Implementations of the overlapping exponentials' inverse CDF that are no backend. Adding one is adding a line.
IMPLEMENTATIONS: dict[str, Callable[[Floats, Floats, Floats], Outputs]] = {
    "reference": reference_inverse_cdf,
    "torch": torch_inverse_cdf,
    "torch-number": torch_inverse_cdf_of_number,
}


def inverse_cdf_of(backend: Backend, kind: str) -> Callable[[Floats, Floats, Floats], Outputs]:
    """A backend's inverse CDF of one kind, all four outputs."""
    return lambda rho, logit_q, beta: backend_inverse_cdf(backend, kind, rho, logit_q, beta)


def _reference_nu(zeta: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    smoothing = reference.smoothing.OverlappingExponential(beta)
    return {"nu": reference.posterior.nu(smoothing, zeta, logit_q)}


def _torch_nu(zeta: Floats, logit_q: Floats, beta: Floats) -> Outputs:
    x, logit, b = (torch.tensor(value) for value in (zeta, logit_q, beta))
    return {"nu": dvaepp.smoothing.nu(dvaepp.smoothing.OverlappingExponential(b), x, logit).numpy()}


#: The torch twins. ``nu`` takes the cases' rho for its zeta: both are numbers in [0, 1], edges included. torch's
#: does not compensate the rounding of beta (2 zeta - 1).
TWINS: dict[str, Operation] = {
    "inverse_cdf": Operation(reference_inverse_cdf, torch_inverse_cdf),
    "nu": Operation(_reference_nu, _torch_nu, first="zeta", rounds_beta=True),
}


def backends(names: Sequence[str] = ()) -> tuple[list[Backend], dict[str, str]]:
    """The backends of these names (none: all) that can run here, and why the others cannot."""
    running, unavailable = [], {}
    for name in names or accelerated.names():
        try:
            running.append(accelerated.load(name))
        except BackendUnavailable as error:
            unavailable[name] = str(error)
    return running, unavailable
