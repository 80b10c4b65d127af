"""Calls that a probe times: each is what the runtime emits, of the types that it says."""

from __future__ import annotations

import pytest
import torch
from torch.fx import GraphModule

from weft.cost.fit import Call
from weft.cost.roofline import VIEW
from weft.program.operators import Kind, operator
from weft.runtime import probe_calls
from weft.runtime.probe_calls import CALLS, CALLS_AT_ONCE, call_run


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.op)
def test_a_call_makes_what_it_says(call: Call) -> None:
    made = call_run(call, torch.device("cpu"))()
    results = made if isinstance(made, tuple) else (made,)
    assert [tuple(tensor.shape) for tensor in results] == [t.shape for t in call.outputs]
    assert all(tensor.dtype is torch.float32 for tensor in results)


def test_a_product_is_called_as_a_segment_calls_it(monkeypatch) -> None:
    modules = []

    def kept(*arguments):
        modules.append(GraphModule(*arguments))
        return modules[-1]

    monkeypatch.setattr(probe_calls.fx, "GraphModule", kept)
    product = next(call for call in CALLS if call.op == "einsum")
    call_run(product, torch.device("cpu"))
    targets = [node.target for node in modules[0].graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.aten.mm.default) == CALLS_AT_ONCE
    # Reshapes and permutations around it are part of its cost.
    assert len(targets) >= 3 * CALLS_AT_ONCE


def test_all_kinds_of_views_are_timed() -> None:
    views = {call.op for call in CALLS if operator(call.op).kind is Kind.VIEW} | {"slice"}
    assert views == {"view", "permute", "expand", "slice"}
    assert VIEW in views
