// Both passes of GAC over gradients and what each is compared with; after the headers of fusion.
//
// Gradients come in a table, are cut into pieces, and pieces are shared out among threads. Sums of
// pieces are added up in the order of the table, so they do not depend on how many threads there
// are. A row has six numbers: where the gradient is, where its reference is, how many elements they
// have, in which types, under which decision they fall, and how many processes hold a copy of them.
#include <algorithm>
#include <vector>

namespace weft_rl {
using namespace weft;

// 256 KiB of float32: long enough to be read ahead, short enough to be shared out evenly.
constexpr int64_t PIECE = 1 << 16;
// Elements that are summed in float32 before float64 takes over.
constexpr int64_t ROW = 1024;
constexpr int CHAINS = 4;

struct Row { int64_t gradient, reference, count, types, group, copies; };

struct Piece { const Row* row; int64_t start, count; };

struct Table {
  const Row* rows;
  int64_t size;
  std::vector<int64_t> ends;  // pieces up to and with a row

  explicit Table(void* const* given) {
    const int64_t* numbers = (const int64_t*)given;
    size = numbers[0];
    rows = (const Row*)(numbers + 1);
    ends.reserve(size);
    for (int64_t i = 0, end = 0; i < size; i++) {
      end += (rows[i].count + PIECE - 1) / PIECE;
      ends.push_back(end);
    }
  }
  int64_t pieces() const { return size ? ends.back() : 0; }
  Piece piece(int64_t number) const {
    const int64_t at = std::upper_bound(ends.begin(), ends.end(), number) - ends.begin();
    const int64_t start = (number - (at ? ends[at - 1] : 0)) * PIECE;
    return {rows + at, start, std::min(PIECE, rows[at].count - start)};
  }
};

// Calls `work` with pointers to a piece's elements, in their types.
template <class G, class Work> INLINE void with_reference(const Piece& piece, const Work& work) {
  G* const gradient = (G*)piece.row->gradient + piece.start;
  const int64_t reference = piece.row->reference;
  switch (piece.row->types % 3) {
    case 0: return work(gradient, (float*)reference + piece.start);
    case 1: return work(gradient, (bf16*)reference + piece.start);
    default: return work(gradient, (f16*)reference + piece.start);
  }
}
template <class Work> INLINE void with_types(const Piece& piece, const Work& work) {
  switch (piece.row->types / 3) {
    case 0: return with_reference<float>(piece, work);
    case 1: return with_reference<bf16>(piece, work);
    default: return with_reference<f16>(piece, work);
  }
}

// --- the first pass ----------------------------------------------------------------------------

struct Products {
  vd squares{}, dots{}, others{};

