"""Who is judged: the reference, its torch twins, our backends, and anybody's.

A subject is named ``reference``, ``torch`` or ``torch-number`` (the torch twin with beta a tensor, or a number), or as
``accelerated.load`` takes it: a backend of ours, one that an installed package announces, or ``module:object``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, cast

import numpy as np

import accelerated
from accelerated import Backend
from accelerated.protocol import KINDS, OPERATIONS, CrossEntropyGradients, Entropy, LogMean, Smoothed, TemperedReplicas
from validation import torch_twin
from validation.rows import ALL_KINDS, Subject

REFERENCE = "reference"

#: The subjects that are no backends: every check knows what it can ask of them.
BUILT_IN = {
    REFERENCE: Subject(REFERENCE, OPERATIONS | {"forward", "estimators"}, ALL_KINDS, is_backend=False)
} | torch_twin.SUBJECTS


class ContractError(Exception):
    """A backend returned something other than ``accelerated.protocol`` says: the operation, what came, what should."""


def names() -> tuple[str, ...]:
    """Everybody who is judged when nobody is named; numpy_oracle is the reference itself, as a backend."""
    return (*BUILT_IN, *(name for name in accelerated.names() if name not in ("numpy_oracle", *BUILT_IN)))


def probe(name: str) -> Subject:
    """Turn a name into the description of a subject, which takes loading it.

    Raises   BackendUnavailable if there is no such subject or it cannot run here; ContractError if it is no backend;
             and whatever its own code raises.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    backend = accelerated.load(name)
    operations = frozenset(backend.operations())
    if unknown := sorted(operations - OPERATIONS):
        raise ContractError(f"operations() names {', '.join(unknown)}; there are {', '.join(sorted(OPERATIONS))}")
    if missing := sorted(name for name in operations if not callable(getattr(backend, name, None))):
        raise ContractError(f"operations() names {', '.join(missing)}, which the backend does not have")
    kinds = tuple(getattr(backend, "kinds", KINDS))
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ContractError(f"kinds names {', '.join(unknown)}; there are {', '.join(KINDS)}")
    reasons = {str(name): str(why) for name, why in getattr(backend, "lacks", {}).items()}
    return Subject(name, operations, kinds, str(backend.device), reasons=reasons)


@lru_cache
def backend(name: str) -> Backend:
    """A backend, or a torch twin, by its subject's name, with everything it returns checked for its form.

    Raises   as ``accelerated.load``.
    """
    if name in torch_twin.SUBJECTS:
        return guarded(cast(Backend, torch_twin.TorchTwin(sharpness_is_number=name == torch_twin.TORCH_NUMBER)), name)
    return guarded(accelerated.load(name), name)


def guarded(backend: Backend, name: str) -> Backend:
    """The backend, with every result checked for type, shape and dtype: a wrong one is a ``ContractError``.

    It goes by the subject's name: what it calls itself must not earn it the bounds of another.
    """
    return cast(Backend, _Guarded(backend, name))


