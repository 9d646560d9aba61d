"""The geometry of the report's pictures: error maps, one strip per statistic, and a normal quantile plot.

Pictures are drawn as SVG inside the page (``validation/page/template.html.j2``), where text takes the page's font and
colours, light or dark. Here are the positions, in the units of each picture's own coordinates, and the cells of an
error map as a PNG. Nothing that is not finite is dropped: it is marked, or drawn at the edge.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import norm

from reference.vocabulary import Array
from validation.rows import ErrorMap

#: Errors below this share of their bound are drawn as if they were this.
LOWEST_SHARE = 0.01

#: The largest z-score that a quantile plot has room for; larger ones are drawn at its edge.
FURTHEST = 8.0

_LEVELS = 254
_ABOVE, _NOT_FINITE = _LEVELS, _LEVELS + 1
#: Cividis is read alike by readers with and without colour deficiencies. Vermilion (Okabe & Ito, 2008) is not in it.
_PALETTE: NDArray[np.uint8] = np.vstack(
    [
        np.round(255 * matplotlib.colormaps["cividis"](np.linspace(0, 1, _LEVELS))[:, :3]),
        [[0xD5, 0x5E, 0x00], [0, 0, 0]],
    ]
).astype(np.uint8)


@dataclass(frozen=True)
class Tick:
    """A position in a picture, and the number there."""

    at: float
    label: str


@dataclass(frozen=True)
class HeatMap:
    """An error map as it is drawn: x is the logit, y (downwards) is rho; every point of the grid is a square cell.

    ``above`` and ``not_finite`` are paths of crosses, one on each cell above the bound and on each that is not finite.
    """

    source: ErrorMap
    image: str
    above: str
    not_finite: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    worst: float
    rho: float
    logit_q: float

    @property
    def share(self) -> float:
        """The worst error in units of its bound."""
        return share(self.worst, self.source.bound)

    @property
    def holds(self) -> bool:
        """Whether no point is above the bound."""
        return self.worst <= self.source.bound

    @property
    def at(self) -> str:
        """The input of the worst point, as the option ``--at`` takes it."""
        return f"rho={self.rho!r}, logit_q={self.logit_q!r}, beta={self.source.beta!r}"


def share(error: float, bound: float) -> float:
    """The error in units of its bound: at most 1 where it holds, infinite for NaN and for anything above nothing."""
    if error <= bound:
        return max(error / bound, 0.0) if 0 < bound < math.inf else 0.0
    return error / bound if bound > 0 and not math.isnan(error) else math.inf


def heat_map(source: ErrorMap, size: float) -> HeatMap:
    """Turn an error map into a picture of ``size`` by ``size``."""
    error = np.array(source.error, dtype=np.float64).T[::-1]  # rho upwards
    n_rho, n_logit = error.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = error / source.bound
        level = np.log10(shares / LOWEST_SHARE) / -math.log10(LOWEST_SHARE)
    finite = np.isfinite(shares)
    above = finite & (shares > 1)
    level = np.where(finite, np.clip(level, 0, 1), 1)
    cells = np.select([~finite, above], [_NOT_FINITE, _ABOVE], np.round(level * (_LEVELS - 1))).astype(np.uint8)

    filled = np.where(np.isnan(error), np.inf, error)
    i, j = np.unravel_index(int(np.argmax(filled)), filled.shape)
    width, height = size / n_logit, size / n_rho
    logits, rhos = np.asarray(source.logit_q), np.asarray(source.rho)
    nice = MaxNLocator(nbins=4).tick_values(logits[0], logits[-1])
    x_ticks = [
        Tick((float(np.interp(value, logits, np.arange(n_logit))) + 0.5) * width, _number(value))
        for value in nice
        if logits[0] <= value <= logits[-1]
    ]
    chosen = np.unique(np.linspace(0, n_rho - 1, 5).round().astype(int))
    return HeatMap(
        source,
        _png(cells),
        _crosses(above, width, height),
        _crosses(~finite, width, height),
        tuple(x_ticks),
        tuple(Tick((n_rho - k - 0.5) * height, _rho_label(float(rhos[k]))) for k in chosen),
        float(filled[i, j]),
        float(rhos[n_rho - 1 - i]),
        float(logits[j]),
    )


def colour_scale() -> str:
    """The scale of all error maps, from ``LOWEST_SHARE`` of the bound to the bound, as a data URI of a PNG."""
    return _png(np.arange(_LEVELS, dtype=np.uint8)[None, :])


def _png(cells: NDArray[np.uint8]) -> str:
    image = Image.fromarray(cells)
    image.putpalette(_PALETTE.tobytes())
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _crosses(marked: NDArray[np.bool_], width: float, height: float) -> str:
    side = 0.6 * min(width, height)
    parts = []
    for i, j in np.argwhere(marked).tolist():
        x, y = (j + 0.5) * width - side / 2, (i + 0.5) * height - side / 2
        parts.append(f"M{x:.1f} {y:.1f}l{side:.1f} {side:.1f}m0-{side:.1f}l-{side:.1f} {side:.1f}")
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _rho_label(rho: float) -> str:
    if 0.99 < rho < 1:
        return "1−" + f"{1 - rho:.0e}".replace("e-0", "e-")
    return f"{rho:.2g}".replace("e-0", "e-")


@dataclass(frozen=True)
class Axis:
    """The common axis of strips: deviations in standard errors, from ``-limit`` to ``limit``, on ``-half`` to ``half``.

    What lies further out is drawn at the edge.
    """

    limit: float
    half: float

    def position(self, value: float) -> float:
        """Where a deviation is drawn; NaN at the right edge."""
        inside = self.limit if math.isnan(value) else min(max(value, -self.limit), self.limit)
        return inside / self.limit * self.half

    def inside(self, value: float) -> bool:
        """Whether the axis reaches that far."""
        return abs(value) <= self.limit


def axis(bounds: Iterable[float], caught: Iterable[float], half: float) -> Axis:
    """The axis that shows all bounds, and all errors that would be caught unless they are far beyond."""
    largest = max((bound for bound in bounds if math.isfinite(bound)), default=1.0)
    further = max((size for size in caught if largest < size <= 3 * largest), default=largest)
    return Axis(1.1 * (further or 1.0), half)


@dataclass(frozen=True)
class Point:
    """A z-score in a quantile plot, its index among those that were given, and whether it lies outside the picture."""

    x: float
    y: float
    index: int
    outside: bool


@dataclass(frozen=True)
class QuantilePlot:
    """Sorted z-scores against normal quantiles, on two axes of one scale; x to the right, y down from the top."""

    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    size: float


def quantile_plot(scores: Sequence[float], size: float) -> QuantilePlot:
    """Turn z-scores (NaN counts as infinite) into a picture of ``size`` by ``size``.

    Shapes   scores (n,), n >= 1
    """
    z: Array = np.where(np.isnan(scores), np.inf, np.asarray(scores, dtype=np.float64))
    order = np.argsort(z, kind="stable")
    n = len(z)
    expected = norm.ppf((np.arange(n) + 0.5) / n)
    limit = float(np.ceil(max(3.0, np.abs(z[np.isfinite(z)]).max(initial=0.0))))
    limit = min(limit, FURTHEST)

    def place(values: Array) -> Array:
        return (np.clip(values, -limit, limit) / limit + 1) / 2 * size

    x, y = place(expected), size - place(z[order])
    points = tuple(Point(float(x[k]), float(y[k]), int(order[k]), bool(abs(z[order[k]]) > limit)) for k in range(n))
    step = 1 if limit < 5 else 2
    numbers = np.arange(-(limit // step) * step, limit + 1, step)
    x_ticks = tuple(Tick(float(at), _number(value)) for at, value in zip(place(numbers), numbers, strict=True))
    y_ticks = tuple(Tick(size - tick.at, tick.label) for tick in x_ticks)
    return QuantilePlot(points, x_ticks, y_ticks, size)
