// What test_vec.py calls of the headers; compiled behind them, once for each target.
using namespace weft;
#define KERNEL extern "C" void

// A function of arrays, sixteen elements at a time and one at a time.
#define MAP_1(name, T, call)                                                                   \
  KERNEL name##_##T(const T* x, T* y, int64_t n) {                                             \
    int64_t i = 0;                                                                             \
    for (; i + LANES <= n; i += LANES) store(y + i, call(load(x + i)));                        \
    if (i < n) store(y + i, call(load(x + i, int(n - i))), int(n - i));                        \
  }                                                                                            \
  KERNEL plain_##name##_##T(const T* x, T* y, int64_t n) {                                     \
    for (int64_t i = 0; i < n; i++) put(y + i, call(one(x + i)));                              \
  }
#define MAP_2(name, T, R, call)                                                                \
  KERNEL name##_##T(const T* a, const T* b, R* y, int64_t n) {                                 \
    for (int64_t i = 0; i < n; i += LANES) store(y + i, call(load(a + i), load(b + i)));       \
  }                                                                                            \
  KERNEL plain_##name##_##T(const T* a, const T* b, R* y, int64_t n) {                         \
    for (int64_t i = 0; i < n; i++) put(y + i, call(one(a + i), one(b + i)));                  \
  }
#define REAL(name) MAP_1(name, float, name) MAP_1(name, double, name)
REAL(exponential)
REAL(logarithm)
REAL(logarithm1p)
REAL(tangent)
REAL(logistic)
REAL(error_function)
REAL(sine)
REAL(cosine)
REAL(root)
REAL(inverse_root)
REAL(floored)
REAL(absolute)
MAP_1(absolute, int32_t, absolute)
MAP_1(absolute, int64_t, absolute)
MAP_2(power, float, float, power)
MAP_2(power, double, double, power)
MAP_2(power, int32_t, int32_t, power)
MAP_2(power, int64_t, int64_t, power)
MAP_2(gelu_tanh_backward, float, float, gelu_tanh_backward)
MAP_2(gelu_tanh_backward, double, double, gelu_tanh_backward)

#define NUMBER(T)                                                                              \
  MAP_2(maximum, T, T, maximum)                                                                \
  MAP_2(minimum, T, T, minimum)                                                                \
  MAP_2(eq, T, bool, eq)                                                                       \
  MAP_2(ne, T, bool, ne)                                                                       \
  MAP_2(lt, T, bool, lt)                                                                       \
  MAP_2(le, T, bool, le)                                                                       \
  MAP_2(gt, T, bool, gt)                                                                       \
  MAP_2(ge, T, bool, ge)                                                                       \
  KERNEL lanes_sum_##T(const T* x, T* y) { *y = lanes_sum(load(x)); }                          \
  KERNEL lanes_maximum_##T(const T* x, T* y) { *y = lanes_maximum(load(x)); }                  \
  KERNEL transpose_##T(const T* x, T* y) {                                                     \
    decltype(load(x)) square[LANES];                                                           \
    for (int i = 0; i < LANES; i++) square[i] = load(x + i * LANES);                           \
    transpose(square);                                                                         \
    for (int i = 0; i < LANES; i++) store(y + i * LANES, square[i]);                           \
  }
NUMBER(float)
NUMBER(double)
NUMBER(int32_t)
NUMBER(int64_t)

MAP_1(inverse, bool, inverse)
MAP_2(both, bool, bool, both)
MAP_2(either, bool, bool, either)
MAP_2(eq, bool, bool, eq)
MAP_2(ne, bool, bool, ne)
MAP_2(lt, bool, bool, lt)
MAP_2(le, bool, bool, le)
MAP_2(gt, bool, bool, gt)
MAP_2(ge, bool, bool, ge)
MAP_2(maximum, bool, bool, maximum)
MAP_2(minimum, bool, bool, minimum)
KERNEL any_lane_bool(const bool* x, bool* y) { *y = any_lane(load(x)); }

