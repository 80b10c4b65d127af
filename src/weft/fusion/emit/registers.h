// One register of the target, and pairs of them: what vectors of sixteen lanes are made of.
//
// A register has 64 bytes on AVX-512, 32 on AVX2 with FMA and F16C, and 16 on any other target,
// where everything is plain C++. A wider vector is a pair of narrower ones (`two`), not one of the
// compiler's vectors of more than one register: those are kept in memory and compared lane by lane.
// Functions are written for one register here, and lifted to pairs in vec.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <omp.h>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define WEFT_AVX512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define WEFT_AVX2
#endif
#if defined(WEFT_AVX512) || defined(WEFT_AVX2)
#include <immintrin.h>
#endif

namespace weft {

#define INLINE static inline __attribute__((always_inline))

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

template <class H> struct two { H low, high; };
template <class H> INLINE two<H> twin(H low, H high) { return {low, high}; }

// --- types -------------------------------------------------------------------------------------

#if defined(WEFT_AVX512)
#define REGISTER 64
#elif defined(WEFT_AVX2)
#define REGISTER 32
#else
#define REGISTER 16
#endif
#define VECTOR(name, T, bytes) typedef T name __attribute__((vector_size(bytes)))
VECTOR(rf, float, REGISTER);
VECTOR(rd, double, REGISTER);
VECTOR(ri, int32_t, REGISTER);
VECTOR(rl, int64_t, REGISTER);
VECTOR(ru, uint32_t, REGISTER);
// As many narrower elements as rf has lanes.
VECTOR(rh, uint16_t, REGISTER / 2);
VECTOR(rb, uint8_t, REGISTER / 4);
// As many floats and integers as rd has lanes.
VECTOR(hf, float, REGISTER / 2);
VECTOR(hi, int32_t, REGISTER / 2);

INLINE rf splat(float x) { return x - rf{}; }
INLINE rd splat(double x) { return x - rd{}; }
INLINE ri splat(int32_t x) { return x - ri{}; }
INLINE rl splat(int64_t x) { return x - rl{}; }

// Masks over lanes of 32 and of 64 bits. On AVX-512 they have a bit a lane, and turn into integers
// and back where asked for them; elsewhere they are integers: -1 where true, else 0.
#ifdef WEFT_AVX512
struct lane_bits {
  __mmask16 bits;
  lane_bits() = default;
  lane_bits(__mmask16 x) : bits(x) {}
  lane_bits(ri x) : bits(_mm512_movepi32_mask((__m512i)x)) {}
  operator ri() const { return (ri)_mm512_movm_epi32(bits); }
};
struct m32 { lane_bits v; };
struct m64 { __mmask8 v; };
#else
template <class V> struct mask { V v; };
template <class H> INLINE mask<two<H>> twin(mask<H> low, mask<H> high) {
  return {{low.v, high.v}};
}
using m32 = mask<ri>;
using m64 = mask<rl>;
#endif

INLINE ri bits_of(rf x) { return (ri)x; }
INLINE rf float_of_bits(ri x) { return (rf)x; }

// --- parts of a register -----------------------------------------------------------------------

VECTOR(f4, float, 16);
VECTOR(i4, int32_t, 16);
VECTOR(d2, double, 16);
VECTOR(l2, int64_t, 16);
template <class V> INLINE V larger(V a, V b) { return a > b ? a : b; }
#ifdef __AVX__
INLINE f4 larger(f4 a, f4 b) { return (f4)_mm_max_ps((__m128)a, (__m128)b); }
INLINE d2 larger(d2 a, d2 b) { return (d2)_mm_max_pd((__m128d)a, (__m128d)b); }
#endif
#define FOUR(V, T)                                                                            \
  INLINE T lanes_sum(V v) {                                                                   \
    v = v + __builtin_shuffle(v, i4{2, 3, 2, 3});                                             \
    return v[0] + v[1];                                                                       \
  }                                                                                           \
  INLINE T largest_lane(V v) {                                                                \
    v = larger(v, __builtin_shuffle(v, i4{2, 3, 2, 3}));                                      \
    return larger(v, __builtin_shuffle(v, i4{1, 1, 1, 1}))[0];                                \
  }
#define TWO(V, T)                                                                             \
  INLINE T lanes_sum(V v) { return v[0] + v[1]; }                                             \
  INLINE T largest_lane(V v) { return larger(v, __builtin_shuffle(v, l2{1, 1}))[0]; }
FOUR(f4, float)
FOUR(i4, int32_t)
TWO(d2, double)
TWO(l2, int64_t)
#define HALVES(V, H, T, cast, extract)                                                        \
  INLINE H lower(V v) { return (H)cast((T)v); }                                               \
  INLINE H upper(V v) { return (H)extract((T)v, 1); }                                         \
  INLINE auto lanes_sum(V v) { return lanes_sum(lower(v) + upper(v)); }                       \
  INLINE auto largest_lane(V v) { return largest_lane(larger(lower(v), upper(v))); }
#if REGISTER >= 32
VECTOR(f8, float, 32);
VECTOR(i8, int32_t, 32);
VECTOR(d4, double, 32);
VECTOR(l4, int64_t, 32);
INLINE f8 larger(f8 a, f8 b) { return (f8)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE d4 larger(d4 a, d4 b) { return (d4)_mm256_max_pd((__m256d)a, (__m256d)b); }
HALVES(f8, f4, __m256, _mm256_castps256_ps128, _mm256_extractf128_ps)
HALVES(i8, i4, __m256i, _mm256_castsi256_si128, _mm256_extracti128_si256)
HALVES(d4, d2, __m256d, _mm256_castpd256_pd128, _mm256_extractf128_pd)
HALVES(l4, l2, __m256i, _mm256_castsi256_si128, _mm256_extracti128_si256)
#endif
#if REGISTER == 64
HALVES(rf, f8, __m512, _mm512_castps512_ps256, _mm512_extractf32x8_ps)
HALVES(ri, i8, __m512i, _mm512_castsi512_si256, _mm512_extracti32x8_epi32)
HALVES(rd, d4, __m512d, _mm512_castpd512_pd256, _mm512_extractf64x4_pd)
HALVES(rl, l4, __m512i, _mm512_castsi512_si256, _mm512_extracti64x4_epi64)
INLINE ri joined(hi low, hi high) {
  return (ri)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)low), (__m256i)high, 1);
}
#elif REGISTER == 32
INLINE ri joined(hi low, hi high) { return (ri)_mm256_set_m128i((__m128i)high, (__m128i)low); }
#else
INLINE hf lower(rf v) { return (hf)((rl)v)[0]; }
INLINE hf upper(rf v) { return (hf)((rl)v)[1]; }
INLINE hi lower(ri v) { return (hi)((rl)v)[0]; }
INLINE hi upper(ri v) { return (hi)((rl)v)[1]; }
INLINE ri joined(hi low, hi high) { return (ri)rl{(int64_t)low, (int64_t)high}; }
#endif
INLINE rf joined(hf low, hf high) { return (rf)joined((hi)low, (hi)high); }
#undef VECTOR
#undef FOUR
#undef TWO
#undef HALVES

