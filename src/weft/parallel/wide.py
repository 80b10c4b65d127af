"""Wide layers: those whose gradients cost more to synchronise than their activations to move.

Data parallelism synchronises the gradient of an m x n weight. A classifier over very many words or
images has a weight of many numbers and rows of few, a convolution the other way round. So along
each mesh axis a layer may do something else than share out rows:

    rows      nothing moves; the gradient is summed up
    columns   the weight is cut so that results are: what the layer reads is gathered
    summands  the weight is cut so that results are to be added up: they are, to rows
    whole     every device computes all rows, which are gathered, as are gradients of results;
              nothing of the kind is due where only the loss follows: it is computed whole too

A table that is looked up is cut by its entries, which makes summands, or by its columns, whose
lookups only change places. Every way is priced, latency and larger products included.

Sources: one weird trick (Krizhevsky, arXiv 1404.5997); Megatron-LM's output layer, cut by its
vocabulary (Shoeybi et al., arXiv 1909.08053); partial FC (An et al., arXiv 2010.05222).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import product
from math import prod
from typing import TypeAlias

from weft.cost.collective import collective_seconds
from weft.cost.roofline import operator_seconds
from weft.machine.model import Machine
from weft.machine.topology import Group, axis_group
from weft.parallel.estimate import slowest_device
from weft.parallel.local import CollectiveKind
from weft.parallel.placement import PARTIAL, REPLICATED, Mesh, Placement
from weft.parallel.roles import WeightCut, cut_dim, weight_cuts
from weft.parallel.weights import parameters_led_to
from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = [
    "Layer",
    "Prices",
    "Way",
    "Ways",
    "between",
    "cheapest",
    "layers",
    "lookups",
    "possible",
]


class Way(Enum):
    """What a layer does along a mesh axis."""

    ROWS = "rows"
    COLUMNS = "columns"
    SUMMANDS = "summands"
    WHOLE = "whole"

    __hash__ = object.__hash__


Ways: TypeAlias = tuple[Way, ...]
"""Along each axis, outermost first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A weight with the product or lookup of the forward pass that reads it.

    Attributes:
        parameter, reader: nodes.
        dims: the weight's dim that each way cuts.
        tail: nodes between it and its gradient, if only the loss follows; else none.
    """

    parameter: int
    reader: int
    dims: Mapping[Way, int]
    tail: frozenset[int] = frozenset()

    def cut(self, program: Program, way: Way) -> WeightCut:
        """The cut of one of the ways that cut the weight."""
        rank = len(program.nodes[self.parameter].outputs[0].shape)
        column = way is Way.COLUMNS
        return WeightCut(dim=self.dims[way], rank=rank, column=column, reader=self.reader)


def layers(program: Program) -> dict[int, Layer]:
    """The layers of a step.

    Returns:
        By node number of the weight. A table that is also the output projection counts as that.
    """
    found = {
        parameter: Layer(
            parameter=parameter,
            reader=reader,
            dims={Way.SUMMANDS: _ENTRIES, Way.COLUMNS: _COLUMNS},
        )
        for reader, parameter in _lookups(program)
    }
    for parameter, plain in weight_cuts(program).items():
        if not _other_operands(program, plain.reader, parameter):
            continue  # a weight times itself has no rows
        port = _port(program, plain.reader, parameter)
        dims: dict[Way, int] = {}
        for way in (Way.COLUMNS, Way.SUMMANDS):
            node, dim = cut_dim(program, plain.reader, port, column=way is Way.COLUMNS)
            if node == parameter and dim >= 0 and dim not in dims.values():
                dims[way] = dim
        found[parameter] = Layer(parameter=parameter, reader=plain.reader, dims=dims)
    readers = {layer.reader for layer in found.values()}
    last = max(found.values(), key=lambda layer: layer.reader, default=None)
    if last is not None:
        tail = _tail(program, last, readers)
        found[last.parameter] = replace(last, tail=tail)
    return found


def _tail(program: Program, layer: Layer, readers: Set[int]) -> frozenset[int]:
    """What follows from a layer up to its gradient; nothing if other layers follow."""
    after = {layer.reader}
    for number, node in enumerate(program.nodes):
        reads = (value.node in after for value in program.operands(number))
        if node.phase is Phase.FORWARD and any(reads):
            after.add(number)
    if after & readers != {layer.reader}:
        return frozenset()
    leads_to = parameters_led_to(program)
    waiting = [
        number
        for number, node in enumerate(program.nodes)
        if node.phase is Phase.BACKWARD
        and leads_to[number] == layer.parameter
        and operator(node.op).kind is Kind.CONTRACT
    ]
    before: set[int] = set()
    while waiting:
        for value in program.operands(waiting.pop()):
            node = value.node
            if node not in before and program.nodes[node].phase is Phase.BACKWARD:
                before.add(node)
                waiting.append(node)
    found = (after | before) - {layer.reader}
    # Masks and the like, which are made of the batch alone, belong to it.
    for number in range(len(program.nodes) - 1, -1, -1):
        readers_of = {reader for reader, _ in program.users[number]}
        if readers_of and readers_of <= found and number not in program.input_by_node:
            found.add(number)
    return frozenset(found)


_ENTRIES, _COLUMNS = 0, 1
"""Dims of a table."""


def _lookups(program: Program) -> Iterator[tuple[int, int]]:
    """(node, parameter) of each lookup in a parameter, perhaps in another dress."""
    held = (Role.PARAMETER, Role.SHARED)
    parameters = {i.node for i in program.inputs if i.role in held}
    for number, node in enumerate(program.nodes):
        if node.op == "embedding.default" and node.phase is Phase.FORWARD:
            origin = _undressed(program, program.operands(number)[0])
            if origin in parameters:
                yield number, origin


def _undressed(program: Program, value: Value) -> int:
    """The node under views and casts."""
    while value.node not in program.input_by_node:
        node = program.nodes[value.node]
        if operator(node.op).kind is not Kind.VIEW and node.op != "cast":
            break
        value = program.operands(value.node)[0]
    return value.node


def _other_operands(program: Program, reader: int, parameter: int) -> list[Value]:
    """What a reader of a weight reads beside it."""
    operands = program.operands(reader)
    return [value for value in operands if _undressed(program, value) != parameter]


def _port(program: Program, reader: int, parameter: int) -> int:
    """Which operand of a product is the parameter."""
    operands = program.operands(reader)
    return next(k for k, value in enumerate(operands) if _undressed(program, value) == parameter)


def lookups(
    program: Program, cuts: Mapping[int, WeightCut], whole: Iterable[int]
) -> dict[int, Placement]:
    """What lookups in tables make whose rows are not simply shared out along an axis.

    Args:
        program: one training step.
        cuts: of weights, by node; of a table that is also the output projection, those of that.
        whole: weights whose layers compute all rows.
    """
    found: dict[int, Placement] = {}
    all_rows = frozenset(whole)
    for number, parameter in _lookups(program):
        columns = len(program.nodes[number].outputs[0].shape) - 1
        if parameter in cuts:
            found[number] = PARTIAL if cuts[parameter].dim == _ENTRIES else columns
        elif parameter in all_rows:
            found[number] = REPLICATED
    return found


def between(program: Program, products: Mapping[int, Placement]) -> dict[int, Placement]:
    """Element-wise operators that lead from what a product makes in parts to one that adds up.

    Args:
        program: one training step.
        products: placement of each product of a cut weight, and of lookups.
    """
    found: dict[int, Placement] = {}
    for number, node in enumerate(program.nodes):
        if operator(node.op).kind is not Kind.POINTWISE or node.phase is Phase.UPDATE:
            continue
        shape = node.outputs[0].shape
        for value in program.operands(number):
            is_lookup = program.nodes[value.node].op == "embedding.default"
            place = found.get(value.node, REPLICATED if is_lookup else products.get(value.node, -1))
            if place >= 0 and program.type_of(value).shape == shape and number not in products:
                found[number] = place
    for number in sorted(found, reverse=True):
        readers = {reader for reader, _ in program.users[number]}
        if not any(products.get(r) == PARTIAL or r in found for r in readers):
            del found[number]
    return found


def possible(program: Program, layer: Layer, mesh: Mesh) -> list[Ways]:
    """All that a layer can do along mesh axes; sharing out rows everywhere is first.

    Args:
        program: one training step.
        layer: of it.
        mesh: if its first axis shares out the batch unevenly, that cuts no weights.
    """
    shape = program.nodes[layer.parameter].outputs[0].shape
    found: list[Ways] = []
    for ways in product(Way, repeat=mesh.num_axes):
        parts: dict[int, int] = {}
        for way, size in zip(ways, mesh.shape, strict=True):
            if way in (Way.COLUMNS, Way.SUMMANDS):
                dim = layer.dims.get(way, -1)
                parts[dim] = parts.get(dim, 1) * size
        even = ways[0] in (Way.ROWS, Way.WHOLE) or mesh.is_even
        if even and all(dim >= 0 and shape[dim] % count == 0 for dim, count in parts.items()):
            found.append(ways)
    return found


def cheapest(
    program: Program, machine: Machine, found: Mapping[int, Layer], mesh: Mesh
) -> dict[int, Ways]:
    """What is cheapest for each layer by price, for those that should not share out rows alone.

    Args:
        program: one training step.
        machine: where it runs, with as many devices.
        found: its layers.
        mesh: along whose axes the batch is cut.
    """
    prices = Prices(program, machine, mesh)
    chosen: dict[int, Ways] = {}
    for node, layer in found.items():
        ways = min(possible(program, layer, mesh), key=lambda own: prices.seconds(layer, own))
        if any(way is not Way.ROWS for way in ways):
            chosen[node] = ways
    return chosen


_ALL_REDUCE, _GATHER, _SCATTER, _TRADE = (
    CollectiveKind.ALL_REDUCE.value,
    CollectiveKind.ALL_GATHER.value,
    CollectiveKind.REDUCE_SCATTER.value,
    CollectiveKind.ALL_TO_ALL.value,
)
_PRODUCTS = 3
"""Of a layer: one forward, two backward."""


@dataclass(frozen=True)
class Prices:
    """What layers cost.

    Attributes:
        program: one training step.
        machine: where it runs.
        mesh: along whose axes the batch is cut.
    """

    program: Program
    machine: Machine
    mesh: Mesh

    def seconds(self, layer: Layer, ways: Ways) -> float:
        """What a layer costs that does so: work beyond its share, and all that moves for it [s]."""
        rows = [k for k, way in enumerate(ways) if way is Way.ROWS]
        gradient = float(self.program.nodes[layer.parameter].outputs[0].num_bytes)
        for size, way in zip(self.mesh.shape, ways, strict=True):
            gradient /= size if way in (Way.COLUMNS, Way.SUMMANDS) else 1
        total = self._work_s(layer, ways)
        if len(rows) == len(ways):
            total += collective_seconds(_ALL_REDUCE, gradient, self._everywhere)
        else:
            total += sum(collective_seconds(_ALL_REDUCE, gradient, self._axes[k]) for k in rows)
        return total + sum(self._moving_s(layer, ways, axis) for axis in range(len(ways)))

    @cached_property
    def _axes(self) -> list[Group]:
        return [axis_group(self.machine, self.mesh.shape, k) for k in range(len(self.mesh.shape))]

    @cached_property
    def _everywhere(self) -> Group:
        return axis_group(self.machine, (prod(self.mesh.shape),), 0)

    def _work_s(self, layer: Layer, ways: Ways) -> float:
        """Work that other devices do as well."""
        again = (
            prod(s for s, way in zip(self.mesh.shape, ways, strict=True) if way is Way.WHOLE) - 1
        )
        if not again:
            return 0.0
        node = self.program.nodes[layer.reader]
        operands = tuple(map(self.program.type_of, self.program.operands(layer.reader)))
        device = slowest_device(self.machine)
        all_s = operator_seconds(node.op, node.args, operands, node.outputs, device)
        return _PRODUCTS * all_s * again / prod(self.mesh.shape)

    def _moving_s(self, layer: Layer, ways: Ways, axis: int) -> float:
        """What moves along an axis, forward and backward."""
        way, is_table = ways[axis], self._is_table(layer)
        if way is Way.ROWS:
            return 0.0
        made = float(self.program.nodes[layer.reader].outputs[0].num_bytes)
        read = self._read_bytes(layer)
        moves = {
            Way.COLUMNS: ((_GATHER, read), (_SCATTER, read)),
            Way.SUMMANDS: ((_SCATTER, made), (_GATHER, made)),
            Way.WHOLE: ((_GATHER, read), (_GATHER, 0.0 if layer.tail else made)),
        }[way]
        if is_table and way is Way.COLUMNS:
            moves = ((_TRADE, made), (_TRADE, made))
        elsewhere = prod(
            size for k, size in enumerate(self.mesh.shape) if k != axis and ways[k] is Way.ROWS
        )
        return sum(
            collective_seconds(kind, num_bytes / elsewhere, self._axes[axis])
            for kind, num_bytes in moves
        )

    def _is_table(self, layer: Layer) -> bool:
        return self.program.nodes[layer.reader].op == "embedding.default"

    def _read_bytes(self, layer: Layer) -> float:
        others = _other_operands(self.program, layer.reader, layer.parameter)
        return float(max(self.program.type_of(value).num_bytes for value in others))
