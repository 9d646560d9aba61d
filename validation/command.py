"""``python -m validation``: judge implementations, print one line for each task with its worst case, and a verdict."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import accelerated
from accelerated.protocol import KINDS, OPERATIONS
from dvaepp.atomic import write_text
from dvaepp.command import console, parse
from dvaepp.config import unknown
from dvaepp.environment import cpu_name, n_cores, software, versions
from dvaepp.errors import ConfigError
from validation import accuracy, faults, jobs, report, subjects
from validation.paper import records, tables
from validation.report import Result
from validation.rows import ALL_KINDS, DTYPES, ErrorMap, Request, Row, Status, Subject, Task

PROG = "validation"
TABLES, SABOTAGE = "tables", "sabotage"
CHECKS = (*jobs.CHECKS[:-1], TABLES, SABOTAGE)
TIME_LIMIT = 300.0
_OF_ONE_INPUT = ("accuracy", "gradients")
_LIBRARIES = ("torch", "numpy", "scipy", "numba", "mpmath", "gmpy2")


@dataclass(frozen=True)
class Command:
    """Judge implementations of the formulas.

    Exit code 0 if every row holds, 1 if one does not, 2 for bad arguments.
    """

    checks: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar=" ".join(f"[{name}]" for name in CHECKS))
    ] = ()
    """Checks to run; none named: all of them (--quick: all but sabotage)."""
    backend: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """Judge this one alone (repeatable): reference, torch, torch-number, a backend's name, or module:object."""
    kind: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KIND")] = ()
    """Only this kind of smoothing (repeatable)."""
    dtype: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="{float32,float64}")] = ()
    """Only this precision."""
    operation: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """Only this operation (repeatable). Without it, a backend that lacks one of the protocol's does not pass."""
    quick: bool = False
    """Fewer cases and draws: under a minute."""
    seed: int = 0
    """Seed of all cases and draws."""
    at: Annotated[str | None, tyro.conf.arg(metavar='"rho=..., logit_q=..., beta=..."')] = None
    """Judge accuracy, or gradients, at this one input, as a table prints it."""
    fault: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """Only this fault of the sabotage (repeatable)."""
    runs: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="PATH")] = ()
    """Where tables look for records (repeatable): folders of runs, run folders, record files; not given: runs."""
    every_row: bool = False
    """Print every output, not only the worst of each task."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write everything here as JSON."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write a page for the browser here, all in one file."""
    markdown: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the paper's tables here."""
    workers: int = min(n_cores(), 8)
    """Processes to work in."""
    time_limit: float = TIME_LIMIT
    """Seconds after which a task counts as hanging."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 if every row holds, 1 if one does not.

    Raises   ConfigError for arguments that cannot be used; nothing has been run or written then.
    """
    command = parse(Command, arguments, PROG)
    checks, request = _checked(command)
    out, started = console(), time.monotonic()
    comparison = tables.tables(records.read(command.runs)) if TABLES in checks else None

    rows: list[Row] = []
    maps: list[ErrorMap] = []
    judging = [name for name in checks if name != TABLES]
    if judging:
        with jobs.pool(command.workers) as processes:
            found = _subjects(command, jobs.probe(processes, command.backend or subjects.names(), command.time_limit))
            judged = [subject for subject in found if isinstance(subject, Subject)]
            missing = [row for row in found if isinstance(row, Row)]
            missing += [row for subject in judged for row in lacking(subject, request, judging)]
            plan = {name: list(_tasks(name, judged, request, command)) for name in judging}
            if not any(plan.values()) and not missing:
                raise ConfigError("there is nothing to judge: nobody chosen has what was asked for, and none has to")
            for row in missing:
                _print_row_alone(row, out)
            for name in judging:
                done = _perform(name, plan[name], processes, command, out)
                rows += [row for outcome in done for row in outcome.rows]
                maps += [map_ for outcome in done for map_ in outcome.maps]
            rows += missing
    if comparison is not None:
        if not judging or command.runs or comparison.has_records:
            out.print(tables.to_rich(comparison))
        for problem in comparison.problems:
            rows.append(Row(Task(TABLES, problem.path, "record"), Status.FAILS, message=problem.what))
    result = Result(
        rows,
        maps,
        _environment(),
        _told(command, checks),
        tables.to_html(comparison) if comparison else "",
        time.monotonic() - started,
        shlex.join(["python", "-m", PROG, *arguments]),
    )
    if command.json:
        whole = result.to_json() | {"tables": tables.to_json(comparison) if comparison else None}
        write_text(command.json, json.dumps(whole, indent=1, allow_nan=False) + "\n")
    if command.html:
        report.write(result, command.html)
    if command.markdown and comparison:
        write_text(command.markdown, tables.to_markdown(comparison))
    _print_verdict(result, out)
    return int(result.n_bad > 0)


