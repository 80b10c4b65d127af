import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.report import bench
from weft.report.bench import (
    BenchReport,
    at_least,
    at_most,
    environment,
    exactly,
    print_report,
    report_json,
    save_report,
)
from weft.report.table import Table

NUMBERS = st.floats(-1e6, 1e6)


@given(NUMBERS, NUMBERS)
def test_a_limit_holds_on_its_own_side_and_on_itself(value, limit):
    assert at_most("x", value, limit).ok == (value <= limit)
    assert at_least("x", value, limit).ok == (value >= limit)
    assert at_most("x", limit, limit).ok and at_least("x", limit, limit).ok
    assert exactly("x", value, limit).ok == (value == limit)


def test_a_value_that_is_no_number_misses_every_target_and_is_null_in_json():
    claims = tuple(make("x", math.nan, 1.0) for make in (at_most, at_least, exactly))
    assert not any(claim.ok for claim in claims)
    plain = json.loads(report_json(BenchReport(bench="b", claims=claims)))
    assert [claim["value"] for claim in plain["claims"]] == [None, None, None]


def test_the_last_line_is_json_with_every_claim_and_where_it_ran():
    lines = []
    claims = (at_most("error", 0.1, 0.2), at_least("speed-up", 1.5, 1.6))
    table = Table(columns=("plan", "step"), rows=(("ddp", "12 ms"),))
    report = BenchReport(bench="predict", claims=claims, table=table, facts={"repeats": 3})
    print_report(report, write=lines.append)
    text = "".join(lines)
    plain = json.loads(text.splitlines()[-1])
    assert plain["bench"] == "predict"
    assert plain["claims"][1] == {
        "claim": "speed-up",
        "value": 1.5,
        "target": 1.6,
        "comparison": ">=",
        "ok": False,
    }
    assert plain["ok"] is False
    assert plain["repeats"] == 3
    assert set(environment()) <= set(plain)
    assert "ddp" in text


def test_only_json_prints_one_line():
    lines = []
    print_report(BenchReport(bench="b", claims=()), write=lines.append, only_json=True)
    assert len("".join(lines).splitlines()) == 1


def test_a_fact_cannot_overwrite_what_the_report_says_itself():
    with pytest.raises(InputError, match="claims"):
        report_json(BenchReport(bench="b", claims=(), facts={"claims": "all fine"}))


def test_saving_twice_keeps_both_results(tmp_path):
    claim = exactly("c", 1.0, 1.0)
    report = BenchReport(bench="scaling", claims=(claim,))
    first = save_report(report, tmp_path / "results")
    assert save_report(report, tmp_path / "results") == first
    lines = first.read_text().splitlines()
    assert len(lines) == 2
    month = str(environment()["date"])[:7].replace("-", "")
    assert first.name.startswith("scaling_")
    assert first.name.endswith(f"_{month}.jsonl")
    assert json.loads(lines[0])["claims"] == json.loads(lines[1])["claims"]


@pytest.mark.parametrize(("changed", "commit"), [("", "abc"), (" M README.md", "abc-dirty")])
def test_a_commit_says_whether_the_checkout_differs_from_it(monkeypatch, changed, commit):
    asked = []

    def git(*arguments):
        asked.append(arguments)
        return "abc" if arguments[0] == "rev-parse" else changed

    monkeypatch.setattr(bench, "_git", git)
    assert environment()["commit"] == commit
    assert ":!/benchmarks/results" in asked[-1], "what runs before it have left does not count"
