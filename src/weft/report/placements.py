"""Where a plan puts tensors, with one row for all layers that are treated alike.

Layers repeat, so a list of every tensor says the same thing many times. Tensors whose names
differ in numbers only, and whose type and shardings agree, share a row: "layers.0-31.wq".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from weft.parallel.explanation import axis_roles
from weft.parallel.placement import Sharding, is_partial, local_type
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import with_recompute
from weft.program.graph import Phase, Program, Role
from weft.program.operators import Kind, operator
from weft.program.types import TensorType

__all__ = ["TensorRow", "activation_rows", "axis_names", "common_name", "parameter_rows"]

_HEAVY = frozenset({Kind.CONTRACT, Kind.ATTENTION, Kind.CONVOLUTION})
_EXTRA = frozenset({"native_layer_norm.default", "embedding.default", "_softmax.default"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """Tensors that a plan treats alike.

    Attributes:
        name: with ranges in place of the numbers that differ.
        count: how many tensors.
        type: of one whole tensor.
        stored: sharding in which it is kept or made.
        read: shardings in which the forward pass reads it, without repeats; empty where it is
            not asked for.
        local_bytes: size of one device's part of one tensor [bytes].
    """

    name: str
    count: int
    type: TensorType
    stored: Sharding
    read: tuple[Sharding, ...]
    local_bytes: int


def parameter_rows(program: Program, plan: ParallelPlan) -> tuple[TensorRow, ...]:
    """Parameters: how each is kept, and how the forward pass reads it.

    Casts are looked through: what matters is how the product behind a cast reads its weight.
    """
    whole = with_recompute(program, plan.recompute)
    named = [
        (
            i.name,
            (
                whole.nodes[i.node].outputs[0],
                plan.strategies[i.node].outputs[0],
                _read_as(whole, plan, i.node),
            ),
        )
        for i in whole.inputs
        if i.role is Role.PARAMETER
    ]
    return _rows(plan, named)


def activation_rows(program: Program, plan: ParallelPlan) -> tuple[TensorRow, ...]:
    """Results of the forward pass's products, attention, convolutions, norms and lookups."""
    whole = with_recompute(program, plan.recompute)
    named = [
        (
            f"{node.scope or program.name} ({node.op.removesuffix('.default')})",
            (node.outputs[0], plan.strategies[number].outputs[0], ()),
        )
        for number, node in enumerate(whole.nodes)
        if node.phase is Phase.FORWARD and (operator(node.op).kind in _HEAVY or node.op in _EXTRA)
    ]
    return _rows(plan, named)


def axis_names(program: Program, plan: ParallelPlan) -> tuple[str, ...]:
    """A name for each mesh axis, from what it cuts in most of the forward products' work.

    "data" cuts samples, "sequence" another dim of the activations, "tensor" weights or heads,
    "copies" nothing; "axis" is one of a program without products. Axes with the same name are
    numbered.
    """
    names = [_axis_name(roles) for roles in axis_roles(plan, program)]
    return tuple(
        f"{name}{names[: axis + 1].count(name)}" if names.count(name) > 1 else name
        for axis, name in enumerate(names)
    )


def _axis_name(roles: Mapping[str, float]) -> str:
    largest = max(roles, key=lambda role: roles[role], default="axis")
    return "data" if largest == "batch" else largest


def _read_as(program: Program, plan: ParallelPlan, node: int) -> tuple[Sharding, ...]:
    found: dict[Sharding, None] = {}
    stack = [node]
    while stack:
        for reader, position in program.users[stack.pop()]:
            if program.nodes[reader].phase is not Phase.FORWARD:
                continue
            if program.nodes[reader].op == "cast":
                stack.append(reader)
            else:
                found[plan.strategies[reader].operands[position]] = None
    return tuple(found)


_Facts = tuple[TensorType, Sharding, tuple[Sharding, ...]]


def _rows(plan: ParallelPlan, named: Iterable[tuple[str, _Facts]]) -> tuple[TensorRow, ...]:
    groups: dict[tuple[str, _Facts], list[str]] = {}
    for name, facts in named:
        groups.setdefault((re.sub(r"\d+", "#", name), facts), []).append(name)
    rows: list[TensorRow] = []
    for (_, (full, stored, read)), names in groups.items():
        # A partial sum is as large as the whole: only cut dims make it smaller.
        kept = tuple(-1 if is_partial(p) else p for p in stored)
        rows.append(
            TensorRow(
                name=common_name(names),
                count=len(names),
                type=full,
                stored=stored,
                read=read,
                local_bytes=local_type(plan.mesh, kept, full).num_bytes,
            )
        )
    return tuple(rows)


def common_name(names: Sequence[str]) -> str:
    """One name for names that differ in numbers only: each number becomes its range.

    Example:
        >>> common_name(["layers.0.wq", "layers.1.wq", "layers.4.wq"])
        'layers.0-1,4.wq'
    """
    pieces = [re.split(r"(\d+)", name) for name in names]
    merged: list[str] = []
    for place in zip(*pieces, strict=True):
        values = sorted(set(place))
        if len(values) == 1:
            merged.append(values[0])
        else:
            merged.append(_ranges(sorted({int(v) for v in values})))
    return "".join(merged)


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
