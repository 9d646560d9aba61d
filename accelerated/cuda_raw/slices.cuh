// Logits of a whole side in float32 from tensor cores that multiply half precision: couplings as two whole numbers.
//
// Let 2^e be the least power of two above every |W|. Each coupling is rounded to a multiple of 2^(e - 23), and that is
//
//     W = 2^(e - 11) high + 2^(e - 23) low,      high, low whole, |high|, |low| <= 2048,
//
// two numbers that half precision holds exactly. States are 0 or 1, so a product sums at most 8192 whole numbers of at most
// 2^11: float32 holds every partial sum exactly. So the order of summation, the shape of the tiles and whatever a tensor core
// does to its roundings make no difference, and the error of a logit is the 2^(e - 24) of each coupling and two roundings.
//
// A tile is 16 units of one side. Its rows, and its columns when it is summed over, stand in an order that makes the rest
// cheap: position p holds unit 2 (p % 8) + p / 8.
//   - As rows: lane (g, t) of a product holds positions g and g + 8, units 2g and 2g + 1, so two neighbouring lanes hold four
//     consecutive units, the four numbers of one Philox call.
//   - As terms: states of 32 units (two tiles) are one word whose bits s and s + 16 are terms 2t and 2t + 1, s = t + 4 r + 8
//     (tile % 2) for register r. (word >> s) & 0x00010001 is then an operand: the half with the bits of 1 is 2^-24, not 1.
#pragma once

#include "philox.cuh"
#include "tensor.cuh"

constexpr unsigned int TWO_STATES = 0x00010001u;

__device__ __forceinline__ int position_of(int unit) {
    return (unit & ~15) | (unit & 1) << 3 | (unit & 15) >> 1;
}

// Bits of a state: byte and bit of a unit in the words of its chain. Byte (h, tile % 2) of a word has bits t + 4 r.
__device__ __forceinline__ int byte_of(int unit) {
    return unit >> 5 << 2 | (unit & 2) | (unit >> 4 & 1);
}

__device__ __forceinline__ int bit_of(int unit) {
    return (unit >> 2 & 3) | (unit & 1) << 2;
}

// The row that this lane names in load_blocks, of a tile of one side and the first 16 terms. Side 1's units are rows and side
// 2's columns, so that what draws side 2 stands there transposed; the next 16 terms are 16 rows or 16 columns on.
template <int SIDE, int STRIDE>
__device__ __forceinline__ const unsigned short* lane_row(const unsigned short* couplings, int tile) {
    const int lane = threadIdx.x & 31, first = lane & 7, second = lane & 8, third = lane >> 4 << 3;
    if constexpr (SIDE == 2) return couplings + (first + third) * STRIDE + 16 * tile + second;
    return couplings + (16 * tile + first + second) * STRIDE + third;
}

template <int SIDE, int STRIDE>
__device__ __forceinline__ void load_fragment(unsigned int (&a)[4], const unsigned short* lane_row, int n) {
    load_blocks<SIDE == 2>(a, lane_row + n * (SIDE == 2 ? 16 * STRIDE : 16));
}

// Powers of two that lead to whole numbers and back. The exponent is kept where both are normal numbers: couplings that are
// all below 2^-115 lose relative accuracy, which no probability can show.
struct Scale {
    float to_whole;  // 2^(11 - e)
    float unit;      // 2^(e - 1)
};

__device__ __forceinline__ Scale scale_of(float largest) {
    const int exponent = max((int)(__float_as_uint(largest) >> 23), 11);  // biased; 2^(exponent - 126) > largest
    return {__uint_as_float((264 - exponent) << 23), __uint_as_float(exponent << 23)};
}

// A coupling's high part (PART 0) or low part (PART 1), in half precision.
template <int PART>
__device__ __forceinline__ unsigned short slice(float coupling, Scale scale) {
    const float whole = coupling * scale.to_whole, high = rintf(whole);
    if constexpr (PART == 0) return as_half(high);
    return as_half(rintf((whole - high) * 4096.0f));
}

// A logit from a bias and the two sums, which count in units of 2^-24. The scaled sums are exact.
__device__ __forceinline__ float logit_of(float high, float low, float bias, Scale scale) {
    return fmaf(high * 0x1p14f, scale.unit, fmaf(low * 4.0f, scale.unit, bias));
}

// [u < sigmoid(x)], as u e^-x < 1 - u: no division, nothing to overflow into NaN, and 1 - u is exact.
__device__ __forceinline__ unsigned int draw(float logit, unsigned int word) {
    const float u = uniform_float(word);
    return u * expf(-logit) < 1.0f - u;
}

// One lane's Philox call for a tile and 8 chains: neighbouring lanes (g even, g odd) share four units and two chains.
__device__ __forceinline__ Words words_of_tile(Address address, int tile, unsigned int chain) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    return words_at(address, chain + 2 * t + (g & 1), 4 * tile + (g >> 1));
}

// Draws a tile of 16 units for 8 chains from their sums, and writes their bytes. bytes: those of the first chain; stride:
// from chain to chain. bias: of this lane's two units.
__device__ __forceinline__ void draw_tile(const float (&high)[4], const float (&low)[4], const float (&bias)[2], Scale scale,
                                          const Words& words, int tile, unsigned char* bytes, int stride) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    // Chain 2t needs the words of the even lane, chain 2t + 1 those of the odd lane; of each, this lane's two units.
    const bool odd = g & 1;
    const unsigned int other0 = __shfl_xor_sync(FULL_WARP, odd ? words.word[0] : words.word[2], 4);
    const unsigned int other1 = __shfl_xor_sync(FULL_WARP, odd ? words.word[1] : words.word[3], 4);
    const unsigned int own0 = odd ? words.word[2] : words.word[0], own1 = odd ? words.word[3] : words.word[1];
    const int bit = g >> 1, byte = 8 * odd;
    unsigned int states = 0;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        const bool own = odd == (e == 1);
        states |= draw(logit_of(high[e], low[e], bias[0], scale), own ? own0 : other0) << (bit + byte + 16 * e);
        states |= draw(logit_of(high[2 + e], low[2 + e], bias[1], scale), own ? own1 : other1) << (bit + 4 + byte + 16 * e);
    }
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) states |= __shfl_xor_sync(FULL_WARP, states, lanes);
    // Bytes of the four lanes g < 4: chain 2t, h = 0, 1, then chain 2t + 1.
    if (g < 4) bytes[(2 * t + (g >> 1)) * stride + (tile >> 1) * 4 + (tile & 1) + 2 * (g & 1)] = states >> (8 * g);
}

// Bits of 8 units, as one byte of the state of a chain, from an array of numbers; what is not 0 counts as 1.
__device__ __forceinline__ unsigned char pack_byte(const float* z, int n_units, int index) {
    const int first = 32 * (index >> 2) + 16 * (index & 1) + (index & 2);
    unsigned char states = 0;
    for (int bit = 0; bit < 8; ++bit) {
        const int unit = first + 4 * (bit & 3) + (bit >> 2);
        states |= (unit < n_units && z[unit] != 0.0f) << bit;
    }
    return states;
}

__device__ __forceinline__ float unpack(const unsigned char* bytes, int unit) {
    return bytes[byte_of(unit)] >> bit_of(unit) & 1;
}
