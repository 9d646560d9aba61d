"""The whole paper in one file: a two-group DVAE++ with an RBM prior, its backward pass by hand, trained in seconds.

    prior      p(z1, z2)            a restricted Boltzmann machine
    encoder    q(z1 | x)            one tanh layer, then logits
               q(z2 | x, zeta1)     the same, and it sees the smoothed first group
    decoder    p(x | zeta1, zeta2)  one tanh layer, then the logits of binary pixels

Training maximises log p(x|zeta) - kl_weight KL for one smoothed draw zeta per image; evaluation takes the binary limit,
zeta = z. Everything is small enough (at most 12 latent units) to be enumerated, so that what a large model can only
estimate or bound, log Z and log p(x), is known here exactly.

Read ``forward``, then ``backward``: the same lines in reverse order, each with the line it reverses quoted above it.
Two rules suffice. For y = x A: dL/dA = x' dL/dy and dL/dx = dL/dy A'. For y = f(x) entry by entry: dL/dx = f'(x) dL/dy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit, logsumexp

from reference import bernoulli, boltzmann, bound, posterior
from reference.bernoulli import sigmoid, softplus
from reference.boltzmann import Marginals
from reference.boltzmann_kl import RBMKLWithGradients, kl_with_gradients
from reference.gibbs import PersistentChains
from reference.likelihoods import bernoulli_log_prob, bernoulli_log_prob_gradient
from reference.philox import STREAM_BATCH, STREAM_EVALUATION, STREAM_RHO, STREAM_WEIGHTS, uniforms
from reference.smoothing import OverlappingExponential
from reference.vocabulary import (
    RBM,
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_rows,
    as_scalar,
    as_states,
    check_count,
    check_finite,
    check_positive,
    check_same_rows,
)

LARGEST_MODEL = 12  # latent units: 4096 states for each image
_CLIP = 0.01  # a pixel never on in the data keeps a finite logit in the first guess
_MEMORY = 0.9, 0.999  # how much of its two averages Adam keeps at every step
_ADAM_EPSILON = 1e-3  # as the paper (section 7.1) and the presets of dvaepp


@dataclass(frozen=True, eq=False)
class Parameters:
    """Every number that is trained. A gradient with respect to them is another ``Parameters``.

    D pixels, H hidden units, M latent units in each group:

        encoder 1   V1 (D, H), u1 (H,), A1 (H, M), c1 (M,)
        encoder 2   V2 (D, H), S2 (M, H), u2 (H,), A2 (H, M), c2 (M,)
        decoder     V3 (2 M, H), u3 (H,), A3 (H, D), c3 (D,)
        prior       a1 (M,), a2 (M,), W (M, M)

    Source   DVAE++ (arXiv:1802.04920), fig. 2(g), in its smallest form.
    Domain   finite float64; 2 M <= 12
    Raises   ShapeError if the shapes do not fit each other; DomainError for an entry that is not finite or a model too
             large to enumerate; TypeError for a dtype that is not a number.
    """

    V1: Array
    u1: Array
    A1: Array
    c1: Array
    V2: Array
    S2: Array
    u2: Array
    A2: Array
    c2: Array
    V3: Array
    u3: Array
    A3: Array
    c3: Array
    a1: Array
    a2: Array
    W: Array

    def __post_init__(self) -> None:
        for field in fields(self):
            # The dataclass is frozen; this is its one moment of construction.
            value = as_float(field.name, getattr(self, field.name)).astype(np.float64, copy=False)
            object.__setattr__(self, field.name, value)
            check_finite(field.name, value)
        for name, shape in _shapes(self.n_pixels, n_hidden=self.u1.size, n_side=self.n_side).items():
            if getattr(self, name).shape != shape or 0 in shape:
                got = getattr(self, name).shape
                raise ShapeError(f"{name} must be {shape} to fit u1, c1 and c3, with at least one entry; got {got}")
        if self.n_latents > LARGEST_MODEL:
            raise DomainError(f"2 M must be at most {LARGEST_MODEL}, to be enumerated; it is {self.n_latents}")

    @classmethod
    def init(cls, x: ArrayLike, n_side: int, n_hidden: int, seed: int) -> Parameters:
        """First weights, for these images: matrices that keep a signal's size, biases 0, a uniform prior.

        A matrix (n, m) is uniform on +-sqrt(6 / (n + m)). The decoder's output starts at the logits of the mean image.

        Source   Glorot & Bengio (2010), eq. (16), for the matrices.
        Shapes   x (n, D)
        Domain   x in {0, 1}; n_hidden >= 1; 1 <= n_side <= 6, the M of each group; seed as in ``philox``
        Units    none
        Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
        """
        images = as_float("x", x)
        images = as_states("x", images, images.shape[-1] if images.ndim == 2 else 0)
        check_count("the number of rows of x", len(images))
        shapes = _shapes(images.shape[1], check_count("n_hidden", n_hidden), check_count("n_side", n_side))
        arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
        for step, name in enumerate(("V1", "A1", "V2", "S2", "A2", "V3", "A3")):
            rows, columns = shapes[name]
            spread = np.sqrt(6 / (rows + columns))
            arrays[name] = spread * (2 * uniforms(seed, step, rows, columns, STREAM_WEIGHTS) - 1)
        return cls(**arrays | {"c3": logit(np.clip(images.mean(axis=0), _CLIP, 1 - _CLIP))})

    @property
    def n_pixels(self) -> int:
        """Pixels of an image: D."""
        return int(self.c3.size)

    @property
    def n_side(self) -> int:
        """Latent units in each of the two groups: M."""
        return int(self.c1.size)

    @property
    def n_latents(self) -> int:
        """Latent units in all: 2 M."""
        return 2 * self.n_side

    @property
    def prior(self) -> RBM:
        """The prior as a machine of its own."""
        return RBM(self.a1, self.a2, self.W)

    def map(self, function: Callable[..., Array], *others: Parameters) -> Parameters:
        """Apply a function to every array, together with the arrays of the same name in ``others``.

        Source   none: bookkeeping.
        Shapes   whatever the function returns must fit again
        Domain   results finite
        Units    those of the function
        Raises   as the constructor, for results that do not fit.
        """
        names = [field.name for field in fields(self)]
        return Parameters(*(function(*(getattr(p, name) for p in (self, *others))) for name in names))


def _shapes(n_pixels: int, n_hidden: int, n_side: int) -> dict[str, tuple[int, ...]]:
    D, H, M = n_pixels, n_hidden, n_side
    return {
        **{"V1": (D, H), "u1": (H,), "A1": (H, M), "c1": (M,)},
        **{"V2": (D, H), "S2": (M, H), "u2": (H,), "A2": (H, M), "c2": (M,)},
        **{"V3": (2 * M, H), "u3": (H,), "A3": (H, D), "c3": (D,)},
        **{"a1": (M,), "a2": (M,), "W": (M, M)},
    }


# ---- the model, forwards --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Forward:
    """Everything ``forward`` computed on its way, for ``backward`` to use: B images, N = 2 M latent units, nats.

    Source   as ``forward``.
    """

    smoothing: OverlappingExponential
    x: Array  # (B, D)
    hidden1: Array  # (B, H)
    hidden2: Array  # (B, H)
    logit_q: Array  # (B, N)
    zeta: Array  # (B, N)
    dzeta_dlogit_q: Array  # (B, N)
    nu: Array  # (B, N)
    hidden3: Array  # (B, H)
    pixel_logits: Array  # (B, D)
    log_likelihood: Array  # (B,), log p(x|zeta)
    kl: RBMKLWithGradients  # to the prior, for this draw of zeta

    def bound(self, kl_weight: float = 1.0) -> Array:
        """log p(x|zeta) - kl_weight KL: what training raises.

        Source   DVAE++ (arXiv:1802.04920), eq. (1), with the weight of section 7.2.
        Shapes   -> (B,)
        Domain   kl_weight in [0, 1]
        Units    nats
        Raises   DomainError or TypeError for a kl_weight that does not fit.
        """
        return self.log_likelihood - bound.check_kl_weight(kl_weight) * self.kl.kl


def forward(parameters: Parameters, x: ArrayLike, rho: ArrayLike, smoothing: OverlappingExponential) -> Forward:
    """Both terms of the bound, log p(x|zeta) and the KL, for one smoothed draw per image.

        zeta1 ~ q(zeta1|x),   zeta2 ~ q(zeta2|x, zeta1)
        KL = log Z - H(q1) - H(q2) - a1'mu1 - a2'mu2 - nu1'W mu2,     mu = sigma(logit_q)

    In the last product mu1 would be wrong: group 2 has seen zeta1, so it knows something about z1, namely nu1.

    Source   DVAE++ (arXiv:1802.04920), section 5, eqs. (3) and (6) and the form after it.
    Shapes   x (B, D), rho (B, 2 M), the noise of group 1 and then of group 2 -> Forward
    Domain   x in {0, 1}, rho in [0, 1]
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit; TypeError for another smoothing, whose
             nu has another derivative than the one in ``backward``.
    """
    p, x = parameters, as_states("x", x, parameters.n_pixels)
    rho = as_rows("rho", rho, p.n_latents)
    check_same_rows(x=x, rho=rho)
    if not isinstance(smoothing, OverlappingExponential):
        raise TypeError(f"smoothing must be an OverlappingExponential; got {type(smoothing).__name__}")
    smoothing.check_one_sharpness()

    hidden1, logit_q1 = _encode1(p, x)
    draw1 = smoothing.inverse_cdf_with_derivatives(rho[:, : p.n_side], logit_q1)
    hidden2, logit_q2 = _encode2(p, x, draw1.zeta)
    draw2 = smoothing.inverse_cdf_with_derivatives(rho[:, p.n_side :], logit_q2)
    logit_q, zeta = np.hstack([logit_q1, logit_q2]), np.hstack([draw1.zeta, draw2.zeta])
    dzeta_dlogit_q = np.hstack([draw1.dzeta_dlogit_q, draw2.dzeta_dlogit_q])

    hidden3, pixel_logits = _decode(p, zeta)
    log_likelihood = bernoulli_log_prob(x, pixel_logits)

    nu = posterior.nu(smoothing, zeta, logit_q)
    kl = kl_with_gradients(p.prior, logit_q, nu, 2, boltzmann.log_partition(p.prior))
    return Forward(
        smoothing, x, hidden1, hidden2, logit_q, zeta, dzeta_dlogit_q, nu, hidden3, pixel_logits, log_likelihood, kl
    )


# Latents enter the networks as 2 zeta - 1, in [-1, 1]: a unit then speaks as loudly when it is off as when it is on.


def _encode1(p: Parameters, x: Array) -> tuple[Array, Array]:
    hidden1 = np.tanh(x @ p.V1 + p.u1)
    return hidden1, hidden1 @ p.A1 + p.c1


def _encode2(p: Parameters, x: Array, zeta1: Array) -> tuple[Array, Array]:
    hidden2 = np.tanh(x @ p.V2 + (2 * zeta1 - 1) @ p.S2 + p.u2)
    return hidden2, hidden2 @ p.A2 + p.c2


def _decode(p: Parameters, zeta: Array) -> tuple[Array, Array]:
    hidden3 = np.tanh((2 * zeta - 1) @ p.V3 + p.u3)
    return hidden3, hidden3 @ p.A3 + p.c3


# ---- and backwards --------------------------------------------------------------------------------------------------


def backward(
    parameters: Parameters, fwd: Forward, upstream: ArrayLike, kl_weight: float, prior_means: Marginals
) -> Parameters:
    """Gradient of L, any function of the images' bounds log p(x|zeta) - kl_weight KL, in all parameters.

    ``upstream`` is dL/dbound: -1/B for each image if L is a loss, minus the mean bound. ``prior_means`` is the gradient
    of log Z: the prior's means E[z1], E[z2], E[z1 z2'], exact (``boltzmann.marginals``) or of samples
    (``boltzmann.log_partition_gradient``). Nothing else in training needs samples of the prior.

    Below, d<name> means dL/d<name>, of the shape of <name>.

    Source   DVAE++ (arXiv:1802.04920), sections 3 and 5, appendix E for log Z. The paper leaves the derivatives to
             automatic differentiation; these were derived by hand.
    Shapes   upstream (B,) -> as ``parameters``
    Domain   upstream finite; kl_weight in [0, 1]; fwd = ``forward`` at these parameters
    Units    those of L per unit of the parameter
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    p, x, M = parameters, fwd.x, parameters.n_side
    weight = as_float("upstream", upstream)
    if weight.shape != (len(x),):
        raise ShapeError(f"upstream must be ({len(x)},), one number per image; got {weight.shape}")
    check_finite("upstream", weight)
    for name, wanted in (("mean1", p.a1), ("mean2", p.a2), ("pair", p.W)):
        if getattr(prior_means, name).shape != wanted.shape:
            raise ShapeError(f"prior_means.{name} must be {wanted.shape}; got {getattr(prior_means, name).shape}")

    # bound = log_likelihood - kl_weight kl
    dlog_likelihood = weight[:, None]
    dkl = -bound.check_kl_weight(kl_weight) * weight[:, None]

    # log_likelihood = bernoulli_log_prob(x, pixel_logits); its derivative is x - sigma(pixel_logits)
    dpixel_logits = dlog_likelihood * bernoulli_log_prob_gradient(x, fwd.pixel_logits)
    # pixel_logits = hidden3 A3 + c3
    dA3, dc3 = fwd.hidden3.T @ dpixel_logits, dpixel_logits.sum(axis=0)
    dhidden3 = dpixel_logits @ p.A3.T
    # hidden3 = tanh((2 zeta - 1) V3 + u3)
    dinside3 = dhidden3 * (1 - fwd.hidden3**2)
    dV3, du3 = (2 * fwd.zeta - 1).T @ dinside3, dinside3.sum(axis=0)
    dzeta = 2 * dinside3 @ p.V3.T

    # kl = log Z + (entropies and energy, a function of logit_q, nu, a1, a2, W); log Z is one number for all images
    dlog_partition = dkl.sum()
    da1 = dlog_partition * prior_means.mean1 + (dkl * fwd.kl.dkl_da1).sum(axis=0)
    da2 = dlog_partition * prior_means.mean2 + (dkl * fwd.kl.dkl_da2).sum(axis=0)
    dW = dlog_partition * prior_means.pair + (dkl[:, :, None] * fwd.kl.dkl_dW).sum(axis=0)
    dlogit_q = dkl * fwd.kl.dkl_dlogit_q
    dnu = dkl * fwd.kl.dkl_dnu  # 0 for group 2, whose zeta no later group has seen
    # nu = sigma(logit_q + beta (2 zeta - 1))
    dinside_nu = dnu * fwd.nu * sigmoid(-fwd.logit_q - fwd.smoothing.log_ratio(fwd.zeta))
    dlogit_q += dinside_nu
    dzeta += 2 * fwd.smoothing.beta * dinside_nu

    # zeta2 = inverse_cdf(rho2, logit_q2)
    dlogit_q2 = dlogit_q[:, M:] + dzeta[:, M:] * fwd.dzeta_dlogit_q[:, M:]
    # logit_q2 = hidden2 A2 + c2
    dA2, dc2 = fwd.hidden2.T @ dlogit_q2, dlogit_q2.sum(axis=0)
    dhidden2 = dlogit_q2 @ p.A2.T
    # hidden2 = tanh(x V2 + (2 zeta1 - 1) S2 + u2)
    dinside2 = dhidden2 * (1 - fwd.hidden2**2)
    dV2, dS2, du2 = x.T @ dinside2, (2 * fwd.zeta[:, :M] - 1).T @ dinside2, dinside2.sum(axis=0)
    dzeta1 = dzeta[:, :M] + 2 * dinside2 @ p.S2.T  # through the decoder and nu1, and through group 2

    # zeta1 = inverse_cdf(rho1, logit_q1)
    dlogit_q1 = dlogit_q[:, :M] + dzeta1 * fwd.dzeta_dlogit_q[:, :M]
    # logit_q1 = hidden1 A1 + c1
    dA1, dc1 = fwd.hidden1.T @ dlogit_q1, dlogit_q1.sum(axis=0)
    dhidden1 = dlogit_q1 @ p.A1.T
    # hidden1 = tanh(x V1 + u1)
    dinside1 = dhidden1 * (1 - fwd.hidden1**2)
    dV1, du1 = x.T @ dinside1, dinside1.sum(axis=0)

    return Parameters(dV1, du1, dA1, dc1, dV2, dS2, du2, dA2, dc2, dV3, du3, dA3, dc3, da1, da2, dW)


