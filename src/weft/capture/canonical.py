"""From traced ATen calls to the operators of `weft.program.operators`, call by call.

Each rule turns one ATen operator into one or a few nodes with arguments in the table's form:
dims counted from 0, sizes written out, element types equal, plain numbers in `Scalar` forms.
Nothing is optimised here: that is `weft.capture.simplify`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch._ops import OpOverload

from weft.capture.dtypes import from_torch_dtype
from weft.program.builder import Builder
from weft.program.graph import Arg, Phase, Value
from weft.program.promotion import promote, promote_to_float
from weft.program.types import DType, TensorType

__all__ = ["RULES", "Emit", "Rule", "constant"]

aten, prims, weft = torch.ops.aten, torch.ops.prims, torch.ops.weft

Number: TypeAlias = int | float
Operand: TypeAlias = "Value | int | float"
Results: TypeAlias = "Value | tuple[Value | None, ...]"
Rule: TypeAlias = Callable[..., Results]


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """Adds nodes at one place of the program."""

    builder: Builder
    phase: Phase
    scope: str
    source: str
    zeros: set[Value]
    """Constant tensors of zeros made so far, shared by all places."""

    def __call__(self, op: str, *args: Arg) -> Value:
        return self.builder.add(op, *args, phase=self.phase, scope=self.scope, source=self.source)

    def all(self, op: str, *args: Arg) -> tuple[Value, ...]:
        """Add an operator with several outputs."""
        return self.builder.add_all(
            op, *args, phase=self.phase, scope=self.scope, source=self.source
        )

    def type(self, value: Value) -> TensorType:
        """Type of a value."""
        return self.builder.type_of(value)

    def rank(self, value: Value) -> int:
        """Number of dims of a value."""
        return len(self.type(value).shape)

    def cast(self, value: Value, dtype: DType) -> Value:
        """The value in another element type."""
        return value if self.type(value).dtype is dtype else self("cast", value, dtype.value)

    def view(self, value: Value, size: tuple[int, ...]) -> Value:
        """The value in another shape of as many elements."""
        return value if self.type(value).shape == size else self("view", value, size)

    def full(self, size: tuple[int, ...], value: Number, dtype: DType) -> Value:
        """A constant tensor."""
        made = self("full", size, _number(value, dtype), dtype.value)
        if not value:
            self.zeros.add(made)
        return made


def _number(value: Number, dtype: DType) -> Number:
    if dtype is DType.BOOL:
        return bool(value)
    return float(value) if dtype.is_float else int(value)


def constant(emit: Emit, elements: Sequence[Number], tensor_type: TensorType) -> Value:
    """A small tensor written out: one value, a range, or a row of single values."""
    dtype = tensor_type.dtype
    if len(set(elements)) <= 1:
        return emit.full(tensor_type.shape, elements[0] if elements else 0, dtype)
    steps = {b - a for a, b in zip(elements, elements[1:], strict=False)}
    if dtype is DType.I64 and len(steps) == 1:
        row = emit("iota", len(elements), elements[0], steps.pop(), dtype.value)
    else:
        row = emit("cat", tuple(emit.full((1,), e, dtype) for e in elements), 0)
    return emit.view(row, tensor_type.shape)


def _dim(dim: int, rank: int) -> int:
    return dim % rank if rank else 0


def _dims(dims: Sequence[int] | int | None, rank: int) -> tuple[int, ...]:
    if isinstance(dims, int):
        dims = (dims,)
    return tuple(sorted(_dim(d, rank) for d in dims)) if dims else tuple(range(rank))


def _same(emit: Emit, x: Value, *_: object, **__: object) -> Value:
    return x


def _unary(op: str) -> Rule:
    return lambda emit, x: emit(op, x)


def _float_unary(op: str) -> Rule:
    return lambda emit, x: emit(op, emit.cast(x, promote_to_float(emit.type(x))))


def _arithmetic(name: str) -> Rule:
    """add, sub, mul, div, maximum, minimum in the form that the operands ask for."""
    goal = promote_to_float if name == "div" else promote

    def rule(emit: Emit, x: Operand, other: Operand, *, alpha: Number = 1) -> Value:
        types = tuple(emit.type(v) if isinstance(v, Value) else v for v in (x, other))
        dtype = goal(*types)
        if not isinstance(x, Value):
            x = emit.full((), x, dtype)
        x = emit.cast(x, dtype)
        if not isinstance(other, Value):
            return emit(f"{name}.Scalar", x, other * alpha)
        other = emit.cast(other, dtype)
        other = other if alpha == 1 else emit("mul.Scalar", other, alpha)
        suffix = "default" if name in ("maximum", "minimum") else "Tensor"
        return emit(f"{name}.{suffix}", x, other)

    return rule


def _rsub(emit: Emit, x: Value, other: Operand, alpha: Number = 1) -> Value:
    x = x if alpha == 1 else emit("mul.Scalar", x, alpha)
    if isinstance(other, Value):
        return _arithmetic("sub")(emit, other, x)
    return emit("rsub.Scalar", emit.cast(x, promote(emit.type(x), other)), other)


def _comparison(name: str) -> Rule:
    def rule(emit: Emit, x: Value, other: Operand) -> Value:
        if not isinstance(other, Value):
            return emit(f"{name}.Scalar", emit.cast(x, promote(emit.type(x), other)), other)
        dtype = promote(emit.type(x), emit.type(other))
        return emit(f"{name}.Tensor", emit.cast(x, dtype), emit.cast(other, dtype))

    return rule


def _logical(name: str) -> Rule:
    def rule(emit: Emit, x: Value, other: Value) -> Value:
        return emit(f"{name}.default", *(_as_bool(emit, v) for v in (x, other)))

    return rule


def _as_bool(emit: Emit, x: Value) -> Value:
    return x if emit.type(x).dtype is DType.BOOL else emit("ne.Scalar", x, 0)


def _bitwise(name: str) -> Rule:
    def rule(emit: Emit, x: Value, other: Operand) -> Value:
        if not isinstance(other, Value):
            other = emit.full((), other, emit.type(x).dtype)
        dtype = promote(emit.type(x), emit.type(other))
        return emit(f"{name}.Tensor", emit.cast(x, dtype), emit.cast(other, dtype))

    return rule


def _power(emit: Emit, x: Value, exponent: Number) -> Value:
    x = emit.cast(x, promote(emit.type(x), exponent))
    return x if exponent == 1 else emit("pow.Tensor_Scalar", x, exponent)


def _scalar_power(emit: Emit, base: Number, exponent: Value) -> Value:
    return emit("pow.Scalar", base, emit.cast(exponent, promote(emit.type(exponent), base)))


def _clamp(emit: Emit, x: Value, low: Number | None = None, high: Number | None = None) -> Value:
    limits = [limit for limit in (low, high) if limit is not None]
    x = emit.cast(x, promote(emit.type(x), *limits))
    return (
        emit("clamp_min.default", x, low) if high is None else emit("clamp.default", x, low, high)
    )


def _clamp_tensor(
    emit: Emit, x: Value, low: Value | None = None, high: Value | None = None
) -> Value:
    x = x if low is None else _arithmetic("maximum")(emit, x, low)
    return x if high is None else _arithmetic("minimum")(emit, x, high)


def _where(emit: Emit, condition: Value, x: Value, other: Value) -> Value:
    dtype = promote(emit.type(x), emit.type(other))
    return emit(
        "where.self", _as_bool(emit, condition), emit.cast(x, dtype), emit.cast(other, dtype)
    )


def _to(emit: Emit, x: Value, dtype: torch.dtype | None = None, **_: object) -> Value:
    return x if dtype is None else emit.cast(x, from_torch_dtype(dtype))


def _view(emit: Emit, x: Value, size: Sequence[int]) -> Value:
    known = 1
    for n in size:
        known *= n if n >= 0 else 1
    elements = emit.type(x).num_elements
    return emit.view(x, tuple(n if n >= 0 else elements // max(known, 1) for n in size))


def _unsqueeze(emit: Emit, x: Value, dim: int) -> Value:
    shape = emit.type(x).shape
    at = dim % (len(shape) + 1)
    return emit.view(x, (*shape[:at], 1, *shape[at:]))


def _squeeze(emit: Emit, x: Value, dims: Sequence[int] | int | None = None) -> Value:
    shape = emit.type(x).shape
    over = range(len(shape)) if dims is None else _dims(dims, len(shape)) if dims != () else ()
    return emit.view(x, tuple(n for d, n in enumerate(shape) if not (d in over and n == 1)))


def _permute(emit: Emit, x: Value, dims: Sequence[int]) -> Value:
    return emit("permute", x, tuple(_dim(d, len(dims)) for d in dims))


def _transpose(emit: Emit, x: Value, first: int, second: int) -> Value:
    dims = list(range(emit.rank(x)))
    if not dims:
        return x
    first, second = _dim(first, len(dims)), _dim(second, len(dims))
    dims[first], dims[second] = dims[second], dims[first]
    return emit("permute", x, tuple(dims))


def _t(emit: Emit, x: Value) -> Value:
    return x if emit.rank(x) < 2 else emit("permute", x, (1, 0))


def _expand(emit: Emit, x: Value, size: Sequence[int], **_: object) -> Value:
    shape = emit.type(x).shape
    padded = (1,) * (len(size) - len(shape)) + shape
    whole = tuple(n if m == -1 else m for n, m in zip(padded, size, strict=True))
    return x if whole == shape else emit("expand", x, whole)


def _repeat(emit: Emit, x: Value, repeats: Sequence[int]) -> Value:
    shape = emit.type(x).shape
    padded = (1,) * (len(repeats) - len(shape)) + shape
    x = emit.view(x, tuple(m for n in padded for m in (1, n)))
    wide = tuple(m for pair in zip(repeats, padded, strict=True) for m in pair)
    x = _expand(emit, x, wide)
    return emit.view(x, tuple(r * n for r, n in zip(repeats, padded, strict=True)))


def _slice(
    emit: Emit,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    shape = emit.type(x).shape
    dim = _dim(dim, len(shape))
    first, last, _ = slice(start, end).indices(shape[dim])
    last = max(first, last)
    if (first, last, step) == (0, shape[dim], 1):
        return x
    return emit("slice", x, dim, first, last, step)


def _slice_backward(
    emit: Emit, grad: Value, size: Sequence[int], dim: int, start: int, end: int, step: int
) -> Value:
    dim = _dim(dim, len(size))
    first, last, _ = slice(start, end).indices(size[dim])
    if (first, last, step) == (0, size[dim], 1):
        return grad
    return emit("slice_backward", grad, tuple(size), dim, first, last, step)


def _select(emit: Emit, x: Value, dim: int, index: int) -> Value:
    shape = emit.type(x).shape
    dim = _dim(dim, len(shape))
    index %= shape[dim]
    part = _slice(emit, x, dim, index, index + 1)
    return emit.view(part, (*shape[:dim], *shape[dim + 1 :]))


def _unbind(emit: Emit, x: Value, dim: int = 0) -> tuple[Value, ...]:
    length = emit.type(x).shape[_dim(dim, emit.rank(x))]
    return tuple(_select(emit, x, dim, index) for index in range(length))


def _split(emit: Emit, x: Value, size: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    length = emit.type(x).shape[_dim(dim, emit.rank(x))]
    if isinstance(size, int):
        size = [min(size, length - start) for start in range(0, length, size)] or [0]
    parts: list[Value] = []
    start = 0
    for n in size:
        parts.append(_slice(emit, x, dim, start, start + n))
        start += n
    return tuple(parts)


def _cat(emit: Emit, tensors: Sequence[Value], dim: int = 0) -> Value:
    # ATen skips tensors of shape (0,) whatever the others' rank.
    parts = [t for t in tensors if emit.type(t).shape != (0,)] or list(tensors[:1])
    dtype = promote(*(emit.type(t) for t in parts))
    parts = [emit.cast(t, dtype) for t in parts]
    dim = _dim(dim, emit.rank(parts[0]))
    return parts[0] if len(parts) == 1 else emit("cat", tuple(parts), dim)


def _stack(emit: Emit, tensors: Sequence[Value], dim: int = 0) -> Value:
    return _cat(
        emit, [_unsqueeze(emit, t, dim) for t in tensors], dim % (emit.rank(tensors[0]) + 1)
    )


def _sum(
    emit: Emit,
    x: Value,
    dims: Sequence[int] | int | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    own = emit.type(x).dtype
    wanted = own if own.is_float else DType.I64
    x = emit.cast(x, wanted if dtype is None else from_torch_dtype(dtype))
    over = _dims(dims, emit.rank(x))
    return emit("sum", x, over, keepdim) if over else x


def _amax(emit: Emit, x: Value, dims: Sequence[int] | int = (), keepdim: bool = False) -> Value:
    over = _dims(dims, emit.rank(x))
    return emit("amax", x, over, keepdim) if over else x


def _argmax(emit: Emit, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    if dim is None:
        x = emit.view(x, (emit.type(x).num_elements,))
        return emit("argmax.default", x, 0, False)
    return emit("argmax.default", x, _dim(dim, emit.rank(x)), keepdim)


def _cumsum(emit: Emit, x: Value, dim: int, *, dtype: torch.dtype | None = None) -> Value:
    x = _to(emit, x, dtype)
    return emit("cumsum", x, _dim(dim, emit.rank(x))) if emit.rank(x) else x


def _softmax(emit: Emit, x: Value, dim: int, half_to_float: bool) -> Value:
    return emit("_softmax.default", x, _dim(dim, emit.rank(x)), half_to_float)


def _softmax_backward(
    emit: Emit, grad: Value, output: Value, dim: int, input_dtype: torch.dtype
) -> Value:
    dtype = from_torch_dtype(input_dtype).value
    return emit("_softmax_backward_data.default", grad, output, _dim(dim, emit.rank(output)), dtype)


def _product(equation: str) -> Rule:
    return lambda emit, a, b: emit("einsum", equation, a, b)


def _gelu(emit: Emit, x: Value, *, approximate: str = "none") -> Value:
    return emit("gelu.default", x, approximate)


def _gelu_backward(emit: Emit, grad: Value, x: Value, *, approximate: str = "none") -> Value:
    return emit("gelu_backward.default", grad, x, approximate)


def _full(
    emit: Emit,
    size: Sequence[int],
    value: Number,
    *,
    dtype: torch.dtype | None = None,
    **_: object,
) -> Value:
    made = torch.get_default_dtype() if isinstance(value, float) else torch.int64
    made = torch.bool if isinstance(value, bool) else made
    return emit.full(tuple(size), value, from_torch_dtype(dtype or made))


def _filled(value: Number) -> Rule:
    """zeros, ones, empty: memory that nobody wrote is zero."""

    def rule(
        emit: Emit, size: Sequence[int], *, dtype: torch.dtype | None = None, **_: object
    ) -> Value:
        made = from_torch_dtype(dtype or torch.get_default_dtype())
        return emit.full(tuple(size), value, made)

    return rule


def _filled_like(value: Number) -> Rule:
    def rule(emit: Emit, x: Value, *, dtype: torch.dtype | None = None, **_: object) -> Value:
        own = emit.type(x)
        return emit.full(own.shape, value, own.dtype if dtype is None else from_torch_dtype(dtype))

    return rule


def _full_like(
    emit: Emit, x: Value, value: Number, *, dtype: torch.dtype | None = None, **_: object
) -> Value:
    return _filled_like(value)(emit, x, dtype=dtype)


def _new(value: Number) -> Rule:
    def rule(
        emit: Emit,
        x: Value,
        size: Sequence[int],
        *,
        dtype: torch.dtype | None = None,
        **_: object,
    ) -> Value:
        own = emit.type(x).dtype
        return emit.full(tuple(size), value, own if dtype is None else from_torch_dtype(dtype))

    return rule


def _new_full(
    emit: Emit,
    x: Value,
    size: Sequence[int],
    value: Number,
    *,
    dtype: torch.dtype | None = None,
    **_: object,
) -> Value:
    return _new(value)(emit, x, size, dtype=dtype)


def _scalar_tensor(
    emit: Emit, value: Number, *, dtype: torch.dtype | None = None, **_: object
) -> Value:
    return emit.full((), value, from_torch_dtype(dtype or torch.get_default_dtype()))


def _arange(
    emit: Emit,
    start: Number,
    end: Number,
    step: Number = 1,
    *,
    dtype: torch.dtype | None = None,
    **_: object,
) -> Value:
    whole = all(isinstance(n, int) for n in (start, end, step))
    made = from_torch_dtype(dtype or (torch.int64 if whole else torch.get_default_dtype()))
    length = max(0, -int((start - end) // step))
    return emit("iota", length, _number(start, made), _number(step, made), made.value)


def _scatter(emit: Emit, x: Value, dim: int, index: Value, src: Operand) -> Value:
    """Overwriting by index, for an index of one element along the dim: compare and choose."""
    own, dim = emit.type(x), _dim(dim, emit.rank(x))
    if emit.type(index).shape[dim] != 1 and x not in emit.zeros:
        return NotImplemented
    if not isinstance(src, Value):
        src = emit.full(emit.type(index).shape, src, own.dtype)
    src = _slice_to(emit, src, emit.type(index).shape)
    if emit.type(index).shape[dim] != 1:
        # Into zeros, with indices that do not repeat, adding is overwriting.
        return emit("scatter_add.default", x, dim, index, src)
    if emit.type(index).shape != (*own.shape[:dim], 1, *own.shape[dim + 1 :]):
        return NotImplemented
    along = tuple(own.shape[dim] if d == dim else 1 for d in range(len(own.shape)))
    row = emit("iota", own.shape[dim], 0, 1, emit.type(index).dtype.value)
    return emit("where.self", emit("eq.Tensor", index, emit.view(row, along)), src, x)


def _slice_to(emit: Emit, x: Value, shape: tuple[int, ...]) -> Value:
    for dim, n in enumerate(shape):
        x = _slice(emit, x, dim, 0, n)
    return x


def _scatter_add(emit: Emit, x: Value, dim: int, index: Value, src: Value) -> Value:
    return emit("scatter_add.default", x, _dim(dim, emit.rank(x)), index, src)


def _gather(emit: Emit, x: Value, dim: int, index: Value, **_: object) -> Value:
    return emit("gather.default", x, _dim(dim, emit.rank(x)), index)


def _index_select(emit: Emit, x: Value, dim: int, index: Value) -> Value:
    return emit("index_select.default", x, _dim(dim, emit.rank(x)), index)


def _topk(
    emit: Emit, x: Value, k: int, dim: int = -1, largest: bool = True, is_sorted: bool = True
) -> tuple[Value, ...]:
    return emit.all("topk.default", x, k, _dim(dim, emit.rank(x)), largest, is_sorted)


def _embedding(emit: Emit, weight: Value, index: Value, *_: object) -> Value:
    return emit("embedding.default", weight, index)


def _positional(op: str) -> Rule:
    """Operators whose arguments already have the table's form."""

    def rule(emit: Emit, *args: Arg) -> Results:
        made = emit.all(op, *args)
        return made[0] if len(made) == 1 else made

    return rule


