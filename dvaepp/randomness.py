"""Seeds with a purpose, and torch's own generators addressed by them.

A run has one seed. Everything that draws takes a seed of its own, named by what it is for, so that no two uses share a
stream and none depends on what was drawn before it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Uniform noise is kept off 0, where logits are infinite: torch's float32 numbers are multiples of 2^-24.
SMALLEST_UNIFORM = 2.0**-25


def named_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2**63) for one purpose, from the run's seed."""
    sequence = np.random.SeedSequence([seed, *purpose.encode()])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(device: torch.device, seed: int, purpose: str) -> torch.Generator:
    """A generator on the device whose stream is named by the run's seed and what it is for."""
    return torch.Generator(device).manual_seed(named_seed(seed, purpose))


class AddressedUniforms:
    """Uniforms of torch's own generator whose future depends on (seed, step) and on nothing else.

    ``at(step)`` seeds the generator anew; the draws of that step follow in the order in which they are asked for.
    Consecutive steps have consecutive seeds, so that no two of 2**32 share one: that is as many as torch's generator
    on the CPU tells apart. The numbers are torch's, not those of ``reference.philox``, and differ between devices.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int, purpose: str) -> None:
        self._generator = torch.Generator(device)
        self._device, self._dtype, self._first = device, dtype, named_seed(seed, purpose)

    def at(self, step: int) -> AddressedUniforms:
        """Go to the beginning of a step's numbers."""
        self._generator.manual_seed((self._first + step) % 2**63)
        return self

    def draw(self, *shape: int) -> Tensor:
        """The next uniforms in [0, 1)."""
        return torch.rand(shape, generator=self._generator, device=self._device, dtype=self._dtype)
