"""Laws that every recipe keeps."""

from __future__ import annotations

import ast
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from weft.capture import initial_state, make_step
from weft.workflow.recipe import load_workload

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "recipes"


def _recipes():
    """Every function of every file that returns a workload and needs no arguments."""
    for path in sorted(FOLDER.glob("*.py")):
        functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
        for function in functions:
            returned = function.returns and ast.unparse(function.returns)
            required = function.args.args or None in function.args.kw_defaults
            if returned == "Workload" and not required:
                yield f"{path.name}:{function.name}"


ALL = tuple(_recipes())
TINY = tuple(name for name in ALL if name.endswith("_tiny"))


def _load(recipe):
    if recipe.startswith("hf_"):
        pytest.importorskip("transformers")
    return load_workload(str(FOLDER / recipe))


def test_there_is_a_recipe_of_every_kind():
    kinds = {name.partition(".")[0] for name in TINY}
    text = {"deepseek", "gpt", "gpt3", "gpt_fused", "hf_llama", "llama3", "mixtral", "moe"}
    text |= {"t5", "translator"}
    images = {"adm", "clip", "matcher", "mlp", "resnet", "unet", "vgg", "vit", "wide_resnet"}
    assert kinds == text | images
    assert len(ALL) > len(kinds)


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_is_named_as_its_function(recipe):
    assert _load(recipe).name == recipe.partition(":")[2]


@pytest.mark.parametrize("recipe", ALL)
def test_a_batch_is_the_same_for_the_same_step_and_no_other(recipe):
    workload = _load(recipe)
    first, again, other = (workload.batch(step) for step in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key != "labels")
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in other.items()}


@pytest.mark.parametrize("recipe", ALL)
def test_a_model_of_any_size_is_made_without_memory(recipe):
    workload = _load(recipe)
    with FakeTensorMode():
        model = workload.model()
    assert all(p.device.type == "cpu" for p in model.parameters())


# VGG drops out, with other random numbers in torch than in weft.
@pytest.mark.parametrize("recipe", [name for name in TINY if not name.startswith("vgg")])
def test_the_pure_step_equals_a_training_loop_of_torch(recipe):
    plain = _load(recipe)
    workload = replace(plain, model=lambda: plain.model().double(), batch=_in_double(plain))
    torch.manual_seed(workload.seed)
    model = workload.model()
    kind = {"AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}
    pure = workload.pure_optimizer
    optimizer = kind[type(pure).__name__](model.parameters(), **asdict(pure))
    step, state = make_step(workload), initial_state(workload)
    for number in range(4):
        optimizer.zero_grad()
        loss = workload.loss(model, workload.batch(number))
        loss.backward()
        optimizer.step()
        pure_loss, state = step(state, workload.batch(number), torch.tensor(number))
        torch.testing.assert_close(pure_loss, loss.detach(), rtol=1e-10, atol=0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        torch.testing.assert_close(state[name], tensor.detach(), rtol=1e-7, atol=1e-9)


def _in_double(workload):
    def batch(step):
        entries = workload.batch(step)
        return {k: v.double() if v.is_floating_point() else v for k, v in entries.items()}

    return batch


@pytest.mark.parametrize("recipe", TINY)
def test_thirty_steps_lower_the_loss(recipe):
    workload = _load(recipe)
    step, state = make_step(workload), initial_state(workload)
    losses = []
    for number in range(30):
        loss, state = step(state, workload.batch(number), torch.tensor(number))
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.5
