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
from collections.abc import Sequence
from dataclasses import replace
from math import inf

from weft.core.errors import InfeasibleError, InputError
from weft.core.units import format_bytes
from weft.parallel.depth import Views, undivided
from weft.parallel.exact.pipelines.branches import Branches
from weft.parallel.exact.pipelines.build import build
from weft.parallel.exact.pipelines.build_unequal import build_unequal
from weft.parallel.exact.pipelines.configs import MOST_ROWS, Config, configs
from weft.parallel.exact.pipelines.decide import Desk, degrees_of
from weft.parallel.exact.pipelines.evaluate import (
    predicted,
    rough_step_s,
    schedules,
    stagings,
    worthwhile,
)
from weft.parallel.exact.pipelines.found import Found, Placing
from weft.parallel.exact.pipelines.partition import Runs, Tightest, tightest
from weft.parallel.exact.pipelines.rough import Rough
from weft.parallel.exact.pipelines.unequal import Unequal
from weft.parallel.kept import unplaceable
from weft.parallel.pipeline.estimate import StageCost
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.pinned import allowed_cuts
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import Alternative, Level
from weft.parallel.planner import Progress
from weft.parallel.recompute import RECOMPUTATIONS
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.program.graph import Phase

__all__ = ["PipelineSearch"]

HIDDEN = (0.9, 0.0)
"""Shares of hideable communication that programmes take to cost nothing, on a machine that overlaps
fully. Derived: what a micro-batch has to hide behind is less than a whole step has, so both are
tried and the simulator chooses."""
WORKED_OUT = {Level.FAST: 3, Level.BEST: 24}
"""Configurations that are worked out at most, the most promising first."""
PATIENCE = 6
"""Configurations in a row that may be no better than the best, before the rest are left. Derived:
on Llama-3 70B over 512 devices what was best by then was 0.7 % slower than the best of all 24."""
PRICES = (0.1, 1.0, 100.0)
"""Prices of memory where nothing fits without one, in units of the free plan's seconds per byte.
Derived: as for one stage, see `weft.parallel.exact.search`."""
COUNTS = 2
"""Numbers of micro-batches for which unequal groups are looked for, those of the best equal ones.
Derived: with many micro-batches the number changes the bubble only."""
SIMULATED = {Level.FAST: 1, Level.BEST: 2}
"""Schedules of a configuration that are simulated. Derived: closed forms order them well enough;
where transfers are slow, they are ordered by the simulator."""
NEAR = 1.1
"""Step by the closed form over the best one simulated, beyond which none is simulated. Derived:
closed forms leave out transfers, and come within a few percent where those are fast."""
FAR = 1.4
"""Step that recomputes over the best one, beyond which no price of memory is tried. Derived: the
forward pass is a third of the work, so nothing saves more than a quarter by not repeating it."""


