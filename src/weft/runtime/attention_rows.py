"""Causal attention of some rows of a sequence to all keys of it.

The rows of a device see all keys before them, without a mask, and the keys of their own block,
under a causal mask. Both are attentions that every device has a kernel for; the logarithms of
their softmaxes' denominators say how to join the results. For gradients nothing is joined: a
kernel that is given the denominator of all keys makes its own keys' part.

Source: joining partial attentions as in ring attention (Liu et al., arXiv 2310.01889) and
FlashAttention (Dao et al., arXiv 2205.14135, section 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.capture.operators import attention, attention_backward

__all__ = ["attention_rows", "attention_rows_backward"]


@torch.library.custom_op("weft::attention_rows", mutates_args=())
def attention_rows(
    q: Tensor, k: Tensor, v: Tensor, first: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Causal attention of rows `first` to `first + T` of a sequence.

    Args:
        q: queries [B,H,T,D].
        k: keys of all of the sequence [B,H,S,D].
        v: values of all of the sequence [B,H,S,D].
        first: position of the first query.
        scale: factor of the scores.

    Returns:
        out [B,H,T,D] in the type of q, and logsumexp [B,H,T].
    """
    last = first + q.shape[2]
    out, logsumexp = attention(q, k[:, :, first:last], v[:, :, first:last], True, scale)
    if first == 0:
        return out, logsumexp
    before, weight = attention(q, k[:, :, :first], v[:, :, :first], False, scale)
    total = torch.logaddexp(logsumexp, weight)
    own, earlier = ((part - total).exp()[..., None] for part in (logsumexp, weight))
    return torch.empty_like(q).copy_(own * out + earlier * before), total


@attention_rows.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, first: int, scale: float) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype is torch.float64 else torch.float32
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=wide)


@torch.library.custom_op("weft::attention_rows_backward", mutates_args=())
def attention_rows_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    first: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attention_rows` with respect to q, k and v.

    Args:
        grad: gradient of the result [B,H,T,D].
        q: queries [B,H,T,D].
        k: keys of all of the sequence [B,H,S,D].
        v: values of all of the sequence [B,H,S,D].
        out: result of the forward [B,H,T,D].
        logsumexp: second result of the forward [B,H,T].
        first: as in the forward.
        scale: as in the forward.

    Returns:
        dq [B,H,T,D], dk [B,H,S,D], dv [B,H,S,D]; zero for keys that no row sees.
    """
    last = first + q.shape[2]
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    keys, values = k[:, :, first:last], v[:, :, first:last]
    own = attention_backward(grad, q, keys, values, out, logsumexp, True, scale)
    dq.copy_(own[0])
    dk[:, :, first:last], dv[:, :, first:last] = own[1], own[2]
    if first > 0:
        keys, values = k[:, :, :first], v[:, :, :first]
        earlier = attention_backward(grad, q, keys, values, out, logsumexp, False, scale)
        dq.add_(earlier[0])
        dk[:, :, :first], dv[:, :, :first] = earlier[1], earlier[2]
    return dq, dk, dv


@attention_rows_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    first: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
