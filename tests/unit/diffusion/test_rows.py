"""Rows of a batch that are decided each by itself are what they are alone."""

from __future__ import annotations

import pytest
import torch

from benchmarks.denoise_matrix.pipelines import PIPELINES
from tests.unit.diffusion.accelerated import accelerated, small_of, stopping
from weft.core.errors import InputError
from weft.diffusion import Family, Guidance, MixCache, Model, Sketch, accelerate, report
from weft.diffusion.accelerating import controller_of

# diffusers' Mochi asks for autocast in float32, which is none.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

STEPS = 8
EAGER = MixCache(warm_up=0.25, bounds=(0.2, 0.5))
SCALE = (1.0, 0.05)
"""Of the two rows' noise, so that what one may leave out the other may not."""


@pytest.mark.parametrize("name", ["Wan 2.1", "CogVideoX", "HunyuanVideo, guided"])
def test_a_row_is_what_it_is_alone_and_has_a_run_of_its_own(name):
    run = PIPELINES[name].build(STEPS)
    shape = run().shape
    noises = torch.randn(2, *shape[1:], generator=torch.Generator().manual_seed(0))
    noises *= torch.tensor(SCALE).reshape(2, *[1] * (len(shape) - 1))
    with accelerated(run.pipe, policy=EAGER, by_rows=True) as found:
        pair = run(num_videos_per_prompt=2, latents=noises)
        both = found.runs[:]
        alone = [run(latents=noises[row : row + 1]) for row in range(2)]
    assert torch.equal(pair, torch.cat(alone))
    assert [own.row for own in both] == [0, 1]
    assert [own.plan for own in both] == [own.plan for own in found.runs[2:]]
    assert both[0].records()[0].fields["row"] == 0


@pytest.mark.parametrize("name", ["Wan 2.2", "LTX", "Mochi"])
def test_every_family_knows_what_belongs_to_a_row(name):
    run = PIPELINES[name].build(STEPS)
    two = {
        key: torch.cat([value, value])
        for key, value in run.inputs.items()
        if isinstance(value, torch.Tensor)
    }
    expected = run(**two)
    with accelerated(run.pipe, policy=MixCache(warm_up=0.99), by_rows=True) as found:
        made = run(**two)
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-4)
    assert [own.row for own in found.runs] == [0, 1]


def test_rows_take_plans_of_their_own():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    noises = torch.randn(2, *run().shape[1:], generator=torch.Generator().manual_seed(0))
    noises[1] *= SCALE[1]
    with accelerated(run.pipe, policy=EAGER, by_rows=True) as found:
        run(num_videos_per_prompt=2, latents=noises)
        text = found.table()
    first, second = found.runs
    assert first.plan != second.plan
    assert "row 0: " in text and "row 1: " in text


def test_rows_of_a_larger_batch_that_broke_off_are_forgotten():
    run = PIPELINES["Wan 2.1"].build(STEPS)

    with accelerated(run.pipe, policy=EAGER, by_rows=True) as found:
        with pytest.raises(KeyboardInterrupt):
            run(num_videos_per_prompt=2, callback_on_step_end=stopping(3))
        run()
    assert [(own.row, len(own.steps)) for own in found.runs] == [(0, STEPS)]


def test_a_model_goes_away_when_no_row_needs_it_any_more():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    policy, small = Sketch(earliest=0.5, latest=0.5), small_of()
    moved = []
    with accelerated(run.pipe, policy=policy, sketch_to=small, idle="cpu", by_rows=True):
        idle = controller_of(run.pipe).idle
        turn = idle.turn

        def told(denoiser, needs):
            moved.append((denoiser.name, needs(Model.LARGE), needs(Model.SMALL)))
            turn(denoiser, needs)

        idle.turn = told
        run(num_videos_per_prompt=2)
    assert [name for name, *_ in moved].count("small") == STEPS  # two rows, half of the steps
    last = moved[-1]
    assert last == ("small", False, True)
    assert all(large for name, large, _ in moved if name == "transformer")


def test_a_first_run_is_learnt_from_once():
    run = PIPELINES["Wan 2.1"].build(12)
    with accelerated(run.pipe, target_speedup=1.5, by_rows=True) as found:
        run(num_videos_per_prompt=2)
        run(num_videos_per_prompt=2)
    assert found.runs[2].plan == found.runs[3].plan
    assert all(own.work == 1.0 for own in found.runs[:2]) and found.runs[2].work < 0.8


def test_arguments_that_weft_does_not_know_are_no_rows():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    own = Family(guidance=Guidance.TWO_PASSES)
    with pytest.raises(InputError, match="by_rows"):
        accelerate(run.pipe, policy=EAGER, family=own, by_rows=True)


def test_a_run_that_breaks_off_leaves_no_row_behind():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    policy = MixCache(warm_up=0.25)
    with accelerated(run.pipe, policy=policy, by_rows=True) as found:
        expected = run(num_videos_per_prompt=2)
        calls = 0
        forward = run.pipe.transformer.blocks[1].forward

        def failing(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == 6:
                raise RuntimeError("out of memory, say")
            return forward(*args, **kwargs)

        run.pipe.transformer.blocks[1].forward = failing
        with pytest.raises(RuntimeError, match="out of memory"):
            run(num_videos_per_prompt=2)
        run.pipe.transformer.blocks[1].forward = forward
        with report(run.pipe) as after:
            assert torch.equal(run(num_videos_per_prompt=2), expected)
    assert len(after.runs) == 2 and len(found.runs) == 4
    assert all(len(own.steps) == STEPS for own in found.runs)
