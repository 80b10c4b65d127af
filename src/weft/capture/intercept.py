"""Calls of a model that a pure, splittable step needs in another form.

Random numbers come from the step's seed and the element's place (`weft::uniform`), so that a
mask does not depend on the device that makes it. Scaled dot-product attention becomes
`weft::attention` where a fused kernel may run it, and plain products and a softmax elsewhere.
Batch norm is written out, so that its statistics are sums that devices can share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from weft.capture.operators import attention, uniform

__all__ = ["FunctionalCalls"]


class FunctionalCalls(TorchFunctionMode):
    """While active, the model's random numbers and attention go through weft's operators.

    Args:
        seed: the step's seed [scalar int64].
    """

    def __init__(self, seed: Tensor) -> None:
        super().__init__()
        self._seed = seed
        self._salt = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _REPLACED:
            return _REPLACED[func](self, *args, **given)
        if func in _OPENED:
            with self:
                return _OPENED[func](*args, **given)
        return func(*args, **given)

    def uniform(self, size: tuple[int, ...]) -> Tensor:
        """Random numbers in [0, 1), float32, for the next call site."""
        salt = self._salt
        self._salt += 1
        return uniform(self._seed, salt, size)

    def drop(self, x: Tensor, p: float, mask_shape: tuple[int, ...]) -> Tensor:
        """`x` with shares `p` of its blocks set to zero and the rest scaled by 1 / (1 - p)."""
        if p == 0.0:
            return x
        if p == 1.0:
            return x * 0.0
        kept = self.uniform(mask_shape) >= p
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        return torch.where(kept, x * (1.0 / (1.0 - p)), zero)


def _dropout(
    calls: FunctionalCalls,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    out = calls.drop(input, p, tuple(input.shape)) if training else input
    return input.copy_(out) if inplace and out is not input else out


def _torch_dropout(calls: FunctionalCalls, input: Tensor, p: float, train: bool) -> Tensor:
    return calls.drop(input, p, tuple(input.shape)) if train else input


def _channel_dropout(
    calls: FunctionalCalls,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    mask_shape = (*input.shape[:2], *(1 for _ in input.shape[2:]))
    out = calls.drop(input, p, mask_shape) if training else input
    return input.copy_(out) if inplace and out is not input else out


def _rand_like(
    calls: FunctionalCalls, input: Tensor, *, dtype: torch.dtype | None = None, **_: object
) -> Tensor:
    return calls.uniform(tuple(input.shape)).to(dtype or input.dtype)


def _rand(
    calls: FunctionalCalls, *size: Any, dtype: torch.dtype | None = None, **_: object
) -> Tensor:
    shape = tuple(size[0]) if size and not isinstance(size[0], int) else size
    return calls.uniform(shape).to(dtype or torch.get_default_dtype())


def _bernoulli(calls: FunctionalCalls, input: Tensor, **_: object) -> Tensor:
    return (calls.uniform(tuple(input.shape)) < input).to(input.dtype)


def _bernoulli_(
    calls: FunctionalCalls, input: Tensor, p: float | Tensor = 0.5, **_: object
) -> Tensor:
    return input.copy_(calls.uniform(tuple(input.shape)) < p)


def _scaled_dot_product(
    calls: FunctionalCalls,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = _repeat_heads(key, groups), _repeat_heads(value, groups)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    fused = (
        (attn_mask is None and dropout_p == 0.0)
        and (query.dim() == key.dim() == value.dim() == 4)
        and query.shape[:2] == key.shape[:2] == value.shape[:2]
        and query.shape[-1] == value.shape[-1]
        and (not is_causal or query.shape[-2] == key.shape[-2])
    )
    if fused:
        return attention(query, key, value, is_causal, factor)[0]
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        t, s = scores.shape[-2:]
        rows = torch.arange(t, device=query.device)[:, None]
        attn_mask = rows >= torch.arange(s, device=query.device)
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = calls.drop(torch.softmax(scores, dim=-1), dropout_p, tuple(scores.shape))
    return torch.matmul(weights, value)


def _repeat_heads(x: Tensor, groups: int) -> Tensor:
    """[..., K, S, D] -> [..., K * groups, S, D], each head `groups` times in a row."""
    *lead, heads, s, d = x.shape
    wide = x.unsqueeze(-3).expand(*lead, heads, groups, s, d)
    return wide.reshape(*lead, heads * groups, s, d)


def _batch_norm(
    calls: FunctionalCalls,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    if training or running_mean is None or running_var is None:
        over = (0, *range(2, x.dim()))
        mean = x.mean(over, keepdim=True)
        var = (x - mean).square().mean(over, keepdim=True)
        if training and running_mean is not None and running_var is not None:
            count = x.numel() // x.shape[1]
            _blend(running_mean, mean, momentum)
            _blend(running_var, var * (count / max(count - 1, 1)), momentum)
    else:
        mean, var = running_mean.view(shape), running_var.view(shape)
    out = (x - mean) * (var + eps).rsqrt()
    out = out if weight is None else out * weight.view(shape)
    out = out if bias is None else out + bias.view(shape)
    return out.to(input.dtype)


def _blend(running: Tensor, value: Tensor, momentum: float) -> None:
    with torch.no_grad():
        running.copy_(running * (1.0 - momentum) + value.view(-1).to(running.dtype) * momentum)


def _one_hot(calls: FunctionalCalls, tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        return F.one_hot(tensor)
    # ATen's own form checks the values of the tensor, and writes by index.
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


def _opened(function: FunctionType) -> FunctionType:
    """The function with its own test for overrides switched off.

    A function mode is not active inside the function it is called for. For a function that
    calls dropout or attention itself, the mode runs this form of it, with itself active.
    """
    names = {name: _no_override for name in function.__globals__ if "has_torch_function" in name}
    opened = FunctionType(
        function.__code__, function.__globals__ | names, function.__name__, function.__defaults__
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


def _no_override(*_: object) -> bool:
    return False


_REPLACED: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.dropout: _dropout,
    F.dropout1d: _channel_dropout,
    F.dropout2d: _channel_dropout,
    F.dropout3d: _channel_dropout,
    torch.dropout: _torch_dropout,
    torch.rand: _rand,
    torch.rand_like: _rand_like,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli_: _bernoulli_,
    F.scaled_dot_product_attention: _scaled_dot_product,
    F.batch_norm: _batch_norm,
    F.one_hot: _one_hot,
}

_OPENED: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.multi_head_attention_forward: _opened(F.multi_head_attention_forward),
}
