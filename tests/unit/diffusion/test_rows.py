"""Rows of a batch that are decided each by itself are what they are alone."""

from __future__ import annotations

import pytest
import torch

from benchmarks.denoise_matrix.pipelines import PIPELINES
from tests.unit.diffusion.accelerated import accelerated
from weft.diffusion import MixCache, report

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
    with accelerated(run.pipe, policy=MixCache(warm_up=0.25), by_rows=True) as found:
        run(num_videos_per_prompt=2, latents=noises)
    distances = [[step.distances for step in own.steps] for own in found.runs]
    assert distances[0] != distances[1]


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
