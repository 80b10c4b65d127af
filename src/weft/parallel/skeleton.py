"""The part of a planning problem that no mesh changes: who decides together, who reads what.

A *unit* is what chooses one state: a node of the folded program, a cluster of update nodes
that share one sharding, a *hub*, or the sink that wants the loss whole. A hub is a further
version of a tensor: one for the readers of a phase if they are several or the tensor is pinned,
and one for what the backward pass starts from. A *link* is a value that flows from one unit to
another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from weft.cost.fusion import Paid, program_traffic
from weft.parallel.bundle import SMALL_BYTES
from weft.parallel.loop import Loop, varying_nodes
from weft.parallel.pinning import Pinning, resolve
from weft.parallel.rules import RuleBook
from weft.parallel.weights import weight_values
from weft.program.fold import Folding
from weft.program.graph import Phase, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["BUSY", "Link", "Skeleton", "UnitKind", "UnitSpec", "build_skeleton"]


class UnitKind(Enum):
    """What decides."""

    NODE = "node"
    CLUSTER = "cluster"
    HUB = "hub"
    SINK = "sink"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """Something that chooses one of its states.

    Attributes:
        kind: what it is.
        nodes: program nodes that it decides; none for hubs and the sink.
        times: how often it occurs in the program.
        runs: how often a step runs it, all occurrences and micro-batches together.
        held: how many of its results are held at once, all occurrences together.
        value, phase: of a hub, the value it is a version of and the phase it serves.
        keeps: of a hub, whether its version stays on the device through the peak.
        first: of a hub, whether its version is made of the value as computed.
        stays: of a hub, whether it is the version of a weight that all micro-batches read.
    """

    kind: UnitKind
    nodes: tuple[int, ...] = ()
    times: int = 1
    runs: int = 1
    held: int = 1
    value: Value | None = None
    phase: Phase = Phase.FORWARD
    keeps: bool = False
    first: bool = False
    stays: bool = False


OPERAND, CLUSTER_OPERAND, NEXT_VALUE, WHOLE = 0, -1, -2, -3
"""Ports from 0 are operand positions; the others say what a head wants of the value: the
cluster's own sharding, the sharding of the input it is the next value of, or all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A value that flows from unit `tail` to unit `head`, `count` times a step.

    `hideable` says that nothing waits for it at once and there is work to hide it: a weight can be
    gathered ahead of its reader, a gradient reduced behind its maker. The weights of the first
    work of a step and the gradients of its last, such as those of an embedding, cannot.
    """

    value: Value
    tail: int
    head: int
    port: int
    count: int
    hideable: bool = False


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Units and links of a folded program."""

    program: Program
    folding: Folding
    units: tuple[UnitSpec, ...]
    links: tuple[Link, ...]
    pinning: Pinning = field(default_factory=Pinning)

    @cached_property
    def traffic(self) -> tuple[Paid, ...]:
        """What each node pays for on a device that fuses."""
        return program_traffic(self.program)

    @cached_property
    def book(self) -> RuleBook:
        """Rules of all nodes."""
        return RuleBook(self.program)

    @cached_property
    def small_bytes(self) -> float:
        """Small tensors that move without anybody waiting, once each: what messages are made of."""
        sizes = {link.value: self.program.type_of(link.value).num_bytes for link in self._hideable}
        counts = {link.value: link.count for link in self._hideable}
        return float(sum(n * counts[v] for v, n in sizes.items() if n <= SMALL_BYTES))

    @property
    def _hideable(self) -> list[Link]:
        return [link for link in self.links if link.hideable]


HUB_PORT = -4
"""A hub takes a value in any of its states."""


