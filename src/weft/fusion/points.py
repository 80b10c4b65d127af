"""A region as points: what is computed for each value of a few axes, and nothing that moves data.

A point is one scalar computation, repeated for all values of its axes. Views, slices,
concatenations and broadcasts are gone: what is left of them are addresses of loads and stores, and
how often a point is repeated. Where a tensor is a concatenation, each part is a point of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

from weft.fusion.index import Box
from weft.program.types import DType

__all__ = [
    "Address",
    "Buffer",
    "Const",
    "Kind",
    "Point",
    "Points",
    "Ref",
    "Store",
    "argument_type",
]


class Kind(Enum):
    """What a point does."""

    LOAD = "load"
    """Reads a buffer at an address."""
    LOOKUP = "lookup"
    """Reads a buffer at an address and its only operand times a stride further."""
    IOTA = "iota"
    """The address itself, as a number."""
    MAP = "map"
    """An element-wise operator."""
    REDUCE = "reduce"
    """The sum or the largest of its only operand over some axes."""

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Const:
    """A number in place of an operand; 1, 1.0, True, 0.0 and -0.0 are five constants."""

    value: int | float | bool = field(compare=False)
    text: str

    @staticmethod
    def of(value: int | float | bool) -> Const:
        """The constant of a number."""
        return Const(value, repr(value))


Ref: TypeAlias = "int | Const"
"""An operand: number of a point, or a constant."""


@dataclass(frozen=True, slots=True)
class Address:
    """Place in a buffer: `offset + sum(stride * axis)`, in elements.

    Attributes:
        offset: of the first element.
        strides: axes with their strides; each axis once, none with stride 0.
    """

    offset: int
    strides: tuple[tuple[int, int], ...]

    @staticmethod
    def of(box: Box, strides: Sequence[int]) -> Address:
        """The place of a box in a tensor with these strides."""
        offset, found = 0, dict[int, int]()
        for part, stride in zip(box, strides, strict=True):
            offset += part.offset * stride
            for axis, step in part.axes:
                found[axis] = found.get(axis, 0) + step * stride
        return Address(offset, tuple(sorted((a, s) for a, s in found.items() if s)))

    def stride(self, axis: int) -> int:
        """Elements from one value of an axis to the next."""
        return next((stride for found, stride in self.strides if found == axis), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One computation for each value of its axes.

    Attributes:
        kind: see `Kind`.
        op: operator of a MAP; "sum" or "amax" of a REDUCE.
        args: operands; further constant arguments of the operator stand behind them.
        dtype: of its result.
        axes: over which it is repeated, sorted.
        buffer: of a LOAD or LOOKUP.
        address: of a LOAD, LOOKUP or IOTA.
        step: of a LOOKUP, elements that one unit of its operand is worth.
        limit: of a LOOKUP, number of units.
        over: axes that a REDUCE sums over.
        words: of a MAP, arguments that are no numbers.
    """

    kind: Kind
    op: str = ""
    args: tuple[Ref, ...] = ()
    dtype: DType
    axes: tuple[int, ...]
    buffer: int = -1
    address: Address = Address(0, ())
    step: int = 0
    limit: int = 0
    over: tuple[int, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """Points that it reads."""
        return tuple(arg for arg in self.args if not isinstance(arg, Const))


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A point's results, written to a buffer."""

    point: int
    buffer: int
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A tensor in memory.

    Attributes:
        name: "in0", "out1" or "mid2".
        dtype: of its elements.
        num_elements: from its first to its last element in memory.
    """

    name: str
    dtype: DType
    num_elements: int

    @property
    def num_bytes(self) -> int:
        """Its size [bytes]."""
        return self.num_elements * self.dtype.num_bytes


@dataclass(frozen=True, kw_only=True)
class Points:
    """A region as points.

    Attributes:
        sizes: of each axis that occurs.
        points: operands before what reads them.
        stores: what is written.
        buffers: inputs of the region, its outputs, and tensors in between that have to be written
            whole before they are read.
    """

    sizes: dict[int, int]
    points: tuple[Point, ...]
    stores: tuple[Store, ...]
    buffers: tuple[Buffer, ...]

    def num_elements(self, axes: Sequence[int]) -> int:
        """How often a point with these axes is repeated."""
        found = 1
        for axis in axes:
            found *= self.sizes[axis]
        return found

    def rows(self, axes: Sequence[int]) -> dict[int, int]:
        """Strides of a tensor of these axes without gaps, the last one the fastest."""
        strides: dict[int, int] = {}
        step = 1
        for axis in reversed(axes):
            strides[axis] = step
            step *= self.sizes[axis]
        return strides

    def reached(self, roots: Iterable[int], through: Callable[[int], bool]) -> list[int]:
        """Roots and what they read, each once; no further than the points that it goes through."""
        stack, found = list(roots), dict[int, None]()
        while stack:
            number = stack.pop()
            if number not in found:
                found[number] = None
                if through(number):
                    stack.extend(self.points[number].reads)
        return list(found)


@dataclass
class PointTable:
    """Collects points; equal ones are one."""

    points: list[Point] = field(default_factory=list[Point])
    _number: dict[Point, int] = field(default_factory=dict[Point, int])

    def add(self, point: Point) -> int:
        """Number of a point."""
        if point not in self._number:
            self._number[point] = len(self.points)
            self.points.append(point)
        return self._number[point]

    def axes_of(self, args: Sequence[Ref]) -> tuple[int, ...]:
        """Axes of a point with these operands."""
        axes = {axis for arg in args if isinstance(arg, int) for axis in self.points[arg].axes}
        return tuple(sorted(axes))

    def map(self, op: str, args: Sequence[Ref], dtype: DType, words: tuple[str, ...] = ()) -> int:
        """An element-wise operator."""
        return self.add(
            Point(
                kind=Kind.MAP,
                op=op,
                args=tuple(args),
                dtype=dtype,
                axes=self.axes_of(args),
                words=words,
            )
        )

    def reduce(self, op: str, arg: int, over: Sequence[int]) -> int:
        """A reduction; of what does not vary along an axis, a sum is a multiple."""
        point = self.points[arg]
        rest = tuple(axis for axis in point.axes if axis not in over)
        return self.add(
            replace(
                point,
                kind=Kind.REDUCE,
                op=op,
                args=(arg,),
                axes=rest,
                over=tuple(sorted(set(over))),
                buffer=-1,
                address=Address(0, ()),
                step=0,
                limit=0,
                words=(),
            )
        )


def argument_type(points: Sequence[Point], own: Point, at: int) -> DType:
    """Element type of an argument of a MAP; that of a constant follows from the others."""
    arg = own.args[at]
    if not isinstance(arg, Const):
        return points[arg].dtype
    if own.op == "where.self" or own.op == "masked_fill.Scalar":
        is_mask = at == (0 if own.op == "where.self" else 1)
        return DType.BOOL if is_mask else own.dtype
    others = [points[other].dtype for other in own.args if isinstance(other, int)]
    if others:
        return others[0]
    if own.dtype is not DType.BOOL or own.op.startswith(("logical", "bitwise", "constant")):
        return own.dtype
    # Two constants are compared: as what holds both.
    values = [other.value for other in own.args if isinstance(other, Const)]
    return DType.F64 if any(isinstance(value, float) for value in values) else DType.I64
