"""Sharing: one computation where results are wanted in several forms that a view can make."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from weft.program.graph import Node, Program, Value

__all__ = ["share"]


def share(program: Program) -> Program:
    """The program with each product and each reduction computed once.

    A product is wanted with its dims in several orders, a reduction with and without the dims
    that it reduces: later ones become a permutation or a view of the first.
    """
    first: dict[Hashable, int] = {}
    nodes: list[Node] = []
    for number, node in enumerate(program.nodes):
        key = _key(node)
        made = number if key is None else first.setdefault(key, number)
        nodes.append(node if made == number else _derived(node, program.nodes[made], made))
    return replace(program, nodes=tuple(nodes))


def _key(node: Node) -> Hashable:
    """What a product or a reduction computes, apart from the form of its result."""
    if node.op == "einsum":
        equation, *operands = node.args
        terms, _, out = str(equation).partition("->")
        return (node.phase, node.op, terms, frozenset(out), *operands)
    if node.op in ("sum", "amax"):
        return (node.phase, node.op, *node.args[:2])
    return None


def _derived(node: Node, source: Node, number: int) -> Node:
    if node.op == "einsum":
        wanted, given = (str(n.args[0]).partition("->")[2] for n in (node, source))
        dims = tuple(given.index(letter) for letter in wanted)
        return replace(node, op="permute", args=(Value(number), dims))
    return replace(node, op="view", args=(Value(number), node.outputs[0].shape))
