"""Faults that can be planted: what a check must notice, and whom it must name.

A fault is one mistake of those that are made in this field: a sign, a factor, a forgotten term, too few digits, a
counter that is off by one. It is planted in the running process, by putting a wrong function in the place of the right
one wherever that is known by name, and taken out again.

Most sit in the reference and in its torch twins. Those of backends sit in ``numpy_oracle``, which is the reference
behind the backends' interface: the object that is judged is changed, not the class, of which the judge has an object of
its own.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.special import logsumexp

import dvaepp.boltzmann
import dvaepp.bound
import dvaepp.gibbs
import dvaepp.objective
import dvaepp.partition
import dvaepp.smoothing
import dvaepp.smoothing.exponential
import dvaepp.tempering
import reference.bernoulli
import reference.boltzmann_kl
import reference.bound
import reference.directed
import reference.estimators
import reference.gibbs
import reference.likelihoods
import reference.partition
import reference.philox
import reference.population
import reference.smoothing
import reference.smoothing.exponential
import reference.tempering
import reference.thermodynamic
import reference.tiny_model
from accelerated.protocol import CrossEntropyGradients, LogMean, Smoothed
from reference.vocabulary import RBM, Array
from validation import subjects
from validation.subjects import REFERENCE
from validation.torch_twin import TORCH, TORCH_NUMBER

ORACLE = "numpy_oracle"

#: Turns the right function into the wrong one.
Spoil = Callable[[Callable[..., Any]], Callable[..., Any]]

#: Puts what a function is turned into in its place, for the duration of a block.
Put = Callable[[Spoil], AbstractContextManager[object]]

_PACKAGES = ("reference", "dvaepp", "accelerated", "validation")


@dataclass(frozen=True)
class Suspect:
    """An operation of a check, or those of its outputs whose names begin in one of these ways."""

    check: str
    operation: str
    outputs: tuple[str, ...] = ()

    def covers(self, check: str, operation: str, output: str) -> bool:
        """Whether a row is about it."""
        return (check, operation) == (self.check, self.operation) and (
            not self.outputs or output.startswith(self.outputs)
        )


@dataclass(frozen=True)
class Site:
    """The place of a function, and what a fault makes of it."""

    put: Put
    spoil: Spoil

    def planted(self) -> AbstractContextManager[object]:
        """The wrong function, for the duration of a block."""
        return self.put(self.spoil)

    def watched(self, called: Callable[[], object]) -> AbstractContextManager[object]:
        """The right function, for the duration of a block; ``called`` hears of every call."""

        def overheard(right: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(right)
            def function(*arguments: Any, **more: Any) -> Any:
                called()
                return right(*arguments, **more)

            return function

        return self.put(overheard)


@dataclass(frozen=True)
class Fault:
    """One mistake.

    culprits  what must fail: of each operation, or of each beginning of an output's name, at least one row
    explains  what may fail as well, for it rests on the operation at fault; nothing else may
    site      where it sits
    kind, dtypes  what the smoothings and backends are asked while it is there
    """

    name: str
    does: str
    subject: str
    culprits: tuple[Suspect, ...]
    site: Site
    explains: tuple[Suspect, ...] = ()
    kind: str = "exponential"
    dtypes: tuple[str, ...] = ("float64",)

    @property
    def operation(self) -> str:
        """The operation it sits in."""
        return self.culprits[0].operation

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """Everything that may fail."""
        return self.culprits + self.explains

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks that must notice it."""
        return tuple(dict.fromkeys(suspect.check for suspect in self.culprits))


# ---- how to plant ----------------------------------------------------------------------------------------------------


def in_module(module: ModuleType, name: str, spoil: Spoil) -> Site:
    """A module's function, also where others have imported it by name."""

    @contextlib.contextmanager
    def put(spoil: Spoil) -> Iterator[None]:
        right = getattr(module, name)
        wrong = spoil(right)
        with ExitStack() as planted:
            for other in [one for key, one in sys.modules.items() if key.partition(".")[0] in _PACKAGES]:
                for known_as in [key for key, value in vars(other).items() if value is right]:
                    planted.enter_context(mock.patch.object(other, known_as, wrong))
            yield

    return Site(put, spoil)


