// Parallel tempering, all rounds in one launch, all replicas of a chain in one block, in double; see
// reference.tempering.replica_rounds.
//
// A block has block_chains chains of n_replicas replicas each; column c n_replicas + r is replica r of its chain c, and columns
// are worked on 8 at a time. The energy of a replica is summed while its last sweep draws it: z2'a2 on the way to side 2, and
// z1'(a1 + W z2), whose logits are at hand, on the way to side 1.
#include "double.cuh"

// What the columns of a block stand for.
struct Columns {
    int count;              // a multiple of 8; those behind the last chain idle along
    const double* inv_temp;
    const unsigned int* row;  // of z1 and z2, and the chain whose random numbers they use
};

// Draws one side of all columns given the other's states, or fair coins if there are none, and each block's part of minus the
// energies, if there is room for them.
template <int SIDE, typename Real>
__device__ __forceinline__ void draw_side(const Couplings<Real>& of, const Real* bias, const Columns& columns, Address address,
                                          const unsigned int* source, unsigned int* target, double* minus_energy) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3, n_units = SIDE == 2 ? of.n2 : of.n1;
    const int words = words_of(n_units), source_words = words_of(SIDE == 2 ? of.n1 : of.n2);
    for (int item = threadIdx.x >> 5; item < words * (columns.count / 8); item += DOUBLE_WARPS) {
        const int block = item % words, column = item / words * 8, first = column + 2 * t;
        double sum[4][2] = {}, logit[4][2], e[4][2];
        if (source) product<SIDE>(sum, of, block, source + (column + g) * source_words);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            const int unit = 32 * block + 4 * g + u;
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                sum[u][c] += unit < n_units ? (double)bias[unit] : 0.0;
                logit[u][c] = unit >= n_units ? NEVER : source ? columns.inv_temp[first + c] * sum[u][c] : 0.0;
                e[u][c] = exp(-fabs(logit[u][c]));
            }
        }
        const unsigned int chain[2] = {columns.row[first], columns.row[first + 1]};
        unsigned int word[2];
        draw_words(word, logit, e, address, block, chain);
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            if (g == 0) target[(first + c) * words + block] = word[c];
            if (!minus_energy) continue;
            double share = 0.0;
#pragma unroll
            for (int u = 0; u < 4; ++u) {
                const int unit = 32 * block + 4 * g + u;
                // On the way to side 2 the couplings are left out: side 1 is about to change.
                const double term = SIDE == 1 ? sum[u][c] : unit < n_units ? (double)bias[unit] : 0.0;
                if (word[c] >> (4 * g + u) & 1) share += term;
            }
            share = sum_of_lanes(share);
            if (g == 0) minus_energy[block * columns.count + first + c] = share;
        }
    }
}

// Dynamic shared memory for n columns: minus the energies' parts, n for each word of a state of side 1, then of side 2; n
// energies; n inverse temperatures (all double); n rows; words of side 1's states, column by column, then side 2's.
template <typename Real>
__global__ void __launch_bounds__(32 * DOUBLE_WARPS, 1)
    temper(const Real* a1, const Real* a2, const Real* W, const double* inv_temps, const Real* z1, Real* z1_out, Real* z2_out,
           unsigned long long* n_accepted, int n1, int n2, int vectors, int n_replicas, int n_chains, int block_chains,
           long long first_round, int n_rounds, int sweeps_per_round, unsigned long long seed) {
    SHARED_MEMORY(double, memory);
    const Couplings<Real> of = {W, n1, n2, vectors != 0};
    const int words1 = words_of(n1), words2 = words_of(n2), n_columns = (block_chains * n_replicas + 7) / 8 * 8;
    double* const parts1 = memory;
    double* const parts2 = parts1 + words1 * n_columns;
    double* const energies = parts2 + words2 * n_columns;
    double* const inv_temp = energies + n_columns;
    unsigned int* const rows = (unsigned int*)(inv_temp + n_columns);
    unsigned int* const states1 = rows + n_columns;
    unsigned int* const states2 = states1 + n_columns * words1;

    const int first_chain = blockIdx.x * block_chains;
    const int used = min(block_chains, n_chains - first_chain) * n_replicas;
    for (int column = threadIdx.x; column < n_columns; column += blockDim.x) {
        const int replica = column % n_replicas;
        rows[column] = column < used ? (unsigned int)replica * n_chains + first_chain + column / n_replicas : 0;
        inv_temp[column] = inv_temps[replica];
    }
    __syncthreads();
    const Columns columns = {n_columns, inv_temp, rows};
    if (z1) {
        for (int index = threadIdx.x; index < n_columns * words1; index += blockDim.x)
            states1[index] = pack_word(z1 + (long long)rows[index / words1] * n1, n1, index % words1);
    } else {
        draw_side<1>(of, a1, columns, {seed, 0, STREAM_TEMPERING_INIT}, nullptr, states1, nullptr);
    }
    __syncthreads();

    for (long long round = first_round; round < first_round + n_rounds; ++round) {
        for (int sweep = 0; sweep < sweeps_per_round; ++sweep) {
            const unsigned long long step = round * sweeps_per_round + sweep;
            const bool last = sweep == sweeps_per_round - 1;
            draw_side<2>(of, a2, columns, {seed, step, STREAM_TEMPERING_Z2}, states1, states2, last ? parts2 : nullptr);
            __syncthreads();
            draw_side<1>(of, a1, columns, {seed, step, STREAM_TEMPERING_Z1}, states2, states1, last ? parts1 : nullptr);
            __syncthreads();
        }
        for (int column = threadIdx.x; column < used; column += blockDim.x) {
            double minus = 0.0;
            for (int word = 0; word < words1 + words2; ++word) minus += parts1[word * n_columns + column];
            energies[column] = -minus;
        }
        __syncthreads();
        // A thread for each column that is the lower one of a pair; another parity's pairs wait for the next round.
        for (int column = threadIdx.x; column < used; column += blockDim.x) {
            const int r = column % n_replicas;
            if ((r & 1) != (round & 1) || r == n_replicas - 1) continue;
            const Words words =
                words_at({seed, (unsigned long long)round, STREAM_SWAP}, first_chain + column / n_replicas, r / 4);
            const unsigned int low = r & 1 ? words.word[1] : words.word[0], high = r & 1 ? words.word[3] : words.word[2];
            const double log_ratio =
                (inv_temp[column] - inv_temp[column + 1]) * (energies[column] - energies[column + 1]);
            if (!(uniform_double(r & 2 ? high : low) < exp(fmin(log_ratio, 0.0)))) continue;
            atomicAdd(n_accepted + r, 1ull);
            for (int side = 1; side <= 2; ++side) {
                const int words_here = side == 1 ? words1 : words2;
                unsigned int* const lower = (side == 1 ? states1 : states2) + column * words_here;
                for (int word = 0; word < words_here; ++word) {
                    const unsigned int state = lower[word];
                    lower[word] = lower[words_here + word];
                    lower[words_here + word] = state;
                }
            }
        }
        __syncthreads();
    }
    for (int index = threadIdx.x; index < used * n1; index += blockDim.x)
        z1_out[(long long)rows[index / n1] * n1 + index % n1] = bit_at(states1 + index / n1 * words1, index % n1);
    for (int index = threadIdx.x; index < used * n2; index += blockDim.x)
        z2_out[(long long)rows[index / n2] * n2 + index % n2] = bit_at(states2 + index / n2 * words2, index % n2);
}
