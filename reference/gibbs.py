"""Block Gibbs sampling of a restricted Boltzmann machine: one sweep, and chains that persist.

Given one side, the units of the other are independent, so a whole side is redrawn at once. The uniforms are arguments
of ``sweep``; ``PersistentChains`` takes them from Philox by (seed, step), so that its future depends on what it holds
and on nothing else: stop it, store it, split it, and the bits are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from reference.bernoulli import sigmoid
from reference.boltzmann import logits_z1, logits_z2
from reference.philox import STREAM_INIT, STREAM_Z1, STREAM_Z2, as_seed, uniforms
from reference.vocabulary import (
    RBM,
    Array,
    ShapeError,
    as_float,
    as_matrix,
    as_rows,
    as_states,
    check,
    check_count,
    check_same_rows,
    check_unit_interval,
)


def sweep(rbm: RBM, z1: ArrayLike, u2: ArrayLike, u1: ArrayLike, inv_temp: ArrayLike = 1.0) -> tuple[Array, Array]:
    """Redraw the second side given the first, then the first given the new second.

    z2 = [u2 < sigmoid(b (a2 + z1 W))], then z1 = [u1 < sigmoid(b (a1 + W z2))]: a step that leaves the distribution
    exp(-b E) / Z_b unchanged, b the inverse temperature. The old z2 plays no part.

    Source   Smolensky (1986); Hinton (2002), "Training products of experts by minimizing contrastive divergence".
    Shapes   z1 (B, N1), u2 (B, N2), u1 (B, N1), inv_temp scalar or (B,), one for each row -> z1 (B, N1), z2 (B, N2)
    Domain   z1 in {0, 1}; u1, u2 in [0, 1]; inv_temp finite and not negative (0: independent fair coins)
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    z1 = as_states("z1", z1, rbm.n1)
    u2, u1 = as_rows("u2", u2, rbm.n2), as_rows("u1", u1, rbm.n1)
    n_rows = check_same_rows(z1=z1, u2=u2, u1=u1)
    check_unit_interval("u2", u2)
    check_unit_interval("u1", u1)
    scale = as_inv_temp_column(inv_temp, n_rows)

    z2 = (u2 < sigmoid(scale * logits_z2(rbm, z1))).astype(np.float64)
    z1 = (u1 < sigmoid(scale * logits_z1(rbm, z2))).astype(np.float64)
    return z1, z2


def as_inv_temp_column(inv_temp: ArrayLike, n_rows: int) -> Array:
    """Turn an inverse temperature, one for all rows or one for each, into a column that scales logits of shape (B, N).

    Source   none: a check of arguments.
    Shapes   inv_temp scalar or (n_rows,) -> (1,) or (n_rows, 1)
    Domain   finite and not negative
    Units    none
    Raises   ShapeError, DomainError or TypeError for an inverse temperature that does not fit.
    """
    inv_temp = as_float("inv_temp", inv_temp)
    if inv_temp.shape not in ((), (n_rows,)):
        raise ShapeError(f"inv_temp must be a scalar or ({n_rows},), one for each row; got {inv_temp.shape}")
    check("inv_temp", inv_temp, (inv_temp >= 0) & (inv_temp < np.inf), "be finite and not negative")
    return inv_temp[..., None]


def as_chains(name: str, value: ArrayLike) -> Array:
    """Turn the binary states of chains, however many units they have, into a float64 matrix of zeros and ones.

    Source   none: a check of arguments.
    Shapes   value (B, N) -> (B, N)
    Domain   entries in {0, 1}
    Units    none
    Raises   ShapeError, DomainError or TypeError for states that do not fit.
    """
    states = as_matrix(name, value, row="chain")
    return as_states(name, states, states.shape[1])


@dataclass(frozen=True, eq=False)
class PersistentChains:
    """Gibbs chains that go on where they stopped: their states, and the address of their next random numbers.

    ``step`` counts the sweeps done so far; sweep number s takes its uniforms from Philox at (seed, step = s). Chain c
    is row c. z2 is what the last sweep drew, kept because samples are pairs; the next sweep starts from z1 alone.

    Source   Tieleman (2008), persistent contrastive divergence.
    Shapes   z1 (B, N1), z2 (B, N2)
    Domain   z1, z2 in {0, 1}; seed and step as in ``philox.uniforms``
    Units    none
    Raises   ShapeError or DomainError for states that are not matrices of zeros and ones with equal numbers of rows.
    """

    z1: Array
    z2: Array
    seed: int
    step: int = 0

    def __post_init__(self) -> None:
        for name in ("z1", "z2"):
            # The dataclass is frozen; this is its one moment of construction.
            object.__setattr__(self, name, as_chains(name, getattr(self, name)))
        check_same_rows(z1=self.z1, z2=self.z2)
        as_seed(self.seed)
        check_count("step", self.step, least=0)

    @classmethod
    def init(cls, rbm: RBM, n_chains: int, seed: int) -> PersistentChains:
        """Chains that start from fair coins, none of their sweeps done.

        Source   none: the starting point is ours.
        Shapes   -> z1 (n_chains, N1), z2 (n_chains, N2)
        Domain   n_chains >= 1; seed as in ``philox.uniforms``
        Units    none
        Raises   DomainError or TypeError for a count or seed out of range.
        """
        n_chains = check_count("n_chains", n_chains)
        coins = uniforms(seed, 0, n_chains, rbm.n1 + rbm.n2, STREAM_INIT) < 0.5
        return cls(coins[:, : rbm.n1], coins[:, rbm.n1 :], seed)

    def run(self, rbm: RBM, n_sweeps: int) -> PersistentChains:
        """The same chains ``n_sweeps`` sweeps later, under a machine that may have been trained in between.

        run(a) then run(b) gives bit for bit what run(a + b) gives.

        Source   Tieleman (2008), persistent contrastive divergence.
        Shapes   z1, z2 keep theirs
        Domain   n_sweeps >= 0; sizes as the machine's
        Units    none
        Raises   ShapeError if the chains do not fit the machine; DomainError for a count that is not whole.
        """
        z1, z2 = as_states("z1", self.z1, rbm.n1), as_states("z2", self.z2, rbm.n2)
        last = self.step + check_count("n_sweeps", n_sweeps, least=0)
        for step in range(self.step, last):
            u2 = uniforms(self.seed, step, len(z1), rbm.n2, STREAM_Z2)
            u1 = uniforms(self.seed, step, len(z1), rbm.n1, STREAM_Z1)
            z1, z2 = sweep(rbm, z1, u2, u1)
        return replace(self, z1=z1, z2=z2, step=last)
