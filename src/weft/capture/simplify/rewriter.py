"""A program under rewriting: new nodes with rules applied as they are added.

Adding a node first asks the operator's rules for a simpler form, then looks for an equal node
of the same phase. Phases are kept apart on purpose: a backward node that shared a forward
node's value would keep it in memory from one to the other, which is a planner's decision.
A pinned placement goes to whichever node makes the value in the end, a pinned stage to all that
an operator becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from weft.core.errors import CaptureError
from weft.program.annotation import Annotation
from weft.program.graph import Arg, Node, Phase, Program, Value, map_values, values_in
from weft.program.infer import infer_types
from weft.program.types import TensorType

__all__ = ["Results", "Rewriter", "Rule", "Shape"]

Shape: TypeAlias = tuple[int, ...]
Results: TypeAlias = tuple[Value, ...]
Rule: TypeAlias = "Callable[[Rewriter, tuple[Arg, ...]], Results | None]"
"""A rule returns the values that stand for the operator's outputs, or None if it has none."""


class Rewriter:
    """Copies a program while rules simplify it.

    Args:
        rules: for each operator, its rules in the order in which they are asked.
        factors: (blocks, size of a block) of dims that are to stay apart wherever they go.
    """

    def __init__(
        self, rules: Mapping[str, tuple[Rule, ...]], factors: frozenset[Shape] = frozenset()
    ) -> None:
        self.factors = factors
        self._rules = rules
        self._nodes: list[Node] = []
        self._known: dict[tuple[Phase, str, str], int] = {}
        self._at = Node(op="input", args=(), outputs=())

    def run(self, program: Program) -> Program:
        """The program with the rules applied to every node, in order."""
        moved: list[Results] = []

        def find(value: Value) -> Value:
            return moved[value.node][value.output]

        for node in program.nodes:
            self._at = node
            if node.op == "input":
                self._nodes.append(replace(node, pins=()))
                moved.append((Value(len(self._nodes) - 1),))
            else:
                moved.append(self.add_all(node.op, *map_values(node.args, find)))
            self._pin(moved[-1][0], node)
        return Program(
            name=program.name,
            nodes=tuple(self._nodes),
            inputs=tuple(replace(i, node=moved[i.node][0].node) for i in program.inputs),
            loss=find(program.loss),
            updates=tuple((moved[n][0].node, find(value)) for n, value in program.updates),
        )

    def _pin(self, value: Value, old: Node) -> None:
        """Pin the value that an old node's first output has become."""
        placements = tuple(pin for pin in old.pins if not pin.is_stage)
        if placements and value.output:
            raise CaptureError(
                need="pins of the first result of an operator",
                got=f"{old.op} pinned {placements[0]}, which is {value} of another operator",
                hint="pin what is computed from it",
            )
        self._add_pins(value.node, placements)

    def _add_pins(self, number: int, pins: tuple[Annotation, ...]) -> None:
        node = self._nodes[number]
        if not set(pins) <= set(node.pins):
            self._nodes[number] = replace(node, pins=tuple(dict.fromkeys(node.pins + pins)))

    def add(self, op: str, *args: Arg) -> Value:
        """Add an operator, or what it simplifies to; its first output."""
        return self.add_all(op, *args)[0]

    def add_all(self, op: str, *args: Arg) -> Results:
        """Add an operator, or what it simplifies to; all its outputs."""
        for rule in self._rules.get(op, ()):
            found = rule(self, args)
            if found is not None:
                return found
        # repr tells 1 from 1.0 and True, which compare equal.
        key = (self._at.phase, op, repr(args))
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self._nodes)
            outputs = infer_types(op, args, tuple(map(self.type, values_in(args))))
            at = self._at
            self._nodes.append(
                Node(
                    op=op,
                    args=args,
                    outputs=outputs,
                    phase=at.phase,
                    scope=at.scope,
                    source=at.source,
                )
            )
        if self._at.pins:
            self._add_pins(number, tuple(pin for pin in self._at.pins if pin.is_stage))
        return tuple(Value(number, output) for output in range(len(self._nodes[number].outputs)))

    def add_as(self, source: Value, op: str, *args: Arg) -> Value | None:
        """Add an operator in the phase of another value.

        Returns:
            The operator's first output; None if that phase is over and has no such node.
        """
        phase = self._nodes[source.node].phase
        if phase is self._at.phase:
            return self.add(op, *args)
        number = self._known.get((phase, op, repr(args)))
        return None if number is None else Value(number)

    @property
    def phase(self) -> Phase:
        """Phase of the node that is being copied."""
        return self._at.phase

    def node(self, value: Value) -> Node:
        """The node that makes a value."""
        return self._nodes[value.node]

    def type(self, value: Value) -> TensorType:
        """Type of a value."""
        return self._nodes[value.node].outputs[value.output]

    def shape(self, value: Value) -> Shape:
        """Shape of a value."""
        return self.type(value).shape

    def made_by(self, value: Arg, op: str) -> tuple[Arg, ...] | None:
        """Arguments of the node that makes a value, if it is of this operator."""
        if not isinstance(value, Value):
            return None
        node = self._nodes[value.node]
        return node.args if node.op == op else None
