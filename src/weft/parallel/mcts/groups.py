"""Groups of operators, about which the search decides one after the other.

Base groups (`carrying`) are joined to at most `MOST_GROUPS` by METIS, which keeps groups about
even in work and cuts where few bytes cross. Of a program that has few of them, the lightest are
joined with their neighbours. The group with the most work comes first: it is
decided about first, and others follow it until it is their turn.

    weight of a node    1 + the sum of floor(sqrt(mean time of each operator [us]))
                          + the sum of floor(sqrt(bytes of each parameter / 1 GB/s [us]))
    weight of an edge   bytes that cross, in parts of the largest; 1 at least

Source: TAG (arXiv 2302.06126): 40 groups, roots of times as weights so that the largest operators
do not get a group each. There, parameters have no weight and the imbalance is 5: of a chain such as
VGG-19 that makes 12 groups, and wide linear layers share one with convolutions. Here, what takes
long to synchronise is told apart, as what takes long to compute is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.core.errors import InputError
from weft.machine.model import Device
from weft.parallel.mcts.carrying import FREE, base_groups, rows_of, rules_of_rows
from weft.parallel.mcts.following import followed
from weft.parallel.mcts.pricing import Pricing
from weft.parallel.rules import Rule
from weft.program.graph import Phase, Program, Role
from weft.program.operators import Kind, operator

__all__ = ["MOST_GROUPS", "Grouping", "grouped"]

MOST_GROUPS = 40
"""Source: TAG (arXiv 2302.06126)."""
_IMBALANCE = 1.3
"""Largest part over the mean one. Chosen: see above."""
_BYTES_PER_US = 1e3
"""1 GB/s, as a network between machines has it."""
_LARGEST_EDGE = 2**15
"""Weights are added up in 32 bits. Derived: 2^16 edges of it still fit."""
_FEW = 4
"""METIS wants many more vertices than parts, or leaves parts empty; chosen."""
_MEASURED = 4
"""Batch sizes over which the time of an operator is averaged. Source: TAG (arXiv 2302.06126)."""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """What is decided about together.

    Attributes:
        program: the step.
        rows: of the batch.
        rules: what each node does where the batch is cut.
        group: for each node its group, from 0 in the order of decisions.
        num_groups: how many there are.
    """

    program: Program
    rows: int
    rules: tuple[Rule, ...]
    group: tuple[int, ...]
    num_groups: int


def grouped(
    program: Program,
    devices: Sequence[Device],
    *,
    most: int = MOST_GROUPS,
    seed: int = 0,
) -> Grouping:
    """Join the nodes of a step into groups.

    Args:
        program: the step.
        devices: kinds of devices, whose times count equally.
        most: groups at most.
        seed: of METIS.

    Raises:
        InputError: fewer than two rows in the batch, or METIS is not installed.
        RuleError: no rule covers an operator.
    """
    rules = rules_of_rows(program)
    pricing = Pricing(program, rules, devices)
    base = base_groups(program, rules)
    part = _joined(program, pricing, base, most, seed)
    group = followed(program, [FREE if b == FREE else part[b] for b in base])
    return _in_order(program, rules, pricing, group)


def _in_order(
    program: Program, rules: tuple[Rule, ...], pricing: Pricing, group: tuple[int, ...]
) -> Grouping:
    """Numbered by their time, the largest first."""
    seconds: defaultdict[int, float] = defaultdict(float)
    for node, its in enumerate(group):
        seconds[its] += float(pricing.seconds(node)[:, -1].mean())
    order = sorted(seconds, key=lambda g: (-seconds[g], g))
    number = {old: new for new, old in enumerate(order)}
    return Grouping(
        program=program,
        rows=rows_of(program),
        rules=rules,
        group=tuple(number[g] for g in group),
        num_groups=len(order),
    )


def _joined(
    program: Program, pricing: Pricing, base: Sequence[int], most: int, seed: int
) -> Sequence[int]:
    """For each base group the part that it belongs to."""
    count = max(base) + 1
    if count <= most:
        return range(count)
    weights = np.ones(count)
    for node, its in enumerate(base):
        if its != FREE:
            mean_us = pricing.seconds(node)[:, -_MEASURED:].mean() * 1e6
            weights[its] += int(np.sqrt(mean_us))
    for source in program.inputs:
        if source.role is Role.PARAMETER:
            read_by = next((base[n] for n in _readers(program, source.node) if base[n] != FREE), 0)
            num_bytes = program.nodes[source.node].outputs[0].num_bytes
            weights[read_by] += int(np.sqrt(num_bytes / _BYTES_PER_US))
    edges = _crossing(program, base)
    if count <= _FEW * most:
        return _merged(weights.tolist(), edges, most)
    return _partition(weights.tolist(), edges, most, seed)


def _readers(program: Program, source: int) -> Iterator[int]:
    """Who reads a parameter, through casts and views of it too, in no particular order."""
    waiting = [source]
    while waiting:
        for reader, _ in program.users[waiting.pop()]:
            yield reader
            if program.nodes[reader].phase is Phase.FORWARD and _is_renamed(program, reader):
                waiting.append(reader)


def _is_renamed(program: Program, node: int) -> bool:
    op = program.nodes[node].op
    return op == "cast" or operator(op).kind is Kind.VIEW


def _crossing(program: Program, base: Sequence[int]) -> dict[tuple[int, int], float]:
    """Bytes that pass between two base groups in the forward pass, smaller number first."""
    found: dict[tuple[int, int], float] = {}
    for node, this in enumerate(program.nodes):
        if this.phase is not Phase.FORWARD or base[node] == FREE:
            continue
        for value in set(program.operands(node)):
            maker = base[value.node]
            if maker not in (FREE, base[node]):
                key = (min(maker, base[node]), max(maker, base[node]))
                found[key] = found.get(key, 0.0) + program.type_of(value).num_bytes
    return found


def _merged(
    weights: Sequence[float], edges: Mapping[tuple[int, int], float], parts: int
) -> list[int]:
    """The lightest part joins the neighbour with which it exchanges most, until few are left."""
    part = list(range(len(weights)))
    weight: dict[int, float] = dict(enumerate(weights))
    near: dict[int, dict[int, float]] = {p: {} for p in part}
    for (a, b), num_bytes in edges.items():
        near[a][b] = near[b][a] = num_bytes
    while len(weight) > parts:
        light = min(weight, key=lambda p: (weight[p], p))
        others = near.pop(light)
        into = (
            max(others, key=lambda p: (others[p], -p)) if others else min(weight.keys() - {light})
        )
        for other, num_bytes in others.items():
            del near[other][light]
            if other != into:
                near[into][other] = near[other][into] = near[into].get(other, 0.0) + num_bytes
        weight[into] += weight.pop(light)
        part = [into if p == light else p for p in part]
    return part


def _partition(
    weights: Sequence[float], edges: Mapping[tuple[int, int], float], parts: int, seed: int
) -> list[int]:
    vertices = [int(w) for w in weights]
    largest = max(edges.values(), default=1.0)
    near: list[list[tuple[int, int]]] = [[] for _ in vertices]
    for (a, b), num_bytes in sorted(edges.items()):
        weight = max(1, round(num_bytes / largest * _LARGEST_EDGE))
        near[a].append((b, weight))
        near[b].append((a, weight))
    metis = _metis()
    starts = np.cumsum([0, *map(len, near)]).tolist()
    # METIS names the imbalance by what exceeds the mean, in thousandths.
    options = metis.Options(seed=seed, ufactor=round(1000 * (_IMBALANCE - 1)))
    _, part = metis.part_graph(
        parts,
        metis.CSRAdjacency(starts, [b for of_one in near for b, _ in of_one]),
        vweights=vertices,
        eweights=[weight for of_one in near for _, weight in of_one],
        recursive=False,
        options=options,
    )
    return [int(p) for p in part]


def _metis() -> Any:  # noqa: ANN401 - it has no stubs
    try:
        import pymetis
    except ImportError:
        raise InputError(
            need="pymetis, which joins operators into groups",
            got="it is not installed",
            hint="pip install 'weft[mcts]'",
        ) from None
    return pymetis
