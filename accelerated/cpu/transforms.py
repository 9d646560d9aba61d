"""Transforms on the CPU: loops over ``accelerated.scalar``, compiled for what is asked for, cut between threads."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from accelerated import scalar
from accelerated.arguments import (
    check_matrix,
    check_output,
    check_posterior,
    check_running,
    check_transform,
    check_upstream,
    common_dtype,
)
from accelerated.cpu import threads
from accelerated.cpu.bits import PRIMITIVES
from accelerated.jit import inline, jit
from accelerated.protocol import EXTRAS, CrossEntropyGradients, Entropy, LogMean, Smoothed
from accelerated.scalar import single
from reference.vocabulary import Array, check_count

_SMALL = 1 << 14  # elements that one thread has done before another has woken up
_PIECES = 8  # at most for each thread, so that one that is held up delays the end by little
_BLOCK = 256  # elements whose intermediate numbers stay in the nearest cache
_LARGEST = {np.dtype(dtype): float(np.finfo(dtype).max) for dtype in (np.float32, np.float64)}

_of_target = functools.partial(scalar.compiled, decorate=inline, primitives=PRIMITIVES)
_odds, _root, _distance = (_of_target(one) for one in (single.odds, single.exponential_root, single.distance))
_sigmoid, _entropy32, _entropy64 = (_of_target(one) for one in (single.sigmoid, single.entropy, scalar.entropy))
# Rows of a block's intermediate numbers, a cache line apart from a power of two: else they would share cache sets.
_ROW, _N_ROWS = _BLOCK + 8, 12
_RHO, _LOGIT, _ODDS, _A, _B, _DIFFERENCE, _SHIFT, _SIDE, _SLOPE_Q, _SLOPE_RHO, _ZETA, _RATIO = (
    _ROW * i for i in range(_N_ROWS)
)
_FLAT, _GENTLE, _SHARP = single.FLAT, single.GENTLE, single.SHARP


class Transforms:
    """The operations that draw no random numbers; see ``accelerated.protocol.Backend`` for each."""

    n_threads: int

    def inverse_cdf(
        self,
        kind: str,
        rho: Any,
        logit_q: Any,
        beta: float,
        extras: Collection[str] = ("dzeta_dlogit_q",),
        out: Smoothed | None = None,
    ) -> Smoothed:
        """See ``accelerated.protocol.Backend.inverse_cdf``."""
        beta, dtype = check_transform(kind, rho, logit_q, beta, extras)
        wanted = ("zeta", *(name for name in EXTRAS if name in extras))
        if out is None:
            found = {name: np.empty(rho.shape, dtype) for name in wanted}
        else:
            found = {name: _target(f"out.{name}", getattr(out, name), rho.shape, dtype) for name in wanted}
        flat = [None if name not in found else found[name].reshape(-1) for name in ("zeta", *EXTRAS)]
        fast = kind == "exponential" and dtype == np.float32 and "dzeta_dbeta" not in found and _FLAT < beta < _SHARP
        kernel = _exponential32 if fast else _elements(kind)
        fixed = scalar.sharpness(kind, beta), _LARGEST[dtype]
        r, logit = (np.ascontiguousarray(array).reshape(-1) for array in (rho, logit_q))

        def run(start: int, stop: int) -> None:
            kernel(r[start:stop], logit[start:stop], *fixed, *(None if x is None else x[start:stop] for x in flat))

        _in_slices(run, r.size, r.size, self.n_threads, _BLOCK)
        return Smoothed(**found)

    def entropy(self, logit_q: Any) -> Entropy:
        """See ``accelerated.protocol.Backend.entropy``."""
        dtype = common_dtype(logit_q=logit_q)
        n_rows, n_units = check_matrix("logit_q", logit_q)
        logit = np.ascontiguousarray(logit_q)
        value, slope = np.empty(n_rows, dtype), np.empty((n_rows, n_units), dtype)
        kernel = _entropy_rows32 if dtype == np.float32 else _entropy_rows64
        _in_slices(lambda i, j: kernel(logit[i:j], value[i:j], slope[i:j]), n_rows, logit.size, self.n_threads)
        return Entropy(value, slope)

    def cross_entropy(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> Array:
        """See ``accelerated.protocol.Backend.cross_entropy``; the matrix products are BLAS's, in the dtype."""
        parts = _Coupled(rbm, mu, nu, n_groups)
        value = _row_sums(parts.mu1, rbm.a1) + _row_sums(parts.mu2, parts.source @ rbm.W + rbm.a2)
        for first, second, W in parts.shared:
            value += _row_sums(parts.mu2[:, second], parts.excess[:, first] @ W)
        return (-value).astype(parts.dtype)

    def cross_entropy_gradients(
        self, rbm: Any, mu: Any, nu: Any, n_groups: int, upstream: Any
    ) -> CrossEntropyGradients:
        """See ``accelerated.protocol.Backend.cross_entropy_gradients``.

        With c the nu of side 1, or its mu where nothing is seen of it (one group, and inside the group that straddles
        both sides), the value of a row is -a1'mu1 - a2'mu2 - c'W mu2.
        """
        parts = _Coupled(rbm, mu, nu, n_groups)
        n_rows, n1 = len(mu), len(rbm.a1)
        check_upstream(upstream, n_rows, parts.dtype)
        minus = -upstream[:, None]
        weighted = minus * parts.mu2
        of_source = weighted @ rbm.W.T
        dmu, dnu = np.empty((n_rows, mu.shape[1]), parts.dtype), np.zeros((n_rows, mu.shape[1]), parts.dtype)
        dmu[:, :n1] = minus * rbm.a1
        dmu[:, n1:] = minus * (parts.source @ rbm.W + rbm.a2)
        (dmu if n_groups == 1 else dnu)[:, :n1] += of_source
        dW = parts.source.T @ weighted
        for first, second, W in parts.shared:
            moved = weighted[:, second] @ W.T
            dmu[:, :n1][:, first] += moved
            dnu[:, :n1][:, first] -= moved
            dmu[:, n1:][:, second] += minus * (parts.excess[:, first] @ W)
            dW[first, second] += parts.excess[:, first].T @ weighted[:, second]
        return CrossEntropyGradients(dmu, dnu, (minus * parts.mu1).sum(axis=0), weighted.sum(axis=0), dW)

    def importance_log_mean(self, log_weights: Any, running: LogMean | None = None) -> LogMean:
        """See ``accelerated.protocol.Backend.importance_log_mean``."""
        common_dtype(log_weights=log_weights)
        n_rows, n_weights = check_matrix("log_weights", log_weights)
        count = check_count("the number of log_weights in a row", n_weights)
        if running is None:
            largest, total = np.full(n_rows, -np.inf), np.zeros(n_rows)
        else:
            count += check_running(running, n_rows)
            largest, total = running.largest.copy(), running.total.copy()
        value, w = np.empty(n_rows), np.ascontiguousarray(log_weights)

        def run(start: int, stop: int) -> None:
            _log_mean_rows(w[start:stop], float(count), *(x[start:stop] for x in (largest, total, value)))

        _in_slices(run, n_rows, w.size, self.n_threads)
        return LogMean(value, largest, total, count)


