"""Published files of MATLAB: their variables, and images turned upright."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from scipy.io import loadmat

from dvaepp.data import download
from reference.vocabulary import Array


def obtain(file: download.PublishedFile, data_dir: Path | None, names: Sequence[str]) -> dict[str, Array]:
    """Return the named variables of a published .mat file.

    SciPy executes nothing in a file, but a damaged one can crash it: only verified bytes come to it, and a user's own
    .mat file is no format of this project.

    Raises   DataError as ``download.obtain``.
    """
    content = download.obtain(file, data_dir)
    variables = loadmat(io.BytesIO(content), variable_names=list(names))
    return {name: variables[name] for name in names}


def upright(rows: Array, side: int) -> Array:
    """Turn square images stored column by column, as MATLAB does, into images stored row by row.

    Read row by row, such an image lies on its side, mirrored.

    Shapes   (N, D) -> (N, D) with D = side side
    """
    return rows.reshape(-1, side, side).transpose(0, 2, 1).reshape(-1, side * side)
