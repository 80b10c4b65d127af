"""Train a recipe with a plan: what each rank of `weft run` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunSettings", "StepReport", "run_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What to run.

    Attributes:
        recipe: "file.py:function".
        plan: a plan file, made for the recipe.
        steps: number of steps in all, those before a resume included.
        records: file for what is measured; None for none.
        checkpoint: folder for checkpoints; None for none.
        checkpoint_every: steps between checkpoints; 0 for none but the last.
        resume: whether to go on from the last checkpoint.
        compile: whether Inductor compiles the step.
    """

    recipe: str
    plan: Path
    steps: int
    records: Path | None = None
    checkpoint: Path | None = None
    checkpoint_every: int = 0
    resume: bool = False
    compile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One finished step: its number, the loss and the time it took [s]."""

    step: int
    loss: float
    step_s: float


def run_plan(settings: RunSettings, *, on_step: Callable[[StepReport], None]) -> None:
    raise NotImplementedError
