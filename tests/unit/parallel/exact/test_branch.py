"""Branch and bound decides what the linear programme leaves open."""

from __future__ import annotations

import highspy
import numpy as np
import pytest

from weft.parallel.exact.branch import Branching, undecided_units

SPANS = [(0, 2), (2, 4), (4, 6)]


def triangle(costs: list[float]) -> highspy.Highs:
    """Three units of two states; of any two units at least one takes its second state."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    for cost in costs:
        highs.addVar(0.0, highspy.kHighsInf)
        highs.changeColCost(highs.getNumCol() - 1, cost)
    for first, _ in SPANS:
        highs.addRow(1.0, 1.0, 2, np.array([first, first + 1], dtype=np.int32), np.ones(2))
    for one, other in ((1, 3), (3, 5), (1, 5)):
        ends = np.array([one, other], dtype=np.int32)
        highs.addRow(1.0, highspy.kHighsInf, 2, ends, np.ones(2))
    highs.run()
    return highs


def weights_of(highs: highspy.Highs) -> np.ndarray:
    return np.array(highs.getSolution().col_value)


@pytest.mark.parametrize(
    ("costs", "relaxed", "best"),
    [([0, 1, 0, 1, 0, 1], 1.5, 2.0), ([0, 2, 0, 3, 0, 4], 4.5, 5.0)],
)
def test_an_odd_cycle_is_decided_at_its_cheapest(
    costs: list[float], relaxed: float, best: float
) -> None:
    highs = triangle(costs)
    assert highs.getInfo().objective_function_value == pytest.approx(relaxed)
    assert undecided_units(weights_of(highs), SPANS) == [0, 1, 2]
    found = Branching(highs, highs.run, SPANS, np.array(costs), weights_of(highs))
    assert undecided_units(found.weights, SPANS) == []
    assert float(np.array(costs) @ found.weights) == pytest.approx(best)
    assert found.bound == pytest.approx(best)


def test_the_programme_is_left_as_it_was() -> None:
    costs = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    highs = triangle(costs)
    Branching(highs, highs.run, SPANS, np.array(costs), weights_of(highs))
    highs.run()
    assert highs.getInfo().objective_function_value == pytest.approx(1.5)
