"""The text of one Triton kernel: a phase, done by programs in tiles.

A value is a tensor with a dim for each axis of the tile, of size 1 where it does not vary; so
values of one program meet by broadcasting, and all nests of a phase are one sequence of statements,
each point computed once. Where axes are walked in chunks, what varies along them is computed in
each nest's loop anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from weft.core.errors import VerifyError
from weft.fusion.emit.tiles import WANTED, Tiles
from weft.fusion.emit.triton_expressions import (
    COMPUTED,
    applied,
    begin,
    literal,
    paired,
    reduced,
)
from weft.fusion.points import Address, Const, Kind, Point, Points, Ref, Store, argument_type
from weft.fusion.schedule import Nest, Outer, Phase, computed
from weft.program.types import DType

__all__ = ["OUTSIDE", "KernelWriter", "Part"]

WIDE = 2**31
"""Elements from which on places do not fit into 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where programs write their shares of a sum.

    Attributes:
        buffer: number of the buffer: [parts, elements of the result].
        strides: of the result's axes.
        elements: of the result.
    """

    buffer: int
    strides: Mapping[int, int]
    elements: int


@dataclass
class _Scope:
    """Statements at one depth of loops, and what they have made.

    While a loop inside is being written, what it needs of this depth goes before it.
    """

    loops: tuple[int, ...]
    lines: list[str | _Scope] = field(default_factory=list["str | _Scope"])
    names: dict[int, str] = field(default_factory=dict[int, str])
    before: int | None = None

    def add(self, *lines: str) -> None:
        """More statements."""
        for line in lines:
            if self.before is None:
                self.lines.append(line)
            else:
                self.lines.insert(self.before, line)
                self.before += 1

    def open(self, loop: str, inside: _Scope) -> None:
        """A loop, which is not done yet."""
        self.before = len(self.lines)
        self.lines += [loop, inside]

    def close(self) -> None:
        """The loop is done."""
        self.before = None

    def text(self, indent: int) -> list[str]:
        """The lines, with loops inside."""
        found: list[str] = []
        for line in self.lines:
            if isinstance(line, str):
                found.append("    " * indent + line)
            else:
                found += line.text(indent + 1)
        return found


class KernelWriter:
    """Writes a kernel.

    Args:
        name: of its function.
        points: of the region, with what programs hand to one another.
        phase, tiles: what to write.
        memory: where points of other phases are.
        same: points that stand for others.
        parts: where sums over the grid go.
    """

    def __init__(
        self,
        name: str,
        points: Points,
        phase: Phase,
        tiles: Tiles,
        memory: Mapping[int, Store],
        same: Mapping[int, int],
        parts: Mapping[int, Part],
    ) -> None:
        self._name = name
        self._whole = points
        self._points = points.points
        self._sizes = points.sizes
        self._phase = phase
        self._tiles = tiles
        self._memory = memory
        self._same = same
        self._parts = parts
        self._rank = max(len(tiles.dims), 1)
        self._ones = f"[{', '.join(['1'] * self._rank)}]"
        self._used: dict[int, None] = {}
        self._top = _Scope(())
        self._step = self._top
        self._open: list[_Scope] = []
        self._invariant: dict[int, bool] = {}
        self._walked = {own.axis for own in tiles.grid} - set(tiles.fixed)

    def run(self) -> tuple[str, tuple[str, ...]]:
        """The kernel, and the names of the buffers that it takes, in order."""
        self._begin()
        if self._tiles.stages > 1:
            self._load_ahead()
        for nest in self._phase.nests:
            self._nest(nest)
        self._end()
        buffers = tuple(self._whole.buffers[n].name for n in self._used)
        lines = ["@triton.jit", f"def {self._name}({', '.join(buffers)}):"]
        return "\n".join([*lines, *self._top.text(1)]) + "\n", buffers

    # --- indices ---------------------------------------------------------------------------

    @cached_property
    def _is_wide(self) -> bool:
        return any(buffer.num_elements >= WIDE for buffer in self._whole.buffers)

    def _begin(self) -> None:
        """The values of the grid's axes, and the loop over blocks that a program does."""
        top, tiles, sizes = self._top, self._tiles, self._sizes
        program = "tl.program_id(0)" + (".to(tl.int64)" if self._is_wide else "")
        top.add(f"program = {program}")
        top.add(f"zero = tl.full({self._ones}, 0, tl.int32)")
        fixed = [own for own in tiles.grid if own.axis in tiles.fixed]
        rest = "program" if tiles.parts == 1 else f"program // {tiles.parts}"
        self._grid_values(top, fixed, rest)
        for axis in self._tiles.dims:
            if axis not in tiles.looped and axis not in {own.axis for own in tiles.grid}:
                self._index(top, axis, "")
        for number in self._phase.across:
            self._begin_sum(top, number)
        walked = [own for own in tiles.grid if own.axis in self._walked]
        if not walked:
            return
        total = tiles.blocks(self._walked, sizes)
        part = f"program % {tiles.parts}"
        if tiles.steps > 1:
            self._step = _Scope(())
            top.add(f"first = {part} * {tiles.steps}")
            last = f"tl.minimum(first + {tiles.steps}, {total})"
            top.open(f"for at in {self._range('first', last)}:", self._step)
            part = "at"
        self._grid_values(self._step, walked, part)

    def _range(self, *bounds: int | str) -> str:
        """What a loop walks, with loads of later rounds under way where that is wanted."""
        words = ", ".join(map(str, bounds))
        stages = self._tiles.stages
        return f"tl.range({words}, num_stages={stages})" if stages > 1 else f"range({words})"

    def _load_ahead(self) -> None:
        """Begin to read all that is read outside of loops: sums are where threads wait."""
        for number in computed(self._whole, self._phase):
            point = self._points[number]
            if point.kind is Kind.LOAD and not self._tiles.looped & set(point.axes):
                self._value(number, point.dtype)

    def _grid_values(self, scope: _Scope, grid: Sequence[Outer], rest: str) -> None:
        for own in reversed(grid):
            count = -(-self._sizes[own.axis] // own.block)
            value = f"({rest})" if own is grid[0] else f"({rest}) % {count}"
            if own.block == 1:
                scope.add(f"i{own.axis} = {value}")
            else:
                self._index(scope, own.axis, f"{value} * {own.block}")
            rest = f"({rest}) // {count}"

    def _index(self, scope: _Scope, axis: int, start: str) -> None:
        """The values of an axis of the tile, and which of them there are."""
        span = self._tiles.spans[axis]
        dims = ", ".join(":" if dim == axis else "None" for dim in self._tiles.dims)
        lanes = f"tl.arange(0, {span})" + (f"[{dims}]" if self._rank > 1 else "")
        if self._is_wide:
            lanes += ".to(tl.int64)"
        scope.add(f"i{axis} = {f'{start} + ' if start else ''}{lanes}")
        if self._is_ragged(axis):
            scope.add(f"m{axis} = i{axis} < {self._sizes[axis]}")

    def _is_ragged(self, axis: int) -> bool:
        return axis in self._tiles.spans and self._sizes[axis] % self._tiles.spans[axis] != 0

    def _mask(self, axes: Collection[int]) -> str:
        """Which elements of a value with these axes there are; empty if all are."""
        found = [f"m{axis}" for axis in self._tiles.dims if axis in axes and self._is_ragged(axis)]
        return " & ".join(found)

    def _place(self, buffer: int, address: Address, more: str = "") -> str:
        """Pointers to an address, in a dim for each axis of the tile."""
        self._used.setdefault(buffer)
        words = [f"i{axis}" + (f" * {s}" if s != 1 else "") for axis, s in address.strides]
        if address.offset:
            words.append(str(address.offset))
        if more:
            words.append(more)
        if not any(axis in self._tiles.spans for axis, _ in address.strides):
            words.append("zero")
        return f"{self._whole.buffers[buffer].name} + ({' + '.join(words)})"

    def _shape(self, axes: Collection[int]) -> str:
        """The shape of a value with these axes."""
        spans = [self._tiles.spans[a] if a in axes else 1 for a in self._tiles.dims] or [1]
        return f"[{', '.join(map(str, spans))}]"

    # --- values ----------------------------------------------------------------------------

    def _scope_of(self, number: int) -> _Scope:
        """Where a point is computed: outside of all loops along which it does not vary."""
        loops = set(self._points[number].axes) & self._tiles.looped
        if not loops:
            return self._top if self._is_invariant(number) else self._step
        for scope in self._open:
            if loops <= set(scope.loops):
                return scope
        raise VerifyError(
            need="values of chunks in the loops over them",
            got=f"point {number} outside of a loop over {sorted(loops)}",
            hint="leave the region to Inductor",
        )

    def _is_invariant(self, number: int) -> bool:
        """Whether a value is the same in all blocks that a program does."""
        if number not in self._invariant:
            point = self._points[number]
            given = point.kind is not Kind.REDUCE or number in self._memory
            self._invariant[number] = (
                given
                and not self._walked & set(point.axes)
                and all(self._is_invariant(self._same.get(n, n)) for n in self._reads(number))
            )
        return self._invariant[number]

    def _reads(self, number: int) -> tuple[int, ...]:
        return () if number in self._memory else self._points[number].reads

    def _value(self, ref: Ref, dtype: DType) -> str:
        """The name of a value, which is computed where it has to be."""
        if isinstance(ref, Const):
            return literal(ref.value, dtype, self._ones)
        number = self._same.get(ref, ref)
        if number in self._step.names:
            return self._step.names[number]
        scope = self._scope_of(number)
        if number not in scope.names:
            made = self._made(number)
            scope.add(f"v{number} = {made}")
            scope.names[number] = f"v{number}"
        return scope.names[number]

    def _made(self, number: int) -> str:
        own = self._points[number]
        store = self._memory.get(number)
        if store is not None:
            return self._loaded(store.buffer, store.address, own.axes)
        if own.kind is Kind.LOAD:
            return self._loaded(own.buffer, own.address, own.axes)
        if own.kind is Kind.IOTA:
            words = [f"i{axis} * {stride}" for axis, stride in own.address.strides]
            whole = " + ".join([*words, str(own.address.offset), "zero"])
            return f"({whole}).to({COMPUTED[own.dtype]})"
        if own.kind is Kind.LOOKUP:
            return self._looked_up(number, own)
        if own.kind is not Kind.MAP:
            raise VerifyError(
                need="sums before what reads them",
                got=f"{own.op} of point {number} in another order",
                hint="leave the region to Inductor",
            )
        args = tuple(
            self._value(arg, argument_type(self._points, own, at))
            for at, arg in enumerate(own.args)
        )
        return applied(own, args)

    def _loaded(self, buffer: int, address: Address, axes: Collection[int], more: str = "") -> str:
        mask = self._mask(axes)
        tail = f", mask={mask}, other=0" if mask else ""
        text = f"tl.load({self._place(buffer, address, more)}{tail})"
        return _computed(text, self._whole.buffers[buffer].dtype)

    def _looked_up(self, number: int, own: Point) -> str:
        (ref,) = own.args
        assert not isinstance(ref, Const)
        index = self._value(ref, self._points[ref].dtype)
        scope, mask = self._scope_of(number), self._mask(own.axes)
        inside = f"({index} >= 0) & ({index} < {own.limit})"
        own_mask = self._mask(self._points[ref].axes)
        padded = f" | ({own_mask} == 0)" if own_mask else ""
        scope.add(f'tl.device_assert(({inside}){padded}, "{OUTSIDE}")')
        where = f"inside{number}"
        scope.add(f"{where} = {inside}" + (f" & {mask}" if mask else ""))
        place = self._place(own.buffer, own.address, f"{index} * {own.step}")
        text = f"tl.load({place}, mask={where}, other=0)"
        return _computed(text, self._whole.buffers[own.buffer].dtype)

    # --- nests -----------------------------------------------------------------------------

    def _nest(self, nest: Nest) -> None:
        loops = [axis for axis in nest.axes if axis in self._tiles.looped]
        sums = [n for n in nest.points if self._points[n].kind is Kind.REDUCE]
        if not loops:
            self._body(nest, sums, self._step)
            return
        for number in sums:
            if number not in self._phase.across:
                self._begin_sum(self._step, number)
        scope = self._step
        for depth, axis in enumerate(loops):
            inner = _Scope(tuple(loops[: depth + 1]))
            span, size = self._tiles.spans[axis], self._sizes[axis]
            scope.open(f"for c{axis} in {self._range(0, size, span)}:", inner)
            self._index(inner, axis, f"c{axis}")
            self._open.append(inner)
            scope = inner
        self._body(nest, sums, scope)
        for opened in (self._step, *self._open):
            opened.close()
        self._open.clear()
        for number in sums:
            if number not in self._phase.across:
                self._step.add(f"v{number} = {self._total(number, f's{number}')}")
                self._step.names[number] = f"v{number}"

    def _body(self, nest: Nest, sums: Sequence[int], scope: _Scope) -> None:
        for number in sums:
            own = self._points[number]
            value = self._masked(number, self._value(own.args[0], own.dtype))
            if number in self._phase.across or scope is not self._step:
                part = value if self._is_late(number) else self._total(number, value)
                name = f"s{number}"
                scope.add(f"{name} = {paired(own.op, own.dtype, name, part)}")
            else:
                scope.add(f"v{number} = {self._total(number, value)}")
                scope.names[number] = f"v{number}"
        for store in nest.stores:
            self._store(store, scope)

    def _masked(self, number: int, value: str) -> str:
        """A summand, which changes nothing where there is none."""
        own = self._points[number]
        mask = self._mask(own.over)
        if not mask:
            return value
        return (
            f"tl.where({mask}, {value}, {literal(begin(own.op, own.dtype), own.dtype, self._ones)})"
        )

    def _is_late(self, number: int) -> bool:
        """Whether a sum over loops is made element by element, and added up behind them."""
        own = self._points[number]
        if self._tiles.looped & set(own.over):
            return True
        operand = self._points[own.reads[0]]
        most = max(2 * self._tiles.elements(own.axes), WANTED)
        return self._tiles.elements(operand.axes) <= most

    def _begin_sum(self, scope: _Scope, number: int) -> None:
        own = self._points[number]
        axes = (*own.axes, *own.over) if self._is_late(number) else own.axes
        start = literal(begin(own.op, own.dtype), own.dtype, self._shape(axes))
        scope.add(f"s{number} = {start}")

    def _total(self, number: int, value: str) -> str:
        """A sum along the dims of a tile."""
        own = self._points[number]
        for dim, axis in enumerate(self._tiles.dims):
            if axis in own.over:
                value = reduced(own.op, own.dtype, value, dim)
        return value

    def _store(self, store: Store, scope: _Scope) -> None:
        point = self._points[store.point]
        value = self._value(store.point, point.dtype)
        axes = {axis for axis, _ in store.address.strides}
        self._put(scope, store.buffer, self._place(store.buffer, store.address), value, axes)

    def _put(
        self, scope: _Scope, buffer: int, place: str, value: str, axes: Collection[int]
    ) -> None:
        mask = self._mask(axes)
        tail = f", mask={mask}" if mask else ""
        stored = _stored(value, self._whole.buffers[buffer].dtype)
        scope.add(f"tl.store({place}, {stored}{tail})")

    def _end(self) -> None:
        """Sums over the grid, each program's share."""
        self._top.close()
        for number in self._phase.across:
            own, part = self._points[number], self._parts[number]
            late = self._is_late(number)
            value = self._total(number, f"s{number}") if late else f"s{number}"
            index = self._part_index(own.axes)
            address = Address(0, tuple(sorted(part.strides.items())))
            place = self._place(part.buffer, address, f"({index}) * {part.elements}")
            self._put(self._top, part.buffer, place, value, own.axes)

    def _part_index(self, axes: Collection[int]) -> str:
        """Number of a program among those that share out a sum."""
        tiles, index = self._tiles, "0"
        for own in tiles.grid:
            if own.axis in tiles.fixed and own.axis not in axes:
                count = -(-self._sizes[own.axis] // own.block)
                index = f"({index}) * {count} + {self._block_number(own)}"
        return f"({index}) * {tiles.parts} + program % {tiles.parts}"

    def _block_number(self, own: Outer) -> str:
        fixed = [o for o in self._tiles.grid if o.axis in self._tiles.fixed]
        rest = f"program // {self._tiles.parts}"
        for other in reversed(fixed):
            count = -(-self._sizes[other.axis] // other.block)
            if other is own:
                return f"({rest}) % {count}"
            rest = f"({rest}) // {count}"
        raise AssertionError("an axis of the grid")


OUTSIDE = "an index is outside of the dim that it looks up"


def _computed(text: str, dtype: DType) -> str:
    """Elements from memory, in the type in which they are computed with."""
    if dtype is DType.BOOL:
        return f"({text} != 0)"
    same = dtype in (DType.F64, DType.F32, DType.I64, DType.I32)
    return text if same else f"{text}.to({COMPUTED[dtype]})"


def _stored(value: str, dtype: DType) -> str:
    """A value as it is in memory."""
    if dtype in (DType.BOOL, DType.U8):
        return f"{value}.to(tl.uint8)"
    if dtype is DType.BF16:
        return f"to_bfloat16({value}).to(tl.bfloat16)"
    return f"{value}.to(tl.float16)" if dtype is DType.F16 else value
