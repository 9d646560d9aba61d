"""What the decoder says about an image: log p(x | latents) from the numbers a network returns, and its derivatives.

Binary images: independent Bernoulli pixels. Colour images: each pixel a mixture of discretised logistics, that is of
logistic densities over intensities, cut into as many bins as there are levels; the bins at the two ends take the tails,
so that the probabilities of the levels add up to one. Level k of L sits at v = 2 k / (L - 1) - 1 in [-1, 1], in a bin
from v - 1 / (L - 1) to v + 1 / (L - 1), with the outermost edges moved to -inf and inf:

    P(k) = sigma(u) - sigma(l),   u = (upper edge - mean) / scale,   l = (lower edge - mean) / scale.

The difference cancels in both tails, and there is no need for it:

    log P(k) = -softplus(-u) - softplus(l) + log(1 - e^{-(u - l)})

is a sum of terms of one sign for the left end (l = -inf), the right end (u = inf) and everything between.

Colour channels are not independent given the mixture component: the mean of green is shifted by the pixel's own red,
that of blue by red and green.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, log_softmax, logit, logsumexp

from reference import bernoulli
from reference.bernoulli import softplus
from reference.vocabulary import (
    Array,
    ShapeError,
    as_float,
    check,
    check_binary,
    check_broadcast,
    check_count,
    check_finite,
    check_not_nan,
    check_unit_interval,
)

N_LEVELS = 256  # of an 8-bit image
LARGEST_LOG_SCALE = 700.0  # beyond, e^{log_scale} or its inverse leaves float64
N_CHANNELS = 3
_NOISE = "u"  # what the samplers have in the place of x


class MixtureGradient(NamedTuple):
    """Derivatives of the mixture's log-probability, each of the shape of its parameter: (..., P, M)."""

    dlog_prob_dlogits: Array
    dlog_prob_dmeans: Array
    dlog_prob_dlog_scales: Array


class ColourMixtureGradient(NamedTuple):
    """As ``MixtureGradient`` for colour images: logits (..., P, M), the others (..., P, 3, M)."""

    dlog_prob_dlogits: Array
    dlog_prob_dmeans: Array
    dlog_prob_dlog_scales: Array
    dlog_prob_dcoefficients: Array


# ---- binary images ------------------------------------------------------------------------------------------------


def bernoulli_log_prob(x: ArrayLike, logits: ArrayLike) -> Array:
    """Log-probability of binary images under independent pixels.

    Sum over pixels of log sigma(l) where x = 1 and log sigma(-l) where x = 0; see ``bernoulli.log_prob``.

    Source   DVAE++ (arXiv:1802.04920), section 6.1 (factorial Bernoulli).
    Shapes   x (..., D), logits (..., D) broadcast -> (...)
    Domain   x in {0, 1}, all logits but NaN; -inf for a pixel whose logit excludes it
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    x, logits = _as_pixels(x, logits)
    return bernoulli.log_prob(x, logits).sum(axis=-1)


def bernoulli_log_prob_gradient(x: ArrayLike, logits: ArrayLike) -> Array:
    """Derivative of ``bernoulli_log_prob`` with respect to the logits.

    x - sigma(l), which is sigma(-l) where x = 1 and -sigma(l) where x = 0: no subtraction.

    Source   DVAE++ (arXiv:1802.04920), section 6.1 (factorial Bernoulli) differentiated; the derivative is ours.
    Shapes   x (..., D), logits (..., D) broadcast -> (..., D)
    Domain   as ``bernoulli_log_prob``
    Units    none
    Raises   as ``bernoulli_log_prob``.
    """
    x, logits = _as_pixels(x, logits)
    toward = 2 * x - 1
    return toward * bernoulli.sigmoid(-toward * logits)


# ---- images of many levels ----------------------------------------------------------------------------------------


def discretised_logistic_log_prob(
    x: ArrayLike, mean: ArrayLike, log_scale: ArrayLike, n_levels: int = N_LEVELS
) -> Array:
    """Log-probability of one level under one discretised logistic: the building block of the mixtures.

    -softplus(-u) - softplus(l) + log(1 - e^{-(u - l)}), with u and l the bin's edges in units of the scale.

    Source   Salimans et al. (2017), "PixelCNN++", section 2.1; DVAE++ (arXiv:1802.04920), section 6.1.
    Departs  their code subtracts two sigmoids, and where the difference is below 1e-5 takes the bin's central density
             in its place; the product form needs neither the threshold nor the approximation. Their code also clips
             log_scale at -7 from below; this does not, and a caller who wants it clips.
    Shapes   x, mean, log_scale broadcast; the result has their common shape.
    Domain   x a whole number in [0, n_levels); mean finite; log_scale in [-700, 700], in units of half the range of
             intensities, which is [-1, 1]; mean / exp(log_scale) representable; n_levels >= 2
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    n_levels = check_count("n_levels", n_levels, least=2)
    x, parameters = _as_arrays(x, mean=mean, log_scale=log_scale)
    mean, log_scale = parameters.values()
    check_broadcast(x=x, mean=mean, log_scale=log_scale)
    _check_levels("x", x, n_levels)
    check_finite("mean", mean)
    _check_log_scale("log_scale", log_scale)
    return _bin(x, mean, log_scale, n_levels).log_prob


