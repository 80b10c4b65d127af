"""The instructions of one stage, sorted by when and how often they run.

    setup      once, before anything: casts of weights, gathers of those that last, constants,
               what other stages send once
    survey     for each micro-batch, before the first one: totals of the batch alone
    settle     once, after the survey: what follows from the totals
    forward    for each micro-batch
    inputs     for each micro-batch: gradients that the stage before waits for
    weights    for each micro-batch: the other gradients
    finish     once, after the last micro-batch: reductions of what was accumulated, the update

Weights that are cut are gathered anew in each micro-batch, as fully sharded data parallelism
does, or they would be whole in memory for all of the step. Where a plan keeps what it gathered,
as the first two stages of ZeRO do, that is what is wanted: they are gathered in the setup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from weft.parallel.local import Collective, CollectiveKind, Instruction, LocalProgram, Run
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.prefetch import slots_read, slots_written
from weft.program.graph import Phase, Role

__all__ = ["Part", "Segments", "segments"]


class Part(IntEnum):
    """When an instruction runs."""

    SETUP = 0
    SURVEY = 1
    SETTLE = 2
    FORWARD = 3
    INPUTS = 4
    WEIGHTS = 5
    FINISH = 6

    @property
    def repeats(self) -> bool:
        """True for what runs for each micro-batch."""
        return self in (Part.SURVEY, Part.FORWARD, Part.INPUTS, Part.WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class Segments:
    """A stage's instructions by part.

    Attributes:
        local: the stage's local program.
        parts: positions in `local.instructions`, in order; the survey repeats some of others.
        sums: slots that a micro-batch makes, and the slot of the sum over all of them, by part.
        sends: of each parcel, the slot that is sent.
        receives: of each parcel, the slot of the input that takes it up.
    """

    local: LocalProgram
    parts: dict[Part, tuple[int, ...]]
    sums: dict[Part, tuple[tuple[int, int], ...]]
    sends: dict[str, int]
    receives: dict[str, int]


def segments(stage: StageProgram, local: LocalProgram) -> Segments:
    """Sort the instructions of a stage.

    Args:
        stage: the stage.
        local: its program, lowered.
    """
    return _Sorting(stage, local).run()


class _Sorting:
    """Finds the part of each instruction; lives only inside `segments`."""

    def __init__(self, stage: StageProgram, local: LocalProgram) -> None:
        self._stage = stage
        self._local = local
        self._maker: dict[int, int] = {}
        self._varies = self._varying_inputs()
        self._repeated: set[int] = set()
        self._after: dict[int, Part] = {}
        self._handed_on: frozenset[int] = frozenset()

    def run(self) -> Segments:
        instructions = self._local.instructions
        for number, instruction in enumerate(instructions):
            for slot in slots_written(instruction):
                self._maker[slot] = number
        surveys = self._surveys()
        self._handed_on = self._handed_on_once()
        once: dict[int, Part] = {}
        for number, instruction in enumerate(instructions):
            self._follow(number, instruction, surveys, once)
        survey = self._ancestors(surveys) if surveys else frozenset[int]()
        needed = self._needed(once, surveys)
        inputs = self._ancestors(
            n for n, i in enumerate(instructions) if _sends(i) and i.phase is Phase.BACKWARD
        )
        parts: dict[Part, list[int]] = {part: [] for part in Part}
        sums: dict[Part, list[tuple[int, int]]] = {part: [] for part in Part}
        for number, instruction in enumerate(instructions):
            if number in once:
                parts[once[number]].append(number)
                continue
            if number in survey and number not in surveys:
                parts[Part.SURVEY].append(number)
            if number in surveys:
                sums[Part.SURVEY].append(_sum(instruction))
            elif number in needed:
                part = self._loop_part(number, instruction, inputs)
                if _accumulates(instruction):
                    sums[part].append(_sum(instruction))
                else:
                    parts[part].append(number)
        return Segments(
            local=self._local,
            parts={part: tuple(found) for part, found in parts.items()},
            sums={part: tuple(found) for part, found in sums.items()},
            sends={
                str(i.args[1]): slots_read(i)[0]
                for i in instructions
                if isinstance(i, Run) and _sends(i)
            },
            receives={i.name: i.slot for i in self._local.inputs if i.name in self._taken_up},
        )

    @property
    def _taken_up(self) -> set[str]:
        return {parcel.name for parcel in self._stage.receives}

    def _varying_inputs(self) -> set[int]:
        """Slots of inputs in which micro-batches differ."""
        program = self._stage.program
        each = {parcel.name for parcel in self._stage.receives if not parcel.once}
        varies: set[int] = set()
        for source in self._local.inputs:
            given = program.input_by_name[source.name]
            part = given.role is Role.BATCH and program.nodes[given.node].outputs[0].shape
            if part or given.role is Role.MICRO_BATCH or source.name in each:
                varies.add(source.slot)
        return varies

    def _surveys(self) -> frozenset[int]:
        """Sums that micro-batches read: they are known before the first one begins."""
        sums = {
            i.outputs[0]: n
            for n, i in enumerate(self._local.instructions)
            if isinstance(i, Run) and _accumulates(i) and i.phase is Phase.FORWARD
        }
        loss = self._local.loss
        found: set[int] = set()
        for instruction in self._local.instructions:
            if instruction.phase is Phase.UPDATE or loss in slots_written(instruction):
                continue
            found.update(sums[slot] for slot in slots_read(instruction) if slot in sums)
        own = self._own_of_loss()
        return frozenset(found - own)

    def _own_of_loss(self) -> set[int]:
        """Instructions between the sum of the loss and the loss itself."""
        found: set[int] = set()
        slot = self._local.loss
        while slot in self._maker:
            number = self._maker[slot]
            instruction = self._local.instructions[number]
            found.add(number)
            if _accumulates(instruction) or len(slots_read(instruction)) != 1:
                break
            slot = slots_read(instruction)[0]
        return found

    def _handed_on_once(self) -> frozenset[int]:
        """Instructions that make what is sent once a step."""
        once = {parcel.name for parcel in self._stage.sends if parcel.once}
        stack = [
            number
            for number, i in enumerate(self._local.instructions)
            if isinstance(i, Run) and _sends(i) and i.args[1] in once
        ]
        found: set[int] = set()
        while stack:
            number = stack.pop()
            if number not in found:
                found.add(number)
                reads = slots_read(self._local.instructions[number])
                stack.extend(self._maker[slot] for slot in reads if slot in self._maker)
        return frozenset(found)

    def _follow(
        self,
        number: int,
        instruction: Instruction,
        surveys: frozenset[int],
        once: dict[int, Part],
    ) -> None:
        """Whether an instruction repeats, and if not, when it runs."""
        reads = slots_read(instruction)
        if _accumulates(instruction) and not self._varies.isdisjoint(reads):
            self._after[number] = Part.SETTLE if number in surveys else Part.FINISH
            return
        gathers = (
            isinstance(instruction, Collective)
            and instruction.kind is CollectiveKind.ALL_GATHER
            and instruction.phase is not Phase.UPDATE
            and not instruction.lasts
            and number not in self._handed_on
        )
        before = [self._after.get(self._maker.get(slot, -1), Part.SETUP) for slot in reads]
        latest = max(before, default=Part.SETUP)
        if not self._varies.isdisjoint(reads) or (gathers and latest is Part.SETUP):
            self._varies.update(slots_written(instruction))
            self._repeated.add(number)
            return
        part = Part.FINISH if instruction.phase is Phase.UPDATE else latest
        self._after[number] = once[number] = part

    def _needed(self, once: dict[int, Part], surveys: frozenset[int]) -> frozenset[int]:
        """Repeated instructions that something other than the survey needs."""
        wanted = [
            number
            for number, instruction in enumerate(self._local.instructions)
            if number not in once
            and number not in surveys
            and (_accumulates(instruction) or _sends(instruction))
        ]
        return self._ancestors(wanted)

    def _ancestors(self, numbers: Iterable[int]) -> frozenset[int]:
        """Instructions that some depend on and that repeat, themselves included."""
        found: set[int] = set()
        stack = list(numbers)
        while stack:
            number = stack.pop()
            if number in found:
                continue
            found.add(number)
            for slot in slots_read(self._local.instructions[number]):
                maker = self._maker.get(slot)
                if maker is not None and maker in self._repeated:
                    stack.append(maker)
        return frozenset(found)

    def _loop_part(self, number: int, instruction: Instruction, inputs: frozenset[int]) -> Part:
        if instruction.phase is Phase.FORWARD:
            return Part.FORWARD
        return Part.INPUTS if number in inputs else Part.WEIGHTS


def _accumulates(instruction: Instruction) -> bool:
    return isinstance(instruction, Run) and instruction.op == "accumulate"


def _sends(instruction: Instruction) -> bool:
    return isinstance(instruction, Run) and instruction.op == "send"


def _sum(instruction: Instruction) -> tuple[int, int]:
    assert isinstance(instruction, Run)
    return slots_read(instruction)[0], instruction.outputs[0]
