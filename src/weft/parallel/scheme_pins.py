"""Placements of the batch and of cut weights along one mesh axis, which schemes begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.core.errors import InputError
from weft.parallel.placement import Placement
from weft.parallel.propagate import AxisRules
from weft.parallel.roles import WeightCut
from weft.program.graph import Program, Role

__all__ = ["batch_pins", "cut_weights", "has_rows", "require_rows"]


def batch_pins(
    program: Program, size: int, outer: Sequence[AxisRules] = ()
) -> dict[int, Placement]:
    """The batch, and what another stage makes of it, cut by rows.

    Args:
        program: one training step.
        size: devices along the axis.
        outer: what earlier, outer axes do.
    """
    pinned: dict[int, Placement] = {}
    for source in program.inputs:
        shape = program.nodes[source.node].outputs[0].shape
        if not shape or shape[0] == 1:
            continue
        parts = size
        for axis in outer:
            if axis.rules[source.node].outputs[0] == 0:
                parts *= axis.size
        cuts = shape[0] % parts == 0
        if source.role is Role.BATCH or (source.role is Role.RECEIVED and cuts):
            pinned[source.node] = 0
    return pinned


def require_rows(program: Program, pinned: Mapping[int, Placement], size: int) -> None:
    """Check that the batch divides, before all that follows from it is written.

    Args:
        program: one training step.
        pinned: its batch.
        size: parts of the rows.

    Raises:
        InputError: it does not.
    """
    for node in pinned:
        shape = program.nodes[node].outputs[0].shape
        if shape[0] % size:
            raise InputError(
                need=f"a batch that {size} data-parallel devices divide",
                got=f"{program.input_by_node[node].name} with {shape[0]} rows",
                hint="change the batch size or the data-parallel degree",
            )


def has_rows(program: Program, node: int, size: int) -> bool:
    """True if what a node makes has a sequence, or another second dim, that so many divide.

    Args:
        program: one training step.
        node: of it.
        size: devices along the axis.
    """
    shape = program.nodes[node].outputs[0].shape
    return len(shape) >= 3 and shape[1] % size == 0


def cut_weights(
    program: Program,
    cuts: Mapping[int, WeightCut],
    size: int,
    outer: Sequence[AxisRules],
    degree: str,
) -> dict[int, Placement]:
    """Placement of each cut weight and of the optimizer state that belongs to it.

    Args:
        program: one training step.
        cuts: of weights, by node.
        size: devices along the axis.
        outer: what earlier, outer axes do.
        degree: what people call the size.

    Raises:
        InputError: none of the weights divides.
    """
    pinned: dict[int, Placement] = {}
    names = {i.node: i.name for i in program.inputs}
    by_name = {names[node]: cut for node, cut in cuts.items()}
    for source in program.inputs:
        cut = by_name.get(source.parameter or source.name)
        shape = program.nodes[source.node].outputs[0].shape
        if cut is None or source.role not in (Role.PARAMETER, Role.STATE, Role.SHARED):
            continue
        if len(shape) <= cut.dim or len(shape) != cut.rank:
            continue
        parts = size
        for axis in outer:
            if axis.rules[source.node].outputs[0] == cut.dim:
                parts *= axis.size
        if shape[cut.dim] % parts == 0:
            pinned[source.node] = cut.dim
    if not any(program.input_by_node[n].role is not Role.STATE for n in pinned):
        raise InputError(
            need=f"weights that divide by {degree} of {size}",
            got="none",
            hint="choose a smaller degree",
        )
    return pinned
