"""Fused parameters: dims that the forward takes apart in blocks, held as factors.

A projection to [3D] of which thirds become query, key and value is split over devices well
only if each device has its part of every third. So the program holds its weight as [3,D,D]:
cutting the second dim does that, and every rule, cost and planner sees an ordinary tensor.

Found from the forward: a dim of a weight is followed through products, element-wise
operators and views to slices that cover it. A parameter stays as it is unless everything that
reads it, its gradient and its optimizer state can be held in blocks as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from weft.capture.simplify import simplify
from weft.program.factors import factored_dims
from weft.program.graph import Input, Node, Phase, Program, Role, Value, map_values
from weft.program.operators import Kind, operator
from weft.program.types import TensorType

__all__ = ["Factors", "factorise", "fused_dims"]

Shape: TypeAlias = tuple[int, ...]
Factors: TypeAlias = Mapping[str, Mapping[int, Shape]]
"""For parameters by name: dims, and the (blocks, size of a block) that they are made of."""


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
class _Slice:
    """Elements of an input's dim that the forward takes, and in what steps it counts them."""

    start: int
    end: int
    step: int


def factorise(program: Program) -> Program:
    """The program with fused parameters and their optimizer state in factors.

    Args:
        program: simplified.

    Returns:
        A program that computes the same; the same program if it has no fused parameters.
    """
    found = dict(fused_dims(program))
    while found:
        factors = frozenset(f for dims in found.values() for f in dims.values())
        made = simplify(_held_in(program, found), factors)
        merged = _merged_again(made)
        if not merged:
            return made
        found = {name: dims for name, dims in found.items() if name not in merged}
    return program


def fused_dims(program: Program) -> Factors:
    """Dims of parameters that the forward takes apart in blocks.

    Blocks are of equal size, or they are elements of a dim that the model makes by a view, of
    which it may take several at a time.
    """
    slices = _slices(program)
    by_node = program.input_by_node
    found: dict[str, dict[int, Shape]] = {}
    for (node, dim), taken in slices.items():
        factor = _factor(program.nodes[node].outputs[0].shape[dim], taken)
        if factor is not None:
            found.setdefault(by_node[node].name, {})[dim] = factor
    return found


def _factor(size: int, slices: set[_Slice]) -> Shape | None:
    """Blocks of a dim, if slices that do not overlap cover all of it."""
    pieces = sorted({(s.start, s.end) for s in slices})
    edges = [0, *(end for _, end in pieces)]
    if len(pieces) < 2 or edges[-1] != size or [start for start, _ in pieces] != edges[:-1]:
        return None
    lengths = {after - before for before, after in pairwise(edges)}
    steps = {s.step for s in slices}
    if len(lengths) > 1 and len(steps) > 1:
        return None
    block = min(lengths) if len(lengths) == 1 else min(steps)
    return (size // block, block) if block > 1 else None


# --- where dims come from ------------------------------------------------------------------


def _slices(program: Program) -> dict[tuple[int, int], set[_Slice]]:
    """Slices in the forward along dims of parameters, by node and dim of the parameter."""
    found: dict[tuple[int, int], set[_Slice]] = {}
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


def _taken(node: Node, along: _Along) -> Iterator[tuple[_Origin, _Slice]]:
    _, dim, start, end, step = node.args
    assert isinstance(dim, int) and isinstance(start, int) and isinstance(end, int)
    origins = along[dim]
    if step == 1 and any(origin.projected for origin in origins):
        for origin in origins:
            yield origin, _Slice(start * origin.step, end * origin.step, origin.step)


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


# --- holding them in factors ---------------------------------------------------------------


def _held_in(program: Program, found: Factors) -> Program:
    """Inputs in factors, with a view to the model's shape after each; updates the other way."""
    nodes: list[Node] = []
    inputs: dict[int, Input] = {}
    moved: list[int] = []

    def number(value: Value) -> Value:
        return Value(moved[value.node], value.output)

    for old, node in enumerate(program.nodes):
        given = program.input_by_node.get(old)
        nodes.append(replace(node, args=map_values(node.args, number)))
        if given is not None:
            inputs[old] = replace(given, node=len(nodes) - 1)
            held = _held_type(program, given, found)
            if held != node.outputs[0]:
                inputs[old] = replace(inputs[old], shape=node.outputs[0].shape)
                nodes[-1] = replace(nodes[-1], outputs=(held,))
                nodes.append(_view(Value(len(nodes) - 1), node.outputs[0], node))
        moved.append(len(nodes) - 1)
    updates: list[tuple[int, Value]] = []
    for old, value in program.updates:
        given, new = inputs[old], number(value)
        if given.shape is not None:
            last = replace(program.nodes[value.node], phase=Phase.UPDATE)
            nodes.append(_view(new, nodes[given.node].outputs[0], last))
            new = Value(len(nodes) - 1)
        updates.append((given.node, new))
    return replace(
        program,
        nodes=tuple(nodes),
        inputs=tuple(inputs[i.node] for i in program.inputs),
        loss=number(program.loss),
        updates=tuple(updates),
    )


def _view(value: Value, made: TensorType, near: Node) -> Node:
    return replace(near, op="view", args=(value, made.shape), outputs=(made,))


def _held_type(program: Program, given: Input, found: Factors) -> TensorType:
    """Type of an input in factors: of a parameter, or of state along the same dims."""
    held = program.nodes[given.node].outputs[0]
    dims = found.get(given.parameter or given.name, {})
    shape = [(n,) for n in held.shape]
    for dim, factor in dims.items():
        if dim < len(shape) and held.shape[dim] == factor[0] * factor[1]:
            shape[dim] = factor
    return replace(held, shape=tuple(n for part in shape for n in part))


def _merged_again(program: Program) -> frozenset[str]:
    """Parameters in factors that the program reads, or writes, through a view."""
    found: set[str] = set()
    updates = dict(program.updates)
    for given in program.inputs:
        if given.shape is None:
            continue
        readers = {reader for reader, _ in program.users[given.node]}
        casts = {n for n in readers if program.nodes[n].op == "cast"}
        readers |= {reader for n in casts for reader, _ in program.users[n]}
        if given.node in updates:
            readers.add(updates[given.node].node)
        if any(_merges(program, n, given) for n in readers):
            found.add(given.parameter or given.name)
    return frozenset(found)


def _merges(program: Program, number: int, given: Input) -> bool:
    node = program.nodes[number]
    if node.op != "view":
        return False
    (source,) = program.operands(number)
    before, after = program.type_of(source).shape, node.outputs[0].shape
    merges = factored_dims(before, after) is not None or factored_dims(after, before) is not None
    return merges and given.shape in (before, after)
