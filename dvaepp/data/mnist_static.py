"""Statically binarised MNIST (Larochelle): the fixed 0/1 images on which likelihoods are compared.

Source   H. Larochelle, I. Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011; binarised as in
         R. Salakhutdinov, I. Murray, "On the quantitative analysis of deep belief networks", ICML 2008.
"""

from __future__ import annotations

from pathlib import Path

from dvaepp.data import amat
from dvaepp.data.dataset import Dataset, Pixels
from dvaepp.data.download import PublishedFile, obtain

_SITE = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"


def _file(split: str, sha256: str) -> PublishedFile:
    name = f"binarized_mnist_{split}.amat"
    checksum = f"sha256:{sha256}"  # served unpacked, so both checksums are the same
    return PublishedFile(name, "mnist_static", checksum, checksum, (f"{_SITE}{name}",))


TRAIN = _file("train", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d")
VALID = _file("valid", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2")
TEST = _file("test", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c")


def load(data_dir: Path | None) -> Dataset:
    """Load statically binarised MNIST; it is published without labels.

    Shapes   50,000 / 10,000 / 10,000 images of 28x28 in {0, 1}
    Raises   DataError as ``download.obtain``.
    """
    return Dataset(
        name="mnist-static",
        train=_images(TRAIN, data_dir),
        valid=_images(VALID, data_dir),
        test=_images(TEST, data_dir),
        levels=1,
        image_shape=(28, 28),
        provenance="MNIST binarised once by Larochelle and Murray (2011), with their splits",
    )


def _images(file: PublishedFile, data_dir: Path | None) -> Pixels:
    return amat.parse(file.name, obtain(file, data_dir))
