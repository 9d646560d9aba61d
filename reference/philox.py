"""Random numbers that have an address: Philox4x32-10, and the uniforms every backend shares.

An ordinary generator hands out numbers in the order they are asked for, so a different batch split, thread count or
device gives a different chain. A *counter-based* generator is a function instead: number = philox(counter, key), where
the key is the seed and the counter says what the number is for (which unit, which chain, which step, which purpose).
Whoever needs a number computes it from its address; nothing is stored, and nothing has to be drawn first.

The addresses, four 32-bit words each:

    key      seed low,   seed high
    counter  unit // 4,  chain,  step low,  (step high) | (stream << 24)

One call gives four words: the numbers of four consecutive units. ``stream`` tells apart the purposes that need numbers
at the same step; the constants below are all there are, so that no two uses ever share a number under one seed.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import DTypeLike

from reference.vocabulary import Array, DomainError, ShapeError, check_count

# Persistent Gibbs chains (gibbs.py).
STREAM_INIT = 0
STREAM_Z2 = 1
STREAM_Z1 = 2
# Parallel tempering (tempering.py).
STREAM_TEMPERING_INIT = 3
STREAM_TEMPERING_Z2 = 4
STREAM_TEMPERING_Z1 = 5
STREAM_SWAP = 6
# Annealed importance sampling, forward and reverse (partition.py).
STREAM_FORWARD_INIT = 7
STREAM_FORWARD_Z2 = 8
STREAM_FORWARD_Z1 = 9
STREAM_REVERSE_Z2 = 10
STREAM_REVERSE_Z1 = 11
# Single-site and chromatic Gibbs sampling of a general machine (single_site.py).
STREAM_SITE_INIT = 12
STREAM_SITE = 13
# Population annealing (population.py).
STREAM_POPULATION_INIT = 14
STREAM_POPULATION_Z2 = 15
STREAM_POPULATION_Z1 = 16
STREAM_RESAMPLE = 17
# Thermodynamic integration (thermodynamic.py).
STREAM_INTEGRAL_INIT = 18
STREAM_INTEGRAL_Z2 = 19
STREAM_INTEGRAL_Z1 = 20
STREAM_INTEGRAL_SWAP = 21
# First weights, batches, noise and evaluation of the complete model (tiny_model.py).
STREAM_WEIGHTS = 24
STREAM_BATCH = 25
STREAM_RHO = 26
STREAM_EVALUATION = 27

_ROUNDS = 10
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint32)  # golden ratio and sqrt(3) - 1, as 32-bit fractions
_WORDS = 4

_DROPPED_BITS = 9  # of 32; the 23 bits kept are the most for which the midpoints below are exact in float32
_CELL = 2.0 ** -(32 - _DROPPED_BITS)


def philox4x32(counter: Array, key: Array) -> Array:
    """Scramble counters into random words: ten rounds of multiply, exchange and exclusive-or.

    One round sends (c0, c1, c2, c3), with 64-bit products M0 c0 = (hi0, lo0) and M1 c2 = (hi1, lo1), to (hi1 ^ c1 ^ k0,
    lo1, hi0 ^ c3 ^ k1, lo0); then the key moves on by a constant. For a fixed key this is a bijection of the 128-bit
    counters, so different addresses never give the same four words.

    Source   Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3"; the Random123 library.
    Shapes   counter (..., 4), key (..., 2), leading axes broadcast -> (..., 4)
    Domain   all 32-bit words
    Units    none
    Raises   TypeError unless both are uint32; ShapeError unless the last axes are 4 and 2 and the others broadcast.
    """
    for name, words, length in (("counter", counter, 4), ("key", key, 2)):
        if getattr(words, "dtype", None) != np.uint32:
            raise TypeError(f"{name} must be a uint32 array; got {getattr(words, 'dtype', type(words).__name__)}")
        if words.ndim == 0 or words.shape[-1] != length:
            raise ShapeError(f"{name} must have a last axis of {length} words; got {words.shape}")
    try:
        leading = np.broadcast_shapes(counter.shape[:-1], key.shape[:-1])
    except ValueError:
        raise ShapeError(f"counter {counter.shape} and key {key.shape} must broadcast but for the last axis") from None

    # uint64 scalars of one word each: a 32 x 32 bit product fits, and its two halves are a shift and a mask.
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(_WORDS))
    key = key.copy()
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            _high(product1) ^ c1 ^ key[..., 0],
            _low(product1),
            _high(product0) ^ c3 ^ key[..., 1],
            _low(product0),
        )
        key += _WEYL  # modulo 2**32
    words = np.empty((*leading, _WORDS), dtype=np.uint32)
    for i, word in enumerate((c0, c1, c2, c3)):
        words[..., i] = word
    return words


def uniforms(
    seed: int,
    step: int,
    n_chains: int,
    n_units: int,
    stream: int = 0,
    first_chain: int = 0,
    dtype: DTypeLike = np.float64,
) -> Array:
    """Uniform numbers for every unit of every chain at one step of one stream.

    u = (k + 1/2) 2**-23 with k the top 23 bits of the word: the midpoints of 2**23 equal cells. They lie strictly
    inside (0, 1), so u < sigmoid(+inf) always and u < sigmoid(-inf) never, and have at most 24 significant bits, so
    that float32 and float64 hold the *same* number. (Keeping 24 bits would need 25 for the midpoint: in float32 every
    value above 1/2 would be rounded, the largest of them to 1.)

    Chain c of a run is row c - first_chain of the result whatever the split, and unit j is column j however many there
    are.

    Source   Salmon et al. (2011) for the words; the addresses are this project's, see the top of this file.
    Shapes   -> (n_chains, n_units)
    Domain   seed < 2**64, step < 2**56, stream < 2**8, first_chain + n_chains <= 2**32, n_units <= 2**34, all >= 0
    Units    none
    Raises   DomainError for a number out of range; TypeError for one that is not an integer, or a dtype that is neither
             float32 nor float64.
    """
    seed = as_seed(seed)
    step = _check_bits("step", step, 56)
    stream = _check_bits("stream", stream, 8)
    n_chains = check_count("n_chains", n_chains, least=0)
    n_units = check_count("n_units", n_units, least=0)
    _check_bits("first_chain + n_chains - 1", _check_bits("first_chain", first_chain, 32) + max(n_chains - 1, 0), 32)
    n_blocks = -(-n_units // _WORDS)
    _check_bits("n_units // 4, rounded up, less 1,", max(n_blocks - 1, 0), 32)
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64; got {np.dtype(dtype)}")

    counter = np.empty((n_chains, n_blocks, _WORDS), dtype=np.uint32)
    counter[..., 0] = np.arange(n_blocks, dtype=np.uint32)
    counter[..., 1] = np.arange(first_chain, first_chain + n_chains, dtype=np.uint32)[:, None]
    counter[..., 2] = step & 0xFFFFFFFF
    counter[..., 3] = (step >> 32) | (stream << 24)
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32)
    words = philox4x32(counter, key).reshape(n_chains, n_blocks * _WORDS)[:, :n_units]
    return (((words >> np.uint32(_DROPPED_BITS)) + 0.5) * _CELL).astype(dtype)


def as_seed(seed: int) -> int:
    """Return a seed as an int: for those that keep one and draw later.

    Source   none: a check of arguments.
    Shapes   scalar -> scalar
    Domain   whole, 0 <= seed < 2**64
    Units    none
    Raises   DomainError for a seed out of range; TypeError for one that is not an integer.
    """
    return _check_bits("seed", seed, 64)


def _high(product: Array) -> Array:
    return product >> np.uint64(32)


def _low(product: Array) -> Array:
    return product & np.uint64(0xFFFFFFFF)


def _check_bits(name: str, value: int, bits: int) -> int:
    """Return ``value`` as an int; raise unless it is an integer in [0, 2**bits)."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None
    if not 0 <= number < 2**bits:
        raise DomainError(f"{name} must lie in [0, 2**{bits}); got {number}")
    return number
