"""Which device sends which part of a tensor to which, from one stage's grid to another's.

Every device of the stage that takes a tensor up needs one box of it; the devices that hold the
tensor each have one, some of them the same. A box is put together from the boxes of others,
from the device at the same place in its group where that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from weft.core.errors import VerifyError
from weft.parallel.placement import Mesh, Sharding, is_partial, part_box

__all__ = ["Piece", "pieces"]

Box = tuple[tuple[int, int], ...]
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
    for rank in range(held[0].num_devices):
        holders.setdefault(_box(shape, *held, rank), []).append(rank)
    found: list[Piece] = []
    for target in range(wanted[0].num_devices):
        own = _box(shape, *wanted, target)
        for box in sorted(holders):
            common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, own, strict=True))
            if all(start < end for start, end in common):
                ranks = holders[box]
                source = target if target in ranks else ranks[target % len(ranks)]
                found.append(
                    Piece(
                        source=source,
                        target=target,
                        box=common,
                        taken=_within(common, box),
                        put=_within(common, own),
                    )
                )
    return tuple(found)


def _box(shape: tuple[int, ...], mesh: Mesh, sharding: Sharding, rank: int) -> Box:
    return part_box(mesh, sharding, mesh.coordinate(rank), shape)


def _within(inner: Box, outer: Box) -> Box:
    return tuple((a - o, b - o) for (a, b), (o, _) in zip(inner, outer, strict=True))
