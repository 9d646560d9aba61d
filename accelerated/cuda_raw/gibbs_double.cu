// Gibbs sampling in float64, all sweeps in one launch, 8 chains to a block; see reference.gibbs.PersistentChains.run.
#include "double.cuh"

// Draws one side of 8 chains given the other's states.
template <int SIDE>
__device__ __forceinline__ void draw_side(const Couplings<double>& of, const double* bias, Address address,
                                          unsigned int first_chain, const unsigned int* source, int source_stride,
                                          unsigned int* target, int target_stride) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3, n_units = SIDE == 2 ? of.n2 : of.n1;
    const unsigned int chain[2] = {first_chain + 2 * t, first_chain + 2 * t + 1};
    for (int block = threadIdx.x >> 5; block < words_of(n_units); block += DOUBLE_WARPS) {
        double logit[4][2], e[4][2];
        product<SIDE>(logit, of, block, source + g * source_stride);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            const int unit = 32 * block + 4 * g + u;
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                logit[u][c] = unit < n_units ? bias[unit] + logit[u][c] : NEVER;
                e[u][c] = exp(-fabs(logit[u][c]));
            }
        }
        unsigned int word[2];
        draw_words(word, logit, e, address, block, chain);
        if (g == 0) {
            target[2 * t * target_stride + block] = word[0];
            target[(2 * t + 1) * target_stride + block] = word[1];
        }
    }
}

// Dynamic shared memory: words of side 1's states of 8 chains, then side 2's.
__global__ void __launch_bounds__(32 * DOUBLE_WARPS, 1)
    gibbs_double(const double* a1, const double* a2, const double* W, const double* z1, double* z1_out, double* z2_out,
                 int n1, int n2, int vectors, long long n_chains, unsigned int first_chain, int n_sweeps,
                 unsigned long long seed, unsigned long long step, const long long* step_on_device) {
    SHARED_MEMORY(unsigned int, states1);
    const Couplings<double> of = {W, n1, n2, vectors != 0};
    const int words1 = words_of(n1), words2 = words_of(n2);
    unsigned int* const states2 = states1 + 8 * words1;
    const long long chain = 8ll * blockIdx.x;
    const int chains = (int)min(8ll, n_chains - chain);
    first_chain += (unsigned int)chain;
    if (step_on_device) step = *step_on_device;

    for (int index = threadIdx.x; index < 8 * words1; index += blockDim.x) {
        const int row = index / words1;
        states1[index] = row < chains ? pack_word(z1 + (chain + row) * n1, n1, index % words1) : 0;
    }
    __syncthreads();
    for (int sweep = 0; sweep < n_sweeps; ++sweep, ++step) {
        draw_side<2>(of, a2, {seed, step, STREAM_Z2}, first_chain, states1, words1, states2, words2);
        __syncthreads();
        draw_side<1>(of, a1, {seed, step, STREAM_Z1}, first_chain, states2, words2, states1, words1);
        __syncthreads();
    }
    for (int index = threadIdx.x; index < chains * n1; index += blockDim.x)
        z1_out[chain * n1 + index] = bit_at(states1 + index / n1 * words1, index % n1);
    for (int index = threadIdx.x; index < chains * n2; index += blockDim.x)
        z2_out[chain * n2 + index] = bit_at(states2 + index / n2 * words2, index % n2);
}