// --- lanes of another width --------------------------------------------------------------------

#define CONVERTED __builtin_convertvector
#if defined(WEFT_AVX512)
INLINE rd doubles(hf x) { return (rd)_mm512_cvtps_pd((__m256)x); }
INLINE rd doubles(hi x) { return (rd)_mm512_cvtepi32_pd((__m256i)x); }
INLINE rl longs(hf x) { return (rl)_mm512_cvttps_epi64((__m256)x); }
INLINE rl longs(hi x) { return (rl)_mm512_cvtepi32_epi64((__m256i)x); }
INLINE ri lower_words(rl low, rl high) { return joined(CONVERTED(low, hi), CONVERTED(high, hi)); }
INLINE ri widened(rh x) { return (ri)_mm512_cvtepu16_epi32((__m256i)x); }
INLINE ri widened(rb x) { return (ri)_mm512_cvtepu8_epi32((__m128i)x); }
INLINE rh shorts_of(ri x) { return (rh)_mm512_cvtepi32_epi16((__m512i)x); }
INLINE rb bytes_of(ri x) { return (rb)_mm512_cvtepi32_epi8((__m512i)x); }
#elif defined(WEFT_AVX2)
INLINE rd doubles(hf x) { return (rd)_mm256_cvtps_pd((__m128)x); }
INLINE rd doubles(hi x) { return (rd)_mm256_cvtepi32_pd((__m128i)x); }
INLINE rl longs(hf x) { return CONVERTED(x, rl); }
INLINE rl longs(hi x) { return (rl)_mm256_cvtepi32_epi64((__m128i)x); }
INLINE ri lower_words(rl low, rl high) {
  __m256 mixed = _mm256_shuffle_ps((__m256)low, (__m256)high, 0x88);
  return (ri)_mm256_permute4x64_epi64((__m256i)mixed, 0xd8);
}
INLINE ri widened(rh x) { return (ri)_mm256_cvtepu16_epi32((__m128i)x); }
INLINE ri widened(rb x) { return (ri)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)x)); }
// Values are below 2^16.
INLINE rh shorts_of(ri x) {
  __m256i packed = _mm256_packus_epi32((__m256i)x, (__m256i)x);
  return (rh)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8));
}
INLINE rb bytes_of(ri x) {
  const __m256i first = _mm256_set1_epi32(0x0c080400);  // byte 0 of each of four lanes
  __m256i packed = _mm256_shuffle_epi8((__m256i)x, first);
  __m128i low = _mm256_castsi256_si128(packed), high = _mm256_extracti128_si256(packed, 1);
  return (rb)_mm_cvtsi128_si64(_mm_unpacklo_epi32(low, high));
}
#else
INLINE rd doubles(hf x) { return CONVERTED(x, rd); }
INLINE rd doubles(hi x) { return CONVERTED(x, rd); }
INLINE rl longs(hf x) { return CONVERTED(x, rl); }
INLINE rl longs(hi x) { return CONVERTED(x, rl); }
INLINE ri lower_words(rl low, rl high) {
  return __builtin_shuffle((ri)low, (ri)high, ri{0, 2, 4, 6});
}
INLINE ri widened(rh x) { return CONVERTED(x, ri); }
INLINE ri widened(rb x) { return CONVERTED(x, ri); }
INLINE rh shorts_of(ri x) { return CONVERTED(x, rh); }
INLINE rb bytes_of(ri x) { return CONVERTED(x, rb); }
#endif

