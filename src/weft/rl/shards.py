"""The part of each gradient that this process holds, and how many processes hold a copy of it.

Inner products over a sharded model are sums over processes. A gradient that several of them hold
would be counted as often, so each counts it by one over the number of copies: every process does
the same work, whichever holds what, and copies that differ in their last bits are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from weft.core.errors import InputError

__all__ = [
    "Batch",
    "Per",
    "Shard",
    "all_working",
    "batches",
    "collect",
    "count_groups",
    "find_device",
    "find_group",
    "local",
    "working",
    "write_back",
]

Per = Literal["model", "group", "parameter"]
"""What gets a decision of its own: the model as a whole, each parameter group, each parameter."""

CPU_PIECE = 1 << 18
"""Elements that are worked on at a time on a CPU: what is read twice then comes from a cache.
Derived: gradient, reference and what is made of them take 4 MB in float32."""

Key = tuple[Any, ...]

DEVICE_PIECE = 1 << 26
"""The same on other devices: it bounds temporary memory to a few hundred MB. Derived: 4 B each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """A gradient, as far as it is here.

    Attributes:
        parameter: whose gradient it is.
        gradient: the local part, which is changed in place.
        copies: how many processes of the group hold this part.
        group: index of the decision that it falls under.
    """

    parameter: Tensor
    gradient: Tensor
    copies: int
    group: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Pieces of gradients that are worked on together; all fall under one decision.

    Attributes:
        gradients: the pieces, views of gradients; of one type and in one place.
        references: for each reference, its pieces in the same order, likewise.
        group: index of the decision.
        copies: how many processes hold these pieces.
    """

    gradients: list[Tensor]
    references: tuple[list[Tensor], ...]
    group: int
    copies: int


def collect(
    param_groups: Sequence[Mapping[str, Any]],
    *,
    per: Per = "model",
    size: int = 1,
    copies: Callable[[Tensor], int] | None = None,
) -> list[Shard]:
    """The gradients of all parameters that have one.

    Args:
        param_groups: an optimizer's.
        per: what gets a decision of its own.
        size: processes in the group.
        copies: how many of them hold the same part of a parameter; found from its placements, if
            left out, a tensor without placements being held by all.

    Raises:
        InputError: a gradient is sparse, or is a sum that has yet to be made.
    """
    found: list[Shard] = []
    index, place = -1, 0
    for number, group in enumerate(param_groups):
        for parameter in group["params"]:
            index += 1
            gradient = parameter.grad
            if gradient is None:
                continue
            _check(gradient)
            held = size // _parts(gradient) if copies is None else copies(parameter)
            if per != "model":
                place = number if per == "group" else index
            found.append(
                Shard(
                    parameter=parameter,
                    gradient=local(gradient),
                    copies=max(held, 1),
                    group=place,
                )
            )
    return found


def count_groups(param_groups: Sequence[Mapping[str, Any]], per: Per) -> int:
    """How many decisions there are."""
    if per == "model":
        return 1
    if per == "group":
        return len(param_groups)
    return sum(len(group["params"]) for group in param_groups)


def find_group(parameters: Sequence[Tensor]) -> dist.ProcessGroup | None:
    """The processes that hold a model: those of its largest mesh; None if it has no mesh.

    Raises:
        InputError: the mesh has several axes and does not span all processes.
    """
    meshes = [p.device_mesh for p in parameters if isinstance(p, DTensor)]
    if not meshes:
        return None
    largest = max(meshes, key=lambda mesh: mesh.size())
    if largest.ndim == 1:
        return largest.get_group()
    if largest.size() == dist.get_world_size():
        return dist.group.WORLD
    raise InputError(
        need="a process group that holds the whole model",
        got=f"parameters on a mesh of shape {tuple(largest.shape)}, and"
        f" {dist.get_world_size()} processes",
        hint="group=mesh._flatten().get_group() of the mesh that the model is on",
    )


def find_device(parameters: Sequence[Tensor]) -> torch.device:
    """Where processes exchange numbers: the device of the mesh, even if weights are offloaded."""
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            return torch.device(parameter.device_mesh.device_type)
    return parameters[0].device


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; it shares the tensor's memory."""
    if not isinstance(tensor, DTensor):
        return tensor.detach() if tensor.requires_grad else tensor
    part = cast("DTensor", tensor.detach()).to_local()
    # A reduction may still be under way.
    return part.wait() if hasattr(part, "wait") else part  # pyright: ignore[reportAttributeAccessIssue]


