"""Colour in a Dataset: its shape, its digest, and that it is never binarised; batches of images as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dvaepp.data import Dataset, load
from dvaepp.data.batches import TrainingImages
from dvaepp.errors import DataError

CPU = torch.device("cpu")
REFUSED = (
    "toy: colour images cannot be binarised; they are modelled by mixtures of discretised logistics: "
    "--likelihood logistic-mixture"
)


def dataset(**changes: object) -> Dataset:
    random = np.random.default_rng(0)
    splits = {
        split: random.integers(0, 256, (n, 18), np.uint8) for split, n in (("train", 30), ("valid", 2), ("test", 3))
    }
    fields = {"name": "toy", **splits, "levels": 255, "image_shape": (2, 3), "channels": 3, "provenance": "made up"}
    return Dataset(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, r"toy: channels must be 1 \(binary or grey\) or 3 \(colour\); got 2"),
        ({"channels": 0}, "toy: channels must be 1"),
        ({"levels": 1}, r"toy: binary images \(levels 1\) must have 1 channel; got 3"),
        ({"image_shape": (3, 6)}, "toy, train: image_shape 3x6 with 3 channels needs 54 pixels an image; there are 18"),
        ({"channels": 1}, "toy, train: image_shape 2x3 needs 6 pixels an image; there are 18"),
    ],
)
def test_refuses(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        dataset(**changes)


def test_digests_of_before_there_was_colour() -> None:
    """Written down then: run folders remember the first."""
    assert load("digits").digest == "1b037491b387fd3f979db1ea8add0aa7"
    bits = np.eye(4, dtype=np.uint8)
    assert Dataset("b", bits, bits, bits, 1, (2, 2), provenance="").digest == "89862fc16877b70d4e541f652ca05bd2"


def test_colour_has_a_digest_of_its_own() -> None:
    colour = dataset()
    grey = replace(colour, channels=1, image_shape=(3, 6))
    assert colour.digest == dataset(name="other").digest
    assert colour.digest != grey.digest


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_colour_is_not_binarised(split: str) -> None:
    for attempt in (lambda: dataset().binarised(0), lambda: dataset().binarised_split(split, 0)):
        with pytest.raises(DataError) as caught:
            attempt()
        assert str(caught.value) == REFUSED
    with pytest.raises(DataError) as caught:
        TrainingImages(dataset(), CPU, seed=0)
    assert str(caught.value) == REFUSED


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_of_images_as_they_are(channels: int) -> None:
    """Every image once an epoch, as whole numbers 0..255, without a random number; other seeds give other orders."""
    data = dataset(channels=channels, image_shape=(2, 3) if channels == 3 else (3, 6))
    images = TrainingImages(data, CPU, seed=1, binarise=False)
    noise = torch.Generator().manual_seed(0)
    before = noise.get_state()
    batches = [images.batch(step, 10, noise) for step in range(6)]
    assert torch.equal(noise.get_state(), before)
    assert {(batch.dtype, batch.shape) for batch in batches} == {(torch.float32, (10, 18))}
    for epoch in (batches[:3], batches[3:]):
        assert sorted(torch.cat(epoch).tolist()) == sorted(data.train.astype(float).tolist())
    other = images.reseeded(2)
    assert not torch.equal(other.batch(0, 10, noise), batches[0])
    np.testing.assert_allclose(images.mean().numpy(), data.train.mean(0) / 255, rtol=1e-6)


def test_batches_are_in_the_order_of_binarised_ones() -> None:
    """The order is a function of seed and epoch alone: black and white images, which no noise changes, agree."""
    ends = np.random.default_rng(1).integers(0, 2, (20, 6), np.uint8) * np.uint8(255)
    data = dataset(train=ends, valid=ends, test=ends, channels=1)
    noise = torch.Generator().manual_seed(0)
    as_they_are, drawn = (TrainingImages(data, CPU, seed=3, binarise=choice) for choice in (False, True))
    for step in range(4):
        assert torch.equal(as_they_are.batch(step, 10, noise), 255 * drawn.batch(step, 10, noise))


def test_binary_images_stay_binary() -> None:
    bits = np.random.default_rng(2).integers(0, 2, (20, 6), np.uint8)
    data = dataset(train=bits, valid=bits, test=bits, levels=1, channels=1)
    noise = torch.Generator()
    batch = TrainingImages(data, CPU, seed=3, binarise=False).batch(0, 20, noise)
    assert torch.equal(batch, TrainingImages(data, CPU, seed=3).batch(0, 20, noise))
    assert sorted(batch.tolist()) == sorted(bits.astype(float).tolist())
