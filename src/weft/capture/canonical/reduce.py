"""Rules of reductions, products, attention, convolution, normalisation and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import weft.capture.operators  # noqa: F401  torch.ops.weft exists once this has run
from weft.capture.canonical.emit import (
    Emit,
    Rule,
    Rules,
    dim_of,
    dims_of,
    overload,
    positional,
)
from weft.capture.dtypes import from_torch_dtype
from weft.program.graph import Value
from weft.program.types import DType

__all__ = ["REDUCE"]

aten, own = torch.ops.aten, torch.ops.weft


def _sum(
    emit: Emit,
    x: Value,
    dims: Sequence[int] | int | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    made = emit.type(x).dtype
    wanted = made if made.is_float else DType.I64
    x = emit.cast(x, wanted if dtype is None else from_torch_dtype(dtype))
    over = dims_of(dims, emit.rank(x))
    return emit("sum", x, over, keepdim) if over else x


def _amax(emit: Emit, x: Value, dims: Sequence[int] | int = (), keepdim: bool = False) -> Value:
    over = dims_of(dims, emit.rank(x))
    return emit("amax", x, over, keepdim) if over else x


def _argmax(emit: Emit, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    if dim is None:
        x = emit.view(x, (emit.type(x).num_elements,))
        return emit("argmax.default", x, 0, False)
    return emit("argmax.default", x, dim_of(dim, emit.rank(x)), keepdim)


def _cumsum(emit: Emit, x: Value, dim: int, *, dtype: torch.dtype | None = None) -> Value:
    x = x if dtype is None else emit.cast(x, from_torch_dtype(dtype))
    return emit("cumsum", x, dim_of(dim, emit.rank(x))) if emit.rank(x) else x


def _softmax(emit: Emit, x: Value, dim: int, half_to_float: bool) -> Value:
    return emit("_softmax.default", x, dim_of(dim, emit.rank(x)), half_to_float)


def _softmax_backward(
    emit: Emit, grad: Value, output: Value, dim: int, input_dtype: torch.dtype
) -> Value:
    dtype = from_torch_dtype(input_dtype).value
    return emit(
        "_softmax_backward_data.default", grad, output, dim_of(dim, emit.rank(output)), dtype
    )


def _product(equation: str) -> Rule:
    return lambda emit, a, b: emit("einsum", equation, a, b)


_POSITIONAL = (
    *("convolution", "convolution_backward", "native_layer_norm", "native_layer_norm_backward"),
    *("max_pool2d_with_indices", "max_pool2d_with_indices_backward"),
    *("avg_pool2d", "avg_pool2d_backward"),
)

REDUCE: Rules = {overload(name): positional(f"{name}.default") for name in _POSITIONAL} | {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.amax.default: _amax,
    aten.argmax.default: _argmax,
    aten.cumsum.default: _cumsum,
    aten._softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.mm.default: _product("ab,bc->ac"),
    aten.bmm.default: _product("abc,acd->abd"),
    aten.mv.default: _product("ab,b->a"),
    aten.dot.default: _product("a,a->"),
    own.uniform.default: positional("uniform"),
    own.attention.default: positional("attention"),
    own.attention_backward.default: positional("attention_backward"),
}
