"""Rules of operators that rename, cut and join dims."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weft.capture.canonical.emit import (
    Emit,
    Rules,
    dim_of,
    dims_of,
)
from weft.program.graph import Value
from weft.program.promotion import promote

__all__ = ["SHAPE", "slice_rule"]

aten, prims = torch.ops.aten, torch.ops.prims


def _same(emit: Emit, x: Value, *_: object, **__: object) -> Value:
    return x


def _view(emit: Emit, x: Value, size: Sequence[int]) -> Value:
    known = 1
    for n in size:
        known *= n if n >= 0 else 1
    elements = emit.type(x).num_elements
    return emit.view(x, tuple(n if n >= 0 else elements // max(known, 1) for n in size))


def _unsqueeze(emit: Emit, x: Value, dim: int) -> Value:
    shape = emit.type(x).shape
    at = dim % (len(shape) + 1)
    return emit.view(x, (*shape[:at], 1, *shape[at:]))


def _squeeze(emit: Emit, x: Value, dims: Sequence[int] | int | None = None) -> Value:
    shape = emit.type(x).shape
    over = range(len(shape)) if dims is None else dims_of(dims, len(shape)) if dims != () else ()
    return emit.view(x, tuple(n for d, n in enumerate(shape) if not (d in over and n == 1)))


def _permute(emit: Emit, x: Value, dims: Sequence[int]) -> Value:
    return emit("permute", x, tuple(dim_of(d, len(dims)) for d in dims))


def _transpose(emit: Emit, x: Value, first: int, second: int) -> Value:
    dims = list(range(emit.rank(x)))
    if not dims:
        return x
    first, second = dim_of(first, len(dims)), dim_of(second, len(dims))
    dims[first], dims[second] = dims[second], dims[first]
    return emit("permute", x, tuple(dims))


def _t(emit: Emit, x: Value) -> Value:
    return x if emit.rank(x) < 2 else emit("permute", x, (1, 0))


def _expand(emit: Emit, x: Value, size: Sequence[int], **_: object) -> Value:
    shape = emit.type(x).shape
    padded = (1,) * (len(size) - len(shape)) + shape
    whole = tuple(n if m == -1 else m for n, m in zip(padded, size, strict=True))
    return x if whole == shape else emit("expand", x, whole)


def _broadcast(emit: Emit, x: Value, size: Sequence[int], dims: Sequence[int]) -> Value:
    """Dim k of x becomes dim `dims[k]` of the result; the others are repeated."""
    place = dict(zip(dims, emit.type(x).shape, strict=True))
    return _expand(emit, emit.view(x, tuple(place.get(d, 1) for d in range(len(size)))), size)


def _repeat(emit: Emit, x: Value, repeats: Sequence[int]) -> Value:
    shape = emit.type(x).shape
    padded = (1,) * (len(repeats) - len(shape)) + shape
    x = emit.view(x, tuple(m for n in padded for m in (1, n)))
    wide = tuple(m for pair in zip(repeats, padded, strict=True) for m in pair)
    x = _expand(emit, x, wide)
    return emit.view(x, tuple(r * n for r, n in zip(repeats, padded, strict=True)))


def slice_rule(
    emit: Emit,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """`slice` with its bounds inside the dim; the value itself if nothing is cut off."""
    shape = emit.type(x).shape
    dim = dim_of(dim, len(shape))
    first, last, _ = slice(start, end).indices(shape[dim])
    last = max(first, last)
    if (first, last, step) == (0, shape[dim], 1):
        return x
    return emit("slice", x, dim, first, last, step)


def _slice_backward(
    emit: Emit, grad: Value, size: Sequence[int], dim: int, start: int, end: int, step: int
) -> Value:
    dim = dim_of(dim, len(size))
    first, last, _ = slice(start, end).indices(size[dim])
    if (first, last, step) == (0, size[dim], 1):
        return grad
    return emit("slice_backward", grad, tuple(size), dim, first, last, step)


def _select(emit: Emit, x: Value, dim: int, index: int) -> Value:
    shape = emit.type(x).shape
    dim = dim_of(dim, len(shape))
    index %= shape[dim]
    part = slice_rule(emit, x, dim, index, index + 1)
    return emit.view(part, (*shape[:dim], *shape[dim + 1 :]))


def _unbind(emit: Emit, x: Value, dim: int = 0) -> tuple[Value, ...]:
    length = emit.type(x).shape[dim_of(dim, emit.rank(x))]
    return tuple(_select(emit, x, dim, index) for index in range(length))


def _split(emit: Emit, x: Value, size: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    length = emit.type(x).shape[dim_of(dim, emit.rank(x))]
    if isinstance(size, int):
        size = [min(size, length - start) for start in range(0, length, size)] or [0]
    parts: list[Value] = []
    start = 0
    for n in size:
        parts.append(slice_rule(emit, x, dim, start, start + n))
        start += n
    return tuple(parts)


def _cat(emit: Emit, tensors: Sequence[Value], dim: int = 0) -> Value:
    # ATen skips tensors of shape (0,) whatever the others' rank.
    parts = [t for t in tensors if emit.type(t).shape != (0,)] or list(tensors[:1])
    dtype = promote(*(emit.type(t) for t in parts))
    parts = [emit.cast(t, dtype) for t in parts]
    dim = dim_of(dim, emit.rank(parts[0]))
    return parts[0] if len(parts) == 1 else emit("cat", tuple(parts), dim)


def _stack(emit: Emit, tensors: Sequence[Value], dim: int = 0) -> Value:
    return _cat(
        emit, [_unsqueeze(emit, t, dim) for t in tensors], dim % (emit.rank(tensors[0]) + 1)
    )


_SAME = (
    *(aten.clone.default, aten.detach.default, aten.alias.default, aten.contiguous.default),
    *(aten.lift.default, aten.lift_fresh.default, aten.lift_fresh_copy.default),
    aten.positive.default,
)

SHAPE: Rules = {
    **dict.fromkeys(_SAME, _same),
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.reshape.default: _view,
    aten._reshape_alias.default: lambda emit, x, size, stride: _view(emit, x, size),
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.default: _squeeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _t,
    aten.expand.default: _expand,
    prims.broadcast_in_dim.default: _broadcast,
    aten.repeat.default: _repeat,
    aten.slice.Tensor: slice_rule,
    aten.slice_backward.default: _slice_backward,
    aten.select.int: _select,
    aten.unbind.int: _unbind,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
}
