"""The forward pass of a program as a chain of pieces, and a machine as a line of devices."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from weft.core.errors import InputError
from weft.machine.model import Device, Machine
from weft.parallel.dqn.chain import Chain, Line
from weft.parallel.dqn.cutting import POINTS
from weft.parallel.pipeline.expert import (
    BACKWARD,
    crossing_bytes,
    forward_seconds,
    narrow_places,
)
from weft.parallel.pipeline.stages import forward_nodes
from weft.parallel.weights import weight_values
from weft.program.graph import Program, Role, Value

__all__ = ["chain_of", "line_of"]

PLACES = 4.0
"""Stages whose length tells which places are narrow compared with those around. Chosen: the most
that the policy cuts."""


def chain_of(part: Program, device: Device, parts: int) -> tuple[Chain, tuple[int, ...]]:
    """Pieces between places that few bytes cross, at most `POINTS` of them.

    Args:
        part: the program of one micro-batch.
        device: what operators are timed on.
        parts: micro-batches of a step.

    Returns:
        The chain of a whole step, and the node at which each of its pieces begins.

    Raises:
        InputError: the forward pass has nowhere to be cut.
    """
    nodes = forward_nodes(part)
    ends = list(accumulate(forward_seconds(part, nodes, device)))
    crossing = crossing_bytes(part, nodes)
    places = narrow_places(crossing, ends, ends[-1] / PLACES) if ends else []
    if not places:
        raise InputError(
            need="a forward pass with a place to cut it",
            got=f"{len(nodes)} operators",
            hint="plan one stage: max_stages=1",
        )
    starts = [0, *_thinned(places, ends)]
    weights = _weight_bytes(part, nodes)
    edges = [*starts, len(nodes)]
    before = np.asarray([0.0, *ends])
    held = np.asarray([0.0, *accumulate(weights)])
    chain = Chain(
        seconds=np.diff(before[edges]) * (1 + BACKWARD) * parts,
        crossing_bytes=np.asarray([crossing[start] for start in starts[1:]]) * parts,
        weight_bytes=np.diff(held[edges]),
    )
    return chain, tuple(nodes[start] for start in starts)


def _thinned(places: list[int], ends: list[float]) -> list[int]:
    """At most `POINTS` - 1 places, as even in work as they are."""
    if len(places) < POINTS:
        return places
    work = np.asarray([ends[place - 1] for place in places])
    wanted = np.linspace(0.0, ends[-1], POINTS + 1)[1:-1]
    return sorted({places[int(np.abs(work - goal).argmin())] for goal in wanted})


def _weight_bytes(part: Program, nodes: list[int]) -> list[float]:
    """Bytes of the parameters that each node is the first to read."""
    position = {number: at for at, number in enumerate(nodes)}
    weights = weight_values(part)
    found = [0.0] * len(nodes)
    for source in part.inputs:
        if source.role is not Role.PARAMETER:
            continue
        first, waiting = len(nodes), [source.node]
        while waiting:  # through casts and views, which no stage computes
            for reader, _ in part.users[waiting.pop()]:
                first = min(first, position.get(reader, first))
                if Value(reader) in weights:
                    waiting.append(reader)
        if first < len(nodes):
            found[first] += part.nodes[source.node].outputs[0].num_bytes
    return found


def line_of(machine: Machine) -> Line:
    """A machine's devices, node by node; the slowest links if it is uneven."""
    per_node = min(group.devices_per_node for group in machine.groups)
    inside = min(group.link.bytes_per_s.value for group in machine.groups)
    return Line(
        nodes=machine.num_devices // per_node,
        per_node=per_node,
        inside_bytes_per_s=inside,
        network_bytes_per_s=machine.network.bytes_per_s.value,
    )
