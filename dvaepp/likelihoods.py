"""What the decoder says about images, in torch: twin of ``reference.likelihoods``; and draws from it.

Any device, float32 or float64, which is what results and derivatives are in. Values are not looked at, which on a GPU
would mean to wait for them. Mixtures are not summed over pixels: a caller may have to leave some of them out.

Mixtures are measured in levels. Level x of L has its centre t = x - (L - 1) / 2 (1 + mean) levels away from a
component's mean, and a level is w = 2 / (L - 1) e^{-log_scale} scales wide. By symmetry only |t| matters; with the
distances D = (|t| - 1/2) w and S = (|t| + 1/2) w of the bin's edges

    P(x) = sigma(S) - sigma(D) = e^{-max(D, 0)} / ((1 + K) (1 + p) (1 + q)),

    K = 1 / (e^w - 1),   p = e^{-S},   q = e^{-|D|},

so that -log P is a maximum and one log1p of a sum of positive terms, in the tails and in the bin of the mean alike. A
bin that takes a tail is one whose far edge is infinitely far: K = p = 0, and t with the sign that makes D the distance
of its only edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from reference.likelihoods import N_CHANNELS, N_LEVELS
from reference.vocabulary import ShapeError


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) in nats under independent Bernoullis, summed over the last axis; x in {0, 1}.

    One softplus: log sigma(l) = -softplus(-l) and log sigma(-l) = -softplus(l). See ``reference.bernoulli.log_prob``.
    """
    return -softplus((1 - 2 * x) * logits, threshold=40).sum(-1)


def discretised_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor, n_levels: int = N_LEVELS) -> Tensor:
    """Log-probability in nats of levels; see ``reference.likelihoods.discretised_logistic_log_prob``.

    Shapes   x, mean, log_scale broadcast -> their common shape
    Domain   as the reference's, with |log_scale| up to 80 in float32; no gradient goes to x
    """
    shape = torch.broadcast_shapes(x.shape, mean.shape, log_scale.shape)
    result: Tensor = _DiscretisedLogistic.apply(x, mean.expand(shape), log_scale.expand(shape), n_levels)
    return result


def mixture_log_prob(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, n_levels: int = N_LEVELS) -> Tensor:
    """Log-probability in nats of each pixel; see ``reference.likelihoods.mixture_log_prob``, which sums over them.

    Shapes   x (..., P), logits, means, log_scales (..., P, M) -> (..., P); any strides
    Domain   as ``discretised_logistic_log_prob``
    Raises   ShapeError for shapes that do not fit.
    """
    _check_mixture(x, logits, means, log_scales)
    return _mixed(logits, discretised_logistic_log_prob(x.unsqueeze(-1), means, log_scales, n_levels))


def colour_mixture_log_prob(
    x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, coefficients: Tensor, n_levels: int = N_LEVELS
) -> Tensor:
    """Log-probability in nats of each pixel; see ``reference.likelihoods.colour_mixture_log_prob``, which sums.

    Shapes   x (..., P, 3), logits (..., P, M), means, log_scales, coefficients (..., P, 3, M) -> (..., P); any strides
    Domain   as ``discretised_logistic_log_prob``
    Raises   ShapeError for shapes that do not fit.
    """
    _check_colour(x, logits, means, log_scales, coefficients)
    levels = x.unsqueeze(-1).unbind(-2)
    seen = [_intensity(level, n_levels) for level in levels]
    c, mean, log_scale = (each.unbind(-2) for each in (_Tanh.apply(coefficients), means, log_scales))
    # Channel by channel: one call for all would have to put the shifted means next to each other first.
    channels = [
        discretised_logistic_log_prob(level, _shifted(mean[k], c, seen[:k]), log_scale[k], n_levels)
        for k, level in enumerate(levels)
    ]
    return _mixed(logits, channels[0] + channels[1] + channels[2])


