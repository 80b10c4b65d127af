"""The planning problem: units that choose a state, and edges that charge for disagreement.

A *unit* is a node of the folded program, a cluster of update nodes that share one sharding,
or a *hub*: one extra version of a tensor that several readers of one phase share. Its states
are strategies. An *edge* joins a producer to a reader; if they want a tensor in different
shardings it costs the cheapest way between the two. The objective is the sum of all, each
multiplied by how often the folded part occurs.

Bytes of a state are those that live through the peak between forward and backward pass:
parameters, buffers and optimizer state, activations kept for the backward pass, gradients
waiting for the optimizer. What is transient is added by the simulator, not here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weft.parallel.placement import PARTIAL_MAX, Mesh, Sharding, divides, is_partial
from weft.parallel.plan import Strategy
from weft.parallel.reshard import Floats, HopTable, Ints, Resharding
from weft.parallel.strategies import StrategyTable
from weft.program.fold import Folding
from weft.program.graph import Phase, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["Edge", "Hub", "Problem", "Unit", "build_problem"]


@dataclass(frozen=True)
class Hub:
    """A shared version of `value` for the readers of `phase`."""

    value: Value
    phase: Phase


@dataclass(frozen=True)
class Unit:
    """Something that chooses one of its states.

    Attributes:
        label: for people.
        strategies: for each program node that the unit decides, its strategy in each state.
        seconds: cost of each state, all occurrences together [s].
        num_bytes: memory of each state on one device, all occurrences together [bytes].
        hub: what the unit stands for, if it is a hub.
        shardings: of a hub, the sharding in each state.
    """

    label: str
    strategies: dict[int, tuple[Strategy, ...]]
    seconds: Floats
    num_bytes: Floats
    hub: Hub | None = None
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


@dataclass(frozen=True)
class Problem:
    """Units and edges of one program on one mesh."""

    program: Program
    mesh: Mesh
    folding: Folding
    units: tuple[Unit, ...]
    edges: tuple[Edge, ...]

    def objective(self, states: Sequence[int] | Ints) -> float:
        """Cost of a choice of states [s]."""
        total = sum(float(unit.seconds[s]) for unit, s in zip(self.units, states, strict=True))
        for edge in self.edges:
            here, there = edge.made[states[edge.tail]], edge.read[states[edge.head]]
            total += edge.count * float(edge.table.distance[here, there])
        return total

    def num_bytes(self, states: Sequence[int] | Ints) -> float:
        """Memory of a choice of states on one device [bytes]."""
        return sum(float(u.num_bytes[s]) for u, s in zip(self.units, states, strict=True))


def build_problem(
    program: Program, folding: Folding, mesh: Mesh, table: StrategyTable, resharding: Resharding
) -> Problem:
    """The problem of splitting a program over a mesh.

    Raises:
        RuleError: an operator has no sharding rule.
    """
    builder = _Builder(program, folding, mesh, table, resharding)
    builder.add_units()
    builder.add_edges()
    return Problem(program, mesh, folding, tuple(builder.units), tuple(builder.edges))


@dataclass(frozen=True)
class _Reader:
    """Somebody who reads a value: a unit and, for each of its states, the sharding it wants."""

    unit: int
    port: int
    """Operand position for a node, -1 for all full-sized operands of a cluster, -2 for the
    next value of an input, -3 for the loss."""


class _Builder:
    """Accumulates units and edges; lives only inside `build_problem`."""

    def __init__(
        self,
        program: Program,
        folding: Folding,
        mesh: Mesh,
        table: StrategyTable,
        resharding: Resharding,
    ) -> None:
        self.program = program
        self.folding = folding
        self.mesh = mesh
        self.table = table
        self.resharding = resharding
        self.units: list[Unit] = []
        self.edges: list[Edge] = []
        self.unit_of: dict[int, int] = {}
        self.cluster_shape: dict[int, tuple[int, ...]] = {}
        self.kept = _kept_values(program)
        self.maxima: frozenset[Value] = frozenset()

    # --- units ---------------------------------------------------------------------------

    def add_units(self) -> None:
        clusters = update_clusters(self.program, self.folding)
        clustered = {node: root for root, nodes in clusters.items() for node in nodes}
        for node, representative in enumerate(self.folding.representative):
            if node != representative or node in self.unit_of:
                continue
            if node in clustered:
                self._add_cluster(clusters[clustered[node]])
            else:
                self._add_node(node)
        self.maxima = self._values_with_maxima()
        everywhere = np.zeros(1)
        self.sink = len(self.units)
        self.units.append(Unit("loss", {}, everywhere, everywhere))

    def _add_node(self, node: int) -> None:
        choices = self.table.choices(node)
        times = self.folding.multiplicity[node]
        self.unit_of[node] = len(self.units)
        self.units.append(
            Unit(
                f"{self.program.nodes[node].op} %{node}",
                {node: choices.strategies},
                choices.seconds * times,
                self._resident_bytes(node, choices.strategies) * times,
            )
        )

    def _add_cluster(self, nodes: Sequence[int]) -> None:
        shape = self.program.nodes[nodes[0]].outputs[0].shape
        shardings = [
            s for s in self.resharding.table(self.program.nodes[nodes[0]].outputs[0]).states
            if not any(is_partial(p) for p in s) and divides(self.mesh, s, shape)
        ]  # fmt: skip
        times = self.folding.multiplicity[nodes[0]]
        strategies: dict[int, tuple[Strategy, ...]] = {}
        seconds = np.zeros(len(shardings))
        for node in nodes:
            mine = tuple(self._cluster_strategy(node, shape, s) for s in shardings)
            strategies[node] = mine
            choices = self.table.choices(node)
            cost = dict(zip(choices.strategies, choices.seconds, strict=True))
            seconds += [cost[strategy] for strategy in mine]
            self.unit_of[node] = len(self.units)
            self.cluster_shape[node] = shape
        num_bytes = self._gradient_bytes(nodes, shape, shardings)
        label = f"update {self.program.nodes[nodes[0]].scope}"
        self.units.append(Unit(label, strategies, seconds * times, num_bytes * times))

    def _cluster_strategy(self, node: int, shape: tuple[int, ...], sharding: Sharding) -> Strategy:
        whole = (-1,) * self.mesh.num_axes
        this = self.program.nodes[node]
        return Strategy(
            outputs=tuple(sharding if t.shape == shape else whole for t in this.outputs),
            operands=tuple(
                sharding if self.program.type_of(v).shape == shape else whole
                for v in self.program.operands(node)
            ),
        )

    def _resident_bytes(self, node: int, strategies: tuple[Strategy, ...]) -> Floats:
        """Bytes of parameters, buffers and optimizer state, for each strategy."""
        source = self.program.input_by_node.get(node)
        if source is None or not source.role.is_persistent:
            return np.zeros(len(strategies))
        full = self.program.nodes[node].outputs[0].num_bytes
        return np.array([full / _parts(self.mesh, s.outputs[0]) for s in strategies])

    def _gradient_bytes(
        self, nodes: Sequence[int], shape: tuple[int, ...], shardings: Sequence[Sharding]
    ) -> Floats:
        gradients = {
            value
            for node in nodes
            for value in self.program.operands(node)
            if self.program.nodes[value.node].phase is Phase.BACKWARD
            and self.program.type_of(value).shape == shape
        }
        full = sum(self.program.type_of(value).num_bytes for value in gradients)
        return np.array([full / _parts(self.mesh, s) for s in shardings])

    # --- edges ---------------------------------------------------------------------------

    def add_edges(self) -> None:
        reads, most = self._reads()
        for value in dict.fromkeys(value for value, _ in reads):
            tail = self.unit_of[value.node]
            made = self._made(tail, value)
            for phase in Phase:
                readers = reads.get((value, phase))
                if readers is None:
                    continue
                start, at = tail, made
                if most[value, phase] > 1 or self._bridges(value, phase, reads):
                    start, at = self._add_hub(Hub(value, phase), tail, made)
                    if value.node not in self.program.input_by_node:
                        tail, made = start, at
                for reader, count in readers.items():
                    self._add_edge(value, start, at, reader, count)

    def _bridges(
        self, value: Value, phase: Phase, reads: dict[tuple[Value, Phase], dict[_Reader, int]]
    ) -> bool:
        """True for a forward value that the backward pass reads too.

        Its version in the forward pass and the version kept between the passes are hubs, so
        that what one reduction or all-to-all made is there for both, in the cheapest layout.
        """
        made_forward = self.program.nodes[value.node].phase is Phase.FORWARD
        both = (value, Phase.BACKWARD) in reads and value.node not in self.program.input_by_node
        return made_forward and both and phase is not Phase.UPDATE

    def _reads(
        self,
    ) -> tuple[dict[tuple[Value, Phase], dict[_Reader, int]], dict[tuple[Value, Phase], int]]:
        """Readers of each folded value by phase with their number, and the most of one value."""
        representative = self.folding.representative
        reads: dict[tuple[Value, Phase], dict[_Reader, int]] = defaultdict(dict)
        single: dict[tuple[Value, Phase], set[_Reader]] = defaultdict(set)
        for value, phase, reader in self._all_reads():
            folded = (Value(representative[value.node], value.output), phase)
            before = single[value, phase]
            if reader in before:
                continue
            before.add(reader)
            reads[folded][reader] = reads[folded].get(reader, 0) + 1
        most: dict[tuple[Value, Phase], int] = defaultdict(int)
        for (value, phase), readers in single.items():
            folded = (Value(representative[value.node], value.output), phase)
            most[folded] = max(most[folded], len(readers))
        return reads, most

    def _all_reads(self) -> Iterable[tuple[Value, Phase, _Reader]]:
        program, representative = self.program, self.folding.representative
        for node, this in enumerate(program.nodes):
            folded = representative[node]
            unit, shape = self.unit_of[folded], self.cluster_shape.get(folded)
            for port, value in enumerate(program.operands(node)):
                if shape is None:
                    yield value, this.phase, _Reader(unit, port)
                elif self.unit_of[representative[value.node]] != unit:
                    if program.type_of(value).shape == shape:
                        yield value, this.phase, _Reader(unit, -1)
                    else:
                        yield value, this.phase, _Reader(self.sink, -3)
        for node, value in program.updates:
            unit = self.unit_of[representative[node]]
            if self.unit_of[representative[value.node]] != unit:
                yield value, Phase.UPDATE, _Reader(unit, -2)
        yield program.loss, Phase.FORWARD, _Reader(self.sink, -3)

    def _add_hub(self, hub: Hub, tail: int, made: Ints) -> tuple[int, Ints]:
        table = self._table(hub.value)
        times = self.folding.multiplicity[hub.value.node]
        num_bytes = np.zeros(len(table.states))
        if hub.phase is Phase.BACKWARD and hub.value in self.kept:
            full = self.program.type_of(hub.value).num_bytes * times
            num_bytes += [full / _parts(self.mesh, state) for state in table.states]
        number, states = len(self.units), np.arange(len(table.states))
        label = f"hub {hub.value} {hub.phase.value}"
        self.units.append(Unit(label, {}, np.zeros(len(states)), num_bytes, hub, table.states))
        self.edges.append(Edge(tail, number, made, states, table, times))
        return number, states

    def _add_edge(self, value: Value, tail: int, made: Ints, reader: _Reader, count: int) -> None:
        table = self._table(value)
        read = self._read(reader, table)
        if len(made) == 1 and len(read) == 1 and made[0] == read[0]:
            return
        self.edges.append(Edge(tail, reader.unit, made, read, table, count))

    def _table(self, value: Value) -> HopTable:
        maximum = value in self.maxima
        return self.resharding.table(self.program.type_of(value), maximum=maximum)

    def _values_with_maxima(self) -> frozenset[Value]:
        """Values that some strategy makes or reads as a pending maximum."""
        found: set[Value] = set()
        for unit in self.units:
            for node, strategies in unit.strategies.items():
                operands = self.program.operands(node)
                for strategy in strategies:
                    for output, sharding in enumerate(strategy.outputs):
                        if PARTIAL_MAX in sharding:
                            found.add(Value(node, output))
                    for value, sharding in zip(operands, strategy.operands, strict=True):
                        if PARTIAL_MAX in sharding:
                            representative = self.folding.representative[value.node]
                            found.add(Value(representative, value.output))
        return frozenset(found)

    def _made(self, unit: int, value: Value) -> Ints:
        index = self._table(value).index
        strategies = self.units[unit].strategies[value.node]
        return np.array([index[s.outputs[value.output]] for s in strategies])

    def _read(self, reader: _Reader, table: HopTable) -> Ints:
        unit = self.units[reader.unit]
        if reader.port == -3:
            return np.array([table.index[(-1,) * self.mesh.num_axes]])
        node, strategies = next(iter(unit.strategies.items()))
        if reader.port >= 0:
            return np.array([table.index[s.operands[reader.port]] for s in strategies])
        if reader.port == -1:
            node = next(n for n in unit.strategies if n in self.cluster_shape)
            strategies = unit.strategies[node]
        return np.array([table.index[s.outputs[0]] for s in strategies])


def update_clusters(program: Program, folding: Folding) -> dict[int, list[int]]:
    """Update nodes that may as well share a sharding: joined element-wise operators of one shape.

    Moving such a chain's tensors half-way through it costs at least as much as before it.
    """
    root: dict[int, int] = {}

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for node, this in enumerate(program.nodes):
        if folding.representative[node] != node or not _clusters(program, node):
            continue
        root[node] = node
        for value in program.operands(node):
            same = program.type_of(value).shape == this.outputs[0].shape
            if same and value.node in root:
                root[find(value.node)] = find(node)
    clusters: dict[int, list[int]] = defaultdict(list)
    for node in root:
        clusters[find(node)].append(node)
    # Two branches of one parameter's update that only meet in its gradient belong together.
    return dict(clusters)


def _clusters(program: Program, node: int) -> bool:
    this = program.nodes[node]
    if this.phase is not Phase.UPDATE or operator(this.op).kind is not Kind.POINTWISE:
        return False
    shape = this.outputs[0].shape
    sizes = [program.type_of(value) for value in program.operands(node)]
    whole = all(t.shape == shape or t.num_elements == 1 for t in sizes)
    return whole and this.outputs[0].num_elements > 1 and any(t.shape == shape for t in sizes)


def _kept_values(program: Program) -> frozenset[Value]:
    """Forward values kept for the backward pass; of several views of one tensor, one."""
    kept: dict[Value, Value] = {}
    for node, this in enumerate(program.nodes):
        if this.phase is not Phase.BACKWARD:
            continue
        for value in program.operands(node):
            owner = _owner(program, value)
            source = program.nodes[owner.node]
            if source.phase is Phase.FORWARD and owner.node not in program.input_by_node:
                kept[owner] = owner if value == owner else kept.get(owner, value)
    return frozenset(kept.values())


def _owner(program: Program, value: Value) -> Value:
    while operator(program.nodes[value.node].op).kind is Kind.VIEW:
        value = program.operands(value.node)[0]
    return value


def _parts(mesh: Mesh, sharding: Sharding) -> int:
    parts = 1
    for axis, placement in enumerate(sharding):
        if placement >= 0:
            parts *= mesh.shape[axis]
    return parts