def mixture_log_prob(
    x: ArrayLike, logits: ArrayLike, means: ArrayLike, log_scales: ArrayLike, n_levels: int = N_LEVELS
) -> Array:
    """Log-probability of images of one channel, each pixel a mixture of M discretised logistics.

    Sum over pixels of log sum over m of softmax(logits)_m P_m(x).

    Source   Salimans et al. (2017), "PixelCNN++", section 2.1; DVAE++ (arXiv:1802.04920), section 6.1.
    Shapes   x (..., P), logits, means, log_scales (..., P, M) -> (...)
    Domain   as ``discretised_logistic_log_prob``; finite logits
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    x, logits, means, log_scales = _as_mixture(x, logits, means, log_scales, n_levels)
    components = _bin(x[..., None], means, log_scales, n_levels).log_prob
    return logsumexp(log_softmax(logits, axis=-1) + components, axis=-1).sum(axis=-1)


def mixture_log_prob_gradient(
    x: ArrayLike, logits: ArrayLike, means: ArrayLike, log_scales: ArrayLike, n_levels: int = N_LEVELS
) -> MixtureGradient:
    """Derivatives of ``mixture_log_prob`` with respect to its parameters.

    With w_m the probability that component m made the pixel, given its value: w - softmax(logits) for the logits, and
    w_m times the component's own derivative for the rest.

    Source   DVAE++ (arXiv:1802.04920), section 6.1 differentiated; the derivatives are ours.
    Shapes   as ``mixture_log_prob`` -> three (..., P, M)
    Domain   as ``mixture_log_prob``
    Units    none
    Raises   as ``mixture_log_prob``.
    """
    x, logits, means, log_scales = _as_mixture(x, logits, means, log_scales, n_levels)
    level = _bin(x[..., None], means, log_scales, n_levels)
    weight, dlogits = _responsibilities(logits, level.log_prob)
    return MixtureGradient(dlogits, weight * level.dlog_prob_dmean, weight * level.dlog_prob_dlog_scale)


def colour_mixture_log_prob(
    x: ArrayLike,
    logits: ArrayLike,
    means: ArrayLike,
    log_scales: ArrayLike,
    coefficients: ArrayLike,
    n_levels: int = N_LEVELS,
) -> Array:
    """Log-probability of colour images: a mixture per pixel, whose components chain the three channels.

    With r, g, b the pixel's own intensities in [-1, 1] and c = tanh(coefficients), component m has the means

        red    means_0
        green  means_1 + c_0 r
        blue   means_2 + c_1 r + c_2 g

    and the pixel has log-probability log sum over m of softmax(logits)_m P_m(r) P_m(g | r) P_m(b | r, g).

    Source   Salimans et al. (2017), "PixelCNN++", section 2.2; tanh as in its published code.
    Departs  DVAE++ (arXiv:1802.04920), section 6.1, says a *factorial* mixture of discretised logistics, by which it
             may mean that the channels are independent: that form is ``mixture_log_prob`` of each channel. Chaining
             them is PixelCNN++'s. Its published code clips log-scales at -7 from below; this does not clip.
    Shapes   x (..., P, 3), logits (..., P, M), means, log_scales, coefficients (..., P, 3, M) -> (...)
    Domain   as ``mixture_log_prob``; finite coefficients
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    x, logits, means, log_scales, coefficients = _as_colour(x, logits, means, log_scales, coefficients, n_levels)
    shifted = means + _shift(_intensity(x, n_levels), np.tanh(coefficients))
    components = _bin(x[..., None], shifted, log_scales, n_levels).log_prob.sum(axis=-2)
    return logsumexp(log_softmax(logits, axis=-1) + components, axis=-1).sum(axis=-1)


