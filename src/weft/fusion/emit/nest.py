"""C++ of one nest, whatever the order of its loops: its sums, what it keeps, what it stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from weft.fusion.emit.expressions import STORED, VECTOR, identity
from weft.fusion.emit.values import Values, Where
from weft.fusion.points import Address, Kind, Store
from weft.fusion.schedule import (
    LANES,
    Nest,
    Phase,
    Schedule,
    fetched_ahead,
    inner_axes,
)
from weft.program.types import DType

__all__ = ["NestWriter"]

HEAVY = 24.0
"""Vector instructions of a body up to which two are written next to one another; four for a quarter
of it. Derived: four chains of additions hide the latency of one, and registers are 32."""


class NestWriter(ABC):
    """Writes a nest.

    Sums are made in registers where the loops allow, else in a buffer.

    Args:
        schedule, phase, nest: what to write.
        where: where results of other nests are found, and those of this one are put.
        blocked: outer axes that are walked in blocks.
        rounds: sums over outer axes that are made in rounds.
        crossing: places that are transposed in squares.
    """

    def __init__(
        self,
        schedule: Schedule,
        phase: Phase,
        nest: Nest,
        where: Mapping[int, Where],
        blocked: frozenset[int],
        rounds: frozenset[int],
        crossing: frozenset[tuple[int, Address]],
    ) -> None:
        self._rounds = rounds
        ahead = fetched_ahead(schedule, phase, nest)
        self._crossing = crossing
        self._values = Values(schedule, nest, where, blocked, crossing, ahead)
        self._schedule = schedule
        self._points = schedule.points.points
        self._sizes = schedule.points.sizes
        self._phase = phase
        self._nest = nest
        self._where = where
        self._blocked = blocked
        self._reduced = [n for n in nest.points if self._points[n].kind is Kind.REDUCE]
        self._streams = schedule.streams
        self._buffers = schedule.buffers
        self._is_turned = False
        self._num_beside = 1

    def run(self) -> list[str]:
        """The lines."""
        if not self._nest.axes:
            return ["{", *self._plain_body(), "}"]
        self._body(0, is_rest=False)  # tells what it weighs
        weight = self._values.weight
        unroll = 4 if weight <= HEAVY / 4 else 2 if weight <= HEAVY else 1
        self._values.forget()
        return ["{", *self._begin_in_memory(), *self._loops(unroll), "}"]

    # --- loops -----------------------------------------------------------------------------

    @property
    def _lane_axis(self) -> int:
        return self._nest.axes[-1]

    def _loop(self, axis: int) -> str:
        low, high = self._bounds(axis)
        return f"for (int64_t a{axis} = {low}; a{axis} < {high}; a{axis}++) {{"

    def _bounds(self, axis: int) -> tuple[str, str]:
        if axis in self._blocked:
            return f"lo{axis}", f"hi{axis}"
        return "0", str(self._sizes[axis])

    @abstractmethod
    def _loops(self, unroll: int) -> list[str]:
        """All loops, with so many vectors side by side where there are as many."""

    def _together(self, count: int) -> list[str]:
        """Bodies of so many vectors side by side."""
        self._num_beside = count
        bodies = [self._body(u, is_rest=False) for u in range(count)]
        self._num_beside = 1
        held = [f"vf {self._held(at)};" for at, _ in self._in_lines(count)]
        return [*held, *(line for body in bodies for line in ["{", *body, "}"])]

    # --- reductions ------------------------------------------------------------------------

    def _over(self, number: int) -> tuple[int, ...]:
        """Axes of this nest that a reduction sums over."""
        return tuple(axis for axis in self._nest.axes if axis in self._points[number].over)

    def _depth(self, number: int) -> int:
        """How many loops are around the sum in registers; as many as axes if there is none."""
        depth = len(self._nest.axes)
        while depth and self._nest.axes[depth - 1] in self._over(number):
            depth -= 1
        return depth

    def _is_complete(self, number: int) -> bool:
        """Whether what comes out of the registers is the whole sum."""
        over = self._over(number)
        if self._is_turned:
            return len(over) == 1
        return len(over) == len(self._nest.axes) - self._depth(number)

    def _begin_in_memory(self) -> list[str]:
        lines: list[str] = []
        for number in self._reduced:
            own, where = self._points[number], self._where[number]
            if where.buffer and not self._is_complete(number):
                start = identity(own.op, self._values.plain(own.dtype))
                lines.append(
                    f"for (int64_t k = 0; k < {self._extent(number)}; k++) {where.buffer}[k] = "
                    f"{start};"
                )
        return lines

    def _extent(self, number: int) -> int:
        block = {own.axis: own.block for own in self._phase.outer if own.block > 1}
        found = 1
        for axis in inner_axes(self._points[number].axes, self._phase.outer):
            found *= min(block.get(axis, self._sizes[axis]), self._sizes[axis])
        return found

    def _start(self, number: int) -> str:
        """A vector to begin a sum with."""
        own = self._points[number]
        return f"all({identity(own.op, self._values.plain(own.dtype))})"

    def _pair(self, number: int, a: str, b: str) -> str:
        """Two summands joined."""
        return f"({a} + {b})" if self._points[number].op == "sum" else f"maximum({a}, {b})"

    def _registers(self, number: int, unroll: int) -> list[str]:
        if not self._is_turned and self._depth(number) == len(self._nest.axes):
            return []
        vector, start = VECTOR[self._points[number].dtype], self._start(number)
        return [f"{vector} r{number}_{u} = {start};" for u in range(unroll)]

    def _finish(self, number: int, unroll: int) -> list[str]:
        """Registers and their lanes added up, and put where they belong."""
        own, where = self._points[number], self._where[number]
        if self._depth(number) == len(self._nest.axes):
            return []
        parts = [f"r{number}_{u}" for u in range(unroll)]
        while len(parts) > 1:
            half = len(parts) // 2
            pairs = zip(parts[:half], parts[half:], strict=True)
            parts = [self._pair(number, a, b) for a, b in pairs]
        total = f"lanes_{'sum' if own.op == 'sum' else 'maximum'}({parts[0]})"
        if VECTOR[own.dtype] == "vm":
            total = f"any_lane({parts[0]})"
        if where.number:
            return [f"{where.number} = {total};"]
        place = self._place(number)
        if where.buffer and self._is_complete(number):
            return [f"{place} = {total};"]
        return [f"{place} = {self._pair(number, place, total)};"]

    def _place(self, number: int) -> str:
        """Element of the buffer of a reduction."""
        name = self._where[number].buffer or self._sum_name(number)
        return f"{name}[{self._values.index(self._where[number], without=-1)}]"

    def _sum_name(self, number: int) -> str:
        return f"{'round' if number in self._rounds else 'sum'}{number}"

    def _lanes_of_buffer(self, number: int) -> str:
        """Pointer to the elements of a reduction's buffer that the lanes are."""
        where = self._where[number]
        assert where.strides.get(self._lane_axis) == 1, "sums of lanes lie next to one another"
        name = where.buffer or self._sum_name(number)
        base = self._values.index(where, without=self._lane_axis)
        return f"{name} + {base} + {self._values.step_in(where, self._lane_axis)}"

    def _put_lanes(self, number: int, u: int, is_rest: bool) -> str:
        """A register of a turned nest, put into the buffer."""
        pointer = self._lanes_of_buffer(number) + (f" + {LANES * u}" if u else "")
        tail, value = ", rest" if is_rest else "", f"r{number}_{u}"
        if not self._where[number].buffer or not self._is_complete(number):
            value = self._pair(number, f"load({pointer}{tail})", value)
        return f"store({pointer}, {value}{tail});"

    def _add_up(self, number: int, u: int, is_rest: bool, lines: list[str]) -> None:
        """Add a vector to a reduction."""
        own = self._points[number]
        value = self._values.value(own.args[0], lines, is_rest, own.dtype)
        if self._is_turned or self._depth(number) < len(self._nest.axes):
            name = f"r{number}_{u}"
            if is_rest and not self._is_turned:
                value = f"choose(first_lanes(rest), {value}, {self._start(number)})"
            lines.append(f"{name} = {self._pair(number, name, value)};")
            return
        pointer, tail = self._lanes_of_buffer(number), ", rest" if is_rest else ""
        total = self._pair(number, f"load({pointer}{tail})", value)
        lines.append(f"store({pointer}, {total}{tail});")

    # --- bodies ----------------------------------------------------------------------------

    def _plain_body(self) -> list[str]:
        """Plain numbers, one after the other."""
        values, lines = self._values, list[str]()
        for number in self._nest.points:
            own = self._points[number]
            if own.kind is Kind.REDUCE:  # over outer axes only
                value, place = values.number(own.args[0], lines, own.dtype), self._place(number)
                lines.append(f"{place} = {self._pair(number, place, value)};")
            else:
                lines.append(f"{self._where[number].number} = {values.made_number(number, lines)};")
        for store in self._nest.stores:
            value = values.number(store.point, lines, self._points[store.point].dtype)
            lines.append(f"put({values.pointer(store.buffer, store.address)}, {value});")
        return [*values.before, *lines]

    def _body(self, u: int, *, is_rest: bool) -> list[str]:
        """What one vector takes.

        Args:
            u: number of the vector in an unrolled loop.
            is_rest: whether it is the last one of an axis, of which only `rest` lanes count.
        """
        lines: list[str] = []
        self._values.begin_body(u)
        if u:
            a = f"a{self._lane_axis}"
            lines.append(f"const int64_t shifted = {a} + {LANES * u};")
            lines.append(f"const int64_t {a} = shifted;")
        tail = ", rest" if is_rest else ""
        for number in self._nest.points:
            own, where = self._points[number], self._where[number]
            if own.kind is Kind.REDUCE:
                self._add_up(number, u, is_rest, lines)
                continue
            value = self._values.value(number, lines, is_rest, own.dtype)
            base = self._values.index(where, without=self._lane_axis)
            step = self._values.step_in(where, self._lane_axis)
            lines.append(f"store({where.buffer} + {base} + {step}, {value}{tail});")
        in_lines = dict(self._in_lines(self._num_beside))
        for at, store in enumerate(self._nest.stores):
            if at in in_lines:
                lines.append(self._stored_in_lines(at, in_lines[at], lines, u))
            else:
                lines.append(self._stored(store, lines, is_rest, u))
        return lines

    def _in_lines(self, count: int) -> list[tuple[int, Store]]:
        """Stores of which two vectors fill a line, where so many are side by side."""
        if count % 2:
            return []
        return [
            (at, store)
            for at, store in enumerate(self._nest.stores)
            if self._streams
            and self._points[store.point].dtype in (DType.BF16, DType.F16)
            and self._is_output(store.buffer)
            and store.address.stride(self._lane_axis) == 1
        ]

    def _held(self, at: int) -> str:
        """Name of the first half of a line that the store of this number writes."""
        return f"half{at}_"

    def _stored_in_lines(self, at: int, store: Store, lines: list[str], u: int) -> str:
        """Every second vector of a store is held until the next fills the line."""
        value = self._values.value(store.point, lines, False, self._points[store.point].dtype)
        if not u % 2:
            return f"{self._held(at)} = {value};"
        base = self._values.base(store.buffer, store.address)
        place = f"{base} + a{self._lane_axis} - {LANES}"
        how = self._exact(store) or STORED[self._points[store.point].dtype]
        return f"stream_two({place}, {self._held(at)}, {value}, {how}{{}});"

    def _exact(self, store: Store) -> str:
        """In C++, as what numbers are stored that are rounded already; empty if they are not."""
        own = self._points[store.point]
        return "exact_bf16" if own.op == "cast" and own.dtype is DType.BF16 else ""

    def _is_output(self, buffer: int) -> bool:
        return self._buffers[buffer].name.startswith("out")

    def _stored(self, store: Store, lines: list[str], is_rest: bool, u: int) -> str:
        own = self._points[store.point]
        stride = store.address.stride(self._lane_axis)
        assert stride, "a store walks the lanes of its nest"
        value = self._values.value(store.point, lines, is_rest, own.dtype)
        exact = self._exact(store)
        if (store.buffer, store.address) in self._crossing:
            name = self._values.square(
                store.buffer, store.address, own.dtype, is_load=False, exact=exact
            )
            return f"{name}{u}[k] = {value};"
        base = self._values.base(store.buffer, store.address)
        a, tail = f"a{self._lane_axis}", ", rest" if is_rest else ""
        if stride == 1:
            past = self._streams and not is_rest and self._is_output(store.buffer)
            how = "store_exact" if exact else "stream" if past else "store"
            return f"{how}({base} + {a}, {value}{tail});"
        return f"store_apart({base} + {a} * {stride}, {stride}, {value}{tail});"
