"""A pipeline in words, as a page and as a trace."""

from __future__ import annotations

import json
from functools import cache

from tests.programs import mlp
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan
from weft.report.page import render
from weft.report.pipeline_page import pipeline_page
from weft.report.pipeline_summary import pipeline_plain, pipeline_sentence, stage_table
from weft.report.trace import pipeline_trace


@cache
def plan(schedule: str = "zero-bubble", micro_batches: int = 4) -> PipelinePlan:
    program = mlp(4, batch=16, width=64, slots=("m",))
    machine = preset("dgx-h100x1")
    return pipeline_expert(program, machine, pp=2, micro_batches=micro_batches, schedule=schedule)


def test_the_sentence_says_what_it_is_and_costs() -> None:
    words = pipeline_sentence(plan())
    assert "2 stages on 2 groups of one device, 4 micro-batches, zero-bubble" in words
    assert "does not fit" not in words


def test_every_stage_has_a_row() -> None:
    rows = stage_table(plan()).rows
    assert [row[0] for row in rows] == ["0", "1"]


def test_the_page_draws_every_action_and_names_what_it_shows() -> None:
    text = render(pipeline_page(plan(), "plan.json"))
    # Forward, gradients of inputs and of weights, of two stages and four micro-batches.
    assert text.count("micro-batch ") >= 24
    assert "the other gradients" in text
    assert "group 1" in text
    assert "the other gradients" not in render(pipeline_page(plan("1f1b"), "plan.json"))


def test_the_trace_has_an_event_for_every_action() -> None:
    events = pipeline_trace(plan())["traceEvents"]
    assert isinstance(events, list)
    work = [event for event in events if event["ph"] == "X"]
    assert len(work) == 24
    assert {event["tid"] for event in work} == {0, 1}
    json.dumps(events, allow_nan=False)


def test_the_plain_form_is_json_with_all_figures() -> None:
    found = json.loads(json.dumps(pipeline_plain(plan()), allow_nan=False))
    assert found["stages"] == 2
    assert len(found["stage_times"]) == 2
    assert found["fits"] is True
