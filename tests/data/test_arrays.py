from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvaepp.data import Dataset, load
from dvaepp.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (20, 4, 3), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path: Path) -> Any:
    """Save one array as .npy, or several as .npz, and return the path."""

    def saver(array: Any = None, **arrays: Any) -> str:
        path = tmp_path / ("x.npy" if array is not None else "x.npz")
        np.save(path, array, allow_pickle=True) if array is not None else np.savez(path, **arrays)
        return str(path)

    return saver


def all_rows(data: Dataset) -> list[tuple[int, ...]]:
    return sorted(map(tuple, np.concatenate([data.train, data.valid, data.test]).tolist()))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, ">i4", np.float16, np.float32, np.float64])
@pytest.mark.parametrize("flat", [False, True])
def test_grey(save: Any, dtype: Any, flat: bool) -> None:
    images = GREY.reshape(20, 12) if flat else GREY
    data = load(save(images.astype(dtype)))
    assert (data.levels, data.image_shape) == (255, (1, 12) if flat else (4, 3))
    assert [len(split) for split in (data.train, data.valid, data.test)] == [16, 2, 2]
    assert all_rows(data) == sorted(map(tuple, GREY.reshape(20, 12).tolist()))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_binary(save: Any, dtype: Any) -> None:
    images = np.arange(90).reshape(10, 9) % 7 % 2
    data = load(save(images.astype(dtype)))
    assert (data.levels, data.image_shape) == (1, (3, 3))
    assert all_rows(data) == sorted(map(tuple, images.tolist()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_are_intensities(save: Any, dtype: Any) -> None:
    """Every grey k / 255 comes back as k, in each precision."""
    images = np.arange(256).reshape(4, 64)
    data = load(save((images / 255).astype(dtype)))
    assert data.levels == 255
    assert all_rows(data) == sorted(map(tuple, images.tolist()))


def test_fractions_round_to_nearest(save: Any) -> None:
    data = load(save(np.full((3, 1), 0.25)))  # 63.75
    assert data.train.tolist() == [[64]]


def test_black_and_white(save: Any) -> None:
    data = load(save(np.array([[0, 255], [255, 255], [0, 0]])))
    assert data.levels == 1
    assert all_rows(data) == [(0, 0), (0, 1), (1, 1)]


def colour_rows(images: Any) -> list[tuple[int, ...]]:
    """Rows of (N, H, W, 3) images as they should be: red, green, blue, each row by row; pixel by pixel, by loops."""
    count, height, width, _ = images.shape
    order = [(y, x, channel) for channel in range(3) for y in range(height) for x in range(width)]
    return sorted(tuple(int(images[(image, *place)]) for place in order) for image in range(count))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("planes_first", [False, True])
def test_colour(save: Any, dtype: Any, planes_first: bool) -> None:
    images = COLOUR.transpose(0, 3, 1, 2) if planes_first else COLOUR
    data = load(save(images.astype(dtype)))
    assert (data.levels, data.image_shape, data.channels) == (255, (4, 5), 3)
    assert all_rows(data) == colour_rows(COLOUR)


def test_colour_by_hand(save: Any) -> None:
    """A red pixel, then a green, then two blue ones, in one row."""
    image = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 255]]]], np.uint8)
    data = load(save(np.repeat(image, 3, axis=0)))
    assert data.train.tolist() == [[255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 255]]
    assert (data.levels, data.channels) == (255, 3)  # pure colours are not black and white


def test_colour_in_fractions_and_splits(save: Any) -> None:
    data = load(save(train=COLOUR[:4] / 255, valid=COLOUR[4:6] / 255, test=COLOUR.transpose(0, 3, 1, 2)[6:] / 255))
    assert (data.levels, data.image_shape, data.channels) == (255, (4, 5), 3)
    assert sorted(map(tuple, data.test.tolist())) == colour_rows(COLOUR[6:])


