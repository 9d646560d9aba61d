// Elementary functions for the transforms, on the device and, for their judge, in host C++.
//
// float32: written out in additions, multiplications and fused multiply-adds, which round alike everywhere, and two
// estimates that are then corrected; so the accuracy that is measured on a CPU is that of the kernels.
// float64: those of the platform's library, and sums of two doubles after reference/smoothing/compensated.py.
// Compiled so that nothing is fused but what is written as fma: see options in compile.py.
#pragma once

#if defined(__CUDACC__)
#define SCALAR __device__ __forceinline__
#define SCALAR_RARE __device__ __noinline__
#if !defined(INFINITY)  // NVRTC comes without <math.h>
#define INFINITY __int_as_float(0x7F800000)
#define NAN __int_as_float(0x7FFFFFFF)
#endif
#else
#include <math.h>
#include <string.h>
#define SCALAR inline
#define SCALAR_RARE inline
#endif

constexpr float FLT_LARGEST = 3.402823466e+38f;
constexpr double DBL_LARGEST = 1.7976931348623157e308;
constexpr double DBL_SMALLEST_NORMAL = 2.2250738585072014e-308;

// ---- float32 --------------------------------------------------------------------------------------------------------

SCALAR int bits_of(float x) {
#if defined(__CUDACC__)
  return __float_as_int(x);
#else
  int bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

SCALAR float float_of(int bits) {
#if defined(__CUDACC__)
  return __int_as_float(bits);
#else
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

// 2^n for -126 <= n <= 127.
SCALAR float power_of_two(int n) { return float_of((n + 127) << 23); }

// e^x = (high + low) 2^n for |x| <= 1e4, high in [0.7, 1.42), low some roundings of it: an error of 0.1 roundings.
struct Exponential {
  float high, low;
  int n;
};

SCALAR Exponential exp_parts(float x) {
  const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the last bits
  float shifted = fmaf(x, 1.44269504f, shifter);
  float n = shifted - shifter;
  float r = fmaf(n, -0.693145752f, x);  // log 2 in two parts, the first of which has few bits
  r = fmaf(n, -1.42860677e-6f, r);
  float series = fmaf(fmaf(fmaf(fmaf(0.0013950630091130733f, r, 0.008368969894945621f), r, 0.04166620224714279f), r,
                           0.166665181517601f), r, 0.5f);
  float excess = fmaf(r * r, series, r);
  float high = 1.0f + excess;
  return {high, excess - (high - 1.0f), bits_of(shifted) - 0x4B400000};
}

// (high + low) 2^n for -250 <= n <= 250, also where that is subnormal.
SCALAR float scaled(float x, int n) {
  int half = n >> 1;
  return x * power_of_two(half) * power_of_two(n - half);
}

// k log 2 + log(1 + f) for f in [-0.2929, 0.4143].
SCALAR float log_of_parts(float f, float k) {
  float series = fmaf(fmaf(fmaf(-0.07861623167991638f, f, 0.1288382112979889f), f, -0.13129010796546936f), f,
                      0.14180907607078552f);
  series = fmaf(fmaf(series, f, -0.16624502837657928f), f, 0.20002296566963196f);
  series = fmaf(fmaf(series, f, -0.25000810623168945f), f, 0.33333316445350647f);
  float square = f * f;
  float rest = fmaf(square * f, series, k * 1.42860677e-6f);
  rest = fmaf(-0.5f, square, rest);
  return fmaf(k, 0.693145752f, f + rest);
}

// The device's estimates of 1/x and 1/sqrt(x), one instruction each, some 1 and 2 units in the last place off; x an
// ordinary number. A host that wants to know what that does to the results defines OFF_BY.
#if !defined(OFF_BY)
#define OFF_BY(x, estimate) (estimate)
#endif
SCALAR float reciprocal_estimate(float x) {
#if defined(__CUDACC__)
  float estimate;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(estimate) : "f"(x));
  return estimate;
#else
  return OFF_BY(x, 1.0f / x);
#endif
}
SCALAR float reciprocal_root_estimate(float x) {
#if defined(__CUDACC__)
  float estimate;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(estimate) : "f"(x));
  return estimate;
#else
  return OFF_BY(x, 1.0f / sqrtf(x));
#endif
}

