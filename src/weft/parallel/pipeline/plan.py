"""The plan of a pipeline: how the batch and the program are cut, and a plan for each stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from weft.core.errors import InfeasibleError, InputError, VerifyError
from weft.parallel.pinning import resolve
from weft.parallel.pipeline.alike import representatives
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.pinned import require_stages
from weft.parallel.pipeline.schedule import Action, order, require_shape
from weft.parallel.pipeline.segments import Segments, segments
from weft.parallel.pipeline.stages import StageProgram, stage_of_nodes, stage_programs
from weft.parallel.pipeline.standing import in_rank_order, ranks_of_groups
from weft.parallel.pipeline.timing import PipelineTime, StageTime, pipeline_time
from weft.parallel.plan import Alternative, Level, ParallelPlan
from weft.parallel.validate import validate
from weft.program.graph import Program

__all__ = ["PipelinePlan", "PipelinePrediction", "StagedProgram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePrediction:
    """What the simulator says of a pipeline.

    Attributes:
        step_s: time of one step [s].
        pipeline_s: the part of it between the first and the last micro-batch [s].
        bubble: share of that in which groups wait for others [0 to 1].
        group_peak_bytes: most memory in use on one device, by group [bytes].
        stages: of each stage, what it takes for one micro-batch.
        bound_s: no plan with these groups, grids and micro-batches is faster: all products at
            their fastest, and nobody waits; 0 if unknown [s].
    """

    step_s: float
    pipeline_s: float
    bubble: float
    group_peak_bytes: tuple[float, ...]
    stages: tuple[StageTime, ...]
    bound_s: float = 0.0

    @property
    def gap(self) -> float:
        """Relative distance of the step from its bound; 0 where no bound is known."""
        return max(0.0, self.step_s / self.bound_s - 1.0) if self.bound_s > 0 else 0.0

    @property
    def peak_bytes(self) -> float:
        """Most memory in use on any device [bytes]."""
        return max(self.group_peak_bytes)


@dataclass(frozen=True, kw_only=True)
class PipelinePlan:
    """How a step runs as a pipeline.

    Group g of devices has the stages g, g + number of groups, and so on. The ranks of a group are
    neighbours: one of the blocks into which the groups cut the ranks, and `standing` says which.
    Each group has as many devices as the grids of its stages, which may differ in shape only;
    other groups may have more devices or fewer.

    Attributes:
        program_name, program_digest: the whole program it is for.
        machine_name, machine_digest: the machine it is for.
        micro_batches: parts of the batch, at least 2.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        num_groups: groups of devices.
        cut: which stage each node of the forward pass is in.
        plans: of each stage, made for the stage's program.
        memory_limit_bytes: what the planner had to stay under on each device [bytes].
        group_limits_bytes: the same of each group, where devices of some have more memory than
            that; empty where it holds for all [bytes].
        standing: of each group, on which block of ranks it stands; left out, groups follow each
            other as ranks do.
        prediction: what the simulator says.
        alternatives: what else was looked at, best first.
        planner, level: who decided and how hard it looked.
        search_s: time of the search [s].
        notes: lines for people.
    """

    program_name: str
    program_digest: str
    machine_name: str
    machine_digest: str
    micro_batches: int
    schedule: str
    num_groups: int
    cut: Cut
    plans: tuple[ParallelPlan, ...]
    memory_limit_bytes: float
    prediction: PipelinePrediction
    alternatives: tuple[Alternative, ...] = ()
    planner: str = "exact"
    level: Level = Level.FAST
    search_s: float = 0.0
    notes: tuple[str, ...] = ()
    standing: tuple[int, ...] = ()
    group_limits_bytes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_shape(self.schedule, self.num_stages, self.num_groups, self.micro_batches)
        if not self.standing:
            object.__setattr__(self, "standing", in_rank_order(self.num_groups))
        if len(self.plans) != self.num_stages:
            raise InputError(
                need="a plan for each stage",
                got=f"{self.num_stages} stages, {len(self.plans)} plans",
                hint="plan again",
            )
        for group, size in enumerate(self.group_devices):
            grids = [self.plans[stage].mesh for stage in self.stages_of(group)]
            if any(grid.num_devices != size for grid in grids):
                raise InputError(
                    need="grids of equally many devices for the stages of a group",
                    got=f"{', '.join(map(str, grids))} in group {group}",
                    hint="plan again",
                )
        if len(self.group_limits_bytes) not in (0, self.num_groups):
            raise InputError(
                need="a memory limit for each group of devices, or one for all",
                got=f"{self.num_groups} groups, {len(self.group_limits_bytes)} limits",
                hint="plan again",
            )
        _ = self._ranks

    @property
    def num_stages(self) -> int:
        """Stages of the pipeline."""
        return self.cut.num_stages

    @cached_property
    def group_devices(self) -> tuple[int, ...]:
        """Devices of each group."""
        return tuple(plan.mesh.num_devices for plan in self.plans[: self.num_groups])

    @property
    def num_devices(self) -> int:
        """Devices of all groups."""
        return sum(self.group_devices)

    @property
    def groups_in_words(self) -> str:
        """Groups of devices with their grids, for people.

        Such as "4 groups of 2 devices as 2", or, where they differ, "groups of one device and
        of 4 devices as 2x2 or 4".
        """
        grids = [
            dict.fromkeys(self.plans[stage].mesh for stage in self.stages_of(group))
            for group in range(self.num_groups)
        ]
        each = [
            f"{size} devices as {' or '.join(map(str, of))}" if size > 1 else "one device"
            for size, of in zip(self.group_devices, grids, strict=True)
        ]
        if len(set(each)) == 1:
            return f"{self.num_groups} group{'s' if self.num_groups > 1 else ''} of {each[0]}"
        return f"groups of {', of '.join(each[:-1])} and of {each[-1]}"

    @property
    def is_in_rank_order(self) -> bool:
        """True if groups follow each other as their ranks do."""
        return self.standing == in_rank_order(self.num_groups)

    @cached_property
    def _ranks(self) -> tuple[range, ...]:
        return ranks_of_groups(self.group_devices, self.standing)

    def ranks_of(self, group: int) -> range:
        """Ranks of a group of devices."""
        return self._ranks[group]

    def group_of(self, rank: int) -> int:
        """The group that a rank is of."""
        return next(group for group, ranks in enumerate(self._ranks) if rank in ranks)

    def stages_of(self, group: int) -> tuple[int, ...]:
        """Stages of a group of devices, in order."""
        return tuple(range(group, self.num_stages, self.num_groups))

    @property
    def limits_bytes(self) -> tuple[float, ...]:
        """What each group has to stay under on each device [bytes]."""
        return self.group_limits_bytes or (self.memory_limit_bytes,) * self.num_groups

    @property
    def tightest_group(self) -> int:
        """The group whose devices have least room left for what they have."""
        peaks, limits = self.prediction.group_peak_bytes, self.limits_bytes
        return max(range(self.num_groups), key=lambda group: peaks[group] - limits[group])

    @property
    def tightest_bytes(self) -> tuple[float, float]:
        """Peak and limit of a device of the group that has least room left [bytes]."""
        tightest = self.tightest_group
        return self.prediction.group_peak_bytes[tightest], self.limits_bytes[tightest]

    @property
    def fits(self) -> bool:
        """True if every group's peak stays under its limit."""
        peak, limit = self.tightest_bytes
        return peak <= limit

    @cached_property
    def time(self) -> PipelineTime:
        """When each group works, as predicted."""
        return pipeline_time(self.orders, self.prediction.stages)

    @property
    def orders(self) -> tuple[tuple[Action, ...], ...]:
        """What each group does, in order."""
        return order(self.schedule, self.num_stages, self.num_groups, self.micro_batches)


