"""Sums over the units or samples of a row: one block per row or tile of rows, in lanes of a fixed order.

A sum is cut into a number of lanes that follows from its length alone; each lane is one thread's, and the lanes are
added pairwise. So the result depends on the order of no one: not on threads, not on blocks, not on other rows.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import math

from numba import cuda, float64

from accelerated import scalar
from accelerated.cuda_numba.chains import halve
from accelerated.cuda_numba.rounding import device_function

#: Rows that share one reading of the couplings.
TILE = 4

_entropy = device_function(scalar.entropy)


@cuda.jit
def entropy(logit_q, lanes, value, derivative):
    """Entropy of a row per block, and its derivative; shared memory: one float64 per lane."""
    partial = cuda.shared.array(0, float64)
    thread, n_threads, row = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    for lane in range(thread, lanes, n_threads):
        total = 0.0
        for unit in range(lane, logit_q.shape[1], lanes):
            nats, slope = _entropy(float(logit_q[row, unit]))
            total += nats
            derivative[row, unit] = slope
        partial[lane] = total
    cuda.syncthreads()
    width = lanes // 2
    while width > 0:
        halve(partial, width, thread, n_threads)
        cuda.syncthreads()
        width //= 2
    if thread == 0:
        value[row] = partial[0]


@cuda.jit
def log_mean(log_weights, lanes, count, old_largest, old_total, old_count, value, largest, total):
    """Running log-mean-exp of a row per block; old_count 0: nothing so far. Shared memory: one float64 per lane."""
    partial = cuda.shared.array(0, float64)
    thread, n_threads, row = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    for lane in range(thread, lanes, n_threads):
        most = -math.inf
        for k in range(lane, log_weights.shape[1], lanes):
            w = float(log_weights[row, k])
            if w > most or w != w:  # NaN stays
                most = w
        partial[lane] = most
    cuda.syncthreads()
    most = old_largest[row] if old_count > 0 else -math.inf
    for lane in range(lanes):
        if partial[lane] > most or partial[lane] != partial[lane]:
            most = partial[lane]
    unit = 0.0 if most == -math.inf else most  # weights of 0 alone: -inf - -inf would be NaN
    cuda.syncthreads()
    for lane in range(thread, lanes, n_threads):
        scaled = 0.0
        for k in range(lane, log_weights.shape[1], lanes):
            scaled += math.exp(float(log_weights[row, k]) - unit)
        partial[lane] = scaled
    cuda.syncthreads()
    width = lanes // 2
    while width > 0:
        halve(partial, width, thread, n_threads)
        cuda.syncthreads()
        width //= 2
    if thread == 0:
        scaled = partial[0]
        if old_count > 0:
            scaled += old_total[row] * math.exp(old_largest[row] - unit)
        largest[row], total[row] = most, scaled
        value[row] = -math.inf if scaled == 0.0 else unit + math.log(scaled) - math.log(count)


@cuda.jit(device=True)
def _field(W, mu, nu, group_size, unit, row, field):
    """What unit n1 + ``unit`` of the second side sees of the first: nu of earlier groups, mu of its own, by W."""
    n1 = W.shape[0]
    same = (n1 + unit) // group_size * group_size  # its group begins here
    for c in range(TILE):
        field[c] = 0.0
    for i in range(n1):
        w = float(W[i, unit])
        for c in range(TILE):
            if row + c < mu.shape[0]:
                field[c] += w * float(mu[row + c, i] if i >= same else nu[row + c, i])


@cuda.jit
def cross_entropy(a1, a2, W, mu, nu, group_size, lanes, value):
    """Expected energy of ``TILE`` rows per block; shared memory: ``TILE`` float64 per lane."""
    partial = cuda.shared.array(0, float64)
    total, field = cuda.local.array(TILE, float64), cuda.local.array(TILE, float64)
    thread, n_threads, row = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x * TILE
    n1, n2 = W.shape
    for lane in range(thread, lanes, n_threads):
        for c in range(TILE):
            total[c] = 0.0
        for i in range(lane, n1, lanes):
            for c in range(TILE):
                if row + c < mu.shape[0]:
                    total[c] -= float(a1[i]) * float(mu[row + c, i])
        for j in range(lane, n2, lanes):
            _field(W, mu, nu, group_size, j, row, field)
            for c in range(TILE):
                if row + c < mu.shape[0]:
                    total[c] -= (float(a2[j]) + field[c]) * float(mu[row + c, n1 + j])
        for c in range(TILE):
            partial[lane * TILE + c] = total[c]
    cuda.syncthreads()
    width = lanes // 2
    while width > 0:
        halve(partial, width * TILE, thread, n_threads)
        cuda.syncthreads()
        width //= 2
    for c in range(thread, TILE, n_threads):
        if row + c < value.shape[0]:
            value[row + c] = partial[c]


@cuda.jit
def cross_entropy_by_units(a1, a2, W, packed1, mu, nu, group_size, upstream, dmu, dnu):
    """Gradients in mu and nu of ``TILE`` rows per block; packed1: W' as ``chains`` lays it out."""
    field = cuda.local.array(TILE, float64)
    later = cuda.local.array(TILE, float64)
    row = cuda.blockIdx.x * TILE
    n1, n2 = W.shape
    for j in range(cuda.threadIdx.x, n2, cuda.blockDim.x):
        _field(W, mu, nu, group_size, j, row, field)
        for c in range(TILE):
            if row + c < mu.shape[0]:
                dmu[row + c, n1 + j] = -(float(a2[j]) + field[c]) * float(upstream[row + c])
                dnu[row + c, n1 + j] = 0.0
    for i in range(cuda.threadIdx.x, n1, cuda.blockDim.x):
        end = (i // group_size + 1) * group_size - n1  # units of the second side from here on are in later groups
        for c in range(TILE):
            field[c] = later[c] = 0.0
        for j in range(n2):
            w = float(packed1[1 + j, i % 4, i // 4])
            for c in range(TILE):
                if row + c < mu.shape[0]:
                    if j < end:
                        field[c] += w * float(mu[row + c, n1 + j])
                    else:
                        later[c] += w * float(mu[row + c, n1 + j])
        for c in range(TILE):
            if row + c < mu.shape[0]:
                dmu[row + c, i] = -(float(a1[i]) + field[c]) * float(upstream[row + c])
                dnu[row + c, i] = -later[c] * float(upstream[row + c])


@cuda.jit
def cross_entropy_by_parameters(mu, nu, group_size, upstream, da1, da2, dW):
    """Gradients in the machine, one entry per step of a thread: sums over the rows in their order."""
    n1, n2 = dW.shape
    for entry in range(cuda.grid(1), n1 * n2 + n1 + n2, cuda.gridsize(1)):
        total = 0.0
        if entry < n1 * n2:
            i, j = entry // n2, entry % n2
            same = i >= (n1 + j) // group_size * group_size
            for row in range(mu.shape[0]):
                first = float(mu[row, i] if same else nu[row, i])
                total -= float(upstream[row]) * first * float(mu[row, n1 + j])
            dW[i, j] = total
        else:
            unit = entry - n1 * n2
            for row in range(mu.shape[0]):
                total -= float(upstream[row]) * float(mu[row, unit])
            if unit < n1:
                da1[unit] = total
            else:
                da2[unit - n1] = total
