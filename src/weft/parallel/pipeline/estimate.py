"""What a pipeline costs: its stages' instructions priced, its schedule run through.

The parts of each stage that repeat are simulated one by one, and their times put into the
schedule; the parts that run once come before and after it, as long as the slowest stage takes.
Memory of a group is what stays (state, what the setup made, sums of gradients), what micro-batches
under way keep, and the most that any part needs for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from weft.cost.simulate import Task, simulate
from weft.cost.timeline import Timeline
from weft.machine.model import Link, Machine
from weft.machine.topology import link_between, nodes_of, with_nodes_of
from weft.parallel.estimate import priced_tasks
from weft.parallel.pipeline.crossing import crossing_seconds
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction, StagedProgram
from weft.parallel.pipeline.schedule import Action
from weft.parallel.pipeline.segments import Part, Segments
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.pipeline.timing import StageTime, pipeline_time
from weft.parallel.plan import ParallelPlan
from weft.parallel.prefetch import slots_read, slots_written
from weft.parallel.recompute import Expanded, expand
from weft.program.graph import Phase, Role

__all__ = [
    "Load",
    "PipelineCosts",
    "StageCost",
    "estimate_pipeline",
    "group_peak_bytes",
    "predict_pipeline",
    "sending_s",
    "simulated_pipeline",
    "stage_cost",
    "transfer_s",
]


def simulated_pipeline(
    staged: StagedProgram,
    plans: tuple[ParallelPlan, ...],
    machine: Machine,
    *,
    num_groups: int,
    schedule: str,
    memory_limit_bytes: float,
    standing: tuple[int, ...] = (),
) -> PipelinePlan:
    """The plan of a pipeline of these stages, simulated.

    Args:
        staged: the program, cut into them.
        plans: of each stage.
        machine: where it runs.
        num_groups: groups of devices.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        memory_limit_bytes: what the plan has to stay under on each device; where it is the smallest
            device's memory, devices that have more may use that [bytes].
        standing: of each group, on which block of ranks it stands; in the order of ranks if empty.
    """
    plan = PipelinePlan(
        program_name=staged.program.name,
        program_digest=staged.program.digest,
        machine_name=machine.name,
        machine_digest=machine.digest,
        micro_batches=staged.micro_batches,
        schedule=schedule,
        num_groups=num_groups,
        cut=staged.cut,
        plans=plans,
        memory_limit_bytes=memory_limit_bytes,
        prediction=_UNKNOWN,
        standing=standing,
    )
    return PipelineCosts(staged, plans, machine).simulated(plan)


_UNKNOWN = PipelinePrediction(
    step_s=0.0, pipeline_s=0.0, bubble=0.0, group_peak_bytes=(0.0,), stages=()
)


def estimate_pipeline(
    plan: PipelinePlan, staged: StagedProgram, machine: Machine
) -> PipelinePrediction:
    """Simulated step of a pipeline.

    Args:
        plan: the decision.
        staged: the program, cut as it says.
        machine: where it runs; in a group of unlike devices the slowest one counts.
    """
    return PipelineCosts(staged, plan.plans, machine).simulated(plan).prediction


_Lies: TypeAlias = tuple[tuple[int, int, int], ...]
"""On which nodes a group lies, as `nodes_of` finds it."""


class PipelineCosts:
    """What stages cost on whichever devices they stand; what is alike is priced once.

    Args:
        staged: the program, cut into stages.
        plans: of each stage.
        machine: where they run; in a group of unlike devices the slowest one counts.
    """

    def __init__(
        self, staged: StagedProgram, plans: tuple[ParallelPlan, ...], machine: Machine
    ) -> None:
        self._staged = staged
        self._plans = plans
        self._machine = machine
        seen: dict[object, int] = {}
        # Of each stage the first one that does the same in the same way.
        self._first = [
            seen.setdefault((alike, p.mesh, p.strategies, p.copies, p.recompute), number)
            for number, (alike, p) in enumerate(zip(staged.alike, plans, strict=True))
        ]
        self._lowered: dict[int, tuple[Segments, Expanded]] = {}
        self._known: dict[tuple[int, _Lies], StageCost] = {}

    def simulated(self, plan: PipelinePlan) -> PipelinePlan:
        """A plan of these stages, with what it is predicted to cost and what its devices hold."""
        nodes = [nodes_of(self._machine, plan.ranks_of(group)) for group in range(plan.num_groups)]
        costs = [
            self._cost(first, nodes[number % plan.num_groups])
            for number, first in enumerate(self._first)
        ]
        sending = crossing_seconds(plan, self._staged, self._machine)
        return replace(
            plan,
            prediction=predict_pipeline(
                plan.orders, costs, sending, plan.micro_batches, plan.num_groups
            ),
            group_limits_bytes=_group_limits(plan, self._machine, nodes),
        )

    def _cost(self, first: int, lies: _Lies) -> StageCost:
        if (first, lies) not in self._known:
            stage, decided = self._staged.stages[first], self._plans[first]
            if first not in self._lowered:
                segments = self._staged.segments(first, decided)
                self._lowered[first] = segments, expand(stage.program, decided.recompute)
            part = with_nodes_of(self._machine, lies)
            self._known[first, lies] = stage_cost(stage, *self._lowered[first], part)
        return self._known[first, lies]


def _group_limits(
    plan: PipelinePlan, machine: Machine, nodes: Sequence[_Lies]
) -> tuple[float, ...]:
    """What the devices of each group have, where the limit is what the smallest one has [bytes]."""
    memory = [group.device.memory_bytes.value for group in machine.groups]
    if plan.memory_limit_bytes < min(memory):
        return ()
    own = tuple(min(memory[number] for number, _, _ in lies) for lies in nodes)
    return own if max(own) > plan.memory_limit_bytes else ()


def predict_pipeline(
    orders: Sequence[Sequence[Action]],
    costs: Sequence[StageCost],
    sending: Sequence[tuple[float, float]],
    micro_batches: int,
    num_groups: int,
) -> PipelinePrediction:
    """The step of a pipeline from what its stages cost.

    Args:
        orders: of each group, what it does in order.
        costs: of each stage.
        sending: of each stage, how long what it sends forward and back takes [s].
        micro_batches: parts of the batch.
        num_groups: groups of devices; stage s is of group s mod `num_groups`.
    """
    times = [
        replace(cost.time, send_forward_s=forward_s, send_backward_s=backward_s)
        for cost, (forward_s, backward_s) in zip(costs, sending, strict=True)
    ]
    schedule = pipeline_time(orders, times)
    before = max(cost.setup_s + micro_batches * cost.survey_s for cost in costs)
    after = max(cost.finish_s for cost in costs)
    peaks = tuple(
        group_peak_bytes(costs[group::num_groups], schedule.kept_bytes[group])
        for group in range(num_groups)
    )
    return PipelinePrediction(
        step_s=before + schedule.step_s + after,
        pipeline_s=schedule.step_s,
        bubble=schedule.bubble,
        group_peak_bytes=peaks,
        stages=tuple(times),
    )


def group_peak_bytes(costs: Sequence[StageCost], kept_bytes: float) -> float:
    """Most memory of a device of a group.

    Either micro-batches are under way, or the step is being finished: sums are then freed as
    they are reduced.

    Args:
        costs: of the group's stages.
        kept_bytes: what micro-batches under way keep at most [bytes].
    """
    lasting = sum(cost.lasting_bytes for cost in costs)
    sums = sum(cost.sums_bytes for cost in costs)
    running = sums + kept_bytes + max(cost.transient_bytes for cost in costs)
    finishing = max(sums - cost.sums_bytes + cost.finish_bytes for cost in costs)
    return lasting + max(running, finishing)


def sending_s(load: Load, machine: Machine, first: int, second: int) -> float:
    """How long what a micro-batch sends from one stage to another on an equal grid takes [s].

    Args:
        load: what each device sends, to the one at its own place.
        machine: where they are.
        first, second: first ranks of the two stages' groups.
    """
    if not load.parcels or first == second:
        return 0.0
    link = link_between(machine, first, second)
    return link.latency_s.value * load.parcels + load.num_bytes / link.bytes_per_s.value


@dataclass(frozen=True, slots=True)
class Load:
    """What a micro-batch sends one way: tensors, and bytes of one device."""

    parcels: int
    num_bytes: float


def transfer_s(load: Load, senders: int, receivers: int, link: Link) -> float:
    """How long a transfer between grids of unequal numbers of devices takes [s].

    Args:
        load: what each receiver takes up.
        senders, receivers: devices of the two grids.
        link: what joins them.
    """
    messages = load.parcels * max(-(-receivers // senders), -(-senders // receivers))
    most_bytes = load.num_bytes * max(1.0, receivers / senders)
    return link.latency_s.value * messages + most_bytes / link.bytes_per_s.value


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What a stage takes, wherever in the pipeline it stands.

    Attributes:
        time: for one micro-batch, without transfers.
        setup_s, survey_s, finish_s: once before, for each micro-batch before the first, once
            after [s].
        forward, backward: what it sends to the next stage and to the one before.
        state_bytes: parameters, buffers, optimizer state, and what is sent once [bytes].
        setup_bytes: what the setup made for others, such as weights in other types [bytes].
        sums_bytes: sums over micro-batches [bytes].
        transient_bytes: the most that a part needs for itself [bytes].
        finish_bytes: the most that finishing the step needs, sums included [bytes].
        opening_bytes: of a piece of a stage, what it keeps of a micro-batch only where the stage
            begins with it [bytes].
    """

    time: StageTime
    setup_s: float
    survey_s: float
    finish_s: float
    forward: Load
    backward: Load
    state_bytes: float
    setup_bytes: float
    sums_bytes: float
    transient_bytes: float
    finish_bytes: float
    opening_bytes: float = 0.0

    @property
    def lasting_bytes(self) -> float:
        """What is held throughout the step [bytes]."""
        return self.state_bytes + self.setup_bytes


