"""Which device sends which part of a tensor to which, from one grid to another.

Every device that takes a tensor up needs one box of it; the devices that hold the
tensor each have one, some of them the same. A box is put together from the boxes of others,
from the device at the same place in its group where that has it. Of a pending sum every holder
sends its summand.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from weft.core.errors import VerifyError
from weft.parallel.placement import Mesh, Placement, Sharding, is_partial, part_box

__all__ = ["Piece", "line_shape", "moved", "pieces", "summands"]

Interval = tuple[int, int]
Box = tuple[Interval, ...]
"""Start and end along each dim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a tensor on its way.

    Attributes:
        source, target: devices, by rank in their own grid.
        box: start and end along each dim of the whole tensor.
        taken: the same, in the part that the source holds.
        put: the same, in the part that the target wants.
    """

    source: int
    target: int
    box: Box
    taken: Box
    put: Box

    @property
    def num_elements(self) -> int:
        """Elements that are sent."""
        return prod(end - start for start, end in self.box)


def pieces(
    shape: tuple[int, ...], held: tuple[Mesh, Sharding], wanted: tuple[Mesh, Sharding]
) -> tuple[Piece, ...]:
    """What has to be sent.

    Args:
        shape: of the whole tensor.
        held: grid of the devices that have it, and how it lies on them.
        wanted: grid of the devices that take it up, and how it is to lie on them.

    Returns:
        In order of target, then of place in the tensor.

    Example:
        >>> halves, whole = (Mesh((2,)), (0,)), (Mesh((1,)), (-1,))
        >>> [(p.source, p.target, p.box) for p in pieces((4,), halves, whole)]
        [(0, 0, ((0, 2),)), (1, 0, ((2, 4),))]
    """
    for _, sharding in (held, wanted):
        if any(map(is_partial, sharding)):
            raise VerifyError(
                need="a tensor without pending reductions between stages",
                got=str(sharding),
                hint="the plan file is damaged or was edited; plan again",
            )
    holders: dict[Box, list[int]] = {}
    for rank in _present(held[0]):
        holders.setdefault(_box(shape, *held, rank), []).append(rank)
    # Boxes are cells of a grid: each dim is cut into intervals.
    cuts = [sorted({box[dim] for box in holders}) for dim in range(len(shape))]
    found: list[Piece] = []
    for target in _present(wanted[0]):
        own = _box(shape, *wanted, target)
        for box in product(*map(_overlapping, cuts, own)):
            ranks = holders[box]
            common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, own, strict=True))
            found.append(
                Piece(
                    source=target if target in ranks else ranks[target % len(ranks)],
                    target=target,
                    box=common,
                    taken=_within(common, box),
                    put=_within(common, own),
                )
            )
    return tuple(found)


def summands(
    shape: tuple[int, ...], holders: Mesh, wanted: tuple[Mesh, Sharding]
) -> tuple[Piece, ...]:
    """What has to be sent of a sum that is pending on one axis of devices.

    Args:
        shape: of the whole tensor.
        holders: the axis, of which each member has a summand of the whole tensor.
        wanted: as for `pieces`.

    Returns:
        In order of target, then of source; all that a target gets is to be added.
    """
    found: list[Piece] = []
    for target in _present(wanted[0]):
        own = _box(shape, *wanted, target)
        put = _within(own, own)
        found += [
            Piece(source=source, target=target, box=own, taken=own, put=put)
            for source in _present(holders)
        ]
    return tuple(found)


def moved(
    shape: tuple[int, ...], held: tuple[Mesh, Placement], wanted: tuple[Mesh, Placement]
) -> tuple[Piece, ...]:
    """What has to be sent along one axis of a mesh: parts, or summands of what is pending there.

    Args:
        shape: of the tensor, whole along the axis, see `line_shape`.
        held: members along the axis that have it, and how it lies on them.
        wanted: members along the axis that take it up, and how it is to lie on them.

    Returns:
        As `pieces`, by position along the axis.

    Example:
        >>> from weft.parallel.placement import PARTIAL
        >>> pair = Mesh((2,))
        >>> [(p.source, p.target) for p in moved((4,), (pair, PARTIAL), (pair, 0))]
        [(0, 0), (1, 0), (0, 1), (1, 1)]
    """
    (holders, left), (takers, entered) = held, wanted
    if is_partial(left):
        return summands(shape, holders, (takers, (entered,)))
    return pieces(shape, (holders, (left,)), (takers, (entered,)))


def line_shape(
    whole: tuple[int, ...], sharding: Sharding, mesh: Mesh, axis: int
) -> tuple[int, ...]:
    """Shape of a tensor that is whole along one axis of a mesh, and cut along others.

    Example:
        >>> line_shape((8, 8), (0, 1), Mesh((2, 4)), axis=0)
        (8, 2)
    """
    shape = list(whole)
    for other, placement in enumerate(sharding):
        if other != axis and placement >= 0:
            shape[placement] //= mesh.shape[other]
    return tuple(shape)


def _present(mesh: Mesh) -> list[int]:
    return [rank for rank in range(mesh.num_devices) if mesh.has(mesh.coordinate(rank))]


def _overlapping(intervals: Sequence[Interval], own: Interval) -> Sequence[Interval]:
    """Those of rising intervals without gaps that have a part of one."""
    start, end = own
    first = bisect_right(intervals, start, key=lambda interval: interval[1])
    last = bisect_left(intervals, end, key=lambda interval: interval[0])
    return intervals[first:last]


def _box(shape: tuple[int, ...], mesh: Mesh, sharding: Sharding, rank: int) -> Box:
    return part_box(mesh, sharding, mesh.coordinate(rank), shape)


def _within(inner: Box, outer: Box) -> Box:
    return tuple((a - o, b - o) for (a, b), (o, _) in zip(inner, outer, strict=True))
