// Gibbs sampling in float32 of machines too large for one multiprocessor: one launch for each half of a sweep; see
// reference.gibbs.PersistentChains.run and slices.cuh.
//
// Couplings are cut into slices once for each call, and lie in device memory as two matrices of half-precision numbers, rows
// and columns in the order of positions, filled up with zeros to multiples of 64. A block draws 64 units of 8 GROUP chains:
// each of 4 warps a tile of 16. The slices come through L2, 32 terms at a time, two steps ahead. States are bits in device
// memory, those of chains filled up too, so that nothing is checked on the way.
#include "slices.cuh"

constexpr int TILE_UNITS = 64, TILE_TERMS = 32, TILE_THREADS = 128, TILE_STAGES = 3;

// The largest |W| that each block sees.
__global__ void __launch_bounds__(256) measure(const float* W, long long count, float* largest) {
    __shared__ float partial[8];
    float here = 0.0f;
    for (long long index = blockIdx.x * 256ll + threadIdx.x; index < count; index += gridDim.x * 256ll)
        here = fmaxf(here, fabsf(W[index]));
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) here = fmaxf(here, __shfl_xor_sync(FULL_WARP, here, lanes));
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = here;
    __syncthreads();
    if (threadIdx.x) return;
    for (int warp = 0; warp < 8; ++warp) here = fmaxf(here, partial[warp]);
    largest[blockIdx.x] = here;
}

// Cuts couplings into slices: high parts (rows, columns), then low parts. largest[n_largest] becomes the largest of all.
__global__ void __launch_bounds__(256)
    cut(const float* W, float* largest, int n_largest, unsigned short* slices, int n1, int n2, int rows, int columns) {
    float overall = 0.0f;
    for (int index = 0; index < n_largest; ++index) overall = fmaxf(overall, largest[index]);
    if (blockIdx.x == 0 && threadIdx.x == 0) largest[n_largest] = overall;
    const Scale scale = scale_of(overall);
    const long long count = (long long)rows * columns;
    for (long long index = blockIdx.x * 256ll + threadIdx.x; index < count; index += gridDim.x * 256ll) {
        const int i = (int)(index / columns), j = (int)(index % columns);
        const float coupling = i < n1 && j < n2 ? W[(long long)i * n2 + j] : 0.0f;
        const long long place = (long long)position_of(i) * columns + position_of(j);
        slices[place] = slice<0>(coupling, scale);
        slices[count + place] = slice<1>(coupling, scale);
    }
}

// Arrays of numbers to bits, n_bytes for each chain, and back.
__global__ void __launch_bounds__(256)
    pack(const float* z, unsigned char* states, int n_units, int n_bytes, long long n_chains, long long padded_chains) {
    for (long long index = blockIdx.x * 256ll + threadIdx.x; index < padded_chains * n_bytes; index += gridDim.x * 256ll) {
        const long long chain = index / n_bytes;
        states[index] = chain < n_chains ? pack_byte(z + chain * n_units, n_units, (int)(index % n_bytes)) : 0;
    }
}

__global__ void __launch_bounds__(256)
    spread(const unsigned char* states, float* z, int n_units, int n_bytes, long long n_chains) {
    for (long long index = blockIdx.x * 256ll + threadIdx.x; index < n_chains * n_units; index += gridDim.x * 256ll)
        z[index] = unpack(states + index / n_units * n_bytes, (int)(index % n_units));
}

// 64 units and 32 terms of both parts on their way to shared memory. Side 2's units are columns, side 1's are rows.
template <int SIDE, int STRIDE>
__device__ __forceinline__ void fetch(unsigned short* stage, const unsigned short* slices, long long part, int columns,
                                      int first_unit, int first_term) {
    constexpr int ROWS = SIDE == 2 ? TILE_TERMS : TILE_UNITS, CHUNKS = (SIDE == 2 ? TILE_UNITS : TILE_TERMS) / 8;
    const int first_row = SIDE == 2 ? first_term : first_unit, first_column = SIDE == 2 ? first_unit : first_term;
#pragma unroll
    for (int index = threadIdx.x; index < 2 * ROWS * CHUNKS; index += TILE_THREADS) {
        const int chunk = index % CHUNKS, row = index / CHUNKS % ROWS, which = index / (CHUNKS * ROWS);
        copy_16_bytes(stage + (which * ROWS + row) * STRIDE + 8 * chunk,
                      slices + which * part + (long long)(first_row + row) * columns + first_column + 8 * chunk);
    }
}

