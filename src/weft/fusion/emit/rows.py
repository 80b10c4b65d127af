"""C++ of a nest whose places all lie in rows along its last axis, or are the same along it."""

from __future__ import annotations

from weft.fusion.emit.nest import NestWriter
from weft.fusion.schedule import LANES

__all__ = ["RowsWriter"]


class RowsWriter(NestWriter):
    """Writes a nest with vectors of the last axis innermost.

    Sums over the last axes are made in one vector for each unrolled body, added up at the end;
    sums over the axis before the last by having the vectors of the last one in the outer loop.

    Args: as of `NestWriter`.
    """

    def _loops(self, unroll: int) -> list[str]:
        self._is_turned = self._may_turn()
        return self._turned(unroll) if self._is_turned else self._straight(unroll)

    def _may_turn(self) -> bool:
        """Whether all sums are over the axis before the last, and not over the last."""
        axes = self._nest.axes
        return (
            len(axes) > 1
            and bool(self._reduced)
            and all(
                axes[-2] in self._over(number) and axes[-1] not in self._over(number)
                for number in self._reduced
            )
        )

    def _straight(self, unroll: int) -> list[str]:
        """Loops in the order of the axes, vectors innermost."""
        axes, lines = self._nest.axes, list[str]()
        together, single = self._together(unroll), self._body(0, is_rest=False)
        rest = self._body(0, is_rest=True)
        opened: dict[int, list[int]] = {}
        for number in self._reduced:
            opened.setdefault(self._depth(number), []).append(number)
        for depth in range(len(axes)):
            for number in opened.get(depth, ()):
                lines += self._registers(number, unroll)
            if depth < len(axes) - 1:
                lines.append(self._loop(axes[depth]))
        lines += self._values.before
        lines += self._lane_loop(together, single, rest, unroll)
        for depth in reversed(range(len(axes))):
            if depth < len(axes) - 1:
                lines.append("}")
            for number in opened.get(depth, ()):
                lines += self._finish(number, unroll)
        return lines

    def _turned(self, unroll: int) -> list[str]:
        """Vectors of the last axis outside of the loop over the one before it."""
        *outside, summed, _ = self._nest.axes
        together, single = self._together(unroll), self._body(0, is_rest=False)
        rest = self._body(0, is_rest=True)

        def around(body: list[str], count: int, is_rest: bool) -> list[str]:
            made = [line for number in self._reduced for line in self._registers(number, count)]
            made += [self._loop(summed), *self._values.before, "{", *body, "}", "}"]
            for number in self._reduced:
                for u in range(count):
                    made.append(self._put_lanes(number, u, is_rest))
            return made

        lines = [self._loop(axis) for axis in outside]
        lines += self._lane_loop(
            around(together, unroll, False), around(single, 1, False), around(rest, 1, True), unroll
        )
        return [*lines, *("}" for _ in outside)]

    def _lane_loop(
        self, together: list[str], single: list[str], rest: list[str], unroll: int
    ) -> list[str]:
        """Vectors side by side as far as they go, then single ones, then what is left of one."""
        axis = self._lane_axis
        low, high = self._bounds(axis)
        a, step = f"a{axis}", LANES * unroll
        lines = [f"int64_t {a} = {low};"]
        known, size = axis not in self._blocked, self._sizes[axis]
        if not known or size >= step:
            lines += [f"for (; {a} + {step} <= {high}; {a} += {step}) {{", *together, "}"]
        if unroll > 1 and (not known or size % step >= LANES):
            lines.append(f"for (; {a} + {LANES} <= {high}; {a} += {LANES}) {{")
            lines += [*single, "}"]
        if not known or size % LANES:
            lines.append(f"if ({a} < {high}) {{")
            lines.append(f"const int rest = int({high} - {a});")
            lines += [*rest, "}"]
        return lines
