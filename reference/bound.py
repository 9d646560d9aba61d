"""The two bounds on log p(x): the one that is trained (ELBO), and the importance-weighted one that is reported.

With w = log p(x, z) - log q(z | x), z ~ q(z | x):

    ELBO     E[w] = E[log p(x | z)] - KL(q || p)                            <= log p(x)
    K draws  E[log (1/K) sum over k of exp(w_k)]                            <= log p(x), rising with K towards it

K = 1 is the ELBO. The mean *inside* the logarithm is unbiased for p(x), so Jensen's inequality points the same way for
every K, and the bias shrinks like the variance of exp(w) / p(x) over 2 K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reference.vocabulary import (
    Array,
    DomainError,
    ShapeError,
    as_float,
    as_scalar,
    check,
    check_count,
    check_finite,
    check_same_rows,
    check_unit_interval,
)


@dataclass(frozen=True)
class Terms:
    """Batch means of the two parts of the ELBO, in nats.

    log_likelihood  E[log p(x | zeta)], what the decoder reconstructs; kl  of the posterior to the prior.

    Source   DVAE++ (arXiv:1802.04920), eq. (1).
    """

    log_likelihood: float
    kl: float

    @property
    def elbo(self) -> float:
        """The bound itself, log_likelihood - kl; what ``loss`` is, with its sign turned, at kl_weight = 1."""
        return self.log_likelihood - self.kl

    def loss(self, kl_weight: float) -> float:
        """What training minimises: kl_weight kl - log_likelihood.

        Only at kl_weight = 1 is it the negative of a bound: less of the KL gives more than the ELBO.

        Source   DVAE++ (arXiv:1802.04920), section 7.2 (KL annealing, after Sonderby et al. 2016).
        Shapes   scalar -> scalar
        Domain   kl_weight in [0, 1]
        Units    nats
        Raises   DomainError for a kl_weight outside it.
        """
        return check_kl_weight(kl_weight) * self.kl - self.log_likelihood


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Estimates of log p(x) for each row, (B,) each.

    log_marginal  log (1/K) sum of e^{w_k}, the importance-weighted bound, in nats
    log_weight  mean of w_k: the ELBO, in nats
    standard_error  of log_marginal, by the delta method, sd(e^w) / (mean(e^w) sqrt(K)), in nats; inf for K = 1, where
        one weight does not show its spread
    effective_sample_size  (sum of e^w)**2 / sum of e^2w, from 1 (a single weight decides) to K (all are equal); 0 where
        all weights are 0. With a few only, the standard error is too small: heavy weights are missing, not present.
        (In a model small enough to know, ``tiny_model``, that begins where the weights' true variance, relative to
        their squared mean, exceeds about K / 100, and a good effective sample size does not exclude it.)
    n_importance  K
    """

    log_marginal: Array
    log_weight: Array
    standard_error: Array
    effective_sample_size: Array
    n_importance: int


