"""Data sets: images as uint8 rows in three splits, from a registered name or a user's own files. NumPy only.

>>> from dvaepp.data import load
>>> digits = load("digits")
>>> digits.train.shape, digits.levels, digits.image_shape
((4000, 784), 255, (28, 28))
"""

from dvaepp.data.dataset import Dataset, binarise_static
from dvaepp.data.registry import load, names

__all__ = ["Dataset", "binarise_static", "load", "names"]