def colour_mixture_log_prob_gradient(
    x: ArrayLike,
    logits: ArrayLike,
    means: ArrayLike,
    log_scales: ArrayLike,
    coefficients: ArrayLike,
    n_levels: int = N_LEVELS,
) -> ColourMixtureGradient:
    """Derivatives of ``colour_mixture_log_prob`` with respect to its parameters.

    As ``mixture_log_prob_gradient``; a coefficient acts through the mean it shifts, and d tanh(c) = 1 / cosh(c)**2.

    Source   Salimans et al. (2017), "PixelCNN++", section 2.2 differentiated; the derivatives are ours.
    Shapes   as ``colour_mixture_log_prob`` -> (..., P, M) and three (..., P, 3, M)
    Domain   as ``colour_mixture_log_prob``
    Units    none
    Raises   as ``colour_mixture_log_prob``.
    """
    x, logits, means, log_scales, coefficients = _as_colour(x, logits, means, log_scales, coefficients, n_levels)
    intensity = _intensity(x, n_levels)
    level = _bin(x[..., None], means + _shift(intensity, np.tanh(coefficients)), log_scales, n_levels)
    weight, dlogits = _responsibilities(logits, level.log_prob.sum(axis=-2))
    dmeans = weight[..., None, :] * level.dlog_prob_dmean
    red, green = intensity[..., :1], intensity[..., 1:2]
    dtanh = np.stack([dmeans[..., 1, :] * red, dmeans[..., 2, :] * red, dmeans[..., 2, :] * green], axis=-2)
    # 1 / cosh^2 = 4 sigma(2c) sigma(-2c), which 1 - tanh^2 is not once tanh rounds to 1
    dcoefficients = dtanh * 4 * expit(2 * coefficients) * expit(-2 * coefficients)
    return ColourMixtureGradient(dlogits, dmeans, weight[..., None, :] * level.dlog_prob_dlog_scale, dcoefficients)


