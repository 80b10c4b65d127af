"""However a model is split, decisions and weights are those of one process."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from benchmarks.job import python_path
from tests.unit.rl.aligned_rank import RUNS, run
from tests.unit.rl.known import make_model
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("aligned_rank.py")


def whole(name, width):
    """The same run in one process."""
    return run(make_model(width=width), RUNS[name], 0, 1, compensated=name == "compensated")


@pytest.mark.dist
@pytest.mark.parametrize(
    ("ranks", "ways"),
    [
        (2, ["fsdp", "tp"]),
        pytest.param(4, ["fsdp", "hsdp", "tp and fsdp"], marks=pytest.mark.slow),
    ],
)
def test_a_split_model_is_trained_as_a_whole_one(ranks, ways):
    done = launch([str(RANK), *ways], ranks, timeout_s=120, env=python_path())
    everyone = json.loads(done.outputs[0].stdout.splitlines()[-1])
    for way, name in product(ways, RUNS):
        alone = whole(name, 8 if "tp" in way else 7)
        found = [mine[f"{way}: {name}"] for mine in everyone]
        assert {"PROJECT", "SKIP"} & {step[0] for step in alone["decisions"]}
        assert all(other["decisions"] == found[0]["decisions"] for other in found)
        for one, other in zip(alone["decisions"], found[0]["decisions"], strict=True):
            assert one[0] == other[0], (way, name)
            assert one[1:] == pytest.approx(other[1:], abs=1e-6), (way, name)
        for one, other in zip(alone["weights"], found[0]["weights"], strict=True):
            assert torch.allclose(torch.tensor(one), torch.tensor(other), atol=1e-6, rtol=1e-6)
    assert [mine["spoiled"][3:] for mine in everyone] == [["INVALID", "FIRST"]] * ranks
    assert [mine["lagging"] for mine in everyone] == [["FIRST", "PROJECT", "SAFE"]] * ranks
    assert all(mine["resumed"] for mine in everyone)
