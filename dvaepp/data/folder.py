"""A user's own folder of PNG pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dvaepp.data.assemble import ALL, assemble
from dvaepp.data.dataset import SPLITS, Dataset, Pixels
from dvaepp.data.files import reason
from dvaepp.errors import DataError


def load(path: Path, seed: int) -> Dataset:
    """Load a folder of PNG pictures of one size, grey or in colour, in the order of their names.

    The pictures lie in the folder itself, and are split 80/10/10 by the seed; or in its subfolders ``train`` and
    ``test``, and ``valid`` or not. Other files, hidden files and other subfolders are left alone.

    | pictures                                                                        | data set          |
    |---------------------------------------------------------------------------------|-------------------|
    | all grey: saved as grey, or as colours or a palette whose every pixel is a grey | grey              |
    | all saved as colours or a palette, one pixel at least not a grey                | colour            |
    | some saved as grey, and one pixel at least of the others not a grey             | refused           |

    16 bits of grey become 8 to the nearest; of 16 bits of a colour Pillow keeps the upper 8. A picture that is
    transparent anywhere is refused, because what shines through is not defined. A folder in which every pixel is pure
    black or white is binary data.

    Raises   DataError for no pictures, pictures in both places, a picture that cannot be read or is of another size
             than the first, naming it; for grey beside colour, naming the first that differs; and for what ``assemble``
             refuses.
    """
    subfolders = [split for split in SPLITS if (path / split).is_dir()]
    loose = _pictures(path)
    if not subfolders:
        return assemble(path, _one_kind({ALL: _read_all(path, loose)}), seed)
    if loose:
        raise DataError(
            f"{path}: pictures must lie in the folder or in its subfolders {', '.join(subfolders)}, not in both; "
            f"the folder itself holds {loose[0].name}"
        )
    for needed in ("train", "test"):
        if needed not in subfolders:
            raise DataError(f"{path}: splits need the subfolders train and test; there is no {needed!r}")
    read = {split: _read_all(path / split, _pictures(path / split)) for split in subfolders}
    return assemble(path, _one_kind(read), seed)


def _pictures(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error
    return [entry for entry in entries if entry.suffix.lower() == ".png" and not entry.name.startswith(".")]


@dataclass(frozen=True, eq=False)
class _Picture:
    """A picture as it was read: ``pixels`` (H, W) if every pixel is a grey, else (3, H, W).

    ``saved_grey`` if its format has no colours; a grey picture that is not saved as grey may be one of a coloured set.
    """

    path: Path
    pixels: Pixels
    saved_grey: bool

    @property
    def coloured(self) -> bool:
        return self.pixels.ndim == 3


def _read_all(folder: Path, paths: list[Path]) -> list[_Picture]:
    if not paths:
        raise DataError(
            f"{folder}: holds no .png pictures, nor subfolders train and test that do "
            "(for a registered data set, pass its name, and its folder as --data-dir)"
        )
    pictures: list[_Picture] = []
    for path in paths:
        pictures.append(_read(path))
        height, width = pictures[-1].pixels.shape[-2:]
        first_height, first_width = pictures[0].pixels.shape[-2:]
        if (height, width) != (first_height, first_width):
            raise DataError(
                f"{path}: all pictures must have one size, {first_width}x{first_height} as {paths[0].name}; "
                f"this one is {width}x{height}"
            )
    return pictures


def _one_kind(read: Mapping[str, list[_Picture]]) -> dict[str, Pixels]:
    """Join the pictures of each split, all of them grey (N, H, W) or all in colour (N, 3, H, W)."""
    pictures = [picture for split in read.values() for picture in split]
    coloured = next((picture for picture in pictures if picture.coloured), None)
    if coloured is None:
        return {split: np.stack([picture.pixels for picture in found]) for split, found in read.items()}
    grey = next((picture for picture in pictures if picture.saved_grey), None)
    if grey is not None:
        differs = max(grey, coloured, key=pictures.index)
        other = grey if differs is coloured else coloured
        kinds = ("in colour", "grey") if differs is coloured else ("grey", "in colour")
        raise DataError(
            f"{differs.path}: all pictures must be grey, or all in colour; this one is {kinds[0]}, "
            f"{other.path} is {kinds[1]}: convert one kind"
        )
    planes = (3, *coloured.pixels.shape[-2:])
    return {
        split: np.stack([np.broadcast_to(picture.pixels, planes) for picture in found]) for split, found in read.items()
    }


def _read(path: Path) -> _Picture:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise DataError(f"{path}: has transparent pixels; lay it on a background first")
            if image.mode.startswith("I"):  # 16 bits, which convert("L") would clip at 255
                return _Picture(path, np.rint(np.asarray(image) / 257).astype(np.uint8), True)  # 257 = 65535 / 255
            if image.mode in ("1", "L", "LA"):
                return _Picture(path, np.asarray(image.convert("L")), True)
            planes = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            return _Picture(path, planes[0].copy() if (planes == planes[0]).all() else planes, False)
    except DataError:
        raise
    except Exception as error:  # damaged pictures make Pillow raise OSError, SyntaxError, zlib.error, struct.error, ...
        raise DataError(f"{path}: cannot be read as a PNG picture: {reason(error)}") from error
