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
    assert "bound" not in {row[0] for row in prediction_table(plan).rows}


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
