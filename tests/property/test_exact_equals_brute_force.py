"""On small programs the flow programme finds what trying everything finds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from weft.machine.presets import preset
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.flow import FlowModel
from weft.parallel.placement import Mesh
from weft.parallel.problem import Edge, Problem, build_problem
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.builder import Builder
from weft.program.fold import fold
from weft.program.graph import Phase, Program, Role
from weft.program.types import DType, TensorType

MACHINE = preset("dgx-h100x1")


def random_program(seed: int) -> Program:
    """A few products and element-wise operators on one weight and one batch, then an update."""
    draw = random.Random(seed)
    b = Builder(f"random{seed}")
    size = draw.choice([512, 2048, 8192])
    tensor = TensorType(DType.F32, (size, size))
    weight = b.input("w", Role.PARAMETER, tensor)
    values = [b.input("batch.x", Role.BATCH, tensor), weight]
    loss = None
    for step in range(draw.randint(3, 4)):
        phase = Phase.FORWARD if step < 2 else Phase.BACKWARD
        one, two = draw.choice(values[-2:]), draw.choice(values)
        choice = draw.randrange(4)
        if choice < 2:
            equation = draw.choice(["ab,bc->ac", "ab,cb->ac", "ba,bc->ac"])
            values.append(b.add("einsum", equation, one, two, phase=phase))
        elif choice == 2:
            values.append(b.add("add.Tensor", one, two, phase=phase))
        else:
            values.append(b.add("relu.default", one, phase=phase))
        if step == 1:
            loss = b.add("sum", values[-1], (0, 1))
    assert loss is not None
    updated = b.add("sub.Tensor", weight, values[-1], phase=Phase.UPDATE)
    return b.build(loss, ((weight, updated),))


def problem_of(program: Program, mesh: Mesh) -> Problem:
    table = StrategyTable(program, mesh, slowest_device(MACHINE))
    return build_problem(
        build_skeleton(program, fold(program)), mesh, table, Resharding(MACHINE, mesh)
    )


def _connected_order(problem: Problem) -> list[int]:
    """Units, each with as many edges as possible to those before it: branches end early."""
    left = set(range(len(problem.units)))
    order: list[int] = []
    while left:
        ties = dict.fromkeys(left, 0)
        for edge in problem.edges:
            for here, there in ((edge.tail, edge.head), (edge.head, edge.tail)):
                if here in left and there not in left:
                    ties[here] += 1
        order.append(max(left, key=lambda u: (ties[u], -len(problem.units[u].seconds), -u)))
        left.remove(order[-1])
    return order


def brute_force(problem: Problem, price: float = 0.0) -> float:
    """Depth-first over all choices; a branch ends when it costs as much as the best choice."""
    units = problem.units
    order = _connected_order(problem)
    place = {unit: position for position, unit in enumerate(order)}
    closing: list[list[Edge]] = [[] for _ in units]
    for edge in problem.edges:
        closing[max(place[edge.tail], place[edge.head])].append(edge)
    states = [0] * len(units)
    best = np.inf

    def visit(position: int, cost: float) -> None:
        nonlocal best
        if cost >= best:
            return
        if position == len(order):
            best = cost
            return
        unit = order[position]
        own = units[unit].seconds + price * units[unit].num_bytes
        for state in np.argsort(own):
            states[unit] = int(state)
            extra = float(own[state])
            for edge in closing[position]:
                pair = edge.made[states[edge.tail]], edge.read[states[edge.head]]
                extra += edge.count * float(edge.table.distance[pair])
            visit(position + 1, cost + extra)

    visit(0, 0.0)
    return float(best)


LONG = (34, 35, 48)
"""Programs that take the brute force more than all others together."""


@pytest.mark.parametrize(
    "seed",
    [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in range(60)],
)
def test_flow_programme_equals_brute_force(seed: int) -> None:
    problem = problem_of(random_program(seed), Mesh((4,)))
    solution = FlowModel(problem).solve()
    assert solution.objective_s == pytest.approx(brute_force(problem), rel=1e-9)
    assert solution.bound_s <= solution.objective_s * (1 + 1e-9)
    assert solution.objective_s == pytest.approx(solution.bound_s, rel=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_with_a_price_of_memory_too(seed: int) -> None:
    problem = problem_of(random_program(seed), Mesh((2,)))
    free = FlowModel(problem).solve()
    price = 0.5 * free.objective_s / max(free.num_bytes, 1.0)
    solution = FlowModel(problem).solve(price)
    priced = solution.objective_s + price * solution.num_bytes
    assert priced == pytest.approx(brute_force(problem, price), rel=1e-9)
