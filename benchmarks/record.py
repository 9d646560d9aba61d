"""Keep what a run measured: ``python -m benchmarks.record RUN NAME`` writes benchmarks/DATE-NAME.json.

RUN may be a folder of runs, as ``python -m dvaepp.experiment`` leaves it: the tested ones come into one file. The
record of each holds the configuration without paths, versions and device, the validation rows and every evaluation.
Numbers are copied from the run folder, never typed.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dvaepp.atomic import write_text
from dvaepp.command import run
from dvaepp.errors import ConfigError
from dvaepp.run_folder import RunFolder


def record(folder: RunFolder) -> dict[str, Any]:
    """The record of a run that was tested.

    Raises   ConfigError if it was not.
    """
    evaluations = [json.loads(path.read_text()) for path in sorted(folder.path.glob("evaluation-K*.json"))]
    if not evaluations:
        raise ConfigError(f"{folder.path} has no evaluation yet; run python -m dvaepp.evaluate {folder.path}")
    config = folder.config().to_dict()
    config["data"]["data"] = Path(config["data"]["data"]).name  # no paths of one machine
    del config["data"]["data_dir"]
    environment = json.loads((folder.path / "environment.json").read_text())
    del environment["command"]
    metrics = folder.read_metrics()
    return {
        "config": config,
        "environment": environment,
        "iterations": metrics[-1]["step"],
        "training_seconds": metrics[-1]["seconds"],
        "evaluations": evaluations,
        "validation": [row for row in metrics if "valid" in row],
    }


def main(arguments: list[str]) -> int:
    """Write the record of the run folder given; returns the exit code."""
    if len(arguments) != 2:
        raise ConfigError("give a run folder and a name: python -m benchmarks.record RUN NAME")
    where = Path(arguments[0])
    tested = sorted({path.parent for path in where.rglob("evaluation-K*.json")} - {where})
    content = {"runs": [record(RunFolder.open(path)) for path in tested]} if tested else record(RunFolder.open(where))
    path = Path(__file__).parent / f"{datetime.now(UTC):%Y-%m-%d}-{arguments[1]}.json"
    write_text(path, json.dumps(content, indent=None if tested else 2) + "\n")
    print(f"{path}: {max(1, len(tested))} runs")
    return 0


if __name__ == "__main__":
    run("record", lambda: main(sys.argv[1:]))
