"""Fused parameters: dims that the forward takes apart in blocks, held as factors.

A projection to [3D] of which thirds become query, key and value is split over devices well
only if each device has its part of every third. So the program holds its weight as [3,D,D]:
cutting the second dim does that, and every rule, cost and planner sees an ordinary tensor.

Found from the forward: a dim of a weight is followed through products, element-wise
operators and views to slices that cover it. A parameter stays as it is unless everything that
reads it, its gradient and its optimizer state can be held in blocks as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

from weft.capture.origins import Slice, parameter_slices
from weft.capture.simplify import simplify
from weft.program.factors import factored_dims
from weft.program.graph import Input, Node, Phase, Program, Value, map_values
from weft.program.types import TensorType

__all__ = ["Factors", "factorise", "fused_dims"]

Shape: TypeAlias = tuple[int, ...]
Factors: TypeAlias = Mapping[str, Mapping[int, Shape]]
"""For parameters by name: dims, and the (blocks, size of a block) that they are made of."""


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
    slices = parameter_slices(program)
    by_node = program.input_by_node
    found: dict[str, dict[int, Shape]] = {}
    for (node, dim), taken in slices.items():
        factor = _factor(program.nodes[node].outputs[0].shape[dim], taken)
        if factor is not None:
            found.setdefault(by_node[node].name, {})[dim] = factor
    return found


def _factor(size: int, slices: set[Slice]) -> Shape | None:
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
    shape: list[Shape] = [(n,) for n in held.shape]
    for dim, factor in dims.items():
        if dim < len(shape) and held.shape[dim] == factor[0] * factor[1]:
            shape[dim] = factor
    return replace(held, shape=tuple(n for part in shape for n in part))


def _merged_again(program: Program) -> frozenset[str]:
    """Parameters in factors that the program reads, or writes, through a view that merges them."""
    lasting = {i.node for i in program.inputs if i.role.is_persistent}
    made_of: dict[int, frozenset[str]] = {
        i.node: frozenset() if i.shape is None else frozenset({i.parameter or i.name})
        for i in program.inputs
        if i.role.is_persistent
    }
    found: set[str] = set()
    for number, node in enumerate(program.nodes):
        operands = program.operands(number)
        if node.op == "input" or not all(value.node in made_of for value in operands):
            continue
        names = frozenset(name for value in operands for name in made_of[value.node])
        if node.op == "view" and _merges(program.type_of(operands[0]).shape, node.outputs[0].shape):
            found |= names
        # The update reads gradients too: what it makes of the state alone is its first step.
        if node.phase is not Phase.UPDATE or all(value.node in lasting for value in operands):
            made_of[number] = names
    for node, value in program.updates:
        given = program.input_by_node[node]
        if given.shape is not None and program.nodes[value.node].op == "view":
            found.add(given.parameter or given.name)
    return frozenset(found)


def _merges(before: Shape, after: Shape) -> bool:
    groups = factored_dims(before, after)
    return groups is not None and any(sum(before[dim] > 1 for dim in group) > 1 for group in groups)
