"""Rules of operators that make tensors from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from weft.capture.canonical.emit import (
    Emit,
    Number,
    Rule,
    Rules,
    number_of,
)
from weft.capture.dtypes import from_torch_dtype
from weft.program.graph import Value
from weft.program.types import DType, TensorType

__all__ = ["CREATE", "constant"]

aten = torch.ops.aten


def constant(emit: Emit, elements: Sequence[Number], tensor_type: TensorType) -> Value:
    """A small tensor written out: one value, a range, or a row of single values."""
    dtype = tensor_type.dtype
    if len(set(elements)) <= 1:
        return emit.full(tensor_type.shape, elements[0] if elements else 0, dtype)
    steps = {b - a for a, b in pairwise(elements)}
    if dtype is DType.I64 and len(steps) == 1:
        row = emit("iota", len(elements), elements[0], steps.pop(), dtype.value)
    else:
        row = emit("cat", tuple(emit.full((1,), e, dtype) for e in elements), 0)
    return emit.view(row, tensor_type.shape)


def _full(
    emit: Emit,
    size: Sequence[int],
    value: Number,
    *,
    dtype: torch.dtype | None = None,
    **_: object,
) -> Value:
    made = torch.get_default_dtype() if isinstance(value, float) else torch.int64
    made = torch.bool if isinstance(value, bool) else made
    return emit.full(tuple(size), value, from_torch_dtype(dtype or made))


def _filled(value: Number) -> Rule:
    """zeros, ones, empty: memory that nobody wrote is zero."""

    def rule(
        emit: Emit, size: Sequence[int], *, dtype: torch.dtype | None = None, **_: object
    ) -> Value:
        made = from_torch_dtype(dtype or torch.get_default_dtype())
        return emit.full(tuple(size), value, made)

    return rule


def _filled_like(value: Number) -> Rule:
    return lambda emit, x, **named: _full_like(emit, x, value, **named)


def _full_like(
    emit: Emit, x: Value, value: Number, *, dtype: torch.dtype | None = None, **_: object
) -> Value:
    own = emit.type(x)
    return emit.full(own.shape, value, own.dtype if dtype is None else from_torch_dtype(dtype))


def _new(value: Number) -> Rule:
    return lambda emit, x, size, **named: _new_full(emit, x, size, value, **named)


def _new_full(
    emit: Emit,
    x: Value,
    size: Sequence[int],
    value: Number,
    *,
    dtype: torch.dtype | None = None,
    **_: object,
) -> Value:
    own = emit.type(x).dtype
    return emit.full(tuple(size), value, own if dtype is None else from_torch_dtype(dtype))


def _scalar_tensor(
    emit: Emit, value: Number, *, dtype: torch.dtype | None = None, **_: object
) -> Value:
    return emit.full((), value, from_torch_dtype(dtype or torch.get_default_dtype()))


def _arange(
    emit: Emit,
    start: Number,
    end: Number,
    step: Number = 1,
    *,
    dtype: torch.dtype | None = None,
    **_: object,
) -> Value:
    whole = all(isinstance(n, int) for n in (start, end, step))
    made = from_torch_dtype(dtype or (torch.int64 if whole else torch.get_default_dtype()))
    length = max(0, -int((start - end) // step))
    return emit("iota", length, number_of(start, made), number_of(step, made), made.value)


def _iota(
    emit: Emit, length: int, *, start: int, step: int, dtype: torch.dtype, **_: object
) -> Value:
    return emit("iota", length, start, step, from_torch_dtype(dtype).value)


CREATE: Rules = {
    torch.ops.prims.iota.default: _iota,
    aten.full.default: _full,
    aten.zeros.default: _filled(0),
    aten.ones.default: _filled(1),
    aten.empty.memory_format: _filled(0),
    aten.empty_permuted.default: lambda emit, size, *_, **k: _filled(0)(emit, size, **k),
    aten.empty_strided.default: lambda emit, size, *_, **k: _filled(0)(emit, size, **k),
    aten.zeros_like.default: _filled_like(0),
    aten.ones_like.default: _filled_like(1),
    aten.empty_like.default: _filled_like(0),
    aten.full_like.default: _full_like,
    aten.new_zeros.default: _new(0),
    aten.new_ones.default: _new(1),
    aten.new_empty.default: _new(0),
    aten.new_empty_strided.default: lambda emit, x, size, *_, **k: _new(0)(emit, x, size, **k),
    aten.new_full.default: _new_full,
    aten.scalar_tensor.default: _scalar_tensor,
    aten.arange.default: lambda emit, end, **k: _arange(emit, 0, end, **k),
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
}
