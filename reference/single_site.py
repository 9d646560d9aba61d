"""Gibbs sampling of a general Boltzmann machine: one unit at a time, or one colour at a time.

Any two units may be coupled, so there are no two sides to redraw in turn. Redrawing one unit given all the others
always keeps the distribution. Redrawing several *at once* keeps it only if no two of them are coupled: then none of
them looks at another, and doing them together is doing them one after the other. Colour the units so that coupled ones
differ, and a sweep takes as many steps as there are colours instead of as there are units. An RBM needs two colours,
and its chromatic sweep is the block sweep of ``gibbs.sweep``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from reference.bernoulli import sigmoid
from reference.general_boltzmann import logits
from reference.gibbs import as_chains, as_inv_temp_column
from reference.philox import STREAM_SITE, STREAM_SITE_INIT, as_seed, uniforms
from reference.vocabulary import (
    Array,
    BoltzmannMachine,
    DomainError,
    ShapeError,
    as_rows,
    as_states,
    check_count,
    check_general,
    check_same_rows,
    check_unit_interval,
)


def sweep(
    machine: BoltzmannMachine,
    z: ArrayLike,
    u: ArrayLike,
    order: ArrayLike | None = None,
    inv_temp: ArrayLike = 1.0,
) -> Array:
    """Redraw every unit once, each given the present state of all the others.

    For i in the given order: z_i = [u_i < sigmoid(b (a + J z)_i)], b the inverse temperature. Every step, and so the
    sweep, leaves exp(-b E) / Z_b unchanged. Column i of u belongs to unit i whatever the order.

    Cost: N products z J, though one column of each is used; ``chromatic_sweep`` makes do with one product per colour.

    Source   Geman & Geman (1984); Ackley, Hinton, Sejnowski (1985).
    Shapes   z (B, N), u (B, N), order (N,) (None: 0 .. N - 1), inv_temp scalar or (B,), one for each row -> (B, N)
    Domain   z in {0, 1}; u in [0, 1]; order names every unit once; inv_temp finite and not negative
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    check_general(machine)
    one_by_one = np.arange(machine.n) if order is None else _as_units("order", order)
    _check_each_unit_once("order", one_by_one, machine.n)
    return _redraw(machine, z, u, tuple(one_by_one[:, None]), inv_temp)


def chromatic_sweep(
    machine: BoltzmannMachine,
    z: ArrayLike,
    u: ArrayLike,
    colours: Sequence[ArrayLike],
    inv_temp: ArrayLike = 1.0,
) -> Array:
    """Redraw every unit once, all units of a colour together, colour after colour.

    Bit for bit ``sweep`` with the colours, one after the other, as its order: a unit's logit has J_ij = 0 in front of
    every z_j of its own colour, so it is the same number before and after those are redrawn.

    Source   Gonzalez, Low, Gretton, Guestrin (2011), "Parallel Gibbs sampling: from colored fields to thin junction
             trees".
    Shapes   z (B, N), u (B, N), colours: vectors of units, as from ``colouring``, inv_temp scalar or (B,) -> (B, N)
    Domain   as ``sweep``; colours name every unit once, and no two coupled units together
    Units    none
    Raises   ShapeError, DomainError or TypeError for arguments that do not fit.
    """
    check_general(machine)
    return _redraw(machine, z, u, _as_colours(machine, colours), inv_temp)


def colouring(machine: BoltzmannMachine) -> tuple[Array, ...]:
    """Cut the units into colours: classes of which no two members are coupled, so each is independent given the rest.

    Greedy: colour next the unit that sees most different colours on the units coupled to it (then the one with most
    couplings, then the first), with the first colour it does not see. Finding the fewest colours is NP-hard; this uses
    at most one more than a unit has couplings, and two wherever two suffice (an RBM, a grid, a Chimera graph).

    Source   Brelaz (1979), "New methods to color the vertices of a graph" (DSATUR).
    Shapes   -> n_colours vectors of units, each rising; together 0 .. N - 1
    Domain   every machine; a coupling is an entry of J that is not 0, however small
    Units    none
    Raises   TypeError for an RBM; a general machine was checked when it was made
    """
    check_general(machine)
    coupled = machine.J != 0
    n_coupled = coupled.sum(axis=1)
    colour = np.full(machine.n, -1)
    seen = np.zeros((machine.n, machine.n), dtype=bool)  # seen[i, c]: a unit coupled to i has colour c
    for _ in range(machine.n):
        waiting = np.flatnonzero(colour < 0)
        # lexsort takes the most important key last and is stable, so that ties go to the first unit.
        unit = waiting[np.lexsort((-n_coupled[waiting], -seen[waiting].sum(axis=1)))[0]]
        colour[unit] = np.argmin(seen[unit])
        seen[coupled[unit], colour[unit]] = True
    return tuple(np.flatnonzero(colour == c) for c in range(colour.max() + 1))


