"""Pipelines as an engineer writes them: stages of equal work, the same degrees in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from weft.core.errors import InputError
from weft.cost.roofline import operator_seconds
from weft.machine.model import Device, Machine
from weft.parallel.estimate import slowest_device
from weft.parallel.experts import expert_plan
from weft.parallel.pipeline.estimate import estimate_pipeline
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction, StagedProgram
from weft.parallel.pipeline.schedule import require_shape
from weft.parallel.pipeline.stages import free_nodes
from weft.parallel.plan import ParallelPlan
from weft.parallel.weights import weight_values
from weft.program.graph import Phase, Program, Value

__all__ = ["even_cuts", "pipeline_expert"]


def pipeline_expert(
    program: Program,
    machine: Machine,
    *,
    pp: int,
    micro_batches: int,
    schedule: str = "1f1b",
    chunks: int = 1,
    dp: int = 1,
    tp: int = 1,
    fsdp: bool = False,
    sp: bool = False,
    recompute: str = "",
) -> PipelinePlan:
    """The pipeline that an engineer writes with these degrees.

    Args:
        program: one training step.
        machine: at least pp * dp * tp devices.
        pp: groups of devices.
        micro_batches: parts of the batch.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        chunks: stages of each group; more than one for interleaved.
        dp, tp, fsdp, sp, recompute: within a group, as in `weft.parallel.experts.expert_plan`.

    Raises:
        InputError: the degrees, the schedule and the program do not go together.
    """
    require_shape(schedule, pp * chunks, pp, micro_batches)
    if pp * dp * tp > machine.num_devices:
        raise InputError(
            need=f"at most {machine.num_devices} devices, which is what {machine.name} has",
            got=f"{pp * dp * tp}: pipeline {pp} x data {dp} x tensor {tp}",
            hint="lower the degrees, or take a larger machine",
        )
    part = in_micro_batches(program, micro_batches)
    cuts = even_cuts(part, slowest_device(machine), pp * chunks)
    staged = StagedProgram(program, micro_batches, cuts)
    known: dict[int, ParallelPlan] = {}
    for number in sorted(set(staged.alike)):
        program = staged.stages[number].program
        known[number] = expert_plan(
            program, machine, dp=dp, tp=tp, fsdp=fsdp, sp=sp, recompute=recompute
        )
    plans = tuple(
        staged.plan_for(number, known[first]) for number, first in enumerate(staged.alike)
    )
    plan = PipelinePlan(
        program_name=program.name,
        program_digest=program.digest,
        machine_name=machine.name,
        machine_digest=machine.digest,
        micro_batches=micro_batches,
        schedule=schedule,
        num_groups=pp,
        first_nodes=cuts,
        plans=plans,
        memory_limit_bytes=min(group.device.memory_bytes.value for group in machine.groups),
        prediction=_UNKNOWN,
    )
    return replace(plan, prediction=estimate_pipeline(plan, staged, machine)[1])


_UNKNOWN = PipelinePrediction(
    step_s=0.0, pipeline_s=0.0, bubble=0.0, group_peak_bytes=(0.0,), forward_s=(), backward_s=()
)


def even_cuts(part: Program, device: Device, num_stages: int) -> tuple[int, ...]:
    """Where to cut the forward pass, in execution order, into stages of about equal time.

    Of the cuts around the even one, within a twentieth of a stage, the one is taken that the
    fewest bytes cross.

    Args:
        part: the program of one micro-batch.
        device: what operators are timed on.
        num_stages: how many stages.

    Returns:
        First node of each stage but the first.

    Raises:
        InputError: the forward pass has fewer places to cut than that.
    """
    free, weights = free_nodes(part), weight_values(part)
    nodes = [
        n
        for n, node in enumerate(part.nodes)
        if node.phase is Phase.FORWARD and not free[n] and Value(n) not in weights
    ]
    crossing = _crossing_bytes(part, nodes)
    seconds = [_seconds(part, number, device) for number in nodes]
    ends = list(accumulate(seconds))
    cuts: list[int] = []
    for stage in range(1, num_stages):
        goal = ends[-1] * stage / num_stages
        slack = ends[-1] / num_stages / 20.0
        after = cuts[-1] if cuts else 0
        near = [
            position
            for position in range(after + 1, len(nodes))
            if abs(ends[position - 1] - goal) <= slack
        ] or sorted(range(after + 1, len(nodes)), key=lambda p: abs(ends[p - 1] - goal))[:1]
        if not near:
            raise InputError(
                need=f"a forward pass of at least {num_stages} operators",
                got=f"{len(nodes)}",
                hint="use fewer stages",
            )
        cuts.append(min(near, key=lambda p: (crossing[p], abs(ends[p - 1] - goal))))
    return tuple(nodes[position] for position in cuts)


def _crossing_bytes(part: Program, nodes: Sequence[int]) -> list[float]:
    """Bytes that cross the place in front of each node, forward [bytes]."""
    position = {number: at for at, number in enumerate(nodes)}
    change = [0.0] * (len(nodes) + 1)
    for number in nodes:
        last = max(
            (position[reader] for reader, _ in part.users[number] if reader in position),
            default=position[number],
        )
        size = float(sum(tensor.num_bytes for tensor in part.nodes[number].outputs))
        change[position[number] + 1] += size
        change[last + 1] -= size
    return list(accumulate(change))


def _seconds(part: Program, number: int, device: Device) -> float:
    node = part.nodes[number]
    operands = tuple(map(part.type_of, part.operands(number)))
    return operator_seconds(node.op, node.args, operands, node.outputs, device)
