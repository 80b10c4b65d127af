"""Rules for arithmetic with constants: numbers in place of constant tensors, neutral numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from weft.capture.simplify.rewriter import Results, Rewriter, Rule
from weft.program.graph import Arg, Value
from weft.program.promotion import broadcast

__all__ = ["CONSTANTS"]

Number: TypeAlias = int | float


def _number(r: Rewriter, arg: Arg) -> Number | None:
    """The number that a constant tensor holds in every element."""
    while isinstance(arg, Value):
        if (made := r.made_by(arg, "full")) is not None:
            number = made[1]
            return number if isinstance(number, int | float) else None
        inner = r.made_by(arg, "view") or r.made_by(arg, "expand")
        if inner is None:
            return None
        arg = inner[0]
    return None


def _with_number(scalar: str) -> Rule:
    """`op(x, constant tensor)` as `op(x, number)` where the result keeps the shape of x."""

    def rule(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
        x, other = args[:2]
        number = _number(r, other)
        if number is None or not _keeps_shape(r, x, other):
            return None
        return r.add_all(scalar, x, number)

    return rule


def _swapped(op: str) -> Rule:
    """`op(constant tensor, x)` of a commutative operator as `op(x, constant tensor)`."""

    def rule(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
        first, second = args[:2]
        if _number(r, first) is None or _number(r, second) is not None:
            return None
        return r.add_all(op, second, first) if _keeps_shape(r, second, first) else None

    return rule


def _subtracted_from(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    number = _number(r, args[0])
    if number is None or not _keeps_shape(r, args[1], args[0]):
        return None
    return r.add_all("rsub.Scalar", args[1], number)


def _divided_into(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    number = _number(r, args[0])
    if number is None or not _keeps_shape(r, args[1], args[0]):
        return None
    return r.add_all("mul.Scalar", r.add("reciprocal.default", args[1]), number)


def _keeps_shape(r: Rewriter, x: Arg, other: Arg) -> bool:
    if not isinstance(x, Value) or not isinstance(other, Value):
        return False
    own = r.shape(x)
    return broadcast(own, r.shape(other)) == own


def _neutral(number: Number) -> Rule:
    """`op(x, number)` is x."""

    def rule(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
        x = args[0]
        return (x,) if args[1] == number and isinstance(x, Value) else None

    return rule


def _folded(op: str) -> Rule:
    """An operator with a number on a constant tensor is a constant tensor."""

    def rule(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
        made = r.made_by(args[0], "full")
        if made is None or made[2] not in ("f32", "f64"):
            return None
        size, number, dtype = made
        other = args[1] if len(args) > 1 else None
        assert isinstance(number, float)
        result = _evaluate(op, number, other)
        return None if result is None else r.add_all("full", size, result, dtype)

    return rule


def _evaluate(op: str, number: float, other: Arg) -> float | None:
    if op == "neg.default":
        return -number
    if not isinstance(other, int | float):
        return None
    if op == "add.Scalar":
        return number + other
    if op == "rsub.Scalar":
        return other - number
    if op == "mul.Scalar":
        return number * other
    return number / other if other else None


def _scaled_twice(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    """mul.Scalar(neg(x), a) and mul.Scalar(mul.Scalar(x, a), b) with one multiplication."""
    x, factor = args
    assert isinstance(factor, int | float)
    if (inner := r.made_by(x, "neg.default")) is not None:
        return r.add_all("mul.Scalar", inner[0], -factor)
    return None


CONSTANTS: Mapping[str, tuple[Rule, ...]] = {
    "add.Tensor": (_swapped("add.Tensor"), _with_number("add.Scalar")),
    "mul.Tensor": (_swapped("mul.Tensor"), _with_number("mul.Scalar")),
    "sub.Tensor": (_with_number("sub.Scalar"), _subtracted_from),
    "div.Tensor": (_with_number("div.Scalar"), _divided_into),
    "add.Scalar": (_neutral(0), _folded("add.Scalar")),
    "sub.Scalar": (_neutral(0),),
    "rsub.Scalar": (_folded("rsub.Scalar"),),
    "mul.Scalar": (_neutral(1), _folded("mul.Scalar"), _scaled_twice),
    "div.Scalar": (_neutral(1), _folded("div.Scalar")),
    "neg.default": (_folded("neg.default"),),
}
