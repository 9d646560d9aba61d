"""log Z of a machine too large to enumerate: annealed importance sampling, from below and from above.

Between an independent base machine, whose log Z is known, and the target lie machines with parameters (1 - b) base + b
target, 0 = b_0 < ... < b_K = 1; f_b(z1) is their unnormalised marginal over z1. A chain drawn from the base and carried
along by one Gibbs sweep per machine collects the weight

    w = Z_base * product over k of f_{b_k}(z1) / f_{b_{k-1}}(z1),         whose mean is *exactly* Z.

The same walked backwards, from a sample of the target to the base, has a mean of exactly 1 / Z. Both are estimates
whose logarithm errs to one side, and to opposite ones: that is what makes them a bracket. The weights of both walks
together make a third, better than either (``bennett_estimate``). Two more ways along the same path are told elsewhere:
``thermodynamic`` integrates means instead of averaging weights, ``population`` turns weights into copies.

A Gibbs sweep needs z1 W and so does f_b at every b, so the product is computed once per state and shared: by the weight
into the machine, the weight out of it, and the sweep.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_expit, logit, logsumexp

from reference import tempering
from reference.bernoulli import sigmoid, softplus
from reference.philox import (
    STREAM_FORWARD_INIT,
    STREAM_FORWARD_Z1,
    STREAM_FORWARD_Z2,
    STREAM_REVERSE_Z1,
    STREAM_REVERSE_Z2,
    uniforms,
)
from reference.vocabulary import (
    RBM,
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_ladder,
    as_states,
    check,
    check_count,
    check_finite,
    check_unit_interval,
)

_STANDARD_ERRORS = 3.0  # how far an end of the bracket reaches beyond its estimate
_ROUNDING = 1e-9  # relative; when every weight is equal the standard errors are 0, and rounding alone would "disagree"


@dataclass(frozen=True)
class Estimate:
    """An estimate of log Z with what one needs to know before believing it.

    For annealing, log_partition (nats) is the logarithm of a *mean weight* over n_chains; standard_error (nats) its
    standard error by the delta method, sd(w) / (mean(w) sqrt(n)); effective_sample_size = (sum w)**2 / sum w**2, from 1
    (a single chain decides) to n_chains (all weights equal). With an effective sample size of a few, the standard error
    is itself unreliable, and too small: heavy weights are missing, not present. A large one certifies nothing: a mode
    that no chain found leaves no trace in the weights. Other estimates say what stands in the place of the weights.
    """

    log_partition: float
    standard_error: float
    effective_sample_size: float
    n_chains: int


@dataclass(frozen=True)
class Bracket:
    """log Z between a forward estimate, from below, and a reverse one, from above.

    The forward mean weight is unbiased for Z, so by Jensen's inequality its logarithm is too *low* on average (and
    exceeds log Z by more than t with probability at most exp(-t)). The reverse mean weight is unbiased for 1 / Z, so
    minus its logarithm is too *high* on average, provided the chains started at true samples of the machine: samples
    stuck in a few modes spoil the upper end.

    Use ``high`` for a cautious claim: log p(x) = (unnormalised) - log Z, so a log Z that is too low makes likelihoods
    look too *good*. All in nats.
    """

    lower: Estimate
    upper: Estimate

    @property
    def width(self) -> float:
        """How far the upper estimate lies above the lower one; what annealing has left undecided."""
        return self.upper.log_partition - self.lower.log_partition

    @property
    def consistent(self) -> bool:
        """False when the lower estimate exceeds the upper by more than 3 combined standard errors: one is wrong.

        The usual culprits are samples that were not samples of the machine, or weights so uneven that the standard
        errors mean nothing. True does not certify: a mode both directions missed is missing from both ends.
        """
        combined = np.hypot(self.lower.standard_error, self.upper.standard_error)
        rounding = _ROUNDING * max(1.0, abs(self.lower.log_partition))
        return bool(-self.width <= _STANDARD_ERRORS * combined + rounding)

    @property
    def low(self) -> float:
        """Lower end of the interval: the forward estimate less 3 standard errors."""
        return self.lower.log_partition - _STANDARD_ERRORS * self.lower.standard_error

    @property
    def high(self) -> float:
        """Upper end of the interval: the reverse estimate plus 3 standard errors."""
        return self.upper.log_partition + _STANDARD_ERRORS * self.upper.standard_error


def fitted_base(data_means1: ArrayLike, data_means2: ArrayLike, clip: float = 0.01) -> RBM:
    """The independent machine whose units have the given means: a base nearer to the target than fair coins.

    Biases are the logits of the means, clipped to [clip, 1 - clip] so that a unit never seen on keeps a finite logit
    and the base covers all states. Means of 1/2 give the uniform base. For a machine with several modes raise clip: one
    that differs from the means in many units has a base probability of about clip to that power, and annealing may not
    find it again.

    Source   Salakhutdinov & Murray (2008), section 4.1 (the "base-rate" model).
    Shapes   data_means1 (N1,), data_means2 (N2,) -> RBM with W = 0
    Domain   means in [0, 1]; clip in (0, 1/2]
    Units    means: none; biases: nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    smallest = as_float("clip", clip)
    check("clip", smallest, (smallest > 0) & (smallest <= 0.5), "lie in (0, 1/2]")
    biases = []
    for name, value in (("data_means1", data_means1), ("data_means2", data_means2)):
        means = as_float(name, value)
        if means.ndim != 1 or means.size == 0:
            raise ShapeError(f"{name} must be a vector with at least one unit; got {means.shape}")
        check_unit_interval(name, means)
        biases.append(logit(np.clip(means.astype(np.float64), clip, 1 - clip)))
    return RBM(biases[0], biases[1], np.zeros((biases[0].size, biases[1].size)))