class StagedProgram:
    """A program cut as a plan says.

    Args:
        program: the whole step.
        micro_batches: parts of the batch.
        cut: see `PipelinePlan`.
        part: the program of one micro-batch, if the caller has it.
    """

    def __init__(
        self,
        program: Program,
        micro_batches: int,
        cut: Cut,
        part: Program | None = None,
    ) -> None:
        self.program = program
        self.micro_batches = micro_batches
        self.cut = cut
        self.part = in_micro_batches(program, micro_batches) if part is None else part

    @cached_property
    def stages(self) -> tuple[StageProgram, ...]:
        """The stages' programs.

        Raises:
            InputError: the backward pass does not find what it reads.
            VerifyError: a value would flow back, a stage is empty, or a pin of the model's own code
                is not kept.
        """
        self.cut.require_forward(self.part)
        forward = self.cut.forward_stages(self.part)
        found = stage_programs(self.part, stage_of_nodes(self.part, forward))
        try:
            require_stages(found, self.part, resolve(self.part))
        except InfeasibleError as error:
            raise VerifyError(need=error.need, got=error.got, hint="plan again") from error
        return found

    @cached_property
    def alike(self) -> tuple[int, ...]:
        """For each stage the first one that computes the same."""
        return representatives([stage.program for stage in self.stages])

    def segments(self, number: int, plan: ParallelPlan) -> Segments:
        """The instructions of a stage, checked against the rules and sorted.

        Raises:
            VerifyError: the plan does not compute what the stage does.
        """
        stage = self.stages[number]
        return segments(stage, validate(plan, stage.program))

    def plan_for(self, number: int, plan: ParallelPlan) -> ParallelPlan:
        """The plan of a stage that is like this one, for this one."""
        program = self.stages[number].program
        return replace(plan, program_name=program.name, program_digest=program.digest)
