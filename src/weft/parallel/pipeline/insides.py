"""How a group of a pipeline may share out a micro-batch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from weft.core.divisors import divisors
from weft.machine.topology import nodes_of
from weft.parallel.degrees import Degrees
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.pipeline.staged import Shape
from weft.parallel.pipeline.standing import ranks_of_groups
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows

__all__ = ["insides", "shared_out"]


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
