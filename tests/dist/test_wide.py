"""Layers that are cut, or that compute all rows in runs, do on gloo ranks what one process does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("wide_rank.py")

CASES = {
    "gpt": {"recipe": "gpt.py:gpt_tiny", "degrees": {"dp": 2, "tp": 2, "zero": 1}, "seed": 1},
    "gpt, rows along the outer axis alone": {
        "recipe": "gpt.py:gpt_tiny",
        "degrees": {"dp": 2, "tp": 2},
        "rows": 6,
        "seed": 2,
    },
    "gpt, one row for each rank": {
        "recipe": "gpt.py:gpt_tiny",
        "degrees": {"dp": 2, "tp": 2},
        "rows": 4,
        "seed": 6,
    },
    "llama": {"recipe": "llama3.py:llama_tiny", "degrees": {"dp": 2, "tp": 2}, "seed": 3},
    "resnet": {
        "recipe": "resnet.py:resnet_tiny",
        "degrees": {"dp": 2, "tp": 2, "zero": 3},
        "seed": 4,
    },
    "llama, rows along no axis": {
        "recipe": "llama3.py:llama_tiny",
        "degrees": {"tp": 4, "zero": 1},
        "rows": 6,
        "seed": 5,
    },
    "resnet, rows along the outer axis alone": {
        "recipe": "resnet.py:resnet_tiny",
        "degrees": {"dp": 2, "tp": 2, "zero": 1},
        "rows": 6,
        "seed": 6,
    },
    "gpt, all in parts, rows along the outer axis alone": {
        "recipe": "gpt.py:gpt_tiny",
        "degrees": {"dp": 2, "tp": 2, "zero": 3},
        "rows": 6,
        "seed": 7,
    },
    "mlp": {"recipe": "mlp.py:mlp_wide", "degrees": {"tp": 4}, "seed": 8},
}


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", CASES)
def test_layers_follow_one_process(name):
    follows_one_process(CASES[name])


def follows_one_process(case):
    done = launch([str(RANK), json.dumps(case)], 4, timeout_s=240, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert found["missing"] == 0
    assert found["entries"] >= 4
    assert found["loss"] < 1e-12
    assert found["state"] < 1e-9
