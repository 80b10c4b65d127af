"""From a recipe and a machine to a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.workflow.capture_recipe import capture_recipe
from weft.workflow.planned import Planned
from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from weft.machine.model import Machine
    from weft.parallel.plan import Level

__all__ = ["plan_model"]


def plan_model(
    recipe: str,
    machine: Machine,
    *,
    level: Level,
    memory_limit_bytes: float | None = None,
    progress: Progress = silent,
) -> Planned:
    """Capture the recipe's step and search for the fastest way to split it.

    Args:
        recipe: "file.py:function".
        machine: what to plan for.
        level: how hard to look.
        memory_limit_bytes: most bytes on a device; the device's own memory if not given.
        progress: told what is going on.

    Raises:
        CaptureError: the workload cannot become a program.
        InfeasibleError: no plan fits the machine.
    """
    from weft.parallel import plan

    captured = capture_recipe(recipe, progress=progress)
    program = captured.program
    progress("plan", 0.0)
    decided = plan(program, machine, level=level.value, memory_limit_bytes=memory_limit_bytes)
    progress("plan", 1.0)
    return Planned(
        plan=decided, program=program, machine=machine, capture_s=captured.capture_s
    )
