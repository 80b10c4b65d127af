"""Errors of plans, from recordings."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.diffusion.recorded import changed, recording
from weft.diffusion.plan import Mode, Predictor, StepPlan
from weft.diffusion.surrogate import Surrogate

FULL = StepPlan()
DOUBT = 1.0


def plan_of(steps, **shortcuts):
    return [shortcuts.get(f"at{n}", FULL) for n in range(steps)]


def step(mode=Mode.STEP, predictor=Predictor.LINEAR):
    return StepPlan(mode=mode, predictor=predictor, blocks=(1, 5) if mode is Mode.BLOCK else None)


def test_everything_in_full_has_no_error():
    assert Surrogate([recording()]).mean_square(plan_of(12)) == 0.0


@pytest.mark.parametrize("predictor", [p for p in Predictor if p is not Predictor.FITTED])
def test_polynomials_of_its_degree_are_predicted_without_error(predictor):
    own = Surrogate([recording(degree=predictor.order)])
    above = Surrogate([recording(degree=predictor.order + 1)])
    plan = plan_of(
        12,
        at4=step(predictor=predictor),
        at5=step(Mode.CFG, predictor),
        at8=step(Mode.BLOCK, predictor),
    )
    scale = float(np.abs(own.recordings[0].outputs).max()) ** 2 * 1e6
    assert own.mean_square(plan) < 1e-18 * scale < above.mean_square(plan)


@pytest.mark.parametrize("mode", [Mode.STEP, Mode.CFG, Mode.BLOCK])
def test_a_first_step_that_predicts_from_nothing_is_no_plan(mode):
    assert Surrogate([recording()]).mean_square(plan_of(12, at0=step(mode))) == float("inf")


def test_one_step_is_what_the_formula_says():
    own = recording()
    x, c, o = own.positions, own.outputs, own.offsets
    share = (x[6] - x[4]) / (x[5] - x[4])
    missed_c = c[4] + share * (c[5] - c[4]) - c[6]
    missed_o = o[4] + share * (o[5] - o[4]) - o[6]
    length = abs(x[7] - x[6])
    error = own.gains[6] * length * (missed_c + (1 - 5.0) * missed_o)
    wanted = (1 + DOUBT**2) * (error @ error) / own.elements
    assert Surrogate([own]).mean_square(plan_of(12, at6=step())) == pytest.approx(wanted)
    only = own.gains[6] * length * (1 - 5.0) * missed_o
    found = Surrogate([own]).mean_square(plan_of(12, at6=step(Mode.CFG)))
    assert found == pytest.approx((1 + DOUBT**2) * (only @ only) / own.elements)


def test_offsets_of_steps_that_computed_one_output_are_not_predicted_from():
    own = Surrogate([recording()])
    far = own.mean_square(plan_of(12, at4=step(Mode.CFG), at5=step(Mode.CFG)))
    first = own.mean_square(plan_of(12, at4=step(Mode.CFG)))
    near = own.mean_square(plan_of(12, at5=step(Mode.CFG)))
    assert far > max(first, near)


def test_outputs_of_such_steps_are():
    own = changed(recording(), offsets=np.zeros((12, 24)))
    near = Surrogate([own]).mean_square(plan_of(12, at4=step(Mode.CFG), at5=step()))
    far = Surrogate([own]).mean_square(plan_of(12, at4=step(), at5=step()))
    assert near < far


def test_errors_add_up_as_vectors():
    own = recording(guided=False)
    error = np.random.default_rng(1).normal(size=(12, 24))
    outputs = np.zeros((12, 24))
    outputs[5], outputs[8] = error[5], -error[5]
    flat = changed(own, outputs=outputs, gains=np.ones(12), positions=np.linspace(12.0, 0.0, 13))
    reuse = step(predictor=Predictor.REUSE)
    surrogate = Surrogate([flat])
    both, one, other = (
        surrogate.mean_square(plan_of(12, **dict.fromkeys(at, reuse)))
        for at in (("at5", "at8"), ("at5",), ("at8",))
    )
    doubt = DOUBT**2 / (1 + DOUBT**2)
    assert both == pytest.approx(doubt * (one + other))  # they cancel out, for all that is known


def test_what_blocks_add_is_predicted_from_full_steps_only():
    own = Surrogate([recording()])
    x, r = own.recordings[0].positions, own.recordings[0].blocks[1, 5]
    share = (x[6] - x[3]) / (x[4] - x[3])
    missed = (r[3] + share * (r[4] - r[3]) - r[6]) * own.recordings[0].gains[6]
    wanted = (1 + DOUBT**2) * (missed @ missed) * (x[7] - x[6]) ** 2 / 1000
    around = {"at5": step(Mode.CFG), "at6": step(Mode.BLOCK)}
    together = own.mean_square(plan_of(12, **around))
    flat = changed(own.recordings[0], offsets=np.zeros((12, 24)))
    assert Surrogate([flat]).mean_square(plan_of(12, **around)) == pytest.approx(wanted)
    assert together != pytest.approx(wanted)


def test_prompts_count_alike():
    one, other = recording(seed=1), recording(seed=2)
    plan = plan_of(12, at5=step())
    alone = [Surrogate([r]).mean_square(plan) for r in (one, other)]
    assert Surrogate([one, other]).mean_square(plan) == pytest.approx(np.mean(alone))


# ------------------------------------------------------------------------ how errors travel


def test_computed_steps_take_back_errors_and_predicted_ones_do_not():
    steady = replace(recording(guided=False), gains=np.ones(12))
    damped = replace(steady, responses=np.full((2, 12), 1e-3))  # falling towards positions of 0
    reuse = step(predictor=Predictor.REUSE)
    early, late = plan_of(12, at3=reuse), plan_of(12, at11=reuse)
    for one in (steady, damped):
        assert np.isfinite(Surrogate([one]).mean_square(early))
    assert Surrogate([damped]).mean_square(early) < Surrogate([steady]).mean_square(early)
    assert Surrogate([damped]).mean_square(late) == Surrogate([steady]).mean_square(late)


def test_an_error_is_carried_as_the_recursion_says():
    own = replace(recording(guided=False), gains=np.ones(12), responses=np.full((2, 12), 1e-3))
    reuse = step(predictor=Predictor.REUSE)
    found = Surrogate([own], doubt=0.0).mean_square(plan_of(12, at9=reuse, at11=reuse))
    d = np.diff(own.positions)
    x = d[9] * (own.outputs[8] - own.outputs[9])
    first = x
    x = x + d[10] * 1e-3 * x
    x = x + d[11] * (own.outputs[10] - own.outputs[11] + 1e-3 * first)  # off as the latents were
    assert found == pytest.approx(x @ x / own.elements)


# ------------------------------------------------------------------------ fitted predictions


def fitted(mode=Mode.STEP):
    return StepPlan(
        mode=mode, predictor=Predictor.FITTED, blocks=(1, 5) if mode is Mode.BLOCK else None
    )


@pytest.mark.parametrize("mode", [Mode.STEP, Mode.CFG, Mode.BLOCK])
def test_fitted_predictions_are_better_than_polynomials_on_what_they_were_fitted_to(mode):
    own = Surrogate([recording()])
    plan = plan_of(12, at6=fitted(mode))
    for predictor in (Predictor.REUSE, Predictor.LINEAR):
        assert own.mean_square(plan) < own.mean_square(plan_of(12, at6=step(mode, predictor)))


def test_fitted_predictions_are_judged_by_the_other_prompts():
    strangers = [recording(seed=n) for n in range(2)]
    twins = [recording(seed=0), recording(seed=0)]
    plan = plan_of(12, at6=fitted())
    own, other = (Surrogate(r).mean_square(plan) for r in (twins, strangers))
    alone = np.mean([Surrogate([r]).mean_square(plan) for r in strangers])
    assert own == pytest.approx(Surrogate(twins[:1]).mean_square(plan))
    assert other > alone


def test_a_plan_is_given_its_weights():
    own = Surrogate([recording()])
    plan = plan_of(12, at6=fitted(), at8=fitted(Mode.CFG), at9=fitted(Mode.BLOCK), at10=step())
    made = own.fitted(plan)
    assert [n for n, one in enumerate(made) if one.weights is not None] == [6, 8, 9]
    step_weights, cfg, block = (made[n].weights for n in (6, 8, 9))
    assert len(step_weights.outputs) == len(step_weights.offsets) == 3 and not step_weights.blocks
    assert len(cfg.offsets) == 3 and not cfg.outputs
    assert sum(block.blocks) == pytest.approx(1.0)  # of differences, all that is known
    assert own.fitted(made)[6] == made[6]


def test_a_plan_is_judged_alike_whatever_was_judged_before():
    """What it begins with is not looked at again; nothing else may be left of the plan before."""
    chance = random.Random(0)
    own = Surrogate([recording(seed=0), recording(seed=1)])
    options = [
        FULL,
        *(step(mode, p) for mode in (Mode.STEP, Mode.CFG, Mode.BLOCK) for p in Predictor),
    ]
    plan, found = tuple(plan_of(12)), []
    for _ in range(200):
        at = chance.randrange(12)
        plan = (*plan[:at], chance.choice(options), *plan[at + 1 :])
        alone = Surrogate(own.recordings).mean_square(plan)
        assert own.mean_square(plan) == alone
        found.append(alone)
    assert 20 < sum(np.isfinite(found)) < 200, "plans of both kinds were judged"
