"""One self-contained HTML page from the result of a run: ``python -m validation --html FILE``.

The page holds everything: it asks the network for nothing, and its Content-Security-Policy forbids that and any script
but its own. It can be read without JavaScript, which only sorts, filters and copies. Names and messages may come from
anybody's backend; all are escaped. The markup is in ``validation/page``, the geometry of pictures in
``validation.page.plots``.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dvaepp.atomic import write_text
from validation.page import plots
from validation.rows import LOADING, ErrorMap, Finding, Row, Statistic, Status, Task, plain
from validation.tolerances import FALSE_ALARM_RATE, POWER

#: How many of the rows that do not hold are named beside the verdict.
N_OFFENDERS = 5

#: Checks with a matrix of their worst cases, and what its columns are.
MATRICES: Mapping[str, Callable[[Task], str]] = {
    "agreement": lambda task: task.operation,
    "accuracy": lambda task: task.kind or task.operation,
    "gradients": lambda task: task.operation,
}

#: Largest shares of the bound of the shades of a matrix.
SHADES = (0.1, 0.25, 0.5, 1.0)

MAP_SIZE, STRIP_HALF, QUANTILE_SIZE = 216.0, 100.0, 260.0


@dataclass(frozen=True)
class Result:
    """All that a run found, and what it ran on.

    ``environment``: device and versions; ``request``: what was asked for; both are printed as they are.
    ``tables_html``: the paper's tables as a fragment of HTML (``validation.paper.tables.to_html``), or nothing.
    ``command``: the command line of the whole run.
    """

    rows: list[Row]
    maps: list[ErrorMap]
    environment: dict[str, Any]
    request: dict[str, Any]
    tables_html: str
    seconds: float
    command: str

    @property
    def n_bad(self) -> int:
        """How many rows do not hold."""
        return sum(not row.status.good for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that JSON does not have are the strings inf, -inf and nan."""
        return plain(
            {
                "command": self.command,
                "holds": self.n_bad == 0,
                "n_rows": len(self.rows),
                "n_bad": self.n_bad,
                "seconds": self.seconds,
                "environment": self.environment,
                "request": self.request,
                "rows": [row.to_json() for row in self.rows],
                "maps": [asdict(map_) for map_ in self.maps],
            }
        )


@dataclass(frozen=True)
class Entry:
    """A row as the page shows it; ``index`` names it in links."""

    index: int
    row: Row

    @property
    def task(self) -> Task:
        """What was run."""
        return self.row.task

    @property
    def finding(self) -> Finding | None:
        """What was found, if the task ended as it should."""
        return self.row.finding

    @property
    def statistic(self) -> Statistic | None:
        """Estimate and truth, if it was about them."""
        return self.row.finding.statistic if self.row.finding else None

    @property
    def look(self) -> str:
        """good, bad or neutral."""
        if not self.row.status.good:
            return "bad"
        return "good" if self.row.status is Status.HOLDS else "neutral"

    @property
    def share(self) -> float | None:
        """The error in units of its bound, where there is one."""
        if self.finding is None or not self.finding.judged:
            return None
        return plots.share(self.finding.error, self.finding.bound)

    @property
    def name(self) -> str:
        """What was judged, in one line."""
        words = (self.task.check, self.task.subject, self.task.operation, self.task.kind, self.task.dtype)
        output = self.finding.output if self.finding else ""
        return " / ".join(dict.fromkeys(word for word in (*words, output) if word))

    @property
    def where(self) -> str:
        """The prose on where it was found, unless that only repeats the input."""
        return self.finding.where if self.finding and self.finding.where != self.finding.at else ""

    @property
    def headline(self) -> str:
        """First line of the message."""
        return self.row.message.strip().split("\n", 1)[0]

    @property
    def rest(self) -> str:
        """The other lines of the message."""
        return self.row.message.strip().partition("\n")[2]

    @property
    def z(self) -> float | None:
        """(estimate - truth) / standard error, if that is what is judged, and not several numbers together."""
        if self.finding is None or self.statistic is None:
            return None
        difference, unit = self.statistic.estimate - self.statistic.truth, self.statistic.standard_error
        z = difference / unit if unit > 0 else math.copysign(math.inf, difference) if difference else 0.0
        return z if math.isclose(abs(z), abs(self.finding.error), rel_tol=1e-6) else None

    @property
    def deviation(self) -> float:
        """What is compared with the bound, with the sign of the estimate's error where it has one; NaN is infinite."""
        error = self.finding.error if self.finding else math.inf
        return self.z if self.z is not None else math.inf if math.isnan(error) else error

    @property
    def caught(self) -> float | None:
        """The smallest error that would be caught, in standard errors; None where it is not one of ``z``."""
        if self.statistic is None or self.z is None or not self.statistic.standard_error > 0:
            return None
        return self.statistic.catches / self.statistic.standard_error


@dataclass(frozen=True)
class Cell:
    """What a matrix says in one place: its text and look, the row behind it, and what to say when asked."""

    text: str
    look: str
    index: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Matrix:
    """A table of cells, None where nothing was asked."""

    check: str
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell | None, ...]], ...]


def write(result: Result, path: Path) -> None:
    """Write the page, by way of a temporary name.

    Raises   RunError if it cannot be written; what was there before stays.
    """
    # A message may hold what UTF-8 cannot, such as half a surrogate pair.
    write_text(path, to_html(result).encode("utf-8", "backslashreplace").decode("utf-8"))


