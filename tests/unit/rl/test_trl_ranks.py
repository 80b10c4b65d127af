"""Trainers of several processes: all decide the same, however the model is held."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("trained_rank.py")


@pytest.mark.dist
def test_ranks_of_trainers_decide_alike_know_ages_and_go_on_from_checkpoints(tmp_path):
    done = launch([str(RANK), str(tmp_path)], 2, timeout_s=180, env=python_path())
    one, other = (json.loads(output.stdout.splitlines()[-1]) for output in done.outputs)
    assert one == other
    assert {way["ranks"] for way in one.values()} == {2}

    for way in ("plain", "sharded"):
        assert "PROJECT" in {regime for regime, _, _ in one[way]["seen"]}

    ages = [lags for _, _, lags in one["asynchronous"]["seen"]]
    assert [sum(count for _, count in lags) for lags in ages] == [16] * 5
    assert ages[0] == [[0, 16]]
    assert all(lag > 0 for lags in ages[1:] for lag, _ in lags)

    assert one["resumed"]["seen"] == one["sharded"]["seen"][3:]
    assert one["resumed"]["sums"] == one["sharded"]["sums"]
