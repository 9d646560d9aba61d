"""What training asks of a sampler."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection

import torch
from torch import Tensor, nn

from dvaepp.boltzmann import RBM
from dvaepp.config import unknown
from dvaepp.errors import ConfigError


class Sampler(nn.Module):
    """Draws states of a restricted Boltzmann machine whose parameters move a little from call to call.

    All it remembers is in buffers. ``z1`` and ``z2`` hold what the last call returned, ``step`` counts: sweeps of
    "gibbs", rounds of "tempering", calls of the others.

    Shapes   z1 (n_chains, N1), z2 (n_chains, N2), step () int64
    """

    z1: Tensor
    z2: Tensor
    step: Tensor

    @abstractmethod
    def sample(self, rbm: RBM) -> tuple[Tensor, Tensor]:
        """The next states of a machine without leading axes: the buffers z1 and z2, which the next call overwrites."""

    def _remember(self, n_chains: int, n1: int, n2: int) -> None:
        """Register the buffers; states are zero until the first call."""
        self.register_buffer("z1", torch.zeros(n_chains, n1))
        self.register_buffer("z2", torch.zeros(n_chains, n2))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def _keep(self, z1: Tensor, z2: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
        """Put new states into the buffers, in place."""
        self.z1.copy_(z1)
        self.z2.copy_(z2)
        self.step += n_steps
        return self.z1, self.z2


def check_counts(**counts: int) -> None:
    """Raise ConfigError for the first count below 1."""
    for argument, count in counts.items():
        if count < 1:
            raise ConfigError(f"{argument} must be at least 1; got {count}")


def unknown_sampler(name: str, known: Collection[str]) -> ConfigError:
    """The error for a name that stands for no sampler, with the nearest one, or all of them."""
    line = unknown("sampler", name, known)
    return ConfigError(line if line.endswith("?") else f"{line}; there are: {', '.join(known)}, or module:object")
