"""Trainers of several processes: all decide the same, as one that sees all samples would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from tests.unit.rl import trained_rank
from weft.runtime.launch import launch

RANK = Path(trained_rank.__file__)


def ranks(way):
    done = launch([str(RANK), way], 2, timeout_s=180, env=python_path())
    found = [json.loads(output.stdout.splitlines()[-1]) for output in done.outputs]
    assert [mine["ranks"] for mine in found] == [2, 2]
    return found


@pytest.mark.dist
def test_ranks_of_a_trainer_decide_alike_and_keep_the_same_weights():
    one, other = ranks("plain")
    assert one == other
    assert "PROJECT" in {regime for regime, _, _ in one["seen"]}


@pytest.mark.dist
def test_all_ranks_know_the_ages_that_the_first_one_found():
    one, other = ranks("asynchronous")
    assert one == other
    assert [sum(count for _, count in lags) for _, _, lags in one["seen"]] == [16] * 5
    assert one["seen"][0][2] == [[0, 16]]
    assert all(lag > 0 for _, _, lags in one["seen"][1:] for lag, _ in lags)
