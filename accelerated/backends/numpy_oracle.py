"""The reference behind the common interface: the judge is a backend too. Runs everywhere.

Everything is computed in float64 by ``reference`` and rounded once, to the dtype of the arguments.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any, Literal

import numpy as np

import reference.bernoulli
import reference.boltzmann_kl
import reference.partition
import reference.smoothing
from accelerated.arguments import (
    check_address,
    check_base,
    check_machine,
    check_matrix,
    check_output,
    check_path,
    check_posterior,
    check_rows,
    check_running,
    check_tempering,
    check_transform,
    check_upstream,
    common_dtype,
)
from accelerated.protocol import (
    EXTRAS,
    OPERATIONS,
    Backend,
    CrossEntropyGradients,
    Entropy,
    LogMean,
    Smoothed,
    TemperedReplicas,
)
from reference import gibbs, philox, tempering
from reference.vocabulary import RBM, Array, check_count

_SMOOTHINGS: dict[str, Any] = {
    "exponential": reference.smoothing.OverlappingExponential,
    "logistic": reference.smoothing.OverlappingLogistic,
    "spike_exponential": reference.smoothing.SpikeExponential,
    "power": reference.smoothing.PowerFunction,
}


class NumpyOracle:
    """All operations, by calling ``reference``; see ``accelerated.protocol.Backend`` for each."""

    name = "numpy_oracle"
    device: Literal["cpu"] = "cpu"

    def operations(self) -> frozenset[str]:
        """All of them."""
        return OPERATIONS

    def asarray(self, array: Any) -> Array:
        """NumPy arrays are this backend's own."""
        return np.asarray(array)

    def to_numpy(self, array: Any) -> Array:
        """NumPy arrays are this backend's own."""
        return np.asarray(array)

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
        sharpness, dtype = check_transform(kind, rho, logit_q, beta, extras)
        smoothing = _SMOOTHINGS[kind](sharpness)
        result = smoothing.inverse_cdf_with_derivatives(rho, logit_q)
        found = {"zeta": result.zeta}
        for extra in extras:
            if extra == "log_ratio":
                found[extra] = smoothing.log_ratio(result.zeta)
            elif extra == "nu":
                found[extra] = smoothing.nu(result.zeta, logit_q)
            else:
                found[extra] = getattr(result, extra)
        if out is None:
            return Smoothed(**found)
        for name, value in found.items():
            check_output(f"out.{name}", getattr(out, name), value.shape, dtype)
            np.copyto(getattr(out, name), value)
        return Smoothed(**{name: getattr(out, name) for name in ("zeta", *EXTRAS) if name in found})

    def entropy(self, logit_q: Any) -> Entropy:
        """See ``accelerated.protocol.Backend.entropy``. The derivative of H is -l sigma(l) sigma(-l)."""
        dtype = common_dtype(logit_q=logit_q)
        check_matrix("logit_q", logit_q)
        logit = logit_q.astype(np.float64)
        value = reference.bernoulli.entropy(logit).sum(axis=1)
        slope = reference.bernoulli.sigmoid(logit) * reference.bernoulli.sigmoid(-logit)
        derivative = -np.where(np.isinf(logit), 0.0, logit) * slope
        return Entropy(value.astype(dtype), derivative.astype(dtype))

    def cross_entropy(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> Array:
        """See ``accelerated.protocol.Backend.cross_entropy``."""
        sizes, _, _ = check_posterior(rbm, mu, nu, n_groups)
        return reference.boltzmann_kl.cross_entropy(_as_rbm(rbm), mu, nu, n_groups).astype(sizes.dtype)

    def cross_entropy_gradients(
        self, rbm: Any, mu: Any, nu: Any, n_groups: int, upstream: Any
    ) -> CrossEntropyGradients:
        """See ``accelerated.protocol.Backend.cross_entropy_gradients``.

        The reference differentiates the KL in logits, of which the entropy is a part. The cross-entropy is bilinear:
        its derivative in one mu is a difference of two values, exact up to rounding.
        """
        sizes, n_rows, _ = check_posterior(rbm, mu, nu, n_groups)
        check_upstream(upstream, n_rows, sizes.dtype)
        n_units, machine = sizes.n1 + sizes.n2, _as_rbm(rbm)
        weight = upstream.astype(np.float64)[:, None]
        mu, nu = mu.astype(np.float64), nu.astype(np.float64)

        def value(mean: Array) -> Array:
            return reference.boltzmann_kl.cross_entropy(machine, mean, nu, n_groups)

        dmu = np.empty_like(mu)
        for unit in range(n_units):
            on, off = mu.copy(), mu.copy()
            on[:, unit], off[:, unit] = 1.0, 0.0
            dmu[:, unit] = value(on) - value(off)
        # The parameters' derivatives and nu's have no entropy in them; the logits belong to mu.
        with np.errstate(divide="ignore"):
            logit_q = np.log(mu) - np.log1p(-mu)
        kl = reference.boltzmann_kl.kl_with_gradients(machine, logit_q, nu, n_groups, 0.0)
        parts = (
            weight * dmu,
            weight * kl.dkl_dnu,
            (weight * kl.dkl_da1).sum(axis=0),
            (weight * kl.dkl_da2).sum(axis=0),
            (weight[..., None] * kl.dkl_dW).sum(axis=0),
        )
        return CrossEntropyGradients(*(part.astype(sizes.dtype) for part in parts))

    def gibbs(
        self,
        rbm: Any,
        z1: Any,
        n_sweeps: int,
        seed: int,
        step: int,
        first_chain: int = 0,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[Array, Array]:
        """See ``accelerated.protocol.Backend.gibbs``."""
        sizes = check_machine(rbm)
        n_chains = check_rows("z1", z1, sizes.n1, sizes.dtype)
        n_sweeps = check_count("n_sweeps", n_sweeps)  # at least one: it is the sweep that draws z2
        seed, step, first_chain = check_address(seed, step, n_sweeps, n_chains, first_chain)
        machine, first, second = _as_rbm(rbm), z1, np.zeros((n_chains, sizes.n2))
        for now in range(step, step + n_sweeps):
            u2 = philox.uniforms(seed, now, n_chains, sizes.n2, philox.STREAM_Z2, first_chain)
            u1 = philox.uniforms(seed, now, n_chains, sizes.n1, philox.STREAM_Z1, first_chain)
            first, second = gibbs.sweep(machine, first, u2, u1)
        states = first.astype(sizes.dtype), second.astype(sizes.dtype)
        if out is None:
            return states
        for i, (target, state) in enumerate(zip(out, states, strict=True)):
            check_output(f"out[{i}]", target, state.shape, sizes.dtype)
            np.copyto(target, state)
        return out

    def tempering(
        self,
        rbm: Any,
        inv_temps: Any,
        n_chains: int,
        n_rounds: int,
        seed: int,
        first_round: int = 0,
        z1: Any = None,
        sweeps_per_round: int = 1,
    ) -> TemperedReplicas:
        """See ``accelerated.protocol.Backend.tempering``."""
        sizes = check_machine(rbm)
        ladder, n_chains, n_rounds, seed, first_round, sweeps, _ = check_tempering(
            sizes, inv_temps, n_chains, n_rounds, seed, first_round, z1, sweeps_per_round
        )
        rounds = tempering.replica_rounds(_as_rbm(rbm), ladder, n_chains, seed, sweeps, first_round, z1)
        n_accepted = np.zeros(len(ladder) - 1, dtype=np.int64)
        for one in itertools.islice(rounds, n_rounds):
            n_accepted += one.n_accepted
        return TemperedReplicas(one.z1.astype(sizes.dtype), one.z2.astype(sizes.dtype), n_accepted)

    def ais(self, rbm: Any, base: Any, inv_temps: Any, n_chains: int, seed: int, first_chain: int = 0) -> Array:
        """See ``accelerated.protocol.Backend.ais``."""
        sizes = check_machine(rbm)
        machine = _as_base(check_base(base, sizes))
        return reference.partition.anneal(_as_rbm(rbm), machine, check_path(inv_temps), n_chains, seed, first_chain)

    def reverse_ais(self, rbm: Any, base: Any, inv_temps: Any, z1: Any, seed: int, first_chain: int = 0) -> Array:
        """See ``accelerated.protocol.Backend.reverse_ais``."""
        sizes = check_machine(rbm)
        machine = _as_base(check_base(base, sizes))
        check_rows("z1", z1, sizes.n1, sizes.dtype)
        return reference.partition.anneal_reverse(_as_rbm(rbm), machine, check_path(inv_temps), z1, seed, first_chain)

    def importance_log_mean(self, log_weights: Any, running: LogMean | None = None) -> LogMean:
        """See ``accelerated.protocol.Backend.importance_log_mean``."""
        common_dtype(log_weights=log_weights)
        n_rows, n_weights = check_matrix("log_weights", log_weights)
        check_count("the number of log_weights in a row", n_weights)
        w = log_weights.astype(np.float64)
        largest = w.max(axis=1)
        count = n_weights
        if running is not None:
            count += check_running(running, n_rows)
            largest = np.maximum(largest, running.largest)
        unit = np.where(np.isinf(largest), 0.0, largest)  # only weights of 0 so far: -inf - -inf would be NaN
        total = np.exp(w - unit[:, None]).sum(axis=1)
        if running is not None:
            total = total + running.total * np.exp(running.largest - unit)
        with np.errstate(divide="ignore"):
            return LogMean(unit + np.log(total) - np.log(count), largest, total, count)


def _as_rbm(rbm: Any) -> RBM:
    return rbm if isinstance(rbm, RBM) else RBM(rbm.a1, rbm.a2, rbm.W)


def _as_base(biases: tuple[Array, Array]) -> RBM:
    a1, a2 = biases
    return RBM(a1, a2, np.zeros((len(a1), len(a2))))


def create() -> Backend:
    """The oracle needs nothing that could be missing."""
    return NumpyOracle()
