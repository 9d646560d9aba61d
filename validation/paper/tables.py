"""The paper's Tables 1 to 3 with ours beside the published values: from records to Markdown, HTML, a terminal, JSON.

A cell shows the mean over the seeds of *one* set of records, all made alike: same iterations, importance samples, test
images and hyper-parameters. Where there are several sets, the one nearest to the published protocol is shown and the
others are listed, as is every record that belongs to no cell: nothing that was read goes unmentioned. What goes beyond
the paper (rows and columns without published values) is shown where there is a record of it. Records of other images
than the cell's stand in it, but no difference to the published value is taken.
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
from scipy.special import stdtrit

from dvaepp.config import CellConfig, unknown
from validation.paper.records import Problem, Record, Records, shown

PUBLISHED = Path(__file__).parent / "published.toml"

_MINUS, _PLUS_MINUS = "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}"
#: What stands where there is nothing to show: no published value, no difference to take.
_NONE = "\N{EN DASH}"
#: Between a method and the next best one: by how much it is better.
_BEYOND, _WITHIN, _UNKNOWN = ">", "\N{ALMOST EQUAL TO}", "\N{GREATER-THAN OR EQUIVALENT TO}"
#: Half a bracket of log Z from which on it shows in two decimals.
_SHOWS = 0.005
_LINES = ("published", "ours", "difference")
#: Columns that a terminal shows beside each other, not counting the names of the lines.
_WIDEST = 6


@dataclass(frozen=True)
class Substitute:
    """A data set that stands in for a published one: which, how to say so, and the size of its test set."""

    of: str
    words: str
    test_images: int


SUBSTITUTES = {"omniglot-substitute": Substitute("omniglot", "OMNIGLOT substitute instead of OMNIGLOT", 8_115)}


@dataclass(frozen=True)
class Value:
    """A published value and its standard deviation over runs, where there is one."""

    value: float
    sd: float | None = None


@dataclass(frozen=True)
class Heading:
    """A row or a column of a table; ``printed`` is its name in the paper. ``config``, ``protocol``: see the file."""

    label: str
    printed: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
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
    rows: Mapping[str, Heading]
    columns: Mapping[str, Heading]
    values: Mapping[str, Mapping[str, Value]]
    config: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    methods: Literal["", "columns"] = ""
    seeds: int | None = None
    iterations: int | None = None

    @property
    def number(self) -> str:
        """Its name in words, as "Table 2"."""
        return self.title.partition(":")[0]

    def label(self, row: str, column: str) -> str:
        """A cell in words."""
        return f"{self.rows[row].label}, {self.columns[column].label}"

    def value(self, row: str, column: str) -> Value | None:
        """What was published of a cell; None where it is beyond the paper."""
        return self.values.get(row, {}).get(column)

    def paper_rows(self) -> tuple[str, ...]:
        """The rows that are the paper's."""
        return tuple(row for row in self.rows if row in self.values)

    def paper_columns(self) -> tuple[str, ...]:
        """The columns that are the paper's."""
        return tuple(column for column in self.columns if any(column in cells for cells in self.values.values()))

    def config_of(self, row: str, column: str) -> dict[str, Any]:
        """The hyper-parameters that make a run one of a cell."""
        return {**self.config, **self.rows[row].config, **self.columns[column].config}

    def protocol_of(self, row: str, column: str) -> dict[str, Any]:
        """The other published hyper-parameters of a cell, as far as they are published."""
        return {**self.protocol, **self.rows[row].protocol, **self.columns[column].protocol}

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
    bracket of log Z. ``weights_of`` are the iterations whose weights were tested. ``shortened`` says by how much the
    runs are shorter than published, ``incomparable`` which other images they are of, ``remarks`` what else is not as
    published. ``difference`` is None where nothing was published of these images.

    Units    the cell's
    """

    mean: float
    sd: float | None
    difference: float | None
    seeds: tuple[int, ...]
    iterations: int | None
    weights_of: tuple[int, ...]
    n_importance: int
    n_images: int
    device: str
    half_width: float | None
    shortened: str
    incomparable: str
    remarks: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what was published, and what is ours, where there is any."""

    row: str
    column: str
    label: str
    unit: str
    published: Value | None
    ours: Ours | None


@dataclass(frozen=True)
class Aside:
    """A record that stands in no table, and why."""

    record: Record
    why: str


