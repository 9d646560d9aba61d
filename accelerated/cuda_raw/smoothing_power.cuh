// The power function; see reference/smoothing/power.py, whose names and branches this follows.
//
// Written for a Number that is a Two, for float64 results, or a double, for float32 results: then every sum of a large
// and a small part is one addition, and a logarithm is the library's.
#pragma once
#include "smoothing.cuh"

constexpr double LOG_2 = 0.69314718055994530942;
constexpr double TINY_DISTANCE = 1e-20;  // below it 1 - (1 - x)^c is c x to every digit

template <typename Number>
struct PowerRoot {
  double zeta, x, rest, log_weight, log_far_weight, size;
  Number log_x, log_rest;
  bool mirrored;
};

template <typename Number>
SCALAR Number log_2();
template <>
SCALAR double log_2<double>() { return LOG_2; }
template <>
SCALAR Two log_2<Two>() { return {LOG_2, 2.3190468138462996e-17}; }

template <typename Number>
SCALAR Number exponent_minus_1(double beta) { return divide(sum_of<Number>(1.0, -beta), exact<Number>(beta)); }

// |(1 - x)^c - 1|/x, given c log(1 - x) and |c|, which is its limit for x = 0.
template <typename Number>
SCALAR double far_excess(Number exponent, double size, double x) {
  return x < TINY_DISTANCE ? size : fabs(expm1_of(exponent)) / x;
}

// The distance from the nearer end, of which y is the logarithm, and the logarithms of it and of the rest.
template <typename Number>
SCALAR double power_logs(double y, Number& log_x, Number& log_rest) {
  double x = exp(y);
  if (y > -600.0) {
    log_x = log_of(exact<Number>(x));
    log_rest = log_of_complement<Number>(x);
  } else {  // x may be subnormal, or 0
    log_x = exact<Number>(y);
    log_rest = exact<Number>(-x);
  }
  return x;
}

template <typename Number>
struct PowerTail {
  Number a, minus_1, weight, far_weight;
  double both_weights;
  bool from_near_end;
};

// log(tail at y / tail wanted), and its slope by y; both with the sign that makes it increasing.
template <typename Number>
SCALAR double power_residual(const PowerTail<Number>& tail, double y, double& slope) {
  Number log_x, log_rest;
  double x = power_logs(y, log_x, log_rest);
  Number log_power = multiply(tail.a, log_x), log_rest_power = multiply(tail.a, log_rest);
  double near = exp_of(add(log_power, tail.weight)), ratio;
  if (tail.from_near_end) {
    ratio = near + exp_of(add(log_x, tail.far_weight)) * far_excess(log_rest_power, high(tail.a), x);
  } else {
    ratio = exp_of(tail.weight) * -expm1_of(log_power) + exp_of(add(log_rest_power, tail.far_weight));
  }
  double far = exp_of(add(log_x, add(multiply(tail.minus_1, log_rest), tail.far_weight)));
  slope = high(tail.a) * (near + far) / ratio;
  double value = log(ratio / tail.both_weights);
  return tail.from_near_end ? value : -value;
}

// Newton's method on a leash; see reference/smoothing/inversion.py. NaN where it does not arrive.
template <typename Number>
SCALAR double power_newton(const PowerTail<Number>& tail, double low, double high, double x) {
  double last_step = high - low, step_before = last_step;
  for (int i = 0; i < 200; ++i) {
    double slope, value = power_residual(tail, x, slope);
    if (value < 0) low = x;
    if (value > 0) high = x;
    double newton = x - value / slope, length = fabs(newton - x), rounding = Precision<Number>::eps * fabs(x) + 5e-324;
    bool trusted = low <= newton && newton <= high && (length <= step_before / 2 || length <= 8 * rounding);
    double proposal = value == 0 ? x : trusted ? newton : low + (high - low) / 2, step = fabs(proposal - x);
    x = proposal;
    if (value == value && step <= (trusted ? 8 : 1) * rounding) return x;
    step_before = last_step;
    last_step = step;
  }
  return NAN;
}

template <typename Number>
SCALAR PowerRoot<Number> power_root(double rho, double logit_given, double beta) {
  PowerRoot<Number> r;
  PowerTail<Number> f;
  f.a = divide(exact<Number>(1.0), exact<Number>(beta));
  f.minus_1 = exponent_minus_1<Number>(beta);
  r.size = fabs(logit_given);
  f.both_weights = 1 + exp(-r.size);
  bool lower = rho < 0.5;
  double tail = lower ? rho : 1 - rho;

  double signed_logit = lower ? logit_given : -logit_given;
  double at_half = sigmoid(-signed_logit) * exp2(-high(f.a)) + sigmoid(signed_logit) * -expm1(-LOG_2 * high(f.a));
  r.mirrored = lower ? tail > at_half : tail <= at_half;
  f.from_near_end = lower != r.mirrored;
  double logit = r.mirrored ? -logit_given : logit_given;
  r.log_weight = -fmax(logit, 0.0);
  r.log_far_weight = -fmax(-logit, 0.0);
  Number log_tail = log_of(exact<Number>(tail));
  f.weight = add(exact<Number>(r.log_weight), negative(log_tail));
  f.far_weight = add(exact<Number>(r.log_far_weight), negative(log_tail));

  // F lies between the CDFs given z = 0 and 1, so x between their quantiles r^beta and 1 - (1 - r)^beta, r = F(x).
  double log_r = f.from_near_end ? high(log_tail) : log1p(-tail), log_beta = log(beta);
  double lowest = fmin(beta * log_r, log_r + fmin(log_beta, 0.0)) - 1, highest = -0.59783700075562041;  // log 0.55
  double start = fmin(beta * (log_r - r.log_weight), log_r - r.log_far_weight + log_beta);
  double y = power_newton(f, lowest, highest, fmin(fmax(start, lowest), highest)), slope;
  double value = power_residual(f, y, slope), step = -value / slope;
  step = isnan(step) ? 0 : fmin(fmax(step, -1e-10), 1e-10);  // larger only on a plateau, where it says nothing

  r.x = power_logs(y, r.log_x, r.log_rest);
  Two rest = two_sum(1.0, -r.x);
  r.rest = rest.high + (rest.low - r.x * step);
  r.log_x = add(r.log_x, exact<Number>(step));
  r.log_rest = add(r.log_rest, exact<Number>(-r.x * step / r.rest));
  r.x += r.x * step;
  r.zeta = r.mirrored ? r.rest : r.x;
  return r;
}