def independent_log_partition(base: RBM) -> float:
    """log Z of a machine without couplings: one softplus per unit.

    Source   the Bernoulli distribution in its natural parameter: Wainwright & Jordan (2008), section 3.
    Shapes   -> scalar
    Domain   base.W = 0
    Units    nats
    Raises   DomainError for a coupling that is not 0.
    """
    _check_independent(base)
    return float(softplus(base.a1).sum() + softplus(base.a2).sum())


def as_path(rbm: RBM, base: RBM, inv_temps: ArrayLike) -> Array:
    """Turn inverse temperatures into a float64 vector that leads from an independent base to a machine of its size.

    Source   none: a check of arguments.
    Shapes   inv_temps (K + 1,) -> (K + 1,)
    Domain   base.W = 0; inv_temps rises strictly from 0 to 1
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    _check_base(rbm, base)
    ladder = as_ladder("inv_temps", inv_temps)
    if ladder[0] != 0:
        raise DomainError(f"inv_temps must start at 0, the base; the first entry is {ladder[0]}")
    return ladder


def path_biases(rbm: RBM, base: RBM, inv_temp: ArrayLike) -> tuple[Array, Array]:
    """Biases (1 - b) base + b target of the machine at b; its couplings are b W, since the base has none.

    Source   Neal (2001), the geometric path; Salakhutdinov & Murray (2008), section 4.1.
    Shapes   inv_temp scalar -> (N1,), (N2,); or (B,), one for each row -> (B, N1), (B, N2)
    Domain   base.W = 0 and of the machine's shape; inv_temp in [0, 1]
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    _check_base(rbm, base)
    inv_temp = as_float("inv_temp", inv_temp)
    if inv_temp.ndim > 1:
        raise ShapeError(f"inv_temp must be a scalar or a vector; got {inv_temp.shape}")
    check_unit_interval("inv_temp", inv_temp)
    b = inv_temp[..., None]
    return (1 - b) * base.a1 + b * rbm.a1, (1 - b) * base.a2 + b * rbm.a2


