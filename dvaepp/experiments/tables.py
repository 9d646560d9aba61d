"""A TOML file of experiments -> a table of cells, each with its configuration.

The file's form is told by example: ``table1.toml``, beside this module.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dvaepp.config import Config, unknown
from dvaepp.errors import ConfigError

#: The tables that come with the package, by name.
PACKAGED = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}

_TABLE_KEYS = ("table", "title", "select", "config", "rows", "columns", "cells")
_ENTRY_KEYS = {"rows": ("config", "aliases", "extra"), "columns": ("config", "aliases", "extra", "select")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # also the name of a folder
_WILDCARDS = set("*?[")
_NOT_SETTINGS = ("seed", "experiment")  # a run's own


@dataclass(frozen=True, order=True)
class Cell:
    """A cell by the names of its row and column."""

    row: str
    column: str

    def __str__(self) -> str:
        return f"{self.row}/{self.column}"


@dataclass(frozen=True)
class Entry:
    """A row or a column; ``extra`` ones are beyond the paper."""

    config: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    extra: bool = False
    select: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Cells with their settings; ``cells`` holds what single cells have of their own."""

    name: str
    title: str
    config: Mapping[str, Any]
    select: Mapping[str, Sequence[Any]]
    rows: Mapping[str, Entry]
    columns: Mapping[str, Entry]
    cells: Mapping[Cell, Mapping[str, Any]]

    def all_cells(self) -> tuple[Cell, ...]:
        """Every cell, row by row."""
        return tuple(Cell(row, column) for row in self.rows for column in self.columns)

    def is_extra(self, cell: Cell) -> bool:
        """Whether a cell is beyond the paper."""
        return self.rows[cell.row].extra or self.columns[cell.column].extra

    def find(self, patterns: Sequence[str]) -> tuple[Cell, ...]:
        """The cells that patterns ROW/COLUMN name, in the table's order; no pattern: all that are not extra.

        Each part is a name, an alias, the beginning of exactly one name, or has wildcards as a shell's.

        Raises   ConfigError for a pattern that names no cell, with the nearest name, or could mean several.
        """
        if not patterns:
            return tuple(cell for cell in self.all_cells() if not self.is_extra(cell))
        found = {cell for pattern in patterns for cell in self._matching(pattern)}
        return tuple(cell for cell in self.all_cells() if cell in found)

    def _matching(self, pattern: str) -> Iterator[Cell]:
        row, slash, column = pattern.partition("/")
        if not slash or "/" in column:
            raise ConfigError(f"--cell must be ROW/COLUMN; got {pattern!r}  (--list shows the cells of {self.name})")
        rows, columns = (
            _named(part, entries, f"{what} of {self.name}")
            for part, entries, what in ((row, self.rows, "row"), (column, self.columns, "column"))
        )
        yield from itertools.starmap(Cell, itertools.product(rows, columns))

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What the file says of a cell: the table's settings, its row's, its column's, its own."""
        row, column, own = self.rows[cell.row], self.columns[cell.column], self.cells.get(cell, {})
        return {**self.config, **row.config, **column.config, **own}

    def resolve(self, cell: Cell, settings: Mapping[str, Any], seed: int = 0) -> Config:
        """The configuration of a cell and a seed.

        Raises   ConfigError for settings that do not go together.
        """
        experiment = {"table": self.name, "row": cell.row, "column": cell.column}
        nested: dict[str, Any] = {"seed": seed, "experiment": experiment}
        for name, value in settings.items():
            nested.setdefault(_SECTIONS[name], {})[name] = value
        try:
            return Config.from_dict(nested)
        except ConfigError as error:
            raise ConfigError(f"{self.name}, {cell}: {error}") from None

    def candidates(self, cell: Cell, fixed: Iterable[str] = ()) -> list[dict[str, Any]]:
        """All combinations of what is to be selected for a cell, but for names that are ``fixed``."""
        lists = {**self.select, **self.columns[cell.column].select}
        open_lists = {name: values for name, values in lists.items() if name not in fixed}
        return [dict(zip(open_lists, values, strict=True)) for values in itertools.product(*open_lists.values())]


