"""CIFAR-10, 32x32 in colour: the binary version of its authors, a subset of it, and archives of the same layout.

    a record: 1 byte of label, 1,024 bytes of red, 1,024 of green, 1,024 of blue, each row by row
    a file:   records, and nothing between them
    archive:  cifar-10-batches-bin/data_batch_1.bin to data_batch_5.bin and test_batch.bin, in a tar packed with gzip

The version for Python is not read: it is pickled, and a pickle can run code. Nothing is written to the disk, either:
the files are read from the archive in memory.

Source   A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and
         https://www.cs.toronto.edu/~kriz/cifar.html for the format and the checksum of the archive. The checksums of
         the files in it are those of Apache MXNet (gluon.data.vision.CIFAR10), which reads the same archive.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dvaepp.data.assemble import assemble
from dvaepp.data.dataset import Dataset, Pixels
from dvaepp.data.download import PublishedFile, at_hand, obtain
from dvaepp.data.files import read, reason
from dvaepp.errors import DataError

_FOLDER = "cifar-10-batches-bin"  # of the files, in the archive and once it is extracted

ARCHIVE = PublishedFile(
    "cifar-10-binary.tar.gz",
    "cifar10",
    None,
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
)


def _extracted(name: str, sha1: str) -> PublishedFile:
    return PublishedFile(name, _FOLDER, f"sha1:{sha1}", f"sha1:{sha1}", ())


TRAIN = (
    _extracted("data_batch_1.bin", "aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
    _extracted("data_batch_2.bin", "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
    _extracted("data_batch_3.bin", "1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
    _extracted("data_batch_4.bin", "aab85764eb3584312d3c7f65fd2fd016e36a258e"),
    _extracted("data_batch_5.bin", "26e2849e66a845b7f1e4614ae70f4889ae604628"),
)
TEST = _extracted("test_batch.bin", "67eb016db431130d61cd03c7ad570b013799c88c")


def _of_the_subset(name: str, sha256: str) -> PublishedFile:
    return PublishedFile(name, "cifar10", f"sha256:{sha256}", f"sha256:{sha256}", ())


SUBSET_TRAIN = _of_the_subset("data_batch_1.bin", "08f6a6c44fdd8a066659667c6b433a9ccfca4ad1ac8609da447ea32c91e52206")
SUBSET_TEST = _of_the_subset("test_batch.bin", "be91b46370f5887d5f8b51feacec6b2b4acacaa0518d0150c4051f2dd0990331")

_SIDE = 32
_CHANNELS = 3
_RECORD = 1 + _CHANNELS * _SIDE * _SIDE
_N_CLASSES = 10
_N_VALID = 5_000
_N_VALID_OF_CLASS = 100  # of the subset


def load(data_dir: Path | None) -> Dataset:
    """Load CIFAR-10 with its labels, from the archive or, if that is not there, from the files extracted from it.

    No validation set is published; valid is the last 5,000 of the 50,000 training images.

    Shapes   45,000 / 5,000 / 10,000 images of 32x32 in colour, 0..255
    Raises   DataError as ``download.obtain``.
    """
    files = (*TRAIN, TEST)
    enough = all if data_dir is None else any  # where nothing is downloaded, say which file is missing
    if not at_hand(ARCHIVE, data_dir) and enough(at_hand(file, data_dir) for file in files):
        contents = {file.name: obtain(file, data_dir) for file in files}
    else:
        contents = members(ARCHIVE.name, obtain(ARCHIVE, data_dir))
    images, labels = _records(contents, [file.name for file in TRAIN])
    return _dataset(
        "cifar10",
        (images, labels),
        _records(contents, [TEST.name]),
        np.arange(len(images)) >= len(images) - _N_VALID,
        f"CIFAR-10 (Krizhevsky, 2009); valid is the last {_N_VALID:,} of the training images",
    )


def load_subset(data_dir: Path | None) -> Dataset:
    """Load a subset of CIFAR-10, a fifth of the images of each class, with its labels.

    Likelihoods on it are not comparable with published ones, which is why it has a name of its own. It is published
    nowhere, and must lie in ``data_dir``. Valid is the last 100 training images of each class.

    Shapes   9,000 / 1,000 / 2,000 images of 32x32 in colour, 0..255
    Raises   DataError as ``download.obtain``.
    """
    contents = {file.name: obtain(file, data_dir) for file in (SUBSET_TRAIN, SUBSET_TEST)}
    images, labels = _records(contents, [SUBSET_TRAIN.name])
    held_out = np.zeros(len(images), dtype=np.bool_)
    for label in range(_N_CLASSES):
        held_out[np.flatnonzero(labels == label)[-_N_VALID_OF_CLASS:]] = True
    return _dataset(
        "cifar10-subset",
        (images, labels),
        _records(contents, [SUBSET_TEST.name]),
        held_out,
        "a subset of CIFAR-10, a fifth of each class, not comparable with it; "
        f"valid is the last {_N_VALID_OF_CLASS} training images of each class",
    )


def load_archive(path: Path, seed: int) -> Dataset:
    """Load a user's own archive with the members of CIFAR-10's, packed with gzip or not; valid is cut from train.

    Raises   DataError for what ``files.read``, ``members``, ``parse`` or ``assemble`` refuses.
    """
    contents = members(path, read(path))
    splits = {"train": [file.name for file in TRAIN], "test": [TEST.name]}
    rows = {split: _records(contents, names, path)[0] for split, names in splits.items()}
    return assemble(path, {split: images.reshape(-1, _CHANNELS, _SIDE, _SIDE) for split, images in rows.items()}, seed)


def members(where: Path | str, archive: bytes) -> dict[str, bytes]:
    """Return the contents of the six .bin files in an unpacked archive, by their bare names.

    They are read by their exact names, in memory; nothing is extracted. An archive with any member that would be
    dangerous to extract is refused as a whole: it is not what it should be.

    Raises   DataError for bytes that are no tar, a member with an absolute path or "..", one that is neither a plain
             file nor a folder (links, devices, sparse files), a name twice, a file that is missing or cut short.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            entries = _checked(where, tar)
            contents = {}
            for file in (*TRAIN, TEST):
                entry = entries.get(f"{_FOLDER}/{file.name}")
                stream = tar.extractfile(entry) if entry is not None else None
                if stream is None:
                    raise DataError(f"{where}: must hold the file {_FOLDER}/{file.name}; it is not there")
                contents[file.name] = stream.read()
    except DataError:
        raise
    except Exception as error:  # a damaged header can make tarfile raise nearly anything
        raise DataError(f"{where}: cannot be read as a tar archive: {reason(error)}") from error
    return contents


