"""What ZeRO stores in parts along one mesh axis, and where the update computes.

Stage 3 stores parameters and optimizer state in parts; weights are gathered where they are
read. Stages 1 and 2 store the optimizer state in parts and parameters whole: the update computes
on the parts, and what it makes of a parameter is gathered. A float32 parameter that the
forward pass only casts is a master in the sense of mixed precision: it is optimizer state, so
stages 1 and 2 store it in parts too, and gather its cast once for the step.

Source: ZeRO (Rajbhandari et al., arXiv 1910.02054, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import prod

from weft.parallel.placement import Placement
from weft.parallel.propagate import AxisRules
from weft.parallel.weights import parameters_led_to
from weft.program.graph import Input, Phase, Program, Role, Value

__all__ = ["NOTHING", "Storage", "lasting_weights", "storage", "updating_nodes"]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """What one axis stores in parts.

    Attributes:
        pinned: placements of parameters and states, by node number.
        gathered: parameters among them, which the forward and the backward pass read whole.
        updated: where the update of a parameter computes, by its node number.
    """

    pinned: Mapping[int, Placement]
    gathered: frozenset[int]
    updated: Mapping[int, Placement]


NOTHING = Storage(pinned={}, gathered=frozenset(), updated={})


def storage(
    program: Program,
    stage: int,
    size: int,
    outer: Sequence[AxisRules] = (),
    used: Mapping[int, Placement] | None = None,
    spared: Set[int] = frozenset(),
) -> Storage:
    """What a stage of ZeRO stores in parts along an axis.

    Args:
        program: one training step.
        stage: 0 to 3.
        size: devices along the axis.
        outer: what earlier, outer axes do.
        used: the dim of each parameter that later axes cut for use: another dim is stored in
            parts if one divides, since an outer cut of a dim cannot be gathered alone.
        spared: parameters that this axis cuts for use.
    """
    if stage == 0:
        return NOTHING
    pinned: dict[int, Placement] = {}
    gathered: set[int] = set()
    states = _states(program)
    masters = _masters(program)
    updated: dict[int, Placement] = {}
    for source in program.inputs:
        if source.role is not Role.PARAMETER or source.node in spared:
            continue
        shape = program.nodes[source.node].outputs[0].shape
        alike = [source.node]
        for state in states.get(source.name, ()):
            if program.nodes[state].outputs[0].shape == shape:
                alike.append(state)
            elif (own := _dim(program, [state], size, outer, None)) is not None:
                pinned[state] = own
        dim = _dim(program, alike, size, outer, (used or {}).get(source.node))
        if dim is None:
            continue
        cut = stage == 3 or source.node in masters
        if cut:
            gathered.add(source.node)
        pinned |= dict.fromkeys(alike if cut else alike[1:], dim)
        updated[source.node] = dim
    return Storage(pinned=pinned, gathered=frozenset(gathered), updated=updated)


def lasting_weights(program: Program, gathered: Set[int]) -> frozenset[Value]:
    """Parameters that are gathered once and stay for all of the step, and their casts.

    Args:
        program: one training step.
        gathered: parameters that are stored in parts, as stages 1 and 2 store masters.
    """
    found = {Value(node) for node in gathered}
    for number, node in enumerate(program.nodes):
        if node.op == "cast" and program.operands(number)[0] in found:
            found.add(Value(number))
    return frozenset(found)


def _dim(
    program: Program,
    alike: Sequence[int],
    size: int,
    outer: Sequence[AxisRules],
    used: Placement | None,
) -> Placement | None:
    """The first dim that divides, of tensors of one shape; the one in use if no other does."""
    shape = program.nodes[alike[0]].outputs[0].shape

    def parts(dim: int) -> int:
        cuts = [
            prod(axis.size for axis in outer if axis.rules[node].outputs[0] == dim)
            for node in alike
        ]
        return size * max(cuts)

    fitting = [dim for dim, n in enumerate(shape) if n > 1 and n % parts(dim) == 0]
    free = [dim for dim in fitting if dim != used]
    return next(iter(free or fitting), None)


def updating_nodes(program: Program) -> dict[int, list[int]]:
    """For each parameter the nodes of its update that have its shape.

    Sums of its gradients are left out: what comes in summands is summed before it is shared out.
    """
    led_to = parameters_led_to(program)
    sums: set[int] = set()
    found: dict[int, list[int]] = {}
    for number, node in enumerate(program.nodes):
        if node.phase is not Phase.UPDATE or led_to[number] < 0:
            continue
        reads = [value.node for value in program.operands(number)]
        gradients = (n in sums or program.nodes[n].phase is Phase.BACKWARD for n in reads)
        if node.op == "add.Tensor" and all(gradients):
            sums.add(number)
        elif node.outputs[0].shape == program.nodes[led_to[number]].outputs[0].shape:
            found.setdefault(led_to[number], []).append(number)
    return found


def _states(program: Program) -> dict[str, list[int]]:
    """State nodes of each parameter."""
    found: dict[str, list[int]] = {}
    for source in program.inputs:
        if source.role is Role.STATE and source.parameter:
            found.setdefault(source.parameter, []).append(source.node)
    return found


def _masters(program: Program) -> frozenset[int]:
    """Parameters that the forward and the backward pass read only to cast them."""

    def is_master(source: Input) -> bool:
        readers = [program.nodes[reader] for reader, _ in program.users[source.node]]
        reading = [node for node in readers if node.phase is not Phase.UPDATE]
        return bool(reading) and all(node.op == "cast" for node in reading)

    return frozenset(i.node for i in program.inputs if i.role is Role.PARAMETER and is_master(i))
