"""A published file: found in a folder or downloaded once, and never used before its checksum is verified."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pooch

from dvaepp.data.files import read, reason, verify
from dvaepp.errors import DataError

_TIMEOUT = 30  # seconds to connect, and between two pieces of an answer


@dataclass(frozen=True)
class PublishedFile:
    """A file as its authors publish it.

    ``checksum`` is that of the unpacked content, so that a copy packed anew, or not packed, is the same file;
    ``served_checksum`` is that of the bytes behind ``urls``, which are tried in order. Both as "algorithm:hex".
    ``folder`` is the name of the subfolder in which it is looked for besides the folder given.
    """

    name: str
    folder: str
    checksum: str
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
        if data_dir is not None:
            raise DataError(_not_found(file, folder))
        path = _download(file, folder)
    content = read(path)
    verify(path, content, file.checksum)
    return content


def cache() -> Path:
    """Return the folder that keeps downloads: DVAEPP_DATA if it is set, else the system's cache folder."""
    chosen = os.environ.get("DVAEPP_DATA")
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("dvaepp"))


def _names(file: PublishedFile) -> tuple[str, str]:
    bare = file.name.removesuffix(".gz")
    return bare, f"{bare}.gz"


def _find(file: PublishedFile, folder: Path) -> Path | None:
    candidates = (place / name for place in (folder, folder / file.folder) for name in _names(file))
    try:
        return next((path for path in candidates if path.exists()), None)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error


def _not_found(file: PublishedFile, folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: the data folder must exist; it is not there or not a folder"
    return (
        f"{' or '.join(_names(file))} not found in {folder} nor in {folder / file.folder}; "
        "put it there, or leave out --data-dir to download it"
    )


def _download(file: PublishedFile, folder: Path) -> Path:
    """Fetch the file from the first url that serves it; pooch moves it into place once it is verified."""
    failures = []
    for url in file.urls:
        try:
            return Path(
                pooch.retrieve(url, file.served_checksum, fname=file.name, path=folder, downloader=_Fetch(file))
            )
        except DataError as error:  # what came is not the file
            failures.append(str(error))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a malformed url is a ValueError
            failures.append(f"{url}: {_network_reason(error)}")
    raise DataError(
        f"{file.name}: cannot be downloaded into {folder}: {'; '.join(failures)}; "
        "put the file in a folder and pass --data-dir"
    )


class _Fetch:
    """A pooch downloader that verifies in the words of ``verify`` what it has fetched, before pooch does in its own."""

    def __init__(self, file: PublishedFile) -> None:
        self._file = file
        self._download = pooch.HTTPDownloader(timeout=_TIMEOUT)

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        self._download(url, output_file, None)
        verify(url, Path(output_file).read_bytes(), self._file.served_checksum)


def _network_reason(error: Exception) -> str:
    """Return the heart of a requests error, whose own text repeats the url and three layers of wrapping."""
    inner = error.args[0] if error.args else None
    heart = getattr(inner, "reason", None)
    return reason(heart if isinstance(heart, Exception) else error)