class StreamingLogMeanExp:
    """log of the mean of e^w over weights that arrive in pieces, for each of B rows.

    Holds the largest w so far and, in units of e^largest, the mean of e^w and its summed squared deviation: no
    overflow, and memory does not grow with the number of weights. Pieces merge as in Chan, Golub & LeVeque (1979), so
    that nearly equal weights do not lose their spread to cancellation.

    Source   DVAE++ (arXiv:1802.04920), section 7 (importance-weighted samples); Burda et al. (2015), eq. (8). Chan,
             Golub, LeVeque (1983) for means and deviations that are merged.
    Raises   DomainError for an n_rows that is not a whole number, 0 or more.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = check_count("n_rows", n_rows, least=0)
        self._largest = np.full(self._n_rows, -np.inf)
        self._mean, self._deviation, self._log_weight = np.zeros((3, self._n_rows))
        self._count = 0

    def add(self, log_weights: ArrayLike) -> None:
        """Take in more log-weights.

        Source   Chan, Golub, LeVeque (1983), the merging of means and sums of squared deviations.
        Shapes   log_weights (B, K), K >= 1 and free to vary from call to call
        Domain   real or -inf: a weight may be 0, not infinite
        Units    nats
        Raises   ShapeError, DomainError or TypeError for log-weights that do not fit; what was added before stays.
        """
        w = as_float("log_weights", log_weights).astype(np.float64)
        if w.ndim != 2 or len(w) != self._n_rows or w.shape[1] == 0:
            raise ShapeError(f"log_weights must be (B, K) with B = {self._n_rows} and K >= 1; got {w.shape}")
        check("log_weights", w, w < np.inf, "be real or -inf")

        largest = np.maximum(self._largest, w.max(axis=1))
        # Rows that have seen e^-inf = 0 alone: -inf - -inf would be NaN.
        unit = np.where(np.isinf(largest), 0.0, largest)
        relative = np.exp(w - unit[:, None])
        shrink = np.exp(self._largest - unit)  # from the old unit to the new

        count, added = self._count, w.shape[1]
        total = count + added
        mean = relative.mean(axis=1)
        deviation = ((relative - mean[:, None]) ** 2).sum(axis=1)
        step = mean - self._mean * shrink
        self._deviation = self._deviation * shrink**2 + deviation + step**2 * (count * added / total)
        self._mean = self._mean * shrink + step * (added / total)
        self._log_weight = self._log_weight * (count / total) + w.sum(axis=1) / total
        self._largest, self._count = largest, total

    def result(self) -> Array:
        """The logarithm of the mean so far.

        Source   Burda et al. (2015), eq. (8).
        Shapes   -> (B,)
        Domain   after at least one ``add``
        Units    nats
        Raises   DomainError before the first weights.
        """
        self._check_started()
        with np.errstate(divide="ignore"):  # all weights 0
            return np.where(np.isinf(self._largest), 0.0, self._largest) + np.log(self._mean)

    def likelihood(self) -> Likelihood:
        """All there is to say about the weights so far.

        Source   Burda et al. (2015), eq. (8); the delta method for the standard error; Kong, Liu, Wong (1994) for the
                 effective sample size.
        Shapes   -> Likelihood of (B,)
        Domain   after at least one ``add``
        Units    nats
        Raises   DomainError before the first weights.
        """
        self._check_started()
        k, mean, deviation = self._count, self._mean, self._deviation
        empty = mean == 0
        safe_mean = np.where(empty, 1.0, mean)
        if k == 1:
            standard_error = np.full(self._n_rows, np.inf)
        else:
            standard_error = np.where(empty, np.inf, np.sqrt(deviation / (k - 1) / k) / safe_mean)
        effective = np.where(empty, 0.0, k / (1 + deviation / (k * safe_mean**2)))
        return Likelihood(self.result(), self._log_weight.copy(), standard_error, effective, k)

    def _check_started(self) -> None:
        if self._count == 0:
            raise DomainError("log_weights must have been added before they are averaged; none were")


def terms(log_likelihood: ArrayLike, kl: ArrayLike) -> Terms:
    """Turn the bound's two parts for each image of a batch into their batch means.

    Source   DVAE++ (arXiv:1802.04920), eq. (1).
    Shapes   log_likelihood (B,), kl (B,) -> Terms
    Domain   finite; at least one row. A row of kl may be negative where it is one draw of zeta
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    log_likelihood, kl = as_float("log_likelihood", log_likelihood), as_float("kl", kl)
    for name, array in (("log_likelihood", log_likelihood), ("kl", kl)):
        if array.ndim != 1 or array.size == 0:
            raise ShapeError(f"{name} must be (B,), one number per image and at least one; got {array.shape}")
        check_finite(name, array)
    check_same_rows(log_likelihood=log_likelihood, kl=kl)
    return Terms(float(log_likelihood.mean(dtype=np.float64)), float(kl.mean(dtype=np.float64)))


def likelihood(log_joint: ArrayLike, log_q: ArrayLike) -> Likelihood:
    """Importance-weighted estimate of log p(x) from K draws z_k ~ q(z | x) for each image.

    log (1/K) sum over k of exp(log p(x, z_k) - log q(z_k | x)).

    Source   DVAE++ (arXiv:1802.04920), section 7; Burda et al. (2015), eq. (8).
    Shapes   log_joint (B, K), log_q (B, K) -> Likelihood of (B,)
    Domain   log_joint real or -inf; log_q finite (a z of probability 0 is not drawn); K >= 1
    Units    nats
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    log_joint, log_q = as_float("log_joint", log_joint), as_float("log_q", log_q)
    if log_joint.ndim != 2 or log_joint.shape != log_q.shape or log_joint.shape[1] == 0:
        raise ShapeError(
            f"log_joint and log_q must be (B, K) alike, K >= 1; got log_joint {log_joint.shape}, log_q {log_q.shape}"
        )
    check("log_joint", log_joint, log_joint < np.inf, "be real or -inf")
    check_finite("log_q", log_q)
    stream = StreamingLogMeanExp(len(log_joint))
    stream.add(log_joint.astype(np.float64) - log_q.astype(np.float64))
    return stream.likelihood()


def check_kl_weight(kl_weight: float) -> float:
    """Return the weight of the KL, one number in [0, 1].

    Source   none: a check of arguments.
    Shapes   scalar -> scalar
    Domain   [0, 1]
    Units    none
    Raises   DomainError outside it; ShapeError for more than one number; TypeError for what is no number.
    """
    weight = as_scalar("kl_weight", kl_weight)
    check_unit_interval("kl_weight", weight)
    return float(weight)
