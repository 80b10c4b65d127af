"""A pairwise instance of another planner, solved by weft's flow programme.

    python -m benchmarks.plan.peer instance.json

Planners that decide one strategy a node price a pair of neighbours by a table. Such an
instance is plain data, one JSON object:

    unit    what costs are counted in: "us"
    nodes   for each node the cost of each of its states, null where it may not be taken
    edges   objects with tail, head and cost: cost[s][t] of state s of the tail with state t of
            the head, null where the two may not meet

Here each table becomes a `HopTable` whose shardings are the states of tail and head and
whose hops are the pairs that may meet. A node that several edges join to others is a unit
like any other, so the flow programme itself is what `weft plan` solves.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weft.core.errors import FileError
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.placement import Mesh
from weft.parallel.problem import Edge, Problem, Unit
from weft.parallel.reshard import Floats, HopTable
from weft.parallel.skeleton import Skeleton, UnitKind, UnitSpec
from weft.program.fold import Folding
from weft.program.graph import Program, Value

__all__ = ["Instance", "PairEdge", "as_problem", "read_instance"]

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairEdge:
    """Cost of each pair of states of two nodes [states of tail, states of head], in seconds."""

    tail: int
    head: int
    seconds: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Nodes that choose a state each, and edges that price pairs of states.

    Attributes:
        nodes: cost of each state, infinite where it may not be taken [s].
        edges: tables between two different nodes.
    """

    nodes: tuple[Floats, ...]
    edges: tuple[PairEdge, ...]

    def objective(self, states: Sequence[int]) -> float:
        """Cost of a choice of states, straight from the tables [s]."""
        own = sum(float(cost[s]) for cost, s in zip(self.nodes, states, strict=True))
        return own + sum(float(e.seconds[states[e.tail], states[e.head]]) for e in self.edges)


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
            wanted = (len(nodes[edge.tail]), len(nodes[edge.head]))
            if edge.seconds.shape != wanted or edge.tail == edge.head:
                raise ValueError(
                    f"edge {edge.tail} to {edge.head}: {edge.seconds.shape}, not {wanted}"
                )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FileError(
            need="a JSON object with unit, nodes and edges",
            got=f"{path}: {error}",
            hint="the docstring of benchmarks/plan/peer.py states the form",
        ) from error
    return Instance(nodes=nodes, edges=edges)


def _costs(rows: object) -> Floats:
    """Nested lists with null for infinity."""
    found = np.array(rows, dtype=np.float64)
    return np.where(np.isnan(found), np.inf, found)


def as_problem(instance: Instance) -> Problem:
    """The same decision as a planning problem without a program.

    States that may not be taken are left out, so state s of a unit is the s-th state of the
    node that may be; `allowed_states` tells which.
    """
    allowed = allowed_states(instance)
    program = Program(name="pairwise instance", nodes=(), inputs=(), loss=Value(0))
    specs = tuple(UnitSpec(kind=UnitKind.SINK) for _ in allowed)
    folding = Folding(representative=(), multiplicity=(), layers=())
    skeleton = Skeleton(program=program, folding=folding, units=specs, links=())
    units = tuple(
        Unit(spec, cost[states], np.zeros(len(states)))
        for spec, cost, states in zip(specs, instance.nodes, allowed, strict=True)
    )
    edges = tuple(
        _edge(e.tail, e.head, e.seconds[np.ix_(allowed[e.tail], allowed[e.head])])
        for e in instance.edges
    )
    return Problem(skeleton, Mesh((1,)), units, edges)


def allowed_states(instance: Instance) -> list[np.ndarray]:
    """For each node the states that may be taken."""
    return [np.flatnonzero(np.isfinite(cost)) for cost in instance.nodes]


def _edge(tail: int, head: int, seconds: Floats) -> Edge:
    made, read = seconds.shape
    size = made + read
    source, target = np.nonzero(np.isfinite(seconds))
    distance = np.full((size, size), np.inf)
    np.fill_diagonal(distance, 0.0)
    distance[:made, made:] = seconds
    table = HopTable(
        states=tuple((number,) for number in range(size)),
        source=source,
        target=made + target,
        seconds=seconds[source, target],
        distance=distance,
        following=np.tile(np.arange(size), (size, 1)),
    )
    return Edge(tail, head, np.arange(made), made + np.arange(read), table, 1)


def main(path: Path) -> None:
    """Solve an instance and print one line of JSON."""
    instance = read_instance(path)
    started = time.process_time()
    problem = as_problem(instance)
    converted = time.process_time()
    model = FlowModel(problem)
    built = time.process_time()
    solution: Solution = model.solve()
    solved = time.process_time()
    states = [int(a[s]) for a, s in zip(allowed_states(instance), solution.states, strict=True)]
    print(
        json.dumps(
            {
                "objective_us": instance.objective(states) * 1e6,
                "bound_us": solution.bound_s * 1e6,
                "fractional": solution.fractional,
                "columns": model.num_columns,
                "rows": model.num_rows,
                "convert_cpu_s": converted - started,
                "build_cpu_s": built - converted,
                "solve_cpu_s": solved - built,
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="solve a pairwise instance by weft's programme")
    parser.add_argument("instance", type=Path, help="JSON with unit, nodes and edges")
    main(parser.parse_args().instance)
