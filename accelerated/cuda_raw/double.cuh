// One side of a machine in double, for 8 chains at a time: what log-weights, swaps and float64 machines are computed with.
//
// A product multiplies 32 units by 8 chains on the double-precision tensor cores, as four 8 x 8 tiles: lane (g, t) holds
// units 4g .. 4g + 3 (tile u: unit 4g + u), the four numbers of one Philox call, for chains 2t and 2t + 1. Couplings come
// through the L1 cache as they are, float or double, so any size of machine will do; states are bits in shared memory, bit u %
// 32 of word u / 32. Terms are added in one order, whatever the number of chains.
#pragma once

#include "philox.cuh"
#include "tensor.cuh"

constexpr int DOUBLE_WARPS = 8;  // of every block, so that sums over warps have one order

__device__ __forceinline__ int words_of(int n_units) {
    return (n_units + 31) / 32;
}

// An RBM and where its couplings may be read four at a time.
template <typename Real>
struct Couplings {
    const Real* W;
    int n1, n2;
    bool vectors;  // every row starts on a multiple of 4 entries
};

// Four neighbours of a row of W: as one, if INSIDE; else one by one, 0 where the matrix ends.
template <bool INSIDE, typename Real>
__device__ __forceinline__ void four_entries(double (&entry)[4], const Couplings<Real>& of, int row, int column) {
    const Real* const first = of.W + (long long)row * of.n2 + column;
    if constexpr (INSIDE) {
        struct alignas(16) Four {
            Real entry[4];
        };
        const Four four = *(const Four*)first;
#pragma unroll
        for (int i = 0; i < 4; ++i) entry[i] = four.entry[i];
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) entry[i] = row < of.n1 && column + i < of.n2 ? (double)first[i] : 0.0;
    }
}

__device__ __forceinline__ double as_double(unsigned int state) {
    return state & 1 ? 1.0 : 0.0;
}

// Adds step k of the 32 terms that a word of states stands for: 4 terms a step to draw side 2, 16 to draw side 1.
template <int SIDE, bool INSIDE, typename Real>
__device__ __forceinline__ void add_terms(double (&sum)[4][2], const Couplings<Real>& of, int unit, int first_term, int k,
                                          unsigned int bits) {
    const int t = threadIdx.x & 3;
    if constexpr (SIDE == 2) {  // terms are rows: lane t has row 4 k + t, four units of it
        double coupling[4];
        four_entries<INSIDE>(coupling, of, first_term + 4 * k + t, unit);
        const double state = as_double(bits >> (4 * k + t));
#pragma unroll
        for (int u = 0; u < 4; ++u) multiply_add(sum[u], coupling[u], state);
    } else {  // terms are columns: lane t has columns 16 k + 4 t .. + 3 of four units
        double coupling[4][4];
#pragma unroll
        for (int u = 0; u < 4; ++u) four_entries<INSIDE>(coupling[u], of, unit + u, first_term + 16 * k + 4 * t);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const double state = as_double(bits >> (16 * k + 4 * t + i));
#pragma unroll
            for (int u = 0; u < 4; ++u) multiply_add(sum[u], coupling[u][i], state);
        }
    }
}

// Sums of couplings over the other side's states, sum[u][e]: unit 32 block + 4g + u, chain 2t + e. states: the other side's
// words of chain g.
template <int SIDE, typename Real>
__device__ __forceinline__ void product(double (&sum)[4][2], const Couplings<Real>& of, int block,
                                        const unsigned int* states) {
    constexpr int STEPS = SIDE == 2 ? 8 : 2;
    const int n_units = SIDE == 2 ? of.n2 : of.n1, n_terms = SIDE == 2 ? of.n1 : of.n2;
    const int unit = 32 * block + (threadIdx.x & 28);
#pragma unroll
    for (int u = 0; u < 4; ++u) sum[u][0] = sum[u][1] = 0.0;
    for (int term = 0; term < n_terms; term += 32) {
        const unsigned int bits = states[term / 32];
        if (of.vectors && 32 * block + 32 <= n_units && term + 32 <= n_terms) {
#pragma unroll
            for (int k = 0; k < STEPS; ++k) add_terms<SIDE, true>(sum, of, unit, term, k, bits);
        } else {
#pragma unroll 1
            for (int k = 0; k < STEPS; ++k) add_terms<SIDE, false>(sum, of, unit, term, k, bits);
        }
    }
}

// [u < sigmoid(x)] where e = exp(-|x|), as u e^-x < 1 - u without an overflow.
__device__ __forceinline__ unsigned int draw(double logit, double e, unsigned int word) {
    const double u = uniform_double(word);
    return logit < 0.0 ? u < (1.0 - u) * e : u * e < 1.0 - u;
}

// Nibbles of 4 states that the 8 lanes of one t hold, as a word, in every lane.
__device__ __forceinline__ unsigned int word_of_nibbles(unsigned int nibble) {
    unsigned int word = nibble << (threadIdx.x & 28);
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) word |= __shfl_xor_sync(FULL_WARP, word, lanes);
    return word;
}

// Sum over the 8 lanes of one t, in every lane.
__device__ __forceinline__ double sum_of_lanes(double value) {
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) value += __shfl_xor_sync(FULL_WARP, value, lanes);
    return value;
}

// Words of states from an array of numbers, by the whole block; what is not 0 counts as 1.
template <typename Real>
__device__ __forceinline__ unsigned int pack_word(const Real* z, int n_units, int word) {
    unsigned int states = 0;
    for (int bit = 0; bit < 32 && 32 * word + bit < n_units; ++bit) states |= (z[32 * word + bit] != (Real)0) << bit;
    return states;
}

__device__ __forceinline__ int bit_at(const unsigned int* states, int unit) {
    return states[unit >> 5] >> (unit & 31) & 1;
}

constexpr double NEVER = -1e300;  // a logit of units that do not exist

// Draws 32 units of chains 2t and 2t + 1 from logits x and e = exp(-|x|): a word of each, in all lanes of one t.
__device__ __forceinline__ void draw_words(unsigned int (&word)[2], const double (&logit)[4][2], const double (&e)[4][2],
                                           Address address, int block, const unsigned int (&chain)[2]) {
    const int g = (threadIdx.x & 31) >> 2;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        const Words words = words_at(address, chain[c], 8 * block + g);
        unsigned int nibble = 0;
#pragma unroll
        for (int u = 0; u < 4; ++u) nibble |= draw(logit[u][c], e[u][c], words.word[u]) << u;
        word[c] = word_of_nibbles(nibble);
    }
}
