"""All temperatures of annealed importance sampling in one launch; see ``reference.partition.anneal``.

Everything is float64, whatever the dtype of the machine: a log-weight sums the rounding of all temperatures.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda, float64, int64, uint8, uint64

from accelerated.cuda_numba.chains import halve, n_groups, n_lanes, redraw
from reference.philox import STREAM_FORWARD_INIT

_ZERO, _INIT = np.uint64(0), np.uint64(STREAM_FORWARD_INIT)


def shared_bytes(rows: int, n1: int, n2: int) -> int:
    """Shared memory: partial log-weights of a tile, then a byte of states per unit."""
    return 8 * rows * n_lanes(n_groups(max(n1, n2))) + 4 * (n_groups(n1) + n_groups(n2))


@cuda.jit(device=True)
def softplus(x):
    """See ``reference.bernoulli.softplus``; float64."""
    return (x if x > 0.0 else 0.0) + math.log1p(math.exp(-abs(x)))


@functools.cache
def annealing_kernel(rows: int) -> Any:
    """Kernel for tiles of ``rows`` chains. ``packed1``, ``packed2`` lead with the biases and then those of the base.

    A rising path starts from the base, whose log Z the weights gain; a falling one from z1, and they lose it. With
    softplus(x) = max(x, 0) + log(1 + exp(-|x|)), the sum over a lane's units needs one logarithm, of a product.
    """
    fields, draw, load, _ = redraw(rows, np.dtype(np.float64))
    n_total = 4 * rows

    @cuda.jit(device=True)
    def to_logits(total, packed, group, b):
        """Fields of the machine -> logits at inverse temperature b between the base and it."""
        for q in range(4):
            base = (1.0 - b) * packed[1, q, group]
            for c in range(rows):
                total[q * rows + c] = base + b * total[q * rows + c]

    @cuda.jit
    def anneal(
        z1, from_base, path, lanes, packed1, packed2, n1, n2, key0, key1, stream2, stream1, first_chain, log_weights
    ):
        groups1, groups2 = packed1.shape[2], packed2.shape[2]
        numbers = cuda.shared.array(0, float64)
        octets = cuda.shared.array(0, uint8)
        partial, states = numbers[: rows * lanes], octets[8 * rows * lanes :]
        states1, states2 = states[: 4 * groups1], states[4 * groups1 :]
        total = cuda.local.array(n_total, float64)
        weight = cuda.local.array(rows, float64)
        above = cuda.local.array(rows, float64)
        below = cuda.local.array(rows, float64)
        inv_temps = cuda.local.array(rows, float64)
        chains = cuda.local.array(rows, uint64)
        which = cuda.local.array(rows, int64)
        thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
        for c in range(rows):
            which[c] = cuda.blockIdx.x * rows + c
            chains[c] = first_chain + np.uint64(which[c])
            inv_temps[c] = 1.0  # the logits hold theirs

        sign = 1.0 if from_base else -1.0
        for lane in range(thread, lanes, n_threads):
            log_partition = 0.0
            for unit in range(lane, n1, lanes):
                log_partition += softplus(packed1[1, unit % 4, unit // 4])
            for unit in range(lane, n2, lanes):
                log_partition += softplus(packed2[1, unit % 4, unit // 4])
            for c in range(rows):
                partial[lane * rows + c] = sign * log_partition
        if from_base:
            for group in range(thread, groups1, n_threads):
                for q in range(4):
                    for c in range(rows):
                        total[q * rows + c] = packed1[1, q, group]
                draw(total, inv_temps, states1, group, chains, _ZERO, _INIT, key0, key1)
        else:
            load(z1, which, n1, states1, thread, n_threads)
        cuda.syncthreads()

        n_steps = path.shape[0] - 1
        for k in range(n_steps):
            here, there = path[k], path[k + 1]
            for lane in range(thread, lanes, n_threads):
                for c in range(rows):
                    weight[c] = partial[lane * rows + c]
                for group in range(lane, groups1, lanes):
                    for q in range(4):
                        gain = (there - here) * (packed1[0, q, group] - packed1[1, q, group])
                        bits = states1[4 * group + q]
                        for c in range(rows):
                            if (bits >> c) & 1:
                                weight[c] += gain
                for c in range(rows):
                    above[c] = below[c] = 1.0
                for group in range(lane, groups2, lanes):
                    fields(states1, n1, packed2, 2, group, total)
                    for q in range(4):
                        base = packed2[1, q, group]
                        for c in range(rows):
                            field = total[q * rows + c]
                            old, new = (1.0 - here) * base + here * field, (1.0 - there) * base + there * field
                            total[q * rows + c] = new
                            # What pads has old = new = 0: factors of 2 above and below.
                            weight[c] += (new if new > 0.0 else 0.0) - (old if old > 0.0 else 0.0)
                            above[c] *= 1.0 + math.exp(-abs(new))
                            below[c] *= 1.0 + math.exp(-abs(old))
                    if k < n_steps - 1:
                        draw(total, inv_temps, states2, group, chains, np.uint64(k), stream2, key0, key1)
                for c in range(rows):
                    partial[lane * rows + c] = weight[c] + math.log(above[c] / below[c])
            cuda.syncthreads()
            if k < n_steps - 1:  # leaving the last machine needs no sweep: no weight follows
                for group in range(thread, groups1, n_threads):
                    fields(states2, n2, packed1, 2, group, total)
                    to_logits(total, packed1, group, there)
                    draw(total, inv_temps, states1, group, chains, np.uint64(k), stream1, key0, key1)
            cuda.syncthreads()

        width = lanes // 2
        while width > 0:
            halve(partial, width * rows, thread, n_threads)
            cuda.syncthreads()
            width //= 2
        for c in range(thread, rows, n_threads):
            row = cuda.blockIdx.x * rows + c
            if row < log_weights.shape[0]:
                log_weights[row] = partial[c]

    return anneal
