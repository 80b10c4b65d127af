"""Expert parallelism: which nodes work expert by expert, and what leaves them.

The products that read weights of experts, and element-wise operators between them, are cut by
experts. All else is data parallel: tokens travel to the experts and back by an all-to-all. What
has travelled in the forward pass is kept for the backward pass.

Sources: GShard (Lepikhin et al., arXiv 2006.16668, section 3.2), DeepSpeed-MoE (Rajbhandari et
al., arXiv 2201.05596, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping

from weft.parallel.placement import Placement
from weft.program.graph import Phase, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["expert_work", "readers_of", "travelling"]


def expert_work(program: Program, products: Mapping[int, Placement]) -> dict[int, Placement]:
    """The products of experts and the element-wise operators on their results.

    Args:
        program: one training step.
        products: placement of each product that reads or makes up a weight of experts.
    """
    work = dict(products)
    for number, node in enumerate(program.nodes):
        if operator(node.op).kind is not Kind.POINTWISE or node.phase is Phase.UPDATE:
            continue
        shape = node.outputs[0].shape
        places = [
            work[value.node]
            for value in program.operands(number)
            if value.node in work and program.type_of(value).shape == shape
        ]
        if places and number not in work and places[0] >= 0:
            work[number] = places[0]
    return work


def readers_of(program: Program, work: Mapping[int, Placement]) -> frozenset[int]:
    """Nodes that read what experts made and are none themselves, but for the update."""
    return frozenset(
        number
        for number, node in enumerate(program.nodes)
        if number not in work
        and node.phase is not Phase.UPDATE
        and any(value.node in work for value in program.operands(number))
    )


def travelling(program: Program, work: Mapping[int, Placement]) -> frozenset[Value]:
    """Values of the forward pass that one side makes and the other reads."""
    found: set[Value] = set()
    for number, node in enumerate(program.nodes):
        if node.phase is not Phase.FORWARD:
            continue
        for value in program.operands(number):
            if (value.node in work) != (number in work):
                found.add(value)
    return frozenset(found)
