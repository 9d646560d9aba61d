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

from accelerated import backends
from accelerated.protocol import Backend

__all__ = ["Backend", "BackendUnavailable", "load", "names"]


class BackendUnavailable(RuntimeError):
    """A backend that does not exist, or cannot run on this machine."""


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
