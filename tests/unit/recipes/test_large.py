"""Recipes of published models: their sizes, and that their steps can be captured and divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch._subclasses import FakeTensorMode

from benchmarks.job import in_double
from tests.stages import run_stages
from weft.capture import capture, initial_state, make_step
from weft.core.errors import InputError
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.stages import stage_of_nodes, stage_programs
from weft.program.evaluate import evaluate
from weft.program.graph import Role
from weft.runtime import step_seed
from weft.workflow.recipe import load_workload

FOLDER = Path(__file__).parents[3] / "recipes"

# Parameters as published: exact where a checkpoint was counted, else as rounded in the paper.
EXACT = {
    "clip.py:clip_vit_l14": 427_616_513,
    "deepseek.py:deepseek_v2_lite": 15_706_484_224,
    # Towers of CLIP ViT-L/14, an offset beside the scale.
    "matcher.py:matcher_l14": 427_616_514,
    "mixtral.py:mixtral_8x7b": 46_702_792_704,
    "t5.py:t5_11b": 11_307_321_344,
}
ROUNDED = {
    "adm.py:adm_64": (296e6, 0.5e6),
    "adm.py:adm_256": (554e6, 0.5e6),
    "clip.py:clip_vit_bigg14": (2_539.57e6, 0.005e6),
    "deepseek.py:deepseek_v2": (236e9, 0.5e9),
    "mixtral.py:mixtral_8x22b": (141e9, 0.5e9),
    "wide_resnet.py:wide_resnet_250m": (0.25e9, 0.005e9),
    "wide_resnet.py:wide_resnet_500m": (0.5e9, 0.01e9),
    "wide_resnet.py:wide_resnet_1b": (1e9, 0.02e9),
    "wide_resnet.py:wide_resnet_2b": (2e9, 0.04e9),
    "wide_resnet.py:wide_resnet_4b": (4e9, 0.08e9),
    "wide_resnet.py:wide_resnet_7b": (6.8e9, 0.14e9),
    "wide_resnet.py:wide_resnet_13b": (13e9, 0.5e9),
}
DIVISIBLE = (
    "adm.py:adm_tiny",
    "deepseek.py:deepseek_tiny",
    "matcher.py:matcher_tiny",
    "mixtral.py:mixtral_tiny",
    "t5.py:t5_tiny",
    "wide_resnet.py:wide_resnet_grouped_tiny",
)
MIXING = {
    "clip.py:clip_tiny": "einsum in the loss clip.py",
    "wide_resnet.py:wide_resnet_tiny": "norm wide_resnet.py",
}


def _load(recipe):
    return load_workload(str(FOLDER / recipe))


def _parameters(recipe):
    with FakeTensorMode():
        return sum(p.numel() for p in _load(recipe).model().parameters())


@pytest.mark.parametrize("recipe", EXACT)
def test_a_model_has_exactly_its_published_parameters(recipe):
    assert _parameters(recipe) == EXACT[recipe]


@pytest.mark.parametrize("recipe", ROUNDED)
def test_a_model_has_its_published_parameters_as_far_as_they_were_told(recipe):
    published, rounding = ROUNDED[recipe]
    assert _parameters(recipe) == pytest.approx(published, abs=rounding)


def _given(workload, program):
    """Arrays for the inputs of the first step as the program holds them, and their tensors."""
    state, batch = initial_state(workload), workload.batch(0)
    named = state | {f"batch.{key}": value for key, value in batch.items()}
    arrays = {key: value.detach().numpy() for key, value in named.items()}
    for source in program.inputs:
        if source.role.is_persistent:
            held = program.nodes[source.node].outputs[0].shape
            arrays[source.name] = arrays[source.name].reshape(held)
    return arrays | {"seed": np.asarray(step_seed(workload.seed, 0))}, state, batch


@pytest.mark.parametrize("recipe", [*DIVISIBLE, *MIXING])
def test_a_captured_step_computes_what_the_step_does(recipe):
    import torch

    workload = in_double(_load(recipe))
    program = capture(workload)
    arrays, state, batch = _given(workload, program)
    loss, updates = evaluate(program, arrays)
    wanted, new = make_step(workload)(state, batch, torch.tensor(step_seed(workload.seed, 0)))
    assert float(loss) == pytest.approx(float(wanted), rel=1e-9)
    for name, value in updates.items():
        wanted = new[name].detach().numpy().reshape(value.shape)
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("recipe", DIVISIBLE)
def test_four_micro_batches_compute_the_step(recipe):
    workload = in_double(_load(recipe))
    program = capture(workload)
    arrays, _, _ = _given(workload, program)
    loss, updates = evaluate(program, arrays)
    part = in_micro_batches(program, 4)
    stages = stage_programs(part, stage_of_nodes(part, [0] * len(part.nodes)))
    found, new = run_stages(stages, 4, arrays)
    assert found == pytest.approx(float(loss), rel=1e-9)
    moments = [i.name for i in program.inputs if i.role is Role.STATE and "exp_avg" in i.name]
    for name in moments or updates:
        np.testing.assert_allclose(new[name], updates[name], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("recipe", MIXING)
def test_a_step_that_mixes_samples_is_refused_with_the_place(recipe):
    with pytest.raises(InputError, match=MIXING[recipe]):
        in_micro_batches(capture(_load(recipe)), 4)
