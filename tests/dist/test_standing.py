"""Pipelines whose groups are out of the order of ranks compute what one process computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("standing_rank.py")


FEW = (0, 3)
"""One with two stages of two ranks, one with groups of one and two; others take as long again."""
MORE = ((1, 2, 4, 5), (6, 7, 8, 9), (10, 11, 12, 13))


@pytest.mark.dist
def test_drawn_pipelines_on_blocks_in_any_order_follow_one_process(tmp_path):
    follow_one_process(FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("seeds", MORE)
def test_more_pipelines_on_blocks_in_any_order_follow_one_process(seeds, tmp_path):
    follow_one_process(seeds, tmp_path)


def follow_one_process(seeds, folder):
    arguments = [str(RANK), json.dumps(seeds), str(folder)]
    done = launch(arguments, 4, timeout_s=240, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert len(found) == len(seeds)
    assert any(one["first"][0] != 0 for one in found)
    for one in found:
        assert one["missing"] == 0
        assert one["entries"] > 10
        assert one["loss"] < 1e-12
        assert one["state"] < 1e-9
