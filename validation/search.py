"""Search for the inputs on which an implementation is worst: local maximisation from the worst points known so far.

Errors of floating-point code are no smooth function. They jump from one number to the next, and are large in narrow
places: at a switch between branches, where two inputs balance, next to the end of an interval. ``climb`` therefore
looks around the worst points at all scales at once, from one rounding to a third of the value, and keeps whatever is
worse. It goes by counts, never by clocks: what it finds depends on the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from scipy.special import expit

from reference.vocabulary import Array
from validation.cases import BETA_RANGE, Cases, edge_cases

#: The error of each output at each case, (N,); infinite where there is none.
Errors: TypeAlias = Mapping[str, Array]

_LARGEST_STEP = 0.3
_SHARPNESSES = 4  # of the proposals around one point: a backend takes one a call


@dataclass(frozen=True)
class Effort:
    """How far to look: ``rounds`` times, ``moves`` around each of the ``parents`` worst cases of each output."""

    parents: int
    moves: int
    rounds: int


def climb(
    measure: Callable[[Cases], Errors],
    start: Cases,
    errors: Errors,
    effort: Effort,
    rng: np.random.Generator,
    unit_interval: bool = True,
    enough: float = np.inf,
) -> tuple[Cases, Errors]:
    """Look around the worst cases of each output, then around the worst of these, and so on.

    ``unit_interval``: whether the cases' rho lies in [0, 1], as noise does; a zeta may be any real number.
    ``enough``: an output is done with when its error is as large as this.

    Shapes   errors: (N,) for the N cases of ``start``
    Returns  all cases that were looked at, those of ``start`` first, and their errors.
    """
    cases, known = start, {name: np.asarray(values) for name, values in errors.items()}
    for _ in range(effort.rounds):
        open_ = [values for values in known.values() if values.max() < enough]
        parents = sorted({i for values in open_ for i in worst_apart(cases, values, effort.parents)})
        if not parents:
            break
        proposals = [_around(cases[i : i + 1], effort.moves, rng, unit_interval) for i in parents]
        new = proposals[0]
        for more in proposals[1:]:
            new += more
        found = measure(new)
        cases += new
        known = {name: np.concatenate([values, found[name]]) for name, values in known.items()}
    return cases, known


def worst_apart(cases: Cases, errors: Array, n: int) -> list[int]:
    """Indices of the ``n`` worst cases that are not each other's neighbours; what has no error is left out.

    Neighbours agree in every input to about a fifth of its size (rho near 1: of its distance from there).
    """
    chosen: dict[tuple[float, ...], int] = {}
    for i in np.argsort(-errors, kind="stable"):
        if len(chosen) == n or not errors[i] > 0:
            break
        chosen.setdefault(_neighbourhood(*(float(x[i]) for x in (cases.rho, cases.logit_q, cases.beta))), int(i))
    return list(chosen.values())


def _neighbourhood(rho: float, logit_q: float, beta: float) -> tuple[float, ...]:
    with np.errstate(divide="ignore"):
        sizes = (abs(rho), abs(1 - rho), abs(logit_q), beta)
        return (*(float(np.round(5 * np.log(size))) for size in sizes), float(np.sign(logit_q)))


def _around(parent: Cases, n: int, rng: np.random.Generator, unit_interval: bool) -> Cases:
    """``n`` cases about one: some of its inputs moved, mirrored, or put where formulas change."""
    dtype = parent.rho.dtype
    eps = float(np.finfo(dtype).eps)

    def steps(size: int) -> Array:
        """Relative steps of either sign, at every scale."""
        return rng.choice([-1.0, 1.0], size) * np.exp(rng.uniform(np.log(eps), np.log(_LARGEST_STEP), size))

    x, logit_q, beta = (np.repeat(values.astype(np.float64), n) for values in (parent.rho, parent.logit_q, parent.beta))
    # Which inputs move: each alone about as often as two of them, or all.
    moves = rng.uniform(size=(3, n)) < 0.5
    moves[rng.integers(3, size=n), np.arange(n)] = True
    near_one = moves[0] & (rng.uniform(size=n) < 0.5)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite inputs stay what they are
        moved = np.where(near_one, 1 - (1 - x) * (1 + steps(n)), x * (1 + steps(n)))
        x = np.where(moves[0] & np.isfinite(x), moved, x)
        logit_q = np.where(moves[1], logit_q * (1 + steps(n)), logit_q)
    sharpnesses = beta[0] * (1 + steps(_SHARPNESSES))
    edges = _edges(dtype.name)
    sharpnesses[-1] = _beside(rng.choice(edges["beta"]), rng, eps)
    beta = np.where(moves[2], rng.choice(sharpnesses, n), beta)

    # A few go where formulas change: an edge (or a few roundings off it), two inputs that balance, the mirror image.
    place = rng.integers(24, size=n)
    for i in np.flatnonzero(place < 2):
        values, name = (logit_q, "logit_q") if place[i] == 0 else (x, "rho")
        values[i] = _beside(rng.choice(edges[name]), rng, eps)
    close = 1 + steps(n) * rng.integers(2, size=n)
    logit_q = np.where(place == 2, np.copysign(beta, logit_q) * close, logit_q)
    x = np.where(place == 3, expit(-logit_q) * close, x)
    x, logit_q = np.where(place == 4, 1 - x, x), np.where(place == 4, -logit_q, logit_q)

    if unit_interval:
        x = np.clip(x, 0, 1)
    with np.errstate(over="ignore"):
        low, high = (np.array(end, dtype=dtype) for end in BETA_RANGE)
        return Cases(x.astype(dtype), logit_q.astype(dtype), np.clip(beta.astype(dtype), low, high))


@lru_cache
def _edges(dtype: str) -> Mapping[str, Array]:
    """The values that the edge grid is made of."""
    edges = edge_cases(np.dtype(dtype))
    return {name: np.unique(getattr(edges, name)).astype(np.float64) for name in ("rho", "logit_q", "beta")}


def _beside(value: float, rng: np.random.Generator, eps: float) -> float:
    """The value, or one a few roundings off."""
    return float(value * (1 + eps * rng.integers(-4, 5))) if np.isfinite(value) else float(value)
