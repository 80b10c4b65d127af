"""One rank of a pipeline cut by branches; prints on rank 0 how far it is from one process."""

from __future__ import annotations

import json
import sys

from benchmarks.job import program_of, workload_of
from tests.dist.pipeline_rank import compared
from weft.machine.presets import preset
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.pins import parse_pin
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.request import PlanRequest
from weft.program.graph import Program
from weft.runtime.deploy import deploy
from weft.runtime.world import joined

MACHINE = preset("dgx-h100x1")


def main(about: dict) -> None:
    recipe, steps = about.pop("recipe"), about.pop("steps")
    workload, program = workload_of(recipe, double=True), program_of(recipe, double=True)
    with joined(timeout_s=60) as world:
        plan = found(program, **about) if "config" in about else written(program, **about)
        step = deploy(plan, workload, world=world, program=program)
        losses = [float(step(workload.batch(number))) for number in range(steps)]
        state = step.full_state()
        if world.is_first:
            runs = [plan.cut.num_runs(stage) for stage in range(plan.num_stages)]
            print(json.dumps(compared(workload, losses, state) | {"runs": runs}))


def written(program: Program, pins: list[str], **degrees: object) -> PipelinePlan:
    """Towers in the stages that they are pinned to."""
    return pipeline_expert(program, MACHINE, pins=[parse_pin(text) for text in pins], **degrees)


def found(program: Program, config: dict[str, int], schedule: str) -> PipelinePlan:
    """The best that the search finds by branches."""
    search = PipelineSearch(PlanRequest(program=program, machine=MACHINE), None)
    every = search.worked_out(Config(**config), schedule)
    by_branches = [one for one in every if one.rows is not None]
    plan = search.built(min(by_branches, key=lambda one: one.rank))
    assert plan is not None
    return plan


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
