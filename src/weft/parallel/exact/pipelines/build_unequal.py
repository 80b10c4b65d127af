"""From a pipeline of unequal groups that a search found to a plan on the whole program."""

from __future__ import annotations

from dataclasses import replace

from weft.parallel.exact.pipelines.decide import Desk
from weft.parallel.exact.pipelines.found import Found
from weft.parallel.pipeline.estimate import simulated_pipeline
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.slicing import stage_plans
from weft.parallel.request import PlanRequest

__all__ = ["build_unequal"]


def build_unequal(request: PlanRequest, found: Found, rows: Rows) -> PipelinePlan | None:
    """The plan, simulated as it will run; none if it does not fit after all.

    Args:
        request: what was asked.
        found: what to build; its stages have grids of their own.
        rows: the micro-batch that it was found on.

    Raises:
        InfeasibleError: the plan does not keep a pin.
    """
    pieces, stages = rows.whole_cut, found.staging.stages
    count = found.config.micro_batches
    staged = StagedProgram(
        request.program, count, pieces.joined(stages.cuts), part=rows.whole.program
    )
    slicers = {
        (config, placing): Desk(rows, config, found.limit_bytes, request.level)
        .slicer(placing)
        .lifted(rows.whole)
        for config, placing in dict.fromkeys(found.own)
    }
    own = [slicers[of] for of in found.own]
    plans = stage_plans(rows, staged, stages.cuts, stages.recompute, own)
    require_pipeline_kept(plans, staged, rows.pinning)
    plan = simulated_pipeline(
        staged,
        plans,
        request.machine,
        num_groups=len(found.own),
        schedule=found.staging.schedule,
        memory_limit_bytes=request.limit_bytes,
    )
    if plan.prediction.peak_bytes > found.limit_bytes:
        return None
    bound_s = rows.bound_s([config.mesh for config, _ in found.own], count)
    return replace(plan, prediction=replace(plan.prediction, bound_s=bound_s))