// Draws one side of all chains given the other's states. Grid: chain blocks, times rows or columns / 64. Dynamic shared
// memory: TILE_STAGES stages, then the other side's words of 8 GROUP chains, an odd number for each.
template <int SIDE, int GROUP>
__global__ void __launch_bounds__(TILE_THREADS)
    draw_tiles(const unsigned short* slices, const float* largest, const float* bias, const unsigned int* source,
               unsigned int* target, int n_units, int rows, int columns, int chain_blocks, unsigned int first_chain,
               unsigned long long seed, unsigned long long step, const long long* step_on_device) {
    constexpr int ROWS = SIDE == 2 ? TILE_TERMS : TILE_UNITS;
    constexpr int STRIDE = (SIDE == 2 ? TILE_UNITS : TILE_TERMS) + 8, STAGE = 2 * ROWS * STRIDE;
    SHARED_MEMORY(uint4, memory);
    unsigned short* const stages = (unsigned short*)memory;
    unsigned int* const states = (unsigned int*)(stages + TILE_STAGES * STAGE);

    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int first_unit = (int)(blockIdx.x / chain_blocks) * TILE_UNITS, tile = first_unit / 16 + warp;
    const long long chain = (long long)(blockIdx.x % chain_blocks) * (8 * GROUP), part = (long long)rows * columns;
    const int words = (SIDE == 2 ? rows : columns) / 32, target_words = (SIDE == 2 ? columns : rows) / 32, stride = words | 1;
    if (step_on_device) step += *step_on_device;

#pragma unroll
    for (int ahead = 0; ahead < TILE_STAGES - 1; ++ahead) {
        if (ahead < words) fetch<SIDE, STRIDE>(stages + ahead * STAGE, slices, part, columns, first_unit, 32 * ahead);
        close_copies();
    }
    for (int index = threadIdx.x; index < 8 * GROUP * words; index += TILE_THREADS)
        states[index / words * stride + index % words] = source[chain * words + index];

    float high_sum[GROUP][4] = {}, low_sum[GROUP][4] = {};
    for (int word = 0; word < words; ++word) {
        wait_for_copies<TILE_STAGES - 2>();
        __syncthreads();  // the stage is here, and the one to be filled next has been read by all
        const int next = word + TILE_STAGES - 1;
        if (next < words)
            fetch<SIDE, STRIDE>(stages + next % TILE_STAGES * STAGE, slices, part, columns, first_unit, 32 * next);
        close_copies();
        const unsigned short* const row = lane_row<SIDE, STRIDE>(stages + word % TILE_STAGES * STAGE, warp);
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
            unsigned int high_part[4], low_part[4];
            load_fragment<SIDE, STRIDE>(high_part, row, odd);
            load_fragment<SIDE, STRIDE>(low_part, row + ROWS * STRIDE, odd);
#pragma unroll
            for (int n = 0; n < GROUP; ++n) {
                const unsigned int bits = states[(8 * n + g) * stride + word] >> (t + 8 * odd);
                const unsigned int b0 = bits & TWO_STATES, b1 = bits >> 4 & TWO_STATES;
                multiply_add(high_sum[n], high_part, b0, b1);
                multiply_add(low_sum[n], low_part, b0, b1);
            }
        }
    }

    const Scale scale = scale_of(*largest);
    float biases[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int unit = 16 * tile + 2 * g + r;
        biases[r] = unit < n_units ? bias[unit] : 0.0f;
    }
    const Address address = {seed, step, SIDE == 2 ? STREAM_Z2 : STREAM_Z1};
#pragma unroll
    for (int n = 0; n < GROUP; ++n)
        draw_tile(high_sum[n], low_sum[n], biases, scale,
                  words_of_tile(address, tile, first_chain + (unsigned int)chain + 8 * n), tile,
                  (unsigned char*)(target + (chain + 8 * n) * target_words), 4 * target_words);
}
