"""The best plan that hand-tuning finds: a grid over the degrees of the classical schemes.

Every combination of pipeline groups, data, tensor, sequence, context and expert parallelism, stages
of ZeRO, rows of a micro-batch, schedule, chunks and recomputation is priced from the pieces of
the program, as the search prices its own. Stages are cut by the search's own programme, so that
the memory of each is looked at: better than an engineer's equal layers. The best are built and
simulated whole. Plans of one stage are those of `weft.parallel.experts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from weft.core.errors import InputError
from weft.parallel.depth import Views
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.decide import Desk, degrees_of
from weft.parallel.exact.pipelines.evaluate import predicted, schedules, stagings
from weft.parallel.exact.pipelines.found import Found, Placing
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.experts import expert_proposals
from weft.parallel.pipeline.again import Recompute
from weft.parallel.plan import Level
from weft.parallel.recompute import RECOMPUTATIONS
from weft.parallel.request import PlanRequest

__all__ = ["best_by_hand"]

BUILT = 3
"""Pipelines of the grid that are built and simulated whole."""
SIMULATED = 3
"""Schedules of a combination that are simulated."""


def best_by_hand(
    request: PlanRequest, views: Views | None, search: PipelineSearch, most_configs: int
) -> tuple[str, float, int]:
    """The fastest plan of the grid that fits.

    Args:
        request: what is planned.
        views: short versions of a deep program.
        search: knows the program's pieces, and orders configurations roughly.
        most_configs: configurations of groups and micro-batches that are looked at.

    Returns:
        Its name, its simulated step [s], and how many combinations were priced; an infinite step
        where none fits.
    """
    best, step_s = "none that fits", float("inf")
    proposals = expert_proposals(request, views)
    for proposal in proposals:
        if proposal.fits and proposal.prediction.step_s < step_s:
            best, step_s = f"one stage, {proposal.name}", proposal.prediction.step_s
    found: list[Found] = []
    for config in search.ranked()[:most_configs]:
        found += by_hand(search, request, config)
    fitting = sorted((f for f in found if f.fits), key=lambda f: f.rank)
    for one in fitting[:BUILT]:
        plan = search.built(one)
        if plan is not None and plan.prediction.step_s < step_s:
            best, step_s = one.name, plan.prediction.step_s
    return best, step_s, len(found) + len(proposals)


def by_hand(search: PipelineSearch, request: PlanRequest, config: Config) -> Iterator[Found]:
    """What an engineer may configure on the grid of a group."""
    rows = search.rows_of(config.micro_batches)
    desk = Desk(rows, config, request.limit_bytes, Level.EXPERT)
    for degrees in degrees_of(config, rows.schemes):
        placing = Placing(degrees=degrees)
        try:
            costs = {again: desk.costs(placing, again) for again in RECOMPUTATIONS}
        except InputError:
            continue  # sizes do not divide
        for option, again in enumerate(RECOMPUTATIONS):
            alone = [costs[again]] * len(RECOMPUTATIONS)
            ways = schedules(config, len(alone[0]), Level.BEST)
            for staging in stagings(alone, config, request.limit_bytes, ways, request.machine)[
                :SIMULATED
            ]:
                prediction = predicted(alone, config, staging, request.machine)
                everywhere = tuple(Recompute(option, option, 0) for _ in staging.stages.recompute)
                yield Found(
                    config=config,
                    placing=placing,
                    staging=replace(staging, stages=replace(staging.stages, recompute=everywhere)),
                    prediction=prediction,
                    limit_bytes=request.limit_bytes,
                )
