"""Torch forms of the operators that ATen has no single name for: attention and uniform.

`weft::attention`, `weft::attention_backward` and `weft::uniform` are ordinary torch operators,
so they can be traced, differentiated, compiled and run on every device. Attention calls the
fused kernel that the device has; where it has none for the element type, the plain formula.

Layouts: q [B,H,T,D]; k, v [B,H,S,D]; out [B,H,T,D]; logsumexp [B,H,T], float32 but for float64
operands. Causal means that query t sees keys 0 to t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weft.program.random import FIRST_MULTIPLIER, MASK, SECOND_MULTIPLIER, row_major_strides

__all__ = ["attention", "attention_backward", "uniform", "uniform_shard"]

_HALF = (torch.bfloat16, torch.float16)


@torch.library.custom_op("weft::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """softmax(scale q k^T) v and the logarithm of the softmax's denominator.

    Args:
        q: queries [B,H,T,D].
        k: keys [B,H,S,D].
        v: values [B,H,S,D].
        causal: whether query t sees keys 0 to t only, else all.
        scale: factor of the scores.

    Returns:
        out [B,H,T,D] in the type of q, and logsumexp [B,H,T].
    """
    out, logsumexp = _forward_kernel(q)(q, k, v, causal, scale)
    return _laid_like(q, out), logsumexp.contiguous()


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=_logsumexp_dtype(q))


@torch.library.custom_op("weft::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attention` with respect to q, k and v.

    Args:
        grad: gradient of the result [B,H,T,D].
        q: queries [B,H,T,D].
        k: keys [B,H,S,D].
        v: values [B,H,S,D].
        out: result of the forward [B,H,T,D].
        logsumexp: second result of the forward [B,H,T].
        causal: as in the forward.
        scale: as in the forward.

    Returns:
        dq [B,H,T,D], dk [B,H,S,D], dv [B,H,S,D].
    """
    made = _backward_kernel(q)(grad, q, k, v, out, logsumexp, causal, scale)
    dq, dk, dv = map(_laid_like, (q, k, v), made)
    return dq, dk, dv


@attention_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple) -> None:
    q, k, v, causal, scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.causal, ctx.scale = causal, scale  # pyright: ignore[reportAttributeAccessIssue]
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad: Tensor, _: Tensor | None):  # noqa: ANN001, ANN202
    q, k, v, out, logsumexp = ctx.saved_tensors
    found = attention_backward(grad, q, k, v, out, logsumexp, ctx.causal, ctx.scale)
    return *found, None, None


attention.register_autograd(_differentiate, setup_context=_keep)


def _laid_like(operand: Tensor, x: Tensor) -> Tensor:
    """A result in the memory layout that the fake form promises: that of the operand.

    Kernels differ in the layout they return. Models keep heads behind positions in memory, where
    every kernel keeps to the operand's layout and nothing is copied.
    """
    promised = torch.empty_like(operand)
    return x if x.stride() == promised.stride() else promised.copy_(x)


def _in_rows(x: Tensor) -> Tensor:
    """The tensor with the elements of a head side by side, copied if they are not.

    Kernels take any other strides, but that for CPUs reads past these and that for GPUs refuses
    them.
    """
    return x if x.stride(-1) == 1 else x.contiguous()


