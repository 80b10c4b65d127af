// The least that a graph's memory traffic takes: one pass that reads every input once and
// writes every output once, and computes next to nothing.

#include <cstdint>

namespace {

// Of all buffers together: little enough that they advance side by side, as in a fused loop, and
// much enough that each of them is met in long runs.
constexpr int64_t kSliceWords = 4 * 1024;

constexpr uint64_t kHalves = 0x3f0000003f000000;  // twice 0.5

// Where slice `at` of `slices` starts in a buffer of `words`.
inline int64_t start(int64_t words, int64_t at, int64_t slices) {
  return static_cast<int64_t>(static_cast<__int128>(words) * at / slices);
}

inline uint64_t read(const uint64_t* from, int64_t words) {
  uint64_t sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < words; i++) sum += from[i];
  return sum;
}

// Plain stores. The words are no repetition of one byte, which compilers would hand to memset and
// that may then take other ways to memory.
inline void write(uint64_t* to, int64_t words, uint64_t value) {
#pragma omp simd
  for (int64_t i = 0; i < words; i++) to[i] = value;
}

}  // namespace

// Buffers count in words of eight bytes; what is left of one at its end is too little to matter.
// The sum is returned so that no compiler takes the reads away.
extern "C" uint64_t probe(const uint64_t* const* inputs, const int64_t* input_words,
                          int num_inputs, uint64_t* const* outputs, const int64_t* output_words,
                          int num_outputs, int threads) {
  int64_t words = 0;
  for (int n = 0; n < num_inputs; n++) words += input_words[n];
  for (int n = 0; n < num_outputs; n++) words += output_words[n];
  const int64_t slices = words / kSliceWords + threads;
  uint64_t total = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : total)
  for (int64_t s = 0; s < slices; s++) {
    uint64_t sum = 0;
    for (int n = 0; n < num_inputs; n++) {
      const int64_t low = start(input_words[n], s, slices);
      sum += read(inputs[n] + low, start(input_words[n], s + 1, slices) - low);
    }
    total += sum;
    // Written values do not depend on the read ones: stores need not wait for the last load.
    for (int n = 0; n < num_outputs; n++) {
      const int64_t low = start(output_words[n], s, slices);
      write(outputs[n] + low, start(output_words[n], s + 1, slices) - low, kHalves);
    }
  }
  return total;
}
