"""From a region's operators to its points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from types import MappingProxyType

import numpy as np

from weft.core.errors import VerifyError
from weft.fusion.index import Box, Misfit, Part
from weft.fusion.lookups import with_lookups_first
from weft.fusion.moments import OF_CORES, Blocks, in_blocks
from weft.fusion.points import Address, Buffer, Const, Kind, Point, Points, PointTable, Ref, Store
from weft.fusion.region import Region
from weft.fusion.relate import (
    Instance,
    Relations,
    Source,
    joined_dim,
    matching_groups,
    reduced_dims,
    relate,
    slice_arguments,
)
from weft.fusion.simplify import simplified
from weft.program.graph import Value
from weft.program.operators import Kind as OperatorKind
from weft.program.operators import operator
from weft.program.random import row_major_strides
from weft.program.types import DType, TensorType

__all__ = ["lower"]


def lower(region: Region, blocks: Blocks = OF_CORES) -> Points:
    """The points of a region.

    Args:
        region: what to compute.
        blocks: in which long sums of squares are made.

    Raises:
        VerifyError: an operator has arguments that stitching does not know.
    """
    try:
        region = with_lookups_first(region)
        return in_blocks(simplified(_Lowering(region, relate(region)).run()), blocks)
    except Misfit as error:
        raise VerifyError(
            need="operators that loops over tensors in memory can follow",
            got=str(error),
            hint="leave the operator outside of the region",
        ) from error


class _Lowering:
    def __init__(self, region: Region, relations: Relations) -> None:
        self._region = region
        self._program = region.program
        self._relations = relations
        self._dims = relations.dims
        self._table = PointTable()
        self._known: dict[tuple[int, Box], Ref] = {}
        self._buffers: list[Buffer] = []
        self._buffer_of: dict[tuple[Value, bool], int] = {}

    def run(self) -> Points:
        """Points of everything that is written."""
        program, region = self._program, self._region
        for number, (given, strides) in enumerate(
            zip(program.inputs, region.input_strides, strict=True)
        ):
            own = program.nodes[given.node].outputs[0]
            self._buffer_of[Value(given.node), False] = self._buffer(f"in{number}", own, strides)
        outputs: list[int] = []
        for number, (value, strides) in enumerate(
            zip(region.outputs, region.output_strides, strict=True)
        ):
            outputs.append(self._buffer(f"out{number}", program.type_of(value), strides))
        for number, value in enumerate(self._relations.written):
            own = program.type_of(value)
            rows = row_major_strides(own.shape)
            self._buffer_of[value, True] = self._buffer(f"mid{number}", own, rows)
        stores: list[Store] = []
        for value, instance in self._relations.written.items():
            strides = row_major_strides(instance.shape)
            stores += self._stores(instance, self._buffer_of[value, True], strides)
        for buffer, instance, strides in zip(
            outputs, self._relations.outputs, region.output_strides, strict=True
        ):
            stores += self._stores(instance, buffer, strides)
        points = tuple(self._table.points)
        axes = {axis for p in points for axis in (*p.axes, *p.over)}
        axes |= {axis for store in stores for axis, _ in store.address.strides}
        return Points(
            sizes={axis: self._dims.size(axis) for axis in sorted(axes)},
            points=points,
            stores=tuple(stores),
            buffers=tuple(self._buffers),
        )

    def _buffer(self, name: str, of: TensorType, strides: Sequence[int]) -> int:
        last = sum((n - 1) * s for n, s in zip(of.shape, strides, strict=True))
        self._buffers.append(Buffer(name=name, dtype=of.dtype, num_elements=last + 1))
        return len(self._buffers) - 1

    def _stores(self, instance: Instance, buffer: int, strides: Sequence[int]) -> list[Store]:
        return [
            Store(
                point=self._as_point(self._point(instance, box), instance.dtype),
                buffer=buffer,
                address=Address.of(box, strides),
            )
            for box in self._dims.boxes(instance.dims)
        ]

    def _as_point(self, ref: Ref, dtype: DType) -> int:
        """A constant as a point, where a point is needed."""
        return ref if isinstance(ref, int) else self._table.map("constant", (ref,), dtype)

    def _point(self, instance: Instance, box: Box) -> Ref:
        """What computes a box of an instance."""
        key = (id(instance), box)
        if key not in self._known:
            self._known[key] = self._computed(instance, box)
        return self._known[key]

    def _computed(self, instance: Instance, box: Box) -> Ref:
        if instance.source is not None:
            return self._load(instance, box, instance.source.strides)
        rule = _RULES.get(instance.node.op)
        if rule is not None:
            return rule(self, instance, box)
        if operator(instance.node.op).kind is not OperatorKind.POINTWISE:
            raise AssertionError(f"no rule for {instance.node.op}")
        return self._elementwise(instance, box)

    def _load(self, instance: Instance, box: Box, strides: Sequence[int]) -> int:
        assert instance.source is not None
        address = Address.of(box, strides)
        address = Address(address.offset + instance.source.offset, address.strides)
        return self._table.add(
            Point(
                kind=Kind.LOAD,
                dtype=instance.dtype,
                axes=tuple(axis for axis, _ in address.strides),
                buffer=self._place_of(instance.source),
                address=address,
            )
        )

    def _place_of(self, source: Source) -> int:
        return self._buffer_of[source.value, source.is_written]

    # --- rules -----------------------------------------------------------------------------

    def _elementwise(self, instance: Instance, box: Box) -> Ref:
        args: list[Ref] = []
        words: list[str] = []
        operands = iter(instance.operands)
        for arg in instance.node.args:
            if isinstance(arg, Value):
                args.append(self._operand(next(operands), box))
            elif isinstance(arg, str):
                words.append(arg)
            elif isinstance(arg, int | float):
                args.append(Const.of(arg))
        op = instance.node.op
        self._require_plain(instance)
        if op == "cast":
            return self._in_type(args[0], instance.dtype)
        if instance.dtype.is_float:
            args = [arg if isinstance(arg, Const) else self._unrounded(arg) for arg in args]
        if op in _SCALED and len(args) == 3:
            args = [args[0], self._table.map("mul.Scalar", args[1:], instance.dtype)]
        if op == "clamp.default":
            return self._clamped(instance, args[0])
        if op in ("logical_and.default", "logical_or.default"):
            args = [self._in_type(arg, DType.BOOL) for arg in args]
        return self._table.map(op, args, instance.dtype, tuple(words))

    def _require_plain(self, instance: Instance) -> None:
        """That a kernel does as torch does.

        Raises:
            VerifyError: it divides with a remainder, for which there is no vector instruction, or a
                byte meets a number that is none, of which torch keeps the lowest bits.
        """
        op = instance.node.op
        is_byte = any(operand.dtype is DType.U8 for operand in instance.operands)
        numbers = [a for a in instance.node.args if isinstance(a, int) and op != "cast"]
        if op in _DIVIDING or (is_byte and any(not 0 <= n <= 255 for n in numbers)):
            raise VerifyError(
                need="an operator that kernels have",
                got=f"{op} of {', '.join(o.dtype.value for o in instance.operands)}, {numbers}",
                hint="leave the operator outside of the region",
            )

    def _clamped(self, instance: Instance, found: Ref) -> Ref:
        """Bounds, of which either may be missing."""
        bounds = (*instance.node.args[1:], None, None)[:2]
        for op, bound in zip(("maximum.Scalar", "minimum.Scalar"), bounds, strict=True):
            if isinstance(bound, int | float):
                found = self._table.map(op, (found, Const.of(bound)), instance.dtype)
        return found

    def _operand(self, operand: Instance, box: Box) -> Ref:
        """What a box of a result reads of an operand, dims of size 1 being repeated."""
        first = len(box) - len(operand.dims)
        own = tuple(
            Part(0, ()) if size == 1 else part
            for size, part in zip(operand.shape, box[first:], strict=True)
        )
        return self._point(operand, own)

    def _view(self, instance: Instance, box: Box) -> Ref:
        operand = instance.operands[0]
        own: list[Part | None] = [None] * len(operand.dims)
        for ours, theirs in matching_groups(instance.shape, operand.shape):
            wanted = joined([box[d] for d in ours], [instance.shape[d] for d in ours])
            sizes = [operand.shape[d] for d in theirs]
            parts = [self._dims.parts(operand.dims[d]) for d in theirs]
            found = next(c for c in product(*parts) if joined(c, sizes) == wanted)
            for d, part in zip(theirs, found, strict=True):
                own[d] = part
        return self._point(operand, tuple(part for part in own if part is not None))

    def _permute(self, instance: Instance, box: Box) -> Ref:
        order = instance.node.args[1]
        assert isinstance(order, tuple)
        own = sorted(zip(order, box, strict=True), key=lambda pair: int(str(pair[0])))
        return self._point(instance.operands[0], tuple(part for _, part in own))

    def _slice(self, instance: Instance, box: Box) -> Ref:
        dim, start, step = slice_arguments(instance.node.args)
        wanted = Part(
            start + step * box[dim].offset,
            tuple((axis, step * stride) for axis, stride in box[dim].axes),
        )
        return self._point(instance.operands[0], _replaced(box, dim, wanted))

    def _cat(self, instance: Instance, box: Box) -> Ref:
        dim = joined_dim(instance.node.args)
        start = box[dim].offset
        for operand in instance.operands:
            size = operand.shape[dim]
            if start < size:
                return self._point(operand, _replaced(box, dim, Part(start, box[dim].axes)))
            start -= size
        raise AssertionError("a part beyond the end of a concatenation")

    def _slice_backward(self, instance: Instance, box: Box) -> Ref:
        dim, first, step = slice_arguments(instance.node.args[1:])
        operand, part = instance.operands[0], box[dim]
        start, phase = divmod(part.offset - first, step)
        inside = 0 <= start < operand.shape[dim] and not phase
        if not inside or any(stride % step for _, stride in part.axes):
            return Const.of(0.0 if instance.dtype.is_float else 0)
        own = Part(start, tuple((axis, stride // step) for axis, stride in part.axes))
        return self._point(operand, _replaced(box, dim, own))

    def _full(self, instance: Instance, box: Box) -> Ref:
        value = instance.node.args[1]
        assert isinstance(value, int | float)
        return Const.of(rounded(value, instance.dtype))

    def _iota(self, instance: Instance, box: Box) -> Ref:
        _, start, step, _ = instance.node.args
        assert isinstance(start, int | float) and isinstance(step, int | float)
        if not isinstance(start, int) or not isinstance(step, int):
            raise AssertionError("ranges of floating-point numbers stay outside")
        (part,) = box
        address = Address(
            start + step * part.offset,
            tuple(sorted((axis, step * stride) for axis, stride in part.axes if step)),
        )
        axes = tuple(axis for axis, _ in address.strides)
        if not axes:
            return Const.of(address.offset)
        return self._table.add(
            Point(kind=Kind.IOTA, dtype=instance.dtype, axes=axes, address=address)
        )

    def _reduce(self, instance: Instance, box: Box) -> Ref:
        """All parts of the reduced dims, those of the same loops at once."""
        operand, op = instance.operands[0], instance.node.op
        over = reduced_dims(instance.node.args)
        kept = iter(box if len(box) < len(operand.dims) else _without(box, over))
        parts = [
            self._dims.parts(dim) if number in over else (next(kept),)
            for number, dim in enumerate(operand.dims)
        ]
        groups: dict[tuple[int, ...], list[Ref]] = {}
        for own in product(*parts):
            axes = sorted(axis for d in over for axis, _ in own[d].axes)
            groups.setdefault(tuple(axes), []).append(self._point(operand, own))
        found = [self._reduced(op, refs, axes, instance.dtype) for axes, refs in groups.items()]
        return self._combined(op, found, instance.dtype)

    def _reduced(self, op: str, refs: list[Ref], axes: tuple[int, ...], dtype: DType) -> Ref:
        whole = self._combined(op, [self._in_type(ref, dtype) for ref in refs], dtype)
        own = self._table.points[whole].axes if isinstance(whole, int) else ()
        inside = [axis for axis in axes if axis in own]
        found = whole
        if inside:
            assert isinstance(whole, int)
            found = self._table.reduce(op, whole, inside)
        times = prod(self._dims.size(axis) for axis in axes if axis not in own)
        if op != "sum" or times == 1:
            return found
        return self._table.map("mul.Scalar", (found, Const.of(times)), dtype)

    def _in_type(self, ref: Ref, dtype: DType) -> Ref:
        """A value in another type; without rounding on the way from one float to another."""
        if isinstance(ref, Const):
            return Const.of(rounded(ref.value, dtype))
        if dtype.is_float and self._table.points[ref].dtype is not dtype:
            ref = self._unrounded(ref)
        own = self._table.points[ref].dtype
        return ref if own is dtype else self._table.map("cast", (ref,), dtype, (own.value,))

    def _unrounded(self, point: int) -> int:
        """What a value was before it was rounded to 16 bits, which registers have room for."""
        own = self._table.points[point]
        if own.op != "cast" or own.dtype not in (DType.BF16, DType.F16):
            return point
        (before,) = own.args
        assert isinstance(before, int)
        return before if self._table.points[before].dtype in _SINGLE else point

    def _combined(self, op: str, refs: list[Ref], dtype: DType) -> Ref:
        pair = {"sum": "add.Tensor", "amax": "maximum.default"}[op]
        found = refs[0]
        for ref in refs[1:]:
            found = self._table.map(pair, (found, ref), dtype)
        return found

    def _gather(self, instance: Instance, box: Box) -> Ref:
        looked_up, index = instance.operands
        dim = instance.node.args[1]
        assert isinstance(dim, int) and looked_up.source is not None
        strides = looked_up.source.strides
        number = self._as_point(self._point(index, box), index.dtype)
        address = Address.of(_replaced(box, dim, Part(0, ())), strides)
        axes = {axis for axis, _ in address.strides} | set(self._table.points[number].axes)
        return self._table.add(
            Point(
                kind=Kind.LOOKUP,
                args=(number,),
                dtype=instance.dtype,
                axes=tuple(sorted(axes)),
                buffer=self._place_of(looked_up.source),
                address=address,
                step=strides[dim],
                limit=looked_up.shape[dim],
            )
        )


_SINGLE = (DType.F32, DType.BF16, DType.F16)
"""Types that registers hold as float32."""


def rounded(value: float | int | bool, dtype: DType) -> float | int | bool:
    """A number as an element type holds it.

    Example:
        >>> rounded(0.1, DType.BF16), rounded(2.9, DType.I32)
        (0.10009765625, 2)
    """
    if dtype is DType.BOOL:
        return bool(value)
    if dtype.is_float:
        number = np.float64(value)
        with np.errstate(over="ignore"):
            if dtype is DType.F64:
                return float(number)
            if dtype is DType.F16:
                return float(np.float16(number))
            single = np.float32(number)
        if dtype is DType.F32 or not np.isfinite(single):
            return float(single)
        bits = int(single.view(np.uint32))
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        return float(np.uint32(bits).view(np.float32))
    if isinstance(value, float) and not np.isfinite(value):
        return 0  # undefined, as it is for processors
    whole, size = int(value), 8 * dtype.num_bytes
    whole %= 2**size
    return whole if dtype is DType.U8 or whole < 2 ** (size - 1) else whole - 2**size


def joined(parts: Sequence[Part], sizes: Sequence[int]) -> Part:
    """A part of the product of dims, from a part of each.

    Example:
        >>> joined([Part(1, ()), Part(0, ((7, 1),))], [2, 4])
        Part(offset=4, axes=((7, 1),))
    """
    offset, axes = 0, list[tuple[int, int]]()
    for part, size in zip(parts, sizes, strict=True):
        offset = offset * size + part.offset
        axes = [*((axis, stride * size) for axis, stride in axes), *part.axes]
    return Part(offset, tuple(axes))


def _replaced(box: Box, dim: int, part: Part) -> Box:
    return (*box[:dim], part, *box[dim + 1 :])


def _without(box: Box, dims: Sequence[int]) -> list[Part]:
    return [part for number, part in enumerate(box) if number not in dims]


_DIVIDING = frozenset({"remainder.Scalar", "floor_divide.Scalar"})
_SCALED = frozenset({"add.Tensor", "sub.Tensor"})
"""Operators whose second operand may be multiplied by a number first."""

_RULES: Mapping[str, Callable[[_Lowering, Instance, Box], Ref]] = MappingProxyType(
    {
        "view": _Lowering._view,
        "permute": _Lowering._permute,
        "expand": lambda self, instance, box: self._operand(instance.operands[0], box),
        "slice": _Lowering._slice,
        "slice_backward": _Lowering._slice_backward,
        "cat": _Lowering._cat,
        "full": _Lowering._full,
        "iota": _Lowering._iota,
        "sum": _Lowering._reduce,
        "amax": _Lowering._reduce,
        "gather.default": _Lowering._gather,
    }
)
