"""Policies on real pipelines of every family: counts, bits, errors.

`STEPS` steps of random weights: what is made looks like nothing, but says whether the plan was
followed and nothing else was touched.
"""

from __future__ import annotations

import threading

import pytest
import torch

from benchmarks.denoise_matrix.pipelines import PIPELINES
from benchmarks.denoise_matrix.rows import rows_computed
from tests.unit.diffusion.accelerated import accelerated
from weft.core.errors import InfeasibleError, InputError, MismatchError
from weft.diffusion import (
    DenoisePlan,
    Keep,
    MixCache,
    Mode,
    Model,
    Predictor,
    Sketch,
    StepPlan,
    accelerate,
    report,
    restore,
    session,
)

# diffusers' Mochi asks for autocast in float32, which is none.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

STEPS = 8
FULL = StepPlan()
SHORTCUTS = {
    Mode.STEP: StepPlan(mode=Mode.STEP, predictor=Predictor.LINEAR),
    Mode.CFG: StepPlan(mode=Mode.CFG, predictor=Predictor.LINEAR),
    Mode.BLOCK: StepPlan(mode=Mode.BLOCK, predictor=Predictor.LINEAR, blocks=(1, 3)),
}


def alternating(mode):
    """Two full steps, then every other one is a shortcut; the last one is full."""
    return DenoisePlan(
        steps=tuple(
            SHORTCUTS[mode] if step >= 2 and step % 2 == 0 else FULL for step in range(STEPS)
        )
    )


@pytest.fixture(scope="module")
def built():
    return {name: kind.build(STEPS) for name, kind in PIPELINES.items()}


@pytest.fixture(params=list(PIPELINES))
def family(request, built):
    return PIPELINES[request.param], built[request.param]


def modes_of(kind):
    return [mode for mode in SHORTCUTS if mode is not Mode.CFG or kind.guided]


def test_nothing_but_full_steps_changes_no_bit_and_nor_does_taking_hooks_off(family):
    _, run = family
    before = run()
    with accelerated(run.pipe, policy=DenoisePlan(steps=(FULL,) * STEPS)):
        assert torch.equal(run(), before)
    for module in run.pipe.transformer.modules():
        assert "forward" not in vars(module) and not hasattr(module, "_diffusers_hook")
    assert torch.equal(run(), before)


def test_what_is_computed_is_what_the_plan_says(family):
    kind, run = family
    outputs = 2 if kind.guided else 1
    with rows_computed(run.denoisers()) as rows:
        run()
    all_rows = rows.blocks
    for mode in modes_of(kind):
        plan = alternating(mode)
        with accelerated(run.pipe, policy=plan) as found, rows_computed(run.denoisers()) as rows:
            run()
        (made,) = found.runs
        assert rows.blocks == pytest.approx(made.work * all_rows), mode
        assert rows.outputs == sum(step.outputs for step in made.steps), mode
        forced = [step.step for step in made.steps if step.why]
        assert len(forced) <= kind.experts - 1, mode  # the second expert begins afresh
        wanted = {Mode.FULL: outputs, Mode.STEP: 0, Mode.CFG: 1, Mode.BLOCK: outputs}
        blocks = {Mode.BLOCK: kind.blocks - 2}
        for planned, step in zip(plan.steps, made.steps, strict=True):
            own = Mode.FULL if step.why else planned.mode
            assert step.done.mode is own
            assert step.outputs == wanted[own], (mode, step)
            assert step.blocks == wanted[own] * blocks.get(own, kind.blocks), (mode, step)


def test_a_run_is_repeated_bit_for_bit_and_so_is_the_plan_that_it_took(family):
    _, run = family
    policy = MixCache(warm_up=0.2, bounds=(0.0, 10.0), impact=dict.fromkeys(SHORTCUTS, 1.0))
    with accelerated(run.pipe, policy=policy) as found:
        first, again = run(), run()
    assert torch.equal(first, again)
    one, other = found.runs
    assert one.plan == other.plan and one.work == other.work < 1.0
    with accelerated(run.pipe, policy=one.plan):
        assert torch.equal(run(), first)


