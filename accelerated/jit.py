"""How kernels for the CPU are compiled: once, kept on disk, and compiled anew when any source of this package changes.

Numba keeps compiled code on disk (``cache=True``), but looks only at the file of the function itself: when a function
it *calls*, in another file, has changed, the stale code runs on. So the cache lives in a folder of its own for every
state of ``accelerated``'s sources, named by their digest.

The folder lies in ``NUMBA_CACHE_DIR`` where that is set, else in the user's cache folder. Where it cannot be written
nothing is kept, and each process compiles anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from numba.misc.appdirs import AppDirs

_config: Any = numba.config
_deciding = threading.Lock()  # numba.config is global, and modules may be imported by several threads


def digest(folder: Path) -> str:
    """The contents and names of all Python files below a folder as 16 hexadecimal digits."""
    sources = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        content = path.read_bytes()
        sources.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        sources.update(content)
    return sources.hexdigest()[:16]


@functools.cache
def cache_folder() -> Path | None:
    """The folder of compiled code that belongs to these sources; None where none can be written."""
    chosen = _config.CACHE_DIR or str(Path(AppDirs(appname="dvaepp", appauthor=False).user_cache_dir) / "numba")
    try:
        folder = Path(chosen) / digest(Path(__file__).parent)
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return folder


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function for the CPU at its first call, or load it from disk; it runs without the interpreter's lock.

    Rounding is IEEE's, operation by operation: no reassociation, no contraction, and 1 / 0 is infinite.
    """
    folder = cache_folder()
    if folder is not None:
        with _deciding, _numba_cache(folder), contextlib.suppress(RuntimeError):  # Numba found no place after all
            return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    return numba.njit(nogil=True, error_model="numpy")(function)


def jit_with(function: Any, **pieces: Any) -> Any:
    """``jit`` of a function whose global names ``pieces`` are bound to these.

    A closure would do, but Numba never finds one that holds compiled functions on disk again: their identity is new in
    every process.
    """
    return jit(FunctionType(function.__code__, {**function.__globals__, **pieces}, function.__name__))


def inline(function: Callable[..., Any]) -> Any:
    """Compile a function into every kernel that calls it: a piece of a hot loop, never called from Python."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)


@contextlib.contextmanager
def _numba_cache(folder: Path) -> Any:
    """Numba reads the folder when a function is decorated; other users of Numba keep theirs."""
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        _config.CACHE_DIR = before
