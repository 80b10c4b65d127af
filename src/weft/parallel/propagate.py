"""What a few placements force on the rest of a program, along one mesh axis.

A seed says where one value lies. A node that can only agree with what is known by one
placement of another value forces it, forward to its readers and backward to its producers,
until nothing changes. Where no rule agrees, data has to move: that is a conflict, and it is
reported, not solved. `weft.parallel.greedy` solves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import prod
from types import MappingProxyType

from weft.core.errors import InputError
from weft.parallel.placement import Mesh, Placement, Sharding, format_sharding
from weft.parallel.plan import Strategy
from weft.parallel.rules import Rule, RuleBook
from weft.program.graph import Program, Value
from weft.program.types import TensorType

__all__ = ["Axis", "AxisRules", "Conflict", "Propagation", "combine", "grid", "propagate", "spread"]

NOTHING: Mapping[Value, Placement] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class AxisRules:
    """What one mesh axis of `size` devices does: a rule for each node of a program.

    Attributes:
        size: devices along it, or the sum of their shares.
        rules: one for each node.
        shares: see `Mesh`; () for an axis that cuts evenly.
    """

    size: int
    rules: tuple[Rule, ...]
    shares: tuple[int, ...] = ()

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """For each node a number: equal for nodes of equal rules."""
        known: dict[Rule, int] = {}
        return tuple([known.setdefault(rule, len(known)) for rule in self.rules])


def grid(axes: Sequence[AxisRules]) -> Mesh:
    """The mesh of some axes, outermost first."""
    shares = tuple(axis.shares for axis in axes)
    shape = tuple(len(axis.shares) or axis.size for axis in axes)
    return Mesh(shape, shares if any(shares) else ())


def combine(axes: Sequence[AxisRules]) -> tuple[Strategy, ...]:
    """Strategies of a mesh, one for each node, from the rules of its axes, outermost first."""
    return tuple(
        Strategy(
            outputs=tuple(zip(*(rule.outputs for rule in of_node), strict=True)),
            operands=tuple(zip(*(rule.operands for rule in of_node), strict=True)),
        )
        for of_node in zip(*(axis.rules for axis in axes), strict=True)
    )


class Axis:
    """One mesh axis of `size` devices, after the axes outside it have been decided."""

    def __init__(
        self,
        program: Program,
        size: int,
        previous: Sequence[AxisRules] = (),
        book: RuleBook | None = None,
    ) -> None:
        if size < 1 or any(len(axis.rules) != len(program.nodes) for axis in previous):
            raise InputError(
                need=f"at least one device, and earlier rules for {len(program.nodes)} nodes",
                got=f"{size} devices, rules for {[len(axis.rules) for axis in previous]} nodes",
                hint="make the rules of every axis from the same program",
            )
        self.program = program
        self.size = size
        self._previous = previous
        self._book = book or RuleBook(program)
        self._rules: dict[int, tuple[Rule, ...]] = {}
        self._num_bytes: dict[int, tuple[float, ...]] = {}
        self._values: dict[int, tuple[Value, ...]] = {}

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """For each node a number: equal for nodes of one kind that earlier axes treat alike."""
        known: dict[tuple[int, ...], int] = {}
        keys = zip(self.program.kinds, *(axis.numbers for axis in self._previous), strict=True)
        return tuple([known.setdefault(key, len(known)) for key in keys])

    def rules(self, node: int) -> tuple[Rule, ...]:
        """Rules of a node whose cut dims divide, given what earlier axes already cut.

        Raises:
            RuleError: no rule covers the operator.
        """
        kind = self.kinds[node]
        found = self._rules.get(kind)
        if found is None:
            outputs = self.program.nodes[node].outputs
            operands = tuple(map(self.program.type_of, self.program.operands(node)))
            earlier = tuple(axis.rules[node] for axis in self._previous)
            found = self._rules[kind] = tuple(
                rule
                for rule in self._book.rules(node)
                if self._divides(rule, earlier, operands, outputs)
            )
        return found

    def values(self, node: int) -> tuple[Value, ...]:
        """What a node makes, and what it reads."""
        found = self._values.get(node)
        if found is None:
            many = len(self.program.nodes[node].outputs)
            made = (Value(node, output) for output in range(many))
            found = self._values[node] = (*made, *self.program.operands(node))
        return found

    def num_bytes(self, value: Value) -> float:
        """Bytes of a value on one device if this axis replicates it, as earlier axes cut it."""
        kind = self.kinds[value.node]
        found = self._num_bytes.get(kind)
        if found is None:
            found = self._num_bytes[kind] = self._made_bytes(value.node)
        return found[value.output]

    def _made_bytes(self, node: int) -> tuple[float, ...]:
        made: list[float] = []
        for output, tensor in enumerate(self.program.nodes[node].outputs):
            cuts = (axis for axis in self._previous if axis.rules[node].outputs[output] >= 0)
            made.append(tensor.num_bytes / prod(axis.size for axis in cuts))
        return tuple(made)

    def _divides(
        self,
        rule: Rule,
        earlier: tuple[Rule, ...],
        operands: tuple[TensorType, ...],
        outputs: tuple[TensorType, ...],
    ) -> bool:
        cuts = zip(
            rule.outputs + rule.operands,
            outputs + operands,
            zip(*(past.outputs + past.operands for past in earlier), strict=True)
            if earlier
            else ((),) * (len(outputs) + len(operands)),
            strict=True,
        )
        return all(
            dim < 0 or tensor.shape[dim] % (self.size * self._parts(dim, past)) == 0
            for dim, tensor, past in cuts
        )

    def _parts(self, dim: int, past: Sharding) -> int:
        pairs = zip(past, self._previous, strict=True)
        return prod(axis.size for placement, axis in pairs if placement == dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A node that no rule lets agree with what is known: data must move there.

    `operands` and `outputs` are the placements known at the time, None where unknown.
    """

    node: int
    op: str
    scope: str
    operands: tuple[Placement | None, ...]
    outputs: tuple[Placement | None, ...]

    def __str__(self) -> str:
        where = f" ({self.scope})" if self.scope else ""
        return (
            f"%{self.node} {self.op}{where}: no rule makes {_known_text(self.outputs)} "
            f"from {_known_text(self.operands)}"
        )


