"""Which part of a tensor a rank holds, and DTensor's names for placements.

Parts are contiguous: even ones, or of the proportions that the mesh gives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import Replicate, Shard

from weft.core.errors import InputError, VerifyError
from weft.parallel.placement import (
    Mesh,
    Sharding,
    divides,
    format_sharding,
    is_partial,
    part_box,
)

__all__ = ["alone_in_storage", "dtensor_placements", "shard_of", "shard_offsets"]


def shard_offsets(
    mesh: Mesh, sharding: Sharding, coordinate: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Index in the whole tensor of a part's first element.

    Args:
        mesh: the device grid.
        sharding: one placement for each axis.
        coordinate: where the rank stands on each axis.
        shape: shape of the whole tensor.

    Returns:
        One offset for each dim; 0 for a dim that no axis cuts.

    Example:
        >>> shard_offsets(Mesh((2, 2)), (0, 0), (1, 0), (8, 3))
        (4, 0)
    """
    return tuple(start for start, _ in part_box(mesh, sharding, coordinate, shape))


def shard_of(full: Tensor, mesh: Mesh, sharding: Sharding, coordinate: tuple[int, ...]) -> Tensor:
    """One rank's part of a whole tensor, contiguous and with memory of its own.

    Raises:
        InputError: a cut dim is not a multiple of the number of its parts.

    Example:
        >>> shard_of(torch.arange(8), Mesh((4,)), (0,), (2,))
        tensor([4, 5])
    """
    shape = tuple(full.shape)
    if not divides(mesh, sharding, shape):
        raise InputError(
            need="cut dims that are multiples of the devices along their axes",
            got=f"shape {list(shape)} as {format_sharding(sharding)} on mesh {mesh}",
            hint="choose a batch or a model size that divides, or plan for another mesh",
        )
    part = full
    for dim, (start, end) in enumerate(part_box(mesh, sharding, coordinate, shape)):
        if end - start < shape[dim]:
            part = part.narrow(dim, start, end - start)
    return part.clone(memory_format=torch.contiguous_format)


def dtensor_placements(sharding: Sharding) -> tuple[Replicate | Shard, ...]:
    """DTensor's placements of a sharding without pending reductions.

    Raises:
        VerifyError: the sharding holds a pending reduction; nothing that lasts may.
    """
    if any(is_partial(p) for p in sharding):
        raise VerifyError(
            need="a state that is whole or cut on every axis",
            got=format_sharding(sharding),
            hint="the plan is damaged; plan again",
        )
    return tuple(Shard(p) if p >= 0 else Replicate() for p in sharding)


def alone_in_storage(tensor: Tensor) -> Tensor:
    """The tensor, copied if it is a small part of a larger storage that it would keep alive."""
    if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor
