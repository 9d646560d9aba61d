"""A data set in memory: images in three splits, checked once and read-only from then on; and its binarisation."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvaepp.errors import DataError
from reference.vocabulary import Array

Pixels = NDArray[np.uint8]

SPLITS = ("train", "valid", "test")

# Each use of a seed reads a stream of its own, so that the order in which images are split and the noise which
# binarises them never share a number.
_BINARISING_STREAM = {split: index for index, split in enumerate(SPLITS)}
_ORDERING_STREAM = len(SPLITS)

_BLOCK = 1 << 20  # pixels binarised at a time: bounds the memory for noise to a few times 8 MiB


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in three splits, one image a row.

    A row of a colour image holds its red plane, then the green, then the blue one, each row by row.

    ``labels`` are for tables and pictures; no model of this project is trained on them. ``provenance`` is one line for
    a human: what the images are, where they came from, how they were split.

    The arrays are stored as read-only views; a caller who keeps a writable one of the same memory must leave it alone.

    Shapes   train, valid, test (N, D) uint8, each its own N >= 1; image_shape (H, W) with D = channels H W;
             labels[split] (N,) uint8
    Domain   levels 1: pixels in {0, 1}, one channel; levels 255: grey (one channel) or colour (three), 0..255
    Raises   DataError for anything else, quoting the first offender.
    """

    name: str
    train: Pixels
    valid: Pixels
    test: Pixels
    levels: int
    image_shape: tuple[int, int]
    labels: Mapping[str, Pixels] | None = None
    channels: int = field(default=1, kw_only=True)
    provenance: str = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise DataError(f"{self.name}: channels must be 1 (binary or grey) or 3 (colour); got {self.channels}")
        if self.levels == 1 and self.channels != 1:
            raise DataError(f"{self.name}: binary images (levels 1) must have 1 channel; got {self.channels}")
        height, width = self.image_shape
        needed = self.channels * height * width
        for split in SPLITS:
            pixels = getattr(self, split)
            where = f"{self.name}, {split}"
            _check_rows(where, pixels)
            if pixels.shape[1] != needed:
                channels = "" if self.channels == 1 else f" with {self.channels} channels"
                raise DataError(
                    f"{where}: image_shape {height}x{width}{channels} needs {needed} pixels an image; "
                    f"there are {pixels.shape[1]}"
                )
            check_levels(where, pixels, self.levels)
            object.__setattr__(self, split, _read_only(pixels))
        if self.labels is not None:
            object.__setattr__(self, "labels", self._checked_labels(self.labels))

    def _checked_labels(self, labels: Mapping[str, Pixels]) -> dict[str, Pixels]:
        if set(labels) != set(SPLITS):
            raise DataError(f"{self.name}: labels must cover {', '.join(SPLITS)}; got {', '.join(sorted(labels))}")
        for split in SPLITS:
            count = len(getattr(self, split))
            if labels[split].dtype != np.uint8 or labels[split].shape != (count,):
                raise DataError(
                    f"{self.name}, {split}: labels must be uint8 of shape ({count},), one an image; "
                    f"got {labels[split].dtype} of shape {labels[split].shape}"
                )
        return {split: _read_only(labels[split]) for split in SPLITS}

    @functools.cached_property
    def digest(self) -> str:
        """Short name of the images themselves, the same wherever they lie: two data sets with one digest are equal."""
        digest = hashlib.blake2b(digest_size=16)
        if self.channels != 1:  # nothing for one channel: run folders remember digests of before there was colour
            digest.update(f"channels {self.channels} ".encode())
        for split in SPLITS:
            pixels = getattr(self, split)
            digest.update(f"{split} {pixels.shape} {self.levels} ".encode())
            digest.update(pixels.tobytes())
        return digest.hexdigest()

    def binarised(self, seed: int) -> Dataset:
        """Return the same data set with every image binarised once, by ``binarise_static``.

        The three splits draw from three streams of the one seed. Data that are binary already are returned as they are.

        Raises   DataError for a seed outside 0..2**64 - 1, and for colour images.
        """
        check_seed(seed)
        if self.levels == 1:
            return self
        return replace(
            self,
            train=self.binarised_split("train", seed),
            valid=self.binarised_split("valid", seed),
            test=self.binarised_split("test", seed),
            levels=1,
            provenance=f"{self.provenance}; binarised once with seed {seed}",
        )

    def binarised_split(self, split: str, seed: int) -> Pixels:
        """Return the images of one split as ``binarised`` gives them, at that split's cost alone."""
        check_binarisable(self)
        pixels: Pixels = getattr(self, split)
        if self.levels == 1:
            return pixels
        return binarise_static(pixels, self.levels, seed, stream=_BINARISING_STREAM[split])


