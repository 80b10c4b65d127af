"""How far a small model is from a large one, measured along the large one's runs."""

from __future__ import annotations

import logging

import pytest
import torch

from benchmarks.denoise_matrix import pipelines
from benchmarks.denoise_matrix.pipelines import PIPELINES, noise
from weft.core.errors import InputError, MismatchError
from weft.diffusion import MixCache, Placed, Sketch, accelerate, disagreement, restore
from weft.diffusion.handover import handover

STEPS = 6
# diffusers' Mochi asks for autocast in float32, which is none.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def prompts_of(run, seeds=(1,), **more):
    return [{**run.inputs, "generator": noise(seed), **more} for seed in seeds]


def relative_of(name):
    """A pipeline of the same kind, of other weights."""
    made = PIPELINES[name].build(STEPS)
    for at, parameter in enumerate(made.pipe.transformer.parameters()):
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=noise(at))
    return made


@pytest.mark.parametrize("name", list(PIPELINES))
def test_a_model_agrees_with_itself_and_another_does_not(name):
    run = PIPELINES[name].build(STEPS)
    before = run()
    if PIPELINES[name].experts == 1:  # the small model is one, and would be another expert's, too
        same = disagreement(run.pipe, PIPELINES[name].build(STEPS).pipe, prompts_of(run))
        assert max(same.values) < 1e-6
    other = disagreement(run.pipe, relative_of(name).pipe, prompts_of(run, (1, 2)))
    assert other.prompts == 2 and min(other.values) > 0.0 and len(other.positions) == STEPS
    assert torch.equal(run(), before)


def test_it_is_the_guided_outputs_distance_on_the_large_models_way():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    small = pipelines._wan_denoiser(3, 2)
    found = disagreement(run.pipe, small, prompts_of(run))
    wanted, seen = [], []
    whole, scale = run.pipe.transformer, run.inputs["guidance_scale"]
    plain = type(whole).forward

    def both(**given):
        answer = plain(whole, **given)
        seen.append((answer[0], small(**given)[0]))
        return answer

    whole.forward = both
    run(seed=1)
    for (large, own), (large_without, own_without) in zip(seen[::2], seen[1::2], strict=True):
        guided = large_without + scale * (large - large_without)
        other = own_without + scale * (own - own_without)
        wanted.append(float((other - guided).abs().mean() / guided.abs().mean()))
    assert found.values == pytest.approx(wanted, rel=1e-4)


def test_a_small_model_of_other_latents_is_asked_in_its_own():
    """One that is the same but for the scale of its latents agrees in steps of much noise."""
    run, other = (PIPELINES["CogVideoX"].build(STEPS) for _ in range(2))
    other.pipe.vae.register_to_config(scaling_factor=run.pipe.vae.config.scaling_factor * 1.3)
    _, translate = handover(run.pipe.transformer, run.pipe, other.pipe)
    assert translate is not None
    found = disagreement(run.pipe, other.pipe, prompts_of(run))
    assert max(found.values) > 0.0


def test_prompts_are_of_one_kind_of_run():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    small = pipelines._wan_denoiser(3, 2)
    with pytest.raises(InputError, match="at least one prompt"):
        disagreement(run.pipe, small, [])
    one, other = prompts_of(run, (1, 2))
    with pytest.raises(InputError, match="num_inference_steps"):
        disagreement(run.pipe, small, [one, {**other, "num_inference_steps": STEPS + 1}])
    with pytest.raises(MismatchError, match="shape"):
        disagreement(run.pipe, small, [one, {**other, "height": 32}])
    restore_is_refused(run.pipe)


def restore_is_refused(pipe):
    with pytest.raises(InputError, match="accelerate"):
        restore(pipe)


# ------------------------------------------------------------------------- when it is given


@pytest.fixture(scope="module")
def measured():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    small = pipelines._wan_denoiser(3, 2)
    return run, small, disagreement(run.pipe, small, prompts_of(run))


def of(found, values):
    return type(found)(
        holds_for=found.holds_for,
        small=found.small,
        positions=found.positions,
        values=values,
        prompts=1,
    )


RISING, FALLING = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@pytest.mark.parametrize(
    ("values", "policy", "warns"),
    [
        (RISING, None, True),
        (RISING, Sketch(), True),
        (FALLING, Sketch(), False),
        (RISING, MixCache(), False),
    ],
)
def test_giving_away_the_wrong_steps_is_told(measured, caplog, values, policy, warns):
    run, small, found = measured
    with caplog.at_level(logging.WARNING, logger="weft.diffusion"):
        accelerate(run.pipe, policy=policy, sketch_to=small, disagreement=of(found, values))
    restore(run.pipe)
    assert len(caplog.records) == warns
    if warns:
        (line,) = caplog.messages
        assert "20.0%" in line and "50.0%" in line and "+1.00" in line and "Placed" in line


def test_placing_by_it_is_what_the_warning_asks_for(measured, caplog):
    run, small, found = measured
    own = of(found, RISING)
    accelerate(
        run.pipe, policy=Placed(disagreement=own, share=0.5), sketch_to=small, disagreement=own
    )
    restore(run.pipe)
    assert not caplog.records


def test_a_disagreement_of_another_pair_is_refused(measured):
    run, small, found = measured
    with pytest.raises(MismatchError, match="small model"):
        accelerate(run.pipe, sketch_to=pipelines._wan_denoiser(3, 3), disagreement=found)
    with pytest.raises(InputError, match="sketch_to"):
        accelerate(run.pipe, disagreement=found)
    accelerate(run.pipe, sketch_to=small, disagreement=found)
    restore(run.pipe)
