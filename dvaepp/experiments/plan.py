"""Cells, seeds and a scale -> runs, each with its folder and configuration; what became of a run, by its folder."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from dvaepp.checkpoint import load
from dvaepp.config import Config, unknown
from dvaepp.data import names as data_sets
from dvaepp.errors import ConfigError, RunError
from dvaepp.evaluate import record_name
from dvaepp.experiments.tables import Cell, Table
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import REPLICAS_MAY_DIFFER_IN
from dvaepp.training import resolved

#: What a scale shortens, by name; warm-up, annealing and steps of the learning rate are fractions of the iterations.
_SCHEDULES = {
    "iterations": Config().optimisation.iterations,
    **{name: getattr(Config().evaluation, name) for name in ("log_every", "validate_every", "checkpoint_every")},
}


class State(StrEnum):
    """What became of a run."""

    NEW = "new"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    TAKEN = "held by another process"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class Status:
    """The state of a run, how far it is trained, its record when it is finished, and what is wrong with it if it is
    unusable.
    """

    state: State
    step: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_open(self) -> bool:
        """Whether there is something to do that can be done."""
        return self.state in (State.NEW, State.INTERRUPTED)


@dataclass(frozen=True)
class Job:
    """A run to be made: of a cell, with a seed, in a folder."""

    cell: Cell
    path: Path
    config: Config

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    def __str__(self) -> str:
        return f"{self.cell}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What is to be run of a table: cells, how many seeds, how much shortened, with which changes, where.

    ``images`` replaces data sets by others, ``data_dirs`` says where the files of each lie ("": of all), ``changes``
    are single hyper-parameters that come last.
    """

    table: Table
    cells: tuple[Cell, ...]
    n_seeds: int
    scale: float
    out: Path
    images: Mapping[str, str] = field(default_factory=dict)
    data_dirs: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"--scale must be positive, as 0.01; got {self.scale}")
        if self.n_seeds < 1:
            raise ConfigError(f"--seeds must be at least 1; got {self.n_seeds}")
        used = dict.fromkeys(
            self.table.settings(cell).get("data", Config().data.data) for cell in self.table.all_cells()
        )
        for name, other in self.images.items():
            if name not in used:
                raise ConfigError(f"--data: {self.table.name} has no such data: {unknown('data set', name, used)}")
            if other not in data_sets() and not Path(other).expanduser().exists():
                raise ConfigError(f"--data {name}={other}: {unknown('data set', other, data_sets())}")

    def config(self, cell: Cell, seed: int, chosen: Mapping[str, Any] | None = None) -> Config:
        """The configuration of a run; ``chosen`` settings go before the file's.

        Raises   ConfigError for settings that do not go together.
        """
        settings = self.table.settings(cell) | dict(chosen or {})
        settings |= {
            name: max(1, round(settings.get(name, default) * self.scale)) for name, default in _SCHEDULES.items()
        }
        images = settings.get("data", Config().data.data)
        settings["data"] = self.images.get(images, images)
        where = self.data_dirs.get(images, self.data_dirs.get(settings["data"], self.data_dirs.get("")))
        if where is not None:
            settings["data_dir"] = where
        return resolved(self.table.resolve(cell, settings | dict(self.changes), seed))

    def folder(self, cell: Cell) -> Path:
        """Where the runs of a cell lie."""
        return self.out / self.table.name / cell.row / cell.column

    def jobs(self, cell: Cell, chosen: Mapping[str, Any] | None = None) -> list[Job]:
        """The runs of a cell, seed by seed."""
        return [
            Job(cell, self.folder(cell) / f"seed-{seed}", self.config(cell, seed, chosen))
            for seed in range(self.n_seeds)
        ]


def look(job: Job) -> Status:
    """Say what became of a run; a folder that is not of this run, or damaged, is unusable and stays as it is."""
    if not job.path.exists():
        return Status(State.NEW)
    try:
        folder = RunFolder.open(job.path)
        for name, wanted, found in job.config.differences(folder.config()):
            if name != "data_dir":
                raise RunError(f"{job.path} holds a run of another configuration: its {name} is {found}, not {wanted}")
        record = _record(folder, job.config)
        if record:
            return Status(State.FINISHED, job.config.optimisation.iterations, record)
        _, facts = load(folder.checkpoint)
    except RunError as error:
        return Status(State.UNUSABLE, problem=f"{error}; nothing was touched: choose another --out, or move it away")
    return Status(State.TAKEN if _is_held(folder) else State.INTERRUPTED, facts["step"])


def bundles(jobs: Sequence[Job], n_replicas: int) -> list[tuple[Job, ...]]:
    """Runs that are to be trained together: equally far, and alike but for what replicas may differ in.

    Shapes   the runs in their order, at most ``n_replicas`` in each bundle
    """
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        shared = {
            section: {name: value for name, value in values.items() if name not in REPLICAS_MAY_DIFFER_IN}
            for section, values in job.config.to_dict().items()
            if section != "seed"
        }
        key = json.dumps([shared, look(job).step if n_replicas > 1 else str(job.path)])
        alike.setdefault(key, []).append(job)
    return [
        tuple(same[start : start + n_replicas]) for same in alike.values() for start in range(0, len(same), n_replicas)
    ]


def without_whereabouts(config: Config) -> dict[str, Any]:
    """A configuration as a plain dictionary, without where its images lie: that may change between two commands."""
    return replace(config, data=dataclasses.replace(config.data, data_dir=None)).to_dict()


def _record(folder: RunFolder, config: Config) -> dict[str, Any]:
    """The record of a run's test, or nothing when it was not tested yet.

    Raises   RunError if there is one, but not a whole one.
    """
    path = folder.path / record_name(config, config.seed)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is no whole record ({str(error).splitlines()[0]})") from error
    for name, whole in (("negative_log_likelihood", float), ("n_importance", int), ("n_images", int)):
        value = record.get(name) if isinstance(record, dict) else None
        if not isinstance(value, whole) or not math.isfinite(value):
            raise RunError(f"{path} is no whole record (its {name} is {value!r})")
    return dict(record)


def _is_held(folder: RunFolder) -> bool:
    try:
        with folder.locked():
            return False
    except RunError:
        return True
