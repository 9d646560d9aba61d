"""Images on the device as one tensor, and the batches drawn from it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from dvaepp.data.dataset import Dataset, Pixels, check_binarisable


class TrainingImages:
    """The training images of a data set on a device, in an order that is a function of (seed, epoch) alone.

    With ``binarise`` grey images become binary ones, drawn anew in every batch; without, they stay what they are, for
    likelihoods of 256 levels.

    Shapes   pixels (N, D) uint8, kept as they are: one byte a pixel; a batch is float32 (B, D)
    Domain   a batch is in {0, 1} with ``binarise`` or of binary images, else whole numbers 0..255
    Raises   DataError for colour images with ``binarise``.
    """

    def __init__(self, dataset: Dataset, device: torch.device, seed: int, binarise: bool = True) -> None:
        if binarise:
            check_binarisable(dataset)
        self.pixels = to_device(dataset.train, device)
        self.levels = dataset.levels
        self._draws = binarise and dataset.levels > 1
        self._seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64, device=device)

    def reseeded(self, seed: int) -> TrainingImages:
        """The same images, in the same memory, in another seed's order."""
        other = copy.copy(self)
        other._seed, other._epoch = seed, -1
        return other

    def mean(self) -> Tensor:
        """Mean training image in [0, 1], (D,)."""
        return (self.pixels.sum(0, dtype=torch.float64) / (len(self.pixels) * self.levels)).float()

    def batch(self, step: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Images of iteration ``step``; to be binarised, they are drawn anew, on with probability grey/255.

        Every epoch visits the images in a new random order and drops the incomplete last batch.
        """
        epoch, position = divmod(step, len(self.pixels) // batch_size)
        if epoch != self._epoch:
            words = np.random.SeedSequence([self._seed, epoch]).generate_state(1, np.uint64)
            shuffle = torch.Generator(self.pixels.device).manual_seed(int(words[0] >> np.uint64(1)))
            self._order = torch.randperm(len(self.pixels), generator=shuffle, device=self.pixels.device)
            self._epoch = epoch
        chosen = self.pixels[self._order[position * batch_size : (position + 1) * batch_size]]
        if not self._draws:
            return chosen.float()
        u = torch.rand(chosen.shape, generator=generator, device=chosen.device)
        return (u * self.levels < chosen).float()


def to_device(pixels: Pixels, device: torch.device) -> Tensor:
    """A writable copy of (N, D) uint8 images as a tensor on the device."""
    return torch.from_numpy(pixels.copy()).to(device)
