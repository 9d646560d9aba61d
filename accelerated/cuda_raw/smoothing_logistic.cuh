// Overlapping logistics; see reference/smoothing/logistic.py and real_line.py, whose names and branches this follows.
#pragma once
#include "smoothing.cuh"

struct LogisticRoot {
  double zeta, logit, w, v, S, p, q;
  Two offset;  // zeta - 1/2
  bool mirrored;
};

// zeta - 1/2, unrounded.
SCALAR Two offset_of(double zeta) {
  Two offset = two_sum(zeta, -0.5);
  return finite(offset.high, offset.low);
}

SCALAR LogisticRoot logistic_root(double rho_given, double logit_given, const Sharpness& s) {
  LogisticRoot r;
  double beta = s.beta, d = s.d;
  r.mirrored = rho_given > 0.5;
  double rho = r.mirrored ? 1 - rho_given : rho_given;
  r.logit = r.mirrored ? -logit_given : logit_given;
  r.p = sigmoid(-r.logit);
  r.q = sigmoid(r.logit);
  bool central = fabs(r.logit) < 1 && rho > 0.25;
  double B = central ? ((2 * rho - 1) * (1 + d) + tanh(r.logit / 2) * s.one_minus_d) / 2
                     : (rho - r.p) + d * (rho - r.q);
  r.S = hypotenuse(B, 2 * s.sqrt_d * sqrt(rho * (1 - rho)));
  double y = fabs(B) + r.S, x0, x1;
  bool left = B < 0;
  r.w = left ? y / (2 * rho) : 2 * (1 - rho) * (s.sqrt_d / y) * s.sqrt_d;
  r.v = left ? 2 * rho * (s.sqrt_d / y) * s.sqrt_d : y / (2 * (1 - rho));
  // w overflows before its logarithm becomes inaccurate, for subnormal rho
  double from_w = (isinf(r.w) ? log(2 * rho) - log(y) : -log(r.w)) / beta;
  if (left) {
    x0 = from_w;
    x1 = 1 - from_w;
  } else {
    x1 = -log(r.v) / beta;
    x0 = x1 > 0.5 && x1 < 2 ? from_w : 1 - x1;
  }
  if (y == 0) {
    x0 = (1 + log(rho / (1 - rho)) / beta) / 2;
    x1 = 1 - x0;
  }
  if (rho == 0) {
    x0 = -INFINITY;
    x1 = INFINITY;
  }
  if (central && fabs(B) < r.S / 2) {
    r.offset = {(atanh(2 * rho - 1) + atanh(B / r.S)) / beta, 0};
  } else {
    r.offset = x0 < x1 ? offset_of(x0) : negative(offset_of(x1));
  }
  r.zeta = r.mirrored ? x1 : x0;
  return r;
}

// zeta and 1 - zeta, each rounded once.
SCALAR void from_the_ends(Two offset, double& zeta, double& rest) {
  Two sum = two_sum(offset.high, 0.5), difference = two_sum(0.5, -offset.high);
  sum = finite(sum.high, sum.low + offset.low);
  difference = finite(difference.high, difference.low - offset.low);
  zeta = sum.high + sum.low;
  rest = difference.high + difference.low;
}

SCALAR Two logistic_log_odds(Two offset, double beta) {
  double product = tanh(beta * (offset.high / 2)) * tanh(beta / 4);
  if (fabs(product) < 0.25) return {4 * atanh_small(product), 0};
  double zeta, rest;
  from_the_ends(offset, zeta, rest);
  bool inside = fabs(offset.high) < 0.5;
  Two large = two_product(beta, inside ? 2 * offset.high : copysign(1.0, offset.high));
  double low = large.low + (inside ? beta * (2 * offset.low) : 0);
  Two total = two_sum(large.high, 2 * (log1p(exp(-beta * fabs(zeta))) - log1p(exp(-beta * fabs(rest)))));
  return finite(total.high, total.low + low);
}

// The posterior's log odds: those of the logit and those of the sample.
SCALAR Two plus_logit(Two log_odds, double logit) {
  Two total = two_sum(logit, log_odds.high);
  return finite(isinf(logit) ? logit : total.high, total.low + log_odds.low);
}

// (beta/2) tanh(beta/4) - 1, which vanishes at beta = 3.09, to a rounding of itself: tanh(beta/4) = (1 - e)/(1 + e),
// and what the rounding of e = e^{-beta/2} lost is found by a logarithm with more digits.
SCALAR double steepness_less_1(const Sharpness& s) {
  double e = s.sqrt_d;
  Two lost = add(Two{-s.beta / 2, 0}, negative(log_of(Two{e, 0})));
  double e_low = e * lost.high;
  Two tanh_quarter = divide(add(two_sum(1, -e), Two{-e_low, 0}), add(two_sum(1, e), Two{e_low, 0}));
  return value(add(multiply(Two{s.beta / 2, 0}, tanh_quarter), Two{-1, 0}));
}

