"""Which values of a program are weights in another dress."""

from __future__ import annotations

from weft.program.graph import Program, Value
from weft.program.operators import Kind, operator

__all__ = ["weight_values"]


def weight_values(program: Program) -> frozenset[Value]:
    """Persistent inputs, and casts and views of them: at hand before a step computes anything."""
    found = {Value(i.node) for i in program.inputs if i.role.is_persistent}
    for number, node in enumerate(program.nodes):
        made_of_weights = all(value in found for value in program.operands(number))
        if made_of_weights and (node.op == "cast" or operator(node.op).kind is Kind.VIEW):
            found.add(Value(number))
    return frozenset(found)
