"""What a result was computed on: versions, platform, processor, revision; no names or paths of one machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dvaepp import __version__


def software() -> dict[str, Any]:
    """Versions of the package and of Python, the platform, and the revision of the checkout."""
    return {
        "dvaepp": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "git_revision": git_revision(),
    }


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Version of each library that is installed."""
    found = {}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor in words, with its widest vector instructions."""
    name = platform.processor() or platform.machine()
    facts = _facts(Path("/proc/cpuinfo"))
    name = facts.get("model name", name)
    vectors = next((v for v in ("avx512f", "avx2", "avx") if v in facts.get("flags", "").split()), "")
    return f"{name} {vectors}".strip()


def peak_memory(device: torch.device) -> int | None:
    """Bytes that this process held at most: of torch's on a CUDA device, else of the machine's; None where untold.

    From /proc: the peak that ``resource.getrusage`` tells is inherited from the process that started this one.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    facts = _facts(Path("/proc/self/status"))
    return 1024 * int(facts["VmHWM"].split()[0]) if "VmHWM" in facts else None


def _facts(path: Path) -> dict[str, str]:
    """The lines "key: value" of a file of Linux's /proc; none where it is not there."""
    if not path.exists():
        return {}
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in lines.items()}


def git_revision() -> str | None:
    """Revision of the checkout this package runs from, with '+' if it has uncommitted changes; None outside of one."""
    here = Path(__file__).resolve().parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name], cwd=here, capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return revision.stdout.strip() if tracked.returncode == 0 else None
