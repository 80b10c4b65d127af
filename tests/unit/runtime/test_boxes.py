"""Tensors in factors as checkpoints hold them."""

from __future__ import annotations

import pytest
import torch

from weft.parallel.placement import REPLICATED, Mesh
from weft.program.builder import Builder
from weft.program.graph import Role
from weft.program.types import DType, TensorType
from weft.runtime.boxes import Boxes, storable
from weft.runtime.place import Place
from weft.runtime.shard import shard_of

F32 = DType.F32


def program():
    b = Builder("fused")
    fused = b.input("fused", Role.PARAMETER, TensorType(F32, (3, 4, 2)), shape=(12, 2))
    b.input("plain", Role.PARAMETER, TensorType(F32, (12, 2)))
    return b.build(b.add("sum", fused, (0, 1, 2), False))


def place(coordinate):
    return Place(
        mesh=Mesh((2, 2)), coordinate=coordinate, device=torch.device("cpu"), groups=("", "")
    )


@pytest.mark.parametrize("sharding", [(1, REPLICATED), (1, 1), (2, 1), (REPLICATED, REPLICATED)])
def test_the_boxes_of_all_ranks_are_the_models_tensor(sharding):
    whole = torch.arange(24.0).view(12, 2)
    found = torch.full_like(whole, -1.0)
    for coordinate in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = shard_of(whole.view(3, 4, 2), Mesh((2, 2)), sharding, coordinate)
        boxes = storable(part, program(), "fused", sharding, place(coordinate))
        assert isinstance(boxes, Boxes)
        assert boxes.shape == whole.shape
        for item in boxes.__create_write_items__("fused", boxes):
            assert item.tensor_data is not None
            assert item.tensor_data.size == whole.shape
            shard = boxes.__get_tensor_shard__(item.index)
            start, size = item.tensor_data.chunk.offsets, item.tensor_data.chunk.sizes
            found[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))] = shard
    assert torch.equal(found, whole)


def test_boxes_share_memory_with_the_part_even_where_it_is_not_in_order():
    part = torch.zeros(2, 4, 3).permute(2, 1, 0)
    boxes = storable(part, program(), "fused", (REPLICATED, REPLICATED), place((0, 0)))
    for chunk, item in zip(
        boxes.__create_chunk_list__(), boxes.__create_write_items__("fused", boxes), strict=True
    ):
        assert chunk == item.tensor_data.chunk
        boxes.__get_tensor_shard__(item.index).fill_(1.0)
    assert torch.equal(part, torch.ones(3, 4, 2))


def test_what_the_program_holds_as_the_model_does_is_stored_itself():
    part = torch.zeros(12, 2)
    assert storable(part, program(), "plain", (REPLICATED,) * 2, place((0, 0))) is part


def test_boxes_are_not_computed_with():
    boxes = storable(torch.zeros(3, 4, 2), program(), "fused", (REPLICATED,) * 2, place((0, 0)))
    with pytest.raises(NotImplementedError, match="only stored"):
        boxes + 1
