"""Rules of operators that look elements up, or put them, by index."""

from __future__ import annotations

import torch

from weft.capture.canonical.emit import (
    Emit,
    Operand,
    Rules,
    dim_of,
    overload,
    positional,
)
from weft.capture.canonical.shape import slice_rule
from weft.program.graph import Value

__all__ = ["INDEX"]

aten = torch.ops.aten


def _scatter(emit: Emit, x: Value, dim: int, index: Value, src: Operand) -> Value:
    """Overwriting by index, for an index of one element along the dim: compare and choose."""
    own, dim = emit.type(x), dim_of(dim, emit.rank(x))
    if emit.type(index).shape[dim] != 1 and x not in emit.zeros:
        return NotImplemented
    if not isinstance(src, Value):
        src = emit.full(emit.type(index).shape, src, own.dtype)
    src = _slice_to(emit, src, emit.type(index).shape)
    if emit.type(index).shape[dim] != 1:
        # Into zeros, with indices that do not repeat, adding is overwriting.
        return emit("scatter_add.default", x, dim, index, src)
    if emit.type(index).shape != (*own.shape[:dim], 1, *own.shape[dim + 1 :]):
        return NotImplemented
    along = tuple(own.shape[dim] if d == dim else 1 for d in range(len(own.shape)))
    row = emit("iota", own.shape[dim], 0, 1, emit.type(index).dtype.value)
    return emit("where.self", emit("eq.Tensor", index, emit.view(row, along)), src, x)


def _slice_to(emit: Emit, x: Value, shape: tuple[int, ...]) -> Value:
    for dim, n in enumerate(shape):
        x = slice_rule(emit, x, dim, 0, n)
    return x


def _scatter_add(emit: Emit, x: Value, dim: int, index: Value, src: Value) -> Value:
    return emit("scatter_add.default", x, dim_of(dim, emit.rank(x)), index, src)


def _gather(emit: Emit, x: Value, dim: int, index: Value, **_: object) -> Value:
    return emit("gather.default", x, dim_of(dim, emit.rank(x)), index)


def _index_select(emit: Emit, x: Value, dim: int, index: Value) -> Value:
    return emit("index_select.default", x, dim_of(dim, emit.rank(x)), index)


def _topk(
    emit: Emit, x: Value, k: int, dim: int = -1, largest: bool = True, is_sorted: bool = True
) -> tuple[Value, ...]:
    return emit.all("topk.default", x, k, dim_of(dim, emit.rank(x)), largest, is_sorted)


def _embedding(emit: Emit, weight: Value, index: Value, *_: object) -> Value:
    return emit("embedding.default", weight, index)


INDEX: Rules = {
    aten.scatter.src: _scatter,
    aten.scatter.value: _scatter,
    aten.scatter_add.default: _scatter_add,
    aten.gather.default: _gather,
    aten.index_select.default: _index_select,
    aten.topk.default: _topk,
    aten.embedding.default: _embedding,
    overload("embedding_dense_backward"): positional("embedding_dense_backward.default"),
}