_POSITIONAL = (
    "convolution.default",
    "convolution_backward.default",
    "max_pool2d_with_indices.default",
    "max_pool2d_with_indices_backward.default",
    "avg_pool2d.default",
    "avg_pool2d_backward.default",
    "native_layer_norm.default",
    "native_layer_norm_backward.default",
    "embedding_dense_backward.default",
    "masked_fill.Scalar",
    "threshold_backward.default",
    "tanh_backward.default",
    "sigmoid_backward.default",
    "silu_backward.default",
)
_UNARY = ("neg", "abs", "sign", "relu", "floor", "silu", "logical_not", "bitwise_not")
_FLOAT_UNARY = (
    *("sqrt", "rsqrt", "exp", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid"),
    "reciprocal",
)
_SAME = (
    *(aten.clone.default, aten.detach.default, aten.alias.default, aten.contiguous.default),
    *(aten.lift.default, aten.lift_fresh.default, aten.lift_fresh_copy.default),
    *(aten.positive.default, aten._conj.default, aten.resolve_conj.default),
)


def _overload(name: str) -> OpOverload:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _rules() -> dict[OpOverload, Rule]:
    rules: dict[OpOverload, Rule] = {_overload(name): _positional(name) for name in _POSITIONAL}
    rules |= {_overload(name): _unary(f"{name}.default") for name in _UNARY}
    rules |= {_overload(name): _float_unary(f"{name}.default") for name in _FLOAT_UNARY}
    rules |= dict.fromkeys(_SAME, _same)
    for name in ("add", "sub", "mul", "div"):
        rules[_overload(f"{name}.Tensor")] = _arithmetic(name)
        rules[_overload(f"{name}.Scalar")] = _arithmetic(name)
    for name in ("maximum", "minimum"):
        rules[_overload(name)] = _arithmetic(name)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        rules[_overload(f"{name}.Tensor")] = _comparison(name)
        rules[_overload(f"{name}.Scalar")] = _comparison(name)
    for name in ("logical_and", "logical_or"):
        rules[_overload(name)] = _logical(name)
    for name in ("bitwise_and", "bitwise_or"):
        rules[_overload(f"{name}.Tensor")] = _bitwise(name)
        rules[_overload(f"{name}.Scalar")] = _bitwise(name)
    return rules | _FORMS


_FORMS: Mapping[OpOverload, Rule] = MappingProxyType(
    {
        aten.rsub.Scalar: _rsub,
        aten.rsub.Tensor: _rsub,
        aten.pow.Tensor_Scalar: _power,
        aten.pow.Scalar: _scalar_power,
        aten.clamp.default: _clamp,
        aten.clamp.Tensor: _clamp_tensor,
        aten.clamp_min.default: _clamp,
        aten.clamp_max.default: lambda emit, x, high: _clamp(emit, x, None, high),
        aten.where.self: _where,
        aten._to_copy.default: _to,
        prims.convert_element_type.default: _to,
        aten.view.default: _view,
        aten._unsafe_view.default: _view,
        aten.reshape.default: _view,
        aten._reshape_alias.default: lambda emit, x, size, stride: _view(emit, x, size),
        aten.unsqueeze.default: _unsqueeze,
        aten.squeeze.default: _squeeze,
        aten.squeeze.dim: _squeeze,
        aten.squeeze.dims: _squeeze,
        aten.permute.default: _permute,
        aten.transpose.int: _transpose,
        aten.t.default: _t,
        aten.expand.default: _expand,
        aten.repeat.default: _repeat,
        aten.slice.Tensor: _slice,
        aten.slice_backward.default: _slice_backward,
        aten.select.int: _select,
        aten.unbind.int: _unbind,
        aten.split.Tensor: _split,
        aten.split_with_sizes.default: _split,
        aten.cat.default: _cat,
        aten.stack.default: _stack,
        aten.sum.default: _sum,
        aten.sum.dim_IntList: _sum,
        aten.amax.default: _amax,
        aten.argmax.default: _argmax,
        aten.cumsum.default: _cumsum,
        aten._softmax.default: _softmax,
        aten._softmax_backward_data.default: _softmax_backward,
        aten.mm.default: _product("ab,bc->ac"),
        aten.bmm.default: _product("abc,acd->abd"),
        aten.mv.default: _product("ab,b->a"),
        aten.dot.default: _product("a,a->"),
        aten.gelu.default: _gelu,
        aten.gelu_backward.default: _gelu_backward,
        aten.full.default: _full,
        aten.zeros.default: _filled(0),
        aten.ones.default: _filled(1),
        aten.empty.memory_format: _filled(0),
        aten.empty_permuted.default: lambda emit, size, *_, **k: _filled(0)(emit, size, **k),
        aten.empty_strided.default: lambda emit, size, *_, **k: _filled(0)(emit, size, **k),
        aten.zeros_like.default: _filled_like(0),
        aten.ones_like.default: _filled_like(1),
        aten.empty_like.default: _filled_like(0),
        aten.full_like.default: _full_like,
        aten.new_zeros.default: _new(0),
        aten.new_ones.default: _new(1),
        aten.new_empty.default: _new(0),
        aten.new_empty_strided.default: lambda emit, x, size, *_, **k: _new(0)(emit, x, size, **k),
        aten.new_full.default: _new_full,
        aten.scalar_tensor.default: _scalar_tensor,
        aten.arange.default: lambda emit, end, **k: _arange(emit, 0, end, **k),
        aten.arange.start: _arange,
        aten.arange.start_step: _arange,
        aten.scatter.src: _scatter,
        aten.scatter.value: _scatter,
        aten.scatter_add.default: _scatter_add,
        aten.gather.default: _gather,
        aten.index_select.default: _index_select,
        aten.topk.default: _topk,
        aten.embedding.default: _embedding,
        weft.uniform.default: _positional("uniform"),
        weft.attention.default: _positional("attention"),
        weft.attention_backward.default: _positional("attention_backward"),
    }
)

RULES: Mapping[OpOverload, Rule] = MappingProxyType(_rules())
"""The rule of each ATen operator that stays: it adds nodes and returns their values."""
