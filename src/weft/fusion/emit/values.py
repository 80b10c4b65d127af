"""C++ of the values that a nest needs: vectors inside of its innermost loop, numbers before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from weft.fusion.emit.expressions import PLAIN, STORED, VECTOR, expression, literal, power
from weft.fusion.points import Address, Const, Kind, Point, Ref, Store, argument_type
from weft.fusion.schedule import Nest, Schedule
from weft.program.types import DType

__all__ = ["Values", "Where"]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a point's result is found.

    Attributes:
        number: name of a plain number.
        buffer: name of a tile buffer, with `strides` by axis.
        memory: where it was written whole.
        across: the first thread's buffer of a reduction across outer axes, with `strides`.
    """

    number: str = ""
    buffer: str = ""
    memory: Store | None = None
    across: str = ""
    strides: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """Sixteen vectors that are transposed on their way from or to memory.

    Attributes:
        buffer, address: where they lie.
        stride: elements from one lane to the next.
        dtype: of the elements.
        is_load: whether they are read.
        exact: in C++, as what numbers are stored that are rounded already; empty if they are not.
    """

    buffer: int
    address: Address
    stride: int
    dtype: DType
    is_load: bool
    exact: str = ""

    @property
    def is_in_pairs(self) -> bool:
        """Whether two squares are written at a time, so that lines of memory are written whole."""
        return not self.is_load and self.dtype in (DType.BF16, DType.F16)


