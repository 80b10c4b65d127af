"""Planning a recipe by an agent: Ctrl-C ends with what there is, and files go on."""

from __future__ import annotations

import os
import signal

import pytest

from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.plan import Level
from weft.parallel.plan_files import save_plan
from weft.parallel.validate import validate
from weft.workflow.plan_model import Learning, plan_model

MACHINE = preset("dgx-h100x1")
RECIPE = """
import torch
from torch import nn
from weft.capture import SGD, Workload


def line():
    return Workload(
        name="line",
        model=lambda: nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.zeros(64, 256)},
        optimizer=SGD(lr=0.01),
    )
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(RECIPE)
    return f"{path}:line"


def planned(recipe, told, interrupt_at=None, **asked):
    """A plan, interrupted as by Ctrl-C once so many episodes have been told of."""

    def progress(label, share, text=""):
        if text.startswith("episode"):
            told.append(text)
            if len(told) == interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)

    learning = Learning(**asked) if asked else None
    return plan_model(
        recipe,
        MACHINE,
        level=Level.FAST,
        planner="dqn",
        max_stages=1,
        learning=learning,
        progress=progress,
    )


@pytest.fixture(autouse=True)
def interruptible():
    """What is started in the background of a shell is born deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_with_the_best_plan_so_far(recipe):
    told, before = [], signal.getsignal(signal.SIGINT)
    found = planned(recipe, told, interrupt_at=5)
    validate(found.plan, found.program)
    assert len(told) == 5
    assert any("since the search was stopped" in note for note in found.plan.notes)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_was_interrupted_goes_on(recipe, tmp_path):
    file, told, later = tmp_path / "search", [], []
    first = planned(recipe, told, interrupt_at=12, resume=file, episodes=20)
    second = planned(recipe, later, resume=file, episodes=20)
    assert (len(told), len(later)) == (12, 8)
    assert second.plan.prediction.step_s <= first.plan.prediction.step_s * (1 + 1e-9)


def test_a_plan_file_is_where_it_begins(recipe, tmp_path):
    exact = plan_model(recipe, MACHINE, level=Level.FAST, max_stages=1)
    save_plan(exact.plan, tmp_path / "plan.json")
    found = planned(recipe, [], warm_start=tmp_path / "plan.json", episodes=0)
    assert found.plan.prediction.step_s <= exact.plan.prediction.step_s * (1 + 1e-9)


def test_only_the_planner_that_learns_is_asked_to(recipe):
    with pytest.raises(InputError, match="--planner dqn"):
        plan_model(recipe, MACHINE, level=Level.FAST, learning=Learning(episodes=3))
