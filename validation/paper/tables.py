"""The paper's Tables 1 to 3 with ours beside the published values: from records to Markdown, HTML, a terminal, JSON.

A cell shows the mean over the seeds of *one* set of records, all made alike: same iterations, importance samples, test
images and hyper-parameters. Where there are several sets, the one nearest to the published protocol is shown and the
others are listed, as is every record that belongs to no cell: nothing that was read goes unmentioned.
"""

from __future__ import annotations

import itertools
import math
import statistics
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from dvaepp.config import unknown
from validation.paper.records import Experiment, Problem, Record, Records, shown

PUBLISHED = Path(__file__).parent / "published.toml"

#: What ``dvaepp`` trains where a record does not say what it was made for.
_UNSAID = ("table2", "rbm-overlapping")

_MINUS, _PLUS_MINUS = "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}"
#: Half a bracket of log Z from which on it shows in two decimals.
_SHOWS = 0.005
_LINES = ("published", "ours", "difference")


@dataclass(frozen=True)
class Value:
    """A published value and its standard deviation over runs, where there is one."""

    value: float
    sd: float | None = None


@dataclass(frozen=True)
class Heading:
    """A row or a column of a table; ``printed`` is its name in the paper."""

    label: str
    printed: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    test_images: int | None = None
    unit: str = ""
    dimensions: int | None = None

    @property
    def per_nat(self) -> float:
        """One nat of an image in the column's unit: bits per dimension where it has dimensions."""
        return 1.0 if self.dimensions is None else 1 / (self.dimensions * math.log(2))


@dataclass(frozen=True)
class Published:
    """One of the paper's tables, with its protocol: see ``published.toml``."""

    name: str
    title: str
    unit: str
    n_importance: int
    config: Mapping[str, Any]
    rows: Mapping[str, Heading]
    columns: Mapping[str, Heading]
    values: Mapping[str, Mapping[str, Value]]
    seeds: int | None = None
    iterations: int | None = None

    @property
    def number(self) -> str:
        """Its name in words, as "Table 2"."""
        return self.title.partition(":")[0]

    def label(self, row: str, column: str) -> str:
        """A cell in words."""
        return f"{self.rows[row].label}, {self.columns[column].label}"

    def config_of(self, row: str, column: str) -> dict[str, Any]:
        """The published hyper-parameters of a cell, as far as they are published."""
        return {**self.config, **self.rows[row].config, **self.columns[column].config}

    def test_images(self, row: str, column: str) -> int | None:
        """The size of a cell's test set."""
        return self.rows[row].test_images or self.columns[column].test_images

    def units(self) -> tuple[str, ...]:
        """The units of the columns, each once."""
        return tuple(dict.fromkeys(column.unit or self.unit for column in self.columns.values()))

    def value_of(self, record: Record, column: str) -> float:
        """A record's result as a column has it: log-likelihood in nats, or bits per dimension.

        Units    nats in; the column's out
        """
        heading = self.columns[column]
        sign = -1 if heading.dimensions is None else 1  # bits per dimension are published as what is to be small
        return sign * record.negative_log_likelihood * heading.per_nat


@lru_cache
def published() -> Mapping[str, Published]:
    """The paper's tables by name."""
    with PUBLISHED.open("rb") as file:
        return {name: _published(name, table) for name, table in tomllib.load(file).items()}


def _published(name: str, table: Mapping[str, Any]) -> Published:
    return Published(
        **{key: value for key, value in table.items() if key not in ("rows", "columns", "values")},
        name=name,
        rows={key: Heading(**heading) for key, heading in table["rows"].items()},
        columns={key: Heading(**heading) for key, heading in table["columns"].items()},
        values={row: {key: Value(**value) for key, value in cells.items()} for row, cells in table["values"].items()},
    )


