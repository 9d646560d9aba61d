"""The hot loops, each available from several backends that agree with ``reference`` and are chosen by name.

    backend = accelerated.load("numpy_oracle")
    z1, z2 = backend.gibbs(rbm, z1, n_sweeps=10, seed=0, step=0)

A backend of ours is one file in ``accelerated/backends``; dropping it there is all it takes to be found. Anybody else's
is found if an installed package announces it,

    [project.entry-points."dvaepp.backends"]
    mine = "my_package.my_module:create"

and can be named as ``"my_package.my_module:create"`` without any installation. Nothing is chosen silently and nothing
falls back: what cannot run here raises ``BackendUnavailable`` and says why.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Collection
from importlib.metadata import EntryPoint
from typing import Any, NamedTuple

from accelerated import backends
from accelerated.protocol import OPERATIONS, Backend

__all__ = [
    "ENTRY_POINTS",
    "FASTEST_FIRST",
    "Backend",
    "BackendUnavailable",
    "Fastest",
    "fastest",
    "load",
    "names",
    "own_names",
]

#: Backends by device, the fastest first. The oracle is not among them: it is the judge, and slow.
FASTEST_FIRST = {"cpu": ("numba_cpu",), "cuda": ("cupy_raw", "numba_cuda")}

#: The group of entry points by which installed packages announce backends.
ENTRY_POINTS = "dvaepp.backends"

#: What no object without is a backend; the operations are its own choice.
_REQUIRED = ("name", "device", "operations", "asarray", "to_numpy")


class BackendUnavailable(RuntimeError):
    """A backend that does not exist, is none, or cannot run on this machine."""


class Fastest(NamedTuple):
    """The fastest backend that can run here, None if none can, and by name why faster ones cannot, one line each."""

    backend: Backend | None
    reasons: dict[str, str]


def own_names() -> tuple[str, ...]:
    """Names of our own backends, sorted: the files of ``accelerated/backends``."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(backends.__path__)))


def names() -> tuple[str, ...]:
    """Names of all backends, sorted, whether or not they can run here: ours, and what installed packages announce.

    Nothing is imported for it.
    """
    return tuple(sorted({*own_names(), *(entry.name for entry in _announced())}))


def load(name: str) -> Backend:
    """Turn a name, or "module:object", into the backend itself.

    One of ours is made by the ``create()`` of its file, which looks for the device it needs. What an entry point or
    ``module:object`` stands for is a backend, or is called without arguments to make one. A name that stands for two
    backends is refused.

    Raises   BackendUnavailable for a name that is not there, with the nearest one that is; for two of the same name;
             for a module or an attribute that does not exist; for a library that is not installed; for what is no
             backend; and, from ``create`` itself, for a device that is missing. Anything else that foreign code
             raises is passed on.
    """
    if ":" in name:
        return _made(name, EntryPoint(name, name, ENTRY_POINTS))
    own, entries = name in own_names(), [entry for entry in _announced() if entry.name == name]
    if len(entries) + own > 1:
        places = [f"accelerated.backends.{name}:create"] * own + [entry.value for entry in entries]
        raise BackendUnavailable(f"there are {len(places)} backends {name!r}; say which: {' or '.join(places)}")
    if entries:
        return _made(name, entries[0])
    if own:
        return _made(name, EntryPoint(name, f"{backends.__name__}.{name}:create", ENTRY_POINTS))
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names())}, or module:object"
    raise BackendUnavailable(f"unknown backend {name!r}; {hint}")


def _announced() -> list[EntryPoint]:
    """Entry points of installed packages; one that is found twice, on two paths, counts once."""
    return sorted(set(importlib.metadata.entry_points(group=ENTRY_POINTS)))


def _lacking(thing: Any) -> list[str]:
    return [part for part in _REQUIRED if not hasattr(thing, part)]


def _made(name: str, place: EntryPoint) -> Backend:
    """The backend that "module:object" stands for. Raises as ``load``."""
    module_name, _, path = place.value.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise BackendUnavailable(f"backend {name!r} must be module:object with dotted names; got {place.value!r}")
    try:
        found: Any = importlib.import_module(module_name)
        for i, attribute in enumerate(parts := path.split(".")):
            if not hasattr(found, attribute):
                near = difflib.get_close_matches(attribute, dir(found), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                owner = ".".join((module_name, *parts[:i]))
                raise BackendUnavailable(f"backend {name!r}: {owner} has no attribute {attribute!r}{hint}")
            found = getattr(found, attribute)
        # A class has its instances' attributes; it is asked to make one all the same.
        made = found() if isinstance(found, type) or (callable(found) and _lacking(found)) else found
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise BackendUnavailable(
                f"backend {name!r} cannot run here: there is no module {error.name!r} to import"
            ) from error
        raise BackendUnavailable(f"backend {name!r} cannot run here: {error}") from error
    except ImportError as error:
        raise BackendUnavailable(f"backend {name!r} cannot run here: {error}") from error
    if lacking := _lacking(made):
        what = type(made).__name__
        raise BackendUnavailable(
            f"{name!r} is no backend: {what} has no {', '.join(lacking)}; see accelerated.protocol"
        )
    backend: Backend = made
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
