// Overlapping exponentials; see reference/smoothing/exponential.py, whose names and branches the float64 part follows.
#pragma once
#include "series.cuh"
#include "smoothing.cuh"

struct ExponentialRoot {
  double zeta, x0, x1, n1, v0, q, S, B, X, sqrt_pq, q_minus_p, four_pq, S_squared, size;
  bool mirrored, central;
};

SCALAR ExponentialRoot exponential_root(double rho, double logit, const Sharpness& s) {
  ExponentialRoot r;
  double beta = s.beta, d = s.d;
  r.size = fabs(logit);
  double half = exp(-r.size / 2), p = 1 / (1 + half * half), q = half * half * p;
  r.q = q;
  r.sqrt_pq = half * p;
  r.q_minus_p = -tanh(r.size / 2);
  r.mirrored = logit > 0;
  double below = r.mirrored ? 1 - rho : rho, above = r.mirrored ? rho : 1 - rho, R_mirror = above * s.one_minus_d;
  r.four_pq = 1 - r.q_minus_p * r.q_minus_p;
  r.central = r.q_minus_p > -0.5 && beta < 600;
  if (r.central) {
    double u = r.mirrored ? 1 - 2 * rho : 2 * rho - 1;
    r.B = (u * s.one_minus_d + r.q_minus_p * (1 + d)) / 2;
    r.X = (u - r.q_minus_p) / 2 * s.one_minus_d;
    r.S_squared = r.B * r.B + r.four_pq * d;
    r.S = sqrt(r.S_squared);
  } else {
    r.B = q - R_mirror - p * d;
    r.X = (below - q) * s.one_minus_d;
    r.S_squared = 0;
    r.S = hypotenuse(r.B, 2 * s.sqrt_d * r.sqrt_pq);
  }
  double sum0 = 1 + r.X + r.S, sum1 = (r.X > 0.5 ? q + R_mirror + p * d : 1 - r.X) + r.S;
  r.v0 = below / sum0 * s.share;
  double v1 = above / fmax(sum1, DBL_SMALLEST_NORMAL) * s.share;
  r.n1 = fmin(beta * v1, 1.0);

  double y = fabs(r.B) + r.S;
  bool left = beta < 1e-6 ? r.v0 <= v1 : r.B < 0 && y >= 2 * p * s.sqrt_d;
  double v = fmin(r.v0, v1), n = beta * v, nearer;
  if (n <= DBL_SMALLEST_NORMAL) {
    nearer = v;  // n may be subnormal where zeta is not
  } else if (n < 0.5) {
    nearer = -log1p(-n) / beta;
  } else {
    double e = left ? y / (2 * p) : r.B < 0 ? 2 * p * (s.sqrt_d / y) * s.sqrt_d : y / (2 * q);
    double between = y == 0 ? (beta - r.size) / 2 : -log(e);
    nearer = fmin(fmax(between / beta, 0.0), 1.0);
  }
  r.x0 = left ? nearer : 1 - nearer;
  r.x1 = left ? 1 - nearer : nearer;
  r.zeta = r.mirrored ? r.x1 : r.x0;
  return r;
}

