"""Errors of plans, from recordings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.diffusion.recorded import recording
from weft.diffusion.plan import Mode, Predictor, StepPlan
from weft.diffusion.surrogate import DOUBT, Surrogate

FULL = StepPlan()


def plan_of(steps, **shortcuts):
    return [shortcuts.get(f"at{n}", FULL) for n in range(steps)]


def step(mode=Mode.STEP, predictor=Predictor.LINEAR):
    return StepPlan(mode=mode, predictor=predictor, blocks=(1, 5) if mode is Mode.BLOCK else None)


def test_everything_in_full_has_no_error():
    assert Surrogate([recording()]).mean_square(plan_of(12)) == 0.0


@pytest.mark.parametrize("predictor", list(Predictor))
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
    own = replace(recording(), offsets=np.zeros((12, 24)))
    near = Surrogate([own]).mean_square(plan_of(12, at4=step(Mode.CFG), at5=step()))
    far = Surrogate([own]).mean_square(plan_of(12, at4=step(), at5=step()))
    assert near < far


def test_errors_add_up_as_vectors():
    own = recording(guided=False)
    error = np.ones((12, 24))
    outputs = np.zeros((12, 24))
    outputs[5], outputs[8] = error[5], -error[8]
    flat = replace(own, outputs=outputs, gains=np.ones(12), positions=np.linspace(12.0, 0.0, 13))
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
    flat = replace(own.recordings[0], offsets=np.zeros((12, 24)))
    assert Surrogate([flat]).mean_square(plan_of(12, **around)) == pytest.approx(wanted)
    assert together != pytest.approx(wanted)


def test_prompts_count_alike():
    one, other = recording(seed=1), recording(seed=2)
    plan = plan_of(12, at5=step())
    alone = [Surrogate([r]).mean_square(plan) for r in (one, other)]
    assert Surrogate([one, other]).mean_square(plan) == pytest.approx(np.mean(alone))
