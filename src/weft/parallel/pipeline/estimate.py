"""What a pipeline costs: its stages' instructions priced, its schedule run through.

The parts of each stage that repeat are simulated one by one, and their times put into the
schedule; the parts that run once come before and after it, as long as the slowest stage takes.
Memory of a group is what stays (state, what the setup made, sums of gradients), what micro-batches
under way keep, and the most that any part needs for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weft.cost.simulate import Task, simulate
from weft.machine.model import Link, Machine
from weft.parallel.estimate import priced_tasks
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction, StagedProgram
from weft.parallel.pipeline.segments import Part, Segments
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.pipeline.timing import StageTime, pipeline_time
from weft.parallel.plan import ParallelPlan
from weft.parallel.prefetch import slots_read, slots_written
from weft.parallel.recompute import with_recompute
from weft.parallel.serialize import plan_digest
from weft.program.graph import Phase

__all__ = ["estimate_pipeline"]


def estimate_pipeline(
    plan: PipelinePlan, staged: StagedProgram, machine: Machine
) -> PipelinePrediction:
    """Simulated step of a pipeline.

    Args:
        plan: the decision.
        staged: the program, cut as it says.
        machine: where it runs.
    """
    known: dict[tuple[int, str], _StageCost] = {}
    costs: list[_StageCost] = []
    for number, (first, decided) in enumerate(zip(staged.alike, plan.plans, strict=True)):
        key = (first, _decision(decided))
        if key not in known:
            stage, found = staged.stages[number], staged.segments(number, decided)
            known[key] = _StageCost(stage, found, decided, plan, machine)
        costs.append(known[key])
    times = [cost.time(stage) for cost, stage in zip(costs, staged.stages, strict=True)]
    schedule = pipeline_time(plan.orders, times)
    before = max(cost.once_s(Part.SETUP) + cost.survey_s() for cost in costs)
    after = max(cost.once_s(Part.FINISH) for cost in costs)
    peaks = tuple(
        sum(costs[s].lasting_bytes() for s in plan.stages_of(group))
        + schedule.kept_bytes[group]
        + max(costs[s].transient_bytes() for s in plan.stages_of(group))
        for group in range(plan.num_groups)
    )
    return PipelinePrediction(
        step_s=before + schedule.step_s + after,
        pipeline_s=schedule.step_s,
        bubble=schedule.bubble,
        group_peak_bytes=peaks,
        stages=tuple(times),
    )


def _decision(plan: ParallelPlan) -> str:
    """Digest of what a plan decides, whichever of several stages that are alike it is for."""
    return plan_digest(replace(plan, program_digest=""))


@dataclass
class _StageCost:
    """Prices the parts of one stage, and of all that are like it."""

    stage: StageProgram
    segments: Segments
    decided: ParallelPlan
    plan: PipelinePlan
    machine: Machine

    def __post_init__(self) -> None:
        self._local = self.segments.local
        program = with_recompute(self.stage.program, self.decided.recompute)
        self._tasks = priced_tasks(self._local, program, self.machine)
        self._part_s: dict[Part, float] = {}
        self._maker = {
            slot: number
            for number, instruction in enumerate(self._local.instructions)
            for slot in slots_written(instruction)
        }

    def time(self, stage: StageProgram) -> StageTime:
        """How long a stage like this takes; its neighbours may be nearer or farther."""
        return StageTime(
            forward_s=self._seconds(Part.FORWARD),
            inputs_s=self._seconds(Part.INPUTS),
            weights_s=self._seconds(Part.WEIGHTS),
            send_forward_s=self._sending_s(stage, Phase.FORWARD),
            send_backward_s=self._sending_s(stage, Phase.BACKWARD),
            kept_bytes=self._kept_bytes(),
        )

    def once_s(self, part: Part) -> float:
        return self._seconds(part) + (self._seconds(Part.SETTLE) if part is Part.SETUP else 0.0)

    def survey_s(self) -> float:
        return self.plan.micro_batches * self._seconds(Part.SURVEY)

    def lasting_bytes(self) -> float:
        """State, what the setup made for others, and sums [bytes]."""
        resident = float(sum(self._local.slots[i.slot].num_bytes for i in self._local.inputs))
        setup = self._bytes_read_later(Part.SETUP)
        sums = sum(
            self._local.slots[total].num_bytes
            for pairs in self.segments.sums.values()
            for _, total in pairs
        )
        return resident + setup + sums

    def transient_bytes(self) -> float:
        peaks = {
            part: simulate(self._of(part), overlap=1.0, resident_bytes=0.0).peak_bytes
            for part in (Part.FORWARD, Part.INPUTS, Part.WEIGHTS, Part.FINISH)
        }
        peaks[Part.FORWARD] -= self._kept_bytes()  # counted with the micro-batches under way
        return max(peaks.values())

    def _kept_bytes(self) -> float:
        return self._bytes_read_later(Part.FORWARD)

    def _bytes_read_later(self, part: Part) -> float:
        """What a part allocates and later parts read, views of one tensor once [bytes]."""
        own = set(self.segments.parts[part])
        read = {
            slot
            for later, numbers in self.segments.parts.items()
            if later > part
            for number in numbers
            for slot in slots_read(self._local.instructions[number])
        }
        owners: dict[int, float] = {}
        for slot in read:
            number = self._maker.get(slot)
            while number is not None and number in own and not self._tasks[number].allocates_bytes:
                sources = slots_read(self._local.instructions[number])
                number = self._maker.get(sources[0]) if sources else None
            if number is not None and number in own:
                owners[number] = self._tasks[number].allocates_bytes
        return sum(owners.values())

    def _seconds(self, part: Part) -> float:
        if part not in self._part_s:
            overlap = self.machine.overlap.value
            simulated = simulate(self._of(part), overlap=overlap, resident_bytes=0.0)
            self._part_s[part] = simulated.step_s
        return self._part_s[part]

    def _of(self, part: Part) -> list[Task]:
        """The tasks of a part, with those that sum up what it makes."""
        adding = {self._maker[total] for _, total in self.segments.sums[part]}
        numbers = sorted((*self.segments.parts[part], *adding))
        return [
            replace(task, allocates_bytes=0.0) if number in adding else task  # sums last
            for number, task in zip(numbers, _some(self._tasks, numbers), strict=True)
        ]

    def _sending_s(self, stage: StageProgram, phase: Phase) -> float:
        """How long what a micro-batch sends one way takes [s]."""
        parcels = [p for p in stage.sends if p.phase is phase and not p.once]
        if not parcels:
            return 0.0
        own = [p.name for p in self.stage.sends if p.phase is phase and not p.once]
        each = self.plan.mesh.num_devices
        ends = (parcels[0].source, parcels[0].target)
        source, target = (stage % self.plan.num_groups * each for stage in ends)
        if source == target:
            return 0.0
        link = _link(self.machine, source, target)
        num_bytes = sum(self._local.slots[self.segments.sends[name]].num_bytes for name in own)
        return link.latency_s.value * len(parcels) + num_bytes / link.bytes_per_s.value


def _some(tasks: Sequence[Task], numbers: Sequence[int]) -> list[Task]:
    """Some tasks of a list, which depend on and free each other only."""
    place = {number: position for position, number in enumerate(numbers)}
    return [
        replace(
            tasks[number],
            depends=tuple(place[d] for d in tasks[number].depends if d in place),
            frees=tuple(
                place[f] for f in tasks[number].frees if f in place and place[f] <= position
            ),
        )
        for position, number in enumerate(numbers)
    ]


def _link(machine: Machine, first: int, second: int) -> Link:
    """What joins two devices: the link of their node, or the network."""
    start = 0
    for group in machine.groups:
        end = start + group.num_nodes * group.devices_per_node
        if first < end and second < end and min(first, second) >= start:
            inside = {(rank - start) // group.devices_per_node for rank in (first, second)}
            return group.link if len(inside) == 1 else machine.network
        start = end
    return machine.network
