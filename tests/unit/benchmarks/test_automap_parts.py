"""Inputs that are cut and models that are unseen: what `weft bench automap` says of them."""

from __future__ import annotations

import pytest

from benchmarks.automap import batches, unseen
from benchmarks.automap.models import RECIPES
from benchmarks.job import workload_of


def cut(**changed):
    given = {"model": "VGG-19", "by": "dqn", "cut": {"batch.images": 0, "batch.labels": 0}}
    return batches.CutBatch(**{**given, "candidates": 2, "entries": 2, "seconds": 3.0, **changed})


def seen(**changed):
    given = {"model": "VGG-19", "machine": "8 V100", "policy_s": 1.05, "lessons_s": 1.0}
    return unseen.Unseen(**{**given, "exact_s": 1.0, "seconds": 3.0, **changed})


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, (True, True)),
        ({"cut": {"batch.images": 0}}, (False, True)),
        ({"cut": {"batch.images": 0, "batch.labels": 1}}, (False, True)),
        ({"seconds": batches.MOST_S + 1}, (True, False)),
    ],
)
def test_every_entry_of_a_batch_has_to_be_cut_by_rows(changed, held):
    assert tuple(claim.ok for claim in batches.batch_claims([cut(**changed)])) == held
    assert "of 2 on dim 0" in batches.batch_row(cut(**changed))[2]


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, (True, True)),
        ({"policy_s": 1.3}, (False, True)),
        ({"seconds": unseen.MOST_S + 1}, (True, False)),
    ],
)
def test_what_is_unseen_has_to_be_planned_well_and_soon(changed, held):
    assert tuple(claim.ok for claim in unseen.unseen_claims([seen(**changed)])) == held


def test_rows_say_how_far_from_exact_a_plan_is():
    text = unseen.unseen_row(seen(lessons_s=1.2))[2]
    assert "1.050 of exact" in text
    assert "lessons 1.200" in text


def test_all_models_are_recipes():
    assert batches.PUBLISHED.keys() == batches.MODELS.keys()
    for recipe in {*batches.MODELS.values(), *unseen.MODELS.values(), *RECIPES.values()}:
        assert workload_of(recipe).name
