"""Which layer of which stack of repeated layers each node of a program belongs to.

A stack is a list of modules: a module path such as "model.layers" that is followed by numbers.
A node belongs to a layer by its scope, an input by its name (a state by its parameter's). What
stands outside all stacks, such as the sums of gradients that autograd makes, the casts of
parameters, or residual sums in the parent's forward, inherits: in the forward and the update it
belongs to the highest layer among its operands, in the backward, which runs the other way, to
the lowest. Nodes that no layer reaches stay outside.

Proposes only: `weft.program.fold` decides which layers are alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from weft.program.graph import Input, Phase, Program

__all__ = ["MIN_LAYERS", "Assignment", "Key", "assign_layers"]

MIN_LAYERS = 4
"""Fewer layers than this leave nothing to fold once the first and the last are kept apart."""

Key: TypeAlias = tuple[str, str, str, int]
"""Address inside a layer: path below the layer, operator, phase, running number from the end."""

_OUTSIDE = -1
_UPDATE_ROOT = "optimizer"


@dataclass(frozen=True, slots=True)
class _Place:
    """One way to read a path: below layer `index` of `stack`, at `rest`."""

    stack: str
    index: int
    rest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Layers of a program.

    Attributes:
        layers: stack and index of each layer, ordered by both.
        nodes: for each layer its nodes, in execution order.
        layer: for each node the position of its layer in `layers`, -1 outside.
        named: for each node whether its own path, and not its operands, put it there.
        keys: for each node its address inside its layer; counted from the end, so that what
            the first or last layer has more, at its start, does not shift the rest.
    """

    layers: tuple[tuple[str, int], ...]
    nodes: tuple[tuple[int, ...], ...]
    layer: tuple[int, ...]
    named: tuple[bool, ...]
    keys: tuple[Key, ...]


def assign_layers(program: Program, banned: Set[str] = frozenset()) -> Assignment:
    """Find the stacks of a program and assign nodes to their layers.

    Where stacks are nested, the outermost counts.

    Args:
        program: the program.
        banned: stacks that must not be used, for example because nothing in them is alike.
    """
    paths = [_path(program, node) for node in range(len(program.nodes))]
    stacks = _stacks(frozenset(paths)) - banned
    chosen = {path: _choose(path, stacks) for path in set(paths)}
    places = [chosen[path] for path in paths]
    owners = _inherit(program, [p and (p.stack, p.index) for p in places])
    layers = sorted({owner for owner in owners if owner is not None})
    number = {layer: position for position, layer in enumerate(layers)}
    layer = [number[owner] if owner is not None else _OUTSIDE for owner in owners]
    nodes: list[list[int]] = [[] for _ in layers]
    for node, position in enumerate(layer):
        if position != _OUTSIDE:
            nodes[position].append(node)
    parts = [p.rest if p else f"~{path}" for p, path in zip(places, paths, strict=True)]
    return Assignment(
        layers=tuple(layers),
        nodes=tuple(map(tuple, nodes)),
        layer=tuple(layer),
        named=tuple(place is not None for place in places),
        keys=_keys(program, layer, parts),
    )


def _path(program: Program, number: int) -> str:
    """Path that says where a node belongs; a leading "optimizer" marks state and updates."""
    node = program.nodes[number]
    given = program.input_by_node.get(number)
    return node.scope if given is None else _input_path(given)


def _input_path(given: Input) -> str:
    if given.parameter:
        slot = given.name.removesuffix(given.parameter).strip(".").removeprefix(_UPDATE_ROOT)
        return f"{_UPDATE_ROOT}.{given.parameter}.{slot.strip('.')}"
    return given.name


@lru_cache(maxsize=65536)
def _readings(path: str) -> tuple[_Place, ...]:
    """Every way to read a path as one below a numbered layer, outermost first."""
    words = path.split(".")
    root = words[0] if words[0] == _UPDATE_ROOT else ""
    start = 1 if root else 0
    return tuple(
        _Place(
            ".".join(words[start:position]),
            int(word),
            ".".join((root, *words[position + 1 :])),
        )
        for position, word in enumerate(words)
        if word.isdecimal() and position >= start
    )


def _stacks(paths: frozenset[str]) -> frozenset[str]:
    """Stacks with enough layers to fold."""
    members = {(place.stack, place.index) for path in paths for place in _readings(path)}
    sizes = Counter(stack for stack, _ in members)
    return frozenset(stack for stack, size in sizes.items() if size >= MIN_LAYERS)


def _choose(path: str, stacks: frozenset[str]) -> _Place | None:
    return next((place for place in _readings(path) if place.stack in stacks), None)


def _inherit(
    program: Program, owners: list[tuple[str, int] | None]
) -> list[tuple[str, int] | None]:
    """Give nodes outside all stacks the layer of what they read."""
    for number, node in enumerate(program.nodes):
        if owners[number] is None:
            read = {owners[value.node] for value in program.operands(number)}
            layers = [owner for owner in read if owner is not None]
            if layers:
                owners[number] = min(layers) if node.phase is Phase.BACKWARD else max(layers)
    return owners


def _keys(program: Program, layer: list[int], parts: list[str]) -> tuple[Key, ...]:
    seen: Counter[tuple[int, str, str, str]] = Counter()
    keys: list[Key] = []
    for number in range(len(program.nodes) - 1, -1, -1):
        node = program.nodes[number]
        address = (layer[number], parts[number], node.op, node.phase.value)
        keys.append((parts[number], node.op, node.phase.value, seen[address]))
        seen[address] += 1
    keys.reverse()
    return tuple(keys)
