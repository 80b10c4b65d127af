"""The search over pipelines: rank all configurations roughly, work the best ones out, build one.

1. For each number of devices that share a row, and of rows, one programme on one mesh axis says
   what the pieces of the program cost (`measure`). From these, every configuration of groups,
   data parallelism and micro-batches gets a rough step time.
2. The most promising ones are worked out one after the other: a flow programme of the micro-batch
   on the group's own mesh, the pieces' costs under its solution, a dynamic programme over stages
   and recomputation (`partition`), and the schedules through the simulator.
3. The best is built on the whole program and simulated as it will run. Where that does not fit,
   its stages are cut anew with less memory.

A deep program is looked at through a short version of it, so none of this but the last step grows
with depth.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from weft.core.errors import InputError
from weft.core.units import format_bytes
from weft.parallel.depth import Views
from weft.parallel.exact.flow import Solution
from weft.parallel.exact.pipelines.configs import MOST_ROWS, Config, batch_rows, configs
from weft.parallel.exact.pipelines.evaluate import (
    Staging,
    fully_sharded,
    predicted,
    rough_step_s,
    schedules,
    stagings,
    state_sharded,
)
from weft.parallel.exact.pipelines.measure import Rows, Strategist, piece_costs
from weft.parallel.exact.pipelines.partition import Recompute, Runs, Tightest, tightest
from weft.parallel.exact.pipelines.slicing import Slicer
from weft.parallel.loop import Loop
from weft.parallel.pipeline.estimate import StageCost, estimate_pipeline
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction, StagedProgram
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.placement import Mesh
from weft.parallel.plan import Alternative, Level, ParallelPlan
from weft.parallel.planner import Progress
from weft.parallel.recompute import RECOMPUTATIONS, expand
from weft.parallel.request import PlanRequest
from weft.program.graph import Phase

__all__ = ["Found", "PipelineSearch"]

HIDDEN = (0.9, 0.0)
"""Shares of hideable communication that programmes take to cost nothing, on a machine that overlaps
fully. Derived: what a micro-batch has to hide behind is less than a whole step has, so both are
tried and the simulator chooses."""
WORKED_OUT = {Level.FAST: 4, Level.BEST: 24}
"""Configurations that are worked out, the most promising first."""
PRICES = (0.1, 1.0, 100.0)
"""Prices of memory where nothing fits without one, in units of the free plan's seconds per byte.
Derived: as for one stage, see `weft.parallel.exact.search`."""
SIMULATED = {Level.FAST: 3, Level.BEST: 9}
"""Schedules of a configuration that are simulated. Derived: closed forms order them well enough."""
MOST_BUILDS = 6
"""Times that a plan is cut anew because it does not fit. Derived: pieces tell the peak to a few
percent, so two suffice in most cases."""
TYPICAL_ROUNDS = 8
"""Micro-batches for which rough costs are worked out. Derived: the number only decides what is
gathered once a step."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A pipeline as far as the pieces tell.

    Attributes:
        config: groups, grids, micro-batches.
        price_s_per_byte, hidden: of the programme that decided placements.
        staging: schedule, stages, recomputation.
        prediction: of the simulator, from pieces.
        bound_s: no plan with this configuration is faster; of a short program if it is deep,
            until the plan is built [s].
        limit_bytes: limit of one device [bytes].
    """

    config: Config
    price_s_per_byte: float
    hidden: float
    staging: Staging
    prediction: PipelinePrediction
    bound_s: float
    limit_bytes: float

    @property
    def rank(self) -> tuple[bool, float]:
        """Order of preference: what fits by time, then what does not by size."""
        fits = self.prediction.peak_bytes <= self.limit_bytes
        return (not fits, self.prediction.step_s if fits else self.prediction.peak_bytes)

    @property
    def repeats(self) -> bool:
        """True if some stage runs operators again."""
        return any(again.greater and (again.lesser or again.more) for again in self.again)

    @property
    def again(self) -> tuple[Recompute, ...]:
        """What each stage recomputes."""
        return self.staging.stages.recompute

    @property
    def name(self) -> str:
        """What people call it."""
        chunks = f" of {self.staging.chunks} chunks" if self.staging.chunks > 1 else ""
        return f"{self.config}, {self.staging.schedule}{chunks}"


class PipelineSearch:
    """Looks for the best pipeline of a program on a machine.

    Args:
        request: what to plan.
        views: short versions of a deep program.
        progress: told in words what is going on.

    Attributes:
        found: what was worked out, in that order.
        notes: lines for people about what was left undone.
    """

    def __init__(
        self, request: PlanRequest, views: Views | None, progress: Progress = lambda _: None
    ) -> None:
        self.found: list[Found] = []
        self.notes: tuple[str, ...] = ()
        self._request = request
        self._machine = request.machine
        self._limit = request.limit_bytes
        self._progress = progress
        self._deadline_s = time.perf_counter() + request.time_limit_s
        short = views.short if views is not None else None
        self._short = request.program if short is None else short.program
        self._dropped = 0 if short is None else short.dropped
        self._batch = batch_rows(request.program)
        self._chosen: Found | None = None
        self._tried: list[Config] = []
        self._rows: dict[int, Rows] = {}
        self._tables: dict[tuple[int, int], list[list[StageCost]] | None] = {}

    def run(self) -> None:
        """Work out the most promising configurations, until time is up."""
        order = self.ranked()
        wanted = order[: WORKED_OUT[self._request.level]]
        for number, config in enumerate(wanted, start=1):
            if time.perf_counter() > self._deadline_s:
                left = len(wanted) - number + 1
                self.notes = (f"time limit: {left} of {len(wanted)} pipelines not worked out",)
                break
            self._progress(f"pipeline {number} of {len(wanted)}: {config}")
            self.found += self.worked_out(config)

    def ranked(self) -> list[Config]:
        """Configurations that may fit, by rough step time."""
        try:
            pieces = len(self._rows_of(self._smallest_count()).pieces.order)
        except InputError as error:
            self.notes = (f"no pipelines: {error.got}",)
            return []
        times: dict[Config, float] = {}
        most_rows = MOST_ROWS[self._request.level]
        for config in configs(self._machine, self._batch, pieces, most_rows):
            self._tried.append(config)
            table = self._table(config.inner, config.rows)
            if table is not None:
                times[config] = min(
                    rough_step_s(costs, config, self._limit)
                    for costs in self._spread(table, config)
                )
        return sorted((c for c, t in times.items() if t < float("inf")), key=times.__getitem__)

    def best(self) -> PipelinePlan | None:
        """The best pipeline found, built on the whole program; none if none fits."""
        for found in sorted(self.found, key=lambda found: found.rank):
            if found.prediction.peak_bytes > found.limit_bytes:
                break
            self._progress(f"building {found.name}")
            plan = self.built(found)
            if plan is not None:
                self._chosen = found
                return plan
        return None

    def alternatives(self) -> tuple[Alternative, ...]:
        """The best of each configuration that was worked out and not built, best first."""
        best: dict[Config, Found] = {}
        for found in sorted(self.found, key=lambda found: found.rank):
            best.setdefault(found.config, found)
        return tuple(
            Alternative(
                name=found.name,
                step_s=found.prediction.step_s,
                peak_bytes=found.prediction.peak_bytes,
                fits=not found.rank[0],
                note="from its pieces",
            )
            for found in best.values()
            if found is not self._chosen
        )

    def tightest(self) -> str:
        """What stands in the way where no pipeline fits, in words; empty if unknown."""
        least: tuple[Tightest, Config] | None = None
        for config in self._tried:
            table = self._table(config.inner, config.rows)
            if table is None or config.rows > min(c.rows for c in self._tried):
                continue
            for costs in self._spread(table, config):
                groups = range(config.groups)
                in_flight = [min(config.micro_batches, config.groups - g) for g in groups]
                found = tightest(Runs(costs), in_flight)
                if least is None or found.num_bytes < least[0].num_bytes:
                    least = (found, config)
        if least is None:
            return ""
        found, config = least
        first, last = (self._scope(config, piece) for piece in (found.first, found.last))
        where = first if first == last else f"{first} to {last}"
        return (
            f"of pipelines the smallest has {config}; its tightest stage is number {found.stage} "
            f"({where}), which needs {format_bytes(found.num_bytes)}"
        )

    def _scope(self, config: Config, piece: int) -> str:
        """Where a piece of the whole program lies, as the short one names it."""
        rows = self._rows_of(self._batch // config.rows)
        stage = rows.stages[rows.pieces.order[piece]]
        scopes = [node.scope for node in stage.program.nodes if node.phase is Phase.FORWARD]
        return next((scope for scope in scopes if scope), "the loss")

    # --- rough costs -----------------------------------------------------------------------

    def _smallest_count(self) -> int:
        return next((n for n in range(2, self._batch + 1) if self._batch % n == 0), 2)

    def _rows_of(self, count: int) -> Rows:
        if count not in self._rows:
            self._rows[count] = Rows(self._short, count, self._machine, self._dropped)
        return self._rows[count]

    def _table(self, inner: int, rows: int) -> list[list[StageCost]] | None:
        """Costs of all pieces of the whole program on `inner` devices, by option."""
        key = (inner, rows)
        if key not in self._tables:
            self._tables[key] = self._rough(inner, rows)
        return self._tables[key]

    def _rough(self, inner: int, rows: int) -> list[list[StageCost]] | None:
        count = self._batch // rows
        if count < 2:
            return None
        of = self._rows_of(count)
        loop = Loop(times=TYPICAL_ROUNDS, held=1)
        strategist = Strategist(of, Mesh((inner,)), loop, batch_outside=False)
        hidden = HIDDEN[0] * self._machine.overlap.value
        solution = strategist.model.solve(0.0, hidden)
        slicer = strategist.slicer(solution, self._limit, self._request.level)
        nothing, full = (piece_costs(of, slicer, option) for option in ("", "full"))
        return [nothing, full, full]

    def _spread(
        self, table: Sequence[Sequence[StageCost]], config: Config
    ) -> list[Sequence[Sequence[StageCost]]]:
        """The costs with state, or weights as well, shared out over a group's parts."""
        if config.data == 1:
            return [table]
        found: list[Sequence[Sequence[StageCost]]] = []
        for shared in (state_sharded, fully_sharded):
            known: dict[int, StageCost] = {}
            for costs in table:
                for cost in costs:
                    if id(cost) not in known:
                        known[id(cost)] = shared(cost, self._machine, config)
            found.append([[known[id(cost)] for cost in costs] for costs in table])
        return found

    # --- worked out ------------------------------------------------------------------------

    def worked_out(self, config: Config) -> list[Found]:
        """Pipelines of one configuration, whether they fit or not."""
        rows = self._rows_of(config.micro_batches)
        strategist = self._strategist(rows, config)
        overlap = self._machine.overlap.value
        free: dict[tuple[int, ...], Solution] = {}
        for share in HIDDEN if overlap > 0 else HIDDEN[-1:]:
            solution = strategist.model.solve(0.0, share * overlap)
            free.setdefault(solution.states, solution)
        found: list[Found] = []
        for solution in free.values():
            found += self._staged(rows, strategist, config, 0.0, solution)
        if all(one.rank[0] or one.repeats for one in found):
            found += self._cheaper(rows, strategist, config, list(free.values())[-1])
        return found

    def _cheaper(
        self, rows: Rows, strategist: Strategist, config: Config, free: Solution
    ) -> list[Found]:
        """What fits where memory has a price, up to the lowest price at which something does.

        Splitting more may cost less than computing twice.
        """
        unit = free.objective_s / max(free.num_bytes, 1.0)
        all_found: list[Found] = []
        for ratio in PRICES:
            solution = strategist.model.solve(ratio * unit, free.hidden)
            found = self._staged(rows, strategist, config, ratio * unit, solution)
            all_found += found
            if any(not one.rank[0] for one in found):
                break
        return all_found

    def _strategist(self, rows: Rows, config: Config) -> Strategist:
        loop = Loop(
            times=config.micro_batches, held=max(1, min(config.micro_batches, config.groups))
        )
        return Strategist(
            rows,
            config.mesh,
            loop,
            batch_outside=config.data > 1 and config.inner > 1,
        )

    def _staged(
        self,
        rows: Rows,
        strategist: Strategist,
        config: Config,
        price_s_per_byte: float,
        solution: Solution,
    ) -> list[Found]:
        by_option, ways = self._ways(rows, strategist, config, solution)
        return [
            Found(
                config=config,
                price_s_per_byte=price_s_per_byte,
                hidden=solution.hidden,
                staging=staging,
                prediction=predicted(by_option, config, staging, self._machine),
                bound_s=solution.bound_s / config.groups,
                limit_bytes=self._limit,
            )
            for staging in ways[: SIMULATED[self._request.level]]
        ]

    def _ways(
        self, rows: Rows, strategist: Strategist, config: Config, solution: Solution
    ) -> tuple[list[list[StageCost]], list[Staging]]:
        """Costs by option of recomputation, and the best stages for each schedule."""
        slicer = strategist.slicer(solution, self._limit, self._request.level)
        nothing = piece_costs(rows, slicer, "")
        by_option = [nothing, nothing, nothing]
        ways = stagings(by_option, config, self._limit)
        if len(ways) < len(schedules(config, len(nothing))):
            by_option[1:] = [piece_costs(rows, slicer, option) for option in ("cheap", "full")]
            ways = stagings(by_option, config, self._limit)
        return by_option, ways

    # --- built -----------------------------------------------------------------------------

    def built(self, found: Found) -> PipelinePlan | None:
        """The plan on the whole program; cut anew while it does not fit, none if it never does."""
        rows = self._rows_of(found.config.micro_batches)
        if self._dropped:
            rows_whole = Rows(self._request.program, found.config.micro_batches, self._machine)
        else:
            rows_whole = rows
        strategist = self._strategist(rows_whole, found.config)
        solution = strategist.model.solve(found.price_s_per_byte, found.hidden)
        slicer = strategist.slicer(solution, self._limit, self._request.level)
        bound_s = solution.bound_s / found.config.groups
        builder = _Builder(self._request, rows, rows_whole, slicer, replace(found, bound_s=bound_s))
        staging, limit = found.staging, self._limit
        options: list[list[StageCost]] = []
        for _ in range(MOST_BUILDS):
            plan = builder.plan(staging)
            peak = plan.prediction.peak_bytes
            if peak <= self._limit:
                return plan
            limit *= min(self._limit / peak, 0.99)
            options = options or self._options(rows, found)
            again = [
                s
                for s in stagings(options, found.config, limit)
                if (s.schedule, s.chunks) == (staging.schedule, staging.chunks)
            ]
            if not again:
                return None
            staging = again[0]
        return None

    def _options(self, rows: Rows, found: Found) -> list[list[StageCost]]:
        strategist = self._strategist(rows, found.config)
        solution = strategist.model.solve(found.price_s_per_byte, found.hidden)
        slicer = strategist.slicer(solution, self._limit, self._request.level)
        return [piece_costs(rows, slicer, option) for option in RECOMPUTATIONS]