// --- masks -------------------------------------------------------------------------------------

#ifdef WEFT_AVX512
#define COMPARE(name, op, real, whole)                                                          \
  INLINE m32 name(rf a, rf b) { return {_mm512_cmp_ps_mask((__m512)a, (__m512)b, real)}; }      \
  INLINE m64 name(rd a, rd b) { return {_mm512_cmp_pd_mask((__m512d)a, (__m512d)b, real)}; }    \
  INLINE m32 name(ri a, ri b) { return {_mm512_cmp_epi32_mask((__m512i)a, (__m512i)b, whole)}; } \
  INLINE m64 name(rl a, rl b) { return {_mm512_cmp_epi64_mask((__m512i)a, (__m512i)b, whole)}; }
INLINE m32 both(m32 a, m32 b) { return {__mmask16(a.v.bits & b.v.bits)}; }
INLINE m32 either(m32 a, m32 b) { return {__mmask16(a.v.bits | b.v.bits)}; }
INLINE m32 one_of(m32 a, m32 b) { return {__mmask16(a.v.bits ^ b.v.bits)}; }
INLINE m32 inverse(m32 a) { return {__mmask16(~a.v.bits)}; }
INLINE m64 lower(m32 m) { return {__mmask8(m.v.bits)}; }
INLINE m64 upper(m32 m) { return {__mmask8(m.v.bits >> 8)}; }
INLINE m32 joined(m64 low, m64 high) { return {__mmask16(_mm512_kunpackb(high.v, low.v))}; }
INLINE bool any_lane(m32 m) { return m.v.bits != 0; }
INLINE bool any_lane(m64 m) { return m.v != 0; }
#define CHOOSE(M, bits, R, T, end)                                       \
  INLINE R choose(M m, R a, R b) {                                       \
    return (R)_mm512_mask_blend_##end(m.bits, (T)b, (T)a);               \
  }