# ---- the arguments ---------------------------------------------------------------------------------------------------


def _checked(command: Command) -> tuple[tuple[str, ...], Request]:
    """The checks to run and what to ask of them.

    Raises   ConfigError for an argument that cannot be used.
    """
    for what, given, known in (
        ("check", command.checks, CHECKS),
        ("kind", command.kind, ALL_KINDS),
        ("dtype", command.dtype, DTYPES),
        ("operation", command.operation, operations() if command.operation else ()),
        ("fault", command.fault, [fault.name for fault in faults.FAULTS]),
    ):
        for name in given:
            if name not in known:
                raise ConfigError(f"{unknown(what, name, known)}  ({PROG} --help)")
    for name in command.backend:
        if name not in subjects.BUILT_IN and ":" not in name and name not in accelerated.names():
            near = [*subjects.BUILT_IN, *accelerated.names()]
            raise ConfigError(f"{unknown('backend', name, near)}  ({PROG} --help)")
    if command.seed < 0:
        raise ConfigError(f"seed must not be negative; got {command.seed}")
    if command.workers < 1:
        raise ConfigError(f"workers must be at least 1; got {command.workers}")
    if not command.time_limit > 0:
        raise ConfigError(f"time-limit must be positive; got {command.time_limit:g}")
    checks = command.checks or tuple(name for name in CHECKS if name not in _left_out(command))
    if command.at is not None:
        if len(checks) != 1 or checks[0] not in _OF_ONE_INPUT:
            raise ConfigError(f"at is one input of {' or of '.join(_OF_ONE_INPUT)}; say: {PROG} accuracy --at ...")
        accuracy.parse_at(command.at)
    for option, check in (("fault", SABOTAGE), ("runs", TABLES), ("markdown", TABLES)):
        if getattr(command, option) and check not in checks:
            raise ConfigError(f"{option} is an option of {check}, which is not among the checks: {', '.join(checks)}")
    for path in (command.json, command.html, command.markdown):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ConfigError(f"{path} cannot be written: it must be a file in a folder that exists")
    request = Request(
        kinds=tuple(dict.fromkeys(command.kind)) or ALL_KINDS,
        dtypes=tuple(dict.fromkeys(command.dtype)) or DTYPES,
        operations=tuple(dict.fromkeys(command.operation)),
        seed=command.seed,
        quick=command.quick,
        at=command.at or "",
        maps=command.html is not None and command.at is None,
    )
    return tuple(dict.fromkeys(checks)), request


def operations() -> list[str]:
    """Names of all the operations that any check judges."""
    checks = [jobs.check(name) for name in CHECKS if name not in (TABLES, SABOTAGE)]
    all_tasks = [
        task for one in checks for subject in subjects.BUILT_IN.values() for task in one.tasks(subject, Request())
    ]
    return sorted(OPERATIONS | {task.operation for task in all_tasks})


def _left_out(command: Command) -> set[str]:
    """Checks that are not run unless they are named: those that do not concern the subjects or operations chosen."""
    if command.at is not None:
        return set(CHECKS) - {"accuracy"}
    if command.fault:
        return set(CHECKS) - {SABOTAGE}
    chosen = command.backend or command.operation or command.kind or command.dtype
    return ({SABOTAGE} if chosen or command.quick else set()) | ({TABLES} if chosen else set())


def _subjects(command: Command, found: Iterable[Subject | Row]) -> list[Subject | Row]:
    """Those who can be judged, and rows on those who cannot.

    Raises   ConfigError for one that was named and is not there or cannot run here.
    """
    known = list(found)
    for row in known:
        if command.backend and isinstance(row, Row) and row.status is Status.CANNOT_RUN:
            raise ConfigError(row.message)
    return known


def lacking(subject: Subject, request: Request, checks: Sequence[str]) -> Iterator[Row]:
    """A row for everything of the protocol that was asked for and a backend does not have."""
    if not subject.is_backend or not set(checks) - {SABOTAGE}:
        return
    check = next(name for name in checks if name != SABOTAGE)
    for operation in sorted(OPERATIONS - subject.operations):
        if request.wants(operation):
            reason = subject.reasons.get(operation, "it is not among its operations()")
            yield Row(Task(check, subject.name, operation), Status.LACKS, message=reason)
    if "inverse_cdf" in subject.operations and request.wants("inverse_cdf"):
        for kind in KINDS:
            if kind in request.kinds and kind not in subject.kinds:
                message = "it is not among its kinds"
                yield Row(Task(check, subject.name, "inverse_cdf", kind), Status.LACKS, message=message)


