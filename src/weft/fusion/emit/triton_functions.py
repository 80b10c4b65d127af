"""Functions that generated Triton kernels call; float32 and float64 alike.

They are made of what every back end of Triton has, its interpreter included, so that what tests run
on a CPU is what a GPU runs. Accuracy: a few units in the last place.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "all_largest",
    "any_true",
    "gelu_backward",
    "gelu_tanh_backward",
    "larger",
    "log_of_one_plus",
    "logistic",
    "negative",
    "power",
    "root",
    "sign",
    "smaller",
    "tangent",
    "to_bfloat16",
]


@triton.jit
def larger(a, b):
    """The larger of two floating-point numbers, NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def smaller(a, b):
    """The smaller of two floating-point numbers, NaN if one is."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def negative(x):
    """Minus a number, of zero as well."""
    return x * -1.0


@triton.jit
def root(x):
    """The square root, rounded to the nearest."""
    if x.dtype == tl.float32:
        return tl.sqrt_rn(x)
    else:
        return tl.sqrt(x)


@triton.jit
def sign(x):
    """1, 0 or -1; 0 of NaN."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def all_largest(x, axis: tl.constexpr):
    """The largest number along an axis, NaN if one is.

    Bits as whole numbers of the same order, where NaN is above all, and back.
    """
    x = tl.where(x == x, x, float("nan"))
    if x.dtype == tl.float64:
        key = x.to(tl.int64, bitcast=True)
        key = tl.max(key ^ ((key >> 63) & 0x7FFFFFFFFFFFFFFF), axis, keep_dims=True)
        key = key ^ ((key >> 63) & 0x7FFFFFFFFFFFFFFF)  # pyright: ignore[reportOperatorIssue]
        return key.to(tl.float64, bitcast=True)
    else:
        key = x.to(tl.int32, bitcast=True)
        key = tl.max(key ^ ((key >> 31) & 0x7FFFFFFF), axis, keep_dims=True)
        key = key ^ ((key >> 31) & 0x7FFFFFFF)  # pyright: ignore[reportOperatorIssue]
        return key.to(tl.float32, bitcast=True)


@triton.jit
def any_true(x, axis: tl.constexpr):
    """Whether one is true along an axis."""
    return tl.max(x.to(tl.int32), axis, keep_dims=True) != 0


@triton.jit
def logistic(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(x * -1.0))


@triton.jit
def tangent(x):
    """The hyperbolic tangent.

    Where exp(-2|x|) is near 1, the sixth convergent of its continued fraction, which at 0.3 is
    within 4e-16.
    """
    size = tl.abs(x)
    raised = tl.exp(size * -2.0)
    far = (1.0 - raised) / (1.0 + raised)
    square = x * x
    above = size * (10395.0 + square * (1260.0 + 21.0 * square))
    below = 10395.0 + square * (4725.0 + square * (210.0 + square))
    found = tl.where(size < 0.3, above / below, far)
    return tl.where(x < 0, found * -1.0, found)


@triton.jit
def log_of_one_plus(x):
    """The logarithm of 1 + x: what 1 + x loses in rounding is made good by a ratio."""
    whole = 1.0 + x
    found = tl.log(whole) * (x / (whole - 1.0))
    found = tl.where(whole == 1.0, x, found)
    return tl.where(whole == float("inf"), whole, found)


@triton.jit
def power(x, exponent):
    """X to a power that is no whole number: NaN below 0. Through float64, for its digits."""
    wide = tl.exp(exponent.to(tl.float64) * tl.log(x.to(tl.float64)))
    return wide.to(x.dtype)


@triton.jit
def gelu_backward(grad, x):
    """Gradient of x Phi(x)."""
    below = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    density = tl.exp(x * x * -0.5) * 0.3989422804014327
    return grad * (below + x * density)


@triton.jit
def gelu_tanh_backward(grad, x):
    """Gradient of GELU's approximation by a hyperbolic tangent."""
    square = x * x
    t = tangent(0.7978845608028654 * (x + 0.044715 * square * x))
    inner = 0.7978845608028654 * (1.0 + 0.134145 * square)
    return grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)


@triton.jit
def to_bfloat16(x):
    """The nearest bfloat16 of a float32, the even one of two, as a float32.

    Written out: Triton's interpreter cuts off what bfloat16 does not hold.
    """
    bits = x.to(tl.int32, bitcast=True)
    near = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
    return tl.where(x == x, near.to(tl.float32, bitcast=True), x)
