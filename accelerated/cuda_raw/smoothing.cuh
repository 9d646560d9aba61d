// What all kinds of smoothing share: what can be asked for, the sharpness, the answer.
#pragma once
#include "elementary.cuh"

// What is wanted beside zeta, a bit each, in the order of accelerated.protocol.EXTRAS.
constexpr int DZETA_DLOGIT_Q = 1, DZETA_DRHO = 2, DZETA_DBETA = 4, LOG_RATIO = 8, NU = 16;

// The sharpness and what depends on it alone; the same for a whole launch, so computed once, on the host: see
// ``sharpness_constants`` in transforms.py.
struct Sharpness {
  double beta, inverse, d, sqrt_d, one_minus_d, share, central_share;  // d = e^-beta; 2 (1-d)/beta; (1-d)^2/(2 beta)
};

// The same, each rounded to float32; apart, because a conversion costs as much as eight multiplications. And e^beta,
// which float32 may not hold, as growth 2^whole; and tanh(beta/4).
struct Sharpness32 {
  float beta, inverse, d, sqrt_d, one_minus_d, share, central_share, growth, whole, tanh_quarter;
};

// Whether growth 2^whole is exact enough, and what is multiplied by beta far from underflow.
SCALAR bool moderate(const Sharpness32& s) { return s.beta >= 0x1p-20f && s.beta <= 4096.0f; }

struct Smoothed {
  double zeta, dzeta_dlogit_q, dzeta_drho, dzeta_dbeta;
};

SCALAR Sharpness sharpness_of(double beta) {
  double one_minus_d = -expm1(-beta);
  return {beta,        1 / beta, exp(-beta), exp(-beta / 2), one_minus_d, 2 * one_minus_d / beta,
          one_minus_d * (one_minus_d / (2 * beta))};
}
