"""Sixteen graphs that move memory and multiply no matrices, each in three sizes.

They are what models spend time on between their products: norms, softmaxes, gates, losses and
optimizers, forward, backward or both. Small ones fit in a cache of the second level, middle ones
are about as large as one of the third level or a few times so, large ones come from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["GRAPHS", "SIZES", "Graph", "inputs_of", "tensors"]

Result: TypeAlias = Tensor | tuple[Tensor, ...]

SIZES = ("S", "M", "L")
ROWS = {"S": 256, "M": 8192, "L": 32_768}
WIDTH = 1024
ATTENTION = {"S": 1, "M": 32, "L": 128}
"""Heads of the whole batch."""
LENGTH = 512
DROPPED = 0.1
KEPT_SCALE = 1 / (1 - DROPPED)
HEAD_SCALE = 0.125
"""One over the root of 64 channels of a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A function to compile, and what it takes.

    Attributes:
        name: as it stands in the table.
        compute: tensors to a tensor or a tuple of them; pure.
        inputs: what it takes, by size; in float32 but for masks and indices.
        stitchable: whether a kernel written by hand is known to read and write less than one
            kernel for each loop nest does.
        reduces: whether it is a norm, a softmax or another reduction over what it also maps.
    """

    name: str
    compute: Callable[..., Result]
    inputs: Callable[[str], tuple[Tensor, ...]]
    stitchable: bool = False
    reduces: bool = False


def inputs_of(graph: Graph, size: str) -> tuple[Tensor, ...]:
    """The graph's inputs, the same ones at every call."""
    torch.manual_seed(0)
    return graph.inputs(size)


def tensors(result: Result) -> tuple[Tensor, ...]:
    """Results as a tuple, also if there is one only."""
    return (result,) if isinstance(result, Tensor) else result


def residual_norm_gelu_dropout(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, kept: Tensor
) -> Result:
    """The sum of a block, and dropout(gelu(norm(sum))).

    Args:
        x, residual, kept: [rows, width]
        weight, bias: [width]
    """
    total = x + residual
    normed = F.layer_norm(total, weight.shape, weight, bias)
    return total, F.gelu(normed) * kept * KEPT_SCALE


def _residual_norm_gelu_dropout_inputs(size: str) -> tuple[Tensor, ...]:
    return *_rows(size, 2), *_vectors(2), _kept(ROWS[size], WIDTH)


def masked_softmax(scores: Tensor, mask: Tensor) -> Result:
    """Attention's probabilities under a mask that is added.

    Args:
        scores: [heads, length, length]
        mask: [length, length]
    """
    return torch.softmax(scores * HEAD_SCALE + mask, -1)


def _masked_softmax_inputs(size: str) -> tuple[Tensor, ...]:
    scores = torch.randn(ATTENTION[size], LENGTH, LENGTH)
    return scores, torch.triu(torch.full((LENGTH, LENGTH), -1e9), 1)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """A row over the root of its mean square.

    Args:
        x: [rows, width]
        weight: [width]
    """
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def rms_norm_and_backward(x: Tensor, weight: Tensor, grad: Tensor) -> Result:
    """RMSNorm with the gradients of both of its inputs.

    Args:
        x, grad: [rows, width]
        weight: [width]
    """
    y, backward, *_ = torch.func.vjp(rms_norm, x, weight)
    return y, *backward(grad)


def _rms_norm_inputs(size: str) -> tuple[Tensor, ...]:
    (x, grad), (weight,) = _rows(size, 2), _vectors(1)
    return x, weight, grad


def layer_norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> Result:
    """Gradients of all inputs of a LayerNorm.

    Args:
        grad, x: [rows, width]
        mean, rstd: [rows, 1], as the forward saved them.
        weight, bias: [width]
    """
    return torch.ops.aten.native_layer_norm_backward(
        grad, x, weight.shape, mean, rstd, weight, bias, [True, True, True]
    )


def _layer_norm_backward_inputs(size: str) -> tuple[Tensor, ...]:
    grad, x = _rows(size, 2)
    mean = x.mean(-1, keepdim=True)
    rstd = torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    return grad, x, mean, rstd, *_vectors(2)


def turned(x: Tensor) -> Tensor:
    """The second half of the channels, negative, before the first.

    Args:
        x: [..., channels]
    """
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def rotary_embedding(query: Tensor, key: Tensor, cosine: Tensor, sine: Tensor) -> Result:
    """Queries and keys turned by their positions.

    Args:
        query, key: [batch, positions, heads, channels]
        cosine, sine: [positions, 1, channels]
    """
    return query * cosine + turned(query) * sine, key * cosine + turned(key) * sine