SCALAR double exponential_dzeta_dbeta(const ExponentialRoot& r, const Sharpness& s) {
  double beta = s.beta, a = beta * r.x0, t = beta * r.x1, S = fmax(r.S, DBL_SMALLEST_NORMAL), result;
  if (beta < 4.25 && beta < 12 * r.q) {  // where the terms of the other arrangement cancel more
    double spread = beta * (r.x1 - r.x0);
    if (r.central && fabs(spread) < 0.125 * beta && r.size < beta) spread = -r.size - 2 * atanh(r.B / S);
    result = gentle_imbalance(a, t, spread, r.q_minus_p, beta) / (2 * S * expm1(beta));
  } else {
    double y = fmax(fabs(r.B) + S, DBL_SMALLEST_NORMAL), overlap = r.sqrt_pq * s.sqrt_d;
    bool plateau = r.S < DBL_SMALLEST_NORMAL;
    double larger = plateau ? 0.5 : y / (2 * S);
    double smaller = plateau     ? 0.5
                     : r.central ? r.four_pq * s.d / (2 * S * y)
                                 : 2 * (overlap / S) * (overlap / y);
    double nu = r.B >= 0 ? larger : smaller, one_minus_nu = r.B >= 0 ? smaller : larger;
    double decay_a = exp(-a), decay_t = exp(-t);
    double of_zero = quadratic_excess(t, decay_t) + decay_t * linear_excess(a, decay_a);
    double of_one = quadratic_excess(a, decay_a) + decay_a * linear_excess(t, decay_t);
    result = (nu * of_one - one_minus_nu * of_zero) / s.one_minus_d;
  }
  result = r.x0 * (r.x1 * result);
  return r.mirrored ? -result : result;
}

template <int WANTED>
SCALAR Smoothed exponential_double(double rho, double logit, const Sharpness& s) {
  ExponentialRoot r = exponential_root(rho, logit, s);
  Smoothed result{r.zeta, 0, 0, 0};
  double slope = fmax(r.S, DBL_SMALLEST_NORMAL);
  if (WANTED & DZETA_DLOGIT_Q) {
    if (r.central) {
      double c = r.four_pq * s.one_minus_d;
      double weight = r.four_pq * s.central_share / (r.S_squared + slope * (1 + (r.X * r.q_minus_p - c / 2)));
      result.dzeta_dlogit_q = rho * (1 - rho) * weight;
    } else {
      result.dzeta_dlogit_q = (r.sqrt_pq / slope * r.v0) * (r.n1 * r.sqrt_pq);
    }
  }
  if (WANTED & DZETA_DRHO) result.dzeta_drho = s.share / 2 / slope;
  if (WANTED & DZETA_DBETA) result.dzeta_dbeta = exponential_dzeta_dbeta(r, s);
  return result;
}

SCALAR double exponential_log_ratio(double zeta, double beta) { return beta * (2 * zeta - 1); }

// A small nu is an exponential, which magnifies the rounding of its argument: so that is carried unevaluated.
SCALAR double exponential_nu(double zeta, double logit, double beta) {
  Two middle = two_sum(2 * zeta, -1), ratio = two_product(beta, middle.high);
  ratio.low += beta * middle.low;
  return sigmoid(add({logit, 0}, ratio));
}

// ---- float32 --------------------------------------------------------------------------------------------------------

