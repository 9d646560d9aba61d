"""Gradients through a binary sample, on tensors: twins of ``reference.estimators``, which explains names and formulas.

    d/dl E[f(z)],    z_i = 1 with probability sigmoid(l_i),

one estimate for each row. Noise is an argument; logits are (..., B, N), or anything that broadcasts to it.

    f       any function of tensors, (..., B, N) -> (..., B), rows independent of each other. Where its slope is asked
            for it must be differentiable; the slope is taken by ``torch.autograd``.
    f_z     f at the draw, where it is known already: saves the evaluation.

Departs  the reference raises DomainError for values out of range. Here only shapes are looked at: to look at values a
         GPU would have to be waited for. Noise on an end of (0, 1), which float32 generators do give, counts as the
         nearest number inside.
Shapes   rho, v, z and results (..., B, N); f_z and baselines (..., B); what belongs to a whole batch (...)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from reference.vocabulary import ShapeError

Function = Callable[[Tensor], Tensor]


# ---- the sample and its score -----------------------------------------------------------------------------------


def draw(rho: Tensor, logits: Tensor) -> Tensor:
    """Turn uniform noise into binary units: z = 1[rho > p]. See ``reference.estimators.draw``."""
    return (rho > torch.sigmoid(-logits)).to(logits.dtype)


def score(z: Tensor, logits: Tensor) -> Tensor:
    """Derivative of the log-probability of z with respect to the logits. See ``reference.estimators.score``."""
    logits = logits.detach()
    return z * torch.sigmoid(-logits) - (1 - z) * torch.sigmoid(logits)


# ---- score function ---------------------------------------------------------------------------------------------


def reinforce(
    f: Function, rho: Tensor, logits: Tensor, baseline: Tensor | float = 0.0, *, f_z: Tensor | None = None
) -> Tensor:
    """Score times signal, (f(z) - baseline) score(z). See ``reference.estimators.reinforce``."""
    z = draw(rho, logits)
    signal = _at_draw(f, z, f_z) - _detached(baseline)
    return signal.unsqueeze(-1) * score(z, logits)


@dataclass(frozen=True)
class RunningMoments:
    """Exponentially averaged mean and variance of a learning signal. See ``reference.estimators.RunningMoments``.

    Shapes   mean and variance (...): one pair for each batch
    """

    mean: Tensor
    variance: Tensor

    @property
    def scale(self) -> Tensor:
        """Standard deviation (...), what ``nvil`` divides by where it exceeds 1."""
        return self.variance.sqrt()

    def updated(self, signal: Tensor, decay: float) -> RunningMoments:
        """The moments moved towards those of a batch (..., B). See ``reference.estimators.RunningMoments.updated``."""
        signal = signal.detach()
        mean, variance = signal.mean(-1), signal.var(-1, correction=0)
        return RunningMoments(
            mean=decay * self.mean + (1 - decay) * mean, variance=decay * self.variance + (1 - decay) * variance
        )


def nvil(
    f: Function,
    rho: Tensor,
    logits: Tensor,
    baseline: Tensor | float,
    scale: Tensor | float,
    *,
    f_z: Tensor | None = None,
) -> Tensor:
    """The gradient over max(1, scale) from a centred signal; scale (...). See ``reference.estimators.nvil``."""
    size = scale.clamp(min=1) if isinstance(scale, Tensor) else max(1.0, scale)
    return reinforce(f, rho, logits, baseline, f_z=f_z) / _over(size, 2)


class TangentPlane(NamedTuple):
    """A function's linear approximation around the mean: its value (..., B) at z, and its slope (..., B, N)."""

    value: Tensor
    slope: Tensor


def muprop(
    f: Function,
    rho: Tensor,
    logits: Tensor,
    baseline: Tensor | float = 0.0,
    *,
    f_z: Tensor | None = None,
    plane: TangentPlane | None = None,
) -> Tensor:
    """Score times what a tangent plane at the mean does not explain. See ``reference.estimators.muprop``.

    ``plane``, as ``tangent_plane`` gives it for f at the draw, saves another evaluation. f_z may be the value there of
    another function than f: what is estimated, without bias, is then that function's gradient.
    """
    z = draw(rho, logits)
    plane = tangent_plane(f, z, logits) if plane is None else plane
    signal = _at_draw(f, z, f_z) - plane.value - _detached(baseline)
    q, p = torch.sigmoid(logits.detach()), torch.sigmoid(-logits.detach())
    return signal.unsqueeze(-1) * score(z, logits) + plane.slope * (q * p)


def tangent_plane(f: Function, z: Tensor, logits: Tensor) -> TangentPlane:
    """f(q) + f'(q) (z - q), what ``muprop`` subtracts from f(z). See ``reference.estimators.muprop``."""
    mean = torch.sigmoid(logits.detach()).expand(z.shape)
    value, slope = _value_and_slope(f, mean, create_graph=False)
    return TangentPlane(value + (slope * score(z, logits)).sum(-1), slope)  # z - q is the score


