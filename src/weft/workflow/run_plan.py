"""Train a recipe with a plan: what each rank of `weft run` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weft.workflow.recipe import load_workload

if TYPE_CHECKING:
    from weft.runtime.inductor import Compiler
    from weft.runtime.train import Outcome, StepDone

__all__ = ["COMPILERS", "RunSettings", "run_recipe"]

COMPILERS: tuple[Compiler, ...] = ("weft", "inductor")
"""Who may compile a step, see `weft.deploy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What to run.

    Attributes:
        recipe: "file.py:function".
        plan: a plan file, made for the recipe.
        steps: number of steps in all, those before a resume included.
        records: file for what is measured; None for none.
        checkpoint: folder for checkpoints; None for none.
        checkpoint_every: steps between checkpoints; 0 for one at the end only.
        resume: whether to go on from the newest checkpoint.
        compile: who compiles the step, one of `COMPILERS`; None to run it as it is.
    """

    recipe: str
    plan: Path
    steps: int
    records: Path | None = None
    checkpoint: Path | None = None
    checkpoint_every: int = 0
    resume: bool = False
    compile: Compiler | None = None


def run_recipe(
    settings: RunSettings,
    *,
    on_step: Callable[[StepDone], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Train; called by every rank.

    Args:
        settings: what to run.
        on_step: told of each finished step, on rank 0.
        tell: told what is being compiled, on rank 0.

    Raises:
        FileError: the plan file is missing or damaged, or no checkpoint is whole.
        MismatchError: the plan was made for another program or another number of ranks.
        RunError: a rank failed.
    """
    from weft.core.records import RecordLog
    from weft.parallel.plan_files import load_plan
    from weft.runtime.ahead import silent
    from weft.runtime.train import Schedule, run_plan

    schedule = Schedule(
        steps=settings.steps,
        checkpoints=settings.checkpoint,
        checkpoint_every=settings.checkpoint_every,
        resume=settings.resume,
    )
    plan = load_plan(settings.plan)
    return run_plan(
        plan,
        load_workload(settings.recipe),
        schedule,
        compile=settings.compile,
        log=None if settings.records is None else RecordLog(settings.records),
        on_step=on_step,
        tell=silent if tell is None else tell,
    )
