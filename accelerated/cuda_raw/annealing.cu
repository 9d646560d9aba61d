// Annealed importance sampling, forward and reverse, all machines in one launch, 8 chains to a block, in double; see
// reference.partition.anneal and anneal_reverse.
//
// softplus(x) = max(x, 0) + log(1 + e^-|x|). The sums of the first term are kept as they are; of the second the *product* of
// 1 + e^-|x| is kept, each factor in [1, 2], and its logarithm taken when it has grown, not for every unit. The e^-|x| of the
// machine a chain moves to also decides its draw.
#include "double.cuh"

constexpr double LARGE = 1e250;  // the next 32 units multiply by at most 2^4 in each lane

// One lane's share of the log-weight of one chain.
struct Weight {
    double linear = 0.0, there = 1.0, here = 1.0;

    __device__ __forceinline__ void fold() {
        linear += log(there / here);
        there = here = 1.0;
    }
};

__device__ __forceinline__ double softplus(double x) {
    return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

// Sum over all threads of the block, in every thread; partial: a double for each warp.
__device__ __forceinline__ double sum_of_block(double value, double* partial) {
    value = sum_of_lanes(value);
    value += __shfl_xor_sync(FULL_WARP, value, 1);
    value += __shfl_xor_sync(FULL_WARP, value, 2);
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = value;
    __syncthreads();
    double total = 0.0;
    for (int warp = 0; warp < DOUBLE_WARPS; ++warp) total += partial[warp];
    __syncthreads();
    return total;
}

// The machine at inverse temperature b between base and target: bias (1 - b) base + b target, couplings b W.
__device__ __forceinline__ double path_logit(double b, double base, double bias, double sum) {
    return (1.0 - b) * base + b * bias + b * sum;
}

// Weighs 8 chains from machine `here` to machine `there` and draws side 2 at `there`, unless they have arrived.
template <typename Real>
__device__ __forceinline__ void weigh_and_draw_2(Weight (&weight)[2], const Couplings<Real>& of, const Real* base,
                                                 const Real* bias, double here, double there, bool arrived, Address address,
                                                 const unsigned int (&chain)[2], const unsigned int* states1,
                                                 unsigned int* states2) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3, words1 = words_of(of.n1), words2 = words_of(of.n2);
    for (int block = threadIdx.x >> 5; block < words2; block += DOUBLE_WARPS) {
        double logit[4][2], e[4][2];
        product<2>(logit, of, block, states1 + g * words1);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            const int unit = 32 * block + 4 * g + u;
            const bool exists = unit < of.n2;
            const double from = exists ? (double)base[unit] : 0.0, to = exists ? (double)bias[unit] : 0.0;
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const double left = path_logit(here, from, to, logit[u][c]), e_left = exp(-fabs(left));
                logit[u][c] = exists ? path_logit(there, from, to, logit[u][c]) : NEVER;
                e[u][c] = exp(-fabs(logit[u][c]));
                if (exists) {
                    weight[c].linear += fmax(logit[u][c], 0.0) - fmax(left, 0.0);
                    weight[c].there *= 1.0 + e[u][c];
                    weight[c].here *= 1.0 + e_left;
                }
            }
        }
#pragma unroll
        for (int c = 0; c < 2; ++c)
            if (fmax(weight[c].there, weight[c].here) > LARGE) weight[c].fold();
        if (arrived) continue;
        unsigned int word[2];
        draw_words(word, logit, e, address, block, chain);
        if (g == 0) {
            states2[2 * t * words2 + block] = word[0];
            states2[(2 * t + 1) * words2 + block] = word[1];
        }
    }
}

// Draws side 1 of 8 chains at inverse temperature b: from the base if there are no states of side 2.
template <typename Real>
__device__ __forceinline__ void draw_1(const Couplings<Real>& of, const Real* base, const Real* bias, double b, Address address,
                                       const unsigned int (&chain)[2], const unsigned int* states2, unsigned int* states1) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3, words1 = words_of(of.n1), words2 = words_of(of.n2);
    for (int block = threadIdx.x >> 5; block < words1; block += DOUBLE_WARPS) {
        double logit[4][2] = {}, e[4][2];
        if (states2) product<1>(logit, of, block, states2 + g * words2);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            const int unit = 32 * block + 4 * g + u;
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                logit[u][c] = unit < of.n1 ? path_logit(b, base[unit], bias[unit], logit[u][c]) : NEVER;
                e[u][c] = exp(-fabs(logit[u][c]));
            }
        }
        unsigned int word[2];
        draw_words(word, logit, e, address, block, chain);
        if (g == 0) {
            states1[2 * t * words1 + block] = word[0];
            states1[(2 * t + 1) * words1 + block] = word[1];
        }
    }
}