def binarise_static(pixels: Pixels, levels: int, seed: int, *, stream: int = 0) -> Pixels:
    """Draw each pixel of grey images once, on with probability grey / levels.

    The pixel is 1 where u < grey / levels. Pixel p, counted along the rows from the first image's first pixel, takes
    u = (t + 1/2) 2^-24 with t the top 24 bits of word p of the Philox4x64-10 stream with key (seed, stream). NumPy
    guarantees the words of its Philox never to change, u is exact in float64, and no u equals grey / levels for
    levels 1 or 255: the same seed gives the same images on every machine and every NumPy. Black stays 0, white 1.

    Shapes   pixels (N, D) uint8 -> (N, D) uint8 in {0, 1}
    Domain   levels 1 or 255, pixels 0..levels; seed and stream 0..2**64 - 1
    Raises   DataError outside that.
    """
    _check_rows("binarise_static", pixels)
    check_levels("binarise_static", pixels, levels)
    words = _philox(seed, stream)
    out = np.empty(pixels.shape, dtype=np.uint8)
    rows = max(1, _BLOCK // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        grey = pixels[start : start + rows]
        top_bits = words.random_raw(grey.size) >> np.uint64(40)
        u = (top_bits.reshape(grey.shape) + 0.5) * 2.0**-24
        out[start : start + rows] = u < grey / levels
    return out


def shuffled_order(count: int, seed: int) -> NDArray[np.intp]:
    """Return the numbers 0..count-1 in an order drawn from a seed, the same on every machine and every NumPy.

    They are sorted by ``count`` words of a Philox stream of their own (stably, should two words ever be equal);
    ``Generator.permutation`` would not do, because NumPy may change it between versions.

    Shapes   -> (count,)
    Raises   DataError for a seed outside 0..2**64 - 1.
    """
    return np.argsort(_philox(seed, _ORDERING_STREAM).random_raw(count), kind="stable")


def image_shape_of(pixel_count: int) -> tuple[int, int]:
    """Guess (H, W) from the number of pixels: a square where that is possible, else one row."""
    side = math.isqrt(pixel_count)
    return (side, side) if side * side == pixel_count else (1, pixel_count)


def check_pixels(where: str, pixels: Array, holds: NDArray[np.bool_], rule: str) -> None:
    """Raise DataError for the first pixel where ``holds`` is false.

    Shapes   pixels and holds (N, D)
    """
    if not holds.all():
        image, pixel = divmod(int(np.argmin(holds)), holds.shape[1])
        raise DataError(f"{where}: pixels must {rule}; image {image}, pixel {pixel} is {pixels[image, pixel]}")


def check_levels(where: str, pixels: Pixels, levels: int) -> None:
    """Raise DataError unless ``levels`` is 1 or 255 and no pixel exceeds it.

    Shapes   pixels (N, D) uint8
    """
    if levels not in (1, 255):
        raise DataError(f"{where}: levels must be 1 (binary) or 255 (grey or colour); got {levels}")
    if levels == 1:
        check_pixels(where, pixels, pixels <= 1, "be 0 or 1")


def check_binarisable(dataset: Dataset) -> None:
    """Raise DataError for colour images: no published likelihood is of colours drawn as 0 or 1."""
    if dataset.channels != 1:
        raise DataError(
            f"{dataset.name}: colour images cannot be binarised; they are modelled by mixtures of discretised "
            "logistics: --likelihood logistic-mixture"
        )


def check_seed(seed: int) -> None:
    """Raise DataError unless ``seed`` is a whole number from 0 to 2**64 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise DataError(f"seed must be a whole number from 0 to 2**64 - 1; got {seed}")


def _check_rows(where: str, pixels: Any) -> None:
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        got = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{where}: pixels must be a uint8 array of shape (N, D); got {got}")
    if pixels.size == 0:
        raise DataError(f"{where}: there must be at least one image of at least one pixel; the shape is {pixels.shape}")


def _read_only(array: Pixels) -> Pixels:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _philox(seed: int, stream: int) -> np.random.Philox:
    check_seed(seed)
    return np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
