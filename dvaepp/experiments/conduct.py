"""A plan carried out: what is left open is selected, the runs are made, and what became of them is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console

from dvaepp.command import BAD_INPUT, INTERRUPTED
from dvaepp.experiments import summary
from dvaepp.experiments.plan import Job, Plan
from dvaepp.experiments.runner import Outcome
from dvaepp.experiments.selection import Choice, searches, select
from dvaepp.experiments.tables import Cell

Perform = Callable[[Sequence[Job]], Iterable[Outcome]]


def carry_out(plan: Plan, perform: Perform, selects: bool, select_at: float | None, out: Console) -> int:
    """Select, train and test, print the summary; returns the exit code."""
    out.print(summary.describe(plan, _jobs(plan, {})))
    jobs: list[Job] = []
    problems: dict[Job, str] = {}
    unchosen: Mapping[Cell, str] = {}
    try:
        choices: Mapping[Cell, Choice] = {}
        if selects:
            choices, unchosen = select(searches(plan, select_at), perform, out)
        jobs = [job for job in _jobs(plan, choices) if job.cell not in unchosen]
        for outcome in perform(jobs):
            out.print(f"{outcome.job}: {outcome.problem or 'finished'}")
            if outcome.problem:
                problems[outcome.job] = outcome.problem
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    complete = summary.print_summary(plan, jobs, problems, out)
    for why in unchosen.values():
        out.print(why)
    if interrupted:
        out.print("interrupted; what was trained is kept: go on by the same command")
        return INTERRUPTED
    return 0 if complete and not unchosen else BAD_INPUT


def dry_run(plan: Plan, selects: bool, select_at: float | None, out: Console) -> int:
    """Print what would be done; returns the exit code."""
    out.print(summary.describe(plan, _jobs(plan, {})))
    choices = {}
    for search in searches(plan, select_at) if selects else []:
        found = search.recorded()
        if found is None:
            summary.print_plan(search.jobs, out)
            out.print(f"{search.cell}: then the best of these on the validation images, for all seeds")
        else:
            out.print(f"{search.cell}: {found}")
            choices[search.cell] = found
    summary.print_plan(_jobs(plan, choices), out)
    return 0


def _jobs(plan: Plan, choices: Mapping[Cell, Choice]) -> list[Job]:
    """The runs of all cells, with what was chosen for them."""
    return [job for cell in plan.cells for job in plan.jobs(cell, choices[cell].setting if cell in choices else {})]
