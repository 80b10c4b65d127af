"""Tracing makes no memory, keeps order, and lets buffers change."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tests.unit.capture import models
from tests.unit.capture.harness import assert_same_step
from weft.capture import SGD, Workload, capture
from weft.capture.trace import first_batch, make_model, trace
from weft.core.errors import CaptureError
from weft.program.graph import Phase, Value


def workload_of(model, **changes):
    fields = {
        "name": "traced",
        "model": model,
        "loss": models.classify,
        "batch": models.features,
        "optimizer": SGD(lr=0.1),
    }
    return Workload(**(fields | changes))


def test_a_model_is_made_without_memory():
    model = make_model(workload_of(lambda: nn.Linear(10**6, 10**6)))
    assert model.weight.is_meta


def test_a_factory_may_look_at_small_tensors(caplog):
    def factory():
        widths = [int(w) for w in torch.linspace(6, 5, 2)]
        return nn.Linear(*widths).double()

    with caplog.at_level(logging.INFO, logger="weft.capture"):
        assert_same_step(workload_of(factory))
    assert "small tensors are made for real" in caplog.text


def test_a_factory_that_looks_at_large_tensors_is_refused():
    with pytest.raises(CaptureError, match="large tensors"):
        make_model(workload_of(lambda: nn.Linear(int(torch.ones(10**6).sum()), 2)))


def test_the_default_device_makes_no_difference():
    workload = models.decoder()
    usual = capture(workload)
    torch.set_default_device("meta")
    try:
        elsewhere = capture(workload)
    finally:
        torch.set_default_device(None)
    assert elsewhere == usual


def test_phases_follow_each_other():
    workload = models.mlp()
    phases = [
        call.position.phase
        for call in trace(workload, make_model(workload), first_batch(workload)).calls
    ]
    order = [Phase.FORWARD, Phase.BACKWARD, Phase.UPDATE]
    assert phases == sorted(phases, key=order.index) and set(phases) == set(order)


def test_a_forward_only_trace_stops_at_the_loss():
    workload = models.mlp()
    whole = trace(workload, make_model(workload), first_batch(workload))
    part = trace(workload, make_model(workload), first_batch(workload), forward_only=True)
    assert {call.position.phase for call in part.calls} == {Phase.FORWARD}
    assert [c.op for c in part.calls] == [c.op for c in whole.calls[: len(part.calls)]]
    assert part.loss == whole.loss


def test_arguments_refer_to_inputs_and_earlier_calls():
    workload = models.mlp()
    found = trace(workload, make_model(workload), first_batch(workload))
    for number, call in enumerate(found.calls, start=len(found.inputs)):
        assert all(a.node < number for a in call.args if isinstance(a, Value))


def test_tracing_leaves_the_module_and_its_hooks_as_they_were():
    workload = models.mlp()
    model = make_model(workload)
    before = dict(model.named_parameters())
    trace(workload, model, first_batch(workload))
    assert all(before[name] is p for name, p in model.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Counter(nn.Module):
    """A buffer changed in place, one assigned, and a plain attribute that is only read."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 5)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.scale = torch.arange(6.0, dtype=torch.float64)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        self.calls += 1
        return self.linear(x * self.scale - self.mean)


def test_buffers_that_a_forward_changes_become_updates():
    workload = workload_of(lambda: Counter().double())
    assert_same_step(workload)
    program = capture(workload)
    changed = {program.input_by_node[node].name for node, _ in program.updates}
    assert {"mean", "calls"} <= changed and "scale" not in changed


def test_a_buffer_that_changes_its_type_is_refused():
    class Shrinking(Counter):
        def forward(self, x):
            self.mean = x.mean()
            return self.linear(x)

    with pytest.raises(CaptureError, match=r"mean goes from f64\[6\] to f64\[\]"):
        capture(workload_of(lambda: Shrinking().double()))
