"""Writing down what was timed: a dated JSON file with every number, and the same as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers import Missing
from benchmarks.timing import Timing
from dvaepp.atomic import write_text
from dvaepp.environment import n_cores, software, versions
from dvaepp.errors import ConfigError

HERE = Path(__file__).parent
_LIBRARIES = ("numpy", "torch", "numba", "numba-cuda", "cupy-cuda12x", "cupy-cuda13x", "scikit-learn", "rbms")


@dataclass(frozen=True)
class Row:
    """One candidate in one case: median and quartiles of its times, and how much longer it took than ours.

    ``rate`` is in the unit of the section, larger is better. A candidate that could not run has a reason instead.
    """

    candidate: str
    median_seconds: float | None = None
    quartiles_seconds: tuple[float, float] | None = None
    rate: float | None = None
    times_ours: float | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Case:
    """One table: what was computed, by whom, how fast, and what was asked of us with the verdict."""

    title: str
    unit: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)


def rows(
    timings: Mapping[str, Timing], work: float, ours: str, missing: Mapping[str, Missing] | None = None
) -> list[Row]:
    """Rows in the order of speed; ``work`` is what one call does, so that work / seconds is the rate."""
    found = [
        Row(name, timing.median, timing.quartiles, work / timing.median, timing.ratio_to(timings[ours]))
        for name, timing in sorted(timings.items(), key=lambda item: item[1].median)
    ]
    return found + [Row(name, missing=why.reason) for name, why in (missing or {}).items()]


def cases_of(
    sections: Mapping[str, Callable[..., Sequence[Case]]], chosen: Sequence[str], *arguments: Any
) -> list[Case]:
    """The cases of the sections chosen, each given the arguments; says which is under way.

    Raises   ConfigError for a section there is not, before any is run.
    """
    for name in chosen:
        if name not in sections:
            raise ConfigError(f"sections must be of {', '.join(sections)}; got {name!r}")
    cases: list[Case] = []
    for name in chosen:
        print(f"{name} ...", flush=True)
        cases += sections[name](*arguments)
    return cases


def environment(device: str) -> dict[str, Any]:
    """Device, cores and versions; no names or paths of one machine."""
    return {
        "device": device,
        "cores": n_cores(),
        "torch_threads": torch.get_num_threads(),
        **software(),
        "versions": versions(_LIBRARIES),
    }


def write(name: str, env: Mapping[str, Any], cases: Sequence[Case], command: str) -> tuple[Path, Path]:
    """Write benchmarks/DATE-NAME.json and .md; returns both paths."""
    stem = f"{datetime.now(UTC):%Y-%m-%d}-{name}"
    record = {"command": command, "environment": dict(env), "cases": [asdict(case) for case in cases]}
    json_path, markdown_path = HERE / f"{stem}.json", HERE / f"{stem}.md"
    write_text(json_path, json.dumps(record, indent=2, default=_plain) + "\n")
    write_text(markdown_path, markdown(stem, env, cases, command))
    return json_path, markdown_path


def markdown(title: str, env: Mapping[str, Any], cases: Sequence[Case], command: str) -> str:
    """The tables as Markdown."""
    versions = ", ".join(f"{library} {version}" for library, version in env["versions"].items())
    lines = [
        f"# {title}",
        "",
        f"`{command}` on {env['device']}, {env['cores']} cores, {env['torch_threads']} threads of torch; "
        f"Python {env['python']}, {versions}.",
        "",
        "Medians of rounds in which all candidates of a table took turns in one process; in brackets the quartiles.",
        "",
    ]
    for case in cases:
        lines += [f"## {case.title}", ""]
        if case.rows:
            lines += [f"| | ms | {case.unit} | time, in units of ours |", "|---|---|---|---|"]
        for row in case.rows:
            if row.missing is not None or row.median_seconds is None or row.quartiles_seconds is None:
                lines.append(f"| {row.candidate} | not measured: {row.missing} | | |")
                continue
            low, high = (1e3 * quartile for quartile in row.quartiles_seconds)
            lines.append(
                f"| {row.candidate} | {1e3 * row.median_seconds:.4g} [{low:.4g}, {high:.4g}] "
                f"| {row.rate:.4g} | {row.times_ours:.2f} |"
            )
        lines += [*([""] if case.rows else []), *(f"- {note}" for note in case.notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
