"""Rules that move views which merge dims behind the operators that read them.

Models flatten batch and sequence into one dim before a product or a loss. A merged dim can be
split over devices only along its outer part, so an operator that does not care is applied to
the unmerged tensor, and the view comes after it, where the next operator moves it on. Most of
the views meet a view that splits the dims again, and both vanish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.capture.simplify.dims import Parts, leading_parts_of, parts_of, split_shape
from weft.capture.simplify.rewriter import Results, Rewriter, Rule, Shape
from weft.capture.simplify.views import is_drawn
from weft.program.graph import Arg, Value, values_in
from weft.program.operators import OPERATORS, Kind
from weft.program.promotion import broadcast

__all__ = ["UNMERGE", "common_parts", "is_free"]


def is_free(r: Rewriter, value: Value, dim: int, part: Shape) -> bool:
    """Whether splitting a dim of a value into a part costs nothing.

    So it is if a view put the dim together, or if the elements can as well be made or repeated
    in the split shape.
    """
    if parts_of(r, value)[dim] == part or r.made_by(value, "full") or is_drawn(r, value):
        return True
    inner = r.made_by(value, "expand")
    if inner is None:
        return False
    source = r.shape(inner[0]) if isinstance(inner[0], Value) else ()
    missing = len(r.shape(value)) - len(source)
    return dim < missing or source[dim - missing] == 1


def common_parts(r: Rewriter, shape: Shape, operands: Sequence[Value]) -> Parts | None:
    """How to split dims of operands that broadcast to `shape`, if that is free for all.

    Returns:
        The parts of every dim, or None if no dim is to be split.
    """
    parts: list[Shape] = []
    for dim, n in enumerate(shape):
        here = [
            (value, dim - len(shape) + len(r.shape(value)))
            for value in operands
            if len(r.shape(value)) >= len(shape) - dim
        ]
        full = [(value, own) for value, own in here if r.shape(value)[own] == n]
        found = {p for value, own in full if len(p := leading_parts_of(r, value)[own]) > 1}
        part = found.pop() if len(found) == 1 else (n,)
        free = all(is_free(r, value, own, part) for value, own in full)
        parts.append(part if len(part) > 1 and free else (n,))
    return tuple(parts) if any(len(part) > 1 for part in parts) else None


def _split(r: Rewriter, value: Value, parts: Parts) -> Value:
    """The value with its dims, aligned from the right, in parts; 1 where it broadcasts."""
    shape = r.shape(value)
    own = parts[len(parts) - len(shape) :]
    fine = [
        m
        for n, part in zip(shape, own, strict=True)
        for m in (part if n != 1 else (1,) * len(part))
    ]
    return r.add("view", value, tuple(fine))


def _pointwise(op: str) -> Rule:
    def rule(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
        operands = tuple(values_in(args))
        if len(operands) == 1 and (inner := r.made_by(operands[0], "expand")) is not None:
            narrow = tuple(inner[0] if isinstance(a, Value) else a for a in args)
            return r.add_all("expand", r.add(op, *narrow), inner[1])
        shape = broadcast(*(r.shape(v) for v in operands))
        narrow = args if op in _EQUAL_SHAPES else _without_expansions(r, args, shape)
        if narrow != args:
            return r.add_all(op, *narrow)
        parts = common_parts(r, shape, operands)
        if parts is None:
            return None
        made = r.add(op, *(_split(r, a, parts) if isinstance(a, Value) else a for a in args))
        return r.add_all("view", made, shape)

    return rule


_EQUAL_SHAPES = frozenset(name for name in OPERATORS if "backward" in name)
"""Operators whose operands must not broadcast."""


def _without_expansions(r: Rewriter, args: tuple[Arg, ...], shape: Shape) -> tuple[Arg, ...]:
    """Operands as they were before an expansion that broadcasting makes anyway."""
    result = list(args)
    for position, arg in enumerate(args):
        if not isinstance(arg, Value):
            continue
        source = _before_expansion(r, arg)
        shapes = [r.shape(v) for v in result if isinstance(v, Value) and v is not arg]
        if source is not None and shapes and broadcast(r.shape(source), *shapes) == shape:
            result[position] = source
    return tuple(result)


def _before_expansion(r: Rewriter, value: Value) -> Value | None:
    inner = r.made_by(value, "expand")
    if inner is None:
        inner = r.made_by(value, "view")
        if inner is None or not isinstance(inner[0], Value):
            return None
        source = r.shape(inner[0])
        shape = r.shape(value)
        if shape != (1,) * (len(shape) - len(source)) + source:
            return None
    return inner[0] if isinstance(inner[0], Value) else None


def _reduction(op: str) -> Rule:
    def rule(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
        x, dims = args[0], args[1]
        keepdim = bool(args[2]) if len(args) > 2 else False
        assert isinstance(x, Value) and isinstance(dims, tuple)
        shape = r.shape(x)
        after = tuple(
            1 if d in dims else n for d, n in enumerate(shape) if keepdim or d not in dims
        )
        if all(shape[d] == 1 for d in dims if isinstance(d, int)):
            return r.add_all("view", x, after)
        parts = common_parts(r, shape, (x,))
        if parts is None:
            return None
        made = r.add(op, _split(r, x, parts), _spread(parts, dims), keepdim)
        return r.add_all("view", made, after)

    return rule


def _spread(parts: Parts, dims: tuple[Arg, ...]) -> tuple[int, ...]:
    """Numbers that dims have after all dims are in parts."""
    starts = [sum(len(part) for part in parts[:d]) for d in range(len(parts))]
    return tuple(starts[d] + k for d in dims if isinstance(d, int) for k in range(len(parts[d])))


def _along(op: str, num_operands: int, position: int) -> Rule:
    """Operators along one dim, given at `position`; operands and results share the others."""

    def rule(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
        operands = [v for v in args[:num_operands] if isinstance(v, Value)]
        dim = args[position]
        assert isinstance(dim, int)
        shape = r.shape(operands[0])
        if any(r.shape(v)[:dim] != shape[:dim] for v in operands):
            return None
        if any(r.shape(v)[dim + 1 :] != shape[dim + 1 :] for v in operands):
            return None
        parts = _parts_beside(r, operands, dim)
        if parts is None:
            return None
        fine = [r.add("view", v, _shape_beside(r, v, parts, dim)) for v in operands]
        rest = list(args[num_operands:])
        rest[position - num_operands] = _spread(parts, (dim,))[0]
        made = r.add_all(op, *fine, *rest)
        lead = len(split_shape(parts[:dim]))
        return tuple(r.add("view", m, _merged_beside(r, m, shape, dim, lead, parts)) for m in made)

    return rule


def _parts_beside(r: Rewriter, operands: Sequence[Value], dim: int) -> Parts | None:
    """As `common_parts` for operands of equal rank, with one dim that stays whole."""
    shape = r.shape(operands[0])
    parts = common_parts(r, shape, [v for v in operands if r.shape(v) == shape])
    if parts is None:
        return None
    kept = tuple(
        (n,) if d == dim else part for d, (n, part) in enumerate(zip(shape, parts, strict=True))
    )
    others = [v for v in operands if r.shape(v) != shape]
    for d, part in enumerate(kept):
        if len(part) > 1 and not all(is_free(r, v, d, part) for v in others):
            return None
    return kept if any(len(part) > 1 for part in kept) else None


def _shape_beside(r: Rewriter, value: Value, parts: Parts, dim: int) -> Shape:
    own = r.shape(value)
    return split_shape(tuple((own[dim],) if d == dim else part for d, part in enumerate(parts)))


def _merged_beside(
    r: Rewriter, made: Value, shape: Shape, dim: int, lead: int, parts: Parts
) -> Shape:
    fine = r.shape(made)
    if len(fine) == len(split_shape(parts)):
        return (*shape[:dim], fine[lead], *shape[dim + 1 :])
    return (*shape[:dim], *shape[dim + 1 :])


def _permute(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, dims = args
    assert isinstance(x, Value) and isinstance(dims, tuple)
    shape = r.shape(x)
    parts = common_parts(r, shape, (x,))
    if parts is None:
        return None
    made = r.add("permute", _split(r, x, parts), _spread(parts, dims))
    return r.add_all("view", made, tuple(shape[d] for d in dims if isinstance(d, int)))


def _expand(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, size = args
    assert isinstance(x, Value) and isinstance(size, tuple)
    shape = r.shape(x)
    parts = common_parts(r, shape, (x,))
    if parts is None:
        return None
    wide = tuple(n for n in size if isinstance(n, int))
    missing = len(wide) - len(shape)
    fine = wide[:missing] + split_shape(
        tuple(
            part if len(part) > 1 else (n,) for n, part in zip(wide[missing:], parts, strict=True)
        )
    )
    return r.add_all("view", r.add("expand", _split(r, x, parts), fine), wide)


def _embedding(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    weight, index = args[:2]
    assert isinstance(weight, Value) and isinstance(index, Value)
    shape = r.shape(index)
    parts = common_parts(r, shape, (index,))
    if parts is None:
        return None
    made = r.add("embedding.default", weight, _split(r, index, parts))
    return r.add_all("view", made, (*shape, r.shape(weight)[1]))


def _embedding_backward(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    grad, index, *rest = args
    assert isinstance(grad, Value) and isinstance(index, Value)
    shape = r.shape(index)
    parts = common_parts(r, shape, (index,))
    if parts is None:
        parts = leading_parts_of(r, grad)[:-1]
        if all(len(part) == 1 for part in parts) or not all(
            len(part) == 1 or is_free(r, index, d, part) for d, part in enumerate(parts)
        ):
            return None
    fine = r.add("view", grad, (*split_shape(parts), r.shape(grad)[-1]))
    return r.add_all("embedding_dense_backward.default", fine, _split(r, index, parts), *rest)


def _layer_norm(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    x, normalized, *rest = args
    assert isinstance(x, Value) and isinstance(normalized, tuple)
    shape = r.shape(x)
    lead = len(shape) - len(normalized)
    parts = _leading_parts(r, (x,), lead)
    if parts is None:
        return None
    made = r.add_all("native_layer_norm.default", _split(r, x, parts), normalized, *rest)
    statistics = (*shape[:lead], *(1 for _ in normalized))
    return tuple(
        r.add("view", m, size)
        for m, size in zip(made, (shape, statistics, statistics), strict=True)
    )


def _layer_norm_backward(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    grad, x, normalized, mean, rstd, *rest = args
    assert isinstance(grad, Value) and isinstance(x, Value) and isinstance(normalized, tuple)
    assert isinstance(mean, Value) and isinstance(rstd, Value)
    shape = r.shape(x)
    parts = _leading_parts(r, (grad, x), len(shape) - len(normalized))
    if parts is None:
        return None
    fine = [_split(r, v, parts) for v in (grad, x, mean, rstd)]
    dx, *others = r.add_all(
        "native_layer_norm_backward.default", *fine[:2], normalized, *fine[2:], *rest
    )
    return (r.add("view", dx, shape) if r.shape(dx) != (0,) else dx, *others)


def _leading_parts(r: Rewriter, operands: Sequence[Value], lead: int) -> Parts | None:
    shape = r.shape(operands[0])
    parts = common_parts(r, shape, operands)
    if parts is None:
        return None
    kept = tuple(part if d < lead else (shape[d],) for d, part in enumerate(parts))
    return kept if any(len(part) > 1 for part in kept) else None


_POINTWISE = {
    name: (_pointwise(name),) for name, row in OPERATORS.items() if row.kind is Kind.POINTWISE
}

UNMERGE: Mapping[str, tuple[Rule, ...]] = {
    **_POINTWISE,
    "sum": (_reduction("sum"),),
    "amax": (_reduction("amax"),),
    "permute": (_permute,),
    "expand": (_expand,),
    "cumsum": (_along("cumsum", 1, 1),),
    "slice": (_along("slice", 1, 1),),
    "argmax.default": (_along("argmax.default", 1, 1),),
    "_softmax.default": (_along("_softmax.default", 1, 1),),
    "_softmax_backward_data.default": (_along("_softmax_backward_data.default", 2, 2),),
    "topk.default": (_along("topk.default", 1, 2),),
    "embedding.default": (_embedding,),
    "embedding_dense_backward.default": (_embedding_backward,),
    "native_layer_norm.default": (_layer_norm,),
    "native_layer_norm_backward.default": (_layer_norm_backward,),
}
