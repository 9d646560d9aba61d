"""The transforms and sums: checks of arguments, memory, launches."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from accelerated import scalar
from accelerated.arguments import check_machine, check_matrix, check_rows, check_transform, common_dtype, dtype_of
from accelerated.cuda_numba import sums
from accelerated.cuda_numba.arrays import blocks_for, contiguous, machine_view, output, view
from accelerated.cuda_numba.chains import n_lanes
from accelerated.cuda_numba.elementwise import inverse_cdf_kernel
from accelerated.cuda_numba.launching import Launching
from accelerated.protocol import EXTRAS, CrossEntropyGradients, Entropy, LogMean, Smoothed
from reference.boltzmann_kl import group_slices
from reference.vocabulary import ShapeError, check_count


class Transforms(Launching):
    """Smoothings, entropies, cross-entropies, log-means; see ``accelerated.protocol.Backend`` for each."""

    def inverse_cdf(
        self,
        kind: str,
        rho: Any,
        logit_q: Any,
        beta: float,
        extras: Collection[str] = ("dzeta_dlogit_q",),
        out: Smoothed | None = None,
    ) -> Smoothed:
        """See ``accelerated.protocol.Backend.inverse_cdf``. In float64 throughout, rounded once."""
        rho, logit_q = view("rho", rho), view("logit_q", logit_q)
        sharpness, dtype = check_transform(kind, rho, logit_q, beta, extras)
        stream, shape = self.launch_stream(), tuple(rho.shape)
        names = ("zeta", *(name for name in EXTRAS if name in extras))
        results, flat = {}, {}
        for name in names:
            given = None if out is None else getattr(out, name)
            if out is not None and given is None:
                raise TypeError(f"out.{name} must be an array, for it is asked for; got None")
            results[name], array = output(f"out.{name}", given, shape, dtype, stream)
            flat[name] = array.reshape(array.size)
        n = flat["zeta"].size
        if n:
            sources = (contiguous(array, stream, self.threads_for(n)).reshape(n) for array in (rho, logit_q))
            kernel = inverse_cdf_kernel(kind, dtype, frozenset(names[1:]))
            n_threads = self.threads_for(n)
            kernel[blocks_for(n, n_threads), n_threads, stream](
                *sources,
                scalar.sharpness(kind, sharpness),
                *(flat.get(name, flat["zeta"]) for name in ("zeta", *EXTRAS)),
            )
        return Smoothed(**results)

    def entropy(self, logit_q: Any) -> Entropy:
        """See ``accelerated.protocol.Backend.entropy``. In float64 throughout, rounded once."""
        logit_q = view("logit_q", logit_q)
        dtype = common_dtype(logit_q=logit_q)
        n_rows, n_units = check_matrix("logit_q", logit_q)
        value = self.new((n_rows,), dtype)
        derivative = self.new((n_rows, n_units), dtype)
        if n_rows:
            lanes = n_lanes(n_units)
            sums.entropy[n_rows, self.threads_for(lanes), self.launch_stream(), 8 * lanes](
                logit_q, lanes, value, derivative
            )
        return Entropy(value, derivative)

    def cross_entropy(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> Any:
        """See ``accelerated.protocol.Backend.cross_entropy``. In float64 throughout, rounded once."""
        rbm, mu, nu = machine_view(rbm), view("mu", mu), view("nu", nu)
        dtype, n_rows, group_size = _check_cross_entropy(rbm, mu, nu, n_groups)
        value = self.new((n_rows,), dtype)
        if n_rows:
            lanes = n_lanes(max(rbm.W.shape))
            n_threads, n_bytes = self.threads_for(lanes), 8 * sums.TILE * lanes
            sums.cross_entropy[-(-n_rows // sums.TILE), n_threads, self.launch_stream(), n_bytes](
                rbm.a1, rbm.a2, rbm.W, mu, nu, group_size, lanes, value
            )
        return value

    def cross_entropy_gradients(
        self, rbm: Any, mu: Any, nu: Any, n_groups: int, upstream: Any
    ) -> CrossEntropyGradients:
        """See ``accelerated.protocol.Backend.cross_entropy_gradients``. In float64 throughout, rounded once."""
        rbm, mu, nu, upstream = machine_view(rbm), view("mu", mu), view("nu", nu), view("upstream", upstream)
        dtype, n_rows, group_size = _check_cross_entropy(rbm, mu, nu, n_groups)
        if dtype_of("upstream", upstream) != dtype:
            raise TypeError(f"upstream must be {dtype}, the dtype of the machine; got {upstream.dtype}")
        if tuple(upstream.shape) != (n_rows,):
            raise ShapeError(f"upstream must have the {n_rows} rows of mu; got {tuple(upstream.shape)}")
        n1, n2 = (int(n) for n in rbm.W.shape)
        dmu, dnu = self.new((n_rows, n1 + n2), dtype), self.new((n_rows, n1 + n2), dtype)
        da1, da2, dW = self.new((n1,), dtype), self.new((n2,), dtype), self.new((n1, n2), dtype)
        if n_rows:
            packed1, _ = self.packed(rbm, dtype)
            sums.cross_entropy_by_units[-(-n_rows // sums.TILE), self.threads_for(max(n1, n2)), self.launch_stream()](
                rbm.a1, rbm.a2, rbm.W, packed1, mu, nu, group_size, upstream, dmu, dnu
            )
        n_entries = n1 * n2 + n1 + n2  # without rows they are 0
        n_threads = self.threads_for(n_entries)
        sums.cross_entropy_by_parameters[blocks_for(n_entries, n_threads), n_threads, self.launch_stream()](
            mu, nu, group_size, upstream, da1, da2, dW
        )
        return CrossEntropyGradients(dmu, dnu, da1, da2, dW)

    def importance_log_mean(self, log_weights: Any, running: LogMean | None = None) -> LogMean:
        """See ``accelerated.protocol.Backend.importance_log_mean``."""
        log_weights = view("log_weights", log_weights)
        common_dtype(log_weights=log_weights)
        n_rows, n_weights = check_matrix("log_weights", log_weights)
        count = check_count("the number of log_weights in a row", n_weights)
        value, largest, total = (self.new((n_rows,), np.dtype(np.float64)) for _ in range(3))
        old_largest, old_total, old_count = largest, total, 0
        if running is not None:
            old_largest, old_total = view("running.largest", running.largest), view("running.total", running.total)
            old_count = check_count("running.n_weights", running.n_weights)
            for name, array in (("running.largest", old_largest), ("running.total", old_total)):
                if dtype_of(name, array) != np.float64:
                    raise TypeError(f"{name} must be float64; got {array.dtype}")
                if tuple(array.shape) != (n_rows,):
                    raise ShapeError(f"{name} must be of {n_rows} rows; got {tuple(array.shape)}")
            count += old_count
        if n_rows:
            lanes = n_lanes(n_weights)
            sums.log_mean[n_rows, self.threads_for(lanes), self.launch_stream(), 8 * lanes](
                log_weights, lanes, count, old_largest, old_total, old_count, value, largest, total
            )
        return LogMean(value, largest, total, count)


def _check_cross_entropy(rbm: Any, mu: Any, nu: Any, n_groups: int) -> tuple[np.dtype[Any], int, int]:
    """Dtype, rows, and units of a group."""
    sizes = check_machine(rbm)
    n_units = sizes.n1 + sizes.n2
    n_rows = check_rows("mu", mu, n_units, sizes.dtype)
    if check_rows("nu", nu, n_units, sizes.dtype) != n_rows:
        raise ShapeError(f"nu must have the {n_rows} rows of mu; got {tuple(nu.shape)}")
    return sizes.dtype, n_rows, group_slices(n_units, n_groups)[0].stop
