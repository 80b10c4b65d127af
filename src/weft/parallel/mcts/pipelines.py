"""Pipelines of the tree search as plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weft.core.errors import InfeasibleError, InputError, VerifyError
from weft.core.units import format_bytes
from weft.parallel.depth import Views
from weft.parallel.mcts.stage_sketch import StageSketch, Staging
from weft.parallel.mcts.staging import StageSearch
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import Alternative, Level
from weft.parallel.planner import PipelineOutcome
from weft.parallel.request import PlanRequest

__all__ = ["found_pipelines", "outcome_of"]

SIMULATIONS = {Level.FAST: (48, 96), Level.BEST: (160, 320)}
"""Pipelines that the tree search and its refinement price. Derived: pieces of a model of 10,000
operators take a fifth of a second on each kind of group, and half of them are known already."""
PLANS = {Level.FAST: 3, Level.BEST: 6}
"""Pipelines that become plans. Chosen: each takes as long as an expert's, and the first of them was
mostly the best."""
CLOSE = 1.1
"""Time of a pipeline by its pieces over that of the best plan, up to which it becomes a plan too.
Derived: pieces tell the step to two percent."""
MADE = 3
"""Times that a plan is made, each but the first with less memory, until it fits. Derived: pieces
tell the peak to a few percent."""
NAMED = 8
"""Pipelines that are named beside the best. Chosen: about as many as of one stage."""


def found_pipelines(
    request: PlanRequest,
    views: Views | None,
    least_groups: int,
    most_s: float,
    stop: Callable[[], bool],
) -> list[PipelinePlan]:
    """Search, and make plans of the best.

    Args:
        request: what to plan; where stages are pinned, nothing is found.
        views: short versions of a deep program.
        least_groups: 1 to look at micro-batches on one group of all devices as well.
        most_s: a step that is of no interest, since something else is known to be faster [s].
        stop: asked before each step whether to end with what there is.
    """
    if request.pinning.num_stages > 1 or stop():
        return []
    sketch = StageSketch(request, views)
    search = StageSearch(sketch, least_groups, most_s)
    simulations, refinements = SIMULATIONS.get(request.level, SIMULATIONS[Level.FAST])
    search.run(simulations, stop)
    search.refine(refinements, stop)
    found: list[PipelinePlan] = []
    for staging in search.best(PLANS.get(request.level, PLANS[Level.FAST])):
        if found and (stop() or staging.step_s > CLOSE * min(p.prediction.step_s for p in found)):
            break
        plan = _made(sketch, staging)
        found += [] if plan is None else [plan]
    return found


def _made(sketch: StageSketch, staging: Staging) -> PipelinePlan | None:
    """The plan; while it does not fit, with less memory; none if it cannot be made."""
    spare = 0.0
    for left in range(MADE - 1, -1, -1):
        try:
            plan = sketch.made(staging)
        except (InputError, InfeasibleError, VerifyError):
            return None  # layers that are alike in a short version are not in the whole program
        if plan.fits or not staging.fits or not left:
            return plan
        peak, limit = plan.tightest_bytes
        spare = 1.0 - (1.0 - spare) * min(limit / peak, 0.99)
        staging = sketch.staging(staging.staged, spare)
    return None


def outcome_of(found: Sequence[PipelinePlan], most_s: float) -> PipelineOutcome:
    """The best of some pipelines that fits, and the others.

    Args:
        found: all of them.
        most_s: a step that is of no interest [s].
    """
    order = sorted(found, key=lambda plan: (not plan.fits, plan.prediction.step_s))
    best = order[0] if order and order[0].fits else None
    if best is not None and best.prediction.step_s >= most_s:
        best = None
    tightest = ""
    if order and not order[0].fits:
        smallest = min(order, key=lambda plan: plan.tightest_bytes[0])
        tightest = f"pipelines need {format_bytes(smallest.tightest_bytes[0])}"
    others = [plan for plan in order if plan is not best][:NAMED]
    return PipelineOutcome(
        plan=best, alternatives=tuple(map(_alternative, others)), tightest=tightest
    )


def _alternative(plan: PipelinePlan) -> Alternative:
    devices = "+".join(map(str, plan.group_devices))
    return Alternative(
        name=f"pipeline {devices}, {plan.micro_batches} micro-batches, {plan.schedule}",
        step_s=plan.prediction.step_s,
        peak_bytes=plan.tightest_bytes[0],
        fits=plan.fits,
    )
