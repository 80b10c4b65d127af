"""More layers in a stack: from a program of few layers to the program of any depth.

Two neighbours of a stack, the lower and the upper one, do the same. New layers between them are
copies of them. Where the upper layer reads the lower one, a copy reads the copy before it; where
the lower one reads the upper one, as its backward pass does, a copy reads the copy after it; what
both read from elsewhere (the shared angles that layer 0 made, say) stays the same.

Proposes only: whoever calls this compares the result with something that was traced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from weft.program.graph import Input, Node, Program, Value, map_values
from weft.program.layers import assign_layers
from weft.program.salt import salt_of, with_salt

__all__ = ["Lengthened", "lengthen"]


@dataclass(frozen=True)
class Lengthened:
    """A program with more layers.

    Attributes:
        program: the deep program.
        origin: for each of its nodes, the node of the program of few layers that it does as.
    """

    program: Program
    origin: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A node of the deep program: which node it is made from, and the how-manieth new layer."""

    node: int
    number: int = 0


class _NoPattern(Exception):
    """The two layers are not alike, or something outside reads them."""


def lengthen(program: Program, stack: str, lower: int, count: int) -> Lengthened | None:
    """The program with `count` more layers, copies of layer `lower`, above it.

    Args:
        program: with a layer above `lower`, which is like it node by node.
        stack: module path of the stack, such as "model.layers".
        lower: number of the lower of the two layers.
        count: layers to add.

    Returns:
        The deep program, nodes and inputs in the order of a full trace; None if the two layers do
        not correspond node by node.
    """
    try:
        return _Growth(program, stack, lower, count).lengthened()
    except _NoPattern:
        return None


