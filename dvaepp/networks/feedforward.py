"""Feed-forward networks of Tables 1 and 2: one linear layer, or tanh layers with batch normalisation."""

from __future__ import annotations

from torch import nn


def feedforward(n_in: int, n_out: int, hidden: tuple[int, ...] = ()) -> nn.Sequential:
    """Fully connected network (B, n_in) -> (B, n_out) with tanh hidden layers; no hidden layer means a linear map.

    Each hidden layer is linear, batch normalisation, tanh. Weights start by variance scaling (Glorot), biases at zero.
    Batch normalisation as in section 7.2's setting: running averages keep 0.8 of the past, epsilon 10^-2. The linear
    layer before it has no bias: normalisation would take it out again.
    """
    layers: list[nn.Module] = []
    width = n_in
    for size in hidden:
        layers += [_linear(width, size, bias=False), nn.BatchNorm1d(size, eps=1e-2, momentum=0.2), nn.Tanh()]
        width = size
    layers.append(_linear(width, n_out))
    return nn.Sequential(*layers)


def _linear(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
