"""Pipelines that the search works out for a configuration that a test names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.homed import devices as of_mixed
from weft.machine.presets import preset
from weft.parallel.degrees import DegreeNames, Degrees
from weft.parallel.depth import views_of
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.found import Placing
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.pipeline.again import Recompute
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.pipeline.staged import Shape, Staged
from weft.parallel.plan import Level
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.program.fold import fold
from weft.program.graph import Program

MACHINE = preset("dgx-h100x1")


def searched_unequal(
    program: Program, grids: Sequence[tuple[int, int]], micro_batches: int
) -> PipelinePlan:
    """A plan whose stages are cut for equal groups and whose groups have these grids.

    Args:
        program: what to plan.
        grids: of each group, parts that share out rows, and devices of each.
        micro_batches: parts of the batch.
    """
    each, groups = batch_rows(program) // micro_batches, len(grids)
    search = PipelineSearch(PlanRequest(program=program, machine=MACHINE, level=Level.BEST), None)
    alike = search.worked_out(Config(groups, 1, 1, micro_batches, each), "1f1b")
    own = [
        (Config(groups, data, inner, micro_batches, each // data), Placing())
        for data, inner in grids
    ]
    plan = search.built(replace(min(alike, key=lambda f: f.rank), own=tuple(own)))
    assert plan is not None
    return plan


def staged(
    program: Program,
    inside: Sequence[DegreeNames],
    standing: Sequence[int],
    micro_batches: int,
    schedule: str,
) -> PipelinePlan:
    """A pipeline as tree search makes them, some pieces of each stage recomputed.

    Args:
        program: what to plan.
        inside: how each group shares out a micro-batch.
        standing: of each group, on which block of ranks it stands.
        micro_batches: parts of the batch.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
    """
    degrees = tuple(Degrees.named(**own) for own in inside)
    sizes = tuple(own.num_devices for own in degrees)
    machine = of_mixed(sum(sizes))
    sketch = StageSketch(PlanRequest(program=program, machine=machine), None)
    shape = Shape(sizes, tuple(standing), micro_batches)
    even, *_ = sketch.cuts(shape, degrees, 1)
    decided = Staged(shape=shape, inside=degrees, schedule=schedule, chunks=1, cuts=even)
    again = (Recompute(0, 2, 1), Recompute(0, 1, 1), Recompute(1, 2, 1), Recompute(2, 2, 0))
    return sketch.made(replace(sketch.staging(decided), again=again[: len(sizes)]))


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
