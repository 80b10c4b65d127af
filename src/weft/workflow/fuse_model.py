"""What the fusion back end makes of a recipe's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from weft.fusion.explained import NO_OPTIONS
from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import load_workload

if TYPE_CHECKING:
    from weft.fusion.explained import Explanation

__all__ = ["fuse_recipe", "source_of"]


def fuse_recipe(
    recipe: str, *, options: Mapping[str, object] = NO_OPTIONS, progress: Progress = silent
) -> Explanation:
    """Compile a recipe's loss and its gradients, and say what became of their operators.

    Args:
        recipe: FILE.py:FUNCTION.
        options: as those of `torch.compile(backend="weft")`.
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
    found = explain(lambda: workload.loss(model, batch), options=options)
    progress("compile", 1.0)
    return replace(found, name=workload.name)


def source_of(fused: Explanation) -> str:
    """The C++ of all kernels that were taken, as it is compiled."""
    from weft.fusion.compile import unit

    users: dict[str, list[int]] = {}
    for number, region in enumerate(fused.regions):
        if region.source and not region.left:
            users.setdefault(region.source, []).append(number)
    texts = [
        f"// region{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}: "
        f"{', '.join(fused.regions[numbers[0]].operators)}\n{text}"
        for text, numbers in users.items()
    ]
    return unit(texts)
