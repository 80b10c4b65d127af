"""From what a search found to a plan on the whole program, simulated as it will run."""

from __future__ import annotations

from dataclasses import replace

from weft.parallel.exact.pipelines.decide import Desk
from weft.parallel.exact.pipelines.evaluate import Staging, stagings
from weft.parallel.exact.pipelines.found import Found
from weft.parallel.pipeline.estimate import StageCost, simulated_pipeline
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.slicing import stage_plans
from weft.parallel.recompute import RECOMPUTATIONS
from weft.parallel.request import PlanRequest

__all__ = ["build"]

MOST_BUILDS = 6
"""Times that a plan is built, each but the first with less memory, until it fits. Derived: pieces
tell the peak to a few percent, so two suffice in most cases."""


def build(request: PlanRequest, found: Found, desk: Desk) -> PipelinePlan | None:
    """The plan, checked against the pins; cut anew while it does not fit, none if it never does.

    Args:
        request: what was asked.
        found: what to build.
        desk: where its placements were decided.

    Raises:
        InfeasibleError: the plan does not keep a pin.
    """
    builder = _Builder(request, found, desk)
    staging, limit = found.staging, found.limit_bytes
    ways = [(staging.schedule, staging.chunks)]
    options: list[list[StageCost]] = []
    for _ in range(MOST_BUILDS):
        plan = builder.plan(staging)
        peak = plan.prediction.peak_bytes
        if peak <= found.limit_bytes:
            return plan
        limit *= min(found.limit_bytes / peak, 0.99)
        options = options or [desk.costs(found.placing, option) for option in RECOMPUTATIONS]
        bounds = desk.rows.stage_bounds
        again = stagings(options, found.config, limit, ways, request.machine, bounds)
        if not again:
            return None
        staging = again[0]
    return None


class _Builder:
    """Writes plans for one found pipeline; lives only while it is built."""

    def __init__(self, request: PlanRequest, found: Found, desk: Desk) -> None:
        self._request = request
        self._found = found
        self._rows = desk.rows
        self._slicer = desk.slicer(found.placing).lifted(self._rows.whole)
        self._bound_s = desk.bound_s
        self._pieces = self._rows.whole_cut

    def plan(self, staging: Staging) -> PipelinePlan:
        """The plan with these stages, simulated."""
        found, request = self._found, self._request
        cut = self._pieces.joined(staging.stages.cuts)
        count, part = found.config.micro_batches, self._slicer.part
        staged = StagedProgram(request.program, count, cut, part=part)
        slicers = [self._slicer] * len(staged.stages)
        stages = staging.stages
        plans = stage_plans(self._rows, staged, stages.cuts, stages.recompute, slicers)
        require_pipeline_kept(plans, staged, self._rows.pinning)
        plan = simulated_pipeline(
            staged,
            plans,
            request.machine,
            num_groups=found.config.groups,
            schedule=staging.schedule,
            memory_limit_bytes=request.limit_bytes,
        )
        return replace(plan, prediction=replace(plan.prediction, bound_s=self._bound_s))