// Corrected once, which rounds nearly always as the exact result does: without the cases that a division has for
// numbers that are not ordinary ones.
SCALAR float quotient(float a, float b) {
  float estimate = reciprocal_estimate(b), q = a * estimate;
  return fmaf(fmaf(-b, q, a), estimate, q);
}
SCALAR float square_root(float x) {
  float estimate = reciprocal_root_estimate(x), root = x * estimate;
  return fmaf(fmaf(-root, root, x), 0.5f * estimate, root);
}

// 1 / (1 + e^-(high + low)); an infinite high needs a low of 0.
SCALAR float sigmoid(float high, float low) {
  float size = fminf(fabsf(high), 170.0f);  // beyond it e^-size is 0
  Exponential small = exp_parts(-size);
  small.low += small.high * (high < 0.0f ? low : -low);
  float mantissa = small.high + small.low;
  float rounded = quotient(high < 0.0f ? mantissa : 1.0f, 1.0f + scaled(mantissa, small.n));
  return high < 0.0f ? scaled(rounded, small.n) : rounded;
}

// ---- float64: a number as the unevaluated sum of a double and a much smaller one ------------------------------------

struct Two {
  double high, low;
};

// The same words for a double and for a Two: formulas written with them exist in both precisions.
SCALAR double high(double a) { return a; }
SCALAR double high(Two a) { return a.high; }
SCALAR double value(double a) { return a; }
SCALAR double value(Two a) { return a.high + a.low; }

template <typename Number> SCALAR Number exact(double x);
template <> SCALAR double exact<double>(double x) { return x; }
template <> SCALAR Two exact<Two>(double x) { return {x, 0.0}; }

SCALAR Two two_sum(double a, double b) {
  double total = a + b, b_part = total - a;
  return {total, (a - (total - b_part)) + (b - b_part)};
}

SCALAR Two two_product(double a, double b) {
  double product = a * b;
  return {product, fma(a, b, -product)};
}

// high + low without the low part where it is none, at infinities.
SCALAR Two finite(double high, double low) { return {high, isfinite(high) && isfinite(low) ? low : 0.0}; }

template <typename Number> SCALAR Number sum_of(double a, double b);
template <> SCALAR double sum_of<double>(double a, double b) { return a + b; }
template <> SCALAR Two sum_of<Two>(double a, double b) { return two_sum(a, b); }

SCALAR double negative(double a) { return -a; }
SCALAR Two negative(Two a) { return {-a.high, -a.low}; }
SCALAR double add(double a, double b) { return a + b; }
SCALAR Two add(Two a, Two b) {
  Two total = two_sum(a.high, b.high);
  return two_sum(total.high, total.low + (a.low + b.low));
}
SCALAR double multiply(double a, double b) { return a * b; }
SCALAR Two multiply(Two a, Two b) {
  Two product = two_product(a.high, b.high);
  return two_sum(product.high, product.low + (a.high * b.low + a.low * b.high));
}
SCALAR double divide(double a, double b) { return a / b; }
SCALAR Two divide(Two a, Two b) {
  double quotient = a.high / b.high;
  Two product = two_product(quotient, b.high);
  double left_over = (a.high - product.high) - product.low + (a.low - quotient * b.low);
  return two_sum(quotient, left_over / b.high);
}

