from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvaepp.data import Dataset, load
from dvaepp.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (12, 3, 5), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 3, 5, 3), dtype=np.uint8)


def png_bytes(pixels: np.ndarray, depth: int = 8) -> bytes:
    """A PNG of (H, W) greys or (H, W, 3) colours by the specification, without Pillow; rows begin with filter 0."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if depth == 16 else "u1")
    header = struct.pack(">IIBBBBB", width, height, depth, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def write(folder: Path, images: np.ndarray, depth: int = 8) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for index, image in enumerate(images):
        (folder / f"{index:03}.png").write_bytes(png_bytes(image, depth))


def test_splits_in_the_order_of_names(tmp_path: Path) -> None:
    for split, images in (("train", GREY[:6]), ("valid", GREY[6:8]), ("test", GREY[8:])):
        write(tmp_path / split, images)
    (tmp_path / "train" / "notes.txt").write_text("not a picture")
    (tmp_path / "train" / "._000.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "elsewhere").mkdir()
    data = load(str(tmp_path))
    assert (data.levels, data.image_shape, data.name) == (255, (3, 5), tmp_path.name)
    np.testing.assert_array_equal(data.train, GREY[:6].reshape(6, 15))
    np.testing.assert_array_equal(data.valid, GREY[6:8].reshape(2, 15))
    np.testing.assert_array_equal(data.test, GREY[8:].reshape(4, 15))


def test_loose_pictures_are_split(tmp_path: Path) -> None:
    write(tmp_path, GREY)
    (tmp_path / "000.png").rename(tmp_path / "last.PNG")
    data = load(str(tmp_path), seed=1)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [10, 1, 1]
    everything = np.concatenate([data.train, data.valid, data.test])
    assert sorted(map(tuple, everything)) == sorted(map(tuple, GREY.reshape(12, 15)))


def test_valid_is_cut_from_train(tmp_path: Path) -> None:
    write(tmp_path / "train", GREY[:8])
    write(tmp_path / "test", GREY[8:])
    data = load(str(tmp_path))
    assert [len(split) for split in (data.train, data.valid, data.test)] == [7, 1, 4]


def test_sixteen_bits(tmp_path: Path) -> None:
    """65535 is white; k 257 is grey k, and so are its neighbours."""
    deep = GREY.astype(np.int64) * 257 + np.random.default_rng(1).integers(-128, 129, GREY.shape)
    write(tmp_path / "train", deep.clip(0, 65535), depth=16)
    write(tmp_path / "test", GREY)
    everything = np.concatenate([load(str(tmp_path)).train, load(str(tmp_path)).valid])
    assert sorted(map(tuple, everything)) == sorted(map(tuple, GREY.reshape(12, 15)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_modes_of_grey_pictures(tmp_path: Path, mode: str) -> None:
    for index, image in enumerate(GREY):
        Image.fromarray(image).convert(mode).save(tmp_path / f"{index}.png")
    data = load(str(tmp_path))
    assert data.channels == 1
    everything = np.concatenate([data.train, data.valid, data.test])
    assert sorted(map(tuple, everything)) == sorted(map(tuple, GREY.reshape(12, 15)))


def planes(images: np.ndarray) -> list[tuple[int, ...]]:
    """Rows of (N, H, W, 3) colours: all of red, then of green, then of blue."""
    return [tuple(int(value) for channel in range(3) for value in image[:, :, channel].ravel()) for image in images]


def all_rows(data: Dataset) -> list[tuple[int, ...]]:
    return sorted(map(tuple, np.concatenate([data.train, data.valid, data.test]).tolist()))


@pytest.mark.parametrize("depth", [8, 16])
def test_colour(tmp_path: Path, depth: int) -> None:
    """Of 16 bits the upper 8 count."""
    low = 0 if depth == 8 else np.random.default_rng(2).integers(0, 256, COLOUR.shape)
    images = COLOUR if depth == 8 else COLOUR.astype(np.int64) * 256 + low
    write(tmp_path, images, depth)
    data = load(str(tmp_path))
    assert (data.levels, data.image_shape, data.channels) == (255, (3, 5), 3)
    assert all_rows(data) == sorted(planes(COLOUR))


def test_colour_in_splits_keeps_the_order_of_names(tmp_path: Path) -> None:
    for split, images in (("train", COLOUR[:6]), ("valid", COLOUR[6:8]), ("test", COLOUR[8:])):
        write(tmp_path / split, images)
    data = load(str(tmp_path))
    assert [tuple(row) for row in data.train.tolist()] == planes(COLOUR[:6])
    assert [tuple(row) for row in data.valid.tolist()] == planes(COLOUR[6:8])
    assert [tuple(row) for row in data.test.tolist()] == planes(COLOUR[8:])


def test_three_by_three_colour_by_hand(tmp_path: Path) -> None:
    """Of a size at which an array would be ambiguous: the left column red, the rest black."""
    image = np.zeros((3, 3, 3), np.uint8)
    image[:, 0, 0] = 255
    write(tmp_path, np.repeat(image[None], 3, axis=0))
    data = load(str(tmp_path))
    assert data.train.tolist() == [[255, 0, 0, 255, 0, 0, 255, 0, 0, *[0] * 18]]
    assert data.channels == 3


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_modes_of_coloured_pictures(tmp_path: Path, mode: str) -> None:
    """Opaque, and a palette of the 15 colours there are, which loses nothing."""
    for index, image in enumerate(COLOUR):
        picture = Image.fromarray(image)
        changed = picture.quantize(15) if mode == "P" else picture.convert(mode)
        changed.save(tmp_path / f"{index:03}.png")
        np.testing.assert_array_equal(np.asarray(changed.convert("RGB")), image)
    assert all_rows(load(str(tmp_path))) == sorted(planes(COLOUR))


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_greys_among_colours(tmp_path: Path, mode: str) -> None:
    """A picture saved in colour that happens to be grey belongs to the coloured ones."""
    write(tmp_path, COLOUR)
    Image.fromarray(GREY[0]).convert(mode).save(tmp_path / "000.png")
    grey = np.repeat(GREY[:1, :, :, None], 3, axis=3)
    assert all_rows(load(str(tmp_path))) == sorted(planes(np.concatenate([grey, COLOUR[1:]])))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_refuses_grey_beside_colour(tmp_path: Path, mode: str) -> None:
    write(tmp_path, COLOUR)
    saved = Image.fromarray(GREY[0].astype(np.uint16) if mode == "I;16" else GREY[0]).convert(mode)
    saved.save(tmp_path / "005.png")
    saved.save(tmp_path / "007.png")
    assert refused(tmp_path) == (
        f"{tmp_path / '005.png'}: all pictures must be grey, or all in colour; this one is grey, "
        f"{tmp_path / '000.png'} is in colour: convert one kind"
    )


def test_refuses_colour_beside_grey(tmp_path: Path) -> None:
    """The first picture is grey, though saved in colour; the next ones saved as grey cannot stand beside 007."""
    write(tmp_path, GREY)
    Image.fromarray(GREY[0]).convert("RGB").save(tmp_path / "000.png")
    (tmp_path / "007.png").write_bytes(png_bytes(COLOUR[0]))
    assert refused(tmp_path) == (
        f"{tmp_path / '007.png'}: all pictures must be grey, or all in colour; this one is in colour, "
        f"{tmp_path / '001.png'} is grey: convert one kind"
    )


def test_refuses_splits_of_different_kinds(tmp_path: Path) -> None:
    write(tmp_path / "train", GREY)
    write(tmp_path / "test", COLOUR)
    assert refused(tmp_path).startswith(f"{tmp_path / 'test' / '000.png'}: all pictures must be grey, or all in colour")


def test_refuses_nearly_black_colour(tmp_path: Path) -> None:
    write(tmp_path, COLOUR // 128)
    assert refused(tmp_path).startswith(f"{tmp_path}: colours must be 0..255, or have fractions in [0, 1]")


@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white_is_binary(tmp_path: Path, mode: str) -> None:
    for index, image in enumerate(GREY):
        Image.fromarray(np.where(image > 99, 255, 0).astype(np.uint8)).convert(mode).save(tmp_path / f"{index}.png")
    data = load(str(tmp_path))
    assert data.levels == 1
    everything = np.concatenate([data.train, data.valid, data.test])
    assert sorted(map(tuple, everything)) == sorted(map(tuple, (GREY > 99).astype(int).reshape(12, 15)))


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def size_differs(folder: Path) -> None:
    (folder / "005.png").write_bytes(png_bytes(GREY[0].T))


def truncated(folder: Path) -> None:
    content = png_bytes(np.random.default_rng(0).integers(0, 256, (3, 5)))
    (folder / "005.png").write_bytes(content[: len(content) // 2 + 10])


def not_a_png(folder: Path) -> None:
    (folder / "005.png").write_text("hello")


def jpeg_inside(folder: Path) -> None:
    Image.fromarray(GREY[0]).save(folder / "005.png", format="JPEG")


def a_folder_inside(folder: Path) -> None:
    (folder / "005.png").unlink()
    (folder / "005.png").mkdir()


def transparent(folder: Path) -> None:
    Image.new("RGBA", (5, 3), (9, 9, 9, 200)).save(folder / "005.png")


def transparent_palette(folder: Path) -> None:
    Image.new("P", (5, 3)).save(folder / "005.png", transparency=0)


def both_places(folder: Path) -> None:
    write(folder / "train", GREY)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (size_differs, "/005.png: all pictures must have one size, 5x3 as 000.png; this one is 3x5"),
        (truncated, "/005.png: cannot be read as a PNG picture: "),
        (not_a_png, "/005.png: cannot be read as a PNG picture: cannot identify image file"),
        (jpeg_inside, "/005.png: cannot be read as a PNG picture: cannot identify image file"),
        (a_folder_inside, "/005.png: cannot be read as a PNG picture: Is a directory"),
        (transparent, "/005.png: has transparent pixels; lay it on a background first"),
        (transparent_palette, "/005.png: has transparent pixels; lay it on a background first"),
        (
            both_places,
            ": pictures must lie in the folder or in its subfolders train, not in both; the folder itself holds 000",
        ),
    ],
)
def test_refuses(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    write(tmp_path, GREY)
    spoil(tmp_path)
    with pytest.raises(DataError, match=f"^{tmp_path}{message}") as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_refuses_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("hello")
    with pytest.raises(DataError, match=f"^{tmp_path}: holds no .png pictures, nor subfolders train and test"):
        load(str(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path}: splits need the subfolders train and test; there is no 'test'"):
        load(str(tmp_path))
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path / 'train'}: holds no .png pictures"):
        load(str(tmp_path))


def test_refuses_two_pictures(tmp_path: Path) -> None:
    write(tmp_path, GREY[:2])
    with pytest.raises(DataError, match="needs at least 3 images; the file or folder has 2"):
        load(str(tmp_path))
