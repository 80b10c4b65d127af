"""Looking up before computing: of what is computed for all, a look-up wants a little.

A loss takes one logarithm of a probability from each row. Looked up where it was computed, it would
have to be written for the whole vocabulary first. What is computed element by element may be
computed of the elements that were looked up instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from weft.fusion.region import Region
from weft.program.builder import Builder
from weft.program.graph import Arg, Node, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["with_lookups_first"]

GATHER = "gather.default"
FEWER = 8
"""How many times fewer elements than there are a look-up has to want. Derived: computing some of
them twice is then less than a pass over memory."""


def with_lookups_first(region: Region) -> Region:
    """A region whose look-ups in computed tensors are computations on look-ups in inputs."""
    program = region.program
    if not any(node.op == GATHER for node in program.nodes):
        return region
    builder, moved = Builder(program.name), dict[Value, Value]()
    inputs = {given.node: given for given in program.inputs}
    for number, node in enumerate(program.nodes):
        if node.op == "input":
            given = inputs[number]
            moved[Value(number)] = builder.input(
                given.name, given.role, node.outputs[0], given.parameter, node.scope, given.shape
            )
            continue
        if node.op == GATHER:
            lookup = _Lookup(program, builder, moved, node)
            if lookup.pays:
                moved[Value(number)] = lookup.of(lookup.source)
                continue
        args = tuple(_replaced(arg, moved) for arg in node.args)
        made = builder.copy(node, args)
        moved |= {Value(number, at): value for at, value in enumerate(made)}
    outputs = tuple(moved[value] for value in region.outputs)
    return replace(region, program=builder.build(outputs[0]), outputs=outputs)


def _replaced(arg: Arg, moved: Mapping[Value, Value]) -> Arg:
    if isinstance(arg, Value):
        return moved[arg]
    return tuple(_replaced(own, moved) for own in arg) if isinstance(arg, tuple) else arg


@dataclass
class _Lookup:
    """A look-up, made of what the tensor is computed from."""

    program: Program
    builder: Builder
    moved: Mapping[Value, Value]
    node: Node

    @property
    def source(self) -> Value:
        """What is looked up."""
        (source, _, _) = self.node.args
        assert isinstance(source, Value)
        return source

    @property
    def _dim(self) -> int:
        (_, dim, _) = self.node.args
        assert isinstance(dim, int)
        return dim % max(len(self._shape(self.source)), 1)

    @property
    def pays(self) -> bool:
        """Whether it can be made of what is looked up in inputs, and wants little of them."""
        own, wanted = self._shape(self.source), self.node.outputs[0].shape
        is_row = _without(own, self._dim) == _without(wanted, self._dim)
        few = FEWER * prod(wanted) <= prod(own)
        return is_row and few and not self._is_given(self.source) and self._reaches(self.source)

    def _shape(self, value: Value) -> tuple[int, ...]:
        return self.program.type_of(value).shape

    def _is_given(self, value: Value) -> bool:
        """Whether a value is an input, or a view of one."""
        node = self.program.nodes[value.node]
        if node.op == "view":
            return self._is_given(self.program.operands(value.node)[0])
        return node.op == "input"

    def _is_everywhere(self, value: Value) -> bool:
        """Whether a value is the same wherever it is looked up."""
        shape = self._shape(value)
        behind = len(self._shape(self.source)) - self._dim
        return len(shape) < behind or shape[-behind] == 1

    def _reaches(self, value: Value) -> bool:
        """Whether a value is computed, element by element, of what may be looked up."""
        if self._is_everywhere(value):
            return True
        if len(self._shape(value)) != len(self._shape(self.source)):
            return False
        if self._is_given(value):
            return self._shape(value) == self._shape(self.source)
        node = self.program.nodes[value.node]
        is_map = operator(node.op).kind is Kind.POINTWISE and len(node.outputs) == 1
        return is_map and all(map(self._reaches, self.program.operands(value.node)))

    def of(self, value: Value) -> Value:
        """What is looked up in a value."""
        if self._is_everywhere(value):
            return self.moved[value]
        if self._is_given(value):
            _, dim, index = self.node.args
            assert isinstance(index, Value)
            return self.builder.add(GATHER, self.moved[value], dim, self.moved[index])
        node = self.program.nodes[value.node]
        args = tuple(self.of(arg) if isinstance(arg, Value) else arg for arg in node.args)
        return self.builder.add(node.op, *args)


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], *shape[dim + 1 :])