def _forward_kernel(q: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    if q.device.type == "cpu":
        return _attention_cpu
    return _attention_flash if _has_flash(q) else _attention_formula


def _backward_kernel(q: Tensor) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    if q.device.type == "cpu":
        return _attention_backward_cpu
    return _attention_backward_flash if _has_flash(q) else _attention_backward_formula


def _attention_cpu(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *map(_in_rows, (q, k, v)), 0.0, causal, scale=scale
    )
    return out, logsumexp


def _attention_backward_cpu(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *map(_in_rows, (grad, q, k, v, out)), logsumexp.contiguous(), 0.0, causal, scale=scale
    )
    return dq, dk, dv


def _logsumexp_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype is torch.float64 else torch.float32


def _scores(q: Tensor, k: Tensor, causal: bool, scale: float) -> Tensor:
    wide = _logsumexp_dtype(q)
    scores = q.to(wide) @ k.to(wide).transpose(-1, -2) * scale
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores


def _attention_formula(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    scores = _scores(q, k, causal, scale)
    logsumexp = scores.logsumexp(dim=-1)
    out = (scores - logsumexp[..., None]).exp() @ v.to(scores.dtype)
    return out.to(q.dtype), logsumexp


def _attention_backward_formula(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    p = (_scores(q, k, causal, scale) - logsumexp[..., None]).exp()
    wide_grad, wide_out = grad.to(p.dtype), out.to(p.dtype)
    dp = wide_grad @ v.to(p.dtype).transpose(-1, -2)
    ds = p * (dp - (wide_grad * wide_out).sum(-1, keepdim=True)) * scale
    dq, dk, dv = (
        ds @ k.to(p.dtype),
        ds.transpose(-1, -2) @ q.to(p.dtype),
        p.transpose(-1, -2) @ wide_grad,
    )
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _attention_flash(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    out, logsumexp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        *map(_in_rows, (q, k, v)), 0.0, causal, scale=scale
    )
    return out, logsumexp


def _attention_backward_flash(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    # Without dropout the kernel does not read its random state.
    state = torch.zeros((2,), dtype=torch.uint64, device=q.device)
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad.contiguous(),
        *map(_in_rows, (q, k, v, out)),
        *(logsumexp.contiguous(), None, None, q.shape[2], k.shape[2]),
        *(0.0, causal, state, state),
        scale=scale,
    )
    return dq, dk, dv


def _has_flash(q: Tensor) -> bool:
    # Head widths that the kernel takes without padding.
    return q.is_cuda and q.dtype in _HALF and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256


@torch.library.custom_op("weft::uniform", mutates_args=())
def uniform(seed: Tensor, salt: int, size: Sequence[int]) -> Tensor:
    """Numbers in [0, 1) as `weft.program.random` defines them, bit for bit.

    Args:
        seed: the step's seed [scalar int64].
        salt: tells uses of one seed apart.
        size: shape of the result.

    Returns:
        float32 numbers [size] on the seed's device.
    """
    return uniform_shard(seed, salt, size, (0,) * len(size), row_major_strides(tuple(size)))


@uniform.register_fake
def _(seed: Tensor, salt: int, size: Sequence[int]) -> Tensor:
    return seed.new_empty(size, dtype=torch.float32)


def uniform_shard(
    seed: Tensor,
    salt: int,
    size: Sequence[int],
    offsets: Sequence[int],
    strides: Sequence[int],
    shift: Tensor | None = None,
) -> Tensor:
    """The part of `uniform` that one device holds.

    Args:
        seed: the step's seed [scalar int64].
        salt: tells uses of one seed apart, at least 0 and below 2**31.
        size: shape of the part.
        offsets: index in the whole tensor of the part's first element, one a dim.
        strides: row-major strides of the whole tensor, in elements.
        shift: how far the part is from where `offsets` say, in elements [scalar int64].

    Returns:
        float32 numbers [size] on the seed's device.

    Example:
        >>> seed = torch.tensor(7)
        >>> whole = uniform(seed, 0, (4, 6))
        >>> torch.equal(whole[:, 3:], uniform_shard(seed, 0, (4, 3), (0, 3), (6, 1)))
        True
    """
    low, high = seed & MASK, (seed >> 32) & MASK
    key_a = _mix(low ^ _mix(torch.full_like(seed, 2 * salt + 1)))
    key_b = _mix(((low + _mix(torch.full_like(seed, 2 * salt + 2))) & MASK) ^ high)
    start = torch.zeros((), dtype=torch.int64, device=seed.device)
    position = start if shift is None else shift
    for n, offset, stride in zip(size, offsets, strides, strict=True):
        steps = torch.arange(offset, offset + n, dtype=torch.int64, device=seed.device)
        position = position[..., None] + steps * stride
    h = _mix((position & MASK) ^ key_a)
    h = _mix(((h + key_b) & MASK) ^ ((position >> 32) & MASK))
    return (h >> 8).to(torch.float32) * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    x = x ^ (x >> 16)
    x = (x * FIRST_MULTIPLIER) & MASK
    x = x ^ (x >> 15)
    x = (x * SECOND_MULTIPLIER) & MASK
    return x ^ (x >> 15)