class _Growth:
    """Puts new layers between two of a stack; lives only inside `lengthen`."""

    def __init__(self, program: Program, stack: str, lower: int, count: int) -> None:
        self._program = program
        self._lower = lower
        self._count = count
        assignment = assign_layers(program)
        where = {layer: position for position, layer in enumerate(assignment.layers)}
        if (stack, lower) not in where or (stack, lower + 1) not in where:
            raise _NoPattern
        below, above = where[stack, lower], where[stack, lower + 1]
        self._above_of = _pairs(program, assignment.nodes[below], assignment.nodes[above])
        self._below_of = {high: low for low, high in self._above_of.items()}
        index = dict(enumerate(assignment.layers))
        self._index = [
            index[position][1] if position in index and index[position][0] == stack else -1
            for position in assignment.layer
        ]
        self._pattern = re.compile(rf"((?:^|\.){re.escape(stack)}\.)(\d+)(?=\.|$)")
        self._salts, self._last_salt = self._salt_step()
        copies = tuple(self._ordered(range(len(program.nodes))))
        self._copies = copies
        self._number = {copy: position for position, copy in enumerate(copies)}

    def lengthened(self) -> Lengthened:
        program = self._program
        changed = dict(program.updates)
        return Lengthened(
            replace(
                program,
                nodes=tuple(map(self._node, self._copies)),
                inputs=tuple(map(self._input, self._ordered([i.node for i in program.inputs]))),
                loss=self._moved(_Copy(program.loss.node), program.loss.output),
                updates=tuple(
                    (self._number[copy], self._read(copy, changed[copy.node], None))
                    for copy in self._ordered([node for node, _ in program.updates])
                ),
            ),
            tuple(copy.node for copy in self._copies),
        )

    def _ordered(self, nodes: Sequence[int]) -> Iterator[_Copy]:
        """Copies in order: each run of the lower layer's nodes, once for each layer."""
        at, low, high = 0, self._above_of, self._below_of
        while at < len(nodes):
            if nodes[at] not in low and nodes[at] not in high:
                yield _Copy(nodes[at])
                at += 1
                continue
            first, second = (low, high) if nodes[at] in low else (high, low)
            middle = _run(nodes, at, first)
            stop = _run(nodes, middle, second)
            before, after = nodes[at:middle], nodes[middle:stop]
            if [first[n] for n in before] != [*after]:
                raise _NoPattern
            yield from map(_Copy, before)
            numbers = range(1, self._count + 1)
            for number in numbers if first is low else reversed(numbers):
                yield from (_Copy(n, number) for n in (before if first is low else after))
            yield from map(_Copy, after)
            at = stop

    def _input(self, copy: _Copy) -> Input:
        given = self._program.input_by_node[copy.node]
        name, parameter = (self._renamed(copy, text) for text in (given.name, given.parameter))
        return replace(given, name=name, parameter=parameter, node=self._number[copy])

    def _node(self, copy: _Copy) -> Node:
        node = self._program.nodes[copy.node]
        twin = self._twin(copy)
        others = None if twin is None else iter(self._program.operands(twin))
        args = map_values(
            node.args,
            lambda value: self._read(copy, value, None if others is None else next(others)),
        )
        if node.op == "input":
            args = (self._renamed(copy, str(args[0])),)
        made = replace(node, args=args, scope=self._renamed(copy, node.scope))
        salt = salt_of(node)
        return made if salt is None else with_salt(made, self._shift(copy, salt))

    def _twin(self, copy: _Copy) -> int | None:
        """The node of the other layer that a node of one of the two corresponds to."""
        return self._above_of.get(copy.node, self._below_of.get(copy.node))

    def _read(self, copy: _Copy, value: Value, other: Value | None) -> Value:
        """What a copy reads where the node it is made from reads `value`, and its twin `other`."""
        low, high, node = self._above_of, self._below_of, value.node
        if copy.node in low:
            return self._read_by_lower(copy, value, other)
        if copy.node in high and node in low:  # from the layer below
            return self._moved(_Copy(node, self._count), value.output)
        if copy.node not in high and (node in low or node in high):
            self._require_neighbour(copy, node)
        return self._moved(_Copy(node), value.output)

    def _read_by_lower(self, copy: _Copy, value: Value, other: Value | None) -> Value:
        low, high, node = self._above_of, self._below_of, value.node
        if node in low:
            if other is not None and other != Value(low[node], value.output):
                raise _NoPattern
            return self._moved(_Copy(node, copy.number), value.output)
        if node in high:  # from the layer above
            if copy.number == self._count:
                return self._moved(_Copy(node), value.output)
            return self._moved(_Copy(high[node], copy.number + 1), value.output)
        if other is not None and other.node in low and copy.number:  # from the layer below
            return self._moved(_Copy(other.node, copy.number - 1), other.output)
        if other is not None and other.node not in low and other != value:
            beside = self._index[node] == self._lower - 1 or self._index[other.node] == (
                self._lower + 2
            )
            if copy.number or not beside:
                raise _NoPattern
        return self._moved(_Copy(node), value.output)

    def _require_neighbour(self, copy: _Copy, node: int) -> None:
        """Check that only a layer beside the two reads them."""
        beside = (self._lower - 1, self._lower + 2)
        if self._index[copy.node] not in beside:
            raise _NoPattern
        expected = self._above_of if self._index[copy.node] == beside[0] else self._below_of
        if node not in expected:
            raise _NoPattern

    def _moved(self, copy: _Copy, output: int) -> Value:
        return Value(self._number[copy], output)

    def _renamed(self, copy: _Copy, text: str) -> str:
        """A name or scope with the number of its layer in the deep program."""
        shift = copy.number or (self._count if self._index[copy.node] > self._lower else 0)
        if not shift or not text:
            return text

        def moved(match: re.Match[str]) -> str:
            return f"{match[1]}{int(match[2]) + shift}"

        return self._pattern.sub(moved, text, count=1)

    def _salt_step(self) -> tuple[int, int]:
        """By how much salts of random numbers rise from layer to layer, and the lower's last."""
        nodes = self._program.nodes
        salts = {n: salt for n in self._above_of if (salt := salt_of(nodes[n])) is not None}
        steps = {(salt_of(nodes[self._above_of[n]]) or 0) - salt for n, salt in salts.items()}
        if len(steps) > 1:
            raise _NoPattern
        return steps.pop() if steps else 0, max(salts.values(), default=-1)

    def _shift(self, copy: _Copy, salt: int) -> int:
        if copy.node in self._above_of:
            return self._salts * copy.number
        return self._salts * self._count if salt > self._last_salt else 0


def _run(nodes: Sequence[int], at: int, members: Mapping[int, int]) -> int:
    """End of a run of members."""
    while at < len(nodes) and nodes[at] in members:
        at += 1
    return at


def _pairs(program: Program, lower: tuple[int, ...], upper: tuple[int, ...]) -> dict[int, int]:
    def kinds(nodes: tuple[int, ...]) -> list[tuple[object, ...]]:
        found = (program.nodes[n] for n in nodes)
        return [(n.op, n.phase, n.outputs) for n in found]

    if kinds(lower) != kinds(upper):
        raise _NoPattern
    return dict(zip(lower, upper, strict=True))
