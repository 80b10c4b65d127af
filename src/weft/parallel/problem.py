"""The planning problem on one mesh: states of each unit, and what disagreement costs.

Every unit of the skeleton gets its states with their times and bytes; every link becomes an
edge, which costs the cheapest way from the sharding its tail makes to the one its head reads.
The objective is the sum of all, each multiplied by how often the folded part occurs.

Bytes of a state are those that live through the peak between forward and backward pass:
parameters, buffers and optimizer state, activations kept for the backward pass, gradients
waiting for the optimizer. What is transient is added by the simulator, not here.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from weft.parallel.placement import PARTIAL_MAX, Mesh, Sharding, is_partial
from weft.parallel.plan import Strategy
from weft.parallel.reshard import Floats, HopTable, Ints, Resharding
from weft.parallel.skeleton import (
    CLUSTER_OPERAND,
    HUB_PORT,
    WHOLE,
    Link,
    Skeleton,
    UnitKind,
    UnitSpec,
)
from weft.parallel.strategies import StrategyTable
from weft.program.graph import Phase, Program, Value

__all__ = ["Edge", "Problem", "Unit", "build_problem"]


@dataclass(frozen=True)
class Unit:
    """A unit with its states.

    Attributes:
        spec: what it is.
        seconds: cost of each state, all occurrences together [s].
        num_bytes: memory of each state on one device, all occurrences together [bytes].
        strategies: for each program node that the unit decides, its strategy in each state.
        shardings: of a hub or cluster, the sharding in each state.
    """

    spec: UnitSpec
    seconds: Floats
    num_bytes: Floats
    strategies: dict[int, tuple[Strategy, ...]] = field(default_factory=dict)
    shardings: tuple[Sharding, ...] = ()


@dataclass(frozen=True)
class Edge:
    """A tensor that flows from unit `tail` to unit `head`, `count` times a step.

    `made[s]` and `read[t]` are the indices in `table` of the sharding in which state s of
    the tail makes it and state t of the head reads it.
    """

    tail: int
    head: int
    made: Ints
    read: Ints
    table: HopTable
    count: int
    hideable: bool = False


@dataclass(frozen=True)
class Problem:
    """Units and edges of one program on one mesh."""

    skeleton: Skeleton
    mesh: Mesh
    units: tuple[Unit, ...]
    edges: tuple[Edge, ...]

    def objective(self, states: Sequence[int] | Ints, hidden: float = 0.0) -> float:
        """Cost of a choice of states, less a share of the communication that can hide [s]."""
        total = sum(float(unit.seconds[s]) for unit, s in zip(self.units, states, strict=True))
        for edge in self.edges:
            here, there = edge.made[states[edge.tail]], edge.read[states[edge.head]]
            charged = edge.count * (1.0 - hidden if edge.hideable else 1.0)
            total += charged * float(edge.table.distance[here, there])
        return total

    def num_bytes(self, states: Sequence[int] | Ints) -> float:
        """Memory of a choice of states on one device [bytes]."""
        return sum(float(u.num_bytes[s]) for u, s in zip(self.units, states, strict=True))

    def label(self, unit: int) -> str:
        """What a unit is, for messages."""
        spec = self.units[unit].spec
        program = self.skeleton.program
        if spec.nodes:
            node = program.nodes[spec.nodes[0]]
            return f"%{spec.nodes[0]} {node.op} {node.scope} {node.source}".strip()
        return f"{spec.kind.value} of {spec.value}" if spec.value else spec.kind.value


def build_problem(
    skeleton: Skeleton,
    mesh: Mesh,
    table: StrategyTable,
    resharding: Resharding,
    settled: Set[Value] = frozenset(),
) -> Problem:
    """The problem of splitting a program over a mesh.

    Args:
        skeleton: units and links.
        mesh: the device grid.
        table: strategies of nodes.
        resharding: what it costs to move a tensor.
        settled: values that nobody may read before they are reduced.

    Raises:
        RuleError: an operator has no sharding rule.
    """
    builder = _Builder(skeleton, mesh, table, resharding, settled)
    units = builder.units()
    edges = tuple(edge for link in skeleton.links if (edge := builder.edge(link)) is not None)
    return Problem(skeleton, mesh, units, edges)


class _Builder:
    """Fills in states and edges; lives only inside `build_problem`."""

    def __init__(
        self,
        skeleton: Skeleton,
        mesh: Mesh,
        table: StrategyTable,
        resharding: Resharding,
        settled: Set[Value],
    ) -> None:
        self._settled = settled
        self.skeleton = skeleton
        self.program: Program = skeleton.program
        self.mesh = mesh
        self.table = table
        self.resharding = resharding
        self._units: list[Unit] = []
        self._maxima: frozenset[Value] = frozenset()
        self._maximal: dict[int, tuple[tuple[Strategy, ...], bool]] = {}

    def units(self) -> tuple[Unit, ...]:
        makers = {UnitKind.NODE: self._node, UnitKind.CLUSTER: self._cluster}
        deciding = [
            makers[spec.kind](spec) if spec.kind in makers else None for spec in self.skeleton.units
        ]
        self._maxima = self._values_with_maxima(deciding)
        self._units = [
            unit if unit is not None else self._hub(spec)
            for unit, spec in zip(deciding, self.skeleton.units, strict=True)
        ]
        return tuple(self._units)

    def _node(self, spec: UnitSpec) -> Unit:
        (node,) = spec.nodes
        choices = self.table.choices(node)
        return Unit(
            spec,
            choices.seconds * spec.runs,
            self._resident_bytes(node, choices.strategies) * spec.times,
            {node: choices.strategies},
        )

    def _resident_bytes(self, node: int, strategies: tuple[Strategy, ...]) -> Floats:
        """Bytes of parameters, buffers, optimizer state and sums, for each strategy."""
        source = self.program.input_by_node.get(node)
        persists = source is not None and source.role.is_persistent
        if not persists and self.program.nodes[node].op != "accumulate":
            return np.zeros(len(strategies))
        full = self.program.nodes[node].outputs[0].num_bytes
        return np.array([full / self._parts(s.outputs[0]) for s in strategies])

    def _cluster(self, spec: UnitSpec) -> Unit:
        tensor = self.program.nodes[spec.nodes[0]].outputs[0]
        shardings = tuple(
            s for s in self.resharding.table(tensor).states if not any(map(is_partial, s))
        )
        strategies: dict[int, tuple[Strategy, ...]] = {}
        seconds = np.zeros(len(shardings))
        for node in spec.nodes:
            strategies[node] = tuple(self._aligned(node, tensor.shape, s) for s in shardings)
            choices = self.table.choices(node)
            cost = dict(zip(choices.strategies, choices.seconds, strict=True))
            seconds += [cost[strategy] for strategy in strategies[node]]
        full = self._gradient_bytes(spec.nodes, tensor.shape)
        num_bytes = np.array([full / self._parts(s) for s in shardings])
        return Unit(spec, seconds * spec.runs, num_bytes * spec.times, strategies, shardings)

    def _aligned(self, node: int, shape: tuple[int, ...], sharding: Sharding) -> Strategy:
        """All tensors of the cluster's shape in its sharding, scalars whole."""
        whole = (-1,) * self.mesh.num_axes
        return Strategy(
            outputs=(sharding,),
            operands=tuple(
                sharding if self.program.type_of(value).shape == shape else whole
                for value in self.program.operands(node)
            ),
        )

    def _gradient_bytes(self, nodes: Sequence[int], shape: tuple[int, ...]) -> float:
        gradients = {
            value
            for node in nodes
            for value in self.program.operands(node)
            if self.program.nodes[value.node].phase is Phase.BACKWARD
            and self.program.nodes[value.node].op != "accumulate"  # which counts by itself
            and self.program.type_of(value).shape == shape
        }
        return float(sum(self.program.type_of(value).num_bytes for value in gradients))

    def _hub(self, spec: UnitSpec) -> Unit:
        if spec.value is None:
            return Unit(spec, np.zeros(1), np.zeros(1))
        states = self._hops(spec.value).states
        if spec.value in self._settled:
            states = tuple(s for s in states if not any(map(is_partial, s)))
        num_bytes = np.zeros(len(states))
        if spec.keeps:
            full = self.program.type_of(spec.value).num_bytes * spec.held
            num_bytes += [full / self._parts(state) for state in states]
        return Unit(spec, np.zeros(len(states)), num_bytes, shardings=states)

    def edge(self, link: Link) -> Edge | None:
        """The edge of a link; none if there is nothing to decide and nothing to pay."""
        table = self._hops(link.value, joined=link.hideable)
        made, read = self._made(link, table), self._read(link, table)
        if len(made) == 1 and len(read) == 1 and made[0] == read[0]:
            return None
        return Edge(link.tail, link.head, made, read, table, link.count, link.hideable)

    def _hops(self, value: Value, *, joined: bool = False) -> HopTable:
        maximum = value in self._maxima
        return self.resharding.table(self.program.type_of(value), maximum=maximum, joined=joined)

    def _made(self, link: Link, table: HopTable) -> Ints:
        unit = self._units[link.tail]
        if unit.spec.kind is UnitKind.HUB:
            return np.array([table.index[s] for s in unit.shardings])
        strategies = unit.strategies[link.value.node]
        return np.array([table.index[s.outputs[link.value.output]] for s in strategies])

    def _read(self, link: Link, table: HopTable) -> Ints:
        unit = self._units[link.head]
        if link.port == WHOLE:
            return np.array([table.index[(-1,) * self.mesh.num_axes]])
        if link.port in (HUB_PORT, CLUSTER_OPERAND):
            return np.array([table.index[s] for s in unit.shardings])
        strategies = next(iter(unit.strategies.values()))
        if link.port >= 0:
            return np.array([table.index[s.operands[link.port]] for s in strategies])
        return np.array([table.index[s.outputs[0]] for s in strategies])

    def _values_with_maxima(self, units: Sequence[Unit | None]) -> frozenset[Value]:
        """Values that some strategy makes or reads as a pending maximum.

        Readers are those of the links: a node that stands for others reads one value itself, and
        those it stands for may read another, such as what the last layer made.
        """
        found: set[Value] = set()
        for unit in units:
            for node, strategies in unit.strategies.items() if unit is not None else ():
                if self._has_maxima(strategies):
                    outputs = range(len(self.program.nodes[node].outputs))
                    made = [
                        k for k in outputs if any(PARTIAL_MAX in s.outputs[k] for s in strategies)
                    ]
                    found.update(Value(node, output) for output in made)
        for link in self.skeleton.links:
            head = units[link.head]
            if head is not None and link.port >= 0:
                ((node, strategies),) = head.strategies.items()
                if self._has_maxima(strategies):
                    reads = (strategy.operands[link.port] for strategy in strategies)
                    if any(PARTIAL_MAX in sharding for sharding in reads):
                        found.add(link.value)
        return frozenset(found)

    def _has_maxima(self, strategies: tuple[Strategy, ...]) -> bool:
        """True if some strategy has a pending maximum; nodes that share theirs are asked once."""
        if id(strategies) not in self._maximal:
            has = any(
                PARTIAL_MAX in sharding
                for strategy in strategies
                for sharding in (*strategy.outputs, *strategy.operands)
            )
            self._maximal[id(strategies)] = (strategies, has)  # kept, so that no other has its id
        return self._maximal[id(strategies)][1]

    def _parts(self, sharding: Sharding) -> int:
        parts = 1
        for axis, placement in enumerate(sharding):
            if placement >= 0:
                parts *= self.mesh.shape[axis]
        return parts