@dataclass(frozen=True)
class Order:
    """The methods of a row, the best first: the paper's, of those that are ours, too; and ours, with those beyond.

    ``pairs`` counts the pairs of methods in both, ``agreeing`` those that are in the same order. ``reversed`` names
    those that are in the other order by more than the noise in both. ``remark`` says what else keeps them apart.
    """

    row: str
    label: str
    published: str
    ours: str
    pairs: int
    agreeing: int
    reversed: tuple[str, ...]
    remark: str

    def __str__(self) -> str:
        text = f"{self.label}: paper {self.published}; ours {self.ours}" if self.pairs else f"{self.label}: {self.ours}"
        if self.pairs:
            text += f"; {self.agreeing} of {_counted(self.pairs, 'pair')} as published"
        if self.reversed:
            text += f"; reversed beyond the noise: {', '.join(self.reversed)}"
        return text + (f"; {self.remark}" if self.remark else "")


@dataclass(frozen=True)
class Table:
    """One of the paper's tables with ours beside it; cells in the paper's order, row by row.

    ``rows`` and ``columns`` are those that are shown: the paper's, and beyond them those with records. ``orders`` has
    the rows with two methods of ours or more.
    """

    published: Published
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    orders: tuple[Order, ...]


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
        ours: dict[tuple[str, str], Ours] = {}
        for (name, row, column), found in placed.items():
            if name == table.name:
                ours[row, column], others = _ours(table, row, column, found)
                asides += others
        filled.append(_table(table, ours))
    return Comparison(tuple(filled), tuple(asides), records.waiting, tuple(problems))


def _table(table: Published, ours: Mapping[tuple[str, str], Ours]) -> Table:
    """A table of what was published and what is ours, without the rows and columns that have neither."""
    rows = tuple(key for key in table.rows if key in {*table.paper_rows(), *(row for row, _ in ours)})
    columns = tuple(key for key in table.columns if key in {*table.paper_columns(), *(column for _, column in ours)})
    cells = tuple(
        Cell(
            row,
            column,
            table.label(row, column),
            table.columns[column].unit or table.unit,
            table.value(row, column),
            ours.get((row, column)),
        )
        for row in rows
        for column in columns
    )
    return Table(table, rows, columns, cells, tuple(_orders(table, cells)))


def _place(record: Record) -> tuple[CellConfig | None, str]:
    """The cell of a record, or why it has none.

    A record that names none is put where its configuration belongs; of several such cells, to the one whose protocol is
    the nearest.

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
    wanted = {
        (table.name, row, column): table.config_of(row, column)
        for table in published().values()
        for row in table.rows
        for column in table.columns
        if table.rows[row].config and table.columns[column].config  # others are not told apart by a configuration
    }
    differences = {at: _deviations(config, _as_published(record.config)) for at, config in wanted.items()}

    def nearness(at: tuple[str, str, str]) -> tuple[int, ...]:
        """Smaller for a nearer cell; of cells that differ in as much, the one that agrees in more."""
        protocol = published()[at[0]].protocol_of(*at[1:])
        return len(differences[at]), -len(wanted[at]), len(_deviations(protocol, record.config))

    nearest = min(differences, key=nearness)
    if not differences[nearest]:
        return CellConfig(*nearest), ""
    table = published()[nearest[0]]
    where = f"{table.label(*nearest[1:])} of {table.number}"
    return None, f"of no cell; the nearest is {where}, but {'; '.join(differences[nearest])}"


def _as_published(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration as if its images were those that they stand in for."""
    substitute = SUBSTITUTES.get(config["data"])
    return config if substitute is None else {**config, "data": substitute.of}


