"""The increment of an annealing weight from the sums that a sweep needs anyway; see ``reference.partition``.

log f_there(z1) - log f_here(z1) has a difference of two softplus for each unit of the second side. With t = -x / log 2,

    softplus(x) / log 2 = max(-t, 0) + log2(1 + 2**-|t|),

and the factors 1 + 2**-|t|, in (1, 2], are multiplied up: one logarithm for hundreds of units. All in float64, from
sums that are exact.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from accelerated.cpu import tables
from accelerated.cpu.exponential import at_least, at_most, power64
from accelerated.cpu.philox import LANES
from accelerated.cpu.tables import CODES, FIRST_BIT, NARROW, TILE, UNITS, WIDE
from accelerated.cpu.vectors import fma, load, picker, splat, store
from accelerated.jit import inline, jit
from reference.vocabulary import Array

FLUSH = 32  # tiles: 2**512 of factors at most, so that a quotient of products is far from overflow

_SMALLEST = 1000.0  # 2**-1000 added to 1 is 1


class Annealing(NamedTuple):
    """What weights take: the log-weights (rows,) themselves, float64; empty if none are wanted.

    bias_sums (groups CODES,) holds the sums of a1 - base.a1 over the units of a code. slopes and offsets (2, columns)
    are those of here and there. linear and the products (rows (WIDE + NARROW),) belong to lanes: first those of the
    wide tiles of all rows, then those of the narrow one.
    """

    log_weights: Array
    bias_sums: Array
    slopes: Array
    offsets: Array
    linear: Array
    product_here: Array
    product_there: Array


def annealing(side1: tables.Side, side2: tables.Side, base1: Array, n_rows: int, is_wanted: bool) -> Annealing:
    """Room for the weights of so many rows, 0 so far."""
    if is_wanted:
        bits = np.arange(CODES)[:, None] >> np.arange(UNITS) & 1
        sums = ((side1.bias - base1).reshape(-1, UNITS) @ bits.T).ravel()
    else:
        n_rows, sums = 0, np.zeros(0)
    n_columns, n_lanes = len(side2.scale), n_rows * (WIDE + NARROW)
    return Annealing(
        np.zeros(n_rows),
        sums,
        np.zeros(2 * n_columns),
        np.zeros(2 * n_columns),
        np.zeros(n_lanes),
        np.ones(n_lanes),
        np.ones(n_lanes),
    )


def weigh_of(width: int, real: Any) -> Any:
    """Take the units of a tile into the sums and products of a batch of rows; ``real`` makes float64 of the sums."""
    at_once = LANES // width
    columns = picker(i % width for i in range(LANES))

    @inline
    def weigh(side: Any, first_row: Any, n_rows: Any, tile: Any, work: Any, annealing: Any) -> Any:
        n_columns, apart = len(side.scale), n_rows * width
        one, zero = splat(1.0, LANES), splat(0.0, LANES)
        smallest = splat(_SMALLEST, LANES)
        start = width * first_row
        if width == NARROW:
            start += WIDE * len(annealing.log_weights)
        for word in range(UNITS):
            column = TILE * tile + word * width
            slope_here = columns(load(annealing.slopes, column, width))
            slope_there = columns(load(annealing.slopes, n_columns + column, width))
            offset_here = columns(load(annealing.offsets, column, width))
            offset_there = columns(load(annealing.offsets, n_columns + column, width))
            for i in range(0, n_rows, at_once):
                s, at = real(load(work.sums, word * apart + i * width, LANES)), start + i * width
                here, there = fma(s, slope_here, offset_here), fma(s, slope_there, offset_there)
                less = at_most(here, zero) - at_most(there, zero)
                store(annealing.linear, at, load(annealing.linear, at, LANES) + less)
                here = zero - at_most(at_least(here, zero - here), smallest)
                there = zero - at_most(at_least(there, zero - there), smallest)
                product = load(annealing.product_here, at, LANES)
                store(annealing.product_here, at, product * (one + power64(here)))
                product = load(annealing.product_there, at, LANES)
                store(annealing.product_there, at, product * (one + power64(there)))

    return weigh


@jit
def flush(annealing: Any) -> Any:
    """Move what the lanes hold into the log-weights."""
    n_rows = len(annealing.log_weights)
    for row in range(n_rows):
        linear, ratio = 0.0, 1.0
        for lane in range(WIDE + NARROW):
            at = WIDE * row + lane if lane < WIDE else WIDE * n_rows + NARROW * row + lane - WIDE
            linear += annealing.linear[at]
            ratio *= annealing.product_there[at] / annealing.product_here[at]
            annealing.linear[at] = 0.0
            annealing.product_here[at] = annealing.product_there[at] = 1.0
        annealing.log_weights[row] += math.log(2.0) * linear + math.log(ratio)


@jit
def add_bias_terms(annealing: Any, state: Any, difference: Any) -> Any:
    """Add z1'(a1_there - a1_here), of which the codes of z1 know the sum."""
    n_groups = len(annealing.bias_sums) // CODES
    for row in range(state.shape[1]):
        total = 0.0
        for group in range(n_groups):
            code = (state[group // UNITS, row] >> np.uint32(8 * (group % UNITS) + FIRST_BIT)) & np.uint32(CODES - 1)
            total += annealing.bias_sums[CODES * group + np.int64(code)]
        annealing.log_weights[row] += difference * total
