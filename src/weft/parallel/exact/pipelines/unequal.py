"""Pipelines whose groups are on grids of their own, beside the best one whose groups are alike.

1. Rough costs of pieces on all grids that the search has them for, and one dynamic programme over
   stages, grids and devices (`chain`), say whether unequal groups could gain, and which.
2. If so, placements are decided on those grids, and on that of the best equal pipeline, pieces are
   priced under them, and the programme chooses again.
3. Its best chains go through the simulator.

Transfers between unequal grids are charged by bytes: a device of the receiving grid takes up what
it would hold of the value, and the senders share what all receivers take up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.machine.model import Link, Machine
from weft.machine.topology import link_between, nodes_of
from weft.parallel.exact.pipelines.chain import Chain, Chains, Option
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.decide import Desk, degrees_of
from weft.parallel.exact.pipelines.evaluate import Staging
from weft.parallel.exact.pipelines.found import Found, Placing
from weft.parallel.exact.pipelines.partition import Floats, Runs
from weft.parallel.pipeline.estimate import StageCost, predict_pipeline, transfer_s
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.piece_costs import joined
from weft.parallel.pipeline.schedule import order
from weft.parallel.recompute import RECOMPUTATIONS
from weft.parallel.request import PlanRequest

__all__ = ["Unequal", "Way", "as_added", "crossing_s", "first_ranks", "grids", "imbalance"]

SCHEDULES = ("1f1b", "zero-bubble")
"""Those that give each group one stage, and that are no worse than others of the kind."""

Costs = Sequence[Sequence[StageCost]]
"""Of each piece of the whole program, by option of recomputation."""

UNITS = 16
"""Parts that a machine is shared out in at most. Derived: a sixteenth of the devices is no more
than what cuts between pieces are off from equal work."""
UNEVEN = 0.02
"""Share of a step that equal work of all groups would save, below which nothing is looked for.
Derived: Llama-3 8B on 12 devices and 70B on 64 have less than 0.01, and nothing faster was found
for them; VGG-19 on 6 devices has 0.07, and what was found saves 0.11."""
GAIN = 0.99
"""Rough step over that of equal groups, from which placements are decided. Derived: rough costs
order configurations to about a percent."""
WAYS = 2
"""Placings of a grid among which the programme chooses, those with the least work. Derived: others
save memory, which recomputation saves too."""
MOST_STAGES = 6
"""Stages that are looked at. Derived: with more, equal groups share work out as evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A grid, how placements are decided on it, and what pieces cost there.

    Attributes:
        config: the grid, and the micro-batches.
        placing: how placements are decided; none for rough costs.
        costs: of the pieces.
    """

    config: Config
    placing: Placing | None
    costs: Costs

    @property
    def work_s(self) -> float:
        """Time of a step if one group did it all, times its devices [s]."""
        whole = joined(self.costs[0])
        seconds = self.config.micro_batches * whole.time.busy_s + whole.setup_s + whole.finish_s
        return seconds * self.config.mesh.num_devices


@dataclass(frozen=True, slots=True)
class Unequal:
    """Looks for pipelines of unequal groups.

    Attributes:
        request: what to plan.
        batch: rows of the batch.
        rows_of: the program with so many micro-batches.
        rough: rough costs on a grid, several where state may be shared out; none if unknown.
        hidden: shares of communication that programmes take to cost nothing.
    """

    request: PlanRequest
    batch: int
    rows_of: Callable[[int], Rows]
    rough: Callable[[Config], Sequence[Costs]]
    hidden: Sequence[float]

    def found(self, best: Found) -> list[Found]:
        """Pipelines with as many micro-batches as one of equal groups, if they may be faster.

        Args:
            best: of equal groups.
        """
        count = best.config.micro_batches
        rows = self.rows_of(count)
        if best.config.groups > MOST_STAGES:
            return []
        if rows.pinning.values or rows.pinning.stages or imbalance(best) < UNEVEN:
            return []
        number = len(rows.pieces.order)
        configs = grids(self.request.machine, self.batch, count)
        ways = [
            Way(config=config, placing=None, costs=costs)
            for config in configs
            for costs in self.rough(config)
            if len(costs[0]) == number
        ]
        chosen = self._promising(ways)
        if not chosen:
            return []
        wanted = dict.fromkeys([*chosen, _of_group(best.config)])
        decided = [
            way
            for config in wanted
            for way in self._decided(replace(config, groups=best.config.groups))
        ]
        return [
            found
            for schedule in SCHEDULES
            for chain in self._chains(decided, schedule).best()
            if len(set(chain.options)) > 1
            for found in (self._simulated(chain, decided, schedule, best),)
        ]

    def _promising(self, ways: Sequence[Way]) -> list[Config]:
        """Grids of the best rough chain, if that is faster than all whose groups are alike."""
        if not ways:
            return []
        count = ways[0].config.micro_batches
        mixed = self._chains(ways, "1f1b").best()
        if not mixed:
            return []
        alike = [
            chain.step_s(count)
            for config in dict.fromkeys(way.config for way in ways)
            for chain in self._chains([w for w in ways if w.config == config], "1f1b").best()
        ]
        if mixed[0].step_s(count) > GAIN * min(alike, default=math.inf):
            return []
        return [ways[option].config for option in mixed[0].options]

    def _decided(self, config: Config) -> list[Way]:
        """The ways on a grid with the least work, placements decided."""
        desk = Desk(
            self.rows_of(config.micro_batches), config, self.request.limit_bytes, self.request.level
        )
        placings: dict[object, Placing] = {}
        for share in self.hidden:
            placing = Placing(hidden=share)
            placings.setdefault(desk.solution(placing).states, placing)
        given = [Placing(degrees=degrees) for degrees in degrees_of(config, desk.rows.schemes)]
        ways: list[Way] = []
        for placing in (*placings.values(), *given):
            try:
                costs = [desk.costs(placing, option) for option in RECOMPUTATIONS]
            except (InputError, InfeasibleError):
                continue  # sizes do not divide: nobody would configure it
            ways.append(Way(config=config, placing=placing, costs=costs))
        return sorted(ways, key=lambda way: way.work_s)[:WAYS]

    def _chains(self, ways: Sequence[Way], schedule: str) -> Chains:
        machine, count = self.request.machine, ways[0].config.micro_batches
        waits = schedule == "zero-bubble"
        options = [
            Option(
                num_devices=way.config.mesh.num_devices,
                runs=Runs(
                    [as_added(costs, count, waits=waits) for costs in way.costs],
                    1,
                    any_length=True,
                ),
                first_ranks=first_ranks(machine, way.config.mesh.num_devices),
            )
            for way in ways
        ]

        def transfer(number: int, after: int, rank: int) -> tuple[Floats, Floats]:
            return _crossing(ways[number], ways[after], rank, machine)

        limit = self.request.limit_bytes
        return Chains(
            options,
            machine.num_devices,
            MOST_STAGES,
            count,
            limit,
            transfer,
            (lambda _, stages: stages) if waits else (lambda left, _: left),
        )

    def _simulated(self, chain: Chain, ways: Sequence[Way], schedule: str, best: Found) -> Found:
        """A chain through the simulator."""
        machine, count = self.request.machine, best.config.micro_batches
        own = [ways[option] for option in chain.options]
        bounds = [0, *chain.stages.cuts, len(own[0].costs[0])]
        costs = [
            joined([way.costs[again.option(k - i)][k] for k in range(i, j)])
            for way, i, j, again in zip(
                own, bounds, bounds[1:], chain.stages.recompute, strict=False
            )
        ]
        sending = [[0.0, 0.0] for _ in own]
        rank = 0
        for number, cut in enumerate(chain.stages.cuts):
            rank += own[number].config.mesh.num_devices
            there, back = _crossing(own[number], own[number + 1], rank, machine)
            sending[number][0], sending[number + 1][1] = float(there[cut]), float(back[cut])
        pairs = [(there, back) for there, back in sending]
        orders = order(schedule, len(own), len(own), count)
        prediction = predict_pipeline(orders, costs, pairs, count, len(own))
        return Found(
            config=replace(best.config, groups=len(own)),
            placing=best.placing,
            staging=Staging(
                schedule=schedule, chunks=1, stages=chain.stages, rough_s=chain.step_s(count)
            ),
            prediction=prediction,
            limit_bytes=self.request.limit_bytes,
            own=tuple((way.config, way.placing or best.placing) for way in own),
        )


def imbalance(found: Found) -> float:
    """Share of a step that would be saved if all groups had equally much to do [0 to 1].

    Of one group it is unknown what others would do, and all of the step counts.
    """
    groups, stages = found.config.groups, found.prediction.stages
    if groups == 1:
        return 1.0
    busy = [sum(stage.busy_s for stage in stages[group::groups]) for group in range(groups)]
    count = found.config.micro_batches
    return count * (max(busy) - sum(busy) / groups) / found.prediction.step_s


def _of_group(config: Config) -> Config:
    """The grid and the micro-batches of a configuration, for one group."""
    return replace(config, groups=1)


def grids(machine: Machine, batch: int, micro_batches: int) -> list[Config]:
    """Grids that a group may have, of up to all devices but one unit; each for one group.

    Args:
        machine: where they are.
        batch: rows of the batch.
        micro_batches: parts of it.

    Example:
        >>> from weft.machine.presets import preset
        >>> found = grids(preset("dgx-h100x1"), 16, 4)
        >>> [str(config.mesh) for config in found if config.mesh.num_devices in (2, 3)]
        ['2', '2', '3']
    """
    total = machine.num_devices
    unit = next(u for u in range(1, total + 1) if total % u == 0 and total // u <= UNITS)
    node = min(group.devices_per_node for group in machine.groups)
    found: list[Config] = []
    for size in range(unit, total, unit):
        if size > node and size % node:
            continue
        for inner in range(1, min(size, node) + 1):
            data = size // inner
            rows, left = divmod(batch, micro_batches * data)
            if size % inner == 0 and not left:
                found.append(Config(1, data, inner, micro_batches, rows))
    return found


def first_ranks(machine: Machine, size: int) -> frozenset[int]:
    """Ranks at which a group lies on nodes as it does at the first one."""

    def lies(rank: int) -> list[tuple[int, int]]:
        return [(held, nodes) for _, held, nodes in nodes_of(machine, range(rank, rank + size))]

    wanted = lies(0)
    return frozenset(r for r in range(machine.num_devices - size + 1) if lies(r) == wanted)


def as_added(costs: Sequence[StageCost], count: float, *, waits: bool) -> list[StageCost]:
    """Pieces as the programme adds them up: with their share of what happens once a step.

    Args:
        costs: of pieces.
        count: micro-batches; infinitely many leave out what happens once a step.
        waits: whether they keep what gradients of weights wait for as well.
    """
    return [
        replace(
            cost,
            time=replace(
                cost.time,
                weights_s=cost.time.weights_s
                + cost.survey_s
                + (cost.setup_s + cost.finish_s) / count,
                kept_bytes=cost.time.kept_bytes + (cost.time.waiting_bytes if waits else 0.0),
            ),
        )
        for cost in costs
    ]


def _crossing(way: Way, after: Way, rank: int, machine: Machine) -> tuple[Floats, Floats]:
    """How long transfers between two grids take there and back, by the piece that comes next [s].

    Args:
        way, after: of a stage and of the next.
        rank: first rank of the latter.
        machine: where they are.
    """
    size, other = way.config.mesh.num_devices, after.config.mesh.num_devices
    link = link_between(machine, rank - size, rank)
    return crossing_s(way.costs[0], after.costs[0], size, other, link)


def crossing_s(
    one: Sequence[StageCost], two: Sequence[StageCost], size: int, other: int, link: Link
) -> tuple[Floats, Floats]:
    """How long transfers between two groups take there and back, by the piece that comes next [s].

    Args:
        one, two: costs of all pieces on each of them; what crosses is what the receiver takes up.
        size, other: their devices.
        link: what joins them.

    Returns:
        Both of shape [pieces + 1].
    """
    there, back = np.zeros(len(one) + 1), np.zeros(len(one) + 1)
    for cut in range(1, len(one)):
        there[cut] = transfer_s(two[cut - 1].forward, size, other, link)
        back[cut] = transfer_s(one[cut].backward, other, size, link)
    return there, back
