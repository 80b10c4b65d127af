"""Pipelines as an engineer writes them: stages of equal work, the same degrees in each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate, pairwise
from typing import Unpack

import numpy as np
import numpy.typing as npt

from weft.core.errors import InputError
from weft.cost.fusion import Paid, program_traffic
from weft.cost.roofline import operator_seconds
from weft.machine.meeting import device_of
from weft.machine.model import Device, Machine
from weft.parallel.degrees import DegreeNames, Degrees
from weft.parallel.estimate import slowest_device
from weft.parallel.experts import plan_by_degrees
from weft.parallel.pinning import Pinning, resolve
from weft.parallel.pins import Pin
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.estimate import simulated_pipeline
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.pinned import (
    allowed_cuts,
    best_cuts,
    own_pins,
    pinned_order,
    require_stages,
)
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.schedule import require_shape
from weft.parallel.pipeline.stages import StageProgram, forward_nodes
from weft.parallel.pipeline.standing import in_rank_order, ranks_of_groups
from weft.parallel.plan import ParallelPlan
from weft.program.graph import Program

__all__ = [
    "BACKWARD",
    "crossing_bytes",
    "even_cuts",
    "even_runs",
    "forward_seconds",
    "narrow_places",
    "pipeline_expert",
    "pipeline_of_stages",
]


def pipeline_expert(
    program: Program,
    machine: Machine,
    *,
    pp: int,
    micro_batches: int,
    schedule: str = "1f1b",
    chunks: int = 1,
    by_group: Sequence[DegreeNames] = (),
    standing: Sequence[int] = (),
    memory_limit_bytes: float = 0.0,
    pins: Sequence[Pin] = (),
    part: Program | None = None,
    **degrees: Unpack[DegreeNames],
) -> PipelinePlan:
    """The pipeline that an engineer writes with these degrees.

    Stages have work in proportion to the devices of their group, and to how fast they are.

    Args:
        program: one training step.
        machine: at least as many devices as all groups have; dp * cp * tp in each.
        pp: groups of devices.
        micro_batches: parts of the batch.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        chunks: stages of each group; more than one for interleaved.
        by_group: of each group, degrees that take the place of those that all have; none if all
            groups are alike.
        standing: of each group, on which block of ranks it stands, such as (1, 0) for the first
            of two groups on the last ranks; in the order of ranks if not given.
        memory_limit_bytes: limit of one device; its own memory if 0 [bytes].
        pins: stages and placements that the plan has to keep to, from `weft.pin`, beside those
            that the model's own code has.
        part: the program of one micro-batch, if the caller has it.
        **degrees: within a group, as in `weft.parallel.experts.expert_plan`.

    Raises:
        InputError: the degrees, the schedule and the program do not go together, or a pin names
            nothing.
        InfeasibleError: a pin cannot be kept with these degrees; names what it collides with.
    """
    require_shape(schedule, pp * chunks, pp, micro_batches)
    inside = _degrees(pp, by_group, degrees)
    ranks = _ranks(inside, standing, machine)
    part = in_micro_batches(program, micro_batches) if part is None else part
    pinning = resolve(part, pins)
    shares = _power(part, ranks, machine) * chunks
    return pipeline_of_stages(
        program,
        machine,
        cut=even_cuts(part, slowest_device(machine), shares, pinning),
        num_groups=pp,
        micro_batches=micro_batches,
        schedule=schedule,
        written=_writer(inside, machine, pinning),
        kind=lambda stage: inside[stage % pp],
        pinning=pinning,
        standing=tuple(standing),
        memory_limit_bytes=memory_limit_bytes,
        part=part,
    )


def _power(part: Program, ranks: Sequence[range], machine: Machine) -> list[float]:
    """How fast each group is, in devices of the slowest kind."""
    if machine.is_uniform:
        return [float(len(own)) for own in ranks]
    order = forward_nodes(part)
    seconds = {
        group.device.name: sum(forward_seconds(part, order, group.device))
        for group in machine.groups
    }
    slowest = max(seconds.values())
    return [
        len(own) * slowest / max(seconds[device_of(machine, rank).name] for rank in own)
        for own in ranks
    ]


def _degrees(pp: int, by_group: Sequence[DegreeNames], common: DegreeNames) -> tuple[Degrees, ...]:
    """Degrees of each group."""
    if by_group and len(by_group) != pp:
        raise InputError(
            need=f"degrees for each of {pp} groups of devices",
            got=f"{len(by_group)}",
            hint="give as many as there are pipeline stages on groups of their own",
        )
    found: list[Degrees] = []
    for own in by_group or [DegreeNames()] * pp:
        joined = common.copy()
        joined.update(own)
        found.append(Degrees.named(**joined))
    return tuple(found)


def _ranks(
    inside: Sequence[Degrees], standing: Sequence[int], machine: Machine
) -> tuple[range, ...]:
    """Ranks of each group."""
    sizes = [own.num_devices for own in inside]
    if sum(sizes) > machine.num_devices:
        raise InputError(
            need=f"at most {machine.num_devices} devices, which is what {machine.name} has",
            got=f"{sum(sizes)}: {'; '.join(own.name for own in inside)}",
            hint="lower the degrees, or take a larger machine",
        )
    return ranks_of_groups(sizes, standing or in_rank_order(len(sizes)))


def _writer(
    inside: Sequence[Degrees], machine: Machine, pinning: Pinning
) -> Callable[[StageProgram], ParallelPlan]:
    """Writes plans of stages with the degrees of their groups."""

    def written(stage: StageProgram) -> ParallelPlan:
        own = inside[stage.number % len(inside)]
        return plan_by_degrees(stage.program, machine, own, own_pins(stage, pinning))

    return written


def pipeline_of_stages(
    program: Program,
    machine: Machine,
    *,
    cut: Cut,
    num_groups: int,
    micro_batches: int,
    schedule: str,
    written: Callable[[StageProgram], ParallelPlan],
    kind: Callable[[int], Hashable] = lambda _: None,
    pinning: Pinning | None = None,
    standing: tuple[int, ...] = (),
    memory_limit_bytes: float = 0.0,
    part: Program | None = None,
) -> PipelinePlan:
    """The pipeline of these stages, simulated.

    Args:
        program: one training step.
        machine: where it runs.
        cut: which stage each node of the forward pass is in.
        num_groups: groups of devices.
        micro_batches: parts of the batch.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        written: makes the plan of a stage.
        kind: by number of a stage, what its plan depends on beside what it computes, such as the
            grid of its group.
        pinning: what is pinned in the program of one micro-batch; if not given, its own pins.
        standing: of each group, on which block of ranks it stands; in the order of ranks if empty.
        memory_limit_bytes: limit of one device; its own memory if 0 [bytes].
        part: the program of one micro-batch, if the caller has it.

    Raises:
        InputError: the schedule, the stages and the program do not go together.
        InfeasibleError: the stages do not keep a pin; names it.
    """
    require_shape(schedule, cut.num_stages, num_groups, micro_batches)
    staged = StagedProgram(program, micro_batches, cut, part=part)
    pinning = resolve(staged.part) if pinning is None else pinning
    require_stages(staged.stages, staged.part, pinning)
    return simulated_pipeline(
        staged,
        _stage_plans(staged, written, kind, pinning),
        machine,
        num_groups=num_groups,
        schedule=schedule,
        memory_limit_bytes=memory_limit_bytes
        or min(group.device.memory_bytes.value for group in machine.groups),
        standing=standing,
    )


def _stage_plans(
    staged: StagedProgram,
    written: Callable[[StageProgram], ParallelPlan],
    kind: Callable[[int], Hashable],
    pinning: Pinning,
) -> tuple[ParallelPlan, ...]:
    """A plan for each stage; those that are alike share one, unless something in them is pinned."""
    if pinning.values:
        return tuple(written(stage) for stage in staged.stages)
    known: dict[Hashable, ParallelPlan] = {}
    plans: list[ParallelPlan] = []
    for number, first in enumerate(staged.alike):
        key = (first, kind(number))
        if key not in known:
            known[key] = written(staged.stages[number])
        plans.append(staged.plan_for(number, known[key]))
    return tuple(plans)


def even_cuts(
    part: Program, device: Device, shares: Sequence[float], pinning: Pinning | None = None
) -> Cut:
    """Stages that are runs of the forward pass, so that the longest stage is shortest.

    They follow the order of execution, or the one that pinned stages ask for. A cut is made only
    where few bytes cross, compared with the places around it: between layers, not inside them.

    Args:
        part: the program of one micro-batch.
        device: what operators are timed on.
        shares: of each stage, how fast it is, such as by devices of its group.
        pinning: what is pinned; modules that are pinned to stages are in them.

    Raises:
        InputError: the forward pass has fewer places to cut than that.
        InfeasibleError: no cuts keep the pinned stages.
    """
    nodes = forward_nodes(part) if pinning is None else pinned_order(part, pinning)
    num_stages = len(shares)
    ends = list(accumulate(forward_seconds(part, nodes, device)))
    places = narrow_places(crossing_bytes(part, nodes), ends, ends[-1] / num_stages)
    if pinning is not None and pinning.stages:
        position = {number: at for at, number in enumerate(nodes)}
        allowed = [
            [position[number] for number in begins]
            for begins in allowed_cuts(part, pinning, num_stages)
        ]
        return _in_runs(nodes, best_cuts(ends, places, allowed, shares))
    if len(places) < num_stages - 1:
        raise InputError(
            need=f"a forward pass of at least {num_stages} operators",
            got=f"{len(nodes)}",
            hint="use fewer stages",
        )
    pieces = [
        ends[b - 1] - (ends[a - 1] if a else 0.0) for a, b in pairwise([0, *places, len(nodes)])
    ]
    return _in_runs(nodes, [places[cut - 1] for cut in even_runs(pieces, shares)])


def _in_runs(nodes: Sequence[int], positions: Sequence[int]) -> Cut:
    """Stages that begin at positions of an order of the forward pass."""
    return Cut.of({node: bisect_right(positions, at) for at, node in enumerate(nodes)})


def forward_seconds(part: Program, nodes: Sequence[int], device: Device) -> list[float]:
    """How long each node takes on one device, whole [s]."""
    paid = program_traffic(part)
    return [_seconds(part, number, device, paid[number]) for number in nodes]


BACKWARD = 2.0
"""Time of the backward pass over that of the forward pass. Derived: of a product, the gradients of
both operands, each as much work as the product."""
NARROW = 1.25
"""Bytes across a cut over the fewest nearby, up to which it is a place to cut. Derived: inside a
layer of a transformer at least twice the stream crosses, between layers the stream alone."""


def narrow_places(crossing: Sequence[float], ends: Sequence[float], stage_s: float) -> list[int]:
    """Positions that few bytes cross compared with those within a quarter of a stage."""
    places: list[int] = []
    first = last = 0
    for here in range(1, len(ends)):
        while ends[first] < ends[here] - stage_s / 4:
            first += 1
        while last < len(ends) - 1 and ends[last] < ends[here] + stage_s / 4:
            last += 1
        near = crossing[max(first, 1) : last + 1]
        if crossing[here] <= NARROW * min(near, default=crossing[here]):
            places.append(here)
    return places


def even_runs(pieces: Sequence[float], shares: Sequence[float]) -> list[int]:
    """First piece of each run but the first, so that the longest run for its share is shortest.

    Of all such runs those are taken that share out what is left by their shares, one after the
    other.

    Args:
        pieces: work of each, at least as many as runs.
        shares: of each run, how fast it is done.

    Example:
        >>> even_runs([1.0, 1.0, 1.0, 1.0, 2.0], [1.0, 2.0])
        [2]
    """
    ends = [0.0, *accumulate(pieces)]
    work = np.array(ends)
    shortest, longest = 0.0, ends[-1] / min(shares)
    for _ in range(60):
        middle = (shortest + longest) / 2
        if _endings(work, shares, middle)[0][0]:
            longest = middle
        else:
            shortest = middle
    limit = longest * (1 + 1e-9)
    endings = _endings(work, shares, limit)
    starts: list[int] = []
    at = 0
    for run, share in enumerate(shares[:-1]):
        wanted = ends[at] + (ends[-1] - ends[at]) * share / sum(shares[run:])
        reach = bisect_right(ends, ends[at] + limit * share)
        allowed = [end for end in range(at + 1, reach) if endings[run + 1][end]]
        at = _nearest(ends, allowed, wanted)
        starts.append(at)
    return starts


def _nearest(ends: Sequence[float], allowed: Sequence[int], wanted: float) -> int:
    """Where work ends nearest to what is wanted."""
    return min(allowed, key=lambda end: abs(ends[end] - wanted))


def _endings(
    work: npt.NDArray[np.float64], shares: Sequence[float], limit: float
) -> list[npt.NDArray[np.bool_]]:
    """Of each run, at which pieces it can begin so that it and those after it keep to a limit.

    Args:
        work: what comes before each piece, and all.
        shares: of each run; it keeps to the limit times its share.
        limit: work for a share of one.

    Returns:
        By run, and after the last the end.
    """
    possible = np.zeros(len(work), dtype=bool)
    possible[-1] = True
    found = [possible]
    for share in reversed(shares):
        reach = np.searchsorted(work, work + limit * share, side="right")
        count = np.concatenate([[0], np.cumsum(found[0])])
        # A run has a piece at least, so it ends behind where it begins.
        found.insert(0, count[reach] > count[1:])
    return found


def crossing_bytes(part: Program, nodes: Sequence[int]) -> list[float]:
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


def _seconds(part: Program, number: int, device: Device, paid: Paid) -> float:
    node = part.nodes[number]
    operands = tuple(map(part.type_of, part.operands(number)))
    return operator_seconds(node.op, node.args, operands, node.outputs, device, paid)
