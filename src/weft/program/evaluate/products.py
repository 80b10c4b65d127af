"""Matrix products, attention, softmax and layer norm on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from weft.program.evaluate.arrays import Array

__all__ = ["PRODUCTS"]


def _einsum(equation: str, a: Array, b: Array) -> Array:
    return np.einsum(equation, a, b, optimize=True)


def _scores(q: Array, k: Array, causal: bool, scale: float) -> Array:
    """Scaled products of queries and keys [B,H,T,S]; -inf where a key is in the future."""
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * np.asarray(scale, dtype=q.dtype)
    if causal:
        visible = np.tri(q.shape[-2], k.shape[-2], dtype=bool)
        scores = np.where(visible, scores, -np.inf)
    return scores


def _attention(q: Array, k: Array, v: Array, causal: bool, scale: float) -> tuple[Array, Array]:
    scores = _scores(q, k, causal, scale)
    peak = np.max(scores, axis=-1, keepdims=True)
    powers = np.exp(scores - peak)
    norm = np.sum(powers, axis=-1, keepdims=True)
    return np.matmul(powers / norm, v), (peak + np.log(norm))[..., 0]


def _attention_backward(
    grad: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    logsumexp: Array,
    causal: bool,
    scale: float,
) -> tuple[Array, Array, Array]:
    weights = np.exp(_scores(q, k, causal, scale) - logsumexp[..., None])
    offset = np.sum(grad * out, axis=-1, keepdims=True)
    slope = weights * (np.matmul(grad, np.swapaxes(v, -1, -2)) - offset) * scale
    dq, dk = np.matmul(slope, k), np.matmul(np.swapaxes(slope, -1, -2), q)
    return dq, dk, np.matmul(np.swapaxes(weights, -1, -2), grad)


def _softmax(x: Array, dim: int, half_to_float: bool = False) -> Array:
    powers = np.exp(x - np.max(x, axis=dim, keepdims=True))
    return powers / np.sum(powers, axis=dim, keepdims=True)


def _softmax_backward(grad: Array, output: Array, dim: int, input_dtype: str) -> Array:
    weighted = grad * output
    return weighted - output * np.sum(weighted, axis=dim, keepdims=True)


def _layer_norm(
    x: Array, normalized: tuple[int, ...], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    axes = tuple(range(x.ndim - len(normalized), x.ndim))
    mean = np.mean(x, axis=axes, keepdims=True)
    variance = np.mean((x - mean) ** 2, axis=axes, keepdims=True)
    rstd = 1.0 / np.sqrt(variance + eps)
    out = (x - mean) * rstd
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, rstd


def _layer_norm_backward(
    grad: Array,
    x: Array,
    normalized: tuple[int, ...],
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    output_mask: tuple[bool, ...],
) -> tuple[Array, ...]:
    axes = tuple(range(x.ndim - len(normalized), x.ndim))
    others = tuple(range(x.ndim - len(normalized)))
    normal = (x - mean) * rstd
    inner = grad if weight is None else grad * weight
    centred = inner - np.mean(inner, axis=axes, keepdims=True)
    dx = rstd * (centred - normal * np.mean(inner * normal, axis=axes, keepdims=True))
    made = (dx, np.sum(grad * normal, axis=others), np.sum(grad, axis=others))
    return tuple(g if on else np.zeros(0) for g, on in zip(made, output_mask, strict=True))


PRODUCTS: Mapping[str, Callable[..., Array | tuple[Array, ...]]] = MappingProxyType(
    {
        "einsum": _einsum,
        "attention": _attention,
        "attention_backward": _attention_backward,
        "_softmax.default": _softmax,
        "_softmax_backward_data.default": _softmax_backward,
        "native_layer_norm.default": _layer_norm,
        "native_layer_norm_backward.default": _layer_norm_backward,
    }
)
