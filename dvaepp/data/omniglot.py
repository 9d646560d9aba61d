"""OMNIGLOT, 28x28 and grey, in the file that the importance-weighted autoencoder made usual; and a stand-in for it.

The file is one of MATLAB: ``data`` and ``testdata`` have an image in each column, from left to right column by column.

Both files hold training and test images. Nobody publishes a validation set; the usual one is the last 1,345 training
images in the order of NumPy's ``RandomState(123).permutation``, and it is used here. What is on each side of it is thus
what others trained and validated on, though they draw binary images from the grey ones with noise of their own.

Source   Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, the file and the split;
         the same split in the experiments of G. Tucker et al., "REBAR", NeurIPS 2017. The drawings are those of
         B. Lake, R. Salakhutdinov, J. Tenenbaum, Science 350, 2015.
Departs  the published grey values are numbers in [0, 1]; they are kept to the nearest 1/255.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dvaepp.data import matlab
from dvaepp.data.assemble import to_pixels
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import PublishedFile

_CHECKSUM = "git-blob:016a3536ffe5e1d38e42563a18d7a78bfaf643ec"  # git's name for the file, the only one published
_SITES = ("https://raw.githubusercontent.com/yburda/iwae/master/", "https://github.com/yburda/iwae/raw/master/")
PUBLISHED = PublishedFile(
    "chardata.mat", "omniglot", _CHECKSUM, _CHECKSUM, tuple(f"{site}datasets/OMNIGLOT/chardata.mat" for site in _SITES)
)

_SUBSTITUTE_CHECKSUM = "sha256:fcecae88f5022cdd88f01459958b80c294946424173a2c354d2980918477449d"
SUBSTITUTE = PublishedFile("omniglot_substitute.mat", "omniglot", _SUBSTITUTE_CHECKSUM, _SUBSTITUTE_CHECKSUM, ())

_SIDE = 28
_N_VALID = 1_345
_SHUFFLING_SEED = 123  # of the literature


def load(data_dir: Path | None) -> Dataset:
    """Load OMNIGLOT.

    Shapes   23,000 / 1,345 / 8,070 images of 28x28, grey 0..255
    Raises   DataError as ``download.obtain``.
    """
    return _load("omniglot", PUBLISHED, data_dir, "OMNIGLOT, 28x28 by Burda et al. (2016)")


def load_substitute(data_dir: Path | None) -> Dataset:
    """Load a stand-in: the same drawings in the same layout, but scaled and split by others.

    Likelihoods on it are not comparable with published ones, which is why it has a name of its own. It is published
    nowhere, and must lie in ``data_dir``.

    Shapes   23,000 / 1,345 / 8,115 images of 28x28, grey 0..255
    Raises   DataError as ``download.obtain``.
    """
    about = "a substitute for OMNIGLOT made from its drawings, not comparable with it"
    return _load("omniglot-substitute", SUBSTITUTE, data_dir, about)


def _load(name: str, file: PublishedFile, data_dir: Path | None, about: str) -> Dataset:
    variables = matlab.obtain(file, data_dir, ("data", "testdata"))
    columns = {"train": variables["data"], "test": variables["testdata"]}
    rows = {split: matlab.upright(images.T, _SIDE) for split, images in columns.items()}
    pixels, levels = to_pixels(Path(file.name), rows)
    # a stream that NumPy guarantees never to change
    order = np.random.RandomState(_SHUFFLING_SEED).permutation(len(pixels["train"]))
    return Dataset(
        name=name,
        train=pixels["train"][order[:-_N_VALID]],
        valid=pixels["train"][order[-_N_VALID:]],
        test=pixels["test"],
        levels=levels,
        image_shape=(_SIDE, _SIDE),
        provenance=f"{about}; valid is {_N_VALID:,} of the training images, by the split of Burda et al.",
    )