def test_own_splits(save: Any) -> None:
    data = load(save(train=GREY[:10], valid=GREY[10:13], test=GREY[13:], labels=np.arange(20)))
    np.testing.assert_array_equal(data.train, GREY[:10].reshape(10, 12))
    np.testing.assert_array_equal(data.valid, GREY[10:13].reshape(3, 12))
    np.testing.assert_array_equal(data.test, GREY[13:].reshape(7, 12))
    assert "10 / 3 / 7 images, split by its owner" in data.provenance


def test_valid_is_cut_from_train(save: Any) -> None:
    path = save(train=GREY[:15], test=GREY[15:])
    data = load(path, seed=1)
    assert (len(data.train), len(data.valid)) == (14, 1)
    np.testing.assert_array_equal(data.test, GREY[15:].reshape(5, 12))
    assert all_rows(data) == sorted(map(tuple, GREY.reshape(20, 12).tolist()))
    np.testing.assert_array_equal(data.valid, load(path, seed=1).valid)


@pytest.mark.parametrize("arrays", [{"anything": GREY}, {"images": GREY, "labels": np.arange(20)}])
def test_single_array_of_npz(save: Any, arrays: dict[str, Any]) -> None:
    assert all_rows(load(save(**arrays))) == sorted(map(tuple, GREY.reshape(20, 12).tolist()))


