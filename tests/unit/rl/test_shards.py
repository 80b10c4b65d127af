"""Who holds what of a model, on processes that only seem to be there."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from weft.core.errors import InputError
from weft.rl.shards import collect, count_groups, find_device, find_group, local


@pytest.fixture
def mesh():
    """The first of eight processes on a mesh of three axes."""
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    yield init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=("a", "b", "c"))
    dist.destroy_process_group()


def placed(mesh, *placements):
    """A parameter of which this process holds two elements."""
    value = DTensor.from_local(torch.ones(2), mesh, placements, run_check=False)
    parameter = nn.Parameter(value)
    parameter.grad = value.detach().clone()
    return parameter


def copies(parameters, size):
    return [shard.copies for shard in collect([{"params": parameters}], size=size)]


def test_copies_are_processes_over_parts(mesh):
    everywhere, nowhere = [Replicate()] * 3, [Shard(0)] * 3
    mixed = [Replicate(), Shard(0), Replicate()]
    whole = nn.Parameter(torch.ones(2))
    whole.grad = torch.ones(2)
    parameters = [placed(mesh, *everywhere), placed(mesh, *nowhere), placed(mesh, *mixed), whole]
    assert copies(parameters, 8) == [8, 1, 4, 8]
    # Sharded over one axis, and whole for each process along the others.
    assert copies([placed(mesh["b"], Shard(0))], 8) == [4]


def test_the_processes_are_those_of_the_largest_mesh(mesh):
    whole = nn.Parameter(torch.ones(2))
    small, large = placed(mesh["b"], Shard(0)), placed(mesh, *[Shard(0)] * 3)
    assert find_group([whole]) is None
    assert dist.get_world_size(find_group([whole, small])) == 2
    assert find_group([small, whole, large]) is dist.group.WORLD
    assert find_device([whole, small]) == torch.device("cpu")


def test_a_mesh_that_is_neither_one_line_nor_everything_needs_a_group(mesh):
    with pytest.raises(InputError, match="holds the whole model") as caught:
        find_group([placed(mesh["a", "b"], Shard(0), Shard(0))])
    assert "(2, 2)" in caught.value.got and "8 processes" in caught.value.got
    assert "group=" in caught.value.hint


def test_gradients_that_are_still_partial_sums_are_refused(mesh):
    parameter = placed(mesh["b"], Replicate())
    parameter.grad = DTensor.from_local(torch.ones(2), mesh["b"], [Partial()], run_check=False)
    with pytest.raises(InputError, match="summed over processes") as caught:
        collect([{"params": [parameter]}], size=2)
    assert "(2,)" in caught.value.got and "redistribute" in caught.value.hint


def test_local_parts_share_memory(mesh):
    parameter = placed(mesh, *[Shard(0)] * 3)
    shard = collect([{"params": [parameter]}], size=8)[0]
    shard.gradient.fill_(3.0)
    assert parameter.grad.to_local().tolist() == [3.0, 3.0]
    local(parameter).fill_(2.0)
    assert parameter.detach().to_local().tolist() == [2.0, 2.0]


def test_groups_are_counted_with_parameters_that_have_no_gradient():
    one, other, third = (nn.Parameter(torch.ones(2)) for _ in range(3))
    one.grad, third.grad = torch.ones(2), torch.ones(2)
    groups = [{"params": [one, other]}, {"params": [third]}]
    for per, count, places in (
        ("model", 1, [0, 0]),
        ("group", 2, [0, 1]),
        ("parameter", 3, [0, 2]),
    ):
        assert count_groups(groups, per) == count
        assert [shard.group for shard in collect(groups, per=per)] == places
