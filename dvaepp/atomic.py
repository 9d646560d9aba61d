"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dvaepp.errors import RunError


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it when the block ends well and removed when it does not.

    The file's contents are on disk before the rename, so that a power cut leaves the old file or the new one.

    Raises   RunError, one line, when the disk is full or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}; what was there before is unchanged") from error
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file by way of a temporary name.

    Raises   RunError, as ``temporary``.
    """
    with temporary(path) as part:
        part.write_text(text, encoding="utf-8")
