"""The pieces that stages are made of: runs of the forward pass between places to cut.

A place to cut is one that few bytes cross, compared with those around it: between the layers of a
transformer, and between the attention and the feed-forward part of one. A deep program is looked
at through a short version of it, so some pieces stand for many.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from weft.core.errors import InputError, VerifyError
from weft.machine.model import Device
from weft.parallel.depth import Gap
from weft.parallel.pinning import Pinning
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.expert import (
    crossing_bytes,
    forward_seconds,
    narrow_places,
)
from weft.parallel.pipeline.stages import stage_of_nodes
from weft.program.fold import Folding
from weft.program.graph import Program

__all__ = ["Pieces", "find_pieces", "good_places", "piece_of_nodes", "pieces_at"]

FINENESS = 32
"""Around a place, one part in so many of the forward pass is looked at for a better one. Derived:
a quarter of a stage when there are eight."""


@dataclass(frozen=True)
class Pieces:
    """Where the forward pass of a short program falls apart, and how the whole one repeats that.

    Attributes:
        cut: which piece each node of the forward pass of the short part is in.
        lengths: forward nodes of each piece.
        order: of each piece of the whole program, the piece of the short one that it is like.
        inside: of each piece, whether it begins inside of a repeated layer.
    """

    cut: Cut
    lengths: tuple[int, ...]
    order: tuple[int, ...]
    inside: tuple[bool, ...]

    def unfolded(self, nodes: Sequence[int]) -> Pieces:
        """The pieces of the whole program, each for itself.

        Args:
            nodes: of the forward pass of the whole program, in the order of the pieces.
        """
        lengths = tuple(self.lengths[piece] for piece in self.order)
        ends = list(accumulate(lengths))
        if ends[-1] != len(nodes):
            raise VerifyError(
                need=f"a forward pass of {ends[-1]} operators, as the short program promises",
                got=f"{len(nodes)}",
                hint="a mistake of weft; plan with micro-batches and stages by hand meanwhile",
            )
        return Pieces(
            cut=_in_pieces(nodes, ends[:-1]),
            lengths=lengths,
            order=tuple(range(len(lengths))),
            inside=tuple(self.inside[piece] for piece in self.order),
        )


def find_pieces(
    part: Program,
    nodes: Sequence[int],
    folding: Folding,
    device: Device,
    gaps: Sequence[Gap],
    pinning: Pinning,
    preferred: Collection[int] = (),
) -> Pieces:
    """Pieces of a program of one micro-batch.

    Args:
        part: of the short program, or of the whole one.
        nodes: of its forward pass, in the order of which pieces are runs.
        folding: of the part.
        device: what operators are timed on.
        gaps: layers that the whole program has more, each like the one below the gap.
        pinning: what is pinned in the part; what is pinned to several stages falls apart too.
        preferred: positions to cut at where others are near.
    """
    position = {number: at for at, number in enumerate(nodes)}
    crossing = crossing_bytes(part, nodes)
    pinned = [
        (position[number], max(one.wish.stage or 0 for one in asked))
        for number, asked in sorted(pinning.stages.items())
        if number in position
    ]
    ends = list(accumulate(forward_seconds(part, nodes, device)))
    narrow = good_places(crossing, ends, preferred)
    places = _workable(part, nodes, _parted(narrow, crossing, pinned))
    found = pieces_at(nodes, places, folding)
    order, layer = list(found.order), _layers(nodes, folding)
    for gap in gaps:
        below = [(own.stack, own.index) for own in folding.layers].index((gap.stack, gap.lower))
        repeated = [piece for piece, at in enumerate([0, *places]) if layer[at] == below]
        end = order.index(repeated[-1]) + 1
        order[end:end] = repeated * gap.dropped
    return replace(found, order=tuple(order))


def good_places(
    crossing: Sequence[float], ends: Sequence[float], preferred: Collection[int] = ()
) -> list[int]:
    """Positions that few bytes cross, with some work between them.

    Args:
        crossing: bytes that cross each position [bytes].
        ends: work up to and with each position [s].
        preferred: positions that count where others are near, such as the beginnings of branches,
            if no more crosses than where the layers are cut.
    """
    if not ends:
        return []  # a step without parameters has no forward pass that a stage could have
    narrow = narrow_places(crossing, ends, ends[-1] * 4 / FINENESS)
    widest = max((crossing[at] for at in narrow), default=0.0)
    first = [at for at in sorted(preferred) if 0 < at < len(ends) and crossing[at] <= widest]
    return _apart((*first, *narrow), ends)


def pieces_at(nodes: Sequence[int], places: Sequence[int], folding: Folding) -> Pieces:
    """Pieces of a program, each for itself.

    Args:
        nodes: of the forward pass, in the order of which pieces are runs.
        places: positions at which all pieces but the first begin.
        folding: of the program.
    """
    layer, bounds = _layers(nodes, folding), [0, *places, len(nodes)]
    lengths = tuple(b - a for a, b in pairwise(bounds))
    return Pieces(
        cut=_in_pieces(nodes, places),
        lengths=lengths,
        order=tuple(range(len(lengths))),
        inside=tuple(at > 0 and 0 <= layer[at] == layer[at - 1] for at in bounds[:-1]),
    )


def _layers(nodes: Sequence[int], folding: Folding) -> list[int]:
    """Layer of each node, -1 for those outside of all."""
    layer = {node: number for number, found in enumerate(folding.layers) for node in found.nodes}
    return [layer.get(node, -1) for node in nodes]


def piece_of_nodes(part: Program, cut: Cut) -> tuple[int, ...]:
    """Piece of every node; -1 for what is computed wherever it is read.

    Args:
        part: of one micro-batch.
        cut: its forward pass by piece.

    Raises:
        InputError: a node of the backward pass reads what no piece has together.
    """
    return stage_of_nodes(part, cut.forward_stages(part))


def _in_pieces(nodes: Sequence[int], places: Sequence[int]) -> Cut:
    return Cut.of({node: bisect_right(places, at) for at, node in enumerate(nodes)})


def _workable(part: Program, nodes: Sequence[int], places: list[int]) -> list[int]:
    """The places at which the backward pass can be cut as well, from the first on."""
    try:
        piece_of_nodes(part, _in_pieces(nodes, places))
    except InputError:
        kept: list[int] = []
        for at in places:
            try:
                piece_of_nodes(part, _in_pieces(nodes, (*kept, at)))
            except InputError:
                continue
            kept.append(at)
        return kept
    return places


LEAST_SHARE = 1e-3
"""Share of the forward pass below which a piece is joined to the one after it. Derived: no stage
gets better by so little, and the scalars at the end of a loss are not worth a stage."""


def _apart(places: Sequence[int], ends: Sequence[float]) -> list[int]:
    """Places with some work before and after each; of those that are near, the first given."""
    least_s, kept = LEAST_SHARE * ends[-1], list[int]()
    for at in places:
        next_to = bisect_left(kept, at)
        near = [ends[other - 1] for other in kept[max(next_to - 1, 0) : next_to + 1]]
        if all(abs(ends[at - 1] - other_s) >= least_s for other_s in (0.0, ends[-1], *near)):
            kept.insert(next_to, at)
    return kept


def _parted(
    places: Collection[int], crossing: Sequence[float], pinned: Sequence[tuple[int, int]]
) -> list[int]:
    """Places, and more of them where pins ask for a later stage and there are too few.

    Args:
        places: to cut at.
        crossing: bytes that cross each position [bytes].
        pinned: positions with their stages, in order.
    """
    found, before, lower = set(places), 0, 0
    for at, stage in pinned:
        if stage > lower:
            between = range(before + 1, at + 1)
            missing = stage - lower - sum(place in found for place in between)
            free = (place for place in between if place not in found)
            found.update(sorted(free, key=crossing.__getitem__)[: max(missing, 0)])
        before, lower = at, max(stage, lower)
    return sorted(found)
