"""All rounds of parallel tempering in one launch; see ``reference.tempering.replica_rounds``.

A block carries whole ladders, all replicas of one or a few chains, because neighbours exchange after every round. What
is exchanged are labels, not states: a row says which replica it is at the moment, and has that replica's inverse
temperature and random numbers.

Sums are float64, whatever the dtype of the machine: exchanges are decided by differences of energies.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda, float64, int32, int64, uint8, uint64

from accelerated.cuda_numba.chains import halve, n_groups, n_lanes, redraw
from accelerated.cuda_numba.philox import uniform, words_at
from reference.philox import STREAM_SWAP, STREAM_TEMPERING_INIT, STREAM_TEMPERING_Z1, STREAM_TEMPERING_Z2

_ZERO = np.uint64(0)
_INIT, _SWAP = np.uint64(STREAM_TEMPERING_INIT), np.uint64(STREAM_SWAP)
_Z1, _Z2 = np.uint64(STREAM_TEMPERING_Z1), np.uint64(STREAM_TEMPERING_Z2)


def chains_per_block(rows: int, n_replicas: int) -> int:
    """Ladders that one block carries: as many as one tile holds, at least one."""
    return max(1, rows // n_replicas)


def n_tiles(rows: int, n_replicas: int) -> int:
    """Tiles of the ladders of one block."""
    return -(-n_replicas * chains_per_block(rows, n_replicas) // rows)


def shared_bytes(rows: int, n_replicas: int, n1: int, n2: int) -> int:
    """Shared memory: partial energies of a tile, energy, label and row of each replica, then the states."""
    padded = rows * n_tiles(rows, n_replicas)
    states = n_tiles(rows, n_replicas) * 4 * (n_groups(n1) + n_groups(n2))
    return 8 * rows * n_lanes(n_groups(max(n1, n2))) + (8 + 4 + 4) * padded + states


@functools.cache
def tempering_kernel(rows: int) -> Any:
    """Kernel for tiles of ``rows`` replicas."""
    fields, draw, load, store = redraw(rows, np.dtype(np.float64))
    n_total = 4 * rows

    @cuda.jit(device=True)
    def assign(tile, replica_of, ladder, first_chain, n_each, n_chains, which, chains, inv_temps):
        """Which row of the results each row of a tile is at the moment; one past their end if it is idle."""
        n_rows = ladder.shape[0] * n_chains
        for c in range(rows):
            p = tile * rows + c
            replica, chain = replica_of[p], first_chain + p % n_each
            alive = p < ladder.shape[0] * n_each and chain < n_chains
            which[c] = replica * n_chains + chain if alive else n_rows
            chains[c] = np.uint64(which[c])
            inv_temps[c] = ladder[replica]

    @cuda.jit
    def tempering(
        z1, from_coins, ladder, n_chains, n_each, lanes, packed1, packed2, n1, n2, n_rounds, first_round,
        sweeps_per_round, key0, key1, n_accepted, out1, out2,
    ):  # fmt: skip
        n_replicas = ladder.shape[0]
        groups1, groups2 = packed1.shape[2], packed2.shape[2]
        n_bytes = 4 * (groups1 + groups2)
        tiles = (n_replicas * n_each + rows - 1) // rows
        padded = tiles * rows
        numbers = cuda.shared.array(0, float64)
        indices = cuda.shared.array(0, int32)
        octets = cuda.shared.array(0, uint8)
        partial = numbers[: rows * lanes]
        energies = numbers[rows * lanes : rows * lanes + padded]
        first = 2 * (rows * lanes + padded)
        replica_of = indices[first : first + padded]
        row_of = indices[first + padded : first + 2 * padded]
        all_states = octets[4 * (first + 2 * padded) :]

        total = cuda.local.array(n_total, float64)
        energy = cuda.local.array(rows, float64)
        inv_temps = cuda.local.array(rows, float64)
        chains = cuda.local.array(rows, uint64)
        which = cuda.local.array(rows, int64)
        thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
        first_chain = cuda.blockIdx.x * n_each

        # Row p carries, at first, replica p // n_each of chain first_chain + p % n_each; what is left over is idle.
        for p in range(thread, padded, n_threads):
            replica_of[p] = p // n_each if p < n_replicas * n_each else 0
            row_of[p] = p
        cuda.syncthreads()

        for tile in range(tiles):
            states = all_states[tile * n_bytes : (tile + 1) * n_bytes]
            assign(tile, replica_of, ladder, first_chain, n_each, n_chains, which, chains, inv_temps)
            if from_coins:
                for i in range(4 * rows):
                    total[i] = 0
                for group in range(thread, groups1, n_threads):
                    draw(total, inv_temps, states, group, chains, _ZERO, _INIT, key0, key1)
            else:
                load(z1, which, n1, states, thread, n_threads)
        cuda.syncthreads()

        for this_round in range(first_round, first_round + n_rounds):
            for sweep in range(sweeps_per_round):
                step = np.uint64(this_round * sweeps_per_round + sweep)
                for tile in range(tiles):
                    states1 = all_states[tile * n_bytes : (tile + 1) * n_bytes]
                    states2 = states1[4 * groups1 :]
                    assign(tile, replica_of, ladder, first_chain, n_each, n_chains, which, chains, inv_temps)
                    for group in range(thread, groups2, n_threads):
                        fields(states1, n1, packed2, 1, group, total)
                        draw(total, inv_temps, states2, group, chains, step, _Z2, key0, key1)
                cuda.syncthreads()
                for tile in range(tiles):
                    states1 = all_states[tile * n_bytes : (tile + 1) * n_bytes]
                    states2 = states1[4 * groups1 :]
                    assign(tile, replica_of, ladder, first_chain, n_each, n_chains, which, chains, inv_temps)
                    for lane in range(thread, lanes, n_threads):
                        # -E = a2'z2 + z1'(a1 + W z2): the sums that z1 is drawn from are half of its energy.
                        for c in range(rows):
                            energy[c] = 0
                        for group in range(lane, groups1, lanes):
                            fields(states2, n2, packed1, 1, group, total)
                            draw(total, inv_temps, states1, group, chains, step, _Z1, key0, key1)
                            for q in range(4):
                                bits = states1[4 * group + q]
                                for c in range(rows):
                                    if (bits >> c) & 1:
                                        energy[c] -= total[q * rows + c]
                        for group in range(lane, groups2, lanes):
                            for q in range(4):
                                bits = states2[4 * group + q]
                                for c in range(rows):
                                    if (bits >> c) & 1:
                                        energy[c] -= packed2[0, q, group]
                        for c in range(rows):
                            partial[lane * rows + c] = energy[c]
                    cuda.syncthreads()
                    width = lanes // 2
                    while width > 0:
                        halve(partial, width * rows, thread, n_threads)
                        cuda.syncthreads()
                        width //= 2
                    for c in range(thread, rows, n_threads):
                        energies[tile * rows + c] = partial[c]
                    cuda.syncthreads()

            for each in range(thread, n_each, n_threads):
                if first_chain + each < n_chains:
                    for lower in range(this_round % 2, n_replicas - 1, 2):
                        a, b = row_of[lower * n_each + each], row_of[(lower + 1) * n_each + each]
                        log_ratio = (ladder[lower] - ladder[lower + 1]) * (energies[a] - energies[b])
                        words = words_at(
                            np.uint64(lower // 4),
                            np.uint64(first_chain + each),
                            np.uint64(this_round),
                            _SWAP,
                            key0,
                            key1,
                        )
                        if log_ratio >= 0.0 or uniform(words[lower % 4]) < math.exp(log_ratio):
                            row_of[lower * n_each + each], row_of[(lower + 1) * n_each + each] = b, a
                            replica_of[a], replica_of[b] = lower + 1, lower
                            cuda.atomic.add(n_accepted, lower, 1)
            cuda.syncthreads()

        for tile in range(tiles):
            states = all_states[tile * n_bytes : (tile + 1) * n_bytes]
            assign(tile, replica_of, ladder, first_chain, n_each, n_chains, which, chains, inv_temps)
            store(out1, which, n1, states, thread, n_threads)
            store(out2, which, n2, states[4 * groups1 :], thread, n_threads)

    return tempering
