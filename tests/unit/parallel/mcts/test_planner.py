"""Several decisions become plans; the best of them comes out."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.programs import mlp
from tests.uneven import MIXED
from weft.core.errors import InfeasibleError
from weft.parallel.experts import wide_grid
from weft.parallel.mcts import planner as module
from weft.parallel.mcts.planner import NAME, MctsPlanner
from weft.parallel.mcts.search import uniform
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.program.fold import fold

PROGRAM = mlp(num_layers=3, batch=64, width=512, hidden=lambda _: 2048, slots=("m",))


@pytest.fixture
def planned(monkeypatch):
    """Simulated steps of decisions, in order."""
    found = []
    make = module.plan_by_homes

    def noted(*args, **kwargs):
        candidate = make(*args, **kwargs)
        found.append(candidate.step_s)
        return candidate

    monkeypatch.setattr(module, "plan_by_homes", noted)
    return found


def searched(stop=lambda: False):
    planner = MctsPlanner(prior=uniform, simulations=(60, 60), stop=stop)
    return plan(PROGRAM, MIXED, planner=planner, max_stages=1)


def step_of(found):
    told = {other.name: other.step_s for other in found.alternatives}
    return told.get(NAME, found.prediction.step_s)


def test_several_are_simulated_whole_and_the_best_is_kept(planned):
    found = searched()
    assert 1 < len(planned) <= 4
    assert step_of(found) == min(planned)


def test_one_that_the_sketch_flatters_is_not_taken(planned, monkeypatch):
    decide = module.decide

    def reversed_(*args, **kwargs):
        decided = decide(*args, **kwargs)
        return replace(decided, homes=decided.homes[::-1])

    monkeypatch.setattr(module, "decide", reversed_)
    assert step_of(searched()) == min(planned) < max(planned)


def test_a_search_that_is_stopped_plans_one_decision(planned):
    searched(stop=lambda: True)
    assert len(planned) == 1


def test_what_is_searched_is_not_called_as_experts_call_theirs():
    request = PlanRequest(program=PROGRAM, machine=MIXED)
    planner = MctsPlanner(prior=uniform, simulations=(1, 0))
    searched = planner.start(request, fold(PROGRAM), None, lambda _: None).proposals()
    names = [own.name for own in searched]
    assert len(set(names)) == 2
    assert [own.build().name for own in searched] == names
    assert not set(names) & {degrees.name for degrees in wide_grid(request)}


@pytest.mark.parametrize(("most", "ended"), [(0, True), (1, False)])
def test_time_is_left_for_pipelines_where_there_may_be_some(most, ended, monkeypatch):
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))
    request = PlanRequest(program=PROGRAM, machine=MIXED, time_limit_s=10.0, max_stages=most)
    planner = MctsPlanner(prior=uniform, simulations=(1, 0))
    search = planner.start(request, fold(PROGRAM), None, lambda _: None)
    clock.now_s = 9.0
    search.proposals()
    assert any("was stopped" in note for note in search.notes) is ended


def test_who_was_stopped_says_that_pipelines_were_not_looked_at():
    planner = MctsPlanner(prior=uniform, stop=lambda: True)
    with pytest.raises(InfeasibleError, match="pipelines were not looked at"):
        plan(PROGRAM, MIXED, planner=planner, memory_limit_bytes=1e5)