def in_one_module(module: ModuleType, name: str, spoil: Spoil) -> Site:
    """What one module calls by this name, and nobody else."""
    return Site(lambda spoil: mock.patch.object(module, name, spoil(getattr(module, name))), spoil)


def in_class(owner: type, name: str, spoil: Spoil) -> Site:
    """A method of a class."""
    return Site(lambda spoil: mock.patch.object(owner, name, spoil(getattr(owner, name))), spoil)


def in_oracle(operation: str, spoil: Spoil) -> Site:
    """An operation of the oracle that is judged."""

    def put(spoil: Spoil) -> AbstractContextManager[object]:
        judged = subjects.backend(ORACLE)
        return mock.patch.object(judged, operation, spoil(getattr(judged, operation)))

    return Site(put, spoil)


# ---- smoothings ------------------------------------------------------------------------------------------------------


def _naive_quadratic(right: Callable[..., Any]) -> Callable[..., Any]:
    def root(rho: Array, logit_q: Array, beta: Array) -> Any:
        q, d = 1 / (1 + np.exp(-np.clip(logit_q, -700, 700))), np.exp(-beta)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            b = (rho + d * (q - rho)) / (1 - q) - 1
            c = -q * d / (1 - q)
            zeta = -np.log((-b + np.sqrt(b * b - 4 * c)) / 2) / beta
        return replace(right(rho, logit_q, beta), zeta=zeta)

    return root


def _derivative_in_q(right: Callable[..., Any]) -> Callable[..., Any]:
    def with_derivatives(self: Any, rho: Array, logit_q: Array, beta: Array) -> Any:
        found = right(self, rho, logit_q, beta)
        q, p = reference.bernoulli.sigmoid(logit_q), reference.bernoulli.sigmoid(-logit_q)
        by_q = found.dzeta_dlogit_q / np.maximum(p * q, np.finfo(np.float64).tiny)
        return replace(found, dzeta_dlogit_q=np.nan_to_num(by_q))

    return with_derivatives


def _density_for_slope(right: Callable[..., Any]) -> Callable[..., Any]:
    def with_derivatives(self: Any, rho: Array, logit_q: Array, beta: Array) -> Any:
        found = right(self, rho, logit_q, beta)
        with np.errstate(divide="ignore"):
            return replace(found, dzeta_drho=1 / found.dzeta_drho)

    return with_derivatives


