// Stores past the caches, for what is too large to be found there again.
#pragma once

namespace weft {

template <class T, class V> INLINE void stream(T* p, V v) { store(p, v); }
#ifdef WEFT_AVX512
INLINE void stream(float* p, vf v) {
  if (((uintptr_t)p & 63) == 0) _mm512_stream_ps(p, (__m512)v);
  else store(p, v);
}
INLINE void stream(int32_t* p, vi v) {
  if (((uintptr_t)p & 63) == 0) _mm512_stream_si512((__m512i*)p, (__m512i)v);
  else keep(p, v);
}
#elif defined(WEFT_AVX2)
INLINE void stream(float* p, vf v) {
  if (((uintptr_t)p & 31) != 0) return store(p, v);
  __m256 halves[2];
  std::memcpy(halves, &v, sizeof v);
  _mm256_stream_ps(p, halves[0]);
  _mm256_stream_ps(p + 8, halves[1]);
}
INLINE void stream(int32_t* p, vi v) {
  vf bits;
  std::memcpy(&bits, &v, sizeof v);
  stream((float*)p, bits);
}
#endif

// Two vectors of elements of two bytes, which are one line of memory.
template <class T, class As> INLINE void stream_two(T* p, vf a, vf b, As as) {
  vi line;
  const vh halves[2] = {narrow(a, as), narrow(b, as)};
  std::memcpy(&line, halves, sizeof line);
  stream((int32_t*)p, line);
}

// Before others read what was stored past the caches.
INLINE void end_streams() {
#if defined(WEFT_AVX512) || defined(WEFT_AVX2)
  _mm_sfence();
#endif
}

}  // namespace weft
