"""C++ of a nest with places whose elements lie together along the axis before the last one."""

from __future__ import annotations

from weft.fusion.emit.expressions import STORED, VECTOR
from weft.fusion.emit.nest import NestWriter
from weft.fusion.emit.values import Square
from weft.fusion.schedule import LANES, fits_own_cache

__all__ = ["SquaresWriter"]

TALL = 128
"""Rows of squares that are written one behind the other before those beside them. Measured: where
rows are pages apart, 256 bytes on end take two thirds of the time that single lines do (AMD
EPYC)."""


class SquaresWriter(NestWriter):
    """Writes a nest in squares: sixteen values of the last axis times sixteen of the one before it.

    What lies in memory along the axis before the last is read and written in vectors along that,
    and transposed in registers. Where rows of one or two bytes are written, two squares lie side
    by side: two vectors of 16 bits are a line of memory, which is written whole. Beyond a core's
    own cache the next columns are fetched meanwhile: each line is in a row of its own, which no
    processor foresees.

    Args: as of `NestWriter`.
    """

    def _loops(self, unroll: int) -> list[str]:
        *outside, _, _ = self._nest.axes
        opened = [n for n in self._reduced if self._depth(n) < len(self._nest.axes)]
        assert all(self._depth(n) <= len(outside) for n in opened)
        lines: list[str] = []
        for depth, axis in enumerate([*outside, -1]):
            for number in opened:
                if self._depth(number) == depth:
                    lines += self._registers(number, self._wide)
            if axis >= 0:
                lines.append(self._loop(axis))
        lines += self._square_loops()
        for depth in reversed(range(len(outside) + 1)):
            if depth < len(outside):
                lines.append("}")
            for number in opened:
                if self._depth(number) == depth:
                    lines += self._finish(number, self._wide)
        return lines

    def _square_loops(self) -> list[str]:
        other, lane = self._nest.axes[-2:]
        (low, high), (lane_low, lane_high) = self._bounds(other), self._bounds(lane)
        wide = self._wide
        self._values.further = 0 if fits_own_cache(self._schedule.points) else LANES * wide
        whole, rest = self._together(wide), self._body(0, is_rest=True)
        squares = self._values.squares.values()
        step = LANES * (2 if any(square.is_in_pairs for square in squares) else 1)
        across = LANES * wide
        lines = [
            f"for (int64_t tall = {low}; tall < {high}; tall += {TALL}) {{",
            f"for (int64_t c = {lane_low}; c < {lane_high}; c += {across}) {{",
            f"for (int64_t q = tall; q < tall + {TALL} && q < {high}; q += {step}) {{",
        ]
        at_c = f"const int64_t a{lane} = c;"
        if self._is_multiple(other, step) and self._is_multiple(lane, across):
            return [*lines, at_c, *self._squares(whole, step, wide), "}", "}", "}"]
        return [
            *lines,
            f"if (q + {step} <= {high} && c + {across} <= {lane_high}) {{",
            at_c,
            *self._squares(whole, step, wide),
            "continue;",
            "}",
            f"for (int64_t d = c; d < c + {across} && d < {lane_high}; d += {LANES}) {{",
            f"const int64_t a{lane} = d;",
            f"const int rest = {lane_high} - d < {LANES} ? int({lane_high} - d) : {LANES};",
            f"for (int64_t e = q; e < q + {step} && e < {high}; e += {LANES}) {{",
            f"const int rows = {high} - e < {LANES} ? int({high} - e) : {LANES};",
            *self._squares(rest, 0, 1),
            *("}" for _ in range(5)),
        ]

    @property
    def _wide(self) -> int:
        """Vectors side by side in squares: two where rows of small elements are written."""
        lane = self._nest.axes[-1]
        places = [(store.buffer, store.address) for store in self._nest.stores]
        rows = [place for place in places if place[1].stride(lane) == 1]
        return 2 if any(self._buffers[buffer].dtype.num_bytes <= 2 for buffer, _ in rows) else 1

    def _is_multiple(self, axis: int, step: int) -> bool:
        """Whether an axis, or each block of one, has a multiple of so many values."""
        blocks = {own.axis: own.block for own in self._phase.outer if own.block > 1}
        size = self._sizes[axis]
        return size % step == 0 and blocks.get(axis, size) % step == 0

    def _squares(self, body: list[str], rows: int, wide: int) -> list[str]:
        """One square of each access, or several of so many rows, one behind the other.

        Args:
            body: of a vector, or of several side by side.
            rows: how many; 0 for a square of which only `rows` and `rest` count.
            wide: vectors side by side.
        """
        other = self._nest.axes[-2]
        at = "q" if rows else "e"
        before: list[str] = []
        after: list[str] = []
        for u in range(wide):
            loads: list[str] = []
            stores: list[str] = []
            for name, access in self._values.squares.items():
                before.append(f"{VECTOR[access.dtype]} {name}{u}[{rows or LANES}];")
                own = loads if access.is_load else stores
                own += self._moved_squares(f"{name}{u}", access, rows, at)
            before += self._shifted(u, loads)
            after += self._shifted(u, stores)
        return [
            *before,
            f"for (int k = 0; k < {rows or 'rows'}; k++) {{",
            f"const int64_t a{other} = {at} + k;",
            *self._values.before,
            *body,
            "}",
            *after,
        ]

    def _shifted(self, u: int, lines: list[str]) -> list[str]:
        """Lines for the vector that lies so many vectors further along the lanes."""
        if not u or not lines:
            return lines
        a = f"a{self._lane_axis}"
        moved = [f"const int64_t shifted = {a} + {LANES * u};", f"const int64_t {a} = shifted;"]
        return ["{", *moved, *lines, "}"]

    def _moved_squares(self, name: str, access: Square, rows: int, at: str) -> list[str]:
        """Squares of an access, one behind the other, between memory and vectors."""
        corner, stride = self._corner(access, at), access.stride
        tail = "" if rows else ", rest, rows"
        past = self._streams and self._is_output(access.buffer) and not access.is_load
        if access.is_in_pairs and rows:
            how = f"{'true' if past else 'false'}, {access.exact or STORED[access.dtype]}"
            return [f"store_two_squares<{how}>({corner}, {stride}, {name});"]
        lines: list[str] = []
        for row in range(0, rows or LANES, LANES):
            square, place = f"{name} + {row}", f"{corner} + {row}"
            if not access.is_load:
                how = "true" if past else "false"
                lines.append(f"store_square<{how}>({place}, {stride}, {square}{tail});")
                continue
            if rows and self._values.further:
                further = self._values.further * stride
                lines.append(f"ask_for_square({place} + {further}, {stride});")
            lines.append(f"load_square({square}, {place}, {stride}{tail});")
        return lines

    def _corner(self, access: Square, at: str) -> str:
        """Pointer to the first element of a square."""
        other = self._nest.axes[-2]
        pointer = self._values.pointer(access.buffer, access.address)
        return pointer.replace(f"a{other} * 1", at)