def parse(where: Path | str, content: bytes) -> tuple[Pixels, Pixels]:
    """Return the images and the labels in the records of one file, without a copy.

    Shapes   -> images (N, 3072), labels (N,), both uint8
    Raises   DataError for content that is not a whole number of records, at least one, and for a label above 9.
    """
    count, rest = divmod(len(content), _RECORD)
    if rest or not count:
        raise DataError(
            f"{where}: must be records of {_RECORD:,} bytes, at least one; {len(content):,} bytes are {count:,} and "
            f"{rest:,} bytes over"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(count, _RECORD)
    images, labels = records[:, 1:], records[:, 0]
    if labels.max() >= _N_CLASSES:
        first = int(np.argmax(labels >= _N_CLASSES))
        raise DataError(f"{where}: labels must be 0 to {_N_CLASSES - 1}; that of record {first} is {labels[first]}")
    return images, labels


def _checked(where: Path | str, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Return the members by name, once all of them are known to be harmless."""
    entries: dict[str, tarfile.TarInfo] = {}
    seen = set()
    for entry in tar:
        member = f"member {entry.name!r}"
        if posixpath.isabs(entry.name) or ".." in entry.name.split("/"):
            raise DataError(f"{where}: members must lie in the archive's own folder, without '..'; {member} does not")
        if entry.issparse() or not (entry.isreg() or entry.isdir()):
            raise DataError(f"{where}: members must be plain files and folders; {member} is a link or of another kind")
        plain = posixpath.normpath(entry.name)
        if plain in seen:
            raise DataError(f"{where}: members must have different names; {member} is there twice")
        seen.add(plain)
        entries[entry.name] = entry
    return entries


def _records(contents: Mapping[str, bytes], names: list[str], path: Path | None = None) -> tuple[Pixels, Pixels]:
    """Join the records of the named files."""
    parsed = [parse(name if path is None else f"{path}, {name}", contents[name]) for name in names]
    return np.concatenate([images for images, _ in parsed]), np.concatenate([labels for _, labels in parsed])


def _dataset(
    name: str,
    train: tuple[Pixels, Pixels],
    test: tuple[Pixels, Pixels],
    held_out: NDArray[np.bool_],
    provenance: str,
) -> Dataset:
    """Make the data set; ``held_out`` (N,) says which training images are valid."""
    images, labels = train
    return Dataset(
        name=name,
        train=images[~held_out],
        valid=images[held_out],
        test=test[0],
        levels=255,
        image_shape=(_SIDE, _SIDE),
        labels={"train": labels[~held_out], "valid": labels[held_out], "test": test[1]},
        channels=_CHANNELS,
        provenance=provenance,
    )
