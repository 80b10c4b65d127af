"""A recipe and machines that are small enough to plan and run in a moment."""

from dataclasses import replace

import pytest

from tests.unit.report import toy_plan
from weft.machine import save_machine

RECIPE = """
import torch
from torch import nn
from weft.capture import SGD, Workload


def line(*, batch=8):
    return Workload(
        name="line",
        model=lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.full((batch, 8), 1.0 + step)},
        optimizer=SGD(lr=0.01),
    )


def wide():
    return Workload(
        name="wide",
        model=lambda: nn.Sequential(nn.Linear(8, 2**20), nn.ReLU(), nn.Linear(2**20, 4)),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.full((8, 8), 1.0 + step)},
        optimizer=SGD(lr=0.01),
    )


def other():
    return line(batch=16)
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(RECIPE)
    return f"{path}:line"


def _box(tmp_path, num_devices):
    whole = toy_plan.machine()
    group = replace(whole.groups[0], devices_per_node=num_devices, num_nodes=1)
    path = tmp_path / f"box{num_devices}.yaml"
    save_machine(replace(whole, name=f"box{num_devices}", groups=(group,)), path)
    return str(path)


@pytest.fixture
def pair(tmp_path):
    """A machine file with two devices."""
    return _box(tmp_path, 2)


@pytest.fixture
def three(tmp_path):
    """A machine file with three devices."""
    return _box(tmp_path, 3)


@pytest.fixture
def single(tmp_path):
    """A machine file with one device."""
    return _box(tmp_path, 1)