def _rotary_embedding_inputs(size: str) -> tuple[Tensor, ...]:
    shape = ({"S": 1, "M": 16, "L": 64}[size], 256, 16, 64)
    tables = (torch.randn(256, 1, 64), torch.randn(256, 1, 64))
    return torch.randn(shape), torch.randn(shape), *tables


def swiglu(x: Tensor) -> Tensor:
    """One half of the channels gates the other.

    Args:
        x: [rows, 2 width]
    """
    gate, value = x.chunk(2, -1)
    return F.silu(gate) * value


def swiglu_and_backward(x: Tensor, grad: Tensor) -> Result:
    """SwiGLU with its gradient.

    Args:
        x: [rows, 2 width]
        grad: [rows, width]
    """
    y, backward, *_ = torch.func.vjp(swiglu, x)
    return y, *backward(grad)


def _swiglu_inputs(size: str) -> tuple[Tensor, ...]:
    return torch.randn(ROWS[size], 2 * WIDTH), *_rows(size, 1)


def cross_entropy_and_backward(logits: Tensor, targets: Tensor) -> Result:
    """A language model's loss, and its gradient.

    Args:
        logits: [tokens, vocabulary]
        targets: [tokens], indices.
    """

    def loss_of(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets)

    loss, backward, *_ = torch.func.vjp(loss_of, logits)
    return loss, *backward(torch.ones_like(loss))


def _cross_entropy_inputs(size: str) -> tuple[Tensor, ...]:
    tokens, vocabulary = {"S": 8, "M": 256, "L": 1024}[size], 32_000
    return torch.randn(tokens, vocabulary), torch.randint(0, vocabulary, (tokens,))


def adam_step(param: Tensor, grad: Tensor, first: Tensor, second: Tensor) -> Result:
    """A parameter and both moments after a step of Adam with decoupled decay.

    Args:
        param, grad, first, second: [rows, width]
    """
    new_first = first.lerp(grad, 0.1)
    new_second = second * 0.999 + 0.001 * grad * grad
    moved = 1e-3 * new_first / (new_second.sqrt() + 1e-8)
    return param * (1 - 1e-4) - moved, new_first, new_second


def _adam_step_inputs(size: str) -> tuple[Tensor, ...]:
    *others, second = _rows(size, 4)
    return *others, second.abs()


def group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Result:
    """GroupNorm of 32 groups and its activation, as in a U-Net.

    Args:
        x: [batch, channels, height, width]
        weight, bias: [channels]
    """
    return F.silu(F.group_norm(x, 32, weight, bias))


def _group_norm_silu_inputs(size: str) -> tuple[Tensor, ...]:
    batch, channels, side = {"S": (1, 256, 32), "M": (8, 256, 64), "L": (4, 512, 128)}[size]
    return torch.randn(batch, channels, side, side), *_vectors(2, channels)


def outer_softmax(x: Tensor) -> Result:
    """Softmax over a dim that does not lie innermost.

    Args:
        x: [batch, positions, channels]
    """
    return torch.softmax(x, 1)


def _outer_softmax_inputs(size: str) -> tuple[Tensor, ...]:
    return (torch.randn(ATTENTION[size], 256, 1024),)


def batch_norm_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Result:
    """BatchNorm with the statistics of its own batch, and its activation.

    Args:
        x: [batch, channels, height, width]
        weight, bias: [channels]
    """
    return F.relu(F.batch_norm(x, None, None, weight, bias, training=True))


def _batch_norm_relu_inputs(size: str) -> tuple[Tensor, ...]:
    batch, side = {"S": (4, 32), "M": (32, 64), "L": (32, 128)}[size]
    return torch.randn(batch, 64, side, side), *_vectors(2, 64)


def cast_transpose_amax(x: Tensor) -> Result:
    """A tensor in fewer bits, its transpose, and its largest magnitude.

    Args:
        x: [rows, width]
    """
    low = (x * 0.5).to(torch.bfloat16)
    return low, low.t().contiguous(), x.abs().amax()


def row_and_column_statistics(x: Tensor) -> Result:
    """Sums and sums of squares of columns and of rows.

    Args:
        x: [rows, width]
    """
    square = x * x
    return x.sum(0), x.sum(1), square.sum(0), square.sum(1)


def norm_of_sum_with_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Result:
    """LayerNorm of a stream to which a LayerNorm was added.

    Args:
        x, y: [rows, width]
        weight, bias: [width]
    """
    inner = F.layer_norm(y, weight.shape, weight, bias)
    return F.layer_norm(x + inner, weight.shape, weight, bias)


def _norm_of_sum_with_norm_inputs(size: str) -> tuple[Tensor, ...]:
    return *_rows(size, 2), *_vectors(2)