@dataclass(frozen=True)
class Ours:
    """What records say about a cell.

    ``mean`` and ``sd`` (of a sample; None for one seed) are over the seeds; ``half_width`` is the largest half of a
    bracket of log Z. ``shortened`` says by how much the runs are shorter than published, ``remarks`` what else is not
    as published.

    Units    the cell's
    """

    mean: float
    sd: float | None
    difference: float
    seeds: tuple[int, ...]
    iterations: int | None
    n_importance: int
    n_images: int
    device: str
    half_width: float | None
    shortened: str
    remarks: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what was published, and what is ours, if there is any."""

    row: str
    column: str
    label: str
    unit: str
    published: Value
    ours: Ours | None


@dataclass(frozen=True)
class Aside:
    """A record that stands in no table, and why."""

    record: Record
    why: str


@dataclass(frozen=True)
class Table:
    """One of the paper's tables with ours beside it; cells in the paper's order, row by row."""

    published: Published
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """All that there is to show: tables, records that stand in none, runs not tested yet, what could not be used."""

    tables: tuple[Table, ...]
    asides: tuple[Aside, ...]
    waiting: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def has_records(self) -> bool:
        """Whether anything of ours was found, were it only a problem."""
        found = any(cell.ours is not None for table in self.tables for cell in table.cells)
        return found or bool(self.asides or self.waiting or self.problems)


# ---- from records to cells -------------------------------------------------------------------------------------------


def tables(records: Records) -> Comparison:
    """Put records into the cells of the paper's tables."""
    placed: dict[tuple[str, str, str], list[Record]] = {}
    asides, problems = [], list(records.problems)
    for record in records.records:
        try:
            at, why_not = _place(record)
        except LookupError as error:
            at, why_not = None, str(error.args[0])
            problem = Problem(record.source, why_not)
            if problem not in problems:  # one line for a run, however often it was tested
                problems.append(problem)
        if at is None:
            asides.append(Aside(record, why_not))
        else:
            placed.setdefault((at.table, at.row, at.column), []).append(record)
    filled = []
    for table in published().values():
        cells = []
        for row in table.rows:
            for column, heading in table.columns.items():
                ours, others = _ours(table, row, column, placed.get((table.name, row, column), []))
                asides += others
                value, unit = table.values[row][column], heading.unit or table.unit
                cells.append(Cell(row, column, table.label(row, column), unit, value, ours))
        filled.append(Table(table, tuple(cells)))
    return Comparison(tuple(filled), tuple(asides), records.waiting, tuple(problems))


def _place(record: Record) -> tuple[Experiment | None, str]:
    """The cell of a record, or why it has none.

    Raises   LookupError if the record names a cell that does not exist.
    """
    said = record.experiment
    if said is not None:
        if said.table not in published():
            raise LookupError(f"experiment names an {unknown('table', said.table, published())}")
        table = published()[said.table]
        for what, name, known in (("row", said.row, table.rows), ("column", said.column, table.columns)):
            if name not in known:
                raise LookupError(f"experiment names an {unknown(f'{what} of {table.number}', name, known)}")
        return said, ""
    name, column = _UNSAID
    table = published()[name]
    differences = {row: _deviations(heading.config, record.config) for row, heading in table.rows.items()}
    # of rows that differ in as much, the one that agrees in more
    nearest = min(differences, key=lambda row: (len(differences[row]), -len(table.rows[row].config)))
    if not differences[nearest]:
        return Experiment(name, nearest, column), ""
    where = f"{table.label(nearest, column)} of {table.number}"
    return None, f"of no cell; the nearest is {where}, but {'; '.join(differences[nearest])}"


