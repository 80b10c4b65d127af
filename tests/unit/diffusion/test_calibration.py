"""Profiles: made by running a pipeline, kept in files, and asked for plans."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.denoise_matrix.pipelines import PIPELINES, noise
from tests.unit.diffusion.known import a_profile
from weft.core.errors import FileError, InfeasibleError, InputError, MismatchError
from weft.diffusion import (
    Mode,
    accelerate,
    calibrate,
    load_profile,
    report,
    restore,
    save_profile,
)
from weft.diffusion.calibration import _warn_if_busy
from weft.diffusion.costs import Costs

STEPS = 12


def prompts_of(run, seeds=(1, 2)):
    return [{**run.inputs, "generator": noise(seed)} for seed in seeds]


@pytest.fixture(
    scope="module", params=["Wan 2.1", "CogVideoX", "HunyuanVideo", "HunyuanVideo, guided"]
)
def calibrated(request):
    run = PIPELINES[request.param].build(STEPS)
    made = calibrate(run.pipe, prompts_of(run), probes=6, speedups=(1.5,))
    # Seconds of models as small as these say nothing.
    share = {Mode.FULL: 1.0, Mode.CFG: 0.5, Mode.BLOCK: 0.5, Mode.STEP: 0.01}
    return run, replace(made, costs=Costs(full_s=1.0, share=share), checks=())


def test_a_profile_tells_likeness_beforehand(calibrated):
    run, profile = calibrated
    squares = []
    for seed in (1, 2):  # with random weights, another noise is another matter
        exact = run(seed=seed)
        accelerate(run.pipe, profile=profile, target_speedup=2.0)
        try:
            with report(run.pipe) as found:
                made = run(seed=seed)
        finally:
            restore(run.pipe)
        squares.append(float((made - exact).double().square().mean()))
    plan = profile.plan(target_speedup=2.0)
    assert found.runs[0].plan.steps == plan.steps
    # Without checks a plan is predicted to be up to 3 dB worse than it is, for doubt's sake.
    assert plan.psnr_db == pytest.approx(profile.plain_db(np.mean(squares)) - 1.5, abs=3.0)


def test_asking_for_likeness_gives_it(calibrated):
    _, profile = calibrated
    wanted = profile.plan(target_speedup=1.5).psnr_db
    plan = profile.plan(min_psnr=wanted)
    assert plan.psnr_db >= wanted and plan.speedup >= 1.4


def test_a_profile_survives_its_file(calibrated, tmp_path):
    _, profile = calibrated
    save_profile(profile, tmp_path / "profile.json")
    again = load_profile(tmp_path / "profile.json")
    assert again.holds_for == profile.holds_for and again.costs == profile.costs
    for one, other in zip(profile.recordings, again.recordings, strict=True):
        np.testing.assert_allclose(one.outputs, other.outputs, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(one.gains, other.gains)
    assert again.plan(target_speedup=1.5).steps == profile.plan(target_speedup=1.5).steps


def test_other_numbers_of_steps_are_interpolated(calibrated):
    run, profile = calibrated
    accelerate(run.pipe, profile=profile, target_speedup=1.5)
    try:
        with report(run.pipe) as found:
            run(num_inference_steps=20)
    finally:
        restore(run.pipe)
    assert len(found.runs[0].steps) == 20
    assert found.runs[0].work < 0.75


@pytest.fixture(scope="module")
def wan():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    return run, calibrate(run.pipe, prompts_of(run, (1,)), probes=2, speedups=(1.5, 3.0))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"guidance_scale": 3.0}, "guidance"), ({"height": 32}, "shape")],
)
def test_a_profile_of_another_run_is_refused(wan, change, named):
    run, profile = wan
    accelerate(run.pipe, profile=profile, target_speedup=1.2)
    try:
        with pytest.raises(MismatchError, match=named):
            run(**change)
    finally:
        restore(run.pipe)


def test_a_profile_of_another_scheduler_is_refused(wan):
    run, profile = wan
    kept = run.pipe.scheduler
    accelerate(run.pipe, profile=profile, target_speedup=1.2)
    try:
        run.pipe.scheduler = type(kept).from_config(kept.config, flow_shift=5.0)
        with pytest.raises(MismatchError, match="scheduler"):
            run()
    finally:
        run.pipe.scheduler = kept
        restore(run.pipe)


def test_a_profile_of_another_model_is_refused(wan):
    _, profile = wan
    other = PIPELINES["CogVideoX"].build(STEPS)
    accelerate(other.pipe, profile=profile, target_speedup=1.2)
    try:
        with pytest.raises(MismatchError, match="pipeline"):
            other()
    finally:
        restore(other.pipe)


@pytest.mark.parametrize(
    "asked", [{}, {"target_speedup": 2.0, "min_psnr": 30.0}, {"target_speedup": 0.5}]
)
def test_one_of_speed_and_likeness_is_asked_for(wan, asked):
    run, profile = wan
    with pytest.raises(InputError, match="target_speedup"):
        accelerate(run.pipe, profile=profile, **asked)


def test_a_likeness_without_a_profile_is_refused(wan):
    with pytest.raises(InputError, match="calibrate"):
        accelerate(wan[0].pipe, min_psnr=30.0)


def test_a_likeness_that_only_everything_has_is_refused(wan):
    with pytest.raises(InfeasibleError, match="dB"):
        wan[1].plan(min_psnr=500.0)


def test_a_file_that_is_no_profile_is_refused(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text('{"weft": "denoise plan"}')
    with pytest.raises(FileError, match=r"profile\.json"):
        load_profile(path)


def test_prompts_have_to_be_repeatable():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    with pytest.raises(InputError, match="manual_seed"):
        calibrate(run.pipe, [dict(run.inputs)])
    with pytest.raises(InputError, match="prompt"):
        calibrate(run.pipe, [])


def test_calibration_leaves_the_pipeline_as_it_was():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    before = run()
    calibrate(run.pipe, prompts_of(run, (1,)), probes=1, speedups=(2.0,))
    assert torch.equal(run(), before)


@pytest.mark.parametrize("steps", [2, 4])
def test_short_runs_are_calibrated_or_refused(steps):
    run = PIPELINES["Wan 2.1"].build(steps)
    if steps < 4:
        with pytest.raises(InputError, match="at least 4"):
            calibrate(run.pipe, prompts_of(run), probes=2)
    else:
        made = calibrate(run.pipe, prompts_of(run), probes=2, speedups=(1.5,))
        assert {Mode.FULL, Mode.STEP, Mode.CFG} <= set(made.costs.share)


def test_guidance_that_is_an_input_multiplies_no_error():
    run = PIPELINES["HunyuanVideo"].build(6)
    made = calibrate(run.pipe, prompts_of(run), probes=2, speedups=(1.5,))
    assert {recording.guidance for recording in made.recordings} == {1.0}


def test_prompts_have_to_be_of_one_kind():
    run = PIPELINES["Wan 2.1"].build(6)
    one, *_ = prompts_of(run)
    with pytest.raises(MismatchError, match="guidance"):
        calibrate(run.pipe, [one, {**one, "guidance_scale": 2.0}], probes=2)


DAMAGES = {
    "no recording": lambda plain: plain.update(recordings=[]),
    "no share": lambda plain: plain["costs"]["share"].pop("step"),
    "negative share": lambda plain: plain["costs"]["share"].update(step=-1),
    "short gains": lambda plain: plain["recordings"][0]["gains"].pop(),
    "short positions": lambda plain: plain["recordings"][0]["positions"].pop(),
    "no range": lambda plain: plain.update(value_range=0.0),
    "not finite": lambda plain: plain["recordings"][0].update(gains=[float("nan")] * STEPS),
    "no number": lambda plain: plain.update(checks=[["a", 1, 1, 1, 1, 1, 1, 1]]),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_profile_is_refused_when_it_is_read(wan, tmp_path, damage):
    save_profile(wan[1], tmp_path / "profile.json")
    plain = json.loads((tmp_path / "profile.json").read_text())
    DAMAGES[damage](plain)
    (tmp_path / "profile.json").write_text(json.dumps(plain))
    with pytest.raises(FileError, match="profile"):
        load_profile(tmp_path / "profile.json")


def test_a_quality_keeps_a_margin_and_stays_within_what_was_checked():
    known = a_profile()
    sure = replace(known, checks=tuple(replace(c, doubt_db=2.0, videos=8) for c in known.checks))
    most = max(check.speedup for check in known.checks)
    plan = known.plan(min_psnr=31.0)
    assert plan.psnr_db >= 31.0 and plan.speedup <= most * (1 + 1e-9)
    with_margin = sure.plan(min_psnr=31.0)
    assert with_margin.psnr_db >= 31.0 + sure.checks[0].margin_db - 1e-9
    assert known.plan(min_psnr=56.0).speedup > sure.plan(min_psnr=56.0).speedup
    # So little is asked for that it would be reached far beyond the last check.
    assert known.plan(min_psnr=-50.0).speedup <= most * (1 + 1e-9)


def test_likeness_is_that_of_what_prompts_ask_for():
    """Of videos as numbers from 0 to 1 where they ask for these; or of latents."""
    run = PIPELINES["CogVideoX"].build(6)
    (prompt,) = prompts_of(run, (1,))
    quick = {"probes": 1, "speedups": (1.5,)}
    latents = calibrate(run.pipe, [prompt], **quick)
    videos = calibrate(run.pipe, [{**prompt, "output_type": "np"}], **quick)
    given = calibrate(run.pipe, [prompt], value_range=3.0, **quick)
    span = float(run().max() - run().min())
    assert latents.value_range == pytest.approx(span, rel=0.5)
    assert videos.value_range == 1.0 and given.value_range == 3.0
    np.testing.assert_array_equal(videos.recordings[0].outputs, latents.recordings[0].outputs)
    fewer = (videos.fewer_steps[0], latents.fewer_steps[0])
    assert fewer[0].psnr_db != pytest.approx(fewer[1].psnr_db, abs=0.1)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"value_range": 0.0}, "value_range"),
        ({"speedups": ()}, "speedups"),
        ({"speedups": (1.0, 2.0)}, "speedups"),
        ({"speedups": (float("nan"),)}, "speedups"),
        ({"probes": 0}, "probe"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, named):
    run = PIPELINES["CogVideoX"].build(6)
    with pytest.raises(InputError, match=named):
        calibrate(run.pipe, prompts_of(run, (1,)), **wrong)


def test_threads_that_ask_at_once_are_given_the_same_plans():
    asked = (1.3, 1.5, 1.7, 1.9)
    alone = [a_profile().plan(target_speedup=own) for own in asked]
    shared = a_profile()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda own: shared.plan(target_speedup=own), asked))
    assert found == alone


def test_a_busy_machine_is_told_of(caplog):
    _warn_if_busy([[2.0, 2.1, 2.05], [3.0, 3.2]])
    assert caplog.text == ""
    _warn_if_busy([[2.0, 2.1, 2.05], [3.0, 3.2, 3.9]])
    assert "took from 3 to 3.9 s" in caplog.text
