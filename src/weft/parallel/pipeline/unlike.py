"""Pipelines on unlike devices: a stage for each kind, with as many layers as it is fast.

Groups of neighbouring nodes that are alike make one stage each, on which micro-batches are data
parallel; or two kinds that follow each other share one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

from weft.core.errors import InfeasibleError, InputError, VerifyError
from weft.parallel.degrees import DegreeNames
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows

__all__ = ["unlike_pipelines"]

COUNTS = (2, 4, 8, 16)
"""Micro-batches that are tried. Derived: with 16 on four stages the bubble is a fifth."""
MOST_KINDS = 6
"""Groups of nodes beyond which they are not all cut apart in every way."""


def unlike_pipelines(request: PlanRequest) -> list[PipelinePlan]:
    """All of them that divide, simulated, fastest first.

    Args:
        request: what to plan; none on a machine of equal devices, or where one stage is asked for.
    """
    if request.machine.is_uniform or request.max_stages == 1 or request.mesh is not None:
        return []
    rows = batch_rows(request.program)
    found: list[PipelinePlan] = []
    for sizes in _groupings(request):
        for count in COUNTS:
            if rows % count or any(rows // count % size for size in sizes):
                continue
            by_group = [DegreeNames(dp=size) for size in sizes]
            try:
                plan = pipeline_expert(
                    request.program,
                    request.machine,
                    pp=len(sizes),
                    micro_batches=count,
                    by_group=by_group,
                    pins=request.pins,
                )
            except (InputError, InfeasibleError, VerifyError):
                continue  # an engineer would not configure what does not divide
            found.append(plan)
    return sorted(found, key=lambda plan: plan.prediction.step_s)


def _groupings(request: PlanRequest) -> Iterator[tuple[int, ...]]:
    """Devices of each stage: neighbouring groups of nodes cut apart in all ways."""
    counts = [group.num_devices for group in request.machine.groups]
    if len(counts) > MOST_KINDS:
        yield tuple(counts)
        return
    places = range(1, len(counts))
    for number in range(1, len(counts)):
        for cuts in combinations(places, number):
            yield tuple(sum(counts[a:b]) for a, b in pairwise((0, *cuts, len(counts))))
