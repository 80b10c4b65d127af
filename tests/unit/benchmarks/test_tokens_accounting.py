"""The parts of `weft bench tokens` that take no time."""

import sys

import pytest

from benchmarks.tokens import accounting
from weft.tokens import Usage
from weft.tokens.adapters import SHAPES


def test_a_bench_of_few_draws_finds_what_one_of_many_does(monkeypatch):
    monkeypatch.setattr(accounting, "_rate", lambda count: accounting.Part(claims=()))
    part = accounting.accounting(True, sys.executable)
    assert all(claim.ok for claim in part.claims)
    told = {row[2]: row[3] for row in part.rows}
    assert told["a bug"] == "$0.0820"
    assert {"litellm", "tokencost"} & {name for name, what in told.items() if "not" in what} or (
        "litellm" in " ".join(told)
    )


def test_a_usage_that_is_not_what_was_reported_is_seen():
    shape = SHAPES["openai-chat"]
    leaves = dict.fromkeys(shape.input_leaves | shape.output_leaves, 1)
    assert accounting._is_off(shape, leaves, Usage.of(fresh=1))
    right = Usage.of(**dict.fromkeys(leaves, 1))
    assert not accounting._is_off(shape, leaves, right)


def test_a_log_is_taken_in_whole():
    part = accounting._rate(200)
    assert part.claims[0].ok
    assert part.facts["ingested_calls"] == 200


@pytest.mark.parametrize("number", [0, 1])
def test_lines_are_replies_that_are_read(number):
    import json

    from weft.tokens.adapters import read_call

    line = list(accounting._lines(2))[number]
    assert read_call("", json.loads(line)).usage.input.is_exact
