"""Batches: every image once an epoch, an order that (seed, epoch) decide, and fair binarisation."""

import numpy as np
import pytest
import torch

from dvaepp.data.batches import TrainingImages, to_device
from dvaepp.data.dataset import Dataset

CPU = torch.device("cpu")


def numbered(n_images, levels=1):
    """Images that spell their own number in eight binary pixels (or grey 0 and 255)."""
    numbers = np.arange(n_images)[:, None]
    pixels = ((numbers >> np.arange(8)) & 1).astype(np.uint8) * levels
    return Dataset("numbered", pixels, pixels[:1], pixels[:1], levels, (2, 4), provenance="made by a test")


def number_of(batch):
    return (batch.numpy() @ 2 ** np.arange(8)).astype(int).tolist()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("levels", [1, 255])
@pytest.mark.parametrize(("n_images", "batch_size"), [(60, 10), (60, 60), (60, 1)])
def test_every_epoch_visits_each_image_once_in_a_new_order(n_images, batch_size, levels):
    images = TrainingImages(numbered(n_images, levels), CPU, seed=3)
    steps = n_images // batch_size
    orders = []
    for epoch in range(4):
        order = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            batch = images.batch(step, batch_size, generator())
            assert batch.dtype == torch.float32
            assert batch.shape == (batch_size, 8)
            order += number_of(batch)
        assert sorted(order) == list(range(n_images))
        orders.append(tuple(order))
    assert len({*orders, tuple(range(n_images))}) == 5


def test_an_incomplete_last_batch_is_dropped():
    images, left_out = TrainingImages(numbered(25), CPU, seed=3), []
    for epoch in range(3):
        first, second = (number_of(images.batch(2 * epoch + i, 10, generator())) for i in range(2))
        assert len({*first, *second}) == 20
        left_out.append({*range(25)} - {*first, *second})
    assert left_out[0] != left_out[1] or left_out[1] != left_out[2]  # not always the same ones


def test_a_batch_is_a_function_of_seed_step_and_generator():
    grey = np.random.default_rng(0).integers(0, 256, size=(30, 8)).astype(np.uint8)
    dataset = Dataset("grey", grey, grey[:1], grey[:1], 255, (2, 4), provenance="made by a test")
    forwards = TrainingImages(dataset, CPU, seed=5)
    in_order = [forwards.batch(step, 10, generator(step)) for step in range(12)]
    # Steps out of order, another instance, epochs left and entered again: the same batches.
    backwards = TrainingImages(dataset, CPU, seed=5)
    for step in reversed(range(12)):
        assert torch.equal(backwards.batch(step, 10, generator(step)), in_order[step])
    other = TrainingImages(dataset, CPU, seed=6)
    assert not all(torch.equal(other.batch(step, 10, generator(step)), in_order[step]) for step in range(12))
    assert not torch.equal(backwards.batch(3, 10, generator(99)), in_order[3])  # binarised by other noise
    # The global generator plays no part, and is left alone.
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(backwards.batch(7, 10, generator(7)), in_order[7])
    assert torch.equal(torch.get_rng_state(), before)


def test_dynamic_binarisation_has_the_right_frequencies():
    """256 greys, 20,000 draws each: frequencies beyond 6 standard errors with probability 2e-9 each, 5e-7 in all.

    Black is never on and white never off.
    """
    grey = np.tile(np.arange(256, dtype=np.uint8), (100, 1))
    dataset = Dataset("greys", grey, grey[:1], grey[:1], 255, (16, 16), provenance="made by a test")
    images = TrainingImages(dataset, CPU, seed=0)
    noise, repeats = generator(1), 20_000
    total = torch.zeros(256)
    for step in range(repeats // 100):
        batch = images.batch(step, 100, noise)
        total += batch.sum(0)
    assert set(batch.unique().tolist()) <= {0.0, 1.0}
    frequency, expected = total.double().numpy() / repeats, np.arange(256) / 255
    assert (np.abs(frequency - expected) <= 6 * np.sqrt(expected * (1 - expected) / repeats)).all()
    assert frequency[0] == 0
    assert frequency[255] == 1


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_the_ends_of_the_uniforms(monkeypatch, u):
    grey = np.array([[0, 1, 254, 255]], dtype=np.uint8)
    dataset = Dataset("greys", grey, grey, grey, 255, (2, 2), provenance="made by a test")
    images = TrainingImages(dataset, CPU, seed=0)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, u))
    expected = [0, 1, 1, 1] if u == 0 else [0, 0, 0, 1]
    assert images.batch(0, 1, generator())[0].tolist() == expected


def test_binary_images_are_left_as_they_are_and_draw_nothing():
    dataset = numbered(30)
    images = TrainingImages(dataset, CPU, seed=2)
    noise = generator(4)
    before = noise.get_state()
    batch = images.batch(0, 30, noise)
    assert torch.equal(noise.get_state(), before)
    order = number_of(batch)
    np.testing.assert_array_equal(batch.numpy(), dataset.train[order])
    assert images.pixels.dtype == torch.uint8


def test_mean_by_hand():
    binary = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 1]], dtype=np.uint8)
    grey = np.array([[0, 255, 51, 0], [0, 255, 51, 255]], dtype=np.uint8)
    for pixels, levels, expected in ((binary, 1, [0, 1, 0.25, 0.25]), (grey, 255, [0, 1, 0.2, 0.5])):
        dataset = Dataset("four", pixels, pixels, pixels, levels, (2, 2), provenance="made by a test")
        mean = TrainingImages(dataset, CPU, seed=0).mean()
        assert mean.dtype == torch.float32
        torch.testing.assert_close(mean, torch.tensor(expected, dtype=torch.float32))
    # 70,000 white images: no sum overflows a byte or a float32's exact integers.
    white = np.full((70_000, 1), 255, dtype=np.uint8)
    dataset = Dataset("white", white, white[:1], white[:1], 255, (1, 1), provenance="made by a test")
    assert TrainingImages(dataset, CPU, seed=0).mean().tolist() == [1.0]


def test_images_on_the_device_are_a_copy():
    dataset = numbered(4)
    pixels = to_device(dataset.train, CPU)
    pixels[0] = 1
    assert not dataset.train[0].any()
