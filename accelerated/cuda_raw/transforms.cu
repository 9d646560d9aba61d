// Kernels of the transforms and their reductions; see transforms.py, which launches them, and accelerated.protocol.
#include "bernoulli.cuh"
#include "smoothing_kinds.cuh"

// ---- the inverse CDF, element by element ----------------------------------------------------------------------------

// Sixteen bytes of an array: what a thread reads or writes at once.
template <typename T>
struct alignas(16) Pack {
  static constexpr int SIZE = 16 / sizeof(T);
  T x[SIZE];
};

template <typename T>
__device__ __forceinline__ Pack<T> load(const T* array, long long first, long long n, bool aligned) {
  if (aligned && first + Pack<T>::SIZE <= n) return *reinterpret_cast<const Pack<T>*>(array + first);
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < Pack<T>::SIZE; ++i) pack.x[i] = first + i < n ? array[first + i] : T(0);
  return pack;
}

template <typename T>
__device__ __forceinline__ void store(T* array, const Pack<T>& pack, long long first, long long n, bool aligned) {
  if (aligned && first + Pack<T>::SIZE <= n) {
    *reinterpret_cast<Pack<T>*>(array + first) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < Pack<T>::SIZE; ++i) {
    if (first + i < n) array[first + i] = pack.x[i];
  }
}

// zeta, and of the other outputs those that WANTED names, for n elements; ``aligned`` says that all arrays are to 16
// bytes.
template <typename T, int KIND, int WANTED>
__global__ void __launch_bounds__(256, sizeof(T) == 4 && KIND != POWER && !(WANTED & DZETA_DBETA) ? 4 : 2)
    inverse_cdf(long long n, const T* rho, const T* logit_q, T* zeta, T* dzeta_dlogit_q, T* dzeta_drho, T* dzeta_dbeta,
                T* log_ratio, T* nu, int aligned, double beta, double inverse, double d, double sqrt_d,
                double one_minus_d, double share, double central_share, float beta32, float inverse32, float d32,
                float sqrt_d32, float one_minus_d32, float share32, float central_share32, float growth, float whole,
                float tanh_quarter) {
  const Sharpness sharpness{beta, inverse, d, sqrt_d, one_minus_d, share, central_share};
  const Sharpness32 sharpness32{beta32,  inverse32,       d32,    sqrt_d32, one_minus_d32,
                                share32, central_share32, growth, whole,    tanh_quarter};
  const long long stride = (long long)gridDim.x * blockDim.x * Pack<T>::SIZE;
  long long first = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * Pack<T>::SIZE;
  for (; first < n; first += stride) {
    const Pack<T> noise = load(rho, first, n, aligned), logit = load(logit_q, first, n, aligned);
    Pack<T> z, by_logit, by_rho, by_beta, ratio, posterior;
#pragma unroll
    for (int i = 0; i < Pack<T>::SIZE; ++i) {
      const Sample<T> sample = smooth<KIND, WANTED>(noise.x[i], logit.x[i], sharpness, sharpness32);
      z.x[i] = sample.zeta;
      by_logit.x[i] = sample.dzeta_dlogit_q;
      by_rho.x[i] = sample.dzeta_drho;
      by_beta.x[i] = sample.dzeta_dbeta;
      ratio.x[i] = sample.log_ratio;
      posterior.x[i] = sample.nu;
    }
    store(zeta, z, first, n, aligned);
    if (WANTED & DZETA_DLOGIT_Q) store(dzeta_dlogit_q, by_logit, first, n, aligned);
    if (WANTED & DZETA_DRHO) store(dzeta_drho, by_rho, first, n, aligned);
    if (WANTED & DZETA_DBETA) store(dzeta_dbeta, by_beta, first, n, aligned);
    if (WANTED & LOG_RATIO) store(log_ratio, ratio, first, n, aligned);
    if (WANTED & NU) store(nu, posterior, first, n, aligned);
  }
}

// ---- reductions, row by row -----------------------------------------------------------------------------------------

// A block of 256 threads holds 256/lanes rows, and each row's lanes stride through its columns. What the lanes found is
// combined by a tree whose shape depends on ``lanes`` alone, and ``lanes`` on the number of columns: a row's
// result does not depend on which rows it shares a launch with.
constexpr int THREADS = 256;

__device__ __forceinline__ double merged(double a, double b) { return a + b; }

// A sum of weights e^w as total e^unit, where unit is the largest w (0 where that is infinite).
struct LogSum {
  double largest, total;
};

__device__ __forceinline__ double unit_of(double largest) { return isinf(largest) ? 0 : largest; }

__device__ __forceinline__ LogSum merged(LogSum a, LogSum b) {
  const double largest = a.largest >= b.largest ? a.largest : b.largest;
  const double unit = unit_of(largest);
  return {largest, a.total * exp(a.largest - unit) + b.total * exp(b.largest - unit)};
}

