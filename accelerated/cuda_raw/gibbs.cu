// Gibbs sampling in float32, all sweeps in one launch; see reference.gibbs.PersistentChains.run and slices.cuh.
//
// A warp owns one tile of 16 units of each side, and multiplies by the same couplings in every sweep: fragments, 4 registers
// each, TILES1 to draw its tile of side 2 and TILES2 to draw its tile of side 1, of high and of low parts. They stay where
// there is room, in this order: high parts in registers, low parts in registers; of high parts what is left over in shared
// memory, each lane's own; low parts all together in shared memory, one copy for both directions.
//
// States are bits in shared memory. A block carries groups of 8 GROUP chains; between two barriers it draws one side of all.
#include "slices.cuh"

__host__ __device__ constexpr int least(int a, int b) {
    return a < b ? a : b;
}

// What follows from the size of a machine, GROUP, and KEPT, the number of fragments of high parts in registers, each way. A
// multiprocessor has 128 registers for each lane of 16 warps, 168 of 12, 255 of 8.
template <int TILES1, int TILES2, int GROUP, int KEPT>
struct Plan {
    static constexpr int WARPS = TILES1 > TILES2 ? TILES1 : TILES2;
    // Few warps wait for each other's results. With few chains registers are there to shorten the way; with many, two blocks
    // share a multiprocessor instead.
    static constexpr bool LOW_IN_REGISTERS = WARPS <= 8 && GROUP == 1;
    static constexpr int BLOCKS = WARPS <= 8 && GROUP == 2 ? 2 : 1;
    static constexpr int KEPT1 = least(TILES1, KEPT), KEPT2 = least(TILES2, KEPT);
    static constexpr int LEFT1 = TILES1 - KEPT1, LEFT2 = TILES2 - KEPT2;
    static constexpr int STRIDE = 16 * TILES2 + 8;  // 16 bytes more than a multiple of 32: 8 rows lie in all banks
    static constexpr int STATES1 = (TILES1 + 1) / 2 | 1, STATES2 = (TILES2 + 1) / 2 | 1;  // words; odd: 8 chains, 8 banks
};

// One part of the couplings of one warp's tile for a sum over N tiles, the first KEPT of them.
template <int N>
struct Fragments {
    unsigned int a[N][4];
};

// Draws one side of the block's chains, given the other's states, a sum over N tiles; every thread takes part in the barrier.
template <int SIDE, int N, int GROUP, typename P, int KEPT, int LOW>
__device__ __forceinline__ void draw_side(const Fragments<KEPT>& high, const uint4* left, const Fragments<LOW>& low,
                                          const unsigned short* low_parts, const float (&bias)[2], Scale scale, bool owns,
                                          int tile, Address address, unsigned int first_chain, int n_groups,
                                          const unsigned int* source, int source_stride, unsigned int* target,
                                          int target_stride) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    __syncthreads();
    if (!owns) return;
    const unsigned short* const low_row = lane_row<SIDE, P::STRIDE>(low_parts, tile);
    for (int group = 0; group < n_groups; ++group) {
        const int chain = 8 * GROUP * group;
        float high_sum[GROUP][4] = {}, low_sum[GROUP][4] = {};
#pragma unroll
        for (int k = 0; k < N; k += 2) {
            unsigned int states[GROUP];
#pragma unroll
            for (int n = 0; n < GROUP; ++n) states[n] = source[(chain + 8 * n + g) * source_stride + k / 2] >> t;
#pragma unroll
            for (int odd = 0; odd < 2 && k + odd < N; ++odd) {
                unsigned int high_part[4], low_part[4];
                if (k + odd < KEPT) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) high_part[i] = high.a[k + odd < KEPT ? k + odd : 0][i];
                } else {
                    const uint4 own = left[(k + odd - KEPT) * 32];
                    high_part[0] = own.x, high_part[1] = own.y, high_part[2] = own.z, high_part[3] = own.w;
                }
                if constexpr (P::LOW_IN_REGISTERS) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) low_part[i] = low.a[k + odd][i];
                } else {
                    load_fragment<SIDE, P::STRIDE>(low_part, low_row, k + odd);
                }
#pragma unroll
                for (int n = 0; n < GROUP; ++n) {
                    const unsigned int b0 = states[n] >> 8 * odd & TWO_STATES, b1 = states[n] >> (8 * odd + 4) & TWO_STATES;
                    multiply_add(high_sum[n], high_part, b0, b1);
                    multiply_add(low_sum[n], low_part, b0, b1);
                }
            }
        }
#pragma unroll
        for (int n = 0; n < GROUP; ++n)
            draw_tile(high_sum[n], low_sum[n], bias, scale, words_of_tile(address, tile, first_chain + chain + 8 * n), tile,
                      (unsigned char*)(target + (chain + 8 * n) * target_stride), 4 * target_stride);
    }
}

// Writes one part of all couplings to shared memory, rows and columns in the order of positions, zeros around.
template <int PART, int TILES1, int TILES2, int STRIDE>
__device__ __forceinline__ void write_slices(unsigned short* couplings, const float* W, int n1, int n2, Scale scale) {
    for (int index = threadIdx.x; index < 16 * TILES1 * 16 * TILES2; index += blockDim.x) {
        const int i = index / (16 * TILES2), j = index % (16 * TILES2);
        const float coupling = i < n1 && j < n2 ? W[(long long)i * n2 + j] : 0.0f;
        couplings[position_of(i) * STRIDE + position_of(j)] = slice<PART>(coupling, scale);
    }
}

