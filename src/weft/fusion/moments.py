"""Moments in one pass: what is summed twice is summed twice while it is in a cache.

The squares of what a mean leaves have to wait for the mean, and where a channel of a batch is
larger than a core's cache, that is a second pass over memory. Sums of blocks need no second
pass: with n elements of sum s in each block, and the mean m of all,

    sum of (x - m)^2  =  sum over blocks of [sum of (x - s / n)^2  +  n (s / n - m)^2]

where the inner sums read a block that has just been read. No power of a number that is large
beside its deviation is ever taken, so nothing cancels. The equation holds for any m that is the
same everywhere; those that are made of the sum are what a second pass would wait for.

Source: T. F. Chan, G. H. Golub, R. J. LeVeque: Algorithms for computing the sample variance, The
American Statistician 37(3), 1983, equation 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weft.fusion.points import Const, Kind, Point, Points, PointTable, Ref
from weft.fusion.simplify import args_of, without_dead
from weft.fusion.tasks import axis_order

__all__ = ["OF_CORES", "OF_PROGRAMS", "Blocks", "in_blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """When sums are made in blocks, and how large these are.

    Attributes:
        held_bytes: what one sum reads up to which a second pass finds it near.
        block_bytes: of a block at most.
    """

    held_bytes: int
    block_bytes: int


OF_CORES = Blocks(held_bytes=524_288, block_bytes=262_144)
"""Derived: half of the second-level cache of most cores, and half of that, so that the next block
can be on its way."""
OF_PROGRAMS = Blocks(held_bytes=32_768, block_bytes=16_384)
"""Derived: what a program of a GPU keeps in registers when two fit on a processor; and a quarter of
what keeps memory busy while others add up, of which four to eight fit."""
ELEMENT_BYTES = 4
"""Bytes of an element. Derived: of float32; of others a cache holds half or twice as many."""


def in_blocks(points: Points, sizes: Blocks) -> Points:
    """Points in which sums of squared deviations from a mean are made block by block.

    Args:
        points: of a region.
        sizes: of blocks, and from where on there are any.
    """
    order = axis_order(points)
    moments: dict[int, _Moments] = {}
    for number in range(len(points.points)):
        found = _moments(points, number, order, sizes)
        # One sum has one way to be split, whoever reads it.
        if found is not None and all(found.total != other.total for other in moments.values()):
            moments[number] = found
    if not moments:
        return points
    totals = {own.total: own for own in moments.values()}
    table, moved = PointTable(), dict[int, int]()
    means: dict[int, int] = {}
    for number, point in enumerate(points.points):
        args = tuple(moved[arg] if isinstance(arg, int) else arg for arg in point.args)
        if number in totals:
            own = totals[number]
            part = table.reduce("sum", moved[own.summand], own.within)
            share = Const.of(1.0 / points.num_elements(own.within))
            means[number] = table.map("mul.Scalar", (part, share), point.dtype)
            moved[number] = table.reduce("sum", part, own.blocks)
        elif number in moments:
            moved[number] = _deviations(table, points, moments[number], moved, means)
        else:
            moved[number] = table.add(replace(point, args=args))
    stores = tuple(replace(store, point=moved[store.point]) for store in points.stores)
    return without_dead(replace(points, points=tuple(table.points), stores=stores))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moments:
    """The sum of the squares of what a mean leaves of a summand.

    Attributes:
        summand: what is summed.
        total: its sum.
        mean: what is subtracted, made of the sum.
        within: axes of a block.
        blocks: axes along which blocks lie.
    """

    summand: int
    total: int
    mean: int
    within: tuple[int, ...]
    blocks: tuple[int, ...]


def _moments(points: Points, number: int, order: Sequence[int], sizes: Blocks) -> _Moments | None:
    """What a point sums up, if it is squared deviations, too many for a cache."""
    squares = points.points[number]
    if squares.kind is not Kind.REDUCE or squares.op != "sum":
        return None
    difference = args_of(points, _root_of_square(points, squares.args[0]), "sub")
    if len(difference) != 2:
        return None
    summand, mean = difference
    if not isinstance(summand, int) or not isinstance(mean, int):
        return None
    if set(points.points[mean].axes) & set(squares.over):
        return None
    total = _total_of(points, mean, summand, squares.over)
    if total is None:
        return None
    blocks, within = _split(points, points.points[summand], squares.over, order, sizes)
    if not blocks:
        return None
    return _Moments(summand=summand, total=total, mean=mean, within=within, blocks=blocks)


def _root_of_square(points: Points, ref: Ref) -> Ref:
    """What is squared; of anything else a number that is no point."""
    factors = args_of(points, ref, "mul")
    if len(factors) == 2 and factors[0] == factors[1]:
        return factors[0]
    power = args_of(points, ref, "pow")
    if len(power) == 2 and isinstance(power[1], Const) and power[1].value == 2:
        return power[0]
    return Const.of(0)


def _total_of(points: Points, mean: int, summand: int, over: Sequence[int]) -> int | None:
    """The sum of a summand of which something else is made, if it is."""

    def is_total(number: int) -> bool:
        point = points.points[number]
        is_sum = point.kind is Kind.REDUCE and point.op == "sum"
        return is_sum and (point.args, point.over) == ((summand,), tuple(over))

    return next(filter(is_total, points.reached([mean], lambda number: not is_total(number))), None)


def _split(
    points: Points, summand: Point, over: Sequence[int], order: Sequence[int], sizes: Blocks
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes along which blocks lie, and those of a block; none of the former for no blocks."""
    if not set(over) <= set(summand.axes):
        return (), ()
    walked = [axis for axis in order if axis in over]
    fastest = [axis for axis in order if axis in summand.axes]
    # Whatever is faster in memory is read with it.
    beside = fastest[fastest.index(walked[-1]) + 1 :]

    def num_bytes(axes: Sequence[int]) -> int:
        return ELEMENT_BYTES * points.num_elements([*axes, *beside])

    if num_bytes(walked) <= sizes.held_bytes:
        return (), ()
    fits = (n for n in range(len(walked)) if num_bytes(walked[n:]) <= sizes.block_bytes)
    at = next(fits, 0)
    return tuple(sorted(walked[:at])), tuple(sorted(walked[at:]))


def _deviations(
    table: PointTable, points: Points, own: _Moments, moved: dict[int, int], means: dict[int, int]
) -> int:
    """The sum of all squared deviations."""
    dtype = points.points[own.total].dtype
    near = means[own.total]
    left = table.map("sub.Tensor", (moved[own.summand], near), dtype)
    inside = table.reduce("sum", table.map("mul.Tensor", (left, left), dtype), own.within)
    apart = table.map("sub.Tensor", (near, moved[own.mean]), dtype)
    count = Const.of(float(points.num_elements(own.within)))
    weighted = table.map(
        "mul.Scalar", (table.map("mul.Tensor", (apart, apart), dtype), count), dtype
    )
    return table.reduce("sum", table.map("add.Tensor", (inside, weighted), dtype), own.blocks)
