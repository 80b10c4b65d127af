"""The best stages and schedule for what pieces cost, and what a step then takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from weft.core.errors import InfeasibleError
from weft.cost.collective import collective_seconds
from weft.machine.model import Machine
from weft.machine.topology import Group, axis_group
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.partition import Partition, Runs, partitions
from weft.parallel.pipeline.again import MIXTURES
from weft.parallel.pipeline.estimate import Load, StageCost, predict_pipeline, sending_s
from weft.parallel.pipeline.piece_costs import joined
from weft.parallel.pipeline.plan import PipelinePrediction
from weft.parallel.pipeline.schedule import in_flight, order
from weft.parallel.plan import Level

__all__ = [
    "Staging",
    "fully_sharded",
    "predicted",
    "rough_step_s",
    "schedules",
    "stagings",
    "state_sharded",
    "worthwhile",
]

CHUNKS = {Level.FAST: (2, 4, 8), Level.BEST: (2, 3, 4, 5, 6, 7, 8)}
"""Stages of a group that are tried. Derived: each halving of the bubble is worth
half as much as the last, and every chunk sends its activations once more."""


@dataclass(frozen=True, kw_only=True)
class Staging:
    """Stages, their schedule, and the step as far as pieces tell.

    Attributes:
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        chunks: stages of each group.
        stages: where they are cut, and what they recompute.
        rough_s: step by a closed form, or by the simulator where transfers take long [s].
    """

    schedule: str
    chunks: int
    stages: Partition
    rough_s: float


def stagings(
    by_option: Sequence[Sequence[StageCost]],
    config: Config,
    limit_bytes: float,
    ways: Sequence[tuple[str, int]],
    machine: Machine,
    bounds: Callable[[int], Sequence[tuple[int, int]]] | None = None,
) -> list[Staging]:
    """The best stages for each schedule that fits, best first.

    Args:
        by_option: cost of each piece of the whole program, by option of recomputation.
        config: groups and micro-batches.
        limit_bytes: limit of one device [bytes].
        ways: schedules with their numbers of chunks.
        machine: where it runs.
        bounds: for a number of stages, the lowest and the highest that each piece may be in; an
            InfeasibleError if pins cannot be kept with so many. Any if not given.
    """
    around = _once_s(by_option[0], config.groups)
    hops = _hops(by_option[0], config, machine)
    found: list[Staging] = []
    runs: dict[int, Runs] = {}
    for schedule, chunks in ways:
        kept = in_flight(schedule, config.groups, chunks, config.micro_batches)
        number = len(kept)
        try:
            allowed = None if bounds is None else bounds(number)
        except InfeasibleError:
            continue
        pinned = allowed is not None and any(of != (0, number - 1) for of in allowed)
        if schedule == "zero-bubble":
            own = Runs(_keeping_what_waits(by_option), number, hops, any_length=pinned)
        else:
            own = runs.get(number) or Runs(by_option, number, hops, any_length=pinned)
            runs[number] = own
        each = [limit_bytes / chunks] * len(kept)
        cut = partitions(
            own, kept, each, config.micro_batches, allowed, waits=schedule == "interleaved"
        )
        several = [
            Staging(
                schedule=schedule,
                chunks=chunks,
                stages=stages,
                rough_s=around + _schedule_s(schedule, stages, config, by_option[0]),
            )
            for stages in cut
        ]
        if any(own.sends_slowly(stages.cuts) for stages in cut):
            several = [_simulated(by_option, config, one, machine) for one in several]
            several.sort(key=lambda one: one.rough_s)
        found += several[:1]
    return sorted(found, key=lambda staging: staging.rough_s)


def _simulated(
    by_option: Sequence[Sequence[StageCost]], config: Config, staging: Staging, machine: Machine
) -> Staging:
    """Stages, with the step as the simulator has it."""
    return replace(staging, rough_s=predicted(by_option, config, staging, machine).step_s)


def _hops(costs: Sequence[StageCost], config: Config, machine: Machine) -> list[float]:
    """Of each piece, what a micro-batch takes to the next one and back, if that is elsewhere [s].

    Groups send to their neighbours; the slowest link of any two counts for all.
    """

    def sent_s(load: Load, source: int, target: int) -> float:
        return sending_s(load, machine, config.first_rank(source), config.first_rank(target))

    slowest = max(range(config.groups), key=lambda g: sent_s(Load(1, 1.0), g, g + 1))
    return [
        sent_s(cost.forward, slowest, slowest + 1) + sent_s(after.backward, slowest + 1, slowest)
        for cost, after in zip(costs, [*costs[1:], costs[0]], strict=True)
    ]


def _keeping_what_waits(by_option: Sequence[Sequence[StageCost]]) -> list[list[StageCost]]:
    """Pieces all of whose micro-batches under way wait for the gradients of weights, at most."""
    known: dict[int, StageCost] = {}
    lists: dict[int, list[StageCost]] = {}
    for costs in by_option:
        if id(costs) in lists:
            continue
        for cost in costs:
            if id(cost) not in known:
                time = cost.time
                kept = time.kept_bytes + time.waiting_bytes
                known[id(cost)] = replace(cost, time=replace(time, kept_bytes=kept))
        lists[id(costs)] = [known[id(cost)] for cost in costs]
    return [lists[id(costs)] for costs in by_option]


def schedules(config: Config, num_pieces: int, level: Level) -> list[tuple[str, int]]:
    """Schedules of a configuration with their numbers of chunks.

    GPipe is not among them: 1F1B takes as long and keeps less.
    """
    groups, count = config.groups, config.micro_batches
    found = [("1f1b", 1)] if groups <= num_pieces else []
    if groups > 1 and found:
        found.append(("zero-bubble", 1))
        most = num_pieces // groups if count % groups == 0 else 1
        found += [("interleaved", chunks) for chunks in CHUNKS[level] if chunks <= most]
    return found


def worthwhile(
    costs: Sequence[StageCost], config: Config, level: Level, most_s: float
) -> list[tuple[str, int]]:
    """Schedules that could take less than `most_s`: if all fitted, and stages were all alike.

    Args:
        costs: of each piece of the whole program, without recomputation.
        config: groups and micro-batches.
        level: how many to look at.
        most_s: a step that is no longer of interest [s].
    """
    around = _once_s(costs, config.groups)
    return [
        (schedule, chunks)
        for schedule, chunks in schedules(config, len(costs), level)
        if around + _least_s(schedule, chunks, config, costs) <= most_s
    ]


def _least_s(schedule: str, chunks: int, config: Config, costs: Sequence[StageCost]) -> float:
    """What no stages take less than by the closed forms, recomputation left out [s]."""
    count, groups = config.micro_batches, config.groups
    whole = sum(cost.time.busy_s for cost in costs)
    longest = max(whole / (groups * chunks), *(cost.time.busy_s for cost in costs))
    if schedule == "1f1b":
        return (count - 1) * longest + whole
    if schedule == "interleaved":
        return count * whole / groups + (groups - 1) * longest
    return count * longest + _ramp_s(longest, config, costs)


def _ramp_s(longest_s: float, config: Config, costs: Sequence[StageCost]) -> float:
    """Bubble of the zero-bubble schedule, where gradients of weights cannot fill it [s]."""
    whole = sum(cost.time.busy_s for cost in costs)
    weights = sum(cost.time.weights_s for cost in costs)
    return (config.groups - 1) * longest_s * max(0.0, 1.0 - 2.0 * weights / whole)


def rough_step_s(
    by_option: Sequence[Sequence[StageCost]], config: Config, limit_bytes: float
) -> float:
    """A step whose stages are all alike; infinite if the first one does not fit [s].

    Args:
        by_option: cost of each piece of the whole program, by option of recomputation.
        config: groups and micro-batches.
        limit_bytes: limit of one device [bytes].
    """
    groups, count = config.groups, config.micro_batches
    whole = [joined(costs) for costs in by_option]
    flying = min(count, groups)
    seconds = inf
    for lesser, greater in MIXTURES:
        less, more = whole[lesser], whole[greater]
        fixed = (less.lasting_bytes + less.sums_bytes) / groups
        room = limit_bytes - fixed - max(less.transient_bytes, more.transient_bytes)
        held = flying * less.time.kept_bytes / groups
        saved = flying * (less.time.kept_bytes - more.time.kept_bytes) / groups
        share = 0.0 if held <= room else (held - room) / saved if saved > 0 else inf
        if share <= 1.0:
            own = less.time.busy_s + share * (more.time.busy_s - less.time.busy_s)
            seconds = min(seconds, own)
    longest = max(cost.time.busy_s for cost in by_option[0])
    stage_s = max(seconds / groups, longest)
    tried = schedules(config, len(by_option[0]), Level.BEST)
    chunks = max((number for _, number in tried), default=1)
    around = (whole[0].setup_s + whole[0].finish_s) / groups
    return around + count * stage_s + (groups - 1) * max(stage_s / chunks, longest / chunks)


def predicted(
    by_option: Sequence[Sequence[StageCost]], config: Config, staging: Staging, machine: Machine
) -> PipelinePrediction:
    """The step by the simulator, stages put together from pieces.

    Once a pipeline is full, each further round of micro-batches takes as long as the last, so
    where there are many the step follows from those of two short pipelines.
    """
    bounds = [0, *staging.stages.cuts, len(by_option[0])]
    costs = [
        joined([by_option[again.option(k - i)][k] for k in range(i, j)])
        for i, j, again in zip(bounds, bounds[1:], staging.stages.recompute, strict=False)
    ]
    groups, count = config.groups, config.micro_batches
    sending = _sending_s(costs, config, machine)

    def simulated(number: int) -> PipelinePrediction:
        orders = order(staging.schedule, len(costs), groups, number)
        return predict_pipeline(orders, costs, sending, number, groups)

    if count <= 2 * FULL[1] * groups:
        return simulated(count)
    fewer, more = (simulated(rounds * groups) for rounds in FULL)
    rounds = (count - FULL[0] * groups) / ((FULL[1] - FULL[0]) * groups)
    pipeline_s = fewer.pipeline_s + rounds * (more.pipeline_s - fewer.pipeline_s)
    busy = count * sum(cost.time.busy_s for cost in costs)
    return replace(
        more,
        step_s=fewer.step_s + rounds * (more.step_s - fewer.step_s),
        pipeline_s=pipeline_s,
        bubble=1.0 - busy / (groups * pipeline_s),
    )


def _sending_s(
    costs: Sequence[StageCost], config: Config, machine: Machine
) -> list[tuple[float, float]]:
    """Of each stage, how long what it sends forward and back takes [s]."""
    first = config.first_rank
    return [
        (
            sending_s(cost.forward, machine, first(stage), first(stage + 1)),
            sending_s(cost.backward, machine, first(stage), first(stage - 1)),
        )
        for stage, cost in enumerate(costs)
    ]


FULL = (2, 3)
"""Micro-batches for each group with which a pipeline is full for a while. Derived: from two on, one
more round adds the same time, to a thousandth."""


def _once_s(costs: Sequence[StageCost], groups: int) -> float:
    """What comes before and after the micro-batches, shared out evenly [s]."""
    return sum(c.setup_s + c.finish_s for c in costs) / groups


def _schedule_s(
    schedule: str, stages: Partition, config: Config, costs: Sequence[StageCost]
) -> float:
    """Time of all micro-batches by a closed form [s]."""
    count, groups = config.micro_batches, config.groups
    if schedule == "1f1b":
        return stages.step_s(count)
    by_group = [sum(stages.seconds[g::groups]) for g in range(groups)]
    longest = max(stages.seconds)
    if schedule == "interleaved":
        return count * max(by_group) + (groups - 1) * longest
    return count * longest + _ramp_s(longest, config, costs)


def state_sharded(cost: StageCost, machine: Machine, config: Config) -> StageCost:
    """A piece of one part of a group, if the parts share out optimizer state and update.

    Gradients are scattered as they are summed, and updated weights gathered, once a step.
    """
    group = _data_group(machine, config)
    return replace(
        cost,
        setup_s=cost.setup_s + collective_seconds("all-gather", cost.setup_bytes, group),
        finish_s=cost.finish_s / config.data
        + collective_seconds("reduce-scatter", cost.sums_bytes, group),
        state_bytes=cost.state_bytes / config.data,
        finish_bytes=cost.sums_bytes + (cost.finish_bytes - cost.sums_bytes) / config.data,
    )


def fully_sharded(cost: StageCost, machine: Machine, config: Config) -> StageCost:
    """A piece of one part of a group, if the parts share out weights and gradients as well.

    Both passes of each micro-batch gather weights, and gradients are scattered in each; what of
    that computation can hide is hidden.
    """
    group = _data_group(machine, config)
    weights = cost.setup_bytes or cost.state_bytes / 3
    gather = collective_seconds("all-gather", weights, group)
    scatter = collective_seconds("reduce-scatter", cost.sums_bytes, group)
    backward = cost.time.backward_s
    longer = max(1.0, (gather + scatter) / backward) if backward > 0 else 1.0
    return replace(
        cost,
        time=replace(
            cost.time,
            forward_s=max(cost.time.forward_s, gather),
            inputs_s=cost.time.inputs_s * longer,
            weights_s=cost.time.weights_s * longer,
        ),
        finish_s=cost.finish_s / config.data,
        state_bytes=cost.state_bytes / config.data,
        setup_bytes=cost.setup_bytes / config.data,
        sums_bytes=cost.sums_bytes / config.data,
        transient_bytes=cost.transient_bytes + weights,
        finish_bytes=cost.finish_bytes / config.data,
    )


def _data_group(machine: Machine, config: Config) -> Group:
    return axis_group(machine, (config.data, config.inner), 0)