class Values:
    """Writes what computes values, each once in a body.

    Args:
        schedule, nest: what to write.
        where: where results of other nests are found, and those of this one are put.
        blocked: outer axes that are walked in blocks.
        crossing: places that are transposed in squares.
        ahead: places that are fetched for the next outer value where they are read, with how far
            that is [elements].

    Attributes:
        before: lines that do not depend on the innermost loop.
        weight: vector instructions written so far.
        squares: by name, what is transposed.
        further: how far along the lanes rows are fetched while those before them are computed;
            0 if they are not [elements].
    """

    def __init__(
        self,
        schedule: Schedule,
        nest: Nest,
        where: Mapping[int, Where],
        blocked: frozenset[int],
        crossing: Collection[tuple[int, Address]] = (),
        ahead: Mapping[tuple[int, Address], int] = MappingProxyType({}),
    ) -> None:
        self._schedule = schedule
        self._ahead = ahead
        self._points = schedule.points.points
        self._where = where
        self._blocked = blocked
        self._lane_axis = nest.axes[-1] if nest.axes else -1
        self._here = frozenset(nest.points)
        self._inside: dict[int, str] = {}
        self._outside: dict[object, str] = {}
        self._count = self._beside = self.further = 0
        self._crossing = crossing
        self.before: list[str] = []
        self.weight = 0.0
        self.squares: dict[str, Square] = {}

    def forget(self) -> None:
        """Begin the nest anew."""
        self.before, self._outside, self._count, self.weight = [], {}, 0, 0.0
        self.squares = {}

    def begin_body(self, beside: int = 0) -> None:
        """Begin another body of the innermost loop, so many vectors further along the lanes."""
        self._inside = {}
        self._beside = beside

    # --- places ----------------------------------------------------------------------------

    def plain(self, dtype: DType) -> str:
        """The plain number in place of an element type's vector."""
        return PLAIN[VECTOR[dtype]]

    def index(self, where: Where, without: int) -> str:
        """Element of a buffer at the values of the axes, but for one axis."""
        words: list[str] = []
        for axis, stride in where.strides.items():
            if axis != without:
                value = self.step_in(where, axis)
                words.append(value if stride == 1 else f"{value} * {stride}")
        return " + ".join(words) or "0"

    def step_in(self, where: Where, axis: int) -> str:
        """Value of an axis in a buffer; tile buffers hold no more than a block."""
        return f"(a{axis} - lo{axis})" if where.buffer and axis in self._blocked else f"a{axis}"

    def base(self, buffer: int, address: Address) -> str:
        """A pointer that does not move along lanes, made once."""
        strides = tuple((a, s) for a, s in address.strides if a != self._lane_axis)
        key = ("base", buffer, address.offset, strides)
        if key not in self._outside:
            name = self._name("p")
            pointer = self.pointer(buffer, Address(address.offset, strides))
            self.before.append(f"auto* const {name} = {pointer};")
            self._outside[key] = name
        return self._outside[key]

    def pointer(self, buffer: int, address: Address) -> str:
        """A pointer to an address at the values of the axes."""
        words = [self._schedule.buffers[buffer].name]
        if address.offset:
            words.append(str(address.offset))
        words += [f"a{axis} * {stride}" for axis, stride in address.strides]
        return " + ".join(words)

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}_"

    # --- values ----------------------------------------------------------------------------

    def _walks_lanes(self, number: int) -> bool:
        return self._lane_axis in self._points[number].axes

    def value(self, ref: Ref, lines: list[str], rest: bool, dtype: DType) -> str:
        """A vector."""
        if isinstance(ref, Const):
            return f"all({literal(ref.value, self.plain(dtype))})"
        if not self._walks_lanes(ref):
            key = ("all", ref)
            if key not in self._outside:
                number = self.number(ref, self.before, self._points[ref].dtype)
                name = self._name("v")
                self.before.append(f"const auto {name} = all({number});")
                self._outside[key] = name
            return self._outside[key]
        if ref not in self._inside:
            name = f"v{ref}"
            lines.append(f"const auto {name} = {self._made(ref, lines, rest)};")
            self._inside[ref] = name
        return self._inside[ref]

    def _found(self, number: int) -> Where | None:
        """Where another nest has put a point, if one has."""
        return None if number in self._here else self._where.get(number)

    def _made(self, number: int, lines: list[str], rest: bool) -> str:
        own, where = self._points[number], self._found(number)
        a, tail = f"a{self._lane_axis}", ", rest" if rest else ""
        if where is not None:
            if where.memory is not None:
                return self._loaded(where.memory.buffer, where.memory.address, rest)
            base = self.index(where, without=self._lane_axis)
            if where.across:
                return self._total(own, where, f"{base} + {a}", tail)
            stride = where.strides[self._lane_axis]
            low = self.step_in(where, self._lane_axis)
            if stride == 1:
                return f"load({where.buffer} + {base} + {low}{tail})"
            return f"load_apart({where.buffer} + {base} + {low} * {stride}, {stride}{tail})"
        if own.kind is Kind.LOAD:
            if (own.buffer, own.address) in self._ahead and not rest:
                base, far = self.base(own.buffer, own.address), self._ahead[own.buffer, own.address]
                lines.append(f"__builtin_prefetch({base} + {a} + {far});")
            elif self.further and not rest and self._is_row(own.buffer, own.address):
                base = self.base(own.buffer, own.address)
                lines.append(f"ask_for({base} + {a} + {self.further});")
            return self._loaded(own.buffer, own.address, rest)
        if own.kind is Kind.IOTA:
            base = " + ".join(
                [str(own.address.offset), *(f"a{x} * {s}" for x, s in own.address.strides)]
            )
            stride = own.address.stride(self._lane_axis)
            vector, plain = VECTOR[own.dtype], self.plain(own.dtype)
            return (
                f"(all({plain}({base})) + to<{vector}>::from(lane_numbers()) * {plain}({stride}))"
            )
        if own.kind is Kind.LOOKUP:
            return self._looked_up(own, lines, rest)
        assert own.kind is Kind.MAP
        args = [
            self.value(arg, lines, rest, argument_type(self._points, own, at))
            for at, arg in enumerate(own.args)
        ]
        return self._applied(own, args, VECTOR[own.dtype])

    def square(
        self, buffer: int, address: Address, dtype: DType, *, is_load: bool, exact: str = ""
    ) -> str:
        """Name of sixteen vectors that are transposed."""
        key = ("square", buffer, address)
        if key not in self._outside:
            self._outside[key] = self._name("s")
            self.squares[self._outside[key]] = Square(
                buffer=buffer,
                address=address,
                stride=address.stride(self._lane_axis),
                dtype=dtype,
                is_load=is_load,
                exact=exact,
            )
        return self._outside[key]

    def _loaded(self, buffer: int, address: Address, rest: bool) -> str:
        if (buffer, address) in self._crossing:
            dtype = self._schedule.buffers[buffer].dtype
            return f"{self.square(buffer, address, dtype, is_load=True)}{self._beside}[k]"
        base, a = self.base(buffer, address), f"a{self._lane_axis}"
        stride, tail = address.stride(self._lane_axis), ", rest" if rest else ""
        if stride == 1:
            return f"load({base} + {a}{tail})"
        return f"load_apart({base} + {a} * {stride}, {stride}{tail})"

    def _is_row(self, buffer: int, address: Address) -> bool:
        """Whether a place is read in vectors along the lanes."""
        is_crossing = (buffer, address) in self._crossing
        return not is_crossing and address.stride(self._lane_axis) == 1

    def _looked_up(self, own: Point, lines: list[str], rest: bool) -> str:
        (index,) = own.args
        assert not isinstance(index, Const)
        number = self.value(index, lines, rest, self._points[index].dtype)
        base, a = self.base(own.buffer, own.address), f"a{self._lane_axis}"
        stride = own.address.stride(self._lane_axis)
        tail = ", rest" if rest else ""
        return (
            f"look_up({base} + {a} * {stride}, {stride}, {number}, {own.step}, {own.limit}, "
            f"wrong{tail})"
        )

    def _total(self, own: Point, where: Where, index: str, tail: str) -> str:
        pair = "sum" if own.op == "sum" else "maximum"
        return f"over_threads_{pair}({where.across}, {index}, THREAD_BYTES, num{tail})"

    def number(self, ref: Ref, lines: list[str], dtype: DType) -> str:
        """A plain number."""
        if isinstance(ref, Const):
            return literal(ref.value, self.plain(dtype))
        key = ("number", ref)
        if key in self._outside:
            return self._outside[key]
        where = self._found(ref)
        if where is not None and where.number:
            return where.number
        made = self.made_number(ref, lines)
        name = self._name("n")
        lines.append(f"const auto {name} = {made};")
        self._outside[key] = name
        return name

    def made_number(self, number: int, lines: list[str]) -> str:
        """What computes a plain number."""
        own, where = self._points[number], self._found(number)
        if where is not None:
            if where.memory is not None:
                return f"one({self.pointer(where.memory.buffer, where.memory.address)})"
            index = self.index(where, without=-1)
            if where.across:
                pair = "sum" if own.op == "sum" else "maximum"
                return f"over_threads_{pair}_one({where.across}, {index}, THREAD_BYTES, num)"
            return f"{where.buffer}[{index}]"
        if own.kind is Kind.LOAD:
            return f"one({self.pointer(own.buffer, own.address)})"
        if own.kind is Kind.IOTA:
            words = [str(own.address.offset), *(f"a{x} * {s}" for x, s in own.address.strides)]
            return f"{self.plain(own.dtype)}({' + '.join(words)})"
        if own.kind is Kind.LOOKUP:
            (index,) = own.args
            assert not isinstance(index, Const)
            at = self.number(index, lines, self._points[index].dtype)
            pointer = self.pointer(own.buffer, own.address)
            return f"look_up_one({pointer}, {at}, {own.step}, {own.limit}, wrong)"
        assert own.kind is Kind.MAP, own
        args = [
            self.number(arg, lines, argument_type(self._points, own, at))
            for at, arg in enumerate(own.args)
        ]
        return self._applied(own, args, self.plain(own.dtype))

    def _applied(self, own: Point, args: Sequence[str], result: str) -> str:
        if own.op == "cast":
            inner = f"to<{result}>::from({args[0]})"
            if own.dtype in (DType.BF16, DType.F16):
                return f"rounded({inner}, {STORED[own.dtype]}{{}})"
            return self._wrapped(inner, own.dtype, result)
        plain = PLAIN.get(result, result)
        text, weight = "", 0.0
        if own.op == "pow.Tensor_Scalar":
            exponent = own.args[1]
            assert isinstance(exponent, Const)
            text, weight = power(float(exponent.value)) or ("power({0}, {1})", 100.0)
        elif own.op == "pow.Scalar":
            text, weight = "power({0}, {1})", 100.0
        else:
            text, weight = expression(own.op, own.words, len(args), own.dtype)
        self.weight += weight
        wide = "all({})" if result in PLAIN else "{}"
        text = text.replace("to<B>", "to<vm>" if result in PLAIN else "to<bool>")
        for mark, value in (("T0", 0), ("T1", 1)):
            if mark in text:
                text = text.replace(mark, wide.format(literal(value, plain)))
        while "C(" in text:
            before, _, after = text.partition("C(")
            inside, _, behind = after.partition(")")
            text = before + wide.format(literal(float(inside), plain)) + behind
        return self._wrapped(text.format(*args), own.dtype, result)

    def _wrapped(self, text: str, dtype: DType, result: str) -> str:
        """A result that is computed in a wider type than its own."""
        if dtype is not DType.U8:
            return text
        mask = literal(255, PLAIN.get(result, result))
        return f"({text} & all({mask}))" if result in PLAIN else f"({text} & {mask})"
