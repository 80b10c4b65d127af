"""Operators that create, rename, move, reduce and look up, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from weft.program.evaluate.arrays import Array
from weft.program.random import row_major_strides, uniform

__all__ = ["SHAPES"]

_Dims = tuple[int, ...]


def _full(size: _Dims, value: float, dtype: str) -> Array:
    return np.full(size, value)


def _uniform(seed: Array, salt: int, size: _Dims) -> Array:
    return uniform(int(seed), salt, size)


def _uniform_part(
    seed: Array, index: Array, salt: int, size: _Dims, dim: int, pieces: int
) -> Array:
    shape = (*size[:dim], size[dim] * pieces, *size[dim + 1 :])
    offsets = tuple(int(index) * size[dim] if d == dim else 0 for d in range(len(size)))
    return uniform(int(seed), salt, size, offsets, row_major_strides(shape))


def _iota(n: int, start: float, step: float, dtype: str) -> Array:
    return start + step * np.arange(n)


def _along(rank: int, dim: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if d == dim else slice(None) for d in range(rank))


def _slice(x: Array, dim: int, start: int, end: int, step: int = 1) -> Array:
    return x[_along(x.ndim, dim, slice(start, end, step))]


def _slice_backward(
    grad: Array, size: _Dims, dim: int, start: int, end: int, step: int = 1
) -> Array:
    whole = np.zeros(size, dtype=grad.dtype)
    whole[_along(len(size), dim, slice(start, end, step))] = grad
    return whole


def _cat(tensors: tuple[Array, ...], dim: int = 0) -> Array:
    return np.concatenate(tensors, axis=dim)


def _sum(x: Array, dims: _Dims, keepdim: bool = False) -> Array:
    return np.sum(x, axis=dims, keepdims=keepdim)


def _amax(x: Array, dims: _Dims, keepdim: bool = False) -> Array:
    return np.max(x, axis=dims, keepdims=keepdim)


def _cumsum(x: Array, dim: int) -> Array:
    return np.cumsum(x, axis=dim)


def _argmax(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    return np.argmax(x, axis=dim, keepdims=keepdim)


def _embedding(weight: Array, indices: Array, *ignored: object) -> Array:
    # The padding row is a row like others until gradients are added up.
    return weight[indices]


def _embedding_backward(
    grad: Array, indices: Array, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> Array:
    table = np.zeros((num_weights, grad.shape[-1]), dtype=grad.dtype)
    kept = indices != padding_idx
    np.add.at(table, indices[kept], grad[kept])
    return table


def _places(index: Array, dim: int) -> tuple[Array, ...]:
    """For each element of an index, where in the tensor it points: along `dim` as it says."""
    places: list[Array] = list(np.indices(index.shape, sparse=True))
    places[dim] = index
    return tuple(places)


def _gather(x: Array, dim: int, index: Array, sparse_grad: bool = False) -> Array:
    return x[_places(index, dim)]


def _scatter_add(x: Array, dim: int, index: Array, src: Array) -> Array:
    out = x.copy()
    np.add.at(out, _places(index, dim), src[tuple(map(slice, index.shape))])
    return out


def _index_select(x: Array, dim: int, index: Array) -> Array:
    return np.take(x, index, axis=dim)


def _topk(
    x: Array, k: int, dim: int, largest: bool = True, is_sorted: bool = True
) -> tuple[Array, Array]:
    order = np.argsort(-x if largest else x, axis=dim, kind="stable")
    indices = _slice(order, dim, 0, k)
    return np.take_along_axis(x, indices, axis=dim), indices


SHAPES: Mapping[str, Callable[..., Array | tuple[Array, ...]]] = MappingProxyType(
    {
        "full": _full,
        "iota": _iota,
        "uniform": _uniform,
        "uniform_part": _uniform_part,
        "view": np.reshape,
        "permute": np.transpose,
        "expand": np.broadcast_to,
        "slice": _slice,
        "slice_backward": _slice_backward,
        "cat": _cat,
        "sum": _sum,
        "amax": _amax,
        "cumsum": _cumsum,
        "argmax.default": _argmax,
        "embedding.default": _embedding,
        "embedding_dense_backward.default": _embedding_backward,
        "gather.default": _gather,
        "scatter_add.default": _scatter_add,
        "index_select.default": _index_select,
        "topk.default": _topk,
    }
)