template <typename Partial>
__device__ __forceinline__ Partial combined(Partial mine, Partial* shared, int lanes) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (int half = lanes / 2; half > 0; half /= 2) {
    if ((int)threadIdx.x % lanes < half) {
      shared[threadIdx.x] = merged(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    __syncthreads();
  }
  return shared[threadIdx.x - threadIdx.x % lanes];
}

// Entropy of each row's units, and its derivative in each logit.
template <typename T>
__global__ void __launch_bounds__(THREADS)
    entropy(long long n_rows, int n_columns, const T* logit_q, T* value, T* dvalue_dlogit_q, int lanes) {
  __shared__ double partial[THREADS];
  const long long row = (long long)blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  const int lane = threadIdx.x % lanes;
  double sum = 0;
  if (row < n_rows) {
    for (int column = lane; column < n_columns; column += lanes) {
      const UnitEntropy<T> unit = unit_entropy(logit_q[row * n_columns + column]);
      dvalue_dlogit_q[row * n_columns + column] = unit.derivative;
      sum += unit.value;
    }
  }
  sum = combined(sum, partial, lanes);
  if (row < n_rows && lane == 0) value[row] = (T)sum;
}

// -a'mu - field'mu2, where field = (B, n2) is what the couplings bring to the second side.
template <typename T>
__global__ void __launch_bounds__(THREADS)
    expected_energy(long long n_rows, int n1, int n2, const T* mu, const T* a1, const T* a2, const T* field, T* value,
                    int lanes) {
  __shared__ double partial[THREADS];
  const long long row = (long long)blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  const int lane = threadIdx.x % lanes;
  double sum = 0;
  if (row < n_rows) {
    for (int unit = lane; unit < n1 + n2; unit += lanes) {
      const double weight =
          unit < n1 ? (double)a1[unit] : (double)a2[unit - n1] + (double)field[row * n2 + unit - n1];
      sum = fma(weight, (double)mu[row * (n1 + n2) + unit], sum);
    }
  }
  sum = combined(sum, partial, lanes);
  if (row < n_rows && lane == 0) value[row] = (T)-sum;
}

// The rows' weights -upstream, and the second side's mu times them: what the matrix products of the gradients take.
template <typename T>
__global__ void __launch_bounds__(THREADS)
    weighted(long long n_rows, int n1, int n2, const T* upstream, const T* mu, T* weight, T* weighted_mu2) {
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n_rows * n2; i += stride) {
    const long long row = i / n2, column = i % n2;
    weighted_mu2[i] = -upstream[row] * mu[row * (n1 + n2) + n1 + column];
    if (column == 0) weight[row] = -upstream[row];
  }
}

// Gradients in mu and nu, (B, n1 + n2) both, from the products of the couplings with the other side. ``earlier``
// (B, n1) couples units to later groups, ``same`` (B, n1 - first_same) those from first_same on to their own.
template <typename T>
__global__ void __launch_bounds__(THREADS)
    unit_gradients(long long n_rows, int n1, int n2, int first_same, const T* weight, const T* a1, const T* a2,
                   const T* field, const T* earlier, const T* same, T* mu, T* nu) {
  const int n_units = n1 + n2;
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n_rows * n_units; i += stride) {
    const long long row = i / n_units;
    const int unit = (int)(i % n_units);
    if (unit < n1) {
      const T coupled = unit < first_same ? T(0) : same[row * (n1 - first_same) + unit - first_same];
      mu[i] = weight[row] * a1[unit] + coupled;
      nu[i] = earlier[row * n1 + unit];
    } else {
      mu[i] = weight[row] * (a2[unit - n1] + field[row * n2 + unit - n1]);
      nu[i] = T(0);
    }
  }
}

// ---- the mean of weights given by their logarithms ------------------------------------------------------------------

// Log-mean-exp of rows of weights together with those before: their largest and total, or null for none; log_count is
// the logarithm of the number of all.
template <typename T>
__global__ void __launch_bounds__(THREADS)
    importance_log_mean(long long n_rows, long long n_weights, const T* log_weights, const double* largest_before,
                        const double* total_before, double log_count, double* value, double* largest, double* total,
                        int lanes) {
  __shared__ LogSum partial[THREADS];
  const long long row = (long long)blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  const int lane = threadIdx.x % lanes;
  LogSum sum{-INFINITY, 0};
  if (row < n_rows) {
    for (long long k = lane; k < n_weights; k += lanes) {
      const double w = (double)log_weights[row * n_weights + k];
      if (w > sum.largest) {
        sum = {w, sum.total * exp(sum.largest - w) + 1};
      } else {
        sum.total += exp(w - unit_of(sum.largest));
      }
    }
  }
  sum = combined(sum, partial, lanes);
  if (row < n_rows && lane == 0) {
    if (largest_before) sum = merged({largest_before[row], total_before[row]}, sum);
    value[row] = unit_of(sum.largest) + log(sum.total) - log_count;
    largest[row] = sum.largest;
    total[row] = sum.total;
  }
}