def mixture_sample(
    u_component: Tensor, u: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, n_levels: int = N_LEVELS
) -> Tensor:
    """Turn uniform noise into levels; see ``reference.likelihoods.mixture_sample``.

    Departs  from the reference at the ends of [0, 1], which float32 noise may reach: they count as the nearest number
             inside, so that no quantile is infinite.
    Shapes   u_component, u (..., P), logits, means, log_scales (..., P, M) -> (..., P), levels 0, 1, ... in u's dtype
    Domain   noise in [0, 1]
    Raises   ShapeError for shapes that do not fit.
    """
    _check_mixture(u, logits, means, log_scales)
    component = _component(u_component, logits)
    return _quantile(u, _pick(means, component), _pick(log_scales, component), n_levels)


def colour_mixture_sample(
    u_component: Tensor,
    u: Tensor,
    logits: Tensor,
    means: Tensor,
    log_scales: Tensor,
    coefficients: Tensor,
    n_levels: int = N_LEVELS,
) -> Tensor:
    """Turn uniform noise into colours; see ``reference.likelihoods.colour_mixture_sample``.

    Departs  as ``mixture_sample``
    Shapes   u_component (..., P), u (..., P, 3), logits (..., P, M), means, log_scales, coefficients (..., P, 3, M)
             -> (..., P, 3), levels 0, 1, ... in u's dtype
    Domain   noise in [0, 1]
    Raises   ShapeError for shapes that do not fit.
    """
    _check_colour(u, logits, means, log_scales, coefficients)
    component = _component(u_component, logits).unsqueeze(-1).expand_as(u)
    mean, log_scale, c = (_pick(values, component).unbind(-1) for values in (means, log_scales, coefficients.tanh()))
    levels: list[Tensor] = []
    for channel, noise in enumerate(u.unbind(-1)):
        seen = [_intensity(level, n_levels) for level in levels]
        levels.append(_quantile(noise, _shifted(mean[channel], c, seen), log_scale[channel], n_levels))
    return torch.stack(levels, dim=-1)


# ---- the parts ----------------------------------------------------------------------------------------------------


class _DiscretisedLogistic(torch.autograd.Function):
    """log P and its derivatives, all of sums and products of positive terms but for the last:

        d/dmean       sign(t) / scale sigma(D) (1 - e^{-2 |t| w}) / (1 + p)
        d/dlog_scale  D sigma(D) - S sigma(-S) - w K

    Automatic differentiation would subtract what nearly cancels, and multiply 0 by infinity at the ends. Derivatives
    are taken together with the value, with which they share the exponentials, and are all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, log_scale: Tensor, n_levels: int) -> Tensor:
        half_range = (n_levels - 1) / 2
        # Of the size of the image, which is small beside that of its components.
        t_of_image, first, last = x - half_range, x == 0, x == n_levels - 1
        end = first | last
        width = torch.exp(-log_scale).mul_(1 / half_range)
        t = torch.add(t_of_image, mean, alpha=-half_range)
        sign = torch.where(end, torch.where(first, -1.0, 1.0).to(t.dtype), t.sign())
        t.mul_(sign)
        D, S = (t - 0.5).mul_(width), (t + 0.5).mul_(width)
        K = torch.expm1(width).reciprocal_().masked_fill_(end, 0)
        p = torch.neg(S).exp_().masked_fill_(end, 0)
        q = D.abs().neg_().exp_()
        result = q.addcmul_(q, p).add_(p)  # (1 + p) (1 + q) - 1
        result.addcmul_(result, K).add_(K).log1p_().add_(D.clamp_min(0)).neg_()
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            near, far = torch.sigmoid(D), p + 1  # sigma(D), and sigma(-S) = p / far
            by_mean = t.mul_(width).mul_(-2).expm1_().masked_fill_(end, -1)
            by_mean.mul_(near).div_(far).mul_(sign).mul_(width).mul_(-half_range)
            by_log_scale = D.mul_(near).addcmul_(S, p.div_(far), value=-1).addcmul_(width, K, value=-1)
            ctx.save_for_backward(by_mean, by_log_scale)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, Tensor, None]:
        by_mean, by_log_scale = ctx.saved_tensors
        return None, upstream * by_mean, upstream * by_log_scale, None


class _Tanh(torch.autograd.Function):
    """tanh, with the derivative 1 / cosh^2, which 1 - tanh^2 is not once tanh rounds to 1."""

    @staticmethod
    def forward(ctx: Any, c: Tensor) -> Tensor:
        ctx.save_for_backward(c)
        return torch.tanh(c)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (c,) = ctx.saved_tensors
        return upstream / torch.cosh(c).square()


def _mixed(logits: Tensor, components: Tensor) -> Tensor:
    """log of the sum over components of softmax(logits) e^components, (..., P, M) -> (..., P).

    Good to an epsilon or two of 1 + |log p|, as the weights add up to 1: where a pixel is nearly certain, and log p
    nearly 0, the error is an absolute one.
    """
    return torch.logsumexp(torch.log_softmax(logits, -1) + components, -1)


def _shifted(mean: Tensor, c: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
    """A channel's mean given the intensities of the channels before it; c are tanh(coefficients) of all channels."""
    first = len(seen) * (len(seen) - 1) // 2  # green has c_0, blue c_1 and c_2
    for k, intensity in enumerate(seen):
        mean = mean + c[first + k] * intensity
    return mean


