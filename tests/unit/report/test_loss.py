import math

import pytest

from tests.unit.report.plot.drawing import elements
from weft.core.errors import InputError
from weft.core.records import Record
from weft.report.loss import compare_losses, loss_plot, losses_of


def curve(kind, losses, start=0):
    return [
        Record(kind=kind, fields={"step": start + n, "loss": loss, "step_s": 1.0}, time_s=0.0)
        for n, loss in enumerate(losses)
    ]


def test_the_largest_relative_difference_is_found_with_its_step():
    found = compare_losses(curve("step", [4.0, 2.0, 1.0]) + curve("reference", [4.4, 2.0, 1.5]))
    assert found.steps == 3
    assert found.step == 2
    assert found.difference == pytest.approx(0.5)
    assert found.relative == pytest.approx(0.5 / 1.5)


def test_only_steps_that_both_have_are_compared():
    found = compare_losses(curve("step", [9.0, 2.0]) + curve("reference", [2.0, 7.0], start=1))
    assert (found.steps, found.difference) == (1, 0.0)


@pytest.mark.parametrize("nothing", ["nan", "inf", None])
def test_a_loss_that_is_no_number_is_infinitely_far(nothing):
    found = compare_losses(curve("step", [nothing]) + curve("reference", [2.0]))
    assert found.difference == math.inf


def test_a_step_that_was_run_again_counts_once_with_its_last_loss():
    again = curve("step", [3.0, 2.0]) + curve("step", [1.5], start=1)
    assert losses_of(again, "step") == {0: 3.0, 1: 1.5}


def test_runs_without_a_common_step_cannot_be_compared():
    with pytest.raises(InputError, match="0 reference steps"):
        compare_losses(curve("step", [1.0]))


def test_both_curves_are_drawn_and_named():
    plot = loss_plot(curve("step", [3.0, 2.0]) + curve("reference", [3.0, 2.0]), split="2 ranks")
    paths = {e.get("class"): e.get("d") for e in elements(plot, "path")}
    assert paths["line line-wide"] == paths["line line-dashed"]
    assert "2 ranks" in plot
    assert "one process" in plot
