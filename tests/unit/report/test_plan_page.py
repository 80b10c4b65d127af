import json
from dataclasses import replace
from html import unescape

import pytest

from tests.unit.report import toy_plan
from tests.unit.report.plot.drawing import elements
from weft.core.units import format_seconds
from weft.cost.timeline import Stream
from weft.parallel.plan import Alternative, Level
from weft.report.page import render
from weft.report.plan_page import (
    measured_steps,
    plan_page,
    plan_sections,
    sharding_tags,
    timeline_section,
)


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
    for word in ("layers.0-3.up", "data = 2", "tensor = 2", "in words", "cumsum is replicated"):
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


def lead(step_s, **changes):
    rival = Alternative(name="rival", step_s=step_s, peak_bytes=1.0, fits=True)
    page, _ = draw(alternatives=(rival,), **changes)
    (found,) = [f for f in page.figures if "next best plan" in f.meaning]
    return found.value, found.meaning


def prediction(**changes):
    return replace(toy_plan.plan().prediction, **changes)


def test_a_lead_is_claimed_where_there_is_one():
    assert lead(18e-3) == ("2.00x", "faster than the next best plan")
    assert lead(9.01e-3) == ("1.00x", "as fast as the next best plan")
    assert lead(8e-3) == ("0.89x", "as fast as the next best plan")


def test_the_search_does_not_claim_a_plan_that_was_written_by_hand():
    unbounded = prediction(bound_s=0.0)
    _, meaning = lead(18e-3, prediction=unbounded)
    assert meaning.endswith("; this one is written by hand, the search found nothing faster")
    _, meaning = lead(18e-3, prediction=unbounded, level=Level.EXPERT)
    assert meaning.endswith("; this one is written by hand")


def test_nothing_is_said_to_be_hidden_where_nothing_is_sent():
    compute = [e for e in toy_plan.timeline().events if e.stream is Stream.COMPUTE]
    silent = replace(toy_plan.timeline(), events=tuple(compute), exposed_s=0.0)
    assert timeline_section(silent).text == "The device computes and never communicates."
    page, _ = draw(prediction=prediction(communication_s=0.0, exposed_s=0.0))
    assert ("none", "communication") in [(f.value, f.meaning) for f in page.figures]
    assert "hidden" not in " ".join(f.meaning for f in page.figures)


def test_a_plan_that_does_not_fit_says_so():
    page, _ = draw(memory_limit_bytes=600e6)
    assert "peak memory of a device, which does not fit" in [f.meaning for f in page.figures]
    (memory,) = [s for s in page.sections if s.heading == "Memory over the step"]
    assert memory.text.endswith("of the limit: the plan does not fit.")


def test_a_note_that_the_explanation_has_is_not_said_again():
    program, _ = toy_plan.draft()
    sections = plan_sections(
        toy_plan.plan(),
        program,
        toy_plan.machine(),
        toy_plan.timeline(),
        "in words\n  note      cumsum is replicated",
    )
    assert sections[-1].body.count("cumsum is replicated") == 1


@pytest.mark.parametrize(
    ("per_node", "order"),
    [
        (8, "first; all of them are in one node."),
        (2, "first and fill node by node: node 0 has 0 to 1, node 1 has 2 to 3."),
        (1, "first and fill node by node: node 0 has 0, node 1 has 1 and so on."),
        (3, "first and fill node by node: node 0 has 0 to 2, node 1 has 3."),
    ],
)
def test_the_order_of_ranks_is_told_in_words(per_node, order):
    program, _ = toy_plan.draft()
    where = toy_plan.machine()
    group = replace(where.groups[0], devices_per_node=per_node)
    where = replace(where, groups=(group,))
    sections = plan_sections(toy_plan.plan(), program, where, toy_plan.timeline())
    (mesh,) = [s for s in sections if s.heading == "The mesh"]
    assert mesh.text.startswith("data = 2 x tensor = 2. Each square")
    assert mesh.text.endswith(order)


def test_records_of_other_kinds_are_no_measurements():
    other = [replace(r, kind="start") for r in toy_plan.step_records()]
    assert measured_steps(other) == []
    assert measured_steps(toy_plan.step_records(count=1)) == [pytest.approx(10e-3)]


def test_cut_whole_and_summed_look_different():
    styles = [e.get("class") for e in elements(sharding_tags((0, -1, -2, -3)), "code")]
    assert styles == ["tag tag-cut", "tag tag-whole", "tag tag-sum", "tag tag-sum"]
