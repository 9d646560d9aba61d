"""Data sets by name and by path; the published files themselves, where they are at hand."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dvaepp.data import load, mnist, mnist_static, names
from dvaepp.errors import DataError


def refused(*arguments: object, **named: object) -> str:
    with pytest.raises(DataError) as caught:
        load(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names() -> None:
    assert names() == (
        "caltech-silhouettes",
        "cifar10",
        "cifar10-subset",
        "digits",
        "mnist",
        "mnist-static",
        "omniglot",
        "omniglot-substitute",
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [("mnist-statik", "mnist-static"), ("digit", "digits"), ("OMNIGLOT", "omniglot"), ("cifar-10", "cifar10")],
)
def test_suggests_the_nearest_name(name: str, near: str) -> None:
    assert refused(name) == (
        f"unknown data set '{name}'; did you mean '{near}'? registered: {', '.join(names())}; "
        "or give the path of a file or folder"
    )


@pytest.mark.parametrize("name", ["", "imagenet", "no/such/file.npy", "x" * 5000, "nul\0", "~nobody-at-all/x"])
def test_unknown_names(name: str) -> None:
    assert "registered: caltech-silhouettes, cifar10" in refused(name) or "cannot be looked up" in refused(name)


def test_unknown_format(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.touch()
    assert refused(str(path)).startswith(f"{path}: the format is told by the end of the name: .npy, .npz, .amat")


def test_seed_is_checked_for_every_data_set() -> None:
    assert refused("digits", seed=-1) == "seed must be a whole number from 0 to 2**64 - 1; got -1"


def test_names_before_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("digits").train.shape == (4000, 784)
    assert refused("./digits").startswith("digits: holds no .png pictures")


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", np.eye(4))
    assert load("~/x.npy").image_shape == (2, 2)


def test_missing_file_of_a_name(tmp_path: Path) -> None:
    assert refused("mnist-static", tmp_path) == (
        f"binarized_mnist_train.amat or binarized_mnist_train.amat.gz not found in {tmp_path} nor in "
        f"{tmp_path / 'mnist_static'}; put it there, or leave out --data-dir to download it"
    )
    assert refused("mnist", tmp_path).startswith("train-images-idx3-ubyte or train-images-idx3-ubyte.gz not found in")


def test_data_needs_no_torch() -> None:
    code = "import sys, dvaepp.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


class TestMnistStatic:
    def test_loads(self, published_data: Path) -> None:
        start = time.perf_counter()
        data = load("mnist-static", published_data)
        assert time.perf_counter() - start < 10  # takes 1 s; a number-by-number parse takes longer than 10
        assert (data.levels, data.image_shape, data.labels) == (1, (28, 28), None)
        assert [split.shape for split in (data.train, data.valid, data.test)] == [
            (50_000, 784),
            (10_000, 784),
            (10_000, 784),
        ]

    def test_against_another_parser(self, published_data: Path) -> None:
        data = load("mnist-static", published_data)
        with gzip.open(published_data / "mnist_static" / "binarized_mnist_test.amat.gz", "rt") as lines:
            for row, line in zip(data.test[:300], lines, strict=False):
                assert row.tolist() == [int(word) for word in line.split()]

    def test_damaged(self, published_data: Path, tmp_path: Path) -> None:
        name = f"{mnist_static.TRAIN.name}.gz"
        text = bytearray(gzip.decompress((published_data / "mnist_static" / name).read_bytes()))
        text[1000] ^= 1  # one pixel turned
        (tmp_path / mnist_static.TRAIN.name).write_bytes(text)
        message = refused("mnist-static", tmp_path)
        assert message.startswith(f"{tmp_path / mnist_static.TRAIN.name}: sha256 is ")
        assert mnist_static.TRAIN.checksum.removeprefix("sha256:") in message
        shutil.copy(published_data / "mnist_static" / name, tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
        (tmp_path / mnist_static.TRAIN.name).unlink()
        assert refused("mnist-static", tmp_path).startswith(f"{tmp_path / name}: is truncated or damaged gzip: ")


class TestMnist:
    def test_loads(self, published_data: Path) -> None:
        data = load("mnist", published_data)
        assert (data.levels, data.image_shape) == (255, (28, 28))
        raw = gzip.decompress((published_data / "mnist" / mnist.TRAIN_IMAGES.name).read_bytes())
        assert struct.unpack(">IIII", raw[:16]) == (0x803, 60_000, 28, 28)
        assert data.train.tobytes() + data.valid.tobytes() == raw[16:]
        assert len(data.valid) == len(data.test) == 10_000
        assert data.labels["train"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as in every tutorial on MNIST
        assert data.labels["test"][:5].tolist() == [7, 2, 1, 0, 4]
        assert {split: len(labels) for split, labels in data.labels.items()} == {
            "train": 50_000,
            "valid": 10_000,
            "test": 10_000,
        }

    def test_unpacked_files_in_the_folder_itself(self, published_data: Path, tmp_path: Path) -> None:
        for file in (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS, mnist.TEST_IMAGES, mnist.TEST_LABELS):
            content = gzip.decompress((published_data / "mnist" / file.name).read_bytes())
            (tmp_path / file.name.removesuffix(".gz")).write_bytes(content)
        np.testing.assert_array_equal(load("mnist", tmp_path).test, load("mnist", published_data).test)

    def test_images_without_labels(self, published_data: Path, tmp_path: Path) -> None:
        for file in (mnist.TRAIN_IMAGES, mnist.TEST_IMAGES):
            shutil.copy(published_data / "mnist" / file.name, tmp_path)
        data = load("mnist", tmp_path)
        assert (len(data.train), len(data.valid), len(data.test), data.labels) == (50_000, 10_000, 10_000, None)
        shutil.copy(published_data / "mnist" / mnist.TEST_LABELS.name, tmp_path)
        assert refused("mnist", tmp_path).startswith("train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz not found")

    def test_cache_from_the_environment(self, published_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DVAEPP_DATA", str(published_data))
        assert load("mnist").train.shape == (50_000, 784)