CHOOSE(m32, v.bits, rf, __m512, ps)
CHOOSE(m32, v.bits, ri, __m512i, epi32)
CHOOSE(m64, v, rd, __m512d, pd)
CHOOSE(m64, v, rl, __m512i, epi64)
#undef CHOOSE
INLINE m32 choose(m32 m, m32 a, m32 b) { return either(both(m, a), both(inverse(m), b)); }
#else
#define COMPARE(name, op, real, whole)                    \
  INLINE m32 name(rf a, rf b) { return {a op b}; }        \
  INLINE m64 name(rd a, rd b) { return {a op b}; }        \
  INLINE m32 name(ri a, ri b) { return {a op b}; }        \
  INLINE m64 name(rl a, rl b) { return {a op b}; }
template <class V> INLINE mask<V> both(mask<V> a, mask<V> b) { return {a.v & b.v}; }
template <class V> INLINE mask<V> either(mask<V> a, mask<V> b) { return {a.v | b.v}; }
template <class V> INLINE mask<V> one_of(mask<V> a, mask<V> b) { return {a.v ^ b.v}; }
template <class V> INLINE mask<V> inverse(mask<V> a) { return {~a.v}; }
INLINE m64 lower(m32 m) { return {longs(lower(m.v))}; }
INLINE m64 upper(m32 m) { return {longs(upper(m.v))}; }
INLINE m32 joined(m64 low, m64 high) { return {lower_words(low.v, high.v)}; }
#ifdef WEFT_AVX2
INLINE bool any_lane(m32 m) { return !_mm256_testz_si256((__m256i)m.v, (__m256i)m.v); }
INLINE bool any_lane(m64 m) { return any_lane(m32{(ri)m.v}); }
INLINE rf choose(m32 m, rf a, rf b) {
  return (rf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m.v);
}
INLINE rd choose(m64 m, rd a, rd b) {
  return (rd)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)m.v);
}
#else
INLINE bool any_lane(m64 m) { return (m.v[0] | m.v[1]) != 0; }
INLINE bool any_lane(m32 m) { return any_lane(m64{(rl)m.v}); }
INLINE rf choose(m32 m, rf a, rf b) { return (rf)((m.v & (ri)a) | (~m.v & (ri)b)); }
INLINE rd choose(m64 m, rd a, rd b) { return (rd)((m.v & (rl)a) | (~m.v & (rl)b)); }
#endif
INLINE ri choose(m32 m, ri a, ri b) { return (ri)choose(m, (rf)a, (rf)b); }
INLINE rl choose(m64 m, rl a, rl b) { return (rl)choose(m, (rd)a, (rd)b); }
template <class V> INLINE mask<V> choose(mask<V> m, mask<V> a, mask<V> b) {
  return {(m.v & a.v) | (~m.v & b.v)};
}
#endif
COMPARE(eq, ==, _CMP_EQ_OQ, _MM_CMPINT_EQ)
COMPARE(ne, !=, _CMP_NEQ_UQ, _MM_CMPINT_NE)
COMPARE(lt, <, _CMP_LT_OQ, _MM_CMPINT_LT)
COMPARE(le, <=, _CMP_LE_OQ, _MM_CMPINT_LE)
COMPARE(gt, >, _CMP_GT_OQ, _MM_CMPINT_NLE)
COMPARE(ge, >=, _CMP_GE_OQ, _MM_CMPINT_NLT)
#undef COMPARE

