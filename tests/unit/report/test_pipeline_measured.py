"""Ranks of a pipeline, measured beside predicted, from records alone."""

from __future__ import annotations

import pytest

from tests.unit.report.test_pipeline_page import plan
from weft.core.errors import FileError
from weft.core.records import Record
from weft.report.page import render
from weft.report.pipeline_measured import rank_figures, rank_section, rank_table
from weft.report.pipeline_page import pipeline_page

FIELDS = {
    "group": 0,
    "stages": [0],
    "steps": 3,
    "step_s": 0.5,
    "waited": 0.25,
    "exposed_s": 0.125,
    "peak_bytes": 3 * 2**20,
    "predicted_step_s": 0.4,
    "predicted_waited": 0.2,
    "predicted_peak_bytes": 2.0 * 2**20,
}


def rank(number: int, **changed: object) -> Record:
    return Record(kind="rank", fields={**FIELDS, "rank": number, **changed}, time_s=0.0)


def test_ranks_come_in_order_and_the_newest_run_counts() -> None:
    found = rank_figures([rank(1, step_s=9.0), rank(0), Record(kind="run", fields={}), rank(1)])
    assert [(f.rank, f.step_s) for f in found] == [(0, 0.5), (1, 0.5)]
    assert found[0].stages == (0,)


def test_a_row_holds_measured_beside_predicted() -> None:
    (row,) = rank_table(rank_figures([rank(2, stages=[1, 3])])).rows
    assert row[:2] == ("2", "1, 3")
    assert row[4:6] == ("25 %", "20 %")
    assert row[7:] == ("3.0 MiB", "2.0 MiB")


def test_a_record_without_a_figure_is_an_error() -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "waited"}
    with pytest.raises(FileError, match="waited"):
        rank_figures([Record(kind="rank", fields={**fields, "rank": 0})])


def test_nothing_is_drawn_where_nothing_was_measured() -> None:
    assert rank_section(()) == ()
    assert "Ranks, measured" not in render(pipeline_page(plan(), "plan.json"))


def test_the_page_draws_ranks_and_names_the_records() -> None:
    steps = [Record(kind="step", fields={"step": n, "step_s": 0.5}) for n in range(3)]
    page = render(pipeline_page(plan(), "plan.json", [*steps, rank(0), rank(1)], "run.jsonl"))
    assert "the median of 2 measured steps" in page
    assert "rank 1 waits" in page
    assert "run.jsonl" in page