def _deviations(wanted: Mapping[str, Any], stated: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a configuration is not as wanted, in words."""
    found = []
    for name, value in wanted.items():
        if name not in stated:
            found.append(f"{name} is not stated")
        elif stated[name] != value:
            found.append(f"{name} {_plain(stated[name])} instead of {_plain(value)}")
    return tuple(found)


def _ours(table: Published, row: str, column: str, records: Sequence[Record]) -> tuple[Ours, list[Aside]]:
    """What a cell shows of its records, one at least, and the ones it does not show."""
    config = table.config_of(row, column)
    images = config.pop("data", None)
    config |= table.protocol_of(row, column)
    alike: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        stated = record.config["data"]
        key = (
            "" if images in (None, stated) else stated,
            record.iterations,
            record.n_importance,
            record.n_images,
            _deviations(config, record.config),
        )
        alike.setdefault(key, []).append(record)

    def nearness(key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Larger for records nearer to the published protocol; the order is that of how much each matters."""
        other_images, iterations, n_importance, n_images, deviations = key
        return (
            not other_images,
            min(iterations or 0, table.iterations or math.inf),
            n_images == _test_images(table, row, column, other_images),
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
    other_images, iterations, n_importance, n_images, deviations = best
    test_images = _test_images(table, row, column, other_images)
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
    value = table.value(row, column)
    return (
        Ours(
            mean=mean,
            sd=statistics.stdev(values) if len(values) > 1 else None,
            difference=None if value is None or other_images else mean - value.value,
            seeds=tuple(record.seed for record in chosen),
            iterations=iterations,
            weights_of=tuple(record.weights_of_step for record in chosen if record.weights_of_step is not None),
            n_importance=n_importance,
            n_images=n_images,
            device="; ".join(dict.fromkeys(record.device for record in chosen if record.device)),
            half_width=max(widths) * table.columns[column].per_nat if widths else None,
            shortened=shortened,
            incomparable=_incomparable(other_images, images),
            remarks=tuple(remarks),
            sources=tuple(record.source for record in chosen),
        ),
        asides,
    )


def _incomparable(other_images: str, images: str) -> str:
    """Which images stand in for a cell's; nothing if they are its own."""
    if not other_images:
        return ""
    substitute = SUBSTITUTES.get(other_images)
    if substitute is not None and substitute.of == images:
        return f"{substitute.words}: not comparable"
    return f"data {_plain(other_images)} instead of {images}: not comparable"


def _test_images(table: Published, row: str, column: str, other_images: str) -> int | None:
    """How many images a whole test set has: that of the cell, or of the other images; None where it is not known."""
    if not other_images:
        return table.test_images(row, column)
    return SUBSTITUTES[other_images].test_images if other_images in SUBSTITUTES else None


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


# ---- the order of the methods ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Score:
    """A method's result in a row, the larger the better; ``sd`` is over ``n_runs``, None if it is not known.

    ``half_width`` is that of the bracket of log Z, by which it may be off in either direction.
    """

    name: str
    value: float
    sd: float | None
    n_runs: int
    half_width: float = 0.0

    def over(self, other: _Score) -> str:
        """By how much it is better than a worse one: Welch's t test at 95 %, beyond the brackets of log Z.

        Source   B. L. Welch, Biometrika 34, 1947, with Satterthwaite's degrees of freedom
        """
        margin = self.value - other.value - self.half_width - other.half_width
        if self.sd is None or other.sd is None:
            return _UNKNOWN if margin > 0 else _WITHIN
        squares = [score.sd**2 / score.n_runs for score in (self, other) if score.sd]
        if not squares:
            return _BEYOND if margin > 0 else _WITHIN
        spread = sum(((score.sd or 0.0) ** 2 / score.n_runs) ** 2 / (score.n_runs - 1) for score in (self, other))
        degrees = sum(squares) ** 2 / spread
        return _BEYOND if margin > stdtrit(degrees, 0.975) * math.sqrt(sum(squares)) else _WITHIN


def _orders(table: Published, cells: Sequence[Cell]) -> Iterator[Order]:
    """The order of the methods in every row that has two of ours."""
    if table.methods != "columns":
        return
    for row, group in itertools.groupby(cells, key=lambda cell: cell.row):
        both = [(cell, cell.ours) for cell in group if cell.ours is not None]
        if len(both) < 2:
            continue
        ours = {
            cell.column: _Score(
                table.columns[cell.column].label, one.mean, one.sd, len(one.seeds), one.half_width or 0.0
            )
            for cell, one in both
        }
        papers = {
            cell.column: _Score(
                table.columns[cell.column].label,
                cell.published.value,
                cell.published.sd,
                table.seeds or 1,
            )
            for cell, _ in both
            if cell.published is not None
        }
        pairs = list(itertools.combinations(papers, 2))
        # in the paper's order, the better one first; equal ones count as agreeing with neither
        ranked = [sorted(pair, key=lambda column: -papers[column].value) for pair in pairs]
        agreeing = [
            ours[better].value > ours[worse].value and papers[better].value > papers[worse].value
            for better, worse in ranked
        ]
        yield Order(
            row=row,
            label=table.rows[row].label,
            published=_chain(papers.values()),
            ours=_chain(ours.values()),
            pairs=len(pairs),
            agreeing=sum(agreeing),
            reversed=tuple(
                f"{ours[worse].name} over {ours[better].name}"
                for better, worse in ranked
                if papers[better].over(papers[worse]) == ours[worse].over(ours[better]) == _BEYOND
            ),
            remark=_caveats([one for _, one in both]),
        )


def _chain(scores: Iterable[_Score]) -> str:
    """Methods from the best to the worst, with what is between neighbours."""
    ranked = sorted(scores, key=lambda score: -score.value)
    links = [f"{better.over(worse)} {worse.name}" for better, worse in itertools.pairwise(ranked)]
    return " ".join([score.name for score in ranked[:1]] + links)


def _caveats(ours: Sequence[Ours]) -> str:
    """Why an order need not be the paper's, and in what the runs differ, so that it is not of the methods alone."""
    facts: dict[str, set[Any]] = {
        "iterations": {one.iterations for one in ours},
        "K": {one.n_importance for one in ours},
        "test images": {(one.n_images, one.incomparable) for one in ours},
    }
    remarks = []
    if any(one.shortened for one in ours):
        remarks.append("ours shortened")
    if any(one.incomparable for one in ours):
        remarks.append("ours of other data")
    if differing := [name for name, values in facts.items() if len(values) > 1]:
        remarks.append(f"our runs differ in {', '.join(differing)}")
    return "; ".join(remarks)


# ---- what the renderings share ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One field of a sheet: its text, its classes in HTML, whether it is a number, what HTML says below it."""

    text: str
    role: str = ""
    is_number: bool = False
    below: tuple[str, ...] = ()
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
    orders: tuple[str, ...] = ()

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
    for row in table.rows:
        cells = [cell for cell in table.cells if cell.row == row]
        lines = [[_Field(paper.rows[row].label if line == _LINES[0] else ""), _Field(line)] for line in _LINES]
        for cell in cells:
            lines[0].append(_published_field(cell))
            if cell.ours is None:
                lines[1].append(_Field("", "ours missing", True))
                lines[2].append(_Field("", "difference missing", True))
                continue
            ours, to = cell.ours, f"{paper.name}-{next(numbers)}"
            marks = (", shortened" if ours.shortened else "") + (", other data" if ours.incomparable else "")
            below = tuple(filter(None, (ours.shortened, ours.incomparable)))
            lines[1].append(_Field(_with_sd(ours.mean, ours.sd) + marks, _role(ours), True, below, to=to))
            lines[2].append(_difference_field(ours))
        if all(cell.ours is None for cell in cells):
            del lines[2]
        groups.append(tuple(tuple(line) for line in lines))
    # the unit of the table stands in the corner, that of a column beside its name
    headings = [paper.columns[column] for column in table.columns]
    labels = [", ".join(filter(None, (heading.label, heading.unit))) for heading in headings]
    return _Sheet(
        paper.name,
        paper.title,
        (paper.unit, "", *labels),
        tuple(groups),
        tuple(_notes(table)),
        tuple(map(str, table.orders)),
    )


def _published_field(cell: Cell) -> _Field:
    if cell.published is None:
        return _Field(_NONE, "published missing", True)
    return _Field(_with_sd(cell.published.value, cell.published.sd), "published", True)


def _difference_field(ours: Ours) -> _Field:
    if ours.difference is None:
        return _Field(_NONE, "difference missing", True)
    return _Field(_number(ours.difference, signed=True), "difference", True)


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
    if any(ours.difference is None for _, ours in _filled(table)):
        yield f"{_NONE}: not published, or no difference that would mean anything."
    if any(ours.incomparable for _, ours in _filled(table)):
        yield "Other data: of other images than the published values, which they do not reproduce."
    if table.orders:
        yield (
            f"Orders: the best first, each beside the next best. A {_BEYOND} B: better by more than the noise over the "
            f"seeds (Welch's t, 95 %) and the brackets of log Z; A {_WITHIN} B: by less; A {_UNKNOWN} B: by more than "
            "the brackets, but one has a single seed, so that the noise is not known."
        )


def _role(ours: Ours) -> str:
    return "ours" + (" shortened" if ours.shortened else "") + (" incomparable" if ours.incomparable else "")


def _details(table: Table) -> _Sheet:
    """One line for each cell that has ours: how it came about."""
    paper = table.published
    of = f" of {paper.seeds}" if paper.seeds else ""
    lines = []
    for number, (cell, ours) in enumerate(_filled(table), start=1):
        half = ours.half_width or 0.0
        marks = ([f"shortened: {ours.shortened}"] if ours.shortened else []) + list(filter(None, (ours.incomparable,)))
        lines.append(
            (
                _Field(f"[{number}] {cell.label}", anchor=f"{paper.name}-{number}"),
                _published_field(cell),
                _Field(_with_sd(ours.mean, ours.sd), _role(ours), True),
                _difference_field(ours),
                _Field(f"{len(ours.seeds)}{of} ({_listed(ours.seeds)})"),
                _Field("" if ours.iterations is None else f"{ours.iterations:,}", is_number=True),
                _Field("; ".join(f"{step:,}" for step in dict.fromkeys(ours.weights_of)), is_number=True),
                _Field(f"{ours.n_importance:,}", is_number=True),
                _Field(ours.device),
                _Field(f"{_PLUS_MINUS} {_number(half)}" if half >= _SHOWS else "", is_number=True),
                _Field("; ".join([*marks, *ours.remarks])),
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
        "weights of",
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
        (
            f"log Z: half the bracket that ours rest on, where it is {_SHOWS:g} or more, in the unit of the cell.",
            "Weights of: the iteration whose weights were tested.",
        ),
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


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _plain(value: Any) -> str:
    """A hyper-parameter's value; of a path only its last part, for reports travel."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
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
        if sheet.orders:
            lines += [*(f"- {_markdown(order)}" for order in sheet.orders), ""]
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

    Classes  on fields: published, ours, difference, and with these shortened, incomparable or missing; on what
             surrounds them: paper-tables, scroll, notes, orders, waiting, problems
    """
    parts = ['<div class="paper-tables">']
    for sheet in _sheets(comparison):
        parts += _html_table(sheet)
        if sheet.notes:
            parts.append(f'<p class="notes">{escape(" ".join(sheet.notes))}</p>')
        if sheet.orders:
            parts.append(_html_list("orders", sheet.orders))
    for name, heading, items in _lists(comparison):
        parts.append(f"<h3>{escape(heading)}</h3>\n{_html_list(name, items)}")
    return "\n".join([*parts, "</div>", ""])


def _html_list(name: str, items: Sequence[str]) -> str:
    return f'<ul class="{name}">{"".join(f"<li>{escape(item)}</li>" for item in items)}</ul>'


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
    for line in field.below:
        text += f"<div><small>{escape(line)}</small></div>"
    classes = " ".join(part for part in (field.role, "number" if field.is_number else "") if part)
    return f'<td class="{classes}">{text}</td>' if classes else f"<td>{text}</td>"


def to_rich(comparison: Comparison) -> RenderableType:
    """Turn a comparison into what a Rich console prints; texts stand as they are, nothing in them is markup.

    The paper's tables are tables; what has long texts in it is lines, for a terminal is narrow.
    """
    parts: list[RenderableType] = []
    for sheet in _sheets(comparison):
        if sheet.is_grid:
            parts += _rich_tables(sheet)
        else:
            parts += [Text(sheet.caption, style="bold"), *(_rich_line(sheet.head, line) for line in sheet.lines())]
        parts += [*(Text(note, style="dim") for note in sheet.notes), *map(Text, sheet.orders), Text()]
    for name, heading, items in _lists(comparison):
        parts += [Text(heading, style="bold red" if name == "problems" else "bold"), *map(Text, items), Text()]
    return Group(*parts)


def _rich_tables(sheet: _Sheet) -> Iterator[RichTable]:
    """A grid, columns that are too many for a terminal below each other; rows that have nothing there are left out."""
    for start in range(2, len(sheet.head), _WIDEST):
        shown_columns = [0, 1, *range(start, min(start + _WIDEST, len(sheet.head)))]
        groups = [[[line[column] for column in shown_columns] for line in group] for group in sheet.groups]
        if start > 2:
            groups = [
                group for group in groups if any(field.text not in ("", _NONE) for line in group for field in line[2:])
            ]
        caption = sheet.caption if start == 2 else f"{sheet.caption.partition(':')[0]}, continued"
        yield _rich_table(caption, [sheet.head[column] for column in shown_columns], groups)


def _rich_table(caption: str, head: Sequence[str], groups: Sequence[Sequence[Sequence[_Field]]]) -> RichTable:
    table = RichTable(title=Text(caption), title_justify="left")
    lines = [line for group in groups for line in group]
    for number, (text, *fields) in enumerate(zip(head, *lines, strict=True)):
        justify: Literal["left", "right"] = "right" if fields[0].is_number else "left"
        table.add_column(Text(text), justify=justify, overflow="fold", no_wrap=number == 1)
    for group in groups:
        for line in group:
            table.add_row(*map(_rich_field, line), end_section=line is group[-1])
    return table


def _rich_line(head: Sequence[str], line: Sequence[_Field]) -> Text:
    """A line as text: its first field, then each of the others that is not empty after its name."""
    first, *rest = line
    named = [Text(f"{name}: ") + _rich_field(field) for name, field in zip(head[1:], rest, strict=True) if field.text]
    return Text("\n    ").join([_rich_field(first), *named])


def _rich_field(field: _Field) -> Text:
    return Text(str(field), style="yellow" if {"shortened", "incomparable"} & set(field.role.split()) else "")


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Turn a comparison into plain values; where a cell has no records, its ``ours`` is None."""
    return asdict(comparison)
