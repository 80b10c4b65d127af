"""Folding: one layer stands for all that are alike, so that planning does not grow with depth.

Two layers of a stack are alike if their nodes correspond one to one: same operator, constants,
types and phase, and operands that are either the same value, or correspond themselves, or lie
in layers at the same distance. The next value of an input counts as an operand of it. Layers
that are alike are folded if their neighbours are of one kind as well, so that patterns such as
two local layers and a global one keep their places apart. The first and the last layer of a
stack always stand for themselves: what surrounds them is different.

Only the salt of random numbers may differ: it tells masks apart and changes nothing else.
Nodes that are pinned differently are not alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from weft.core.errors import VerifyError
from weft.program.annotation import Wish
from weft.program.graph import Arg, Node, Program, Value
from weft.program.layers import MIN_LAYERS, Assignment, assign_layers
from weft.program.salt import unsalted

__all__ = ["Folding", "Layer", "Marks", "fold", "verify_folding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a stack of repeated layers.

    Attributes:
        stack: module path of the stack, such as "model.layers".
        index: number of the layer.
        nodes: its nodes: forward, backward, update and inputs. The k-th node of a layer
            corresponds to the k-th of the layer that stands for it.
        representative: index of the layer of the stack that stands for it.
    """

    stack: str
    index: int
    nodes: tuple[int, ...]
    representative: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Folding:
    """Which node stands for which.

    Attributes:
        representative: for each node the node that stands for it; itself if it does.
        multiplicity: for each node how many nodes it stands for, 0 if another stands for it.
        layers: the layers of all stacks, by stack and index.
    """

    representative: tuple[int, ...]
    multiplicity: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def num_representatives(self) -> int:
        """Nodes that are left to decide about."""
        return sum(count > 0 for count in self.multiplicity)


Marks: TypeAlias = Mapping[int, Hashable]
"""What tells nodes apart beyond what the program says of them, by node number."""

_NO_MARKS: Marks = MappingProxyType({})


def fold(program: Program, marks: Marks = _NO_MARKS) -> Folding:
    """Fold the repeated layers of a program.

    Args:
        program: one step.
        marks: nodes with different marks are not folded onto one another.

    Returns:
        The folding; without repeated layers every node stands for itself.

    Raises:
        VerifyError: the folding found is not one (a mistake of this module).
    """
    banned: frozenset[str] = frozenset()
    while True:
        assignment = assign_layers(program, banned)
        stands_for = _match(program, assignment, marks)
        idle = _stacks_without_repeats(assignment, stands_for)
        if not idle:
            break
        # A stack of different modules may hide stacks of equal ones inside its members.
        banned |= idle
    folding = _folding(len(program.nodes), assignment, stands_for)
    verify_folding(program, folding, marks)
    return folding


def _stacks_without_repeats(assignment: Assignment, stands_for: list[int]) -> frozenset[str]:
    stacks = {stack for stack, _ in assignment.layers}
    repeating = {
        assignment.layers[layer][0] for layer, other in enumerate(stands_for) if other != layer
    }
    return frozenset(stacks - repeating)


def _match(program: Program, assignment: Assignment, marks: Marks) -> list[int]:
    """For each layer the position of the layer that stands for it."""
    signatures = _Signatures(program, assignment, marks)
    numbers: dict[tuple[Hashable, ...], int] = {}
    positions = range(len(assignment.layers))
    alike = [numbers.setdefault(signatures.full(p), len(numbers)) for p in positions]
    kinds = [numbers.setdefault(signatures.kind(p), len(numbers)) for p in positions]
    stands_for = list(positions)
    for run in _stack_runs(assignment):
        groups: list[_Group] = []
        first, last = run[1], run[-2]
        # Layers next to the first and the last one join last: they may fit several groups.
        for position in sorted(run[1:-1], key=lambda p: (p in (first, last), p)):
            before = None if position == first else kinds[position - 1]
            after = None if position == last else kinds[position + 1]
            candidate = _Group(alike[position], before, after, [position])
            if not any(group.absorb(candidate) for group in groups):
                groups.append(candidate)
        for group in groups:
            for position in group.members:
                stands_for[position] = min(group.members)
    return stands_for


def _stack_runs(assignment: Assignment) -> Iterator[list[int]]:
    """Positions of the layers of each stack that is long enough to fold."""
    runs: dict[str, list[int]] = {}
    for position, (stack, _) in enumerate(assignment.layers):
        runs.setdefault(stack, []).append(position)
    return (run for run in runs.values() if len(run) >= MIN_LAYERS)