// NaN wins over numbers.
INLINE float lanes_maximum(rf v) {
  return any_lane(ne(v, v)) ? std::numeric_limits<float>::quiet_NaN() : largest_lane(v);
}
INLINE double lanes_maximum(rd v) {
  return any_lane(ne(v, v)) ? std::numeric_limits<double>::quiet_NaN() : largest_lane(v);
}
INLINE int32_t lanes_maximum(ri v) { return largest_lane(v); }
INLINE int64_t lanes_maximum(rl v) { return largest_lane(v); }

// --- arithmetic --------------------------------------------------------------------------------

#if defined(WEFT_AVX512)
#define REAL(name) _mm512_##name
#define PS __m512
#define PD __m512d
INLINE rf floored(rf x) { return (rf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_FLOOR); }
INLINE rd floored(rd x) { return (rd)_mm512_roundscale_pd((__m512d)x, _MM_FROUND_FLOOR); }
#elif defined(WEFT_AVX2)
#define REAL(name) _mm256_##name
#define PS __m256
#define PD __m256d
INLINE rf floored(rf x) { return (rf)_mm256_floor_ps((__m256)x); }
INLINE rd floored(rd x) { return (rd)_mm256_floor_pd((__m256d)x); }
#endif
#if defined(WEFT_AVX512) || defined(WEFT_AVX2)
INLINE rf root(rf x) { return (rf)REAL(sqrt_ps)((PS)x); }
INLINE rd root(rd x) { return (rd)REAL(sqrt_pd)((PD)x); }
INLINE rf fma(rf a, rf b, rf c) { return (rf)REAL(fmadd_ps)((PS)a, (PS)b, (PS)c); }
INLINE rd fma(rd a, rd b, rd c) { return (rd)REAL(fmadd_pd)((PD)a, (PD)b, (PD)c); }
// The instruction returns its second operand where either is NaN.
INLINE rf greatest(rf a, rf b) { return (rf)REAL(max_ps)((PS)a, (PS)b); }
INLINE rd greatest(rd a, rd b) { return (rd)REAL(max_pd)((PD)a, (PD)b); }
INLINE rf least(rf a, rf b) { return (rf)REAL(min_ps)((PS)a, (PS)b); }
INLINE rd least(rd a, rd b) { return (rd)REAL(min_pd)((PD)a, (PD)b); }
#undef REAL
#undef PS
#undef PD
#else
INLINE rf root(rf x) { return rf{sqrtf(x[0]), sqrtf(x[1]), sqrtf(x[2]), sqrtf(x[3])}; }
INLINE rd root(rd x) { return rd{sqrt(x[0]), sqrt(x[1])}; }
INLINE rf floored(rf x) { return rf{floorf(x[0]), floorf(x[1]), floorf(x[2]), floorf(x[3])}; }
INLINE rd floored(rd x) { return rd{floor(x[0]), floor(x[1])}; }
INLINE rf fma(rf a, rf b, rf c) { return a * b + c; }
INLINE rd fma(rd a, rd b, rd c) { return a * b + c; }
INLINE rf greatest(rf a, rf b) { return a > b ? a : b; }
INLINE rd greatest(rd a, rd b) { return a > b ? a : b; }
INLINE rf least(rf a, rf b) { return a < b ? a : b; }
INLINE rd least(rd a, rd b) { return a < b ? a : b; }
#endif

