"""Pipelines whose stages are branches of the graph compute what one process computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("branches_rank.py")

CASES = {
    "texts first, though images are computed first": {
        "pins": ["text=stage 0", "vision=stage 1"],
        "pp": 2,
        "micro_batches": 4,
    },
    "images first, gradients of weights later": {
        "pins": ["vision=stage 0", "text=stage 1"],
        "pp": 2,
        "micro_batches": 4,
        "schedule": "zero-bubble",
        "recompute": "full",
    },
    "as the search cuts them": {
        "config": {"groups": 2, "data": 1, "inner": 1, "micro_batches": 4, "rows": 2},
        "schedule": "1f1b",
    },
    "as the search cuts them, on two ranks each": {
        "config": {"groups": 2, "data": 1, "inner": 2, "micro_batches": 4, "rows": 2},
        "schedule": "zero-bubble",
    },
}


@pytest.mark.dist
@pytest.mark.parametrize("name", CASES)
def test_towers_that_are_computed_in_turn_are_stages_of_their_own(name):
    case = {"recipe": "matcher.py:matcher_tiny", "steps": 3} | CASES[name]
    ranks = case["config"]["groups"] * case["config"]["inner"] if "config" in case else case["pp"]
    done = launch([str(RANK), json.dumps(case)], ranks, timeout_s=240, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert min(found["runs"]) > 2
    assert found["missing"] == 0
    assert found["entries"] > 10
    assert found["loss"] < 1e-12
    assert found["state"] < 1e-9