// nu - zeta for zeta = 1/2 + offset and nu = sigma(logit + log odds), from the nearest of 0, 1/2 and 1.
SCALAR double nu_minus_zeta(Two offset, double logit, const Sharpness& s) {
  double o = value(offset), x = s.beta * (o / 2);
  if (fabs(o) < 0.35 && fabs(x) < 0.75 && fabs(logit) < 1) {
    // Near l = 0 and zeta = 1/2 nu rises with zeta, for beta about 3.09 as fast as zeta itself. So what is left is
    // summed from parts that vanish with it: nu - 1/2 = tanh(l/2 + 2 atanh P)/2, P = tanh(x) tanh(beta/4), and
    // P - offset = offset ((beta/2) tanh(beta/4) - 1) + (tanh x - x) tanh(beta/4). P as offset + (P - offset) rounds
    // once; a product of tanh's would be several roundings off.
    double P_less_o = o * steepness_less_1(s) + tanh(s.beta / 4) * tanh_excess(x);
    double u = logit / 2 + tanh_excess(logit / 2), P = o + P_less_o, half_T = P / (1 + P * P), Tu = 2 * half_T * u;
    return ((P_less_o - half_T * P * P) + (u / 2 - o * Tu)) / (1 + Tu);
  }
  Two odds = plus_logit(logistic_log_odds(offset, s.beta), logit);
  if (fabs(o) < 0.35) return tanh(odds.high / 2) / 2 - o;
  double zeta, rest;
  from_the_ends(offset, zeta, rest);
  return o < 0 ? sigmoid(odds) - zeta : rest - sigmoid(negative(odds));
}

template <int WANTED>
SCALAR Smoothed logistic_double(double rho, double logit, const Sharpness& s) {
  LogisticRoot r = logistic_root(rho, logit, s);
  Smoothed result{r.zeta, 0, 0, 0};
  bool outside = rho == 0 || rho == 1;
  double beta = s.beta, S = fmax(r.S, DBL_SMALLEST_NORMAL);
  if (WANTED & DZETA_DLOGIT_Q) {
    // Where p or q underflows, S may be as small as they are: divide between two factors sqrt(p q).
    double size = fabs(r.logit), half = exp(-size / 2), sqrt_pq = half / (1 + half * half);
    double q_minus_p = tanh(r.logit / 2), pq = size < 1 ? fma(-q_minus_p, q_minus_p, 1.0) / 4 : r.p * r.q;
    double pq_over_S = size < 600 ? pq / S : sqrt_pq / S * sqrt_pq;
    if (outside) pq_over_S = r.q * sigmoid(beta - r.logit);
    result.dzeta_dlogit_q = pq_over_S * (s.one_minus_d / beta);
  }
  if (WANTED & DZETA_DRHO) {
    result.dzeta_drho = outside || r.S == 0 ? INFINITY : (1 + r.w) * (1 + r.v) / (beta * S);
  }
  if (WANTED & DZETA_DBETA) {
    double difference = nu_minus_zeta(r.offset, r.logit, s);
    result.dzeta_dbeta = outside ? -r.zeta : (r.mirrored ? -difference : difference) / beta;
  }
  return result;
}

// ---- float32 --------------------------------------------------------------------------------------------------------