// NaN wins over numbers, as in ATen. Against a constant b this is one instruction, and where a is a
// running value no comparison waits for it.
INLINE rf maximum(rf a, rf b) { rf found = greatest(b, a); return b != b ? b : found; }
INLINE rd maximum(rd a, rd b) { rd found = greatest(b, a); return b != b ? b : found; }
INLINE rf minimum(rf a, rf b) { rf found = least(b, a); return b != b ? b : found; }
INLINE rd minimum(rd a, rd b) { rd found = least(b, a); return b != b ? b : found; }
INLINE ri maximum(ri a, ri b) { return a > b ? a : b; }
INLINE rl maximum(rl a, rl b) { return a > b ? a : b; }
INLINE ri minimum(ri a, ri b) { return a < b ? a : b; }
INLINE rl minimum(rl a, rl b) { return a < b ? a : b; }

INLINE rf absolute(rf x) { return (rf)((ri)x & 0x7fffffff); }
INLINE rd absolute(rd x) { return (rd)((rl)x & INT64_MAX); }
INLINE ri absolute(ri x) { return x < 0 ? -x : x; }
INLINE rl absolute(rl x) { return x < 0 ? -x : x; }

// Added to and taken from a number, these round it to a whole one, whose last bits the sum ends in.
constexpr float WHOLE = 0x1.8p23f;
constexpr double WHOLE_64 = 0x1.8p52;
// x * 2^k for whole k.
#ifdef WEFT_AVX512
INLINE rf scaled(rf x, rf k) { return (rf)_mm512_scalef_ps((__m512)x, (__m512)k); }
INLINE rd scaled(rd x, rd k) { return (rd)_mm512_scalef_pd((__m512d)x, (__m512d)k); }
INLINE rf power_of_two(rf k) { return scaled(splat(1.0f), k); }
#else
// The sum's last bits are k and the bias, which the shift brings to where an exponent is.
INLINE rf power_of_two(rf k) { return (rf)((ru)(k + (WHOLE + 127.0f)) << 23); }
INLINE rd power_of_two(rd k) { return (rd)((rl)(k + (WHOLE_64 + 1023.0)) << 52); }
// In two steps, so that both factors are normal where the result is not: |k| <= 252 and 2044.
INLINE rf scaled(rf x, rf k) {
  rf half = (k * 0.5f + WHOLE) - WHOLE;
  return x * power_of_two(half) * power_of_two(k - half);
}
INLINE rd scaled(rd x, rd k) {
  rd half = (k * 0.5 + WHOLE_64) - WHOLE_64;
  return x * power_of_two(half) * power_of_two(k - half);
}
#endif

// Mantissa in [0.75, 1.5) and exponent. 0: 1 and -inf; inf: 1 and inf; negative, NaN: NaN.
INLINE rf split(rf x, rf& exponent) {
#ifdef WEFT_AVX512
  rf mantissa = (rf)_mm512_getmant_ps((__m512)x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan);
  exponent = (rf)_mm512_getexp_ps((__m512)x) - (rf)_mm512_getexp_ps((__m512)mantissa);
  return mantissa;
#else
  const float inf = std::numeric_limits<float>::infinity();
  m32 small = lt(x, splat(std::numeric_limits<float>::min()));
  ri bits = (ri)choose(small, x * 0x1p23f, x);
  ri whole = (bits - 0x3f400000) >> 23;  // the bits of 0.75
  rf found = CONVERTED(whole, rf) - choose(small, splat(23.0f), rf{});
  found = choose(eq(x, rf{}), splat(-inf), found);
  exponent = choose(eq(x, splat(inf)), x, found);
  rf mantissa = (rf)(bits - (whole << 23));
  return choose(ge(x, rf{}), mantissa, splat(std::numeric_limits<float>::quiet_NaN()));
#endif
}

// The sign bit of `sign` set in a positive x.
INLINE rf with_sign(rf x, rf sign) {
#ifdef WEFT_AVX512
  const __m512i bit = _mm512_set1_epi32(INT32_MIN);  // 0xf8: first | (second & third)
  return (rf)_mm512_ternarylogic_epi32((__m512i)x, (__m512i)sign, bit, 0xf8);
#else
  return (rf)((ri)x | ((ri)sign & INT32_MIN));
#endif
}

