"""Element-wise operators on NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from weft.program.evaluate.arrays import Array

__all__ = ["ELEMENTWISE"]

_erf_of_objects = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Array) -> Array:
    return np.asarray(_erf_of_objects(x.astype(np.float64)), dtype=np.float64)


def _sigmoid(x: Array) -> Array:
    # The exponent is never positive, so that nothing overflows.
    power = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + power), power / (1.0 + power))


def _gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1.0 + np.tanh(_gelu_inner(x)))
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def _gelu_inner(x: Array) -> Array:
    # Hendrycks and Gimpel, arXiv 1606.08415, section 2.
    return math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)


def _gelu_backward(grad: Array, x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        t = np.tanh(_gelu_inner(x))
        slope = math.sqrt(2.0 / math.pi) * (1.0 + 3 * 0.044715 * x**2)
        return grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t**2) * slope)
    cumulative = 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))
    density = np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
    return grad * (cumulative + x * density)


def _silu_backward(grad: Array, x: Array) -> Array:
    s = _sigmoid(x)
    return grad * s * (1.0 + x * (1.0 - s))


def _clamp(x: Array, low: float | None = None, high: float | None = None) -> Array:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _add(x: Array, other: Array, alpha: float = 1) -> Array:
    return np.add(x, other if alpha == 1 else np.multiply(other, alpha))


def _subtract(x: Array, other: Array, alpha: float = 1) -> Array:
    return np.subtract(x, other if alpha == 1 else np.multiply(other, alpha))


def _reverse_subtract(x: Array, other: float, alpha: float = 1) -> Array:
    return np.subtract(other, x if alpha == 1 else np.multiply(x, alpha))


def _rsqrt(x: Array) -> Array:
    return 1.0 / np.sqrt(x)


def _reciprocal(x: Array) -> Array:
    return 1.0 / x


def _tanh_backward(grad: Array, out: Array) -> Array:
    return grad * (1.0 - out**2)


def _sigmoid_backward(grad: Array, out: Array) -> Array:
    return grad * out * (1.0 - out)


def _itself(x: Array, *ignored: object) -> Array:
    return x


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _threshold_backward(grad: Array, x: Array, threshold: float) -> Array:
    return np.where(x <= threshold, 0, grad)


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _masked_fill(x: Array, mask: Array, value: float) -> Array:
    return np.where(mask, value, x)


def _same(x: Array, dtype: str) -> Array:
    return x


ELEMENTWISE: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "cast": _same,
        "add.Tensor": _add,
        "add.Scalar": _add,
        "sub.Tensor": _subtract,
        "sub.Scalar": _subtract,
        "rsub.Scalar": _reverse_subtract,
        "mul.Tensor": np.multiply,
        "mul.Scalar": np.multiply,
        "div.Tensor": np.true_divide,
        "div.Scalar": np.true_divide,
        "neg.default": np.negative,
        "abs.default": np.abs,
        "accumulate": _itself,
        "send": _itself,
        "sign.default": np.sign,
        "pow.Tensor_Scalar": np.power,
        "pow.Scalar": np.power,
        "sqrt.default": np.sqrt,
        "rsqrt.default": _rsqrt,
        "reciprocal.default": _reciprocal,
        "exp.default": np.exp,
        "log.default": np.log,
        "log1p.default": np.log1p,
        "sin.default": np.sin,
        "cos.default": np.cos,
        "tanh.default": np.tanh,
        "tanh_backward.default": _tanh_backward,
        "erf.default": _erf,
        "sigmoid.default": _sigmoid,
        "sigmoid_backward.default": _sigmoid_backward,
        "relu.default": _relu,
        "threshold_backward.default": _threshold_backward,
        "gelu.default": _gelu,
        "gelu_backward.default": _gelu_backward,
        "silu.default": _silu,
        "silu_backward.default": _silu_backward,
        "maximum.default": np.maximum,
        "minimum.default": np.minimum,
        "clamp.default": _clamp,
        "clamp_min.default": _clamp,
        "where.self": np.where,
        "masked_fill.Scalar": _masked_fill,
        "eq.Scalar": np.equal,
        "eq.Tensor": np.equal,
        "ne.Scalar": np.not_equal,
        "ne.Tensor": np.not_equal,
        "lt.Scalar": np.less,
        "lt.Tensor": np.less,
        "le.Scalar": np.less_equal,
        "le.Tensor": np.less_equal,
        "gt.Scalar": np.greater,
        "gt.Tensor": np.greater,
        "ge.Scalar": np.greater_equal,
        "ge.Tensor": np.greater_equal,
        "logical_not.default": np.logical_not,
        "logical_and.default": np.logical_and,
        "logical_or.default": np.logical_or,
        "bitwise_not.default": np.bitwise_not,
        "bitwise_and.Tensor": np.bitwise_and,
        "bitwise_or.Tensor": np.bitwise_or,
        "floor.default": np.floor,
        "remainder.Scalar": np.remainder,
        "floor_divide.Scalar": np.floor_divide,
    }
)
