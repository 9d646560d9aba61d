"""Gradients through a binary sample: the estimators this paper's smoothing is measured against.

N independent units with logits l, q = sigmoid(l), p = sigmoid(-l), and a function f of all of them. Wanted is

    d/dl E[f(z)],    z_i = 1 with probability q_i,

from random draws, because 2**N terms are too many (``exact_gradient`` has them all, for small N). A draw of z is a step
function of its noise, z = 1[rho > p], and the derivative of a step is 0: that is the whole difficulty. Four ways out,
in this order below:

    score function   differentiate the probabilities instead of the sample; right on average, noisy. A *baseline* takes
                     off f what is known without z, a *control variate* what is known on average:
                     ``reinforce``, ``nvil``, ``muprop``, and ``vimco`` for several samples at once
    antithetic pair  evaluate f at rho and at 1 - rho, and let the difference speak: ``arm``, ``disarm``
    relaxed control  the score function with a differentiable companion of z as control variate: ``relax``, ``rebar``
    relaxation       replace z by the companion and accept a bias: ``concrete``, ``smoothed``, ``straight_through``

All share one signature. Noise comes in, one row per draw; logits are one vector for all rows, or a row for each; f is
called on (S, N) rows in the order of the noise (so that it may know which datum a row belongs to), and what comes out
is one estimate per row, (S, N), never a mean. An estimator is unbiased if its mean over the noise is the derivative.

    Integrand          f together with its gradient on relaxed values
    rho, v             independent uniform noise in (0, 1)
    baseline           a number, or one per row; must not depend on that row's draw
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit, logsumexp

from reference.bernoulli import log_prob, sigmoid, softplus
from reference.boltzmann import all_states
from reference.smoothing import BinaryConcrete, Smoothing
from reference.vocabulary import (
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_scalar,
    as_states,
    check,
    check_count,
    check_finite,
    check_not_nan,
    check_positive,
    check_same_rows,
)

LARGEST_EXACT = 16

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Integrand:
    """A function of N units with its gradient. It is callable, so it goes wherever a plain function goes.

    value: (S, N) -> (S,), at binary or relaxed units alike; gradient: (S, N) -> (S, N), row s the gradient at row s.
    """

    value: Function
    gradient: Function

    def __call__(self, x: Array) -> Array:
        """The value at each row."""
        return self.value(x)


# ---- the sample, its score, and the truth for few units ---------------------------------------------------------


def draw(rho: ArrayLike, logits: ArrayLike) -> Array:
    """Turn uniform noise into binary units: z = 1[rho > p].

    The convention of the inverse CDFs, which increase with rho and tend to this z as a smoothing gets sharper.

    Source   inversion of the CDF of a Bernoulli variable: Devroye (1986), "Non-uniform random variate generation".
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    logits, rho = _arguments(logits, rho=rho)
    return (rho > sigmoid(-logits)).astype(np.float64)


def score(z: ArrayLike, logits: ArrayLike) -> Array:
    """Derivative of the log-probability of z with respect to the logits: z - q.

    Written z p - (1 - z) q, because 1 - q rounds to 0 for a logit of 37 where p = 1e-16 is meant.

    Source   Williams (1992), the "characteristic eligibility" of a Bernoulli logistic unit.
    Shapes   z (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   z in {0, 1}; all logits but NaN
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    logits = _as_logits(logits)
    z = as_states("z", z, logits.shape[-1])
    _check_rows(logits, z=z)
    return z * sigmoid(-logits) - (1 - z) * sigmoid(logits)


def exact_value(f: Function, logits: ArrayLike) -> float:
    """E[f(z)], every z enumerated.

    Source   none: the definition of an expectation.
    Shapes   logits (N,) -> scalar
    Domain   N <= 16; all logits but NaN; f finite
    Units    of f
    Raises   DomainError for more units; ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    states, probs = _distribution(logits)
    return float(probs @ _values("f(z)", f(states), len(states)))


