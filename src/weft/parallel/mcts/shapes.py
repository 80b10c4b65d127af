"""Into which groups of devices a pipeline may be cut, and what to expect of each.

    expected = work / speed of all * (M + G - 1) / M + longest reduction of a group's gradients

for M micro-batches on G groups, each with stages in proportion to its speed: what nobody has to
price anything for. It is what a search begins with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeAlias

from weft.core.divisors import divisors
from weft.cost.collective import collective_seconds
from weft.machine.meeting import device_of
from weft.machine.topology import Group, axis_group, nodes_of, with_nodes_of
from weft.parallel.pipeline.expert import BACKWARD, forward_seconds
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.insides import MOST_GROUPS, micro_batch_counts
from weft.parallel.pipeline.lots import lots
from weft.parallel.pipeline.orders import orders
from weft.parallel.pipeline.staged import Shape
from weft.parallel.pipeline.standing import in_rank_order, ranks_of_groups
from weft.parallel.pipeline.unlike import kinds_apart
from weft.parallel.request import PlanRequest
from weft.program.graph import Role

__all__ = ["Expected", "shapes", "shapes_of_lots", "ways"]

CHUNKS = (2, 3, 4)
"""Stages of a group that are tried. Derived: each halving of the bubble is worth half as much as
the last, and every chunk sends its activations once more."""


def shapes(request: PlanRequest, least_groups: int) -> list[Shape]:
    """Groups and micro-batches that may be tried.

    Devices that are alike are cut into equal groups, which fill nodes or share them evenly. Unlike
    ones are cut apart where their kinds change, in several orders.

    Args:
        request: what to plan.
        least_groups: 1 for steps in micro-batches on one group of all devices, too.
    """
    return list(_shapes(request, _groups(request), least_groups))


def shapes_of_lots(request: PlanRequest) -> list[Shape]:
    """Where those do not divide: each kind of unlike devices cut into groups.

    Args:
        request: what to plan.
    """
    return list(_shapes(request, _lots(request), 2))


_Groups: TypeAlias = Iterable[tuple[tuple[int, ...], tuple[int, ...]]]
"""Devices of each group, and on which block it stands."""


def _shapes(request: PlanRequest, several: _Groups, least_groups: int) -> Iterator[Shape]:
    for sizes, standing in several:
        if least_groups <= len(sizes) <= MOST_GROUPS:
            ranks = ranks_of_groups(sizes, standing)
            for count in micro_batch_counts(request, len(sizes), ranks):
                yield Shape(sizes, standing, count)


def _lots(request: PlanRequest) -> _Groups:
    if not request.machine.is_uniform:
        for cut in lots(request.machine, MOST_GROUPS):
            sizes = tuple(lot.size for lot in cut for _ in range(lot.count))
            yield sizes, in_rank_order(len(sizes))


def _groups(request: PlanRequest) -> _Groups:
    machine = request.machine
    if not machine.is_uniform:
        for blocks in kinds_apart(machine):
            for standing in orders(machine, blocks):
                yield tuple(blocks[block] for block in standing), standing
    total, node = machine.num_devices, min(group.devices_per_node for group in machine.groups)
    for groups in divisors(total):
        each = total // groups
        if each % node == 0 or node % each == 0:  # none lies across two nodes in part
            yield (each,) * groups, in_rank_order(groups)


def ways(shape: Shape, num_pieces: int) -> tuple[tuple[str, int], ...]:
    """Schedules with their numbers of chunks.

    Args:
        shape: groups and micro-batches.
        num_pieces: of the forward pass.
    """
    groups, count = len(shape.sizes), shape.micro_batches
    if groups == 1:
        return (("1f1b", 1),)
    interleaved = (
        ("interleaved", chunks)
        for chunks in CHUNKS
        if count % groups == 0 and groups * chunks <= num_pieces
    )
    return (("1f1b", 1), ("zero-bubble", 1), *interleaved)


class Expected:
    """What to expect of shapes.

    Args:
        request: what to plan.
        rows: the program of a micro-batch.
        micro_batches: how many of them there are.
    """

    def __init__(self, request: PlanRequest, rows: Rows, micro_batches: int) -> None:
        self._machine = request.machine
        self._work_s = {
            group.device.name: micro_batches
            * (1.0 + BACKWARD)
            * _forward_s(rows, forward_seconds(rows.part, rows.order, group.device))
            for group in request.machine.groups
        }
        self._weight_bytes = float(
            sum(
                request.program.nodes[source.node].outputs[0].num_bytes
                for source in request.program.inputs
                if source.role is Role.PARAMETER
            )
        )

    def seconds(self, shape: Shape) -> float:
        """Of a step [s]."""
        ranks = ranks_of_groups(shape.sizes, shape.standing)
        speeds = [
            len(own) / max(self._work_s[device_of(self._machine, rank).name] for rank in own)
            for own in ranks
        ]
        total, groups, count = sum(speeds), len(ranks), shape.micro_batches
        syncs = [
            collective_seconds("all-reduce", self._weight_bytes * speed / total, self._around(own))
            for speed, own in zip(speeds, ranks, strict=True)
        ]
        return (count + groups - 1) / count / total + max(syncs)

    def _around(self, ranks: range) -> Group:
        part = with_nodes_of(self._machine, nodes_of(self._machine, ranks))
        return axis_group(part, (len(ranks),), 0)


def _forward_s(rows: Rows, seconds: list[float]) -> float:
    """Forward pass of the whole program from that of the short one [s]."""
    ends = [0.0]
    for own in seconds:
        ends.append(ends[-1] + own)
    edges = [0]
    for length in rows.pieces.lengths:
        edges.append(edges[-1] + length)
    of_piece = [ends[b] - ends[a] for a, b in pairwise(edges)]
    return sum(of_piece[piece] for piece in rows.pieces.order)
