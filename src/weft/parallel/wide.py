"""Wide layers: those whose gradients cost more to synchronise than their activations to move.

Data parallelism synchronises the gradient of an m x n weight. A classifier over very many words or
images has a weight of many numbers and rows of few, a convolution the other way round. So along
each mesh axis a layer may do something else than share out rows:

    rows      nothing moves; the gradient is summed up
    columns   the weight is cut so that results are: what the layer reads is gathered
    summands  the weight is cut so that results are to be added up: they are, to rows
    whole     every device computes all rows, which are gathered, as are gradients of results;
              nothing of the kind is due where only the loss follows: it is computed whole too,
              nor between two layers that do so (`weft.parallel.runs`)
    last      the same at the end of such a run: what goes back from it is computed in rows, which
              is less work, and gathered

A table that is looked up is cut by its entries, which makes summands, or by its columns, whose
lookups only change places. Every way is priced, latency and larger products included
(`weft.parallel.way_prices`).

Along an axis that does not divide the rows of the batch no layer shares them out: it is one of
tensor parallelism alone, and what is not cut along it is whole.

Sources: one weird trick (Krizhevsky, arXiv 1404.5997); Megatron-LM's output layer, cut by its
vocabulary (Shoeybi et al., arXiv 1909.08053); partial FC (An et al., arXiv 2010.05222).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product
from math import gcd
from typing import TypeAlias

from weft.parallel.placement import PARTIAL, REPLICATED, Mesh, Placement
from weft.parallel.roles import WeightCut, cut_dim, weight_cuts
from weft.parallel.weights import parameters_led_to
from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = [
    "ALL_ROWS",
    "CUTS",
    "Layer",
    "Way",
    "Ways",
    "alike",
    "between",
    "layers",
    "lookups",
    "lookups_of",
    "other_operands",
    "plain_ways",
    "possible",
    "shares_rows",
]


class Way(Enum):
    """What a layer does along a mesh axis."""

    ROWS = "rows"
    COLUMNS = "columns"
    SUMMANDS = "summands"
    WHOLE = "whole"
    LAST = "last"

    __hash__ = object.__hash__


CUTS = frozenset({Way.COLUMNS, Way.SUMMANDS})
"""Ways that cut the weight."""
ALL_ROWS = frozenset({Way.WHOLE, Way.LAST})
"""Ways that compute all rows."""

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

    def is_table(self, program: Program) -> bool:
        """Whether the weight is looked up."""
        return program.nodes[self.reader].op == "embedding.default"

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
        for reader, parameter in lookups_of(program)
    }
    for parameter, plain in weight_cuts(program).items():
        if not other_operands(program, plain.reader, parameter):
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


def lookups_of(program: Program) -> Iterator[tuple[int, int]]:
    """(node, parameter) of each lookup in a parameter, perhaps in another dress.

    Args:
        program: one training step.
    """
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


def other_operands(program: Program, reader: int, parameter: int) -> list[Value]:
    """What a reader of a weight reads beside it.

    Args:
        program: one training step.
        reader, parameter: nodes.
    """
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
    for number, parameter in lookups_of(program):
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


def shares_rows(program: Program, mesh: Mesh) -> tuple[bool, ...]:
    """For each axis whether the batch can be shared out along it, after those outside it.

    Args:
        program: one training step.
        mesh: an axis with shares is one that does so.
    """
    rows, parts, found = _rows(program), 1, list[bool]()
    for axis, size in enumerate(mesh.shape):
        even = mesh.cuts_evenly(axis)
        found.append(not even or rows % (parts * size) == 0)
        parts *= size if even and found[-1] else 1
    return tuple(found)


def _rows(program: Program) -> int:
    """Rows of the batch: what the entries that have any have in common."""
    batch = (program.nodes[i.node].outputs[0] for i in program.inputs if i.role is Role.BATCH)
    return gcd(*(entry.shape[0] for entry in batch if entry.shape and entry.shape[0] > 1))


def plain_ways(program: Program, mesh: Mesh) -> Ways:
    """What a layer does that does nothing of its own: it shares out rows where that is possible.

    Args:
        program: one training step.
        mesh: along whose axes.
    """
    return tuple(Way.ROWS if shared else Way.WHOLE for shared in shares_rows(program, mesh))


def possible(program: Program, layer: Layer, mesh: Mesh) -> list[Ways]:
    """All that a layer can do along mesh axes; `plain_ways` is first.

    Args:
        program: one training step.
        layer: of it; `Way.LAST` is for the one that only the loss follows.
        mesh: if its first axis shares out the batch unevenly, that cuts no weights.
    """
    shape = program.nodes[layer.parameter].outputs[0].shape
    others = (Way.WHOLE, Way.COLUMNS, Way.SUMMANDS)
    with_rows = (Way.ROWS, *others, *((Way.LAST,) if layer.tail else ()))
    along = [with_rows if own else others for own in shares_rows(program, mesh)]
    found: list[Ways] = []
    for ways in product(*along):
        parts: dict[int, int] = {}
        for way, size in zip(ways, mesh.shape, strict=True):
            if way in CUTS:
                dim = layer.dims.get(way, -1)
                parts[dim] = parts.get(dim, 1) * size
        even = ways[0] not in CUTS or mesh.is_even
        if even and all(dim >= 0 and shape[dim] % count == 0 for dim, count in parts.items()):
            found.append(ways)
    return found


def alike(program: Program, found: Mapping[int, Layer]) -> list[tuple[int, ...]]:
    """Weights of layers, those of alike layers together, heaviest kind first.

    Args:
        program: one training step.
        found: its layers.
    """
    kinds: dict[object, list[int]] = defaultdict(list)
    for node, layer in sorted(found.items()):
        reader = program.nodes[layer.reader]
        about = tuple(layer.dims.items())
        kinds[program.nodes[node].outputs, about, reader.op, reader.outputs].append(node)
    ordered = sorted(
        kinds.values(),
        key=lambda own: -sum(program.nodes[node].outputs[0].num_bytes for node in own),
    )
    return [tuple(own) for own in ordered]
