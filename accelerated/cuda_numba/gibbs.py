"""All sweeps of persistent Gibbs chains in one launch; see ``reference.gibbs.PersistentChains.run``."""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import cuda, from_dtype, int64, uint8, uint64

from accelerated.cuda_numba.chains import redraw
from reference.philox import STREAM_Z1, STREAM_Z2

_STREAM_Z1, _STREAM_Z2 = np.uint64(STREAM_Z1), np.uint64(STREAM_Z2)


@functools.cache
def gibbs_kernel(rows: int, dtype: np.dtype[Any]) -> Any:
    """Kernel for tiles of ``rows`` chains in the arithmetic of ``dtype``; shared memory: a byte per unit, padded.

    The first step is ``step`` + ``moved[0]``: the second is read when the kernel runs, so that a captured CUDA graph
    goes on where it stopped.
    """
    fields, draw, load, store = redraw(rows, dtype)
    number, n_total = from_dtype(dtype), 4 * rows
    one = dtype.type(1)

    @cuda.jit
    def gibbs(z1, packed1, packed2, n1, n2, n_sweeps, key0, key1, step, moved, first_chain, out1, out2):
        states = cuda.shared.array(0, uint8)
        groups1, groups2 = packed1.shape[2], packed2.shape[2]
        states1, states2 = states[: 4 * groups1], states[4 * groups1 :]
        total = cuda.local.array(n_total, number)
        inv_temps = cuda.local.array(rows, number)
        chains = cuda.local.array(rows, uint64)
        which = cuda.local.array(rows, int64)
        thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
        for c in range(rows):
            which[c] = cuda.blockIdx.x * rows + c
            chains[c] = first_chain + np.uint64(which[c])
            inv_temps[c] = one

        load(z1, which, n1, states1, thread, n_threads)
        cuda.syncthreads()
        now = step + np.uint64(moved[0])
        for _ in range(n_sweeps):
            for group in range(thread, groups2, n_threads):
                fields(states1, n1, packed2, 1, group, total)
                draw(total, inv_temps, states2, group, chains, now, _STREAM_Z2, key0, key1)
            cuda.syncthreads()
            for group in range(thread, groups1, n_threads):
                fields(states2, n2, packed1, 1, group, total)
                draw(total, inv_temps, states1, group, chains, now, _STREAM_Z1, key0, key1)
            cuda.syncthreads()
            now += np.uint64(1)
        store(out1, which, n1, states1, thread, n_threads)
        store(out2, which, n2, states2, thread, n_threads)

    return gibbs
