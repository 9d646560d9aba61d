// Spike-and-exponential; see reference/smoothing/spike_exponential.py, whose names and branches this follows.
#pragma once
#include "series.cuh"
#include "smoothing.cuh"

template <int WANTED>
SCALAR Smoothed spike_exponential_double(double rho, double logit, const Sharpness& s) {
  constexpr double SCALE = 0x1p128;  // times it, exactly, every subnormal number is an ordinary one with all its digits
  double beta = s.beta, size = fabs(logit), half = exp(-size / 2), larger = 1 / (1 + half * half);
  double smaller = half * half * larger, smaller_scaled = half * SCALE * half * larger;
  bool likely = logit > 0, top = rho == 1;
  double q = likely ? larger : smaller;
  double excess = size < 1 ? ((rho - 0.5) + tanh(logit / 2) / 2) * SCALE
                  : likely ? rho * SCALE - smaller_scaled
                           : smaller_scaled - (1 - rho) * SCALE;  // 2^128 (rho - p)
  if (!((excess > 0 || top) && logit > -INFINITY)) return {0, 0, 0, 0};  // on the spike nothing moves

  double s_scaled = top ? SCALE : excess / q, rest = top ? 0 : (1 - rho) / q;
  double n1 = rest * s.one_minus_d, decay = s_scaled * (1 / SCALE) + rest * s.d;
  double from_right = (n1 < 0.5 ? -log1p(-n1) : -log(decay)) / beta;
  // zeta, were it small: s (e^beta - 1)/beta, with e^beta - 1 = e^{beta/2} (e^{beta/2} - e^{-beta/2})
  double root = exp(beta / 2);
  double straight = s_scaled * root * (root * s.one_minus_d / beta * (1 / SCALE)), growth = beta * straight;
  bool right = from_right < 0.5 || isinf(growth);
  from_right = fmin(from_right, 1.0);
  double x0 = right ? 1 - from_right : growth < DBL_SMALLEST_NORMAL ? straight : log1p(growth) / beta;
  double x1 = right ? from_right : 1 - x0;

  Smoothed result{x0, 0, 0, 0};
  double slope = s.one_minus_d / (beta * decay);  // 1 / r(zeta|1)
  if (WANTED & DZETA_DLOGIT_Q) {
    double p0 = (likely ? half : 1.0) * larger, p1 = likely ? half : 1.0;  // p as a product of two normal numbers
    result.dzeta_dlogit_q = rest == 0 || p0 == 0 ? 0 : (p0 * slope) * (rest * p1);
  }
  if (WANTED & DZETA_DRHO) result.dzeta_drho = slope / q;
  if (WANTED & DZETA_DBETA) {
    double a = beta * x0, t = beta * x1, decay_a = exp(-a);
    double of_one = quadratic_excess(a, decay_a) + decay_a * linear_excess(t, exp(-t));
    result.dzeta_dbeta = x0 * (x1 * (of_one / s.one_minus_d));
  }
  return result;
}

// ---- float32 --------------------------------------------------------------------------------------------------------

// The same by one formula for the whole of [0, 1], in float32 throughout. With e = e^{-l}, which is p/q,
//
//     s = (rho - p)/q = rho - (1 - rho) e,   zeta = log(1 + s (e^beta - 1))/beta,   1/q = 1 + e,
//
// where 1 + s (e^beta - 1) = 2^whole (2^-whole + h) stays in float32's range, and a logarithm takes mantissa and
// exponent apart anyway. False for the rare inputs that need float64: no number, p or q below 1e-35, s below 1e-30.
template <int WANTED>
SCALAR bool spike_exponential_float(float rho, float logit, const Sharpness32& c, float& zeta, float& dlogit,
                                    float& drho) {
  Exponential parts = exp_parts(-fmaxf(fminf(logit, 80.0f), -80.0f));
  float unit = power_of_two(parts.n), e = parts.high * unit, rest = 1.0f - rho;
  float rest_low = (1.0f - rest) - rho, s = fmaf(-rest_low, e, fmaf(-rest, parts.low * unit, fmaf(-rest, e, rho)));
  // s is off by a tenth of a rounding of rho. Within half of one it says nothing, least of all by how much a huge
  // derivative exceeds the spike's 0: such a draw counts as on the spike.
  bool beyond = s > 0x1p-25f * rho;
  bool ordinary = fabsf(logit) <= 80.0f && fminf(rho, rest) >= 0.0f && !(beyond && s < 1e-30f) && moderate(c);

  float rise = c.growth * c.one_minus_d, h = s * rise;  // e^beta - 1 = rise 2^whole
  float none = power_of_two(-(int)fminf(c.whole, 127.0f)), total = none + h;  // 2^-whole, or 0 beyond 2^-126
  int exponent = (bits_of(total) - 0x3F3504F3) & (int)0xFF800000;  // of total/sqrt(1/2), where a float has it
  float scale = float_of(0x3F800000 - exponent);
  float log_of_total = log_of_parts(fmaf(h, scale, fmaf(none, scale, -1.0f)), (float)(exponent >> 23) + c.whole);
  zeta = rho == 1.0f ? 1.0f : fminf(log_of_total * c.inverse, 1.0f);

  float slope = quotient(rise * c.inverse, total);  // 1 / r(zeta|1)
  if (WANTED & DZETA_DLOGIT_Q) dlogit = beyond ? slope * rest * e : 0.0f;
  if (WANTED & DZETA_DRHO) drho = beyond ? fminf(fmaf(slope, e, slope), FLT_LARGEST) : 0.0f;
  if (!beyond) zeta = 0.0f;
  return ordinary;
}
