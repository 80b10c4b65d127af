// Vectors of sixteen elements, on whatever the compiler targets, and the scalar forms beside them.
//
// Written with the compiler's own vector types: on AVX-512 a vector of sixteen floats is a register,
// on AVX2 two, without either a loop. Functions have the names of the operators that they compute,
// once for vectors and once for plain numbers, so generated code reads the same for both.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <omp.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace weft {

constexpr int LANES = 16;
typedef float vf __attribute__((vector_size(64), aligned(64)));
typedef double vd __attribute__((vector_size(128), aligned(64)));
typedef int32_t vi __attribute__((vector_size(64), aligned(64)));
typedef int64_t vl __attribute__((vector_size(128), aligned(64)));
typedef uint32_t vu __attribute__((vector_size(64), aligned(64)));
typedef uint16_t vh __attribute__((vector_size(32), aligned(32)));
typedef uint8_t vb __attribute__((vector_size(16), aligned(16)));
// A mask: -1 where true, 0 where not.
struct vm { vi v; };
struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

#define INLINE static inline __attribute__((always_inline))

// --- lanes -----------------------------------------------------------------------------------

INLINE vi lane_numbers() { return vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
INLINE vm first_lanes(int n) { return vm{lane_numbers() < n}; }

template <class V> struct of_vector;
template <> struct of_vector<vf> { using scalar = float; };
template <> struct of_vector<vd> { using scalar = double; };
template <> struct of_vector<vi> { using scalar = int32_t; };
template <> struct of_vector<vl> { using scalar = int64_t; };

INLINE vf all(float x) { return x - vf{}; }
INLINE vd all(double x) { return x - vd{}; }
INLINE vi all(int32_t x) { return x - vi{}; }
INLINE vl all(int64_t x) { return x - vl{}; }
INLINE vm all(bool x) { return vm{all(int32_t(x ? -1 : 0))}; }

// --- memory ----------------------------------------------------------------------------------

template <class V, class T> INLINE V read_as(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T> INLINE V read_as(const T* p, int n) {
  V v{};
  std::memcpy(&v, p, n * sizeof(T));
  return v;
}

INLINE vf widen(vh bits, bf16) {
  return (vf)(__builtin_convertvector(bits, vu) << 16);
}
#ifdef __AVX512F__
INLINE vf widen(vh bits, f16) { return (vf)_mm512_cvtph_ps((__m256i)bits); }
INLINE vh narrow(vf x, f16) {
  return (vh)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
INLINE vf widen(vh bits, f16) {
  vu h = __builtin_convertvector(bits, vu);
  vu sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
  // Numbers: the exponent is moved by way of a multiplication, which also mends subnormal ones.
  vf value = (vf)(rest << 13) * 0x1p112f;
  vu special = (vu)(rest >= 0x7c00u);
  vu bits32 = ((vu)value & ~special) | (((rest << 13) | 0x7f800000u) & special);
  return (vf)(bits32 | sign);
}
INLINE vh narrow(vf x, f16) {
  vh out;
  for (int k = 0; k < LANES; k++) {
    _Float16 h = (_Float16)x[k];
    uint16_t bits;
    std::memcpy(&bits, &h, 2);
    out[k] = bits;
  }
  return out;
}
#endif
INLINE vh narrow(vf x, bf16) {
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  vu nan = (vu)(x != x);
  return __builtin_convertvector((rounded & ~nan) | (0x7fc0u & nan), vh);
}

INLINE vf load(const float* p) { return read_as<vf>(p); }
INLINE vd load(const double* p) { return read_as<vd>(p); }
INLINE vi load(const int32_t* p) { return read_as<vi>(p); }
INLINE vl load(const int64_t* p) { return read_as<vl>(p); }
INLINE vi load(const uint8_t* p) { return __builtin_convertvector(read_as<vb>(p), vi); }
INLINE vm load(const bool* p) {
  return vm{__builtin_convertvector(read_as<vb>(p), vi) != 0};
}
INLINE vf load(const bf16* p) { return widen(read_as<vh>(p), bf16{}); }
INLINE vf load(const f16* p) { return widen(read_as<vh>(p), f16{}); }

#ifdef __AVX512F__
INLINE vf load(const float* p, int n) {
  return (vf)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
}
INLINE void store(float* p, vf v, int n) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
}
#else
INLINE vf load(const float* p, int n) { return read_as<vf>(p, n); }
INLINE void store(float* p, vf v, int n) { std::memcpy(p, &v, n * sizeof(float)); }
#endif
INLINE vd load(const double* p, int n) { return read_as<vd>(p, n); }
INLINE vi load(const int32_t* p, int n) { return read_as<vi>(p, n); }
INLINE vl load(const int64_t* p, int n) { return read_as<vl>(p, n); }
INLINE vi load(const uint8_t* p, int n) { return __builtin_convertvector(read_as<vb>(p, n), vi); }
INLINE vm load(const bool* p, int n) {
  return vm{__builtin_convertvector(read_as<vb>(p, n), vi) != 0};
}
INLINE vf load(const bf16* p, int n) { return widen(read_as<vh>(p, n), bf16{}); }
INLINE vf load(const f16* p, int n) { return widen(read_as<vh>(p, n), f16{}); }

INLINE void store(float* p, vf v) { std::memcpy(p, &v, sizeof v); }
INLINE void store(double* p, vd v) { std::memcpy(p, &v, sizeof v); }
INLINE void store(int32_t* p, vi v) { std::memcpy(p, &v, sizeof v); }
INLINE void store(int64_t* p, vl v) { std::memcpy(p, &v, sizeof v); }
INLINE void store(uint8_t* p, vi v) {
  vb b = __builtin_convertvector(v, vb);
  std::memcpy(p, &b, sizeof b);
}
INLINE void store(bool* p, vm v) {
  vb b = __builtin_convertvector(v.v & 1, vb);
  std::memcpy(p, &b, sizeof b);
}
INLINE void store(bf16* p, vf v) { vh h = narrow(v, bf16{}); std::memcpy(p, &h, sizeof h); }
INLINE void store(f16* p, vf v) { vh h = narrow(v, f16{}); std::memcpy(p, &h, sizeof h); }
INLINE void store(double* p, vd v, int n) { std::memcpy(p, &v, n * sizeof(double)); }
INLINE void store(int32_t* p, vi v, int n) { std::memcpy(p, &v, n * 4); }
INLINE void store(int64_t* p, vl v, int n) { std::memcpy(p, &v, n * 8); }
INLINE void store(uint8_t* p, vi v, int n) {
  vb b = __builtin_convertvector(v, vb);
  std::memcpy(p, &b, n);
}
INLINE void store(bool* p, vm v, int n) {
  vb b = __builtin_convertvector(v.v & 1, vb);
  std::memcpy(p, &b, n);
}
INLINE void store(bf16* p, vf v, int n) { vh h = narrow(v, bf16{}); std::memcpy(p, &h, n * 2); }
INLINE void store(f16* p, vf v, int n) { vh h = narrow(v, f16{}); std::memcpy(p, &h, n * 2); }

// One element, as a plain number.
INLINE float one(const float* p) { return *p; }
INLINE double one(const double* p) { return *p; }
INLINE int32_t one(const int32_t* p) { return *p; }
INLINE int64_t one(const int64_t* p) { return *p; }
INLINE int32_t one(const uint8_t* p) { return *p; }
INLINE bool one(const bool* p) { return *p; }
INLINE float one(const bf16* p) {
  uint32_t bits = uint32_t(p->bits) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
INLINE float one(const f16* p) {
  _Float16 h;
  std::memcpy(&h, p, 2);
  return (float)h;
}
template <class T, class X> INLINE void put(T* p, X x) { *p = T(x); }
INLINE void put(bf16* p, float x) { p->bits = narrow(all(x), bf16{})[0]; }
INLINE void put(f16* p, float x) { _Float16 h = (_Float16)x; std::memcpy(p, &h, 2); }

// Elements a stride apart.
template <class T> INLINE auto load_apart(const T* p, int64_t stride, int n = LANES) {
  decltype(load(p)) v{};
  for (int k = 0; k < n; k++) v[k] = one(p + k * stride);
  return v;
}
INLINE vm load_apart(const bool* p, int64_t stride, int n = LANES) {
  vi v{};
  for (int k = 0; k < n; k++) v[k] = p[k * stride] ? -1 : 0;
  return vm{v};
}
template <class T, class V>
INLINE void store_apart(T* p, int64_t stride, V v, int n = LANES) {
  for (int k = 0; k < n; k++) put(p + k * stride, v[k]);
}
INLINE void store_apart(bool* p, int64_t stride, vm v, int n = LANES) {
  for (int k = 0; k < n; k++) p[k * stride] = v.v[k] != 0;
}

// --- masks -----------------------------------------------------------------------------------

INLINE vm mask(vi m) { return vm{m}; }
INLINE vm mask(vl m) { return vm{__builtin_convertvector(m, vi)}; }
#define COMPARE(name, op)                                                              \
  INLINE vm name(vf a, vf b) { return mask(a op b); }                                  \
  INLINE vm name(vd a, vd b) { return mask(a op b); }                                  \
  INLINE vm name(vi a, vi b) { return mask(a op b); }                                  \
  INLINE vm name(vl a, vl b) { return mask(a op b); }                                  \
  template <class T> INLINE bool name(T a, T b) { return a op b; }
COMPARE(eq, ==)
COMPARE(ne, !=)
COMPARE(lt, <)
COMPARE(le, <=)
COMPARE(gt, >)
COMPARE(ge, >=)
#undef COMPARE
INLINE vm eq(vm a, vm b) { return vm{a.v == b.v}; }
INLINE vm ne(vm a, vm b) { return vm{a.v ^ b.v}; }
INLINE vm both(vm a, vm b) { return vm{a.v & b.v}; }
INLINE vm either(vm a, vm b) { return vm{a.v | b.v}; }
INLINE vm inverse(vm a) { return vm{~a.v}; }
INLINE bool both(bool a, bool b) { return a && b; }
INLINE bool either(bool a, bool b) { return a || b; }
INLINE bool inverse(bool a) { return !a; }

INLINE vf choose(vm m, vf a, vf b) { return m.v ? a : b; }
INLINE vi choose(vm m, vi a, vi b) { return m.v ? a : b; }
INLINE vd choose(vm m, vd a, vd b) { return __builtin_convertvector(m.v, vl) ? a : b; }
INLINE vl choose(vm m, vl a, vl b) { return __builtin_convertvector(m.v, vl) ? a : b; }
INLINE vm choose(vm m, vm a, vm b) { return vm{m.v ? a.v : b.v}; }
template <class T> INLINE T choose(bool m, T a, T b) { return m ? a : b; }

// --- conversions -----------------------------------------------------------------------------

template <class V> struct to;
template <> struct to<vf> {
  INLINE vf from(vf x) { return x; }
  INLINE vf from(vd x) { return __builtin_convertvector(x, vf); }
  INLINE vf from(vi x) { return __builtin_convertvector(x, vf); }
  INLINE vf from(vl x) { return __builtin_convertvector(x, vf); }
  INLINE vf from(vm x) { return x.v ? all(1.0f) : vf{}; }
};
template <> struct to<vd> {
  INLINE vd from(vf x) { return __builtin_convertvector(x, vd); }
  INLINE vd from(vd x) { return x; }
  INLINE vd from(vi x) { return __builtin_convertvector(x, vd); }
  INLINE vd from(vl x) { return __builtin_convertvector(x, vd); }
  INLINE vd from(vm x) { return __builtin_convertvector(-x.v, vd); }
};
template <> struct to<vi> {
  INLINE vi from(vf x) { return __builtin_convertvector(x, vi); }
  INLINE vi from(vd x) { return __builtin_convertvector(x, vi); }
  INLINE vi from(vi x) { return x; }
  INLINE vi from(vl x) { return __builtin_convertvector(x, vi); }
  INLINE vi from(vm x) { return -x.v; }
};
template <> struct to<vl> {
  INLINE vl from(vf x) { return __builtin_convertvector(x, vl); }
  INLINE vl from(vd x) { return __builtin_convertvector(x, vl); }
  INLINE vl from(vi x) { return __builtin_convertvector(x, vl); }
  INLINE vl from(vl x) { return x; }
  INLINE vl from(vm x) { return __builtin_convertvector(-x.v, vl); }
};
template <> struct to<vm> {
  INLINE vm from(vf x) { return ne(x, vf{}); }
  INLINE vm from(vd x) { return ne(x, vd{}); }
  INLINE vm from(vi x) { return ne(x, vi{}); }
  INLINE vm from(vl x) { return ne(x, vl{}); }
  INLINE vm from(vm x) { return x; }
};
template <> struct to<float> { template <class T> INLINE float from(T x) { return float(x); } };
template <> struct to<double> { template <class T> INLINE double from(T x) { return double(x); } };
template <> struct to<int32_t> { template <class T> INLINE int32_t from(T x) { return int32_t(x); } };
template <> struct to<int64_t> { template <class T> INLINE int64_t from(T x) { return int64_t(x); } };
template <> struct to<bool> { template <class T> INLINE bool from(T x) { return x != T(0); } };

INLINE vf rounded(vf x, bf16 t) { return widen(narrow(x, t), t); }
INLINE vf rounded(vf x, f16 t) { return widen(narrow(x, t), t); }
INLINE float rounded(float x, bf16 t) { return rounded(all(x), t)[0]; }
INLINE float rounded(float x, f16) { return float(_Float16(x)); }

// --- arithmetic ------------------------------------------------------------------------------

// NaN wins over numbers, as in ATen.
INLINE vf maximum(vf a, vf b) { return ((a > b) | (a != a)) ? a : b; }
INLINE vf minimum(vf a, vf b) { return ((a < b) | (a != a)) ? a : b; }
INLINE vd maximum(vd a, vd b) { return ((a > b) | (a != a)) ? a : b; }
INLINE vd minimum(vd a, vd b) { return ((a < b) | (a != a)) ? a : b; }
INLINE vi maximum(vi a, vi b) { return a > b ? a : b; }
INLINE vi minimum(vi a, vi b) { return a < b ? a : b; }
INLINE vl maximum(vl a, vl b) { return a > b ? a : b; }
INLINE vl minimum(vl a, vl b) { return a < b ? a : b; }
INLINE vm maximum(vm a, vm b) { return either(a, b); }
INLINE vm minimum(vm a, vm b) { return both(a, b); }
template <class T> INLINE T maximum(T a, T b) { return (a > b || a != a) ? a : b; }
template <class T> INLINE T minimum(T a, T b) { return (a < b || a != a) ? a : b; }

INLINE vf absolute(vf x) { return (vf)((vu)x & 0x7fffffffu); }
INLINE vd absolute(vd x) { return x < 0 ? -x : x + 0.0; }
INLINE vi absolute(vi x) { return x < 0 ? -x : x; }
INLINE vl absolute(vl x) { return x < 0 ? -x : x; }
INLINE float absolute(float x) { return std::fabs(x); }
INLINE double absolute(double x) { return std::fabs(x); }
template <class T> INLINE T absolute(T x) { return x < 0 ? -x : x; }

#define EACH(name, call)                                                    \
  INLINE vf name(vf x) {                                                    \
    for (int k = 0; k < LANES; k++) x[k] = call(x[k]);                      \
    return x;                                                               \
  }                                                                         \
  INLINE vd name(vd x) {                                                    \
    for (int k = 0; k < LANES; k++) x[k] = call(x[k]);                      \
    return x;                                                               \
  }                                                                         \
  INLINE float name(float x) { return call(x); }                            \
  INLINE double name(double x) { return call(x); }
EACH(sine, std::sin)
EACH(cosine, std::cos)
EACH(logarithm1p, std::log1p)
#undef EACH

#ifdef __AVX512F__
INLINE vf root(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
INLINE vf floored(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 9); }
INLINE vf nearest(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 8); }
INLINE vf scaled(vf x, vf k) { return (vf)_mm512_scalef_ps((__m512)x, (__m512)k); }
INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#else
INLINE vf root(vf x) {
  for (int k = 0; k < LANES; k++) x[k] = std::sqrt(x[k]);
  return x;
}
INLINE vf floored(vf x) {
  for (int k = 0; k < LANES; k++) x[k] = std::floor(x[k]);
  return x;
}
INLINE vf nearest(vf x) {
  // Exact below 2^22, which is as far as it is used.
  return (x + 12582912.0f) - 12582912.0f;
}
INLINE vf scaled(vf x, vf k) {
  // In two steps, so that both factors are numbers where the result is subnormal.
  vi whole = __builtin_convertvector(k, vi), half = whole >> 1;
  vf first = (vf)((half + 127) << 23), second = (vf)((whole - half + 127) << 23);
  return x * first * second;
}
INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
#endif
INLINE vd root(vd x) {
  for (int k = 0; k < LANES; k++) x[k] = std::sqrt(x[k]);
  return x;
}
INLINE vd floored(vd x) {
  for (int k = 0; k < LANES; k++) x[k] = std::floor(x[k]);
  return x;
}
INLINE float root(float x) { return std::sqrt(x); }
INLINE double root(double x) { return std::sqrt(x); }
INLINE float floored(float x) { return std::floor(x); }
INLINE double floored(double x) { return std::floor(x); }
template <class T> INLINE T inverse_root(T x) { return 1 / root(x); }

INLINE vf exponential(vf x) {
  vf low = x < -104.0f ? all(-104.0f) : x;
  vf y = low > 89.0f ? all(89.0f) : low;  // NaN passes both
  vf k = nearest(y * 1.44269504088896341f);
  vf r = fma(k, all(-0.693359375f), y);
  r = fma(k, all(2.12194440e-4f), r);
  vf p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(r * r, p, r + 1.0f);
  return scaled(p, k);
}
INLINE float exponential(float x) { return std::exp(x); }
INLINE double exponential(double x) { return std::exp(x); }
INLINE vd exponential(vd x) {
  for (int k = 0; k < LANES; k++) x[k] = std::exp(x[k]);
  return x;
}
INLINE vf logarithm(vf x) {
  for (int k = 0; k < LANES; k++) x[k] = std::log(x[k]);
  return x;
}
INLINE vd logarithm(vd x) {
  for (int k = 0; k < LANES; k++) x[k] = std::log(x[k]);
  return x;
}
INLINE float logarithm(float x) { return std::log(x); }
INLINE double logarithm(double x) { return std::log(x); }
INLINE vf tangent(vf x) {
  // 1 - 2 / (e^2|x| + 1), but near 0, where that loses digits, a polynomial.
  vf a = absolute(x);
  vf e = exponential(a * 2.0f);
  vf large = 1.0f - 2.0f / (e + 1.0f);
  vf s = x * x;
  vf p = all(-5.70498872745e-3f);
  p = fma(p, s, all(2.06390887954e-2f));
  p = fma(p, s, all(-5.37397155531e-2f));
  p = fma(p, s, all(1.33314422036e-1f));
  p = fma(p, s, all(-3.33332819422e-1f));
  vf small = fma(p * s, a, a);
  vf found = a < 0.625f ? small : large;
  return (vf)(((vu)found & 0x7fffffffu) | ((vu)x & 0x80000000u));
}
INLINE vd tangent(vd x) {
  for (int k = 0; k < LANES; k++) x[k] = std::tanh(x[k]);
  return x;
}
INLINE float tangent(float x) { return std::tanh(x); }
INLINE double tangent(double x) { return std::tanh(x); }
INLINE vf logistic(vf x) { return 1.0f / (1.0f + exponential(-x)); }
INLINE vd logistic(vd x) { return 1.0 / (1.0 + exponential(-x)); }
INLINE float logistic(float x) { return 1.0f / (1.0f + std::exp(-x)); }
INLINE double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }
INLINE vf error_function(vf x) {
  for (int k = 0; k < LANES; k++) x[k] = std::erf(x[k]);
  return x;
}
INLINE vd error_function(vd x) {
  for (int k = 0; k < LANES; k++) x[k] = std::erf(x[k]);
  return x;
}
INLINE float error_function(float x) { return std::erf(x); }
INLINE double error_function(double x) { return std::erf(x); }
INLINE vf power(vf x, vf y) {
  for (int k = 0; k < LANES; k++) x[k] = std::pow(x[k], y[k]);
  return x;
}
INLINE vd power(vd x, vd y) {
  for (int k = 0; k < LANES; k++) x[k] = std::pow(x[k], y[k]);
  return x;
}
INLINE float power(float x, float y) { return std::pow(x, y); }
INLINE double power(double x, double y) { return std::pow(x, y); }

// --- sums over lanes -------------------------------------------------------------------------

template <class V> INLINE auto lanes_sum(V v) {
  typename of_vector<V>::scalar a[LANES];
  std::memcpy(a, &v, sizeof a);
  for (int w = LANES / 2; w; w /= 2)
    for (int k = 0; k < w; k++) a[k] += a[k + w];
  return a[0];
}
template <class V> INLINE auto lanes_maximum(V v) {
  typename of_vector<V>::scalar a[LANES];
  std::memcpy(a, &v, sizeof a);
  for (int w = LANES / 2; w; w /= 2)
    for (int k = 0; k < w; k++) a[k] = maximum(a[k], a[k + w]);
  return a[0];
}

INLINE bool any_lane(vm m) {
  bool found = false;
  for (int k = 0; k < LANES; k++) found |= m.v[k] != 0;
  return found;
}

// What the buffers of all threads add up to.
template <class T>
INLINE auto over_threads_sum(const T* p, int64_t at, int64_t bytes, int64_t num, int n = LANES) {
  auto v = load(p + at, n);
  for (int64_t k = 1; k < num; k++) v = v + load((const T*)((const char*)p + k * bytes) + at, n);
  return v;
}
template <class T>
INLINE auto over_threads_maximum(const T* p, int64_t at, int64_t bytes, int64_t num, int n = LANES) {
  auto v = load(p + at, n);
  for (int64_t k = 1; k < num; k++)
    v = maximum(v, load((const T*)((const char*)p + k * bytes) + at, n));
  return v;
}
template <class T>
INLINE T over_threads_sum_one(const T* p, int64_t at, int64_t bytes, int64_t num) {
  T x = p[at];
  for (int64_t k = 1; k < num; k++) x = x + ((const T*)((const char*)p + k * bytes))[at];
  return x;
}
template <class T>
INLINE T over_threads_maximum_one(const T* p, int64_t at, int64_t bytes, int64_t num) {
  T x = p[at];
  for (int64_t k = 1; k < num; k++) x = maximum(x, ((const T*)((const char*)p + k * bytes))[at]);
  return x;
}

// --- lookups ---------------------------------------------------------------------------------

template <class T, class I>
INLINE auto look_up_one(const T* p, I index, int64_t step, int64_t limit, int& wrong) {
  const bool outside = index < 0 || index >= limit;
  wrong |= outside;
  return one(p + (outside ? 0 : int64_t(index) * step));
}
template <class T, class V>
INLINE auto look_up(
    const T* p, int64_t stride, V index, int64_t step, int64_t limit, int& wrong, int n = LANES) {
  decltype(load(p)) v{};
  for (int k = 0; k < n; k++) v[k] = look_up_one(p + k * stride, index[k], step, limit, wrong);
  return v;
}

template <class V> INLINE V gelu_tanh_backward(V grad, V x) {
  auto c = [](double number) {
    if constexpr (sizeof(V) == sizeof(vf)) return all(float(number));
    else if constexpr (sizeof(V) == sizeof(vd)) return all(number);
    else return V(number);
  };
  V square = x * x;
  V inner = c(0.7978845608028654) * (x + c(0.044715) * square * x);
  V t = tangent(inner);
  V slope = c(0.7978845608028654) * (c(1.0) + c(3.0 * 0.044715) * square);
  return grad * (c(0.5) * (c(1.0) + t) + c(0.5) * x * (c(1.0) - t * t) * slope);
}

}  // namespace weft
