"""What a pipeline would take, put together from what its pieces cost.

The program of a micro-batch falls apart into pieces. On each block of devices, and for each way to
share a micro-batch out inside of it, every piece is placed and priced once; what some thousand
pipelines take follows from sums of pieces and from the schedule, in milliseconds each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from weft.core.errors import InfeasibleError, InputError, VerifyError
from weft.machine.topology import link_between, nodes_of, with_nodes_of
from weft.parallel.degrees import Degrees
from weft.parallel.depth import Views, undivided
from weft.parallel.pipeline.again import MIXTURES, Recompute
from weft.parallel.pipeline.estimate import (
    Load,
    StageCost,
    predict_pipeline,
    simulated_pipeline,
    transfer_s,
)
from weft.parallel.pipeline.expert import even_runs
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.piece_costs import joined, piece_costs
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction, StagedProgram
from weft.parallel.pipeline.schedule import in_flight, order
from weft.parallel.pipeline.slicing import Slicer, stage_plans
from weft.parallel.pipeline.sparing import sparing_cuts
from weft.parallel.pipeline.staged import Lies, Shape, Staged, Staging
from weft.parallel.pipeline.standing import ranks_of_groups
from weft.parallel.recompute import RECOMPUTATIONS
from weft.parallel.request import PlanRequest

__all__ = ["StageSketch"]

SAVINGS = 6
"""Times that stages recompute more, until their group has room. Chosen: what is missing is known to
a few percent each time."""
MADE = 3
"""Times that a plan is made, each but the first with less memory, until it fits. Derived: pieces
tell the peak to a few percent."""
KEPT = Recompute(0, 0, 0)
"""Nothing runs again."""


class StageSketch:
    """Prices pipelines of one program on one machine; what was found out is kept.

    Args:
        request: what to plan.
        views: short versions of a deep program; not used where something is pinned.

    Attributes:
        request: what to plan.
        broken: why pins of stages could not be kept, by the most stages by which they could not.
    """

    def __init__(self, request: PlanRequest, views: Views | None) -> None:
        self.request = request
        self.broken: InfeasibleError | None = None
        self._broken_stages = 0
        short = views.short if views is not None and not request.pinning else None
        self._view = undivided(request.program) if short is None else short
        self._rows: dict[int, Rows | None] = {}
        self._slicers: dict[tuple[int, Degrees], Slicer | None] = {}
        self._costs: dict[tuple[int, Lies, Degrees, int], list[StageCost]] = {}
        self._known: dict[tuple[int, Lies, Degrees], dict[object, StageCost]] = {}
        self._sums: dict[tuple[object, ...], StageCost] = {}
        self._first_ranks: dict[Shape, tuple[int, ...]] = {}
        self._bounds: dict[tuple[int, int], tuple[tuple[int, int], ...] | None] = {}
        self._cuts: dict[tuple[Shape, tuple[Degrees, ...], int], tuple[tuple[int, ...], ...]] = {}

    def rows(self, count: int) -> Rows | None:
        """The program with so many micro-batches; none if it cannot be cut so."""
        if count not in self._rows:
            try:
                rows = Rows.of(self.request, self._view, count)
                self._rows[count] = rows if rows.stages else None
            except (InputError, VerifyError):
                self._rows[count] = None
        return self._rows[count]

    def lies(self, shape: Shape) -> tuple[Lies, ...]:
        """On which nodes each group lies."""
        ranks = ranks_of_groups(shape.sizes, shape.standing)
        return tuple(nodes_of(self.request.machine, own) for own in ranks)

    def is_possible(self, count: int, degrees: Degrees) -> bool:
        """Whether a micro-batch can be shared out so."""
        return self._slicer(count, degrees) is not None

    def _slicer(self, count: int, degrees: Degrees) -> Slicer | None:
        key = (count, degrees)
        if key not in self._slicers:
            rows = self.rows(count)
            try:
                self._slicers[key] = (
                    None
                    if rows is None
                    else Slicer.by_degrees(rows, degrees, self.request.limit_bytes)
                )
            except (InputError, InfeasibleError):
                self._slicers[key] = None
        return self._slicers[key]

    def may_be_pinned(self, count: int, num_stages: int) -> bool:
        """Whether so many stages can be where pins want them; what forbids it is `broken`.

        Args:
            count: micro-batches.
            num_stages: stages.
        """
        return self.stage_bounds(count, num_stages) is not None

    def keeps_stages(self, count: int, cuts: Sequence[int]) -> bool:
        """Whether stages with these first pieces are where pins want what is in them.

        Args:
            count: micro-batches.
            cuts: first piece of each stage but the first.
        """
        bounds = self.stage_bounds(count, len(cuts) + 1)
        if bounds is None:
            return False
        stages = (bisect_right(cuts, piece) for piece in range(len(bounds)))
        pairs = zip(stages, bounds, strict=True)
        return all(least <= stage <= most for stage, (least, most) in pairs)

    def stage_bounds(self, count: int, num_stages: int) -> tuple[tuple[int, int], ...] | None:
        """The lowest and the highest stage of each piece; none if pins cannot be kept.

        Args:
            count: micro-batches.
            num_stages: stages.
        """
        key = (count, num_stages)
        if key not in self._bounds:
            rows = self.rows(count)
            assert rows is not None
            try:
                self._bounds[key] = rows.stage_bounds(num_stages)
            except InfeasibleError as error:
                self._bounds[key] = None
                if num_stages > self._broken_stages:
                    self.broken, self._broken_stages = error, num_stages
        return self._bounds[key]

    def shifted(self, staged: Staged) -> Iterator[Staged]:
        """Pipelines in which one stage begins a piece earlier or later, as pins allow."""
        for position in range(len(staged.cuts)):
            for shift in (-1, 1):
                cuts = list(staged.cuts)
                cuts[position] += shift
                moved = replace(staged, cuts=tuple(cuts))
                bounds = self.bounds(moved)
                keeps = self.keeps_stages(staged.shape.micro_batches, moved.cuts)
                if keeps and bounds == sorted(set(bounds)):
                    yield moved

    def costs(self, count: int, lies: Lies, degrees: Degrees, option: int) -> list[StageCost]:
        """Cost of each piece of the whole program on a block.

        Args:
            count: micro-batches.
            lies: where the block lies.
            degrees: how it shares out a micro-batch, as it can.
            option: of recomputation: nothing 0, cheap 1, full 2.
        """
        key = (count, lies, degrees, option)
        if key not in self._costs:
            rows, slicer = self.rows(count), self._slicer(count, degrees)
            assert rows is not None and slicer is not None
            known = self._known.setdefault(key[:3], {})
            machine = with_nodes_of(self.request.machine, lies)
            name = tuple(RECOMPUTATIONS)[option]
            self._costs[key] = piece_costs(rows, slicer.plan, name, machine, known)
        return self._costs[key]

    def cuts(
        self, shape: Shape, inside: Sequence[Degrees], chunks: int
    ) -> tuple[tuple[int, ...], ...]:
        """First pieces of stages but the first that are worth a try; none if there are none.

        They are those of stages that take about as long, and of those between which little is sent;
        where stages are pinned, those that keep the pins.

        Args:
            shape: groups and micro-batches.
            inside: how each group shares out a micro-batch.
            chunks: stages of each group.
        """
        key = (shape, tuple(inside), chunks)
        if key not in self._cuts:
            self._cuts[key] = self._worth_a_try(*key)
        return self._cuts[key]

    def _worth_a_try(
        self, shape: Shape, inside: Sequence[Degrees], chunks: int
    ) -> tuple[tuple[int, ...], ...]:
        costs = [
            self.costs(shape.micro_batches, lies, own, 0)
            for lies, own in zip(self.lies(shape), inside, strict=True)
        ]
        num_stages = len(costs) * chunks
        bounds = self.stage_bounds(shape.micro_batches, num_stages)
        if bounds is None or len(costs[0]) < num_stages:
            return ()
        tables = [[cost.time.busy_s for cost in own] for own in costs]
        fastest = min(sum(table) for table in tables)
        even = tuple(even_runs(tables[0], [fastest / sum(table) for table in tables] * chunks))
        crossing = [
            self._crossing_s(shape, costs, group, (group + 1) % len(costs))
            for group in range(len(costs))
        ]
        sparing = sparing_cuts(
            tables * chunks,
            (crossing * chunks)[:-1],
            even,
            rounds=chunks * (shape.micro_batches - 1),
            bounds=bounds,
        )
        found = [even] if self.keeps_stages(shape.micro_batches, even) else []
        found += [] if sparing is None else [sparing]
        return tuple(dict.fromkeys(found))

    def _crossing_s(
        self, shape: Shape, costs: Sequence[Sequence[StageCost]], group: int, following: int
    ) -> list[float]:
        """Of each piece, how long what crosses takes both ways if a stage begins there [s]."""
        forward, backward = costs[following], costs[group]
        return [0.0] + [
            self.sent_s(shape, before.forward, group, following)
            + self.sent_s(shape, after.backward, following, group)
            for before, after in zip(forward, backward[1:], strict=False)
        ]

    def sent_s(self, shape: Shape, load: Load, source: int, target: int) -> float:
        """How long what a stage of a group sends to one of another takes [s].

        Args:
            shape: of the pipeline.
            load: what each device that receives takes up.
            source, target: groups.
        """
        if shape not in self._first_ranks:
            ranks = ranks_of_groups(shape.sizes, shape.standing)
            self._first_ranks[shape] = tuple(own.start for own in ranks)
        if not load.parcels or source == target:
            return 0.0
        first = self._first_ranks[shape]
        link = link_between(self.request.machine, first[source], first[target])
        return transfer_s(load, shape.sizes[source], shape.sizes[target], link)

    def staging(self, staged: Staged, spare: float = 0.0) -> Staging:
        """What a pipeline takes; stages recompute as little as fits.

        Args:
            staged: the decision.
            spare: share of the memory to leave free.
        """
        return _Filled(self, staged, spare).staging()

    @cached_property
    def limits_bytes(self) -> dict[int, float]:
        """What devices of each group of nodes may use [bytes]."""
        own = [group.device.memory_bytes.value for group in self.request.machine.groups]
        limit = self.request.limit_bytes
        return {k: limit if limit < min(own) else size for k, size in enumerate(own)}

    def stage_cost(
        self, staged: Staged, lies: Sequence[Lies], number: int, again: Recompute
    ) -> StageCost:
        """What a stage takes that recomputes so."""
        group = number % len(staged.shape.sizes)
        bounds = self.bounds(staged)
        key = (
            staged.shape.micro_batches,
            lies[group],
            staged.inside[group],
            *bounds[number : number + 2],
            again,
        )
        if key not in self._sums:
            first, end = bounds[number], bounds[number + 1]
            tables = {
                option: self.costs(*key[:3], option)
                for option in {again.option(position) for position in range(end - first)}
            }
            self._sums[key] = joined(
                [tables[again.option(piece - first)][piece] for piece in range(first, end)]
            )
        return self._sums[key]

    def bounds(self, staged: Staged) -> list[int]:
        """First piece of each stage, and the number of pieces."""
        rows = self.rows(staged.shape.micro_batches)
        assert rows is not None
        return [0, *staged.cuts, len(rows.pieces.order)]

    def fitted(self, staging: Staging) -> PipelinePlan | None:
        """The pipeline as a plan; where it does not fit as it was said to, with less memory.

        Returns:
            None if the whole program cannot be cut so.
        """
        spare = 0.0
        for left in range(MADE - 1, -1, -1):
            try:
                plan = self.made(staging)
            except (InputError, InfeasibleError, VerifyError):
                return None  # layers that are alike in a short version are not in the whole one
            if plan.fits or not staging.fits or not left:
                return plan
            peak, limit = plan.tightest_bytes
            spare = 1.0 - (1.0 - spare) * min(limit / peak, 0.99)
            staging = self.staging(staging.staged, spare)
        return None

    def made(self, staging: Staging) -> PipelinePlan:
        """The pipeline as a plan for the whole program, simulated as it will run.

        Raises:
            InputError, VerifyError: the whole program cannot be cut as its short version can.
            InfeasibleError: the plan does not keep a pin.
        """
        staged, request = staging.staged, self.request
        count, groups = staged.shape.micro_batches, len(staged.shape.sizes)
        rows = self.rows(count)
        assert rows is not None
        lifted = {
            degrees: slicer.lifted(rows.whole)
            for degrees in set(staged.inside)
            if (slicer := self._slicer(count, degrees)) is not None
        }
        cut, part = rows.whole_cut.joined(staged.cuts), rows.whole.program
        program = StagedProgram(request.program, count, cut, part=part)
        slicers = [lifted[staged.inside[s % groups]] for s in range(staged.num_stages)]
        plans = stage_plans(rows, program, staged.cuts, staging.again, slicers)
        require_pipeline_kept(plans, program, rows.pinning)
        return simulated_pipeline(
            program,
            plans,
            request.machine,
            num_groups=groups,
            schedule=staged.schedule,
            memory_limit_bytes=request.limit_bytes,
            standing=staged.shape.standing,
        )


class _Filled:
    """A pipeline whose stages recompute as little as fits; lives only inside `staging`."""

    def __init__(self, sketch: StageSketch, staged: Staged, spare: float) -> None:
        self._sketch, self._staged = sketch, staged
        self._lies = sketch.lies(staged.shape)
        self._groups = len(staged.shape.sizes)
        self._limits = [
            (1.0 - spare) * min(sketch.limits_bytes[number] for number, _, _ in lies)
            for lies in self._lies
        ]
        count = staged.shape.micro_batches
        self._flying = in_flight(staged.schedule, self._groups, staged.chunks, count)
        self._orders = order(staged.schedule, staged.num_stages, self._groups, count)

    def staging(self) -> Staging:
        again = [KEPT] * self._staged.num_stages
        missing = [0.0] * self._groups
        prediction = self._predicted(again)
        for _ in range(SAVINGS):
            excess = [
                peak - limit
                for peak, limit in zip(prediction.group_peak_bytes, self._limits, strict=True)
            ]
            if max(excess) <= 0:
                break
            missing = [had + max(more, 0.0) for had, more in zip(missing, excess, strict=True)]
            before = again
            again = [self._saving(s, missing[s % self._groups]) for s in range(len(again))]
            if again == before:
                break
            prediction = self._predicted(again)
        ratios = [
            peak / limit if limit > 0 else float("inf")
            for peak, limit in zip(prediction.group_peak_bytes, self._limits, strict=True)
        ]
        return Staging(
            staged=self._staged,
            again=tuple(again),
            step_s=prediction.step_s,
            fits=max(ratios) <= 1.0,
            excess=max(ratios),
        )

    def _predicted(self, again: Sequence[Recompute]) -> PipelinePrediction:
        costs = [
            self._sketch.stage_cost(self._staged, self._lies, number, own)
            for number, own in enumerate(again)
        ]
        count = self._staged.shape.micro_batches
        return predict_pipeline(self._orders, costs, self._sending, count, self._groups)

    @cached_property
    def _sending(self) -> list[tuple[float, float]]:
        """Of each stage, how long what it sends forward and back takes [s]."""
        cuts, last = self._staged.cuts, self._staged.num_stages - 1
        return [
            (
                self._sent_s(stage, stage + 1, cuts[stage]) if stage < last else 0.0,
                self._sent_s(stage, stage - 1, cuts[stage - 1]) if stage else 0.0,
            )
            for stage in range(last + 1)
        ]

    def _sent_s(self, source: int, target: int, cut: int) -> float:
        """How long what one stage sends to the next or the last one takes [s].

        Args:
            source, target: stages.
            cut: first piece of the later of them.
        """
        shape, (a, b) = self._staged.shape, (source % self._groups, target % self._groups)
        costs = self._sketch.costs(
            shape.micro_batches, self._lies[b], self._staged.inside[b], option=0
        )
        load = costs[cut - 1].forward if source < target else costs[cut].backward
        return self._sketch.sent_s(shape, load, a, b)

    def _saving(self, number: int, missing_bytes: float) -> Recompute:
        """What a stage recomputes to save so much, in the least time; as much as it can if need be.

        Of several stages of a group each saves its part.
        """
        if missing_bytes <= 0:
            return KEPT
        staged = self._staged
        group = number % self._groups
        first, end = self._sketch.bounds(staged)[number : number + 2]
        tables = [
            self._sketch.costs(
                staged.shape.micro_batches, self._lies[group], staged.inside[group], option
            )[first:end]
            for option in range(len(RECOMPUTATIONS))
        ]
        wanted = missing_bytes / staged.chunks
        waits = staged.schedule == "zero-bubble"
        found: list[tuple[float, float, Recompute]] = []
        for lesser, greater in MIXTURES:
            for more in range(end - first + 1):
                own = Recompute(lesser, greater, more)
                saved, seconds = self._saved(tables, own, self._flying[number], waits=waits)
                found.append((max(wanted - saved, 0.0), seconds, own))
                if saved >= wanted:
                    break
        return min(found, key=lambda one: one[:2])[2]

    @staticmethod
    def _saved(
        tables: Sequence[Sequence[StageCost]], again: Recompute, flying: float, *, waits: bool
    ) -> tuple[float, float]:
        """Bytes that a stage saves that recomputes so, and seconds that a micro-batch takes."""
        chosen = [tables[again.option(k)][k] for k in range(len(tables[0]))]

        def held(costs: Sequence[StageCost]) -> float:
            kept = sum(c.time.kept_bytes + waits * c.time.waiting_bytes for c in costs)
            transient = max(c.transient_bytes for c in costs)
            return flying * (costs[0].opening_bytes + kept) + transient

        return held(tables[0]) - held(chosen), sum(c.time.busy_s for c in chosen)
