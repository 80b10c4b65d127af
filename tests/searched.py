"""Pipelines that the search works out for a configuration that a test names."""

from __future__ import annotations

from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import Level
from weft.parallel.request import PlanRequest
from weft.program.fold import fold
from weft.program.graph import Program

MACHINE = preset("dgx-h100x1")


def searched(program: Program, config: Config, schedule: str) -> PipelinePlan:
    """The fastest plan of a configuration with a schedule."""
    search = PipelineSearch(
        PlanRequest(program=program, machine=MACHINE, level=Level.BEST),
        views_of(program, fold(program)),
    )
    found = search.worked_out(config, schedule)
    plan = search.built(min(found, key=lambda f: f.rank))
    assert plan is not None
    return plan
