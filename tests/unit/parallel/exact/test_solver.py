"""A programme in its own thread: answers, deadlines, and a stop in the middle of a solve."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from math import inf

import pytest

from tests.programs import mlp
from weft.machine.presets import preset
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.exact.solver import Solver
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.problem import build_problem
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.fold import fold

MESH = Mesh((4,))


def model() -> FlowModel:
    program, machine = mlp(2), preset("dgx-h100x1")
    table = StrategyTable(program, MESH, slowest_device(machine))
    skeleton = build_skeleton(program, fold(program))
    return FlowModel(build_problem(skeleton, MESH, table, Resharding(machine, MESH)))


def test_the_thread_finds_what_the_programme_gives_by_itself() -> None:
    solver = Solver(model(), inf)
    solver.ask(0.0, 0.5)
    assert solver.solution(0.0, 0.0).bound_s == pytest.approx(model().solve().bound_s)
    assert solver.solution(0.0, 0.0) is solver.solution(0.0, 0.0)
    solver.close()


def test_a_passed_deadline_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # HiGHS gets no time, so that there is no answer by itself.
    monkeypatch.setattr("weft.parallel.exact.flow.SLICE_OF_TIME_S", 0.0)
    solver = Solver(model(), time.perf_counter() - 1.0)
    with pytest.raises(TimeoutError):
        solver.solution(0.0, 0.0)
    solver.close()


def test_a_stop_reaches_a_solve_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    # HiGHS gets no time, so that the solve never ends by itself.
    monkeypatch.setattr("weft.parallel.exact.flow.SLICE_OF_TIME_S", 0.0)
    flow = model()
    with ThreadPoolExecutor(max_workers=1) as pool:
        solving = pool.submit(flow.solve)
        with pytest.raises(TimeoutError):
            solving.result(timeout=0.2)
        flow.stop()
        with pytest.raises(CancelledError):
            solving.result(timeout=60)


def test_slices_of_time_change_no_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model().solve()
    monkeypatch.setattr("weft.parallel.exact.flow.SLICE_OF_TIME_S", 1e-3)
    sliced = model().solve()
    assert sliced.states == whole.states
    assert sliced.bound_s == pytest.approx(whole.bound_s)


def test_no_time_leaves_the_best_hand_written_plan_and_says_so() -> None:
    found = plan(mlp(2), preset("dgx-h100x1"), max_stages=1, time_limit_s=0.0)
    assert any(note.startswith("time limit: 2 of 2 mesh shapes") for note in found.notes)
    assert found.prediction.step_s > 0


@pytest.mark.parametrize(("level", "solves"), [(Level.FAST, 1), (Level.BEST, 2)])
def test_a_second_programme_is_solved_only_where_the_first_was_too_hopeful(
    monkeypatch: pytest.MonkeyPatch, level: Level, solves: int
) -> None:
    asked: list[float] = []
    solve = FlowModel.solve

    def noted(flow: FlowModel, price_s_per_byte: float = 0.0, hidden: float = 0.0) -> Solution:
        asked.append(hidden)
        return solve(flow, price_s_per_byte, hidden)

    monkeypatch.setattr(FlowModel, "solve", noted)
    wide = mlp(num_layers=4, batch=4096, width=1024, hidden=lambda _: 4096, slots=("m",))
    plan(wide, preset("dgx-h100x1"), mesh=(8,), level=level)
    assert len(asked) == solves
    # Four nodes share what one had: less computation hides less than the first solve hoped.
    asked.clear()
    narrow = mlp(num_layers=4, batch=2048, width=1024, hidden=lambda _: 4096, slots=("m",))
    plan(narrow, preset("dgx-h100x4"), mesh=(32,), level=level)
    assert len(asked) == 2