# ---- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Adam:
    """Adam's memory: running averages of the gradient and of its square, and the number of steps taken.

    Source   Kingma & Ba (2015), algorithm 1; epsilon 1e-3 as in DVAE++, section 7.1.
    """

    mean: Parameters
    square: Parameters
    n_steps: int = 0

    @classmethod
    def init(cls, parameters: Parameters) -> Adam:
        """Return an empty memory for such parameters.

        Source   Kingma & Ba (2015), algorithm 1.
        Shapes   as ``parameters``
        Domain   all parameters
        Units    none
        Raises   nothing.
        """
        return cls(parameters.map(np.zeros_like), parameters.map(np.zeros_like))

    def step(self, parameters: Parameters, gradient: Parameters, learning_rate: float) -> tuple[Parameters, Adam]:
        """Move every parameter against its gradient by about the learning rate, whatever the gradient's size.

        theta - learning_rate m / (sqrt(v) + epsilon), m and v the averages of the gradient and of its square. They
        start at 0, and are divided by 1 - memory**n_steps to make up for it.

        Source   Kingma & Ba (2015), algorithm 1.
        Shapes   as ``parameters``
        Domain   learning_rate positive and finite
        Units    those of the parameters
        Raises   DomainError for any other, or for parameters that are no longer finite.
        """
        check_positive("learning_rate", as_float("learning_rate", learning_rate))
        keep_mean, keep_square = _MEMORY
        n = self.n_steps + 1
        mean = self.mean.map(lambda m, g: keep_mean * m + (1 - keep_mean) * g, gradient)
        square = self.square.map(lambda v, g: keep_square * v + (1 - keep_square) * g**2, gradient)
        rate, correction = learning_rate / (1 - keep_mean**n), 1 - keep_square**n
        moved = parameters.map(
            lambda theta, m, v: theta - rate * m / (np.sqrt(v / correction) + _ADAM_EPSILON), mean, square
        )
        return moved, Adam(mean, square, n)


