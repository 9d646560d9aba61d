"""Equation 3 of the paper, typed in as it is printed, with automatic differentiation: what it is worth.

    python -m validation accuracy --backend examples.naive_equation_3:create

    zeta = -log((-b + sqrt(b^2 - 4 c)) / 2) / beta,
    b = (rho + e^-beta (q - rho)) / (1 - q) - 1,      c = -q e^-beta / (1 - q)

Right in exact arithmetic, and for the logits and the sharpness of a quiet moment. -b + sqrt(b^2 - 4 c) cancels where
b > 0; q = 1 in floating point is a pole; and what the formula loses in zeta, automatic differentiation loses again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from accelerated.protocol import OPERATIONS, Backend, Smoothed
from examples.torch_backend import TorchBackend


class NaiveEquation3(TorchBackend):
    """The inverse CDF of the overlapping exponentials, and nothing else."""

    name = "naive_equation_3"
    lacks: Mapping[str, str] = dict.fromkeys(OPERATIONS - {"inverse_cdf"}, "equation 3 is a sampler's")

    def operations(self) -> frozenset[str]:
        """The one that equation 3 is about."""
        return frozenset({"inverse_cdf"})

    def inverse_cdf(
        self,
        kind: str,
        rho: Any,
        logit_q: Any,
        beta: float,
        extras: Collection[str] = ("dzeta_dlogit_q",),
        out: Smoothed | None = None,
    ) -> Smoothed:
        """As printed. Posterior: the definition, log r(zeta|1) - log r(zeta|0), and Bayes' rule."""
        if kind not in self.kinds:
            raise NotImplementedError(f"there is no {kind!r} here")
        noise, logits = (torch.tensor(np.asarray(array), requires_grad=True) for array in (rho, logit_q))
        sharpness = torch.full_like(noise, beta).requires_grad_()
        q, d = torch.sigmoid(logits), torch.exp(-sharpness)
        b = (noise + d * (q - noise)) / (1 - q) - 1
        c = -q * d / (1 - q)
        zeta = -torch.log((-b + torch.sqrt(b**2 - 4 * c)) / 2) / sharpness
        by_logit, by_rho, by_beta = torch.autograd.grad(zeta.sum(), (logits, noise, sharpness))
        found = {"zeta": zeta, "dzeta_dlogit_q": by_logit, "dzeta_drho": by_rho, "dzeta_dbeta": by_beta}
        found["log_ratio"] = sharpness * (2 * zeta - 1)
        found["nu"] = torch.sigmoid(logits + found["log_ratio"])
        arrays = {name: found[name].detach().numpy() for name in ("zeta", *extras)}
        if out is None:
            return Smoothed(**arrays)
        for name, value in arrays.items():
            np.copyto(getattr(out, name), value)
        return Smoothed(**{name: getattr(out, name) for name in arrays})


def create() -> Backend:
    """What the entry point or ``module:object`` names."""
    backend: Any = NaiveEquation3()
    return backend
