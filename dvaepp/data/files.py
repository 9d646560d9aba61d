"""Reading a file's bytes, unpacking gzip, and holding the bytes to a published checksum: in this one place."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

from dvaepp.errors import DataError

_GIT_BLOB = "git-blob"
_GZIP_MAGIC = b"\x1f\x8b"


def read(path: Path) -> bytes:
    """Return the bytes of a file, unpacked if they are gzip.

    Raises   DataError as ``read_packed`` and ``unpack``.
    """
    return unpack(path, read_packed(path))


def read_packed(path: Path) -> bytes:
    """Return the bytes of a file as they lie on the disk.

    Raises   DataError for a missing or unreadable file, or a folder.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; a file was expected")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error


def unpack(path: Path, content: bytes) -> bytes:
    """Return the bytes of a file, unpacked if they are gzip.

    Whether they are is read from their first two bytes, not from the name: some browsers unpack a ``.gz`` on the way
    and keep its name. No format read here begins with those two bytes.

    Raises   DataError for damaged gzip.
    """
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is truncated or damaged gzip: {reason(error)}") from error


def verify(where: Path | str, content: bytes, checksum: str) -> None:
    """Raise DataError unless the bytes have the checksum.

    ``checksum`` names its algorithm, as in "sha256:ad69..." or "md5:6bbc..."; "git-blob:016a..." is the name git gives
    a file's content, the sha1 of "blob SIZE", a zero byte and the content. md5, sha1 and git-blob only because files
    are published so; md5 and sha1 guard against damage, not against an adversary.
    """
    algorithm, expected = checksum.split(":")
    if algorithm == _GIT_BLOB:
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(f"{where}: {algorithm} is {found}, expected {expected}; the file is damaged or another version")


def reason(error: BaseException) -> str:
    """Return what an exception says, on one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__