class _Builder:
    """Writes plans for one found pipeline; lives only while it is built."""

    def __init__(
        self, request: PlanRequest, short: Rows, whole: Rows, slicer: Slicer, found: Found
    ) -> None:
        self._request = request
        self._pieces = short.pieces
        self._whole = whole
        self._slicer = slicer
        self._found = found
        positions = range(1, len(self._pieces.order))
        self._starts = self._pieces.first_nodes(whole.part, positions)

    def plan(self, staging: Staging) -> PipelinePlan:
        """The plan with these stages, simulated."""
        found, request = self._found, self._request
        cuts = tuple(self._starts[cut - 1] for cut in staging.stages.cuts)
        staged = StagedProgram(
            request.program, found.config.micro_batches, cuts, part=self._whole.part
        )
        known: dict[tuple[int, Recompute], ParallelPlan] = {}
        plans: list[ParallelPlan] = []
        bounds = [0, *staging.stages.cuts, len(self._pieces.order)]
        for number, ((i, j), again) in enumerate(
            zip(pairwise(bounds), staging.stages.recompute, strict=True)
        ):
            key = (staged.alike[number], replace(again, more=min(again.more, j - i)))
            if key not in known:
                known[key] = self._stage_plan(staged.stages[number], i, again)
            plans.append(staged.plan_for(number, known[key]))
        plan = PipelinePlan(
            program_name=request.program.name,
            program_digest=request.program.digest,
            machine_name=request.machine.name,
            machine_digest=request.machine.digest,
            micro_batches=found.config.micro_batches,
            schedule=staging.schedule,
            num_groups=found.config.groups,
            first_nodes=cuts,
            plans=tuple(plans),
            memory_limit_bytes=request.limit_bytes,
            prediction=found.prediction,
        )
        prediction = estimate_pipeline(plan, staged, request.machine)
        return replace(plan, prediction=replace(prediction, bound_s=found.bound_s))

    def _stage_plan(self, stage: StageProgram, first: int, again: Recompute) -> ParallelPlan:
        """A stage's plan: its first pieces recompute as one option says, the rest as the other."""
        by_option = [set(choose(stage.program)) for choose in RECOMPUTATIONS.values()]
        chosen: list[int] = []
        for number, origin in enumerate(stage.origin):
            if origin is None:
                continue
            piece = bisect_right(self._starts, origin.node)
            if number in by_option[again.option(piece - first)]:
                chosen.append(number)
        return self._slicer.plan(stage, expand(stage.program, tuple(chosen)))
