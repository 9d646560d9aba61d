"""Candidates of a cell -> the setting that is best on the validation images, as the paper chose its own.

Every candidate is an ordinary run of seed 0, in a hidden folder beside the cell's runs: it can be interrupted and gone
on with, and ``validation tables`` does not take it for a result. What was found is in ``selection.json``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from dvaepp.atomic import write_text
from dvaepp.checkpoint import load
from dvaepp.errors import RunError
from dvaepp.experiments.plan import Job, Plan, State, look, without_whereabouts
from dvaepp.experiments.runner import Outcome
from dvaepp.experiments.tables import Cell
from dvaepp.run_folder import RunFolder

_FOLDER, _RECORD = ".selection", "selection.json"
#: The test of a candidate is not looked at.
_QUICK_TEST = {"n_importance": 1, "ais_temperatures": 100, "ais_chains": 64}


@dataclass(frozen=True)
class Choice:
    """What was chosen for a cell, and from how many."""

    setting: Mapping[str, Any]
    log_likelihood: float
    n_candidates: int

    def __str__(self) -> str:
        words = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        return f"{words}: validation log p {self.log_likelihood:.2f} nats, the best of {self.n_candidates}"


class Search:
    """The candidates of one cell; ``plan`` has the scale at which they are compared."""

    def __init__(self, plan: Plan, cell: Cell) -> None:
        self.cell = cell
        self.candidates = plan.table.candidates(cell, plan.changes)
        self.record = plan.folder(cell) / _RECORD
        base = plan.config(cell, 0).with_evaluation(**_QUICK_TEST)
        self._problem = without_whereabouts(base)
        self.jobs = [
            Job(
                cell,
                plan.folder(cell) / _FOLDER / _label(candidate),
                plan.config(cell, 0, candidate).with_evaluation(**_QUICK_TEST),
            )
            for candidate in self.candidates
        ]

    def recorded(self) -> Choice | None:
        """What an earlier search found, if it was the same search.

        Raises   RunError if there is a record that is damaged, or of another search.
        """
        if not self.record.exists():
            return None
        way_out = "choose another --out, or move it away to have the selection made anew"
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))
            same = found["settings"] == self._problem and _settings(found) == self.candidates
            choice = Choice(found["chosen"], float(found["log_likelihood"]), len(self.candidates))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.record} is no whole record ({type(error).__name__}: {error}); {way_out}") from error
        if not same or choice.setting not in self.candidates:
            raise RunError(f"{self.record} is of another selection: other settings or candidates; {way_out}")
        return choice

    def choose(self, outcomes: Mapping[Job, Outcome]) -> Choice:
        """Choose by what the finished candidates have on the validation images, and write the record.

        A candidate that diverged is none.

        Raises   RunError if some are not finished, or none is left.
        """
        values = []
        for job in self.jobs:
            outcome, status = outcomes[job], look(job)
            if status.state is State.FINISHED:
                values.append(_validation(RunFolder(job.path)))
            elif outcome.diverged:
                values.append(-math.inf)
            else:
                why = outcome.problem or status.problem or str(status.state)
                raise RunError(f"{self.cell}: nothing is chosen yet; {job.path.name}: {why}")
        best = max(range(len(values)), key=values.__getitem__)
        if values[best] == -math.inf:
            raise RunError(f"{self.cell}: no candidate could be trained; the first: {outcomes[self.jobs[0]].problem}")
        rows = [
            {
                "setting": candidate,
                "log_likelihood": value if value > -math.inf else None,
                "problem": outcomes[job].problem,
                "run": str(job.path.relative_to(self.record.parent)),
            }
            for candidate, value, job in zip(self.candidates, values, self.jobs, strict=True)
        ]
        record = {
            "what": "chosen by the mean log p(x) of the validation images at the best validation of seed 0, in nats",
            "chosen": self.candidates[best],
            "log_likelihood": values[best],
            "candidates": rows,
            "settings": self._problem,
        }
        write_text(self.record, json.dumps(record, indent=2) + "\n")
        return Choice(self.candidates[best], values[best], len(rows))


def searches(plan: Plan, scale: float | None) -> list[Search]:
    """The searches of all cells that have something to choose among, at a scale of their own if one is given."""
    plan = plan if scale is None else replace(plan, scale=scale)
    found = [Search(plan, cell) for cell in plan.cells]
    return [search for search in found if len(search.candidates) > 1]


def select(
    searches: Sequence[Search], perform: Callable[[Sequence[Job]], Iterable[Outcome]], out: Console
) -> tuple[dict[Cell, Choice], dict[Cell, str]]:
    """Train the candidates of all searches that are still to be made, and choose.

    Returns  what was chosen for each cell, and for cells where nothing could be, why
    """
    choices: dict[Cell, Choice] = {}
    problems: dict[Cell, str] = {}
    todo = []
    for search in searches:
        try:
            found = search.recorded()
        except RunError as error:
            problems[search.cell] = str(error)
            continue
        if found is None:
            todo.append(search)
        else:
            choices[search.cell] = found
    jobs = [job for search in todo for job in search.jobs]
    if jobs:
        out.print(f"selection: {len(jobs)} candidates of {len(todo)} cells, seed 0")
    outcomes = {}
    for outcome in perform(jobs):
        outcomes[outcome.job] = outcome
        out.print(f"{outcome.job.cell}, {outcome.job.path.name}: {outcome.problem or 'finished'}")
    for search in todo:
        try:
            choices[search.cell] = search.choose(outcomes)
        except RunError as error:
            problems[search.cell] = str(error)
    for cell, choice in choices.items():
        out.print(f"{cell}: {choice}")
    return choices, problems


def _label(candidate: Mapping[str, Any]) -> str:
    """A folder's name for a candidate."""
    text = ",".join(f"{name}={value}" for name, value in candidate.items())
    return re.sub(r"[^A-Za-z0-9=,._+-]", "_", text)


def _settings(record: Mapping[str, Any]) -> list[Any]:
    return [row["setting"] for row in record["candidates"]]


def _validation(folder: RunFolder) -> float:
    """log p(x) of the validation images at the best validation, in nats."""
    _, facts = load(folder.best)
    return float(facts["log_marginal"])