# ---- score function, several samples at once --------------------------------------------------------------------


def vimco(log_f: Function, rho: Tensor, logits: Tensor, *, f_z: Tensor | None = None) -> Tensor:
    """Gradient of a K-sample bound. See ``reference.estimators.vimco``.

    Shapes   rho (K, ..., B, N), f_z (K, ..., B): log_f at each sample -> (..., B, N); log_f is called on (..., B, N)
    Raises   ShapeError for K < 2.
    """
    samples = draw(rho, logits)
    logs = torch.stack([_at_draw(log_f, z, None) for z in samples]) if f_z is None else f_z.detach()
    return (vimco_signals(logs).unsqueeze(-1) * score(samples, logits)).sum(0)


def vimco_signals(logs: Tensor) -> Tensor:
    """What each of K samples adds to the log of their mean: its learning signal. See ``reference.estimators.vimco``.

    Shapes   logs (K, ...): log f at each sample -> (K, ...)
    Raises   ShapeError for K < 2.
    """
    n_samples = logs.shape[0]
    if n_samples < 2:
        raise ShapeError(f"rho must be (K, ..., B, N) with K >= 2 samples to compare; got K = {n_samples}")
    others = (logs.sum(0) - logs) / (n_samples - 1)  # log of the geometric mean of the others
    own = torch.eye(n_samples, dtype=torch.bool, device=logs.device).view(n_samples, n_samples, *[1] * (logs.ndim - 1))
    replaced = torch.where(own, others, logs)  # (K, K, ...): block k with its own value replaced
    return logs.logsumexp(0) - replaced.logsumexp(1)  # the two log K cancel


# ---- antithetic pairs -------------------------------------------------------------------------------------------


def opposite(rho: Tensor, logits: Tensor) -> Tensor:
    """The draw from 1 - rho. See ``reference.estimators.arm``; 1 - rho > p is rho < q, without rounding 1 - rho."""
    return (rho < torch.sigmoid(logits)).to(logits.dtype)


def arm(f: Function, rho: Tensor, logits: Tensor, *, f_z: Tensor | None = None) -> Tensor:
    """Difference of opposite draws times the noise. See ``reference.estimators.arm``."""
    difference = _at_draw(f, draw(rho, logits), f_z) - _at_draw(f, opposite(rho, logits), None)
    return difference.unsqueeze(-1) * (rho - 0.5)


def disarm(f: Function, rho: Tensor, logits: Tensor, *, f_z: Tensor | None = None) -> Tensor:
    """``arm``'s mean given the two draws. See ``reference.estimators.disarm``."""
    z, other = draw(rho, logits), opposite(rho, logits)
    difference = _at_draw(f, z, f_z) - _at_draw(f, other, None)
    return difference.unsqueeze(-1) * (z - other) * (torch.sigmoid(logits.detach().abs()) / 2)


# ---- relaxed control variates -----------------------------------------------------------------------------------


class ConditionalLogistic(NamedTuple):
    """A logistic sample given its sign, with its derivative in the logit; both (..., B, N)."""

    value: Tensor
    dvalue_dlogit: Tensor


def logistic(rho: Tensor, logits: Tensor) -> Tensor:
    """The real number whose sign is z, l + logit(rho); differentiable. See ``reference.estimators.logistic``."""
    return logits + torch.logit(_inside(rho))


def conditional_logistic(z: Tensor, v: Tensor, logits: Tensor) -> ConditionalLogistic:
    """A second logistic sample that agrees with z. See ``reference.estimators.conditional_logistic``."""
    sign = 2 * z - 1
    inner = sign * torch.logit(_inside(v)) + functional.softplus(sign * logits, threshold=40)
    value = sign * functional.softplus(inner, threshold=40)
    return ConditionalLogistic(value, torch.sigmoid(inner) * torch.sigmoid(sign * logits))


def matching_noise(rho: Tensor, logits: Tensor) -> Tensor:
    """The v that makes the conditional sample equal the one of rho. See ``reference.estimators.matching_noise``."""
    q, p = torch.sigmoid(logits), torch.sigmoid(-logits)
    z, rho = draw(rho, logits), _inside(rho)
    # Of two forms for z = 1 the one whose subtraction does not magnify the rounding of the larger of p and q.
    upper = torch.where(logits >= 0, (rho - p) / q, 1 - (1 - rho) / q)
    return _inside(torch.where(z == 1, upper, rho / p))