def build_skeleton(
    program: Program,
    folding: Folding,
    pinning: Pinning | None = None,
    loop: Loop | None = None,
) -> Skeleton:
    """Units and links of a program.

    Args:
        program: of a step, or of one micro-batch.
        folding: of the program; what is pinned differently is not folded.
        pinning: what is pinned; if not given, the program's own pins.
        loop: how often a step runs the program of one micro-batch. What repeats then counts as
            often, and each weight has a version that is made once a step.
    """
    pinning = resolve(program) if pinning is None else pinning
    builder = _Builder(program, folding, frozenset(pinning.values), loop)
    builder.add_units()
    builder.add_links()
    return Skeleton(
        program=program,
        folding=folding,
        units=tuple(builder.units),
        links=tuple(builder.links),
        pinning=pinning,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    unit: int
    port: int


_Reads = dict[tuple[Value, Phase], dict[_Reader, int]]


class _Builder:
    """Accumulates units and links; lives only inside `build_skeleton`."""

    def __init__(
        self, program: Program, folding: Folding, pinned: frozenset[Value], loop: Loop | None
    ) -> None:
        self.program = program
        self.folding = folding
        self.pinned = pinned
        self.loop = loop
        self.varies = [False] * len(program.nodes) if loop is None else varying_nodes(program)
        self.units: list[UnitSpec] = []
        self.links: list[Link] = []
        self.unit_of: dict[int, int] = {}
        self.cluster_shape: dict[int, tuple[int, ...]] = {}
        self.hideable = False
        self.weights = weight_values(program)
        self.busy = _busy_nodes(program)

    def add_units(self) -> None:
        clusters = _update_clusters(self.program, self.folding)
        home = {node: nodes for nodes in clusters for node in nodes}
        for node, representative in enumerate(self.folding.representative):
            if node != representative or node in self.unit_of:
                continue
            nodes = home.get(node, (node,))
            kind = UnitKind.CLUSTER if node in home else UnitKind.NODE
            for member in nodes:
                self.unit_of[member] = len(self.units)
                if kind is UnitKind.CLUSTER:
                    self.cluster_shape[member] = self.program.nodes[member].outputs[0].shape
            times = self.folding.multiplicity[node]
            runs = times * self._rounds(node)
            self.units.append(UnitSpec(kind=kind, nodes=nodes, times=times, runs=runs, held=times))
        self.sink = len(self.units)
        self.units.append(UnitSpec(kind=UnitKind.SINK))

    def _rounds(self, node: int) -> int:
        """How often a step runs a node of the program."""
        repeats = self.varies[node] or self.program.nodes[node].op == "accumulate"
        return self.loop.times if self.loop is not None and repeats else 1

    def add_links(self) -> None:
        reads, most = self._reads()
        kept = _kept_values(self.program)
        for value in dict.fromkeys(value for value, _ in reads):
            tail = self.unit_of[value.node]
            if self._stays(value, reads):
                self._add_version(value, tail, reads)
                continue
            for phase in Phase:
                readers = reads.get((value, phase))
                if readers is None:
                    continue
                self.hideable = self._can_hide(value, phase, readers)
                start = tail
                first = tail == self.unit_of[value.node]
                shared = most[value, phase] > 1 or self._bridges(value, phase, reads)
                if shared or (first and self._is_pinned(value)):
                    keeps = phase is Phase.BACKWARD and value in kept
                    start = self._add_hub(value, phase, tail, keeps=keeps, first=first)
                    if value.node not in self.program.input_by_node:
                        tail = start
                for reader, count in readers.items():
                    self._link(value, start, reader.unit, reader.port, count * self._flows(value))

    def _flows(self, value: Value) -> int:
        """How often a step moves a value."""
        return self.loop.times if self.loop is not None and self.varies[value.node] else 1

    def _stays(self, value: Value, reads: _Reads) -> bool:
        """True for a weight that micro-batches read: a version of it is made once a step."""
        return value in self.weights and any(
            self._repeats(reader)
            for phase in (Phase.FORWARD, Phase.BACKWARD)
            for reader in reads.get((value, phase), ())
        )

    def _repeats(self, reader: _Reader) -> bool:
        spec = self.units[reader.unit]
        return self.loop is not None and spec.runs > spec.times

    def _add_version(self, value: Value, tail: int, reads: _Reads) -> None:
        """Readers in the loop start from the version that is made once and held all the time."""
        assert self.loop is not None
        self.hideable = False
        version = self._add_hub(value, Phase.FORWARD, tail, keeps=True, stays=True)
        for phase in Phase:
            readers = reads.get((value, phase), {})
            self.hideable = self._can_hide(value, phase, readers)
            for reader, count in readers.items():
                repeats = self._repeats(reader)
                start, rounds = (version, self.loop.times) if repeats else (tail, 1)
                self._link(value, start, reader.unit, reader.port, count * rounds)

    def _can_hide(self, value: Value, phase: Phase, readers: Iterable[_Reader]) -> bool:
        """Whether there is work beside a movement of the value for the readers of a phase."""
        made = self.program.nodes[value.node].phase
        if phase is Phase.UPDATE:
            # After the last micro-batch nothing is left to hide behind.
            return self.loop is None and made is Phase.BACKWARD and value.node < self.busy.stop
        nodes = [node for reader in readers for node in self.units[reader.unit].nodes]
        if made is Phase.BACKWARD and all(self.program.nodes[n].op == "accumulate" for n in nodes):
            return value.node < self.busy.stop
        first = min(nodes, default=len(self.program.nodes))
        return value in self.weights and first > self.busy.start

    def _is_pinned(self, value: Value) -> bool:
        """True for a pinned value that is computed: an input lies as it is stored."""
        return value in self.pinned and value.node not in self.program.input_by_node

    def _add_hub(
        self,
        value: Value,
        phase: Phase,
        tail: int,
        *,
        keeps: bool,
        first: bool = False,
        stays: bool = False,
    ) -> int:
        computed = value.node not in self.program.input_by_node
        times = self.folding.multiplicity[value.node]
        flows = self._flows(value)
        number = len(self.units)
        self.units.append(
            UnitSpec(
                kind=UnitKind.HUB,
                times=times,
                runs=times * flows,
                held=times * (self.loop.held if self.loop is not None and flows > 1 else 1),
                value=value,
                phase=phase,
                keeps=keeps,
                first=first and computed,
                stays=stays,
            )
        )
        self._link(value, tail, number, HUB_PORT, times * flows)
        return number

    def _link(self, value: Value, tail: int, head: int, port: int, count: int) -> None:
        self.links.append(
            Link(
                value=value,
                tail=tail,
                head=head,
                port=port,
                count=count,
                hideable=self.hideable,
            )
        )

    def _bridges(self, value: Value, phase: Phase, reads: _Reads) -> bool:
        """True for a forward value that the backward pass reads too.

        Its version in the forward pass and the version kept between the passes are hubs, so
        that what one reduction or all-to-all made is there for both, in the cheapest layout.
        """
        made_forward = self.program.nodes[value.node].phase is Phase.FORWARD
        both = (value, Phase.BACKWARD) in reads and value.node not in self.program.input_by_node
        return made_forward and both and phase is not Phase.UPDATE

    def _reads(self) -> tuple[_Reads, dict[tuple[Value, Phase], int]]:
        """Readers of each folded value by phase with their number, and the most of one value."""
        representative = self.folding.representative
        reads: _Reads = defaultdict(dict)
        single: dict[tuple[Value, Phase], set[_Reader]] = defaultdict(set)
        for value, phase, reader in self._all_reads():
            before = single[value, phase]
            if reader in before:
                continue
            before.add(reader)
            readers = reads[Value(representative[value.node], value.output), phase]
            readers[reader] = readers.get(reader, 0) + 1
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
                        yield value, this.phase, _Reader(unit, CLUSTER_OPERAND)
                    else:
                        yield value, this.phase, _Reader(self.sink, WHOLE)
        for node, value in program.updates:
            unit = self.unit_of[representative[node]]
            if self.unit_of[representative[value.node]] != unit:
                yield value, Phase.UPDATE, _Reader(unit, NEXT_VALUE)
        yield program.loss, Phase.FORWARD, _Reader(self.sink, WHOLE)


def _update_clusters(program: Program, folding: Folding) -> list[tuple[int, ...]]:
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
        if folding.representative[node] != node or not _can_cluster(program, node):
            continue
        root[node] = node
        for value in program.operands(node):
            same = program.type_of(value).shape == this.outputs[0].shape
            if same and value.node in root:
                root[find(value.node)] = find(node)
    clusters: dict[int, list[int]] = defaultdict(list)
    for node in root:
        clusters[find(node)].append(node)
    return [tuple(nodes) for nodes in clusters.values()]


def _can_cluster(program: Program, node: int) -> bool:
    this = program.nodes[node]
    if this.phase is not Phase.UPDATE or operator(this.op).kind is not Kind.POINTWISE:
        return False
    shape = this.outputs[0].shape
    operands = [program.type_of(value) for value in program.operands(node)]
    whole = all(t.shape == shape or t.num_elements == 1 for t in operands)
    return whole and this.outputs[0].num_elements > 1 and any(t.shape == shape for t in operands)


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


def _busy_nodes(program: Program) -> range:
    """From the first node of the forward and backward passes that takes long to the last."""
    busy = [
        number
        for number, node in enumerate(program.nodes)
        if operator(node.op).kind in BUSY and node.phase is not Phase.UPDATE
    ]
    return range(busy[0], busy[-1]) if busy else range(0)


BUSY = (Kind.CONTRACT, Kind.ATTENTION, Kind.CONVOLUTION)
"""What hides communication: kinds whose arithmetic grows faster than the tensors."""


def _owner(program: Program, value: Value) -> Value:
    while operator(program.nodes[value.node].op).kind is Kind.VIEW:
        value = program.operands(value.node)[0]
    return value
