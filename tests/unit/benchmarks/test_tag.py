"""What `weft bench tag` says of what it found."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tag import run as tag
from benchmarks.tag.models import RECIPES, SEEN, UNSEEN
from tests.programs import transformer
from tests.uneven import KINDS, MIXED
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.network import PriorNetwork
from weft.parallel.mcts.prior import LearnedPrior
from weft.parallel.mcts.search import Found
from weft.parallel.mcts.sketching import sketched

SKETCH = sketched(grouped(transformer(num_layers=2, batch=16, width=64), KINDS, most=6), KINDS)


@pytest.fixture
def small(monkeypatch):
    """A small model in place of every model, few simulations and a network that knows nothing."""
    monkeypatch.setattr(tag, "sketch_of", lambda _: SKETCH)
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
    assert [claim.comparison for claim in report.claims] == [">="] * 4 + ["<="] * 2
    assert report.claims[1].ok and report.claims[3].ok
    assert len(report.facts["cases"]) == 6
    assert all(len(row) == len(report.table.columns) for row in report.table.rows)
    assert np.isfinite([claim.value for claim in report.claims]).all()