def mixture_sample(
    u_component: ArrayLike,
    u: ArrayLike,
    logits: ArrayLike,
    means: ArrayLike,
    log_scales: ArrayLike,
    n_levels: int = N_LEVELS,
) -> Array:
    """Turn uniform noise into levels of the mixture that ``mixture_log_prob`` scores.

    The component is the one in whose share of [0, 1] ``u_component`` falls. An intensity is then the quantile
    mean + scale logit(u) of its logistic, and the level the nearest one: that is the one in whose bin it falls.

    Source   Salimans et al. (2017), "PixelCNN++", section 2.1; DVAE++ (arXiv:1802.04920), section 6.1. By inversion.
    Departs  their code draws the component by Gumbel noise and leaves the intensity unrounded.
    Shapes   u_component, u (..., P), logits, means, log_scales (..., P, M) -> (..., P), levels 0, 1, ...
    Domain   noise in [0, 1], at whose ends a quantile is infinite and the level an end; else as ``mixture_log_prob``
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    u, logits, means, log_scales = _as_mixture(u, logits, means, log_scales, n_levels, name=_NOISE)
    component = _component(u_component, logits)
    return _quantile(u, _pick(means, component), _pick(log_scales, component), n_levels)


def colour_mixture_sample(
    u_component: ArrayLike,
    u: ArrayLike,
    logits: ArrayLike,
    means: ArrayLike,
    log_scales: ArrayLike,
    coefficients: ArrayLike,
    n_levels: int = N_LEVELS,
) -> Array:
    """Turn uniform noise into colours of the mixture that ``colour_mixture_log_prob`` scores.

    One component for the pixel; red, then green given red's level, then blue given both; see ``mixture_sample``.

    Source   Salimans et al. (2017), "PixelCNN++", section 2.2, by inversion.
    Departs  as ``mixture_sample``; their code conditions green and blue on intensities that are not rounded.
    Shapes   u_component (..., P), u (..., P, 3), logits (..., P, M), means, log_scales, coefficients (..., P, 3, M)
             -> (..., P, 3), levels 0, 1, ...
    Domain   as ``mixture_sample`` and ``colour_mixture_log_prob``
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    u, logits, means, log_scales, coefficients = _as_colour(
        u, logits, means, log_scales, coefficients, n_levels, name=_NOISE
    )
    component = _component(u_component, logits)[..., None]
    means, log_scales, c = (_pick(each, component)[..., None] for each in (means, log_scales, np.tanh(coefficients)))
    x = np.zeros_like(u)
    for channel in range(N_CHANNELS):  # what later channels would add to this one's mean is nothing
        mean = (means + _shift(_intensity(x, n_levels), c))[..., channel, 0]
        x[..., channel] = _quantile(u[..., channel], mean, log_scales[..., channel, 0], n_levels)
    return x


def bits_per_dimension(nats: ArrayLike, n_dimensions: int) -> Array:
    """Turn a negative log-likelihood in nats into bits for each of its dimensions.

    nats / (D log 2), with D the number of pixels times channels.

    Source   the convention of the field; DVAE++ (arXiv:1802.04920), table 3 (CIFAR10).
    Shapes   any, elementwise
    Domain   all numbers but NaN; n_dimensions >= 1
    Units    nats -> bits per dimension
    Raises   DomainError for NaN or an n_dimensions that is not a positive whole number; TypeError as ``as_float``.
    """
    nats = as_float("nats", nats)
    check_not_nan("nats", nats)
    return nats / (check_count("n_dimensions", n_dimensions) * np.log(2.0))


# ---- the parts ----------------------------------------------------------------------------------------------------


class _Bin(NamedTuple):
    log_prob: Array
    dlog_prob_dmean: Array
    dlog_prob_dlog_scale: Array


