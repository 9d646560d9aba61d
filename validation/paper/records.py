"""Records of runs, as ``dvaepp`` and ``benchmarks.record`` leave them: what was trained, and what its test gave.

A *record* is one test of one run: a run tested with two numbers of importance samples gives two. What cannot be used is
named, in one line each, and the rest is read.
"""

from __future__ import annotations

import json
import reprlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvaepp.config import CellConfig, Config
from dvaepp.data.files import reason
from dvaepp.errors import ConfigError
from dvaepp.run_folder import RunFolder

#: Where ``dvaepp.train`` puts runs, and the files of a run folder that are read here.
RUNS = Path("runs")
_CONFIG, _ENVIRONMENT, _EVALUATIONS = "config.json", "environment.json", "evaluation-*.json"
#: No number of nats and no count in a record is as large as these.
_TOO_LARGE, _TOO_MANY = 1e12, 2**63
#: Files that only a run leaves: a folder with one of them is meant as a run folder.
_TRACES = ("metrics.jsonl", "checkpoint.safetensors", "best.safetensors", _ENVIRONMENT)


@dataclass(frozen=True)
class Record:
    """One test of one run.

    ``config`` holds the hyper-parameters of the run by name; what it does not state is as ``dvaepp.config`` has it by
    default. ``experiment`` is the cell it was made for, if it says so. ``iterations`` are those trained (None: not
    known), ``weights_of_step`` is the one whose weights were tested, ``half_width`` half the bracket of log Z (None:
    the prior has none), ``consistent`` whether its two ends agree.

    Units    nats
    """

    source: str
    config: Mapping[str, Any]
    experiment: CellConfig | None
    seed: int
    iterations: int | None
    device: str
    n_images: int
    n_importance: int
    negative_log_likelihood: float
    weights_of_step: int | None = None
    test_seed: int | None = None
    half_width: float | None = None
    consistent: bool = True


@dataclass(frozen=True)
class Problem:
    """What could not be used, and why."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True)
class Records:
    """All that was found: records, runs that were not tested yet, and what could not be used."""

    records: tuple[Record, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def read(paths: Sequence[Path] = ()) -> Records:
    """Read run folders, folders of such, and record files; no path given: ``runs``, if it is there.

    Folders are searched to any depth; of links to folders only run folders are followed. A folder that is reached
    twice is read once. Files of others are passed over in a folder, but not when they are named.

    Raises   ConfigError for a path that does not exist.
    """
    reader = _Reader()
    for path in paths or ([RUNS] if RUNS.is_dir() else []):
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"runs must be folders or record files that exist; {shown(path)}: {reason(error)}"
            ) from error
        if stat.S_ISDIR(mode):
            reader.folder(path)
        else:
            reader.file(path, named=True)
    return Records(tuple(reader.records), tuple(reader.waiting), tuple(reader.problems))


def shown(text: object) -> str:
    """Text of a file or its name, fit to print: whatever does not print, line breaks among it, is replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))


class _Unusable(Exception):
    """What is wrong with a file, in one line."""


