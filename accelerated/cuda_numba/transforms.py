"""The transforms and sums: checks of arguments, memory, launches."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from accelerated import scalar
from accelerated.arguments import (
    check_matrix,
    check_posterior,
    check_running,
    check_transform,
    check_upstream,
    common_dtype,
)
from accelerated.cuda_numba import sums
from accelerated.cuda_numba.arrays import blocks_for, contiguous, machine_view, output, view
from accelerated.cuda_numba.chains import n_lanes
from accelerated.cuda_numba.elementwise import inverse_cdf_kernel
from accelerated.cuda_numba.launching import Launching
from accelerated.protocol import EXTRAS, CrossEntropyGradients, Entropy, LogMean, Smoothed
from reference.vocabulary import check_count


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
            results[name] = self.new(shape, dtype) if out is None else getattr(out, name)
            array = output(f"out.{name}", results[name], shape, dtype)
            flat[name] = array.reshape(array.size)
        n = flat["zeta"].size
        if n:
            n_threads = self.threads_for(n)
            named = ("rho", rho), ("logit_q", logit_q)
            sources = [contiguous(name, array, stream, n_threads).reshape(n) for name, array in named]
            kernel = inverse_cdf_kernel(kind, dtype, frozenset(names[1:]))
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
        sizes, n_rows, group_size = check_posterior(rbm, mu, nu, n_groups)
        value = self.new((n_rows,), sizes.dtype)
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
        (n1, n2, dtype), n_rows, group_size = check_posterior(rbm, mu, nu, n_groups)
        check_upstream(upstream, n_rows, dtype)
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
            old_count = check_running(running, n_rows)
            old_largest, old_total = view("running.largest", running.largest), view("running.total", running.total)
            count += old_count
        if n_rows:
            lanes = n_lanes(n_weights)
            sums.log_mean[n_rows, self.threads_for(lanes), self.launch_stream(), 8 * lanes](
                log_weights, lanes, count, old_largest, old_total, old_count, value, largest, total
            )
        return LogMean(value, largest, total, count)
