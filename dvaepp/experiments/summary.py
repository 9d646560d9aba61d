"""What is printed of a plan: its cells, what would be done, and in the end what became of every run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table as RichTable

from dvaepp.experiments.plan import Job, Plan, State, Status, look
from dvaepp.experiments.tables import Table


def print_cells(table: Table, out: Console) -> None:
    """The rows and columns of a table, each with its settings."""
    grid = RichTable(title=f"{table.name}: {table.title}", title_justify="left")
    for heading in ("", "name", "settings", "selected by --select"):
        grid.add_column(heading, overflow="fold")
    for what, entries in (("row", table.rows), ("column", table.columns)):
        for name, entry in entries.items():
            names = ", ".join((name, *entry.aliases)) + (" *" if entry.extra else "")
            grid.add_row(what, names, _words(entry.config), _words(entry.select))
    for cell, settings in table.cells.items():
        grid.add_row("cell", str(cell), _words(settings), "")
    grid.add_row("all", "", _words(table.config), _words(table.select))
    out.print(grid)
    out.print("a cell is ROW/COLUMN; * beyond the paper: run when --cell asks for it")


def describe(plan: Plan, jobs: Sequence[Job]) -> str:
    """The plan in one line: how many runs, how much shortened."""
    full = {plan.table.resolve(job.cell, plan.table.settings(job.cell)).optimisation.iterations for job in jobs}
    ours = {job.config.optimisation.iterations for job in jobs}
    changes = f"; {_words(plan.changes)}" if plan.changes else ""
    return (
        f"{plan.table.name}: {len(plan.cells)} cells, {plan.n_seeds} seeds, scale {plan.scale:g}: "
        f"{_counts(ours)} of {_counts(full)} iterations{changes}"
    )


def print_plan(jobs: Sequence[Job], out: Console) -> None:
    """What would be done, and what not; a line for each run."""
    for job in jobs:
        status = look(job)
        todo = {
            State.NEW: "would be trained",
            State.INTERRUPTED: f"would go on from iteration {status.step}",
            State.FINISHED: "is finished",
            State.TAKEN: "would be left: another process holds it",
            State.UNUSABLE: f"would be left: {status.problem}",
        }[status.state]
        out.print(f"{job.path}: {todo}")


def print_summary(plan: Plan, jobs: Sequence[Job], problems: Mapping[Job, str], out: Console) -> bool:
    """Cells by seeds as their folders have them, then what went wrong; says whether all runs are finished."""
    looked = {job: look(job) for job in jobs}
    grid = RichTable(title=f"{plan.table.name}: -log p(x) of the test images, nats", title_justify="left")
    for heading in ("row", "column"):
        grid.add_column(heading, overflow="fold")
    for seed in range(plan.n_seeds):
        grid.add_column(f"seed {seed}", justify="right")
    grid.add_column("mean ± sd", justify="right")
    grid.add_column("iterations", justify="right")
    for cell in plan.cells:
        of_cell = {job: status for job, status in looked.items() if job.cell == cell}
        if of_cell:
            values = [float(status.record["negative_log_likelihood"]) for status in of_cell.values() if status.record]
            steps = {f"{status.step:,}" for status in of_cell.values()}
            states = [_entry(status, problems.get(job, "")) for job, status in of_cell.items()]
            grid.add_row(cell.row, cell.column, *states, _mean(values), " / ".join(sorted(steps)))
    out.print(grid)
    alike: dict[str, list[Job]] = {}  # of one cause, such as missing images, often all runs fail
    for job, status in looked.items():
        why = problems.get(job) or (status.problem if status.state is State.UNUSABLE else "")
        if why and status.state is not State.FINISHED:
            alike.setdefault(why, []).append(job)
    for why, (first, *others) in alike.items():
        out.print(f"{first}{f' and {len(others)} others' if others else ''}: {why}")
    out.print(f"beside the paper's numbers: python -m validation tables --runs {plan.out}")
    return all(status.state is State.FINISHED for status in looked.values())


def _entry(status: Status, problem: str) -> str:
    if status.state is State.FINISHED:
        return f"{status.record['negative_log_likelihood']:.2f}"
    if problem and status.is_open:
        return "failed"
    return str(status.state).partition(" ")[0]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def _words(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _counts(numbers: set[int]) -> str:
    return " / ".join(f"{number:,}" for number in sorted(numbers))
