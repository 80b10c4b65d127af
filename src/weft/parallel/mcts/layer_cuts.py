"""Layers whose weights some devices cut among them, as the search prices them.

Of each layer the way is taken that moves least (`weft.parallel.wide`): by columns, what it reads
is gathered, and gradients of that are scattered; by summands, what it makes is scattered, and
gradients of that are gathered. A layer whose gradient is cheaper to add up is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from weft.cost.collective import collective_seconds
from weft.machine.topology import Group
from weft.parallel.mcts.cluster import Cluster
from weft.parallel.mcts.sketch import Sketch
from weft.parallel.wide import Way

__all__ = ["LayerCut", "LayerCuts", "layer_cuts"]


@dataclass(frozen=True, slots=True)
class LayerCut:
    """What a layer does.

    Attributes:
        way: by columns or by summands.
        forward_s, backward_s: of what moves in either pass [s].
    """

    way: Way
    forward_s: float
    backward_s: float


LayerCuts: TypeAlias = Sequence[LayerCut | None]
"""Of each parameter, by number; None if it is no layer's weight, or better left whole."""


def layer_cuts(
    cluster: Cluster, sketch: Sketch, members: tuple[int, ...]
) -> tuple[LayerCut | None, ...]:
    """What the layers of a step do that some devices cut among them.

    Args:
        cluster: where they are.
        sketch: of the step.
        members: ranks of the devices; if they do not divide the rows of the batch, nothing is cut.
    """
    numbers = range(len(sketch.parameters.node))
    if sketch.rows % len(members) or len(members) == 1:
        return (None,) * len(numbers)
    meeting = cluster.meeting(members)
    return tuple(_cut(sketch, number, len(members), meeting) for number in numbers)


def _cut(sketch: Sketch, number: int, count: int, meeting: Group) -> LayerCut | None:
    its = sketch.parameters
    if its.reader[number] < 0 or its.position[number] < 0:
        return None

    def seconds(kind: str, row_bytes: float) -> float:
        return collective_seconds(kind, row_bytes * sketch.rows, meeting)

    read, made = float(its.read_row_bytes[number]), float(its.made_row_bytes[number])
    possible: list[LayerCut] = []
    columns, summands = int(its.columns[number]), int(its.summands[number])
    if columns and columns % count == 0:
        moves = (
            (seconds("all-to-all", made),) * 2
            if its.is_table[number]
            else (seconds("all-gather", read), seconds("reduce-scatter", read))
        )
        possible.append(LayerCut(Way.COLUMNS, *moves))
    if summands and summands % count == 0:
        moves = seconds("reduce-scatter", made), seconds("all-gather", made)
        possible.append(LayerCut(Way.SUMMANDS, *moves))
    best = min(possible, key=lambda own: own.forward_s + own.backward_s, default=None)
    whole_s = collective_seconds("all-reduce", float(its.gradient_bytes[number]), meeting)
    return best if best is not None and best.forward_s + best.backward_s < whole_s else None
