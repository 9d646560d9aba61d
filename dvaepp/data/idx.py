"""The idx format of MNIST: a big-endian header, then the bytes of one array.

    0, 0, type, rank | rank sizes, 4 bytes each | the array, row-major          type 8 is unsigned byte

Source   Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", file formats.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from dvaepp.data.assemble import ALL, assemble
from dvaepp.data.dataset import Dataset, Pixels
from dvaepp.data.files import read
from dvaepp.errors import DataError

_UNSIGNED_BYTE = 8


def parse(where: Path | str, content: bytes, rank: int) -> Pixels:
    """Return the array of an unpacked idx file.

    Shapes   -> the ``rank`` sizes in the header: (N, H, W) for images, (N,) for labels
    Domain   unsigned bytes only, the one type in which MNIST is published
    Raises   DataError for another magic number, type or rank, and for content shorter or longer than the header says.
    """
    expected = bytes((0, 0, _UNSIGNED_BYTE, rank))
    if content[:4] != expected:
        raise DataError(
            f"{where}: an idx file of {'images' if rank == 3 else 'labels'} must begin with the bytes "
            f"{expected.hex(' ')}; it begins with {content[:4].hex(' ') or 'nothing'}"
        )
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataError(f"{where}: is truncated: the idx header takes {start} bytes; there are {len(content)}")
    shape = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", count=rank, offset=4))
    size = math.prod(shape)
    if len(content) != start + size:
        says = "is truncated" if len(content) < start + size else "has bytes left over"
        raise DataError(
            f"{where}: {says}: shape {shape} takes {size} bytes after the header; there are {len(content) - start}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def load(path: Path, seed: int) -> Dataset:
    """Load a user's own idx file of images, packed with gzip or not, split 80/10/10 by the seed.

    Raises   DataError for what ``parse``, ``files.read`` or ``assemble`` refuses.
    """
    return assemble(path, {ALL: parse(path, read(path), rank=3)}, seed)
