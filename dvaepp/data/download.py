"""A published file: found in a folder or downloaded once, and never used before its checksum is verified."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from dvaepp.data.files import read_packed, reason, unpack, verify
from dvaepp.errors import DataError

_TIMEOUT = 30  # seconds to connect, and between two pieces of an answer


@dataclass(frozen=True)
class PublishedFile:
    """A file as its authors publish it.

    ``checksum`` is that of the unpacked content, so that a copy packed anew, or not packed, is the same file. Where
    none is published, it is None, and only a copy packed as it is served will do. ``served_checksum`` is that of the
    bytes behind ``urls``, which are tried in order. Both as "algorithm:hex". ``folder`` is the name of the subfolder in
    which it is looked for besides the folder given. A file without ``urls`` is published nowhere, and must be brought
    along.
    """

    name: str
    folder: str
    checksum: str | None
    served_checksum: str
    urls: tuple[str, ...]


def obtain(file: PublishedFile, data_dir: Path | None) -> bytes:
    """Return the unpacked content of a published file.

    With ``data_dir`` it must be there, or in its subfolder ``file.folder``, packed with gzip or not, and nothing is
    downloaded. Without, it is looked for likewise in the cache (the folder in the environment variable DVAEPP_DATA, or
    the system's cache folder) and downloaded into it if need be.

    Raises   DataError for a missing file, one that cannot be read or has another checksum, and a failing download.
    """
    folder = cache() if data_dir is None else data_dir
    path = _find(file, folder)
    if path is None:
        if data_dir is not None or not file.urls:
            raise DataError(_not_found(file, data_dir))
        path = _download(file, folder)
    packed = read_packed(path)
    if file.checksum is None:
        verify(path, packed, file.served_checksum)
        return unpack(path, packed)
    content = unpack(path, packed)
    verify(path, content, file.checksum)
    return content


def at_hand(file: PublishedFile, data_dir: Path | None) -> bool:
    """Return whether ``obtain`` would find the file, without a download."""
    return _find(file, cache() if data_dir is None else data_dir) is not None


def cache() -> Path:
    """Return the folder that keeps downloads: DVAEPP_DATA if it is set, else the system's cache folder."""
    chosen = os.environ.get("DVAEPP_DATA")
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("dvaepp"))


def _names(file: PublishedFile) -> tuple[str, ...]:
    if file.checksum is None:
        return (file.name,)
    bare = file.name.removesuffix(".gz")
    return bare, f"{bare}.gz"


def _find(file: PublishedFile, folder: Path) -> Path | None:
    candidates = (place / name for place in (folder, folder / file.folder) for name in _names(file))
    try:
        return next((path for path in candidates if path.exists()), None)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error


def _not_found(file: PublishedFile, data_dir: Path | None) -> str:
    folder = cache() if data_dir is None else data_dir
    names = " or ".join(_names(file))
    if data_dir is None:
        return (
            f"{names} not found in {folder} nor in {folder / file.folder}, and cannot be downloaded: it is published "
            "nowhere; put the file in a folder and pass --data-dir"
        )
    if not folder.is_dir():
        return f"{folder}: the data folder must exist; it is not there or not a folder"
    way_out = "put it there" + (", or leave out --data-dir to download it" if file.urls else "")
    return f"{names} not found in {folder} nor in {folder / file.folder}; {way_out}"


def _download(file: PublishedFile, folder: Path) -> Path:
    """Fetch the file from the first url that serves it, and move it into place once it is verified."""
    failures = []
    for url in file.urls:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=folder) as room:
                fetched = Path(room) / file.name
                pooch.get_logger().info("Downloading %s to %s.", url, folder / file.name)
                pooch.HTTPDownloader(timeout=_TIMEOUT)(url, str(fetched), None)
                verify(url, fetched.read_bytes(), file.served_checksum)
                return fetched.replace(folder / file.name)
        except DataError as error:  # what came is not the file
            failures.append(str(error))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a malformed url is a ValueError
            failures.append(f"{url}: {_network_reason(error)}")
    raise DataError(
        f"{file.name}: cannot be downloaded into {folder}: {'; '.join(failures)}; "
        "put the file in a folder and pass --data-dir"
    )


def _network_reason(error: Exception) -> str:
    """Return the heart of a requests error, whose own text repeats the url and three layers of wrapping."""
    inner = error.args[0] if error.args else None
    heart = getattr(inner, "reason", None)
    return reason(heart if isinstance(heart, Exception) else error)
