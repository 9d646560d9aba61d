"""Philox judged by the published known answers and by a second implementation in Python's unbounded integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import philox
from reference.philox import philox4x32, uniforms
from reference.vocabulary import DomainError, ShapeError

WORD = st.integers(0, 2**32 - 1)


def words(text):
    return [int(word, 16) for word in text.split()]


def philox_in_integers(counter, key):
    """The paper's round: multiply two words, keep the low halves of the products, mix the high ones with the rest."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (" ".join(["ffffffff"] * 4), "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers_of_random123(counter, key, answer):
    result = philox4x32(np.array(words(counter), dtype=np.uint32), np.array(words(key), dtype=np.uint32))
    assert result.dtype == np.uint32
    assert result.tolist() == words(answer) == philox_in_integers(words(counter), words(key))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=1, max_size=5), st.tuples(WORD, WORD))
def test_agrees_with_unbounded_integers(counters, key):
    result = philox4x32(np.array(counters, dtype=np.uint32), np.array(key, dtype=np.uint32))
    assert result.tolist() == [philox_in_integers(counter, key) for counter in counters]


def test_keys_broadcast_and_arguments_are_left_alone():
    counter = np.arange(12, dtype=np.uint32).reshape(3, 1, 4)
    key = np.arange(4, dtype=np.uint32).reshape(2, 2)
    result = philox4x32(counter, key)
    assert result.shape == (3, 2, 4)
    assert result[2, 1].tolist() == philox_in_integers([8, 9, 10, 11], [2, 3])
    assert key.tolist() == [[0, 1], [2, 3]]
    assert counter.ravel().tolist() == list(range(12))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**56 - 1),
    stream=st.integers(0, 255),
    first_chain=st.integers(0, 2**32 - 3),
    n_units=st.integers(0, 11),
)
def test_every_uniform_comes_from_its_own_address(seed, step, stream, first_chain, n_units):
    u = uniforms(seed, step, 3, n_units, stream, first_chain)
    assert u.shape == (3, n_units)
    for c in range(3):
        for j in range(n_units):
            counter = [j // 4, first_chain + c, step % 2**32, stream * 2**24 + step // 2**32]
            word = philox_in_integers(counter, [seed % 2**32, seed // 2**32])[j % 4]
            assert u[c, j] == (2 * (word // 2**9) + 1) / 2**24


def test_the_split_into_batches_and_the_number_of_units_do_not_matter():
    whole = uniforms(7, 3, 10, 13, stream=2)
    parts = [uniforms(7, 3, 4, 13, 2), uniforms(7, 3, 6, 13, 2, first_chain=4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(uniforms(7, 3, 10, 6, stream=2), whole[:, :6])


def test_seed_step_stream_and_chain_all_give_other_numbers():
    base = uniforms(1, 1, 2, 8)
    others = [
        uniforms(2, 1, 2, 8),
        uniforms(1 + 2**32, 1, 2, 8),
        uniforms(1, 2, 2, 8),
        uniforms(1, 1 + 2**32, 2, 8),
        uniforms(1, 1, 2, 8, stream=1),
        uniforms(1, 1, 2, 8, first_chain=2),
    ]
    for other in others:
        assert not np.isin(other, base).any()


def test_no_two_purposes_share_a_stream():
    streams = [value for name, value in vars(philox).items() if name.startswith("STREAM_")]
    assert len(streams) == len(set(streams)) > 8
    assert all(0 <= stream < 256 for stream in streams)


def test_single_and_double_precision_hold_the_same_numbers():
    double, single = uniforms(5, 0, 200, 333), uniforms(5, 0, 200, 333, dtype=np.float32)
    assert (double.dtype, single.dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(single.astype(np.float64), double)
    # Mean 1/2 with standard error 1 / sqrt(12 n); beyond 5.5 of them with probability 4e-8.
    assert abs(double.mean() - 0.5) < 5.5 / np.sqrt(12 * double.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("word", "expected"), [(0, 2.0**-24), (2**32 - 1, 1 - 2.0**-24)])
def test_extreme_words_stay_strictly_inside_the_interval(monkeypatch, dtype, word, expected):
    monkeypatch.setattr(philox, "philox4x32", lambda counter, key: np.full(counter.shape, word, dtype=np.uint32))
    u = uniforms(0, 0, 1, 4, dtype=dtype)
    assert (u.astype(np.float64) == expected).all()


def test_one_more_bit_would_round_to_one_in_single_precision():
    # Why uniforms keeps 23 bits: the largest 24-bit midpoint is not below 1 any more.
    assert float(np.float32((2**24 - 1) * 2.0**-24 + 2.0**-25)) == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"seed": -1}, DomainError, r"seed must lie in \[0, 2\*\*64\); got -1"),
        ({"seed": 2**64}, DomainError, "seed must lie"),
        ({"seed": 1.5}, TypeError, "seed must be an integer; got 1.5"),
        ({"step": 2**56}, DomainError, r"step must lie in \[0, 2\*\*56\)"),
        ({"stream": 256}, DomainError, r"stream must lie in \[0, 2\*\*8\); got 256"),
        ({"n_chains": -1}, DomainError, "n_chains must be a whole number of at least 0; got -1"),
        ({"n_units": 2.5}, DomainError, "n_units must be a whole number"),
        ({"first_chain": 2**32 - 1}, DomainError, "first_chain"),
        ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64; got float16"),
    ],
)
def test_uniforms_refuses(arguments, error, match):
    with pytest.raises(error, match=match):
        uniforms(**({"seed": 0, "step": 0, "n_chains": 2, "n_units": 2} | arguments))


def test_philox_refuses():
    counter, key = np.zeros((3, 4), np.uint32), np.zeros(2, np.uint32)
    with pytest.raises(TypeError, match="counter must be a uint32 array; got int64"):
        philox4x32(counter.astype(np.int64), key)
    with pytest.raises(TypeError, match="key must be a uint32 array; got list"):
        philox4x32(counter, [0, 0])
    with pytest.raises(ShapeError, match=r"counter must have a last axis of 4 words; got \(4, 3\)"):
        philox4x32(counter.reshape(4, 3), key)
    with pytest.raises(ShapeError, match="broadcast"):
        philox4x32(counter, np.zeros((2, 2), np.uint32))
