"""Chains carried along a path of machines, one sweep at each: Gibbs, tempering, annealing are this one kernel.

The machine at b has the biases (1 - b) base + b a and the couplings b W (``reference.partition.path_biases``); a path
of one machine is plain Gibbs sampling. Each row may have an inverse temperature of its own besides.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from accelerated.cpu.exponential import fires32, fires64, real32, real64
from accelerated.cpu.gibbs import batch_of, draw_of, sum_up_of
from accelerated.cpu.philox import block_words, chain_words
from accelerated.cpu.tables import FIRST_BIT, NARROW, TILE, UNITS, WIDE
from accelerated.cpu.vectors import convert
from accelerated.cpu.weights import FLUSH, add_bias_terms, flush, weigh_of
from accelerated.jit import inline, jit, jit_with

_PER_NAT = -1.0 / math.log(2.0)


@inline
def _exact32(whole: Any) -> Any:
    return convert(whole, np.float64)


@inline
def _set_line(side: Any, base: Any, b: Any, largest: Any, slopes: Any, offsets: Any) -> Any:
    """-x / log 2 as a function of the sums, for the machine at b."""
    for j in range(len(side.scale)):
        slopes[j] = _PER_NAT * b * side.scale[j]
        # An infinite offset would make NaN of an inverse temperature of 0.
        offsets[j] = min(max(_PER_NAT * ((1 - b) * base[j] + b * side.bias[j]), -largest), largest)


# Placeholders: the pieces that depend on the dtype, bound below.
_sum_up: Any = None
_draw_wide: Any = None
_draw_narrow: Any = None
_weigh_wide: Any = None
_weigh_narrow: Any = None
_largest: Any = None


def _walk(
    sides: Any,
    bases: Any,
    path: Any,
    inv_temps: Any,
    chains: Any,
    n_steps: Any,
    seed: Any,
    step: Any,
    streams: Any,
    work: Any,
    annealing: Any,
    state1: Any,
    state2: Any,
) -> Any:
    """Carry both states on.

    With log-weights in ``annealing`` step k leads from path[k] to path[k + 1], and the last has no sweep; without,
    it is a sweep at the one machine of ``path``. ``streams``: those of the first and the second side.
    """
    is_weighted = len(annealing.log_weights) > 0
    n_rows = state1.shape[1]
    for half in range(2 * n_steps - is_weighted):
        k, is_second = half // 2, half % 2 == 0
        now, there = step + k, path[k + 1] if is_weighted else path[0]
        is_weighed, is_drawn = is_weighted and is_second, not (is_weighted and k == n_steps - 1)
        side, base, stream, given, drawn = (
            (sides[1], bases[1], streams[1], state1, state2)
            if is_second
            else (sides[0], bases[0], streams[0], state2, state1)
        )
        n_columns = len(side.scale)
        if is_second:
            chain_words(seed, now, chains, work.chain_words)
        if is_weighed:
            here = path[k]
            slopes, offsets = annealing.slopes, annealing.offsets
            _set_line(side, base, here, math.inf, slopes[:n_columns], offsets[:n_columns])
            _set_line(side, base, there, math.inf, slopes[n_columns:], offsets[n_columns:])
            add_bias_terms(annealing, given, there - here)
        block_words(seed, now, stream, len(work.block_words) // UNITS, work.block_words)
        _set_line(side, base, there, _largest, work.slopes, work.offsets)

        batch, n_tiles = batch_of(side), side.n_wide + side.n_narrow
        for tile in range(n_tiles):
            is_wide = tile < side.n_wide
            for first_row in range(0, n_rows, batch):
                n = min(batch, n_rows - first_row)
                _sum_up(side, tile, first_row, n, given, work)
                if is_weighed:
                    if is_wide:
                        _weigh_wide(side, first_row, n, tile, work, annealing)
                    else:
                        _weigh_narrow(side, first_row, n, tile, work, annealing)
                if is_drawn:
                    if is_wide:
                        _draw_wide(first_row, n, tile, work, seed, inv_temps, drawn)
                    else:
                        _draw_narrow(first_row, n, tile, work, seed, inv_temps, drawn)
            if is_weighed and (tile % FLUSH == FLUSH - 1 or tile == n_tiles - 1):
                flush(annealing)


def _walk_of(fires: Any, real: Any, exact: Any, dtype: Any) -> Any:
    return jit_with(
        _walk,
        _sum_up=sum_up_of(np.dtype(dtype).itemsize),
        _draw_wide=draw_of(WIDE, fires, real),
        _draw_narrow=draw_of(NARROW, fires, real),
        _weigh_wide=weigh_of(WIDE, exact),
        _weigh_narrow=weigh_of(NARROW, exact),
        _largest=float(np.finfo(dtype).max),
    )


walk32 = _walk_of(fires32, real32, _exact32, np.float32)
walk64 = _walk_of(fires64, real64, real64, np.float64)


def _energies(sides: Any, state1: Any, state2: Any, work: Any, out: Any) -> Any:
    """Energy of each row in float64, from exact sums; see ``reference.boltzmann.energy``."""
    side1, side2 = sides
    n_rows = state1.shape[1]
    for row in range(n_rows):
        out[row] = 0.0
        for column in range(len(side1.bias)):
            if is_on(state1, row, column):
                out[row] -= side1.bias[column]
    batch = batch_of(side2)
    for tile in range(side2.n_wide + side2.n_narrow):
        width = WIDE if tile < side2.n_wide else NARROW
        for first_row in range(0, n_rows, batch):
            n = min(batch, n_rows - first_row)
            _sum_up(side2, tile, first_row, n, state1, work)
            for i in range(n):
                for j in range(UNITS * width):
                    column = TILE * tile + j
                    if is_on(state2, first_row + i, column):
                        total = work.sums[(j // width * n + i) * width + j % width]
                        out[first_row + i] -= side2.scale[column] * total + side2.bias[column]


@inline
def is_on(state: Any, row: Any, column: Any) -> Any:
    """Whether the unit of a column is on."""
    code = state[column // TILE, row] >> np.uint32(8 * (column % TILE // UNITS) + FIRST_BIT)
    return (code >> np.uint32(column % UNITS)) & np.uint32(1) != 0


energies32, energies64 = (jit_with(_energies, _sum_up=sum_up_of(itemsize)) for itemsize in (4, 8))


@jit
def exchange(
    energies: Any,
    inv_temps: Any,
    u: Any,
    parity: Any,
    n_chains: Any,
    n_rows_each: Any,
    state1: Any,
    state2: Any,
    n_accepted: Any,
) -> Any:
    """Let neighbouring replicas of one parity exchange their states; see ``reference.tempering.swap``.

    Row r n_rows_each + c is replica r of chain c; energies likewise; u (pairs, chains).
    """
    for lower in range(parity, len(inv_temps) - 1, 2):
        for chain in range(n_chains):
            one = lower * n_rows_each + chain
            other = one + n_rows_each
            log_ratio = (inv_temps[lower] - inv_temps[lower + 1]) * (energies[one] - energies[other])
            if u[lower, chain] < math.exp(min(log_ratio, 0.0)):
                n_accepted[lower] += 1
                for state in (state1, state2):
                    for tile in range(state.shape[0]):
                        state[tile, one], state[tile, other] = state[tile, other], state[tile, one]
