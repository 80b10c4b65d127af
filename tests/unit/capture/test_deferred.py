"""Tensors whose values are still to come say that they are what they will be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from weft.capture.deferred import Deferred, Recorder, Unable
from weft.capture.replay import evaluate


def test_a_deferred_tensor_is_on_the_cpu_and_is_not_meta():
    with Recorder(evaluate) as recorder:
        made = nn.Linear(3, 2).weight
        assert made.device.type == "cpu"
        assert not made.is_meta
        assert made.to("cpu") is made
    assert isinstance(made, Deferred)
    assert isinstance(made, nn.Parameter)
    assert recorder.layout(made).size == (2, 3)


def test_its_address_and_its_use_outside_are_refused():
    with Recorder(evaluate):
        made = torch.zeros(3)
        with pytest.raises(Unable, match="address"):
            made.data_ptr()
        with pytest.raises(Unable, match="memory"):
            made.untyped_storage()
    with pytest.raises(Unable, match="outside the model factory"):
        made + 1


def test_values_that_need_no_random_numbers_may_be_read():
    with Recorder(evaluate):
        steps = torch.arange(4.0) * 2
        steps[1:].add_(1)
        assert steps.tolist() == [0.0, 3.0, 5.0, 7.0]
        assert bool((steps > 4).any())
        assert steps[steps > 4].shape == (2,)
        with pytest.raises(Unable, match="random values"):
            torch.rand(3).sum().item()


def test_a_tensor_on_another_device_cannot_be_put_off():
    with Recorder(evaluate), pytest.raises(Unable, match="on meta"):
        torch.zeros(3, device="meta")
