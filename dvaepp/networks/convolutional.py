"""Convolutional networks of DVAE++: residual blocks with squeeze-and-excitation, at one scale, downward and upward.

There is no normalisation in them: batch statistics would tie the images of a batch, and the shares of a batch on
several devices, to each other. What keeps tens of blocks in a row stable from the first step is that each begins as
nearly the identity: the branch beside it is multiplied by a learned number that starts small.

Source   DVAE++ (arXiv:1802.04920), section 6.2; He et al. (2016); Hu et al. (2017). The sizes are ours.
Departs  the paper normalises batches; in place of it the branches' gain, after De & Smith (2020), "Batch normalization
         biases residual blocks towards the identity function in deep networks".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Gain of the branch of a residual block at first.
INITIAL_GAIN = 0.1
#: Mean square of silu(x) for a standard normal x.
SILU_POWER = 0.3558
#: Channels for each hidden unit of squeeze-and-excitation, and the fewest of these.
_REDUCTION, _FEWEST = 8, 4


def convolution(n_in: int, n_out: int, size: int = 3, stride: int = 1, zero: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size of a map (or halves it, by stride 2), by variance scaling or all zero.

    The variance is that of He et al. (2015) for what has gone through a SiLU; biases start at zero.
    """
    layer = nn.Conv2d(n_in, n_out, size, stride, padding=size // 2)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=1 / math.sqrt(SILU_POWER * n_in * size * size))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class SqueezeExcitation(nn.Module):
    """Each channel times a number in (0, 2) that depends on all channels' means over the map; 1 at first.

    Shapes   (B, C, H, W) -> (B, C, H, W)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(_FEWEST, channels // _REDUCTION)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The map with its channels scaled."""
        gate = 2 * self.excite(functional.silu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * gate[:, :, None, None]


class ResidualBlock(nn.Module):
    """x + gain * SE(conv(silu(conv(silu(x))))).

    Shapes   (B, C, H, W) -> (B, C, H, W)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = convolution(channels, channels)
        self.excitation = SqueezeExcitation(channels)
        self.gain = nn.Parameter(torch.full((), INITIAL_GAIN))

    def forward(self, x: Tensor) -> Tensor:
        """The map, changed a little."""
        branch = self.second(functional.silu(self.first(functional.silu(x))))
        return x + self.gain * self.excitation(branch)


class Down(nn.Module):
    """Halves the map: a mean over 2 x 2 and a change of channels, beside a branch whose first convolution has stride 2.

    Shapes   (B, n_in, 2 H, 2 W) -> (B, n_out, H, W)
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.skip = convolution(n_in, n_out, size=1)
        self.first = convolution(n_in, n_out, stride=2)
        self.second = convolution(n_out, n_out)
        self.excitation = SqueezeExcitation(n_out)
        self.gain = nn.Parameter(torch.full((), 1.0))  # there are few of them in a row, and a mean alone is no edge

    def forward(self, x: Tensor) -> Tensor:
        """The map at half the size."""
        branch = self.second(functional.silu(self.first(functional.silu(x))))
        return self.skip(functional.avg_pool2d(x, 2)) + self.gain * self.excitation(branch)


class Up(nn.Module):
    """Doubles the map: each position four times, after a change of channels; then a residual block.

    Shapes   (B, n_in, H, W) -> (B, n_out, 2 H, 2 W)
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.change = convolution(n_in, n_out, size=1)
        self.block = ResidualBlock(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """The map at twice the size."""
        larger: Tensor = self.block(functional.interpolate(self.change(x), scale_factor=2.0, mode="nearest"))
        return larger


def blocks(channels: int, count: int) -> nn.Sequential:
    """So many residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
