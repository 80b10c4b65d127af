"""An instance of another planner, solved by weft's flow programme.

    python -m benchmarks.plan.peer instance.json --optimum 152052.392246 --about '{"from": "..."}'

Each table of a pairwise instance becomes a `HopTable` whose shardings are the states of tail
and head and whose hops are the pairs that may meet; the deciding nodes become units. What is
solved is then the very programme that `weft plan` solves.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.plan.pairwise import Contraction, Instance, PairEdge, contract, read_instance
from weft.parallel.exact.flow import FlowModel
from weft.parallel.placement import Mesh
from weft.parallel.problem import Edge, Problem, Unit
from weft.parallel.reshard import HopTable
from weft.parallel.skeleton import Skeleton, UnitKind, UnitSpec
from weft.program.fold import Folding
from weft.program.graph import Program, Value
from weft.report.bench import BenchReport, at_most, print_report, save_report

__all__ = ["as_problem", "compare", "solve_instance"]


def as_problem(contraction: Contraction) -> Problem:
    """The same decision as a planning problem, which stands for no program."""
    number = {node: unit for unit, node in enumerate(contraction.seconds)}
    units = tuple(
        Unit(UnitSpec(kind=UnitKind.SINK), seconds, np.zeros(len(seconds)))
        for seconds in contraction.seconds.values()
    )
    edges = tuple(_edge(edge, contraction, number) for edge in contraction.edges)
    skeleton = Skeleton(
        program=Program(name="pairwise instance", nodes=(), inputs=(), loss=Value(0)),
        folding=Folding(representative=(), multiplicity=(), layers=()),
        units=tuple(unit.spec for unit in units),
        links=(),
    )
    return Problem(skeleton, Mesh((1,)), units, edges)


def _edge(edge: PairEdge, contraction: Contraction, number: dict[int, int]) -> Edge:
    rows, columns = edge.seconds.shape
    size = rows + columns
    source, target = np.nonzero(np.isfinite(edge.seconds))
    distance = np.full((size, size), np.inf)
    np.fill_diagonal(distance, 0.0)
    distance[:rows, rows:] = edge.seconds
    table = HopTable(
        states=tuple((state,) for state in range(size)),
        source=source,
        target=rows + target,
        seconds=edge.seconds[source, target],
        distance=distance,
        following=np.tile(np.arange(size), (size, 1)),
    )
    return Edge(
        tail=number[contraction.decider[edge.tail]],
        head=number[contraction.decider[edge.head]],
        made=contraction.states[edge.tail],
        read=rows + contraction.states[edge.head],
        table=table,
        count=1,
    )


def solve_instance(instance: Instance) -> dict[str, float]:
    """Solve an instance.

    Returns:
        The objective as the instance's own tables price the chosen states, and the bound
        [us]; columns, rows and undecided units of the programme; processor time of its parts
        [s].

    Raises:
        InfeasibleError: no choice has a finite cost.
    """
    started = time.process_time()
    contraction = contract(instance)
    problem = as_problem(contraction)
    converted = time.process_time()
    model = FlowModel(problem)
    built = time.process_time()
    solution = model.solve()
    solved = time.process_time()
    choice = dict(zip(contraction.seconds, solution.states, strict=True))
    states = [
        int(states[choice[decider]])
        for decider, states in zip(contraction.decider, contraction.states, strict=True)
    ]
    return {
        "objective_us": instance.objective(states) * 1e6,
        "bound_us": solution.bound_s * 1e6,
        "fractional": solution.fractional,
        "columns": model.num_columns,
        "rows": model.num_rows,
        "convert_s": converted - started,
        "build_s": built - converted,
        "solve_s": solved - built,
    }


def compare(path: Path, optimum_us: float, about: Mapping[str, object]) -> BenchReport:
    """Solve an instance and hold the result against the optimum that its own planner found.

    Args:
        path: the instance.
        optimum_us: objective of the planner that the instance comes from [us].
        about: where the instance comes from and what its planner took, for the record.
    """
    found = solve_instance(read_instance(path))
    apart = abs(found["objective_us"] - optimum_us) / optimum_us
    claim = "distance from the optimum of the instance's own planner [share]"
    return BenchReport(
        bench="plan_peer",
        claims=(at_most(claim, apart, SAME),),
        facts={"optimum_us": optimum_us, "found": found, "about": dict(about)},
    )


SAME = 1e-8
"""Two objectives this close are one: the optimum is given with nine digits or more."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="solve a pairwise instance by weft's programme")
    parser.add_argument("instance", type=Path, help="JSON with unit, nodes and edges")
    parser.add_argument("--optimum", type=float, required=True, help="of its own planner [us]")
    parser.add_argument("--about", type=json.loads, default={}, help="a JSON object to keep")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results/")
    given = parser.parse_args()
    report = compare(given.instance, given.optimum, given.about)
    print_report(report)
    if given.save:
        save_report(report, Path(__file__).parents[1] / "results")


if __name__ == "__main__":
    main()
