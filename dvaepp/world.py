"""The processes that train one model together, as ``torchrun`` starts them; a process alone is a world of one.

    torchrun --nproc-per-node 2 -m dvaepp.train --preset mnist-dvaepp

Each process draws the noise and the order of the images for the whole batch and keeps its share of the rows; each
carries on its share of the chains, by the counters they have in a single process; gradients, terms and the balance of
the KL are means over all. So the numbers are those of one process, up to the rounding of sums taken in another order.
The first process writes.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dvaepp.errors import ConfigError, RunError, UserError

T = TypeVar("T")

#: How long a process waits for the others in silence: a test of all images may take its time.
_PATIENCE = datetime.timedelta(hours=2)


#: How an action ended in a process: well, with an error of its own, with one of another process.
_FINE, _OWN, _OTHER = range(3)


class OtherProcessFailedError(Exception):
    """Another process of the world has an error, and says so; this one has nothing to add."""


class World:
    """``size`` processes, of which this is number ``rank``."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def share(self, count: int, name: str) -> slice:
        """The part of ``count`` rows that is this process's.

        Raises   ConfigError unless all parts are of one size.
        """
        if count % self.size:
            raise ConfigError(
                f"{name} must be a multiple of the {self.size} processes that share it; got {count}: use "
                f"{count // self.size * self.size or self.size}, or another --nproc-per-node"
            )
        own = count // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes of a tensor each has, the same for all of them."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        with collective():
            dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)])
        if dist.get_backend() == "nccl":
            flags = flags.cuda()
        with collective():
            dist.all_reduce(flags)
        return bool(flags.item() > 0)

    def gather(self, value: T) -> list[T]:
        """What each process has, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with collective():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T | None) -> T:
        """What the first process has."""
        if self.size == 1:
            assert value is not None
            return value
        values: list[Any] = [value]
        with collective():
            dist.broadcast_object_list(values, src=0)
        result: T = values[0]
        return result

    def together(self, action: Callable[[], T], *, alone: bool = False) -> T | None:
        """Do something in every process, or in the first one alone; if it fails in any, it fails in all.

        Calls may be nested: what fails inside has then failed outside too.

        Raises   the action's UserError in the first process that has one, OtherProcessFailedError in the others
        """
        result, error, failed = None, None, _FINE
        if self.first or not alone:
            try:
                result = action()
            except UserError as caught:
                error, failed = caught, _OWN
            except OtherProcessFailedError:
                failed = _OTHER
        codes = self.gather(failed)
        if set(codes) == {_FINE}:
            return result
        if error is not None and codes.index(_OWN) == self.rank:
            raise error
        raise OtherProcessFailedError

    def by_first(self, action: Callable[[], T]) -> T:
        """What an action of the first process gives, for all; if it fails there, it fails in all, as ``together``."""
        return self.from_first(self.together(action, alone=True))

    def check_same(self, what: str, own: Mapping[str, Any]) -> None:
        """Raise ConfigError unless all processes have the same values by name."""
        for rank, other in enumerate(self.gather(dict(own))):
            for name, value in own.items():
                if other[name] != value:
                    raise ConfigError(
                        f"all processes must have one {what}; {name} is {value} in process {self.rank} and "
                        f"{other[name]} in process {rank}: start them with the same flags"
                    )


def other_process() -> bool:
    """Whether torchrun started this process, and not as the first one of its machine."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "WORLD_SIZE" in os.environ


@contextlib.contextmanager
def join(device: str) -> Iterator[tuple[World, str]]:
    """The world this process was started in, and the device it should use of those named ``device``.

    With more than one process each has a CUDA device of its own, or they share the CPU.

    Raises   ConfigError for an environment that is not torchrun's.
    """
    if "WORLD_SIZE" not in os.environ:
        yield World(), device
        return
    try:
        rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"WORLD_SIZE is set, but RANK, WORLD_SIZE and LOCAL_RANK are not three numbers ({error}): start the "
            "processes with torchrun, or unset WORLD_SIZE"
        ) from error
    if size == 1:
        yield World(), device
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        # The same for all processes of a machine, so that all of them end, and the first one says why.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        if ":" in device or here > torch.cuda.device_count():
            raise ConfigError(
                f"device must be cuda, cpu or auto for {size} processes, with a CUDA device for each on its machine; "
                f"got {device} and {torch.cuda.device_count()} devices"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    with collective():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield World(rank, size), device
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Say what it means when the processes cannot reach each other in the block.

    Raises   RunError
    """
    try:
        yield
    except RuntimeError as error:  # torch.distributed's own errors are RuntimeErrors, and gloo's are nothing more
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not isinstance(error, dist.DistError) and not re.search("gloo|nccl|peer|connection", reason, re.IGNORECASE):
            raise
        raise RunError(
            f"another process of the group has ended or cannot be reached ({reason}); the last checkpoint is kept: go "
            "on with --resume"
        ) from error
