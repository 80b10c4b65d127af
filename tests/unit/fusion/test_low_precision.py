"""In 16 bits kernels are as near to float64 as Inductor's are, forward and backward."""

from __future__ import annotations

import pytest
import torch

from benchmarks.fusion import cases
from benchmarks.fusion.cases import GRAPHS, tensors
from weft.fusion.worth import Worth

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # what Dynamo and Inductor warn of themselves
    pytest.mark.usefixtures("apart"),
]

SLACK = 1.5
"""Errors over Inductor's: where to round, and in which order to add, is free."""
LEAST = {torch.bfloat16: 2e-4, torch.float16: 3e-5}
"""Errors that are none: a tenth of what rounding the result alone takes."""
QUICK = ("res_ln_gelu_drop", "swiglu_fb", "cross_entropy_fb", "softmax_outer")

GRADIENTS = ("rmsnorm_fb", "ln_bwd", "swiglu_fb", "cross_entropy_fb", "attn_softmax_drop_bwd")
"""Graphs that hold a backward pass; no other one is made of them."""


def small(graph, dtype):
    """The graph's inputs, with few rows, in a type."""
    torch.manual_seed(0)
    return [v.to(dtype) if v.is_floating_point() else v for v in graph.inputs("S")]


def all_of(compute, values, differentiable):
    """Results, and gradients of what has some."""
    values = [v.detach().clone() for v in values]
    wanted = [values[n].requires_grad_() for n in differentiable]
    made = tensors(compute(*values))
    ends = [one for one in made if one.requires_grad]
    weights = [torch.linspace(-1.0, 2.0, e.numel()).view(e.shape).to(e.dtype) for e in ends]
    grads = torch.autograd.grad(ends, wanted, weights, allow_unused=True) if ends else ()
    return [*(one.detach() for one in made), *(g for g in grads if g is not None)]


def error(found, exact):
    """Root of the mean square error, over that of the values."""
    exact = exact.double()
    return float((found.double() - exact).norm() / exact.norm().clamp(min=1e-30))


def check(name, dtype, calls, monkeypatch):
    monkeypatch.setitem(cases.ROWS, "S", 32)
    graph = GRAPHS[name]
    values = small(graph, dtype)
    again = name not in GRADIENTS
    backward = [n for n, v in enumerate(values) if v.is_floating_point() and again]
    exact = all_of(
        graph.compute, [v.double() if v.is_floating_point() else v for v in values], backward
    )
    monkeypatch.setattr(Worth, "loss", "")  # however small, and whatever the host
    monkeypatch.setattr(Worth, "likeness", "")
    found = {}
    for backend, options in (("weft", {"strict": True}), ("inductor", {})):
        torch._dynamo.reset()
        compute = torch.compile(graph.compute, backend=backend, dynamic=False, options=options)
        found[backend] = all_of(compute, values, backward)
    assert calls
    for ours, theirs, wanted in zip(found["weft"], found["inductor"], exact, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert error(ours, wanted) <= SLACK * error(theirs, wanted) + LEAST[dtype], ours.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", QUICK)
def test_results_and_gradients_are_as_accurate_as_inductors(name, dtype, calls, monkeypatch):
    check(name, dtype, calls, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in QUICK])
def test_so_are_those_of_all_other_graphs(name, dtype, calls, monkeypatch):
    check(name, dtype, calls, monkeypatch)