// This warp's fragments, the first KEPT into registers and the others into shared memory.
template <int SIDE, int N, int STRIDE, int KEPT>
__device__ __forceinline__ void read_slices(Fragments<KEPT>& kept, uint4* left, const unsigned short* couplings, int tile) {
    const unsigned short* const row = lane_row<SIDE, STRIDE>(couplings, tile);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        if (n < KEPT) {
            load_fragment<SIDE, STRIDE>(kept.a[n < KEPT ? n : 0], row, n);
        } else {
            unsigned int a[4];
            load_fragment<SIDE, STRIDE>(a, row, n);
            left[(n - KEPT) * 32] = make_uint4(a[0], a[1], a[2], a[3]);
        }
    }
}

// The largest |W|, by the whole block. partial: 32 floats of shared memory.
__device__ __forceinline__ float largest_of(const float* W, int count, float* partial) {
    float largest = 0.0f;
    for (int index = threadIdx.x; index < count; index += blockDim.x) largest = fmaxf(largest, fabsf(W[index]));
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, lanes));
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = largest;
    __syncthreads();
    largest = partial[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; ++warp) largest = fmaxf(largest, partial[warp]);
    return largest;
}

// Dynamic shared memory: 16 TILES1 rows of STRIDE half-precision numbers; for each warp 32 (LEFT1 + LEFT2) times 16 bytes;
// states of side 1, STATES1 words for each chain of the block; states of side 2.
template <int TILES1, int TILES2, int GROUP, int KEPT>
__global__ void __launch_bounds__(32 * Plan<TILES1, TILES2, GROUP, KEPT>::WARPS, Plan<TILES1, TILES2, GROUP, KEPT>::BLOCKS)
    gibbs(const float* a1, const float* a2, const float* W, const float* z1, float* z1_out, float* z2_out, int n1, int n2,
          long long n_chains, unsigned int first_chain, int n_groups, int n_sweeps, unsigned long long seed,
          unsigned long long step, const long long* step_on_device) {
    using P = Plan<TILES1, TILES2, GROUP, KEPT>;
    SHARED_MEMORY(uint4, memory);
    __shared__ float partial[32];
    unsigned short* const couplings = (unsigned short*)memory;
    uint4* const left = memory + 16 * TILES1 * P::STRIDE / 8;
    unsigned int* const states1 = (unsigned int*)(left + 32 * P::WARPS * (P::LEFT1 + P::LEFT2));
    const int block_chains = 8 * GROUP * n_groups;
    unsigned int* const states2 = states1 + block_chains * P::STATES1;

    const long long chain = (long long)blockIdx.x * block_chains;
    const int chains = (int)min((long long)block_chains, n_chains - chain);
    const int tile = threadIdx.x >> 5, g = (threadIdx.x & 31) >> 2;
    const bool owns_1 = tile < TILES1, owns_2 = tile < TILES2;
    first_chain += (unsigned int)chain;
    if (step_on_device) step = *step_on_device;

    const Scale scale = scale_of(largest_of(W, n1 * n2, partial));
    uint4* const left1 = left + 32 * tile * (P::LEFT1 + P::LEFT2) + (threadIdx.x & 31);
    uint4* const left2 = left1 + 32 * P::LEFT1;
    Fragments<P::KEPT1> high1;  // of the warp's tile of side 2, to be summed over side 1
    Fragments<P::KEPT2> high2;
    Fragments<P::LOW_IN_REGISTERS ? TILES1 : 1> low1;
    Fragments<P::LOW_IN_REGISTERS ? TILES2 : 1> low2;
    write_slices<0, TILES1, TILES2, P::STRIDE>(couplings, W, n1, n2, scale);
    __syncthreads();
    if (owns_2) read_slices<2, TILES1, P::STRIDE>(high1, left1, couplings, tile);
    if (owns_1) read_slices<1, TILES2, P::STRIDE>(high2, left2, couplings, tile);
    __syncthreads();
    write_slices<1, TILES1, TILES2, P::STRIDE>(couplings, W, n1, n2, scale);
    if constexpr (P::LOW_IN_REGISTERS) {
        __syncthreads();
        if (owns_2) read_slices<2, TILES1, P::STRIDE>(low1, left1, couplings, tile);
        if (owns_1) read_slices<1, TILES2, P::STRIDE>(low2, left2, couplings, tile);
    }

    float bias1[2], bias2[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int unit = 16 * tile + 2 * g + r;
        bias1[r] = unit < n1 ? a1[unit] : 0.0f;
        bias2[r] = unit < n2 ? a2[unit] : 0.0f;
    }
    for (int index = threadIdx.x; index < block_chains * 4 * P::STATES1; index += blockDim.x) {
        const int row = index / (4 * P::STATES1), byte = index % (4 * P::STATES1);
        ((unsigned char*)states1)[index] = row < chains ? pack_byte(z1 + (chain + row) * n1, n1, byte) : 0;
    }

    for (int sweep = 0; sweep < n_sweeps; ++sweep, ++step) {
        draw_side<2, TILES1, GROUP, P>(high1, left1, low1, couplings, bias2, scale, owns_2, tile, {seed, step, STREAM_Z2},
                                       first_chain, n_groups, states1, P::STATES1, states2, P::STATES2);
        draw_side<1, TILES2, GROUP, P>(high2, left2, low2, couplings, bias1, scale, owns_1, tile, {seed, step, STREAM_Z1},
                                       first_chain, n_groups, states2, P::STATES2, states1, P::STATES1);
    }
    __syncthreads();
    for (int index = threadIdx.x; index < chains * n1; index += blockDim.x)
        z1_out[chain * n1 + index] = unpack((unsigned char*)(states1 + index / n1 * P::STATES1), index % n1);
    for (int index = threadIdx.x; index < chains * n2; index += blockDim.x)
        z2_out[chain * n2 + index] = unpack((unsigned char*)(states2 + index / n2 * P::STATES2), index % n2);
}
