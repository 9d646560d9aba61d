"""Philox4x32-10 in vectors, with what the lanes have in common taken out; see ``reference.philox``.

One sweep asks for the words of every (block, chain) at one step and stream. Of the ten rounds, the first two mix the
step with the block alone or with the chain alone; only from the third on is there something to be done for each pair:

    of the block     a, b, c, d     four words that all chains share, see ``block_words``
    of the chain     s              one product that all blocks share, see ``chain_words``

A word is the low half of a 64-bit lane, so that one multiplication makes both halves of a product; upper halves hold
rests that nothing looks at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelerated.cpu.vectors import load, picker, reinterpret, splat, store
from accelerated.jit import inline, jit

LANES = 8  # words of one kind are made eight at a time

#: Order of the lanes of the 64-bit vectors: one instruction takes the low halves of two registers in this way.
ORDER = (0, 1, 4, 5, 2, 3, 6, 7)
_ordered = picker(ORDER)
_halves = picker(2 * ORDER.index(lane) for lane in range(LANES))

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL0, _WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)

_DROPPED = np.uint32(9)
_ONE_BITS = np.uint32(0x3F800000)  # the float32 1; its last 23 bits are free for the number
_BELOW_ONE = np.float32(1 - 2.0**-24)


@inline
def address(step: Any, stream: Any) -> Any:
    """Third and fourth word of the counter."""
    step = np.uint64(step)
    return step & _LOW, (step >> _HALF) | (np.uint64(stream) << np.uint64(24))


@inline
def key_of(seed: Any, round_: Any) -> Any:
    """The two words of the key in a round, counted from 0."""
    n = np.uint64(round_)
    return ((seed & _LOW) + n * _WEYL0) & _LOW, ((seed >> _HALF) + n * _WEYL1) & _LOW


@jit
def block_words(seed: Any, step: Any, stream: Any, n_blocks: Any, words: Any) -> Any:
    """Fill ``words``, four runs of ``n_blocks``, with what the words of a block have in common in all chains."""
    low, high = address(step, stream)
    _, first1 = key_of(seed, 0)
    second0, second1 = key_of(seed, 1)
    third0, third1 = key_of(seed, 2)
    of_step = _M1 * low
    for block in range(n_blocks):
        p0 = _M0 * np.uint64(block)
        p1 = _M1 * (((p0 >> _HALF) ^ high ^ first1) & _LOW)
        c0 = ((p1 >> _HALF) ^ of_step ^ second0) & _LOW
        q0 = _M0 * c0
        words[block] = (p0 ^ second1) & _LOW
        words[n_blocks + block] = (p1 ^ third0) & _LOW
        words[2 * n_blocks + block] = (q0 >> _HALF) ^ third1
        words[3 * n_blocks + block] = q0 & _LOW


@jit
def chain_words(seed: Any, step: Any, chains: Any, words: Any) -> Any:
    """Fill ``words`` with the product that a chain's words have in common in all blocks, of any stream."""
    key0, _ = key_of(seed, 0)
    of_step = (_M1 * (np.uint64(step) & _LOW)) >> _HALF
    for i in range(len(chains)):
        words[i] = _M0 * ((of_step ^ np.uint64(chains[i]) ^ key0) & _LOW)


@inline
def _round(c0: Any, c1: Any, c2: Any, c3: Any, seed: Any, n: Any) -> Any:
    key0, key1 = key_of(seed, n)
    half = splat(_HALF, LANES)
    p0, p1 = splat(_M0, LANES) * (c0 & splat(_LOW, LANES)), splat(_M1, LANES) * (c2 & splat(_LOW, LANES))
    return (p1 >> half) ^ c1 ^ splat(key0, LANES), p1, (p0 >> half) ^ c3 ^ splat(key1, LANES), p0


@inline
def four_words(s: Any, a: Any, b: Any, c: Any, d: Any, seed: Any) -> Any:
    """The four words of each lane, in the low halves."""
    half = splat(_HALF, LANES)
    c1 = splat(_M1, LANES) * (((s >> half) ^ a) & splat(_LOW, LANES))
    c0, c1, c2, c3 = (c1 >> half) ^ b, c1, c ^ s, d
    # Written out: LLVM would leave a loop, which waits for one product after the other.
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, seed, 3)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, seed, 4)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, seed, 5)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, seed, 6)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, seed, 7)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, seed, 8)
    return _round(c0, c1, c2, c3, seed, 9)


@inline
def uniform(words: Any) -> Any:
    """(k + 1/2) 2**-23 with k the top 23 bits of a word: float32, exact. As bits of a number in [1, 2), less 1.

    The lanes of ``words`` are in the order of ``ORDER``, the result's are in order.
    """
    k = _halves(reinterpret(words, np.uint32)) >> splat(_DROPPED, LANES)
    return reinterpret(k | splat(_ONE_BITS, LANES), np.float32) - splat(_BELOW_ONE, LANES)


@jit
def fill_uniforms(
    seed: Any, step: Any, stream: Any, chains: Any, block_scratch: Any, chain_scratch: Any, out: Any
) -> Any:
    """Fill ``out``, (units, chains) float32, with ``reference.philox.uniforms`` of the listed chains.

    Units and chains are multiples of 4 and 8; the scratch is as long.
    """
    n_blocks, n_chains, flat = out.shape[0] // 4, len(chains), out.reshape(-1)
    block_words(seed, step, stream, n_blocks, block_scratch)
    chain_words(seed, step, chains, chain_scratch)
    for block in range(n_blocks):
        a, b = splat(block_scratch[block], LANES), splat(block_scratch[n_blocks + block], LANES)
        c = splat(block_scratch[2 * n_blocks + block], LANES)
        d = splat(block_scratch[3 * n_blocks + block], LANES)
        for i in range(0, n_chains, LANES):
            w0, w1, w2, w3 = four_words(_ordered(load(chain_scratch, i, LANES)), a, b, c, d, seed)
            at = 4 * block * n_chains + i
            store(flat, at, uniform(w0))
            store(flat, at + n_chains, uniform(w1))
            store(flat, at + 2 * n_chains, uniform(w2))
            store(flat, at + 3 * n_chains, uniform(w3))
