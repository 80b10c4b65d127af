"""Steps for the small model where it agrees best."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.denoise_matrix import pipelines
from benchmarks.denoise_matrix.pipelines import PIPELINES, noise
from weft.core.errors import InputError, MismatchError
from weft.diffusion import (
    MixCache,
    Mixed,
    Mode,
    Model,
    Placed,
    accelerate,
    disagreement,
    report,
    restore,
)

STEPS = 10
CACHE = MixCache(warm_up=0.1, bounds=(0.0, 10.0), modes=frozenset({Mode.STEP}), longest=3)


@pytest.fixture(scope="module")
def pair():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    small = pipelines._wan_denoiser(3, 2)
    found = disagreement(run.pipe, small, [{**run.inputs, "generator": noise(1)}])
    return run, small, found


def with_values(found, *values):
    return replace(found, values=values)


def ran(run, small, policy, **inputs):
    accelerate(run.pipe, policy=policy, sketch_to=small)
    try:
        with report(run.pipe) as found:
            made = run(**inputs)
    finally:
        restore(run.pipe)
    return made, found.runs[0]


def smalls(run):
    return [step.step for step in run.steps if step.done.model is Model.SMALL]


def test_the_small_model_does_so_many_steps_of_least_disagreement(pair):
    run, small, found = pair
    own = with_values(found, 0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5, 0.5)
    for asked in ({"steps": 3}, {"share": 0.3}):
        _, done = ran(run, small, Placed(disagreement=own, **asked))
        assert smalls(done) == [1, 3, 5]
        assert [step.blocks for step in done.steps] == [
            4 if step.step in (1, 3, 5) else 8 for step in done.steps
        ]


def test_the_plan_that_was_taken_gives_the_same_bits(pair):
    run, small, found = pair
    made, done = ran(run, small, Placed(disagreement=found, share=0.5, then=CACHE))
    again, other = ran(run, small, done.plan)
    assert torch.equal(made, again) and done.plan.steps == other.plan.steps


def test_caches_begin_afresh_where_models_take_turns(pair):
    run, small, found = pair
    own = with_values(found, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9)
    _, done = ran(run, small, Placed(disagreement=own, steps=4, then=CACHE))
    assert smalls(done) == [3, 4, 5, 6]
    modes = [step.done.mode for step in done.steps]
    assert modes[3] is Mode.FULL and modes[7] is Mode.FULL
    assert Mode.STEP in modes[4:7] and not any(step.why for step in done.steps)


def test_other_numbers_of_steps_are_placed_by_noise_level(pair):
    run, small, found = pair
    own = with_values(found, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9)
    _, done = ran(run, small, Placed(disagreement=own, share=0.3), num_inference_steps=20)
    own_steps = smalls(done)
    assert len(own_steps) == 6 and own_steps == list(range(own_steps[0], own_steps[0] + 6))
    levels = [done.steps[step].position for step in own_steps]
    assert found.positions[6] < min(levels) and max(levels) < found.positions[2]


def test_none_and_all_are_shares_too(pair):
    run, small, found = pair
    plain = run()
    assert torch.equal(ran(run, small, Placed(disagreement=found, share=0.0))[0], plain)
    assert len(smalls(ran(run, small, Placed(disagreement=found, share=1.0))[1])) == STEPS


def test_runs_that_were_not_measured_are_refused(pair):
    run, small, found = pair
    with pytest.raises(MismatchError, match="guidance"):
        ran(run, small, Placed(disagreement=found, share=0.5), guidance_scale=2.0)
    with pytest.raises(InputError, match="share"):
        ran(run, small, Placed(disagreement=found, steps=STEPS + 1))
    with pytest.raises(InputError, match="sketch_to=small_pipe"):
        ran(run, None, Placed(disagreement=found, steps=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"steps": 1, "share": 0.5},
        {"steps": -1},
        {"share": 1.5},
        {"share": 0.5, "then": Mixed()},
    ],
)
def test_what_makes_no_sense_is_refused(pair, wrong):
    with pytest.raises(InputError):
        Placed(disagreement=pair[2], **wrong)