def load(name_or_path: str) -> Table:
    """Read a table that comes with the package, by name, or your own, by path.

    Raises   ConfigError, one line, for an unknown name, for what cannot be read, and for names or values in the file
             that mean nothing; every cell is resolved.
    """
    if name_or_path in PACKAGED:
        path = PACKAGED[name_or_path]
    elif name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    else:
        raise ConfigError(f"{unknown('table', name_or_path, PACKAGED)}  (known: {', '.join(PACKAGED)}, or FILE.toml)")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # of TOML and of UTF-8
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    try:
        table = _table(content, path.stem)
        for cell in table.all_cells():
            for candidate in table.candidates(cell):
                table.resolve(cell, {**table.settings(cell), **candidate})
            table.resolve(cell, table.settings(cell))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return table


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE as the command line has it -> the name and its value, typed by the configuration.

    Raises   ConfigError for an unknown name, with the nearest one, and for a value of another type.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set must be NAME=VALUE; got {text!r}")
    _known(name, "--set")
    annotation = _TYPES[name]
    if "None" in annotation and value.lower() == "none":
        return name, None
    if annotation.split(" ")[0] not in ("int", "float", "bool"):
        return name, value
    try:
        return name, tomllib.loads(f"value = {value}")["value"]  # its type is seen when a cell is resolved
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"--set {name} must be of type {annotation}; got {value!r}") from None


# ---- the file --------------------------------------------------------------------------------------------------------


def _sections() -> Iterator[tuple[str, str, str]]:
    """(section, name, type) of every hyper-parameter."""
    default = Config()
    for section in dataclasses.fields(Config):
        if section.name not in _NOT_SETTINGS:
            for entry in dataclasses.fields(getattr(default, section.name)):
                yield section.name, entry.name, str(entry.type)


_SECTIONS = {name: section for section, name, _ in _sections()}
_TYPES = {name: annotation for _, name, annotation in _sections()}


def _known(name: str, where: str) -> None:
    if name not in _SECTIONS:
        raise ConfigError(f"{where}: {unknown('hyper-parameter', name, _SECTIONS)}")


def _table(content: Mapping[str, Any], default_name: str) -> Table:
    _only(content, _TABLE_KEYS, "the file")
    name = content.get("table", default_name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"table must be a name of letters, digits and -_.; got {name!r}")
    rows, columns = (_entries(content, what) for what in ("rows", "columns"))
    cells = {}
    for text, settings in _mapping(content.get("cells", {}), "cells").items():
        row, _, column = text.partition("/")
        if row not in rows or column not in columns:
            known = [f"{row}/{column}" for row in rows for column in columns]
            raise ConfigError(f"cells: {unknown('cell', text, known)}")
        cells[Cell(row, column)] = _settings(settings, f"cells.{text}")
    title = content.get("title", name)
    if not isinstance(title, str):
        raise ConfigError(f"title must be a text; got {title!r}")
    config, select = _settings(content.get("config", {}), "config"), _select(content.get("select", {}), "select")
    return Table(name, title, config, select, rows, columns, cells)


def _entries(content: Mapping[str, Any], what: str) -> dict[str, Entry]:
    """The rows or the columns of a file."""
    entries: dict[str, Entry] = {}
    for name, values in _mapping(content.get(what, {}), what).items():
        where = f"{what}.{name}"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: a name has letters, digits and -_. only")
        _only(_mapping(values, where), _ENTRY_KEYS[what], where)
        aliases, extra = values.get("aliases", []), values.get("extra", False)
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            raise ConfigError(f"{where}.aliases must be a list of names; got {aliases!r}")
        if not isinstance(extra, bool):
            raise ConfigError(f"{where}.extra must be true or false; got {extra!r}")
        config = _settings(values.get("config", {}), f"{where}.config")
        entries[name] = Entry(config, tuple(aliases), extra, _select(values.get("select", {}), f"{where}.select"))
    if not entries:
        raise ConfigError(f"it has no {what}")
    names = [*entries, *(alias for entry in entries.values() for alias in entry.aliases)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{what}: {name!r} names two of them")
    return entries


def _settings(values: Any, where: str) -> dict[str, Any]:
    for name in _mapping(values, where):
        _known(name, where)
    return dict(values)


def _select(values: Any, where: str) -> dict[str, list[Any]]:
    for name, candidates in _settings(values, where).items():
        if not isinstance(candidates, list) or not candidates:
            raise ConfigError(f"{where}.{name} must be a list of values to choose among; got {candidates!r}")
    return dict(values)


def _mapping(values: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table of names and values; got {values!r}")
    return values


def _only(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}: {unknown('key', name, known)}")


def _named(part: str, entries: Mapping[str, Entry], what: str) -> list[str]:
    """The rows or columns that one part of a pattern names."""
    if part in entries:
        return [part]
    if alias := [name for name, entry in entries.items() if part in entry.aliases]:
        return alias
    if set(part) & _WILDCARDS:
        found = [name for name in entries if fnmatchcase(name, part)]
    else:
        found = [name for name in entries if part and name.startswith(part)]
        if len(found) > 1:
            raise ConfigError(f"{part!r} could be each of the {what}: {', '.join(found)}; write more, or {part}*")
    if not found:
        raise ConfigError(f"{unknown(what, part, entries)}  (--list shows them)")
    return found