def softmax_dropout_backward(probabilities: Tensor, grad: Tensor, kept: Tensor) -> Result:
    """Gradient of attention's scores from that of its probabilities after dropout.

    Args:
        probabilities, grad, kept: [heads, length, length]
    """
    grad = grad * kept * KEPT_SCALE
    inner = (grad * probabilities).sum(-1, keepdim=True)
    return probabilities * (grad - inner) * HEAD_SCALE


def _softmax_dropout_backward_inputs(size: str) -> tuple[Tensor, ...]:
    shape = (ATTENTION[size], LENGTH, LENGTH)
    return torch.softmax(torch.randn(shape), -1), torch.randn(shape), _kept(*shape)


def attention_and_gates(
    history: Tensor,
    query: Tensor,
    seen: Tensor,
    update: Tensor,
    reset: Tensor,
    candidate: Tensor,
    weight: Tensor,
) -> Result:
    """Interests of a user as they evolve, as in DIEN: attention to a query that gates a cell.

    Args:
        history, update, reset, candidate: [users, steps, channels]
        query: [users, channels]
        seen: [users, steps]
        weight: [4 channels]
    """
    wide = query.unsqueeze(1).expand_as(history)
    pairs = torch.cat((wide, history, wide - history, wide * history), -1)
    scores = torch.where(seen, (pairs * weight).sum(-1), -1e9)
    attention = torch.softmax(scores, -1).unsqueeze(-1)
    gate = torch.sigmoid(update) * attention
    evolved = (1 - gate) * history + gate * torch.tanh(candidate * torch.sigmoid(reset))
    interest = (evolved * attention).sum(1)
    centred = interest - interest.mean(-1, keepdim=True)
    return evolved, interest, F.relu(centred), pairs.mean(1)


def _attention_and_gates_inputs(size: str) -> tuple[Tensor, ...]:
    users, steps, channels = {"S": 64, "M": 2048, "L": 8192}[size], 50, 36
    history, update, reset, candidate = torch.randn(4, users, steps, channels).unbind()
    seen = torch.rand(users, steps) > 0.3
    query, weight = torch.randn(users, channels), torch.randn(4 * channels)
    return history, query, seen, update, reset, candidate, weight


def _rows(size: str, count: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(ROWS[size], WIDTH) for _ in range(count))


def _vectors(count: int, width: int = WIDTH) -> tuple[Tensor, ...]:
    return tuple(torch.randn(width) for _ in range(count))


def _kept(*shape: int) -> Tensor:
    return torch.rand(shape) > DROPPED


def _one_block(size: str) -> tuple[Tensor, ...]:
    return _rows(size, 1)


_ALL = (
    Graph(
        name="res_ln_gelu_drop",
        compute=residual_norm_gelu_dropout,
        inputs=_residual_norm_gelu_dropout_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(
        name="softmax_mask",
        compute=masked_softmax,
        inputs=_masked_softmax_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(
        name="rmsnorm_fb",
        compute=rms_norm_and_backward,
        inputs=_rms_norm_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(
        name="ln_bwd",
        compute=layer_norm_backward,
        inputs=_layer_norm_backward_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(name="rope", compute=rotary_embedding, inputs=_rotary_embedding_inputs, stitchable=True),
    Graph(name="swiglu_fb", compute=swiglu_and_backward, inputs=_swiglu_inputs),
    Graph(
        name="cross_entropy_fb",
        compute=cross_entropy_and_backward,
        inputs=_cross_entropy_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(name="adam", compute=adam_step, inputs=_adam_step_inputs),
    Graph(
        name="groupnorm_silu",
        compute=group_norm_silu,
        inputs=_group_norm_silu_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(
        name="softmax_outer",
        compute=outer_softmax,
        inputs=_outer_softmax_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(
        name="batchnorm_relu", compute=batch_norm_relu, inputs=_batch_norm_relu_inputs, reduces=True
    ),
    Graph(name="cast_transpose_amax", compute=cast_transpose_amax, inputs=_one_block),
    Graph(
        name="row_col_stats",
        compute=row_and_column_statistics,
        inputs=_one_block,
        stitchable=True,
        reduces=True,
    ),
    Graph(
        name="ln_ln_residual",
        compute=norm_of_sum_with_norm,
        inputs=_norm_of_sum_with_norm_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(
        name="attn_softmax_drop_bwd",
        compute=softmax_dropout_backward,
        inputs=_softmax_dropout_backward_inputs,
        stitchable=True,
        reduces=True,
    ),
    Graph(name="dien_like", compute=attention_and_gates, inputs=_attention_and_gates_inputs),
)

GRAPHS = {graph.name: graph for graph in _ALL}
