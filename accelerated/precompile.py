"""Compiling the kernels of a backend before they are needed; see ``python -m accelerated --compile``."""

from __future__ import annotations

import numpy as np

import accelerated
from accelerated.protocol import KINDS, Machine


def compile_kernels(name: str, dtype: str) -> None:
    """Call every operation of a backend once in one precision, on the smallest of problems."""
    backend = accelerated.load(name)
    a1, a2, W, z1, rows = (backend.asarray(np.zeros(shape, dtype)) for shape in (3, 2, (3, 2), (4, 3), (4, 5)))
    rbm, path = Machine(a1, a2, W), [0.0, 0.5, 1.0]
    backend.gibbs(rbm, z1, 1, 0, 0)
    backend.tempering(rbm, path, 2, 1, 0)
    backend.ais(rbm, (a1, a2), path, 4, 0)
    backend.reverse_ais(rbm, (a1, a2), path, z1, 0)
    backend.entropy(rows)
    backend.cross_entropy_gradients(rbm, rows, rows, 1, backend.asarray(np.ones(4, dtype)))
    backend.importance_log_mean(rows)
    for kind in KINDS:
        backend.inverse_cdf(kind, rows, rows, 10.0)
        backend.inverse_cdf(kind, rows, rows, 10.0, ("dzeta_dlogit_q", "dzeta_drho"))
