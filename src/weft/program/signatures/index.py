"""Signatures of operators that look elements up by index."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.program.signatures.law import Outputs, Signature, require, require_dim
from weft.program.types import DType, TensorType

__all__ = ["INDEX"]


def _require_index(index: TensorType) -> None:
    require(index.dtype in (DType.I64, DType.I32), "integer indices", index)


def _embedding(
    weight: TensorType,
    indices: TensorType,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Outputs:
    _require_index(indices)
    require(len(weight.shape) == 2 and not sparse, "a dense table of rows", weight)
    return (TensorType(weight.dtype, (*indices.shape, weight.shape[1])),)


def _embedding_backward(
    grad: TensorType,
    indices: TensorType,
    num_weights: int,
    padding_idx: int,
    scale_grad_by_freq: bool,
) -> Outputs:
    _require_index(indices)
    require(
        grad.shape[:-1] == indices.shape and bool(grad.shape) and not scale_grad_by_freq,
        "one gradient row for each index, not scaled by frequency",
        f"{grad} for {indices}, scale_grad_by_freq {scale_grad_by_freq}",
    )
    return (TensorType(grad.dtype, (num_weights, grad.shape[-1])),)


def _gather(x: TensorType, dim: int, index: TensorType, sparse_grad: bool = False) -> Outputs:
    require_dim(x, dim)
    _require_index(index)
    fits = len(index.shape) == len(x.shape) and all(
        d == dim or n <= m for d, (n, m) in enumerate(zip(index.shape, x.shape, strict=True))
    )
    require(fits, f"an index no larger than the tensor in every dim but {dim}", f"{index} of {x}")
    return (TensorType(x.dtype, index.shape),)


def _scatter_add(x: TensorType, dim: int, index: TensorType, src: TensorType) -> Outputs:
    _gather(x, dim, index)
    require(
        src.dtype is x.dtype
        and len(src.shape) == len(index.shape)
        and all(n <= m for n, m in zip(index.shape, src.shape, strict=True)),
        "a source of the tensor's type, at least as large as the index",
        f"{src} for index {index} into {x}",
    )
    return (x,)


def _index_select(x: TensorType, dim: int, index: TensorType) -> Outputs:
    require_dim(x, dim)
    _require_index(index)
    require(len(index.shape) == 1, "an index of one dim", index)
    return (TensorType(x.dtype, (*x.shape[:dim], index.shape[0], *x.shape[dim + 1 :])),)


def _topk(x: TensorType, k: int, dim: int, largest: bool = True, is_sorted: bool = True) -> Outputs:
    require_dim(x, dim)
    require(0 <= k <= x.shape[dim], f"at most {x.shape[dim]} elements along dim {dim}", f"k {k}")
    shape = (*x.shape[:dim], k, *x.shape[dim + 1 :])
    return (TensorType(x.dtype, shape), TensorType(DType.I64, shape))


INDEX: Mapping[str, Signature] = MappingProxyType(
    {
        "embedding.default": _embedding,
        "embedding_dense_backward.default": _embedding_backward,
        "gather.default": _gather,
        "scatter_add.default": _scatter_add,
        "index_select.default": _index_select,
        "topk.default": _topk,
    }
)
