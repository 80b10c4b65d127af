"""One stage of a pipeline on this rank: its modules, and the tensors that it holds meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from weft.parallel.pipeline.segments import Part, Segments
from weft.parallel.pipeline.stages import Parcel, StageProgram
from weft.parallel.plan import ParallelPlan
from weft.parallel.prefetch import slots_read, slots_written
from weft.parallel.recompute import with_recompute
from weft.runtime.clock import Clock
from weft.runtime.lower import borrowed_slots, some_module
from weft.runtime.place import Place
from weft.runtime.shard import alone_in_storage

__all__ = ["StageRun"]


@dataclass(frozen=True)
class _Segment:
    """A module with the slots that it reads and writes."""

    module: fx.GraphModule
    reads: tuple[int, ...]
    writes: tuple[int, ...]


class StageRun:
    """Runs the segments of a stage; knows no schedule and no other rank.

    Args:
        stage: what it computes.
        plan: how it is split.
        segments: its instructions by part.
        place: where this rank stands in the stage's group.
        clock: counts the time in which collectives are waited for.

    Attributes:
        stage: what it computes.
        segments: its instructions by part.
    """

    def __init__(
        self,
        stage: StageProgram,
        plan: ParallelPlan,
        segments: Segments,
        place: Place,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self.stage = stage
        self._program = with_recompute(stage.program, plan.recompute)
        self.segments = segments
        self._place = place
        self._local = segments.local
        self._borrowed = borrowed_slots(self._local, place)
        self._returned = {self._local.loss, *(slot for _, slot in self._local.updates)}
        self._readers = self._parts_by_slot()
        self._loops = {
            part: self._built(part, segments.parts[part]) for part in Part if part.repeats
        }
        self._held: dict[int, Tensor] = {}
        self._under_way: dict[int, dict[int, Tensor]] = {}
        self._assigned: set[int] = set()
        self._once: dict[tuple[Part, str], _Segment] = {}

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
        """Run a part that repeats for one micro-batch."""
        memory = self._memory(micro_batch)
        self._run(self._loops[part], memory)
        for made, total in self.segments.sums[part]:
            known = self._held.get(total)
            value = memory[made] if made in memory else self._held[made]
            self._held[total] = value.clone() if known is None else known.add_(value)
        if part is Part.WEIGHTS:
            del self._under_way[micro_batch]
        elif part is Part.SURVEY:
            inputs = {slot.slot for slot in self._local.inputs}
            self._under_way[micro_batch] = {s: t for s, t in memory.items() if s in inputs}

    def before_sending(self, part: Part, parcel: Parcel) -> None:
        """Run what a parcel that is sent once depends on."""
        key = (part, parcel.name)
        if key not in self._once:
            slot = self.segments.sends[parcel.name]
            self._once[key] = self._segment_once(self._ancestors(part, slot))
        self._run(self._once[key], self._held)

    def complete(self, part: Part) -> None:
        """Run what is left of a part that runs once. The last one frees what it has read."""
        key = (part, "")
        if key not in self._once:
            left = [n for n in self.segments.parts[part] if n not in self._assigned]
            self._once[key] = self._segment_once(left)
        self._run(self._once[key], self._held, is_last=part is Part.FINISH)

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

    # --- segments -------------------------------------------------------------------------

    def _memory(self, micro_batch: int | None) -> dict[int, Tensor]:
        if micro_batch is None:
            return self._held
        return self._under_way.setdefault(micro_batch, {})

    def _run(self, segment: _Segment, memory: dict[int, Tensor], *, is_last: bool = False) -> None:
        held = self._held
        given = [memory[slot] if slot in memory else held[slot] for slot in segment.reads]
        if is_last:
            for slot in set(segment.reads) - self._returned:
                held.pop(slot, None)
        made: Sequence[Tensor] = segment.module(given)
        memory.update(zip(segment.writes, made, strict=True))

    def _segment_once(self, numbers: list[int]) -> _Segment:
        """Instructions that run once; every step asks for them in the same order as the first."""
        self._assigned.update(numbers)
        return self._segment(tuple(numbers), self._wanted_outside(tuple(numbers)))

    def _ancestors(self, part: Part, slot: int) -> list[int]:
        """Instructions of a part that are in no segment yet and that a slot depends on."""
        makers = {
            written: number
            for number in self.segments.parts[part]
            for written in slots_written(self._local.instructions[number])
        }
        found: set[int] = set()
        stack = [slot]
        while stack:
            number = makers.get(stack.pop())
            if number is not None and number not in found and number not in self._assigned:
                found.add(number)
                stack.extend(slots_read(self._local.instructions[number]))
        return sorted(found)

    def _built(self, part: Part, numbers: tuple[int, ...]) -> _Segment:
        written, sums = self._written(numbers), self.segments.sums
        if part is Part.SURVEY:
            totals = {made for made, _ in sums[part]}
            return self._segment(numbers, tuple(s for s in written if s in totals))
        summed = {made for sums_of_part in sums.values() for made, _ in sums_of_part}
        sent = set(self.segments.sends.values())
        kept = [
            slot
            for slot in written
            if slot in summed
            or slot in sent
            or self._readers.get(slot, set()) - {part, Part.SURVEY}
        ]
        return self._segment(numbers, tuple(kept))

    def _wanted_outside(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Slots that some instructions write and that others read, or the step returns."""
        inside = set(numbers)
        read = {
            slot
            for number, instruction in enumerate(self._local.instructions)
            if number not in inside
            for slot in slots_read(instruction)
        }
        sent = set(self.segments.sends.values())
        wanted = read | sent | self._returned
        return tuple(slot for slot in self._written(numbers) if slot in wanted)

    def _written(self, numbers: Sequence[int]) -> list[int]:
        return [
            slot
            for number in numbers
            for slot in slots_written(self._local.instructions[number])
            if self._local.last_use[slot] >= 0
        ]

    def _segment(self, numbers: tuple[int, ...], writes: tuple[int, ...]) -> _Segment:
        written = set(self._written(numbers))
        reads = dict.fromkeys(
            slot
            for number in numbers
            for slot in slots_read(self._local.instructions[number])
            if slot not in written
        )
        module = some_module(self._local, self._program, self._place, numbers, tuple(reads), writes)
        self._clock.watch(module)
        return _Segment(module, tuple(reads), writes)

    def _parts_by_slot(self) -> dict[int, set[Part]]:
        readers: dict[int, set[Part]] = {}
        for part, numbers in self.segments.parts.items():
            for number in numbers:
                for slot in slots_read(self._local.instructions[number]):
                    readers.setdefault(slot, set()).add(part)
        return readers
