"""Plans that do least harm."""

from __future__ import annotations

from itertools import product
from statistics import median

import pytest

from tests.unit.diffusion.recorded import recording
from weft.core.errors import InfeasibleError
from weft.diffusion.costs import Costs
from weft.diffusion.plan import Mode, Predictor, StepPlan
from weft.diffusion.search import Search
from weft.diffusion.surrogate import Surrogate

COSTS = Costs(
    full_s=1.0,
    share={Mode.FULL: 1.0, Mode.CFG: 0.5, Mode.BLOCK: 0.4, Mode.STEP: 0.0},
    around_s=0.01,
)
FULL = StepPlan()


def search(steps=12, *, seed=0, modes=(Mode.STEP, Mode.CFG, Mode.BLOCK), **options):
    surrogate = Surrogate([recording(steps, seed=seed)])
    return Search(surrogate, COSTS, modes=modes, **options), surrogate


def test_the_frontier_begins_with_everything_and_gets_faster():
    frontier = search()[0].frontier()
    assert frontier[0].speedup == pytest.approx(1.0) and frontier[0].mean_square == 0.0
    speeds = [found.speedup for found in frontier]
    assert speeds == sorted(speeds) and len(set(speeds)) == len(speeds)
    assert speeds[-1] > 4.0


@pytest.mark.parametrize("wanted", [1.2, 1.5, 2.0, 3.0])
def test_what_is_found_is_as_fast_as_asked_and_better_than_every_kth_step(wanted):
    found, surrogate = search(16)
    own = found.for_speedup(wanted)
    assert own.speedup >= wanted * (1 - 1e-9)
    shortcuts = [StepPlan(mode=Mode.STEP, predictor=p) for p in Predictor]
    for every in range(1, 9):
        for shortcut in shortcuts:
            plan = tuple(shortcut if n >= 2 and (n % (every + 1)) else FULL for n in range(16))
            if COSTS.speedup(plan) >= wanted:
                assert own.mean_square <= surrogate.mean_square(plan)


def test_it_is_nearly_the_best_of_all_plans():
    options = [FULL, *(StepPlan(mode=Mode.STEP, predictor=p) for p in Predictor)]
    ratios: list[float] = []
    for seed in range(7):
        found, surrogate = search(8, seed=seed, modes=(Mode.STEP,))
        best = min(
            surrogate.mean_square((FULL, FULL, *rest))
            for rest in product(options, repeat=6)
            if COSTS.speedup((FULL, FULL, *rest)) >= 1.5
        )
        ratios.append(found.for_speedup(1.5).mean_square / best)
    assert min(ratios) >= 1.0 - 1e-9 and median(ratios) < 1.05 and max(ratios) < 2.0


def test_the_first_steps_and_the_tail_are_left_alone():
    own = search(warm_up=3, tail=2)[0].for_speedup(1.8)
    assert own.steps[:3] == (FULL,) * 3 and own.steps[-2:] == (FULL,) * 2


def test_the_same_plan_is_found_again():
    assert search()[0].for_speedup(2.0) == search()[0].for_speedup(2.0)


def test_for_an_error_the_fastest_is_found():
    found, _ = search()
    allowed = found.for_speedup(2.0).mean_square
    own = found.fastest(lambda plan: plan.mean_square <= allowed)
    assert own.mean_square <= allowed and own.speedup >= 1.9
    slower = found.fastest(lambda plan: plan.mean_square <= allowed, most=1.4)
    assert 1.2 <= slower.speedup <= 1.4
    assert found.fastest(lambda plan: False).speedup == pytest.approx(1.0)


def test_a_speed_that_no_plan_has_is_refused():
    with pytest.raises(InfeasibleError, match="target_speedup="):
        search(warm_up=6)[0].for_speedup(50.0)
