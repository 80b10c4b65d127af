"""Stages that compute the same but for the names of what they read."""

from __future__ import annotations

from collections.abc import Sequence

from weft.program.graph import Arg, Program, Value
from weft.program.salt import unsalted

__all__ = ["representatives"]


def representatives(programs: Sequence[Program]) -> tuple[int, ...]:
    """For each program, the first one that is like it, node by node.

    A plan for one is a plan for the other: nodes have the same numbers, operators, types and
    operands. Names of inputs and of what is sent do not take part, nor do the salts of random
    numbers, which are each program's own.
    """
    first: dict[object, int] = {}
    return tuple(first.setdefault(_shape(p), number) for number, p in enumerate(programs))


def _shape(program: Program) -> object:
    roles = {source.node: source.role for source in program.inputs}
    owner = {i.name: i.node for i in program.inputs}
    belongs = tuple((i.node, owner.get(i.parameter, -1)) for i in program.inputs)
    nodes = tuple(
        (
            node.op,
            roles[number] if number in roles else _nameless(node.op, unsalted(node)),
            node.outputs,
            node.phase,
            tuple(pin.wish for pin in node.pins),
        )
        for number, node in enumerate(program.nodes)
    )
    return (nodes, belongs, program.loss, program.updates)


def _nameless(op: str, args: tuple[Arg, ...]) -> object:
    """Arguments as a key; 1, 1.0 and True are three constants."""
    if op == "send":
        return args[0]
    return tuple(
        arg
        if isinstance(arg, Value)
        else _nameless("", arg)
        if isinstance(arg, tuple)
        else (type(arg), arg)
        for arg in args
    )
