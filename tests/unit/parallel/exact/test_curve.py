"""The curve of a programme over all prices of memory."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from tests.programs import transformer
from weft.machine.presets import preset
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.curve import Curve, memory_curve
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.exact.unfolded import Unfolded, unfolded
from weft.parallel.placement import Mesh
from weft.parallel.problem import Problem, build_problem
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.fold import fold
from weft.program.graph import Program

MACHINE = preset("dgx-h100x1")
MESH = Mesh((8,))


@cache
def model() -> FlowModel:
    return FlowModel(problem())


@cache
def problem() -> Problem:
    return build_problem(build_skeleton(program(), fold(program())), MESH, *costs())


@cache
def layers() -> Unfolded:
    return unfolded(problem(), *costs())


@cache
def program() -> Program:
    return transformer(num_layers=6, batch=16, length=128, width=512, vocabulary=2048)


@cache
def costs() -> tuple[StrategyTable, Resharding]:
    return StrategyTable(program(), MESH, slowest_device(MACHINE)), Resharding(MACHINE, MESH)


@cache
def curve() -> Curve:
    free = model().solve(0.0)
    return memory_curve(lambda price: model().solve(price), 100 * free.objective_s / free.num_bytes)


def test_dearer_memory_makes_plans_smaller_and_slower() -> None:
    points = [point.solution for point in curve().points]
    assert len(points) > 3
    for cheap, dear in pairwise(points):
        assert dear.num_bytes <= cheap.num_bytes * (1 + 1e-9)
        assert dear.objective_s >= cheap.objective_s * (1 - 1e-9)


def test_no_price_in_between_finds_anything_below_the_curve() -> None:
    prices = [point.price_s_per_byte for point in curve().points]
    for price in np.geomspace(prices[1] / 3, prices[-1], 7):
        cost = model().solve(float(price))
        known = min(p.solution.objective_s + price * p.solution.num_bytes for p in curve().points)
        assert cost.objective_s + price * cost.num_bytes == pytest.approx(known, rel=1e-6)


def test_a_budget_is_answered_within_its_bound() -> None:
    large, small = curve().points[0].solution, curve().points[-1].solution
    for share in (0.0, 0.3, 0.7, 1.0):
        limit = small.num_bytes + share * (large.num_bytes - small.num_bytes)
        found = curve().answer(limit, layers())
        assert found is not None
        assert found.num_bytes <= limit * (1 + 1e-12)
        assert curve().bound_s(limit) <= found.objective_s * (1 + 1e-9)
    assert curve().answer(0.5 * small.num_bytes, layers()) is None


def test_without_folding_a_choice_costs_the_same() -> None:
    for point in curve().points:
        found = point.solution
        for number in (0, layers().num_layers):
            mix = layers().mix(found, found, number)
            assert mix.objective_s == pytest.approx(found.objective_s, rel=1e-9)
            assert mix.num_bytes == pytest.approx(found.num_bytes, rel=1e-9)


def test_a_budget_between_two_points_is_answered_by_a_mix_of_them() -> None:
    gaps = []
    solutions = [point.solution for point in curve().points]
    for large, small in pairwise(solutions):
        limit = (large.num_bytes + small.num_bytes) / 2
        found = curve().answer(limit, layers())
        assert found is not None
        assert found.objective_s <= small.objective_s * (1 + 1e-12)
        gaps.append(small.objective_s - found.objective_s)
    assert max(gaps) > 0


def test_a_programme_with_one_optimum_has_a_curve_of_two_points() -> None:
    only = Solution(
        states=(), objective_s=1.0, bound_s=1.0, num_bytes=8.0, fractional=0, hidden=0.0
    )
    assert len(memory_curve(lambda _: only, 1.0).points) == 2
