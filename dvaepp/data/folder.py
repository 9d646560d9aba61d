"""A user's own folder of PNG pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dvaepp.data.assemble import ALL, assemble
from dvaepp.data.dataset import SPLITS, Dataset, Pixels
from dvaepp.data.files import reason
from dvaepp.errors import DataError


def load(path: Path, seed: int) -> Dataset:
    """Load a folder of PNG pictures of one size, as grey images in the order of their names.

    The pictures lie in the folder itself, and are split 80/10/10 by the seed; or in its subfolders ``train`` and
    ``test``, and ``valid`` or not. Other files, hidden files and other subfolders are left alone.

    Colour becomes grey by Pillow's weights (ITU-R 601-2), 16 bits become 8 to the nearest, palettes are looked up.
    A picture that is transparent anywhere is refused, because what shines through is not defined. A folder in which
    every pixel is pure black or white is binary data.

    Raises   DataError for no pictures, pictures in both places, a picture that cannot be read or is of another size
             than the first, naming it; and for what ``assemble`` refuses.
    """
    subfolders = [split for split in SPLITS if (path / split).is_dir()]
    loose = _pictures(path)
    if not subfolders:
        return assemble(path, {ALL: _read_all(path, loose)}, seed)
    if loose:
        raise DataError(
            f"{path}: pictures must lie in the folder or in its subfolders {', '.join(subfolders)}, not in both; "
            f"the folder itself holds {loose[0].name}"
        )
    for needed in ("train", "test"):
        if needed not in subfolders:
            raise DataError(f"{path}: splits need the subfolders train and test; there is no {needed!r}")
    return assemble(path, {split: _read_all(path / split, _pictures(path / split)) for split in subfolders}, seed)


def _pictures(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error
    return [entry for entry in entries if entry.suffix.lower() == ".png" and not entry.name.startswith(".")]


def _read_all(folder: Path, pictures: list[Path]) -> Pixels:
    if not pictures:
        raise DataError(
            f"{folder}: holds no .png pictures, nor subfolders train and test that do "
            "(for a registered data set, pass its name, and its folder as --data-dir)"
        )
    first = _read(pictures[0])
    out = np.empty((len(pictures), *first.shape), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        grey = first if index == 0 else _read(picture)
        if grey.shape != first.shape:
            raise DataError(
                f"{picture}: all pictures must have one size, {first.shape[1]}x{first.shape[0]} as "
                f"{pictures[0].name}; this one is {grey.shape[1]}x{grey.shape[0]}"
            )
        out[index] = grey
    return out


def _read(picture: Path) -> Pixels:
    """Return one picture as (H, W) grey."""
    try:
        with Image.open(picture, formats=["PNG"]) as image:
            image.load()
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise DataError(f"{picture}: has transparent pixels; lay it on a background first")
            if image.mode.startswith("I"):  # 16 bits, which convert("L") would clip at 255
                return np.rint(np.asarray(image) / 257).astype(np.uint8)  # 257 = 65535 / 255
            return np.asarray(image.convert("L"))
    except DataError:
        raise
    except Exception as error:  # damaged pictures make Pillow raise OSError, SyntaxError, zlib.error, struct.error, ...
        raise DataError(f"{picture}: cannot be read as a PNG picture: {reason(error)}") from error
