from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvaepp.data import idx, load
from dvaepp.errors import DataError


def idx_bytes(shape: tuple[int, ...], body: bytes) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + body


@given(count=st.integers(0, 5), height=st.integers(1, 300), width=st.integers(1, 4), data=st.data())
@settings(deadline=None, max_examples=50)
def test_round_trip(count: int, height: int, width: int, data: st.DataObject) -> None:
    size = count * height * width
    body = data.draw(st.binary(min_size=size, max_size=size))
    images = idx.parse("x", idx_bytes((count, height, width), body), rank=3)
    assert images.shape == (count, height, width)
    assert images.tobytes() == body


def test_labels() -> None:
    np.testing.assert_array_equal(idx.parse("x", idx_bytes((3,), b"\x07\x00\x09"), rank=1), [7, 0, 9])


@pytest.mark.parametrize("packed", [False, True])
def test_own_file(tmp_path: Path, packed: bool) -> None:
    content = idx_bytes((10, 2, 3), bytes(range(60)))
    path = tmp_path / ("mine-idx3-ubyte" + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(content) if packed else content)
    data = load(str(path))
    assert (data.levels, data.image_shape) == (255, (2, 3))
    assert [len(split) for split in (data.train, data.valid, data.test)] == [8, 1, 1]
    everything = np.concatenate([data.train, data.valid, data.test])
    assert sorted(map(tuple, everything)) == [tuple(range(i, i + 6)) for i in range(0, 60, 6)]


GOOD = idx_bytes((2, 2, 2), b"12345678")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with the bytes 00 00 08 03; it begins with nothing"),
        (b"\x89PNG\r\n", "an idx file of images must begin with the bytes 00 00 08 03; it begins with 89 50 4e 47"),
        (idx_bytes((8,), b"12345678"), "begins with 00 00 08 01"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "begins with 00 00 0d 03"),
        (GOOD[:9], "is truncated: the idx header takes 16 bytes; there are 9"),
        (GOOD[:-1], r"is truncated: shape \(2, 2, 2\) takes 8 bytes after the header; there are 7"),
        (GOOD + b"9", r"has bytes left over: shape \(2, 2, 2\) takes 8 bytes after the header; there are 9"),
        (idx_bytes((2**32 - 1,) * 3, b"x"), "is truncated: shape .* takes 79228162458924105385300197375 bytes"),
    ],
)
def test_refuses(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: .*{message}") as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_refuses_images_for_labels() -> None:
    with pytest.raises(
        DataError, match="x: an idx file of labels must begin with the bytes 00 00 08 01; it begins with"
    ):
        idx.parse("x", GOOD, rank=1)