def anneal(rbm: RBM, base: RBM, inv_temps: ArrayLike, n_chains: int, seed: int, first_chain: int = 0) -> Array:
    """Log-weights of chains carried from the base to the machine; the mean of their exponentials estimates Z.

    Chain c of a run is entry c - first_chain of the result, whatever the split.

    Source   Neal (2001); Salakhutdinov & Murray (2008), section 4.1, both sides' geometric path.
    Shapes   inv_temps (K + 1,) -> (n_chains,)
    Domain   base.W = 0; inv_temps rises strictly from 0 to 1; first_chain as in ``philox.uniforms``
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    inv_temps = as_path(rbm, base, inv_temps)
    n_chains = check_count("n_chains", n_chains)
    z1 = (uniforms(seed, 0, n_chains, rbm.n1, STREAM_FORWARD_INIT, first_chain) < sigmoid(base.a1)).astype(np.float64)
    streams = (STREAM_FORWARD_Z2, STREAM_FORWARD_Z1)
    return independent_log_partition(base) + _walk(rbm, base, inv_temps, z1, seed, streams, first_chain)


def anneal_reverse(rbm: RBM, base: RBM, inv_temps: ArrayLike, z1: ArrayLike, seed: int, first_chain: int = 0) -> Array:
    """Log-weights of chains carried from samples of the machine to the base; the mean of exponentials estimates 1 / Z.

    The statement holds for z1 drawn from the machine itself. Chains still on their way (too short a Gibbs run) bias it.

    Source   Burda, Grosse, Salakhutdinov (2015), "Accurate and conservative estimates of MRF log-likelihood using
             reverse annealing".
    Shapes   inv_temps (K + 1,), rising as for ``anneal``; z1 (B, N1) -> (B,)
    Domain   base.W = 0; inv_temps rises strictly from 0 to 1; z1 in {0, 1}; first_chain as in ``philox.uniforms``
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    inv_temps = as_path(rbm, base, inv_temps)
    z1 = as_states("z1", z1, rbm.n1)
    streams = (STREAM_REVERSE_Z2, STREAM_REVERSE_Z1)
    return _walk(rbm, base, inv_temps[::-1], z1, seed, streams, first_chain) - independent_log_partition(base)


def forward_estimate(rbm: RBM, base: RBM, inv_temps: ArrayLike, n_chains: int, seed: int) -> Estimate:
    """Estimate of log Z that errs low on average: the log of the mean weight of ``anneal``.

    Source   Neal (2001), eq. (7) to (9).
    Shapes   as ``anneal``, n_chains >= 2 -> Estimate
    Domain   as ``anneal``
    Units    nats
    Raises   as ``anneal``.
    """
    return estimate(anneal(rbm, base, inv_temps, check_count("n_chains", n_chains, least=2), seed), sign=1)


def reverse_estimate(rbm: RBM, base: RBM, inv_temps: ArrayLike, z1: ArrayLike, seed: int) -> Estimate:
    """Estimate of log Z that errs high on average: minus the log of the mean weight of ``anneal_reverse``.

    Source   Burda, Grosse, Salakhutdinov (2015), section 4.
    Shapes   as ``anneal_reverse``, at least 2 rows -> Estimate
    Domain   as ``anneal_reverse``; z1 are independent samples of the machine
    Units    nats
    Raises   as ``anneal_reverse``.
    """
    z1 = as_states("z1", z1, rbm.n1)
    check_count("the number of rows of z1", len(z1), least=2)
    return estimate(anneal_reverse(rbm, base, inv_temps, z1, seed), sign=-1)