// The same root by one formula for the whole line, in float32 throughout. Everything is multiplied by 1 + t, where
// t = e^{-|l|} is the quotient of the smaller of p and q and the larger:
//
//     (1 + t) B = near + d far,   rho - (1 - rho) t and rho t - (1 - rho), near the one that cancels on the plateau.
//
// e^{-beta zeta} = y/(2 rho) or 2 (1 - rho) d/y, whichever adds equal signs, y = |B| + S; d = e^-beta stays apart as
// 2^-whole/growth, for a logarithm takes mantissa and exponent apart anyway. An error of that quotient's last digits is
// one of eps/beta in zeta, and one rounding of rho always does as much.
//
// False for the rare inputs that need float64's range: no number, both ends, t below 1e-35, rho so small or modes so
// far away that squares underflow.
template <int WANTED>
SCALAR bool logistic_float(float rho, float logit, const Sharpness32& c, float& zeta, float& dlogit, float& drho) {
  float size = fabsf(logit);
  Exponential parts = exp_parts(-fminf(size, 80.0f));
  float unit = power_of_two(parts.n), t = parts.high * unit, t_low = parts.low * unit, both = 1.0f + t;
  float rest = 1.0f - rho, rest_low = (1.0f - rest) - rho;
  float of_p = fmaf(-rest_low, t, fmaf(-rest, t_low, fmaf(-rest, t, rho)));
  float of_q = fmaf(rho, t_low, fmaf(rho, t, -rest));
  float near = logit < 0.0f ? of_q : of_p, far = logit < 0.0f ? of_p : of_q, B = fmaf(c.d, far, near);
  float overlap = rho * both * (rest * both) * (4.0f * c.d), square = fmaf(B, B, overlap);  // S^2
  float S = square_root(square), y = fabsf(B) + S;
  bool left = B < 0.0f;
  bool ordinary = size <= 80.0f && rho > 0x1p-60f && rest > 0.0f && square > 0x1p-120f && moderate(c);

  float end = 2.0f * (left ? rho : rest) * both;
  float w = quotient(left ? y : end, left ? end : y * c.growth);  // times 2^-whole, if not left
  int bits = bits_of(w) - 0x3F3504F3;                             // of sqrt(1/2)
  float k = (float)(bits >> 23) - (left ? 0.0f : c.whole);
  zeta = -log_of_parts(float_of((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f, k) * c.inverse;

  if (WANTED & DZETA_DLOGIT_Q) dlogit = t * quotient(0.5f * c.share, both * S);
  if (WANTED & DZETA_DRHO) {
    float larger = quotient(y, end);
    drho = fminf((1.0f + larger) * (1.0f + quotient(c.d, larger)) * quotient(both * c.inverse, S), FLT_LARGEST);
  }
  return ordinary;
}

// A number as the unevaluated sum of a float and a much smaller one.
struct TwoFloats {
  float high, low;
};

SCALAR TwoFloats sum_of_floats(float a, float b) {
  float total = a + b, b_part = total - a;
  return {total, (a - (total - b_part)) + (b - b_part)};
}

// log r(zeta|1)/r(zeta|0) = 2 log(1 + f) + beta (|zeta| - |1 - zeta|), 1 + f = (1 + e^{-beta |zeta|})/(1 + e^{-beta
// |1 - zeta|}); or, where the two parts would cancel, 4 atanh P as above. beta_low is what beta is short of.
SCALAR TwoFloats logistic_log_odds_float(float zeta, const Sharpness32& c, float beta_low) {
  float offset = zeta - 0.5f;
  Exponential parts = exp_parts(-fminf(c.beta * fabsf(offset), 80.0f));
  float unit = power_of_two(parts.n), less = fmaf(parts.low, unit, fmaf(parts.high, unit, -1.0f));
  float P = copysignf(quotient(-less, 2.0f + less) * c.tanh_quarter, offset);
  bool small = fabsf(P) < 0.17f, inside = fabsf(offset) < 0.5f;

  Exponential zero = exp_parts(-fminf(c.beta * fabsf(zeta), 80.0f));
  Exponential one = exp_parts(-fminf(c.beta * fabsf(1.0f - zeta), 80.0f));
  float from_zero = zero.high * power_of_two(zero.n), from_one = one.high * power_of_two(one.n);
  float f = quotient(small ? P + P : from_zero - from_one, small ? 1.0f - P : 1.0f + from_one);
  float k = f > 0.4142f ? 1.0f : f < -0.2928f ? -1.0f : 0.0f;
  f = f > 0.4142f ? fmaf(0.5f, f, -0.5f) : f < -0.2928f ? fmaf(2.0f, f, 1.0f) : f;
  float near = 2.0f * log_of_parts(f, k);

  float middle = 2.0f * zeta - 1.0f, part = middle + 1.0f;  // the sum 2 zeta - 1 in two parts
  float middle_low = (2.0f * zeta - part) + ((part - middle) - 1.0f);
  if (!inside) middle = copysignf(1.0f, offset), middle_low = 0.0f;
  float far = c.beta * middle, far_low = fmaf(c.beta, middle, -far);
  far_low += fmaf(c.beta, middle_low, beta_low * middle);
  TwoFloats odds = sum_of_floats(near, small ? 0.0f : far);
  return {zeta == zeta ? odds.high : zeta, odds.low + (small ? 0.0f : far_low)};
}

// The sigmoid of a logit and log odds. A certain prior stays certain.
SCALAR float posterior(float logit, TwoFloats log_odds) {
  TwoFloats total = sum_of_floats(logit, log_odds.high);
  float low = fabsf(total.high) < 200.0f ? total.low + log_odds.low : 0.0f;
  return total.high == total.high ? sigmoid(total.high, low) : total.high;
}