// Of sixteen numbers that which the last four bits of an index say.
INLINE rf from_table(const float* table, ri index) {
#if defined(WEFT_AVX512)
  return (rf)_mm512_permutexvar_ps((__m512i)index, _mm512_load_ps(table));
#elif defined(WEFT_AVX2)
  __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), (__m256i)index);
  __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), (__m256i)index);
  return (rf)_mm256_blendv_ps(low, high, (__m256)(index << 28));
#else
  rf found;
  for (int k = 0; k < 4; k++) found[k] = table[index[k] & 15];
  return found;
#endif
}

// --- conversions -------------------------------------------------------------------------------

INLINE rf float_of(rf x) { return x; }
INLINE rf float_of(ri x) { return CONVERTED(x, rf); }
INLINE rf float_of(two<rd> x) { return joined(CONVERTED(x.low, hf), CONVERTED(x.high, hf)); }
INLINE rf float_of(two<rl> x) { return joined(CONVERTED(x.low, hf), CONVERTED(x.high, hf)); }
INLINE rf float_of(m32 m) { return choose(m, splat(1.0f), rf{}); }
INLINE two<rd> double_of(rf x) { return {doubles(lower(x)), doubles(upper(x))}; }
INLINE two<rd> double_of(ri x) { return {doubles(lower(x)), doubles(upper(x))}; }
INLINE two<rd> double_of(two<rd> x) { return x; }
INLINE two<rd> double_of(two<rl> x) { return {CONVERTED(x.low, rd), CONVERTED(x.high, rd)}; }
INLINE ri int_of(rf x) { return CONVERTED(x, ri); }
INLINE ri int_of(ri x) { return x; }
INLINE ri int_of(two<rd> x) { return joined(CONVERTED(x.low, hi), CONVERTED(x.high, hi)); }
INLINE ri int_of(two<rl> x) { return lower_words(x.low, x.high); }
INLINE ri int_of(m32 m) { return choose(m, splat(int32_t(1)), ri{}); }
INLINE two<rl> long_of(rf x) { return {longs(lower(x)), longs(upper(x))}; }
INLINE two<rl> long_of(ri x) { return {longs(lower(x)), longs(upper(x))}; }
INLINE two<rl> long_of(two<rd> x) { return {CONVERTED(x.low, rl), CONVERTED(x.high, rl)}; }
INLINE two<rl> long_of(two<rl> x) { return x; }
INLINE two<rd> double_of(m32 m) { return double_of(int_of(m)); }
INLINE two<rl> long_of(m32 m) { return long_of(int_of(m)); }
INLINE m32 mask_of(rb x) { return gt(widened(x), ri{}); }

// Rounded to nearest, ties to even; the upper sixteen bits of a lane hold the result.
INLINE ru rounded_bits(rf x) {
  ru bits = (ru)x;
  bits = bits + (0x7fffu + ((bits >> 16) & 1u));
  return (ru)choose(ne(x, x), splat(int32_t(0x7fc00000)), (ri)bits);
}
INLINE rf rounded(rf x, bf16) { return (rf)(rounded_bits(x) & 0xffff0000u); }
INLINE rh narrow(rf x, bf16) { return shorts_of((ri)(rounded_bits(x) >> 16)); }
INLINE rf widen(rh bits, bf16) { return (rf)(widened(bits) << 16); }
#if defined(WEFT_AVX512)
INLINE rf widen(rh bits, f16) { return (rf)_mm512_cvtph_ps((__m256i)bits); }
INLINE rh narrow(rf x, f16) { return (rh)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(WEFT_AVX2)
INLINE rf widen(rh bits, f16) { return (rf)_mm256_cvtph_ps((__m128i)bits); }
INLINE rh narrow(rf x, f16) { return (rh)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT); }
#else
INLINE rf widen(rh bits, f16) {
  ru h = (ru)widened(bits);
  ru sign = (h & 0x8000u) << 16, rest = (h & 0x7fffu) << 13;
  // Multiplying moves the exponent from one bias to the other, of subnormal numbers too.
  rf value = (rf)rest * 0x1p112f;
  return (rf)((ru)choose(lt((ri)rest, splat(int32_t(0x7c00 << 13))), value,
                         (rf)(rest | 0x7f800000u)) | sign);
}
INLINE rh narrow(rf x, f16) {
  ru bits = (ru)x, sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
  // Numbers below 2^-14 are rounded by the addition of 0.5, whose last bit is worth 2^-24.
  ru small = (ru)((rf)rest + 0.5f) - 0x3f000000u;
  ru normal = (rest - (112u << 23) + 0xfffu + ((rest >> 13) & 1u)) >> 13;
  ri found = choose(lt((ri)rest, splat(int32_t(0x38800000))), (ri)small, (ri)normal);
  found = choose(ge((ri)rest, splat(int32_t(0x477ff000))), splat(int32_t(0x7c00)), found);
  found = choose(ne(x, x), splat(int32_t(0x7e00)), found);
  return shorts_of((ri)((ru)found | sign));
}
#endif
INLINE rf rounded(rf x, f16 t) { return widen(narrow(x, t), t); }

