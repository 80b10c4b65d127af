"""Runs of layers that all compute the same rows: what lies between them is whole as well.

A layer that computes all rows along a mesh axis (`weft.parallel.wide`) gathers what it reads, and
the gradient of what it makes. Where the next one does so too nothing has to move between them: rows
are gathered where a run begins, gradients where it ends. So a node is whole that stands between two
layers that are, with no other layer on the way from the first or to the second. It is whole as well
on the way from one that is to one that reads all rows anyway, because its weight is cut so; from a
cut table, whose lookups are not in rows to begin with; and behind the last layer of a run on the
way back, whose product is the only one in rows.

Which layers come before and after each node is found once, forward and backward; what lies between
those that somebody chooses is then a matter of sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from weft.machine.model import Machine
from weft.parallel.placement import Mesh
from weft.parallel.weights import parameters_led_to, weight_origins
from weft.parallel.wide import Layer, Way, Ways, lookups_of
from weft.program.graph import Phase, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["NOWHERE", "Between", "Runs", "Wholes"]

_PRODUCTS = (Kind.CONTRACT, Kind.CONVOLUTION)


@dataclass(frozen=True, slots=True)
class Between:
    """Sets of layers, by bits: those right before a node, and those right after it."""

    before: int
    after: int


NOWHERE = Between(0, 0)
"""Among no layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wholes:
    """Sets of layers, by bits, along one mesh axis.

    Attributes:
        rows: those that compute all rows, but for the last of a run.
        last: the last of runs.
        columns, summands: those whose weights are cut so.
        tables: those that look something up.
    """

    rows: int
    last: int
    columns: int
    summands: int
    tables: int

    @property
    def forward(self) -> int:
        """Those that read all rows in the forward pass."""
        return self.rows | self.last | self.columns

    @property
    def backward(self) -> int:
        """Those that read all rows of gradients."""
        return self.rows | self.last | self.summands

    def has(self, place: Between) -> bool:
        """True if what stands there in the forward pass is whole."""
        if place.before & self.rows:
            return bool(place.after & self.forward)
        return bool(place.after & self.rows) and self._is_looked_up(place.before)

    def has_back(self, place: Between) -> bool:
        """True if what stands there in the backward pass is whole."""
        if place.before & self.rows:
            return bool(place.after & self.backward) or self._is_looked_up(place.after)
        return bool(place.before & self.last and place.after & self.rows)

    def _is_looked_up(self, layers: int) -> bool:
        """True of nothing but tables, one of which makes no rows that could be kept."""
        return bool(layers & (self.columns | self.summands)) and not layers & ~self.tables


