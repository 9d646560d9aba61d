"""Data sets by name, and a user's own files by their format.

Adding a data set is one file with a ``load(data_dir)`` and one line in ``_REGISTERED``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from dvaepp.data import amat, arrays, caltech, cifar10, digits, folder, idx, mnist, mnist_static, omniglot
from dvaepp.data.dataset import Dataset, check_seed
from dvaepp.data.files import reason
from dvaepp.errors import DataError

_REGISTERED: dict[str, Callable[[Path | None], Dataset]] = {
    "caltech-silhouettes": caltech.load,
    "cifar10": cifar10.load,
    "cifar10-subset": cifar10.load_subset,
    "digits": digits.load,
    "mnist": mnist.load,
    "mnist-static": mnist_static.load,
    "omniglot": omniglot.load,
    "omniglot-substitute": omniglot.load_substitute,
}

_SELF_CONTAINED = ("digits",)  # in the package: no files to look for

_FORMATS: dict[str, Callable[[Path, int], Dataset]] = {  # by the end of the file name
    ".npy": arrays.load,
    ".npz": arrays.load,
    ".amat": amat.load,
    ".amat.gz": amat.load,
    "-ubyte": idx.load,
    "-ubyte.gz": idx.load,
    ".tar": cifar10.load_archive,
    ".tar.gz": cifar10.load_archive,
}


def names() -> tuple[str, ...]:
    """Return the names of the registered data sets, in alphabetical order."""
    return tuple(sorted(_REGISTERED))


def load(name_or_path: str, data_dir: Path | None = None, seed: int = 0) -> Dataset:
    """Load a registered data set by name, or a user's own file or folder by path.

    A registered name comes first; write ./digits for a folder of that name. ``data_dir`` is where the files of a
    registered data set lie; without it they are looked for in the cache and downloaded into it once (see
    ``download.obtain``). ``seed`` splits a user's own images where they come without splits (see ``assemble``);
    registered data sets have fixed splits.

    Raises   DataError, one line, for an unknown name or format, for missing or damaged files, and for a data_dir that
             would not be looked at.
    """
    check_seed(seed)
    if name_or_path in _SELF_CONTAINED:
        _refuse(data_dir, name_or_path)
    if name_or_path in _REGISTERED:
        return _REGISTERED[name_or_path](None if data_dir is None else Path(data_dir).expanduser())
    try:
        path = Path(name_or_path).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a folder one may not enter, a user without a home
        raise DataError(f"{name_or_path}: cannot be looked up: {reason(error)}") from error
    if not exists or not name_or_path:  # Path("") would be the current folder
        raise DataError(_unknown(name_or_path))
    _refuse(data_dir, name_or_path)
    if path.is_dir():
        return folder.load(path, seed)
    for ending, load_format in _FORMATS.items():
        if path.name.lower().endswith(ending):
            return load_format(path, seed)
    raise DataError(f"{path}: the format is told by the end of the name: {', '.join(_FORMATS)}, or a folder of .png")


def _refuse(data_dir: Path | None, name: str) -> None:
    """Raise DataError if a folder was given that would not be looked at."""
    if data_dir is not None:
        others = ", ".join(other for other in names() if other not in _SELF_CONTAINED)
        raise DataError(
            f"data_dir {data_dir} is where the files of {others} lie; {name!r} needs none: leave it out, or name "
            "another data set or preset"
        )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), _REGISTERED, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown data set {name!r}; {hint}registered: {', '.join(names())}; or give the path of a file or folder"
