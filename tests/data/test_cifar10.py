"""CIFAR-10 from an archive and from extracted files, its subset, and archives that are not what they should be."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvaepp.data import cifar10, load
from dvaepp.errors import DataError

NAMES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
FOLDER = "cifar-10-batches-bin"


def records(count: int, first: int = 0) -> bytes:
    """Records whose label is their number modulo 10, and whose first two pixels are their number."""
    return b"".join(
        bytes([number % 10, *number.to_bytes(2, "big")]) + bytes(3070) for number in range(first, first + count)
    )


def batches(count: int) -> dict[str, bytes]:
    """The six files with so many records each, numbered through."""
    return {name: records(count, index * count) for index, name in enumerate(NAMES)}


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


def tar(contents: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """An archive in the layout of the published one, in another order than that of the names, and other members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(entry(f"{FOLDER}/", kind=tarfile.DIRTYPE))
        for name, content in reversed(contents.items()):
            archive.addfile(entry(f"{FOLDER}/{name}", len(content)), io.BytesIO(content))
        archive.addfile(entry(f"{FOLDER}/readme.html", 5), io.BytesIO(b"hello"))
        for other in others:
            archive.addfile(other, io.BytesIO(bytes(other.size)))
    return stream.getvalue()


SMALL = tar(batches(2))


