"""The same numbers from fewer instructions, where a region computes one thing in two ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations

from weft.fusion.points import Address, Const, Kind, Point, Points, PointTable, Ref
from weft.program.types import DType

__all__ = ["args_of", "simplified", "without_dead"]


def simplified(points: Points) -> Points:
    """Points with what is known already in place of what is computed anew.

    *SiLU beside its gate.* Forward it is `x / (1 + exp(-x))`, and its gradient needs `sigmoid(x)`.
    Where a region has both, `x * sigmoid(x)` saves an exponential and a division.

    *Softmax beside its logarithm.* The gradient of a cross-entropy needs `exp(a - log(s))`, where
    `s` is the sum of `exp(a)` and `a` at most 0: that is `exp(a) / s`.

    *The sum of a row with one entry.* The same gradient sums rows that are `w` where the index is
    the target and 0 elsewhere: that is `w`, if there is such an index.

    No result is off by more than it was, and none overflows on the way.
    """
    table, moved = PointTable(), dict[int, int]()
    gates = {p.args[0] for p in points.points if p.kind is Kind.MAP and p.op == "sigmoid.default"}
    for number, point in enumerate(points.points):
        args = tuple(moved.get(arg, arg) if isinstance(arg, int) else arg for arg in point.args)
        gated, softmax = _numerator_of_silu(points, point), _softmax(points, point)
        entry = _row_of_one_entry(points, point)
        if gated is not None and gated in gates:
            gate = table.map("sigmoid.default", (moved[gated],), point.dtype)
            moved[number] = table.map("mul.Tensor", (moved[gated], gate), point.dtype)
        elif softmax is not None:
            power, total = (moved[found] for found in softmax)
            share = table.map("reciprocal.default", (total,), point.dtype)
            moved[number] = table.map("mul.Tensor", (power, share), point.dtype)
        elif entry is not None:
            moved[number] = _one_entry(table, entry, moved)
        else:
            moved[number] = table.add(replace(point, args=args))
    return without_dead(
        replace(
            points,
            points=tuple(table.points),
            stores=tuple(replace(store, point=moved[store.point]) for store in points.stores),
        )
    )


def args_of(points: Points, ref: Ref, op: str) -> tuple[Ref, ...]:
    """Operands of a point, if it is an element-wise operator of this name without further words."""
    if isinstance(ref, Const):
        return ()
    made = points.points[ref]
    is_that = made.kind is Kind.MAP and made.op.partition(".")[0] == op and not made.words
    return made.args if is_that else ()


def _numerator_of_silu(points: Points, point: Point) -> int | None:
    """x, if a point is `x / (1 + exp(-x))`."""
    if point.kind is not Kind.MAP or point.op != "div.Tensor" or point.words:
        return None
    numerator, denominator = point.args
    summands = args_of(points, denominator, "add")
    ones = [arg.value for arg in summands if isinstance(arg, Const)]
    powers = [arg for arg in summands if isinstance(arg, int)]
    if not isinstance(numerator, int) or ones != [1] or len(powers) != 1:
        return None
    exponents = args_of(points, powers[0], "exp")
    negatives = [arg for exponent in exponents for arg in args_of(points, exponent, "neg")]
    return numerator if numerator in negatives else None


def _softmax(points: Points, point: Point) -> tuple[int, int] | None:
    """`exp(a)` and its sum, if a point is `exp(a - log(sum))` and a is less the largest one."""
    if point.kind is not Kind.MAP or point.op != "exp.default":
        return None
    difference = args_of(points, point.args[0], "sub")
    if len(difference) != 2:
        return None
    raised, logarithm = difference
    (total,) = args_of(points, logarithm, "log") or (None,)
    own = args_of(points, raised, "sub")
    if not isinstance(total, int) or len(own) != 2 or not isinstance(own[1], int):
        return None
    summed, largest = points.points[total], points.points[own[1]]
    (power,) = summed.args if summed.op == "sum" and summed.kind is Kind.REDUCE else (None,)
    is_softmax = (
        isinstance(power, int)
        and args_of(points, power, "exp") == (raised,)
        and largest.kind is Kind.REDUCE
        and (largest.op, largest.args, largest.over) == ("amax", (own[0],), summed.over)
    )
    return (power, total) if is_softmax and isinstance(power, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row that is `value * weight` at one index and 0 elsewhere."""

    index: int
    length: int
    value: Const
    zero: Const
    weight: int | None
    dtype: DType


def _row_of_one_entry(points: Points, point: Point) -> _Row | None:
    """The row that a point sums up, if it has one entry."""
    if point.kind is not Kind.REDUCE or point.op != "sum" or len(point.over) != 1:
        return None
    (axis,), (summand,) = point.over, point.args
    factors = args_of(points, summand, "mul")
    row = factors[0] if factors else summand
    weight = factors[1] if factors else None
    chosen = args_of(points, row, "where")
    if len(chosen) != 3 or isinstance(weight, Const):
        return None
    condition, value, zero = chosen
    if not isinstance(value, Const) or not isinstance(zero, Const) or zero.value != 0:
        return None
    for index, counted in permutations(args_of(points, condition, "eq"), 2):
        if isinstance(index, Const) or isinstance(counted, Const):
            continue
        numbers = points.points[counted]
        rows = [axis not in points.points[n].axes for n in (index, weight) if n is not None]
        if numbers.kind is Kind.IOTA and numbers.address == Address(0, ((axis, 1),)) and all(rows):
            return _Row(
                index=index,
                length=points.sizes[axis],
                value=value,
                zero=zero,
                weight=weight,
                dtype=point.dtype,
            )
    return None


def _one_entry(table: PointTable, row: _Row, moved: Mapping[int, int]) -> int:
    """The sum of a row with one entry; no number where the weight is none or infinite."""
    index = moved[row.index]
    inside = table.map(
        "logical_and.default",
        (
            table.map("ge.Scalar", (index, Const.of(0)), DType.BOOL),
            table.map("lt.Scalar", (index, Const.of(row.length)), DType.BOOL),
        ),
        DType.BOOL,
    )
    value = table.map("where.self", (inside, row.value, row.zero), row.dtype)
    if row.weight is None:
        return value
    weight = moved[row.weight]
    entry = table.map("mul.Tensor", (value, weight), row.dtype)
    rest = table.map("mul.Tensor", (weight, row.zero), row.dtype)
    return table.map("add.Tensor", (entry, rest), row.dtype)


def without_dead(points: Points) -> Points:
    """Without what nobody reads."""
    alive = points.reached((store.point for store in points.stores), lambda _: True)
    place = {number: at for at, number in enumerate(sorted(alive))}
    return replace(
        points,
        points=tuple(
            replace(
                points.points[number],
                args=tuple(
                    place[a] if isinstance(a, int) else a for a in points.points[number].args
                ),
            )
            for number in sorted(alive)
        ),
        stores=tuple(replace(store, point=place[store.point]) for store in points.stores),
    )
