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

// cosh x - sinh(x)/x for |x| <= 1.
SCALAR double cosh_less_sinhc(double x) {
  double series = 1, square = x * x;
#pragma unroll
  for (int k = 18; k > 0; k -= 2) series = 1 + square * (1.0 / (k * (k + 3))) * series;
  return square / 3 * series;
}

// nu - zeta for zeta = 1/2 + offset and nu = sigma(logit + log odds), from the nearest of 0, 1/2 and 1.
SCALAR double nu_minus_zeta(Two offset, double logit, const Sharpness& s) {
  double x = s.beta * (offset.high / 2), k = tanh(s.beta / 4), P = tanh(x) * k;
  if (fabs(logit) < 1 && fabs(x) < 1 && fabs(P) < 0.25 && fabs(offset.high) < 0.35 && s.beta > 1) {
    // Near l = 0 and zeta = 1/2 nu rises with zeta, for beta about 3.09 as fast as zeta itself. So what is left is
    // summed from parts that vanish with it: nu - 1/2 = tanh(l/2 + 2 atanh P)/2, P = tanh(x) tanh(beta/4), and
    // P - offset = offset ((beta/2) tanh(beta/4) - 1) + (tanh x - x) tanh(beta/4).
    double tanh_less_x = -x * cosh_less_sinhc(x) / cosh(x), of_logit = tanh(logit / 2), T = 2 * P / (1 + P * P);
    double of_zeta = offset.high * steepness_less_1(s) + k * tanh_less_x - P * P * P / (1 + P * P);
    return ((of_zeta + of_logit / 2) - offset.high * T * of_logit) / (1 + T * of_logit);
  }
  Two odds = plus_logit(logistic_log_odds(offset, s.beta), logit);
  if (fabs(offset.high) < 0.35) return tanh(odds.high / 2) / 2 - (offset.high + offset.low);
  double zeta, rest;
  from_the_ends(offset, zeta, rest);
  return offset.high < 0 ? sigmoid(odds) - zeta : rest - sigmoid(negative(odds));
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
