// Vectors of sixteen elements, and the plain numbers beside them; after registers.h.
//
// Functions have the names of the operators that they compute, once for vectors and once for plain
// numbers, so generated code reads the same for both. vf holds floats; bf16 and f16 are computed
// in it; vd holds doubles; vi and vl integers of 32 and 64 bits, vi also bytes; vm what is true.
#pragma once

namespace weft {

constexpr int LANES = 16;
#if REGISTER == 64
template <class R> using sixteen = R;
template <class R> INLINE R repeated(R x) { return x; }
#elif REGISTER == 32
template <class R> using sixteen = two<R>;
template <class R> INLINE two<R> repeated(R x) { return {x, x}; }
#else
template <class R> using sixteen = two<two<R>>;
template <class R> INLINE two<two<R>> repeated(R x) { return {{x, x}, {x, x}}; }
#endif
using vf = sixteen<rf>;
using vd = sixteen<two<rd>>;
using vi = sixteen<ri>;
using vl = sixteen<two<rl>>;
#ifdef WEFT_AVX512
using vm = m32;
#else
using vm = mask<vi>;
#endif
using vh = sixteen<rh>;
using vb = sixteen<rb>;

template <class V> struct of_vector { using scalar = V; };
template <> struct of_vector<vf> { using scalar = float; };
template <> struct of_vector<vd> { using scalar = double; };
template <> struct of_vector<vi> { using scalar = int32_t; };
template <> struct of_vector<vl> { using scalar = int64_t; };

INLINE vf all(float x) { return repeated(splat(x)); }
INLINE vd all(double x) { return repeated(twin(splat(x), splat(x))); }
INLINE vi all(int32_t x) { return repeated(splat(x)); }
INLINE vl all(int64_t x) { return repeated(twin(splat(x), splat(x))); }
// A number in the type of a vector or of a plain number.
template <class V> INLINE V number(double x) {
  if constexpr (std::is_same_v<V, typename of_vector<V>::scalar>) return V(x);
  else return all(typename of_vector<V>::scalar(x));
}

// --- pairs, half by half -----------------------------------------------------------------------

#define OPERATOR(op)                                                                            \
  template <class H> INLINE two<H> operator op(two<H> a, two<H> b) {                            \
    return {a.low op b.low, a.high op b.high};                                                  \
  }                                                                                             \
  template <class H, class S> INLINE two<H> operator op(two<H> a, S b) {                        \
    return {a.low op b, a.high op b};                                                           \
  }                                                                                             \
  template <class H, class S> INLINE two<H> operator op(S a, two<H> b) {                        \
    return {a op b.low, a op b.high};                                                           \
  }
OPERATOR(+)
OPERATOR(-)
OPERATOR(*)
OPERATOR(/)
OPERATOR(&)
OPERATOR(|)
OPERATOR(^)
OPERATOR(<<)
OPERATOR(>>)
#undef OPERATOR
template <class H> INLINE two<H> operator-(two<H> a) { return {-a.low, -a.high}; }
template <class H> INLINE two<H> operator~(two<H> a) { return {~a.low, ~a.high}; }

#define LIFT_1(name)                                                                            \
  template <class H> INLINE auto name(two<H> x) { return twin(name(x.low), name(x.high)); }
#define LIFT_2(name)                                                                            \
  template <class H> INLINE auto name(two<H> a, two<H> b) {                                     \
    return twin(name(a.low, b.low), name(a.high, b.high));                                      \
  }
#define LIFT_3(name)                                                                            \
  template <class H> INLINE auto name(two<H> a, two<H> b, two<H> c) {                           \
    return twin(name(a.low, b.low, c.low), name(a.high, b.high, c.high));                       \
  }
#define LIFT_AS(name, T)                                                                        \
  template <class H> INLINE auto name(two<H> x, T t) {                                          \
    return twin(name(x.low, t), name(x.high, t));                                               \
  }
// Comparisons of 64-bit lanes give masks as those of 32-bit lanes do.
#define LIFT_COMPARISON(name)                                                                   \
  INLINE m32 name(two<rd> a, two<rd> b) {                                                       \
    return joined(name(a.low, b.low), name(a.high, b.high));                                    \
  }                                                                                             \
  INLINE m32 name(two<rl> a, two<rl> b) {                                                       \
    return joined(name(a.low, b.low), name(a.high, b.high));                                    \
  }                                                                                             \
  LIFT_2(name)
INLINE two<rd> choose(m32 m, two<rd> a, two<rd> b) {
  return {choose(lower(m), a.low, b.low), choose(upper(m), a.high, b.high)};
}
INLINE two<rl> choose(m32 m, two<rl> a, two<rl> b) {
  return {choose(lower(m), a.low, b.low), choose(upper(m), a.high, b.high)};
}
LIFT_COMPARISON(eq)
LIFT_COMPARISON(ne)
LIFT_COMPARISON(lt)
LIFT_COMPARISON(le)
LIFT_COMPARISON(gt)
LIFT_COMPARISON(ge)
LIFT_1(root)
LIFT_1(floored)
LIFT_1(absolute)
LIFT_1(power_of_two)
LIFT_2(maximum)
LIFT_2(minimum)
LIFT_2(greatest)
LIFT_2(least)
LIFT_2(scaled)
LIFT_2(with_sign)
LIFT_3(fma)
LIFT_1(bits_of)
LIFT_1(float_of_bits)
LIFT_1(float_of)
LIFT_1(double_of)
LIFT_1(int_of)
LIFT_1(long_of)
LIFT_1(widened)
LIFT_1(bytes_of)
LIFT_1(mask_of)
LIFT_AS(widen, bf16)
LIFT_AS(widen, f16)
LIFT_AS(narrow, bf16)
LIFT_AS(narrow, f16)
LIFT_AS(narrow, exact_bf16)
LIFT_AS(half_bits, bf16)
LIFT_AS(half_bits, f16)
LIFT_AS(half_bits, exact_bf16)
LIFT_AS(rounded, bf16)
LIFT_AS(rounded, f16)
#undef LIFT_1
#undef LIFT_2
#undef LIFT_3
#undef LIFT_AS
#undef LIFT_COMPARISON
#ifndef WEFT_AVX512
template <class I, class H> INLINE two<H> choose(mask<two<I>> m, two<H> a, two<H> b) {
  return {choose(mask<I>{m.v.low}, a.low, b.low), choose(mask<I>{m.v.high}, a.high, b.high)};
}
template <class I> INLINE bool any_lane(mask<two<I>> m) {
  return any_lane(mask<I>{m.v.low | m.v.high});
}
#define LIFT_MASK(name)                                                                         \
  template <class I> INLINE auto name(mask<two<I>> m) {                                         \
    return twin(name(mask<I>{m.v.low}), name(mask<I>{m.v.high}));                               \
  }
LIFT_MASK(float_of)
LIFT_MASK(double_of)
LIFT_MASK(int_of)
LIFT_MASK(long_of)
#undef LIFT_MASK
template <class H, class I> INLINE void fetch(const void* p, two<H>& v, mask<two<I>> m) {
  fetch(p, v.low, mask<I>{m.v.low});
  fetch((const char*)p + sizeof v.low, v.high, mask<I>{m.v.high});
}
template <class H, class I> INLINE void keep(void* p, two<H> v, mask<two<I>> m) {
  keep(p, v.low, mask<I>{m.v.low});
  keep((char*)p + sizeof v.low, v.high, mask<I>{m.v.high});
}
#endif
INLINE vm eq(vm a, vm b) { return inverse(one_of(a, b)); }
INLINE vm ne(vm a, vm b) { return one_of(a, b); }
INLINE vm lt(vm a, vm b) { return both(inverse(a), b); }
INLINE vm le(vm a, vm b) { return either(inverse(a), b); }
INLINE vm gt(vm a, vm b) { return both(a, inverse(b)); }
INLINE vm ge(vm a, vm b) { return either(a, inverse(b)); }
INLINE vm maximum(vm a, vm b) { return either(a, b); }
INLINE vm minimum(vm a, vm b) { return both(a, b); }
template <class H> INLINE two<H> split(two<H> x, two<H>& exponent) {
  return {split(x.low, exponent.low), split(x.high, exponent.high)};
}
template <class I> INLINE auto from_table(const float* table, two<I> index) {
  return twin(from_table(table, index.low), from_table(table, index.high));
}
template <class H> INLINE auto lanes_sum(two<H> v) { return lanes_sum(v.low + v.high); }
template <class H> INLINE auto lanes_maximum(two<H> v) {
  return lanes_maximum(maximum(v.low, v.high));
}

// --- memory ------------------------------------------------------------------------------------

template <class H> INLINE void fetch(const void* p, two<H>& v) {
  fetch(p, v.low);
  fetch((const char*)p + sizeof v.low, v.high);
}
template <class H> INLINE void keep(void* p, two<H> v) {
  keep(p, v.low);
  keep((char*)p + sizeof v.low, v.high);
}
template <class R> INLINE void fetch(const void* p, two<R>& v, m32 m) {
  fetch(p, v.low, lower(m));
  fetch((const char*)p + sizeof v.low, v.high, upper(m));
}
template <class R> INLINE void keep(void* p, two<R> v, m32 m) {
  keep(p, v.low, lower(m));
  keep((char*)p + sizeof v.low, v.high, upper(m));
}

INLINE vi lane_numbers() {
  static const int32_t numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vi v;
  fetch(numbers, v);
  return v;
}
#ifdef WEFT_AVX512
INLINE vm first_lanes(int n) { return {__mmask16((1u << n) - 1)}; }
#else
INLINE vm first_lanes(int n) { return lt(lane_numbers(), all(int32_t(n))); }
#endif
INLINE vm all(bool x) { return {all(int32_t(x ? -1 : 0))}; }

template <class V, class T> INLINE V read_as(const T* p) {
  V v;
  fetch(p, v);
  return v;
}
// The first n elements, the others 0; nothing behind them is touched.
template <class V, class T> INLINE V read_as(const T* p, int n) {
#if defined(WEFT_AVX512) || defined(WEFT_AVX2)
  if constexpr (REGISTER == 64 || sizeof(T) >= 4) {
    V v;
    fetch(p, v, first_lanes(n));
    return v;
  }
#endif
  V v{};
  std::memcpy(&v, p, n * sizeof(T));
  return v;
}
template <class T, class V> INLINE void write_as(T* p, V v, int n) {
#if defined(WEFT_AVX512) || defined(WEFT_AVX2)
  if constexpr (REGISTER == 64 || sizeof(T) >= 4) return keep(p, v, first_lanes(n));
#endif
  std::memcpy(p, &v, n * sizeof(T));
}

// How elements in memory become lanes, and lanes elements.
template <class V> INLINE V itself(V v) { return v; }
INLINE vf of_bf16(vh v) { return widen(v, bf16{}); }
INLINE vf of_f16(vh v) { return widen(v, f16{}); }
INLINE vh to_bf16(vf v) { return narrow(v, bf16{}); }
INLINE vh to_f16(vf v) { return narrow(v, f16{}); }
#ifdef WEFT_AVX512
INLINE vm of_bool(vb v) { return {_mm_test_epi8_mask((__m128i)v, (__m128i)v)}; }
INLINE vb to_bool(vm m) { return (vb)_mm_maskz_set1_epi8(m.v.bits, 1); }
#else
INLINE vm of_bool(vb v) { return mask_of(v); }
INLINE vb to_bool(vm m) { return bytes_of(int_of(m)); }
#endif
#define IN_MEMORY(T, V, R, lanes, elements)                                      \
  INLINE V load(const T* p) { return lanes(read_as<R>(p)); }                     \
  INLINE V load(const T* p, int n) { return lanes(read_as<R>(p, n)); }           \
  INLINE void store(T* p, V v) { keep(p, elements(v)); }                         \
  INLINE void store(T* p, V v, int n) { write_as(p, elements(v), n); }
IN_MEMORY(float, vf, vf, itself, itself)
IN_MEMORY(double, vd, vd, itself, itself)
IN_MEMORY(int32_t, vi, vi, itself, itself)
IN_MEMORY(int64_t, vl, vl, itself, itself)
IN_MEMORY(uint8_t, vi, vb, widened, bytes_of)
IN_MEMORY(bool, vm, vb, of_bool, to_bool)
IN_MEMORY(bf16, vf, vh, of_bf16, to_bf16)
IN_MEMORY(f16, vf, vh, of_f16, to_f16)
#undef IN_MEMORY
// Numbers that are rounded already.
INLINE void store_exact(bf16* p, vf v) { keep(p, narrow(v, exact_bf16{})); }
INLINE void store_exact(bf16* p, vf v, int n) { write_as(p, narrow(v, exact_bf16{}), n); }

// One element, as a plain number.
INLINE float one(const float* p) { return *p; }
INLINE double one(const double* p) { return *p; }
INLINE int32_t one(const int32_t* p) { return *p; }
INLINE int64_t one(const int64_t* p) { return *p; }
INLINE int32_t one(const uint8_t* p) { return *p; }
INLINE bool one(const bool* p) { return *p; }
INLINE float one(const bf16* p) { return widen(rh{p->bits}, bf16{})[0]; }
INLINE float one(const f16* p) { return widen(rh{p->bits}, f16{})[0]; }
template <class T, class X> INLINE void put(T* p, X x) { *p = T(x); }
INLINE void put(bf16* p, float x) { p->bits = narrow(splat(x), bf16{})[0]; }
INLINE void put(f16* p, float x) { p->bits = narrow(splat(x), f16{})[0]; }

// Elements a stride apart.
template <class T> INLINE auto load_apart(const T* p, int64_t stride, int n = LANES) {
  T elements[LANES] = {};
  for (int k = 0; k < n; k++) elements[k] = p[k * stride];
  return load(elements);
}
template <class T, class V>
INLINE void store_apart(T* p, int64_t stride, V v, int n = LANES) {
  T elements[LANES];
  store(elements, v);
  for (int k = 0; k < n; k++) p[k * stride] = elements[k];
}

// --- squares -----------------------------------------------------------------------------------

template <class R> constexpr int num_lanes = sizeof(R) / sizeof(R{}[0]);
template <class H> constexpr int num_lanes<two<H>> = 2 * num_lanes<H>;
// Which lanes of two vectors a step takes: those with and without a bit in their number meet.
template <class T, int N> struct meeting {
  T low[N], high[N];
  constexpr meeting(int bit) : low(), high() {
    for (int k = 0; k < N; k++) {
      low[k] = (k & bit) ? k - bit + N : k;
      high[k] = (k & bit) ? k + N : k + bit;
    }
  }
};
// Vector i of the result holds lane i of each vector, of which there are as many as lanes.
template <int bit = 1, class R> INLINE void transpose_square(R* x) {
  constexpr int N = num_lanes<R>;
  using I = decltype(x[0] < x[0]);
  static constexpr meeting<decltype(I{}[0] + 0), N> lanes(bit);
  I low, high;
  fetch(lanes.low, low);
  fetch(lanes.high, high);
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) {
    if (i & bit) continue;
    const R a = x[i], b = x[i + bit];
    x[i] = __builtin_shuffle(a, b, low);
    x[i + bit] = __builtin_shuffle(a, b, high);
  }
  if constexpr (2 * bit < N) transpose_square<2 * bit>(x);
}
// Four squares, of which two change places.
template <class H> INLINE void transpose_square(two<H>* x) {
  constexpr int N = num_lanes<H>;
  H parts[4][N];
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) {
    parts[0][i] = x[i].low, parts[1][i] = x[i].high;
    parts[2][i] = x[N + i].low, parts[3][i] = x[N + i].high;
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; k++) transpose_square(parts[k]);
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) {
    x[i] = {parts[0][i], parts[2][i]};
    x[N + i] = {parts[1][i], parts[3][i]};
  }
}
INLINE void transpose(vf* x) { transpose_square(x); }
INLINE void transpose(vd* x) { transpose_square(x); }
INLINE void transpose(vi* x) { transpose_square(x); }
INLINE void transpose(vl* x) { transpose_square(x); }