def exact_gradient(f: Function, logits: ArrayLike) -> Array:
    """d/dl E[f(z)], every z enumerated: sum over z of q(z) (f(z) - E[f]) score(z).

    E[f] could be left out, since the mean score is 0; taken off, it saves the digits of a nearly constant f.

    Source   Williams (1992), whose identity is summed here instead of sampled.
    Shapes   logits (N,) -> (N,)
    Domain   N <= 16; all logits but NaN; f finite
    Units    of f
    Raises   as ``exact_value``.
    """
    states, probs = _distribution(logits)
    values = _values("f(z)", f(states), len(states))
    return np.asarray((probs * (values - probs @ values)) @ score(states, logits))


# ---- score function ---------------------------------------------------------------------------------------------


def reinforce(f: Function, rho: ArrayLike, logits: ArrayLike, baseline: ArrayLike = 0.0) -> Array:
    """Estimate the gradient from the score: (f(z) - baseline) score(z). Unbiased.

    d/dl sum over z of q(z) f(z) = E[f(z) d log q(z)/dl]. The score has mean 0, so a baseline that does not know z
    changes the spread and not the mean.

    Source   Williams (1992), "Simple statistical gradient-following algorithms"; DVAE++ (arXiv:1802.04920), section
             1.1.
    Shapes   rho (S, N), logits (N,) or (S, N), baseline scalar or (S,) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; f and baseline finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    z = draw(rho, logits)
    signal = _values("f(z)", f(z), len(z)) - _baseline(baseline, len(z))
    return signal[:, None] * score(z, logits)


@dataclass(frozen=True)
class RunningMoments:
    """Exponentially averaged mean and variance of NVIL's learning signal: its constant baseline and its scale.

    Start at mean 0 and variance 1; ``updated`` after every batch.

    Source   Mnih & Gregor (2014), algorithm 1; DVAE++ (arXiv:1802.04920), section 1.1.
    """

    mean: float = 0.0
    variance: float = 1.0

    def __post_init__(self) -> None:
        mean, variance = as_scalar("mean", self.mean), as_scalar("variance", self.variance)
        check_finite("mean", mean)
        check("variance", variance, (variance >= 0) & (variance < np.inf), "be finite and not negative")

    @property
    def scale(self) -> float:
        """Standard deviation, what ``nvil`` divides by where it exceeds 1."""
        return float(np.sqrt(self.variance))

    def updated(self, signal: ArrayLike, decay: float) -> RunningMoments:
        """The moments moved towards those of one batch: decay * old + (1 - decay) * new.

        Source   Mnih & Gregor (2014), algorithm 1.
        Departs  algorithm 1 updates before it uses them, so that a batch is compared with itself and the estimate is
                 slightly biased. Here the caller orders the two; use first, then update, is unbiased.
        Shapes   signal (S,): f(z) less what a learned baseline predicted
        Domain   finite signal; decay in [0, 1)
        Units    of f
        Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
        """
        values = as_float("signal", signal).astype(np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ShapeError(f"signal must be (S,), one number per draw and at least one; got {values.shape}")
        check_finite("signal", values)
        weight = as_scalar("decay", decay)
        check("decay", weight, (weight >= 0) & (weight < 1), "lie in [0, 1)")
        return RunningMoments(
            mean=float(decay * self.mean + (1 - decay) * values.mean()),
            variance=float(decay * self.variance + (1 - decay) * values.var()),
        )


def nvil(f: Function, rho: ArrayLike, logits: ArrayLike, baseline: ArrayLike, scale: float) -> Array:
    """Estimate the gradient *over max(1, scale)* from a centred and normalised signal.

    (f(z) - baseline) / max(1, scale) score(z), with the baseline C(x) + c: a learned prediction of f from the datum,
    and a running mean; scale is the running standard deviation of what is left. Signals that vary little are not blown
    up, hence the max. Unbiased up to that known factor, as long as baseline and scale come from earlier draws.

    Source   Mnih & Gregor (2014), "Neural variational inference and learning in belief networks", algorithm 1; DVAE++
             (arXiv:1802.04920), section 1.1.
    Shapes   rho (S, N), logits (N,) or (S, N), baseline scalar or (S,), scale scalar -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; f and baseline finite; scale >= 0 and finite
    Units    none where scale > 1 (f over its standard deviation), else of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    size = as_scalar("scale", scale)
    check("scale", size, (size >= 0) & (size < np.inf), "be finite and not negative")
    return reinforce(f, rho, logits, baseline) / np.maximum(1.0, size)


