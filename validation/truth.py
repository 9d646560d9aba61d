"""The smoothing family in multi-precision arithmetic: the truth that every implementation is judged by.

Each kind is written down again from its textbook densities, with enough digits that no cancellation matters, and its
inverse CDF by the quadratic of the paper or by a bracketed root search: a derivation independent of the stable forms of
``reference.smoothing``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import mpmath
from mpmath import mpf

#: Outputs of the inverse CDF, in the order of ``reference.smoothing.InverseCDF``.
OUTPUTS = ("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta")

_LN10 = 2.302585


class Components(NamedTuple):
    """Of the two densities r(zeta|z): their CDFs, densities and derivatives of the CDFs by beta, at one zeta."""

    F0: mpf
    F1: mpf
    f0: mpf
    f1: mpf
    dF0: mpf
    dF1: mpf


class Truth(ABC):
    """One kind of smoothing; numbers in and out are ``mpmath.mpf``, in the working precision of the caller."""

    @abstractmethod
    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """Decimal digits with which the results have far more than 16 right."""

    @abstractmethod
    def inverse(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """The four outputs of the inverse CDF."""

    def steepest(self, logit_q: mpf, beta: mpf) -> mpf | None:
        """Where between two modes the density is lowest, about; None if it never falls far."""
        return None

    @abstractmethod
    def log_prob(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Log density of the smoothed unit."""

    @abstractmethod
    def cdf(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """CDF of the smoothed unit."""


class MixtureTruth(Truth):
    """A kind with two densities."""

    @abstractmethod
    def components(self, zeta: mpf, beta: mpf) -> Components:
        """What is known of the two densities at zeta."""

    @abstractmethod
    def solve(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """The zeta whose CDF is rho, for 0 < rho < 1."""

    @abstractmethod
    def at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """The four outputs for rho = 0 or 1."""

    def inverse(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """By implicit differentiation."""
        if rho in (0, 1):
            return self.at_end(rho, p, q, beta)
        return self._at(self.solve(rho, p, q, beta), p, q, beta)

    def _at(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        c = self.components(zeta, beta)
        density = p * c.f0 + q * c.f1
        if mpmath.isinf(density):
            return zeta, mpf(0), mpf(0), mpf(0)
        if density == 0:
            return zeta, mpf(0), mpmath.inf, mpf(0)
        return zeta, p * q * (c.F0 - c.F1) / density, 1 / density, -(p * c.dF0 + q * c.dF1) / density

    def log_r(self, zeta: mpf, z: int, beta: mpf) -> mpf:
        """Log density given z."""
        c = self.components(zeta, beta)
        return _log(c.f1 if z else c.f0)

    def r_cdf(self, zeta: mpf, z: int, beta: mpf) -> mpf:
        """CDF given z."""
        c = self.components(zeta, beta)
        return c.F1 if z else c.F0

    def log_ratio(self, zeta: mpf, beta: mpf) -> mpf:
        """Log of the ratio of the densities."""
        c = self.components(zeta, beta)
        return _log(c.f1) - _log(c.f0)

    def log_prob(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Log of the mixture."""
        c = self.components(zeta, beta)
        return _log(_mix(p, c.f0, q, c.f1))

    def cdf(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Mixture of the CDFs."""
        c = self.components(zeta, beta)
        return p * c.F0 + q * c.F1

    def nu(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Bayes' rule."""
        if p == 0 or q == 0:
            return q
        ratio = self.log_ratio(zeta, beta)
        if mpmath.isinf(ratio):
            return mpf(ratio > 0)
        return 1 / (1 + p / q * mpmath.exp(-ratio))


class Exponential(MixtureTruth):
    """Overlapping exponentials, by the quadratic of appendix A."""

    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """Enough for d = e^{-beta}, p = e^{-|l|} and rho, which all meet 1."""
        return _digits_of_quadratic(rho, logit_q, beta)

    def components(self, zeta: mpf, beta: mpf) -> Components:
        """By the quotient rule."""
        d = mpmath.exp(-beta)
        m, w = mpmath.exp(-beta * zeta), mpmath.exp(-beta * (1 - zeta))
        norm = -mpmath.expm1(-beta)
        n = -mpmath.expm1(-beta * zeta)
        dF0 = (zeta * m * norm - n * d) / norm**2
        dF1 = ((-(1 - zeta) * w + d) * norm - (w - d) * d) / norm**2
        return Components(n / norm, w * n / norm, beta * m / norm, beta * w / norm, dF0, dF1)

    def solve(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """p m^2 + B m - q d = 0."""
        d = mpmath.exp(-beta)
        B = rho * (1 - d) - p + q * d
        m = q * d / B if p == 0 else (-B + mpmath.sqrt(B * B + 4 * p * q * d)) / (2 * p)
        return -mpmath.log(m) / beta

    def at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """An ordinary point: the densities are finite and positive on the closed interval."""
        return (rho, mpf(0), self._at(rho, p, q, beta)[2], mpf(0))

    def steepest(self, logit_q: mpf, beta: mpf) -> mpf | None:
        """Where both terms of the density are equal."""
        zeta = (1 - logit_q / beta) / 2
        return zeta if 0 < zeta < 1 else None


class UniformExponential(MixtureTruth):
    """Overlapping exponentials with a uniform floor of weight epsilon."""

    def __init__(self, epsilon: float = 0.05) -> None:
        self.epsilon = mpf(epsilon)
        self.exponential = Exponential()

    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """Nothing cancels but e^{-beta (1 - zeta)} - e^{-beta}, where zeta is small."""
        smallness = -mpmath.log10(rho) if 0 < rho < 1 else mpf(0)
        return int(80 + 2 * smallness)

    def components(self, zeta: mpf, beta: mpf) -> Components:
        """Mixture of those of the exponentials and the uniform."""
        e, c = self.epsilon, self.exponential.components(zeta, beta)
        return Components(
            (1 - e) * c.F0 + e * zeta,
            (1 - e) * c.F1 + e * zeta,
            (1 - e) * c.f0 + e,
            (1 - e) * c.f1 + e,
            (1 - e) * c.dF0,
            (1 - e) * c.dF1,
        )

    def log_ratio(self, zeta: mpf, beta: mpf) -> mpf:
        """By the difference of the exponentials: the floor would drown it."""
        e, c = self.epsilon, self.exponential.components(zeta, beta)
        return mpmath.log1p((1 - e) * (c.f1 - c.f0) / ((1 - e) * c.f0 + e))

    def solve(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Bracketed between 0 and 1."""

        def residual(zeta: mpf) -> tuple[mpf, mpf]:
            c = self.components(zeta, beta)
            return p * c.F0 + q * c.F1 - rho, p * c.f0 + q * c.f1

        start = rho / residual(mpf(0))[1]
        return _root(residual, mpf(0), mpf(1), start if start < 1 else rho)

    def at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """As for the exponentials."""
        return (rho, mpf(0), self._at(rho, p, q, beta)[2], mpf(0))


class SpikeExponential(MixtureTruth):
    """A point mass at 0 for z = 0; densities are with respect to that mass plus Lebesgue measure."""

    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """Enough for rho - p, which may be as small as l/4 at rho = 1/2, and for e^{beta zeta} - 1."""
        smallness = -float(mpmath.log10(abs(logit_q))) if 0 < abs(logit_q) < 1 else 0.0
        return _digits_of_quadratic(rho, logit_q, beta) + int(smallness)

    def components(self, zeta: mpf, beta: mpf) -> Components:
        """The mass at 0 belongs to z = 0 alone."""
        norm = mpmath.expm1(beta)
        n = mpmath.expm1(beta * zeta)
        dF1 = (zeta * mpmath.exp(beta * zeta) * norm - n * mpmath.exp(beta)) / norm**2
        f1 = beta * mpmath.exp(beta * zeta) / norm
        if zeta == 0:
            return Components(mpf(1), mpf(0), mpf(1), mpf(0), mpf(0), mpf(0))
        return Components(mpf(1), n / norm, mpf(0), f1, mpf(0), dF1)

    def solve(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """0 up to rho = p."""
        if rho <= p:
            return mpf(0)
        return mpmath.log1p(mpmath.expm1(beta) * (rho - p) / q) / beta

    def inverse(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """On the spike nothing moves."""
        if rho <= p or rho == 0:
            return (mpf(0),) * 4
        return self.at_end(rho, p, q, beta) if rho == 1 else self._at(self.solve(rho, p, q, beta), p, q, beta)

    def at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """At rho = 1, zeta = 1."""
        return (mpf(1), mpf(0), self._at(mpf(1), p, q, beta)[2], mpf(0))


class Logistic(MixtureTruth):
    """Overlapping logistics with means 0 and 1 and scale 1 / beta, by a quadratic in e^{-beta zeta}."""

    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """As for the exponentials."""
        return _digits_of_quadratic(rho, logit_q, beta)

    def components(self, zeta: mpf, beta: mpf) -> Components:
        """By the logistic's own differential equation."""
        values = []
        for shift in (zeta, zeta - 1):
            F, S = _sigmoid(beta * shift), _sigmoid(-beta * shift)
            values.append((F, beta * F * S, mpf(0) if mpmath.isinf(shift) else shift * F * S))
        (F0, f0, dF0), (F1, f1, dF1) = values
        return Components(F0, F1, f0, f1, dF0, dF1)

    def solve(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """With w = e^{-beta zeta}: p/(1 + w) + q d/(d + w) = rho, cleared of its denominators."""
        d = mpmath.exp(-beta)
        B = rho * (1 + d) - p - q * d
        return -mpmath.log((-B + mpmath.sqrt(B * B + 4 * rho * (1 - rho) * d)) / (2 * rho)) / beta

    def at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """Both tails are exponential: F -> (p + q d) e^{beta zeta}, and 1 - F -> (p d + q) e^{beta} e^{-beta zeta}."""
        d = mpmath.exp(-beta)
        sign = 1 if rho == 1 else -1
        weight = p + q * d if rho == 0 else p * d + q
        return (sign * mpmath.inf, p * q * (1 - d) / (beta * weight), mpmath.inf, -sign * mpmath.inf)

    def steepest(self, logit_q: mpf, beta: mpf) -> mpf | None:
        """Between the modes the tails are exponential."""
        zeta = (1 - logit_q / beta) / 2
        return zeta if 0 < zeta < 1 else None

    def log_ratio(self, zeta: mpf, beta: mpf) -> mpf:
        """Its limits are finite: a difference of numbers beta times as large as zeta."""
        if mpmath.isinf(zeta):
            return beta if zeta > 0 else -beta
        with mpmath.extradps(int(mpmath.log10(1 + abs(zeta)))):
            return super().log_ratio(zeta, beta)


class Gaussian(MixtureTruth):
    """Normal densities of means 0 and 1 and precision beta."""

    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """Enough for 1 - rho where rho is moved to the lowest point between the modes, beside q >= e^{-beta/2}."""
        return int(60 + beta / 2 / _LN10)

    def components(self, zeta: mpf, beta: mpf) -> Components:
        """By erfc, which keeps the lower tail."""
        if mpmath.isinf(zeta):
            end = mpf(zeta > 0)
            return Components(end, end, mpf(0), mpf(0), mpf(0), mpf(0))
        s = mpmath.sqrt(beta)
        values = []
        for shift in (zeta, zeta - 1):
            f = s * mpmath.npdf(s * shift)
            values.append((mpmath.erfc(-s * shift / mpmath.sqrt(2)) / 2, f, f * shift / (2 * beta)))
        (F0, f0, dF0), (F1, f1, dF1) = values
        return Components(F0, F1, f0, f1, dF0, dF1)

    def solve(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Between the quantiles of the components, in the logarithm of the smaller tail."""
        tail = rho if rho < 0.5 else 1 - rho
        # Digits left over on the plateau between the modes, where the density is e^{-beta/8} of its height.
        with mpmath.workdps(int(45 + beta / 8 / mpf(_LN10))):
            s = mpmath.sqrt(beta)
            low = _normal_quantile(rho) / s
            low, high, zeta = low - mpf("1e-6") / s, low + 1 + mpf("1e-6") / s, low + q
            for _ in range(1000):
                c = self.components(zeta, beta)
                density = p * c.f0 + q * c.f1
                if rho < 0.5:
                    F = p * c.F0 + q * c.F1
                    value, slope = mpmath.log(F / tail), density / F
                else:
                    upper = self.components(1 - zeta, beta)  # 1 - F0(zeta) = F1(1 - zeta)
                    S = p * upper.F1 + q * upper.F0
                    value, slope = -mpmath.log(S / tail), density / S
                step = -value / slope
                # Before the bracket is asked: within rounding, Newton may step over an end of it.
                if abs(step) <= mpf(10) ** -32 * max(abs(zeta), 1 / (s * 1000)):
                    return zeta + step
                low, high = (zeta, high) if value < 0 else (low, zeta)
                zeta = zeta + step if low < zeta + step < high else (low + high) / 2
        raise ArithmeticError("the root search of the truth did not converge")

    def at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """Normal tails: they move by nothing for the logit."""
        sign = 1 if rho == 1 else -1
        return (sign * mpmath.inf, mpf(0), mpmath.inf, -sign * mpmath.inf)

    def steepest(self, logit_q: mpf, beta: mpf) -> mpf | None:
        """Zero of the density's derivative between the modes: l + beta (zeta - 1/2) = log(zeta / (1 - zeta))."""
        if beta < 8:
            return None
        zeta = mpf(1) / 2 - logit_q / beta
        for _ in range(60):
            if not 0 < zeta < 1:
                return None
            slope = beta - 1 / (zeta * (1 - zeta))
            if slope <= 0:
                return None
            zeta -= (logit_q + beta * (zeta - mpf(1) / 2) - mpmath.log(zeta / (1 - zeta))) / slope
        return zeta if 0 < zeta < 1 else None

    def log_r(self, zeta: mpf, z: int, beta: mpf) -> mpf:
        """Without a detour by the density."""
        return mpmath.log(beta / (2 * mpmath.pi)) / 2 - beta * (zeta - z) ** 2 / 2

    def log_ratio(self, zeta: mpf, beta: mpf) -> mpf:
        """Linear."""
        return beta * (zeta - mpf(1) / 2)

    def log_prob(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Without the CDFs, which take long."""
        if mpmath.isinf(zeta):
            return -mpmath.inf
        f0, f1 = (mpmath.exp(-beta * (zeta - z) ** 2 / 2) for z in (0, 1))
        return mpmath.log(beta / (2 * mpmath.pi)) / 2 + mpmath.log(p * f0 + q * f1)


class Power(MixtureTruth):
    """(1 / beta) zeta^{1/beta - 1} and its mirror image."""

    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """Enough for 1 - zeta and 1 - zeta^{1/beta}, which may be tiny, and for the density's difference from 1."""
        return int(80 + _smallness(rho) + _smallness(abs(logit_q)))

    def components(self, zeta: mpf, beta: mpf) -> Components:
        """With powers of zeta and of 1 - zeta."""
        return self._from_both(zeta, 1 - zeta, beta)

    def _from_both(self, zeta: mpf, rest: mpf, beta: mpf) -> Components:
        alpha = 1 / beta
        low = (_power(zeta, alpha), alpha * _power(zeta, alpha - 1), _x_log_x(zeta, alpha))
        high = (_power(rest, alpha), alpha * _power(rest, alpha - 1), _x_log_x(rest, alpha))
        upper = -mpmath.expm1(alpha * mpmath.log(rest)) if rest != 0 else mpf(1)
        if alpha == 1:  # both are uniform, to the last digit
            upper = low[0]
        return Components(low[0], upper, low[1], high[1], -low[2] / beta**2, high[2] / beta**2)

    def solve(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """In the logarithm of the distance from the nearer end, against the logarithm of the smaller tail."""
        return self._solve_both(rho, p, q, beta)[0]

    def _solve_both(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, mpf]:
        """zeta and 1 - zeta, each with all its digits."""
        half = self.components(mpf(1) / 2, beta)
        left = p * half.F0 + q * half.F1 >= rho
        # The mirror image has q for p and 1 - rho for rho.
        tail, a, b = (rho, p, q) if left else (1 - rho, q, p)

        def residual(y: mpf) -> tuple[mpf, mpf]:
            x = mpmath.exp(y)
            near = mpmath.exp(y / beta)
            far = -mpmath.expm1(mpmath.log1p(-x) / beta)
            F = a * near + b * far
            slope = (a * near + b * x * mpmath.exp((1 / beta - 1) * mpmath.log1p(-x))) / (beta * F)
            value = mpmath.log(F / tail)
            arrived = abs(value) <= mpf(10) ** (-mpmath.mp.dps + 12) * slope  # a step too short to be seen in y
            return mpf(0) if arrived else value, slope

        lowest = min(beta * mpmath.log(tail), mpmath.log(-mpmath.expm1(beta * mpmath.log1p(-tail)))) - 1
        highest = -mpmath.log(2)
        x = mpmath.exp(_root(residual, lowest, highest, max(lowest, min(highest, beta * mpmath.log(tail)))))
        return (x, 1 - x) if left else (1 - x, x)

    def inverse(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """With 1 - zeta at hand beside zeta."""
        if rho in (0, 1):
            return self.at_end(rho, p, q, beta)
        zeta, rest = self._solve_both(rho, p, q, beta)
        c = self._from_both(zeta, rest, beta)
        density = p * c.f0 + q * c.f1
        return zeta, p * q * (c.F0 - c.F1) / density, 1 / density, -(p * c.dF0 + q * c.dF1) / density

    def steepest(self, logit_q: mpf, beta: mpf) -> mpf | None:
        """Zero of the density's derivative: logit(zeta) = l / (1/beta - 2). For beta > 1 no density is below 1/beta."""
        zeta = _sigmoid(logit_q / (1 / beta - 2)) if beta < 0.5 else mpf(0)
        return zeta if 1e-20 < zeta < 1 - 1e-20 else None

    def at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """The density is infinite for beta > 1 (unless the end's own z is impossible), 0 for beta < 1."""
        own, other = (p, q) if rho == 0 else (q, p)
        alpha = 1 / beta
        density = (own * _power(mpf(0), alpha - 1) if own != 0 else mpf(0)) * alpha + other * alpha
        if density == 0:
            return rho, mpf(0), mpmath.inf, mpf(0)
        return rho, mpf(0), mpf(0) if mpmath.isinf(density) else 1 / density, mpf(0)


class Concrete(Truth):
    """zeta = sigma((l + logit rho) / lambda); ``beta`` is the temperature lambda throughout."""

    def digits(self, rho: float, logit_q: float, beta: float) -> int:
        """Enough for 1 - rho, for 1 - zeta within e^{-1000} of 1, and for the density's difference from 1."""
        return int(80 + _smallness(rho) + _smallness(abs(logit_q)))

    def inverse(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        """The derivative with respect to beta means 1 / lambda."""
        if rho in (0, 1) or p == 0 or q == 0:
            return self._at_end(rho, p, q, beta)
        x = mpmath.log(q / p) + mpmath.log(rho / (1 - rho))
        zeta, rest = _sigmoid(x / beta), _sigmoid(-x / beta)
        return zeta, zeta * rest / beta, zeta * rest / (beta * rho * (1 - rho)), x * zeta * rest

    def _at_end(self, rho: mpf, p: mpf, q: mpf, beta: mpf) -> tuple[mpf, ...]:
        zeta = rho if rho in (0, 1) else q
        slope = mpf(0)
        if (
            rho in (0, 1) and p != 0 and q != 0
        ):  # zeta = (odds)^{1/lambda} near the end, odds = rho q / p or its inverse
            if beta > 1:
                slope = mpmath.inf
            elif beta == 1:
                slope = q / p if rho == 0 else p / q
        return zeta, mpf(0), slope, mpf(0)

    def log_prob(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """Derivative of the CDF."""
        if p == 0 or q == 0:
            return mpmath.inf if zeta == q else -mpmath.inf
        if zeta in (0, 1):
            if beta == 1:
                return mpmath.log(q / p) if zeta == 1 else mpmath.log(p / q)
            return mpmath.inf if beta < 1 else -mpmath.inf
        x = beta * mpmath.log(zeta / (1 - zeta)) - mpmath.log(q / p)
        return mpmath.log(beta * _sigmoid(x) * _sigmoid(-x) / (zeta * (1 - zeta)))

    def cdf(self, zeta: mpf, p: mpf, q: mpf, beta: mpf) -> mpf:
        """A logistic's, of the logit of zeta."""
        if zeta in (0, 1):
            return zeta
        if p == 0 or q == 0:
            return p
        return _sigmoid(beta * mpmath.log(zeta / (1 - zeta)) - mpmath.log(q / p))


def sigmoid_pair(logit_q: mpf) -> tuple[mpf, mpf]:
    """p and q of a logit, infinite ones included."""
    return _sigmoid(-logit_q), _sigmoid(logit_q)


def _sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-x))  # also right at plus and minus infinity


def _smallness(x: float) -> float:
    """Digits by which x > 0 is below 1."""
    return -float(mpmath.log10(x)) if 0 < x < 1 else 0.0


def _log(x: mpf) -> mpf:
    return mpmath.log(x) if x != 0 else -mpmath.inf


def _mix(p: mpf, a: mpf, q: mpf, b: mpf) -> mpf:
    """p a + q b where 0 times an infinite density is 0."""
    return (p * a if p != 0 else mpf(0)) + (q * b if q != 0 else mpf(0))


def _power(x: mpf, exponent: mpf) -> mpf:
    if x == 0:
        return mpf(1) if exponent == 0 else mpmath.inf if exponent < 0 else mpf(0)
    return mpmath.exp(exponent * mpmath.log(x))


def _x_log_x(x: mpf, alpha: mpf) -> mpf:
    """x^alpha log x."""
    return mpf(0) if x == 0 else mpmath.exp(alpha * mpmath.log(x)) * mpmath.log(x)


def _normal_quantile(rho: mpf) -> mpf:
    """To about 8 digits: enough for a bracket."""
    tail = min(rho, 1 - rho)
    with mpmath.workdps(30):
        x = -mpmath.sqrt(-2 * mpmath.log(2 * tail)) if tail < 0.5 else mpf(0)
        for _ in range(60):
            F = mpmath.ncdf(x)
            step = mpmath.log(F / tail) * F / mpmath.npdf(x)
            x -= step
            if abs(step) < mpf("1e-10"):
                break
    return x if rho <= 0.5 else -x


def _digits_of_quadratic(rho: float, logit_q: float, beta: float) -> int:
    """d = e^{-beta} and p = e^{-|l|} meet 1 in the discriminant, whose square root is then subtracted from its like;
    and rho meets 1 in e^{-beta zeta}. (1.1 digits for each unit of an exponent where 0.43 would hold one such meeting.)
    """
    finite = abs(logit_q) if abs(logit_q) < float("inf") else 0.0
    smallness = -float(mpmath.log(rho)) if rho > 0 else 0.0
    return int(60 + (beta + finite + smallness) / 1.1)


def _root(residual: Callable[[mpf], tuple[mpf, mpf]], low: mpf, high: mpf, start: mpf) -> mpf:
    """Zero of an increasing function of known slope: Newton's steps, bisection where they leave the bracket."""
    x = start
    tolerance = mpf(10) ** (-mpmath.mp.dps + 12)
    for _ in range(4000):
        value, slope = residual(x)
        if value == 0:
            return x
        step = -value / slope if slope > 0 else mpmath.inf
        # Before the bracket is asked: within rounding, Newton may step over an end of it.
        if abs(step) <= tolerance * abs(x):
            return x + step
        low, high = (x, high) if value < 0 else (low, x)
        x = x + step if low < x + step < high else (low + high) / 2
    raise ArithmeticError("the root search of the truth did not converge")


KINDS: dict[str, Truth] = {
    "exponential": Exponential(),
    "logistic": Logistic(),
    "spike_exponential": SpikeExponential(),
    "power": Power(),
    "gaussian": Gaussian(),
    "uniform_exponential": UniformExponential(),
    "concrete": Concrete(),
}
