"""Which values of a program are weights in another dress, and which lead to one's update."""

from __future__ import annotations

from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = ["parameters_led_to", "weight_origins", "weight_values"]


def weight_values(program: Program) -> frozenset[Value]:
    """Persistent inputs, and casts and views of them: at hand before a step computes anything."""
    found = {Value(i.node) for i in program.inputs if i.role.is_persistent}
    for number, node in enumerate(program.nodes):
        made_of_weights = all(value in found for value in program.operands(number))
        if made_of_weights and (node.op == "cast" or operator(node.op).kind is Kind.VIEW):
            found.add(Value(number))
    return frozenset(found)


def weight_origins(program: Program) -> dict[Value, int]:
    """Parameters, and casts and views of them, with the node of the parameter.

    Those that another pipeline stage holds are parameters too.
    """
    held = (Role.PARAMETER, Role.SHARED)
    found = {Value(i.node): i.node for i in program.inputs if i.role in held}
    for number, node in enumerate(program.nodes):
        operands = program.operands(number)
        plain = node.op == "cast" or operator(node.op).kind is Kind.VIEW
        if plain and operands and operands[0] in found:
            found[Value(number)] = found[operands[0]]
    return found


def parameters_led_to(program: Program) -> list[int]:
    """For each node, the one parameter whose update it leads to other than by a scalar.

    -1 where it leads to none, -2 where to several. A gradient takes part in the norm that clips
    all of them, but that is a scalar.
    """
    found = [_NONE] * len(program.nodes)

    def note(number: int, parameter: int) -> None:
        if parameter != _NONE:
            found[number] = parameter if found[number] in (_NONE, parameter) else _SEVERAL

    for old, new in program.updates:
        source = program.input_by_node[old]
        owner = program.input_by_name[source.parameter].node if source.parameter else old
        note(new.node, owner)
    for number in reversed(range(len(program.nodes))):
        node = program.nodes[number]
        if node.phase is not Phase.FORWARD and node.outputs[0].shape:
            for value in program.operands(number):
                note(value.node, found[number])
    return found


_NONE, _SEVERAL = -1, -2
