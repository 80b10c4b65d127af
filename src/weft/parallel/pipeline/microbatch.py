"""The program of one micro-batch: gradient accumulation as a split over time.

A step may do its batch in parts, one after the other, on the same devices. That is data
parallelism along an axis whose devices are moments: the rules that say what a cut of the batch
does to every operator say what a part of it does, and where a reduction over devices would
stand, the parts are added up. In the program of one part

- the batch, and what follows it, is a part as large as `1 / count` of the whole;
- an `accumulate` node stands where values of all parts are summed: gradients on their way to
  the update, the loss, and totals of the batch alone (how many tokens count), which are known
  before the first part begins;
- random masks and positions know which part they belong to.

Operators that mix samples in another way (statistics over the batch, capacity shared by all
tokens) would compute something else in parts, and are refused.

Source: gradient accumulation as a split onto a shared device in TePDist, the open form of Rhino
(arXiv 2302.08141); the formulation by rules is weft's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from weft.core.errors import InputError
from weft.parallel.greedy import greedy_axis
from weft.parallel.placement import (
    PARTIAL,
    REPLICATED,
    Mesh,
    Placement,
    format_sharding,
    local_type,
)
from weft.parallel.propagate import Axis
from weft.parallel.rules import Rule
from weft.parallel.spmd import localized
from weft.program.builder import Builder
from weft.program.graph import Arg, Node, Phase, Program, Role, Value, compact, map_values
from weft.program.types import DType, TensorType

__all__ = ["MICRO_BATCH", "batch_only", "in_micro_batches"]

MICRO_BATCH = "micro_batch"
"""Name of the input that counts the parts."""


def in_micro_batches(program: Program, count: int) -> Program:
    """The program of one of `count` parts of the batch.

    Args:
        program: one step, as captured or with recomputation.
        count: parts, at least 2; the first dim of every batch entry has to be a multiple of it.

    Raises:
        InputError: the batch does not divide, or an operator mixes samples.

    Example:
        >>> from weft.program.types import DType, TensorType
        >>> b = Builder("mean")
        >>> x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 2)))
        >>> total = b.add("sum", x, (0, 1))
        >>> [str(node.outputs[0]) for node in in_micro_batches(b.build(total), 4).nodes]
        ['f32[2,2]', 'f32[]', 'f32[]']
    """
    cut = _batch_cuts(program, count)
    rules = _as_read(program, count, greedy_axis(program, cut, count))
    rules = _as_made(program, count, rules)
    return _Parts(program, count, rules).build()


def batch_only(program: Program) -> list[bool]:
    """For each node, whether no parameter, state or random number takes part in it."""
    alone: list[bool] = []
    for number in range(len(program.nodes)):
        source = program.input_by_node.get(number)
        own = source is None or source.role in (Role.BATCH, Role.MICRO_BATCH)
        alone.append(own and all(alone[value.node] for value in program.operands(number)))
    return alone


def _batch_cuts(program: Program, count: int) -> dict[int, Placement]:
    cuts: dict[int, Placement] = {}
    for source in program.inputs:
        shape = program.nodes[source.node].outputs[0].shape
        if source.role is not Role.BATCH or not shape:
            continue
        if count < 2 or shape[0] % count:
            raise InputError(
                need="at least 2 micro-batches, in a number that divides the batch",
                got=f"{count} for {source.name} with {shape[0]} rows",
                hint=f"choose a divisor of {shape[0]}",
            )
        cuts[source.node] = 0
    return cuts


def _as_read(program: Program, count: int, rules: Sequence[Rule]) -> list[Rule]:
    """The rules, with what is repeated for every sample made for a part of them only.

    A class token, say: devices make it for all samples for nothing and read their own, but a
    moment that made it for all would have none of the others to give it to.
    """
    axis, found = Axis(program, count), list(rules)
    wanted: defaultdict[Value, set[Placement]] = defaultdict(set)
    for value in (program.loss, *(value for _, value in program.updates)):
        wanted[value].add(REPLICATED)
    for number in reversed(range(len(program.nodes))):
        made, places = found[number].outputs, wanted[Value(number)]
        given = number in program.input_by_node
        if made == (REPLICATED,) and len(places) == 1 and min(places) >= 0 and not given:
            fitting = (rule for rule in axis.rules(number) if rule.outputs == (*places,))
            found[number] = next(fitting, found[number])
        operands = zip(program.operands(number), found[number].operands, strict=True)
        for value, place in operands:
            wanted[value].add(place)
    return found


def _as_made(program: Program, count: int, rules: Sequence[Rule]) -> list[Rule]:
    """The rules, with sums taken as late as they can be.

    A reduction over devices is best done where a gradient is small, before it is cast to float32
    for the update. Over time it costs nothing but an addition, and the sum of many parts is
    better taken in float32. So a node of the backward pass reads what there is, if it may.

    Nor is there anything to gain from a cut of a parameter or a gradient: the update comes after
    the last part, and is whole.
    """
    axis, found = Axis(program, count), list(rules)
    for number, node in enumerate(program.nodes):
        operands = program.operands(number)
        made = tuple(found[value.node].outputs[value.output] for value in operands)
        rule = found[number]
        if node.phase is Phase.BACKWARD and made != rule.operands:
            fitting = (rule for rule in axis.rules(number) if rule.operands == made)
            found[number] = next(fitting, rule)
        if node.phase is Phase.UPDATE and (made != rule.operands or _cuts(rule)):
            whole = (other for other in axis.rules(number) if _is_whole(other))
            found[number] = next(whole, rule)
    return found


def _cuts(rule: Rule) -> bool:
    return any(place >= 0 for place in (*rule.operands, *rule.outputs))


def _is_whole(rule: Rule) -> bool:
    return all(place == REPLICATED for place in (*rule.operands, *rule.outputs))


class _Parts:
    """Rewrites a program for one part; lives only inside `in_micro_batches`."""

    def __init__(self, program: Program, count: int, rules: Sequence[Rule]) -> None:
        self._program = program
        self._count = count
        self._time = Mesh((count,))
        self._rules = rules
        self._builder = Builder(program.name)
        self._part: dict[Value, Value] = {}
        self._totals: dict[Value, tuple[Value, ...]] = {}
        self._summed = self._values_to_sum()
        self._index: Value | None = None

    def build(self) -> Program:
        for number, node in enumerate(self._program.nodes):
            outputs = self._add(number, node)
            if node.pins:
                self._builder.pin(outputs[0], node.pins)
            for output, made in enumerate(outputs):
                value = Value(number, output)
                self._part[value] = made
                if value in self._summed:
                    self._totals[value] = tuple(
                        self._emit(node, "accumulate", part)[0] for part in self._summands(value)
                    )
        loss = self._read(self._program.loss, REPLICATED)
        updates = tuple(
            (self._part[Value(old)], self._read(new, REPLICATED))
            for old, new in self._program.updates
        )
        return compact(self._builder.build(loss, updates))

    def _summands(self, value: Value) -> list[Value]:
        """What to add up over the parts for the sum of a value.

        The gradient of a weight that is read in several places is a sum itself. Its summands may
        come from different stages, so each is added up by itself: what is then sent from stage to
        stage is sent once.
        """
        node = self._program.nodes[value.node]
        if node.phase is Phase.BACKWARD:
            operands = self._program.operands(value.node)
            partial = all(place == PARTIAL for place in self._rules[value.node].operands)
            if node.op == "add.Tensor" and len(operands) == len(node.args) == 2 and partial:
                return [part for operand in operands for part in self._summands(operand)]
            if node.op == "cast" and partial and len(inner := self._summands(operands[0])) > 1:
                return [self._emit(node, "cast", part, *node.args[1:])[0] for part in inner]
        return [self._part[value]]

    def _add(self, number: int, node: Node) -> tuple[Value, ...]:
        source = self._program.input_by_node.get(number)
        if source is not None:
            part = self._type(Value(number))
            return (
                self._builder.input(
                    source.name, source.role, part, source.parameter, node.scope, source.shape
                ),
            )
        operands = zip(self._program.operands(number), self._rules[number].operands, strict=True)
        read = iter([self._read(value, wanted) for value, wanted in operands])
        args = map_values(node.args, lambda _: next(read))
        shapes = tuple(self._type(Value(number, n)).shape for n in range(len(node.outputs)))
        args = localized(node.op, args, shapes, lambda value: self._builder.type_of(value).shape)
        return self._applied(number, node, args)

    def _applied(self, number: int, node: Node, args: tuple[Arg, ...]) -> tuple[Value, ...]:
        place = self._rules[number].outputs[0]
        if place < 0 or node.op not in ("uniform", "iota"):
            return self._emit(node, node.op, *args)
        index = self._part_number(node)
        if node.op == "uniform":
            seed, *rest = args
            return self._emit(node, "uniform_part", seed, index, *rest, place, self._count)
        length, _, step, dtype = args
        assert isinstance(length, int) and isinstance(step, int | float) and isinstance(dtype, str)
        (first,) = self._emit(node, "iota", *args)
        (wide,) = self._emit(node, "cast", index, dtype)
        (shift,) = self._emit(node, "mul.Scalar", wide, length * step)
        return self._emit(node, "add.Tensor", first, shift)

    def _emit(self, node: Node, op: str, *args: Arg) -> tuple[Value, ...]:
        return self._builder.add_all(
            op, *args, phase=node.phase, scope=node.scope, source=node.source
        )

    def _part_number(self, node: Node) -> Value:
        if self._index is None:
            scalar = TensorType(DType.I64, ())
            self._index = self._builder.input(MICRO_BATCH, Role.MICRO_BATCH, scalar)
        return self._index

    def _type(self, value: Value) -> TensorType:
        made = self._rules[value.node].outputs[value.output]
        return local_type(self._time, (made,), self._program.type_of(value))

    def _read(self, value: Value, wanted: Placement) -> Value:
        made = self._rules[value.node].outputs[value.output]
        return self._part[value] if made == wanted else self._total(value)

    def _total(self, value: Value) -> Value:
        first, *others = self._totals[value]
        node = self._program.nodes[value.node]
        for other in others:
            first = self._builder.add(
                "add.Tensor", first, other, phase=Phase.UPDATE, scope=node.scope
            )
        self._totals[value] = (first,)
        return first

    def _values_to_sum(self) -> frozenset[Value]:
        program, alone = self._program, batch_only(self._program)
        summed: set[Value] = set()
        for reader, node in enumerate(program.nodes):
            for value, wanted in zip(
                program.operands(reader), self._rules[reader].operands, strict=True
            ):
                made = self._rules[value.node].outputs[value.output]
                if made == wanted:
                    continue
                after = node.phase is Phase.UPDATE or alone[value.node]
                if (made, wanted) != (PARTIAL, REPLICATED) or not after:
                    raise self._mixing(value, reader, made, wanted)
                summed.add(value)
        for value in (program.loss, *(value for _, value in program.updates)):
            made = self._rules[value.node].outputs[value.output]
            if made == PARTIAL:
                summed.add(value)
            elif made != REPLICATED:
                raise self._mixing(value, value.node, made, REPLICATED)
        return frozenset(summed)

    def _mixing(self, value: Value, reader: int, made: Placement, wanted: Placement) -> InputError:
        node = self._program.nodes[reader]
        where = f"{node.op} in {node.scope or 'the loss'} {node.source}".rstrip()
        return InputError(
            need="a step whose micro-batches meet in sums only: of gradients and of the loss",
            got=f"{where} reads {self._program.type_of(value)} as {format_sharding((wanted,))}, "
            f"which one micro-batch makes as {format_sharding((made,))}",
            hint="train without micro-batches and pipeline stages, or make what mixes samples "
            "(statistics over the batch, shared capacity) work on each sample",
        )
