// One element of ``inverse_cdf`` for every kind and precision.
#pragma once
#include "smoothing_exponential.cuh"
#include "smoothing_logistic.cuh"
#include "smoothing_power.cuh"
#include "smoothing_spike_exponential.cuh"

// In the order of accelerated.protocol.KINDS.
constexpr int EXPONENTIAL = 0, LOGISTIC = 1, SPIKE_EXPONENTIAL = 2, POWER = 3;

// What the power function is computed in, for results in T.
template <typename T>
struct ResultsIn;
template <>
struct ResultsIn<float> {
  typedef double Number;
};
template <>
struct ResultsIn<double> {
  typedef Two Number;
};

template <typename T>
struct Sample {
  T zeta, dzeta_dlogit_q, dzeta_drho, dzeta_dbeta, log_ratio, nu;
};

// In float64. The power function alone has something to gain from knowing that the results will be rounded to float32.
template <typename T, int KIND, int WANTED>
SCALAR Smoothed smooth_in_float64(double rho, double logit, const Sharpness& s) {
  if (KIND == EXPONENTIAL) return exponential_double<WANTED>(rho, logit, s);
  if (KIND == LOGISTIC) return logistic_double<WANTED>(rho, logit, s);
  if (KIND == SPIKE_EXPONENTIAL) return spike_exponential_double<WANTED>(rho, logit, s);
  return power_double<typename ResultsIn<T>::Number, WANTED>(rho, logit, s);
}

template <typename T>
SCALAR Sample<T> rounded(const Smoothed& x) {
  return {(T)x.zeta, saturated<T>(x.dzeta_dlogit_q), saturated<T>(x.dzeta_drho), saturated<T>(x.dzeta_dbeta), 0, 0};
}

template <typename T>
SCALAR bool in_domain(T rho, T logit) { return rho >= 0 && rho <= 1 && logit == logit; }

// What float32 cannot do, or what no number is: by a call, so that it costs the others no registers.
template <int KIND, int WANTED>
SCALAR_RARE Sample<float> rare(float rho, float logit, double beta) {
  if (!in_domain(rho, logit)) return {NAN, NAN, NAN, NAN, NAN, NAN};
  return rounded<float>(smooth_in_float64<float, KIND, WANTED>(rho, logit, sharpness_of(beta)));
}

// In float32 but for dzeta_dbeta; false for what is rare. The power function has no such formulas.
template <int KIND, int WANTED>
SCALAR bool smooth_in_float32(float rho, float logit, const Sharpness32& s, Sample<float>& x) {
  if (KIND == EXPONENTIAL) return exponential_float<WANTED>(rho, logit, s, x.zeta, x.dzeta_dlogit_q, x.dzeta_drho);
  if (KIND == LOGISTIC) return logistic_float<WANTED>(rho, logit, s, x.zeta, x.dzeta_dlogit_q, x.dzeta_drho);
  return spike_exponential_float<WANTED>(rho, logit, s, x.zeta, x.dzeta_dlogit_q, x.dzeta_drho);
}

// log r(zeta|1) - log r(zeta|0)
template <typename T, int KIND>
SCALAR double log_ratio(double zeta, double beta) {
  if (KIND == EXPONENTIAL) return exponential_log_ratio(zeta, beta);
  if (KIND == LOGISTIC) return value(logistic_log_odds(offset_of(zeta), beta));
  if (KIND == SPIKE_EXPONENTIAL) return zeta > 0 ? INFINITY : -INFINITY;
  if (zeta == 0 || zeta == 1) return beta == 1 ? 0 : (zeta == 1) == (beta > 1) ? INFINITY : -INFINITY;
  return value(power_log_ratio<typename ResultsIn<T>::Number>(zeta, beta));
}

