"""Roles of weights in tensor parallelism: which are cut by columns and which by rows.

The first product of a chain is cut by columns, so that what follows works on its own part;
the next is cut by rows, so that its result is a sum over devices. Element-wise operators,
views, attention and the like in between leave the role open. A product whose operands both
come from the batch (attention scores) cuts nothing.

Source: Megatron-LM (Shoeybi et al., arXiv 1909.08053, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.parallel.placement import PARTIAL, Placement
from weft.program.factors import block_dims
from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = [
    "WeightCut",
    "boundary_nodes",
    "cut_dim",
    "expert_cuts",
    "product_placements",
    "weight_cuts",
]


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
            origin, dim = cut_dim(program, number, operands.index(weight), column=column)
            if dim >= 0:
                rank = len(program.nodes[origin].outputs[0].shape)
                found[origin] = WeightCut(dim=dim, rank=rank, column=column, reader=number)
                if column:
                    cut.add(number)
        elif any(v.node in cut for v in operands):
            cut.add(number)
    return found


def expert_cuts(program: Program) -> dict[int, WeightCut]:
    """For each parameter that holds one matrix for each of several experts, its dim of experts.

    A product that reads such a weight has the experts as a dim of both operands and of its
    result: each expert works on the tokens that were sent to it.

    Returns:
        By node number of the parameter.
    """
    parameters = _parameter_values(program)
    found: dict[int, WeightCut] = {}
    for number, node in enumerate(program.nodes):
        if node.op != "einsum" or node.phase is not Phase.FORWARD:
            continue
        left, _, result = str(node.args[0]).partition("->")
        terms = left.split(",")
        for value, term, other in zip(
            program.operands(number), terms, reversed(terms), strict=True
        ):
            shared = [c for c in term if c in other and c in result]
            if value not in parameters or not shared:
                continue
            origin, dim = _original_dim(program, value, term.index(shared[0]))
            if dim >= 0:
                rank = len(program.nodes[origin].outputs[0].shape)
                found[origin] = WeightCut(dim=dim, rank=rank, column=True, reader=number)
    return found


def product_placements(program: Program, cuts: dict[int, WeightCut]) -> dict[int, Placement]:
    """Where each product with a cut weight, and each product that makes its gradient, lies.

    The letter of the weight that is cut decides: if the result has it, the result is cut
    there; if not, the result is a sum over devices.
    """
    weights = _parameter_values(program)
    names = {program.input_by_node[node].name: cut for node, cut in cuts.items()}
    found: dict[int, Placement] = {}
    for number, node in enumerate(program.nodes):
        if node.op != "einsum" or node.phase is Phase.UPDATE:
            continue
        left, _, result = str(node.args[0]).partition("->")
        for term, value in zip(left.split(","), program.operands(number), strict=True):
            if value not in weights:
                continue
            for dim, letter in enumerate(term):
                origin, original = _original_dim(program, value, dim)
                if origin in cuts and original == cuts[origin].dim:
                    found[number] = result.index(letter) if letter in result else PARTIAL
        if number not in found and node.phase is Phase.BACKWARD:
            cut = names.get(_gradient_of(program, number))
            if cut is not None and len(node.outputs[0].shape) == cut.rank:
                found[number] = cut.dim
    return found


def _gradient_of(program: Program, number: int) -> str:
    """Name of the parameter whose gradient a product makes, empty if it makes none.

    Follows casts and sums of gradients to the update that reads them.
    """
    while True:
        readers = [reader for reader, _ in program.users[number]]
        updates = [r for r in readers if program.nodes[r].phase is Phase.UPDATE]
        if updates:
            return program.nodes[updates[0]].scope.removeprefix("optimizer.")
        if len(readers) != 1 or program.nodes[readers[0]].op not in ("cast", "add.Tensor"):
            return ""
        number = readers[0]


def boundary_nodes(program: Program, placements: dict[int, Placement]) -> list[int]:
    """Nodes that first read a pending sum as a whole: residual additions, norms in backward.

    Sums and casts of pending sums stay pending; a table looked up in forward counts as one.
    """
    pending = {number for number, placement in placements.items() if placement == PARTIAL}
    found: list[int] = []
    for number, node in enumerate(program.nodes):
        if number in pending or node.phase is Phase.UPDATE:
            continue
        reads = [value.node in pending for value in program.operands(number)]
        row = operator(node.op)
        stays = row.kind is Kind.VIEW or (row.linear in ("one", "all") and all(reads))
        if any(reads) and stays:
            pending.add(number)
        elif any(reads) or node.op == "embedding.default":
            found.append(number)
    return found


def _parameter_values(program: Program) -> frozenset[Value]:
    """Parameters, those that another pipeline stage holds included, and views and casts of them."""
    held = (Role.PARAMETER, Role.SHARED)
    values = {Value(i.node) for i in program.inputs if i.role in held}
    for number, node in enumerate(program.nodes):
        operands = program.operands(number)
        plain = operator(node.op).kind is Kind.VIEW or node.op == "cast"
        if plain and node.phase is Phase.FORWARD and operands and operands[0] in values:
            values.add(Value(number))
    return frozenset(values)


def cut_dim(program: Program, number: int, port: int, *, column: bool) -> tuple[int, int]:
    """The weight that a product reads, and the dim of it that a cut takes, -1 if there is none.

    Blocks of a fused weight stay together: what is split is each block.

    Args:
        program: one training step.
        number: the product.
        port: which of its operands is the weight, perhaps in another dress.
        column: whether to cut columns of the result, or else summands.
    """
    node, value = program.nodes[number], program.operands(number)[port]
    if operator(node.op).kind is Kind.CONVOLUTION:
        return _original_dim(program, value, 0 if column else 1)
    left, _, result = str(node.args[0]).partition("->")
    terms = left.split(",")
    weight, other = terms[port], terms[1 - port]
    wanted = (
        [c for c in weight if c in result and c not in other]
        if column
        else [c for c in weight if c not in result]
    )
    found = [_original_dim(program, value, weight.index(letter)) for letter in wanted]
    whole = [(origin, dim) for origin, dim in found if dim not in _blocks(program, origin)]
    return whole[0] if whole else _original_dim(program, value, -1)


def _blocks(program: Program, node: int) -> frozenset[int]:
    given = program.input_by_node.get(node)
    shape = None if given is None else given.shape
    return block_dims(program.nodes[node].outputs[0].shape, shape)


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
