"""The binary Concrete: a relaxation of the unit itself; the twin of ``reference.smoothing.concrete``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dvaepp.backend import TORCH
from dvaepp.errors import ConfigError
from dvaepp.smoothing.compensated import (
    Two,
    add,
    divide,
    exact,
    exp_times,
    is_end,
    logs_inside,
    magnitude,
    multiply,
    negative,
    sigmoid,
)
from dvaepp.smoothing.family import Smoothing, Solution, as_double


@dataclass(frozen=True, eq=False)
class BinaryConcrete(Smoothing):
    """The logistic relaxation of a unit, zeta = sigma(beta (l + logit rho)); see ``reference``'s of the same name.

    beta is the sharpness, one over the temperature; ``at_temperature`` takes that. There is no r(zeta|z), and so
    neither a log-ratio nor nu.
    """

    temperature: float | Tensor | None = field(default=None, kw_only=True)

    kind: ClassVar[str] = "concrete"

    @classmethod
    def at_temperature(cls, temperature: float | Tensor) -> BinaryConcrete:
        """The same by its temperature, of which beta is one over (a gradient goes to either).

        Raises   ConfigError for a number that is not positive and finite.
        """
        if not isinstance(temperature, Tensor) and not 0 < temperature < math.inf:
            raise ConfigError(f"temperature must be positive and finite; got {temperature}")
        return cls(1 / temperature, TORCH, temperature=temperature)

    def _sharpness(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        if self.temperature is None:
            return super()._sharpness(dtype, device)
        return 1 / as_double(self.temperature, dtype, device)

    def _careful_sharpness(self, dtype: torch.dtype, device: torch.device) -> Two:
        """As exact as the number that was given."""
        if self.temperature is None:
            return exact(self._sharpness(dtype, device), True)
        temperature = as_double(self.temperature, dtype, device)
        return divide(exact(torch.ones_like(temperature), True), exact(temperature, True))

    def _log_prob(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        """See ``reference.smoothing.BinaryConcrete.log_prob``: with y = logit zeta and s = y/beta - l one of

            |y| + 2 log(1 + e^{-|y|}) - |s| - 2 log(1 + e^{-|s|}) - log beta,
            4 atanh(tanh((y + s)/4) tanh((y - s)/4)) - log beta.

        At the ends, where zeta may have been rounded to: infinite, or the limit l or -l for beta = 1.
        """
        end, certain = is_end(zeta), logit_q.isinf()
        y = torch.logit(torch.where(end, torch.full_like(zeta, 0.5), zeta))
        logit = torch.where(certain, torch.zeros_like(logit_q), logit_q)
        s, difference = y / beta - logit, (1 - 1 / beta) * y + logit
        apart = (logsigmoid(s) + logsigmoid(-s)) - (logsigmoid(y) + logsigmoid(-y))
        close = difference.abs() < 1
        inner = torch.where(close, difference, torch.zeros_like(difference))
        near = 4 * torch.atanh(torch.tanh((y + s) / 4) * torch.tanh(inner / 4))
        inside = torch.where(close, near, apart) - torch.log(beta)
        own = torch.where(zeta == 1, logit_q, -logit_q)
        infinity = torch.full_like(inside, torch.inf)
        at_end = torch.where(beta == 1, own, torch.where(beta > 1, infinity, -infinity))
        of_certain = torch.where(zeta == (logit_q > 0).to(zeta.dtype), infinity, -infinity)
        return torch.where(certain, of_certain, torch.where(end, at_end, inside))

    def _cdf(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        """sigma(logit(zeta)/beta - l)."""
        end = is_end(zeta)
        y = torch.logit(torch.where(end, torch.full_like(zeta, 0.5), zeta))
        return torch.where(end, zeta, torch.sigmoid(y / beta - logit_q))

    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        """See ``reference.smoothing.BinaryConcrete.inverse_cdf_with_derivatives``."""
        if careful:
            beta = self._careful_sharpness(torch.float64, rho.device)
        else:
            beta = exact(self._sharpness(torch.float32, rho.device), False)
        rho, logit_q = torch.broadcast_tensors(rho, logit_q)
        end, certain = is_end(rho), logit_q.isinf()
        still = end | certain
        zero = torch.zeros_like(rho)
        log_rho, log_rest = logs_inside(rho, careful)
        # A logit that leaves nothing of e^{-|t|}; larger ones overflow on their way.
        overwhelming = 1e4 * (1 + 1 / beta.high)
        logit = torch.minimum(torch.maximum(logit_q, -overwhelming), overwhelming)
        x = add(exact(logit, careful), add(log_rho, negative(log_rest)))
        t = multiply(x, beta)
        exponent = negative(magnitude(t))
        both = 1 + torch.exp(exponent.high)
        scale = 1 / (both * both)

        def by_rho() -> Tensor:
            found = exp_times(add(exponent, negative(add(log_rho, log_rest))), scale * beta.high)
            # At the ends zeta or 1 - zeta is (e^{-+l} distance)^beta.
            odds = torch.exp(torch.where(rho == 0, logit_q, -logit_q))
            outer = torch.where(beta.high > 1, zero, torch.full_like(zero, torch.inf))
            at_end = torch.where(beta.high == 1, odds, outer)
            return torch.where(certain, zero, torch.where(end, at_end, found))

        def by_logit_q() -> Tensor:
            return torch.where(still, zero, exp_times(exponent, scale * beta.high))

        def by_beta() -> Tensor:
            return torch.where(still, zero, exp_times(exponent, scale * x.high))

        sure = torch.where(certain, (logit_q > 0).to(rho.dtype), sigmoid(t))
        return Solution(torch.where(end, rho, sure), by_rho, by_logit_q, by_beta)
