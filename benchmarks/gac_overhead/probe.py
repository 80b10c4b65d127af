"""The memory traffic of GAC's two passes and next to nothing else, as fast as it could be made.

The first pass reads two arrays and adds up their bits; the second reads both and writes both. It
knows bytes, not numbers, so it is the same for all types.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weft.fusion.cache import folder
from weft.fusion.compile import build, load
from weft.fusion.emit.cpp import Source

__all__ = ["Probe"]

CODE = """
#include <algorithm>
#include <vector>
namespace WAY {
using namespace weft;
constexpr int64_t PIECE = 1 << 18, LINE = 64;
struct Piece { char* __restrict one; char* __restrict other; int64_t bytes; };
static std::vector<Piece> pieces(void* const* given) {
  const int64_t* numbers = (const int64_t*)given;
  std::vector<Piece> found;
  for (int64_t i = 0; i < numbers[0]; i++) {
    const int64_t *row = numbers + 1 + 3 * i, bytes = row[2] / LINE * LINE;
    for (int64_t at = 0; at < bytes; at += PIECE) {
      found.push_back({(char*)row[0] + at, (char*)row[1] + at, std::min(PIECE, bytes - at)});
    }
  }
  return found;
}
static int read(const Piece& p) {
  vi sums[4] = {};
  int64_t at = 0;
  for (; at + 4 * LINE <= p.bytes; at += 4 * LINE) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
      const int64_t here = at + k * LINE;
      sums[k] = sums[k] + (load((int32_t*)(p.one + here)) ^ load((int32_t*)(p.other + here)));
    }
  }
  int32_t all[LANES], sum = 0;
  store(all, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (int k = 0; k < LANES; k++) sum += all[k];
  return sum;
}
static void change(const Piece& p, vi bits) {
  for (int64_t at = 0; at < p.bytes; at += LINE) {
    const vi one = load((int32_t*)(p.one + at)), other = load((int32_t*)(p.other + at));
    store((int32_t*)(p.one + at), one ^ bits);
    store((int32_t*)(p.other + at), other ^ bits);
  }
}
}
extern "C" int probe_WAY(void* const* given, char* bits, int threads) {
  using namespace WAY;
  const auto found = pieces(given);
  const int64_t size = found.size();
  int sum = 0;
#pragma omp parallel for num_threads(threads) schedule(WAY) reduction(+:sum)
  for (int64_t i = 0; i < size; i++) sum += read(found[i]);
  // What is written depends on what was read, as with GAC; it is what was there.
  const vi same = all(*(int32_t*)bits & sum);
#pragma omp parallel for num_threads(threads) schedule(WAY)
  for (int64_t i = 0; i < size; i++) change(found[i], same);
  return 0;
}
"""
SCHEDULES = ("static", "dynamic")


class Probe:
    """Both passes over pairs of tensors; what they hold stays the same.

    Args:
        pairs: tensors of equal size, whose bytes are a multiple of eight.
    """

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        numbers = array("q", (len(pairs),))
        for one, other in pairs:
            numbers.extend((one.data_ptr(), other.data_ptr(), one.nbytes))
        self._numbers = numbers.tobytes()
        self._bits = torch.zeros(1, dtype=torch.int64)
        sources = [
            Source(
                # The word is that of OpenMP in two places, and otherwise part of a name.
                text=re.sub(r"(?<!schedule\()\bWAY\b", f"{name}_way", CODE)
                .replace("schedule(WAY)", f"schedule({name})")
                .replace("probe_WAY", f"probe_{name}"),
                name=f"probe_{name}",
                shared_bytes=0,
                thread_bytes=0,
            )
            for name in SCHEDULES
        ]
        path = build(sources, folder())
        self.ways: dict[str, Callable[[], int]] = {
            name: self._way(load(path, f"probe_{name}")) for name in SCHEDULES
        }

    def _way(self, kernel: Callable[..., int]) -> Callable[[], int]:
        return lambda: kernel(self._numbers, self._bits.data_ptr(), torch.get_num_threads())
