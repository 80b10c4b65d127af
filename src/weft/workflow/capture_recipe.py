"""From a recipe to a program."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import load_workload

if TYPE_CHECKING:
    from weft.program.graph import Program

__all__ = ["Captured", "capture_recipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A program and the time that capture took [s], loading of the recipe not included."""

    program: Program
    capture_s: float


def capture_recipe(recipe: str, *, progress: Progress = silent) -> Captured:
    """Load a recipe and capture its step.

    Raises:
        InputError: the recipe cannot be loaded.
        CaptureError: the workload cannot become a program.
    """
    from weft.capture import capture

    workload = load_workload(recipe)
    progress("capture", None)
    start_s = time.perf_counter()
    program = capture(workload)
    capture_s = time.perf_counter() - start_s
    progress("capture", 1.0)
    return Captured(program=program, capture_s=capture_s)
