"""Pairwise decisions: nodes that choose a state each, tables that price neighbours.

Planners that decide one strategy a node come down to this form. As a file it is one JSON
object:

    unit    what costs are counted in: "s", "ms" or "us"
    nodes   for each node the cost of each of its states, null where it may not be taken
    edges   objects with tail, head and cost: cost[s][t] of state s of the tail with state t of
            the head, null where the two may not meet

Some nodes do not choose at all: each state of a neighbour leaves them one state. `contract`
lets that neighbour decide for them, which changes no cost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weft.core.errors import FileError, InfeasibleError
from weft.parallel.reshard import Floats, Ints

__all__ = ["Contraction", "Instance", "PairEdge", "contract", "read_instance"]

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairEdge:
    """Cost of each pair of states of two nodes [states of tail, states of head], in seconds."""

    tail: int
    head: int
    seconds: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A pairwise decision.

    Attributes:
        nodes: cost of each state, infinite where it may not be taken [s].
        edges: tables, infinite where two states may not meet.
    """

    nodes: tuple[Floats, ...]
    edges: tuple[PairEdge, ...]

    def objective(self, states: Sequence[int]) -> float:
        """Cost of a choice of states, straight from the tables [s]."""
        own = sum(float(cost[s]) for cost, s in zip(self.nodes, states, strict=True))
        return own + sum(float(e.seconds[states[e.tail], states[e.head]]) for e in self.edges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contraction:
    """Which nodes decide, and what follows for the others.

    Attributes:
        seconds: by deciding node, the cost of each of its choices [s].
        decider: for each node who decides for it; itself if it does.
        states: for each node, its state under each choice of its decider.
        edges: tables that two different deciders still have to agree on.
    """

    seconds: dict[int, Floats]
    decider: tuple[int, ...]
    states: tuple[Ints, ...]
    edges: tuple[PairEdge, ...]


def read_instance(path: Path) -> Instance:
    """Read an instance from JSON.

    Raises:
        FileError: the file is missing, is not of this form, or a table has not one row for
            each state of its tail and one column for each of its head.
    """
    try:
        raw = json.loads(path.read_text())
        scale = SECONDS[raw["unit"]]
        nodes = tuple(_costs(row) * scale for row in raw["nodes"])
        edges = tuple(
            PairEdge(tail=e["tail"], head=e["head"], seconds=_costs(e["cost"]) * scale)
            for e in raw["edges"]
        )
        for edge in edges:
            _require_shape(edge, (len(nodes[edge.tail]), len(nodes[edge.head])))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FileError(
            need="a JSON object with unit, nodes and edges",
            got=f"{path}: {error!r}",
            hint="the docstring of benchmarks/plan/pairwise.py states the form",
        ) from error
    return Instance(nodes=nodes, edges=edges)


def _costs(rows: object) -> Floats:
    found = np.array(rows, dtype=np.float64)  # null becomes NaN
    return np.where(np.isnan(found), np.inf, found)


def _require_shape(edge: PairEdge, wanted: tuple[int, int]) -> None:
    if edge.seconds.shape != wanted:
        raise ValueError(f"edge {edge.tail} to {edge.head}: {edge.seconds.shape}, not {wanted}")


def contract(instance: Instance) -> Contraction:
    """Let nodes whose state another node determines follow that node.

    Raises:
        InfeasibleError: no choice has a finite cost.

    Example:
        >>> same = np.array([[0.0, np.inf], [np.inf, 0.0]])
        >>> edge = PairEdge(tail=0, head=1, seconds=same)
        >>> costs = (np.array([1.0, 2.0]), np.array([4.0, 3.0]))
        >>> contract(Instance(nodes=costs, edges=(edge,))).seconds
        {0: array([5., 5.])}
    """
    builder = _Contracting(instance)
    left = list(instance.edges)
    while len(rest := [edge for edge in left if not builder.absorbs(edge)]) < len(left):
        left = rest
    return builder.result(left)


class _Contracting:
    """Merges nodes one by one; lives only inside `contract`."""

    def __init__(self, instance: Instance) -> None:
        self._decider = list(range(len(instance.nodes)))
        self._states = [np.flatnonzero(np.isfinite(cost)) for cost in instance.nodes]
        self._members = [[node] for node in self._decider]
        self._seconds = [
            cost[states] for cost, states in zip(instance.nodes, self._states, strict=True)
        ]
        for node, states in enumerate(self._states):
            _require_choice(node, states)

    def absorbs(self, edge: PairEdge) -> bool:
        """True if the edge's table could be added to the cost of one decider."""
        tail, head = self._decider[edge.tail], self._decider[edge.head]
        if tail == head:
            seconds = edge.seconds[self._states[edge.tail], self._states[edge.head]]
            self._keep(tail, np.flatnonzero(np.isfinite(seconds)), seconds)
            return True
        table = edge.seconds[np.ix_(self._states[edge.tail], self._states[edge.head])]
        meets = np.isfinite(table)
        if meets.sum(axis=1).max(initial=0) <= 1:
            self._follow(tail, head, table, meets)
        elif meets.sum(axis=0).max(initial=0) <= 1:
            self._follow(head, tail, table.T, meets.T)
        else:
            return False
        return True

    def _follow(self, leader: int, follower: int, table: Floats, meets: np.ndarray) -> None:
        """Every choice of `leader` leaves `follower` one state, or none."""
        partner = np.where(meets.any(axis=1), meets.argmax(axis=1), 0)
        seconds = table[np.arange(len(table)), partner] + self._seconds[follower][partner]
        for node in self._members[follower]:
            self._decider[node] = leader
            self._states[node] = self._states[node][partner]
        self._members[leader] += self._members[follower]
        self._members[follower] = []
        self._keep(leader, np.flatnonzero(np.isfinite(seconds)), seconds)

    def _keep(self, decider: int, choices: Ints, seconds: Floats) -> None:
        _require_choice(decider, choices)
        self._seconds[decider] = (self._seconds[decider] + seconds)[choices]
        for node in self._members[decider]:
            self._states[node] = self._states[node][choices]

    def result(self, left: Sequence[PairEdge]) -> Contraction:
        return Contraction(
            seconds={n: self._seconds[n] for n, members in enumerate(self._members) if members},
            decider=tuple(self._decider),
            states=tuple(self._states),
            edges=tuple(left),
        )


def _require_choice(node: int, choices: Ints) -> None:
    if len(choices) == 0:
        raise InfeasibleError(
            need="a state for each node that its neighbours can meet",
            got=f"none left for node {node}",
            hint="the instance has no solution",
        )
