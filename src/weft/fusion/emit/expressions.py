"""Element-wise operators as C++ expressions over the functions of vec.h.

Each holds for vectors and for plain numbers. `{0}` is the first operand; `T` is the C++ type of the
result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from weft.program.types import DType

__all__ = ["PLAIN", "STORED", "VECTOR", "expression", "identity", "literal", "power"]

VECTOR: Mapping[DType, str] = MappingProxyType(
    {
        DType.F64: "vd",
        DType.F32: "vf",
        DType.BF16: "vf",
        DType.F16: "vf",
        DType.I64: "vl",
        DType.I32: "vi",
        DType.U8: "vi",
        DType.BOOL: "vm",
    }
)
"""The vector in which elements of a type are computed with."""
PLAIN: Mapping[str, str] = MappingProxyType(
    {"vd": "double", "vf": "float", "vl": "int64_t", "vi": "int32_t", "vm": "bool"}
)
"""The plain number in place of a vector."""
STORED: Mapping[DType, str] = MappingProxyType(
    {
        DType.F64: "double",
        DType.F32: "float",
        DType.BF16: "bf16",
        DType.F16: "f16",
        DType.I64: "int64_t",
        DType.I32: "int32_t",
        DType.U8: "uint8_t",
        DType.BOOL: "bool",
    }
)
"""An element in memory."""

_SQRT_HALF = repr(math.sqrt(0.5))
_SQRT_2_OVER_PI = repr(math.sqrt(2.0 / math.pi))
_INV_SQRT_2PI = repr(1.0 / math.sqrt(2.0 * math.pi))

EXPRESSIONS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        # operator: expression, vector instructions
        "constant": ("{0}", 0.0),
        "add.Tensor": ("({0} + {1})", 1.0),
        "add.Scalar": ("({0} + {1})", 1.0),
        "accumulate": ("({0} + {1})", 1.0),
        "sub.Tensor": ("({0} - {1})", 1.0),
        "sub.Scalar": ("({0} - {1})", 1.0),
        "rsub.Scalar": ("({1} - {0})", 1.0),
        "mul.Tensor": ("({0} * {1})", 1.0),
        "mul.Scalar": ("({0} * {1})", 1.0),
        "div.Tensor": ("({0} / {1})", 4.0),
        "div.Scalar": ("({0} / {1})", 4.0),
        "neg.default": ("(-{0})", 1.0),
        "abs.default": ("absolute({0})", 1.0),
        "sign.default": (
            "choose(gt({0}, T0), T1, choose(lt({0}, T0), -T1, T0))",
            3.0,
        ),
        "sqrt.default": ("root({0})", 6.0),
        "rsqrt.default": ("inverse_root({0})", 10.0),
        "reciprocal.default": ("(T1 / {0})", 4.0),
        "exp.default": ("exponential({0})", 14.0),
        "log.default": ("logarithm({0})", 18.0),
        "log1p.default": ("logarithm1p({0})", 32.0),
        "sin.default": ("sine({0})", 28.0),
        "cos.default": ("cosine({0})", 28.0),
        "tanh.default": ("tangent({0})", 24.0),
        "tanh_backward.default": ("({0} * (T1 - {1} * {1}))", 3.0),
        "erf.default": ("error_function({0})", 17.0),
        "sigmoid.default": ("logistic({0})", 22.0),
        "sigmoid_backward.default": ("({0} * (T1 - {1}) * {1})", 3.0),
        "relu.default": ("maximum({0}, T0)", 1.0),
        "threshold_backward.default": ("choose(le({1}, {2}), T0, {0})", 1.0),
        "silu.default": ("({0} * logistic({0}))", 23.0),
        "maximum.default": ("maximum({0}, {1})", 2.0),
        "minimum.default": ("minimum({0}, {1})", 2.0),
        "maximum.Scalar": ("maximum({0}, {1})", 2.0),
        "minimum.Scalar": ("minimum({0}, {1})", 2.0),
        "clamp_min.default": ("maximum({0}, {1})", 2.0),
        "where.self": ("choose({0}, {1}, {2})", 1.0),
        "masked_fill.Scalar": ("choose({1}, {2}, {0})", 1.0),
        "logical_not.default": ("inverse(to<B>::from({0}))", 1.0),
        "logical_and.default": ("both({0}, {1})", 1.0),
        "logical_or.default": ("either({0}, {1})", 1.0),
        "floor.default": ("floored({0})", 1.0),
        **{
            f"{name}.{suffix}": (f"{name}({{0}}, {{1}})", 1.0)
            for name in ("eq", "ne", "lt", "le", "gt", "ge")
            for suffix in ("Scalar", "Tensor")
        },
    }
)


def expression(op: str, words: tuple[str, ...], num_args: int, dtype: DType) -> tuple[str, float]:
    """The C++ expression of an operator and the vector instructions that it takes.

    Raises:
        KeyError: there is none.
    """
    if op == "gelu.default":
        if words and words[0] == "tanh":
            inner = f"{_SQRT_2_OVER_PI} * ({{0}} + 0.044715 * {{0}} * {{0}} * {{0}})"
            return f"(C(0.5) * {{0}} * (T1 + tangent({_typed(inner)})))", 31.0
        return f"(C(0.5) * {{0}} * (T1 + error_function({{0}} * C({_SQRT_HALF}))))", 21.0
    if op == "gelu_backward.default":
        return _gelu_backward(words)
    if op == "silu_backward.default":
        s = "logistic({1})"
        return f"({{0}} * {s} * (T1 + {{1}} * (T1 - {s})))", 26.0
    if op in ("bitwise_not.default", "bitwise_and.Tensor", "bitwise_or.Tensor"):
        name = op.partition(".")[0].removeprefix("bitwise_")
        if dtype is DType.BOOL:
            call = {"not": "inverse({0})", "and": "both({0}, {1})", "or": "either({0}, {1})"}
            return call[name], 1.0
        return {"not": "(~{0})", "and": "({0} & {1})", "or": "({0} | {1})"}[name], 1.0
    if dtype is DType.BOOL and op in _OF_MASKS:
        return _OF_MASKS[op], 1.0
    if op == "clamp.default":
        if num_args == 3:
            return "minimum(maximum({0}, {1}), {2})", 4.0
        return "minimum({0}, {1})", 2.0  # the lower bound is None
    return EXPRESSIONS[op]


_OF_MASKS: Mapping[str, str] = MappingProxyType(
    {"mul.Tensor": "both({0}, {1})", "add.Tensor": "either({0}, {1})"}
)
"""Arithmetic of masks, as ATen does it."""


def _typed(formula: str) -> str:
    """A formula whose numbers are of the result's type."""
    return " ".join(f"C({word})" if word[0].isdigit() else word for word in formula.split())


