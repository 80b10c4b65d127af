"""What a plan written by hand, or by another system, would cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from weft.workflow.capture_recipe import capture_recipe
from weft.workflow.planned import Planned
from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from weft.capture import Workload
    from weft.machine.model import Machine
    from weft.parallel.degrees import DegreeNames
    from weft.parallel.pins import Pin
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.parallel.plan import Prediction

__all__ = ["score", "score_expert", "score_pipeline", "score_placements"]


def score_expert(
    recipe: str,
    machine: Machine,
    *,
    pins: Sequence[Pin] = (),
    progress: Progress = silent,
    **degrees: Unpack[DegreeNames],
) -> Planned:
    """Capture the recipe's step and price the plan that an expert would write.

    Args:
        recipe: "file.py:function".
        machine: what to price it on.
        pins: what the plan has to keep to.
        progress: told what is going on.
        **degrees: as in `weft.parallel.experts.expert_plan`.

    Raises:
        InfeasibleError: these degrees do not keep a pin.
        InputError: the degrees are more than the machine's devices, or do not divide.
    """
    from weft.parallel.experts import expert_plan

    captured = capture_recipe(recipe, progress=progress)
    program = captured.program
    plan = expert_plan(program, machine, pins=pins, **degrees)
    return Planned(plan=plan, program=program, machine=machine, capture_s=captured.capture_s)


def score_pipeline(
    recipe: str,
    machine: Machine,
    *,
    pp: int,
    micro_batches: int,
    schedule: str = "1f1b",
    chunks: int = 1,
    by_group: Sequence[DegreeNames] = (),
    standing: Sequence[int] = (),
    pins: Sequence[Pin] = (),
    progress: Progress = silent,
    **degrees: Unpack[DegreeNames],
) -> PipelinePlan:
    """Capture the recipe's step and price the pipeline that an expert would write.

    Args:
        recipe: "file.py:function".
        machine: what to price it on.
        pp: groups of devices.
        micro_batches: parts of the batch.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        chunks: stages of each group.
        by_group: of each group, degrees in the place of those that all have.
        standing: of each group, on which block of ranks it stands; in the order of ranks if empty.
        pins: what the plan has to keep to.
        progress: told what is going on.
        **degrees: within a group, as in `score_expert`.

    Raises:
        InfeasibleError: these degrees do not keep a pin.
        InputError: the degrees, the schedule and the program do not go together.
    """
    from weft.parallel.pipeline.expert import pipeline_expert

    program = capture_recipe(recipe, progress=progress).program
    return pipeline_expert(
        program,
        machine,
        pp=pp,
        micro_batches=micro_batches,
        schedule=schedule,
        chunks=chunks,
        by_group=by_group,
        standing=standing,
        pins=pins,
        **degrees,
    )


def score_placements(
    recipe: str, machine: Machine, path: Path, *, progress: Progress = silent
) -> Planned | PipelinePlan:
    """Capture the recipe's step and price the plan that a file of placements describes.

    Args:
        recipe: "file.py:function".
        machine: what to price it on.
        path: as `weft.parallel.foreign.document` describes it.
        progress: told what is going on.

    Raises:
        FileError: the file is missing or no such file.
        InputError: an entry does not go with the program; names it.
    """
    from weft.parallel.foreign.plan import foreign_plan, read_foreign
    from weft.parallel.plan import ParallelPlan

    foreign = read_foreign(path)
    captured = capture_recipe(recipe, progress=progress)
    plan = foreign_plan(captured.program, machine, foreign)
    if not isinstance(plan, ParallelPlan):
        return plan
    return Planned(
        plan=plan, program=captured.program, machine=machine, capture_s=captured.capture_s
    )


def score(workload: Workload, machine: Machine, **degrees: Unpack[DegreeNames]) -> Prediction:
    """What a plan written by hand would cost on a machine: time of a step and peak memory.

    See `score_expert` for the arguments.
    """
    from weft.capture import capture
    from weft.parallel.experts import expert_plan

    program = capture(workload)
    return expert_plan(program, machine, **degrees).prediction
