"""An exponential moving average of a model's weights, to be tested in place of the last ones."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dvaepp.models import Model


class Average:
    """average <- d average + (1 - d) model after every iteration, d = min(decay, (1 + t) / (10 + t)) after t of them.

    The bound on d lets the average forget its first, untrained value. Buffers are the model's own.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model: Model = copy.deepcopy(model)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after iteration ``step`` (counted from 0)."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)
        for mine, own in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(own)