@dataclass(frozen=True, eq=False)
class PersistentChains:
    """Gibbs chains of a general machine that go on where they stopped; ``gibbs.PersistentChains`` for any couplings.

    ``step`` counts the sweeps done so far; sweep number s takes its uniforms from Philox at (seed, step = s). Chain c
    is row c.

    Source   Tieleman (2008), persistent contrastive divergence.
    Shapes   z (B, N)
    Domain   z in {0, 1}; seed and step as in ``philox.uniforms``
    Units    none
    Raises   ShapeError or DomainError for states that are not a matrix of zeros and ones.
    """

    z: Array
    seed: int
    step: int = 0

    def __post_init__(self) -> None:
        # The dataclass is frozen; this is its one moment of construction.
        object.__setattr__(self, "z", as_chains("z", self.z))
        as_seed(self.seed)
        check_count("step", self.step, least=0)

    @classmethod
    def init(cls, machine: BoltzmannMachine, n_chains: int, seed: int) -> PersistentChains:
        """Chains that start from fair coins, none of their sweeps done.

        Source   none: the starting point is ours.
        Shapes   -> z (n_chains, N)
        Domain   n_chains >= 1; seed as in ``philox.uniforms``
        Units    none
        Raises   DomainError or TypeError for a count or seed out of range.
        """
        check_general(machine)
        n_chains = check_count("n_chains", n_chains)
        return cls(uniforms(seed, 0, n_chains, machine.n, STREAM_SITE_INIT) < 0.5, seed)

    def run(
        self, machine: BoltzmannMachine, n_sweeps: int, colours: Sequence[ArrayLike] | None = None
    ) -> PersistentChains:
        """The same chains ``n_sweeps`` sweeps later, under a machine that may have been trained in between.

        Without ``colours`` a sweep goes through the units one by one, 0 .. N - 1; with them (``colouring(machine)``) it
        is chromatic. run(a) then run(b) gives bit for bit what run(a + b) gives.

        Source   Tieleman (2008), persistent contrastive divergence.
        Shapes   z keeps its own
        Domain   n_sweeps >= 0; as many units as the machine; colours as in ``chromatic_sweep``
        Units    none
        Raises   ShapeError if the chains do not fit the machine; DomainError for a count that is not whole, or colours
                 that do not fit.
        """
        check_general(machine)
        z = as_states("z", self.z, machine.n)
        last = self.step + check_count("n_sweeps", n_sweeps, least=0)
        for step in range(self.step, last):
            u = uniforms(self.seed, step, len(z), machine.n, STREAM_SITE)
            z = sweep(machine, z, u) if colours is None else chromatic_sweep(machine, z, u, colours)
        return replace(self, z=z, step=last)


def _redraw(
    machine: BoltzmannMachine, z: ArrayLike, u: ArrayLike, classes: Sequence[Array], inv_temp: ArrayLike
) -> Array:
    """Redraw the units class after class, those of one class at once. Singletons: ``sweep``; colours: chromatic.

    Every step computes the full a + z J. Its columns for the class alone would be cheaper, but a matrix product may
    round differently when its width changes, and bits would depend on how the units were cut into classes.
    """
    z, u = as_states("z", z, machine.n).copy(), as_rows("u", u, machine.n)
    n_rows = check_same_rows(z=z, u=u)
    check_unit_interval("u", u)
    scale = as_inv_temp_column(inv_temp, n_rows)
    for units in classes:
        z[:, units] = u[:, units] < sigmoid(scale * logits(machine, z)[:, units])
    return z


def _as_colours(machine: BoltzmannMachine, colours: Sequence[ArrayLike]) -> tuple[Array, ...]:
    """Return the colours as integer vectors; raise unless they are a partition without couplings inside a class."""
    classes = tuple(_as_units(f"colours[{c}]", units) for c, units in enumerate(colours))
    _check_each_unit_once("colours", np.concatenate([np.empty(0, dtype=int), *classes]), machine.n)
    for c, units in enumerate(classes):
        inside = machine.J[np.ix_(units, units)]
        if inside.any():
            i, j = units[np.argwhere(inside)[0]]
            raise DomainError(
                f"colours must keep coupled units apart; colours[{c}] holds units {i} and {j}, coupled by "
                f"{machine.J[i, j]}. reference.single_site.colouring makes colours that fit"
            )
    return classes


def _as_units(name: str, value: ArrayLike) -> Array:
    units = np.asarray(value)
    if units.ndim != 1:
        raise ShapeError(f"{name} must be a vector of units; got {units.shape}")
    if units.dtype.kind not in "iu" and units.size:  # an empty list arrives as float64
        raise TypeError(f"{name} must be integers, numbers of units; got dtype {units.dtype}")
    return units.astype(int)


def _check_each_unit_once(name: str, units: Array, n_units: int) -> None:
    """Raise DomainError unless ``units`` is 0 .. n_units - 1 in some order."""
    outside = units[(units < 0) | (units >= n_units)]
    if outside.size:
        raise DomainError(f"{name} must hold units in 0 .. {n_units - 1}; got {outside[0]}")
    times = np.bincount(units, minlength=n_units)
    if (times != 1).any():
        unit = int(np.argmax(times != 1))
        raise DomainError(f"{name} must hold every unit once; unit {unit} is there {times[unit]} times")
