// Philox4x32-10 and the uniforms of reference/philox.py: number = philox(address), nothing is stored.
#pragma once

constexpr unsigned int FULL_WARP = 0xFFFFFFFFu;

struct Words {
    unsigned int word[4];
};

// Purposes that draw numbers; the constants of reference/philox.py.
enum Stream : unsigned int {
    STREAM_Z2 = 1,
    STREAM_Z1 = 2,
    STREAM_TEMPERING_INIT = 3,
    STREAM_TEMPERING_Z2 = 4,
    STREAM_TEMPERING_Z1 = 5,
    STREAM_SWAP = 6,
    STREAM_FORWARD_INIT = 7,
    STREAM_FORWARD_Z2 = 8,
    STREAM_FORWARD_Z1 = 9,
    STREAM_REVERSE_Z2 = 10,
    STREAM_REVERSE_Z1 = 11,
};

// See reference.philox.philox4x32.
__device__ __forceinline__ Words philox4x32(unsigned int c0, unsigned int c1, unsigned int c2, unsigned int c3,
                                            unsigned int k0, unsigned int k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long product0 = 0xD2511F53ull * c0, product1 = 0xCD9E8D57ull * c2;
        c0 = (unsigned int)(product1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned int)product1;
        c2 = (unsigned int)(product0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned int)product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// Where the random numbers of one half of a sweep are.
struct Address {
    unsigned long long seed;
    unsigned long long step;
    unsigned int stream;
};

// Words of units 4 block .. 4 block + 3 of one chain.
__device__ __forceinline__ Words words_at(Address at, unsigned int chain, unsigned int block) {
    return philox4x32(block, chain, (unsigned int)at.step, (unsigned int)(at.step >> 32) | at.stream << 24,
                      (unsigned int)at.seed, (unsigned int)(at.seed >> 32));
}

// u = (k + 1/2) 2^-23, k the top 23 bits: see reference.philox.uniforms. The same number in both precisions. In float32
// 1 + k 2^-23 is assembled from its bits, and taking 1 - 2^-24 away from it is exact.
__device__ __forceinline__ float uniform_float(unsigned int word) {
    return __uint_as_float(0x3F800000u | word >> 9) - 0.99999994f;
}

__device__ __forceinline__ double uniform_double(unsigned int word) {
    return ((word >> 9) + 0.5) * 0x1p-23;
}