  void add(const vf* own, const vf* both, const vf* other) {
    squares = squares + double_of((own[0] + own[1]) + (own[2] + own[3]));
    dots = dots + double_of((both[0] + both[1]) + (both[2] + both[3]));
    others = others + double_of((other[0] + other[1]) + (other[2] + other[3]));
  }
};

INLINE double lanes(vd v) {
  double all[LANES], sum = 0;
  store(all, v);
  for (int k = 0; k < LANES; k++) sum += all[k];
  return sum;
}

// Products of a gradient with itself, with its reference, and of that with itself.
template <class G, class R>
INLINE void products(const G* gradient, const R* reference, int64_t count, double* found) {
  Products total;
  for (int64_t row = 0; row < count; row += ROW) {
    const int64_t end = std::min(row + ROW, count);
    vf own[CHAINS] = {}, both[CHAINS] = {}, other[CHAINS] = {};
    int64_t i = row;
    for (; i + CHAINS * LANES <= end; i += CHAINS * LANES) {
#pragma GCC unroll 4
      for (int k = 0; k < CHAINS; k++) {
        const vf g = load(gradient + i + k * LANES), r = load(reference + i + k * LANES);
        own[k] = fma(g, g, own[k]);
        both[k] = fma(g, r, both[k]);
        other[k] = fma(r, r, other[k]);
      }
    }
    for (; i < end; i += LANES) {
      const int n = int(std::min<int64_t>(LANES, end - i));
      const vf g = load(gradient + i, n), r = load(reference + i, n);
      own[0] = fma(g, g, own[0]);
      both[0] = fma(g, r, both[0]);
      other[0] = fma(r, r, other[0]);
    }
    total.add(own, both, other);
  }
  found[0] = lanes(total.squares), found[1] = lanes(total.dots), found[2] = lanes(total.others);
}

// --- the second pass ---------------------------------------------------------------------------

// Rounded to nearest, ties to even. One instruction where there is one: it takes numbers below 2^-126,
// whose squares are 0 in any case, for 0.
template <class T> INLINE void round_to(T* p, vf v) { store(p, v); }
#if defined(WEFT_AVX512) && defined(__AVX512BF16__)
INLINE void round_to(bf16* p, vf v) {
  const __m256bh bits = _mm512_cvtneps_pbh((__m512)v);
  std::memcpy(p, &bits, sizeof bits);
}
#endif

struct Decision { double factor, scale, weight, wipes; };

// As torch.lerp does it: from the nearer end, and exact at both.
template <bool CHANGES, bool FROM_REFERENCE, class G, class R>
INLINE void advance_as(G* gradient, R* reference, int64_t count, const Decision& decision) {
  const vf minus = all(float(-decision.factor)), scale = all(float(decision.scale));
  const float weight = float(decision.weight);
  const vf part = all(FROM_REFERENCE ? weight : weight - 1.0f);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const vf g = load(gradient + i), r = load(reference + i);
    round_to(reference + i, fma(part, g - r, FROM_REFERENCE ? r : g));
    if (CHANGES) round_to(gradient + i, fma(minus, r, scale * g));
  }
  if (i == count) return;
  const int n = int(count - i);
  const vf g = load(gradient + i, n), r = load(reference + i, n);
  store(reference + i, fma(part, g - r, FROM_REFERENCE ? r : g), n);
  if (CHANGES) store(gradient + i, fma(minus, r, scale * g), n);
}

template <class G, class R>
INLINE void advance(G* gradient, R* reference, int64_t count, const Decision& decision) {
  const bool changes = decision.factor != 0.0 || decision.scale != 1.0;
  if (decision.wipes != 0.0) {
    std::memset((void*)reference, 0, count * sizeof(R));
  } else if (changes && decision.weight < 0.5) {
    advance_as<true, true>(gradient, reference, count, decision);
  } else if (changes) {
    advance_as<true, false>(gradient, reference, count, decision);
  } else if (decision.weight < 0.5) {
    advance_as<false, true>(gradient, reference, count, decision);
  } else {
    advance_as<false, false>(gradient, reference, count, decision);
  }
}

}  // namespace weft_rl

// Adds to three sums of each group: products of gradients with themselves, of both, of references.
extern "C" int weft_rl_products(void* const* given, char* sums, int threads) {
  const weft_rl::Table table(given);
  const int64_t pieces = table.pieces();
  std::vector<double> found(3 * pieces);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t number = 0; number < pieces; number++) {
    const weft_rl::Piece piece = table.piece(number);
    weft_rl::with_types(piece, [&](auto* gradient, auto* reference) {
      weft_rl::products(gradient, reference, piece.count, &found[3 * number]);
    });
  }
  for (int64_t at = 0, number = 0; at < table.size; at++) {
    const weft_rl::Row& row = table.rows[at];
    double own[3] = {};
    for (; number < table.ends[at]; number++) {
      for (int k = 0; k < 3; k++) own[k] += found[3 * number + k];
    }
    for (int k = 0; k < 3; k++) ((double*)sums)[3 * row.group + k] += own[k] / row.copies;
  }
  return 0;
}

// Changes gradients and references in place, as each group's decision says.
extern "C" int weft_rl_advance(void* const* given, char* decisions, int threads) {
  const weft_rl::Table table(given);
  const int64_t pieces = table.pieces();
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t number = 0; number < pieces; number++) {
    const weft_rl::Piece piece = table.piece(number);
    const auto& decision = ((const weft_rl::Decision*)decisions)[piece.row->group];
    weft_rl::with_types(piece, [&](auto* gradient, auto* reference) {
      weft_rl::advance(gradient, reference, piece.count, decision);
    });
  }
  return 0;
}
