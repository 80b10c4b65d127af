"""Pipelines of the tree search as plans."""

from __future__ import annotations

from collections.abc import Callable

from weft.core.errors import InfeasibleError
from weft.parallel.depth import Views
from weft.parallel.mcts.staging import StageSearch
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.plan import Level
from weft.parallel.request import PlanRequest

__all__ = ["found_pipelines"]

SIMULATIONS = {Level.FAST: (48, 96), Level.BEST: (160, 320)}
"""Pipelines that the tree search and its refinement price. Derived: pieces of a model of 10,000
operators take a fifth of a second on each kind of group, and half of them are known already."""
PLANS = {Level.FAST: 3, Level.BEST: 6}
"""Pipelines that become plans. Chosen: each takes as long as an expert's, and the first of them was
mostly the best."""
FAR = 1.3
"""Time of the best pipeline by its pieces over what is known to be possible, beyond which it is not
varied. Derived: varying it made it at most a tenth shorter."""
CLOSE = 1.1
"""Time of a pipeline by its pieces over that of the best plan, up to which it becomes a plan too.
Derived: pieces tell the step to two percent."""


def found_pipelines(
    request: PlanRequest,
    views: Views | None,
    least_groups: int,
    most_s: float,
    stop: Callable[[], bool],
) -> tuple[list[PipelinePlan], InfeasibleError | None]:
    """Search, and make plans of the best.

    Args:
        request: what to plan.
        views: short versions of a deep program.
        least_groups: 1 to look at micro-batches on one group of all devices as well.
        most_s: a step that is of no interest, since something else is known to be faster [s].
        stop: asked before each step whether to end with what there is.

    Returns:
        The plans, and what pins of stages made impossible first.
    """
    if stop():
        return [], None
    sketch = StageSketch(request, views)
    search = StageSearch(sketch, least_groups, most_s)
    simulations, refinements = SIMULATIONS.get(request.level, SIMULATIONS[Level.FAST])
    search.run(simulations, stop)
    first = search.best(1)
    if first and first[0].fits and first[0].step_s > FAR * most_s:
        return [], sketch.broken
    search.refine(refinements, stop)
    found: list[PipelinePlan] = []
    for staging in search.best(PLANS.get(request.level, PLANS[Level.FAST])):
        if found and (stop() or staging.step_s > CLOSE * min(p.prediction.step_s for p in found)):
            break
        plan = sketch.fitted(staging)
        found += [] if plan is None else [plan]
    return found, sketch.broken