def _half_precision_noise(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, rho, logit_q: right(self, rho.half().to(rho.dtype), logit_q)


def _half_sharpness(right: Callable[..., Any]) -> Callable[..., Any]:
    def root(rho: Any, logit_q: Any, sharpness: Any) -> Any:
        return right(rho, logit_q, dvaepp.smoothing.exponential._Sharpness.of(sharpness.beta / 2, torch.float64))

    return root


def _clamped_logits(right: Callable[..., Any]) -> Callable[..., Any]:
    def inverse_cdf(kind: str, rho: Array, logit_q: Array, *arguments: Any, **more: Any) -> Smoothed:
        return right(kind, rho, np.clip(logit_q, -15, 15), *arguments, **more)

    return inverse_cdf


def _log_ratio_without_middle(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, zeta: self.beta * 2 * zeta


# ---- entropies, energies, divergences --------------------------------------------------------------------------------


def _pairs_twice(right: Callable[..., Any]) -> Callable[..., Any]:
    def couplings(machine: Any, n_groups: int) -> tuple[Array, Array]:
        within, across = right(machine, n_groups)
        return within + within.T, across

    return couplings


def _nu_within_a_group(right: Callable[..., Any]) -> Callable[..., Any]:
    def cross_entropy(rbm: Any, mu: Any, nu: Any, n_groups: int) -> Any:
        # Two groups have no coupling inside: cut so, no pair of a group in the middle is told from the others.
        return right(rbm, mu, nu, n_groups) if n_groups == 1 else _across_alone(rbm, mu, nu)

    return cross_entropy


def _across_alone(rbm: Any, mu: Any, nu: Any) -> Any:
    mu1, mu2, nu1 = mu[:, : rbm.n1], mu[:, rbm.n1 :], nu[:, : rbm.n1]
    return -(mu1 @ rbm.a1) - mu2 @ rbm.a2 - ((nu1 @ rbm.W) * mu2).sum(-1)


def _transposed_gradient(right: Callable[..., Any]) -> Callable[..., Any]:
    def gradients(*arguments: Any) -> CrossEntropyGradients:
        found = right(*arguments)
        return found._replace(W=np.ascontiguousarray(found.W.T).reshape(found.W.shape))

    return gradients


def _likelihood_without_softplus(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, logits: (np.asarray(x) * logits).sum(axis=-1)


def _mean_of_units(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda machine, logit_q, *more: right(machine, logit_q, *more) / np.shape(logit_q)[1]


def _terms_by_means(right: Callable[..., Any]) -> Callable[..., Any]:
    def terms(model: Any, *arguments: Any) -> Any:
        found = right(model, *arguments)
        n = model.n_latents
        return replace(found, entropy=found.entropy / n, cross_entropy=found.cross_entropy / n)

    return terms


# ---- samplers --------------------------------------------------------------------------------------------------------


def _coin_for_energies(right: Callable[..., Any]) -> Callable[..., Any]:
    def swap(energies: Array, inv_temps: Array, u: Array, parity: int) -> Array:
        # Equal energies are exchanged always; half of all u are made to refuse.
        return right(np.zeros_like(energies), inv_temps, np.where(u < 0.5, 0.0, 1.0), parity)

    return swap


def _swap_of_the_wrong_sign(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda energies, *arguments: right(-energies, *arguments)


def _means_for_states(right: Callable[..., Any]) -> Callable[..., Any]:
    @torch.no_grad()
    def sweep(rbm: Any, z1: Any, u2: Any, u1: Any, inv_temp: Any = 1.0) -> Any:
        prob2 = (rbm.logits_z2(z1) * inv_temp).sigmoid()
        z1 = u1 < (rbm.logits_z1(prob2) * inv_temp).sigmoid()
        return z1.to(prob2.dtype), (u2 < prob2).to(prob2.dtype)

    return sweep


def _both_sides_at_once(right: Callable[..., Any]) -> Callable[..., Any]:
    def gibbs(rbm: Any, z1: Array, n_sweeps: int, seed: int, step: int, first_chain: int = 0) -> tuple[Array, Array]:
        def drawn(bias: Array, z: Array, W: Array, now: int, stream: int) -> Array:
            u = reference.philox.uniforms(seed, now, len(z), len(bias), stream, first_chain)
            return np.asarray(u < reference.bernoulli.sigmoid(bias + z @ W)).astype(z.dtype)

        z2 = drawn(rbm.a2, z1, rbm.W, step, reference.philox.STREAM_INIT)
        for now in range(step, step + n_sweeps):
            z1, z2 = (
                drawn(rbm.a1, z2, rbm.W.T, now, reference.philox.STREAM_Z1),
                drawn(rbm.a2, z1, rbm.W, now, reference.philox.STREAM_Z2),
            )
        return z1, z2

    return gibbs


def _couplings_in_the_wrong_order(right: Callable[..., Any]) -> Callable[..., Any]:
    def gibbs(rbm: Any, z1: Array, n_sweeps: int, seed: int, step: int, first_chain: int = 0) -> tuple[Array, Array]:
        z, streams = [z1, z1], (reference.philox.STREAM_Z2, reference.philox.STREAM_Z1)
        back = rbm.W.reshape(rbm.W.shape[::-1])  # as stored, instead of transposed
        for now in range(step, step + n_sweeps):
            for side, (bias, W) in enumerate(((rbm.a2, rbm.W), (rbm.a1, back))):
                u = reference.philox.uniforms(seed, now, len(z1), len(bias), streams[side], first_chain)
                z[1 - side] = (u < reference.bernoulli.sigmoid(bias + z[side] @ W)).astype(z1.dtype)
        return z[0], z[1]

    return gibbs


def _one_counter_on(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda rbm, z1, n_sweeps, seed, step, *more: right(rbm, z1, n_sweeps, seed, step + 1, *more)


def _one_stream(right: Callable[..., Any]) -> Callable[..., Any]:
    def uniforms(seed: int, step: int, n_chains: int, n_units: int, stream: int = 0, *more: Any, **named: Any) -> Array:
        return right(seed, step, n_chains, n_units, 0, *more, **named)

    return uniforms


# ---- annealing -------------------------------------------------------------------------------------------------------


def _mean_at_every_stage(right: Callable[..., Any]) -> Callable[..., Any]:
    def walk(
        rbm: RBM, base: RBM, path: Array, z1: Array, seed: int, streams: tuple[int, int], first_chain: int
    ) -> Array:
        total = np.zeros(len(z1))
        for step, there in enumerate(path[1:]):
            gain = right(rbm, base, path[step : step + 2], z1, seed, streams, first_chain)  # one stage: no sweep
            total += logsumexp(gain) - np.log(len(gain))
            machine = RBM(*reference.partition.path_biases(rbm, base, there), there * rbm.W)
            u2 = reference.philox.uniforms(seed, step, len(z1), rbm.n2, streams[0], first_chain)
            u1 = reference.philox.uniforms(seed, step, len(z1), rbm.n1, streams[1], first_chain)
            z1, _ = reference.gibbs.sweep(machine, z1, u2, u1)
        return total

    return walk


def _spread_of_one_for_all(right: Callable[..., Any]) -> Callable[..., Any]:
    def estimate(log_weights: Array, sign: int) -> Any:
        found = right(log_weights, sign)
        return replace(found, standard_error=found.standard_error / np.sqrt(found.n_chains))

    return estimate


def _mean_of_log_weights(right: Callable[..., Any]) -> Callable[..., Any]:
    def estimate(log_weights: Array, sign: int) -> Any:
        return replace(right(log_weights, sign), log_partition=sign * float(np.mean(log_weights)))

    return estimate


def _path_not_reversed(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda rbm, base, inv_temps, *more: right(rbm, base, inv_temps.flip(0), *more)


def _single_precision(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **more: right(*arguments, **more).astype(np.float32).astype(np.float64)


def _rectangles(right: Callable[..., Any]) -> Callable[..., Any]:
    def rule(n_nodes: int) -> Any:
        found = right(n_nodes)
        return found._replace(weights=np.append(np.diff(found.nodes), 0.0))

    return rule


def _everyone_copied_once(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda log_weights, u: np.broadcast_to(np.arange(log_weights.shape[1]), log_weights.shape)


# ---- bounds and estimators -------------------------------------------------------------------------------------------


def _without_log_q(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda log_joint, log_q: right(log_joint, np.zeros_like(log_q))


def _total_for_mean(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: right(self) + np.log(self._count)


def _summed_in_single_precision(right: Callable[..., Any]) -> Callable[..., Any]:
    def add(self: Any, log_weights: Any) -> None:
        right(self, log_weights)
        self._sum = self._sum.float().double()

    return add


def _kept_in_single_precision(right: Callable[..., Any]) -> Callable[..., Any]:
    def add(self: Any, log_weights: Any) -> None:
        right(self, log_weights)
        self._largest, self._sum = self._largest.float().double(), self._sum.float().double()

    return add


def _later_pieces_unscaled(right: Callable[..., Any]) -> Callable[..., Any]:
    def log_mean(log_weights: Array, running: LogMean | None = None) -> LogMean:
        if running is None:
            return right(log_weights)
        largest = np.maximum(running.largest, log_weights.max(axis=1))
        return right(log_weights, running._replace(largest=largest))  # ``total`` stays in the old unit

    return log_mean


def _complement_for_opposite(right: Callable[..., Any]) -> Callable[..., Any]:
    def pair(rho: Any, logits: Any) -> tuple[Array, Array]:
        z, _ = right(rho, logits)
        return z, 1 - z

    return pair


def _own_value_as_baseline(right: Callable[..., Any]) -> Callable[..., Any]:
    def reinforce(f: Any, rho: Any, logits: Any, baseline: Any = 0.0) -> Array:
        own = f(reference.estimators.draw(rho, logits))
        return right(f, rho, logits, (own + baseline) / 2)

    return reinforce


# ---- backward passes -------------------------------------------------------------------------------------------------


def _slope_dropped(right: Callable[..., Any]) -> Callable[..., Any]:
    def backward(parameters: Any, fwd: Any, *more: Any) -> Any:
        return right(parameters, replace(fwd, dzeta_dlogit_q=np.ones_like(fwd.dzeta_dlogit_q)), *more)

    return backward


def _nu_is_constant(right: Callable[..., Any]) -> Callable[..., Any]:
    def backward(parameters: Any, fwd: Any, *more: Any) -> Any:
        kl = fwd.kl._replace(dkl_dnu=np.zeros_like(fwd.kl.dkl_dnu))
        return right(parameters, replace(fwd, kl=kl), *more)

    return backward


def _log_partition_is_constant(right: Callable[..., Any]) -> Callable[..., Any]:
    def backward(parameters: Any, fwd: Any, upstream: Any, kl_weight: float, prior_means: Any) -> Any:
        nothing = type(prior_means)(*(np.zeros_like(mean) for mean in prior_means))
        return right(parameters, fwd, upstream, kl_weight, nothing)

    return backward


# ---- the catalogue ---------------------------------------------------------------------------------------------------

_ACCURACY, _AGREEMENT, _GRADIENTS, _STATISTICS = "accuracy", "agreement", "gradients", "statistics"


def _all(check: str, *operations: str) -> tuple[Suspect, ...]:
    return tuple(Suspect(check, operation) for operation in operations)


_ENCODERS = tuple(f"{name}:" for name in ("V1", "u1", "A1", "c1", "V2", "S2", "u2", "A2", "c2"))
_FIRST_ENCODER, _PRIOR = _ENCODERS[:4], ("a1:", "a2:", "W:")
_Exponential, _Logistic = reference.smoothing.OverlappingExponential, reference.smoothing.OverlappingLogistic

FAULTS: tuple[Fault, ...] = (
    # ---- the reference
    Fault(
        "nu-sign",
        "nu is shifted by minus the log-ratio: sigma(l - beta (2 zeta - 1)).",
        REFERENCE,
        (
            Suspect(_ACCURACY, "forward", ("nu",)),
            Suspect(_GRADIENTS, "objective", _FIRST_ENCODER),
        ),
        in_class(
            _Exponential,
            "_nu",
            lambda right: lambda self, zeta, logit_q, beta: right(self, 1 - zeta, logit_q, beta),
        ),
    ),
    Fault(
        "naive-quadratic",
        "The inverse CDF is eq. (3) as it is printed, which divides by 1 - q and subtracts nearly equal numbers.",
        REFERENCE,
        (Suspect(_ACCURACY, "inverse_cdf", ("zeta",)),),
        in_module(reference.smoothing.exponential, "_root", _naive_quadratic),
    ),
    Fault(
        "derivative-in-q",
        "The Jacobian q (1 - q) is dropped: the sample is differentiated in q, not in its logit.",
        REFERENCE,
        (
            Suspect(_ACCURACY, "inverse_cdf", ("dzeta_dlogit_q",)),
            Suspect(_GRADIENTS, "inverse_cdf", ("dzeta_dlogit_q",)),
            Suspect(_GRADIENTS, "objective", _ENCODERS),
            Suspect(_GRADIENTS, "estimators", ("f(zeta)",)),
        ),
        in_class(_Exponential, "_inverse_cdf_with_derivatives", _derivative_in_q),
    ),
    Fault(
        "density-for-slope",
        "The derivative of a logistic sample in its noise is the density, not one over it.",
        REFERENCE,
        (
            Suspect(_ACCURACY, "inverse_cdf", ("dzeta_drho",)),
            Suspect(_GRADIENTS, "inverse_cdf", ("dzeta_drho",)),
        ),
        in_class(_Logistic, "_inverse_cdf_with_derivatives", _density_for_slope),
        kind="logistic",
    ),
    Fault(
        "pairs-twice",
        "The cross-entropy counts a pair of units of one group twice.",
        REFERENCE,
        (Suspect(_GRADIENTS, "boltzmann_kl"),),
        in_module(reference.boltzmann_kl, "_couplings", _pairs_twice),
    ),
    Fault(
        "kl-averaged",
        "The KL divergence of a row is the mean over its units instead of their sum.",
        REFERENCE,
        (Suspect(_GRADIENTS, "boltzmann_kl"), Suspect(_GRADIENTS, "objective", _PRIOR)),
        in_module(reference.boltzmann_kl, "kl", _mean_of_units),
        explains=_all(_GRADIENTS, "objective"),
    ),
    Fault(
        "kl-direction",
        "The divergence between two units is that of the prior from the posterior.",
        REFERENCE,
        (Suspect(_GRADIENTS, "directed_kl", ("joint KL",)),),
        in_module(reference.directed, "joint_kl", lambda right: lambda logit_q, logit_p: right(logit_p, logit_q)),
    ),
    Fault(
        "softplus-missing",
        "The log-likelihood of a pixel lacks its softplus: x l instead of x l - softplus(l).",
        REFERENCE,
        (
            Suspect(_GRADIENTS, "likelihoods", ("Bernoulli",)),
            Suspect(_GRADIENTS, "objective", ("c3:",)),
        ),
        in_module(reference.likelihoods, "bernoulli_log_prob", _likelihood_without_softplus),
        explains=_all(_GRADIENTS, "objective"),
    ),
    Fault(
        "backward-jacobian",
        "The backward pass of the tiny model drops the slope of the sample, dzeta/dlogit.",
        REFERENCE,
        (Suspect(_GRADIENTS, "objective", _ENCODERS),),
        in_module(reference.tiny_model, "backward", _slope_dropped),
    ),
    Fault(
        "backward-nu",
        "The backward pass of the tiny model takes nu for a constant.",
        REFERENCE,
        (Suspect(_GRADIENTS, "objective", _FIRST_ENCODER),),
        in_module(reference.tiny_model, "backward", _nu_is_constant),
    ),
    Fault(
        "backward-log-partition",
        "The backward pass of the tiny model takes log Z for a constant.",
        REFERENCE,
        (Suspect(_GRADIENTS, "objective", _PRIOR),),
        in_module(reference.tiny_model, "backward", _log_partition_is_constant),
    ),
    Fault(
        "swap-biased",
        "Replicas exchange states by the toss of a coin, whatever their energies.",
        REFERENCE,
        (Suspect(_STATISTICS, "tempering"),),
        in_module(reference.tempering, "swap", _coin_for_energies),
        explains=_all(_STATISTICS, "thermodynamic", "bracket"),
    ),
    Fault(
        "one-stream",
        "Philox's counter leaves the stream out: both sides of a machine meet the same numbers.",
        REFERENCE,
        (Suspect(_STATISTICS, "uniforms", ("neighbours",)), Suspect(_STATISTICS, "gibbs")),
        in_module(reference.philox, "uniforms", _one_stream),
        explains=_all(
            _STATISTICS,
            *("tempering", "ais", "reverse_ais", "population", "bracket", "bennett", "thermodynamic", "single_site"),
        ),
    ),
    Fault(
        "mean-at-every-stage",
        "Annealing takes the log of the mean over chains at every stage, instead of a weight for every chain.",
        REFERENCE,
        (Suspect(_STATISTICS, "ais"), Suspect(_STATISTICS, "reverse_ais")),
        in_module(reference.partition, "_walk", _mean_at_every_stage),
        explains=_all(_STATISTICS, "bracket", "bennett"),
    ),
    Fault(
        "rectangles",
        "Thermodynamic integration adds up rectangles on the nodes of a better quadrature.",
        REFERENCE,
        (Suspect(_STATISTICS, "thermodynamic"),),
        in_module(reference.thermodynamic, "clenshaw_curtis", _rectangles),
    ),
    Fault(
        "no-resampling",
        "Population annealing weighs its replicas and copies each of them once.",
        REFERENCE,
        (Suspect(_STATISTICS, "population"),),
        in_module(reference.population, "resample", _everyone_copied_once),
    ),
    Fault(
        "log-q-missing",
        "Importance weights are p(x, z), without the posterior that z was drawn from.",
        REFERENCE,
        (Suspect(_STATISTICS, "likelihood"),),
        in_module(reference.bound, "likelihood", _without_log_q),
    ),
    Fault(
        "arm-biased",
        "The opposite draw of an antithetic pair is 1 - z, not the draw of 1 - rho.",
        REFERENCE,
        (Suspect(_STATISTICS, "estimators", ("ARM", "DisARM")),),
        in_module(reference.estimators, "_pair", _complement_for_opposite),
    ),
    Fault(
        "baseline-knows-the-sample",
        "The baseline of REINFORCE is halfway to the very value that it is taken off.",
        REFERENCE,
        (Suspect(_STATISTICS, "estimators", ("REINFORCE, no baseline", "REINFORCE, baseline E[f]", "NVIL")),),
        in_module(reference.estimators, "reinforce", _own_value_as_baseline),
        explains=(Suspect(_STATISTICS, "estimators", ("variance of REINFORCE",)),),
    ),
    # ---- the torch twins
    Fault(
        "half-sharpness",
        "The inverse CDF is solved for beta / 2.",
        TORCH_NUMBER,
        (
            Suspect(_AGREEMENT, "inverse_cdf", ("zeta", "dzeta_drho")),
            Suspect(_GRADIENTS, "inverse_cdf", ("dzeta_drho", "dzeta_dlogit_q")),
        ),
        in_module(dvaepp.smoothing.exponential, "_root", _half_sharpness),
        explains=_all(_AGREEMENT, "inverse_cdf") + _all(_GRADIENTS, "inverse_cdf"),
    ),
    Fault(
        "half-precision-noise",
        "The noise is rounded to float16 on its way.",
        TORCH_NUMBER,
        (Suspect(_ACCURACY, "inverse_cdf", ("zeta",)), Suspect(_AGREEMENT, "inverse_cdf", ("zeta",))),
        in_class(dvaepp.smoothing.OverlappingExponential, "inverse_cdf", _half_precision_noise),
        explains=(*(Suspect(check, "inverse_cdf", ("dzeta_d",)) for check in (_ACCURACY, _AGREEMENT)),),
        dtypes=("float32",),
    ),
    Fault(
        "log-ratio-uncentred",
        "The log-ratio is 2 beta zeta, measured from an end and not from the middle.",
        TORCH,
        (Suspect(_AGREEMENT, "inverse_cdf", ("log_ratio",)),),
        in_class(dvaepp.smoothing.OverlappingExponential, "log_ratio", _log_ratio_without_middle),
    ),
    Fault(
        "entropy-in-bits",
        "Entropies are in bits.",
        TORCH,
        (
            Suspect(_AGREEMENT, "entropy"),
            Suspect(_STATISTICS, "objective"),
        ),
        in_module(dvaepp.boltzmann, "entropy", lambda right: lambda logit_q: right(logit_q) / np.log(2)),
    ),
    Fault(
        "nu-within-a-group",
        "In the group that straddles both sides, the cross-entropy takes nu for mu.",
        TORCH,
        (Suspect(_AGREEMENT, "cross_entropy"),),
        in_module(dvaepp.boltzmann, "cross_entropy", _nu_within_a_group),
    ),
    Fault(
        "nu-detached",
        "The training loss takes nu for a constant: no gradient flows through it.",
        TORCH,
        (Suspect(_GRADIENTS, "training_loss", ("groups: 2; encoders.0",)),),
        in_one_module(dvaepp.objective, "nu", lambda right: lambda *arguments: right(*arguments).detach()),
        explains=(Suspect(_GRADIENTS, "training_loss", ("groups: 2; gradcheck",)),),
    ),
    Fault(
        "terms-averaged",
        "The training loss averages entropy and cross-entropy over the latent units.",
        TORCH,
        (Suspect(_STATISTICS, "objective"),),
        in_module(dvaepp.objective, "terms", _terms_by_means),
    ),
    Fault(
        "means-for-states",
        "A sweep hands probabilities on to the other side instead of states.",
        TORCH,
        (Suspect(_AGREEMENT, "gibbs"), Suspect(_STATISTICS, "gibbs")),
        in_module(dvaepp.gibbs, "sweep", _means_for_states),
        explains=_all(_STATISTICS, "tempering"),
    ),
    Fault(
        "bias-dropped",
        "The conditional of side 1 lacks its bias.",
        TORCH,
        (Suspect(_AGREEMENT, "gibbs"), Suspect(_STATISTICS, "gibbs"), Suspect(_STATISTICS, "tempering")),
        in_class(dvaepp.boltzmann.RBM, "logits_z1", lambda right: lambda self, z2: z2 @ self.W.t()),
        explains=_all(_STATISTICS, "bracket"),
    ),
    Fault(
        "swap-sign",
        "Exchanges are accepted by the ratio of probabilities before and after, upside down.",
        TORCH,
        (Suspect(_STATISTICS, "tempering"),),
        in_module(dvaepp.tempering, "swap", _swap_of_the_wrong_sign),
        explains=_all(_STATISTICS, "bracket"),
    ),
    Fault(
        "reverse-path-forward",
        "Reverse annealing walks its path from the base to the machine.",
        TORCH,
        (Suspect(_STATISTICS, "reverse_ais"),),
        in_module(dvaepp.partition, "anneal_reverse", _path_not_reversed),
        explains=_all(_STATISTICS, "bracket"),
    ),
    Fault(
        "mean-of-log-weights",
        "The estimate of log Z is the mean of the log-weights, not the log of their mean.",
        REFERENCE,
        (Suspect(_STATISTICS, "bracket", ("mean of e^estimate",)),),
        in_module(reference.partition, "estimate", _mean_of_log_weights),
        explains=(Suspect(_STATISTICS, "bracket"),),
    ),
    Fault(
        "error-over-n",
        "The standard error of log Z is the spread over n chains, not over the root of n.",
        TORCH,
        (Suspect(_STATISTICS, "bracket", ("brackets that miss",)),),
        in_one_module(dvaepp.partition, "estimate", _spread_of_one_for_all),
    ),
    Fault(
        "single-precision-stream",
        "The running log-mean of importance weights is kept in float32.",
        TORCH,
        (Suspect(_AGREEMENT, "importance_log_mean"),),
        in_class(dvaepp.bound.StreamingLogMeanExp, "add", _kept_in_single_precision),
    ),
    Fault(
        "single-precision-sum",
        "The sum of importance weights is kept in float32.",
        TORCH,
        (Suspect(_AGREEMENT, "importance_log_mean", ("log mean of weights alike",)),),
        in_class(dvaepp.bound.StreamingLogMeanExp, "add", _summed_in_single_precision),
    ),
    Fault(
        "count-missing",
        "The log of a mean of exponentials is the log of their sum.",
        TORCH,
        (Suspect(_AGREEMENT, "importance_log_mean"),),
        in_class(dvaepp.bound.StreamingLogMeanExp, "result", _total_for_mean),
    ),
    # ---- backends
    Fault(
        "logits-clamped",
        "Logits are clamped to +-15, as where probabilities are kept away from 0 and 1.",
        ORACLE,
        (Suspect(_AGREEMENT, "inverse_cdf", ("zeta", "dzeta_dlogit_q", "nu")),),
        in_oracle("inverse_cdf", _clamped_logits),
        explains=_all(_AGREEMENT, "inverse_cdf"),
    ),
    Fault(
        "gradient-transposed",
        "The gradient in the couplings is written in the order of its transpose.",
        ORACLE,
        (Suspect(_AGREEMENT, "cross_entropy", ("gradient in W",)), Suspect(_GRADIENTS, "cross_entropy_gradients")),
        in_oracle("cross_entropy_gradients", _transposed_gradient),
    ),
    Fault(
        "counter-off-by-one",
        "Philox's counter of steps is one ahead.",
        ORACLE,
        (Suspect(_AGREEMENT, "gibbs"),),
        in_oracle("gibbs", _one_counter_on),
    ),
    Fault(
        "both-sides-at-once",
        "A sweep redraws both sides at once, each given the old state of the other.",
        ORACLE,
        (Suspect(_AGREEMENT, "gibbs"), Suspect(_STATISTICS, "gibbs")),
        in_oracle("gibbs", _both_sides_at_once),
    ),
    Fault(
        "couplings-in-the-wrong-order",
        "On the way back a sweep reads the couplings as they are stored, instead of transposed.",
        ORACLE,
        (Suspect(_AGREEMENT, "gibbs"), Suspect(_STATISTICS, "gibbs")),
        in_oracle("gibbs", _couplings_in_the_wrong_order),
    ),
    Fault(
        "single-precision-weights",
        "Log-weights of annealing are kept in float32.",
        ORACLE,
        (Suspect(_AGREEMENT, "ais"),),
        in_oracle("ais", _single_precision),
    ),
    Fault(
        "pieces-unscaled",
        "Where a larger weight arrives, what was added up before is not brought to the new unit.",
        ORACLE,
        (Suspect(_AGREEMENT, "importance_log_mean"), Suspect(_STATISTICS, "importance_log_mean")),
        in_oracle("importance_log_mean", _later_pieces_unscaled),
    ),
)


def named(name: str) -> Fault:
    """The fault of this name.

    Raises   KeyError if there is none.
    """
    return {fault.name: fault for fault in FAULTS}[name]
