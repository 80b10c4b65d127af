"""What `weft bench tag` says of what it found."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.tag import exact
from benchmarks.tag import run as tag
from benchmarks.tag.exact import Against
from benchmarks.tag.models import RECIPES, SEEN, UNSEEN
from tests.programs import transformer
from tests.uneven import KINDS, MIXED
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.network import PriorNetwork
from weft.parallel.mcts.prior import LearnedPrior
from weft.parallel.mcts.search import Found
from weft.parallel.mcts.sketching import sketched

PROGRAM = transformer(num_layers=2, batch=16, width=64)
SKETCH = sketched(grouped(PROGRAM, KINDS, most=6), KINDS)


def planned(program, machine, *, planner, max_stages, time_limit_s):
    """A plan that a planner might come to."""
    assert program is PROGRAM and max_stages == 1 and time_limit_s > 0
    step_s = {"exact": 2.0, "mcts": 1.0, "dqn": 2.2}[planner]
    bound_s = 2.0 if planner == "exact" else 0.0
    prediction = SimpleNamespace(step_s=step_s, bound_s=bound_s, gap=0.0)
    return SimpleNamespace(planner=planner, prediction=prediction, search_s=0.1)


@pytest.fixture
def small(monkeypatch):
    """A small model in place of every model, few simulations and a network that knows nothing."""
    monkeypatch.setattr(tag, "sketch_of", lambda _: SKETCH)
    monkeypatch.setattr(exact, "sketch_of", lambda _: SKETCH)
    monkeypatch.setattr(exact, "_shortened", lambda _: PROGRAM)
    monkeypatch.setattr(exact, "plan", planned)
    monkeypatch.setattr(tag, "LearnedPrior", lambda: LearnedPrior(PriorNetwork(width=16).eval()))
    for name, value in (("MOST", 12), ("LEARNED", 6), ("REFINED", 10), ("MACHINES", 4)):
        monkeypatch.setattr(tag, name, value)


def test_models_that_were_not_trained_on_are_not_among_those_that_were():
    assert set(UNSEEN) <= RECIPES.keys() and set(SEEN) <= RECIPES.keys()
    assert not set(UNSEEN) & set(SEEN)


def test_half_of_the_random_machines_have_unseen_models(small):
    models = [case.model for case in tag._random_cases(8)]
    assert sum(model in UNSEEN for model in models) == 4


def test_a_plan_is_no_slower_than_data_parallel(small):
    case = tag._case("VGG-19", MIXED)
    assert case.data_parallel_fits and case.fits
    assert case.speedup >= 1.0
    assert 1 <= case.learned_reaches <= 12 and 1 <= case.learned_beats <= 12


def test_simulations_are_counted_until_it_is_better(small):
    found = Found(
        choices=(),
        decision=(),
        outcome=None,
        baseline_s=2.0,
        simulations=9,
        progress=((0, 2.0), (3, 1.5), (7, 1.0)),
    )
    assert tag._reached(found, 2.0, strictly=True) == 3
    assert tag._reached(found, 1.0) == 7
    assert tag._reached(found, 0.5) == 12


def test_the_report_says_what_holds(small):
    report = tag.run(quick=True)
    assert [claim.comparison for claim in report.claims] == [">="] * 4 + ["<="] * 4
    assert report.claims[1].ok and report.claims[3].ok
    assert len(report.facts["cases"]) == 6 and len(report.facts["exact"]) == 2
    assert all(len(row) == len(report.table.columns) for row in report.table.rows)
    assert np.isfinite([claim.value for claim in report.claims]).all()


def case(machine="some", gap=0.0, without=(), **learned_s):
    return Against(
        model="VGG-19",
        machine=machine,
        operators=1,
        exact_s=2.0,
        gap=gap,
        learned_s=learned_s,
        without=without,
        searched_s={},
    )


def test_the_claim_about_exact_rests_on_what_is_proven():
    cases = [case(mcts=2.0, dqn=2.08), case(gap=None, mcts=4.0), case(gap=0.02, mcts=3.0)]
    claim, found = tag._within(cases)
    assert found.ok and not tag._within([case(mcts=2.0, without=("dqn",))])[-1].ok
    assert claim.value == pytest.approx(1.04) and claim.ok
    assert "1 proven of 3 cases" in claim.claim
    assert not tag._within([case(mcts=2.2)])[0].ok
    assert tag._within(cases[1:]) == (found,)


def test_the_column_tells_each_planner_and_what_is_proven():
    cases = [case(machine=tag.PRESET, mcts=1.0, dqn=3.0), case(gap=None, mcts=2.0)]
    assert tag._over("VGG-19", cases, testbed=True) == "mcts 0.50x, dqn 1.50x (proven)"
    assert tag._over("VGG-19", cases, testbed=False) == "mcts 1.00x"


def test_plans_are_compared_on_one_program(small):
    testbed, other = exact.against_exact(["VGG-19"], 1)
    assert testbed.machine == tag.PRESET != other.machine
    assert testbed.operators == len(PROGRAM.nodes)
    assert testbed.learned_s == {"mcts": 1.0, "dqn": 2.2} and other.learned_s == {"mcts": 1.0}
    assert testbed.searched_s.keys() == {"exact", "mcts", "dqn"}
    assert testbed.proven and testbed.worst == pytest.approx(1.1)
