"""What the fusion back end makes of a recipe's model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import load_workload

if TYPE_CHECKING:
    from weft.fusion.explained import Explanation

__all__ = ["fuse_recipe"]


def fuse_recipe(recipe: str, *, progress: Progress = silent) -> Explanation:
    """Compile a recipe's loss and its gradients, and say what became of their operators.

    Args:
        recipe: FILE.py:FUNCTION.
        progress: told how far it is.

    Raises:
        InputError: the recipe cannot be loaded.
        FileError: its file, or a package that it needs, is missing.
    """
    from weft.capture.workload import build_model
    from weft.fusion.explanation import explain

    workload = load_workload(recipe)
    progress("compile", None)
    model, batch = build_model(workload), workload.batch(0)
    found = explain(lambda: workload.loss(model, batch))
    progress("compile", 1.0)
    return replace(found, name=workload.name)