def refused(name: str, data_dir: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load(name, data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def number_of(images: np.ndarray) -> list[int]:
    return (images[:, 0].astype(int) * 256 + images[:, 1]).tolist()


@pytest.fixture(scope="session")
def full() -> dict[str, bytes]:
    """6,000 training images, so that 1,000 are left beside valid."""
    return batches(1_200)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, full: dict[str, bytes]) -> bytes:
    """Take an archive, and the files in it, for the published ones, which cannot be had here."""
    packed = gzip.compress(tar(full), compresslevel=1)
    monkeypatch.setattr(
        cifar10, "ARCHIVE", replace(cifar10.ARCHIVE, served_checksum="md5:" + hashlib.md5(packed).hexdigest(), urls=())
    )
    *train, test = (
        replace(file, checksum="sha1:" + hashlib.sha1(full[file.name]).hexdigest())
        for file in (*cifar10.TRAIN, cifar10.TEST)
    )
    monkeypatch.setattr(cifar10, "TRAIN", tuple(train))
    monkeypatch.setattr(cifar10, "TEST", test)
    return packed


@pytest.mark.parametrize("subfolder", ["", "cifar10"])
def test_the_archive(tmp_path: Path, registered: bytes, subfolder: str) -> None:
    (tmp_path / subfolder).mkdir(exist_ok=True)
    (tmp_path / subfolder / "cifar-10-binary.tar.gz").write_bytes(registered)
    (tmp_path / "data_batch_1.bin").write_bytes(b"of something else")  # the archive comes first
    before = sorted(tmp_path.rglob("*"))
    data = load("cifar10", tmp_path)
    assert (data.name, data.levels, data.image_shape, data.channels) == ("cifar10", 255, (32, 32), 3)
    for split, numbers in (("train", range(1_000)), ("valid", range(1_000, 6_000)), ("test", range(6_000, 7_200))):
        assert number_of(getattr(data, split)) == list(numbers)
        assert data.labels[split].tolist() == [number % 10 for number in numbers]
    assert "valid is the last 5,000 of the training images" in data.provenance
    assert sorted(tmp_path.rglob("*")) == before  # nothing was extracted


@pytest.mark.parametrize("subfolder", ["", FOLDER])
def test_extracted_files(tmp_path: Path, registered: bytes, full: dict[str, bytes], subfolder: str) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(registered)
    archived = load("cifar10", tmp_path)
    (tmp_path / "cifar-10-binary.tar.gz").unlink()
    (tmp_path / subfolder).mkdir(exist_ok=True)
    for name, content in full.items():
        (tmp_path / subfolder / name).write_bytes(content)
    data = load("cifar10", tmp_path)
    assert data.digest == archived.digest
    assert data.provenance == archived.provenance
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(data.labels[split], archived.labels[split])


def test_extracted_files_of_which_one_is_missing_or_another(
    tmp_path: Path, registered: bytes, full: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[1:]:
        (tmp_path / name).write_bytes(full[name])
    assert refused("cifar10", tmp_path).startswith(f"data_batch_1.bin or data_batch_1.bin.gz not found in {tmp_path}")
    monkeypatch.setenv("DVAEPP_DATA", str(tmp_path))  # here the archive would be downloaded, were it published
    assert refused("cifar10").startswith(f"cifar-10-binary.tar.gz not found in {tmp_path}")
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(full["data_batch_2.bin"])
    assert refused("cifar10", tmp_path).startswith(f"{path}: sha1 is ")


def test_another_archive_under_the_published_name(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(SMALL))
    message = refused("cifar10", tmp_path)
    assert message.startswith(f"{path}: md5 is ")
    assert "expected c32a1d4ab5d03f1284b67883e8d87530; the file is damaged or another version" in message


def test_missing(tmp_path: Path) -> None:
    assert refused("cifar10", tmp_path) == (
        f"cifar-10-binary.tar.gz not found in {tmp_path} nor in {tmp_path / 'cifar10'}; "
        "put it there, or leave out --data-dir to download it"
    )


def test_planes_by_hand() -> None:
    """The first record red in its upper left corner, the second green in its upper right, the third blue below left."""
    content = bytearray(3 * 3073)
    content[0], content[1] = 7, 255
    content[3073], content[3073 + 1 + 1024 + 31] = 8, 255
    content[6146], content[6146 + 1 + 2048 + 31 * 32] = 9, 255
    images, labels = cifar10.parse("x", bytes(content))
    assert labels.tolist() == [7, 8, 9]
    assert np.argwhere(images.reshape(3, 3, 32, 32)).tolist() == [[0, 0, 0, 0], [1, 1, 0, 31], [2, 2, 31, 0]]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_archive_of_ones_own(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    path.write_bytes(gzip.compress(tar(batches(4))) if ending == ".tar.gz" else tar(batches(4)))
    data = load(str(path), seed=3)
    assert (data.levels, data.image_shape, data.channels, data.labels) == (255, (32, 32), 3, None)
    assert sorted(number_of(data.train) + number_of(data.valid)) == list(range(20))
    assert (len(data.valid), number_of(data.test)) == (2, [20, 21, 22, 23])


OUTSIDE = "members must lie in the archive's own folder, without '..'; member "
KIND = "members must be plain files and folders; member "
TWICE = "members must have different names; member "


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (tar(batches(2), entry("/etc/passwd", 3)), f"{OUTSIDE}'/etc/passwd' does not"),
        (tar(batches(2), entry("../x")), f"{OUTSIDE}'../x' does not"),
        (tar(batches(2), entry(f"{FOLDER}/../../x", 3)), f"{OUTSIDE}'{FOLDER}/../../x' does not"),
        (tar(batches(2), entry("..", kind=tarfile.DIRTYPE)), f"{OUTSIDE}'..' does not"),
        (tar(batches(2), entry("a", kind=tarfile.SYMTYPE, target="b")), f"{KIND}'a' is a link or of another kind"),
        (tar(batches(2), entry("a", kind=tarfile.LNKTYPE, target=f"{FOLDER}/readme.html")), f"{KIND}'a' is a link"),
        (tar(batches(2), entry("a", kind=tarfile.CHRTYPE)), f"{KIND}'a' is a link or of another kind"),
        (tar(batches(2), entry("a", kind=tarfile.FIFOTYPE)), f"{KIND}'a' is a link or of another kind"),
        (tar(batches(2), entry(f"{FOLDER}/test_batch.bin")), f"{TWICE}'{FOLDER}/test_batch.bin' is there twice"),
        (tar(batches(2), entry(f"./{FOLDER}//readme.html")), f"{TWICE}'./{FOLDER}//readme.html' is there twice"),
        (
            tar({name: records(2) for name in NAMES[1:]}, entry("data_batch_1.bin")),
            f"must hold the file {FOLDER}/data_batch_1.bin; it is not there",
        ),
        (
            tar({name: records(2) for name in NAMES[1:]}, entry(f"{FOLDER}/data_batch_1.bin", kind=tarfile.DIRTYPE)),
            f"must hold the file {FOLDER}/data_batch_1.bin; it is not there",
        ),
        (b"", "cannot be read as a tar archive: "),
        (b"hello" * 500, "cannot be read as a tar archive: "),
        (SMALL[:3000], "cannot be read as a tar archive: unexpected end of data"),
        (SMALL[: len(SMALL) // 2], "cannot be read as a tar archive: unexpected end of data"),
    ],
)
def test_refused_archives(tmp_path: Path, archive: bytes, message: str) -> None:
    (tmp_path / "x.tar").write_bytes(archive)
    assert refused(str(tmp_path / "x.tar")).startswith(f"{tmp_path / 'x.tar'}: {message}")
    with pytest.raises(DataError):
        cifar10.members("x", archive)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    """A header of the old GNU format that claims 8 GiB of holes: nothing of that size may be made in memory."""
    header = bytearray(tarfile.TarInfo(f"{FOLDER}/test_batch.bin").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"77777777777\0"  # the real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(bytes(header) + SMALL)
    assert refused(str(tmp_path / "x.tar")).endswith(f"{KIND}'{FOLDER}/test_batch.bin' is a link or of another kind")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be records of 3,073 bytes, at least one; 0 bytes are 0 and 0 bytes over"),
        (records(2) + b"x", "must be records of 3,073 bytes, at least one; 6,147 bytes are 2 and 1 bytes over"),
        (records(1)[:-1], "must be records of 3,073 bytes, at least one; 3,072 bytes are 0 and 3,072 bytes over"),
        (records(2) + b"\x0a" + bytes(3072) + records(1), "labels must be 0 to 9; that of record 2 is 10"),
    ],
)
def test_refused_records(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar(batches(2) | {"data_batch_3.bin": content}))
    assert refused(str(path)) == f"{path}, data_batch_3.bin: {message}"


@given(at=st.integers(0, 6 * 512 - 1), byte=st.integers(0, 255), cut=st.integers(0, len(SMALL)))
@settings(deadline=None, max_examples=150)
def test_damage_gives_the_members_or_a_data_error(at: int, byte: int, cut: int) -> None:
    """A byte of the header of the folder, of the first file or in its beginning is changed; or the end is cut off."""
    damaged = bytearray(SMALL)
    damaged[at] = byte
    for archive in (bytes(damaged), SMALL[:cut]):
        with contextlib.suppress(DataError):
            assert set(cifar10.members("x", archive)) == set(NAMES)


def test_the_subset_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVAEPP_DATA", str(tmp_path))
    assert refused("cifar10-subset").endswith("it is published nowhere; put the file in a folder and pass --data-dir")
    (tmp_path / "data_batch_1.bin").write_bytes(records(1))
    assert refused("cifar10-subset").startswith(f"{tmp_path / 'data_batch_1.bin'}: sha256 is ")


def roughness(images: np.ndarray) -> float:
    return float(np.abs(np.diff(images, axis=2)).mean() + np.abs(np.diff(images, axis=3)).mean())


def test_the_subset(published_data: Path) -> None:
    folder = published_data / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"the subset of CIFAR-10 is not in {published_data}")
    data = load("cifar10-subset", published_data)
    assert (data.name, data.levels, data.image_shape, data.channels) == ("cifar10-subset", 255, (32, 32), 3)
    assert {split: np.bincount(labels).tolist() for split, labels in data.labels.items()} == {
        "train": [900] * 10,
        "valid": [100] * 10,
        "test": [200] * 10,
    }
    # valid holds the last 100 of each class; both keep the order of the file
    content, left = (folder / "data_batch_1.bin").read_bytes(), [1_000] * 10
    train, valid = [], []
    for start in range(0, len(content), 3_073):
        record = content[start : start + 3_073]
        left[record[0]] -= 1
        (train if left[record[0]] >= 100 else valid).append(record)
    for split, expected in (("train", train), ("valid", valid)):
        assert data.labels[split].tolist() == [record[0] for record in expected]
        assert getattr(data, split).tobytes() == b"".join(record[1:] for record in expected)
    # photographs: a pixel is like its neighbours, much less so if the colours of a pixel were to lie side by side
    images = data.test.reshape(-1, 3, 32, 32).astype(float)
    assert roughness(images) < 0.7 * roughness(data.test.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).astype(float))
    # skies are above and blue
    assert images[:, 2, :8].mean() - images[:, 0, :8].mean() > images[:, 2, -8:].mean() - images[:, 0, -8:].mean() + 5
    assert "not comparable" in data.provenance
