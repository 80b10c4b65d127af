"""Beside offloading by accelerate, which puts a forward of its own on models, again after each run.

accelerate itself need not be there: what it does to a module's forward is done here, too.
"""

from __future__ import annotations

import functools

import pytest
import torch

from benchmarks.denoise_matrix.pipelines import PIPELINES
from weft.core.errors import InputError
from weft.diffusion import DenoisePlan, Mode, StepPlan, accelerate, report, restore

STEPS = 6
FULL = StepPlan()
PLANS = {
    mode: DenoisePlan(steps=(FULL, FULL, own, FULL, own, FULL))
    for mode, own in {
        Mode.STEP: StepPlan(mode=Mode.STEP),
        Mode.BLOCK: StepPlan(mode=Mode.BLOCK, blocks=(1, 3)),
    }.items()
}


class Counting:
    """A hook of accelerate's."""

    def __init__(self):
        self.calls = 0


def put_on(module):
    """As `accelerate.hooks.add_hook_to_module` does."""
    module._old_forward = module.forward
    module._hf_hook = Counting()

    def new_forward(module, *args, **kwargs):
        module._hf_hook.calls += 1
        return module._old_forward(*args, **kwargs)

    module.forward = functools.update_wrapper(
        functools.partial(new_forward, module), module._old_forward
    )


def take_off(module):
    """As `accelerate.hooks.remove_hook_from_module` does."""
    del module._hf_hook
    module.forward = module._old_forward
    del module._old_forward


def offload(pipe, of=lambda pipe: [pipe.transformer]):
    """As `enable_model_cpu_offload` does, which the pipeline calls at the end of each run."""

    def again(**_):
        for module in of(pipe):
            if hasattr(module, "_hf_hook"):
                take_off(module)
            put_on(module)

    pipe.enable_model_cpu_offload = again
    pipe._all_hooks = [None]  # what tells pipelines of diffusers' that they are offloaded
    again()


@pytest.fixture(params=["before", "after"])
def order(request):
    return request.param


@pytest.mark.parametrize("mode", list(PLANS))
@pytest.mark.parametrize("name", ["Wan 2.1", "CogVideoX"])
def test_every_run_follows_the_plan_and_so_does_none_after_restore(name, mode, order):
    plain = PIPELINES[name].build(STEPS)
    exact = plain()
    accelerate(plain.pipe, policy=PLANS[mode])
    wanted = plain()
    run = PIPELINES[name].build(STEPS)
    if order == "before":
        offload(run.pipe)
    accelerate(run.pipe, policy=PLANS[mode])
    if order == "after":
        offload(run.pipe)
    with report(run.pipe) as found:
        assert all(torch.equal(run(), wanted) for _ in range(3))
    assert len(found.runs) == 3
    restore(run.pipe)
    assert not any(hasattr(module, "_diffusers_hook") for module in run.pipe.transformer.modules())
    assert run.pipe.transformer._hf_hook is not None  # offloading is still on, and works
    assert all(torch.equal(run(), exact) for _ in range(2))


def test_offloading_of_every_block_is_left_in_place(order):
    """As `enable_sequential_cpu_offload` does, which stays on all modules from run to run."""
    run = PIPELINES["Wan 2.1"].build(STEPS)
    exact = run()
    modules = [run.pipe.transformer, *run.pipe.transformer.blocks]

    def on():
        for module in modules:
            put_on(module)

    if order == "before":
        on()
    accelerate(run.pipe, policy=PLANS[Mode.STEP])
    if order == "after":
        on()
    with report(run.pipe) as found:
        assert torch.equal(run(), run())
    assert [step.blocks for step in found.runs[1].steps] == [8, 8, 0, 8, 0, 8]
    assert [block._hf_hook.calls for block in modules[1:]] == [2 * 2 * 4] * 4
    restore(run.pipe)
    assert torch.equal(run(), exact)
    assert [block._hf_hook.calls for block in modules[1:]] == [2 * 2 * 4 + 2 * STEPS] * 4
    for module in modules:
        take_off(module)
        assert getattr(module.forward, "__func__", None) is type(module).forward


def test_a_pipeline_that_was_offloaded_has_nothing_left_of_ours_when_it_no_longer_is():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    exact = run()
    offload(run.pipe)
    accelerate(run.pipe, policy=PLANS[Mode.STEP])
    run()
    take_off(run.pipe.transformer)
    run.pipe._all_hooks = []
    assert not torch.equal(run(), exact)  # still accelerated
    restore(run.pipe)
    assert torch.equal(run(), exact)


def test_with_accelerate_itself():
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    run = PIPELINES["Wan 2.1"].build(STEPS)
    exact = run()
    run.pipe.enable_model_cpu_offload(device="cpu")
    accelerate(run.pipe, policy=PLANS[Mode.STEP])
    with report(run.pipe) as found:
        assert torch.equal(run(), run())
    assert len(found.runs) == 2
    restore(run.pipe)
    assert torch.equal(run(), exact) and torch.equal(run(), exact)


def test_two_who_move_models_are_refused():
    run = PIPELINES["Wan 2.1"].build(STEPS)
    offload(run.pipe)
    with pytest.raises(InputError, match="idle"):
        accelerate(run.pipe, sketch_to=PIPELINES["Wan 2.1"].build(STEPS).pipe, idle="cpu")
