"""What the samplers share: how a machine and a tile of chains lie in memory, and the redrawing of four units.

A block of threads carries a tile of ``rows`` chains. Their states are bits: one byte per unit in shared memory, bit c
for chain c of the tile. So a coupling is read once for the whole tile, and 4,096 + 4,096 units take 8 KiB.
A thread redraws four consecutive units of all chains of the tile: the four that share a call of Philox. It runs over
the units of the other side in their order, and keeps the 4 * rows sums in registers. That order is the only one
there is: the bits depend neither on the number of threads or blocks, nor on where the chains are cut into tiles.

The couplings are copied once per call into ``packed`` (leading + n_in, 4, ceil(n_out / 4)): entry (leading + i, q, k)
couples unit i of the side that is read to unit 4 k + q of the side that is drawn, so that neighbouring threads read
neighbouring numbers from either side. The leading rows hold biases. What pads the last four units is 0; they are drawn
like the others, and never read.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from accelerated.cuda_numba.philox import draw_in, words_at

#: Chains of a tile, one bit each of a byte: fewer for a small batch, so that there are tiles for all multiprocessors.
FEW_ROWS, MANY_ROWS = 4, 8

#: From this number of chains on the larger tile keeps a large device busy too.
MANY = 8192

#: Sums over units are cut into as many partial sums, of a fixed order each, however many threads there are.
MOST_LANES = 128

#: Shared memory that every CUDA device gives a block without being asked.
SHARED_BYTES = 48 * 1024

_GROUP = 4


class Redraw(NamedTuple):
    """Device functions for one tile size and one arithmetic."""

    fields: Any
    draw: Any
    load: Any
    store: Any


def n_groups(n_units: int) -> int:
    """Groups of four units, the last perhaps padded."""
    return -(-n_units // _GROUP)


def n_lanes(n_terms: int) -> int:
    """Partial sums that a sum is cut into: a power of two, a function of the number of terms alone."""
    lanes = 1
    while lanes < min(n_terms, MOST_LANES):
        lanes *= 2
    return lanes


def tile_rows(n_chains: int, dtype: np.dtype[Any]) -> int:
    """Chains that one block carries; the registers of a thread hold the sums of eight in float32 only."""
    return MANY_ROWS if n_chains >= MANY and dtype == np.float32 else FEW_ROWS


@cuda.jit
def pack(couplings, transposed, leading, packed):
    """Copy W (N1, N2), or W' if ``transposed``, into ``packed``, padded with zeros; leading rows are left alone."""
    n_in = packed.shape[0] - leading
    n_four = packed.shape[2]
    n_out = couplings.shape[0] if transposed else couplings.shape[1]
    for entry in range(cuda.grid(1), n_in * n_four * 4, cuda.gridsize(1)):
        i, unit = entry // (n_four * 4), entry % (n_four * 4)
        if unit >= n_out:
            packed[leading + i, unit % 4, unit // 4] = 0.0
        elif transposed:
            packed[leading + i, unit % 4, unit // 4] = couplings[unit, i]
        else:
            packed[leading + i, unit % 4, unit // 4] = couplings[i, unit]


@cuda.jit
def pack_bias(bias, row, packed):
    """Copy a bias (N,) into one leading row of ``packed``, padded with zeros."""
    n_out = bias.shape[0]
    for unit in range(cuda.grid(1), packed.shape[2] * 4, cuda.gridsize(1)):
        packed[row, unit % 4, unit // 4] = bias[unit] if unit < n_out else 0.0


@cuda.jit(device=True)
def halve(partial, width, thread, n_threads):
    """Add the upper half of ``2 width`` partial sums to the lower; a barrier must follow."""
    for entry in range(thread, width, n_threads):
        partial[entry] += partial[entry + width]


@functools.cache
def redraw(rows: int, dtype: np.dtype[Any]) -> Redraw:
    """Device functions for tiles of ``rows`` chains in the arithmetic of ``dtype``."""
    draw_one = draw_in(dtype)

    @cuda.jit(device=True)
    def fields(states, n_in, packed, leading, group, total):
        """Bias and couplings of four units for all chains, unit q of chain c at total[q rows + c]."""
        for q in range(4):
            for c in range(rows):
                total[q * rows + c] = packed[0, q, group]
        for i in range(n_in):
            bits = states[i]
            w0 = packed[leading + i, 0, group]
            w1 = packed[leading + i, 1, group]
            w2 = packed[leading + i, 2, group]
            w3 = packed[leading + i, 3, group]
            for c in range(rows):
                if (bits >> c) & 1:
                    total[c] += w0
                    total[rows + c] += w1
                    total[2 * rows + c] += w2
                    total[3 * rows + c] += w3

    @cuda.jit(device=True)
    def draw(total, inv_temps, states, group, chains, step, stream, key0, key1):
        """Draw four units of all chains from their logits, times the chain's inverse temperature."""
        bits0 = bits1 = bits2 = bits3 = 0
        for c in range(rows):
            word0, word1, word2, word3 = words_at(np.uint64(group), chains[c], step, stream, key0, key1)
            b = inv_temps[c]
            bits0 |= int(draw_one(b * total[c], word0)) << c
            bits1 |= int(draw_one(b * total[rows + c], word1)) << c
            bits2 |= int(draw_one(b * total[2 * rows + c], word2)) << c
            bits3 |= int(draw_one(b * total[3 * rows + c], word3)) << c
        states[4 * group] = bits0
        states[4 * group + 1] = bits1
        states[4 * group + 2] = bits2
        states[4 * group + 3] = bits3

    @cuda.jit(device=True)
    def load(z, which, n_units, states, thread, n_threads):
        """Bits of the rows ``which`` of a state matrix; a row past its end is one of zeros."""
        for unit in range(thread, n_units, n_threads):
            bits = 0
            for c in range(rows):
                if which[c] < z.shape[0] and z[which[c], unit] != 0:
                    bits |= 1 << c
            states[unit] = bits

    @cuda.jit(device=True)
    def store(z, which, n_units, states, thread, n_threads):
        """The rows ``which`` of a state matrix from their bits; a row past its end is not stored."""
        for unit in range(thread, n_units, n_threads):
            bits = states[unit]
            for c in range(rows):
                if which[c] < z.shape[0]:
                    z[which[c], unit] = (bits >> c) & 1

    return Redraw(fields, draw, load, store)
