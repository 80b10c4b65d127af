"""From a program in groups to its sketch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from weft.machine.model import Device
from weft.parallel.mcts.carrying import floats
from weft.parallel.mcts.groups import Grouping
from weft.parallel.mcts.pricing import Pricing
from weft.parallel.mcts.segments import Segment, segments
from weft.parallel.mcts.sketch import Crossing, Floats, Integers, Parameters, Sketch
from weft.parallel.placement import REPLICATED, is_partial
from weft.parallel.weights import parameters_led_to, weight_values
from weft.parallel.wide import Layer, Way, layers
from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = ["sketched"]


def sketched(grouping: Grouping, devices: Sequence[Device]) -> Sketch:
    """The sketch of a step for some kinds of devices.

    Raises:
        InputError: a device has no rate for the products of the step.
    """
    return _Sketching(grouping, devices).sketch()


def _numbers(found: Iterable[int]) -> Integers:
    """Of whole numbers, also where there are none: a step may have no parameters."""
    return np.asarray([*found], dtype=np.int64)


class _Sketching:
    """Looks at one program; lives only inside `sketched`."""

    def __init__(self, grouping: Grouping, devices: Sequence[Device]) -> None:
        self.program: Program = grouping.program
        self.grouping = grouping
        self.devices = tuple(devices)
        self.pricing = Pricing(grouping.program, grouping.rules, devices)
        forward = segments(self.program, grouping.group, Phase.FORWARD)
        backward = segments(self.program, grouping.group, Phase.BACKWARD)
        self.num_forward = len(forward)
        self.segments: tuple[Segment, ...] = forward + backward
        self.update = len(self.segments)
        self.position = self._positions()
        self.weights = weight_values(self.program)
        self.leads_to = parameters_led_to(self.program)
        self.summed = self._summed()
        self.crossing = self._crossing()

    def _positions(self) -> list[int]:
        found = [-1] * len(self.program.nodes)
        for position, segment in enumerate(self.segments):
            for node in segment.nodes:
                found[node] = position
        for number, node in enumerate(self.program.nodes):
            if node.phase is Phase.UPDATE:
                found[number] = self.update
        return found

    def sketch(self) -> Sketch:
        seconds = np.asarray([self.pricing.table(s.nodes) for s in self.segments])
        reductions, reduced = self._reductions()
        held, passing, update_bytes = _Memory(self).measured()
        parameters = self._parameters()
        return Sketch(
            name=self.program.name,
            rows=self.grouping.rows,
            devices=self.devices,
            num_groups=self.grouping.num_groups,
            group=np.asarray([s.group for s in self.segments]),
            num_forward=self.num_forward,
            seconds=seconds,
            reductions=reductions,
            reduced_bytes=reduced,
            held_row_bytes=held[0],
            held_bytes=held[1],
            passing_row_bytes=passing[:, 0],
            passing_bytes=passing[:, 1],
            update_bytes=update_bytes,
            rest_s=self._rest(),
            lasting_bytes=self._lasting(),
            crossings=self._crossings(),
            parameters=parameters,
        )

    # --- sums over the batch ---------------------------------------------------------------

    def _made(self, value: Value) -> int:
        return self.grouping.rules[value.node].outputs[value.output]

    def _summed(self) -> frozenset[Value]:
        """What is made in parts and read whole before the update."""
        whole: set[Value] = set()
        for number, node in enumerate(self.program.nodes):
            if node.phase is not Phase.UPDATE:
                reads = zip(
                    self.program.operands(number), self.grouping.rules[number].operands, strict=True
                )
                whole |= {v for v, place in reads if place == REPLICATED != self._made(v)}
        return frozenset(whole)

    def _reductions(self) -> tuple[Integers, Floats]:
        counts, total = np.zeros(self.update, np.int64), np.zeros(self.update)
        for value in self.summed:
            position = self.position[value.node]
            if 0 <= position < self.update:
                counts[position] += 1
                total[position] += self.program.type_of(value).num_bytes
        return counts, total

    # --- parameters --------------------------------------------------------------------------

    def _parameters(self) -> Parameters:
        program, group = self.program, self.grouping.group
        inputs = [i.node for i in program.inputs if i.role is Role.PARAMETER]
        gradients, products = self._gradients(), self._products()
        state = self._state_bytes()
        updates: dict[int, list[int]] = defaultdict(list)
        for number, parameter in enumerate(self.leads_to):
            if program.nodes[number].phase is Phase.UPDATE:
                updates[parameter].append(number)
        shape = (len(inputs), len(self.devices))
        product_s = np.zeros((*shape, self.grouping.rows + 1))
        factors, update_s = np.zeros(len(inputs)), np.zeros(shape)
        for at, node in enumerate(inputs):
            if node in products:
                product = products[node]
                factors[at] = sum(map(self.pricing.row_bytes, program.operands(product)))
                product_s[at] = self.pricing.table([product])
            update_s[at] = self._whole_seconds(updates[node])
        position, turn = self._completed([gradients[n] for n in inputs])
        found = layers(program)
        its_layers = [found.get(node) for node in inputs]
        return Parameters(
            node=_numbers(inputs),
            group=_numbers(group[n] for n in inputs),
            position=position,
            turn=turn,
            num_bytes=np.asarray([float(program.nodes[n].outputs[0].num_bytes) for n in inputs]),
            state_bytes=np.asarray([state[n] for n in inputs]),
            gradient_bytes=np.asarray(
                [float(sum(program.type_of(v).num_bytes for v in gradients[n])) for n in inputs]
            ),
            factor_row_bytes=factors,
            product_s=product_s,
            update_s=update_s,
            reader=_numbers(-1 if own is None else self._at(own.reader) for own in its_layers),
            read_row_bytes=np.asarray([self._read_row_bytes(own) for own in its_layers]),
            made_row_bytes=np.asarray(
                [0.0 if o is None else self.pricing.row_bytes(Value(o.reader)) for o in its_layers]
            ),
            columns=_numbers(self._size(own, Way.COLUMNS) for own in its_layers),
            summands=_numbers(self._size(own, Way.SUMMANDS) for own in its_layers),
            is_table=np.asarray(
                [own is not None and own.is_table(self.program) for own in its_layers],
                dtype=np.bool_,
            ),
        )

    def _read_row_bytes(self, layer: Layer | None) -> float:
        """Bytes of a row of what a layer reads beside its weight."""
        if layer is None:
            return 0.0
        return max(map(self.pricing.row_bytes, self.program.operands(layer.reader)))

    def _size(self, layer: Layer | None, way: Way) -> int:
        """Size of the dim of a layer's weight that a way cuts; 0 if there is none."""
        if layer is None or way not in layer.dims:
            return 0
        return self.program.nodes[layer.parameter].outputs[0].shape[layer.dims[way]]

    def _completed(self, gradients: Sequence[set[Value]]) -> tuple[Integers, Integers]:
        """Positions at which gradients are complete, and whose turn comes after them there."""
        waits = [self._last(self.summed), self._last(self.crossing)]
        last = [max((v.node for v in of), key=self._at, default=-1) for of in gradients]
        position = [min(self._at(n), self.update - 1) if n >= 0 else -1 for n in last]
        turn = [
            next((t for t, of in enumerate(waits) if p >= 0 and n < of[p]), len(waits))
            for n, p in zip(last, position, strict=True)
        ]
        return _numbers(position), _numbers(turn)

    def _at(self, node: int) -> int:
        return self.position[node]

    def _last(self, values: Iterable[Value]) -> list[int]:
        """At each position, the last node that makes one of these; -1 if none does."""
        found = [-1] * (self.update + 1)
        for value in values:
            if (position := self.position[value.node]) >= 0:
                found[position] = max(found[position], value.node)
        return found

    def _whole_seconds(self, nodes: Sequence[int]) -> Floats:
        """Time of nodes that no share of the batch makes shorter [device kind]."""
        return sum((self.pricing.seconds(n)[:, -1] for n in nodes), np.zeros(len(self.devices)))

    def _gradients(self) -> dict[int, set[Value]]:
        """For each parameter, what is made in parts before its update and read there."""
        found: dict[int, set[Value]] = defaultdict(set)
        for number, node in enumerate(self.program.nodes):
            parameter = self.leads_to[number]
            if node.phase is Phase.UPDATE and parameter >= 0:
                reads = self.program.operands(number)
                found[parameter] |= {v for v in reads if is_partial(self._made(v))}
        return found

    def _products(self) -> dict[int, int]:
        """For each parameter whose gradient is one product over all rows, that product."""
        found: dict[int, list[int]] = defaultdict(list)
        nodes = self.program.nodes
        for number, parameter in enumerate(self.leads_to):
            rule = self.grouping.rules[number]
            if (
                parameter >= 0
                and nodes[number].phase is Phase.BACKWARD
                and is_partial(rule.outputs[0])
                and min(rule.operands, default=REPLICATED) >= 0
                and nodes[number].outputs[0].num_elements
                == nodes[parameter].outputs[0].num_elements
            ):
                found[parameter].append(number)
        return {
            parameter: made[0]
            for parameter, made in found.items()
            if len(made) == 1 and operator(nodes[made[0]].op).kind is Kind.CONTRACT
        }

    def _state_bytes(self) -> dict[int, float]:
        found: dict[int, float] = defaultdict(float)
        for source in self.program.inputs:
            if source.parameter:
                owner = self.program.input_by_name[source.parameter].node
                found[owner] += self.program.nodes[source.node].outputs[0].num_bytes
        return found

    def _lasting(self) -> Floats:
        found = np.zeros(self.grouping.num_groups)
        for source in self.program.inputs:
            of_parameter = source.role is Role.PARAMETER or source.parameter
            if source.role.is_persistent and not of_parameter:
                num_bytes = self.program.nodes[source.node].outputs[0].num_bytes
                found[self.grouping.group[source.node]] += num_bytes
        return found

    def _rest(self) -> Floats:
        found = np.zeros((self.grouping.num_groups, len(self.devices)))
        for number, node in enumerate(self.program.nodes):
            if node.phase is Phase.UPDATE and self.leads_to[number] < 0:
                found[self.grouping.group[number]] += self._whole_seconds([number])
        return found

    # --- between groups ----------------------------------------------------------------------

    def _crossing(self) -> Mapping[Value, set[int]]:
        """Rows that other groups read, with positions of these."""
        free, group = floats(self.program), self.grouping.group
        readers: dict[Value, set[int]] = defaultdict(set)
        for number, node in enumerate(self.program.nodes):
            if node.phase is Phase.UPDATE:
                continue
            for value in self.program.operands(number):
                elsewhere = group[value.node] != group[number] and self.position[value.node] >= 0
                if elsewhere and not free[value.node] and self.pricing.row_bytes(value):
                    readers[value].add(self.position[number])
        return readers

    def _crossings(self) -> tuple[Crossing, ...]:
        merged: dict[tuple[int, tuple[int, ...]], float] = defaultdict(float)
        for value, positions in self.crossing.items():
            key = (self.position[value.node], tuple(sorted(positions)))
            merged[key] += self.pricing.row_bytes(value)
        return tuple(Crossing(*key, num_bytes) for key, num_bytes in sorted(merged.items()))