class Runs:
    """The layers of a program, and what lies between them.

    Args:
        program: one training step.
        found: its layers, by the node of their weights.

    Attributes:
        known: what is cheapest for them, by machine and mesh (`weft.parallel.way_prices`).
    """

    def __init__(self, program: Program, found: Mapping[int, Layer]) -> None:
        self.program = program
        self.layers = found
        self.known: dict[tuple[int, Mesh], tuple[Machine, dict[int, Ways]]] = {}
        self._bits = {node: 1 << number for number, node in enumerate(found)}
        self._read_by = self._products(Phase.FORWARD)
        self._read_by |= {
            number: self._bits[parameter]
            for number, parameter in lookups_of(program)
            if parameter in self._bits
        }

    @cached_property
    def _origins(self) -> Mapping[Value, int]:
        return weight_origins(self.program)

    @cached_property
    def _tables(self) -> int:
        nodes = self.program.nodes
        return self.bits(n for n, own in self.layers.items() if "embedding" in nodes[own.reader].op)

    def bits(self, parameters: Iterable[int]) -> int:
        """The set of some layers.

        Args:
            parameters: nodes of their weights.
        """
        return _union(self._bits[node] for node in parameters)

    def wholes(self, ways: Mapping[int, Way]) -> Wholes:
        """The sets of layers along an axis.

        Args:
            ways: what they do there, by the node of their weights.
        """
        sets = dict.fromkeys(Way, 0)
        for node, way in ways.items():
            sets[way] |= self._bits[node]
        return Wholes(
            rows=sets[Way.WHOLE],
            last=sets[Way.LAST],
            columns=sets[Way.COLUMNS],
            summands=sets[Way.SUMMANDS],
            tables=self._tables,
        )

    @cached_property
    def forward(self) -> Mapping[int, Between]:
        """Nodes of the forward pass that stand between layers."""
        return self._between(Phase.FORWARD, self._read_by)

    @cached_property
    def backward(self) -> Mapping[int, Between]:
        """Nodes of the backward pass that stand between layers; before is what comes later."""
        return self._between(Phase.BACKWARD, self._led_back, self._gradients)

    @cached_property
    def read(self) -> Mapping[int, Between]:
        """What each layer reads, by the node of its weight."""
        return {node: self._read(layer) for node, layer in self.layers.items()}

    @cached_property
    def made(self) -> Mapping[int, frozenset[Between]]:
        """All that what each layer makes becomes part of before other layers, by its weight."""
        found: dict[int, set[Between]] = {node: set() for node in self.layers}
        for node, layer in self.layers.items():
            found[node].add(Between(self._bits[node], self._after(layer.reader)))
        for place in set(self.forward.values()):
            for node, bit in self._bits.items():
                if place.before & bit:
                    found[node].add(place)
        return {node: frozenset(places) for node, places in found.items()}

    @cached_property
    def pairs(self) -> Mapping[int, Between]:
        """The layers, by weight, that nothing but element-wise work lies between; 0 for none.

        Columns that the first makes may be summands of the second without any movement.
        """
        by_bit = {bit: node for node, bit in self._bits.items()}
        between: dict[Between, bool] = {}
        for number, place in self.forward.items():
            plain = operator(self.program.nodes[number].op).kind is Kind.POINTWISE
            between[place] = between.get(place, True) and plain
        found: dict[int, Between] = {}
        for place, plain in between.items():
            first, second = by_bit.get(place.before), by_bit.get(place.after)
            if not plain or first is None or second is None:
                continue
            if len(self.made[first]) == 1 and self.read[second] == place:
                found[first] = Between(found.get(first, NOWHERE).before, place.after)
                found[second] = Between(place.before, found.get(second, NOWHERE).after)
        return found

    def whole(self, chosen: Wholes) -> frozenset[int]:
        """Nodes that are whole between layers.

        Args:
            chosen: what layers do along an axis.
        """
        forward = [node for node, place in self.forward.items() if chosen.has(place)]
        backward = [node for node, place in self.backward.items() if chosen.has_back(place)]
        products = [
            number
            for number, bit in self._led_back.items()
            if bit & chosen.rows and chosen.has_back(Between(bit, self._after_back[number]))
        ]
        return frozenset((*forward, *backward, *products))

    def led_back(self, parameters: Iterable[int]) -> frozenset[int]:
        """Products that lead gradients back through layers.

        Args:
            parameters: nodes of their weights.
        """
        chosen = self.bits(parameters)
        return frozenset(number for number, bit in self._led_back.items() if bit & chosen)

    def parameters(self, chosen: Wholes) -> frozenset[int]:
        """Parameters of what is whole in the forward pass, such as biases.

        Args:
            chosen: what layers do along an axis.
        """
        readers: dict[int, list[bool]] = {}
        origins = self._origins
        for number, node in enumerate(self.program.nodes):
            if node.phase is not Phase.FORWARD or Value(number) in origins:
                continue
            for value in self.program.operands(number):
                parameter = origins.get(value)
                if parameter is not None:
                    place = self.forward.get(number)
                    is_whole = place is not None and chosen.has(place)
                    readers.setdefault(parameter, []).append(is_whole)
        return frozenset(node for node, whole in readers.items() if all(whole))

    def _read(self, layer: Layer) -> Between:
        """Where the largest stands that a layer reads beside its weight."""
        program = self.program
        others = [v for v in program.operands(layer.reader) if v not in self._origins]
        if not others:
            return NOWHERE
        value = max(others, key=lambda own: program.type_of(own).num_bytes)
        return Between(self._left(value.node), self._after(value.node))

    def _left(self, number: int) -> int:
        """Layers right before what a node of the forward pass makes."""
        place = self.forward.get(number)
        return self._read_by.get(number, 0) or (0 if place is None else place.before)

    def _after(self, number: int) -> int:
        return _union(self._entered(reader) for reader, _ in self.program.users[number])

    def _entered(self, reader: int) -> int:
        if reader in self._read_by:
            return self._read_by[reader]
        place = self.forward.get(reader)
        return 0 if place is None else place.after

    def _products(self, phase: Phase) -> dict[int, int]:
        """Products of a phase that read weights of layers: whose."""
        origins, found = self._origins, dict[int, int]()
        for number, node in enumerate(self.program.nodes):
            if node.phase is phase and operator(node.op).kind in _PRODUCTS:
                read = [origins.get(value, -1) for value in self.program.operands(number)]
                bit = _union(self._bits.get(node, 0) for node in read)
                if bit:
                    found[number] = bit
        return found

    @cached_property
    def _led_back(self) -> dict[int, int]:
        """Products that lead gradients through layers: which."""
        return self._products(Phase.BACKWARD)

    @cached_property
    def _gradients(self) -> dict[int, int]:
        """What makes gradients of layers' weights: whose."""
        nodes, led_to = self.program.nodes, parameters_led_to(self.program)
        return {
            number: self._bits[parameter]
            for number, parameter in enumerate(led_to)
            if parameter in self._bits
            and number not in self._led_back
            and nodes[number].phase is Phase.BACKWARD
            and (operator(nodes[number].op).kind in _PRODUCTS or "embedding" in nodes[number].op)
        }

    @cached_property
    def _after_back(self) -> Mapping[int, int]:
        """Layers that what a product leads back is for."""
        ends = self._gradients | self._led_back
        return {
            number: _union(
                ends.get(reader, 0) or self._back_after(reader)
                for reader, _ in self.program.users[number]
            )
            for number in self._led_back
        }

    def _back_after(self, reader: int) -> int:
        place = self.backward.get(reader)
        return 0 if place is None else place.after

    def _between(
        self, phase: Phase, through: Mapping[int, int], ends: Mapping[int, int] | None = None
    ) -> dict[int, Between]:
        """The nodes of a phase that are neither, with what comes before and after."""
        program, entered = self.program, {**(ends or {}), **through}
        inside = [
            number
            for number, node in enumerate(program.nodes)
            if node.phase is phase and number not in entered
        ]
        before: dict[int, int] = {}
        for number in inside:
            reads = [value.node for value in program.operands(number)]
            before[number] = _union(through.get(n, 0) or before.get(n, 0) for n in reads)
            if not before[number] and phase is Phase.BACKWARD:
                # A mask or a view made of the forward pass alone lies as that does.
                before[number] = _union(map(self._left, reads))
        after: dict[int, int] = {}
        for number in reversed(inside):
            users = (reader for reader, _ in program.users[number])
            after[number] = _union(entered.get(n, 0) or after.get(n, 0) for n in users)
        return {
            number: Between(before[number], after[number])
            for number in inside
            if before[number] and after[number]
        }


def _union(sets: Iterable[int]) -> int:
    found = 0
    for bits in sets:
        found |= bits
    return found
