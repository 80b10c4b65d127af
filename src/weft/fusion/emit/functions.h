// Exponentials, logarithms and their kin of sixteen elements; after registers.h and vec.h.
//
// Polynomials are minimax approximations; benchmarks/vec/fit_polynomials.py finds their
// coefficients and the relative errors stated beside them. How far whole functions are off, in
// units in the last place, the tests assert. What is not written here for doubles goes through the
// C library, lane by lane.
#pragma once

namespace weft {

// c[0] + c[1] x + ...
template <class V, class T, int N> INLINE V polynomial(V x, const T (&c)[N]) {
  V p = all(c[N - 1]);
#pragma GCC unroll 16
  for (int k = N - 2; k >= 0; k--) p = fma(p, x, all(c[k]));
  return p;
}
template <class F> INLINE vd lane_by_lane(vd x, F call) {
  double a[LANES];
  store(a, x);
  for (int k = 0; k < LANES; k++) a[k] = call(a[k]);
  return load(a);
}

// ln 2 in two parts, both positive; a whole exponent times the first is exact.
constexpr float LN2_HIGH = 0x1.62ep-1f, LN2_LOW = 3.19461833e-05f, LOG2_E = 1.44269502f;
constexpr double LN2_HIGH_64 = 0x1.62e42feep-1, LN2_LOW_64 = 1.9082149292705877e-10,
                 LOG2_E_64 = 1.4426950408889634;

// --- exponentials ------------------------------------------------------------------------------

// e^x = 2^k (1 + the result), for whole k; the result is between -0.30 and 0.42.
INLINE vf exponential_parts(vf x, vf& k) {
  // (e^r - 1 - r) / r^2 for |r| <= 0.347: e^r - 1 is off by 1.4e-8.
  constexpr float C[] = {0.5f, 0.16666548f, 0.0416668542f, 0.0083661126f, 0.00138982409f};
  k = fma(x, all(LOG2_E), all(WHOLE)) - WHOLE;
  vf r = fma(k, all(-LN2_LOW), fma(k, all(-LN2_HIGH), x));
  return fma(r * r, polynomial(r, C), r);
}
// Of numbers up to 89; NaN stays NaN.
INLINE vf exponential_below(vf x) {
  vf k, p = exponential_parts(greatest(all(-104.0f), x), k);
  return scaled(p + 1.0f, k);
}
INLINE vf exponential(vf x) { return exponential_below(least(all(89.0f), x)); }
INLINE vd exponential(vd x) {
  // As for floats: e^r - 1 is off by 1.7e-18.
  constexpr double C[] = {
      0.5, 0.16666666666666677, 0.041666666666666574, 0.0083333333333220592,
      0.0013888888888943247, 0.0001984126988523772, 2.4801587197281632e-05,
      2.7557244961653477e-06, 2.7557387599479345e-07, 2.5108813468469812e-08,
      2.0878827768852001e-09};
  x = least(all(710.0), greatest(all(-746.0), x));
  vd k = fma(x, all(LOG2_E_64), all(WHOLE_64)) - WHOLE_64;
  vd r = fma(k, all(-LN2_LOW_64), fma(k, all(-LN2_HIGH_64), x));
  return scaled(fma(r * r, polynomial(r, C), r) + 1.0, k);
}
INLINE float exponential(float x) { return std::exp(x); }
INLINE double exponential(double x) { return std::exp(x); }

// 1 / (1 + e) and e / (1 + e) for the exponential e of -|x|, which never overflows. The second is
// e - e e / (1 + e), too, where errors of the sum and the quotient weigh less.
INLINE vf logistic(vf x) {
  vf e = exponential_below(-absolute(x));
  vm negative = lt(x, vf{});
  vf share = choose(negative, e, all(1.0f)) / (e + 1.0f);
  return choose(negative, fma(e, -share, e), share);
}
INLINE vd logistic(vd x) {
  vd e = exponential(-absolute(x));
  return choose(lt(x, vd{}), e, all(1.0)) / (e + 1.0);
}
template <class T> INLINE T logistic_of(T x) {
  T e = std::exp(-std::fabs(x));
  return (x < 0 ? e : T(1)) / (e + T(1));
}
INLINE float logistic(float x) { return logistic_of(x); }
INLINE double logistic(double x) { return logistic_of(x); }

// (1 - e) / (1 + e) for the exponential e of -2|x|, of which e - 1 is known to all digits near 0.
INLINE vf tangent(vf x) {
  // From -20 on the quotient rounds to 1.
  vf k, p = exponential_parts(greatest(all(-20.0f), absolute(x) * -2.0f), k);
  vf power = power_of_two(k);
  vf difference = fma(power, -p, 1.0f - power), sum = fma(power, p, power + 1.0f);
  return with_sign(difference / sum, x);
}
INLINE vd tangent(vd x) {
  return lane_by_lane(x, [](double number) { return std::tanh(number); });
}
INLINE float tangent(float x) { return std::tanh(x); }
INLINE double tangent(double x) { return std::tanh(x); }

// --- error function ----------------------------------------------------------------------------

// erf(n h + t), h = 65/256, |t| <= h/2: a row holds the coefficients of a power of t, for each n.
// They are off by at most 7.7e-8, which most of all their rounding to float makes.
alignas(64) static const float ERROR_FUNCTION[6][LANES] = {
    {0.0f, 0.28046301f, 0.527338445f, 0.718623817f, 0.849086046f, 0.927408159f, 0.968796372f,
     0.988047481f, 0.995929182f, 0.998769462f, 0.999670327f, 0.999921799f, 0.999983609f,
     0.99999696f, 0.999999523f, 0.99999994f},
    {0.128379166f, 1.05792975f, 0.871890664f, 0.631641567f, 0.402237773f, 0.225163743f,
     0.110794336f, 0.0479225703f, 0.0182207469f, 0.00608969713f, 0.00178907625f, 0.000462025171f,
     0.000104883278f, 2.09291138e-05f, 3.67112943e-06f, 5.66047788e-07f},
    {2.43548186e-07f, -0.268609077f, -0.442749679f, -0.481129497f, -0.408523619f, -0.285855591f,
     -0.168790966f, -0.0851760432f, -0.0370108709f, -0.0139154671f, -0.00454218686f, -0.001290204f,
     -0.00031947394f, -6.90510715e-05f, -1.3040928e-05f, -2.153781e-06f},
    {-0.376140445f, -0.307196349f, -0.140754014f, 0.0337688252f, 0.142520681f, 0.166877806f,
     0.134496063f, 0.0849510655f, 0.0440461524f, 0.019170247f, 0.00709270732f, 0.00224853866f,
     0.000614050252f, 0.000144996739f, 2.96870712e-05f, 5.28135388e-06f},
    {0.000271396886f, 0.127552718f, 0.182119042f, 0.146899059f, 0.0639471784f, -0.0101189697f,
     -0.0457354933f, -0.0469101295f, -0.0324013084f, -0.0173379965f, -0.00755445752f,
     -0.00274585304f, -0.000844164926f, -0.00022144329f, -4.98626832e-05f, -9.67885353e-06f},
    {0.111027129f, 0.0799058676f, 0.00585155562f, -0.0542961545f, -0.0682308599f, -0.0446112417f,
     -0.0123875421f, 0.00780789228f, 0.0130169969f, 0.0100167505f, 0.00549927307f, 0.00237288163f,
     0.000837273488f, 0.000246651733f, 6.14225137e-05f, 1.30361686e-05f}};

INLINE vf error_function(vf x) {
  vf a = least(all(3.93f), absolute(x));
  vf sum = fma(a, all(256.0f / 65.0f), all(WHOLE));
  vf t = fma(sum - WHOLE, all(-65.0f / 256.0f), a);
  vi n = bits_of(sum);
  vf p = from_table(ERROR_FUNCTION[5], n);
#pragma GCC unroll 8
  for (int k = 4; k > 0; k--) p = fma(p, t, from_table(ERROR_FUNCTION[k], n));
  // Near 0 the polynomial is that of erf(t) - t, to lose no digits; elsewhere t is smaller.
  return with_sign(fma(p, t, greatest(t, from_table(ERROR_FUNCTION[0], n))), x);
}
INLINE vd error_function(vd x) {
  return lane_by_lane(x, [](double number) { return std::erf(number); });
}
INLINE float error_function(float x) { return std::erf(x); }
INLINE double error_function(double x) { return std::erf(x); }

// --- logarithms --------------------------------------------------------------------------------

// The logarithm of (1 + f) 2^k; -inf and inf where k is.
INLINE vf logarithm_parts(vf f, vf k) {
  // (ln(1 + f) - f + f^2/2) / f^3 for -0.25 <= f <= 0.5: ln(1 + f) is off by 9.6e-9.
  constexpr float C[] = {
      0.333334506f, -0.250000954f, 0.199908614f, -0.166473165f, 0.144784003f, -0.131611407f,
      0.10462869f, -0.0450736582f};
  vf square = f * f;
  vf rest = fma(polynomial(f, C), f, all(-0.5f));
  rest = fma(square, rest, k * LN2_LOW);
  return fma(k, all(LN2_HIGH), f + rest);
}
INLINE vf logarithm(vf x) {
  vf k, mantissa = split(x, k);
  return logarithm_parts(mantissa - 1.0f, k);
}
INLINE vd logarithm(vd x) {
  return lane_by_lane(x, [](double number) { return std::log(number); });
}
INLINE float logarithm(float x) { return std::log(x); }
INLINE double logarithm(double x) { return std::log(x); }

INLINE vf logarithm1p(vf x) {
  vf sum = x + 1.0f, most = sum - 1.0f;
  // What the sum lost; from 2^25 on it is nothing.
  vf lost = (x - most) + (1.0f - (sum - most));
  lost = choose(lt(sum, all(0x1p25f)), lost, vf{});
  vf k, mantissa = split(sum, k);
  vf shift = least(all(30.0f), greatest(all(-30.0f), -k));
  vf f = (mantissa - 1.0f) + lost * power_of_two(shift);
  return with_sign(absolute(logarithm_parts(f, k)), x);
}
INLINE vd logarithm1p(vd x) {
  return lane_by_lane(x, [](double number) { return std::log1p(number); });
}
INLINE float logarithm1p(float x) { return std::log1p(x); }
INLINE double logarithm1p(double x) { return std::log1p(x); }

// --- sine and cosine ---------------------------------------------------------------------------

// Beyond this the difference from a multiple of pi/2 loses digits.
constexpr float FAR = 10000.0f;
// Out of line, so that the registers of the loop around are its own.
static __attribute__((noinline, cold)) void far_from_zero(float* a, float (*call)(float)) {
  for (int k = 0; k < LANES; k++) a[k] = call(a[k]);
}
// The sine of x and a number of right angles more.
template <int QUARTERS> INLINE vf sine_of(vf x) {
  vf sum = fma(x, all(0.636619747f), all(WHOLE));
  vf k = sum - WHOLE;
  // pi/2 in parts of 11 bits, of which a multiple up to 2^13 is exact, and the rest. The third
  // difference is the first to be rounded; what it loses goes into the fourth.
  vf most = fma(k, all(-0x1.fb4p-12f), fma(k, all(-0x1.92p0f), x));
  vf r = fma(k, all(-0x1.444p-24f), most);
  vf lost = fma(k, all(-0x1.444p-24f), most - r);
  r = r + fma(k, all(-2.56334407e-12f), lost);
  // (sin r - r) / r^3 and (cos r - 1) / r^2 for |r| <= 0.786: off by 8.4e-9 and 1.4e-10.
  constexpr float S[] = {-0.166666552f, 0.00833215751f, -0.000195147833f};
  constexpr float C[] = {-0.5f, 0.0416666456f, -0.00138873118f, 2.44325911e-05f};
  vf square = r * r;
  vf sine = fma(r * square, polynomial(square, S), r);
  vf cosine = fma(square, polynomial(square, C), all(1.0f));
  vi quarters = bits_of(sum) + QUARTERS;
  vf found = choose(lt(quarters << 31, vi{}), cosine, sine);
  return float_of_bits(bits_of(found) ^ ((quarters & 2) << 30));
}
INLINE vf sine(vf x) {
  if (__builtin_expect(any_lane(gt(absolute(x), all(FAR))), 0)) {
    float a[LANES];
    store(a, x);
    far_from_zero(a, std::sin);
    return load(a);
  }
  return sine_of<0>(x);
}
INLINE vf cosine(vf x) {
  if (__builtin_expect(any_lane(gt(absolute(x), all(FAR))), 0)) {
    float a[LANES];
    store(a, x);
    far_from_zero(a, std::cos);
    return load(a);
  }
  return sine_of<1>(x);
}
INLINE vd sine(vd x) {
  return lane_by_lane(x, [](double number) { return std::sin(number); });
}
INLINE vd cosine(vd x) {
  return lane_by_lane(x, [](double number) { return std::cos(number); });
}
INLINE float sine(float x) { return std::sin(x); }
INLINE float cosine(float x) { return std::cos(x); }
INLINE double sine(double x) { return std::sin(x); }
INLINE double cosine(double x) { return std::cos(x); }

// --- powers ------------------------------------------------------------------------------------

// 2^(y log2 x), with the logarithm and the product in doubles.
INLINE vf power(vf x, vf y) {
  // log2((1 + s) / (1 - s)) / s for |s| <= 0.2001: off by 2e-11.
  constexpr double L[] = {
      2.885390081836003, 0.96179662173585379, 0.57709235185957219, 0.4112057927279601,
      0.34840261470705386};
  // 2^f for |f| <= 0.5: off by 2e-9.
  constexpr double E[] = {
      1.0, 0.69314720285183062, 0.24022647913397574, 0.05550332481366331, 0.0096184374452973481,
      0.0013398870119315893, 0.00015353327386981799};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  vf k, mantissa = split(absolute(x), k);
  vd m = double_of(mantissa);
  vd s = (m - 1.0) / (m + 1.0);
  vd log2 = fma(s, polynomial(s * s, L), double_of(k));
  vd e = least(all(200.0), greatest(all(-200.0), log2 * double_of(y)));
  vd whole = (e + WHOLE_64) - WHOLE_64;
  vf found = scaled(float_of(polynomial(e - whole, E)), float_of(whole));
  // Even where y is infinite.
  vm odd = ne(floored(y * 0.5f), y * 0.5f), is_whole = eq(floored(y), y);
  found = choose(both(is_whole, odd), with_sign(found, x), found);
  vm no_number = both(both(lt(x, vf{}), gt(x, all(-inf))), inverse(is_whole));
  found = choose(no_number, all(nan), found);
  vm of_one = both(eq(x, all(-1.0f)), eq(absolute(y), all(inf)));
  of_one = either(of_one, either(eq(x, all(1.0f)), eq(y, vf{})));
  return choose(of_one, all(1.0f), found);
}
INLINE vd power(vd x, vd y) {
  double a[LANES], b[LANES];
  store(a, x);
  store(b, y);
  for (int k = 0; k < LANES; k++) a[k] = std::pow(a[k], b[k]);
  return load(a);
}
INLINE float power(float x, float y) { return std::pow(x, y); }
INLINE double power(double x, double y) { return std::pow(x, y); }

INLINE vi product(vi a, vi b) { return a * b; }
INLINE vl product(vl a, vl b) { return a * b; }
INLINE int32_t product(int32_t a, int32_t b) { return int32_t(uint32_t(a) * uint32_t(b)); }
INLINE int64_t product(int64_t a, int64_t b) { return int64_t(uint64_t(a) * uint64_t(b)); }
// Of whole numbers: the last bits of what is exact, and 0 where that is a fraction, as in ATen.
template <class V> INLINE V whole_power(V x, V y) {
  const V zero{}, one = number<V>(1), minus = number<V>(-1);
  V found = one, square = x;
  for (V rest = y; any_lane(gt(rest, zero)); rest = rest >> 1) {
    found = choose(ne(rest & one, zero), product(found, square), found);
    square = product(square, square);
  }
  V sign = choose(ne(y & one, zero), minus, one);
  V fraction = choose(eq(x, one), one, choose(eq(x, minus), sign, zero));
  return choose(lt(y, zero), fraction, found);
}
INLINE vi power(vi x, vi y) { return whole_power(x, y); }
INLINE vl power(vl x, vl y) { return whole_power(x, y); }
INLINE int32_t power(int32_t x, int32_t y) { return whole_power(x, y); }
INLINE int64_t power(int64_t x, int64_t y) { return whole_power(x, y); }

template <class V> INLINE V gelu_tanh_backward(V grad, V x) {
  const V one = number<V>(1.0), half = number<V>(0.5), slope = number<V>(0.7978845608028654);
  V square = x * x;
  V t = tangent(slope * (x + number<V>(0.044715) * square * x));
  V inner = slope * (one + number<V>(3.0 * 0.044715) * square);
  return grad * (half * (one + t) + half * x * (one - t * t) * inner);
}

}  // namespace weft