class _Memory:
    """Who holds what from where to where; views own nothing."""

    def __init__(self, of: _Sketching) -> None:
        self.of = of
        self.program = of.program
        self.root: dict[Value, Value] = {}
        self.last: dict[Value, int] = {}
        in_place = {value for _, value in self.program.updates}
        for number, node in enumerate(self.program.nodes):
            operands = self.program.operands(number)
            for value in operands:
                root = self.root[value]
                self.last[root] = max(self.last.get(root, -1), number)
            views = operands and (operator(node.op).kind is Kind.VIEW or node.op == "slice")
            for output in range(len(node.outputs)):
                value = Value(number, output)
                self.root[value] = self.root[operands[0]] if views else value
        self.owned = [
            value
            for value, root in self.root.items()
            if value == root and value not in in_place and not self._lasts(value)
        ]

    def _lasts(self, value: Value) -> bool:
        source = self.program.input_by_node.get(value.node)
        return source is not None and source.role is not Role.BATCH

    def measured(self) -> tuple[tuple[Floats, Floats], Floats, Floats]:
        """Bytes held [group, position], passing [position, (row, whole)], and in the update."""
        of, groups = self.of, self.of.grouping
        change = np.zeros((2, groups.num_groups, of.update + 2))
        dropped: dict[int, list[Value]] = defaultdict(list)
        for value in self.owned:
            start, end = self._span(value)
            if start == end:
                dropped[start].append(value)
                continue
            sizes = of.pricing.row_bytes(value), of.pricing.whole_bytes(value)
            for kind, num_bytes in enumerate(sizes):
                change[kind, groups.group[value.node], start] += num_bytes
                change[kind, groups.group[value.node], end + 1] -= num_bytes
        held = change.cumsum(axis=2)[:, :, : of.update + 1]
        passing = np.asarray([self._peak(dropped[p]) for p in range(of.update)]).reshape(-1, 2)
        by_group: dict[int, list[Value]] = defaultdict(list)
        for value in dropped[of.update]:
            by_group[groups.group[value.node]].append(value)
        update = [sum(self._peak(by_group[g])) for g in range(groups.num_groups)]
        return (held[0], held[1]), passing, np.asarray(update)

    def _span(self, value: Value) -> tuple[int, int]:
        """First and last position at which a value is needed."""
        of = self.of
        end = self.last.get(value, value.node)
        start = of.position[value.node]
        if start < 0:  # of the batch: from the first reader on
            start = min((of.position[n] for n, _ in self.program.users[value.node]), default=0)
        return start, max(start, of.position[end])

    def _peak(self, values: Sequence[Value]) -> tuple[float, float]:
        """Most bytes in use at once by values that come and go, of a row and whole."""
        pricing = self.of.pricing
        best, row, whole, most = (0.0, 0.0), 0.0, 0.0, 0.0
        for _, sign, value in sorted(self._events(values)):
            row += sign * pricing.row_bytes(value)
            whole += sign * pricing.whole_bytes(value)
            total = row * pricing.rows + whole
            if total > most:
                best, most = (row, whole), total
        return best

    def _events(self, values: Sequence[Value]) -> Iterator[tuple[int, int, Value]]:
        """An operand goes only once what is made of it is there."""
        for value in values:
            yield 2 * value.node, 1, value
            yield 2 * self.last.get(value, value.node) + 1, -1, value
