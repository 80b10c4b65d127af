from dataclasses import replace

import pytest

from tests.unit.report import toy_plan
from weft.core.records import Record
from weft.report.demo_page import demo_page, demo_sentence
from weft.report.page import render


def records(error=0.0):
    own = toy_plan.step_records(step_s=10e-3)
    reference = [replace(r, kind="reference", fields={**r.fields, "step_s": 15e-3}) for r in own]
    moved = [replace(r, fields={**r.fields, "loss": r.fields["loss"] * (1 + error)}) for r in own]
    return [*moved, *reference]


def draw(measured, **prediction):
    program, _ = toy_plan.draft()
    plan = toy_plan.plan()
    return demo_page(
        replace(plan, prediction=replace(plan.prediction, **prediction)),
        program,
        toy_plan.machine(),
        toy_plan.timeline(),
        explanation="in words",
        records=measured,
        sources=(("measurements", "demo.jsonl"),),
    )


def figures(page):
    return {(figure.value, figure.meaning) for figure in page.figures}


def test_the_sentence_has_the_difference_and_both_times():
    sentence = demo_sentence(toy_plan.plan(), records(error=1e-3))
    for part in (
        "4 ranks",
        "follows one process",
        "1.0e-03",
        "5 steps",
        "10 ms",
        "9 ms",
        "15 ms",
        "1.50x",
    ):
        assert part in sentence


def test_the_page_shows_losses_first_then_the_step_and_the_plan():
    page = draw(records())
    headings = [section.heading for section in (page.picture, *page.sections)]
    assert headings[:3] == [
        "The loss of the split run and of one process",
        "One step of one device, simulated",
        "Predicted beside measured",
    ]
    assert "The mesh" in headings
    assert "demo.jsonl" in render(page)


def test_the_split_run_is_compared_with_one_process():
    found = figures(draw(records()))
    assert ("15 ms", "measured step of one process, one thread") in found
    assert ("1.50x", "as fast as one process") in found


@pytest.mark.parametrize(
    ("predicted_s", "value", "meaning"),
    [
        (9e-3, "\u221210 %", "error of the prediction, which is too low"),
        (12e-3, "+20 %", "error of the prediction, which is too high"),
        (10e-3, "0 %", "error of the prediction"),
    ],
)
def test_the_error_of_the_prediction_has_a_sign(predicted_s, value, meaning):
    assert (value, meaning) in figures(draw(records(), step_s=predicted_s))


@pytest.mark.parametrize(("load", "busy"), [(4.5, True), (4.0, False), (None, False)])
def test_a_host_that_was_busier_than_the_ranks_make_it_is_named(load, busy):
    host = Record(kind="host", fields={"load_1_minute": load, "processors": 2}, time_s=0.0)
    (section,) = [
        s for s in draw([host, *records()]).sections if s.heading == "Predicted beside measured"
    ]
    assert ("The host was busy before the run (load average 4.5" in section.text) is busy
