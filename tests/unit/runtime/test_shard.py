"""Parts of tensors: where they start, and that together they are the whole."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import Replicate, Shard

from weft.core.errors import InputError, VerifyError
from weft.parallel.placement import PARTIAL, REPLICATED, Mesh, divides
from weft.runtime.shard import dtensor_placements, shard_of, shard_offsets

MESHES = st.lists(st.sampled_from((1, 2, 3)), min_size=1, max_size=3).map(tuple).map(Mesh)


@st.composite
def layouts(draw):
    """A mesh, a sharding without pending reductions, and a shape that it divides."""
    mesh = draw(MESHES)
    rank = draw(st.integers(1, 3))
    placements = st.sampled_from((REPLICATED, *range(rank)))
    sharding = tuple(draw(placements) for _ in mesh.shape)
    shape = [draw(st.integers(1, 2)) for _ in range(rank)]
    for size, placement in zip(mesh.shape, sharding, strict=True):
        if placement >= 0:
            shape[placement] *= size
    return mesh, sharding, tuple(shape)


@given(layouts())
def test_parts_lie_at_their_offsets_and_cover_the_whole_equally_often(layout):
    mesh, sharding, shape = layout
    full = torch.arange(torch.Size(shape).numel()).reshape(shape)
    seen = torch.zeros(shape, dtype=torch.int64)
    for rank in range(mesh.num_devices):
        coordinate = mesh.coordinate(rank)
        part = shard_of(full, mesh, sharding, coordinate)
        starts = shard_offsets(mesh, sharding, coordinate, shape)
        where = tuple(slice(a, a + n) for a, n in zip(starts, part.shape, strict=True))
        assert torch.equal(full[where], part)
        seen[where] += 1
    replicas = mesh.num_devices * full.numel()
    for size, placement in zip(mesh.shape, sharding, strict=True):
        replicas //= size if placement >= 0 else 1
    assert seen.unique().numel() == 1
    assert int(seen.flatten()[0]) == replicas // full.numel()


def test_the_outer_axis_cuts_first():
    mesh, full = Mesh((2, 2)), torch.arange(8)
    parts = [shard_of(full, mesh, (0, 0), c).tolist() for c in itertools.product((0, 1), (0, 1))]
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_part_is_contiguous_and_does_not_keep_the_whole_alive():
    full = torch.zeros(4, 6)
    part = shard_of(full, Mesh((2,)), (1,), (1,))
    assert part.is_contiguous()
    assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


def test_a_replica_is_a_copy_so_that_changing_it_leaves_the_original():
    full = torch.zeros(3)
    shard_of(full, Mesh((2,)), (REPLICATED,), (0,)).add_(1)
    assert full.sum() == 0


def test_a_size_that_does_not_divide_is_named():
    assert not divides(Mesh((2,)), (0,), (5,))
    with pytest.raises(InputError, match=r"shape \[5\] as S0 on mesh 2"):
        shard_of(torch.zeros(5), Mesh((2,)), (0,), (0,))


def test_dtensor_placements_say_the_same_and_refuse_summands():
    assert dtensor_placements((1, REPLICATED)) == (Shard(1), Replicate())
    with pytest.raises(VerifyError, match="R,P"):
        dtensor_placements((REPLICATED, PARTIAL))
