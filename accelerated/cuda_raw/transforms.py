"""Transforms and reductions in CUDA C++: the host's side, which checks arguments, chooses a kernel and launches it.

The inverse CDF is one kernel per kind, dtype and set of extras, compiled when it is first asked for, so that nothing
unasked is computed. For float32 arrays all kinds but the power function are computed in float32 throughout, but for
inputs beyond its range; the power function and dzeta_dbeta in float64, rounded once. The cross-entropy leaves its
matrix products to cuBLAS.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from accelerated.arguments import (
    check_matrix,
    check_posterior,
    check_running,
    check_transform,
    check_upstream,
    common_dtype,
)
from accelerated.cuda_raw.device import Gpu, c_type, machine_on, output
from accelerated.protocol import EXTRAS, KINDS, CrossEntropyGradients, Entropy, LogMean, Machine, Smoothed
from reference.vocabulary import check_count

_FILE = "transforms.cu"
_THREADS = 256  # of a block, in every kernel
_BLOCKS = 16  # for each multiprocessor, at most, where a thread takes one element after the other
_LONG_ROW = 2048  # columns from which on a row has a block of its own, not a warp


class Transforms:
    """inverse_cdf, entropy, cross_entropy, its gradients, importance_log_mean; see ``accelerated.protocol.Backend``."""

    gpu: Gpu

    def inverse_cdf(
        self,
        kind: str,
        rho: Any,
        logit_q: Any,
        beta: float,
        extras: Collection[str] = ("dzeta_dlogit_q",),
        out: Smoothed | None = None,
    ) -> Smoothed:
        """See ``accelerated.protocol.Backend.inverse_cdf``. Nothing is allocated where ``out`` is given.

        That is, if rho and logit_q are C-contiguous. ``out`` may hold rho or logit_q itself.
        """
        rho, logit_q = self.gpu.array("rho", rho), self.gpu.array("logit_q", logit_q)
        sharpness, dtype = check_transform(kind, rho, logit_q, beta, extras)
        shape = tuple(rho.shape)
        found: dict[str, Any] = {}
        for name in ("zeta", *(extra for extra in EXTRAS if extra in extras)):
            if out is None:
                found[name] = self.gpu.empty(shape, dtype)
            else:
                found[name] = output(self.gpu, f"out.{name}", getattr(out, name), shape, dtype)
        if rho.size:
            arrays = [self.gpu.contiguous(rho), self.gpu.contiguous(logit_q)]
            arrays += [found.get(name) for name in ("zeta", *EXTRAS)]
            aligned = all(self.gpu.address(array) % 16 == 0 for array in arrays if array is not None)
            wanted = sum(1 << bit for bit, extra in enumerate(EXTRAS) if extra in extras)
            n_packs = -(-rho.size * dtype.itemsize // 16)
            self.gpu.kernel(_FILE, f"inverse_cdf<{c_type(dtype)}, {KINDS.index(kind)}, {wanted}>")(
                self._n_blocks(n_packs),
                _THREADS,
                (np.int64(rho.size), *arrays, np.int32(aligned), *sharpness_constants(sharpness)),
            )
        return Smoothed(**found)

    def entropy(self, logit_q: Any) -> Entropy:
        """See ``accelerated.protocol.Backend.entropy``. A row is summed in float64."""
        dtype = common_dtype(logit_q=logit_q)
        n_rows, n_columns = check_matrix("logit_q", logit_q)
        logit_q = self.gpu.contiguous(self.gpu.array("logit_q", logit_q))
        value, derivative = self.gpu.empty(n_rows, dtype), self.gpu.empty((n_rows, n_columns), dtype)
        rows = _Rows(n_rows, n_columns)
        if n_rows:
            self.gpu.kernel(_FILE, f"entropy<{c_type(dtype)}>")(
                rows.n_blocks,
                _THREADS,
                (np.int64(n_rows), np.int32(n_columns), logit_q, value, derivative, rows.lanes),
            )
        return Entropy(value, derivative)

    def cross_entropy(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> Any:
        """See ``accelerated.protocol.Backend.cross_entropy``. A row's products are summed in float64."""
        machine, mu, nu, straddle = self._posterior(rbm, mu, nu, n_groups)
        n_rows, (n1, n2) = mu.shape[0], machine.W.shape
        value = self.gpu.empty(n_rows, mu.dtype)
        rows = _Rows(n_rows, n1 + n2)
        if n_rows:
            field = self._field(machine, mu, nu, straddle)
            self.gpu.kernel(_FILE, f"expected_energy<{c_type(mu.dtype)}>")(
                rows.n_blocks,
                _THREADS,
                (np.int64(n_rows), np.int32(n1), np.int32(n2), mu, machine.a1, machine.a2, field, value, rows.lanes),
            )
        return value

    def cross_entropy_gradients(
        self, rbm: Any, mu: Any, nu: Any, n_groups: int, upstream: Any
    ) -> CrossEntropyGradients:
        """See ``accelerated.protocol.Backend.cross_entropy_gradients``.

        With weights w = -upstream the gradients in W, a1 and a2 are c'(w mu2), w'mu1 and w'mu2, where c is mu1 or nu1
        by group; those in the units are w times a bias and a field, or products of w mu2 and W'.
        """
        machine, mu, nu, (first, second) = self._posterior(rbm, mu, nu, n_groups)
        dtype, n_rows, (n1, n2) = mu.dtype, mu.shape[0], machine.W.shape
        check_upstream(upstream, n_rows, dtype)
        upstream = self.gpu.contiguous(self.gpu.array("upstream", upstream))
        if not n_rows:
            nothing = (self.gpu.zeros(shape, dtype) for shape in ((0, n1 + n2), (0, n1 + n2), n1, n2, (n1, n2)))
            return CrossEntropyGradients(*nothing)
        sizes, real = (np.int64(n_rows), np.int32(n1), np.int32(n2)), c_type(dtype)
        weight, weighted = self.gpu.empty(n_rows, dtype), self.gpu.empty((n_rows, n2), dtype)
        self.gpu.kernel(_FILE, f"weighted<{real}>")(
            self._n_blocks(n_rows * n2),
            _THREADS,
            (*sizes, upstream, mu, weight, weighted),
        )
        field = self._field(machine, mu, nu, (first, second))
        earlier = self.gpu.empty((n_rows, n1), dtype)
        dW = self.gpu.empty((n1, n2), dtype)
        earlier[:, :first] = weighted @ machine.W[:first].T
        dW[:first] = nu[:, :first].T @ weighted
        same = None
        if first < n1:
            earlier[:, first:] = weighted[:, second:] @ machine.W[first:, second:].T
            dW[first:, second:] = nu[:, first:n1].T @ weighted[:, second:]
            same = self.gpu.contiguous(weighted[:, :second] @ machine.W[first:, :second].T)
            dW[first:, :second] = mu[:, first:n1].T @ weighted[:, :second]
        da = weight @ mu
        dmu, dnu = (self.gpu.empty((n_rows, n1 + n2), dtype) for _ in range(2))
        self.gpu.kernel(_FILE, f"unit_gradients<{real}>")(
            self._n_blocks(n_rows * (n1 + n2)),
            _THREADS,
            (*sizes, np.int32(first), weight, machine.a1, machine.a2, field, earlier, same, dmu, dnu),
        )
        return CrossEntropyGradients(dmu, dnu, da[:n1], da[n1:], dW)

    def importance_log_mean(self, log_weights: Any, running: LogMean | None = None) -> LogMean:
        """See ``accelerated.protocol.Backend.importance_log_mean``. One pass; a row's result depends on it alone."""
        dtype = common_dtype(log_weights=log_weights)
        n_rows, n_weights = check_matrix("log_weights", log_weights)
        count = check_count("the number of log_weights in a row", n_weights)
        log_weights = self.gpu.contiguous(self.gpu.array("log_weights", log_weights))
        before: tuple[Any, Any] = (None, None)
        if running is not None:
            count += check_running(running, n_rows)
            before = (
                self.gpu.contiguous(self.gpu.array("running.largest", running.largest)),
                self.gpu.contiguous(self.gpu.array("running.total", running.total)),
            )
        value, largest, total = (self.gpu.empty(n_rows, np.float64) for _ in range(3))
        rows = _Rows(n_rows, n_weights)
        if n_rows:
            self.gpu.kernel(_FILE, f"importance_log_mean<{c_type(dtype)}>")(
                rows.n_blocks,
                _THREADS,
                (
                    np.int64(n_rows),
                    np.int64(n_weights),
                    log_weights,
                    *before,
                    np.float64(math.log(count)),
                    value,
                    largest,
                    total,
                    rows.lanes,
                ),
            )
        return LogMean(value, largest, total, count)

    def _posterior(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> tuple[Machine, Any, Any, tuple[int, int]]:
        """The arguments as contiguous arrays of the device, and where a group straddles the machine's two sides.

        Units first .. n1 - 1 and n1 .. n1 + second - 1 share a group; (n1, 0) if none does.
        """
        sizes, _, size = check_posterior(rbm, mu, nu, n_groups)
        first = sizes.n1 // size * size
        straddle = (first, first + size - sizes.n1) if first < sizes.n1 else (sizes.n1, 0)
        machine = machine_on(self.gpu, rbm)
        mu, nu = (self.gpu.contiguous(self.gpu.array(name, part)) for name, part in (("mu", mu), ("nu", nu)))
        return machine, mu, nu, straddle

    def _field(self, machine: Machine, mu: Any, nu: Any, straddle: tuple[int, int]) -> Any:
        """What the couplings bring to the second side, (B, N2): nu of earlier groups, and mu of a unit's own."""
        (first, second), n1 = straddle, machine.W.shape[0]
        if first == n1:
            return self.gpu.contiguous(nu[:, :n1] @ machine.W)
        field = self.gpu.empty((mu.shape[0], machine.W.shape[1]), mu.dtype)
        field[:, :second] = nu[:, :first] @ machine.W[:first, :second] + mu[:, first:n1] @ machine.W[first:, :second]
        field[:, second:] = nu[:, :n1] @ machine.W[:, second:]
        return field

    def _n_blocks(self, n_threads: int) -> int:
        return min(-(-n_threads // _THREADS), _BLOCKS * self.gpu.n_multiprocessors)


class _Rows(NamedTuple):
    """How rows are spread over blocks: by their length alone, so that a row's sums do not depend on its neighbours."""

    n_rows: int
    n_columns: int

    @property
    def lanes(self) -> np.int32:
        return np.int32(_THREADS if self.n_columns >= _LONG_ROW else 32)

    @property
    def n_blocks(self) -> int:
        return -(-self.n_rows * int(self.lanes) // _THREADS)


def sharpness_constants(beta: float) -> tuple[np.floating, ...]:
    """What the kernels need of the sharpness, in the order of ``Sharpness`` in smoothing.cuh, then all in float32.

    beta, 1/beta, d = e^-beta, e^{-beta/2}, 1 - d, 2 (1 - d)/beta and (1 - d)^2/(2 beta); in float32 also growth and
    whole, for which e^beta = growth 2^whole, and tanh(beta/4).
    """
    lost = -math.expm1(-beta)
    parts = beta, 1 / beta, math.exp(-beta), math.exp(-beta / 2), lost, 2 * (lost / beta), lost * (lost / beta) / 2
    with np.errstate(over="ignore", under="ignore"):  # a sharpness of float64 may be none of float32, and is not used
        single = *map(np.float32, parts), *map(np.float32, _scaled_exp(beta)), np.float32(math.tanh(beta / 4))
    return (*(np.float64(part) for part in parts), *single)


def _scaled_exp(exponent: float) -> tuple[float, int]:
    """e^exponent = mantissa 2^whole, the mantissa in [0.7, 1.42]; up to e^10000, far beyond what the kernels use."""
    exponent = min(exponent, 1e4)
    whole = round(exponent / math.log(2))
    high = float.fromhex("0x1.62e42feep-1")  # of log 2; times whole it is exact
    return math.exp((exponent - whole * high) - whole * float.fromhex("0x1.a39ef35793c76p-33")), whole
