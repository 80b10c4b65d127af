"""ATen operators rewritten, while they are traced, into simpler ones.

A rule is a pure function of torch operations with the operator's own signature. Operators that
`weft.capture.canonical` has a form for are left alone; then come the rules of this module, then
torch's own table, then torch's composite kernels.

The forms are chosen so that dims can be split: cross entropy compares a range with the target
instead of looking logits up, and means and variances are sums times constants, so that the
sums may be partial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload

from weft.capture.canonical import RULES

__all__ = ["decomposition"]

Rewrite: TypeAlias = Callable[..., Any]

aten = torch.ops.aten


def decomposition(func: OpOverload) -> Rewrite | None:
    """The rule that rewrites an operator; None if it stays, or if nothing rewrites it."""
    if func in RULES:
        return None
    rule = _REWRITES.get(func) or decomposition_table.get(func)
    if rule is None and func._can_decompose():
        return func.decompose
    return rule


def _dims(x: Tensor, dims: Sequence[int] | int | None) -> tuple[int, ...]:
    if isinstance(dims, int):
        dims = (dims,)
    return tuple(d % x.dim() for d in dims) if dims else tuple(range(x.dim()))


def _count(x: Tensor, dims: Sequence[int]) -> int:
    return math.prod(x.shape[d] for d in dims)


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _scaled(bias, beta) + _scaled(torch.mm(a, b), alpha)


def _baddbmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = _scaled(torch.bmm(a, b), alpha)
    return product if beta == 0 else _scaled(bias, beta) + product


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def _mean(
    x: Tensor,
    dims: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    over = _dims(x, dims)
    x = x if dtype is None else x.to(dtype)
    return torch.sum(x, over, keepdim) * (1.0 / max(_count(x, over), 1)) if over else x


def _var_mean(
    x: Tensor,
    dims: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    over = _dims(x, dims)
    mean = _mean(x, over, True)
    distance = x - mean
    free = _count(x, over) - (1.0 if correction is None else correction)
    var = torch.sum(distance * distance, over, keepdim) * (1.0 / free if free else math.inf)
    return var, mean if keepdim else mean.squeeze(over)


def _var(
    x: Tensor,
    dims: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    return _var_mean(x, dims, correction=correction, keepdim=keepdim)[0]


def _std(
    x: Tensor,
    dims: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    return _var(x, dims, correction=correction, keepdim=keepdim).sqrt()


def _norm(
    x: Tensor,
    order: float = 2,
    dims: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    over = _dims(x, dims)
    x = x if dtype is None else x.to(dtype)
    if order == 2:
        return torch.sum(x * x, over, keepdim).sqrt()
    if order == 1:
        return torch.sum(x.abs(), over, keepdim)
    if order == math.inf:
        return torch.amax(x.abs(), over, keepdim)
    return torch.sum(x.abs() ** order, over, keepdim) ** (1.0 / order)


def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    x = x.float() if half_to_float else x
    shifted = x - torch.amax(x, (dim,), True)
    return shifted - torch.sum(shifted.exp(), (dim,), True).log()


def _log_softmax_backward(
    grad: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype
) -> Tensor:
    total = torch.sum(grad, (dim,), True)
    return (grad - output.exp() * total).to(input_dtype)


def _class_match(target: Tensor, logits: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, int]:
    """Where a class is the target [N,C,...], which targets count [N,1,...], the class dim."""
    dim = 1 if logits.dim() > 1 else 0
    wanted = target.unsqueeze(dim)
    shape = [1] * logits.dim()
    shape[dim] = logits.shape[dim]
    classes = torch.arange(logits.shape[dim], dtype=target.dtype).view(shape)
    counts = wanted != ignore_index
    match = wanted == classes
    if 0 <= ignore_index < logits.shape[dim]:
        match = torch.logical_and(match, counts)
    return match, counts, dim


def _nll_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    match, counts, dim = _class_match(target, logits, ignore_index)
    zero = torch.zeros((), dtype=logits.dtype)
    scores = logits if weight is None else logits * _by_class(weight, logits, dim)
    picked = -torch.sum(torch.where(match, scores, zero), (dim,))
    total = torch.sum(_target_weight(match, counts, weight, logits, dim))
    if reduction == 0:
        return picked, torch.zeros((), dtype=logits.dtype)
    summed = torch.sum(picked)
    return (summed / total if reduction == 1 else summed), total


def _nll_loss_backward(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    total: Tensor,
) -> Tensor:
    match, _, dim = _class_match(target, logits, ignore_index)
    zero = torch.zeros((), dtype=logits.dtype)
    scale = -(grad / total) if reduction == 1 else -grad
    if reduction == 0:
        scale = scale.unsqueeze(dim)
    if weight is not None:
        scale = scale * _by_class(weight, logits, dim)
    return torch.where(match, scale, zero)


def _as_strided(
    x: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """What is but another shape of the same elements in a row."""
    rows = torch.empty(tuple(size), device="meta").stride()
    whole = x.is_contiguous() and math.prod(size) == x.numel() and tuple(stride) == rows
    return x.reshape(tuple(size)) if whole and not storage_offset else NotImplemented


def _by_class(weight: Tensor, logits: Tensor, dim: int) -> Tensor:
    return weight.view([-1 if d == dim else 1 for d in range(logits.dim())])


def _target_weight(
    match: Tensor, counts: Tensor, weight: Tensor | None, logits: Tensor, dim: int
) -> Tensor:
    if weight is None:
        return counts.to(logits.dtype)
    zero = torch.zeros((), dtype=logits.dtype)
    return torch.where(match, _by_class(weight, logits, dim), zero)


def _rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor]:
    over = tuple(range(x.dim() - len(normalized_shape), x.dim()))
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    floor = torch.finfo(wide.dtype).eps if eps is None else eps
    scale = torch.rsqrt(_mean(wide.pow(2), over, True) + floor)
    normed = wide * scale
    return (normed if weight is None else normed * weight).to(x.dtype), scale


def _rms_norm_backward(
    grad: Tensor,
    x: Tensor,
    normalized_shape: Sequence[int],
    scale: Tensor,
    weight: Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    kept = x.dim() - len(normalized_shape)
    over, lead = tuple(range(kept, x.dim())), tuple(range(kept))
    wide_grad, wide = grad.to(scale.dtype), x.to(scale.dtype)
    normed = wide * scale
    dx = dw = None
    if output_mask[0]:
        inner = wide_grad if weight is None else wide_grad * weight
        dx = (scale * (inner - normed * _mean(inner * normed, over, True))).to(x.dtype)
    if output_mask[1] and weight is not None:
        dw = wide_grad * normed
        dw = (torch.sum(dw, lead) if lead else dw).to(weight.dtype)
    return dx, dw


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_rows: int,
    num_channels: int,
    num_pixels: int,
    num_groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    grouped = x.reshape(num_rows, num_groups, -1)
    var, mean = _var_mean(grouped, (2,), correction=0, keepdim=True)
    scale = torch.rsqrt(var + eps)
    out = ((grouped - mean) * scale).view(x.shape)
    shape = (num_channels, *(1 for _ in x.shape[2:]))
    out = out if weight is None else out * weight.view(shape)
    out = out if bias is None else out + bias.view(shape)
    return out, mean.squeeze(2), scale.squeeze(2)


def _pad(x: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    for pair in range(len(pad) // 2):
        dim, (before, after) = x.dim() - 1 - pair, pad[2 * pair : 2 * pair + 2]
        x = x.narrow(dim, max(-before, 0), x.shape[dim] + min(before, 0) + min(after, 0))
        shape = list(x.shape)
        parts = [x]
        if before > 0:
            shape[dim] = before
            parts.insert(0, torch.full(shape, value, dtype=x.dtype))
        if after > 0:
            shape[dim] = after
            parts.append(torch.full(shape, value, dtype=x.dtype))
        x = torch.cat(parts, dim) if len(parts) > 1 else x
    return x


def _slice_scatter(
    x: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    size = x.shape[dim]
    first, last, _ = slice(start, end).indices(size)
    if step != 1:
        index = torch.arange(size)
        inside = torch.logical_and(index >= first, index < last)
        inside = torch.logical_and(inside, (index - first) % step == 0)
        shape = [-1 if d == dim % x.dim() else 1 for d in range(x.dim())]
        spread = aten.slice_backward(src, list(x.shape), dim, first, last, step)
        return torch.where(inside.view(shape), spread, x)
    src = src.to(x.dtype).expand(
        [last - first if d == dim % x.dim() else n for d, n in enumerate(x.shape)]
    )
    parts = [x.narrow(dim, 0, first), src, x.narrow(dim, last, size - last)]
    parts = [part for part in parts if part.shape[dim]]
    return torch.cat(parts, dim) if len(parts) > 1 else src


def _turned(x: Tensor) -> Tensor:
    """Numbers in the opposite order; integers as their complements, for which none is too large."""
    return -x if x.is_floating_point() else torch.bitwise_not(x)


def _amin(x: Tensor, dims: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    return _turned(torch.amax(_turned(x), list(dims), keepdim))


def _isinf(x: Tensor) -> Tensor:
    return torch.eq(x.abs(), math.inf) if x.is_floating_point() else torch.ne(x, x)


def _select_scatter(x: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    index %= x.shape[dim]
    return _slice_scatter(x, src.unsqueeze(dim), dim, index, index + 1)


def _select_backward(grad: Tensor, size: Sequence[int], dim: int, index: int) -> Tensor:
    dim, index = dim % len(size), index % size[dim]
    return aten.slice_backward(grad.unsqueeze(dim), size, dim, index, index + 1, 1)


def _tri(keep_lower: bool) -> Rewrite:
    def rule(x: Tensor, diagonal: int = 0) -> Tensor:
        rows = torch.arange(x.shape[-2]).unsqueeze(1) + diagonal
        columns = torch.arange(x.shape[-1])
        keep = columns <= rows if keep_lower else columns >= rows
        return torch.where(keep, x, torch.zeros((), dtype=x.dtype))

    return rule


def _eye(n: int, m: int | None = None, *, dtype: torch.dtype | None = None, **_: object) -> Tensor:
    rows, columns = torch.arange(n).unsqueeze(1), torch.arange(n if m is None else m)
    return (rows == columns).to(dtype or torch.get_default_dtype())


def _linspace(
    start: float, end: float, steps: int, *, dtype: torch.dtype | None = None, **_: object
) -> Tensor:
    wanted = dtype or torch.get_default_dtype()
    distance = (end - start) / max(steps - 1, 1)
    return torch.arange(steps, dtype=wanted) * distance + start


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Lookup by one tensor of integers; more than one has no splittable form."""
    dim, index = _only_index(indices)
    if index is None or index.dtype is torch.bool:
        return NotImplemented
    rows = torch.where(index < 0, index + x.shape[dim], index).reshape(-1)
    found = torch.index_select(x, dim, rows)
    return found.reshape(*x.shape[:dim], *index.shape, *x.shape[dim + 1 :])


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    dim, index = _only_index(indices)
    if index is None or index.dtype is torch.bool or not accumulate:
        return NotImplemented
    rows = torch.where(index < 0, index + x.shape[dim], index).reshape(-1)
    shape = (*x.shape[:dim], *index.shape, *x.shape[dim + 1 :])
    source = values.expand(shape).reshape(*x.shape[:dim], rows.shape[0], *x.shape[dim + 1 :])
    return _index_add(x, dim, rows, source)


