"""What the tiny recipes compute does not change unnoticed."""

from __future__ import annotations

import pytest

from tests.golden.losses.record import RECIPES, STEPS, losses, read_losses


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_equal_the_recorded_ones(recipe):
    recorded = read_losses(recipe)
    assert len(recorded) == STEPS
    assert losses(recipe) == pytest.approx(recorded, rel=1e-7)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recorded_trace_learns(recipe):
    recorded = read_losses(recipe)
    assert min(recorded[-2:]) < recorded[0] - 0.02