class PipelineSearch:
    """Looks for the best pipeline of a program on a machine.

    Args:
        request: what to plan.
        views: short versions of a deep program; not used where something is pinned, since paths
            of pins are those of the whole program.
        progress: told in words what is going on.
        least_groups: 2 to leave out steps in micro-batches on one group.
        most_s: a step that is of no interest, since something else is known to be faster [s].

    Attributes:
        found: what was worked out, in that order.
        notes: lines for people about what was left undone.
        broken: what the pins made impossible first, if they did anywhere.
    """

    def __init__(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress = lambda _: None,
        least_groups: int = 1,
        most_s: float = inf,
    ) -> None:
        self.found: list[Found] = []
        self.notes: tuple[str, ...] = ()
        self.broken: InfeasibleError | None = None
        self._least_groups = least_groups
        self._most_s = most_s
        self._request = request
        self._machine = request.machine
        self._limit = request.limit_bytes
        self._progress = progress
        self._deadline_s = time.perf_counter() + request.time_limit_s
        short = views.short if views is not None and not request.pinning else None
        self._view = undivided(request.program) if short is None else short
        self._batch = batch_rows(request.program)
        self._chosen: Found | None = None
        self._left: list[Config] | None = None
        self._too_large: list[Found] = []
        self._tried: list[Config] = []
        self._kept: Desk | None = None
        self._rough = Rough(request, self._view, self._batch, HIDDEN[0])
        self._has_branches: bool | None = None
        self._whole: dict[int, Branches] = {}

    def run(self) -> None:
        """Work out the most promising configurations, until time is up."""
        if self._left is None:
            self._left = self.ranked()
        wanted, done, idle = min(len(self._left), WORKED_OUT[self._request.level]), 0, 0
        while self._left:
            config = self._left[0]
            if self._worth_s < inf and (done >= wanted or idle == PATIENCE):
                break
            if time.perf_counter() > self._deadline_s:
                left = wanted - done
                self.notes = (f"time limit: {left} of {wanted} pipelines not worked out",)
                break
            self._progress(f"pipeline {done + 1} of {max(wanted, done + 1)}: {config}")
            self._left.pop(0)
            before = self._worth_s
            try:
                self.found += self.worked_out(config)
            except InfeasibleError as error:
                self._break(error)  # the pins cannot be kept there
            else:
                done += 1
                idle = 0 if self._worth_s < before or before == inf else idle + 1

    @property
    def _worth_s(self) -> float:
        """A step has to be shorter than this to be of interest; infinite if all are [s]."""
        return min(_least_s(self.found), self._most_s)

    @property
    def _rough_of_best_s(self) -> float:
        """What the best so far was ordered by, 0 if there is none [s].

        The closed form of schedules with several stages to a group may be too high.
        """
        best = min(self.found, key=lambda found: found.rank, default=None)
        return 0.0 if best is None or not best.fits else best.staging.rough_s

    def _break(self, error: InfeasibleError) -> None:
        self.broken = self.broken or error

    def ranked(self) -> list[Config]:
        """Configurations that may fit, by rough step time."""
        try:
            rows = self.rows_of(self._rough.smallest_count)
            pieces = len(rows.pieces.order) if rows.stages else 0
            if rows.pinning.stages:
                allowed_cuts(rows.part, rows.pinning, rows.pinning.num_stages)
        except InputError as error:
            self.notes = (f"no pipelines: {error.got}",)
            return []
        except InfeasibleError as error:
            self._break(error)
            return []
        times: dict[Config, float] = {}
        longest = 0
        most_rows = MOST_ROWS[self._request.level]
        for config in configs(self._machine, self._batch, pieces, most_rows):
            if config.groups < self._least_groups:
                continue
            most = max(
                (config.groups * k for _, k in schedules(config, pieces, Level.BEST)), default=0
            )
            longest = max(longest, most)
            if most < rows.pinning.num_stages or not self._may_keep(config):
                continue
            if time.perf_counter() > self._deadline_s:
                self.notes = ("time limit: not all pipelines were looked at",)
                break
            self._tried.append(config)
            table = self._rough.table(config.inner, config.rows)
            if table is not None:
                times[config] = min(
                    rough_step_s(costs, config, self._limit)
                    for costs in self._rough.spread(table, config)
                )
        if not self._tried:
            self.notes = (*self.notes, f"no pipelines: no grid divides {self._batch} rows")
        if rows.pinning.stages and longest < rows.pinning.num_stages:
            self._break(
                InfeasibleError(
                    need=f"{rows.pinning.num_stages} stages, for {rows.pinning.text}",
                    got=f"at most {longest} on {self._machine.name}",
                    hint="drop a pin, or take more devices",
                    constraint="pins",
                )
            )
        return sorted((c for c, t in times.items() if t < inf), key=times.__getitem__)

    def _may_keep(self, config: Config) -> bool:
        """Whether no pin asks for what the grid cannot do; rough costs know no pins."""
        if not self._request.pinning.values:
            return True
        rows = self.rows_of(config.micro_batches)
        lost = unplaceable(rows.pinning, rows.part, config.mesh)
        if lost is not None:
            self._break(lost)
        return lost is None

    def best(self) -> PipelinePlan | None:
        """The best pipeline found, built on the whole program; none if none fits."""
        for found in sorted(self.found, key=lambda found: found.rank):
            if not found.fits or found.prediction.step_s > self._most_s:
                break
            self._progress(f"building {found.name}")
            try:
                plan = self.built(found)
            except InfeasibleError as error:
                self._break(error)
                self.notes = (*self.notes, f"{found.name} would not keep the pins")
                continue
            if plan is not None:
                self._chosen = found
                return self._no_slower(plan, self._rivals(found))
            self._too_large.append(found)
        return None

    def _rivals(self, found: Found) -> list[Found]:
        """What may be faster than the best by its pieces, once it is built.

        Pieces do not tell which gradients a stage that holds a whole branch can leave for later,
        nor, where all of them are one stage, what its gathers of weights hide behind.
        """
        others = [one for one in self.found if one.fits and one.rows is None]
        if found.rows is not None:
            return sorted(others, key=lambda one: one.rank)[:1]
        if found.config.groups > 1:
            return []
        most_s = NEAR * found.prediction.step_s
        near = [one for one in others if one.config == found.config and one is not found]
        return [one for one in near if one.prediction.step_s <= most_s]

    def _no_slower(self, plan: PipelinePlan, rivals: Sequence[Found]) -> PipelinePlan:
        """A plan, or that of a rival that is faster."""
        for found in rivals:
            try:
                other = self.built(found)
            except InfeasibleError:
                continue
            if other is not None and other.prediction.step_s < plan.prediction.step_s:
                self._chosen, plan = found, other
        return plan

    def best_after_all(self) -> PipelinePlan | None:
        """The best pipeline; more configurations are worked out while none that is built fits."""
        self.run()
        self.found += self.unequal()
        plan = self.best()
        needed = self._most_s == inf
        while plan is None and needed and self._left and time.perf_counter() <= self._deadline_s:
            self.found.clear()
            self.run()
            plan = self.best()
        return plan

    def alternatives(self) -> tuple[Alternative, ...]:
        """The best of each configuration that was worked out and not built, best first."""
        best: dict[tuple[Config, ...], Found] = {}
        for found in sorted(self.found, key=lambda found: found.rank):
            best.setdefault(found.shape, found)
        return tuple(
            Alternative(
                name=found.name,
                step_s=found.prediction.step_s,
                peak_bytes=found.prediction.peak_bytes,
                fits=found.fits and found not in self._too_large,
                note="from its pieces",
            )
            for found in best.values()
            if self._chosen is None or found.shape != self._chosen.shape
        )

    def tightest(self) -> str:
        """What stands in the way where no pipeline fits, in words; empty if unknown."""
        least: tuple[Tightest, Config] | None = None
        for config in self._tried:
            table = self._rough.table(config.inner, config.rows)
            if table is None or config.rows > min(c.rows for c in self._tried):
                continue
            for costs in self._rough.spread(table, config):
                groups = range(config.groups)
                in_flight = [min(config.micro_batches, config.groups - g) for g in groups]
                found = tightest(Runs(costs, config.groups), in_flight)
                if least is None or found.num_bytes < least[0].num_bytes:
                    least = (found, config)
        if least is None or least[0].num_bytes <= self._limit:
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
        rows = self.rows_of(self._batch // config.rows)
        stage = rows.stages[rows.pieces.order[piece]]
        scopes = [node.scope for node in stage.program.nodes if node.phase is Phase.FORWARD]
        return next((scope for scope in scopes if scope), "the loss")

    def rows_of(self, count: int) -> Rows:
        """The program with so many micro-batches, short if the whole one is deep."""
        return self._rough.rows_of(count)

    # --- worked out ------------------------------------------------------------------------

    def unequal(self) -> list[Found]:
        """Pipelines whose groups differ, by the best of equal ones; none at level fast."""
        fitting = [one for one in self.found if one.fits]
        is_late = time.perf_counter() > self._deadline_s
        if self._request.level is not Level.BEST or not fitting or is_late:
            return []
        best: dict[int, Found] = {}
        for one in sorted(fitting, key=lambda one: one.prediction.step_s):
            best.setdefault(one.config.micro_batches, one)
        overlap = self._machine.overlap.value
        hidden = [share * overlap for share in HIDDEN]
        search = Unequal(self._request, self._batch, self.rows_of, self._rough.of_grid, hidden)
        found: list[Found] = []
        for count, one in list(best.items())[:COUNTS]:
            if time.perf_counter() > self._deadline_s:
                break
            self._progress(f"unequal groups, {count} micro-batches")
            found += search.found(one)
        return found

    def worked_out(self, config: Config, schedule: str = "") -> list[Found]:
        """Pipelines of one configuration, whether they fit or not.

        Args:
            config: groups, grids, micro-batches.
            schedule: look at this schedule only.
        """
        desk = self._desk(config)
        overlap = self._machine.overlap.value
        free: dict[tuple[int, ...], Placing] = {}
        for share in HIDDEN if overlap > 0 else HIDDEN[-1:]:
            placing = Placing(hidden=share * overlap)
            free.setdefault(desk.solution(placing).states, placing)
        if not any(self._worthwhile(desk, placing, schedule) for placing in free.values()):
            return []
        found: list[Found] = []
        tried: list[Sequence[StageCost]] = []
        for placing in free.values():
            costs = desk.costs(placing, "")
            if costs not in tried:
                found += self._staged(desk, placing, schedule)
                tried.append(costs)
        if all(not one.fits or one.repeats for one in found) and self._may_come_near(found, FAR):
            found += self._cheaper(desk, list(free.values())[-1], schedule, found)
        if self._request.level is Level.BEST and self._may_come_near(found, NEAR):
            for degrees in degrees_of(config, desk.rows.schemes):
                try:
                    found += self._staged(desk, Placing(degrees=degrees), schedule)
                except (InputError, InfeasibleError):
                    continue  # sizes do not divide, or pins break: nobody would configure it
        if any(one.fits and one.prediction.step_s < self._worth_s for one in found):
            self._kept = desk
        return found + self._beside(desk, found, schedule)

    def _beside(self, desk: Desk, found: Sequence[Found], schedule: str) -> list[Found]:
        """Pipelines whose stages are runs of another order, where branches lie side by side."""
        config = desk.config
        branches = self._branches(config.micro_batches) if config.groups > 1 and found else None
        if branches is None:
            return []
        placing = min(found, key=lambda one: one.rank).placing
        along = Desk(branches.rows, config, self._limit, self._request.level)
        slicer = (desk if branches.rows is desk.rows else along).slicer(placing)
        left_s = max(self._deadline_s - time.perf_counter(), 0.0)
        try:
            rows = branches.for_stages(config, slicer, self._limit, left_s)
            if rows is None:
                return []
            along = Desk(rows, config, self._limit, self._request.level)
            return [replace(one, rows=rows) for one in self._staged(along, placing, schedule)]
        except (InputError, InfeasibleError):
            return []  # the backward pass cannot be cut between the branches, or pins break

    def _branches(self, count: int) -> Branches | None:
        """The program with so many micro-batches, if branches of it lie side by side."""
        if self._has_branches is None:
            self._has_branches = Branches(self.rows_of(count)).has_any
        if not self._has_branches:
            return None
        if count not in self._whole:
            rows = self.rows_of(count)
            if self._view.gaps:
                rows = Rows(undivided(self._request.program), count, self._machine)
            self._whole[count] = Branches(rows)
        return self._whole[count]

    def _may_come_near(self, found: Sequence[Found], times: float) -> bool:
        """Whether what was found for a configuration is not so much slower than the best so far."""
        least = _least_s(found)
        return least == inf or least <= times * self._worth_s

    def _cheaper(
        self, desk: Desk, free: Placing, schedule: str, without: Sequence[Found]
    ) -> list[Found]:
        """What fits where memory has a price, up to the first price that gains nothing.

        Splitting more may cost less than computing twice.

        Args:
            desk: where placements are decided.
            free: how, if memory has no price.
            schedule: look at this schedule only, if it is given.
            without: what was found where memory has no price.
        """
        solution = desk.solution(free)
        unit = solution.objective_s / max(solution.num_bytes, 1.0)
        all_found: list[Found] = []
        least = _least_s(without)
        for ratio in PRICES:
            found = self._staged(desk, replace(free, price_s_per_byte=ratio * unit), schedule)
            all_found += found
            if least <= _least_s(found) < inf:
                break
            least = min(least, _least_s(found))
        return all_found

    def _staged(self, desk: Desk, placing: Placing, schedule: str) -> list[Found]:
        """The best stages for each of the most promising schedules."""
        config, near_s = desk.config, NEAR * max(self._worth_s, self._rough_of_best_s)
        by_option = [desk.costs(placing, "")] * len(RECOMPUTATIONS)
        tried = self._worthwhile(desk, placing, schedule)
        bounds = desk.rows.stage_bounds
        ways = stagings(by_option, config, self._limit, tried, self._machine, bounds)
        if len(ways) < len(tried):
            by_option = [desk.costs(placing, option) for option in RECOMPUTATIONS]
            ways = stagings(by_option, config, self._limit, tried, self._machine, bounds)
        return [
            Found(
                config=config,
                placing=placing,
                staging=staging,
                prediction=predicted(by_option, config, staging, self._machine),
                limit_bytes=self._limit,
            )
            for staging in ways[: SIMULATED[self._request.level]]
            if staging.rough_s <= near_s
        ]

    def _worthwhile(self, desk: Desk, placing: Placing, schedule: str) -> list[tuple[str, int]]:
        """Schedules that may come near the best step so far."""
        costs, most_s = desk.costs(placing, ""), NEAR * self._worth_s
        tried = worthwhile(costs, desk.config, self._request.level, most_s)
        return [way for way in tried if not schedule or way[0] == schedule]

    def built(self, found: Found) -> PipelinePlan | None:
        """The plan on the whole program; none if it does not fit after all."""
        desk = self._desk(found.config)
        if found.rows is not None:
            desk = Desk(found.rows, found.config, self._limit, self._request.level)
        if found.own:
            return build_unequal(self._request, found, desk.rows)
        return build(self._request, found, desk)

    def _desk(self, config: Config) -> Desk:
        """Where placements are decided; that of the best configuration so far is kept."""
        if self._kept is None or self._kept.config != config:
            rows = self.rows_of(config.micro_batches)
            return Desk(rows, config, self._limit, self._request.level)
        return self._kept


def _least_s(found: Sequence[Found]) -> float:
    """The shortest step of those that fit; infinite if none does [s]."""
    return min((one.prediction.step_s for one in found if one.fits), default=inf)
