"""The vocabulary that every kind of smoothing shares, as torch modules see it; a kind adds its formulas.

Numerics. float32 is computed in float64 and rounded once, by the plain stable forms. What float64 itself needs beyond
them (exponents with more digits than it has, see ``compensated``) is switched on by ``careful``, for float64 alone: a
batch has some 10^4 latent units, and a step waits for them.

Derivatives. ``inverse_cdf`` carries its own, implicit and first ones only (automatic differentiation of a root divides
by quantities that vanish, and does not see through an iteration). All else is differentiable by autograd.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from accelerated.protocol import KINDS as WITH_KERNELS
from dvaepp import bridge
from dvaepp.backend import TORCH
from dvaepp.errors import ConfigError

_OVERWHELMING = 1e30  # log odds beside which no finite logit counts


@dataclass(frozen=True)
class Solution:
    """A smoothed sample in float64, and how to find its derivatives; those that nobody asks for are not computed."""

    zeta: Tensor
    by_rho: Callable[[], Tensor]
    by_logit_q: Callable[[], Tensor]
    by_beta: Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Smoothing(ABC):
    """A continuous companion zeta of a binary unit; see ``reference.smoothing.Smoothing``.

    Shapes   beta a number, or a tensor that broadcasts with the other arguments (then it may require a gradient): one
             entry for each replica, say. Arguments have any leading axes. Kernels take one beta for all arguments.
             backend names what computes ``inverse_cdf``.
    Raises   ConfigError for a number that is not positive and finite, and for a backend other than torch where the kind
             has no kernel. Tensors are not looked into: that would wait for the device at every call. NaN gives NaN.
    """

    beta: float | Tensor
    backend: str = TORCH

    kind: ClassVar[str]  # as configurations spell it
    unit_interval: ClassVar[bool] = True  # whether zeta lives on [0, 1]; else on the real line, its two ends included

    def __post_init__(self) -> None:
        if not isinstance(self.beta, Tensor) and not 0 < self.beta < math.inf:
            raise ConfigError(f"beta must be positive and finite; got {self.beta}")
        if self.backend != TORCH and not self.has_kernels():
            raise ConfigError(f"backend {self.backend!r} has no kernel for the smoothing {self.kind!r}; use {TORCH!r}")

    @classmethod
    def has_kernels(cls) -> bool:
        """Whether backends of ``accelerated`` may compute this kind."""
        return cls._kernel() in WITH_KERNELS

    @classmethod
    def _kernel(cls) -> str:
        return cls.kind.replace("-", "_")

    # ---- what a caller uses -----------------------------------------------------------------------------------------

    def inverse_cdf(self, rho: Tensor, logit_q: Tensor) -> Tensor:
        """Smoothed sample for uniform noise, differentiable once in rho, logit_q and a tensor beta.

        See ``reference.smoothing.Smoothing.inverse_cdf`` and ``.inverse_cdf_with_derivatives``.
        Shapes   rho and logit_q broadcast, on one device; float32 or float64. NaN in gives NaN out.
        """
        if self.backend == TORCH:
            return _InverseCDF.apply(self, rho, logit_q, self.beta)
        dtype = torch.promote_types(rho.dtype, logit_q.dtype)
        rho, logit_q = torch.broadcast_tensors(rho.to(dtype), logit_q.to(dtype))
        return bridge.inverse_cdf(self._kernel(), rho, logit_q, self.beta, self.backend)

    def log_prob(self, zeta: Tensor, logit_q: Tensor) -> Tensor:
        """log q(zeta|x) in nats, differentiable by autograd; see ``reference.smoothing.Smoothing.log_prob``.

        Departs  float64 results are those of the plain forms: an exponent's rounding is not made up for.
        """
        x, logit, beta, dtype = self._arguments(zeta, logit_q)
        return self._log_prob(x, logit, beta).to(dtype)

    def cdf(self, zeta: Tensor, logit_q: Tensor) -> Tensor:
        """F(zeta), differentiable by autograd; see ``reference.smoothing.Smoothing.cdf``.

        Departs  as ``log_prob``.
        """
        x, logit, beta, dtype = self._arguments(zeta, logit_q)
        return self._cdf(x, logit, beta).to(dtype)

    # ---- what a kind defines, for arguments in float64 --------------------------------------------------------------

    @abstractmethod
    def _solve(self, rho: Tensor, logit_q: Tensor, careful: bool) -> Solution:
        """The inverse CDF; ``self.beta`` rounds to the dtype of the caller's arguments by ``_sharpness``."""

    @abstractmethod
    def _log_prob(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor: ...

    @abstractmethod
    def _cdf(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor: ...

    def _arguments(self, *tensors: Tensor) -> tuple[Any, ...]:
        """The tensors and the sharpness, all in float64, and the dtype of the result."""
        dtype = tensors[0].dtype
        for tensor in tensors[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
        return (*(x.to(torch.float64) for x in tensors), self._sharpness(dtype, tensors[0].device), dtype)

    def _sharpness(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """beta, rounded to the dtype of the other arguments: a float32 caller's 0.1 is the float32 nearest to 0.1."""
        return as_double(self.beta, dtype, device)


class MixtureSmoothing(Smoothing):
    """A smoothing with a density r(zeta|z) for each value of the unit; see ``reference.smoothing.MixtureSmoothing``."""

    def log_ratio(self, zeta: Tensor) -> Tensor:
        """log r(zeta|1) - log r(zeta|0) in nats; see ``reference.smoothing.MixtureSmoothing.log_ratio``."""
        x, beta, dtype = self._arguments(zeta)
        result = self._log_ratio(x, beta)
        if dtype == torch.float64:
            with torch.no_grad():
                careful = self._careful_log_ratio(x, beta)
            result = _InPlace.apply(careful, result)
        return result.to(dtype)

    def nu(self, zeta: Tensor, logit_q: Tensor) -> Tensor:
        """q(z=1|zeta, x); see ``reference.smoothing.MixtureSmoothing.nu``."""
        x, logit, beta, dtype = self._arguments(zeta, logit_q)
        # A certain prior stays certain, whatever zeta says: inf - inf is not met.
        result = torch.sigmoid(logit + self._log_ratio(x, beta).clamp(-_OVERWHELMING, _OVERWHELMING))
        if dtype == torch.float64:
            with torch.no_grad():
                certain = logit.isinf()
                careful = self._careful_nu(x, torch.where(certain, torch.zeros_like(logit), logit), beta)
            result = _InPlace.apply(torch.where(certain, result, careful), result)
        return result.to(dtype)

    def _log_prob(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        """log(p r(zeta|0) + q r(zeta|1))."""
        certain = logit_q.isinf()
        logit = torch.where(certain, torch.zeros_like(logit_q), logit_q)
        of_zero, of_one = self._log_r(zeta, 0, beta), self._log_r(zeta, 1, beta)
        both = torch.logaddexp(logsigmoid(-logit) + of_zero, logsigmoid(logit) + of_one)
        return torch.where(certain, torch.where(logit_q > 0, of_one, of_zero), both)

    def _cdf(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        """p F(zeta|0) + q F(zeta|1)."""
        of_zero = torch.sigmoid(-logit_q) * self._r_cdf(zeta, 0, beta)
        return (of_zero + torch.sigmoid(logit_q) * self._r_cdf(zeta, 1, beta)).clamp(max=1)

    @abstractmethod
    def _log_r(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor: ...

    @abstractmethod
    def _r_cdf(self, zeta: Tensor, z: int, beta: Tensor) -> Tensor: ...

    def _log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        """To the digits that float32 needs, and to be differentiated."""
        return self._log_r(zeta, 1, beta) - self._log_r(zeta, 0, beta)

    @abstractmethod
    def _careful_log_ratio(self, zeta: Tensor, beta: Tensor) -> Tensor:
        """To the last digits of a float64; nobody differentiates it."""

    @abstractmethod
    def _careful_nu(self, zeta: Tensor, logit_q: Tensor, beta: Tensor) -> Tensor:
        """To the last digits of a float64, for finite logits; nobody differentiates it."""


def nu(smoothing: Smoothing, zeta: Tensor, logit_q: Tensor) -> Tensor:
    """q(z=1|zeta, x); see ``reference.posterior.nu``. float32 is computed in float64 and rounded once.

    Raises   ConfigError for a kind without r(zeta|z).
    """
    return check_mixture(smoothing).nu(zeta, logit_q)


def check_mixture(smoothing: Smoothing) -> MixtureSmoothing:
    """Return a smoothing with a density r(zeta|z) for each value of z; refuse any other.

    Raises   ConfigError naming the kind.
    """
    if not isinstance(smoothing, MixtureSmoothing):
        raise ConfigError(f"smoothing {smoothing.kind!r} has no density r(zeta|z), and so no q(z|zeta, x); use another")
    return smoothing


def as_double(value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number or tensor, rounded to a dtype, as a float64 tensor on a device."""
    if isinstance(value, Tensor):
        return value.to(device, dtype).to(torch.float64)
    return torch.full((), torch.tensor(value, dtype=dtype).item(), dtype=torch.float64, device=device)


# ---- derivatives -----------------------------------------------------------------------------------------------------


class _InverseCDF(torch.autograd.Function):
    """The inverse CDF with implicit derivatives; those that nobody asks for are not computed."""

    @staticmethod
    def forward(ctx: Any, smoothing: Smoothing, rho: Tensor, logit_q: Tensor, beta: float | Tensor) -> Tensor:
        inputs = {"rho": rho, "logit_q": logit_q} | ({"beta": beta} if isinstance(beta, Tensor) else {})
        for name, tensor in inputs.items():
            if tensor.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"{name} must be float32 or float64; got {tensor.dtype}")
        dtype = torch.promote_types(rho.dtype, logit_q.dtype)
        found = smoothing._solve(rho.to(torch.float64), logit_q.to(torch.float64), dtype == torch.float64)
        _, *needs = ctx.needs_input_grad
        ways = (found.by_rho, found.by_logit_q, found.by_beta)
        ctx.save_for_backward(
            *(_rounded(way(), dtype) if needed else None for way, needed in zip(ways, needs, strict=True))
        )
        ctx.inputs = tuple((x.shape, x.dtype) for x in inputs.values())
        return found.zeta.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor | None] = [None, None, None]
        for i, (derivative, (shape, dtype)) in enumerate(zip(ctx.saved_tensors, ctx.inputs, strict=False)):
            if derivative is not None:
                product = (grad.detach() * derivative).sum_to_size(shape).to(dtype)
                grads[i] = _Undifferentiable.apply(product.requires_grad_()) if torch.is_grad_enabled() else product
        return None, *grads


class _Undifferentiable(torch.autograd.Function):
    """Passes a gradient on and refuses to differentiate it.

    Torch's own ``once_differentiable`` refuses only where the upstream gradient is differentiable; elsewhere the second
    derivative would silently be zero.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("inverse_cdf is differentiable once; its second derivatives are not implemented")


class _InPlace(torch.autograd.Function):
    """A value in the place of another that is the same but for its last digits, and has the derivatives."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, differentiable: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def _rounded(result: Tensor, dtype: torch.dtype) -> Tensor:
    limit = torch.finfo(dtype).max
    return result.clamp(-limit, limit).to(dtype)