def working(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor where `like` is, in the precision for arithmetic on it; itself, where it is so."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return tensor.to(device=like.device, dtype=dtype)


def all_working(tensors: list[Tensor], like: Tensor) -> list[Tensor]:
    """The same of the pieces of a batch, which are all of one type and in one place."""
    first = tensors[0]
    return tensors if working(first, like) is first else [working(own, like) for own in tensors]


def write_back(worked: Sequence[Tensor], stored: Sequence[Tensor]) -> None:
    """Copy back what was worked on in another precision or place."""
    if worked is stored:
        return
    for own, other in zip(worked, stored, strict=True):
        if own is not other:
            other.copy_(own)


def batches(
    shards: Iterable[Shard], references: Callable[[Shard], Sequence[Tensor]]
) -> Iterator[Batch]:
    """Gradients and what they are compared with, cut and collected into batches.

    Large tensors are cut and small ones put together, so that intermediate results stay in a
    cache, and calls are few.
    """
    key: Key = (0, 1)
    size = 0
    gradients: list[Tensor] = []
    others: list[list[Tensor]] = []
    for shard in shards:
        own = references(shard)
        kinds = tuple((part.device, part.dtype) for part in (shard.gradient, *own))
        found = (shard.group, shard.copies, kinds)
        limit = CPU_PIECE if shard.gradient.device.type == "cpu" else DEVICE_PIECE
        for piece in _pieces((shard.gradient, *own), limit):
            if gradients and (found != key or size + piece[0].numel() > limit):
                yield _batch(key, gradients, others)
                gradients, others, size = [], [], 0
            key, size = found, size + piece[0].numel()
            gradients.append(piece[0])
            others.append(list(piece[1:]))
    if gradients:
        yield _batch(key, gradients, others)


def _batch(key: Key, gradients: list[Tensor], others: list[list[Tensor]]) -> Batch:
    references = tuple(list(column) for column in zip(*others, strict=True))
    return Batch(gradients=gradients, references=references, group=key[0], copies=key[1])


def _pieces(tensors: Sequence[Tensor], limit: int) -> Iterator[Sequence[Tensor]]:
    """Views of tensors of one shape, each of at most about `limit` elements."""
    first = tensors[0]
    if first.numel() <= limit:
        return iter((tensors,))
    if all(tensor.is_contiguous() for tensor in tensors):
        tensors = [tensor.view(-1) for tensor in tensors]
    # What is not contiguous is cut along its first dimension.
    rows = max(limit * tensors[0].shape[0] // first.numel(), 1)
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _parts(gradient: Tensor) -> int:
    """Into how many different parts a tensor is split."""
    if not isinstance(gradient, DTensor):
        return 1
    mesh, parts = gradient.device_mesh, 1
    for axis, placement in enumerate(gradient.placements):
        if not isinstance(placement, Replicate):
            parts *= mesh.size(axis)
    return parts


def _check(gradient: Tensor) -> None:
    if gradient.layout is not torch.strided:
        raise InputError(
            need="dense gradients",
            got=f"one of shape {tuple(gradient.shape)} with layout {gradient.layout}",
            hint="sparse=False in the embedding that it belongs to",
        )
    if isinstance(gradient, DTensor) and any(p.is_partial() for p in gradient.placements):
        raise InputError(
            need="gradients that are summed over processes before the step",
            got=f"one of shape {tuple(gradient.shape)} placed {gradient.placements}",
            hint="gradient.redistribute(placements=...) to the placements of its parameter",
        )