class _Reader:
    """Collects while it walks."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.waiting: list[str] = []
        self.problems: list[Problem] = []
        self._seen: set[tuple[int, int]] = set()

    def folder(self, path: Path, linked: bool = False) -> None:
        """Read a run folder, or what lies in a folder that is none."""
        try:
            names = sorted(path.iterdir())
            is_run = (path / _CONFIG).is_file()
            identity = _identity(path)
        except OSError as error:
            self._problem(path, f"cannot be read: {reason(error)}")
            return
        if identity in self._seen:
            return
        if linked and not is_run:
            self._problem(path, "a link to a folder that is no run; name the folder itself to have it read")
            return
        self._seen.add(identity)
        traces = [name.name for name in names if name.name in _TRACES or name.match(_EVALUATIONS)]
        if _is_left_over(path):
            self._problem(path, "left over from a run that was stopped while it began; it can be removed")
        elif is_run:
            self._run(path, [name for name in names if name.match(_EVALUATIONS)])
        elif traces:
            self._problem(path, f"half a run folder: it has {traces[0]}, but no {_CONFIG}")
        else:
            for name in names:
                self._entry(name)

    def _entry(self, path: Path) -> None:
        """Something in a folder of runs; hidden things are no business of ours."""
        if path.name.startswith(".") and not _is_left_over(path):
            return
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            self._problem(path, f"cannot be read: {reason(error)}")
            return
        if is_folder:
            self.folder(path, linked=path.is_symlink())
        elif path.suffix == ".json" and not path.name.startswith("."):
            self.file(path, named=False)

    def file(self, path: Path, named: bool) -> None:
        """Read a record file; one that is not even meant as a record is passed over unless it was named."""
        try:
            if (identity := _identity(path)) in self._seen:
                return
            self._seen.add(identity)
            content = _json(path)
        except OSError as error:
            self._problem(path, f"cannot be read: {reason(error)}")
            return
        except _Unusable as error:
            self._problem(path, str(error))
            return
        if isinstance(content, dict) and isinstance(content.get("runs"), list):
            for index, one in enumerate(content["runs"]):
                self._recorded(path, f", run {index}", one, named=True)
        else:
            self._recorded(path, "", content, named)

    def _recorded(self, path: Path, which: str, content: Any, named: bool) -> None:
        """Read what a record file says of one run, ``which`` of them if there are several."""
        source = f"{shown(path)}{which}"
        try:
            parts = {"config", "evaluations"} & set(content if isinstance(content, dict) else ())
            if not parts and not named:
                return
            if len(parts) < 2:
                raise _Unusable("is no record of a run: it must hold config and evaluations")
            config = _mapping(content, "config")
            environment = content.get("environment")
            named_cell = {} if content.get("experiment") is None else {"experiment": content["experiment"]}
            facts = _facts({**config, **named_cell}, content.get("iterations"), environment)
            if not isinstance(content["evaluations"], list):
                raise _Unusable("evaluations must be a list")
            if environment is not None and not isinstance(environment, dict):
                raise _Unusable("environment must be a table of names and values")
        except _Unusable as error:
            self.problems.append(Problem(source, shown(error)))
            return
        if not content["evaluations"]:
            self.waiting.append(source)
        for evaluation in content["evaluations"]:
            self._evaluation(path, source, facts, evaluation)

    def _run(self, path: Path, evaluations: Sequence[Path]) -> None:
        """Read a run folder."""
        if not evaluations:
            self.waiting.append(shown(path))
        found = []
        for file in evaluations:
            try:
                found.append((file, _json(file)))
            except _Unusable as error:
                self._problem(file, str(error))
        # a run may have gone on since it was tested: its metrics are asked only for what its tests leave unsaid
        silent = any(not isinstance(one, dict) or one.get("iterations") is None for _, one in found)
        iterations = self._iterations(path) if silent else None
        environment = self._environment(path) if evaluations else None
        try:
            config = _json(path / _CONFIG)
            if not isinstance(config, dict):
                raise _Unusable("must be a table of names and values")
            facts = _facts(config, iterations, environment)
        except _Unusable as error:
            self._problem(path / _CONFIG, str(error))
            return
        for file, evaluation in found:
            self._evaluation(file, shown(path), facts, evaluation)

    def _iterations(self, path: Path) -> int | None:
        """The last iteration in the metrics of a run; None, with a problem, if there is none."""
        folder = RunFolder(path)
        try:
            if not folder.metrics.is_file():
                raise _Unusable("is missing: how many iterations were run is not known")
            n_lines = len(folder.metrics.read_text(encoding="utf-8").splitlines())
            rows = folder.read_metrics()  # after the count: a run under way may have added some
            if n_lines > len(rows) + 1:  # a last line cut short is what a crash leaves
                raise _Unusable(f"line {len(rows) + 1} is damaged: how many iterations were run is not known")
            if not rows or not isinstance(rows[-1], dict):
                raise _Unusable("has no row that can be read: how many iterations were run is not known")
            return _count(rows[-1], "step")
        except (OSError, ValueError, RecursionError) as error:
            self._problem(folder.metrics, f"cannot be read: {reason(error)}")
        except _Unusable as error:
            self._problem(folder.metrics, str(error))
        return None

    def _environment(self, path: Path) -> Mapping[str, Any] | None:
        """The environment of a run; None, with a problem, if there is none."""
        try:
            environment = _json(path / _ENVIRONMENT)
            if not isinstance(environment, dict):
                raise _Unusable("must be a table of names and values")
            return environment
        except _Unusable as error:
            self._problem(path / _ENVIRONMENT, f"{error}; the device is not known")
            return None

    def _evaluation(self, path: Path, source: str, facts: Mapping[str, Any], evaluation: Any) -> None:
        """One record, of the facts about a run and one of its evaluations."""
        try:
            if not isinstance(evaluation, dict):
                raise _Unusable(f"an evaluation must be a table of names and values; got {reprlib.repr(evaluation)}")
            log_z = evaluation.get("log_partition")
            known = dict(facts)
            known["device"] = known["device"] or shown(evaluation.get("device") or "")
            if evaluation.get("iterations") is not None:
                known["iterations"] = _count(evaluation, "iterations")
            self.records.append(
                Record(
                    source,
                    **known,
                    n_images=_count(evaluation, "n_images"),
                    n_importance=_count(evaluation, "n_importance"),
                    negative_log_likelihood=_finite(evaluation, "negative_log_likelihood"),
                    weights_of_step=_whole(evaluation.get("weights_of_step")),
                    test_seed=_whole(evaluation.get("seed")),
                    half_width=None if log_z is None else _finite(_mapping(evaluation, "log_partition"), "width") / 2,
                    consistent=log_z is None or log_z.get("consistent", True) is True,
                )
            )
        except _Unusable as error:
            self._problem(path, str(error))

    def _problem(self, path: Path, what: str) -> None:
        self.problems.append(Problem(shown(path), shown(what)))


def _identity(path: Path) -> tuple[int, int]:
    """What a file or folder is, under whatever name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_left_over(path: Path) -> bool:
    """Whether a name is the temporary one under which ``RunFolder.create`` begins a run."""
    return path.name.startswith(".") and ".part" in path.name