def stage_cost(
    stage: StageProgram, segments: Segments, expanded: Expanded, machine: Machine
) -> StageCost:
    """Price a stage.

    Args:
        stage: what it computes.
        segments: its instructions by part.
        expanded: its program with the recomputation of its plan.
        machine: where it runs.
    """
    return _Pricing(stage, segments, expanded, machine).cost()


class _Pricing:
    """Prices the parts of one stage; lives only inside `stage_cost`."""

    def __init__(
        self, stage: StageProgram, segments: Segments, expanded: Expanded, machine: Machine
    ) -> None:
        self._stage = stage
        self._segments = segments
        self._machine = machine
        self._local = segments.local
        self._tasks = priced_tasks(self._local, expanded.program, machine, expanded.traffic)
        self._maker = {
            slot: number
            for number, instruction in enumerate(self._local.instructions)
            for slot in slots_written(instruction)
        }

    def cost(self) -> StageCost:
        timelines = {part: self._run(part) for part in Part}
        seconds = {part: timeline.step_s for part, timeline in timelines.items()}
        made = self._bytes_read_later(Part.FORWARD)
        given = {slot: float(self._local.slots[slot].num_bytes) for slot in self._given()}
        kept = made + sum(given[slot] for slot in self._given_read_later(given))
        peaks = {part: timelines[part].peak_bytes for part in _LOOP}
        peaks[Part.FORWARD] -= made  # counted with the micro-batches under way
        inputs = sum(self._local.slots[i.slot].num_bytes for i in self._local.inputs)
        state = float(inputs) - sum(given.values())
        return StageCost(
            time=StageTime(
                forward_s=seconds[Part.FORWARD],
                inputs_s=seconds[Part.INPUTS],
                weights_s=seconds[Part.WEIGHTS],
                kept_bytes=kept,
                waiting_bytes=self._waiting_bytes(given),
            ),
            setup_s=seconds[Part.SETUP] + seconds[Part.SETTLE],
            survey_s=seconds[Part.SURVEY],
            finish_s=seconds[Part.FINISH],
            forward=self._load(Phase.FORWARD),
            backward=self._load(Phase.BACKWARD),
            state_bytes=state,
            setup_bytes=self._bytes_read_later(Part.SETUP),
            sums_bytes=self._sums_bytes(),
            transient_bytes=max(peaks.values()) + sum(given.values()),
            finish_bytes=timelines[Part.FINISH].peak_bytes,
        )

    def _given(self) -> list[int]:
        """Slots of inputs that each micro-batch has of its own."""
        program = self._stage.program
        each = {parcel.name for parcel in self._stage.receives if not parcel.once}
        return [
            source.slot
            for source in self._local.inputs
            if source.name in each
            or program.input_by_name[source.name].role in (Role.BATCH, Role.MICRO_BATCH)
        ]

    def _given_read_later(self, given: Iterable[int]) -> set[int]:
        """Those that came before the forward pass and that the backward pass reads."""
        back = {parcel.name for parcel in self._stage.receives if parcel.phase is not Phase.FORWARD}
        early = set(given) - {i.slot for i in self._local.inputs if i.name in back}
        found: set[int] = set()
        for part in (Part.INPUTS, Part.WEIGHTS):
            for number in self._segments.parts[part]:
                for slot in slots_read(self._local.instructions[number]):
                    found.add(self._owner(slot))
        return early & found

    def _waiting_bytes(self, given: Mapping[int, float]) -> float:
        """What the gradients of weights read of those of activations, and of what came in."""
        read = {
            self._owner(slot)
            for number in self._segments.parts[Part.WEIGHTS]
            for slot in slots_read(self._local.instructions[number])
        }
        own = set(self._segments.parts[Part.INPUTS])
        makers = {self._maker[slot] for slot in read if slot in self._maker} & own
        back = self._returning()
        received = sum(given[slot] for slot in read & back if slot in given)
        return received + sum(self._tasks[number].allocates_bytes for number in makers)

    def _returning(self) -> set[int]:
        """Slots that take up gradients from the stage behind."""
        names = {p.name for p in self._stage.receives if p.phase is not Phase.FORWARD}
        return {source.slot for source in self._local.inputs if source.name in names}

    def _owner(self, slot: int) -> int:
        """The slot whose memory a view shares."""
        while slot in self._maker:
            number = self._maker[slot]
            if self._tasks[number].allocates_bytes:
                break
            sources = slots_read(self._local.instructions[number])
            if not sources:
                break
            slot = sources[0]
        return slot

    def _sums_bytes(self) -> float:
        return float(
            sum(
                self._local.slots[total].num_bytes
                for pairs in self._segments.sums.values()
                for _, total in pairs
            )
        )

    def _bytes_read_later(self, part: Part) -> float:
        """What a part allocates and later parts read, views of one tensor once [bytes]."""
        own = set(self._segments.parts[part])
        read = {
            self._owner(slot)
            for later, numbers in self._segments.parts.items()
            if later > part
            for number in numbers
            for slot in slots_read(self._local.instructions[number])
        }
        makers = {self._maker[slot] for slot in read if slot in self._maker} & own
        return sum(self._tasks[number].allocates_bytes for number in makers)

    def _run(self, part: Part) -> Timeline:
        overlap = self._machine.overlap.value
        return simulate(self._of(part), overlap=overlap, resident_bytes=0.0)

    def _of(self, part: Part) -> list[Task]:
        """The tasks of a part, with those that sum up what it makes.

        Sums are counted with what lasts, but for the last part, which frees them.
        """
        if part is Part.FINISH:
            sums = [
                self._maker[total] for pairs in self._segments.sums.values() for _, total in pairs
            ]
            numbers = sorted({*self._segments.parts[part], *sums})
            added = set(sums)
            return [
                replace(task, seconds=0.0) if number in added else task
                for number, task in zip(numbers, _some(self._tasks, numbers), strict=True)
            ]
        adding = {self._maker[total] for _, total in self._segments.sums[part]}
        numbers = sorted((*self._segments.parts[part], *adding))
        return [
            replace(task, allocates_bytes=0.0) if number in adding else task
            for number, task in zip(numbers, _some(self._tasks, numbers), strict=True)
        ]

    def _load(self, phase: Phase) -> Load:
        names = [p.name for p in self._stage.sends if p.phase is phase and not p.once]
        slots = [self._segments.sends[name] for name in names]
        return Load(len(names), float(sum(self._local.slots[slot].num_bytes for slot in slots)))


_LOOP = (Part.FORWARD, Part.INPUTS, Part.WEIGHTS)


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
