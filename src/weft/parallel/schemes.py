"""The classical schemes of parallelism, each as rules along one mesh axis.

A scheme pins a few placements (of the batch, of weights, of what lies between products), and
`weft.parallel.greedy` fills in the rest. What the degrees mean is said in
`weft.parallel.degrees`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import gcd, prod
from types import MappingProxyType

from weft.core.errors import InputError
from weft.parallel.degrees import Degrees
from weft.parallel.greedy import greedy_axis
from weft.parallel.mixture import expert_work, readers_of, travelling
from weft.parallel.placement import PARTIAL, REPLICATED, Placement
from weft.parallel.propagate import Axis, AxisRules
from weft.parallel.roles import (
    WeightCut,
    boundary_nodes,
    expert_cuts,
    product_placements,
    weight_cuts,
)
from weft.parallel.rules import RuleBook
from weft.parallel.runs import Runs
from weft.parallel.scheme_pins import batch_pins, cut_weights, has_rows, require_rows
from weft.parallel.sequence import has_sequence, sequence_pins
from weft.parallel.weights import parameters_led_to, weight_values
from weft.parallel.wide import (
    ALL_ROWS,
    Layer,
    Way,
    Ways,
    between,
    layers,
    lookups,
    other_operands,
    plain_ways,
    shares_rows,
)
from weft.parallel.zero import NOTHING, Storage, lasting_weights, storage, updating_nodes
from weft.program.graph import Phase, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["Schemes"]

_PRODUCTS = (Kind.CONTRACT, Kind.CONVOLUTION)
_TABLE_GRADIENT = "embedding_dense_backward.default"


class Schemes:
    """Writes the axes of plans for one program; what several of them share is kept."""

    def __init__(self, program: Program, book: RuleBook | None = None) -> None:
        self.program = program
        self._book = book or RuleBook(program)
        self._outermost: dict[object, tuple[AxisRules, frozenset[int]]] = {}

    @cached_property
    def cuts(self) -> dict[int, WeightCut]:
        """How tensor parallelism cuts each weight."""
        return weight_cuts(self.program)

    @cached_property
    def layers(self) -> Mapping[int, Layer]:
        """Weights and who reads them, for plans of wide layers."""
        return layers(self.program)

    @cached_property
    def runs(self) -> Runs:
        """The layers, and what lies between them."""
        return Runs(self.program, self.layers)

    @cached_property
    def experts(self) -> dict[int, WeightCut]:
        """How expert parallelism cuts each weight of experts."""
        return expert_cuts(self.program)

    @cached_property
    def _leads_to(self) -> list[int]:
        return parameters_led_to(self.program)

    @cached_property
    def _weights(self) -> frozenset[Value]:
        return weight_values(self.program)

    @cached_property
    def _travelling(self) -> frozenset[Value]:
        products = product_placements(self.program, self.experts)
        return travelling(self.program, expert_work(self.program, products)) - self._weights

    @cached_property
    def _updating(self) -> dict[int, list[int]]:
        return updating_nodes(self.program)

    @property
    def num_experts(self) -> int:
        """Experts of a mixture, as many as all its weights can be shared out over; 0 if none."""
        nodes = self.program.nodes
        return gcd(*(nodes[n].outputs[0].shape[cut.dim] for n, cut in self.experts.items()))

    @property
    def has_sequence(self) -> bool:
        """True if the batch has tokens in an order."""
        return has_sequence(self.program)

    def axes(
        self,
        degrees: Degrees,
        whole: frozenset[int] = frozenset(),
        wide: Mapping[int, Ways] = MappingProxyType({}),
    ) -> tuple[list[AxisRules], frozenset[Value]]:
        """The rules of each axis of `degrees.mesh`, and values whose copies last for the step.

        Args:
            degrees: how many devices each scheme gets.
            whole: nodes that every data-parallel device computes for all of the batch.
            wide: what layers do, by the node of their weights, where the degrees say that only
                wide ones are cut; along the data axis, if there is one, and the tensor axis.

        Raises:
            InputError: the sizes of the program do not divide by the degrees.
        """
        if degrees.wide:
            return self._wide_axes(degrees, wide)
        axes: list[AxisRules] = []
        stored: frozenset[int] = frozenset()
        outer = degrees.dp // degrees.ep
        if outer > 1 or degrees.num_devices == 1:
            units = sum(degrees.shares) or outer
            axis, gathered = self._data_axis(units, degrees.zero, self._used(degrees), whole)
            axes.append(replace(axis, shares=degrees.shares) if degrees.shares else axis)
            stored |= gathered
        if degrees.ep > 1:
            axis, gathered = self._expert_axis(degrees, axes)
            axes.append(axis)
            stored |= gathered
        if degrees.cp > 1:
            axis, gathered = self._context_axis(degrees, axes)
            axes.append(axis)
            stored |= gathered
        if degrees.tp > 1:
            axes.append(self._tensor_axis(degrees, axes))
        lasting = frozenset[Value]()
        if degrees.zero in (1, 2):
            lasting |= lasting_weights(self.program, stored)
        if degrees.ep > 1:
            lasting |= self._travelling
        return axes, lasting

    def placed_axis(
        self, size: int, placements: Mapping[int, Placement], outer: Sequence[AxisRules]
    ) -> AxisRules:
        """An axis along which inputs lie as somebody decided, and all else where that moves least.

        Args:
            size: devices along it.
            placements: of parameters and optimizer state, by node; others are whole.
            outer: what earlier axes do.

        Raises:
            InputError: an input cannot lie so.
        """
        return self._filled(size, placements, outer)

    def _data_axis(
        self, size: int, zero: int, used: Mapping[int, Placement], whole: frozenset[int]
    ) -> tuple[AxisRules, frozenset[int]]:
        """The outermost axis, known again by what it depends on."""
        stage = 1 if zero == 2 else zero
        key = (size, stage, frozenset(used.items()) if stage else (), whole)
        if key not in self._outermost:
            batch = batch_pins(self.program, size)
            require_rows(self.program, batch, size)
            kept = storage(self.program, zero, size, (), used)
            pinned = {**batch, **kept.pinned, **dict.fromkeys(whole, REPLICATED)}
            axis = self._filled(size, pinned, (), kept)
            self._outermost[key] = axis, kept.gathered
        return self._outermost[key]

    def _expert_axis(
        self, degrees: Degrees, outer: list[AxisRules]
    ) -> tuple[AxisRules, frozenset[int]]:
        """Data parallel but for the experts, whose products follow their weights."""
        size = degrees.ep
        if not self.experts:
            raise InputError(
                need="weights that hold one matrix for each of several experts",
                got="none",
                hint="leave --ep out",
            )
        weights = cut_weights(self.program, self.experts, size, outer, "an expert degree")
        cuts = {node: cut for node, cut in self.experts.items() if node in weights}
        used = self._used(degrees)
        kept = storage(self.program, degrees.zero, size, outer, used, spared=cuts.keys())
        batch = {**batch_pins(self.program, size, outer), **kept.pinned}
        # What is no work of experts lies where data parallelism would have it.
        plain = self._filled(size, batch, outer, kept)
        work = expert_work(self.program, product_placements(self.program, cuts))
        beside = {n: plain.rules[n].outputs[0] for n in readers_of(self.program, work)}
        pinned = {**batch, **beside, **weights, **self._possible(work, size, outer)}
        return self._filled(size, pinned, outer, kept), kept.gathered

    def _context_axis(
        self, degrees: Degrees, outer: list[AxisRules]
    ) -> tuple[AxisRules, frozenset[int]]:
        size = degrees.cp
        pins = self._possible(sequence_pins(self.program, size), size, outer)
        kept = storage(self.program, degrees.zero, size, outer, self._used(degrees))
        pinned = {**pins, **kept.pinned}
        return self._filled(size, pinned, outer, kept), kept.gathered

    def _tensor_axis(self, degrees: Degrees, outer: list[AxisRules]) -> AxisRules:
        """Products follow their weights; activations between are whole, or cut along sequence."""
        program, size = self.program, degrees.tp
        pinned = cut_weights(program, self.cuts, size, outer, "a tensor degree")
        cuts = {node: cut for node, cut in self.cuts.items() if node in pinned}
        products = product_placements(program, cuts)
        dims = {node: cut.dim for node, cut in cuts.items()}
        joints = {
            node: 1 if degrees.sp and has_rows(program, node, size) else REPLICATED
            for node in boundary_nodes(program, products)
        }
        wanted = joints | products | self._gradient_products(dims)
        return self._filled(size, {**pinned, **self._possible(wanted, size, outer)}, outer)

    def _wide_axes(
        self, degrees: Degrees, wide: Mapping[int, Ways]
    ) -> tuple[list[AxisRules], frozenset[Value]]:
        """Data parallel along both axes, as far as rows divide, but for wide layers."""
        units = sum(degrees.shares) or degrees.dp
        sizes = (units, degrees.tp) if degrees.dp > 1 else (degrees.tp,)
        shared = shares_rows(self.program, degrees.mesh)
        parts = prod(size for size, own in zip(sizes, shared, strict=True) if own)
        require_rows(self.program, batch_pins(self.program, 1), parts)
        plain = plain_ways(self.program, degrees.mesh)
        every = {node: wide.get(node, plain) for node in self.layers}
        axes: list[AxisRules] = []
        stored: frozenset[int] = frozenset()
        in_parts: dict[int, Placement] = {}
        for number, size in enumerate(sizes):
            pure = not shared[number]
            ways = {node: own[number] for node, own in every.items() if node in wide or pure}
            later = {node: own[number + 1 :] for node, own in wide.items()}
            used = in_parts | {
                node: self.layers[node].dims[way]
                for node, own in later.items()
                for way in own
                if way in self.layers[node].dims
            }
            is_uneven = bool(degrees.shares) and not number
            zero = 0 if is_uneven else degrees.zero  # state is whole along an uneven axis
            # Where there is nothing to be summed up a gradient that is whole needs no exchange,
            # which state in parts would.
            complete = frozenset(node for node, own in every.items() if Way.ROWS not in own)
            axis, kept = self._wide_axis(size, zero, axes, ways, used, complete, pure=pure)
            axes.append(replace(axis, shares=degrees.shares) if is_uneven else axis)
            stored |= kept.gathered
            # A dim that is in parts along one axis is not gathered along the other alone.
            in_parts |= kept.updated
        if degrees.zero == 3:
            return axes, frozenset()
        lasting = lasting_weights(self.program, stored) if degrees.zero else frozenset[Value]()
        return axes, lasting | self._gathered(wide)

    def _gathered(self, wide: Mapping[int, Ways]) -> frozenset[Value]:
        """What layers gather in the forward pass, and read again for gradients of their weights."""
        readers = [
            (self.layers[node].reader, node)
            for node, ways in wide.items()
            if not ALL_ROWS.isdisjoint(ways) or Way.COLUMNS in ways
        ]
        return frozenset(
            value
            for reader, node in readers
            for value in other_operands(self.program, reader, node)
        )

    def _wide_axis(
        self,
        size: int,
        zero: int,
        outer: list[AxisRules],
        ways: Mapping[int, Way],
        used: Mapping[int, Placement],
        complete: frozenset[int],
        *,
        pure: bool,
    ) -> tuple[AxisRules, Storage]:
        """Rows are shared out, but for layers that do something else; their sums become rows.

        On a pure axis nothing is in rows.
        """
        program = self.program
        cuts = {
            node: self.layers[node].cut(program, way)
            for node, way in ways.items()
            if way in self.layers[node].dims
        }
        weights = cut_weights(program, cuts, size, outer, "a tensor degree") if cuts else {}
        whole = [node for node, way in ways.items() if way in ALL_ROWS]
        wholes = self.runs.wholes(ways)
        alone = {*(complete & {*whole}), *self.runs.parameters(wholes)}
        if pure:
            alone |= program.input_by_node.keys() - {*whole}
        spared = {*cuts, *(alone if zero < 3 else ())}
        kept = storage(program, zero, size, outer, used, spared=spared)
        batch = {**({} if pure else batch_pins(program, size, outer)), **kept.pinned}
        if not cuts and not whole:
            return self._filled(size, batch, outer, kept), kept
        plain = self._filled(size, batch, outer, kept)
        products = {**product_placements(program, cuts), **lookups(program, cuts, whole)}
        products |= dict.fromkeys(self._products_of(whole), REPLICATED)
        dims = {node: cut.dim for node, cut in cuts.items()}
        dims |= {node: kept.updated[node] for node in whole if node in kept.updated}
        made = self._table_gradients(cuts) | self._gradient_products(dims)
        work = self._tails(products, cuts, whole) | products | made
        run = dict.fromkeys(self.runs.whole(wholes), REPLICATED)
        # The second dim, since an outer cut of the rows is not gathered alone.
        last = self.runs.led_back(node for node, way in ways.items() if way is Way.LAST)
        run |= {node: 1 for node in last if has_rows(program, node, size)}
        work = run | between(program, products) | work
        tails = {node for parameter in ways for node in self.layers[parameter].tail}
        back = {*boundary_nodes(program, products), *readers_of(program, work)}
        back -= work.keys() | tails
        if pure:  # what is for one parameter alone, such as a bias, may stay in its parts
            back = {node for node in back if self._leads_to[node] < 0}
        rows = {node: plain.rules[node].outputs[0] for node in back}
        wanted = {node: place for node, place in rows.items() if place != PARTIAL} | work
        pinned = {**self._possible(wanted, size, outer), **batch, **weights}
        return self._filled(size, pinned, outer, kept), kept

    def _products_of(self, parameters: Iterable[int]) -> set[int]:
        """What reads these weights, and what makes their gradients."""
        chosen = set(parameters)
        makers = self._gradients(lambda op: operator(op).kind in _PRODUCTS or op == _TABLE_GRADIENT)
        found = {number for number, parameter in makers.items() if parameter in chosen}
        # What comes back from the next layer, by its weight, may lead to this one alone.
        nodes = self.program.nodes
        others = {
            number
            for number in found
            if operator(nodes[number].op).kind is Kind.CONTRACT
            and not self._weights.isdisjoint(self.program.operands(number))
        }
        return {self.layers[node].reader for node in chosen} | found - others

    def _table_gradients(self, cuts: Mapping[int, WeightCut]) -> dict[int, Placement]:
        """Gradients of tables are cut as these are."""
        makers = self._gradients(lambda op: op == _TABLE_GRADIENT)
        return {number: cuts[node].dim for number, node in makers.items() if node in cuts}

    def _gradients(self, makes: Callable[[str], bool]) -> dict[int, int]:
        """Nodes of the backward pass of some operators that lead to a layer's weight: which."""
        return {
            number: parameter
            for number, parameter in enumerate(self._leads_to)
            if parameter in self.layers
            and self.program.nodes[number].phase is Phase.BACKWARD
            and makes(self.program.nodes[number].op)
        }

    def _tails(
        self,
        products: Mapping[int, Placement],
        cuts: Mapping[int, WeightCut],
        whole: Iterable[int],
    ) -> dict[int, Placement]:
        """What follows from the last layer up to its gradient lies as what it makes does."""
        found: dict[int, Placement] = {}
        for layer in (self.layers[node] for node in (*cuts, *whole)):
            made = products.get(layer.reader, PARTIAL)
            shape = self.program.nodes[layer.reader].outputs[0].shape
            for node in layer.tail if made != PARTIAL else ():
                if made == REPLICATED or self.program.nodes[node].outputs[0].shape == shape:
                    found[node] = made
        return found

    def _gradient_products(self, dims: Mapping[int, Placement]) -> dict[int, Placement]:
        """Products that are gradients of weights: each device makes that of its own part.

        Where activations are cut along the sequence, they are gathered for that, as in Megatron-LM
        (Korthikanti et al., MLSys 2023); summands of whole gradients would be larger.
        """
        nodes = self.program.nodes
        return {
            number: dims[weight]
            for number, weight in enumerate(self._leads_to)
            if weight in dims
            and nodes[number].phase is Phase.BACKWARD
            and operator(nodes[number].op).kind is Kind.CONTRACT
            and nodes[number].outputs[0].shape == nodes[weight].outputs[0].shape
        }

    def _used(self, degrees: Degrees) -> dict[int, Placement]:
        """Dims of parameters that inner axes cut for use, as ZeRO should know."""
        used: dict[int, Placement] = {}
        if degrees.tp > 1:
            used |= {node: cut.dim for node, cut in self.cuts.items()}
        if degrees.ep > 1:
            used |= {node: cut.dim for node, cut in self.experts.items()}
        return used

    def _possible(
        self, pins: Mapping[int, Placement], size: int, outer: Sequence[AxisRules]
    ) -> dict[int, Placement]:
        """The pins that their nodes can have after the outer axes."""
        axis = Axis(self.program, size, outer, self._book)
        return {
            node: placement
            for node, placement in pins.items()
            if any(rule.outputs[0] == placement for rule in axis.rules(node))
        }

    def _filled(
        self,
        size: int,
        pinned: Mapping[int, Placement],
        outer: Sequence[AxisRules],
        kept: Storage = NOTHING,
    ) -> AxisRules:
        """The rules of an axis; each update computes where its state lies."""
        updates = {
            number: kept.updated.get(parameter, pinned.get(parameter, REPLICATED))
            for parameter, numbers in self._updating.items()
            for number in numbers
        }
        pins = {**self._possible(updates, size, outer), **pinned}
        rules = greedy_axis(self.program, pins, size, outer, kept.gathered, self._book)
        return AxisRules(size=size, rules=rules)