def _in_slices(run: Callable[[int, int], Any], n: int, n_elements: int, n_threads: int, grain: int = 1) -> None:
    """Run(start, stop) over range(n), cut between threads where there are enough elements to share."""
    n_threads = check_count("n_threads", n_threads) if n_elements >= _SMALL else 1
    threads.over(run, n, n_threads, min(_PIECES, n_elements // (n_threads * _SMALL)), grain)


def _target(name: str, array: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """An array of the caller's to write into.

    Raises   TypeError or ShapeError for one that does not fit.
    """
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be a NumPy array of {dtype}; got {got}")
    check_output(name, array, tuple(shape), dtype)
    if not array.flags.writeable:
        raise TypeError(f"{name} must be writeable; it is read-only")
    return array


# ---- the inverse CDF ------------------------------------------------------------------------------------------------


# One kind's functions; ``_elements`` puts in those of another.
_inverse_cdf, _log_ratio, _nu = scalar.exponential, scalar.exponential_log_ratio, scalar.exponential_nu


@functools.cache
def _elements(kind: str) -> Any:
    """The general kernel with a kind's functions: an element after the other, in float64, each result rounded once."""
    functions = {
        "_inverse_cdf": _of_target(scalar.INVERSE_CDF[kind]),
        "_log_ratio": _of_target(scalar.LOG_RATIO[kind]),
        "_nu": _of_target(scalar.NU[kind]),
    }
    name = f"_{kind}_elements"
    kernel = FunctionType(_any_elements.__code__, globals() | functions, name)
    kernel.__qualname__, kernel.__module__ = name, __name__  # by which its compiled code is kept on disk
    return jit(kernel)


def _any_elements(rho, logit_q, sharpness, largest, zeta, dlogit_q, drho, dbeta, log_ratio, nu):  # type: ignore[no-untyped-def]
    """Kernel of any kind; an output that is None is not computed. NaN where rho or logit_q is outside its domain."""
    for i in range(rho.size):
        r, logit = np.float64(rho[i]), np.float64(logit_q[i])
        inside = 0 <= r <= 1 and not math.isnan(logit)
        x = by_logit_q = by_rho = by_beta = math.nan
        if inside:
            x, by_logit_q, by_rho, by_beta = _inverse_cdf(r, logit, sharpness, dbeta is not None)
        zeta[i] = x
        if dlogit_q is not None:
            dlogit_q[i] = min(max(by_logit_q, -largest), largest) if inside else math.nan
        if drho is not None:
            drho[i] = min(by_rho, largest) if inside else math.nan
        if dbeta is not None:
            dbeta[i] = min(max(by_beta, -largest), largest) if inside else math.nan
        if log_ratio is not None:
            log_ratio[i] = _log_ratio(np.float64(zeta[i]), sharpness) if inside else math.nan
        if nu is not None:
            if not inside:
                nu[i] = math.nan
            elif math.isinf(logit):
                nu[i] = 1.0 if logit > 0 else 0.0
            else:
                nu[i] = _nu(np.float64(zeta[i]), logit, sharpness)


@jit
def _exponential32(rho, logit_q, sharpness, largest, zeta, dlogit_q, drho, dbeta, log_ratio, nu):  # type: ignore[no-untyped-def]
    """Kernel of the exponential kind in float32, a block at a time; see ``accelerated.scalar.single``. No dbeta.

    Every loop is one that LLVM vectorises: over rows of one array at known distances, or over slices (an index that is
    a sum might be negative, for all that LLVM knows).
    """
    beta, one_minus_d = sharpness[0], sharpness[3]
    by_logit_q, by_rho, inverse = 4 * one_minus_d * one_minus_d / beta, one_minus_d / beta, 1 / beta
    gentle = beta < _GENTLE
    w = np.zeros(_N_ROWS * _ROW)
    for start in range(0, rho.size, _BLOCK):
        block = slice(start, min(start + _BLOCK, rho.size))  # of the last more is computed, but not written
        rho_in, logit_in, zeta_out = rho[block], logit_q[block], zeta[block]
        for i in range(rho_in.size):
            r, logit = np.float64(rho_in[i]), np.float64(logit_in[i])
            w[_RHO + i] = r if (r >= 0) & (r <= 1) & (logit == logit) else math.nan
            w[_LOGIT + i] = logit
        for i in range(_BLOCK):
            w[_ODDS + i] = _odds(w[_LOGIT + i])
        if gentle:
            for i in range(_BLOCK):
                a, b, difference, _, side, slope_q, slope_rho = _root(
                    w[_RHO + i], w[_LOGIT + i], w[_ODDS + i], sharpness, True
                )
                w[_A + i], w[_B + i], w[_DIFFERENCE + i], w[_SIDE + i] = a, b, difference, side
                if dlogit_q is not None:
                    w[_SLOPE_Q + i] = slope_q
                if drho is not None:
                    w[_SLOPE_RHO + i] = slope_rho
            for i in range(_BLOCK):
                x = _distance(w[_A + i], w[_B + i], w[_DIFFERENCE + i], 0.0, inverse)
                w[_ZETA + i] = x if w[_SIDE + i] > 0 else 1.0 - x
        else:
            for i in range(_BLOCK):
                a, b, difference, shift, side, slope_q, slope_rho = _root(
                    w[_RHO + i], w[_LOGIT + i], w[_ODDS + i], sharpness, False
                )
                w[_A + i], w[_B + i], w[_DIFFERENCE + i], w[_SIDE + i] = a, b, difference, side
                w[_SHIFT + i] = shift
                if dlogit_q is not None:
                    w[_SLOPE_Q + i] = slope_q
                if drho is not None:
                    w[_SLOPE_RHO + i] = slope_rho
            for i in range(_BLOCK):
                x = _distance(w[_A + i], w[_B + i], w[_DIFFERENCE + i], w[_SHIFT + i], inverse)
                w[_ZETA + i] = x if w[_SIDE + i] > 0 else 1.0 - x
        for i in range(zeta_out.size):
            zeta_out[i] = w[_ZETA + i]
        if dlogit_q is not None:
            dlogit_q_out = dlogit_q[block]
            for i in range(dlogit_q_out.size):
                slope = by_logit_q * w[_SLOPE_Q + i]
                dlogit_q_out[i] = largest if slope > largest else slope
        if drho is not None:
            drho_out = drho[block]
            for i in range(drho_out.size):
                slope = by_rho * w[_SLOPE_RHO + i]
                drho_out[i] = largest if slope > largest else slope
        if log_ratio is not None or nu is not None:
            for i in range(zeta_out.size):
                w[_RATIO + i] = beta * (2 * np.float64(zeta_out[i]) - 1)
        if log_ratio is not None:
            log_ratio_out = log_ratio[block]
            for i in range(log_ratio_out.size):
                log_ratio_out[i] = w[_RATIO + i]
        if nu is not None:
            nu_out = nu[block]
            for i in range(_BLOCK):
                w[_A + i] = _sigmoid(w[_LOGIT + i] + w[_RATIO + i])
            for i in range(nu_out.size):
                nu_out[i] = w[_A + i]


# ---- entropy, importance weights ------------------------------------------------------------------------------------


@jit
def _entropy_rows32(logit_q, value, slope):  # type: ignore[no-untyped-def]
    """Kernel of the entropy of float32 rows; see ``reference.bernoulli.entropy``."""
    n_rows, n_units = logit_q.shape
    w = np.zeros(3 * _ROW)
    for row in range(n_rows):
        total = 0.0
        for start in range(0, n_units, _BLOCK):
            block = slice(start, min(start + _BLOCK, n_units))
            logit_in, slope_out = logit_q[row, block], slope[row, block]
            for i in range(logit_in.size):
                w[i] = logit_in[i]
            for i in range(_BLOCK):
                w[_ROW + i], w[2 * _ROW + i] = _entropy32(w[i])
            for i in range(slope_out.size):
                slope_out[i] = w[2 * _ROW + i]
            for i in range(slope_out.size):
                total += w[_ROW + i]
        value[row] = total


@jit
def _entropy_rows64(logit_q, value, slope):  # type: ignore[no-untyped-def]
    """Kernel of the entropy of float64 rows; see ``reference.bernoulli.entropy``."""
    for row in range(logit_q.shape[0]):
        total = 0.0
        for i in range(logit_q.shape[1]):
            one, slope[row, i] = _entropy64(logit_q[row, i])
            total += one
        value[row] = total


@jit
def _log_mean_rows(w, count, largest, total, value):  # type: ignore[no-untyped-def]
    """Kernel of ``reference.bound.StreamingLogMeanExp``, in blocks: the weights are read from memory once."""
    for row in range(w.shape[0]):
        for start in range(0, w.shape[1], _BLOCK):
            stop = min(start + _BLOCK, w.shape[1])
            before = highest = largest[row]
            for i in range(start, stop):
                one = np.float64(w[row, i])
                if one > highest or math.isnan(one):  # NaN stays: nothing is larger
                    highest = one
            unit = 0.0 if math.isinf(highest) else highest
            rescaled = 0.0 if total[row] == 0 else total[row] * math.exp(before - unit)
            for i in range(start, stop):
                rescaled += math.exp(np.float64(w[row, i]) - unit)
            largest[row], total[row] = highest, rescaled
        unit = 0.0 if math.isinf(largest[row]) else largest[row]
        value[row] = unit + math.log(total[row]) - math.log(count)


# ---- cross-entropy --------------------------------------------------------------------------------------------------


class _Coupled:
    """The checked arguments of a cross-entropy, cut into the sides of the machine; see ``dvaepp.boltzmann``'s twin."""

    def __init__(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> None:
        sizes, _, group_size = check_posterior(rbm, mu, nu, n_groups)
        self.dtype = sizes.dtype
        self.mu1, self.mu2 = mu[:, : sizes.n1], mu[:, sizes.n1 :]
        nu1 = nu[:, : sizes.n1]
        self.source = self.mu1 if n_groups == 1 else nu1
        self.excess = self.mu1 - nu1
        # Inside the group that straddles both sides nu of ``source`` has to become mu again.
        start = sizes.n1 // group_size * group_size
        stop = start + group_size - sizes.n1
        straddles = n_groups > 1 and start < sizes.n1
        self.shared = [(slice(start, sizes.n1), slice(0, stop), rbm.W[start:, :stop])] if straddles else []


def _row_sums(a: Array, b: Array) -> Array:
    """Sums of a b over each row, in float64."""
    return np.einsum("bi,i->b" if b.ndim == 1 else "bi,bi->b", a, b, dtype=np.float64)
