"""The .amat text format: one image a line, its pixels as numbers with blanks between, here 0 or 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dvaepp.data.assemble import ALL, assemble
from dvaepp.data.dataset import Dataset, Pixels
from dvaepp.data.files import read
from dvaepp.errors import DataError


def parse(where: Path | str, text: bytes) -> Pixels:
    """Return the images of an .amat text.

    The published files have rows of one width, "0 1 ... 0" and a line feed, so that every even byte is a digit; those
    are read as one table of bytes (half a second for 50,000 images of 784 pixels). Any other spacing, "1.0" for "1",
    other line ends and blank lines are read number by number.

    Shapes   -> (N, D) uint8 in {0, 1}
    Raises   DataError naming the line and column, both from 1, of the first thing that is not 0 or 1, or the first
             line of another length; and for a text without numbers.
    """
    pixels = _parse_table(text)
    return _parse_lines(where, text) if pixels is None else pixels


def load(path: Path, seed: int) -> Dataset:
    """Load a user's own .amat file, packed with gzip or not, split 80/10/10 by the seed.

    Raises   DataError for what ``parse``, ``files.read`` or ``assemble`` refuses.
    """
    return assemble(path, {ALL: parse(path, read(path))}, seed)


def _parse_table(text: bytes) -> Pixels | None:
    """Read rows "d d ... d" of one width, or return None: the text is laid out otherwise or holds other numbers."""
    width = text.find(b"\n") + 1
    if width < 2 or width % 2 or len(text) % width:
        return None
    table = np.frombuffer(text, dtype=np.uint8).reshape(-1, width)
    if (table[:, 1:-1:2] != ord(" ")).any() or (table[:, -1] != ord("\n")).any():
        return None
    pixels = table[:, ::2] - np.uint8(ord("0"))  # bytes below "0" wrap to large ones, and are refused with those above
    return pixels if pixels.max() <= 1 else None


def _parse_lines(where: Path | str, text: bytes) -> Pixels:
    rows: list[Pixels] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if rows and len(words) != len(rows[0]):
            raise DataError(
                f"{where}: every line must hold as many numbers as the first, {len(rows[0])}; "
                f"line {number} holds {len(words)}"
            )
        rows.append(_parse_words(f"{where}: numbers must be 0 or 1; line {number}", words))
    if not rows:
        raise DataError(f"{where}: holds no numbers; a line of 0s and 1s for each image was expected")
    return np.stack(rows)


def _parse_words(complaint: str, words: list[bytes]) -> Pixels:
    try:
        numbers = np.array(words).astype(np.float64)
    except ValueError:
        numbers = np.array([_number(word) for word in words])
    is_pixel = (numbers == 0) | (numbers == 1)
    if not is_pixel.all():
        column = int(np.argmin(is_pixel))
        quoted = words[column][:20].decode("ascii", "replace")
        raise DataError(f"{complaint}, column {column + 1} is {quoted!r}")
    return numbers.astype(np.uint8)


def _number(word: bytes) -> float:
    """Read one word as NumPy reads a row of them; what is no number becomes NaN, which is neither 0 nor 1."""
    try:
        return float(np.array(word).astype(np.float64))
    except ValueError:
        return np.nan