def _gelu_backward(words: tuple[str, ...]) -> tuple[str, float]:
    if words and words[0] == "tanh":
        return "gelu_tanh_backward({0}, {1})", 40.0
    cdf = f"(C(0.5) * (T1 + error_function({{1}} * C({_SQRT_HALF}))))"
    pdf = f"(exponential(C(-0.5) * {{1}} * {{1}}) * C({_INV_SQRT_2PI}))"
    return f"({{0}} * ({cdf} + {{1}} * {pdf}))", 50.0


def power(exponent: float) -> tuple[str, float] | None:
    """X to the power of a number, where that is simpler than a general power."""
    return {
        2.0: ("({0} * {0})", 1.0),
        3.0: ("({0} * {0} * {0})", 2.0),
        4.0: ("(({0} * {0}) * ({0} * {0}))", 3.0),
        0.5: ("root({0})", 6.0),
        -0.5: ("inverse_root({0})", 10.0),
        -1.0: ("(T1 / {0})", 4.0),
        -2.0: ("(T1 / ({0} * {0}))", 5.0),
        1.0: ("{0}", 0.0),
    }.get(exponent)


def literal(value: float | int | bool, plain: str) -> str:
    """A number in C++, of a plain type."""
    if plain == "bool":
        return "true" if value else "false"
    if plain in ("int64_t", "int32_t"):
        if isinstance(value, float) and not value.is_integer():
            raise KeyError(f"{value} among whole numbers")
        number = int(value)
        if number == -(2**63):
            return "INT64_MIN"
        return f"{plain}({number}{'LL' if plain == 'int64_t' else ''})"
    number = float(value)
    limits = f"std::numeric_limits<{plain}>"
    if math.isnan(number):
        return f"{limits}::quiet_NaN()"
    largest = 3.4028235677973366e38 if plain == "float" else math.inf
    if math.isinf(number) or abs(number) >= largest:
        return f"{'-' if number < 0 else ''}{limits}::infinity()"
    return f"{number!r}f" if plain == "float" else repr(number)


def identity(op: str, plain: str) -> str:
    """What a reduction begins with."""
    if op == "sum":
        return f"{plain}(0)"
    if plain in ("float", "double"):
        return f"-std::numeric_limits<{plain}>::infinity()"
    return "false" if plain == "bool" else f"std::numeric_limits<{plain}>::min()"
