"""Gradient estimators on one fixed problem, all on the same noise: how far off, and how noisy.

The problem (``Problem``): four units and a function in which they interact in pairs and all together,

    f(x) = x'P x / 2 + b'x + exp(c'x),

small enough for the exact gradient, which the estimates are compared with. Every number is relative to its norm (about
1). An unbiased estimator must agree within its standard error, and is judged (by ``validation.statistics``); a biased
one is *measured*. Spreads are those of a single draw: a mean over n of them has the spread divided by sqrt(n).

The multi-sample bound of VIMCO is another function with a gradient of its own: its rows are relative to that, with f in
the place of log f, and are not to be compared with the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reference.smoothing
from reference.estimators import (
    Integrand,
    RunningMoments,
    arm,
    concrete,
    disarm,
    draw,
    exact_gradient,
    exact_multi_sample_gradient,
    exact_value,
    matching_noise,
    muprop,
    nvil,
    rebar,
    rebar_surrogate,
    reinforce,
    relax,
    smoothed,
    straight_through,
    vimco,
)
from reference.smoothing import BinaryConcrete, Smoothing
from reference.vocabulary import check_count
from validation.sampling.chance import Means, skewness
from validation.tolerances import HEAVY_TAIL

N_DRAWS = 200_000
CHUNK = 10_000
BATCH = 100  # of NVIL
FEWEST_DRAWS = 1000  # for a mean to be normal as far out as it is judged, more or less
TEMPERATURES = (1.0, 0.5, 0.25, 0.1)
N_SAMPLES = (2, 4)  # of VIMCO; 4 units times 4 samples are as many as can be enumerated

Floats = NDArray[np.floating]
Estimate = Callable[[Floats, Floats, Floats], Floats]

#: Sharpnesses to measure a kind of smoothing at, by the name it gives to its own.
SHARPNESSES = {"beta": (2.0, 4.0, 8.0, 16.0)}


def exported_smoothings() -> tuple[Smoothing, ...]:
    """Every kind that ``reference.smoothing`` exports, at each of its sharpnesses.

    But the binary Concrete: it is an estimator under its own name, and has its rows there.
    """
    classes: list[Any] = [kind for _, kind in inspect.getmembers(reference.smoothing, inspect.isclass)]
    kinds = [kind for kind in classes if issubclass(kind, Smoothing) and not inspect.isabstract(kind)]
    kinds.remove(BinaryConcrete)
    return tuple(kind(sharpness) for kind in kinds for sharpness in SHARPNESSES[kind.sharpness])


@dataclass(frozen=True)
class Problem:
    """The function above, with the two things a control variate may know of it.

    Shapes   logits (N,), pairs (N, N) symmetric with zero diagonal, slope (N,), inner (N,)
    """

    logits: Floats
    pairs: Floats
    slope: Floats
    inner: Floats

    def integrand(self) -> Integrand:
        """f and its gradient on relaxed values."""
        return Integrand(
            lambda x: ((x @ self.pairs) * x).sum(axis=1) / 2 + x @ self.slope + np.exp(x @ self.inner),
            lambda x: x @ self.pairs + self.slope + np.exp(x @ self.inner)[:, None] * self.inner,
        )

    def multilinear(self) -> Integrand:
        """The function that is linear in every unit and equal to f at binary values: exp(c_i x) = 1 + x (e^{c_i} - 1).

        Its value at x is E[f(z)] for independent z with means x, so the gradient of E[f(z)] is the slope of this at q,
        times q p.
        """
        jump = np.expm1(self.inner)

        def value(x: Floats) -> Floats:
            return ((x @ self.pairs) * x).sum(axis=1) / 2 + x @ self.slope + (1 + x * jump).prod(axis=1)

        def gradient(x: Floats) -> Floats:
            factors = 1 + x * jump
            return x @ self.pairs + self.slope + factors.prod(axis=1, keepdims=True) / factors * jump

        return Integrand(value, gradient)


#: Units from rare to frequent; couplings of both signs; E[f] = 2.7, and a gradient of norm 1.003.
PROBLEM = Problem(
    logits=np.array([-1.2, 0.4, 0.9, -0.3]),
    pairs=np.array([[0.0, 1.5, -1.0, 0.5], [1.5, 0.0, 0.8, -1.2], [-1.0, 0.8, 0.0, 2.0], [0.5, -1.2, 2.0, 0.0]]),
    slope=np.array([0.3, -0.6, 0.4, -0.2]),
    inner=np.array([0.9, -0.7, 0.5, 0.8]),
)


@dataclass(frozen=True, eq=False)
class Row:
    """One estimator, measured; everything relative to the norm of the exact gradient."""

    estimator: str
    parameter: str
    bias: float  # norm of (mean - exact)
    standard_error: float  # of the mean, all coordinates together; an unbiased estimator shows a bias of this size
    spread: float  # standard deviation of one draw, all coordinates together
    heaviest: float  # share of the largest draw in the sum of squared errors
    n_draws: int
    unbiased: bool  # what the estimator claims
    target: Floats  # (N,), the exact gradient
    means: Means  # of a draw's coordinates
    mean_square: float  # of a draw's distance from the target, all coordinates together

    @property
    def trustworthy(self) -> bool:
        """Whether no single draw dominates the spread."""
        return self.heaviest <= HEAVY_TAIL


@dataclass(frozen=True)
class Measured:
    """What one row is about: an estimate (S, N) of ``target`` from noise rho (S, N), v (S, N) and many (S, K, N)."""

    estimator: str
    parameter: str
    estimate: Estimate
    target: Floats
    unbiased: bool = True


def table(
    n_draws: int = N_DRAWS,
    seed: int = 0,
    problem: Problem = PROBLEM,
    smoothings: Sequence[Smoothing] | None = None,
) -> list[Row]:
    """Measure every estimator on the same draws, in chunks.

    Shapes   -> one Row per estimator and parameter; smoothings None: ``exported_smoothings``
    Domain   n_draws >= 1000, seed >= 0
    Raises   DomainError for a number that is not such a whole number.
    """
    measured = measurements(problem, exported_smoothings() if smoothings is None else smoothings)
    return measure(list(measured), n_draws, seed, problem.logits.size)


def measure(
    measured: Sequence[Measured], n_draws: int = N_DRAWS, seed: int = 0, n_units: int = PROBLEM.logits.size
) -> list[Row]:
    """The rows of these measurements, all on the same draws, which depend on nothing but the seed.

    Domain   as ``table``
    """
    n_draws, seed = check_count("n_draws", n_draws, least=FEWEST_DRAWS), check_count("seed", seed, least=0)
    rng = np.random.default_rng(seed)
    tallies = [_Tally(row.target) for row in measured]
    for first in range(0, n_draws, CHUNK):
        noise = rng.random((2 + max(N_SAMPLES), min(CHUNK, n_draws - first), n_units))
        rho, v, many = noise[0], noise[1], noise[2:].swapaxes(0, 1)
        for row, tally in zip(measured, tallies, strict=True):
            tally.add(row.estimate(rho, v, many))
    return [tally.row(row) for row, tally in zip(measured, tallies, strict=True)]


def measurements(problem: Problem = PROBLEM, smoothings: Sequence[Smoothing] = ()) -> Iterator[Measured]:
    """Every estimator of ``reference.estimators``, and the smoothed one by each of the smoothings."""
    f, logits = problem.integrand(), problem.logits
    exact, mean = exact_gradient(f, logits), exact_value(f, logits)
    surrogate = rebar_surrogate(problem.multilinear(), 0.5)  # knows more of f than f's own relaxation does

    def rebar_at(temperature: float) -> Estimate:
        return lambda rho, v, many: rebar(f, rho, v, logits, temperature)

    def vimco_with(n_samples: int) -> Estimate:
        return lambda rho, v, many: vimco(f, many[:, :n_samples], logits)

    def concrete_at(temperature: float) -> Estimate:
        return lambda rho, v, many: concrete(f, rho, logits, temperature)

    def smoothed_by(smoothing: Smoothing) -> Estimate:
        return lambda rho, v, many: smoothed(f, rho, logits, smoothing)

    def matched(rho: Floats, v: Floats, many: Floats) -> Floats:
        return rebar(f, rho, matching_noise(rho, logits), logits, 0.5)

    yield Measured("REINFORCE", "no baseline", lambda rho, v, many: reinforce(f, rho, logits), exact)
    yield Measured("REINFORCE", "baseline E[f]", lambda rho, v, many: reinforce(f, rho, logits, mean), exact)
    yield Measured("NVIL", "running moments", _Nvil(f, logits), exact)
    yield Measured("MuProp", "", lambda rho, v, many: muprop(f, rho, logits), exact)
    for t in TEMPERATURES:
        yield Measured("REBAR", f"temperature {t:g}", rebar_at(t), exact)
    yield Measured("REBAR", "temperature 0.5, v matched to rho", matched, exact)
    yield Measured(
        "RELAX", "multilinear f, temperature 0.5", lambda rho, v, many: relax(f, surrogate, rho, v, logits), exact
    )
    yield Measured("ARM", "", lambda rho, v, many: arm(f, rho, logits), exact)
    yield Measured("DisARM", "", lambda rho, v, many: disarm(f, rho, logits), exact)
    for k in N_SAMPLES:
        yield Measured("VIMCO", f"K = {k}, its own target", vimco_with(k), exact_multi_sample_gradient(f, logits, k))
    yield Measured("straight-through", "", lambda rho, v, many: straight_through(f, rho, logits), exact, False)
    for t in TEMPERATURES:
        yield Measured("Concrete", f"temperature {t:g}", concrete_at(t), exact, False)
    for kind in smoothings:
        sharpness = f"{kind.sharpness} {getattr(kind, kind.sharpness):g}"
        yield Measured("smoothed", f"{type(kind).__name__}, {sharpness}", smoothed_by(kind), exact, False)


class _Nvil:
    """NVIL as in training: moments of earlier batches; the known scale is undone, for the target is the gradient."""

    def __init__(self, f: Integrand, logits: Floats) -> None:
        self.f, self.logits, self.moments = f, logits, RunningMoments()

    def __call__(self, rho: Floats, v: Floats, many: Floats) -> Floats:
        return np.concatenate([self.batch(rho[first : first + BATCH]) for first in range(0, len(rho), BATCH)])

    def batch(self, rho: Floats) -> Floats:
        before = self.moments
        self.moments = before.updated(self.f(draw(rho, self.logits)), 0.9)
        return max(1.0, before.scale) * nvil(self.f, rho, self.logits, before.mean, before.scale)


class _Tally:
    """Sums of the errors of one estimator, from which its row is made."""

    def __init__(self, target: Floats) -> None:
        self.target = target
        self.n, self.largest = 0, 0.0
        self.total, self.squares, self.cubes = np.zeros((3, *target.shape))

    def add(self, estimates: Floats) -> None:
        error = estimates - self.target
        squares = error**2
        self.n += len(error)
        self.total += error.sum(axis=0)
        self.squares += squares.sum(axis=0)
        self.cubes += (squares * error).sum(axis=0)
        self.largest = max(self.largest, float(squares.sum(axis=1).max()))

    def row(self, measured: Measured) -> Row:
        norm = float(np.linalg.norm(self.target))
        bias, square, cube = self.total / self.n, self.squares / self.n, self.cubes / self.n
        variance = np.maximum(square - bias**2, 0) * self.n / (self.n - 1)
        spread = float(np.sqrt(variance.sum()))
        skew = skewness(cube - 3 * bias * square + 2 * bias**3, variance)
        return Row(
            estimator=measured.estimator,
            parameter=measured.parameter,
            bias=float(np.linalg.norm(bias)) / norm,
            standard_error=spread / np.sqrt(self.n) / norm,
            spread=spread / norm,
            heaviest=self.largest / float(self.squares.sum()) if self.largest else 0.0,
            n_draws=self.n,
            unbiased=measured.unbiased,
            target=self.target / norm,
            means=Means((self.target + bias) / norm, np.sqrt(variance / self.n) / norm, skew, self.n),
            mean_square=float(square.sum()) / norm**2,
        )