def test_predictions_are_near_what_they_stand_for(family):
    kind, run = family
    exact = run()
    for mode in modes_of(kind):
        with accelerated(run.pipe, policy=alternating(mode)):
            made = run()
        error = (made - exact).norm() / exact.norm()
        assert 0.0 < error < 0.6, mode  # far apart are the steps of Mochi's schedule


def test_a_row_of_a_batch_is_what_it_is_alone():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    with accelerated(run.pipe, policy=alternating(Mode.CFG)):
        both = run(num_videos_per_prompt=2)
        noises = torch.randn(2, *both.shape[1:], generator=torch.Generator().manual_seed(0))
        pair = run(num_videos_per_prompt=2, latents=noises)
        single = run(latents=noises[1:])
    torch.testing.assert_close(pair[1:], single, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------- several runs


def test_runs_that_take_turns_in_one_thread_equal_runs_one_after_the_other():
    """Two pipelines share a denoiser; after each step of the one, the other makes one."""
    kind = PIPELINES["Wan 2.1"]
    one = kind.build(STEPS)
    shared = type(one.pipe)(**one.pipe.components)
    shared.scheduler = type(one.pipe.scheduler).from_config(one.pipe.scheduler.config)
    shared.set_progress_bar_config(disable=True)
    turns, ours = threading.Semaphore(1), threading.Semaphore(0)
    made, alone = {}, {}

    def run(pipe, name, seed, mine, other):
        def yielded(*args):
            other.release()
            mine.acquire()
            return {}

        given = {**one.inputs, "generator": torch.Generator().manual_seed(seed)}
        with session(pipe, name), torch.no_grad():
            mine.acquire()
            made[name] = pipe(**given, output_type="latent", callback_on_step_end=yielded).frames
            other.release()

    with accelerated(one.pipe, policy=alternating(Mode.STEP)) as found:
        alone["a"] = one(seed=1)
        alone["b"] = one(seed=2)
        threads = [
            threading.Thread(target=run, args=(one.pipe, "a", 1, turns, ours)),
            threading.Thread(target=run, args=(shared, "b", 2, ours, turns)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found.runs) == 4
    assert torch.equal(made["a"], alone["a"]) and torch.equal(made["b"], alone["b"])
    assert not torch.equal(alone["a"], alone["b"])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["Wan 2.1", "CogVideoX", "HunyuanVideo, guided"])
@pytest.mark.parametrize("last", [0, 3])
def test_a_run_that_broke_off_leaves_nothing_behind(name, last, built):
    run = built[name]

    def broken(pipe, step, *args):
        if step == last:
            raise Interrupted
        return {}

    with accelerated(run.pipe, policy=alternating(Mode.STEP)) as found:
        wanted = run()
        with pytest.raises(Interrupted):
            run(seed=5, callback_on_step_end=broken)
        assert torch.equal(run(), wanted)
    assert len(found.runs) == 2


# ------------------------------------------------------------------------ a small relative


def relative(run, layers=2):
    from benchmarks.denoise_matrix import pipelines

    return pipelines._wan_denoiser(3, layers)


def test_the_small_model_does_the_steps_that_the_plan_gives_it(built):
    run = built["Wan 2.1"]
    small = relative(run)
    half = (FULL,) * 4 + (StepPlan(model=Model.SMALL),) * 4
    with accelerated(run.pipe, policy=DenoisePlan(steps=half), sketch_to=small) as found:
        made = run()
    (own,) = found.runs
    assert [step.blocks for step in own.steps] == [8] * 4 + [4] * 4
    whole = run.pipe.transformer
    run.pipe.transformer = small
    try:
        alone = run()
    finally:
        run.pipe.transformer = whole
    with accelerated(
        run.pipe,
        policy=DenoisePlan(steps=(StepPlan(model=Model.SMALL),) * STEPS),
        sketch_to=small,
    ):
        assert torch.equal(run(), alone)
    assert not torch.equal(made, alone) and not torch.equal(made, run())


def test_a_sketch_with_caches_on_top_switches_once_and_leaves_out_steps_of_both(built):
    run = built["Wan 2.1"]
    policy = Sketch(then=MixCache(warm_up=0.2, bounds=(0.0, 10.0)), earliest=0.5, latest=0.5)
    with accelerated(run.pipe, policy=policy, sketch_to=relative(run)) as found:
        assert torch.equal(run(), run())
    models = [step.done.model for step in found.runs[0].steps]
    assert models == [Model.LARGE] * 4 + [Model.SMALL] * 4
    assert 0.0 < found.runs[0].work < 0.75


# ---------------------------------------------------------------------------------- errors


def test_a_pipeline_that_is_unknown_is_refused():
    class Other:
        pass

    with pytest.raises(InputError, match="Family"):
        accelerate(Other())


def test_one_that_is_accelerated_already_is_refused(built):
    run = built["Wan 2.1"]
    with accelerated(run.pipe), pytest.raises(InputError, match="restore"):
        accelerate(run.pipe)


def test_one_that_is_not_has_nothing_to_restore_or_report(built):
    run = built["Wan 2.1"]
    with pytest.raises(InputError, match="accelerate"):
        restore(run.pipe)
    with pytest.raises(InputError, match="accelerate"), report(run.pipe):
        pass


def test_guidance_cannot_be_predicted_where_there_is_none(built):
    run = built["HunyuanVideo"]
    before = run()
    with accelerated(run.pipe, policy=alternating(Mode.CFG)):
        with pytest.raises(InputError, match="true_cfg_scale"):
            run()
    assert torch.equal(run(), before)
    with accelerated(built["Wan 2.1"].pipe, policy=alternating(Mode.CFG)):
        with pytest.raises(InputError, match="classifier-free guidance"):
            built["Wan 2.1"](guidance_scale=1.0)


def test_a_plan_of_another_number_of_steps_is_refused(built):
    run = built["Wan 2.1"]
    with accelerated(run.pipe, policy=alternating(Mode.STEP)):
        with pytest.raises(MismatchError, match="num_inference_steps=8"):
            run(num_inference_steps=5)
        run()


def test_another_cache_is_refused(built):
    from diffusers import FirstBlockCacheConfig

    run = built["Wan 2.1"]
    run.pipe.transformer.enable_cache(FirstBlockCacheConfig())
    try:
        with pytest.raises(InputError, match="disable_cache"):
            accelerate(run.pipe)
    finally:
        run.pipe.transformer.disable_cache()


def test_a_scheduler_that_changes_in_the_middle_is_refused(built):
    run = built["CogVideoX"]

    def changed(pipe, step, *args):
        if step == 3:
            pipe.scheduler.set_timesteps(STEPS)
        return {}

    with accelerated(run.pipe, policy=alternating(Mode.STEP)):
        with pytest.raises(MismatchError, match="change the scheduler between runs"):
            run(callback_on_step_end=changed)


def test_what_is_kept_is_told_and_bounded(built):
    run = built["Wan 2.1"]
    with accelerated(run.pipe, policy=alternating(Mode.BLOCK)) as found:
        run()
    kept = found.runs[0].kept_bytes
    with accelerated(
        run.pipe, policy=alternating(Mode.BLOCK), keep=Keep(dtype=torch.bfloat16)
    ) as found:
        run()
    assert found.runs[0].kept_bytes == kept // 2
    with accelerated(run.pipe, policy=alternating(Mode.BLOCK), keep=Keep(limit_bytes=kept // 2)):
        with pytest.raises(InfeasibleError, match="bfloat16"):
            run()


def test_a_small_model_of_another_kind_is_refused(built):
    with pytest.raises(InputError, match="class"):
        accelerate(built["Wan 2.1"].pipe, sketch_to=built["CogVideoX"].pipe)


def test_calls_outside_of_a_pipeline_are_let_through(built):
    run = built["Wan 2.1"]
    module = run.pipe.transformer
    given = {
        "hidden_states": torch.randn(1, 16, 3, 2, 2),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": run.inputs["prompt_embeds"],
        "return_dict": False,
    }
    with torch.no_grad():
        (plain,) = module(**given)
        with accelerated(run.pipe) as found:
            (hooked,) = module(**given)
    assert torch.equal(plain, hooked) and not found.runs
