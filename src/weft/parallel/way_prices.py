"""What layers cost along mesh axes, by what they do there, and what is cheapest for them.

A layer pays for work beyond its share, for the sum of its gradient, and for all that moves because
what it reads, makes, and what comes back lies otherwise than the next layers have it: in rows, or
whole within a run of layers that compute all of them (`weft.parallel.runs`). So the price of a
layer depends on those around it, and what is cheapest is found by changing one kind of layers at a
time, or all that share out rows along an axis at once, for as long as that makes the sum smaller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import prod

from weft.cost.collective import collective_seconds
from weft.cost.fusion import Paid, program_traffic
from weft.cost.roofline import operator_seconds
from weft.machine.model import Machine
from weft.machine.topology import Group, axis_group
from weft.parallel.estimate import slowest_device
from weft.parallel.local import CollectiveKind
from weft.parallel.placement import Mesh
from weft.parallel.runs import NOWHERE, Between, Runs, Wholes
from weft.parallel.weights import parameters_led_to
from weft.parallel.wide import (
    ALL_ROWS,
    CUTS,
    Layer,
    Way,
    Ways,
    alike,
    other_operands,
    plain_ways,
    possible,
    shares_rows,
)
from weft.program.graph import Phase, Value

__all__ = ["ALONE", "MOST_KINDS", "Prices", "Side", "cheapest"]

MOST_KINDS = 12
"""Kinds of layers that are decided about together; others do what is cheapest for each alone.
Chosen: there are hardly more that matter."""
MOST_ROUNDS = 4
"""How often all kinds are looked at again. Chosen: the second time rarely changes anything."""
HOPELESS = 2.0
"""How much more runs over all layers may cost than what is cheapest for each alone, for a search to
begin with them. Chosen: those that turn out cheaper mostly are from the start."""

_ALL_REDUCE, _GATHER, _SCATTER, _TRADE = (
    CollectiveKind.ALL_REDUCE.value,
    CollectiveKind.ALL_GATHER.value,
    CollectiveKind.REDUCE_SCATTER.value,
    CollectiveKind.ALL_TO_ALL.value,
)
_MEBIBYTE = float(1 << 20)
_GATHERING = ALL_ROWS | {Way.COLUMNS}
"""Ways of layers that gather what they read."""


@dataclass(frozen=True, slots=True)
class Side:
    """What is whole along an axis around a layer, rather than in rows.

    Attributes:
        read: what it reads.
        returned: where the gradient of what it reads goes.
        made: what becomes of what it makes.
        arriving: gradients of what it makes.
        paired: columns of one layer are summands of the next, of which it is one.
        sharing: layers that gather the same together.
    """

    read: bool = False
    returned: bool = False
    made: bool = False
    arriving: bool = False
    paired: bool = False
    sharing: int = 1


ALONE = Side()
"""Among layers that share out rows."""


@dataclass(frozen=True)
class Prices:
    """What layers cost.

    Attributes:
        runs: layers of a training step.
        machine: where it runs.
        mesh: along whose axes they do what they do.
    """

    runs: Runs
    machine: Machine
    mesh: Mesh
    _known: dict[object, float] = field(
        default_factory=dict[object, float], repr=False, compare=False
    )
    _sets: list[Wholes] = field(default_factory=list[Wholes], repr=False, compare=False)
    _numbers: dict[Wholes, int] = field(
        default_factory=dict[Wholes, int], repr=False, compare=False
    )

    def total(self, chosen: Mapping[int, Ways]) -> float:
        """What all layers cost together [s].

        Args:
            chosen: what they do, by the node of their weights; others do `plain_ways`.
        """
        every = {node: chosen.get(node, self.plain) for node in self.runs.layers}
        wholes = tuple(
            self._numbered({node: ways[axis] for node, ways in every.items()})
            for axis in range(self.mesh.num_axes)
        )
        sharing = Counter(
            (self._reads[node], axis)
            for node, ways in every.items()
            for axis, way in enumerate(ways)
            if way in _GATHERING
        )
        total = 0.0
        for node, ways in every.items():
            shared = tuple(sharing.get((self._reads[node], k), 1) for k in range(len(ways)))
            key = (node, ways, wholes, shared)
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = self._among(node, ways, wholes, shared)
            total += found
        found = self._known.get(wholes)
        if found is None:
            found = self._known[wholes] = self._between_s([self._sets[n] for n in wholes])
        return total + found

    def _numbered(self, ways: Mapping[int, Way]) -> int:
        """The number of the sets of layers along an axis."""
        wholes = self.runs.wholes(ways)
        number = self._numbers.get(wholes)
        if number is None:
            number = self._numbers[wholes] = len(self._sets)
            self._sets.append(wholes)
        return number

    def _among(
        self, node: int, ways: Ways, wholes: tuple[int, ...], sharing: tuple[int, ...]
    ) -> float:
        """What a layer costs among others [s]."""
        sides = tuple(
            self._side(node, way, self._sets[wholes[axis]], axis, sharing[axis])
            for axis, way in enumerate(ways)
        )
        key = (node, ways, sides)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self.seconds(self.runs.layers[node], ways, sides)
        return found

    def seconds(self, layer: Layer, ways: Ways, sides: Sequence[Side] = ()) -> float:
        """What a layer costs that does so: work beyond its share, and all that moves for it [s].

        Args:
            layer: one of them.
            ways: what it does.
            sides: what is around it, for each axis; layers that do `plain_ways` if left out.
        """
        around = tuple(sides) or tuple(ALONE if own else _PURE for own in self._shared)
        total = self._work_s(layer, ways, around) + self._summing_s(layer, ways)
        total += self._update_s[layer.parameter] / prod(
            size
            for size, way in zip(self.mesh.shape, ways, strict=True)
            if way not in ALL_ROWS or Way.ROWS in ways
        )
        return total + sum(self._moving_s(layer, ways, axis, around) for axis in range(len(ways)))

    def _summing_s(self, layer: Layer, ways: Ways) -> float:
        """Time to sum up the gradient over all that have a summand."""
        num_bytes = float(self.runs.program.nodes[layer.parameter].outputs[0].num_bytes)
        for size, way in zip(self.mesh.shape, ways, strict=True):
            num_bytes /= size if way in CUTS else 1
        rows = [k for k, way in enumerate(ways) if way is Way.ROWS]
        whole = [k for k, way in enumerate(ways) if way in ALL_ROWS]
        if len(rows) == len(ways):
            return collective_seconds(_ALL_REDUCE, num_bytes, self._everywhere)
        found = [sum(collective_seconds(_ALL_REDUCE, num_bytes, self._axes[k]) for k in rows)]
        # Those that make the same may sum up a part each.
        for row, other in product(rows, whole):
            few, many = (num_bytes / self.mesh.shape[k] for k in (other, row))
            inner, outer = self._axes[row], self._axes[other]
            scattered_s = collective_seconds(_SCATTER, few, inner)
            gathered_s = min(
                collective_seconds(_GATHER, few, inner)
                + collective_seconds(_GATHER, num_bytes, outer),
                collective_seconds(_GATHER, many, outer)
                + collective_seconds(_GATHER, num_bytes, inner),
            )
            found.append(scattered_s + gathered_s)
        return min(found)

    @cached_property
    def plain(self) -> Ways:
        """What layers do that do nothing of their own."""
        return plain_ways(self.runs.program, self.mesh)

    @cached_property
    def _shared(self) -> tuple[bool, ...]:
        return shares_rows(self.runs.program, self.mesh)

    @cached_property
    def _axes(self) -> list[Group]:
        return [axis_group(self.machine, self.mesh.shape, k) for k in range(len(self.mesh.shape))]

    @cached_property
    def _everywhere(self) -> Group:
        return axis_group(self.machine, (prod(self.mesh.shape),), 0)

    @cached_property
    def _reads(self) -> Mapping[int, Value]:
        """What each layer reads, by the node of its weight."""
        return {node: self._read(layer) for node, layer in self.runs.layers.items()}

    def _side(self, node: int, way: Way, wholes: Wholes, axis: int, sharing: int) -> Side:
        """What is around a layer that does so."""
        paired = self._is_paired(node, way, wholes)
        if not self._shared[axis]:
            back = self._leads_back(self.runs.layers[node])
            return replace(_PURE, returned=back, paired=paired)
        if not wholes.rows:
            return Side(sharing=sharing, paired=paired)
        read, made, own = self.runs.read[node], self.runs.made[node], self.runs.bits((node,))
        if own & wholes.tables:
            # What others add to what is looked up is gathered by those that read it.
            made = [place for place in made if not place.before & ~wholes.tables]
        return Side(
            read=wholes.has(read),
            returned=wholes.has_back(Between(own, read.before))
            if way in ALL_ROWS
            else bool(read.before & wholes.rows and read.after & wholes.rows),
            made=any(map(wholes.has, made)),
            arriving=any(wholes.has_back(Between(place.after, own)) for place in made),
            sharing=sharing,
            paired=paired,
        )

    def _is_paired(self, node: int, way: Way, wholes: Wholes) -> bool:
        """Whether columns go from one layer to another that makes summands of them."""
        beside = self.runs.pairs.get(node, NOWHERE)
        if way is Way.COLUMNS:
            return bool(beside.after & wholes.summands)
        return way is Way.SUMMANDS and bool(beside.before & wholes.columns)

    def _leads_back(self, layer: Layer) -> bool:
        """True if what a layer reads has a gradient that other layers need."""
        return bool(self.runs.read[layer.parameter].before)

    def _between_s(self, wholes: Sequence[Wholes]) -> float:
        """Work between layers that other devices do as well [s]."""
        if not any(own.rows and shared for own, shared in zip(wholes, self._shared, strict=True)):
            return 0.0
        total = 0.0
        for (place, backward), seconds in self._work_between.items():
            again = prod(
                size
                for size, own, shared in zip(self.mesh.shape, wholes, self._shared, strict=True)
                if shared and (own.has_back(place) if backward else own.has(place))
            )
            total += seconds * (again - 1)
        return total / prod(self.mesh.shape)

    @cached_property
    def _work_between(self) -> Mapping[tuple[Between, bool], float]:
        """Time of all rows on one device of what stands between the same layers [s]."""
        program, device = self.runs.program, slowest_device(self.machine)
        found: dict[tuple[Between, bool], float] = {}
        for backward, places in ((False, self.runs.forward), (True, self.runs.backward)):
            for number, place in places.items():
                node = program.nodes[number]
                operands = tuple(map(program.type_of, program.operands(number)))
                seconds = operator_seconds(
                    node.op, node.args, operands, node.outputs, device, self._paid[number]
                )
                key = (place, backward)
                found[key] = found.get(key, 0.0) + seconds
        return found

    @cached_property
    def _update_s(self) -> Mapping[int, float]:
        """Time to update each layer's weight on one device [s]."""
        program, device = self.runs.program, slowest_device(self.machine)
        found, led_to = dict.fromkeys(self.runs.layers, 0.0), parameters_led_to(program)
        for number, node in enumerate(program.nodes):
            if node.phase is Phase.UPDATE and led_to[number] in found:
                operands = tuple(map(program.type_of, program.operands(number)))
                found[led_to[number]] += operator_seconds(
                    node.op, node.args, operands, node.outputs, device, self._paid[number]
                )
        return found

    @cached_property
    def _paid(self) -> tuple[Paid, ...]:
        return program_traffic(self.runs.program)

    def _work_s(self, layer: Layer, ways: Ways, sides: Sequence[Side]) -> float:
        """Work that other devices do as well."""
        whole = [k for k, way in enumerate(ways) if way in ALL_ROWS]
        if not whole:
            return 0.0
        node = self.runs.program.nodes[layer.reader]
        types = tuple(map(self.runs.program.type_of, self.runs.program.operands(layer.reader)))
        device = slowest_device(self.machine)
        all_s = operator_seconds(node.op, node.args, types, node.outputs, device)
        again = prod(self.mesh.shape[k] for k in whole) - 1
        # What goes back in rows is computed in rows, and a sum over rows in parts, as it is kept.
        run = [k for k in whole if sides[k].returned and ways[k] is Way.WHOLE]
        back = prod(self.mesh.shape[k] for k in run) - 1
        gradient = 0 if Way.ROWS in ways else again
        return all_s * (again + back + gradient) / prod(self.mesh.shape)

    def _moving_s(self, layer: Layer, ways: Ways, axis: int, sides: Sequence[Side]) -> float:
        """What moves along an axis, forward and backward."""
        program, way, side = self.runs.program, ways[axis], sides[axis]
        made = float(program.nodes[layer.reader].outputs[0].num_bytes)
        made /= self._parts(ways, axis, [own.made for own in sides], Way.COLUMNS)
        read = float(program.type_of(self._reads[layer.parameter]).num_bytes)
        read /= self._parts(ways, axis, [own.read for own in sides], Way.SUMMANDS)
        ends, back = side.arriving or bool(layer.tail), self._leads_back(layer)
        gathered = (_GATHER, read / side.sharing, not side.read)
        moves = {
            Way.ROWS: ((_GATHER, made, side.made), (_GATHER, read, side.returned)),
            Way.COLUMNS: (
                gathered,
                (_GATHER if side.made else _TRADE, made, not side.paired and not layer.tail),
                (_TRADE, made, not ends and not side.paired),
                (_SCATTER, read, back),
                (_GATHER, read, side.returned),
            ),
            Way.SUMMANDS: (
                (_TRADE, read, not side.read and not side.paired),
                (_SCATTER, made, True),
                (_GATHER, made, side.made),
                (_GATHER, made, not side.arriving),
                (_GATHER if side.returned else _TRADE, read, back and not side.paired),
            ),
            Way.WHOLE: (gathered, (_GATHER, made, not ends)),
            Way.LAST: (gathered, (_GATHER, made, not ends), (_GATHER, read, side.returned)),
        }[way]
        if layer.is_table(self.runs.program) and way is Way.COLUMNS:
            moves = (
                (_GATHER if side.made else _TRADE, made, True),
                (_TRADE, made, not side.arriving),
            )
        elif layer.is_table(self.runs.program) and way is Way.SUMMANDS:
            moves = moves[1:-1]
        return sum(
            collective_seconds(kind, num_bytes, self._axes[axis])
            for kind, num_bytes, is_due in moves
            if is_due
        )

    def _parts(self, ways: Ways, axis: int, whole: Sequence[bool], cut: Way) -> int:
        """In how many parts other axes have what moves along one.

        Args:
            ways: what the layer does.
            axis: along which it moves.
            whole: whether it is whole along each axis all the time.
            cut: the way of a layer that has it in parts all the time.
        """
        return prod(
            size
            for other, size in enumerate(self.mesh.shape)
            if other != axis
            and (
                ways[other] in (Way.ROWS, cut)
                # What goes along both goes along the slower one while it is in parts.
                or (not whole[other] and self._pace[other] < self._pace[axis])
            )
        )

    @cached_property
    def _pace(self) -> list[tuple[float, int]]:
        """Axes by how slow they are; of two that are alike, the outer one is the slower."""
        gathered = [collective_seconds(_GATHER, _MEBIBYTE, group) for group in self._axes]
        return [(seconds, -axis) for axis, seconds in enumerate(gathered)]

    def _read(self, layer: Layer) -> Value:
        program = self.runs.program
        others = other_operands(program, layer.reader, layer.parameter)
        return max(others, key=lambda value: program.type_of(value).num_bytes)


