"""Element-wise operators as expressions of Triton. `{0}` is the first operand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from weft.core.errors import VerifyError
from weft.fusion.points import Const, Point
from weft.program.types import DType

__all__ = ["COMPUTED", "applied", "begin", "cast", "literal", "paired", "reduced"]

COMPUTED: Mapping[DType, str] = MappingProxyType(
    {
        DType.F64: "tl.float64",
        DType.F32: "tl.float32",
        DType.BF16: "tl.float32",
        DType.F16: "tl.float32",
        DType.I64: "tl.int64",
        DType.I32: "tl.int32",
        DType.U8: "tl.int32",
        DType.BOOL: "tl.int1",
    }
)
"""The type in which elements are computed with."""

_PAIRS = MappingProxyType({"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="})

EXPRESSIONS: Mapping[str, str] = MappingProxyType(
    {
        "constant": "{0}",
        "add.Tensor": "({0} + {1})",
        "add.Scalar": "({0} + {1})",
        "accumulate": "({0} + {1})",
        "sub.Tensor": "({0} - {1})",
        "sub.Scalar": "({0} - {1})",
        "rsub.Scalar": "({1} - {0})",
        "mul.Tensor": "({0} * {1})",
        "mul.Scalar": "({0} * {1})",
        "div.Tensor": "({0} / {1})",
        "div.Scalar": "({0} / {1})",
        "neg.default": "negative({0})",
        "abs.default": "tl.abs({0})",
        "sign.default": "sign({0})",
        "sqrt.default": "root({0})",
        "rsqrt.default": "tl.rsqrt({0})",
        "reciprocal.default": "(1.0 / {0})",
        "exp.default": "tl.exp({0})",
        "log.default": "tl.log({0})",
        "log1p.default": "log_of_one_plus({0})",
        "sin.default": "tl.sin({0})",
        "cos.default": "tl.cos({0})",
        "tanh.default": "tangent({0})",
        "tanh_backward.default": "({0} * (1.0 - {1} * {1}))",
        "erf.default": "tl.erf({0})",
        "sigmoid.default": "logistic({0})",
        "sigmoid_backward.default": "({0} * (1.0 - {1}) * {1})",
        "relu.default": "larger({0}, tl.zeros_like({0}))",
        "threshold_backward.default": "tl.where({1} <= {2}, tl.zeros_like({0}), {0})",
        "silu.default": "({0} * logistic({0}))",
        "silu_backward.default": ("({0} * logistic({1}) * (1.0 + {1} * (1.0 - logistic({1}))))"),
        "maximum.default": "larger({0}, {1})",
        "minimum.default": "smaller({0}, {1})",
        "maximum.Scalar": "larger({0}, {1})",
        "minimum.Scalar": "smaller({0}, {1})",
        "clamp_min.default": "larger({0}, {1})",
        "where.self": "tl.where({0}, {1}, {2})",
        "masked_fill.Scalar": "tl.where({1}, {2}, {0})",
        "logical_not.default": "({0} == 0)",
        "logical_and.default": "({0} & {1})",
        "logical_or.default": "({0} | {1})",
        "bitwise_and.Tensor": "({0} & {1})",
        "bitwise_or.Tensor": "({0} | {1})",
        "bitwise_not.default": "(~{0})",
        "floor.default": "tl.floor({0})",
        **{
            f"{name}.{suffix}": f"({{0}} {sign} {{1}})"
            for name, sign in _PAIRS.items()
            for suffix in ("Scalar", "Tensor")
        },
    }
)

_OF_MASKS: Mapping[str, str] = MappingProxyType(
    {
        "mul.Tensor": "({0} & {1})",
        "add.Tensor": "({0} | {1})",
        "maximum.default": "({0} | {1})",
        "minimum.default": "({0} & {1})",
        "bitwise_not.default": "({0} == 0)",
    }
)
"""Arithmetic of masks, as ATen does it."""

_OF_WHOLE: Mapping[str, str] = MappingProxyType(
    {
        "neg.default": "(-{0})",
        "relu.default": "tl.maximum({0}, tl.zeros_like({0}))",
        **{
            op: f"tl.{op.partition('.')[0]}({{0}}, {{1}})"
            for op in ("maximum.default", "minimum.default", "maximum.Scalar", "minimum.Scalar")
        },
        "clamp_min.default": "tl.maximum({0}, {1})",
    }
)
"""Where whole numbers need other words."""

MOST_FACTORS = 16
"""Whole exponents up to which a power is a product."""


def applied(own: Point, args: tuple[str, ...]) -> str:
    """The expression of a MAP, whose operands have names.

    Raises:
        VerifyError: Triton has no expression for it.
    """
    if own.op == "cast":
        return cast(args[0], own.dtype, DType(own.words[0]))
    text = _expression(own)
    if text is None:
        raise VerifyError(
            need="an operator that Triton kernels know",
            got=f"{own.op} of {own.dtype.value}",
            hint="leave it outside of the region",
        )
    made = text.format(*args)
    return f"({made} & 255)" if own.dtype is DType.U8 else made


def _expression(own: Point) -> str | None:
    op, words = own.op, own.words
    if op == "gelu.default":
        if words and words[0] == "tanh":
            cube = "({0} + 0.044715 * {0} * {0} * {0})"
            return f"(0.5 * {{0}} * (1.0 + tangent({math.sqrt(2 / math.pi)!r} * {cube})))"
        return f"(0.5 * {{0}} * (1.0 + tl.erf({{0}} * {math.sqrt(0.5)!r})))"
    if op == "gelu_backward.default":
        is_tanh = words and words[0] == "tanh"
        return f"{'gelu_tanh_backward' if is_tanh else 'gelu_backward'}({{0}}, {{1}})"
    if op == "pow.Tensor_Scalar":
        assert isinstance(own.args[1], Const)
        return _power(float(own.args[1].value), own.dtype)
    if op == "pow.Scalar":
        assert isinstance(own.args[0], Const)
        is_known = own.args[0].value > 0 and own.dtype.is_float and own.dtype is not DType.F64
        return "power({0}, {1})" if is_known else None
    if own.dtype is DType.BOOL and op in _OF_MASKS:
        return _OF_MASKS[op]
    if not own.dtype.is_float and op in _OF_WHOLE:
        return _OF_WHOLE[op]
    return EXPRESSIONS.get(op)


def _power(exponent: float, dtype: DType) -> str | None:
    if exponent in (0.5, -0.5):
        return "root({0})" if exponent > 0 else "tl.rsqrt({0})"
    whole = abs(int(exponent)) if exponent.is_integer() else 0
    if 0 < whole <= MOST_FACTORS:
        product = _product(whole)
        return product if exponent > 0 else f"(1.0 / {product})"
    if exponent.is_integer() or dtype is DType.F64 or not dtype.is_float:
        return None
    return "power({0}, {1})"


def _product(count: int) -> str:
    if count == 1:
        return "{0}"
    half = _product(count // 2)
    square = f"({half} * {half})"
    return f"({square} * {{0}})" if count % 2 else square


def cast(value: str, to: DType, source: DType) -> str:
    """A value in another element type."""
    if to is DType.BOOL:
        return f"({value} != 0)"
    # Rounded once, from single precision, as torch does.
    if to is DType.BF16:
        return f"to_bfloat16({value}.to(tl.float32))"
    if to is DType.F16:
        return f"{value}.to(tl.float32).to(tl.float16).to(tl.float32)"
    if to is DType.U8:
        return f"({value}.to(tl.int32) & 255)"
    return value if COMPUTED[to] == COMPUTED[source] else f"{value}.to({COMPUTED[to]})"


def literal(value: int | float | bool, dtype: DType, shape: str) -> str:
    """A number, as a tensor of a shape of ones.

    Raises:
        VerifyError: the type does not hold it.
    """
    typed = COMPUTED[dtype]
    if not dtype.is_float:
        if isinstance(value, float) and not value.is_integer():
            raise VerifyError(
                need="a whole number among whole numbers",
                got=repr(value),
                hint="leave the operator outside of the region",
            )
        return f"tl.full({shape}, {int(value)}, {typed})"
    number = float(value)
    largest = 3.4028235677973366e38 if typed == "tl.float32" else math.inf
    if math.isnan(number):
        return f'tl.full({shape}, float("nan"), {typed})'
    if abs(number) >= largest:
        return f'tl.full({shape}, float("{"-" * (number < 0)}inf"), {typed})'
    if not number and math.copysign(1.0, number) < 0:
        return f"(tl.full({shape}, 1.0, {typed}) * -0.0)"
    return f"tl.full({shape}, {number!r}, {typed})"


def begin(op: str, dtype: DType) -> float | int:
    """What a reduction begins with."""
    if op == "sum" or dtype is DType.BOOL:
        return 0
    if dtype.is_float:
        return -math.inf
    return -(2 ** {DType.I64: 63, DType.I32: 31, DType.U8: 31}[dtype])


def paired(op: str, dtype: DType, a: str, b: str) -> str:
    """Two summands joined."""
    if dtype is DType.BOOL:
        return f"({a} | {b})"
    if op == "sum":
        return f"({a} + {b})"
    if dtype.is_float:
        return f"larger({a}, {b})"
    return f"tl.maximum({a}, {b})"


def reduced(op: str, dtype: DType, value: str, dim: int) -> str:
    """A value joined along a dim of its tile.

    Raises:
        VerifyError: there is no such reduction.
    """
    if dtype is DType.BOOL:
        return f"any_true({value}, {dim})"
    if op == "sum":
        return f"tl.sum({value}, {dim}, keep_dims=True)"
    if dtype.is_float:
        return f"all_largest({value}, {dim})"
    return f"tl.max({value}, {dim}, keep_dims=True)"