def bennett_estimate(log_weights: ArrayLike, reverse_log_weights: ArrayLike) -> Estimate:
    """Estimate of log Z from the weights of both directions: Bennett's acceptance ratio.

    A forward walk of weight w and a reverse walk of weight v have, as paths, odds that depend on one number only: the
    path is p(reverse) / p(forward) = w / Z for the first, and 1 / (v Z) for the second. Mix the walks, forget which is
    which, and guess: a walk was reverse with probability

        p = sigmoid(log(n_reverse / n_forward) + log w - log Z),        log w = -log v for a reverse walk.

    log Z is where the guesses are right on average, sum of p over forward walks = sum of 1 - p over reverse ones. This
    is maximum likelihood (logistic regression with an unknown offset), and no other use of the two sets of weights has
    a smaller asymptotic error:

        standard error**2 = 1 / I - 1 / n_forward - 1 / n_reverse,      I = sum of p (1 - p) over all walks.

    The left side of the equation falls and the right side rises with log Z, so there is one solution, and it lies
    between the smallest and the largest log w. With fewer reverse than forward walks it leans on the forward ones.

    effective_sample_size is (n_forward + n_reverse) * overlap, where overlap = I (1 / n_forward + 1 / n_reverse) is 1
    if all log w are equal, and falls to 0 as the two sets part. Below a few the standard error is unreliable. It takes
    the walks as independent: reverse ones started at samples that are not, or not of the machine, spoil it.

    Source   Bennett (1976); Meng & Wong (1996), the optimal bridge; Shirts, Bair, Hooker, Pande (2003), the likelihood
             and its standard error.
    Departs  1 / I less its value for equal weights is summed up from squares, sum of (p - mean p)**2: no cancellation.
    Shapes   log_weights (n_forward,) as from ``anneal``, reverse_log_weights (n_reverse,) as from ``anneal_reverse``
             -> Estimate, n_chains = n_forward + n_reverse
    Domain   finite; at least 2 of each
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    forward = _as_log_weights("log_weights", log_weights)
    reverse = -_as_log_weights("reverse_log_weights", reverse_log_weights)
    n_forward, n_reverse = len(forward), len(reverse)
    prior = np.log(n_reverse / n_forward)

    def excess(log_partition: float) -> float:
        """log of sum of p over forward walks less log of sum of 1 - p over reverse ones: falls, from above to below 0.

        Logarithms, so that two sets that hardly overlap, where all sums are tiny, still have a visible crossing.
        """
        guessed_reverse = logsumexp(log_expit(prior + forward - log_partition))
        guessed_forward = logsumexp(log_expit(log_partition - reverse - prior))
        return float(guessed_reverse - guessed_forward)

    ends = np.concatenate([forward, reverse])
    # One nat beyond the ends excess is at least 1 and at most -1, whatever rounding does when all weights are equal.
    log_partition = brentq(excess, ends.min() - 1, ends.max() + 1, xtol=1e-12)

    logits = prior + ends - log_partition
    log_information = logsumexp(log_expit(logits) + log_expit(-logits))
    spread = ((sigmoid(logits) - n_reverse / (n_forward + n_reverse)) ** 2).sum()
    scale = 1 / n_forward + 1 / n_reverse  # 1 / I if all weights are equal, the largest I there is
    with np.errstate(over="ignore"):  # no overlap at all: the standard error is infinite
        standard_error = np.sqrt(spread * scale) * np.exp(-log_information / 2)
    return Estimate(
        log_partition=float(log_partition),
        standard_error=float(standard_error),
        effective_sample_size=float((n_forward + n_reverse) * scale * np.exp(log_information)),
        n_chains=n_forward + n_reverse,
    )


def bracket(
    rbm: RBM,
    seed: int,
    base: RBM | None = None,
    n_chains: int = 256,
    n_machines: int = 1000,
    n_replicas: int = 16,
    n_rounds: int = 500,
) -> Bracket:
    """Forward estimate, samples by parallel tempering, reverse estimate from them.

    Inverse temperatures are evenly spaced, ``n_machines`` steps for annealing and ``n_replicas`` rungs for tempering.
    If the bracket is wide, raise n_machines; if it is inconsistent, raise n_rounds and n_replicas first.

    Source   Burda, Grosse, Salakhutdinov (2015); tempering for the samples is our choice.
    Shapes   -> Bracket
    Domain   base.W = 0 (None: fair coins); n_chains, n_replicas >= 2; n_machines, n_rounds >= 1
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    n_machines = check_count("n_machines", n_machines)
    n_replicas = check_count("n_replicas", n_replicas, least=2)
    if base is None:
        base = fitted_base(np.full(rbm.n1, 0.5), np.full(rbm.n2, 0.5))
    inv_temps = np.linspace(0.0, 1.0, n_machines + 1)
    lower = forward_estimate(rbm, base, inv_temps, n_chains, seed)
    samples = tempering.run(rbm, np.linspace(0.0, 1.0, n_replicas), n_chains, n_rounds, seed)
    return Bracket(lower, reverse_estimate(rbm, base, inv_temps, samples.z1, seed))