// Walks along `path`, n_steps + 1 inverse temperatures. z1: where to start, or none: drawn from the base, and the log Z of the
// base is added to the weights; else it is taken away. Dynamic shared memory: words of 8 chains of side 1, then of side 2.
template <typename Real>
__global__ void __launch_bounds__(32 * DOUBLE_WARPS, 1)
    anneal(const Real* a1, const Real* a2, const Real* W, const Real* base1, const Real* base2, const double* path,
           const Real* z1, double* log_weights, int n1, int n2, int vectors, int n_steps, long long n_chains,
           unsigned int first_chain, unsigned long long seed) {
    SHARED_MEMORY(unsigned int, states1);
    __shared__ double partial[DOUBLE_WARPS][8];
    const Couplings<Real> of = {W, n1, n2, vectors != 0};
    const int words1 = words_of(n1), words2 = words_of(n2);
    const int warp = threadIdx.x >> 5, g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    unsigned int* const states2 = states1 + 8 * words1;
    const long long first_row = 8ll * blockIdx.x;
    const int chains = (int)min(8ll, n_chains - first_row);
    first_chain += (unsigned int)first_row;
    const unsigned int chain[2] = {first_chain + 2 * t, first_chain + 2 * t + 1};

    double share = 0.0;
    for (int unit = threadIdx.x; unit < n1; unit += blockDim.x) share += softplus(base1[unit]);
    for (int unit = threadIdx.x; unit < n2; unit += blockDim.x) share += softplus(base2[unit]);
    const double base_log_partition = sum_of_block(share, partial[0]);

    if (z1) {
        for (int index = threadIdx.x; index < 8 * words1; index += blockDim.x) {
            const int row = index / words1;
            states1[index] = row < chains ? pack_word(z1 + (first_row + row) * n1, n1, index % words1) : 0;
        }
    } else {
        draw_1(of, base1, a1, 0.0, {seed, 0, STREAM_FORWARD_INIT}, chain, nullptr, states1);
    }

    Weight weight[2];
    for (int step = 0; step < n_steps; ++step) {
        const double here = path[step], there = path[step + 1];
        const bool arrived = step == n_steps - 1;
        __syncthreads();
        double slope[2] = {0.0, 0.0};  // of the log-weight in b, through the biases of side 1
        for (int block = warp; block < words1; block += DOUBLE_WARPS) {
            const unsigned int nibble[2] = {states1[2 * t * words1 + block] >> 4 * g,
                                            states1[(2 * t + 1) * words1 + block] >> 4 * g};
            for (int u = 0, unit = 32 * block + 4 * g; u < 4 && unit < n1; ++u, ++unit) {
                const double difference = (double)a1[unit] - (double)base1[unit];
                if (nibble[0] >> u & 1) slope[0] += difference;
                if (nibble[1] >> u & 1) slope[1] += difference;
            }
        }
        for (int c = 0; c < 2; ++c) weight[c].linear += (there - here) * slope[c];
        weigh_and_draw_2(weight, of, base2, a2, here, there, arrived,
                         {seed, (unsigned long long)step, z1 ? STREAM_REVERSE_Z2 : STREAM_FORWARD_Z2}, chain, states1, states2);
        if (arrived) break;
        __syncthreads();
        draw_1(of, base1, a1, there, {seed, (unsigned long long)step, z1 ? STREAM_REVERSE_Z1 : STREAM_FORWARD_Z1}, chain,
               states2, states1);
    }
    for (int c = 0; c < 2; ++c) {
        weight[c].fold();
        const double sum = sum_of_lanes(weight[c].linear);
        if (g == 0) partial[warp][2 * t + c] = sum;
    }
    __syncthreads();
    if ((int)threadIdx.x < chains) {
        double log_weight = z1 ? -base_log_partition : base_log_partition;
        for (int other = 0; other < DOUBLE_WARPS; ++other) log_weight += partial[other][threadIdx.x];
        log_weights[first_row + threadIdx.x] = log_weight;
    }
}