@dataclass(frozen=True, eq=False)
class Training:
    """Where training stands. What follows depends on this alone: stop, store, go on, and the numbers are the same.

    Source   DVAE++ (arXiv:1802.04920), sections 5 and 7; Tieleman (2008) for the chains.
    """

    parameters: Parameters
    adam: Adam
    chains: PersistentChains
    seed: int

    @classmethod
    def init(cls, x: ArrayLike, n_side: int, n_hidden: int, seed: int, n_chains: int = 100) -> Training:
        """Before the first iteration: ``Parameters.init``, and ``n_chains`` >= 1 chains that will sample the prior.

        Source   as ``Parameters.init`` and ``PersistentChains.init``.
        Shapes, Domain, Units, Raises   as ``Parameters.init``
        """
        parameters = Parameters.init(x, n_side, n_hidden, seed)
        return cls(parameters, Adam.init(parameters), PersistentChains.init(parameters.prior, n_chains, seed), seed)


def train(
    training: Training,
    x: ArrayLike,
    n_iterations: int,
    learning_rate: float = 0.01,
    batch_size: int = 100,
    beta: float = 8.0,
    kl_warmup: int = 300,
    n_sweeps: int = 2,
    exact: bool = False,
) -> Training:
    """Follow the gradient of the bound for some iterations; training on from the result continues the same run.

    Every iteration draws a batch (with replacement) and its rho, asks for the gradient of log Z, from ``n_sweeps`` more
    sweeps of the persistent chains or, if ``exact``, by enumeration, and takes a step of Adam. The KL's weight grows
    linearly to 1 over the first ``kl_warmup`` iterations, so that units are of use before they are charged for.

    Source   DVAE++ (arXiv:1802.04920), sections 5 and 7, KL annealing as in section 7.2; persistent chains: Tieleman
             (2008).
    Shapes   x (n, D), D as at ``Training.init``
    Domain   x in {0, 1}; n_iterations, n_sweeps, kl_warmup >= 0; batch_size >= 1; learning_rate and beta positive
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit; DomainError when a parameter is no
             longer finite.
    """
    x, state, smoothing = as_states("x", x, training.parameters.n_pixels), training, OverlappingExponential(beta)
    check_count("the number of rows of x", len(x))
    batch_size, kl_warmup = check_count("batch_size", batch_size), check_count("kl_warmup", kl_warmup, least=0)
    upstream = np.full(batch_size, -1 / batch_size)
    for _ in range(check_count("n_iterations", n_iterations, least=0)):
        parameters, chains, step = state.parameters, state.chains, state.adam.n_steps
        if exact:
            prior_means = boltzmann.marginals(parameters.prior)
        else:
            chains = chains.run(parameters.prior, n_sweeps)
            prior_means = boltzmann.log_partition_gradient(parameters.prior, chains.z1, chains.z2)
        chosen = (uniforms(state.seed, step, batch_size, 1, STREAM_BATCH)[:, 0] * len(x)).astype(int)
        rho = uniforms(state.seed, step, batch_size, parameters.n_latents, STREAM_RHO)
        kl_weight = min(1.0, (step + 1) / (kl_warmup + 1))
        fwd = forward(parameters, x[chosen], rho, smoothing)
        gradient = backward(parameters, fwd, upstream, kl_weight, prior_means)
        state = Training(*state.adam.step(parameters, gradient, learning_rate), chains, state.seed)
    return state