def _only_index(indices: Sequence[Tensor | None]) -> tuple[int, Tensor | None]:
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    return given[0] if len(given) == 1 else (0, None)


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    shape = [-1 if d == dim % x.dim() else 1 for d in range(x.dim())]
    spread = index.view(shape).expand(source.shape)
    return torch.scatter_add(x, dim, spread, _scaled(source, alpha))


def _max_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return torch.amax(x, (dim,), keepdim), torch.argmax(x, dim, keepdim)


def _min_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return _amin(x, (dim,), keepdim), torch.argmax(_turned(x), dim, keepdim)


def _adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    if any(n % m for n, m in zip(x.shape[-2:], output_size, strict=True)):
        return NotImplemented
    kernel = [n // m for n, m in zip(x.shape[-2:], output_size, strict=True)]
    return x.clone() if kernel == [1, 1] else aten.avg_pool2d(x, kernel, kernel)


def _adaptive_avg_pool_backward(grad: Tensor, x: Tensor) -> Tensor:
    kernel = [n // m for n, m in zip(x.shape[-2:], grad.shape[-2:], strict=True)]
    if kernel == [1, 1]:
        return grad.clone()
    return aten.avg_pool2d_backward(grad, x, kernel, kernel, [0, 0], False, True, None)


def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        x = torch.index_select(x, dim, x.shape[dim] - 1 - torch.arange(x.shape[dim]))
    return x


def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not dims:
        return _roll(x.reshape(-1), shifts, (0,)).reshape(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        cut = -shift % x.shape[dim]
        if cut:
            x = torch.cat([x.narrow(dim, cut, x.shape[dim] - cut), x.narrow(dim, 0, cut)], dim)
    return x


_REWRITES: Mapping[OpOverload, Rewrite] = MappingProxyType(
    {
        aten.addmm.default: _addmm,
        aten.baddbmm.default: _baddbmm,
        aten.addmv.default: lambda bias, a, b, *, beta=1, alpha=1: (
            _scaled(bias, beta) + _scaled(torch.mv(a, b), alpha)
        ),
        aten.mean.default: lambda x, *, dtype=None: _mean(x, dtype=dtype),
        aten.mean.dim: _mean,
        aten.var.correction: _var,
        aten.std.correction: _std,
        aten.var_mean.correction: _var_mean,
        aten.native_group_norm.default: _group_norm,
        aten.expm1.default: lambda x: torch.exp(x) - 1,
        aten.linalg_vector_norm.default: _norm,
        aten._log_softmax.default: _log_softmax,
        aten._log_softmax_backward_data.default: _log_softmax_backward,
        aten.nll_loss_forward.default: _nll_loss,
        aten.nll_loss_backward.default: _nll_loss_backward,
        aten.nll_loss2d_forward.default: _nll_loss,
        aten.nll_loss2d_backward.default: _nll_loss_backward,
        aten._fused_rms_norm.default: _rms_norm,
        aten._fused_rms_norm_backward.default: _rms_norm_backward,
        aten.as_strided.default: _as_strided,
        aten.constant_pad_nd.default: _pad,
        aten.slice_scatter.default: _slice_scatter,
        aten.select_scatter.default: _select_scatter,
        aten.select_backward.default: _select_backward,
        aten.tril.default: _tri(True),
        aten.triu.default: _tri(False),
        aten.eye.default: _eye,
        aten.eye.m: _eye,
        aten.linspace.default: _linspace,
        aten.index.Tensor: _index,
        aten.index_put.default: _index_put,
        aten.index_add.default: _index_add,
        aten.max.dim: _max_dim,
        aten.min.dim: _min_dim,
        aten.amin.default: _amin,
        aten.argmin.default: lambda x, dim=None, keep=False: torch.argmax(_turned(x), dim, keep),
        aten.max.default: lambda x: torch.amax(x, _dims(x, None)) if x.dim() else x,
        aten.min.default: lambda x: _amin(x, _dims(x, None)) if x.dim() else x,
        aten._adaptive_avg_pool2d.default: _adaptive_avg_pool,
        aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool_backward,
        aten.flip.default: _flip,
        aten.roll.default: _roll,
        aten.isnan.default: lambda x: torch.ne(x, x),
        aten.isinf.default: _isinf,
        aten.square.default: lambda x: torch.pow(x, 2),
        aten.masked_fill.Tensor: lambda x, mask, value: torch.where(mask, value, x).to(x.dtype),
        aten.copy.default: lambda x, src, non_blocking=False: src.to(x.dtype).expand(x.shape),
        aten.fill.Scalar: lambda x, value: torch.full_like(x, value),
        aten.fill.Tensor: lambda x, value: value.to(x.dtype).expand(x.shape),
        aten.zero.default: lambda x: torch.zeros_like(x),
    }
)
