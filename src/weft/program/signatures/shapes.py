"""Signatures of operators that create, rename, move and reduce."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.program.signatures.law import (
    Dims,
    DTypeName,
    Number,
    Outputs,
    Signature,
    require,
    require_dim,
)
from weft.program.types import DType, TensorType

__all__ = ["SHAPES"]


def _full(size: Dims, value: Number, dtype: DTypeName) -> Outputs:
    return (TensorType(DType(dtype), size),)


def _iota(n: int, start: Number, step: Number, dtype: DTypeName) -> Outputs:
    return (TensorType(DType(dtype), (n,)),)


def _uniform(seed: TensorType, salt: int, size: Dims) -> Outputs:
    require(not seed.shape and not seed.dtype.is_float, "an integer seed without dims", seed)
    require(0 <= salt < 2**31, "a salt from 0 to 2**31 - 1", salt)
    return (TensorType(DType.F32, size),)


def _uniform_part(
    seed: TensorType, index: TensorType, salt: int, size: Dims, dim: int, pieces: int
) -> Outputs:
    require(not index.shape and not index.dtype.is_float, "an integer index without dims", index)
    require(
        0 <= dim < len(size) and pieces >= 1, "a dim of the tensor, cut in pieces", (dim, pieces)
    )
    return _uniform(seed, salt, size)


def _view(x: TensorType, size: Dims) -> Outputs:
    out = TensorType(x.dtype, size)
    require(out.num_elements == x.num_elements, "as many elements as before", f"{x} as {out}")
    return (out,)


def _send(x: TensorType, name: str) -> Outputs:
    return (x,)


def _permute(x: TensorType, dims: Dims) -> Outputs:
    require(
        sorted(dims) == list(range(len(x.shape))),
        "each dim of the tensor once, counted from 0",
        f"dims {dims} of {x}",
    )
    return (TensorType(x.dtype, tuple(x.shape[d] for d in dims)),)


def _expand(x: TensorType, size: Dims) -> Outputs:
    new = len(size) - len(x.shape)
    fits = new >= 0 and all(n in (1, m) for n, m in zip(x.shape, size[new:], strict=True))
    require(
        fits, "the old sizes, with dims of size 1 and new leading dims repeated", f"{x} to {size}"
    )
    return (TensorType(x.dtype, size),)


def _slice_length(length: int, start: int, end: int, step: int) -> int:
    require(
        0 <= start <= end <= length and step >= 1,
        "0 <= start <= end <= size and a step of at least 1",
        f"start {start}, end {end}, step {step} of size {length}",
        "clamp the bounds to the size",
    )
    return -(-(end - start) // step)


def _slice(x: TensorType, dim: int, start: int, end: int, step: int = 1) -> Outputs:
    require_dim(x, dim)
    length = _slice_length(x.shape[dim], start, end, step)
    return (TensorType(x.dtype, (*x.shape[:dim], length, *x.shape[dim + 1 :])),)


def _slice_backward(
    grad: TensorType, size: Dims, dim: int, start: int, end: int, step: int = 1
) -> Outputs:
    whole = TensorType(grad.dtype, size)
    require(
        _slice(whole, dim, start, end, step) == (grad,),
        "a gradient of the slice's own shape",
        f"{grad} for dim {dim}, {start} to {end} step {step} of {size}",
    )
    return (whole,)


def _cat(tensors: tuple[TensorType, ...], dim: int = 0) -> Outputs:
    require(len(tensors) > 0, "at least one tensor", "none")
    first = tensors[0]
    require_dim(first, dim)
    rests = {(t.dtype, t.shape[:dim], t.shape[dim + 1 :]) for t in tensors}
    require(
        len(rests) == 1 and len({len(t.shape) for t in tensors}) == 1,
        f"tensors that agree in type and in every dim but {dim}",
        ", ".join(map(str, tensors)),
    )
    length = sum(t.shape[dim] for t in tensors)
    return (TensorType(first.dtype, (*first.shape[:dim], length, *first.shape[dim + 1 :])),)


def _reduced(x: TensorType, dims: Dims, keepdim: bool) -> Dims:
    require(
        len(dims) > 0 and len(set(dims)) == len(dims) and all(0 <= d < len(x.shape) for d in dims),
        "one or more different dims of the tensor, counted from 0",
        f"dims {dims} of {x}",
    )
    if keepdim:
        return tuple(1 if d in dims else n for d, n in enumerate(x.shape))
    return tuple(n for d, n in enumerate(x.shape) if d not in dims)


def _sum(x: TensorType, dims: Dims, keepdim: bool = False) -> Outputs:
    dtype = x.dtype if x.dtype.is_float else DType.I64
    return (TensorType(dtype, _reduced(x, dims, keepdim)),)


def _amax(x: TensorType, dims: Dims, keepdim: bool = False) -> Outputs:
    return (TensorType(x.dtype, _reduced(x, dims, keepdim)),)


def _cumsum(x: TensorType, dim: int) -> Outputs:
    require_dim(x, dim)
    return (TensorType(x.dtype if x.dtype.is_float else DType.I64, x.shape),)


def _argmax(x: TensorType, dim: int | None = None, keepdim: bool = False) -> Outputs:
    dims = tuple(range(len(x.shape))) if dim is None else (dim,)
    return (TensorType(DType.I64, _reduced(x, dims, keepdim)),)


SHAPES: Mapping[str, Signature] = MappingProxyType(
    {
        "full": _full,
        "iota": _iota,
        "uniform": _uniform,
        "uniform_part": _uniform_part,
        "view": _view,
        "send": _send,
        "permute": _permute,
        "expand": _expand,
        "slice": _slice,
        "slice_backward": _slice_backward,
        "cat": _cat,
        "sum": _sum,
        "amax": _amax,
        "cumsum": _cumsum,
        "argmax.default": _argmax,
    }
)
