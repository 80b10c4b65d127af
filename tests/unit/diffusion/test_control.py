"""Strengths of a control, for a relative that is controlled in other blocks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from weft.diffusion.compat import Call
from weft.diffusion.control import controls


def model(num_layers, *controlled):
    return SimpleNamespace(
        config=SimpleNamespace(num_layers=num_layers, vace_layers=list(controlled))
    )


def call(**kwargs):
    return Call(branch="cond", step=0, run=lambda *_, **__: None, args=(), kwargs=kwargs)


def controlled(*strengths):
    return call(control_hidden_states_scale=torch.tensor(strengths), timestep=3)


def test_strengths_are_taken_by_depth():
    own = controls(model(40, 0, 20), model(30, 0, 15, 29))
    made, answered = own(controlled(1.0, 0.0))
    found = made.kwargs["control_hidden_states_scale"]
    assert found.tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert made.kwargs["timestep"] == 3
    answer = torch.ones(2)
    assert answered(answer) is answer


def test_between_depths_they_are_interpolated():
    own = controls(model(40, 0, 20), model(40, 10))
    found = own(controlled(1.0, 0.5))[0].kwargs["control_hidden_states_scale"]
    assert found.tolist() == pytest.approx([0.75])


def test_one_strength_stays_what_it_is():
    own = controls(model(40, *range(0, 40, 5)), model(30, *range(0, 30, 2)))
    found = own(controlled(*[0.8] * 8))[0].kwargs["control_hidden_states_scale"]
    assert found.tolist() == pytest.approx([0.8] * 15)


def test_models_alike_and_models_without_control_need_no_translation():
    assert controls(model(40, 0, 20), model(20, 0, 10)) is None
    assert controls(model(40), model(20)) is None
    nothing = SimpleNamespace(config=SimpleNamespace(num_layers=4))
    assert controls(nothing, nothing) is None


def test_a_call_without_strengths_is_passed_on():
    given = call()
    assert controls(model(40, 0), model(40, 10))(given)[0] is given
