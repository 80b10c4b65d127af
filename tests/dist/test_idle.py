"""Plans that leave some devices idle compute on gloo ranks what one process computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("idle_rank.py")

CASES = {
    "two of four ranks, one place": {
        "recipe": "gpt.py:gpt_tiny",
        "ranks": 4,
        "spot": "2 on ranks 0-1",
        "stored": 1,
        "seed": 1,
    },
    "two of four ranks, not the first": {
        "recipe": "llama3.py:llama_tiny",
        "ranks": 4,
        "spot": "2 on ranks 2-3",
        "stored": 3,
        "seed": 2,
    },
    "four of eight ranks, two places": {
        "recipe": "gpt.py:gpt_tiny",
        "ranks": 8,
        "spot": "2x2 on ranks 4-7",
        "stored": 0,
        "seed": 3,
    },
}


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", CASES)
def test_plans_follow_one_process(name):
    case = CASES[name]
    command = [str(RANK), json.dumps(case)]
    done = launch(command, case["ranks"], timeout_s=240, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert found["missing"] == 0
    assert found["loss"] < 1e-12
    assert found["state"] < 1e-9
