"""Whether a pipeline keeps pins: each module in its stage, each tensor as pinned within it."""

from __future__ import annotations

from collections.abc import Sequence

from weft.parallel.kept import require_kept
from weft.parallel.pinning import Pinning
from weft.parallel.pipeline.pinned import own_pins, require_stages
from weft.parallel.pipeline.plan import StagedProgram
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import expand

__all__ = ["require_pipeline_kept"]


def require_pipeline_kept(
    plans: Sequence[ParallelPlan], staged: StagedProgram, pinning: Pinning
) -> None:
    """Check that a pipeline keeps pins.

    Args:
        plans: of the stages.
        staged: the program, cut into them.
        pinning: what is pinned in the program of one micro-batch.

    Raises:
        InfeasibleError: a pin is not kept; names it and where.
    """
    require_stages(staged.stages, staged.part, pinning)
    if not pinning.values:
        return
    for stage, own in zip(staged.stages, plans, strict=True):
        expanded = expand(stage.program, own.recompute)
        kept = own_pins(stage, pinning).through(expanded.origin, expanded.program)
        require_kept(own.mesh, own.strategies, own.copies, expanded.program, kept)
