"""A small workload on one device, its program and a plan for it."""

from __future__ import annotations

import functools

import torch
from torch import nn

from weft.capture import AdamW, Workload, capture
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.runtime.deploy import deploy
from weft.runtime.world import alone


def tiny(seed=3):
    def batch(step):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": x[:, :2].sin()}

    return Workload(
        name="tiny",
        model=lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2)),
        loss=lambda model, batch: (model(batch["x"]) - batch["y"]).square().mean(),
        batch=batch,
        optimizer=AdamW(lr=1e-2),
        seed=seed,
    )


@functools.cache
def program():
    return capture(tiny())


@functools.cache
def plan():
    return expert_plan(program(), preset("dgx-h100x1"))


def step(seed=3):
    return deploy(plan(), tiny(seed), world=alone(), program=program())