_PURE = Side(read=True, returned=True, made=True, arriving=True)
"""Where nothing is in rows."""


def cheapest(runs: Runs, machine: Machine, mesh: Mesh) -> dict[int, Ways]:
    """What is cheapest for layers by price, for those that should not do `plain_ways`.

    Args:
        runs: layers of a training step.
        machine: where it runs, with as many devices.
        mesh: along whose axes the batch is cut.
    """
    known = runs.known.get((id(machine), mesh))
    if known is None:
        known = runs.known[id(machine), mesh] = (machine, _cheapest(Prices(runs, machine, mesh)))
    return dict(known[1])


def _cheapest(prices: Prices) -> dict[int, Ways]:
    runs, mesh = prices.runs, prices.mesh
    alone = {
        node: min(possible(runs.program, own, mesh), key=lambda w: prices.seconds(own, w))
        for node, own in runs.layers.items()
    }
    most_s = HOPELESS * prices.total(alone)
    whole = (_whole_along(prices, alone, axis) for axis in range(mesh.num_axes))
    starts = [alone, *(start for start in whole if prices.total(start) < most_s)]
    best = min((_improved(prices, start) for start in starts), key=prices.total)
    return {node: ways for node, ways in best.items() if ways != prices.plain}


def _improved(prices: Prices, best: dict[int, Ways]) -> dict[int, Ways]:
    """The same with kinds of layers changed one at a time, for as long as that is cheaper."""
    runs, mesh = prices.runs, prices.mesh
    least_s = prices.total(best)
    kinds = alike(runs.program, runs.layers)[:MOST_KINDS]
    for _ in range(MOST_ROUNDS):
        before_s = least_s
        for kind in kinds:
            for ways in possible(runs.program, runs.layers[kind[0]], mesh):
                tried = best | dict.fromkeys(kind, ways)
                seconds = prices.total(tried)
                if seconds < least_s:
                    best, least_s = tried, seconds
        if least_s == before_s:
            break
    return best


def _whole_along(prices: Prices, best: Mapping[int, Ways], axis: int) -> dict[int, Ways]:
    """What layers do, but all that can compute all rows along an axis."""
    runs = prices.runs
    found: dict[int, Ways] = {}
    for node, ways in best.items():
        own = (*ways[:axis], Way.WHOLE, *ways[axis + 1 :])
        found[node] = own if own in possible(runs.program, runs.layers[node], prices.mesh) else ways
    return found