// q(z=1|zeta, x). A certain prior stays certain, whatever zeta says.
template <typename T, int KIND>
SCALAR double nu(double zeta, double logit, double beta) {
  if (isinf(logit)) return logit > 0 ? 1 : 0;
  if (KIND == EXPONENTIAL) return exponential_nu(zeta, logit, beta);
  if (KIND == LOGISTIC) return sigmoid(plus_logit(logistic_log_odds(offset_of(zeta), beta), logit));
  if (KIND == SPIKE_EXPONENTIAL) return zeta > 0 ? 1 : 0;
  if ((zeta == 0 || zeta == 1) && beta != 1) return (zeta == 1) == (beta > 1) ? 1 : 0;
  if (zeta == 0 || zeta == 1) return sigmoid(logit);
  typedef typename ResultsIn<T>::Number Number;
  return sigmoid(add(exact<Number>(logit), power_log_ratio<Number>(zeta, beta)));
}

// log_ratio and nu of the rounded zeta, in float32; NaN for that. The power function has no such formulas.
template <int KIND, int WANTED>
SCALAR void posterior_in_float32(float logit, const Sharpness& s, const Sharpness32& s32, Sample<float>& x) {
  if (KIND == EXPONENTIAL) {
    if (WANTED & LOG_RATIO) x.log_ratio = s32.beta * (2.0f * x.zeta - 1.0f);
    if (WANTED & NU) x.nu = exponential_nu(x.zeta, logit, s32.beta);
  } else if (KIND == LOGISTIC) {
    if (WANTED & (LOG_RATIO | NU)) {
      const TwoFloats odds = logistic_log_odds_float(x.zeta, s32, (float)(s.beta - (double)s32.beta));
      if (WANTED & LOG_RATIO) x.log_ratio = odds.high + odds.low;
      if (WANTED & NU) x.nu = posterior(logit, odds);
    }
  } else {
    const float odds = x.zeta > 0.0f ? INFINITY : x.zeta == 0.0f ? -INFINITY : x.zeta;
    if (WANTED & LOG_RATIO) x.log_ratio = odds;
    if (WANTED & NU) x.nu = odds != odds ? odds : (isinf(logit) ? logit : odds) > 0.0f ? 1.0f : 0.0f;
  }
}

// zeta and what is wanted with it, each rounded once; log_ratio and nu are those of the rounded zeta. NaN outside the
// domain.
template <int KIND, int WANTED>
SCALAR Sample<double> smooth(double rho, double logit, const Sharpness& s, const Sharpness32&) {
  if (!in_domain(rho, logit)) return {NAN, NAN, NAN, NAN, NAN, NAN};
  Sample<double> x = rounded<double>(smooth_in_float64<double, KIND, WANTED>(rho, logit, s));
  if (WANTED & LOG_RATIO) x.log_ratio = log_ratio<double, KIND>(x.zeta, s.beta);
  if (WANTED & NU) x.nu = nu<double, KIND>(x.zeta, logit, s.beta);
  return x;
}

template <int KIND, int WANTED>
SCALAR Sample<float> smooth(float rho, float logit, const Sharpness& s, const Sharpness32& s32) {
  if (KIND == POWER) {
    if (!in_domain(rho, logit)) return {NAN, NAN, NAN, NAN, NAN, NAN};
    Sample<float> x = rounded<float>(smooth_in_float64<float, KIND, WANTED>(rho, logit, s));
    if (WANTED & LOG_RATIO) x.log_ratio = (float)log_ratio<float, KIND>(x.zeta, s.beta);
    if (WANTED & NU) x.nu = (float)nu<float, KIND>(x.zeta, logit, s.beta);
    return x;
  }
  Sample<float> x;
  const bool ordinary = smooth_in_float32<KIND, WANTED>(rho, logit, s32, x);
  // What float32 computes stays the same whatever else is wanted.
  if (WANTED & DZETA_DBETA) {
    const Sample<float> all = rare<KIND, WANTED>(rho, logit, s.beta);
    if (!ordinary) x = all;
    x.dzeta_dbeta = all.dzeta_dbeta;
  } else if (!ordinary) {
    x = rare<KIND, WANTED>(rho, logit, s.beta);
  }
  posterior_in_float32<KIND, WANTED>(logit, s, s32, x);
  return x;
}