@given(count=st.integers(3, 60), seed=st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=30)
def test_split_sizes(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("split") / "x.npy"
    np.save(path, np.arange(count).reshape(count, 1))
    data = load(str(path), seed=seed)
    tenth = max(1, count // 10)
    assert [len(data.train), len(data.valid), len(data.test)] == [count - 2 * tenth, tenth, tenth]
    assert all_rows(data) == [(i,) for i in range(count)]


def test_split_for_good(save: Any) -> None:
    """Written down once: the split of a seed is part of every result obtained with it."""
    data = load(save(np.arange(30).reshape(30, 1)), seed=0)
    assert (data.test.ravel().tolist(), data.valid.ravel().tolist()) == ([5, 18, 16], [4, 6, 7])


def with_pixel(value: Any, dtype: Any = np.float64) -> np.ndarray:
    images = np.full((5, 4, 5), 2, dtype)
    images[3, 3, 2] = value  # pixel 17
    return images


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (with_pixel(300, np.int32), r"pixels must lie in 0\.\.255; image 3, pixel 17 is 300"),
        (with_pixel(-1, np.int8), r"pixels must lie in 0\.\.255; image 3, pixel 17 is -1"),
        (with_pixel(-0.5), r"pixels must lie in 0\.\.255; image 3, pixel 17 is -0\.5"),
        (with_pixel(np.nan), "pixels must be finite; image 3, pixel 17 is nan"),
        (with_pixel(np.inf), "pixels must be finite; image 3, pixel 17 is inf"),
        (
            with_pixel(0.5),
            r"pixels must be whole numbers, as the largest is 2 \(only pixels in \[0, 1\] may have fractions\); "
            r"image 3, pixel 17 is 0\.5",
        ),
        (np.zeros((0, 28, 28)), r"at least one image of at least one pixel; shape \(0, 28, 28\)"),
        (np.zeros((5, 0)), r"at least one image of at least one pixel; shape \(5, 0\)"),
        (
            np.zeros(784),
            r"the shape must be \(N, H, W\) or \(N, D\) for grey images, \(N, 3, H, W\) or \(N, H, W, 3\) for colour; "
            r"it is \(784,\)",
        ),
        (np.zeros((5, 4, 4, 4)), r"the shape must be .* for colour; it is \(5, 4, 4, 4\)"),
        (np.zeros((5, 1, 4, 4)), r"the shape must be .* for colour; it is \(5, 1, 4, 4\)"),
        (np.zeros((5, 4, 3, 4)), r"the shape must be .* for colour; it is \(5, 4, 3, 4\)"),
        (np.zeros((5, 4, 4, 3, 1)), r"the shape must be .* for colour; it is \(5, 4, 4, 3, 1\)"),
        (np.zeros((0, 4, 4, 3)), r"at least one image of at least one pixel; shape \(0, 3, 4, 4\)"),
        (
            COLOUR[:, :3],
            r"the shape must be \(N, H, W, 3\) or \(N, 3, H, W\) for colour, and it may be either; it is "
            r"\(10, 3, 5, 3\)\. Pad or crop the images to another size",
        ),
        (
            COLOUR // 128,
            r"colours must be 0\.\.255, or have fractions in \[0, 1\]; all are whole and the largest is 1\. "
            "If 1 is meant for full, multiply by 255",
        ),
        (COLOUR * 0, "colours must be .* the largest is 0"),
        (COLOUR[:2], "splitting off test and valid needs at least 3 images; the file or folder has 2"),
        (np.zeros((5, 4), complex), "pixels must be booleans, integers or floats; the dtype is complex128"),
        (np.zeros((5, 4), "U3"), "pixels must be booleans, integers or floats; the dtype is <U3"),
        (np.array([[{}]], object), "cannot be read as NumPy numbers: Object arrays cannot be loaded .*numpy.save"),
        (np.zeros((2, 4)), "splitting off test and valid needs at least 3 images; the file or folder has 2"),
    ],
)
def test_refuses_npy(save: Any, array: Any, message: str) -> None:
    path = save(array)
    with pytest.raises(DataError, match=f"^{path}: .*{message}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train": GREY}, "x.npz: splits need 'train' and 'test'; there is no 'test' in 'train'"),
        (
            {"valid": GREY, "test": GREY},
            "x.npz: splits need 'train' and 'test'; there is no 'train' in 'valid', 'test'",
        ),
        ({"a": GREY, "b": GREY}, "must hold 'train' and 'test', or 'images', or a single array; it holds 'a', 'b'"),
        ({}, "it holds nothing"),
        ({"train": GREY[:1], "test": GREY}, "splitting off valid needs at least 2 images; the file or folder has 1"),
        (
            {"train": GREY, "test": GREY.reshape(20, 12)},
            "x.npz, test: all splits must have images of one size and kind; these are 1x12, those of train 4x3",
        ),
        (
            {"train": GREY, "test": COLOUR[:, :, :3]},
            "x.npz, test: .* of one size and kind; these are 4x3 in colour, those of train 4x3$",
        ),
        (
            {"train": COLOUR, "test": COLOUR[:, :, :4]},
            "x.npz, test: .*; these are 4x4 in colour, those of train 4x5 in colour",
        ),
        (
            {"train": COLOUR, "test": COLOUR // 128},
            "x.npz, test: splits must share one scale; the largest pixel here is 1, elsewhere 255",
        ),
        (
            {"train": GREY, "test": GREY // 128},
            "x.npz, test: splits must share one scale; the largest pixel here is 1, elsewhere 255",
        ),
        ({"train": GREY, "test": GREY / 255}, r"x.npz, test: pixels must be whole numbers, as the largest is 255"),
        ({"train": GREY, "test": with_pixel(256)}, r"x.npz, test: .*one size"),
        (
            {"train": with_pixel(0), "test": with_pixel(256)},
            r"x.npz, test: pixels must lie in 0\.\.255; image 3, pixel 17",
        ),
    ],
)
def test_refuses_npz(save: Any, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(save(**arrays))
    assert "\n" not in str(caught.value)


def npy_and_npz() -> list[bytes]:
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, GREY)
    np.savez_compressed(npz, train=GREY[:15], test=GREY[15:])
    return [npy.getvalue(), npz.getvalue()]


@pytest.mark.parametrize("content", npy_and_npz(), ids=["npy", "npz"])
def test_truncated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    for size in (0, 5, 60, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=f"^{path}: cannot be read as NumPy numbers: "):
            load(str(path))


@given(which=st.integers(0, 1), at=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_damage_gives_a_data_set_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, which: int, at: int, byte: int
) -> None:
    content = bytearray(npy_and_npz()[which])
    content[at % min(len(content), 400)] = byte
    path = tmp_path_factory.mktemp("damage") / "x.npy"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        load(str(path))


def test_refuses_other_members(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=f"^{path}: must hold .* or a single array; it holds nothing"):
        load(str(path))
