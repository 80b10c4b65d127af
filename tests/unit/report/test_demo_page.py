from dataclasses import replace

from tests.unit.report import toy_plan
from weft.report.demo_page import demo_page, demo_sentence
from weft.report.page import render


def records(error=0.0):
    own = toy_plan.step_records(step_s=10e-3)
    reference = [replace(r, kind="reference") for r in own]
    moved = [replace(r, fields={**r.fields, "loss": r.fields["loss"] * (1 + error)}) for r in own]
    return [*moved, *reference]


def test_the_sentence_has_the_difference_and_both_times():
    sentence = demo_sentence(toy_plan.plan(), records(error=1e-3))
    for part in ("4 ranks", "follows one process", "1.0e-03", "5 steps", "10 ms", "9 ms"):
        assert part in sentence


def test_the_page_shows_losses_first_then_the_step_and_the_plan():
    program, _ = toy_plan.draft()
    page = demo_page(
        toy_plan.plan(),
        program,
        toy_plan.machine(),
        toy_plan.timeline(),
        explanation="in words",
        records=records(),
        sources=(("measurements", "demo.jsonl"),),
    )
    headings = [section.heading for section in (page.picture, *page.sections)]
    assert headings[:3] == [
        "The loss of the split run and of one process",
        "One step of one device, simulated",
        "Predicted beside measured",
    ]
    assert "The mesh" in headings
    assert "demo.jsonl" in render(page)