class _Guarded:
    """See ``guarded``. Arguments pass through as they are."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend, self.name = backend, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def inverse_cdf(
        self, kind: str, rho: Any, logit_q: Any, beta: float, extras: Collection[str] = ("dzeta_dlogit_q",), **more: Any
    ) -> Smoothed:
        result = self._backend.inverse_cdf(kind, rho, logit_q, beta, extras, **more)
        like = self._backend.to_numpy(rho)
        for name in ("zeta", *extras):
            self._check("inverse_cdf", name, getattr(result, name, None), like.shape, like.dtype)
        return result

    def entropy(self, logit_q: Any) -> Entropy:
        result = self._backend.entropy(logit_q)
        like = self._backend.to_numpy(logit_q)
        self._check("entropy", "value", getattr(result, "value", None), like.shape[:1], like.dtype)
        self._check("entropy", "dvalue_dlogit_q", getattr(result, "dvalue_dlogit_q", None), like.shape, like.dtype)
        return result

    def cross_entropy(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> Any:
        result = self._backend.cross_entropy(rbm, mu, nu, n_groups)
        like = self._backend.to_numpy(mu)
        self._check("cross_entropy", "the result", result, like.shape[:1], like.dtype)
        return result

    def cross_entropy_gradients(
        self, rbm: Any, mu: Any, nu: Any, n_groups: int, upstream: Any
    ) -> CrossEntropyGradients:
        result = self._backend.cross_entropy_gradients(rbm, mu, nu, n_groups, upstream)
        for name, argument in {"mu": mu, "nu": nu, "a1": rbm.a1, "a2": rbm.a2, "W": rbm.W}.items():
            like = self._backend.to_numpy(argument)
            self._check("cross_entropy_gradients", name, getattr(result, name, None), like.shape, like.dtype)
        return result

    def gibbs(self, rbm: Any, z1: Any, *arguments: Any, **more: Any) -> tuple[Any, Any]:
        states = self._backend.gibbs(rbm, z1, *arguments, **more)
        self._check_states("gibbs", states, rbm, len(self._backend.to_numpy(z1)))
        return states

    def tempering(self, rbm: Any, inv_temps: Any, n_chains: int, *arguments: Any, **more: Any) -> TemperedReplicas:
        result = self._backend.tempering(rbm, inv_temps, n_chains, *arguments, **more)
        if not (hasattr(result, "n_accepted") and len(result) == 3):
            raise ContractError(f"tempering must return TemperedReplicas; got {type(result).__name__}")
        self._check_states("tempering", (result.z1, result.z2), rbm, len(inv_temps) * n_chains)
        self._check("tempering", "n_accepted", result.n_accepted, (len(inv_temps) - 1,), np.dtype(np.int64))
        return result

    def ais(self, rbm: Any, base: Any, inv_temps: Any, n_chains: int, *arguments: Any, **more: Any) -> Any:
        result = self._backend.ais(rbm, base, inv_temps, n_chains, *arguments, **more)
        self._check("ais", "the result", result, (n_chains,), np.dtype(np.float64))
        return result

    def reverse_ais(self, rbm: Any, base: Any, inv_temps: Any, z1: Any, *arguments: Any, **more: Any) -> Any:
        result = self._backend.reverse_ais(rbm, base, inv_temps, z1, *arguments, **more)
        self._check("reverse_ais", "the result", result, (len(self._backend.to_numpy(z1)),), np.dtype(np.float64))
        return result

    def importance_log_mean(self, log_weights: Any, running: LogMean | None = None) -> LogMean:
        result = self._backend.importance_log_mean(log_weights, running)
        rows = self._backend.to_numpy(log_weights).shape[:1]
        for name in ("value", "largest", "total"):
            self._check("importance_log_mean", name, getattr(result, name, None), rows, np.dtype(np.float64))
        return result

    def _check_states(self, operation: str, states: Any, rbm: Any, n_rows: int) -> None:
        if not (isinstance(states, tuple) and len(states) == 2):
            raise ContractError(f"{operation} must return z1 and z2; got {type(states).__name__}")
        for name, state, bias in zip(("z1", "z2"), states, (rbm.a1, rbm.a2), strict=True):
            like = self._backend.to_numpy(bias)
            self._check(operation, name, state, (n_rows, *like.shape), like.dtype)

    def _check(self, operation: str, name: str, array: Any, shape: Iterable[int], dtype: np.dtype[Any]) -> None:
        if array is None:
            raise ContractError(f"{operation} returned no {name}")
        got = self._backend.to_numpy(array)
        if not isinstance(got, np.ndarray):
            raise ContractError(f"{operation}: to_numpy made {type(got).__name__} of {name}, not a NumPy array")
        if got.shape != tuple(shape):
            raise ContractError(f"{operation}: {name} must have shape {tuple(shape)}; it has {got.shape}")
        if got.dtype != dtype:
            raise ContractError(f"{operation}: {name} must be {dtype}; it is {got.dtype}")
