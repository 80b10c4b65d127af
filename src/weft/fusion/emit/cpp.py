"""C++ from a schedule: one function for a region, all phases in one parallel region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from weft.fusion.emit.expressions import PLAIN, STORED, VECTOR, identity
from weft.fusion.emit.rows import RowsWriter
from weft.fusion.emit.squares import SquaresWriter
from weft.fusion.emit.values import Where
from weft.fusion.points import Kind
from weft.fusion.schedule import Outer, Phase, Schedule, crossing_accesses, inner_axes

__all__ = ["Source", "emit"]

ALIGN = 64
"""Bytes to which parts of the scratch memory are aligned: a cache line."""


ROUND = 256
"""Outer values of a round. Derived: sums of n numbers in 256s lose about as many digits as sums of
256 and of n / 256, at the cost of one more addition in 256."""
MOST_IN_ROUNDS = 65_536
"""Elements up to which sums are made in rounds: larger ones are not added to so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Generated code.

    Attributes:
        text: C++; needs vec.h before it.
        name: of its function: (void* const* buffers, char* scratch, int threads) -> what was wrong.
        shared_bytes: of scratch memory [bytes].
        thread_bytes: of scratch memory for each thread [bytes].
    """

    text: str
    name: str
    shared_bytes: int
    thread_bytes: int


def emit(schedule: Schedule, name: str) -> Source:
    """The C++ of a schedule."""
    return _Writer(schedule, name).run()


class _Writer:
    def __init__(self, schedule: Schedule, name: str) -> None:
        self._schedule = schedule
        self._points = schedule.points
        self._name = name
        self._lines: list[str] = []
        self._shared = 0
        self._thread = 0
        self._where: dict[int, Where] = {}

    def run(self) -> Source:
        given = self._points.buffers
        head = [f'extern "C" int {self._name}(void* const* given, char* scratch, int threads) {{']
        for number, buffer in enumerate(given):
            own = STORED[buffer.dtype]
            const = "const " if buffer.name.startswith("in") else ""
            head.append(f"  {const}{own}* const {buffer.name} = ({own}*)given[{number}];")
        for buffer in self._schedule.buffers[len(given) :]:
            own = STORED[buffer.dtype]
            head.append(f"  {own}* const {buffer.name} = ({own}*)(scratch + {self._shared});")
            self._shared += _aligned(buffer.num_bytes)
        self._lines.append("  int wrong = 0;")
        several = self._schedule.threads > 1
        if several:
            may_be_wrong = any(point.kind is Kind.LOOKUP for point in self._points.points)
            joined = " reduction(|:wrong)" if may_be_wrong else ""
            self._lines.append(f"  #pragma omp parallel num_threads(threads){joined}")
        self._lines.append("  {")
        self._lines.append(f"    const int64_t t = {'omp_get_thread_num()' if several else 0};")
        self._lines.append(f"    const int64_t num = {'omp_get_num_threads()' if several else 1};")
        for point, store in self._schedule.shared.items():
            self._where[point] = Where(memory=store)
        for number, phase in enumerate(self._schedule.phases):
            if number and several:
                self._lines.append("    #pragma omp barrier")
            self._phase(number, phase)
        if self._schedule.streams:
            self._lines.append("    end_streams();")
        self._lines += ["  }", "  return wrong;", "}"]
        head.append("  char* const own_scratch = scratch + OWN;")
        body = "\n".join([*head, *self._lines]).replace("OWN", str(self._shared))
        body = body.replace("THREAD_BYTES", str(self._thread))
        return Source(
            text=body + "\n",
            name=self._name,
            shared_bytes=self._shared,
            thread_bytes=self._thread,
        )

    def _room(self, count: int, plain: str) -> int:
        """Scratch memory of each thread: where it begins [bytes]."""
        start = self._thread
        size = {"double": 8, "float": 4, "int64_t": 8, "int32_t": 4, "bool": 1}[plain]
        self._thread += _aligned(count * size + 64)
        return start

    def _phase(self, number: int, phase: Phase) -> None:
        points, sizes = self._points, self._points.sizes
        where = dict(self._where)
        lines: list[str] = []
        for point in phase.across:
            own = points.points[point]
            plain = PLAIN[VECTOR[own.dtype]]
            count = points.num_elements(own.axes)
            start = self._room(count, plain)
            lines += self._begin_sum(f"sum{point}", start, count, own.op, plain)
            if self._in_rounds(point, phase):
                lines += self._begin_sum(
                    f"round{point}", self._room(count, plain), count, own.op, plain
                )
            where[point] = Where(
                across=f"({plain}*)(own_scratch + {start})",
                strides=points.rows(self._schedule.in_order(own.axes)),
            )
        inside = {own.axis: own.block for own in phase.outer if own.block > 1}
        for point in sorted(self._kept(phase)):
            own = points.points[point]
            axes = inner_axes(self._schedule.in_order(own.axes), phase.outer)
            plain = PLAIN[VECTOR[own.dtype]]
            if not axes:
                where[point] = Where(number=f"n{point}")
                continue
            extents = [min(inside.get(axis, sizes[axis]), sizes[axis]) for axis in axes]
            start = self._room(prod(extents), plain)
            lines.append(f"    {plain}* const b{point} = ({plain}*)(mine + {start});")
            strides: dict[int, int] = {}
            step = 1
            for axis, extent in zip(reversed(axes), reversed(extents), strict=True):
                strides[axis] = step
                step *= extent
            where[point] = Where(buffer=f"b{point}", strides=strides)
        total = prod(-(-sizes[own.axis] // own.block) for own in phase.outer)
        self._lines.append(f"    {{  // phase {number}: {_outer_words(phase.outer, sizes)}")
        self._lines.append("    char* const mine = own_scratch + t * THREAD_BYTES;")
        self._lines.append("    (void)mine;")
        self._lines += lines
        self._lines.append(f"    const int64_t from = {total} * t / num;")
        self._lines.append(f"    const int64_t until = {total} * (t + 1) / num;")
        rounds = [point for point in phase.across if self._in_rounds(point, phase)]
        self._lines.append("    for (int64_t o = from; o < until; o++) {")
        self._lines += self._outer_values(phase.outer)
        for point in sorted(self._kept(phase)):
            if where[point].number:
                plain = PLAIN[VECTOR[points.points[point].dtype]]
                self._lines.append(f"      {plain} n{point};")
        blocked = frozenset(inside)
        for nest in phase.nests:
            crossing = crossing_accesses(self._schedule.points, phase, nest)
            kind = SquaresWriter if crossing else RowsWriter
            writer = kind(self._schedule, phase, nest, where, blocked, frozenset(rounds), crossing)
            self._lines += ["      " + line for line in writer.run()]
        self._lines += self._end_round(rounds)
        self._lines += ["    }", "    }"]
        for point in phase.across:
            self._where[point] = where[point]

    def _begin_sum(self, name: str, start: int, count: int, op: str, plain: str) -> list[str]:
        return [
            f"    {plain}* const {name} = ({plain}*)(mine + {start});",
            f"    for (int64_t k = 0; k < {count}; k++) {name}[k] = {identity(op, plain)};",
        ]

    def _in_rounds(self, point: int, phase: Phase) -> bool:
        """Whether a sum over many outer values is made in rounds, which keeps it accurate."""
        own, sizes = self._points.points[point], self._points.sizes
        times = prod(
            -(-sizes[outer.axis] // outer.block) for outer in phase.outer if outer.axis in own.over
        )
        few = self._points.num_elements(own.axes) <= MOST_IN_ROUNDS
        return own.op == "sum" and own.dtype.is_float and few and times > 2 * ROUND

    def _end_round(self, rounds: Sequence[int]) -> list[str]:
        """After so many outer values, what they add up to is added to the sum."""
        if not rounds:
            return []
        lines = [f"      if ((o - from) % {ROUND} == {ROUND - 1} || o == until - 1) {{"]
        for point in rounds:
            count = self._points.num_elements(self._points.points[point].axes)
            lines.append(
                f"      for (int64_t k = 0; k < {count}; k++) "
                f"{{ sum{point}[k] += round{point}[k]; round{point}[k] = 0; }}"
            )
        return [*lines, "      }"]

    def _kept(self, phase: Phase) -> set[int]:
        """Points with a number or a tile buffer."""
        reduced = {
            point
            for nest in phase.nests
            for point in nest.points
            if self._points.points[point].over and point not in phase.across
        }
        return set(phase.kept) | reduced

    def _outer_values(self, outer: Sequence[Outer]) -> list[str]:
        sizes, lines = self._points.sizes, list[str]()
        rest = "o"
        for own in reversed(outer):
            count = -(-sizes[own.axis] // own.block)
            last = own is outer[0]
            value = f"({rest})" if last else f"({rest}) % {count}"
            if own.block == 1:
                lines.append(f"      const int64_t a{own.axis} = {value};")
            else:
                lines.append(f"      const int64_t lo{own.axis} = ({value}) * {own.block};")
                lines.append(
                    f"      const int64_t hi{own.axis} = lo{own.axis} + {own.block} < "
                    f"{sizes[own.axis]} ? lo{own.axis} + {own.block} : {sizes[own.axis]};"
                )
            rest = f"({rest}) / {count}"
        return lines


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _outer_words(outer: Sequence[Outer], sizes: dict[int, int]) -> str:
    words = [
        f"{sizes[own.axis]}" + (f" in blocks of {own.block}" if own.block > 1 else "")
        for own in outer
    ]
    return " x ".join(words) or "once"
