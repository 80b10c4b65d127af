"""Tensors in factors as checkpoints hold them: in the model's own shape, as several boxes.

A DTensor is one box to a checkpoint. A part of every block of a fused dim is one box for each
block, so it is written and read as so many. What wrote a checkpoint is thus not seen in it, and
any plan reads it. Uses the protocol by which torch lets a tensor say what it consists of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor

from weft.parallel.placement import Sharding, part_box
from weft.program.factors import Box, factored_dims, model_boxes
from weft.program.graph import Program
from weft.runtime.place import Place

__all__ = ["Boxes", "storable"]


def storable(
    tensor: Tensor, program: Program, name: str, sharding: Sharding, place: Place
) -> Tensor:
    """A tensor of a step's state with the shape that the model gives it, and the same memory.

    Args:
        tensor: this rank's part of it, as a DTensor, as boxes, or alone, in the shape that the
            program holds.
        program: whose state it is.
        name: of the input.
        sharding: how it is cut.
        place: where this rank stands.

    Returns:
        The tensor itself if the program holds it in the model's shape, else `Boxes`.
    """
    source = program.input_by_name[name]
    if source.shape is None:
        return tensor
    part = tensor
    if isinstance(tensor, DTensor):
        part = tensor.to_local()
    elif isinstance(tensor, Boxes):
        part = tensor.part
    held = program.nodes[source.node].outputs[0].shape
    box = part_box(place.mesh, sharding, place.coordinate, held)
    shards: dict[torch.Size, Tensor] = {}
    for of_held, of_model in model_boxes(box, held, source.shape):
        shard = _taken(part, [start for start, _ in box], of_held, held, source.shape)
        shards[torch.Size(start for start, _ in of_model)] = shard
    return Boxes(part, source.shape, shards)


def _taken(
    part: Tensor, first: Sequence[int], box: Box, held: Sequence[int], model: Sequence[int]
) -> Tensor:
    """A box of the held tensor out of the part that begins at `first`, with the model's dims."""
    for dim, (start, end) in enumerate(box):
        part = part.narrow(dim, start - first[dim], end - start)
    groups = factored_dims(tuple(held), tuple(model))
    assert groups is not None, "the program was verified"
    for dim in reversed([dim for group in groups for dim in group[:-1]]):
        part = part.squeeze(dim)
    return part


class Boxes(Tensor):
    """Boxes of a tensor, in memory that is not theirs; made to be stored, not to compute with."""

    part: Tensor
    """This rank's part, in the shape in which it was given."""
    _shards: Mapping[torch.Size, Tensor]

    @staticmethod
    def __new__(
        cls: type[Boxes], part: Tensor, shape: Sequence[int], shards: Mapping[torch.Size, Tensor]
    ) -> Boxes:
        """Boxes of a tensor of a shape, by where they begin in it."""
        made = Tensor._make_wrapper_subclass(
            cls, torch.Size(shape), dtype=part.dtype, device=part.device
        )
        boxes = cast("Boxes", made)
        boxes.part = part
        boxes._shards = shards
        return boxes

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        raise NotImplementedError(f"{func} on a tensor that is only stored")

    def __create_write_items__(self, fqn: str, whole: Tensor) -> list[WriteItem]:
        return [
            WriteItem(
                index=MetadataIndex(fqn, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=chunk,
                    properties=TensorProperties.create_from_tensor(self._shards[chunk.offsets]),
                    size=whole.size(),
                ),
            )
            for chunk in self.__create_chunk_list__()
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [
            ChunkStorageMetadata(offsets=offset, sizes=shard.size())
            for offset, shard in self._shards.items()
        ]

    def __get_tensor_shard__(self, index: MetadataIndex) -> Tensor:
        assert index.offset is not None, "every box has an offset"
        return self._shards[index.offset]
