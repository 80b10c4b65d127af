"""What one rank sends to and takes up from ranks of other stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from weft.capture.dtypes import to_torch_dtype
from weft.parallel.pipeline.crossing import layouts, parcel_type
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.stages import Parcel
from weft.parallel.transfer import Piece, pieces

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
        staged: the program, cut into stages.
        rank: this rank in the world.
        device: where its tensors lie.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        staged: StagedProgram,
        rank: int,
        device: torch.device,
    ) -> None:
        self._plan = plan
        self._stages = staged.stages
        self._device = device
        self._group = plan.group_of(rank)
        self._own = rank - plan.ranks_of(self._group).start
        self._known: dict[str, tuple[Piece, ...]] = {}
        self._layouts = layouts(staged, plan.plans)

    def sends(self, parcel: Parcel, tensor: Tensor, micro_batch: int) -> list[dist.P2POp]:
        """Operations that send this rank's share of a parcel to other ranks."""
        return [
            dist.P2POp(
                dist.isend,
                _taken(piece, tensor).contiguous(),
                self._rank(parcel.target, piece.target),
                tag=self._tag(parcel, micro_batch),
            )
            for piece in self._pieces(parcel)
            if piece.source == self._own and not self._is_here(parcel, piece)
        ]

    def receives(
        self, parcel: Parcel, micro_batch: int, held: Tensor | None = None
    ) -> tuple[list[dist.P2POp], Box]:
        """Operations that take this rank's share of a parcel up, and where it will be.

        Args:
            parcel: what is sent.
            micro_batch: of which micro-batch.
            held: this rank's part of it, where the sending stage is of the same group.
        """
        whole = parcel_type(parcel, self._stages)
        own = [piece for piece in self._pieces(parcel) if piece.target == self._own]
        dtype = to_torch_dtype(whole.dtype)

        def room(piece: Piece) -> Tensor:
            if held is not None and piece.source == self._own:
                return _taken(piece, held)
            return torch.empty(_extent(piece), dtype=dtype, device=self._device)

        parts = [(piece, room(piece)) for piece in own]
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
            if not self._is_here(parcel, piece)
        ]
        return operations, Box(parts, tensor)

    def stays(self, parcel: Parcel) -> bool:
        """True if both stages are on this group of devices."""
        groups = self._plan.num_groups
        return parcel.source % groups == parcel.target % groups

    def _is_here(self, parcel: Parcel, piece: Piece) -> bool:
        """True if a rank has a piece itself that it is to take up."""
        return self.stays(parcel) and piece.source == piece.target

    def _rank(self, stage: int, device: int) -> int:
        return self._plan.ranks_of(stage % self._plan.num_groups)[device]

    def _tag(self, parcel: Parcel, micro_batch: int) -> int:
        return parcel.number * (self._plan.micro_batches + 1) + micro_batch + 1

    def _pieces(self, parcel: Parcel) -> tuple[Piece, ...]:
        if parcel.name not in self._known:
            held, wanted = self._layouts[parcel.name]
            source, target = self._plan.plans[parcel.source], self._plan.plans[parcel.target]
            shape = parcel_type(parcel, self._stages).shape
            self._known[parcel.name] = pieces(shape, (source.mesh, held), (target.mesh, wanted))
        return self._known[parcel.name]


def _taken(piece: Piece, tensor: Tensor) -> Tensor:
    """The part of a tensor that a piece takes of it."""
    return tensor[_slices(piece.taken)] if tensor.dim() else tensor


def _extent(piece: Piece) -> list[int]:
    return [end - start for start, end in piece.box]


def _slices(box: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in box)
