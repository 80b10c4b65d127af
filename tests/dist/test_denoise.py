"""Ranks that share a run decide alike, although each sees another part of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("denoise_rank.py")


def ran(how, policy="compares"):
    done = launch([str(RANK), how, policy], 2, timeout_s=120, env=python_path())
    return json.loads(done.outputs[0].stdout.splitlines()[-1])


@pytest.mark.dist
def test_distances_are_the_mean_over_ranks_and_plans_the_same():
    found = ran("together")
    assert found["distances"][0] == found["distances"][1]
    assert found["plans"][0] == found["plans"][1]


@pytest.mark.dist
def test_ranks_with_runs_of_their_own_see_other_distances():
    found = ran("alone")
    assert found["distances"][0] != found["distances"][1]


@pytest.mark.dist
def test_ranks_that_learn_follow_one_plan():
    """Each learns from another part; without one plan they would wait for each other in vain."""
    plans = ran("together", "learns")["plans"]
    assert plans[0] == plans[1]
    alone = ran("alone", "learns")["plans"]
    assert alone[0] != alone[1]
