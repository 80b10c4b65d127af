"""The arithmetic and the picture of the phase diagram."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.gac_phase.compensation import loss
from benchmarks.gac_phase.contestants import ALONE, COSINE, HELD
from benchmarks.gac_phase.picture import Cell, Limit, Panel, phase_picture
from benchmarks.gac_phase.run import Map, agreement
from benchmarks.gac_phase.simulation import rates_alone, rates_held
from weft.rl.delayed import Delayed


@pytest.mark.parametrize("contestant", HELD, ids=lambda one: one.name)
def test_a_held_cosine_makes_gac_the_predicted_filter(contestant):
    model = Delayed(lag=2, beta=contestant.beta, lead=contestant.lead)
    steps = model.largest_step() * np.array([0.5, 0.9, 1.1])
    rates = rates_held(contestant, lag=2, steps=steps, cosine=COSINE, turns=40)
    assert (rates > 0).tolist() == [False, False, True]
    # Not only the sign: errors change as fast as the largest root says.
    growth = [3 * np.log(model.growth(float(x))) for x in steps]
    assert rates[1:] == pytest.approx(growth[1:], abs=0.02)


def test_alone_previous_grows_where_descent_without_lag_does_and_rests_below_one():
    (previous,) = (one for one in ALONE if one.name.endswith("Previous"))
    rates = rates_alone(previous, lag=3, steps=np.array([0.5, 1.9, 2.2]), turns=30)
    assert rates[0] == pytest.approx(0.0, abs=1e-6)
    assert rates[1] < 1e-3 < rates[2]


def test_compensation_takes_the_lag_out_of_the_noise_floor():
    fresh = loss(0.1, lag=0, known=0.0, turns=100)
    assert fresh == pytest.approx(0.1 / 1.9, rel=0.15)
    assert loss(0.1, lag=8, known=1.0, turns=60) == pytest.approx(fresh, rel=0.2)
    assert loss(0.1, lag=8, known=0.0, turns=60) > 1.3 * fresh


def test_cells_near_a_threshold_are_counted_apart():
    one = Map(
        name="SGD with a name of its own",
        limits=(1.0,),
        steps=(np.array([0.5, 0.99, 1.01, 1.5, 2.0]),),
        rates=(np.array([-1.0, -1.0, -1.0, 1.0, -1.0]),),
    )
    assert agreement([one]) == (2, 3, 1, 2)


def test_the_picture_stands_by_itself():
    panel = Panel(
        title="a < b",
        note="",
        cells=(Cell(at=0, x=0.1, style="stable"), Cell(at=1, x=2.0, style="grows")),
        limits=(Limit(name="computed", values=(1.0, float("inf"))),),
    )
    root = ElementTree.fromstring(phase_picture([panel], [0, 4], title="t", text="d"))
    name = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{name}svg"
    assert len(root.findall(f".//{name}circle")) == 2 + 3  # and the key
    assert "prefers-color-scheme" in root.find(f"{name}style").text
