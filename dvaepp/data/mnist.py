"""MNIST in grey, as published: 60,000 training and 10,000 test images of 28x28."""

from __future__ import annotations

from pathlib import Path

from dvaepp.data import idx
from dvaepp.data.dataset import Dataset, Pixels
from dvaepp.data.download import PublishedFile, at_hand, obtain

# The mirror that torchvision uses, then the authors' own site, which has not answered reliably since 2024.
_SITES = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")


def _file(name: str, md5: str, packed_md5: str) -> PublishedFile:
    urls = tuple(f"{site}{name}" for site in _SITES)
    return PublishedFile(name, "mnist", f"md5:{md5}", f"md5:{packed_md5}", urls)


TRAIN_IMAGES = _file(
    "train-images-idx3-ubyte.gz", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"
)
TRAIN_LABELS = _file(
    "train-labels-idx1-ubyte.gz", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"
)
TEST_IMAGES = _file("t10k-images-idx3-ubyte.gz", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3")
TEST_LABELS = _file("t10k-labels-idx1-ubyte.gz", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c")

_N_TRAIN = 50_000  # the usual validation set is the last 10,000 training images


def load(data_dir: Path | None) -> Dataset:
    """Load grey MNIST; valid is the last 10,000 of the 60,000 training images.

    It has its labels, too, unless ``data_dir`` holds the images alone.

    Shapes   50,000 / 10,000 / 10,000 images of 28x28, grey 0..255
    Raises   DataError as ``download.obtain``.
    """
    images = _images(TRAIN_IMAGES, data_dir)
    labels = None
    if data_dir is None or any(at_hand(file, data_dir) for file in (TRAIN_LABELS, TEST_LABELS)):
        train_labels, test_labels = (_array(file, data_dir, rank=1) for file in (TRAIN_LABELS, TEST_LABELS))
        labels = {"train": train_labels[:_N_TRAIN], "valid": train_labels[_N_TRAIN:], "test": test_labels}
    return Dataset(
        name="mnist",
        train=images[:_N_TRAIN],
        valid=images[_N_TRAIN:],
        test=_images(TEST_IMAGES, data_dir),
        levels=255,
        image_shape=(28, 28),
        labels=labels,
        provenance="MNIST (LeCun, Cortes, Burges), grey; valid is the last 10,000 of the training images",
    )


def _images(file: PublishedFile, data_dir: Path | None) -> Pixels:
    return _array(file, data_dir, rank=3).reshape(-1, 28 * 28)


def _array(file: PublishedFile, data_dir: Path | None, rank: int) -> Pixels:
    return idx.parse(file.name, obtain(file, data_dir), rank)