// Of numbers that have no more digits than a bf16, the upper half is the bf16.
struct exact_bf16 {};
INLINE rh narrow(rf x, exact_bf16) { return shorts_of((ri)((ru)x >> 16)); }

// An element of two bytes in the lower half of an integer, the upper one being zero.
INLINE ri half_bits(rf x, bf16) { return (ri)(rounded_bits(x) >> 16); }
INLINE ri half_bits(rf x, exact_bf16) { return (ri)((ru)x >> 16); }
INLINE ri half_bits(rf x, f16 t) { return widened(narrow(x, t)); }

// --- memory ------------------------------------------------------------------------------------

template <class R> INLINE void fetch(const void* p, R& r) { std::memcpy(&r, p, sizeof r); }
template <class R> INLINE void keep(void* p, R r) { std::memcpy(p, &r, sizeof r); }
// Lanes that a mask leaves out are neither read nor written, and are 0 when read.
#if defined(WEFT_AVX512)
#define MASKED(R, M, bits, T, load, store)                                       \
  INLINE void fetch(const void* p, R& r, M m) { r = (R)_mm##load(m.bits, p); }   \
  INLINE void keep(void* p, R r, M m) { _mm##store(p, m.bits, (T)r); }
MASKED(rf, m32, v.bits, __m512, 512_maskz_loadu_ps, 512_mask_storeu_ps)
MASKED(ri, m32, v.bits, __m512i, 512_maskz_loadu_epi32, 512_mask_storeu_epi32)
MASKED(rh, m32, v.bits, __m256i, 256_maskz_loadu_epi16, 256_mask_storeu_epi16)
MASKED(rb, m32, v.bits, __m128i, _maskz_loadu_epi8, _mask_storeu_epi8)
MASKED(rd, m64, v, __m512d, 512_maskz_loadu_pd, 512_mask_storeu_pd)
MASKED(rl, m64, v, __m512i, 512_maskz_loadu_epi64, 512_mask_storeu_epi64)
#undef MASKED
#elif defined(WEFT_AVX2)
#define MASKED(R, M, P, T, end)                                                              \
  INLINE void fetch(const void* p, R& r, M m) {                                              \
    r = (R)_mm256_maskload_##end((const P*)p, (__m256i)m.v);                                 \
  }                                                                                          \
  INLINE void keep(void* p, R r, M m) { _mm256_maskstore_##end((P*)p, (__m256i)m.v, (T)r); }
MASKED(rf, m32, float, __m256, ps)
MASKED(rd, m64, double, __m256d, pd)
MASKED(ri, m32, int, __m256i, epi32)
MASKED(rl, m64, long long, __m256i, epi64)
#undef MASKED
#endif

#undef CONVERTED

}  // namespace weft
