"""Fused weights cut over gloo ranks: as one process, and checkpoints in the model's shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("fused_rank.py")

CASES = {
    "two ranks that cut every third": {"degrees": {"tp": 2}, "other": {"dp": 2, "fsdp": True}},
    "thirds cut by both axes": {
        "degrees": {"dp": 2, "tp": 2, "fsdp": True, "sp": True},
        "other": {"tp": 4},
    },
}


@pytest.mark.dist
@pytest.mark.parametrize("name", CASES)
def test_fused_weights_follow_one_process(name, tmp_path):
    case = CASES[name]
    about = dict(case, recipe="gpt_fused.py:gpt_fused_tiny", folder=str(tmp_path / "run"))
    ranks = case["degrees"].get("dp", 1) * case["degrees"]["tp"]
    done = launch([str(RANK), json.dumps(about)], ranks, timeout_s=240, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert found["loss"] < 1e-12
    assert found["state"] < 1e-12
    assert found["same shapes"]
    assert found["stored shapes"]
    assert found["reloaded"]
