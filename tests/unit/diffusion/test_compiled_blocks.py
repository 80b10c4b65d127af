"""Blocks are compiled below the hooks, once for all of them and for all plans."""

from __future__ import annotations

import pytest
import torch

from benchmarks.denoise_matrix.pipelines import PIPELINES
from weft.core.errors import InputError
from weft.diffusion import DenoisePlan, Mode, StepPlan, accelerate, restore

FULL = StepPlan()
PLANS = [
    DenoisePlan(steps=(FULL,) * 4),
    DenoisePlan(steps=(FULL, FULL, StepPlan(mode=Mode.STEP), FULL)),
    DenoisePlan(steps=(FULL, FULL, StepPlan(mode=Mode.BLOCK, blocks=(1, 3)), FULL)),
    DenoisePlan(steps=(FULL, FULL, StepPlan(mode=Mode.CFG), FULL)),
]


def test_hooks_are_not_compiled_and_plans_compile_nothing_again():
    run = PIPELINES["Wan 2.1"].build(4)
    made, graphs = [], []
    torch._dynamo.reset()

    def counting(module, _):
        graphs.append(module)
        return module.forward

    torch._dynamo.register_backend(counting, name="counting")
    for plan in PLANS:
        accelerate(run.pipe, policy=plan, compile_blocks="counting")
        made.append(run())
        restore(run.pipe)
    assert len(graphs) == 1
    for plan, compiled in zip(PLANS, made, strict=True):
        accelerate(run.pipe, policy=plan)
        torch.testing.assert_close(run(), compiled, rtol=1e-4, atol=1e-5)
        restore(run.pipe)


def test_a_denoiser_that_is_compiled_as_a_whole_is_refused():
    run = PIPELINES["Wan 2.1"].build(4)
    run.pipe.transformer.compile(backend="eager")
    with pytest.raises(InputError, match="compile_blocks=True"):
        accelerate(run.pipe)
