"""The same numbers from fewer instructions, where a region computes one thing in two ways."""

from __future__ import annotations

from dataclasses import replace

from weft.fusion.points import Const, Kind, Point, Points, PointTable, Ref

__all__ = ["simplified"]


def simplified(points: Points) -> Points:
    """Points with quotients by a sigmoid's denominator as products with the sigmoid.

    SiLU is `x / (1 + exp(-x))` forward, and its gradient needs `sigmoid(x)`. Where a region has
    both, `x * sigmoid(x)` saves an exponential and a division; no result is off by more, and none
    overflows on the way.
    """
    gates = {p.args[0] for p in points.points if p.kind is Kind.MAP and p.op == "sigmoid.default"}
    if not gates:
        return points
    table, moved = PointTable(), dict[int, int]()
    for number, point in enumerate(points.points):
        args = tuple(moved.get(arg, arg) if isinstance(arg, int) else arg for arg in point.args)
        numerator = _numerator_of_silu(points, point)
        if numerator is not None and numerator in gates:
            gate = table.map("sigmoid.default", (moved[numerator],), point.dtype)
            moved[number] = table.map("mul.Tensor", (moved[numerator], gate), point.dtype)
        else:
            moved[number] = table.add(replace(point, args=args))
    return _without_dead(
        replace(
            points,
            points=tuple(table.points),
            stores=tuple(replace(store, point=moved[store.point]) for store in points.stores),
        )
    )


def _numerator_of_silu(points: Points, point: Point) -> int | None:
    """x, if a point is `x / (1 + exp(-x))`."""

    def args_of(ref: Ref, op: str) -> tuple[Ref, ...]:
        if isinstance(ref, Const):
            return ()
        made = points.points[ref]
        is_that = made.kind is Kind.MAP and made.op.partition(".")[0] == op
        return made.args if is_that else ()

    if point.kind is not Kind.MAP or point.op != "div.Tensor" or point.words:
        return None
    numerator, denominator = point.args
    summands = args_of(denominator, "add")
    ones = [arg.value for arg in summands if isinstance(arg, Const)]
    powers = [arg for arg in summands if isinstance(arg, int)]
    if not isinstance(numerator, int) or ones != [1] or len(powers) != 1:
        return None
    negatives = [arg for exponent in args_of(powers[0], "exp") for arg in args_of(exponent, "neg")]
    return numerator if numerator in negatives else None


def _without_dead(points: Points) -> Points:
    """Without what nobody reads."""
    alive, waiting = set[int](), [store.point for store in points.stores]
    while waiting:
        number = waiting.pop()
        if number not in alive:
            alive.add(number)
            waiting.extend(points.points[number].reads)
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
