"""The power function: the smoothing whose densities are powers of the distance from an end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from reference.smoothing import inversion
from reference.smoothing.compensated import (
    Two,
    add,
    divide,
    exact,
    exp,
    exp_times,
    expm1,
    is_end,
    log,
    logs_inside,
    multiply,
    negative,
    sigmoid,
    two_sum,
    where,
)
from reference.smoothing.family import InverseCDF, MixtureSmoothing
from reference.vocabulary import Array

_CERTAIN = 1e9  # a logit beyond which the other value of z has no digit left in any result


@dataclass(frozen=True, eq=False)
class PowerFunction(MixtureSmoothing):
    """Two power functions, each other's mirror image.

    r(zeta|0) = a zeta^{a - 1},   r(zeta|1) = a (1 - zeta)^{a - 1},   a = 1/beta.

    beta = 1 makes both uniform. beta > 1 is the useful range: the density given z is infinite at z and falls to a at
    the other end. (Below 1 the roles are exchanged: zeta is near 1 when z = 0.)

    Source   Vahdat, Andriyash & Macready, DVAE#: Discrete Variational Autoencoders with Relaxed Boltzmann Priors
             (2018). Not in DVAE++, whose mixture, eq. (2), it goes into like any other.
    Shapes   beta a scalar, or an array that broadcasts with zeta, rho and logit_q.
    Domain   zeta in [0, 1]; beta positive and finite: the sharpness. beta -> infinity gives a point mass at z. The
             accuracy is kept for beta in [1e-2, 1e3].
    Raises   DomainError for a beta that is not positive and finite.
    """

    beta: float | Array

    def _log_r(self, zeta: Array, z: Array, beta: Array) -> Array:
        """log r(zeta|z) = (a - 1) log |z - (1 - zeta)| - log beta: the distance is from 0 for z = 0, from 1 for z = 1.

        Near its zeros the two terms cancel, so both are carried with more digits than the result has.
        """
        zeta, z, beta = np.broadcast_arrays(zeta, z, beta)
        outside = np.where(z == 0, zeta == 0, zeta == 1)  # of the logarithm's domain
        x = np.where(outside, 0.5, zeta)
        distance = where(z == 0, exact(x), two_sum(np.ones_like(x), -x))
        total = add(multiply(_exponent_minus_1(beta), log(distance)), negative(log(exact(beta))))
        return np.where(outside, _at_distance_zero(beta), total.high + total.low)

    def _r_cdf(self, zeta: Array, z: Array, beta: Array) -> Array:
        """F(zeta|0) = zeta^a,   F(zeta|1) = 1 - (1 - zeta)^a."""
        zeta, z, beta = np.broadcast_arrays(zeta, z, beta)
        log_x, log_rest = logs_inside(zeta)
        exponent = _exponent(beta)
        inside = np.where(z == 0, exp(multiply(exponent, log_x)), -expm1(multiply(exponent, log_rest)))
        return np.where(is_end(zeta), zeta, inside)

    def _log_ratio(self, zeta: Array, beta: Array) -> Array:
        """log r(zeta|1) - log r(zeta|0) = (a - 1) (log(1 - zeta) - log zeta)."""
        zeta, beta = np.broadcast_arrays(zeta, beta)
        ratio = _log_ratio(zeta, beta)
        at_zero = -_at_distance_zero(beta)
        inside = ratio.high + ratio.low
        return np.where(zeta == 0, at_zero, np.where(zeta == 1, -at_zero, inside))

    def _nu(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """nu = sigma(l + (a - 1) (log(1 - zeta) - log zeta)): the sum's digits count, sigma is exponential in it."""
        zeta, logit_q, beta = np.broadcast_arrays(zeta, logit_q, beta)
        inside = sigmoid(add(exact(logit_q), _log_ratio(zeta, beta)))
        # An end at which one density is infinite, or 0, decides; the uniform beta = 1 says nothing anywhere.
        decided = is_end(zeta) & (beta != 1)
        return np.where(decided, (zeta == 1) == (beta > 1), inside)

    def _log_prob(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """log(p r(zeta|0) + q r(zeta|1)), eq. (2). With A = (a-1) log zeta and B = (a-1) log(1-zeta) it is one of

        - log a + A - softplus(l) + softplus(l + B - A), or with the roles of 0 and 1 exchanged: the larger term first;
        - K + log1p(p expm1(A + (a-1) log 2) + q expm1(B + (a-1) log 2)) near zeta = 1/2 and for a about 1, with
          K = log a - (a-1) log 2, the logarithm of the density at 1/2;
        - K + log1p(w + 2 p zeta expm1(c log(2 zeta)) + 2 q (1-zeta) expm1(c log(2 (1-zeta)))), c = a - 2, where a is
          about 2, so where the density is about 1 + w, w = (q - p)(1 - 2 zeta).

        The last two keep the relative accuracy of a logarithm near 0: the density is 1 for a = 1 and, if p = q, for
        a = 2, and K is 0 for both.
        """
        zeta, logit_q, beta = np.broadcast_arrays(zeta, logit_q, beta)
        certain, end = np.isinf(logit_q), is_end(zeta)
        logit = np.where(certain, 0, logit_q)
        p, q = expit(-logit), expit(logit)
        log_x, log_rest = logs_inside(zeta)
        exponent, minus_log_a, log2 = _exponent_minus_1(beta), log(exact(beta)), log(exact(2.0))
        A, B = multiply(exponent, log_x), multiply(exponent, log_rest)

        # softplus(x) = max(x, 0) + log1p(e^{-|x|}): the large parts as a sum with more digits, the small ones apart
        difference = add(exact(logit), add(B, negative(A)))
        zero_first = difference.high <= 0
        first = add(where(zero_first, A, B), exact(-np.maximum(np.where(zero_first, logit, -logit), 0)))
        small = np.log1p(np.exp(-np.abs(difference.high))) - np.log1p(np.exp(-np.abs(logit)))
        total = add(first, negative(minus_log_a))
        result = total.high + (total.low + small)

        # Ends: the density that is infinite there wins; that which is 0 leaves the other, whose power of 1 is 1.
        at_own_end = _at_distance_zero(beta)
        log_far_weight = -np.logaddexp(0, np.where(zeta == 0, -logit, logit))
        at_end = np.where(beta == 1, 0, np.where(at_own_end > 0, at_own_end, log_far_weight - minus_log_a.high))
        result = np.where(end, at_end, result)

        c = divide(two_sum(np.ones_like(beta), -2 * beta), exact(beta))
        about_two = np.abs(c.high) < 0.5
        K = where(
            about_two,
            negative(add(log(exact(2 * beta)), multiply(c, log2))),
            negative(add(minus_log_a, multiply(exponent, log2))),
        ).high
        log_2x, log_2rest = add(log_x, log2).high, add(log_rest, log2).high
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # branches not taken
            near = p * np.expm1(exponent.high * log_2x) + q * np.expm1(exponent.high * log_2rest)
            result = np.where((np.abs(near) < 0.5) & ~end, K + np.log1p(near), result)
            near = np.tanh(logit / 2) * (1 - 2 * zeta)
            near = near + 2 * p * zeta * np.expm1(c.high * np.where(end, log2.high, log_2x))
            near = near + 2 * q * (1 - zeta) * np.expm1(c.high * np.where(end, log2.high, log_2rest))
            result = np.where(about_two & (np.abs(near) < 0.5), K + np.log1p(near), result)

        single = self._log_r(zeta, (logit_q > 0).astype(np.float64), beta)
        return np.where(certain, single, result)

    def _cdf(self, zeta: Array, logit_q: Array, beta: Array) -> Array:
        """F(zeta) = p zeta^a + q (1 - (1 - zeta)^a)."""
        zeta, logit_q, beta = np.broadcast_arrays(zeta, logit_q, beta)
        log_x, log_rest = logs_inside(zeta)
        exponent = _exponent(beta)
        F0, F1 = exp(multiply(exponent, log_x)), -expm1(multiply(exponent, log_rest))
        return np.where(is_end(zeta), zeta, expit(-logit_q) * F0 + expit(logit_q) * F1)

    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array:
        """The root of p zeta^a + q (1 - (1 - zeta)^a) = rho: no closed form, see ``_solve``."""
        return self._inverse_cdf_with_derivatives(rho, logit_q, beta).zeta

    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF:
        """Implicit differentiation. With x the distance from the nearer end, here from 0, f the density, and
        nu = q r(zeta|1)/f,

            dzeta/drho  = 1/f
            dzeta/dl    = p q (F(zeta|0) - F(zeta|1))/f
            dzeta/dbeta = -a (T0 - T1),  T0 = x |log x| (1 - nu),  T1 = (1 - x) |log(1 - x)| nu

        (from dF(zeta|0)/da = x^a log x and da/dbeta = -a^2). What can cancel is left to ``_difference_of_cdfs`` and
        ``_log_of_terms``: T0 - T1 = (T0 + T1) tanh(log(T0/T1)/2). Everything exponential is one exponential, because x,
        x^a and p may each underflow or overflow where the derivative does not. The mirror image (zeta nearer to 1) has
        the opposite dzeta/dbeta.
        """
        rho, logit_q, beta = np.broadcast_arrays(rho, logit_q, beta)
        end = is_end(rho)
        root = _solve(np.where(end, 0.5, rho), np.clip(logit_q, -_CERTAIN, _CERTAIN), beta)
        a, minus_1 = _exponent(beta), _exponent_minus_1(beta)

        # f = a e^M (share0 + share1) / (1 + e^{-|l|}), M the larger of the two exponents
        exponent0 = add(multiply(minus_1, root.log_x), exact(root.log_weight))
        exponent1 = add(multiply(minus_1, root.log_rest), exact(root.log_far_weight))
        zero_larger = exponent0.high >= exponent1.high
        M = where(zero_larger, exponent0, exponent1)
        smaller = exp(add(where(zero_larger, exponent1, exponent0), negative(M)))
        share0, share1 = np.where(zero_larger, 1, smaller), np.where(zero_larger, smaller, 1)
        height, both_weights = a.high * (1 + smaller), 1 + np.exp(-root.size)

        # p q = e^{-|l|} / (1 + e^{-|l|})^2
        exponent, difference = _difference_of_cdfs(root, a, minus_1)
        exponent = add(add(exponent, negative(M)), exact(-root.size))

        # (T0 + T1)/x, of which (1 - x) |log(1 - x)|/x is the part that tends to 1
        distant = np.maximum(root.x, _TINY_DISTANCE)
        of_far = np.where(root.x < _TINY_DISTANCE, 1, root.rest * np.abs(root.log_rest.high) / distant)
        both_terms = (np.abs(root.log_x.high) * share0 + of_far * share1) / (1 + smaller)
        towards_end = a.high * both_terms * np.tanh(_log_of_terms(root, a) / 2)

        # rho = 0 or 1: the density there is infinite for beta > 1, for beta < 1 that of the other z alone
        other = np.where(rho == 0, logit_q, -logit_q)
        with np.errstate(over="ignore"):
            of_other = beta * (1 + np.exp(-other))
        at_end = np.where(beta == 1, 1, np.where((beta > 1) & (other != np.inf), 0, of_other))
        return InverseCDF(
            zeta=np.where(end, rho, root.zeta),
            dzeta_dlogit_q=np.where(end, 0, exp_times(exponent, difference / (both_weights * height))),
            dzeta_drho=np.where(end, at_end, exp_times(negative(M), both_weights / height)),
            dzeta_dbeta=np.where(end, 0, exp_times(root.log_x, np.where(root.mirrored, towards_end, -towards_end))),
        )


# ---- the root of the CDF --------------------------------------------------------------------------------------------

_TINY_DISTANCE = 1e-20  # below it 1 - (1 - x)^c is c x to every digit
_LOG_SMALLEST_X = -600.0  # below it x may be subnormal, or 0
_HIGHEST = np.log(0.55)  # of log x: the nearer end is nearer than 1/2, up to the rounding that chose it

# Taylor coefficients of log(log(1 + e^s)/log(1 + e^{-s})), which is log(|log x|/|log(1 - x)|) at x = 1/(1 + e^s), from
# s^3 on (the even ones are 0), by multi-precision arithmetic. The first one left out is 4e-18 of the first at 0.3.
_CENTRAL = 0.3
_LOG_RATIO_OF_LOGS = (
    -0.0099393970292921878,
    0.00050456865340995432,
    -3.2082085206635754e-5,
    2.2874912279455280e-6,
    -1.7499054982170235e-7,
    1.4036495551869405e-8,
    -1.1648102229637050e-9,
    9.9155121599359261e-11,
)


@dataclass(frozen=True)
class _Root:
    """A sample as seen from the nearer end, z = 0 say; else the problem is the mirror image of the caller's."""

    zeta: Array
    mirrored: Array
    x: Array  # distance from the nearer end,
    rest: Array  # 1 - x,
    log_x: Two  # and their logarithms with more digits; log_x is finite where x underflows
    log_rest: Two
    log_weight: Array  # of the nearer end's z: log p + log(1 + e^{-|l|}) = -max(l, 0), exact
    log_far_weight: Array  # and of the other
    size: Array  # |l|


def _solve(rho: Array, logit_q: Array, beta: Array) -> _Root:
    """Solve p zeta^a + q (1 - (1 - zeta)^a) = rho for 0 < rho < 1, by Newton's method in a variable where it is easy.

    1. The problem is its own mirror image, so let 0 be the end nearer to the root; F(1/2) tells which end that is.
    2. The unknown is y = log x, x the distance from that end, and the function is the logarithm of a tail: the terms
       p x^a and, for small x, q a x are straight lines then, and a sum of exponentials of lines is nearly one.
    3. The tail is the smaller of rho and 1 - rho, which is exact: rho near 1 is as well resolved as rho near 0. Either
       is a sum of positive terms: F = p x^a + q (1 - (1-x)^a) and 1 - F = p (1 - x^a) + q (1-x)^a.
    4. Derivatives depend on x^a, so for a = 100 on more digits of x than a float64 has. So the function is evaluated at
       logarithms with more digits (of the float64 x nearest to e^y), and the last Newton step is kept apart from x and
       added to those logarithms.

    Where even so the function does not tell x (the plateau between two modes, rho = p), no method could: there one
    rounding of rho moves the root just as far.
    """
    a, minus_1 = _exponent(beta), _exponent_minus_1(beta)
    size = np.abs(logit_q)
    both_weights = 1 + np.exp(-size)
    lower = rho < 0.5
    tail = np.where(lower, rho, 1 - rho)

    # Which end is nearer: the tail at 1/2 against the tail wanted.
    half_power = np.exp2(-a.high)
    sign = np.where(lower, 1, -1)
    at_half = expit(-sign * logit_q) * half_power + expit(sign * logit_q) * -np.expm1(-np.log(2) * a.high)
    mirrored = np.where(lower, tail > at_half, tail <= at_half)
    from_near_end = lower != mirrored  # whether the tail is counted from that end
    logit = np.where(mirrored, -logit_q, logit_q)
    log_weight, log_far_weight = -np.maximum(logit, 0), -np.maximum(-logit, 0)
    log_tail = log(exact(tail))
    weight, far_weight = add(exact(log_weight), negative(log_tail)), add(exact(log_far_weight), negative(log_tail))

    def logs(y: Array) -> tuple[Array, Two, Two]:
        x = np.exp(y)
        ordinary = y > _LOG_SMALLEST_X
        log_x, log_rest = logs_inside(np.where(ordinary, x, 0.5))
        return x, where(ordinary, log_x, exact(y)), where(ordinary, log_rest, exact(-x))

    def residual(y: Array) -> tuple[Array, Array]:
        """log(tail at y / tail wanted), and its slope by y; both with the sign that makes it increasing."""
        x, log_x, log_rest = logs(y)
        log_power, log_rest_power = multiply(a, log_x), multiply(a, log_rest)
        near = exp(add(log_power, weight)), exp(add(log_x, far_weight)) * _far_excess(log_rest_power, a.high, x)
        far = exp(weight) * -expm1(log_power), exp(add(log_rest_power, far_weight))
        ratio = np.where(from_near_end, near[0] + near[1], far[0] + far[1])
        slope = near[0] + exp(add(log_x, add(multiply(minus_1, log_rest), far_weight)))
        value = np.log(ratio / both_weights)
        return np.where(from_near_end, value, -value), a.high * slope / ratio

    # F lies between the CDFs given z = 0 and 1, so x between their quantiles r^beta and 1 - (1 - r)^beta, r = F(x).
    log_r = np.where(from_near_end, log_tail.high, np.log1p(-tail))
    lowest = np.minimum(beta * log_r, log_r + np.minimum(np.log(beta), 0)) - 1
    start = np.minimum(beta * (log_r - log_weight), log_r - log_far_weight + np.log(beta))
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        y = inversion.solve(residual, lowest, np.full_like(lowest, _HIGHEST), start)
        value, slope = residual(y)
        step = np.clip(np.nan_to_num(-value / slope), -1e-10, 1e-10)  # larger only on a plateau, where it says nothing
    x, log_x, log_rest = logs(y)
    rest = two_sum(np.ones_like(x), -x)
    rest_high = rest.high + (rest.low - x * step)
    x = x + x * step
    return _Root(
        zeta=np.where(mirrored, rest_high, x),
        mirrored=mirrored,
        x=x,
        rest=rest_high,
        log_x=add(log_x, exact(step)),
        log_rest=add(log_rest, exact(-x * step / rest_high)),
        log_weight=log_weight,
        log_far_weight=log_far_weight,
        size=size,
    )


def _far_excess(exponent: Two, size: Array, x: Array) -> Array:
    """|(1 - x)^c - 1|/x, given c log(1 - x) and |c|, which is its limit for x = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x < _TINY_DISTANCE, size, np.abs(expm1(exponent)) / x)


def _difference_of_cdfs(root: _Root, a: Two, minus_1: Two) -> tuple[Two, Array]:
    """F(zeta|0) - F(zeta|1) as a product e^exponent factor,

        x^a - x + (1 - x)^a - (1 - x) = x (x^{a-1} - 1) + (1 - x) ((1 - x)^{a-1} - 1),

    two terms of equal signs. e^exponent is the larger of x and x^a, either of which may underflow.
    """
    steep = minus_1.high > 0  # then x^a is the smaller
    log_larger = where(steep, root.log_x, multiply(a, root.log_x))
    log_quotient = multiply(minus_1, root.log_x)
    log_quotient = where(steep, log_quotient, negative(log_quotient))  # of the smaller by the larger
    far = root.rest * _far_excess(multiply(minus_1, root.log_rest), np.abs(minus_1.high), root.x)
    far = np.where(steep, far, far * exp(log_quotient))  # divided by x, and now by the larger
    return log_larger, np.where(steep, -1, 1) * (-expm1(log_quotient) + far) * (minus_1.high != 0)


def _log_of_terms(root: _Root, a: Two) -> Array:
    """log(T0/T1) of the two terms of dzeta/dbeta, right also where it is nearly 0.

    With s = log(1 - x) - log x it is

        log(T0/T1) = -l - a s + log(|log x| / |log(1 - x)|).

    For l = 0 it vanishes at x = 1/2, and for a = 1/log 2 so does its slope: what is left is of the order of s^3, and
    sums with more digits lose that too. Hence near x = 1/2 the last term by its Taylor series, s/log 2 - 0.0099 s^3
    and so on, whose first term meets a s before they are multiplied by s.
    """
    size_x, size_rest = negative(root.log_x), negative(root.log_rest)
    s = add(size_x, root.log_rest)
    logit = root.log_far_weight - root.log_weight
    tiny = root.x < _TINY_DISTANCE  # where |log(1 - x)| is x
    log_size_rest = where(tiny, root.log_x, log(where(tiny, exact(1.0), size_rest)))
    general = add(add(negative(multiply(a, s)), exact(-logit)), add(log(size_x), negative(log_size_rest)))

    central = np.minimum(s.high, _CENTRAL)
    bend = central**3 * np.polynomial.polynomial.polyval(central * central, _LOG_RATIO_OF_LOGS)
    slope = add(divide(exact(1.0), log(exact(2.0))), negative(a))
    return np.where(s.high < _CENTRAL, central * slope.high - logit + bend, general.high)


# ---- exponents and logarithms ---------------------------------------------------------------------------------------


def _exponent(beta: Array) -> Two:
    """a = 1/beta, whose own rounding x^a would show."""
    return divide(exact(1.0), exact(beta))


def _exponent_minus_1(beta: Array) -> Two:
    """a - 1 = (1 - beta)/beta, also where it is nearly 0."""
    return divide(two_sum(np.ones_like(beta), -beta), exact(beta))


def _log_ratio(zeta: Array, beta: Array) -> Two:
    """(a - 1) (log(1 - zeta) - log zeta) inside (0, 1)."""
    log_x, log_rest = logs_inside(zeta)
    return multiply(_exponent_minus_1(beta), add(log_rest, negative(log_x)))


def _at_distance_zero(beta: Array) -> Array:
    """log r(zeta|z) at zeta = z."""
    return np.where(beta > 1, np.inf, np.where(beta < 1, -np.inf, 0.0))
