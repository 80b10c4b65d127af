"""What can only be decided once all readers are known: results wanted in one form or several."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from weft.program.annotation import Annotation
from weft.program.graph import Node, Program, Value, compact

__all__ = ["share_reductions", "turn_products"]


def turn_products(program: Program) -> Program:
    """Products that are only wanted transposed, made with their dims in that order."""
    kept = {program.loss.node, *(value.node for _, value in program.updates)}
    nodes = list(program.nodes)
    for number, node in enumerate(program.nodes):
        if node.op != "permute":
            continue
        (source,) = program.operands(number)
        product = program.nodes[source.node]
        only_here = len(program.users[source.node]) == 1 and source.node not in kept
        if product.op == "einsum" and product.phase is node.phase and only_here:
            nodes[number] = _turned(product, node)
    return compact(replace(program, nodes=tuple(nodes)))


def _turned(product: Node, permute: Node) -> Node:
    equation, *operands = product.args
    dims = permute.args[1]
    assert isinstance(equation, str) and isinstance(dims, tuple)
    terms, _, out = equation.partition("->")
    order = [d for d in dims if isinstance(d, int)]
    moved = "".join(out[d] for d in order)
    pins = (*permute.pins, *(_turned_pin(pin, order) for pin in product.pins))
    return replace(
        product,
        args=(f"{terms}->{moved}", *operands),
        outputs=permute.outputs,
        pins=tuple(dict.fromkeys(pins)),
    )


def _turned_pin(pin: Annotation, order: Sequence[int]) -> Annotation:
    """The pin of the same tensor with its dims in another order."""
    dim = pin.wish.dim(len(order))
    return pin if dim is None else replace(pin, wish=replace(pin.wish, split=order.index(dim)))


def share_reductions(program: Program) -> Program:
    """Reductions wanted with and without the dims that they reduce, made once.

    The later one becomes a view of the first.
    """
    first: dict[Hashable, int] = {}
    nodes: list[Node] = []
    for number, node in enumerate(program.nodes):
        if node.op not in ("sum", "amax"):
            nodes.append(node)
            continue
        made = first.setdefault((node.phase, node.op, *node.args[:2]), number)
        view = replace(node, op="view", args=(Value(made), node.outputs[0].shape))
        nodes.append(node if made == number else view)
    return replace(program, nodes=tuple(nodes))
