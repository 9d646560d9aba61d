"""Couplings as sums that are looked up: z is binary, so four units make one of 16 known contributions.

z W = sum over groups of four units of T[group][code], with T the partial sums of four rows of W and the code their
bits: a quarter of the additions, and none of the multiplications.

The couplings of a unit are rounded once, to a grid of its own: whole multiples of the power of two for which the sum of
all |W| into the unit is at most 2**30 (float32; 2**50 for float64). All sums are then sums of whole numbers, hence
exact: neither grouping, nor order, nor the cut into threads can change a bit. A coupling is off by at most half a
multiple, 2**-30 (2**-50) of that sum, so that x is as accurate as a sum in floating point, or more.

Layout. The units of a side come in blocks of four (a Philox call), the blocks in tiles of four (a row of 16 columns: a
cache line of 32-bit numbers); what is left over, one or two blocks, makes a narrow tile of two. Within a tile the first
units of all blocks come first, then all second units, and so on: what one vector needs is contiguous. Four
neighbouring columns are a group.

    column  of tile t, unit w of block b    16 t + width w + b, with width 4, or 2 in the narrow tile
    state   uint32 (tiles, rows)            byte g: 8 times the code of group g of the tile, for an address is then
                                            had by one instruction
    table   per tile: (groups of the other side, 16, columns of the tile)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from accelerated.jit import jit
from reference.vocabulary import Array

UNITS = 4  # of a block, and of a group
WIDE, NARROW = 4, 2  # blocks of a tile
TILE = UNITS * WIDE
CODES = 16
FIRST_BIT = 3  # of a code in its byte

_TABLE_BYTES = 2**26  # larger tables are not kept: their parts are made when needed


class Side(NamedTuple):
    """What it takes to draw the units of one side given the other.

    couplings (columns of the other side, columns) are whole multiples of scale (columns,); bias (columns,). Both are
    float64, and 0 for the columns that pad. column (n_units,) is the column of each unit. table is empty if its parts
    are made when needed.
    """

    n_wide: int
    n_narrow: int
    column: Array
    couplings: Array
    table: Array
    scale: Array
    bias: Array


def columns(n_units: int) -> tuple[Array, int, int]:
    """Column of each unit of a side, and its numbers of wide and narrow tiles."""
    n_wide, rest = divmod(-(-n_units // UNITS), WIDE)
    if rest > NARROW:
        n_wide, rest = n_wide + 1, 0
    unit = np.arange(n_units)
    block, word = unit // UNITS, unit % UNITS
    tile = np.minimum(block // WIDE, n_wide)
    width = np.where(tile < n_wide, WIDE, NARROW)
    return TILE * tile + width * word + block - WIDE * tile, n_wide, int(rest > 0)


def n_columns(n_wide: int, n_narrow: int) -> int:
    """Number of columns, with those that pad."""
    return TILE * n_wide + UNITS * NARROW * n_narrow


def side(weights: Array, bias: Array) -> Side:
    """Couplings (N_other, N) into the units of a side, and its biases (N,), in the layout of the kernels."""
    whole, n_bits = (np.int32, 30) if weights.dtype == np.float32 else (np.int64, 50)
    row, *other = columns(weights.shape[0])
    column, n_wide, n_narrow = columns(weights.shape[1])
    n = n_columns(n_wide, n_narrow)

    # In float64, where the sum of float32 numbers cannot overflow. Couplings below 2**-90 in all have no influence;
    # without that bound the scale might be no normal number of float32.
    largest = np.maximum(np.abs(weights).sum(axis=0, dtype=np.float64), 2.0**-90)
    unit = np.ldexp(1.0, np.frexp(largest)[1] - n_bits)
    couplings = np.zeros((n_columns(*other), n), whole)
    _scatter(np.rint(weights / unit), row, column, couplings)
    padded = np.zeros((2, n))
    padded[:, column] = unit, bias

    n_entries = CODES // UNITS * couplings.size
    table = aligned(n_entries if n_entries * couplings.itemsize <= _TABLE_BYTES else 0, whole)
    if table.size:
        tabulate(couplings, n_wide, n_narrow, table)
    return Side(n_wide, n_narrow, column, couplings, table, padded[0], padded[1])


@jit
def _scatter(whole: Any, row: Any, column: Any, couplings: Any) -> Any:
    """Put whole numbers where their units are: NumPy's own indexing takes ten times as long."""
    for i in range(whole.shape[0]):
        for j in range(whole.shape[1]):
            couplings[row[i], column[j]] = whole[i, j]


def sides(a1: Array, a2: Array, W: Array) -> tuple[Side, Side]:
    """Both sides of a machine."""
    return side(W.T, a1), side(W, a2)


def aligned(n: int, dtype: type) -> Array:
    """An array without contents that starts at a cache line, so that no row of a table straddles two."""
    item = np.dtype(dtype).itemsize
    room: Array = np.empty(n + 64 // item, dtype)
    start = -room.ctypes.data % 64 // item
    return room[start : start + n]


@jit
def tabulate(couplings: Any, n_wide: Any, n_narrow: Any, table: Any) -> Any:
    """Fill the table of a whole side."""
    n_groups = couplings.shape[0] // UNITS
    at = 0
    for tile in range(n_wide + n_narrow):
        width = UNITS * (WIDE if tile < n_wide else NARROW)
        partial_sums(couplings, 0, n_groups, TILE * tile, width, table, at)
        at += n_groups * CODES * width


@jit
def partial_sums(
    couplings: Any, first_group: Any, n_groups: Any, first_column: Any, width: Any, table: Any, at: Any
) -> Any:
    """Write the sums of all subsets of four rows, for some groups and the columns of one tile, from ``at`` on."""
    for group in range(first_group, first_group + n_groups):
        for j in range(width):
            table[at + j] = 0
        for bit in range(UNITS):
            row = UNITS * group + bit
            # With the rows before this one all sums are there already; each has a twin with this row in it.
            for code in range(1 << bit):
                old, new = at + code * width, at + (code + (1 << bit)) * width
                for j in range(width):
                    table[new + j] = table[old + j] + couplings[row, first_column + j]
        at += CODES * width


@jit
def encode(z: Any, column: Any, state: Any) -> Any:
    """Write rows of zeros and ones as states; False if there is another number among them."""
    n_units, place, good = z.shape[1], _places(column), True
    for row in range(z.shape[0]):
        for tile in range(state.shape[0]):
            word = np.uint32(0)
            for unit in range(TILE * tile, min(TILE * (tile + 1), n_units)):
                value = z[row, unit]
                good &= (value == 0) | (value == 1)
                word |= np.uint32(value != 0) << place[unit]
            state[tile, row] = word
    return good


@jit
def decode(state: Any, column: Any, z: Any) -> Any:
    """Write states as rows of zeros and ones."""
    n_units, place = z.shape[1], _places(column)
    for row in range(z.shape[0]):
        for tile in range(state.shape[0]):
            word = state[tile, row]
            for unit in range(TILE * tile, min(TILE * (tile + 1), n_units)):
                z[row, unit] = (word >> place[unit]) & np.uint32(1)


@jit
def _places(column: Any) -> Any:
    """Place of each unit among the bits of its tile."""
    return (8 * (column % TILE // UNITS) + FIRST_BIT + column % UNITS).astype(np.uint32)
