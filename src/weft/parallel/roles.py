"""Roles of weights in tensor parallelism: which are cut by columns and which by rows.

The first product of a chain is cut by columns, so that what follows works on its own part;
the next is cut by rows, so that its result is a sum over devices. Element-wise operators,
views, attention and the like in between leave the role open. A product whose operands both
come from the batch (attention scores) cuts nothing.

Source: Megatron-LM (Shoeybi et al., arXiv 1909.08053, section 3).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = ["WeightCut", "residual_nodes", "weight_cuts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCut:
    """How a weight is cut.

    Attributes:
        dim: the weight's dim that is cut.
        rank: number of dims of the weight.
        column: True if the cut makes columns of the result, False if it makes summands.
        reader: the product that reads the weight.
    """

    dim: int
    rank: int
    column: bool
    reader: int


def weight_cuts(program: Program) -> dict[int, WeightCut]:
    """For each parameter that a forward product reads, how to cut it.

    Returns:
        By node number of the parameter. A parameter that several products read keeps the role
        that it has in the last of them, since an embedding table that is also the output
        projection is cut by its vocabulary.
    """
    parameters = _parameter_values(program)
    cut: set[int] = set()
    found: dict[int, WeightCut] = {}
    for number, node in enumerate(program.nodes):
        if node.phase is not Phase.FORWARD:
            continue
        operands = program.operands(number)
        kind = operator(node.op).kind
        weight = next((v for v in operands if v in parameters), None)
        if kind in (Kind.CONTRACT, Kind.CONVOLUTION) and weight is not None:
            column = not any(v.node in cut for v in operands if v not in parameters)
            dim = _cut_dim(program, number, operands.index(weight), column=column)
            origin, dim = _original_dim(program, weight, dim)
            if dim >= 0:
                rank = len(program.nodes[origin].outputs[0].shape)
                found[origin] = WeightCut(dim=dim, rank=rank, column=column, reader=number)
                if column:
                    cut.add(number)
        elif any(v.node in cut for v in operands):
            cut.add(number)
    return found


def residual_nodes(program: Program, cuts: dict[int, WeightCut]) -> Collection[int]:
    """Forward nodes that first read the sum of a row-cut product as a whole: residual additions."""
    pending = {cut.reader for cut in cuts.values() if not cut.column}
    found: list[int] = []
    for number, node in enumerate(program.nodes):
        if node.phase is not Phase.FORWARD or number in pending:
            continue
        if any(v.node in pending for v in program.operands(number)):
            if operator(node.op).kind is Kind.VIEW:
                pending.add(number)
            else:
                found.append(number)
    return found


def _parameter_values(program: Program) -> frozenset[Value]:
    """Parameters, and views and casts of parameters."""
    values = {Value(i.node) for i in program.inputs if i.role is Role.PARAMETER}
    for number, node in enumerate(program.nodes):
        operands = program.operands(number)
        plain = operator(node.op).kind is Kind.VIEW or node.op == "cast"
        if plain and node.phase is Phase.FORWARD and operands and operands[0] in values:
            values.add(Value(number))
    return frozenset(values)


def _cut_dim(program: Program, number: int, port: int, *, column: bool) -> int:
    """Dim of the weight operand that a column or row cut takes, -1 if there is none."""
    node = program.nodes[number]
    if operator(node.op).kind is Kind.CONVOLUTION:
        return 0 if column else 1
    left, _, result = str(node.args[0]).partition("->")
    terms = left.split(",")
    weight, other = terms[port], terms[1 - port]
    wanted = (
        [c for c in weight if c in result and c not in other]
        if column
        else [c for c in weight if c not in result]
    )
    return weight.index(wanted[0]) if wanted else -1


def _original_dim(program: Program, value: Value, dim: int) -> tuple[int, int]:
    """The parameter under views and casts, and the dim of it that a view's dim comes from."""
    while value.node not in program.input_by_node and dim >= 0:
        node = program.nodes[value.node]
        source = program.operands(value.node)[0]
        if node.op == "permute" and isinstance(node.args[1], tuple):
            moved = node.args[1][dim]
            dim = moved if isinstance(moved, int) else -1
        elif node.op in ("view", "expand"):
            dim = _dim_before_view(program.type_of(source).shape, program.type_of(value).shape, dim)
        value = source
    return value.node, dim


def _dim_before_view(before: tuple[int, ...], after: tuple[int, ...], dim: int) -> int:
    """The dim of equal size with equal extent to its left, -1 if the view merges or splits it."""
    left = 1
    for size in after[:dim]:
        left *= size
    extent = 1
    for number, size in enumerate(before):
        if extent == left and size == after[dim]:
            return number
        extent *= size
    return -1
