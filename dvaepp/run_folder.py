"""The folder of a run: which file holds what, how it begins, how it is opened again.

config.json              every hyper-parameter, resolved
environment.json         versions, device, git revision, command line
metrics.jsonl            one row per log interval and validation
tensorboard/             the same as curves
checkpoint.safetensors   everything to go on from: weights, chains, optimiser, generator, running sums
next.safetensors         the next checkpoint, while those of runs that are trained as one are being written
best.safetensors         weights of the best validation
evaluation-K*.json       test results by K importance samples
*.png                    pictures
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dvaepp.atomic import write_text
from dvaepp.command import device_name
from dvaepp.config import Config
from dvaepp.environment import software, versions
from dvaepp.errors import ConfigError, RunError

#: What a backend is compiled by, for the record.
_COMPILERS = {"numba_cpu": "numba", "numba_cuda": "numba", "cupy_raw": "cupy"}
_LIBRARIES = ("torch", "numpy", "scipy", "safetensors", "tyro", "rich", "matplotlib", "tensorboard")


class RunFolder:
    """Paths of a run and its small text files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.safetensors"
        self.next_checkpoint = path / "next.safetensors"
        self.best = path / "best.safetensors"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self._config = path / "config.json"

    @classmethod
    def create(
        cls, path: Path, config: Config, device: torch.device, backend: str, fill: Callable[[RunFolder], None]
    ) -> RunFolder:
        """Begin a run in a folder that does not exist yet; ``fill`` writes its first checkpoint.

        The folder is made under a temporary name and renamed when it is complete: a run that exists can be resumed.

        Raises   RunError if it exists or cannot be written; what was begun in vain is removed again.
        """
        cls.refuse_existing(path)
        part = path.with_name(f".{path.name}.part{os.getpid()}")
        try:
            part.mkdir(parents=True)
            run = cls(part)
            write_text(run._config, json.dumps(config.to_dict(), indent=2) + "\n")
            write_text(part / "environment.json", json.dumps(_environment(device, backend), indent=2) + "\n")
            fill(run)
            part.rename(path)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise RunError(f"cannot create the run folder {path}: {error.strerror or error}") from error
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return cls(path)

    @staticmethod
    def refuse_existing(path: Path) -> None:
        """Raise RunError if something is there already."""
        if path.exists():
            raise RunError(f"run folder {path} exists; choose another --out, or go on with --resume {path}")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of an earlier run.

        Raises   RunError if it is not one.
        """
        run = cls(path)
        if not path.is_dir():
            raise RunError(f"{path} is no run folder: there is no such folder")
        if not run._config.is_file():
            raise RunError(f"{path} is no run folder: it has no config.json")
        return run

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process, as long as the block lasts.

        Raises   RunError if another process holds it.
        """
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{self.path}: another process is training this run") from error
        else:
            yield
        finally:
            os.close(handle)

    def config(self) -> Config:
        """The run's configuration.

        Raises   RunError if the file is damaged or of another version.
        """
        try:
            return Config.from_dict(json.loads(self._config.read_text(encoding="utf-8")))
        except (ValueError, OSError) as error:  # ConfigError and JSON errors are ValueErrors
            reason = error if isinstance(error, ConfigError) else str(error).splitlines()[0]
            raise RunError(f"{self._config}: {reason}") from error

    def take_next_checkpoint(self) -> None:
        """Put the next checkpoint, complete by now, in the place of the last one."""
        try:
            self.next_checkpoint.replace(self.checkpoint)
        except OSError as error:
            raise RunError(f"cannot write {self.checkpoint}: {error.strerror or error}") from error

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one row of metrics."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete rows of metrics; a last line cut short by a crash is passed over."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def iterations(self) -> int | None:
        """Iterations done, by the last row of metrics; None if there is none."""
        rows = self.read_metrics()
        return rows[-1]["step"] if rows else None

    def rewind_metrics(self, step: int) -> None:
        """Drop the rows of iterations after ``step``: they will be run, and written, again."""
        kept = [row for row in self.read_metrics() if row["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))

    def write_record(self, name: str, record: dict[str, Any]) -> Path:
        """Write a JSON record into the folder and return its path."""
        path = self.path / name
        write_text(path, json.dumps(record, indent=2) + "\n")
        return path


def _environment(device: torch.device, backend: str) -> dict[str, Any]:
    return {
        "command": sys.argv,
        **software(),
        "device": device_name(device),
        "backend": backend,
        "threads": torch.get_num_threads(),
        "libraries": versions(_LIBRARIES) | _version_of(backend),
    }


def _version_of(backend: str) -> dict[str, str]:
    name = _COMPILERS.get(backend)
    return {} if name is None else {name: importlib.import_module(name).__version__}