def relax(
    f: Function,
    surrogate: Function,
    rho: Tensor,
    v: Tensor | None,
    logits: Tensor,
    *,
    f_z: Tensor | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Any differentiable surrogate of f as control variate. See ``reference.estimators.relax``.

    v None stands for ``matching_noise``: the two samples coincide, and the surrogate is evaluated once. With
    s = 2 z - 1 the second sample's derivative is then (1 - e^{-|g|}) sigmoid(s l), and 1 less it is
    sigmoid(-s l) + e^{-|g|} sigmoid(s l). ``create_graph`` keeps the estimate differentiable in whatever the surrogate
    (and f_z) were made of, never in the logits.

    Shapes   the surrogate is given real numbers (..., B, N) and returns (..., B)
    """
    logits = logits.detach()
    z = draw(rho, logits)
    value = _at_draw(f, z, None) if f_z is None else _checked("f_z", f_z, z)
    free = logistic(rho, logits)
    if v is None:
        bound_value, slope = _value_and_slope(surrogate, free, create_graph)
        agrees = (2 * z - 1) * logits
        derivative = slope * (torch.sigmoid(-agrees) + torch.exp(-free.abs()) * torch.sigmoid(agrees))
    else:
        bound = conditional_logistic(z, v, logits)
        _, free_slope = _value_and_slope(surrogate, free, create_graph)
        bound_value, bound_slope = _value_and_slope(surrogate, bound.value, create_graph)
        derivative = free_slope - bound_slope * bound.dvalue_dlogit
    estimate = (value - bound_value).unsqueeze(-1) * score(z, logits) + derivative
    return estimate if create_graph else estimate.detach()


def rebar_surrogate(f: Function, temperature: Tensor | float, eta: Tensor | float = 1.0) -> Function:
    """eta f(sigmoid(g / temperature)), both numbers or (...). See ``reference.estimators.rebar_surrogate``."""

    def surrogate(g: Tensor) -> Tensor:
        return _over(eta, 1) * f(torch.sigmoid(g / _over(temperature, 2)))

    return surrogate


def rebar(
    f: Function,
    rho: Tensor,
    v: Tensor | None,
    logits: Tensor,
    temperature: Tensor | float,
    eta: Tensor | float = 1.0,
    *,
    f_z: Tensor | None = None,
    create_graph: bool = False,
) -> Tensor:
    """f's own Concrete relaxation as control variate. See ``reference.estimators.rebar``; v None as in ``relax``."""
    surrogate = rebar_surrogate(f, temperature, eta)
    return relax(f, surrogate, rho, v, logits, f_z=f_z, create_graph=create_graph)


# ---- a derivative through the sample, and a bias ------------------------------------------------------------------


def straight_through(f: Function, rho: Tensor, logits: Tensor) -> Tensor:
    """f'(z) q p, biased but for some f. See ``reference.estimators.straight_through``."""
    z, slope = draw(rho, logits), torch.sigmoid(logits.detach()) * torch.sigmoid(-logits.detach())
    return _value_and_slope(f, z, create_graph=False)[1] * slope


def straight_through_draw(rho: Tensor, logits: Tensor) -> Tensor:
    """The draw z, whose derivative with respect to the logits is that of q, q p.

    What ``straight_through`` means in a chain of samples: differentiate the chain.

    Domain   finite logits
    """
    still = logits.detach()
    # Exactly z: what is added is 0 times a number. q p from both sigmoids, which keeps its digits for a large logit.
    return draw(rho, still) + (logits - still) * (torch.sigmoid(still) * torch.sigmoid(-still))


# ---- what they share --------------------------------------------------------------------------------------------


def _inside(noise: Tensor) -> Tensor:
    """Noise strictly inside (0, 1)."""
    info = torch.finfo(noise.dtype)
    return noise.clamp(info.tiny, 1 - info.eps / 2)


def _detached(value: Tensor | float) -> Tensor | float:
    return value.detach() if isinstance(value, Tensor) else value


def _over(value: Tensor | float, n_axes: int) -> Tensor | float:
    """A number, or (...), made to broadcast against a tensor with ``n_axes`` further axes."""
    return value.view(*value.shape, *[1] * n_axes) if isinstance(value, Tensor) else value


def _at_draw(f: Function, z: Tensor, f_z: Tensor | None) -> Tensor:
    """f(z), without gradient, unless it is known."""
    if f_z is not None:
        return _checked("f_z", f_z, z).detach()
    with torch.no_grad():
        return _checked("f(z)", f(z), z)


def _value_and_slope(f: Function, x: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
    """f at x and its derivative there; differentiable in what f is made of if ``create_graph``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = _checked("f(x)", f(x), x)
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=create_graph)
    return (value if create_graph else value.detach()), slope


def _checked(name: str, value: Tensor, x: Tensor) -> Tensor:
    if value.shape != x.shape[:-1]:
        raise ShapeError(f"{name} must be {tuple(x.shape[:-1])}, one number for each row; got {tuple(value.shape)}")
    return value
