"""Rules of element-wise operators: one element type, numbers in `Scalar` forms."""

from __future__ import annotations

from collections.abc import Callable

import torch

from weft.capture.canonical.emit import (
    Emit,
    Number,
    Operand,
    Rule,
    Rules,
    overload,
    positional,
)
from weft.capture.dtypes import from_torch_dtype
from weft.program.graph import Value
from weft.program.promotion import promote, promote_to_float
from weft.program.types import DType

__all__ = ["POINTWISE", "arithmetic"]

aten, prims = torch.ops.aten, torch.ops.prims


def _unary(op: str) -> Rule:
    return lambda emit, x: emit(op, x)


def _float_unary(op: str) -> Rule:
    return lambda emit, x: emit(op, emit.cast(x, promote_to_float(emit.type(x))))


def arithmetic(name: str) -> Callable[..., Value]:
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
        return arithmetic("sub")(emit, other, x)
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


def _divided(name: str) -> Rule:
    def rule(emit: Emit, x: Value, divisor: Operand) -> Value:
        if isinstance(divisor, Value):
            return NotImplemented  # by a tensor
        x = emit.cast(x, promote(emit.type(x), divisor))
        return emit(f"{name}.Scalar", x, divisor)

    return rule


def _clamp(emit: Emit, x: Value, low: Number | None = None, high: Number | None = None) -> Value:
    limits = [limit for limit in (low, high) if limit is not None]
    x = emit.cast(x, promote(emit.type(x), *limits))
    return (
        emit("clamp_min.default", x, low) if high is None else emit("clamp.default", x, low, high)
    )


def _clamp_tensor(
    emit: Emit, x: Value, low: Value | None = None, high: Value | None = None
) -> Value:
    x = x if low is None else arithmetic("maximum")(emit, x, low)
    return x if high is None else arithmetic("minimum")(emit, x, high)


def _where(emit: Emit, condition: Value, x: Operand, other: Operand) -> Value:
    dtype = promote(*(emit.type(v) if isinstance(v, Value) else v for v in (x, other)))
    x, other = (v if isinstance(v, Value) else emit.full((), v, dtype) for v in (x, other))
    return emit(
        "where.self", _as_bool(emit, condition), emit.cast(x, dtype), emit.cast(other, dtype)
    )


def _to(emit: Emit, x: Value, dtype: torch.dtype | None = None, **_: object) -> Value:
    return x if dtype is None else emit.cast(x, from_torch_dtype(dtype))


def _gelu(emit: Emit, x: Value, *, approximate: str = "none") -> Value:
    return emit("gelu.default", x, approximate)


def _gelu_backward(emit: Emit, grad: Value, x: Value, *, approximate: str = "none") -> Value:
    return emit("gelu_backward.default", grad, x, approximate)


_UNARY = ("neg", "abs", "sign", "relu", "floor", "silu", "logical_not", "bitwise_not")
_FLOAT_UNARY = (
    *("sqrt", "rsqrt", "exp", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid"),
    "reciprocal",
)
_POSITIONAL = (
    *("masked_fill.Scalar", "threshold_backward", "tanh_backward", "sigmoid_backward"),
    "silu_backward",
)


def _rules() -> Rules:
    rules: Rules = {}
    for name in _UNARY:
        rules[overload(name)] = _unary(f"{name}.default")
    for name in _FLOAT_UNARY:
        rules[overload(name)] = _float_unary(f"{name}.default")
    for name in _POSITIONAL:
        rules[overload(name)] = positional(name if "." in name else f"{name}.default")
    for name in ("add", "sub", "mul", "div"):
        rules[overload(f"{name}.Tensor")] = arithmetic(name)
        rules[overload(f"{name}.Scalar")] = arithmetic(name)
    for name in ("maximum", "minimum"):
        rules[overload(name)] = arithmetic(name)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        rules[overload(f"{name}.Tensor")] = _comparison(name)
        rules[overload(f"{name}.Scalar")] = _comparison(name)
    for name in ("logical_and", "logical_or"):
        rules[overload(name)] = _logical(name)
    for name in ("bitwise_and", "bitwise_or"):
        rules[overload(f"{name}.Tensor")] = _bitwise(name)
        rules[overload(f"{name}.Scalar")] = _bitwise(name)
    return rules


POINTWISE: Rules = _rules() | {
    aten.rsub.Scalar: _rsub,
    aten.rsub.Tensor: _rsub,
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Scalar: _scalar_power,
    aten.remainder.Scalar: _divided("remainder"),
    aten.floor_divide.default: _divided("floor_divide"),
    aten.clamp.default: _clamp,
    aten.clamp.Tensor: _clamp_tensor,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: lambda emit, x, high: _clamp(emit, x, None, high),
    aten.where.self: _where,
    prims.where.default: _where,
    aten._to_copy.default: _to,
    prims.convert_element_type.default: _to,
    aten.gelu.default: _gelu,
    aten.gelu_backward.default: _gelu_backward,
}