@dataclass(slots=True)
class _Group:
    """Layers that are alike and have neighbours of the same kinds, None where unknown."""

    alike: int
    before: int | None
    after: int | None
    members: list[int]

    def absorb(self, other: _Group) -> bool:
        """Take the other's members if the two agree."""
        fits = (
            self.alike == other.alike
            and (None in (self.before, other.before) or self.before == other.before)
            and (None in (self.after, other.after) or self.after == other.after)
        )
        if fits:
            self.before = other.before if self.before is None else self.before
            self.after = other.after if self.after is None else self.after
            self.members += other.members
        return fits


class _Signatures:
    """Descriptions of layers that are equal exactly for layers that are alike."""

    def __init__(self, program: Program, assignment: Assignment, marks: Marks) -> None:
        self._program = program
        self._assignment = assignment
        self._marks = marks
        self._next_value = dict(program.updates)
        self._shared = _read_from_afar(program, assignment)

    def kind(self, position: int) -> tuple[Hashable, ...]:
        """What a layer consists of, without its connections."""
        nodes = [(self._assignment.keys[n], n) for n in self._assignment.nodes[position]]
        return tuple((key, self._program.nodes[n].outputs) for key, n in sorted(nodes))

    def full(self, position: int) -> tuple[Hashable, ...]:
        """A layer's nodes with constants, types and connections, in an order of their own."""
        nodes = [(self._assignment.keys[n], n) for n in self._assignment.nodes[position]]
        return tuple((key, self._record(position, n)) for key, n in sorted(nodes))

    def _record(self, position: int, number: int) -> tuple[Hashable, ...]:
        node = self._program.nodes[number]

        def refer(value: Value) -> Hashable:
            return self._reference(position, value)

        told_apart = (_wishes(node), self._marks.get(number))
        if node.op == "input":
            after = self._next_value.get(number)
            role = self._program.input_by_node[number].role.value
            return (role, node.outputs, None if after is None else refer(after), told_apart)
        return (node.outputs, _described(unsalted(node), refer), told_apart)

    def _reference(self, position: int, value: Value) -> Hashable:
        """The value itself, or where it lies as seen from a layer."""
        assignment = self._assignment
        other = assignment.layer[value.node]
        if other < 0 or value.node in self._shared:
            return value
        stack, index = assignment.layers[position]
        other_stack, other_index = assignment.layers[other]
        if other_stack != stack:
            return value
        made = self._program.type_of(value)
        return (other_index - index, assignment.keys[value.node], value.output, made)


def _read_from_afar(program: Program, assignment: Assignment) -> frozenset[int]:
    """Nodes of one layer that serve the layers of a whole stack, such as a table made once.

    In a chain, a layer reads from its neighbours only.
    """
    shared: set[int] = set()
    for number, layer in enumerate(assignment.layer):
        if layer < 0 or not assignment.named[number]:
            continue
        stack, index = assignment.layers[layer]
        for value in program.operands(number):
            other = assignment.layer[value.node]
            if other not in (layer, -1):
                other_stack, other_index = assignment.layers[other]
                if other_stack == stack and abs(other_index - index) > 1:
                    shared.add(value.node)
    return frozenset(shared)


def _wishes(node: Node) -> tuple[Wish, ...]:
    return tuple(pin.wish for pin in node.pins)


def _described(args: tuple[Arg, ...], refer: Callable[[Value], Hashable]) -> Hashable:
    # 1, 1.0 and True are equal in Python and different in a program.
    return tuple(
        refer(arg)
        if isinstance(arg, Value)
        else _described(arg, refer)
        if isinstance(arg, tuple)
        else (type(arg).__name__, arg)
        for arg in args
    )


def _folding(num_nodes: int, assignment: Assignment, stands_for: list[int]) -> Folding:
    representative = list(range(num_nodes))
    layers: list[Layer] = []
    for position, (stack, index) in enumerate(assignment.layers):
        nodes = _in_key_order(assignment, position)
        model = _in_key_order(assignment, stands_for[position])
        if stands_for[position] != position:
            for node, other in zip(nodes, model, strict=True):
                representative[node] = other
        other_index = assignment.layers[stands_for[position]][1]
        layers.append(Layer(stack=stack, index=index, nodes=nodes, representative=other_index))
    counts = Counter(representative)
    return Folding(
        representative=tuple(representative),
        multiplicity=tuple(counts[node] for node in range(num_nodes)),
        layers=tuple(layers),
    )


