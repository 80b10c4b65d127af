"""Short versions of a deep program: the same first and last layers, few in between.

Layers that fold onto one another do the same work, so a plan that treats them alike costs a
fixed part and a part for each layer. Two short versions, one layer apart, give both; the
step of the whole program follows without simulating it. The plan that is chosen in the end
is simulated whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from weft.parallel.plan import Prediction
from weft.program.fold import Folding, Layer
from weft.program.graph import Arg, Node, Program, Value, map_values
from weft.program.lengthen import Lengthened, lengthen, salt_of, with_salt

__all__ = ["Shortened", "Views", "extrapolate", "shorten", "undivided", "views_of"]


@dataclass(frozen=True)
class Shortened:
    """A program with layers left out.

    Attributes:
        program: the short program.
        origin: for each of its nodes, the node of the whole program.
        dropped: layers left out.
        stack: module path of the stack; empty if nothing is left out.
        lower: number of the layer above which they are left out.
    """

    program: Program
    origin: tuple[int, ...]
    dropped: int
    stack: str = ""
    lower: int = 0

    def lengthened(self, program: Program) -> Lengthened | None:
        """A program made from the short one, with the layers that were left out.

        Args:
            program: the short one itself, or that of one of its micro-batches.
        """
        if not self.dropped:
            return Lengthened(program, tuple(range(len(program.nodes))))
        return lengthen(program, self.stack, self.lower, self.dropped)


def undivided(program: Program) -> Shortened:
    """A program with nothing left out."""
    return Shortened(program, tuple(range(len(program.nodes))), 0)


@dataclass(frozen=True)
class Views:
    """Two short versions of a program, one layer apart, or none."""

    short: Shortened
    longer: Shortened

    def predict(self, simulate: Callable[[Shortened], Prediction]) -> Prediction:
        """Prediction for the whole program, from simulations of the short ones."""
        return extrapolate(simulate(self.short), simulate(self.longer), self.short.dropped)


def views_of(program: Program, folding: Folding) -> Views | None:
    """Short versions that are worth it: None if the program is not deep or not uniform."""
    short, longer = shorten(program, folding, 2), shorten(program, folding, 3)
    if short is None or longer is None or short.dropped < WORTHWHILE:
        return None
    return Views(short, longer)


WORTHWHILE = 6
"""Layers left out from which on two short simulations are cheaper than a whole one. Derived:
the short ones have four and five layers."""


def shorten(program: Program, folding: Folding, interior: int) -> Shortened | None:
    """Keep the first and the last layer and `interior` of those between.

    Args:
        program: with one stack of layers, all but the outer ones folded onto one.
        folding: of the program.
        interior: layers to keep between the first and the last, at least 2.

    Returns:
        The short program; None if the program has no such stack or is short already.
    """
    stack = _uniform_stack(folding)
    if stack is None or len(stack) - 2 <= interior:
        return None
    below, above = stack[interior - 1], stack[-2]
    dropped = stack[interior:-2]
    position = {
        node: (layer.index, place) for layer in stack for place, node in enumerate(layer.nodes)
    }
    gone = {node for layer in dropped for node in layer.nodes}
    return _Cut(program, position, gone, below, above).shortened(len(dropped))


class _Cut:
    """Joins the layer below the gap to the layer above it."""

    def __init__(
        self,
        program: Program,
        position: dict[int, tuple[int, int]],
        gone: set[int],
        below: Layer,
        above: Layer,
    ) -> None:
        self._program = program
        self._position = position
        self._gone = gone
        self._below = below
        self._above = above
        self._last_salt, self._salts = _salts(program, below, gone)

    def shortened(self, num_dropped: int) -> Shortened | None:
        kept = [n for n in range(len(self._program.nodes)) if n not in self._gone]
        number = {old: new for new, old in enumerate(kept)}
        try:
            nodes = tuple(
                self._unsalted(
                    replace(
                        self._program.nodes[old],
                        args=self._arguments(old, number, num_dropped),
                        scope=self._closed_up(self._program.nodes[old].scope, num_dropped),
                    )
                )
                for old in kept
            )
            updates = tuple(
                (number[n], self._value(value, n, number))
                for n, value in self._program.updates
                if n not in self._gone
            )
            loss = self._value(self._program.loss, self._program.loss.node, number)
        except KeyError:
            # Something outside the layers reads every one of them.
            return None
        program = replace(
            self._program,
            nodes=nodes,
            inputs=tuple(
                replace(
                    i,
                    node=number[i.node],
                    name=self._closed_up(i.name, num_dropped),
                    parameter=self._closed_up(i.parameter, num_dropped),
                )
                for i in self._program.inputs
                if i.node not in self._gone
            ),
            loss=loss,
            updates=updates,
        )
        return Shortened(program, tuple(kept), num_dropped, self._below.stack, self._below.index)

    def _unsalted(self, node: Node) -> Node:
        """A node whose random call, if it is one, counts on from those below the gap."""
        salt = salt_of(node)
        return node if salt is None or salt <= self._last_salt else with_salt(node, -self._salts)

    def _arguments(self, old: int, number: dict[int, int], num_dropped: int) -> tuple[Arg, ...]:
        node = self._program.nodes[old]
        if node.op == "input":
            return (self._closed_up(self._program.input_by_node[old].name, num_dropped),)
        return self._moved(node.args, old, number)

    def _closed_up(self, path: str, num_dropped: int) -> str:
        """A path with the layers above the gap numbered on from those below it."""

        def moved(match: re.Match[str]) -> str:
            index = int(match[2])
            return match[1] + str(index - num_dropped if index >= self._above.index else index)

        stack = re.escape(self._above.stack)
        return re.sub(rf"((?:^|\.){stack}\.)(\d+)(?=\.|$)", moved, path, count=1)

    def _moved(self, args: tuple[Arg, ...], reader: int, number: dict[int, int]) -> tuple[Arg, ...]:
        return map_values(args, lambda value: self._value(value, reader, number))

    def _value(self, value: Value, reader: int, number: dict[int, int]) -> Value:
        if value.node not in self._gone:
            return Value(number[value.node], value.output)
        layer, _ = self._position[reader]
        _, place = self._position[value.node]
        neighbour = self._above if layer <= self._below.index else self._below
        return Value(number[neighbour.nodes[place]], value.output)


def _salts(program: Program, below: Layer, gone: Collection[int]) -> tuple[int, int]:
    """The last random call of the layer below the gap, and how many are left out."""

    def calls(nodes: Iterable[int]) -> list[int]:
        found = (salt_of(program.nodes[number]) for number in nodes)
        return [salt for salt in found if salt is not None]

    last = max(calls(below.nodes), default=-1)
    return last, len(set(calls(gone)))


def _uniform_stack(folding: Folding) -> Sequence[Layer] | None:
    """The layers of the only stack, if all but the outer ones are folded onto the second."""
    stacks = {layer.stack for layer in folding.layers}
    if len(stacks) != 1:
        return None
    stack = sorted(folding.layers, key=lambda layer: layer.index)
    inner = stack[1:-1]
    alike = all(layer.representative == inner[0].index for layer in inner)
    return stack if len(inner) >= 2 and alike else None


def extrapolate(short: Prediction, longer: Prediction, steps: float) -> Prediction:
    """The prediction `steps` times as far from `short` as `longer` is."""

    def at(field: str) -> float:
        first = float(getattr(short, field))
        return first + steps * (float(getattr(longer, field)) - first)

    return Prediction(
        step_s=at("step_s"),
        compute_s=at("compute_s"),
        communication_s=at("communication_s"),
        exposed_s=at("exposed_s"),
        peak_bytes=at("peak_bytes"),
        state_bytes=at("state_bytes"),
    )
