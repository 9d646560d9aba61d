// Entropy of one binary unit and its derivative in the logit; see reference.bernoulli.entropy.
#pragma once
#include "elementary.cuh"

template <typename T>
struct UnitEntropy {
  double value;
  T derivative;
};

// H = log(1 + e^-|l|) + |l| sigma(-|l|), dH/dl = -l sigma(l) sigma(-l); 0 for an infinite logit. e^{-|l|/2} does not
// underflow before the results do.
SCALAR UnitEntropy<double> unit_entropy(double logit) {
  double size = fabs(logit);
  if (isinf(size)) return {0, 0};
  double half = exp(-size / 2), p = 1 / (1 + half * half), sqrt_pq = half * p;
  return {log1p(half * half) + size * half * p * half, -logit * sqrt_pq * sqrt_pq};
}

// The exponential's power of two is applied last, so that q may underflow where the product with l does not.
SCALAR UnitEntropy<float> unit_entropy(float logit) {
  float size = fabsf(logit);
  if (size > 120.0f) return {0, -copysignf(0.0f, logit)};
  Exponential parts = exp_parts(-size);
  float small = scaled(parts.high + parts.low, parts.n), p = 1.0f / (1.0f + small);
  float f = small, k = 0.0f;
  if (small > 0.4142f) {
    f = fmaf(0.5f, small, -0.5f);
    k = 1.0f;
  }
  float mantissa = parts.high * p;
  double value = (double)log_of_parts(f, k) + (double)scaled(size * mantissa, parts.n);
  return {value, scaled(-logit * (mantissa * p), parts.n)};
}
