"""A step in micro-batches, as planners see it: what repeats, and what is held meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from weft.program.graph import Program, Role

__all__ = ["Loop", "varying_nodes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """How often the program of one micro-batch runs in a step.

    Attributes:
        times: micro-batches.
        held: micro-batches whose activations are kept at once, where most are.
    """

    times: int
    held: int


def varying_nodes(program: Program) -> list[bool]:
    """For each node of the program of one micro-batch, whether micro-batches differ in it.

    What does not vary is computed once a step: casts of weights, sums over all micro-batches,
    updates.
    """
    varies: list[bool] = []
    for number, node in enumerate(program.nodes):
        source = program.input_by_node.get(number)
        if source is not None:
            part = source.role is Role.BATCH and bool(node.outputs[0].shape)
            varies.append(part or source.role in (Role.MICRO_BATCH, Role.RECEIVED))
        else:
            operands = program.operands(number)
            varies.append(node.op != "accumulate" and any(varies[v.node] for v in operands))
    return varies