// The same root by fewer cases, in float32 throughout. False for the rare inputs that need float64's range or digits:
// no number, q below 1e-35, or both modes so far away that the squares in S underflow.
//
// What float64 gains by its cases near l = 0 is gained here by digits: q from e^{-|l|/2} with more digits than a
// float32 has, 1 - rho in two parts, products by fused multiply-adds. No branches: neighbours of a warp would take all
// of them.
template <int WANTED>
SCALAR bool exponential_float(float rho, float logit, const Sharpness32& s, float& zeta, float& dlogit, float& drho) {
  float size = fabsf(logit);
  Exponential half = exp_parts(-0.5f * fminf(size, 80.0f));
  float unit = power_of_two(half.n), unit_squared = unit * unit;
  float square = half.high * half.high;  // e^-size = t + t_low, 1 + e^-size = both + both_low
  float t = square * unit_squared;
  float t_low = fmaf(half.high + half.high, half.low, fmaf(half.high, half.high, -square)) * unit_squared;
  float both = 1.0f + t, both_low = ((1.0f - both) + t) + t_low;
  float p = quotient(1.0f, both), q = t * p, sqrt_pq = half.high * unit * p;
  float q_rest = fmaf(-q, both, t) + fmaf(-q, both_low, t_low);  // q + q_rest p
  bool mirrored = logit > 0.0f;
  float complement = 1.0f - rho;
  float below = mirrored ? complement : rho, above = mirrored ? rho : complement;
  float rest_of_above = mirrored ? 0.0f : (1.0f - complement) - rho;
  float B = fmaf(q_rest, p, fmaf(-rest_of_above, s.one_minus_d, fmaf(-above, s.one_minus_d, q)));
  B = fmaf(-p, s.d, B);
  float overlap = 2.0f * s.sqrt_d * sqrt_pq;
  bool ordinary = size <= 80.0f && fminf(rho, complement) >= 0.0f && fmaxf(fabsf(B), overlap) > 0x1p-60f;

  float S = square_root(fmaf(B, B, overlap * overlap)), y = fabsf(B) + S;
  float v0 = quotient(below, fmaf(below, s.one_minus_d, p) + fmaf(q, s.d, S)) * s.share;
  float v1 = quotient(above, fmaf(above, s.one_minus_d, q) + fmaf(p, s.d, S)) * s.share;

  // The distance from the nearer end is -(k log 2 + log(1 + f))/beta: near that end from n = 1 - e^{-beta distance},
  // further in from e^{-beta distance} = e. (A gentle smoothing has B of any sign in the middle, but all digits of v.)
  float from_plateau = 2.0f * p * s.sqrt_d;
  bool left = s.beta < 1.0f ? v0 <= v1 : B < 0.0f && y >= from_plateau;
  bool product = B < 0.0f && !left;
  float e = quotient(product ? from_plateau : 0.5f * y * both, left ? 1.0f : product ? y : t);
  e = fminf(product ? e * s.sqrt_d : e, 1.0f);
  int bits = bits_of(e) - 0x3F3504F3;  // of sqrt(1/2)
  float v = left ? v0 : v1, n = s.beta * v;
  float f = n < 0.29f ? -n : n < 0.5f ? fmaf(-2.0f, n, 1.0f) : float_of((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
  float k = n < 0.29f ? 0.0f : n < 0.5f ? -1.0f : (float)(bits >> 23);
  float log_e = -log_of_parts(f, k), nearer = log_e * s.inverse;
  nearer = fminf(fmaf(fmaf(-nearer, s.beta, log_e), s.inverse, nearer), 1.0f);  // the quotient, rounded once
  nearer = n < 1e-30f ? v : nearer;                                              // n may be subnormal where v is not
  zeta = left != mirrored ? nearer : 1.0f - nearer;

  if (WANTED & DZETA_DLOGIT_Q) {
    float q_minus_p = ((t - 1.0f) + t_low) * p;
    float four_pq = fmaf(-q_minus_p, q_minus_p, 1.0f), X = fmaf(-t, p, below) * s.one_minus_d;
    float bracket = fmaf(-0.5f * four_pq, s.one_minus_d, fmaf(X, q_minus_p, 1.0f));
    bool central = q_minus_p > -0.5f && s.beta < 40.0f;
    float numerator = central ? four_pq * s.central_share : sqrt_pq;
    float denominator = central ? fmaf(S, bracket, fmaf(B, B, four_pq * s.d)) : S;
    float factor = central ? fmaf(-rho, rho, rho) : v0 * (fminf(s.beta * v1, 1.0f) * sqrt_pq);
    dlogit = quotient(numerator, denominator) * factor;
  }
  if (WANTED & DZETA_DRHO) drho = quotient(0.5f * s.share, S);
  return ordinary;
}

SCALAR float exponential_nu(float zeta, float logit, float beta) {
  float middle = 2.0f * zeta - 1.0f, part = middle + 1.0f;  // the sum 2 zeta - 1 in two parts,
  float middle_low = (2.0f * zeta - part) + ((part - middle) - 1.0f);
  float ratio = beta * middle;  // times beta,
  float ratio_low = fmaf(beta, middle, -ratio) + beta * middle_low;
  float odds = logit + ratio;
  part = odds - logit;  // plus the logit
  float low = ((logit - (odds - part)) + (ratio - part)) + ratio_low;
  return odds == odds ? sigmoid(odds, fabsf(odds) < 200.0f ? low : 0.0f) : odds;
}
