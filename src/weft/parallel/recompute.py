"""Recomputation: forward nodes that the backward pass runs again instead of keeping their results.

A plan names the nodes. Here they become part of the program: each gets a clone in the
backward phase, placed before its first backward reader, and backward readers read the clone.
Clones read clones where there are any and kept values elsewhere. The planner then treats
them like any other node.

Source: gradient checkpointing (Chen et al., arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from weft.core.errors import VerifyError
from weft.cost.fusion import Paid, program_traffic
from weft.program.graph import Node, Phase, Program, Value, compact, map_values, used_nodes
from weft.program.operators import Kind, operator

__all__ = [
    "RECOMPUTATIONS",
    "Expanded",
    "cheap_nodes",
    "expand",
    "layer_nodes",
    "with_recompute",
]


def with_recompute(program: Program, nodes: Collection[int]) -> Program:
    """The program in which the backward pass recomputes the given forward nodes.

    Args:
        program: the program as captured.
        nodes: numbers of forward nodes, inputs excluded; may be empty.

    Raises:
        VerifyError: a node is not a forward node, or is an input.
    """
    return expand(program, nodes).program


@dataclass(frozen=True)
class Expanded:
    """A program with recomputation.

    Attributes:
        program: with the clones.
        origin: for each of its nodes, the node of the program as captured it was made from.
        chosen: nodes of the program as captured that are recomputed.
    """

    program: Program
    origin: tuple[int, ...]
    chosen: tuple[int, ...] = ()

    @cached_property
    def traffic(self) -> tuple[Paid, ...]:
        """What each node pays for on a device that fuses."""
        return program_traffic(self.program)


def expand(program: Program, nodes: Collection[int]) -> Expanded:
    """`with_recompute`, with the way back to the program as captured."""
    if not nodes:
        return Expanded(program, tuple(range(len(program.nodes))))
    chosen = frozenset(nodes)
    for node in chosen:
        this = program.nodes[node]
        if this.phase is not Phase.FORWARD or operator(this.op).kind is Kind.INPUT:
            raise VerifyError(
                need="forward nodes that are no inputs",
                got=f"node {node}, {this.op} in phase {this.phase.value}",
            )
    return _Rebuild(program, chosen).expanded()


class _Rebuild:
    """Copies the nodes in order and clones chosen ones when the backward pass first needs them."""

    def __init__(self, program: Program, chosen: frozenset[int]) -> None:
        self._old = program
        self._chosen = chosen
        self._nodes: list[Node] = []
        self._number: dict[int, int] = {}
        self._clone: dict[int, int] = {}
        self._origin: list[int] = []

    def expanded(self) -> Expanded:
        rebuilt = self._rebuilt()
        kept = used_nodes(rebuilt)
        origin = tuple(old for old, used in zip(self._origin, kept, strict=True) if used)
        return Expanded(compact(rebuilt), origin, tuple(sorted(self._chosen)))

    def _rebuilt(self) -> Program:
        for number, node in enumerate(self._old.nodes):
            change = self._backward if node.phase is Phase.BACKWARD else self._same
            args = map_values(node.args, change)
            self._number[number] = len(self._nodes)
            self._append(replace(node, args=args), number)
        return replace(
            self._old,
            nodes=tuple(self._nodes),
            inputs=tuple(replace(i, node=self._number[i.node]) for i in self._old.inputs),
            loss=self._same(self._old.loss),
            updates=tuple((self._number[n], self._same(v)) for n, v in self._old.updates),
        )

    def _same(self, value: Value) -> Value:
        return Value(self._number[value.node], value.output)

    def _backward(self, value: Value) -> Value:
        if value.node not in self._chosen:
            return self._same(value)
        self._ensure_clone(value.node)
        return Value(self._clone[value.node], value.output)

    def _ensure_clone(self, node: int) -> None:
        """Append clones of a node and of the chosen nodes before it, operands first."""
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [
                v.node
                for v in self._old.operands(top)
                if v.node in self._chosen and v.node not in self._clone
            ]
            if missing and top not in self._clone:
                stack.extend(missing)
                continue
            stack.pop()
            if top not in self._clone:
                this = self._old.nodes[top]
                args = map_values(this.args, self._backward)
                self._clone[top] = len(self._nodes)
                self._append(replace(this, args=args, phase=Phase.BACKWARD, pins=()), top)

    def _append(self, node: Node, origin: int) -> None:
        self._nodes.append(node)
        self._origin.append(origin)


_HEAVY = frozenset({Kind.INPUT, Kind.CONTRACT, Kind.CONVOLUTION, Kind.ATTENTION})


def cheap_nodes(program: Program) -> tuple[int, ...]:
    """Forward nodes that cost little to run again: all but products, convolutions, attention.

    Nodes that depend on parameters only are left out: their results are no activations.
    """
    return tuple(
        n for n in _activation_nodes(program) if operator(program.nodes[n].op).kind not in _HEAVY
    )


def layer_nodes(program: Program) -> tuple[int, ...]:
    """Forward nodes inside repeated layers, but for what a layer hands on: full recomputation.

    A layer is a module whose path ends in a number, such as "layers.3".
    """
    layer = [_layer_of(node.scope) for node in program.nodes]
    return tuple(
        n
        for n in _activation_nodes(program)
        if layer[n]
        and all(
            layer[reader] == layer[n]
            for reader, _ in program.users[n]
            if program.nodes[reader].phase is Phase.FORWARD
        )
    )


def _layer_of(scope: str) -> str:
    """Path of the outermost numbered module, empty if there is none."""
    parts = scope.split(".")
    for depth, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: depth + 1])
    return ""


def _activation_nodes(program: Program) -> list[int]:
    """Forward nodes that depend on the batch."""
    depends: set[int] = set()
    found: list[int] = []
    for n, node in enumerate(program.nodes):
        if node.phase is not Phase.FORWARD:
            continue
        source = program.input_by_node.get(n)
        if source is not None:
            if not source.role.is_persistent:
                depends.add(n)
        elif any(v.node in depends for v in program.operands(n)):
            depends.add(n)
            found.append(n)
    return found


RECOMPUTATIONS: Mapping[str, Callable[[Program], tuple[int, ...]]] = MappingProxyType(
    {"": lambda _: (), "cheap": cheap_nodes, "full": layer_nodes}
)
"""Which forward nodes run again in the backward pass, by name, least work first."""