def _walk(rbm: RBM, base: RBM, path: Array, z1: Array, seed: int, streams: tuple[int, int], first_chain: int) -> Array:
    """Sum of log f_next(z1) - log f_here(z1) along the path, with a sweep at each machine between its ends.

    ``path`` may rise or fall: the two directions differ in where the chains start and in nothing else. Leaving the last
    machine needs no sweep, since no weight follows.
    """
    stream2, stream1 = streams
    n_chains = len(z1)
    log_weight = np.zeros(n_chains)
    z1_w = z1 @ rbm.W
    for step, (here, there) in enumerate(itertools.pairwise(path)):
        a1_here, a2_here = path_biases(rbm, base, here)
        a1_there, a2_there = path_biases(rbm, base, there)
        logits2 = a2_there + there * z1_w
        log_weight += z1 @ (a1_there - a1_here) + (softplus(logits2) - softplus(a2_here + here * z1_w)).sum(axis=1)
        if there != path[-1]:
            z2 = (uniforms(seed, step, n_chains, rbm.n2, stream2, first_chain) < sigmoid(logits2)).astype(np.float64)
            logits1 = a1_there + there * (z2 @ rbm.W.T)
            z1 = (uniforms(seed, step, n_chains, rbm.n1, stream1, first_chain) < sigmoid(logits1)).astype(np.float64)
            z1_w = z1 @ rbm.W
    return log_weight


def _check_base(rbm: RBM, base: RBM) -> None:
    if base.W.shape != rbm.W.shape:
        raise ShapeError(f"base must have as many units as the machine, {rbm.W.shape}; got {base.W.shape}")
    _check_independent(base)


def _check_independent(base: RBM) -> None:
    check("base.W", base.W, base.W == 0, "be 0, so that the log Z of the base is known")


def _as_log_weights(name: str, value: ArrayLike) -> Array:
    """Return finite log-weights as a float64 vector of at least two."""
    log_weights = as_float(name, value).astype(np.float64, copy=False)
    if log_weights.ndim != 1:
        raise ShapeError(f"{name} must be a vector, one entry per chain; got {log_weights.shape}")
    check_count(f"the number of {name}", len(log_weights), least=2)
    check_finite(name, log_weights)
    return log_weights


def estimate(log_weights: ArrayLike, sign: int) -> Estimate:
    """Log of the mean weight (never the mean of the log-weights: that is lower), times ``sign``, with its spread.

    Source   Neal (2001), eq. (10) for the mean; the delta method for its logarithm.
    Shapes   log_weights (n_chains,), at least 2 -> Estimate
    Domain   finite log-weights; sign 1 for weights that average to Z, -1 for weights that average to 1/Z
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    log_weights = _as_log_weights("log_weights", log_weights)
    if sign not in (-1, 1):
        raise DomainError(f"sign must be 1 or -1; got {sign}")
    n_chains = len(log_weights)
    relative = np.exp(log_weights - log_weights.max())  # largest is 1: no overflow, and ratios are all that is needed
    mean = relative.mean()
    return Estimate(
        log_partition=sign * float(logsumexp(log_weights) - np.log(n_chains)),
        standard_error=float(relative.std(ddof=1) / (mean * np.sqrt(n_chains))),
        effective_sample_size=float(relative.sum() ** 2 / (relative**2).sum()),
        n_chains=n_chains,
    )
