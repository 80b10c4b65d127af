"""What steps take is found from what runs took."""

from __future__ import annotations

import random

import pytest

from weft.diffusion.costs import Costs, fitted_costs
from weft.diffusion.plan import Mode, StepPlan

TRUE = Costs(
    full_s=1.0,
    around_s=0.02,
    share={Mode.FULL: 1.0, Mode.STEP: 0.05, Mode.CFG: 0.6, Mode.BLOCK: 0.4},
)
MODES = (Mode.FULL, Mode.STEP, Mode.CFG, Mode.BLOCK)
STEPS = {mode: StepPlan(mode=mode, blocks=(1, 3) if mode is Mode.BLOCK else None) for mode in MODES}


def runs(count, disturbed=0.0):
    chance = random.Random(0)
    found = []
    for _ in range(count):
        plan = [STEPS[chance.choice(MODES)] for _ in range(20)]
        late = 1.4 if chance.random() < disturbed else 1.0
        found.append((plan, late / TRUE.speedup(plan)))
    return found


def guessed(**share):
    return Costs(
        full_s=1.0, around_s=0.02, share={**TRUE.share, **{Mode(m): s for m, s in share.items()}}
    )


@pytest.mark.parametrize("disturbed", [0.0, 0.2])
def test_runs_correct_what_single_steps_said_though_some_are_disturbed(disturbed):
    found = fitted_costs(guessed(step=0.0, cfg=0.45, block=0.6), runs(30, disturbed))
    for mode in MODES:
        assert found.share[mode] == pytest.approx(TRUE.share[mode], abs=0.03)
    assert found.full_s == 1.0 and found.around_s == 0.02


def test_what_no_run_did_is_left_as_it_was():
    plan = [STEPS[Mode.FULL], STEPS[Mode.STEP]] * 10
    some = [(plan, 1 / TRUE.speedup(plan)), ([STEPS[Mode.FULL]] * 20, 1.0)]
    found = fitted_costs(guessed(step=0.2, cfg=0.45), some * 5)
    assert found.share[Mode.CFG] == 0.45
    assert found.share[Mode.STEP] == pytest.approx(0.05, abs=0.01)
    assert fitted_costs(TRUE, []) == TRUE


def test_what_a_full_step_takes_more_than_one_that_is_not_accelerated_is_found():
    """Hooks take time, too: speeds are relative to a pipeline without."""
    slower = [(plan, 1.05 * ratio) for plan, ratio in runs(30)]
    found = fitted_costs(guessed(step=0.0, cfg=0.45, block=0.6), slower)
    assert found.whole_s(1) == pytest.approx(1.02 / 1.05, rel=0.01)
    plan, ratio = slower[0]
    assert found.speedup(plan) == pytest.approx(1 / ratio, rel=0.02)
    assert found.speedup([STEPS[Mode.FULL]] * 20) == pytest.approx(1 / 1.05, rel=0.01)


def test_shares_stay_between_nothing_and_everything():
    plan = [STEPS[Mode.FULL], STEPS[Mode.STEP]] * 10
    assert fitted_costs(TRUE, [(plan, 0.3)] * 5).share[Mode.STEP] > 0.0
    assert fitted_costs(TRUE, [(plan, 2.0)] * 5).share[Mode.STEP] <= 1.0
