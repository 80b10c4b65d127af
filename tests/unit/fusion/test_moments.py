"""Variances of what no cache holds are made block by block, in one pass."""

import json

import pytest
import torch

from tests.unit.fusion.compared import assert_alike
from tests.unit.fusion.regions import region
from weft.fusion import backend, moments
from weft.fusion import lower as lowering
from weft.fusion.cost import Host
from weft.fusion.lower import lower
from weft.fusion.points import Kind
from weft.fusion.stitch import planned

CHANNELS = (1, 4, 1, 1)


def variance(of_mean=lambda add, total, n: add("mul.Scalar", total, 1 / n), square="mul.Tensor"):
    """A function that makes the sum of squared deviations of channels."""

    def made(add, x):
        total = add("sum", x, (0, 2, 3))
        mean = add("view", of_mean(add, total, 32 * 128 * 128), CHANNELS)
        left = add("sub.Tensor", x, mean)
        squares = add(square, left, left if square == "mul.Tensor" else 2)
        return add("sum", squares, (0, 2, 3))

    return made


def sums(points):
    """Of each sum, the sizes of the axes that it sums over."""
    return [
        [points.sizes[axis] for axis in point.over]
        for point in points.points
        if point.kind is Kind.REDUCE
    ]


def test_squared_deviations_of_a_large_channel_are_summed_in_blocks():
    points = lower(region(variance(), "f32[32,4,128,128]"))
    assert sorted(sums(points)) == [[32], [32], [128, 128], [128, 128]]


@pytest.mark.parametrize(
    "build",
    [
        variance(square="pow.Tensor_Scalar"),
        variance(lambda add, total, n: add("div.Scalar", total, n)),
        variance(lambda add, total, n: add("exp.default", total)),
    ],
    ids=["a power", "a quotient", "of no mean"],
)
def test_however_they_are_written(build):
    points = lower(region(build, "f32[32,4,128,128]"))
    assert len(sums(points)) == 4


def test_deviations_that_wait_for_no_sum_are_summed_as_they_are():
    def from_given(add, x, centre):
        left = add("sub.Tensor", x, add("view", centre, CHANNELS))
        return add("sum", add("mul.Tensor", left, left), (0, 2, 3))

    points = lower(region(from_given, "f32[32,4,128,128]", "f32[4]"))
    assert sums(points) == [[32, 128, 128]]


def test_channels_beside_one_another_are_a_part_of_a_block():
    def last(add, x):
        left = add("sub.Tensor", x, add("mul.Scalar", add("sum", x, (0, 1)), 1 / 8192))
        return add("sum", add("mul.Tensor", left, left), (0, 1))

    points = lower(region(last, "f32[64,128,256]"))
    assert sorted(sums(points)) == [[64], [64], [128], [128]]
    assert sums(lower(region(last, "f32[64,128,1024]"))) == [[64, 128], [64, 128]]


def test_all_is_read_in_one_pass():
    made = region(variance(), "f32[32,4,128,128]")
    plan = planned(made, lower(made), Host(threads=2))
    reads = [phase.num_bytes for phase in plan.phases if phase.num_bytes > 1e6]
    assert reads == pytest.approx([32 * 4 * 128 * 128 * 4], rel=1e-2)


def test_a_channel_that_a_cache_holds_is_read_twice():
    def small(add, x):
        mean = add("mul.Scalar", add("sum", x, (0, 2, 3)), 1 / (4 * 64))
        left = add("sub.Tensor", x, add("view", mean, CHANNELS))
        return add("sum", add("mul.Tensor", left, left), (0, 2, 3))

    assert len(sums(lower(region(small, "f32[4,4,8,8]")))) == 2


def test_one_axis_alone_is_not_split():
    def columns(add, x):
        mean = add("mul.Scalar", add("sum", x, (0,)), 1 / 4096)
        left = add("sub.Tensor", x, mean)
        return add("sum", add("mul.Tensor", left, left), (0,))

    assert sums(lower(region(columns, "f32[4096,512]"))) == [[4096], [4096]]


@pytest.fixture
def tiny_blocks(monkeypatch, apart):
    tiny = moments.Blocks(held_bytes=256, block_bytes=128)
    monkeypatch.setattr(lowering, "in_blocks", lambda points, _: moments.in_blocks(points, tiny))
    monkeypatch.setattr(backend, "_kernels", {})


def tasks_of_phases(kernel):
    """Phases of a kernel's plan, and tasks of each."""
    return [len(phase["tasks"]) for phase in json.loads(kernel.description.plan)["phases"]]


def normalised(x, weight, bias):
    return torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True)


@pytest.mark.parametrize(
    "shape", [(3, 5, 7, 4), (6, 1, 3, 9), (4, 16, 5, 5), (12, 3, 8), (9, 2, 1, 31)]
)
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.usefixtures("tiny_blocks")
def test_a_normalised_batch_is_as_in_double_precision(shape, offset, calls):
    x = torch.randn(shape) + offset
    weight, bias = torch.randn(shape[1]), torch.randn(shape[1])
    got = torch.compile(normalised, backend="weft")(x, weight, bias)
    wanted = normalised(x.double(), weight.double(), bias.double()).float()
    assert_alike(got, wanted, rtol=1e-4, atol=2e-4 if offset else 1e-5)
    (kernel,) = calls
    assert sum(tasks_of_phases(kernel)) == 5, "four sums, and what is stored"


@pytest.mark.usefixtures("tiny_blocks")
def test_its_gradients_too():
    given = [torch.randn(6, 3, 5, 4), torch.randn(3), torch.randn(3)]
    for tensor in given:
        tensor.requires_grad_()
    got = torch.autograd.grad(
        torch.compile(normalised, backend="weft")(*given).square().sum(), given
    )
    double = [tensor.double() for tensor in given]
    wanted = torch.autograd.grad(normalised(*double).square().sum(), given)
    assert_alike(got, wanted, rtol=1e-4, atol=1e-4)
