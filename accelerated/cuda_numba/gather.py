"""Strided arrays of up to four axes, element by element into a vector."""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

from numba import cuda


@cuda.jit
def _gather1(array, flat):
    for i in range(cuda.grid(1), flat.shape[0], cuda.gridsize(1)):
        flat[i] = array[i]


@cuda.jit
def _gather2(array, flat):
    n1 = array.shape[1]
    for i in range(cuda.grid(1), flat.shape[0], cuda.gridsize(1)):
        flat[i] = array[i // n1, i % n1]


@cuda.jit
def _gather3(array, flat):
    n1, n2 = array.shape[1], array.shape[2]
    for i in range(cuda.grid(1), flat.shape[0], cuda.gridsize(1)):
        flat[i] = array[i // (n1 * n2), i // n2 % n1, i % n2]


@cuda.jit
def _gather4(array, flat):
    n1, n2, n3 = array.shape[1], array.shape[2], array.shape[3]
    for i in range(cuda.grid(1), flat.shape[0], cuda.gridsize(1)):
        flat[i] = array[i // (n1 * n2 * n3), i // (n2 * n3) % n1, i // n3 % n2, i % n3]


#: By number of axes, from one on.
GATHER = (_gather1, _gather2, _gather3, _gather4)
