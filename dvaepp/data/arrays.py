"""A user's own .npy or .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dvaepp.data.assemble import ALL, assemble, where_in
from dvaepp.data.dataset import SPLITS, Dataset
from dvaepp.data.files import reason
from dvaepp.errors import DataError
from reference.vocabulary import Array


def load(path: Path, seed: int) -> Dataset:
    """Load images from a .npy file, or from a .npz file with its own splits or with one array.

    A .npz with ``train`` and ``test``, and ``valid`` or not, holds its splits; other arrays in it (labels, say) are
    left alone. Without any of those names it must hold ``images``, or exactly one array of any name, which is split
    80/10/10 by the seed. Objects are never unpickled: a data file must not be able to run code.

    Shapes   each array (N, H, W) or (N, D) of grey images; (N, H, W, 3) or (N, 3, H, W) of colour, unless both fit
    Domain   booleans, integers or floats; the scale is told from the numbers: see ``assemble.to_pixels``
    Raises   DataError naming the file, the array, the rule and the first offender.
    """
    arrays = _read(path)
    if list(arrays) == [ALL]:
        return _assemble(path, arrays, seed)
    if any(split in arrays for split in SPLITS):
        for needed in ("train", "test"):
            if needed not in arrays:
                raise DataError(f"{path}: splits need 'train' and 'test'; there is no {needed!r} in {_list(arrays)}")
        return _assemble(path, {split: arrays[split] for split in SPLITS if split in arrays}, seed)
    if ALL in arrays:
        return _assemble(path, {ALL: arrays[ALL]}, seed)
    if len(arrays) != 1:
        raise DataError(
            f"{path}: must hold 'train' and 'test', or {ALL!r}, or a single array; it holds {_list(arrays)}"
        )
    return _assemble(path, {ALL: next(iter(arrays.values()))}, seed)


def _assemble(path: Path, arrays: dict[str, Array], seed: int) -> Dataset:
    return assemble(path, {key: _planes_first(where_in(path, key), array) for key, array in arrays.items()}, seed)


def _planes_first(where: str, array: Array) -> Array:
    """Move the colours of (N, H, W, 3) to (N, 3, H, W); leave any other shape to ``assemble``.

    Raises   DataError for (N, 3, H, 3), which may be either.
    """
    if array.ndim != 4 or array.shape[3] != 3:
        return array
    if array.shape[1] == 3:
        raise DataError(
            f"{where}: the shape must be (N, H, W, 3) or (N, 3, H, W) for colour, and it may be either; it is "
            f"{array.shape}. Pad or crop the images to another size"
        )
    return array.transpose(0, 3, 1, 2)


def _read(path: Path) -> dict[str, Array]:
    """Return the arrays of a .npz by name, or that of a .npy under ``ALL``."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; a file was expected")
    try:
        with path.open("rb") as file:  # opened here, because NumPy leaves a damaged .npz open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {ALL: loaded}
            members = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # a damaged header can make NumPy, zipfile and zlib raise nearly anything
        raise DataError(
            f"{path}: cannot be read as NumPy numbers: {reason(error)}; save it with numpy.save or numpy.savez"
        ) from error
    return {name: member for name, member in members.items() if isinstance(member, np.ndarray)}  # others come as bytes


def _list(arrays: dict[str, Array]) -> str:
    return ", ".join(repr(name) for name in arrays) or "nothing"
