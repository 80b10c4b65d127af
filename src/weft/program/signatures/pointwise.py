"""Signatures of element-wise operators."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.program.promotion import Operand, broadcast, promote, promote_to_float
from weft.program.signatures.law import Dims, DTypeName, Number, Outputs, Signature, require
from weft.program.types import DType, TensorType

__all__ = ["POINTWISE"]


def _shapes(*operands: Operand | None) -> Dims:
    return broadcast(*(t.shape for t in operands if isinstance(t, TensorType)))


def _cast(x: TensorType, dtype: DTypeName) -> Outputs:
    return (TensorType(DType(dtype), x.shape),)


def _same(x: TensorType) -> Outputs:
    return (x,)


def _to_float(x: TensorType) -> Outputs:
    return (TensorType(promote_to_float(x), x.shape),)


def _scaled(x: TensorType, other: TensorType | Number, alpha: Number = 1) -> Outputs:
    return (TensorType(promote(x, other), _shapes(x, other)),)


def _binary(x: TensorType, other: TensorType | Number) -> Outputs:
    return (TensorType(promote(x, other), _shapes(x, other)),)


def _quotient(x: TensorType, other: TensorType | Number) -> Outputs:
    return (TensorType(promote_to_float(x, other), _shapes(x, other)),)


def _two_tensors(x: TensorType, other: TensorType) -> Outputs:
    return (TensorType(promote(x, other), _shapes(x, other)),)


def _comparison(x: TensorType, other: TensorType | Number) -> Outputs:
    return (TensorType(DType.BOOL, _shapes(x, other)),)


def _logical(x: TensorType, other: TensorType) -> Outputs:
    return _comparison(x, other)


def _logical_not(x: TensorType) -> Outputs:
    return (TensorType(DType.BOOL, x.shape),)


def _scalar_power(base: Number, exponent: TensorType) -> Outputs:
    return (TensorType(promote(base, exponent), exponent.shape),)


def _backward(grad: TensorType, saved: TensorType) -> Outputs:
    require(grad.shape == saved.shape, "a gradient like the saved tensor", f"{grad} for {saved}")
    return (TensorType(promote(grad, saved), grad.shape),)


def _threshold_backward(grad: TensorType, x: TensorType, threshold: Number) -> Outputs:
    return _backward(grad, x)


def _gelu(x: TensorType, approximate: str = "none") -> Outputs:
    require(approximate in ("none", "tanh"), "approximation none or tanh", approximate)
    return (x,)


def _gelu_backward(grad: TensorType, x: TensorType, approximate: str = "none") -> Outputs:
    _gelu(x, approximate)
    return _backward(grad, x)


def _clamp(x: TensorType, low: Number | None = None, high: Number | None = None) -> Outputs:
    limits = [limit for limit in (low, high) if limit is not None]
    require(len(limits) > 0, "a lower or an upper limit", "neither")
    return (TensorType(promote(x, *limits), x.shape),)


def _clamp_min(x: TensorType, low: Number) -> Outputs:
    return _clamp(x, low)


def _where(condition: TensorType, x: TensorType, other: TensorType) -> Outputs:
    require(condition.dtype is DType.BOOL, "a condition of bool", condition)
    return (TensorType(promote(x, other), _shapes(condition, x, other)),)


def _masked_fill(x: TensorType, mask: TensorType, value: Number) -> Outputs:
    require(mask.dtype is DType.BOOL, "a mask of bool", mask)
    return (TensorType(x.dtype, _shapes(x, mask)),)


POINTWISE: Mapping[str, Signature] = MappingProxyType(
    {
        "cast": _cast,
        "accumulate": _same,
        "neg.default": _same,
        "abs.default": _same,
        "sign.default": _same,
        "relu.default": _same,
        "silu.default": _same,
        "floor.default": _same,
        "bitwise_not.default": _same,
        "sqrt.default": _to_float,
        "rsqrt.default": _to_float,
        "reciprocal.default": _to_float,
        "exp.default": _to_float,
        "log.default": _to_float,
        "log1p.default": _to_float,
        "sin.default": _to_float,
        "cos.default": _to_float,
        "tanh.default": _to_float,
        "erf.default": _to_float,
        "sigmoid.default": _to_float,
        "gelu.default": _gelu,
        "add.Tensor": _scaled,
        "add.Scalar": _scaled,
        "sub.Tensor": _scaled,
        "sub.Scalar": _scaled,
        "rsub.Scalar": _scaled,
        "mul.Tensor": _binary,
        "mul.Scalar": _binary,
        "pow.Tensor_Scalar": _binary,
        "remainder.Scalar": _binary,
        "floor_divide.Scalar": _binary,
        "div.Tensor": _quotient,
        "div.Scalar": _quotient,
        "pow.Scalar": _scalar_power,
        "tanh_backward.default": _backward,
        "sigmoid_backward.default": _backward,
        "silu_backward.default": _backward,
        "threshold_backward.default": _threshold_backward,
        "gelu_backward.default": _gelu_backward,
        "maximum.default": _two_tensors,
        "minimum.default": _two_tensors,
        "bitwise_and.Tensor": _two_tensors,
        "bitwise_or.Tensor": _two_tensors,
        "clamp.default": _clamp,
        "clamp_min.default": _clamp_min,
        "where.self": _where,
        "masked_fill.Scalar": _masked_fill,
        "eq.Scalar": _comparison,
        "eq.Tensor": _comparison,
        "ne.Scalar": _comparison,
        "ne.Tensor": _comparison,
        "lt.Scalar": _comparison,
        "lt.Tensor": _comparison,
        "le.Scalar": _comparison,
        "le.Tensor": _comparison,
        "gt.Scalar": _comparison,
        "gt.Tensor": _comparison,
        "ge.Scalar": _comparison,
        "ge.Tensor": _comparison,
        "logical_not.default": _logical_not,
        "logical_and.default": _logical,
        "logical_or.default": _logical,
    }
)