def _intensity(x: Tensor, n_levels: int) -> Tensor:
    return (2 * x - (n_levels - 1)) / (n_levels - 1)


def _component(u: Tensor, logits: Tensor) -> Tensor:
    """The component in whose share of [0, 1] the noise falls, (..., P) and (..., P, M) -> (..., P)."""
    if u.shape != logits.shape[:-1]:
        raise ShapeError(
            f"u_component must be (..., P) for logits (..., P, M); got {tuple(u.shape)}, {tuple(logits.shape)}"
        )
    shares = torch.softmax(logits, -1).cumsum(-1)[..., :-1]  # the last one's end is 1, however it is rounded
    return (u.unsqueeze(-1) >= shares).sum(-1)


def _pick(values: Tensor, component: Tensor) -> Tensor:
    """Parameters of one component, (..., M) and (...) -> (...)."""
    return values.gather(-1, component.unsqueeze(-1)).squeeze(-1)


def _quantile(u: Tensor, mean: Tensor, log_scale: Tensor, n_levels: int) -> Tensor:
    """The level in whose bin the quantile of a logistic falls."""
    info = torch.finfo(u.dtype)
    intensity = mean + log_scale.exp() * torch.logit(u.clamp(info.tiny, 1 - info.eps / 2))
    return ((intensity + 1) * ((n_levels - 1) / 2)).round().clamp(0, n_levels - 1)


def _check_mixture(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> None:
    shapes = {tuple(parameter.shape) for parameter in (logits, means, log_scales)}
    if len(shapes) != 1 or logits.ndim == 0 or logits.shape[:-1] != x.shape or logits.shape[-1] == 0:
        raise ShapeError(
            "x or u must be (..., P) and logits, means and log_scales (..., P, M) with at least one component; got "
            f"{tuple(x.shape)}, {tuple(logits.shape)}, {tuple(means.shape)}, {tuple(log_scales.shape)}"
        )


def _check_colour(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, coefficients: Tensor) -> None:
    others = means, log_scales, coefficients
    fits = x.ndim > 0 and logits.ndim > 0 and x.shape[-1] == N_CHANNELS and logits.shape[-1] > 0
    if not fits or logits.shape[:-1] != x.shape[:-1] or any(o.shape != (*x.shape, logits.shape[-1]) for o in others):
        raise ShapeError(
            "x or u must be (..., P, 3), logits (..., P, M) with at least one component, and means, log_scales and "
            f"coefficients (..., P, 3, M); got {tuple(x.shape)}, {tuple(logits.shape)}, "
            + ", ".join(str(tuple(other.shape)) for other in others)
        )