SCALAR double exp_of(double exponent) { return exp(exponent); }
SCALAR double exp_of(Two exponent) {
  // infinity + infinity * low would be NaN
  double result = exp(exponent.high);
  return exponent.high < 709.0 ? result + result * exponent.low : result;
}
SCALAR double expm1_of(double exponent) { return expm1(exponent); }
SCALAR double expm1_of(Two exponent) {
  double result = expm1(exponent.high);
  return result + (result + 1.0) * exponent.low;
}
// exp(exponent) factor, where the exponential may leave the range of a double and the product may not.
SCALAR double exp_times(double exponent, double factor) {
  double root = exp(exponent / 2);
  return factor == 0.0 ? 0.0 : root * factor * root;
}
SCALAR double exp_times(Two exponent, double factor) {
  double root = exp_of(Two{exponent.high / 2, exponent.low / 2});
  return factor == 0.0 ? 0.0 : root * factor * root;
}
SCALAR double log_of(double x) { return log(x); }
// See reference.smoothing.compensated.log.
SCALAR Two log_of(Two x) {
  int exponent;
  double m = frexp(x.high, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2;
    exponent -= 1;
  }
  double k = exponent;
  Two s = divide(Two{m - 1.0, 0.0}, two_sum(m, 1.0));
  double square = s.high * s.high, rest = 0.0;
#pragma unroll
  for (int n = 11; n > 0; --n) rest = square * (1.0 / (2 * n + 1) + rest);
  Two total = two_sum(k * 0x1.62e42feep-1, 2 * s.high);
  return two_sum(total.high,
                 total.low + (k * 0x1.a39ef35793c76p-33 + 2 * (s.low + s.high * rest) + log1p(x.low / x.high)));
}
// Logarithm of a number and a much smaller one: log(1 - x) for an x in (0, 1) needs 1 - x unrounded.
template <typename Number> SCALAR Number log_of_complement(double x);
template <> SCALAR double log_of_complement<double>(double x) { return log1p(-x); }
template <> SCALAR Two log_of_complement<Two>(double x) { return log_of(two_sum(1.0, -x)); }

// 1 / (1 + e^-logit); an infinite logit needs a low of 0.
SCALAR double sigmoid(Two logit) {
  bool negative_logit = logit.high < 0.0;
  double small = exp_of(negative_logit ? logit : negative(logit));
  return (negative_logit ? small : 1.0) / (1.0 + small);
}
SCALAR double sigmoid(double logit) { return sigmoid(Two{logit, 0.0}); }

// sqrt(x^2 + y^2) by squares that neither underflow nor overflow, for |x|, |y| < 1e100.
SCALAR double hypotenuse(double x, double y) {
  bool small = fmax(fabs(x), fabs(y)) < 0x1p-400;
  double up = small ? 0x1p600 : 1.0, x_up = x * up, y_up = y * up;
  return sqrt(fma(x_up, x_up, y_up * y_up)) * (small ? 0x1p-600 : 1.0);
}

// atanh x by its series for |x| <= 1/4, to a rounding.
SCALAR double atanh_small(double x) {
  double square = x * x, series = 0;
#pragma unroll
  for (int n = 13; n > 0; --n) series = square * (1.0 / (2 * n + 1) + series);
  return x + x * series;
}

// tanh x - x for |x| <= 1: -x (cosh x - sinh(x)/x)/cosh x, by series of positive terms.
SCALAR double tanh_excess(double x) {
  double square = x * x, series = 1, cosh = 1;
#pragma unroll
  for (int k = 20; k > 0; k -= 2) {
    series = 1 + square * (1.0 / (k * (k + 3))) * series;
    cosh = 1 + square * (1.0 / (k * (k - 1))) * cosh;
  }
  return -x * (square / 3 * series / cosh);
}

// How well a root search has to know a logarithm: for results in float64, and in float32.
template <typename Number> struct Precision;
template <> struct Precision<Two> { static constexpr double eps = 2.220446049250313e-16; };
template <> struct Precision<double> { static constexpr double eps = 1e-11; };

// The number in the caller's precision, at its largest one instead of beyond it.
template <typename T> SCALAR T saturated(double x);
template <> SCALAR float saturated<float>(double x) {
  return (float)(x > FLT_LARGEST ? (double)FLT_LARGEST : x < -FLT_LARGEST ? -(double)FLT_LARGEST : x);
}
template <> SCALAR double saturated<double>(double x) {
  return x > DBL_LARGEST ? DBL_LARGEST : x < -DBL_LARGEST ? -DBL_LARGEST : x;
}
