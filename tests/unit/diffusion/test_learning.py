"""A speed that is asked for without a profile: learnt from the first run, kept in the next ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.denoise_matrix.pipelines import PIPELINES
from tests.unit.diffusion.accelerated import accelerated, small_of, stopping
from tests.unit.diffusion.recorded import recording
from weft.core.errors import InfeasibleError, InputError
from weft.diffusion import Mode, Model, Sketch, accelerate
from weft.diffusion.costs import Costs
from weft.diffusion.learning import Learning, _HandOver
from weft.diffusion.surrogate import Surrogate

STEPS = 12


@pytest.fixture(params=["Wan 2.1", "CogVideoX", "HunyuanVideo"])
def run(request):
    return PIPELINES[request.param].build(STEPS)


def test_the_first_run_is_in_full_and_the_next_ones_are_as_fast_as_asked_for(run):
    before = run()
    with accelerated(run.pipe, target_speedup=2.0) as found:
        first, second, third = run(), run(), run(seed=1)
    assert torch.equal(first, before)
    assert not torch.equal(second, first) and not torch.equal(third, second)
    full, *later = found.runs
    assert full.work == 1.0
    assert later[0].plan == later[1].plan
    assert all(0.35 < one.work <= 0.5 for one in later)


def test_runs_of_another_kind_are_learnt_from_anew():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    with accelerated(run.pipe, target_speedup=1.5) as found:
        run()
        run()
        run(num_inference_steps=STEPS + 2)
        run(guidance_scale=3.0)
        run()
    assert [one.work == 1.0 for one in found.runs] == [True, False, True, True, False]


def test_a_run_that_broke_off_is_not_learnt_from():
    run = PIPELINES["Wan 2.1"].build(STEPS)

    with accelerated(run.pipe, target_speedup=1.5) as found:
        with pytest.raises(KeyboardInterrupt):
            run(callback_on_step_end=stopping(5))
        run()
        run()
    assert [one.work == 1.0 for one in found.runs] == [True, False]


def test_a_speed_that_no_plan_has_is_an_error_of_the_second_run_that_says_what_is_possible():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    with accelerated(run.pipe, target_speedup=50.0):
        run()
        for _ in range(2):
            with pytest.raises(InfeasibleError, match="at most") as raised:
                run()
    assert any("target_speedup=" in option for option in raised.value.options)


@pytest.mark.parametrize("speed", [0.5, float("nan")])
def test_a_speed_below_one_is_an_error(speed):
    with pytest.raises(InputError, match="at least 1"):
        accelerate(PIPELINES["Wan 2.1"].build(STEPS).pipe, target_speedup=speed)


@pytest.mark.parametrize("speed", [1.2, 3.0])
def test_a_small_model_that_waits_elsewhere_takes_over_where_the_first_run_says(speed):
    run = PIPELINES["Wan 2.1"].build(STEPS)
    options = {"target_speedup": speed, "sketch_to": small_of(), "idle": "cpu"}
    with accelerated(run.pipe, **options) as found:
        first = run()
        run()
    assert torch.equal(first, PIPELINES["Wan 2.1"].build(STEPS)())
    models = [step.done.model for step in found.runs[1].steps]
    switch = models.index(Model.SMALL)
    assert 0 < switch <= round(Sketch().latest * STEPS) + 1
    assert set(models[switch:]) == {Model.SMALL}
    assert found.runs[1].work <= 1.1 / speed


def test_a_small_model_that_is_far_off_is_left_out_where_caches_are_enough():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    with accelerated(run.pipe, target_speedup=1.5, sketch_to=small_of()) as found:
        first = run()
        run()
    assert torch.equal(first, PIPELINES["Wan 2.1"].build(STEPS)())
    assert {step.done.model for step in found.runs[1].steps} == {Model.LARGE}
    assert found.runs[1].work <= 1.1 / 1.5


def hand_over(wanted, step_share=0.01):
    own = recording()
    share = {Mode.FULL: 1.0, Mode.STEP: step_share, Mode.CFG: 0.7, Mode.BLOCK: 0.8}
    return own, _HandOver(Surrogate([own]), Costs(full_s=1.0, share=share), wanted, 0.2)


def switch_of(plan):
    models = [step.model for step in plan.steps]
    return models.index(Model.SMALL) if Model.SMALL in models else len(models)


def test_the_closer_the_small_model_the_earlier_it_takes_over():
    own, plans = hand_over(3.0)
    rng = np.random.default_rng(0)
    apart = rng.normal(size=own.guided.shape) * np.abs(own.guided).mean()
    found = [
        plans.best(range(2, STEPS + 1), own.guided + share * apart)
        for share in (0.0, 1e-3, 0.1, 10.0)
    ]
    switches = [switch_of(plan) for plan in found]
    assert switches == sorted(switches) and switches[0] < switches[-1] == STEPS
    assert all(plan.speedup >= 3.0 for plan in found)


def test_a_pair_is_as_fast_as_the_large_model_cannot_be_alone():
    own, plans = hand_over(2.5, step_share=0.6)
    with pytest.raises(InfeasibleError):
        plans.without()
    plan = plans.best(range(2, STEPS + 1), own.guided)
    assert plan.speedup >= 2.5 and switch_of(plan) < STEPS
    _, faster = hand_over(50.0)
    with pytest.raises(InfeasibleError, match="small model from step"):
        faster.best(range(2, STEPS + 1), own.guided)


@pytest.mark.parametrize("name", ["Wan 2.1", "CogVideoX", "HunyuanVideo"])
def test_what_the_small_model_answers_is_known_as_the_solver_would_be_given_it(name):
    """The large model's twin is asked in its place, and answers the same."""
    run = PIPELINES[name].build(STEPS)
    twin = PIPELINES[name].build(STEPS).pipe.transformer
    seen = []

    def learn(policy, facts, watched, steps, switch):
        own = watched.recording(facts.positions)
        seen.append((watched.small(facts.num_steps), own.guided))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Learning, "learn", learn)
        with accelerated(run.pipe, target_speedup=2.0, sketch_to=twin):
            run()
    ((small, large),) = seen
    np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-4 * np.abs(large).max())


def test_its_name_says_what_was_asked_for():
    assert Learning(target_speedup=2.5).name == "learnt for 2.5 times the speed"


def test_a_run_that_nothing_can_be_learnt_from_is_not_lost_and_the_next_one_says_why():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    from diffusers import FlowMatchHeunDiscreteScheduler

    run.pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    before = run()
    with accelerated(run.pipe, target_speedup=1.5):
        assert torch.equal(run(), before)
        with pytest.raises(InputError, match="once at each noise level"):
            run()


def test_a_single_step_is_not_lost_either():
    run = PIPELINES["Wan 2.1"].build(1)
    with accelerated(run.pipe, target_speedup=1.5):
        run()
        with pytest.raises(InfeasibleError, match="at most"):
            run()
