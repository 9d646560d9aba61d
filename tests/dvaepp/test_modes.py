"""Mutual information of global latents and labels, against numbers worked by hand."""

import math

import numpy as np
import pytest

from dvaepp.modes import modes_and_classes


def bits(number, width=3):
    return [number >> k & 1 for k in range(width)]


def test_latents_that_name_the_class_tell_all_of_it():
    labels = np.repeat([3, 7, 9, 4], 500)
    z = np.array([bits({3: 1, 7: 2, 9: 5, 4: 6}[label]) for label in labels])
    modes = modes_and_classes(z, labels, seed=0)
    assert modes.entropy == pytest.approx(math.log(4))
    assert modes.mutual_information + modes.chance == pytest.approx(math.log(4))
    assert modes.chance < 0.01  # (4 - 1)^2 / (2 * 2000) is what chance gives
    assert modes.counts.shape == (4, 4)
    assert sorted(modes.counts.sum(1)) == [500] * 4
    assert np.count_nonzero(modes.counts) == 4


def test_latents_that_know_nothing_tell_nothing():
    """Many modes and few images look informative; less what chance gives it is nothing."""
    rng = np.random.default_rng(1)
    labels, z = rng.integers(10, size=400), rng.integers(2, size=(400, 6))
    modes = modes_and_classes(z, labels, seed=0)
    assert modes.chance > 0.5  # about 63 * 9 / 800
    assert abs(modes.mutual_information) < 0.1


def test_half_of_a_class_and_the_order_of_modes():
    # mode A: 30 of class 0 and 10 of class 1; mode B: 20 of class 1
    z = np.array([[0, 1]] * 40 + [[1, 0]] * 20)
    labels = np.array([0] * 30 + [1] * 30)
    modes = modes_and_classes(z, labels, seed=0)
    assert modes.counts.tolist() == [[30, 10], [0, 20]]
    # I = H(label) - H(label | mode) = log 2 - (40/60) H(1/4)
    rest = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert modes.mutual_information + modes.chance == pytest.approx(math.log(2) - 40 / 60 * rest)
