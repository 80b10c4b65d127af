"""Replication: from a program of five layers to the program of any depth.

Layers of a stack are called 0 to 4. Layer 2 is the pattern: its neighbours 1 and 3 are like
it, and neither is the first or the last. In a deeper program layers 2 to depth - 3 are copies
of it, and 3 and 4 become the last two. What a copy reads from layer 1 it reads from the layer
before it, what it reads from layer 3 from the one after it, and what it reads from elsewhere
(the shared angles that layer 0 made, say) stays the same.

Proposes only: whoever calls this compares the result with something that was traced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from weft.program.graph import Input, Node, Program, Value, map_values
from weft.program.layers import assign_layers

__all__ = ["BASE_DEPTH", "replicate"]

BASE_DEPTH = 5
"""Layers that the program to start from has."""

_PATTERN = 2
_OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class _Copy:
    """A node of the deeper program: which node it copies, and for which layer of the pattern."""

    node: int
    layer: int = _OUTSIDE


class _NoPattern(Exception):
    """The program has no pattern that this module can repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is copied: the layer of every node and how interior layers correspond.

    Attributes:
        stack: module path of the stack.
        depth: layers of the deeper program.
        layer: for each node its layer, -1 outside the stack.
        pattern: for each node of layers 1 and 3 the node of layer 2 that corresponds.
        salts: random call sites in one layer.
        last_salt: largest salt in layer 2, -1 if it has none.
    """

    stack: str
    depth: int
    layer: tuple[int, ...]
    pattern: dict[int, int]
    salts: int
    last_salt: int

    def new_layer(self, copy: _Copy) -> int:
        """Layer that a copy belongs to in the deeper program."""
        layer = self.layer[copy.node]
        if layer == _PATTERN:
            return copy.layer
        return layer + self.depth - BASE_DEPTH if layer > _PATTERN else layer


def replicate(program: Program, stack: str, depth: int) -> Program | None:
    """The program with its stack of five layers grown to `depth` layers.

    Args:
        program: a program whose stack has `BASE_DEPTH` layers.
        stack: module path of the stack, such as "model.layers".
        depth: layers wanted, at least `BASE_DEPTH`.

    Returns:
        The deeper program, nodes and inputs in the order of a full trace; None if the interior
        layers do not correspond node by node.
    """
    try:
        plan = _plan(program, stack, depth)
        copies = tuple(_ordered(plan))
        return _built(program, plan, copies)
    except _NoPattern:
        return None


def _plan(program: Program, stack: str, depth: int) -> _Plan:
    assignment = assign_layers(program)
    wanted = [(stack, index) for index in range(BASE_DEPTH)]
    if [layer for layer in assignment.layers if layer[0] == stack] != wanted:
        raise _NoPattern
    first = assignment.layers.index((stack, 0))
    layer = tuple(
        n - first if first <= n < first + BASE_DEPTH else _OUTSIDE for n in assignment.layer
    )
    members = assignment.nodes[first : first + BASE_DEPTH]
    pattern: dict[int, int] = {}
    for neighbour in (_PATTERN - 1, _PATTERN + 1):
        if not _alike(program, members[neighbour], members[_PATTERN]):
            raise _NoPattern
        pattern |= dict(zip(members[neighbour], members[_PATTERN], strict=True))
    before = {pattern[n]: s for n, s in _salts(program, members[_PATTERN - 1])}
    own = dict(_salts(program, members[_PATTERN]))
    steps = {own[n] - before[n] for n in own}
    if len(steps) > 1:
        raise _NoPattern
    return _Plan(
        stack=stack,
        depth=depth,
        layer=layer,
        pattern=pattern,
        salts=steps.pop() if steps else 0,
        last_salt=max(own.values(), default=-1),
    )


def _alike(program: Program, left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    def kinds(nodes: tuple[int, ...]) -> list[tuple[object, ...]]:
        found = (program.nodes[n] for n in nodes)
        return [(n.op, n.phase, n.outputs) for n in found]

    return kinds(left) == kinds(right)


def _salts(program: Program, nodes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    for number in nodes:
        salt = _salt(program.nodes[number])
        if salt is not None:
            yield number, salt


def _salt(node: Node) -> int | None:
    salt = node.args[1] if node.op == "uniform" else None
    return salt if isinstance(salt, int) else None


def _ordered(plan: _Plan) -> Iterator[_Copy]:
    """Copies in execution order: each run of the pattern's nodes, once for each new layer."""
    number, end = 0, len(plan.layer)
    while number < end:
        if plan.layer[number] != _PATTERN:
            yield _Copy(number)
            number += 1
            continue
        stop = number
        while stop < end and plan.layer[stop] == _PATTERN:
            stop += 1
        around = (plan.layer[number - 1], plan.layer[stop] if stop < end else _OUTSIDE)
        new_layers = range(_PATTERN, plan.depth - _PATTERN)
        if around == (_PATTERN + 1, _PATTERN - 1):
            new_layers = reversed(new_layers)
        elif around != (_PATTERN - 1, _PATTERN + 1):
            raise _NoPattern
        for layer in new_layers:
            yield from (_Copy(n, layer) for n in range(number, stop))
        number = stop


