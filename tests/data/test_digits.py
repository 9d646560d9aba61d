"""The digits that come with the package, against their notice and, where it is at hand, against MNIST itself."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from dvaepp.data import digits, load, make_digits
from dvaepp.errors import DataError

NOTICE = digits.PATH.with_name("DIGITS-NOTICE.txt")


def stored() -> dict[str, np.ndarray]:
    with np.load(digits.PATH) as arrays:
        return dict(arrays)


def test_counts() -> None:
    data = load("digits")
    assert (data.levels, data.image_shape) == (255, (28, 28))
    for split, each in (("train", 400), ("valid", 50), ("test", 50)):
        assert getattr(data, split).shape == (10 * each, 784)
        assert np.bincount(data.labels[split]).tolist() == [each] * 10


def test_no_image_is_in_two_splits() -> None:
    data = load("digits")
    assert len({row.tobytes() for row in np.concatenate([data.train, data.valid, data.test])}) == 5000


def test_classes_are_mixed() -> None:
    """The first 50 images of each split, as a page of pictures shows them, are of all sorts."""
    data = load("digits")
    assert all(len(set(data.labels[split][:50].tolist())) >= 9 for split in ("train", "valid", "test"))


def test_file_is_small() -> None:
    assert digits.PATH.stat().st_size < 1.2e6


def test_notice_states_the_checksums() -> None:
    notice = NOTICE.read_text(encoding="ascii")
    for array in stored().values():
        assert hashlib.sha256(array.tobytes()).hexdigest() in notice
    assert digits.CHECKSUM.removeprefix("sha256:") in notice
    assert make_digits.SOURCE_CHECKSUM.removeprefix("sha256:") in notice
    assert "Copyright (c) 2014-2026, Sebastian Raschka. All rights reserved." in notice
    assert "Redistribution and use in source and binary forms" in notice


def first_500_of_each(published: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the source file, taken from MNIST's training images."""
    images = gzip.decompress((published / "mnist/train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((published / "mnist/train-labels-idx1-ubyte.gz").read_bytes())
    label = np.frombuffer(labels, np.uint8, offset=8)
    rows = np.concatenate([np.flatnonzero(label == digit)[:500] for digit in range(10)])
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)[rows], label[rows]


def test_made_from_mnist_again(published_data: Path) -> None:
    """What the notice says they are, by the stated procedure, is what the file holds."""
    images, labels, split = make_digits.arrange(*first_500_of_each(published_data))
    found = stored()
    np.testing.assert_array_equal(found["images"], images)
    np.testing.assert_array_equal(found["labels"], labels)
    np.testing.assert_array_equal(found["split"], split)


def test_the_source_is_mnist_in_csv(
    published_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The csv written again from MNIST has the source's checksum, and the script makes the same file from it."""
    images, labels = first_500_of_each(published_data)
    table = np.column_stack([images.reshape(5000, 784), labels])
    text = "".join(",".join(map(str, row)) + "\n" for row in table.tolist())
    source = tmp_path / "mnist_5k.csv.gz"
    source.write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr(make_digits, "TARGET", tmp_path / "digits.npz")
    assert make_digits.main([str(source)]) == 0, capsys.readouterr().err
    with np.load(tmp_path / "digits.npz") as made:
        for name, array in stored().items():
            np.testing.assert_array_equal(made[name], array)


def test_make_digits_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "other.csv"
    source.write_text("0,0,0\n")
    assert make_digits.main([str(source)]) == 2
    assert "make_digits: error:" in capsys.readouterr().err
    assert make_digits.main([]) == 2
    assert "usage:" in capsys.readouterr().err


def test_damaged_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "digits.npz"
    damaged.write_bytes(digits.PATH.read_bytes()[:-1])
    monkeypatch.setattr(digits, "PATH", damaged)
    with pytest.raises(
        DataError, match=f"^{damaged}: sha256 is [0-9a-f]+, expected {digits.CHECKSUM[7:]}; the file is"
    ):
        load("digits")
