"""Caltech-101 Silhouettes, 28x28 and binary: the outlines of objects of 101 classes, filled.

The file is one of MATLAB: an image in each row of ``train_data``, ``val_data`` and ``test_data``, from left to right
column by column, object 0 on background 1. Likelihoods are published on 1 - x, a white object on black, and so are the
images here.

Source   B. M. Marlin, K. Swersky, B. Chen, N. de Freitas, "Inductive principles for restricted Boltzmann machine
         learning", AISTATS 2010: the file and its splits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dvaepp.data import matlab
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import PublishedFile

_NAME = "caltech101_silhouettes_28_split1.mat"
_CHECKSUM = "sha256:eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a"
PUBLISHED = PublishedFile(
    _NAME, "caltech101_silhouettes", _CHECKSUM, _CHECKSUM, (f"https://people.cs.umass.edu/~marlin/data/{_NAME}",)
)

_SIDE = 28
_PREFIXES = {"train": "train", "valid": "val", "test": "test"}  # split: how the names of its variables begin


def load(data_dir: Path | None) -> Dataset:
    """Load Caltech-101 Silhouettes with its labels, 1 to 101 as in the file.

    Shapes   4,100 / 2,264 / 2,307 images of 28x28 in {0, 1}
    Raises   DataError as ``download.obtain``.
    """
    names = [f"{prefix}_{what}" for prefix in _PREFIXES.values() for what in ("data", "labels")]
    variables = matlab.obtain(PUBLISHED, data_dir, names)
    pixels = {split: 1 - matlab.upright(variables[f"{prefix}_data"], _SIDE) for split, prefix in _PREFIXES.items()}
    return Dataset(
        name="caltech-silhouettes",
        train=pixels["train"],
        valid=pixels["valid"],
        test=pixels["test"],
        levels=1,
        image_shape=(_SIDE, _SIDE),
        labels={split: variables[f"{prefix}_labels"].ravel().astype(np.uint8) for split, prefix in _PREFIXES.items()},
        provenance="Caltech-101 Silhouettes 28x28, split 1 by Marlin et al. (2010); the object is 1",
    )