def _deviations(wanted: Mapping[str, Any], stated: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a configuration is not as wanted, in words."""
    found = []
    for name, value in wanted.items():
        if name not in stated:
            found.append(f"{name} is not stated")
        elif stated[name] != value:
            found.append(f"{name} {_plain(stated[name])} instead of {_plain(value)}")
    return tuple(found)


def _ours(table: Published, row: str, column: str, records: Sequence[Record]) -> tuple[Ours | None, list[Aside]]:
    """What a cell shows of its records, and the ones it does not show."""
    alike: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        deviations = _deviations(table.config_of(row, column), record.config)
        key = (record.iterations, record.n_importance, record.n_images, deviations)
        alike.setdefault(key, []).append(record)
    if not alike:
        return None, []
    test_images = table.test_images(row, column)

    def nearness(key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Larger for records nearer to the published protocol; the order is that of how much each matters."""
        iterations, n_importance, n_images, deviations = key
        return (
            min(iterations or 0, table.iterations or math.inf),
            n_images == test_images,
            -abs(math.log(n_importance / table.n_importance)),
            -len(deviations),
            len({record.seed for record in alike[key]}),
            n_images,
            max(record.source for record in alike[key]),
        )

    best = max(alike, key=nearness)
    label = table.label(row, column)
    chosen, again = _one_per_seed(alike.pop(best))
    asides = [
        Aside(record, f"{label} of {table.number}: another record of seed {record.seed} is shown") for record in again
    ]
    asides += [
        Aside(record, f"{label} of {table.number}: records nearer to the published protocol are shown")
        for others in alike.values()
        for record in others
    ]
    iterations, n_importance, n_images, deviations = best
    remarks = [*_test_remarks(n_importance, table.n_importance, n_images, test_images), *deviations]
    shortened = ""
    if iterations is None:
        remarks.insert(0, "number of iterations not known")
    elif table.iterations is not None and iterations < table.iterations:
        shortened = f"{iterations:,} of {table.iterations:,} iterations"
    elif table.iterations is not None and iterations > table.iterations:
        remarks.insert(0, f"{iterations:,} iterations instead of {table.iterations:,}")
    if wrong := [record.seed for record in chosen if not record.consistent]:
        remarks.append(f"the two estimates of log Z contradict each other (seed {_listed(wrong)})")
    values = [table.value_of(record, column) for record in chosen]
    mean = statistics.fmean(values)
    widths = [record.half_width for record in chosen if record.half_width is not None]
    return (
        Ours(
            mean=mean,
            sd=statistics.stdev(values) if len(values) > 1 else None,
            difference=mean - table.values[row][column].value,
            seeds=tuple(record.seed for record in chosen),
            iterations=iterations,
            n_importance=n_importance,
            n_images=n_images,
            device="; ".join(dict.fromkeys(record.device for record in chosen if record.device)),
            half_width=max(widths) * table.columns[column].per_nat if widths else None,
            shortened=shortened,
            remarks=tuple(remarks),
            sources=tuple(record.source for record in chosen),
        ),
        asides,
    )


def _one_per_seed(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """One record for each seed, in the order of seeds, and the rest.

    The one that was tested by the seed of its training comes first, then the last by name: names end in dates.
    """
    chosen: dict[int, Record] = {}
    rest = []
    for record in sorted(records, key=lambda record: (record.test_seed == record.seed, record.source), reverse=True):
        if record.seed in chosen:
            rest.append(record)
        else:
            chosen[record.seed] = record
    return [chosen[seed] for seed in sorted(chosen)], rest


def _test_remarks(n_importance: int, wanted: int, n_images: int, test_images: int | None) -> Iterator[str]:
    if n_importance != wanted:
        yield f"K = {n_importance:,} instead of {wanted:,}"
    if test_images is not None and n_images < test_images:
        yield f"{n_images:,} of {test_images:,} test images"
    elif test_images is not None and n_images > test_images:
        yield f"{n_images:,} test images instead of {test_images:,}"


# ---- what the renderings share ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One field of a sheet: its text, its classes in HTML, whether it is a number, what HTML says below it."""

    text: str
    role: str = ""
    is_number: bool = False
    below: str = ""
    anchor: str = ""  # what others refer to it by
    to: str = ""  # the anchor of the line that says more; ends in its number

    @property
    def number(self) -> str:
        """The number of the line that says more, as it is referred to."""
        return f"[{self.to.rpartition('-')[2]}]" if self.to else ""

    def __str__(self) -> str:
        return f"{self.text} {self.number}" if self.to else self.text


@dataclass(frozen=True)
class _Sheet:
    """A table as it is printed. ``groups`` hold lines; the first field of a group's first line is the group's name."""

    name: str
    caption: str
    head: tuple[str, ...]
    groups: tuple[tuple[tuple[_Field, ...], ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def is_grid(self) -> bool:
        """Whether it is one of the paper's: its groups have a name, and each line in them another."""
        return len(self.head) > 1 and not self.head[1]

    def lines(self) -> Iterator[tuple[_Field, ...]]:
        """All lines, one after the other."""
        for group in self.groups:
            yield from group


def _sheets(comparison: Comparison) -> Iterator[_Sheet]:
    for table in comparison.tables:
        yield _grid(table)
        if _filled(table):
            yield _details(table)
    if comparison.asides:
        yield _asides(comparison.asides)


def _filled(table: Table) -> list[tuple[Cell, Ours]]:
    return [(cell, cell.ours) for cell in table.cells if cell.ours is not None]


def _grid(table: Table) -> _Sheet:
    """The paper's table, each row as lines: published, ours, and the difference where there are ours."""
    paper = table.published
    numbers = itertools.count(1)  # of the lines of _details, which has the same order
    groups = []
    for row, heading in paper.rows.items():
        cells = [cell for cell in table.cells if cell.row == row]
        lines = [[_Field(heading.label if line == _LINES[0] else ""), _Field(line)] for line in _LINES]
        for cell in cells:
            lines[0].append(_Field(_with_sd(cell.published.value, cell.published.sd), "published", True))
            if cell.ours is None:
                lines[1].append(_Field("", "ours missing", True))
                lines[2].append(_Field("", "difference missing", True))
                continue
            ours, to = cell.ours, f"{paper.name}-{next(numbers)}"
            text = _with_sd(ours.mean, ours.sd) + (", shortened" if ours.shortened else "")
            lines[1].append(_Field(text, _role(ours), True, ours.shortened, to=to))
            lines[2].append(_Field(_number(ours.difference, signed=True), "difference", True))
        if all(cell.ours is None for cell in cells):
            del lines[2]
        groups.append(tuple(tuple(line) for line in lines))
    # the unit of the table stands in the corner, that of a column beside its name
    labels = [", ".join(filter(None, (column.label, column.unit))) for column in paper.columns.values()]
    return _Sheet(paper.name, paper.title, (paper.unit, "", *labels), tuple(groups), tuple(_notes(table)))


def _notes(table: Table) -> Iterator[str]:
    """What one must know to read a table."""
    paper = table.published
    runs = f"mean {_PLUS_MINUS} standard deviation over {paper.seeds} runs" if paper.seeds else "one value a cell"
    length = f", {paper.iterations:,} iterations" if paper.iterations else ""
    yield f"Test log-likelihood by {paper.n_importance:,} importance samples."
    yield f"Published: arXiv:1802.04920, {runs}{length}."
    better = f"Difference: ours {_MINUS} published. In nats, positive is better."
    if len(paper.units()) > 1:
        better += " In bits per dimension, which are the negative log-likelihood, negative is better."
    yield better
    if _filled(table):
        yield f"Ours: mean {_PLUS_MINUS} standard deviation over seeds, if there are several; [n] is the line below."


def _role(ours: Ours) -> str:
    return "ours shortened" if ours.shortened else "ours"


def _details(table: Table) -> _Sheet:
    """One line for each cell that has ours: how it came about."""
    paper = table.published
    of = f" of {paper.seeds}" if paper.seeds else ""
    lines = []
    for number, (cell, ours) in enumerate(_filled(table), start=1):
        half = ours.half_width or 0.0
        lines.append(
            (
                _Field(f"[{number}] {cell.label}", anchor=f"{paper.name}-{number}"),
                _Field(_with_sd(cell.published.value, cell.published.sd), "published", True),
                _Field(_with_sd(ours.mean, ours.sd), _role(ours), True),
                _Field(_number(ours.difference, signed=True), "difference", True),
                _Field(f"{len(ours.seeds)}{of} ({_listed(ours.seeds)})"),
                _Field("" if ours.iterations is None else f"{ours.iterations:,}", is_number=True),
                _Field(f"{ours.n_importance:,}", is_number=True),
                _Field(ours.device),
                _Field(f"{_PLUS_MINUS} {_number(half)}" if half >= _SHOWS else "", is_number=True),
                _Field("; ".join(([f"shortened: {ours.shortened}"] if ours.shortened else []) + [*ours.remarks])),
                _Field(", ".join(ours.sources)),
            )
        )
    head = (
        "cell",
        "published",
        "ours",
        "difference",
        "seeds",
        "iterations",
        "K",
        "device",
        "log Z",
        "not as published",
    )
    return _Sheet(
        f"{paper.name}-details",
        f"{paper.number}: where ours come from",
        (*head, "records"),
        (tuple(lines),),
        (f"log Z: half the bracket that ours rest on, where it is {_SHOWS:g} or more, in the unit of the cell.",),
    )


def _asides(asides: Sequence[Aside]) -> _Sheet:
    lines = []
    for aside in asides:
        record = aside.record
        lines.append(
            (
                _Field(record.source),
                _Field(_number(-record.negative_log_likelihood), "ours", True),
                _Field(f"{record.seed}", is_number=True),
                _Field("" if record.iterations is None else f"{record.iterations:,}", is_number=True),
                _Field(f"{record.n_importance:,}", is_number=True),
                _Field(f"{record.n_images:,}", is_number=True),
                _Field(record.device),
                _Field(shown(aside.why)),
            )
        )
    head = ("record", "log-likelihood, nats", "seed", "iterations", "K", "test images", "device", "why")
    return _Sheet("asides", "Records that stand in no table", head, (tuple(lines),))


def _lists(comparison: Comparison) -> Iterator[tuple[str, str, list[str]]]:
    """Name, heading and items of what is listed after the tables."""
    if comparison.waiting:
        yield "waiting", "Not evaluated yet", list(comparison.waiting)
    if comparison.problems:
        yield "problems", "Could not be used", [shown(problem) for problem in comparison.problems]


def _number(value: float, signed: bool = False) -> str:
    """Two decimals, as the paper has them, with a true minus sign."""
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", _MINUS)


def _with_sd(value: float, sd: float | None) -> str:
    return _number(value) if sd is None else f"{_number(value)} {_PLUS_MINUS} {_number(sd)}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _plain(value: Any) -> str:
    """A hyper-parameter's value; of a path only its last part, for reports travel."""
    if isinstance(value, int):
        return f"{value:,}"
    return shown(Path(value).name) if isinstance(value, str) else f"{value:g}"


# ---- renderings ------------------------------------------------------------------------------------------------------


def to_markdown(comparison: Comparison) -> str:
    """Turn a comparison into Markdown, its tables aligned."""
    lines: list[str] = []
    for sheet in _sheets(comparison):
        lines += [f"## {_markdown(sheet.caption)}", "", *_markdown_table(sheet), ""]
        for note in sheet.notes:
            lines += [_markdown(note), ""]
    for _, heading, items in _lists(comparison):
        lines += [f"## {heading}", "", *(f"- {_markdown(item)}" for item in items), ""]
    return "\n".join(lines)


def _markdown_table(sheet: _Sheet) -> Iterator[str]:
    texts = [[_markdown(text) for text in sheet.head]]
    texts += [[_markdown(str(field)) for field in line] for line in sheet.lines()]
    widths = [max(3, *(len(text) for text in column)) for column in zip(*texts, strict=True)]
    to_right = [field.is_number for field in next(sheet.lines())]

    def line(fields: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(fields, widths, to_right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    yield line(texts[0])
    yield line(["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, to_right, strict=True)])
    for fields in texts[1:]:
        yield line(fields)


def _markdown(text: str) -> str:
    """Text that Markdown, and the HTML in it, leaves as it is."""
    for character in "\\`*_[]|~#":
        text = text.replace(character, f"\\{character}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_html(comparison: Comparison) -> str:
    """Turn a comparison into a fragment of HTML: tables with captions and scopes, classes instead of styles.

    Classes  on fields: published, ours, difference, and with the latter two shortened or missing; on what surrounds
             them: paper-tables, scroll, notes, waiting, problems
    """
    parts = ['<div class="paper-tables">']
    for sheet in _sheets(comparison):
        parts += _html_table(sheet)
        if sheet.notes:
            parts.append(f'<p class="notes">{escape(" ".join(sheet.notes))}</p>')
    for name, heading, items in _lists(comparison):
        listed = "".join(f"<li>{escape(item)}</li>" for item in items)
        parts.append(f'<h3>{escape(heading)}</h3>\n<ul class="{name}">{listed}</ul>')
    return "\n".join([*parts, "</div>", ""])


def _html_table(sheet: _Sheet) -> Iterator[str]:
    caption = escape(sheet.caption)
    yield f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
    yield f'<table id="{sheet.name}"><caption>{caption}</caption>'
    head = "".join(f'<th scope="col">{escape(text)}</th>' if text else "<td></td>" for text in sheet.head)
    yield f"<thead><tr>{head}</tr></thead>"
    for group in sheet.groups:
        yield "<tbody>"
        for position, (first, second, *rest) in enumerate(group):
            if sheet.is_grid:
                start = f'<th scope="rowgroup" rowspan="{len(group)}">{escape(first.text)}</th>' if not position else ""
                start += f'<th scope="row">{escape(second.text)}</th>'
            else:
                start = f'<th scope="row"{_id(first)}>{escape(first.text)}</th>{_html_field(second)}'
            yield f"<tr>{start}{''.join(map(_html_field, rest))}</tr>"
        yield "</tbody>"
    yield "</table></div>"


def _id(field: _Field) -> str:
    return f' id="{field.anchor}"' if field.anchor else ""


def _html_field(field: _Field) -> str:
    text = escape(field.text)
    if field.to:
        text += f' <a href="#{field.to}">{field.number}</a>'
    if field.below:
        text += f" <small>{escape(field.below)}</small>"
    classes = " ".join(part for part in (field.role, "number" if field.is_number else "") if part)
    return f'<td class="{classes}">{text}</td>' if classes else f"<td>{text}</td>"


def to_rich(comparison: Comparison) -> RenderableType:
    """Turn a comparison into what a Rich console prints; texts stand as they are, nothing in them is markup.

    The paper's tables are tables; what has long texts in it is lines, for a terminal is narrow.
    """
    parts: list[RenderableType] = []
    for sheet in _sheets(comparison):
        if sheet.is_grid:
            parts.append(_rich_table(sheet))
        else:
            parts += [Text(sheet.caption, style="bold"), *(_rich_line(sheet.head, line) for line in sheet.lines())]
        parts += [*(Text(note, style="dim") for note in sheet.notes), Text()]
    for name, heading, items in _lists(comparison):
        parts += [Text(heading, style="bold red" if name == "problems" else "bold"), *map(Text, items), Text()]
    return Group(*parts)


def _rich_table(sheet: _Sheet) -> RichTable:
    table = RichTable(title=Text(sheet.caption), title_justify="left")
    for number, (text, *fields) in enumerate(zip(sheet.head, *sheet.lines(), strict=True)):
        justify: Literal["left", "right"] = "right" if fields[0].is_number else "left"
        table.add_column(Text(text), justify=justify, overflow="fold", no_wrap=number == 1)
    for group in sheet.groups:
        for line in group:
            table.add_row(*map(_rich_field, line), end_section=line is group[-1])
    return table


def _rich_line(head: Sequence[str], line: Sequence[_Field]) -> Text:
    """A line as text: its first field, then each of the others that is not empty after its name."""
    first, *rest = line
    named = [Text(f"{name}: ") + _rich_field(field) for name, field in zip(head[1:], rest, strict=True) if field.text]
    return Text("\n    ").join([_rich_field(first), *named])


def _rich_field(field: _Field) -> Text:
    return Text(str(field), style="yellow" if "shortened" in field.role else "")


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Turn a comparison into plain values; where a cell has no records, its ``ours`` is None."""
    return asdict(comparison)
