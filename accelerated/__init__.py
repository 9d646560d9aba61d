"""The hot loops, each available from several backends that agree with ``reference`` and are chosen by name.

    backend = accelerated.load("numpy_oracle")
    z1, z2 = backend.gibbs(rbm, z1, n_sweeps=10, seed=0, step=0)

A backend is one file in ``accelerated/backends``; dropping it there is all it takes to be found. Nothing is chosen
silently and nothing falls back: what cannot run here raises ``BackendUnavailable`` and says why.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Collection
from typing import NamedTuple

from accelerated import backends
from accelerated.protocol import OPERATIONS, Backend

__all__ = ["FASTEST_FIRST", "Backend", "BackendUnavailable", "Fastest", "fastest", "load", "names"]

#: Backends by device, the fastest first. The oracle is not among them: it is the judge, and slow.
FASTEST_FIRST = {"cpu": ("numba_cpu",), "cuda": ("cupy_raw", "numba_cuda")}


class BackendUnavailable(RuntimeError):
    """A backend that does not exist, or cannot run on this machine."""


class Fastest(NamedTuple):
    """The fastest backend that can run here, None if none can, and by name why faster ones cannot, one line each."""

    backend: Backend | None
    reasons: dict[str, str]


def names() -> tuple[str, ...]:
    """Names of all backends, sorted, whether or not they can run here: the files of ``accelerated/backends``."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(backends.__path__)))


def load(name: str) -> Backend:
    """Turn a name into the backend itself.

    Imports ``accelerated.backends.NAME`` and calls its ``create()``, which looks for the device it needs.

    Raises   BackendUnavailable for a name that is not there, with the nearest one that is; for a library that is not
             installed; and, from ``create`` itself, for a device that is missing.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names())}"
        raise BackendUnavailable(f"unknown backend {name!r}; {hint}")
    try:
        backend: Backend = importlib.import_module(f"{backends.__name__}.{name}").create()
    except ImportError as error:
        raise BackendUnavailable(f"backend {name!r} cannot run here: {error}") from error
    return backend


def fastest(device: str, operations: Collection[str] = OPERATIONS) -> Fastest:
    """Turn a kind of device, "cpu" or "cuda", into the fastest backend that can run there and has the operations.

    Raises   ValueError for any other kind.
    """
    if device not in FASTEST_FIRST:
        raise ValueError(f"device must be one of {', '.join(FASTEST_FIRST)}; got {device!r}")
    reasons: dict[str, str] = {}
    for name in FASTEST_FIRST[device]:
        try:
            backend = load(name)
        except BackendUnavailable as error:
            reasons[name] = str(error).splitlines()[0]
            continue
        lacking = sorted(set(operations) - backend.operations())
        if not lacking:
            return Fastest(backend, reasons)
        reasons[name] = f"backend {name!r} lacks {', '.join(lacking)}"
    return Fastest(None, reasons)