def _in_key_order(assignment: Assignment, position: int) -> tuple[int, ...]:
    return tuple(sorted(assignment.nodes[position], key=lambda node: assignment.keys[node]))


def verify_folding(program: Program, folding: Folding, marks: Marks = _NO_MARKS) -> None:
    """Check that a folding maps the program onto itself, edges onto edges.

    For each folded node and the node that stands for it: operator, constants, types, phase,
    pins, marks and role are equal, and each operand of the one corresponds to that operand of the
    other: it is the same value, or one stands for both, or, between the same two layers, always
    the same other value at the same distance in layers.

    Raises:
        VerifyError: the first node that breaks a law.
    """
    _verify_counts(program, folding)
    home = {n: layer for layer in folding.layers for n in layer.nodes}
    by_index = {(layer.stack, layer.index): layer for layer in folding.layers}
    next_value = dict(program.updates)
    for layer in folding.layers:
        if layer.representative == layer.index:
            continue
        model = by_index[layer.stack, layer.representative]
        image: dict[Value, Value] = {}
        for node, other in zip(layer.nodes, model.nodes, strict=True):
            if folding.representative[node] != other:
                raise _broken(node, other, "layers that are folded node by node")
            _verify_alike(program, node, other)
            if marks.get(node) != marks.get(other):
                raise _broken(node, other, "equal marks")
            read = [*program.operands(node), *_as_list(next_value.get(node))]
            stood_for = [*program.operands(other), *_as_list(next_value.get(other))]
            if len(read) != len(stood_for):
                raise _broken(node, other, "as many operands and updates")
            for value, counterpart in zip(read, stood_for, strict=True):
                image_before = image.setdefault(counterpart, value)
                shift = layer.index - model.index
                if image_before != value or not _corresponds(
                    program, folding, home, value, counterpart, shift
                ):
                    raise _broken(
                        node, other, f"operands that correspond, not {value} and {counterpart}"
                    )


def _verify_counts(program: Program, folding: Folding) -> None:
    counts = Counter(folding.representative)
    for node, other in enumerate(folding.representative):
        if folding.representative[other] != other:
            raise _broken(node, other, "representatives that stand for themselves")
        if folding.multiplicity[node] != counts[node]:
            raise _broken(node, other, "multiplicities that count the nodes stood for")
    if len(folding.representative) != len(program.nodes):
        raise _broken(len(program.nodes), len(folding.representative), "an entry for each node")
    folded = {node for node, other in enumerate(folding.representative) if other != node}
    listed = {
        node
        for layer in folding.layers
        if layer.representative != layer.index
        for node in layer.nodes
    }
    if folded != listed:
        node = min(folded ^ listed)
        raise _broken(node, folding.representative[node], "folded nodes in folded layers")


def _verify_alike(program: Program, node: int, other: int) -> None:
    a, b = program.nodes[node], program.nodes[other]
    if (a.op, a.outputs, a.phase) != (b.op, b.outputs, b.phase):
        raise _broken(node, other, "one operator, type and phase")
    if _wishes(a) != _wishes(b):
        raise _broken(node, other, "equal pins")
    if a.op == "input":
        if program.input_by_node[node].role is not program.input_by_node[other].role:
            raise _broken(node, other, "one role")
        return

    def ignore(value: Value) -> Hashable:
        return None

    if _described(unsalted(a), ignore) != _described(unsalted(b), ignore):
        raise _broken(node, other, "equal constants")


def _corresponds(
    program: Program,
    folding: Folding,
    home: dict[int, Layer],
    value: Value,
    counterpart: Value,
    shift: int,
) -> bool:
    if value == counterpart:
        return True
    if value.output != counterpart.output:
        return False
    if folding.representative[value.node] == folding.representative[counterpart.node]:
        return True
    here, there = home.get(value.node), home.get(counterpart.node)
    return (
        here is not None
        and there is not None
        and here.stack == there.stack
        and here.index - there.index == shift
        and program.nodes[value.node].op == program.nodes[counterpart.node].op
        and program.type_of(value) == program.type_of(counterpart)
    )


def _as_list(value: Value | None) -> list[Value]:
    return [] if value is None else [value]


def _broken(node: int, other: int, need: str) -> VerifyError:
    return VerifyError(need=need, got=f"node %{node} folded onto %{other}")
