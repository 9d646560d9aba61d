"""Train a discrete VAE with a Boltzmann or directed prior: ``python -m dvaepp.train``.

Without arguments it trains on the digits shipped with the package, tests the best weights and draws pictures.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from dvaepp.backend import AUTO
from dvaepp.command import BAD_INPUT, INTERRUPTED, console, parse, run
from dvaepp.config import PRESETS, Config, preset, scaled_intervals
from dvaepp.errors import ConfigError, NonFiniteError, RunError, UserError
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import WHEREABOUTS
from dvaepp.training import Interrupted, Session, begin, resume
from dvaepp.world import OtherProcessFailedError, World, join, other_process

PROG = "train"
_DEFAULT_PRESET = "digits"


@dataclass(frozen=True)
class Command:
    """Train a discrete VAE with a Boltzmann or directed prior, test it, and draw what it learned.

    Hyper-parameters come from the preset; every flag below changes one of them.
    """

    preset: str = _DEFAULT_PRESET
    """Named configuration to start from; see --list."""
    list: bool = False
    """List the presets and stop."""
    out: Path | None = None
    """Run folder to create; by default runs/PRESET-DATE-TIME."""
    resume: Path | None = None
    """Go on with the run in this folder, exactly where its checkpoint stands."""
    replicas: int = 1
    """Train so many seeds (--seed and those after it) side by side as one batched model; each gets a run folder
    seed-S in --out."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is CUDA where there is a device and, with --resume in one process, what the run was
    on."""
    backend: str = AUTO
    """Who samples the prior and smooths: torch, numba_cpu, numba_cuda, cupy_raw or numpy_oracle; auto is the fastest
    that can run and, with --resume, what the run was on."""
    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)


def main(arguments: Sequence[str]) -> int:
    """Train, test and draw; returns the exit code."""
    try:
        command = _read(arguments)
    except UserError:
        if other_process():  # the first one says it
            return BAD_INPUT
        raise
    if command.list:
        _print_presets(console())
        return 0
    with contextlib.ExitStack() as stack:
        try:
            world, device = stack.enter_context(join(command.device))
        except ConfigError:  # all processes have it
            if other_process():
                return BAD_INPUT
            raise
        out = console() if world.first else Console(quiet=True)
        try:
            session = world.together(functools.partial(_session, command, world, device, out))
            assert session is not None
            with session:
                session.run(draw=True)
        except Interrupted as stopped:
            out.print(str(stopped))
            return INTERRUPTED
        except OtherProcessFailedError:
            return BAD_INPUT
        except NonFiniteError:  # all processes have it
            if world.first:
                raise
            return BAD_INPUT
    return 0


def _session(command: Command, world: World, device: str, out: Console) -> Session:
    """What the command line asks for: new runs, or old ones at their checkpoints."""
    if command.resume is None:
        if not 1 <= command.replicas <= _MOST_REPLICAS:
            raise ConfigError(f"replicas must lie in 1..{_MOST_REPLICAS}; got {command.replicas}")
        config = scaled_intervals(command.config, preset(command.preset))
        configs = [replace(config, seed=config.seed + index) for index in range(command.replicas)]
        now = world.from_first(datetime.now())
        path = command.out or Path("runs") / f"{command.preset}-{now:%Y%m%d-%H%M%S}"
        paths = [path] if len(configs) == 1 else [path / f"{_REPLICA}{own.seed}" for own in configs]
        if len(paths) > 1 and ((path / "config.json").exists() or _replicas(path)):  # --resume would take them together
            RunFolder.refuse_existing(path)
        return begin(paths, configs, device, command.backend, out, world)
    paths = _paths(command.resume)
    stored = [RunFolder.open(path).config() for path in paths]
    configs = [replace(own, data=command.config.data) for own in stored]
    return resume(paths, configs, device, command.backend, out, world)


#: Beginning of the names of run folders of replicas, and how many there may be.
_REPLICA, _MOST_REPLICAS = "seed-", 1000


def _paths(folder: Path) -> list[Path]:
    """The run folder itself, or those of the runs in it that are trained as one."""
    return [folder] if (folder / "config.json").exists() else _replicas(folder) or [folder]


def _replicas(folder: Path) -> list[Path]:
    """The run folders in a folder that were begun as replicas, by seed."""
    found = [path for path in folder.glob(f"{_REPLICA}*") if path.name.removeprefix(_REPLICA).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_REPLICA)))


def _read(arguments: Sequence[str]) -> Command:
    """The command line, with defaults from the preset or, when resuming, from the run itself."""
    prog = "python -m dvaepp.train"
    folder = _peek(arguments, "--resume")
    if folder is None:
        named = _peek(arguments, "--preset")
        name = _DEFAULT_PRESET if named is None else named
        return parse(Command, arguments, prog, Command(preset=name, config=preset(name)))
    stored = RunFolder.open(_paths(Path(folder))[0]).config()
    command = parse(Command, arguments, prog, Command(resume=Path(folder), config=stored))
    for flag in ("--preset", "--out", "--replicas"):
        if _peek(arguments, flag) is not None:
            raise ConfigError(f"{flag} makes no sense with --resume: the run in {folder} keeps its own")
    for flag, here, there in command.config.differences(stored):
        if flag not in WHEREABOUTS:
            raise RunError(
                f"--resume {folder}: the run has {flag} = {there}, not {here}; a run goes on with what it was "
                "started with: leave the flag out, or start a new run"
            )
    return command


def _peek(arguments: Sequence[str], flag: str) -> str | None:
    """Value of a flag before the command line is read in full: it decides the defaults of all others."""
    values = []
    for position, word in enumerate(arguments):
        if word == flag and position + 1 < len(arguments):
            values.append(arguments[position + 1])
        if word.startswith(f"{flag}="):
            values.append(word.removeprefix(f"{flag}="))
    if len(values) > 1:
        raise ConfigError(f"{flag} was given {len(values)} times; give it once")
    return values[0] if values else None


def _print_presets(out: Console) -> None:
    table = Table(title="presets of python -m dvaepp.train --preset NAME", title_justify="left")
    table.add_column("name")
    table.add_column("what")
    for name, entry in PRESETS.items():
        table.add_row(name, entry.about)
    out.print(table)


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