def to_html(result: Result) -> str:
    """Turn a result into the page."""
    entries = [Entry(i, row) for i, row in enumerate(result.rows)]
    page = resources.files("validation") / "page"
    style, script = ((page / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("validation", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "sortable": sortable, "exact": _exact, "plainly": _plainly}
    statistics = [entry for entry in entries if _is_statistic(entry)]
    return environment.get_template("template.html.j2").render(
        result=result,
        entries=entries,
        # What a backend does not have is no error of its: the others are named first.
        bad=sorted((e for e in entries if not e.row.status.good), key=lambda e: e.row.status is Status.LACKS),
        n_offenders=N_OFFENDERS,
        judged=sum(entry.look != "neutral" for entry in entries),
        statuses=[status for status in Status if any(entry.row.status is status for entry in entries)],
        checks=_distinct(entry.task.check for entry in entries),
        subjects=_distinct(entry.task.subject for entry in entries),
        summary=summary(entries),
        matrices=[found for check in MATRICES if (found := matrix(entries, check)).rows],
        map_groups=_map_groups(result.maps),
        map_size=MAP_SIZE,
        colour_scale=plots.colour_scale(),
        lowest_share=plots.LOWEST_SHARE,
        statistics=_by_subject(statistics),
        axis=plots.axis(
            [entry.finding.bound for entry in statistics if entry.finding and entry.finding.judged],
            [entry.caught for entry in statistics if entry.caught is not None],
            STRIP_HALF,
        ),
        false_alarm_rate=FALSE_ALARM_RATE,
        power=POWER,
        quantiles=_quantiles(statistics),
        faults=[entry for entry in entries if entry.task.check == "sabotage"],
        tables=Markup(result.tables_html),
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number for the eye: a few digits, nothing for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{value:.{digits}g}".replace("-", "−")


def sortable(value: float | None) -> str:
    """A number for the script that sorts; NaN counts as infinite, and None comes last whatever the order."""
    if value is None:
        return ""
    return "Infinity" if math.isnan(value) else repr(float(value)).replace("inf", "Infinity")


def summary(entries: Sequence[Entry]) -> Matrix:
    """Subject by check: how many rows hold."""
    checks = _distinct(entry.task.check for entry in entries)
    rows = []
    for subject in _distinct(entry.task.subject for entry in entries):
        mine = [entry for entry in entries if entry.task.subject == subject]
        cells = [_count([entry for entry in mine if entry.task.check == check]) for check in checks]
        rows.append(((subject,), tuple(cells)))
    return Matrix("", checks, tuple(rows))


def matrix(entries: Sequence[Entry], check: str) -> Matrix:
    """Subject and dtype by operation (or kind): the worst case of a check, in units of its bound."""
    column = MATRICES[check]
    mine = [entry for entry in entries if entry.task.check == check and entry.task.operation != LOADING]
    columns = _distinct(column(entry.task) for entry in mine)
    rows = []
    for subject, dtype in dict.fromkeys((entry.task.subject, entry.task.dtype) for entry in mine):
        row = [entry for entry in mine if (entry.task.subject, entry.task.dtype) == (subject, dtype)]
        cells = (_worst([entry for entry in row if column(entry.task) == name]) for name in columns)
        rows.append(((subject, dtype), tuple(cells)))
    return Matrix(check, columns, tuple(rows))


def _count(entries: Sequence[Entry]) -> Cell | None:
    if not entries:
        return None
    looks = [entry.look for entry in entries]
    if n_bad := looks.count("bad"):
        first = entries[looks.index("bad")]
        return Cell(f"{n_bad} of {len(entries)} not", "bad", first.index, f"first: {first.name}")
    if n_good := looks.count("good"):
        return Cell(f"{n_good} hold", "good", entries[0].index)
    statuses = _distinct(entry.row.status.value for entry in entries)
    return Cell(", ".join(statuses), "neutral", entries[0].index)


def _worst(entries: Sequence[Entry]) -> Cell | None:
    if not entries:
        return None
    worst = max(entries, key=lambda entry: (entry.look == "bad", -1.0 if entry.share is None else entry.share))
    share = worst.share
    if share is None:
        return Cell(worst.row.status.value, worst.look, worst.index, worst.headline or worst.name)
    look = worst.look if worst.look == "bad" else f"shade-{next(i for i, top in enumerate(SHADES) if share <= top)}"
    return Cell(number(share, 2), look, worst.index, worst.name)


def _is_statistic(entry: Entry) -> bool:
    return entry.finding is not None and (entry.task.check == "statistics" or entry.statistic is not None)


def _by_subject(statistics: Sequence[Entry]) -> dict[str, list[Entry]]:
    subjects = _distinct(entry.task.subject for entry in statistics)
    return {name: [entry for entry in statistics if entry.task.subject == name] for name in subjects}


def _quantiles(statistics: Sequence[Entry]) -> tuple[plots.QuantilePlot, list[Entry]] | None:
    judged = [(entry.z, entry) for entry in statistics if entry.look != "neutral"]
    scores = [z for z, _ in judged if z is not None]
    shown = [entry for z, entry in judged if z is not None]
    return (plots.quantile_plot(scores, QUANTILE_SIZE), shown) if scores else None


def _map_groups(maps: Iterable[ErrorMap]) -> list[list[tuple[plots.HeatMap, str]]]:
    """Maps of one subject, kind and dtype together, each with the command that judges its worst point."""
    groups: dict[tuple[str, str, str], list[tuple[plots.HeatMap, str]]] = {}
    for source in maps:
        drawn = plots.heat_map(source, MAP_SIZE)
        task = Task("accuracy", source.subject, "inverse_cdf", source.kind, source.dtype, at=drawn.at)
        groups.setdefault((source.subject, source.kind, source.dtype), []).append((drawn, task.command))
    return list(groups.values())


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _plainly(value: Any) -> str:
    """A value of the environment or the request, in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plainly(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plainly, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