def _built(program: Program, plan: _Plan, copies: tuple[_Copy, ...]) -> Program:
    number = {copy: position for position, copy in enumerate(copies)}

    def find(copy: _Copy, value: Value) -> Value:
        return Value(number[_source(plan, copy, value.node)], value.output)

    nodes: list[Node] = []
    for copy in copies:
        node = program.nodes[copy.node]
        moved = replace(
            node,
            args=map_values(node.args, lambda value, copy=copy: find(copy, value)),
            scope=_renamed(plan, copy, node.scope),
        )
        nodes.append(_named(plan, copy, moved))
    given = program.input_by_node
    changed = dict(program.updates)
    inputs: list[Input] = []
    updates: list[tuple[int, Value]] = []
    for position, copy in enumerate(copies):
        if copy.node in given:
            old = given[copy.node]
            name, parameter = (_renamed(plan, copy, t) for t in (old.name, old.parameter))
            inputs.append(replace(old, name=name, parameter=parameter, node=position))
        if copy.node in changed:
            updates.append((position, find(copy, changed[copy.node])))
    return Program(
        name=program.name,
        nodes=tuple(nodes),
        inputs=tuple(inputs),
        loss=find(_Copy(program.loss.node), program.loss),
        updates=tuple(updates),
    )


def _source(plan: _Plan, copy: _Copy, node: int) -> _Copy:
    """The copy that a copy reads where the original reads `node`."""
    own, layer = plan.layer[copy.node], plan.layer[node]
    if own == _PATTERN and abs(layer - _PATTERN) == 1:
        wanted = copy.layer + layer - _PATTERN
        inside = _PATTERN <= wanted < plan.depth - _PATTERN
        return _Copy(plan.pattern[node], wanted) if inside else _Copy(node)
    if layer != _PATTERN:
        return _Copy(node)
    if own == _PATTERN:
        return _Copy(node, copy.layer)
    if abs(own - _PATTERN) != 1:
        raise _NoPattern
    return _Copy(node, _PATTERN if own < _PATTERN else plan.depth - _PATTERN - 1)


def _renamed(plan: _Plan, copy: _Copy, text: str) -> str:
    """A name or scope with the number of its layer in the deeper program."""
    layer = plan.layer[copy.node]
    new = plan.new_layer(copy)
    if layer == _OUTSIDE or new == layer:
        return text
    return re.sub(
        rf"(^|\.){re.escape(plan.stack)}\.{layer}(?=\.|$)",
        lambda found: f"{found[1]}{plan.stack}.{new}",
        text,
        count=1,
    )


def _named(plan: _Plan, copy: _Copy, node: Node) -> Node:
    """The node with its constants of the deeper program: an input's name, a mask's salt."""
    if node.op == "input":
        return replace(node, args=(_renamed(plan, copy, str(node.args[0])),))
    salt = _salt(node)
    if salt is None:
        return node
    if plan.layer[copy.node] == _PATTERN:
        salt += plan.salts * (copy.layer - _PATTERN)
    elif salt > plan.last_salt:
        salt += plan.salts * (plan.depth - BASE_DEPTH)
    seed, _, *rest = node.args
    return replace(node, args=(seed, salt, *rest))
