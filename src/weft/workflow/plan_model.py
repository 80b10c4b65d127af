"""From a recipe and a machine to a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weft.core.errors import InputError
from weft.workflow.capture_recipe import capture_recipe
from weft.workflow.planned import Planned, PlannedPipeline
from weft.workflow.progress import Progress, silent
from weft.workflow.stopping import asked_to_stop

if TYPE_CHECKING:
    from weft.machine.model import Machine
    from weft.parallel.pins import Pin
    from weft.parallel.plan import Level, ParallelPlan
    from weft.parallel.planner import Planner
    from weft.program.graph import Program

__all__ = ["Learning", "plan_model", "plan_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What is asked of the planner dqn.

    Attributes:
        resume: a file that the search goes on from if it is there, and is written to meanwhile.
        warm_start: file of a plan of one stage to begin with.
        episodes: how many are played; those of the level if None.
    """

    resume: Path | None = None
    warm_start: Path | None = None
    episodes: int | None = None


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
    learning: Learning | None = None,
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
        learning: what is asked of the planner dqn, if it is the one.
        progress: told what is going on.

    Raises:
        CaptureError: the workload cannot become a program.
        InputError: a pin names nothing, or another planner than dqn is asked to learn.
        FileError: a file of `learning` is damaged.
        MismatchError: it is of another question.
        InfeasibleError: no plan fits the machine, or keeps the pins.
    """
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.parallel.planning import plan as search

    _require_learner(learning, planner)
    captured = capture_recipe(recipe, progress=progress)
    progress("plan", None)
    learns = planner == "dqn"
    with asked_to_stop() if learns else nullcontext([None]) as asked:
        plan = search(
            captured.program,
            machine,
            planner=_learner(learning, lambda: asked[0] is not None) if learns else planner,
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


def _require_learner(learning: Learning | None, planner: str) -> None:
    if learning is not None and planner != "dqn":
        raise InputError(
            need="the planner dqn, which alone learns",
            got=f"the planner {planner}, with a file to resume from, a warm start or episodes",
            hint="add --planner dqn",
        )


def _learner(learning: Learning | None, stop: Callable[[], bool]) -> Planner:
    """The planner dqn, which ends with the best plan so far when it is told to."""
    from weft.parallel.dqn.planner import DqnPlanner
    from weft.parallel.plan_files import load_plan

    asked = learning or Learning()
    return DqnPlanner(
        warm_start=None if asked.warm_start is None else load_plan(asked.warm_start),
        state=asked.resume,
        episodes=asked.episodes,
        stop=stop,
    )


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
