from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dvaepp.data import amat, load
from dvaepp.errors import DataError

bits = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1))


def as_text(images: np.ndarray, blank: str = " ", end: str = "\n", one: str = "1") -> bytes:
    return "".join(blank.join(one if p else "0" for p in row) + end for row in images.tolist()).encode()


@given(images=bits)
@settings(deadline=None, max_examples=60)
def test_round_trip(images: np.ndarray) -> None:
    np.testing.assert_array_equal(amat.parse("x", as_text(images)), images)


@given(
    images=bits,
    blank=st.sampled_from([" ", "  ", "\t"]),
    end=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]),
    one=st.sampled_from(["1", "1.0", "1.0000000e+00", "+1", "01"]),
)
@settings(deadline=None, max_examples=100)
def test_other_spellings(images: np.ndarray, blank: str, end: str, one: str) -> None:
    text = as_text(images, blank, end, one)
    np.testing.assert_array_equal(amat.parse("x", text), images)
    np.testing.assert_array_equal(amat.parse("x", text.rstrip(b"\r\n")), images)


@given(text=st.text(alphabet="01 \n\t.2x\r-", max_size=40).map(str.encode) | st.binary(max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_bits_or_a_data_error(text: bytes) -> None:
    try:
        images = amat.parse("x", text)
    except DataError:
        return
    assert images.ndim == 2
    assert images.max() <= 1


@pytest.mark.parametrize("packed", [False, True])
def test_own_file(tmp_path: Path, packed: bool) -> None:
    images = np.eye(30, 25, dtype=np.uint8)
    path = tmp_path / ("mine.amat" + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(as_text(images)) if packed else as_text(images))
    data = load(str(path), seed=3)
    assert (data.levels, data.image_shape, data.name) == (1, (5, 5), path.name)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [24, 3, 3]
    everything = np.concatenate([data.train, data.valid, data.test])
    assert sorted(map(tuple, everything)) == sorted(map(tuple, images))
    assert data.provenance == f"{path}: 24 / 3 / 3 images, split 80/10/10 with seed 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"0 1 0\n1 2 0\n", "numbers must be 0 or 1; line 2, column 2 is '2'"),
        (b"0 1 0\n1 x 0\n", "numbers must be 0 or 1; line 2, column 2 is 'x'"),
        (b"0 1 0\n1 0.5 0\n", "numbers must be 0 or 1; line 2, column 2 is '0.5'"),
        (b"0 nan\n", "numbers must be 0 or 1; line 1, column 2 is 'nan'"),
        (b"0 \xff\xfe\n", "numbers must be 0 or 1; line 1, column 2 is"),
        (b"0 1\n\n1\n", "every line must hold as many numbers as the first, 2; line 3 holds 1"),
        (b"", "holds no numbers; a line of 0s and 1s for each image was expected"),
        (b"\n \n", "holds no numbers"),
    ],
)
def test_refuses(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "bad.amat"
    path.write_bytes(text)
    with pytest.raises(DataError, match=f"^{path}: {message}") as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_refuses_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "cut.amat.gz"
    whole = gzip.compress(as_text(np.random.default_rng(0).integers(0, 2, (50, 50))))
    for damaged in (whole[:-20], whole[:40] + b"\x00\xff" * 8 + whole[56:], whole[:-8] + b"\x00" * 8):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"^{path}: is truncated or damaged gzip: "):
            load(str(path))
