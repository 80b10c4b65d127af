// Squares of sixteen by sixteen elements, transposed between memory and vectors.
#pragma once

namespace weft {

INLINE void transpose(vm* x) {
  vi y[LANES];
  for (int i = 0; i < LANES; i++) y[i] = int_of(x[i]);
  transpose(y);
  for (int i = 0; i < LANES; i++) x[i] = to<vm>::from(y[i]);
}

// x[i] = row i: element j of it lies at p + j * stride + i; there are `lanes` of j and `rows` of i.
template <class V, class T> INLINE void load_square(V* x, const T* p, int64_t stride) {
#pragma GCC unroll 16
  for (int j = 0; j < LANES; j++) x[j] = load(p + j * stride);
  transpose(x);
}
template <class V, class T>
INLINE void load_square(V* x, const T* p, int64_t stride, int lanes, int rows) {
  for (int j = 0; j < LANES; j++) x[j] = j < lanes ? load(p + j * stride, rows) : V{};
  transpose(x);
}
// What is read soon, on its way to the second level of caches: lines of rows that are pages apart
// would drive each other from the first.
template <class T> INLINE void ask_for(const T* p) { __builtin_prefetch(p, 0, 2); }
template <class T> INLINE void ask_for_square(const T* p, int64_t stride) {
#pragma GCC unroll 16
  for (int j = 0; j < LANES; j++) ask_for(p + j * stride);
}
template <bool past, class V, class T> INLINE void store_square(T* p, int64_t stride, V* x) {
  transpose(x);
#pragma GCC unroll 16
  for (int j = 0; j < LANES; j++) {
    if constexpr (past) stream(p + j * stride, x[j]);
    else store(p + j * stride, x[j]);
  }
}
template <bool past, class V, class T>
INLINE void store_square(T* p, int64_t stride, V* x, int lanes, int rows) {
  transpose(x);
  for (int j = 0; j < lanes; j++) store(p + j * stride, x[j], rows);
}

// Two squares, one behind the other, of elements of two bytes: a pair of rows is transposed as one
// of words, and every line of memory is written whole.
template <bool past, class As, class T>
INLINE void store_two_squares(T* p, int64_t stride, const vf* x) {
  vi pairs[LANES];
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) {
    pairs[i] = half_bits(x[2 * i], As{}) | half_bits(x[2 * i + 1], As{}) << 16;
  }
  transpose(pairs);
#pragma GCC unroll 16
  for (int j = 0; j < LANES; j++) {
    if constexpr (past) stream((int32_t*)(p + j * stride), pairs[j]);
    else keep(p + j * stride, pairs[j]);
  }
}

}  // namespace weft
