"""Run the cells of the paper's tables: ``python -m dvaepp.experiment table2 --cell mnist-1-nonlinear/rbm --seeds 5``.

Every cell and seed is a run folder OUT/TABLE/ROW/COLUMN/seed-S as ``dvaepp.train`` leaves it. Given the same command
again, finished ones are skipped and interrupted ones gone on with.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dvaepp.backend import AUTO, choose
from dvaepp.command import choose_device, console, parse, run
from dvaepp.data import names as data_sets
from dvaepp.errors import ConfigError
from dvaepp.experiments import conduct, summary
from dvaepp.experiments.plan import Job, Plan, bundles
from dvaepp.experiments.runner import Engine, Outcome, Where, here, in_processes
from dvaepp.experiments.tables import load, setting

PROG = "experiment"

Words = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Command:
    """Train and test cells of the paper's tables, or of your own: every method, several seeds, at any scale.

    Exit code 0: all runs asked for are finished. 2: some are not, and why is printed. 130: interrupted.
    """

    table: Annotated[str, tyro.conf.Positional]
    """table1, table2, table3, or a FILE.toml of your own in the form of dvaepp/experiments/table1.toml."""
    cell: Words = ()
    """ROW/COLUMN: names, aliases (rbm is rbm-overlapping), beginnings of one name, or wildcards in quotes, as
    'mnist-1-*/rbm-*'; by default all cells of the paper."""
    seeds: int = 5
    """Seeds of each cell: 0, 1, ..."""
    scale: float = 1.0
    """Shortens iterations, and with them every schedule and interval, in proportion; 0.01 is a hundredth."""
    set: Words = ()
    """NAME=VALUE: single hyper-parameters that differ from the table's, as n_importance=100."""
    data: Words = ()
    """NAME=OTHER: another data set, or images of yours, in the place of one, as omniglot=omniglot-substitute."""
    data_dir: Words = ()
    """Folder of the files of all data sets, or NAME=FOLDER for each; without it they are downloaded and cached."""
    replicas: int = 1
    """Seeds, or candidates of a selection, that are trained side by side as one batched model."""
    jobs: int = 1
    """Runs at a time, in processes of one thread each."""
    ray: str | None = None
    """Ray cluster that this machine belongs to: host:port, auto, or local (a new one). All its machines have dvaepp
    installed and see --out."""
    select: bool = False
    """Choose what the table leaves open (learning rate, beta) on the validation images first, with seed 0."""
    select_at: float | None = None
    """Scale of the selection; by default that of the runs."""
    out: Path = Path("runs")
    """Folder of the runs."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is CUDA where there is a device."""
    backend: str = AUTO
    """Who samples the prior and smooths, as of dvaepp.train."""
    list: bool = False
    """List the cells of the table and stop."""
    dry_run: bool = False
    """Say what would be done and stop."""


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and print what came of it; returns the exit code."""
    out = console()
    command = parse(Command, arguments, f"python -m dvaepp.{PROG}")
    table = load(command.table)
    if command.list:
        summary.print_cells(table, out)
        return 0
    _check(command)
    plan = Plan(
        table,
        table.find(_flat(command.cell)),
        command.seeds,
        command.scale,
        command.out.expanduser().absolute(),
        images=dict(_pair("--data", word) for word in _flat(command.data)),
        data_dirs=_folders(_flat(command.data_dir)),
        changes=dict(map(setting, _flat(command.set))),
    )
    if command.dry_run:
        return conduct.dry_run(plan, command.select, command.select_at, out)
    engine = _engine(command)
    where = Where(command.device, command.backend)

    def perform(jobs: Sequence[Job]) -> Iterator[Outcome]:
        for outcomes in engine(bundles(jobs, command.replicas), where, out):
            yield from outcomes

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended politely: as by the keyboard
    try:
        return conduct.carry_out(plan, perform, command.select, command.select_at, out)
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(command: Command) -> None:
    for flag, number in (("--replicas", command.replicas), ("--jobs", command.jobs)):
        if number < 1:
            raise ConfigError(f"{flag} must be at least 1; got {number}")
    if command.ray is not None and command.jobs > 1:
        raise ConfigError("--jobs is for this machine alone; with --ray the cluster says how many run at a time")
    if command.select_at is not None and not command.select:
        raise ConfigError("--select-at makes no sense without --select")
    if command.ray is None:
        choose(command.backend, choose_device(command.device))  # what cannot run is said at once, and once


def _engine(command: Command) -> Engine:
    if command.ray is not None:
        from dvaepp.experiments.cluster import on_cluster

        return on_cluster(command.ray, command.device)
    return here if command.jobs == 1 else in_processes(command.jobs)


def _flat(words: Words) -> tuple[str, ...]:
    return tuple(itertools.chain.from_iterable(words))


def _pair(flag: str, word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"{flag} must be NAME=VALUE; got {word!r}")
    return name, value


def _folders(words: Sequence[str]) -> dict[str, str]:
    """Where the files of each data set lie, made absolute; "" stands for all."""
    folders = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or name not in data_sets():
            name, folder = "", word
        folders[name] = str(Path(folder).expanduser().absolute())
    return folders


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