def _facts(config: Mapping[str, Any], iterations: Any, environment: Mapping[str, Any] | None) -> dict[str, Any]:
    """What all records of a run share, checked."""
    try:
        resolved = Config.from_dict(config)
    except ConfigError as error:
        raise _Unusable(f"its configuration is not one of dvaepp: {error}") from None
    values = resolved.to_dict()
    values.pop("experiment", None)
    return {
        "config": dict(_flat(values)),
        "experiment": resolved.experiment if resolved.experiment.table else None,
        "seed": resolved.seed,
        "iterations": None if iterations is None else _count({"iterations": iterations}, "iterations"),
        "device": shown((environment or {}).get("device") or ""),
    }


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def _json(path: Path) -> Any:
    """The contents of a JSON file, or what is wrong with it."""
    try:
        if not path.is_file():
            raise _Unusable("is missing" if not path.exists() else "is no plain file")
        text = path.read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise _Unusable(f"cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        what = (
            "is empty"
            if isinstance(error, json.JSONDecodeError) and not text.strip()
            else f"is no JSON: {reason(error)}"
        )
        raise _Unusable(what) from error


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    if not isinstance(value, dict):
        raise _Unusable(f"{name} must be a table of names and values; got {reprlib.repr(value)}")
    return value


def _count(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _TOO_MANY:
        raise _Unusable(f"{name} must be a positive whole number; got {reprlib.repr(value)}")
    return value


def _whole(value: Any) -> int | None:
    """A whole number, or None for anything else: for what a record can do without."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _finite(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_TOO_LARGE < value < _TOO_LARGE:
        raise _Unusable(f"{name} must be a finite number, below {_TOO_LARGE:g}; got {reprlib.repr(value)}")
    return float(value)
