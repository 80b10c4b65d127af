"""One stage of a pipeline on this rank: its modules, and the tensors that it holds meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, fx

from weft.parallel.local import LocalInput
from weft.parallel.pipeline.segments import Part, Segments
from weft.parallel.pipeline.stages import Parcel, StageProgram
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import with_recompute
from weft.program.graph import Role
from weft.program.types import TensorType
from weft.runtime.clock import Clock
from weft.runtime.lower import borrowed_slots, some_module
from weft.runtime.pieces import Key, cut_in_pieces
from weft.runtime.place import Place
from weft.runtime.shard import alone_in_storage

__all__ = ["SegmentCall", "StageRun", "inputs_of_each"]

SegmentCall: TypeAlias = Callable[[list[Tensor]], Sequence[Tensor]]
"""Runs a piece on what it reads and returns what it writes. The list is left without tensors."""


class StageRun:
    """Runs the segments of a stage; knows no schedule and no other rank.

    Args:
        stage: what it computes.
        plan: how it is split.
        segments: its instructions by part.
        place: where this rank stands in the stage's group.
        clock: counts the time in which collectives are waited for; not in what is compiled.
        compiled: whether its pieces are to be compiled; `use` then has to follow before the
            first step.
        shared: names of inputs that other stages of this rank replace too.

    Attributes:
        stage: what it computes.
        segments: its instructions by part.
        pieces: of which each becomes a module.
    """

    def __init__(
        self,
        stage: StageProgram,
        plan: ParallelPlan,
        segments: Segments,
        place: Place,
        clock: Clock,
        *,
        compiled: bool,
        shared: Collection[str],
    ) -> None:
        self.stage = stage
        self.segments = segments
        self._program = with_recompute(stage.program, plan.recompute)
        self._place = place
        self._local = segments.local
        self._borrowed = borrowed_slots(self._local, place)
        self._returned = {self._local.loss, *(slot for _, slot in self._local.updates)}
        self.pieces = cut_in_pieces(segments, stage.sends, compiled=compiled, shared=shared)
        self._calls: dict[Key, SegmentCall] = {}
        if not compiled:
            for key in self.pieces:
                module = self.module(key)
                clock.watch(module)
                self._calls[key] = module
        self._held: dict[int, Tensor] = {}
        self._under_way: dict[int, dict[int, Tensor]] = {}

    # --- compiling ------------------------------------------------------------------------

    def module(self, key: Key, *, row_major: bool = False) -> fx.GraphModule:
        """A piece as a module of its own."""
        return some_module(
            self._local, self._program, self._place, self.pieces[key], row_major=row_major
        )

    def types(self, key: Key) -> tuple[TensorType, ...]:
        """Types of what a piece reads."""
        return tuple(self._local.slots[slot] for slot in self.pieces[key].reads)

    def use(self, calls: Mapping[Key, SegmentCall]) -> None:
        """Run pieces by these functions from now on."""
        self._calls |= calls

    # --- a step ---------------------------------------------------------------------------

    def begin(self, inputs: dict[int, Tensor]) -> None:
        """Take up what the whole step reads, by slot."""
        self._held = dict(inputs)
        self._under_way = {}

    def take_up(self, parcel: Parcel, tensor: Tensor, micro_batch: int | None) -> None:
        """Take up what another stage sent; of a micro-batch, or for all of the step."""
        slot = self.segments.receives.get(parcel.name)
        if slot is not None:
            self._memory(micro_batch)[slot] = tensor

    def sent(self, parcel: Parcel, micro_batch: int | None) -> Tensor:
        """What this stage sends."""
        return self._memory(micro_batch)[self.segments.sends[parcel.name]].contiguous()

    def give(self, inputs: dict[int, Tensor], micro_batch: int) -> None:
        """Take up this rank's part of a micro-batch, by slot."""
        self._memory(micro_batch).update(inputs)

    def repeat(self, part: Part, micro_batch: int) -> None:
        """Run a part that repeats for one micro-batch.

        After the survey and the last part nothing of the micro-batch is held.
        """
        memory = self._memory(micro_batch)
        self._run((part, ""), memory, is_last=part is Part.WEIGHTS)
        for made, total in self.segments.sums[part]:
            known = self._held.get(total)
            value = memory[made] if made in memory else self._held[made]
            self._held[total] = value.clone() if known is None else known.add_(value)
        if part in (Part.SURVEY, Part.WEIGHTS):
            del self._under_way[micro_batch]

    def before_sending(self, part: Part, parcel: Parcel) -> None:
        """Run what a parcel that is sent once depends on."""
        self._run((part, parcel.name), self._held)

    def complete(self, part: Part) -> None:
        """Run what is left of a part that runs once. The last one frees what it has read."""
        self._run((part, ""), self._held, is_last=part is Part.FINISH)

    def loss(self) -> Tensor:
        """This stage's part of the loss of the step."""
        return self._held[self._local.loss]

    def next_values(self) -> dict[str, Tensor]:
        """The next value of each input that the stage changes; the step is over with it.

        No value is a part of another input or of a larger storage.
        """
        own = {source.name: source.slot for source in self._local.inputs}
        values = {
            name: self._held[slot] if slot == own[name] else self._of_its_own(slot)
            for name, slot in self._local.updates
        }
        self._held = {}
        return values

    def _of_its_own(self, slot: int) -> Tensor:
        value = self._held[slot]
        if slot in self._borrowed:
            return value.clone(memory_format=torch.contiguous_format)
        return alone_in_storage(value.contiguous())

    def _memory(self, micro_batch: int | None) -> dict[int, Tensor]:
        if micro_batch is None:
            return self._held
        return self._under_way.setdefault(micro_batch, {})

    def _run(self, key: Key, memory: dict[int, Tensor], *, is_last: bool = False) -> None:
        """Run a piece; the last one that reads a memory frees what it has read."""
        piece, held = self.pieces[key], self._held
        given = [memory[slot] if slot in memory else held[slot] for slot in piece.reads]
        replaced = {new: held[old] for old, new in piece.replaces}
        if is_last:
            kept = self._returned | {made for made, _ in self.segments.sums[key[0]]}
            for slot in set(piece.reads) - kept:
                memory.pop(slot, None)
        memory.update(zip(piece.writes, self._calls[key](given), strict=True))
        memory.update(replaced)


def inputs_of_each(run: StageRun) -> list[tuple[LocalInput, Role]]:
    """Inputs in which micro-batches differ, but for what other stages send."""
    found: list[tuple[LocalInput, Role]] = []
    for source in run.segments.local.inputs:
        role = run.stage.program.input_by_name[source.name].role
        is_part = role is Role.BATCH and bool(run.segments.local.slots[source.slot].shape)
        if is_part or role is Role.MICRO_BATCH:
            found.append((source, role))
    return found
