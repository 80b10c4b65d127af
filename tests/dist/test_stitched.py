"""Planned steps compiled with weft's kernels, on gloo ranks: the losses and states of eager ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("stitched_rank.py")

CASES = {
    "products cut in two": {"tp": 2},
    "parameters cut in two": {"dp": 2, "fsdp": True},
    "two stages": {"pp": 2, "micro_batches": 2},
}


LATE = ("parameters cut in two", "two stages")
"""Cases that are run with the slow tests: each compiles for a minute or two."""


@pytest.mark.dist
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LATE)) for n in CASES]
)
def test_a_step_with_kernels_follows_the_eager_one(name):
    about = {"recipe": "gpt.py:gpt_tiny", "degrees": CASES[name]}
    done = launch([str(RANK), json.dumps(about)], 2, timeout_s=500, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert found["calls"] > 0
    assert found["loss"] < 1e-5
    assert found["state"] < 1e-4
