"""What one rank sends to and takes up from ranks of other stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from weft.capture.dtypes import to_torch_dtype
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.stages import Parcel, StageProgram
from weft.parallel.pipeline.transfer import Piece, pieces
from weft.parallel.placement import Sharding
from weft.parallel.recompute import with_recompute
from weft.program.types import TensorType

__all__ = ["Box", "Post"]


@dataclass
class Box:
    """A tensor that is on its way here.

    Attributes:
        parts: what each sender sends, with its place in the whole.
        tensor: where the parts go; the part itself if there is one only.
    """

    parts: list[tuple[Piece, Tensor]]
    tensor: Tensor

    def opened(self) -> Tensor:
        """The tensor, once everything has arrived."""
        for piece, part in self.parts:
            if part is not self.tensor:
                self.tensor[_slices(piece.put)].copy_(part)
        return self.tensor


class Post:
    """Sends and takes up parcels for one rank.

    Args:
        plan: which groups have which stages.
        stages: the stages' programs.
        rank: this rank in the world.
        device: where its tensors lie.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        stages: tuple[StageProgram, ...],
        rank: int,
        device: torch.device,
    ) -> None:
        self._plan = plan
        self._stages = stages
        self._device = device
        self._each = plan.mesh.num_devices
        self._own = rank % self._each
        self._known: dict[str, tuple[Piece, ...]] = {}
        self._shardings = _shardings(plan, stages)

    def sends(self, parcel: Parcel, tensor: Tensor, micro_batch: int) -> list[dist.P2POp]:
        """Operations that send this rank's share of a parcel."""
        return [
            dist.P2POp(
                dist.isend,
                tensor[_slices(piece.taken)].contiguous() if tensor.dim() else tensor,
                self._rank(parcel.target, piece.target),
                tag=self._tag(parcel, micro_batch),
            )
            for piece in self._pieces(parcel)
            if piece.source == self._own
        ]

    def receives(self, parcel: Parcel, micro_batch: int) -> tuple[list[dist.P2POp], Box]:
        """Operations that take this rank's share of a parcel up, and where it will be."""
        whole = self._type(parcel)
        own = [piece for piece in self._pieces(parcel) if piece.target == self._own]
        dtype = to_torch_dtype(whole.dtype)
        parts = [
            (piece, torch.empty(_extent(piece), dtype=dtype, device=self._device)) for piece in own
        ]
        if len(parts) == 1:
            tensor = parts[0][1]
        else:
            shape = [max(piece.put[d][1] for piece in own) for d in range(len(whole.shape))]
            tensor = torch.empty(shape, dtype=dtype, device=self._device)
        operations = [
            dist.P2POp(
                dist.irecv,
                part,
                self._rank(parcel.source, piece.source),
                tag=self._tag(parcel, micro_batch),
            )
            for piece, part in parts
        ]
        return operations, Box(parts, tensor)

    def stays(self, parcel: Parcel) -> bool:
        """True if both stages are on this group of devices."""
        groups = self._plan.num_groups
        return parcel.source % groups == parcel.target % groups

    def _rank(self, stage: int, device: int) -> int:
        return stage % self._plan.num_groups * self._each + device

    def _tag(self, parcel: Parcel, micro_batch: int) -> int:
        return parcel.number * (self._plan.micro_batches + 1) + micro_batch + 1

    def _type(self, parcel: Parcel) -> TensorType:
        program = self._stages[parcel.target].program
        return program.nodes[program.input_by_name[parcel.name].node].outputs[0]

    def _pieces(self, parcel: Parcel) -> tuple[Piece, ...]:
        if parcel.name not in self._known:
            held, wanted = self._shardings[parcel.name]
            source, target = self._plan.plans[parcel.source], self._plan.plans[parcel.target]
            shape = self._type(parcel).shape
            self._known[parcel.name] = pieces(shape, (source.mesh, held), (target.mesh, wanted))
        return self._known[parcel.name]


def _shardings(
    plan: PipelinePlan, stages: tuple[StageProgram, ...]
) -> Mapping[str, tuple[Sharding, Sharding]]:
    """Of each parcel, how it lies where it is sent and where it is taken up."""
    held: dict[str, Sharding] = {}
    wanted: dict[str, Sharding] = {}
    for stage, decided in zip(stages, plan.plans, strict=True):
        program = with_recompute(stage.program, decided.recompute)
        for number, node in enumerate(program.nodes):
            if node.op == "send":
                held[str(node.args[1])] = decided.strategies[number].outputs[0]
        for parcel in stage.receives:
            node = program.input_by_name[parcel.name].node
            wanted[parcel.name] = decided.strategies[node].outputs[0]
    return {name: (held[name], wanted[name]) for name in wanted}


def _extent(piece: Piece) -> list[int]:
    return [end - start for start, end in piece.box]


def _slices(box: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in box)
