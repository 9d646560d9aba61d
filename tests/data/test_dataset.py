"""The Dataset's own checks, its binarisation, and the orders drawn from a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvaepp.data.dataset import Dataset, binarise_static, image_shape_of, shuffled_order
from dvaepp.errors import DataError

LENGTHS = {"train": 5, "valid": 2, "test": 3}


def rows(count: int, pixels: int = 6, top: int = 255, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top + 1, size=(count, pixels), dtype=np.uint8)


def dataset(**changes: object) -> Dataset:
    fields = {
        "name": "toy",
        "train": rows(5),
        "valid": rows(2, seed=1),
        "test": rows(3, seed=2),
        "levels": 255,
        "image_shape": (2, 3),
        "provenance": "made up",
    }
    return Dataset(**{**fields, **changes})


def philox_words(key: tuple[int, int], count: int) -> list[int]:
    """Philox4x64-10 from its paper (Salmon et al., SC 2011), in whole numbers: an implementation that is not NumPy's.

    NumPy counts up before it encrypts, so that the first block has counter 1.
    """
    mask = 2**64 - 1
    words: list[int] = []
    counter = 0
    while len(words) < count:
        counter += 1
        x0, x1, x2, x3 = counter & mask, (counter >> 64) & mask, 0, 0
        k0, k1 = key
        for _ in range(10):
            product0, product1 = 0xD2E7470EE14C6C93 * x0, 0xCA5A826395121157 * x2
            x0, x1, x2, x3 = (product1 >> 64) ^ x1 ^ k0, product1 & mask, (product0 >> 64) ^ x3 ^ k1, product0 & mask
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += [x0, x1, x2, x3]
    return words[:count]


class TestDataset:
    def test_keeps_what_it_is_given(self) -> None:
        data = dataset()
        np.testing.assert_array_equal(data.train, rows(5))
        assert data.labels is None

    def test_arrays_are_contiguous_and_read_only(self) -> None:
        data = dataset(train=np.asfortranarray(rows(5)), labels={k: np.zeros(n, np.uint8) for k, n in LENGTHS.items()})
        assert data.train.flags.c_contiguous
        for array in (data.train, data.valid, data.test, data.labels["test"]):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"train": rows(5).astype(np.int64)},
                r"toy, train: pixels must be a uint8 array of shape \(N, D\); got int64",
            ),
            ({"test": rows(3).ravel()}, r"toy, test: pixels must be a uint8 array .* got uint8 of shape \(18,\)"),
            ({"test": [[1, 2]]}, "toy, test: pixels must be a uint8 array .* got list"),
            ({"valid": rows(0)}, r"toy, valid: there must be at least one image .* the shape is \(0, 6\)"),
            ({"image_shape": (2, 2)}, "toy, train: image_shape 2x2 needs 4 pixels an image; there are 6"),
            ({"levels": 2}, r"toy, train: levels must be 1 \(binary\) or 255 \(grey or colour\); got 2"),
            (
                {"levels": 1, "train": np.array([[0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 7, 0]], np.uint8)},
                "toy, train: pixels must be 0 or 1; image 1, pixel 4 is 7",
            ),
            ({"labels": {"train": np.zeros(5, np.uint8)}}, "toy: labels must cover train, valid, test; got train"),
            (
                {"labels": {k: np.zeros(5, np.uint8) for k in ("train", "valid", "test")}},
                r"toy, valid: labels must be uint8 of shape \(2,\), one an image; got uint8 of shape \(5,\)",
            ),
        ],
    )
    def test_refuses(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(DataError, match=message):
            dataset(**changes)


class TestBinarise:
    def test_against_another_philox(self) -> None:
        grey = rows(3, 50)
        u = np.array([((word >> 40) + 0.5) / 2**24 for word in philox_words((7, 2), 150)]).reshape(3, 50)
        np.testing.assert_array_equal(binarise_static(grey, 255, 7, stream=2), u < grey / 255)

    def test_the_first_pixels_for_good(self) -> None:
        """Written down once, so that a change of NumPy or of ours is seen; u begins .0115, .2415, .1114, .5644."""
        drawn = binarise_static(np.full((2, 16), 128, np.uint8), 255, 0)
        assert ["".join(map(str, row)) for row in drawn.tolist()] == ["1110010011010100", "1101111001001011"]

    def test_blocks_leave_no_trace(self) -> None:
        """More rows than fit one block draw the same as the rows of a wide image."""
        grey = rows(1500, 1024)  # 1.5 blocks of 2**20
        tall = binarise_static(grey, 255, 3)
        np.testing.assert_array_equal(tall.reshape(1, -1), binarise_static(grey.reshape(1, -1), 255, 3))

    def test_mean_is_grey(self) -> None:
        """Each grey value drawn 40,000 times: 256 means within 5 standard errors; fails for one seed in 7,000."""
        count = 40_000
        grey = np.tile(np.arange(256, dtype=np.uint8), (count, 1))
        mean = binarise_static(grey, 255, 1).mean(axis=0)
        p = np.arange(256) / 255
        assert (np.abs(mean - p) <= 5 * np.sqrt(p * (1 - p) / count)).all()
        assert mean[0] == 0  # exactly, as the tolerance is zero at both ends
        assert mean[255] == 1

    @given(seed=st.integers(0, 2**64 - 1))
    @settings(deadline=None, max_examples=25)
    def test_black_white_and_binary_stay(self, seed: int) -> None:
        ends = np.array([[0, 255] * 20], np.uint8)
        np.testing.assert_array_equal(binarise_static(ends, 255, seed), ends // 255)
        bits = rows(4, 10, top=1)
        np.testing.assert_array_equal(binarise_static(bits, 1, seed), bits)

    def test_dataset_binarised(self) -> None:
        grey = np.full((40, 6), 128, np.uint8)
        data = dataset(train=grey, valid=grey, test=grey)
        binary = data.binarised(4)
        assert (binary.levels, binary.image_shape, binary.name) == (1, (2, 3), "toy")
        assert binary.provenance == "made up; binarised once with seed 4"
        np.testing.assert_array_equal(binary.train, data.binarised(4).train)
        assert (binary.train != data.binarised(5).train).any()
        assert (binary.train != binary.valid).any()  # the splits do not share their noise
        assert (binary.valid != binary.test).any()
        assert binary.binarised(9) is binary

    @pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "1"])
    def test_refuses_seeds(self, seed: object) -> None:
        with pytest.raises(DataError, match=r"seed must be a whole number from 0 to 2\*\*64 - 1; got"):
            binarise_static(rows(1), 255, seed)

    def test_refuses_pixels_above_levels(self) -> None:
        with pytest.raises(DataError, match="pixels must be 0 or 1; image 0, pixel 1 is 2"):
            binarise_static(np.array([[1, 2]], np.uint8), 1, 0)


class TestOrder:
    @given(count=st.integers(0, 300), seed=st.integers(0, 2**64 - 1))
    @settings(deadline=None, max_examples=50)
    def test_is_a_permutation(self, count: int, seed: int) -> None:
        assert sorted(shuffled_order(count, seed).tolist()) == list(range(count))

    def test_against_another_philox(self) -> None:
        words = philox_words((11, 3), 200)
        assert shuffled_order(200, 11).tolist() == sorted(range(200), key=words.__getitem__)

    def test_first_place_is_fair(self) -> None:
        """2,000 seeds, 5 places: each expected 400, standard deviation 18; within 5 of them, fails once in 3e5."""
        firsts = np.bincount([shuffled_order(5, seed)[0] for seed in range(2000)], minlength=5)
        assert (np.abs(firsts - 400) <= 5 * np.sqrt(2000 * 0.2 * 0.8)).all()


@pytest.mark.parametrize(("pixels", "shape"), [(784, (28, 28)), (1, (1, 1)), (785, (1, 785)), (2, (1, 2))])
def test_image_shape(pixels: int, shape: tuple[int, int]) -> None:
    assert image_shape_of(pixels) == shape
