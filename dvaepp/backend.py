"""Which implementation computes the hot loops: torch's own operations, or a backend of ``accelerated``.

``torch`` is the plain twin of ``reference`` in this package. It runs on every device of torch, draws its random numbers
from torch's generators and is what is left where no backend can run. All backends of ``accelerated`` draw the numbers
of ``reference.philox``, and so share their chains.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

import accelerated
from accelerated import Backend, BackendUnavailable
from accelerated.protocol import OPERATIONS
from dvaepp.config import unknown
from dvaepp.errors import ConfigError

TORCH = "torch"
AUTO = "auto"

#: What ``bridge`` calls; a backend that lacks one of them cannot train.
_NEEDED = OPERATIONS - {"importance_log_mean"}


class Choice(NamedTuple):
    """The name of what computes, and why it is not something faster (empty if nothing is)."""

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"backend: {self.name}" + (f" ({self.reason})" if self.reason else "")


@functools.cache
def load(name: str) -> Backend:
    """The backend of ``accelerated`` by its name; every name is looked up once.

    Raises   accelerated.BackendUnavailable if it cannot run here.
    """
    return accelerated.load(name)


def choose(name: str, device: torch.device) -> Choice:
    """The backend named, as ``accelerated.load`` takes it, or with "auto" the fastest that can run on the device.

    Raises   ConfigError for an unknown name (with the nearest one), and for a backend that cannot run on the device.
    """
    if name == AUTO:
        return _fastest(device)
    if name == TORCH:
        return Choice(TORCH)
    if ":" not in name and name not in accelerated.names():
        raise ConfigError(unknown("backend", name, (AUTO, TORCH, *accelerated.names())))
    try:
        backend = load(name)
    except BackendUnavailable as error:
        raise ConfigError(f"{_first_line(error)}; use --backend {AUTO}") from error
    if backend.device != device.type:
        raise ConfigError(f"backend {name!r} runs on {backend.device}, not on {device.type}; see --device")
    missing = _NEEDED - backend.operations()
    if missing:
        raise ConfigError(f"backend {name!r} lacks {', '.join(sorted(missing))}; use --backend {AUTO}")
    return Choice(name)


def choose_again(name: str, used: str, device: torch.device) -> Choice:
    """As ``choose``, for a run that has ``used`` a backend: with "auto" that one, if it can run on the device.

    Raises   as ``choose``.
    """
    if name != AUTO:
        return choose(name, device)
    try:
        return choose(used, device)
    except ConfigError:
        return choose(AUTO, device)


def _fastest(device: torch.device) -> Choice:
    found = accelerated.fastest(device.type, _NEEDED)
    # The sentence already names the backend: "backend 'x' cannot run here: why".
    reasons = [why.replace(f"backend {name!r}", name, 1) for name, why in found.reasons.items()]
    return Choice(TORCH if found.backend is None else found.backend.name, "; ".join(reasons))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
