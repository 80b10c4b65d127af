"""Draws that nothing needs advance the generator by as much as they would have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from weft.capture import SGD, Workload, initial_state
from weft.capture.start import visit_initial_state

NUMBER = (1 << 19) + 77
"""Elements for more than one slice, and a last one that is no multiple of 16."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("draw", ["normal_", "uniform_"])
@pytest.mark.parametrize("number", [NUMBER, (1 << 19) + 3, 1 << 19])
def test_a_draw_in_slices_leaves_the_generator_where_the_whole_one_does(dtype, draw, number):
    def model():
        made = nn.Linear(3, 2)
        dropped = torch.empty(number, dtype=dtype)
        getattr(dropped, draw)()
        nn.init.normal_(made.weight)
        return made

    workload = Workload(
        name="made",
        model=model,
        loss=lambda model, batch: model(batch["x"]).mean(),
        batch=lambda step: {"x": torch.ones(2, 3)},
        optimizer=SGD(),
    )
    found = {}
    visit_initial_state(workload, lambda name, whole: found.update({name: whole.clone()}))
    assert torch.equal(found["weight"], initial_state(workload)["weight"])
