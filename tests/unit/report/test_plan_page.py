import json
from dataclasses import replace
from html import unescape

import pytest

from tests.unit.report import toy_plan
from tests.unit.report.plot.drawing import elements
from weft.core.units import format_seconds
from weft.report.page import render
from weft.report.plan_page import measured_steps, plan_page, sharding_tags


def draw(records=(), **changes):
    program, _ = toy_plan.draft()
    page = plan_page(
        replace(toy_plan.plan(), **changes),
        program,
        toy_plan.machine(),
        toy_plan.timeline(),
        explanation="in words",
        records=records,
        sources=(("plan", "plan.json"),),
    )
    return page, render(page)


def test_a_page_has_what_a_reader_of_a_plan_asks_for():
    page, text = draw(toy_plan.step_records())
    headings = [section.heading for section in (page.picture, *page.sections)]
    assert headings == [
        "One step of one device, simulated",
        "Predicted beside measured",
        "Why this plan",
        "The mesh",
        "Where the parameters lie",
        "Where the activations lie",
        "Memory over the step",
        "The prediction in numbers",
        "The plan in words",
    ]
    for word in ("layers.0-3.up", "data 4", "tensor 4", "in words", "cumsum is replicated"):
        assert word in text


def test_measured_and_predicted_are_compared_by_the_median_without_the_first_step():
    slow_first = toy_plan.step_records(step_s=90e-3, count=1)
    page, _ = draw((*slow_first, *toy_plan.step_records(step_s=10e-3)))
    section = page.sections[0]
    assert section.text == "The prediction is 10 % below the median of 5 measured steps."
    assert format_seconds(10e-3) in section.body


def test_without_measurements_nothing_is_said_about_them():
    page, _ = draw()
    assert "Predicted beside measured" not in [s.heading for s in page.sections]


def test_the_numbers_of_the_plan_lie_in_the_page_as_a_record():
    _, text = draw()
    line = unescape(
        elements(text[text.index("<details") : text.index("</details>") + 10], "pre")[0].text
    )
    record = json.loads(line)
    assert record["kind"] == "plan"
    assert record["fields"]["step_s"] == toy_plan.plan().prediction.step_s


def test_digests_say_what_the_plan_is_for():
    _, text = draw()
    program, _ = toy_plan.draft()
    assert program.digest in text
    assert toy_plan.machine().digest in text


def test_a_plan_without_rivals_has_no_comparison():
    page, _ = draw(alternatives=())
    assert "Why this plan" not in [s.heading for s in page.sections]
    assert "next best plan" not in render(page)


def test_records_of_other_kinds_are_no_measurements():
    other = [replace(r, kind="start") for r in toy_plan.step_records()]
    assert measured_steps(other) == []
    assert measured_steps(toy_plan.step_records(count=1)) == [pytest.approx(10e-3)]


def test_cut_whole_and_summed_look_different():
    styles = [e.get("class") for e in elements(sharding_tags((0, -1, -2, -3)), "code")]
    assert styles == ["tag tag-cut", "tag tag-whole", "tag tag-sum", "tag tag-sum"]