def _bin(x: Array, mean: Array, log_scale: Array, n_levels: int) -> _Bin:
    """Log-probability of level x and its derivatives, by way of the bin's edges u and l:

    d/du = sigma(-u) + 1 / (e^width - 1),   d/dl = -sigma(l) - 1 / (e^width - 1),   width = u - l.

    In the derivative by the mean, -(d/du + d/dl) / scale, the second terms cancel. So do the first ones, but not
    exactly, where the scale is wide: with the bin's centre at c scales from the mean their sum is

        sigma(-u) - sigma(l) = -sinh(c) / (cosh(c) + cosh(width/2)),

    from positive terms, here each divided by the larger of e^|c| and e^{width/2}.
    """
    first, last = x == 0, x == n_levels - 1
    sharpness = np.exp(-log_scale)
    with np.errstate(over="ignore"):  # that is what is looked for
        check_finite("mean / exp(log_scale)", (np.abs(mean) + 1) * sharpness)
    # One rounding each, and the upper edge of a level is to the bit the lower edge of the next.
    upper, lower = (2 * x + 2 - n_levels) / (n_levels - 1), (2 * x - n_levels) / (n_levels - 1)
    u = np.where(last, np.inf, (upper - mean) * sharpness)
    l = np.where(first, -np.inf, (lower - mean) * sharpness)  # noqa: E741
    width = np.where(first | last, np.inf, 2 / (n_levels - 1) * sharpness)
    with np.errstate(divide="ignore"):  # log(1 - e^-width) two ways: each is accurate where the other loses digits
        inside = np.where(width < np.log(2), np.log(-np.expm1(-width)), np.log1p(-np.exp(-width)))
    log_prob = -softplus(-u) - softplus(l) + inside
    c = (_intensity(x, n_levels) - mean) * sharpness
    far, half = np.abs(c), np.where(first | last, 0.0, width / 2)
    top = np.maximum(far, half)
    grow, widen = np.exp(far - top), np.exp(half - top)
    inner = -np.sign(c) * grow * -np.expm1(-2 * far) / (grow * (1 + np.exp(-2 * far)) + widen * (1 + np.exp(-2 * half)))
    slope = np.where(first | last, expit(-u) - expit(l), inner)  # at an end one of the two is 0
    finite_u, finite_l = np.where(last, 0.0, u), np.where(first, 0.0, l)  # inf sigma(-inf) is 0, not NaN
    with np.errstate(over="ignore", invalid="ignore"):  # inf / inf, in the branch not taken
        excess = np.where(width > LARGEST_LOG_SCALE, 0.0, width / np.expm1(width))
    return _Bin(log_prob, -sharpness * slope, -(finite_u * expit(-u) - finite_l * expit(l) + excess))


def _responsibilities(logits: Array, components: Array) -> tuple[Array, Array]:
    """Probability of each component given the pixel, and that less its probability before."""
    log_prior = log_softmax(logits, axis=-1)
    posterior = np.exp(log_softmax(log_prior + components, axis=-1))
    return posterior, posterior - np.exp(log_prior)


def _shift(intensity: Array, c: Array) -> Array:
    """What the earlier channels add to the means: intensity (..., P, 3), c (..., P, 3, M) -> (..., P, 3, M)."""
    red, green = intensity[..., :1], intensity[..., 1:2]
    return np.stack(
        [np.zeros_like(c[..., 0, :]), c[..., 0, :] * red, c[..., 1, :] * red + c[..., 2, :] * green], axis=-2
    )


def _intensity(x: Array, n_levels: int) -> Array:
    return (2 * x - (n_levels - 1)) / (n_levels - 1)


def _component(u: ArrayLike, logits: Array) -> Array:
    """The component in whose share of [0, 1] the noise falls, (..., P) and (..., P, M) -> (..., P)."""
    noise = as_float("u_component", u).astype(np.float64)
    if noise.shape != logits.shape[:-1]:
        raise ShapeError(f"u_component must be (..., P) for logits (..., P, M); got {noise.shape}, {logits.shape}")
    check_unit_interval("u_component", noise)
    shares = np.exp(log_softmax(logits, axis=-1)).cumsum(axis=-1)[..., :-1]  # the last one's end is 1
    return (noise[..., None] >= shares).sum(axis=-1)


def _pick(values: Array, component: Array) -> Array:
    """Parameters of one component, (..., M) and (...) -> (...)."""
    component = np.broadcast_to(component, values.shape[:-1])
    return np.take_along_axis(values, component[..., None], axis=-1)[..., 0]


