"""Salts: which random call of a step a node is.

A salt tells masks apart and changes nothing else: neither what a node costs, nor where its values
may lie.
"""

from __future__ import annotations

from dataclasses import replace

from weft.program.graph import Arg, Node

__all__ = ["salt_of", "unsalted", "with_salt"]

_SALT = {"uniform": 1, "uniform_part": 2}
"""Which argument of an operator that draws is the salt."""


def salt_of(node: Node) -> int | None:
    """The salt of a node; none if it draws nothing."""
    salt = node.args[_SALT[node.op]] if node.op in _SALT else None
    return salt if isinstance(salt, int) else None


def with_salt(node: Node, shift: int) -> Node:
    """A node that draws, as a later random call."""
    position, salt = _SALT[node.op], salt_of(node)
    assert salt is not None
    return replace(node, args=(*node.args[:position], salt + shift, *node.args[position + 1 :]))


def unsalted(node: Node) -> tuple[Arg, ...]:
    """Arguments of a node without its salt: those of nodes that do the same are equal."""
    position = _SALT.get(node.op, len(node.args))
    return (*node.args[:position], *node.args[position + 1 :])
