"""From a recipe and a machine to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.workflow.capture_recipe import capture_recipe
from weft.workflow.planned import Planned, PlannedPipeline
from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from weft.machine.model import Machine
    from weft.parallel.pins import Pin
    from weft.parallel.plan import Level, ParallelPlan
    from weft.program.graph import Program

__all__ = ["plan_model", "plan_program"]


def plan_model(
    recipe: str,
    machine: Machine,
    *,
    level: Level,
    planner: str = "exact",
    memory_limit_bytes: float = 0.0,
    max_stages: int = 0,
    time_limit_s: float = float("inf"),
    pins: Sequence[Pin] = (),
    progress: Progress = silent,
) -> Planned | PlannedPipeline:
    """Capture the recipe's step and search for the fastest way to split it.

    Args:
        recipe: "file.py:function".
        machine: what to plan for.
        level: how hard to look.
        planner: who looks; one of `weft.parallel.planning.PLANNERS`.
        memory_limit_bytes: most bytes on a device; the device's own memory if 0.
        max_stages: 1 for plans of one stage only, 0 for as many as pay.
        time_limit_s: stop looking for better plans after this time [s].
        pins: what the plan has to keep to.
        progress: told what is going on.

    Raises:
        CaptureError: the workload cannot become a program.
        InputError: a pin names nothing.
        InfeasibleError: no plan fits the machine, or keeps the pins.
    """
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.parallel.planning import plan as search

    captured = capture_recipe(recipe, progress=progress)
    progress("plan", None)
    plan = search(
        captured.program,
        machine,
        planner=planner,
        level=level,
        memory_limit_bytes=memory_limit_bytes,
        max_stages=max_stages,
        time_limit_s=time_limit_s,
        pins=pins,
        progress=lambda text: progress("plan", None, text),
    )
    progress("plan", 1.0)
    program, capture_s = captured.program, captured.capture_s
    if isinstance(plan, PipelinePlan):
        return PlannedPipeline(plan=plan, program=program, machine=machine, capture_s=capture_s)
    return Planned(plan=plan, program=program, machine=machine, capture_s=capture_s)


def plan_program(
    program: Program,
    machine: Machine,
    *,
    level: Level,
    memory_limit_bytes: float = 0.0,
    pins: Sequence[Pin] = (),
    progress: Progress = silent,
) -> ParallelPlan:
    """The best plan of one stage, with its progress told; see `plan_model` for the arguments."""
    from weft.parallel.planning import plan as search

    progress("plan", None)
    plan = search(
        program,
        machine,
        level=level,
        memory_limit_bytes=memory_limit_bytes,
        max_stages=1,
        pins=pins,
        progress=lambda text: progress("plan", None, text),
    )
    progress("plan", 1.0)
    return plan