def _quantile(u: Array, mean: Array, log_scale: Array, n_levels: int) -> Array:
    """The level in whose bin the quantile of a logistic falls."""
    intensity = mean + np.exp(log_scale) * logit(u)
    return np.clip(np.rint((intensity + 1) * ((n_levels - 1) / 2)), 0, n_levels - 1)


def _as_mixture(
    x: ArrayLike, logits: ArrayLike, means: ArrayLike, log_scales: ArrayLike, n_levels: int, name: str = "x"
) -> tuple[Array, ...]:
    check_count("n_levels", n_levels, least=2)
    x, parameters = _as_arrays(x, name, logits=logits, means=means, log_scales=log_scales)
    logits, means, log_scales = parameters.values()
    if x.ndim == 0 or len({array.shape for array in parameters.values()}) != 1 or logits.shape[:-1] != x.shape:
        raise ShapeError(
            f"{name} must be (..., P) and logits, means and log_scales (..., P, M); got "
            f"{name} {x.shape}, logits {logits.shape}, means {means.shape}, log_scales {log_scales.shape}"
        )
    _check_mixture(x, parameters, n_levels, name)
    return x, logits, means, log_scales


def _as_colour(
    x: ArrayLike,
    logits: ArrayLike,
    means: ArrayLike,
    log_scales: ArrayLike,
    coefficients: ArrayLike,
    n_levels: int,
    name: str = "x",
) -> tuple[Array, ...]:
    check_count("n_levels", n_levels, least=2)
    x, parameters = _as_arrays(x, name, logits=logits, means=means, log_scales=log_scales, coefficients=coefficients)
    logits = parameters["logits"]
    per_channel = (*x.shape, *logits.shape[-1:])
    fits = all(parameters[name].shape == per_channel for name in ("means", "log_scales", "coefficients"))
    if x.ndim < 2 or x.shape[-1] != N_CHANNELS or logits.shape[:-1] != x.shape[:-1] or not fits:
        listed = ", ".join(f"{name} {array.shape}" for name, array in parameters.items())
        raise ShapeError(
            f"{name} must be (..., P, 3), logits (..., P, M) and means, log_scales and "
            f"coefficients (..., P, 3, M); got {name} {x.shape}, {listed}"
        )
    _check_mixture(x, parameters, n_levels, name)
    return x, *parameters.values()


def _as_arrays(x: ArrayLike, name: str = "x", **parameters: ArrayLike) -> tuple[Array, dict[str, Array]]:
    arrays = {key: as_float(key, value).astype(np.float64) for key, value in parameters.items()}
    return as_float(name, x).astype(np.float64), arrays


def _check_mixture(x: Array, parameters: dict[str, Array], n_levels: int, name: str) -> None:
    if parameters["logits"].shape[-1] == 0:
        raise ShapeError(f"a mixture must have at least one component; got logits {parameters['logits'].shape}")
    if name == _NOISE:
        check_unit_interval(name, x)
    else:
        _check_levels(name, x, n_levels)
    for name, array in parameters.items():
        check_finite(name, array)
    _check_log_scale("log_scales", parameters["log_scales"])


def _check_levels(name: str, x: Array, n_levels: int) -> None:
    check(name, x, (x >= 0) & (x < n_levels) & (x == np.floor(x)), f"be a whole number in [0, {n_levels})")


def _check_log_scale(name: str, log_scale: Array) -> None:
    largest = LARGEST_LOG_SCALE
    check(name, log_scale, np.abs(log_scale) <= largest, f"lie in [{-largest:g}, {largest:g}]")


def _as_pixels(x: ArrayLike, logits: ArrayLike) -> tuple[Array, Array]:
    x, arrays = _as_arrays(x, logits=logits)
    logits = arrays["logits"]
    if len(check_broadcast(x=x, logits=logits)) == 0:
        raise ShapeError(f"x and logits must be (..., D), one number per pixel; got x {x.shape}, logits {logits.shape}")
    check_binary("x", x)
    check_not_nan("logits", logits)
    return x, logits
