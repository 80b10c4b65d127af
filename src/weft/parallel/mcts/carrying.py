"""Which tensors carry the rows of the batch, and what has to stay together.

Along an axis that cuts the batch, as data parallelism has it, what comes out cut carries rows:
such a tensor can be handed from devices with some shares of the batch to devices with other
shares, row by row. A tensor of the forward pass that carries none would have to be known whole,
so whoever makes it and whoever reads it stay together: they are one *base group*. So do all
that read a parameter, which therefore has one home.

What depends on no data (constants, positions, random numbers) is made where it is read, and binds
nobody.
"""

from __future__ import annotations

from weft.core.errors import InputError
from weft.parallel.greedy import greedy_axis
from weft.parallel.rows import batch_rows
from weft.parallel.rules import Rule
from weft.parallel.weights import weight_values
from weft.program.graph import Phase, Program, Role, Value

__all__ = ["FREE", "base_groups", "floats", "rows_of", "rules_of_rows"]

FREE = -1
"""No base group: a node that others decide about."""


def rows_of(program: Program) -> int:
    """Rows of the batch, of which there have to be several.

    Raises:
        InputError: there is nothing to share out.
    """
    rows = batch_rows(program)
    if rows < 2:
        raise InputError(
            need="a batch of at least two rows, whose entries have a common number of them",
            got=f"{rows} in {program.name}",
            hint="choose a larger batch",
        )
    return rows


def rules_of_rows(program: Program) -> tuple[Rule, ...]:
    """For each node the rule that it follows where the batch is cut, as in data parallelism.

    Raises:
        InputError: the batch has no rows to cut.
        RuleError: no rule covers an operator.
    """
    rows = rows_of(program)
    parts = next(n for n in range(2, rows + 1) if rows % n == 0)
    return greedy_axis(program, dict.fromkeys(_cut_entries(program), 0), parts)


def _cut_entries(program: Program) -> list[int]:
    shapes = {
        i.node: program.nodes[i.node].outputs[0].shape
        for i in program.inputs
        if i.role in (Role.BATCH, Role.RECEIVED)
    }
    return [node for node, shape in shapes.items() if shape and shape[0] > 1]


def floats(program: Program) -> list[bool]:
    """For each node, whether it depends on no data: neither on the batch nor on what lasts."""
    found: list[bool] = []
    for number in range(len(program.nodes)):
        source = program.input_by_node.get(number)
        if source is None:
            found.append(all(found[value.node] for value in program.operands(number)))
        else:
            found.append(source.role in (Role.SEED, Role.MICRO_BATCH))
    return found


def base_groups(program: Program, rules: tuple[Rule, ...]) -> list[int]:
    """For each node of the forward pass the base group that it belongs to, `FREE` for others.

    Args:
        program: the step.
        rules: what its nodes do where the batch is cut.

    Returns:
        Numbers from 0 in the order of their first nodes. Inputs are free: who reads them decides.
    """
    free, weights = floats(program), weight_values(program)
    joined = _Joined(len(program.nodes))
    member = [False] * len(program.nodes)
    for number, node in enumerate(program.nodes):
        is_weight = Value(number) in weights
        if node.phase is not Phase.FORWARD or (free[number] and not is_weight):
            continue
        member[number] = node.op != "input" and not is_weight
        for value in program.operands(number):
            carries = rules[value.node].outputs[value.output] >= 0
            if value in weights or not (carries or free[value.node]):
                joined.join(number, value.node)
    numbers: dict[int, int] = {}
    return [
        numbers.setdefault(joined.root(n), len(numbers)) if member[n] else FREE
        for n in range(len(program.nodes))
    ]


class _Joined:
    """Sets of nodes that are joined two by two; the first node stands for its set."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, node: int) -> int:
        while self._parent[node] != node:
            self._parent[node] = self._parent[self._parent[node]]
            node = self._parent[node]
        return node

    def join(self, first: int, second: int) -> None:
        first, second = self.root(first), self.root(second)
        self._parent[max(first, second)] = min(first, second)
