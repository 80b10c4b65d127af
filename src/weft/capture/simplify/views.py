"""Rules for what only renames or repeats: views, permutations, expansions, slices, casts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from weft.capture.simplify.dims import merged_parts
from weft.capture.simplify.rewriter import Results, Rewriter, Rule, Shape
from weft.program.graph import Arg, Value, map_values, values_in
from weft.program.operators import OPERATORS, Kind

__all__ = ["VIEWS", "is_drawn"]


def _view(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, size = _value(args[0]), _shape(args[1])
    if r.shape(x) == size:
        return (x,)
    if (inner := r.made_by(x, "view")) is not None:
        return r.add_all("view", inner[0], size)
    if (made := r.made_by(x, "full")) is not None:
        return r.add_all("full", size, *made[1:])
    if (drawn := _drawn_as(r, x, size)) is not None:
        return (drawn,)
    if (inner := r.made_by(x, "expand")) is not None:
        return _view_of_expand(r, _value(inner[0]), r.shape(x), size)
    for op in ("sum", "amax"):
        if (inner := r.made_by(x, op)) is not None and inner[2]:
            dims = _shape(inner[1])
            if size == tuple(n for d, n in enumerate(r.shape(x)) if d not in dims):
                return r.add_all(op, inner[0], dims, False)
    return None


def is_drawn(r: Rewriter, x: Value) -> bool:
    """Whether a value is made of one tensor of random numbers, element by element."""
    node = r.node(x)
    operands = tuple(values_in(node.args))
    if node.op == "uniform":
        return True
    pointwise = OPERATORS[node.op].kind is Kind.POINTWISE and len(operands) == 1
    return pointwise and is_drawn(r, operands[0])


def _drawn_as(r: Rewriter, x: Value, size: Shape) -> Value | None:
    """Such a value in another shape.

    The numbers depend on the place in row-major order only, which a view keeps.
    """
    if not is_drawn(r, x):
        return None
    node = r.node(x)
    if node.op == "uniform":
        return r.add_as(x, "uniform", *node.args[:2], size)
    (operand,) = values_in(node.args)
    drawn = _drawn_as(r, operand, size)
    if drawn is None:
        return None
    return r.add_as(x, node.op, *map_values(node.args, lambda _: drawn))


def _view_of_expand(r: Rewriter, x: Value, wide: Shape, size: Shape) -> Results | None:
    """View first, then expand, if every dim that the view splits is whole or all repeated."""
    parts = merged_parts(size, wide)
    if parts is None or 1 in size:
        return None
    padded = (1,) * (len(wide) - len(r.shape(x))) + r.shape(x)
    fine: list[int] = []
    for n, m, part in zip(padded, wide, parts, strict=True):
        if m == 1:
            continue
        fine.extend(part if n == m else (1,) * len(part))
    if math.prod(fine) != math.prod(padded):
        return None
    return r.add_all("expand", r.add("view", x, tuple(fine)), size)


def _permute(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, dims = _value(args[0]), _shape(args[1])
    shape = r.shape(x)
    moving = [d for d in dims if shape[d] != 1]
    if moving == sorted(moving):
        return r.add_all("view", x, tuple(shape[d] for d in dims))
    if (inner := r.made_by(x, "permute")) is not None:
        before = _shape(inner[1])
        return r.add_all("permute", inner[0], tuple(before[d] for d in dims))
    if (made := r.made_by(x, "full")) is not None:
        return r.add_all("full", tuple(shape[d] for d in dims), *made[1:])
    if (inner := r.made_by(x, "view")) is not None and 1 in shape:
        source = _value(inner[0])
        long = tuple(n for n in shape if n != 1)
        if long == tuple(n for n in r.shape(source) if n != 1):
            # The view only adds or drops dims of size 1: permute the others, then add them.
            number = {d: k for k, d in enumerate(d for d, n in enumerate(shape) if n != 1)}
            short = r.add("view", source, long)
            moved = r.add("permute", short, tuple(number[d] for d in moving))
            return r.add_all("view", moved, tuple(shape[d] for d in dims))
    return None


def _expand(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, size = _value(args[0]), _shape(args[1])
    if r.shape(x) == size:
        return (x,)
    if (inner := r.made_by(x, "expand")) is not None:
        return r.add_all("expand", inner[0], size)
    if (made := r.made_by(x, "full")) is not None:
        return r.add_all("full", size, *made[1:])
    if (inner := r.made_by(x, "view")) is not None:
        source = r.shape(_value(inner[0]))
        if r.shape(x) == (1,) * (len(r.shape(x)) - len(source)) + source:
            return r.add_all("expand", inner[0], size)
    return None


def _slice(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, dim, start, end, step = args
    value = _value(x)
    assert isinstance(dim, int) and isinstance(start, int) and isinstance(step, int)
    shape = r.shape(value)
    if (start, end, step) == (0, shape[dim], 1):
        return (value,)
    if (made := r.made_by(x, "full")) is not None:
        assert isinstance(end, int)
        length = -(-(end - start) // step)
        return r.add_all("full", (*shape[:dim], length, *shape[dim + 1 :]), *made[1:])
    return None


def _cast(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, dtype = _value(args[0]), args[1]
    if r.type(x).dtype.value == dtype:
        return (x,)
    for op in ("view", "expand"):
        if (inner := r.made_by(x, op)) is not None and r.made_by(inner[0], "full") is not None:
            return r.add_all(op, r.add("cast", inner[0], dtype), *inner[1:])
    if (made := r.made_by(x, "full")) is not None:
        size, number, _ = made
        assert isinstance(number, int | float)
        if dtype == "bool":
            return r.add_all("full", size, bool(number), dtype)
        if dtype in ("f64", "f32"):
            return r.add_all("full", size, float(number), dtype)
    return None


def _cat(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    tensors = args[0]
    assert isinstance(tensors, tuple)
    return (_value(tensors[0]),) if len(tensors) == 1 else None


def _value(arg: Arg) -> Value:
    assert isinstance(arg, Value)
    return arg


def _shape(arg: Arg) -> Shape:
    assert isinstance(arg, tuple)
    return tuple(n for n in arg if isinstance(n, int))


VIEWS: Mapping[str, tuple[Rule, ...]] = {
    "view": (_view,),
    "permute": (_permute,),
    "expand": (_expand,),
    "slice": (_slice,),
    "cast": (_cast,),
    "cat": (_cat,),
}
