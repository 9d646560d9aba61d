"""Feed-forward networks of Tables 1 and 2: one linear layer, or tanh layers, with or without batch normalisation.

Layers take leading axes: with weights (..., out, in) and inputs (..., B, in) each index of the leading axes is a
network of its own, and all of them are one batched matrix product. ``dvaepp.replicas`` stacks networks so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

#: Section 7.2's setting: running averages keep 0.8 of the past (torch counts what is new), epsilon 10^-2.
_MOMENTUM, _EPSILON = 0.2, 1e-2


class Linear(nn.Linear):
    """``torch.nn.Linear`` whose weight (..., out, in) and bias (..., out) may have leading axes."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., B, in) -> (..., B, out)."""
        if self.weight.ndim == 2:
            return functional.linear(x, self.weight, self.bias)
        product = x @ self.weight.mT
        return product if self.bias is None else product + self.bias.unsqueeze(-2)


class BatchNorm(nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` over axis B of (..., B, width), with statistics of its own for each leading index."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., B, width) -> (..., B, width)."""
        if self.weight.ndim == 1:
            return super().forward(x)
        # One normalisation of all widths next to each other: what is one replica's column is no other's.
        *leading, rows, width = x.shape
        columns = x.reshape(-1, rows, width).transpose(0, 1).reshape(rows, -1)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        normalised = functional.batch_norm(
            columns,
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.reshape(-1),
            self.bias.reshape(-1),
            self.training,
            self.momentum,
            self.eps,
        )
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return normalised.view(rows, -1, width).transpose(0, 1).reshape(*leading, rows, width)


@contextlib.contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Within the block, batch normalisation goes on by batch statistics but leaves its running averages alone.

    For evaluations of a network beside the one that counts: a batch must enter the averages once.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]
    before = [layer.momentum for layer in layers]
    counts = [layer.num_batches_tracked for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, momentum, count in zip(layers, before, counts, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked = count


def feedforward(n_in: int, n_out: int, hidden: tuple[int, ...] = (), batch_norm: bool = True) -> nn.Sequential:
    """Fully connected network (..., B, n_in) -> (..., B, n_out) with tanh hidden layers; none of them: a linear map.

    Each hidden layer is linear, batch normalisation (unless switched off), tanh. Weights start by variance scaling
    (Glorot), biases at zero. The linear layer before a normalisation has no bias: it would be taken out again.
    """
    layers: list[nn.Module] = []
    width = n_in
    for size in hidden:
        layers.append(_linear(width, size, bias=not batch_norm))
        if batch_norm:
            layers.append(BatchNorm(size, eps=_EPSILON, momentum=_MOMENTUM))
        layers.append(nn.Tanh())
        width = size
    layers.append(_linear(width, n_out))
    return nn.Sequential(*layers)


def _linear(n_in: int, n_out: int, bias: bool = True) -> Linear:
    layer = Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
