"""Caltech-101 Silhouettes in its published layout."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dvaepp.data import caltech, load
from dvaepp.errors import DataError

NAME = "caltech101_silhouettes_28_split1.mat"
COUNTS = {"train": 5, "val": 2, "test": 3}  # as the variables are called


def saved(folder: Path, monkeypatch: pytest.MonkeyPatch, images: dict[str, np.ndarray]) -> Path:
    """A file of the published layout, taken for the published one."""
    labels = {
        f"{split}_labels": np.arange(99, 99 + len(rows), dtype=np.uint8)[:, None] for split, rows in images.items()
    }
    folder.mkdir(exist_ok=True)
    variables = {f"{split}_data": rows for split, rows in images.items()} | labels
    savemat(folder / NAME, {**variables, "classnames": np.array(["a", "b"], object)}, do_compression=True)
    checksum = "sha256:" + hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    monkeypatch.setattr(caltech, "PUBLISHED", replace(caltech.PUBLISHED, checksum=checksum))
    return folder / NAME


def test_the_published_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge is how Tomczak and Welling (2018) read the file: 1 - x, and a reshape in Fortran's order."""
    random = np.random.default_rng(0)
    images = {split: random.integers(0, 2, (count, 784), dtype=np.uint8) for split, count in COUNTS.items()}
    saved(tmp_path / "caltech101_silhouettes", monkeypatch, images)
    data = load("caltech-silhouettes", tmp_path)
    assert (data.name, data.levels, data.image_shape, data.channels) == ("caltech-silhouettes", 1, (28, 28), 1)
    for split, called in (("train", "train"), ("valid", "val"), ("test", "test")):
        expected = 1.0 - images[called].astype(float).reshape(-1, 28, 28).reshape((-1, 784), order="F")
        np.testing.assert_array_equal(getattr(data, split), expected)
        assert data.labels[split].tolist() == list(range(99, 99 + COUNTS[called]))


def test_images_are_upright_and_the_object_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: numbers 0 to 9 of a row are the left edge of its image, from the top down; 0 is the object."""
    row = np.ones((1, 784), np.uint8)
    row[0, :10] = 0
    saved(tmp_path, monkeypatch, dict.fromkeys(COUNTS, row))
    image = load("caltech-silhouettes", tmp_path).valid.reshape(28, 28)
    assert image[:10, 0].tolist() == [1] * 10
    assert image.sum() == 10


def test_another_file_under_the_published_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, monkeypatch, {split: np.ones((count, 784), np.uint8) for split, count in COUNTS.items()})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match=f"^{path}: sha256 is .*; the file is damaged or another version$"):
        load("caltech-silhouettes", tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{NAME} or {NAME}.gz not found in .*; put it there, or leave out --data-dir"):
        load("caltech-silhouettes", tmp_path)


def test_the_published_file(published_data: Path) -> None:
    if not (published_data / "caltech101_silhouettes").is_dir():
        pytest.skip(f"Caltech-101 Silhouettes is not in {published_data}")
    content = (published_data / "caltech101_silhouettes" / NAME).read_bytes()
    assert hashlib.md5(content).hexdigest() == "4483e9c14b188fd09937f9ea6f9ea777"  # as others recorded it
    data = load("caltech-silhouettes", published_data)
    assert (len(data.train), len(data.valid), len(data.test)) == (4_100, 2_264, 2_307)
    assert {split: len(set(labels.tolist())) for split, labels in data.labels.items()} == {
        "train": 101,
        "valid": 101,
        "test": 101,
    }
    # objects lie in the middle, on nothing
    images = data.train.reshape(-1, 28, 28)
    assert images[:, [0, -1]][:, :, [0, -1]].mean() < 0.2 < 0.6 < images[:, 10:18, 10:18].mean()
    # objects stand: they are more alike left and right than top and bottom; lying on their sides, they would not be
    assert (images != images[:, :, ::-1]).mean() < 0.9 * (images != images[:, ::-1]).mean()