// --- conversions -------------------------------------------------------------------------------

template <class V> struct to;
template <> struct to<vf> { template <class V> INLINE vf from(V x) { return float_of(x); } };
template <> struct to<vd> { template <class V> INLINE vd from(V x) { return double_of(x); } };
template <> struct to<vi> { template <class V> INLINE vi from(V x) { return int_of(x); } };
template <> struct to<vl> { template <class V> INLINE vl from(V x) { return long_of(x); } };
template <> struct to<vm> {
  template <class V> INLINE vm from(V x) { return ne(x, V{}); }
  INLINE vm from(vm x) { return x; }
};
template <> struct to<bool> { template <class X> INLINE bool from(X x) { return x != X(0); } };
#define TO(T) template <> struct to<T> { template <class X> INLINE T from(X x) { return T(x); } };
TO(float)
TO(double)
TO(int32_t)
TO(int64_t)
#undef TO
INLINE float rounded(float x, bf16 t) { return rounded(splat(x), t)[0]; }
INLINE float rounded(float x, f16 t) { return rounded(splat(x), t)[0]; }

// --- plain numbers -----------------------------------------------------------------------------

template <class T> INLINE bool eq(T a, T b) { return a == b; }
template <class T> INLINE bool ne(T a, T b) { return a != b; }
template <class T> INLINE bool lt(T a, T b) { return a < b; }
template <class T> INLINE bool le(T a, T b) { return a <= b; }
template <class T> INLINE bool gt(T a, T b) { return a > b; }
template <class T> INLINE bool ge(T a, T b) { return a >= b; }
INLINE bool both(bool a, bool b) { return a && b; }
INLINE bool either(bool a, bool b) { return a || b; }
INLINE bool inverse(bool a) { return !a; }
INLINE bool any_lane(bool m) { return m; }
template <class T> INLINE T choose(bool m, T a, T b) { return m ? a : b; }
template <class T> INLINE T maximum(T a, T b) { return (a > b || a != a) ? a : b; }
template <class T> INLINE T minimum(T a, T b) { return (a < b || a != a) ? a : b; }
INLINE float absolute(float x) { return std::fabs(x); }
INLINE double absolute(double x) { return std::fabs(x); }
template <class T> INLINE T absolute(T x) { return x < 0 ? -x : x; }
INLINE float root(float x) { return std::sqrt(x); }
INLINE double root(double x) { return std::sqrt(x); }
INLINE float floored(float x) { return std::floor(x); }
INLINE double floored(double x) { return std::floor(x); }
template <class T> INLINE T inverse_root(T x) { return number<T>(1.0) / root(x); }

