"""The Langevin function L(x) = coth x - 1/x: moments of a truncated exponential, and the KL of two logistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.special import zeta
from torch import Tensor

# L(x) = sum over n >= 1 of c_n x^(2n - 1), |x| < pi; at x = 1 the first term left out is below 2^-53 of the first.
_SERIES = [2 * (-1) ** (n + 1) * float(zeta(2 * n)) / math.pi ** (2 * n) for n in range(1, 18)]
_SLOPE = [(2 * n - 1) * c for n, c in enumerate(_SERIES, 1)]


def twice_x_langevin(difference: Tensor) -> Tensor:
    """2 x L(x) = 2 (x coth x - 1) for x = difference/2: even, about difference^2/6, then |difference| - 2."""
    square = (difference / 2).square()
    near = square < 1
    size = torch.where(near, 2.0, difference.abs())
    decay = torch.exp(-size)
    far = size * (1 + decay) / -torch.expm1(-size) - 2
    inner = torch.where(near, square, 0.0)
    return torch.where(near, 2 * inner * _polynomial(_SERIES, inner), far)


def tilted_uniform(beta: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the density proportional to e^{-beta zeta} on [0, 1].

    mean = 1/beta - 1/(e^beta - 1) = (1 - L(beta/2))/2,   variance = 1/beta^2 - 1/(4 sinh(beta/2)^2) = L'(beta/2)/4

    Shapes   beta any, in float64, positive -> two of its shape
    Units    none
    """
    gentle = beta < 2  # where the differences cancel
    half = torch.where(gentle, beta / 2, 0.0)
    sharp = torch.where(gentle, 2.0, beta)
    decay, rest = torch.exp(-sharp), -torch.expm1(-sharp)
    square = half.square()
    mean = torch.where(gentle, (1 - half * _polynomial(_SERIES, square)) / 2, 1 / sharp - decay / rest)
    variance = torch.where(gentle, _polynomial(_SLOPE, square) / 4, 1 / sharp.square() - decay / rest.square())
    return mean, variance


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = torch.zeros_like(x)
    for c in reversed(coefficients):
        value = value * x + c
    return value
