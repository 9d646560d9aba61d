"""Philox in every backend: the uniforms of ``reference.philox``, which has the published ones, to their last bit.

Backends show no random numbers. A machine without couplings does: a unit of bias logit(t) is on where u < t, so a bias
just above and one just below logit(u) say all there is to say about u.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from accelerated.protocol import Machine
from reference import philox
from validation.agreement import gibbs_band

CELL = 2.0**-23


def bits_at(backend, biases, seed, step, chain):
    """The bits of one chain of a machine without couplings, of both sides."""
    a1, a2 = biases
    machine = Machine(*(backend.asarray(x) for x in (a1, a2, np.zeros((len(a1), len(a2)), a1.dtype))))
    z1 = backend.asarray(np.zeros((1, len(a1)), a1.dtype))
    return [backend.to_numpy(z)[0] for z in backend.gibbs(machine, z1, 1, seed, step, chain)]


def numbers_at(seed, step, chain, n):
    streams = philox.STREAM_Z1, philox.STREAM_Z2
    return [philox.uniforms(seed, step, 1, n, stream, chain)[0] for stream in streams]


addresses = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**56 - 1), st.integers(0, 2**32 - 1))


def test_every_bit_of_every_uniform_is_the_reference_s(backend):
    """In float64, by thresholds two fifths of a cell to either side: no other number of the 2**23 fits between."""

    @settings(max_examples=60 if backend.name != "numpy_oracle" else 5)
    @given(addresses, st.sampled_from([1, 4, 7, 17, 100, 129]))
    def agree(address, n):
        for sign, expected in ((1, 1), (-1, 0)):
            biases = [logit(u + sign * 0.4 * CELL) for u in numbers_at(*address, n)]
            for bits in bits_at(backend, biases, *address):
                np.testing.assert_array_equal(bits, expected)

    agree()


def test_float32_thresholds_are_as_close_as_float32_allows(backend):
    """The band of a machine without couplings is that of exp alone: in the tails it is narrower than a cell."""
    seed, step, chain, n = 2**63 + 5, 2**40 + 3, 3, 1000
    uniforms = numbers_at(seed, step, chain, n)
    for sign, expected in ((1, 1), (-1, 0)):
        biases = []
        for u in uniforms:
            threshold = logit(u)
            none = Machine(np.zeros(1), threshold, np.zeros((1, n)))  # nothing is added, so the sum needs no room
            apart = np.maximum(
                np.abs(logit(u + sign * 0.4 * CELL) - threshold), 1.5 * gibbs_band(none, [[0]], np.float32)[0]
            )
            biases.append((threshold + sign * apart).astype(np.float32))
        for bits in bits_at(backend, biases, seed, step, chain):
            np.testing.assert_array_equal(bits, expected)
        # One unit in five is in the tails.
        close = [np.abs(expit(b.astype(float)) - u) < CELL for b, u in zip(biases, uniforms, strict=True)]
        assert np.mean(close) > 0.2


@pytest.mark.parametrize(
    ("seed", "step", "chain"),
    [(0, 0, 0), (2**32, 0, 0), (0, 2**32, 0), (0, 0, 2**31), (2**64 - 1, 2**56 - 1, 2**32 - 1), (1, 2**32 - 1, 5)],
)
def test_addresses_with_words_that_are_empty_or_full(backend, seed, step, chain):
    for sign, expected in ((1, 1), (-1, 0)):
        biases = [logit(u + sign * 0.4 * CELL) for u in numbers_at(seed, step, chain, 33)]
        for bits in bits_at(backend, biases, seed, step, chain):
            np.testing.assert_array_equal(bits, expected)


def test_fair_coins_of_tempering_and_annealing_have_their_own_streams(backend):
    # A coupling of 100 nats to one unit of the other side, whose bias undoes half of it, copies a coin.
    n = 17
    machine = Machine(np.zeros(n), np.full(n, -50.0), 100 * np.eye(n))
    on = Machine(*(backend.asarray(x) for x in machine))
    result = backend.tempering(on, [1.0], 5, 1, 7)
    coins = philox.uniforms(7, 0, 5, n, philox.STREAM_TEMPERING_INIT) < 0.5
    np.testing.assert_array_equal(backend.to_numpy(result.z2), coins)

    # Without couplings a log-weight reads off the first coins: unit i adds 3**i for each of the two steps it is on.
    n, base = 8, np.zeros(8)
    target = 2.0 * 3.0 ** np.arange(n)
    machine = Machine(target, np.zeros(1), np.zeros((n, 1)))
    on = Machine(*(backend.asarray(x) for x in machine))
    weights = backend.to_numpy(
        backend.ais(on, (backend.asarray(base), backend.asarray(np.zeros(1))), [0, 0.5, 1], 9, 7, 2)
    )
    digits = np.rint(weights - (n + 1) * np.log(2)).astype(int)[:, None] // 3 ** np.arange(n) % 3
    first = philox.uniforms(7, 0, 9, n, philox.STREAM_FORWARD_INIT, 2) < 0.5
    second = philox.uniforms(7, 0, 9, n, philox.STREAM_FORWARD_Z1, 2) < expit(target / 2)
    np.testing.assert_array_equal(digits, first.astype(int) + second)