def _tasks(name: str, judged: Sequence[Subject], request: Request, command: Command) -> Iterator[Task]:
    for subject in judged:
        for task in jobs.check(name).tasks(subject, request):
            if not command.fault or name != SABOTAGE or task.fault in command.fault:
                yield replace(task, at=request.at, maps=request.maps and name == "accuracy")


def _told(command: Command, checks: Sequence[str]) -> dict[str, Any]:
    """What was asked for, for the record."""
    said = {"checks": list(checks), "backends": list(command.backend) or list(subjects.names())}
    return said | {"quick": command.quick, "seed": command.seed}


def _environment() -> dict[str, Any]:
    devices = {"processor": f"{cpu_name()}, {n_cores()} cores"}
    if torch.cuda.is_available():
        devices["GPU"] = torch.cuda.get_device_name()
    return {**devices, **software(), "libraries": versions(_LIBRARIES)}


# ---- running and printing --------------------------------------------------------------------------------------------


def _perform(name: str, tasks: Sequence[Task], processes: Any, command: Command, out: Console) -> list[jobs.Outcome]:
    """Perform the tasks of one check and print their table."""
    if not tasks:
        return []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task(name, total=len(tasks))
        advance: Callable[[Task], object] = lambda task: progress.advance(bar)  # noqa: E731
        done = list(jobs.perform(processes, tasks, command.time_limit, advance))
    shown = [row for outcome in done for row in (outcome.rows if command.every_row else _worst(outcome.rows))]
    _print_in_full(_table(name, shown, command.at is not None), out)
    return done


def _worst(rows: Sequence[Row]) -> list[Row]:
    """The rows of a task that do not hold, or else the one that is nearest to its bound, or else all."""
    if bad := [row for row in rows if not row.status.good]:
        return bad
    judged = [row for row in rows if row.finding is not None and row.finding.judged]
    return [max(judged, key=_share)] if judged else list(rows)


def _share(row: Row) -> float:
    assert row.finding is not None
    error, bound = row.finding.error, row.finding.bound
    return error / bound if bound else float(error > 0)


def _table(name: str, rows: Sequence[Row], values: bool) -> Table:
    table = Table(title=name, title_justify="left")
    catches = any(row.finding and row.finding.catches for row in rows)
    columns = ["subject", "operation", "kind", "dtype", "output", "worst", "bound", "unit", "verdict"]
    columns += ["would catch"] * catches + ["got", "expected"] * values + ["where"]
    for column in columns:
        right = column in ("worst", "bound", "got", "expected")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        task, found = row.task, row.finding
        verdict = Text(row.status.value, style="" if row.status.good else "red")
        cells: list[str | Text] = [task.subject, task.operation, task.kind, task.dtype]
        if found is None:
            cells += ["", "", "", "", verdict, *[""] * (catches + 2 * values), row.message]
        else:
            bound = f"{found.bound:.3g}" if found.judged else ""
            cells += [found.output, f"{found.error:.3g}", bound, found.unit, verdict]
            cells += [found.catches] * catches + [repr(found.got), repr(found.expected)] * values
            cells.append(_where(row))
        table.add_row(*cells)
    return table


def _where(row: Row) -> str:
    """The input, to be replayed, and what else there is to say."""
    assert row.finding is not None
    at, where = row.finding.at, row.finding.where
    return where if where.startswith(at) else "  ".join(text for text in (at, where) if text)


def _print_row_alone(row: Row, out: Console) -> None:
    """A row that belongs to no table: a subject that could not be loaded, or what it lacks."""
    task = row.task
    what = f" {task.operation} {task.kind}".rstrip() if row.status is Status.LACKS else ""
    text = f"{task.subject}{what}: {row.status.value}: {row.message}"
    if row.status is Status.CANNOT_RUN:
        text = row.message  # which names it
    out.print(Text(text, style="" if row.status.good else "red"), soft_wrap=True)


def _print_verdict(result: Result, out: Console) -> None:
    for row in result.rows:
        if not row.status.good and row.status is not Status.LACKS:
            out.print(f"{row.status.value}: {row.reproduce}", soft_wrap=True)
    n_rows, n_bad = len(result.rows), result.n_bad
    if n_rows:
        n_held = sum(row.status is Status.HOLDS for row in result.rows)
        text = f"{n_bad} of {n_rows} rows do not hold" if n_bad else f"all {n_held} rows that are judged hold"
        out.print(f"{text}  ({result.seconds:.0f} s)", style="red" if n_bad else None)


def _print_in_full(table: Table, out: Console) -> None:
    """As wide as it needs, whatever the terminal: an input that is cut or folded cannot be replayed."""
    out.width = max(out.width, out.measure(table, options=out.options.update(width=1000)).maximum)
    out.print(table)
