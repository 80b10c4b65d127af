"""What the fusion back end makes of a recipe's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.workflow.fused import Fused, FusedPhase, FusedRegion
from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import load_workload

if TYPE_CHECKING:
    from weft.fusion.explanation import Explanation

__all__ = ["fuse_recipe"]


def fuse_recipe(recipe: str, *, progress: Progress = silent) -> Fused:
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
    return _plain(workload.name, found)


def _plain(name: str, found: Explanation) -> Fused:
    return Fused(
        name=name,
        words=str(found),
        regions=tuple(
            FusedRegion(
                operators=region.operators,
                phases=tuple(
                    FusedPhase(
                        shared_out=phase.shared_out,
                        nests=phase.nests,
                        seconds=phase.seconds,
                        num_bytes=phase.num_bytes,
                    )
                    for phase in region.phases
                ),
                seconds=region.plan.seconds,
                bound_s=region.plan.bound_s,
                num_bytes=region.plan.num_bytes,
                unfused_bytes=region.plan.unfused_bytes,
                plan=region.plan.to_json(),
                source=region.source,
                left=region.left,
            )
            for region in found.regions
        ),
        graphs=found.graphs,
    )
