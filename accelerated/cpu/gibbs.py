"""Drawing a tile of one side given the other side, in two halves, for a batch of rows; see ``reference.gibbs.sweep``.

Table entries are added up (``sum_up_of``), then sums and Philox words become bits, eight lanes at a time (``draw_of``).
The part of the table that belongs to a tile stays in the first cache while all rows pass by; uniforms exist only in
registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from accelerated.cpu import tables
from accelerated.cpu.philox import LANES, ORDER, four_words
from accelerated.cpu.tables import CODES, FIRST_BIT, NARROW, TILE, UNITS, WIDE, partial_sums
from accelerated.cpu.vectors import (
    address,
    bits,
    fma,
    item,
    load,
    load_from,
    load_like,
    picker,
    store,
    zeros,
)
from accelerated.jit import inline
from reference.vocabulary import Array

ROWS = LANES // NARROW  # rows are drawn so many at a time, so there are a multiple of this many

_GROUPS = 28  # groups whose tables are summed up in one go; of a larger machine more often
_BATCH = 128  # rows of a batch whose sums wait for their uniforms
_LARGE_BATCH = 512  # where a batch needs several parts of a table: each is to be fetched for many rows


class Workspace(NamedTuple):
    """Scratch of one thread.

    sums (UNITS, rows of a batch, width); a part of a table; Philox words of blocks and of chains; slopes and offsets
    (columns,) of -x / log 2 as functions of a sum, in the machine's dtype.
    """

    sums: Array
    part: Array
    block_words: Array
    chain_words: Array
    slopes: Array
    offsets: Array


def workspace(sides: tuple[tables.Side, ...], n_rows: int, dtype: Any) -> Workspace:
    """Scratch for drawing either side of so many rows."""
    whole = sides[0].couplings.dtype.type
    n_columns = max(len(side.scale) for side in sides)
    return Workspace(
        tables.aligned(TILE * _LARGE_BATCH, whole),
        tables.aligned(_GROUPS * CODES * TILE, whole),
        tables.aligned(n_columns, np.uint64),
        tables.aligned(n_rows, np.uint64),
        tables.aligned(n_columns, dtype),
        tables.aligned(n_columns, dtype),
    )


@inline
def batch_of(side: Any) -> Any:
    """Number of rows whose sums are made in one go."""
    return _BATCH if side.couplings.shape[0] <= UNITS * _GROUPS else _LARGE_BATCH


@inline
def _add_up(sums: Any, at: Any, vector: Any, is_first: Any) -> Any:
    if is_first:
        store(sums, at, vector)
    else:
        store(sums, at, load_like(sums, at, vector) + vector)


def _accumulate_of(width: int, itemsize: int) -> Any:
    """Add up, for a batch of rows, the table's entries of some groups into ``sums``, (UNITS, rows, width)."""
    n_columns = UNITS * width
    # Constants, not read off the table in the kernel: multiplication by 8 is part of an address, by a variable not.
    entry, next_group = n_columns * itemsize >> FIRST_BIT, CODES * n_columns * itemsize
    part0, part1, part2, part3 = (picker(range(w * width, (w + 1) * width)) for w in range(UNITS))

    @inline
    def keep(sums: Any, at: Any, apart: Any, total: Any, is_first: Any) -> Any:
        _add_up(sums, at, part0(total), is_first)
        _add_up(sums, at + apart, part1(total), is_first)
        _add_up(sums, at + 2 * apart, part2(total), is_first)
        _add_up(sums, at + 3 * apart, part3(total), is_first)

    @inline
    def accumulate(
        table: Any,
        at: Any,
        first_word: Any,
        n_words: Any,
        n_narrow: Any,
        state: Any,
        first_row: Any,
        n_rows: Any,
        is_first: Any,
        sums: Any,
    ) -> Any:
        codes, n_all, apart = state.reshape(-1).view(np.uint8), state.shape[1], n_rows * width
        start = address(table, at)
        for row in range(n_rows):
            total = zeros(table, n_columns)
            here, byte = start, UNITS * (first_word * n_all + first_row + row)
            for _ in range(n_words):
                total = total + load_from(table, here + entry * np.int64(item(codes, byte)), n_columns)
                here += next_group
                total = total + load_from(table, here + entry * np.int64(item(codes, byte + 1)), n_columns)
                here += next_group
                total = total + load_from(table, here + entry * np.int64(item(codes, byte + 2)), n_columns)
                here += next_group
                total = total + load_from(table, here + entry * np.int64(item(codes, byte + 3)), n_columns)
                here += next_group
                byte += UNITS * n_all
            if n_narrow:
                total = total + load_from(table, here + entry * np.int64(item(codes, byte)), n_columns)
                here += next_group
                total = total + load_from(table, here + entry * np.int64(item(codes, byte + 1)), n_columns)
            keep(sums, row * width, apart, total, is_first)

    return accumulate