// Every type of element.
#define ELEMENT(T)                                                                             \
  KERNEL first_##T(const T* x, T* y, int n) { store(y, load(x, n), n); }                       \
  KERNEL filled_##T(const T* x, T* y, int n) { store(y, load(x, n)); }                         \
  KERNEL chosen_##T(const bool* m, const T* a, const T* b, T* y) {                             \
    store(y, choose(load(m), load(a), load(b)));                                               \
  }                                                                                            \
  KERNEL apart_##T(const T* x, T* y, int64_t from, int64_t to, int n) {                        \
    store_apart(y, to, load_apart(x, from, n), n);                                             \
  }                                                                                            \
  extern "C" int looked_up_##T(                                                                \
      const T* table, const int64_t* at, T* y, int64_t stride, int64_t step, int64_t limit,    \
      int n) {                                                                                 \
    int wrong = 0;                                                                             \
    store(y, look_up(table, stride, load(at, n), step, limit, wrong, n), n);                   \
    return wrong;                                                                              \
  }                                                                                            \
  extern "C" int looked_up_in_a_row_##T(                                                       \
      const T* table, int64_t at, T* y, int64_t step, int64_t limit, int n) {                  \
    int wrong = 0;                                                                             \
    store(y, look_up(table, 1, all(at), step, limit, wrong, n), n);                            \
    return wrong;                                                                              \
  }                                                                                            \
  CONVERTED_TO(T, float, vf)                                                                   \
  CONVERTED_TO(T, double, vd)                                                                  \
  CONVERTED_TO(T, int32_t, vi)                                                                 \
  CONVERTED_TO(T, int64_t, vl)                                                                 \
  CONVERTED_TO(T, bool, vm)                                                                    \
  CONVERTED_TO(T, bf16, vf)                                                                    \
  CONVERTED_TO(T, f16, vf)
#define CONVERTED_TO(T, R, V)                                                                  \
  KERNEL R##_of_##T(const T* x, R* y, int64_t n) {                                             \
    for (int64_t i = 0; i < n; i += LANES) store(y + i, to<V>::from(load(x + i)));             \
  }
ELEMENT(float)
ELEMENT(double)
ELEMENT(int32_t)
ELEMENT(int64_t)
ELEMENT(uint8_t)
ELEMENT(bool)
ELEMENT(bf16)
ELEMENT(f16)
CONVERTED_TO(int32_t, uint8_t, vi)

#define HALF(T)                                                                                \
  KERNEL rounded_##T(const float* x, float* y, int64_t n) {                                    \
    for (int64_t i = 0; i < n; i += LANES) store(y + i, rounded(load(x + i), T{}));            \
  }                                                                                            \
  KERNEL plain_rounded_##T(const float* x, float* y, int64_t n) {                              \
    for (int64_t i = 0; i < n; i++) y[i] = rounded(x[i], T{});                                 \
  }                                                                                            \
  KERNEL plain_##T##_of_float(const float* x, T* y, int64_t n) {                               \
    for (int64_t i = 0; i < n; i++) put(y + i, x[i]);                                          \
  }                                                                                            \
  KERNEL plain_float_of_##T(const T* x, float* y, int64_t n) {                                 \
    for (int64_t i = 0; i < n; i++) y[i] = one(x + i);                                         \
  }
HALF(bf16)
HALF(f16)

KERNEL counted(int64_t from, int64_t* y) {
  store(y, all(from) + to<vl>::from(lane_numbers()) * int64_t(3));
}
KERNEL over_threads(const float* x, float* y, int64_t bytes, int64_t num, int n) {
  store(y, over_threads_sum(x, 2, bytes, num, n), n);
  store(y + LANES, over_threads_maximum(x, 2, bytes, num, n), n);
  y[2 * LANES] = over_threads_sum_one(x, 2, bytes, num);
  y[2 * LANES + 1] = over_threads_maximum_one(x, 2, bytes, num);
}

// Squares from and to places that are `from` and `to` elements apart.
#define SQUARES(T)                                                                             \
  KERNEL square_##T(const T* x, int64_t from, T* y, int64_t to) {                              \
    decltype(load(x)) square[LANES];                                                           \
    load_square(square, x, from);                                                              \
    store_square<true>(y, to, square);                                                         \
  }                                                                                            \
  KERNEL part_of_square_##T(                                                                   \
      const T* x, int64_t from, T* y, int64_t to, int64_t lanes, int64_t rows) {               \
    decltype(load(x)) square[LANES];                                                           \
    load_square(square, x, from, int(lanes), int(rows));                                       \
    store_square<true>(y, to, square, int(lanes), int(rows));                                  \
  }
SQUARES(float)
SQUARES(double)
SQUARES(int32_t)
SQUARES(bf16)
SQUARES(bool)

// Numbers of 16 bits, past the caches: 32 in a row, and 32 rows of sixteen as sixteen of 32.
#define PAST(T)                                                                                \
  KERNEL line_##T(const float* x, T* y) {                                                      \
    stream_two(y, load(x), load(x + LANES), T{});                                              \
    end_streams();                                                                             \
  }                                                                                            \
  KERNEL two_squares_##T(const float* x, T* y, int64_t to) {                                   \
    vf rows[2 * LANES];                                                                        \
    for (int i = 0; i < 2 * LANES; i++) rows[i] = load(x + i * LANES);                         \
    store_two_squares<true, T>(y, to, rows);                                                   \
    end_streams();                                                                             \
  }
PAST(bf16)
PAST(f16)
KERNEL row_float(const float* x, float* y) {
  stream(y, load(x));
  end_streams();
}