def _known_text(placements: tuple[Placement | None, ...]) -> str:
    return ",".join("?" if p is None else format_sharding((p,)) for p in placements) or "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """Placements that follow from seeds, and the nodes where they clash."""

    placements: Mapping[Value, Placement]
    conflicts: tuple[Conflict, ...]


def propagate(
    program: Program,
    seeds: Mapping[Value, Placement],
    axis_size: int,
    previous: Sequence[AxisRules] = (),
) -> Propagation:
    """Placements that seeds force without any data movement, forward and backward.

    Args:
        program: the step.
        seeds: placements that are given.
        axis_size: devices along the axis.
        previous: what earlier, outer axes do.

    Returns:
        All placements that follow, seeds included, and the conflicts in execution order. A
        node in conflict forces nothing further.

    Raises:
        RuleError: no rule covers an operator.
        InputError: a seed is no value of the program.
    """
    return spread(Axis(program, axis_size, previous), seeds)


def spread(
    axis: Axis,
    seeds: Mapping[Value, Placement],
    known: Mapping[Value, Placement] = NOTHING,
    *,
    to_first_conflict: bool = False,
) -> Propagation:
    """The same along an axis at hand, on top of what is known already.

    Args:
        axis: whose rules hold.
        seeds: placements that are given; where they contradict what is known, that is a conflict
            at the node that makes the value.
        known: placements to which nothing that they force is left to be added.
        to_first_conflict: end at the first node that is in conflict, for whoever wants none.

    Returns:
        As `propagate` does; what was known and conflicts that were there before are not repeated.

    Raises:
        RuleError: no rule covers an operator.
        InputError: a seed is no value of the program.
    """
    program = axis.program
    for value in seeds:
        _require_value(program, value)
    added = {value: place for value, place in seeds.items() if value not in known}
    found = {**known, **added}
    conflicts = {
        value.node: _conflict(program, value.node, {**found, value: place})
        for value, place in seeds.items()
        if found[value] != place
    }
    waiting = deque(dict.fromkeys(chain.from_iterable(_around(program, v) for v in added)))
    while waiting and not (to_first_conflict and conflicts):
        node = waiting.popleft()
        if node in conflicts:
            continue
        values = axis.values(node)
        agreeing = [rule for rule in axis.rules(node) if _agrees(rule, values, found)]
        if not agreeing:
            conflicts[node] = _conflict(program, node, found)
            continue
        for value, options in zip(
            values, zip(*map(_placements, agreeing), strict=True), strict=True
        ):
            if value not in found and len(set(options)) == 1:
                found[value] = added[value] = options[0]
                waiting.extend(n for n in _around(program, value) if n != node)
    return Propagation(
        placements=added, conflicts=tuple(conflicts[node] for node in sorted(conflicts))
    )


def _placements(rule: Rule) -> Sharding:
    return rule.outputs + rule.operands


def _agrees(rule: Rule, values: Sequence[Value], known: Mapping[Value, Placement]) -> bool:
    """True if the rule has known values where they are, and reads a repeated value in one place."""
    mine: dict[Value, Placement] = {}
    for value, place in zip(values, _placements(rule), strict=True):
        if known.get(value, place) != place or mine.setdefault(value, place) != place:
            return False
    return True


def _around(program: Program, value: Value) -> Iterator[int]:
    """The node that makes a value and those that read it."""
    yield value.node
    for reader, position in program.users[value.node]:
        if program.operands(reader)[position] == value:
            yield reader


def _conflict(program: Program, node: int, known: Mapping[Value, Placement]) -> Conflict:
    this = program.nodes[node]
    return Conflict(
        node=node,
        op=this.op,
        scope=this.scope,
        operands=tuple(known.get(value) for value in program.operands(node)),
        outputs=tuple(known.get(Value(node, output)) for output in range(len(this.outputs))),
    )


def _require_value(program: Program, value: Value) -> None:
    if not (
        0 <= value.node < len(program.nodes)
        and 0 <= value.output < len(program.nodes[value.node].outputs)
    ):
        raise InputError(
            need=f"seeds that are values of {program.name}",
            got=str(value),
            hint=f"it has nodes 0 to {len(program.nodes) - 1}",
        )
