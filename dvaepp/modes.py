"""Which classes the modes of the global latents capture: the labels of images beside the z that they are inferred to.

No model here is trained on labels. z, one draw for each image, is a discrete variable with as many values as there are
modes in use; its mutual information with the label says how much of the class it tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference.vocabulary import Array

#: Permutations of the labels whose mean mutual information is the bias of a finite sample.
_SHUFFLES = 20


@dataclass(frozen=True)
class Modes:
    """How labels fall on modes.

    counts    (M, C) images of each mode and class, the most frequent modes first
    mutual_information  of mode and label in nats, from these counts less the mean of what shuffled labels give
    chance    that mean: what so many images and modes would show were there nothing to see
    entropy   of the labels in nats: the most there is to know
    """

    counts: Array
    mutual_information: float
    chance: float
    entropy: float


def modes_and_classes(z: Array, labels: Array, seed: int) -> Modes:
    """Count images by their latents and their labels.

    Shapes   z (N, n_latents) in {0, 1}, labels (N,) whole numbers
    """
    _, mode = np.unique(z.astype(np.uint8), axis=0, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    counts = _counts(mode.ravel(), label)
    shuffled = np.random.default_rng(seed)
    chance = float(
        np.mean([_mutual_information(_counts(mode.ravel(), shuffled.permutation(label))) for _ in range(_SHUFFLES)])
    )
    order = np.argsort(-counts.sum(1), kind="stable")
    return Modes(counts[order], _mutual_information(counts) - chance, chance, _entropy(counts.sum(0)))


def _counts(mode: Array, label: Array) -> Array:
    counts = np.zeros((mode.max() + 1, label.max() + 1))
    np.add.at(counts, (mode, label), 1)
    return counts


def _mutual_information(counts: Array) -> float:
    """H(mode) + H(label) - H(both), of relative frequencies."""
    return _entropy(counts.sum(1)) + _entropy(counts.sum(0)) - _entropy(counts.ravel())


def _entropy(counts: Array) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
