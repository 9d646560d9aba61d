// Exponentials less the first terms of their series, in float64; see reference/smoothing/series.py. Each series is
// nested, 1 + x/a (1 + x/b (...)): its coefficients are quotients of small whole numbers, folded by the compiler.
#pragma once
#include "elementary.cuh"

// (x - 1 + e^-x)/x; ``decay`` is e^-x.
SCALAR double linear_excess(double x, double decay) {
  if (x >= 1) return ((x - 1) + decay) / x;
  double series = 1;
#pragma unroll
  for (int k = 18; k > 2; --k) series = 1 - x * (1.0 / k) * series;
  return x / 2 * series;
}

// (1 - (1 + x) e^-x)/x; where that cancels, e^-x (e^x - 1 - x)/x by a series of positive terms. ``decay`` is e^-x.
SCALAR double quadratic_excess(double x, double decay) {
  if (x >= 2) return (1 - (1 + x) * decay) / x;
  double series = 1;
#pragma unroll
  for (int k = 25; k > 2; --k) series = 1 + x * (1.0 / k) * series;
  return decay * (x / 2 * series);
}

// 1 + x^2/((k+1)(k+2)) (1 + x^2/((k+3)(k+4)) (...)) for x <= 6.
template <int K>
SCALAR double nested_series(double square) {
  double series = 1;
#pragma unroll
  for (int k = K + 40; k > K; k -= 2) series = 1 + square * (1.0 / (k * (k - 1))) * series;
  return series;
}

SCALAR double sinh_rest(double x) { return x * x * (x * x) * (2.0 / 120) * nested_series<5>(x * x); }
SCALAR double cosh_rest(double x) { return x * (x * x) * (2.0 / 24) * nested_series<4>(x * x); }

// ``spread`` is t - a.
SCALAR double gentle_imbalance(double a, double t, double spread, double q_minus_p, double beta) {
  double first = beta * (q_minus_p - spread / 3);
  return first + (q_minus_p * (cosh_rest(t) + cosh_rest(a)) - (sinh_rest(t) - sinh_rest(a)));
}
