"""From a user's own numbers to a data set: what counts as a pixel, and how images without splits are split.

Every format a user can bring ends here, so that the same numbers mean the same data set in a text, an array or a
folder of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dvaepp.data.dataset import SPLITS, Dataset, Pixels, check_pixels, image_shape_of, shuffled_order
from dvaepp.errors import DataError
from reference.vocabulary import Array

ALL = "images"  # the key of images that are not split yet


def assemble(path: Path, arrays: Mapping[str, Array], seed: int) -> Dataset:
    """Turn the arrays of one file or folder into a data set.

    ``arrays`` holds either one array under ``ALL``, which is split 80/10/10, or the splits: train and test, and valid,
    which is cut from train if missing (one image in ten). Images are assigned in the order of ``shuffled_order``:
    first test, then valid, then train, a tenth rounded down but at least one image each to the first two.

    Shapes   each array grey, (N, H, W), or (N, D), which is taken for square images if D is a square, else for one
             row; or each in colour, (N, 3, H, W)
    Domain   see ``to_pixels``
    Raises   DataError naming ``path``, the rule and the first offender.
    """
    flat, (channels, height, width) = _flatten(path, arrays)
    pixels, levels = to_pixels(path, flat, channels)
    note = "split by its owner"
    if ALL in pixels:
        pixels = _split(path, pixels[ALL], ("test", "valid"), seed)
        note = f"split 80/10/10 with seed {seed}"
    elif "valid" not in pixels:
        pixels = {**pixels, **_split(path, pixels["train"], ("valid",), seed)}
        note = f"valid cut from train with seed {seed}"
    counts = " / ".join(f"{len(pixels[split]):,}" for split in SPLITS)
    return Dataset(
        name=path.name,
        train=pixels["train"],
        valid=pixels["valid"],
        test=pixels["test"],
        levels=levels,
        image_shape=(height, width),
        channels=channels,
        provenance=f"{path}: {counts} images, {note}",
    )


def to_pixels(path: Path, arrays: Mapping[str, Array], channels: int = 1) -> tuple[dict[str, Pixels], int]:
    """Turn numbers into pixels, by one rule for all splits together; return them with their levels.

    | numbers                            | pixels                                                   | levels |
    |------------------------------------|----------------------------------------------------------|--------|
    | only 0 and 1 (or booleans)         | as they are                                              | 1      |
    | only 0 and 255                     | 0 and 1: black and white                                 | 1      |
    | whole, 0..255                      | as they are                                              | 255    |
    | some with fractions, all in [0, 1] | 255 times, to the nearest whole number (a half: to even) | 255    |

    Colour has no binary form: whole colours are taken as they are, and those that do not reach beyond 1 are refused,
    because they may be meant for 0..1 or be nearly black.

    Shapes   each (N, D) -> (N, D) uint8
    Raises   DataError for other dtypes than booleans, integers and floats; for NaN, infinities, numbers below 0 or
             above 255, fractions beside numbers above 1, splits on different scales, and colours of 0 and 1 alone.
    """
    for key, numbers in arrays.items():
        where = where_in(path, key)
        if numbers.dtype.kind not in "biuf":
            raise DataError(f"{where}: pixels must be booleans, integers or floats; the dtype is {numbers.dtype}")
        if numbers.dtype.kind == "f":
            check_pixels(where, numbers, np.isfinite(numbers), "be finite")
        check_pixels(where, numbers, (numbers >= 0) & (numbers <= 255), "lie in 0..255")

    tops = {key: float(numbers.max()) for key, numbers in arrays.items()}
    top = max(tops.values())
    if not all(_is_whole(numbers) for numbers in arrays.values()):
        if top > 1:
            rule = f"be whole numbers, as the largest is {top:g} (only pixels in [0, 1] may have fractions)"
            for key, numbers in arrays.items():
                check_pixels(where_in(path, key), numbers, numbers == np.floor(numbers), rule)
        return {key: np.rint(numbers * 255).astype(np.uint8) for key, numbers in arrays.items()}, 255
    if top <= 1 and channels > 1:
        raise DataError(
            f"{path}: colours must be 0..255, or have fractions in [0, 1]; all are whole and the largest is {top:g}. "
            "If 1 is meant for full, multiply by 255"
        )
    if top <= 1:
        return {key: numbers.astype(np.uint8) for key, numbers in arrays.items()}, 1
    for key, split_top in tops.items():
        if split_top == 1:  # an all-black split (0) is odd but says nothing of its scale
            raise DataError(
                f"{where_in(path, key)}: splits must share one scale; the largest pixel here is 1, elsewhere {top:g}"
            )
    pixels = {key: numbers.astype(np.uint8) for key, numbers in arrays.items()}
    if channels == 1 and all(((split == 0) | (split == 255)).all() for split in pixels.values()):
        return {key: split // np.uint8(255) for key, split in pixels.items()}, 1
    return pixels, 255


def _flatten(path: Path, arrays: Mapping[str, Array]) -> tuple[dict[str, Array], tuple[int, int, int]]:
    """Bring every array to (N, D); return them with the channels, height and width they must share."""
    flat: dict[str, Array] = {}
    shapes: dict[str, tuple[int, int, int]] = {}
    for key, array in arrays.items():
        where = where_in(path, key)
        if array.ndim not in (2, 3, 4) or (array.ndim == 4 and array.shape[1] != 3):
            raise DataError(
                f"{where}: the shape must be (N, H, W) or (N, D) for grey images, (N, 3, H, W) or (N, H, W, 3) for "
                f"colour; it is {array.shape}"
            )
        if array.size == 0:
            raise DataError(f"{where}: there must be at least one image of at least one pixel; shape {array.shape}")
        height, width = image_shape_of(array.shape[1]) if array.ndim == 2 else array.shape[-2:]
        shapes[key] = (array.shape[1] if array.ndim == 4 else 1, height, width)
        flat[key] = array.reshape(len(array), -1)
    first = next(iter(shapes))
    for key, shape in shapes.items():
        if shape != shapes[first]:
            raise DataError(
                f"{where_in(path, key)}: all splits must have images of one size and kind; these are "
                f"{_described(shape)}, those of {first} {_described(shapes[first])}"
            )
    return flat, shapes[first]


def _described(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width}" if channels == 1 else f"{height}x{width} in colour"


def _split(path: Path, pixels: Pixels, held_out: tuple[str, ...], seed: int) -> dict[str, Pixels]:
    """Hold out a tenth of the images for each name in turn; the rest are train."""
    count = len(pixels)
    if count <= len(held_out):
        raise DataError(
            f"{path}: splitting off {' and '.join(held_out)} needs at least {len(held_out) + 1} images; "
            f"the file or folder has {count}"
        )
    tenth = max(1, count // 10)
    order = shuffled_order(count, seed)
    cuts = [tenth * (index + 1) for index in range(len(held_out))]
    return {split: pixels[chosen] for split, chosen in zip((*held_out, "train"), np.split(order, cuts), strict=True)}


def _is_whole(numbers: Array) -> bool:
    return numbers.dtype.kind != "f" or bool((numbers == np.floor(numbers)).all())


def where_in(path: Path, key: str) -> str:
    """Name an array in an error: the file alone, or with the split."""
    return str(path) if key == ALL else f"{path}, {key}"