def muprop(f: Integrand, rho: ArrayLike, logits: ArrayLike, baseline: ArrayLike = 0.0) -> Array:
    """Estimate the gradient from the score of what a tangent plane at the mean does not explain. Unbiased.

    With mu = q and the plane h(z) = f(mu) + f'(mu) (z - mu),

        (f(z) - h(z) - baseline) score(z) + f'(mu) q p.

    h depends on z, so it may not simply be subtracted; but E[h(z) score(z)] = f'(mu) dmu/dl is known, and is added
    back. Exact, without any noise, where f is linear and the baseline 0; any other leaves -baseline score(z).

    Source   Gu, Levine, Sutskever, Mnih (2015), "MuProp: unbiased backpropagation for stochastic neural networks";
             DVAE++ (arXiv:1802.04920), section 1.1, which counts it among the estimators with a bias.
    Shapes   rho (S, N), logits (N,) or (S, N), baseline scalar or (S,) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; f, its gradient and baseline finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    _check_integrand("f", f)
    z = draw(rho, logits)
    logits = _as_logits(logits)
    q, p = sigmoid(logits), sigmoid(-logits)
    mu = np.broadcast_to(q, z.shape)
    slope = _gradients("f.gradient(mu)", f.gradient(mu), z.shape)
    # z - mu is the score, in its stable form.
    plane = _values("f(mu)", f(mu), len(z)) + (slope * score(z, logits)).sum(axis=1)
    signal = _values("f(z)", f(z), len(z)) - plane - _baseline(baseline, len(z))
    return signal[:, None] * score(z, logits) + slope * (q * p)


# ---- score function, several samples at once --------------------------------------------------------------------


def vimco(log_f: Function, rho: ArrayLike, logits: ArrayLike) -> Array:
    """Estimate the gradient of a K-sample bound, each sample with a baseline made of the others. Unbiased.

    The target is not E[f] but L = E[log (1/K) sum over k of f(z_k)], as in importance-weighted bounds. All samples
    share the value of the log, so a plain score function could not tell the good ones from the bad:

        sum over k of (log mean f(z_.) - log mean f(z_. with k's own value replaced)) score(z_k),

    the replacement being the geometric mean of the *other* f: the best guess of f(z_k) that does not know z_k.
    If log_f itself depends on the logits (as log p(x, z) - log q(z) does), its own derivative, weighted by
    f(z_k) / sum f, has to be added.

    Source   Mnih & Rezende (2016), "Variational inference for Monte Carlo objectives"; DVAE++ (arXiv:1802.04920),
             section 1.1.
    Shapes   rho (S, K, N), logits (N,) or (S, N) -> (S, N); log_f is called K times, on (S, N)
    Domain   K >= 2; rho strictly inside (0, 1); all logits but NaN; log_f finite
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    noise = as_float("rho", rho)
    if noise.ndim != 3 or noise.shape[1] < 2:
        raise ShapeError(f"rho must be (S, K, N) with K >= 2 samples to compare; got {noise.shape}")
    n_rows, n_samples, _ = noise.shape
    samples = [draw(noise[:, k], logits) for k in range(n_samples)]
    logs = np.stack([_values("log_f(z)", log_f(z), n_rows) for z in samples])  # (K, S)

    others = (logs.sum(axis=0) - logs) / (n_samples - 1)  # log of the geometric mean of the others
    own = np.eye(n_samples, dtype=bool)[:, :, None]
    replaced = np.where(own, others, logs)  # (K, K, S): block k with its own value replaced
    signal = logsumexp(logs, axis=0) - logsumexp(replaced, axis=1)  # the two log K cancel
    return np.asarray(sum(signal[k, :, None] * score(z, logits) for k, z in enumerate(samples)))


def exact_multi_sample_value(log_f: Function, logits: ArrayLike, n_samples: int) -> float:
    """E[log (1/K) sum over k of f(z_k)], every K-tuple of states enumerated.

    Source   Mnih & Rezende (2016); Burda, Grosse, Salakhutdinov (2015) for f = p(x, z) / q(z).
    Shapes   logits (N,) -> scalar
    Domain   N * K <= 16; all logits but NaN; log_f finite
    Units    nats
    Raises   as ``exact_value``.
    """
    joint, tiled = _joint(log_f, logits, n_samples)
    return exact_value(joint, tiled)


def exact_multi_sample_gradient(log_f: Function, logits: ArrayLike, n_samples: int) -> Array:
    """The derivative of ``exact_multi_sample_value``: K copies of the logits, whose derivatives add up.

    Source   Mnih & Rezende (2016).
    Shapes   logits (N,) -> (N,)
    Domain   N * K <= 16; all logits but NaN; log_f finite
    Units    nats
    Raises   as ``exact_value``.
    """
    joint, tiled = _joint(log_f, logits, n_samples)
    return exact_gradient(joint, tiled).reshape(n_samples, -1).sum(axis=0)


# ---- antithetic pairs -------------------------------------------------------------------------------------------


def arm(f: Function, rho: ArrayLike, logits: ArrayLike) -> Array:
    """Estimate the gradient from a pair of opposite draws: (f(z) - f(z')) (rho - 1/2). Unbiased.

    z = 1[rho > p] comes from rho and z' = 1[1 - rho > p] from 1 - rho. What does not change between them cancels, so
    no baseline is needed; swapping rho for 1 - rho changes nothing.

    Source   Yin & Zhou (2019), "ARM: augment-REINFORCE-merge gradient for stochastic binary networks".
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; f finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    z, opposite = _pair(rho, logits)
    difference = _values("f(z)", f(z), len(z)) - _values("f(z)", f(opposite), len(z))
    return difference[:, None] * (as_float("rho", rho).astype(np.float64) - 0.5)


def disarm(f: Function, rho: ArrayLike, logits: ArrayLike) -> Array:
    """Estimate the gradient as ARM does on average once z and z' are known. Unbiased, never noisier than ARM.

    E[rho - 1/2 | z, z'] = (z - z') sigmoid(|l|) / 2, so (f(z) - f(z')) (z - z') sigmoid(|l|) / 2: a unit that is equal
    in both draws gets exactly 0. Published twice, also as U2G.

    Source   Dong, Mnih, Tucker (2020), "DisARM: an antithetic gradient estimator for binary latent variables"; Yin, Ho,
             Yan, Qian, Zhou (2020), "Probabilistic best subset selection via gradient-based optimization" (U2G).
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; f finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    z, opposite = _pair(rho, logits)
    difference = _values("f(z)", f(z), len(z)) - _values("f(z)", f(opposite), len(z))
    return difference[:, None] * (z - opposite) * (sigmoid(np.abs(_as_logits(logits))) / 2)


# ---- relaxed control variates -----------------------------------------------------------------------------------


class ConditionalLogistic(NamedTuple):
    """A logistic sample given its sign, with its derivative in the logit; both (S, N)."""

    value: Array
    dvalue_dlogit: Array


def logistic(rho: ArrayLike, logits: ArrayLike) -> Array:
    """The real number whose sign is z: g = l + log(rho / (1 - rho)), logistic around l.

    g > 0 exactly when rho > p, so z = 1[g > 0]: a binary draw is a logistic one rounded off. dg/dl = 1.

    Source   Maddison, Mnih, Teh (2016), "The Concrete distribution" (the two-class case).
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN
    Units    nats (log-odds)
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    logits, rho = _arguments(logits, rho=rho)
    return logits + logit(rho)


def conditional_logistic(z: ArrayLike, v: ArrayLike, logits: ArrayLike) -> ConditionalLogistic:
    """A second logistic sample that agrees with z: g given z, from fresh noise v.

    Given z = 1 the noise is uniform on (p, 1), given z = 0 on (0, p); v says where in that interval. With s = 2 z - 1,

        g = s softplus(s logit(v) + softplus(s l)),    dg/dl = sigmoid(s logit(v) + softplus(s l)) sigmoid(s l).

    z is held fixed in dg/dl. Drawing z and then g given z gives g the distribution of ``logistic``.

    Source   Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein (2017), "REBAR", the conditional reparameterisation.
    Departs  there log(v / ((1 - v) p) + 1) for z = 1 and -log((1 - v) / (v q) + 1) for z = 0 (up to the direction of
             v); the softplus form is the same without the division by p or q, which underflow.
    Shapes   z (S, N), v (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   z in {0, 1}; v strictly inside (0, 1); all logits but NaN
    Units    nats (log-odds)
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    logits, v = _arguments(logits, v=v)
    z = as_states("z", z, logits.shape[-1])
    _check_rows(logits, z=z, v=v)
    sign = 2 * z - 1
    inner = sign * logit(v) + softplus(sign * logits)
    return ConditionalLogistic(sign * softplus(inner), sigmoid(inner) * sigmoid(sign * logits))


def matching_noise(rho: ArrayLike, logits: ArrayLike) -> Array:
    """The v that makes the conditional sample equal the logistic one of rho: where rho lies in z's own interval.

    v = (rho - p) / q = 1 - (1 - rho) / q for z = 1 and rho / p for z = 0; uniform and independent of z, which is all
    ``relax`` asks of v. The two samples, and the values of the surrogate at them, then coincide; whether that leaves
    less noise than an independent v depends on f (``validation.sampling.estimators`` measures both).

    Source   Tucker et al. (2017), the coupling of u and v.
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN. The result is strictly inside too: where rounding takes it
             to an end (rho within rounding of p or of an end), the nearest number inside.
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    z = draw(rho, logits)
    logits, rho = _arguments(logits, rho=rho)
    q, p = sigmoid(logits), sigmoid(-logits)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # the branches not taken
        # Of two forms for z = 1 the one whose subtraction does not magnify the rounding of the larger of p and q.
        upper = np.where(logits >= 0, (rho - p) / q, 1 - (1 - rho) / q)
        v = np.where(z == 1, upper, rho / p)
    return np.clip(v, np.finfo(np.float64).tiny, np.nextafter(1.0, 0.0))


def relax(f: Function, surrogate: Integrand, rho: ArrayLike, v: ArrayLike, logits: ArrayLike) -> Array:
    """Estimate the gradient with any differentiable surrogate c of f as control variate. Unbiased.

    g is the logistic sample behind z, g' a second one that agrees with z (``conditional_logistic``):

        (f(z) - c(g')) score(z) + d/dl c(g) - d/dl c(g').

    The three terms in c cancel on average: both g and g' are distributed alike, and E[c(g')] changes with l through
    the probability of z (score) and through g' given z (derivative). The nearer c(g') comes to f(z), the less noise is
    left. In training c is a network, whose weights descend on the square of this very estimate.

    Source   Grathwohl, Choi, Wu, Roeder, Duvenaud (2018), "Backpropagation through the void" (RELAX).
    Shapes   rho (S, N), v (S, N), logits (N,) or (S, N) -> (S, N); the surrogate is given g, real numbers (S, N)
    Domain   rho, v strictly inside (0, 1), v uniform given z; logits finite (a certain unit leaves nothing to relax);
             f, surrogate and its gradient finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    _check_integrand("surrogate", surrogate)
    z = draw(rho, logits)
    check_finite("logits", _as_logits(logits))
    free, bound = logistic(rho, logits), conditional_logistic(z, v, logits)
    signal = _values("f(z)", f(z), len(z)) - _values("surrogate(g)", surrogate(bound.value), len(z))
    free_slope = _gradients("surrogate.gradient(g)", surrogate.gradient(free), z.shape)
    bound_slope = _gradients("surrogate.gradient(g)", surrogate.gradient(bound.value), z.shape)
    return signal[:, None] * score(z, logits) + free_slope - bound_slope * bound.dvalue_dlogit


def rebar_surrogate(f: Integrand, temperature: float, eta: float = 1.0) -> Integrand:
    """The surrogate that makes RELAX into REBAR: f at the Concrete unit, c(g) = eta f(sigmoid(g / temperature)).

    Source   Tucker et al. (2017); Grathwohl et al. (2018), who name REBAR as this special case.
    Shapes   -> an Integrand of real numbers (S, N)
    Domain   temperature positive and finite; eta finite
    Units    of f
    Raises   DomainError, ShapeError or TypeError for arguments that do not fit.
    """
    _check_integrand("f", f)
    temp, weight = _temperature(temperature), as_scalar("eta", eta)
    check_finite("eta", weight)

    def value(g: Array) -> Array:
        return weight * f(sigmoid(g / temp))

    def gradient(g: Array) -> Array:
        zeta, dzeta_dlogit = _concrete(g, temp)
        return weight * f.gradient(zeta) * dzeta_dlogit

    return Integrand(value, gradient)


def rebar(f: Integrand, rho: ArrayLike, v: ArrayLike, logits: ArrayLike, temperature: float, eta: float = 1.0) -> Array:
    """Estimate the gradient with f's own Concrete relaxation as control variate. Unbiased at every temperature.

    ``relax`` with ``rebar_surrogate``. A low temperature makes c(g') nearly f(z), but its derivatives wild; eta scales
    the control variate (0 is REINFORCE). Training adapts both to the variance.

    Source   Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein (2017), "REBAR: low-variance, unbiased gradient estimates
             for discrete latent variable models"; DVAE++ (arXiv:1802.04920), section 1.1.
    Shapes   rho (S, N), v (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   as ``relax``; temperature positive and finite; eta finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    return relax(f, rebar_surrogate(f, temperature, eta), rho, v, logits)


# ---- relaxations: a derivative through the sample, and a bias ----------------------------------------------------


def straight_through(f: Integrand, rho: ArrayLike, logits: ArrayLike) -> Array:
    """Estimate the gradient as if z were q in the backward pass: f'(z) q p. Biased, but for some f.

    Unbiased where f is linear in every unit separately, as an RBM's energy is: then the derivative in a unit does not
    depend on that unit, and is f with the unit on less f with it off. z**2, the same function of a binary z, is not.

    Source   Bengio, Léonard, Courville (2013), "Estimating or propagating gradients through stochastic neurons"; DVAE++
             (arXiv:1802.04920), section 1.1.
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; f's gradient finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    _check_integrand("f", f)
    z = draw(rho, logits)
    logits = _as_logits(logits)
    return _gradients("f.gradient(z)", f.gradient(z), z.shape) * (sigmoid(logits) * sigmoid(-logits))


def concrete(f: Integrand, rho: ArrayLike, logits: ArrayLike, temperature: float) -> Array:
    """Estimate the gradient through a tempered sigmoid in place of the step. Biased; less so, and noisier, when cold.

    zeta = sigmoid(g / temperature), g = l + logit(rho): the derivative of f(zeta), f'(zeta) zeta (1 - zeta) /
    temperature. It is unbiased for E[f(zeta)], which tends to E[f(z)] as the temperature falls to 0. Also called binary
    Gumbel-softmax.

    Source   Maddison, Mnih, Teh (2016), "The Concrete distribution"; Jang, Gu, Poole (2016), "Categorical
             reparameterization with Gumbel-softmax"; DVAE++ (arXiv:1802.04920), section 1.1.
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; temperature positive and finite; f's gradient finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    return smoothed(f, rho, logits, BinaryConcrete(float(_temperature(temperature))))


def smoothed(f: Integrand, rho: ArrayLike, logits: ArrayLike, smoothing: Smoothing) -> Array:
    """Estimate the gradient through a smoothed unit: f'(zeta) dzeta/dl, zeta the inverse CDF at rho.

    Biased for E[f(z)] as the Concrete is, and unbiased for E[f(zeta)]. This is how DVAE++ trains: there zeta, and not
    z, is what the decoder sees. A sharper smoothing brings the two together, at a price: for overlapping exponentials
    the bias falls like 1 / beta, while the spread grows like e^{beta/4} / beta, and comes from draws between the modes
    as rare as e^{-beta/2}. For beta beyond 20 or so a million draws may contain none, and look better than they are.

    Source   DVAE++ (arXiv:1802.04920), section 3.
    Shapes   rho (S, N), logits (N,) or (S, N) -> (S, N)
    Domain   rho strictly inside (0, 1); all logits but NaN; f's gradient finite
    Units    of f
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    _check_integrand("f", f)
    logits, rho = _arguments(logits, rho=rho)
    smoothing.check_one_sharpness()
    sample = smoothing.inverse_cdf_with_derivatives(rho, logits)
    return _gradients("f.gradient(zeta)", f.gradient(sample.zeta), rho.shape) * sample.dzeta_dlogit_q


# ---- what they share --------------------------------------------------------------------------------------------


def _concrete(g: Array, temperature: Array) -> tuple[Array, Array]:
    """The Concrete unit sigmoid(g / temperature) and its derivative in g."""
    cold = g / temperature
    zeta = sigmoid(cold)
    return zeta, zeta * sigmoid(-cold) / temperature


def _pair(rho: ArrayLike, logits: ArrayLike) -> tuple[Array, Array]:
    """The draws from rho and from 1 - rho. 1 - rho > p is rho < q, which needs no rounding of 1 - rho."""
    z = draw(rho, logits)
    logits, rho = _arguments(logits, rho=rho)
    return z, (rho < sigmoid(logits)).astype(np.float64)


def _distribution(logits: ArrayLike) -> tuple[Array, Array]:
    """Every state, (2**N, N), and its probability."""
    logits = _as_logits(logits)
    if logits.ndim != 1:
        raise ShapeError(f"logits must be (N,), one distribution to enumerate; got {logits.shape}")
    if logits.size > LARGEST_EXACT:
        raise DomainError(
            f"logits must belong to at most {LARGEST_EXACT} units (times samples) to be enumerated; got {logits.size}. "
            "Use an unbiased estimator, such as disarm"
        )
    states = np.concatenate(list(all_states(logits.size)))
    return states, np.exp(log_prob(states, logits).sum(axis=1))


def _joint(log_f: Function, logits: ArrayLike, n_samples: int) -> tuple[Function, Array]:
    """The K-sample objective as a function of K * N units, and their logits."""
    n_samples = check_count("n_samples", n_samples)
    logits = _as_logits(logits)

    def objective(tuples: Array) -> Array:
        samples = np.split(tuples, n_samples, axis=1)
        logs = [_values("log_f(z)", log_f(z), len(tuples)) for z in samples]
        return np.asarray(logsumexp(logs, axis=0) - np.log(n_samples))

    return objective, np.tile(logits, n_samples)


def _as_logits(value: ArrayLike) -> Array:
    logits = as_float("logits", value).astype(np.float64, copy=False)
    if logits.ndim not in (1, 2) or logits.shape[-1] == 0:
        raise ShapeError(f"logits must be (N,), or (S, N) with a row per draw, and N at least 1; got {logits.shape}")
    check_not_nan("logits", logits)
    return logits


def _arguments(logits: ArrayLike, **noise: ArrayLike) -> tuple[Array, ...]:
    """The logits and the named noise as float64; raises unless they fit and the noise is strictly inside (0, 1)."""
    checked = _as_logits(logits)
    arrays = {name: as_float(name, value).astype(np.float64, copy=False) for name, value in noise.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape[1] != checked.shape[-1]:
            raise ShapeError(f"{name} must be (S, {checked.shape[-1]}), one row per draw; got {array.shape}")
        # The ends are no draws of a uniform number, and there a logit is infinite.
        check(name, array, (array > 0) & (array < 1), "lie strictly inside (0, 1)")
    _check_rows(checked, **arrays)
    return (checked, *arrays.values())


def _check_rows(logits: Array, **arrays: Array) -> None:
    """Raise ShapeError unless the named arrays, and logits that have rows, have the same number of them."""
    matrices = arrays if logits.ndim == 1 else {"logits": logits, **arrays}
    check_same_rows(**matrices)


def _values(name: str, value: ArrayLike, n_rows: int) -> Array:
    values = as_float(name, value).astype(np.float64, copy=False)
    if values.shape != (n_rows,):
        raise ShapeError(f"{name} must be ({n_rows},), one number per row; got {values.shape}")
    check_finite(name, values)
    return values


def _gradients(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    gradients = as_float(name, value).astype(np.float64, copy=False)
    if gradients.shape != shape:
        raise ShapeError(f"{name} must be {shape}, one gradient per row; got {gradients.shape}")
    check_finite(name, gradients)
    return gradients


def _baseline(value: ArrayLike, n_rows: int) -> Array:
    baseline = as_float("baseline", value).astype(np.float64, copy=False)
    if baseline.shape not in ((), (n_rows,)):
        raise ShapeError(f"baseline must be one number, or ({n_rows},), one per row; got {baseline.shape}")
    check_finite("baseline", baseline)
    return baseline


def _temperature(value: float) -> Array:
    temperature = as_scalar("temperature", value)
    check_positive("temperature", temperature)
    return temperature


def _check_integrand(name: str, f: Integrand) -> None:
    if not isinstance(f, Integrand):
        raise TypeError(f"{name} must be an Integrand(value, gradient), for its gradient is needed; got {f!r}")