// log(T0/T1) of the two terms of dzeta/dbeta, right also where it is nearly 0.
template <typename Number>
SCALAR double power_log_of_terms(const PowerRoot<Number>& r, Number a) {
  Number size_x = negative(r.log_x), s = add(size_x, r.log_rest);
  double logit = r.log_far_weight - r.log_weight;
  if (high(s) < 0.3) {
    double c = high(s), square = c * c;
    double bend = 9.9155121599359261e-11;
    bend = bend * square - 1.1648102229637050e-9;
    bend = bend * square + 1.4036495551869405e-8;
    bend = bend * square - 1.7499054982170235e-7;
    bend = bend * square + 2.2874912279455280e-6;
    bend = bend * square - 3.2082085206635754e-5;
    bend = bend * square + 0.00050456865340995432;
    bend = bend * square - 0.0099393970292921878;
    Number slope = add(divide(exact<Number>(1.0), log_2<Number>()), negative(a));
    return c * high(slope) - logit + c * square * bend;
  }
  Number log_size_rest = r.x < TINY_DISTANCE ? r.log_x : log_of(negative(r.log_rest));
  Number odds = add(negative(multiply(a, s)), exact<Number>(-logit));
  return high(add(odds, add(log_of(size_x), negative(log_size_rest))));
}

template <typename Number, int WANTED>
SCALAR Smoothed power_double(double rho, double logit_given, const Sharpness& s) {
  double beta = s.beta;
  if (rho == 0 || rho == 1) {  // the density there is infinite for beta > 1, for beta < 1 that of the other z alone
    double other = rho == 0 ? logit_given : -logit_given;
    double slope = beta == 1 ? 1 : beta > 1 && other != INFINITY ? 0 : beta * (1 + exp(-other));
    return {rho, 0, slope, 0};
  }
  // Beyond 1e9 the other value of z has no digit left in any result.
  PowerRoot<Number> r = power_root<Number>(rho, fmin(fmax(logit_given, -1e9), 1e9), beta);
  Number a = divide(exact<Number>(1.0), exact<Number>(beta)), minus_1 = exponent_minus_1<Number>(beta);
  Smoothed result{r.zeta, 0, 0, 0};

  // f = a e^M (share0 + share1) / (1 + e^{-|l|}), M the larger of the two exponents
  Number exponent0 = add(multiply(minus_1, r.log_x), exact<Number>(r.log_weight));
  Number exponent1 = add(multiply(minus_1, r.log_rest), exact<Number>(r.log_far_weight));
  bool zero_larger = high(exponent0) >= high(exponent1);
  Number M = zero_larger ? exponent0 : exponent1;
  double smaller = exp_of(add(zero_larger ? exponent1 : exponent0, negative(M)));
  double height = high(a) * (1 + smaller), both_weights = 1 + exp(-r.size);

  if (WANTED & DZETA_DLOGIT_Q) {
    // F(zeta|0) - F(zeta|1) as e^larger times a difference of two terms of equal signs
    bool steep = high(minus_1) > 0;  // then x^a is smaller than x
    Number larger = steep ? r.log_x : multiply(a, r.log_x), log_quotient = multiply(minus_1, r.log_x);
    if (!steep) log_quotient = negative(log_quotient);
    double far = r.rest * far_excess(multiply(minus_1, r.log_rest), fabs(high(minus_1)), r.x);
    if (!steep) far *= exp_of(log_quotient);
    double difference = (steep ? -1 : 1) * (-expm1_of(log_quotient) + far);
    if (high(minus_1) == 0) difference = 0;
    Number exponent = add(add(larger, negative(M)), exact<Number>(-r.size));
    result.dzeta_dlogit_q = exp_times(exponent, difference / (both_weights * height));
  }
  if (WANTED & DZETA_DRHO) result.dzeta_drho = exp_times(negative(M), both_weights / height);
  if (WANTED & DZETA_DBETA) {
    // (T0 + T1)/x, of which (1 - x) |log(1 - x)|/x is the part that tends to 1
    double of_far = r.x < TINY_DISTANCE ? 1 : r.rest * fabs(high(r.log_rest)) / r.x;
    double share0 = zero_larger ? 1 : smaller, share1 = zero_larger ? smaller : 1;
    double both_terms = (fabs(high(r.log_x)) * share0 + of_far * share1) / (1 + smaller);
    double towards_end = high(a) * both_terms * tanh(power_log_of_terms(r, a) / 2);
    result.dzeta_dbeta = exp_times(r.log_x, r.mirrored ? towards_end : -towards_end);
  }
  return result;
}

// log r(zeta|1) - log r(zeta|0) inside (0, 1).
template <typename Number>
SCALAR Number power_log_ratio(double zeta, double beta) {
  Number odds = add(log_of_complement<Number>(zeta), negative(log_of(exact<Number>(zeta))));
  return multiply(exponent_minus_1<Number>(beta), odds);
}
