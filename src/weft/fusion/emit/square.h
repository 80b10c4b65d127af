// Squares of sixteen by sixteen elements, transposed between memory and vectors.
#pragma once

namespace weft {

// Vector i of the result holds lane i of each of the sixteen vectors.
template <class V> INLINE void transpose(V* x) {
  using I = decltype(x[0] < x[0]);
  for (int bit = 1; bit < LANES; bit *= 2) {
    I low, high;
    for (int k = 0; k < LANES; k++) {
      low[k] = (k & bit) ? k - bit + LANES : k;
      high[k] = (k & bit) ? k + LANES : k + bit;
    }
    V y[LANES];
    for (int i = 0; i < LANES; i++) {
      const int j = i ^ bit;
      y[i] = (i & bit) ? __builtin_shuffle(x[j], x[i], high) : __builtin_shuffle(x[i], x[j], low);
    }
    for (int i = 0; i < LANES; i++) x[i] = y[i];
  }
}
INLINE void transpose(vm* x) {
  vi y[LANES];
  for (int i = 0; i < LANES; i++) y[i] = x[i].v;
  transpose(y);
  for (int i = 0; i < LANES; i++) x[i].v = y[i];
}

// x[i] = row i: element j of it lies at p + j * stride + i; there are `lanes` of j and `rows` of i.
template <class V, class T>
INLINE void load_square(V* x, const T* p, int64_t stride, int lanes, int rows) {
  for (int j = 0; j < LANES; j++) x[j] = j < lanes ? load(p + j * stride, rows) : V{};
  transpose(x);
}
template <bool past, class V, class T>
INLINE void store_square(T* p, int64_t stride, V* x, int lanes, int rows) {
  transpose(x);
  if (rows == LANES && lanes == LANES) {
    for (int j = 0; j < LANES; j++) {
      if constexpr (past) stream(p + j * stride, x[j]);
      else store(p + j * stride, x[j]);
    }
    return;
  }
  for (int j = 0; j < lanes; j++) store(p + j * stride, x[j], rows);
}

}  // namespace weft
