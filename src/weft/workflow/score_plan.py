"""What a plan written by hand would cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.workflow.capture_recipe import capture_recipe
from weft.workflow.planned import Planned
from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from weft.capture import Workload
    from weft.machine.model import Machine
    from weft.parallel.pins import Pin
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.parallel.plan import Prediction

__all__ = ["score", "score_expert", "score_pipeline"]


def score_expert(
    recipe: str,
    machine: Machine,
    *,
    dp: int = 1,
    tp: int = 1,
    fsdp: bool = False,
    sp: bool = False,
    pins: Sequence[Pin] = (),
    progress: Progress = silent,
) -> Planned:
    """Capture the recipe's step and price the plan that an expert would write.

    Args:
        recipe: "file.py:function".
        machine: what to price it on.
        dp, tp: devices over which the batch and the layers are split.
        fsdp: also split parameters, gradients and optimizer state over `dp`.
        sp: also split activations between tensor-parallel regions along the sequence.
        pins: what the plan has to keep to.
        progress: told what is going on.

    Raises:
        InfeasibleError: these degrees do not keep a pin.
        InputError: `dp * tp` is more than the machine's number of devices, or does not divide.
    """
    from weft.parallel.experts import expert_plan

    captured = capture_recipe(recipe, progress=progress)
    program = captured.program
    plan = expert_plan(program, machine, dp=dp, tp=tp, fsdp=fsdp, sp=sp, pins=pins)
    return Planned(plan=plan, program=program, machine=machine, capture_s=captured.capture_s)


def score_pipeline(
    recipe: str,
    machine: Machine,
    *,
    pp: int,
    micro_batches: int,
    schedule: str = "1f1b",
    chunks: int = 1,
    dp: int = 1,
    tp: int = 1,
    fsdp: bool = False,
    sp: bool = False,
    pins: Sequence[Pin] = (),
    progress: Progress = silent,
) -> PipelinePlan:
    """Capture the recipe's step and price the pipeline that an expert would write.

    Args:
        recipe: "file.py:function".
        machine: what to price it on.
        pp: groups of devices.
        micro_batches: parts of the batch.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        chunks: stages of each group.
        dp, tp, fsdp, sp: degrees within a group, as in `score_expert`.
        pins: what the plan has to keep to.
        progress: told what is going on.

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
        dp=dp,
        tp=tp,
        fsdp=fsdp,
        sp=sp,
        pins=pins,
    )


def score(
    workload: Workload,
    machine: Machine,
    *,
    dp: int = 1,
    tp: int = 1,
    fsdp: bool = False,
    sp: bool = False,
) -> Prediction:
    """What a plan written by hand would cost on a machine: time of a step and peak memory.

    See `score_expert` for the arguments.
    """
    from weft.capture import capture
    from weft.parallel.experts import expert_plan

    program = capture(workload)
    return expert_plan(program, machine, dp=dp, tp=tp, fsdp=fsdp, sp=sp).prediction
