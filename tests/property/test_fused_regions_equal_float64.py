"""Random regions, compiled, compute what their operators do in float64, but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.property.fused_case import Case, Given
from tests.property.fused_kernels import compiled, complaint, complaints, drawn, held
from tests.property.fused_reference import expected
from tests.property.fused_triton import interpreted
from weft.fusion import kernel
from weft.fusion.cost import Host
from weft.fusion.region import Region
from weft.program.builder import Builder
from weft.program.graph import Role
from weft.program.types import DType, TensorType

# Work as small as this is left to one thread, unless threads cost nothing.
HOSTS = {
    "as it is": Host(threads=2),
    "free threads": Host(threads=2, fork_ns=0.0, barrier_ns=1.0, vector_ns=20.0),
    "slow memory": Host(
        threads=2, fork_ns=0.0, barrier_ns=0.0, levels=((1e6, 0.1), (24e6, 0.05), (48e6, 0.05))
    ),
}
BATCHES, BATCH = 84, 25


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["as it is", "free threads"])
def test_regions_compute_what_float64_says(name, tmp_path):
    found = complaints(drawn(20, number=len(name)), HOSTS[name], tmp_path)
    assert not found, "\n\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(BATCHES))
def test_many_regions_compute_what_float64_says(number, tmp_path):
    host = list(HOSTS.values())[number % len(HOSTS)]
    found = complaints(drawn(BATCH, number=1000 + number), host, tmp_path)
    assert not found, "\n\n".join(found)


PROCESSORS = (132, 2)  # all programs at once, and few that do several blocks each


@pytest.mark.parametrize("processors", PROCESSORS)
def test_regions_on_gpus_compute_what_float64_says(processors):
    found = interpreted(25, 2000 + processors, processors)
    assert not found["wrong"], "\n\n".join(found["wrong"])
    assert found["computed"] >= 15


@pytest.mark.slow
@pytest.mark.parametrize("number", range(12))
def test_many_regions_on_gpus_compute_what_float64_says(number):
    found = interpreted(50, 3000 + number, PROCESSORS[number % 2])
    assert not found["wrong"], "\n\n".join(found["wrong"])
    # Constants stay outside, and powers that a product does not give.
    assert found["computed"] >= 30


def test_most_of_what_a_kernel_makes_is_held_to_a_few_digits():
    checked = whole = 0
    for case in drawn(60, number=7):
        if case.wild:
            continue
        arrays = [held(tensor) for tensor in case.tensors()]
        for own, error, sure in expected(case.region.program, arrays, case.region.outputs):
            with np.errstate(invalid="ignore"):
                close = (error <= 0.1 * np.abs(own)) | (error <= 0.05) | ~np.isfinite(own)
            checked += int(np.sum(sure & close))
            whole += own.size
    assert checked > 0.9 * whole


def softmax():
    builder = Builder("softmax")
    x = builder.input("in0", Role.BATCH, TensorType(DType.F32, (5, 33)))
    raised = builder.add("sub.Tensor", x, builder.add("amax", x, (1,), True))
    power = builder.add("exp.default", raised)
    out = builder.add("div.Tensor", power, builder.add("sum", power, (1,), True))
    region = Region(
        program=builder.build(out),
        outputs=(out,),
        input_strides=((33, 1),),
        output_strides=((33, 1),),
    )
    return Case(region=region, given=(Given(memory=0, offset=0),), seed=0, wild=False)


@pytest.mark.parametrize(
    "bend",
    [
        lambda x: x * 1.0001,
        lambda x: x.roll(1, 0),
        lambda x: torch.where(x == x.max(), torch.nan, x),
    ],
    ids=["too large", "in another place", "no number"],
)
def test_a_kernel_that_is_wrong_is_found(bend, tmp_path):
    case = softmax()
    (made,) = compiled([case], HOSTS["as it is"], tmp_path)
    assert complaint(case, made) == ""
    said = complaint(case, lambda tensors: [bend(tensor) for tensor in made(tensors)])
    assert "elements are wrong" in said


def test_a_case_that_is_wrong_is_made_small(monkeypatch, tmp_path):
    case = softmax()

    def lower(region):
        if any(node.op == "exp.default" for node in region.program.nodes):
            raise KeyError("exp.default")
        raise AssertionError("another mistake")

    monkeypatch.setattr(kernel, "lower", lower)
    (said,) = complaints([case], HOSTS["as it is"], tmp_path)
    assert said.startswith("KeyError") and said.count("\n%") == 2
