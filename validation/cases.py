"""Input grids for the smoothing transforms, shared by every check: seeded random cases and the edges of the domain.

The stated domain is rho in [0, 1], any logit, beta in [1e-2, 1e3]. Random cases crowd where formulas break: near both
ends of rho, on the plateau rho = 1 - q between the two modes, at logits that underflow, are tiny, or balance beta.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.special import expit, logit

BETA_RANGE = (1e-2, 1e3)


@dataclass(frozen=True)
class Cases:
    """Inputs of the inverse CDF, (N,) each, all of the one dtype that is judged."""

    rho: NDArray[np.floating]
    logit_q: NDArray[np.floating]
    beta: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.rho)

    def __add__(self, other: Cases) -> Cases:
        """All cases of both."""
        pairs = ((self.rho, other.rho), (self.logit_q, other.logit_q), (self.beta, other.beta))
        return Cases(*(np.concatenate(pair) for pair in pairs))

    def __getitem__(self, some: slice | NDArray[np.bool_]) -> Cases:
        """The cases of a slice or a mask."""
        return Cases(self.rho[some], self.logit_q[some], self.beta[some])


def random_cases(n: int, dtype: DTypeLike, seed: int) -> Cases:
    """``n`` random cases: every kind of logit meets every kind of rho, at sharpnesses spread over five decades."""
    rng = np.random.default_rng(seed)
    beta = np.exp(rng.uniform(np.log(BETA_RANGE[0]), np.log(BETA_RANGE[1]), n))
    sign = rng.choice([-1.0, 1.0], n)
    logit_q = _one_of(
        rng,
        3 * rng.standard_normal(n),
        sign * 10 ** rng.uniform(-12, -4, n),
        rng.uniform(-150, 150, n),
        rng.uniform(-700, 700, n),
        sign * beta * rng.uniform(0.5, 1.5, n),
    )
    smallest_normal = float(np.finfo(dtype).tiny)
    near_zero = np.exp(rng.uniform(np.log(smallest_normal), 0, n))
    plateau = expit(-logit_q) * (1 + rng.choice([0, 1e-7, 1e-3], n) * rng.standard_normal(n))
    rho = _one_of(rng, rng.uniform(0, 1, n), near_zero, 1 - near_zero, np.clip(plateau, 0, 1))
    # The binary Concrete adds l and logit(rho): let them cancel, wholly or nearly.
    cancelling = -logit(np.clip(rho, smallest_normal, 1 - 1e-16)) * (1 + rng.choice([0, 1e-9, 1e-3], n))
    logit_q = np.where(rng.uniform(size=n) < 0.1, cancelling, logit_q)
    return Cases(*(x.astype(dtype) for x in (rho, logit_q, beta)))


def edge_cases(dtype: DTypeLike) -> Cases:
    """The full grid of the ends, the switches between branches and the limits of the number format."""
    info = np.finfo(dtype)
    tiny, eps = float(info.tiny), float(info.eps)
    rho = [0.0, tiny, 2.0**-25, 0.5, 1 - eps / 2, 1.0]
    size = [tiny, 1e-8, 0.9, 1.1, 17.0, 90.0, 746.0, np.inf]
    logit_q = [0.0, *size, *(-s for s in size)]
    # The exponential's derivatives change formulas about 3, 4.25, 6, 600 (and at |l| = 1, 1.1), power and Concrete at 1
    # and about 1/2.
    beta = [1e-2, 0.4, 0.5, 1.0, 2.9, 3.1, 4.2, 10.0, 90.0, 690.0, 1e3]
    return Cases(*np.array(list(product(rho, logit_q, beta)), dtype=dtype).T)


def all_cases(n: int, dtype: DTypeLike, seed: int) -> Cases:
    """The edges followed by ``n`` random cases."""
    return edge_cases(dtype) + random_cases(n, dtype, seed)


def zeta_cases(cases: Cases, dtype: DTypeLike, seed: int, unit_interval: bool) -> Cases:
    """Inputs of the operations that take a zeta, in the field ``rho``; logits and sharpnesses are those of ``cases``.

    On [0, 1] the cases' rho serves as zeta. On the real line a zeta is that too, or lies about the modes at the scale
    of the sharper of them, or far outside, or at an infinity.
    """
    if unit_interval:
        return cases
    rng = np.random.default_rng(seed)
    n = len(cases)
    width = 1 / np.sqrt(cases.beta.astype(np.float64))
    zeta = _one_of(
        rng,
        cases.rho.astype(np.float64),
        rng.choice([0.0, 1.0], n) + width * 3 * rng.standard_normal(n),
        rng.choice([0.0, 0.5, 1.0], n) + width**2 * 10 * rng.standard_normal(n),
        rng.choice([-1.0, 1.0], n) * 10 ** rng.uniform(-12, 6, n),
        rng.choice([-np.inf, np.inf, 0.0, 1.0, 0.5], n),
    )
    return Cases(zeta.astype(dtype), cases.logit_q, cases.beta)


def few_sharpnesses(cases: Cases, n: int = 30) -> Cases:
    """The cases with at most ``n`` different sharpnesses, over the same range: a backend takes one a call."""
    values = np.unique(cases.beta)
    some = values[np.unique(np.linspace(0, len(values) - 1, n).astype(int))]
    return replace(cases, beta=some[np.searchsorted(some, cases.beta)])


def _one_of(rng: np.random.Generator, *kinds: NDArray[np.floating]) -> NDArray[np.floating]:
    """Each entry from one of the kinds, chosen at random."""
    return np.choose(rng.integers(len(kinds), size=len(kinds[0])), kinds)
