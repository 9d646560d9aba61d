"""The binary Concrete: a relaxation of the unit itself, with no density given z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reference.smoothing.compensated import (
    Two,
    add,
    divide,
    exact,
    exp_times,
    is_end,
    log,
    logs_inside,
    multiply,
    negative,
    sigmoid,
    two_sum,
)
from reference.smoothing.family import InverseCDF, Smoothing
from reference.vocabulary import Array


@dataclass(frozen=True, eq=False)
class BinaryConcrete(Smoothing):
    """The logistic relaxation of a binary unit, also known as (binary) Gumbel-softmax.

    zeta = sigma((l + logit rho) / lambda),      lambda the temperature.

    z = [l + logit rho > 0] is an exact sample of the unit; sigma, at a temperature, in the place of the step makes it
    differentiable. There is no r(zeta|z) that does not know l, hence no nu for a Boltzmann prior on z to work with.

    ``dzeta_dbeta`` of the inverse CDF is the derivative by the sharpness 1/lambda, not by lambda.

    Source   Maddison, Mnih & Teh, The Concrete distribution (2016); Jang, Gu & Poole (2016). DVAE++ (arXiv:1802.04920),
             appendix C (as section 3 says of it), compares the overlapping transformations with it.
    Shapes   temperature a scalar, or an array that broadcasts with zeta, rho and logit_q.
    Domain   zeta in [0, 1]; temperature positive and finite: 0 is the limit of z itself, infinity of the constant 1/2.
             The accuracy is kept for temperatures in [1e-2, 1e3].
    Raises   DomainError for a temperature that is not positive and finite.
    """

    temperature: float | Array

    sharpness: ClassVar[str] = "temperature"

    def _log_prob(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """With y = logit zeta and s = lambda y - l, the logit of the CDF,

            log q(zeta) = log lambda + log(s' (1 - s') / (zeta (1 - zeta))),      s' = sigma(s)
                        = log lambda + 2 (log cosh(y/2) - log cosh(s/2))
                        = log lambda + |y| + 2 log1p(e^{-|y|}) - |s| - 2 log1p(e^{-|s|})
                        = log lambda + 4 atanh(tanh((y + s)/4) tanh((y - s)/4)).

        The last form, of which y - s = (1 - lambda) y + l is a factor, keeps the relative accuracy where the density is
        nearly that of uniform noise (lambda ~ 1, l ~ 0).

        Source   Maddison, Mnih & Teh (2016), the density of the binary Concrete.
        """
        y, s = _logits(zeta, logit_q, beta)
        log_lambda = log(exact(beta))
        size_y, size_s = _size(y), _size(s)
        total = add(log_lambda, add(size_y, negative(size_s)))
        difference = multiply(two_sum(np.ones_like(beta), -beta), y)
        difference = add(difference, exact(_finite(logit_q)))
        near = 4 * np.arctanh(np.tanh((y.high + s.high) / 4) * np.tanh(np.clip(difference.high, -1, 1) / 4))
        result = np.where(
            np.abs(difference.high) < 1,
            log_lambda.high + near,
            total.high + (total.low + 2 * (np.log1p(np.exp(-size_y.high)) - np.log1p(np.exp(-size_s.high)))),
        )
        # The ends: the density behaves like (distance)^(lambda - 1); a certain unit has no density elsewhere.
        end = is_end(zeta)
        own = np.where(zeta == 1, logit_q, -logit_q)
        at_end = np.where(beta == 1, own, np.where(beta < 1, np.inf, -np.inf))
        certain = np.where(zeta == (logit_q > 0), np.inf, -np.inf)
        return np.where(np.isinf(logit_q), certain, np.where(end, at_end, result))

    def _cdf(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """F(zeta) = sigma(lambda logit(zeta) - l)."""
        _, s = _logits(zeta, logit_q, beta)
        inside = np.where(np.isinf(logit_q), logit_q < 0, sigmoid(s))
        return np.where(is_end(zeta), zeta, inside)

    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array:
        """zeta = sigma((l + logit rho) / lambda)."""
        return self._inverse_cdf_with_derivatives(rho, logit_q, beta).zeta

    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF:
        """With x = l + logit rho, t = x / lambda and zeta (1 - zeta) = e^{-|t|} / (1 + e^{-|t|})^2,

            dzeta/dl           = zeta (1 - zeta) / lambda
            dzeta/drho         = zeta (1 - zeta) / (lambda rho (1 - rho))
            dzeta/d(1/lambda)  = x zeta (1 - zeta)

        x is a sum in which 700 may cancel 700, and t an exponent of 700: both are carried with more digits than a
        float64 has. rho (1 - rho) joins the exponent: zeta (1 - zeta) may underflow where the quotient does not.
        """
        rho, logit_q, beta = np.broadcast_arrays(rho, logit_q, beta)
        end, certain = is_end(rho), np.isinf(logit_q)
        log_rho, log_rest = logs_inside(rho)
        overwhelming = 1e4 * (1 + beta)  # a logit that leaves nothing of e^{-|t|}; larger ones overflow on their way
        logit = np.clip(logit_q, -overwhelming, overwhelming)
        x = add(exact(logit), add(log_rho, negative(log_rest)))
        t = divide(x, exact(beta))
        zeta = sigmoid(t)
        exponent = negative(_size(t))
        both = 1 + np.exp(exponent.high)
        scale = 1 / (both * both)
        still = end | certain
        dzeta_drho = exp_times(add(exponent, negative(add(log_rho, log_rest))), scale / beta)
        # At the ends zeta or 1 - zeta is (e^{-+l} distance)^(1/lambda).
        with np.errstate(over="ignore"):
            at_end = np.where(beta == 1, np.exp(np.where(rho == 0, logit_q, -logit_q)), np.where(beta < 1, 0, np.inf))
        return InverseCDF(
            zeta=np.where(end, rho, np.where(certain, logit_q > 0, zeta)),
            dzeta_dlogit_q=np.where(still, 0, exp_times(exponent, scale / beta)),
            dzeta_drho=np.where(certain, 0, np.where(end, at_end, dzeta_drho)),
            dzeta_dbeta=np.where(still, 0, exp_times(exponent, scale * x.high)),
        )


def _logits(zeta: Array, logit_q: Array, beta: Array) -> tuple[Two, Two]:
    """logit zeta and the logit of the CDF, lambda logit(zeta) - l, inside; for ends and certain units some number."""
    log_zeta, log_rest = logs_inside(zeta)
    y = add(log_zeta, negative(log_rest))
    return y, add(multiply(exact(beta), y), exact(-_finite(logit_q)))


def _finite(logit_q: Array) -> Array:
    return np.where(np.isinf(logit_q), 0, logit_q)


def _size(x: Two) -> Two:
    sign = np.where(x.high < 0, -1, 1)
    return Two(sign * x.high, sign * x.low)