// --- sums over threads -------------------------------------------------------------------------

// What the buffers of all threads add up to.
template <class T>
INLINE auto over_threads_sum(const T* p, int64_t at, int64_t bytes, int64_t num, int n = LANES) {
  auto v = load(p + at, n);
  for (int64_t k = 1; k < num; k++) v = v + load((const T*)((const char*)p + k * bytes) + at, n);
  return v;
}
template <class T>
INLINE auto over_threads_maximum(
    const T* p, int64_t at, int64_t bytes, int64_t num, int n = LANES) {
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

// --- lookups -----------------------------------------------------------------------------------

template <class T, class I>
INLINE const T* entry(const T* p, I index, int64_t step, int64_t limit, int& wrong) {
  const bool outside = index < 0 || index >= limit;
  wrong |= outside;
  return p + (outside ? 0 : int64_t(index) * step);
}
template <class T, class I>
INLINE auto look_up_one(const T* p, I index, int64_t step, int64_t limit, int& wrong) {
  return one(entry(p, index, step, limit, wrong));
}
template <class T, class V>
INLINE auto look_up(
    const T* p, int64_t stride, V index, int64_t step, int64_t limit, int& wrong, int n = LANES) {
  typename of_vector<V>::scalar at[LANES];
  keep(at, index);
  // Lanes that walk along one row of a table, as those of an embedding do, lie side by side.
  if (stride == 1 && !any_lane(ne(index, all(at[0])))) {
    const T* row = entry(p, at[0], step, limit, wrong);
    return n == LANES ? load(row) : load(row, n);
  }
  T elements[LANES] = {};
  for (int k = 0; k < n; k++) elements[k] = *entry(p + k * stride, at[k], step, limit, wrong);
  return load(elements);
}

}  // namespace weft
