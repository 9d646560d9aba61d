"""The vocabulary every kind of smoothing shares, with the checks; a kind adds its formulas and nothing else.

A kind is a small frozen dataclass with a sharpness. ``Smoothing`` speaks of the density q(zeta|x) of the smoothed unit;
``MixtureSmoothing``, for the kinds that attach a density r(zeta|z) to each value of z, speaks of r too, and defines

    q(zeta|x) = p r(zeta|0) + q r(zeta|1),      q = sigma(l) = q(z=1|x),  p = sigma(-l).

The public methods below check their arguments, run a kind's formulas (the methods with an underscore) in float64 and
round the results once to the dtype of the arguments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from reference.vocabulary import (
    Array,
    ShapeError,
    as_float,
    check,
    check_binary,
    check_broadcast,
    check_not_nan,
    check_positive,
    check_unit_interval,
)


@dataclass(frozen=True, eq=False)  # eq=False, as in every kind: comparing arrays gives an array, not a truth value
class InverseCDF:
    """A smoothed sample with its derivatives; all four have the broadcast shape of the inputs."""

    zeta: Array
    dzeta_dlogit_q: Array
    dzeta_drho: Array
    dzeta_dbeta: Array


class Smoothing(ABC):
    """A continuous companion zeta of a binary unit: its density, its CDF, and how noise becomes a sample.

    Source   DVAE++ (arXiv:1802.04920), eq. (2), for the density of zeta and its reparameterisation.
    Shapes   a kind's sharpness is a scalar, or an array (of which a copy is kept) that broadcasts with the arguments of
             its methods.
    Raises   DomainError for a sharpness that is not positive and finite; from a method, for one that no longer is when
             it is rounded to float32 for float32 arguments.
    """

    sharpness: ClassVar[str] = "beta"  # name of the field that says how sharp
    unit_interval: ClassVar[bool] = True  # whether zeta lives on [0, 1]; else on the real line, its two ends included

    def __post_init__(self) -> None:
        value = getattr(self, self.sharpness)
        beta = as_float(self.sharpness, value)
        check_positive(self.sharpness, beta)
        if not np.isscalar(value):  # what was checked here must not change behind the object's back
            beta = beta.copy()
            beta.flags.writeable = False
            # The dataclass is frozen; this is its one moment of construction.
            object.__setattr__(self, self.sharpness, beta)

    # ---- what a caller uses -------------------------------------------------------------------------------------

    def log_prob(self, zeta: ArrayLike, logit_q: ArrayLike) -> Array:
        """Log density of the smoothed unit, log q(zeta|x).

        Source   DVAE++ (arXiv:1802.04920), eq. (2) for the kinds that are mixtures; the kind's own source else.
        Shapes   zeta, logit_q broadcast; the result has their common shape.
        Domain   zeta in [0, 1], or real or infinite (``unit_interval`` says which); logit_q any real or infinite.
        Units    nats
        Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
        """
        x, logit, beta, dtype = self._arguments(zeta=zeta, logit_q=logit_q)
        return _rounded(self._log_prob(x, logit, beta), dtype, saturated=False)

    def cdf(self, zeta: ArrayLike, logit_q: ArrayLike) -> Array:
        """Probability of a smoothed unit of at most zeta; the inverse of ``inverse_cdf``.

        Source   as the kind.
        Shapes   zeta, logit_q broadcast; the result has their common shape.
        Domain   as ``log_prob``.
        Units    none
        Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
        """
        x, logit, beta, dtype = self._arguments(zeta=zeta, logit_q=logit_q)
        return _rounded(self._cdf(x, logit, beta), dtype)

    def inverse_cdf(self, rho: ArrayLike, logit_q: ArrayLike) -> Array:
        """Turn uniform noise into a smoothed sample: the (smallest) zeta whose CDF reaches rho.

        Source   DVAE++ (arXiv:1802.04920), section 2 (reparameterisation by the inverse CDF); as the kind.
        Shapes   rho, logit_q broadcast; the result has their common shape. Two float32 inputs give a float32 result,
                 computed in float64 and rounded once.
        Domain   rho in [0, 1] closed, whose ends give the ends of zeta's domain; logit_q any real or infinite.
        Units    none
        Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
        """
        noise, logit, beta, dtype = self._arguments(rho=rho, logit_q=logit_q)
        return _rounded(self._inverse_cdf(noise, logit, beta), dtype, saturated=False)

    def inverse_cdf_with_derivatives(self, rho: ArrayLike, logit_q: ArrayLike) -> InverseCDF:
        """The smoothed sample and its derivatives with respect to logit, noise and sharpness.

        Implicit differentiation of F(zeta; theta) = rho gives dzeta/dtheta = -(dF/dtheta)/f with f the density: no
        inverse in closed form is needed for a gradient.

        Source   as the kind; the derivatives are ours.
        Departs  where a true derivative overflows or is infinite (the density vanishes to the dtype), the result is the
                 largest finite number of the dtype, so that 0 * derivative stays 0.
        Shapes, Domain, Raises   as ``inverse_cdf``.
        Units    none
        """
        noise, logit, beta, dtype = self._arguments(rho=rho, logit_q=logit_q)
        result = self._inverse_cdf_with_derivatives(noise, logit, beta)
        return InverseCDF(
            zeta=_rounded(result.zeta, dtype, saturated=False),
            dzeta_dlogit_q=_rounded(result.dzeta_dlogit_q, dtype),
            dzeta_drho=_rounded(result.dzeta_drho, dtype),
            dzeta_dbeta=_rounded(result.dzeta_dbeta, dtype),
        )

    def check_one_sharpness(self) -> None:
        """Refuse an array of sharpnesses, for those whose formulas smooth all units alike.

        Source   none: a check of arguments.
        Shapes   none
        Domain   a sharpness that is one number
        Units    none
        Raises   ShapeError naming the sharpness.
        """
        shape = np.shape(getattr(self, self.sharpness))
        if shape:
            raise ShapeError(f"smoothing.{self.sharpness} must be one number here; got {shape}")

    # ---- what a kind defines, for arguments in float64 that were checked ------------------------------------------

    @abstractmethod
    def _log_prob(self, zeta: Array, logit_q: Array, beta: Array) -> Array: ...

    @abstractmethod
    def _cdf(self, zeta: Array, logit_q: Array, beta: Array) -> Array: ...

    @abstractmethod
    def _inverse_cdf(self, rho: Array, logit_q: Array, beta: Array) -> Array: ...

    @abstractmethod
    def _inverse_cdf_with_derivatives(self, rho: Array, logit_q: Array, beta: Array) -> InverseCDF: ...

    def _arguments(self, **values: ArrayLike) -> tuple[Any, ...]:
        """Check the named arguments and return them with the sharpness, all in float64, and the dtype of the result.

        The sharpness is rounded to that dtype first, for a float32 caller's beta = 0.1 is the float32 nearest to 0.1.
        """
        arrays = {name: as_float(name, value) for name, value in values.items()}
        dtype = np.result_type(*arrays.values())
        with np.errstate(over="ignore", under="ignore"):  # refused below
            beta = np.asarray(getattr(self, self.sharpness)).astype(dtype).astype(np.float64)
        rule = f"be positive and finite in {dtype}, the precision of the other arguments"
        check(self.sharpness, beta, (beta > 0) & (beta < np.inf), rule)
        arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
        check_broadcast(**arrays, **{self.sharpness: beta})
        for name, array in arrays.items():
            if name == "rho" or (name == "zeta" and self.unit_interval):
                check_unit_interval(name, array)
            elif name == "z":
                check_binary(name, array)
            else:
                check_not_nan(name, array)
        return (*arrays.values(), beta, dtype)


class MixtureSmoothing(Smoothing):
    """A smoothing with a density r(zeta|z) for each value of the binary unit.

    Source   DVAE++ (arXiv:1802.04920), eq. (2).
    """

    def log_r(self, zeta: ArrayLike, z: ArrayLike) -> Array:
        """Log density of the smoothed unit given the binary one.

        Source   as the kind.
        Shapes   zeta, z broadcast; the result has their common shape.
        Domain   zeta as in ``log_prob``, z in {0, 1}.
        Units    nats
        Raises   DomainError outside the domain, ShapeError if shapes do not broadcast.
        """
        x, unit, beta, dtype = self._arguments(zeta=zeta, z=z)
        return _rounded(self._log_r(x, unit, beta), dtype, saturated=False)

    def r_cdf(self, zeta: ArrayLike, z: ArrayLike) -> Array:
        """Probability of a smoothed unit of at most zeta given the binary one.

        Source   as the kind, by integration of its densities.
        Shapes   zeta, z broadcast; the result has their common shape.
        Domain   zeta as in ``log_prob``, z in {0, 1}.
        Units    none
        Raises   DomainError outside the domain, ShapeError if shapes do not broadcast.
        """
        x, unit, beta, dtype = self._arguments(zeta=zeta, z=z)
        return _rounded(self._r_cdf(x, unit, beta), dtype)

    def log_ratio(self, zeta: ArrayLike) -> Array:
        """How much the smoothed unit speaks for z = 1: log r(zeta|1) - log r(zeta|0).

        Source   DVAE++ (arXiv:1802.04920), section 5, in the definition of nu.
        Shapes   any, kept.
        Domain   zeta as in ``log_prob``.
        Units    nats
        Raises   DomainError outside the domain.
        """
        x, beta, dtype = self._arguments(zeta=zeta)
        return _rounded(self._log_ratio(x, beta), dtype, saturated=False)

    def nu(self, zeta: ArrayLike, logit_q: ArrayLike) -> Array:
        """Probability that z = 1 once its smoothed companion zeta has been seen: sigma(l + log r(zeta|1)/r(zeta|0)).

        Bayes' rule. Averaged over zeta ~ q(zeta|x) it is the probability before: E[nu] = mu = sigma(l).

        Source   DVAE++ (arXiv:1802.04920), section 5, the definition of nu after eq. (6).
        Shapes   zeta, logit_q broadcast; the result has their common shape.
        Domain   as ``log_prob``.
        Units    none (a probability)
        Raises   DomainError outside the domain or for NaN, ShapeError if shapes do not broadcast.
        """
        x, logit, beta, dtype = self._arguments(zeta=zeta, logit_q=logit_q)
        # A certain prior stays certain, whatever zeta says; the kinds need not meet inf - inf.
        certain = np.isinf(logit)
        seen = self._nu(x, np.where(certain, 0.0, logit), beta)
        return _rounded(np.where(certain, logit > 0, seen), dtype)

    @abstractmethod
    def _log_r(self, zeta: Array, z: Array, beta: Array) -> Array: ...

    @abstractmethod
    def _r_cdf(self, zeta: Array, z: Array, beta: Array) -> Array: ...

    @abstractmethod
    def _log_ratio(self, zeta: Array, beta: Array) -> Array: ...

    @abstractmethod
    def _nu(self, zeta: Array, logit_q: Array, beta: Array) -> Array: ...


def _rounded(result: Array, dtype: np.dtype[Any], saturated: bool = True) -> Array:
    """The float64 result in the caller's dtype; ``saturated`` at its largest number instead of overflowing."""
    result = np.asarray(result)
    if saturated:
        limit = float(np.finfo(dtype).max)
        result = np.clip(result, -limit, limit)
    with np.errstate(over="ignore"):  # a log-density may be infinite
        return result.astype(dtype)