def sum_up_of(itemsize: int) -> Any:
    """``sum_up`` for whole numbers of so many bytes."""
    accumulate_wide, accumulate_narrow = _accumulate_of(WIDE, itemsize), _accumulate_of(NARROW, itemsize)

    @inline
    def sum_up(side: Any, tile: Any, first_row: Any, n_rows: Any, given: Any, work: Any) -> Any:
        """Fill ``work.sums`` for a batch of rows and one tile; ``given`` is the state of the other side."""
        n_all = side.couplings.shape[0] // UNITS
        is_wide = tile < side.n_wide
        width = UNITS * (WIDE if is_wide else NARROW)
        for first in range(0, n_all, _GROUPS):
            n_groups = min(_GROUPS, n_all - first)
            if len(side.table) > 0:
                table, at = side.table, (TILE * tile * n_all + first * width) * CODES
            else:
                table, at = work.part, 0
                partial_sums(side.couplings, first, n_groups, TILE * tile, width, table, at)
            word, n_words, n_narrow = first // UNITS, n_groups // UNITS, n_groups % UNITS // NARROW
            if is_wide:
                accumulate_wide(table, at, word, n_words, n_narrow, given, first_row, n_rows, first == 0, work.sums)
            else:
                accumulate_narrow(table, at, word, n_words, n_narrow, given, first_row, n_rows, first == 0, work.sums)

    return sum_up


# The eight lanes of a tile: two rows of four blocks, or four rows of two. In order: row by row, of each all blocks.
_blocks_wide, _rows_wide = picker(lane % WIDE for lane in ORDER), picker(lane // WIDE for lane in ORDER)
_blocks_narrow, _rows_narrow = picker(lane % NARROW for lane in ORDER), picker(lane // NARROW for lane in ORDER)
_columns_wide, _columns_narrow = picker(i % WIDE for i in range(LANES)), picker(i % NARROW for i in range(LANES))
_temps_wide, _temps_narrow = picker(i // WIDE for i in range(LANES)), picker(i // NARROW for i in range(LANES))


@inline
def _write_wide(state: Any, tile: Any, row: Any, on0: Any, on1: Any, on2: Any, on3: Any) -> Any:
    """Keep the bits of two rows, given the units of their blocks: group w of a row is unit w of its four blocks."""
    groups = bits(on0) | bits(on1) << np.uint32(8) | bits(on2) << np.uint32(16) | bits(on3) << np.uint32(24)
    state[tile, row] = (groups & np.uint32(0x0F0F0F0F)) << np.uint32(3)
    state[tile, row + 1] = (groups & np.uint32(0xF0F0F0F0)) >> np.uint32(1)


@inline
def _write_narrow(state: Any, tile: Any, row: Any, on0: Any, on1: Any, on2: Any, on3: Any) -> Any:
    """Keep the bits of four rows: the groups are units 0 and 1 of both blocks, then units 2 and 3."""
    groups = bits(on0) | bits(on1) << np.uint32(8) | bits(on2) << np.uint32(16) | bits(on3) << np.uint32(24)
    for i in range(ROWS):
        pairs = (groups >> np.uint32(2 * i)) & np.uint32(0x03030303)
        state[tile, row + i] = (
            (pairs & np.uint32(3))
            | (pairs >> np.uint32(6)) & np.uint32(0xC)
            | (pairs >> np.uint32(8)) & np.uint32(0x300)
            | (pairs >> np.uint32(14)) & np.uint32(0xC00)
        ) << np.uint32(3)


def draw_of(width: int, fires: Any, real: Any) -> Any:
    """Turn the sums of a batch into the states of one tile."""
    at_once = LANES // width
    blocks, rows, columns, temps, write = (
        (_blocks_wide, _rows_wide, _columns_wide, _temps_wide, _write_wide)
        if width == WIDE
        else (_blocks_narrow, _rows_narrow, _columns_narrow, _temps_narrow, _write_narrow)
    )

    @inline
    def on(sums: Any, at: Any, words: Any, slope: Any, offset: Any, inv_temp: Any) -> Any:
        return fires(fma(real(load(sums, at, LANES)), slope, offset) * inv_temp, words)

    @inline
    def draw(first_row: Any, n_rows: Any, tile: Any, work: Any, seed: Any, inv_temps: Any, state: Any) -> Any:
        slopes, offsets, column = work.slopes, work.offsets, TILE * tile
        block, n_blocks, apart = column // UNITS, len(work.block_words) // UNITS, n_rows * width
        a = blocks(load(work.block_words, block, width))
        b = blocks(load(work.block_words, n_blocks + block, width))
        c = blocks(load(work.block_words, 2 * n_blocks + block, width))
        d = blocks(load(work.block_words, 3 * n_blocks + block, width))
        slope0, offset0 = columns(load(slopes, column, width)), columns(load(offsets, column, width))
        column += width
        slope1, offset1 = columns(load(slopes, column, width)), columns(load(offsets, column, width))
        column += width
        slope2, offset2 = columns(load(slopes, column, width)), columns(load(offsets, column, width))
        column += width
        slope3, offset3 = columns(load(slopes, column, width)), columns(load(offsets, column, width))
        for i in range(0, n_rows, at_once):
            row, at = first_row + i, i * width
            words0, words1, words2, words3 = four_words(rows(load(work.chain_words, row, at_once)), a, b, c, d, seed)
            inv_temp = temps(load(inv_temps, row, at_once))
            write(
                state,
                tile,
                row,
                on(work.sums, at, words0, slope0, offset0, inv_temp),
                on(work.sums, at + apart, words1, slope1, offset1, inv_temp),
                on(work.sums, at + 2 * apart, words2, slope2, offset2, inv_temp),
                on(work.sums, at + 3 * apart, words3, slope3, offset3, inv_temp),
            )

    return draw