# ---- evaluation, in the binary limit --------------------------------------------------------------------------------


def likelihood_estimate(
    parameters: Parameters, x: ArrayLike, n_importance: int, seed: int, log_partition: float
) -> bound.Likelihood:
    """The importance-weighted estimate of log p(x), as a large model has to report it.

    ``bound.likelihood`` of ``n_importance`` draws z ~ q(z|x). log Z is an argument: exact (``boltzmann.log_partition``)
    or itself an estimate (``partition.bracket``), whose error goes over to the result unchanged, with the sign turned.

    Source   DVAE++ (arXiv:1802.04920), section 7; Burda et al. (2015), eq. (8).
    Shapes   x (B, D) -> Likelihood of (B,); B n_importance images are decoded at once
    Domain   x in {0, 1}; n_importance >= 1; seed as in ``philox``; log_partition finite
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    normaliser = as_scalar("log_partition", log_partition, "one number for all images")
    check_finite("log_partition", normaliser)
    p, n_importance = parameters, check_count("n_importance", n_importance)
    images = as_states("x", x, p.n_pixels).repeat(n_importance, axis=0)
    networks = (lambda _: _encode1(p, images)[1]), (lambda z1: _encode2(p, images, z1)[1])
    rho = uniforms(seed, 0, len(images), p.n_latents, STREAM_EVALUATION)
    z, logit_q = posterior.binary_posterior(networks, rho)
    log_prior = -boltzmann.energy(p.prior, *np.hsplit(z, 2)) - normaliser
    log_joint = bernoulli_log_prob(images, _decode(p, z)[1]) + log_prior
    log_q = bernoulli.log_prob(z, logit_q).sum(axis=1)
    return bound.likelihood(log_joint.reshape(-1, n_importance), log_q.reshape(-1, n_importance))


def log_likelihood(parameters: Parameters, x: ArrayLike) -> Array:
    """Exact log p(x): the logarithm of the sum over every z of p(z) p(x|z).

    Source   DVAE++ (arXiv:1802.04920), section 6.1, the sum of the generative model over z; the enumeration is ours.
    Shapes   x (B, D) -> (B,)
    Domain   x in {0, 1}
    Units    nats
    Raises   ShapeError, DomainError or TypeError for an x that does not fit.
    """
    return np.asarray(logsumexp(_log_joint(parameters, as_states("x", x, parameters.n_pixels)), axis=1))


def elbo(parameters: Parameters, x: ArrayLike) -> Array:
    """Exact evidence lower bound: the sum over every z of q(z|x) (log p(x, z) - log q(z|x)).

    Source   DVAE++ (arXiv:1802.04920), eq. (1).
    Shapes, Domain, Units, Raises   as ``log_likelihood``
    """
    x = as_states("x", x, parameters.n_pixels)
    log_q = _log_posterior(parameters, x)
    return np.asarray((np.exp(log_q) * (_log_joint(parameters, x) - log_q)).sum(axis=1))


def _log_joint(p: Parameters, x: Array) -> Array:
    """log p(x, z) of every z: (B, D) -> (B, 2**N), in the order of ``boltzmann.all_states``."""
    (states,) = boltzmann.all_states(p.n_latents)
    log_prior = -boltzmann.energy(p.prior, *np.hsplit(states, 2)) - boltzmann.log_partition(p.prior)
    return _log_prob_table(_decode(p, states)[1], x).T + log_prior


def _log_posterior(p: Parameters, x: Array) -> Array:
    """log q(z|x) of every z: (B, D) -> (B, 2**N), in the order of ``boltzmann.all_states``, where z1 runs fastest."""
    (states,) = boltzmann.all_states(p.n_side)
    log_q1 = _log_prob_table(_encode1(p, x)[1], states)  # (B, z1)
    log_q2 = _log_prob_table(_encode2(p, x[:, None, :], states)[1], states)  # (B, z1, z2)
    return (log_q1[:, :, None] + log_q2).transpose(0, 2, 1).reshape(len(x), len(states) ** 2)


def _log_prob_table(logits: Array, values: Array) -> Array:
    """log p(value | logits), summed over units, of every value under every logit: (..., n) and (S, n) -> (..., S)."""
    return -(softplus(-logits) @ values.T) - softplus(logits) @ (1 - values).T
