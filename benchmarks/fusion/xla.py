"""The same graphs in JAX, compiled by XLA for CPUs; a further contestant where JAX is installed.

Names, arguments and shapes are those of `benchmarks.fusion.cases`. XLA takes as many threads as
the variable NPROC says when the process starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from benchmarks.fusion.cases import HEAD_SCALE, KEPT_SCALE, Graph

__all__ = ["in_xla", "is_there", "to_torch"]

Array: TypeAlias = Any
"""An array of JAX, or several: nothing here knows the library's types."""

jax: Any
jnp: Any
try:
    jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")
except ImportError:
    jax, jnp = None, None
is_there = jax is not None


def in_xla(graph: Graph, inputs: Sequence[Tensor]) -> Callable[[], Array]:
    """The graph on copies of the inputs; a call returns once the outputs are there."""
    arrays = [jnp.asarray(tensor.numpy()) for tensor in inputs]
    ready = jax.jit(COMPUTE[graph.name])
    return lambda: jax.block_until_ready(ready(*arrays))


def to_torch(result: Array) -> tuple[Tensor, ...]:
    """Results of a call, as tensors."""
    return tuple(torch.from_dlpack(array) for array in jax.tree.leaves(result))


def _normed(x: Array, weight: Array, bias: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-5) * weight + bias


def _residual_norm_gelu_dropout(
    x: Array, residual: Array, weight: Array, bias: Array, kept: Array
) -> Array:
    total = x + residual
    active = jax.nn.gelu(_normed(total, weight, bias), approximate=False)
    return total, active * kept * KEPT_SCALE


def _masked_softmax(scores: Array, mask: Array) -> Array:
    return jax.nn.softmax(scores * HEAD_SCALE + mask, -1)


def _rms_norm(x: Array, weight: Array) -> Array:
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight


def _rms_norm_and_backward(x: Array, weight: Array, grad: Array) -> Array:
    y, backward = jax.vjp(_rms_norm, x, weight)
    return y, backward(grad)


def _layer_norm_backward(
    grad: Array, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array
) -> Array:
    unit = (x - mean) * rstd
    scaled = grad * weight
    along = (scaled * unit).mean(-1, keepdims=True)
    inner = rstd * (scaled - scaled.mean(-1, keepdims=True) - unit * along)
    return inner, (grad * unit).sum(0), grad.sum(0)


def _turned(x: Array) -> Array:
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate((-second, first), -1)


def _rotary_embedding(query: Array, key: Array, cosine: Array, sine: Array) -> Array:
    return query * cosine + _turned(query) * sine, key * cosine + _turned(key) * sine


def _swiglu(x: Array) -> Array:
    gate, value = jnp.split(x, 2, -1)
    return jax.nn.silu(gate) * value


def _swiglu_and_backward(x: Array, grad: Array) -> Array:
    y, backward = jax.vjp(_swiglu, x)
    return y, backward(grad)


def _cross_entropy_and_backward(logits: Array, targets: Array) -> Array:
    def loss_of(logits: Array) -> Array:
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits, -1), targets[:, None], -1)
        return -picked.mean()

    return jax.value_and_grad(loss_of)(logits)


def _adam_step(param: Array, grad: Array, first: Array, second: Array) -> Array:
    new_first = first + 0.1 * (grad - first)
    new_second = second * 0.999 + 0.001 * grad * grad
    moved = 1e-3 * new_first / (jnp.sqrt(new_second) + 1e-8)
    return param * (1 - 1e-4) - moved, new_first, new_second


def _group_norm_silu(x: Array, weight: Array, bias: Array) -> Array:
    groups = x.reshape(x.shape[0], 32, -1)
    normed = _normed(groups, 1.0, 0.0).reshape(x.shape)
    return jax.nn.silu(normed * weight[:, None, None] + bias[:, None, None])


def _outer_softmax(x: Array) -> Array:
    return jax.nn.softmax(x, 1)


def _batch_norm_relu(x: Array, weight: Array, bias: Array) -> Array:
    mean = x.mean((0, 2, 3), keepdims=True)
    centred = x - mean
    rstd = jax.lax.rsqrt((centred * centred).mean((0, 2, 3), keepdims=True) + 1e-5)
    return jax.nn.relu(centred * rstd * weight[:, None, None] + bias[:, None, None])


def _cast_transpose_amax(x: Array) -> Array:
    low = (x * 0.5).astype(jnp.bfloat16)
    return low, low.T, abs(x).max()


def _row_and_column_statistics(x: Array) -> Array:
    square = x * x
    return x.sum(0), x.sum(1), square.sum(0), square.sum(1)


def _norm_of_sum_with_norm(x: Array, y: Array, weight: Array, bias: Array) -> Array:
    return _normed(x + _normed(y, weight, bias), weight, bias)


def _softmax_dropout_backward(probabilities: Array, grad: Array, kept: Array) -> Array:
    grad = grad * kept * KEPT_SCALE
    inner = (grad * probabilities).sum(-1, keepdims=True)
    return probabilities * (grad - inner) * HEAD_SCALE


def _attention_and_gates(
    history: Array,
    query: Array,
    seen: Array,
    update: Array,
    reset: Array,
    candidate: Array,
    weight: Array,
) -> Array:
    wide = jnp.broadcast_to(query[:, None], history.shape)
    pairs = jnp.concatenate((wide, history, wide - history, wide * history), -1)
    scores = jnp.where(seen, (pairs * weight).sum(-1), -1e9)
    attention = jax.nn.softmax(scores, -1)[..., None]
    gate = jax.nn.sigmoid(update) * attention
    evolved = (1 - gate) * history + gate * jnp.tanh(candidate * jax.nn.sigmoid(reset))
    interest = (evolved * attention).sum(1)
    centred = interest - interest.mean(-1, keepdims=True)
    return evolved, interest, jax.nn.relu(centred), pairs.mean(1)


COMPUTE: dict[str, Callable[..., Array]] = {
    "res_ln_gelu_drop": _residual_norm_gelu_dropout,
    "softmax_mask": _masked_softmax,
    "rmsnorm_fb": _rms_norm_and_backward,
    "ln_bwd": _layer_norm_backward,
    "rope": _rotary_embedding,
    "swiglu_fb": _swiglu_and_backward,
    "cross_entropy_fb": _cross_entropy_and_backward,
    "adam": _adam_step,
    "groupnorm_silu": _group_norm_silu,
    "softmax_outer": _outer_softmax,
    "batchnorm_relu": _batch_norm_relu,
    "cast_transpose_amax": _cast_transpose_amax,
    "row_col_stats": _row_and_column_statistics,
    "ln_ln_residual": _norm_of_sum_with_norm,
    "attn_softmax_drop_bwd": _softmax_dropout_backward,
    "dien_like": _attention_and_gates,
}
