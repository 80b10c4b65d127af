"""Waits for collectives in a module are counted, and nothing else is."""

from __future__ import annotations

import torch
from torch import fx, nn

from weft.runtime.clock import Clock

WAIT = torch.ops._c10d_functional.wait_tensor.default


def module(waits):
    graph = fx.Graph()
    value = graph.placeholder("value")
    for _ in range(waits):
        value = graph.call_function(WAIT, (value,))
    graph.output(graph.call_function(torch.ops.aten.neg.default, (value,)))
    return fx.GraphModule(nn.Module(), graph)


def test_waits_are_counted_and_give_what_they_waited_for():
    clock, watched = Clock(), module(2)
    clock.watch(watched)
    assert clock.waited_s == 0.0
    assert torch.equal(watched(torch.ones(3)), -torch.ones(3))
    assert clock.waited_s > 0.0


def test_a_module_without_waits_is_left_alone():
    clock, watched = Clock(), module(0)
    clock.watch(watched)
    watched(torch.ones(3))
    assert clock.waited_s == 0.0
