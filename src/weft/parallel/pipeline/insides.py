"""How a group of a pipeline may share out a micro-batch, and how many of them there may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from weft.core.divisors import divisors
from weft.machine.topology import nodes_of
from weft.parallel.degrees import Degrees
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.pipeline.staged import Shape
from weft.parallel.pipeline.standing import ranks_of_groups
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows

__all__ = ["MOST_GROUPS", "insides", "micro_batch_counts", "shared_out"]

MOST_GROUPS = 16
"""Groups of a pipeline at most. Chosen: stages of a sixteenth are as long as a layer or two."""
MOST_ROUNDS = 8
"""Micro-batches for each group at most. Derived: with eight the bubble is a tenth."""
LEAST_ROUNDS = 0.5
"""Micro-batches for each group at least. Derived: at half of one the bubble is twice the work."""


def shared_out(request: PlanRequest, ranks: range, rows: int) -> Iterator[tuple[int, int]]:
    """Parts of a group that share out rows, and devices of each part, few first.

    Args:
        request: says on which machine.
        ranks: of the group.
        rows: of a micro-batch.
    """
    size = len(ranks)
    held = math.gcd(size, *(on_each for _, on_each, _ in nodes_of(request.machine, ranks)))
    for inner in divisors(held):
        if rows % (size // inner) == 0:
            yield size // inner, inner


def micro_batch_counts(request: PlanRequest, groups: int, ranks: Sequence[range]) -> list[int]:
    """Numbers of micro-batches that are worth a try, and that all groups can share out; rising.

    Args:
        request: says on which machine, and how many rows there are.
        groups: how many there are.
        ranks: of the groups, or of one of each lot that are alike.
    """
    rows = batch_rows(request.program)
    least, most = max(2.0, LEAST_ROUNDS * groups), MOST_ROUNDS * groups
    return [
        count
        for count in divisors(rows)
        if least <= count <= most
        and all(any(shared_out(request, own, rows // count)) for own in ranks)
    ]


def insides(sketch: StageSketch, shape: Shape, group: int) -> tuple[Degrees, ...]:
    """How a group may share out a micro-batch: by rows, and by tensors inside of a node.

    Args:
        sketch: knows what divides.
        shape: of the pipeline.
        group: of it.
    """
    count, request = shape.micro_batches, sketch.request
    rows = sketch.rows(count)
    if rows is None:
        return ()
    ranks = ranks_of_groups(shape.sizes, shape.standing)[group]
    by_sequence = rows.schemes.has_sequence
    found = [
        Degrees(dp=data, tp=inner, sp=by_sequence and inner > 1, zero=zero)
        for data, inner in shared_out(request, ranks, batch_rows(request.program) // count)
        for zero in ((1, 3) if data > 1 else (0,))
    ]
    return tuple(own for own in found if sketch.is_possible(count, own))
