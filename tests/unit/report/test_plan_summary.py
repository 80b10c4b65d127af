import json
from dataclasses import replace

import pytest

from tests.unit.report import toy_plan
from weft.report.plan_summary import (
    alternatives_table,
    format_share,
    plan_plain,
    plan_sentence,
    prediction_table,
)


def test_the_sentence_says_who_where_how_long_and_how_much():
    sentence = plan_sentence(toy_plan.plan())
    for part in ("toy on toy-box", "4 devices", "9 ms", "search gap 2 %", "1.0 GiB"):
        assert part in sentence


def test_no_bound_is_claimed_where_none_is_known():
    plan = toy_plan.plan()
    plan = replace(plan, prediction=replace(plan.prediction, bound_s=0.0))
    assert "gap" not in plan_sentence(plan)
    assert "objective" not in {row[0] for row in prediction_table(plan).rows}
    assert plan_plain(plan)["bound_s"] is None
    assert plan_plain(plan)["gap"] is None


def test_a_bound_is_one_of_the_objective_and_not_of_the_step():
    rows = {row[0]: row for row in prediction_table(toy_plan.plan()).rows}
    _, value, meaning = rows["objective"]
    assert value == "1.02 s"
    assert "expected to wait for" in meaning
    assert "at most 2 % above the least possible on this mesh" in meaning


def test_an_objective_that_is_not_known_is_null():
    plan = toy_plan.plan()
    plan = replace(plan, prediction=replace(plan.prediction, objective_s=0.0, bound_s=0.0))
    assert plan_plain(plan)["objective_s"] is None


@pytest.mark.parametrize(("limit", "fit"), [(2.0**30, True), (0.0, True), (600e6, False)])
def test_whether_a_plan_fits_is_in_the_summary_and_in_the_table(limit, fit):
    plan = replace(toy_plan.plan(), memory_limit_bytes=limit)
    assert plan_plain(plan)["fits"] is fit
    rows = {row[0]: row for row in prediction_table(plan).rows}
    assert ("DOES NOT FIT" in rows["peak memory"][2]) is not fit


def test_this_plan_comes_first_and_what_does_not_fit_comes_last():
    rows = alternatives_table(toy_plan.plan()).rows
    assert [row[0] for row in rows] == ["this plan", "tensor 4", "data 4"]
    assert [row[2] for row in rows] == ["1.00x", "2.00x", "0.89x"]
    assert rows[2][4] == "does not fit. too large"


def test_the_summary_is_json_and_keeps_every_figure_of_the_prediction():
    plan = toy_plan.plan()
    plain = json.loads(json.dumps(plan_plain(plan), allow_nan=False))
    assert plain["step_s"] == plan.prediction.step_s
    assert plain["peak_bytes"] == plan.prediction.peak_bytes
    assert plain["gap"] == pytest.approx(0.02)
    assert len(plain["alternatives"]) == 2


def test_the_hidden_share_is_what_is_not_exposed():
    rows = {row[0]: row for row in prediction_table(toy_plan.plan()).rows}
    assert "50 % is hidden" in rows["exposed"][2]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-15, "0 %"),
        (2e-5, "<0.01 %"),
        (0.0213, "2.1 %"),
        (0.5, "50 %"),
        (0.999, "100 %"),
        (2, "200 %"),
    ],
)
def test_shares_are_percentages(share, text):
    assert format_share(share) == text
