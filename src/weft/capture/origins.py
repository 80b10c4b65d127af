"""Where dims come from: which slices of a forward are slices along a dim of a parameter.

A dim of a weight is followed through products, permutations, views and element-wise operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from weft.program.graph import Node, Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = ["Slice", "parameter_slices"]

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Origin:
    """Which dim of an input a value's dim runs along, and how many of its elements in one step.

    `projected`: whether it came through a product, as biases of fused projections have not.
    """

    node: int
    dim: int
    step: int
    projected: bool


_Along: TypeAlias = tuple[frozenset[_Origin], ...]
"""Origins of each dim of a value."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Elements of an input's dim that the forward takes, and in what steps it counts them."""

    start: int
    end: int
    step: int


def parameter_slices(program: Program) -> dict[tuple[int, int], set[Slice]]:
    """Slices in the forward along dims of parameters, by node and dim of the parameter.

    Those of parameters that no product has read on the way, such as tables of positions, do not
    count.
    """
    found: dict[tuple[int, int], set[Slice]] = {}
    along: dict[Value, _Along] = {
        Value(i.node): tuple(
            frozenset({_Origin(i.node, dim, 1, False)})
            for dim in range(len(program.nodes[i.node].outputs[0].shape))
        )
        for i in program.inputs
        if i.role in (Role.PARAMETER, Role.BUFFER)
    }
    for number, node in enumerate(program.nodes):
        if node.phase is not Phase.FORWARD or not any(v in along for v in program.operands(number)):
            continue
        made = _passed_on(program, number, along)
        if any(made):
            along[Value(number)] = made
        if node.op == "slice":
            for origin, piece in _taken(node, along[program.operands(number)[0]]):
                found.setdefault((origin.node, origin.dim), set()).add(piece)
    return found


def _taken(node: Node, along: _Along) -> Iterator[tuple[_Origin, Slice]]:
    _, dim, start, end, step = node.args
    assert isinstance(dim, int) and isinstance(start, int) and isinstance(end, int)
    origins = along[dim]
    if step == 1 and any(origin.projected for origin in origins):
        for origin in origins:
            yield origin, Slice(start * origin.step, end * origin.step, origin.step)


def _passed_on(program: Program, number: int, along: Mapping[Value, _Along]) -> _Along:
    """Origins of the dims of a node's first output."""
    node, operands = program.nodes[number], program.operands(number)
    shape = node.outputs[0].shape
    known = [along.get(v, (frozenset(),) * len(program.type_of(v).shape)) for v in operands]
    if node.op == "einsum":
        return _through_product(str(node.args[0]), known)
    if node.op == "permute" and isinstance(node.args[1], tuple):
        return tuple(known[0][dim] for dim in node.args[1] if isinstance(dim, int))
    if node.op == "view":
        return _through_view(program.type_of(operands[0]).shape, shape, known[0])
    if node.op == "slice":
        return tuple(o if d != node.args[1] else frozenset() for d, o in enumerate(known[0]))
    if operator(node.op).kind is Kind.POINTWISE:
        dims = range(-len(shape), 0)
        return tuple(
            frozenset(
                origin
                for value, origins in zip(operands, known, strict=True)
                if len(origins) >= -dim and program.type_of(value).shape[dim] == shape[dim]
                for origin in origins[dim]
            )
            for dim in dims
        )
    return (frozenset(),) * len(shape)


def _through_product(equation: str, known: list[_Along]) -> _Along:
    left, _, out = equation.partition("->")
    found: dict[str, frozenset[_Origin]] = {}
    for term, origins in zip(left.split(","), known, strict=True):
        for letter, here in zip(term, origins, strict=True):
            projected = frozenset(replace(origin, projected=True) for origin in here)
            found[letter] = found.get(letter, frozenset()) | projected
    return tuple(found[letter] for letter in out)


def _through_view(source: Shape, target: Shape, known: _Along) -> _Along:
    """A dim keeps its origins, and the first dim of several that a dim is split into gets them."""
    made = [frozenset[_Origin]()] * len(target)
    places = {start: dim for dim, start in _starts(target)}
    for dim, start in _starts(source):
        place = places.get(start)
        # Elements before the next dim of the source: in one step of the target's dim.
        if place is None or source[dim] % target[place]:
            continue
        step = source[dim] // target[place]
        made[place] = frozenset(replace(o, step=o.step * step) for o in known[dim])
    return tuple(made)


def _starts(shape: Shape) -> Iterator[tuple[int, int]]:
    """Each dim of more than one element, with the elements of all dims before it."""
    before = 1
    for dim, size in enumerate(shape):
        if size > 1:
            yield dim, before
        before *= size
