"""What the targets do differently: the bits of a number, and a b + c. These are the versions that run uncompiled."""

from __future__ import annotations

import struct


def to_bits(x: float) -> int:
    """The bits of a positive float64 as a whole number."""
    return int(struct.unpack("<q", struct.pack("<d", x))[0])


def from_bits(bits: int) -> float:
    """The float64 of these bits."""
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])


def multiply_add(a: float, b: float, c: float) -> float:
    """a b + c, rounded once or twice, whichever is faster."""
    return a * b + c
